//! A recording of a call: both parties side by side on one clock, each to be muted alone, the call itself untouched.

use std::sync::Arc;

use core::time::Duration;

use ringbridge_media::command::{CodecKind, Command, OperationSpec, StopConditions, Target};
use ringbridge_media::event::{Answer, CommandError, Condition, Effect, EffectClock, Event};
use ringbridge_media::id::{ConnectionId, OperationId};
use ringbridge_media::limits::CHUNK_SAMPLES;
use ringbridge_media::samples::{Marks, RecordQueue};

use crate::bench::{Bench, Sent, Voice, decode, recorded, stair, stamp};
use CodecKind::{G729, Pcma, Pcmu};

/// A call between a phone of µ-law in 20 ms and one of A-law in 30 ms.
pub(crate) struct Call {
    pub(crate) bench: Bench,
    pub(crate) ids: [ConnectionId; 2],
}

impl Call {
    fn new() -> Self {
        let mut bench = Bench::new();
        let ids = [bench.phone(Pcmu, 20), bench.phone(Pcma, 30)];
        bench.relay(ids[0], ids[1]);
        Self { bench, ids }
    }

    fn spec(&self, until: StopConditions) -> (OperationSpec, Arc<RecordQueue>) {
        let queue = Arc::new(RecordQueue::new(4096));
        let [caller, called] = self.ids;
        (OperationSpec::RecordCall { queue: Arc::clone(&queue), caller, called, until }, queue)
    }

    /// Records on the caller's connection (0) or the called's (1).
    pub(crate) fn record(&mut self, on: usize) -> Tape {
        let (spec, queue) = self.spec(StopConditions::default());
        let id = self.bench.start(Target::Connection(self.ids[on]), spec);
        Tape { id, on: self.ids[on], queue, samples: [Vec::new(), Vec::new()], marks: Vec::new() }
    }

    pub(crate) fn mute(&mut self, tape: &Tape, caller: bool, called: bool) -> Effect {
        self.bench.effect(Command::MuteRecording { connection: tape.on, operation: tape.id, caller, called })
    }

    fn stop(&mut self, tape: &Tape) -> Effect {
        let target = Target::Connection(tape.on);
        self.bench.effect(Command::StopOperation { target, operation: Some(tape.id) })
    }

    pub(crate) fn talk(&mut self) {
        self.bench.say(0, Voice::Stairs, 0);
        self.bench.say(1, Voice::Stairs, 7);
    }

    fn refused(&mut self, on: usize, spec: OperationSpec) -> CommandError {
        let (id, target) = (self.bench.operation_id(), Target::Connection(self.ids[on]));
        let operation = Box::new(spec);
        self.bench.call(Command::StartOperation { id, target, operation }).unwrap_err()
    }
}

pub(crate) struct Tape {
    id: OperationId,
    on: ConnectionId,
    pub(crate) queue: Arc<RecordQueue>,
    samples: [Vec<i16>; 2],
    /// Of each frame.
    marks: Vec<Marks>,
}

impl Tape {
    fn read(&mut self) {
        while let Some(chunk) = self.queue.chunks.pop() {
            assert_eq!(chunk.position, self.samples[0].len() as u64, "a recording without gaps");
            assert_eq!(chunk.chunk.as_slice().len(), CHUNK_SAMPLES);
            for pair in chunk.chunk.as_slice().chunks_exact(2) {
                self.samples[0].push(pair[0]);
                self.samples[1].push(pair[1]);
            }
            self.marks.push(chunk.marks);
        }
    }
}

fn said(timestamp: u32, codec: CodecKind) -> i16 {
    decode(&[stair(timestamp)], codec)[0]
}

/// Checks that `samples` is the phone's voice without a hole, after silence at the most.
fn check_voice(samples: &[i16], codec: CodecKind) -> usize {
    let first = samples.iter().position(|&sample| sample != 0).unwrap();
    let phase = (0..64).find(|&phase| samples[first..].iter().zip(phase..).take(64).all(|(&s, t)| s == said(t, codec)));
    let phase = phase.expect("the voice");
    for (n, (&sample, timestamp)) in samples[first..].iter().zip(phase..).enumerate() {
        assert_eq!(sample, said(timestamp, codec), "sample {n} after {first}");
    }
    first
}

fn bytes(sent: &[Sent]) -> Vec<(u32, Vec<u8>)> {
    sent.iter().map(|sent| (sent.port.index(), sent.bytes.clone())).collect()
}

#[test]
fn both_parties_bit_exactly_and_the_call_as_if_nobody_listened() {
    for on in [0, 1] {
        let mut plain = Call::new();
        plain.talk();
        plain.bench.run(1000);

        let mut call = Call::new();
        call.talk();
        call.bench.run(203);
        let mut tape = call.record(on);
        call.bench.run(500);
        call.mute(&tape, true, true);
        call.bench.run(97);
        call.stop(&tape);
        call.bench.run(200);
        assert_eq!(bytes(&call.bench.sent), bytes(&plain.bench.sent), "the relay passes on what it always did");
        assert_eq!(call.bench.engine.poll_timeout(), None, "a relay has no clock once it is not recorded any more");

        tape.read();
        let muted_at = tape.marks.iter().position(|marks| marks.muted == [true, true]).unwrap() * 80;
        assert!((498 * 8..=502 * 8).contains(&muted_at), "{muted_at}");
        // The first packet after the start is waited for, and for its delay.
        for (samples, codec, latest_ms) in [(&tape.samples[0], Pcmu, 50), (&tape.samples[1], Pcma, 60)] {
            let first = check_voice(&samples[..muted_at], codec);
            assert!(first <= latest_ms * 8, "{first}");
            assert!(samples[muted_at..].iter().all(|&sample| sample == 0));
        }
        assert!(tape.marks.iter().all(|marks| marks.concealed == [false; 2]), "nothing was lost");
        assert!(tape.marks[6..].iter().all(|marks| marks.gap == [false; 2]));
        assert_eq!(tape.queue.lost_samples.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

#[test]
fn a_muted_channel_is_silence_from_the_stamp_on_and_the_other_is_untouched() {
    for ms in 0..40 {
        for (on, side, codec) in [(0, 0, Pcmu), (0, 1, Pcma), (1, 0, Pcmu)] {
            let mut call = Call::new();
            call.talk();
            call.bench.run(100);
            let mut tape = call.record(on);
            call.bench.run(200 + ms);
            let begins = call.mute(&tape, side == 0, side == 1);
            call.bench.run(123);
            let again = call.mute(&tape, side == 0, side == 1);
            let ends = call.mute(&tape, false, false);
            call.bench.run(100);
            call.stop(&tape);
            tape.read();

            assert_eq!(again.streams, [], "nothing changes");
            let at = |effect: &Effect| {
                assert_eq!(effect.clock, EffectClock::Recording);
                let ahead = effect.media_time_ms - effect.received_media_time_ms;
                assert!((0.0..=10.0).contains(&ahead), "{effect:?}");
                assert_eq!(effect.streams.len(), 1, "only the muted channel changes");
                (effect.media_time_ms as usize * 8, stamp(effect, call.ids[side], false).rtp_timestamp)
            };
            let ((from, first), (to, next)) = (at(&begins), at(&ends));
            let muted = &tape.samples[side];
            assert_eq!(muted[from - 1], said(first.wrapping_sub(1), codec), "the last sample before");
            assert!(muted[from..to].iter().all(|&sample| sample == 0), "no sample of the muted stretch");
            assert_eq!(muted[to], said(next, codec), "the first sample after");
            check_voice(&muted[..from], codec);
            check_voice(&muted[to..], codec);
            check_voice(&tape.samples[1 - side], if side == 0 { Pcma } else { Pcmu });
            for (frame, marks) in tape.marks.iter().enumerate() {
                assert_eq!(marks.muted[side], (from / 80..to / 80).contains(&frame), "frame {frame}");
                assert!(!marks.muted[1 - side]);
            }
        }
    }
}

#[test]
fn what_is_lost_is_made_up_and_what_never_came_is_silence_and_both_are_noted() {
    let mut call = Call::new();
    call.bench.say(0, Voice::Stairs, 0);
    call.bench.run(100);
    let mut tape = call.record(0);
    call.bench.run(110);
    let lost = &mut call.bench.phones[0];
    lost.timestamp = lost.timestamp.wrapping_add(160);
    lost.sequence = lost.sequence.wrapping_add(1);
    lost.next_at = lost.next_at.map(|at| at + Duration::from_millis(20));
    call.bench.run(200);
    tape.read();
    let concealed: Vec<_> =
        (0..tape.marks.len()).filter(|&n| tape.marks[n].concealed[0] || tape.marks[n].gap[0]).collect();
    let hole: Vec<_> = concealed.into_iter().filter(|&frame| frame > 5).collect();
    assert_eq!(hole.len(), 3, "20 ms are missing, and the next frame is faded into: {hole:?}");
    assert!(hole.iter().all(|&frame| tape.marks[frame].concealed[0] && !tape.marks[frame].gap[0]));
    check_voice(&tape.samples[0][..hole[0] * 80], Pcmu);
    check_voice(&tape.samples[0][(hole[2] + 1) * 80..], Pcmu);
    assert!(tape.marks.iter().all(|marks| marks.gap[1] && !marks.concealed[1]), "the called says nothing");
    assert!(tape.samples[1].iter().all(|&sample| sample == 0));
}

#[test]
fn it_ends_with_the_call_and_what_else_runs_goes_on() {
    for (on, end) in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)] {
        let mut call = Call::new();
        call.talk();
        call.bench.run(55);
        let own: Vec<_> = call.ids.map(|id| call.bench.record(Target::Connection(id), None).1).into_iter().collect();
        call.bench.run(103);
        let mut tape = call.record(on);
        call.bench.run(300);
        match end {
            0 => drop(call.bench.effect(Command::StopRelay { a: call.ids[1] })),
            1 => drop(call.bench.effect(Command::DeleteConnection { id: call.ids[1 - on] })),
            _ => drop(call.bench.effect(Command::DeleteConnection { id: call.ids[on] })),
        }
        let ended: Vec<_> = call
            .bench
            .events
            .iter()
            .filter_map(|event| match event {
                Event::OperationEnded { id, condition, elapsed_ms, .. } if *id == tape.id => {
                    Some((*condition, *elapsed_ms))
                }
                _ => None,
            })
            .collect();
        assert!(matches!(ended[..], [(Condition::AutoStop, 290..=300)]), "{ended:?}");
        assert!(tape.queue.finished.load(std::sync::atomic::Ordering::Acquire));
        call.bench.run(200);
        tape.read();
        assert!((290 * 8..=300 * 8).contains(&tape.samples[0].len()));
        let lens: Vec<_> = own
            .iter()
            .zip([Pcmu, Pcma])
            .map(|(queue, codec)| {
                let samples = recorded(queue);
                check_voice(&samples, codec);
                samples.len() / 8
            })
            .collect();
        let gone = match end {
            0 => None,
            1 => Some(1 - on),
            _ => Some(on),
        };
        for (side, &ms) in lens.iter().enumerate() {
            let expected = if gone == Some(side) { 380..=415 } else { 580..=615 };
            assert!(expected.contains(&ms), "side {side}: {ms} ms of {lens:?}");
        }
    }
}

#[test]
fn a_stop_condition_ends_it_and_another_can_begin() {
    let mut call = Call::new();
    call.talk();
    let (spec, queue) = call.spec(StopConditions::after(Some(100)));
    call.bench.start(Target::Connection(call.ids[0]), spec);
    call.bench.run(200);
    let lens: usize = std::iter::from_fn(|| queue.chunks.pop()).map(|chunk| chunk.chunk.as_slice().len() / 2).sum();
    assert_eq!(lens, 800);
    assert_eq!(call.bench.engine.poll_timeout(), None);
    let mut tape = call.record(1);
    call.bench.run(100);
    tape.read();
    check_voice(&tape.samples[0], Pcmu);
    check_voice(&tape.samples[1], Pcma);
}

#[test]
fn a_clock_that_stood_still_leaves_a_gap_of_its_length() {
    let mut call = Call::new();
    let tape = call.record(0);
    call.bench.run(100);
    while tape.queue.chunks.pop().is_some() {}
    call.bench.now = call.bench.now + Duration::from_millis(2000);
    call.bench.catch_up();
    call.bench.run(100);
    let positions: Vec<_> = std::iter::from_fn(|| tape.queue.chunks.pop()).map(|chunk| chunk.position).collect();
    let lost = tape.queue.lost_samples.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1980 * 8..=2000 * 8).contains(&lost), "{lost}");
    assert_eq!(positions[1] - positions[0], 80 + lost);
    let end = *positions.last().unwrap() + 80;
    assert!((2190 * 8..=2200 * 8).contains(&end), "the file is as long as the call was: {end}");
}

#[test]
fn what_can_not_be_recorded_or_muted_is_refused_and_changes_nothing() {
    let mut call = Call::new();
    let (caller, called) = (call.ids[0], call.ids[1]);
    let third = call.bench.phone(Pcmu, 20);
    let until = StopConditions::default();
    let spec =
        |caller, called| OperationSpec::RecordCall { queue: Arc::new(RecordQueue::new(8)), caller, called, until };
    assert_eq!(call.refused(0, spec(caller, third)), CommandError::NotAParticipant(third));
    assert_eq!(call.refused(0, spec(caller, caller)), CommandError::NotAParticipant(caller));
    assert_eq!(call.refused(0, spec(third, called)), CommandError::NotAParticipant(caller));
    let room = call.bench.room();
    let id = call.bench.operation_id();
    let operation = Box::new(spec(caller, called));
    let on_room = Command::StartOperation { id, target: Target::Conference(room), operation };
    assert_eq!(call.bench.call(on_room).unwrap_err(), CommandError::Unsupported);
    assert_eq!(call.bench.engine.poll_timeout(), None, "nothing runs");

    let mute = |connection, operation| Command::MuteRecording { connection, operation, caller: true, called: true };
    assert_eq!(call.bench.call(mute(caller, id)).unwrap_err(), CommandError::UnknownOperation(id));
    let (mono, _) = call.bench.record(Target::Connection(caller), None);
    assert_eq!(call.bench.call(mute(caller, mono)).unwrap_err(), CommandError::Unsupported);
    let tape = call.record(0);
    assert_eq!(call.bench.call(mute(called, tape.id)).unwrap_err(), CommandError::UnknownOperation(tape.id));
    for on in [0, 1] {
        let again = call.spec(until).0;
        assert_eq!(call.refused(on, again), CommandError::Busy);
    }
    call.stop(&tape);
    assert_eq!(call.bench.call(mute(caller, tape.id)).unwrap_err(), CommandError::UnknownOperation(tape.id));
    assert!(matches!(call.bench.call(Command::StopRelay { a: caller }), Ok(Answer::Effect(_))));
    assert_eq!(call.refused(0, spec(caller, called)), CommandError::NotAParticipant(caller));

    let undecodable = [call.bench.phone(G729, 20), call.bench.phone(G729, 20)];
    call.bench.relay(undecodable[0], undecodable[1]);
    call.ids = undecodable;
    let spec = call.spec(until).0;
    assert_eq!(call.refused(0, spec), CommandError::UnsupportedCodec);
}
