//! A reserved connection waits for its remote address, does nothing, and does not wait for ever.

use std::sync::Arc;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, ConnectionSpec, OperationSpec, ParticipantSpec, StopConditions, Target,
};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{Answer, CommandError, DropReason, EndReason, Event};
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
        Command::StartRelay { a: id, b: peer, transcode: false },
        Command::StartRelay { a: peer, b: id, transcode: false },
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

/// Reserves a connection once more.
fn reserve(bench: &mut Bench, id: ConnectionId, reserve_ms: u32) -> Result<Answer, CommandError> {
    bench.modify(id, ConnectionChange { reserve_ms: Some(reserve_ms), ..ConnectionChange::default() })
}

#[test]
fn what_was_completed_can_be_reserved_again() {
    let mut bench = Bench::new();
    let id = reserved(&mut bench);
    bench.run(1_000);
    complete(&mut bench, id);
    bench.send_from(0);
    assert_eq!(bench.status(id).learned, Some(address(0)));
    bench.run(1_000);
    reserve(&mut bench, id, RESERVE_MS).unwrap();
    let status = bench.status(id);
    assert!(status.reserved);
    assert_eq!((status.remote, status.learned, status.remote_rtcp), (None, None, None));
    // Who was heard before is not heard now.
    bench.send_from(0);
    assert_eq!((bench.drops(DropReason::Reserved), bench.status(id).learned), (1, None));
    let room = bench.room();
    let join = Command::JoinConference { conference: room, connection: id, participant: ParticipantSpec::default() };
    assert_eq!(bench.call(join).unwrap_err(), CommandError::NotConnected(id));
    // The end of the first reservation is not its end.
    bench.run(299_990);
    assert_eq!(expired(&bench, id), 0);
    bench.run(10);
    assert_eq!(expired(&bench, id), 1);
}

#[test]
fn a_shorter_reservation_wins_and_a_completion_ends_all() {
    let mut bench = Bench::new();
    let ids = [reserved(&mut bench), reserved(&mut bench)];
    for id in ids {
        reserve(&mut bench, id, 1_000).unwrap();
    }
    complete(&mut bench, ids[1]);
    bench.run(999);
    assert_eq!(expired(&bench, ids[0]), 0);
    bench.run(1);
    assert_eq!(expired(&bench, ids[0]), 1);
    bench.run(600_000);
    assert_eq!(expired(&bench, ids[1]), 0);
    let peer = bench.phone(Pcmu, 20);
    bench.relay(ids[1], peer);
}

#[test]
fn only_what_is_idle_can_be_reserved_again() {
    let mut bench = Bench::new();
    let (id, peer, third) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
    bench.relay(id, peer);
    assert_eq!(reserve(&mut bench, id, 1_000).unwrap_err(), CommandError::Busy);
    assert_eq!(reserve(&mut bench, peer, 1_000).unwrap_err(), CommandError::Busy);
    bench.call(Command::StopRelay { a: id }).unwrap();
    bench.start(Target::Connection(id), play(vec![vec![1; 8000]], None));
    assert_eq!(reserve(&mut bench, id, 1_000).unwrap_err(), CommandError::Busy);
    let room = bench.room();
    bench.join(room, third);
    assert_eq!(reserve(&mut bench, third, 1_000).unwrap_err(), CommandError::Busy);
    let both = ConnectionChange { reserve_ms: Some(1), remote: Some(address(1)), ..ConnectionChange::default() };
    assert_eq!(bench.modify(peer, both).unwrap_err(), CommandError::Busy);
    for id in [id, peer, third] {
        assert!(!bench.status(id).reserved);
    }
    bench.run(2_000);
    // What has ended keeps it no more.
    reserve(&mut bench, id, 1_000).unwrap();
    bench.run(1_000);
    assert_eq!((expired(&bench, id), expired(&bench, peer), expired(&bench, third)), (1, 0, 0));
}

#[test]
fn it_expires_on_whatever_shard_it_is() {
    for wait in [0, 1_000, 400_000] {
        let mut bench = Bench::new();
        let id = reserved(&mut bench);
        bench.run(1_000);
        let departure = bench.engine.depart(Target::Connection(id)).unwrap();
        let mut there = Bench::on(ShardId(2), bench.now);
        there.run(wait);
        there.engine.adopt(there.now, departure, &[77], None).unwrap();
        there.run(299_000_u64.saturating_sub(wait + 1));
        assert_eq!(expired(&there, id), usize::from(wait == 400_000));
        there.run(1);
        there.catch_up();
        assert_eq!(expired(&there, id), 1, "after {wait} ms on the way");
        assert_eq!(there.actions, [PortAction::Release { slot: 77 }]);
    }
}
