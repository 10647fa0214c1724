//! Digits: where they come from, where they wait, and who gathers them.

use std::time::Duration;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, ConnectionSpec, DigitSource, OperationSpec, ParticipantSpec, Role,
    StopConditions, Target,
};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{CommandError, Condition, DropReason};
use ringbridge_media::id::ConnectionId;

use crate::bench::{Bench, Voice, address, amplitude, play_for, recording, set, spec, tone};
use CodecKind::{Pcma, Pcmu};

const NONE: StopConditions = StopConditions {
    max_time_ms: None,
    digits_max: None,
    digit: None,
    digit_list: None,
    digit_pattern: None,
    inter_digit_ms: None,
    silence_ms: None,
    nonsilence_ms: None,
    timeout_ms: None,
};

fn pattern(digits: &str) -> StopConditions {
    StopConditions { digit_pattern: Digits::parse(digits), ..NONE }
}

/// A phone whose digits may come as tones.
fn auto_phone(bench: &mut Bench, slot: u32) -> ConnectionId {
    bench.phone_with(ConnectionSpec { remote: Some(address(slot)), digit_source: DigitSource::Auto, ..spec(Pcmu, 20) })
}

/// The phone at `index` sends `digits` as tones of 80 ms with pauses of 80 ms.
fn sing(bench: &mut Bench, index: usize, digits: &str) {
    for digit in digits.bytes() {
        bench.phones[index].next_at.get_or_insert(bench.now);
        bench.phones[index].voice = Voice::Digit(digit);
        bench.run(80);
        bench.phones[index].voice = Voice::Silence;
        bench.run(80);
    }
}

#[test]
fn a_digit_is_taken_at_its_first_packet_and_told_at_its_end() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    bench.send_event(0, b'5', false, 160);
    assert_eq!((bench.digits(id), bench.reported()), ("5".into(), String::new()));
    bench.send_event(0, b'5', false, 320);
    bench.send_event(0, b'5', true, 480);
    let end = bench.sent.len();
    bench.send_event(0, b'5', true, 480);
    assert_eq!((bench.digits(id), bench.reported(), end), ("5".into(), "5".into(), 0));
    // Of the next all but the last packet is lost.
    bench.phones[0].timestamp += 480;
    bench.send_event(0, b'#', true, 800);
    // A packet of the one before is overtaken.
    bench.phones[0].timestamp -= 480;
    bench.send_event(0, b'5', true, 480);
    assert_eq!((bench.digits(id), bench.reported()), ("5#".into(), "5#".into()));
    // A new timeline, far back.
    bench.phones[0].timestamp = bench.phones[0].timestamp.wrapping_sub(1_000_000);
    bench.press(0, b'D');
    assert_eq!((bench.digits(id), bench.reported()), ("5#D".into(), "5#D".into()));
    assert_eq!(bench.engine.poll_timeout(), None, "nothing runs for it");
}

#[test]
fn the_buffer_holds_31_digits_and_what_is_newer_is_lost() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let target = Target::Connection(id);
    bench.send_digits(target, &"1".repeat(29)).unwrap();
    assert_eq!(bench.send_digits(target, "234").unwrap_err(), CommandError::LimitReached);
    assert_eq!(bench.digits(id), "1".repeat(29), "all or nothing");
    bench.send_digits(target, "23").unwrap();
    assert_eq!(bench.send_digits(target, "4").unwrap_err(), CommandError::LimitReached);
    bench.press(0, b'9');
    assert_eq!((bench.digits(id), bench.reported()), ("1".repeat(29) + "23", "9".into()));
    // A gathering does not see either what found no room.
    bench.gather(id, StopConditions { digits_max: Some(30), ..NONE });
    bench.run(20);
    assert_eq!(bench.gathered()[0].2, "1".repeat(29) + "2");
    bench.press(0, b'8');
    assert_eq!(bench.digits(id), "38");
}

#[test]
fn what_waits_may_meet_a_condition_at_once() {
    for (until, condition, gathered, stays) in [
        (StopConditions { digits_max: Some(3), ..NONE }, Condition::MaxDigits, "12#", "45"),
        (StopConditions { digit: set("#"), ..NONE }, Condition::Digit, "12#", "45"),
        (StopConditions { digit_list: set("*4"), ..NONE }, Condition::DigitList, "12#4", "5"),
        (pattern("2#4"), Condition::DigitPattern, "12#4", "5"),
        (StopConditions { max_time_ms: Some(0), ..NONE }, Condition::MaxTime, "12#45", ""),
        (StopConditions { timeout_ms: Some(0), ..NONE }, Condition::Timeout, "12#45", ""),
    ] {
        for in_room in [false, true] {
            let mut bench = Bench::new();
            let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
            let alone = bench.phone(Pcmu, 20);
            let (id, index) = if in_room { (ids[0], 0) } else { (alone, 2) };
            bench.send_digits(Target::Connection(id), "12").unwrap();
            "#45".bytes().for_each(|digit| bench.press(index, digit));
            let operation = bench.gather(id, until);
            bench.run(20);
            assert_eq!(bench.gathered(), [(operation, condition, gathered.to_owned())], "{room}");
            assert_eq!(bench.ended()[0].2, 0, "at its very first step");
            assert_eq!(bench.digits(id), stays);
        }
    }
}

#[test]
fn what_is_pressed_meets_a_condition_when_it_is_pressed() {
    for (until, condition, gathered, stays) in [
        (StopConditions { digits_max: Some(3), ..NONE }, Condition::MaxDigits, "12#", ""),
        (StopConditions { digit: set("#"), ..NONE }, Condition::Digit, "12#", ""),
        (StopConditions { digit_list: set("*4"), ..NONE }, Condition::DigitList, "12#4", ""),
        (pattern("2#45"), Condition::DigitPattern, "12#45", ""),
        (StopConditions { max_time_ms: Some(700), ..NONE }, Condition::MaxTime, "12#", ""),
        (StopConditions { timeout_ms: Some(700), ..NONE }, Condition::Timeout, "12#", ""),
        (StopConditions { inter_digit_ms: Some(900), ..NONE }, Condition::InterDigitDelay, "12#45", ""),
    ] {
        let mut bench = Bench::new();
        let id = bench.phone(Pcmu, 20);
        bench.run(5);
        let operation = bench.gather(id, until);
        let begun = bench.now;
        let mut pressed = begun;
        let mut ended = None;
        for n in 0..30u64 {
            bench.run(100);
            if let (None, Some(&(_, _, elapsed))) = (ended, bench.ended().first()) {
                ended = Some(elapsed);
                break;
            }
            // One every 200 ms.
            if n % 2 == 1 && n < 10 {
                bench.press(0, b"12#45"[n as usize / 2]);
                pressed = bench.now;
            }
        }
        assert_eq!(bench.gathered(), [(operation, condition, gathered.to_owned())]);
        assert_eq!(bench.digits(id), stays);
        let expected = match condition {
            Condition::MaxTime | Condition::Timeout => 700,
            Condition::InterDigitDelay => 1_900,
            _ => pressed.saturating_since(begun).as_millis() as u64,
        };
        let elapsed = ended.unwrap();
        assert!(elapsed.abs_diff(expected) <= 20, "{condition:?}: {elapsed} instead of {expected}");
    }
}

#[test]
fn the_delay_between_digits_begins_with_the_first() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    bench.gather(id, StopConditions { inter_digit_ms: Some(200), ..NONE });
    bench.run(1_000);
    assert_eq!(bench.ended(), []);
    for digit in *b"123" {
        bench.press(0, digit);
        bench.run(150);
    }
    assert_eq!(bench.ended(), []);
    bench.run(100);
    assert_eq!(bench.gathered()[0].1, Condition::InterDigitDelay);
    assert!(bench.ended()[0].2.abs_diff(1_500) <= 20);
}

#[test]
fn a_pattern_reaches_from_the_buffer_into_what_is_pressed_but_not_over_a_pause() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    "123".bytes().for_each(|digit| bench.press(0, digit));
    bench.run(10_000);
    bench.gather(id, pattern("1234"));
    bench.run(5_000);
    bench.press(0, b'4');
    bench.run(20);
    assert_eq!(bench.gathered()[0].1, Condition::DigitPattern);

    bench.gather(id, pattern("12"));
    for (digit, then_ms) in [(b'1', 2_050), (b'2', 100), (b'1', 1_950)] {
        bench.press(0, digit);
        bench.run(then_ms);
    }
    assert_eq!(bench.ended().len(), 1);
    bench.press(0, b'2');
    bench.run(20);
    assert_eq!((bench.gathered()[1].1, &*bench.gathered()[1].2), (Condition::DigitPattern, "1212"));
}

#[test]
fn several_who_gather_see_the_same_digits() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    bench.send_digits(Target::Connection(id), "1").unwrap();
    let two = bench.gather(id, StopConditions { digits_max: Some(2), ..NONE });
    let hash = bench.gather(id, StopConditions { digit: set("#"), ..NONE });
    let all = bench.gather(id, StopConditions { digits_max: Some(3), ..NONE });
    bench.run(50);
    for digit in *b"23#4" {
        bench.press(0, digit);
        bench.run(20);
    }
    let expected = [
        (two, Condition::MaxDigits, "12".to_owned()),
        (all, Condition::MaxDigits, "123".to_owned()),
        (hash, Condition::Digit, "123#".to_owned()),
    ];
    assert_eq!(bench.gathered(), expected);
    assert_eq!(bench.digits(id), "4");
    // What one has taken the other does not take again.
    bench.send_digits(Target::Connection(id), "567#8").unwrap();
    for digits_max in [2, 3] {
        bench.gather(id, StopConditions { digits_max: Some(digits_max), ..NONE });
    }
    bench.run(20);
    assert_eq!((&*bench.gathered()[3].2, &*bench.gathered()[4].2, &*bench.digits(id)), ("45", "456", "7#8"));
}

#[test]
fn what_begins_to_play_or_record_forgets_what_was_pressed_and_keeps_what_is_pressed() {
    for operation in [play_for(60_000, NONE), tone(600, None, NONE), recording(NONE)] {
        let mut bench = Bench::new();
        let id = bench.phone(Pcmu, 20);
        let target = Target::Connection(id);
        "12".bytes().for_each(|digit| bench.press(0, digit));
        bench.start(target, operation);
        assert_eq!(bench.digits(id), "");
        bench.run(100);
        "34".bytes().for_each(|digit| bench.press(0, digit));
        bench.run(100);
        bench.gather(id, StopConditions { digits_max: Some(2), ..NONE });
        bench.run(20);
        assert_eq!(bench.gathered()[0].2, "34");
        bench.press(0, b'5');
        bench.start(target, OperationSpec::GatherDigits { flush: true, until: NONE });
        bench.press(0, b'6');
        bench.run(20);
        bench.effect(Command::StopOperation { target, operation: None });
        assert_eq!((&*bench.gathered()[1].2, &*bench.digits(id)), ("6", ""));
    }
}

#[test]
fn digits_are_found_in_the_audio_of_those_that_send_no_events() {
    for link in 0..4 {
        let mut bench = Bench::new();
        let id = auto_phone(&mut bench, 0);
        let plain = bench.phone(Pcmu, 20);
        let room = bench.room();
        match link {
            0 => {}
            1 => drop(bench.relay(id, plain)),
            2 => drop(bench.join(room, id)),
            _ => [id, plain].into_iter().for_each(|member| drop(bench.join(room, member))),
        }
        bench.say(1, Voice::Digit(b'7'), 0);
        sing(&mut bench, 0, "1590*#AD");
        assert_eq!((bench.digits(id), bench.reported()), ("1590*#AD".into(), "1590*#AD".into()), "{link}");
        assert_eq!(bench.digits(plain), "", "whoever is not to be listened to is not");
        bench.gather(id, StopConditions { digits_max: Some(9), ..NONE });
        sing(&mut bench, 0, "2");
        assert_eq!(bench.gathered()[0].2, "1590*#AD2");
        assert!(link == 1 || bench.drops(DropReason::Unrouted) <= 100);
    }
}

#[test]
fn a_clock_runs_only_while_audio_arrives() {
    let mut bench = Bench::new();
    let id = auto_phone(&mut bench, 0);
    bench.run(500);
    assert_eq!(bench.engine.poll_timeout(), None);
    bench.say(0, Voice::Silence, 0);
    bench.run(3_000);
    assert!(bench.engine.poll_timeout().is_some());
    bench.hush(0);
    bench.run(1_100);
    assert_eq!(bench.engine.poll_timeout(), None);
    sing(&mut bench, 0, "3");
    assert_eq!(bench.digits(id), "3");
    // The same in a room of one.
    bench.hush(0);
    bench.run(1_100);
    let room = bench.room();
    bench.join(room, id);
    assert_eq!(bench.engine.poll_timeout(), None);
    sing(&mut bench, 0, "4");
    bench.hush(0);
    bench.run(1_100);
    assert_eq!((&*bench.digits(id), bench.engine.poll_timeout()), ("34", None));
    sing(&mut bench, 0, "5");
    bench.effect(Command::LeaveConference { conference: room, connection: id });
    sing(&mut bench, 0, "6");
    assert_eq!(bench.digits(id), "3456");
    let events = ConnectionChange { digit_source: Some(DigitSource::Events), ..ConnectionChange::default() };
    bench.modify(id, events).unwrap();
    sing(&mut bench, 0, "7");
    assert_eq!((&*bench.digits(id), bench.engine.poll_timeout()), ("3456", None));
    let auto = ConnectionChange { digit_source: Some(DigitSource::Auto), ..ConnectionChange::default() };
    bench.modify(id, auto).unwrap();
    sing(&mut bench, 0, "8");
    assert_eq!(bench.digits(id), "34568");
}

#[test]
fn the_first_event_ends_the_search_for_tones() {
    let mut bench = Bench::new();
    let id = auto_phone(&mut bench, 0);
    sing(&mut bench, 0, "1");
    // The beginning of the tone is still in the audio when the event comes.
    bench.say(0, Voice::Digit(b'2'), 0);
    bench.run(99);
    bench.press(0, b'2');
    bench.phones[0].voice = Voice::Silence;
    bench.run(100);
    sing(&mut bench, 0, "34");
    bench.press(0, b'5');
    bench.run(1_000);
    assert_eq!((bench.digits(id), bench.reported()), ("125".into(), "125".into()));
    assert_eq!(bench.engine.poll_timeout(), None);
}

#[test]
fn nobody_in_a_room_hears_the_digits_of_others() {
    for with_events in [false, true] {
        let mut bench = Bench::new();
        let id = auto_phone(&mut bench, 0);
        let (listener, room) = (bench.phone(Pcmu, 20), bench.room());
        bench.join(room, id);
        bench.join(room, listener);
        if with_events {
            bench.press(0, b'1');
        }
        bench.say(0, Voice::Tone(450.0, 4_000.0), 0);
        bench.run(500);
        let before = bench.samples_to(1, Pcmu).len();
        bench.phones[0].voice = Voice::Digit(b'6');
        bench.run(1_000);
        let samples = bench.samples_to(1, Pcmu);
        assert!(amplitude(&samples[before / 2..before], 450.0) > 3_500.0);
        let leaked = samples[before + 800..].iter().filter(|sample| sample.unsigned_abs() > 500).count();
        assert_eq!(leaked, 0);
        let first = samples[before..].iter().filter(|sample| sample.unsigned_abs() > 4_500).count();
        assert!(first < 160, "20 ms at most until it is recognised: {first}");
        // Speech is let through again.
        bench.phones[0].voice = Voice::Tone(450.0, 4_000.0);
        bench.run(500);
        let samples = bench.samples_to(1, Pcmu);
        assert!(amplitude(&samples[samples.len() - 1_600..], 450.0) > 3_500.0);
        assert_eq!(bench.digits(id), if with_events { "1" } else { "6" });
    }
}

#[test]
fn digits_go_with_a_connection_that_moves() {
    let mut home = Bench::new();
    let id = auto_phone(&mut home, 0);
    sing(&mut home, 0, "1");
    home.gather(id, StopConditions { digits_max: Some(3), ..NONE });
    home.run(100);
    home.catch_up();
    let departure = home.engine.depart(Target::Connection(id)).unwrap();
    let mut other = Bench::on(ringbridge_media::id::ShardId(2), home.now);
    assert!(other.engine.adopt(home.now, departure, &[4], None).is_ok());
    other.drain();
    let mut phone = home.phones.remove(0);
    (phone.slot, phone.next_at) = (4, Some(home.now + Duration::from_millis(3)));
    other.phones.push(phone);
    sing(&mut other, 0, "23");
    assert_eq!(other.gathered()[0].2, "123");
    home.run(2_000);
    assert_eq!((home.ended(), home.engine.poll_timeout()), (vec![], None));
}

#[test]
fn a_monitor_gathers_digits_although_nobody_listens_to_it() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    let monitor = bench.phone(Pcmu, 20);
    let participant = ParticipantSpec { role: Role::Monitor, ..ParticipantSpec::default() };
    bench.join_as(room, monitor, participant);
    let timed = bench.gather(monitor, StopConditions { timeout_ms: Some(300), ..NONE });
    bench.run(400);
    assert_eq!(bench.gathered(), [(timed, Condition::Timeout, String::new())]);
    let counted = bench.gather(monitor, StopConditions { digits_max: Some(2), ..NONE });
    bench.press(2, b'4');
    bench.press(2, b'2');
    bench.run(40);
    assert_eq!(bench.gathered()[1], (counted, Condition::MaxDigits, "42".to_owned()));
    assert_eq!(bench.status(ids[0]).operations, []);
}
