//! Removes recordings whose time is over, together with their manifests.
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
}

/// A walk through the recordings.
pub(super) struct Sweep {
    now: Timestamp,
    /// The directories on the way to where it is.
    path: Vec<Dir>,
    outcome: SweepOutcome,
    reply: Option<oneshot::Sender<SweepOutcome>>,
}

impl Sweep {
    /// Removes what had to be gone by `now`.
    pub(super) fn new(root: &Root, now: Timestamp, reply: Option<oneshot::Sender<SweepOutcome>>) -> Self {
        // No directory, no recordings yet.
        let path = root.list().into_iter().collect();
        Self { now, path, outcome: SweepOutcome::default(), reply }
    }

    /// Looks at some names.
    pub(super) fn turn(&mut self) -> Turn {
        for _ in 0..NAMES_PER_TURN {
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
        match expired(directory, name, self.now) {
            Ok(None) => {}
            Ok(Some(recording)) => match remove(directory, &recording, name) {
                Ok(true) => self.outcome.removed += 1,
                Ok(false) => {}
                Err(_) => self.outcome.failed += 1,
            },
            // Not to be read: then not to be judged.
            Err(_) => {}
        }
    }

    fn end(&mut self) {
        let SweepOutcome { removed, failed } = self.outcome;
        if removed + failed > 0 {
            tracing::info!(removed, failed, "recordings over their time");
        }
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(self.outcome);
        }
    }
}

/// The recording the manifest `name` is about, if that is what it is and the time is over.
fn expired(directory: &Dir, name: &OsStr, now: Timestamp) -> io::Result<Option<OsString>> {
    if !name.as_bytes().ends_with(EXTENSION.as_bytes()) {
        return Ok(None);
    }
    let file = File::from(open(directory, name, OFlags::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let Some(noted) = Noted::read(file)? else { return Ok(None) };
    let over = noted.expires_at().is_some_and(|at| at <= now);
    let recording = OsString::from(noted.file);
    let named = !recording.is_empty() && manifest_name(&recording) == name;
    Ok((over && named).then_some(recording))
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
