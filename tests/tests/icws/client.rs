//! A client of HTTP that can do what a good one never would, each time from an address of its own: the server counts
//! who tries to sign in by address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use ringbridge_tests::PATIENCE;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// What was answered.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        found.unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}\n{}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// Done, with that status; what has no representation has no body.
    #[track_caller]
    pub(crate) fn done(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        if self.body.is_empty() {
            assert_eq!(self.header("content-type"), "", "{}", self.head);
        }
        self
    }

    /// JSON, labelled as every client wants it.
    #[track_caller]
    pub(crate) fn labelled(&self) -> &Self {
        assert_eq!(self.header("content-type"), "application/vnd.inin.icws+JSON;charset=utf-8", "{}", self.head);
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        self.json();
        self
    }

    /// Refused: status, last part of the error id (empty: none), property (empty: none). The shape follows.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, id: &str, property: &str) -> &Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        let body = self.labelled().json();
        let full = match id {
            "" => Value::Null,
            "missingRequiredParameter" | "invalidProperty" | "malformed" => {
                format!("error.request.invalidRepresentation.{id}").into()
            }
            "authenticationFailure" => "error.request.connection.authenticationFailure".into(),
            "notAcceptingConnections" | "unavailable" => format!("error.server.{id}").into(),
            _ => panic!("{id} is no error id"),
        };
        assert_eq!(body["errorId"], full, "{body}");
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        let shape = match id {
            "missingRequiredParameter" => "missingPropertyError",
            "invalidProperty" => "invalidPropertyError",
            _ => "error",
        };
        assert_eq!(body["__type"], format!("urn:inin.com:common:{shape}"), "{body}");
        assert_eq!(body["propertyName"].as_str().unwrap_or_default(), property, "{body}");
        assert_eq!(body.get("propertyName").is_some(), shape != "error", "{body}");
        assert!(status == 401 || body.get("errorCode").is_none(), "{body}");
        let challenge = if status == 401 { "ICWS realm=\"ICWS\" location=\"/ICWS/connection\"" } else { "" };
        assert_eq!(self.header("www-authenticate"), challenge);
        assert_eq!(body.get("alternateHostList").is_some_and(Value::is_array), status == 503, "{body}");
        self
    }

    /// Not let in: the cookie is missing.
    #[track_caller]
    pub(crate) fn no_cookie(&self) {
        assert_eq!(self.refused(401, "", "").json()["errorCode"], 4);
    }

    /// Not let in: no such session, or not with this cookie.
    #[track_caller]
    pub(crate) fn no_session(&self) {
        assert_eq!(self.refused(401, "authenticationFailure", "").json()["errorCode"], 2);
    }

    /// Not let in: the CSRF token is missing or wrong.
    #[track_caller]
    pub(crate) fn no_csrf(&self) {
        assert!(self.refused(401, "", "").json().get("errorCode").is_none());
    }
}

/// An address of loopback nobody else asks from.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // From 127.1.0.1 on.
    Ipv4Addr::from_bits(0x7f01_0001 + NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection from `source`.
#[track_caller]
pub(crate) fn connect(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into()).expect("an address of loopback");
    socket.connect(&server.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a header.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    #[must_use]
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    #[must_use]
    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    /// Its bytes. HTTP/1.0: answers are never in chunks.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.0\r\nhost: x\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        // One that says that it is too long is refused at once.
        let body: &[u8] = if self.body.len() > BODY_BYTES_MAX { &[] } else { &self.body };
        [head.as_bytes(), body].concat()
    }

    #[track_caller]
    pub(crate) fn send(&self, source: Ipv4Addr, server: SocketAddr) -> TcpStream {
        let mut stream = connect(source, server);
        stream.write_all(&self.bytes()).expect("sent");
        stream
    }

    #[track_caller]
    pub(crate) fn ask(&self, source: Ipv4Addr, server: SocketAddr) -> Answer {
        read_answer(&mut BufReader::new(self.send(source, server)))
    }
}

/// Reads an answer to its end.
#[track_caller]
pub(crate) fn read_answer(reader: &mut impl BufRead) -> Answer {
    let (status, head) = read_head(reader);
    let mut answer = Answer { status, head, body: Vec::new() };
    match answer.header("content-length").parse() {
        Ok(length) => drop(reader.take(length).read_to_end(&mut answer.body).expect("a body")),
        Err(_) => drop(reader.read_to_end(&mut answer.body).expect("a body")),
    }
    answer
}

#[track_caller]
pub(crate) fn read_head(reader: &mut impl BufRead) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a head") > 0, "no head: {head}");
    }
    let status = head.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a status");
    (status, head)
}

/// Longest body that is taken.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
