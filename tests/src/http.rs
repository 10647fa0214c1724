//! A client of HTTP/1, as small as the tests need it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::PATIENCE;

/// What a server answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, in lower case.
    pub head: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// Sends one request on a connection of its own.
///
/// # Panics
/// If the server does not answer.
#[track_caller]
pub fn request(server: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    receive(send(connect(None, server), method, path, headers, body))
}

/// Sends one request from an address of this machine, such as any in `127.0.0.0/8`.
///
/// # Panics
/// If the server does not answer.
#[track_caller]
pub fn request_from(
    source: IpAddr,
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    receive(send(connect(Some(source), server), method, path, headers, body))
}

/// Sends one request whose answer is taken later, if at all.
///
/// # Panics
/// If the server does not listen.
#[track_caller]
pub fn begin(server: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Held {
    Held(send(connect(None, server), method, path, headers, body))
}

/// A request that has been sent. Dropped, the client goes away.
#[derive(Debug)]
pub struct Held(TcpStream);

impl Held {
    /// Waits for the answer.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn finish(self) -> Answer {
        receive(self.0)
    }

    /// Whether something of the answer has come, or the server has closed the connection.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn is_answered(&self) -> bool {
        self.0.set_nonblocking(true).expect("a flag");
        let answered = self.0.peek(&mut [0]).is_ok();
        self.0.set_nonblocking(false).expect("a flag");
        answered
    }
}

#[track_caller]
fn receive(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let (status, head) = read_head(&mut reader);
    let mut body = Vec::new();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    match length {
        Some(length) => drop(reader.by_ref().take(length).read_to_end(&mut body).expect("a body")),
        None => drop(reader.read_to_end(&mut body).expect("a body")),
    }
    Answer { status, head, body }
}

/// Posts JSON.
#[track_caller]
pub fn post(server: SocketAddr, path: &str, body: &Value) -> Answer {
    request(server, "POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
}

/// Gets JSON.
#[track_caller]
pub fn get(server: SocketAddr, path: &str) -> Answer {
    request(server, "GET", path, &[], b"")
}

/// Begins to read server-sent events.
///
/// # Panics
/// If the server refuses.
#[track_caller]
pub fn event_stream(server: SocketAddr, path: &str) -> EventStream {
    let stream = send(connect(None, server), "GET", path, &[("accept", "text/event-stream")], b"");
    let mut reader = BufReader::new(stream);
    let (status, head) = read_head(&mut reader);
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("text/event-stream"), "{head}");
    EventStream { reader }
}

/// Server-sent events.
#[derive(Debug)]
pub struct EventStream {
    reader: BufReader<TcpStream>,
}

impl EventStream {
    /// The next event's number and data.
    ///
    /// # Panics
    /// If the stream ends.
    #[track_caller]
    pub fn next_event(&mut self) -> (u64, Value) {
        let mut id = None;
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).expect("a line") > 0, "the stream has ended");
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().ok();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (id.expect("a number"), serde_json::from_str(data).expect("JSON"));
            }
        }
    }
}

/// Takes what is posted.
#[derive(Debug)]
pub struct Sink {
    listener: TcpListener,
}

impl Sink {
    /// Listens on loopback.
    ///
    /// # Panics
    /// If it can't.
    pub fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("a port") }
    }

    /// Where.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    /// Takes one post, answers it with `status`, and returns its body.
    ///
    /// # Panics
    /// If none comes.
    pub fn take(&self, status: u16) -> Value {
        let (stream, _) = self.listener.accept().expect("a post");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a head");
            let line = line.to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().expect("a length");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        reader.get_mut().write_all(answer.as_bytes()).expect("answered");
        serde_json::from_slice(&body).expect("JSON")
    }
}

/// A free TCP port on loopback.
///
/// # Panics
/// If there is none.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

#[track_caller]
fn connect(source: Option<IpAddr>, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this machine");
    }
    socket.connect(&server.into()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.into()
}

#[track_caller]
fn send(mut stream: TcpStream, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    let server = stream.peer_addr().expect("connected");
    // HTTP/1.0: bodies are never in chunks.
    let mut head = format!("{method} {path} HTTP/1.0\r\nhost: {server}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // A server need not read what it refuses: what it answers counts, and that there is an answer is for who reads it.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    stream
}

#[track_caller]
fn read_head(reader: &mut impl BufRead) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a head") > 0, "no head: {head}");
    }
    let status = head.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase())
}
