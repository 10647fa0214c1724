//! What one media thread does: it takes jobs, gives each prompt and recording its turn, and sleeps when there are none.

use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use jiff::Timestamp;
use ringbridge_media::limits::SAMPLE_RATE_HZ;
use ringbridge_media::samples::Prompt;
use tokio::sync::oneshot;

use super::cache::{Lookup, Opened, PromptCache, PromptKey, PromptReply};
use super::decode::{Aim, Decoder};
use super::error::FileError;
use super::expire::{Sweep, SweepOutcome};
use super::format::HeaderlessFormat;
use super::prompt::{StreamedPrompt, WholePrompt};
use super::record::Recorder;
use super::resolve::{Found, Wanted};
use super::root::Root;
use super::wav::WavError;
use super::{Recording, RecordingSpec};

/// How often streams are refilled and recordings drained. Their queues hold a hundred times as much.
const CADENCE: Duration = Duration::from_millis(20);
/// Longest prompt that is decoded as a whole: two minutes at 8 kHz, 20 seconds at 48. What is longer is streamed.
const WHOLE_SAMPLES_MAX: u64 = SAMPLE_RATE_HZ as u64 * 120;
/// Prompts one thread decodes as a whole at the same time; further jobs wait.
const DECODES_MAX: usize = 4;
/// Streams and recordings of all threads together; each holds a file open.
const OPEN_FILES_MAX: usize = 4096;

/// What a media thread is asked to do.
pub(super) enum Job {
    /// Open a prompt.
    Open { wanted: Wanted, headerless: HeaderlessFormat, aim: Aim, start_ms: u32, reply: PromptReply },
    /// Begin a recording.
    Record { spec: RecordingSpec, reply: oneshot::Sender<Result<Recording, FileError>> },
    /// Remove the recordings that had to be gone by then.
    Sweep { now: Timestamp, reply: oneshot::Sender<SweepOutcome> },
}

/// What all media threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) audio: Root,
    pub(super) recordings: Root,
    /// What text was rendered into.
    pub(super) speech: Root,
    pub(super) cache: Arc<Mutex<PromptCache>>,
    pub(super) open_files: AtomicUsize,
}

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// There is more to do at once.
    Busy,
    /// There will be more to do in a while.
    Idle,
    /// That was all.
    Done,
}

/// One media thread's work.
pub(super) struct Worker {
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
    whole: Vec<WholePrompt>,
    streamed: Vec<StreamedPrompt>,
    recorders: Vec<Recorder>,
    sweeps: Vec<Sweep>,
    /// How often recordings are swept by this thread, and when next.
    schedule: Option<(Duration, Instant)>,
}

impl Worker {
    /// With `sweep_every` it is the one that sweeps, at once and then so often.
    pub(super) fn new(jobs: Receiver<Job>, shared: Arc<Shared>, sweep_every: Option<Duration>) -> Self {
        let (whole, streamed, recorders, sweeps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let schedule = sweep_every.map(|every| (every, Instant::now()));
        Self { jobs, shared, whole, streamed, recorders, sweeps, schedule }
    }

    /// Works until nobody can send jobs any more. What is under way then is ended in order.
    pub(super) fn run(mut self) {
        loop {
            self.keep_schedule();
            let busy = self.turn();
            if self.whole.len() >= DECODES_MAX {
                continue;
            }
            let job = if busy {
                self.jobs.recv_timeout(Duration::ZERO)
            } else if self.streamed.is_empty() && self.recorders.is_empty() && self.sweeps.is_empty() {
                match self.schedule {
                    Some((_, next)) => self.jobs.recv_deadline(next),
                    None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                }
            } else {
                self.jobs.recv_timeout(CADENCE)
            };
            match job {
                // Whoever waits for one that panics hears so: its answer is dropped.
                Ok(job) => drop(survive(|| self.take(job))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Open { wanted, headerless, aim, start_ms, reply } => {
                let opened = self.shared.find(&wanted).and_then(|found| self.decoder(found, headerless, aim));
                self.open(opened, start_ms, reply);
            }
            Job::Record { spec, reply } => self.record(&spec, reply),
            Job::Sweep { now, reply } => self.sweeps.push(Sweep::new(&self.shared.recordings, now, Some(reply))),
        }
    }

    fn keep_schedule(&mut self) {
        let Some((every, next)) = &mut self.schedule else { return };
        if Instant::now() >= *next {
            *next = Instant::now() + *every;
            self.sweeps.push(Sweep::new(&self.shared.recordings, Timestamp::now(), None));
        }
    }

    /// Gives everything its turn; whether something wants another at once. What panics has had its last.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        let mut keep = |turn: Turn| {
            busy |= turn == Turn::Busy;
            turn != Turn::Done
        };
        self.whole.retain_mut(|prompt| keep(survive(|| prompt.turn()).unwrap_or(Turn::Done)));
        self.sweeps.retain_mut(|sweep| keep(survive(|| sweep.turn()).unwrap_or(Turn::Done)));
        let open_before = self.streamed.len() + self.recorders.len();
        self.streamed.retain_mut(|prompt| keep(survive(|| prompt.turn()).unwrap_or(Turn::Done)));
        self.recorders.retain_mut(|recorder| {
            keep(survive(|| recorder.turn()).unwrap_or_else(|| {
                recorder.abort();
                Turn::Done
            }))
        });
        let closed = open_before - self.streamed.len() - self.recorders.len();
        self.shared.open_files.fetch_sub(closed, Ordering::Relaxed);
        busy
    }

    /// The header is read even for what the cache holds: it tells cheaply which of the two ways the file goes.
    fn open(&mut self, opened: Result<(PromptKey, Decoder), FileError>, start_ms: u32, reply: PromptReply) {
        let (key, mut decoder) = match opened {
            Ok(opened) => opened,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let from_start = start_ms == 0;
        if !from_start {
            match decoder.skip_ms(start_ms) {
                Ok(true) => {}
                Ok(false) => {
                    let opened = Opened { prompt: Prompt::Whole([].into()), rate: decoder.rate() };
                    return drop(reply.send(Ok(opened)));
                }
                Err(error) => return drop(reply.send(Err(FileError::io(key.path(), "read it", error)))),
            }
        }
        // The cache holds prompts from their beginning.
        if !from_start || decoder.samples() > WHOLE_SAMPLES_MAX {
            match self.reserve(key.path()) {
                Ok(()) => self.streamed.push(StreamedPrompt::new(decoder, key.path(), reply)),
                Err(error) => drop(reply.send(Err(error))),
            }
            return;
        }
        let lookup = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).request(&key, reply);
        match lookup {
            Lookup::Served => {}
            Lookup::Decode => self.whole.push(WholePrompt::new(decoder, key, self.shared.cache.clone())),
        }
    }

    /// Tells from the file, or from what is known about it, how it is read.
    fn decoder(&self, found: Found, given: HeaderlessFormat, aim: Aim) -> Result<(PromptKey, Decoder), FileError> {
        let Found { origin, path, file, metadata } = found;
        let bytes = metadata.len();
        let mut reader = BufReader::new(file);
        let format = {
            let start = reader.fill_buf().map_err(|error| FileError::io(&path, "read it", error))?;
            self.shared.headerless_format(origin, &path, start, given)
        };
        let decoder = match format {
            None => Decoder::new(reader, bytes, aim),
            Some(format) => Decoder::headerless(reader, bytes, format, aim),
        };
        match decoder {
            Ok(decoder) => Ok((PromptKey::new(origin, &path, format, decoder.rate(), &metadata), decoder)),
            Err(error) => Err(refused(&path, error)),
        }
    }

    fn record(&mut self, spec: &RecordingSpec, reply: oneshot::Sender<Result<Recording, FileError>>) {
        if let Err(error) = self.reserve(Path::new(spec.path.as_deref().unwrap_or_default())) {
            return drop(reply.send(Err(error)));
        }
        let Some(created) = survive(|| Recorder::create(&self.shared.recordings, spec)) else {
            self.shared.open_files.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        match created {
            Ok((recorder, recording)) => {
                self.recorders.push(recorder);
                // A caller that has gone has dropped its end of the queue: the recorder sees that.
                let _ = reply.send(Ok(recording));
            }
            Err(error) => {
                self.shared.open_files.fetch_sub(1, Ordering::Relaxed);
                drop(reply.send(Err(error)));
            }
        }
    }

    /// Counts one more open file, if there may be one more.
    fn reserve(&self, path: &Path) -> Result<(), FileError> {
        if self.shared.open_files.fetch_add(1, Ordering::Relaxed) < OPEN_FILES_MAX {
            return Ok(());
        }
        self.shared.open_files.fetch_sub(1, Ordering::Relaxed);
        let source = std::io::Error::new(
            std::io::ErrorKind::QuotaExceeded,
            format!("{OPEN_FILES_MAX} recordings and long prompts are open already; try again when some have ended"),
        );
        Err(FileError::io(path, "open one more", source))
    }
}

/// Carries something out; `None` if it panicked, which must not end the thread and all that it does for others.
fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(work));
    if result.is_err() {
        tracing::error!("a file was given up: its decoder or writer panicked");
    }
    result.ok()
}

fn refused(path: &Path, error: WavError) -> FileError {
    match error {
        WavError::Io(error) => FileError::io(path, "read it", error),
        error @ (WavError::NotWav
        | WavError::Truncated(_)
        | WavError::Malformed(_)
        | WavError::Format { .. }
        | WavError::Channels(_)
        | WavError::SampleRate(_)
        | WavError::AdpcmChannels(_)
        | WavError::Headerless(_)
        | WavError::Empty) => FileError::unsupported(path, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Seek, SeekFrom, Write};

    use ringbridge_media::samples::{Chunk, Marks, RecordChunk};

    use super::super::RecordingFailure;
    use super::*;

    /// A disk whose driver panics after the header.
    struct Panicking(u64);

    impl Write for Panicking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert!(self.0 == 0, "this is the panic that is wanted");
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Panicking {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(self.0)
        }
    }

    #[test]
    fn a_panic_ends_one_recording_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let root = |name: &str| Root::new(directory.path().join(name));
        let shared = Arc::new(Shared {
            audio: root("audio"),
            recordings: root("recordings"),
            speech: root("speech"),
            cache: Arc::new(Mutex::new(PromptCache::new(0))),
            open_files: AtomicUsize::new(0),
        });
        let (_jobs, receiver) = crossbeam::channel::bounded(1);
        let mut worker = Worker::new(receiver, Arc::clone(&shared), None);
        let mut begin = |storage: Option<Panicking>, name: &str| {
            let spec = RecordingSpec::wav(name);
            let created = shared.recordings.create(Path::new(name)).unwrap();
            let storage: Box<dyn super::super::sample_file::Storage> = match storage {
                Some(storage) => Box::new(storage),
                None => Box::new(created.file.try_clone().unwrap()),
            };
            let (recorder, recording) = Recorder::with_storage(created, name.into(), storage, spec).unwrap();
            worker.recorders.push(recorder);
            shared.open_files.fetch_add(1, Ordering::Relaxed);
            recording
        };
        let (mut bad, mut good) = (begin(Some(Panicking(0)), "bad.wav"), begin(None, "good.wav"));
        for recording in [&bad, &good] {
            for position in 0..100 {
                let chunk =
                    RecordChunk { position: position * 160, chunk: Chunk::new(&[1; 160]), marks: Marks::default() };
                recording.queue.chunks.push(chunk).unwrap();
            }
            recording.queue.finish();
        }
        while !worker.recorders.is_empty() {
            worker.turn();
        }
        assert_eq!(bad.done.try_recv().unwrap().failure, Some(RecordingFailure::Io));
        assert!(bad.queue.failed.load(Ordering::Acquire), "whoever records stops");
        let outcome = good.done.try_recv().unwrap();
        assert_eq!((outcome.samples, outcome.error), (16_000, None));
        assert_eq!(shared.open_files.load(Ordering::Relaxed), 0);
    }
}
