//! A connection moves from one shard to another with everything it is doing.

use std::time::Duration;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionSpec, OperationSpec, PlayAdjust, PlayChange, StopConditions, Target,
};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{Answer, CommandError, Condition, ConnectionState, Event};
use ringbridge_media::id::{ConnectionId, ShardId};
use ringbridge_media::playout::Counters;
use ringbridge_media::port::{Port, PortAction};

use crate::bench::{Bench, START, Voice, address, check_stream, decode, recorded, spec, stair};
use CodecKind::Pcmu;

/// Moves the connection of `from`'s phone 0 to `slot` of `to`; the bench's phone goes with it.
fn relocate(from: &mut Bench, to: &mut Bench, id: ConnectionId, slot: u32) {
    from.catch_up();
    let departure = from.engine.depart(Target::Connection(id)).unwrap();
    assert!(departure.places().eq([(id, from.phones[0].slot)]));
    to.now = to.now.max(from.now);
    to.catch_up();
    assert!(to.engine.adopt(to.now, departure, &[slot], None).is_ok());
    to.drain();
    let mut phone = from.phones.remove(0);
    phone.slot = slot;
    // It keeps its address.
    to.phones.push(phone);
}

#[test]
fn streams_recordings_and_timers_go_on() {
    for ms in 0..25 {
        for delay_ms in [0, 3, 17] {
            let mut home = Bench::new();
            let id = home.phone_with(ConnectionSpec {
                remote: Some(address(0)),
                rtp_timeout_ms: Some(1_000),
                ..spec(Pcmu, 20)
            });
            home.say(0, Voice::Stairs, 0);
            let target = Target::Connection(id);
            home.play(target, vec![9_000; 8_000]);
            let (_, queue) = home.record(target, None);
            home.run(300 + ms);
            let mut other = Bench::on(ShardId(2), START);
            home.catch_up();
            let pending = home.phones[0].next_at.unwrap();
            other.now = home.now + Duration::from_millis(delay_ms);
            relocate(&mut home, &mut other, id, 40);
            assert!(pending >= home.now);
            assert_eq!(home.engine.totals().operations, 0);
            assert_eq!((other.engine.totals().connections, other.engine.totals().operations), (1, 2));
            other.run(500);
            other.hush(0);

            // One stream: the packets of both shards.
            let mut packets = home.heard_by(0);
            packets.extend(other.heard_by(40));
            check_stream(&packets);
            let effect = other.effect(Command::StopOperation { target, operation: None });
            assert_eq!(effect.received_media_time_ms, (300 + ms + delay_ms + 500) as f64);
            other.run(1_500);
            let mut packets = home.heard_by(0);
            packets.extend(other.heard_by(40));
            assert_eq!(check_stream(&packets), [0]);

            let spoken: Vec<i16> = recorded(&queue).into_iter().skip_while(|&sample| sample == 0).collect();
            let first = (0..64u32).find(|&n| decode(&[stair(n)], Pcmu)[0] == spoken[0]).unwrap();
            let expected: Vec<u8> = (0..spoken.len() as u32).map(|n| stair(first + n)).collect();
            assert!(spoken == decode(&expected, Pcmu), "every sample once and in order");
            assert!(spoken.len() >= 8 * 750);

            assert_eq!(other.count(|event| matches!(event, Event::ConnectionTimeout { .. })), 1);
            assert_eq!(home.count(|event| matches!(event, Event::ConnectionTimeout { .. })), 0);
            home.run(3_000);
            assert_eq!(home.engine.poll_timeout(), None);
            assert!(matches!(home.call(Command::InspectConnection { id }), Err(CommandError::UnknownConnection(_))));
        }
    }
}

#[test]
fn the_moved_one_is_known_by_its_name_and_comes_back() {
    let mut home = Bench::new();
    home.connects = true;
    let id = home.phone(Pcmu, 20);
    home.say(0, Voice::Constant(1_000), 0);
    home.run(100);
    assert!(home.status(id).connected_socket);
    let mut other = Bench::on(ShardId(2), START);
    other.connects = true;
    let (local, _) = (ConnectionId::new(ShardId(2), 0, 1), ());
    other.call(Command::CreateConnection { id: local, spec: Box::new(spec(Pcmu, 20)) }).unwrap();
    relocate(&mut home, &mut other, id, 7);
    assert_eq!(other.actions, [PortAction::Connect(Port::rtp(7), address(0))]);
    let status = other.status(id);
    assert!(status.connected_socket && status.learned == Some(address(0)));
    assert_eq!(status.counters.packets_in, 6);
    // Names of this shard's own that share slot or generation are not mixed up with it.
    let twin = ConnectionId::new(ShardId(2), 7, 1);
    assert!(matches!(other.call(Command::InspectConnection { id: twin }), Err(CommandError::UnknownConnection(_))));
    let taken = other.call(Command::CreateConnection { id: twin, spec: Box::new(spec(Pcmu, 20)) });
    assert!(matches!(taken, Err(CommandError::LimitReached)));

    let departure = other.engine.depart(Target::Connection(id)).unwrap();
    assert!(other.engine.adopt(other.now, departure, &[0], None).is_err_and(|back| {
        // The slot was in use; it can go elsewhere.
        other.engine.adopt(other.now, back, &[9], None).is_ok()
    }));
    other.drain();
    let departure = other.engine.depart(Target::Connection(id)).unwrap();
    assert!(home.engine.adopt(other.now, departure, &[0], None).is_ok());
    home.now = other.now;
    home.drain();
    assert_eq!(home.status(id).state, ConnectionState::Idle);
    assert!(matches!(home.call(Command::DeleteConnection { id }), Ok(Answer::Deleted { .. })));
    assert_eq!(home.actions.last(), Some(&PortAction::Release { slot: 0 }));
}

#[test]
fn what_listens_and_what_is_adjusted_goes_along() {
    let mut home = Bench::new();
    let id = home.phone(Pcmu, 20);
    let target = Target::Connection(id);
    home.say(0, Voice::Tone(450.0, 4_000.0), 0);
    let quiet = StopConditions { silence_ms: Some(300), ..StopConditions::default() };
    let detection = home.start(target, OperationSpec::DetectSilence { until: quiet });
    let gathering = home.gather(id, StopConditions { inter_digit_ms: Some(1_500), ..StopConditions::default() });
    let play = home.play(target, vec![2_000; 16_000]);
    let change = PlayChange { adjust: PlayAdjust::SpeedTo(-5), only_if_playing: true };
    home.effect(Command::AdjustPlay { target, change });
    home.press(0, b'1');
    home.run(300);
    let mut other = Bench::on(ShardId(2), home.now);
    relocate(&mut home, &mut other, id, 3);
    other.press(0, b'2');
    other.run(200);
    other.hush(0);
    other.run(6_000);
    let ended: Vec<_> = other.ended().iter().map(|&(id, condition, ms)| (id, condition, ms / 100)).collect();
    // Silence 300 ms after what the jitter buffer held (each digit has moved the audio behind it by 60 ms); two seconds at
    // half the speed.
    let expected =
        [(detection, Condition::Silence, 8), (gathering, Condition::InterDigitDelay, 18), (play, Condition::Eod, 40)];
    assert_eq!(ended, expected);
    assert_eq!(other.gathered()[0].2, "12");
    let next = other.play(target, vec![2_000; 8_000]);
    other.run(3_000);
    let (id, condition, ms) = other.ended()[3];
    assert_eq!((id, condition, ms / 100), (next, Condition::Eod, 20));
    assert_eq!((home.ended(), other.engine.poll_timeout()), (vec![], None));
}

#[test]
fn operations_of_the_moved_end_once_where_it_lives() {
    let mut home = Bench::new();
    let id = home.phone(Pcmu, 20);
    let play = home.play(Target::Connection(id), vec![1_000; 4_000]);
    home.run(100);
    let mut other = Bench::on(ShardId(2), home.now);
    relocate(&mut home, &mut other, id, 3);
    home.run(1_000);
    other.run(1_000);
    assert_eq!(home.ended(), []);
    assert_eq!(other.ended(), [(play, Condition::Eod, 500)]);
    let _: &Engine = &other.engine;
}

#[test]
fn what_happens_in_a_jitter_buffer_is_counted_once_wherever_it_ends() {
    let mut home = Bench::new();
    let id = home.phone(Pcmu, 20);
    let (_, queue) = home.record(Target::Connection(id), None);
    // What was sent in a second, with holes, and with packets that are held up and come all at once.
    let disturb = |bench: &mut Bench| {
        for n in 0..50 {
            let packet = bench.phones[0].packet();
            if n % 10 != 3 {
                bench.run(if n % 10 == 5 { 80 } else { 0 });
                bench.deliver(Port::rtp(bench.phones[0].slot), address(0), &packet);
            }
            bench.run(if (5..9).contains(&(n % 10)) { 0 } else { 20 });
        }
    };
    disturb(&mut home);
    assert_eq!(home.engine.totals().playout, Counters::default(), "nobody has looked");
    let delay = home.engine.gather_playout(0).unwrap();
    assert!((20..=200).contains(&delay), "{delay}");
    let first = home.engine.totals().playout;
    assert!(first.concealed_samples > 0 && first.talkspurts > 0 && first.underruns > 0, "{first:?}");
    assert_eq!(first, home.status(id).quality.delay.unwrap().counters);
    home.engine.gather_playout(0);
    assert_eq!(home.engine.totals().playout, first, "nothing new");
    assert_eq!(home.engine.gather_playout(1), None);
    let mut other = Bench::on(ShardId(2), home.now);
    relocate(&mut home, &mut other, id, 3);
    disturb(&mut other);
    let whole = other.status(id).quality.delay.unwrap().counters;
    assert!(other.call(Command::DeleteConnection { id }).is_ok());
    assert_eq!(home.engine.totals().playout, first, "no counter falls");
    let second = other.engine.totals().playout;
    assert!(second.concealed_samples > 0);
    assert_eq!(whole.concealed_samples, first.concealed_samples + second.concealed_samples);
    assert_eq!(whole.underruns, first.underruns + second.underruns);
    drop(queue);
}
