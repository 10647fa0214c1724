//! Tones, and volume and speed of what plays.

use ringbridge_media::command::{
    CodecKind, Command, OperationSpec, PlayAdjust, PlayChange, StopConditions, Target, ToneSpec, VolumeToggle,
};
use ringbridge_media::event::{Answer, CommandError, Condition, Effect};
use ringbridge_media::samples::{Playlist, Prompt};

use crate::bench::{Bench, amplitude, sine, tone};
use CodecKind::{Pcma, Pcmu};

const AMPLITUDE: f64 = 2_000.0;

/// Plays a sine of 500 Hz for `ms` milliseconds.
fn play(ms: u64, volume: Option<i8>, speed: Option<i8>) -> OperationSpec {
    let samples: Vec<i16> = (0..8 * ms).map(|n| sine(n, 500.0, AMPLITUDE)).collect();
    OperationSpec::Play {
        playlist: Box::new(Playlist { prompts: vec![Prompt::Whole(samples.into())], ..Playlist::default() }),
        volume,
        speed,
        isolate: false,
        until: StopConditions::default(),
    }
}

fn adjust(bench: &mut Bench, target: Target, adjust: PlayAdjust) -> Effect {
    bench.effect(Command::AdjustPlay { target, change: PlayChange { adjust, only_if_playing: false } })
}

/// The level of what phone 0 hears over the next 200 ms, in steps of volume.
fn steps_heard(bench: &mut Bench) -> f64 {
    bench.run(40);
    let from = bench.samples_to(0, Pcmu).len();
    bench.run(200);
    let level = amplitude(&bench.samples_to(0, Pcmu)[from..from + 1_280], 500.0);
    10.0 * (level / AMPLITUDE).log10()
}

#[test]
fn volume_changes_while_it_plays_and_stays_for_the_next_play() {
    use PlayAdjust::{Toggle, VolumeBy, VolumeTo};
    for target_is_room in [false, true] {
        let mut bench = Bench::new();
        let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
        let target = if target_is_room { Target::Conference(room) } else { Target::Connection(ids[0]) };
        let check = |bench: &mut Bench, expected: f64| {
            let steps = steps_heard(bench);
            assert!((steps - expected).abs() < 0.15, "{steps} instead of {expected}");
        };
        bench.start(target, play(20_000, None, None));
        check(&mut bench, 0.0);
        for (change, expected) in [
            (VolumeTo(4), 4.0),
            (VolumeBy(-6), -2.0),
            (Toggle(VolumeToggle::Switch), 0.0),
            (Toggle(VolumeToggle::Switch), -2.0),
            (Toggle(VolumeToggle::Origin), 0.0),
            (Toggle(VolumeToggle::Last), -2.0),
            (Toggle(VolumeToggle::Reset), 0.0),
            (Toggle(VolumeToggle::Last), 0.0),
            (VolumeTo(-20), -10.0),
            (VolumeBy(20), 10.0),
            (VolumeTo(-3), -3.0),
        ] {
            let effect = adjust(&mut bench, target, change);
            assert_eq!(effect.streams.len(), 1 + usize::from(target_is_room), "{effect:?}");
            check(&mut bench, expected);
        }
        bench.call(Command::StopOperation { target, operation: None }).unwrap();
        // What a play brings along is taken as the last change was meant.
        bench.start(target, play(1_000, None, None));
        check(&mut bench, -3.0);
        bench.call(Command::StopOperation { target, operation: None }).unwrap();
        adjust(&mut bench, target, VolumeBy(1));
        bench.start(target, play(1_000, Some(4), None));
        check(&mut bench, 2.0);
        bench.call(Command::StopOperation { target, operation: None }).unwrap();
        bench.start(target, play(1_000, None, None));
        check(&mut bench, 2.0);
    }
}

#[test]
fn nothing_plays_and_nothing_is_adjusted() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let target = Target::Connection(id);
    let change = PlayChange { adjust: PlayAdjust::VolumeTo(-5), only_if_playing: true };
    assert_eq!(bench.call(Command::AdjustPlay { target, change }).unwrap_err(), CommandError::NothingPlaying);
    bench.start(target, tone(600, Some(100), StopConditions::default()));
    assert_eq!(bench.call(Command::AdjustPlay { target, change }).unwrap_err(), CommandError::NothingPlaying);
    bench.run(200);
    bench.start(target, play(5_000, None, None));
    assert!(steps_heard(&mut bench).abs() < 0.15, "what failed has changed nothing");
    assert!(matches!(bench.call(Command::AdjustPlay { target, change }), Ok(Answer::Effect(_))));
    assert!((steps_heard(&mut bench) + 5.0).abs() < 0.15);
    // Without that condition it is for what is played next.
    bench.call(Command::StopOperation { target, operation: None }).unwrap();
    assert_eq!(adjust(&mut bench, target, PlayAdjust::VolumeTo(3)).streams, []);
    bench.start(target, play(5_000, None, None));
    assert!((steps_heard(&mut bench) - 3.0).abs() < 0.15);
}

#[test]
fn speed_changes_the_length_and_not_the_pitch() {
    for (speed, percent) in [(-10, 50), (-5, 50), (-2, 80), (0, 100), (3, 130), (5, 150), (10, 150)] {
        for in_room in [false, true] {
            let mut bench = Bench::new();
            let id = bench.phone(Pcmu, 20);
            let room = bench.room();
            if in_room {
                bench.join(room, id);
            }
            let target = Target::Connection(id);
            let operation = bench.start(target, play(2_000, None, Some(speed)));
            bench.run(5_000);
            let ended = bench.ended();
            assert_eq!((ended[0].0, ended[0].1), (operation, Condition::Eod));
            let expected = 2_000 * 100 / percent;
            assert!(ended[0].2.abs_diff(expected) <= 30, "{speed}: {} instead of {expected}", ended[0].2);
            let samples = bench.samples_to(0, Pcmu);
            let level = amplitude(&samples[800..8_800], 500.0);
            assert!(level > 0.9 * AMPLITUDE, "{speed}: {level}");
            // The next one is played at that speed too.
            bench.start(target, play(1_000, None, None));
            bench.run(3_000);
            assert!(bench.ended()[1].2.abs_diff(1_000 * 100 / percent) <= 30);
        }
    }
}

#[test]
fn speed_changes_while_it_plays() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    let target = Target::Connection(id);
    bench.start(target, play(3_000, None, None));
    bench.run(1_000);
    adjust(&mut bench, target, PlayAdjust::SpeedTo(5));
    bench.run(667);
    adjust(&mut bench, target, PlayAdjust::SpeedBy(-10));
    bench.run(3_000);
    let (_, condition, elapsed) = bench.ended()[0];
    assert_eq!(condition, Condition::Eod);
    assert!(elapsed.abs_diff(1_000 + 667 + 2_000) <= 80, "{elapsed}");
    let samples = bench.samples_to(0, Pcmu);
    let windows = samples[80..28_000].chunks_exact(800);
    assert!(windows.map(|window| amplitude(window, 500.0)).all(|level| level > 0.8 * AMPLITUDE));
}

#[test]
fn a_tone_has_its_frequencies_levels_and_length() {
    for target_is_room in [false, true] {
        for (first, second) in [((600, -10), None), ((200, -20), Some((3_000, -13))), ((350, 0), Some((440, -40)))] {
            let mut bench = Bench::new();
            let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
            let target = if target_is_room { Target::Conference(room) } else { Target::Connection(ids[0]) };
            let spec = ToneSpec { first, second };
            let operation = bench.start(
                target,
                OperationSpec::Tone {
                    tone: spec,
                    duration_ms: Some(1_000),
                    isolate: false,
                    until: StopConditions::default(),
                },
            );
            bench.run(1_300);
            assert_eq!(bench.ended(), [(operation, Condition::Eod, 1_000)]);
            let samples = bench.samples_to(0, Pcmu);
            let begin = samples.iter().position(|sample| sample.unsigned_abs() > 100).unwrap();
            let end = samples.iter().rposition(|sample| sample.unsigned_abs() > 100).unwrap();
            assert!((7_960..=8_000).contains(&(end - begin)), "{first:?} {second:?}: {}", end - begin);
            for (hz, dbm0) in [Some(first), second].into_iter().flatten() {
                // Whole periods of all of them.
                let level = amplitude(&samples[begin + 80..begin + 4_080], f64::from(hz));
                let expected = 22_827.0 * 10f64.powf(f64::from(dbm0) / 20.0);
                assert!((level / expected - 1.0).abs() < 0.1, "{hz} Hz: {level} instead of {expected}");
            }
        }
    }
}

#[test]
fn a_tone_without_a_length_goes_on_until_something_ends_it() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcma, 20);
    let until = StopConditions { max_time_ms: Some(30_000), ..StopConditions::default() };
    let operation = bench.start(Target::Connection(id), tone(600, None, until));
    bench.run(29_000);
    assert_eq!(bench.ended(), []);
    bench.run(1_100);
    assert_eq!(bench.ended(), [(operation, Condition::MaxTime, 30_000)]);
}
