//! Records frames into a bounded queue. A full queue is a counted gap, never a wait.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use ringbridge_codec::Rate;
use ringbridge_codec::kind::FRAME_SAMPLES_MAX;

use super::rate::FromClock;
use crate::event::Condition;
use crate::limits::CHUNK_SAMPLES;
use crate::samples::{Chunk, Marks, RecordChunk, RecordQueue};

/// State of a recording.
#[derive(Debug)]
pub(super) struct Record {
    queue: Arc<RecordQueue>,
    from_clock: FromClock,
    /// Samples since the recording began, those in `pending` not counted.
    position: u64,
    pending: Chunk,
}

impl Record {
    pub(super) fn new(queue: Arc<RecordQueue>) -> Self {
        let from_clock = FromClock::new(queue.rate);
        Self { queue, from_clock, position: 0, pending: Chunk::new(&[]) }
    }

    /// From the next frame on it runs on a clock of that rate.
    pub(super) fn tune(&mut self, clock: Rate) {
        let mut samples = [0; FRAME_SAMPLES_MAX];
        let rest = self.from_clock.tune(clock, &mut samples);
        self.append(&samples[..rest]);
    }

    /// Takes one frame of the clock's.
    ///
    /// # Errors
    /// `Error` when the file can't be written any more.
    pub(super) fn write(&mut self, frame: &[i16]) -> Result<(), Condition> {
        if self.queue.failed.load(Ordering::Relaxed) {
            return Err(Condition::Error);
        }
        if frame.len() == self.queue.rate.frame_samples() {
            self.append(frame);
            return Ok(());
        }
        let mut samples = [0; FRAME_SAMPLES_MAX];
        let samples = &mut samples[..self.queue.rate.frame_samples()];
        let surplus = self.from_clock.take(frame, samples);
        self.append(&samples[surplus..]);
        Ok(())
    }

    pub(super) fn finish(mut self) {
        let mut samples = [0; FRAME_SAMPLES_MAX];
        let rest = self.from_clock.finish(&mut samples);
        self.append(&samples[..rest]);
        if self.pending.len > 0 {
            self.flush();
        }
        self.queue.finish();
    }

    fn append(&mut self, samples: &[i16]) {
        let mut rest = samples;
        while !rest.is_empty() {
            let filled = usize::from(self.pending.len);
            let (part, others) = rest.split_at(rest.len().min(CHUNK_SAMPLES - filled));
            self.pending.samples[filled..filled + part.len()].copy_from_slice(part);
            self.pending.len += u16::try_from(part.len()).unwrap_or(0);
            rest = others;
            if usize::from(self.pending.len) == CHUNK_SAMPLES {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let len = u64::from(self.pending.len);
        let chunk = RecordChunk { position: self.position, chunk: self.pending, marks: Marks::default() };
        if self.queue.chunks.push(chunk).is_err() {
            self.queue.lost_samples.fetch_add(len, Ordering::Relaxed);
        }
        self.position += len;
        self.pending.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_SAMPLES;

    #[test]
    fn a_full_queue_is_a_gap_that_shows_and_the_rest_is_in_place() {
        let queue = Arc::new(RecordQueue::new(2));
        let mut record = Record::new(Arc::clone(&queue));
        for value in 0..6 {
            record.write(&[value; FRAME_SAMPLES]).unwrap();
        }
        assert_eq!(queue.lost_samples.load(Ordering::Relaxed), 160);
        let first = queue.chunks.pop().unwrap();
        assert_eq!((first.position, first.chunk.as_slice()[79..81].to_vec()), (0, vec![0, 1]));
        record.write(&[6; FRAME_SAMPLES]).unwrap();
        record.finish();
        assert!(queue.finished.load(Ordering::Acquire));
        queue.chunks.pop().unwrap();
        let last = queue.chunks.pop().unwrap();
        assert_eq!((last.position, last.chunk.as_slice()), (480, &[6; 80][..]));
    }

    #[test]
    fn a_broken_file_ends_the_recording() {
        let queue = Arc::new(RecordQueue::new(2));
        queue.failed.store(true, Ordering::Relaxed);
        assert_eq!(Record::new(queue).write(&[0; FRAME_SAMPLES]), Err(Condition::Error));
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "a small amplitude")]
    fn whatever_clocks_it_runs_on_it_has_a_frame_of_its_own_rate_for_each_of_theirs() {
        const FRAMES: usize = 50;
        let sine = |seconds: f64| (core::f64::consts::TAU * 440.0 * seconds).sin() * 8_000.0;
        for own in Rate::ALL {
            let queue = Arc::new(RecordQueue::with_rate(own, 10_000));
            let mut record = Record::new(Arc::clone(&queue));
            for (part, clock) in [own, Rate::Narrow, Rate::Full, Rate::Wide, own].into_iter().enumerate() {
                record.tune(clock);
                let first = part * FRAMES * clock.frame_samples();
                let time = |n: usize| (first + n) as f64 / f64::from(clock.hz());
                let samples: Vec<i16> =
                    (0..FRAMES * clock.frame_samples()).map(|n| sine(time(n)).round() as i16).collect();
                samples.chunks(clock.frame_samples()).for_each(|frame| record.write(frame).unwrap());
            }
            record.finish();
            let mut samples = Vec::new();
            while let Some(chunk) = queue.chunks.pop() {
                assert_eq!(chunk.position, samples.len() as u64);
                samples.extend_from_slice(chunk.chunk.as_slice());
            }
            let part = FRAMES * own.frame_samples();
            assert_eq!(samples.len(), 5 * part);
            // One sine from the first sample to the last, but for a few milliseconds at the seams.
            for (at, &sample) in samples.iter().enumerate() {
                let from_seam = (at % part).min(part - at % part);
                let expected = sine(at as f64 / f64::from(own.hz()));
                assert!(
                    from_seam < own.frame_samples() / 2 || (f64::from(sample) - expected).abs() < 50.0,
                    "{own:?}: {sample} at {at}, not {expected}"
                );
            }
        }
    }
}
