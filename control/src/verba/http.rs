//! From a request to its action and back: path, method, decoding, form, action, key, token, in this order.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio::time::sleep;

use super::answer::{Code, Fault, Form, Success, response};
use super::query::{Query, action_of};
use super::{REQUEST_BYTES_MAX, Session, TOKENS_PER_KEY_MAX, Verba, openapi};
use crate::audit::{self, Noted, Outcome, Unanswered, Who};
use crate::auth::{LoginError, Password, Token};
use crate::begin::begin;
use crate::store::keys::{ApiKey, Scope};
use crate::store::users::{self, Role};
use crate::web::{Api, Peer};

/// The API as the listener sees it.
pub(super) struct VerbaApi(pub(super) Rc<Verba>);

/// A call of the API, once it is known who asks.
pub(super) struct Asked<'a> {
    pub(super) query: &'a Query,
    /// Name of the key.
    pub(super) key: &'a str,
    /// The zone times are told in.
    pub(super) zone: TimeZone,
    /// Who waits for the answer.
    pub(super) client: &'a Client,
    /// The id of the recording that is meant, once it is found.
    pub(super) found: &'a OnceCell<String>,
}

/// Whoever waits for an answer, as long as they do.
pub(super) struct Client(pub(super) watch::Receiver<()>);

impl Client {
    fn is_gone(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Returns when the client has gone.
    pub(super) async fn gone(&self) {
        let mut there = self.0.clone();
        while there.changed().await.is_ok() {}
    }
}

/// What a request is, once it is known who asks.
enum Admitted {
    /// It is answered, under the key of that name if it has one.
    Answered(Option<String>, Result<Success, Fault>),
    /// It wants something of a call.
    Asks { key: String, zone: TimeZone },
}

/// A request's line in the audit log.
struct Line {
    from: SocketAddr,
    action: String,
    /// What it names, as it came in.
    named: String,
    begun: Instant,
}

impl Line {
    fn write(&self, key: Option<&str>, found: Option<&String>, noted: &Noted, result: Outcome<'_>) {
        audit::record(&audit::Entry {
            who: key.map_or(Who::Unknown, Who::Key),
            from: Some(self.from),
            api: "verba",
            what: &self.action,
            ids: &[found.unwrap_or(&self.named)],
            shard: noted.shard,
            effect: noted.effect.as_ref(),
            result,
            took: self.begun.elapsed(),
        });
    }
}

/// What an action answers: in the envelope, or a file.
pub(super) enum Answered {
    Envelope(Success),
    File(Response<Body>),
}

impl Api for VerbaApi {
    async fn call(&self, peer: Peer, request: Request<Bytes>) -> Response<Body> {
        match request.uri().path() {
            "/verba/api" if !matches!(*request.method(), Method::GET | Method::POST) => not_allowed("GET, POST"),
            "/verba/openapi.json" if request.method() != Method::GET => not_allowed("GET"),
            "/verba/api" => self.0.answer(peer, &request).await,
            "/verba/openapi.json" => {
                let mut response = Response::new(Body::from(openapi::document().to_string()));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            _ => plain(StatusCode::NOT_FOUND, "see /verba/openapi.json for what there is\n"),
        }
    }
}

impl Verba {
    async fn answer(self: &Rc<Self>, peer: Peer, request: &Request<Bytes>) -> Response<Body> {
        let begun = Instant::now();
        let in_address = request.uri().query().unwrap_or_default();
        if in_address.len() + request.body().len() > REQUEST_BYTES_MAX {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "a request has 16 KiB at most\n");
        }
        let body = if is_form(request) { request.body().as_ref() } else { &[] };
        let query = match Query::parse(in_address, body) {
            Ok(query) => query,
            Err(fault) => return refused(Form::Xml, "", wants_file(&action_of(in_address, body)), fault),
        };
        let action = query.get("action").unwrap_or_default();
        let Some(form) = query.get("responseType").map_or(Some(Form::Xml), Form::parse) else {
            let fault = Fault(Code::Malformed, "responseType is XML, HTML or TEXT.".to_owned());
            return refused(Form::Xml, action, wants_file(action), fault);
        };
        let line = Line { from: peer.address, action: action.to_owned(), named: named(&query, action), begun };
        let unanswered = Unanswered::new(|| line.write(None, None, &Noted::default(), Outcome::Unanswered));
        let admitted = self.admitted(peer, request, &query, action).await;
        unanswered.answered();
        let answered = match admitted {
            Admitted::Answered(key, answered) => {
                line.write(key.as_deref(), None, &Noted::default(), outcome(&answered));
                answered.map(Answered::Envelope)
            }
            Admitted::Asks { key, zone } => self.carry_out(line, query.clone(), key, zone).await,
        };
        match answered {
            Ok(Answered::Envelope(success)) => response(form, action, &Ok(success)),
            Ok(Answered::File(file)) => file,
            Err(fault) => refused(form, action, wants_file(action), fault),
        }
    }

    /// Carries an action out to its end, with its line in the audit log, whether the client waits for it or not.
    async fn carry_out(
        self: &Rc<Self>,
        line: Line,
        query: Query,
        key: String,
        zone: TimeZone,
    ) -> Result<Answered, Fault> {
        let (client, there) = watch::channel(());
        let verba = Rc::clone(self);
        let work = begin(async move {
            let (client, found) = (Client(there), OnceCell::new());
            let asked = Asked { query: &query, key: &key, zone, client: &client, found: &found };
            let (answered, noted) = audit::scope(verba.act(&line.action, &asked)).await;
            let result = if answered.is_err() && client.is_gone() { Outcome::Unanswered } else { outcome(&answered) };
            line.write(Some(&key), found.get(), &noted, result);
            answered
        });
        let answered = work.end().await;
        // What is dropped before this belongs to a client that has gone.
        drop(client);
        answered.unwrap_or_else(|| Err(internal(&"the server ends")))
    }

    /// Finds out who asks, and answers what is about tokens.
    async fn admitted(self: &Rc<Self>, peer: Peer, request: &Request<Bytes>, query: &Query, action: &str) -> Admitted {
        let is = |name: &str| action.eq_ignore_ascii_case(name);
        let malformed = |text: &str| Admitted::Answered(None, Err(Fault(Code::Malformed, text.to_owned())));
        if action.is_empty() {
            return malformed("The parameter action is missing.");
        }
        if !ACTIONS.iter().any(|name| is(name)) {
            return malformed("There is no such action.");
        }
        let key = match self.key(peer, query).await {
            Ok(key) => key,
            Err(fault) => return Admitted::Answered(None, Err(fault)),
        };
        let answered = if is("RequestToken") {
            self.request_token(peer, request, query, &key).await
        } else if is("ReleaseToken") {
            self.release_token(query, &key)
        } else {
            match self.zone(query, &key).await {
                Ok(zone) => return Admitted::Asks { key: key.name, zone },
                Err(fault) => Err(fault),
            }
        };
        Admitted::Answered(Some(key.name), answered)
    }

    async fn key(&self, peer: Peer, query: &Query) -> Result<ApiKey, Fault> {
        let refused = || Fault(Code::Refused, "The API key is missing, unknown or not valid here.".to_owned());
        let key = query.get("apiKey").ok_or_else(refused)?;
        let source = peer.address.ip().to_canonical();
        self.logins.key(Timestamp::now(), source, key, Scope::Verba).await.map_err(|error| match error {
            LoginError::Wrong | LoginError::Wait(_) => refused(),
            LoginError::Password(_) | LoginError::Store(_) => internal(&error),
        })
    }

    /// The zone times are told in, and whether the token is there that the key may need. It ends when its user is gone
    /// or may not use the API any more.
    async fn zone(&self, query: &Query, key: &ApiKey) -> Result<TimeZone, Fault> {
        let user = match query.get("token").and_then(|token| Some((token, self.user_of(token, key)?))) {
            Some((token, name)) => {
                let found = self.server.store.run(move |connection| users::find(connection, &name)).await;
                let user = found.map_err(|error| internal(&error))?.filter(|user| user.has(Role::Verba));
                if user.is_none() {
                    self.tokens.borrow_mut().revoke(Instant::now(), token);
                }
                user
            }
            None => None,
        };
        if key.requires_token && user.is_none() {
            return Err(Fault(Code::Refused, "The token is missing, unknown or has expired.".to_owned()));
        }
        let zone = user.and_then(|user| user.time_zone);
        // One this machine does not know is as good as none.
        Ok(zone.and_then(|zone| TimeZone::get(&zone).ok()).unwrap_or(TimeZone::UTC))
    }

    /// The name of the user a token was issued to, under this key.
    fn user_of(&self, token: &str, key: &ApiKey) -> Option<String> {
        let tokens = self.tokens.borrow();
        let session = tokens.find(Instant::now(), token).filter(|session| session.key == key.name);
        session.map(|session| session.user.clone())
    }

    async fn request_token(
        &self,
        peer: Peer,
        request: &Request<Bytes>,
        query: &Query,
        key: &ApiKey,
    ) -> Result<Success, Fault> {
        let refused = |text: &str| Fault(Code::Refused, text.to_owned());
        let wrong = || refused("The user name or password is wrong, or the user may not use the API.");
        let (name, password) = match request.headers().get(header::AUTHORIZATION) {
            Some(header) => basic(header)?,
            None => match (query.get("userName"), query.get("password")) {
                (Some(name), Some(password)) => (name.to_owned(), Password::new(password)),
                (Some(_) | None, _) => return Err(refused("The user name or password is missing.")),
            },
        };
        let source = peer.address.ip().to_canonical();
        let user = match self.logins.user(Instant::now(), source, &name, password).await {
            Ok(user) if user.has(Role::Verba) => user,
            Ok(_) | Err(LoginError::Wrong) => return Err(wrong()),
            Err(LoginError::Wait(wait)) => {
                sleep(wait.0.min(ATTEMPT_DELAY)).await;
                return Err(refused("Too many attempts; try again later."));
            }
            Err(error @ (LoginError::Password(_) | LoginError::Store(_))) => return Err(internal(&error)),
        };
        let token = Token::random_guid();
        let session = Session { key: key.name.clone(), user: user.name };
        let mut tokens = self.tokens.borrow_mut();
        tokens.make_room(TOKENS_PER_KEY_MAX, |session| session.key == key.name);
        let issued = tokens.insert(Instant::now(), &token, session);
        issued.map_err(|error| internal(&error))?;
        Ok(Success { attributes: vec![("token", token.as_str().to_owned())], ..Success::default() })
    }

    fn release_token(&self, query: &Query, key: &ApiKey) -> Result<Success, Fault> {
        let mut tokens = self.tokens.borrow_mut();
        let now = Instant::now();
        let own = |token: &&str| tokens.find(now, token).is_some_and(|session| session.key == key.name);
        match query.get("token").filter(own) {
            Some(token) => {
                tokens.revoke(now, token);
                Ok(Success::default())
            }
            None => Err(Fault(Code::Refused, "The token is missing, unknown or has expired.".to_owned())),
        }
    }
}

/// An error of the server itself: the log says what, the client that it was not its fault.
pub(super) fn internal(error: &dyn std::fmt::Display) -> Fault {
    tracing::error!(%error, "a call of the Verba API failed");
    Fault(Code::Internal, "Internal error; try again.".to_owned())
}

/// Name and password of a header `Authorization: Basic`.
fn basic(header: &HeaderValue) -> Result<(String, Password), Fault> {
    let malformed = || Fault(Code::Malformed, "Authorization has to be Basic, base64 of login:password.".to_owned());
    let text = header.to_str().map_err(|_| malformed())?;
    let (scheme, credentials) = text.trim().split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return Err(malformed());
    }
    let decoded = STANDARD.decode(credentials.trim()).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (name, password) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok((name.to_owned(), Password::new(password)))
}

/// Whether the body holds parameters.
fn is_form(request: &Request<Bytes>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_none_or(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// What a request names, in the order its action looks at it.
fn named(query: &Query, action: &str) -> String {
    let names: &[&str] = if wants_file(action) {
        &["cid", "callID"]
    } else {
        &["callID", "extension", "number", "platformCallID", "nativeID", "meetingID"]
    };
    names.iter().find_map(|name| query.get(name)).unwrap_or_default().to_owned()
}

fn outcome<T>(answered: &Result<T, Fault>) -> Outcome<'static> {
    match answered {
        Ok(_) => Outcome::Done,
        Err(Fault(code, _)) => Outcome::Refused(code.number()),
    }
}

/// Who asks for a file looks at the status alone.
fn wants_file(action: &str) -> bool {
    action.eq_ignore_ascii_case("GetMediaEncoded")
}

/// An error in the envelope.
fn refused(form: Form, action: &str, file: bool, fault: Fault) -> Response<Body> {
    let code = fault.0;
    let mut response = response(form, action, &Err(fault));
    if file {
        *response.status_mut() = file_status(code);
    }
    response
}

const fn file_status(code: Code) -> StatusCode {
    match code {
        Code::Refused => StatusCode::FORBIDDEN,
        Code::Failed => StatusCode::NOT_FOUND,
        Code::Malformed => StatusCode::BAD_REQUEST,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Every action.
pub(super) const ACTIONS: [&str; 8] = [
    "RequestToken",
    "ReleaseToken",
    "MuteRecording",
    "KeepCall",
    "SearchCalls",
    "GetCallInformation",
    "GetMediaEncoded",
    "DeleteCall",
];
/// How long too many attempts are held back at most.
const ATTEMPT_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::ready;

    use serde_json::json;
    use tokio::task::yield_now;

    use super::super::fixture::{call, native, with_verba};
    use super::*;
    use crate::config::VerbaConfig;
    use crate::store::recordings::{self, State};

    #[test]
    fn a_call_is_deleted_though_the_client_has_gone() {
        let rules = VerbaConfig { always: vec!["*".to_owned()], ..VerbaConfig::default() };
        with_verba(rules, async |verba, _| {
            let numbers = json!({"caller_number": "1", "called_number": "2"});
            let [a, _] = call(&verba, numbers, |_| {}).await;
            let found = async |state: State| loop {
                let found = verba.server.store.run(move |connection| match state {
                    State::Finished => recordings::last(connection, "1"),
                    State::Ongoing | State::Discarded => Ok(recordings::ongoing(connection, "1")?.into_iter().next()),
                });
                if let Some(recording) = found.await.unwrap() {
                    break recording.call.id;
                }
                yield_now().await;
            };
            found(State::Ongoing).await;
            native(&verba, "connection.delete", json!({"connection_id": a})).await;
            let id = found(State::Finished).await;
            let query = Query::parse(&format!("callID={id}"), b"").unwrap();
            let from = "127.0.0.1:1".parse().unwrap();
            let line = Line { from, action: "DeleteCall".to_owned(), named: id.clone(), begun: Instant::now() };
            tokio::select! {
                biased;
                _ = verba.carry_out(line, query, "crm".to_owned(), TimeZone::UTC) => panic!("it needs no time"),
                () = ready(()) => {}
            }
            loop {
                let id = id.clone();
                let left = verba.server.store.run(move |connection| recordings::files(connection, &id)).await.unwrap();
                if left.is_empty() {
                    break;
                }
                yield_now().await;
            }
        });
    }

    #[test]
    fn a_wait_ends_with_its_client() {
        with_verba(VerbaConfig::default(), async |verba, _| {
            let (there, client) = watch::channel(());
            let client = Client(client);
            tokio::select! {
                biased;
                _ = verba.next("1", false, &client) => panic!("no call"),
                () = ready(()) => {}
            }
            assert!(!client.is_gone());
            drop(there);
            assert!(client.is_gone() && verba.next("1", false, &client).await.is_err());
            assert_eq!(verba.waits.get(), 0);
        });
    }
}
