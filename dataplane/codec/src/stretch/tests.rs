use core::f64::consts::TAU;

use proptest::prelude::*;

use super::*;
use crate::dispatch;

/// Gives the samples of a slice.
fn reader(samples: &[i16]) -> impl FnMut(&mut [i16]) -> usize {
    let mut rest = samples;
    move |out| {
        assert!(!out.is_empty(), "asked for nothing");
        let (head, tail) = rest.split_at(out.len().min(rest.len()));
        out[..head.len()].copy_from_slice(head);
        rest = tail;
        head.len()
    }
}

/// Pulls frames until the end.
fn drain(stretch: &mut TimeStretch, source: &mut dyn FnMut(&mut [i16]) -> usize, frame: usize) -> Vec<i16> {
    let mut all = Vec::new();
    loop {
        let mut out = vec![0; frame];
        let count = stretch.fill(&mut out, source);
        all.extend_from_slice(&out[..count]);
        if count < frame {
            return all;
        }
    }
}

fn stretched(samples: &[i16], percent: u16) -> Vec<i16> {
    let mut stretch = TimeStretch::new();
    stretch.set_percent(percent);
    drain(&mut stretch, &mut reader(samples), 80)
}

#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
fn sine(hz: f64, amplitude: f64, count: usize) -> Vec<i16> {
    (0..count).map(|n| ((n as f64 * hz * TAU / 8000.0).sin() * amplitude).round() as i16).collect()
}

/// Something like a voice: pulses of a slowly changing pitch through a resonance, with pauses.
#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
fn voice(count: usize) -> Vec<i16> {
    let (mut phase, mut a, mut b) = (0.0_f64, 0.0_f64, 0.0_f64);
    (0..count)
        .map(|n| {
            let t = n as f64 / 8000.0;
            phase += (110.0 + 30.0 * (t * 4.0).sin()) / 8000.0;
            let pulse = if phase >= 1.0 { 6000.0 } else { 0.0 };
            phase = phase.fract();
            let loudness = if (t * 2.5).fract() < 0.8 { 1.0 } else { 0.0 };
            let next = 1.8 * a - 0.9 * b + pulse * loudness;
            (b, a) = (a, next);
            next as i16
        })
        .collect()
}

/// The frequency between the first and the last zero crossing upwards.
fn frequency(samples: &[i16]) -> f64 {
    let crossings: Vec<f64> = samples
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < 0 && pair[1] >= 0)
        .map(|(n, pair)| n as f64 + f64::from(-i32::from(pair[0])) / f64::from(i32::from(pair[1]) - i32::from(pair[0])))
        .collect();
    (crossings.len() - 1) as f64 * 8000.0 / (crossings[crossings.len() - 1] - crossings[0])
}

fn steepest(samples: &[i16]) -> i32 {
    samples.windows(2).map(|pair| (i32::from(pair[0]) - i32::from(pair[1])).abs()).max().unwrap_or(0)
}

fn assert_length(samples: &[i16], out: &[i16], percent: u16) {
    let expected = samples.len() as f64 * 100.0 / f64::from(percent);
    let error = out.len() as f64 - expected;
    assert!(error.abs() <= 160.0, "{} samples at {percent} % made {}, off by {error}", samples.len(), out.len());
}

#[test]
fn a_hundred_percent_is_the_source_itself() {
    let samples = voice(10_000);
    for frame in [1, 80, 81, 160, 1000, 10_001] {
        let mut stretch = TimeStretch::new();
        assert_eq!(drain(&mut stretch, &mut reader(&samples), frame), samples, "frames of {frame}");
    }
    // And without delay: what has not been asked for has not been read.
    let mut stretch = TimeStretch::new();
    let mut asked = 0;
    stretch.fill(&mut [0; 80], &mut |out| {
        asked += out.len();
        out.len()
    });
    assert_eq!(asked, 80);
}

#[test]
fn the_length_is_that_of_the_speed() {
    let sine = sine(440.0, 10_000.0, 80_001);
    let voice = voice(80_001);
    for percent in PERCENT_MIN..=PERCENT_MAX {
        for signal in [&sine, &voice] {
            for length in [0, 1, 79, 80, 81, 150, 239, 300, 320, 500, 800, 1234, 4000, 80_001] {
                let samples = &signal[..length];
                assert_length(samples, &stretched(samples, percent), percent);
            }
        }
    }
}

#[test]
fn the_pitch_stays_and_nothing_clicks() {
    for percent in (PERCENT_MIN..=PERCENT_MAX).step_by(5) {
        for hz in [100.0, 150.0, 211.0, 440.0, 697.0, 1000.0, 1777.0, 3000.0] {
            let samples = sine(hz, 16_000.0, 16_000);
            let out = stretched(&samples, percent);
            let found = frequency(&out);
            assert!((found / hz - 1.0).abs() < 0.01, "{hz} Hz at {percent} %: {found} Hz");
            let (jump, natural) = (steepest(&out), steepest(&samples));
            assert!(jump <= natural + natural / 8 + 2, "{hz} Hz at {percent} %: {jump} after {natural}");
        }
    }
}

#[test]
fn the_level_stays() {
    let samples = voice(80_000);
    let level = |samples: &[i16]| mix::level_dbov(mix::energy(samples), samples.len());
    for percent in (PERCENT_MIN..=PERCENT_MAX).step_by(10) {
        let difference = level(&samples) - level(&stretched(&samples, percent));
        assert!(difference.abs() <= 1, "{difference} dB at {percent} %");
    }
}

#[test]
fn a_change_of_speed_does_not_click() {
    for hz in [200.0, 440.0, 1000.0] {
        let samples = sine(hz, 16_000.0, 40_000);
        let mut source = reader(&samples);
        let mut stretch = TimeStretch::new();
        let mut out = Vec::new();
        for percent in [100, 80, 120, 100, 50, 150, 50, 100, 90, 110, 100, 149, 100].repeat(4) {
            stretch.set_percent(percent);
            assert_eq!(stretch.percent(), percent);
            let mut frame = [0; 407];
            assert_eq!(stretch.fill(&mut frame, &mut source), 407);
            out.extend_from_slice(&frame);
        }
        let (jump, natural) = (steepest(&out), steepest(&samples));
        assert!(jump <= natural + natural / 8, "{hz} Hz: {jump} after {natural}");
        assert!((frequency(&out) / hz - 1.0).abs() < 0.01);
    }
}

#[test]
fn back_at_a_hundred_percent_samples_pass_unchanged() {
    let samples = voice(20_000);
    let mut source = reader(&samples);
    let mut stretch = TimeStretch::new();
    stretch.set_percent(70);
    stretch.fill(&mut [0; 4000], &mut source);
    stretch.set_percent(100);
    let rest = drain(&mut stretch, &mut source, 80);
    // All but what is left of the last splice.
    assert_eq!(rest[OVERLAP + PIECE..], samples[samples.len() - (rest.len() - OVERLAP - PIECE)..]);
}

#[test]
fn after_the_end_more_may_come() {
    let samples = voice(4000);
    let mut stretch = TimeStretch::new();
    stretch.set_percent(80);
    let first = drain(&mut stretch, &mut reader(&samples), 80);
    assert_eq!(stretch.fill(&mut [0; 80], &mut |_| 0), 0);
    let second = drain(&mut stretch, &mut reader(&samples), 80);
    assert_eq!(first, second);
    assert_length(&samples, &second, 80);
}

#[test]
fn the_end_of_the_source_is_heard() {
    for percent in [50, 75, 100, 125, 150] {
        let samples = voice(4003);
        let out = stretched(&samples, percent);
        // The last splice may reach to the end; by then hardly anything is left of the piece before.
        for (out, sample) in out[out.len() - 16..].iter().zip(&samples[samples.len() - 16..]) {
            assert!((i32::from(*out) - i32::from(*sample)).abs() <= 400, "{percent} %: {out} for {sample}");
        }
    }
}

#[test]
fn silence_and_extremes_go_through() {
    for percent in [50, 99, 101, 150] {
        for value in [0, i16::MIN, i16::MAX] {
            let samples = [value; 5000];
            let out = stretched(&samples, percent);
            assert!(out.iter().all(|sample| *sample == value), "{value} at {percent} %");
            assert_length(&samples, &out, percent);
        }
    }
}

#[test]
fn clearing_forgets_what_is_buffered() {
    let mut stretch = TimeStretch::new();
    stretch.set_percent(50);
    stretch.fill(&mut [0; 333], &mut reader(&voice(8000)));
    stretch.clear();
    assert_eq!(stretch.percent(), 50);
    let out = drain(&mut stretch, &mut reader(&[7; 1000]), 80);
    assert!(out.iter().all(|sample| *sample == 7));
}

#[test]
fn speeds_are_clamped() {
    let mut stretch = TimeStretch::new();
    stretch.set_percent(0);
    assert_eq!(stretch.percent(), PERCENT_MIN);
    stretch.set_percent(u16::MAX);
    assert_eq!(stretch.percent(), PERCENT_MAX);
}

proptest! {
    /// Any speeds, frames and short reads: nothing panics, nothing is lost for good, and the length is right.
    #[test]
    fn any_order_of_calls_is_fine(
        calls in proptest::collection::vec((50_u16..=150, 0_usize..700, any::<bool>()), 1..60),
        samples in proptest::collection::vec(any::<i16>(), 2000),
    ) {
        let mut stretch = TimeStretch::new();
        let mut given = 0;
        let mut shortest = 0.0;
        let mut out = vec![0; 700];
        for (percent, frame, is_short) in calls {
            let before = given;
            stretch.set_percent(percent);
            let count = stretch.fill(&mut out[..frame], &mut |room| {
                let count = if is_short { room.len() / 2 } else { room.len() };
                for (at, sample) in room[..count].iter_mut().enumerate() {
                    *sample = samples[(given + at) % samples.len()];
                }
                given += count;
                count
            });
            prop_assert!(count <= frame);
            prop_assert!(count == frame || is_short || given == before, "only a short read ends the output early");
            shortest += count as f64;
        }
        stretch.set_percent(100);
        shortest += drain(&mut stretch, &mut |_| 0, 80).len() as f64;
        // Twice as long at most, and two thirds at least, give or take the searches of each short read.
        prop_assert!(shortest >= given as f64 / 1.5 - 60.0 * 320.0 && shortest <= given as f64 * 2.0 + 60.0 * 320.0);
    }

    #[test]
    fn every_instruction_set_correlates_the_same(
        pattern in proptest::collection::vec(-256_i16..=256, OVERLAP),
        region in proptest::collection::vec(any::<i16>(), OVERLAP..400),
    ) {
        let pattern: [i16; OVERLAP] = pattern.try_into().unwrap();
        let expected: Vec<i32> = region
            .windows(OVERLAP)
            .map(|stretch| pattern.iter().zip(stretch).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum())
            .collect();
        for kernels in dispatch::supported() {
            let mut out = vec![0; expected.len()];
            kernels.correlate_lags(&pattern, &region, &mut out);
            prop_assert_eq!(&out, &expected, "{:?}", kernels);
        }
    }
}

#[test]
fn at_higher_rates_it_is_the_same_and_keeps_what_lies_above_the_telephone_band() {
    for (rate, tones) in [(Rate::Wide, [200.0, 1000.0, 5000.0]), (Rate::Full, [200.0, 5000.0, 12_000.0])] {
        let scale = f64::from(rate.hz()) / 8000.0;
        for percent in [50, 70, 90, 110, 130, 150] {
            for hz in tones {
                let samples = sine(hz / scale, 16_000.0, 2 * rate.hz() as usize);
                let mut stretch = TimeStretch::with_rate(rate);
                stretch.set_percent(percent);
                let out = drain(&mut stretch, &mut reader(&samples), rate.frame_samples());
                let expected = samples.len() as f64 * 100.0 / f64::from(percent);
                assert!((out.len() as f64 - expected).abs() <= 160.0 * scale, "{hz} Hz at {percent} %: {}", out.len());
                let found = frequency(&out) * scale;
                assert!((found / hz - 1.0).abs() < 0.01, "{hz} Hz at {percent} %: {found} Hz");
                let (jump, natural) = (steepest(&out), steepest(&samples));
                assert!(jump <= natural + natural / 8 + 2, "{hz} Hz at {percent} %: {jump} after {natural}");
            }
        }
    }
}
