#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "samples of our own")]

use proptest::prelude::*;

use super::*;
use crate::kind::Rate;

fn level(samples: &[i16]) -> f64 {
    let power = energy(samples) as f64 / samples.len() as f64;
    10.0 * (power / 32768.0 / 32768.0).log10()
}

fn payload(level: u8, coefficients: &[u8]) -> ComfortNoise {
    ComfortNoise::parse(&[&[level], coefficients].concat()).unwrap()
}

/// Ten seconds of it.
fn made(noise: &ComfortNoise, rate: Rate) -> Vec<i16> {
    let mut generator = NoiseGenerator::new();
    generator.set(noise);
    let mut samples = vec![0; 10 * rate.hz() as usize];
    samples.chunks_mut(rate.frame_samples()).for_each(|frame| generator.fill(frame));
    samples
}

const MODELS: [&[u8]; 5] = [
    &[],
    // Low frequencies, as of a car.
    &[12, 140, 120],
    // A hiss.
    &[200, 160],
    &[90, 200, 100, 150, 110, 140, 120, 130, 127, 127],
    &[30, 200, 90, 160, 100, 150, 120, 140, 110, 130],
];

#[test]
fn the_level_is_the_one_that_was_said() {
    for rate in Rate::ALL {
        for model in MODELS {
            for said in [15, 30, 45, 60, 75] {
                let samples = made(&payload(said, model), rate);
                let off = level(&samples) + f64::from(said);
                assert!(off.abs() < 1.0, "{off:.2} dB off -{said} with {model:?}");
            }
        }
    }
}

#[test]
fn the_spectrum_is_the_one_that_was_said() {
    for model in MODELS {
        let said = payload(40, model);
        let mut analyser = NoiseAnalyser::new();
        made(&said, Rate::Narrow).chunks(80).for_each(|frame| analyser.add(frame));
        let heard = analyser.comfort_noise(ORDER_MAX).unwrap();
        assert!(heard.is_alike(&said), "{heard:?} of {said:?}");
    }
}

#[test]
fn what_is_analysed_can_be_said_and_made_again() {
    // Neighbours alike, by a plain low pass.
    let mut random = 7u32;
    let mut last = 0.0;
    let background: Vec<i16> = (0..16000)
        .map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            last = 0.9 * last + (f64::from(random >> 16) - 32768.0) / 100.0;
            last.round() as i16
        })
        .collect();
    let mut analyser = NoiseAnalyser::new();
    assert_eq!(analyser.comfort_noise(4), None);
    background.chunks(160).for_each(|frame| analyser.add(frame));
    for order in [4, 10] {
        let noise = analyser.comfort_noise(order).unwrap();
        assert_eq!(noise.order(), order);
        let mut bytes = [0; 16];
        assert_eq!(noise.write(&mut bytes), Some(1 + order));
        assert_eq!(ComfortNoise::parse(&bytes[..=order]), Some(noise));
        // The one pole at 0.9 is minus the first coefficient; there are no others.
        assert!((12..=17).contains(&bytes[1]), "{bytes:?}");
        assert!(bytes[2..=order].iter().all(|byte| byte.abs_diff(FLAT) < 15), "{bytes:?}");
        let off = level(&made(&noise, Rate::Wide)) - level(&background);
        assert!(off.abs() < 1.5, "{off:.1} dB");
    }
    assert_eq!(analyser.comfort_noise(1).unwrap().order(), ORDER_MIN);
    assert_eq!(analyser.comfort_noise(4).unwrap().write(&mut [0; 4]), None);
    analyser.clear();
    assert_eq!(analyser.comfort_noise(4), None);
}

#[test]
fn payloads_of_any_length_are_read() {
    assert_eq!(ComfortNoise::parse(&[]), None);
    assert_eq!(ComfortNoise::parse(&[60]), Some(ComfortNoise::white(-60)));
    assert_eq!(ComfortNoise::parse(&[0x80 | 60]), Some(ComfortNoise::white(-60)), "the first bit is not used");
    let long = ComfortNoise::parse(&[50; 1400]).unwrap();
    assert_eq!((long.level_dbov(), long.order()), (-50, ORDER_MAX));
    assert_eq!(ComfortNoise::parse(&[127]).unwrap().level_dbov(), SILENCE_DBOV);
}

#[test]
fn silence_and_digital_silence() {
    let mut generator = NoiseGenerator::new();
    let mut samples = [1; 160];
    generator.fill(&mut samples);
    assert_eq!(samples, [0; 160], "until it is told");
    generator.set(&ComfortNoise::white(SILENCE_DBOV));
    generator.fill(&mut samples);
    assert_eq!(samples, [0; 160]);
    let mut analyser = NoiseAnalyser::new();
    analyser.add(&[0; 160]);
    assert_eq!(analyser.comfort_noise(10).unwrap().level_dbov(), SILENCE_DBOV);
    analyser.add(&[]);
}

/// The level goes over to another one without a step.
#[test]
fn changes_are_taken_up_slowly() {
    let mut generator = NoiseGenerator::new();
    generator.set(&payload(30, MODELS[1]));
    let mut samples = vec![0; 1600];
    generator.fill(&mut samples);
    generator.set(&payload(60, MODELS[2]));
    let mut levels = Vec::new();
    for _ in 0..50 {
        let mut frame = [0; 80];
        generator.fill(&mut frame);
        levels.push(level(&frame));
    }
    assert!(levels[0] > -42.0 && levels[49] < -56.0, "{levels:?}");
}

#[test]
fn seeds_make_different_noise_and_the_same_again() {
    let with = |seed| {
        let (mut generator, mut samples) = (NoiseGenerator::with_seed(seed), [0; 80]);
        generator.set(&ComfortNoise::white(-40));
        generator.fill(&mut samples);
        samples
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

proptest! {
    /// Models that ring and change stay bounded, and are quiet again afterwards.
    #[test]
    fn anything_can_be_made(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..16), 1..20)) {
        let mut generator = NoiseGenerator::new();
        let mut samples = [0; 160];
        for payload in &payloads {
            generator.set(&ComfortNoise::parse(payload).unwrap());
            generator.fill(&mut samples);
        }
        generator.set(&ComfortNoise::white(-70));
        for _ in 0..100 {
            generator.fill(&mut samples);
        }
        prop_assert!((level(&samples) + 70.0).abs() < 2.0, "{} dB", level(&samples));
    }

    #[test]
    fn anything_can_be_analysed(frames in proptest::collection::vec(proptest::collection::vec(any::<i16>(), 0..200), 1..10)) {
        let mut analyser = NoiseAnalyser::new();
        frames.iter().for_each(|frame| analyser.add(frame));
        if let Some(noise) = analyser.comfort_noise(10) {
            prop_assert!(noise.level_dbov() <= 0);
        }
    }
}
