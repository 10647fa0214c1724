//! The two ways a prompt gets to the engine: decoded as a whole into the cache, or piece by piece into a queue.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use ringbridge_media::command::Rate;
use ringbridge_media::limits::CHUNK_SAMPLES;
use ringbridge_media::samples::{Chunk, Prompt, PromptStream};

use super::cache::{Opened, PromptCache, PromptKey, PromptReply};
use super::decode::Decoder;
use super::error::FileError;
use super::worker::Turn;

/// Chunks a streamed prompt is decoded ahead at 8 kHz: two seconds.
const STREAM_CHUNKS: usize = 100;
/// A stream at 8 kHz is filled up once this many chunks have been played: a fifth of a second.
const REFILL_CHUNKS: usize = 10;
/// Samples decoded in one turn of a whole prompt, so that the thread's streams and recordings get theirs.
const SAMPLES_PER_TURN: usize = 4000;

const READ: &str = "read it";

/// A prompt being decoded as a whole. Answers all who wait for it, whatever happens.
pub(super) struct WholePrompt {
    decoder: Decoder,
    samples: Vec<i16>,
    key: PromptKey,
    cache: Arc<Mutex<PromptCache>>,
    answered: bool,
}

impl WholePrompt {
    pub(super) fn new(decoder: Decoder, key: PromptKey, cache: Arc<Mutex<PromptCache>>) -> Self {
        Self { decoder, samples: Vec::new(), key, cache, answered: false }
    }

    /// Decodes a piece.
    pub(super) fn turn(&mut self) -> Turn {
        let enough = self.samples.len() + SAMPLES_PER_TURN;
        while self.samples.len() < enough {
            match self.decoder.step(&mut self.samples) {
                Ok(true) => {}
                Ok(false) => {
                    let samples = std::mem::take(&mut self.samples).into();
                    self.answer(Ok(samples));
                    return Turn::Done;
                }
                Err(error) => {
                    self.answer(Err(FileError::io(self.key.path(), READ, error)));
                    return Turn::Done;
                }
            }
        }
        Turn::Busy
    }

    fn answer(&mut self, result: Result<Arc<[i16]>, FileError>) {
        self.answered = true;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).finish(&self.key, result);
    }
}

impl Drop for WholePrompt {
    fn drop(&mut self) {
        if !self.answered {
            let error = std::io::Error::other("it was given up; the server is ending, or its log says why");
            self.answer(Err(FileError::io(self.key.path(), READ, error)));
        }
    }
}

/// How many times as many samples as at 8 kHz.
pub(super) const fn scale(rate: Rate) -> usize {
    rate.frame_samples() / Rate::Narrow.frame_samples()
}

/// A prompt being decoded ahead of its playing.
pub(super) struct StreamedPrompt {
    decoder: Decoder,
    stream: Arc<PromptStream>,
    decoded: Vec<i16>,
    ended: bool,
    /// Answered once there is something to play, so that a play begins without a hole.
    reply: Option<PromptReply>,
    path: std::path::PathBuf,
}

impl StreamedPrompt {
    pub(super) fn new(decoder: Decoder, path: &std::path::Path, reply: PromptReply) -> Self {
        let stream = Arc::new(PromptStream::new(STREAM_CHUNKS * scale(decoder.rate())));
        Self { decoder, stream, decoded: Vec::new(), ended: false, reply: Some(reply), path: path.to_owned() }
    }

    /// Fills the queue if there is room worth the while.
    pub(super) fn turn(&mut self) -> Turn {
        let unheard = self.reply.is_none() && Arc::strong_count(&self.stream) == 1;
        if unheard || self.stream.abandoned.load(Ordering::Acquire) {
            return Turn::Done;
        }
        if self.reply.as_ref().is_some_and(PromptReply::is_closed) {
            return Turn::Done;
        }
        match self.decoder.skip_step() {
            Ok(false) => {}
            Ok(true) => return Turn::Busy,
            Err(error) => return self.fail(error),
        }
        let refill_chunks = REFILL_CHUNKS * scale(self.decoder.rate());
        if self.stream.chunks.capacity() - self.stream.chunks.len() < refill_chunks {
            return Turn::Idle;
        }
        for _ in 0..refill_chunks {
            if self.stream.chunks.is_full() {
                break;
            }
            match self.next_chunk() {
                // There is room: this is the only producer.
                Ok(Some(chunk)) => drop(self.stream.chunks.push(chunk)),
                Ok(None) => {
                    self.stream.finished.store(true, Ordering::Release);
                    self.start();
                    return Turn::Done;
                }
                Err(error) => return self.fail(error),
            }
        }
        if self.stream.chunks.is_full() {
            self.start();
            return Turn::Idle;
        }
        Turn::Busy
    }

    fn fail(&mut self, error: std::io::Error) -> Turn {
        self.stream.failed.store(true, Ordering::Release);
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(FileError::io(&self.path, READ, error)));
        }
        Turn::Done
    }

    fn start(&mut self) {
        if let Some(reply) = self.reply.take() {
            let opened = Opened { prompt: Prompt::Stream(self.stream.clone()), rate: self.decoder.rate() };
            let _ = reply.send(Ok(opened));
        }
    }

    fn next_chunk(&mut self) -> std::io::Result<Option<Chunk>> {
        while self.decoded.len() < CHUNK_SAMPLES && !self.ended {
            self.ended = !self.decoder.step(&mut self.decoded)?;
        }
        let len = self.decoded.len().min(CHUNK_SAMPLES);
        let chunk = Chunk::new(&self.decoded[..len]);
        self.decoded.drain(..len);
        Ok((len > 0).then_some(chunk))
    }
}

impl Drop for StreamedPrompt {
    fn drop(&mut self) {
        // Whoever still plays must not wait for more.
        if !self.stream.finished.load(Ordering::Acquire) {
            self.stream.failed.store(true, Ordering::Release);
        }
    }
}
