//! Dialogic ADPCM, also called OKI ADPCM or VOX: four bits a sample, two samples a byte, the first in the high nibble.
//!
//! Files of it (`.vox`) have no header: the rate, 6 or 8 kHz, has to be known. A code word is a sign and three bits of
//! the difference to the sample before, measured in steps that grow and shrink with the signal. The arithmetic has 12
//! bits; samples have 16, of which the lowest four are zero when decoded. Both ends start from a predicted sample of 0
//! and the smallest step, and a stream cannot be entered in the middle. Voice prompts
//! come back with a signal-to-noise ratio of 15 to 20 dB over all, 20 to 24 dB in the mean of their 20 ms segments.

/// Makes samples of code words.
#[derive(Debug, Clone, Default)]
pub struct AdpcmDecoder {
    state: State,
}

/// Makes code words of samples.
#[derive(Debug, Clone, Default)]
pub struct AdpcmEncoder {
    state: State,
}

impl AdpcmDecoder {
    /// A decoder at the begin of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::START }
    }

    /// Decodes the next bytes into two samples each.
    ///
    /// # Panics
    ///
    /// If `out` is not twice as long as `bytes`.
    pub fn decode(&mut self, bytes: &[u8], out: &mut [i16]) {
        assert_eq!(bytes.len() * 2, out.len(), "two samples for each byte");
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(bytes) {
            *pair = [self.state.decode(byte >> 4), self.state.decode(byte & 0xF)];
        }
    }
}

impl AdpcmEncoder {
    /// An encoder at the begin of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::START }
    }

    /// Encodes the next samples, two to a byte. If their number is odd, the last is coded twice, which only the end of a
    /// stream should need.
    ///
    /// # Panics
    ///
    /// If `out` does not have one byte for two samples, rounded up.
    pub fn encode(&mut self, samples: &[i16], out: &mut [u8]) {
        assert_eq!(samples.len().div_ceil(2), out.len(), "one byte for two samples");
        for (byte, pair) in out.iter_mut().zip(samples.chunks(2)) {
            if let [first, .., last] | [first @ last] = pair {
                *byte = self.state.encode(*first) << 4 | self.state.encode(*last);
            }
        }
    }
}

/// What both ends know.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The last sample decoded, of 12 bits.
    predicted: i16,
    step_index: u8,
}

impl State {
    const START: Self = Self { predicted: 0, step_index: 0 };

    /// The lower four bits of `word` are the code word.
    fn decode(&mut self, word: u8) -> i16 {
        let magnitude = word & MAGNITUDE_MASK;
        // The middle of the interval that the three bits stand for, which are a quarter of the step each.
        let difference = (2 * i16::from(magnitude) + 1) * self.step() / 8;
        let sample = if word & SIGN_BIT == 0 { self.predicted + difference } else { self.predicted - difference };
        self.predicted = sample.clamp(SAMPLE_MIN, SAMPLE_MAX);
        self.step_index = match magnitude {
            0..=3 => self.step_index.saturating_sub(1),
            _ => (self.step_index + 2 * (magnitude - 3)).min(STEP_INDEX_MAX),
        };
        self.predicted << EXTRA_BITS
    }

    /// The code word of a sample; the state becomes that of the decoder.
    fn encode(&mut self, sample: i16) -> u8 {
        let difference = i32::from(sample) - i32::from(self.predicted << EXTRA_BITS);
        let quarters = difference.unsigned_abs() / (u32::from(self.step().unsigned_abs()) << (EXTRA_BITS - 2));
        let magnitude = u8::try_from(quarters).map_or(MAGNITUDE_MASK, |quarters| quarters.min(MAGNITUDE_MASK));
        let word = if difference < 0 { SIGN_BIT | magnitude } else { magnitude };
        self.decode(word);
        word
    }

    fn step(self) -> i16 {
        STEPS[usize::from(self.step_index)]
    }
}

/// From one to the next a tenth more: 16 · 1.1ⁿ.
const STEPS: [i16; 49] = [
    16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107, 118, 130, 143, 157, 173, 190,
    209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963, 1060, 1166, 1282, 1411, 1552,
];
const STEP_INDEX_MAX: u8 = 48;
const SIGN_BIT: u8 = 0b1000;
const MAGNITUDE_MASK: u8 = 0b0111;
const SAMPLE_MIN: i16 = -2048;
const SAMPLE_MAX: i16 = 2047;
/// What a sample of 16 bits has more.
const EXTRA_BITS: u32 = 4;

// The largest difference must fit 16 bits.
const _: () = assert!(15 * STEPS[STEP_INDEX_MAX as usize] as i32 <= i16::MAX as i32);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Vec<i16> {
        let mut out = vec![0; bytes.len() * 2];
        AdpcmDecoder::new().decode(bytes, &mut out);
        out
    }

    fn encoded(samples: &[i16]) -> Vec<u8> {
        let mut out = vec![0; samples.len().div_ceil(2)];
        AdpcmEncoder::new().encode(samples, &mut out);
        out
    }

    #[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
    fn sine(hz: f64, amplitude: f64, count: usize) -> Vec<i16> {
        let angle = |n: usize| n as f64 * hz * core::f64::consts::TAU / 8000.0;
        (0..count).map(|n| (angle(n).sin() * amplitude).round() as i16).collect()
    }

    fn snr_db(samples: &[i16]) -> f64 {
        let back = decoded(&encoded(samples));
        let power = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let signal = power(&mut samples.iter().map(|sample| f64::from(*sample)));
        let noise = power(&mut samples.iter().zip(&back).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        10.0 * (signal / noise).log10()
    }

    /// Bytes with the samples, and samples with the bytes, that SoX 14.4 makes of them. It clips samples at 16 bits, and
    /// carries the 15 that this is more on to the samples after; they are left out here.
    const BYTES: [u8; 40] = [
        0x50, 0x7F, 0x73, 0x34, 0x42, 0x12, 0x40, 0x6B, 0x94, 0x36, 0x0B, 0x41, 0x9A, 0x54, 0x27, 0x5A, 0x60, 0x60,
        0x17, 0x75, 0x77, 0x97, 0x55, 0x77, 0xA2, 0x47, 0x18, 0xFF, 0xD7, 0x53, 0x61, 0xDE, 0xFF, 0x77, 0xFF, 0xFF,
        0x75, 0x77, 0x77, 0x77,
    ];
    const BYTES_DECODED: [i16; 80] = [
        352, 384, 1008, -336, 2560, 5472, 8128, 11232, 14992, 17520, 18896, 20976, 24384, 24832, 30256, 25072, 23056,
        28576, 32752, 32752, 32752, 25136, 32752, 32752, 29488, 24560, 32752, 32752, 32752, 32752, 32752, 17232, 32752,
        32752, 32752, 32752, 32752, 32752, 32752, 32752, 32752, 32752, 23440, 32752, 32752, 32752, 32752, 32752, 17232,
        31328, 32752, 32752, 32752, 29936, -8512, -32768, -32768, 13792, 32752, 32752, 32752, 32752, 1712, -32768,
        -32768, -32768, 13792, 32752, -13808, -32768, -32768, -32768, 13792, 32752, 32752, 32752, 32752, 32752, 32752,
        32752,
    ];
    const SAMPLES: [i16; 80] = [
        194, 156, 190, 31, 165, 503, 525, 1085, 1238, 1998, 2604, 3284, 3497, 3838, 4029, 3441, 2674, 1217, -475,
        -2442, -4397, -6032, -6568, -5841, -3468, -273, 3757, 6855, 8378, 7277, 3861, -1683, -7002, -9874, -8553,
        -3395, 4213, 9894, 10782, 5573, -3411, -11029, -11633, -4699, 6617, 13448, 10367, -1379, -12596, -13134, -1786,
        11863, 14789, 3054, -12529, -15212, -820, 15116, 14013, -4296, -17914, -8430, 12368, 17157, -2404, -19146,
        -8090, 15960, 15906, -9779, -20117, 3256, 21751, 2450, -21552, -6454, 21164, 9042, -21441, -9820,
    ];
    const SAMPLES_ENCODED: [u8; 40] = [
        0x39, 0x0A, 0x25, 0x06, 0x15, 0x24, 0x02, 0x0B, 0xDE, 0xCC, 0xBA, 0x91, 0x64, 0x43, 0x19, 0xCD, 0xC9, 0x04,
        0x42, 0x0A, 0xEA, 0x83, 0x52, 0x9C, 0xC0, 0x34, 0x0B, 0xD8, 0x34, 0x8C, 0xA1, 0x51, 0xCA, 0x24, 0x8C, 0x94,
        0x2B, 0xC2, 0x49, 0xD1,
    ];

    #[test]
    fn code_words_are_those_of_another_implementation() {
        assert_eq!(decoded(&BYTES), BYTES_DECODED);
        assert_eq!(encoded(&SAMPLES), SAMPLES_ENCODED);
        assert!(BYTES_DECODED.contains(&32752) && BYTES_DECODED.contains(&-32768), "both ends are reached");
    }

    #[test]
    fn frames_join() {
        let samples = sine(440.0, 12_000.0, 800);
        let mut encoder = AdpcmEncoder::new();
        let mut bytes = vec![0; 400];
        for (frame, out) in samples.chunks(80).zip(bytes.chunks_mut(40)) {
            encoder.encode(frame, out);
        }
        assert_eq!(bytes, encoded(&samples));
        let mut decoder = AdpcmDecoder::new();
        let mut back = vec![0; 800];
        for (frame, out) in bytes.chunks(40).zip(back.chunks_mut(80)) {
            decoder.decode(frame, out);
        }
        assert_eq!(back, decoded(&bytes));
    }

    #[test]
    fn tones_come_back() {
        for (hz, amplitude, least_db) in
            [(300.0, 20_000.0, 30.0), (1000.0, 20_000.0, 20.0), (1000.0, 5000.0, 20.0), (1000.0, 1000.0, 14.0)]
        {
            let found = snr_db(&sine(hz, amplitude, 8000));
            assert!(found > least_db, "{hz} Hz at {amplitude}: {found} dB");
        }
    }

    #[test]
    fn an_odd_number_of_samples_ends_with_the_last_one_twice() {
        assert_eq!(encoded(&[300, -500, 700]), encoded(&[300, -500, 700, 700]));
        assert_eq!(encoded(&[]), []);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_and_any_samples_encode(
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
            samples in proptest::collection::vec(any::<i16>(), 0..500),
        ) {
            prop_assert!(decoded(&bytes).iter().all(|sample| sample & 0xF == 0));
            prop_assert_eq!(encoded(&samples).len(), samples.len().div_ceil(2));
        }
    }
}
