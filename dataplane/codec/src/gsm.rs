//! GSM full rate (GSM 06.10, RFC 3551 section 4.5.8): 33 bytes for 20 ms, by libgsm, which the crate `gsm-sys` brings and
//! compiles.
//!
//! Unsafe is the calls into C. Its functions touch the state and the 33 bytes or 160 samples they are given, all of
//! which are checked here; any bits are a frame to them.

#![allow(unsafe_code, reason = "a codec in C")]

use core::any::Any;
use core::fmt;
use core::ptr::NonNull;

use gsm_sys::{GsmState, gsm_create, gsm_decode, gsm_destroy, gsm_encode};

use crate::codec::{CodecError, Decode, Encode};

/// A state of libgsm, of a decoder or an encoder.
struct State(NonNull<GsmState>);

// SAFETY: the state is a plain block of memory of its own, without ties to a thread.
unsafe impl Send for State {}

impl State {
    fn new() -> Result<Self, CodecError> {
        // SAFETY: it takes nothing and allocates.
        let state = unsafe { gsm_create() };
        NonNull::new(state).map(Self).ok_or(CodecError::Failed)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: it came from `gsm_create`, and nobody has it any more.
        unsafe { gsm_destroy(self.0.as_ptr()) }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

/// Decodes a stream.
#[derive(Debug)]
pub(crate) struct GsmDecoder(State);

impl GsmDecoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        State::new().map(Self)
    }
}

impl Decode for GsmDecoder {
    fn reset(&mut self) {
        if let Ok(state) = State::new() {
            self.0 = state;
        }
    }

    fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        let (frames, rest) = payload.as_chunks::<FRAME_BYTES>();
        // Four bits before the first parameter tell a frame from anything else.
        let is_gsm = rest.is_empty() && frames.iter().all(|frame| frame[0] >> 4 == MAGIC);
        if is_gsm { Ok(frames.len() * FRAME_SAMPLES) } else { Err(CodecError::Payload) }
    }

    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<(), CodecError> {
        let frames = payload.as_chunks::<FRAME_BYTES>().0.iter();
        for (frame, out) in frames.zip(out.as_chunks_mut::<FRAME_SAMPLES>().0) {
            let mut frame = *frame;
            // SAFETY: the state is alive, and the arrays are as long as a frame of each.
            let refused = unsafe { gsm_decode(self.0.0.as_ptr(), frame.as_mut_ptr(), out.as_mut_ptr()) };
            if refused != 0 {
                return Err(CodecError::Payload);
            }
        }
        Ok(())
    }
}

/// Encodes a stream.
#[derive(Debug)]
pub(crate) struct GsmEncoder(State);

impl GsmEncoder {
    pub(crate) fn new() -> Result<Self, CodecError> {
        State::new().map(Self)
    }
}

/// Whether one of the four long-term predictors of a frame has more than the least gain (GSM 06.10 table 1.1: two bits
/// behind the lag of each subframe of 56 bits, which follow four of ours and 36 of filter).
fn predicts(frame: &[u8; FRAME_BYTES]) -> bool {
    let bit = |at: usize| frame[at / 8] >> (7 - at % 8) & 1 != 0;
    (0..4).map(|subframe| 40 + 56 * subframe + 7).any(|gain| bit(gain) || bit(gain + 1))
}

impl Encode for GsmEncoder {
    fn reset(&mut self) {
        if let Ok(state) = State::new() {
            self.0 = state;
        }
    }

    fn could_go_on_with(&self, _other: &dyn Any, packet: &[u8], _lenient: bool) -> bool {
        !packet.as_chunks().0.iter().any(predicts)
    }

    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        let (frames, rest) = samples.as_chunks::<FRAME_SAMPLES>();
        let bytes = frames.len() * FRAME_BYTES;
        let out = out.get_mut(..bytes).filter(|_| rest.is_empty()).ok_or(CodecError::Length)?;
        for (samples, out) in frames.iter().zip(out.as_chunks_mut::<FRAME_BYTES>().0) {
            let mut samples = *samples;
            // SAFETY: the state is alive, and the arrays are as long as a frame of each.
            unsafe { gsm_encode(self.0.0.as_ptr(), samples.as_mut_ptr(), out.as_mut_ptr()) };
        }
        Ok(bytes)
    }
}

const FRAME_BYTES: usize = 33;
/// 20 ms.
const FRAME_SAMPLES: usize = 160;
const MAGIC: u8 = 0xd;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_voice_comes_back() {
        let voice = |n: usize| {
            let phase = n as f64 / 66.0 * std::f64::consts::TAU;
            (5000.0 * phase.sin() + 2500.0 * (2.0 * phase + 1.0).sin() + 800.0 * (5.0 * phase).sin()) as i16
        };
        let samples: Vec<i16> = (0..8000).map(voice).collect();
        let mut bytes = vec![0; 8000 / 160 * 33];
        assert_eq!(GsmEncoder::new().unwrap().encode(&samples, &mut bytes), Ok(bytes.len()));
        let mut decoder = GsmDecoder::new().unwrap();
        assert_eq!(decoder.samples_in(&bytes), Ok(8000));
        let mut out = vec![0; 8000];
        decoder.decode(&bytes, &mut out).unwrap();
        let (mut signal, mut error) = (0.0, 0.0);
        for (a, b) in samples[800..].iter().zip(&out[800..]) {
            signal += f64::from(*a).powi(2);
            error += (f64::from(*a) - f64::from(*b)).powi(2);
        }
        let db = 10.0 * (signal / error).log10();
        assert!(db > 10.0, "{db:.1} dB");
    }

    #[test]
    fn a_reset_is_a_beginning() {
        let samples: Vec<i16> = (0..160).map(|n| (n * 997 % 5000) as i16).collect();
        let (mut encoder, mut first, mut second) = (GsmEncoder::new().unwrap(), [0; 33], [0; 33]);
        encoder.encode(&samples, &mut first).unwrap();
        encoder.reset();
        encoder.encode(&samples, &mut second).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn lengths_and_the_magic_number_are_checked() {
        let decoder = GsmDecoder::new().unwrap();
        assert_eq!(decoder.samples_in(&[0xd0; 66]), Ok(320));
        assert_eq!(decoder.samples_in(&[0xd0; 34]), Err(CodecError::Payload));
        assert_eq!(decoder.samples_in(&[0; 33]), Err(CodecError::Payload));
        let mut encoder = GsmEncoder::new().unwrap();
        assert_eq!(encoder.encode(&[0; 159], &mut [0; 33]), Err(CodecError::Length));
        assert_eq!(encoder.encode(&[0; 160], &mut [0; 32]), Err(CodecError::Length));
    }

    proptest! {
        #[test]
        fn anything_decodes_and_anything_encodes(
            mut bytes in proptest::collection::vec(any::<u8>(), 33 * 8),
            samples in proptest::collection::vec(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX)], 160 * 8),
        ) {
            bytes.iter_mut().step_by(33).for_each(|byte| *byte = *byte & 0xf | 0xd0);
            let mut out = vec![0; 160 * 8];
            GsmDecoder::new().unwrap().decode(&bytes, &mut out).unwrap();
            let mut words = vec![0; 33 * 8];
            GsmEncoder::new().unwrap().encode(&samples, &mut words).unwrap();
            // Square waves of full scale are the worst there is.
            let squares: Vec<i16> = samples.iter().map(|sample| if *sample < 0 { i16::MIN } else { i16::MAX }).collect();
            GsmEncoder::new().unwrap().encode(&squares, &mut words).unwrap();
        }
    }
}
