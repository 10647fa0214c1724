//! Prompts in, recordings out: the only place where the server touches audio files.
//!
//! A few plain threads read, decode and write; nobody waits for a disk but they. The engine sees samples: a prompt is
//! decoded as a whole and cached, or (if it is long) streamed through a bounded queue; a recording leaves by a bounded
//! queue and becomes a WAV file whose header is valid at every moment.
//!
//! ```text
//!  control ── jobs ──▶ media threads ──▶ prompt cache ──▶ Prompt::Whole  ─┐
//!                        │  ▲      └───▶ bounded queue ─▶ Prompt::Stream ─┴▶ engine
//!                        ▼  └─────────── bounded queue ◀── RecordQueue ◀──── engine
//!                       disk
//! ```
//!
//! Prompts: WAV with 8, 16, 24 or 32-bit PCM, float, A-law or µ-law, 4 to 192 kHz, up to 8 channels. Everything is mixed
//! to one channel and resampled to 8 kHz. Paths are those of clients: they can't leave the configured directories.
//!
//! | bound | value |
//! | --- | --- |
//! | jobs that wait | 1024, then `Io` |
//! | prompt held as a whole | 2 minutes; what is longer is streamed, 2 s ahead |
//! | cache | `cache_bytes_max` |
//! | streams and recordings | 4096 |
//! | recording's queue | 5 s; what does not fit becomes silence and a gap in the manifest |
//! | recording | 74 hours |

mod cache;
mod decode;
mod error;
mod prompt;
mod record;
mod root;
mod wav;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, TrySendError, bounded};
use ringbridge_media::limits::PROMPTS_MAX;
use ringbridge_media::samples::{Playlist, RecordQueue};
use serde::Serialize;
use tokio::sync::oneshot;

pub use cache::CacheStats;
pub use error::FileError;

use cache::PromptCache;
use root::Root;
use worker::{Job, Shared, Worker};

/// Jobs that wait for a thread.
const JOBS_MAX: usize = 1024;

/// Where files are and what may be spent on them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilesConfig {
    /// Prompts are read below this directory.
    pub audio_root: PathBuf,
    /// Recordings are written below this directory, which is created with the first.
    pub recording_root: PathBuf,
    /// Bytes of decoded prompts held in memory; one minute takes 960 000.
    pub cache_bytes_max: usize,
    /// Threads that read and write; at least one is started.
    pub threads: usize,
}

/// The media threads. Cheap to clone; the threads end with the last clone, which waits for them: recordings still under
/// way are completed with what has come.
#[derive(Clone, Debug)]
pub struct MediaFiles {
    inner: Arc<Inner>,
}

/// A recording that has been started.
#[derive(Debug)]
pub struct Recording {
    /// Goes to the engine. If it is dropped everywhere else without having been finished, the recording ends; if nothing
    /// was ever recorded, its file is removed.
    pub queue: Arc<RecordQueue>,
    /// The file.
    pub path: PathBuf,
    /// Told once the file is complete and on the disk, or can't be.
    pub done: oneshot::Receiver<RecordingOutcome>,
}

/// What became of a recording.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordingOutcome {
    /// Length of the file in samples, gaps included.
    pub samples: u64,
    /// Where samples are missing; the first 1000.
    pub gaps: Vec<Gap>,
    /// Why it did not end as it should; `None` if it did.
    pub error: Option<String>,
}

/// A hole in a recording, filled with silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Gap {
    /// Where it begins, in milliseconds since the recording began.
    pub at_ms: u64,
    /// How long it is, in milliseconds.
    pub ms: u64,
}

#[derive(Debug)]
struct Inner {
    /// `None` only while being dropped.
    jobs: Option<Sender<Job>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl MediaFiles {
    /// Starts the threads. The directories need not exist yet.
    ///
    /// # Errors
    /// If the system grants no thread.
    pub fn start(config: FilesConfig) -> io::Result<Self> {
        let (sender, receiver) = bounded(JOBS_MAX);
        let shared = Arc::new(Shared {
            audio: Root::new(config.audio_root),
            recordings: Root::new(config.recording_root),
            cache: Arc::new(Mutex::new(PromptCache::new(config.cache_bytes_max))),
            open_files: AtomicUsize::new(0),
        });
        let threads = (0..config.threads.max(1))
            .map(|index| {
                let worker = Worker::new(receiver.clone(), shared.clone());
                std::thread::Builder::new().name(format!("rb-files-{index}")).spawn(move || worker.run())
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { inner: Arc::new(Inner { jobs: Some(sender), shared, threads }) })
    }

    /// Opens the prompts of one play, in order; ready to be played when it returns. Paths are relative to the audio root,
    /// or absolute inside it.
    ///
    /// # Errors
    /// Those of the first prompt that can't be played.
    pub async fn open_playlist(&self, files: &[String]) -> Result<Box<Playlist>, FileError> {
        if let Some(surplus) = files.get(PROMPTS_MAX) {
            let reason = format!("a play takes {PROMPTS_MAX} files at most; this is one more");
            return Err(FileError::unsupported(Path::new(surplus), reason));
        }
        // All at once: the threads share the work.
        let mut answers = Vec::with_capacity(files.len());
        for file in files {
            let (reply, answer) = oneshot::channel();
            self.submit(file, Job::Open { file: file.clone(), reply })?;
            answers.push((file, answer));
        }
        let mut playlist = Box::new(Playlist::default());
        for (file, answer) in answers {
            playlist.prompts.push(answer.await.map_err(|_| ending(file))??);
        }
        Ok(playlist)
    }

    /// Creates the file of a recording, and the directories it is in. `path` is relative to the recording root, or
    /// absolute inside it; an existing file is never overwritten.
    ///
    /// # Errors
    /// If the file can't be created there.
    pub async fn start_recording(&self, path: &str) -> Result<Recording, FileError> {
        let (reply, answer) = oneshot::channel();
        self.submit(path, Job::Record { file: path.to_owned(), reply })?;
        answer.await.map_err(|_| ending(path))?
    }

    /// What the prompt cache has done and holds.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).stats()
    }

    fn submit(&self, path: &str, job: Job) -> Result<(), FileError> {
        let Some(jobs) = &self.inner.jobs else { return Err(ending(path)) };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => {
                let source = io::Error::new(io::ErrorKind::WouldBlock, "too many files are being opened; try again");
                FileError::io(Path::new(path), "open it now", source)
            }
            TrySendError::Disconnected(_) => ending(path),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

fn ending(path: &str) -> FileError {
    FileError::io(Path::new(path), "open it", io::Error::other("the server is ending"))
}
