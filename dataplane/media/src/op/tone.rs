//! Plays one or two sines, with soft edges.

use ringbridge_codec::Rate;
use ringbridge_codec::tone::ToneGenerator;

use crate::command::ToneSpec;
use crate::event::Condition;

/// State of a tone.
#[derive(Debug)]
pub(super) struct Tone {
    generator: ToneGenerator,
    /// Samples until it begins to fade out, and until it is over; without end if there are none.
    left: Option<(u64, u64)>,
}

impl Tone {
    pub(super) fn new(rate: Rate, spec: ToneSpec, duration_ms: Option<u32>) -> Self {
        let mut generator = ToneGenerator::with_rate(rate, spec.first, spec.second);
        generator.fade_in();
        let left = duration_ms.map(|ms| {
            let samples = u64::from(ms) * u64::from(rate.hz() / 1000);
            (samples.saturating_sub(generator.fade_samples() as u64), samples)
        });
        Self { generator, left }
    }

    /// Fills a frame at its rate; what follows the end is silence.
    ///
    /// # Errors
    /// `Eod` when nothing was left.
    pub(super) fn fill(&mut self, frame: &mut [i16]) -> Result<(), Condition> {
        let Some((until_fade, until_end)) = &mut self.left else {
            self.generator.fill(frame);
            return Ok(());
        };
        if *until_end == 0 {
            return Err(Condition::Eod);
        }
        let samples = frame.len();
        let full = usize::try_from(*until_fade).unwrap_or(samples).min(samples);
        let (before, after) = frame.split_at_mut(full);
        self.generator.fill(before);
        if full as u64 == *until_fade && !after.is_empty() {
            self.generator.fade_out();
        }
        self.generator.fill(after);
        *until_fade -= full as u64;
        *until_end = until_end.saturating_sub(samples as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringbridge_codec::tone::FADE_SAMPLES;

    use super::*;

    #[test]
    fn it_lasts_as_long_as_it_should_to_the_sample() {
        for rate in Rate::ALL {
            for ms in [1u32, 4, 5, 10, 13, 20, 29, 100] {
                let mut tone = Tone::new(rate, ToneSpec { first: (1_000, 0), second: None }, Some(ms));
                let mut heard = Vec::new();
                let mut frame = vec![0; rate.frame_samples()];
                while tone.fill(&mut frame).is_ok() {
                    heard.extend_from_slice(&frame);
                }
                let scale = rate.frame_samples() / 80;
                let samples = 8 * scale * ms as usize;
                assert_eq!(heard.len(), samples.next_multiple_of(rate.frame_samples()), "{ms} ms");
                // The very end of the fade is too soft to be heard; what is shorter than both fades is softer still.
                let last = heard.iter().rposition(|&sample| sample != 0).unwrap_or(0);
                assert!(last < samples, "{ms} ms: {last}");
                let is_short = samples < 2 * FADE_SAMPLES * scale;
                assert!(is_short || last + 4 * scale >= samples, "{ms} ms: {last}");
            }
        }
    }
}
