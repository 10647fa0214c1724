//! Comfort noise (RFC 3389): what a sender says of the background of its silence, noise made from that, and what to say
//! of a background of ours.
//!
//! A description is a level and the reflection coefficients of an all-pole model, one byte each. RFC 3389 leaves the sign
//! of the coefficients to the reader's textbook; here as in what is deployed, a background of low frequencies has a
//! negative first one: it is minus the correlation of neighbouring samples.
//!
//! The model is one of the rate that the payload's RTP clock has: noise for another rate is made at this one, and
//! [resampled](crate::resample).

use crate::mix::{SILENCE_DBOV, energy, level_dbov};

/// The most coefficients that are used or sent.
pub const ORDER_MAX: usize = 10;
/// The fewest that [`NoiseAnalyser`] describes a spectrum by.
pub const ORDER_MIN: usize = 4;

/// The payload of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ComfortNoise {
    level_dbov: i8,
    /// As on the wire; those past `order` are [`FLAT`].
    coefficients: [u8; ORDER_MAX],
    order: u8,
}

impl ComfortNoise {
    /// Noise of a level, `-127 ..= 0`, without a spectrum.
    #[must_use]
    pub fn white(level_dbov: i8) -> Self {
        Self { level_dbov: level_dbov.clamp(SILENCE_DBOV, 0), coefficients: [FLAT; ORDER_MAX], order: 0 }
    }

    /// Reads a payload; `None` if it is empty. Coefficients past the tenth are left out, as RFC 3389 section 3 allows.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (level, rest) = payload.split_first()?;
        let mut noise = Self::white(-level_of(*level));
        let order = rest.len().min(ORDER_MAX);
        for (to, from) in noise.coefficients.iter_mut().zip(rest) {
            *to = (*from).min(COEFFICIENT_MAX);
        }
        noise.order = small(order);
        Some(noise)
    }

    /// Writes the payload, if there is room; the bytes written.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let len = 1 + usize::from(self.order);
        let (level, rest) = out.get_mut(..len)?.split_first_mut()?;
        *level = self.level_dbov.unsigned_abs();
        rest.copy_from_slice(&self.coefficients[..usize::from(self.order)]);
        Some(len)
    }

    /// Level in dBov, as [`level_dbov`] has it.
    #[must_use]
    pub const fn level_dbov(&self) -> i8 {
        self.level_dbov
    }

    /// How many coefficients there are.
    #[must_use]
    pub fn order(&self) -> usize {
        usize::from(self.order)
    }

    /// Whether nobody hears a difference: there is no need to say it again.
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        let (a, b) = (self.reflections(), other.reflections());
        let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        self.level_dbov.abs_diff(other.level_dbov) <= 2 && apart < 0.25
    }

    /// The coefficients as numbers, at most [`REFLECTION_MAX`] in magnitude.
    fn reflections(&self) -> [f32; ORDER_MAX] {
        self.coefficients.map(|byte| {
            let number = 258.0 * (f32::from(byte) - f32::from(FLAT)) / 32768.0;
            number.clamp(-REFLECTION_MAX, REFLECTION_MAX)
        })
    }

    /// Root of the mean square of its samples.
    fn rms(&self) -> f32 {
        if self.level_dbov == SILENCE_DBOV { 0.0 } else { 32768.0 * 10.0_f32.powf(f32::from(self.level_dbov) / 20.0) }
    }
}

/// Makes noise. Silent until it is told what to make; the state is the struct, about 150 bytes.
#[derive(Clone, Debug)]
pub struct NoiseGenerator {
    /// What it is to make, and what it makes: the one is taken up in steps.
    wanted: ([f32; ORDER_MAX], f32),
    current: ([f32; ORDER_MAX], f32),
    /// What the samples made so far add to the next ones.
    ringing: [f32; ORDER_MAX],
    random: u32,
}

impl NoiseGenerator {
    /// Of silence.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_seed(1)
    }

    /// Of silence; noise of another seed is other noise.
    #[must_use]
    pub const fn with_seed(seed: u32) -> Self {
        let nothing = ([0.0; ORDER_MAX], 0.0);
        Self { wanted: nothing, current: nothing, ringing: [0.0; ORDER_MAX], random: seed }
    }

    /// From now on makes what is described; changes are taken up over some frames.
    pub fn set(&mut self, noise: &ComfortNoise) {
        self.wanted = (noise.reflections(), noise.rms());
        if self.current.1 == 0.0 {
            // From silence on there is no spectrum to come from.
            self.current = self.wanted;
            self.ringing = [0.0; ORDER_MAX];
        }
    }

    /// Makes silence again.
    pub const fn clear(&mut self) {
        *self = Self::with_seed(self.random);
    }

    /// Makes samples.
    pub fn fill(&mut self, out: &mut [i16]) {
        for out in out.chunks_mut(STEP) {
            self.approach();
            let (reflections, rms) = &self.current;
            if *rms == 0.0 {
                out.fill(0);
                continue;
            }
            let (taps, gain) = prediction(reflections);
            // What goes in is even between -1 and 1: its mean square is a third.
            let loudness = rms * gain * 3.0_f32.sqrt();
            // In registers, as long as there is no telling that nobody else has it.
            let (mut random, mut ringing) = (self.random, self.ringing);
            for out in out {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let white = f32::from((random.cast_signed() >> 16) as i16) / 32768.0;
                let sample = (loudness * white + ringing[0]).clamp(-LOUDEST, LOUDEST);
                for at in 0..ORDER_MAX - 1 {
                    ringing[at] = ringing[at + 1] - taps[at] * sample;
                }
                ringing[ORDER_MAX - 1] = -taps[ORDER_MAX - 1] * sample;
                *out = rounded(sample);
            }
            (self.random, self.ringing) = (random, ringing);
        }
    }

    fn approach(&mut self) {
        for (current, wanted) in self.current.0.iter_mut().zip(self.wanted.0) {
            *current += (wanted - *current) * APPROACH;
        }
        let (current, wanted) = (&mut self.current.1, self.wanted.1);
        *current += (wanted - *current) * APPROACH;
        if (*current - wanted).abs() < 0.01 {
            *current = wanted;
        }
    }
}

impl Default for NoiseGenerator {
    fn default() -> Self {
        Self::new()
    }
}

/// Describes a background, from frames that hold nothing else. The state is the struct, about 100 bytes.
#[derive(Clone, Debug)]
pub struct NoiseAnalyser {
    /// Correlations of samples 0, 1, .. apart, of a sample's mean; the newest frames count most.
    correlations: [f64; ORDER_MAX + 1],
    /// Mean square, of whole frames.
    power: f64,
    frames: u32,
}

impl NoiseAnalyser {
    /// One that heard nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { correlations: [0.0; ORDER_MAX + 1], power: 0.0, frames: 0 }
    }

    /// Takes up a frame of background.
    pub fn add(&mut self, frame: &[i16]) {
        if frame.len() < 2 * ORDER_MAX {
            return;
        }
        self.frames = self.frames.saturating_add(1);
        let share = (1.0 / f64::from(self.frames)).max(NEWEST);
        let count = len_f64(frame.len());
        self.power += (exact(energy(frame)) / count - self.power) * share;
        // Under a parabola, for a frame's ends are no part of the background.
        let weight = |at: usize| 1.0 - ((len_f64(at) + 0.5) / count * 2.0 - 1.0).powi(2);
        let mut latest = [0.0; ORDER_MAX];
        let mut sums = [0.0; ORDER_MAX + 1];
        for (at, sample) in frame.iter().enumerate() {
            let sample = f64::from(*sample) * weight(at);
            sums[0] += sample * sample;
            for (sum, before) in sums[1..].iter_mut().zip(latest) {
                *sum += sample * before;
            }
            latest.copy_within(..ORDER_MAX - 1, 1);
            latest[0] = sample;
        }
        for (mean, sum) in self.correlations.iter_mut().zip(sums) {
            *mean += (sum / count - *mean) * share;
        }
    }

    /// What to send, with so many coefficients ([`ORDER_MIN`] to [`ORDER_MAX`]); `None` before the first frame.
    #[must_use]
    pub fn comfort_noise(&self, order: usize) -> Option<ComfortNoise> {
        if self.frames == 0 {
            return None;
        }
        let order = order.clamp(ORDER_MIN, ORDER_MAX);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the square of 16 bits")]
        let mut noise = ComfortNoise::white(level_dbov((self.power * 1000.0) as u64, 1000));
        let reflections = reflections(&self.correlations);
        for (byte, reflection) in noise.coefficients[..order].iter_mut().zip(reflections) {
            let number = (reflection * 32768.0 / 258.0 + f64::from(FLAT)).round();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let number = number.clamp(0.0, f64::from(COEFFICIENT_MAX)) as u8;
            *byte = number;
        }
        noise.order = small(order);
        Some(noise)
    }

    /// Forgets all.
    pub const fn clear(&mut self) {
        *self = Self::new();
    }
}

impl Default for NoiseAnalyser {
    fn default() -> Self {
        Self::new()
    }
}

/// The reflection coefficients of correlations (Levinson and Durbin).
fn reflections(correlations: &[f64; ORDER_MAX + 1]) -> [f64; ORDER_MAX] {
    let mut reflections = [0.0; ORDER_MAX];
    // A floor of white noise 50 dB below keeps it well-behaved.
    let mut error = correlations[0] * 1.000_01;
    let mut taps = [0.0; ORDER_MAX];
    for order in 0..ORDER_MAX {
        if error <= 0.0 {
            break;
        }
        let known: f64 = (0..order).map(|at| taps[at] * correlations[order - at]).sum();
        let reflection = -(correlations[order + 1] + known) / error;
        if reflection.abs() >= 1.0 {
            break;
        }
        let before = taps;
        for at in 0..order {
            taps[at] += reflection * before[order - 1 - at];
        }
        taps[order] = reflection;
        reflections[order] = reflection;
        error *= 1.0 - reflection * reflection;
    }
    reflections
}

/// The taps of the predictor of reflection coefficients, and by how much what is left of it is softer than what went in.
fn prediction(reflections: &[f32; ORDER_MAX]) -> ([f32; ORDER_MAX], f32) {
    let (mut taps, mut gain) = ([0.0; ORDER_MAX], 1.0f32);
    for (order, reflection) in reflections.iter().enumerate() {
        let before = taps;
        for at in 0..order {
            taps[at] += reflection * before[order - 1 - at];
        }
        taps[order] = *reflection;
        gain *= 1.0 - reflection * reflection;
    }
    (taps, gain.sqrt())
}

/// The level of a byte, whose highest bit is not used.
const fn level_of(byte: u8) -> i8 {
    (byte & 0x7f).cast_signed()
}

#[expect(clippy::cast_possible_truncation, reason = "ORDER_MAX at most")]
const fn small(order: usize) -> u8 {
    order as u8
}

#[expect(clippy::cast_precision_loss, reason = "the length of a frame")]
const fn len_f64(len: usize) -> f64 {
    len as f64
}

#[expect(clippy::cast_precision_loss, reason = "the energy of a frame")]
const fn exact(energy: u64) -> f64 {
    energy as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
fn rounded(sample: f32) -> i16 {
    (sample + 0.5_f32.copysign(sample)) as i16
}

/// The byte of a coefficient of 0.
const FLAT: u8 = 127;
/// The largest byte that means anything.
const COEFFICIENT_MAX: u8 = 254;
/// Nearer to 1 than this a model rings for longer than a frame: its level would be a matter of luck.
const REFLECTION_MAX: f32 = 0.99;
/// Samples after which a change is taken up a bit more,
const STEP: usize = 80;
/// by this part of it.
const APPROACH: f32 = 0.25;
/// What a new frame counts for at least: some 150 ms are heard at once.
const NEWEST: f64 = 1.0 / 16.0;
/// Models that ring stay bounded.
const LOUDEST: f32 = 65536.0;

#[cfg(test)]
#[path = "noise/tests.rs"]
mod tests;
