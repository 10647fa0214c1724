//! Two parties patched to each other: mixed where they can be decoded, passed on where not, until they are promoted.

use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ParticipantChange, ParticipantSpec, Role, Target,
};
use ringbridge_media::event::{CommandError, ConnectionState, DropReason, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId};
use ringbridge_media::port::{Disposition, Port};
use ringbridge_wire::rtp::RtpPacket;
use ringbridge_wire::telephone_event::{TelephoneEvent, event_of_digit};

use crate::bench::{Bench, SHARD, Voice, address, check_stream, decode, play, rtcp, rtp, spec, stamp};
use CodecKind::{G723, G729, Pcma, Pcmu};

const HAIRPIN: ConferenceId = ConferenceId::new(SHARD, 7, 1);

fn open(bench: &mut Bench) {
    let spec = ConferenceSpec { hairpin: true, ..ConferenceSpec::default() };
    bench.call(Command::CreateConference { id: HAIRPIN, spec }).unwrap();
}

fn hairpin_of(members: [(CodecKind, u32); 2]) -> (Bench, Vec<ConnectionId>) {
    let mut bench = Bench::new();
    open(&mut bench);
    let ids: Vec<_> = members.into_iter().map(|(codec, ptime_ms)| bench.phone(codec, ptime_ms)).collect();
    for &id in &ids {
        bench.join(HAIRPIN, id);
    }
    (bench, ids)
}

fn refused_join(bench: &mut Bench, connection: ConnectionId, role: Role) -> CommandError {
    let participant = ParticipantSpec { role, ..ParticipantSpec::default() };
    bench.call(Command::JoinConference { conference: HAIRPIN, connection, participant }).unwrap_err()
}

fn muted(muted: bool) -> ParticipantChange {
    ParticipantChange { muted: Some(muted), ..ParticipantChange::default() }
}

fn promote(bench: &mut Bench) {
    bench.call(Command::PromoteConference { id: HAIRPIN }).unwrap();
    assert!(!bench.room_status(HAIRPIN).hairpin);
}

#[test]
fn what_needs_more_than_two_waits_for_promotion() {
    let (mut bench, ids) = hairpin_of([(Pcmu, 20), (Pcma, 30)]);
    let third = bench.phone(Pcmu, 20);
    let (busy, conference) = (CommandError::Busy, HAIRPIN);
    assert!(bench.room_status(HAIRPIN).hairpin);
    for role in [Role::Party, Role::Monitor, Role::Coach] {
        assert_eq!(refused_join(&mut bench, third, role), busy);
    }
    for role in [Role::Coach, Role::Pupil] {
        let change = ParticipantChange { role: Some(role), ..ParticipantChange::default() };
        assert_eq!(bench.call(Command::SetParticipant { conference, connection: ids[0], change }).unwrap_err(), busy);
    }
    let id = bench.operation_id();
    let target = Target::Conference(HAIRPIN);
    let start = || Command::StartOperation { id, target, operation: Box::new(play(vec![vec![1_000; 800]], None)) };
    assert_eq!(bench.call(start()).unwrap_err(), busy);
    assert_eq!(bench.engine.totals().operations, 0);
    promote(&mut bench);
    // Twice is once.
    promote(&mut bench);
    bench.call(start()).unwrap();
    bench.join_as(HAIRPIN, third, ParticipantSpec { role: Role::Coach, ..ParticipantSpec::default() });
    bench.set(HAIRPIN, ids[0], ParticipantChange { role: Some(Role::Pupil), ..ParticipantChange::default() });
    let unknown = ConferenceId::new(SHARD, 7, 2);
    assert_eq!(
        bench.call(Command::PromoteConference { id: unknown }).unwrap_err(),
        CommandError::UnknownConference(unknown)
    );
}

#[test]
fn the_first_may_not_be_a_coach_either() {
    let mut bench = Bench::new();
    open(&mut bench);
    let id = bench.phone(Pcmu, 20);
    assert_eq!(refused_join(&mut bench, id, Role::Pupil), CommandError::Busy);
    assert_eq!(bench.room_status(HAIRPIN).participants, []);
    // A conference may be promoted before anybody is there.
    promote(&mut bench);
    bench.join_as(HAIRPIN, id, ParticipantSpec { role: Role::Pupil, ..ParticipantSpec::default() });
}

#[test]
fn promotion_can_not_be_heard() {
    for late in 0..20 {
        let (mut bench, ids) = hairpin_of([(Pcmu, 20), (Pcma, 30)]);
        bench.say(0, Voice::Constant(3_000), 0);
        bench.say(1, Voice::Constant(-2_000), 3);
        bench.run(500 + late);
        promote(&mut bench);
        bench.run(500);
        let third = bench.phone(Pcmu, 10);
        bench.join(HAIRPIN, third);
        bench.run(500);
        for (slot, codec, range) in [(0, Pcmu, -2_100..=-1_900), (1, Pcma, 2_900..=3_100)] {
            let packets = bench.heard_by(slot);
            assert_eq!(check_stream(&packets), [0]);
            let samples: Vec<i16> = packets.iter().flat_map(|packet| decode(&packet.payload, codec)).collect();
            assert!(samples.len() > 11_000);
            // Once it has begun, not a sample is missing.
            assert!(samples[800..].iter().all(|sample| range.contains(sample)), "slot {slot}, {late} ms");
        }
        let heard = bench.heard_by(2);
        let last = decode(&heard.last().unwrap().payload, Pcmu);
        assert!(last.iter().all(|sample| (900..1_100).contains(sample)));
        assert_eq!(bench.status(ids[0]).counters.concealed_samples, 0);
    }
}

#[test]
fn mute_works_on_a_mixed_hairpin() {
    let (mut bench, ids) = hairpin_of([(Pcmu, 20), (Pcmu, 20)]);
    bench.say(0, Voice::Constant(3_000), 0);
    bench.run(300);
    let last = |bench: &Bench| decode(&bench.heard_by(1).last().unwrap().payload, Pcmu)[0];
    assert!(last(&bench) > 2_900);
    bench.set(HAIRPIN, ids[0], muted(true));
    bench.run(300);
    assert_eq!(last(&bench), 0);
    bench.set(HAIRPIN, ids[0], muted(false));
    bench.run(300);
    assert!(last(&bench) > 2_900);
    assert!(bench.room_status(HAIRPIN).hairpin);
}

/// Packets of G.729 (RFC 3551 section 4.5.6): two frames of ten octets, the last one comfort noise of two.
fn g729(n: u16) -> Vec<u8> {
    let len = if n % 10 == 9 { 12 } else { 20 };
    rtp(0x1000, n, u32::from(n) * 160, 18, &vec![n as u8; len])
}

#[test]
fn what_can_not_be_decoded_passes_untouched_and_is_counted() {
    for codec in [G729, G723] {
        let ptime_ms = if codec == G723 { 30 } else { 20 };
        let (mut bench, ids) = hairpin_of([(codec, ptime_ms), (codec, ptime_ms)]);
        let press = TelephoneEvent { event: event_of_digit(b'5').unwrap(), end: true, volume: 10, duration: 800 };
        let mut digit = [0; 4];
        press.emit(&mut digit);
        let mut packets: Vec<_> = (0..50).map(g729).collect();
        packets.push(rtp(0x1000, 50, 8_000, 101, &digit));
        packets.swap(20, 21);
        for packet in &packets {
            assert!(matches!(bench.deliver(Port::rtp(0), address(0), packet), Disposition::Forward(_)));
            bench.run(20);
        }
        let sent: Vec<_> = bench.sent.drain(..).map(|sent| (sent.port, sent.target, sent.bytes)).collect();
        let bytes: u64 = packets.iter().map(|packet| packet.len() as u64).sum();
        let expected: Vec<_> = packets.into_iter().map(|bytes| (Port::rtp(1), Some(address(1)), bytes)).collect();
        assert_eq!(sent, expected);
        let (mut from, mut to) = (address(0), address(1));
        from.set_port(4001);
        to.set_port(4001);
        bench.deliver(Port::rtcp(0), from, &rtcp(7));
        assert_eq!(bench.sent.len(), 1);
        assert_eq!(
            (bench.sent[0].port, bench.sent[0].target, &bench.sent[0].bytes),
            (Port::rtcp(1), Some(to), &rtcp(7))
        );
        let (a, b) = (bench.status(ids[0]), bench.status(ids[1]));
        assert_eq!((a.counters.packets_in, a.counters.bytes_in, a.counters.rtcp_in), (51, bytes, 1));
        assert_eq!((b.counters.packets_out, b.counters.bytes_out, b.counters.rtcp_out), (51, bytes, 1));
        assert_eq!((a.counters.drops, a.level_db, b.ssrc_out), (0, None, None));
        assert_eq!(a.state, ConnectionState::InConference(HAIRPIN));
        assert_eq!(bench.count(|event| matches!(event, Event::Digit { digit: b'5', .. })), 1);
        assert_eq!(bench.count(|event| matches!(event, Event::TalkStarted { .. })), 0);
        assert_eq!(bench.engine.poll_timeout(), None, "it has no clock");
    }
}

#[test]
fn only_equal_codecs_are_passed_on() {
    let others = [(Pcmu, 20), (Pcma, 20), (G723, 30), (G729, 40)];
    for (codec, ptime_ms) in others {
        for reversed in [false, true] {
            let mut bench = Bench::new();
            open(&mut bench);
            let mut ids = [bench.phone(G729, 20), bench.phone(codec, ptime_ms)];
            if reversed {
                ids.reverse();
            }
            bench.join(HAIRPIN, ids[0]);
            assert_eq!(refused_join(&mut bench, ids[1], Role::Party), CommandError::UnsupportedCodec);
            assert_eq!(bench.room_status(HAIRPIN).participants.len(), 1);
            // Whoever was there first is joined by his like.
            let like = if reversed { (codec, ptime_ms) } else { (G729, 20) };
            let like = bench.phone(like.0, like.1);
            bench.join(HAIRPIN, like);
        }
    }
    // Another payload type would have to be rewritten.
    let mut bench = Bench::new();
    open(&mut bench);
    let a = bench.phone(G729, 20);
    let b = bench.connection(ringbridge_media::command::ConnectionSpec { tx_payload_type: 97, ..spec(G729, 20) });
    bench.join(HAIRPIN, a);
    assert_eq!(refused_join(&mut bench, b, Role::Party), CommandError::UnsupportedCodec);
}

#[test]
fn what_can_not_be_decoded_can_not_be_mixed() {
    let (mut bench, ids) = hairpin_of([(G729, 20), (G729, 20)]);
    let unsupported = CommandError::UnsupportedCodec;
    assert_eq!(bench.call(Command::PromoteConference { id: HAIRPIN }).unwrap_err(), unsupported);
    let id = bench.operation_id();
    let target = Target::Connection(ids[0]);
    let operation = Box::new(play(vec![vec![1_000; 800]], None));
    assert_eq!(bench.call(Command::StartOperation { id, target, operation }).unwrap_err(), unsupported);
    assert!(bench.room_status(HAIRPIN).hairpin);
    bench.deliver(Port::rtp(0), address(0), &g729(0));
    assert_eq!(bench.sent.len(), 1, "it goes on as it was");
    let (room, other) = (bench.room(), bench.phone(G729, 20));
    let join = Command::JoinConference { conference: room, connection: other, participant: ParticipantSpec::default() };
    assert_eq!(bench.call(join).unwrap_err(), unsupported);
}

#[test]
fn who_is_not_to_be_heard_is_dropped_by_name() {
    let (mut bench, ids) = hairpin_of([(G729, 20), (G729, 20)]);
    let mut n = 0;
    let mut passes = |bench: &mut Bench| {
        n += 1;
        let dropped = bench.drops(DropReason::Muted);
        let passed = matches!(bench.deliver(Port::rtp(0), address(0), &g729(n)), Disposition::Forward(_));
        assert_eq!(bench.drops(DropReason::Muted), dropped + u64::from(!passed));
        passed
    };
    assert!(passes(&mut bench));
    let effect = bench.set(HAIRPIN, ids[0], muted(true));
    let stamp = stamp(&effect, ids[1], true);
    assert_eq!((stamp.ssrc, stamp.rtp_timestamp, stamp.sequence), (0x1000, 320, Some(2)), "the next one");
    assert!(!passes(&mut bench));
    // The other direction goes on, and so does RTCP.
    let back = rtp(0x1001, 1, 160, 18, &[1; 20]);
    assert!(matches!(bench.deliver(Port::rtp(1), address(1), &back), Disposition::Forward(_)));
    let mut from = address(0);
    from.set_port(4001);
    assert!(matches!(bench.deliver(Port::rtcp(0), from, &rtcp(7)), Disposition::Forward(_)));
    bench.set(HAIRPIN, ids[0], muted(false));
    assert!(passes(&mut bench));
    let deaf = |deaf| ParticipantChange { deaf: Some(deaf), ..ParticipantChange::default() };
    bench.set(HAIRPIN, ids[1], deaf(true));
    assert!(!passes(&mut bench));
    bench.set(HAIRPIN, ids[1], deaf(false));
    assert!(passes(&mut bench));
    bench.effect(Command::LeaveConference { conference: HAIRPIN, connection: ids[0] });
    bench.join_as(HAIRPIN, ids[0], ParticipantSpec { role: Role::Monitor, ..ParticipantSpec::default() });
    assert!(!passes(&mut bench));
    assert!(matches!(
        bench.deliver(Port::rtp(1), address(1), &rtp(0x1001, 2, 320, 18, &[1; 20])),
        Disposition::Forward(_)
    ));
    assert_eq!(bench.status(ids[0]).counters.drops, 3);
}

#[test]
fn a_stream_of_our_own_goes_on_under_its_own_name() {
    let mut bench = Bench::new();
    let (a, b) = (bench.phone(G729, 20), bench.phone(Pcmu, 20));
    bench.play(Target::Connection(b), vec![1_000; 1_600]);
    bench.run(500);
    let prompt = bench.heard_by(1);
    assert_eq!(prompt.len(), 10);
    let change = ConnectionChange { rx_codec: Some((G729, 18)), tx_codec: Some((G729, 18)), ..Default::default() };
    bench.modify(b, change).unwrap();
    open(&mut bench);
    bench.join(HAIRPIN, a);
    bench.join(HAIRPIN, b);
    for n in 0..20 {
        bench.deliver(Port::rtp(0), address(0), &g729(n));
        bench.run(20);
    }
    let packets = bench.heard_by(1);
    assert_eq!(packets.len(), 30);
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(packet.header.ssrc, prompt[0].header.ssrc);
        assert_eq!(packet.header.sequence_number, prompt[0].header.sequence_number.wrapping_add(n as u16));
        if let Some(n) = n.checked_sub(10) {
            assert_eq!(packet.payload, RtpPacket::parse(&g729(n as u16)).unwrap().payload());
        }
    }
    assert!(
        packets[11..].windows(2).all(|pair| pair[1].header.timestamp.distance_from(pair[0].header.timestamp) == 160)
    );
}

#[test]
fn a_codec_that_changes_changes_how_it_is_handled_as_long_as_there_is_one_party() {
    let (mut bench, ids) = hairpin_of([(G729, 20), (G729, 20)]);
    let to = |codec: CodecKind| ConnectionChange {
        rx_codec: Some((codec, codec.payload_type())),
        tx_codec: Some((codec, codec.payload_type())),
        ..ConnectionChange::default()
    };
    for change in [to(Pcmu), to(G723), ConnectionChange { ptime_ms: Some(40), ..Default::default() }] {
        assert_eq!(bench.modify(ids[0], change).unwrap_err(), CommandError::UnsupportedCodec);
    }
    // What does not concern the codec does not matter.
    bench.modify(ids[0], ConnectionChange { telephone_event_payload_type: Some(96), ..Default::default() }).unwrap();
    bench.effect(Command::LeaveConference { conference: HAIRPIN, connection: ids[1] });
    bench.deliver(Port::rtp(0), address(0), &g729(0));
    assert_eq!(bench.drops(DropReason::Unrouted), 1, "nobody is there");
    bench.modify(ids[0], to(Pcmu)).unwrap();
    bench.modify(ids[1], to(Pcma)).unwrap();
    bench.join(HAIRPIN, ids[1]);
    bench.phones[0].codec = Pcmu;
    bench.phones[1].codec = Pcma;
    bench.say(0, Voice::Constant(3_000), 0);
    bench.say(1, Voice::Constant(2_000), 0);
    bench.run(300);
    assert!(decode(&bench.heard_by(0).last().unwrap().payload, Pcmu)[0] > 1_900);
    assert!(decode(&bench.heard_by(1).last().unwrap().payload, Pcma)[0] > 2_900);
    // And the other way round.
    bench.effect(Command::DeleteConnection { id: ids[1] });
    bench.modify(ids[0], to(G729)).unwrap();
    bench.hush(0);
    let like = bench.phone(G729, 20);
    bench.join(HAIRPIN, like);
    bench.sent.clear();
    bench.run(300);
    assert_eq!(bench.sent, [], "nothing is mixed any more");
    bench.deliver(Port::rtp(2), address(2), &rtp(0x1002, 9, 1_440, 18, &[1; 20]));
    assert_eq!((bench.sent.len(), bench.sent[0].port), (1, Port::rtp(0)));
}

#[test]
fn a_mixed_conference_keeps_codecs_that_can_be_mixed() {
    let (mut bench, ids) = hairpin_of([(Pcmu, 20), (Pcmu, 20)]);
    bench.effect(Command::LeaveConference { conference: HAIRPIN, connection: ids[1] });
    promote(&mut bench);
    let change = ConnectionChange { rx_codec: Some((G729, 18)), ..ConnectionChange::default() };
    assert_eq!(bench.modify(ids[0], change).unwrap_err(), CommandError::UnsupportedCodec);
    assert_eq!(bench.status(ids[0]).rx_codec, Pcmu);
}

#[test]
fn the_end_of_what_is_passed_on_is_stamped() {
    for by in 0..4 {
        let (mut bench, ids) = hairpin_of([(G729, 20), (G729, 20)]);
        for n in 0..5 {
            bench.deliver(Port::rtp(0), address(0), &g729(n));
            bench.deliver(Port::rtp(1), address(1), &rtp(0x1001, 100 + n, 160 * u32::from(n), 18, &[2; 20]));
        }
        let effect = bench.effect(match by {
            0 => Command::LeaveConference { conference: HAIRPIN, connection: ids[0] },
            1 => Command::DeleteConnection { id: ids[0] },
            2 => Command::DeleteConference { id: HAIRPIN, keep_connections: true },
            _ => Command::DeleteConference { id: HAIRPIN, keep_connections: false },
        });
        let (to_a, to_b) = (stamp(&effect, ids[0], true), stamp(&effect, ids[1], true));
        assert_eq!((to_a.ssrc, to_a.rtp_timestamp, to_a.sequence), (0x1001, 800, Some(105)));
        assert_eq!((to_b.ssrc, to_b.rtp_timestamp, to_b.sequence), (0x1000, 800, Some(5)));
        let sent = bench.sent.len();
        bench.deliver(Port::rtp(0), address(0), &g729(5));
        bench.deliver(Port::rtp(1), address(1), &rtp(0x1001, 105, 800, 18, &[2; 20]));
        assert_eq!(bench.sent.len(), sent, "nothing passes any more");
        assert_eq!(bench.engine.totals().conferences, u64::from(by < 2));
    }
}
