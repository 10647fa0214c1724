//! What a piece of sound is made of.

use std::f64::consts::TAU;

/// A piece of sound, weighted so that a tone does not smear over others (Blackman and Harris's window of four terms:
/// 92 dB down beyond four lines).
#[derive(Clone, Debug)]
pub struct Spectrum {
    samples: Vec<i16>,
    weighted: Vec<f64>,
    /// Sum of the weights.
    gain: f64,
    rate_hz: u32,
}

impl Spectrum {
    /// Of these samples. A tone is told from others that are four periods of the piece's length away.
    pub fn of(samples: &[i16], rate_hz: u32) -> Self {
        let weights: Vec<f64> = (0..samples.len())
            .map(|n| {
                let turn = TAU * n as f64 / samples.len() as f64;
                0.358_75 - 0.488_29 * turn.cos() + 0.141_28 * (2.0 * turn).cos() - 0.011_68 * (3.0 * turn).cos()
            })
            .collect();
        let weighted = samples.iter().zip(&weights).map(|(sample, weight)| f64::from(*sample) * weight).collect();
        Self { samples: samples.to_vec(), weighted, gain: weights.iter().sum(), rate_hz }
    }

    /// How loud a frequency is, in dB below a sine of full scale.
    pub fn db(&self, hz: u32) -> f64 {
        let (cosine, sine) = self.parts(f64::from(hz));
        20.0 * (cosine.hypot(sine).max(1e-6) / FULL_SCALE).log10()
    }

    /// What is loudest apart from these tones: its frequency, and how loud it is. Looks from 60 Hz up.
    pub fn loudest_besides(&self, tones: &[u32]) -> (u32, f64) {
        let line = self.rate_hz.div_ceil(u32::try_from(self.samples.len()).unwrap_or(u32::MAX));
        let near = |hz: u32| tones.iter().any(|tone| tone.abs_diff(hz) <= 6 * line);
        let free = (60..self.rate_hz / 2).step_by(line as usize * 2).filter(|hz| !near(*hz));
        free.map(|hz| (hz, self.db(hz))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f64::NEG_INFINITY))
    }

    /// What is left when these tones are taken out, sample by sample.
    pub fn without(&self, tones: &[u32]) -> Vec<f64> {
        let parts: Vec<(f64, f64, f64)> = tones
            .iter()
            .map(|tone| {
                let (cosine, sine) = self.parts(f64::from(*tone));
                (TAU * f64::from(*tone) / f64::from(self.rate_hz), cosine, sine)
            })
            .collect();
        let tone_at = |n: usize| -> f64 {
            parts
                .iter()
                .map(|(step, cosine, sine)| cosine * (step * n as f64).cos() + sine * (step * n as f64).sin())
                .sum()
        };
        self.samples.iter().enumerate().map(|(n, sample)| f64::from(*sample) - tone_at(n)).collect()
    }

    /// Amplitudes of a frequency's cosine and sine (Goertzel's algorithm).
    fn parts(&self, hz: f64) -> (f64, f64) {
        let step = TAU * hz / f64::from(self.rate_hz);
        let coefficient = 2.0 * step.cos();
        let (mut last, mut before) = (0.0, 0.0);
        for sample in &self.weighted {
            (last, before) = (sample + coefficient * last - before, last);
        }
        // The sum of x(n) e^(-jwn), turned back by the length of the piece.
        let (real, imaginary) = (last - before * step.cos(), before * step.sin());
        let turn = step * (self.samples.len() as f64 - 1.0);
        let scale = 2.0 / self.gain;
        let cosine = real * turn.cos() + imaginary * turn.sin();
        let sine = real * turn.sin() - imaginary * turn.cos();
        (scale * cosine, scale * sine)
    }
}

/// The steepest step from one sample to the next.
pub fn steepest(samples: &[i16]) -> u32 {
    samples.array_windows().map(|[a, b]| u32::from(a.abs_diff(*b))).max().unwrap_or(0)
}

/// The steepest step there can be in a sum of tones of this amplitude.
pub fn steepest_of(tones: &[u32], amplitude: f64, rate_hz: u32) -> f64 {
    tones.iter().map(|tone| 2.0 * amplitude * (TAU / 2.0 * f64::from(*tone) / f64::from(rate_hz)).sin()).sum()
}

/// Amplitude of the loudest sine.
const FULL_SCALE: f64 = 32_768.0;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "amplitudes are small")]
mod tests {
    use super::*;

    fn sum(tones: &[(u32, f64, f64)], rate_hz: u32, len: usize) -> Vec<i16> {
        let at = |n: usize| {
            let one = |&(hz, amplitude, phase): &(u32, f64, f64)| {
                amplitude * (TAU * f64::from(hz) / f64::from(rate_hz) * n as f64 + phase).sin()
            };
            tones.iter().map(one).sum::<f64>().round() as i16
        };
        (0..len).map(at).collect()
    }

    #[test]
    fn tones_are_told_apart_and_taken_out() {
        for (rate_hz, len) in [(8_000, 2_048), (16_000, 4_096), (48_000, 12_288)] {
            let tones = [(700, 4_000.0, 0.3), (1_100, 2_000.0, 1.0), (1_730, 40.0, 2.0)];
            let spectrum = Spectrum::of(&sum(&tones, rate_hz, len), rate_hz);
            assert!((spectrum.db(700) + 18.27).abs() < 0.1);
            assert!((spectrum.db(1_100) + 24.29).abs() < 0.1);
            assert!(spectrum.db(900) < -90.0);
            let (hz, db) = spectrum.loudest_besides(&[700, 1_100]);
            assert!(hz.abs_diff(1_730) <= 8 && (db + 58.27).abs() < 1.5, "{hz} Hz at {db} dB");
            let rest = spectrum.without(&[700, 1_100]);
            let peak = rest.iter().fold(0.0_f64, |peak, sample| peak.max(sample.abs()));
            assert!((39.0..43.0).contains(&peak), "{peak}");
        }
    }

    #[test]
    fn a_click_is_steeper_than_the_tones_and_is_left_over() {
        let tones = [(400, 4_000.0, 0.0), (1_100, 4_000.0, 0.5)];
        let mut samples = sum(&tones, 16_000, 4_096);
        let most = steepest_of(&[400, 1_100], 4_000.0, 16_000);
        assert!(f64::from(steepest(&samples)) <= most + 1.0);
        samples[2_000] += 6_000;
        assert!(f64::from(steepest(&samples)) > most);
        let rest = Spectrum::of(&samples, 16_000).without(&[400, 1_100]);
        assert!(rest[2_000] > 5_900.0 && rest[1_000].abs() < 20.0);
    }
}
