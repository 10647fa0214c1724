#![expect(clippy::cast_possible_truncation, reason = "samples of our own")]

use proptest::prelude::*;

use super::*;

/// Something like a voice: a few harmonics that rise and fall.
fn voice(samples: usize) -> Vec<i16> {
    (0..samples)
        .map(|n| {
            let t = n as f64 / 48000.0;
            let phase = (240.0 * t + 1.5 * (5.0 * t).sin()) * std::f64::consts::TAU;
            let sum: f64 = (1..20).map(|k| (f64::from(k) * phase).sin() / f64::from(k)).sum();
            (sum * 5000.0 * (0.6 + 0.4 * (9.0 * t).sin())) as i16
        })
        .collect()
}

fn packets(settings: EncoderSettings, samples: &[i16], frame: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(settings).unwrap();
    let mut bytes = [0; 1440];
    samples
        .chunks_exact(frame)
        .map(|frame| {
            let len = encoder.encode(frame, &mut bytes).unwrap();
            bytes[..len].to_vec()
        })
        .collect()
}

fn energy(samples: &[i16]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample).powi(2)).sum()
}

fn error_db(a: &[i16], b: &[i16]) -> f64 {
    let error: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (error / energy(a)).log10()
}

#[test]
fn a_voice_comes_back_in_packets_of_all_lengths() {
    let samples = voice(96_000);
    for (frame, bitrate) in [(480, 48_000), (960, 24_000), (960, 64_000), (1920, 32_000), (2880, 32_000)] {
        let settings = EncoderSettings { bitrate, fec: false, dtx: false };
        let packets = packets(settings, &samples, frame);
        let bits = packets.iter().map(Vec::len).sum::<usize>() * 8 / 2;
        assert!(bits < bitrate as usize * 5 / 4, "{bits} bit/s for {bitrate}");
        let mut decoder = Decoder::new().unwrap();
        let mut heard = Vec::new();
        for packet in &packets {
            assert_eq!(decoder.samples_in(packet), Ok(frame));
            let mut out = vec![0; frame];
            decoder.decode(packet, &mut out).unwrap();
            heard.extend(out);
        }
        // The encoder's look-ahead is the delay.
        let error = error_db(&samples[10_000..80_000], &heard[10_000 + 312..]);
        assert!(error < -5.0, "{error:.1} dB with {frame} samples at {bitrate} bit/s");
    }
}

#[test]
fn redundancy_brings_a_lost_packet_back() {
    let samples = voice(96_000);
    let packets = packets(EncoderSettings { bitrate: 32_000, fec: true, dtx: false }, &samples, 960);
    let (mut with, mut without, mut all) = (Decoder::new().unwrap(), Decoder::new().unwrap(), Decoder::new().unwrap());
    let (mut recovered, mut concealed, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    for (at, packet) in packets.iter().enumerate() {
        let mut out = [0; 960];
        all.decode(packet, &mut out).unwrap();
        let lost = at % 10 == 7 && at + 1 < packets.len();
        if lost {
            wanted.extend(out);
            assert!(with.recover(&packets[at + 1], &mut out));
            recovered.extend(out);
            assert!(without.conceal(&mut out));
            concealed.extend(out);
        } else {
            with.decode(packet, &mut out).unwrap();
            without.decode(packet, &mut out).unwrap();
        }
    }
    let (recovered, concealed) = (error_db(&wanted, &recovered), error_db(&wanted, &concealed));
    assert!(recovered < concealed - 3.0, "{recovered:.1} dB with redundancy, {concealed:.1} dB without");
}

#[test]
fn long_holes_fade_to_the_background() {
    let samples = voice(48_000);
    let mut decoder = Decoder::new().unwrap();
    let mut out = [0; 960];
    for packet in packets(EncoderSettings::default(), &samples, 960) {
        decoder.decode(&packet, &mut out).unwrap();
    }
    let mut hole = vec![0; 48_000];
    for out in hole.chunks_mut(480) {
        assert!(decoder.conceal(out));
    }
    assert!(energy(&hole[..960]) > energy(&out) / 100.0);
    assert!(energy(&hole[47_040..]) < energy(&out) / 10.0);
}

#[test]
fn silence_costs_next_to_nothing() {
    let mut samples = voice(48_000);
    samples.extend([0; 96_000]);
    let packets = packets(EncoderSettings { bitrate: 32_000, fec: false, dtx: true }, &samples, 960);
    let (speech, silence) = packets.split_at(75);
    assert!(speech[..50].iter().all(|packet| packet.len() > 10));
    assert!(silence.iter().filter(|packet| packet.len() <= 2).count() > silence.len() * 3 / 4);
    let mut decoder = Decoder::new().unwrap();
    for packet in &packets {
        let mut out = [0; 960];
        decoder.decode(packet, &mut out).unwrap();
    }
}

#[test]
fn a_reset_is_a_beginning() {
    let samples = voice(19_200);
    let (mut encoder, mut decoder) = (Encoder::new(EncoderSettings::default()).unwrap(), Decoder::new().unwrap());
    let mut pass = || {
        encoder.reset();
        decoder.reset();
        let (mut bytes, mut out, mut heard) = ([0; 1440], [0; 960], Vec::new());
        for frame in samples.chunks_exact(960) {
            let len = encoder.encode(frame, &mut bytes).unwrap();
            decoder.decode(&bytes[..len], &mut out).unwrap();
            heard.extend(out);
        }
        heard
    };
    assert_eq!(pass(), pass());
}

#[test]
fn what_a_packet_says_of_itself_is_checked() {
    let parsed = |payload: &[u8]| Packet::parse(payload).map(Packet::samples);
    let malformed = Err(CodecError::Payload);
    assert_eq!(parsed(&[]), malformed, "R1");
    assert_eq!(parsed(&[0x80]), Ok(120));
    assert_eq!(parsed(&[0x18]), Ok(2880));
    let mut long = vec![0x08; 1277];
    assert_eq!(parsed(&long), malformed, "R2");
    long.pop();
    assert_eq!(parsed(&long), Ok(960));
    assert_eq!(parsed(&[0x09, 1, 2]), Ok(1920));
    assert_eq!(parsed(&[0x09, 1]), malformed, "R3");
    assert_eq!(parsed(&[0x0a, 1, 2]), Ok(1920));
    assert_eq!(parsed(&[0x0a, 2, 2]), malformed, "R4");
    assert_eq!(parsed(&[0x0a, 252]), malformed, "R4");
    assert_eq!(parsed(&[0x0b, 0]), malformed, "R5: no frame");
    assert_eq!(parsed(&[0x0b, 6, 1, 2, 3, 4, 5, 6]), Ok(5760));
    assert_eq!(parsed(&[0x0b, 7, 1, 2, 3, 4, 5, 6, 7]), malformed, "R5: 140 ms");
    assert_eq!(parsed(&[0x0b, 2, 1]), malformed, "R6");
    assert_eq!(parsed(&[0x0b, 0x42, 1, 5, 6, 0]), Ok(1920));
    assert_eq!(parsed(&[0x0b, 0x42, 255, 1, 5, 6]), malformed, "R6: padding");
    assert_eq!(parsed(&[0x0b, 0x82, 1, 9, 9]), Ok(1920));
    assert_eq!(parsed(&[0x0b, 0x82, 3, 9, 9]), malformed, "R7");
    assert_eq!(parsed(&[0x0b, 49]), malformed);
}

#[test]
fn lengths_are_checked() {
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    for samples in [0, 120, 479, 961, 5760] {
        assert_eq!(encoder.encode(&vec![0; samples], &mut [0; 1440]), Err(CodecError::Length));
    }
    let mut decoder = Decoder::new().unwrap();
    assert!(!decoder.conceal(&mut [0; 100]));
    assert!(!decoder.conceal(&mut []));
    assert!(!decoder.recover(&[0x80, 1, 2], &mut [0; 960]), "CELT has no redundancy");
    assert!(!decoder.recover(&[], &mut [0; 960]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes, whatever came before: no panic, and what was said is what there is.
    #[test]
    fn anything_decodes_or_is_refused(
        payloads in proptest::collection::vec((0_u8..4, proptest::collection::vec(any::<u8>(), 0..120)), 1..12),
    ) {
        let mut decoder = Decoder::new().unwrap();
        for (what, payload) in payloads {
            if let Ok(samples) = decoder.samples_in(&payload) {
                let mut out = vec![0; samples];
                match what {
                    0 => drop(decoder.recover(&payload, &mut out)),
                    1 => assert!(decoder.conceal(&mut out)),
                    _ => drop(decoder.decode(&payload, &mut out)),
                }
            }
        }
    }

    /// The library agrees on what is well-formed.
    #[test]
    fn the_library_takes_what_is_let_through(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(packet) = Packet::parse(&payload) {
            prop_assert_eq!(opus_pure::packet::samples(&payload, RATE).ok(), Some(packet.samples()));
        }
    }
}
