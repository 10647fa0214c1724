#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "samples of our own")]

use proptest::prelude::*;

use super::*;
use crate::dispatch;

const PAIRS: [(Rate, Rate); 6] = [
    (Rate::Narrow, Rate::Wide),
    (Rate::Wide, Rate::Narrow),
    (Rate::Wide, Rate::Full),
    (Rate::Full, Rate::Wide),
    (Rate::Narrow, Rate::Full),
    (Rate::Full, Rate::Narrow),
];

/// A tone of `amplitude` at a rate, in whole frames.
fn tone(rate: Rate, hz: f64, amplitude: f64, frames: usize) -> Vec<i16> {
    let step = hz / f64::from(rate.hz()) * std::f64::consts::TAU;
    (0..frames * rate.frame_samples()).map(|n| ((n as f64 * step).sin() * amplitude).round() as i16).collect()
}

fn resampled(from: Rate, to: Rate, input: &[i16]) -> Vec<i16> {
    let mut resampler = Resampler::new(from, to);
    let mut out = vec![0; input.len() / from.frame_samples() * to.frame_samples()];
    for (input, out) in input.chunks(from.frame_samples()).zip(out.chunks_mut(to.frame_samples())) {
        resampler.process(input, out);
    }
    out
}

/// Amplitude of the part of `samples` at a frequency, under a window that hides what is 40 Hz away.
fn amplitude_at(samples: &[i16], rate: Rate, hz: f64) -> f64 {
    let step = hz / f64::from(rate.hz()) * std::f64::consts::TAU;
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let place = (n as f64 + 0.5) / samples.len() as f64 * std::f64::consts::TAU;
        let window =
            0.358_75 - 0.488_29 * place.cos() + 0.141_28 * (2.0 * place).cos() - 0.011_68 * (3.0 * place).cos();
        re += f64::from(*sample) * window * (n as f64 * step).cos();
        im += f64::from(*sample) * window * (n as f64 * step).sin();
        weight += window;
    }
    2.0 * re.hypot(im) / weight
}

fn db(amplitude: f64) -> f64 {
    20.0 * amplitude.max(1e-9).log10()
}

/// The edge of the pass band between two rates.
fn pass_hz(from: Rate, to: Rate) -> f64 {
    if from.min(to) == Rate::Narrow { 3400.0 } else { 7000.0 }
}

#[test]
fn the_pass_band_is_flat() {
    for (from, to) in PAIRS {
        for step in 1..=20 {
            let hz = pass_hz(from, to) * f64::from(step) / 20.0;
            let out = resampled(from, to, &tone(from, hz, 20000.0, 40));
            let level = db(amplitude_at(&out[out.len() / 4..], to, hz) / 20000.0);
            assert!(level.abs() < 0.05, "{from:?} to {to:?}: {level:.3} dB at {hz} Hz");
        }
    }
}

#[test]
fn images_are_suppressed() {
    for (from, to) in PAIRS.into_iter().filter(|(from, to)| from < to) {
        let mut worst: f64 = -200.0;
        for step in 1..=10 {
            let hz = pass_hz(from, to) * f64::from(step) / 10.0;
            let out = resampled(from, to, &tone(from, hz, 30000.0, 40));
            for image in 1..=3 {
                for image in [f64::from(image * from.hz()) - hz, f64::from(image * from.hz()) + hz] {
                    if image < f64::from(to.hz()) / 2.0 {
                        worst = worst.max(db(amplitude_at(&out[out.len() / 4..], to, image) / 30000.0));
                    }
                }
            }
        }
        println!("{from:?} to {to:?}: images {worst:.1} dB");
        assert!(worst < -70.0, "{from:?} to {to:?}: {worst:.1} dB");
    }
}

#[test]
fn what_would_fold_into_the_pass_band_is_suppressed() {
    for (from, to) in PAIRS.into_iter().filter(|(from, to)| from > to) {
        let (mut worst, mut hz): (f64, f64) = (-200.0, f64::from(to.hz()) - pass_hz(from, to));
        while hz < f64::from(from.hz()) / 2.0 {
            let out = resampled(from, to, &tone(from, hz, 30000.0, 40));
            let folded = (hz + f64::from(to.hz()) / 2.0).rem_euclid(f64::from(to.hz())) - f64::from(to.hz()) / 2.0;
            if folded.abs() > 50.0 {
                worst = worst.max(db(amplitude_at(&out[out.len() / 4..], to, folded.abs()) / 30000.0));
            }
            hz += 287.0;
        }
        println!("{from:?} to {to:?}: folded {worst:.1} dB");
        assert!(worst < -70.0, "{from:?} to {to:?}: {worst:.1} dB");
    }
}

/// A tone comes out as the tone itself, that much later: at no frame's border is there a step.
#[test]
fn the_output_is_the_input_after_the_delay() {
    for (from, to) in PAIRS {
        let hz = 1013.0;
        let out = resampled(from, to, &tone(from, hz, 12000.0, 30));
        let wanted = tone(to, hz, 12000.0, 30);
        let delay = Resampler::new(from, to).delay_samples();
        assert!(delay * 500 < to.hz() as usize, "{from:?} to {to:?}: more than 2 ms");
        let from_here = 4 * to.frame_samples();
        for (n, (out, wanted)) in out[from_here + delay..].iter().zip(&wanted[from_here..]).enumerate() {
            assert!(out.abs_diff(*wanted) <= 4, "{from:?} to {to:?}: {out} for {wanted} at {n}");
        }
    }
}

#[test]
fn there_and_back_is_the_same_within_the_band() {
    for (low, high) in PAIRS.into_iter().filter(|(from, to)| from < to) {
        let input = tone(low, 700.0, 9000.0, 30);
        let up = resampled(low, high, &input);
        let back = resampled(high, low, &up);
        let delay = Resampler::new(high, low).delay_samples()
            + Resampler::new(low, high).delay_samples() * low.frame_samples() / high.frame_samples();
        let error: f64 =
            back[400 + delay..].iter().zip(&input[400..]).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let rms = (error / (input.len() - 400 - delay) as f64).sqrt();
        // 70 dB below the tone.
        assert!(rms < 2.0, "{low:?} and {high:?}: {rms}");
    }
}

#[test]
fn equal_rates_are_a_copy() {
    for rate in Rate::ALL {
        let input = tone(rate, 440.0, 12345.0, 3);
        assert_eq!(resampled(rate, rate, &input), input);
        assert_eq!(Resampler::new(rate, rate).delay_samples(), 0);
    }
}

#[test]
fn a_reset_is_a_beginning() {
    let input = tone(Rate::Narrow, 440.0, 12345.0, 1);
    let mut resampler = Resampler::new(Rate::Narrow, Rate::Full);
    let (mut first, mut second) = ([0; 480], [0; 480]);
    resampler.process(&input, &mut first);
    resampler.reset();
    resampler.process(&input, &mut second);
    assert_eq!(first, second);
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<Resampler>() < 400);
}

#[test]
#[should_panic(expected = "whole frames of 10 ms")]
fn other_lengths_are_refused() {
    Resampler::new(Rate::Narrow, Rate::Wide).process(&[0; 81], &mut [0; 162]);
}

proptest! {
    /// However many frames are given at once, whatever is in them, and on any instruction set.
    #[test]
    fn the_result_depends_on_the_samples_alone(
        pair in 0..PAIRS.len(),
        seed in any::<u64>(),
        cuts in proptest::collection::vec(1_usize..4, 1..6),
    ) {
        let (from, to) = PAIRS[pair];
        let frames: usize = cuts.iter().sum();
        let mut state = seed | 1;
        let input: Vec<i16> = (0..frames * from.frame_samples())
            .map(|n| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Squares of full scale now and then: the filter overshoots.
                if n / 70 % 3 == 0 { if n / 9 % 2 == 0 { i16::MAX } else { i16::MIN } } else { (state >> 48) as i16 }
            })
            .collect();
        let mut resampler = Resampler::new(from, to);
        let (mut out, mut at) = (vec![0; frames * to.frame_samples()], 0);
        for cut in cuts {
            let (here, there) = (at * from.frame_samples(), at * to.frame_samples());
            resampler.process(
                &input[here..here + cut * from.frame_samples()],
                &mut out[there..there + cut * to.frame_samples()],
            );
            at += cut;
        }
        prop_assert_eq!(&out, &resampled(from, to, &input));

        let filter = Filter::between(from.frame_samples(), to.frame_samples());
        let kept = if from < to { filter.len() } else { filter.len() * filter.ratio };
        let mut samples = vec![0; kept];
        samples.extend(&input[..from.frame_samples()]);
        for kernels in dispatch::supported() {
            let mut frame = vec![0; to.frame_samples()];
            if from < to {
                kernels.interpolate(filter, &samples, &mut frame);
            } else {
                kernels.decimate(filter, &samples, &mut frame);
            }
            prop_assert_eq!(&frame[..], &out[..to.frame_samples()], "{:?}", kernels);
        }
    }
}
