//! Conferences at 8, 16 and 48 kHz, encoders that are shared and encoders of one's own, relays that transcode, and
//! comfort noise.

use std::f64::consts::TAU;

use ringbridge_codec::{Decoder, Rate};
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, OperationSpec, ParticipantChange, Target,
};
use ringbridge_media::event::{CommandError, Condition};
use ringbridge_media::id::{ConferenceId, ConnectionId};

use crate::bench::{Bench, Rtp, Voice, address, check_stream, recorded, rtp, spec, stamp};
use CodecKind::{G722, Gsm, L16, Opus, Pcma, Pcmu};

const ROOM: ConferenceId = ConferenceId::new(ringbridge_media::id::ShardId(1), 7, 1);

/// A room at `rate` with these members.
fn room_at(rate: Rate, members: &[(CodecKind, u32)]) -> (Bench, Vec<ConnectionId>) {
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
fn decoded(packets: &[Rtp], codec: CodecKind) -> Vec<i16> {
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
fn amplitude(samples: &[i16], rate: Rate, hz: f64) -> f64 {
    let omega = TAU * hz / f64::from(rate.hz());
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        re += f64::from(sample) * (omega * n as f64).cos();
        im += f64::from(sample) * (omega * n as f64).sin();
    }
    2.0 * (re * re + im * im).sqrt() / samples.len() as f64
}

/// The last so many milliseconds of what a member heard.
fn heard(bench: &Bench, slot: u32, codec: CodecKind, ms: usize) -> Vec<i16> {
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
fn check_sequence(packets: &[Rtp], codec: CodecKind) {
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
    bench.run(1_500);
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
fn roughness(samples: &[i16], rate: Rate, tones: &[(f64, f64)]) -> f64 {
    let steps = samples.windows(2).map(|pair| (f64::from(pair[1]) - f64::from(pair[0])).abs());
    let most = steps.fold(0.0, f64::max);
    most / tones.iter().map(|(hz, amplitude)| TAU * hz / f64::from(rate.hz()) * amplitude).sum::<f64>()
}

#[test]
fn who_begins_or_ceases_to_talk_changes_encoders_without_a_click() {
    for codec in [G722, Opus, L16(Rate::Wide), Gsm] {
        let (mut bench, _) = room_at(Rate::Wide, &[(codec, 20), (codec, 20), (codec, 20)]);
        bench.say(0, Voice::Tone(440.0, 6_000.0), 0);
        bench.run(1_000);
        // The second begins and ceases at many places of a packet; what he hears goes on.
        for round in 0..8 {
            bench.say(1, Voice::Tone(1_000.0, 3_000.0), 3 * round);
            bench.run(300 + 7 * round);
            bench.hush(1);
            bench.run(900 + 11 * round);
        }
        let samples = decoded(&bench.heard_by(1), codec);
        let steady = &samples[samples.len() / 12..];
        let rate = codec.rate();
        let level = amplitude(steady, rate, 440.0);
        assert!((5_000.0..7_000.0).contains(&level), "{codec}: {level}");
        let roughness = roughness(steady, rate, &[(440.0, 6_000.0)]);
        // A lossy codec leaves some noise of its own.
        let limit = if codec == Gsm { 4.0 } else { 2.0 };
        assert!(roughness < limit, "{codec}: {roughness}");
        check_sequence(&bench.heard_by(1), codec);
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
