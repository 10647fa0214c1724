//! Prompts in, recordings out: the only place where the server touches audio files.
//!
//! A few plain threads read, decode and write; nobody waits for a disk but they. The engine sees samples: a prompt is
//! decoded as a whole and cached, or (if it is long) streamed through a bounded queue; a recording leaves by a bounded
//! queue and becomes a WAV or VOX file that is valid at every moment.
//!
//! ```text
//!  control ── jobs ──▶ media threads ──▶ prompt cache ──▶ Prompt::Whole  ─┐
//!                        │  ▲      └───▶ bounded queue ─▶ Prompt::Stream ─┴▶ engine
//!                        ▼  └─────────── bounded queue ◀── RecordQueue ◀──── engine
//!                       disk
//! ```
//!
//! Prompts: WAV with 8, 16, 24 or 32-bit PCM, float, A-law, µ-law, OKI ADPCM or 2-bit G.726, 4 to 192 kHz, up to 8 channels; VOX with
//! 8 or 16-bit PCM, A-law, µ-law or OKI ADPCM, 6, 8 or 11.025 kHz, one channel. Everything is mixed to one channel and
//! resampled to 8, 16 or 48 kHz: the lowest of them that holds all that the file has, but no more than the clock it is
//! played on. Recordings: WAV and VOX in what VOX can hold, also at 16 and 48 kHz. Paths are those of clients: they can't leave the
//! configured directories.
//!
//! | bound | value |
//! | --- | --- |
//! | jobs that wait | 1024, then `Io` |
//! | prompt held as a whole | 2 minutes at 8 kHz, 20 s at 48 kHz: 2 MB; what is longer is streamed, 2 s ahead: up to 190 kB |
//! | cache | `cache_bytes_max` |
//! | streams and recordings | 4096 |
//! | recording's queue | 5 s, 84 kB at 8 kHz and 504 kB at 48; what does not fit becomes silence and a gap in the manifest |
//! | recording | 4 GiB: at 8 kHz 74 hours |

mod cache;
mod decode;
mod encode;
mod error;
mod expire;
mod format;
mod manifest;
mod mend;
mod prompt;
mod record;
mod resample;
mod resolve;
mod root;
mod sample_file;
mod tts;
mod wav;
mod wav_header;
mod worker;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError, bounded};
use jiff::Timestamp;
use ringbridge_media::command::Rate;
use ringbridge_media::limits::{PROMPTS_MAX, SAMPLE_RATE_HZ};
use ringbridge_media::samples::{Playlist, Prompt, RecordQueue};
use serde::Serialize;
use tokio::sync::oneshot;

pub use cache::CacheStats;
pub use error::FileError;
pub use expire::SweepOutcome;
pub use format::{Container, Encoding, FormatError, HeaderlessFormat};
pub use resolve::looks_like_file_name;
pub use tts::{TtsConfig, TtsError, check_command};

use cache::{Opened, PromptCache};
use decode::Aim;
use manifest::manifest_name;
use resolve::Wanted;
use root::Root;
use tts::Tts;
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
    /// Rendered texts are kept below this directory, which is created with the first.
    pub speech_root: PathBuf,
    /// How texts are rendered.
    pub tts: TtsConfig,
    /// How often recordings whose time is over are removed, beginning at once; `None`: only when asked.
    pub sweep_every: Option<Duration>,
    /// Bytes of decoded prompts held in memory; one minute takes 960 000 at 8 kHz, six times as many at 48.
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

/// How long a WAV file takes to play, by its header. Waits for the disk.
///
/// # Errors
/// In words: it can't be read, or not be played here.
pub fn wav_duration(path: &Path) -> Result<Duration, String> {
    let open = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?.len(), io::BufReader::new(file))));
    let (bytes, reader) = open.map_err(|error| error.to_string())?;
    wav::FrameReader::new(reader, bytes).map(|frames| frames.duration()).map_err(|error| error.to_string())
}

/// Where the manifest of a recording is, whether there is one or not.
pub(crate) fn manifest_of(recording: &Path) -> PathBuf {
    manifest::manifest_name(recording.as_os_str()).into()
}

/// What one play is to play.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlaylistSpec {
    /// The prompts, in playing order.
    pub prompts: Vec<PromptSource>,
    /// Format of VOX files that have no manifest beside them.
    pub headerless: HeaderlessFormat,
    /// Of the clock it is played on. More is not read from a file.
    pub rate: Rate,
    /// Where playing begins in the first prompt, in milliseconds. At or past its end the prompt is left out.
    pub start_ms: u32,
    /// A name that is nowhere is an error instead of a text.
    pub files_only: bool,
}

impl PlaylistSpec {
    /// Files below the audio root, played from the beginning.
    pub fn files(paths: impl IntoIterator<Item = String>) -> Self {
        Self { prompts: paths.into_iter().map(PromptSource::File).collect(), ..Self::default() }
    }

    fn how(&self, index: usize, aim: Aim) -> How {
        How { headerless: self.headerless, aim, start_ms: if index == 0 { self.start_ms } else { 0 } }
    }
}

/// How a prompt is read.
#[derive(Clone, Copy, Debug)]
struct How {
    headerless: HeaderlessFormat,
    aim: Aim,
    start_ms: u32,
}

/// What a prompt is given by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PromptSource {
    /// A path relative to the audio root, or absolute inside it.
    File(String),
    /// A name that is looked for in several places: a full path inside the audio or recording root; else
    /// `<audio root>/<application>/<locale>/<text>`, `<audio root>/<text>`, `<recording root>/<text>`. If it is nowhere,
    /// it is a text to be spoken.
    Named {
        /// As the client wrote it.
        text: String,
        /// The client's application, one path component.
        application: Option<String>,
        /// Its language, one path component; `en-US` if there is none.
        locale: Option<String>,
    },
}

impl PromptSource {
    fn name(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::Named { text, .. } => text,
        }
    }

    fn wanted(&self) -> Wanted {
        match self {
            Self::File(path) => Wanted::File(path.clone()),
            Self::Named { text, application, locale } => {
                Wanted::Named { text: text.clone(), application: application.clone(), locale: locale.clone() }
            }
        }
    }
}

/// What a recording becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingSpec {
    /// Relative to the recording root, or absolute inside it. Without one, the file gets a name of 8 hexadecimal
    /// characters and the container's extension.
    pub path: Option<String>,
    /// With a header or without.
    pub container: Container,
    /// How samples are encoded.
    pub encoding: Encoding,
    /// Samples a second: 6000, 8000, 11025, 16000 or 48000.
    pub sample_rate_hz: u32,
    /// Bits of a sample: 4 for ADPCM, 8 for µ-law and A-law, 8 or 16 for PCM.
    pub bits: u16,
    /// 1; or 2, caller and called: a WAV file at 8, 16 or 48 kHz without ADPCM.
    pub channels: u16,
    /// Days the file is kept after it has ended, up to 9999; `None` and 0: for ever.
    pub expires_days: Option<u32>,
}

impl RecordingSpec {
    /// A WAV file with 16-bit PCM at 8 kHz that is kept for ever.
    pub fn wav(path: impl Into<String>) -> Self {
        Self {
            path: Some(path.into()),
            container: Container::Wav,
            encoding: Encoding::Pcm,
            sample_rate_hz: SAMPLE_RATE_HZ,
            bits: 16,
            channels: 1,
            expires_days: None,
        }
    }

    /// What the engine records at for it.
    pub fn rate(&self) -> Rate {
        Rate::from_hz(self.sample_rate_hz).unwrap_or_default()
    }

    /// Encoding, rate and size together.
    pub fn format(&self) -> HeaderlessFormat {
        HeaderlessFormat { encoding: self.encoding, sample_rate_hz: self.sample_rate_hz, bits: self.bits }
    }
}

/// A recording that has been started.
#[derive(Debug)]
pub struct Recording {
    /// Goes to the engine. If it is dropped everywhere else without having been finished, the recording ends; if nothing
    /// was ever recorded, its file is removed.
    pub queue: Arc<RecordQueue>,
    /// The file.
    pub path: PathBuf,
    /// The file, relative to the recording root.
    pub name: PathBuf,
    /// Told once the file is complete and on the disk, or can't be.
    pub done: oneshot::Receiver<RecordingOutcome>,
}

/// What became of a recording.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordingOutcome {
    /// Length of the recording in samples at 8 kHz, whatever the file's rate, gaps included.
    pub samples: u64,
    /// Where samples are missing; the first 1000.
    pub gaps: Vec<Gap>,
    /// Of the whole file, in hexadecimal digits; of a recording with two channels.
    pub sha256: Option<String>,
    /// Why it did not end as it should; `None` if it did.
    pub error: Option<String>,
    /// The kind of `error`.
    pub failure: Option<RecordingFailure>,
}

/// Why a recording ended before it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordingFailure {
    /// The disk or a quota is full. What was written before is valid.
    StorageFull,
    /// The longest recording there can be.
    TooLong,
    /// The file can't be written any more.
    Io,
    /// Nobody was left to record, or the server ended.
    Abandoned,
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
    tts: Tts,
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
            speech: Root::new(config.speech_root.clone()),
            cache: Arc::new(Mutex::new(PromptCache::new(config.cache_bytes_max))),
            open_files: AtomicUsize::new(0),
        });
        let threads = (0..config.threads.max(1))
            .map(|index| {
                let sweep_every = config.sweep_every.filter(|_| index == 0);
                let worker = Worker::new(receiver.clone(), shared.clone(), sweep_every);
                std::thread::Builder::new().name(format!("rb-files-{index}")).spawn(move || worker.run())
            })
            .collect::<io::Result<_>>()?;
        let tts = Tts::new(config.speech_root, &config.tts);
        Ok(Self { inner: Arc::new(Inner { jobs: Some(sender), shared, tts, threads }) })
    }

    /// Opens the prompts of one play, in order; ready to be played when it returns.
    ///
    /// # Errors
    /// Those of the first prompt that can't be played.
    pub async fn open_playlist(&self, spec: &PlaylistSpec) -> Result<Box<Playlist>, FileError> {
        self.open_playlist_with(spec, || Ok(())).await
    }

    /// As [`Self::open_playlist`], for who counts text-to-speech ports: `port` is asked before a text is rendered, and
    /// what it gives is dropped when that is done. A text that has been rendered before takes no port.
    ///
    /// # Errors
    /// Those of the first prompt that can't be played; [`TtsError::NoPort`] or whatever else `port` says among them.
    pub async fn open_playlist_with<G>(
        &self,
        spec: &PlaylistSpec,
        mut port: impl FnMut() -> Result<G, TtsError>,
    ) -> Result<Box<Playlist>, FileError> {
        if let Some(surplus) = spec.prompts.get(PROMPTS_MAX) {
            let reason = format!("a play takes {PROMPTS_MAX} files at most; this is one more");
            return Err(FileError::unsupported(Path::new(surplus.name()), reason));
        }
        // All at once: the threads share the work.
        let mut answers = Vec::with_capacity(spec.prompts.len());
        for (index, source) in spec.prompts.iter().enumerate() {
            let how = spec.how(index, Aim::UpTo(spec.rate));
            answers.push((source, how, self.open(source.name(), source.wanted(), how)?));
        }
        let mut prompts = Vec::with_capacity(answers.len());
        for (source, how, answer) in answers {
            prompts.push((source, how, self.opened(source, how, spec.files_only, answer, &mut port).await?));
        }
        // Started past its end.
        prompts.retain(|(_, _, opened)| !matches!(&opened.prompt, Prompt::Whole(samples) if samples.is_empty()));
        let rate = prompts.iter().map(|(_, _, opened)| opened.rate).max().unwrap_or_default();
        let mut playlist = Box::new(Playlist { prompts: Vec::with_capacity(prompts.len()), rate });
        for (source, how, opened) in prompts {
            let opened = if opened.rate == rate {
                opened
            } else {
                // One rate for all, that of the best.
                let how = How { aim: Aim::Exactly(rate), ..how };
                let answer = self.open(source.name(), source.wanted(), how)?;
                self.opened(source, how, spec.files_only, answer, &mut port).await?
            };
            playlist.prompts.push(opened.prompt);
        }
        Ok(playlist)
    }

    /// Waits for a prompt to be open. A name that is nowhere is spoken.
    async fn opened<G>(
        &self,
        source: &PromptSource,
        how: How,
        files_only: bool,
        answer: oneshot::Receiver<Result<Opened, FileError>>,
        port: impl FnMut() -> Result<G, TtsError>,
    ) -> Result<Opened, FileError> {
        let opened = answer.await.map_err(|_| given_up(source.name()))?;
        match (opened, source) {
            (Err(FileError::NotFound { .. }), PromptSource::Named { text, locale, .. }) if !files_only => {
                let how = How { headerless: HeaderlessFormat::default(), ..how };
                self.speak(text, locale.as_deref(), how, port).await
            }
            (opened, _) => opened,
        }
    }

    /// Creates the file of a recording, and the directories it is in. An existing file is never overwritten.
    ///
    /// # Errors
    /// If the file can't be created there, or there is no such format.
    pub async fn start_recording(&self, spec: RecordingSpec) -> Result<Recording, FileError> {
        let path = spec.path.clone().unwrap_or_default();
        let (reply, answer) = oneshot::channel();
        self.submit(&path, Job::Record { spec, reply })?;
        answer.await.map_err(|_| given_up(&path))?
    }

    /// Removes the recordings that had to be gone by `now`, as is done every so often without being asked.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub async fn sweep(&self, now: Timestamp) -> Result<SweepOutcome, FileError> {
        let (reply, answer) = oneshot::channel();
        self.submit("", Job::Sweep { now, reply })?;
        answer.await.map_err(|_| given_up(""))
    }

    /// Opens a recording to be read, by its path below the recording root; its length. Waits for the disk.
    ///
    /// # Errors
    /// It is not there, or no file.
    pub fn open_recording(&self, path: &str) -> Result<(File, u64), FileError> {
        let root = &self.inner.shared.recordings;
        let (file, metadata) = root.open(&root.relative(path)?)?;
        Ok((file, metadata.len()))
    }

    /// Removes a recording and its manifest, as far as they are there. Waits for the disk.
    ///
    /// # Errors
    /// Something is there and can't be removed.
    pub fn remove_recording(&self, path: &str) -> Result<(), FileError> {
        let root = &self.inner.shared.recordings;
        let relative = root.relative(path)?;
        root.remove(&relative)?;
        root.remove(Path::new(&manifest_name(relative.as_os_str())))
    }

    /// What the prompt cache has done and holds.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).stats()
    }

    /// Opens a text that is spoken.
    async fn speak<G>(
        &self,
        text: &str,
        locale: Option<&str>,
        how: How,
        mut port: impl FnMut() -> Result<G, TtsError>,
    ) -> Result<Opened, FileError> {
        let mut again = true;
        loop {
            let spoken = self.inner.tts.speak(text, locale, &mut port).await;
            let name = spoken.map_err(|source| FileError::Speech { path: beginning(text), source })?;
            let wanted = Wanted::Speech(name.clone());
            let answer = self.open(text, wanted, how)?;
            match answer.await.map_err(|_| given_up(text))? {
                // It has made room for others since.
                Err(FileError::NotFound { .. }) if again => {
                    self.inner.tts.forget(&name);
                    again = false;
                }
                opened => return opened,
            }
        }
    }

    fn open(
        &self,
        name: &str,
        wanted: Wanted,
        how: How,
    ) -> Result<oneshot::Receiver<Result<Opened, FileError>>, FileError> {
        let (reply, answer) = oneshot::channel();
        let How { headerless, aim, start_ms } = how;
        self.submit(name, Job::Open { wanted, headerless, aim, start_ms, reply })?;
        Ok(answer)
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

/// Enough of a text to know it by.
fn beginning(text: &str) -> PathBuf {
    PathBuf::from(text.chars().take(64).collect::<String>())
}

/// The error of a job that was dropped without an answer.
fn given_up(path: &str) -> FileError {
    let source = io::Error::other("it was given up; the server is ending, or its log says why");
    FileError::io(Path::new(path), "open it", source)
}

fn ending(path: &str) -> FileError {
    FileError::io(Path::new(path), "open it", io::Error::other("the server is ending"))
}
