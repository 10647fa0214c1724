//! One server for one state directory: two would take each other's recordings for left over, and count logins twice.

use std::fs::{File, OpenOptions, TryLockError, create_dir_all};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::ServeError;

/// Held as long as a server works on a state directory. It is free again when the process ends, in whatever way.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the directory if it is not there, and takes it.
    pub(super) fn take(state_dir: &Path) -> Result<Self, ServeError> {
        let directory = |source| ServeError::Directory { path: state_dir.to_owned(), source };
        create_dir_all(state_dir).map_err(directory)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(state_dir.join(NAME));
        let file = file.map_err(directory)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ServeError::StateInUse(state_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(directory(source)),
        }
    }
}

/// The file in the state directory. It stays there, empty; what counts is the lock on it.
const NAME: &str = "server.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made/state");
        let lock = StateLock::take(&state).unwrap();
        let refused = StateLock::take(&state).unwrap_err();
        assert!(matches!(&refused, ServeError::StateInUse(path) if *path == state), "{refused}");
        StateLock::take(dir.path()).unwrap();
        drop(lock);
        StateLock::take(&state).unwrap();
    }

    #[test]
    fn a_directory_that_cant_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = StateLock::take(&file.join("state")).unwrap_err();
        assert!(refused.to_string().contains("file/state"), "{refused}");
    }
}
