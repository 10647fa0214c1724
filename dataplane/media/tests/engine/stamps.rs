//! Effect stamps, to the sample: from the stamp on the change is there, and not one sample before.

use ringbridge_media::command::{
    CodecKind, Command, OperationSpec, ParticipantChange, ParticipantSpec, StopConditions, Target,
};
use ringbridge_media::event::{Effect, EffectClock, StreamStamp};
use ringbridge_media::id::ConnectionId;

use crate::bench::{Bench, Voice, bytes_by_timestamp, decode, play, recorded, stair, stamp};
use CodecKind::{Pcma, Pcmu};

const LISTENERS: [(CodecKind, u32); 5] = [(Pcmu, 10), (Pcmu, 20), (Pcma, 30), (Pcma, 40), (Pcmu, 60)];
const LOUD: i16 = 8_031;

/// A room whose first member talks and whose others listen, each with another packet time.
struct Scene {
    bench: Bench,
    room: ringbridge_media::id::ConferenceId,
    ids: Vec<ConnectionId>,
}

impl Scene {
    fn new(voice: Voice, ms: u64) -> Self {
        let mut bench = Bench::new();
        let mut members = vec![(Pcmu, 20)];
        members.extend(LISTENERS);
        let (room, ids) = bench.room_of(&members);
        bench.say(0, voice, 0);
        bench.run(300 + ms);
        Self { bench, room, ids }
    }

    fn set(&mut self, who: usize, change: ParticipantChange) -> Effect {
        self.bench.set(self.room, self.ids[who], change)
    }

    /// Expects every listener's stream to change from `before` to `after` exactly at its stamp.
    fn check(&self, effect: &Effect, before: fn(i16) -> bool, after: fn(i16) -> bool) {
        for listener in 1..self.ids.len() {
            self.check_one(effect, listener, before, after);
        }
    }

    fn check_one(&self, effect: &Effect, listener: usize, before: fn(i16) -> bool, after: fn(i16) -> bool) {
        let codec = if listener == 0 { Pcmu } else { LISTENERS[listener - 1].0 };
        let stamp = stamp(effect, self.ids[listener], true);
        let (old, new) = split(&self.bench, listener as u32, codec, &stamp);
        assert!(old.len() > 800 && new.len() > 800, "{} before, {} after", old.len(), new.len());
        assert!(old[old.len() - 480..].iter().all(|&sample| before(sample)), "listener {listener}: too early");
        assert!(new.iter().all(|&sample| after(sample)), "listener {listener}: too late");
    }
}

/// The samples of a stream before and from its stamp on. Where a packet holds the stamp its number is the stamp's.
fn split(bench: &Bench, slot: u32, codec: CodecKind, stamp: &StreamStamp) -> (Vec<i16>, Vec<i16>) {
    let packets = bench.heard_by(slot);
    assert_eq!(packets[0].header.ssrc.0, stamp.ssrc);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (timestamp, sequence, byte) in bytes_by_timestamp(&packets) {
        if timestamp.0 == stamp.rtp_timestamp {
            assert_eq!(Some(sequence.0), stamp.sequence, "the number of the packet that holds the stamp");
        }
        let side =
            if timestamp.0.wrapping_sub(stamp.rtp_timestamp).cast_signed() < 0 { &mut before } else { &mut after };
        side.push(byte);
    }
    (decode(&before, codec), decode(&after, codec))
}

fn loud(sample: i16) -> bool {
    (7_500..8_600).contains(&sample)
}

fn silent(sample: i16) -> bool {
    sample.abs() <= 8
}

fn half(sample: i16) -> bool {
    (3_700..4_400).contains(&sample)
}

#[test]
fn mute_unmute_and_gain() {
    let change = ParticipantChange::default();
    for ms in 0..60 {
        let mut scene = Scene::new(Voice::Constant(LOUD), ms);
        let muted = scene.set(0, ParticipantChange { muted: Some(true), ..change });
        assert_eq!((muted.clock, muted.streams.len()), (EffectClock::Conference, 1 + LISTENERS.len()));
        scene.bench.run(307);
        scene.check(&muted, loud, silent);

        scene.bench.sent.clear();
        scene.bench.run(200);
        let unmuted = scene.set(0, ParticipantChange { muted: Some(false), ..change });
        scene.bench.run(307);
        scene.check(&unmuted, silent, loud);

        scene.bench.sent.clear();
        scene.bench.run(200);
        let quieter = scene.set(0, ParticipantChange { gain_db: Some(-6), ..change });
        scene.bench.run(307);
        scene.check(&quieter, loud, half);
    }
}

#[test]
fn a_mute_names_the_first_incoming_sample_that_is_not_heard() {
    for ms in 0..40 {
        let mut scene = Scene::new(Voice::Stairs, ms);
        let muted = scene.set(0, ParticipantChange { muted: Some(true), ..ParticipantChange::default() });
        let incoming = stamp(&muted, scene.ids[0], false);
        assert_eq!(incoming.ssrc, scene.bench.phones[0].ssrc);
        scene.bench.run(100);
        let outgoing = stamp(&muted, scene.ids[1], true);
        let bytes = bytes_by_timestamp(&scene.bench.heard_by(1));
        let last = bytes.iter().rfind(|(timestamp, ..)| timestamp.0 == outgoing.rtp_timestamp.wrapping_sub(1)).unwrap();
        assert_eq!(last.2, stair(incoming.rtp_timestamp.wrapping_sub(1)), "after {ms} ms");
    }
}

#[test]
fn deaf_and_hearing_again() {
    let change = ParticipantChange::default();
    for ms in 0..60 {
        for listener in 1..=LISTENERS.len() {
            let mut scene = Scene::new(Voice::Constant(LOUD), ms);
            let deaf = scene.set(listener, ParticipantChange { deaf: Some(true), ..change });
            assert_eq!(deaf.streams.len(), 1);
            scene.bench.run(307);
            scene.check_one(&deaf, listener, loud, silent);
            scene.bench.sent.clear();
            scene.bench.run(200);
            let hears = scene.set(listener, ParticipantChange { deaf: Some(false), ..change });
            scene.bench.run(307);
            scene.check_one(&hears, listener, silent, loud);
            if ms % 7 != 0 {
                break;
            }
        }
    }
}

#[test]
fn leave_and_delete_of_the_one_who_talks() {
    for ms in 0..60 {
        for delete in [false, true] {
            let mut scene = Scene::new(Voice::Constant(LOUD), ms);
            let (room, id) = (scene.room, scene.ids[0]);
            let effect = scene.bench.effect(if delete {
                Command::DeleteConnection { id }
            } else {
                Command::LeaveConference { conference: room, connection: id }
            });
            scene.bench.hush(0);
            scene.bench.run(307);
            scene.check(&effect, loud, silent);
            // His own stream stops before the stamp.
            let own = stamp(&effect, id, true);
            let (before, after) = split(&scene.bench, 0, Pcmu, &own);
            assert!(before.len() > 800 && after.is_empty(), "{} samples after the end", after.len());
            let last = scene.bench.heard_by(0).pop().unwrap().header;
            assert_eq!(
                (last.timestamp.0.wrapping_add(160), last.sequence_number.0.wrapping_add(1)),
                (own.rtp_timestamp, own.sequence.unwrap())
            );
            if delete {
                assert_eq!(stamp(&effect, id, false).ssrc, scene.bench.phones[0].ssrc);
            }
        }
    }
}

#[test]
fn leave_of_the_last_but_one_ends_the_others_stream_with_what_he_said() {
    for ms in 0..60 {
        for (codec, ptime_ms) in LISTENERS {
            let mut bench = Bench::new();
            let (room, ids) = bench.room_of(&[(Pcmu, 20), (codec, ptime_ms)]);
            bench.say(0, Voice::Constant(LOUD), 0);
            bench.run(300 + ms);
            let effect = bench.effect(Command::LeaveConference { conference: room, connection: ids[0] });
            bench.run(100);
            let stamp = stamp(&effect, ids[1], true);
            let (before, after) = split(&bench, 1, codec, &stamp);
            assert!(before[before.len() - 480..].iter().all(|&sample| loud(sample)));
            assert!(after.len() < 8 * ptime_ms as usize && after.iter().all(|&sample| silent(sample)));
            let first = bench.heard_by(1)[0].header.timestamp.0;
            assert_eq!(
                before.len() as u32,
                stamp.rtp_timestamp.wrapping_sub(first),
                "every sample before the stamp was sent"
            );
        }
    }
}

#[test]
fn delete_of_a_conference_names_the_first_timestamp_not_sent_on_every_stream() {
    for ms in 0..60 {
        for keep_connections in [false, true] {
            let mut scene = Scene::new(Voice::Constant(LOUD), ms);
            let id = scene.room;
            let effect = scene.bench.effect(Command::DeleteConference { id, keep_connections });
            let sent = scene.bench.sent.len();
            scene.bench.run(200);
            assert_eq!(scene.bench.sent.len(), sent);
            for (slot, &id) in scene.ids.iter().enumerate() {
                let stamp = stamp(&effect, id, true);
                let packets = scene.bench.heard_by(slot as u32);
                let last = packets.last().unwrap();
                assert_eq!(last.header.timestamp.0.wrapping_add(last.payload.len() as u32), stamp.rtp_timestamp);
                assert_eq!(Some(last.header.sequence_number.0.wrapping_add(1)), stamp.sequence);
            }
        }
    }
}

#[test]
fn join_of_one_who_talks_is_stamped_for_those_who_hear_him() {
    for ms in 0..30 {
        let mut scene = Scene::new(Voice::Constant(LOUD), ms);
        let newcomer = scene.bench.phone(Pcmu, 20);
        scene.bench.say(6, Voice::Constant(LOUD), 0);
        scene.bench.run(100);
        let effect = scene.bench.join(scene.room, newcomer);
        scene.bench.run(300);
        // Before the stamp nobody heard him, and he is sent nothing before his own.
        for listener in 1..=LISTENERS.len() {
            let stamp = stamp(&effect, scene.ids[listener], true);
            let (before, _) = split(&scene.bench, listener as u32, LISTENERS[listener - 1].0, &stamp);
            assert!(before[before.len() - 480..].iter().all(|&sample| loud(sample)));
        }
        let own = stamp(&effect, newcomer, true);
        let first = scene.bench.heard_by(6)[0].header;
        assert_eq!(
            (first.timestamp.0, Some(first.sequence_number.0), first.marker),
            (own.rtp_timestamp, own.sequence, true)
        );
        let muted = ParticipantSpec { muted: true, ..ParticipantSpec::default() };
        let quiet = scene.bench.phone(Pcmu, 20);
        assert_eq!(scene.bench.join_as(scene.room, quiet, muted).streams.len(), 1);
    }
}

#[test]
fn stop_of_a_prompt_to_the_room() {
    for ms in 0..60 {
        let mut scene = Scene::new(Voice::Silence, ms);
        let target = Target::Conference(scene.room);
        scene.bench.start(target, play(vec![vec![LOUD; 80_000]], None));
        scene.bench.run(200);
        let effect = scene.bench.effect(Command::StopOperation { target, operation: None });
        scene.bench.run(307);
        scene.check(&effect, loud, silent);
    }
}

#[test]
fn stop_of_a_prompt_to_one_of_the_room() {
    for ms in 0..60 {
        for listener in 1..=LISTENERS.len() {
            let mut scene = Scene::new(Voice::Silence, ms);
            let target = Target::Connection(scene.ids[listener]);
            scene.bench.start(target, play(vec![vec![LOUD; 80_000]], None));
            scene.bench.run(200);
            let effect = scene.bench.effect(Command::StopOperation { target, operation: None });
            assert_eq!(effect.streams.len(), 1);
            scene.bench.run(307);
            scene.check_one(&effect, listener, loud, silent);
            if ms % 7 != 0 {
                break;
            }
        }
    }
}

#[test]
fn stop_and_delete_of_a_prompt_to_a_connection_alone() {
    for (codec, ptime_ms) in LISTENERS {
        for ms in 0..60 {
            for delete in [false, true] {
                let mut bench = Bench::new();
                let id = bench.phone(codec, ptime_ms);
                let target = Target::Connection(id);
                bench.start(target, play(vec![vec![LOUD; 80_000]], None));
                bench.run(200 + ms);
                let effect = bench.effect(if delete {
                    Command::DeleteConnection { id }
                } else {
                    Command::StopOperation { target, operation: None }
                });
                bench.run(100);
                let stamp = stamp(&effect, id, true);
                let (before, after) = split(&bench, 0, codec, &stamp);
                assert!(before.iter().all(|&sample| loud(sample)));
                let first = bench.heard_by(0)[0].header.timestamp.0;
                assert_eq!(before.len() as u32, stamp.rtp_timestamp.wrapping_sub(first));
                if delete {
                    assert!(after.is_empty());
                } else {
                    assert!(after.len() < 8 * ptime_ms as usize && after.iter().all(|&sample| silent(sample)));
                }
            }
        }
    }
}

#[test]
fn stop_of_a_recording_names_the_first_incoming_sample_that_is_not_in_it() {
    for ms in 0..40 {
        for in_room in [false, true] {
            let mut bench = Bench::new();
            let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
            if !in_room {
                bench.call(Command::DeleteConference { id: room, keep_connections: true }).unwrap();
            }
            bench.say(0, Voice::Stairs, 0);
            let queue = std::sync::Arc::new(ringbridge_media::samples::RecordQueue::new(64));
            let target = Target::Connection(ids[0]);
            bench.start(
                target,
                OperationSpec::Record { queue: std::sync::Arc::clone(&queue), until: StopConditions::default() },
            );
            bench.run(200 + ms);
            let effect = bench.effect(Command::StopOperation { target, operation: None });
            let stamp = stamp(&effect, ids[0], false);
            let last = *recorded(&queue).last().unwrap();
            assert_eq!(last, decode(&[stair(stamp.rtp_timestamp.wrapping_sub(1))], Pcmu)[0]);
        }
    }
}

#[test]
fn times_are_told_on_the_clock_they_name() {
    let mut scene = Scene::new(Voice::Constant(LOUD), 4);
    let created = scene.bench.room_status(scene.room).media_time_ms;
    let effect = scene.set(0, ParticipantChange { muted: Some(true), ..ParticipantChange::default() });
    assert_eq!(effect.clock, EffectClock::Conference);
    assert!((effect.received_media_time_ms - created).abs() < 1e-6);
    assert_eq!(effect.media_time_ms % 10.0, 0.0, "frames begin at whole steps of the conference's clock");
    let effect = scene.bench.effect(Command::DeleteConnection { id: scene.ids[0] });
    assert_eq!((effect.clock, effect.received_media_time_ms), (EffectClock::Connection, 304.0));
}
