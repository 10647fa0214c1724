//! Between the rate of an operation and that of the clock it runs on.
//!
//! What is played and what is recorded has a rate of its own, given when it is made: mostly that of the clock. Where
//! the two differ, because a file has no more or the connection has moved to another clock, a resampler lies between.
//! Its delay is made up for: what is played begins with its first sample and loses nothing at its end, and a recording
//! begins with what was said when it began. All of this is made with the operation; a change of clock allocates nothing.

use ringbridge_codec::Rate;
use ringbridge_codec::kind::FRAME_SAMPLES_MAX;
use ringbridge_codec::resample::Resampler;

use crate::event::Condition;

type Frame = [i16; FRAME_SAMPLES_MAX];

/// Takes what is played to the rate of the clock.
#[derive(Debug)]
pub(super) struct ToClock {
    resampler: Resampler,
    /// The last frame of the source that was heard.
    heard: Frame,
    /// The frame of the source that is heard next, if it was read ahead.
    ahead: Frame,
    /// What of it is resampled: all but what the resampler holds back.
    ready: Frame,
    /// It reads ahead: the rates differ, or did.
    reads_ahead: bool,
    /// `ahead` and `ready` hold something.
    has_read: bool,
    /// What comes after `ahead`.
    ended: Option<Condition>,
}

impl ToClock {
    /// For what has that rate. The clock's is told by [`Self::tune`].
    pub(super) fn new(own: Rate) -> Box<Self> {
        Box::new(Self {
            resampler: Resampler::new(own, own),
            heard: [0; FRAME_SAMPLES_MAX],
            ahead: [0; FRAME_SAMPLES_MAX],
            ready: [0; FRAME_SAMPLES_MAX],
            reads_ahead: false,
            has_read: false,
            ended: None,
        })
    }

    /// From the next frame on it runs on a clock of that rate.
    pub(super) fn tune(&mut self, clock: Rate) {
        if self.resampler.to() == clock {
            return;
        }
        self.resampler = Resampler::new(self.resampler.from(), clock);
        self.reads_ahead = true;
        // What was heard before leads to what comes.
        let mut passed = [0; FRAME_SAMPLES_MAX];
        let (own, samples) = (self.resampler.from().frame_samples(), clock.frame_samples());
        self.resampler.process(&self.heard[..own], &mut passed[..samples]);
        if self.has_read {
            self.resample_ahead();
        }
    }

    /// Fills a frame at the clock's rate with what `source` fills at its own.
    ///
    /// # Errors
    /// With what `source` ended, before this frame.
    pub(super) fn fill(
        &mut self,
        out: &mut [i16],
        mut source: impl FnMut(&mut [i16]) -> Result<(), Condition>,
    ) -> Result<(), Condition> {
        let own = self.resampler.from().frame_samples();
        if !self.reads_ahead {
            source(out)?;
            self.heard[..own].copy_from_slice(out);
            return Ok(());
        }
        if !self.has_read {
            source(&mut self.ahead[..own])?;
            self.has_read = true;
            self.resample_ahead();
        }
        if let Some(condition) = self.ended {
            return Err(condition);
        }
        self.heard[..own].copy_from_slice(&self.ahead[..own]);
        if let Err(condition) = source(&mut self.ahead[..own]) {
            self.ended = Some(condition);
            self.ahead[..own].fill(0);
        }
        let ready = out.len() - self.resampler.delay_samples();
        let (begin, end) = out.split_at_mut(ready);
        begin.copy_from_slice(&self.ready[..ready]);
        end.copy_from_slice(self.resample_ahead());
        Ok(())
    }

    /// Resamples `ahead` into `ready`. Returns what comes before: the end of the frame before.
    fn resample_ahead(&mut self) -> &[i16] {
        let (own, samples) = (self.resampler.from().frame_samples(), self.resampler.to().frame_samples());
        let held_back = self.resampler.delay_samples();
        self.resampler.process(&self.ahead[..own], &mut self.ready[..samples]);
        self.ready[..samples].rotate_left(held_back);
        &self.ready[samples - held_back..samples]
    }
}

/// Takes what is recorded from the rate of the clock to that of the recording.
#[derive(Debug)]
pub(super) struct FromClock {
    resampler: Resampler,
    /// Samples that came from before it began, and are left out.
    surplus: usize,
}

impl FromClock {
    /// For a recording of that rate. The clock's is told by [`Self::tune`].
    pub(super) const fn new(own: Rate) -> Self {
        Self { resampler: Resampler::new(own, own), surplus: 0 }
    }

    /// From the next frame on it runs on a clock of that rate. Gives what was still held back of the frames before.
    pub(super) fn tune(&mut self, clock: Rate, out: &mut Frame) -> usize {
        if self.resampler.from() == clock {
            return 0;
        }
        let rest = self.finish(out);
        self.resampler = Resampler::new(clock, self.resampler.to());
        self.surplus = self.resampler.delay_samples();
        rest
    }

    /// Takes a frame of the clock's and makes one of the recording; how many samples of it are left out.
    pub(super) fn take(&mut self, frame: &[i16], out: &mut [i16]) -> usize {
        self.resampler.process(frame, out);
        core::mem::take(&mut self.surplus)
    }

    /// Gives what is still held back.
    pub(super) fn finish(&mut self, out: &mut Frame) -> usize {
        let held_back = self.resampler.delay_samples();
        if held_back == 0 || self.surplus > 0 {
            // Nothing has come yet.
            return 0;
        }
        let (from, samples) = (self.resampler.from().frame_samples(), self.resampler.to().frame_samples());
        self.resampler.process(&[0; FRAME_SAMPLES_MAX][..from], &mut out[..samples]);
        held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of so many samples of a sine.
    struct Sine {
        rate: Rate,
        at: usize,
        len: usize,
    }

    fn sine(seconds: f64) -> f64 {
        (core::f64::consts::TAU * 440.0 * seconds).sin() * 8_000.0
    }

    impl Sine {
        #[expect(clippy::cast_possible_truncation, reason = "a small amplitude")]
        fn fill(&mut self, out: &mut [i16]) -> Result<(), Condition> {
            if self.at >= self.len {
                return Err(Condition::Eod);
            }
            for sample in out {
                let value = sine(self.at as f64 / f64::from(self.rate.hz()));
                *sample = if self.at < self.len { value.round() as i16 } else { 0 };
                self.at += 1;
            }
            Ok(())
        }
    }

    fn play(to_clock: &mut ToClock, clock: Rate, source: &mut Sine, frames: usize) -> (Vec<i16>, bool) {
        to_clock.tune(clock);
        let mut heard = Vec::new();
        for _ in 0..frames {
            let mut frame = vec![7; clock.frame_samples()];
            match to_clock.fill(&mut frame, |samples| source.fill(samples)) {
                Ok(()) => heard.extend(frame),
                Err(condition) => {
                    assert_eq!(condition, Condition::Eod);
                    return (heard, true);
                }
            }
        }
        (heard, false)
    }

    #[test]
    fn it_begins_with_the_first_sample_and_loses_nothing_at_the_end() {
        for own in Rate::ALL {
            for clock in Rate::ALL {
                let len = own.frame_samples() * 20;
                let mut source = Sine { rate: own, at: 0, len };
                let (heard, ended) = play(&mut ToClock::new(own), clock, &mut source, 100);
                assert!(ended);
                assert_eq!(heard.len(), clock.frame_samples() * 20, "{own:?} to {clock:?}");
                // Its edges are no sine.
                let edge = clock.frame_samples() / 2;
                for (at, &sample) in heard.iter().enumerate().skip(edge).take(heard.len() - 2 * edge) {
                    let expected = sine(at as f64 / f64::from(clock.hz()));
                    assert!((f64::from(sample) - expected).abs() < 50.0, "{own:?} to {clock:?}: {sample} at {at}");
                }
            }
        }
    }

    #[test]
    fn a_change_of_clock_is_not_heard() {
        for own in Rate::ALL {
            let mut source = Sine { rate: own, at: 0, len: usize::MAX };
            let mut to_clock = ToClock::new(own);
            let mut frames = 0;
            for clock in [own, Rate::Narrow, Rate::Full, Rate::Wide, own, Rate::Full, Rate::Narrow] {
                let (heard, _) = play(&mut to_clock, clock, &mut source, 10);
                let first = frames * clock.frame_samples();
                // It begins with an edge.
                let edge = if frames == 0 { clock.frame_samples() } else { 0 };
                for (at, &sample) in heard.iter().enumerate().skip(edge) {
                    let expected = sine((first + at) as f64 / f64::from(clock.hz()));
                    assert!(
                        (f64::from(sample) - expected).abs() < 50.0,
                        "{own:?} to {clock:?}: {sample} at {at}, not {expected}"
                    );
                }
                frames += 10;
            }
        }
    }
}
