//! What is answered: result codes, causes of the layer below, and the one form every answer has.

use serde_json::{Value, json};

use super::effect::Effect;
use crate::proto::{ErrorKind, RpcError};

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// Every `retcode` that is answered here.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $(#[doc = $text] $name,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is answered.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    WrongEventMode = "000-001", "events of this agent are pushed, not polled";
    WrongParameter = "000-002", "wrong URL or parameter";
    NoPermission = "000-003", "no permission: the Guid is missing, wrong or has expired";
    WrongMessage = "000-006", "the body is no JSON object";
    SignInParameter = "100-001", "a sign-in parameter is empty or invalid";
    AlreadySignedIn = "100-002", "the agent is signed in already";
    Unavailable = "100-003", "sign-in is not possible at the moment";
    WrongPassword = "100-004", "user name or password wrong";
    NotSignedIn = "100-006", "the agent is not signed in";
    Exception = "100-007", "the operation could not be carried out";
    SignedOut = "100-008", "the agent has signed out";
    SignOutState = "100-010", "the agent is in a call";
    WrongAgentType = "100-012", "wrong agent type";
    WrongPhone = "100-013", "the telephone number is invalid";
    PhoneNotAllowed = "100-014", "the agent may not sign in with this telephone number";
    WrongIp = "100-016", "invalid IP address";
    PasswordExpired = "100-020", "the password has expired";
    SigningIn = "100-021", "a sign-in is in progress";
    Locked = "110-016", "the account is locked, or there were too many attempts";
    NoConference = "101-001", "the agent has no conference";
    NotChair = "101-002", "the agent is not the chair of the conference";
    InConference = "101-003", "the agent is in a conference already";
    NotInspector = "101-004", "only an inspector may do this";
    ChairToSelf = "101-005", "the chair can't pass the chair to itself";
    ChairRemovesSelf = "101-006", "the chair can't remove itself";
    ChairLeaves = "101-007", "the chair can't leave: release the conference";
}

/// Causes of our own, as `errorReason` and `cause`. What has none of these is told by the native error's code.
pub mod cause {
    /// No announcement is playing.
    pub const NOT_PLAYING: i64 = 90_001;
    /// An announcement of this kind is playing.
    pub const PLAYING: i64 = 90_002;
    /// There is no such announcement file.
    pub const NO_FILE: i64 = 90_003;
    /// The file is unreadable or of a format that is not played.
    pub const BAD_FILE: i64 = 90_004;
    /// No such participant, or nobody can be reached under this address.
    pub const NO_PARTICIPANT: i64 = 90_005;
    /// The participant is not in a state that allows it.
    pub const WRONG_STATE: i64 = 90_006;
    /// No seat or mixing resource is free.
    pub const NO_RESOURCE: i64 = 90_007;
    /// The call of the agent is not in a stable state.
    pub const CALL_NOT_STABLE: i64 = 90_008;
    /// The path leads out of the folder of the agent's VDN.
    pub const OUTSIDE: i64 = 90_009;
}

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    /// The layer below says why.
    pub(super) cause: Option<i64>,
}

impl Fault {
    /// Failed below, for that cause.
    pub(super) fn below(cause: i64) -> Self {
        Self { code: Code::Exception, cause: Some(cause) }
    }

    /// The cause as it is told where there always has to be one.
    pub(super) fn cause_or(self, other: i64) -> i64 {
        self.cause.unwrap_or(other)
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self { code, cause: None }
    }
}

impl From<&RpcError> for Fault {
    fn from(error: &RpcError) -> Self {
        let cause = match error.kind() {
            ErrorKind::FileNotFound => cause::NO_FILE,
            ErrorKind::FileUnsupported => cause::BAD_FILE,
            ErrorKind::PathOutsideRoot => cause::OUTSIDE,
            ErrorKind::LimitReached | ErrorKind::OutOfPorts => cause::NO_RESOURCE,
            ErrorKind::UnknownOperation => cause::NOT_PLAYING,
            ErrorKind::UnknownConnection | ErrorKind::NotAParticipant => cause::NO_PARTICIPANT,
            ErrorKind::NotConnected | ErrorKind::AlreadyJoined => cause::WRONG_STATE,
            // A fault of ours has no code that would tell a client anything.
            ErrorKind::ParseError
            | ErrorKind::InvalidRequest
            | ErrorKind::MethodNotFound
            | ErrorKind::InvalidParams
            | ErrorKind::Internal => return Code::Exception.into(),
            ErrorKind::UnknownConference
            | ErrorKind::Busy
            | ErrorKind::UnsupportedCodec
            | ErrorKind::Draining
            | ErrorKind::IoError
            | ErrorKind::Unsupported
            | ErrorKind::ShardFailed => i64::from(error.kind().code()),
        };
        Self::below(cause)
    }
}

/// What came of an operation that was carried out.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Done {
    /// `result`.
    pub(super) result: Value,
    /// From where on it can be heard.
    pub(super) effect: Effect,
}

impl Done {
    /// Nothing to say.
    pub(super) fn plain() -> Self {
        Self::with(json!({}))
    }

    /// A result, and nothing that can be heard.
    pub(super) fn with(result: Value) -> Self {
        Self { result, effect: Effect::default() }
    }
}

impl From<Effect> for Done {
    fn from(effect: Effect) -> Self {
        Self { effect, ..Self::plain() }
    }
}

/// An answer: its body, a new session id where there is one, and from where on it can be heard.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) body: Value,
    pub(super) guid: Option<String>,
    pub(super) effect: Effect,
}

impl Answer {
    /// Success with that result.
    pub(super) fn success(result: Value) -> Self {
        Self::of(json!({"message": "success", "retcode": "0", "result": result}))
    }

    /// An answer of that body.
    pub(super) fn of(body: Value) -> Self {
        Self { body, guid: None, effect: Effect::default() }
    }

    /// A failure.
    pub(super) fn failure(fault: Fault) -> Self {
        let (message, result) = match fault.cause {
            Some(cause) => (format!("Unknown ERROR._{cause}"), json!({"errorReason": cause})),
            None => (fault.code.meaning().to_owned(), json!({})),
        };
        Self::of(json!({"message": message, "retcode": fault.code.text(), "result": result}))
    }

    /// What was answered, for the log.
    pub(super) fn retcode(&self) -> &str {
        self.body["retcode"].as_str().unwrap_or_default()
    }
}

impl From<Result<Done, Fault>> for Answer {
    fn from(result: Result<Done, Fault>) -> Self {
        match result {
            Ok(Done { result, effect }) => Self { effect, ..Self::success(result) },
            Err(fault) => Self::failure(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_causes_are_told() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(Code::ALL[index + 1..].iter().all(|other| other.text() != code.text()), "{code:?}");
        }
        let failure = Answer::failure(Fault::below(cause::NOT_PLAYING)).body;
        let told = json!({"message": "Unknown ERROR._90001", "retcode": "100-007", "result": {"errorReason": 90001}});
        assert_eq!(failure, told);
        let busy = RpcError::new(ErrorKind::Busy, "busy");
        assert_eq!(Fault::from(&busy), Fault::below(1006));
        let internal = RpcError::new(ErrorKind::Internal, "broken");
        assert_eq!(Answer::failure((&internal).into()).body["result"], json!({}));
    }
}
