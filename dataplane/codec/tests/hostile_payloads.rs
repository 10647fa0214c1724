//! Payloads that no encoder writes: a decoder takes or refuses them, and goes on.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "small numbers of our own, known to be there"
)]

use proptest::prelude::*;
use ringbridge_codec::kind::{PAYLOAD_MS_MAX, PAYLOAD_SAMPLES_MAX};
use ringbridge_codec::{CodecError, CodecKind, Decoder, Encoder, EncoderSettings};

/// Payloads of 20 ms each, one after the other, and the samples of each.
fn stream(kind: CodecKind, settings: EncoderSettings, packets: usize) -> (Vec<Vec<u8>>, usize) {
    let samples = 2 * kind.rate().frame_samples();
    let mut encoder = Encoder::new(kind, settings).unwrap();
    let payloads = (0..packets).map(|packet| {
        let wave: Vec<i16> = (packet * samples..)
            .take(samples)
            .map(|n| ((n as f64 * 440.0 * std::f64::consts::TAU / f64::from(kind.rate().hz())).sin() * 9e3) as i16)
            .collect();
        let mut out = vec![0; 2 * samples];
        let len = encoder.encode(&wave, &mut out).unwrap();
        out.truncate(len);
        out
    });
    (payloads.collect(), samples)
}

/// Decodes, whatever comes of it: as many samples as were announced, or none.
fn take(decoder: &mut Decoder, payload: &[u8]) -> Result<usize, CodecError> {
    let (kind, announced) = (decoder.kind(), decoder.samples_in(payload));
    let mut out = vec![0x5A5A; PAYLOAD_SAMPLES_MAX + 1];
    let decoded = decoder.decode(payload, &mut out);
    assert_ne!(decoded, Err(CodecError::Failed), "{kind} with {payload:02x?}");
    assert!(decoded.is_err() || decoded == announced, "{kind}: {decoded:?} of {announced:?}");
    let end = decoded.unwrap_or(0).max(announced.unwrap_or(0));
    assert!(out[end..].iter().all(|sample| *sample == 0x5A5A), "{kind} writes behind the end");
    decoded
}

#[test]
fn every_first_byte_of_opus_is_taken_or_refused_and_the_stream_goes_on() {
    for bitrate in [8_000, 32_000, 96_000] {
        let settings = EncoderSettings { bitrate, ..EncoderSettings::default() };
        let (payloads, samples) = stream(CodecKind::Opus, settings, 4);
        let mut decoder = Decoder::new(CodecKind::Opus).unwrap();
        let mut taken = 0;
        for toc in 0..=255 {
            for payload in &payloads {
                let mut corrupt = payload.clone();
                corrupt[0] = toc;
                let decoded = take(&mut decoder, &corrupt);
                taken += usize::from(decoded.is_ok());
                let ms = decoded.map_or(0, |samples| samples / 48);
                assert!(ms <= PAYLOAD_MS_MAX as usize, "{toc:#04x}: {ms} ms");
                assert_eq!(take(&mut decoder, payload), Ok(samples), "behind {toc:#04x}");
            }
        }
        assert!(taken > 256, "most lengths fit some of the payloads: {taken}");
    }
}

#[test]
fn payloads_cut_short_are_taken_or_refused_and_the_stream_goes_on() {
    for kind in CodecKind::ALL {
        if Decoder::new(kind).is_err() {
            continue;
        }
        let (payloads, samples) = stream(kind, EncoderSettings::default(), 3);
        let mut decoder = Decoder::new(kind).unwrap();
        for payload in &payloads {
            for len in 0..payload.len() {
                take(&mut decoder, &payload[..len]).ok();
            }
            assert_eq!(take(&mut decoder, &[]), Err(CodecError::Payload), "{kind}: nothing is no payload");
            assert_eq!(take(&mut decoder, payload), Ok(samples), "{kind}: whole again");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_taken_or_refused_and_the_stream_goes_on(
        kind in prop::sample::select(&CodecKind::ALL[..]),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let Ok(mut decoder) = Decoder::new(kind) else { return Ok(()) };
        let (good, samples) = stream(kind, EncoderSettings::default(), 3);
        for payload in &payloads {
            take(&mut decoder, payload).ok();
            let mut hole = vec![0; kind.rate().frame_samples()];
            prop_assert!(decoder.recover(payload, &mut hole).is_ok(), "{kind}");
            prop_assert!(decoder.conceal(&mut hole).is_ok(), "{kind}");
        }
        for payload in &good {
            let mut flipped = payload.clone();
            for (at, byte) in &flips {
                let at = at.index(flipped.len());
                flipped[at] ^= byte;
            }
            take(&mut decoder, &flipped).ok();
            prop_assert_eq!(take(&mut decoder, payload), Ok(samples));
        }
    }
}
