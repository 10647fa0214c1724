//! Plays prompts one after the other, without a gap between them, at the volume and speed that are asked for.

use core::sync::atomic::Ordering;

use ringbridge_codec::stretch::TimeStretch;
use ringbridge_codec::{Rate, mix};

use crate::adjust::Adjustment;
use crate::event::Condition;
use crate::samples::{Chunk, Playlist, Prompt};

/// State of a play.
#[derive(Debug)]
pub(super) struct Play {
    source: Source,
    gain_q12: i32,
    /// There once another speed than the prompts' own was asked for.
    stretch: Option<Box<TimeStretch>>,
}

/// The samples of the prompts.
#[derive(Debug)]
struct Source {
    playlist: Box<Playlist>,
    /// Prompt being played.
    index: usize,
    /// Sample inside a prompt held whole, or inside `chunk` of a streamed one.
    position: usize,
    chunk: Chunk,
    /// `Eod` when nothing is left, `Error` when a streamed file broke off.
    ended: Option<Condition>,
}

impl Play {
    pub(super) fn new(playlist: Box<Playlist>) -> Self {
        let source = Source { playlist, index: 0, position: 0, chunk: Chunk::new(&[]), ended: None };
        Self { source, gain_q12: mix::GAIN_Q12_UNITY, stretch: None }
    }

    /// Plays with this volume and speed from now on.
    pub(super) fn adjust(&mut self, adjustment: Adjustment) {
        self.gain_q12 = adjustment.gain_q12();
        let percent = adjustment.speed_percent();
        if self.stretch.is_some() || percent != OWN_SPEED {
            let rate = self.rate();
            self.stretch.get_or_insert_with(|| Box::new(TimeStretch::with_rate(rate))).set_percent(percent);
        }
    }

    /// Rate of the prompts.
    pub(super) const fn rate(&self) -> Rate {
        self.source.playlist.rate
    }

    /// Fills a frame at the rate of the prompts; what follows the last sample is silence.
    ///
    /// # Errors
    /// `Eod` when nothing was left, `Error` when a streamed file broke off.
    pub(super) fn fill(&mut self, frame: &mut [i16]) -> Result<(), Condition> {
        let Self { source, stretch, .. } = self;
        let filled = match stretch {
            None => source.read(frame),
            Some(stretch) => stretch.fill(frame, &mut |samples| source.read(samples)),
        };
        match source.ended {
            Some(condition) if filled == 0 || condition == Condition::Error => return Err(condition),
            // The file's thread may be behind: silence now, the samples later.
            Some(_) | None => frame[filled..].fill(0),
        }
        Ok(())
    }

    /// Gives a frame that is about to be heard its volume.
    pub(super) fn amplify(&self, frame: &mut [i16]) {
        if self.gain_q12 != mix::GAIN_Q12_UNITY {
            mix::apply_gain(frame, self.gain_q12);
        }
    }

    pub(super) fn into_playlist(self) -> Box<Playlist> {
        for prompt in &self.source.playlist.prompts {
            if let Prompt::Stream(stream) = prompt {
                stream.abandoned.store(true, Ordering::Release);
            }
        }
        self.source.playlist
    }
}

impl Source {
    /// Reads samples; how many. Fewer than there is room for: for now that was all.
    fn read(&mut self, samples: &mut [i16]) -> usize {
        let mut filled = 0;
        while filled < samples.len() {
            let Some(prompt) = self.playlist.prompts.get(self.index) else {
                self.ended = Some(Condition::Eod);
                break;
            };
            let source = match prompt {
                Prompt::Whole(samples) => samples.get(self.position..).unwrap_or_default(),
                Prompt::Stream(stream) => {
                    if self.position >= usize::from(self.chunk.len) {
                        // Read the end mark before the queue: what was queued before it is then seen.
                        let finished = stream.finished.load(Ordering::Acquire);
                        match stream.chunks.pop() {
                            Some(chunk) => (self.chunk, self.position) = (chunk, 0),
                            None if stream.failed.load(Ordering::Acquire) => {
                                self.ended = Some(Condition::Error);
                                break;
                            }
                            None if finished => self.chunk.len = 0,
                            None => break,
                        }
                    }
                    self.chunk.as_slice().get(self.position..).unwrap_or_default()
                }
            };
            if source.is_empty() {
                (self.index, self.position) = (self.index + 1, 0);
                self.chunk.len = 0;
                continue;
            }
            let run = source.len().min(samples.len() - filled);
            samples[filled..filled + run].copy_from_slice(&source[..run]);
            filled += run;
            self.position += run;
        }
        filled
    }
}

/// The prompts' own speed in per cent.
const OWN_SPEED: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_SAMPLES;
    use crate::samples::PromptStream;
    use std::sync::Arc;

    fn whole(values: core::ops::Range<i16>) -> Prompt {
        Prompt::Whole(values.collect())
    }

    fn play_all(play: &mut Play) -> (Vec<i16>, Condition) {
        let mut heard = Vec::new();
        loop {
            let mut frame = [0; FRAME_SAMPLES];
            match play.fill(&mut frame) {
                Ok(()) => heard.extend(frame),
                Err(condition) => return (heard, condition),
            }
        }
    }

    #[test]
    fn prompts_follow_without_a_gap_and_the_last_frame_is_filled_up() {
        let stream = PromptStream::new(8);
        stream.chunks.push(Chunk::new(&(300..460).collect::<Vec<_>>())).unwrap();
        stream.chunks.push(Chunk::new(&[460, 461])).unwrap();
        stream.finished.store(true, Ordering::Release);
        let prompts =
            vec![whole(1..100), whole(0..0), whole(100..300), Prompt::Stream(Arc::new(stream)), whole(462..470)];
        let (heard, condition) = play_all(&mut Play::new(Box::new(Playlist { prompts, ..Playlist::default() })));
        assert_eq!(condition, Condition::Eod);
        assert_eq!(heard[..469], (1..470).collect::<Vec<_>>());
        assert_eq!((heard.len(), &heard[469..]), (480, &[0; 11][..]));
    }

    #[test]
    fn a_slow_file_is_silence_and_a_broken_one_ends() {
        let stream = Arc::new(PromptStream::new(8));
        let mut play =
            Play::new(Box::new(Playlist { prompts: vec![Prompt::Stream(Arc::clone(&stream))], ..Playlist::default() }));
        let mut frame = [7; FRAME_SAMPLES];
        assert_eq!(play.fill(&mut frame), Ok(()));
        assert_eq!(frame, [0; FRAME_SAMPLES]);
        stream.chunks.push(Chunk::new(&[5; 80])).unwrap();
        assert_eq!(play.fill(&mut frame), Ok(()));
        assert_eq!(frame, [5; FRAME_SAMPLES]);
        stream.failed.store(true, Ordering::Release);
        assert_eq!(play.fill(&mut frame), Err(Condition::Error));
        play.into_playlist();
        assert!(stream.abandoned.load(Ordering::Acquire));
    }
}
