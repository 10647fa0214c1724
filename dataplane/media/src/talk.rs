//! Tells whether a participant talks: voice against the background of its line, not against a level.
//!
//! ```text
//! level    ──╮ noise ╭────────╮ voice ╭── noise      a soft line: voice from 9 dB over the noise on, and from -54 dBov
//!            ╰──┬────╯        ╰───────╯              a loud one: from 5 to 6 dB over it
//! background ───┴──────────────────────────          what is louder than -31 dBov is never taken for it
//! ```
//!
//! The background is the softest of the last second and a quarter ([`Background`]); of a line that nothing is known of,
//! the first that is heard. So noise that is there from the beginning never talks, noise that begins later does so until
//! it is known, and who begins softly on a line without a past is heard from his first pause on. Comfort noise counts as
//! background. What is not heard at all says nothing about it.

use ringbridge_codec::mix;
use ringbridge_codec::vad::Background;

/// Frames of voice in a row that start talk: 30 ms, longer than a click.
pub(crate) const START_FRAMES: u16 = 3;
/// By how much the loudness falls in a frame: 30 dB in a second.
const LOUDNESS_FALL: i16 = 5;
/// The lowest level there is, dBov,
pub(crate) const SILENCE_DBOV: i8 = -127;
/// and in sixteenths.
const SILENCE: i16 = SILENCE_DBOV as i16 * 16;
/// What is softer is never voice: echoes, breath, the neighbours.
const VOICE_MIN: i16 = -54 * 16;
/// No background is louder.
const BACKGROUND_MAX: i16 = -37 * 16;

/// What changed with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TalkChange {
    Started,
    Stopped,
}

/// Talk state of one participant. Levels are in sixteenths of a dBov.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TalkDetector {
    background: Background,
    level: i16,
    /// Level of the last third of a second: rises at once, falls slowly.
    loudness: i16,
    run: u16,
    talking: bool,
    /// The last frame was voice.
    loud: bool,
}

impl TalkDetector {
    pub(crate) const fn new() -> Self {
        Self {
            background: Background::unknown(),
            level: SILENCE,
            loudness: SILENCE,
            run: 0,
            talking: false,
            loud: false,
        }
    }

    /// Looks at one frame; `None` is a frame that was not heard. So many quiet frames in a row stop talk.
    pub(crate) fn look(&mut self, frame: Option<&[i16]>, stop_frames: u16) -> Option<TalkChange> {
        self.measure(frame);
        if self.loud == self.talking {
            self.run = 0;
            return None;
        }
        self.run += 1;
        if self.run < if self.loud { START_FRAMES } else { stop_frames } {
            return None;
        }
        self.run = 0;
        self.talking = self.loud;
        Some(if self.loud { TalkChange::Started } else { TalkChange::Stopped })
    }

    /// Takes the level of one frame of somebody who does not take part in the talk.
    pub(crate) fn measure(&mut self, frame: Option<&[i16]>) {
        match frame {
            Some(frame) => {
                self.level = level_of(frame);
                self.background.follow(self.level);
                self.loud = self.level > self.background.threshold(BACKGROUND_MAX).max(VOICE_MIN);
            }
            None => (self.level, self.loud) = (SILENCE, false),
        }
        self.loudness = (self.loudness - LOUDNESS_FALL).max(self.level).max(SILENCE);
    }

    /// Takes in what is played in place of a pause.
    #[cold]
    pub(crate) fn note_comfort_noise(&mut self, frame: &[i16]) {
        self.background.follow(level_of(frame));
    }

    /// How loud it has been of late, in sixteenths of a dBov.
    pub(crate) const fn loudness(&self) -> i16 {
        self.loudness
    }

    pub(crate) const fn is_talking(&self) -> bool {
        self.talking
    }

    /// Whether the last frame was voice.
    pub(crate) const fn is_loud(&self) -> bool {
        self.loud
    }

    /// Whether there was anything in the last frame.
    pub(crate) const fn sounds(&self) -> bool {
        self.level > SILENCE
    }

    pub(crate) const fn level_dbov(&self) -> i8 {
        mix::dbov_of(self.level)
    }
}

fn level_of(frame: &[i16]) -> i16 {
    mix::level_sixteenths(mix::energy(frame), frame.len())
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use ringbridge_codec::noise::{ComfortNoise, NoiseGenerator};

    use super::*;

    const FRAME: usize = 80;
    const STOP: u16 = 50;

    /// Noise of so many dBov, coloured as that of a room.
    struct Line(NoiseGenerator);

    impl Line {
        fn new(noise: i8) -> Self {
            let mut generator = NoiseGenerator::new();
            generator.set(&ComfortNoise::parse(&[noise.unsigned_abs(), 60, 140]).unwrap());
            Self(generator)
        }

        fn frame(&mut self) -> [i16; FRAME] {
            let mut frame = [0; FRAME];
            self.0.fill(&mut frame);
            frame
        }

        /// A frame with a voice of so many dBov in it, which rises and falls with its syllables, four a second.
        fn voiced(&mut self, at: usize, dbov: f64) -> [i16; FRAME] {
            let mut frame = self.frame();
            // The power of the three sines is 0.645 of their amplitude squared, and that of the syllables 3/8.
            let amplitude = 32_768.0 * 10f64.powf(dbov / 20.0) / (0.645f64 * 0.375).sqrt();
            for (n, sample) in frame.iter_mut().enumerate() {
                let t = (at * FRAME + n) as f64 / 8_000.0;
                let phase = 140.0 * t * std::f64::consts::TAU;
                let syllable = (0.5 - 0.5 * (4.0 * t * std::f64::consts::TAU + 1.0).cos()) * amplitude;
                let voice = phase.sin() + 0.5 * (3.0 * phase).sin() + 0.2 * (9.0 * phase).sin();
                *sample = sample.saturating_add((syllable * voice) as i16);
            }
            frame
        }
    }

    /// The frames in which talk starts and stops.
    fn changes(talk: &mut TalkDetector, frames: impl Iterator<Item = [i16; FRAME]>) -> Vec<(usize, TalkChange)> {
        frames.enumerate().filter_map(|(at, frame)| Some((at, talk.look(Some(&frame), STOP)?))).collect()
    }

    #[test]
    fn a_minute_of_noise_never_talks() {
        for noise in [-75, -60, -50, -45, -40, -36] {
            let mut line = Line::new(noise);
            let mut talk = TalkDetector::new();
            let told = changes(&mut talk, (0..6_000).map(|_| line.frame()));
            assert_eq!(told, [], "{noise} dBov");
            assert!((talk.level_dbov() - noise).abs() < 5);
        }
    }

    #[test]
    fn words_are_told_over_noise_of_any_loudness_within_60_ms() {
        for (noise, voice) in [(-75, -48.0), (-65, -48.0), (-60, -40.0), (-50, -30.0), (-40, -26.0), (-40, -30.0)] {
            let mut line = Line::new(noise);
            let mut talk = TalkDetector::new();
            assert_eq!(changes(&mut talk, (0..500).map(|_| line.frame())), []);
            for word in 0..20 {
                // The phase of the syllables differs from word to word.
                let frames: Vec<_> = (0..80).map(|at| line.voiced(at + 7 * word, voice)).collect();
                let is_onset = |frame: &[i16; FRAME]| f64::from(level_of(frame)) >= voice * 16.0;
                let onset = frames.iter().position(is_onset).unwrap();
                let told = changes(&mut talk, frames.into_iter());
                let [(started, TalkChange::Started)] = told[..] else { panic!("{told:?} of {voice} over {noise}") };
                assert!(started < onset + 6, "word {word} of {voice} over {noise} at {started}, after {onset}");
                let told = changes(&mut talk, (0..100).map(|_| line.frame()));
                let [(stopped, TalkChange::Stopped)] = told[..] else { panic!("{told:?} of {voice} over {noise}") };
                assert!((35..=60).contains(&stopped), "{stopped}");
            }
        }
    }

    #[test]
    fn noise_that_begins_is_talk_until_it_is_known() {
        let (mut quiet, mut noisy) = (Line::new(-70), Line::new(-40));
        let mut talk = TalkDetector::new();
        let told = changes(&mut talk, (0..500).map(|_| quiet.frame()).chain((0..6_000).map(|_| noisy.frame())));
        let [(502..=505, TalkChange::Started), (stopped, TalkChange::Stopped)] = told[..] else { panic!("{told:?}") };
        assert!((600..=720).contains(&stopped), "{stopped}");
    }

    #[test]
    fn music_on_hold_talks_on_and_who_begins_to_talk_at_once_is_heard() {
        let tone = |hz: f64, amplitude: f64, at: usize| {
            core::array::from_fn(|n| {
                let t = (at * FRAME + n) as f64 / 8_000.0;
                ((hz * t * std::f64::consts::TAU).sin() * amplitude) as i16
            })
        };
        // A chord that is held has no pauses at all.
        let mut talk = TalkDetector::new();
        let notes = [262.0, 330.0, 392.0];
        let told = changes(&mut talk, (0..6_000).map(|at| tone(notes[at / 300 % 3], 2_500.0, at)));
        assert_eq!(told, [(2, TalkChange::Started)]);
        // A voice from the first frame on: loud at once, softly from the first pause between syllables on.
        for (voice, latest) in [(-20.0, 8), (-40.0, 40)] {
            let mut line = Line::new(-70);
            let told = changes(&mut TalkDetector::new(), (0..200).map(|at| line.voiced(at + 10, voice)));
            assert!(matches!(told[..], [(started, TalkChange::Started)] if started <= latest), "{voice}: {told:?}");
        }
    }

    #[test]
    fn what_is_not_heard_leaves_the_background_as_it_was_and_comfort_noise_is_one() {
        let mut line = Line::new(-40);
        let mut talk = TalkDetector::new();
        assert_eq!(changes(&mut talk, (0..300).map(|_| line.frame())), []);
        assert_eq!((0..1_000).find_map(|_| talk.look(None, STOP)), None);
        assert_eq!((talk.level_dbov(), talk.sounds()), (SILENCE_DBOV, false));
        assert_eq!(changes(&mut talk, (0..300).map(|_| line.frame())), [], "the same noise again");
        // What comes after a pause that was described is voice from its first frames on, however soft.
        let (mut talk, mut noise) = (TalkDetector::new(), Line::new(-65));
        for _ in 0..20 {
            assert_eq!(talk.look(None, STOP), None);
            talk.note_comfort_noise(&noise.frame());
        }
        let told = changes(&mut talk, (0..50).map(|at| noise.voiced(at + 8, -48.0)));
        assert!(matches!(told[..], [(started, TalkChange::Started)] if started <= 5), "{told:?}");
    }

    #[test]
    fn clicks_and_pauses_change_nothing() {
        let loud = &[3000i16; FRAME][..];
        let mut talk = TalkDetector::new();
        assert_eq!([Some(loud), Some(loud), None].map(|frame| talk.look(frame, 50)), [None, None, None]);
        assert_eq!([Some(loud); 3].map(|frame| talk.look(frame, 50)), [None, None, Some(TalkChange::Started)]);
        for _ in 0..49 {
            assert_eq!(talk.look(None, 50), None);
        }
        assert_eq!(talk.look(Some(loud), 50), None);
        let stopped: Vec<_> = (0..50).filter_map(|_| talk.look(None, 50)).collect();
        assert_eq!(stopped, [TalkChange::Stopped]);
    }
}
