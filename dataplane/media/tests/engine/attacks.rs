//! Whatever strangers send, the target never moves to them.

use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_media::command::{CodecKind, Command, ConnectionChange, ConnectionSpec};
use ringbridge_media::event::{DropReason, Event};
use ringbridge_media::id::ConnectionId;
use ringbridge_media::port::{Disposition, Port, PortAction};

use crate::bench::{Bench, SHARD, addr, address, rtcp, rtp, spec};
use CodecKind::Pcmu;

const ENDPOINT: &str = "10.0.0.0:4000";
const NATTED: &str = "192.0.2.7:61000";
const ATTACKER: &str = "10.6.6.6:666";

fn voice(ssrc: u32, sequence: u16) -> Vec<u8> {
    rtp(ssrc, sequence, 160 * u32::from(sequence), 0, &[0x80; 160])
}

/// A relay whose first side is under attack; the second side's packets show where the first one's target is.
struct Scene {
    bench: Bench,
    sequence: u16,
}

impl Scene {
    fn new(given: Option<&str>, change: impl FnOnce(&mut ConnectionSpec)) -> Self {
        let mut bench = Bench::new();
        let mut attacked = ConnectionSpec { remote: given.map(addr), ..spec(Pcmu, 20) };
        change(&mut attacked);
        let (a, b) = (bench.phone_with(attacked), bench.phone(Pcmu, 20));
        bench.relay(a, b);
        Self { bench, sequence: 0 }
    }

    fn send(&mut self, source: &str, ssrc: u32, sequence: u16) -> bool {
        self.bench.now = self.bench.now + Duration::from_millis(5);
        let disposition = self.bench.deliver(Port::rtp(0), addr(source), &voice(ssrc, sequence));
        matches!(disposition, Disposition::Forward(_))
    }

    fn wait(&mut self, ms: u64) {
        self.bench.now = self.bench.now + Duration::from_millis(ms);
    }

    /// Where media for the attacked endpoint goes now, and its RTCP.
    fn targets(&mut self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.sequence += 1;
        let mut target = |port: fn(u32) -> Port, source: SocketAddr, bytes: &[u8]| match self.bench.deliver(
            port(1),
            source,
            bytes,
        ) {
            Disposition::Forward(transmit) => {
                assert_eq!(transmit.port, port(0));
                self.bench.sent.last().unwrap().target
            }
            Disposition::Consumed => None,
        };
        let media = target(Port::rtp, address(1), &voice(9, self.sequence));
        let mut source = address(1);
        source.set_port(4001);
        (media, target(Port::rtcp, source, &rtcp(9)))
    }

    fn check_target(&mut self, expected: Option<&str>) {
        let (media, rtcp) = self.targets();
        assert_eq!(media, expected.map(addr));
        assert_eq!(rtcp.map(|rtcp| rtcp.ip()), expected.map(|text| addr(text).ip()));
        for action in &self.bench.actions {
            assert!(!matches!(action, PortAction::Connect(_, address) if *address == addr(ATTACKER)), "{action:?}");
        }
        for event in &self.bench.events {
            assert!(
                !matches!(event, Event::ConnectionLearned { remote, .. } if *remote == addr(ATTACKER)),
                "{event:?}"
            );
        }
    }
}

#[test]
fn spoofed_sources_before_during_and_after_learning() {
    for connects in [false, true] {
        let mut scene = Scene::new(Some(ENDPOINT), |_| {});
        scene.bench.connects = connects;
        for n in 0..20 {
            scene.send(ATTACKER, 66, n);
            scene.check_target(Some(ENDPOINT));
        }
        assert!(scene.send(ENDPOINT, 7, 1));
        scene.check_target(Some(ENDPOINT));
        for n in 0..200 {
            assert!(!scene.send(ATTACKER, if n % 2 == 0 { 7 } else { 66 }, n));
            scene.check_target(Some(ENDPOINT));
            if n % 10 == 0 {
                assert!(scene.send(ENDPOINT, 7, 2 + n / 10));
            }
        }
        // Also when the endpoint is silent for long.
        scene.wait(60_000);
        for n in 0..20 {
            assert!(!scene.send(ATTACKER, 7, 100 + n));
        }
        scene.check_target(Some(ENDPOINT));
        assert!(scene.send(ENDPOINT, 7, 300));
        let connects = scene.bench.actions.iter().filter(|action| matches!(action, PortAction::Connect(..))).count();
        assert_eq!(connects, 2, "once for each side");
    }
}

#[test]
fn an_attacker_without_sequence_does_not_win_where_no_remote_was_given() {
    let mut scene = Scene::new(None, |_| {});
    for n in 0..50u16 {
        scene.send(ATTACKER, 66, n.wrapping_mul(7919));
        scene.check_target(None);
    }
    scene.send(NATTED, 7, 1);
    scene.send(ATTACKER, 66, 5);
    assert!(scene.send(NATTED, 7, 2));
    scene.check_target(Some(NATTED));
    for n in 0..50 {
        assert!(!scene.send(ATTACKER, 7, 3 + n), "not with the right SSRC either");
    }
    scene.check_target(Some(NATTED));
}

#[test]
fn a_flood_of_random_sources_and_guessed_ssrcs_moves_nothing() {
    let mut scene = Scene::new(Some(ENDPOINT), |_| {});
    assert!(scene.send(ENDPOINT, 7, 1));
    let mut seed = 1u32;
    for n in 0..2_000u16 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let source = SocketAddr::from((seed.to_be_bytes(), (seed >> 7) as u16 | 1));
        let bytes = voice(if n % 2 == 0 { 7 } else { seed }, n);
        assert_eq!(scene.bench.deliver(Port::rtp(0), source, &bytes), Disposition::Consumed);
        // From the very address of the endpoint: the SSRC has to be guessed.
        assert_eq!(scene.bench.deliver(Port::rtp(0), addr(ENDPOINT), &voice(seed | 0x100, n)), Disposition::Consumed);
        scene.bench.now = scene.bench.now + Duration::from_millis(1);
        if n % 20 == 0 {
            assert!(scene.send(ENDPOINT, 7, 2 + n / 20));
        }
    }
    scene.check_target(Some(ENDPOINT));
    assert_eq!(scene.bench.drops(DropReason::ForeignSource), 2_000);
    assert_eq!(scene.bench.drops(DropReason::ForeignSsrc), 2_000);
}

#[test]
fn the_given_address_wins_inside_the_window_and_is_heard_at_once() {
    let mut scene = Scene::new(Some(ENDPOINT), |_| {});
    for n in 0..50 {
        scene.send(ATTACKER, 66, n);
    }
    scene.check_target(Some(ENDPOINT));
    assert!(scene.send(ENDPOINT, 7, 1));
    assert!(!scene.send(ATTACKER, 66, 51));
    scene.check_target(Some(ENDPOINT));
}

#[test]
fn a_provisional_stranger_who_falls_silent_does_not_lock_the_endpoint_out() {
    let mut scene = Scene::new(Some(ENDPOINT), |_| {});
    scene.send(ATTACKER, 66, 1);
    scene.send(ATTACKER, 66, 2);
    // The endpoint is behind a NAT and never matches the address given.
    scene.wait(600);
    for n in 0..4 {
        scene.send(NATTED, 7, n);
    }
    assert!(scene.send(NATTED, 7, 4));
    scene.check_target(Some(NATTED));
}

#[test]
fn the_previous_caller_on_a_reused_port_is_not_learned() {
    for given in [None, Some(NATTED)] {
        let mut bench = Bench::new();
        let old = bench.connection(ConnectionSpec { remote: Some(addr(NATTED)), ..spec(Pcmu, 20) });
        bench.deliver(Port::rtp(0), addr(NATTED), &voice(7, 1));
        bench.call(Command::DeleteConnection { id: old }).unwrap();
        let heard = bench.events.iter().find_map(|event| match event {
            Event::ConnectionEnded { heard, .. } => Some(*heard),
            _ => None,
        });
        assert_eq!(heard, Some(Some((addr(NATTED), 7))));
        bench.events.clear();
        let new = ConnectionId::new(SHARD, 0, 2);
        let remote = given.map(addr);
        let spec = ConnectionSpec { barred: heard.flatten(), remote, ..spec(Pcmu, 20) };
        bench.call(Command::CreateConnection { id: new, spec: Box::new(spec) }).unwrap();
        for sequence in 2..50 {
            bench.deliver(Port::rtp(0), addr(NATTED), &voice(7, sequence));
        }
        assert_eq!(bench.status(new).learned, None);
        assert_eq!(bench.status(new).counters.packets_in, 0, "nothing of the old call is heard in the new one");
        assert_eq!(bench.drops(DropReason::Barred), 48);
        // A new call from the same address is another matter; and then the old stream stays out for good.
        bench.deliver(Port::rtp(0), addr(NATTED), &voice(8, 1));
        bench.deliver(Port::rtp(0), addr(NATTED), &voice(8, 2));
        assert_eq!(bench.status(new).learned, Some(addr(NATTED)));
        bench.now = bench.now + Duration::from_secs(1);
        for sequence in 50..60 {
            bench.deliver(Port::rtp(0), addr(NATTED), &voice(7, sequence));
        }
        assert_eq!(bench.status(new).ssrc_in, Some(8));
    }
}

#[test]
fn rtcp_from_elsewhere_moves_nothing() {
    let mut scene = Scene::new(Some(ENDPOINT), |spec| spec.remote_rtcp = Some(addr("10.0.0.0:5005")));
    let rtcp_target = |scene: &mut Scene| scene.targets().1;
    assert_eq!(rtcp_target(&mut scene), Some(addr("10.0.0.0:5005")));
    assert!(scene.send(ENDPOINT, 7, 1));
    for source in [ATTACKER, "10.0.0.1:5005"] {
        assert_eq!(scene.bench.deliver(Port::rtcp(0), addr(source), &rtcp(7)), Disposition::Consumed);
        assert_eq!(rtcp_target(&mut scene), Some(addr("10.0.0.0:5005")));
    }
    // Somebody behind the endpoint's address comes first: the address that was given still wins.
    scene.bench.deliver(Port::rtcp(0), addr("10.0.0.0:7777"), &rtcp(7));
    assert!(matches!(scene.bench.deliver(Port::rtcp(0), addr("10.0.0.0:5005"), &rtcp(7)), Disposition::Forward(_)));
    assert_eq!(rtcp_target(&mut scene), Some(addr("10.0.0.0:5005")));
    assert_eq!(scene.bench.deliver(Port::rtcp(0), addr("10.0.0.0:7777"), &rtcp(7)), Disposition::Consumed);
    assert_eq!(rtcp_target(&mut scene), Some(addr("10.0.0.0:5005")));
    // A new address for RTCP counts at once.
    let id = scene.bench.phones[0].id;
    let remote_rtcp = Some(addr("10.0.0.0:6001"));
    scene.bench.modify(id, ConnectionChange { remote_rtcp, ..ConnectionChange::default() }).unwrap();
    assert_eq!(rtcp_target(&mut scene), remote_rtcp);
}

#[test]
fn a_modified_address_is_learned_anew_and_the_old_one_is_refused() {
    for connects in [false, true] {
        let mut scene = Scene::new(Some(ENDPOINT), |_| {});
        scene.bench.connects = connects;
        assert!(scene.send(ENDPOINT, 7, 1));
        let id = scene.bench.phones[0].id;
        scene.bench.actions.clear();
        let change = ConnectionChange { remote: Some(addr(NATTED)), ..ConnectionChange::default() };
        scene.bench.modify(id, change).unwrap();
        let disconnects = [PortAction::Disconnect(Port::rtp(0))];
        assert_eq!(scene.bench.actions, if connects { &disconnects[..] } else { &[] });
        assert_eq!(scene.targets().0, Some(addr(NATTED)));
        assert!(scene.send(NATTED, 8, 1));
        assert!(!scene.send(ENDPOINT, 7, 2));
        scene.check_target(Some(NATTED));
    }
}

#[test]
fn without_handover_a_pinned_source_stays_and_with_it_a_silent_one_gives_way() {
    for handover in [false, true] {
        let mut scene = Scene::new(Some(ENDPOINT), |spec| spec.handover = handover);
        assert!(scene.send(ENDPOINT, 7, 1));
        // While the endpoint talks nobody takes over.
        for n in 0..50 {
            assert!(scene.send(ENDPOINT, 7, 2 + n));
            assert!(!scene.send(NATTED, 7, 2 + n));
        }
        scene.check_target(Some(ENDPOINT));
        // It has moved behind another address.
        scene.wait(400);
        scene.send(NATTED, 7, 100);
        assert_eq!(scene.send(NATTED, 7, 101), handover);
        scene.check_target(Some(if handover { NATTED } else { ENDPOINT }));
        assert_eq!(scene.send(ENDPOINT, 7, 102), !handover);
    }
}
