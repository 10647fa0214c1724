#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "samples of our own")]

use proptest::prelude::*;

use super::*;
use crate::dispatch;
use crate::kind::Rate;
use crate::mix;

/// RMS of -9 dBov.
const AMPLITUDE: f64 = 32768.0 * 0.354_813_389_233_575_5 * std::f64::consts::SQRT_2;
/// Whole Hz, so that a second holds whole periods of each; no multiples of each other.
const TONES: [f64; 10] = [331.0, 557.0, 787.0, 1013.0, 1291.0, 1601.0, 1949.0, 2311.0, 2713.0, 3163.0];

fn sums(rate: Rate, tones: &[f64], seconds: usize) -> Vec<i32> {
    let hz = f64::from(rate.hz());
    (0..seconds * rate.hz() as usize)
        .map(|n| {
            let sum: f64 = tones
                .iter()
                .enumerate()
                .map(|(k, tone)| (n as f64 * tone / hz * std::f64::consts::TAU + k as f64).sin())
                .sum();
            (sum * AMPLITUDE).round() as i32
        })
        .collect()
}

fn limited(rate: Rate, sums: &[i32]) -> Vec<i16> {
    let (mut limiter, mut out) = (Limiter::new(), vec![0; sums.len()]);
    let frame = rate.frame_samples();
    for (sum, out) in sums.chunks(frame).zip(out.chunks_mut(frame)) {
        limiter.process(sum, out);
    }
    out
}

/// What is in a second of `samples` but not of the tones, in dB below all of it.
fn distortion_db(rate: Rate, tones: &[f64], samples: &[i16]) -> f64 {
    let hz = f64::from(rate.hz());
    assert_eq!(samples.len(), rate.hz() as usize);
    let total: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let of_tones: f64 = tones
        .iter()
        .map(|tone| {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, sample) in samples.iter().enumerate() {
                let phase = n as f64 * tone / hz * std::f64::consts::TAU;
                re += f64::from(*sample) * phase.cos();
                im += f64::from(*sample) * phase.sin();
            }
            2.0 * (re * re + im * im) / samples.len() as f64
        })
        .sum();
    10.0 * ((total - of_tones).max(1e-3) / total).log10()
}

#[test]
fn loud_mixes_are_not_distorted() {
    for rate in Rate::ALL {
        for count in [2, 3, 5, 10] {
            let tones = &TONES[..count];
            let sums = sums(rate, tones, 4);
            let out = limited(rate, &sums);
            let mut clipped = vec![0; sums.len()];
            mix::narrow(&sums, &mut clipped);
            let second = rate.hz() as usize;
            let db = |samples: &[i16]| distortion_db(rate, tones, &samples[3 * second..]);
            let (ours, hard) = (db(&out), db(&clipped));
            println!("{count:2} tones at {:5} Hz: {ours:6.1} dB, clipped {hard:6.1} dB", rate.hz());
            assert!(ours <= -30.0, "{count} tones at {rate:?}: {ours:.1} dB");
            assert!(out[second..].iter().any(|sample| sample.unsigned_abs() > 20_000), "not softer than it has to be");
        }
    }
}

/// From the first loud frame on next to no sample is cut off: a peak that is met is at the end of the range, too, but
/// alone.
#[test]
fn peaks_are_met_in_time() {
    for rate in Rate::ALL {
        let mut sums = sums(rate, &TONES[..1], 1);
        sums.extend(self::sums(rate, &TONES[..6], 2));
        let out = limited(rate, &sums);
        let cut = out.windows(2).filter(|pair| pair[0] == pair[1] && pair[0].unsigned_abs() >= 32767).count();
        let would_be = sums.iter().filter(|sum| sum.abs() > 32767).count();
        assert!(cut * 100 < would_be, "{cut} instead of {would_be} at {rate:?}");
    }
}

#[test]
fn after_loudness_the_gain_comes_back() {
    let rate = Rate::Narrow;
    let mut sums = sums(rate, &TONES[..5], 1);
    let quiet: Vec<i32> = self::sums(rate, &TONES[..1], 4);
    sums.extend(&quiet);
    let out = limited(rate, &sums);
    let second = rate.hz() as usize;
    assert!(out[second..].iter().zip(&quiet).take(second / 10).all(|(out, sum)| i32::from(*out).abs() <= sum.abs()));
    let expected: Vec<i16> = quiet.iter().map(|sum| *sum as i16).collect();
    assert!(out[4 * second..] == expected[3 * second..], "3 seconds later it is as it was");
}

/// No step of the gain that a tone would show as a click.
#[test]
fn the_gain_moves_in_lines() {
    let rate = Rate::Full;
    let mut sums = sums(rate, &TONES[..1], 1);
    for (n, sum) in sums.iter_mut().enumerate() {
        // Twice as loud for a while.
        if (16_000..30_000).contains(&n) {
            *sum *= 4;
        }
    }
    let out = limited(rate, &sums);
    let steepest = sums.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap();
    for (n, pair) in out.windows(2).enumerate() {
        let step = (i32::from(pair[1]) - i32::from(pair[0])).abs();
        assert!(step <= steepest, "a step of {step} at {n}");
    }
}

#[test]
fn the_state_is_small() {
    assert_eq!(size_of::<Limiter>(), 16);
}

fn sum() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -40_000..40_000, 1 => any::<i32>(), 1 => Just(i32::MIN), 1 => Just(i32::MAX), 1 => -32_769..-32_766]
}

proptest! {
    #[test]
    fn quiet_frames_are_passed_on_to_the_bit(sums in proptest::collection::vec(-32_768..32_768, 0..600)) {
        let (mut limiter, mut out, mut expected) = (Limiter::new(), vec![0; sums.len()], vec![0; sums.len()]);
        limiter.process(&sums, &mut out);
        mix::narrow(&sums, &mut expected);
        prop_assert_eq!(&out, &expected);
        prop_assert_eq!(limiter, Limiter::new());
    }

    /// Any sums in frames of any length: nothing overflows, the gain stays one, and without a member it is the same.
    #[test]
    fn anything_is_limited(
        frames in proptest::collection::vec(proptest::collection::vec(sum(), 0..500), 1..20),
        own in any::<i16>(),
    ) {
        let (mut all, mut less) = (Limiter::new(), Limiter::new());
        for sums in frames {
            let (mut out, mut rest) = (vec![0; sums.len()], vec![0; sums.len()]);
            all.process(&sums, &mut out);
            let own = vec![own; sums.len()];
            let with: Vec<i32> = sums.iter().map(|sum| sum.wrapping_add(i32::from(own[0]))).collect();
            if with.iter().zip(&sums).all(|(with, sum)| with.checked_sub(i32::from(own[0])) == Some(*sum)) && sums.len() <= PART_MAX {
                less.process_less(&with, &own, &mut rest);
                prop_assert_eq!(&out, &rest);
            } else {
                less = all;
            }
            prop_assert!(all.gain() > 0.0 && all.gain() <= 1.0);
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same(sums in proptest::collection::vec(sum(), 0..300), gain in 0.0f32..1.0) {
        let len = sums.len();
        let own: Vec<i16> = sums.iter().map(|sum| (sum >> 16) as i16 / 2).collect();
        let sums: Vec<i32> = sums.iter().map(|sum| sum / 2).collect();
        let mut first = None;
        for kernels in dispatch::supported() {
            let (mut narrowed, mut scaled) = (vec![0; len], vec![0; len]);
            let fits = kernels.narrow_if_fits(&sums, &mut narrowed);
            let rest_fits = kernels.subtract_narrow_if_fits(&sums, &own, &mut narrowed);
            kernels.scale(&sums, gain, (1.0 - gain) / 300.0, &mut scaled);
            let result = (narrowed, scaled, fits, rest_fits, kernels.peak_sum(&sums));
            prop_assert_eq!(result.2, sums.iter().all(|sum| i16::try_from(*sum).is_ok()));
            match &first {
                None => first = Some(result),
                Some(first) => prop_assert_eq!(first, &result),
            }
        }
    }
}
