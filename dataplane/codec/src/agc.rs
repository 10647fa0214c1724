//! Brings the voices of a conference to one loudness, each by a gain of its own that follows what is said, slowly.
//!
//! The loudness is that of the frames with voice in them; in silence the gain stands still, so that a background does not
//! swell in pauses. Nor is a gain taken that would lift the background above what is hardly heard. A peak that would not
//! fit takes the gain down at once.
//!
//! The state is the struct, less than 100 bytes; a frame whose gain is 1 is not touched.

use crate::dispatch::kernels;
use crate::mix::{energy, peak};
use crate::vad::{Vad, Voice};

/// The level voices are brought to, in dBov: -19 dBm0 on a telephone line.
pub const TARGET_DBOV: f32 = -22.0;
/// The largest gain, in dB.
pub const GAIN_MAX_DB: f32 = 18.0;
/// The smallest.
pub const GAIN_MIN_DB: f32 = -12.0;

/// Controls the gain of one stream.
#[derive(Clone, Debug)]
pub struct Agc {
    vad: Vad,
    /// Mean power of the frames with voice, of a full square wave, and how many they were.
    speech: f32,
    frames: u16,
    /// Frames of any kind.
    heard: u16,
    gain_db: f32,
    /// The same as a factor: what the last sample was multiplied by.
    gain: f32,
}

impl Agc {
    /// With a gain of 1.
    #[must_use]
    pub const fn new() -> Self {
        Self { vad: Vad::new(), speech: 0.0, frames: 0, heard: 0, gain_db: 0.0, gain: 1.0 }
    }

    /// The gain in dB.
    #[must_use]
    pub const fn gain_db(&self) -> f32 {
        self.gain_db
    }

    /// Takes a frame of 10 ms, of any rate, and gives it its gain. What is said of it is of how it came.
    pub fn process(&mut self, frame: &mut [i16]) -> Voice {
        let voice = self.vad.process(frame);
        self.heard = self.heard.saturating_add(1);
        if self.vad.is_voice_now() && self.heard > FRAMES_FIRST {
            self.learn(frame);
            if self.frames >= FRAMES_MIN {
                let step = self.wanted_db() - self.gain_db;
                self.gain_db += step.clamp(-FALL_DB, RISE_DB);
            }
        }
        // A background that grew takes it down in pauses, too.
        self.gain_db = self.gain_db.min(self.allowed_db().max(self.gain_db - FALL_DB));
        let mut to = if self.gain_db == 0.0 { 1.0 } else { 10.0_f32.powf(self.gain_db / 20.0) };
        let highest = f32::from(peak(frame).max(1));
        if highest * to.max(self.gain) > PEAK {
            to = to.min(PEAK / highest);
            self.gain_db = (20.0 * to.log10()).clamp(GAIN_MIN_DB, GAIN_MAX_DB);
        }
        let from = core::mem::replace(&mut self.gain, to);
        if (from, to) != (1.0, 1.0) {
            #[expect(clippy::cast_precision_loss, reason = "the length of a frame")]
            let step = (to - from) / frame.len().max(1) as f32;
            kernels().ramp(frame, from, step);
        }
        voice
    }

    /// Begins another stream.
    pub const fn reset(&mut self) {
        *self = Self::new();
    }

    #[expect(clippy::cast_precision_loss, reason = "a level is not that exact")]
    fn learn(&mut self, frame: &[i16]) {
        let power = energy(frame) as f32 / frame.len().max(1) as f32 / (32768.0 * 32768.0);
        self.frames = self.frames.saturating_add(1).min(FRAMES_MAX);
        self.speech += (power - self.speech) / f32::from(self.frames);
    }

    fn wanted_db(&self) -> f32 {
        let speech_db = 10.0 * self.speech.max(1e-10).log10();
        (TARGET_DBOV - speech_db).clamp(GAIN_MIN_DB, self.allowed_db())
    }

    /// The gain that does not lift the background too far.
    fn allowed_db(&self) -> f32 {
        (NOISE_DBOV - self.vad.floor_db()).clamp(0.0, GAIN_MAX_DB)
    }
}

impl Default for Agc {
    fn default() -> Self {
        Self::new()
    }
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    /// Multiplies by `gain`, which changes by `step` with every sample.
    #[inline(always)]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "clamped before")]
    pub(crate) fn ramp(samples: &mut [i16], gain: f32, step: f32) {
        /// A float this large has no digits after the point: what is added to it is rounded.
        const WHOLE: f32 = 12_582_912.0;
        for (at, sample) in (0_i32..).zip(samples.iter_mut()) {
            let scaled = f32::from(*sample) * (gain + step * at as f32);
            let rounded = scaled.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) + WHOLE;
            *sample = rounded.to_bits().wrapping_sub(WHOLE.to_bits()) as i16;
        }
    }
}

/// Until then a background might be taken for a voice.
const FRAMES_FIRST: u16 = 130;
/// Frames of voice before the gain moves: 300 ms,
const FRAMES_MIN: u16 = 30;
/// and as many as count: three seconds.
const FRAMES_MAX: u16 = 300;
/// In a frame: 3 dB in a second up, 12 down.
const RISE_DB: f32 = 0.03;
const FALL_DB: f32 = 0.12;
/// A background is not made louder than this.
const NOISE_DBOV: f32 = -48.0;
/// The largest sample a gain is taken for, a little below what there is.
const PEAK: f32 = 32000.0;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dispatch;
    use crate::kind::Rate;
    use crate::mix::level_dbov;
    use crate::noise::{ComfortNoise, NoiseGenerator};

    /// A voice of a level in dBov, 600 ms in every 1000, over a background.
    fn talk(rate: Rate, level: f64, background: i8, seconds: usize) -> Vec<i16> {
        let mut noise = NoiseGenerator::new();
        noise.set(&ComfortNoise::white(background));
        let mut samples = vec![0; seconds * rate.hz() as usize];
        noise.fill(&mut samples);
        // The mean square of the three sines is 0.645.
        let amplitude = 32768.0 * 10_f64.powf(level / 20.0) / 0.645_f64.sqrt();
        for (n, sample) in samples.iter_mut().enumerate() {
            let t = n as f64 / f64::from(rate.hz());
            if t.fract() < 0.6 {
                let phase = 150.0 * t * std::f64::consts::TAU;
                let voice = phase.sin() + 0.5 * (3.0 * phase).sin() + 0.2 * (9.0 * phase).sin();
                *sample = sample.saturating_add((amplitude * voice) as i16);
            }
        }
        samples
    }

    fn processed(agc: &mut Agc, rate: Rate, samples: &[i16]) -> Vec<i16> {
        let mut out = samples.to_vec();
        out.chunks_mut(rate.frame_samples()).for_each(|frame| {
            agc.process(frame);
        });
        out
    }

    /// Of the words of the last five seconds.
    fn speech_level(rate: Rate, samples: &[i16]) -> i8 {
        let second = rate.hz() as usize;
        let words: Vec<i16> = samples[samples.len() - 5 * second..]
            .chunks(second)
            .flat_map(|part| part[..second * 6 / 10].to_vec())
            .collect();
        level_dbov(energy(&words), words.len())
    }

    #[test]
    fn voices_come_to_one_level() {
        for rate in Rate::ALL {
            for level in [-12.0, -18.0, -22.0, -30.0, -38.0] {
                let mut agc = Agc::new();
                let out = processed(&mut agc, rate, &talk(rate, level, -75, 25));
                let now = speech_level(rate, &out);
                assert!((-24..=-20).contains(&now), "{level} dBov became {now} at {rate:?}, gain {}", agc.gain_db());
            }
        }
    }

    #[test]
    fn gains_have_limits() {
        for (level, gain) in [(-50.0, GAIN_MAX_DB), (-6.0, GAIN_MIN_DB)] {
            let mut agc = Agc::new();
            processed(&mut agc, Rate::Narrow, &talk(Rate::Narrow, level, -75, 30));
            assert!((agc.gain_db() - gain).abs() < 0.1, "{} dB", agc.gain_db());
        }
    }

    #[test]
    fn silence_and_backgrounds_do_not_move_it() {
        let rate = Rate::Wide;
        let mut agc = Agc::new();
        processed(&mut agc, rate, &talk(rate, -34.0, -70, 20));
        let gain = agc.gain_db();
        assert!(gain > 6.0);
        let mut noise = NoiseGenerator::new();
        noise.set(&ComfortNoise::white(-70));
        let mut background = vec![0; 20 * 16000];
        noise.fill(&mut background);
        processed(&mut agc, rate, &background);
        processed(&mut agc, rate, &vec![0; 160_000]);
        assert!((agc.gain_db() - gain).abs() < 0.2, "{gain} became {}", agc.gain_db());

        // Noise alone, however loud, is never made louder.
        for level in [-65, -50, -35] {
            let mut agc = Agc::new();
            noise.set(&ComfortNoise::white(level));
            noise.fill(&mut background);
            processed(&mut agc, rate, &background);
            assert!(agc.gain_db() <= 0.0, "{} dB for {level} dBov", agc.gain_db());
        }
    }

    #[test]
    fn a_loud_background_is_not_lifted() {
        let mut agc = Agc::new();
        processed(&mut agc, Rate::Narrow, &talk(Rate::Narrow, -32.0, -48, 25));
        assert!(agc.gain_db() <= 0.5, "{} dB", agc.gain_db());
    }

    #[test]
    fn a_shout_does_not_overflow() {
        let mut agc = Agc::new();
        processed(&mut agc, Rate::Narrow, &talk(Rate::Narrow, -40.0, -75, 25));
        assert!(agc.gain_db() > 15.0);
        let shout: Vec<i16> = (0..800).map(|n| ((f64::from(n) * 0.3).sin() * 30_000.0) as i16).collect();
        let out = processed(&mut agc, Rate::Narrow, &shout);
        // The line down begins where the gain was: the first frame is cut, no other.
        assert!(out[80..].iter().all(|sample| sample.unsigned_abs() < 32767));
        assert!(agc.gain_db() < 1.0);
    }

    #[test]
    fn a_voice_that_is_right_is_not_touched() {
        let samples = talk(Rate::Narrow, -22.0, -75, 1);
        let mut agc = Agc::new();
        assert!(processed(&mut agc, Rate::Narrow, &samples[..2400]) == samples[..2400]);
        assert!(size_of::<Agc>() < 100);
        agc.reset();
        assert_eq!(agc.process(&mut []).level_dbov, -127);
    }

    proptest! {
        #[test]
        fn every_instruction_set_computes_the_same(
            samples in proptest::collection::vec(any::<i16>(), 0..300), gain in 0.0f32..8.0, step in -0.001f32..0.001,
        ) {
            let mut first: Option<Vec<i16>> = None;
            for kernels in dispatch::supported() {
                let mut out = samples.clone();
                kernels.ramp(&mut out, gain, step);
                prop_assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{:?}", kernels);
            }
        }

        #[test]
        fn anything_is_a_frame(frames in proptest::collection::vec(proptest::collection::vec(any::<i16>(), 0..200), 0..50)) {
            let mut agc = Agc::new();
            for mut frame in frames {
                agc.process(&mut frame);
                prop_assert!((GAIN_MIN_DB..=GAIN_MAX_DB).contains(&agc.gain_db()));
            }
        }
    }
}
