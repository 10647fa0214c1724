//! Samples that enter and leave the engine: prompts to play, recordings to write. The files are somebody else's.
//!
//! All samples here are 16-bit linear. A playlist and a recording's queue say at which rate theirs are; where that is
//! not the rate of the clock they run on, the engine resamples.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use ringbridge_codec::Rate;

use crate::limits::CHUNK_SAMPLES;

/// A run of samples that crosses a thread border.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// The samples; only the first `len` count.
    pub samples: [i16; CHUNK_SAMPLES],
    /// How many samples count, `0 ..= CHUNK_SAMPLES`.
    pub len: u16,
}

impl Chunk {
    /// A chunk of `samples`, cut at [`CHUNK_SAMPLES`].
    pub fn new(samples: &[i16]) -> Self {
        let len = samples.len().min(CHUNK_SAMPLES);
        let mut chunk = Self { samples: [0; CHUNK_SAMPLES], len: u16::try_from(len).unwrap_or(0) };
        chunk.samples[..len].copy_from_slice(&samples[..len]);
        chunk
    }

    /// The samples that count.
    pub fn as_slice(&self) -> &[i16] {
        &self.samples[..usize::from(self.len)]
    }
}

/// One prompt as the engine sees it.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Decoded as a whole and held in memory by the prompt cache.
    Whole(Arc<[i16]>),
    /// Decoded piece by piece by a media thread.
    Stream(Arc<PromptStream>),
}

/// A bounded queue a media thread fills ahead of the engine. One producer, one consumer.
#[derive(Debug)]
pub struct PromptStream {
    /// Chunks in playing order.
    pub chunks: ArrayQueue<Chunk>,
    /// Set by the producer after the last chunk.
    pub finished: AtomicBool,
    /// Set by the producer when the file broke off; the operation then ends with `error`.
    pub failed: AtomicBool,
    /// Set by the consumer when nobody will read any more.
    pub abandoned: AtomicBool,
}

impl PromptStream {
    /// An empty stream that holds at most `chunks_max` chunks.
    pub fn new(chunks_max: usize) -> Self {
        Self {
            chunks: ArrayQueue::new(chunks_max),
            finished: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }
}

/// The prompts of one play operation, in playing order. Made by the control plane and given back to it in the final
/// event, so that no shard ever frees a prompt.
#[derive(Debug, Default)]
pub struct Playlist {
    /// The prompts, played one after the other without a gap.
    pub prompts: Vec<Prompt>,
    /// Rate of all their samples.
    pub rate: Rate,
}

/// A bounded queue from the engine to a recording's writer. One producer, one consumer.
#[derive(Debug)]
pub struct RecordQueue {
    /// Chunks in recording order.
    pub chunks: ArrayQueue<RecordChunk>,
    /// Rate of the samples.
    pub rate: Rate,
    /// Set by the engine after the last chunk.
    pub finished: AtomicBool,
    /// Samples of one channel that the engine did not queue since the recording began, because the queue was full or its
    /// clock stood still.
    pub lost_samples: AtomicU64,
    /// Set by whoever knows that the engine is gone and will not set `finished`.
    pub deserted: AtomicBool,
    /// Set by the writer when the file can't be written any more; the operation then ends with `error`.
    pub failed: AtomicBool,
}

impl RecordQueue {
    /// An empty queue for 8 kHz that holds at most `chunks_max` chunks.
    pub fn new(chunks_max: usize) -> Self {
        Self::with_rate(Rate::Narrow, chunks_max)
    }

    /// The same for another rate.
    pub fn with_rate(rate: Rate, chunks_max: usize) -> Self {
        Self {
            chunks: ArrayQueue::new(chunks_max),
            rate,
            finished: AtomicBool::new(false),
            deserted: AtomicBool::new(false),
            lost_samples: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// Marks the end of the recording. The writer drains what is queued, then closes the file.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }
}

/// A run of recorded samples with its place in the recording, so that a gap shows.
#[derive(Clone, Copy, Debug)]
pub struct RecordChunk {
    /// Position of the first sample since the recording began, in samples of one channel. If it is past the end of the
    /// previous chunk, what lies between was lost in a full queue: the writer puts silence there and notes a gap.
    pub position: u64,
    /// The samples; of a recording with two channels those of the caller and the called in turn.
    pub chunk: Chunk,
    /// What there is to note about them.
    pub marks: Marks,
}

/// What there is to note about a chunk of a recording with two channels: of the caller, and of the called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The channel is muted: silence.
    pub muted: [bool; 2],
    /// Nothing came from the party: silence.
    pub gap: [bool; 2],
    /// Part of what the party said is missing, or a frame was put in because its clock differs from ours: silence there.
    pub concealed: [bool; 2],
}
