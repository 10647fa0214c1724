//! The machine-readable description of the control socket.

use serde_json::Value;

/// The OpenRPC document, as `rpc.discover` answers it. Its version is that of the server.
pub fn document() -> Value {
    let mut document: Value = serde_json::from_str(TEXT).expect("a test reads the document that was compiled in");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}

const TEXT: &str = include_str!("../../docs/openrpc.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::events::EventKind;
    use crate::methods::NAMES;
    use crate::proto::ErrorKind;

    #[test]
    fn every_method_is_described_and_every_description_is_a_method() {
        let document = document();
        let methods = document["methods"].as_array().expect("methods");
        let described: BTreeSet<&str> = methods.iter().filter_map(|method| method["name"].as_str()).collect();
        assert_eq!(described.len(), methods.len(), "each once");
        assert_eq!(described, NAMES.iter().copied().collect::<BTreeSet<_>>());
        for method in methods {
            assert!(method["result"]["schema"].is_object(), "{}", method["name"]);
            assert_eq!(method["paramStructure"], "by-name", "{}", method["name"]);
            for param in method["params"].as_array().expect("params") {
                assert!(param["name"].is_string() && param["schema"].is_object(), "{param}");
            }
        }
    }

    #[test]
    fn every_error_is_described() {
        let document = document();
        let errors = document["components"]["errors"].as_object().expect("errors");
        for kind in ErrorKind::ALL {
            assert_eq!(errors[kind.name()]["code"], kind.code(), "{}", kind.name());
        }
        assert_eq!(errors.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn the_documentation_is_complete() {
        let text = include_str!("../../docs/control-socket.md");
        let events = EventKind::ALL.iter().map(|kind| kind.name());
        let errors = ErrorKind::ALL.iter().map(|kind| kind.name());
        for name in NAMES.iter().copied().chain(events).chain(errors) {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn references_lead_somewhere() {
        let document = document();
        let mut seen = 0;
        visit(&document, &mut |reference| {
            seen += 1;
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        });
        assert!(seen > 0);
    }

    fn visit(value: &Value, found: &mut impl FnMut(&str)) {
        match value {
            Value::Object(object) => {
                if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                    found(reference);
                }
                object.values().for_each(|value| visit(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| visit(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
