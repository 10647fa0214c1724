//! The listener: requests, events by long poll and server-sent events, subscriptions, the end of scripts.
//!
//! HTTP/1 without TLS. Whatever a MediaControl answer is, is status 200 with a branch and results; other statuses are
//! faults of the HTTP request. Everything runs on the thread that holds the adapter.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout, timeout_at};

use super::CONTEXT_BYTES_MAX;
use super::codes::{Code, Fault};
use super::log::{Batch, Log, Subscriber};
use super::native::Announce;
use super::{Branch, MediaControl, openapi, webhook};
use crate::audit::{self, Noted, Outcome, Weight, Who};
use crate::begin::begin;
use crate::stop::{Stop, Stopping, stop};
use crate::urlencoded::{decode, pairs};

/// Serves the API on `listener` until it is told to stop. Then what waits for events is answered, and what is being
/// carried out has [`STOP_TIMEOUT`] to end.
pub(crate) fn serve(mc: Rc<MediaControl>, listener: TcpListener) -> Stop {
    let (stop, stopping) = stop();
    spawn_local(accept(mc, listener, stopping));
    stop
}

async fn accept(mc: Rc<MediaControl>, listener: TcpListener, mut stopping: Stopping) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.told() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn_local(serve_connection(Rc::clone(&mc), stream, peer, stopping.clone()));
            }
            Err(error) => {
                // Out of descriptors, or a client that went while it was waiting.
                tracing::warn!(%error, "a MediaControl client could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, rest).await.is_err() {
        tracing::warn!("MediaControl connections were closed in the middle of an answer");
        connections.shutdown().await;
    }
}

async fn serve_connection(mc: Rc<MediaControl>, stream: TcpStream, peer: SocketAddr, mut stopping: Stopping) {
    // A client that vanishes is found out, so that its script is not waited for.
    let timeout_ms = u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, timeout_ms) {
        tracing::debug!(%error, "no timeout for a MediaControl client");
    }
    drop(stream.set_nodelay(true));
    let told = stopping.clone();
    let service = service_fn(move |request| {
        let (mc, stopping) = (Rc::clone(&mc), told.clone());
        async move { Ok::<_, Infallible>(answer(&mc, request, peer, stopping).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.told() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a MediaControl client has gone");
    }
}

async fn answer(
    mc: &Rc<MediaControl>,
    request: Request<Incoming>,
    peer: SocketAddr,
    stopping: Stopping,
) -> Response<Reply> {
    let line = Line { peer, begun: Instant::now(), with_token: false };
    let Some(admitted) = admit(mc, &request, peer) else {
        line.write("unauthorized", &[], Some("401"), &Noted::default());
        let mut response = fault(StatusCode::UNAUTHORIZED, "a bearer token is needed");
        response.headers_mut().insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Bearer"));
        return response;
    };
    let line = Line { with_token: admitted == Admitted::Token, ..line };
    let path = request.uri().path().to_owned();
    let Some(rest) = path.strip_prefix("/MediaControl") else { return not_found() };
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        None if rest.is_empty() => rest,
        None => return not_found(),
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let method = request.method().clone();
    match (segments.as_slice(), method) {
        (["openapi.json"], Method::GET) => json_reply(StatusCode::OK, &openapi::document()),
        (["events"], Method::GET) => events(mc, &request, stopping).await,
        (["subscriptions"], method @ (Method::POST | Method::DELETE)) => {
            let response = subscription(mc, request).await;
            let what = if method == Method::POST { "subscribe" } else { "unsubscribe" };
            let refused = (!response.status().is_success()).then(|| response.status());
            line.write(what, &[], refused.as_ref().map(StatusCode::as_str), &Noted::default());
            response
        }
        (["scripts", guid, "end"], Method::POST) | (["scripts", guid], Method::DELETE) => {
            let guid = decode(guid);
            let (deleted, noted) = audit::scope(mc.end_script(&guid)).await;
            line.write("end_script", &[guid], None, &noted);
            json_reply(StatusCode::OK, &json!({"deleted": deleted}))
        }
        (["openapi.json" | "events"], _) => not_allowed("GET"),
        (["subscriptions"], _) => not_allowed("POST, DELETE"),
        (["scripts", _], _) => not_allowed("DELETE"),
        ([_] | ["scripts", _, "end"], other) if other != Method::POST => not_allowed("POST"),
        ([action], _) => {
            let action = (!action.is_empty()).then(|| decode(action));
            act(mc, request, action.as_deref(), &line).await
        }
        _ => not_found(),
    }
}

/// What the audit log says about a request.
#[derive(Clone, Copy)]
struct Line {
    peer: SocketAddr,
    begun: Instant,
    with_token: bool,
}

impl Line {
    fn write(&self, what: &str, ids: &[String], refused: Option<&str>, noted: &Noted) {
        let ids: Vec<&dyn fmt::Display> = ids.iter().map(|id| id as &dyn fmt::Display).collect();
        audit::record(&audit::Entry {
            who: if self.with_token { Who::Key("mediacontrol.token") } else { Who::Unknown },
            from: Some(self.peer),
            api: "mediacontrol",
            what,
            ids: &ids,
            shard: noted.shard,
            effect: noted.effect.as_ref(),
            result: refused.map_or(Outcome::Done, Outcome::Refused),
            took: self.begun.elapsed(),
        });
    }
}

/// Carries out an action.
async fn act(mc: &Rc<MediaControl>, request: Request<Incoming>, action: Option<&str>, line: &Line) -> Response<Reply> {
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let parsed = serde_json::from_slice(&body)
        .map_err(|error| Fault::new(Code::MalformedRequest, format!("not JSON: {error}")))
        .and_then(|value| super::Request::from_value(value, action));
    let response = match parsed {
        // To its end, and to its line in the log, even if the client goes in the middle of it.
        Ok(request) => {
            let (calling, line) = (Rc::clone(mc), *line);
            let ended = begin(async move { audited(&calling, request, line).await }).end().await;
            ended.unwrap_or_else(|| mc.failure(&Fault::new(Code::ServerInternal, "the command was ended")))
        }
        Err(fault) => {
            line.write(action.unwrap_or("malformed"), &[], Some(&fault.code.number().to_string()), &Noted::default());
            mc.failure(&fault)
        }
    };
    let text = response.to_value().to_string();
    // The end of what was started is told when hyper has taken these bytes to the connection.
    reply(StatusCode::OK, JSON, Reply::Whole { bytes: Some(text.into()), _announce: Some(response.announce) })
}

/// Carries out an action, and writes its line to the audit log.
async fn audited(mc: &MediaControl, request: super::Request, line: Line) -> super::Response {
    if !audit::is_on(Weight::Changes) {
        return mc.call(request).await;
    }
    let what = request.action.clone();
    let mut ids: Vec<String> = request.routing_guid.iter().cloned().collect();
    // Whatever their case: parameters are named as the caller likes.
    let named = request.params.iter().filter(|(name, _)| IDS.iter().any(|id| id.eq_ignore_ascii_case(name)));
    ids.extend(named.filter_map(|(_, id)| id.as_str().map(str::to_owned).or_else(|| Some(id.as_u64()?.to_string()))));
    let (response, noted) = audit::scope(mc.call(request)).await;
    for id in IDS.iter().filter_map(|name| response.results.get(*name)?.as_str()) {
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    let code = response.results.get("ResultCode").and_then(Value::as_str).unwrap_or("timeout");
    line.write(&what, &ids, (response.branch != Branch::Success).then_some(code), &noted);
    response
}

/// Events of a script: as a stream if that is asked for, else as soon as there are any.
async fn events(mc: &Rc<MediaControl>, request: &Request<Incoming>, mut stopping: Stopping) -> Response<Reply> {
    let query = query(request.uri().query().unwrap_or_default());
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let routing_guid = find("routingGuid").unwrap_or_default();
    let number = |text: Option<&str>| text.map(str::parse::<u64>).transpose();
    let (Ok(after), Ok(wait)) = (number(header("last-event-id").or_else(|| find("after"))), number(find("wait")))
    else {
        return fault(StatusCode::BAD_REQUEST, "after and wait are whole numbers");
    };
    if routing_guid.len() > CONTEXT_BYTES_MAX {
        return fault(StatusCode::BAD_REQUEST, "routingGuid is too long");
    }
    let after = after.unwrap_or_default();
    let Some(log) = mc.logs().open(routing_guid) else {
        return fault(StatusCode::SERVICE_UNAVAILABLE, "too many scripts");
    };
    let subscriber = Watched::new(mc, &log, find("digits") == Some("true"));
    if header("accept").is_some_and(|accept| accept.contains(EVENT_STREAM)) {
        let (sender, receiver) = mpsc::channel(STREAM_FRAMES_MAX);
        spawn_local(stream(log, after, subscriber, sender, stopping));
        let mut response = reply(StatusCode::OK, EVENT_STREAM, Reply::Stream(receiver));
        response.headers_mut().insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
        return response;
    }
    let wait = Duration::from_millis(wait.unwrap_or_default()).min(WAIT_MAX);
    let deadline = tokio::time::Instant::now() + wait;
    let batch = loop {
        // Registered before the look, so nothing is missed between them.
        let changed = log.changed.notified();
        let batch = log.read(after, BATCH_MAX);
        if !batch.events.is_empty() || batch.missed > 0 {
            break batch;
        }
        let waited = tokio::select! {
            waited = timeout_at(deadline, changed) => waited.is_err(),
            () = stopping.told() => true,
        };
        if waited {
            break batch;
        }
    };
    drop(subscriber);
    json_reply(StatusCode::OK, &batch_value(&log.routing_guid, &batch))
}

/// A batch of events on the wire.
pub(super) fn batch_value(routing_guid: &str, batch: &Batch) -> Value {
    let events: Vec<&Value> = batch.events.iter().map(|event| &**event).collect();
    json!({"routingGuid": routing_guid, "events": events, "next": batch.last, "missed": batch.missed})
}

/// Writes events until the client has gone, or the listener stops.
async fn stream(
    log: Rc<Log>,
    mut after: u64,
    subscriber: Watched,
    sender: mpsc::Sender<Bytes>,
    mut stopping: Stopping,
) {
    loop {
        let changed = log.changed.notified();
        let batch = log.read(after, BATCH_MAX);
        after = batch.last;
        let mut text = String::new();
        if batch.missed > 0 {
            text.push_str(&format!("event: gap\ndata: {}\n\n", json!({"missed": batch.missed})));
        }
        for event in &batch.events {
            text.push_str(&format!("id: {}\ndata: {event}\n\n", event["sequence"]));
        }
        if text.is_empty() {
            tokio::select! {
                () = changed => continue,
                () = sender.closed() => break,
                () = stopping.told() => break,
                () = sleep(HEARTBEAT) => text.push_str(": here\n\n"),
            }
        }
        if sender.send(text.into()).await.is_err() {
            break;
        }
    }
    drop(subscriber);
}

/// Registers or ends the posting of a script's events.
async fn subscription(mc: &Rc<MediaControl>, request: Request<Incoming>) -> Response<Reply> {
    let removes = request.method() == Method::DELETE;
    let in_query = query(request.uri().query().unwrap_or_default());
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let body = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice::<Value>(&body) };
    let Ok(body) = body else { return fault(StatusCode::BAD_REQUEST, "the body is not JSON") };
    let member = |name: &str| {
        let in_body = body[name].as_str().map(str::to_owned);
        in_body.or_else(|| in_query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
    };
    let routing_guid = member("routingGuid").unwrap_or_default();
    if routing_guid.len() > CONTEXT_BYTES_MAX {
        return fault(StatusCode::BAD_REQUEST, "routingGuid is too long");
    }
    if removes {
        return match webhook::remove(mc, &routing_guid) {
            true => json_reply(StatusCode::OK, &json!({})),
            false => fault(StatusCode::NOT_FOUND, "there is no subscription for this routingGuid"),
        };
    }
    let Some(url) = member("url") else { return fault(StatusCode::BAD_REQUEST, "url has to be given") };
    let digits = body["digits"] == true || member("digits").as_deref() == Some("true");
    let after = body["after"].as_u64().or_else(|| member("after")?.parse().ok()).unwrap_or_default();
    match webhook::register(mc, &routing_guid, &url, digits, after) {
        Ok(()) => json_reply(StatusCode::OK, &json!({"routingGuid": routing_guid, "url": url})),
        Err(webhook::Refused::NotAllowed) => {
            fault(StatusCode::FORBIDDEN, "mediacontrol.webhooks has no prefix that this url begins with")
        }
        Err(webhook::Refused::NotAnAddress) => fault(StatusCode::BAD_REQUEST, "url is not http://host:port/path"),
        Err(webhook::Refused::TooMany) => fault(StatusCode::SERVICE_UNAVAILABLE, "too many subscriptions"),
    }
}

/// A subscriber whose loss may end its script.
pub(super) struct Watched {
    subscriber: Option<Subscriber>,
    mc: Rc<MediaControl>,
    routing_guid: String,
}

impl Watched {
    pub(super) fn new(mc: &Rc<MediaControl>, log: &Rc<Log>, digits: bool) -> Self {
        let subscriber = Some(log.subscribe(digits));
        Self { subscriber, mc: Rc::clone(mc), routing_guid: log.routing_guid.clone() }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.subscriber.take());
        self.mc.watch_for_loss(&self.routing_guid);
    }
}

/// What is written to a client.
enum Reply {
    Whole { bytes: Option<Bytes>, _announce: Option<Announce> },
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(frames) => frames.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.is_none(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole { bytes, .. } => {
                let length = bytes.as_ref().map_or(0, |bytes| bytes.len());
                hyper::body::SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Self::Stream(_) => hyper::body::SizeHint::default(),
        }
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Box<Response<Reply>>> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let text = format!("a body has {BODY_BYTES_MAX} bytes at most");
            Err(Box::new(fault(StatusCode::PAYLOAD_TOO_LARGE, &text)))
        }
        Ok(Err(_)) => Err(Box::new(fault(StatusCode::BAD_REQUEST, "the body can't be read"))),
        Err(_) => Err(Box::new(fault(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))),
    }
}

/// Why a request is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Admitted {
    /// It comes from this machine.
    Own,
    /// It has the token.
    Token,
}

/// Whoever is on this machine needs no token; everybody else needs the one configured.
fn admit<T>(mc: &MediaControl, request: &Request<T>, peer: SocketAddr) -> Option<Admitted> {
    // What a proxy passes on, or a web page asks for, comes from this machine without being of it.
    let is_own =
        peer.ip().to_canonical().is_loopback() && !FOREIGN.iter().any(|name| request.headers().contains_key(*name));
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|given| given.strip_prefix("Bearer ")).zip(mc.config().token.as_ref());
    if given.is_some_and(|(given, token)| same(given.trim(), &token.0)) {
        return Some(Admitted::Token);
    }
    is_own.then_some(Admitted::Own)
}

/// Headers of requests that others have made.
const FOREIGN: &[&str] = &["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via", "origin"];

/// Compares in a time that depends on the lengths only.
fn same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

fn query(text: &str) -> Vec<(String, String)> {
    let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    pairs(text.as_bytes()).map(|(name, value)| (text_of(name), text_of(value))).collect()
}

fn json_reply(status: StatusCode, value: &Value) -> Response<Reply> {
    reply(status, JSON, Reply::Whole { bytes: Some(value.to_string().into()), _announce: None })
}

fn fault(status: StatusCode, message: &str) -> Response<Reply> {
    json_reply(status, &json!({"error": message}))
}

fn not_found() -> Response<Reply> {
    fault(StatusCode::NOT_FOUND, "see /MediaControl/openapi.json for what there is")
}

fn not_allowed(methods: &'static str) -> Response<Reply> {
    let mut response = fault(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static(methods));
    response
}

fn reply(status: StatusCode, content_type: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

/// Parameters and results that name what a command concerns.
const IDS: &[&str] = &["ConnectionId", "ConferenceId", "OperationId"];
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";
/// Clients at once; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Bytes of a request's line and headers.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a connection may be without a request, and how long the head of one may take.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the body of a request may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client's TCP may leave bytes unacknowledged.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long requests that are being answered may go on after the listener was told to stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest long poll.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Events in one answer.
pub const BATCH_MAX: usize = 256;
/// How often a stream says that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Writes that wait for a client that reads slowly; the events behind them wait in their log.
const STREAM_FRAMES_MAX: usize = 4;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MediaControlConfig, Secret};
    use crate::mediacontrol::tests::Rig;

    #[test]
    fn others_than_this_machine_need_the_token() {
        let ask = |token: Option<&str>, given: Option<&str>, peer: &str| {
            let token = token.map(|token| Secret(token.to_owned()));
            let rig = Rig::new(|config: &mut MediaControlConfig| config.token = token);
            let mut request = Request::new(());
            if let Some(given) = given {
                request.headers_mut().insert(AUTHORIZATION, given.parse().expect("a header"));
            }
            admit(&rig.mc, &request, peer.parse().expect("an address")).is_some()
        };
        assert!(ask(Some("right"), None, "127.0.0.1:5"));
        assert!(ask(Some("right"), None, "[::ffff:127.0.0.1]:5"));
        assert!(!ask(Some("right"), None, "192.0.2.1:5"));
        assert!(ask(Some("right"), Some("Bearer right"), "192.0.2.1:5"));
        for given in ["Bearer wrong", "Bearer righ", "Bearer right2", "Basic right", "Bearer", ""] {
            assert!(!ask(Some("right"), Some(given), "192.0.2.1:5"), "{given}");
        }
        assert!(!ask(None, Some("Bearer "), "192.0.2.1:5"));
    }

    #[test]
    fn queries_are_read() {
        let pairs = query("a=1&b=x%20y+z&c&d=%zz");
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "%zz")]);
    }
}
