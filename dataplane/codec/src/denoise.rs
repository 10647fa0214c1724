//! Takes noise away from a voice: RNNoise, by the crate `nnnoiseless`.
//!
//! The model is one of 48 kHz; other rates are [resampled](crate::resample) to it and back. It needs a frame of 10 ms
//! more than it gives, which is its delay, besides that of the resampling.

use core::fmt;

use nnnoiseless::DenoiseState;

use crate::kind::{FRAME_SAMPLES_MAX, Rate};
use crate::resample::Resampler;

/// Takes the noise away from one stream. The state is some tens of KiB.
pub struct Denoiser {
    state: Box<DenoiseState<'static>>,
    up: Resampler,
    down: Resampler,
}

impl Denoiser {
    /// At the beginning of a stream. Allocates.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            state: DenoiseState::new(),
            up: Resampler::new(rate, Rate::Full),
            down: Resampler::new(Rate::Full, rate),
        }
    }

    /// Takes the noise out of a frame of 10 ms; how likely it is that there is voice in it, `0 ..= 1`.
    ///
    /// # Panics
    ///
    /// If it is not a frame of 10 ms.
    pub fn process(&mut self, frame: &mut [i16]) -> f32 {
        assert_eq!(frame.len(), self.up.from().frame_samples(), "a frame of 10 ms");
        let mut samples = [0; FRAME_SAMPLES_MAX];
        self.up.process(frame, &mut samples);
        let noisy = samples.map(f32::from);
        let mut clean = [0.0; FRAME_SAMPLES_MAX];
        let likely = self.state.process_frame(&mut clean, &noisy);
        for (sample, clean) in samples.iter_mut().zip(clean) {
            *sample = rounded(clean);
        }
        self.down.process(&samples, frame);
        likely
    }

    /// By how many samples it lags behind its input.
    #[must_use]
    pub const fn delay_samples(&self) -> usize {
        let frame = self.up.from().frame_samples();
        frame + self.down.delay_samples() + self.up.delay_samples() * frame / FRAME_SAMPLES_MAX
    }
}

impl fmt::Debug for Denoiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denoiser").field("rate", &self.up.from()).finish_non_exhaustive()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
fn rounded(sample: f32) -> i16 {
    sample.round() as i16
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use super::*;
    use crate::mix::energy;
    use crate::noise::{ComfortNoise, NoiseGenerator};

    /// Something like a voice, in words of 500 ms.
    fn voice(rate: Rate, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| {
                let t = n as f64 / f64::from(rate.hz());
                let phase = (120.0 * t + 2.0 * (3.0 * t).sin()) * std::f64::consts::TAU;
                let sum: f64 = (1..25).map(|k| (f64::from(k) * phase).sin() / f64::from(k).sqrt()).sum();
                let word = (t * std::f64::consts::TAU).sin().max(0.0);
                (sum * 1500.0 * word) as i16
            })
            .collect()
    }

    fn denoised(rate: Rate, samples: &[i16]) -> Vec<i16> {
        let mut denoiser = Denoiser::new(rate);
        let mut out = samples.to_vec();
        out.chunks_exact_mut(rate.frame_samples()).for_each(|frame| {
            denoiser.process(frame);
        });
        out
    }

    #[test]
    fn noise_goes_and_a_voice_stays() {
        for rate in Rate::ALL {
            let clean = voice(rate, 8 * rate.hz() as usize);
            let mut noise = vec![0; clean.len()];
            let mut generator = NoiseGenerator::new();
            generator.set(&ComfortNoise::parse(&[45, 60, 140]).unwrap());
            generator.fill(&mut noise);
            let noisy: Vec<i16> = clean.iter().zip(&noise).map(|(a, b)| a.saturating_add(*b)).collect();
            let out = denoised(rate, &noisy);
            let (second, delay) = (rate.hz() as usize, Denoiser::new(rate).delay_samples());
            assert!(delay <= second / 60, "{delay}");
            // The second half of each second has no voice in it.
            let (mut before, mut after, mut spoken, mut heard) = (0, 0, 0, 0);
            for second in (3..8).map(|n| n * second..(n + 1) * second) {
                let (word, pause) =
                    (second.start..second.start + second.len() / 2, second.end - second.len() / 4..second.end);
                before += energy(&noisy[pause.clone()]);
                after += energy(&out[pause]);
                spoken += energy(&clean[word.clone()]);
                heard += energy(&out[word]);
            }
            let db = |a: u64, b: u64| 10.0 * (a as f64 / b as f64).log10();
            let (gone, kept) = (db(after, before), db(heard, spoken));
            println!("{rate:?}: noise {gone:.1} dB, voice {kept:.1} dB");
            assert!(gone < -15.0, "{rate:?}: {gone:.1} dB");
            assert!((-3.0..1.0).contains(&kept), "{rate:?}: {kept:.1} dB");
        }
    }

    /// What comes out fits what went in so much earlier, and no other time.
    #[test]
    fn the_delay_is_the_one_that_is_said() {
        for rate in Rate::ALL {
            let clean = voice(rate, 3 * rate.hz() as usize);
            let out = denoised(rate, &clean);
            let from = rate.hz() as usize * 21 / 10;
            let alike = |lag: usize| -> f64 {
                (from..from + rate.hz() as usize / 4).map(|n| f64::from(clean[n]) * f64::from(out[n + lag])).sum()
            };
            let best = (0..rate.hz() as usize / 50).max_by(|a, b| alike(*a).total_cmp(&alike(*b))).unwrap();
            let said = Denoiser::new(rate).delay_samples();
            assert!(best.abs_diff(said) <= rate.hz() as usize / 4000, "{best} for {said} at {rate:?}");
        }
    }

    #[test]
    fn the_loudest_and_the_softest_are_taken() {
        let mut denoiser = Denoiser::new(Rate::Narrow);
        for n in 0..50_i16 {
            let mut frame: Vec<i16> = (0..80).map(|at| if (at + n) % 7 < 3 { i16::MAX } else { i16::MIN }).collect();
            assert!((0.0..=1.0).contains(&denoiser.process(&mut frame)));
        }
        let mut frame = [0; 80];
        for _ in 0..50 {
            denoiser.process(&mut frame);
        }
        denoiser.process(&mut frame);
        assert!(frame.iter().all(|sample| sample.abs() < 50));
    }
}
