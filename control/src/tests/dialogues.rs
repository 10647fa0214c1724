//! Requests and what is answered to them, word for word where it matters.

use serde_json::{Value, json};

use super::rig::{Client, Rig};

/// Sends lines, each of which gets one answer, and compares code, id and parameter.
fn dialogue(client: &mut Client, script: &[(&str, Value)]) {
    for (line, expected) in script {
        client.line(line);
        let answer = client.read().expect("an answer");
        let error = &answer["error"];
        let told = json!({"id": answer["id"], "code": error["code"], "param": error["data"]["param"]});
        assert_eq!(told, *expected, "{line} -> {answer}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert!(error["data"]["kind"].is_string(), "{answer}");
    }
}

fn refused(id: impl Into<Value>, code: i64, param: impl Into<Value>) -> Value {
    json!({"id": id.into(), "code": code, "param": param.into()})
}

#[test]
fn what_is_no_request_is_told_and_the_connection_goes_on() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    dialogue(
        &mut client,
        &[
            ("nonsense", refused(Value::Null, -32700, Value::Null)),
            ("{\"jsonrpc\":\"2.0\",", refused(Value::Null, -32700, Value::Null)),
            ("\u{fffd}", refused(Value::Null, -32700, Value::Null)),
            ("1", refused(Value::Null, -32600, Value::Null)),
            ("[]", refused(Value::Null, -32600, Value::Null)),
            (r#"{"id":1,"method":"server.info"}"#, refused(1, -32600, Value::Null)),
            (r#"{"jsonrpc":"2.0","id":"x","method":5}"#, refused("x", -32600, Value::Null)),
            (r#"{"jsonrpc":"2.0","id":{},"method":"server.info"}"#, refused(Value::Null, -32600, Value::Null)),
            (r#"{"jsonrpc":"2.0","id":2,"method":"no.such"}"#, refused(2, -32601, Value::Null)),
            (r#"{"jsonrpc":"2.0","id":3,"method":"server.info","params":[1]}"#, refused(3, -32602, Value::Null)),
            (r#"{"jsonrpc":"2.0","id":3,"method":"server.info","params":{"x":1}}"#, refused(3, -32602, "x")),
        ],
    );
    client.line(&"x".repeat(70_000));
    assert_eq!(client.read().expect("an answer")["error"]["code"], -32700);
    client.line("");
    client.line("  ");
    assert_eq!(client.ok("server.info", json!({}))["name"], "ringbridge");
}

#[test]
fn wrong_types_and_ranges_name_the_parameter() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let create: &[(Value, &str)] = &[
        (json!({"remote": "here"}), "remote"),
        (json!({"remote": "127.0.0.1:0"}), "remote"),
        (json!({"remote": "[::1]:9"}), "remote"),
        (json!({"remote_rtcp": "0.0.0.0:9"}), "remote_rtcp"),
        (json!({"ptime_ms": 0}), "ptime_ms"),
        (json!({"ptime_ms": 201}), "ptime_ms"),
        (json!({"ptime_ms": "20"}), "ptime_ms"),
        (json!({"direction": "both"}), "direction"),
        (json!({"dscp": 64}), "dscp"),
        (json!({"shard": 2}), "shard"),
        (json!({"shard": -1}), "shard"),
        (json!({"interface": "moon"}), "interface"),
        (json!({"telephone_event_pt": 128}), "telephone_event_pt"),
        (json!({"payload_types": {"200": "x/8000"}}), "payload_types"),
        (json!({"payload_types": {"96": 5}}), "payload_types.96"),
        (json!({"rtp_timeout_ms": 86_400_001u32}), "rtp_timeout_ms"),
        (json!({"label": "x".repeat(257)}), "label"),
        (json!({"colour": "red"}), "colour"),
    ];
    for (params, param) in create {
        let data = client.fails("connection.create", params.clone(), -32602);
        assert_eq!(data["param"], *param, "{params}");
    }
    assert_eq!(client.fails("connection.create", json!({"codec": "iLBC"}), 1013)["codec"], "iLBC");
    assert_eq!(client.ok("connection.list", json!({}))["connections"], json!([]), "a call that fails changes nothing");

    let id = client.connection(json!({}));
    let room = client.conference(json!({}));
    let checks: &[(&str, Value, i64, &str)] = &[
        ("connection.modify", json!({"connection_id": id, "ptime_ms": 0}), -32602, "ptime_ms"),
        ("connection.modify", json!({"connection_id": id, "shard": 1}), -32602, "shard"),
        ("connection.modify", json!({"connection_id": id, "dscp": 0}), 1016, "dscp"),
        ("connection.modify", json!({}), -32602, "connection_id"),
        ("connection.delete", json!({}), -32602, "connection_id"),
        ("relay.start", json!({"a": id}), -32602, "b"),
        ("relay.start", json!({"a": id, "b": id}), -32602, "b"),
        ("conference.create", json!({"sample_rate_hz": 44100}), 1016, "sample_rate_hz"),
        ("conference.create", json!({"max_participants": 0}), -32602, "max_participants"),
        ("conference.join", json!({"conference_id": room, "connection_id": id, "gain_db": 25}), -32602, "gain_db"),
        ("conference.join", json!({"conference_id": room, "connection_id": id, "muted": 1}), -32602, "muted"),
        ("operation.start", json!({"connection_id": id}), -32602, "kind"),
        ("operation.start", json!({"kind": 1, "connection_id": id}), -32602, "kind"),
        ("operation.start", json!({"kind": "sing", "connection_id": id}), -32602, "kind"),
        ("operation.start", json!({"kind": "play", "connection_id": id}), -32602, "files"),
        ("operation.start", json!({"kind": "play", "connection_id": id, "files": []}), -32602, "files"),
        ("operation.start", json!({"kind": "play", "connection_id": id, "files": [1]}), -32602, "files[0]"),
        ("operation.start", json!({"kind": "play", "files": ["a"]}), -32602, "connection_id"),
        (
            "operation.start",
            json!({"kind": "record", "connection_id": id, "path": "a", "max_time_ms": 0}),
            -32602,
            "max_time_ms",
        ),
        (
            "operation.start",
            json!({"kind": "record", "connection_id": id, "path": "a", "channels": {}}),
            -32602,
            "channels.caller",
        ),
        ("operation.stop", json!({"connection_id": id, "conference_id": room}), -32602, "conference_id"),
        ("events.subscribe", json!({"kinds": ["weather"]}), -32602, "kinds"),
        ("server.drain", json!({"deadline_ms": -1}), -32602, "deadline_ms"),
    ];
    for (method, params, code, param) in checks {
        let data = client.fails(method, params.clone(), *code);
        assert_eq!(data["param"], *param, "{method} {params}");
    }
    client.fails("recording.mute", json!({"operation_id": "op-0-0-0", "channels": "both"}), 1003);
}

#[test]
fn ids_of_nothing_of_another_kind_and_of_the_past() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let past = client.connection(json!({}));
    client.ok("connection.delete", json!({"connection_id": past}));
    let (id, room) = (client.connection(json!({})), client.conference(json!({})));
    for wrong in ["conn-0-5-0", "conn-fe-0-0", "", "x", room.as_str(), past.as_str()] {
        assert_eq!(client.fails("connection.get", json!({"connection_id": wrong}), 1001)["connection_id"], wrong);
        client.fails("connection.delete", json!({"connection_id": wrong}), 1001);
        client.fails("relay.start", json!({"a": wrong, "b": id}), 1001);
        client.fails("relay.start", json!({"a": id, "b": wrong}), 1001);
        client.fails("operation.start", json!({"kind": "play", "connection_id": wrong, "files": ["x.wav"]}), 1001);
        client.fails("operation.stop", json!({"connection_id": wrong}), 1001);
    }
    for wrong in ["conf-0-5-0", "", id.as_str()] {
        assert_eq!(client.fails("conference.get", json!({"conference_id": wrong}), 1002)["conference_id"], wrong);
        client.fails("conference.join", json!({"conference_id": wrong, "connection_id": id}), 1002);
        client.fails("connection.create", json!({"conference_id": wrong}), 1002);
    }
    for wrong in ["op-0-0-0", "util-0-0-0", id.as_str()] {
        client.fails("operation.stop", json!({"connection_id": id, "operation_id": wrong}), 1003);
    }
    client.fails("operation.stop", json!({"connection_id": "util-0-0-0"}), 1001);
    client.fails("relay.stop", json!({"a": id}), 1004);
    client.fails("conference.set", json!({"conference_id": room, "connection_id": id, "muted": true}), 1004);
}

#[test]
fn batches_are_answered_as_one_and_notifications_not_at_all() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    client.line(
        r#"[{"jsonrpc":"2.0","id":1,"method":"connection.create","params":{}},7,
            {"jsonrpc":"2.0","method":"connection.create"},{"jsonrpc":"2.0","id":"b","method":"server.info"}]"#
            .replace('\n', " ")
            .as_str(),
    );
    let answers = client.read().expect("an answer");
    let answers = answers.as_array().expect("a batch");
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!(1), &Value::Null, &json!("b")]);
    client.line(r#"[{"jsonrpc":"2.0","method":"connection.create"}]"#);
    client.line(r#"{"jsonrpc":"2.0","method":"connection.create"}"#);
    client.line(r#"{"jsonrpc":"2.0","method":"no.such"}"#);
    // Nothing was answered to the three; all of them were carried out.
    let list = client.send("connection.list", json!({}));
    let answer = client.read().expect("an answer");
    assert_eq!(answer["id"], list);
    assert_eq!(answer["result"]["connections"].as_array().map(Vec::len), Some(4));
}

#[test]
fn pipelined_commands_take_effect_in_the_order_sent() {
    let rig = Rig::start(2);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    let id = client.connection(json!({"shard": 0}));
    rig.world.hold(0);
    // The first has to open a file; the others could overtake it, and do not.
    let play = client.send("operation.start", json!({"kind": "play", "connection_id": id, "files": ["prompt.wav"]}));
    let get = client.send("connection.get", json!({"connection_id": id}));
    let delete = client.send("connection.delete", json!({"connection_id": id}));
    let late = client.send("connection.get", json!({"connection_id": id}));
    // Another id waits for nothing.
    client.connection(json!({"shard": 1}));
    rig.world.release(0);
    assert!(client.answer(play)["result"]["operation_id"].is_string());
    assert_eq!(client.answer(get)["result"]["operations"].as_array().map(Vec::len), Some(1));
    assert!(client.answer(delete)["result"]["effect"].is_object());
    assert_eq!(client.answer(late)["error"]["code"], 1001);
    let log: Vec<String> = rig.world.log().into_iter().filter(|entry| entry.starts_with("0 ")).collect();
    assert_eq!(log[1..4], ["0 StartOperation", "0 InspectConnection", "0 DeleteConnection"]);
}

#[test]
fn answers_come_before_the_events_they_cause_end() {
    let rig = Rig::start(1);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    client.ok("events.subscribe", json!({}));
    let id = client.connection(json!({}));
    for _ in 0..20 {
        let params = json!({"kind": "play", "connection_id": id, "files": ["prompt.wav"], "max_time_ms": 1});
        let started = client.ok("operation.start", params);
        assert_eq!(client.events_so_far(), [] as [Value; 0], "its end is told after its start");
        let ended = client.event("operation.ended");
        assert_eq!((&ended["operation_id"], &ended["condition"]), (&started["operation_id"], &json!("maxtime")));
    }
}

#[test]
fn a_client_that_stops_sending_still_gets_its_answers() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    rig.world.hold(0);
    let create = client.send("connection.create", json!({}));
    client.shut_down_sending();
    rig.world.release(0);
    assert!(client.answer(create)["result"]["connection_id"].is_string());
    assert_eq!(client.read(), None);
}

#[test]
fn the_description_is_served() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let document = client.ok("rpc.discover", json!({}));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    // Not told to anybody, but there for tests.
    assert!(!document.to_string().contains("debug.shard_panic"));
    client.fails("debug.shard_panic", json!({"shard": 9}), -32602);
}

#[test]
fn fault_injection_is_off_by_default() {
    let rig = Rig::start_with(1, |config| config.fault_injection = false);
    rig.client().fails("debug.shard_panic", json!({"shard": 0}), -32601);
}
