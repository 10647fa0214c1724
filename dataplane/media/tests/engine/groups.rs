//! Relays and conferences move from one shard to another in mid-stream: nobody who listens can tell.

use std::time::Duration;

use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, OperationSpec, ParticipantChange, ParticipantSpec, Role, StopConditions, Target,
};
use ringbridge_media::event::{Answer, CommandError, ConnectionState, EffectClock, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::time::Instant;

use crate::bench::{Bench, SHARD, Voice, check_stream, recorded, stamp};
use crate::taping::Call;
use CodecKind::{Pcma, Pcmu};

/// Moves `target` and all that goes with it; the phones go too, and each gets another slot, far from the order of the
/// old ones.
pub(crate) fn migrate(from: &mut Bench, to: &mut Bench, target: Target, room: Option<u32>) {
    from.catch_up();
    let departure = from.engine.depart(target).unwrap();
    let members: Vec<ConnectionId> = departure.places().map(|(id, _)| id).collect();
    to.now = to.now.max(from.now);
    to.catch_up();
    let slots: Vec<u32> = (0u32..).map(|n| 90 - 7 * n).take(members.len()).collect();
    assert!(to.engine.adopt(to.now, departure, &slots, room).is_ok());
    to.drain();
    for (id, slot) in members.into_iter().zip(slots) {
        let place = from.phones.iter().position(|phone| phone.id == id).unwrap();
        let mut phone = from.phones.remove(place);
        phone.slot = slot;
        to.phones.push(phone);
    }
    // Phones that speak at the same moment do so in the same order as ever.
    to.phones.sort_by_key(|phone| phone.address);
}

/// To whom, when, what.
type Packet = (String, Instant, Vec<u8>);
/// Reads what was recorded.
type Recording = Box<dyn Fn() -> Vec<i16>>;

/// All RTP that left, by whom it went to, and every event in order.
fn seen(benches: &[&Bench]) -> (Vec<Packet>, Vec<String>) {
    let sent = benches.iter().flat_map(|bench| &bench.sent).filter(|sent| !sent.port.rtcp);
    let mut packets: Vec<_> =
        sent.map(|sent| (sent.target.unwrap().to_string(), sent.at, sent.bytes.clone())).collect();
    packets.sort();
    let events = benches.iter().flat_map(|bench| &bench.events).filter(|event| !matches!(event, Event::Answer { .. }));
    (packets, events.map(|event| format!("{event:?}")).collect())
}

/// Runs `scene` in one place, and in another run moves it back and forth; both are the same to everybody.
fn unnoticed(scene: impl Fn(&mut Bench) -> (Target, Recording), room: Option<u32>, home: Option<u32>) {
    for ms in [301, 308, 313, 320, 334] {
        let mut plain = Bench::new();
        let (_, recording) = scene(&mut plain);
        plain.run(ms + 977 + 700);

        let mut first = Bench::new();
        let (target, moved_recording) = scene(&mut first);
        first.run(ms);
        let mut second = Bench::on(ShardId(2), first.now);
        migrate(&mut first, &mut second, target, room);
        assert_eq!(first.engine.totals().connections + first.engine.totals().conferences, 0);
        assert_eq!(first.engine.totals().operations, 0);
        second.run(977);
        let mut third = Bench::on(SHARD, second.now);
        migrate(&mut second, &mut third, target, home);
        third.run(700);
        first.run(2_000);
        second.run(1_300);
        let (packets, events) = seen(&[&first, &second, &third]);
        let (plain_packets, plain_events) = seen(&[&plain]);
        assert!(packets == plain_packets, "{} packets, {} if nobody moves", packets.len(), plain_packets.len());
        assert_eq!(events, plain_events);
        assert_eq!(moved_recording(), recording());
        assert_eq!((first.engine.poll_timeout(), second.engine.poll_timeout()), (None, None));
    }
}

#[test]
fn a_call_that_is_recorded_goes_on_bit_exactly() {
    for on in [0, 1] {
        unnoticed(
            |bench| {
                let mut call =
                    Call { bench: std::mem::replace(bench, Bench::new()), ids: [ConnectionId::from_bits(0); 2] };
                call.ids = [call.bench.phone(Pcmu, 20), call.bench.phone(Pcma, 30)];
                call.bench.relay(call.ids[0], call.ids[1]);
                call.talk();
                call.bench.run(203);
                let tape = call.record(on);
                call.bench.run(100);
                call.mute(&tape, on == 0, on == 1);
                let target = Target::Connection(call.ids[0]);
                *bench = call.bench;
                let queue = tape.queue;
                (
                    target,
                    Box::new(move || {
                        std::iter::from_fn(|| queue.chunks.pop())
                            .flat_map(|chunk| chunk.chunk.as_slice().to_vec())
                            .collect()
                    }),
                )
            },
            None,
            None,
        );
    }
}

#[test]
fn a_call_with_a_prompt_to_one_party_goes_on() {
    unnoticed(
        |bench| {
            let (a, b) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
            bench.relay(a, b);
            bench.say(0, Voice::Stairs, 0);
            bench.say(1, Voice::Stairs, 7);
            bench.run(100);
            bench.play(Target::Connection(a), vec![2_000; 6_400]);
            (Target::Connection(b), Box::new(Vec::new))
        },
        None,
        None,
    );
}

/// Six of all roles, with a recording and a prompt for all, a prompt for one, and gathered digits.
fn busy_room(bench: &mut Bench) -> (ConferenceId, Vec<ConnectionId>, Recording) {
    let room = ConferenceId::new(SHARD, 3, 1);
    let spec = ConferenceSpec { tones: true, ..ConferenceSpec::default() };
    assert!(matches!(bench.call(Command::CreateConference { id: room, spec }), Ok(Answer::Done)));
    let shapes = [(Pcmu, 20), (Pcma, 20), (Pcmu, 30), (Pcma, 10), (Pcmu, 20), (Pcmu, 40)];
    let ids: Vec<_> = shapes.iter().map(|&(codec, ptime_ms)| bench.phone(codec, ptime_ms)).collect();
    let roles = [Role::Party, Role::Coach, Role::Pupil, Role::Monitor, Role::Party, Role::Party];
    for (&id, role) in ids.iter().zip(roles) {
        let deaf = id == ids[5];
        bench.join_as(room, id, ParticipantSpec { role, deaf, ..ParticipantSpec::default() });
    }
    for n in 0..ids.len() {
        bench.say(n, Voice::Tone(300.0 + 90.0 * n as f64, 3_000.0), 3 * n as u64);
    }
    let changed = ParticipantChange { muted: Some(true), tariff_tone: Some(true), ..ParticipantChange::default() };
    bench.set(room, ids[4], changed);
    let (_, queue) = bench.record(Target::Conference(room), None);
    bench.run(100);
    bench.play(Target::Conference(room), vec![500; 9_000]);
    bench.play(Target::Connection(ids[0]), vec![-700; 7_000]);
    bench.gather(ids[1], StopConditions { max_time_ms: Some(900), ..StopConditions::default() });
    bench.start(
        Target::Connection(ids[2]),
        OperationSpec::DetectSilence { until: StopConditions { silence_ms: Some(400), ..StopConditions::default() } },
    );
    (room, ids, Box::new(move || recorded(&queue)))
}

#[test]
fn a_conference_goes_on_sample_by_sample() {
    unnoticed(
        |bench| {
            let (room, _, recording) = busy_room(bench);
            (Target::Conference(room), recording)
        },
        Some(17),
        Some(3),
    );
}

#[test]
fn a_conference_that_moves_late_makes_up_for_it() {
    for delay_ms in [1, 4, 9, 23, 60] {
        let mut home = Bench::new();
        let (room, ids) = home.room_of(&[(Pcmu, 20), (Pcmu, 20), (Pcma, 20)]);
        for n in 0..ids.len() {
            home.say(n, Voice::Constant(1_000), 2 * n as u64);
        }
        home.run(400);
        let before: Vec<_> = (0..3).map(|slot| home.heard_by(slot)).collect();
        let mut other = Bench::on(ShardId(2), home.now);
        other.now = home.now + Duration::from_millis(delay_ms);
        migrate(&mut home, &mut other, Target::Conference(room), Some(0));
        other.run(400);
        for (n, mut packets) in before.into_iter().enumerate() {
            let count = packets.len();
            let slot = other.phones[n].slot;
            packets.extend(other.heard_by(slot));
            check_stream(&packets);
            assert!(packets.len() >= count + 19, "no frame is left out");
            let gaps = packets.windows(2).map(|pair| pair[1].at.saturating_since(pair[0].at));
            assert!(gaps.max().unwrap() <= Duration::from_millis(20 + delay_ms));
        }
        let status = other.room_status(room);
        assert_eq!(status.participants.iter().map(|one| one.connection).collect::<Vec<_>>(), ids);
    }
}

#[test]
fn whoever_moved_is_known_by_its_name_and_can_be_told_to_change() {
    let mut home = Bench::new();
    let (room, ids, _) = busy_room(&mut home);
    home.run(200);
    let mut other = Bench::on(ShardId(2), home.now);
    // A conference of the other shard's own has the slot of the same number.
    let local = ConferenceId::new(ShardId(2), 3, 1);
    let spec = ConferenceSpec::default();
    assert!(matches!(other.call(Command::CreateConference { id: local, spec }), Ok(Answer::Done)));
    migrate(&mut home, &mut other, Target::Conference(room), Some(8));
    let received = other.now;
    let effect = other.engine.moved_effect(Target::Conference(room), received).unwrap();
    assert_eq!(effect.clock, EffectClock::Conference);
    let stamped = stamp(&effect, ids[0], true);
    let heard = other.phones.iter().find(|phone| phone.id == ids[0]).unwrap().slot;
    other.run(100);
    assert!(other.heard_by(heard).iter().any(|packet| packet.header.timestamp.0 == stamped.rtp_timestamp));
    assert!(matches!(home.call(Command::InspectConference { id: room }), Err(CommandError::UnknownConference(_))));

    let unmute = ParticipantChange { muted: Some(false), ..ParticipantChange::default() };
    let effect = other.set(room, ids[4], unmute);
    assert!(effect.streams.iter().any(|stamp| stamp.connection == ids[0]));
    let newcomer = ConnectionId::new(ShardId(2), 40, 1);
    let spec = Box::new(crate::bench::spec(Pcmu, 20));
    assert!(matches!(other.call(Command::CreateConnection { id: newcomer, spec }), Ok(Answer::Done)));
    other.join(room, newcomer);
    assert_eq!(other.status(newcomer).state, ConnectionState::InConference(room));
    // Its new slot is in use, the old one is free again.
    let taken = ConferenceId::new(ShardId(2), 8, 1);
    let spec = ConferenceSpec::default();
    assert!(matches!(other.call(Command::CreateConference { id: taken, spec }), Err(CommandError::LimitReached)));
    let again = ConferenceId::new(SHARD, 3, 2);
    assert!(matches!(home.call(Command::CreateConference { id: again, spec }), Ok(Answer::Done)));
    let stop = Command::StopOperation { target: Target::Conference(room), operation: None };
    assert!(matches!(other.call(stop), Ok(Answer::Stopped { operations, .. }) if operations.len() == 2));
    let gone = other.call(Command::DeleteConference { id: room, keep_connections: false });
    assert!(matches!(gone, Ok(Answer::Deleted { connections, .. }) if connections.len() == 7));
    assert_eq!(other.count(|event| matches!(event, Event::ConferenceEnded { .. })), 1);
    assert!(matches!(other.call(Command::CreateConference { id: taken, spec }), Ok(Answer::Done)));
}

#[test]
fn what_finds_a_slot_in_use_comes_back_whole_or_ends_once() {
    let mut home = Bench::new();
    let (room, ids, _) = busy_room(&mut home);
    home.run(200);
    let mut other = Bench::on(ShardId(2), home.now);
    let local = ConnectionId::new(ShardId(2), 4, 1);
    let spec = Box::new(crate::bench::spec(Pcmu, 20));
    assert!(matches!(other.call(Command::CreateConnection { id: local, spec }), Ok(Answer::Done)));
    let target = Target::Conference(room);
    assert!(home.engine.depart(Target::Connection(ids[0])).is_none(), "a member does not move alone");
    let departure = home.engine.depart(target).unwrap();
    let now = other.now;
    let departure = other.engine.adopt(now, departure, &[1, 2, 3, 4, 5, 6], Some(1)).unwrap_err();
    let departure = other.engine.adopt(now, departure, &[11, 12, 13, 14, 15], Some(1)).unwrap_err();
    let departure = other.engine.adopt(now, departure, &[11, 12, 13, 14, 15, 16], None).unwrap_err();
    assert_eq!(other.engine.totals().connections, 1);
    let running = home.operations_begun();
    other.engine.abandon(now, departure);
    other.drain();
    assert_eq!(other.count(|event| matches!(event, Event::ConnectionEnded { .. })), 6);
    assert_eq!(other.count(|event| matches!(event, Event::ConferenceEnded { .. })), 1);
    assert_eq!(home.ended().len() + other.ended().len(), running);
    assert_eq!((other.engine.totals().connections, other.engine.totals().operations), (1, 0));
}
