//! Who is how loud: the loudest, the active speaker, levels that endpoints tell and are told, and care for voices.

use CodecKind::Pcmu;
use ringbridge_codec::mix;
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionSpec, ParticipantChange, ParticipantSpec, TalkSpec,
};
use ringbridge_media::event::Event;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::port::Port;
use ringbridge_wire::audio_level::mixer_levels;
use ringbridge_wire::rtp::RtpPacket;

use crate::bench::{Bench, Voice, address, amplitude, spec};

const ROOM: ConferenceId = ConferenceId::new(ShardId(1), 7, 1);

fn room_with(room: ConferenceSpec, members: usize, with: impl Fn(u32) -> ConnectionSpec) -> (Bench, Vec<ConnectionId>) {
    let mut bench = Bench::new();
    bench.call(Command::CreateConference { id: ROOM, spec: room }).unwrap();
    let ids: Vec<_> = (0..members as u32)
        .map(|slot| bench.phone_with(ConnectionSpec { remote: Some(address(slot)), ..with(slot) }))
        .collect();
    for &id in &ids {
        bench.join(ROOM, id);
    }
    (bench, ids)
}

fn plain(_slot: u32) -> ConnectionSpec {
    spec(Pcmu, 20)
}

/// The last half second of what a member heard.
fn heard(bench: &Bench, slot: u32) -> Vec<i16> {
    let samples = bench.samples_to(slot, Pcmu);
    samples[samples.len() - 4_000..].to_vec()
}

#[test]
fn only_the_loudest_are_mixed_and_they_stay_until_another_is_clearly_louder() {
    let room = ConferenceSpec { loudest: Some(2), ..ConferenceSpec::default() };
    let (mut bench, _) = room_with(room, 4, plain);
    let tones = [(500.0, 4_000.0), (700.0, 2_000.0), (900.0, 1_000.0)];
    for (n, (hz, amplitude)) in tones.into_iter().enumerate() {
        bench.say(n, Voice::Tone(hz, amplitude), 0);
    }
    bench.run(1_000);
    let levels = |bench: &Bench, slot| tones.map(|(hz, _)| amplitude(&heard(bench, slot), hz).round() as i32);
    let [loudest, second, third] = levels(&bench, 3);
    assert!(loudest > 3_800 && second > 1_900 && third < 40, "{loudest} {second} {third}");
    let [_, second, third] = levels(&bench, 2);
    assert!(second > 1_900 && third < 40, "who is not among them hears those who are");
    // 3 dB louder than the second is not enough, 10 dB are.
    bench.say(2, Voice::Tone(900.0, 2_830.0), 0);
    bench.run(1_000);
    let rows = levels(&bench, 3);
    assert!(rows[2] < 40, "{rows:?}");
    bench.say(2, Voice::Tone(900.0, 6_500.0), 0);
    bench.run(1_000);
    let [loudest, second, third] = levels(&bench, 3);
    assert!(loudest > 3_800 && second < 150 && third > 6_000, "{loudest} {second} {third}");
    assert_eq!(bench.room_status(ROOM).loudest, Some(2));
}

#[test]
fn who_leads_the_talk_is_told_when_it_changes() {
    let (mut bench, ids) = room_with(ConferenceSpec::default(), 3, plain);
    bench.say(0, Voice::Tone(500.0, 2_000.0), 0);
    bench.run(1_000);
    bench.say(1, Voice::Tone(700.0, 6_000.0), 0);
    bench.run(1_000);
    bench.hush(1);
    bench.run(1_500);
    let told: Vec<_> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ActiveSpeaker { connection, .. } => Some(*connection),
            _ => None,
        })
        .collect();
    assert_eq!(told, [ids[0], ids[1], ids[0]]);
    assert_eq!(bench.room_status(ROOM).active_speaker, Some(ids[0]));
    bench.effect(Command::LeaveConference { conference: ROOM, connection: ids[0] });
    assert_eq!(bench.room_status(ROOM).active_speaker, None);
}

#[test]
fn talk_is_told_after_a_silence_as_long_as_was_asked_for_or_not_at_all() {
    for (talk, expected) in [
        (TalkSpec { told: true, stop_ms: 100 }, 6),
        (TalkSpec::default(), 2),
        (TalkSpec { told: false, stop_ms: 100 }, 0),
    ] {
        let (mut bench, _) = room_with(ConferenceSpec { talk, ..ConferenceSpec::default() }, 2, plain);
        for _ in 0..3 {
            bench.say(0, Voice::Tone(500.0, 4_000.0), 0);
            bench.run(400);
            bench.hush(0);
            bench.run(300);
        }
        bench.run(1_000);
        let talk = bench.count(|event| matches!(event, Event::TalkStarted { .. } | Event::TalkStopped { .. }));
        assert_eq!(talk, expected, "{expected}");
    }
}

#[test]
fn a_noisy_line_does_not_talk_and_a_soft_voice_does() {
    let (mut bench, ids) = room_with(ConferenceSpec::default(), 4, plain);
    let told = |bench: &mut Bench, ms| {
        bench.events.clear();
        bench.run(ms);
        let mut told: Vec<_> = bench
            .events
            .iter()
            .filter_map(|event| match event {
                Event::TalkStarted { connection, .. } => Some((connection.slot(), "starts")),
                Event::TalkStopped { connection, .. } => Some((connection.slot(), "stops")),
                Event::ActiveSpeaker { connection, .. } => Some((connection.slot(), "leads")),
                _ => None,
            })
            .collect();
        told.sort_unstable();
        told
    };
    bench.say(0, Voice::Noise(-40.0), 0);
    bench.say(1, Voice::Noise(-64.0), 0);
    bench.say(2, Voice::Noise(-60.0), 0);
    assert_eq!(told(&mut bench, 60_000), []);
    assert!(bench.room_status(ROOM).participants[0].level_db.abs_diff(-40) <= 2);
    // A peak of -39 dBov, -48 on the average.
    bench.say(1, Voice::Speech(360.0, -64.0), 0);
    assert_eq!(told(&mut bench, 1_000), [(1, "leads"), (1, "starts")]);
    // Somebody muted is told to talk, but does not lead.
    bench.set(ROOM, ids[2], ParticipantChange { muted: Some(true), ..ParticipantChange::default() });
    bench.say(2, Voice::Speech(8_000.0, -60.0), 0);
    assert_eq!(told(&mut bench, 2_000), [(2, "starts")]);
    // A voice over the noise.
    bench.say(0, Voice::Speech(4_000.0, -40.0), 0);
    assert_eq!(told(&mut bench, 1_000), [(0, "leads"), (0, "starts")]);
    for (member, noise) in [(0, -40.0), (1, -64.0), (2, -60.0)] {
        bench.say(member, Voice::Noise(noise), 0);
    }
    assert_eq!(told(&mut bench, 2_000), [(0, "stops"), (1, "stops"), (2, "stops")]);
    assert_eq!(told(&mut bench, 60_000), []);
}

/// What was sent to a member, as it came.
fn raw(bench: &Bench, slot: u32) -> Vec<Vec<u8>> {
    bench.sent.iter().filter(|sent| sent.port == Port::rtp(slot)).map(|sent| sent.bytes.clone()).collect()
}

#[test]
fn packets_of_the_mix_name_who_is_heard_and_how_loud_but_not_the_listener() {
    let told = |slot: u32| ConnectionSpec { mixer_level_extension: (slot != 3).then_some(5), ..plain(slot) };
    let (mut bench, _) = room_with(ConferenceSpec::default(), 4, told);
    bench.say(0, Voice::Constant(8_192), 0);
    bench.say(1, Voice::Constant(1_024), 0);
    bench.run(1_000);
    for (slot, expected) in
        [(0, vec![(0x1001, 30)]), (1, vec![(0x1000, 12)]), (2, vec![(0x1000, 12), (0x1001, 30)]), (3, vec![])]
    {
        let last = raw(&bench, slot).pop().unwrap();
        let packet = RtpPacket::parse(&last).unwrap();
        let mut levels: Vec<_> = mixer_levels(&packet, 5).map(|(ssrc, level)| (ssrc.0, level)).collect();
        levels.sort_unstable();
        assert_eq!(levels, expected, "slot {slot}");
        assert_eq!(packet.csrcs().len(), expected.len());
        assert_eq!(packet.payload().len(), 160);
    }
    bench.hush(0);
    bench.hush(1);
    bench.run(1_000);
    let last = raw(&bench, 2).pop().unwrap();
    assert_eq!(RtpPacket::parse(&last).unwrap().csrcs().len(), 0, "nobody is heard");
}

/// A packet with its level in a one-byte extension with identifier 1.
fn with_level(packet: &[u8], level: u8) -> Vec<u8> {
    let mut bytes = packet[..12].to_vec();
    bytes[0] |= 0x10;
    bytes.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, level, 0, 0]);
    bytes.extend_from_slice(&packet[12..]);
    bytes
}

#[test]
fn what_is_said_to_be_silent_is_not_decoded_and_liars_are_found_out() {
    for (level, amplitude_said, saves, hears) in
        [(127, 0.0, true, false), (30, 4_000.0, false, true), (127, 4_000.0, false, true)]
    {
        let says = |slot: u32| ConnectionSpec { audio_level_extension: Some(1), ..plain(slot) };
        let (mut bench, ids) = room_with(ConferenceSpec::default(), 2, says);
        bench.phones[0].voice = Voice::Tone(500.0, amplitude_said);
        for _ in 0..150 {
            let packet = with_level(&bench.phones[0].packet(), level);
            bench.deliver(Port::rtp(0), address(0), &packet);
            bench.run(20);
        }
        let saved = bench.engine.totals().decodes_saved;
        assert_eq!(saved > 200, saves, "level {level}: {saved}");
        assert_eq!(amplitude(&heard(&bench, 1), 500.0) > 3_800.0, hears, "level {level}");
        assert_eq!(bench.status(ids[0]).counters.concealed_samples, 0);
    }
}

#[test]
fn gain_of_what_is_heard_is_one_members_own() {
    let (mut bench, ids) = room_with(ConferenceSpec::default(), 3, plain);
    let louder = ParticipantChange { output_gain_db: Some(6), ..ParticipantChange::default() };
    bench.set(ROOM, ids[1], louder);
    bench.say(0, Voice::Tone(500.0, 4_000.0), 0);
    bench.run(1_000);
    let (louder, plain) = (amplitude(&heard(&bench, 1), 500.0), amplitude(&heard(&bench, 2), 500.0));
    assert!((1.95..2.05).contains(&(louder / plain)), "{louder} and {plain}");
}

#[test]
fn automatic_gain_brings_voices_to_one_loudness() {
    let (mut bench, ids) = room_with(ConferenceSpec::default(), 3, plain);
    let agc = ParticipantChange { agc: Some(true), ..ParticipantChange::default() };
    bench.set(ROOM, ids[0], agc);
    assert!(bench.room_status(ROOM).participants[0].agc);
    // Something like talk: a buzz in syllables, over a faint background.
    for n in 0..500u32 {
        let samples: Vec<i16> = (0..160u32)
            .map(|m| {
                let at = f64::from(160 * n + m) / 8000.0;
                let syllable = (at * 4.0 * std::f64::consts::TAU).sin().max(0.0);
                let buzz: f64 = (1..12).map(|k| (f64::from(k) * at * 140.0 * std::f64::consts::TAU).sin()).sum();
                (buzz * syllable * 300.0 + f64::from(m % 3)).round() as i16
            })
            .collect();
        let mut payload = [0; 160];
        ringbridge_codec::g711::encode_ulaw(&samples, &mut payload);
        let packet = crate::bench::rtp(0x1000, n as u16, 160 * n, 0, &payload);
        bench.deliver(Port::rtp(0), address(0), &packet);
        bench.run(20);
    }
    let level = |samples: &[i16]| mix::level_dbov(mix::energy(samples), samples.len());
    let all = bench.samples_to(1, Pcmu);
    let (first, last) = (level(&all[2_000..6_000]), level(&heard(&bench, 1)));
    assert!(last >= first + 5, "{first} at first, {last} in the end");
}

#[test]
fn noise_suppression_takes_noise_away_and_leaves_the_voice() {
    let (mut bench, ids) = room_with(ConferenceSpec::default(), 3, plain);
    bench.set(ROOM, ids[0], ParticipantChange { noise_suppression: Some(true), ..ParticipantChange::default() });
    // White noise from a small generator, in packets of our own making.
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((seed >> 16) as i16) / 64
    };
    for n in 0..150u32 {
        let samples: Vec<i16> = (0..160).map(|_| noise()).collect();
        let mut payload = [0; 160];
        ringbridge_codec::g711::encode_ulaw(&samples, &mut payload);
        let packet = crate::bench::rtp(0x1000, n as u16, 160 * n, 0, &payload);
        bench.deliver(Port::rtp(0), address(0), &packet);
        bench.run(20);
    }
    let level = |samples: &[i16]| mix::level_dbov(mix::energy(samples), samples.len());
    let before: Vec<i16> = (0..4_000).map(|_| noise()).collect();
    let after = heard(&bench, 1);
    assert!(level(&after) <= level(&before) - 10, "{} after {}", level(&after), level(&before));
    let spec = ParticipantSpec { noise_suppression: true, ..ParticipantSpec::default() };
    assert!(spec.noise_suppression && bench.room_status(ROOM).participants[0].noise_suppression);
}
