//! A server on pretended shards, and clients of its socket.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::LocalSet;

use super::fake::World;
use crate::config::{Config, Machine, PortRange, ShardCount};
use crate::server::{self, ServeError};

/// A running server.
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) dir: TempDir,
    socket: PathBuf,
    stop: tokio::sync::mpsc::Sender<()>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// One client of the control socket.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
    answers: Vec<Value>,
    last_id: u64,
}

impl Rig {
    /// A server with `shards` shards and a few ports nobody else uses.
    pub(super) fn start(shards: u8) -> Self {
        Self::start_with(shards, |_| {})
    }

    /// The same with changes to its configuration.
    pub(super) fn start_with(shards: u8, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("run/control.sock");
        let mut config = Config {
            shards: ShardCount::Fixed(shards),
            ports: free_ports(200),
            control_socket: Some(socket.clone()),
            state_dir: Some(dir.path().join("state")),
            media_threads: 1,
            drain_deadline_ms: 0,
            fault_injection: true,
            ..Config::default()
        };
        change(&mut config);
        let world = World::default();
        let starter = world.starter();
        let (stop, stops) = tokio::sync::mpsc::channel(2);
        let (ready, is_ready) = mpsc::channel();
        let machine = Machine { cpus: vec![0], files: 65_536 };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let announce = move |path: &std::path::Path, _| ready.send(path.to_owned()).expect("somebody waits");
            LocalSet::new().block_on(&runtime, server::run(config, &machine, starter, stops, announce))
        });
        match is_ready.recv_timeout(PATIENCE) {
            Ok(path) => assert_eq!(path, socket),
            Err(_) => panic!("the server did not start: {:?}", thread.join()),
        }
        Self { world, dir, socket, stop, thread: Some(thread) }
    }

    /// A new client.
    pub(super) fn client(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).expect("a server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { stream: BufReader::new(stream), events: Vec::new(), answers: Vec::new(), last_id: 0 }
    }

    /// Puts a short prompt below the audio root.
    pub(super) fn prompt(&self, name: &str) {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let path = self.dir.path().join("state/audio").join(name);
        let mut writer = hound::WavWriter::create(path, spec).expect("a file");
        for sample in 0..160i16 {
            writer.write_sample(sample).expect("written");
        }
        writer.finalize().expect("closed");
    }

    /// Tells the server to stop.
    pub(super) fn tell_to_stop(&self) {
        // It may have ended by itself, or have been told more than once.
        let _ = self.stop.try_send(());
    }

    /// Waits until the server has ended by itself.
    pub(super) fn join(&mut self) -> Result<(), ServeError> {
        self.thread.take().expect("not joined yet").join().expect("no panic")
    }

    /// Whether the socket's file is there.
    pub(super) fn socket_exists(&self) -> bool {
        self.socket.exists()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("no panic").expect("a tidy end");
            }
        }
    }
}

impl Client {
    /// Calls a method and returns the whole answer.
    pub(super) fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Calls a method that has to succeed.
    pub(super) fn ok(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Calls a method that has to fail with `code`; returns the error's data.
    #[track_caller]
    pub(super) fn fails(&mut self, method: &str, params: Value, code: i64) -> Value {
        let mut answer = self.ask(method, params);
        assert_eq!(answer["error"]["code"], code, "{method}: {answer}");
        answer["error"]["data"].take()
    }

    /// Sends a request without waiting for the answer; returns its id.
    pub(super) fn send(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
        id
    }

    /// Sends one line as it is.
    pub(super) fn line(&mut self, line: &str) {
        self.try_line(line).expect("the server reads");
    }

    /// Sends one line, which may fail.
    pub(super) fn try_line(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    /// Closes the sending side.
    pub(super) fn shut_down_sending(&mut self) {
        self.stream.get_mut().shutdown(std::net::Shutdown::Write).expect("open");
    }

    /// The next line from the server; `None` if it has closed.
    pub(super) fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("one JSON object a line")),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing was said: {error}"),
        }
    }

    /// The answer to `id`; events and other answers that come first are kept.
    pub(super) fn answer(&mut self, id: u64) -> Value {
        if let Some(kept) = self.answers.iter().position(|answer| answer["id"] == id) {
            return self.answers.swap_remove(kept);
        }
        loop {
            let message = self.read().expect("an answer");
            if message["method"] == "event" {
                self.events.push(message["params"].clone());
            } else if message["id"] == id {
                return message;
            } else {
                self.answers.push(message);
            }
        }
    }

    /// Events that came before the answers read so far.
    pub(super) fn events_so_far(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }

    /// The next event of that name; others that come first are dropped.
    pub(super) fn event(&mut self, name: &str) -> Value {
        let mut kept = std::mem::take(&mut self.events).into_iter();
        if let Some(event) = kept.by_ref().find(|event| event["event"] == name) {
            self.events = kept.collect();
            return event;
        }
        loop {
            let message = self.read().expect("an event");
            if message["method"] == "event" && message["params"]["event"] == name {
                return message["params"].clone();
            }
        }
    }

    /// A new connection; returns its id.
    pub(super) fn connection(&mut self, params: Value) -> String {
        let created = self.ok("connection.create", params);
        created["connection_id"].as_str().expect("an id").to_owned()
    }

    /// A new conference; returns its id.
    pub(super) fn conference(&mut self, params: Value) -> String {
        let created = self.ok("conference.create", params);
        created["conference_id"].as_str().expect("an id").to_owned()
    }
}

/// Waits until something holds.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A range of `ports` ports. Servers of tests that run at the same time in one process get ranges of their own; the
/// pool passes over what other processes hold.
pub(crate) fn free_ports(ports: u16) -> PortRange {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 3).expect("small") * PROCESS_PORTS;
    let lo = 10_000 + process + NEXT.fetch_add(ports, Ordering::Relaxed) % (PROCESS_PORTS - ports);
    PortRange::new(lo & !1, lo + ports - 1).expect("a range")
}

/// A free TCP port on loopback.
pub(super) fn free_tcp_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

/// Ports the tests of one process use, below those that the system gives out by itself.
const PROCESS_PORTS: u16 = 6_400;
/// How long to wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);
