//! Opus (RFC 6716) behind the face of all codecs: one channel at 48 kHz, by the library `opus-pure`.
//!
//! What a packet says of itself, its mode, frames and lengths, is checked here by the rules of RFC 6716 section 3.4
//! before the library sees it.

use core::any::Any;

use opus_pure::{Application, OpusDecoder, OpusEncoder, Signal};

use crate::codec::{CodecError, Decode, Encode, EncoderSettings};
use crate::kind::{PAYLOAD_BYTES_MAX, PAYLOAD_SAMPLES_MAX};

/// Decodes a stream; one of two channels is mixed down.
#[derive(Debug)]
pub(crate) struct Decoder(Box<OpusDecoder>);

impl Decoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        let mut decoder = OpusDecoder::new(RATE, 1).map_err(|_| CodecError::Failed)?;
        // Working memory grows to what the longest packet wants, here and not when that comes.
        decoder.decode_s16(&[], PAYLOAD_SAMPLES_MAX, &mut [0; PAYLOAD_SAMPLES_MAX]).map_err(|_| CodecError::Failed)?;
        decoder.reset_state().map_err(|_| CodecError::Failed)?;
        Ok(Self(Box::new(decoder)))
    }
}

impl Decode for Decoder {
    fn reset(&mut self) {
        // It can't fail: the settings are those it was made with.
        self.0.reset_state().ok();
    }

    fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        Ok(Packet::parse(payload)?.samples())
    }

    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<(), CodecError> {
        let samples = self.0.decode_s16(payload, out.len(), out).map_err(|_| CodecError::Payload)?;
        if samples == out.len() { Ok(()) } else { Err(CodecError::Payload) }
    }

    fn conceal(&mut self, mut out: &mut [i16]) -> bool {
        if out.is_empty() || !out.len().is_multiple_of(FRAME_MIN) {
            return false;
        }
        // There are 20, 10, 5 and 2.5 ms of it.
        while !out.is_empty() {
            let longest =
                [8 * FRAME_MIN, 4 * FRAME_MIN, 2 * FRAME_MIN].into_iter().find(|samples| *samples <= out.len());
            let (piece, rest) = out.split_at_mut(longest.unwrap_or(FRAME_MIN));
            if self.0.decode_s16(&[], piece.len(), piece).is_err() {
                return false;
            }
            out = rest;
        }
        true
    }

    fn recover(&mut self, next: &[u8], out: &mut [i16]) -> bool {
        let has_some = Packet::parse(next).is_ok_and(|packet| packet.has_redundancy());
        if !has_some || out.is_empty() || !out.len().is_multiple_of(FRAME_MIN) || out.len() > PAYLOAD_SAMPLES_MAX {
            return false;
        }
        self.0.decode_fec_s16(next, out.len(), out).is_ok()
    }
}

/// Encodes a stream.
#[derive(Debug)]
pub(crate) struct Encoder {
    encoder: OpusEncoder,
    /// The mean square of what parts the ends of the last packets of this one and another, decoded.
    difference: i64,
}

impl Encoder {
    pub(crate) fn new(settings: EncoderSettings) -> Result<Self, CodecError> {
        let mut encoder = OpusEncoder::new(RATE, 1, Application::Voip).map_err(|_| CodecError::Failed)?;
        encoder.bitrate_bps = i32::try_from(settings.bitrate).unwrap_or(BITRATE_MAX).clamp(BITRATE_MIN, BITRATE_MAX);
        encoder.complexity = COMPLEXITY;
        encoder.use_inband_fec = settings.fec;
        encoder.packet_loss_perc = if settings.fec { LOSS_EXPECTED_PERCENT } else { 0 };
        encoder.use_dtx = settings.dtx;
        encoder.signal_type = Some(Signal::Voice);
        Ok(Self { encoder, difference: i64::MAX })
    }
}

impl Encode for Encoder {
    fn reset(&mut self) {
        self.encoder.reset_state().ok();
    }

    fn copy_from(&mut self, other: &dyn Any) -> bool {
        other.downcast_ref::<Self>().map(|other| self.encoder.clone_from(&other.encoder)).is_some()
    }

    /// What SILK last decodes to is what it predicts from.
    fn watch(&mut self, other: &dyn Any) {
        let Some(other) = other.downcast_ref::<Self>() else { return };
        let (own, other) = (self.encoder.silk_tail(), other.encoder.silk_tail());
        let squares = own.iter().zip(other).map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2)).sum::<i64>();
        let is_alike = own.len() == other.len();
        self.difference = if is_alike { squares / i64::try_from(own.len().max(1)).unwrap_or(1) } else { i64::MAX };
    }

    fn could_go_on_with(&self, other: &dyn Any, _packet: &[u8], lenient: bool) -> bool {
        let difference_max = if lenient { DIFFERENCE_MAX_LENIENT } else { DIFFERENCE_MAX };
        self.difference <= difference_max.pow(2)
            && other.downcast_ref::<Self>().is_some_and(|other| !other.encoder.predicted_pitch())
    }

    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        // A packet of 10 to 60 ms; the library makes it of several frames where it has to.
        if !matches!(samples.len(), 480 | 960 | 1920 | 2880) || out.len() < 2 {
            return Err(CodecError::Length);
        }
        // No packet is longer than what is sent, whatever room there is; that room is all that it can object to.
        let room = out.len().min(PAYLOAD_BYTES_MAX as usize);
        self.encoder.encode_s16(samples, samples.len(), &mut out[..room]).map_err(|_| CodecError::Length)
    }
}

/// What the beginning of a packet says (RFC 6716 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Packet {
    config: u8,
    frames: usize,
    frame_samples: usize,
}

impl Packet {
    /// Checks a packet by the rules R1 to R7 of RFC 6716 section 3.4.
    fn parse(payload: &[u8]) -> Result<Self, CodecError> {
        let (toc, rest) = payload.split_first().ok_or(CodecError::Payload)?;
        let config = toc >> 3;
        let frame_samples = match config {
            0..=11 => [480, 960, 1920, 2880][usize::from(config % 4)],
            12..=15 => [480, 960][usize::from(config % 2)],
            _ => FRAME_MIN << (config % 4),
        };
        let frames = match toc & 0b11 {
            0 if rest.len() <= FRAME_BYTES_MAX => 1,
            1 if rest.len().is_multiple_of(2) && rest.len() / 2 <= FRAME_BYTES_MAX => 2,
            2 => {
                let (first, rest) = length(rest)?;
                let second = rest.len().checked_sub(first).ok_or(CodecError::Payload)?;
                if second > FRAME_BYTES_MAX {
                    return Err(CodecError::Payload);
                }
                2
            }
            3 => many(rest)?,
            _ => return Err(CodecError::Payload),
        };
        let packet = Self { config, frames, frame_samples };
        if packet.samples() <= PAYLOAD_SAMPLES_MAX { Ok(packet) } else { Err(CodecError::Payload) }
    }

    const fn samples(self) -> usize {
        self.frames * self.frame_samples
    }

    /// Whether it could tell of the packet before it: only SILK and hybrid frames can.
    const fn has_redundancy(self) -> bool {
        self.config < 16
    }
}

/// The frames of a packet with their number in it (section 3.2.5).
fn many(rest: &[u8]) -> Result<usize, CodecError> {
    let (head, mut rest) = rest.split_first().ok_or(CodecError::Payload)?;
    let (is_variable, is_padded, frames) = (head & 0x80 != 0, head & 0x40 != 0, usize::from(head & 0x3f));
    if !(1..=FRAMES_MAX).contains(&frames) {
        return Err(CodecError::Payload);
    }
    if is_padded {
        let mut padding = 0;
        loop {
            let (byte, behind) = rest.split_first().ok_or(CodecError::Payload)?;
            rest = behind;
            // 255 is 254 bytes and another length.
            padding += usize::from((*byte).min(254));
            if *byte != 255 {
                break;
            }
        }
        let end = rest.len().checked_sub(padding).ok_or(CodecError::Payload)?;
        rest = &rest[..end];
    }
    if is_variable {
        let mut total = 0;
        for _ in 1..frames {
            let (bytes, behind) = length(rest)?;
            (total, rest) = (total + bytes, behind);
        }
        let last = rest.len().checked_sub(total).ok_or(CodecError::Payload)?;
        if last > FRAME_BYTES_MAX {
            return Err(CodecError::Payload);
        }
    } else if !rest.len().is_multiple_of(frames) || rest.len() / frames > FRAME_BYTES_MAX {
        return Err(CodecError::Payload);
    }
    Ok(frames)
}

/// The length of a frame, and what follows it (section 3.2.1).
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), CodecError> {
    match bytes {
        [short @ 0..=251, rest @ ..] => Ok((usize::from(*short), rest)),
        [first, second, rest @ ..] => Ok((usize::from(*first) + 4 * usize::from(*second), rest)),
        [] | [_] => Err(CodecError::Payload),
    }
}

const RATE: i32 = 48_000;
/// 2.5 ms.
const FRAME_MIN: usize = 120;
const FRAMES_MAX: usize = 48;
const FRAME_BYTES_MAX: usize = 1275;
/// RFC 7587 section 6.1.
const BITRATE_MIN: i32 = 6_000;
const BITRATE_MAX: i32 = 510_000;
/// What the encoder prepares for when it is to put redundancy in.
const LOSS_EXPECTED_PERCENT: i32 = 10;
/// Samples, as a root of the mean square, by which what two encoders decode to may differ where one takes over from the
/// other: -60 dBov, some 40 dB below a voice.
const DIFFERENCE_MAX: i64 = 33;
/// -50 dBov.
const DIFFERENCE_MAX_LENIENT: i64 = 104;
/// Of 0 to 10; see docs/adr/0007-codecs.md for what it costs.
const COMPLEXITY: i32 = 5;

#[cfg(test)]
#[path = "opus/tests.rs"]
mod tests;
