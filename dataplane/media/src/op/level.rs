//! How long it has been silent, and how long there has been sound, frame by frame.

use crate::limits::FRAME_MS;
use crate::talk::START_FRAMES;

/// Quiet frames in a row that interrupt sound: 200 ms, longer than a pause between words.
const PAUSE_FRAMES: u8 = 20;

/// Counts since an operation began. A click shorter than 30 ms does not interrupt silence, a pause up to 200 ms does
/// not interrupt sound; neither counts as what it interrupts until it is over.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LevelRuns {
    quiet: u32,
    /// Loud frames in a row, as long as they may be a click.
    loud: u8,
    sound: u32,
    /// Quiet frames in a row, as long as they may be a pause.
    pause: u8,
}

impl LevelRuns {
    /// Takes in one frame.
    pub(super) fn note(&mut self, loud: bool) {
        if loud {
            self.loud = self.loud.saturating_add(1);
            self.pause = 0;
            self.sound = self.sound.saturating_add(1);
            self.quiet = if u16::from(self.loud) < START_FRAMES { after(self.quiet) } else { 0 };
        } else {
            self.loud = 0;
            self.pause = self.pause.saturating_add(1);
            self.quiet = self.quiet.saturating_add(1);
            self.sound = if self.pause <= PAUSE_FRAMES { after(self.sound) } else { 0 };
        }
    }

    /// Whether it is silent and has been for `ms` milliseconds.
    pub(super) fn is_silent_for(&self, ms: u32) -> bool {
        self.loud == 0 && millis(self.quiet) >= u64::from(ms)
    }

    /// Whether there is sound and has been for `ms` milliseconds.
    pub(super) fn is_sounding_for(&self, ms: u32) -> bool {
        self.pause == 0 && millis(self.sound) >= u64::from(ms)
    }
}

/// A run that goes on, if there is one.
const fn after(run: u32) -> u32 {
    if run == 0 { 0 } else { run.saturating_add(1) }
}

const fn millis(frames: u32) -> u64 {
    frames as u64 * FRAME_MS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames after which it has been silent for 100 ms, or sounding; `x` is loud.
    fn met(frames: &str, met: impl Fn(&LevelRuns) -> bool) -> Option<usize> {
        let mut runs = LevelRuns::default();
        let mut frames = frames.bytes();
        frames.position(|frame| {
            runs.note(frame == b'x');
            met(&runs)
        })
    }

    #[test]
    fn clicks_do_not_interrupt_silence() {
        let silent = |frames: &str| met(frames, |runs| runs.is_silent_for(100));
        assert_eq!(silent(".........."), Some(9));
        assert_eq!(silent("....xx......"), Some(9));
        assert_eq!(silent("....xxx......."), None);
        assert_eq!(silent("xxxx.........."), Some(13));
        assert_eq!(silent("........xx."), Some(10), "not while it is loud");
        assert_eq!(silent("xx.........."), Some(11), "a click before silence is not part of it");
    }

    #[test]
    fn pauses_do_not_interrupt_sound() {
        let sounding = |frames: &str| met(frames, |runs| runs.is_sounding_for(100));
        assert_eq!(sounding("xxxxxxxxxx"), Some(9));
        assert_eq!(sounding("..xxxx..xxxx"), Some(11));
        assert_eq!(sounding("xxxxx.......x"), Some(12), "not in the pause");
        assert_eq!(sounding(&format!("xxxxx{}xxxxxxxxx", ".".repeat(21))), None);
    }
}
