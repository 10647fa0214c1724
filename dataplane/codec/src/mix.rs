//! The arithmetic of a conference mix: `i32` sums of `i16` samples, each listener's own samples taken away again, and
//! one saturating narrowing at the end, so that a loud sum is clipped for the ear alone and never for the arithmetic.
//!
//! ```text
//! talker 1 ─ decode ─ gain ─┐                       ┌─ sum - talker 1 ─ narrow ─ encode ─ listener 1
//! talker 2 ─ decode ─ gain ─┼─ accumulate ─▶ sum ───┼─ sum - talker 2 ─ narrow ─ encode ─ listener 2
//! talker n ─ decode ─ gain ─┘                       └─ sum            ─ narrow ─ recording
//! ```

use crate::dispatch::kernels;

/// Gain 1: the sample as it is. Gains are fixed-point numbers with 12 bits after the point.
pub const GAIN_Q12_UNITY: i32 = 1 << GAIN_BITS;
/// The largest gain, a little below 16 (24.08 dB): its product with any sample fits an `i32`.
pub const GAIN_Q12_MAX: i32 = (16 << GAIN_BITS) - 1;
/// The level of silence in dBov, which is also the lowest that is told apart (RFC 6464 s.3).
pub const SILENCE_DBOV: i8 = -127;

/// Adds `samples` to `sum`. A sum can take 65 535 frames before it could overflow.
///
/// # Panics
///
/// If the lengths differ.
pub fn accumulate(sum: &mut [i32], samples: &[i16]) {
    assert_eq!(sum.len(), samples.len(), "one sum for each sample");
    kernels().accumulate(sum, samples);
}

/// Writes what is left of `sum` without `own`, saturated to 16 bits. `own` has to be part of the sum.
///
/// # Panics
///
/// If the lengths differ.
pub fn subtract_narrow(sum: &[i32], own: &[i16], out: &mut [i16]) {
    assert_eq!(sum.len(), own.len(), "one sum for each sample");
    assert_eq!(sum.len(), out.len(), "one sum for each output");
    kernels().subtract_narrow(sum, own, out);
}

/// Writes `sum`, saturated to 16 bits.
///
/// # Panics
///
/// If the lengths differ.
pub fn narrow(sum: &[i32], out: &mut [i16]) {
    assert_eq!(sum.len(), out.len(), "one sum for each output");
    kernels().narrow(sum, out);
}

/// Multiplies `samples` by a gain, rounded to the nearest (halves up) and saturated to 16 bits. A gain outside of
/// `0 ..= `[`GAIN_Q12_MAX`] is taken as the nearer end.
pub fn apply_gain(samples: &mut [i16], gain_q12: i32) {
    kernels().apply_gain(samples, gain_q12.clamp(0, GAIN_Q12_MAX));
}

/// The largest absolute value of `samples`, `0 ..= 32768`; 0 if there are none.
#[must_use]
pub fn peak(samples: &[i16]) -> u16 {
    kernels().peak(samples)
}

/// The sum of the squares of `samples`; see [`level_dbov`].
#[must_use]
pub fn energy(samples: &[i16]) -> u64 {
    kernels().energy(samples)
}

/// The gain of `db` decibels of amplitude, 4096 · 10^(db / 20) to the nearest: [`GAIN_Q12_UNITY`] at 0, 0 from -79 down,
/// [`GAIN_Q12_MAX`] from 25 up. Below some -40 dB the steps become coarse; -60 dB is 4/4096.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast, and is clamped afterwards")]
pub fn gain_q12_from_db(db: i16) -> i32 {
    let gain = f64::from(GAIN_Q12_UNITY) * 10_f64.powf(f64::from(db) / 20.0);
    (gain.round() as i32).min(GAIN_Q12_MAX)
}

/// The level of `samples` samples whose squares sum to `energy`, in dBov to the nearest, `-127 ..= 0`.
///
/// 0 dBov is the power of a square wave between ±32768, the overload point of 16-bit samples; a sine of that amplitude
/// has -3. (RFC 6464 s.3 puts 0 dBov at the loudest signal the payload format can code: for G.711, where that is
/// ±32124, the difference is 0.17 dB.) No samples, or none but zeros, have [`SILENCE_DBOV`].
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "clamped to -127 ..= 0 before")]
#[expect(clippy::cast_precision_loss, reason = "a level is given to one decibel")]
pub fn level_dbov(energy: u64, samples: usize) -> i8 {
    if energy == 0 || samples == 0 {
        return SILENCE_DBOV;
    }
    let power = energy as f64 / samples as f64 / (OVERLOAD * OVERLOAD);
    (10.0 * power.log10()).round().clamp(f64::from(SILENCE_DBOV), 0.0) as i8
}

/// The level as [`level_dbov`] has it, in sixteenths of a decibel and within one sixteenth: what is done for every frame.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "clamped before")]
#[expect(clippy::cast_precision_loss, reason = "a level is not that exact")]
pub fn level_sixteenths(energy: u64, samples: usize) -> i16 {
    if energy == 0 || samples == 0 {
        return i16::from(SILENCE_DBOV) * 16;
    }
    // The exponent is the whole part of the binary logarithm; a polynomial through both ends is the rest of it.
    let bits = (energy as f32 / samples as f32).to_bits();
    let whole = (bits >> 23) as f32 - 127.0;
    let part = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000) - 1.0;
    let log2 = whole + part * (1.0 + (1.0 - part) * (0.420_86 - 0.156_39 * part));
    // Rounded to the nearest, as the cast cuts off what is behind the point.
    let level = (log2 - OVERLOAD_LOG2) * SIXTEENTHS_PER_OCTAVE - 0.5;
    level.clamp(f32::from(SILENCE_DBOV) * 16.0, 0.0) as i16
}

/// A level in sixteenths of a dBov, to the nearest.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "clamped before")]
pub const fn dbov_of(sixteenths: i16) -> i8 {
    if sixteenths <= SILENCE_DBOV as i16 * 16 {
        return SILENCE_DBOV;
    }
    if sixteenths >= 0 {
        return 0;
    }
    ((sixteenths + 8) >> 4) as i8
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    use super::{GAIN_BITS, saturate};

    #[inline(always)]
    pub(crate) fn accumulate(sum: &mut [i32], samples: &[i16]) {
        for (sum, sample) in sum.iter_mut().zip(samples) {
            *sum += i32::from(*sample);
        }
    }

    #[inline(always)]
    pub(crate) fn subtract_narrow(sum: &[i32], own: &[i16], out: &mut [i16]) {
        for ((out, sum), own) in out.iter_mut().zip(sum).zip(own) {
            *out = saturate(*sum - i32::from(*own));
        }
    }

    #[inline(always)]
    pub(crate) fn narrow(sum: &[i32], out: &mut [i16]) {
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = saturate(*sum);
        }
    }

    #[inline(always)]
    pub(crate) fn apply_gain(samples: &mut [i16], gain_q12: i32) {
        for sample in samples {
            *sample = saturate((i32::from(*sample) * gain_q12 + HALF) >> GAIN_BITS);
        }
    }

    #[inline(always)]
    pub(crate) fn peak(samples: &[i16]) -> u16 {
        samples.iter().fold(0, |peak, sample| peak.max(sample.unsigned_abs()))
    }

    /// Two squares fit a `u32`, and halve the number of additions in 64 bits.
    #[inline(always)]
    pub(crate) fn energy(samples: &[i16]) -> u64 {
        let (pairs, rest) = samples.as_chunks::<2>();
        let pairs: u64 = pairs.iter().map(|[a, b]| u64::from(square(*a) + square(*b))).sum();
        let rest: u64 = rest.iter().map(|sample| u64::from(square(*sample))).sum();
        pairs + rest
    }

    #[inline(always)]
    const fn square(sample: i16) -> u32 {
        (sample as i32).pow(2).cast_unsigned()
    }

    const HALF: i32 = 1 << (GAIN_BITS - 1);
}

/// The nearest 16-bit sample.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of an i16 before")]
fn saturate(sum: i32) -> i16 {
    sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

const GAIN_BITS: u32 = 12;
const OVERLOAD: f64 = 32768.0;
/// Of its power.
const OVERLOAD_LOG2: f32 = 30.0;
/// 160 log10(2): of power.
const SIXTEENTHS_PER_OCTAVE: f32 = 48.164_8;

// The largest product that `apply_gain` rounds must fit an i32.
const _: () = assert!(GAIN_Q12_MAX as i64 * (1 << 15) + (1 << (GAIN_BITS - 1)) <= i32::MAX as i64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dispatch;

    /// What every kernel has to compute, in numbers that cannot overflow.
    fn clipped(value: i64) -> i16 {
        i16::try_from(value.clamp(-32768, 32767)).unwrap()
    }

    fn with_gain(sample: i16, gain_q12: i32) -> i16 {
        rounded(f64::from(sample) * f64::from(gain_q12) / 4096.0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
    fn rounded(value: f64) -> i16 {
        clipped((value + 0.5).floor() as i64)
    }

    /// Frames of any length with a bias towards the ends of the range, where the errors are.
    fn frame() -> impl Strategy<Value = Vec<i16>> {
        proptest::collection::vec(sample(), 0..400)
    }

    fn sample() -> impl Strategy<Value = i16> {
        prop_oneof![4 => any::<i16>(), 1 => Just(i16::MIN), 1 => Just(i16::MAX), 1 => -2_i16..3]
    }

    proptest! {
        #[test]
        fn a_mix_is_the_sum_of_the_others(
            members in (0_usize..400).prop_flat_map(|len| {
                proptest::collection::vec(proptest::collection::vec(sample(), len), 1..6)
            }),
        ) {
            let len = members[0].len();
            let total = |at: usize| members.iter().map(|member| i64::from(member[at])).sum::<i64>();
            for kernels in dispatch::supported() {
                let mut sum = vec![0; len];
                for member in &members {
                    kernels.accumulate(&mut sum, member);
                }
                let mut out = vec![1; len];
                kernels.narrow(&sum, &mut out);
                let expected: Vec<i16> = (0..len).map(|at| clipped(total(at))).collect();
                prop_assert_eq!(&out, &expected, "{:?}", kernels);
                for member in &members {
                    kernels.subtract_narrow(&sum, member, &mut out);
                    let others: Vec<i16> = (0..len).map(|at| clipped(total(at) - i64::from(member[at]))).collect();
                    prop_assert_eq!(&out, &others, "{:?}", kernels);
                }
            }
        }

        #[test]
        fn gain_multiplies_and_rounds(samples in frame(), gain_q12 in 0..=GAIN_Q12_MAX) {
            let expected: Vec<i16> = samples.iter().map(|sample| with_gain(*sample, gain_q12)).collect();
            for kernels in dispatch::supported() {
                let mut scaled = samples.clone();
                kernels.apply_gain(&mut scaled, gain_q12);
                prop_assert_eq!(&scaled, &expected, "{:?}", kernels);
            }
        }

        #[test]
        fn peak_and_energy_are_those_of_the_plain_sums(samples in frame()) {
            let loudest = samples.iter().map(|sample| i32::from(*sample).unsigned_abs()).max().unwrap_or(0);
            let squares: u64 = samples.iter().map(|sample| i64::from(*sample).unsigned_abs().pow(2)).sum();
            for kernels in dispatch::supported() {
                prop_assert_eq!(u32::from(kernels.peak(&samples)), loudest, "{:?}", kernels);
                prop_assert_eq!(kernels.energy(&samples), squares, "{:?}", kernels);
            }
        }
    }

    #[test]
    fn sums_saturate_at_both_ends() {
        let mut sum = [0; 4];
        for _ in 0..1000 {
            accumulate(&mut sum, &[i16::MAX, i16::MIN, 1, -1]);
        }
        let mut out = [0; 4];
        narrow(&sum, &mut out);
        assert_eq!(out, [i16::MAX, i16::MIN, 1000, -1000]);
        subtract_narrow(&sum, &[i16::MAX, i16::MIN, 1, -1], &mut out);
        assert_eq!(out, [i16::MAX, i16::MIN, 999, -999]);
    }

    #[test]
    fn gain_saturates_at_both_ends_and_is_clamped() {
        let mut samples = [i16::MAX, i16::MIN, 1, -1, 0];
        apply_gain(&mut samples, i32::MAX);
        assert_eq!(samples, [i16::MAX, i16::MIN, 16, -16, 0]);
        apply_gain(&mut samples, GAIN_Q12_UNITY);
        assert_eq!(samples, [i16::MAX, i16::MIN, 16, -16, 0]);
        apply_gain(&mut samples, i32::MIN);
        assert_eq!(samples, [0; 5]);
    }

    #[test]
    fn decibels_become_factors() {
        assert_eq!(gain_q12_from_db(0), GAIN_Q12_UNITY);
        assert_eq!(gain_q12_from_db(20), 10 * GAIN_Q12_UNITY);
        assert_eq!(gain_q12_from_db(-6), 2053);
        assert_eq!(gain_q12_from_db(6), 8173);
        assert_eq!(gain_q12_from_db(24), 64917);
        assert_eq!(gain_q12_from_db(25), GAIN_Q12_MAX);
        assert_eq!(gain_q12_from_db(-60), 4);
        assert_eq!((gain_q12_from_db(-78), gain_q12_from_db(-79)), (1, 0));
        assert_eq!((gain_q12_from_db(i16::MIN), gain_q12_from_db(i16::MAX)), (0, GAIN_Q12_MAX));
    }

    #[test]
    fn levels_of_a_frame_are_as_exact_as_they_are_fine() {
        assert_eq!(level_sixteenths(0, 80), i16::from(SILENCE_DBOV) * 16);
        assert_eq!(level_sixteenths(1, usize::MAX), i16::from(SILENCE_DBOV) * 16);
        assert_eq!(level_sixteenths(u64::MAX, 1), 0);
        let mut energy = 1u64;
        while energy < 80 << 30 {
            let exact = 160.0 * (energy as f64 / 80.0 / (OVERLOAD * OVERLOAD)).log10();
            let told = level_sixteenths(energy, 80);
            assert!((f64::from(told) - exact.max(-2032.0)).abs() <= 1.0, "{told} {exact}");
            energy += energy / 97 + 1;
        }
        assert_eq!([-2040, -2032, -2023, -9, -8, -7, 0, 9].map(dbov_of), [-127, -127, -126, -1, 0, 0, 0, 0]);
    }

    #[test]
    fn levels_are_relative_to_the_full_square_wave() {
        let level = |samples: &[i16]| level_dbov(energy(samples), samples.len());
        assert_eq!(level(&[i16::MIN; 160]), 0);
        assert_eq!(level(&[32124; 160]), 0, "the loudest square wave of µ-law");
        assert_eq!(level(&[16384; 160]), -6);
        assert_eq!(level(&[3277, -3277]), -20);
        assert_eq!(level(&[1; 160]), -90);
        assert_eq!(level(&[0; 160]), SILENCE_DBOV);
        assert_eq!(level(&[]), SILENCE_DBOV);
        assert_eq!(level_dbov(1, usize::MAX), SILENCE_DBOV);
        assert_eq!(level_dbov(u64::MAX, 1), 0);

        let phase = |at: i32| f64::from(at) * core::f64::consts::TAU / 8.0;
        let sine: Vec<i16> = (0..8000).map(|at| rounded(phase(at).sin() * 32767.0)).collect();
        assert_eq!(level(&sine), -3);
    }

    #[test]
    #[should_panic(expected = "one sum for each sample")]
    fn lengths_that_differ_are_refused() {
        accumulate(&mut [0; 160], &[0; 80]);
    }
}
