//! Records both parties of a relay side by side: the caller left, the called right, frame by frame on one clock.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use crate::event::Condition;
use crate::limits::{CHUNK_SAMPLES, FRAME_SAMPLES};
use crate::samples::{Chunk, Marks, RecordChunk, RecordQueue};

/// What one party says in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) samples: [i16; FRAME_SAMPLES],
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
}

impl RecordCall {
    pub(super) const fn new(queue: Arc<RecordQueue>, on_caller: bool) -> Self {
        Self { queue, on_caller, muted: [false; 2], position: 0 }
    }

    /// Takes one frame: what the connection says that it runs on, and what the other says.
    ///
    /// # Errors
    /// `Error` when the file can't be written any more.
    pub(super) fn write(&mut self, own: &Said, other: &Said) -> Result<(), Condition> {
        const SILENCE: [i16; FRAME_SAMPLES] = [0; FRAME_SAMPLES];
        if self.queue.failed.load(Ordering::Relaxed) {
            return Err(Condition::Error);
        }
        let [caller, called] = if self.on_caller { [own, other] } else { [other, own] };
        let left = if self.muted[0] { &SILENCE } else { &caller.samples };
        let right = if self.muted[1] { &SILENCE } else { &called.samples };
        let mut both = [0; CHUNK_SAMPLES];
        for (pair, (&left, &right)) in both.chunks_exact_mut(2).zip(left.iter().zip(right)) {
            pair.copy_from_slice(&[left, right]);
        }
        let marks =
            Marks { muted: self.muted, gap: [caller.gap, called.gap], concealed: [caller.concealed, called.concealed] };
        if self.queue.chunks.push(RecordChunk { position: self.position, chunk: Chunk::new(&both), marks }).is_err() {
            self.queue.lost_samples.fetch_add(FRAME_SAMPLES as u64, Ordering::Relaxed);
        }
        self.position += FRAME_SAMPLES as u64;
        Ok(())
    }

    /// Leaves out so many frames that the clock did not run: in the file they are a gap.
    pub(super) fn skip(&mut self, frames: u64) {
        let samples = frames * FRAME_SAMPLES as u64;
        self.queue.lost_samples.fetch_add(samples, Ordering::Relaxed);
        self.position += samples;
    }

    /// Leaves caller and called out from the next frame on, or no more; the state before.
    pub(super) const fn mute(&mut self, muted: [bool; 2]) -> [bool; 2] {
        core::mem::replace(&mut self.muted, muted)
    }

    /// Samples of each channel recorded so far.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn on_caller(&self) -> bool {
        self.on_caller
    }

    pub(super) fn finish(self) {
        self.queue.finish();
    }
}

/// A frame holds as many samples of both channels as a chunk.
const _: () = assert!(2 * FRAME_SAMPLES == CHUNK_SAMPLES);

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sample: i16) -> Said {
        Said { samples: [sample; FRAME_SAMPLES], loud: true, gap: false, concealed: false }
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
}
