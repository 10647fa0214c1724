//! A simulated network for deterministic tests: the shard's packet I/O without a kernel, on a virtual clock.
//!
//! ```text
//!   endpoint ──send──▶ link: loss, duplicates, delay, reordering ──▶ socket queue ──wait──▶ SimIo ──▶ engine
//!            ◀─────────────────────────── poll_receive ◀──────────── flush, wait ◀─────────────────────┘
//! ```
//!
//! One [`SimNet`] is shared by any number of [`SimIo`], one a shard, and by the endpoints the test plays. Sockets
//! behave as the kernel's do: each has a bounded queue that outlives the port that reads it, connecting one drops
//! foreign sources from then on, and nobody hears of a datagram sent to an address where nobody is.
//!
//! The test owns the clock and nothing waits. All randomness comes from one seed and is drawn in the order of the
//! sends, so the same calls give the same trace, byte for byte. Allocates freely.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use ringbridge_media::event::DropReason;
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, Transmit};
use ringbridge_media::time::Instant;

use crate::io::{IoCounters, PacketIo, WaitPlan};

/// What every link of the network does to datagrams. Probabilities lie in `0.0 ..= 1.0`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkProfile {
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability that a datagram is held back by `reorder_by`, so that later ones overtake it.
    pub reorder: f64,
    /// How long it is held back.
    pub reorder_by: Duration,
    /// Travel time.
    pub delay: Duration,
    /// Travel time is longer by up to this, evenly spread. Jitter alone reorders nothing: a link is a queue.
    pub jitter: Duration,
}

impl LinkProfile {
    /// Loses, delays and reorders nothing.
    pub const PERFECT: Self = Self {
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        reorder_by: Duration::ZERO,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };
}

/// What has become of the datagrams of a [`SimNet`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SimCounters {
    /// Given to the network.
    pub sent: u64,
    /// Lost on the link.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Arrived in a queue.
    pub delivered: u64,
    /// From a source other than the one the socket is connected to.
    pub foreign: u64,
    /// Found the queue full.
    pub queue_full: u64,
    /// Sent to where nobody is.
    pub nobody: u64,
}

/// A simulated network; clones share it.
#[derive(Clone, Debug)]
pub struct SimNet(Rc<RefCell<Net>>);

impl SimNet {
    /// An empty network at time zero.
    pub fn new(seed: u64, profile: LinkProfile) -> Self {
        Self(Rc::new(RefCell::new(Net {
            random: Pcg64Mcg::seed_from_u64(seed),
            profile,
            now: Instant::ZERO,
            sockets: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            sequence: 0,
            counters: SimCounters::default(),
        })))
    }

    /// Moves the clock on, never back. What is due by then arrives.
    pub fn set_now(&self, now: Instant) {
        self.0.borrow_mut().advance(now);
    }

    /// Where the clock stands.
    pub fn now(&self) -> Instant {
        self.0.borrow().now
    }

    /// Changes the links for what is sent from now on.
    pub fn set_profile(&self, profile: LinkProfile) {
        self.0.borrow_mut().profile = profile;
    }

    /// When the next datagram arrives anywhere: the next moment worth looking at.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.0.borrow().in_flight.keys().next().map(|(at, _)| *at)
    }

    /// Binds a socket for a [`SimIo`]. Its queue holds [`QUEUE_DATAGRAMS`]. Dropping the socket closes it.
    ///
    /// # Errors
    /// The address is in use.
    pub fn bind(&self, at: SocketAddr) -> io::Result<SimSocket> {
        self.0.borrow_mut().bind(at)?;
        Ok(SimSocket { net: self.clone(), at })
    }

    /// A packet I/O on this network with ports below `ports_max`.
    pub fn io(&self, ports_max: u32) -> SimIo {
        SimIo {
            net: self.clone(),
            ports: BTreeMap::new(),
            ports_max,
            arrivals: VecDeque::new(),
            outgoing: Vec::new(),
            quiet: VecDeque::new(),
            closed: VecDeque::new(),
            drops: BTreeMap::new(),
            counters: IoCounters::default(),
        }
    }

    /// Has the endpoint at `from` send `bytes` to `to` at `now`. An endpoint is there from its first send or
    /// [`listen`](Self::listen) on.
    pub fn send(&self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut net = self.0.borrow_mut();
        net.advance(now);
        net.sockets.entry(from).or_insert_with(Queue::new);
        net.send(from, to, bytes);
    }

    /// Puts an endpoint at `at` that may only receive.
    pub fn listen(&self, at: SocketAddr) {
        self.0.borrow_mut().sockets.entry(at).or_insert_with(Queue::new);
    }

    /// The next datagram that has arrived at the endpoint `at` by `now`: when, from whom, what.
    pub fn poll_receive(&self, now: Instant, at: SocketAddr) -> Option<(Instant, SocketAddr, Vec<u8>)> {
        let mut net = self.0.borrow_mut();
        net.advance(now);
        let datagram = net.sockets.get_mut(&at)?.datagrams.pop_front()?;
        Some((datagram.arrived, datagram.source, datagram.bytes))
    }

    /// What has become of the datagrams so far.
    pub fn counters(&self) -> SimCounters {
        self.0.borrow().counters
    }
}

/// A bound socket of a [`SimNet`]. Whatever is unread when its port closes stays in it.
#[derive(Debug)]
pub struct SimSocket {
    net: SimNet,
    at: SocketAddr,
}

impl SimSocket {
    /// Where it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn link(&self, remote: Option<SocketAddr>) {
        if let Some(queue) = self.net.0.borrow_mut().sockets.get_mut(&self.at) {
            queue.remote = remote;
            queue.epoch += 1;
        }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.net.0.borrow_mut().sockets.remove(&self.at);
    }
}

/// The packet I/O of one simulated shard. [`PacketIo::wait`] does not wait: it sends what is queued and takes over
/// what has arrived by the network's clock.
#[derive(Debug)]
pub struct SimIo {
    net: SimNet,
    ports: BTreeMap<u32, SimPort>,
    ports_max: u32,
    /// Taken over from the sockets, not delivered yet.
    arrivals: VecDeque<(Port, Datagram)>,
    outgoing: Vec<(Port, Option<SocketAddr>, Vec<u8>)>,
    quiet: VecDeque<Port>,
    closed: VecDeque<(Port, SimSocket)>,
    drops: BTreeMap<(u32, &'static str), (DropReason, u64)>,
    counters: IoCounters,
}

impl SimIo {
    fn drop_packet(&mut self, port: Port, reason: DropReason) {
        self.drops.entry((port.index(), reason.name())).or_insert((reason, 0)).1 += 1;
    }

    /// Gives back the ports that are closing and have nothing left to deliver.
    fn finish(&mut self) {
        let waiting = &self.arrivals;
        let is_done =
            |index: &u32, open: &SimPort| open.closing && waiting.iter().all(|(port, _)| port.index() != *index);
        for (index, open) in self.ports.iter_mut().filter(|(index, open)| is_done(index, open)) {
            if open.lingers && !open.quiet {
                open.quiet = true;
                self.quiet.push_back(Port::from_index(*index));
            }
        }
        for (index, open) in self.ports.extract_if(.., |index, open| !open.lingers && is_done(index, open)) {
            self.closed.push_back((Port::from_index(index), open.socket));
        }
    }

    fn open_port(&self, port: Port) -> io::Result<&SimPort> {
        let open = self.ports.get(&port.index()).filter(|open| !open.closing);
        open.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl PacketIo for SimIo {
    type Socket = SimSocket;

    fn open(&mut self, port: Port, socket: SimSocket) -> io::Result<()> {
        if port.index() >= self.ports_max {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.ports.contains_key(&port.index()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let open = SimPort { socket, connected: false, closing: false, lingers: false, quiet: false };
        self.ports.insert(port.index(), open);
        Ok(())
    }

    fn connect(&mut self, port: Port, remote: SocketAddr) -> io::Result<()> {
        let open = self.open_port(port)?;
        if open.socket.at.is_ipv4() != remote.is_ipv4() {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        }
        open.socket.link(Some(remote));
        if let Some(open) = self.ports.get_mut(&port.index()) {
            open.connected = true;
        }
        Ok(())
    }

    fn disconnect(&mut self, port: Port) -> io::Result<()> {
        self.open_port(port)?.socket.link(None);
        if let Some(open) = self.ports.get_mut(&port.index()) {
            open.connected = false;
        }
        Ok(())
    }

    fn hush(&mut self, port: Port) {
        if let Some(open) = self.ports.get_mut(&port.index()).filter(|open| !open.closing) {
            (open.closing, open.lingers) = (true, true);
        }
    }

    fn poll_quiet(&mut self) -> Option<Port> {
        self.quiet.pop_front()
    }

    fn close(&mut self, port: Port) {
        if let Some(open) = self.ports.get_mut(&port.index()) {
            (open.closing, open.lingers) = (true, false);
            self.quiet.retain(|quiet| *quiet != port);
        }
    }

    fn poll_closed(&mut self) -> Option<(Port, SimSocket)> {
        self.closed.pop_front()
    }

    fn wait(&mut self, _plan: WaitPlan) -> io::Result<()> {
        self.flush()?;
        let mut net = self.net.0.borrow_mut();
        let mut arrived = Vec::new();
        for (index, open) in self.ports.iter().filter(|(_, open)| !open.closing) {
            let Some(queue) = net.sockets.get_mut(&open.socket.at) else { continue };
            arrived.extend(queue.datagrams.drain(..).map(|datagram| (Port::from_index(*index), datagram)));
        }
        drop(net);
        arrived.sort_by_key(|(_, datagram)| datagram.sequence);
        self.arrivals.extend(arrived);
        Ok(())
    }

    fn receive<F>(&mut self, budget: usize, mut handle: F) -> usize
    where
        F: FnMut(&DatagramMeta, &mut [u8]) -> Disposition,
    {
        let mut delivered = 0;
        while delivered < budget {
            let Some((port, mut datagram)) = self.arrivals.pop_front() else { break };
            let Some(open) = self.ports.get(&port.index()) else { continue };
            let truncated = datagram.bytes.len() >= DATAGRAM_BYTES_MAX;
            datagram.bytes.truncate(DATAGRAM_BYTES_MAX);
            // Only what came while the present connection stood needs no source.
            let epoch = self.net.0.borrow().sockets.get(&open.socket.at).map_or(0, |queue| queue.epoch);
            let source = (!open.connected || datagram.epoch != epoch).then_some(datagram.source);
            let disposition = handle(&DatagramMeta { port, source, truncated }, &mut datagram.bytes);
            delivered += 1;
            if let Disposition::Forward(transmit) = disposition {
                datagram.bytes.truncate(transmit.len);
                self.outgoing.push((transmit.port, transmit.target, datagram.bytes));
            }
        }
        self.counters.received += delivered as u64;
        delivered
    }

    fn transmit<F>(&mut self, mut fill: F)
    where
        F: FnMut(&mut [u8]) -> Option<Transmit>,
    {
        let mut slot = vec![0; DATAGRAM_BYTES_MAX];
        while let Some(transmit) = fill(&mut slot) {
            self.outgoing.push((transmit.port, transmit.target, slot[..transmit.len].to_vec()));
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.counters.syscalls += 1;
        for (port, target, bytes) in std::mem::take(&mut self.outgoing) {
            let from = self.ports.get(&port.index()).map(|open| open.socket.at);
            let mut net = self.net.0.borrow_mut();
            let remote = from.and_then(|from| net.sockets.get(&from)?.remote);
            let is_sent = match (from, target.or(remote)) {
                (Some(from), Some(to)) if from.is_ipv4() == to.is_ipv4() => {
                    net.send(from, to, &bytes);
                    true
                }
                _ => false,
            };
            drop(net);
            if is_sent {
                self.counters.sent += 1;
            } else {
                self.drop_packet(port, DropReason::SendFailed);
            }
        }
        self.finish();
        Ok(())
    }

    fn poll_drop(&mut self) -> Option<(Port, DropReason, u64)> {
        let ((index, _), (reason, packets)) = self.drops.pop_first()?;
        Some((Port::from_index(index), reason, packets))
    }

    fn kernel_drops(&mut self, port: Port) -> u64 {
        let Some(at) = self.ports.get(&port.index()).map(|open| open.socket.at) else { return 0 };
        self.net.0.borrow_mut().sockets.get_mut(&at).map_or(0, |queue| std::mem::take(&mut queue.dropped))
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}

#[derive(Debug)]
struct SimPort {
    socket: SimSocket,
    connected: bool,
    closing: bool,
    lingers: bool,
    /// That nothing more comes has been told.
    quiet: bool,
}

#[derive(Debug)]
struct Net {
    random: Pcg64Mcg,
    profile: LinkProfile,
    now: Instant,
    sockets: BTreeMap<SocketAddr, Queue>,
    /// By arrival, then in the order sent.
    in_flight: BTreeMap<(Instant, u64), Travelling>,
    /// When the last datagram of a link arrives: the next does not come earlier.
    last_arrival: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    sequence: u64,
    counters: SimCounters,
}

impl Net {
    fn bind(&mut self, at: SocketAddr) -> io::Result<()> {
        if self.sockets.contains_key(&at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.sockets.insert(at, Queue::new());
        Ok(())
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.counters.sent += 1;
        // Every number is drawn for every datagram, so that one's fate does not change another's luck.
        let profile = self.profile;
        let is_lost = self.random.random_bool(profile.loss);
        let is_doubled = self.random.random_bool(profile.duplicate);
        let is_held_back = self.random.random_bool(profile.reorder);
        let jitters = [self.random.random::<f64>(), self.random.random::<f64>()];
        if is_lost {
            self.counters.lost += 1;
            return;
        }
        self.counters.duplicated += u64::from(is_doubled);
        for jitter in &jitters[..1 + usize::from(is_doubled)] {
            let mut arrives = self.now + profile.delay + profile.jitter.mul_f64(*jitter);
            if is_held_back {
                self.counters.reordered += 1;
                arrives = arrives + profile.reorder_by;
            } else {
                let last = self.last_arrival.entry((from, to)).or_insert(arrives);
                arrives = arrives.max(*last);
                *last = arrives;
            }
            self.sequence += 1;
            let datagram = Travelling { from, to, bytes: bytes.to_vec() };
            self.in_flight.insert((arrives, self.sequence), datagram);
        }
        self.arrive();
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.arrive();
    }

    /// Puts what is due into the queues.
    fn arrive(&mut self) {
        while let Some(entry) = self.in_flight.first_entry() {
            let (arrived, sequence) = *entry.key();
            if arrived > self.now {
                break;
            }
            let Travelling { from, to, bytes } = entry.remove();
            let Some(queue) = self.sockets.get_mut(&to) else {
                self.counters.nobody += 1;
                continue;
            };
            if queue.remote.is_some_and(|remote| remote != from) {
                self.counters.foreign += 1;
            } else if queue.datagrams.len() >= QUEUE_DATAGRAMS {
                self.counters.queue_full += 1;
                queue.dropped += 1;
            } else {
                self.counters.delivered += 1;
                let epoch = queue.epoch;
                queue.datagrams.push_back(Datagram { arrived, sequence, source: from, epoch, bytes });
            }
        }
    }
}

#[derive(Debug)]
struct Travelling {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The kernel's side of a socket.
#[derive(Debug)]
struct Queue {
    datagrams: VecDeque<Datagram>,
    remote: Option<SocketAddr>,
    /// How often it has been connected or disconnected.
    epoch: u64,
    dropped: u64,
}

impl Queue {
    fn new() -> Self {
        Self { datagrams: VecDeque::new(), remote: None, epoch: 0, dropped: 0 }
    }
}

#[derive(Debug)]
struct Datagram {
    arrived: Instant,
    sequence: u64,
    source: SocketAddr,
    epoch: u64,
    bytes: Vec<u8>,
}

/// Datagrams a socket or endpoint holds unread; what comes on top is dropped and counted.
pub const QUEUE_DATAGRAMS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: WaitPlan = WaitPlan { timeout: Duration::ZERO, batch: Duration::ZERO };
    const ROUGH: LinkProfile = LinkProfile {
        loss: 0.1,
        duplicate: 0.05,
        reorder: 0.1,
        reorder_by: Duration::from_millis(30),
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(15),
    };

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn received(io: &mut SimIo) -> Vec<(Port, Option<SocketAddr>, Vec<u8>)> {
        let mut got = Vec::new();
        io.wait(PLAN).unwrap();
        io.receive(usize::MAX, |meta, bytes| {
            got.push((meta.port, meta.source, bytes.to_vec()));
            Disposition::Consumed
        });
        got
    }

    /// Two shards forward to each other over a rough network; everything that happens, in order.
    fn trace(seed: u64) -> (Vec<(Instant, SocketAddr, Vec<u8>)>, SimCounters) {
        let net = SimNet::new(seed, ROUGH);
        let mut shards = [net.io(2), net.io(2)];
        shards[0].open(Port::rtp(0), net.bind(at(2)).unwrap()).unwrap();
        shards[1].open(Port::rtp(0), net.bind(at(4)).unwrap()).unwrap();
        net.listen(at(9));
        let mut trace = Vec::new();
        for millis in 0..2000u64 {
            if millis % 20 == 0 {
                net.send(ms(millis), at(7), at(2), &millis.to_be_bytes());
            }
            net.set_now(ms(millis));
            for (io, target) in shards.iter_mut().zip([at(4), at(9)]) {
                io.wait(PLAN).unwrap();
                io.receive(100, |meta, bytes| {
                    assert!(meta.source.is_some());
                    Disposition::Forward(Transmit { port: Port::rtp(0), target: Some(target), len: bytes.len() })
                });
                io.flush().unwrap();
            }
            while let Some(datagram) = net.poll_receive(ms(millis), at(9)) {
                trace.push(datagram);
            }
        }
        (trace, net.counters())
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let (first, counters) = trace(1);
        assert_eq!((first.clone(), counters), trace(1));
        assert_ne!(first, trace(2).0);
        assert!(first.len() > 40, "{counters:?}");
        for count in [counters.lost, counters.duplicated, counters.reordered] {
            assert!(count > 0, "{counters:?}");
        }
    }

    #[test]
    fn a_perfect_link_is_a_perfect_queue_and_jitter_alone_reorders_nothing() {
        for profile in [LinkProfile::PERFECT, LinkProfile { loss: 0.0, duplicate: 0.0, reorder: 0.0, ..ROUGH }] {
            let net = SimNet::new(3, profile);
            net.listen(at(9));
            for count in 0..100u64 {
                net.send(ms(count), at(7), at(9), &count.to_be_bytes());
            }
            for count in 0..100u64 {
                let (arrived, source, bytes) = net.poll_receive(ms(1000), at(9)).unwrap();
                assert_eq!((source, bytes), (at(7), count.to_be_bytes().to_vec()));
                assert!(arrived >= ms(count) + profile.delay);
                assert!(arrived <= ms(count) + profile.delay + profile.jitter);
            }
            assert_eq!(net.poll_receive(ms(1000), at(9)), None);
            assert_eq!(net.next_arrival(), None);
        }
    }

    #[test]
    fn nothing_arrives_before_its_time() {
        let net = SimNet::new(4, LinkProfile { delay: Duration::from_millis(5), ..LinkProfile::PERFECT });
        net.listen(at(9));
        net.send(ms(10), at(7), at(9), b"x");
        assert_eq!(net.next_arrival(), Some(ms(15)));
        assert_eq!(net.poll_receive(ms(14), at(9)), None);
        // The clock never goes back.
        assert_eq!(net.poll_receive(ms(15), at(9)), Some((ms(15), at(7), b"x".to_vec())));
        net.set_now(ms(1));
        assert_eq!(net.now(), ms(15));
    }

    #[test]
    fn a_connected_socket_hears_its_remote_alone_and_keeps_what_was_queued() {
        let net = SimNet::new(5, LinkProfile::PERFECT);
        let mut io = net.io(4);
        let port = Port::rtcp(1);
        io.open(port, net.bind(at(2)).unwrap()).unwrap();
        net.send(ms(0), at(7), at(2), b"1");
        net.send(ms(0), at(8), at(2), b"2");
        io.connect(port, at(7)).unwrap();
        net.send(ms(0), at(8), at(2), b"foreign");
        net.send(ms(0), at(7), at(2), b"3");
        let expected =
            [(port, Some(at(7)), b"1".to_vec()), (port, Some(at(8)), b"2".to_vec()), (port, None, b"3".to_vec())];
        assert_eq!(received(&mut io), expected);
        net.send(ms(0), at(7), at(2), b"4");
        io.disconnect(port).unwrap();
        net.send(ms(0), at(8), at(2), b"5");
        assert_eq!(received(&mut io), [(port, Some(at(7)), b"4".to_vec()), (port, Some(at(8)), b"5".to_vec())]);
        assert_eq!(net.counters().foreign, 1);
        io.connect(port, "[::1]:5".parse().unwrap()).unwrap_err();
        io.connect(Port::rtp(0), at(7)).unwrap_err();
    }

    #[test]
    fn unread_datagrams_stay_in_the_socket_when_it_moves() {
        let net = SimNet::new(6, LinkProfile::PERFECT);
        let (mut old, mut new) = (net.io(2), net.io(2));
        old.open(Port::rtp(0), net.bind(at(2)).unwrap()).unwrap();
        net.send(ms(0), at(7), at(2), b"1");
        old.wait(PLAN).unwrap();
        old.close(Port::rtp(0));
        net.send(ms(0), at(7), at(2), b"2");
        old.wait(PLAN).unwrap();
        assert!(old.poll_closed().is_none(), "one is still to be delivered");
        assert_eq!(old.open(Port::rtp(0), net.bind(at(4)).unwrap()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(received(&mut old), [(Port::rtp(0), Some(at(7)), b"1".to_vec())]);
        old.flush().unwrap();
        let (port, socket) = old.poll_closed().unwrap();
        assert_eq!((port, socket.local_addr()), (Port::rtp(0), at(2)));
        net.send(ms(0), at(7), at(2), b"3");
        new.open(Port::rtcp(0), socket).unwrap();
        let expected = [b"2", b"3"].map(|bytes| (Port::rtcp(0), Some(at(7)), bytes.to_vec()));
        assert_eq!(received(&mut new), expected);
    }

    #[test]
    fn queues_are_bounded_and_drops_are_told() {
        let net = SimNet::new(7, LinkProfile::PERFECT);
        let mut io = net.io(2);
        io.open(Port::rtp(0), net.bind(at(2)).unwrap()).unwrap();
        for _ in 0..QUEUE_DATAGRAMS + 5 {
            net.send(ms(0), at(7), at(2), b"x");
        }
        assert_eq!(io.kernel_drops(Port::rtp(0)), 5);
        assert_eq!(io.kernel_drops(Port::rtp(0)), 0);
        assert_eq!(received(&mut io).len(), QUEUE_DATAGRAMS);
    }

    #[test]
    fn sends_and_addresses_behave_as_the_kernels() {
        let net = SimNet::new(8, LinkProfile::PERFECT);
        let mut io = net.io(2);
        let socket = net.bind(at(2)).unwrap();
        assert_eq!(net.bind(at(2)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        io.open(Port::rtp(0), socket).unwrap();
        assert_eq!(io.open(Port::rtp(1), net.bind(at(4)).unwrap()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        net.bind(at(4)).expect("refused sockets are closed");
        net.listen(at(9));

        // Unconnected without a target, from a port that is not open, to where nobody is, and one that arrives.
        let sends = [
            (Port::rtp(0), None),
            (Port::rtcp(0), Some(at(9))),
            (Port::rtp(0), Some(at(5))),
            (Port::rtp(0), Some(at(9))),
        ];
        let mut left = sends.into_iter();
        io.transmit(|slot| {
            slot[..2].copy_from_slice(b"hi");
            left.next().map(|(port, target)| Transmit { port, target, len: 2 })
        });
        assert_eq!(net.counters().sent, 0, "nothing leaves before a flush");
        io.flush().unwrap();
        assert_eq!(io.poll_drop(), Some((Port::rtp(0), DropReason::SendFailed, 1)));
        assert_eq!(io.poll_drop(), Some((Port::rtcp(0), DropReason::SendFailed, 1)));
        assert_eq!(io.poll_drop(), None);
        assert_eq!((io.counters().sent, net.counters().nobody), (2, 1));
        assert_eq!(net.poll_receive(ms(0), at(9)), Some((ms(0), at(2), b"hi".to_vec())));

        // Connected, no target is needed.
        io.connect(Port::rtp(0), at(9)).unwrap();
        let mut once = Some(Transmit { port: Port::rtp(0), target: None, len: 1 });
        io.transmit(|_| once.take());
        io.flush().unwrap();
        assert!(net.poll_receive(ms(0), at(9)).is_some());

        net.send(ms(0), at(9), at(2), &[0; 2048]);
        io.wait(PLAN).unwrap();
        io.receive(1, |meta, bytes| {
            assert!(meta.truncated && bytes.len() == 2048);
            Disposition::Consumed
        });
    }
}
