//! Conferences at 8, 16 and 48 kHz, encoders that are shared and encoders of one's own, relays that transcode, and
//! comfort noise.

use std::f64::consts::TAU;

use ringbridge_codec::{Decoder, EncoderSettings, Rate};
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, OperationSpec, ParticipantChange, Target,
};
use ringbridge_media::event::{CommandError, Condition};
use ringbridge_media::id::{ConferenceId, ConnectionId};
use ringbridge_media::limits::PRIVATE_HOLD_MS_MAX;

use crate::bench::{Bench, Rtp, Voice, address, check_stream, recorded, rtp, spec, stamp};
use CodecKind::{G722, Gsm, L16, Opus, Pcma, Pcmu};

pub(crate) const ROOM: ConferenceId = ConferenceId::new(ringbridge_media::id::ShardId(1), 7, 1);

/// A room at `rate` with these members.
pub(crate) fn room_at(rate: Rate, members: &[(CodecKind, u32)]) -> (Bench, Vec<ConnectionId>) {
    let mut bench = Bench::new();
    let spec = ConferenceSpec { rate, ..ConferenceSpec::default() };
    bench.call(Command::CreateConference { id: ROOM, spec }).unwrap();
    let ids: Vec<_> = members.iter().map(|&(codec, ptime_ms)| bench.phone(codec, ptime_ms)).collect();
    for &id in &ids {
        bench.join(ROOM, id);
    }
    (bench, ids)
}

/// What packets decode to, at the codec's rate.
pub(crate) fn decoded(packets: &[Rtp], codec: CodecKind) -> Vec<i16> {
    let mut decoder = Decoder::new(codec).unwrap();
    let mut samples = Vec::new();
    for packet in packets.iter().filter(|packet| packet.header.payload_type == codec.payload_type()) {
        let mut out = vec![0; 5760];
        let len = decoder.decode(&packet.payload, &mut out).unwrap();
        samples.extend_from_slice(&out[..len]);
    }
    samples
}

/// Amplitude of the sine of `hz` in samples at `rate`.
pub(crate) fn amplitude(samples: &[i16], rate: Rate, hz: f64) -> f64 {
    let omega = TAU * hz / f64::from(rate.hz());
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        re += f64::from(sample) * (omega * n as f64).cos();
        im += f64::from(sample) * (omega * n as f64).sin();
    }
    2.0 * (re * re + im * im).sqrt() / samples.len() as f64
}

/// The last so many milliseconds of what a member heard.
pub(crate) fn heard(bench: &Bench, slot: u32, codec: CodecKind, ms: usize) -> Vec<i16> {
    let samples = decoded(&bench.heard_by(slot), codec);
    samples[samples.len().saturating_sub(ms * codec.rate().hz() as usize / 1000)..].to_vec()
}

#[test]
fn everybody_hears_all_but_himself_whatever_the_codecs_and_the_rate() {
    let members =
        [(Pcmu, 20), (G722, 20), (Opus, 20), (L16(Rate::Wide), 20), (Pcma, 30), (Gsm, 20), (L16(Rate::Full), 10)];
    let tones = [500.0, 700.0, 900.0, 1_100.0, 1_300.0, 1_500.0, 1_700.0];
    for rate in Rate::ALL {
        let (mut bench, _) = room_at(rate, &members);
        for (n, hz) in tones.into_iter().enumerate() {
            bench.say(n, Voice::Tone(hz, 3_000.0), n as u64);
        }
        bench.run(1_500);
        for (slot, &(codec, _)) in members.iter().enumerate() {
            let heard = heard(&bench, slot as u32, codec, 1_000);
            assert!(heard.len() >= codec.rate().hz() as usize * 9 / 10, "{codec} in {rate:?}");
            for (n, hz) in tones.into_iter().enumerate() {
                let level = amplitude(&heard, codec.rate(), hz);
                if n == slot {
                    assert!(level < 250.0, "{codec} in {rate:?} hears itself: {level}");
                } else {
                    assert!((1_800.0..4_200.0).contains(&level), "{codec} in {rate:?} hears {hz} at {level}");
                }
            }
            check_sequence(&bench.heard_by(slot as u32), codec);
        }
    }
}

/// One SSRC, no gap in the numbers, timestamps by the codec's clock.
pub(crate) fn check_sequence(packets: &[Rtp], codec: CodecKind) {
    let decoder = Decoder::new(codec).unwrap();
    let density = codec.rate().hz() / codec.clock_rate_hz();
    for pair in packets.windows(2) {
        assert_eq!(pair[1].header.ssrc, pair[0].header.ssrc);
        assert_eq!(pair[1].header.sequence_number, pair[0].header.sequence_number.next());
        let ticks = decoder.samples_in(&pair[0].payload).unwrap() as u32 / density;
        let step = pair[1].header.timestamp.distance_from(pair[0].header.timestamp);
        assert_eq!(step, ticks.cast_signed(), "{codec}");
    }
}

/// 5 kHz reaches those who can hear it, in a room that carries it.
#[test]
fn a_wide_room_is_wide_and_a_narrow_member_hears_no_image_of_it() {
    for (rate, passes) in [(Rate::Narrow, false), (Rate::Wide, true), (Rate::Full, true)] {
        let (mut bench, _) = room_at(rate, &[(G722, 20), (Opus, 20), (Pcmu, 20)]);
        bench.say(0, Voice::Tone(5_000.0, 4_000.0), 0);
        bench.run(1_500);
        let level = amplitude(&heard(&bench, 1, Opus, 500), Rate::Full, 5_000.0);
        assert_eq!(level > 2_500.0, passes, "{rate:?}: {level}");
        let narrow = heard(&bench, 2, Pcmu, 500);
        for hz in [3_000.0, 1_000.0] {
            assert!(amplitude(&narrow, Rate::Narrow, hz) < 40.0, "{rate:?}");
        }
    }
}

/// Encodes a second: packets of members who talk, and of formats that somebody listens in.
fn encodes(bench: &mut Bench) -> u64 {
    let before = bench.engine.totals().encodes;
    bench.run(1_000);
    bench.engine.totals().encodes - before
}

#[test]
fn encodes_are_those_who_talk_and_the_formats_listened_in_never_more() {
    // 20 members in three formats of packets of 20 ms.
    let members: Vec<_> = (0..20).map(|n| ([G722, Opus, L16(Rate::Wide)][n % 3], 20)).collect();
    let (mut bench, ids) = room_at(Rate::Wide, &members);
    bench.run(1_000);
    assert_eq!(encodes(&mut bench), 3 * 50, "nobody talks");
    bench.say(0, Voice::Tone(700.0, 4_000.0), 0);
    bench.say(4, Voice::Tone(900.0, 4_000.0), 0);
    bench.run(1_000);
    assert_eq!(encodes(&mut bench), (2 + 3) * 50, "two talk");
    bench.hush(4);
    // The longest that anybody waits.
    bench.run(u64::from(PRIVATE_HOLD_MS_MAX) + 1_000);
    assert_eq!(encodes(&mut bench), (1 + 3) * 50, "one is silent again, and shares");
    // Who is deaf hears something of his own.
    let deaf = ParticipantChange { deaf: Some(true), ..ParticipantChange::default() };
    bench.set(ROOM, ids[7], deaf);
    bench.run(1_000);
    assert_eq!(encodes(&mut bench), (2 + 3) * 50);
    // Only the talker is left of his format.
    for &id in ids.iter().skip(3).step_by(3) {
        bench.effect(Command::LeaveConference { conference: ROOM, connection: id });
    }
    bench.run(1_000);
    assert_eq!(encodes(&mut bench), (2 + 2) * 50, "nobody shares the talker's format");
}

/// The largest step from one sample to the next less than what the tones make by themselves.
pub(crate) fn roughness(samples: &[i16], rate: Rate, tones: &[(f64, f64)]) -> f64 {
    let steps = samples.windows(2).map(|pair| (f64::from(pair[1]) - f64::from(pair[0])).abs());
    let most = steps.fold(0.0, f64::max);
    most / tones.iter().map(|(hz, amplitude)| TAU * hz / f64::from(rate.hz()) * amplitude).sum::<f64>()
}

/// What a member who talks now and then was sent, and what one of the same format who only listens.
struct Changes {
    talker: Vec<Vec<u8>>,
    listener: Vec<Vec<u8>>,
}

/// Somebody says `voice` to two others, one of whom talks in each of these stretches of milliseconds.
fn changes(codec: CodecKind, settings: EncoderSettings, voice: Voice, talk: &[(u64, u64)], ms: u64) -> Changes {
    let mut bench = Bench::new();
    let room = ConferenceSpec { rate: Rate::Wide, ..ConferenceSpec::default() };
    bench.call(Command::CreateConference { id: ROOM, spec: room }).unwrap();
    let speaker = bench.phone(L16(Rate::Wide), 20);
    bench.join(ROOM, speaker);
    for slot in 1..3 {
        let id = bench.phone_with(ConnectionSpec { remote: Some(address(slot)), encoder: settings, ..spec(codec, 20) });
        bench.join(ROOM, id);
    }
    bench.say(0, voice, 0);
    let mut now = 0;
    for &(from, to) in talk {
        bench.run(from - now);
        bench.say(1, Voice::Tone(1_000.0, 3_000.0), 0);
        bench.run(to - from);
        bench.hush(1);
        now = to;
    }
    bench.run(ms - now);
    let [talker, listener] = [1, 2].map(|slot| {
        let packets = bench.heard_by(slot);
        check_sequence(&packets, codec);
        packets.into_iter().map(|packet| packet.payload).collect()
    });
    Changes { talker, listener }
}

/// What packets decode to, in a row for each.
fn decoded_rows(packets: &[Vec<u8>], codec: CodecKind) -> Vec<Vec<i16>> {
    let mut decoder = Decoder::new(codec).unwrap();
    let decode = |packet: &Vec<u8>| {
        let mut out = vec![0; 5760];
        let len = decoder.decode(packet, &mut out).unwrap();
        out.truncate(len);
        out
    };
    packets.iter().map(decode).collect()
}

/// The power of the difference between two rows, of the half that differs more.
fn difference(a: &[i16], b: &[i16]) -> f64 {
    let half = a.len() / 2;
    let halves = a.chunks(half).zip(b.chunks(half));
    let squares =
        halves.map(|(a, b)| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>());
    squares.fold(0.0, f64::max) / half as f64
}

fn power(samples: &[i16]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64
}

fn settings(bitrate: u32) -> EncoderSettings {
    EncoderSettings { bitrate, ..EncoderSettings::default() }
}

/// The far decoder of who begins to talk has decoded the packets of the shared encoder: his own goes on where that
/// stands, at whatever frame of a packet.
#[test]
fn who_begins_to_talk_is_sent_what_one_encoder_makes_of_what_he_hears() {
    for (codec, bitrate) in [(G722, 0), (Opus, 16_000), (Opus, 24_000), (Opus, 128_000), (L16(Rate::Wide), 0)] {
        for voice in [Voice::Words, Voice::Tone(440.0, 6_000.0)] {
            let listens = changes(codec, settings(bitrate), voice, &[], 1_400);
            for from in [600, 610, 655, 845] {
                let talks = changes(codec, settings(bitrate), voice, &[(from, 1_400)], 1_400);
                assert_eq!(talks.talker, listens.talker, "{codec} {bitrate}, {voice:?}, from {from} ms");
                let own = talks.talker.iter().zip(&talks.listener).filter(|(own, shared)| own != shared);
                assert!(own.count() > 20, "he has an encoder of his own");
            }
        }
    }
}

/// From the return to the shared encoder on, what a member hears differs from what others hear of the same packets by
/// what his decoder remembers of other ones.
#[test]
fn who_ceases_to_talk_hears_next_to_nothing_of_his_return_to_the_shared_encoder() {
    // Limits for speech, and for a tone, where nothing ever brings two encoders together.
    let rows = [
        (G722, 0, -50.0, -20.0),
        (Opus, 16_000, -45.0, -30.0),
        (Opus, 24_000, -45.0, -30.0),
        (Opus, 128_000, -45.0, -45.0),
        (Gsm, 0, -36.0, -20.0),
        (L16(Rate::Wide), 0, -120.0, -120.0),
    ];
    // Longer than the longest wait apart, at any frame of a packet.
    let talk = [(2_000, 2_500), (10_007, 10_137), (18_011, 19_018)];
    for (codec, bitrate, speech_db, tone_db) in rows {
        for (voice, limit_db) in [(Voice::Words, speech_db), (Voice::Tone(440.0, 6_000.0), tone_db)] {
            let changed = changes(codec, settings(bitrate), voice, &talk, 27_000);
            let is_shared: Vec<bool> =
                changed.talker.iter().zip(&changed.listener).map(|(own, shared)| own == shared).collect();
            let (talker, listener) = (decoded_rows(&changed.talker, codec), decoded_rows(&changed.listener, codec));
            let level = power(&listener.concat());
            let mut returns = 0;
            for n in 1..is_shared.len() - 50 {
                // Packets may be equal by chance.
                if is_shared[n - 1] || !is_shared[n..n + 20].iter().all(|is_shared| *is_shared) {
                    continue;
                }
                returns += 1;
                let db = |n: usize| 10.0 * (difference(&talker[n], &listener[n]) / level).max(1e-13).log10();
                // In the first one the last of his own is still heard, and the noise of that is another.
                let noise = (n - 5..n).map(db).fold(f64::MIN, f64::max);
                let (first, others) = (db(n), (n + 1..n + 50).map(db).fold(f64::MIN, f64::max));
                let what = format!(
                    "{codec} {bitrate}, {voice:?}, packet {n}: {first:.1} dB after {noise:.1}, then {others:.1}"
                );
                assert!(first < f64::max(limit_db, noise) && others < limit_db, "{what}");
            }
            assert_eq!(returns, talk.len(), "{codec} {bitrate}, {voice:?}: all come back");
        }
    }
}

#[test]
fn prompts_and_recordings_work_in_a_wide_room() {
    let (mut bench, ids) = room_at(Rate::Wide, &[(G722, 20), (Opus, 20), (Pcmu, 20)]);
    bench.say(0, Voice::Tone(700.0, 4_000.0), 0);
    let (_, room) = bench.record(Target::Conference(ROOM), None);
    let (_, member) = bench.record(Target::Connection(ids[0]), None);
    let tone = |hz: f64| -> Vec<i16> {
        (0..8_000).map(|n| ((f64::from(n) * hz * TAU / 8000.0).sin() * 5_000.0).round() as i16).collect()
    };
    bench.run(100);
    bench.play(Target::Conference(ROOM), tone(1_200.0));
    bench.play(Target::Connection(ids[1]), tone(1_900.0));
    bench.run(900);
    let to_room = heard(&bench, 2, Pcmu, 500);
    assert!(amplitude(&to_room, Rate::Narrow, 1_200.0) > 4_000.0);
    assert!(amplitude(&to_room, Rate::Narrow, 700.0) > 3_000.0);
    let to_one = heard(&bench, 1, Opus, 500);
    assert!(amplitude(&to_one, Rate::Full, 1_900.0) > 4_000.0, "instead of the mix");
    assert!(amplitude(&to_one, Rate::Full, 700.0) < 100.0);
    bench.run(1_500);
    let ends: Vec<_> = bench.ended().into_iter().map(|(_, condition, ms)| (condition, ms)).collect();
    assert_eq!(ends, [(Condition::Eod, 1_000); 2]);
    assert!(amplitude(&heard(&bench, 1, Opus, 500), Rate::Full, 700.0) > 3_000.0, "the mix again");
    let all = recorded(&room);
    assert!(amplitude(&all[2_000..8_000], Rate::Narrow, 1_200.0) > 4_500.0);
    assert!(amplitude(&all[2_000..8_000], Rate::Narrow, 700.0) > 3_500.0);
    let one = recorded(&member);
    assert!(amplitude(&one[2_000..8_000], Rate::Narrow, 700.0) > 3_500.0, "at 8 kHz, whatever the room has");
    assert!(amplitude(&one[2_000..8_000], Rate::Narrow, 1_200.0) < 50.0);
}

#[test]
fn a_relay_transcodes_where_codecs_or_packet_times_differ_and_only_if_it_may() {
    let rows = [
        ((Pcmu, 20), (Pcma, 20), true),
        ((Pcmu, 20), (Pcmu, 30), true),
        ((Opus, 20), (Pcmu, 20), true),
        ((Opus, 60), (G722, 20), true),
        ((Gsm, 20), (L16(Rate::Wide), 10), true),
        ((G722, 20), (G722, 20), false),
        ((Opus, 20), (Opus, 20), false),
    ];
    for (a, b, differ) in rows {
        for allowed in [true, false] {
            let mut bench = Bench::new();
            let ids = [bench.phone(a.0, a.1), bench.phone(b.0, b.1)];
            bench.effect(Command::StartRelay { a: ids[0], b: ids[1], transcode: allowed });
            bench.say(0, Voice::Tone(600.0, 5_000.0), 0);
            bench.say(1, Voice::Tone(1_100.0, 5_000.0), 4);
            bench.run(1_500);
            let transcodes = differ && allowed;
            for (slot, (codec, ptime_ms), hz) in [(0, a, 1_100.0), (1, b, 600.0)] {
                let packets = bench.heard_by(slot);
                let own = packets.iter().all(|packet| packet.header.ssrc.0 != 0x1001 - slot);
                assert_eq!(own, transcodes, "{a:?} and {b:?}: a stream of our own");
                if !transcodes {
                    continue;
                }
                assert!(packets.iter().all(|packet| packet.header.payload_type == codec.payload_type()));
                let samples = decoded(&packets, codec);
                let steady = &samples[samples.len() / 3..];
                let level = amplitude(steady, codec.rate(), hz);
                assert!((3_800.0..6_200.0).contains(&level), "{a:?} to {b:?}: {level}");
                check_sequence(&packets, codec);
                let ticks = ptime_ms * codec.clock_rate_hz() / 1000;
                let step = packets[5].header.timestamp.distance_from(packets[4].header.timestamp);
                assert_eq!(step, ticks.cast_signed());
            }
            assert_eq!(bench.engine.poll_timeout().is_some(), transcodes, "an untouched relay has no clock");
            let effect = bench.effect(Command::StopRelay { a: ids[0] });
            assert_eq!(effect.streams.len(), 2);
            bench.sent.clear();
            bench.run(100);
            assert!(bench.sent.is_empty(), "nothing after the stop");
            assert_eq!(bench.engine.poll_timeout(), None);
        }
    }
}

#[test]
fn a_digit_goes_through_a_relay_that_transcodes_once_with_one_timestamp() {
    let mut bench = Bench::new();
    let ids = [bench.phone(Pcmu, 20), bench.phone(Opus, 20)];
    bench.effect(Command::StartRelay { a: ids[0], b: ids[1], transcode: true });
    bench.say(0, Voice::Tone(600.0, 5_000.0), 0);
    bench.run(300);
    for _ in 0..2 {
        bench.press(0, b'5');
        bench.run(200);
    }
    let packets = bench.heard_by(1);
    let events: Vec<_> = packets.iter().filter(|packet| packet.header.payload_type == 101).collect();
    assert!(events.len() >= 4);
    let mut timestamps: Vec<_> = events.iter().map(|packet| packet.header.timestamp.0).collect();
    timestamps.dedup();
    assert_eq!(timestamps.len(), 2, "two presses");
    // 60 ms at 48 kHz.
    assert_eq!(events.last().unwrap().payload[2..4], 2_880u16.to_be_bytes());
    for pair in packets.windows(2) {
        assert_eq!(pair[1].header.ssrc, pair[0].header.ssrc);
        assert_eq!(pair[1].header.sequence_number, pair[0].header.sequence_number.next());
    }
}

#[test]
fn no_audio_has_an_earlier_timestamp_than_a_digit_before_it() {
    for (codec, ptime_ms) in [(Pcmu, 20), (G722, 30), (Opus, 60)] {
        for ms in 0..30 {
            let mut bench = Bench::new();
            let ids = [bench.phone(Pcma, 10), bench.phone(codec, ptime_ms)];
            bench.effect(Command::StartRelay { a: ids[0], b: ids[1], transcode: true });
            bench.say(0, Voice::Tone(600.0, 5_000.0), 0);
            bench.run(300 + ms);
            // While it speaks, in a short pause, and twice in a long one.
            bench.press(0, b'1');
            bench.run(100);
            bench.hush(0);
            bench.run(30);
            bench.press(0, b'2');
            bench.run(500 + 3 * ms);
            for digit in [b'3', b'4'] {
                bench.press(0, digit);
                bench.run(70);
            }
            bench.say(0, Voice::Tone(600.0, 5_000.0), ms);
            bench.run(300);
            let packets = bench.heard_by(1);
            let mut event = None;
            let (mut events, mut audio) = (Vec::new(), 0);
            for packet in &packets {
                let timestamp = packet.header.timestamp;
                if packet.header.payload_type == 101 {
                    if event.replace(timestamp) != Some(timestamp) {
                        events.push(timestamp);
                    }
                } else if let Some(event) = event {
                    let ahead = timestamp.distance_from(event);
                    assert!(ahead >= 0, "{codec} after {ms} ms: {ahead}");
                    audio += 1;
                }
            }
            assert_eq!(events.len(), 4, "{codec} after {ms} ms");
            assert!(events.windows(2).all(|pair| pair[1].distance_from(pair[0]) > 0), "{events:?}");
            assert!(audio > 3);
            // The pause has passed for the digits in it, and for what follows as for a stream without them.
            let clock = codec.clock_rate_hz().cast_signed() / 1000;
            let passed = events[2].distance_from(events[1]) / clock;
            assert!(passed.abs_diff(500 + 3 * ms as i32) <= 60 + ptime_ms, "{codec} after {ms} ms: {passed}");
            let whole = packets.last().unwrap().header.timestamp.distance_from(packets[0].header.timestamp) / clock;
            assert!(whole.abs_diff(1_370 + 4 * ms as i32) <= 150, "{codec} after {ms} ms: {whole}");
            for pair in packets.windows(2) {
                assert_eq!(pair[1].header.sequence_number, pair[0].header.sequence_number.next());
            }
        }
    }
}

#[test]
fn a_relay_changes_to_transcoding_and_back_with_the_codec_of_a_side() {
    let mut bench = Bench::new();
    let ids = [bench.phone(Pcmu, 20), bench.phone(Pcmu, 20)];
    bench.effect(Command::StartRelay { a: ids[0], b: ids[1], transcode: true });
    bench.say(0, Voice::Tone(600.0, 5_000.0), 0);
    bench.run(200);
    assert!(bench.heard_by(1).iter().all(|packet| packet.header.ssrc.0 == 0x1000));
    let to = |codec: CodecKind| ConnectionChange {
        rx_codec: Some((codec, codec.payload_type())),
        tx_codec: Some((codec, codec.payload_type())),
        ..ConnectionChange::default()
    };
    bench.modify(ids[1], to(Opus)).unwrap();
    bench.sent.clear();
    bench.run(500);
    assert!(amplitude(&heard(&bench, 1, Opus, 300), Rate::Full, 600.0) > 4_000.0);
    bench.modify(ids[1], to(Pcmu)).unwrap();
    bench.sent.clear();
    bench.run(500);
    assert!(amplitude(&heard(&bench, 1, Pcmu, 300), Rate::Narrow, 600.0) > 4_000.0);
    assert_eq!(bench.engine.poll_timeout(), None, "packets pass untouched again");
}

#[test]
fn the_stop_of_a_prompt_to_a_wide_phone_names_the_sample_it_ends_at() {
    for codec in [G722, Opus, L16(Rate::Wide)] {
        for delay_ms in 0..25 {
            let mut bench = Bench::new();
            let id = bench.phone(codec, 20);
            let target = Target::Connection(id);
            let play = bench.play(target, vec![6_000; 24_000]);
            bench.run(200 + delay_ms);
            let effect = bench.effect(Command::StopOperation { target, operation: Some(play) });
            let stamp = stamp(&effect, id, true);
            bench.run(200);
            let packets = bench.heard_by(0);
            let first = packets[0].header.timestamp.0;
            let sent: u32 = packets.len() as u32 * codec.clock_rate_hz() / 50;
            let stopped = stamp.rtp_timestamp.wrapping_sub(first);
            // The last packet is filled up with silence.
            assert!((sent - codec.clock_rate_hz() / 50 + 1..=sent).contains(&stopped), "{codec}: {stopped} of {sent}");
            check_sequence(&packets, codec);
        }
    }
}

#[test]
fn silence_is_described_once_to_who_takes_comfort_noise_and_what_it_describes_is_not_mixed() {
    let mut bench = Bench::new();
    let room = bench.room();
    let with_noise =
        |slot| ConnectionSpec { remote: Some(address(slot)), comfort_noise_payload_type: Some(13), ..spec(Pcmu, 20) };
    let ids = [bench.phone_with(with_noise(0)), bench.phone_with(with_noise(1)), bench.phone(Pcmu, 20)];
    for id in ids {
        bench.join(room, id);
    }
    bench.run(1_000);
    let to_first = bench.heard_by(0);
    assert_eq!(to_first.iter().filter(|packet| packet.header.payload_type == 13).count(), 1);
    assert_eq!(to_first.last().unwrap().header.payload_type, 13, "and then nothing");
    assert_eq!(to_first.last().unwrap().payload.len(), 1);
    assert!(to_first.len() <= 12, "{}", to_first.len());
    assert_eq!(bench.heard_by(2).len(), 50, "the third takes none");
    bench.say(1, Voice::Constant(4_000), 0);
    bench.run(300);
    let again = bench.heard_by(0);
    let resumed = &again[to_first.len()..];
    assert!(resumed.len() >= 12 && resumed[0].header.marker, "a talkspurt begins");
    assert_eq!(check_stream_with_noise(&again), 2);
    // Noise of an endpoint is not mixed to the others.
    bench.hush(1);
    bench.run(1_000);
    bench.sent.clear();
    let (sequence, timestamp) = (bench.phones[1].sequence, bench.phones[1].timestamp);
    bench.deliver(ringbridge_media::port::Port::rtp(1), address(1), &rtp(0x1001, sequence, timestamp, 13, &[30]));
    bench.run(500);
    assert!(bench.heard_by(2).iter().all(|packet| packet.payload.iter().all(|&byte| byte == 0xff)));
    assert!(bench.heard_by(0).is_empty());
}

/// How many talkspurts there are in a stream with comfort noise between them.
fn check_stream_with_noise(packets: &[Rtp]) -> usize {
    for pair in packets.windows(2) {
        assert_eq!(pair[1].header.sequence_number, pair[0].header.sequence_number.next());
        assert!(pair[1].header.timestamp.distance_from(pair[0].header.timestamp) >= 80);
    }
    packets.iter().filter(|packet| packet.header.marker).count()
}

#[test]
fn a_codec_nobody_decodes_is_refused_by_a_room_and_an_odd_packet_time_too() {
    let (mut bench, _) = room_at(Rate::Wide, &[(G722, 20)]);
    for (codec, ptime_ms) in [(CodecKind::G723, 30), (Opus, 30), (Gsm, 30), (L16(Rate::Full), 20)] {
        let id = bench.phone(codec, ptime_ms);
        let command = Command::JoinConference { conference: ROOM, connection: id, participant: Default::default() };
        assert_eq!(bench.call(command).unwrap_err(), CommandError::UnsupportedCodec, "{codec} {ptime_ms}");
        let play = OperationSpec::Play {
            playlist: Box::default(),
            volume: None,
            speed: None,
            isolate: false,
            until: Default::default(),
        };
        let operation = bench.operation_id();
        let command =
            Command::StartOperation { id: operation, target: Target::Connection(id), operation: Box::new(play) };
        assert_eq!(bench.call(command).unwrap_err(), CommandError::UnsupportedCodec, "{codec} {ptime_ms}");
    }
    let id = bench.phone(Pcmu, 20);
    bench.join(ROOM, id);
    bench.run(200);
    check_stream(&bench.heard_by(bench.phones.last().unwrap().slot));
}
