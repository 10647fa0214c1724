//! One face for all codecs: payload to samples, and samples to payload.
//!
//! Whatever stands behind it, a codec allocates when it is made and not afterwards, never blocks, and takes any bytes: a
//! payload that is none of its own is an error. A codec that panics is caught here and is of no use afterwards.

use core::any::Any;
use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::g722::{G722Decoder, G722Encoder};
use crate::g729::{G729Decoder, G729Encoder};
use crate::gsm::{GsmDecoder, GsmEncoder};
use crate::kind::CodecKind;
use crate::{g711, g729, opus};

/// Why a codec did not do its work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CodecError {
    /// The payload is none of this codec.
    Payload,
    /// The output has no room for what comes of the input, or the input is not a whole number of frames.
    Length,
    /// The codec panicked, now or before: the stream it served can't go on.
    Failed,
    /// This codec can't be decoded and encoded here.
    Unavailable,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload => "the payload is malformed",
            Self::Length => "the length is not one that the codec takes",
            Self::Failed => "the codec failed",
            Self::Unavailable => "the codec is not available here",
        })
    }
}

impl core::error::Error for CodecError {}

impl CodecKind {
    /// Whether it can be decoded and encoded here: all but G.723.1, and G.729 once a library for it [was
    /// loaded](g729::load).
    #[must_use]
    pub fn is_decodable(self) -> bool {
        match self {
            Self::Pcmu | Self::Pcma | Self::L16(_) | Self::G722 | Self::Gsm | Self::Opus => true,
            Self::G729 => g729::is_loaded(),
            Self::G723 => false,
        }
    }
}

/// What a codec with a state does with payloads.
pub(crate) trait Decode: fmt::Debug + Send {
    fn reset(&mut self);
    fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError>;
    /// `out` is exactly as long as [`Self::samples_in`] said.
    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<(), CodecError>;
    /// Makes up for samples that are missing; `false`: it knows no way of its own.
    fn conceal(&mut self, _out: &mut [i16]) -> bool {
        false
    }
    /// Decodes what `next` tells of the `out.len()` samples before it; `false`: nothing.
    fn recover(&mut self, _next: &[u8], _out: &mut [i16]) -> bool {
        false
    }
}

/// What a codec with a state does with samples.
pub(crate) trait Encode: Any + fmt::Debug + Send {
    fn reset(&mut self);
    /// Becomes what `other` is, an encoder of the same codec and settings, without allocating; `false`: it knows no
    /// way to, and is what it was.
    fn copy_from(&mut self, _other: &dyn Any) -> bool {
        false
    }
    /// Bytes written.
    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Result<usize, CodecError>;
    /// As [`Self::encode`], but comes nearer to the state of the encoder that made `toward` of the same samples, if it
    /// knows how.
    fn encode_toward(&mut self, samples: &[i16], _toward: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        self.encode(samples, out)
    }
    /// Takes note of where `other` stands, which has just encoded the same.
    fn watch(&mut self, _other: &dyn Any) {}
    /// Whether a decoder of what this one has sent so far could go on with `packet`, which `other` has made since it was
    /// [watched](Self::watch), unheard; if `lenient`, nearly so.
    fn could_go_on_with(&self, _other: &dyn Any, _packet: &[u8], _lenient: bool) -> bool {
        true
    }
}

/// How an encoder is to encode; a codec that has no such choice ignores it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EncoderSettings {
    /// Bits per second, of codecs that can be asked for a rate.
    pub bitrate: u32,
    /// Put into each packet what makes up for the loss of the one before.
    pub fec: bool,
    /// Send next to nothing in silence.
    pub dtx: bool,
}

impl Default for EncoderSettings {
    /// Speech over a network that loses some packets (RFC 7587 section 3.1.1: 28 to 40 kbit/s for fullband speech).
    fn default() -> Self {
        Self { bitrate: 32_000, fec: true, dtx: false }
    }
}

/// The state of a codec, if it has one. One that panicked is not run again.
#[derive(Debug)]
struct Guarded<S: ?Sized> {
    state: Option<Box<S>>,
    failed: bool,
}

impl<S: ?Sized> Guarded<S> {
    const fn new(state: Option<Box<S>>) -> Self {
        Self { state, failed: false }
    }

    /// Runs the codec; `stateless` is what comes of one without a state.
    fn run<T>(&mut self, stateless: T, run: impl FnOnce(&mut S) -> Result<T, CodecError>) -> Result<T, CodecError> {
        let Some(state) = &mut self.state else { return Ok(stateless) };
        if self.failed {
            return Err(CodecError::Failed);
        }
        catch_unwind(AssertUnwindSafe(|| run(state))).unwrap_or_else(|_| {
            self.failed = true;
            Err(CodecError::Failed)
        })
    }
}

/// Decodes one stream.
#[derive(Debug)]
pub struct Decoder {
    kind: CodecKind,
    codec: Guarded<dyn Decode>,
}

impl Decoder {
    /// A decoder at the beginning of a stream. Allocates.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn new(kind: CodecKind) -> Result<Self, CodecError> {
        let state: Option<Box<dyn Decode>> = match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::L16(_) => None,
            CodecKind::G722 => Some(Box::new(G722Decoder::new())),
            CodecKind::Opus => Some(Box::new(opus::Decoder::new()?)),
            CodecKind::Gsm => Some(Box::new(GsmDecoder::new()?)),
            CodecKind::G729 => Some(Box::new(G729Decoder::new()?)),
            CodecKind::G723 => return Err(CodecError::Unavailable),
        };
        Ok(Self { kind, codec: Guarded::new(state) })
    }

    /// What it decodes.
    pub const fn kind(&self) -> CodecKind {
        self.kind
    }

    /// Begins another stream.
    pub fn reset(&mut self) {
        let reset = |codec: &mut (dyn Decode + 'static)| {
            codec.reset();
            Ok(())
        };
        self.codec.run((), reset).ok();
    }

    /// How many samples at [`CodecKind::rate`] a payload holds: at most [`crate::kind::PAYLOAD_SAMPLES_MAX`].
    ///
    /// # Errors
    /// `Payload`, `Failed`.
    pub fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        let samples = match (&self.codec.state, self.kind) {
            (None, CodecKind::L16(_)) => payload.len() / 2 * usize::from(payload.len().is_multiple_of(2)),
            (None, _) => payload.len(),
            (Some(state), _) => state.samples_in(payload)?,
        };
        let ms_max = crate::kind::PAYLOAD_MS_MAX as usize;
        let samples_max = self.kind.rate().frame_samples() * ms_max / 10;
        // Lengths of less than a sixteenth of a millisecond do not occur; those of L16 are even.
        if (1..=samples_max).contains(&samples) { Ok(samples) } else { Err(CodecError::Payload) }
    }

    /// Decodes a payload; how many samples there were. Payloads have to come in order.
    ///
    /// # Errors
    /// `Payload`; `Length` if `out` is too short; `Failed`.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        let samples = self.samples_in(payload)?;
        let out = out.get_mut(..samples).ok_or(CodecError::Length)?;
        if self.codec.state.is_none() {
            decode_part(self.kind, payload, 0, out);
        }
        self.codec.run((), |codec| codec.decode(payload, out))?;
        Ok(samples)
    }

    /// Decodes some samples of a payload, from sample `from` on, with a codec that [is
    /// stateless](CodecKind::is_stateless); others are silent. What is past the end is silence.
    pub fn decode_part(&self, payload: &[u8], from: usize, out: &mut [i16]) {
        if self.codec.state.is_none() {
            decode_part(self.kind, payload, from, out);
        } else {
            out.fill(0);
        }
    }

    /// Makes up for missing samples as the codec itself does; `false` if it has no way to: the samples are untouched.
    ///
    /// # Errors
    /// `Failed`.
    pub fn conceal(&mut self, out: &mut [i16]) -> Result<bool, CodecError> {
        self.codec.run(false, |codec| Ok(codec.conceal(out)))
    }

    /// Makes up for missing samples right before payload `next`, by what that tells of them; `false` if nothing: the
    /// samples are untouched. `next` is still to be decoded afterwards.
    ///
    /// # Errors
    /// `Failed`.
    pub fn recover(&mut self, next: &[u8], out: &mut [i16]) -> Result<bool, CodecError> {
        self.codec.run(false, |codec| Ok(codec.recover(next, out)))
    }
}

/// Encodes one stream.
#[derive(Debug)]
pub struct Encoder {
    kind: CodecKind,
    codec: Guarded<dyn Encode>,
}

impl Encoder {
    /// An encoder at the beginning of a stream. Allocates.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn new(kind: CodecKind, settings: EncoderSettings) -> Result<Self, CodecError> {
        let state: Option<Box<dyn Encode>> = match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::L16(_) => None,
            CodecKind::G722 => Some(Box::new(G722Encoder::new())),
            CodecKind::Opus => Some(Box::new(opus::Encoder::new(settings)?)),
            CodecKind::Gsm => Some(Box::new(GsmEncoder::new()?)),
            CodecKind::G729 => Some(Box::new(G729Encoder::new()?)),
            CodecKind::G723 => return Err(CodecError::Unavailable),
        };
        Ok(Self { kind, codec: Guarded::new(state) })
    }

    /// What it encodes to.
    pub const fn kind(&self) -> CodecKind {
        self.kind
    }

    /// Begins another stream.
    pub fn reset(&mut self) {
        let reset = |codec: &mut (dyn Encode + 'static)| {
            codec.reset();
            Ok(())
        };
        self.codec.run((), reset).ok();
    }

    /// Goes on in the place of another encoder of the same codec and settings, between two packets: what it encodes
    /// from now on is what the other would have. `false` if the codec has no way to, and nothing is changed.
    ///
    /// # Errors
    /// `Failed`, if this or the other has.
    pub fn copy_from(&mut self, other: &Self) -> Result<bool, CodecError> {
        match &other.codec {
            Guarded { failed: true, .. } => Err(CodecError::Failed),
            Guarded { state: Some(other), .. } => self.codec.run(false, |codec| Ok(codec.copy_from(&**other))),
            // Nothing to remember.
            Guarded { state: None, .. } => Ok(self.kind == other.kind),
        }
    }

    /// Encodes as [`Self::encode`] does what another encoder has just made `toward` of, and comes nearer to the state of
    /// that one as far as the codec knows how, at the cost of some noise.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_toward(&mut self, samples: &[i16], toward: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        if self.codec.state.is_none() {
            return self.encode(samples, out);
        }
        self.codec.run(0, |codec| codec.encode_toward(samples, toward, out))
    }

    /// Takes note of where another encoder of the same codec and settings stands, when both have just encoded the same.
    pub fn watch(&mut self, other: &Self) {
        if let Some(other) = &other.codec.state {
            let watch = |codec: &mut (dyn Encode + 'static)| {
                codec.watch(&**other);
                Ok(())
            };
            self.codec.run((), watch).ok();
        }
    }

    /// Whether who has decoded the packets of this encoder could go on with `packet`, which the other has made since it
    /// was [watched](Self::watch), without hearing it, as far as the codec can tell; if `lenient`, almost so.
    #[must_use]
    pub fn could_go_on_with(&self, other: &Self, packet: &[u8], lenient: bool) -> bool {
        match (&self.codec.state, &other.codec.state) {
            (Some(codec), Some(other)) => codec.could_go_on_with(&**other, packet, lenient),
            (None, _) | (_, None) => true,
        }
    }

    /// Encodes whole frames of the codec, at [`CodecKind::rate`]; the bytes written.
    ///
    /// # Errors
    /// `Length` if `samples` is not a whole number of frames or `out` is too short; `Failed`.
    pub fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        if self.codec.state.is_some() {
            return self.codec.run(0, |codec| codec.encode(samples, out));
        }
        let kind = self.kind;
        let bytes = if matches!(kind, CodecKind::L16(_)) { 2 * samples.len() } else { samples.len() };
        let out = out.get_mut(..bytes).ok_or(CodecError::Length)?;
        match kind {
            CodecKind::Pcma => g711::encode_alaw(samples, out),
            CodecKind::L16(_) => {
                for (bytes, sample) in out.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
                    *bytes = sample.to_be_bytes();
                }
            }
            // The others have a state.
            CodecKind::Pcmu
            | CodecKind::G722
            | CodecKind::Gsm
            | CodecKind::G723
            | CodecKind::G729
            | CodecKind::Opus => g711::encode_ulaw(samples, out),
        }
        Ok(bytes)
    }
}

fn decode_part(kind: CodecKind, payload: &[u8], from: usize, out: &mut [i16]) {
    if let CodecKind::L16(_) = kind {
        let (words, _) = payload.get(2 * from..).unwrap_or_default().as_chunks::<2>();
        let here = words.len().min(out.len());
        for (sample, bytes) in out.iter_mut().zip(words) {
            *sample = i16::from_be_bytes(*bytes);
        }
        out[here..].fill(0);
        return;
    }
    let payload = payload.get(from..).unwrap_or_default();
    let here = payload.len().min(out.len());
    if kind == CodecKind::Pcma {
        g711::decode_alaw(&payload[..here], &mut out[..here]);
    } else {
        g711::decode_ulaw(&payload[..here], &mut out[..here]);
    }
    out[here..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Rate;

    #[test]
    fn stateless_codecs_decode_what_they_encode_from_any_sample_on() {
        for kind in [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::L16(Rate::Wide)] {
            let samples: Vec<i16> = (0..160).map(|n| (n - 80) * 64).collect();
            let mut bytes = [0; 400];
            let len = Encoder::new(kind, EncoderSettings::default()).unwrap().encode(&samples, &mut bytes).unwrap();
            let mut decoder = Decoder::new(kind).unwrap();
            let mut all = [0; 160];
            assert_eq!(decoder.decode(&bytes[..len], &mut all), Ok(160));
            assert!(all.iter().zip(&samples).all(|(a, b)| (a - b).abs() <= 256), "{kind}");
            let mut part = [1; 30];
            decoder.decode_part(&bytes[..len], 140, &mut part);
            assert_eq!((&part[..20], &part[20..]), (&all[140..], &[0; 10][..]));
        }
    }

    #[test]
    fn every_packet_time_that_can_be_encoded_is() {
        for kind in CodecKind::ALL {
            assert_eq!(kind.is_decodable(), Decoder::new(kind).is_ok(), "{kind}");
            assert_eq!(kind.is_decodable(), Encoder::new(kind, EncoderSettings::default()).is_ok(), "{kind}");
            if !kind.is_decodable() {
                assert_eq!(Decoder::new(kind).unwrap_err(), CodecError::Unavailable);
                continue;
            }
            for ptime_ms in (1..=120).filter(|ptime_ms| kind.can_encode_ms(*ptime_ms)) {
                let mut encoder =
                    Encoder::new(kind, EncoderSettings { bitrate: 510_000, ..Default::default() }).unwrap();
                let mut decoder = Decoder::new(kind).unwrap();
                let samples = vec![1000; (kind.rate().hz() / 1000 * ptime_ms) as usize];
                let (mut bytes, mut out) = ([0; crate::kind::PAYLOAD_BYTES_MAX as usize], vec![0; samples.len()]);
                for _ in 0..5 {
                    let len = encoder.encode(&samples, &mut bytes).unwrap();
                    assert_eq!(decoder.decode(&bytes[..len], &mut out), Ok(samples.len()), "{kind}, {ptime_ms} ms");
                }
            }
        }
    }

    #[test]
    fn lengths_are_checked() {
        let mut decoder = Decoder::new(CodecKind::L16(Rate::Narrow)).unwrap();
        assert_eq!(decoder.samples_in(&[0; 3]), Err(CodecError::Payload));
        assert_eq!(decoder.samples_in(&[]), Err(CodecError::Payload));
        assert_eq!(decoder.samples_in(&[0; 2 * 961]), Err(CodecError::Payload));
        assert_eq!(decoder.decode(&[0; 8], &mut [0; 3]), Err(CodecError::Length));
        let mut encoder = Encoder::new(CodecKind::Pcmu, EncoderSettings::default()).unwrap();
        assert_eq!(encoder.encode(&[0; 80], &mut [0; 79]), Err(CodecError::Length));
    }

    #[test]
    fn a_codec_that_panics_fails_for_good_and_alone() {
        #[derive(Debug)]
        struct Bomb;
        impl Decode for Bomb {
            fn reset(&mut self) {}
            fn samples_in(&self, _payload: &[u8]) -> Result<usize, CodecError> {
                Ok(80)
            }
            fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<(), CodecError> {
                assert_ne!(payload, b"bang");
                out.fill(1);
                Ok(())
            }
        }
        let mut decoder = Decoder { kind: CodecKind::Gsm, codec: Guarded::new(Some(Box::new(Bomb))) };
        let mut out = [0; 80];
        assert_eq!(decoder.decode(b"fine", &mut out), Ok(80));
        assert_eq!(decoder.decode(b"bang", &mut out), Err(CodecError::Failed));
        assert_eq!(decoder.decode(b"fine", &mut out), Err(CodecError::Failed));
    }
}
