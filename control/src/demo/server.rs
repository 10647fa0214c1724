//! The server as a child process: started on a free range of ports, ended by SIGTERM.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::DemoError;

/// How long the server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ports the server gets: pairs for the five connections and some to spare.
const PORTS: u16 = 32;
/// Where a free range is looked for: below the ports the system hands out by itself.
const PORTS_FROM: u16 = 20_000;
/// End of that.
const PORTS_TO: u16 = 32_000;

/// A running server. Killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts `executable` with all it keeps below `directory`, and waits until it accepts commands.
    pub(super) fn start(executable: &Path, directory: &Path) -> Result<Self, DemoError> {
        let log = File::create(directory.join(LOG)).map_err(|error| DemoError::io("create the server's log", error))?;
        let (from, to) = free_ports()?;
        let mut child = Command::new(executable)
            .arg("serve")
            .arg("--control-socket")
            .arg(directory.join(SOCKET))
            .args(["--bind", "127.0.0.1", "--ports", &format!("{from}-{to}"), "--state-dir"])
            .arg(directory)
            .arg("--audio-root")
            .arg(directory.join(AUDIO))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| DemoError::io("start the server", error))?;
        let stdout = child.stdout.take();
        let server = Self { child, directory: directory.to_owned() };
        let (sender, ready) = mpsc::channel();
        let reader = move || {
            // Read to the end, so that the server can always write.
            for line in BufReader::new(stdout.into_iter().next()?).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
            Some(())
        };
        std::thread::Builder::new()
            .name("demo-server".to_owned())
            .spawn(reader)
            .map_err(|error| DemoError::io("start a thread", error))?;
        let start = Instant::now();
        loop {
            match ready.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(line) if line.starts_with("ready ") => return Ok(server),
                Ok(_) => {}
                Err(_) => return Err(DemoError::Server(format!("it did not get ready\n{}", server.log()))),
            }
        }
    }

    /// Its control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Asks it to end, and waits for that.
    pub(super) fn stop(mut self) -> Result<(), DemoError> {
        let failed = |error: io::Error| DemoError::io("end the server", error);
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(|errno| failed(errno.into()))?;
        let start = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().map_err(failed)? {
                break status;
            }
            if start.elapsed() > PATIENCE {
                return Err(DemoError::Server(format!("it did not end when asked to\n{}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if status.success() {
            return Ok(());
        }
        Err(DemoError::Server(format!("it ended with {status}\n{}", self.log())))
    }

    /// The last lines it logged.
    pub(super) fn log(&self) -> String {
        let text = std::fs::read(self.directory.join(LOG)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A range of ports of which every one is free now.
fn free_ports() -> Result<(u16, u16), DemoError> {
    (PORTS_FROM..PORTS_TO)
        .step_by(usize::from(PORTS))
        // Not everybody from the same end.
        .cycle()
        .skip(std::process::id() as usize % 300)
        .take(usize::from((PORTS_TO - PORTS_FROM) / PORTS))
        .map(|from| (from, from + PORTS - 1))
        .find(|(from, to)| (*from..=*to).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()))
        .ok_or_else(|| DemoError::Server(format!("no {PORTS} UDP ports in a row are free on 127.0.0.1")))
}

const SOCKET: &str = "control.sock";
const LOG: &str = "server.log";
/// Directory of prompts below the server's.
pub(super) const AUDIO: &str = "audio";
/// Directory of recordings below the server's.
pub(super) const RECORDINGS: &str = "recordings";
const LOG_LINES: usize = 20;
