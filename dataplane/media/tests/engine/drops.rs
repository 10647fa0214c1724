//! Every reason to drop a packet, once each: under the connection and in the totals.

use std::time::Duration;

use ringbridge_media::command::{CodecKind, ConnectionChange, ConnectionSpec, Direction, Target};
use ringbridge_media::event::DropReason;
use ringbridge_media::limits::SOURCE_BURST_PACKETS;
use ringbridge_media::port::{DatagramMeta, Disposition, Port};

use crate::bench::{Bench, Voice, addr, address, rtcp, rtp, spec};
use CodecKind::{Pcma, Pcmu};

const ENDPOINT: &str = "10.0.0.0:4000";
const OTHER: &str = "10.6.6.6:666";

fn voice(sequence: u16) -> Vec<u8> {
    rtp(7, sequence, 160 * u32::from(sequence), 0, &[0x80; 160])
}

/// Expects that exactly one packet was dropped by `act`, for `reason`, and counted under `slot` if there is one.
fn check(bench: &mut Bench, reason: DropReason, act: impl FnOnce(&mut Bench)) {
    check_many(bench, reason, 1, act);
}

fn check_many(bench: &mut Bench, reason: DropReason, packets: u64, act: impl FnOnce(&mut Bench)) {
    let of_connections = |bench: &mut Bench| -> u64 {
        let ids: Vec<_> = bench.phones.iter().map(|phone| phone.id).collect();
        ids.into_iter().map(|id| bench.status(id).counters.drops).sum()
    };
    let (before, counted) = (bench.engine.totals().drops, of_connections(bench));
    act(bench);
    let mut expected = before;
    expected.add(reason, packets);
    assert_eq!(bench.engine.totals().drops, expected, "{reason:?}");
    let owned = if reason == DropReason::ClosedPort { 0 } else { packets };
    assert_eq!(of_connections(bench), counted + owned, "{reason:?} under the connection");
}

fn send(bench: &mut Bench, bytes: &[u8]) {
    assert_eq!(bench.deliver(Port::rtp(0), addr(ENDPOINT), bytes), Disposition::Consumed);
}

/// Two relayed phones, the first of which is learned.
fn relayed() -> Bench {
    let mut bench = Bench::new();
    let (a, b) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
    bench.relay(a, b);
    assert!(matches!(bench.deliver(Port::rtp(0), addr(ENDPOINT), &voice(1)), Disposition::Forward(_)));
    bench
}

#[test]
fn what_is_no_packet() {
    let mut bench = relayed();
    check(&mut bench, DropReason::Empty, |bench| send(bench, &[]));
    check(&mut bench, DropReason::Truncated, |bench| {
        let meta = DatagramMeta { port: Port::rtp(0), source: Some(addr(ENDPOINT)), truncated: true };
        bench.deliver_meta(meta, &voice(2));
    });
    check(&mut bench, DropReason::NotRtp, |bench| send(bench, &voice(2)[..11]));
    check(&mut bench, DropReason::NotRtp, |bench| send(bench, &[0x80]));
    let mut wrong_version = voice(2);
    wrong_version[0] = 0x40;
    check(&mut bench, DropReason::NotRtp, |bench| send(bench, &wrong_version));
    let mut csrcs_missing = voice(2);
    csrcs_missing[0] = 0x8f;
    csrcs_missing.truncate(20);
    check(&mut bench, DropReason::NotRtp, |bench| send(bench, &csrcs_missing));
    let mut padding_too_long = voice(2);
    padding_too_long[0] = 0xa0;
    *padding_too_long.last_mut().unwrap() = 255;
    check(&mut bench, DropReason::NotRtp, |bench| send(bench, &padding_too_long));
    // STUN and DTLS.
    for first in [0, 1, 20, 22] {
        check(&mut bench, DropReason::NotRtp, |bench| send(bench, &[first; 40]));
    }
    check(&mut bench, DropReason::NotRtp, |bench| send(bench, &rtcp(7)));
    check(&mut bench, DropReason::NotRtcp, |bench| {
        bench.deliver(Port::rtcp(0), addr("10.0.0.0:4001"), &voice(2));
    });
    check(&mut bench, DropReason::Empty, |bench| {
        bench.deliver(Port::rtcp(0), addr("10.0.0.0:4001"), &[]);
    });
    check(&mut bench, DropReason::ClosedPort, |bench| {
        bench.deliver(Port::rtp(99), addr(ENDPOINT), &voice(2));
    });
    check(&mut bench, DropReason::ClosedPort, |bench| {
        bench.deliver(Port::rtp(u32::MAX / 2), addr(ENDPOINT), &voice(2));
    });
}

#[test]
fn random_bytes_are_dropped_by_name_or_go_on_untouched() {
    let mut bench = relayed();
    let mut seed = 0x1234_5678_9abc_def0_u64;
    let (mut dropped, mut forwarded) = (0, 0);
    for n in 0..20_000u64 {
        let mut bytes: Vec<u8> = (0..n % 300)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect();
        if n % 3 == 0 && bytes.len() >= 12 {
            bytes[0] = 0x80 | bytes[0] & 0x3f;
            bytes[8..12].copy_from_slice(&7u32.to_be_bytes());
        }
        bench.now = bench.now + Duration::from_millis(5);
        let port = if n % 7 == 0 { Port::rtcp(0) } else { Port::rtp(0) };
        match bench.deliver(port, addr(if n % 7 == 0 { "10.0.0.0:4001" } else { ENDPOINT }), &bytes) {
            Disposition::Consumed => dropped += 1,
            Disposition::Forward(_) => {
                forwarded += 1;
                assert_eq!(bench.sent.last().unwrap().bytes, bytes);
            }
        }
    }
    assert_eq!(bench.engine.totals().drops.total(), dropped);
    assert!(forwarded > 100, "{forwarded}");
}

#[test]
fn strangers() {
    let mut bench = relayed();
    check(&mut bench, DropReason::ForeignSource, |bench| {
        bench.deliver(Port::rtp(0), addr(OTHER), &voice(2));
    });
    check(&mut bench, DropReason::ForeignSource, |bench| {
        bench.deliver(Port::rtcp(0), addr(OTHER), &rtcp(7));
    });
    check(&mut bench, DropReason::ForeignSsrc, |bench| send(bench, &rtp(8, 2, 320, 0, &[0x80; 160])));
    check(&mut bench, DropReason::Learning, |bench| {
        bench.deliver(Port::rtp(1), addr(OTHER), &voice(1));
    });
    bench.phone_with(ConnectionSpec { barred: Some((addr(OTHER), 7)), ..spec(Pcmu, 20) });
    check_many(&mut bench, DropReason::Barred, 2, |bench| {
        bench.deliver(Port::rtp(2), addr(OTHER), &voice(1));
        bench.deliver(Port::rtp(2), addr(OTHER), &voice(2));
    });
}

#[test]
fn a_burst_passes_and_a_flood_does_not() {
    let mut bench = relayed();
    for sequence in 2..=SOURCE_BURST_PACKETS as u16 {
        assert!(matches!(bench.deliver(Port::rtp(0), addr(ENDPOINT), &voice(sequence)), Disposition::Forward(_)));
    }
    check_many(&mut bench, DropReason::RateLimited, 100, |bench| {
        for sequence in 0..100 {
            send(bench, &voice(501 + sequence));
        }
    });
    // Refilled at four times its own 50 packets a second.
    bench.now = bench.now + Duration::from_secs(1);
    check_many(&mut bench, DropReason::RateLimited, 300, |bench| {
        for sequence in 0..500 {
            bench.deliver(Port::rtp(0), addr(ENDPOINT), &voice(601 + sequence));
        }
    });
    bench.now = bench.now + Duration::from_secs(10);
    check_many(&mut bench, DropReason::RateLimited, 10, |bench| {
        for _ in 0..510 {
            bench.deliver(Port::rtcp(0), addr("10.0.0.0:4001"), &rtcp(7));
        }
    });
}

#[test]
fn a_flood_of_strangers_costs_the_endpoint_nothing() {
    let mut bench = relayed();
    for n in 0..10_000u16 {
        bench.deliver(Port::rtp(0), addr(OTHER), &voice(n));
    }
    assert!(matches!(bench.deliver(Port::rtp(0), addr(ENDPOINT), &voice(2)), Disposition::Forward(_)));
    assert_eq!(bench.drops(DropReason::ForeignSource), 10_000);
}

#[test]
fn directions() {
    for (direction, receives, sends) in [
        (Direction::SendRecv, true, true),
        (Direction::SendOnly, false, true),
        (Direction::RecvOnly, true, false),
        (Direction::Inactive, false, false),
    ] {
        let mut bench = relayed();
        bench.deliver(Port::rtp(1), address(1), &voice(1));
        let id = bench.phones[0].id;
        bench.modify(id, ConnectionChange { direction: Some(direction), ..ConnectionChange::default() }).unwrap();
        let act = |bench: &mut Bench| {
            bench.deliver(Port::rtp(0), addr(ENDPOINT), &voice(2));
        };
        check_many(&mut bench, DropReason::Direction, u64::from(!receives), act);
        let act = |bench: &mut Bench| {
            bench.deliver(Port::rtp(1), address(1), &voice(2));
        };
        check_many(&mut bench, DropReason::Direction, u64::from(!sends), act);
        // RTCP goes both ways whatever the direction (RFC 3264 section 5.1).
        for slot in 0..2 {
            let mut source = address(slot);
            source.set_port(4001);
            assert!(
                matches!(bench.deliver(Port::rtcp(slot), source, &rtcp(7)), Disposition::Forward(_)),
                "{direction:?}"
            );
        }
    }
}

#[test]
fn nowhere_to_go() {
    let mut bench = Bench::new();
    let a = bench.phone(Pcmu, 20);
    check(&mut bench, DropReason::Unrouted, |bench| send(bench, &voice(1)));
    let b = bench.phone_with(spec(Pcmu, 20));
    bench.relay(a, b);
    check(&mut bench, DropReason::NoTarget, |bench| send(bench, &voice(2)));
    check(&mut bench, DropReason::NoTarget, |bench| {
        bench.deliver(Port::rtcp(0), addr("10.0.0.0:4001"), &rtcp(7));
    });
}

#[test]
fn what_the_mix_has_nowhere_to_send_is_dropped_and_the_stream_begins_with_its_first_packet() {
    let mut bench = Bench::new();
    let room = bench.room();
    let (a, b) = (bench.phone(Pcmu, 20), bench.phone_with(spec(Pcmu, 20)));
    bench.join(room, a);
    bench.join(room, b);
    check_many(&mut bench, DropReason::NoTarget, 5, |bench| bench.run(107));
    bench.say(1, Voice::Constant(1000), 0);
    bench.run(200);
    let packets = bench.heard_by(1);
    assert_eq!(crate::bench::check_stream(&packets), [0], "the marker is in the first packet that left");
    let status = bench.status(b);
    assert_eq!(status.counters.packets_out, packets.len() as u64);
}

#[test]
fn what_a_mix_can_not_use() {
    let mut bench = Bench::new();
    bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
    send(&mut bench, &voice(1));
    check(&mut bench, DropReason::Duplicate, |bench| send(bench, &voice(1)));
    check(&mut bench, DropReason::Early, |bench| send(bench, &voice(560)));
    check(&mut bench, DropReason::PayloadType, |bench| send(bench, &rtp(7, 2, 320, 8, &[0xd5; 160])));
    check(&mut bench, DropReason::PayloadSize, |bench| send(bench, &rtp(7, 2, 320, 0, &[])));
    bench.run(65);
    check(&mut bench, DropReason::Late, |bench| send(bench, &voice(0)));
}

#[test]
fn a_duplicate_is_known_whatever_the_timestamps_begin_with() {
    for start in 0..16u32 {
        let mut bench = Bench::new();
        bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
        for n in 0..50u16 {
            let bytes = rtp(7, n, start + 160 * u32::from(n), 0, &[0x80; 160]);
            send(&mut bench, &bytes);
            check(&mut bench, DropReason::Duplicate, |bench| send(bench, &bytes));
            bench.run(20);
        }
    }
}

#[test]
fn what_a_prompt_replaces() {
    let mut bench = relayed();
    bench.deliver(Port::rtp(1), address(1), &voice(1));
    let b = bench.phones[1].id;
    bench.play(Target::Connection(b), vec![1000; 8000]);
    check(&mut bench, DropReason::Replaced, |bench| send(bench, &voice(2)));
    // The other direction goes on.
    assert!(matches!(bench.deliver(Port::rtp(1), address(1), &voice(2)), Disposition::Forward(_)));
}

#[test]
fn what_the_io_lost_is_taken_back_from_the_packets_sent() {
    let mut bench = relayed();
    let b = bench.phones[1].id;
    assert_eq!(bench.status(b).counters.packets_out, 1);
    check(&mut bench, DropReason::SendBufferFull, |bench| {
        bench.engine.count_drop(Port::rtp(1), DropReason::SendBufferFull, 1);
    });
    assert_eq!(bench.status(b).counters.packets_out, 0);
    assert_eq!(bench.engine.totals().packets_out, 0);
    check_many(&mut bench, DropReason::ReceiveBufferFull, 3, |bench| {
        bench.engine.count_drop(Port::rtp(1), DropReason::ReceiveBufferFull, 3);
    });
}

#[test]
fn a_burst_of_seconds_into_a_mix_is_heard_whole_and_what_is_beyond_the_buffer_is_cut() {
    let mut bench = Bench::new();
    bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    for sequence in 0..300 {
        send(&mut bench, &voice(sequence));
    }
    assert_eq!(bench.drops(DropReason::Early), 0);
    // Eleven seconds ahead.
    send(&mut bench, &voice(560));
    assert_eq!(bench.drops(DropReason::Early), 1);
    bench.run(7_000);
    let loud: usize =
        bench.heard_by(1).iter().map(|packet| packet.payload.iter().filter(|&&byte| byte == 0x80).count()).sum();
    // And what stands for the end that was cut, until it has faded.
    assert!((300 * 160..300 * 160 + 480).contains(&loud), "{loud}");
}
