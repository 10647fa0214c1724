//! The thread that sends and receives: many endpoints, one socket each, paced or saturated.
//!
//! One thread does both. An endpoint is read right after it has sent, in its own turn, once a packet time: one system
//! call brings what came since, the kernel's receive stamps make the late reading harmless, and because no wait queue
//! hangs on the sockets the server's sends pay for no wake-up of ours. What is measured as delay begins right before
//! the send call and ends with the kernel's stamp: it holds two loopback passes (some microseconds each) besides the
//! server's own time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::wall_ns;
use crate::error::{Error, Result};
use crate::figures::duration_histogram;
use crate::listener::Capture;
use crate::mulaw;
use crate::pacing::{Lateness, Pacing, Schedule, wait_until};
use crate::packet::{self, Contents, HEADER_BYTES, PACKET_BYTES, RtpStream, SAMPLES};
use crate::signal;
use crate::sys::{self, RecvBatch};
use crate::verify::{Verdict, Verifier};
use crate::window::{Bucket, Window};

/// Receive buffer of an endpoint in bytes: some hundred packets, far more than a packet time brings.
const RECEIVE_BUFFER_BYTES: i32 = 256 * 1024;
/// Packets read by one system call when a packet is expected in each.
const PACED_BATCH: usize = 4;
/// Packets read by one system call under saturation.
const SATURATED_BATCH: usize = 16;
/// Packets sent both ways before anything is measured, so that the server knows every endpoint.
const PRIME_ROUNDS: u64 = 5;
/// Packets per second of each source then: what any server expects of one.
const PRIME_SOURCE_RATE: u64 = 50;
/// Packets per second over all sources then.
const PRIME_RATE_MAX: u64 = 50_000;
/// How long the first packets may take to come through.
const PRIME_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after the last packet the CPU is still counted, so that its handling is.
const TAIL: Duration = Duration::from_millis(5);
/// How long after the last arrival stragglers are waited for.
const STRAGGLER_TIMEOUT: Duration = Duration::from_millis(500);
/// Time without any arrival after which saturated windows are written off as lost.
const STALL_TIMEOUT: Duration = Duration::from_millis(100);
/// Rest of all sources once one has used up its burst: as long as the server's buckets need to fill again.
const REST: Duration = Duration::from_millis(125);
/// Longest train of packets handed to the kernel in one send.
pub const TRAIN_MAX: u32 = 16;

/// What an endpoint sends.
#[derive(Debug)]
pub enum Source {
    /// Packets that prove themselves, for a relay.
    Pattern {
        /// Run.
        run: u32,
        /// Stream.
        stream: u32,
    },
    /// A voice of a conference, with the send time of each packet.
    Voice {
        /// Index of the voice.
        voice: usize,
        /// Send times, nanoseconds of `CLOCK_REALTIME`.
        sent_ns: Vec<u64>,
    },
    /// A conference member that is silent: packets full of µ-law zero.
    Silence,
}

/// What an endpoint does with what it receives.
#[derive(Debug)]
pub enum Sink {
    /// Checks each packet.
    Verify(Verifier),
    /// Keeps each packet for later.
    Capture(Capture),
    /// Counts only.
    Count,
}

/// One endpoint: a socket that sends one stream and receives one.
#[derive(Debug)]
pub struct Endpoint {
    socket: UdpSocket,
    rtp: RtpStream,
    source: Source,
    sink: Sink,
    sent: u64,
    received: u64,
}

/// A moment of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The measured window begins.
    Open,
    /// The measured window ends.
    Close,
}

/// A paced run.
#[derive(Clone, Copy, Debug)]
pub struct PacedPlan {
    /// Packets per second over all endpoints.
    pub rate: u64,
    /// Time before the measured window.
    pub warmup: Duration,
    /// Length of the measured window.
    pub measured: Duration,
    /// How to wait between packets.
    pub pacing: Pacing,
}

impl PacedPlan {
    /// Packets it sends, before the measured window and in it.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let schedule = Schedule::new(self.rate);
        schedule.packets_in(self.warmup) + schedule.packets_in(self.measured).max(1)
    }
}

/// A saturated run.
#[derive(Clone, Copy, Debug)]
pub struct SaturatedPlan {
    /// Packets under way over all endpoints.
    pub window: u32,
    /// Packets handed to the kernel in one send.
    pub train: u32,
    /// The rate each source stands for, packets per second: it is policed to four times as much.
    pub source_rate: f64,
    /// Time before the measured window.
    pub warmup: Duration,
    /// Length of the measured window.
    pub measured: Duration,
}

/// What a run's traffic showed.
#[derive(Debug)]
pub struct Outcome {
    /// Length of the measured window in seconds.
    pub seconds: f64,
    /// Packets that came back inside the measured window, for "per packet" figures.
    pub forwarded: u64,
    /// What became of the packets of verified streams.
    pub verdict: Verdict,
    /// Delay from send to receive, nanoseconds.
    pub delays: Histogram<u64>,
    /// How late the sends were; empty under saturation.
    pub lateness: Lateness,
    /// Sends the kernel refused.
    pub send_errors: u64,
    /// Wall clock times between which the window was open.
    pub window_ns: std::ops::Range<u64>,
    /// Only under saturation.
    pub saturation: Option<Saturation>,
}

/// How saturated a saturated run was.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Saturation {
    /// Mean number of packets under way.
    pub in_flight_mean: f64,
    /// Share of the generator's rounds over all sockets that found nothing to read: spare time of the generator.
    pub idle_rounds_share: f64,
    /// Packets that lay queued at the forwarder, on average: mean delay times rate (Little's law).
    pub queued: f64,
    /// Time spent resting so that the server's policing of sources does not drop anything, in seconds.
    pub rested_seconds: f64,
    /// Packets written off as lost to keep the windows open.
    pub written_off: u64,
}

impl Endpoint {
    /// An endpoint on a free port of `bind`, not yet connected.
    ///
    /// # Errors
    /// The system has no socket or port left.
    pub fn bind(bind: IpAddr, rtp: RtpStream, source: Source, sink: Sink) -> Result<Self> {
        let what = || format!("cannot open a socket on {bind}");
        let socket = UdpSocket::bind((bind, 0)).map_err(Error::io(what()))?;
        socket.set_nonblocking(true).map_err(Error::io(what()))?;
        sys::enable_kernel_stamps(&socket).map_err(Error::io(what()))?;
        sys::set_receive_buffer(&socket, RECEIVE_BUFFER_BYTES).map_err(Error::io(what()))?;
        Ok(Self { socket, rtp, source, sink, sent: 0, received: 0 })
    }

    /// An endpoint of run `run` that sends verified stream `stream` and expects stream `peer`.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub fn relayed(bind: IpAddr, run: u32, stream: u32, peer: u32) -> Result<Self> {
        let source = Source::Pattern { run, stream };
        Self::bind(bind, RtpStream::numbered(run, stream), source, Sink::Verify(Verifier::new(run, peer)))
    }

    /// The address it sends from.
    ///
    /// # Errors
    /// What the system says.
    pub fn local(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(Error::io("endpoint address"))
    }

    /// Sends to `remote`, and receives only from there, from now on.
    ///
    /// # Errors
    /// `remote` is not on loopback, or the system refuses.
    pub fn connect(&self, remote: SocketAddr) -> Result<()> {
        if !remote.ip().is_loopback() {
            return Err(Error::Setup(format!("{remote} is not on loopback: load is only sent there")));
        }
        self.socket.connect(remote).map_err(Error::io(format!("cannot connect to {remote}")))
    }

    /// What it sends.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What it made of what it received.
    #[must_use]
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Writes the next packet into `packet` and moves on.
    fn write_next(&mut self, packet: &mut [u8; PACKET_BYTES]) {
        let number = self.sent;
        self.sent += 1;
        let sent_ns = wall_ns();
        match &mut self.source {
            Source::Pattern { run, stream } => {
                let contents = Contents { run: *run, stream: *stream, number, sent_ns };
                packet::emit(&self.rtp, &contents, packet);
            }
            Source::Voice { voice, sent_ns: times } => {
                packet[..HEADER_BYTES].copy_from_slice(&self.rtp.header_with(number, number == 0));
                packet[HEADER_BYTES..].copy_from_slice(signal::voice_frame(*voice, number * SAMPLES as u64));
                times.push(sent_ns);
            }
            Source::Silence => {
                packet[..HEADER_BYTES].copy_from_slice(&self.rtp.header_with(number, number == 0));
                packet[HEADER_BYTES..].fill(mulaw::SILENCE);
            }
        }
    }

    /// Sends the next packet. False if the kernel refused it; it then counts as sent and lost.
    fn send(&mut self) -> bool {
        let mut packet = [0; PACKET_BYTES];
        self.write_next(&mut packet);
        self.hand_over(&packet)
    }

    /// Sends the next `packets` packets with one system call; the socket must split sends at the packet size.
    fn send_train(&mut self, packets: u32) -> bool {
        let mut train = [0; PACKET_BYTES * TRAIN_MAX as usize];
        let length = PACKET_BYTES * packets.min(TRAIN_MAX) as usize;
        for packet in train[..length].as_chunks_mut().0 {
            self.write_next(packet);
        }
        self.hand_over(&train[..length])
    }

    fn hand_over(&self, bytes: &[u8]) -> bool {
        match self.socket.send(bytes) {
            Ok(_) => true,
            // A pending ICMP error of an earlier packet is reported by the next send, which then was not made.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.socket.send(bytes).is_ok(),
            Err(_) => false,
        }
    }

    /// Reads what has come. Returns how many new packets that were: for verified streams first arrivals only.
    fn drain(&mut self, batch: &mut RecvBatch, delays: &mut Histogram<u64>) -> Result<u32> {
        let mut fresh = 0;
        loop {
            let received = match batch.receive(&self.socket) {
                Ok(received) => received,
                // The error is consumed by being reported; what is queued behind it can be read.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(Error::io("receive")(error)),
            };
            let mut now = None;
            for datagram in batch.datagrams() {
                let arrival_ns = datagram.arrival_ns.unwrap_or_else(|| *now.get_or_insert_with(wall_ns));
                let is_new = match &mut self.sink {
                    Sink::Verify(verifier) => verifier.accept(datagram.bytes, arrival_ns, delays),
                    Sink::Capture(capture) => {
                        capture.push(datagram.bytes, arrival_ns);
                        true
                    }
                    Sink::Count => true,
                };
                fresh += u32::from(is_new);
            }
            if received < batch.capacity() {
                self.received += u64::from(fresh);
                return Ok(fresh);
            }
        }
    }

    fn open_window(&mut self, peer_sent: u64) {
        if let Sink::Verify(verifier) = &mut self.sink {
            verifier.open_window(peer_sent);
        }
    }

    fn close_window(&mut self, peer_sent: u64) {
        if let Sink::Verify(verifier) = &mut self.sink {
            verifier.close_window(peer_sent);
        }
    }

    fn is_waiting_for_stragglers(&self) -> bool {
        match &self.sink {
            Sink::Verify(verifier) => !verifier.is_complete(),
            Sink::Capture(_) | Sink::Count => false,
        }
    }

    /// Whether the far side's first packet has not come through yet. Only verified streams are waited for.
    fn is_deaf(&self) -> bool {
        matches!(self.sink, Sink::Verify(_)) && self.received == 0
    }
}

/// Index of the endpoint at the other end of the relay that `index` stands at.
fn peer_of(index: usize) -> usize {
    index ^ 1
}

/// Opens `streams` endpoints (an even number) in pairs: each sends its own stream and expects its neighbour's.
///
/// # Errors
/// The system has no socket or port left.
pub fn relay_endpoints(bind: Option<IpAddr>, run: u32, streams: u32) -> Result<Vec<Endpoint>> {
    let bind = bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    (0..streams).map(|stream| Endpoint::relayed(bind, run, stream, stream ^ 1)).collect()
}

/// Sends a few packets from every endpoint until each verified stream has come through.
///
/// # Errors
/// Some stream did not come through in 5 s, or the user interrupted.
pub fn prime(endpoints: &mut [Endpoint], stop: &AtomicBool) -> Result<()> {
    let mut batch = RecvBatch::new(PACED_BATCH);
    let mut unused = duration_histogram();
    let count = endpoints.len() as u64;
    let schedule = Schedule::new((count * PRIME_SOURCE_RATE).min(PRIME_RATE_MAX));
    let start = Instant::now();
    for round in 0.. {
        let deaf = endpoints.iter().filter(|endpoint| endpoint.is_deaf()).count();
        if round >= PRIME_ROUNDS && deaf == 0 {
            return Ok(());
        }
        if round >= PRIME_ROUNDS && start.elapsed() > PRIME_TIMEOUT {
            return Err(Error::Setup(format!("{deaf} of {count} streams do not come through")));
        }
        for (index, endpoint) in (0u64..).zip(&mut *endpoints) {
            wait_until(start + schedule.due(round * count + index), Pacing::Sleep, stop)?;
            endpoint.send();
            endpoint.drain(&mut batch, &mut unused)?;
        }
    }
    Ok(())
}

/// Runs a paced load over all endpoints in turn. `on_mark` is called at the borders of the measured window, while the
/// load goes on; `done` counts packets.
///
/// # Errors
/// The user interrupted, a socket failed, or `on_mark` did.
pub fn run_paced(
    endpoints: &mut [Endpoint],
    plan: &PacedPlan,
    stop: &AtomicBool,
    done: &AtomicU64,
    mut on_mark: impl FnMut(Mark) -> Result<()>,
) -> Result<Outcome> {
    if endpoints.is_empty() {
        return Err(Error::Setup("no streams".into()));
    }
    let mut batch = RecvBatch::new(PACED_BATCH);
    let mut delays = duration_histogram();
    let mut lateness = Lateness::default();
    let mut send_errors = 0;
    let schedule = Schedule::new(plan.rate);
    let first_measured = schedule.packets_in(plan.warmup);
    let total = plan.packets();
    let (mut opened_ns, mut opened_at) = (0, Instant::now());
    let mut received_before = 0;
    let start = Instant::now() + Duration::from_millis(5);
    let mut turn = 0;
    for index in 0..total {
        let due = start + schedule.due(index);
        let now = wait_until(due, plan.pacing, stop)?;
        if index == first_measured {
            received_before = received_by(endpoints);
            open_windows(endpoints);
            on_mark(Mark::Open)?;
            (opened_ns, opened_at) = (wall_ns(), Instant::now());
        }
        if index >= first_measured {
            lateness.record(now.saturating_duration_since(due));
        }
        let endpoint = &mut endpoints[turn];
        send_errors += u64::from(!endpoint.send());
        endpoint.drain(&mut batch, &mut delays)?;
        turn = (turn + 1) % endpoints.len();
        if index.is_multiple_of(1024) {
            done.store(index, Ordering::Relaxed);
        }
    }
    std::thread::sleep(TAIL);
    on_mark(Mark::Close)?;
    let (closed_ns, seconds) = (wall_ns(), opened_at.elapsed().as_secs_f64());
    close_windows(endpoints);
    drain_stragglers(endpoints, &mut batch, &mut delays)?;
    let verdict = verdict_of(endpoints);
    // Unverified streams have no numbers to match; there what came is counted by time, give or take a packet time.
    let forwarded = if verdict.sent > 0 { verdict.arrived } else { received_by(endpoints) - received_before };
    let window_ns = opened_ns..closed_ns;
    Ok(Outcome { seconds, forwarded, verdict, delays, lateness, send_errors, window_ns, saturation: None })
}

/// Runs a closed-loop load over relayed endpoints: as many packets under way as the plan says, for the planned time.
///
/// # Errors
/// As for [`run_paced`].
pub fn run_saturated(
    endpoints: &mut [Endpoint],
    plan: &SaturatedPlan,
    stop: &AtomicBool,
    done: &AtomicU64,
    mut on_mark: impl FnMut(Mark) -> Result<()>,
) -> Result<Outcome> {
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX).max(1);
    let train = plan.train.clamp(1, TRAIN_MAX);
    for endpoint in &*endpoints {
        let bytes = u16::try_from(PACKET_BYTES).unwrap_or(u16::MAX);
        sys::enable_segmented_sends(&endpoint.socket, bytes).map_err(Error::io("UDP_SEGMENT"))?;
    }
    let mut batch = RecvBatch::new(SATURATED_BATCH);
    let mut delays = duration_histogram();
    let mut windows = vec![Window::new((plan.window / count).max(train), train); endpoints.len()];
    let mut buckets = vec![Bucket::new(plan.source_rate, wall_ns()); endpoints.len()];
    let mut rounds = Rounds::default();
    let mut send_errors = 0;
    let start = Instant::now();
    let (mut opened, mut received_before) = (None, 0);
    let mut last_arrival = start;
    let mut resting_until = start;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let now = Instant::now();
        let elapsed = now - start;
        done.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if opened.is_none() && elapsed >= plan.warmup {
            open_windows(endpoints);
            received_before = received_by(endpoints);
            on_mark(Mark::Open)?;
            rounds = Rounds::default();
            opened = Some((wall_ns(), Instant::now()));
        }
        if elapsed >= plan.warmup + plan.measured {
            break;
        }
        let now_ns = wall_ns();
        let resting = now < resting_until;
        let mut spent = false;
        let mut arrived = 0;
        for index in 0..endpoints.len() {
            let fresh = endpoints[index].drain(&mut batch, &mut delays)?;
            windows[peer_of(index)].returned(fresh);
            arrived += fresh;
            let grant = windows[index].grant();
            if grant == 0 || resting {
                continue;
            }
            if !buckets[index].take(grant, now_ns) {
                spent = true;
                continue;
            }
            send_errors += u64::from(!endpoints[index].send_train(grant));
            windows[index].sent(grant);
        }
        if spent {
            resting_until = now + REST;
            rounds.rested += REST;
        }
        if resting {
            // Nothing is measured of a rest; it is no stall either.
            last_arrival = now;
            continue;
        }
        if arrived > 0 {
            last_arrival = now;
        } else if now - last_arrival > STALL_TIMEOUT {
            rounds.written_off += windows.iter_mut().map(|window| u64::from(window.write_off())).sum::<u64>();
            last_arrival = now;
        }
        rounds.count(arrived, windows.iter().map(|window| u64::from(window.outstanding())).sum());
    }
    on_mark(Mark::Close)?;
    let (opened_ns, opened_at) = opened.unwrap_or_else(|| (wall_ns(), Instant::now()));
    // Rates are those between the rests.
    let seconds = opened_at.elapsed().saturating_sub(rounds.rested).as_secs_f64();
    let closed_ns = wall_ns();
    let forwarded = received_by(endpoints) - received_before;
    let queued = delays.mean() / 1e9 * forwarded as f64 / seconds.max(f64::MIN_POSITIVE);
    close_windows(endpoints);
    drain_stragglers(endpoints, &mut batch, &mut delays)?;
    Ok(Outcome {
        seconds,
        forwarded,
        verdict: verdict_of(endpoints),
        delays,
        lateness: Lateness::default(),
        send_errors,
        window_ns: opened_ns..closed_ns,
        saturation: Some(rounds.summary(queued)),
    })
}

/// Bookkeeping of a saturated run.
#[derive(Default)]
struct Rounds {
    rounds: u64,
    idle: u64,
    in_flight: u64,
    rested: Duration,
    written_off: u64,
}

impl Rounds {
    fn count(&mut self, arrived: u32, in_flight: u64) {
        self.rounds += 1;
        self.idle += u64::from(arrived == 0);
        self.in_flight += in_flight;
    }

    fn summary(&self, queued: f64) -> Saturation {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Saturation {
            in_flight_mean: share(self.in_flight, self.rounds),
            idle_rounds_share: share(self.idle, self.rounds),
            queued,
            rested_seconds: self.rested.as_secs_f64(),
            written_off: self.written_off,
        }
    }
}

/// New packets all endpoints together have received so far.
#[must_use]
pub fn received_by(endpoints: &[Endpoint]) -> u64 {
    endpoints.iter().map(|endpoint| endpoint.received).sum()
}

fn open_windows(endpoints: &mut [Endpoint]) {
    let sent: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.sent).collect();
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        endpoint.open_window(sent.get(peer_of(index)).copied().unwrap_or(0));
    }
}

fn close_windows(endpoints: &mut [Endpoint]) {
    let sent: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.sent).collect();
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        endpoint.close_window(sent.get(peer_of(index)).copied().unwrap_or(0));
    }
}

fn verdict_of(endpoints: &[Endpoint]) -> Verdict {
    let mut verdict = Verdict::default();
    for endpoint in endpoints {
        if let Sink::Verify(verifier) = &endpoint.sink {
            verdict += verifier.verdict();
        }
    }
    verdict
}

/// Reads until everything sent has come, or nothing has come for a while.
fn drain_stragglers(endpoints: &mut [Endpoint], batch: &mut RecvBatch, delays: &mut Histogram<u64>) -> Result<()> {
    let mut last_arrival = Instant::now();
    loop {
        let mut arrived = 0;
        for endpoint in &mut *endpoints {
            arrived += endpoint.drain(batch, delays)?;
        }
        if arrived > 0 {
            last_arrival = Instant::now();
        }
        let complete = !endpoints.iter().any(Endpoint::is_waiting_for_stragglers);
        if complete || last_arrival.elapsed() > STRAGGLER_TIMEOUT {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Why a saturated run is void, if it is: less than half of the window lay queued at the forwarder, so that it did not
/// always find a full batch.
#[must_use]
pub fn unsaturated_reason(saturation: &Saturation, window: u32) -> Option<String> {
    let wanted = f64::from(window) / 2.0;
    (saturation.queued < wanted).then(|| {
        format!(
            "not saturated: on average {:.0} packets queued at the forwarder, {wanted:.0} wanted; the generator had \
             {:.1} % of its rounds to spare (more --window or --train?)",
            saturation.queued,
            saturation.idle_rounds_share * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saturated_run_needs_half_the_window_queued() {
        let saturation = |queued| Saturation {
            in_flight_mean: 500.0,
            idle_rounds_share: 0.1,
            queued,
            rested_seconds: 0.0,
            written_off: 0,
        };
        assert_eq!(unsaturated_reason(&saturation(256.0), 512), None);
        assert!(unsaturated_reason(&saturation(255.0), 512).unwrap().contains("not saturated"));
    }

    #[test]
    fn only_loopback_is_sent_to() {
        let endpoint = Endpoint::relayed(IpAddr::V4(Ipv4Addr::LOCALHOST), 1, 0, 1).unwrap();
        assert!(endpoint.connect("192.0.2.1:4000".parse().unwrap()).is_err());
        assert!(endpoint.connect("127.0.0.1:4000".parse().unwrap()).is_ok());
    }

    #[test]
    fn an_empty_load_is_refused() {
        let plan = PacedPlan { rate: 1, warmup: Duration::ZERO, measured: Duration::ZERO, pacing: Pacing::Sleep };
        let stop = AtomicBool::new(false);
        assert!(run_paced(&mut [], &plan, &stop, &AtomicU64::new(0), |_| Ok(())).is_err());
    }
}
