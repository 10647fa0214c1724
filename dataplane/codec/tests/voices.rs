//! The detector of voice and the control of gain on real voices, with noise behind them.
//!
//! Not part of a normal run, for voices have to be installed:
//!
//! ```text
//! apt-get install asterisk-core-sounds-{en,fr,it,ru}-wav
//! cargo test -p ringbridge-codec --test voices -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "samples of our own")]

use std::fs;
use std::path::{Path, PathBuf};

use ringbridge_codec::agc::Agc;
use ringbridge_codec::noise::{ComfortNoise, NoiseGenerator};
use ringbridge_codec::vad::Vad;

const VOICES: [&str; 4] = ["en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"];
const SOUNDS: &str = "/usr/share/asterisk/sounds";
const FRAME: usize = 80;
/// A minute.
const LENGTH: usize = 60 * 8000;
/// Frames that voice may go on for after it ended.
const HANGOVER: usize = 22;

/// Prompts of a voice, with a second of silence between any two.
fn said(voice: &str) -> Vec<i16> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(SOUNDS).join(voice))
        .unwrap_or_else(|error| panic!("{voice}: {error}: install asterisk-core-sounds-en-wav and so on"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wav"))
        .collect();
    files.sort();
    let mut samples = vec![0; 16_000];
    for file in files {
        let bytes = fs::read(file).unwrap();
        let data = bytes.windows(4).position(|window| window == b"data").unwrap();
        samples.extend(bytes[data + 8..].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)));
        samples.extend([0; 8000]);
        samples.truncate(samples.len() / FRAME * FRAME);
        if samples.len() > LENGTH {
            break;
        }
    }
    samples
}

fn power(samples: &[i16]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64 / 32768.0 / 32768.0
}

fn db(power: f64) -> f64 {
    10.0 * power.max(1e-13).log10()
}

/// The level of what is said, of the frames within 25 dB of the loudest.
fn speech_db(samples: &[i16]) -> f64 {
    let powers: Vec<f64> = samples.chunks(FRAME).map(power).collect();
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    let spoken: Vec<f64> = powers.into_iter().filter(|power| *power > loudest / 316.0).collect();
    db(spoken.iter().sum::<f64>() / spoken.len() as f64)
}

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages"]
fn voices_are_told_from_noise() {
    println!(
        "| noise below the voice | frames of voice missed | frames of silence taken for voice |\n| --- | --- | --- |"
    );
    for (below, missed_max, false_max) in [(40, 0.5, 0.5), (30, 0.5, 0.5), (20, 0.5, 0.5), (10, 2.0, 4.0)] {
        let (mut spoken, mut missed, mut silent, mut wrong) = (0, 0, 0, 0);
        for voice in VOICES {
            // As from a car, and a hiss.
            for model in [&[20_u8, 140, 120][..], &[150, 120]] {
                let clean = said(voice);
                let level = speech_db(&clean);
                let mut generator = NoiseGenerator::new();
                let noise_level = (f64::from(below) - level).round() as u8;
                generator.set(&ComfortNoise::parse(&[&[noise_level], model].concat()).unwrap());
                let mut vad = Vad::new();
                let mut since_voice = HANGOVER;
                for (at, frame) in clean.chunks(FRAME).enumerate() {
                    let mut noisy = [0; FRAME];
                    generator.fill(&mut noisy);
                    for (sample, clean) in noisy.iter_mut().zip(frame) {
                        *sample = sample.saturating_add(*clean);
                    }
                    let active = vad.process(&noisy).active;
                    let here = db(power(frame));
                    since_voice = if here > level - 40.0 { 0 } else { since_voice + 1 };
                    // The first second and a half is to learn the background by.
                    if at < 150 {
                        continue;
                    }
                    if here > level - 12.0 {
                        spoken += 1;
                        missed += usize::from(!active);
                    } else if since_voice > HANGOVER {
                        silent += 1;
                        wrong += usize::from(active);
                    }
                }
            }
        }
        let percent = |a: usize, b: usize| 100.0 * a as f64 / b as f64;
        let (missed, wrong) = (percent(missed, spoken), percent(wrong, silent));
        println!("| {below} dB | {missed:.1} % | {wrong:.1} % |");
        assert!(missed < missed_max && wrong < false_max, "{below} dB: {missed:.1} % missed, {wrong:.1} % wrong");
    }
}

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages"]
fn voices_come_to_one_level() {
    println!("| voice | came with | became |\n| --- | --- | --- |");
    for voice in VOICES {
        let clean = said(voice);
        for change in [-14.0, -6.0, 0.0, 6.0] {
            let factor = 10_f64.powf(change / 20.0);
            let mut samples: Vec<i16> = clean.iter().map(|sample| (f64::from(*sample) * factor) as i16).collect();
            let before = speech_db(&samples);
            let mut agc = Agc::new();
            samples.chunks_exact_mut(FRAME).for_each(|frame| {
                agc.process(frame);
            });
            // Of the second half, when it has learned.
            let after = speech_db(&samples[LENGTH / 2..]);
            println!("| {voice} | {before:.1} dBov | {after:.1} dBov |");
            assert!((-25.5..=-18.5).contains(&after), "{voice}: {before:.1} became {after:.1}");
        }
    }
}
