//! The listener: which operation is meant, who asks, and the checks in their order.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::agentconf::Operation;
use super::codes::{Answer, Code};
use super::conference::Reason;
use super::params::{Params, work_number};
use super::session::Session;
use super::{Gateway, openapi};
use crate::audit::{Entry, Outcome, Who, record, scope};
use crate::begin::begin;
use crate::web::{Api, Limits, Listener, Peer, Serving};

/// Serves the API until the handle is dropped.
pub fn serve(gateway: Rc<Gateway>, listener: Listener) -> Serving {
    listener.serve(Front { gateway }, Limits::default())
}

struct Front {
    gateway: Rc<Gateway>,
}

/// What an address and a method mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    SignIn { force: bool },
    SignOut { force: bool },
    Handshake,
    Poll,
    Conference(Operation),
}

impl Target {
    /// What stands behind the group and, if anything, the work number.
    pub(super) fn find(group: &str, operation: Option<&str>) -> Option<Self> {
        match (group, operation) {
            ("onlineagent", None) => Some(Self::SignIn { force: false }),
            ("onlineagent", Some("forcelogin")) => Some(Self::SignIn { force: true }),
            ("onlineagent", Some("logout")) => Some(Self::SignOut { force: false }),
            ("onlineagent", Some("forcelogout")) => Some(Self::SignOut { force: true }),
            ("onlineagent", Some("handshake")) => Some(Self::Handshake),
            ("agentevent", None) => Some(Self::Poll),
            ("agentconf", Some(name)) => {
                Operation::ALL.iter().copied().find(|operation| operation.name() == name).map(Self::Conference)
            }
            _ => None,
        }
    }

    /// The only method it takes.
    pub(super) fn method(self) -> Method {
        match self {
            Self::SignIn { .. } => Method::PUT,
            Self::SignOut { .. } => Method::DELETE,
            Self::Poll | Self::Conference(Operation::QueryIds) => Method::GET,
            Self::Handshake | Self::Conference(_) => Method::POST,
        }
    }

    /// For the log.
    fn name(self) -> &'static str {
        match self {
            Self::SignIn { force: false } => "login",
            Self::SignIn { force: true } => "forcelogin",
            Self::SignOut { force: false } => "logout",
            Self::SignOut { force: true } => "forcelogout",
            Self::Handshake => "handshake",
            Self::Poll => "agentevent",
            Self::Conference(operation) => operation.name(),
        }
    }
}

impl Api for Front {
    async fn call(&self, peer: Peer, request: Request<Bytes>) -> Response<Body> {
        self.gateway.answer_http(peer, request).await
    }

    fn refuse(&self, status: StatusCode) -> Response<Body> {
        reply(status, &Answer::failure(Code::WrongMessage.into()).body)
    }
}

impl Gateway {
    /// Answers one request, as the listener does.
    pub async fn answer_http(&self, peer: Peer, request: Request<Bytes>) -> Response<Body> {
        let path = request.uri().path();
        if path == "/agentgateway/openapi.json" {
            return match *request.method() {
                Method::GET => reply(StatusCode::OK, &openapi::document()),
                _ => not_allowed(&Method::GET),
            };
        }
        let mut parts = path.split('/').skip(1);
        let base = (parts.next(), parts.next());
        let (group, agent, operation) = (parts.next(), parts.next(), parts.next());
        let target = match (base, group, agent, parts.next()) {
            ((Some("agentgateway"), Some("resource")), Some(group), Some(_), None) => Target::find(group, operation),
            _ => None,
        };
        let Some(target) = target else {
            return reply(StatusCode::NOT_FOUND, &Answer::failure(Code::WrongParameter.into()).body);
        };
        if *request.method() != target.method() {
            return not_allowed(&target.method());
        }
        let Some(number) = agent.and_then(work_number) else {
            return reply(StatusCode::OK, &Answer::failure(Code::WrongParameter.into()).body);
        };
        // A poll that nobody waits for any more is given up; everything else is carried to its end.
        if target == Target::Poll {
            return answered(self.poll(number, &request).await);
        }
        let exception = || Answer::failure(Code::Exception.into());
        let Some(gateway) = self.own.upgrade() else { return answered(exception()) };
        let work = begin(async move { gateway.answer_to(target, number, peer, request).await });
        answered(work.end().await.unwrap_or_else(exception))
    }

    async fn poll(&self, number: u32, request: &Request<Bytes>) -> Answer {
        let polled = async {
            let session = self.authenticate(number, guid(request))?;
            if session.push.is_some() {
                return Err(Code::WrongEventMode);
            }
            let event = session.poll().await?;
            Ok((session, event))
        };
        match polled.await {
            Ok((session, event)) => {
                let body = json!({"message": "", "retcode": "0", "event": event});
                Answer { guid: self.renewed(&session), ..Answer::of(body) }
            }
            Err(code) => Answer::failure(code.into()),
        }
    }

    async fn answer_to(&self, target: Target, number: u32, peer: Peer, request: Request<Bytes>) -> Answer {
        let begun = Instant::now();
        let known = Cell::new(false);
        let (answer, noted) = scope(self.carry_out(target, number, peer, &request, &known)).await;
        let retcode = answer.retcode().to_owned();
        let ids: [&dyn Display; 1] = [&number];
        record(&Entry {
            who: if known.get() { Who::Agent(number) } else { Who::Unknown },
            from: Some(peer.address),
            api: "agentgateway",
            what: target.name(),
            // Whom somebody who is not known wanted to be.
            ids: if known.get() { &[] } else { &ids },
            shard: noted.shard,
            effect: noted.effect.as_ref(),
            result: if retcode == "0" { Outcome::Done } else { Outcome::Refused(&retcode) },
            took: begun.elapsed(),
        });
        answer
    }

    /// Carries out a request; `known` is set when it is clear who asks.
    async fn carry_out(
        &self,
        target: Target,
        number: u32,
        peer: Peer,
        request: &Request<Bytes>,
        known: &Cell<bool>,
    ) -> Answer {
        let params = || Params::read(request.body(), request.uri().query().unwrap_or_default());
        if let Target::SignIn { force } = target {
            let answer = match params() {
                Ok(params) => self.sign_in(number, peer.address.ip(), &params, force).await,
                Err(fault) => Answer::failure(fault),
            };
            known.set(answer.guid.is_some());
            return answer;
        }
        let session = match self.authenticate(number, guid(request)) {
            Ok(session) => session,
            Err(code) => return Answer::failure(code.into()),
        };
        known.set(true);
        match target {
            Target::SignOut { force: false } => self.log_out(&session).await.into(),
            Target::SignOut { force: true } => {
                self.sign_out(&session, Reason::SignedOut).await;
                Answer::success(Value::Null)
            }
            Target::Handshake => {
                session.touch();
                Answer { guid: self.renewed(&session), ..Answer::success(json!({})) }
            }
            Target::Conference(operation) => {
                let params = if operation.has_body() { params() } else { Ok(Params::default()) };
                match params {
                    Ok(params) => self.operate(operation, &session, &params).await.into(),
                    Err(fault) => Answer::failure(fault),
                }
            }
            // Both were answered before.
            Target::SignIn { .. } | Target::Poll => Answer::failure(Code::Exception.into()),
        }
    }

    /// Another session id, if that is how sessions are kept.
    fn renewed(&self, session: &Session) -> Option<String> {
        (self.config.auth_mode == 2).then(|| session.renew(&self.config.name))
    }
}

fn guid(request: &Request<Bytes>) -> Option<&str> {
    request.headers().get("guid").and_then(|value| value.to_str().ok())
}

fn answered(answer: Answer) -> Response<Body> {
    let mut response = reply(StatusCode::OK, &answer.body);
    if let Some(guid) = answer.guid
        && let Ok(value) = HeaderValue::from_str(&format!("JSESSIONID={guid}"))
    {
        response.headers_mut().insert("Set-GUID", value);
    }
    if let Some(Ok(value)) = answer.effect.to_header().map(|effect| HeaderValue::from_str(&effect)) {
        response.headers_mut().insert(EFFECT, value);
    }
    response
}

fn not_allowed(method: &Method) -> Response<Body> {
    let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, &Answer::failure(Code::WrongParameter.into()).body);
    if let Ok(value) = HeaderValue::from_str(method.as_str()) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

fn reply(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    response
}

/// From where on a change can be heard: the `effect` of the control socket.
const EFFECT: HeaderName = HeaderName::from_static("ringbridge-effect");
