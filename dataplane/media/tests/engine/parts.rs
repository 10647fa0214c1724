//! A conference that is mixed in parts sounds as if it were mixed in one.

mod levels;
mod rig;

use std::sync::Arc;
use std::time::Duration;

use ringbridge_codec::{CodecKind, Rate};
use ringbridge_media::command::{
    Command, ConferenceSpec, OperationSpec, ParticipantChange, ParticipantSpec, Role, StopConditions, Target, ToneSpec,
};
use ringbridge_media::event::{Answer, CommandError, EndReason, Event};
use ringbridge_media::id::{ConferenceId, ShardId, ShardSet};
use ringbridge_media::limits::{PARTIAL_MISSES_MAX, PARTS_MAX};
use ringbridge_media::parts::Parts;
use ringbridge_media::samples::RecordQueue;
use ringbridge_media::time::Instant;

use crate::bench::{amplitude, decode, play};
use rig::{Dice, EPOCH, Fate, ROOM, Rig, START};

const PARTY: ParticipantSpec = ParticipantSpec {
    muted: false,
    deaf: false,
    gain_db: 0,
    output_gain_db: 0,
    agc: false,
    noise_suppression: false,
    role: Role::Party,
    tariff_tone: false,
};

/// A tone that is quiet enough for many to sound at once.
fn beep(hz: u16, duration_ms: u32) -> OperationSpec {
    let tone = ToneSpec { first: (hz, -30), second: None };
    OperationSpec::Tone { tone, duration_ms: Some(duration_ms), isolate: false, until: StopConditions::default() }
}

/// When everybody who is there at first has been for a while.
const SETTLED: Instant = Instant::from_millis(1_505);

/// A random life of a conference: the same for the same seed, however it is spread.
fn live(rig: &mut Rig, seed: u64, codecs: &[CodecKind]) {
    let mut dice = Dice(seed);
    let members = 7 + dice.below(6) as usize;
    for index in 0..members {
        let codec = dice.pick(codecs);
        // In every part somebody needs the past of the mix.
        let codec = if codecs.len() > 2 && index < 3 { CodecKind::L16(Rate::Wide) } else { codec };
        let ptime_ms = if dice.chance(60) { 20 } else { dice.pick(&[10, 30]) };
        // Longer packets of that would not fit into a datagram.
        rig.phone(codec, if codec == CodecKind::L16(Rate::Full) { 10 } else { ptime_ms });
    }
    rig.run_to(Instant::from_millis(1_005));
    // Some are there from the beginning, so that every part runs at the same time and knows the same past.
    let mut inside: Vec<bool> = (0..members).map(|index| index < 6).collect();
    for index in (0..members).filter(|&index| inside[index]) {
        assert!(rig.join(index, PARTY).is_ok());
        rig.run(10);
    }
    rig.run_to(SETTLED);
    for index in (0..members).filter(|&index| inside[index]) {
        rig.phones[index].says = dice.chance(70).then_some(1_000.0);
    }
    let mut operations = Vec::new();
    for _ in 0..80 {
        rig.run(10 * (1 + dice.below(6)));
        let index = dice.below(members as u64) as usize;
        match dice.below(12) {
            0 | 1 => {
                rig.phones[index].says = dice.pick(&[None, Some(0.0), Some(300.0), Some(1_000.0)]);
            }
            2 | 3 if inside[index] && index >= 6 => {
                assert!(rig.leave(index).is_ok());
                inside[index] = false;
            }
            2..=4 if !inside[index] => {
                let role = dice.pick(&[Role::Party, Role::Party, Role::Monitor, Role::Coach, Role::Pupil]);
                let muted = dice.chance(20) && role == Role::Party;
                let spec = ParticipantSpec { role, muted, deaf: dice.chance(10), ..ParticipantSpec::default() };
                assert!(rig.join(index, spec).is_ok());
                inside[index] = true;
            }
            2..=6 => {
                let change = ParticipantChange {
                    muted: dice.chance(40).then(|| dice.chance(50)),
                    deaf: dice.chance(20).then(|| dice.chance(30)),
                    gain_db: dice.chance(30).then(|| dice.pick(&[-20, 0, 6])),
                    role: dice.chance(30).then(|| dice.pick(&[Role::Party, Role::Coach, Role::Pupil])),
                    tariff_tone: dice.chance(20).then(|| dice.chance(70)),
                    ..ParticipantChange::default()
                };
                // Some of it is refused, here and there alike.
                let _ = rig.set(index, change);
            }
            7 | 8 => {
                let target = Target::Conference(ROOM);
                let samples = (0..4_000).map(|_| dice.below(2_000) as i16 - 1_000).collect();
                let spec = if dice.chance(50) { play(vec![samples], None) } else { beep(440, 500) };
                operations.extend(rig.start(target, spec).map(|id| (target, id)));
            }
            9 => {
                let target = Target::Connection(rig.phones[index].id);
                operations.extend(rig.start(target, beep(700, 300)).map(|id| (target, id)));
            }
            10 => {
                let target =
                    if dice.chance(70) { Target::Conference(ROOM) } else { Target::Connection(rig.phones[index].id) };
                let queue = Arc::new(RecordQueue::new(4_096));
                let until = StopConditions { silence_ms: Some(700), ..StopConditions::default() };
                let until = if dice.chance(50) { until } else { StopConditions::default() };
                if let Some(id) = rig.start(target, OperationSpec::Record { queue: Arc::clone(&queue), until }) {
                    operations.push((target, id));
                    rig.queues.push(queue);
                }
            }
            _ => {
                if let Some((target, id)) = operations.pop() {
                    let engine = rig.home_of(target);
                    // It may have ended.
                    let _ = rig.call(engine, Command::StopOperation { target, operation: Some(id) });
                }
            }
        }
    }
    rig.run(300);
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values
}

/// `recorded`: what was in the first one.
fn assert_same((one, recorded): (&Rig, &[Vec<i16>]), many: &Rig, what: &str) {
    for (n, (one, many)) in one.phones.iter().zip(&many.phones).enumerate() {
        let codec = one.codec;
        for (packet, (one, many)) in one.heard.iter().zip(&many.heard).enumerate() {
            // What an encoder knows of the time before its first packet depends on when its part began to mix.
            let is_same = one.at < SETTLED || one.content() == many.content();
            assert!(is_same, "{what}: packet {packet} to member {n} ({codec}) at {:?} {:?}", one.at, many.at);
        }
        assert_eq!(one.heard.len(), many.heard.len(), "{what}: packets to member {n}");
    }
    assert_eq!(one.ended(), many.ended(), "{what}: operations");
    assert!(*recorded == many.recorded(), "{what}: recordings");
    assert_eq!(sorted(one.talk()), sorted(many.talk()), "{what}: who talks");
    assert_eq!(many.totals(), (0, 0), "{what}: late and dropped");
    // What is told of a change is the same; of the streams those of the part it is in.
    assert_eq!(one.told.len(), many.told.len());
    for (call, (one_told, many_told)) in one.told.iter().zip(&many.told).enumerate() {
        assert_eq!(one_told.0, many_told.0, "{what}: media time of change {call}");
        let all: Vec<_> = one_told.1.iter().map(|stamp| one.relative(stamp)).collect();
        for stamp in &many_told.1 {
            assert!(all.contains(&many.relative(stamp)), "{what}: stamps of change {call}: {stamp:?}");
        }
    }
}

const STATELESS: [CodecKind; 4] =
    [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::L16(Rate::Wide), CodecKind::L16(Rate::Full)];

#[test]
fn parts_sound_as_one() {
    for seed in 0..24 {
        let mut dice = Dice(seed + 1_000);
        let rate = dice.pick(&[Rate::Narrow, Rate::Narrow, Rate::Wide, Rate::Full]);
        let codecs = if dice.chance(40) { &STATELESS[..2] } else { &STATELESS[..] };
        let tones = dice.chance(50);
        let mut one = Rig::new(1, rate, tones, seed);
        live(&mut one, seed, codecs);
        assert!(one.phones.iter().any(|phone| phone.heard.len() > 100));
        let recorded = one.recorded();
        for (engines, delay_ms) in [(2, 0), (3, 0), (2, 4), (3, 4)] {
            let mut many = Rig::new(engines, rate, tones, seed);
            // They overtake each other.
            many.road = Box::new(move |dice, _| Fate::After(dice.below(delay_ms + 1)));
            live(&mut many, seed, codecs);
            assert!(many.exchanged > 300);
            assert_same((&one, &recorded), &many, &format!("seed {seed}, {rate:?}, {engines} parts, {delay_ms} ms"));
        }
    }
}

/// A room of fixed members: two talkers in each part, the rest listen.
fn steady(engines: u8, rate: Rate, codecs: &[CodecKind], amplitude: f64) -> Rig {
    let mut rig = Rig::new(engines, rate, false, 5);
    for index in 0..6 * codecs.len() {
        rig.phone(codecs[index / 6], 20);
    }
    rig.run_to(Instant::from_millis(1_005));
    for index in 0..rig.phones.len() {
        assert!(rig.join(index, PARTY).is_ok());
    }
    rig.run(200);
    for index in 0..6 {
        rig.phones[index].says = (index % 3 != 2).then_some(amplitude);
    }
    rig
}

#[test]
fn codecs_with_a_memory_and_loud_mixes_sound_as_one() {
    let codecs = [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus];
    for (rate, amplitude) in [(Rate::Narrow, 2_000.0), (Rate::Wide, 20_000.0), (Rate::Full, 20_000.0)] {
        let mut one = steady(1, rate, &codecs, amplitude);
        one.run(2_000);
        for engines in [2, 3] {
            let mut many = steady(engines, rate, &codecs, amplitude);
            many.run(2_000);
            assert_same((&one, &[]), &many, &format!("{rate:?}, {engines} parts"));
        }
    }
}

/// How loud member `listener` hears member `speaker` in the last `ms`.
fn hears(rig: &Rig, listener: usize, speaker: usize, ms: u64) -> f64 {
    let since = rig.now - Duration::from_millis(ms);
    let packets = rig.phones[listener].heard.iter().filter(|heard| heard.at > since);
    let samples: Vec<i16> = packets.flat_map(|heard| decode(&heard.payload, CodecKind::Pcmu)).collect();
    amplitude(&samples, 310.0 + 70.0 * speaker as f64)
}

/// Everybody's stream goes on without a gap.
fn assert_continuous(rig: &Rig) {
    for (n, phone) in rig.phones.iter().enumerate() {
        for pair in phone.heard.windows(2) {
            assert_eq!(pair[1].timestamp - pair[0].timestamp, 160, "member {n} at {:?}", pair[1].at);
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            assert!(!pair[1].marker);
        }
    }
}

#[test]
fn a_late_part_is_left_out_and_counted() {
    let mut rig = steady(2, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
    rig.run(500);
    assert_eq!(rig.totals(), (0, 0));
    assert!(hears(&rig, 0, 1, 400) > 2_500.0 && hears(&rig, 1, 0, 400) > 2_500.0);
    // One part of three of what the second part says comes too late.
    let mut n = 0;
    rig.road = Box::new(move |_, partial| {
        n += u32::from(partial.from() == ShardId(1));
        Fate::After(if n % 3 == 0 && partial.from() == ShardId(1) { 7 } else { 0 })
    });
    rig.run(600);
    let (late, dropped) = rig.totals();
    assert_eq!(dropped, 0);
    assert!((18..=22).contains(&late), "{late}");
    assert_eq!(rig.engines[1].totals().partials_late, 0, "it is not late for itself");
    assert_continuous(&rig);
    // It is heard with holes, whoever is not late as before.
    assert!((1_400.0..2_500.0).contains(&hears(&rig, 0, 1, 500)), "{}", hears(&rig, 0, 1, 500));
    assert!(hears(&rig, 1, 0, 500) > 2_500.0);
    assert!(hears(&rig, 2, 4, 500) > 2_500.0);
    // Who waits does so for 5 ms, and no timestamp tells.
    let late_by = |heard: &rig::Heard| heard.at.saturating_since(EPOCH).as_millis() % 10;
    assert!(rig.phones[0].heard.iter().all(|heard| [0, 5].contains(&late_by(heard))));
    assert!(rig.phones[0].heard.iter().any(|heard| late_by(heard) == 5));
    assert!(rig.phones[1].heard.iter().all(|heard| late_by(heard) == 0));
    // When it is in time again all is as before.
    rig.road = Box::new(|_, _| Fate::After(4));
    rig.run(600);
    assert!(rig.totals().0 <= late + 1, "the last one was on its way");
    assert!(hears(&rig, 0, 1, 400) > 2_500.0);
    assert_continuous(&rig);
}

#[test]
fn a_part_that_is_gone_is_not_waited_for() {
    let mut rig = steady(3, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
    rig.run(500);
    rig.asleep[2] = Some(Instant::from_millis(1_000_000));
    rig.road = Box::new(|_, partial| if partial.to() == ShardId(2) { Fate::Lost } else { Fate::After(0) });
    let gone_at = rig.now;
    rig.run(500);
    assert!(hears(&rig, 0, 1, 400) > 2_500.0);
    assert!(hears(&rig, 0, 2, 300) < 50.0 && hears(&rig, 0, 5, 300) < 50.0);
    let waited = |heard: &&rig::Heard| heard.at.saturating_since(EPOCH).as_millis() % 10 == 5;
    let waits = rig.phones[0].heard.iter().filter(waited).count();
    assert!((1..=usize::from(PARTIAL_MISSES_MAX)).contains(&waits), "{waits}");
    assert!(rig.phones[0].heard.iter().rfind(waited).unwrap().at < gone_at + Duration::from_millis(100));
    // A frame without it is counted until it is known to be gone.
    let late = rig.totals().0;
    assert!((95..=105).contains(&late), "{late}");
    for engine in [0, 1] {
        assert!(rig.call(engine, Command::DropPart { conference: ROOM, shard: ShardId(2) }).is_ok());
    }
    rig.run(500);
    assert_eq!(rig.totals().0, late);
    assert_eq!(rig.totals().1, rig.engines[0].totals().partials_dropped + rig.engines[1].totals().partials_dropped);
    let (first, second) = rig.phones.split_at(2);
    assert!(first.iter().all(|phone| phone.heard.len() > 70), "{}", second.len());
}

#[test]
fn a_part_that_stood_still_is_heard_again() {
    for ms in [12, 40, 130, 290, 700] {
        let mut rig = steady(2, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
        rig.run(500);
        rig.asleep[1] = Some(rig.now + Duration::from_millis(ms));
        rig.run(ms + 300);
        let late = rig.totals().0;
        rig.run(500);
        assert_eq!(rig.totals().0, late, "after {ms} ms");
        assert!(hears(&rig, 0, 1, 400) > 2_500.0 && hears(&rig, 1, 0, 400) > 2_500.0, "after {ms} ms");
        assert!(late >= ms / 10 - 1 && late <= 2 * ms / 10 + 10, "{late} after {ms} ms");
    }
}

#[test]
fn lost_ones_and_senseless_ones_are_dropped_and_counted() {
    let mut rig = steady(2, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
    rig.run(500);
    rig.road = Box::new(|dice, partial| {
        match dice.below(10) {
            0 => return Fate::Lost,
            1 => partial.set_frame(Some(u64::MAX)),
            2 => partial.set_frame(Some(0)),
            3 => partial.set_frame(partial.frame().map(|frame| frame + dice.below(100))),
            4 => partial.set_frame(partial.frame().map(|frame| frame - dice.below(100))),
            5 => partial.set_frame(None),
            6 => partial.set_frame(Some(dice.below(u64::MAX))),
            _ => {}
        }
        Fate::After(dice.below(12))
    });
    rig.run(3_000);
    assert!(rig.totals().0 > 100 && rig.totals().1 > 50, "{:?}", rig.totals());
    assert_continuous(&rig);
    assert!(hears(&rig, 2, 4, 2_000) > 2_500.0, "who is in the same part");
    rig.road = Box::new(|_, _| Fate::After(0));
    rig.run(1_000);
    assert!(hears(&rig, 0, 1, 500) > 2_500.0 && hears(&rig, 1, 0, 500) > 2_500.0);
    assert_continuous(&rig);
}

#[test]
fn what_is_told_of_members_may_be_lost_once() {
    // Each part has one member, and neither learns of the other's when it joins.
    let mut rig = Rig::new(2, Rate::Narrow, false, 3);
    rig.phone(CodecKind::Pcmu, 20);
    rig.phone(CodecKind::Pcmu, 20);
    rig.road = Box::new(|_, _| Fate::Lost);
    for index in 0..2 {
        rig.phones[index].says = Some(3_000.0);
        assert!(rig.join(index, PARTY).is_ok());
    }
    rig.run(500);
    rig.road = Box::new(|_, _| Fate::After(0));
    rig.run(1_500);
    assert!(hears(&rig, 0, 1, 300) > 2_500.0 && hears(&rig, 1, 0, 300) > 2_500.0);
    // Whoever is alone again is sent nothing.
    assert!(rig.leave(1).is_ok());
    rig.run(100);
    let before = rig.phones[0].heard.len();
    rig.run(1_500);
    assert_eq!(rig.phones[0].heard.len(), before);
    assert!(rig.leave(0).is_ok());
    rig.run(2_000);
    assert!(rig.engines.iter().all(|engine| engine.poll_timeout().is_none()), "an empty conference costs nothing");
}

#[test]
fn what_plays_until_it_is_silent_ends_a_frame_later() {
    let ended = |engines| {
        let mut rig = steady(engines, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
        let until = StopConditions { silence_ms: Some(200), ..StopConditions::default() };
        let tone = ToneSpec { first: (440, -30), second: None };
        let operation = OperationSpec::Tone { tone, duration_ms: None, isolate: false, until };
        let id = rig.start(Target::Conference(ROOM), operation).unwrap();
        rig.run(500);
        assert!(rig.ended().is_empty(), "somebody talks");
        rig.phones.iter_mut().for_each(|phone| phone.says = None);
        rig.run(1_000);
        let (condition, ms) = rig.ended().remove(&id).unwrap();
        assert_eq!(condition, "Silence");
        ms
    };
    let (one, two) = (ended(1), ended(2));
    // Steps of 20 ms decide.
    assert!((one..=one + 20).contains(&two), "{one} {two}");
}

#[test]
fn parts_end_together_and_tell_it_once() {
    let ends = |rig: &Rig, wanted: EndReason| {
        let ended = |(_, event): &&(usize, Event)| matches!(event, Event::ConferenceEnded { id: ROOM, reason } if *reason == wanted);
        rig.events.iter().filter(ended).count()
    };
    for (command, reason) in [
        (Command::VacateConference { id: ROOM }, EndReason::LastLeft),
        (Command::DeleteConference { id: ROOM, keep_connections: true }, EndReason::Deleted),
        (Command::DeleteConference { id: ROOM, keep_connections: false }, EndReason::Deleted),
    ] {
        let releases = matches!(command, Command::DeleteConference { keep_connections: false, .. });
        let mut rig = steady(3, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
        assert_eq!(rig.engines[0].totals().conferences, 1);
        assert_eq!(rig.engines[1].totals().conferences, 0, "counted at home");
        rig.run(303);
        for engine in 0..3 {
            let command = match command {
                Command::VacateConference { id } => Command::VacateConference { id },
                _ => Command::DeleteConference { id: ROOM, keep_connections: !releases },
            };
            assert!(rig.call(engine, command).is_ok());
            let unknown = rig.call(engine, Command::InspectConference { id: ROOM });
            assert!(matches!(unknown, Err(CommandError::UnknownConference(ROOM))));
        }
        assert_eq!(ends(&rig, reason), 1);
        assert_eq!(rig.engines[0].totals().conferences, 0);
        let connections: u64 = rig.engines.iter().map(|engine| engine.totals().connections).sum();
        assert_eq!(connections, if releases { 0 } else { 6 });
        rig.run(1_000);
        if !releases {
            // The slots are free again.
            let spec = ConferenceSpec::default();
            let parts = Parts { shards: (0..3).map(ShardId).collect(), epoch: EPOCH };
            for engine in 0..3 {
                let slot = if engine == 0 { 0 } else { 77 };
                let command = Command::CreatePart { id: ROOM, slot, spec, parts: Box::new(parts) };
                assert!(rig.call(engine, command).is_ok());
                rig.phones.iter_mut().for_each(|phone| phone.says = Some(3_000.0));
            }
            for index in 0..6 {
                assert!(rig.join(index, PARTY).is_ok());
            }
            rig.run(600);
            assert!(hears(&rig, 0, 1, 300) > 2_000.0);
        }
    }
}

#[test]
fn the_last_party_of_a_part_does_not_end_the_rest() {
    let mut rig = steady(2, Rate::Narrow, &[CodecKind::Pcmu], 3_000.0);
    rig.run(303);
    for index in [0, 2, 4] {
        assert!(rig.leave(index).is_ok());
    }
    rig.run(500);
    assert!(hears(&rig, 1, 3, 300) > 2_500.0);
    assert!(rig.events.iter().all(|(_, event)| !matches!(event, Event::ConferenceEnded { .. })));
    let status = rig.call(0, Command::InspectConference { id: ROOM });
    assert!(matches!(status, Ok(Answer::Conference(status)) if status.participants.is_empty()));
    // Home records what the other part says although nobody is there.
    let queue = Arc::new(RecordQueue::new(4_096));
    let record = OperationSpec::Record { queue: Arc::clone(&queue), until: StopConditions::default() };
    assert!(rig.start(Target::Conference(ROOM), record).is_some());
    rig.run(500);
    let recorded = crate::bench::recorded(&queue);
    assert!(recorded.len() >= 8 * 480);
    assert!(amplitude(&recorded[800..3_200], 310.0 + 70.0) > 2_500.0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut rig = Rig::new(2, Rate::Narrow, false, 3);
    let spec = ConferenceSpec::default();
    let other = ConferenceId::new(ShardId(0), 5, 1);
    let both = Parts { shards: (0..2).map(ShardId).collect(), epoch: START };
    let part = |slot, spec, parts: Parts| Command::CreatePart { id: other, slot, spec, parts: Box::new(parts) };
    let crowd = Parts { shards: (0..=PARTS_MAX as u8).map(ShardId).collect(), epoch: START };
    let without_home = Parts { shards: [ShardId(1)].into_iter().collect(), epoch: START };
    let hairpin = ConferenceSpec { hairpin: true, ..spec };
    assert!(matches!(rig.call(0, part(5, hairpin, both)), Err(CommandError::Unsupported)));
    for command in [
        part(6, spec, both),
        part(5, spec, crowd),
        part(5, spec, without_home),
        part(5, spec, Parts { shards: ShardSet::default(), epoch: START }),
        part(1 << 20, spec, both),
    ] {
        assert!(matches!(rig.call(0, command), Err(CommandError::LimitReached)));
    }
    assert!(matches!(rig.call(1, part(77, spec, both)), Err(CommandError::LimitReached)), "in use");
    // Operations on it run at home.
    let operation = Box::new(beep(400, 100));
    let id = ringbridge_media::id::OperationId::new(ShardId(1), 1, 1);
    let start = Command::StartOperation { id, target: Target::Conference(ROOM), operation };
    assert!(matches!(rig.call(1, start), Err(CommandError::Unsupported)));
}

#[test]
fn all_parts_together_are_full() {
    let mut rig = Rig::new(2, Rate::Narrow, false, 3);
    let spec = ConferenceSpec { participants_max: 3, ..ConferenceSpec::default() };
    for engine in 0..2 {
        assert!(rig.call(engine, Command::DeleteConference { id: ROOM, keep_connections: true }).is_ok());
        let parts = Box::new(Parts { shards: (0..2).map(ShardId).collect(), epoch: EPOCH });
        let slot = if engine == 0 { 0 } else { 77 };
        assert!(rig.call(engine, Command::CreatePart { id: ROOM, slot, spec, parts }).is_ok());
    }
    for index in 0..4 {
        rig.phone(CodecKind::Pcmu, 20);
        let joined = rig.join(index, PARTY);
        assert_eq!(joined.is_ok(), index < 3, "{joined:?}");
    }
}
