//! What can go wrong with a file, in words an operator can act on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::FormatError;
use super::tts::TtsError;

/// Why a prompt can't be played or a recording can't be written. Every variant names the path as it was given.
///
/// Cheap to clone, since everybody who waits for one prompt gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{}: no such file below {}; give its path relative to that directory", path.display(), root.display())]
    NotFound {
        /// As given.
        path: PathBuf,
        /// The directory it was looked for in.
        root: PathBuf,
    },
    /// It is no file we can use: not a regular file, not WAV, broken, or in a format that is not understood.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// As given.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// The path, or a symbolic link in it, leads out of the configured directory.
    #[error(
        "{}: leads outside {}; no \"..\" is allowed, no absolute path elsewhere, and no symbolic link out of it \
         (links inside it have to be relative)",
        path.display(),
        root.display()
    )]
    OutsideRoot {
        /// As given.
        path: PathBuf,
        /// The directory it has to stay in.
        root: PathBuf,
    },
    /// A recording was asked for in a format there is not.
    #[error("{}: {source}", path.display())]
    Format {
        /// As given.
        path: PathBuf,
        /// What does not fit.
        source: FormatError,
    },
    /// A name that is no file is a text, and that can't be spoken.
    #[error("{}: no such file, and as a text: {source}", path.display())]
    Speech {
        /// How the text begins.
        path: PathBuf,
        /// Why not.
        source: TtsError,
    },
    /// The operating system refused, or something is full.
    #[error("{}: can't {action}: {source}", path.display())]
    Io {
        /// As given.
        path: PathBuf,
        /// What was tried, as in "can't …".
        action: &'static str,
        /// Why not.
        source: Arc<io::Error>,
    },
}

impl FileError {
    pub(super) fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn io(path: &Path, action: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), action, source: Arc::new(source.into()) }
    }
}
