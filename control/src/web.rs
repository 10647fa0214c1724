//! The listener every HTTP API stands on: TLS or plain, and all the limits in one place.
//!
//! ```text
//!  accept ── connections_max ── TLS handshake ── head ── body, whole and limited ── Api::call ── answer
//!                                    │             │         │                          │
//!                             handshake_timeout  head_timeout  body_timeout       write_timeout
//! ```
//!
//! HTTP/1.1. Everything runs on the thread that started it, by `spawn_local`: an [`Api`] may hold an `Rc` of the server
//! and borrow its state for moments, and nothing is sent between threads. An axum router can be asked inside
//! [`Api::call`] (`router.oneshot(request)`). Plain HTTP is for loopback only; elsewhere it is refused before the
//! socket is opened.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::auth::throttle::network_of;

/// What one API does with a request.
pub trait Api: 'static {
    /// Answers a request whose body has arrived as a whole. May wait for as long as the API wants; if the client
    /// goes, the future is dropped.
    fn call(&self, peer: Peer, request: Request<Bytes>) -> impl Future<Output = Response<Body>>;

    /// Answers a request that was refused before it got here: 400 (broken body), 408 (the body took too long) or 413
    /// (it is too long).
    fn refuse(&self, status: StatusCode) -> Response<Body> {
        let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        response
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// Every limit of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at a time. Further ones are closed at once.
    pub connections_max: usize,
    /// Connections at a time of one source: an IPv4 address or an IPv6 /64. Further ones are closed at once.
    pub connections_of_source_max: usize,
    /// The same for loopback, where proxies of many clients may be.
    pub connections_of_loopback_max: usize,
    /// Bytes of a request's head, 8192 at least.
    pub head_bytes_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a connection's first request may take to arrive.
    pub first_head_timeout: Duration,
    /// How long a connection may rest between two requests, the head of the next one included.
    pub head_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// How long requests that are being answered may go on after the listener was told to stop.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_of_source_max: 64,
            connections_of_loopback_max: 1024,
            head_bytes_max: 16 * 1024,
            headers_max: 64,
            body_bytes_max: 64 * 1024,
            handshake_timeout: Duration::from_secs(10),
            first_head_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// Why nothing is served at an address.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// It would be readable on the way.
    #[error(
        "{api} is to listen at {address} without TLS: plain HTTP is served on loopback only. Give `tls.cert` and \
         `tls.key` in the configuration (`ringbridge check --make-cert DIR --name HOST` makes a pair), or listen at \
         127.0.0.1"
    )]
    PlainNotLoopback {
        /// Which API.
        api: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// The system refuses.
    #[error("can't listen at {address} for {api}: {source}")]
    Bind {
        /// Which API.
        api: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// An open listener that serves nobody yet.
#[derive(Debug)]
pub struct Listener {
    api: &'static str,
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

/// A listener at work. It stops when told to, or when this is dropped.
#[derive(Debug)]
pub struct Serving {
    stop: watch::Sender<bool>,
    counts: Rc<Counts>,
}

/// What a listener counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections there are.
    pub open: Cell<usize>,
    /// Connections there were, those included.
    pub accepted: Cell<u64>,
    /// Connections closed at once because there were too many, of all or of their source.
    pub refused: Cell<u64>,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Cell<u64>,
    /// Requests that reached the API.
    pub requests: Cell<u64>,
}

impl Listener {
    /// Opens a listener for the API of that name. With `tls` it serves TLS, otherwise plain HTTP.
    ///
    /// # Errors
    /// [`WebError`].
    pub async fn bind(
        api: &'static str,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, WebError> {
        if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(WebError::PlainNotLoopback { api, address });
        }
        let refused = |source| WebError::Bind { api, address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { api, address, listener, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves from now on, on this thread's `LocalSet`.
    pub fn serve(self, api: impl Api, limits: Limits) -> Serving {
        let (stop, stopping) = watch::channel(false);
        let counts = Rc::new(Counts::default());
        let shared = Rc::new(Shared { api, limits, counts: Rc::clone(&counts), name: self.api });
        tracing::info!(api = self.api, address = %self.address, tls = self.tls.is_some(), "listening");
        spawn_local(accept(self.listener, self.tls.map(TlsAcceptor::from), shared, stopping));
        Serving { stop, counts }
    }
}

impl Serving {
    /// What it counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Accepts nobody any more, lets what is being answered end, for [`Limits::stop_timeout`] at most, and closes
    /// every connection. Returns when all are gone.
    pub async fn stop(&self) {
        // Nobody listens to it any more when all has ended.
        let _ = self.stop.send(true);
        self.stop.closed().await;
    }
}

struct Shared<A> {
    api: A,
    limits: Limits,
    counts: Rc<Counts>,
    name: &'static str,
}

async fn accept<A: Api>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Rc<Shared<A>>,
    mut stopping: watch::Receiver<bool>,
) {
    let counts = &shared.counts;
    let mut connections = JoinSet::new();
    let sources = Sources::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut stopping) => break,
            Some(_) = connections.join_next() => {
                counts.open.set(connections.len());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(api = shared.name, %error, "a connection can't be accepted");
                sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let has_room = connections.len() < shared.limits.connections_max;
        let Some(place) = has_room.then(|| sources.take(address.ip(), &shared.limits)).flatten() else {
            counts.refused.set(counts.refused.get() + 1);
            continue;
        };
        let peer = Peer { address, tls: tls.is_some() };
        let connection = connection(stream, peer, tls.clone(), Rc::clone(&shared), stopping.clone());
        connections.spawn_local(async move {
            connection.await;
            drop(place);
        });
        counts.accepted.set(counts.accepted.get() + 1);
        counts.open.set(connections.len());
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(shared.limits.stop_timeout, rest).await.is_err() {
        tracing::warn!(api = shared.name, "connections were closed in the middle of an answer");
        connections.shutdown().await;
    }
    counts.open.set(0);
}

/// How many connections each source has; no more of them than there are connections.
#[derive(Clone, Default)]
struct Sources(Rc<RefCell<HashMap<IpAddr, usize>>>);

/// The place of one connection.
struct Place {
    sources: Sources,
    source: IpAddr,
}

impl Sources {
    fn take(&self, ip: IpAddr, limits: &Limits) -> Option<Place> {
        let source = network_of(ip);
        let is_loopback = ip.to_canonical().is_loopback();
        let max = if is_loopback { limits.connections_of_loopback_max } else { limits.connections_of_source_max };
        let mut open = self.0.borrow_mut();
        let of_source = open.get(&source).copied().unwrap_or_default();
        if of_source >= max {
            return None;
        }
        open.insert(source, of_source + 1);
        Some(Place { sources: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.0.borrow_mut();
        match open.get_mut(&self.source) {
            Some(of_source) if *of_source > 1 => *of_source -= 1,
            Some(_) | None => drop(open.remove(&self.source)),
        }
    }
}

/// Waits until the listener is told to stop, or nobody is left to tell it.
async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error says that the handle is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn connection<A: Api>(
    stream: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    shared: Rc<Shared<A>>,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let stream = Stalling::new(stream, shared.limits.write_timeout);
    let Some(tls) = tls else { return http(stream, peer, shared, stopping).await };
    let handshake = timeout(shared.limits.handshake_timeout, tls.accept(stream));
    let failed = tokio::select! {
        handshake = handshake => match handshake {
            Ok(Ok(stream)) => return http(stream, peer, shared, stopping).await,
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        },
        () = told(&mut stopping) => return,
    };
    shared.counts.handshakes_failed.set(shared.counts.handshakes_failed.get() + 1);
    tracing::debug!(api = shared.name, peer = %peer.address, error = %failed, "TLS handshake failed");
}

async fn http<A: Api>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: Peer,
    shared: Rc<Shared<A>>,
    mut stopping: watch::Receiver<bool>,
) {
    let limits = shared.limits;
    let name = shared.name;
    let asked = Rc::new(Cell::new(false));
    let has_asked = Rc::clone(&asked);
    let service = service_fn(move |request| {
        has_asked.set(true);
        let shared = Rc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max.max(HEAD_BYTES_MIN))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let silent = async {
        sleep(limits.first_head_timeout).await;
        if asked.get() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => {
            tracing::debug!(api = name, peer = %peer.address, "no request came");
            return;
        }
        () = told(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(api = name, peer = %peer.address, %error, "connection ended");
    }
}

async fn answer<A: Api>(shared: &Shared<A>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let limits = &shared.limits;
    let (head, body) = request.into_parts();
    // What says that it is too long is not read.
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return closing(shared.api.refuse(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let whole = timeout(limits.body_timeout, Limited::new(body, limits.body_bytes_max).collect()).await;
    let body = match whole {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return closing(shared.api.refuse(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Ok(Err(_)) => return closing(shared.api.refuse(StatusCode::BAD_REQUEST)),
        Err(_) => return closing(shared.api.refuse(StatusCode::REQUEST_TIMEOUT)),
    };
    shared.counts.requests.set(shared.counts.requests.get() + 1);
    shared.api.call(peer, Request::from_parts(head, body)).await
}

/// What is left of the request is not read: no other can follow.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// A stream that fails when the other side takes nothing for too long.
struct Stalling<S> {
    stream: S,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, done)
    }
}

/// What hyper needs at least for a head.
const HEAD_BYTES_MIN: usize = 8192;
/// Pause after an accept that failed, mostly for lack of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::LocalSet;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::tls;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// Says what was asked, from state that can't leave its thread; `/wait` until it is told to go on.
    #[derive(Default)]
    struct Echo {
        asked: Rc<RefCell<Vec<String>>>,
        go_on: Rc<Notify>,
    }

    impl Api for Echo {
        async fn call(&self, peer: Peer, request: Request<Bytes>) -> Response<Body> {
            self.asked.borrow_mut().push(request.uri().path().to_owned());
            match request.uri().path() {
                "/wait" => self.go_on.notified().await,
                "/large" => return Response::new(Body::from(vec![b'x'; 64 << 20])),
                _ => {}
            }
            Response::new(Body::from(format!("tls={} {}", peer.tls, String::from_utf8_lossy(request.body()))))
        }

        fn refuse(&self, status: StatusCode) -> Response<Body> {
            let mut response = Response::new(Body::from("refused by the API"));
            *response.status_mut() = status;
            response
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(60), test).await.unwrap() });
    }

    async fn plain(limits: Limits) -> (SocketAddr, Serving, Rc<Notify>, Rc<RefCell<Vec<String>>>) {
        let listener = Listener::bind("echo", LOOPBACK, None).await.unwrap();
        let address = listener.address();
        let echo = Echo::default();
        let (go_on, asked) = (Rc::clone(&echo.go_on), Rc::clone(&echo.asked));
        (address, listener.serve(echo, limits), go_on, asked)
    }

    /// Sends `request`, and reads until the server closes.
    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may close before all is sent.
        let _ = stream.write_all(request).await;
        rest(&mut stream).await
    }

    async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads one answer whose body is `body`.
    async fn read_answer(stream: &mut (impl AsyncRead + Unpin), body: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(body) {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            assert!(read > 0, "closed after {text}");
            text += &String::from_utf8_lossy(&bytes[..read]);
        }
        text
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn post(path: &str, body: &str) -> Vec<u8> {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn plain_http_answers_several_requests_on_one_connection() {
        run(async {
            let (address, serving, _, asked) = plain(Limits::default()).await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            for path in ["/a", "/b"] {
                stream.write_all(&post(path, "hello")).await.unwrap();
                let answer = read_answer(&mut stream, "tls=false hello").await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            }
            assert_eq!(*asked.borrow(), ["/a", "/b"]);
            assert_eq!((serving.counts().accepted.get(), serving.counts().requests.get()), (1, 2));
            drop(stream);
            until(|| serving.counts().open.get() == 0).await;
        });
    }

    #[test]
    fn tls_is_served_to_who_trusts_the_certificate_and_plain_text_is_not() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let files = tls::make_certificate(dir.path(), &["media.example".to_owned()]).unwrap();
            let listener = Listener::bind("echo", LOOPBACK, Some(tls::load(&files).unwrap())).await.unwrap();
            let address = listener.address();
            let serving = listener.serve(Echo::default(), Limits::default());
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&files.cert).unwrap()).unwrap();
            let client = |roots| {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
                TlsConnector::from(Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth()))
            };
            let name = ServerName::try_from("media.example").unwrap();
            let stream = TcpStream::connect(address).await.unwrap();
            let mut stream = client(roots).connect(name.clone(), stream).await.unwrap();
            stream.write_all(&post("/", "secret")).await.unwrap();
            read_answer(&mut stream, "tls=true secret").await;
            let stream = TcpStream::connect(address).await.unwrap();
            client(RootCertStore::empty()).connect(name, stream).await.unwrap_err();
            assert!(!exchange(address, &post("/", "plain")).await.contains("200 OK"));
            until(|| serving.counts().handshakes_failed.get() == 2).await;
            assert_eq!(serving.counts().requests.get(), 1);
        });
    }

    #[test]
    fn a_handshake_that_never_comes_is_not_waited_for() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let files = tls::make_certificate(dir.path(), &[]).unwrap();
            let listener = Listener::bind("echo", LOOPBACK, Some(tls::load(&files).unwrap())).await.unwrap();
            let address = listener.address();
            let limits = Limits { handshake_timeout: Duration::from_millis(20), ..Limits::default() };
            let serving = listener.serve(Echo::default(), limits);
            assert_eq!(exchange(address, b"").await, "");
            until(|| serving.counts().handshakes_failed.get() == 1).await;
        });
    }

    #[test]
    fn plain_http_stays_on_loopback() {
        run(async {
            for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
                let error = Listener::bind("ICWS", address.parse().unwrap(), None).await.unwrap_err();
                assert!(matches!(error, WebError::PlainNotLoopback { .. }));
                let text = error.to_string();
                assert!(text.contains("ICWS") && text.contains("--make-cert") && text.contains("127.0.0.1"), "{text}");
            }
            let taken = Listener::bind("a", LOOPBACK, None).await.unwrap();
            let error = Listener::bind("b", taken.address(), None).await.unwrap_err();
            assert!(error.to_string().starts_with("can't listen at"), "{error}");
        });
    }

    #[test]
    fn what_is_too_long_is_refused() {
        run(async {
            let limits = Limits { body_bytes_max: 10, headers_max: 8, ..Limits::default() };
            let (address, serving, ..) = plain(limits).await;
            let fits = exchange(address, b"POST / HTTP/1.0\r\nContent-Length: 10\r\n\r\n0123456789").await;
            assert!(fits.contains("200 OK"), "{fits}");
            let long = exchange(address, &post("/", "01234567890")).await;
            assert!(long.contains("413 Payload Too Large") && long.contains("refused by the API"), "{long}");
            // One that does not say how long it is.
            let chunks =
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n";
            let long = exchange(address, chunks).await;
            assert!(long.contains("413 Payload Too Large"), "{long}");
            let broken = exchange(address, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
            assert!(broken.contains("400 Bad Request"), "{broken}");
            let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(9));
            let many = exchange(address, many.as_bytes()).await;
            assert!(many.contains("431 "), "{many}");
            let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(20_000));
            let head = exchange(address, head.as_bytes()).await;
            assert!(head.contains("431 "), "{head}");
            assert_eq!(serving.counts().requests.get(), 1, "none of them reached the API");
        });
    }

    #[test]
    fn who_is_slow_is_dropped() {
        run(async {
            let brief = Duration::from_millis(50);
            let limits = Limits { head_timeout: brief, body_timeout: brief, write_timeout: brief, ..Limits::default() };
            let (address, serving, ..) = plain(limits).await;
            // Never says anything; half a head; rests after a request.
            assert!(!exchange(address, b"").await.contains("200 OK"));
            assert!(!exchange(address, b"GET / HTTP/1.1\r\nHost:").await.contains("200 OK"));
            assert!(exchange(address, &post("/", "x")).await.ends_with("tls=false x"));
            // Half a body.
            let half = exchange(address, b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n01234").await;
            assert!(half.contains("408 Request Timeout"), "{half}");
            // Takes nothing of a long answer: what the kernel holds of it is not all.
            let mut lazy = TcpStream::connect(address).await.unwrap();
            lazy.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            until(|| serving.counts().requests.get() == 2 && serving.counts().open.get() == 0).await;
            assert!(rest(&mut lazy).await.len() < 64 << 20);
        });
    }

    /// Of three connections from one source the last is closed, until another has gone.
    fn the_third_is_closed(limits: Limits) {
        run(async {
            let (address, serving, ..) = plain(limits).await;
            let first = TcpStream::connect(address).await.unwrap();
            let _second = TcpStream::connect(address).await.unwrap();
            until(|| serving.counts().open.get() == 2).await;
            assert_eq!(exchange(address, &post("/", "x")).await, "");
            assert_eq!(serving.counts().refused.get(), 1);
            drop(first);
            until(|| serving.counts().open.get() == 1).await;
            let mut third = TcpStream::connect(address).await.unwrap();
            third.write_all(&post("/", "x")).await.unwrap();
            read_answer(&mut third, "tls=false x").await;
        });
    }

    #[test]
    fn too_many_connections_are_closed_at_once() {
        the_third_is_closed(Limits { connections_max: 2, ..Limits::default() });
    }

    #[test]
    fn one_source_does_not_take_every_connection() {
        the_third_is_closed(Limits { connections_of_loopback_max: 2, ..Limits::default() });
    }

    #[test]
    fn a_source_is_an_address_or_an_ipv6_network() {
        let limits = Limits { connections_of_source_max: 2, connections_of_loopback_max: 3, ..Limits::default() };
        let sources = Sources::default();
        let take = |ip: &str| sources.take(ip.parse().unwrap(), &limits);
        let mut held = vec![take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap()];
        assert!(take("192.0.2.1").is_none());
        held.extend([take("192.0.2.2").unwrap(), take("2001:db8::1").unwrap(), take("2001:db8::2:1").unwrap()]);
        assert!(take("2001:db8::3").is_none());
        held.push(take("2001:db8:0:1::3").unwrap());
        for ip in ["127.0.0.1", "::1"] {
            held.extend((0..3).map(|_| take(ip).unwrap()));
            assert!(take(ip).is_none());
        }
        held.remove(0);
        held.push(take("192.0.2.1").unwrap());
        drop(held);
        assert!(sources.0.borrow().is_empty());
    }

    #[test]
    fn the_first_request_has_less_time_than_the_next() {
        run(async {
            let limits = Limits { first_head_timeout: Duration::from_millis(50), ..Limits::default() };
            let (address, serving, go_on, _) = plain(limits).await;
            // Still being answered when the time of the first head is over, and still there after that.
            let mut asking = TcpStream::connect(address).await.unwrap();
            asking.write_all(&post("/wait", "x")).await.unwrap();
            until(|| serving.counts().requests.get() == 1).await;
            // Less than the minute a test has.
            assert_eq!(exchange(address, b"").await, "");
            assert_eq!(exchange(address, b"GET / HTTP/1.1\r\nHost:").await, "");
            go_on.notify_one();
            read_answer(&mut asking, "tls=false x").await;
            asking.write_all(&post("/", "y")).await.unwrap();
            read_answer(&mut asking, "tls=false y").await;
        });
    }

    #[test]
    fn stopping_lets_answers_end_and_closes_what_rests() {
        run(async {
            let (address, serving, go_on, asked) = plain(Limits::default()).await;
            let mut resting = TcpStream::connect(address).await.unwrap();
            let mut busy = TcpStream::connect(address).await.unwrap();
            busy.write_all(&post("/wait", "late")).await.unwrap();
            until(|| !asked.borrow().is_empty()).await;
            let stopped = spawn_local(async move { serving.stop().await });
            assert_eq!(rest(&mut resting).await, "");
            assert!(!stopped.is_finished());
            go_on.notify_one();
            assert!(rest(&mut busy).await.ends_with("tls=false late"));
            stopped.await.unwrap();
            TcpStream::connect(address).await.unwrap_err();
        });
    }

    #[test]
    fn stopping_does_not_wait_for_ever() {
        run(async {
            let limits = Limits { stop_timeout: Duration::from_millis(20), ..Limits::default() };
            let (address, serving, _, asked) = plain(limits).await;
            let mut busy = TcpStream::connect(address).await.unwrap();
            busy.write_all(&post("/wait", "never")).await.unwrap();
            until(|| !asked.borrow().is_empty()).await;
            serving.stop().await;
            assert_eq!(rest(&mut busy).await, "");
            assert_eq!(serving.counts().open.get(), 0);
        });
    }

    #[test]
    fn a_client_that_goes_takes_its_request_along() {
        run(async {
            let (address, serving, _, asked) = plain(Limits::default()).await;
            let mut waiting = TcpStream::connect(address).await.unwrap();
            waiting.write_all(&post("/wait", "x")).await.unwrap();
            until(|| !asked.borrow().is_empty()).await;
            drop(waiting);
            until(|| serving.counts().open.get() == 0).await;
        });
    }
}
