//! µ-law and A-law: eight bits a sample, 64 kbit/s at 8 kHz (ITU-T G.711).
//!
//! Both laws are computed, not looked up: a loop over arithmetic vectorises, a loop over a table does not. Encoding
//! uses that a code word is what the top of an IEEE 754 number is, an exponent and a mantissa of which four bits are
//! kept: it converts the magnitude to `f32` and reads them off, where integers would want a count of leading zeros and
//! a shift for each sample.
//!
//! Samples are 16 bits wide, which is the 14-bit scale of µ-law times 4 and the 13-bit scale of A-law times 8. A sample
//! that lies exactly on a decision value goes away from zero if it is positive and towards zero if it is negative. The
//! Recommendation leaves that open; this is what the ITU-T software tool library (G.191) does, which takes the
//! magnitude of a negative sample from its ones' complement.

use crate::dispatch::kernels;

/// The µ-law code word of a zero sample.
pub const ULAW_SILENCE: u8 = 0xFF;
/// The A-law code word of a zero sample. A-law has no zero: it decodes to 8.
pub const ALAW_SILENCE: u8 = 0xD5;

/// Decodes µ-law. The samples lie in `-32124 ..= 32124`.
///
/// # Panics
///
/// If the lengths differ.
pub fn decode_ulaw(payload: &[u8], out: &mut [i16]) {
    assert_eq!(payload.len(), out.len(), "one code word for each sample");
    kernels().decode_ulaw(payload, out);
}

/// Encodes µ-law. Samples beyond ±32635 are clipped.
///
/// # Panics
///
/// If the lengths differ.
pub fn encode_ulaw(samples: &[i16], out: &mut [u8]) {
    assert_eq!(samples.len(), out.len(), "one code word for each sample");
    kernels().encode_ulaw(samples, out);
}

/// Decodes A-law. The samples lie in `-32256 ..= 32256`; none is zero.
///
/// # Panics
///
/// If the lengths differ.
pub fn decode_alaw(payload: &[u8], out: &mut [i16]) {
    assert_eq!(payload.len(), out.len(), "one code word for each sample");
    kernels().decode_alaw(payload, out);
}

/// Encodes A-law.
///
/// # Panics
///
/// If the lengths differ.
pub fn encode_alaw(samples: &[i16], out: &mut [u8]) {
    assert_eq!(samples.len(), out.len(), "one code word for each sample");
    kernels().encode_alaw(samples, out);
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    #[inline(always)]
    pub(crate) fn decode_ulaw(payload: &[u8], out: &mut [i16]) {
        for (sample, word) in out.iter_mut().zip(payload) {
            *sample = super::decode_ulaw_word(*word);
        }
    }

    #[inline(always)]
    pub(crate) fn encode_ulaw(samples: &[i16], out: &mut [u8]) {
        for (word, sample) in out.iter_mut().zip(samples) {
            *word = super::encode_ulaw_sample(*sample);
        }
    }

    #[inline(always)]
    pub(crate) fn decode_alaw(payload: &[u8], out: &mut [i16]) {
        for (sample, word) in out.iter_mut().zip(payload) {
            *sample = super::decode_alaw_word(*word);
        }
    }

    #[inline(always)]
    pub(crate) fn encode_alaw(samples: &[i16], out: &mut [u8]) {
        for (word, sample) in out.iter_mut().zip(samples) {
            *word = super::encode_alaw_sample(*sample);
        }
    }
}

/// All bits of a µ-law word are sent inverted; underneath, the sign bit is set for negative samples.
#[inline(always)]
fn decode_ulaw_word(word: u8) -> i16 {
    let bits = !word;
    // The middle of the step is (33 + 2·mantissa)·2^exponent - 33 on the 14-bit scale.
    let biased = (i16::from(bits & MANTISSA_MASK) << 3 | ULAW_BIAS) << (bits >> 4 & EXPONENT_MAX);
    let magnitude = biased - ULAW_BIAS;
    if bits & SIGN_BIT != 0 { -magnitude } else { magnitude }
}

/// The bias makes every segment start at a power of two, 2⁷ for the first.
#[inline(always)]
fn encode_ulaw_sample(sample: i16) -> u8 {
    let biased = magnitude(sample).min(ULAW_MAX) + ULAW_BIAS;
    !(top_bits(biased, 7) | negative_bit(sample))
}

/// Every other bit of an A-law word is sent inverted; underneath, the sign bit is set for positive samples.
#[inline(always)]
fn decode_alaw_word(word: u8) -> i16 {
    let bits = word ^ ALAW_INVERTED;
    let exponent = bits >> 4 & EXPONENT_MAX;
    let step = i16::from(bits & MANTISSA_MASK) << 4 | 8;
    // Segment 0 has the step of segment 1, but starts at zero.
    let magnitude = if exponent == 0 { step } else { (step | 0x100) << (exponent - 1) };
    if bits & SIGN_BIT != 0 { magnitude } else { -magnitude }
}

/// Counted in the smallest step, segment 1 starts at 2⁴ and every further one at the next power of two.
#[inline(always)]
fn encode_alaw_sample(sample: i16) -> u8 {
    let steps = magnitude(sample) >> 4;
    let bits = top_bits(steps, 3);
    #[expect(clippy::cast_possible_truncation, reason = "below 16")]
    let bits = if steps < 16 { steps as u8 } else { bits };
    (bits | negative_bit(sample)) ^ SIGN_BIT ^ ALAW_INVERTED
}

/// The magnitude of a sample, `0 ..= 32767`; one less than the absolute value if it is negative.
#[inline(always)]
const fn magnitude(sample: i16) -> i16 {
    sample ^ (sample >> 15)
}

/// The sign bit of a code word if the sample is negative.
#[inline(always)]
const fn negative_bit(sample: i16) -> u8 {
    (sample >> 15) as u8 & SIGN_BIT
}

/// The exponent of `value` above `base` in bits 4 to 6 and the four bits after its leading one in bits 0 to 3, for
/// values from 2^`base` to 2^(`base` + 8) - 1. Other values give bits that mean nothing.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "seven bits are left, or the result is not used")]
const fn top_bits(value: i16, base: u32) -> u8 {
    // Every i16 is an f32 exactly. Bits 19 to 22 of one are the top of its mantissa, its exponent follows.
    let float = value as i32 as f32;
    (float.to_bits() >> 19).wrapping_sub((F32_EXPONENT_BIAS + base) << 4) as u8
}

const SIGN_BIT: u8 = 0x80;
const EXPONENT_MAX: u8 = 7;
const MANTISSA_MASK: u8 = 0x0F;
/// 33 on the 14-bit scale.
const ULAW_BIAS: i16 = 33 * 4;
/// The largest magnitude that fits with the bias; what lies above is clipped.
const ULAW_MAX: i16 = i16::MAX - ULAW_BIAS;
const ALAW_INVERTED: u8 = 0x55;
const F32_EXPONENT_BIAS: u32 = 127;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;

    /// G.711 as its tables state it: decision values, each positive code word standing for the values from its own
    /// decision value to the next, and the value in the middle as the decoder's output. Scaled to 16 bits.
    struct Law {
        /// Decision values x(1) to x(129) of tables 1a and 2a, x(n) being the lower end of interval n.
        decisions: Vec<i32>,
        /// Character signal of interval n, for a positive and for a negative sample.
        words: Vec<[u8; 2]>,
        /// Quantised value of interval n.
        values: Vec<i32>,
    }

    impl Law {
        /// Table 2a: after half a step of 1, 15 steps of 2, then seven segments of 16 steps of 4, 8, … 256 on the
        /// 14-bit scale. Interval 1 holds zero, its value is 0.
        fn ulaw() -> Self {
            let mut decisions = vec![0, 1];
            for step in (0..8).map(|segment| 2 << segment) {
                let steps = if step == 2 { 15 } else { 16 };
                for _ in 0..steps {
                    decisions.push(decisions[decisions.len() - 1] + step);
                }
            }
            assert_eq!(decisions.len(), 129);
            assert_eq!(decisions[128], 8159, "the virtual decision value of table 2a");
            let mut values: Vec<i32> = decisions.windows(2).map(|ends| (ends[0] + ends[1]) / 2).collect();
            values[0] = 0;
            let words = (0..128).map(|interval| [0xFF - interval, 0x7F - interval]).collect();
            let scale = |values: Vec<i32>| values.into_iter().map(|value| value * 4).collect();
            Self { decisions: scale(decisions), words, values: scale(values) }
        }

        /// Table 1a: 32 steps of 2, then six segments of 16 steps of 4, 8, … 128 on a scale where full scale is 4096.
        fn alaw() -> Self {
            let mut decisions = vec![0];
            for step in [2, 2, 4, 8, 16, 32, 64, 128] {
                for _ in 0..16 {
                    decisions.push(decisions[decisions.len() - 1] + step);
                }
            }
            assert_eq!(decisions.len(), 129);
            assert_eq!(decisions[128], 4096, "the virtual decision value of table 1a");
            let values = decisions.windows(2).map(|ends| (ends[0] + ends[1]) * 4).collect();
            let words = (0..128_u8).map(|interval| [(0x80 | interval) ^ 0x55, interval ^ 0x55]).collect();
            Self { decisions: decisions.into_iter().map(|value| value * 8).collect(), words, values }
        }

        /// A negative sample on a decision value stays in the interval nearer to zero.
        fn encode(&self, sample: i16) -> u8 {
            let sample = i32::from(sample);
            let (magnitude, sign) = if sample < 0 { (-sample - 1, 1) } else { (sample, 0) };
            let interval = self.decisions[..128].iter().rposition(|decision| *decision <= magnitude).unwrap();
            self.words[interval][sign]
        }

        fn decode(&self, word: u8) -> i16 {
            let interval = self.words.iter().position(|words| words.contains(&word)).unwrap();
            let value = self.values[interval];
            i16::try_from(if self.words[interval][1] == word { -value } else { value }).unwrap()
        }
    }

    fn all_words() -> Vec<u8> {
        (0..=u8::MAX).collect()
    }

    fn all_samples() -> Vec<i16> {
        (i16::MIN..=i16::MAX).collect()
    }

    #[test]
    fn every_code_word_decodes_to_the_value_of_the_recommendation() {
        let words = all_words();
        let (ulaw, alaw) = (Law::ulaw(), Law::alaw());
        let expected_ulaw: Vec<i16> = words.iter().map(|word| ulaw.decode(*word)).collect();
        let expected_alaw: Vec<i16> = words.iter().map(|word| alaw.decode(*word)).collect();
        for kernels in dispatch::supported() {
            let mut samples = vec![1; words.len()];
            kernels.decode_ulaw(&words, &mut samples);
            assert_eq!(samples, expected_ulaw, "µ-law, {kernels:?}");
            kernels.decode_alaw(&words, &mut samples);
            assert_eq!(samples, expected_alaw, "A-law, {kernels:?}");
        }
    }

    #[test]
    fn every_sample_encodes_to_the_character_signal_of_the_recommendation() {
        let samples = all_samples();
        let (ulaw, alaw) = (Law::ulaw(), Law::alaw());
        let expected_ulaw: Vec<u8> = samples.iter().map(|sample| ulaw.encode(*sample)).collect();
        let expected_alaw: Vec<u8> = samples.iter().map(|sample| alaw.encode(*sample)).collect();
        for kernels in dispatch::supported() {
            let mut words = vec![1; samples.len()];
            kernels.encode_ulaw(&samples, &mut words);
            assert!(words == expected_ulaw, "µ-law, {kernels:?}");
            kernels.encode_alaw(&samples, &mut words);
            assert!(words == expected_alaw, "A-law, {kernels:?}");
        }
    }

    #[test]
    fn well_known_words_have_their_well_known_values() {
        let mut samples = [1; 6];
        decode_ulaw(&[ULAW_SILENCE, 0x7F, 0x80, 0x00, 0xFE, 0x7E], &mut samples);
        assert_eq!(samples, [0, 0, 32124, -32124, 8, -8]);
        decode_alaw(&[ALAW_SILENCE, 0x55, 0xAA, 0x2A, 0xD4, 0x54], &mut samples);
        assert_eq!(samples, [8, -8, 32256, -32256, 24, -24]);
        let mut words = [1; 4];
        encode_ulaw(&[0, -1, i16::MAX, i16::MIN], &mut words);
        assert_eq!(words, [ULAW_SILENCE, 0x7F, 0x80, 0x00]);
        encode_alaw(&[0, -1, i16::MAX, i16::MIN], &mut words);
        assert_eq!(words, [ALAW_SILENCE, 0x55, 0xAA, 0x2A]);
    }

    #[test]
    fn what_was_decoded_encodes_to_the_same_word() {
        let words = all_words();
        let (mut samples, mut again) = (vec![0; words.len()], vec![0; words.len()]);
        decode_alaw(&words, &mut samples);
        encode_alaw(&samples, &mut again);
        assert_eq!(again, words);
        decode_ulaw(&words, &mut samples);
        encode_ulaw(&samples, &mut again);
        // µ-law has two words for zero; the negative one comes back as the positive.
        again[0x7F] = 0x7F;
        assert_eq!(again, words);
    }

    #[test]
    fn any_length_works_so_that_no_tail_is_forgotten() {
        let words = all_words();
        let mut whole = vec![0; words.len()];
        decode_ulaw(&words, &mut whole);
        for len in 0..=words.len() {
            let mut samples = vec![1; len];
            decode_ulaw(&words[..len], &mut samples);
            assert_eq!(samples, whole[..len]);
            let mut again = vec![1; len];
            encode_alaw(&samples, &mut again);
            let mut expected = vec![1; words.len()];
            encode_alaw(&whole, &mut expected);
            assert_eq!(again, expected[..len]);
        }
    }

    #[test]
    #[should_panic(expected = "one code word for each sample")]
    fn lengths_that_differ_are_refused() {
        decode_ulaw(&[0; 160], &mut [0; 80]);
    }
}
