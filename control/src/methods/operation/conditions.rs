//! What ends an operation besides its own end. Each kind takes some of these parameters.

use ringbridge_media::command::StopConditions;
use ringbridge_media::digits::{DigitSet, Digits};
use ringbridge_media::limits::{DIGIT_PATTERN_MAX, DIGITS_MAX};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::DURATION_MS_MAX;
use crate::methods::in_range;
use crate::proto::{RpcError, params};

/// Of what is heard.
pub(super) const PLAY: &[&str] =
    &["max_time_ms", "digits", "digit", "digit_list", "silence_ms", "nonsilence_ms", "timeout_ms"];
/// Of a recording.
pub(super) const RECORD: &[&str] = &["max_time_ms", "digit", "silence_ms", "nonsilence_ms", "timeout_ms"];
/// Of the gathering of digits.
pub(super) const GATHER_DIGITS: &[&str] =
    &["max_time_ms", "digits", "digit", "digit_list", "digit_pattern", "inter_digit_ms", "timeout_ms"];
/// Of waiting for silence.
pub(super) const DETECT_SILENCE: &[&str] = &["silence_ms", "timeout_ms"];
/// Of waiting for sound.
pub(super) const DETECT_NONSILENCE: &[&str] = &["nonsilence_ms", "timeout_ms"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    max_time_ms: Option<u32>,
    digits: Option<u8>,
    digit: Option<String>,
    digit_list: Option<String>,
    digit_pattern: Option<String>,
    inter_digit_ms: Option<u32>,
    silence_ms: Option<u32>,
    nonsilence_ms: Option<u32>,
    timeout_ms: Option<u32>,
}

/// Takes the parameters called `names` out of those `given`. The others stay, to be read or refused with the rest.
pub(super) fn take(given: &mut Value, names: &[&str]) -> Result<StopConditions, RpcError> {
    let mut own = Map::new();
    if let Some(object) = given.as_object_mut() {
        own.extend(names.iter().filter_map(|name| object.remove_entry(*name)));
    }
    let given: Given = params(Value::Object(own))?;
    let most = u8::try_from(DIGITS_MAX).unwrap_or(u8::MAX);
    Ok(StopConditions {
        max_time_ms: duration("max_time_ms", given.max_time_ms)?,
        digits_max: given.digits.map(|digits| in_range("digits", digits, 1..=most)).transpose()?,
        digit: given.digit.map(|digits| set("digit", &digits)).transpose()?,
        digit_list: given.digit_list.map(|digits| set("digit_list", &digits)).transpose()?,
        digit_pattern: given.digit_pattern.map(|digits| pattern(&digits)).transpose()?,
        inter_digit_ms: duration("inter_digit_ms", given.inter_digit_ms)?,
        silence_ms: duration("silence_ms", given.silence_ms)?,
        nonsilence_ms: duration("nonsilence_ms", given.nonsilence_ms)?,
        timeout_ms: duration("timeout_ms", given.timeout_ms)?,
    })
}

fn duration(param: &str, given: Option<u32>) -> Result<Option<u32>, RpcError> {
    given.map(|duration| in_range(param, duration, 1..=DURATION_MS_MAX)).transpose()
}

fn set(param: &str, digits: &str) -> Result<DigitSet, RpcError> {
    DigitSet::parse(digits).filter(|_| digits.len() <= DIGIT_PATTERN_MAX).ok_or_else(|| wrong(param, digits))
}

fn pattern(digits: &str) -> Result<Digits, RpcError> {
    Digits::parse(digits)
        .filter(|pattern| (1..=DIGIT_PATTERN_MAX).contains(&pattern.len()))
        .ok_or_else(|| wrong("digit_pattern", digits))
}

fn wrong(param: &str, digits: &str) -> RpcError {
    let message = format!("{param}: `{digits}` is not made of 1 to {DIGIT_PATTERN_MAX} of 0-9 * # A-D");
    RpcError::invalid_param(param, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_kind_does_not_take_stays() {
        let mut given = json!({"digits": 4, "digit": "#a", "inter_digit_ms": 2000, "path": "x", "timeout_ms": null});
        let until = take(&mut given, PLAY).expect("in range");
        assert_eq!((until.digits_max, until.digit, until.timeout_ms), (Some(4), DigitSet::parse("#A"), None));
        assert_eq!(given, json!({"inter_digit_ms": 2000, "path": "x"}));
        let until = take(&mut given, GATHER_DIGITS).expect("in range");
        assert_eq!((until.inter_digit_ms, until.digits_max), (Some(2000), None));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (given, param) in [
            (json!({"max_time_ms": 0}), "max_time_ms"),
            (json!({"digits": 0}), "digits"),
            (json!({"digits": 32}), "digits"),
            (json!({"digits": "1"}), "digits"),
            (json!({"digit": ""}), "digit"),
            (json!({"digit": "1,2"}), "digit"),
            (json!({"digit": 1}), "digit"),
            (json!({"digit_list": "1234567890123456"}), "digit_list"),
            (json!({"digit_pattern": "1234567890123456"}), "digit_pattern"),
            (json!({"digit_pattern": ""}), "digit_pattern"),
            (json!({"inter_digit_ms": 86_400_001}), "inter_digit_ms"),
            (json!({"timeout_ms": -1}), "timeout_ms"),
        ] {
            let error = take(&mut given.clone(), GATHER_DIGITS).expect_err(param).to_value();
            assert_eq!((&error["code"], &error["data"]["param"]), (&json!(-32602), &json!(param)), "{given}");
        }
        assert!(take(&mut json!({"silence_ms": 0}), DETECT_SILENCE).is_err());
    }
}
