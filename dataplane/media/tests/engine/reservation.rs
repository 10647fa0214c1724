//! A reserved connection waits for its remote address, does nothing, and does not wait for ever.

use std::sync::Arc;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, ConnectionSpec, OperationSpec, ParticipantSpec, StopConditions, Target,
};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{CommandError, DropReason, EndReason, Event};
use ringbridge_media::id::{ConnectionId, ShardId};
use ringbridge_media::port::{Port, PortAction};
use ringbridge_media::samples::RecordQueue;

use crate::bench::{Bench, SHARD, Voice, addr, address, play, rtcp, spec};
use CodecKind::{Pcma, Pcmu};

const RESERVE_MS: u32 = 300_000;

fn reserved(bench: &mut Bench) -> ConnectionId {
    bench.phone_with(ConnectionSpec { reserve_ms: Some(RESERVE_MS), ..spec(Pcmu, 20) })
}

fn complete(bench: &mut Bench, id: ConnectionId) {
    let slot = id.slot_number();
    bench.modify(id, ConnectionChange { remote: Some(address(slot)), ..ConnectionChange::default() }).unwrap();
}

fn expired(bench: &Bench, wanted: ConnectionId) -> usize {
    bench.count(|event| {
        matches!(event, Event::ConnectionEnded { id, reason: EndReason::Expired, heard: None, .. } if *id == wanted)
    })
}

#[test]
fn it_expires_at_its_time_and_not_before() {
    let mut bench = Bench::new();
    let id = reserved(&mut bench);
    bench.run(299_990);
    assert!(bench.status(id).reserved);
    bench.run(9);
    assert_eq!(expired(&bench, id), 0);
    bench.run(1);
    assert_eq!(expired(&bench, id), 1);
    assert_eq!(bench.actions, [PortAction::Release { slot: 0 }]);
    assert_eq!(bench.call(Command::InspectConnection { id }).unwrap_err(), CommandError::UnknownConnection(id));
    assert_eq!((bench.engine.totals().connections, bench.engine.poll_timeout()), (0, None));
}

#[test]
fn completed_in_time_it_stays() {
    let mut bench = Bench::new();
    let id = reserved(&mut bench);
    bench.run(299_990);
    // Anything else may be changed before, and leaves it reserved.
    bench.modify(id, ConnectionChange { tx_codec: Some((Pcma, 8)), ..ConnectionChange::default() }).unwrap();
    // A change that is refused completes nothing.
    let refused = ConnectionChange { remote: Some(address(0)), ptime_ms: Some(0), ..ConnectionChange::default() };
    assert_eq!(bench.modify(id, refused).unwrap_err(), CommandError::UnsupportedCodec);
    assert!(bench.status(id).reserved);
    complete(&mut bench, id);
    let status = bench.status(id);
    assert_eq!((status.reserved, status.remote, status.tx_codec), (false, Some(address(0)), Pcma));
    bench.run(1_000_000);
    assert_eq!(expired(&bench, id), 0);
    let (room, peer) = (bench.room(), bench.phone(Pcmu, 20));
    bench.join(room, id);
    bench.join(room, peer);
    bench.say(0, Voice::Constant(1_000), 0);
    bench.run(200);
    assert!(bench.heard_by(0).len() > 8 && bench.heard_by(1).len() > 8);
}

#[test]
fn deleted_before_its_time_it_ends_once() {
    let mut bench = Bench::new();
    let id = reserved(&mut bench);
    bench.call(Command::DeleteConnection { id }).unwrap();
    // The slot's next user is not the one that was reserved.
    let next = ConnectionId::new(SHARD, 0, 2);
    bench.call(Command::CreateConnection { id: next, spec: Box::new(spec(Pcmu, 20)) }).unwrap();
    bench.run(600_000);
    assert_eq!(bench.count(|event| matches!(event, Event::ConnectionEnded { .. })), 1);
    assert!(!bench.status(next).reserved);
}

#[test]
fn nothing_can_be_done_with_it() {
    let mut bench = Bench::new();
    let (room, peer) = (bench.room(), bench.phone(Pcmu, 20));
    let id = reserved(&mut bench);
    let target = Target::Connection(id);
    let record = OperationSpec::Record { queue: Arc::new(RecordQueue::new(4)), until: StopConditions::default() };
    let operation = bench.operation_id();
    let commands = [
        Command::JoinConference { conference: room, connection: id, participant: ParticipantSpec::default() },
        Command::StartRelay { a: id, b: peer },
        Command::StartRelay { a: peer, b: id },
        Command::StartOperation { id: operation, target, operation: Box::new(play(vec![vec![1; 800]], None)) },
        Command::StartOperation { id: operation, target, operation: Box::new(record) },
        Command::StopOperation { target, operation: None },
        Command::SendDigits { target, digits: Digits::parse("1").unwrap() },
    ];
    for command in commands {
        let text = format!("{command:?}");
        assert_eq!(bench.call(command).unwrap_err(), CommandError::NotConnected(id), "{text}");
    }
    assert_eq!(bench.room_status(room).participants, []);
    complete(&mut bench, id);
    bench.relay(id, peer);
}

#[test]
fn nobody_is_learned_before_it_is_complete() {
    let mut bench = Bench::new();
    let id = reserved(&mut bench);
    let stranger = addr("203.0.113.9:9");
    for _ in 0..10 {
        let bytes = bench.phones[0].packet();
        bench.deliver(Port::rtp(0), stranger, &bytes);
    }
    bench.deliver(Port::rtcp(0), stranger, &rtcp(7));
    let status = bench.status(id);
    assert_eq!((status.learned, status.remote_rtcp, status.ssrc_in), (None, None, None));
    assert_eq!((status.counters.packets_in, status.counters.drops), (0, 11));
    assert_eq!((bench.drops(DropReason::Reserved), bench.engine.totals().drops.total()), (11, 11));
    complete(&mut bench, id);
    bench.send_from(0);
    assert_eq!(bench.status(id).learned, Some(address(0)));
}

#[test]
fn silence_counts_from_the_completion() {
    let mut bench = Bench::new();
    let id = bench.phone_with(ConnectionSpec {
        reserve_ms: Some(RESERVE_MS),
        rtp_timeout_ms: Some(1_000),
        ..spec(Pcmu, 20)
    });
    let timeouts = |bench: &Bench| bench.count(|event| matches!(event, Event::ConnectionTimeout { .. }));
    bench.run(5_000);
    assert_eq!(timeouts(&bench), 0);
    complete(&mut bench, id);
    bench.run(999);
    assert_eq!(timeouts(&bench), 0);
    bench.run(1);
    assert_eq!(timeouts(&bench), 1);
}

#[test]
fn it_expires_on_whatever_shard_it_is() {
    for wait in [0, 1_000, 400_000] {
        let mut bench = Bench::new();
        let id = reserved(&mut bench);
        bench.run(1_000);
        let departure = bench.engine.depart(id).unwrap();
        let mut there = Bench::on(ShardId(2), bench.now);
        there.run(wait);
        there.engine.adopt(there.now, 77, departure).unwrap();
        there.run(299_000_u64.saturating_sub(wait + 1));
        assert_eq!(expired(&there, id), usize::from(wait == 400_000));
        there.run(1);
        there.catch_up();
        assert_eq!(expired(&there, id), 1, "after {wait} ms on the way");
        assert_eq!(there.actions, [PortAction::Release { slot: 77 }]);
    }
}
