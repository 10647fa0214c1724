//! Dialogic (OKI) ADPCM: 4 bits a sample, two samples a byte, the first in the high half.
//!
//! Works on 12-bit samples, which here are the upper twelve of sixteen bits. Both sides follow the same predictor, and
//! start from silence and the smallest step.

/// What both sides keep.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    predicted: i32,
    step_index: usize,
}

impl State {
    /// The sample a code stands for, 12 bits.
    fn advance(&mut self, code: u8) -> i32 {
        let step = STEPS[self.step_index];
        let mut change = step / 8;
        for (bit, part) in [(4, step), (2, step / 2), (1, step / 4)] {
            if code & bit != 0 {
                change += part;
            }
        }
        let change = if code & 8 != 0 { -change } else { change };
        self.predicted = (self.predicted + change).clamp(-2048, 2047);
        let moved = match code & 7 {
            0..=3 => self.step_index.saturating_sub(1),
            large => self.step_index + usize::from(large - 3) * 2,
        };
        self.step_index = moved.min(STEPS.len() - 1);
        self.predicted
    }

    fn encode(&mut self, sample: i16) -> u8 {
        let mut difference = i32::from(sample >> 4) - self.predicted;
        let mut code = 0;
        if difference < 0 {
            code = 8;
            difference = -difference;
        }
        let step = STEPS[self.step_index];
        for (bit, part) in [(4, step), (2, step / 2), (1, step / 4)] {
            if difference >= part {
                code |= bit;
                difference -= part;
            }
        }
        self.advance(code);
        code
    }
}

/// From bytes to samples.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    state: State,
}

impl Decoder {
    /// Appends two samples for each byte.
    pub(super) fn decode(&mut self, bytes: &[u8], out: &mut Vec<i16>) {
        for byte in bytes {
            for code in [byte >> 4, byte & 15] {
                // Twelve bits, so it fits once more by four.
                out.push(i16::try_from(self.state.advance(code) * 16).unwrap_or_default());
            }
        }
    }
}

/// From samples to bytes.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    state: State,
}

impl Encoder {
    /// Appends one byte for each two samples; an odd one at the end is followed by silence.
    pub(super) fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        for pair in samples.chunks(2) {
            let high = self.state.encode(pair[0]);
            let low = self.state.encode(pair.get(1).copied().unwrap_or(0));
            out.push(high << 4 | low);
        }
    }
}

const STEPS: [i32; 49] = [
    16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107, 118, 130, 143, 157, 173, 190,
    209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963, 1060, 1166, 1282, 1411, 1552,
];
