//! What is played and recorded at 8, 16 and 48 kHz, on clocks of any of them.

use std::f64::consts::TAU;
use std::sync::Arc;

use ringbridge_codec::Rate;
use ringbridge_media::command::{CodecKind, Command, OperationSpec, PlayAdjust, PlayChange, StopConditions, Target};
use ringbridge_media::event::Condition;
use ringbridge_media::id::{ConnectionId, OperationId};
use ringbridge_media::samples::{Playlist, Prompt, RecordQueue};

use crate::bench::{Bench, Voice, recorded, stamp};
use crate::wideband::{ROOM, amplitude, check_sequence, decoded, heard, room_at, roughness};
use CodecKind::{G722, L16, Opus, Pcmu};

const LEVEL: f64 = 5_000.0;

fn sine(rate: Rate, hz: f64, ms: usize) -> Vec<i16> {
    let step = TAU * hz / f64::from(rate.hz());
    (0..ms * rate.hz() as usize / 1000).map(|n| ((n as f64 * step).sin() * LEVEL).round() as i16).collect()
}

/// Plays samples of that rate.
fn play_at(bench: &mut Bench, target: Target, rate: Rate, samples: Vec<i16>) -> OperationId {
    let playlist = Box::new(Playlist { prompts: vec![Prompt::Whole(samples.into())], rate });
    let until = StopConditions::default();
    bench.start(target, OperationSpec::Play { playlist, volume: None, speed: None, isolate: false, until })
}

fn record_at(bench: &mut Bench, target: Target, rate: Rate) -> Arc<RecordQueue> {
    let queue = Arc::new(RecordQueue::with_rate(rate, 65_536));
    let until = StopConditions::default();
    bench.start(target, OperationSpec::Record { queue: Arc::clone(&queue), until });
    queue
}

/// Amplitude of all that is not a sine of `hz`, as that of a sine of the same power.
fn rest(samples: &[i16], rate: Rate, hz: f64) -> f64 {
    let power = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / samples.len() as f64;
    (2.0 * power - amplitude(samples, rate, hz).powi(2)).max(0.0).sqrt()
}

/// Whether `codec` carries a sine of `hz`: its rate and what its own filters leave.
fn carries(codec: CodecKind, hz: f64) -> bool {
    hz < f64::from(codec.rate().hz()) * 0.425
}

/// What of a sine may be there that is none, as a share of it: -40 dB, and what a lossy codec adds.
fn noise_of(codec: CodecKind) -> f64 {
    match codec {
        L16(_) => 0.01,
        // Of what lies above 4 kHz it says little.
        G722 => 0.12,
        Pcmu => 0.06,
        _ => 0.2,
    }
}

/// What somebody hears of a tone of `LEVEL` at `hz`, out of what was said or played at `rate`.
fn check_tone(samples: &[i16], codec: CodecKind, hz: f64, there: bool, what: &str) {
    let (level, rest) = (amplitude(samples, codec.rate(), hz), rest(samples, codec.rate(), hz));
    if there {
        let low = if codec == Opus { 0.7 } else { 0.93 };
        assert!((low * LEVEL..1.07 * LEVEL).contains(&level), "{what}: {level}");
        assert!(rest < noise_of(codec) * LEVEL, "{what}: {rest} besides");
    } else {
        let all = level.hypot(rest);
        assert!(all < 0.01 * LEVEL, "{what}: an image of {all}");
    }
}

const TONES: [(Rate, f64); 4] =
    [(Rate::Narrow, 1_000.0), (Rate::Narrow, 3_000.0), (Rate::Wide, 5_000.0), (Rate::Full, 12_000.0)];

#[test]
fn a_prompt_to_a_room_is_heard_as_far_as_room_and_listener_carry_it() {
    let members = [(G722, 20), (Opus, 20), (L16(Rate::Wide), 20), (L16(Rate::Full), 10), (Pcmu, 20)];
    for room in Rate::ALL {
        for (rate, hz) in TONES {
            let (mut bench, _) = room_at(room, &members);
            play_at(&mut bench, Target::Conference(ROOM), rate, sine(rate, hz, 2_000));
            bench.run(1_500);
            for (slot, (codec, _)) in members.into_iter().enumerate() {
                let there = hz < f64::from(room.hz()) * 0.425 && carries(codec, hz);
                let what = format!("{hz} Hz at {rate:?} in {room:?} to {codec}");
                check_tone(&heard(&bench, slot as u32, codec, 1_000), codec, hz, there, &what);
            }
            bench.run(1_000);
            assert_eq!(bench.ended().iter().map(|end| (end.1, end.2)).collect::<Vec<_>>(), [(Condition::Eod, 2_000)]);
        }
    }
}

#[test]
fn a_prompt_to_one_is_heard_as_far_as_its_codec_carries_it_alone_and_in_a_room() {
    for codec in [G722, Opus, L16(Rate::Wide), L16(Rate::Full), Pcmu] {
        let ptime_ms = if codec == L16(Rate::Full) { 10 } else { 20 };
        for (rate, hz) in TONES {
            for room in [None, Some(Rate::Narrow), Some(Rate::Full)] {
                let (mut bench, id) = match room {
                    None => {
                        let mut bench = Bench::new();
                        let id = bench.phone(codec, ptime_ms);
                        (bench, id)
                    }
                    Some(room) => {
                        let (bench, ids) = room_at(room, &[(codec, ptime_ms), (Pcmu, 20)]);
                        (bench, ids[0])
                    }
                };
                play_at(&mut bench, Target::Connection(id), rate, sine(rate, hz, 2_000));
                bench.run(1_500);
                let there = room.is_none_or(|room| hz < f64::from(room.hz()) * 0.425) && carries(codec, hz);
                let what = format!("{hz} Hz at {rate:?} to {codec} in {room:?}");
                check_tone(&heard(&bench, 0, codec, 1_000), codec, hz, there, &what);
            }
        }
    }
}

#[test]
fn a_recording_holds_what_its_clock_and_its_own_rate_carry() {
    for (codec, ptime_ms, hz) in
        [(L16(Rate::Full), 10, 12_000.0), (L16(Rate::Wide), 20, 5_000.0), (G722, 20, 5_000.0), (Pcmu, 20, 1_000.0)]
    {
        for room in [None, Some(Rate::Narrow), Some(Rate::Wide), Some(Rate::Full)] {
            let (mut bench, id) = match room {
                None => {
                    let mut bench = Bench::new();
                    let id = bench.phone(codec, ptime_ms);
                    (bench, id)
                }
                Some(room) => {
                    let (bench, ids) = room_at(room, &[(codec, ptime_ms), (Pcmu, 20)]);
                    (bench, ids[0])
                }
            };
            bench.say(0, Voice::Tone(hz, LEVEL), 0);
            bench.run(500);
            let targets = [Some(Target::Connection(id)), room.map(|_| Target::Conference(ROOM))];
            let queues: Vec<_> = targets
                .into_iter()
                .flatten()
                .flat_map(|target| Rate::ALL.map(|rate| (target, rate)))
                .filter(|&(target, _)| matches!(target, Target::Conference(_)) || room.is_none() || hz > 4_000.0)
                .map(|(target, rate)| (target, record_at(&mut bench, target, rate)))
                .collect();
            bench.run(1_000);
            for (target, queue) in queues {
                let (samples, rate) = (recorded(&queue), queue.rate);
                assert!(samples.len().abs_diff(rate.hz() as usize) <= 2 * rate.frame_samples(), "{}", samples.len());
                let carried = |rate: Rate| hz < f64::from(rate.hz()) * 0.425;
                let there = carried(rate) && room.is_none_or(carried);
                let what = format!("{hz} Hz from {codec} in {room:?}: {target:?} at {rate:?}");
                // A decoder that begins in mid-stream takes its time.
                let middle = &samples[samples.len() / 2..samples.len() * 9 / 10];
                let (level, rest) = (amplitude(middle, rate, hz), rest(middle, rate, hz));
                if there {
                    assert!((0.93 * LEVEL..1.07 * LEVEL).contains(&level), "{what}: {level}");
                    assert!(rest < noise_of(codec) * LEVEL, "{what}: {rest} besides");
                } else {
                    // What the codec adds may be heard everywhere.
                    let limit = if codec == G722 { 0.03 } else { 0.01 };
                    assert!(level.hypot(rest) < limit * LEVEL, "{what}: an image of {}", level.hypot(rest));
                }
            }
        }
    }
}

/// The stream of a connection that is sent L16: the samples from its first packet on.
fn stream(bench: &Bench, slot: u32, codec: CodecKind) -> (u32, Vec<i16>) {
    let packets = bench.heard_by(slot);
    (packets[0].header.timestamp.0, decoded(&packets, codec))
}

#[test]
fn a_stop_names_the_very_sample_whatever_the_rates() {
    for (codec, ptime_ms) in [(L16(Rate::Wide), 20), (L16(Rate::Full), 10)] {
        for rate in Rate::ALL {
            for delay_ms in 0..25 {
                let mut bench = Bench::new();
                let id = bench.phone(codec, ptime_ms);
                let target = Target::Connection(id);
                let play = play_at(&mut bench, target, rate, vec![6_000; rate.hz() as usize]);
                bench.run(200 + delay_ms);
                let effect = bench.effect(Command::StopOperation { target, operation: Some(play) });
                let stamp = stamp(&effect, id, true);
                bench.run(200);
                let (first, samples) = stream(&bench, 0, codec);
                let stopped = stamp.rtp_timestamp.wrapping_sub(first) as usize;
                let (heard, after) = samples.split_at(stopped);
                let what = format!("{rate:?} to {codec} after {delay_ms} ms");
                // It begins at full height too: the filter between two rates rings for a moment.
                let edge = codec.rate().frame_samples() / 4;
                assert!(heard[edge..].iter().all(|sample| (5_900..6_100).contains(sample)), "{what}");
                assert!(heard[1] > 2_000, "{what}: {:?}", &heard[..4]);
                assert!(after.iter().all(|&sample| sample == 0), "{what}");
                check_sequence(&bench.heard_by(0), codec);
            }
        }
    }
}

#[test]
fn who_leaves_a_room_is_played_to_and_recorded_without_a_seam() {
    for (codec, ptime_ms) in [(L16(Rate::Wide), 20), (G722, 20), (Opus, 20), (Pcmu, 20), (L16(Rate::Full), 10)] {
        for room in Rate::ALL {
            for leave_ms in [500, 503, 511, 518] {
                let (mut bench, ids) = room_at(room, &[(codec, ptime_ms), (Pcmu, 20), (Pcmu, 20)]);
                let target = Target::Connection(ids[0]);
                bench.say(0, Voice::Tone(600.0, LEVEL), 0);
                bench.run(300);
                let queue = record_at(&mut bench, target, room);
                play_at(&mut bench, target, room, sine(room, 440.0, 5_000));
                bench.run(leave_ms);
                bench.effect(Command::LeaveConference { conference: ROOM, connection: ids[0] });
                bench.run(600);
                let what = format!("{codec} out of {room:?} after {leave_ms} ms");
                check_sequence(&bench.heard_by(0), codec);
                let samples = heard(&bench, 0, codec, leave_ms as usize + 400);
                check_smooth(&samples, codec.rate(), 440.0, codec, &what);
                let samples = recorded(&queue);
                assert!(samples.len() >= (leave_ms as usize + 580) * room.hz() as usize / 1000, "{what}");
                check_smooth(&samples[room.hz() as usize / 10..], room, 600.0, codec, &what);
            }
        }
    }
}

/// One sine from beginning to end, without a click, a gap, or a jump of its phase.
fn check_smooth(samples: &[i16], rate: Rate, hz: f64, codec: CodecKind, what: &str) {
    let level = amplitude(samples, rate, hz);
    // A jump of the phase would take from it.
    assert!((0.93 * LEVEL..1.07 * LEVEL).contains(&level), "{what}: {hz} Hz at {level}");
    assert!(rest(samples, rate, hz) < noise_of(codec).max(0.02) * LEVEL, "{what}: {}", rest(samples, rate, hz));
    let limit = if codec == Opus || codec == Pcmu || codec == G722 { 2.0 } else { 1.1 };
    let roughness = roughness(samples, rate, &[(hz, LEVEL)]);
    assert!(roughness < limit, "{what}: {hz} Hz is rough by {roughness}");
}

#[test]
fn who_joins_a_room_of_another_rate_hears_the_rest_of_his_prompt_and_is_recorded_whole() {
    for codec in [L16(Rate::Wide), G722, Pcmu] {
        for room in Rate::ALL {
            let (mut bench, others) = room_at(room, &[(Pcmu, 20), (Pcmu, 20)]);
            let id: ConnectionId = bench.phone(codec, 20);
            let (target, own) = (Target::Connection(id), codec.rate());
            bench.say(2, Voice::Tone(600.0, LEVEL), 0);
            bench.run(300);
            let queue = record_at(&mut bench, target, own);
            play_at(&mut bench, target, own, sine(own, 440.0, 1_500));
            bench.run(500);
            bench.join(ROOM, id);
            bench.run(600);
            let what = format!("{codec} into {room:?}");
            let samples = heard(&bench, 2, codec, 400);
            check_smooth(&samples, own, 440.0, codec, &what);
            bench.run(1_000);
            assert_eq!(bench.ended().last().map(|end| (end.1, end.2)), Some((Condition::Eod, 1_500)), "{what}");
            bench.effect(Command::StopOperation { target, operation: None });
            let samples = recorded(&queue);
            let ms = samples.len() / (own.hz() as usize / 1000);
            assert!((2_080..=2_110).contains(&ms), "{what}: {ms}");
            assert!(amplitude(&samples[samples.len() / 2..], own, 600.0) > 0.93 * LEVEL, "{what}");
            assert_eq!(others.len(), 2);
        }
    }
}

#[test]
fn volume_and_speed_are_changed_at_any_rate() {
    for (rate, hz) in [(Rate::Wide, 5_000.0), (Rate::Full, 9_000.0)] {
        let mut bench = Bench::new();
        let id = bench.phone(L16(Rate::Full), 10);
        let target = Target::Connection(id);
        play_at(&mut bench, target, rate, sine(rate, hz, 3_000));
        let adjust = |bench: &mut Bench, adjust| {
            let change = PlayChange { adjust, only_if_playing: true };
            bench.effect(Command::AdjustPlay { target, change })
        };
        adjust(&mut bench, PlayAdjust::SpeedTo(5));
        bench.run(1_000);
        let samples = heard(&bench, 0, L16(Rate::Full), 500);
        let fast = amplitude(&samples[..2_400], Rate::Full, hz);
        assert!((0.8 * LEVEL..1.1 * LEVEL).contains(&fast), "{rate:?}: {fast}");
        adjust(&mut bench, PlayAdjust::VolumeTo(-5));
        bench.run(500);
        let samples = heard(&bench, 0, L16(Rate::Full), 300);
        let soft = samples.iter().map(|&sample| i32::from(sample).abs()).max().unwrap();
        assert!((1_400..1_700).contains(&soft), "10 dB less at {rate:?}: {soft}");
        bench.run(2_000);
        let &(_, condition, elapsed_ms) = bench.ended().last().unwrap();
        assert_eq!(condition, Condition::Eod);
        assert!((1_980..=2_060).contains(&elapsed_ms), "{rate:?}: {elapsed_ms} ms");
    }
}

#[test]
fn a_tone_is_the_same_on_every_clock() {
    for codec in [Pcmu, G722, L16(Rate::Wide), Opus, L16(Rate::Full)] {
        let mut bench = Bench::new();
        let id = bench.phone(codec, if codec == L16(Rate::Full) { 10 } else { 20 });
        let spec = crate::bench::tone(2_500, Some(800), StopConditions::default());
        bench.start(Target::Connection(id), spec);
        bench.run(700);
        let samples = heard(&bench, 0, codec, 500);
        let level = amplitude(&samples, codec.rate(), 2_500.0);
        // -10 dBm0.
        assert!((6_400.0..8_000.0).contains(&level), "{codec}: {level}");
        bench.run(300);
        assert_eq!(bench.ended().iter().map(|end| (end.1, end.2)).collect::<Vec<_>>(), [(Condition::Eod, 800)]);
    }
}

#[test]
fn a_call_is_recorded_as_wide_as_is_asked_for_whatever_its_parties_have() {
    for rate in Rate::ALL {
        let mut bench = Bench::new();
        let ids = [bench.phone(L16(Rate::Full), 10), bench.phone(G722, 20)];
        bench.effect(Command::StartRelay { a: ids[0], b: ids[1], transcode: false });
        bench.say(0, Voice::Tone(12_000.0, LEVEL), 0);
        bench.say(1, Voice::Tone(5_000.0, LEVEL), 3);
        bench.run(300);
        let queue = Arc::new(RecordQueue::with_rate(rate, 65_536));
        let target = Target::Connection(ids[0]);
        let (caller, called) = (ids[0], ids[1]);
        let until = StopConditions::default();
        bench.start(target, OperationSpec::RecordCall { queue: Arc::clone(&queue), caller, called, until });
        bench.run(1_000);
        bench.effect(Command::StopOperation { target, operation: None });
        let mut channels = [Vec::new(), Vec::new()];
        while let Some(chunk) = queue.chunks.pop() {
            assert_eq!(chunk.position, channels[0].len() as u64);
            for (n, &sample) in chunk.chunk.as_slice().iter().enumerate() {
                channels[n % 2].push(sample);
            }
        }
        for (samples, hz) in channels.iter().zip([12_000.0, 5_000.0]) {
            assert!(samples.len().abs_diff(rate.hz() as usize) <= rate.frame_samples(), "{}", samples.len());
            let middle = &samples[samples.len() / 2..];
            let level = amplitude(middle, rate, hz);
            if hz < f64::from(rate.hz()) * 0.425 {
                assert!((0.93 * LEVEL..1.07 * LEVEL).contains(&level), "{hz} Hz at {rate:?}: {level}");
            } else {
                let all = level.hypot(rest(middle, rate, hz));
                assert!(all < 0.03 * LEVEL, "{hz} Hz at {rate:?}: an image of {all}");
            }
        }
    }
}
