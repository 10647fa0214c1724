//! Tells voice from background, frame by frame: louder than the background by so much, where the background is the softest
//! that was heard in the last second and a quarter.
//!
//! ```text
//! level   ──────╮ voice ╭────────╮ voice ╭──────
//!               ╰──┬────╯        ╰───────╯
//!                  ├ 9 dB over a soft background, 5 dB over a loud one
//! floor   ─────────┴─────────────────────────────
//! ```
//!
//! What is as loud for longer than that window becomes background, so that a fan or a car that begins is one a second
//! later; but what is louder than any background stays voice. After a word it goes on a fifth of a second, after a click
//! it does not. The state is the struct, some 50 bytes.

use crate::mix::{self, SILENCE_DBOV, energy};

/// What was found of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voice {
    /// Its level in dBov, `-127 ..= 0`, without what it has of direct current.
    pub level_dbov: i8,
    /// Whether there is voice in it, or was just before.
    pub active: bool,
}

/// Tells voice from background in one stream.
#[derive(Clone, Debug)]
pub struct Vad {
    background: Background,
    /// Frames of voice in a row.
    run: u8,
    /// Frames that what ended still counts as voice for.
    hangover: u8,
}

impl Vad {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { background: Background::at(FLOOR_FIRST), run: 0, hangover: 0 }
    }

    /// Takes a frame of 10 ms, of any rate.
    pub fn process(&mut self, frame: &[i16]) -> Voice {
        let level = level(frame);
        self.background.follow(level);
        let is_voice = level > self.background.threshold(FLOOR_MAX);
        if is_voice {
            self.run = self.run.saturating_add(1);
            self.hangover = match self.run {
                0..=1 => self.hangover,
                2..=4 => self.hangover.max(HANGOVER_SHORT),
                _ => HANGOVER,
            };
        } else {
            self.run = 0;
        }
        let active = is_voice || self.hangover > 0;
        if !is_voice {
            self.hangover = self.hangover.saturating_sub(1);
        }
        Voice { level_dbov: mix::dbov_of(level), active }
    }

    /// Whether the last frame itself was voice, not only one before it.
    #[must_use]
    pub const fn is_voice_now(&self) -> bool {
        self.run > 0
    }

    /// The level of the background, in dBov.
    #[must_use]
    pub fn floor_db(&self) -> f32 {
        f32::from(self.background.floor(FLOOR_MAX)) / 16.0
    }

    /// Begins another stream.
    pub const fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for Vad {
    fn default() -> Self {
        Self::new()
    }
}

/// The background of a stream, from levels in sixteenths of a dBov alone, a frame of 10 ms each. 20 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Background {
    /// The softest level of each part of the window, the newest first.
    lows: [i16; PARTS],
    /// Mean of the last levels.
    smooth: i16,
    /// Frames of the newest part.
    frames: u8,
}

impl Background {
    /// Of a stream that nothing is known of: the first level is taken for it, until a softer one comes.
    #[must_use]
    pub const fn unknown() -> Self {
        Self::at(UNKNOWN)
    }

    const fn at(level: i16) -> Self {
        Self { lows: [level; PARTS], smooth: level, frames: 0 }
    }

    /// Takes the level of a frame.
    #[inline]
    pub fn follow(&mut self, level: i16) {
        if self.smooth == UNKNOWN {
            self.smooth = level;
        }
        // Levels are far from the ends of an i16.
        self.smooth += (level - self.smooth) * SMOOTHING / 16;
        self.lows[0] = self.lows[0].min(self.smooth);
        self.frames += 1;
        if self.frames == PART_FRAMES {
            self.frames = 0;
            self.lows.copy_within(..PARTS - 1, 1);
            self.lows[0] = self.smooth;
        }
    }

    /// Its level, none louder than `max`.
    #[must_use]
    #[inline]
    pub fn floor(&self, max: i16) -> i16 {
        let softest = self.lows.iter().fold(0, |softest, &low| softest.min(low));
        // The softest of many frames is softer than their mean.
        (softest + SOFTEST_BELOW_MEAN).clamp(FLOOR_MIN, max)
    }

    /// What is louder than this is voice, over a background none louder than `max`.
    #[must_use]
    #[inline]
    pub fn threshold(&self, max: i16) -> i16 {
        let floor = self.floor(max);
        floor + MARGIN_SOFT - (floor - FLOOR_MIN) / FLOOR_FOR_MARGIN
    }
}

/// The level of a frame in sixteenths of a dBov, without direct current.
#[expect(clippy::cast_precision_loss, reason = "a level is not that exact")]
fn level(frame: &[i16]) -> i16 {
    if frame.is_empty() {
        return i16::from(SILENCE_DBOV) * 16;
    }
    let count = frame.len() as f64;
    let mean = frame.iter().map(|sample| i64::from(*sample)).sum::<i64>() as f64 / count;
    let power = (energy(frame) as f64 / count - mean * mean) / (32768.0 * 32768.0);
    let level = if power > 1e-12 { 160.0 * power.log10() } else { f64::from(SILENCE_DBOV) * 16.0 };
    #[expect(clippy::cast_possible_truncation, reason = "clamped")]
    let level = level.round().clamp(f64::from(SILENCE_DBOV) * 16.0, 0.0) as i16;
    level
}

/// The window of the background: 8 parts of 160 ms.
const PARTS: usize = 8;
const PART_FRAMES: u8 = 16;
/// What a level counts for in the mean of the last, in sixteenths.
const SMOOTHING: i16 = 5;
/// No level.
const UNKNOWN: i16 = i16::MAX;
// Levels in sixteenths of a dBov.
const SOFTEST_BELOW_MEAN: i16 = 24;
/// What is taken for the background before it is known.
const FLOOR_FIRST: i16 = -60 * 16;
/// A line without noise is not to make a voice of every whisper,
const FLOOR_MIN: i16 = -66 * 16;
/// nor a loud and steady voice a background.
const FLOOR_MAX: i16 = -30 * 16;
/// Over the background.
const MARGIN_SOFT: i16 = 9 * 16;
const MARGIN_LOUD: i16 = 5 * 16;
/// By how much the background is louder where the margin is smaller by one.
const FLOOR_FOR_MARGIN: i16 = (FLOOR_MAX - FLOOR_MIN) / (MARGIN_SOFT - MARGIN_LOUD);
/// Frames.
const HANGOVER: u8 = 20;
const HANGOVER_SHORT: u8 = 5;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kind::Rate;
    use crate::noise::{ComfortNoise, NoiseGenerator};

    /// A background with words in it, 300 ms each and 500 ms apart, from second 2 on; and which frames have words.
    fn words(rate: Rate, floor: i8, voice_amplitude: f64, seconds: usize) -> (Vec<i16>, Vec<bool>) {
        let mut noise = NoiseGenerator::new();
        noise.set(&ComfortNoise::parse(&[floor.unsigned_abs(), 60, 140]).unwrap());
        let frame = rate.frame_samples();
        let mut samples = vec![0; seconds * 100 * frame];
        noise.fill(&mut samples);
        let mut spoken = Vec::new();
        for (at, frame) in samples.chunks_mut(frame).enumerate() {
            let is_word = at >= 200 && at % 80 < 30;
            spoken.push(is_word);
            if is_word {
                for (n, sample) in frame.iter_mut().enumerate() {
                    let t = (at as f64 * 0.01) + n as f64 / f64::from(rate.hz());
                    let phase = 140.0 * t * std::f64::consts::TAU;
                    let voice = phase.sin() + 0.5 * (3.0 * phase).sin() + 0.2 * (9.0 * phase).sin();
                    *sample = sample.saturating_add((voice_amplitude * voice) as i16);
                }
            }
        }
        (samples, spoken)
    }

    #[test]
    fn words_are_found_in_backgrounds_of_any_loudness() {
        for rate in Rate::ALL {
            for (floor, amplitude) in [(-75, 500.0), (-60, 1000.0), (-50, 2000.0), (-40, 4000.0), (-35, 8000.0)] {
                let (samples, spoken) = words(rate, floor, amplitude, 20);
                let mut vad = Vad::new();
                let found: Vec<bool> =
                    samples.chunks(rate.frame_samples()).map(|frame| vad.process(frame).active).collect();
                let (mut missed, mut false_alarms) = (0, 0);
                for at in 200..spoken.len() {
                    // The hangover belongs to the word.
                    let lately = spoken[at - 22..=at].iter().any(|spoken| *spoken);
                    missed += usize::from(spoken[at] && !found[at]);
                    false_alarms += usize::from(!lately && found[at]);
                }
                assert!(missed < 10, "{missed} missed over {floor} dBov at {rate:?}");
                assert!(false_alarms < 20, "{false_alarms} false over {floor} dBov at {rate:?}");
                assert!(
                    (vad.floor_db() - f32::from(floor).max(f32::from(FLOOR_MIN) / 16.0)).abs() < 3.0,
                    "{}",
                    vad.floor_db()
                );
            }
        }
    }

    #[test]
    fn a_background_that_begins_is_one_after_a_while() {
        let (mut vad, mut noise) = (Vad::new(), NoiseGenerator::new());
        let mut frame = [0; 160];
        for _ in 0..300 {
            vad.process(&[0; 160]);
        }
        noise.set(&ComfortNoise::white(-42));
        let mut active = Vec::new();
        for _ in 0..300 {
            noise.fill(&mut frame);
            active.push(vad.process(&frame).active);
        }
        assert!(active[5], "nobody knows yet");
        assert!(active[170..].iter().all(|active| !active));
    }

    #[test]
    fn a_click_is_no_word_and_a_long_loud_voice_is_one() {
        let mut vad = Vad::new();
        let mut click = [0; 80];
        click[3] = 20_000;
        assert!(vad.process(&click).active);
        assert!(!vad.process(&[0; 80]).active, "no hangover");
        let tone: Vec<i16> = (0..80).map(|n| ((f64::from(n) * 0.4).sin() * 9000.0) as i16).collect();
        assert!((0..1000).all(|_| vad.process(&tone).active), "ten seconds");
        assert!(vad.is_voice_now());
        assert!(vad.process(&[0; 80]).active && !vad.is_voice_now(), "hangover");
        assert_eq!((1..100).filter(|_| vad.process(&[0; 80]).active).count(), usize::from(HANGOVER) - 1);
    }

    #[test]
    fn levels_are_without_direct_current() {
        let mut vad = Vad::new();
        assert_eq!(vad.process(&[5000; 80]), Voice { level_dbov: SILENCE_DBOV, active: false });
        assert_eq!(vad.process(&[16384, -16384]).level_dbov, -6);
        assert_eq!(vad.process(&[]).level_dbov, SILENCE_DBOV);
        assert!(size_of::<Vad>() <= 48);
    }

    proptest! {
        #[test]
        fn anything_is_a_frame(frames in proptest::collection::vec(proptest::collection::vec(any::<i16>(), 0..200), 0..50)) {
            let mut vad = Vad::new();
            for frame in frames {
                prop_assert!(vad.process(&frame).level_dbov <= 0);
                prop_assert!((-66.0..=-30.0).contains(&vad.floor_db()));
            }
        }
    }
}
