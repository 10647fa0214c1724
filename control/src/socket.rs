//! The control socket: who may use it, where lines begin and end, requests in and answers out.
//!
//! One task reads each client and one writes to it. A request is carried as far as it goes without waiting before the
//! next one is read, so commands enter the mailboxes in the order sent; what has to wait becomes a task of its own and
//! is carried out to its end even if the client has gone.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, Uid, User};
use ringbridge_media::time::Instant;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;

use crate::audit::{self, Outcome, Weight, Who};
use crate::begin::begin;
use crate::config::default_control_sockets;
use crate::events::Client;
use crate::mediacontrol;
use crate::methods::{self, Call};
use crate::proto::{Request, RpcError, answer};
use crate::server::Server;

/// The listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    group: Option<Group>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else serves it.
    #[error("another server listens at {}", .0.display())]
    InUse(PathBuf),
    /// Something else stands in its place.
    #[error("{} is there and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// No such group.
    #[error("`control_group`: there is no group {0}")]
    UnknownGroup(String),
    /// None of the default places can be written.
    #[error("no default place for the control socket can be written ({0}): give --control-socket PATH")]
    NoDefault(String),
    /// The system refuses.
    #[error("can't open the control socket {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Opens the socket at `path`, or at the first default place that can be written. A socket file that nobody
    /// serves any more is replaced; missing directories are made.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: Option<&Path>, group: Option<&str>) -> Result<Self, SocketError> {
        let group = match group {
            Some(name) => {
                let found = Group::from_name(name).ok().flatten();
                Some(found.ok_or_else(|| SocketError::UnknownGroup(name.to_owned()))?)
            }
            None => None,
        };
        if let Some(path) = path {
            return Self::bind_at(path, group);
        }
        let mut refused = Vec::new();
        for path in default_control_sockets() {
            match Self::bind_at(&path, group.clone()) {
                Err(SocketError::Io { path, source }) => refused.push(format!("{}: {source}", path.display())),
                other => return other,
            }
        }
        Err(SocketError::NoDefault(refused.join(", ")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves clients for ever.
    pub async fn serve(&self, server: Rc<Server>) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "can't accept a client");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !self.admits(&stream) {
                tracing::warn!("a client was refused by its credentials");
            } else if server.hub.clients() >= CLIENTS_MAX {
                tracing::warn!(CLIENTS_MAX, "too many clients: one was refused");
            } else {
                // Begun at once, so that the next one accepted finds it counted.
                begin(serve_client(Rc::clone(&server), stream));
            }
        }
    }

    fn bind_at(path: &Path, group: Option<Group>) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            // Only a socket that nobody listens on refuses; whatever else happens, it is not ours to remove.
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
                Err(error) => return Err(failed(error)),
            }
        }
        // The socket is never open to others, not even between its making and a change of its mode.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let socket = Self { listener: listener.map_err(failed)?, path: path.to_owned(), group };
        if let Some(group) = &socket.group {
            std::os::unix::fs::chown(path, None, Some(group.gid.as_raw())).map_err(failed)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        }
        Ok(socket)
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else { return false };
        let uid = Uid::from_raw(peer.uid());
        if uid.is_root() || uid == Uid::effective() {
            return true;
        }
        let Some(group) = &self.group else { return false };
        group.gid == Gid::from_raw(peer.gid())
            || User::from_uid(uid).ok().flatten().is_some_and(|user| group.mem.contains(&user.name))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // It may have been removed by somebody else; there is nothing more to do then.
        drop(fs::remove_file(&self.path));
    }
}

async fn serve_client(server: Rc<Server>, stream: UnixStream) {
    let (origin, uid) = match stream.peer_cred() {
        Ok(peer) => {
            let (uid, pid) = (peer.uid(), peer.pid().unwrap_or_default());
            (format!("control socket, user {uid}, process {pid}"), Some(uid))
        }
        Err(_) => ("control socket".to_owned(), None),
    };
    let client = server.hub.connect(&origin, uid);
    let (reader, writer) = stream.into_split();
    let writing = spawn_local(write_lines(writer, Rc::clone(&client)));
    tokio::select! {
        () = read_requests(&server, reader, &client) => {
            // What was asked is still answered: a client may close its sending side and go on reading.
            while client.requests.get() > 0 && !client.closed.is_open() {
                tokio::select! {
                    () = client.answered.notified() => {}
                    () = client.closed.wait() => {}
                }
            }
        }
        () = client.closed.wait() => {}
        () = client.finished.wait() => {}
    }
    client.finish();
    // The writer ends by itself: with the last line, or when the client is gone or to be disconnected.
    drop(writing.await);
    client.closed.open();
    server.hub.disconnect(&client);
}

async fn read_requests(server: &Rc<Server>, mut reader: OwnedReadHalf, client: &Rc<Client>) {
    let mut lines = LineBuffer::default();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let received = match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                lines.push(&chunk[..length]);
                server.now()
            }
        };
        loop {
            while client.requests.get() >= REQUESTS_MAX {
                client.answered.notified().await;
            }
            let incoming = match lines.next_line() {
                Some(Ok(line)) if line.trim_ascii().is_empty() => continue,
                Some(Ok(line)) => serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}")),
                Some(Err(LineTooLong)) => Err(format!("a line is longer than {LINE_BYTES_MAX} bytes")),
                None => break,
            };
            match incoming {
                Ok(Value::Array(batch)) if !batch.is_empty() => handle_batch(server, client, batch, received),
                Ok(request) => handle_request(server, client, request, received),
                Err(message) => {
                    server.count_error();
                    server.hub.answer(client, &answer(Value::Null, Err(RpcError::parse_error(message))));
                }
            }
        }
    }
}

async fn write_lines(mut writer: OwnedWriteHalf, client: Rc<Client>) {
    loop {
        match client.take_output() {
            Some(bytes) => {
                let written = tokio::select! {
                    written = writer.write_all(&bytes) => written.is_ok(),
                    () = client.closed.wait() => false,
                };
                if !written {
                    client.closed.open();
                    return;
                }
            }
            None if client.finished.is_open() || client.closed.is_open() => return,
            None => tokio::select! {
                () = client.written.notified() => {}
                () = client.closed.wait() => {}
            },
        }
    }
}

fn handle_request(server: &Rc<Server>, client: &Rc<Client>, request: Value, received: Instant) {
    client.requests.set(client.requests.get() + 1);
    let (server, client) = (Rc::clone(server), Rc::clone(client));
    begin(async move {
        let (answer, call) = carry_out(&server, &client, request, received).await;
        if let Some(answer) = answer {
            server.hub.answer(&client, &answer);
        }
        call.announce();
        client.requests.set(client.requests.get() - 1);
        client.answered.notify_one();
    });
}

fn handle_batch(server: &Rc<Server>, client: &Rc<Client>, batch: Vec<Value>, received: Instant) {
    client.requests.set(client.requests.get() + 1);
    let parts: Vec<_> = batch
        .into_iter()
        .map(|request| {
            let (server, client) = (Rc::clone(server), Rc::clone(client));
            begin(async move {
                let (answer, call) = carry_out(&server, &client, request, received).await;
                // Another part of the batch may wait for the end of what this one started, so that end must not wait
                // for the answer of the whole batch.
                call.announce();
                answer
            })
        })
        .collect();
    let (server, client) = (Rc::clone(server), Rc::clone(client));
    begin(async move {
        let mut answers = Vec::new();
        for part in parts {
            answers.extend(part.end().await.flatten());
        }
        if !answers.is_empty() {
            server.hub.answer(&client, &Value::Array(answers));
        }
        client.requests.set(client.requests.get() - 1);
        client.answered.notify_one();
    });
}

/// Carries out one request. The answer is `None` for a notification.
async fn carry_out(
    server: &Rc<Server>,
    client: &Rc<Client>,
    request: Value,
    received: Instant,
) -> (Option<Value>, Call) {
    let call = Call::new(Rc::clone(server), Rc::clone(client), received, Rc::clone(&client.origin));
    server.count_request();
    let (id, result) = match Request::from_value(request) {
        Ok(request) => (request.id, audited(&call, &request.method, request.params).await),
        Err((id, error)) => (Some(id), Err(error)),
    };
    if result.is_err() {
        server.count_error();
    }
    (id.map(|id| answer(id, result)), call)
}

/// Carries out a call, and writes its line to the audit log.
async fn audited(call: &Call, method: &str, params: Value) -> Result<Value, RpcError> {
    let weight = if methods::only_asks(method) { Weight::Asks } else { Weight::Changes };
    if !audit::is_on(weight) {
        return methods::call(call, method, params).await;
    }
    let begun = std::time::Instant::now();
    let mut ids = Vec::new();
    audit::gather_ids(&params, &mut ids);
    let (result, noted) = audit::scope_as(weight, methods::call(call, method, params)).await;
    let refused = match &result {
        Ok(told) => {
            audit::gather_ids(told, &mut ids);
            audit::gather_ids(&told["results"], &mut ids);
            mediacontrol::refused(method, told)
        }
        Err(error) => Some(error.kind().name()),
    };
    let ids: Vec<&dyn fmt::Display> = ids.iter().map(|id| id as &dyn fmt::Display).collect();
    audit::record_as(
        weight,
        &audit::Entry {
            who: call.client.uid.map_or(Who::Unknown, Who::Process),
            from: None,
            api: "control",
            what: method,
            ids: &ids,
            shard: noted.shard,
            effect: noted.effect.as_ref(),
            result: refused.map_or(Outcome::Done, Outcome::Refused),
            took: begun.elapsed(),
        },
    );
    result
}

/// Finds lines in what arrives. Never holds more than one line of the longest kind and what was read with its end.
#[derive(Debug, Default)]
struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// No newline stands between `start` and here.
    scanned: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
}

#[derive(PartialEq, Eq, Debug)]
struct LineTooLong;

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line without its newline. A line that is too long is reported once, as soon as that is known.
    fn next_line(&mut self) -> Option<Result<&[u8], LineTooLong>> {
        loop {
            let newline = self.bytes[self.scanned..].iter().position(|byte| *byte == b'\n');
            let Some(newline) = newline.map(|offset| self.scanned + offset) else {
                self.scanned = self.bytes.len();
                if self.skipping {
                    self.start = self.scanned;
                } else if self.scanned - self.start > LINE_BYTES_MAX {
                    self.skipping = true;
                    self.start = self.scanned;
                    return Some(Err(LineTooLong));
                }
                return None;
            };
            let line = self.start..newline;
            self.start = newline + 1;
            self.scanned = self.start;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.len() > LINE_BYTES_MAX {
                return Some(Err(LineTooLong));
            }
            return Some(Ok(&self.bytes[line]));
        }
    }
}

/// Longest line, newline not counted.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Clients at once.
pub const CLIENTS_MAX: usize = 256;
/// Requests (a batch counts as one) of one client that wait for their answers; beyond, no more are read from it.
pub const REQUESTS_MAX: usize = 1024;
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes; `-` stands for a line that is too long.
    fn lines(input: &[u8], step: usize) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        let mut found = Vec::new();
        for piece in input.chunks(step) {
            buffer.push(piece);
            while let Some(line) = buffer.next_line() {
                found.push(line.map_or_else(|_| "-".to_owned(), |line| String::from_utf8_lossy(line).into_owned()));
            }
        }
        found
    }

    #[test]
    fn lines_are_found_whatever_the_pieces() {
        for step in 1..12 {
            assert_eq!(lines(b"one\n\ntwo\nthree\nrest", step), ["one", "", "two", "three"]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_the_next_is_read() {
        let longest = vec![b'x'; LINE_BYTES_MAX];
        let input = [&longest, &b"\n"[..], &longest, b"y\nnext\n", &longest, &longest, b"\nlast\n"].concat();
        for step in [1000, LINE_BYTES_MAX, input.len()] {
            let found = lines(&input, step);
            assert_eq!(found.len(), 5, "in pieces of {step}");
            assert_eq!(found[0].len(), LINE_BYTES_MAX);
            assert_eq!(found[1..], ["-", "next", "-", "last"]);
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("made/control.sock");
        let socket = ControlSocket::bind(Some(&path), None).expect("a new socket");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(matches!(ControlSocket::bind(Some(&path), None), Err(SocketError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
        // What a crash leaves behind: a file without a listener.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        drop(ControlSocket::bind(Some(&path), None).expect("replaced"));
        fs::write(&path, "precious").expect("written");
        assert!(matches!(ControlSocket::bind(Some(&path), None), Err(SocketError::NotASocket(_))));
        assert!(path.exists());
        assert!(matches!(
            ControlSocket::bind(Some(&dir.path().join("x")), Some("no such group")),
            Err(SocketError::UnknownGroup(_))
        ));
    }
}
