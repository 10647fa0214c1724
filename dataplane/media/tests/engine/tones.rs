//! The tones that a conference makes by itself, to the sample.

use ringbridge_codec::tone::AMPLITUDE_0_DBM0;
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionSpec, Direction, ParticipantChange, ParticipantSpec, Role, Target,
};
use ringbridge_media::event::StreamStamp;
use ringbridge_media::id::{ConferenceId, ConnectionId};

use crate::bench::{
    Bench, SHARD, Voice, address, amplitude, bytes_by_timestamp, check_stream, decode, recorded, spec, stamp,
};
use CodecKind::{Pcma, Pcmu};

const ROOM: ConferenceId = ConferenceId::new(SHARD, 3, 1);
/// Samples of 200 ms, and of 15 s.
const TONE: usize = 1_600;
const PERIOD: usize = 120_000;

fn none() -> ParticipantSpec {
    ParticipantSpec::default()
}

fn room(bench: &mut Bench, hairpin: bool, tones: bool) {
    let spec = ConferenceSpec { hairpin, tones, ..ConferenceSpec::default() };
    bench.call(Command::CreateConference { id: ROOM, spec }).unwrap();
}

/// A conference with tones and two silent parties, and a moment later.
fn two() -> (Bench, Vec<ConnectionId>) {
    let mut bench = Bench::new();
    room(&mut bench, false, true);
    let ids = vec![bench.phone(Pcmu, 20), bench.phone(Pcmu, 30)];
    for &id in &ids {
        bench.join(ROOM, id);
    }
    bench.run(1_003);
    (bench, ids)
}

fn leave(bench: &mut Bench, connection: ConnectionId) -> ringbridge_media::event::Effect {
    bench.effect(Command::LeaveConference { conference: ROOM, connection })
}

/// What was sent to a phone from a stamp on.
fn heard_from(bench: &Bench, stamp: &StreamStamp) -> Vec<i16> {
    let slot = stamp.connection.slot_number();
    let packets = bench.heard_by(slot);
    let bytes: Vec<u8> = bytes_by_timestamp(&packets)
        .into_iter()
        .filter(|(timestamp, ..)| timestamp.0.wrapping_sub(stamp.rtp_timestamp).cast_signed() >= 0)
        .map(|(.., byte)| byte)
        .collect();
    decode(&bytes, bench.phones[slot as usize].codec)
}

fn all_heard(bench: &Bench, slot: u32) -> Vec<i16> {
    let packets = bench.heard_by(slot);
    packets.iter().flat_map(|packet| decode(&packet.payload, bench.phones[slot as usize].codec)).collect()
}

fn is_quiet(samples: &[i16]) -> bool {
    // A-law has no zero.
    samples.iter().all(|sample| sample.abs() <= 8)
}

/// Expects `hz` at -20 dBm0 in all samples, but for their soft edges.
fn check_sine(samples: &[i16], hz: f64, what: &str) {
    let expected = AMPLITUDE_0_DBM0 / 10.0;
    let found = amplitude(&samples[40..samples.len() - 40], hz);
    assert!((found / expected - 1.0).abs() < 0.03, "{what}: {hz} Hz has {found} instead of {expected}");
    for other in [550.0, 650.0, 1_000.0] {
        let found = amplitude(&samples[40..760], other);
        assert!(other == hz || found < expected / 10.0, "{what}: {other} Hz has {found}");
    }
    assert!(samples[0].abs() < 100 && samples[samples.len() - 1].abs() < 100, "{what}: a click");
}

fn check_notice(samples: &[i16], hz: [f64; 2], what: &str) {
    check_sine(&samples[..TONE / 2], hz[0], what);
    check_sine(&samples[TONE / 2..TONE], hz[1], what);
    assert!(samples.len() > 2 * TONE && is_quiet(&samples[TONE..]), "{what}: it is over after 200 ms");
}

#[test]
fn who_joins_is_told_to_all_by_a_rising_tone() {
    for late in 0..20 {
        let (mut bench, mut ids) = two();
        bench.run(late);
        ids.push(bench.phone(Pcma, 20));
        let effect = bench.join(ROOM, ids[2]);
        bench.run(500);
        for &id in &ids {
            check_notice(&heard_from(&bench, &stamp(&effect, id, true)), [550.0, 650.0], &format!("{id}, {late}"));
        }
        // The first had nobody to tell; the second told both.
        let first = all_heard(&bench, 0);
        check_notice(&first[..8_000], [550.0, 650.0], "the second");
        assert_eq!(check_stream(&bench.heard_by(0)), [0]);
    }
}

#[test]
fn who_leaves_is_told_to_those_who_stay_by_a_falling_tone() {
    for delete in [false, true] {
        let (mut bench, mut ids) = two();
        ids.push(bench.phone(Pcma, 20));
        bench.join(ROOM, ids[2]);
        bench.run(1_000);
        let effect =
            if delete { bench.effect(Command::DeleteConnection { id: ids[2] }) } else { leave(&mut bench, ids[2]) };
        bench.run(500);
        for &id in &ids[..2] {
            check_notice(&heard_from(&bench, &stamp(&effect, id, true)), [650.0, 550.0], &format!("{id}"));
        }
        // Who is alone needs no tone, and the conference rests.
        leave(&mut bench, ids[1]);
        bench.sent.clear();
        bench.run(500);
        assert_eq!((bench.sent.len(), bench.engine.poll_timeout()), (0, None));
    }
}

#[test]
fn who_can_not_be_heard_is_not_told() {
    let quiet = [
        ("muted", ParticipantSpec { muted: true, ..none() }, Direction::SendRecv),
        ("monitor", ParticipantSpec { role: Role::Monitor, ..none() }, Direction::SendRecv),
        ("coach", ParticipantSpec { role: Role::Coach, ..none() }, Direction::SendRecv),
        ("receive-only", none(), Direction::SendOnly),
    ];
    for (what, participant, direction) in quiet {
        let (mut bench, _) = two();
        bench.sent.clear();
        let id = bench.phone_with(ConnectionSpec { remote: Some(address(2)), direction, ..spec(Pcmu, 20) });
        bench.join_as(ROOM, id, participant);
        bench.run(500);
        leave(&mut bench, id);
        bench.run(500);
        for slot in 0..3 {
            assert!(is_quiet(&all_heard(&bench, slot)), "{what}");
        }
    }
    // Once he could be heard, his leave is told, whatever he is by then.
    for change in [
        ParticipantChange { muted: Some(true), ..ParticipantChange::default() },
        ParticipantChange { role: Some(Role::Coach), ..ParticipantChange::default() },
    ] {
        let (mut bench, ids) = two();
        let id = bench.phone(Pcmu, 20);
        bench.join_as(ROOM, id, ParticipantSpec { muted: true, ..none() });
        bench.set(ROOM, id, ParticipantChange { muted: Some(false), ..ParticipantChange::default() });
        bench.set(ROOM, id, change);
        bench.run(500);
        let effect = leave(&mut bench, id);
        bench.run(500);
        for &id in &ids {
            check_notice(&heard_from(&bench, &stamp(&effect, id, true)), [650.0, 550.0], "unmuted before");
        }
    }
}

#[test]
fn without_tones_there_are_none_and_in_a_hairpin_neither() {
    for (hairpin, tones) in [(false, false), (true, true)] {
        let mut bench = Bench::new();
        room(&mut bench, hairpin, tones);
        let ids = [bench.phone(Pcmu, 20), bench.phone(Pcmu, 20)];
        for id in ids {
            bench.join(ROOM, id);
        }
        bench.run(1_000);
        leave(&mut bench, ids[1]);
        bench.join(ROOM, ids[1]);
        bench.run(1_000);
        assert!(is_quiet(&all_heard(&bench, 0)) && is_quiet(&all_heard(&bench, 1)), "{hairpin} {tones}");
        if hairpin {
            // Promotion itself is not told; who comes after it is.
            bench.call(Command::PromoteConference { id: ROOM }).unwrap();
            bench.run(500);
            assert!(is_quiet(&all_heard(&bench, 0)));
            let third = bench.phone(Pcmu, 20);
            let effect = bench.join(ROOM, third);
            bench.run(500);
            check_notice(&heard_from(&bench, &stamp(&effect, ids[0], true)), [550.0, 650.0], "promoted");
        }
    }
}

#[test]
fn a_tone_is_in_the_mix_and_in_the_recording_of_it() {
    let (mut bench, ids) = two();
    bench.say(0, Voice::Constant(1_000), 0);
    bench.run(500);
    let (_, queue) = bench.record(Target::Conference(ROOM), Some(400));
    let third = bench.phone(Pcmu, 20);
    let effect = bench.join(ROOM, third);
    bench.run(600);
    let mix = recorded(&queue);
    let level = mix[2_000];
    let tone: Vec<i16> = mix.iter().map(|&sample| sample - level).collect();
    check_notice(&[&tone[..], &[0; TONE]].concat(), [550.0, 650.0], "the recording");
    let heard = heard_from(&bench, &stamp(&effect, ids[1], true));
    assert!((amplitude(&heard[40..760], 550.0) / (AMPLITUDE_0_DBM0 / 10.0) - 1.0).abs() < 0.03);
    assert!(heard[TONE..].iter().all(|&sample| sample == heard[TONE]) && heard[TONE] > 950);
}

/// Expects `samples` to be silent but for tariff tones that begin at these.
fn check_tariff(samples: &[i16], begins: &[usize]) {
    let mut at = 0;
    for &begin in begins {
        assert!(is_quiet(&samples[at..begin]), "quiet until {begin}");
        check_sine(&samples[begin..begin + TONE], 1_000.0, &format!("at {begin}"));
        at = begin + TONE;
    }
    assert!(is_quiet(&samples[at..]), "quiet after {at}");
}

fn tariff(tariff_tone: bool) -> ParticipantChange {
    ParticipantChange { tariff_tone: Some(tariff_tone), ..ParticipantChange::default() }
}

#[test]
fn the_tariff_tone_comes_every_fifteen_seconds_to_one_alone() {
    for (who, late) in [(0, 0), (1, 7), (2, 13)] {
        let mut bench = Bench::new();
        room(&mut bench, false, false);
        let ids = [bench.phone(Pcmu, 20), bench.phone(Pcma, 10), bench.phone(Pcmu, 30)];
        for id in ids {
            bench.join(ROOM, id);
        }
        bench.run(100 + late);
        let on = bench.set(ROOM, ids[who], tariff(true));
        // To switch it on again begins nothing anew.
        bench.run(7_000);
        bench.set(ROOM, ids[who], tariff(true));
        bench.run(39_000);
        let heard = heard_from(&bench, &stamp(&on, ids[who], true));
        check_tariff(&heard, &[PERIOD, 2 * PERIOD, 3 * PERIOD]);
        let off = bench.set(ROOM, ids[who], tariff(false));
        bench.run(20_000);
        assert!(is_quiet(&heard_from(&bench, &stamp(&off, ids[who], true))));
        let on = bench.set(ROOM, ids[who], tariff(true));
        bench.run(16_000);
        check_tariff(&heard_from(&bench, &stamp(&on, ids[who], true)), &[PERIOD]);
        for other in (0..3).filter(|&other| other != who) {
            assert!(is_quiet(&all_heard(&bench, other as u32)));
        }
        for slot in 0..3 {
            assert_eq!(check_stream(&bench.heard_by(slot)), [0]);
        }
    }
}

#[test]
fn the_tariff_tone_is_added_to_what_is_heard() {
    let mut bench = Bench::new();
    room(&mut bench, false, false);
    let ids = [bench.phone(Pcmu, 20), bench.phone(Pcmu, 20)];
    let on = bench.join_as(ROOM, ids[0], ParticipantSpec { tariff_tone: true, role: Role::Pupil, ..none() });
    bench.join_as(ROOM, ids[1], ParticipantSpec { role: Role::Coach, ..none() });
    bench.say(0, Voice::Constant(-3_000), 0);
    bench.say(1, Voice::Constant(1_000), 0);
    bench.run(16_000);
    let heard = heard_from(&bench, &stamp(&on, ids[0], true));
    let voice = heard[8_000];
    assert!((950..1_050).contains(&voice), "the coach alone, not himself");
    // Samples near ±2000 are coarser than the voice alone.
    let beep: Vec<i16> = heard[PERIOD..PERIOD + TONE].iter().map(|&sample| sample - voice).collect();
    let level = amplitude(&beep[80..1_520], 1_000.0) / (AMPLITUDE_0_DBM0 / 10.0);
    assert!((level - 1.0).abs() < 0.03, "{level}");
    assert!(heard[8_000..PERIOD].iter().all(|&sample| sample == voice));
    assert!(heard[PERIOD + TONE..].iter().all(|&sample| sample == voice));

    // During a prompt too, and to the deaf not at all.
    let target = Target::Connection(ids[0]);
    bench.run(13_000);
    let prompt = bench.play(target, vec![2_000; 3 * 8_000]);
    bench.run(2_000);
    let heard = all_heard(&bench, 0);
    let beep: Vec<i16> = heard[heard.len() - 1_200 * 8..].to_vec();
    assert!(amplitude(&beep, 1_000.0) > 250.0, "200 ms of 1200");
    bench.call(Command::StopOperation { target, operation: Some(prompt) }).unwrap();
    bench.set(ROOM, ids[0], ParticipantChange { deaf: Some(true), ..ParticipantChange::default() });
    let before = all_heard(&bench, 0).len();
    bench.run(16_000);
    assert!(is_quiet(&all_heard(&bench, 0)[before + 160..]));
}

#[test]
fn a_tariff_tone_of_a_hairpin_begins_with_its_promotion() {
    let mut bench = Bench::new();
    room(&mut bench, true, true);
    let ids = [bench.phone(Pcmu, 20), bench.phone(Pcmu, 20)];
    bench.join_as(ROOM, ids[0], ParticipantSpec { tariff_tone: true, ..none() });
    bench.join(ROOM, ids[1]);
    bench.set(ROOM, ids[1], tariff(true));
    bench.run(40_000);
    assert!(is_quiet(&all_heard(&bench, 0)) && is_quiet(&all_heard(&bench, 1)));
    assert!(bench.room_status(ROOM).participants.iter().all(|participant| participant.tariff_tone));
    bench.call(Command::PromoteConference { id: ROOM }).unwrap();
    // Nothing changes here, but the answer names the moment.
    let now = bench.set(ROOM, ids[0], tariff(true));
    bench.run(32_000);
    check_tariff(&heard_from(&bench, &stamp(&now, ids[0], true)), &[PERIOD, 2 * PERIOD]);
}
