//! The machine-readable description of the API.

use serde_json::{Value, json};

use super::http::ACTIONS;

/// The OpenAPI document. One path; `action` picks the call.
pub(super) fn document() -> Value {
    let parameter = |name: &str, text: &str, schema: Value| json!({"name": name, "in": "query", "description": text, "schema": schema});
    let string = || json!({"type": "string"});
    let one_of = |values: &[&str]| json!({"type": "string", "enum": values});
    let naming = "MuteRecording, KeepCall, GetCallInformation, DeleteCall: ";
    let which = ["ongoing", "next", "last", "ongoing, next", "last, ongoing", "recorded"];
    let mut parameters = vec![
        parameter("action", "Which call.", one_of(&ACTIONS)),
        parameter("apiKey", "The application.", string()),
        parameter("token", "From RequestToken, if the key needs one.", string()),
        parameter("responseType", "How the answer is written; XML by default.", one_of(&["XML", "HTML", "TEXT"])),
        parameter("callID", &format!("{naming}the call. Decides if extension is given too."), string()),
        parameter("extension", &format!("{naming}number of the caller or the called; `number` is the same."), string()),
        parameter("status", "With extension: which call of it. SearchCalls: ongoing or recorded.", one_of(&which)),
        parameter(
            "mute",
            "MuteRecording: whole new state, bit 0 caller, bit 1 called; none: ask.",
            one_of(&["0", "1", "2", "3"]),
        ),
        parameter("type", "KeepCall: mark as recorded by hand instead.", one_of(&["manualRecord"])),
        parameter("unmark", "KeepCall: undo the marking.", one_of(&["0", "1"])),
        parameter("start", "SearchCalls: YYYY-MM-DD hh:mm[:ss[.SSS]]; calls that began then or later.", string()),
        parameter("end", "SearchCalls: likewise, or earlier.", string()),
        parameter("anynum", "SearchCalls: part of a number of either side; may be repeated.", string()),
        parameter("anyname", "SearchCalls: part of a name of either side; may be repeated.", string()),
        parameter("secondary", "SearchCalls: 1 finds secondary recordings too.", one_of(&["1"])),
        parameter(
            "pagelen",
            "SearchCalls: calls at most, 100 by default.",
            json!({"type": "integer", "minimum": 1, "maximum": 1000}),
        ),
        parameter("cid", "GetMediaEncoded: the call.", string()),
        parameter("format", "GetMediaEncoded: format of the file.", one_of(&["wav"])),
        parameter("userName", "RequestToken: without an Authorization header.", string()),
        parameter("password", "RequestToken: without an Authorization header.", string()),
    ];
    for name in ["platformCallID", "nativeID", "meetingID"] {
        parameters.push(parameter(name, "GetCallInformation, DeleteCall: what another system calls it.", string()));
    }
    for required in &mut parameters[..2] {
        required["required"] = true.into();
    }
    let envelope = json!({
        "description": "The envelope: `VerbaApi/Response` with `code` (0 success; 1 refused; 2 not found, more than one \
                        found or wrong state; 3 malformed; 9 internal) and `type`. GetMediaEncoded: the file.",
        "content": {
            "text/xml": {"schema": string()}, "text/html": {"schema": string()}, "text/plain": {"schema": string()},
            "audio/wav": {"schema": {"type": "string", "format": "binary"}},
        },
    });
    let failed = |text: &str| json!({"description": text, "content": envelope["content"]});
    let plain = |text: &str| json!({"description": text, "content": {"text/plain": {"schema": string()}}});
    let call = json!({
        "parameters": parameters,
        "responses": {
            "200": envelope,
            "400": failed("GetMediaEncoded: code 3."),
            "403": failed("GetMediaEncoded: code 1."),
            "404": failed("GetMediaEncoded: code 2; or another path."),
            "405": plain("Another method than GET and POST."),
            "408": plain("The body took too long."),
            "413": plain("Longer than 16 KiB."),
            "500": failed("GetMediaEncoded: code 9."),
        },
    });
    let mut post = call.clone();
    let properties: serde_json::Map<String, Value> = parameters
        .iter()
        .filter_map(|parameter| Some((parameter["name"].as_str()?.to_owned(), parameter["schema"].clone())))
        .collect();
    post["requestBody"] = json!({
        "description": "The same parameters; those in the body win.",
        "content": {"application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": properties}}},
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringbridge Verba",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The Verba recording API over HTTP. See docs/verba.md.",
        },
        "paths": {"/verba/api": {"get": call, "post": post}},
        "components": {"securitySchemes": {"user": {"type": "http", "scheme": "basic"}}},
        // RequestToken only, and there in place of userName and password.
        "security": [{}, {"user": []}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_documentation_is_this_one() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verba-openapi.json");
        let document = format!("{:#}\n", document());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(kept, &document).unwrap();
        }
        assert_eq!(std::fs::read_to_string(kept).unwrap(), document);
    }

    #[test]
    fn every_action_is_described_here_and_in_the_documentation() {
        let document = document();
        let described = &document["paths"]["/verba/api"]["get"]["parameters"][0]["schema"]["enum"];
        assert_eq!(described.as_array().map(Vec::len), Some(ACTIONS.len()));
        let text = include_str!("../../../docs/verba.md");
        for action in ACTIONS {
            assert!(text.contains(&format!("`{action}`")), "{action}");
        }
        for parameter in document["paths"]["/verba/api"]["get"]["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }
}
