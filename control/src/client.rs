//! A small blocking client of the control socket: JSON-RPC 2.0, one object a line.
//!
//! One thread reads: answers go to the call that waits for them, events into a bounded queue. Any number of threads may
//! call at the same time. Whoever subscribes to events has to read them: when the queue is full the client stops
//! reading, and the server disconnects it.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde_json::{Value, json};

/// Longest line taken from the server, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Events that wait to be read.
const EVENTS_MAX: usize = 65_536;
/// How long a call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the control socket. Closed when dropped.
#[derive(Debug)]
pub struct Client {
    writer: Mutex<UnixStream>,
    pending: Arc<Mutex<Pending>>,
    events: Receiver<Value>,
    last_id: AtomicU64,
}

/// An error the server answered with.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{message} (error {code}{})", data.as_ref().map(|data| format!(", {data}")).unwrap_or_default())]
pub struct ServerError {
    /// A code of JSON-RPC or of the control socket's own.
    pub code: i64,
    /// In words.
    pub message: String,
    /// `data.kind` and the id or parameter concerned.
    pub data: Option<Value>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at that socket, or it may not be used.
    #[error("can't reach a server at {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server refused the request.
    #[error("{method}: {error}")]
    Server {
        /// What was called.
        method: String,
        /// The answer.
        error: ServerError,
    },
    /// The server has closed the connection, or sent what can't be understood.
    #[error("the server has closed the control socket")]
    Closed,
    /// No answer came.
    #[error("no answer to {method} within {} s", PATIENCE.as_secs())]
    TimedOut {
        /// What was called.
        method: String,
    },
}

/// Calls that wait for their answers, by id; `None` once the connection is closed.
type Pending = Option<HashMap<u64, Sender<Result<Value, ServerError>>>>;

impl Client {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let writer = UnixStream::connect(path)?;
            let reader = writer.try_clone()?;
            let pending = Arc::new(Mutex::new(Some(HashMap::new())));
            let (sender, events) = bounded(EVENTS_MAX);
            let waiting = pending.clone();
            std::thread::Builder::new().name("rb-client".to_owned()).spawn(move || {
                read_lines(reader, &waiting, &sender);
                *lock(&waiting) = None;
            })?;
            Ok(Self { writer: Mutex::new(writer), pending, events, last_id: AtomicU64::new(0) })
        };
        connect().map_err(|source| ClientError::Connect { path: path.to_owned(), source })
    }

    /// Calls `method` and waits for its answer. `params` is an object, or null for none.
    ///
    /// # Errors
    /// If the server refuses, is gone, or does not answer within 30 seconds.
    pub fn call(&self, method: &str, params: &Value) -> Result<Value, ClientError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut request = json!({"jsonrpc": "2.0", "id": id, "method": method});
        if !params.is_null() {
            request["params"] = params.clone();
        }
        let (sender, answer) = bounded(1);
        lock(&self.pending).as_mut().ok_or(ClientError::Closed)?.insert(id, sender);
        let sent = lock(&self.writer).write_all(format!("{request}\n").as_bytes());
        let result = sent.map_err(|_| ClientError::Closed).and_then(|()| {
            answer.recv_timeout(PATIENCE).map_err(|error| match error {
                RecvTimeoutError::Timeout => ClientError::TimedOut { method: method.to_owned() },
                RecvTimeoutError::Disconnected => ClientError::Closed,
            })
        });
        if let Some(pending) = lock(&self.pending).as_mut() {
            pending.remove(&id);
        }
        result?.map_err(|error| ClientError::Server { method: method.to_owned(), error })
    }

    /// Asks for events: of these kinds, or of all if there are none.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn subscribe(&self, kinds: &[&str]) -> Result<(), ClientError> {
        let params = if kinds.is_empty() { json!({}) } else { json!({ "kinds": kinds }) };
        self.call("events.subscribe", &params).map(drop)
    }

    /// The next event (the notification's `params`), or `None` if none comes within `patience`.
    ///
    /// # Errors
    /// [`ClientError::Closed`] after the last event of a connection that is closed.
    pub fn next_event(&self, patience: Duration) -> Result<Option<Value>, ClientError> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ClientError::Closed),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The reader sees the end; it needs nothing of ours.
        let _ = lock(&self.writer).shutdown(Shutdown::Both);
    }
}

/// Hands out what arrives until the connection ends, or makes no sense any more.
fn read_lines(stream: UnixStream, pending: &Mutex<Pending>, events: &Sender<Value>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) | Err(_) => return,
        }
        let Ok(mut message) = serde_json::from_slice::<Value>(&line) else { return };
        if message.get("method").and_then(Value::as_str) == Some("event") {
            if events.send(message["params"].take()).is_err() {
                return;
            }
        } else if let Some(id) = message.get("id").and_then(Value::as_u64) {
            let waiting = lock(pending).as_mut().and_then(|pending| pending.remove(&id));
            if let Some(waiting) = waiting {
                // A call that has given up is gone.
                let _ = waiting.send(answer(message));
            }
        }
    }
}

fn answer(mut message: Value) -> Result<Value, ServerError> {
    let Some(error) = message.get_mut("error") else { return Ok(message["result"].take()) };
    Err(ServerError {
        code: error["code"].as_i64().unwrap_or_default(),
        message: error["message"].as_str().unwrap_or("no message").to_owned(),
        data: error.get_mut("data").map(Value::take),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A server that answers each line with what `script` makes of it, then closes after `lines` lines.
    fn serve(
        lines: usize,
        script: impl Fn(Value) -> Vec<Value> + Send + 'static,
    ) -> (tempfile::TempDir, JoinHandle<()>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for _ in 0..lines {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                for answer in script(serde_json::from_str(&line).unwrap()) {
                    stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
                }
            }
        });
        (directory, thread)
    }

    fn connect(directory: &tempfile::TempDir) -> Client {
        Client::connect(&directory.path().join("s")).unwrap()
    }

    #[test]
    fn answers_find_their_calls_and_errors_are_told() {
        let (directory, server) = serve(2, |request| {
            let (id, event) = (&request["id"], json!({"jsonrpc": "2.0", "method": "event", "params": {"n": 1}}));
            match request["method"].as_str().unwrap() {
                "echo" => {
                    vec![json!({"id": 99, "result": "a stray"}), event, json!({"id": id, "result": request["params"]})]
                }
                _ => vec![
                    json!({"id": id, "error": {"code": 1001, "message": "no", "data": {"kind": "unknown_connection"}}}),
                ],
            }
        });
        let client = connect(&directory);
        assert_eq!(client.call("echo", &json!({"a": [1, 2]})).unwrap(), json!({"a": [1, 2]}));
        assert_eq!(client.next_event(LONG).unwrap(), Some(json!({"n": 1})));
        match client.call("other", &Value::Null) {
            Err(ClientError::Server { error, .. }) => {
                assert_eq!(error.code, 1001);
                assert_eq!(error.data, Some(json!({"kind": "unknown_connection"})));
                assert!(error.to_string().contains("unknown_connection"));
            }
            other => panic!("{other:?}"),
        }
        server.join().unwrap();
    }

    #[test]
    fn many_threads_share_one_connection() {
        let (directory, server) = serve(80, |request| vec![json!({"id": request["id"], "result": request["params"]})]);
        let client = connect(&directory);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let client = &client;
                scope.spawn(move || {
                    for call in 0..10 {
                        let params = json!({"thread": thread, "call": call});
                        assert_eq!(client.call("echo", &params).unwrap(), params);
                    }
                });
            }
        });
        server.join().unwrap();
    }

    #[test]
    fn a_closed_connection_ends_calls_and_events() {
        let (directory, server) = serve(1, |_| vec![]);
        let client = connect(&directory);
        assert!(matches!(client.call("last", &Value::Null), Err(ClientError::Closed)));
        assert!(matches!(client.next_event(LONG), Err(ClientError::Closed)));
        assert!(matches!(client.call("late", &Value::Null), Err(ClientError::Closed)));
        server.join().unwrap();
        let nowhere = directory.path().join("nowhere");
        assert!(matches!(Client::connect(&nowhere), Err(ClientError::Connect { .. })));
    }
}
