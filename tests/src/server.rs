//! The server under test: a child process with a directory, a control socket and a range of ports of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringbridge_control::client::{Client, ClientError, ServerError};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{PATIENCE, until};

/// How a server is to be started.
#[derive(Debug)]
pub struct Setup {
    binary: PathBuf,
    shards: u8,
    pairs: u16,
    config: String,
    args: Vec<String>,
    panics: bool,
}

impl Setup {
    /// One shard, eight pairs of ports, no wait for connections when it ends. `binary` is the server's executable.
    pub fn new(binary: &str) -> Self {
        let config = "drain_deadline_ms = 0\n".to_owned();
        Self { binary: binary.into(), shards: 1, pairs: 8, config, args: Vec::new(), panics: false }
    }

    /// That many shards.
    #[must_use]
    pub fn shards(mut self, shards: u8) -> Self {
        self.shards = shards;
        self
    }

    /// That many pairs of ports.
    #[must_use]
    pub fn pairs(mut self, pairs: u16) -> Self {
        self.pairs = pairs;
        self
    }

    /// A further line of the configuration file.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push_str(line);
        self.config.push('\n');
        self
    }

    /// A further option of the command line.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Shards may be made to panic; else a panic in the log is a failure.
    #[must_use]
    pub fn with_panics(mut self) -> Self {
        self.panics = true;
        self.config("fault_injection = true")
    }

    /// Starts it and waits until it accepts commands.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(self) -> Server {
        self.start_in(tempfile::tempdir().expect("a directory"))
    }

    /// Starts it in a directory that holds what it is to find there.
    ///
    /// # Panics
    /// If it does not accept commands.
    pub fn start_in(self, directory: TempDir) -> Server {
        let ports = Ports::take(self.pairs);
        let file = directory.path().join("ringbridge.toml");
        fs::write(&file, &self.config).expect("written");
        let (child, client) = self.spawn(directory.path(), &ports);
        Server { setup: self, directory, ports, child: Some(child), client: Some(client) }
    }

    fn spawn(&self, directory: &Path, ports: &Ports) -> (Child, Client) {
        let log = File::options().create(true).append(true).open(directory.join(LOG)).expect("a log");
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(directory.join("ringbridge.toml"));
        command.args(["--shards", &self.shards.to_string(), "--ports", &ports.to_string(), "--control-socket"]);
        command.arg(directory.join(SOCKET)).arg("--state-dir").arg(directory).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the server starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            // Read to the end, so that the server can always write.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Only the first line is waited for.
                let _ = sender.send(line);
            }
        });
        let ready = ready.recv_timeout(PATIENCE);
        let expected = format!("ready control={} shards={}", directory.join(SOCKET).display(), self.shards);
        if ready.as_ref() != Ok(&expected) {
            // The test fails anyway.
            let _ = child.kill();
            panic!("not ready: {ready:?}\n{}", read_log(directory));
        }
        let client = Client::connect(&directory.join(SOCKET)).expect("it accepts commands");
        (child, client)
    }
}

/// A running server. Has to be ended by [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    directory: TempDir,
    ports: Ports,
    child: Option<Child>,
    client: Option<Client>,
}

impl Server {
    /// Its directory: prompts in `audio`, recordings in `recordings`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where a prompt of that name lies.
    pub fn prompt(&self, name: &str) -> PathBuf {
        self.directory().join("audio").join(name)
    }

    /// Where a recording of that name lies.
    pub fn recording(&self, name: &str) -> PathBuf {
        self.directory().join("recordings").join(name)
    }

    /// Its ports, both ends included.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.range.clone()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The connection to its control socket.
    ///
    /// # Panics
    /// If it has ended.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("it runs")
    }

    /// Another connection to its control socket.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn connect(&self) -> Client {
        Client::connect(&self.directory().join(SOCKET)).expect("it accepts clients")
    }

    /// Another connection to its control socket, for lines of any kind.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn connect_raw(&self) -> RawClient {
        let stream = UnixStream::connect(self.directory().join(SOCKET)).expect("it accepts clients");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        RawClient { reader: BufReader::new(stream.try_clone().expect("a descriptor")), stream }
    }

    /// A call that has to succeed.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn ok(&self, method: &str, params: Value) -> Value {
        match self.client().call(method, &params) {
            Ok(result) => result,
            Err(error) => panic!("{method} {params}: {error}\n{}", self.log()),
        }
    }

    /// A call that has to be refused.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn refused(&self, method: &str, params: Value) -> ServerError {
        match self.client().call(method, &params) {
            Err(ClientError::Server { error, .. }) => error,
            other => panic!("{method} {params}: {other:?}"),
        }
    }

    /// Creates a connection.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn create(&self, params: Value) -> Leg {
        let created = self.ok("connection.create", params);
        let address = |name: &str| created[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        Leg { id: text(&created["connection_id"]), local: address("local"), local_rtcp: address("local_rtcp") }
    }

    /// What `connection.get` says.
    #[track_caller]
    pub fn get(&self, id: &str) -> Value {
        self.ok("connection.get", json!({ "connection_id": id }))
    }

    /// One figure of `server.stats`, of all shards together. `pointer` as in `/drops/late`.
    ///
    /// # Panics
    /// If there is no such figure.
    #[track_caller]
    pub fn figure(&self, pointer: &str) -> u64 {
        let stats = self.ok("server.stats", Value::Null);
        let shards = stats["shards"].as_array().expect("shards");
        let figure = |shard: &Value| shard.pointer(pointer).and_then(Value::as_u64).expect("a figure");
        shards.iter().filter(|shard| shard["up"] == true).map(figure).sum()
    }

    /// Pairs of ports that are free.
    ///
    /// # Panics
    /// If the server does not say.
    #[track_caller]
    pub fn pairs_free(&self) -> u64 {
        self.ok("server.stats", Value::Null)["control"]["port_pairs_free"].as_u64().expect("a figure")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        read_log(self.directory())
    }

    /// Ends it with SIGTERM and wants it to end well.
    ///
    /// # Panics
    /// If it does not, or has logged a panic that was not asked for.
    pub fn stop(mut self) {
        self.terminate();
    }

    /// Ends it with SIGTERM and starts it again at once, on the same ports.
    ///
    /// # Panics
    /// If it does not end well, or does not start.
    pub fn restart(&mut self) {
        self.terminate();
        let (child, client) = self.setup.spawn(self.directory.path(), &self.ports);
        (self.child, self.client) = (Some(child), Some(client));
    }

    /// Kills it with SIGKILL and starts it again, on the same ports.
    ///
    /// # Panics
    /// If it does not start.
    pub fn kill_and_restart(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it has ended");
        self.client = None;
        let (child, client) = self.setup.spawn(self.directory.path(), &self.ports);
        (self.child, self.client) = (Some(child), Some(client));
    }

    fn terminate(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it is ours");
        let status = wait_for_exit(&mut child).unwrap_or_else(|| {
            // The test fails anyway.
            let _ = child.kill();
            panic!("it did not end when told to\n{}", self.log())
        });
        self.client = None;
        assert!(status.success(), "it ended with {status}\n{}", self.log());
        assert!(self.setup.panics || !self.log().contains("panicked at"), "it panicked\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Either it has ended already, or this ends it.
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        } else {
            panic!("a test ends its server with `stop`");
        }
    }
}

/// Waits until a process has ended; `None` if it does not.
pub fn wait_for_exit(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A connection on the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leg {
    /// Its id.
    pub id: String,
    /// Where it takes RTP.
    pub local: SocketAddr,
    /// Where it takes RTCP.
    pub local_rtcp: SocketAddr,
}

/// A client that sends lines of any kind.
#[derive(Debug)]
pub struct RawClient {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl RawClient {
    /// Sends bytes as they are.
    ///
    /// # Panics
    /// If the server does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it reads");
    }

    /// Sends bytes for as long as the server takes them; `false` if it has closed the connection or stopped reading.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a request.
    pub fn request(&mut self, id: u64, method: &str, params: Value) {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(format!("{line}\n").as_bytes());
    }

    /// The next line.
    ///
    /// # Panics
    /// If there is none, or it is no JSON.
    #[track_caller]
    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line comes");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    /// Whether the server has closed the connection, once everything before that is read.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Follows the events of a server, each seen once.
#[derive(Debug)]
pub struct Events {
    client: Client,
    seen: Vec<Value>,
}

impl Events {
    /// Follows all events from now on.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn follow(server: &Server) -> Self {
        let client = server.connect();
        client.subscribe(&[]).expect("subscribed");
        Self { client, seen: Vec::new() }
    }

    /// Waits for an event of this name whose `key` is `value`.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn wait(&mut self, name: &str, key: &str, value: &str) -> Value {
        until(&format!("{name} with {key} {value}"), || {
            self.take(Duration::from_millis(10));
            self.of(name, key, value).first().cloned()
        })
    }

    /// Takes what has come, until nothing comes for `pause`.
    pub fn take(&mut self, pause: Duration) {
        while let Ok(Some(event)) = self.client.next_event(pause) {
            self.seen.push(event);
        }
    }

    /// Every event of this name seen so far whose `key` is `value`.
    pub fn of(&self, name: &str, key: &str, value: &str) -> Vec<Value> {
        self.seen.iter().filter(|event| event["event"] == name && event[key] == value).cloned().collect()
    }

    /// Takes everything up to now: what happened before a call that has been answered is told before that answer's
    /// successor on this very connection.
    ///
    /// # Panics
    /// If the server is gone.
    pub fn settle(&mut self) {
        self.client.call("server.info", &Value::Null).expect("answered");
        self.take(Duration::from_millis(100));
    }
}

/// A range of ports that no other test uses, in this process or another.
#[derive(Debug)]
struct Ports {
    range: RangeInclusive<u16>,
    /// The name is the lock: the kernel gives it back when its holder ends, however that comes about.
    _locks: Vec<UnixListener>,
}

impl Ports {
    fn take(pairs: u16) -> Self {
        /// Where to look next.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let blocks = (2 * pairs).div_ceil(BLOCK);
        until("a free range of ports", || {
            let start = u32::from(NEXT.fetch_add(blocks, Ordering::Relaxed)) + std::process::id() * 7;
            let start = u16::try_from(start % u32::from(BLOCKS - blocks)).ok()?;
            let locks: Option<Vec<_>> = (start..start + blocks)
                .map(|block| {
                    let name = UnixAddr::from_abstract_name(format!("ringbridge-tests-ports-{block}")).ok()?;
                    UnixListener::bind_addr(&name).ok()
                })
                .collect();
            let first = PORTS_FROM + start * BLOCK;
            let range = first..=first + 2 * pairs - 1;
            let free = range.clone().all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
            free.then_some(Self { range, _locks: locks? })
        })
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.range.start(), self.range.end())
    }
}

/// The first of two ports, an even one, for a program that binds them itself: nobody else gets them before or afterwards,
/// until this process ends.
pub fn free_pair() -> u16 {
    let ports = Ports::take(1);
    let first = *ports.range.start();
    std::mem::forget(ports);
    first
}

/// A member of an answer that has to be text.
///
/// # Panics
/// If it is none.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn read_log(directory: &Path) -> String {
    fs::read(directory.join(LOG)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

const SOCKET: &str = "control.sock";
const LOG: &str = "server.log";
/// First port of all tests: below those the system hands out by itself.
const PORTS_FROM: u16 = 10_240;
/// Ports that are taken together.
const BLOCK: u16 = 16;
/// Blocks there are.
const BLOCKS: u16 = 600;
