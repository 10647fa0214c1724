//! Records both parties of a relay side by side: the caller left, the called right, frame by frame on one clock.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use ringbridge_codec::Rate;
use ringbridge_codec::kind::FRAME_SAMPLES_MAX;
use ringbridge_codec::resample::Resampler;

use crate::event::Condition;
use crate::limits::CHUNK_SAMPLES;
use crate::samples::{Chunk, Marks, RecordChunk, RecordQueue};

/// What one party says in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    /// At the rate of its clock, as many as that has in a frame.
    pub(crate) samples: [i16; FRAME_SAMPLES_MAX],
    pub(crate) rate: Rate,
    /// Whether it is sound.
    pub(crate) loud: bool,
    /// Nothing of it came.
    pub(crate) gap: bool,
    /// Something of it is missing, or was put in to keep step with the endpoint's clock.
    pub(crate) concealed: bool,
}

/// State of a recording of a call.
#[derive(Debug)]
pub(super) struct RecordCall {
    queue: Arc<RecordQueue>,
    /// The connection it runs on is the caller's.
    on_caller: bool,
    /// Whether the caller and the called are left out.
    muted: [bool; 2],
    /// Samples of each channel since the recording began.
    position: u64,
    /// From the clocks of the caller and the called to the recording.
    resamplers: [Resampler; 2],
}

impl RecordCall {
    pub(super) fn new(queue: Arc<RecordQueue>, on_caller: bool) -> Self {
        let resampler = || Resampler::new(queue.rate, queue.rate);
        let resamplers = [resampler(), resampler()];
        Self { queue, on_caller, muted: [false; 2], position: 0, resamplers }
    }

    /// Takes one frame: what the connection says that it runs on, and what the other says.
    ///
    /// # Errors
    /// `Error` when the file can't be written any more.
    pub(super) fn write(&mut self, own: &Said, other: &Said) -> Result<(), Condition> {
        if self.queue.failed.load(Ordering::Relaxed) {
            return Err(Condition::Error);
        }
        let (rate, muted) = (self.queue.rate, self.muted);
        let parties = if self.on_caller { [own, other] } else { [other, own] };
        let [caller, called] = parties;
        let marks = Marks { muted, gap: [caller.gap, called.gap], concealed: [caller.concealed, called.concealed] };
        // The two side by side, sample by sample.
        let mut both = [0; 2 * FRAME_SAMPLES_MAX];
        let both = &mut both[..2 * rate.frame_samples()];
        for (channel, (said, resampler)) in parties.into_iter().zip(&mut self.resamplers).enumerate() {
            if resampler.from() != said.rate {
                // Its codec, or its clock, is another now.
                *resampler = Resampler::new(said.rate, rate);
            }
            let mut samples = [0; FRAME_SAMPLES_MAX];
            let samples = &mut samples[..rate.frame_samples()];
            resampler.process(&said.samples[..said.rate.frame_samples()], samples);
            if !muted[channel] {
                both[channel..].iter_mut().step_by(2).zip(samples).for_each(|(place, sample)| *place = *sample);
            }
        }
        for part in both.chunks(CHUNK_SAMPLES) {
            let len = part.len() as u64 / 2;
            let chunk = RecordChunk { position: self.position, chunk: Chunk::new(part), marks };
            if self.queue.chunks.push(chunk).is_err() {
                self.queue.lost_samples.fetch_add(len, Ordering::Relaxed);
            }
            self.position += len;
        }
        Ok(())
    }

    /// Leaves out so many frames that the clock did not run: in the file they are a gap.
    pub(super) fn skip(&mut self, frames: u64) {
        let samples = frames * self.queue.rate.frame_samples() as u64;
        self.queue.lost_samples.fetch_add(samples, Ordering::Relaxed);
        self.position += samples;
    }

    /// Leaves caller and called out from the next frame on, or no more; the state before.
    pub(super) const fn mute(&mut self, muted: [bool; 2]) -> [bool; 2] {
        core::mem::replace(&mut self.muted, muted)
    }

    /// Milliseconds recorded so far.
    pub(super) fn recorded_ms(&self) -> u64 {
        self.position * 1000 / u64::from(self.queue.rate.hz())
    }

    pub(super) const fn on_caller(&self) -> bool {
        self.on_caller
    }

    pub(super) fn finish(self) {
        self.queue.finish();
    }
}

/// Frames of both channels are whole chunks.
const _: () = assert!((2 * Rate::Narrow.frame_samples()).is_multiple_of(CHUNK_SAMPLES));

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sample: i16) -> Said {
        said_at(Rate::Narrow, sample)
    }

    fn said_at(rate: Rate, sample: i16) -> Said {
        Said { samples: [sample; FRAME_SAMPLES_MAX], rate, loud: true, gap: false, concealed: false }
    }

    #[test]
    fn the_caller_is_left_whichever_connection_it_runs_on() {
        for on_caller in [true, false] {
            let queue = Arc::new(RecordQueue::new(2));
            let mut record = RecordCall::new(Arc::clone(&queue), on_caller);
            let (caller, called) = (said(1), Said { gap: true, ..said(2) });
            let (own, other) = if on_caller { (&caller, &called) } else { (&called, &caller) };
            record.write(own, other).unwrap();
            assert_eq!(record.mute([true, false]), [false, false]);
            record.write(own, other).unwrap();
            record.finish();
            let first = queue.chunks.pop().unwrap();
            assert_eq!((first.position, first.chunk.as_slice()[..4].to_vec()), (0, vec![1, 2, 1, 2]));
            assert_eq!(first.marks, Marks { gap: [false, true], ..Marks::default() });
            let second = queue.chunks.pop().unwrap();
            assert_eq!((second.position, second.chunk.as_slice()[..4].to_vec()), (80, vec![0, 2, 0, 2]));
            assert_eq!(second.marks.muted, [true, false]);
            assert!(queue.finished.load(Ordering::Acquire));
        }
    }

    #[test]
    fn what_the_queue_does_not_take_and_what_the_clock_skips_is_a_gap() {
        let queue = Arc::new(RecordQueue::new(1));
        let mut record = RecordCall::new(Arc::clone(&queue), true);
        record.write(&said(1), &said(1)).unwrap();
        record.write(&said(1), &said(1)).unwrap();
        record.skip(3);
        assert_eq!(queue.lost_samples.load(Ordering::Relaxed), 4 * 80);
        queue.chunks.pop().unwrap();
        record.write(&said(1), &said(1)).unwrap();
        assert_eq!(queue.chunks.pop().unwrap().position, 5 * 80);
    }

    #[test]
    fn a_broken_file_ends_the_recording() {
        let queue = Arc::new(RecordQueue::new(1));
        queue.failed.store(true, Ordering::Relaxed);
        assert_eq!(RecordCall::new(queue, true).write(&said(0), &said(0)), Err(Condition::Error));
    }

    #[test]
    fn it_has_a_rate_of_its_own_whatever_the_clocks_of_the_parties() {
        for rate in Rate::ALL {
            let queue = Arc::new(RecordQueue::with_rate(rate, 1_000));
            let mut record = RecordCall::new(Arc::clone(&queue), true);
            for (own, other) in [(Rate::Narrow, Rate::Full), (Rate::Wide, Rate::Narrow), (Rate::Full, Rate::Wide)] {
                for _ in 0..10 {
                    record.write(&said_at(own, 1_000), &said_at(other, 2_000)).unwrap();
                }
            }
            assert_eq!(record.recorded_ms(), 300);
            record.skip(2);
            assert_eq!(record.recorded_ms(), 320);
            record.finish();
            let mut channels = [Vec::new(), Vec::new()];
            while let Some(chunk) = queue.chunks.pop() {
                assert_eq!(chunk.position, channels[0].len() as u64);
                for (n, &sample) in chunk.chunk.as_slice().iter().enumerate() {
                    channels[n % 2].push(sample);
                }
            }
            let frame = rate.frame_samples();
            for (samples, level) in channels.iter().zip([1_000, 2_000]) {
                assert_eq!(samples.len(), 30 * frame);
                for part in samples.chunks(10 * frame) {
                    let steady = &part[frame..];
                    assert!(steady.iter().all(|sample| sample.abs_diff(level) < 20), "{rate:?}: {steady:?}");
                }
            }
        }
    }
}
