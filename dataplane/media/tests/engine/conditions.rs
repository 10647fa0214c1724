//! Each condition of each operation, when it is due, and which one is reported when several hold.

use ringbridge_media::command::{CodecKind, OperationSpec, StopConditions, Target};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::Condition;

use crate::bench::{Bench, Voice, play_for, recording, set, tone};
use CodecKind::{Pcma, Pcmu};

const NONE: fn() -> StopConditions = StopConditions::default;

type Make = fn(StopConditions) -> OperationSpec;

/// Every kind of operation, by what it can end with.
const MAKES: [(&str, Make, &[Condition]); 6] = [
    ("play", |until| play_for(60_000, until), &HEARD),
    ("tone", |until| tone(600, None, until), &HEARD),
    (
        "record",
        recording,
        &[Condition::Digit, Condition::MaxTime, Condition::Silence, Condition::NonSilence, Condition::Timeout],
    ),
    (
        "gather",
        |until| OperationSpec::GatherDigits { flush: false, until },
        &[
            Condition::DigitPattern,
            Condition::Digit,
            Condition::DigitList,
            Condition::MaxDigits,
            Condition::InterDigitDelay,
            Condition::MaxTime,
            Condition::Timeout,
        ],
    ),
    ("silence", |until| OperationSpec::DetectSilence { until }, &[Condition::Silence, Condition::Timeout]),
    ("nonsilence", |until| OperationSpec::DetectNonSilence { until }, &[Condition::NonSilence, Condition::Timeout]),
];

const HEARD: [Condition; 7] = [
    Condition::Digit,
    Condition::DigitList,
    Condition::MaxDigits,
    Condition::MaxTime,
    Condition::Silence,
    Condition::NonSilence,
    Condition::Timeout,
];

/// Conditions that each hold some 400 ms after a beginning at which the endpoint falls silent or begins to talk and
/// presses `12#` 100 to 400 ms later; which is then due.
fn only(condition: Condition) -> StopConditions {
    let ms = Some(400);
    match condition {
        Condition::DigitPattern => StopConditions { digit_pattern: Digits::parse("2#"), ..NONE() },
        Condition::Digit => StopConditions { digit: set("#"), ..NONE() },
        Condition::DigitList => StopConditions { digit_list: set("#*"), ..NONE() },
        Condition::MaxDigits => StopConditions { digits_max: Some(3), ..NONE() },
        // From the second digit on; the third comes too late.
        Condition::InterDigitDelay => StopConditions { inter_digit_ms: Some(160), ..NONE() },
        Condition::MaxTime => StopConditions { max_time_ms: ms, ..NONE() },
        Condition::Silence => StopConditions { silence_ms: ms, ..NONE() },
        Condition::NonSilence => StopConditions { nonsilence_ms: ms, ..NONE() },
        Condition::Timeout => StopConditions { timeout_ms: ms, ..NONE() },
        _ => NONE(),
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Alone,
    InRelay,
    InRoom,
    Room,
}

#[test]
fn each_condition_of_each_operation_is_due_within_20_ms() {
    let conditions = [
        Condition::DigitPattern,
        Condition::Digit,
        Condition::DigitList,
        Condition::MaxDigits,
        Condition::InterDigitDelay,
        Condition::MaxTime,
        Condition::Silence,
        Condition::NonSilence,
        Condition::Timeout,
    ];
    for place in [Place::Alone, Place::InRelay, Place::InRoom, Place::Room] {
        for (name, make, listed) in MAKES {
            if place == Place::Room && name == "gather" {
                continue;
            }
            for condition in conditions {
                for offset in [0, 4, 9] {
                    let what = format!("{name} {condition:?} {place:?} +{offset}");
                    let mut bench = Bench::new();
                    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
                    let (alone, other) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
                    if place == Place::InRelay {
                        bench.relay(alone, other);
                    }
                    let (target, index) = match place {
                        Place::Alone | Place::InRelay => (Target::Connection(alone), 2),
                        Place::InRoom => (Target::Connection(ids[0]), 0),
                        Place::Room => (Target::Conference(room), 0),
                    };
                    bench.run(offset);
                    let loud = Voice::Tone(450.0, 4_000.0);
                    bench.say(index, if condition == Condition::Silence { Voice::Silence } else { loud }, 0);
                    bench.run(100);
                    let operation = bench.start(target, make(only(condition)));
                    for (digit, after_ms) in [(b'1', 100), (b'2', 100), (b'#', 198)] {
                        bench.run(after_ms);
                        if place == Place::Room {
                            bench.send_digits(target, &char::from(digit).to_string()).unwrap();
                        } else {
                            bench.press(index, digit);
                        }
                    }
                    bench.run(300);
                    let ended = bench.ended();
                    if !listed.contains(&condition) {
                        assert_eq!(ended, [], "{what}");
                        continue;
                    }
                    assert_eq!(ended.len(), 1, "{what}");
                    assert_eq!((ended[0].0, ended[0].1), (operation, condition), "{what}");
                    let due = if condition == Condition::InterDigitDelay { 360 } else { 400 };
                    // A clock of its own begins to listen with the operation: the jitter buffer is filled first.
                    let due = match (condition, place) {
                        (Condition::NonSilence, Place::Alone | Place::InRelay) => due + 30,
                        _ => due,
                    };
                    assert!(ended[0].2.abs_diff(due) <= 20, "{what}: {}", ended[0].2);
                }
            }
        }
    }
}

#[test]
fn digits_that_wait_end_nothing_but_a_gathering() {
    for (name, make, listed) in MAKES {
        for condition in [Condition::Digit, Condition::DigitList, Condition::MaxDigits] {
            let mut bench = Bench::new();
            let id = bench.phone(Pcmu, 20);
            "12#".bytes().for_each(|digit| bench.press(0, digit));
            bench.start(Target::Connection(id), make(only(condition)));
            bench.run(300);
            let ends = name == "gather" && listed.contains(&condition);
            assert_eq!(bench.ended().len(), usize::from(ends), "{name} {condition:?}");
            assert_eq!(bench.digits(id), if ends || listed.len() > 2 { "" } else { "12#" }, "{name}");
        }
    }
}

#[test]
fn of_conditions_in_one_step_the_first_in_order_is_reported() {
    // A gathering in which everything is due in the step from 380 to 400 ms: the digits are pressed at its end, what
    // is due by the clock holds from 390 ms on.
    let all = StopConditions {
        digit_pattern: Digits::parse("2#"),
        digit: set("#"),
        digit_list: set("#"),
        digits_max: Some(3),
        inter_digit_ms: None,
        max_time_ms: Some(390),
        silence_ms: None,
        nonsilence_ms: None,
        timeout_ms: Some(390),
    };
    let mut order = vec![
        Condition::DigitPattern,
        Condition::Digit,
        Condition::DigitList,
        Condition::MaxDigits,
        Condition::MaxTime,
        Condition::Timeout,
    ];
    let mut until = all;
    while let Some(&expected) = order.first() {
        let mut bench = Bench::new();
        let id = bench.phone(Pcmu, 20);
        let operation = bench.gather(id, until);
        let first = bench.engine.poll_timeout().unwrap().saturating_since(bench.now).as_millis() as u64;
        bench.press(0, b'1');
        bench.press(0, b'2');
        // Behind the frame at 390 ms and before the one at 400 ms.
        bench.run(first + 395);
        bench.press(0, b'#');
        bench.run(20);
        let ended = bench.ended();
        assert_eq!((ended.len(), ended[0].0, ended[0].1), (1, operation, expected));
        assert!((380..=400).contains(&ended[0].2), "{expected:?}: {}", ended[0].2);
        order.remove(0);
        match expected {
            Condition::DigitPattern => until.digit_pattern = None,
            Condition::Digit => until.digit = None,
            Condition::DigitList => until.digit_list = None,
            Condition::MaxDigits => until.digits_max = None,
            _ => until.max_time_ms = None,
        }
    }
    // A digit in the next step comes too late.
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    bench.gather(id, StopConditions { max_time_ms: Some(400), digit: set("#"), ..NONE() });
    let first = bench.engine.poll_timeout().unwrap().saturating_since(bench.now).as_millis() as u64;
    bench.run(first + 401);
    bench.press(0, b'#');
    bench.run(20);
    assert_eq!(bench.ended()[0].1, Condition::MaxTime);
}

#[test]
fn of_what_a_play_can_end_with_the_first_in_order_is_reported() {
    // Its last sample at 390 ms, like the limits; silence since it began.
    let ms = Some(390);
    let mut until = StopConditions { max_time_ms: ms, silence_ms: ms, timeout_ms: ms, ..NONE() };
    for expected in [Condition::MaxTime, Condition::Silence, Condition::Eod] {
        for target_is_room in [false, true] {
            let mut bench = Bench::new();
            let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
            let target = if target_is_room { Target::Conference(room) } else { Target::Connection(ids[0]) };
            let operation = bench.start(target, play_for(390, until));
            bench.run(500);
            assert_eq!(bench.ended(), [(operation, expected, 390)]);
        }
        match expected {
            Condition::MaxTime => until.max_time_ms = None,
            _ => until.silence_ms = None,
        }
    }
    // The limit of the command holds in the middle of a step, the end comes by the end of it.
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let until = StopConditions { timeout_ms: Some(390), ..NONE() };
    let operation = bench.start(Target::Connection(id), play_for(400, until));
    bench.run(500);
    assert_eq!(bench.ended(), [(operation, Condition::Eod, 400)]);
    // And not if it comes in the next step.
    let operation = bench.start(Target::Connection(id), play_for(410, until));
    bench.run(500);
    assert_eq!(bench.ended()[1..], [(operation, Condition::Timeout, 390)]);
}
