//! Writes a recording: a file that is valid up to its last second at any moment, and a manifest beside it.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ringbridge_media::command::Rate;
use ringbridge_media::limits::SAMPLE_RATE_HZ;
use ringbridge_media::samples::{Marks, RecordChunk, RecordQueue};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::encode::Encoder;
use super::error::FileError;
use super::format::Coding;
use super::manifest::{ChannelNotes, Manifest, State, expiry, manifest_name};
use super::prompt::scale;
use super::resample::Rates;
use super::root::{CreatedFile, Root};
use super::sample_file::{SampleFile, Storage, too_long};
use super::worker::Turn;
use super::{Container, Encoding, Gap, Recording, RecordingFailure, RecordingOutcome, RecordingSpec};

/// Chunks of each channel that wait for the disk, at 8 kHz: five seconds.
const QUEUE_CHUNKS: usize = 250;
/// How often the header and what is buffered are written.
const REFRESH: Duration = Duration::from_secs(1);
/// Chunks written in one turn, likewise, so that other recordings get theirs.
const CHUNKS_PER_TURN: usize = QUEUE_CHUNKS;
/// Samples of silence written in one turn.
const SILENCE_PER_TURN: u64 = 80_000;
/// Length of a recording in samples: about 74 hours at 8 kHz, 12 at 48; what fits the 32-bit sizes of the usual WAV file.
const SAMPLES_MAX: u64 = (u32::MAX as u64 - 1024) / 2;
/// Names that are tried for a recording that was given none.
const NAMES_MAX: usize = 16;
/// Gaps that are listed one by one.
const GAPS_MAX: usize = 1000;
/// Muted stretches of a channel that are listed one by one.
const MUTED_MAX: usize = 1000;
/// Stretches of a channel in which nothing came, and likewise those in which something was lost, that are listed.
const HOLES_MAX: usize = 250;
/// Bytes of a finished file that are read in one turn for its checksum.
const HASHED_PER_TURN: usize = 1 << 20;

/// One recording and the queue it comes from.
pub(super) struct Recorder {
    spec: RecordingSpec,
    encoder: Encoder,
    /// `None` once it is complete.
    file: Option<SampleFile>,
    created: CreatedFile,
    manifest_name: OsString,
    queue: Arc<RecordQueue>,
    done: Option<oneshot::Sender<RecordingOutcome>>,
    started_at: Timestamp,
    refreshed: Instant,
    /// Written since the last refresh.
    dirty: bool,
    /// Gaps noted since the manifest was last written.
    manifest_dirty: bool,
    written: u64,
    /// A chunk that waits until the silence before it is written.
    waiting: Option<RecordChunk>,
    /// Which channels of two were muted at last.
    muted: [bool; 2],
    gaps: Stretches,
    gap_samples: u64,
    /// Of a recording with two channels, those of the caller and of the called.
    notes: [Notes; 2],
    /// The file is complete, and read once more.
    hashing: Option<Hashing>,
}

/// Stretches of a recording, in samples, in order.
#[derive(Debug)]
struct Stretches {
    /// The first `listed_max`.
    listed: Vec<Range<u64>>,
    listed_max: usize,
    unlisted: u64,
    /// Where the last one ended, listed or not.
    end: Option<u64>,
}

impl Stretches {
    const fn new(listed_max: usize) -> Self {
        Self { listed: Vec::new(), listed_max, unlisted: 0, end: None }
    }

    /// Notes one more; what adjoins the last one prolongs it.
    fn note(&mut self, stretch: Range<u64>) {
        let adjoins = self.end == Some(stretch.start);
        self.end = Some(stretch.end);
        if !adjoins && self.listed.len() < self.listed_max {
            self.listed.push(stretch);
        } else if !adjoins {
            self.unlisted += 1;
        } else if let Some(last) = self.listed.last_mut().filter(|last| last.end == stretch.start) {
            last.end = stretch.end;
        }
    }

    fn in_ms(&self, rate: Rate) -> Vec<Gap> {
        let ms = |samples: u64| samples * 1000 / u64::from(rate.hz());
        self.listed.iter().map(|gap| Gap { at_ms: ms(gap.start), ms: ms(gap.end - gap.start) }).collect()
    }
}

/// What there is to note about one channel of two.
#[derive(Debug)]
struct Notes {
    muted: Stretches,
    gaps: Stretches,
    concealed: Stretches,
}

impl Notes {
    const fn new() -> Self {
        Self { muted: Stretches::new(MUTED_MAX), gaps: Stretches::new(HOLES_MAX), concealed: Stretches::new(HOLES_MAX) }
    }

    fn manifest(&self, rate: Rate) -> ChannelNotes {
        ChannelNotes {
            muted: self.muted.in_ms(rate),
            gaps: self.gaps.in_ms(rate),
            concealed: self.concealed.in_ms(rate),
            unlisted: self.muted.unlisted + self.gaps.unlisted + self.concealed.unlisted,
        }
    }
}

/// A finished file on its way to its checksum.
struct Hashing {
    hash: Sha256,
    read: u64,
    state: State,
    error: Option<(RecordingFailure, String)>,
}

impl Recorder {
    /// Creates the file and its manifest.
    pub(super) fn create(root: &Root, spec: &RecordingSpec) -> Result<(Self, Recording), FileError> {
        if let Some(given) = &spec.path {
            return Self::create_at(root, given, spec);
        }
        let mut names_left = NAMES_MAX;
        loop {
            names_left -= 1;
            let name = format!("{:08x}.{}", rand::random::<u32>(), spec.container.extension());
            match Self::create_at(root, &name, spec) {
                Err(FileError::Io { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists && names_left > 0 => {}
                result => return result,
            }
        }
    }

    fn create_at(root: &Root, given: &str, spec: &RecordingSpec) -> Result<(Self, Recording), FileError> {
        let relative = root.relative(given)?;
        spec.format().check().map_err(|source| FileError::Format { path: relative.clone(), source })?;
        let created = root.create(&relative)?;
        let prepared = created.file.try_clone().and_then(|storage| {
            // Tells those who sweep that somebody still writes.
            rustix::fs::flock(&created.file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
            Ok(storage)
        });
        let recorder = match prepared {
            Ok(storage) => Self::with_storage(created, relative.clone(), Box::new(storage), spec.clone()),
            Err(error) => {
                created.directory.remove(&created.name);
                Err(error)
            }
        };
        recorder.map_err(|error| FileError::io(&relative, "write it", error))
    }

    /// Begins it in a file that was just created; if it can't be begun, the file goes again.
    pub(super) fn with_storage(
        created: CreatedFile,
        name: PathBuf,
        storage: Box<dyn Storage>,
        spec: RecordingSpec,
    ) -> io::Result<(Self, Recording)> {
        let (coding, encoder) = match Self::encoder(&spec) {
            Ok(prepared) => prepared,
            Err(error) => {
                created.directory.remove(&created.name);
                return Err(error);
            }
        };
        Self::begun(created, name, storage, spec, coding, encoder)
    }

    fn encoder(spec: &RecordingSpec) -> io::Result<(Coding, Encoder)> {
        let coding = spec.format().coding().map_err(io::Error::other)?;
        let alike = spec.container == Container::Wav
            && spec.encoding != Encoding::Adpcm
            && Rate::from_hz(spec.sample_rate_hz).is_some();
        if !(spec.channels == 1 || (spec.channels == 2 && alike)) {
            return Err(io::Error::other("two channels need a WAV file at 8000, 16000 or 48000 Hz, pcm, ulaw or alaw"));
        }
        Ok((coding, Encoder::new(coding, spec.rate(), spec.sample_rate_hz)?))
    }

    fn begun(
        created: CreatedFile,
        name: PathBuf,
        storage: Box<dyn Storage>,
        spec: RecordingSpec,
        coding: Coding,
        encoder: Encoder,
    ) -> io::Result<(Self, Recording)> {
        let chunks = QUEUE_CHUNKS * scale(spec.rate()) * usize::from(spec.channels);
        let queue = Arc::new(RecordQueue::with_rate(spec.rate(), chunks));
        let (done, outcome) = oneshot::channel();
        let recording = Recording { queue: queue.clone(), path: created.path.clone(), name, done: outcome };
        let mut recorder = Self {
            encoder,
            file: None,
            manifest_name: manifest_name(&created.name),
            spec,
            created,
            queue,
            done: Some(done),
            started_at: Timestamp::now(),
            refreshed: Instant::now(),
            dirty: false,
            manifest_dirty: false,
            written: 0,
            waiting: None,
            muted: [false; 2],
            gaps: Stretches::new(GAPS_MAX),
            gap_samples: 0,
            notes: [Notes::new(), Notes::new()],
            hashing: None,
        };
        let (container, rate_hz) = (recorder.spec.container, recorder.spec.sample_rate_hz);
        let begun = SampleFile::begin(storage, container, coding, recorder.spec.channels, rate_hz).and_then(|file| {
            recorder.file = Some(file);
            recorder.write_manifest(State::Recording, None, false)
        });
        match begun {
            Ok(()) => Ok((recorder, recording)),
            Err(error) => {
                recorder.created.directory.remove(&recorder.created.name);
                recorder.done = None;
                Err(error)
            }
        }
    }

    /// Writes what is queued.
    pub(super) fn turn(&mut self) -> Turn {
        if self.hashing.is_some() {
            return self.hash();
        }
        match self.drain() {
            Ok(turn) => turn,
            Err(error) => self.end(State::Failed, Some((failure_of(&error), error.to_string()))),
        }
    }

    fn drain(&mut self) -> io::Result<Turn> {
        // Read before the queue: what was queued before the end was told is then seen.
        // Deserted first: whoever says so has seen whether it is finished.
        let deserted = Arc::strong_count(&self.queue) == 1 || self.queue.deserted.load(Ordering::Acquire);
        let finished = self.queue.finished.load(Ordering::Acquire);
        fence(Ordering::Acquire);
        let mut silence_left = SILENCE_PER_TURN;
        for _ in 0..CHUNKS_PER_TURN * scale(self.queue.rate) * usize::from(self.spec.channels) {
            let Some(next) = self.waiting.take().or_else(|| self.queue.chunks.pop()) else {
                if finished || deserted {
                    self.fill(self.written + self.lost_at_end(), self.muted, &mut silence_left)?;
                    if self.lost_at_end() > 0 {
                        return Ok(Turn::Busy);
                    }
                    return Ok(self.end(if finished { State::Complete } else { State::Abandoned }, None));
                }
                self.refresh()?;
                return Ok(Turn::Idle);
            };
            let [caller, called] = self.muted;
            let muted = [caller && next.marks.muted[0], called && next.marks.muted[1]];
            self.fill(next.position, muted, &mut silence_left)?;
            if self.written < next.position {
                self.waiting = Some(next);
                break;
            }
            // Never twice the same time, whatever the positions say.
            let overlap = usize::try_from(self.written - next.position).unwrap_or(usize::MAX);
            let from = overlap.saturating_mul(usize::from(self.spec.channels));
            let begin = self.written;
            self.write(next.chunk.as_slice().get(from..).unwrap_or_default())?;
            self.note(next.marks, begin..self.written);
            self.muted = next.marks.muted;
        }
        self.refresh()?;
        Ok(Turn::Busy)
    }

    /// Samples lost after the last chunk that came through.
    fn lost_at_end(&self) -> u64 {
        self.queue.lost_samples.load(Ordering::Acquire).saturating_sub(self.gap_samples)
    }

    /// Writes silence up to `position`, or as much of it as this turn allows. `muted`: it is in a muted stretch.
    fn fill(&mut self, position: u64, muted: [bool; 2], silence_left: &mut u64) -> io::Result<()> {
        let missing = position.saturating_sub(self.written);
        if missing == 0 {
            return Ok(());
        }
        if position > self.samples_max() {
            return Err(too_long());
        }
        let count = missing.min(*silence_left);
        *silence_left -= count;
        self.note_gap(count);
        self.note(Marks { muted, ..Marks::default() }, self.written..self.written + count);
        let silence = [0; 1000];
        let mut left = count * u64::from(self.spec.channels);
        while left > 0 {
            let part = left.min(silence.len() as u64);
            self.write(&silence[..usize::try_from(part).unwrap_or(silence.len())])?;
            left -= part;
        }
        Ok(())
    }

    /// Notes that the next `count` samples are missing; what adjoins the last gap prolongs it.
    fn note_gap(&mut self, count: u64) {
        self.gaps.note(self.written..self.written + count);
        self.gap_samples += count;
        self.manifest_dirty = true;
    }

    /// Notes what is particular about a stretch that was written.
    fn note(&mut self, marks: Marks, stretch: Range<u64>) {
        let Marks { muted, gap, concealed } = marks;
        for (channel, notes) in self.notes.iter_mut().enumerate() {
            let kinds = [
                (muted[channel], &mut notes.muted),
                (gap[channel], &mut notes.gaps),
                (concealed[channel], &mut notes.concealed),
            ];
            for (_, stretches) in kinds.into_iter().filter(|(noted, _)| *noted && !stretch.is_empty()) {
                stretches.note(stretch.clone());
                self.manifest_dirty = true;
            }
        }
    }

    /// What was recorded so far, in samples at 8 kHz.
    fn narrow_samples(&self) -> u64 {
        Rates { from_hz: self.queue.rate.hz(), to_hz: SAMPLE_RATE_HZ }.length(self.written)
    }

    /// Longest recording there can be, in samples of each channel.
    fn samples_max(&self) -> u64 {
        SAMPLES_MAX / u64::from(self.spec.channels)
    }

    fn write(&mut self, samples: &[i16]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let channels = u64::from(self.spec.channels);
        let len = samples.len() as u64 / channels;
        if self.written + len > SAMPLES_MAX / channels {
            return Err(too_long());
        }
        self.encoder.push(samples, file.pending())?;
        file.write()?;
        self.written += len;
        self.dirty |= !samples.is_empty();
        Ok(())
    }

    /// Brings the file's header up to date once a second.
    fn refresh(&mut self) -> io::Result<()> {
        if !self.dirty || self.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.refresh()?;
        }
        if self.manifest_dirty {
            self.write_manifest(State::Recording, None, true)?;
        }
        self.dirty = false;
        self.manifest_dirty = false;
        self.refreshed = Instant::now();
        Ok(())
    }

    /// Completes the file, and tells who waits for it.
    fn end(&mut self, mut state: State, mut error: Option<(RecordingFailure, String)>) -> Turn {
        if self.done.is_none() || self.hashing.is_some() {
            return Turn::Done;
        }
        let completed = self.complete();
        if let Err(failure) = completed.and_then(|()| self.created.file.sync_all()) {
            state = State::Failed;
            error.get_or_insert_with(|| (failure_of(&failure), failure.to_string()));
        }
        if state == State::Abandoned {
            error.get_or_insert_with(|| (RecordingFailure::Abandoned, "nobody was left to record".to_owned()));
        }
        if state != State::Complete {
            // Whoever still records stops.
            self.queue.failed.store(true, Ordering::Release);
        }
        if self.spec.channels > 1 && self.written > 0 {
            self.hashing = Some(Hashing { hash: Sha256::new(), read: 0, state, error });
            return Turn::Busy;
        }
        self.conclude(state, error, None);
        Turn::Done
    }

    /// Gives it up after a panic: nothing of its own is trusted any more but the file, which the next sweep ends.
    pub(super) fn abort(&mut self) {
        self.queue.failed.store(true, Ordering::Release);
        self.hashing = None;
        self.file = None;
        let _ = rustix::fs::flock(&self.created.file, rustix::fs::FlockOperation::Unlock);
        if let Some(done) = self.done.take() {
            let (failure, error) = (Some(RecordingFailure::Io), Some("the recorder panicked".to_owned()));
            // Who does not wait for it does not want it.
            let _ = done.send(RecordingOutcome {
                samples: self.narrow_samples(),
                error,
                failure,
                ..RecordingOutcome::default()
            });
        }
    }

    /// Reads some of the finished file; at its end tells who waits for it.
    fn hash(&mut self) -> Turn {
        let Some(hashing) = &mut self.hashing else { return Turn::Done };
        let mut bytes = vec![0; HASHED_PER_TURN];
        let read = self.created.file.read_at(&mut bytes, hashing.read);
        if let Some(part) = read.as_ref().ok().and_then(|&read| bytes.get(..read)).filter(|part| !part.is_empty()) {
            hashing.hash.update(part);
            hashing.read += part.len() as u64;
            return Turn::Busy;
        }
        let Some(Hashing { hash, read: _, mut state, mut error }) = self.hashing.take() else { return Turn::Done };
        let sha256 = match read {
            Ok(_) => Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            Err(failure) => {
                state = State::Failed;
                error.get_or_insert_with(|| (failure_of(&failure), failure.to_string()));
                None
            }
        };
        self.conclude(state, error, sha256);
        Turn::Done
    }

    /// Writes the last manifest, and tells who waits for the file.
    fn conclude(&mut self, state: State, mut error: Option<(RecordingFailure, String)>, sha256: Option<String>) {
        let Some(done) = self.done.take() else { return };
        if state == State::Abandoned && self.written == 0 {
            // It never began: nothing to keep.
            self.created.directory.remove(&self.created.name);
            self.created.directory.remove(&self.manifest_name);
        } else {
            let text = error.as_ref().map(|(_, text)| text.as_str());
            let manifest = self.manifest(state, text, sha256.as_deref(), true);
            if let Err(failure) = manifest.and_then(|()| self.created.directory.sync()) {
                error.get_or_insert_with(|| (failure_of(&failure), format!("the manifest: {failure}")));
            }
        }
        // Before anybody is told, so that whoever is told finds it free. If it fails, closing the file does it.
        let _ = rustix::fs::flock(&self.created.file, rustix::fs::FlockOperation::Unlock);
        let (failure, error) = error.unzip();
        // Who does not wait for it does not want it.
        let (samples, gaps) = (self.narrow_samples(), self.gaps.in_ms(self.queue.rate));
        let _ = done.send(RecordingOutcome { samples, gaps, sha256, error, failure });
    }

    /// Writes what is held back. What can't be written does not count as recorded.
    fn complete(&mut self) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let encoded = self.encoder.finish(file.pending());
        let finished = file.finish();
        if encoded.is_err() || finished.is_err() {
            let rates = Rates { from_hz: self.spec.sample_rate_hz, to_hz: self.queue.rate.hz() };
            self.written = self.written.min(rates.length(file.samples()));
        }
        encoded.and(finished)
    }

    fn write_manifest(&self, state: State, error: Option<&str>, replace: bool) -> io::Result<()> {
        self.manifest(state, error, None, replace)
    }

    fn manifest(&self, state: State, error: Option<&str>, sha256: Option<&str>, replace: bool) -> io::Result<()> {
        let [caller, called] = &self.notes;
        let rate = self.queue.rate;
        let notes = |notes: &Notes| (self.spec.channels > 1).then(|| notes.manifest(rate));
        let now = Timestamp::now();
        let rates = Rates { from_hz: rate.hz(), to_hz: self.spec.sample_rate_hz };
        let manifest = Manifest {
            file: &self.created.name.to_string_lossy(),
            state,
            started_at: self.started_at.to_string(),
            ended_at: (state != State::Recording).then(|| now.to_string()),
            expires_at: expiry(now, self.spec.expires_days).map(|at| at.to_string()),
            container: self.spec.container,
            encoding: self.spec.encoding,
            sample_rate: self.spec.sample_rate_hz,
            bits: self.spec.bits,
            channels: self.spec.channels,
            samples: rates.length(self.written),
            gaps: &self.gaps.in_ms(rate),
            gaps_unlisted: self.gaps.unlisted,
            caller: notes(caller),
            called: notes(called),
            sha256,
            error,
        };
        let mut text = serde_json::to_vec_pretty(&manifest)?;
        text.push(b'\n');
        self.created.directory.write(&self.manifest_name, &text, replace)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The server ends: keep what has come so far.
        while self.done.is_some() && matches!(self.turn(), Turn::Busy) {}
        self.end(State::Abandoned, Some((RecordingFailure::Abandoned, "the server ended".to_owned())));
        while self.hashing.is_some() {
            self.hash();
        }
    }
}

fn failure_of(error: &io::Error) -> RecordingFailure {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        RecordingFailure::StorageFull
    } else if kind == io::ErrorKind::FileTooLarge {
        RecordingFailure::TooLong
    } else {
        RecordingFailure::Io
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::sync::Mutex;

    use ringbridge_media::samples::Chunk;

    use super::super::decode::{Aim, Decoder};
    use super::*;

    /// A disk that is full after some bytes; what it holds can still be rewritten.
    #[derive(Clone)]
    struct FullDisk {
        inner: Arc<Mutex<io::Cursor<Vec<u8>>>>,
        bytes_max: usize,
    }

    impl FullDisk {
        fn new(bytes_max: usize) -> Self {
            Self { inner: Arc::default(), bytes_max }
        }

        fn content(&self) -> Vec<u8> {
            self.inner.lock().unwrap().get_ref().clone()
        }
    }

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.inner.lock().unwrap();
            let room = self.bytes_max - usize::try_from(inner.position()).unwrap();
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inner.write(&bytes[..bytes.len().min(room)])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for FullDisk {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.inner.lock().unwrap().seek(position)
        }
    }

    fn on_disk(directory: &std::path::Path, disk: FullDisk, spec: RecordingSpec) -> io::Result<(Recorder, Recording)> {
        let root = Root::new(directory.to_owned());
        let created = root.create("full.wav".as_ref()).expect("a fresh directory");
        Recorder::with_storage(created, "full.wav".into(), Box::new(disk), spec)
    }

    #[test]
    fn what_can_not_begin_leaves_nothing_behind() {
        let two = RecordingSpec { channels: 2, ..RecordingSpec::wav("full.wav") };
        let adpcm = RecordingSpec { encoding: Encoding::Adpcm, bits: 4, ..two.clone() };
        for (bytes_max, spec) in [(0, two), (1000, adpcm)] {
            let directory = tempfile::tempdir().unwrap();
            assert!(on_disk(directory.path(), FullDisk::new(bytes_max), spec).is_err());
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_says_so() {
        // Full in the middle of a sample, in the middle of a byte's pair, and where the last byte is an odd one.
        for (encoding, bits, bytes_max) in
            [(Encoding::Pcm, 16, 1001), (Encoding::Ulaw, 8, 1001), (Encoding::Alaw, 8, 1000), (Encoding::Adpcm, 4, 999)]
        {
            let directory = tempfile::tempdir().unwrap();
            let disk = FullDisk::new(bytes_max);
            let spec = RecordingSpec { encoding, bits, ..RecordingSpec::wav("full.wav") };
            let (mut recorder, mut recording) = on_disk(directory.path(), disk.clone(), spec).unwrap();
            for position in 0..120 {
                let chunk =
                    RecordChunk { position: position * 160, chunk: Chunk::new(&[1; 160]), marks: Marks::default() };
                recording.queue.chunks.push(chunk).unwrap();
            }
            assert_eq!(recorder.turn(), Turn::Done);
            assert!(recording.queue.failed.load(Ordering::Acquire));
            let outcome = recording.done.try_recv().unwrap();
            assert_eq!(outcome.failure, Some(RecordingFailure::StorageFull));
            assert!(outcome.error.as_deref().is_some_and(|error| error.contains("storage")), "{outcome:?}");
            let content = disk.content();
            let mut decoder =
                Decoder::new(io::Cursor::new(&content), content.len() as u64, Aim::Exactly(Rate::Narrow)).unwrap();
            let mut samples = Vec::new();
            while decoder.step(&mut samples).unwrap() {}
            let per_byte = 8.0 / f64::from(bits);
            let expected = (bytes_max as f64 - 58.0) * per_byte;
            assert!((samples.len() as f64 - expected).abs() < 16.0, "{encoding:?}: {}", samples.len());
            assert!(outcome.samples.abs_diff(samples.len() as u64) < 16, "{encoding:?}: {outcome:?}");
            let manifest = std::fs::read_to_string(directory.path().join("full.wav.json")).unwrap();
            assert!(manifest.contains(r#""state": "failed""#), "{manifest}");
        }
    }

    #[test]
    fn a_file_that_can_not_even_be_begun_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        assert!(on_disk(directory.path(), FullDisk::new(10), RecordingSpec::wav("full.wav")).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_muted_stretch_goes_on_across_what_was_lost_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let spec = RecordingSpec { channels: 2, ..RecordingSpec::wav("lost.wav") };
        let (mut recorder, mut recording) = Recorder::create(&Root::new(directory.path().to_owned()), &spec).unwrap();
        // The caller is muted before and after 80 ms that are lost, the called only after 20 ms that are.
        for (position, muted) in [(0, [true, false]), (720, [true, false]), (960, [true, true])] {
            let marks = Marks { muted, ..Marks::default() };
            recording.queue.chunks.push(RecordChunk { position, chunk: Chunk::new(&[0; 160]), marks }).unwrap();
        }
        recording.queue.finish();
        while recorder.turn() != Turn::Done {}
        assert_eq!(recording.done.try_recv().unwrap().error, None);
        let manifest = std::fs::read_to_string(directory.path().join("lost.wav.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let stretch = |at: u64, ms: u64| serde_json::json!([{"at_ms": at, "ms": ms}]);
        assert_eq!(manifest["caller"]["muted"], stretch(0, 130));
        assert_eq!(manifest["called"]["muted"], stretch(120, 10));
        assert_eq!(manifest["gaps"], serde_json::json!([{"at_ms": 10, "ms": 80}, {"at_ms": 100, "ms": 20}]));
    }

    #[test]
    fn a_position_past_what_wav_can_hold_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (mut recorder, mut recording) =
            Recorder::create(&Root::new(directory.path().to_owned()), &RecordingSpec::wav("far.wav")).unwrap();
        let chunk = RecordChunk { position: u64::MAX, chunk: Chunk::new(&[1; 160]), marks: Marks::default() };
        recording.queue.chunks.push(chunk).unwrap();
        assert_eq!(recorder.turn(), Turn::Done);
        assert!(recording.done.try_recv().unwrap().error.is_some_and(|error| error.contains("4 GiB")));
    }

    #[test]
    fn overlapping_chunks_are_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let (mut recorder, mut recording) =
            Recorder::create(&Root::new(directory.path().to_owned()), &RecordingSpec::wav("overlap.wav")).unwrap();
        for (position, level) in [(0, 1), (80, 2), (0, 3), (240, 4)] {
            let chunk = RecordChunk { position, chunk: Chunk::new(&[level; 160]), marks: Marks::default() };
            recording.queue.chunks.push(chunk).unwrap();
        }
        recording.queue.finish();
        assert_eq!(recorder.turn(), Turn::Done);
        assert_eq!(
            recording.done.try_recv().unwrap(),
            RecordingOutcome { samples: 400, gaps: vec![], ..RecordingOutcome::default() }
        );
        let mut wav = hound::WavReader::open(recording.path).unwrap();
        let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
        let expected = [[1; 160].as_slice(), &[2; 80], &[4; 160]].concat();
        assert_eq!(samples, expected);
    }
}
