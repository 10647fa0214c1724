//! Result codes and reason codes, and how the errors of the native methods become them.

use serde_json::Value;

use crate::proto::{ErrorKind, RpcError};

macro_rules! result_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The media control error codes.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in the documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

result_codes! {
    /// Done.
    Success = 0,
    /// An operation was started.
    Executing = 1,
    /// No free connection slot.
    ServerBusy = 4,
    /// The server is draining.
    ServerInactive = 5,
    /// A fault of the server itself.
    ServerInternal = 6,
    /// A codec, RTP or file engine has failed.
    DeviceError = 7,
    /// A resource class is exhausted, or the engine is unknown.
    ResourceUnavailable = 8,
    /// The server is in an unexpected state.
    UnexpectedState = 9,
    /// Event registration error; not used.
    EventRegistration = 10,
    /// Unspecified event error; not used.
    EventError = 11,
    /// The reservation has expired.
    SessionTimeout = 12,
    /// The engine did not answer in time.
    OperationTimeout = 13,
    /// A concurrency rule, or a delete in progress.
    ConnectionBusy = 14,
    /// The connection is complete, or in a conference.
    AlreadyConnected = 15,
    /// The connection is only reserved.
    NotConnected = 16,
    /// Unrecognised event; not used.
    UnknownEvent = 20,
    /// There is no such action.
    UnknownCommand = 21,
    /// An id is not a 32-bit decimal.
    InvalidConnectionId = 22,
    /// No such connection.
    UnknownConnectionId = 23,
    /// No such conference, or not a member of it.
    UnknownConferenceId = 24,
    /// No such operation, or none in progress.
    NoOperation = 25,
    /// Parameters are missing or contradict each other.
    InvalidParameters = 26,
    /// A bad value.
    InvalidParameter = 27,
    /// A file can't be opened.
    FileOpen = 30,
    /// Reading or writing has failed.
    FileIo = 31,
    /// The message can't be understood.
    MalformedRequest = 35,
    /// A bad termination condition.
    TermCondition = 36,
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The engine's second number beside the result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// The codec is not known, or can't be decoded here.
    CoderUnknown = 6,
    /// No low-bitrate resource is free.
    CoderUnavailable = 7,
    /// No action was taken.
    NoAction = 16,
    /// Nothing changed.
    NoChange = 17,
}

impl Reason {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Why an action failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The result code.
    pub code: Code,
    /// The reason code, if there is one.
    pub reason: Option<Reason>,
    /// What was wrong and what to do.
    pub message: String,
}

impl Fault {
    /// A fault told in one sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, reason: None, message: message.into() }
    }

    /// 26
    pub fn parameters(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameters, message)
    }

    /// 27
    pub fn value(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameter, message)
    }

    /// 36
    pub fn condition(message: impl Into<String>) -> Self {
        Self::new(Code::TermCondition, message)
    }

    /// Adds a reason code.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }
}

/// What the native call that failed was for: the same error has a different number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// Connections and conferences.
    Connect,
    /// The attributes of a participant.
    Attribute,
    /// An operation on media.
    Operation,
    /// Digits into the buffer.
    Digits,
}

impl Fault {
    /// The fault an error of a native method is.
    pub fn from_native(error: &RpcError, context: Context) -> Self {
        let told = error.to_value();
        let data = &told["data"];
        let code = match error.kind() {
            ErrorKind::ParseError | ErrorKind::InvalidRequest => Code::MalformedRequest,
            ErrorKind::MethodNotFound => Code::UnknownCommand,
            ErrorKind::InvalidParams => invalid_params(&data["param"], context),
            ErrorKind::Internal => Code::ServerInternal,
            ErrorKind::UnknownConnection => Code::UnknownConnectionId,
            ErrorKind::UnknownConference | ErrorKind::NotAParticipant => Code::UnknownConferenceId,
            ErrorKind::UnknownOperation => Code::NoOperation,
            ErrorKind::AlreadyJoined => Code::AlreadyConnected,
            ErrorKind::Busy => Code::ConnectionBusy,
            ErrorKind::OutOfPorts => Code::ServerBusy,
            // A quota names its class; a table of connections that is full does not.
            ErrorKind::LimitReached if context == Context::Connect && data["resource"].is_null() => Code::ServerBusy,
            ErrorKind::LimitReached | ErrorKind::Unsupported => Code::ResourceUnavailable,
            ErrorKind::FileNotFound | ErrorKind::PathOutsideRoot => Code::FileOpen,
            ErrorKind::FileUnsupported => Code::InvalidParameter,
            ErrorKind::NotConnected => Code::NotConnected,
            ErrorKind::UnsupportedCodec => match context {
                Context::Connect => Code::InvalidParameter,
                Context::Attribute | Context::Operation | Context::Digits => Code::ResourceUnavailable,
            },
            ErrorKind::Draining => Code::ServerInactive,
            // What goes wrong before anything is played or recorded is the opening.
            ErrorKind::IoError if context == Context::Operation => Code::FileOpen,
            ErrorKind::IoError | ErrorKind::ShardFailed => Code::DeviceError,
        };
        let low_bitrate = data["reason"] == Reason::CoderUnavailable.number();
        let reason = if error.kind() == ErrorKind::UnsupportedCodec {
            Some(Reason::CoderUnknown)
        } else {
            (error.kind() == ErrorKind::LimitReached && low_bitrate).then_some(Reason::CoderUnavailable)
        };
        Self { code, reason, message: error.to_string() }
    }
}

fn invalid_params(param: &Value, context: Context) -> Code {
    let condition = param.as_str().is_some_and(|param| CONDITION_PARAMS.contains(&param));
    match context {
        // What the roles of a conference do not allow.
        Context::Attribute => Code::InvalidParameters,
        Context::Operation if condition => Code::TermCondition,
        Context::Connect | Context::Operation | Context::Digits => Code::InvalidParameter,
    }
}

/// Parameters of `operation.start` that are termination conditions.
const CONDITION_PARAMS: &[&str] = &[
    "max_time_ms",
    "digits",
    "digit",
    "digit_list",
    "digit_pattern",
    "inter_digit_ms",
    "silence_ms",
    "nonsilence_ms",
    "timeout_ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn native(error: RpcError, context: Context) -> (u8, Option<u8>) {
        let fault = Fault::from_native(&error, context);
        (fault.code.number(), fault.reason.map(Reason::number))
    }

    #[test]
    fn numbers_are_those_of_the_table() {
        let numbers: Vec<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        let table =
            [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 35, 36];
        assert_eq!(numbers, table);
    }

    #[test]
    fn native_errors_become_codes() {
        let of = |kind| RpcError::new(kind, "x");
        for (kind, connect, operation) in [
            (ErrorKind::UnknownConnection, 23, 23),
            (ErrorKind::UnknownConference, 24, 24),
            (ErrorKind::NotAParticipant, 24, 24),
            (ErrorKind::UnknownOperation, 25, 25),
            (ErrorKind::AlreadyJoined, 15, 15),
            (ErrorKind::Busy, 14, 14),
            (ErrorKind::OutOfPorts, 4, 4),
            (ErrorKind::LimitReached, 4, 8),
            (ErrorKind::FileNotFound, 30, 30),
            (ErrorKind::PathOutsideRoot, 30, 30),
            (ErrorKind::FileUnsupported, 27, 27),
            (ErrorKind::NotConnected, 16, 16),
            (ErrorKind::Draining, 5, 5),
            (ErrorKind::IoError, 7, 30),
            (ErrorKind::ShardFailed, 7, 7),
            (ErrorKind::Internal, 6, 6),
            (ErrorKind::InvalidParams, 27, 27),
        ] {
            assert_eq!(native(of(kind), Context::Connect), (connect, None), "{kind:?}");
            assert_eq!(native(of(kind), Context::Operation), (operation, None), "{kind:?}");
        }
    }

    #[test]
    fn an_exhausted_class_tells_its_reason() {
        let full = |resource: &str| RpcError::new(ErrorKind::LimitReached, "x").with("resource", resource);
        assert_eq!(native(full("rtp"), Context::Connect), (8, None));
        assert_eq!(native(full("enhanced_rtp").with("reason", 7), Context::Connect), (8, Some(7)));
        assert_eq!(native(RpcError::new(ErrorKind::UnsupportedCodec, "x"), Context::Connect), (27, Some(6)));
        assert_eq!(native(RpcError::new(ErrorKind::UnsupportedCodec, "x"), Context::Operation), (8, Some(6)));
    }

    #[test]
    fn a_bad_condition_has_its_own_code() {
        assert_eq!(native(RpcError::invalid_param("digit_list", "x"), Context::Operation), (36, None));
        assert_eq!(native(RpcError::invalid_param("volume", "x"), Context::Operation), (27, None));
        assert_eq!(native(RpcError::invalid_param("muted", "x"), Context::Attribute), (26, None));
    }
}
