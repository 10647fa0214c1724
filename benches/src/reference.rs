//! Reference forwarders: the same job as a relay, done the plain way on one pinned thread.
//!
//! `epoll` waits for readiness and reads and writes datagrams one by one on unconnected sockets, as forwarders usually
//! do. `epoll-nap` is the honest rival: connected sockets, and half a millisecond of sleep between drains, so that
//! work comes in batches. Both are level-triggered and read one datagram per readiness, which saves the read that
//! finds nothing. They check what any forwarder must: RTP version, length, and that the source is the learned one.
//!
//! A forwarder runs as a process of its own, so that its CPU time is its own; it is steered by lines on standard input.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::packet::HEADER_BYTES;
use crate::sys::{self, DATAGRAM_BYTES_MAX, Epoll};
use crate::target::IoCount;

/// How long the honest rival sleeps between drains.
const NAP: Duration = Duration::from_micros(500);
/// Ready sockets taken from one wait.
const EVENTS_MAX: usize = 256;
/// An idle forwarder looks this often whether it is to end, in milliseconds.
const IDLE_MS: i32 = 100;
/// Receive buffer of a port in bytes.
const RECEIVE_BUFFER_BYTES: i32 = 1 << 20;

/// Which forwarder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// epoll, `recvfrom` and `sendto` on unconnected sockets.
    Epoll,
    /// epoll, `recv` and `send` on connected sockets, 500 µs of sleep between drains.
    EpollNap,
}

impl Kind {
    /// Its name on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::EpollNap => "epoll-nap",
        }
    }
}

/// What a forwarder has done, readable from another thread.
#[derive(Debug, Default)]
pub struct Counters {
    syscalls: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The same, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// System calls made: waits, reads, writes, sleeps, connects.
    pub syscalls: u64,
    /// Datagrams read.
    pub received: u64,
    /// Datagrams written.
    pub sent: u64,
    /// Datagrams dropped: not RTP, from a stranger, nowhere to go, or refused by the kernel.
    pub dropped: u64,
}

impl Counters {
    /// The counts now.
    #[must_use]
    pub fn read(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            syscalls: load(&self.syscalls),
            received: load(&self.received),
            sent: load(&self.sent),
            dropped: load(&self.dropped),
        }
    }

    fn publish(&self, counts: &Counts) {
        self.syscalls.store(counts.syscalls, Ordering::Relaxed);
        self.received.store(counts.received, Ordering::Relaxed);
        self.sent.store(counts.sent, Ordering::Relaxed);
        self.dropped.store(counts.dropped, Ordering::Relaxed);
    }
}

/// One side of a pair.
struct Port {
    socket: UdpSocket,
    /// Who sends here, learned from the first packet; packets from the other side go there.
    remote: Option<SocketAddr>,
}

/// A forwarder of pairs: ports 0 and 1, 2 and 3, and so on.
pub struct Forwarder {
    kind: Kind,
    ports: Vec<Port>,
    epoll: Epoll,
    counts: Counts,
}

impl Forwarder {
    /// Binds `pairs` pairs of ports on loopback.
    ///
    /// # Errors
    /// The system has no sockets or ports left.
    pub fn bind(kind: Kind, pairs: usize) -> io::Result<Self> {
        let epoll = Epoll::new(EVENTS_MAX)?;
        let ports = (0..2 * pairs)
            .map(|index| {
                let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
                socket.set_nonblocking(true)?;
                sys::set_receive_buffer(&socket, RECEIVE_BUFFER_BYTES)?;
                epoll.add(&socket, index as u64)?;
                Ok(Port { socket, remote: None })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { kind, ports, epoll, counts: Counts::default() })
    }

    /// The addresses of its ports, in order.
    ///
    /// # Errors
    /// What the system says.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.ports.iter().map(|port| port.socket.local_addr()).collect()
    }

    /// Forwards until `stop` is set, publishing what it did once a wait.
    ///
    /// # Errors
    /// The wait failed.
    pub fn run(&mut self, stop: &AtomicBool, counters: &Counters) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let ready = self.epoll.wait(IDLE_MS)?;
            self.counts.syscalls += 1;
            self.forward_ready(ready);
            if self.kind == Kind::EpollNap {
                self.drain()?;
                std::thread::sleep(NAP);
                self.counts.syscalls += 1;
            }
            counters.publish(&self.counts);
        }
        Ok(())
    }

    /// Forwards until nothing is ready.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let ready = self.epoll.wait(0)?;
            self.counts.syscalls += 1;
            if ready == 0 {
                return Ok(());
            }
            self.forward_ready(ready);
        }
    }

    fn forward_ready(&mut self, ready: usize) {
        for event in 0..ready {
            let index = usize::try_from(self.epoll.token(event)).unwrap_or(usize::MAX);
            if index < self.ports.len() && !self.forward_one(index) {
                self.counts.dropped += 1;
            }
        }
    }

    /// Reads one datagram from port `index` and writes it out on the other port of its pair. False if it was dropped.
    fn forward_one(&mut self, index: usize) -> bool {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        self.counts.syscalls += 1;
        let length = match (self.kind, self.ports[index].remote) {
            (Kind::EpollNap, Some(_)) => match self.ports[index].socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(_) => return false,
            },
            (Kind::Epoll | Kind::EpollNap, known) => {
                let Ok((length, source)) = self.ports[index].socket.recv_from(&mut buffer) else { return false };
                if known.is_some_and(|known| known != source) {
                    return false;
                }
                if known.is_none() {
                    self.learn(index, source);
                }
                length
            }
        };
        self.counts.received += 1;
        if length < HEADER_BYTES || buffer[0] >> 6 != 2 {
            return false;
        }
        let out = &self.ports[index ^ 1];
        let Some(remote) = out.remote else { return false };
        self.counts.syscalls += 1;
        let result = match self.kind {
            Kind::Epoll => out.socket.send_to(&buffer[..length], remote),
            Kind::EpollNap => out.socket.send(&buffer[..length]),
        };
        self.counts.sent += u64::from(result.is_ok());
        result.is_ok()
    }

    fn learn(&mut self, index: usize, source: SocketAddr) {
        if self.kind == Kind::EpollNap {
            self.counts.syscalls += 1;
            if self.ports[index].socket.connect(source).is_err() {
                return;
            }
        }
        self.ports[index].remote = Some(source);
    }
}

/// First line a forwarder process prints.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    addresses: Vec<SocketAddr>,
}

/// Runs a forwarder in this process: prints its addresses, answers each line on standard input with its counts, ends
/// at the end of standard input.
///
/// # Errors
/// The system has no sockets left, refuses the CPU, or the wait failed.
pub fn serve(kind: Kind, pairs: usize, cpu: usize) -> Result<()> {
    let mut forwarder = Forwarder::bind(kind, pairs).map_err(Error::io("cannot bind the forwarder's ports"))?;
    let addresses = forwarder.addresses().map_err(Error::io("addresses"))?;
    let stop = AtomicBool::new(false);
    let counters = Arc::new(Counters::default());
    print_line(&Ready { addresses })?;
    std::thread::scope(|scope| {
        let (stop, counters) = (&stop, &counters);
        scope.spawn(move || {
            for line in io::stdin().lock().lines() {
                if line.is_err() || print_line(&counters.read()).is_err() {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        // The thread above keeps the CPU it inherited; only the forwarding one is moved.
        let result = sys::pin_to_cpu(cpu).and_then(|()| forwarder.run(stop, counters));
        result.map_err(Error::io("forwarder"))
    })
}

fn print_line(value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value).map_err(|error| Error::Protocol(error.to_string()))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::io("standard output"))
}

/// A forwarder running as a child process. Ends with this value.
pub struct ForwarderProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    addresses: Vec<SocketAddr>,
}

impl ForwarderProcess {
    /// Starts `program` (this very tool) as a forwarder of `pairs` pairs, pinned to `cpu`.
    ///
    /// # Errors
    /// It did not start, or did not print its addresses.
    pub fn start(program: &std::path::Path, kind: Kind, pairs: usize, cpu: usize) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["reference", "--kind", kind.name()])
            .args(["--pairs", &pairs.to_string(), "--cpu", &cpu.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(format!("cannot start {}", program.display())))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Setup("a child process without pipes".into()));
        };
        let mut process = Self { child, input: Some(input), output: BufReader::new(output), addresses: Vec::new() };
        process.addresses = process.read::<Ready>()?.addresses;
        Ok(process)
    }

    /// Its ports, two for each pair.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has done so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn counts(&mut self) -> Result<Counts> {
        let input = self.input.as_mut().ok_or_else(|| Error::Setup("the forwarder has ended".into()))?;
        input.write_all(b"counts\n").map_err(Error::io("forwarder"))?;
        self.read()
    }

    fn read<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Error::io("forwarder"))?;
        serde_json::from_str(&line).map_err(|error| Error::Protocol(format!("forwarder said {line:?}: {error}")))
    }
}

impl Drop for ForwarderProcess {
    fn drop(&mut self) {
        // The end of its input ends it; waiting is bounded by its look at the stop flag.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

impl From<Counts> for IoCount {
    fn from(counts: Counts) -> Self {
        Self { syscalls: counts.syscalls, packets: counts.received }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pacing::Pacing;
    use crate::traffic::{self, PacedPlan, SaturatedPlan};

    /// Runs `load` against a forwarder of `pairs` pairs on a thread of its own.
    fn with_forwarder(kind: Kind, pairs: usize, load: impl FnOnce(&[SocketAddr])) -> Counts {
        let mut forwarder = Forwarder::bind(kind, pairs).unwrap();
        let addresses = forwarder.addresses().unwrap();
        let (stop, counters) = (AtomicBool::new(false), Counters::default());
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| forwarder.run(&stop, &counters));
            load(&addresses);
            stop.store(true, Ordering::Relaxed);
            worker.join().unwrap().unwrap();
        });
        counters.read()
    }

    fn check_paced(kind: Kind) {
        let counts = with_forwarder(kind, 8, |addresses| {
            let mut endpoints = traffic::relay_endpoints(None, 5, 16).unwrap();
            for (endpoint, address) in endpoints.iter().zip(addresses) {
                endpoint.connect(*address).unwrap();
            }
            let stop = AtomicBool::new(false);
            traffic::prime(&mut endpoints, &stop).unwrap();
            let plan = PacedPlan {
                rate: 2_000,
                warmup: Duration::from_millis(50),
                measured: Duration::from_millis(200),
                pacing: Pacing::Sleep,
            };
            let mut marks = Vec::new();
            let outcome = traffic::run_paced(&mut endpoints, &plan, &stop, &AtomicU64::new(0), |mark| {
                marks.push(mark);
                Ok(())
            })
            .unwrap();
            assert_eq!(marks, [traffic::Mark::Open, traffic::Mark::Close]);
            assert_eq!(outcome.verdict.sent, 400);
            assert!(outcome.verdict.is_clean(), "{:?}", outcome.verdict);
            assert_eq!((outcome.forwarded, outcome.delays.len(), outcome.send_errors), (400, 400, 0));
        });
        assert_eq!(counts.received - counts.dropped, counts.sent);
        assert!(counts.syscalls >= 2 * counts.sent, "{counts:?}");
    }

    #[test]
    fn epoll_forwards_every_packet() {
        check_paced(Kind::Epoll);
    }

    #[test]
    fn epoll_nap_forwards_every_packet() {
        check_paced(Kind::EpollNap);
    }

    #[test]
    fn a_saturated_forwarder_loses_nothing_and_the_window_is_kept() {
        for kind in [Kind::Epoll, Kind::EpollNap] {
            with_forwarder(kind, 4, |addresses| {
                let mut endpoints = traffic::relay_endpoints(None, 6, 8).unwrap();
                for (endpoint, address) in endpoints.iter().zip(addresses) {
                    endpoint.connect(*address).unwrap();
                }
                let stop = AtomicBool::new(false);
                traffic::prime(&mut endpoints, &stop).unwrap();
                let plan = SaturatedPlan {
                    window: 64,
                    train: 4,
                    source_rate: 1_000.0,
                    warmup: Duration::from_millis(20),
                    measured: Duration::from_millis(100),
                };
                let done = AtomicU64::new(0);
                let outcome = traffic::run_saturated(&mut endpoints, &plan, &stop, &done, |_| Ok(())).unwrap();
                assert!(outcome.verdict.is_clean(), "{:?}", outcome.verdict);
                assert!(outcome.verdict.sent > 64, "{:?}", outcome.verdict);
                let saturation = outcome.saturation.unwrap();
                assert!(saturation.in_flight_mean <= 64.0, "{saturation:?}");
            });
        }
    }

    #[test]
    fn strangers_and_garbage_are_dropped() {
        for kind in [Kind::Epoll, Kind::EpollNap] {
            with_forwarder(kind, 1, |addresses| {
                let mut endpoints = traffic::relay_endpoints(None, 7, 2).unwrap();
                for (endpoint, address) in endpoints.iter().zip(addresses) {
                    endpoint.connect(*address).unwrap();
                }
                let stop = AtomicBool::new(false);
                traffic::prime(&mut endpoints, &stop).unwrap();
                let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
                stranger.send_to(&[0x80; 172], addresses[0]).unwrap();
                let plan = PacedPlan {
                    rate: 500,
                    warmup: Duration::ZERO,
                    measured: Duration::from_millis(40),
                    pacing: Pacing::Sleep,
                };
                let done = AtomicU64::new(0);
                let outcome = traffic::run_paced(&mut endpoints, &plan, &stop, &done, |_| Ok(())).unwrap();
                assert!(outcome.verdict.is_clean(), "{:?}", outcome.verdict);
            });
        }
    }

    #[test]
    fn streams_that_do_not_come_through_are_reported() {
        let mut endpoints = traffic::relay_endpoints(None, 8, 2).unwrap();
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        for endpoint in &endpoints {
            endpoint.connect(sink.local_addr().unwrap()).unwrap();
        }
        let error = traffic::prime(&mut endpoints, &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains("2 of 2 streams"), "{error}");
    }
}
