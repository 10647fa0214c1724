//! A conference that is mixed in parts sounds as if it were mixed in one.

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

const PARTY: ParticipantSpec =
    ParticipantSpec { muted: false, deaf: false, gain_db: 0, role: Role::Party, tariff_tone: false };

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
                let spec = ParticipantSpec { role, muted, deaf: dice.chance(10), gain_db: 0, tariff_tone: false };
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
                };
                // Some of it is refused, here and there alike.
                let _ = rig.set(index, change);
            }
            7 | 8 => {
                let target = Target::Conference(ROOM);
                let samples = (0..4_000).map(|_| dice.below(2_000) as i16 - 1_000).collect();
                let spec = if dice.chance(50) {
                    play(vec![samples], None)
                } else {
                    beep(440, 500)
                };
                operations.extend(rig.start(target, spec).map(|id| (target, id)));
            }
            9 => {
                let target = Target::Connection(rig.phones[index].id);
                operations
                    .extend(rig.start(target, beep(700, 300)).map(|id| (target, id)));
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
    assert_eq!(many.totals(), (0, 0), "{what}: late and dropped");
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
        for engines in [2, 3] {
            let mut many = Rig::new(engines, rate, tones, seed);
            live(&mut many, seed, codecs);
            assert!(many.exchanged > 300);
            assert_same((&one, &recorded), &many, &format!("seed {seed}, {rate:?}, {engines} parts"));
        }
    }
}
