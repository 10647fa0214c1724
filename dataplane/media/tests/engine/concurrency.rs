//! What may run beside what.

use ringbridge_media::command::{CodecKind, Command, OperationSpec, ParticipantChange, StopConditions, Target};
use ringbridge_media::event::{Answer, CommandError, Condition};

use crate::bench::{Bench, Voice, addr, amplitude, play_for, recording, spec, tone};
use CodecKind::Pcmu;

const NONE: fn() -> StopConditions = StopConditions::default;

fn gather() -> OperationSpec {
    OperationSpec::GatherDigits { flush: false, until: NONE() }
}

fn silence() -> OperationSpec {
    OperationSpec::DetectSilence { until: StopConditions { silence_ms: Some(60_000), ..NONE() } }
}

fn sound() -> OperationSpec {
    OperationSpec::DetectNonSilence { until: StopConditions { nonsilence_ms: Some(60_000), ..NONE() } }
}

/// One of each kind.
const KINDS: [fn() -> OperationSpec; 6] =
    [|| play_for(60_000, NONE()), || tone(600, None, NONE()), || recording(NONE()), gather, silence, sound];

fn try_to_start(bench: &mut Bench, target: Target, operation: OperationSpec) -> Result<Answer, CommandError> {
    let id = bench.operation_id();
    bench.call(Command::StartOperation { id, target, operation: Box::new(operation) })
}

#[test]
fn the_matrix_of_one_connection() {
    // Play and tone exclude each other, and so do the two that detect.
    let excludes = |a: usize, b: usize| (a < 2 && b < 2) || (a > 3 && b > 3);
    for in_room in [false, true] {
        for (first, begin) in KINDS.iter().enumerate() {
            for (second, beside) in KINDS.iter().enumerate() {
                let mut bench = Bench::new();
                let (_, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
                let alone = bench.phone(Pcmu, 20);
                let target = Target::Connection(if in_room { ids[0] } else { alone });
                bench.say(if in_room { 0 } else { 2 }, Voice::Silence, 0);
                try_to_start(&mut bench, target, begin()).unwrap();
                bench.run(30);
                let answer = try_to_start(&mut bench, target, beside()).map(drop);
                let expected = if excludes(first, second) { Err(CommandError::Busy) } else { Ok(()) };
                assert_eq!(answer, expected, "{first} then {second}");
                let running = 2 - u64::from(expected.is_err());
                assert_eq!(bench.engine.totals().operations, running);
                // With three the fourth finds no place, whatever it is.
                for _ in running..3 {
                    try_to_start(&mut bench, target, gather()).unwrap();
                }
                for fourth in KINDS {
                    let answer = try_to_start(&mut bench, target, fourth()).map(drop);
                    assert_eq!(answer, Err(CommandError::LimitReached));
                }
                bench.run(30);
                let effect = bench.effect(Command::StopOperation { target, operation: None });
                let stamps = |outgoing| effect.streams.iter().filter(|stamp| stamp.outgoing == outgoing).count();
                assert!(stamps(true) <= 1 && stamps(false) <= 1, "{effect:?}");
                assert_eq!(bench.ended().len(), 3);
                assert!(bench.ended().iter().all(|ended| ended.1 == Condition::UserStop));
                try_to_start(&mut bench, target, begin()).unwrap();
            }
        }
    }
}

#[test]
fn eight_on_a_conference_and_no_more() {
    let mut bench = Bench::new();
    let (room, _) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    let target = Target::Conference(room);
    for n in 0..8 {
        try_to_start(&mut bench, target, KINDS[[0, 0, 1, 2, 2, 4, 4, 5][n]]()).unwrap();
    }
    bench.run(100);
    assert_eq!(try_to_start(&mut bench, target, recording(NONE())).unwrap_err(), CommandError::LimitReached);
    bench.call(Command::StopOperation { target, operation: None }).unwrap();
    assert_eq!(bench.ended().len(), 8);
    assert_eq!(try_to_start(&mut bench, target, gather()).unwrap_err(), CommandError::Unsupported);
}

#[test]
fn what_is_stopped_before_its_first_frame_has_run_for_a_millisecond() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let target = Target::Connection(id);
    for kind in KINDS {
        bench.events.clear();
        let operation = bench.start(target, kind());
        bench.call(Command::StopOperation { target, operation: Some(operation) }).unwrap();
        assert_eq!(bench.ended(), [(operation, Condition::UserStop, 1)]);
        let again = bench.call(Command::StopOperation { target, operation: Some(operation) });
        assert_eq!(again.unwrap_err(), CommandError::UnknownOperation(operation));
    }
    bench.events.clear();
    let operation = bench.start(target, gather());
    bench.call(Command::DeleteConnection { id }).unwrap();
    assert_eq!(bench.ended(), [(operation, Condition::AutoStop, 1)]);
}

#[test]
fn a_natural_end_that_comes_first_keeps_its_condition() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let target = Target::Connection(id);
    // Over after 50 ms, in the middle of a step in which a digit may still come.
    let until = StopConditions { digit: crate::bench::set("1"), ..NONE() };
    let operation = bench.start(target, play_for(50, until));
    let first = bench.engine.poll_timeout().unwrap();
    bench.run(first.saturating_since(bench.now).as_millis() as u64 + 51);
    assert_eq!(bench.ended(), []);
    bench.call(Command::StopOperation { target, operation: None }).unwrap();
    assert_eq!(bench.ended(), [(operation, Condition::Eod, 50)]);
    bench.run(100);
    assert_eq!(bench.ended().len(), 1);
}

#[test]
fn a_tone_needs_somewhere_to_go_and_what_listens_does_not() {
    let mut bench = Bench::new();
    let id = bench.connection(spec(Pcmu, 20));
    let target = Target::Connection(id);
    for heard in [KINDS[0], KINDS[1]] {
        assert_eq!(try_to_start(&mut bench, target, heard()).unwrap_err(), CommandError::NotConnected(id));
    }
    for listening in &KINDS[2..] {
        let operation = bench.start(target, listening());
        bench.call(Command::StopOperation { target, operation: Some(operation) }).unwrap();
    }
    let remote = Some(addr("10.1.1.1:5000"));
    bench.modify(id, ringbridge_media::command::ConnectionChange { remote, ..Default::default() }).unwrap();
    bench.start(target, tone(600, Some(100), NONE()));
    bench.run(200);
    assert_eq!(bench.heard_by(0).len(), 5);
}

#[test]
fn who_is_played_to_in_isolation_is_not_heard_until_it_is_over() {
    for isolate in [false, true] {
        for of_tones in [false, true] {
            let mut bench = Bench::new();
            let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
            bench.say(0, Voice::Tone(450.0, 4_000.0), 0);
            bench.run(500);
            let operation = if of_tones {
                OperationSpec::Tone {
                    tone: ringbridge_media::command::ToneSpec { first: (600, -10), second: None },
                    duration_ms: Some(1_000),
                    isolate,
                    until: NONE(),
                }
            } else {
                match play_for(1_000, NONE()) {
                    OperationSpec::Play { playlist, volume, speed, until, .. } => {
                        OperationSpec::Play { playlist, volume, speed, isolate, until }
                    }
                    _ => unreachable!(),
                }
            };
            bench.start(Target::Connection(ids[0]), operation);
            bench.run(40);
            let from = bench.samples_to(1, Pcmu).len();
            bench.run(900);
            let meanwhile = bench.samples_to(1, Pcmu)[from..].to_vec();
            let level = amplitude(&meanwhile[..6_400], 450.0);
            assert_eq!(level < 10.0, isolate, "{level}");
            bench.run(140);
            let from = bench.samples_to(1, Pcmu).len();
            bench.run(300);
            assert!(amplitude(&bench.samples_to(1, Pcmu)[from..], 450.0) > 3_500.0, "heard again");
            assert_eq!(bench.ended().len(), 1);
            bench.set(room, ids[0], ParticipantChange { muted: Some(true), ..ParticipantChange::default() });
        }
    }
}
