use core::f64::consts::TAU;

use super::*;
use crate::{dispatch, g711};

/// A stretch of a test signal; `digit` is an event number.
#[derive(Clone, Copy)]
struct Part {
    digit: u8,
    samples: usize,
    row_dbm0: f64,
    column_dbm0: f64,
    row_deviation: f64,
    column_deviation: f64,
}

impl Part {
    /// A digit at -10 dBm0 for each tone.
    fn new(digit: u8, ms: f64) -> Self {
        let samples = samples_of(ms);
        Self { digit, samples, row_dbm0: -10.0, column_dbm0: -10.0, row_deviation: 0.0, column_deviation: 0.0 }
    }

    fn levels(self, row_dbm0: f64, column_dbm0: f64) -> Self {
        Self { row_dbm0, column_dbm0, ..self }
    }

    fn deviations(self, row_deviation: f64, column_deviation: f64) -> Self {
        Self { row_deviation, column_deviation, ..self }
    }

    fn power(&self) -> f64 {
        (amplitude(self.row_dbm0).powi(2) + amplitude(self.column_dbm0).powi(2)) / 2.0
    }

    /// The tones, from phases that are different for each `at`.
    fn write(&self, at: usize, out: &mut Vec<f64>) {
        let (row, column) = frequencies(self.digit);
        let (row, column) = (row * (1.0 + self.row_deviation), column * (1.0 + self.column_deviation));
        let phase = at as f64 * 0.7;
        for n in 0..self.samples {
            let t = n as f64 * TAU / 8000.0;
            let row = amplitude(self.row_dbm0) * (row * t + phase).sin();
            out.push(row + amplitude(self.column_dbm0) * (column * t + 2.0 * phase).sin());
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "short times")]
fn samples_of(ms: f64) -> usize {
    (ms * 8.0).round() as usize
}

fn amplitude(dbm0: f64) -> f64 {
    // 3.14 dB below the full scale.
    32768.0 * 10_f64.powf(dbm0 / 20.0 - 0.157)
}

fn frequencies(digit: u8) -> (f64, f64) {
    let at = ["147*", "2580", "369#", "ABCD"]
        .iter()
        .enumerate()
        .find_map(|(column, keys)| keys.find(symbol(digit).unwrap()).map(|row| (row, column)))
        .unwrap();
    ([697.0, 770.0, 852.0, 941.0][at.0], [1209.0, 1336.0, 1477.0, 1633.0][at.1])
}

/// White noise up to 4 kHz, the same in every run (xorshift64*; the sum of four even numbers is near enough to normal).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let mut even = || {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        };
        (even() + even() + even() + even()) * 3_f64.sqrt()
    }

    fn add(&mut self, signal: &mut [f64], power: f64) {
        for sample in signal {
            *sample += self.next() * power.sqrt();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast")]
fn rounded(signal: &[f64]) -> Vec<i16> {
    signal.iter().map(|sample| sample.round() as i16).collect()
}

fn changes_in_chunks(samples: &[i16], chunk: usize) -> Vec<DtmfChange> {
    let mut detector = DtmfDetector::new();
    let mut changes = Vec::new();
    for chunk in samples.chunks(chunk) {
        detector.process(chunk, &mut |change| changes.push(change));
    }
    changes
}

/// The digits that were started and ended, with their durations.
fn digits(samples: &[i16]) -> Vec<(u8, u32)> {
    let changes = changes_in_chunks(samples, 80);
    assert_eq!(changes.len() % 2, 0, "{changes:?}");
    changes
        .chunks(2)
        .map(|pair| match *pair {
            [DtmfChange::Started { event, .. }, DtmfChange::Ended { event: ended, duration }] if event == ended => {
                (event, duration)
            }
            _ => panic!("{changes:?}"),
        })
        .collect()
}

/// `part` between silences, once for every way it can lie in a block, with noise of `noise` times its power.
fn at_every_offset(part: Part, noise: f64, mut check: impl FnMut(usize, Vec<i16>)) {
    for offset in 0..BLOCK {
        let mut signal = vec![0.0; 800 + offset];
        part.write(offset, &mut signal);
        signal.resize(signal.len() + 800, 0.0);
        Noise(0x1234_5678 + offset as u64 * 977).add(&mut signal, part.power() * noise);
        check(offset, rounded(&signal));
    }
}

fn assert_heard(part: Part, noise: f64) {
    at_every_offset(part, noise, |offset, samples| {
        let found = digits(&samples);
        assert_eq!(found.len(), 1, "{:?} at offset {offset}: {found:?}", symbol(part.digit));
        assert_eq!(found[0].0, part.digit, "at offset {offset}");
    });
}

fn assert_not_heard(part: Part, noise: f64) {
    at_every_offset(part, noise, |offset, samples| {
        assert_eq!(digits(&samples), [], "{:?} at offset {offset}", symbol(part.digit));
    });
}

/// 15 dB.
const NOISE: f64 = 0.031_622_777;

#[test]
fn all_digits_are_found_at_all_levels() {
    for digit in 0..16 {
        for level in [0.0, -3.0, -10.0, -20.0, -25.0, -30.0] {
            assert_heard(Part::new(digit, 40.0).levels(level, level), 0.0);
        }
    }
}

#[test]
fn all_digits_are_found_in_noise() {
    for digit in 0..16 {
        for level in [0.0, -10.0, -25.0] {
            assert_heard(Part::new(digit, 40.0).levels(level, level), NOISE);
        }
    }
}

#[test]
fn the_tolerance_of_frequency_is_kept() {
    for digit in 0..16 {
        for (row, column) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, 0.0), (0.0, -1.0)] {
            let part = Part::new(digit, 40.0);
            for noise in [0.0, NOISE] {
                assert_heard(part.deviations(row * 0.015, column * 0.015), noise);
            }
        }
    }
}

#[test]
fn frequencies_that_are_off_are_refused() {
    for digit in 0..16 {
        for (row, column) in [(0.035, 0.0), (-0.035, 0.0), (0.0, 0.035), (0.0, -0.035), (0.035, -0.035), (-0.05, 0.05)]
        {
            for noise in [0.0, NOISE] {
                assert_not_heard(Part::new(digit, 100.0).deviations(row, column), noise);
            }
        }
    }
}

#[test]
fn the_tolerance_of_twist_is_kept() {
    for digit in 0..16 {
        for noise in [0.0, NOISE] {
            assert_heard(Part::new(digit, 40.0).levels(-12.0, -20.0), noise);
            assert_heard(Part::new(digit, 40.0).levels(-17.0, -25.0), noise);
            assert_heard(Part::new(digit, 40.0).levels(-16.0, -12.0), noise);
            assert_heard(Part::new(digit, 40.0).levels(-25.0, -21.0), noise);
        }
    }
}

#[test]
fn the_corners_of_all_tolerances_are_kept_together() {
    for digit in 0..16 {
        for (row, column) in [(0.015, 0.015), (0.015, -0.015), (-0.015, 0.015), (-0.015, -0.015)] {
            for (row_dbm0, column_dbm0) in [(-17.0, -25.0), (-25.0, -21.0)] {
                let part = Part::new(digit, 40.0).levels(row_dbm0, column_dbm0).deviations(row, column);
                assert_heard(part, NOISE);
            }
        }
    }
}

#[test]
fn too_much_twist_is_refused() {
    for digit in 0..16 {
        assert_not_heard(Part::new(digit, 100.0).levels(-10.0, -22.0), 0.0);
        assert_not_heard(Part::new(digit, 100.0).levels(-20.0, -11.0), 0.0);
    }
}

#[test]
fn one_tone_is_no_digit() {
    for digit in 0..16 {
        assert_not_heard(Part::new(digit, 200.0).levels(-10.0, -60.0), 0.0);
        assert_not_heard(Part::new(digit, 200.0).levels(-60.0, -10.0), 0.0);
    }
}

#[test]
fn tones_that_are_too_soft_are_no_digit() {
    for digit in 0..16 {
        assert_not_heard(Part::new(digit, 200.0).levels(-38.0, -38.0), 0.0);
    }
}

#[test]
fn short_tones_are_refused() {
    for digit in 0..16 {
        for ms in [10.0, 20.0, 22.0, 23.0] {
            for noise in [0.0, NOISE] {
                assert_not_heard(Part::new(digit, ms), noise);
            }
        }
    }
}

#[test]
fn durations_are_told() {
    for ms in [40.0, 55.0, 73.0, 100.0, 250.0, 5000.0] {
        for noise in [0.0, NOISE] {
            at_every_offset(Part::new(5, ms), noise, |offset, samples| {
                let found = digits(&samples);
                let error = (f64::from(found[0].1) - ms * 8.0).abs();
                assert!(found.len() == 1 && error <= 40.0, "{ms} ms at offset {offset}: {found:?}");
            });
        }
    }
}

#[test]
fn an_interruption_does_not_split_a_digit() {
    for digit in 0..16 {
        for gap in [1.0, 5.0, 10.0] {
            for noise in [0.0, NOISE] {
                for offset in 0..BLOCK {
                    let mut signal = vec![0.0; 400 + offset];
                    Part::new(digit, 50.0).write(offset, &mut signal);
                    signal.resize(signal.len() + samples_of(gap), 0.0);
                    Part::new(digit, 50.0).write(offset + 3, &mut signal);
                    signal.resize(signal.len() + 800, 0.0);
                    Noise(99 + offset as u64).add(&mut signal, Part::new(digit, 50.0).power() * noise);
                    let found = digits(&rounded(&signal));
                    assert_eq!(found.len(), 1, "{:?}, {gap} ms at {offset}: {found:?}", symbol(digit));
                    let expected = 800.0 + gap * 8.0;
                    assert!((f64::from(found[0].1) - expected).abs() <= 40.0, "{expected}: {found:?}");
                }
            }
        }
    }
}

#[test]
fn a_pause_separates_equal_digits() {
    for digit in 0..16 {
        for noise in [0.0, NOISE] {
            for offset in 0..BLOCK {
                let mut signal = vec![0.0; offset];
                for n in 0..5 {
                    Part::new(digit, 40.0).write(offset + n, &mut signal);
                    signal.resize(signal.len() + 320, 0.0);
                }
                Noise(7 + offset as u64).add(&mut signal, Part::new(digit, 40.0).power() * noise);
                let found = digits(&rounded(&signal));
                assert_eq!(found.len(), 5, "{:?} at {offset}: {found:?}", symbol(digit));
                assert!(found.iter().all(|(event, _)| *event == digit), "{found:?}");
            }
        }
    }
}

#[test]
fn digits_may_follow_each_other_without_a_pause() {
    for digit in 0..16 {
        let next = (digit + 7) % 16;
        let mut signal = vec![0.0; 100];
        Part::new(digit, 80.0).write(1, &mut signal);
        Part::new(next, 80.0).write(2, &mut signal);
        signal.resize(signal.len() + 800, 0.0);
        let found: Vec<u8> = digits(&rounded(&signal)).into_iter().map(|(event, _)| event).collect();
        assert_eq!(found, [digit, next]);
    }
}

#[test]
fn digits_survive_g711() {
    for digit in 0..16 {
        for (row, column) in [(0.0, 0.0), (-25.0, -25.0), (-17.0, -25.0), (-25.0, -21.0), (-30.0, -30.0)] {
            at_every_offset(Part::new(digit, 40.0).levels(row, column), NOISE, |offset, samples| {
                let mut words = vec![0; samples.len()];
                let mut decoded = vec![0; samples.len()];
                g711::encode_ulaw(&samples, &mut words);
                g711::decode_ulaw(&words, &mut decoded);
                let found = digits(&decoded);
                assert!(found.len() == 1 && found[0].0 == digit, "µ-law, {digit} at {offset}: {found:?}");
                g711::encode_alaw(&samples, &mut words);
                g711::decode_alaw(&words, &mut decoded);
                let found = digits(&decoded);
                assert!(found.len() == 1 && found[0].0 == digit, "A-law, {digit} at {offset}: {found:?}");
            });
        }
    }
}

#[test]
fn the_size_of_the_chunks_does_not_matter() {
    let mut signal = vec![0.0; 123];
    for digit in 0..16 {
        Part::new(digit, 60.0).write(usize::from(digit), &mut signal);
        signal.resize(signal.len() + 480, 0.0);
    }
    let samples = rounded(&signal);
    let expected = changes_in_chunks(&samples, 80);
    assert_eq!(expected.len(), 32);
    for chunk in [1, 7, 39, 40, 41, 79, 160, 241, 1000, samples.len()] {
        assert_eq!(changes_in_chunks(&samples, chunk), expected, "chunks of {chunk}");
    }
}

#[test]
fn a_start_tells_the_level_and_the_time_so_far() {
    for level in [-3_i8, -12, -25] {
        let mut signal = vec![0.0; 95];
        Part::new(6, 100.0).levels(f64::from(level), f64::from(level) - 3.0).write(1, &mut signal);
        let mut detector = DtmfDetector::new();
        let mut started = None;
        for (n, frame) in rounded(&signal).chunks(80).enumerate() {
            detector.process(frame, &mut |change| started = started.or(Some((change, n))));
        }
        let Some((DtmfChange::Started { event: 6, elapsed, level_dbm0 }, frame)) = started else {
            panic!("{started:?}");
        };
        assert_eq!(level_dbm0, level);
        let end = u32::try_from((frame + 1) * 80).unwrap() - 95;
        assert!(elapsed <= end + 8 && elapsed + 48 >= end, "{elapsed} of {end}");
        assert!((280..=360).contains(&end), "a digit is told of after 35 to 45 ms, not {end} samples");
        assert_eq!(detector.active(), Some(6));
    }
}

#[test]
fn ten_milliseconds_of_a_digit_pass_for_speech_at_most() {
    for digit in 0..16 {
        for (row, column) in [(0.0, 0.0), (-25.0, -25.0), (-17.0, -25.0), (-25.0, -21.0)] {
            for deviation in [0.0, 0.015, -0.015] {
                let part = Part::new(digit, 100.0).levels(row, column).deviations(deviation, -deviation);
                for offset in 0..80 {
                    let mut signal = vec![0.0; 800 + offset];
                    part.write(offset, &mut signal);
                    let end = signal.len();
                    signal.resize(end + 800, 0.0);
                    Noise(31 + offset as u64).add(&mut signal, part.power() * NOISE);
                    let mut detector = DtmfDetector::new();
                    let mut leaked = 0;
                    for (n, frame) in rounded(&signal).chunks(80).enumerate() {
                        detector.process(frame, &mut |_| ());
                        if !detector.is_tone_like() {
                            let (from, to) = ((n * 80).max(800 + offset), ((n + 1) * 80).min(end));
                            leaked += to.saturating_sub(from);
                        }
                    }
                    assert!(leaked <= 80, "{:?} at {offset}: {leaked} samples", symbol(digit));
                }
            }
        }
    }
}

#[test]
fn noise_is_no_digit() {
    let mut noise = Noise(4711);
    let mut signal = vec![0.0; 8000 * 60];
    noise.add(&mut signal, amplitude(-10.0).powi(2));
    let samples = rounded(&signal);
    assert_eq!(digits(&samples), []);
    let mut detector = DtmfDetector::new();
    let tone_like = samples
        .chunks(80)
        .filter(|frame| {
            detector.process(frame, &mut |_| ());
            detector.is_tone_like()
        })
        .count();
    assert!(tone_like < 6, "{tone_like} of 6000 frames");
}

#[test]
fn square_waves_and_extremes_are_no_digit() {
    for period in 2..40 {
        let samples: Vec<i16> = (0..8000).map(|n| if n % period < period / 2 { i16::MAX } else { i16::MIN }).collect();
        assert_eq!(digits(&samples), [], "period {period}");
    }
    assert_eq!(digits(&[i16::MIN; 8000]), []);
    assert_eq!(digits(&[0; 8000]), []);
}

#[test]
fn every_instruction_set_correlates_the_same() {
    let mut signal = vec![0.0; BLOCK];
    Noise(5).add(&mut signal, 1e7);
    let samples: [i16; BLOCK] = rounded(&signal).try_into().unwrap();
    let mut expected = [0.0; 2 * TONES];
    loops::correlate_dtmf(&samples, &mut expected);
    for (tone, hz) in FREQUENCIES_HZ.iter().enumerate() {
        let turn = |n: usize| TAU * f64::from(*hz) * n as f64 / 8000.0;
        let cosine: f64 = signal.iter().enumerate().map(|(n, sample)| sample.round() * turn(n).cos()).sum();
        let sine: f64 = signal.iter().enumerate().map(|(n, sample)| sample.round() * turn(n).sin()).sum();
        assert!(
            (f64::from(expected[tone]) - cosine).abs() < 0.1 && (f64::from(expected[TONES + tone]) - sine).abs() < 0.1
        );
    }
    for kernels in dispatch::supported() {
        let mut out = [0.0; 2 * TONES];
        kernels.correlate_dtmf(&samples, &mut out);
        assert_eq!(out, expected, "{kernels:?}");
    }
}

#[test]
fn symbols_are_those_of_the_keys() {
    let all: String = (0..16).filter_map(symbol).collect();
    assert_eq!(all, "0123456789*#ABCD");
    assert_eq!(symbol(16), None);
}
