//! JSON-RPC 2.0 as the control socket speaks it: requests in, answers and notifications out, every error code.

use ringbridge_media::event::CommandError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::files::{FileError, TtsError, looks_like_file_name};
use crate::quota::{Class, Denied};
use crate::router::Refusal;

/// One request, its envelope checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// `None`: a notification; it is carried out, but never answered.
    pub id: Option<Value>,
    /// The method's name.
    pub method: String,
    /// An object, or null if there were none.
    pub params: Value,
}

impl Request {
    /// Checks the envelope of one request.
    ///
    /// # Errors
    /// The id to answer with (null if it can't be told) and what is wrong.
    pub fn from_value(value: Value) -> Result<Self, (Value, RpcError)> {
        let Value::Object(mut object) = value else {
            return Err((Value::Null, RpcError::invalid_request("a request is a JSON object")));
        };
        let id = object.remove("id");
        let answer_to = match &id {
            Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
            None | Some(Value::Null) => Value::Null,
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                return Err((Value::Null, RpcError::invalid_request("`id` is a string or a number")));
            }
        };
        if object.remove("jsonrpc").as_ref().and_then(Value::as_str) != Some("2.0") {
            return Err((answer_to, RpcError::invalid_request("`jsonrpc` has to be \"2.0\"")));
        }
        let Some(Value::String(method)) = object.remove("method") else {
            return Err((answer_to, RpcError::invalid_request("`method` has to be a string")));
        };
        let params = object.remove("params").unwrap_or_default();
        Ok(Self { id, method, params })
    }
}

/// An answer to `id`.
pub fn answer(id: Value, result: Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error.to_value()}),
    }
}

/// The line of an event, newline included.
pub fn notification(params: Value) -> String {
    let mut line = json!({"jsonrpc": "2.0", "method": "event", "params": params}).to_string();
    line.push('\n');
    line
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Every way a call can fail: the code and `data.kind` are fixed for outside tools.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ErrorKind {
            $($(#[$doc])* $name,)*
        }

        impl ErrorKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code on the wire.
            pub const fn code(self) -> i32 {
                match self { $(Self::$name => $code,)* }
            }

            /// The name on the wire, `data.kind`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

error_kinds! {
    /// Not JSON, or a line that is too long.
    ParseError = -32700, "parse_error";
    /// JSON, but no request.
    InvalidRequest = -32600, "invalid_request";
    /// No such method.
    MethodNotFound = -32601, "method_not_found";
    /// A parameter is missing, unknown, of the wrong type or out of range.
    InvalidParams = -32602, "invalid_params";
    /// A fault of the server itself.
    Internal = -32603, "internal";
    /// The id names no connection (any more).
    UnknownConnection = 1001, "unknown_connection";
    /// The id names no conference (any more).
    UnknownConference = 1002, "unknown_conference";
    /// The id names no operation (any more).
    UnknownOperation = 1003, "unknown_operation";
    /// The connection is not in that conference, or in no relay.
    NotAParticipant = 1004, "not_a_participant";
    /// The connection is already in a conference or relay.
    AlreadyJoined = 1005, "already_joined";
    /// A full mailbox, or a concurrency rule: try again.
    Busy = 1006, "busy";
    /// No pair of ports is free.
    OutOfPorts = 1007, "out_of_ports";
    /// A table or quota is full.
    LimitReached = 1008, "limit_reached";
    /// No such prompt.
    FileNotFound = 1009, "file_not_found";
    /// Not a format that is played or recorded.
    FileUnsupported = 1010, "file_unsupported";
    /// The path leads out of its root.
    PathOutsideRoot = 1011, "path_outside_root";
    /// The connection knows no remote address yet.
    NotConnected = 1012, "not_connected";
    /// No such codec here, or not with this packet time.
    UnsupportedCodec = 1013, "unsupported_codec";
    /// The server takes no new connections.
    Draining = 1014, "draining";
    /// The system refused.
    IoError = 1015, "io_error";
    /// Known, but not in this version.
    Unsupported = 1016, "unsupported";
    /// The shard failed while the command was in it, or is not up again yet.
    ShardFailed = 1017, "shard_failed";
}

/// Why a call failed. It has changed nothing.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    kind: ErrorKind,
    message: String,
    data: Map<String, Value>,
}

impl RpcError {
    /// An error of `kind`, told in one sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), data: Map::new() }
    }

    /// Adds one member to `data`, such as the id concerned.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// -32700
    pub fn parse_error(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ParseError, message)
    }

    /// -32600
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// -32602, naming the parameter.
    pub fn invalid_param(param: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParams, message).with("param", param)
    }

    /// 1001 for the id as the client wrote it.
    pub fn unknown_connection(id: impl ToString) -> Self {
        let id = id.to_string();
        Self::new(ErrorKind::UnknownConnection, format!("no such connection: {id}")).with("connection_id", id)
    }

    /// 1002 for the id as the client wrote it.
    pub fn unknown_conference(id: impl ToString) -> Self {
        let id = id.to_string();
        Self::new(ErrorKind::UnknownConference, format!("no such conference: {id}")).with("conference_id", id)
    }

    /// 1003 for the id as the client wrote it.
    pub fn unknown_operation(id: impl ToString) -> Self {
        let id = id.to_string();
        Self::new(ErrorKind::UnknownOperation, format!("no such operation: {id}")).with("operation_id", id)
    }

    /// 1016
    pub fn unsupported(what: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{what} is not supported in this version"))
    }

    /// 1017
    pub fn shard_failed(shard: u8) -> Self {
        Self::new(ErrorKind::ShardFailed, format!("shard {shard} has failed")).with("shard", shard)
    }

    /// Names the id concerned, unless the error already names one.
    #[must_use]
    pub fn about(self, key: &str, id: impl ToString) -> Self {
        if self.data.keys().any(|key| key.ends_with("_id")) {
            return self;
        }
        self.with(key, id.to_string())
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The JSON-RPC error object.
    pub fn to_value(&self) -> Value {
        let mut data = self.data.clone();
        data.insert("kind".to_owned(), self.kind.name().into());
        json!({"code": self.kind.code(), "message": self.message, "data": data})
    }
}

impl From<CommandError> for RpcError {
    fn from(error: CommandError) -> Self {
        let new = |kind| Self::new(kind, error.to_string());
        match error {
            CommandError::UnknownConnection(id) => Self::unknown_connection(id),
            CommandError::UnknownConference(id) => Self::unknown_conference(id),
            CommandError::UnknownOperation(id) => Self::unknown_operation(id),
            CommandError::NothingPlaying => new(ErrorKind::UnknownOperation),
            CommandError::NotAParticipant(id) => new(ErrorKind::NotAParticipant).about("connection_id", id),
            CommandError::AlreadyJoined(id) => new(ErrorKind::AlreadyJoined).about("connection_id", id),
            CommandError::Busy => new(ErrorKind::Busy),
            CommandError::LimitReached => new(ErrorKind::LimitReached),
            CommandError::NotConnected(id) => new(ErrorKind::NotConnected).about("connection_id", id),
            CommandError::UnsupportedCodec => new(ErrorKind::UnsupportedCodec),
            CommandError::TakenForRtcp(_) => new(ErrorKind::InvalidParams).with("param", "payload_types"),
            CommandError::RoleConflict(id) => new(ErrorKind::InvalidParams).about("connection_id", id),
            CommandError::Unsupported => new(ErrorKind::Unsupported),
            CommandError::SocketFailed => new(ErrorKind::IoError),
            CommandError::ShardFailed => new(ErrorKind::ShardFailed),
        }
    }
}

impl From<Denied> for RpcError {
    fn from(denied: Denied) -> Self {
        let error = Self::new(ErrorKind::LimitReached, denied.to_string()).with("resource", denied.class.name());
        // The reason code of Metreos.MediaControl.
        if denied.class == Class::EnhancedRtp { error.with("reason", 7) } else { error }
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy(shard) => Self::new(ErrorKind::Busy, refusal.to_string()).with("shard", shard.0),
            Refusal::Down(shard) => Self::shard_failed(shard.0),
        }
    }
}

impl From<FileError> for RpcError {
    fn from(error: FileError) -> Self {
        let (kind, path) = match &error {
            FileError::NotFound { path, .. } => (ErrorKind::FileNotFound, path),
            FileError::Unsupported { path, .. } | FileError::Format { path, .. } => (ErrorKind::FileUnsupported, path),
            FileError::OutsideRoot { path, .. } => (ErrorKind::PathOutsideRoot, path),
            FileError::Speech { path, source } => {
                let kind = match source {
                    // What looks like a file was meant to be one.
                    TtsError::NotInstalled if looks_like_file_name(&path.to_string_lossy()) => ErrorKind::FileNotFound,
                    TtsError::NotInstalled => ErrorKind::Unsupported,
                    TtsError::NoPort | TtsError::Busy => ErrorKind::LimitReached,
                    TtsError::Text(_) | TtsError::Rejected(_) | TtsError::OutputTooLarge => ErrorKind::FileUnsupported,
                    TtsError::TimedOut(_) | TtsError::Io { .. } => ErrorKind::IoError,
                };
                (kind, path)
            }
            FileError::Io { path, .. } => (ErrorKind::IoError, path),
        };
        let told = Self::new(kind, error.to_string()).with("path", path.to_string_lossy());
        if matches!(&error, FileError::Speech { source: TtsError::NoPort, .. }) {
            return told.with("resource", Class::Tts.name());
        }
        told
    }
}

/// Reads the parameters of a method into its type. No parameters at all are an empty object.
///
/// # Errors
/// -32602 with `data.param` naming the first parameter that is missing, unknown or of the wrong type.
pub fn params<T: DeserializeOwned>(params: Value) -> Result<T, RpcError> {
    let params = match params {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => params,
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(RpcError::new(ErrorKind::InvalidParams, "parameters are given by name, in an object"));
        }
    };
    serde_path_to_error::deserialize(params).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        // Of a missing or unknown field the path names only the object around it; serde's text names the field.
        let field = ["missing field `", "unknown field `"]
            .iter()
            .find_map(|prefix| message.strip_prefix(prefix)?.split_once('`').map(|(field, _)| field.to_owned()));
        match (path.as_str(), field) {
            ("." | "?", Some(field)) => RpcError::invalid_param(&field, message),
            (_, Some(field)) if !path.ends_with(&field) => {
                RpcError::invalid_param(&format!("{path}.{field}"), format!("{path}: {message}"))
            }
            (_, Some(_) | None) => RpcError::invalid_param(&path, format!("{path}: {message}")),
        }
    })
}

/// The parameters of a method that takes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reading is of interest")]
    struct Sample {
        name: String,
        port: Option<u16>,
        list: Option<Vec<u8>>,
    }

    #[track_caller]
    fn names(value: Value, param: &str) {
        let error = params::<Sample>(value).expect_err("refused").to_value();
        assert_eq!(error["code"], -32602);
        assert_eq!(error["data"]["param"], param, "{error}");
        assert_eq!(error["data"]["kind"], "invalid_params");
    }

    #[test]
    fn the_parameter_at_fault_is_named() {
        names(json!({}), "name");
        names(json!({"name": 5}), "name");
        names(json!({"name": "x", "port": 70000}), "port");
        names(json!({"name": "x", "port": -1}), "port");
        names(json!({"name": "x", "port": "5"}), "port");
        names(json!({"name": "x", "list": [1, 2, 300]}), "list[2]");
        names(json!({"name": "x", "nome": 1}), "nome");
        assert_eq!(params::<Sample>(json!([1])).expect_err("by name").kind(), ErrorKind::InvalidParams);
        params::<Sample>(json!({"name": "x", "port": null})).expect("null is absent");
    }

    #[test]
    fn codes_and_names_are_unique() {
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            for other in &ErrorKind::ALL[index + 1..] {
                assert_ne!(kind.code(), other.code());
                assert_ne!(kind.name(), other.name());
            }
        }
    }

    #[test]
    fn envelopes_are_checked() {
        let ok = Request::from_value(json!({"jsonrpc": "2.0", "method": "m", "id": 1})).expect("a request");
        assert_eq!(ok, Request { id: Some(json!(1)), method: "m".into(), params: Value::Null });
        for (value, id) in [
            (json!(1), Value::Null),
            (json!({"method": "m", "id": 7}), json!(7)),
            (json!({"jsonrpc": "1.0", "method": "m", "id": 7}), json!(7)),
            (json!({"jsonrpc": "2.0", "id": 7}), json!(7)),
            (json!({"jsonrpc": "2.0", "method": 3, "id": 7}), json!(7)),
            (json!({"jsonrpc": "2.0", "method": "m", "id": [7]}), Value::Null),
        ] {
            let (answer_to, error) = Request::from_value(value.clone()).expect_err("no request");
            assert_eq!((answer_to, error.kind()), (id, ErrorKind::InvalidRequest), "{value}");
        }
    }
}
