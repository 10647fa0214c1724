//! Who hears whom: parties, monitors, coach and pupil. Every voice is a constant, so every sum is exact.

use ringbridge_media::command::{CodecKind, Command, ParticipantChange, ParticipantSpec, Role, Target};
use ringbridge_media::event::{CommandError, Condition, Effect, EndReason, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId};

use crate::bench::{Bench, Voice, check_stream, decode, recorded, stamp};
use CodecKind::{Pcma, Pcmu};
use Role::{Coach, Monitor, Party, Pupil};

/// What each phone says, apart enough for any sum to tell who is in it.
const VOICES: [i16; 6] = [300, 700, 1_500, 3_100, 6_300, 12_700];

fn as_role(role: Role) -> ParticipantSpec {
    ParticipantSpec { role, ..ParticipantSpec::default() }
}

fn to_role(role: Role) -> ParticipantChange {
    ParticipantChange { role: Some(role), ..ParticipantChange::default() }
}

/// A sample as it comes through a codec.
fn through(codec: CodecKind, sample: i16) -> i16 {
    let mut payload = [0];
    if codec == Pcma {
        ringbridge_codec::g711::encode_alaw(&[sample], &mut payload);
    } else {
        ringbridge_codec::g711::encode_ulaw(&[sample], &mut payload);
    }
    decode(&payload, codec)[0]
}

struct Scene {
    bench: Bench,
    room: ConferenceId,
    ids: Vec<ConnectionId>,
}

impl Scene {
    /// A room of talkers with these roles; codecs and packet times differ.
    fn new(roles: &[Role]) -> Self {
        let mut bench = Bench::new();
        let room = bench.room();
        let kinds = [(Pcmu, 20), (Pcma, 10), (Pcmu, 30), (Pcma, 20), (Pcmu, 20), (Pcmu, 10)];
        let mut ids = Vec::new();
        for (n, (&role, (codec, ptime_ms))) in roles.iter().zip(kinds).enumerate() {
            ids.push(bench.phone(codec, ptime_ms));
            bench.join_as(room, ids[n], as_role(role));
            bench.say(n, Voice::Constant(VOICES[n]), n as u64);
        }
        Self { bench, room, ids }
    }

    /// Lets it run, and expects everybody to hear exactly those named.
    fn expect(&mut self, what: &str, heard: &[&[usize]]) {
        self.bench.run(300);
        for (listener, speakers) in heard.iter().enumerate() {
            let codec = self.bench.phones[listener].codec;
            let sum: i16 =
                speakers.iter().map(|&speaker| through(self.bench.phones[speaker].codec, VOICES[speaker])).sum();
            let packets = self.bench.heard_by(listener as u32);
            let samples: Vec<i16> = packets.iter().flat_map(|packet| decode(&packet.payload, codec)).collect();
            let expected = through(codec, sum);
            let last = &samples[samples.len() - 800..];
            assert!(
                last.iter().all(|&sample| sample == expected),
                "{what}: {listener} should hear {speakers:?}, {expected}, but hears {} .. {}",
                last[0],
                last[799]
            );
            check_stream(&packets);
        }
    }

    fn set(&mut self, who: usize, change: ParticipantChange) -> Effect {
        self.bench.set(self.room, self.ids[who], change)
    }

    fn refused(&mut self, who: usize, change: ParticipantChange) {
        let (conference, connection) = (self.room, self.ids[who]);
        let before = self.bench.room_status(conference).participants;
        let error = self.bench.call(Command::SetParticipant { conference, connection, change }).unwrap_err();
        assert_eq!(error, CommandError::RoleConflict(connection), "{change:?}");
        let after = self.bench.room_status(conference).participants;
        assert_eq!(before, after, "{change:?}: a change that is refused changes nothing");
    }

    fn roles(&mut self) -> Vec<Role> {
        self.bench.room_status(self.room).participants.iter().map(|member| member.role).collect()
    }

    /// The listeners an effect names, and the speakers whose voice it is about.
    fn named(&self, effect: &Effect) -> (Vec<usize>, Vec<usize>) {
        let side = |outgoing| {
            (0..self.ids.len()).filter(move |&n| {
                effect.streams.iter().any(|stamp| stamp.connection == self.ids[n] && stamp.outgoing == outgoing)
            })
        };
        (side(true).collect(), side(false).collect())
    }
}

#[test]
fn everybody_hears_what_his_role_lets_him_hear() {
    let mut scene = Scene::new(&[Party, Party, Pupil, Coach, Monitor, Party]);
    let all: [&[usize]; 6] = [&[1, 2, 5], &[0, 2, 5], &[0, 1, 5, 3], &[0, 1, 2, 5], &[0, 1, 2, 5], &[0, 1, 2]];
    scene.expect("all talk", &all);
    let quiet = ParticipantChange { muted: Some(true), ..ParticipantChange::default() };
    scene.set(5, quiet);
    scene.expect("one is muted", &[&[1, 2], &[0, 2], &[0, 1, 3], &[0, 1, 2], &[0, 1, 2], &[0, 1, 2]]);
    // The coach alone, to a pupil who talks and to one who does not.
    for n in [0, 1] {
        scene.bench.hush(n);
    }
    scene.expect("a quiet room", &[&[2], &[2], &[3], &[2], &[2], &[2]]);
    scene.bench.hush(2);
    scene.expect("the coach alone", &[&[], &[], &[3], &[], &[], &[]]);
    scene.bench.hush(3);
    scene.expect("nobody", &[&[], &[], &[], &[], &[], &[]]);
}

#[test]
fn gain_and_deafness_hold_for_every_role() {
    let mut scene = Scene::new(&[Party, Party, Pupil, Coach]);
    let deaf = ParticipantChange { deaf: Some(true), ..ParticipantChange::default() };
    scene.set(2, deaf);
    scene.expect("a deaf pupil", &[&[1, 2], &[0, 2], &[], &[0, 1, 2]]);
    scene.set(2, ParticipantChange { deaf: Some(false), ..deaf });
    let effect = scene.set(3, ParticipantChange { gain_db: Some(-60), ..ParticipantChange::default() });
    assert_eq!(scene.named(&effect), (vec![2], vec![3]), "a coach's gain is the pupil's affair");
    scene.bench.run(300);
    let packets = scene.bench.heard_by(2);
    let last = decode(&packets.last().unwrap().payload, Pcmu)[0];
    let coach = (i32::from(through(Pcma, VOICES[3])) * 4 + 2_048) >> 12;
    let sum = i32::from(through(Pcmu, VOICES[0])) + i32::from(through(Pcma, VOICES[1])) + coach;
    assert_eq!(last, through(Pcmu, sum as i16));
}

#[test]
fn listeners_of_the_same_mix_are_sent_the_same_bytes() {
    let mut scene = Scene::new(&[Party, Party, Coach, Monitor, Monitor, Party]);
    for n in [2, 5] {
        scene.bench.hush(n);
    }
    scene.bench.run(400);
    // Those with µ-law: the coach, a monitor and a party that is silent.
    let last = |slot: u32| -> Vec<u8> {
        let packets = scene.bench.heard_by(slot);
        packets.iter().flat_map(|packet| packet.payload.clone()).skip(800).take(1_600).collect()
    };
    assert_eq!(last(2), last(4));
    assert_eq!(last(2), last(5));
}

#[test]
fn coach_and_pupil_move_and_nobody_is_both() {
    let mut scene = Scene::new(&[Party, Party, Pupil, Coach]);
    scene.expect("at first", &[&[1, 2], &[0, 2], &[0, 1, 3], &[0, 1, 2]]);
    scene.set(0, to_role(Coach));
    assert_eq!(scene.roles(), [Coach, Party, Pupil, Party]);
    scene.expect("another coach", &[&[1, 2, 3], &[2, 3], &[0, 1, 3], &[1, 2]]);
    scene.set(1, to_role(Pupil));
    assert_eq!(scene.roles(), [Coach, Pupil, Party, Party]);
    scene.expect("another pupil", &[&[1, 2, 3], &[0, 2, 3], &[1, 3], &[1, 2]]);
    scene.set(0, to_role(Pupil));
    assert_eq!(scene.roles(), [Pupil, Party, Party, Party]);
    scene.expect("a coach turns pupil", &[&[1, 2, 3], &[0, 2, 3], &[0, 1, 3], &[0, 1, 2]]);
    scene.set(0, to_role(Coach));
    scene.expect("and coach again, of nobody", &[&[1, 2, 3], &[2, 3], &[1, 3], &[1, 2]]);
    scene.set(0, to_role(Party));
    assert_eq!(scene.roles(), [Party; 4]);
    scene.expect("all parties", &[&[1, 2, 3], &[0, 2, 3], &[0, 1, 3], &[0, 1, 2]]);
    // Whoever joins with a role takes it too, and whoever leaves leaves it.
    scene.set(3, to_role(Coach));
    scene.set(2, to_role(Pupil));
    let late = scene.bench.phone(Pcmu, 20);
    scene.bench.join_as(scene.room, late, as_role(Coach));
    assert_eq!(scene.roles(), [Party, Party, Pupil, Party, Coach]);
    scene.bench.effect(Command::LeaveConference { conference: scene.room, connection: scene.ids[2] });
    scene.bench.join(scene.room, scene.ids[2]);
    assert_eq!(scene.roles(), [Party, Party, Party, Coach, Party]);
    scene.expect("a pupil came back as a party", &[&[1, 2, 3], &[0, 2, 3], &[0, 1, 3], &[0, 1, 2], &[0, 1, 2, 3]]);
}

#[test]
fn a_change_is_made_as_a_whole_or_not_at_all() {
    let mut scene = Scene::new(&[Party, Pupil, Coach, Monitor]);
    let none = ParticipantChange::default();
    let (mute, unmute) = (Some(true), Some(false));
    for who in [1, 2] {
        scene.refused(who, ParticipantChange { muted: mute, ..none });
        scene.refused(who, ParticipantChange { muted: mute, deaf: Some(true), gain_db: Some(3), ..none });
        // In the order mute, tariff tone, role: it is still muted as what it was.
        scene.refused(who, ParticipantChange { muted: mute, role: Some(Party), ..none });
        scene.set(who, ParticipantChange { muted: unmute, ..none });
    }
    scene.refused(2, ParticipantChange { tariff_tone: Some(true), deaf: Some(true), ..none });
    scene.refused(2, ParticipantChange { tariff_tone: Some(true), role: Some(Party), ..none });
    scene.refused(0, ParticipantChange { tariff_tone: Some(true), role: Some(Coach), ..none });
    scene.refused(0, ParticipantChange { muted: mute, role: Some(Pupil), ..none });
    scene.refused(0, ParticipantChange { deaf: Some(true), role: Some(Monitor), ..none });
    for role in [Party, Coach, Pupil] {
        scene.refused(3, ParticipantChange { deaf: Some(true), role: Some(role), ..none });
    }
    assert_eq!(scene.roles(), [Party, Pupil, Coach, Monitor]);

    scene.set(0, ParticipantChange { muted: mute, tariff_tone: Some(true), ..none });
    scene.refused(0, to_role(Coach));
    scene.refused(0, to_role(Pupil));
    scene.refused(0, ParticipantChange { muted: unmute, role: Some(Coach), ..none });
    scene.set(0, ParticipantChange { muted: unmute, role: Some(Pupil), ..none });
    scene.set(0, ParticipantChange { tariff_tone: Some(false), role: Some(Coach), ..none });
    scene.set(3, ParticipantChange { role: Some(Monitor), tariff_tone: Some(true), ..none });
    assert_eq!(scene.roles(), [Coach, Party, Party, Monitor]);
    let status = scene.bench.room_status(scene.room);
    let tones: Vec<_> = status.participants.iter().map(|member| (member.muted, member.tariff_tone)).collect();
    assert_eq!(tones, [(false, false), (false, false), (false, false), (false, true)]);
}

#[test]
fn a_role_that_does_not_go_with_the_rest_does_not_join() {
    let mut scene = Scene::new(&[Party, Coach]);
    let (conference, connection) = (scene.room, scene.bench.phone(Pcmu, 20));
    let spec = ParticipantSpec::default();
    for participant in [
        ParticipantSpec { role: Coach, muted: true, ..spec },
        ParticipantSpec { role: Pupil, muted: true, ..spec },
        ParticipantSpec { role: Coach, tariff_tone: true, ..spec },
    ] {
        let error = scene.bench.call(Command::JoinConference { conference, connection, participant }).unwrap_err();
        assert_eq!(error, CommandError::RoleConflict(connection));
    }
    assert_eq!(scene.roles(), [Party, Coach]);
    scene.bench.join_as(conference, connection, ParticipantSpec { role: Pupil, tariff_tone: true, ..spec });
    assert_eq!(scene.roles(), [Party, Coach, Pupil]);
}

#[test]
fn a_monitor_is_not_decoded_and_does_not_talk() {
    let mut scene = Scene::new(&[Party, Party, Monitor]);
    scene.expect("it listens", &[&[1], &[0], &[0, 1]]);
    for member in 0..3 {
        scene.bench.phones[member].voice = Voice::Constant(4_000);
    }
    scene.bench.run(200);
    for (phone, voice) in scene.bench.phones.iter_mut().zip(VOICES) {
        phone.voice = Voice::Constant(voice);
    }
    let mut talkers: Vec<_> = scene
        .bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::TalkStarted { connection, .. } => Some(*connection),
            _ => None,
        })
        .collect();
    talkers.sort_unstable_by_key(|talker| talker.slot());
    assert_eq!(talkers, scene.ids[..2]);
    // What it sends is taken in, whatever it is, and goes nowhere.
    let status = scene.bench.status(scene.ids[2]);
    assert!(status.counters.packets_in > 8 && status.counters.drops == 0);
    assert_eq!((status.level_db, status.counters.concealed_samples), (None, 0));
    // To mute it changes nothing.
    for muted in [true, false] {
        let effect = scene.set(2, ParticipantChange { muted: Some(muted), ..ParticipantChange::default() });
        assert_eq!(effect.streams, []);
        assert!(!scene.bench.room_status(scene.room).participants[2].muted);
    }
    let muted = ParticipantSpec { muted: true, ..as_role(Monitor) };
    let late = scene.bench.phone(Pcmu, 20);
    assert_eq!(scene.bench.join_as(scene.room, late, muted).streams.len(), 1, "nobody else hears a change");
    assert!(!scene.bench.room_status(scene.room).participants[3].muted);
    scene.expect("it still listens", &[&[1], &[0], &[0, 1], &[0, 1]]);
}

#[test]
fn a_monitor_can_be_recorded_and_played_to() {
    let mut scene = Scene::new(&[Party, Party, Monitor]);
    let target = Target::Connection(scene.ids[2]);
    for _ in 0..2 {
        scene.bench.run(2_000);
        let (_, queue) = scene.bench.record(target, Some(500));
        scene.bench.run(600);
        let samples = recorded(&queue);
        let own = through(Pcmu, VOICES[2]);
        assert_eq!(samples.len(), 4_000);
        // Its jitter buffer fills first, and nothing of long ago is in it.
        let begin = samples.iter().position(|&sample| sample != 0).unwrap();
        assert!(begin < 800 && samples[begin..].iter().all(|&sample| sample == own), "from {begin} on");
    }
    scene.bench.play(target, vec![through(Pcmu, 9_000); 1_600]);
    scene.bench.run(150);
    let last = scene.bench.heard_by(2).last().unwrap().payload.clone();
    assert!(decode(&last, Pcmu).iter().all(|&sample| sample == through(Pcmu, 9_000)));
    scene.expect("and then it listens again", &[&[1], &[0], &[0, 1]]);
}

#[test]
fn a_coach_is_not_in_a_recording_of_the_conference() {
    let mut scene = Scene::new(&[Party, Pupil, Coach]);
    scene.bench.run(300);
    let (_, queue) = scene.bench.record(Target::Conference(scene.room), Some(200));
    scene.bench.run(300);
    let sum = through(Pcmu, VOICES[0]) + through(Pcma, VOICES[1]);
    let samples = recorded(&queue);
    assert_eq!(samples.len(), 1_600);
    assert!(samples.iter().all(|&sample| sample == sum));
}

#[test]
fn monitors_alone_do_not_keep_a_conference() {
    for delete in [false, true] {
        let mut scene = Scene::new(&[Monitor, Party, Party, Monitor]);
        let queue = scene.bench.record(Target::Conference(scene.room), None);
        scene.bench.run(300);
        let conference = scene.room;
        let leave = |connection| {
            if delete {
                Command::DeleteConnection { id: connection }
            } else {
                Command::LeaveConference { conference, connection }
            }
        };
        scene.bench.effect(leave(scene.ids[1]));
        assert_eq!(scene.roles(), [Monitor, Party, Monitor]);
        scene.bench.run(100);
        let effect = scene.bench.effect(leave(scene.ids[2]));
        let ended = scene.bench.count(
            |event| matches!(event, Event::ConferenceEnded { id, reason: EndReason::LastLeft } if *id == conference),
        );
        assert_eq!(ended, 1);
        assert_eq!(scene.bench.ended()[0], (queue.0, Condition::AutoStop, 400));
        assert_eq!(
            scene.bench.call(Command::InspectConference { id: conference }).unwrap_err(),
            CommandError::UnknownConference(conference)
        );
        // The monitors' streams end where the answer says, and they can go elsewhere.
        let other = scene.bench.room();
        for monitor in [0, 3] {
            let stamp = stamp(&effect, scene.ids[monitor], true);
            let last = scene.bench.heard_by(monitor as u32).pop().unwrap();
            let end = last.header.timestamp.wrapping_add(last.payload.len() as u32);
            assert_eq!((stamp.rtp_timestamp, stamp.sequence), (end.0, Some(last.header.sequence_number.next().0)));
            scene.bench.join(other, scene.ids[monitor]);
        }
        assert_eq!(scene.bench.room_status(other).participants.len(), 2);
    }
}

#[test]
fn monitors_may_come_first_and_go_last() {
    let mut scene = Scene::new(&[Monitor, Monitor]);
    let leave = |scene: &mut Scene, who: usize| {
        let (conference, connection) = (scene.room, scene.ids[who]);
        scene.bench.effect(Command::LeaveConference { conference, connection })
    };
    scene.expect("nobody to hear", &[&[], &[]]);
    leave(&mut scene, 0);
    assert_eq!(scene.roles(), [Monitor], "nobody has left whom it waits for");
    leave(&mut scene, 1);
    assert_eq!(scene.bench.engine.totals().conferences, 0);
}

#[test]
fn the_last_party_may_be_the_coach() {
    let mut scene = Scene::new(&[Party, Coach, Monitor]);
    let (conference, connection) = (scene.room, scene.ids[0]);
    scene.bench.effect(Command::LeaveConference { conference, connection });
    assert_eq!(scene.roles(), [Coach, Monitor]);
    scene.bench.effect(Command::DeleteConnection { id: scene.ids[1] });
    assert_eq!(scene.bench.engine.totals().conferences, 0);
}

#[test]
fn an_effect_names_those_who_hear_a_difference() {
    let mut scene = Scene::new(&[Party, Party, Party, Party, Monitor]);
    scene.bench.run(300);
    let first_others = |n: usize| -> Vec<usize> { (0..5).filter(|&listener| listener != n).collect() };
    let named = |scene: &Scene, effect: &Effect| scene.named(effect);
    // A coach without a pupil is heard by nobody any more.
    let effect = scene.set(3, to_role(Coach));
    assert_eq!(named(&scene, &effect), (first_others(3), vec![3]));
    // Whoever becomes his pupil hears him, and is heard as before.
    let effect = scene.set(2, to_role(Pupil));
    assert_eq!(named(&scene, &effect), (vec![2], vec![2]));
    // The pupil moves: the new one hears the coach, the old one does not.
    let effect = scene.set(1, to_role(Pupil));
    assert_eq!(named(&scene, &effect), (vec![1, 2], vec![1]));
    // The coach moves: all but the pupil hear the old one again, and no longer the new one.
    let effect = scene.set(0, to_role(Coach));
    assert_eq!(named(&scene, &effect), (vec![0, 2, 3, 4], vec![0, 3]));
    // The coach talks to the pupil alone, so that his leave is.
    let (conference, connection) = (scene.room, scene.ids[0]);
    let effect = scene.bench.effect(Command::LeaveConference { conference, connection });
    assert_eq!(named(&scene, &effect), (vec![0, 1], vec![]));
    let effect = scene.bench.join_as(conference, connection, as_role(Coach));
    assert_eq!(named(&scene, &effect), (vec![0, 1], vec![]));
    // Nothing changes.
    let effect = scene.set(0, to_role(Coach));
    assert_eq!(named(&scene, &effect), (vec![], vec![]));
    let effect = scene.bench.effect(Command::LeaveConference { conference, connection: scene.ids[4] });
    assert_eq!(named(&scene, &effect), (vec![4], vec![]));
}

#[test]
fn a_role_takes_effect_at_the_sample_that_is_named() {
    for late in 0..20 {
        let mut scene = Scene::new(&[Party, Party, Pupil]);
        scene.bench.run(300 + late);
        let effect = scene.set(0, to_role(Coach));
        scene.bench.run(300);
        assert!(!scene.named(&effect).0.contains(&2), "the pupil hears the coach as he heard the party");
        let stamp = stamp(&effect, scene.ids[1], true);
        let both = through(Pcma, through(Pcmu, VOICES[0]) + through(Pcmu, VOICES[2]));
        let alone = through(Pcma, through(Pcmu, VOICES[2]));
        let mut checked = 0;
        for packet in scene.bench.heard_by(1).iter().skip(15) {
            for (n, sample) in decode(&packet.payload, Pcma).into_iter().enumerate() {
                let at = packet.header.timestamp.wrapping_add(n as u32).0.wrapping_sub(stamp.rtp_timestamp);
                let expected = if at.cast_signed() < 0 { both } else { alone };
                assert_eq!(sample, expected, "{at} samples after the stamp");
                checked += 1;
            }
        }
        assert!(checked > 3_000);
    }
}
