//! Play and record: each ends exactly once, with its condition and its length.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, ConnectionSpec, Direction, OperationKind, OperationSpec, ParticipantChange,
    StopConditions, Target,
};
use ringbridge_media::event::{Answer, Condition, Event};
use ringbridge_media::samples::{Chunk, Playlist, Prompt, PromptStream, RecordQueue};

use crate::bench::{Bench, Voice, addr, amplitude, check_stream, decode, play, recorded, spec};
use CodecKind::{Pcma, Pcmu};

fn heard(bench: &Bench, slot: u32, codec: CodecKind) -> Vec<i16> {
    bench.heard_by(slot).iter().flat_map(|packet| decode(&packet.payload, codec)).collect()
}

#[test]
fn prompts_follow_each_other_and_end_with_the_last_sample() {
    for (codec, ptime_ms) in [(Pcmu, 10), (Pcma, 20), (Pcmu, 30), (Pcma, 40), (Pcmu, 60)] {
        for in_room in [false, true] {
            let mut bench = Bench::new();
            let id = bench.phone(codec, ptime_ms);
            let room = bench.room();
            if in_room {
                bench.join(room, id);
            }
            let prompts = vec![vec![4_000; 100], vec![], vec![8_000; 250], vec![16_000; 50]];
            let operation = bench.start(Target::Connection(id), play(prompts, None));
            bench.run(500);
            assert_eq!(bench.ended(), [(operation, Condition::Eod, 50)]);
            let samples = heard(&bench, 0, codec);
            let near =
                |value: i32| samples.iter().filter(|&&sample| (i32::from(sample) - value).abs() < value / 20).count();
            assert_eq!((near(4_000), near(8_000), near(16_000)), (100, 250, 50));
            assert!(samples[..400].is_sorted(), "in order");
            assert!(samples[400..].iter().all(|sample| sample.abs() <= 8), "filled up with silence");
            // In a room the mix goes on for the frame in which the end is found.
            assert!(samples.len() < 400 + 80 * usize::from(in_room) + 8 * ptime_ms as usize);
            assert_eq!(check_stream(&bench.heard_by(0)), [0]);
            assert_eq!(bench.engine.poll_timeout(), None);
            let given_back = |event: &Event| matches!(event, Event::OperationEnded { playlist: Some(list), .. } if list.prompts.len() == 4);
            assert_eq!(bench.count(given_back), 1);
        }
    }
}

#[test]
fn every_way_to_end_happens_exactly_once() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    let alone = bench.phone(Pcmu, 20);
    for target in [Target::Conference(room), Target::Connection(ids[0]), Target::Connection(alone)] {
        bench.events.clear();
        let long = vec![1_000; 80_000];
        let max = bench.start(target, play(vec![long.clone()], Some(105)));
        bench.run(300);
        assert_eq!(bench.ended(), [(max, Condition::MaxTime, 110)], "{target:?}");
        let (max, queue) = bench.record(target, Some(95));
        bench.run(300);
        assert_eq!(bench.ended()[1..], [(max, Condition::MaxTime, 100)]);
        assert_eq!((recorded(&queue).len(), queue.finished.load(Ordering::Acquire)), (800, true));

        let stopped = bench.play(target, long.clone());
        let (kept, queue) = bench.record(target, None);
        bench.run(100);
        let Ok(Answer::Operations(running)) = bench.call(Command::ListOperations { target }) else { panic!() };
        let running: Vec<_> = running.iter().map(|status| (status.id, status.kind, status.elapsed_ms)).collect();
        assert_eq!(running, [(stopped, OperationKind::Play, 100), (kept, OperationKind::Record, 100)]);
        bench.call(Command::StopOperation { target, operation: Some(stopped) }).unwrap();
        assert_eq!(bench.ended()[2..], [(stopped, Condition::UserStop, 100)]);
        queue.failed.store(true, Ordering::Release);
        bench.run(100);
        assert_eq!(bench.ended()[3..], [(kept, Condition::Error, 100)]);

        let stream = Arc::new(PromptStream::new(4));
        let prompts = vec![Prompt::Stream(Arc::clone(&stream))];
        let broken = bench.start(
            target,
            OperationSpec::Play {
                playlist: Box::new(Playlist { prompts, ..Playlist::default() }),
                volume: None,
                speed: None,
                isolate: false,
                until: StopConditions::default(),
            },
        );
        stream.chunks.push(Chunk::new(&[500; 160])).unwrap();
        bench.run(60);
        stream.failed.store(true, Ordering::Release);
        bench.run(60);
        let last = *bench.ended().last().unwrap();
        assert_eq!((last.0, last.1), (broken, Condition::Error));
        assert!(stream.abandoned.load(Ordering::Acquire));
        assert_eq!(bench.ended().len(), 5);
        assert!(bench.call(Command::StopOperation { target, operation: Some(broken) }).is_err());
        assert_eq!(bench.engine.totals().operations, 0);
    }
    for (target, delete) in [
        (Target::Connection(alone), Command::DeleteConnection { id: alone }),
        (Target::Connection(ids[0]), Command::DeleteConnection { id: ids[0] }),
        (Target::Conference(room), Command::DeleteConference { id: room, keep_connections: false }),
    ] {
        bench.events.clear();
        let id = bench.play(target, vec![1_000; 80_000]);
        bench.run(50);
        bench.call(delete).unwrap();
        let ended = bench.ended();
        assert_eq!((ended.len(), ended[0].0, ended[0].1), (1, id, Condition::AutoStop));
    }
}

#[test]
fn a_stop_of_everything_stops_everything_once() {
    let mut bench = Bench::new();
    let (room, _) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    let target = Target::Conference(room);
    let (a, b) = (bench.play(target, vec![1_000; 80_000]), bench.play(target, vec![2_000; 80_000]));
    let (c, _) = bench.record(target, None);
    bench.run(100);
    let answer = bench.call(Command::StopOperation { target, operation: None });
    assert!(matches!(answer, Ok(Answer::Stopped { operations, .. }) if operations == [a, b, c]));
    assert!(
        matches!(bench.call(Command::StopOperation { target, operation: None }), Ok(Answer::Stopped { operations, .. }) if operations.is_empty())
    );
    bench.run(100);
    assert_eq!(bench.ended().len(), 3);
}

#[test]
fn a_prompt_to_one_takes_the_place_of_the_mix_for_him_and_a_prompt_to_all_is_added() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20), (Pcmu, 30)]);
    let deaf = bench.phone(Pcmu, 20);
    bench.join(room, deaf);
    bench.set(room, deaf, ParticipantChange { deaf: Some(true), ..ParticipantChange::default() });
    bench.say(0, Voice::Tone(400.0, 4_000.0), 0);
    let tone = |hz: f64| -> Vec<i16> {
        (0..16_000)
            .map(|n| (f64::from(n) * hz * std::f64::consts::TAU / 8000.0).sin() * 4_000.0)
            .map(|x| x as i16)
            .collect()
    };
    bench.play(Target::Connection(ids[1]), tone(700.0));
    bench.play(Target::Conference(room), tone(1_100.0));
    bench.run(1_900);
    let level = |slot, codec, hz| amplitude(&heard(&bench, slot, codec)[800..12_800], hz);
    let present = |level: f64| (3_800.0..4_200.0).contains(&level);
    assert!(level(1, Pcma, 400.0) < 40.0 && present(level(1, Pcma, 700.0)) && level(1, Pcma, 1_100.0) < 40.0);
    assert!(present(level(2, Pcmu, 400.0)) && level(2, Pcmu, 700.0) < 40.0 && present(level(2, Pcmu, 1_100.0)));
    assert!(level(0, Pcmu, 400.0) < 40.0 && present(level(0, Pcmu, 1_100.0)));
    assert!(level(3, Pcmu, 1_100.0) < 40.0);
    bench.run(600);
    assert_eq!(bench.ended().len(), 2);
    for slot in 0..4 {
        assert_eq!(check_stream(&bench.heard_by(slot)), [0]);
    }
}

#[test]
fn a_prompt_to_an_endpoint_that_may_not_be_sent_to_still_ends() {
    for in_room in [false, true] {
        let mut bench = Bench::new();
        let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
        if !in_room {
            bench.call(Command::DeleteConference { id: room, keep_connections: true }).unwrap();
        }
        let direction = Some(Direction::RecvOnly);
        bench.modify(ids[0], ConnectionChange { direction, ..ConnectionChange::default() }).unwrap();
        let sent = bench.heard_by(0).len();
        let id = bench.play(Target::Connection(ids[0]), vec![1_000; 800]);
        bench.run(300);
        assert_eq!(bench.ended(), [(id, Condition::Eod, 100)]);
        assert_eq!(bench.heard_by(0).len(), sent);
    }
}

#[test]
fn a_clock_begins_at_once_whenever_it_is_asked_to() {
    // Whatever the moment inside a frame, also one at which a timeout was just handled.
    for ms in 0..20 {
        let mut bench = Bench::new();
        for slot in 0..10 {
            bench.phone(Pcmu, 10);
            let _ = slot;
        }
        bench.run(ms);
        bench.engine.handle_timeout(bench.now);
        let ids: Vec<_> = bench.phones.iter().map(|phone| phone.id).collect();
        for id in ids {
            bench.play(Target::Connection(id), vec![1_000; 800]);
        }
        bench.run(120);
        assert_eq!(bench.ended().len(), 10);
        for slot in 0..10 {
            assert_eq!(bench.heard_by(slot).len(), 10);
        }
    }
}

#[test]
fn a_full_recording_queue_is_a_gap_and_no_stall() {
    let mut bench = Bench::new();
    let id = bench.phone(Pcmu, 20);
    bench.say(0, Voice::Constant(1_000), 0);
    let queue = Arc::new(RecordQueue::new(2));
    bench.start(
        Target::Connection(id),
        OperationSpec::Record { queue: Arc::clone(&queue), until: StopConditions::default() },
    );
    bench.run(200);
    assert!(queue.lost_samples.load(Ordering::Relaxed) >= 1_200);
    let position = |queue: &RecordQueue| queue.chunks.pop().map(|chunk| chunk.position);
    assert_eq!((position(&queue), position(&queue), position(&queue)), (Some(0), Some(160), None));
    bench.run(40);
    assert!(position(&queue).unwrap() >= 1_600, "what follows is where it belongs");
}

#[test]
fn a_play_needs_somewhere_to_go_and_a_recording_does_not() {
    let mut bench = Bench::new();
    let id = bench.connection(spec(Pcmu, 20));
    let (_, queue) = bench.record(Target::Connection(id), None);
    bench.run(100);
    bench.call(Command::StopOperation { target: Target::Connection(id), operation: None }).unwrap();
    assert_eq!(recorded(&queue).len(), 800);
    let id = bench.connection(ConnectionSpec { remote: Some(addr("10.1.1.1:5000")), ..spec(Pcmu, 20) });
    bench.play(Target::Connection(id), vec![1_000; 80]);
    bench.run(100);
    assert_eq!(bench.heard_by(1).len(), 1);
}

#[test]
fn a_recording_goes_on_without_a_gap_through_join_and_leave() {
    let mut bench = Bench::new();
    let (room, _) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
    let id = bench.phone(Pcmu, 20);
    bench.say(2, Voice::Stairs, 0);
    let (_, queue) = bench.record(Target::Connection(id), None);
    for round in 0..6 {
        bench.run(203 + round);
        bench.join(room, id);
        bench.run(207 + round);
        bench.effect(Command::LeaveConference { conference: room, connection: id });
    }
    bench.run(100);
    bench.call(Command::StopOperation { target: Target::Connection(id), operation: None }).unwrap();
    let samples = recorded(&queue);
    let spoken: Vec<i16> = samples.iter().copied().skip_while(|&sample| sample == 0).collect();
    let first = (0..64u32).find(|&n| decode(&[crate::bench::stair(n)], Pcmu)[0] == spoken[0]).unwrap();
    let expected: Vec<u8> = (0..spoken.len() as u32).map(|n| crate::bench::stair(first + n)).collect();
    assert!(spoken == decode(&expected, Pcmu), "every sample once and in order");
    assert!(spoken.len() > 8 * 2_400);
}

#[test]
fn a_prompt_goes_on_without_a_gap_through_join_and_leave() {
    for ptime_ms in [10, 20, 30, 40] {
        let mut bench = Bench::new();
        let (room, _) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
        let id = bench.phone(Pcmu, ptime_ms);
        bench.play(Target::Connection(id), vec![9_000; 20_000]);
        for round in 0..5 {
            bench.run(203 + round);
            bench.join(room, id);
            bench.run(207 + round);
            bench.effect(Command::LeaveConference { conference: room, connection: id });
        }
        bench.run(1_000);
        assert_eq!(bench.ended()[0].1, Condition::Eod);
        let packets = bench.heard_by(2);
        assert_eq!(check_stream(&packets), [0], "{ptime_ms} ms");
        let loud = heard(&bench, 2, Pcmu).iter().filter(|&&sample| sample > 8_500).count();
        assert_eq!(loud, 20_000, "{ptime_ms} ms");
    }
}
