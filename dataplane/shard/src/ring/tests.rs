mod life;
mod waking;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::Instant;

use rand::RngExt;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::port::Receiving;
use super::send::Failure;
use super::tag::Shape;
use super::*;
use crate::mailbox::Doorbell;

/// A ring and what it needs to live.
struct Fixture {
    ring: Ring,
    doorbell: Doorbell,
    slots: u16,
}

impl Fixture {
    fn new(ports_max: u32) -> Self {
        Self::with(ports_max, |_| {})
    }

    fn with(ports_max: u32, change: impl FnOnce(&mut RingConfig<'_>)) -> Self {
        let doorbell = Doorbell::new().unwrap();
        let mut config = RingConfig { sq_entries: 64, cq_entries: 1024, ..RingConfig::new(ports_max, doorbell.fd()) };
        config.buffers = 256;
        config.send_slots = 64;
        change(&mut config);
        let (ring, slots) = (Ring::new(config).unwrap(), config.send_slots);
        Self { ring, doorbell, slots }
    }

    /// One turn: wait a little, deliver some.
    fn turn(&mut self, mut handle: impl FnMut(&DatagramMeta, &mut [u8]) -> Disposition) -> usize {
        self.ring.wait(PLAN).unwrap();
        self.ring.receive(64, &mut handle)
    }

    /// Turns until `done`, giving up after a long time.
    fn until(
        &mut self,
        mut handle: impl FnMut(&DatagramMeta, &mut [u8]) -> Disposition,
        mut done: impl FnMut(&mut Ring) -> bool,
    ) {
        let start = Instant::now();
        while !done(&mut self.ring) {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {:?}", self.ring);
            self.turn(&mut handle);
        }
    }

    /// Receives `count` datagrams as (port, source, bytes).
    fn collect(&mut self, count: usize) -> Vec<(Port, Option<SocketAddr>, Vec<u8>)> {
        let mut got = Vec::new();
        let start = Instant::now();
        while got.len() < count {
            assert!(start.elapsed() < PATIENCE, "{} of {count} datagrams: {:?}", got.len(), self.ring);
            self.turn(|meta, bytes| {
                got.push((meta.port, meta.source, bytes.to_vec()));
                Disposition::Consumed
            });
        }
        got
    }

    /// Closes `port` and waits for its socket; whatever is delivered meanwhile goes to `handle`.
    fn close(&mut self, port: Port, handle: impl FnMut(&DatagramMeta, &mut [u8]) -> Disposition) -> UdpSocket {
        self.ring.close(port);
        let mut closed = None;
        self.until(handle, |ring| {
            closed = ring.poll_closed();
            closed.is_some()
        });
        let (closed_port, socket) = closed.unwrap();
        assert_eq!(closed_port, port);
        socket
    }

    /// Turns until `port` receives without sources.
    fn until_plain(&mut self, port: Port, handle: impl FnMut(&DatagramMeta, &mut [u8]) -> Disposition) {
        self.until(handle, |ring| ring.ports[port.index() as usize].receiving == Receiving::Armed(Shape::Plain));
    }

    /// Every buffer and every slot is where it belongs when nothing is under way.
    fn assert_nothing_leaked(&mut self) {
        self.ring.flush().unwrap();
        assert!(self.ring.arrivals.is_empty());
        assert_eq!(self.ring.memory.received.held(), 0, "receive buffers");
        assert_eq!(self.ring.memory.slots.free(), usize::from(self.slots), "send slots");
    }
}

const PLAN: WaitPlan = WaitPlan { timeout: Duration::from_millis(5), batch: Duration::ZERO };
const PATIENCE: Duration = Duration::from_secs(20);

fn local() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// A socket whose port survives a disconnect: bound by number.
fn local_fixed() -> UdpSocket {
    loop {
        let address = local().local_addr().unwrap();
        if let Ok(socket) = UdpSocket::bind(address) {
            return socket;
        }
    }
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// An endpoint: blocking, with patience.
fn endpoint() -> UdpSocket {
    let socket = local_fixed();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive_at(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 4096];
    let len = socket.recv(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}

fn consume(_: &DatagramMeta, _: &mut [u8]) -> Disposition {
    Disposition::Consumed
}

#[test]
fn a_datagram_is_forwarded_in_place_in_order_and_unharmed() {
    const PACKETS: u32 = 5000;
    let mut fixture = Fixture::new(8);
    let (a, b) = (local(), local());
    let a_address = address(&a);
    fixture.ring.open(Port::rtp(0), a).unwrap();
    fixture.ring.open(Port::rtp(1), b).unwrap();
    let (source, sink) = (endpoint(), endpoint());
    let target = address(&sink);
    let from = address(&source);

    let mut sent = 0;
    let mut expected = 0;
    while expected < PACKETS {
        while sent < PACKETS && sent - expected < 100 {
            let mut packet = [0u8; 172];
            packet[..4].copy_from_slice(&sent.to_be_bytes());
            packet[4..].fill(sent.to_le_bytes()[0]);
            source.send_to(&packet, a_address).unwrap();
            sent += 1;
        }
        let forwarded = fixture.turn(|meta, bytes| {
            assert_eq!((meta.port, meta.source, meta.truncated), (Port::rtp(0), Some(from), false));
            bytes[171] = !bytes[171];
            Disposition::Forward(Transmit { port: Port::rtp(1), target: Some(target), len: bytes.len() })
        });
        // With MSG_DONTWAIT everything has left when the enter is over: the buffers are back and the bytes were read
        // before anyone could write to them again.
        fixture.ring.flush().unwrap();
        assert!(fixture.ring.outgoing.is_empty());
        assert_eq!(usize::from(fixture.ring.memory.received.held()), fixture.ring.arrivals.len());
        for _ in 0..forwarded {
            let packet = receive_at(&sink);
            let fill = expected.to_le_bytes()[0];
            assert_eq!((packet.len(), number(&packet)), (172, expected));
            assert!(packet[4..171].iter().all(|byte| *byte == fill));
            assert_eq!(packet[171], !fill);
            expected += 1;
        }
    }
    let counters = fixture.ring.counters();
    assert_eq!((counters.received, counters.sent), (u64::from(PACKETS), u64::from(PACKETS)));
    assert!(counters.syscalls < u64::from(PACKETS) / 4, "{counters:?}");
    fixture.assert_nothing_leaked();
}

#[test]
fn sends_are_complete_when_the_enter_returns() {
    let mut fixture = Fixture::with(2, |config| config.send_slots = 8);
    fixture.ring.open(Port::rtp(0), local()).unwrap();
    let sink = endpoint();
    let target = Some(address(&sink));
    // Far more packets than slots: each slot is overwritten as soon as it is free, many times within one transmit.
    for round in 0..200u32 {
        let mut next = 0u32;
        fixture.ring.transmit(|slot| {
            if next == 50 {
                return None;
            }
            slot[..1000].fill(0);
            slot[..4].copy_from_slice(&(round * 50 + next).to_be_bytes());
            slot[996..1000].copy_from_slice(&(round * 50 + next).to_be_bytes());
            next += 1;
            Some(Transmit { port: Port::rtp(0), target, len: 1000 })
        });
        fixture.ring.flush().unwrap();
        assert!(fixture.ring.outgoing.is_empty());
        assert_eq!(fixture.ring.memory.slots.free(), 8);
        for packet in 0..50 {
            let bytes = receive_at(&sink);
            assert_eq!((number(&bytes), number(&bytes[996..])), (round * 50 + packet, round * 50 + packet));
        }
    }
    assert_eq!(fixture.ring.counters().sent, 10_000);
    assert_eq!(fixture.ring.poll_drop(), None);
}

#[test]
fn connecting_under_traffic_loses_and_reorders_nothing() {
    const PACKETS: u32 = 6000;
    let mut fixture = Fixture::new(4);
    let socket = local_fixed();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    let source = endpoint();
    let from = address(&source);

    let mut sent = 0u32;
    let mut expected = 0u32;
    let (mut sourced, mut plain, mut switch) = (0, 0, 0);
    let mut random = Pcg64Mcg::seed_from_u64(1);
    while expected < PACKETS {
        // At any moment of the switch: bursts before the call, between the call and the cancel, during the drain.
        let mut burst = |sent: &mut u32| {
            for _ in 0..random.random_range(0..20) {
                if *sent < PACKETS && *sent - expected < 150 {
                    source.send_to(&sent.to_be_bytes(), here).unwrap();
                    *sent += 1;
                }
            }
        };
        burst(&mut sent);
        switch = (switch + 1) % 24;
        match switch {
            // Far apart, and once in a row.
            0 | 20 => fixture.ring.connect(Port::rtp(0), from).unwrap(),
            10 | 21 => fixture.ring.disconnect(Port::rtp(0)).unwrap(),
            _ => {}
        }
        burst(&mut sent);
        fixture.ring.wait(WaitPlan { timeout: Duration::from_micros(100), batch: Duration::ZERO }).unwrap();
        burst(&mut sent);
        let budget = 1 + sent as usize % 97;
        fixture.ring.receive(budget, |meta, bytes| {
            assert_eq!(number(bytes), expected);
            expected += 1;
            match meta.source {
                Some(source) => {
                    assert_eq!(source, from);
                    sourced += 1;
                }
                None => plain += 1,
            }
            Disposition::Consumed
        });
    }
    assert!(sourced > 100 && plain > 100, "both ways were used: {sourced} and {plain}");
    fixture.assert_nothing_leaked();
}

#[test]
fn what_was_queued_before_a_connect_keeps_its_source_and_later_foreigners_are_dropped() {
    let mut fixture = Fixture::new(4);
    let socket = local_fixed();
    let here = address(&socket);
    let (friend, foreigner) = (endpoint(), endpoint());
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    friend.send_to(b"1", here).unwrap();
    foreigner.send_to(b"2", here).unwrap();
    fixture.ring.connect(Port::rtp(0), address(&friend)).unwrap();
    foreigner.send_to(b"dropped by the kernel", here).unwrap();
    friend.send_to(b"3", here).unwrap();
    let got = fixture.collect(3);
    assert_eq!(got[0], (Port::rtp(0), Some(address(&friend)), b"1".to_vec()));
    assert_eq!(got[1], (Port::rtp(0), Some(address(&foreigner)), b"2".to_vec()));
    assert_eq!(got[2].2, b"3");

    fixture.until_plain(Port::rtp(0), consume);
    foreigner.send_to(b"dropped by the kernel", here).unwrap();
    friend.send_to(b"4", here).unwrap();
    assert_eq!(fixture.collect(1), [(Port::rtp(0), None, b"4".to_vec())]);

    // Received while connected, delivered after the disconnect: told whom it is from. And all are heard again.
    friend.send_to(b"5", here).unwrap();
    fixture.ring.wait(PLAN).unwrap();
    fixture.ring.disconnect(Port::rtp(0)).unwrap();
    foreigner.send_to(b"6", here).unwrap();
    let got = fixture.collect(2);
    assert_eq!(got[0], (Port::rtp(0), Some(address(&friend)), b"5".to_vec()));
    assert_eq!(got[1], (Port::rtp(0), Some(address(&foreigner)), b"6".to_vec()));
}

#[test]
fn connecting_elsewhere_keeps_sources_apart() {
    let mut fixture = Fixture::new(4);
    let socket = local_fixed();
    let here = address(&socket);
    let (first, second) = (endpoint(), endpoint());
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    fixture.ring.connect(Port::rtp(0), address(&first)).unwrap();
    fixture.until_plain(Port::rtp(0), consume);

    first.send_to(b"collected", here).unwrap();
    fixture.ring.wait(PLAN).unwrap();
    first.send_to(b"queued", here).unwrap();
    fixture.ring.connect(Port::rtp(0), address(&second)).unwrap();
    first.send_to(b"dropped by the kernel", here).unwrap();
    second.send_to(b"new", here).unwrap();
    let got = fixture.collect(3);
    assert_eq!(got[0], (Port::rtp(0), Some(address(&first)), b"collected".to_vec()));
    assert_eq!(got[1], (Port::rtp(0), Some(address(&first)), b"queued".to_vec()));
    assert_eq!(got[2], (Port::rtp(0), Some(address(&second)), b"new".to_vec()));
    fixture.until_plain(Port::rtp(0), consume);

    // A refused connect changes nothing: an IPv4 socket cannot reach IPv6.
    fixture.ring.connect(Port::rtp(0), "[::1]:9".parse().unwrap()).unwrap_err();
    fixture.until_plain(Port::rtp(0), consume);
    second.send_to(b"still", here).unwrap();
    assert_eq!(fixture.collect(1), [(Port::rtp(0), None, b"still".to_vec())]);
    // Connecting to the same remote again is free.
    let before = fixture.ring.counters().syscalls;
    fixture.ring.connect(Port::rtp(0), address(&second)).unwrap();
    assert_eq!(fixture.ring.counters().syscalls, before);
}

#[test]
fn a_port_moves_to_another_ring_under_traffic_without_loss() {
    const PACKETS: u32 = 4000;
    let mut rings = [Fixture::new(4), Fixture::new(4)];
    let ports = [Port::rtp(1), Port::rtcp(0)];
    let socket = local_fixed();
    let here = address(&socket);
    let source = endpoint();
    rings[0].ring.open(ports[0], socket).unwrap();
    let (sent, expected) = (Cell::new(0u32), Cell::new(0u32));
    let burst = || {
        while sent.get() < PACKETS && sent.get() - expected.get() < 120 {
            source.send_to(&sent.get().to_be_bytes(), here).unwrap();
            sent.set(sent.get() + 1);
        }
    };
    let check = |_: &DatagramMeta, bytes: &mut [u8]| {
        assert_eq!(number(bytes), expected.get());
        expected.set(expected.get() + 1);
        burst();
        Disposition::Consumed
    };
    let (mut at, mut moves) = (0, 0);
    while expected.get() < PACKETS {
        burst();
        rings[at].turn(check);
        if moves % 3 == 1 {
            rings[at].ring.connect(ports[at], address(&source)).unwrap();
            burst();
        }
        if moves % 2 == 1 {
            rings[at].turn(check);
        }
        let socket = rings[at].close(ports[at], check);
        assert_eq!(rings[at].ring.memory.received.held(), 0);
        at = 1 - at;
        rings[at].ring.open(ports[at], socket).unwrap();
        moves += 1;
    }
    assert!(moves > 10, "{moves}");
}

#[test]
fn a_thousand_ports() {
    let mut fixture = Fixture::with(1000, |config| {
        config.sq_entries = 1024;
        config.cq_entries = 4096;
        config.buffers = 2048;
    });
    let mut addresses = Vec::new();
    for index in 0..1000 {
        let socket = local();
        addresses.push(address(&socket));
        fixture.ring.open(Port::from_index(index), socket).unwrap();
    }
    let source = endpoint();
    for round in 0..3u32 {
        for (index, address) in (0u32..).zip(&addresses) {
            source.send_to(&(index * 10 + round).to_be_bytes(), address).unwrap();
        }
        let mut got = fixture.collect(1000);
        got.sort_unstable_by_key(|(port, ..)| port.index());
        for (index, (port, _, bytes)) in (0u32..).zip(&got) {
            assert_eq!((port.index(), number(bytes)), (index, index * 10 + round));
        }
    }
    for index in 0..1000 {
        fixture.ring.close(Port::from_index(index));
    }
    let mut closed = 0;
    fixture.until(consume, |ring| {
        closed += std::iter::from_fn(|| ring.poll_closed()).count();
        closed == 1000
    });
    assert_eq!(fixture.ring.operations, 1, "the doorbell alone");
}

#[test]
fn a_datagram_that_fills_its_buffer_is_marked() {
    let mut fixture = Fixture::with(4, |config| config.buffer_bytes = 1024);
    let socket = local();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    let source = endpoint();
    let check = |fixture: &mut Fixture, sent: usize, len: usize, truncated: bool| {
        source.send_to(&vec![7; sent], here).unwrap();
        let mut got = None;
        fixture.until(
            |meta, bytes| {
                assert!(bytes.iter().all(|byte| *byte == 7));
                assert!(got.replace((bytes.len(), meta.truncated)).is_none());
                Disposition::Consumed
            },
            |ring| ring.counters().received > 0 && ring.arrivals.is_empty(),
        );
        fixture.ring.counters.received = 0;
        assert_eq!(got, Some((len, truncated)), "{sent} bytes sent");
    };
    // 44 bytes of a sourced buffer are header and address.
    for (sent, len, truncated) in [(979, 979, false), (980, 980, true), (1500, 980, true), (0, 0, false), (1, 1, false)]
    {
        check(&mut fixture, sent, len, truncated);
    }
    fixture.ring.connect(Port::rtp(0), address(&source)).unwrap();
    fixture.until_plain(Port::rtp(0), consume);
    for (sent, len, truncated) in
        [(1023, 1023, false), (1024, 1024, true), (9000, 1024, true), (0, 0, false), (1, 1, false)]
    {
        check(&mut fixture, sent, len, truncated);
    }
    fixture.assert_nothing_leaked();
}

#[test]
fn empty_datagrams_do_not_hold_up_the_others() {
    let mut fixture = Fixture::new(4);
    let socket = local_fixed();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    let source = endpoint();
    for is_connected in [false, true] {
        if is_connected {
            fixture.ring.connect(Port::rtp(0), address(&source)).unwrap();
            fixture.until_plain(Port::rtp(0), consume);
        }
        for count in 0..100u32 {
            source.send_to(&[], here).unwrap();
            source.send_to(&count.to_be_bytes(), here).unwrap();
        }
        // All are there already, so a few turns must do, though each empty one ends a receive.
        let mut got = Vec::new();
        for _ in 0..10 {
            fixture.ring.wait(PLAN).unwrap();
            fixture.ring.receive(1000, |meta, bytes| {
                assert!(is_connected || meta.source == Some(address(&source)));
                got.push(bytes.to_vec());
                Disposition::Consumed
            });
        }
        assert_eq!(got.len(), 200);
        for (count, pair) in (0u32..).zip(got.chunks(2)) {
            assert_eq!(pair, [vec![], count.to_be_bytes().to_vec()]);
        }
    }
    fixture.assert_nothing_leaked();
}

#[test]
fn a_drained_datagram_that_fills_its_slot_is_marked() {
    let mut fixture = Fixture::with(4, |config| config.buffers = 1);
    let socket = local_fixed();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    let source = endpoint();
    // One buffer: the first datagram is received by the ring, the others stay queued and are drained.
    for len in [1, 2047, 2048, 4000] {
        source.send_to(&vec![1; len], here).unwrap();
    }
    fixture.ring.wait(PLAN).unwrap();
    fixture.ring.connect(Port::rtp(0), address(&source)).unwrap();
    let mut got = Vec::new();
    fixture.until_plain(Port::rtp(0), |meta, bytes| {
        assert!(meta.source.is_some());
        got.push((bytes.len(), meta.truncated));
        Disposition::Consumed
    });
    assert_eq!(got, [(1, false), (2047, false), (2048, true), (2048, true)]);
}

#[test]
fn drained_datagrams_are_forwarded_in_order() {
    let mut fixture = Fixture::with(4, |config| {
        config.buffers = 1;
        config.send_slots = 4;
    });
    let (a, b) = (local_fixed(), local());
    let here = address(&a);
    fixture.ring.open(Port::rtp(0), a).unwrap();
    fixture.ring.open(Port::rtp(1), b).unwrap();
    let (source, sink) = (endpoint(), endpoint());
    let target = Some(address(&sink));
    for count in 0..60u32 {
        source.send_to(&count.to_be_bytes(), here).unwrap();
    }
    fixture.ring.wait(PLAN).unwrap();
    fixture.ring.connect(Port::rtp(0), address(&source)).unwrap();
    let forward = |_: &DatagramMeta, bytes: &mut [u8]| {
        Disposition::Forward(Transmit { port: Port::rtp(1), target, len: bytes.len() })
    };
    fixture.until_plain(Port::rtp(0), forward);
    fixture.ring.flush().unwrap();
    for count in 0..60u32 {
        assert_eq!(number(&receive_at(&sink)), count);
    }
    assert_eq!(fixture.ring.memory.slots.free(), 4);
}

#[test]
fn buffers_run_dry_and_come_back() {
    let mut fixture = Fixture::with(8, |config| config.buffers = 8);
    let sockets: Vec<UdpSocket> = (0..4).map(|_| local()).collect();
    let addresses: Vec<SocketAddr> = sockets.iter().map(address).collect();
    for (index, socket) in (0..).zip(sockets) {
        fixture.ring.open(Port::from_index(index), socket).unwrap();
    }
    let source = endpoint();
    for count in 0..50u32 {
        for address in &addresses {
            source.send_to(&count.to_be_bytes(), address).unwrap();
        }
    }
    // Nothing is taken out: the buffers fill up, and nothing worse happens.
    for _ in 0..5 {
        fixture.ring.wait(PLAN).unwrap();
    }
    assert_eq!(fixture.ring.memory.received.available(), 0);
    let mut next = [0u32; 4];
    for (port, _, bytes) in fixture.collect(200) {
        let next = &mut next[port.index() as usize];
        assert_eq!(number(&bytes), *next);
        *next += 1;
    }
    assert_eq!(next, [50; 4]);
    let counters = fixture.ring.counters();
    assert!(counters.buffers_exhausted > 0 && counters.rearms >= counters.buffers_exhausted, "{counters:?}");
    fixture.assert_nothing_leaked();
}

#[test]
fn a_pending_icmp_error_costs_no_packet() {
    let mut fixture = Fixture::new(4);
    let socket = local_fixed();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    let there = {
        let gone = endpoint();
        address(&gone)
    };
    fixture.ring.connect(Port::rtp(0), there).unwrap();
    fixture.until_plain(Port::rtp(0), consume);
    let send = |fixture: &mut Fixture, count: u32| {
        let mut left = count;
        fixture.ring.transmit(|slot| {
            left = left.checked_sub(1)?;
            slot[..4].copy_from_slice(&left.to_be_bytes());
            Some(Transmit { port: Port::rtp(0), target: None, len: 4 })
        });
        fixture.ring.flush().unwrap();
    };
    // The first is refused by ICMP, the error fails the second, which is sent again, and so on.
    send(&mut fixture, 10);
    let counters = fixture.ring.counters();
    assert!(counters.resends >= 4, "{counters:?}");
    // Those sent again refuse each other in the same way; a second failure is final and counted.
    let refused: u64 = std::iter::from_fn(|| fixture.ring.poll_drop()).map(|(.., packets)| packets).sum();
    assert_eq!(counters.sent + refused, 10);

    // Now somebody listens: not one packet is lost to the error that still pends.
    let listener = UdpSocket::bind(there).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&mut fixture, 10);
    let mut got: Vec<u32> = (0..10).map(|_| number(&receive_at(&listener))).collect();
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<_>>());
    assert_eq!(fixture.ring.poll_drop(), None);
    // And the port still hears.
    listener.send_to(b"back", here).unwrap();
    assert_eq!(fixture.collect(1), [(Port::rtp(0), None, b"back".to_vec())]);
    fixture.assert_nothing_leaked();
}

#[test]
fn sends_that_fail_are_counted() {
    let mut fixture = Fixture::new(8);
    fixture.ring.open(Port::rtp(0), local()).unwrap();
    let mut targets = vec![
        // Not permitted without SO_BROADCAST; not connected; the wrong family; a port that is not open.
        (Port::rtp(0), Some("255.255.255.255:9".parse().unwrap())),
        (Port::rtp(0), None),
        (Port::rtp(0), Some("[::1]:9".parse().unwrap())),
        (Port::rtp(3), Some("127.0.0.1:9".parse().unwrap())),
    ];
    fixture.ring.transmit(|_| {
        let (port, target) = targets.pop()?;
        Some(Transmit { port, target, len: 100 })
    });
    fixture.ring.flush().unwrap();
    assert_eq!(fixture.ring.poll_drop(), Some((Port::rtp(3), DropReason::SendFailed, 1)));
    assert_eq!(fixture.ring.poll_drop(), Some((Port::rtp(0), DropReason::SendFailed, 3)));
    assert_eq!(fixture.ring.poll_drop(), None);
    assert_eq!(fixture.ring.counters().sent, 0);
    fixture.ring.report(0, Failure::BufferFull);
    fixture.ring.report(0, Failure::BufferFull);
    assert_eq!(fixture.ring.poll_drop(), Some((Port::rtp(0), DropReason::SendBufferFull, 2)));
    assert_eq!(fixture.ring.poll_drop(), None);
    fixture.assert_nothing_leaked();
}

#[test]
fn dropping_the_ring_frees_the_ports() {
    let mut fixture = Fixture::new(64);
    let mut addresses = Vec::new();
    for index in 0..64 {
        let socket = local_fixed();
        addresses.push(address(&socket));
        fixture.ring.open(Port::from_index(index), socket).unwrap();
    }
    let source = endpoint();
    for address in &addresses {
        source.send_to(b"never read", address).unwrap();
    }
    fixture.ring.connect(Port::rtp(0), address(&source)).unwrap();
    fixture.ring.wait(PLAN).unwrap();
    drop(fixture);
    for address in addresses {
        UdpSocket::bind(address).unwrap();
    }
}

#[test]
fn slots_are_refused_when_taken_or_out_of_range() {
    let mut fixture = Fixture::new(2);
    fixture.ring.open(Port::rtp(0), local()).unwrap();
    assert_eq!(fixture.ring.open(Port::rtp(0), local()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fixture.ring.open(Port::rtp(1), local()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let nowhere = "127.0.0.1:9".parse().unwrap();
    for port in [Port::rtcp(0), Port::rtp(9)] {
        assert_eq!(fixture.ring.connect(port, nowhere).unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert_eq!(fixture.ring.disconnect(port).unwrap_err().kind(), io::ErrorKind::NotConnected);
        fixture.ring.close(port);
        assert_eq!(fixture.ring.kernel_drops(port), 0);
    }
    // Until its socket has been given back, a slot is taken.
    fixture.ring.close(Port::rtp(0));
    fixture.ring.close(Port::rtp(0));
    assert_eq!(fixture.ring.open(Port::rtp(0), local()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    fixture.until(consume, |ring| ring.poll_closed().is_some());
    fixture.ring.open(Port::rtp(0), local()).unwrap();
    assert!(fixture.ring.poll_closed().is_none(), "closed once");
}

#[test]
fn sizes_out_of_range_are_refused() {
    let doorbell = Doorbell::new().unwrap();
    let good = RingConfig { ports_max: 2, ..RingConfig::new(2, doorbell.fd()) };
    for (config, name) in [
        (RingConfig { ports_max: 0, ..good }, "ports_max"),
        (RingConfig { sq_entries: 1000, ..good }, "sq_entries"),
        (RingConfig { cq_entries: 1024, ..good }, "cq_entries"),
        (RingConfig { buffers: 4095, ..good }, "buffers"),
        (RingConfig { buffer_bytes: 44, ..good }, "buffer_bytes"),
        (RingConfig { send_slots: 0, ..good }, "send_slots"),
    ] {
        match Ring::new(config) {
            Err(RingError::Size { what }) => assert_eq!(what, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn ipv6_and_dual_stack_sockets_work() {
    let mut fixture = Fixture::new(4);
    let six = UdpSocket::bind("[::1]:0").unwrap();
    let six_address = address(&six);
    let dual = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
    dual.set_only_v6(false).unwrap();
    dual.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let dual = UdpSocket::from(dual);
    let dual_address: SocketAddr = (Ipv4Addr::LOCALHOST, address(&dual).port()).into();
    fixture.ring.open(Port::rtp(0), six).unwrap();
    fixture.ring.open(Port::rtp(1), dual).unwrap();

    let far_six = UdpSocket::bind("[::1]:0").unwrap();
    let far_four = endpoint();
    for (port, near, far) in [(Port::rtp(0), six_address, &far_six), (Port::rtp(1), dual_address, &far_four)] {
        far.send_to(b"ping", near).unwrap();
        assert_eq!(fixture.collect(1), [(port, Some(address(far)), b"ping".to_vec())]);
        let mut target = Some(Some(address(far)));
        fixture.ring.transmit(|slot| {
            slot[..4].copy_from_slice(b"pong");
            Some(Transmit { port, target: target.take()?, len: 4 })
        });
        fixture.ring.flush().unwrap();
        assert_eq!(receive_at(far), b"pong");
        fixture.ring.connect(port, address(far)).unwrap();
        fixture.until_plain(port, consume);
        far.send_to(b"plain", near).unwrap();
        assert_eq!(fixture.collect(1), [(port, None, b"plain".to_vec())]);
    }
    assert_eq!(fixture.ring.poll_drop(), None);
}

#[test]
fn the_kernels_own_drops_are_read() {
    let mut fixture = Fixture::with(2, |config| config.buffers = 1);
    let socket = socket2::Socket::from(local());
    socket.set_recv_buffer_size(1).unwrap();
    let here = socket.local_addr().unwrap().as_socket().unwrap();
    let source = endpoint();
    // Lost before the ring had it: not counted again.
    for _ in 0..100 {
        source.send_to(&[0; 1000], here).unwrap();
    }
    fixture.ring.open(Port::rtp(0), socket.into()).unwrap();
    assert_eq!(fixture.ring.kernel_drops(Port::rtp(0)), 0);
    for _ in 0..100 {
        source.send_to(&[0; 1000], here).unwrap();
    }
    let lost = fixture.ring.kernel_drops(Port::rtp(0));
    assert!((90..=100).contains(&lost), "{lost}");
    assert_eq!(fixture.ring.kernel_drops(Port::rtp(0)), 0);
}
