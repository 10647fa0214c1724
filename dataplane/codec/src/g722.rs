//! G.722 at 64 kbit/s: 7 kHz of speech in two bands, each ADPCM with a predictor of its own.
//!
//! ```text
//! 16 kHz ─▶ QMF ─┬─ low band, 8 kHz ──▶ 6 bits ─┐
//!                └─ high band, 8 kHz ─▶ 2 bits ─┴─▶ one byte for two samples
//! ```
//!
//! From ITU-T G.722 (09/2012) sections 3 to 6: the names of its blocks stand beside what does their work, its variables
//! keep their names in the comments, and the arithmetic is that of the Recommendation to the bit. The lower bits of the
//! low band that modes 2 and 3 give to data are speech here: RTP knows mode 1 alone (RFC 3551 section 4.5.2).

use core::any::Any;

use crate::codec::{CodecError, Decode, Encode};

/// Decodes a stream.
#[derive(Clone, Debug)]
pub(crate) struct G722Decoder {
    low: Band,
    high: Band,
    history: [i32; QMF_HISTORY],
}

impl G722Decoder {
    pub(crate) const fn new() -> Self {
        Self { low: Band::new(LOW_STEP), high: Band::new(HIGH_STEP), history: [0; QMF_HISTORY] }
    }

    /// The reconstructed bands of one byte.
    fn bands(&mut self, byte: u8) -> (i32, i32) {
        let (low, high) = (usize::from(byte & 0x3f), usize::from(byte >> 6));
        // INVQBL, RECONS, LIMIT
        let r_low = limited(self.low.predicted + ((self.low.step * QM6[low]) >> 15));
        self.low.adapt_low(low);
        let d_high = (self.high.step * QM2[high]) >> 15;
        let r_high = limited(self.high.predicted + d_high);
        self.high.adapt_high(high, d_high);
        (r_low, r_high)
    }
}

impl Decode for G722Decoder {
    fn reset(&mut self) {
        *self = Self::new();
    }

    fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        Ok(2 * payload.len())
    }

    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<(), CodecError> {
        for (payload, out) in payload.chunks(CHUNK).zip(out.chunks_mut(2 * CHUNK)) {
            let mut line = [0; QMF_HISTORY + 2 * CHUNK];
            line[..QMF_HISTORY].copy_from_slice(&self.history);
            for (pair, byte) in line[QMF_HISTORY..].as_chunks_mut::<2>().0.iter_mut().zip(payload) {
                let (low, high) = self.bands(*byte);
                *pair = [low + high, low - high];
            }
            for (at, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                // ACCUMC, ACCUMD, LIMIT
                let [even, odd] = qmf(&line[2 * at..]);
                *out = [saturated(odd >> 11), saturated(even >> 11)];
            }
            let heard = 2 * payload.len();
            self.history.copy_from_slice(&line[heard..heard + QMF_HISTORY]);
        }
        Ok(())
    }
}

/// Encodes a stream.
#[derive(Clone, Debug)]
pub(crate) struct G722Encoder {
    low: Band,
    high: Band,
    history: [i32; QMF_HISTORY],
    /// The bands of another when last looked at.
    watched: [Band; 2],
}

impl G722Encoder {
    pub(crate) const fn new() -> Self {
        let (low, high) = (Band::new(LOW_STEP), Band::new(HIGH_STEP));
        Self { low, high, history: [0; QMF_HISTORY], watched: [Band::new(LOW_STEP), Band::new(HIGH_STEP)] }
    }

    /// The byte that comes nearest to a pair of bands.
    fn byte(&mut self, x_low: i32, x_high: i32) -> u8 {
        self.adapt(self.low_word(x_low), self.high_word(x_high))
    }

    /// The byte that comes nearest, or nearly so, and adapts the bands as `toward` would.
    fn byte_toward(&mut self, x_low: i32, x_high: i32, toward: u8) -> u8 {
        let (mut low, mut high) = (self.low_word(x_low), self.high_word(x_high));
        let (wanted_low, wanted_high) = (usize::from(toward & 0x3f), usize::from(toward >> 6));
        // Four words of the low band adapt it alike: any of them will do.
        if low >> 2 != wanted_low >> 2 {
            let (e_low, step) = (x_low - self.low.predicted, self.low.step);
            let error = |word: &usize| (e_low - ((step * QM6[*word]) >> 15)).abs();
            let apart = ((QM4[low >> 2] - QM4[wanted_low >> 2]).abs() * step) >> 15;
            let alike = (wanted_low & !3)..=(wanted_low | 3);
            if let Some(word) = alike.filter(|word| word & 0x3c != 0).min_by_key(error)
                && 2 * (error(&word) - error(&low)) <= apart
            {
                low = word;
            }
        }
        if high != wanted_high {
            let (e_high, step) = (x_high - self.high.predicted, self.high.step);
            let error = |word: usize| (e_high - ((step * QM2[word]) >> 15)).abs();
            let apart = ((QM2[high] - QM2[wanted_high]).abs() * step) >> 15;
            if 2 * (error(wanted_high) - error(high)) <= apart {
                high = wanted_high;
            }
        }
        self.adapt(low, high)
    }

    fn low_word(&self, x_low: i32) -> usize {
        // SUBTRA, QUANTL: how many decision levels there are below the magnitude.
        let e_low = i32::from(saturated(x_low - self.low.predicted));
        let magnitude = if e_low < 0 { !e_low } else { e_low };
        let step = self.low.step;
        let level = Q6.partition_point(|decision| (decision * step) >> 12 <= magnitude);
        // The words of a sign count down from the smallest level; the two smallest negative ones lie apart, for words
        // without a one in the middle are not to be sent.
        match (e_low < 0, level) {
            (true, 0..=1) => 63 - level,
            (true, _) => 33 - level,
            (false, _) => 61 - level,
        }
    }

    fn high_word(&self, x_high: i32) -> usize {
        // QUANTH
        let e_high = i32::from(saturated(x_high - self.high.predicted));
        let magnitude = if e_high < 0 { !e_high } else { e_high };
        let is_outer = magnitude >= (564 * self.high.step) >> 12;
        match (e_high < 0, is_outer) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        }
    }

    fn adapt(&mut self, low: usize, high: usize) -> u8 {
        self.low.adapt_low(low);
        let d_high = (self.high.step * QM2[high]) >> 15;
        self.high.adapt_high(high, d_high);
        #[expect(clippy::cast_possible_truncation, reason = "six bits and two")]
        let byte = (high << 6 | low) as u8;
        byte
    }

    /// How loud is what a decoder hears besides, relative to what it should hear, that stands where this encoder does and
    /// is given a packet of the watched one.
    fn difference_db(&self, packet: &[u8]) -> f32 {
        let [low, high] = self.watched.clone();
        let [mut should, mut does] = [(low, high), (self.low.clone(), self.high.clone())]
            .map(|(low, high)| G722Decoder { low, high, history: [0; _] });
        let (mut signal, mut difference) = (1.0, 0.0);
        for byte in packet {
            let (should, does) = (should.bands(*byte), does.bands(*byte));
            for (should, does) in [(should.0, does.0), (should.1, does.1)] {
                signal += (should * should) as f32;
                difference += ((should - does) * (should - does)) as f32;
            }
        }
        10.0 * (difference / signal).log10()
    }

    /// Encodes whole pairs, each as `byte` says, which is told the number of the pair.
    fn encode_by(
        &mut self,
        samples: &[i16],
        out: &mut [u8],
        byte: impl Fn(&mut Self, i32, i32, usize) -> u8,
    ) -> Result<usize, CodecError> {
        if !samples.len().is_multiple_of(2) {
            return Err(CodecError::Length);
        }
        let out = out.get_mut(..samples.len() / 2).ok_or(CodecError::Length)?;
        for (chunk, (samples, out)) in samples.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
            let mut line = [0; QMF_HISTORY + 2 * CHUNK];
            line[..QMF_HISTORY].copy_from_slice(&self.history);
            for (place, sample) in line[QMF_HISTORY..].iter_mut().zip(samples) {
                *place = i32::from(*sample);
            }
            for (at, out) in out.iter_mut().enumerate() {
                // ACCUMA, ACCUMB, LOWT, HIGHT
                let [even, odd] = qmf(&line[2 * at..]);
                *out = byte(self, (odd + even) >> 14, (odd - even) >> 14, chunk * CHUNK + at);
            }
            self.history.copy_from_slice(&line[samples.len()..samples.len() + QMF_HISTORY]);
        }
        Ok(samples.len() / 2)
    }
}

impl Encode for G722Encoder {
    fn reset(&mut self) {
        *self = Self::new();
    }

    fn copy_from(&mut self, other: &dyn Any) -> bool {
        other.downcast_ref().map(|other| self.clone_from(other)).is_some()
    }

    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        self.encode_by(samples, out, |encoder, low, high, _| encoder.byte(low, high))
    }

    /// The bands forget: two encoders that send the same words come to the same state, by a 128th or 256th of what parts
    /// them with each word. Left to themselves they never do, for of two words that lie near a sample each takes its own.
    fn encode_toward(&mut self, samples: &[i16], toward: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        if toward.len() != samples.len() / 2 {
            return self.encode(samples, out);
        }
        self.encode_by(samples, out, |encoder, low, high, at| encoder.byte_toward(low, high, toward[at]))
    }

    fn watch(&mut self, other: &dyn Any) {
        if let Some(Self { low, high, .. }) = other.downcast_ref() {
            self.watched = [low.clone(), high.clone()];
        }
    }

    fn could_go_on_with(&self, _other: &dyn Any, packet: &[u8], lenient: bool) -> bool {
        let [low, high] = &self.watched;
        (&self.low, &self.high) == (low, high) || (lenient && self.difference_db(packet) <= DIFFERENCE_DB_MAX)
    }
}

/// The sums over the 12 samples at the even and at the odd places of 24.
fn qmf(line: &[i32]) -> [i32; 2] {
    let mut sums = [0; 2];
    for (([even, odd], tap), mirrored) in line.as_chunks::<2>().0.iter().zip(QMF).zip(QMF.iter().rev()) {
        sums[0] += even * tap;
        sums[1] += odd * mirrored;
    }
    sums
}

/// One band: a quantizer whose step follows the signal, and a predictor with two poles and six zeros.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Band {
    /// DET: the step of the quantizer.
    step: i32,
    /// NB: its logarithm to the base 2, with 11 bits after the point.
    log_step: i32,
    /// S: what the predictor expects, and the part of it that is of the zeros, SZ.
    predicted: i32,
    predicted_zeros: i32,
    /// A and B: the coefficients, with 14 bits after the point.
    poles: [i32; 2],
    zeros: [i32; 6],
    /// R: the last reconstructed signals, the newest first; D: the last differences.
    signals: [i32; 2],
    differences: [i32; 6],
    /// The signs of the last sums P: 0 or -1.
    signs: [i32; 2],
}

impl Band {
    const fn new(step: i32) -> Self {
        Self {
            step,
            log_step: 0,
            predicted: 0,
            predicted_zeros: 0,
            poles: [0; 2],
            zeros: [0; 6],
            signals: [0; 2],
            differences: [0; 6],
            signs: [0; 2],
        }
    }

    /// Adapts the low band to a word of six bits, the lower two of which do not count.
    fn adapt_low(&mut self, word: usize) {
        let word = word >> 2;
        // INVQAL
        let difference = (self.step * QM4[word]) >> 15;
        // LOGSCL, SCALEL
        self.log_step = (((self.log_step * 127) >> 7) + WL[word]).clamp(0, 18432);
        self.step = scale(self.log_step, 8);
        self.predict(difference);
    }

    /// Adapts the high band to a word of two bits and the difference it stands for.
    fn adapt_high(&mut self, word: usize, difference: i32) {
        // LOGSCH, SCALEH
        self.log_step = (((self.log_step * 127) >> 7) + WH[word]).clamp(0, 22528);
        self.step = scale(self.log_step, 10);
        self.predict(difference);
    }

    /// Takes up a difference, and says what comes next.
    fn predict(&mut self, difference: i32) {
        // RECONS, PARREC
        let signal = sat(self.predicted + difference);
        let sign = sat(self.predicted_zeros + difference) >> 15;
        let agrees = [sign == self.signs[0], sign == self.signs[1]];
        // UPPOL2
        let slope = sat(4 * self.poles[0]);
        let slope = sat(if agrees[0] { -slope } else { slope }) >> 7;
        let pull = if agrees[1] { 128 } else { -128 };
        let second = (pull + slope + ((self.poles[1] * 32512) >> 15)).clamp(-12288, 12288);
        // UPPOL1
        let bound = 15360 - second;
        let pull = if agrees[0] { 192 } else { -192 };
        let first = sat(pull + ((self.poles[0] * 32640) >> 15)).clamp(-bound, bound);
        self.poles = [first, second];
        // UPZERO
        let pull = if difference == 0 { 0 } else { 128 };
        for (zero, last) in self.zeros.iter_mut().zip(&self.differences) {
            let agrees = (last ^ difference) >= 0;
            *zero = sat(((*zero * 32640) >> 15) + if agrees { pull } else { -pull });
        }
        // DELAYA
        self.signals = [signal, self.signals[0]];
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
        self.signs = [sign, self.signs[0]];
        // FILTEP
        let poles = sat(
            ((self.poles[0] * sat(2 * self.signals[0])) >> 15) + ((self.poles[1] * sat(2 * self.signals[1])) >> 15)
        );
        // FILTEZ
        let products = self.zeros.iter().zip(&self.differences).map(|(zero, last)| (zero * sat(2 * last)) >> 15);
        self.predicted_zeros = products.rev().fold(0, |sum, product| sat(sum + product));
        // PREDIC
        self.predicted = sat(poles + self.predicted_zeros);
    }
}

/// The step of a logarithm.
const fn scale(log_step: i32, bits: i32) -> i32 {
    let mantissa = ILB[(log_step >> 6 & 31).cast_unsigned() as usize];
    let shift = bits - (log_step >> 11);
    (if shift < 0 { mantissa << -shift } else { mantissa >> shift }) << 2
}

fn sat(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn saturated(value: i32) -> i16 {
    sat(value) as i16
}

/// A band has 15 bits.
fn limited(value: i32) -> i32 {
    value.clamp(-16384, 16383)
}

/// What may be heard besides where one encoder takes over from another that never comes to its state, as with a tone.
const DIFFERENCE_DB_MAX: f32 = -32.0;
/// Bytes that are handled at once.
const CHUNK: usize = 80;
/// Samples before a pair that the filter looks at.
const QMF_HISTORY: usize = 22;
const LOW_STEP: i32 = 32;
const HIGH_STEP: i32 = 8;

// The tables of section 6.2.

const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// The decision levels between the words of the low band.
const Q6: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219, 1339,
    1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
const QM4: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576,
    -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040,
    -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
/// How a word of the low band changes the logarithm of the step.
const WL: [i32; 16] = [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];
const WH: [i32; 4] = [798, -214, 798, -214];
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tone(hz: f64, amplitude: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| ((n as f64 * hz / 16000.0 * std::f64::consts::TAU).sin() * amplitude) as i16).collect()
    }

    fn there_and_back(samples: &[i16]) -> Vec<i16> {
        let mut bytes = vec![0; samples.len() / 2];
        let mut out = vec![0; samples.len()];
        assert_eq!(G722Encoder::new().encode(samples, &mut bytes), Ok(bytes.len()));
        G722Decoder::new().decode(&bytes, &mut out).unwrap();
        out
    }

    /// The two filters together lag by 22 samples.
    #[test]
    fn tones_of_both_bands_come_back() {
        for (hz, least) in [(300.0, 38.0), (1000.0, 38.0), (3000.0, 36.0), (5000.0, 17.0), (6500.0, 15.0)] {
            let samples = tone(hz, 8000.0, 16000);
            let out = there_and_back(&samples);
            let (mut signal, mut error) = (0.0, 0.0);
            for (a, b) in samples[2000..15000].iter().zip(&out[2022..]) {
                signal += f64::from(*a).powi(2);
                error += (f64::from(*a) - f64::from(*b)).powi(2);
            }
            let db = 10.0 * (signal / error).log10();
            assert!(db > least, "{db:.1} dB at {hz} Hz");
        }
    }

    #[test]
    fn silence_stays_silence() {
        assert!(there_and_back(&[0; 3200]).iter().all(|sample| sample.abs() < 16));
    }

    #[test]
    fn payloads_may_be_cut_anywhere() {
        let bytes: Vec<u8> = (0..400_u32).map(|n| ((n * n) >> 3) as u8).collect();
        let mut whole = [0; 800];
        G722Decoder::new().decode(&bytes, &mut whole).unwrap();
        let (mut decoder, mut parts) = (G722Decoder::new(), [0; 800]);
        for (bytes, out) in bytes.chunks(33).zip(parts.chunks_mut(66)) {
            decoder.decode(bytes, out).unwrap();
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn odd_lengths_are_refused() {
        assert_eq!(G722Encoder::new().encode(&[0; 3], &mut [0; 9]), Err(CodecError::Length));
        assert_eq!(G722Encoder::new().encode(&[0; 4], &mut [0; 1]), Err(CodecError::Length));
    }

    proptest! {
        /// No word is without meaning, and no sum overflows.
        #[test]
        fn anything_decodes_and_anything_encodes(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            samples in proptest::collection::vec(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX)], 0..200),
        ) {
            let mut out = vec![0; bytes.len() * 2];
            G722Decoder::new().decode(&bytes, &mut out).unwrap();
            let samples = &samples[..samples.len() & !1];
            let mut words = vec![0; samples.len() / 2];
            let mut encoder = G722Encoder::new();
            encoder.encode(samples, &mut words).unwrap();
            // A word whose middle is all zeros is never sent.
            prop_assert!(words.iter().all(|word| word & 0x3c != 0));
        }
    }
}
