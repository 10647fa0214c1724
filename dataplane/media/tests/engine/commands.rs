//! Create, modify, inspect, list and delete; what fails has changed nothing.

use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, Direction, OperationSpec, ParticipantChange,
    ParticipantSpec, PlayAdjust, PlayChange, StopConditions, Target,
};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{
    Answer, CommandError, Condition, ConferenceStatus, ConnectionState, ConnectionStatus, EndReason, Event,
    OperationStatus,
};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::{CONFERENCES_MAX, CONNECTIONS_MAX};
use ringbridge_media::port::PortAction;

use crate::bench::{Bench, SHARD, Voice, addr, address, check_stream, play, spec};
use CodecKind::{Pcma, Pcmu};

const LOUDER: PlayChange = PlayChange { adjust: PlayAdjust::VolumeBy(2), only_if_playing: true };

fn gather() -> OperationSpec {
    OperationSpec::GatherDigits { flush: true, until: StopConditions::default() }
}

#[test]
fn a_connection_is_created_modified_inspected_and_deleted() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let status = bench.status(id);
    assert_eq!((status.state, status.remote, status.learned), (ConnectionState::Idle, Some(address(0)), None));
    assert_eq!((status.ssrc_in, status.ssrc_out, status.level_db), (None, None, None));

    let change = ConnectionChange {
        remote: Some(addr("10.9.9.9:9000")),
        tx_codec: Some((Pcma, 8)),
        ptime_ms: Some(40),
        direction: Some(Direction::RecvOnly),
        ..ConnectionChange::default()
    };
    assert!(matches!(bench.modify(id, change), Ok(Answer::Done)));
    let status = bench.status(id);
    assert_eq!((status.remote, status.remote_rtcp), (Some(addr("10.9.9.9:9000")), Some(addr("10.9.9.9:9001"))));
    assert_eq!((status.rx_codec, status.tx_codec, status.ptime_ms), (Pcmu, Pcma, 40));
    assert_eq!(status.direction, Direction::RecvOnly);

    assert!(
        matches!(bench.call(Command::DeleteConnection { id }), Ok(Answer::Deleted { connections, .. }) if connections == [id])
    );
    assert!(
        matches!(bench.events[..], [Event::ConnectionEnded { id: ended, reason: EndReason::Deleted, heard: None, .. }] if ended == id)
    );
    assert_eq!(bench.actions, [PortAction::Release { slot: 0 }]);
    assert_eq!(bench.engine.totals().connections, 0);
    for command in [
        Command::InspectConnection { id },
        Command::DeleteConnection { id },
        Command::ModifyConnection { id, change: Box::default() },
    ] {
        assert!(matches!(bench.call(command), Err(CommandError::UnknownConnection(unknown)) if unknown == id));
    }
}

#[test]
fn a_stale_generation_is_refused_everywhere() {
    let mut bench = Bench::new();
    let old = bench.connection(spec(Pcmu, 20));
    let peer = bench.connection(spec(Pcmu, 20));
    bench.call(Command::DeleteConnection { id: old }).unwrap();
    let new = ConnectionId::new(SHARD, 0, 2);
    bench.call(Command::CreateConnection { id: new, spec: Box::new(spec(Pcmu, 20)) }).unwrap();
    let (old_room, room) = (ConferenceId::new(SHARD, 0, 1), ConferenceId::new(SHARD, 0, 2));
    bench
        .call(Command::CreateConference {
            id: room,
            spec: ConferenceSpec { participants_max: 2, ..ConferenceSpec::default() },
        })
        .unwrap();
    let participant = ParticipantSpec::default();
    let change = ParticipantChange::default();
    let target = Target::Connection(old);
    for command in [
        Command::InspectConnection { id: old },
        Command::DeleteConnection { id: old },
        Command::StartRelay { a: old, b: peer, transcode: false },
        Command::StartRelay { a: peer, b: old, transcode: false },
        Command::StopRelay { a: old },
        Command::JoinConference { conference: room, connection: old, participant },
        Command::SetParticipant { conference: room, connection: old, change },
        Command::LeaveConference { conference: room, connection: old },
        Command::StartOperation { id: OperationId::new(SHARD, 1, 1), target, operation: Box::new(play(vec![], None)) },
        Command::StopOperation { target, operation: None },
        Command::ListOperations { target },
    ] {
        assert!(matches!(bench.call(command), Err(CommandError::UnknownConnection(unknown)) if unknown == old));
    }
    let target = Target::Conference(old_room);
    for command in [
        Command::InspectConference { id: old_room },
        Command::DeleteConference { id: old_room, keep_connections: true },
        Command::JoinConference { conference: old_room, connection: new, participant },
        Command::SetParticipant { conference: old_room, connection: new, change },
        Command::LeaveConference { conference: old_room, connection: new },
        Command::StartOperation { id: OperationId::new(SHARD, 1, 1), target, operation: Box::new(play(vec![], None)) },
        Command::StopOperation { target, operation: None },
        Command::ListOperations { target },
    ] {
        assert!(matches!(bench.call(command), Err(CommandError::UnknownConference(unknown)) if unknown == old_room));
    }
    bench.status(new);
}

#[test]
fn deleting_a_conference_releases_its_connections_and_ends_their_operations() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
    let outside = bench.phone(Pcmu, 20);
    let on_room = bench.play(Target::Conference(room), vec![1000; 80_000]);
    let (on_member, _) = bench.record(Target::Connection(ids[0]), None);
    bench.run(100);
    let answer = bench.call(Command::DeleteConference { id: room, keep_connections: false });
    assert!(matches!(answer, Ok(Answer::Deleted { connections, .. }) if connections == ids));
    let mut ended: Vec<_> = bench.ended().into_iter().map(|(id, condition, _)| (id, condition)).collect();
    ended.sort_unstable_by_key(|&(id, _)| id);
    assert_eq!(ended, [(on_room, Condition::AutoStop), (on_member, Condition::AutoStop)]);
    assert_eq!(bench.count(|event| matches!(event, Event::ConferenceEnded { reason: EndReason::Deleted, .. })), 1);
    let gone = |event: &Event| matches!(event, Event::ConnectionEnded { reason: EndReason::ConferenceDeleted, .. });
    assert_eq!(bench.count(gone), 2);
    bench.status(outside);
    let totals = bench.engine.totals();
    assert_eq!((totals.connections, totals.conferences, totals.operations), (1, 0, 0));
}

#[test]
fn deleting_a_conference_can_keep_its_connections() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
    let answer = bench.call(Command::DeleteConference { id: room, keep_connections: true });
    assert!(matches!(answer, Ok(Answer::Deleted { connections, .. }) if connections.is_empty()));
    for id in ids {
        assert_eq!(bench.status(id).state, ConnectionState::Idle);
    }
    assert_eq!(bench.count(|event| matches!(event, Event::ConferenceEnded { .. })), 1);
}

#[test]
fn the_last_one_out_ends_the_conference_exactly_once() {
    for by_delete in [false, true] {
        let mut bench = Bench::new();
        let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30), (Pcmu, 10)]);
        for (n, &connection) in ids.iter().enumerate() {
            let ended = |event: &Event| matches!(event, Event::ConferenceEnded { .. });
            assert_eq!(bench.count(ended), 0, "{n} have left");
            bench.run(33);
            bench
                .call(if by_delete {
                    Command::DeleteConnection { id: connection }
                } else {
                    Command::LeaveConference { conference: room, connection }
                })
                .unwrap();
        }
        let ended =
            |event: &Event| matches!(event, Event::ConferenceEnded { id, reason: EndReason::LastLeft } if *id == room);
        assert_eq!(bench.count(ended), 1);
        assert!(matches!(bench.call(Command::InspectConference { id: room }), Err(CommandError::UnknownConference(_))));
        assert_eq!(bench.engine.totals().connections, if by_delete { 0 } else { 3 });
    }
}

#[test]
fn lists_come_in_pages_and_hold_everything_once() {
    let mut bench = Bench::new();
    let ids: Vec<_> = (0..10).map(|_| bench.connection(spec(Pcmu, 20))).collect();
    let rooms: Vec<_> = (0..5).map(|_| bench.room()).collect();
    bench.call(Command::DeleteConnection { id: ids[4] }).unwrap();
    for limit in [1, 3, 100] {
        let (mut from, mut found) = (0, Vec::new());
        loop {
            let Ok(Answer::Connections { page, next }) = bench.call(Command::ListConnections { from, limit }) else {
                panic!()
            };
            assert!(page.len() <= limit as usize);
            found.extend(page.iter().map(|status| status.id));
            let Some(next) = next else { break };
            assert!(next > from || found.is_empty());
            from = next;
        }
        assert_eq!(found, ids.iter().copied().filter(|&id| id != ids[4]).collect::<Vec<_>>());
        let (mut from, mut found) = (0, Vec::new());
        loop {
            let Ok(Answer::Conferences { page, next }) = bench.call(Command::ListConferences { from, limit }) else {
                panic!()
            };
            found.extend(page.iter().map(|status| status.id));
            let Some(next) = next else { break };
            from = next;
        }
        assert_eq!(found, rooms);
    }
    let Ok(Answer::Connections { page, next }) = bench.call(Command::ListConnections { from: 0, limit: 0 }) else {
        panic!()
    };
    assert_eq!((page.len(), next), (0, Some(0)));
    let Ok(Answer::Connections { page, next }) = bench.call(Command::ListConnections { from: u32::MAX, limit: 9 })
    else {
        panic!()
    };
    assert_eq!((page.len(), next), (0, None));
}

/// Everything that can be asked of a bench.
#[derive(PartialEq, Debug)]
struct Everything {
    connections: Vec<ConnectionStatus>,
    conferences: Vec<ConferenceStatus>,
    operations: Vec<OperationStatus>,
    waiting: usize,
}

fn everything(bench: &mut Bench) -> Everything {
    let Ok(Answer::Connections { page: connections, .. }) =
        bench.call(Command::ListConnections { from: 0, limit: u32::MAX })
    else {
        panic!()
    };
    let Ok(Answer::Conferences { page: conferences, .. }) =
        bench.call(Command::ListConferences { from: 0, limit: u32::MAX })
    else {
        panic!()
    };
    let targets: Vec<_> = connections
        .iter()
        .map(|status| Target::Connection(status.id))
        .chain(conferences.iter().map(|status| Target::Conference(status.id)))
        .collect();
    let mut operations = Vec::new();
    for target in targets {
        let Ok(Answer::Operations(running)) = bench.call(Command::ListOperations { target }) else { panic!() };
        operations.extend(running);
    }
    Everything { connections, conferences, operations, waiting: bench.events.len() }
}

#[test]
fn a_command_that_fails_has_changed_nothing() {
    let mut bench = Bench::new();
    let (room, members) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
    let (a, b) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
    bench.relay(a, b);
    let idle = bench.phone(Pcmu, 20);
    let odd = bench.connection(ConnectionSpec { ptime_ms: 25, remote: Some(address(77)), ..spec(Pcmu, 20) });
    let unlearned = bench.connection(spec(Pcmu, 20));
    let full = ConferenceId::new(SHARD, 9, 1);
    bench
        .call(Command::CreateConference {
            id: full,
            spec: ConferenceSpec { participants_max: 0, ..ConferenceSpec::default() },
        })
        .unwrap();
    bench.play(Target::Connection(members[0]), vec![100; 80_000]);
    let (recording, _) = bench.record(Target::Connection(a), None);
    for n in 0..4 {
        bench.say(n, Voice::Constant(5000), n as u64);
    }
    for _ in 0..8 {
        bench.play(Target::Conference(room), vec![100; 80_000]);
    }
    bench.run(200);

    let participant = ParticipantSpec::default();
    let nobody = ConnectionId::new(SHARD, 999, 1);
    let elsewhere = ConnectionId::new(ShardId(9), 0, 1);
    let far = ConnectionId::new(SHARD, CONNECTIONS_MAX as u32, 1);
    let no_room = ConferenceId::new(SHARD, CONFERENCES_MAX as u32, 1);
    let op = OperationId::new(SHARD, 500, 1);
    let spec_box = || Box::new(spec(Pcmu, 20));
    let silence = || play(vec![vec![0; 80]], None);
    let ptime = |ptime_ms| Box::new(ConnectionChange { ptime_ms: Some(ptime_ms), ..ConnectionChange::default() });
    let decoded_as =
        |number| Box::new(ConnectionChange { rx_codec: Some((Pcmu, number)), ..ConnectionChange::default() });
    use CommandError as E;
    let commands = [
        (Command::CreateConnection { id: ConnectionId::new(SHARD, 0, 5), spec: spec_box() }, E::LimitReached),
        (Command::CreateConnection { id: elsewhere, spec: spec_box() }, E::LimitReached),
        (Command::CreateConnection { id: far, spec: spec_box() }, E::LimitReached),
        (
            Command::CreateConnection { id: nobody, spec: Box::new(ConnectionSpec { ptime_ms: 0, ..spec(Pcmu, 20) }) },
            E::UnsupportedCodec,
        ),
        (
            Command::CreateConnection {
                id: nobody,
                spec: Box::new(ConnectionSpec { ptime_ms: 201, ..spec(Pcmu, 20) }),
            },
            E::UnsupportedCodec,
        ),
        (
            Command::CreateConnection {
                id: nobody,
                spec: Box::new(ConnectionSpec { telephone_event_payload_type: 95, rtcp_mux: true, ..spec(Pcmu, 20) }),
            },
            E::TakenForRtcp(95),
        ),
        (Command::ModifyConnection { id: idle, change: decoded_as(76) }, E::TakenForRtcp(76)),
        (Command::ModifyConnection { id: nobody, change: ptime(20) }, E::UnknownConnection(nobody)),
        (Command::ModifyConnection { id: members[0], change: ptime(25) }, E::UnsupportedCodec),
        (Command::ModifyConnection { id: members[0], change: ptime(70) }, E::UnsupportedCodec),
        (Command::ModifyConnection { id: idle, change: ptime(0) }, E::UnsupportedCodec),
        (Command::ModifyConnection { id: idle, change: ptime(u32::MAX) }, E::UnsupportedCodec),
        (Command::InspectConnection { id: nobody }, E::UnknownConnection(nobody)),
        (Command::DeleteConnection { id: nobody }, E::UnknownConnection(nobody)),
        (Command::DeleteConnection { id: far }, E::UnknownConnection(far)),
        (Command::StartRelay { a: idle, b: idle, transcode: false }, E::AlreadyJoined(idle)),
        (Command::StartRelay { a: idle, b: members[0], transcode: false }, E::AlreadyJoined(members[0])),
        (Command::StartRelay { a, b: idle, transcode: false }, E::AlreadyJoined(a)),
        (Command::StartRelay { a: idle, b: nobody, transcode: false }, E::UnknownConnection(nobody)),
        (Command::StopRelay { a: idle }, E::NotAParticipant(idle)),
        (Command::StopRelay { a: members[0] }, E::NotAParticipant(members[0])),
        (
            Command::CreateConference {
                id: ConferenceId::new(SHARD, 0, 2),
                spec: ConferenceSpec { participants_max: 2, ..ConferenceSpec::default() },
            },
            E::LimitReached,
        ),
        (
            Command::CreateConference {
                id: ConferenceId::new(ShardId(9), 3, 2),
                spec: ConferenceSpec { participants_max: 2, ..ConferenceSpec::default() },
            },
            E::LimitReached,
        ),
        (
            Command::CreateConference {
                id: no_room,
                spec: ConferenceSpec { participants_max: 2, ..ConferenceSpec::default() },
            },
            E::LimitReached,
        ),
        (
            Command::JoinConference { conference: room, connection: members[1], participant },
            E::AlreadyJoined(members[1]),
        ),
        (Command::JoinConference { conference: room, connection: a, participant }, E::AlreadyJoined(a)),
        (Command::JoinConference { conference: room, connection: odd, participant }, E::UnsupportedCodec),
        (Command::JoinConference { conference: full, connection: idle, participant }, E::LimitReached),
        (Command::JoinConference { conference: no_room, connection: idle, participant }, E::UnknownConference(no_room)),
        (Command::JoinConference { conference: room, connection: nobody, participant }, E::UnknownConnection(nobody)),
        (
            Command::SetParticipant { conference: room, connection: idle, change: ParticipantChange::default() },
            E::NotAParticipant(idle),
        ),
        (
            Command::SetParticipant { conference: full, connection: members[0], change: ParticipantChange::default() },
            E::NotAParticipant(members[0]),
        ),
        (Command::LeaveConference { conference: room, connection: idle }, E::NotAParticipant(idle)),
        (Command::LeaveConference { conference: full, connection: members[0] }, E::NotAParticipant(members[0])),
        (Command::LeaveConference { conference: no_room, connection: members[0] }, E::UnknownConference(no_room)),
        (Command::DeleteConference { id: no_room, keep_connections: false }, E::UnknownConference(no_room)),
        (Command::InspectConference { id: no_room }, E::UnknownConference(no_room)),
        (
            Command::StartOperation { id: op, target: Target::Connection(members[0]), operation: Box::new(silence()) },
            E::Busy,
        ),
        (
            Command::StartOperation { id: op, target: Target::Conference(room), operation: Box::new(silence()) },
            E::LimitReached,
        ),
        (
            Command::StartOperation { id: op, target: Target::Conference(room), operation: Box::new(gather()) },
            E::Unsupported,
        ),
        (Command::AdjustPlay { target: Target::Connection(idle), change: LOUDER }, E::NothingPlaying),
        (Command::AdjustPlay { target: Target::Connection(nobody), change: LOUDER }, E::UnknownConnection(nobody)),
        (Command::AdjustPlay { target: Target::Conference(no_room), change: LOUDER }, E::UnknownConference(no_room)),
        (
            Command::SendDigits { target: Target::Connection(nobody), digits: Digits::default() },
            E::UnknownConnection(nobody),
        ),
        (
            Command::SendDigits { target: Target::Conference(no_room), digits: Digits::default() },
            E::UnknownConference(no_room),
        ),
        (
            Command::StartOperation { id: op, target: Target::Connection(unlearned), operation: Box::new(silence()) },
            E::NotConnected(unlearned),
        ),
        (
            Command::StartOperation { id: op, target: Target::Connection(odd), operation: Box::new(silence()) },
            E::UnsupportedCodec,
        ),
        (
            Command::StartOperation { id: op, target: Target::Connection(nobody), operation: Box::new(silence()) },
            E::UnknownConnection(nobody),
        ),
        (
            Command::StartOperation { id: op, target: Target::Conference(no_room), operation: Box::new(silence()) },
            E::UnknownConference(no_room),
        ),
        (Command::StopOperation { target: Target::Connection(idle), operation: Some(op) }, E::UnknownOperation(op)),
        (
            Command::StopOperation { target: Target::Connection(idle), operation: Some(recording) },
            E::UnknownOperation(recording),
        ),
        (Command::StopOperation { target: Target::Conference(room), operation: Some(op) }, E::UnknownOperation(op)),
        (Command::StopOperation { target: Target::Connection(nobody), operation: None }, E::UnknownConnection(nobody)),
        (Command::ListOperations { target: Target::Connection(nobody) }, E::UnknownConnection(nobody)),
        (Command::ListOperations { target: Target::Conference(no_room) }, E::UnknownConference(no_room)),
    ];
    for (command, error) in commands {
        let before = everything(&mut bench);
        let name = format!("{command:?}");
        let answer = bench.call(command);
        assert!(matches!(&answer, Err(found) if *found == error), "{name}: {answer:?}");
        assert_eq!(everything(&mut bench), before, "{name}");
        bench.run(7);
    }
    bench.run(100);
    for slot in 0..2 {
        assert_eq!(check_stream(&bench.heard_by(slot)), [0], "nothing of it was heard");
    }
}

#[test]
fn a_modified_codec_never_shares_a_packet_with_the_one_before() {
    let mut bench = Bench::new();
    let (_, ids) = bench.room_of(&[(Pcmu, 40), (Pcmu, 20)]);
    bench.say(1, Voice::Constant(8031), 0);
    for (n, codec) in [Pcma, Pcmu, Pcma, Pcmu, Pcma].into_iter().enumerate() {
        bench.run(200 + 13 * n as u64);
        let tx_codec = Some((codec, codec.payload_type()));
        bench.modify(ids[0], ConnectionChange { tx_codec, ..ConnectionChange::default() }).unwrap();
    }
    bench.run(100);
    let packets = bench.heard_by(0);
    assert_eq!(check_stream(&packets), [0]);
    assert!(packets.iter().any(|packet| packet.payload.len() != 320), "a packet was cut short");
    for packet in
        packets.iter().filter(|packet| packet.at > crate::bench::START + core::time::Duration::from_millis(100))
    {
        let codec = if packet.header.payload_type == 0 { Pcmu } else { Pcma };
        for sample in crate::bench::decode(&packet.payload, codec) {
            assert!((7_500..8_600).contains(&sample), "{sample} in a packet of type {}", packet.header.payload_type);
        }
    }
}

#[test]
fn a_modified_packet_time_keeps_the_stream_without_a_gap() {
    let mut bench = Bench::new();
    let (_, ids) = bench.room_of(&[(Pcmu, 40), (Pcmu, 20)]);
    for ptime_ms in [10, 60, 20, 30, 40] {
        bench.run(105);
        bench.modify(ids[0], ConnectionChange { ptime_ms: Some(ptime_ms), ..ConnectionChange::default() }).unwrap();
    }
    bench.run(100);
    assert_eq!(check_stream(&bench.heard_by(0)), [0]);
}
