//! Parameters as clients write them: names in any case, values as texts or numbers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::codes::Fault;

/// The parameters of one action.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Params(BTreeMap<String, Value>);

impl Params {
    /// Takes up what was given. Null and the empty text count as absent.
    ///
    /// # Errors
    /// One name stands twice, in different cases.
    pub fn new(given: Map<String, Value>) -> Result<Self, Fault> {
        let mut params = BTreeMap::new();
        for (name, value) in given {
            if value.is_null() || value == "" {
                continue;
            }
            if params.insert(name.to_ascii_lowercase(), value).is_some() {
                return Err(Fault::parameters(format!("{name} is given twice")));
            }
        }
        Ok(Self(params))
    }

    /// The names given, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a parameter is given.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A value as it was given.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(&name.to_ascii_lowercase())
    }

    /// A text; a number or a Boolean is taken as its text.
    ///
    /// # Errors
    /// 27: it is a list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        self.get(name)
            .map(|value| match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                Value::Bool(flag) => Ok(flag.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    Err(Fault::value(format!("{name} has to be a text")))
                }
            })
            .transpose()
    }

    /// A text that has to be there.
    ///
    /// # Errors
    /// 26: it is not; 27: it is no text.
    pub fn required(&self, name: &str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// The text of an id; `0` counts as absent.
    ///
    /// # Errors
    /// 27: it is no text.
    pub fn id(&self, name: &str) -> Result<Option<String>, Fault> {
        Ok(self.text(name)?.filter(|text| text.trim() != "0"))
    }

    /// The text of an id that has to be there.
    ///
    /// # Errors
    /// 26: it is not; 27: it is no text.
    pub fn required_id(&self, name: &str) -> Result<String, Fault> {
        self.id(name)?.ok_or_else(|| missing(name))
    }

    /// A UInt32.
    ///
    /// # Errors
    /// 27: it is no such number.
    pub fn uint(&self, name: &str) -> Result<Option<u32>, Fault> {
        let parsed = self.integer(name)?;
        parsed
            .map(|number| {
                u32::try_from(number).map_err(|_| Fault::value(format!("{name}: {number} is not 0 to {}", u32::MAX)))
            })
            .transpose()
    }

    /// A UInt32 of which 0 counts as absent.
    ///
    /// # Errors
    /// 27: it is no such number.
    pub fn positive(&self, name: &str) -> Result<Option<u32>, Fault> {
        Ok(self.uint(name)?.filter(|number| *number > 0))
    }

    /// An Int32 in a range.
    ///
    /// # Errors
    /// 27: it is no such number.
    pub fn int(&self, name: &str, min: i32, max: i32) -> Result<Option<i32>, Fault> {
        let parsed = self.integer(name)?;
        parsed
            .map(|number| {
                i32::try_from(number)
                    .ok()
                    .filter(|number| (min..=max).contains(number))
                    .ok_or_else(|| Fault::value(format!("{name}: {number} is not {min} to {max}")))
            })
            .transpose()
    }

    /// A whole number.
    ///
    /// # Errors
    /// 27: it is no such number.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| Fault::value(format!("{name}: `{text}` is no whole number")))
    }

    /// A Boolean.
    ///
    /// # Errors
    /// 27: it is neither true nor false.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(Fault::value(format!("{name}: `{text}` is neither true nor false"))),
        }
    }

    /// One of some words, in any case. Returns it as it stands in `words`.
    ///
    /// # Errors
    /// 27: it is none of them.
    pub fn choice(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().copied().find(|word| word.eq_ignore_ascii_case(text.trim()));
        found.map(Some).ok_or_else(|| Fault::value(format!("{name}: `{text}` is none of {}", words.join(", "))))
    }

    /// A text or a list of texts.
    ///
    /// # Errors
    /// 27: it is something else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Fault> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let text = |item: &Value| item.as_str().map(str::to_owned);
                let texts: Option<Vec<String>> = items.iter().map(text).collect();
                texts.ok_or_else(|| Fault::value(format!("{name} has to be a list of texts")))
            }
            Some(_) => Ok(self.text(name)?.into_iter().collect()),
        }
    }

    /// A termination condition that is a number; 0 counts as absent.
    ///
    /// # Errors
    /// 36: it is no such number.
    pub fn condition(&self, name: &str) -> Result<Option<u32>, Fault> {
        self.positive(name).map_err(|fault| Fault::condition(fault.message))
    }

    /// A termination condition that is made of digits, at most `max` of them.
    ///
    /// # Errors
    /// 36: there are others, or too many.
    pub fn condition_digits(&self, name: &str, max: usize) -> Result<Option<String>, Fault> {
        let Some(text) = self.text(name).map_err(|fault| Fault::condition(fault.message))? else { return Ok(None) };
        if text.len() > max {
            return Err(Fault::condition(format!("{name}: more than {max} digits")));
        }
        digits(&text).map(Some).ok_or_else(|| Fault::condition(format!("{name}: `{text}` is not made of {ALPHABET}")))
    }
}

/// The digits in a text, in upper case; `None` if there is anything else in it, or nothing.
pub fn digits(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    (!upper.is_empty() && upper.chars().all(|digit| ALPHABET.contains(digit))).then_some(upper)
}

/// 26 for a parameter that is not there.
pub fn missing(name: &str) -> Fault {
    Fault::parameters(format!("{name} has to be given"))
}

const ALPHABET: &str = "0123456789*#ABCD";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mediacontrol::codes::Code;

    fn params(value: Value) -> Params {
        let Value::Object(object) = value else { panic!("an object") };
        Params::new(object).expect("each once")
    }

    #[test]
    fn names_are_found_in_any_case_and_values_in_either_form() {
        let params = params(json!({"MEDIATXPORT": "4000", "mmsid": 1, "Block": "FALSE", "Hairpin": true, "X": 12}));
        assert_eq!(params.uint("MediaTxPort"), Ok(Some(4000)));
        assert_eq!(params.uint("MmsId"), Ok(Some(1)));
        assert_eq!(params.boolean("Block"), Ok(Some(false)));
        assert_eq!(params.boolean("Hairpin"), Ok(Some(true)));
        assert_eq!(params.text("x"), Ok(Some("12".to_owned())));
        assert_eq!(params.uint("ConnectionId"), Ok(None));
    }

    #[test]
    fn null_and_nothing_are_absent_and_zero_is_no_id() {
        let params = params(json!({"a": null, "b": "", "ConnectionId": "0", "ConferenceId": 0}));
        assert!(!params.has("a") && !params.has("b"));
        assert_eq!(params.id("ConnectionId"), Ok(None));
        assert_eq!(params.required_id("ConferenceId").expect_err("absent").code, Code::InvalidParameters);
    }

    #[test]
    fn bad_values_are_27() {
        let params =
            params(json!({"a": "x", "b": -1, "c": [1], "d": "yes", "e": 11, "f": 5_000_000_000_u64, "g": 1.5}));
        let code = |fault: Fault| fault.code;
        let bad = Code::InvalidParameter;
        assert_eq!(params.uint("a").map_err(code), Err(bad));
        assert_eq!(params.uint("b").map_err(code), Err(bad));
        assert_eq!(params.text("c").map_err(code), Err(bad));
        assert_eq!(params.boolean("d").map_err(code), Err(bad));
        assert_eq!(params.int("e", -10, 10).map_err(code), Err(bad));
        assert_eq!(params.uint("f").map_err(code), Err(bad));
        assert_eq!(params.uint("g").map_err(code), Err(bad));
        assert_eq!(params.choice("a", &["wav", "vox"]).map_err(code), Err(bad));
    }

    #[test]
    fn conditions_are_36() {
        let params = params(json!({"t": "soon", "n": 0, "d": "12x", "l": "1234567890123456", "ok": "1a#"}));
        let code = |fault: Fault| fault.code;
        assert_eq!(params.condition("t").map_err(code), Err(Code::TermCondition));
        assert_eq!(params.condition("n"), Ok(None));
        assert_eq!(params.condition_digits("d", 15).map_err(code), Err(Code::TermCondition));
        assert_eq!(params.condition_digits("l", 15).map_err(code), Err(Code::TermCondition));
        assert_eq!(params.condition_digits("ok", 15), Ok(Some("1A#".to_owned())));
    }

    #[test]
    fn one_name_twice_is_a_contradiction() {
        let Value::Object(object) = json!({"Volume": 1, "volume": 2}) else { panic!("an object") };
        assert_eq!(Params::new(object).expect_err("twice").code, Code::InvalidParameters);
    }
}
