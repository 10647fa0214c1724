//! What can go wrong with the database, in words an operator can act on.

use std::path::PathBuf;

use rusqlite::{ErrorCode, ffi};

/// Why something was not stored or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue is full.
    #[error("the database is busy: {waiting} requests wait for it; try again in a while")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The server is ending.
    #[error("the database is closed, the server is ending")]
    Closed,
    /// The work panicked; nothing of its transaction was written.
    #[error("an internal fault in a database request; the log has the details")]
    Panicked,
    /// There is none.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name or id.
        id: String,
    },
    /// There is one already.
    #[error("{what} {id} exists already")]
    Exists {
        /// What.
        what: &'static str,
        /// Its name or id.
        id: String,
    },
    /// It breaks a rule.
    #[error("{rule}")]
    Refused {
        /// Which.
        rule: String,
    },
    /// The file can't be opened or made.
    #[error(
        "can't open the database {}: {reason}; the state directory and the file have to be writable for this user",
        path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is a database, but of something else.
    #[error("{} is no ringbridge database: move it away, or give another `state_dir`", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error(
        "{} has schema version {found}, this ringbridge knows versions up to {known}: run the newer ringbridge that \
         wrote it, or restore a backup made before the upgrade",
        path.display()
    )]
    Future {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest this program knows.
        known: i64,
    },
    /// No space.
    #[error("the disk that holds the database is full: make room, then try again")]
    DiskFull,
    /// It can't be written.
    #[error("the database can't be written: its file, directory or file system is read-only for this user")]
    ReadOnly,
    /// Another process writes for too long.
    #[error("another process keeps the database locked; try again when it has ended")]
    Locked,
    /// The file is broken, or holds what no version writes.
    #[error("the database is damaged ({0}): stop the server and restore a backup")]
    Damaged(String),
    /// Anything else the database says.
    #[error("the database failed: {0}")]
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::FromSqlConversionFailure(_, _, reason) = &error {
            return Self::Damaged(reason.to_string());
        }
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::ConstraintViolation) => Self::Refused { rule: text },
            _ => Self::Failed(error),
        }
    }
}

/// Whether a row of that key, or another with a value that has to be unique, was there.
pub(super) fn is_conflict(error: &rusqlite::Error) -> bool {
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_CONSTRAINT_ROWID];
    error.sqlite_error().is_some_and(|error| unique.contains(&error.extended_code))
}

/// Whether a row is named that is not there, or would be missed.
pub(super) fn is_dangling(error: &rusqlite::Error) -> bool {
    let dangling = [ffi::SQLITE_CONSTRAINT_FOREIGNKEY, ffi::SQLITE_CONSTRAINT_TRIGGER];
    error.sqlite_error().is_some_and(|error| dangling.contains(&error.extended_code))
}
