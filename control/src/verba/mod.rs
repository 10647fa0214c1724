//! The Verba recording API: find a call that is being recorded, mute and unmute either party, keep, look up, fetch
//! and delete the recording.
//!
//! ```text
//!  relay.start ── call.started ──▶ rule ──▶ operation.start (channels)
//!                                                │
//!                        recording.started ──────┴──▶ store: ongoing ──▶ who waits for the next call
//!                          operation.ended ─────────▶ store: finished or discarded ──▶ files deleted
//!
//!  GET|POST /verba/api?action=… ── key ── token ── action ──▶ store, recording.mute ──▶ XML, HTML or text
//! ```
//!
//! An adapter like any other: all it does it does through the native interface and the database.

mod actions;
mod answer;
mod calls;
#[cfg(test)]
mod fixture;
mod http;
mod openapi;
mod query;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, broadcast};
use tokio::task::spawn_local;

use crate::auth::{Logins, Tokens};
use crate::server::Server;
use crate::web::{Limits, Listener, Serving};

/// State of the adapter.
pub(crate) struct Verba {
    server: Rc<Server>,
    logins: Rc<Logins>,
    tokens: RefCell<Tokens<Session>>,
    /// Recordings that are being made, by id.
    live: RefCell<HashMap<String, Rc<Live>>>,
    /// Their ids, by operation.
    by_operation: RefCell<HashMap<String, String>>,
    /// Recordings a rule is about to start, by their files.
    starting: RefCell<HashMap<String, Starting>>,
    /// Told of every recording that has begun.
    began: broadcast::Sender<Arc<Began>>,
    /// Who has one may send a file: each keeps a thread waiting for the disk and the client.
    downloads: Arc<Semaphore>,
    /// Requests that wait for the next call.
    waits: Cell<usize>,
    /// How long they do.
    patience: Duration,
}

/// What belongs to a token.
struct Session {
    /// Name of the key it was issued under.
    key: String,
    /// Name of the user it was issued to.
    user: String,
}

/// A recording that is being made.
struct Live {
    operation: String,
    /// Who changes it has this: one after the other.
    turn: Mutex<()>,
    /// What becomes of it is written one after the other.
    storing: Mutex<()>,
}

/// A recording that is about to be started.
struct Starting {
    id: String,
    on_demand: bool,
}

/// A recording that has begun.
struct Began {
    id: String,
    caller: String,
    called: String,
}

impl Verba {
    /// Wants a `LocalSet`.
    fn new(server: Rc<Server>, logins: Rc<Logins>, patience: Duration) -> Rc<Self> {
        let verba = Rc::new(Self {
            server,
            logins,
            tokens: RefCell::new(Tokens::new(TOKEN_LIFETIME, TOKENS_MAX)),
            live: RefCell::default(),
            by_operation: RefCell::default(),
            starting: RefCell::default(),
            began: broadcast::Sender::new(BEGAN_MAX),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            waits: Cell::new(0),
            patience,
        });
        verba.listen();
        verba
    }
}

/// Serves the API on `listener` until the first that is returned is dropped. Calls are followed as long as the second is
/// there.
pub(crate) fn serve(server: &Rc<Server>, logins: Rc<Logins>, listener: Listener) -> (Serving, Rc<Verba>) {
    let verba = Verba::new(Rc::clone(server), logins, NEXT_CALL);
    let purging = Rc::clone(&verba);
    spawn_local(async move { purging.purge_all().await });
    (listener.serve(http::VerbaApi(Rc::clone(&verba)), LIMITS), verba)
}

/// How long a token is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// Tokens of one key that are valid at a time; one more ends the oldest.
const TOKENS_PER_KEY_MAX: usize = 4096;
/// Tokens that are valid at a time.
const TOKENS_MAX: usize = 65_536;
/// Recordings that may begin before a request that waits for one has looked.
const BEGAN_MAX: usize = 1024;
/// Files that are sent at a time; further requests wait for their turn.
const DOWNLOADS_MAX: usize = 64;
/// How long `next` waits for a call.
const NEXT_CALL: Duration = Duration::from_secs(60);
/// Bytes of a request's address and of its body, each and together.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Twice as many connections as requests may wait for the next call.
const LIMITS: Limits = Limits {
    connections_max: 2048,
    connections_of_source_max: 64,
    connections_of_loopback_max: 2048,
    head_bytes_max: 32 * 1024,
    headers_max: 64,
    body_bytes_max: REQUEST_BYTES_MAX,
    handshake_timeout: Duration::from_secs(10),
    first_head_timeout: Duration::from_secs(10),
    head_timeout: Duration::from_secs(20),
    body_timeout: Duration::from_secs(20),
    write_timeout: Duration::from_secs(30),
    stop_timeout: Duration::from_secs(5),
};
