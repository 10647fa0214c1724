//! Removes recordings whose time is over, together with their manifests, and ends those that were cut off.
//!
//! What is removed is what a manifest names: a regular file beside it, of its own name without the `.json`, whose
//! `expires_at` is past and that nobody writes any more. Everything else is left alone, and no symbolic link is followed,
//! so nothing outside the recording root is reached. A sweep goes a few entries at a time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::manifest::{EXTENSION, Noted, manifest_name};
use super::mend::Mending;
use super::root::{DEPTH_MAX, Root};
use super::worker::Turn;

/// Names looked at in one turn.
const NAMES_PER_TURN: usize = 64;

/// What a sweep has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SweepOutcome {
    /// Recordings that were removed.
    pub removed: u64,
    /// Recordings that are over their time and could not be removed.
    pub failed: u64,
    /// Recordings that were cut off by the end of an earlier server, and are ended now.
    pub ended: u64,
}

/// A walk through the recordings.
pub(super) struct Sweep {
    now: Timestamp,
    /// The directories on the way to where it is.
    path: Vec<Dir>,
    /// A recording that was cut off, and is being ended.
    mending: Option<Mending>,
    outcome: SweepOutcome,
    reply: Option<oneshot::Sender<SweepOutcome>>,
}

impl Sweep {
    /// Removes what had to be gone by `now`.
    pub(super) fn new(root: &Root, now: Timestamp, reply: Option<oneshot::Sender<SweepOutcome>>) -> Self {
        // No directory, no recordings yet.
        let path = root.list().into_iter().collect();
        Self { now, path, mending: None, outcome: SweepOutcome::default(), reply }
    }

    /// Looks at some names.
    pub(super) fn turn(&mut self) -> Turn {
        if let Some(mending) = &mut self.mending {
            match mending.turn() {
                Ok(Turn::Busy | Turn::Idle) => return Turn::Busy,
                Ok(Turn::Done) => self.outcome.ended += 1,
                // The next sweep tries again.
                Err(error) => tracing::warn!(%error, "a recording that was cut off can't be ended now"),
            }
            self.mending = None;
        }
        for _ in 0..NAMES_PER_TURN {
            if self.mending.is_some() {
                return Turn::Busy;
            }
            let Some(directory) = self.path.last_mut() else {
                self.end();
                return Turn::Done;
            };
            match directory.read() {
                Some(Ok(entry)) => {
                    let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
                    self.look_at(&name, entry.file_type());
                }
                // What can't be read now is read at the next sweep.
                Some(Err(_)) | None => drop(self.path.pop()),
            }
        }
        Turn::Idle
    }

    fn look_at(&mut self, name: &OsStr, kind: FileType) {
        let Some(directory) = self.path.last() else { return };
        if name == "." || name == ".." {
            return;
        }
        // Some file systems don't tell what an entry is: then it shows when it is opened.
        if matches!(kind, FileType::Directory | FileType::Unknown)
            && let Ok(inner) = open(directory, name, OFlags::DIRECTORY)
        {
            if self.path.len() <= DEPTH_MAX
                && let Ok(inner) = Dir::new(inner)
            {
                self.path.push(inner);
            }
            return;
        }
        if !matches!(kind, FileType::RegularFile | FileType::Unknown) {
            return;
        }
        match look(directory, name, self.now) {
            Ok(Found::Nothing) => {}
            Ok(Found::CutOff(mending)) => self.mending = Some(*mending),
            Ok(Found::Expired(recording)) => match remove(directory, &recording, name) {
                Ok(true) => self.outcome.removed += 1,
                Ok(false) => {}
                Err(_) => self.outcome.failed += 1,
            },
            // Not to be read: then not to be judged.
            Err(_) => {}
        }
    }

    fn end(&mut self) {
        let SweepOutcome { removed, failed, ended } = self.outcome;
        if removed + failed > 0 {
            tracing::info!(removed, failed, "recordings over their time");
        }
        if ended > 0 {
            tracing::warn!(ended, "recordings that an earlier server was cut off in");
        }
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(self.outcome);
        }
    }
}

/// What is to be done about a name.
enum Found {
    Nothing,
    /// This recording's time is over.
    Expired(OsString),
    CutOff(Box<Mending>),
}

/// Looks at what the manifest `name` is about, if that is what it is.
fn look(directory: &Dir, name: &OsStr, now: Timestamp) -> io::Result<Found> {
    if !name.as_bytes().ends_with(EXTENSION.as_bytes()) {
        return Ok(Found::Nothing);
    }
    let file = File::from(open(directory, name, OFlags::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(Found::Nothing);
    }
    let Some(noted) = Noted::read(file)? else { return Ok(Found::Nothing) };
    let under_way = noted.is_under_way();
    let over = noted.expires_at().is_some_and(|at| at <= now);
    let recording = OsString::from(noted.file);
    let named = !recording.is_empty() && manifest_name(&recording) == name;
    if named && over {
        return Ok(Found::Expired(recording));
    }
    if named && under_way {
        let file = File::from(open(directory, &recording, OFlags::RDWR)?);
        if file.metadata()?.is_file() {
            let inside = directory.fd()?.try_clone_to_owned()?;
            let mending = Mending::begin(inside, recording, name, file)?;
            return Ok(mending.map_or(Found::Nothing, |mending| Found::CutOff(Box::new(mending))));
        }
    }
    Ok(Found::Nothing)
}

/// Removes a recording and its manifest. `false`: somebody writes it, or it is no file.
fn remove(directory: &Dir, recording: &OsStr, manifest: &OsStr) -> io::Result<bool> {
    let descriptor = directory.fd()?;
    match open(directory, recording, OFlags::empty()) {
        Ok(file) => {
            let file = File::from(file);
            if !file.metadata()?.is_file() {
                return Ok(false);
            }
            match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => rustix::fs::unlinkat(descriptor, recording, AtFlags::empty())?,
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
        // A sweep that was cut off had come this far, or somebody else has removed it.
        Err(Errno::NOENT) => {}
        // A symbolic link.
        Err(Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    }
    rustix::fs::unlinkat(descriptor, manifest, AtFlags::empty())?;
    Ok(true)
}

/// Opens what `name` is itself, never what it may point to; does not wait for anything.
fn open(directory: &Dir, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::openat(directory.fd()?, name, flags, Mode::empty())
}
