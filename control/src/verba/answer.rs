//! An answer and its three forms. Every value is escaped: what a client sent or an endpoint signalled is text, never
//! markup.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

/// What an answer says went wrong, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Code {
    /// Key, network, token or credentials.
    Refused,
    /// Not found, more than one found, or not in this state.
    Failed,
    /// The request itself.
    Malformed,
    /// The server.
    Internal,
}

impl Code {
    pub(super) const fn number(self) -> &'static str {
        match self {
            Self::Refused => "1",
            Self::Failed => "2",
            Self::Malformed => "3",
            Self::Internal => "9",
        }
    }
}

/// Why a call was not carried out: its code and a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault(pub(super) Code, pub(super) String);

/// How the client wants its answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Form {
    #[default]
    Xml,
    Html,
    Text,
}

impl Form {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [("XML", Self::Xml), ("HTML", Self::Html), ("TEXT", Self::Text)]
            .into_iter()
            .find_map(|(name, form)| text.eq_ignore_ascii_case(name).then_some(form))
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Xml => "text/xml; charset=UTF-8",
            Self::Html => "text/html; charset=UTF-8",
            Self::Text => "text/plain; charset=UTF-8",
        }
    }
}

/// What a call that was carried out answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Success {
    /// Attributes of the response.
    pub(super) attributes: Vec<(&'static str, String)>,
    /// The calls found, in a list of their own or the one that was named.
    pub(super) calls: Vec<Cdr>,
    /// Whether they are a list.
    pub(super) is_list: bool,
}

/// A call as it is described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cdr {
    /// `0` ongoing, `1` finished.
    pub(super) state: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
}

/// The text of an answer to the action `kind`.
pub(super) fn render(form: Form, kind: &str, answer: &Result<Success, Fault>) -> String {
    let kind = echoed(kind);
    match form {
        Form::Xml => xml(kind, answer),
        Form::Html => html(kind, answer),
        Form::Text => text(kind, answer),
    }
}

/// The answer to the action `kind`, as HTTP.
pub(super) fn response(form: Form, kind: &str, answer: &Result<Success, Fault>) -> Response<Body> {
    let mut response = Response::new(Body::from(render(form, kind, answer)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The action as it is told back: plain letters only.
fn echoed(kind: &str) -> &str {
    let plain = kind.len() <= ACTION_BYTES_MAX && kind.bytes().all(|byte| byte.is_ascii_alphabetic());
    if plain { kind } else { "" }
}

fn xml(kind: &str, answer: &Result<Success, Fault>) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n".to_owned();
    match answer {
        Err(Fault(code, message)) => {
            let (code, message) = (code.number(), escape(message));
            // Writing to a text does not fail.
            let _ = write!(
                out,
                "<Response code=\"{code}\" type=\"{kind}\"><ErrorMessage>{message}</ErrorMessage></Response>"
            );
        }
        Ok(success) => {
            let _ = write!(out, "<Response code=\"0\" type=\"{kind}\"");
            for (name, value) in &success.attributes {
                let _ = write!(out, " {name}=\"{}\"", escape(value));
            }
            if success.calls.is_empty() && !success.is_list {
                out.push_str("/>");
            } else {
                out.push_str(if success.is_list { "><verbacdrlist>" } else { ">" });
                for call in &success.calls {
                    let _ = write!(out, "<verbacdr state=\"{}\">", call.state);
                    for (name, value) in &call.fields {
                        let _ = write!(out, "<{name}>{}</{name}>", escape(value));
                    }
                    out.push_str("</verbacdr>");
                }
                out.push_str(if success.is_list { "</verbacdrlist></Response>" } else { "</Response>" });
            }
        }
    }
    out.push_str("\n</VerbaApi>\n");
    out
}

/// Names and values in the order they are told.
fn pairs<'a>(kind: &'a str, answer: &'a Result<Success, Fault>) -> Vec<(&'a str, &'a str)> {
    match answer {
        Err(Fault(code, message)) => vec![("code", code.number()), ("type", kind), ("error", message)],
        Ok(success) => {
            let mut pairs = vec![("code", "0"), ("type", kind)];
            pairs.extend(success.attributes.iter().map(|(name, value)| (*name, value.as_str())));
            for call in &success.calls {
                pairs.push(("state", call.state));
                pairs.extend(call.fields.iter().map(|(name, value)| (*name, value.as_str())));
            }
            pairs
        }
    }
}

fn text(kind: &str, answer: &Result<Success, Fault>) -> String {
    let mut out = String::new();
    for (name, value) in pairs(kind, answer) {
        // One item a line, whatever is in it.
        let value: String = value.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let _ = writeln!(out, "{name}={value}");
    }
    out
}

fn html(kind: &str, answer: &Result<Success, Fault>) -> String {
    let mut out =
        format!("<!DOCTYPE html>\n<html><head><meta charset=\"UTF-8\"><title>{kind}</title></head><body><table>\n");
    for (name, value) in pairs(kind, answer) {
        let _ = writeln!(out, "<tr><td>{name}</td><td>{}</td></tr>", escape(value));
    }
    out.push_str("</table></body></html>\n");
    out
}

/// Text as it may stand in an element or in an attribute (XML 1.0 section 2.4). What XML can't hold at all is replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

/// Bytes of an action that is told back.
const ACTION_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "<script>\"&'\u{0}\n\u{ffff}</ErrorMessage>";

    #[test]
    fn the_forms_of_success_and_failure() {
        let muted = Success {
            attributes: vec![("callerMuted", "true".to_owned()), ("calledMuted", "false".to_owned())],
            ..Success::default()
        };
        let failed: Result<Success, Fault> = Err(Fault(Code::Failed, "The call cannot be found.".to_owned()));
        assert_eq!(
            render(Form::Xml, "MuteRecording", &Ok(muted.clone())),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" type=\"MuteRecording\" \
             callerMuted=\"true\" calledMuted=\"false\"/>\n</VerbaApi>\n"
        );
        assert_eq!(
            render(Form::Xml, "MuteRecording", &failed),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"2\" type=\"MuteRecording\">\
             <ErrorMessage>The call cannot be found.</ErrorMessage></Response>\n</VerbaApi>\n"
        );
        assert_eq!(
            render(Form::Text, "MuteRecording", &Ok(muted.clone())),
            "code=0\ntype=MuteRecording\ncallerMuted=true\ncalledMuted=false\n"
        );
        assert_eq!(
            render(Form::Text, "MuteRecording", &failed),
            "code=2\ntype=MuteRecording\nerror=The call cannot be found.\n"
        );
        let page = render(Form::Html, "MuteRecording", &Ok(muted));
        assert!(page.contains("<title>MuteRecording</title>") && page.contains("<td>callerMuted</td><td>true</td>"));
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let cdr = Cdr { state: "0", fields: vec![("source_caller_id", HOSTILE.to_owned())] };
        let answers = [
            Err(Fault(Code::Malformed, HOSTILE.to_owned())),
            Ok(Success { attributes: vec![("token", HOSTILE.to_owned())], calls: vec![cdr], is_list: true }),
        ];
        for answer in &answers {
            for form in [Form::Xml, Form::Html] {
                let text = render(form, HOSTILE, answer);
                assert!(
                    text.contains("&lt;script&gt;&quot;&amp;&#39;\u{fffd}\u{fffd}\u{fffd}&lt;/ErrorMessage&gt;"),
                    "{text}"
                );
                assert!(!text.contains("<script>"), "{text}");
            }
            let text = render(Form::Text, HOSTILE, answer);
            assert!(text.lines().all(|line| line.contains('=')), "{text}");
            assert!(text.contains("type=\n"), "{text}");
        }
    }

    #[test]
    fn a_list_may_be_empty() {
        let text = render(Form::Xml, "SearchCalls", &Ok(Success { is_list: true, ..Success::default() }));
        assert!(text.contains("<Response code=\"0\" type=\"SearchCalls\"><verbacdrlist></verbacdrlist></Response>"));
    }

    #[test]
    fn forms_are_named_without_case() {
        assert_eq!(["xml", "HTML", "Text"].map(Form::parse), [Some(Form::Xml), Some(Form::Html), Some(Form::Text)]);
        assert_eq!(Form::parse("JSON"), None);
    }
}
