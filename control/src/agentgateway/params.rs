//! Parameters of a request. Numbers and booleans are taken as texts too, since clients send both.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::codes::{Code, Fault};
use crate::store::agents::{WORK_NUMBER_MAX, WORK_NUMBER_MIN};
use crate::urlencoded::decode;

/// The members of a body.
#[derive(Debug, Default)]
pub(super) struct Params(Map<String, Value>);

impl Params {
    /// Reads a body. What the query says stands beside it; the body wins.
    pub(super) fn read(body: &[u8], query: &str) -> Result<Self, Fault> {
        let mut members = Map::new();
        // Older clients give single numbers there. Nothing else: addresses stand in the logs of whatever is on the way.
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        for (name, value) in pairs.filter(|(name, _)| IN_QUERY.contains(name)) {
            members.insert(name.to_owned(), decode(value).into());
        }
        if !body.is_empty() || members.is_empty() {
            let Ok(Value::Object(given)) = serde_json::from_slice(body) else { return Err(Code::WrongMessage.into()) };
            members.extend(given);
        }
        Ok(Self(members))
    }

    pub(super) fn of(value: &Value) -> Result<Self, Fault> {
        value.as_object().map(|object| Self(object.clone())).ok_or_else(|| Code::WrongParameter.into())
    }

    /// Whether it is given, be it empty.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Null and the empty text are no value.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null() && *value != "")
    }

    /// A whole number in a range.
    pub(super) fn int(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| Code::WrongParameter.into())
    }

    pub(super) fn needed_int(&self, name: &str, range: RangeInclusive<u32>) -> Result<u32, Fault> {
        self.int(name, range)?.ok_or_else(|| Code::WrongParameter.into())
    }

    pub(super) fn bool(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(Value::String(_) | Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(Code::WrongParameter.into())
            }
        }
    }

    /// A text of at most `bytes_max`. Control characters are no part of any.
    pub(super) fn text(&self, name: &str, bytes_max: usize) -> Result<Option<&str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text)),
            Some(_) => Err(Code::WrongParameter.into()),
        }
    }

    pub(super) fn list(&self, name: &str, max: usize) -> Result<&[Value], Fault> {
        match self.get(name) {
            Some(Value::Array(values)) if values.len() <= max => Ok(values),
            Some(_) | None => Err(Code::WrongParameter.into()),
        }
    }

    /// `addressType` and `address`.
    pub(super) fn address(&self) -> Result<Address, Fault> {
        let wrong = Fault::from(Code::WrongParameter);
        let kind = self.needed_int("addressType", 0..=u32::from(u8::MAX))?;
        let text = match self.get("address") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => return Err(wrong),
        };
        if text.len() > ADDRESS_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(wrong);
        }
        match kind {
            PHONE => Ok(Address::Phone(text)),
            AGENT => work_number(&text).map(Address::Agent).ok_or(wrong),
            _ => Err(wrong),
        }
    }

    /// `playMode` has one value.
    pub(super) fn check_play_mode(&self) -> Result<(), Fault> {
        self.int("playMode", 2..=2).map(|_| ())
    }
}

/// A work number in decimal digits.
pub(super) fn work_number(text: &str) -> Option<u32> {
    let plain = text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|_| plain)?;
    (WORK_NUMBER_MIN..=WORK_NUMBER_MAX).contains(&number).then_some(number)
}

/// Who takes part in a conference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Address {
    /// A telephone number.
    Phone(String),
    /// An agent, by work number.
    Agent(u32),
}

impl Address {
    /// `addressType`.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Self::Phone(_) => PHONE,
            Self::Agent(_) => AGENT,
        }
    }

    /// As participants are told by their address.
    pub(super) fn to_value(&self) -> Value {
        json!({"addressType": self.kind().to_string(), "address": self.to_string()})
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phone(number) => f.write_str(number),
            Self::Agent(number) => write!(f, "{number}"),
        }
    }
}

/// What may stand in the query.
const IN_QUERY: &[&str] = &["prolongTime", "destWorkNo"];
/// Bytes of an address, and of a calling number.
pub(super) const ADDRESS_BYTES_MAX: usize = 24;
const PHONE: u32 = 6;
const AGENT: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: Value) -> Params {
        Params::of(&value).expect("an object")
    }

    #[test]
    fn numbers_and_booleans_may_be_texts() {
        let given = params(json!({"a": 5, "b": "5", "c": "-5", "d": 5.5, "e": "true", "f": true, "g": "", "h": "1e3"}));
        for (name, wanted) in [("a", Ok(Some(5))), ("b", Ok(Some(5))), ("g", Ok(None)), ("x", Ok(None))] {
            assert_eq!(given.int(name, 1..=9), wanted, "{name}");
        }
        for name in ["c", "d", "e", "f", "h"] {
            assert_eq!(given.int(name, 0..=9), Err(Code::WrongParameter.into()), "{name}");
        }
        assert_eq!(given.int("a", 6..=9), Err(Code::WrongParameter.into()));
        assert_eq!((given.bool("e"), given.bool("f"), given.bool("g")), (Ok(Some(true)), Ok(Some(true)), Ok(None)));
        assert!(given.bool("a").is_err());
    }

    #[test]
    fn addresses_are_telephone_numbers_or_agents() {
        let read = |value: Value| params(value).address();
        assert_eq!(read(json!({"addressType": "6", "address": "8801"})), Ok(Address::Phone("8801".to_owned())));
        assert_eq!(read(json!({"addressType": 9, "address": "101"})), Ok(Address::Agent(101)));
        for wrong in [
            json!({}),
            json!({"addressType": "6"}),
            json!({"addressType": "7", "address": "8801"}),
            json!({"addressType": "9", "address": "100"}),
            json!({"addressType": "9", "address": "0101"}),
            json!({"addressType": "9", "address": "+101"}),
            json!({"addressType": "6", "address": "1".repeat(25)}),
            json!({"addressType": "6", "address": "1\n2"}),
            json!({"addressType": "6", "address": []}),
        ] {
            assert_eq!(read(wrong.clone()), Err(Code::WrongParameter.into()), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_an_object() {
        for body in ["", "[]", "1", "{", "null"] {
            assert!(matches!(Params::read(body.as_bytes(), ""), Err(Fault { code: Code::WrongMessage, .. })), "{body}");
        }
        let read = Params::read(b"", "prolongTime=5").expect("from the query");
        assert_eq!(read.int("prolongTime", 1..=9), Ok(Some(5)));
        let both = Params::read(br#"{"prolongTime": 1}"#, "prolongTime=2").expect("read");
        assert_eq!(both.int("prolongTime", 1..=9), Ok(Some(1)));
        let decoded = Params::read(b"", "a=1&destWorkNo=%31%30%32").expect("from the query");
        assert_eq!(decoded.int("destWorkNo", 101..=999), Ok(Some(102)));
        for query in ["password=&phonenum=1", "memberNum=6", "%70rolongTime=5", "prolongTime"] {
            assert!(Params::read(b"", query).is_err(), "{query}");
        }
    }
}
