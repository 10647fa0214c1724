//! Signing in and out (2.1 to 2.3), and fetching events (6).

use serde_json::{Value, json};

use crate::rig::{
    Agent, Desk, EXPIRED, EXPIRES, LOCKED, NOBODY, OTHER_VDN, WITH_PASSWORD, WITH_PHONE, WITH_VIDEO, effect_of,
    guid_of, path, with,
};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("sessions", ROWS);
    for (what, more, code) in SIGN_INS {
        for force in [false, true] {
            let name = if force { "forcelogin" } else { "login" };
            rows.push(Row::new(format!("sessions::{name}::{}", what.replace(' ', "_")), move |desk| {
                let more: Value = serde_json::from_str(more).expect("JSON");
                let mut body = with(&json!({"password": "", "phonenum": "1"}), more);
                body.as_object_mut().unwrap().retain(|_, value| *value != "-");
                let answer = desk.sign_in_with(desk.number(), force, &body);
                assert_eq!(answer.json()["retcode"], *code, "{body}: {answer:?}");
                assert_eq!(guid_of(&answer).is_some(), *code == "0");
                assert_eq!(effect_of(&answer), None);
            }));
        }
    }
    rows
}

/// What a sign-in says besides the least it has to; `-` takes a member away.
const SIGN_INS: &[(&str, &str, &str)] = &[
    ("the least", "{}", "0"),
    ("no password", r#"{"password": "-"}"#, "100-001"),
    ("password null", r#"{"password": null}"#, "100-001"),
    ("password a number", r#"{"password": 5}"#, "100-001"),
    ("password of 33 characters", r#"{"password": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "100-001"),
    ("password of 32 characters", r#"{"password": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "100-004"),
    ("wrong password", r#"{"password": "x"}"#, "100-004"),
    ("no phonenum", r#"{"phonenum": "-"}"#, "100-001"),
    ("phonenum empty", r#"{"phonenum": ""}"#, "100-001"),
    ("phonenum a list", r#"{"phonenum": ["1"]}"#, "100-001"),
    ("phonenum of 25", r#"{"phonenum": "1111111111111111111111111"}"#, "100-013"),
    ("phonenum of 24", r#"{"phonenum": "111111111111111111111111"}"#, "0"),
    ("phonenum with a line break", r#"{"phonenum": "1\r\n2"}"#, "100-013"),
    ("status 3", r#"{"status": 3}"#, "0"),
    ("status text 4", r#"{"status": "4"}"#, "0"),
    ("status 5", r#"{"status": 5}"#, "0"),
    ("status 6", r#"{"status": 6}"#, "100-001"),
    ("status 2", r#"{"status": "2"}"#, "100-001"),
    ("status a word", r#"{"status": "idle"}"#, "100-001"),
    ("agenttype 4", r#"{"agenttype": 4}"#, "0"),
    ("agenttype text 4", r#"{"agenttype": "4"}"#, "0"),
    ("agenttype 11 of an audio agent", r#"{"agenttype": 11}"#, "100-012"),
    ("agenttype 5", r#"{"agenttype": 5}"#, "100-001"),
    ("booleans", r#"{"autoanswer": true, "autoenteridle": false, "releasephone": true, "phonelinkage": false}"#, "0"),
    ("booleans as texts", r#"{"autoanswer": "true", "autoenteridle": "FALSE", "releasephone": "True"}"#, "0"),
    ("more booleans", r#"{"checkInWebm": true, "checkInMailm": "false", "listenStatus": "false"}"#, "0"),
    ("autoanswer 1", r#"{"autoanswer": 1}"#, "100-001"),
    ("releasephone yes", r#"{"releasephone": "yes"}"#, "100-001"),
    ("checkInMailm a list", r#"{"checkInMailm": []}"#, "100-001"),
    ("ip", r#"{"ip": "10.1.2.3"}"#, "0"),
    ("ip of version 6", r#"{"ip": "::1"}"#, "100-016"),
    ("ip a word", r#"{"ip": "localhost"}"#, "100-016"),
    ("ip out of range", r#"{"ip": "10.1.2.300"}"#, "100-016"),
    ("ip too long", r#"{"ip": "010.001.002.0003"}"#, "100-016"),
    ("ip a number", r#"{"ip": 5}"#, "100-001"),
    ("vcPhoneNumber a number", r#"{"vcPhoneNumber": 1}"#, "100-001"),
    ("entryIp a list", r#"{"entryIp": []}"#, "100-001"),
    ("vcPhoneNumber and entryIp", r#"{"vcPhoneNumber": "1", "entryIp": "10.0.0.1"}"#, "0"),
    ("unknown members", r#"{"colour": "red", "more": {"a": [1]}}"#, "0"),
    ("callBackUri alone", r#"{"callBackUri": "http://192.0.2.1/"}"#, "0"),
    ("serviceToken alone", r#"{"serviceToken": "token"}"#, "0"),
    ("callBackUri not allowed", r#"{"callBackUri": "http://192.0.2.1/x", "serviceToken": "t"}"#, "100-001"),
    ("callBackUri of the API itself", r#"{"callBackUri": "http://127.0.0.1:1/x", "serviceToken": "t"}"#, "100-001"),
    ("callBackUri no address", r#"{"callBackUri": "not an address", "serviceToken": "t"}"#, "100-001"),
    ("callBackUri a file", r#"{"callBackUri": "file:///etc/passwd", "serviceToken": "t"}"#, "100-001"),
    ("serviceToken with a line break", r#"{"callBackUri": "http://127.0.0.1/", "serviceToken": "a\r\nb"}"#, "100-001"),
    ("serviceToken of 51", r#"{"serviceToken": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "100-001"),
    ("serviceToken with a space", r#"{"serviceToken": "a b"}"#, "100-001"),
];

fn out(desk: &Desk, agent: &Agent, operation: &str) -> Value {
    let out = path("onlineagent", agent.number, operation);
    desk.send("DELETE", &out, Some(&agent.guid), b"").json()
}

/// The types of the events that wait, none of them waited for.
fn waiting(desk: &Desk, agent: &Agent, count: usize) -> Vec<String> {
    let types = (0..count).map(|_| desk.poll(agent)["eventType"].as_str().unwrap_or_default().to_owned());
    types.collect()
}

/// A body that leaves nothing out.
fn everything(phone: &str) -> Value {
    json!({
        "password": "", "phonenum": phone, "autoanswer": "true", "autoenteridle": "true", "releasephone": "true",
        "agenttype": "4", "status": "4", "ip": "127.0.0.1", "phonelinkage": "false", "checkInWebm": "true",
        "checkInMailm": "false", "listenStatus": "false", "vcPhoneNumber": "", "entryIp": "", "callBackUri": "",
        "serviceToken": "",
    })
}

const ROWS: &[Plain] = &[
    ("login::answers_as_the_guide_says", |desk| {
        let number = desk.number();
        let answer = desk.sign_in_with(number, false, &everything("1"));
        let body = answer.json();
        assert_eq!((&body["message"], &body["retcode"]), (&json!(""), &json!("0")));
        let result = &body["result"];
        assert_eq!((&result["vdnid"], &result["workno"]), (&json!(1), &json!(number.to_string())));
        assert_eq!((&result["mediatype"], &result["isForceChange"]), (&json!("TTF"), &json!("false")));
        assert_eq!((&result["serverName"], &result["timeRemaining"]), (&json!("AgentGateway1"), &json!("")));
        let time: i64 = result["loginTime"].as_str().and_then(|time| time.parse().ok()).expect("milliseconds");
        assert!((jiff::Timestamp::now().as_millisecond() - time).abs() < 600_000);
        let guid = guid_of(&answer).expect("a Guid");
        let (id, name) = guid.split_once('.').expect("two parts");
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!((lengths.as_slice(), name), (&[8, 4, 4, 4, 12][..], "AgentGateway1"));
        assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
    }),
    ("login::ids_differ", |desk| {
        let guids: std::collections::BTreeSet<String> = (0..8).map(|_| desk.agent().guid).collect();
        assert_eq!(guids.len(), 8);
    }),
    ("login::events_of_status_4", |desk| {
        let agent = desk.signed_in(desk.number(), None, json!({"status": 4}));
        assert_eq!(waiting(desk, &agent, 2), ["AgentOther_InService", "AgentState_Ready"]);
    }),
    ("login::events_of_status_3", |desk| {
        let agent = desk.signed_in(desk.number(), None, json!({"status": "3"}));
        let told = waiting(desk, &agent, 3);
        assert_eq!(told, ["AgentOther_InService", "AgentState_Ready", "AgentState_SetNotReady_Success"]);
    }),
    ("login::events_of_status_5", |desk| {
        let agent = desk.signed_in(desk.number(), None, json!({"status": 5}));
        assert_eq!(waiting(desk, &agent, 3), ["AgentOther_InService", "AgentState_Ready", "AgentState_Work"]);
    }),
    ("login::signed_in_already", |desk| {
        let agent = desk.agent();
        let answer = desk.sign_in_with(agent.number, false, &everything("1"));
        assert_eq!(answer.json()["retcode"], "100-002");
        assert_eq!(out(desk, &agent, "logout")["retcode"], "0", "the session goes on");
    }),
    ("login::a_wrong_password_comes_before_signed_in_already", |desk| {
        let agent = desk.agent();
        let answer = desk.sign_in_with(agent.number, false, &json!({"password": "x", "phonenum": "1"}));
        assert_eq!(answer.json()["retcode"], "100-004");
    }),
    ("login::nobody_of_that_number", |desk| {
        let answer = desk.sign_in_with(NOBODY, false, &everything("1"));
        assert_eq!(answer.json()["retcode"], "100-004");
    }),
    ("login::with_a_password", |desk| {
        let body = |password: &str| json!({"password": password, "phonenum": "1"});
        for wrong in ["", "correct-hors", "Correct-horse"] {
            assert_eq!(desk.sign_in_with(WITH_PASSWORD, false, &body(wrong)).json()["retcode"], "100-004", "{wrong}");
        }
        assert_eq!(desk.sign_in_with(WITH_PASSWORD, false, &body("correct-horse")).json()["retcode"], "0");
    }),
    ("login::too_many_attempts", |desk| {
        let number = desk.number();
        let attempt = |password: &str| {
            desk.sign_in_with(number, false, &json!({"password": password, "phonenum": "1"})).json()["retcode"].clone()
        };
        let codes: Vec<Value> = (0..8).map(|_| attempt("wrong")).collect();
        assert_eq!(codes[0], "100-004");
        assert_eq!(codes[7], "110-016");
        assert_eq!(attempt(""), "110-016", "not even with the right one");
        // Others are not kept out.
        let other = Desk::open(&desk.world);
        assert_eq!(other.sign_in_with(other.number(), false, &everything("1")).json()["retcode"], "0");
    }),
    ("login::locked", |desk| {
        assert_eq!(desk.sign_in_with(LOCKED, false, &everything("1")).json()["retcode"], "110-016");
        assert_eq!(desk.sign_in_with(LOCKED, true, &everything("1")).json()["retcode"], "110-016");
    }),
    ("login::password_expired", |desk| {
        assert_eq!(desk.sign_in_with(EXPIRED, false, &everything("1")).json()["retcode"], "100-020");
    }),
    ("login::password_expires_in_five_days", |desk| {
        let answer = desk.sign_in_with(EXPIRES, false, &everything("1")).json();
        assert_eq!((&answer["retcode"], &answer["result"]["timeRemaining"]), (&json!("0"), &json!("5")));
    }),
    ("login::of_another_VDN", |desk| {
        let answer = desk.sign_in_with(desk.number_of(OTHER_VDN), false, &everything("1")).json();
        assert_eq!(answer["result"]["vdnid"], OTHER_VDN);
    }),
    ("login::only_with_its_own_telephone", |desk| {
        let body = |phone: &str| json!({"password": "", "phonenum": phone});
        assert_eq!(desk.sign_in_with(WITH_PHONE, false, &body("8898")).json()["retcode"], "100-014");
        assert_eq!(desk.sign_in_with(WITH_PHONE, false, &body("8899")).json()["retcode"], "0");
    }),
    ("login::video", |desk| {
        let body = json!({"password": "", "phonenum": "1", "agenttype": "11"});
        assert_eq!(desk.sign_in_with(WITH_VIDEO, false, &body).json()["retcode"], "0");
    }),
    ("login::again_after_a_sign_out", |desk| {
        let agent = desk.agent();
        assert_eq!(out(desk, &agent, "logout")["retcode"], "0");
        let again = desk.signed_in(agent.number, None, json!({}));
        assert_ne!(again.guid, agent.guid);
        assert_eq!(waiting(desk, &again, 2), ["AgentOther_InService", "AgentState_Ready"], "no events of before");
    }),
    ("forcelogin::without_a_session", |desk| {
        let answer = desk.sign_in_with(desk.number(), true, &everything("1"));
        assert_eq!(answer.json()["retcode"], "0");
    }),
    ("forcelogin::replaces_a_session", |desk| {
        let agent = desk.agent();
        let answer = desk.sign_in_with(agent.number, true, &everything("1"));
        assert_eq!(answer.json()["retcode"], "0");
        assert_eq!(out(desk, &agent, "logout")["retcode"], "000-003", "the id of before is not good any more");
        let guid = guid_of(&answer).expect("a Guid");
        assert_eq!(out(desk, &Agent { guid, ..agent }, "logout")["retcode"], "0");
    }),
    ("forcelogin::with_a_wrong_password_changes_nothing", |desk| {
        let agent = desk.agent();
        let answer = desk.sign_in_with(agent.number, true, &json!({"password": "x", "phonenum": "1"}));
        assert_eq!(answer.json()["retcode"], "100-004");
        assert_eq!(out(desk, &agent, "logout")["retcode"], "0");
    }),
    ("forcelogin::ends_the_conference_of_its_chair", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let body = everything(&room.chair.phone().number);
        assert_eq!(desk.sign_in_with(room.chair.number, true, &body).json()["retcode"], "0");
        let change = desk.change(&second, 1);
        assert_eq!(change["changeReason"], 6);
        desk.event(&second, "AgentConf_SelfLeaveResult");
        desk.fails(&second, "queryconfinfos", json!({"confIds": [room.id]}), "101-001");
    }),
    ("forcelogin::takes_a_participant_out", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let body = everything(&second.phone().number);
        assert_eq!(desk.sign_in_with(second.number, true, &body).json()["retcode"], "0");
        let change = desk.change(&room.chair, 1);
        assert_eq!((&change["changeReason"], &change["participant"]), (&json!(6), &json!(second.number.to_string())));
        assert_eq!(desk.info_of(&room, &second.address()), Value::Null);
    }),
    ("forcelogin::ends_a_held_poll", |desk| {
        let agent = desk.agent();
        waiting(desk, &agent, 2);
        std::thread::scope(|scope| {
            let other = desk.api.from_address([127, 0, 0, 1].into());
            let (poll, guid) = (path("agentevent", agent.number, ""), agent.guid.clone());
            let held = scope.spawn(move || other.request("GET", &poll, &[("Guid", &guid)], b"").json());
            let body = everything("1");
            desk.sign_in_with(agent.number, true, &body);
            let told = held.join().expect("answered");
            // Before it was held, or from the hold.
            assert!(["100-008", "000-003"].contains(&told["retcode"].as_str().unwrap()), "{told}");
        });
    }),
    ("logout::answers_null", |desk| {
        let agent = desk.agent();
        assert_eq!(out(desk, &agent, "logout"), json!({"message": "success", "retcode": "0", "result": null}));
    }),
    ("logout::already_signed_out", |desk| {
        let agent = desk.agent();
        out(desk, &agent, "logout");
        assert_eq!(out(desk, &agent, "logout")["retcode"], "100-006");
        assert_eq!(out(desk, &agent, "forcelogout")["retcode"], "100-006");
    }),
    ("logout::not_in_a_conference", |desk| {
        let room = desk.room();
        assert_eq!(out(desk, &room.chair, "logout")["retcode"], "100-010");
        assert_eq!(desk.info(&room.chair, room.id)["confId"], room.id);
    }),
    ("logout::not_while_it_is_called", |desk| {
        let agent = desk.agent_with_phone();
        desk.ok(&agent, "requestagentconf", json!({"memberNum": 2}));
        assert_eq!(out(desk, &agent, "logout")["retcode"], "100-010");
    }),
    ("logout::not_while_it_rings", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        assert_eq!(out(desk, &agent, "logout")["retcode"], "100-010");
    }),
    ("logout::after_the_conference", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        assert_eq!(out(desk, &room.chair, "logout")["retcode"], "0");
    }),
    ("forcelogout::answers_null", |desk| {
        let agent = desk.agent();
        assert_eq!(out(desk, &agent, "forcelogout"), json!({"message": "success", "retcode": "0", "result": null}));
    }),
    ("forcelogout::of_the_chair_releases_the_conference", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        assert_eq!(out(desk, &room.chair, "forcelogout")["retcode"], "0");
        assert_eq!(desk.change(&second, 1)["changeReason"], 4);
        assert_eq!(desk.event(&second, "AgentConf_SelfLeaveResult"), json!({"confId": room.id}));
        desk.fails(&second, "requestleaveagentconf", Value::Null, "101-001");
        assert_eq!(room.chair.phone().connection(&desk.world), None, "its call is released");
    }),
    ("forcelogout::of_a_participant", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        assert_eq!(out(desk, &second, "forcelogout")["retcode"], "0");
        let change = desk.change(&room.chair, 1);
        assert_eq!((&change["changeReason"], &change["participant"]), (&json!(4), &json!(second.number.to_string())));
        assert_eq!(second.phone().connection(&desk.world), None);
        assert_eq!(desk.info(&room.chair, room.id)["addresses"].as_array().map(Vec::len), Some(1));
    }),
    ("forcelogout::while_it_rings", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        assert_eq!(out(desk, &agent, "forcelogout")["retcode"], "0");
        assert_eq!(desk.change(&room.chair, 1)["changeReason"], 4);
    }),
    ("forcelogout::while_its_conference_is_requested", |desk| {
        let agent = desk.agent_with_phone();
        desk.ok(&agent, "requestagentconf", json!({"memberNum": 2}));
        agent.phone().called(&desk.world);
        assert_eq!(out(desk, &agent, "forcelogout")["retcode"], "0");
        assert_eq!(agent.phone().connection(&desk.world), None);
        // Nothing of it is left.
        let again = desk.signed_in(agent.number, agent.phone.clone(), json!({}));
        desk.room_of(again, json!({"memberNum": 2}));
    }),
    ("handshake::answers", |desk| {
        let agent = desk.agent();
        let answer = desk.send("POST", &path("onlineagent", agent.number, "handshake"), Some(&agent.guid), b"");
        assert_eq!(answer.json(), json!({"message": "success", "retcode": "0", "result": {}}));
        assert_eq!(guid_of(&answer), None, "the id stays as it is");
    }),
    ("handshake::with_a_service_token", |desk| {
        let agent = desk.agent();
        let headers = [("Guid", agent.guid.as_str()), ("service_token", "token")];
        let shake = path("onlineagent", agent.number, "handshake");
        assert_eq!(desk.api.request("POST", &shake, &headers, b"").json()["retcode"], "0");
    }),
    ("poll::one_event_each_oldest_first", |desk| {
        let agent = desk.agent();
        assert_eq!(desk.poll(&agent)["eventType"], "AgentOther_InService");
        assert_eq!(desk.poll(&agent)["eventType"], "AgentState_Ready");
    }),
    ("poll::envelope", |desk| {
        let agent = desk.agent();
        let answer = desk.send("GET", &path("agentevent", agent.number, ""), Some(&agent.guid), b"");
        assert_eq!(guid_of(&answer), None);
        let body = answer.json();
        assert_eq!((&body["message"], &body["retcode"]), (&json!(""), &json!("0")));
        let event = &body["event"];
        assert_eq!(
            (&event["eventType"], &event["workNo"]),
            (&json!("AgentOther_InService"), &json!(agent.number.to_string()))
        );
        assert!(event["eventGenTime"].is_u64());
        assert!(event.as_object().unwrap().contains_key("content"));
    }),
    ("poll::calldata_is_taken", |desk| {
        let agent = desk.agent();
        let poll = format!("{}?calldata=1", path("agentevent", agent.number, ""));
        let answer = desk.send("GET", &poll, Some(&agent.guid), b"").json();
        assert_eq!(answer["event"]["eventType"], "AgentOther_InService");
    }),
    ("poll::empty_after_a_while", |desk| {
        let agent = desk.agent();
        waiting(desk, &agent, 2);
        let answer = desk.send("GET", &path("agentevent", agent.number, ""), Some(&agent.guid), b"").json();
        assert_eq!(answer, json!({"message": "", "retcode": "0", "event": null}));
    }),
    ("poll::a_held_one_gets_what_comes", |desk| {
        let agent = desk.agent();
        let room = desk.room();
        waiting(desk, &agent, 2);
        std::thread::scope(|scope| {
            let other = desk.api.from_address([127, 0, 0, 1].into());
            let (poll, guid) = (path("agentevent", agent.number, ""), agent.guid.clone());
            let held = scope.spawn(move || other.request("GET", &poll, &[("Guid", &guid)], b"").json());
            desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
            assert_eq!(held.join().expect("answered")["event"]["content"], json!({"confId": room.id}));
        });
    }),
    ("poll::a_second_one_empties_the_first", |desk| {
        let agent = desk.agent();
        let room = desk.room();
        waiting(desk, &agent, 2);
        let (answers, answered) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (api, answers) = (desk.api.from_address([127, 0, 0, 1].into()), answers.clone());
            let (poll, guid) = (path("agentevent", agent.number, ""), agent.guid.clone());
            std::thread::spawn(move || {
                let answer = api.request("GET", &poll, &[("Guid", &guid)], b"").json();
                answers.send(answer).expect("waited for");
            });
        }
        // Whichever of the two was the older one: it is answered empty, while the other goes on and gets the event.
        assert_eq!(answered.recv().expect("answered"), json!({"message": "", "retcode": "0", "event": null}));
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        assert_eq!(answered.recv().expect("answered")["event"]["eventType"], "AgentConf_Ringing");
    }),
    ("poll::a_thousand_of_them", |desk| {
        let agent = desk.agent();
        let room = desk.room();
        waiting(desk, &agent, 2);
        for _ in 0..500 {
            desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
            assert_eq!(desk.poll(&agent)["eventType"], "AgentConf_Ringing");
            desk.ok(&agent, "rejectagentconf", Value::Null);
            assert_eq!(waiting(desk, &agent, 2), ["AgentOther_PhoneRelease", "AgentState_Ready"]);
        }
    }),
    ("poll::the_oldest_of_more_than_a_thousand_are_dropped", |desk| {
        let agent = desk.agent();
        let room = desk.room();
        // Three events each: ringing, released, ready.
        for _ in 0..340 {
            desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
            desk.ok(&agent, "rejectagentconf", Value::Null);
        }
        let mut told = Vec::new();
        while told.len() < 1000 {
            told.push(desk.poll(&agent)["eventType"].as_str().expect("an event").to_owned());
        }
        // 2 + 1020 in all: the first 22 are gone, so the first that is left is the 21st of the rejections.
        assert_eq!(told[0], "AgentState_Ready");
        assert_eq!(told[1], "AgentConf_Ringing");
        assert_eq!(told[999], "AgentState_Ready");
    }),
];
