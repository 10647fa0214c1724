//! Decodes G.726 at 16 kbit/s: two bits a sample, for recordings that were made so.
//!
//! The decoder of ITU-T G.726 s.4 with the output of its Annex A, that is linear samples. The names of the blocks of the
//! Recommendation stand beside what does their work. The arithmetic is that of the Recommendation to the bit: 16-bit
//! fixed point, and a floating-point format of 4 bits exponent and 6 bits mantissa for what the predictor multiplies.
//!
//! Four samples make a byte, the first in its least significant bits (RFC 3551 s.4.5.4).

/// Decodes a stream of G.726 at 16 kbit/s.
#[derive(Debug, Clone)]
pub struct G726Decoder16k {
    /// The fast and the slow scale factor, logarithms to the base 2 with 9 and 15 bits after the point.
    fast_scale: i32,
    slow_scale: i32,
    /// The short-term and the long-term mean of what the code words say of the loudness.
    short_mean: i32,
    long_mean: i32,
    /// How fast the scale may change.
    speed: i32,
    /// The coefficients of the predictor, with 14 bits after the point.
    poles: [i32; 2],
    zeros: [i32; 6],
    /// What they are multiplied with: the last reconstructed signals and the last differences, the newest first.
    signals: [Float; 2],
    differences: [Float; 6],
    /// The signs of the last sums of difference and sixth-order prediction.
    is_negative: [bool; 2],
    /// The signal is a part of a band only, such as the tone of a modem.
    is_tone: bool,
}

impl G726Decoder16k {
    /// A decoder at the begin of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fast_scale: FAST_SCALE_MIN,
            slow_scale: FAST_SCALE_MIN << 6,
            short_mean: 0,
            long_mean: 0,
            speed: 0,
            poles: [0; 2],
            zeros: [0; 6],
            signals: [Float::ZERO; 2],
            differences: [Float::ZERO; 6],
            is_negative: [false; 2],
            is_tone: false,
        }
    }

    /// Decodes the next bytes into four samples each.
    ///
    /// # Panics
    ///
    /// If `out` is not four times as long as `bytes`.
    pub fn decode(&mut self, bytes: &[u8], out: &mut [i16]) {
        assert_eq!(bytes.len() * 4, out.len(), "four samples for each byte");
        let (quads, _) = out.as_chunks_mut::<4>();
        for (quad, byte) in quads.iter_mut().zip(bytes) {
            *quad = [0, 2, 4, 6].map(|shift| self.decode_word(byte >> shift & 0b11));
        }
    }

    fn decode_word(&mut self, word: u8) -> i16 {
        let (is_outer, is_negative) = match word {
            0 => (false, false),
            1 => (true, false),
            2 => (true, true),
            _ => (false, true),
        };
        // FMULT, ACCUM
        let zeros: i32 = products(&self.zeros, &self.differences);
        let partial = wrapped(zeros) >> 1;
        let predicted = wrapped(zeros + products(&self.poles, &self.signals)) >> 1;

        let scale = self.scale();
        // RECONST, ADDA, ANTILOG
        let logarithm = (if is_outer { 365 } else { 116 }) + (scale >> 2);
        let magnitude = ((128 + (logarithm & 127)) << 7) >> (14 - (logarithm >> 7 & 15));
        let difference = if is_negative { -magnitude } else { magnitude };
        // ADDB, ADDC
        let signal = wrapped(predicted + difference);
        let sum = wrapped(partial + difference);

        let is_transition = self.is_tone && magnitude > self.transition_threshold();
        self.adapt_scale(scale, is_outer);
        self.adapt_poles(sum);
        self.adapt_zeros(magnitude, is_negative);
        // TONE; TRIGB
        self.is_tone = self.poles[1] < TONE_MAX;
        self.adapt_speed(scale, is_outer);
        if is_transition {
            (self.poles, self.zeros, self.is_tone, self.speed) = ([0; 2], [0; 6], false, 256);
        }
        // FLOATA, FLOATB, and the delays
        self.differences.rotate_right(1);
        self.differences[0] = Float::new(magnitude, is_negative);
        self.signals = [Float::new(signal.abs() & 0x7FFF, signal < 0), self.signals[0]];
        self.is_negative = [sum < 0, self.is_negative[0]];
        output(signal)
    }

    /// LIMA, MIX: the fast and the slow scale factor, weighed.
    fn scale(&self) -> i32 {
        let weight = if self.speed >= 256 { 64 } else { self.speed >> 2 };
        let slow = self.slow_scale >> 6;
        // Rounded towards zero.
        slow + (self.fast_scale - slow) * weight / 64
    }

    /// TRANS: a difference above this, in a tone, is the begin of something else.
    fn transition_threshold(&self) -> i32 {
        let exponent = self.slow_scale >> 15;
        let threshold = if exponent > 9 { 31 << 10 } else { (32 + (self.slow_scale >> 10 & 31)) << exponent };
        (threshold + (threshold >> 1)) >> 1
    }

    /// FUNCTW, FILTD, LIMB, FILTE
    fn adapt_scale(&mut self, scale: i32, is_outer: bool) {
        let weight = if is_outer { 439 } else { -22 };
        self.fast_scale = (scale + (((weight << 5) - scale) >> 5)).clamp(FAST_SCALE_MIN, FAST_SCALE_MAX);
        self.slow_scale += self.fast_scale + (-self.slow_scale >> 6);
    }

    /// FUNCTF, FILTA, FILTB, SUBTC, FILTC
    fn adapt_speed(&mut self, scale: i32, is_outer: bool) {
        let loudness = if is_outer { 7 } else { 0 };
        self.short_mean += ((loudness << 9) - self.short_mean) >> 5;
        self.long_mean += ((loudness << 11) - self.long_mean) >> 7;
        let is_changing = ((self.short_mean << 2) - self.long_mean).abs() >= self.long_mean >> 3;
        let target = if scale < 1536 || is_changing || self.is_tone { 1 << 9 } else { 0 };
        self.speed += (target - self.speed) >> 4;
    }

    /// UPA2, LIMC, UPA1, LIMD
    fn adapt_poles(&mut self, sum: i32) {
        let [first, second] = self.poles;
        let [differs_from_last, differs_from_second] = self.is_negative.map(|was_negative| was_negative != (sum < 0));
        let (mut first_gain, mut second_gain) = (0, 0);
        if sum != 0 {
            first_gain = if differs_from_last { -192 } else { 192 };
            let limited = first.clamp(-8191, 8191) << 2;
            let second_part = if differs_from_second { -(1 << 14) } else { 1 << 14 };
            second_gain = (second_part + if differs_from_last { limited } else { -limited }) >> 7;
        }
        let second = (second + second_gain - (second >> 7)).clamp(-12_288, 12_288);
        let limit = 15_360 - second;
        self.poles = [(first + first_gain - (first >> 8)).clamp(-limit, limit), second];
    }

    /// XOR, UPB
    fn adapt_zeros(&mut self, magnitude: i32, is_negative: bool) {
        for (zero, difference) in self.zeros.iter_mut().zip(&self.differences) {
            let gain = match (magnitude, is_negative == difference.is_negative) {
                (0, _) => 0,
                (_, true) => 128,
                (_, false) => -128,
            };
            *zero += gain - (*zero >> 8);
        }
    }
}

impl Default for G726Decoder16k {
    fn default() -> Self {
        Self::new()
    }
}

/// A number of 11 bits: mantissa · 2^exponent / 64, with a sign. The mantissa is 32 to 63, for zero as well.
#[derive(Debug, Clone, Copy)]
struct Float {
    is_negative: bool,
    exponent: u32,
    mantissa: i32,
}

impl Float {
    const ZERO: Self = Self { is_negative: false, exponent: 0, mantissa: 32 };

    const fn new(magnitude: i32, is_negative: bool) -> Self {
        let exponent = i32::BITS - magnitude.leading_zeros();
        let mantissa = if magnitude == 0 { 32 } else { (magnitude << 6) >> exponent };
        Self { is_negative, exponent, mantissa }
    }

    /// FMULT: the product with a coefficient, of which only the upper 14 bits count.
    fn times(self, coefficient: i32) -> i32 {
        let coefficient = coefficient >> 2;
        let factor = Self::new(coefficient.abs() & 0x1FFF, coefficient < 0);
        let exponent = self.exponent + factor.exponent;
        let mantissa = ((self.mantissa * factor.mantissa + 48) >> 4) << 7;
        let magnitude = if exponent <= 26 { mantissa >> (26 - exponent) } else { mantissa << (exponent - 26) & 0x7FFF };
        if self.is_negative == factor.is_negative { magnitude } else { -magnitude }
    }
}

fn products<const N: usize>(coefficients: &[i32; N], values: &[Float; N]) -> i32 {
    coefficients.iter().zip(values).map(|(coefficient, value)| value.times(*coefficient)).sum()
}

/// What is left of a number in 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "the Recommendation's sums have 16 bits")]
fn wrapped(value: i32) -> i32 {
    i32::from(value as i16)
}

/// LIMO: 14 bits, at the upper end of 16.
#[expect(clippy::cast_possible_truncation, reason = "clamped before")]
fn output(signal: i32) -> i16 {
    (signal.clamp(-(1 << 13), (1 << 13) - 1) << 2) as i16
}

const FAST_SCALE_MIN: i32 = 544;
const FAST_SCALE_MAX: i32 = 5120;
/// The second pole of a tone lies below this.
const TONE_MAX: i32 = -11_776;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Vec<i16> {
        let mut out = vec![0; bytes.len() * 4];
        G726Decoder16k::new().decode(bytes, &mut out);
        out
    }

    /// Code words in no order; most are of the inner two, or there would be little but overload.
    fn any_bytes() -> Vec<u8> {
        let mut seed = 1_u32;
        (0..40_000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [_, a, b, c] = seed.to_le_bytes();
                if a < 40 { b } else { (c & 0x55) * 3 }
            })
            .collect()
    }

    #[test]
    fn samples_are_those_of_another_implementation() {
        assert_eq!(decoded(&BYTES), DECODED);
        // FNV-1a.
        let hash = decoded(&any_bytes())
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        assert_eq!(hash, HASH, "{hash:X}");
    }

    #[test]
    fn frames_join() {
        let bytes = any_bytes();
        let mut decoder = G726Decoder16k::new();
        let mut out = vec![0; bytes.len() * 4];
        for (bytes, out) in bytes.chunks(20).zip(out.chunks_mut(80)) {
            decoder.decode(bytes, out);
        }
        assert_eq!(out, decoded(&bytes));
    }

    #[test]
    fn what_is_too_loud_is_clipped() {
        for byte in 0..=255 {
            let out = decoded(&[byte; 500]);
            assert!(out.iter().all(|sample| (-32_768..=32_764).contains(sample)));
            let steepest = out.windows(2).map(|pair| i32::from(pair[0]).abs_diff(i32::from(pair[1]))).max();
            assert!(steepest <= Some(65_532), "{byte}");
        }
    }

    /// A swept sine with pauses, and what spandsp 0.0.6 decodes it to.
    const BYTES: [u8; 64] = [
        0x54, 0x55, 0x55, 0x55, 0x01, 0x01, 0xF0, 0xAE, 0xEF, 0x03, 0x11, 0xF1, 0xBB, 0x7F, 0x04, 0xE0, 0xFE, 0x11,
        0x3C, 0xC3, 0x33, 0x33, 0x33, 0xC3, 0xC3, 0xA5, 0x56, 0x2B, 0xC4, 0x7E, 0xB0, 0x13, 0x3B, 0xB4, 0xD3, 0x78,
        0xFC, 0x84, 0x43, 0x0E, 0x38, 0xFD, 0xB4, 0x90, 0x3D, 0x3F, 0x03, 0xCC, 0x33, 0xC3, 0x69, 0x5B, 0x1E, 0xC2,
        0x92, 0x80, 0xB0, 0x3D, 0x6C, 0x1F, 0x93, 0xF0, 0x7D, 0x0F,
    ];
    const DECODED: [i16; 256] = [
        12, 60, 68, 80, 100, 120, 144, 192, 264, 356, 548, 912, 1468, 2412, 3984, 6304, 10056, 7772, 7448, 7212, 11508,
        9532, 8896, 7652, 6912, 6288, 4204, 2312, -624, -1088, -4124, -7748, -7276, -7244, -10972, -9928, -9652, -6320,
        -3800, -2072, 1460, 2704, 6400, 6852, 10564, 10252, 6608, 3732, 1844, -2492, -3752, -8064, -8800, -8556, -8176,
        -2652, 172, 5716, 7424, 8016, 7888, 7440, 2060, -904, -6052, -7704, -7852, -7444, -1836, 1672, 7416, 9148,
        8992, 5468, 1756, 880, -512, -264, 456, 148, -308, 20, -236, -16, -144, 48, -112, 80, -80, 88, -80, 76, -76,
        68, 60, 24, -48, 20, 36, -12, 152, 352, -180, -832, -1808, 560, 3320, 7332, 3532, -3176, -11876, -5136, -1148,
        9112, 9880, 4908, -6928, -8432, -9288, 2776, 6620, 8216, 2300, -6080, -8900, -2688, 6832, 9060, 3656, -7516,
        -9764, -3604, 2996, 9288, 3680, -7952, -11224, -3384, 8584, 6280, 3068, -8744, -10128, 3644, 11860, 4148,
        -3216, -7324, -2744, 7576, 9096, -3128, -9128, -4072, 3744, 10220, -1716, -10776, -5632, 4660, 7624, -1824,
        -9416, -4464, 8396, 6560, -2140, -7736, -2376, 6916, 5556, -5900, -6060, 1572, 10156, -1264, 3564, -180, -3540,
        -1332, 700, -1136, -1496, -512, -580, 868, 492, 372, 296, -172, -28, 56, 4, 232, 40, 88, -128, -20, 124, 0,
        328, -480, -1352, 1088, 296, -2312, 2064, 7420, -4932, -8376, 7452, 11476, -8892, -4676, 3984, 1852, -9960,
        -2604, 14140, -8864, -3848, 6692, 8600, -11888, -3400, 6404, 1720, -12380, 8884, 2692, -7120, -424, 6256,
        -1032, -9400, 8028, 3020, -6432, 7760, 10628, -4404, -1664, 10756, -9124, -2372, 8908, -896, -7108, 8628, 648,
        -6312, 7176, 1736, -6792, 2000, 4692,
    ];
    /// The hash of what it decodes [`any_bytes`] to.
    const HASH: u64 = 0xF576BD72B5C2F0DB;
}
