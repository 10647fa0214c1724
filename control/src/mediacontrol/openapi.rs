//! The OpenAPI document of the listener, made from the table of actions.

use serde_json::{Map, Value, json};

use super::actions::{ACTIONS, Action, NAMESPACE, Type};
use super::codes::Code;

/// The document, as `/MediaControl/openapi.json` answers it.
pub fn document() -> Value {
    let mut paths = Map::new();
    for action in ACTIONS {
        paths.insert(format!("/MediaControl/{}", action.name), json!({"post": operation(action)}));
    }
    paths.insert("/MediaControl/events".to_owned(), json!({"get": events()}));
    paths.insert(
        "/MediaControl/subscriptions".to_owned(),
        json!({
            "post": plain(
                "Posts the events of a script to an address the configuration allows.",
                &SUBSCRIPTION,
                &[BODY_FAULTS, &["403", "503"]],
            ),
            "delete": plain("Ends the posting of a script's events.", &SUBSCRIPTION[..1], &[BODY_FAULTS, &["404"]]),
        }),
    );
    paths.insert("/MediaControl/scripts/{routingGuid}/end".to_owned(), json!({"post": end_script()}));
    paths.insert("/MediaControl/scripts/{routingGuid}".to_owned(), json!({"delete": end_script()}));
    let codes: Vec<Value> = Code::ALL.iter().map(|code| code.number().to_string().into()).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringbridge MediaControl",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The Metreos.MediaControl API. See docs/mediacontrol.md.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "ResultCode": {"type": "string", "enum": codes},
                "Fault": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
                "Failure": {
                    "type": "object",
                    "properties": {
                        "ResultCode": {"$ref": "#/components/schemas/ResultCode"},
                        "ReasonCode": {"type": "string"},
                    },
                },
                "Event": {
                    "type": "object",
                    "properties": {
                        "event": {"type": "string", "enum": event_names()},
                        "routingGuid": {"type": "string"},
                        "sequence": {"type": "integer"},
                        "params": {"type": "object"},
                    },
                    "required": ["event", "routingGuid", "sequence", "params"],
                },
            },
        },
        "security": [{}, {"token": []}],
    })
}

/// Every event there is.
pub fn event_names() -> Vec<String> {
    let started = ACTIONS.iter().filter(|action| action.starts);
    let ends = started.flat_map(|action| ["Complete", "Failed"].map(|end| format!("{NAMESPACE}{}_{end}", action.name)));
    ends.chain([format!("{NAMESPACE}GotMediaDigits")]).collect()
}

fn operation(action: &Action) -> Value {
    let mut params = Map::new();
    let mut required = Vec::new();
    for param in action.all_params() {
        let mut schema = schema(param.kind);
        if !param.note.is_empty() {
            schema["description"] = param.note.into();
        }
        params.insert(param.name.to_owned(), schema);
        if param.required {
            required.push(param.name);
        }
    }
    let results: Map<String, Value> = action
        .all_results()
        .map(|name| (name.to_owned(), json!({})))
        .chain([("ResultCode".to_owned(), json!({"$ref": "#/components/schemas/ResultCode"}))])
        .collect();
    json!({
        "operationId": action.name,
        "summary": action.summary,
        "requestBody": {"required": true, "content": {"application/json": {"schema": {
            "type": "object",
            "properties": {
                "action": {"type": "string"},
                "routingGuid": {"type": "string", "maxLength": 128},
                "application": {"type": "string", "maxLength": 128},
                "partition": {"type": "string", "maxLength": 128},
                "locale": {"type": "string", "maxLength": 128, "default": "en-US"},
                "timeout": {"type": "integer", "minimum": 1, "default": 5000, "description": "ms"},
                "params": {"type": "object", "properties": params, "required": required},
            },
        }}}},
        "responses": responses("Done, started, or not: see branch.", json!({
            "type": "object",
            "properties": {
                "branch": {"type": "string", "examples": ["Success", "Failure", "Timeout"]},
                "results": {"type": "object", "properties": results},
                "diagnostic": {"type": "string"},
            },
            "required": ["branch", "results"],
        }), &[BODY_FAULTS]),
    })
}

fn end_script() -> Value {
    json!({
        "summary": "A script has ended: its connections are deleted if sandbox is on.",
        "parameters": [{"name": "routingGuid", "in": "path", "required": true, "schema": {"type": "string"}}],
        "responses": responses("The ids of the connections that were deleted.", json!({
            "type": "object",
            "properties": {"deleted": {"type": "array", "items": {"type": "string"}}},
            "required": ["deleted"],
        }), &[]),
    })
}

/// 200 and the faults of the HTTP request; every request may lack its token.
fn responses(description: &str, schema: Value, faults: &[&[&str]]) -> Value {
    let done = json!({"description": description, "content": {"application/json": {"schema": schema}}});
    let mut responses = Map::from_iter([("200".to_owned(), done)]);
    for status in faults.iter().copied().flatten().chain(&["401"]) {
        let text = FAULTS.iter().find(|(known, _)| known == status).map_or("", |(_, text)| *text);
        let schema = json!({"$ref": "#/components/schemas/Fault"});
        let fault = json!({"description": text, "content": {"application/json": {"schema": schema}}});
        responses.insert((*status).to_owned(), fault);
    }
    responses.into()
}

fn schema(kind: Type) -> Value {
    match kind {
        Type::Text => json!({"type": "string"}),
        Type::Id => json!({"type": "string", "pattern": "^[0-9]+$"}),
        Type::Texts => json!({"type": ["string", "array"], "items": {"type": "string"}}),
        Type::Boolean => json!({"type": ["boolean", "string"]}),
        Type::UInt => json!({"type": ["integer", "string"], "minimum": 0}),
        Type::Int | Type::Long => json!({"type": ["integer", "string"]}),
        Type::Choice(words) => json!({"type": "string", "enum": words}),
    }
}

fn events() -> Value {
    let mut described = plain(
        "The events of a script: by long poll, or as a stream for text/event-stream.",
        &EVENTS,
        &[&["400", "503"]],
    );
    described["responses"]["200"]["content"] = json!({
        "application/json": {"schema": {"type": "object", "properties": {
            "routingGuid": {"type": "string"},
            "events": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
            "next": {"type": "integer", "description": "to be given as after"},
            "missed": {"type": "integer", "description": "events that were not kept"},
        }, "required": ["routingGuid", "events", "next", "missed"]}},
        "text/event-stream": {},
    });
    described
}

fn plain(summary: &str, query: &[(&str, &str, &str)], faults: &[&[&str]]) -> Value {
    let parameters: Vec<Value> = query
        .iter()
        .map(|(name, kind, text)| json!({"name": name, "in": "query", "description": text, "schema": {"type": kind}}))
        .collect();
    let done = json!({"type": "object"});
    json!({"summary": summary, "parameters": parameters, "responses": responses("Done.", done, faults)})
}

/// What a request with a body may be refused with.
const BODY_FAULTS: &[&str] = &["400", "408", "413"];
const FAULTS: [(&str, &str); 7] = [
    ("400", "The body can't be read, or a parameter has no sense."),
    ("401", "It does not come from this machine, and has no token."),
    ("403", "The configuration allows no such address."),
    ("404", "There is no such subscription."),
    ("408", "The body did not arrive in time."),
    ("413", "The body is too long."),
    ("503", "Too many scripts or subscriptions."),
];
const EVENTS: [(&str, &str, &str); 4] = [
    ("routingGuid", "string", "the script"),
    ("after", "integer", "the number of the last event that was read; 0: from the first that is kept"),
    ("wait", "integer", "ms to wait for an event, 30000 at most"),
    ("digits", "boolean", "true: GotMediaDigits too"),
];
const SUBSCRIPTION: [(&str, &str, &str); 3] = [
    ("routingGuid", "string", "the script"),
    ("url", "string", "where events are posted; these may be members of a JSON body instead"),
    ("digits", "boolean", "true: GotMediaDigits too"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mediacontrol-openapi.json");
        let text = format!("{:#}\n", document());
        if std::env::var_os("RINGBRIDGE_WRITE_DOCS").is_some() {
            std::fs::write(path, &text).expect("written");
        }
        let committed = std::fs::read_to_string(path).expect("there");
        assert!(committed == text, "run this test with RINGBRIDGE_WRITE_DOCS=1 and commit {path}");
    }

    #[test]
    fn every_action_is_described_with_its_parameters() {
        let document = document();
        for action in ACTIONS {
            let post = &document["paths"][format!("/MediaControl/{}", action.name)]["post"];
            let schema = &post["requestBody"]["content"]["application/json"]["schema"]["properties"]["params"];
            for param in action.all_params() {
                assert!(schema["properties"][param.name].is_object(), "{} {}", action.name, param.name);
            }
        }
    }

    #[test]
    fn the_page_is_complete() {
        let page = include_str!("../../../docs/mediacontrol.md");
        for action in ACTIONS {
            assert!(page.contains(&format!("### {}\n", action.name)), "{}", action.name);
            assert!(page.contains(&table(action)), "the table of {}:\n{}", action.name, table(action));
        }
        for code in Code::ALL {
            assert!(page.contains(&format!("| {} | `{}` |", code.number(), code.name())), "{code:?}");
        }
        for event in event_names() {
            assert!(page.contains(&format!("`{}`", event.replace(NAMESPACE, ""))), "{event}");
        }
    }

    /// The table of an action's parameters, as it stands in the page.
    fn table(action: &Action) -> String {
        let mut text = String::from("| parameter | type | required | |\n| --- | --- | --- | --- |\n");
        for param in action.all_params() {
            let kind = match param.kind {
                Type::Text => "String".to_owned(),
                Type::Id => "String, a number".to_owned(),
                Type::Texts => "String or list".to_owned(),
                Type::Boolean => "Boolean".to_owned(),
                Type::UInt => "UInt32".to_owned(),
                Type::Int => "Int32".to_owned(),
                Type::Long => "Int64".to_owned(),
                Type::Choice(words) => words.join(", "),
            };
            let required = if param.required { "yes" } else { "" };
            text.push_str(&format!("| `{}` | {kind} | {required} | {} |\n", param.name, param.note));
        }
        text
    }

    /// Prints the part of the page that is made from the table: run with `--ignored --nocapture` after a change.
    #[test]
    #[ignore = "prints, checks nothing"]
    fn print_the_tables() {
        for action in ACTIONS {
            let results: Vec<String> = action.all_results().map(|name| format!("`{name}`")).collect();
            println!("### {}\n\n{}\n\n{}", action.name, action.summary, table(action));
            println!(
                "Results: {}.\n",
                results.into_iter().chain(["`ResultCode`".to_owned()]).collect::<Vec<_>>().join(", ")
            );
        }
    }
}
