//! Tells whether a participant talks, from frame levels.

use ringbridge_codec::mix;

/// Level above which a frame counts as speech, dBov.
const THRESHOLD_DBOV: i8 = -45;
/// Loud frames in a row that start talk: 30 ms, longer than a click.
pub(crate) const START_FRAMES: u16 = 3;
/// The same as [`SILENCE_DBOV`] in sixteenths of a decibel.
const LOUDNESS_MIN: i16 = SILENCE_DBOV as i16 * 16;
/// By how much the loudness falls in a frame: 30 dB in a second.
const LOUDNESS_FALL: i16 = 5;
/// The lowest level there is.
pub(crate) const SILENCE_DBOV: i8 = -127;

/// Whether a frame counts as sound.
pub(crate) fn is_loud(frame: &[i16]) -> bool {
    mix::level_dbov(mix::energy(frame), frame.len()) > THRESHOLD_DBOV
}

/// What changed with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TalkChange {
    Started,
    Stopped,
}

/// Talk state of one participant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TalkDetector {
    talking: bool,
    run: u16,
    level_dbov: i8,
    /// Level of the last third of a second, in sixteenths of a decibel: rises at once, falls slowly.
    loudness: i16,
}

impl TalkDetector {
    pub(crate) const fn new() -> Self {
        Self { talking: false, run: 0, level_dbov: SILENCE_DBOV, loudness: LOUDNESS_MIN }
    }

    /// Looks at one frame; `None` is a frame that was not heard. So many quiet frames in a row stop talk.
    pub(crate) fn look(&mut self, frame: Option<&[i16]>, stop_frames: u16) -> Option<TalkChange> {
        self.measure(frame);
        let loud = self.is_loud();
        if loud == self.talking {
            self.run = 0;
            return None;
        }
        self.run += 1;
        if self.run < if loud { START_FRAMES } else { stop_frames } {
            return None;
        }
        self.run = 0;
        self.talking = loud;
        Some(if loud { TalkChange::Started } else { TalkChange::Stopped })
    }

    /// Takes the level of one frame of somebody who does not take part in the talk.
    pub(crate) fn measure(&mut self, frame: Option<&[i16]>) {
        self.level_dbov = frame.map_or(SILENCE_DBOV, |frame| mix::level_dbov(mix::energy(frame), frame.len()));
        self.loudness = (self.loudness - LOUDNESS_FALL).max(i16::from(self.level_dbov) * 16).max(LOUDNESS_MIN);
    }

    /// How loud it has been of late, in sixteenths of a dBov.
    pub(crate) const fn loudness(self) -> i16 {
        self.loudness
    }

    pub(crate) const fn is_talking(self) -> bool {
        self.talking
    }

    /// Whether the last frame counted as sound.
    pub(crate) const fn is_loud(self) -> bool {
        self.level_dbov > THRESHOLD_DBOV
    }

    pub(crate) const fn level_dbov(self) -> i8 {
        self.level_dbov
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clicks_and_pauses_change_nothing() {
        let loud = &[3000i16; 80][..];
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
