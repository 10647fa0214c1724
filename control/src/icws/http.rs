//! Requests and answers: which call it is, who may make it, and what its body says.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::sleep;

use super::connection::{self, SignedIn};
use super::fault::Fault;
use super::mailbox;
use super::session::{COOKIE, Session, Topic};
use super::{Icws, MESSAGE_ID, download, features, openapi, play};
use crate::audit::{self, Noted, Outcome, Who};
use crate::store::voicemail::{Message, MessageKind};
use crate::urlencoded::decode;
use crate::web::{Api, Peer};

/// The API as a listener serves it.
pub(super) struct Http(pub(super) Rc<Icws>);

/// What an address names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'a> {
    SignIn,
    Version,
    Features,
    Feature(&'a str),
    ServerTime,
    OpenApi,
    /// A call of a session.
    Session(&'a str, Call<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call<'a> {
    Connection,
    Station,
    Heartbeat,
    Messages,
    Subscription(Topic),
    CountRefresh,
    Message(&'a str),
    PlayStart(&'a str),
    PlayStop(&'a str),
    File(&'a str),
}

/// A request on its way through.
struct Cx<'a> {
    icws: &'a Rc<Icws>,
    peer: Peer,
    request: &'a Request<Bytes>,
}

impl Api for Http {
    async fn call(&self, peer: Peer, request: Request<Bytes>) -> Response<Body> {
        let icws = Rc::clone(&self.0);
        // What was asked for is carried out to its end even if the client goes in the middle of it.
        let answered = spawn_local(async move {
            let received = Instant::now();
            let cx = Cx { icws: &icws, peer, request: &request };
            let mut user = None;
            let (result, noted) = audit::scope(cx.answer(&mut user)).await;
            cx.record(user.as_deref(), &result, &noted, received);
            let mut response = result.unwrap_or_else(|fault| refused(&fault));
            cx.allow_origin(&mut response);
            response
        });
        answered.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request was not carried out to its end");
            refused(&Fault::internal("an internal fault; the log of the server has the details"))
        })
    }

    fn refuse(&self, status: StatusCode) -> Response<Body> {
        refused(&Fault::of_status(status))
    }
}

impl<'a> Route<'a> {
    /// What a path names, and the methods there are.
    fn of(path: &'a str) -> Option<(Self, &'static str)> {
        let segments: Vec<&str> = path.strip_prefix("/icws/")?.split('/').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        Some(match segments[..] {
            ["connection"] => (Self::SignIn, "POST"),
            ["connection", "version"] => (Self::Version, "GET"),
            ["connection", "features"] => (Self::Features, "GET"),
            ["connection", "features", feature] => (Self::Feature(feature), "GET"),
            ["connection", "server-time"] => (Self::ServerTime, "GET"),
            ["openapi.json"] => (Self::OpenApi, "GET"),
            [session, ref call @ ..] => {
                let (call, allow) = match *call {
                    ["connection"] => (Call::Connection, "GET, DELETE"),
                    ["connection", "station"] => (Call::Station, "GET, PUT, DELETE"),
                    ["messaging", "heartbeat"] => (Call::Heartbeat, "POST"),
                    ["messaging", "messages"] => (Call::Messages, "GET"),
                    ["messaging", "subscriptions", "unified-messaging", topic] => {
                        let topic = match topic {
                            "voicemail-messages" => Topic::Voicemail,
                            "fax-messages" => Topic::Fax,
                            "messages-waiting-indicator" => Topic::Waiting,
                            _ => return None,
                        };
                        (Call::Subscription(topic), "PUT, DELETE")
                    }
                    ["unified-messaging", "messages-waiting-indicator", "count-refresh"] => (Call::CountRefresh, "PUT"),
                    ["unified-messaging", id] => (Call::Message(id), "PUT, DELETE"),
                    ["unified-messaging", id, "voicemail-message", "play", "start"] => (Call::PlayStart(id), "POST"),
                    ["unified-messaging", id, "voicemail-message", "play", "stop"] => (Call::PlayStop(id), "POST"),
                    ["files", name] => (Call::File(name), "GET"),
                    _ => return None,
                };
                (Self::Session(session, call), allow)
            }
            [] => return None,
        })
    }

    /// What it is called in the log.
    fn name(self) -> &'static str {
        match self {
            Self::SignIn => "connection",
            Self::Version => "version",
            Self::Features | Self::Feature(_) => "features",
            Self::ServerTime => "server-time",
            Self::OpenApi => "openapi",
            Self::Session(_, call) => match call {
                Call::Connection => "session",
                Call::Station => "station",
                Call::Heartbeat => "heartbeat",
                Call::Messages => "messages",
                Call::Subscription(_) => "subscription",
                Call::CountRefresh => "count-refresh",
                Call::Message(_) => "message",
                Call::PlayStart(_) => "play.start",
                Call::PlayStop(_) => "play.stop",
                Call::File(_) => "file",
            },
        }
    }
}

impl Cx<'_> {
    async fn answer(&self, user: &mut Option<String>) -> Result<Response<Body>, Fault> {
        if self.request.method() == Method::OPTIONS && self.origin().is_some() {
            return Ok(preflight());
        }
        let (route, allow) = Route::of(self.request.uri().path()).ok_or_else(Fault::not_found)?;
        if !allow.split(", ").any(|method| self.request.method().as_str() == method) {
            return Err(Fault::method(allow));
        }
        match route {
            Route::SignIn => {
                let answer = self.sign_in().await?;
                *user = Some(answer.credentials.session.user.clone());
                self.created(&answer)
            }
            Route::Version => Ok(reply(StatusCode::OK, &connection::version())),
            Route::Features => Ok(reply(StatusCode::OK, &json!({"featureInfoList": features()}))),
            Route::Feature(id) => {
                let id = decode(id);
                let feature = features().into_iter().find(|feature| feature["featureId"] == id);
                let unknown = || Fault::invalid("featureId", format!("there is no feature {id}"));
                Ok(reply(StatusCode::OK, &feature.ok_or_else(unknown)?))
            }
            Route::ServerTime => Ok(reply(StatusCode::OK, &connection::server_time())),
            Route::OpenApi => Ok(typed(StatusCode::OK, "application/json", openapi::document().to_string())),
            Route::Session(id, call) => {
                let session = self.icws.sessions.find(tokio::time::Instant::now(), id, &self.cookies())?;
                *user = Some(session.user.clone());
                // An event source and a link can't set headers.
                let readable = matches!(call, Call::Messages | Call::File(_));
                if !readable && !self.header(CSRF.as_str()).is_some_and(|token| session.has_csrf(token)) {
                    return Err(Fault::csrf());
                }
                self.carry_out(&session, call).await
            }
        }
    }

    async fn carry_out(&self, session: &Rc<Session>, call: Call<'_>) -> Result<Response<Body>, Fault> {
        let (icws, user) = (self.icws, &session.user);
        let method = self.request.method();
        match call {
            Call::Connection if method == Method::DELETE => {
                icws.sessions.end(session);
                icws.leave(session).await;
                Ok(empty(StatusCode::OK))
            }
            Call::Connection => Ok(reply(StatusCode::OK, &json!({"connectionState": 1}))),
            Call::Station if method == Method::DELETE => {
                session.station.replace(None);
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Call::Station if method == Method::PUT => {
                connection::set_station(icws, session, &self.body()?).await?;
                Ok(empty(StatusCode::OK))
            }
            Call::Station => Ok(reply(StatusCode::OK, &connection::station(session))),
            Call::Heartbeat => Ok(empty(StatusCode::NO_CONTENT)),
            Call::Messages if self.wants_stream() => Ok(stream(Rc::clone(icws), Rc::clone(session))),
            Call::Messages => {
                let messages = if session.has_stream() { Vec::new() } else { icws.take_messages(session).await };
                Ok(reply(StatusCode::OK, &messages.into()))
            }
            Call::Subscription(topic) if method == Method::DELETE => {
                session.subscribe(topic, false);
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Call::Subscription(topic) => {
                let before = session.is_subscribed(topic);
                // Before the mailbox is read, so that nothing is missed.
                session.subscribe(topic, true);
                icws.tell_all(session, topic).await.inspect_err(|_| session.subscribe(topic, before))?;
                Ok(empty(StatusCode::OK))
            }
            Call::CountRefresh => {
                if session.is_subscribed(Topic::Waiting) {
                    icws.tell_all(session, Topic::Waiting).await?;
                }
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Call::Message(id) if method == Method::DELETE => {
                icws.delete(&icws.message(user, id).await?).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Call::Message(id) => {
                let message = icws.message(user, id).await?;
                icws.set_read(user, message.id, state(&self.body()?)?).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Call::PlayStart(id) => {
                let message = voicemail(icws.message(user, id).await?)?;
                let body = self.body()?;
                let read = state(&body)?;
                let (station, property) = self.target(session, &body).await?;
                play::start(icws, session, &message, read, &station, property).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Call::PlayStop(id) => {
                let message = voicemail(icws.message(user, id).await?)?;
                if !self.request.body().is_empty() {
                    self.body()?;
                }
                let effect = play::stop(icws, user, message.id).await?;
                let mut response = empty(StatusCode::NO_CONTENT);
                let effect = effect.and_then(|effect| HeaderValue::from_str(&effect.to_string()).ok());
                if let Some(effect) = effect {
                    response.headers_mut().insert(EFFECT, effect);
                }
                Ok(response)
            }
            Call::File(name) => self.file(user, name).await,
        }
    }

    async fn sign_in(&self) -> Result<SignedIn, Fault> {
        if self.header(header::ACCEPT_LANGUAGE.as_str()).is_none_or(str::is_empty) {
            return Err(Fault::missing("Accept-Language"));
        }
        let query = self.request.uri().query().unwrap_or_default();
        let include = query.split('&').find_map(|pair| pair.strip_prefix("include=")).map(decode).unwrap_or_default();
        let include: Vec<String> = include.split(',').map(|item| item.trim().to_owned()).collect();
        connection::sign_in(self.icws, self.peer.address.ip(), &self.body()?, &include).await
    }

    fn created(&self, signed_in: &SignedIn) -> Result<Response<Body>, Fault> {
        let credentials = &signed_in.credentials;
        let id = &credentials.session.id;
        let secure = match (self.peer.tls, self.icws.server.config.icws.origins.is_empty()) {
            (true, true) => "; Secure",
            // Pages of other sites are to send it.
            (true, false) => "; Secure; SameSite=None",
            (false, _) => "",
        };
        let cookie = format!("{COOKIE}{id}={}; Path=/icws/{id}; HttpOnly{secure}", credentials.cookie.as_str());
        let mut response = reply(StatusCode::CREATED, &signed_in.answer);
        let headers = response.headers_mut();
        for (name, value) in [(header::SET_COOKIE, cookie.as_str()), (CSRF, credentials.csrf.as_str()), (SESSION, id)] {
            let value = HeaderValue::from_str(value).map_err(|error| Fault::internal(error.to_string()))?;
            headers.insert(name, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Where a message is to be played, and which property said so.
    async fn target(&self, session: &Session, body: &connection::Body) -> Result<(String, &'static str), Fault> {
        let given = match body.get("playTarget") {
            None | Some(Value::Null) => None,
            Some(Value::Object(target)) => Some(target),
            Some(_) => return Err(Fault::invalid("playTarget", "playTarget is an object")),
        };
        let kind = given.map(|target| target.get("__type").and_then(Value::as_str).unwrap_or_default());
        match (kind.map(|kind| kind.strip_prefix("urn:inin.com:unifiedMessaging:")), given) {
            (None | Some(Some("currentStation")), _) => {
                let current = session.station.borrow().as_ref().and_then(|station| station.id.clone());
                Ok((current.ok_or_else(|| Fault::missing("playTarget"))?, "playTarget"))
            }
            (Some(Some("voicemailPlayTarget")), Some(target)) => {
                let name = connection::required(target, "target")?;
                let station = self.icws.station(name).await?;
                let unknown = || Fault::invalid("target", format!("there is no station or number {name}"));
                Ok((station.ok_or_else(unknown)?, "target"))
            }
            (Some(_), _) => {
                Err(Fault::invalid("playTarget", "playTarget is a currentStation or a voicemailPlayTarget"))
            }
        }
    }

    /// The file of a message.
    async fn file(&self, user: &str, name: &str) -> Result<Response<Body>, Fault> {
        let id = name.split('.').next().unwrap_or_default();
        let message = self.icws.message(user, id).await?;
        if mailbox::address_of(&message) != name {
            return Err(Fault::not_found());
        }
        // Bounded: who does not read is dropped by the listener, and gives his turn back.
        let turn = Arc::clone(&self.icws.downloads).acquire_owned();
        let turn = turn.await.map_err(|error| Fault::internal(error.to_string()))?;
        let path = self.icws.server.derived.audio_root.join(&message.content.file);
        let opened = spawn_blocking(move || download::open(&path).map_err(|error| (path, error))).await;
        let (file, length) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err((path, error))) => {
                tracing::warn!(?path, %error, "the file of a message can't be read");
                return Err(Fault::internal("the file of the message can't be read; the log of the server says why"));
            }
            Err(error) => return Err(Fault::internal(error.to_string())),
        };
        let mut response = Response::new(download::body(file, length, turn));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Ok(kind) = HeaderValue::from_str(&message.content.mime_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    /// The body, which has to be a JSON object.
    fn body(&self) -> Result<connection::Body, Fault> {
        if let Some(kind) = self.header(header::CONTENT_TYPE.as_str()) {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if ![MEDIA_TYPE, "application/json"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
                return Err(Fault::media_type());
            }
        }
        match serde_json::from_slice(self.request.body()) {
            Ok(Value::Object(body)) => Ok(body),
            Ok(_) => Err(Fault::malformed("the body is not a JSON object")),
            Err(error) => Err(Fault::malformed(format!("the body is not JSON: {error}"))),
        }
    }

    fn wants_stream(&self) -> bool {
        self.header(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains(EVENT_STREAM))
    }

    fn cookies(&self) -> Vec<(&str, &str)> {
        let headers = self.request.headers().get_all(header::COOKIE).into_iter();
        let texts = headers.filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('=')).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// The origin of the page that asks, if it may.
    fn origin(&self) -> Option<&HeaderValue> {
        let origin = self.request.headers().get(header::ORIGIN)?;
        let known = &self.icws.server.config.icws.origins;
        known.iter().any(|known| known.as_bytes() == origin.as_bytes()).then_some(origin)
    }

    fn allow_origin(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if !self.icws.server.config.icws.origins.is_empty() {
            headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin().cloned() else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }

    /// Writes what was asked to the audit log, reading and polling left out.
    fn record(&self, user: Option<&str>, result: &Result<Response<Body>, Fault>, noted: &Noted, received: Instant) {
        let method = self.request.method();
        if result.is_ok() && [Method::GET, Method::OPTIONS].contains(method) {
            return;
        }
        let path = self.request.uri().path();
        let route = Route::of(path).map(|(route, _)| route);
        let mut ids: Vec<&dyn std::fmt::Display> = Vec::new();
        if let Some(Route::Session(session, call)) = &route {
            ids.push(session);
            if let Call::Message(id) | Call::PlayStart(id) | Call::PlayStop(id) | Call::File(id) = call {
                ids.push(id);
            }
        }
        let code = result.as_ref().err().map(|fault| fault.status.as_str().to_owned());
        let name = route.map_or("unknown", Route::name);
        audit::record(&audit::Entry {
            who: user.map_or(Who::Unknown, Who::User),
            from: Some(self.peer.address),
            api: "icws",
            what: &format!("{} {name}", method.as_str()),
            ids: &ids,
            shard: noted.shard,
            effect: noted.effect.as_ref(),
            result: code.as_deref().map_or(Outcome::Done, Outcome::Refused),
            took: received.elapsed(),
        });
    }
}

/// Messages as they come, until the client goes, a new stream begins, or the session ends.
fn stream(icws: Rc<Icws>, session: Rc<Session>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(STREAM_FRAMES_MAX);
    let number = session.begin_stream();
    spawn_local(async move {
        feed(&session, number, &sender, async || icws.take_messages(&session).await).await;
        session.end_stream(tokio::time::Instant::now(), number);
    });
    let mut response = Response::new(Body::new(Stream(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn feed(session: &Session, number: u64, sender: &mpsc::Sender<Bytes>, mut take: impl AsyncFnMut() -> Vec<Value>) {
    while session.is_stream(number) {
        // Registered before the look, so nothing is missed between them.
        let changed = session.changed.notified();
        let messages = take().await;
        if !session.is_stream(number) {
            // They are for the stream that took over.
            return session.put_back(messages);
        }
        let text: String = messages.iter().map(|message| format!("data: {message}\n\n")).collect();
        let text = if text.is_empty() {
            tokio::select! {
                () = changed => continue,
                () = sender.closed() => return,
                () = sleep(STREAM_COMMENT_EVERY) => ": here\n\n".to_owned(),
            }
        } else {
            text
        };
        if sender.send(Bytes::from(text)).await.is_err() {
            // They are for whoever comes next.
            return session.put_back(messages);
        }
    }
}

/// The body of a stream of messages.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Only voicemail can be played.
fn voicemail(message: Message) -> Result<Message, Fault> {
    match message.content.kind {
        MessageKind::Voicemail => Ok(message),
        MessageKind::Fax => Err(Fault::invalid(MESSAGE_ID, format!("{} is no voicemail message", message.id))),
    }
}

/// `state` of a body: whether the message is read.
fn state(body: &connection::Body) -> Result<bool, Fault> {
    match body.get("state") {
        None | Some(Value::Null) => Err(Fault::missing("state")),
        Some(given) => match given.as_u64() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(_) | None => Err(Fault::invalid("state", "state is 0 (unread) or 1 (read)")),
        },
    }
}

fn refused(fault: &Fault) -> Response<Body> {
    let mut response = reply(fault.status, &fault.body());
    let headers = response.headers_mut();
    if fault.is_challenge() {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    if let Some(allow) = fault.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn preflight() -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    let allowed = "Accept, Accept-Language, Content-Type, ININ-ICWS-CSRF-Token, ININ-ICWS-Session-ID";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn reply(status: StatusCode, value: &Value) -> Response<Body> {
    typed(status, CONTENT_TYPE, value.to_string())
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Names of files and what was asked for stand in answers: nobody is to take those for a page.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

const MEDIA_TYPE: &str = "application/vnd.inin.icws+JSON";
const CONTENT_TYPE: &str = "application/vnd.inin.icws+JSON;charset=utf-8";
const EVENT_STREAM: &str = "text/event-stream";
const CSRF: HeaderName = HeaderName::from_static("inin-icws-csrf-token");
const SESSION: HeaderName = HeaderName::from_static("inin-icws-session-id");
/// From when on a stop can be heard: the `effect` of the control socket.
const EFFECT: HeaderName = HeaderName::from_static("ringbridge-effect");
const EXPOSED: &str = "ININ-ICWS-CSRF-Token, ININ-ICWS-Session-ID, Ringbridge-Effect";
const CHALLENGE: &str = "ICWS realm=\"ICWS\" location=\"/ICWS/connection\"";
/// How often a stream says that it is there.
const STREAM_COMMENT_EVERY: Duration = Duration::from_secs(15);
/// Writes that wait for a client that reads slowly; the messages behind them wait in the session's queue.
const STREAM_FRAMES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_calls() {
        let stop = "/icws/4711/unified-messaging/vm-1/voicemail-message/play/stop";
        assert_eq!(Route::of(stop), Some((Route::Session("4711", Call::PlayStop("vm-1")), "POST")));
        assert_eq!(Route::of("/icws/connection"), Some((Route::SignIn, "POST")));
        assert_eq!(Route::of("/icws/4711/connection"), Some((Route::Session("4711", Call::Connection), "GET, DELETE")));
        for path in [
            "/",
            "/icws",
            "/icws/",
            "/icws/4711",
            "/ICWS/connection",
            "/icws/4711/unified-messaging//voicemail-message/play/stop",
            "/icws/4711/unified-messaging/vm-1/voicemail-message/play/pause",
            "/icws/4711/messaging/subscriptions/unified-messaging/nothing",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    fn session() -> Rc<Session> {
        let opened = crate::icws::session::Sessions::default().open(tokio::time::Instant::now(), "anna", None);
        opened.unwrap_or_else(|fault| panic!("{fault:?}")).session
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_says_every_15_seconds_that_it_is_there() {
        let began = tokio::time::Instant::now();
        let session = session();
        let number = session.begin_stream();
        let (sender, mut receiver) = mpsc::channel(STREAM_FRAMES_MAX);
        let listening = async {
            for round in 1..=4 {
                assert_eq!(receiver.recv().await.unwrap(), ": here\n\n");
                assert_eq!(began.elapsed(), Duration::from_secs(15) * round);
            }
            // A message starts the time anew.
            sleep(Duration::from_secs(10)).await;
            session.push(json!({"a": "\n\ndata: x"}));
            assert_eq!(receiver.recv().await.unwrap(), "data: {\"a\":\"\\n\\ndata: x\"}\n\n");
            assert_eq!(receiver.recv().await.unwrap(), ": here\n\n");
            assert_eq!(began.elapsed(), Duration::from_secs(4 * 15 + 10 + 15));
            receiver.close();
        };
        tokio::join!(feed(&session, number, &sender, async || session.take().0), listening);
        assert_eq!(session.take().0, [] as [Value; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stream_could_not_send_waits_for_the_next() {
        let session = session();
        let number = session.begin_stream();
        session.push(json!(1));
        let (sender, receiver) = mpsc::channel(STREAM_FRAMES_MAX);
        drop(receiver);
        feed(&session, number, &sender, async || session.take().0).await;
        // Another stream begins while this one looks.
        let (sender, _receiver) = mpsc::channel(STREAM_FRAMES_MAX);
        let number = session.begin_stream();
        session.push(json!(2));
        let take = async || {
            session.begin_stream();
            session.take().0
        };
        feed(&session, number, &sender, take).await;
        session.push(json!(3));
        assert_eq!(session.take().0, [json!(1), json!(2), json!(3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lasts_five_minutes_after_its_stream() {
        let sessions = crate::icws::session::Sessions::default();
        let open = || sessions.open(tokio::time::Instant::now(), "anna", None).map(|opened| opened.session);
        let (idle, session) = (open().unwrap(), open().unwrap());
        let number = session.begin_stream();
        let (sender, receiver) = mpsc::channel(STREAM_FRAMES_MAX);
        let listening = async {
            sleep(Duration::from_secs(299)).await;
            assert_eq!(sessions.expire(tokio::time::Instant::now()).len(), 0);
            sleep(Duration::from_secs(1)).await;
            let gone = sessions.expire(tokio::time::Instant::now());
            assert_eq!(gone.iter().map(|session| &session.id).collect::<Vec<_>>(), [&idle.id]);
            // Hours of listening, with nothing to hear.
            let mut receiver = receiver;
            for _ in 0..1000 {
                receiver.recv().await.unwrap();
            }
            assert_eq!(sessions.expire(tokio::time::Instant::now()).len(), 0);
        };
        tokio::join!(feed(&session, number, &sender, async || session.take().0), listening);
        session.end_stream(tokio::time::Instant::now(), number);
        sleep(Duration::from_secs(299)).await;
        assert_eq!(sessions.expire(tokio::time::Instant::now()).len(), 0);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(sessions.expire(tokio::time::Instant::now()).len(), 1);
        assert!(session.has_ended());
    }

    #[test]
    fn every_described_path_is_served() {
        let document = openapi::document();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let path = path.replace("{sessionId}", "4711").replace(['{', '}'], "");
            let (_, allow) = Route::of(&path).unwrap_or_else(|| panic!("{path}"));
            let mut described: Vec<_> = methods.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
            let mut served: Vec<_> = allow.split(", ").map(str::to_owned).collect();
            described.sort();
            served.sort();
            assert_eq!(described, served, "{path}");
        }
    }
}
