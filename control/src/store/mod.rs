//! What has to outlive a restart: users, agents, API keys, voicemail messages, recordings. One SQLite file.
//!
//! ```text
//!  adapters ── Store::run(work) ──▶ bounded queue ──▶ one thread, one connection ──▶ ringbridge.db (WAL)
//!                    ▲                                        │                            ▲
//!                    └──────────── answer (oneshot) ◀─────────┘             ringbridge user / key beside it
//! ```
//!
//! No shard ever waits for it, and the control thread does so only in `await`. The queue has a maximum; when it is
//! full the answer is [`StoreError::Busy`] at once. Work that was taken in is carried out even if whoever asked has
//! gone. Every table has a file of its own with functions that take the connection; what several of them do in one
//! transaction is for the caller to say. The schema is described in docs/database.md.

pub mod agents;
pub mod keys;
pub mod recordings;
pub mod seed;
pub mod users;
pub mod voicemail;

mod error;
mod schema;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

pub use error::StoreError;

/// A handle to the database; cheap to clone. Its thread ends when the last one is gone.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

enum Job {
    Work(Work),
    Close(oneshot::Sender<()>),
}

impl Store {
    /// Opens the database at `path`, makes it if there is none, and brings its schema up to date. Waits for the disk,
    /// so it belongs before the server is ready.
    ///
    /// # Errors
    /// It can't be opened or made, is not ours, or was written by a later version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::with_connection(connect(path)?, path, QUEUE_MAX)
    }

    fn with_connection(connection: Connection, path: &Path, queue_max: usize) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel(queue_max);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || work(connection, queue))
            .map_err(|source| StoreError::Open { path: path.to_owned(), reason: source.to_string() })?;
        Ok(Self { jobs })
    }

    /// Does `work` on the store's thread. It has the connection to itself; what it does outside a transaction is
    /// written statement by statement.
    ///
    /// # Errors
    /// What `work` returns, or [`Busy`](StoreError::Busy), [`Closed`](StoreError::Closed),
    /// [`Panicked`](StoreError::Panicked).
    pub async fn run<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let job: Work = Box::new(move |connection| {
            // A panic in one job is that job's: its transaction rolls back as it unwinds.
            let done = catch_unwind(AssertUnwindSafe(|| work(connection)));
            // Whoever asked may have gone.
            drop(sender.send(done.unwrap_or(Err(StoreError::Panicked))));
        });
        self.jobs.try_send(Job::Work(job)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy { waiting: QUEUE_MAX },
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Finishes what waits, writes the log back into the database and closes it. Handles that are left get
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(sender)).await.is_ok() {
            // An error says that the thread has ended: that is what is waited for.
            let _ = closed.await;
        }
    }
}

/// Opens the database at `path` in this thread: made if there is none, its schema brought up to date. For the
/// command line; the server has a [`Store`].
///
/// # Errors
/// As [`Store::open`].
pub fn connect(path: &Path) -> Result<Connection, StoreError> {
    let refused = |reason: String| StoreError::Open { path: path.to_owned(), reason };
    // It holds password hashes. SQLite gives its log the mode of the database.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refused(error.to_string())),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| refused(error.to_string()))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| refused(error.to_string()))?;
    schema::prepare(&mut connection, path)?;
    Ok(connection)
}

/// Where the database of a state directory is.
pub fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

fn work(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    let mut closers = Vec::new();
    while let Some(job) = queue.blocking_recv() {
        match job {
            Job::Work(work) => work(&mut connection),
            Job::Close(closer) => {
                // Takes in nothing more; what waits already is still to come.
                queue.close();
                closers.push(closer);
            }
        }
    }
    if let Err((_, error)) = connection.close() {
        tracing::error!(%error, "the database was not closed in order; it mends itself when it is opened again");
    }
    for closer in closers {
        // Whoever waited may have gone.
        let _ = closer.send(());
    }
}

/// All or nothing, and nobody else writes in between.
fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // A transaction that reads first and writes later could find that somebody else wrote in between.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// The first row, if there is one.
fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    Ok(rows.next()?.map(read).transpose()?)
}

/// Every row.
fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A point in time as it is stored: milliseconds since 1970, UTC.
fn timestamp(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let stored: i64 = row.get(column)?;
    Timestamp::from_millisecond(stored).map_err(|error| unreadable(Type::Integer, error))
}

fn optional_timestamp(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let stored: Option<i64> = row.get(column)?;
    stored
        .map(|stored| Timestamp::from_millisecond(stored).map_err(|error| unreadable(Type::Integer, error)))
        .transpose()
}

/// A list of words, stored as a JSON array.
fn list<T: std::str::FromStr<Err = String>>(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<T>> {
    let stored: String = row.get(column)?;
    let words: Vec<String> = serde_json::from_str(&stored).map_err(|error| unreadable(Type::Text, error))?;
    words.iter().map(|word| word.parse().map_err(|error: String| unreadable(Type::Text, error))).collect()
}

/// A word with a type of its own.
fn word<T: std::str::FromStr<Err = String>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let stored: String = row.get(column)?;
    stored.parse().map_err(|error: String| unreadable(Type::Text, error))
}

fn unreadable(kind: Type, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, error.into())
}

fn json_list<T: std::fmt::Display>(words: &[T]) -> String {
    serde_json::Value::from(words.iter().map(T::to_string).collect::<Vec<_>>()).to_string()
}

/// Checks a name that people and logs have to be able to tell apart.
fn check_name(what: &'static str, name: &str) -> Result<(), StoreError> {
    let fits = !name.is_empty()
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.chars().any(char::is_control)
        && name.trim() == name;
    if fits {
        return Ok(());
    }
    let rule = format!("a {what} has 1 to {NAME_CHARS_MAX} characters, no control characters, no space at either end");
    Err(StoreError::Refused { rule })
}

/// Name of the database in the state directory.
const FILE_NAME: &str = "ringbridge.db";
/// Jobs that may wait.
const QUEUE_MAX: usize = 1024;
/// How long a write waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest name.
const NAME_CHARS_MAX: usize = 128;
