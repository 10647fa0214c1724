//! Section 1: path, method, parameters, forms, codes, and the order in which a request is looked at.

use crate::Row;
use crate::rig::{
    ACTIONS, ALWAYS, ELSEWHERE, EXPIRED, FORM, NOT_FOUND, OPEN, OTHER_API, Reply, Rig, SPAN, STRICT, basic, encode,
};

/// What an action answers that is given nothing but the key.
fn bare(action: &str) -> (u16, &'static str) {
    match action {
        "RequestToken" | "ReleaseToken" => (200, "1"),
        "GetMediaEncoded" => (400, "3"),
        _ => (200, "3"),
    }
}

/// The HTTP status of a refusal.
fn refused(action: &str) -> u16 {
    if action == "GetMediaEncoded" { 403 } else { 200 }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: String, run: Box<dyn FnOnce(&mut Rig) + Send>| rows.push(Row::new(format!("frame::{name}"), run));

    // 1.1 Request: GET and POST, names and actions without case.
    for action in ACTIONS {
        let (status, code) = bare(action);
        let ways: [(&str, fn(&Rig, &str) -> Reply); 6] = [
            ("get", |rig, action| rig.get(&format!("action={action}&apiKey={OPEN}"))),
            ("post_query", |rig, action| rig.post(&format!("action={action}&apiKey={OPEN}"), "")),
            ("post_form", |rig, action| rig.post("", &format!("action={action}&apiKey={OPEN}"))),
            ("post_both", |rig, action| rig.post(&format!("apiKey={OPEN}"), &format!("action={action}"))),
            ("the_body_wins", |rig, action| {
                rig.post("action=Nothing&apiKey=nobody", &format!("apiKey={OPEN}&action={action}"))
            }),
            ("the_last_counts", |rig, action| {
                rig.get(&format!("action=Nothing&apiKey=nobody&action={action}&apiKey={OPEN}"))
            }),
        ];
        for (way, ask) in ways {
            row(
                format!("1.1_{action}_by_{way}"),
                Box::new(move |rig| {
                    let reply = ask(rig, action);
                    assert_eq!((reply.status, reply.code().as_str(), reply.kind().as_str()), (status, code, action));
                    assert!(!reply.error().is_empty());
                }),
            );
        }
        for (case, name) in [("upper", action.to_uppercase()), ("lower", action.to_lowercase())] {
            row(
                format!("1.1_{action}_in_{case}_case"),
                Box::new(move |rig| {
                    let reply = rig.get(&format!("action={name}&apiKey={OPEN}"));
                    assert_eq!((reply.status, reply.code().as_str(), reply.kind()), (status, code, name));
                }),
            );
        }
    }
    for names in [["ACTION", "APIKEY", "CALLID"], ["action", "apikey", "callid"], ["aCtIoN", "ApIkEy", "CaLlId"]] {
        row(
            format!("1.1_names_as_{}", names[0]),
            Box::new(move |rig| {
                let [action, key, id] = names;
                let number = rig.number(0);
                let (_, call) = rig.recorded(&number);
                let reply = rig.get(&format!("{action}=GetCallInformation&{key}={OPEN}&{id}={call}"));
                assert_eq!((reply.code().as_str(), reply.child("ccdr_id")), ("0", Some(call)), "{reply:?}");
            }),
        );
    }
    for (name, how, found) in [("plus_is_a_space", "+1", false), ("percent_2b_is_a_plus", "%2B1", true)] {
        row(
            format!("1.1_{name}"),
            Box::new(move |rig| {
                let number = format!("+1{}", rig.number(0));
                rig.recorded(&number);
                let reply = rig.ask(&format!("action=MuteRecording&extension={how}{}&status=ongoing", rig.number(0)));
                assert_eq!(reply.code(), if found { "0" } else { "2" }, "{reply:?}");
            }),
        );
    }
    row(
        "1.1_utf_8_is_taken_as_it_is".into(),
        Box::new(|rig| {
            let number = format!("ü{}é", rig.number(0));
            let (_, id) = rig.recorded(&number);
            let reply = rig.ask(&format!("action=GetCallInformation&callID={id}"));
            assert_eq!(reply.child("source_caller_id"), Some(number));
        }),
    );
    for (name, kind, taken) in [
        ("form", Some("application/x-www-form-urlencoded"), true),
        ("form_with_charset", Some("application/x-www-form-urlencoded; charset=UTF-8"), true),
        ("form_in_capitals", Some("Application/X-WWW-Form-URLencoded"), true),
        ("no_type", None, true),
        ("text", Some("text/plain"), false),
        ("json", Some("application/json"), false),
    ] {
        row(
            format!("1.1_body_of_type_{name}"),
            Box::new(move |rig| {
                let headers: Vec<_> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
                let body = format!("action=SearchCalls&apiKey={OPEN}");
                let reply = Reply::of(rig.request("POST", "/verba/api", &headers, &body));
                assert_eq!(reply.kind(), if taken { "SearchCalls" } else { "" }, "{reply:?}");
            }),
        );
    }

    // 1.2 and 1.3 The forms of an answer.
    for (name, value) in [
        ("xml", Some("XML")),
        ("xml_small", Some("xml")),
        ("xml_mixed", Some("Xml")),
        ("none", None),
        ("empty", Some("")),
    ] {
        row(
            format!("1.2_xml_as_{name}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                let form = value.map(|value| format!("&responseType={value}")).unwrap_or_default();
                let reply = rig.ok(&format!("action=MuteRecording&callID={id}{form}"));
                let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" \
                            type=\"MuteRecording\" callerMuted=\"false\" calledMuted=\"false\"/>\n</VerbaApi>\n";
                assert_eq!(reply.text, expected);
                let reply = rig.ask(&format!("action=MuteRecording&callID=x{form}"));
                let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"2\" \
                            type=\"MuteRecording\"><ErrorMessage>The call cannot be found.</ErrorMessage></Response>\n\
                            </VerbaApi>\n";
                assert_eq!((reply.status, reply.text.as_str()), (200, expected));
                for header in [
                    "content-type: text/xml; charset=utf-8",
                    "cache-control: no-store",
                    "x-content-type-options: nosniff",
                ] {
                    assert!(reply.head.contains(header), "{reply:?}");
                }
            }),
        );
    }
    for value in ["TEXT", "text", "Text"] {
        row(
            format!("1.3_text_as_{value}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                let reply = rig.ask(&format!("action=MuteRecording&callID={id}&mute=3&responseType={value}"));
                assert_eq!(reply.text, "code=0\ntype=MuteRecording\ncallerMuted=true\ncalledMuted=true\n");
                assert!(reply.head.contains("content-type: text/plain; charset=utf-8"), "{reply:?}");
                let reply = rig.ask(&format!("action=MuteRecording&callID=x&responseType={value}"));
                assert_eq!(reply.text, format!("code=2\ntype=MuteRecording\nerror={NOT_FOUND}\n"));
            }),
        );
    }
    for value in ["HTML", "html", "Html"] {
        row(
            format!("1.3_html_as_{value}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                let reply = rig.ask(&format!("action=MuteRecording&callID={id}&mute=1&responseType={value}"));
                assert!(reply.head.contains("content-type: text/html; charset=utf-8"), "{reply:?}");
                for part in [
                    "<!DOCTYPE html>",
                    "<title>MuteRecording</title>",
                    "<td>code</td><td>0</td>",
                    "<td>callerMuted</td><td>true</td>",
                    "</html>",
                ] {
                    assert!(reply.text.contains(part), "{part}: {reply:?}");
                }
                let reply = rig.ask(&format!("action=MuteRecording&callID=x&responseType={value}"));
                assert!(reply.text.contains("<td>code</td><td>2</td>") && reply.text.contains(NOT_FOUND), "{reply:?}");
            }),
        );
    }
    for action in ACTIONS {
        for form in ["TEXT", "HTML"] {
            row(
                format!("1.3_{action}_refused_in_{form}"),
                Box::new(move |rig| {
                    let reply = rig.get(&format!("action={action}&apiKey=nobody&responseType={form}"));
                    assert_eq!(reply.status, refused(action));
                    let begin = if form == "TEXT" {
                        format!("code=1\ntype={action}\nerror=")
                    } else {
                        "<!DOCTYPE html>".to_owned()
                    };
                    assert!(reply.text.starts_with(&begin), "{reply:?}");
                }),
            );
        }
    }
    for (number, value) in ["JSON", "XML ", "XML,TEXT", "0", "X", "ＸＭＬ", "%00"].into_iter().enumerate() {
        row(
            format!("1.3_another_response_type_{number}"),
            Box::new(move |rig| {
                let value = if value.starts_with('%') { value.to_owned() } else { encode(value) };
                let reply = rig.get(&format!("action=SearchCalls&apiKey={OPEN}&responseType={value}"));
                assert_eq!((reply.status, reply.code().as_str(), reply.kind().as_str()), (200, "3", "SearchCalls"));
                assert!(reply.error().contains("responseType"), "{reply:?}");
            }),
        );
    }

    // 1.5 What goes wrong before the action is reached.
    for (number, path) in [
        "/",
        "/verba",
        "/verba/",
        "/verba/api/",
        "/verba/API",
        "/Verba/api",
        "/verba/api/x",
        "//verba/api",
        "/api",
        "/verba/api%2f",
        "/verba/./api",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("1.5_other_path_{number}"),
            Box::new(move |rig| {
                for method in ["GET", "POST", "PUT"] {
                    let answer =
                        rig.request(method, &format!("{path}?action=SearchCalls&apiKey={OPEN}&{SPAN}"), &[], "");
                    assert_eq!(answer.status, 404, "{method} {path}");
                }
            }),
        );
    }
    for method in ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get"] {
        row(
            format!("1.5_other_method_{method}"),
            Box::new(move |rig| {
                let answer =
                    rig.request(method, &format!("/verba/api?action=SearchCalls&apiKey={OPEN}&{SPAN}"), &[], "");
                assert_eq!(answer.status, 405);
                assert!(answer.head.contains("allow: get, post"), "{answer:?}");
            }),
        );
    }
    for (name, query, kind) in [
        ("missing", String::new(), ""),
        ("empty", "action=".to_owned(), ""),
        ("without_a_value", "action".to_owned(), ""),
        ("unknown", "action=Format".to_owned(), "Format"),
        ("of_ours_that_is_off_start", "action=StartRecording".to_owned(), "StartRecording"),
        ("of_ours_that_is_off_stop", "action=StopRecording".to_owned(), "StopRecording"),
        ("with_a_digit", "action=MuteRecording2".to_owned(), ""),
        ("with_a_space", "action=MuteRecording+".to_owned(), ""),
        ("with_markup", "action=%3Cb%3E".to_owned(), ""),
        ("with_a_quote", "action=%22+x%3D%22".to_owned(), ""),
        ("without_end", format!("action={}", "a".repeat(8000)), ""),
        ("in_other_letters", "action=M%C3%BCte".to_owned(), ""),
        ("empty_at_last", "action=SearchCalls&action=".to_owned(), ""),
    ] {
        row(
            format!("1.5_action_{name}"),
            Box::new(move |rig| {
                let reply = rig.ask(&query);
                assert_eq!((reply.status, reply.code().as_str(), reply.kind().as_str()), (200, "3", kind), "{reply:?}");
            }),
        );
    }
    for action in ACTIONS {
        for (name, key) in [
            ("missing", None),
            ("empty", Some("")),
            ("unknown", Some("a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3ffff")),
            ("expired", Some(EXPIRED)),
            ("of_another_api", Some(OTHER_API)),
            ("not_valid_here", Some(ELSEWHERE)),
            ("cut_short", Some(&OPEN[..35])),
        ] {
            row(
                format!("1.5_{action}_key_{name}"),
                Box::new(move |rig| {
                    let key = key.map(|key| format!("&apiKey={key}")).unwrap_or_default();
                    let reply = rig.get(&format!("action={action}{key}&callID=x&cid=x&token=x&{SPAN}"));
                    assert_eq!(
                        (reply.status, reply.code().as_str(), reply.kind().as_str()),
                        (refused(action), "1", action)
                    );
                    assert_eq!(reply.error(), "The API key is missing, unknown or not valid here.", "one text for all");
                }),
            );
        }
    }
    for action in ACTIONS.into_iter().filter(|action| *action != "RequestToken") {
        for name in ["missing", "empty", "unknown", "no_guid", "of_another_key", "released", "in_other_case"] {
            row(
                format!("1.5_{action}_token_{name}"),
                Box::new(move |rig| {
                    let token = match name {
                        "missing" => None,
                        "empty" => Some(String::new()),
                        "unknown" => Some("8d1c2f5e-0000-4000-8000-000000000000".to_owned()),
                        "no_guid" => Some(encode("' OR 1=1 --")),
                        "of_another_key" => Some(rig.token("anna", crate::rig::STRICT2)),
                        "released" => {
                            let token = rig.token("anna", STRICT);
                            assert_eq!(
                                rig.get(&format!("action=ReleaseToken&apiKey={STRICT}&token={token}")).code(),
                                "0"
                            );
                            Some(token)
                        }
                        // The chance that it has no letter is none.
                        _ => Some(rig.token("anna", STRICT).to_uppercase()),
                    };
                    let token = token.map(|token| format!("&token={token}")).unwrap_or_default();
                    let reply = rig.get(&format!("action={action}&apiKey={STRICT}{token}&callID=x&cid=x&{SPAN}"));
                    assert_eq!((reply.status, reply.code().as_str()), (refused(action), "1"), "{reply:?}");
                    assert!(reply.error().contains("token"), "{reply:?}");
                }),
            );
        }
    }
    for (action, code) in [
        ("MuteRecording", "2"),
        ("KeepCall", "2"),
        ("SearchCalls", "0"),
        ("GetCallInformation", "2"),
        ("GetMediaEncoded", "2"),
        ("DeleteCall", "2"),
    ] {
        row(
            format!("1.5_{action}_with_its_token"),
            Box::new(move |rig| {
                let token = rig.token("anna", STRICT);
                let reply =
                    rig.get(&format!("action={action}&apiKey={STRICT}&token={token}&callID=x&cid=x&{SPAN}&pagelen=1"));
                assert_eq!(reply.code(), code, "{reply:?}");
            }),
        );
        row(
            format!("1.5_{action}_ignores_a_token_it_does_not_need"),
            Box::new(move |rig| {
                for token in ["x", "", "8d1c2f5e-0000-4000-8000-000000000000"] {
                    let reply = rig.ask(&format!("action={action}&token={token}&callID=x&cid=x&{SPAN}&pagelen=1"));
                    assert_eq!(reply.code(), code, "{reply:?}");
                }
            }),
        );
    }
    for (number, bytes) in
        ["%ff", "%c3", "%80", "%c0%af", "%ed%a0%80", "%f5%80%80%80", "%e2%82"].into_iter().enumerate()
    {
        row(
            format!("1.5_not_utf_8_{number}"),
            Box::new(move |rig| {
                for query in
                    [format!("x={bytes}"), format!("{bytes}=x"), format!("action={bytes}"), format!("apiKey={bytes}")]
                {
                    let reply = rig.get(&format!("action=SearchCalls&apiKey={OPEN}&{query}"));
                    assert_eq!((reply.status, reply.code().as_str()), (200, "3"), "{reply:?}");
                    assert!(reply.error().contains("UTF-8"), "{reply:?}");
                    let reply = rig.post(&format!("action=SearchCalls&apiKey={OPEN}"), &query);
                    assert!(reply.code() == "3" && reply.error().contains("UTF-8"), "{reply:?}");
                }
            }),
        );
    }
    for (name, in_query, in_body, fits) in [
        ("query_that_fits", 16_384, 0, true),
        ("query_too_long", 16_385, 0, false),
        ("body_that_fits", 0, 16_384, true),
        ("body_too_long", 0, 16_385, false),
        ("both_that_fit", 8_192, 8_192, true),
        ("both_too_long", 8_193, 8_192, false),
        ("body_of_a_megabyte", 0, 1 << 20, false),
    ] {
        row(
            format!("1.5_16_kib_{name}"),
            Box::new(move |rig| {
                let base = format!("action=SearchCalls&apiKey={OPEN}&{SPAN}&pagelen=1&pad=");
                let pad =
                    |length: usize| if length == 0 { String::new() } else { format!("x={}", "y".repeat(length - 2)) };
                let (query, body) = if in_body == 0 {
                    (format!("{base}{}", "y".repeat(in_query - base.len())), String::new())
                } else {
                    (pad(in_query), format!("{base}{}", "y".repeat(in_body - base.len())))
                };
                let answer = rig.request("POST", &format!("/verba/api?{query}"), &[FORM], &body);
                assert_eq!(answer.status, if fits { 200 } else { 413 }, "{}", answer.head);
                if fits {
                    assert_eq!(Reply::of(answer).code(), "0");
                }
            }),
        );
    }

    // The order: path, method, decoding, responseType, action, apiKey, network, token, parameters, call.
    row(
        "order_path_before_method".into(),
        Box::new(|rig| {
            assert_eq!(rig.request("PUT", "/verba/ap", &[], "").status, 404);
        }),
    );
    row(
        "order_method_before_decoding".into(),
        Box::new(|rig| {
            assert_eq!(rig.request("PUT", "/verba/api?action=%ff", &[], "").status, 405);
        }),
    );
    let order: [(&str, String, &str, &str); 8] = [
        ("decoding_before_response_type", "x=%ff&responseType=JSON".to_owned(), "3", "UTF-8"),
        ("response_type_before_action", "responseType=JSON".to_owned(), "3", "responseType"),
        ("action_before_key", "action=Format".to_owned(), "3", "no such action"),
        ("no_action_before_key", "apiKey=nobody".to_owned(), "3", "action is missing"),
        ("key_before_token", "action=MuteRecording&apiKey=nobody&token=x".to_owned(), "1", "API key"),
        ("network_before_token", format!("action=MuteRecording&apiKey={ELSEWHERE}&token=x"), "1", "API key"),
        ("token_before_parameters", format!("action=MuteRecording&apiKey={STRICT}&mute=9"), "1", "token"),
        ("parameters_before_call", format!("action=MuteRecording&apiKey={OPEN}&mute=9&callID=x"), "3", "mute"),
    ];
    for (name, query, code, part) in order {
        row(
            format!("order_{name}"),
            Box::new(move |rig| {
                let reply = rig.get(&query);
                assert!(reply.code() == code && reply.error().contains(part), "{reply:?}");
            }),
        );
    }
    row(
        "order_key_before_credentials".into(),
        Box::new(|rig| {
            let reply = rig.get_from(
                rig.address(),
                "action=RequestToken&apiKey=nobody",
                &[("authorization", &basic("anna", "x"))],
            );
            assert!(reply.error().contains("API key"), "{reply:?}");
        }),
    );
    row(
        "described_for_machines".into(),
        Box::new(|rig| {
            let answer = rig.request("GET", "/verba/openapi.json", &[], "");
            assert!(answer.status == 200 && answer.head.contains("content-type: application/json"), "{answer:?}");
            let document = answer.json();
            assert_eq!(document["openapi"], "3.1.0");
            let parameters = document["paths"]["/verba/api"]["get"]["parameters"].as_array().unwrap();
            assert_eq!(parameters[0]["schema"]["enum"], serde_json::json!(ACTIONS));
            assert_eq!(rig.request("POST", "/verba/openapi.json", &[], "").status, 405);
        }),
    );
    row(
        "the_seed's_own_request".into(),
        Box::new(|rig| {
            // The published sample, with a key.
            let number = rig.number(8856);
            rig.call(&number, ALWAYS);
            rig.id(&number, "ongoing");
            let reply = rig.ok(&format!("action=MuteRecording&token=8d1c&extension={number}&status=ongoing&mute=3"));
            assert_eq!(reply.muted(), crate::rig::state(3));
        }),
    );
    rows
}
