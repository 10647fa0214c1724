//! The parameters of a request: from the query string, from a form body, or from both.

use super::answer::{Code, Fault};
use crate::urlencoded::pairs;

/// Parameters in the order they came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query string and a form body; what is in the body comes last, and so wins.
    ///
    /// # Errors
    /// Something is no UTF-8.
    pub(super) fn parse(query: &str, body: &[u8]) -> Result<Self, Fault> {
        let mut parameters = Vec::new();
        for (name, value) in pairs(query.as_bytes()).chain(pairs(body)) {
            parameters.push((text(name)?, text(value)?));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter, if it is there and not empty. Names are compared without case; the last one counts.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name));
        last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter that may be repeated.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The action of a request that can't be parsed, as far as it can be read.
pub(super) fn action_of(query: &str, body: &[u8]) -> String {
    let all = pairs(query.as_bytes()).chain(pairs(body));
    let last = all.filter(|(name, _)| name.eq_ignore_ascii_case(b"action")).last();
    last.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default()
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault(Code::Malformed, "A parameter is not valid UTF-8.".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_case_the_last_one_and_the_body_win() {
        let query = Query::parse("ACTION=a&mute=1&mute=2&empty=&flag", b"action=b+c%2B%3d&x=%zz").unwrap();
        assert_eq!(query.get("action"), Some("b c+="));
        assert_eq!(query.get("Mute"), Some("2"));
        assert_eq!((query.get("empty"), query.get("flag"), query.get("none")), (None, None, None));
        assert_eq!(query.get("x"), Some("%zz"));
        assert_eq!(query.all("mute").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn what_is_no_utf_8_is_refused() {
        for (query, body) in [("a=%ff", &b""[..]), ("%c3=1", b""), ("", b"a=\xff"), ("", b"a=%ED%A0%80")] {
            assert_eq!(Query::parse(query, body).unwrap_err().0, Code::Malformed);
        }
        assert_eq!(Query::parse("a=%C3%A9", b"").unwrap().get("a"), Some("é"));
    }
}
