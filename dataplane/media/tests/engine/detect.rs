//! Silence and sound: how long, of whom, and what counts as either.

use ringbridge_media::command::{CodecKind, Command, OperationSpec, ParticipantChange, StopConditions, Target};
use ringbridge_media::event::Condition;
use ringbridge_media::id::OperationId;

use crate::bench::{Bench, Voice, play_for, recording, tone};
use CodecKind::{Pcma, Pcmu};

const LOUD: Voice = Voice::Tone(450.0, 4_000.0);

fn silence(ms: u32) -> OperationSpec {
    OperationSpec::DetectSilence { until: StopConditions { silence_ms: Some(ms), ..StopConditions::default() } }
}

fn sound(ms: u32) -> OperationSpec {
    OperationSpec::DetectNonSilence { until: StopConditions { nonsilence_ms: Some(ms), ..StopConditions::default() } }
}

/// Milliseconds after which the only operation ended, by the clock; what is heard is some 25 ms old.
fn ends_after(bench: &mut Bench, operation: OperationId, condition: Condition, up_to_ms: u64) -> Option<u64> {
    for ms in 0..up_to_ms {
        if let Some(&(_, ended, _)) = bench.ended().iter().find(|ended| ended.0 == operation) {
            assert_eq!(ended, condition);
            return Some(ms);
        }
        bench.run(1);
    }
    None
}

#[test]
fn a_state_that_holds_at_the_beginning_counts_from_there() {
    for in_room in [false, true] {
        let mut bench = Bench::new();
        let (_, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
        let alone = bench.phone(Pcma, 20);
        let (id, index) = if in_room { (ids[0], 0) } else { (alone, 2) };
        let target = Target::Connection(id);
        // No packets are silence.
        bench.run(1_000);
        let operation = bench.start(target, silence(500));
        assert!(ends_after(&mut bench, operation, Condition::Silence, 1_000).unwrap().abs_diff(505) <= 20);
        // So are silent packets.
        bench.say(index, Voice::Silence, 0);
        bench.run(1_000);
        let operation = bench.start(target, silence(500));
        assert!(ends_after(&mut bench, operation, Condition::Silence, 1_000).unwrap().abs_diff(505) <= 20);
        bench.phones[index].voice = LOUD;
        bench.run(1_000);
        let operation = bench.start(target, sound(500));
        let after = ends_after(&mut bench, operation, Condition::NonSilence, 1_000).unwrap();
        assert!(after.abs_diff(if in_room { 505 } else { 525 }) <= 20, "{after}");
        assert_eq!(bench.ended().iter().filter(|ended| ended.2 == 500).count(), 2 + usize::from(in_room));
    }
}

#[test]
fn a_change_is_told_when_it_has_lasted() {
    for target_is_room in [false, true] {
        let mut bench = Bench::new();
        let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
        let target = if target_is_room { Target::Conference(room) } else { Target::Connection(ids[0]) };
        bench.say(0, LOUD, 0);
        bench.run(503);
        let operation = bench.start(target, silence(300));
        bench.run(1_000);
        assert_eq!(bench.ended(), []);
        bench.phones[0].voice = Voice::Silence;
        let after = ends_after(&mut bench, operation, Condition::Silence, 1_000).unwrap();
        // The packet that is on its way is loud still; then the jitter buffer.
        assert!(after.abs_diff(300 + 20 + 25) <= 20, "{after}");
        let operation = bench.start(target, sound(300));
        bench.run(1_000);
        assert_eq!(bench.ended().len(), 1);
        bench.phones[0].voice = LOUD;
        let after = ends_after(&mut bench, operation, Condition::NonSilence, 1_000).unwrap();
        assert!(after.abs_diff(300 + 25) <= 20, "{after}");
    }
}

#[test]
fn a_room_is_as_loud_as_its_members_and_not_as_what_is_played_to_it() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
    let target = Target::Conference(room);
    bench.say(0, LOUD, 0);
    bench.say(1, Voice::Silence, 0);
    bench.start(target, play_for(60_000, StopConditions::default()));
    bench.run(200);
    let operation = bench.start(target, silence(300));
    bench.run(1_000);
    assert_eq!(bench.ended(), []);
    bench.set(room, ids[0], ParticipantChange { muted: Some(true), ..ParticipantChange::default() });
    bench.run(350);
    assert_eq!(bench.ended().last().map(|ended| (ended.0, ended.1)), Some((operation, Condition::Silence)));
    // Its own sound is still there for those who listen to it alone.
    let operation = bench.start(Target::Connection(ids[0]), sound(300));
    bench.run(350);
    assert_eq!(bench.ended().last().map(|ended| (ended.0, ended.1)), Some((operation, Condition::NonSilence)));
}

#[test]
fn noise_is_silence_and_a_soft_voice_is_sound() {
    for target_is_room in [false, true] {
        let mut bench = Bench::new();
        let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20)]);
        let target = if target_is_room { Target::Conference(room) } else { Target::Connection(ids[0]) };
        bench.say(0, Voice::Noise(-40.0), 0);
        bench.run(1_000);
        let operation = bench.start(target, silence(500));
        let after = ends_after(&mut bench, operation, Condition::Silence, 1_000).unwrap();
        assert!(after.abs_diff(505) <= 20, "{after}");
        let operation = bench.start(target, sound(50));
        bench.run(20_000);
        assert_eq!(bench.ended().len(), 1);
        bench.phones[0].voice = Voice::Speech(4_000.0, -40.0);
        let after = ends_after(&mut bench, operation, Condition::NonSilence, 1_000).unwrap();
        assert!(after < 300, "{after}");
        bench.phones[0].voice = Voice::Noise(-65.0);
        bench.run(3_000);
        let operation = bench.start(target, sound(50));
        bench.run(1_000);
        bench.phones[0].voice = Voice::Speech(360.0, -65.0);
        let after = ends_after(&mut bench, operation, Condition::NonSilence, 1_000).unwrap();
        assert!(after < 300, "{after}");
    }
}

#[test]
fn nobody_is_in_a_room_and_it_is_silent() {
    let mut bench = Bench::new();
    let room = bench.room();
    let operation = bench.start(Target::Conference(room), silence(200));
    bench.run(250);
    assert_eq!(bench.ended(), [(operation, Condition::Silence, 200)]);
    assert_eq!(bench.engine.poll_timeout(), None);
}

#[test]
fn silence_and_sound_of_the_endpoint_end_what_is_played_and_recorded() {
    let quiet = StopConditions { silence_ms: Some(300), ..StopConditions::default() };
    let loud = StopConditions { nonsilence_ms: Some(300), ..StopConditions::default() };
    type Make = fn(StopConditions) -> OperationSpec;
    let makes: [Make; 3] = [|until| play_for(60_000, until), |until| tone(600, None, until), recording];
    for make in makes {
        for link in 0..3 {
            let mut bench = Bench::new();
            let (_, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
            let (alone, other) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
            if link == 2 {
                bench.relay(alone, other);
            }
            let (id, index) = if link == 0 { (ids[0], 0) } else { (alone, 2) };
            let target = Target::Connection(id);
            bench.say(index, LOUD, 0);
            bench.run(200);
            let operation = bench.start(target, make(quiet));
            bench.run(700);
            assert_eq!(bench.ended(), []);
            bench.hush(index);
            let after = ends_after(&mut bench, operation, Condition::Silence, 1_000).unwrap();
            assert!(after.abs_diff(300 + 40) <= 20, "{link}: {after}");
            let operation = bench.start(target, make(loud));
            bench.run(700);
            assert_eq!(bench.ended().len(), 1);
            bench.say(index, LOUD, 0);
            let after = ends_after(&mut bench, operation, Condition::NonSilence, 1_000).unwrap();
            assert!(after.abs_diff(300 + 25) <= 20, "{link}: {after}");
            bench.call(Command::StopOperation { target, operation: None }).unwrap();
        }
    }
}
