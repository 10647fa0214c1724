//! From one [`Rate`] to another: a polyphase filter for each ratio (2, 3, 6), for frames of 10 ms.
//!
//! ```text
//!  gain
//!   0 dB ────────────────────┐
//!                             \        pass band to 0.425, stop band from 0.575 of the lower rate:
//!  -6 dB                       ·       3.4 and 4.6 kHz at 8 kHz; for 16 kHz 7 and 9 kHz
//!                               \
//! -72 dB                         └──────────────
//!                             0.5 of the lower rate
//! ```
//!
//! The filter is a sinc under a Kaiser window with its middle at half the lower rate, so what is above a telephone band
//! folds into what is above a telephone band and nowhere else; a filter that let nothing fold would delay by twice as
//! much. Of such a filter one phase in each `ratio` is a plain copy. It is linear in phase, and its delay a whole number
//! of samples at both rates.
//!
//! Sums are made in the same order whatever the instruction set, so samples are the same to the bit everywhere. The
//! state is the struct, less than 400 bytes.

use std::sync::LazyLock;

use crate::dispatch::kernels;
use crate::kind::{FRAME_SAMPLES_MAX, Rate};

/// Takes one stream from one rate to another.
#[derive(Clone, Debug)]
pub struct Resampler {
    from: Rate,
    to: Rate,
    /// The last samples of the input.
    history: [i16; HISTORY_MAX],
}

impl Resampler {
    /// A resampler at the beginning of a stream; with equal rates, a copy.
    #[must_use]
    pub const fn new(from: Rate, to: Rate) -> Self {
        Self { from, to, history: [0; HISTORY_MAX] }
    }

    /// What it takes.
    #[must_use]
    pub const fn from(&self) -> Rate {
        self.from
    }

    /// What it gives.
    #[must_use]
    pub const fn to(&self) -> Rate {
        self.to
    }

    /// Begins another stream.
    pub const fn reset(&mut self) {
        self.history = [0; HISTORY_MAX];
    }

    /// By how many samples of the output it lags behind its input.
    #[must_use]
    pub const fn delay_samples(&self) -> usize {
        let (from, to) = (self.from.frame_samples(), self.to.frame_samples());
        if from == to {
            0
        } else if from < to {
            half_taps(to / from) * (to / from)
        } else {
            half_taps(from / to)
        }
    }

    /// Resamples whole frames of 10 ms; at a frame's border nothing begins anew.
    ///
    /// # Panics
    ///
    /// If `input` is not a whole number of frames at one rate, or `out` not as many at the other.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) {
        let (from, to) = (self.from.frame_samples(), self.to.frame_samples());
        assert!(input.len().is_multiple_of(from), "whole frames of 10 ms");
        assert_eq!(input.len() / from * to, out.len(), "as many frames out as in");
        if from == to {
            out.copy_from_slice(input);
            return;
        }
        let filter = Filter::between(from, to);
        let kept = if from < to { filter.len() } else { filter.len() * filter.ratio };
        for (input, out) in input.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
            let mut samples = [0; HISTORY_MAX + FRAME_SAMPLES_MAX];
            let samples = &mut samples[..kept + from];
            samples[..kept].copy_from_slice(&self.history[..kept]);
            samples[kept..].copy_from_slice(input);
            if from < to {
                kernels().interpolate(filter, samples, out);
            } else {
                kernels().decimate(filter, samples, out);
            }
            self.history[..kept].copy_from_slice(&samples[from..]);
        }
    }
}

/// The filter of one ratio, at the higher rate: `2 * half * ratio + 1` taps.
pub(crate) struct Filter {
    ratio: usize,
    half: usize,
    /// The taps of each phase but the first, in the order of the samples they are for; those of an interpolation, whose
    /// sum is 1. The first phase is 1 in the middle, else 0.
    phases: [[f32; 2 * HALF_MAX]; RATIO_MAX - 1],
}

impl Filter {
    fn between(from: usize, to: usize) -> &'static Self {
        static FILTERS: LazyLock<[Filter; 3]> = LazyLock::new(|| [2, 3, 6].map(Filter::new));
        let [two, three, six] = &*FILTERS;
        match from.max(to) / from.min(to) {
            2 => two,
            3 => three,
            _ => six,
        }
    }

    /// Samples at the lower rate that a sample at the higher one is made of.
    const fn len(&self) -> usize {
        2 * self.half
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred taps")]
    #[expect(clippy::cast_possible_truncation, reason = "taps are rounded once")]
    fn new(ratio: usize) -> Self {
        let half = half_taps(ratio);
        let reach = (half * ratio) as f64;
        let tap = |at: usize| {
            let from_middle = at as f64 - reach;
            let x = from_middle / ratio as f64 * core::f64::consts::PI;
            x.sin() / x * bessel(KAISER_BETA * (1.0 - (from_middle / reach).powi(2)).sqrt()) / bessel(KAISER_BETA)
        };
        let mut phases = [[0.0; 2 * HALF_MAX]; RATIO_MAX - 1];
        for (phase, taps) in (1..ratio).zip(&mut phases) {
            let exact = |place: usize| tap((2 * half - 1 - place) * ratio + phase);
            let sum: f64 = (0..2 * half).map(exact).sum();
            for (place, tap) in taps[..2 * half].iter_mut().enumerate() {
                *tap = (exact(place) / sum) as f32;
            }
        }
        Self { ratio, half, phases }
    }

    fn phases(&self) -> impl Iterator<Item = (usize, &[f32])> {
        (1..self.ratio).zip(self.phases.iter().map(|taps| &taps[..2 * self.half]))
    }
}

/// Half the taps of a phase: the delay in samples of the lower rate.
const fn half_taps(ratio: usize) -> usize {
    if ratio == 3 { 18 } else { 15 }
}

/// The modified Bessel function of the first kind and order zero.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..40 {
        term *= (x / 2.0 / f64::from(n)).powi(2);
        sum += term;
    }
    sum
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    use super::{BLOCK, FRAME_SAMPLES_MAX, Filter, HISTORY_MAX, PHASE_MAX};

    /// `samples` are the `filter.len()` before a frame and the frame.
    #[inline(always)]
    pub(crate) fn interpolate(filter: &Filter, samples: &[i16], out: &mut [i16]) {
        let (ratio, half) = (filter.ratio, filter.half);
        let mut floats = [0.0; PHASE_MAX];
        let floats = &mut floats[..samples.len()];
        for (float, sample) in floats.iter_mut().zip(samples) {
            *float = f32::from(*sample);
        }
        for (out, sample) in out.iter_mut().step_by(ratio).zip(&samples[half..]) {
            *out = *sample;
        }
        for (phase, taps) in filter.phases() {
            for (block, out) in out.chunks_exact_mut(BLOCK * ratio).enumerate() {
                let mut sums = [0.0; BLOCK];
                convolve(taps, &floats[1 + block * BLOCK..], &mut sums);
                for (out, sum) in out[phase..].iter_mut().step_by(ratio).zip(sums) {
                    *out = round(sum);
                }
            }
        }
    }

    /// `samples` are the `filter.len() * ratio` before a frame and the frame.
    #[inline(always)]
    pub(crate) fn decimate(filter: &Filter, samples: &[i16], out: &mut [i16]) {
        let (ratio, half) = (filter.ratio, filter.half);
        let len = samples.len() / ratio;
        // One phase after another.
        let mut floats = [0.0; HISTORY_MAX + FRAME_SAMPLES_MAX];
        for (phase, floats) in floats.chunks_exact_mut(len).take(ratio).enumerate() {
            for (float, sample) in floats.iter_mut().zip(samples[phase..].iter().step_by(ratio)) {
                *float = f32::from(*sample);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "six at most")]
        let gain = 1.0 / ratio as f32;
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let from = block * BLOCK;
            let mut sums = [0.0; BLOCK];
            sums.copy_from_slice(&floats[half + from..half + from + BLOCK]);
            for (phase, taps) in filter.phases() {
                convolve(taps, &floats[(ratio - phase) * len + from..], &mut sums);
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = round(sum * gain);
            }
        }
    }

    /// Adds to each sum the products of the taps and the samples from its place on.
    #[inline(always)]
    fn convolve(taps: &[f32], samples: &[f32], sums: &mut [f32; BLOCK]) {
        for (tap, samples) in taps.iter().zip(samples.windows(BLOCK)) {
            for (sum, sample) in sums.iter_mut().zip(samples) {
                *sum += tap * sample;
            }
        }
    }

    /// To the nearest sample.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of an i16 before")]
    fn round(value: f32) -> i16 {
        /// A float this large has no digits after the point: what is added to it is rounded.
        const WHOLE: f32 = 12_582_912.0;
        let rounded = value.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) + WHOLE;
        rounded.to_bits().wrapping_sub(WHOLE.to_bits()) as i16
    }
}

/// Of the window: 72 dB.
const KAISER_BETA: f64 = 6.97;
const RATIO_MAX: usize = 6;
const HALF_MAX: usize = 18;
/// 15 x 6 is more than 18 x 3.
const HISTORY_MAX: usize = 2 * 15 * RATIO_MAX;
/// Samples at the lower rate, with their history, that are interpolated at once.
const PHASE_MAX: usize = 2 * HALF_MAX + Rate::Wide.frame_samples();
/// Sums that are made side by side: they fit the registers of every instruction set, and divide every frame.
const BLOCK: usize = 40;

const _: () = assert!(
    Rate::Narrow.frame_samples().is_multiple_of(BLOCK)
        && Rate::Wide.frame_samples().is_multiple_of(BLOCK)
        && HISTORY_MAX >= 2 * HALF_MAX * 3
);

#[cfg(test)]
#[path = "resample/tests.rs"]
mod tests;
