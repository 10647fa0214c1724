//! A small JSON-RPC 2.0 client for the control socket: one object per line, requests may be pipelined.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Longest answer accepted, in bytes.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Requests under way at once in [`Client::call_all`]; far below what fits into the socket's buffers, so that client
/// and server never wait for each other's reading.
const PIPELINE_MAX: usize = 64;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Code of the error that says "try again": a full mailbox.
pub const BUSY: i64 = 1006;
/// How often a busy answer is tried again before it counts.
const BUSY_RETRIES_MAX: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// An error object of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcError {
    /// JSON-RPC or server error code.
    pub code: i64,
    /// The server's words.
    pub message: String,
    /// `data.kind`, such as `busy`, or empty.
    pub kind: String,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {} ({}): {}", self.code, self.kind, self.message)
    }
}

impl RpcError {
    fn parse(error: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            code: error["code"].as_i64().unwrap_or(0),
            message: text(&error["message"]),
            kind: text(&error["data"]["kind"]),
        }
    }

    /// A short name for counting: the kind, or the code if there is none.
    #[must_use]
    pub fn name(&self) -> String {
        if self.kind.is_empty() { self.code.to_string() } else { self.kind.clone() }
    }
}

/// One answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Id of the request, as [`Client::send`] gave it.
    pub id: u64,
    /// The result, or the server's error.
    pub outcome: std::result::Result<Value, RpcError>,
}

/// A connection to the control socket.
pub struct Client {
    stream: UnixStream,
    next_id: u64,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that are known to hold no line end.
    scanned: usize,
    timeout: Option<Duration>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// There is no such socket, or nobody listens on it.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .map_err(Error::io(format!("cannot connect to the control socket {}", path.display())))?;
        Self::over(stream)
    }

    /// Speaks over an open stream.
    ///
    /// # Errors
    /// The stream takes no timeout.
    pub fn over(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(Error::io("control socket"))?;
        Ok(Self { stream, next_id: 1, incoming: Vec::new(), scanned: 0, timeout: None })
    }

    /// Sends a request without waiting for its answer. Returns its id.
    ///
    /// # Errors
    /// The server is gone, or does not read.
    pub fn send(&mut self, method: &str, params: &Value) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).map_err(Error::io(format!("control socket, {method}")))?;
        Ok(id)
    }

    /// Waits up to `timeout` for the next answer, whichever request it belongs to. Notifications are skipped.
    ///
    /// # Errors
    /// The server closed the connection, or sent something that is not JSON-RPC.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<Answer>> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(line) = self.take_line() {
                if let Some(answer) = parse_answer(&line)? {
                    return Ok(Some(answer));
                }
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if !self.fill(rest)? && rest.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Sends one request and waits for its answer. Answers to other requests under way are lost.
    ///
    /// # Errors
    /// The transport failed, no answer came in 10 s, or the server answered with an error.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let mut results = self.call_all(&[(method, params.clone())])?;
        let outcome = results.pop().ok_or_else(|| Error::Protocol(format!("no answer to {method}")))?;
        outcome.map_err(|error| Error::Refused { method: method.to_owned(), error })
    }

    /// Sends all `requests`, pipelined, and returns their outcomes in the same order. What the server is too busy for
    /// is sent again a bounded number of times.
    ///
    /// # Errors
    /// The transport failed, or answers stayed out for 10 s.
    pub fn call_all(&mut self, requests: &[(&str, Value)]) -> Result<Vec<std::result::Result<Value, RpcError>>> {
        let mut outcomes: Vec<Option<std::result::Result<Value, RpcError>>> = vec![None; requests.len()];
        let mut under_way: HashMap<u64, (usize, u32)> = HashMap::new();
        let mut next = 0;
        while next < requests.len() || !under_way.is_empty() {
            while next < requests.len() && under_way.len() < PIPELINE_MAX {
                let (method, params) = &requests[next];
                under_way.insert(self.send(method, params)?, (next, 0));
                next += 1;
            }
            let answer = self.receive(ANSWER_TIMEOUT)?.ok_or_else(|| {
                Error::Protocol(format!("{} answers are missing after {} s", under_way.len(), ANSWER_TIMEOUT.as_secs()))
            })?;
            let Some((index, retries)) = under_way.remove(&answer.id) else { continue };
            match answer.outcome {
                Err(error) if error.code == BUSY && retries < BUSY_RETRIES_MAX => {
                    std::thread::sleep(BUSY_PAUSE);
                    let (method, params) = &requests[index];
                    under_way.insert(self.send(method, params)?, (index, retries + 1));
                }
                outcome => outcomes[index] = Some(outcome),
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Reads once, waiting up to `timeout` (zero: not at all). False if nothing came.
    fn fill(&mut self, timeout: Duration) -> Result<bool> {
        // A zero read timeout means "forever" to the system, so the shortest one stands for "not at all".
        let timeout = Some(timeout.max(Duration::from_micros(1)));
        if self.timeout != timeout {
            self.stream.set_read_timeout(timeout).map_err(Error::io("control socket"))?;
            self.timeout = timeout;
        }
        let mut chunk = [0; 16_384];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Error::Protocol("the server closed the control connection".into())),
            Ok(length) if self.incoming.len() + length > LINE_BYTES_MAX => {
                Err(Error::Protocol(format!("an answer is longer than {LINE_BYTES_MAX} bytes")))
            }
            Ok(length) => {
                self.incoming.extend_from_slice(&chunk[..length]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(Error::io("control socket")(error)),
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = self.incoming[self.scanned..].iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.incoming.len();
            return None;
        };
        let rest = self.incoming.split_off(self.scanned + end + 1);
        self.scanned = 0;
        Some(std::mem::replace(&mut self.incoming, rest))
    }
}

/// Reads one line; `None` for a notification.
fn parse_answer(line: &[u8]) -> Result<Option<Answer>> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| Error::Protocol(format!("not JSON ({error}): {}", String::from_utf8_lossy(line))))?;
    if value.get("method").is_some() {
        return Ok(None);
    }
    let Some(id) = value["id"].as_u64() else {
        return Err(Error::Protocol(format!("an answer without our id: {value}")));
    };
    let outcome = match value.get("error") {
        Some(error) => Err(RpcError::parse(error)),
        None => Ok(value.get("result").cloned().unwrap_or_default()),
    };
    Ok(Some(Answer { id, outcome }))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use super::*;

    /// A server that lets `serve` turn each request into lines to write, of which it may hold some back.
    fn client_of(mut serve: impl FnMut(Value) -> Vec<String> + Send + 'static) -> Client {
        let (near, far) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut writer = far.try_clone().unwrap();
            for line in BufReader::new(far).lines() {
                let Ok(line) = line else { return };
                for answer in serve(serde_json::from_str(&line).unwrap()) {
                    if writer.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        Client::over(near).unwrap()
    }

    fn ok(request: &Value, result: Value) -> String {
        format!("{}\n", json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
    }

    fn error(request: &Value, code: i64, kind: &str) -> String {
        let error = json!({"code": code, "message": "no", "data": {"kind": kind}});
        format!("{}\n", json!({"jsonrpc": "2.0", "id": request["id"], "error": error}))
    }

    #[test]
    fn a_call_returns_the_result() {
        let mut client = client_of(|request| {
            assert_eq!(request["jsonrpc"], "2.0");
            vec![ok(&request, json!({"method": request["method"], "params": request["params"]}))]
        });
        let result = client.call("server.info", &json!({"a": 1})).unwrap();
        assert_eq!(result, json!({"method": "server.info", "params": {"a": 1}}));
    }

    #[test]
    fn answers_in_any_order_find_their_requests() {
        let mut held = Vec::new();
        let mut client = client_of(move |request| {
            held.push(ok(&request, request["params"].clone()));
            if held.len() == 10 { held.drain(..).rev().collect() } else { Vec::new() }
        });
        let requests: Vec<_> = (0..10).map(|number| ("echo", json!(number))).collect();
        let results = client.call_all(&requests).unwrap();
        assert_eq!(results, (0..10).map(|number| Ok(json!(number))).collect::<Vec<_>>());
    }

    #[test]
    fn more_requests_than_the_pipeline_holds() {
        let mut client = client_of(|request| vec![ok(&request, request["params"].clone())]);
        let requests: Vec<_> = (0..1_000).map(|number| ("echo", json!(number))).collect();
        let results = client.call_all(&requests).unwrap();
        assert_eq!(results.len(), 1_000);
        assert!(results.iter().enumerate().all(|(number, result)| result == &Ok(json!(number))));
    }

    #[test]
    fn notifications_and_split_lines_are_no_trouble() {
        let mut client = client_of(|request| {
            let event = "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{}}\n".to_owned();
            let answer = ok(&request, json!("x".repeat(100_000)));
            let (first, second) = answer.split_at(60_000);
            vec![event, first.to_owned(), second.to_owned()]
        });
        assert_eq!(client.call("long", &json!({})).unwrap().as_str().unwrap().len(), 100_000);
    }

    #[test]
    fn an_error_is_reported_with_its_kind() {
        let mut client = client_of(|request| vec![error(&request, 1001, "unknown_connection")]);
        let Err(Error::Refused { method, error }) = client.call("connection.get", &json!({})) else {
            panic!("an error was expected");
        };
        assert_eq!(
            (method.as_str(), error.code, error.name().as_str()),
            ("connection.get", 1001, "unknown_connection")
        );
    }

    #[test]
    fn what_the_server_is_busy_for_is_sent_again() {
        let mut refusals = 3;
        let mut client = client_of(move |request| {
            refusals -= 1;
            vec![if refusals >= 0 { error(&request, BUSY, "busy") } else { ok(&request, json!("done")) }]
        });
        assert_eq!(client.call("conference.set", &json!({})).unwrap(), json!("done"));
    }

    #[test]
    fn garbage_and_a_closed_connection_are_errors() {
        let mut client = client_of(|_| vec!["nonsense\n".to_owned()]);
        assert!(matches!(client.call("x", &json!({})), Err(Error::Protocol(_))));
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let mut client = Client::over(near).unwrap();
        assert!(client.call("x", &json!({})).is_err());
    }

    #[test]
    fn receiving_without_answers_ends() {
        let mut client = client_of(|_| Vec::new());
        client.send("x", &json!({})).unwrap();
        assert_eq!(client.receive(Duration::ZERO).unwrap(), None);
        assert_eq!(client.receive(Duration::from_millis(1)).unwrap(), None);
    }
}
