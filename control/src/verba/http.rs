//! From a request to its action and back: path, method, decoding, form, action, key, token, in this order.

use std::rc::Rc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::sleep;

use super::answer::{Code, Fault, Form, Success, response};
use super::query::Query;
use super::{REQUEST_BYTES_MAX, Session, Verba, openapi};
use crate::audit::{self, Noted, Outcome, Unanswered, Who};
use crate::auth::{LoginError, Password, Token};
use crate::store::keys::{ApiKey, Scope};
use crate::store::users::Role;
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
            Err(fault) => return response(Form::Xml, "", &Err(fault)),
        };
        let action = query.get("action").unwrap_or_default();
        let Some(form) = query.get("responseType").map_or(Some(Form::Xml), Form::parse) else {
            let fault = Fault(Code::Malformed, "responseType is XML, HTML or TEXT.".to_owned());
            return response(Form::Xml, action, &Err(fault));
        };
        let called = query.get("callID").or_else(|| query.get("cid")).or_else(|| query.get("extension"));
        let named = called.or_else(|| query.get("number")).unwrap_or_default();
        let line = |key: Option<&str>, noted: &Noted, result| {
            audit::record(&audit::Entry {
                who: key.map_or(Who::Unknown, Who::Key),
                from: Some(peer.address),
                api: "verba",
                what: action,
                ids: &[&named],
                shard: noted.shard,
                effect: noted.effect.as_ref(),
                result,
                took: begun.elapsed(),
            });
        };
        let unanswered = Unanswered::new(|| line(None, &Noted::default(), Outcome::Unanswered));
        let ((key, answered), noted) = audit::scope(self.admitted(peer, request, &query, action)).await;
        unanswered.answered();
        let refused = answered.as_ref().err();
        let result = refused.map_or(Outcome::Done, |Fault(code, _)| Outcome::Refused(code.number()));
        line(key.as_deref(), &noted, result);
        match answered {
            Ok(Answered::Envelope(success)) => response(form, action, &Ok(success)),
            Ok(Answered::File(file)) => file,
            Err(fault) => {
                let code = fault.0;
                let mut response = response(form, action, &Err(fault));
                if action.eq_ignore_ascii_case("GetMediaEncoded") {
                    // Who asks for a file looks at the status alone.
                    *response.status_mut() = file_status(code);
                }
                response
            }
        }
    }

    /// Finds out who asks, and does what is asked. The name of the key, once it is known.
    async fn admitted(
        self: &Rc<Self>,
        peer: Peer,
        request: &Request<Bytes>,
        query: &Query,
        action: &str,
    ) -> (Option<String>, Result<Answered, Fault>) {
        let is = |name: &str| action.eq_ignore_ascii_case(name);
        if action.is_empty() {
            return (None, Err(Fault(Code::Malformed, "The parameter action is missing.".to_owned())));
        }
        if !ACTIONS.iter().any(|name| is(name)) {
            return (None, Err(Fault(Code::Malformed, "There is no such action.".to_owned())));
        }
        let key = match self.key(peer, query).await {
            Ok(key) => key,
            Err(fault) => return (None, Err(fault)),
        };
        let answered = if is("RequestToken") {
            self.request_token(peer, request, query, &key).await.map(Answered::Envelope)
        } else if is("ReleaseToken") {
            self.release_token(query, &key).map(Answered::Envelope)
        } else {
            match self.zone(query, &key) {
                Ok(zone) => self.act(action, &Asked { query, key: &key.name, zone }).await,
                Err(fault) => Err(fault),
            }
        };
        (Some(key.name), answered)
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

    /// The zone times are told in, and whether the token is there that the key may need.
    fn zone(&self, query: &Query, key: &ApiKey) -> Result<TimeZone, Fault> {
        let tokens = self.tokens.borrow();
        let session = query.get("token").and_then(|token| tokens.find(Instant::now(), token));
        let session = session.filter(|session| session.key == key.name);
        if key.requires_token && session.is_none() {
            return Err(Fault(Code::Refused, "The token is missing, unknown or has expired.".to_owned()));
        }
        let zone = session.and_then(|session| session.time_zone.as_deref());
        // One this machine does not know is as good as none.
        Ok(zone.and_then(|zone| TimeZone::get(zone).ok()).unwrap_or(TimeZone::UTC))
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
        let session = Session { key: key.name.clone(), time_zone: user.time_zone };
        let issued = self.tokens.borrow_mut().insert(Instant::now(), &token, session);
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
