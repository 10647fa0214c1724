//! Codecs: whatever a payload holds, a decoder takes it or refuses it, and stays of use.

use std::cell::RefCell;

use ringbridge_codec::kind::{PAYLOAD_BYTES_MAX, PAYLOAD_SAMPLES_MAX};
use ringbridge_codec::{CodecError, CodecKind, Decoder, Encoder, EncoderSettings};

use crate::script::Script;

/// What is left where nothing was decoded or encoded.
const UNTOUCHED: i16 = 0x5A5A;
const UNTOUCHED_BYTE: u8 = 0xEE;
/// Room for anything, and more.
const OUT_SAMPLES: usize = PAYLOAD_SAMPLES_MAX + 16;

/// Encoding and making a codec are slow: so much of it is done for one script.
const STEPS_MAX: usize = 32;
const ENCODES_MAX: usize = 2;
const RESETS_MAX: usize = 1;

thread_local! {
    /// Codecs to be used again, after a reset.
    static DECODERS: RefCell<Vec<Decoder>> = const { RefCell::new(Vec::new()) };
    static ENCODERS: RefCell<Vec<(EncoderSettings, Encoder)>> = const { RefCell::new(Vec::new()) };
}

/// A decoder, as good as new.
fn decoder(kind: CodecKind) -> Result<Decoder, CodecError> {
    let used = DECODERS.with_borrow_mut(|used| {
        let at = used.iter().position(|decoder| decoder.kind() == kind)?;
        Some(used.swap_remove(at))
    });
    let Some(mut decoder) = used else { return Decoder::new(kind) };
    decoder.reset();
    Ok(decoder)
}

/// An encoder, as good as new.
fn encoder(kind: CodecKind, settings: EncoderSettings) -> Result<Encoder, CodecError> {
    let used = ENCODERS.with_borrow_mut(|used| {
        let at = used.iter().position(|(other, encoder)| *other == settings && encoder.kind() == kind)?;
        Some(used.swap_remove(at).1)
    });
    let Some(mut encoder) = used else { return Encoder::new(kind, settings) };
    encoder.reset();
    Ok(encoder)
}

/// The first byte is the codec; then a stream of it.
pub fn codec(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let kind = script.pick(&CodecKind::ALL);
    let settings = EncoderSettings {
        bitrate: script.pick(&[32_000, 6_000, 64_000, 510_000, 0]),
        fec: script.flag(),
        dtx: script.flag(),
    };
    let Ok(mut decoder) = decoder(kind) else {
        assert_eq!(Encoder::new(kind, settings).err(), Some(CodecError::Unavailable), "{kind}: one without the other");
        return;
    };
    let mut own: Option<Encoder> = None;
    let mut out = vec![UNTOUCHED; OUT_SAMPLES];
    let (mut resets, mut encodes) = (0, 0);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        match script.below(8) {
            0..=2 => {
                let payload = payload(&mut script);
                decode(&mut decoder, payload, &mut out);
            }
            3 => {
                let (frames, next) = (usize::from(script.below(13)), payload(&mut script));
                let samples = frames * kind.rate().frame_samples();
                out[..samples].fill(UNTOUCHED);
                let recovered = decoder.recover(next, &mut out[..samples]);
                check_made(kind, recovered, &out[..samples]);
                decode(&mut decoder, next, &mut out);
            }
            4 => {
                let samples = usize::from(script.below(13)) * kind.rate().frame_samples();
                out[..samples].fill(UNTOUCHED);
                let concealed = decoder.conceal(&mut out[..samples]);
                check_made(kind, concealed, &out[..samples]);
            }
            5 if resets < RESETS_MAX => {
                resets += 1;
                let payload = payload(&mut script);
                decoder.reset();
                let mut fresh = Decoder::new(kind).expect("it could be made before");
                let read = decode(&mut decoder, payload, &mut out);
                let expected: Vec<i16> = out[..read.unwrap_or(0)].to_vec();
                assert_eq!(decode(&mut fresh, payload, &mut out), read, "{kind}: as after a reset");
                assert_eq!(out[..expected.len()], expected, "{kind}: as after a reset");
            }
            6 if encodes < ENCODES_MAX => {
                encodes += 1;
                let new = || encoder(kind, settings).expect("what can be decoded can be encoded");
                encode(own.get_or_insert_with(new), &mut script, &mut decoder, &mut out);
            }
            _ => {
                if let Some(own) = &mut own {
                    own.reset();
                }
            }
        }
    }
    DECODERS.with_borrow_mut(|used| used.push(decoder));
    if let Some(own) = own {
        ENCODERS.with_borrow_mut(|used| used.push((settings, own)));
    }
}

/// Short ones and long ones.
fn payload<'a>(script: &mut Script<'a>) -> &'a [u8] {
    let len = match script.byte() {
        short @ 0..=199 => usize::from(short),
        _ => usize::from(script.word()) % 2_048,
    };
    script.bytes(len)
}

fn decode(decoder: &mut Decoder, payload: &[u8], out: &mut [i16]) -> Option<usize> {
    let kind = decoder.kind();
    let expected = decoder.samples_in(payload);
    out.fill(UNTOUCHED);
    let short = expected.map_or(0, |samples| samples - 1);
    if expected.is_ok() {
        assert_eq!(decoder.decode(payload, &mut out[..short]), Err(CodecError::Length), "{kind}: no room");
        assert!(out.iter().all(|sample| *sample == UNTOUCHED), "{kind}: no room");
    }
    let decoded = decoder.decode(payload, out);
    assert_ne!(decoded, Err(CodecError::Failed), "{kind} panicked");
    match (expected, decoded) {
        (Ok(expected), Ok(samples)) => {
            assert_eq!(expected, samples, "{kind}");
            assert!((1..=PAYLOAD_SAMPLES_MAX).contains(&samples), "{kind}: {samples} samples");
            assert!(out[samples..].iter().all(|sample| *sample == UNTOUCHED), "{kind}: behind the end");
            if kind.is_stateless() {
                let from = payload.len() % samples;
                let mut part = vec![UNTOUCHED; samples - from + 3];
                decoder.decode_part(payload, from, &mut part);
                assert_eq!(part[..samples - from], out[from..samples], "{kind}: a part");
                assert_eq!(part[samples - from..], [0; 3], "{kind}: past the end");
            }
            Some(samples)
        }
        // The lengths fit, the contents do not.
        (Ok(_), Err(error)) => {
            assert_eq!(error, CodecError::Payload, "{kind}");
            None
        }
        (Err(expected), decoded) => {
            assert_eq!(decoded, Err(expected), "{kind}");
            None
        }
    }
}

fn check_made(kind: CodecKind, made: Result<bool, CodecError>, samples: &[i16]) {
    let made = made.unwrap_or_else(|error| panic!("{kind}: {error}"));
    assert!(made || samples.iter().all(|sample| *sample == UNTOUCHED), "{kind}: untouched if nothing is made");
}

fn encode(encoder: &mut Encoder, script: &mut Script<'_>, decoder: &mut Decoder, out: &mut [i16]) {
    let kind = encoder.kind();
    let ptime_ms = script.pick(&[20_u32, 10, 30, 40, 60, 5, 120, 200]);
    let len = usize::try_from(kind.rate().hz() / 1000 * ptime_ms).expect("small");
    let odd = usize::from(script.below(4));
    let pattern = script.samples(48);
    let samples: Vec<i16> =
        (0..len + odd).map(|n| pattern.get(n % pattern.len().max(1)).copied().unwrap_or(0)).collect();
    let mut bytes = vec![UNTOUCHED_BYTE; 4 * samples.len() + 16];
    let encoded = encoder.encode(&samples, &mut bytes);
    assert_ne!(encoded, Err(CodecError::Failed), "{kind} panicked");
    let whole = odd == 0 && kind.can_encode_ms(ptime_ms);
    let written = match encoded {
        Ok(written) => written,
        Err(error) => {
            assert!(!whole, "{kind}: {ptime_ms} ms can be encoded, but {error}");
            return;
        }
    };
    assert!(bytes[written..].iter().all(|byte| *byte == UNTOUCHED_BYTE), "{kind}: behind the end");
    if whole {
        assert!(written <= PAYLOAD_BYTES_MAX as usize, "{kind}: {written} bytes");
        // Nothing at all may be sent in silence.
        if written > 0 {
            assert_eq!(decode(decoder, &bytes[..written], out), Some(len), "{kind}: what it wrote");
        }
    }
    assert_eq!(encoder.encode(&samples, &mut []), Err(CodecError::Length), "{kind}: no room");
}
