//! The OpenAPI document of the listener, made from the table of operations.

use serde_json::{Map, Value, json};

use super::agentconf::Operation;
use super::codes::Code;
use super::http::Target;

/// The document, as `/agentgateway/openapi.json` answers it.
pub fn document() -> Value {
    let mut paths = Map::new();
    for (group, name, summary) in SESSION {
        let operation = Some(*name).filter(|name| !name.is_empty());
        if let Some(target) = Target::find(group, operation) {
            let slash = if name.is_empty() { "" } else { "/" };
            let path = format!("/agentgateway/resource/{group}/{{agentid}}{slash}{name}");
            let guid = !matches!(target, Target::SignIn { .. });
            let body = if guid { Value::Null } else { sign_in() };
            paths.insert(path, entry(target, summary, guid, body));
        }
    }
    for operation in Operation::ALL {
        let path = format!("/agentgateway/resource/agentconf/{{agentid}}/{}", operation.name());
        let body = body_of(*operation);
        paths.insert(path, entry(Target::Conference(*operation), operation.summary(), true, body));
    }
    let codes: Vec<&str> = ["0"].into_iter().chain(Code::ALL.iter().map(|code| code.text())).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringbridge AgentGateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The AgentGateway conference API. See docs/agentgateway.md.",
        },
        "paths": paths,
        "components": {
            "responses": {
                "NotReached": {
                    "description": "The request did not reach an operation: unknown address (404), method (405), body not whole (400), too slow (408) or over 64 KiB (413).",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}},
                },
            },
            "headers": {
                "Effect": {
                    "description": "From where on the change can be heard: the effect of the control socket, as JSON. Only where there is one.",
                    "schema": {"type": "string"},
                },
                "Guid": {
                    "description": "JSESSIONID= and the session id to be sent as Guid from now on. Only where there is a new one.",
                    "schema": {"type": "string"},
                },
            },
            "schemas": {
                "Answer": {
                    "type": "object",
                    "properties": {
                        "message": {"type": "string"},
                        "retcode": {"type": "string", "enum": codes},
                        "result": {"type": ["object", "null"], "properties": {"errorReason": {"type": "integer"}}},
                        "event": {"type": ["object", "null"]},
                    },
                    "required": ["message", "retcode"],
                },
            },
        },
    })
}

fn entry(target: Target, summary: &str, guid: bool, body: Value) -> Value {
    let mut parameters = vec![json!({
        "name": "agentid", "in": "path", "required": true,
        "schema": {"type": "integer", "minimum": 101, "maximum": 999_999},
    })];
    if guid {
        parameters.push(json!({"name": "Guid", "in": "header", "required": true, "schema": {"type": "string"}}));
    }
    let mut responses = Map::new();
    let headers = match target {
        Target::Conference(operation) if operation.can_be_heard() => {
            json!({"Ringbridge-Effect": {"$ref": "#/components/headers/Effect"}})
        }
        Target::SignIn { .. } | Target::Handshake | Target::Poll => {
            json!({"Set-GUID": {"$ref": "#/components/headers/Guid"}})
        }
        Target::SignOut { .. } | Target::Conference(_) => json!({}),
    };
    let answer = json!({
        "description": "Done or not: see retcode.",
        "headers": headers,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}},
    });
    responses.insert("200".to_owned(), answer);
    for status in ["400", "404", "405", "408", "413"] {
        responses.insert(status.to_owned(), json!({"$ref": "#/components/responses/NotReached"}));
    }
    let mut operation = json!({"summary": summary, "parameters": parameters, "responses": responses});
    if !body.is_null() {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    let mut methods = Map::new();
    methods.insert(target.method().as_str().to_ascii_lowercase(), operation);
    methods.into()
}

fn object(members: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn int(min: u32, max: u32) -> Value {
    json!({"type": "integer", "minimum": min, "maximum": max})
}

fn text(max: u32) -> Value {
    json!({"type": "string", "maxLength": max})
}

fn sign_in() -> Value {
    let boolean = || json!({"type": "boolean"});
    object(
        &[
            ("password", text(32)),
            ("phonenum", text(24)),
            ("autoanswer", boolean()),
            ("autoenteridle", boolean()),
            ("releasephone", boolean()),
            ("agenttype", json!({"type": "integer", "enum": [4, 11]})),
            ("status", int(3, 5)),
            ("ip", json!({"type": "string", "format": "ipv4"})),
            ("callBackUri", text(200)),
            ("serviceToken", text(50)),
        ],
        &["password", "phonenum"],
    )
}

fn body_of(operation: Operation) -> Value {
    let kind = || json!({"type": "string", "enum": ["6", "9"]});
    let mode = || json!({"type": "integer", "enum": [2]});
    let beep = || json!({"type": "boolean"});
    let address = || [("addressType", kind()), ("address", text(24))];
    let with = |more: &[(&'static str, Value)]| [&address()[..], more].concat();
    let list = |more: &[(&'static str, Value)], max: u32| {
        let entry = object(&with(more), &["addressType", "address"]);
        json!({"type": "array", "minItems": 1, "maxItems": max, "items": entry})
    };
    match operation {
        Operation::Request => object(
            &[
                ("memberNum", int(1, 120)),
                ("confCallerNo", text(24)),
                ("time", int(4, 1440)),
                ("promptTime", int(3, 1440)),
                ("beepTone", beep()),
                ("playMode", mode()),
                ("voicePath", text(127)),
            ],
            &["memberNum"],
        ),
        Operation::Add => {
            let more = [("deviceCallType", int(0, 255)), ("deviceType", int(0, 255))];
            object(
                &[
                    ("addresses", list(&more, 120)),
                    ("beepTone", beep()),
                    ("playMode", mode()),
                    ("voicePath", text(127)),
                    ("caller", text(24)),
                ],
                &["addresses"],
            )
        }
        Operation::Remove => object(&[("addresses", list(&[], 30))], &["addresses"]),
        Operation::Mode => object(&with(&[("attribute", int(1, 4))]), &["addressType", "address", "attribute"]),
        Operation::Hold | Operation::PlayTo => {
            object(&with(&[("playMode", mode()), ("voicePath", text(127))]), &["addressType", "address", "voicePath"])
        }
        Operation::Unhold | Operation::StopTo => object(&address(), &["addressType", "address"]),
        Operation::Play => {
            object(&[("playType", int(0, 1)), ("playMode", mode()), ("voicePath", text(127))], &["voicePath"])
        }
        Operation::Prolong => object(&[("prolongTime", int(1, 1440))], &["prolongTime"]),
        Operation::Shift => object(&[("destAgentNo", int(101, 999_999))], &["destAgentNo"]),
        Operation::Resource => {
            object(&[("modifyType", int(0, 1)), ("modifyNum", int(2, 118))], &["modifyType", "modifyNum"])
        }
        Operation::Query => {
            let ids = json!({"type": "array", "maxItems": 20, "items": {"type": "integer"}});
            object(&[("confIds", ids)], &["confIds"])
        }
        Operation::Answer
        | Operation::Reject
        | Operation::Leave
        | Operation::Release
        | Operation::Stop
        | Operation::QueryIds => Value::Null,
    }
}

const SESSION: &[(&str, &str, &str)] = &[
    ("onlineagent", "", "Signs an agent in. The answer's header Set-GUID holds the session id."),
    ("onlineagent", "forcelogin", "Signs an agent in, in place of a session there is."),
    ("onlineagent", "logout", "Signs an agent out that is in no call."),
    ("onlineagent", "forcelogout", "Signs an agent out; its call ends."),
    ("onlineagent", "handshake", "Says that the agent is there, where events are pushed."),
    ("agentevent", "", "The next event; held for 10 s if there is none."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_documentation_is_this_one() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agentgateway-openapi.json");
        let document = format!("{:#}\n", document());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(kept, &document).expect("written");
        }
        assert_eq!(std::fs::read_to_string(kept).expect("docs/agentgateway-openapi.json"), document);
    }
}
