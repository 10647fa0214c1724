//! A limiter for the end of a mix: what is louder than a sample can be is made softer as a whole, where plain saturation
//! would cut its peaks off and make every voice in it harsh.
//!
//! ```text
//!  sum ──┬─ fits, and the gain is 1 ──────────────────────────────▶ as it is
//!        └─ else: the gain each millisecond needs ─ straight lines ─▶ sum x gain
//! ```
//!
//! A frame of 10 ms is looked at as a whole before any of it is written, so there is no delay: the gain falls in the
//! milliseconds before a peak, in straight lines, and only for a peak in a frame's first millisecond is the line too steep
//! to meet it; that much is saturated. Afterwards the gain rises to what the last half second to second needed, slowly, so
//! that it stands nearly still under steady loudness, and is 1 again a second or two after it.
//!
//! Headroom: sums up to 24 bits are exact, which is 512 members at full scale; up to 31 bits they are limited just as
//! well, but rounded. The state is the struct, 16 bytes for each listener.

use crate::dispatch::kernels;

/// Limits one stream.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limiter {
    /// What the last sample was multiplied by, at most 1.
    gain: f32,
    /// The least gain that was needed in this half second and in the one before.
    needed: [f32; 2],
    /// Frames of this half second.
    frames: u8,
}

impl Limiter {
    /// With a gain of 1.
    #[must_use]
    pub const fn new() -> Self {
        Self { gain: 1.0, needed: [1.0; 2], frames: 0 }
    }

    /// By how much it makes softer, `0 < gain <= 1`.
    #[must_use]
    pub const fn gain(&self) -> f32 {
        self.gain
    }

    /// Writes a frame of 10 ms, of any rate. Quiet ones are those of [`crate::mix::narrow`] to the bit, once the gain is 1.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn process(&mut self, sum: &[i32], out: &mut [i16]) {
        assert_eq!(sum.len(), out.len(), "one sum for each output");
        let fits = kernels().narrow_if_fits(sum, out);
        if !fits || self.gain < 1.0 {
            self.limit(sum, out);
        }
    }

    /// Writes what is left of a frame of 10 ms without `own`, which has to be part of it; compare
    /// [`crate::mix::subtract_narrow`].
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn process_less(&mut self, sum: &[i32], own: &[i16], out: &mut [i16]) {
        assert_eq!(sum.len(), own.len(), "one sum for each sample");
        assert_eq!(sum.len(), out.len(), "one sum for each output");
        let fits = kernels().subtract_narrow_if_fits(sum, own, out);
        if fits && self.gain >= 1.0 {
            return;
        }
        let mut rest = [0; PART_MAX];
        for ((sum, own), out) in sum.chunks(PART_MAX).zip(own.chunks(PART_MAX)).zip(out.chunks_mut(PART_MAX)) {
            let rest = &mut rest[..sum.len()];
            for ((rest, sum), own) in rest.iter_mut().zip(sum).zip(own) {
                *rest = sum - i32::from(*own);
            }
            self.limit(rest, out);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gain is not that exact")]
    fn limit(&mut self, sum: &[i32], out: &mut [i16]) {
        let block = sum.len().div_ceil(BLOCKS).max(1);
        // What each block needs; without a need, 1.
        let mut needed = [1.0f32; BLOCKS];
        for (needed, sum) in needed.iter_mut().zip(sum.chunks(block)) {
            *needed = (PEAK / kernels().peak_sum(sum).max(1) as f32).min(1.0);
        }
        let least = needed.iter().copied().fold(1.0, f32::min);
        // Where the gain may rise to in this frame.
        self.needed[0] = self.needed[0].min(least);
        let target = self.needed[0].min(self.needed[1]);
        let risen = (self.gain + (target - self.gain) * RISE + RISE_MIN).min(target).max(self.gain);
        self.frames += 1;
        if self.frames == HALF_SECOND {
            (self.frames, self.needed) = (0, [1.0, self.needed[0]]);
        }
        // The gain at the borders of the blocks: no block's line is above what it needs.
        let mut nodes = [risen; BLOCKS + 1];
        nodes[0] = self.gain;
        for (at, needed) in needed.iter().enumerate() {
            nodes[at + 1] = nodes[at + 1].min(*needed);
            if at > 0 {
                nodes[at] = nodes[at].min(*needed);
            }
        }
        // It falls over the blocks before, not in one.
        for at in (1..BLOCKS).rev() {
            nodes[at] = nodes[at].min(nodes[at + 1] * FALL);
        }
        // And a line that rises does so over what is left of the frame.
        for at in 1..=BLOCKS {
            nodes[at] = nodes[at].min(nodes[at - 1].max(self.gain) + (risen - self.gain).max(0.0) / BLOCKS as f32);
        }
        for ((sum, out), ends) in sum.chunks(block).zip(out.chunks_mut(block)).zip(nodes.windows(2)) {
            kernels().scale(sum, ends[0], (ends[1] - ends[0]) / sum.len() as f32, out);
        }
        self.gain = nodes[sum.len().div_ceil(block)];
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    /// Whether all of `sum` fits 16 bits; it is written saturated in any case.
    #[inline(always)]
    pub(crate) fn narrow_if_fits(sum: &[i32], out: &mut [i16]) -> bool {
        let mut bits = 0;
        for (out, sum) in out.iter_mut().zip(sum) {
            bits |= from_least(*sum);
            *out = saturate(*sum);
        }
        bits >> 16 == 0
    }

    #[inline(always)]
    pub(crate) fn subtract_narrow_if_fits(sum: &[i32], own: &[i16], out: &mut [i16]) -> bool {
        let mut bits = 0;
        for ((out, sum), own) in out.iter_mut().zip(sum).zip(own) {
            let rest = sum - i32::from(*own);
            bits |= from_least(rest);
            *out = saturate(rest);
        }
        bits >> 16 == 0
    }

    /// From the least sample there is: 16 bits for all that fit.
    #[inline(always)]
    const fn from_least(sum: i32) -> u32 {
        sum.wrapping_sub(i16::MIN as i32).cast_unsigned()
    }

    /// The largest magnitude.
    #[inline(always)]
    pub(crate) fn peak_sum(sum: &[i32]) -> u32 {
        sum.iter().fold(0, |peak, sum| peak.max(sum.unsigned_abs()))
    }

    /// Multiplies by `gain`, which changes by `step` with every sample.
    #[inline(always)]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "see the module's headroom")]
    pub(crate) fn scale(sum: &[i32], gain: f32, step: f32, out: &mut [i16]) {
        /// A float this large has no digits after the point: what is added to it is rounded.
        const WHOLE: f32 = 12_582_912.0;
        for (at, (out, sum)) in (0_i32..).zip(out.iter_mut().zip(sum)) {
            let scaled = *sum as f32 * (gain + step * at as f32);
            let rounded = scaled.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) + WHOLE;
            *out = rounded.to_bits().wrapping_sub(WHOLE.to_bits()) as i16;
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of an i16 before")]
    fn saturate(sum: i32) -> i16 {
        sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    }
}

/// The largest sample.
const PEAK: f32 = 32767.0;
/// Of a frame: a millisecond each.
const BLOCKS: usize = 10;
/// Frames.
const HALF_SECOND: u8 = 50;
/// Part of the way to the gain that is needed that is gone in a frame.
const RISE: f32 = 0.02;
/// And what is gone besides, for it to arrive.
const RISE_MIN: f32 = 0.001;
/// How much more the gain may be a millisecond before: 1 dB.
const FALL: f32 = 1.122;
/// Samples without their own that are held at once: 10 ms at the highest rate.
const PART_MAX: usize = crate::kind::FRAME_SAMPLES_MAX;

#[cfg(test)]
#[path = "limit/tests.rs"]
mod tests;
