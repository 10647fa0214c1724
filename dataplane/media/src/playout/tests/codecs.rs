//! Real codecs, and what sounds in their silence.

use ringbridge_codec::mix;
use ringbridge_codec::{Encoder, EncoderSettings};

use super::*;

/// A voice of three harmonics, at any rate.
fn tone(rate: Rate, n: usize) -> i16 {
    let phase = n as f64 / f64::from(rate.hz()) * 125.0 * std::f64::consts::TAU;
    (5000.0 * phase.sin() + 2500.0 * (2.0 * phase + 1.0).sin() + 1500.0 * (6.0 * phase + 2.0).sin()) as i16
}

fn level_dbov(samples: &[i16]) -> i8 {
    mix::level_dbov(mix::energy(samples), samples.len())
}

/// Packets of 20 ms of a voice that lasts `voiced`, then silence.
fn packets(codec: CodecKind, settings: EncoderSettings, count: usize, voiced: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(codec, settings).unwrap();
    let len = 2 * codec.rate().frame_samples();
    (0..count)
        .map(|packet| {
            let voice = |n| if packet < voiced { tone(codec.rate(), packet * len + n) } else { 0 };
            let samples: Vec<i16> = (0..len).map(voice).collect();
            let mut payload = vec![0; 1500];
            let written = encoder.encode(&samples, &mut payload).unwrap();
            payload.truncate(written);
            payload
        })
        .collect()
}

/// Plays packets of 20 ms that come in time; those for which `comes` is false don't.
fn play(codec: CodecKind, packets: &[Vec<u8>], comes: impl Fn(usize) -> bool) -> Vec<(Vec<i16>, Pulled)> {
    let mut playout = Playout::new(codec);
    let ticks = codec.clock_rate_hz() / 50;
    (0..2 * packets.len())
        .map(|frame| {
            let now = Instant::from_millis(10 * frame as u64);
            let n = frame / 2;
            if frame % 2 == 0 && comes(n) {
                let timestamp = RtpTimestamp(ticks * n as u32);
                playout.push(now, SeqNumber(n as u16), timestamp, n == 0, &packets[n]).unwrap();
            }
            let mut samples = vec![0; codec.rate().frame_samples()];
            let pulled = playout.pull(now, &mut samples);
            (samples, pulled)
        })
        .collect()
}

const CODECS: [CodecKind; 6] =
    [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::L16(Rate::Wide), CodecKind::G722, CodecKind::Gsm, CodecKind::Opus];

#[test]
fn every_codec_comes_out_as_it_went_in() {
    for codec in CODECS {
        let frames = play(codec, &packets(codec, EncoderSettings::default(), 50, 50), |_| true);
        assert!(frames[2..].iter().all(|(_, pulled)| *pulled == HEARD), "{codec}");
        let samples: Vec<i16> = frames[20..].iter().flat_map(|(samples, _)| samples.clone()).collect();
        let level = level_dbov(&samples);
        assert!((-18..=-14).contains(&level), "{codec}: {level} dBov");
    }
}

#[test]
fn a_lost_packet_leaves_no_silence_whatever_the_codec() {
    for codec in CODECS {
        let frames = play(codec, &packets(codec, EncoderSettings::default(), 50, 50), |n| n % 10 != 7);
        for (n, packet) in frames.chunks_exact(2).enumerate().skip(2) {
            let samples: Vec<i16> = packet.iter().flat_map(|(samples, _)| samples.clone()).collect();
            let level = level_dbov(&samples);
            assert!((-28..=-12).contains(&level), "{codec} packet {n}: {level} dBov");
            let is_lost = (n - 1) % 10 == 7;
            for (_, pulled) in packet {
                assert_eq!((!pulled.heard, pulled.concealed || !is_lost), (is_lost, true), "{codec} packet {n}");
            }
        }
        let missing: u32 = frames.iter().map(|(_, pulled)| pulled.missing).sum();
        assert_eq!(missing, 5 * 160, "{codec}: as at 8 kHz");
    }
}

#[test]
fn comfort_noise_is_as_loud_as_it_was_described() {
    for codec in [CodecKind::Pcmu, CodecKind::G722, CodecKind::L16(Rate::Wide), CodecKind::L16(Rate::Full)] {
        let mut playout = Playout::new(codec);
        for (number, level) in [(0, 50), (1, 40), (2, 60)] {
            let now = Instant::from_millis(2000 * number);
            let timestamp = RtpTimestamp(2 * codec.clock_rate_hz() * number as u32);
            playout.push_noise(now, SeqNumber(number as u16), timestamp, &[level]).unwrap();
            let mut made = Vec::new();
            for frame in 0..200 {
                let mut samples = vec![0; codec.rate().frame_samples()];
                let pulled = playout.pull(now + core::time::Duration::from_millis(10 * frame), &mut samples);
                assert_eq!(pulled, Pulled { noise: true, ..SILENT }, "{codec}");
                made.extend(samples);
            }
            let found = level_dbov(&made[made.len() / 2..]);
            // Half the band of G.722 has none of it.
            assert!((found + level as i8).abs() <= 2, "{codec}: {found} for -{level} dBov");
        }
    }
}

/// Opus in silence sends a byte or two each 400 ms, and its decoder knows what lies between.
#[test]
fn the_silence_of_opus_is_its_own() {
    let codec = CodecKind::Opus;
    let settings = EncoderSettings { dtx: true, ..EncoderSettings::default() };
    let packets = packets(codec, settings, 200, 50);
    let silent = packets[100..].iter().filter(|packet| packet.len() <= 2).count();
    assert!(silent > 80, "{silent} of 100 packets were not worth sending");
    // Of those one in twenty is sent.
    let sent = |n: usize| packets[n].len() > 2 || n.is_multiple_of(20) || packets[n - 1].len() > 2;
    let mut playout = Playout::new(codec);
    let (mut sequence, mut noise, mut missing) = (0u16, 0, 0);
    for frame in 0..400u64 {
        let n = frame as usize / 2;
        let now = Instant::from_millis(10 * frame);
        if frame % 2 == 0 && sent(n) {
            playout.push(now, SeqNumber(sequence), RtpTimestamp(960 * n as u32), false, &packets[n]).unwrap();
            sequence += 1;
        }
        let pulled = playout.pull(now, &mut [0; 480]);
        missing += pulled.missing;
        if frame > 150 {
            assert!(pulled.noise || pulled.heard, "frame {frame}: {pulled:?}");
            noise += u32::from(pulled.noise);
        }
    }
    assert_eq!(missing, 0);
    assert!(noise > 200, "{noise}");
    assert!(!playout.is_idle());
}
