//! What goes wrong before an operation is reached (1.4), and in which order it is looked at: every call with every fault.

use std::io::BufReader;

use ringbridge_tests::https::exchange;
use serde_json::{Value, json};

use crate::calls::{CALLS, Call, Needs};
use crate::rig::{Agent, Desk, NOBODY, OTHER_VDN, conf_path, guid_of, path, retcode};
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for call in CALLS {
        let mut row = |what: &str, run: fn(&Desk, &Call)| {
            rows.push(Row::new(format!("checks::{}::{what}", call.name), move |desk| run(desk, call)));
        };
        row("an_unknown_path_is_404", unknown_path);
        row("a_path_is_case_sensitive", other_case);
        row("path_before_method", |desk, call| {
            let answer = desk.send("PATCH", &format!("{}/more/of/it", call.path(101)), None, b"{");
            assert_eq!((answer.status, retcode(&answer).as_str()), (404, "000-002"));
        });
        row("method_before_agentid", |desk, call| wrong_method(desk, call, "PATCH", "abc"));
        if call.needs != Needs::Nothing {
            row("not_signed_in", |desk, call| {
                let guid = desk.agent().guid;
                let number = desk.number();
                assert_eq!(desk.retcode(call.method, &call.path(number), Some(&guid), b""), "100-006");
                assert_eq!(desk.retcode(call.method, &call.path(number), None, b""), "100-006");
            });
            row("nobody_of_that_number", |desk, call| {
                let guid = desk.agent().guid;
                assert_eq!(desk.retcode(call.method, &call.path(NOBODY), Some(&guid), b""), "100-006");
            });
            row("signed_out", |desk, call| {
                let agent = desk.agent();
                let out = path("onlineagent", agent.number, "logout");
                assert_eq!(desk.retcode("DELETE", &out, Some(&agent.guid), b""), "0");
                let again =
                    desk.retcode(call.method, &call.path(agent.number), Some(&agent.guid), call.body.as_bytes());
                assert_eq!(again, "100-006");
            });
            row("agentid_before_session", |desk, call| {
                assert_eq!(desk.retcode(call.method, &call.path_of("99"), Some("x"), b"{"), "000-002");
            });
            row("session_before_guid", |desk, call| {
                let number = desk.number();
                assert_eq!(desk.retcode(call.method, &call.path(number), Some("x"), b"{"), "100-006");
            });
            row("guid_before_body", |desk, call| {
                let agent = desk.agent();
                assert_eq!(desk.retcode(call.method, &call.path(agent.number), Some("x"), b"{"), "000-003");
            });
        }
        if call.has_body() {
            row("body_before_parameters", |desk, call| {
                let agent = asker(desk, call);
                let body = format!("{} }}", call.body);
                assert_eq!(
                    desk.retcode(call.method, &call.path(agent.number), Some(&agent.guid), body.as_bytes()),
                    "000-006"
                );
            });
            row("a_charset_is_not_needed", |desk, call| {
                let agent = asker(desk, call);
                let headers = [("CONTENT-TYPE", "application/json"), ("gUID", agent.guid.as_str())];
                let answer = desk.api.request(call.method, &call.path(agent.number), &headers, b"[]");
                assert_eq!(retcode(&answer), "000-006");
            });
        }
        row("a_body_over_64_KiB_is_413", |desk, call| {
            let agent = asker(desk, call);
            // It is refused by what it says of itself: whoever goes on to send may not get to read the answer.
            let head = format!(
                "{} {} HTTP/1.1\r\nHost: x\r\nGuid: {}\r\nContent-Length: {}\r\n\r\n",
                call.method,
                call.path(agent.number),
                agent.guid,
                (64 << 10) + 1
            );
            let mut stream = BufReader::new(desk.api.connect());
            let answer = exchange(&mut stream, head.as_bytes()).expect("an answer");
            assert_eq!((answer.status, retcode(&answer).as_str()), (413, "000-006"));
        });
        if matches!(call.needs, Needs::Member | Needs::Chair) {
            row("no_conference", |desk, call| fails(desk, &desk.agent(), call, call.body, "101-001"));
            row("conference_requested_only", |desk, call| {
                let agent = desk.agent_with_phone();
                desk.ok(&agent, "requestagentconf", json!({"memberNum": 6}));
                fails(desk, &agent, call, call.body, "101-001");
            });
            row("conference_just_released", |desk, call| {
                let room = desk.room();
                desk.ok(&room.chair, "releaseagentconf", Value::Null);
                fails(desk, &room.chair, call, call.body, "101-001");
            });
            row("invited_and_not_in", |desk, call| {
                let room = desk.room();
                let agent = desk.agent_with_phone();
                let invited = json!({"addresses": [agent.address()]});
                desk.ok(&room.chair, "batchaddparticipant", invited);
                fails(desk, &agent, call, call.body, "101-001");
            });
            row("left", |desk, call| {
                let room = desk.room();
                let agent = desk.second(&room);
                desk.ok(&agent, "requestleaveagentconf", Value::Null);
                fails(desk, &agent, call, call.body, "101-001");
            });
        }
        if call.needs == Needs::Chair {
            row("not_the_chair", |desk, call| {
                let room = desk.room();
                let agent = desk.second(&room);
                fails(desk, &agent, call, call.body, "101-002");
                assert_eq!(desk.info(&room.chair, room.id)["confId"], room.id, "it goes on");
            });
            row("not_the_chair_any_more", |desk, call| {
                let room = desk.room();
                let agent = desk.second(&room);
                desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": agent.number}));
                fails(desk, &room.chair, call, call.body, "101-002");
            });
        }
        if call.needs == Needs::Chair && call.has_body() {
            row("parameters_before_conference", |desk, call| fails(desk, &desk.agent(), call, "{}", "000-002"));
        }
        if !call.has_body() && call.group == "agentconf" {
            row("a_body_is_not_read", |desk, call| {
                let agent = desk.agent();
                let plain = desk.retcode(call.method, &call.path(agent.number), Some(&agent.guid), b"");
                for body in [&b"{"[..], b"[]", b"\xff\xfe", b"{\"voicePath\": 5}"] {
                    let code = desk.retcode(call.method, &call.path(agent.number), Some(&agent.guid), body);
                    assert_eq!(code, plain);
                }
            });
        }
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            if method != call.method {
                rows.push(Row::new(format!("checks::{}::not_{method}", call.name), move |desk| {
                    wrong_method(desk, call, method, "101");
                }));
            }
        }
        for (what, agent) in AGENT_IDS {
            rows.push(Row::new(format!("checks::{}::agentid_{what}", call.name), move |desk| {
                let answer = desk.retcode(call.method, &call.path_of(agent), Some("x"), call.body.as_bytes());
                assert_eq!(answer, "000-002");
            }));
        }
        if call.needs != Needs::Nothing {
            for (what, change) in GUIDS {
                rows.push(Row::new(format!("checks::{}::guid_{what}", call.name), move |desk| {
                    let agent = desk.agent();
                    let guid = change(desk, &agent);
                    let code =
                        desk.retcode(call.method, &call.path(agent.number), guid.as_deref(), call.body.as_bytes());
                    assert_eq!(code, "000-003", "{guid:?}");
                    // It is still signed in.
                    let shake = path("onlineagent", agent.number, "handshake");
                    let newest = newest_guid(desk, &agent);
                    assert_eq!(desk.retcode("POST", &shake, Some(&newest), b""), "0");
                }));
            }
        }
        if call.has_body() {
            for (what, body) in BODIES {
                rows.push(Row::new(format!("checks::{}::body_{what}", call.name), move |desk| {
                    let agent = asker(desk, call);
                    let code = desk.retcode(call.method, &call.path(agent.number), Some(&agent.guid), body);
                    assert_eq!(code, "000-006");
                }));
            }
        }
        for (what, body) in call.wrong {
            rows.push(Row::new(format!("checks::{}::{}", call.name, what.replace(' ', "_")), move |desk| {
                // Before whether there is a conference.
                fails(desk, &desk.agent(), call, body, "000-002");
            }));
        }
    }
    rows.extend(long_lists());
    rows
}

/// The agent who asks: signed in, unless the call is to do that.
fn asker(desk: &Desk, call: &Call) -> Agent {
    if call.needs == Needs::Nothing {
        return Agent { number: desk.number(), guid: String::new(), phone: None };
    }
    desk.agent()
}

#[track_caller]
fn fails(desk: &Desk, agent: &Agent, call: &Call, body: &str, code: &str) {
    let answer = desk.send(call.method, &call.path(agent.number), Some(&agent.guid), body.as_bytes());
    assert_eq!((answer.status, retcode(&answer).as_str()), (200, code), "{}", answer.json());
    assert_eq!(answer.json()["result"], json!({}), "no errorReason");
}

fn unknown_path(desk: &Desk, call: &Call) {
    let known = call.path(101);
    for unknown in [
        format!("{known}/"),
        format!("{known}/more"),
        format!("{known}x").replacen("/101x", "/101/x", 1),
        format!("/{known}"),
        known.replacen("/agentgateway", "/gateway", 1),
        known.replacen("/resource", "", 1),
        known.replacen("/resource/", "/resource/./", 1),
        known.replacen("/resource/", "/resource/x/../", 1),
        known.replacen(call.group, "agentdance", 1),
    ] {
        let answer = desk.send(call.method, &unknown, None, call.body.as_bytes());
        assert_eq!((answer.status, retcode(&answer).as_str()), (404, "000-002"), "{unknown}");
    }
}

fn other_case(desk: &Desk, call: &Call) {
    let known = call.path(101);
    for part in ["agentgateway", "resource", call.group, call.operation].into_iter().filter(|part| !part.is_empty()) {
        let mut capital = part.to_owned();
        capital[..1].make_ascii_uppercase();
        let unknown = known.replacen(&format!("/{part}"), &format!("/{capital}"), 1);
        let answer = desk.send(call.method, &unknown, None, call.body.as_bytes());
        assert_eq!((answer.status, retcode(&answer).as_str()), (404, "000-002"), "{unknown}");
    }
}

fn wrong_method(desk: &Desk, call: &Call, method: &str, agent: &str) {
    let answer = desk.send(method, &call.path_of(agent), None, b"{");
    assert_eq!((answer.status, retcode(&answer).as_str()), (405, "000-002"));
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains(&format!("allow: {}\r\n", call.method.to_ascii_lowercase())), "{head}");
}

/// What stands where the work number belongs.
const AGENT_IDS: &[(&str, &str)] = &[
    ("a_word", "anna"),
    ("0", "0"),
    ("100", "100"),
    ("1000000", "1000000"),
    ("with_a_zero", "0101"),
    ("with_plus", "+101"),
    ("with_minus", "-101"),
    ("a_fraction", "101.0"),
    ("an_exponent", "1e3"),
    ("encoded", "%31%30%31"),
    ("with_a_space", "101%20"),
    ("with_nul", "101%00"),
    ("far_too_long", "99999999999999999999999999"),
    ("arabic_digits", "%D9%A1%D9%A0%D9%A1"),
];

/// Changes the session id of an agent to one that is not good.
type GuidChange = fn(&Desk, &Agent) -> Option<String>;

const GUIDS: &[(&str, GuidChange)] = &[
    ("missing", |_, _| None),
    ("empty", |_, _| Some(String::new())),
    ("a_word", |_, _| Some("AgentGateway1".to_owned())),
    ("of_another_agent", |desk, _| Some(desk.agent().guid)),
    ("unknown", |_, _| Some("00000000-0000-4000-8000-000000000000.AgentGateway1".to_owned())),
    ("without_gateway", |_, agent| agent.guid.split('.').next().map(str::to_owned)),
    ("cut", |_, agent| Some(agent.guid[..agent.guid.len() - 1].to_owned())),
    ("with_more", |_, agent| Some(format!("{}x", agent.guid))),
    ("upper_case", |_, agent| Some(agent.guid.to_ascii_uppercase())),
    ("with_its_name", |_, agent| Some(format!("JSESSIONID={}", agent.guid))),
    ("one_digit_other", |_, agent| {
        let (first, rest) = agent.guid.split_at(1);
        Some(format!("{}{rest}", if first == "0" { "1" } else { "0" }))
    }),
    ("of_the_session_before", |desk, agent| {
        let body = json!({"password": "", "phonenum": "1"});
        assert_eq!(desk.sign_in_with(agent.number, true, &body).json()["retcode"], "0");
        Some(agent.guid.clone())
    }),
];

/// The id of the session there is: signs in again by force.
fn newest_guid(desk: &Desk, agent: &Agent) -> String {
    let answer = desk.sign_in_with(agent.number, true, &json!({"password": "", "phonenum": "1"}));
    guid_of(&answer).expect("signed in")
}

/// Bodies that are no JSON object.
const BODIES: &[(&str, &[u8])] = &[
    ("missing", b""),
    ("an_open_brace", b"{"),
    ("an_array", b"[]"),
    ("an_array_of_the_object", b"[{\"memberNum\": 6}]"),
    ("a_number", b"5"),
    ("a_text", b"\"x\""),
    ("null", b"null"),
    ("true", b"true"),
    ("not_utf_8", b"{\"password\": \"\xff\xfe\", \"phonenum\": \"1\"}"),
    ("utf_16", b"{\0}\0"),
    ("a_form", b"memberNum=6&time=30"),
    ("xml", b"<memberNum>6</memberNum>"),
    ("single_quotes", b"{'memberNum': 6}"),
    ("a_comma_too_many", b"{\"memberNum\": 6,}"),
    ("two_objects", b"{}{}"),
];

/// Lists that are too long by one.
fn long_lists() -> Vec<Row> {
    let list = |count: usize| {
        let entries: Vec<Value> =
            (0..count).map(|number| json!({"addressType": "6", "address": number.to_string()})).collect();
        json!({"addresses": entries})
    };
    let mut rows = Vec::new();
    for (operation, body) in [("batchaddparticipant", list(121)), ("batchremoveparticipant", list(31))] {
        rows.push(Row::new(format!("checks::{operation}::a_list_too_long"), move |desk| {
            desk.fails(&desk.agent(), operation, body, "000-002");
        }));
    }
    for (operation, body) in [("batchaddparticipant", list(120)), ("batchremoveparticipant", list(30))] {
        rows.push(Row::new(format!("checks::{operation}::the_longest_list"), move |desk| {
            desk.fails(&desk.agent(), operation, body, "101-001");
        }));
    }
    rows.push(Row::new("checks::conference_before_chair_before_operation", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let nobody = json!({"addressType": "6", "address": "4711", "voicePath": format!("D:/conf/{OTHER_VDN}/x.wav")});
        desk.fails(&desk.agent(), "playvoicetoparticipant", nobody.clone(), "101-001");
        desk.fails(&second, "playvoicetoparticipant", nobody.clone(), "101-002");
        desk.fails_below(&room.chair, "playvoicetoparticipant", nobody, 90_005);
    }));
    rows.push(Row::new("checks::a_query_stands_beside_an_operation", |desk| {
        let agent = desk.agent();
        let path = format!("{}?a=1&b", conf_path(agent.number, "stopvoicetoconf"));
        assert_eq!(desk.retcode("POST", &path, Some(&agent.guid), b""), "101-001");
    }));
    rows.push(Row::new("checks::the_description_is_served", |desk| {
        let answer = desk.send("GET", "/agentgateway/openapi.json", None, b"");
        assert_eq!(answer.status, 200);
        let paths = answer.json()["paths"].as_object().expect("paths").clone();
        for call in CALLS {
            let path = call.path_of("{agentid}");
            assert!(paths[&path][&call.method.to_ascii_lowercase()].is_object(), "{path}");
        }
        assert_eq!(paths.len(), CALLS.len());
        assert_eq!(desk.send("POST", "/agentgateway/openapi.json", None, b"").status, 405);
    }));
    rows
}
