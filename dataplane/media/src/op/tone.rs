//! Plays one or two sines, with soft edges.

use ringbridge_codec::tone::{FADE_SAMPLES, ToneGenerator};

use crate::command::ToneSpec;
use crate::event::Condition;
use crate::limits::{FRAME_SAMPLES, SAMPLES_PER_MS};

/// State of a tone.
#[derive(Debug)]
pub(super) struct Tone {
    generator: ToneGenerator,
    /// Samples until it begins to fade out, and until it is over; without end if there are none.
    left: Option<(u64, u64)>,
}

impl Tone {
    pub(super) fn new(spec: ToneSpec, duration_ms: Option<u32>) -> Self {
        let mut generator = ToneGenerator::new(spec.first, spec.second);
        generator.fade_in();
        let left = duration_ms.map(|ms| {
            let samples = u64::from(ms) * u64::from(SAMPLES_PER_MS);
            (samples.saturating_sub(FADE_SAMPLES as u64), samples)
        });
        Self { generator, left }
    }

    /// Fills a frame; what follows the end is silence.
    ///
    /// # Errors
    /// `Eod` when nothing was left.
    pub(super) fn fill(&mut self, frame: &mut [i16; FRAME_SAMPLES]) -> Result<(), Condition> {
        let Some((until_fade, until_end)) = &mut self.left else {
            self.generator.fill(frame);
            return Ok(());
        };
        if *until_end == 0 {
            return Err(Condition::Eod);
        }
        let full = usize::try_from(*until_fade).unwrap_or(FRAME_SAMPLES).min(FRAME_SAMPLES);
        let (before, after) = frame.split_at_mut(full);
        self.generator.fill(before);
        if full as u64 == *until_fade && !after.is_empty() {
            self.generator.fade_out();
        }
        self.generator.fill(after);
        *until_fade -= full as u64;
        *until_end = until_end.saturating_sub(FRAME_SAMPLES as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_it_should_to_the_sample() {
        for ms in [1u32, 4, 5, 10, 13, 20, 29, 100] {
            let mut tone = Tone::new(ToneSpec { first: (1_000, 0), second: None }, Some(ms));
            let mut heard = Vec::new();
            let mut frame = [0; FRAME_SAMPLES];
            while tone.fill(&mut frame).is_ok() {
                heard.extend(frame);
            }
            let samples = 8 * ms as usize;
            assert_eq!(heard.len(), samples.next_multiple_of(FRAME_SAMPLES), "{ms} ms");
            // The very end of the fade is too soft to be heard; what is shorter than both fades is softer still.
            let last = heard.iter().rposition(|&sample| sample != 0).unwrap_or(0);
            assert!(last < samples, "{ms} ms: {last}");
            assert!(samples < 2 * FADE_SAMPLES || last + 4 >= samples, "{ms} ms: {last}");
        }
    }
}
