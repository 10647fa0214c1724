//! Records frames into a bounded queue. A full queue is a counted gap, never a wait.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use crate::event::Condition;
use crate::limits::{CHUNK_SAMPLES, FRAME_SAMPLES};
use crate::samples::{Chunk, Marks, RecordChunk, RecordQueue};

/// Samples a frame adds to a chunk.
#[expect(clippy::cast_possible_truncation, reason = "80 samples")]
const FRAME_LEN: u16 = FRAME_SAMPLES as u16;

/// State of a recording.
#[derive(Debug)]
pub(super) struct Record {
    queue: Arc<RecordQueue>,
    /// Samples since the recording began, those in `pending` not counted.
    position: u64,
    pending: Chunk,
}

impl Record {
    pub(super) fn new(queue: Arc<RecordQueue>) -> Self {
        Self { queue, position: 0, pending: Chunk::new(&[]) }
    }

    /// Takes one frame.
    ///
    /// # Errors
    /// `Error` when the file can't be written any more.
    pub(super) fn write(&mut self, frame: &[i16; FRAME_SAMPLES]) -> Result<(), Condition> {
        if self.queue.failed.load(Ordering::Relaxed) {
            return Err(Condition::Error);
        }
        let filled = usize::from(self.pending.len);
        self.pending.samples[filled..filled + FRAME_SAMPLES].copy_from_slice(frame);
        self.pending.len += FRAME_LEN;
        if usize::from(self.pending.len) == CHUNK_SAMPLES {
            self.flush();
        }
        Ok(())
    }

    pub(super) fn finish(mut self) {
        if self.pending.len > 0 {
            self.flush();
        }
        self.queue.finish();
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
}
