//! What is answered to a call that fails: a status, and one of three shapes of a JSON body.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::MESSAGE_ID;
use crate::auth::LoginError;
use crate::proto::RpcError;
use crate::store::StoreError;

/// Why a call was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// The status.
    pub(super) status: StatusCode,
    /// What clients go by, if anything.
    pub(super) error_id: Option<&'static str>,
    /// What people read.
    pub(super) message: String,
    shape: Shape,
    error_code: Option<u8>,
    /// Methods there are, for 405.
    pub(super) allow: Option<&'static str>,
    /// Seconds after which it is worth trying again.
    pub(super) retry_after: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Shape {
    Error,
    MissingProperty(String),
    InvalidProperty(String),
    /// An error of session creation, which names other servers.
    Unavailable,
}

impl Fault {
    fn new(status: StatusCode, error_id: Option<&'static str>, message: impl Into<String>) -> Self {
        let (message, shape) = (message.into(), Shape::Error);
        Self { status, error_id, message, shape, error_code: None, allow: None, retry_after: None }
    }

    /// A required item is absent.
    pub(super) fn missing(property: &str) -> Self {
        let shape = Shape::MissingProperty(property.to_owned());
        Self { shape, ..Self::new(StatusCode::BAD_REQUEST, Some(MISSING), format!("{property} is required")) }
    }

    /// An item is of a wrong type or value.
    pub(super) fn invalid(property: &str, message: impl Into<String>) -> Self {
        let shape = Shape::InvalidProperty(property.to_owned());
        Self { shape, ..Self::new(StatusCode::BAD_REQUEST, Some(INVALID), message) }
    }

    /// The body could not be read.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some(MALFORMED), message)
    }

    /// There is no session cookie at all.
    pub(super) fn cookie_missing() -> Self {
        let message = "the session cookie is missing: send the Set-Cookie of POST /icws/connection back as Cookie";
        Self { error_code: Some(4), ..Self::new(StatusCode::UNAUTHORIZED, None, message) }
    }

    /// No such session, or its cookie is another.
    pub(super) fn session_unknown() -> Self {
        let message = "there is no such session, or it has ended: sign in again with POST /icws/connection";
        Self { error_code: Some(2), ..Self::new(StatusCode::UNAUTHORIZED, Some(AUTHENTICATION), message) }
    }

    /// The CSRF token is missing or another.
    pub(super) fn csrf() -> Self {
        let message = "the header ININ-ICWS-CSRF-Token has to hold the csrfToken of this session";
        Self::new(StatusCode::UNAUTHORIZED, None, message)
    }

    /// Nobody was let in.
    pub(super) fn authentication(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some(AUTHENTICATION), message)
    }

    /// Not for this user, or not now.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, None, message)
    }

    /// No such path.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, None, "there is no such path; see GET /icws/openapi.json for what there is")
    }

    /// Not with this method.
    pub(super) fn method(allow: &'static str) -> Self {
        let fault = Self::new(StatusCode::METHOD_NOT_ALLOWED, None, format!("not with this method; there is {allow}"));
        Self { allow: Some(allow), ..fault }
    }

    /// A body of another kind.
    pub(super) fn media_type() -> Self {
        let message = "a body is application/vnd.inin.icws+JSON or application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, message)
    }

    /// Refused before it was read whole.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let error_id = (status == StatusCode::BAD_REQUEST).then_some(MALFORMED);
        Self::new(status, error_id, status.canonical_reason().unwrap_or_default())
    }

    /// No new sessions.
    pub(super) fn not_accepting(message: impl Into<String>) -> Self {
        let fault = Self::new(StatusCode::SERVICE_UNAVAILABLE, Some(NOT_ACCEPTING), message);
        Self { shape: Shape::Unavailable, ..fault }
    }

    /// No new sessions for a moment.
    pub(super) fn unavailable(message: impl Into<String>, retry_after: Option<u64>) -> Self {
        let fault = Self::new(StatusCode::SERVICE_UNAVAILABLE, Some(UNAVAILABLE), message);
        Self { shape: Shape::Unavailable, retry_after, ..fault }
    }

    /// A fault of the server.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, message)
    }

    /// Whether the client has to be told where to sign in.
    pub(super) fn is_challenge(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        let kind = match &self.shape {
            Shape::Error | Shape::Unavailable => "error",
            Shape::MissingProperty(_) => "missingPropertyError",
            Shape::InvalidProperty(_) => "invalidPropertyError",
        };
        body.insert("__type".to_owned(), format!("urn:inin.com:common:{kind}").into());
        if let Some(error_id) = self.error_id {
            body.insert("errorId".to_owned(), error_id.into());
        }
        body.insert("message".to_owned(), self.message.as_str().into());
        if let Some(error_code) = self.error_code {
            body.insert("errorCode".to_owned(), error_code.into());
        }
        match &self.shape {
            Shape::MissingProperty(name) | Shape::InvalidProperty(name) => {
                body.insert("propertyName".to_owned(), name.as_str().into());
            }
            Shape::Unavailable => {
                body.insert("alternateHostList".to_owned(), Value::Array(Vec::new()));
            }
            Shape::Error => {}
        }
        body.into()
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        if let StoreError::NotFound { what: "message", id } = &error {
            // It was there a moment ago: somebody else deleted it meanwhile.
            return Self::invalid(MESSAGE_ID, format!("there is no message {id} in this mailbox"));
        }
        // What it says is about the server's disk, which is nobody's business.
        tracing::warn!(%error, "a call failed at the database");
        Self::internal("the database failed; the log of the server says how")
    }
}

impl From<RpcError> for Fault {
    /// The media engine has failed.
    fn from(error: RpcError) -> Self {
        tracing::warn!(%error, "a call failed at the media engine");
        Self::internal("the media engine failed; the log of the server says how")
    }
}

impl From<LoginError> for Fault {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Self::authentication("userID and password don't belong to a user of this API"),
            LoginError::Wait(wait) => Self::unavailable(wait.to_string(), Some(wait.0.as_secs().saturating_add(1))),
            LoginError::Password(error) => {
                tracing::warn!(%error, "a password can't be checked now");
                Self::unavailable("passwords can't be checked now: try again", Some(1))
            }
            LoginError::Store(error) => {
                tracing::warn!(%error, "a user can't be looked up now");
                Self::unavailable("users can't be looked up now: try again", Some(1))
            }
        }
    }
}

const MISSING: &str = "error.request.invalidRepresentation.missingRequiredParameter";
const INVALID: &str = "error.request.invalidRepresentation.invalidProperty";
const MALFORMED: &str = "error.request.invalidRepresentation.malformed";
const AUTHENTICATION: &str = "error.request.connection.authenticationFailure";
const NOT_ACCEPTING: &str = "error.server.notAcceptingConnections";
const UNAVAILABLE: &str = "error.server.unavailable";
