//! One or two sine tones, at 8 kHz or any other [`Rate`].
//!
//! Levels are in dBm0. 0 dBm0 is the power of a sine that lies 3.14 dB below the largest that 16-bit samples hold, as
//! ITU-T G.711 puts the overload point of A-law at +3.14 dBm0 (that of µ-law is at +3.17; the 0.03 dB are let go). So
//! the amplitude is [`AMPLITUDE_0_DBM0`], and on the scale of [`crate::mix::level_dbov`] 0 dBm0 is -6.15 dBov. Two tones
//! of 0 dBm0 exceed 16 bits where their peaks meet, and are clipped there.

use crate::dispatch::kernels;
use crate::kind::Rate;

/// The amplitude of a sine of 0 dBm0: 32768 · 10^(-3.14 / 20).
pub const AMPLITUDE_0_DBM0: f64 = 22_827.06;

/// How long [`ToneGenerator::fade_in`] and [`ToneGenerator::fade_out`] take, in samples at 8 kHz: 4 ms, which is enough for no
/// click to be heard.
pub const FADE_SAMPLES: usize = 32;

/// Makes a tone of one or two sines, from frame to frame without a break.
///
/// ```
/// use ringbridge_codec::tone::{FADE_SAMPLES, ToneGenerator};
///
/// // 20 ms of 350 and 440 Hz at -13 dBm0 each, with soft edges.
/// let mut samples = [0; 160];
/// let (body, end) = samples.split_at_mut(160 - FADE_SAMPLES);
/// let mut tone = ToneGenerator::new((350, -13), Some((440, -13)));
/// tone.fade_in();
/// tone.fill(body);
/// tone.fade_out();
/// tone.fill(end);
/// assert!(tone.is_silent());
/// ```
#[derive(Debug, Clone)]
pub struct ToneGenerator {
    sines: [Sine; 2],
    fade: Fade,
    fade_samples: usize,
}

impl ToneGenerator {
    /// A tone of one sine, or two, each by its frequency in Hz (up to 4000) and level in dBm0. Both begin at phase 0 and
    /// at full level; see [`Self::fade_in`].
    #[must_use]
    pub fn new(first: (u16, i8), second: Option<(u16, i8)>) -> Self {
        Self::with_rate(Rate::Narrow, first, second)
    }

    /// The same at another rate.
    #[must_use]
    pub fn with_rate(rate: Rate, first: (u16, i8), second: Option<(u16, i8)>) -> Self {
        let sine = |tone| Sine::new(rate, tone);
        let fade_samples = FADE_SAMPLES * (rate.frame_samples() / Rate::Narrow.frame_samples());
        Self { sines: [sine(first), second.map_or(Sine::SILENT, sine)], fade: Fade::Full, fade_samples }
    }

    /// How long fading takes, in samples at its rate.
    #[must_use]
    pub const fn fade_samples(&self) -> usize {
        self.fade_samples
    }

    /// Lets the tone rise from silence over the next [`FADE_SAMPLES`].
    pub fn fade_in(&mut self) {
        self.fade = Fade::Rising(0);
    }

    /// Lets the tone fall silent over the next [`FADE_SAMPLES`], from where it is.
    pub fn fade_out(&mut self) {
        self.fade = match self.fade {
            Fade::Full => Fade::Falling(self.fade_samples),
            Fade::Rising(step) | Fade::Falling(step) => Fade::Falling(step),
            Fade::Silent => Fade::Silent,
        };
    }

    /// Whether the tone has faded out.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self.fade, Fade::Silent | Fade::Falling(0))
    }

    /// Writes the next samples, saturated to 16 bits.
    pub fn fill(&mut self, out: &mut [i16]) {
        let mut rest = out;
        while !rest.is_empty() {
            // Only the few samples of a fade are weighed one by one.
            let (part, tail) = match self.fade {
                Fade::Full | Fade::Silent => (rest, Default::default()),
                Fade::Rising(_) | Fade::Falling(_) => rest.split_at_mut(1),
            };
            let gain = self.fade.next_gain(self.fade_samples);
            kernels().sines(&self.sines, gain, part);
            for sine in &mut self.sines {
                sine.advance(part.len());
            }
            rest = tail;
        }
    }
}

/// A sine: its phase in units of 2⁻³² turns, and what that grows by with each sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sine {
    phase: u32,
    step: u32,
    amplitude: f32,
}

impl Sine {
    const SILENT: Self = Self { phase: 0, step: 0, amplitude: 0.0 };

    #[expect(
        clippy::cast_possible_truncation,
        reason = "4000 Hz are half of 2³²; an amplitude needs no more than 24 bits"
    )]
    fn new(rate: Rate, (hz, dbm0): (u16, i8)) -> Self {
        let rate_hz = u64::from(rate.hz());
        let step = ((u64::from(hz.min(HZ_MAX)) << 32) + rate_hz / 2) / rate_hz;
        let amplitude = AMPLITUDE_0_DBM0 * 10_f64.powf(f64::from(dbm0) / 20.0);
        Self { phase: 0, step: step as u32, amplitude: amplitude as f32 }
    }

    /// The sample `n` samples from here.
    #[inline(always)]
    fn at(&self, n: u32) -> f32 {
        sine(self.phase.wrapping_add(self.step.wrapping_mul(n))) * self.amplitude
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole turns do not matter")]
    fn advance(&mut self, samples: usize) {
        self.phase = self.phase.wrapping_add(self.step.wrapping_mul(samples as u32));
    }
}

/// How loud the tone is, in steps of which a fade has as many as samples.
#[derive(Debug, Clone, Copy)]
enum Fade {
    Full,
    Rising(usize),
    Falling(usize),
    Silent,
}

impl Fade {
    fn next_gain(&mut self, fade_samples: usize) -> f32 {
        let (gain, next) = match *self {
            Self::Full => return 1.0,
            Self::Silent | Self::Falling(0) => (0, Self::Silent),
            Self::Rising(step) if step + 1 >= fade_samples => (step, Self::Full),
            Self::Rising(step) => (step, Self::Rising(step + 1)),
            Self::Falling(1) => (0, Self::Silent),
            Self::Falling(step) => (step - 1, Self::Falling(step - 1)),
        };
        *self = next;
        gain as f32 / fade_samples as f32
    }
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    use super::{Sine, saturate};

    /// The sum of two sines, times `gain`.
    #[inline(always)]
    pub(crate) fn sines([first, second]: &[Sine; 2], gain: f32, out: &mut [i16]) {
        let (first, second) = (*first, *second);
        for (n, sample) in (0..).zip(out) {
            *sample = saturate((first.at(n) + second.at(n)) * gain);
        }
    }
}

/// The sine of a phase in units of 2⁻³² turns, by its power series over a quarter turn either way; off by 4·10⁻⁶ at
/// most. An arithmetic that vectorises, and needs no table.
#[inline(always)]
fn sine(phase: u32) -> f32 {
    // Signed, a phase is -1 ..= 1 half turns; the outer quarters mirror the inner ones.
    let half_turns = phase.cast_signed() as f32 / HALF_TURN;
    let folded = half_turns.min(1.0 - half_turns).max(-1.0 - half_turns);
    let x = folded * core::f32::consts::PI;
    let square = x * x;
    x * (1.0 + square * (-1.0 / 6.0 + square * (1.0 / 120.0 + square * (-1.0 / 5040.0 + square / 362_880.0))))
}

/// The nearest 16-bit sample.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of an i16 before")]
fn saturate(value: f32) -> i16 {
    let clamped = value.clamp(f32::from(i16::MIN), f32::from(i16::MAX));
    // Added to 1.5 times 2²³, a number has no bits left after the point; a call of `round` would not vectorise.
    ((clamped + ROUNDING) - ROUNDING) as i16
}

const HZ_MAX: u16 = 4000;
const HALF_TURN: f32 = 2_147_483_648.0;
const ROUNDING: f32 = 12_582_912.0;

#[cfg(test)]
mod tests {
    use core::f64::consts::TAU;

    use super::*;

    fn samples(first: (u16, i8), second: Option<(u16, i8)>, count: usize) -> Vec<i16> {
        let mut out = vec![0; count];
        ToneGenerator::new(first, second).fill(&mut out);
        out
    }

    /// The amplitude and phase of a frequency in `samples`.
    fn measure(samples: &[i16], hz: f64) -> (f64, f64) {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in samples.iter().enumerate() {
            let angle = TAU * hz * n as f64 / 8000.0;
            re += f64::from(*sample) * angle.cos();
            im -= f64::from(*sample) * angle.sin();
        }
        (2.0 * re.hypot(im) / samples.len() as f64, im.atan2(re))
    }

    /// The frequency by the phase that ten seconds add to one second.
    fn frequency(samples: &[i16], hz: f64) -> f64 {
        let (_, early) = measure(&samples[..8000], hz);
        let (_, late) = measure(&samples[80_000..88_000], hz);
        let turn = (late - early + 3.0 * TAU / 2.0) % TAU - TAU / 2.0;
        hz + turn / TAU / 10.0
    }

    #[test]
    fn frequencies_are_exact() {
        for hz in [1, 200, 333, 425, 697, 1000, 1633, 2999, 3000, 3999] {
            let tone = samples((hz, -10), None, 88_000);
            let hz = f64::from(hz);
            // Within the 0.05 Hz that the phase can tell without doubt, and a coarse check that it is not elsewhere.
            assert!((frequency(&tone, hz) - hz).abs() < 0.001, "{hz} Hz: {}", frequency(&tone, hz));
            assert!(measure(&tone[..8000], hz).0 > 7000.0, "{hz} Hz");
        }
    }

    #[test]
    fn levels_are_exact() {
        for dbm0 in -40..=0 {
            let tone = samples((600, dbm0), None, 8000);
            let (amplitude, _) = measure(&tone, 600.0);
            let level = 20.0 * (amplitude / (32768.0 * 10_f64.powf(-0.157))).log10();
            assert!((level - f64::from(dbm0)).abs() < 0.01, "{dbm0} dBm0: {level}");
        }
        assert_eq!(crate::mix::level_dbov(crate::mix::energy(&samples((600, 0), None, 8000)), 8000), -6);
    }

    #[test]
    fn a_sine_is_pure() {
        let tone = samples((1004, 0), None, 8000);
        let (amplitude, phase) = measure(&tone, 1004.0);
        let error: f64 = tone
            .iter()
            .enumerate()
            .map(|(n, sample)| {
                (f64::from(*sample) - amplitude * (TAU * 1004.0 * n as f64 / 8000.0 + phase).cos()).powi(2)
            })
            .sum();
        let ratio = 10.0 * (amplitude.powi(2) / 2.0 / (error / 8000.0)).log10();
        assert!(ratio > 90.0, "{ratio} dB");
    }

    #[test]
    fn two_tones_are_both_there_and_clip() {
        let tone = samples((350, -13), Some((440, -20)), 8000);
        let level = |hz| 20.0 * (measure(&tone, hz).0 / AMPLITUDE_0_DBM0).log10();
        assert!((level(350.0) + 13.0).abs() < 0.05 && (level(440.0) + 20.0).abs() < 0.05);

        let loud = samples((350, 0), Some((440, 0)), 8000);
        assert!(loud.contains(&i16::MAX) && loud.contains(&i16::MIN));
        // Clipped, not wrapped around: no step is larger than the steepest slope of the unclipped sum.
        assert!(loud.windows(2).all(|pair| (i32::from(pair[0]) - i32::from(pair[1])).abs() < 15_000));
    }

    #[test]
    fn frames_join_without_a_break() {
        let whole = samples((697, -3), Some((1633, -5)), 1000);
        let mut tone = ToneGenerator::new((697, -3), Some((1633, -5)));
        let mut parts = vec![0; 1000];
        let mut rest = parts.as_mut_slice();
        for length in [1, 79, 80, 7, 160, 0, 673] {
            let (part, tail) = rest.split_at_mut(length);
            tone.fill(part);
            rest = tail;
        }
        assert!(rest.is_empty());
        assert_eq!(parts, whole);
    }

    #[test]
    fn fades_are_linear_and_end() {
        let full = samples((1000, 0), None, 200);
        let mut tone = ToneGenerator::new((1000, 0), None);
        let mut out = vec![1; 200];
        tone.fade_in();
        tone.fill(&mut out[..100]);
        assert!(!tone.is_silent());
        tone.fade_out();
        tone.fill(&mut out[100..100 + FADE_SAMPLES]);
        assert!(tone.is_silent());
        tone.fill(&mut out[100 + FADE_SAMPLES..]);
        for (n, (out, full)) in out.iter().zip(&full).enumerate() {
            let weight = match n {
                0..100 => n.min(32),
                100..132 => 131 - n,
                _ => 0,
            };
            let expected = f64::from(*full) * weight as f64 / 32.0;
            assert!((f64::from(*out) - expected).abs() <= 1.0, "sample {n}: {out} instead of {expected}");
        }
    }

    #[test]
    fn at_another_rate_it_is_the_same_tone() {
        let mut narrow = [0; 200];
        let mut tone = ToneGenerator::new((440, -10), Some((2_000, -20)));
        tone.fade_in();
        tone.fill(&mut narrow);
        for (rate, scale) in [(Rate::Wide, 2), (Rate::Full, 6)] {
            let mut samples = vec![0; 200 * scale];
            let mut tone = ToneGenerator::with_rate(rate, (440, -10), Some((2_000, -20)));
            assert_eq!(tone.fade_samples(), FADE_SAMPLES * scale);
            tone.fade_in();
            tone.fill(&mut samples);
            for (n, (sample, narrow)) in samples.iter().step_by(scale).zip(&narrow).enumerate() {
                assert!((i32::from(*sample) - i32::from(*narrow)).abs() <= 2, "sample {n} at {rate:?}");
            }
        }
    }

    #[test]
    fn a_fade_that_is_turned_goes_on_from_where_it_is() {
        let mut tone = ToneGenerator::new((1000, 0), None);
        tone.fade_in();
        tone.fill(&mut [0; 10]);
        tone.fade_out();
        tone.fill(&mut [0; 10]);
        assert!(tone.is_silent());
        tone.fade_out();
        let mut out = [1; 8];
        tone.fill(&mut out);
        assert_eq!(out, [0; 8]);
    }

    #[test]
    fn every_instruction_set_makes_the_same() {
        let sines = [(697, 0), (1633, 0)].map(|tone| Sine::new(Rate::Narrow, tone));
        let mut expected = [0; 333];
        loops::sines(&sines, 0.9, &mut expected);
        for kernels in crate::dispatch::supported() {
            let mut out = [0; 333];
            kernels.sines(&sines, 0.9, &mut out);
            assert_eq!(out, expected, "{kernels:?}");
        }
    }

    #[test]
    fn odd_arguments_do_no_harm() {
        let out = samples((u16::MAX, i8::MAX), Some((0, i8::MIN)), 100);
        assert_eq!(out[0], 0);
    }
}
