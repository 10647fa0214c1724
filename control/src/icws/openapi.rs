//! The OpenAPI document of the API, made from a table of its calls.

use serde_json::{Map, Value, json};

/// One call.
struct Described {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Schema of the request's body; empty: none.
    body: &'static str,
    /// Status of success, and the schema of its body; empty: none.
    success: (u16, &'static str),
    /// Statuses of failures.
    failures: &'static [u16],
}

/// The document, as `/icws/openapi.json` answers it.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for call in CALLS {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method] = operation(call);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringbridge ICWS voicemail",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Voicemail over Interaction Center Web Services. See docs/icws.md.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": "icws_{sessionId}"},
                "csrf": {"type": "apiKey", "in": "header", "name": "ININ-ICWS-CSRF-Token"},
            },
            "schemas": schemas(),
        },
    })
}

fn operation(call: &Described) -> Value {
    let names = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> =
        names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect();
    let is_session = call.path.contains("{sessionId}");
    let readable = call.path.ends_with("/messages") || call.path.contains("/files/");
    if call.path == "/icws/connection" {
        parameters
            .push(json!({"name": "Accept-Language", "in": "header", "required": true, "schema": {"type": "string"}}));
        parameters.push(json!({"name": "include", "in": "query", "schema": {"type": "string"}}));
    }
    let mut responses = Map::new();
    let (status, schema) = call.success;
    let mut success = json!({"description": "Done."});
    if !schema.is_empty() {
        success["content"] = json!({MEDIA_TYPE: {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    }
    responses.insert(status.to_string(), success);
    for status in call.failures {
        let description = match status {
            400 => "Malformed, an item missing or invalid, or a message of another type.",
            401 => "Cookie, session or CSRF token missing or wrong; with WWW-Authenticate.",
            403 => "The station is in use by somebody else.",
            404 => "The message has no file of that name.",
            413 => "A body longer than 1 MiB.",
            415 => "A body of another kind.",
            500 => "A fault of the server or the media engine.",
            _ => "No new sessions now.",
        };
        let content = json!({MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/error"}}});
        responses.insert(status.to_string(), json!({"description": description, "content": content}));
    }
    let mut described = json!({"summary": call.summary, "parameters": parameters, "responses": responses});
    if is_session {
        let scheme = if readable { json!({"session": []}) } else { json!({"session": [], "csrf": []}) };
        described["security"] = json!([scheme]);
    }
    if !call.body.is_empty() {
        let schema = json!({"schema": {"$ref": format!("#/components/schemas/{}", call.body)}});
        described["requestBody"] = json!({"required": true, "content": {MEDIA_TYPE: schema}});
    }
    described
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let state = json!({"type": "integer", "enum": [0, 1], "description": "0 unread, 1 read"});
    let object =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    json!({
        "error": object(
            json!({"__type": text, "errorId": text, "message": text, "propertyName": text, "errorCode": {"type": "integer"},
                   "alternateHostList": {"type": "array", "items": text}}),
            json!(["message"]),
        ),
        "connectionRequest": object(
            json!({"__type": {"const": "urn:inin.com:connection:icAuthConnectionRequestSettings"},
                   "applicationName": text, "userID": text, "password": text}),
            json!(["__type", "applicationName", "userID", "password"]),
        ),
        "connectionResponse": object(
            json!({"csrfToken": text, "sessionId": text, "userID": text, "userDisplayName": text, "icServer": text,
                   "alternateHostList": {"type": "array", "items": text}}),
            json!(["csrfToken", "sessionId"]),
        ),
        "connectionState": object(json!({"connectionState": {"type": "integer", "enum": [0, 1, 2]}}), json!(["connectionState"])),
        "station": object(
            json!({"__type": {"enum": [
                       "urn:inin.com:connection:workstationSettings",
                       "urn:inin.com:connection:remoteWorkstationSettings",
                       "urn:inin.com:connection:remoteNumberSettings",
                       "urn:inin.com:connection:stationlessSettings",
                   ]}, "workstation": text, "remoteNumber": text}),
            json!(["__type"]),
        ),
        "messages": {"type": "array", "items": {"$ref": "#/components/schemas/message"}},
        "message": object(json!({"__type": text, "isDelta": {"type": "boolean"}}), json!(["__type", "isDelta"])),
        "update": object(json!({"state": state}), json!(["state"])),
        "play": object(
            json!({"state": state, "playTarget": {"type": "object", "properties": {
                "__type": {"enum": [
                    "urn:inin.com:unifiedMessaging:currentStation",
                    "urn:inin.com:unifiedMessaging:voicemailPlayTarget",
                ]},
                "target": text,
            }, "required": ["__type"]}}),
            json!(["state"]),
        ),
        "version": object(
            json!({"majorVersion": {"type": "integer"}, "minorVersion": {"type": "integer"}, "su": {"type": "integer"}}),
            json!([]),
        ),
        "feature": object(json!({"featureId": text, "version": {"type": "integer"}}), json!(["featureId", "version"])),
        "features": object(
            json!({"featureInfoList": {"type": "array", "items": {"$ref": "#/components/schemas/feature"}}}),
            json!(["featureInfoList"]),
        ),
        "serverTime": object(json!({"serverUtcTime": text}), json!(["serverUtcTime"])),
    })
}

macro_rules! calls {
    ($($method:literal $path:literal $summary:literal, $body:literal => $status:literal $answer:literal, $failures:expr;)*) => {
        const CALLS: &[Described] = &[$(Described {
            method: $method,
            path: $path,
            summary: $summary,
            body: $body,
            success: ($status, $answer),
            failures: $failures,
        }),*];
    };
}

calls! {
    "post" "/icws/connection" "Signs in.", "connectionRequest" => 201 "connectionResponse", &[400, 413, 415, 500, 503];
    "get" "/icws/connection/version" "The server's version.", "" => 200 "version", &[];
    "get" "/icws/connection/features" "What is supported, in which version.", "" => 200 "features", &[];
    "get" "/icws/connection/features/{featureId}" "One of them.", "" => 200 "feature", &[400];
    "get" "/icws/connection/server-time" "The time of day.", "" => 200 "serverTime", &[];
    "get" "/icws/openapi.json" "This document.", "" => 200 "", &[];
    "get" "/icws/{sessionId}/connection" "Whether the session is up.", "" => 200 "connectionState", &[401];
    "delete" "/icws/{sessionId}/connection" "Signs out.", "" => 200 "", &[401, 500];
    "get" "/icws/{sessionId}/connection/station" "The station of the session.", "" => 200 "station", &[401];
    "put" "/icws/{sessionId}/connection/station" "Sets it.", "station" => 200 "", &[400, 401, 403, 413, 415, 500];
    "delete" "/icws/{sessionId}/connection/station" "Removes it.", "" => 204 "", &[401];
    "post" "/icws/{sessionId}/messaging/heartbeat" "Keeps the session alive.", "" => 204 "", &[401];
    "get" "/icws/{sessionId}/messaging/messages" "What has happened, or server-sent events.", "" => 200 "messages", &[401];
    "put" "/icws/{sessionId}/messaging/subscriptions/unified-messaging/voicemail-messages"
        "Tells of voicemail from now on.", "" => 200 "", &[401, 500];
    "delete" "/icws/{sessionId}/messaging/subscriptions/unified-messaging/voicemail-messages"
        "No longer.", "" => 204 "", &[401];
    "put" "/icws/{sessionId}/messaging/subscriptions/unified-messaging/fax-messages"
        "Tells of faxes from now on.", "" => 200 "", &[401, 500];
    "delete" "/icws/{sessionId}/messaging/subscriptions/unified-messaging/fax-messages" "No longer.", "" => 204 "", &[401];
    "put" "/icws/{sessionId}/messaging/subscriptions/unified-messaging/messages-waiting-indicator"
        "Tells how many messages are unread from now on.", "" => 200 "", &[401, 500];
    "delete" "/icws/{sessionId}/messaging/subscriptions/unified-messaging/messages-waiting-indicator"
        "No longer.", "" => 204 "", &[401];
    "put" "/icws/{sessionId}/unified-messaging/messages-waiting-indicator/count-refresh"
        "Tells how many messages are unread once more.", "" => 204 "", &[401, 500];
    "put" "/icws/{sessionId}/unified-messaging/{unifiedMessageId}" "Marks a message.", "update" => 204 "", &[400, 401, 413, 415, 500];
    "delete" "/icws/{sessionId}/unified-messaging/{unifiedMessageId}" "Deletes a message.", "" => 204 "", &[400, 401, 500];
    "post" "/icws/{sessionId}/unified-messaging/{unifiedMessageId}/voicemail-message/play/start"
        "Plays a voicemail message.", "play" => 204 "", &[400, 401, 413, 415, 500];
    "post" "/icws/{sessionId}/unified-messaging/{unifiedMessageId}/voicemail-message/play/stop"
        "Stops it.", "" => 204 "", &[400, 401, 413, 415, 500];
    "get" "/icws/{sessionId}/files/{fileName}" "The file of a message.", "" => 200 "", &[400, 401, 404, 500];
}

const MEDIA_TYPE: &str = "application/vnd.inin.icws+JSON";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/icws-openapi.json");
        let text = format!("{:#}\n", document());
        if std::env::var_os("RINGBRIDGE_WRITE_DOCS").is_some() {
            std::fs::write(path, &text).expect("written");
        }
        let committed = std::fs::read_to_string(path).expect("there");
        assert!(committed == text, "run this test with RINGBRIDGE_WRITE_DOCS=1 and commit {path}");
    }

    #[test]
    fn the_page_is_complete() {
        let page = include_str!("../../../docs/icws.md");
        for call in CALLS {
            let line = format!("| `{} {}` |", call.method.to_uppercase(), call.path);
            assert!(page.contains(&line), "{line}");
        }
    }
}
