//! Timeouts, digits, and what happens when nobody polls.

use std::time::Duration;

use ringbridge_media::command::{CodecKind, Command, ConnectionChange, ConnectionSpec, Request};
use ringbridge_media::event::{Answer, Event};
use ringbridge_media::id::ConnectionId;
use ringbridge_media::limits::EVENTS_WAITING_MAX;
use ringbridge_media::port::{DatagramMeta, Port};
use ringbridge_wire::telephone_event::{TelephoneEvent, event_of_digit};

use crate::bench::{Bench, START, Voice, address, rtp, spec};
use CodecKind::{Pcma, Pcmu};

fn timeouts(bench: &Bench) -> usize {
    bench.count(|event| matches!(event, Event::ConnectionTimeout { .. }))
}

fn with_timeout(rtp_timeout_ms: u32) -> ConnectionSpec {
    ConnectionSpec { remote: Some(address(0)), rtp_timeout_ms: Some(rtp_timeout_ms), ..spec(Pcmu, 20) }
}

#[test]
fn silence_is_told_once_and_again_after_new_media() {
    for timeout_ms in [20, 500, 1_023, 1_024, 1_025, 5_000] {
        let mut bench = Bench::new();
        bench.phone_with(with_timeout(timeout_ms));
        bench.run(u64::from(timeout_ms) - 1);
        assert_eq!(timeouts(&bench), 0, "{timeout_ms}");
        bench.run(1);
        assert_eq!(timeouts(&bench), 1, "{timeout_ms}");
        bench.run(10_000);
        assert_eq!(timeouts(&bench), 1);
        bench.say(0, Voice::Silence, 0);
        bench.run(10_001);
        assert_eq!(timeouts(&bench), 1);
        bench.events.clear();
        bench.hush(0);
        bench.run(20_000);
        assert_eq!(timeouts(&bench), 1);
    }
}

#[test]
fn a_timeout_counts_from_the_last_packet_whatever_the_moment() {
    for ms in 0..50 {
        let mut bench = Bench::new();
        bench.phone_with(with_timeout(100));
        bench.say(0, Voice::Silence, 0);
        bench.run(201 + ms);
        bench.hush(0);
        let last = START + Duration::from_millis((201 + ms) / 20 * 20);
        bench.run((last + Duration::from_millis(99)).saturating_since(bench.now).as_millis() as u64);
        assert_eq!(timeouts(&bench), 0);
        bench.run(1);
        assert_eq!(timeouts(&bench), 1);
    }
}

#[test]
fn a_timeout_can_be_changed_and_switched_off() {
    let mut bench = Bench::new();
    let id = bench.phone_with(with_timeout(1_000));
    let set = |bench: &mut Bench, rtp_timeout_ms| {
        bench
            .modify(id, ConnectionChange { rtp_timeout_ms: Some(rtp_timeout_ms), ..ConnectionChange::default() })
            .unwrap();
    };
    bench.run(900);
    set(&mut bench, None);
    bench.run(5_000);
    assert_eq!(timeouts(&bench), 0);
    // The silence has lasted for longer already.
    set(&mut bench, Some(2_000));
    bench.run(1);
    assert_eq!(timeouts(&bench), 1);
    set(&mut bench, Some(3_000));
    bench.run(5_000);
    assert_eq!(timeouts(&bench), 1, "it is the same silence");
    bench.send_from(0);
    bench.run(2_999);
    assert_eq!(timeouts(&bench), 1);
    bench.run(1);
    assert_eq!(timeouts(&bench), 2);
    bench.send_from(0);
    set(&mut bench, Some(60_000));
    bench.run(3_500);
    set(&mut bench, Some(100));
    bench.run(1);
    assert_eq!(timeouts(&bench), 3);
}

#[test]
fn a_deleted_connection_has_no_timeout_and_neither_has_its_successor() {
    let mut bench = Bench::new();
    let id = bench.phone_with(with_timeout(1_000));
    bench.run(500);
    bench.call(Command::DeleteConnection { id }).unwrap();
    let new = ConnectionId::new(crate::bench::SHARD, 0, 2);
    bench.call(Command::CreateConnection { id: new, spec: Box::new(spec(Pcmu, 20)) }).unwrap();
    bench.run(5_000);
    assert_eq!(timeouts(&bench), 0);
    assert_eq!(bench.engine.poll_timeout(), None);
}

fn digit(bench: &mut Bench, sequence: &mut u16, timestamp: u32, key: u8, end: bool, duration: u16) {
    let mut payload = [0; 4];
    TelephoneEvent { event: event_of_digit(key).unwrap(), end, volume: 10, duration }.emit(&mut payload);
    *sequence += 1;
    let bytes = rtp(0x1000, *sequence, timestamp, 101, &payload);
    bench.deliver(Port::rtp(0), address(0), &bytes);
}

#[test]
fn every_press_of_a_key_is_told_once() {
    for in_room in [false, true] {
        let mut bench = Bench::new();
        let (a, b) = (bench.phone(Pcmu, 20), bench.phone(Pcma, 20));
        if in_room {
            let room = bench.room();
            bench.join(room, a);
            bench.join(room, b);
        } else {
            bench.relay(a, b);
        }
        let mut sequence = 10;
        for (n, key) in b"1159*0#AD".iter().enumerate() {
            let timestamp = 8_000 + 1_600 * n as u32;
            for duration in [160, 320, 480] {
                digit(&mut bench, &mut sequence, timestamp, *key, false, duration);
            }
            for _ in 0..3 {
                digit(&mut bench, &mut sequence, timestamp, *key, true, 640);
            }
        }
        let digits: Vec<_> = bench
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Digit { connection, digit, duration_ms } => Some((*connection, *digit, *duration_ms)),
                _ => None,
            })
            .collect();
        assert_eq!(digits, b"1159*0#AD".map(|key| (a, key, 80)));
        assert_eq!(bench.sent.len(), if in_room { 0 } else { 54 }, "relayed beside");
    }
}

#[test]
fn events_that_nobody_polls_are_bounded_and_answers_are_kept() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let presses = 3 * EVENTS_WAITING_MAX as u32;
    for n in 0..presses {
        let mut payload = [0; 4];
        TelephoneEvent { event: 5, end: true, volume: 10, duration: 400 }.emit(&mut payload);
        let mut bytes = rtp(0x1000, n as u16, 800 * n, 101, &payload);
        bench.now = bench.now + Duration::from_millis(20);
        let meta = DatagramMeta { port: Port::rtp(0), source: Some(address(0)), truncated: false };
        bench.engine.handle_datagram(bench.now, &meta, &mut bytes);
    }
    assert_eq!(bench.engine.events_waiting(), EVENTS_WAITING_MAX);
    for token in 0..10 {
        let command = Command::InspectConnection { id };
        bench.engine.handle_command(bench.now, Request { token, received: bench.now, command });
    }
    bench.drain();
    let digits = bench.count(|event| matches!(event, Event::Digit { .. }));
    assert_eq!(digits as u64 + bench.engine.totals().events_dropped, u64::from(presses));
    assert_eq!(bench.count(|event| matches!(event, Event::Answer { result: Ok(Answer::Connection(_)), .. })), 10);
}
