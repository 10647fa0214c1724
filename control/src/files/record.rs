//! Writes a recording: a WAV file that is valid up to its last second at any moment, and a manifest beside it.

use std::ffi::OsString;
use std::io::{self, BufWriter, Seek, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use hound::{SampleFormat, WavSpec, WavWriter};
use jiff::Timestamp;
use ringbridge_media::limits::SAMPLE_RATE_HZ;
use ringbridge_media::samples::{RecordChunk, RecordQueue};
use serde::Serialize;
use tokio::sync::oneshot;

use super::error::FileError;
use super::root::{CreatedFile, Root};
use super::worker::Turn;
use super::{Gap, Recording, RecordingOutcome};

/// Chunks that wait for the disk: five seconds.
const QUEUE_CHUNKS: usize = 250;
/// How often the header and what is buffered are written.
const REFRESH: Duration = Duration::from_secs(1);
/// Chunks written in one turn, so that other recordings get theirs.
const CHUNKS_PER_TURN: usize = QUEUE_CHUNKS;
/// Samples of silence written in one turn.
const SILENCE_PER_TURN: u64 = 80_000;
/// Samples that fit the 32-bit sizes of WAV: about 74 hours.
const SAMPLES_MAX: u64 = (u32::MAX as u64 - 1024) / 2;
/// Gaps that are listed one by one.
const GAPS_MAX: usize = 1000;

const SPEC: WavSpec =
    WavSpec { channels: 1, sample_rate: SAMPLE_RATE_HZ, bits_per_sample: 16, sample_format: SampleFormat::Int };

/// A place for bytes that can be rewritten: a file, or something worse in tests.
pub(super) trait Storage: Write + Seek + Send {}
impl<T: Write + Seek + Send> Storage for T {}

/// What stands in `<file>.json` beside a recording.
#[derive(Debug, Serialize)]
struct Manifest<'a> {
    file: &'a str,
    state: State,
    /// RFC 3339, UTC.
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    sample_rate: u32,
    channels: u16,
    samples: u64,
    gaps: &'a [Gap],
    /// Gaps beyond those listed.
    gaps_unlisted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// How far a recording has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Under way. If no server runs any more, it was cut off by a crash.
    Recording,
    /// Ended as it should.
    Complete,
    /// Ended because nobody was left to record, or the server ended.
    Abandoned,
    /// The file could not be written any more.
    Failed,
}

/// One recording and the queue it comes from.
pub(super) struct Recorder {
    wav: Option<WavWriter<Box<dyn Storage>>>,
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
    /// The first [`GAPS_MAX`] gaps, in samples.
    gaps: Vec<Range<u64>>,
    gaps_unlisted: u64,
    /// Where the last gap ended, listed or not.
    gap_end: Option<u64>,
    gap_samples: u64,
}

impl Recorder {
    /// Creates the file and its manifest.
    pub(super) fn create(root: &Root, given: &str) -> Result<(Self, Recording), FileError> {
        let relative = root.relative(given)?;
        let created = root.create(&relative)?;
        let storage = created.file.try_clone().map_err(|error| FileError::io(&relative, "open it", error))?;
        let recorder = Self::with_storage(created, Box::new(BufWriter::new(storage)));
        recorder.map_err(|error| FileError::io(&relative, "write it", error))
    }

    fn with_storage(created: CreatedFile, storage: Box<dyn Storage>) -> io::Result<(Self, Recording)> {
        let mut manifest_name = created.name.clone();
        manifest_name.push(".json");
        let queue = Arc::new(RecordQueue::new(QUEUE_CHUNKS));
        let (done, outcome) = oneshot::channel();
        let recording = Recording { queue: queue.clone(), path: created.path.clone(), done: outcome };
        let mut recorder = Self {
            wav: None,
            created,
            manifest_name,
            queue,
            done: Some(done),
            started_at: Timestamp::now(),
            refreshed: Instant::now(),
            dirty: false,
            manifest_dirty: false,
            written: 0,
            waiting: None,
            gaps: Vec::new(),
            gaps_unlisted: 0,
            gap_end: None,
            gap_samples: 0,
        };
        match recorder.begin(storage) {
            Ok(()) => Ok((recorder, recording)),
            Err(error) => {
                recorder.created.directory.remove(&recorder.created.name);
                recorder.done = None;
                Err(error)
            }
        }
    }

    fn begin(&mut self, storage: Box<dyn Storage>) -> io::Result<()> {
        self.wav.insert(WavWriter::new(storage, SPEC).map_err(into_io)?).flush().map_err(into_io)?;
        self.write_manifest(State::Recording, None, false)
    }

    /// Writes what is queued.
    pub(super) fn turn(&mut self) -> Turn {
        match self.drain() {
            Ok(turn) => turn,
            Err(error) => {
                self.end(State::Failed, Some(error.to_string()));
                Turn::Done
            }
        }
    }

    fn drain(&mut self) -> io::Result<Turn> {
        // Read before the queue: what was queued before the end was told is then seen.
        let finished = self.queue.finished.load(Ordering::Acquire);
        let deserted = Arc::strong_count(&self.queue) == 1;
        fence(Ordering::Acquire);
        let mut silence_left = SILENCE_PER_TURN;
        for _ in 0..CHUNKS_PER_TURN {
            let Some(next) = self.waiting.take().or_else(|| self.queue.chunks.pop()) else {
                if finished || deserted {
                    self.fill(self.written + self.lost_at_end(), &mut silence_left)?;
                    if self.lost_at_end() > 0 {
                        return Ok(Turn::Busy);
                    }
                    self.end(if finished { State::Complete } else { State::Abandoned }, None);
                    return Ok(Turn::Done);
                }
                self.refresh()?;
                return Ok(Turn::Idle);
            };
            self.fill(next.position, &mut silence_left)?;
            if self.written < next.position {
                self.waiting = Some(next);
                break;
            }
            // Never twice the same time, whatever the positions say.
            let overlap = usize::try_from(self.written - next.position).unwrap_or(usize::MAX);
            self.write(next.chunk.as_slice().get(overlap..).unwrap_or_default())?;
        }
        self.refresh()?;
        Ok(Turn::Busy)
    }

    /// Samples lost after the last chunk that came through.
    fn lost_at_end(&self) -> u64 {
        self.queue.lost_samples.load(Ordering::Acquire).saturating_sub(self.gap_samples)
    }

    /// Writes silence up to `position`, or as much of it as this turn allows.
    fn fill(&mut self, position: u64, silence_left: &mut u64) -> io::Result<()> {
        let missing = position.saturating_sub(self.written);
        if missing == 0 {
            return Ok(());
        }
        if position > SAMPLES_MAX {
            return Err(too_long());
        }
        let count = missing.min(*silence_left);
        *silence_left -= count;
        self.note_gap(count);
        let silence = [0; 1000];
        let mut left = count;
        while left > 0 {
            let part = left.min(silence.len() as u64);
            self.write(&silence[..usize::try_from(part).unwrap_or(silence.len())])?;
            left -= part;
        }
        Ok(())
    }

    /// Notes that the next `count` samples are missing; what adjoins the last gap prolongs it.
    fn note_gap(&mut self, count: u64) {
        let (from, to) = (self.written, self.written + count);
        let adjoins = self.gap_end == Some(from);
        self.gap_end = Some(to);
        self.gap_samples += count;
        self.manifest_dirty = true;
        if !adjoins && self.gaps.len() < GAPS_MAX {
            self.gaps.push(from..to);
        } else if !adjoins {
            self.gaps_unlisted += 1;
        } else if let Some(last) = self.gaps.last_mut().filter(|last| last.end == from) {
            last.end = to;
        }
    }

    fn write(&mut self, samples: &[i16]) -> io::Result<()> {
        let Some(wav) = &mut self.wav else { return Ok(()) };
        if self.written + samples.len() as u64 > SAMPLES_MAX {
            return Err(too_long());
        }
        // A chunk or a block of silence: its length always fits.
        let mut writer = wav.get_i16_writer(u32::try_from(samples.len()).map_err(io::Error::other)?);
        for sample in samples {
            writer.write_sample(*sample);
        }
        writer.flush().map_err(into_io)?;
        self.written += samples.len() as u64;
        self.dirty |= !samples.is_empty();
        Ok(())
    }

    /// Brings the file's header up to date once a second.
    fn refresh(&mut self) -> io::Result<()> {
        if !self.dirty || self.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
        if let Some(wav) = &mut self.wav {
            wav.flush().map_err(into_io)?;
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
    fn end(&mut self, state: State, error: Option<String>) {
        let Some(done) = self.done.take() else { return };
        let (mut state, mut error) = (state, error);
        let completed = self.wav.take().map_or(Ok(()), |wav| wav.finalize().map_err(into_io));
        if let Err(failure) = completed.and_then(|()| self.created.file.sync_all()) {
            state = State::Failed;
            error.get_or_insert_with(|| failure.to_string());
        }
        if state == State::Abandoned {
            error.get_or_insert_with(|| "nobody was left to record".to_owned());
        }
        if state != State::Complete {
            // Whoever still records stops.
            self.queue.failed.store(true, Ordering::Release);
        }
        if state == State::Abandoned && self.written == 0 {
            // It never began: nothing to keep.
            self.created.directory.remove(&self.created.name);
            self.created.directory.remove(&self.manifest_name);
        } else {
            let manifest = self.write_manifest(state, error.as_deref(), true);
            if let Err(failure) = manifest.and_then(|()| self.created.directory.sync()) {
                error.get_or_insert_with(|| format!("the manifest: {failure}"));
            }
        }
        // Who does not wait for it does not want it.
        let _ = done.send(RecordingOutcome { samples: self.written, gaps: self.gaps_ms(), error });
    }

    fn gaps_ms(&self) -> Vec<Gap> {
        let ms = |samples: u64| samples * 1000 / u64::from(SAMPLE_RATE_HZ);
        self.gaps.iter().map(|gap| Gap { at_ms: ms(gap.start), ms: ms(gap.end - gap.start) }).collect()
    }

    fn write_manifest(&self, state: State, error: Option<&str>, replace: bool) -> io::Result<()> {
        let manifest = Manifest {
            file: &self.created.name.to_string_lossy(),
            state,
            started_at: self.started_at.to_string(),
            ended_at: (state != State::Recording).then(|| Timestamp::now().to_string()),
            sample_rate: SPEC.sample_rate,
            channels: SPEC.channels,
            samples: self.written,
            gaps: &self.gaps_ms(),
            gaps_unlisted: self.gaps_unlisted,
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
        self.end(State::Abandoned, Some("the server ended".to_owned()));
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file holds 74 hours at most; start another recording")
}

fn into_io(error: hound::Error) -> io::Error {
    if let hound::Error::IoError(error) = error { error } else { io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use std::io::SeekFrom;

    use ringbridge_media::samples::Chunk;

    use super::*;

    /// A disk that is full after some bytes.
    struct FullDisk {
        inner: io::Cursor<Vec<u8>>,
        bytes_left: usize,
    }

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.bytes_left {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes_left -= bytes.len();
            self.inner.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for FullDisk {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.inner.seek(position)
        }
    }

    fn on_full_disk(directory: &std::path::Path, bytes_left: usize) -> io::Result<(Recorder, Recording)> {
        let root = Root::new(directory.to_owned());
        let created = root.create("full.wav".as_ref()).expect("a fresh directory");
        Recorder::with_storage(created, Box::new(FullDisk { inner: io::Cursor::new(Vec::new()), bytes_left }))
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (mut recorder, mut recording) = on_full_disk(directory.path(), 1000).unwrap();
        for position in 0..10 {
            let chunk = RecordChunk { position: position * 160, chunk: Chunk::new(&[1; 160]) };
            recording.queue.chunks.push(chunk).unwrap();
        }
        assert_eq!(recorder.turn(), Turn::Done);
        assert!(recording.queue.failed.load(Ordering::Acquire));
        let outcome = recording.done.try_recv().unwrap();
        assert!(outcome.error.as_deref().is_some_and(|error| error.contains("storage")), "{outcome:?}");
        assert!(outcome.samples < 500);
        let manifest = std::fs::read_to_string(directory.path().join("full.wav.json")).unwrap();
        assert!(manifest.contains(r#""state": "failed""#), "{manifest}");
    }

    #[test]
    fn a_file_that_can_not_even_be_begun_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        assert!(on_full_disk(directory.path(), 10).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_position_past_what_wav_can_hold_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (mut recorder, mut recording) =
            Recorder::create(&Root::new(directory.path().to_owned()), "far.wav").unwrap();
        let chunk = RecordChunk { position: u64::MAX, chunk: Chunk::new(&[1; 160]) };
        recording.queue.chunks.push(chunk).unwrap();
        assert_eq!(recorder.turn(), Turn::Done);
        assert!(recording.done.try_recv().unwrap().error.is_some_and(|error| error.contains("74 hours")));
    }

    #[test]
    fn overlapping_chunks_are_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let (mut recorder, mut recording) =
            Recorder::create(&Root::new(directory.path().to_owned()), "overlap.wav").unwrap();
        for (position, level) in [(0, 1), (80, 2), (0, 3), (240, 4)] {
            let chunk = RecordChunk { position, chunk: Chunk::new(&[level; 160]) };
            recording.queue.chunks.push(chunk).unwrap();
        }
        recording.queue.finish();
        assert_eq!(recorder.turn(), Turn::Done);
        assert_eq!(recording.done.try_recv().unwrap(), RecordingOutcome { samples: 400, gaps: vec![], error: None });
        let mut wav = hound::WavReader::open(recording.path).unwrap();
        let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
        let expected = [[1; 160].as_slice(), &[2; 80], &[4; 160]].concat();
        assert_eq!(samples, expected);
    }
}
