//! A client of HTTP/1.1 over TLS that keeps its connection, from an address of its own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use socket2::{Domain, Socket, Type};

use crate::PATIENCE;
use crate::http::Answer;

/// A connection over TLS.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A server that is trusted.
#[derive(Clone, Debug)]
pub struct Https {
    server: SocketAddr,
    config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    /// Where requests come from, on loopback: attempts to log in are counted for each address.
    source: Ipv4Addr,
    kept: Arc<Mutex<Option<BufReader<Stream>>>>,
}

impl Https {
    /// The server at `server`, known by the certificate in `certificate`.
    ///
    /// # Panics
    /// If that file holds none.
    pub fn new(server: SocketAddr, certificate: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        roots.add(certificate).expect("a root");
        let roots = Arc::new(roots);
        let config = client(&roots, rustls::ALL_VERSIONS);
        Self { server, config, roots, source: Ipv4Addr::LOCALHOST, kept: Arc::default() }
    }

    /// The same server, asked by a client that knows nothing newer than TLS 1.2.
    #[must_use]
    pub fn only_tls12(&self) -> Self {
        let config = client(&self.roots, &[&rustls::version::TLS12]);
        Self { config, kept: Arc::default(), ..self.clone() }
    }

    /// The same server, asked from another loopback address over a connection of its own.
    #[must_use]
    pub fn from_address(&self, source: Ipv4Addr) -> Self {
        Self { source, kept: Arc::default(), ..self.clone() }
    }

    /// Where the server is.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// A connection without TLS.
    ///
    /// # Panics
    /// If the server does not listen.
    #[track_caller]
    pub fn connect_plain(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((self.source, 0)).into()).expect("an address of loopback");
        socket.connect(&self.server.into()).expect("it listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("set");
        stream
    }

    /// A new connection, for bytes of any kind.
    ///
    /// # Panics
    /// If the server does not listen.
    #[track_caller]
    pub fn connect(&self) -> Stream {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        StreamOwned::new(client, self.connect_plain())
    }

    /// Sends one request, over the kept connection if there is one.
    ///
    /// # Panics
    /// If the server does not answer.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let bytes = [head.as_bytes(), body].concat();
        let take = || self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut reader) = take()
            // The server may have closed it in the meantime; then it has not read the request.
            && let Ok(answer) = exchange(&mut reader, &bytes)
        {
            return self.keep(reader, answer);
        }
        let mut reader = BufReader::new(self.connect());
        let answer = exchange(&mut reader, &bytes).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        self.keep(reader, answer)
    }

    fn keep(&self, reader: BufReader<Stream>, answer: Answer) -> Answer {
        if !answer.head.contains("connection: close") {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        }
        answer
    }
}

fn client(roots: &Arc<RootCertStore>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).expect("versions of TLS");
    Arc::new(builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth())
}

/// Sends a request as it is, and reads the answer.
///
/// # Errors
/// The connection is gone.
pub fn exchange<S: Read + Write>(reader: &mut BufReader<S>, request: &[u8]) -> io::Result<Answer> {
    reader.get_mut().write_all(request)?;
    reader.get_mut().flush()?;
    read_answer(reader)
}

/// Reads one answer whose length is told.
///
/// # Errors
/// The connection is gone.
pub fn read_answer(reader: &mut impl BufRead) -> io::Result<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let status = head.split_whitespace().nth(1).and_then(|text| text.parse().ok()).ok_or_else(broken)?;
    let told = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; told.ok_or_else(broken)?];
    reader.read_exact(&mut body)?;
    Ok(Answer { status, head, body })
}
