//! Connections, relays, conferences and operations, all the way to the shard and back.

use std::net::IpAddr;

use ringbridge_media::command::{CodecKind, Target};
use ringbridge_media::event::Event;
use ringbridge_media::id::{ConferenceId, ConnectionId};
use serde_json::{Value, json};

use super::rig::{Rig, eventually, free_ports, free_tcp_port};

#[test]
fn a_connection_from_its_creation_to_its_end() {
    let rig = Rig::start_with(1, |config| {
        config.interfaces.insert("inside".into(), IpAddr::from([127, 0, 0, 2]));
    });
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["connection.ended"]}));
    let created = client.ok(
        "connection.create",
        json!({
            "remote": "127.0.0.1:4000", "rx_codec": "pcma", "payload_types": {"97": "telephone-event/8000", "18": "G729/8000"},
            "ptime_ms": 30, "direction": "recvonly", "interface": "inside", "rtp_timeout_ms": 500, "label": "one",
        }),
    );
    let id = created["connection_id"].as_str().expect("an id");
    let spec = rig.world.spec(id);
    assert_eq!((spec.rx_codec, spec.rx_payload_type), (CodecKind::Pcma, 8));
    assert_eq!((spec.tx_codec, spec.tx_payload_type), (CodecKind::Pcmu, 0));
    assert_eq!((spec.telephone_event_payload_type, spec.payload_types[0]), (97, Some(18)));
    assert_eq!((spec.ptime_ms, spec.rtp_timeout_ms), (30, Some(500)));
    assert!(created["local"].as_str().is_some_and(|local| local.starts_with("127.0.0.2:")), "{created}");

    let modified = client
        .ok("connection.modify", json!({"connection_id": id, "codec": "PCMA", "rtp_timeout_ms": null, "label": "two"}));
    assert_eq!(modified, created);
    assert_eq!(rig.world.spec(id).rtp_timeout_ms, None);
    let status = client.ok("connection.get", json!({"connection_id": id}));
    assert_eq!(status["label"], "two");
    assert_eq!(status["state"], "idle");
    assert_eq!(status["rx_codec"], "PCMA");
    assert_eq!(status["direction"], "recvonly");
    assert_eq!(status["payload_types"], json!({"97": "telephone-event/8000", "18": "G729/8000"}));
    assert_eq!(status["local"], created["local"]);
    assert_eq!(client.ok("connection.list", json!({}))["connections"], json!([status]));

    let deleted = client.ok("connection.delete", json!({"connection_id": id}));
    assert_eq!(deleted["deleted"], json!([id]));
    let effect = json!({
        "clock": "connection", "received_media_time_ms": 1.5, "media_time_ms": 20.0, "rtp_timestamp": 160,
        "streams": [{"connection_id": id, "ssrc": 7, "direction": "out", "rtp_timestamp": 160, "sequence": 3}],
    });
    assert_eq!(deleted["effect"], effect);
    let mut ended = client.event("connection.ended");
    assert_eq!(ended["quality"].take()["bye"], false);
    let wanted = json!({"event": "connection.ended", "connection_id": id, "reason": "deleted", "quality": null});
    assert_eq!(ended, wanted);
}

#[test]
fn connections_are_spread_placed_and_listed_page_by_page() {
    let rig = Rig::start_with(3, |config| config.ports = free_ports(600));
    let mut client = rig.client();
    let shards: Vec<Value> = (0..3).map(|_| client.ok("connection.create", json!({}))["shard"].clone()).collect();
    assert_eq!(shards, [json!(0), json!(1), json!(2)]);
    let room = client.conference(json!({"shard": 2}));
    assert_eq!(client.ok("connection.create", json!({"conference_id": room}))["shard"], 2);
    assert_eq!(client.ok("connection.create", json!({"conference_id": room, "shard": 0}))["shard"], 0);
    for _ in 0..150 {
        client.connection(json!({"shard": 1}));
    }
    let list = client.ok("connection.list", json!({}));
    let mut ids: Vec<&str> = list["connections"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["connection_id"].as_str())
        .collect();
    assert_eq!(ids.len(), 155);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 155, "each once");
}

#[test]
fn a_relay_brings_the_called_to_the_caller() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let (a, b) = (client.connection(json!({"shard": 0})), client.connection(json!({"shard": 1})));
    let params = json!({"a": a, "b": b, "caller_number": "100", "called_number": "200"});
    let relay = client.ok("relay.start", params);
    assert_eq!(relay["effect"]["streams"].as_array().map(Vec::len), Some(2));
    let status = client.ok("connection.get", json!({"connection_id": b}));
    assert_eq!((&status["shard"], &status["state"], &status["peer_id"]), (&json!(0), &json!("relayed"), &json!(a)));
    assert_eq!((&status["call_id"], &status["called_number"]), (&relay["call_id"], &json!("200")));
    assert_eq!(client.fails("relay.start", json!({"a": a, "b": b}), 1005)["kind"], "already_joined");
    client.ok("relay.stop", json!({"a": b}));
    assert!(client.ok("connection.get", json!({"connection_id": a}))["call_id"].is_null());
    // Sent without waiting, the stop still finds the text of the start.
    rig.world.hold(0);
    let start = client.send("relay.start", json!({"a": a, "b": b, "caller_number": "100"}));
    let stop = client.send("relay.stop", json!({"a": a}));
    rig.world.release(0);
    assert!(client.answer(start)["result"]["call_id"].is_string());
    assert!(client.answer(stop)["result"]["effect"].is_object());
    assert!(client.ok("connection.get", json!({"connection_id": a}))["call_id"].is_null());
    client.ok("connection.delete", json!({"connection_id": b}));
    let moved = ConnectionId::parse(&b).expect("an id");
    eventually("the old shard forgets it", || rig.world.forgotten() == [(1, Target::Connection(moved))]);
    assert_eq!(rig.world.log()[2..4], [format!("1 move {b}"), "0 StartRelay".to_owned()]);
}

#[test]
fn what_is_wired_to_something_does_not_move() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let (a, b) = (client.connection(json!({"shard": 0})), client.connection(json!({"shard": 1})));
    let other = client.conference(json!({"shard": 1}));
    client.ok("conference.join", json!({"conference_id": other, "connection_id": b}));
    assert_eq!(client.fails("relay.start", json!({"a": a, "b": b}), 1005)["connection_id"], b.as_str());
    assert_eq!(client.ok("connection.get", json!({"connection_id": b}))["shard"], 1);
    // Still a participant where it is, and free to go afterwards.
    client.ok("conference.leave", json!({"conference_id": other, "connection_id": b}));
    client.ok("relay.start", json!({"a": a, "b": b}));
}

#[test]
fn commands_behind_a_move_keep_their_order() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    for _ in 0..10 {
        let id = client.connection(json!({"shard": 0}));
        let room = client.conference(json!({"shard": 1}));
        let both = json!({"conference_id": room, "connection_id": id});
        let join = client.send("conference.join", both.clone());
        let set = client.send("conference.set", json!({"conference_id": room, "connection_id": id, "muted": true}));
        let get = client.send("conference.get", json!({"conference_id": room}));
        let leave = client.send("conference.leave", both.clone());
        let again = client.send("conference.leave", both);
        assert!(client.answer(join)["result"]["effect"].is_object());
        assert!(client.answer(set)["result"]["effect"].is_object());
        assert_eq!(client.answer(get)["result"]["participants"][0]["muted"], true);
        assert!(client.answer(leave)["result"]["effect"].is_object());
        // The last one out has ended the conference.
        assert!([1002, 1004].contains(&client.answer(again)["error"]["code"].as_i64().expect("refused")));
    }
}

#[test]
fn conferences_and_the_three_forms_of_delete() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["conference.ended", "connection.ended", "talk.started", "digit"]}));
    let room = client.conference(json!({"label": "room", "max_participants": 3, "shard": 0}));
    let members: Vec<String> = (0..4).map(|_| client.connection(json!({}))).collect();
    for member in &members[..3] {
        client.ok("conference.join", json!({"conference_id": room, "connection_id": member, "gain_db": -6}));
    }
    let full = client.fails("conference.join", json!({"conference_id": room, "connection_id": members[3]}), 1008);
    assert_eq!(full["conference_id"], room.as_str());
    client.fails("conference.join", json!({"conference_id": room, "connection_id": members[0]}), 1005);
    let status = client.ok("conference.get", json!({"conference_id": room}));
    assert_eq!((&status["label"], &status["max_participants"]), (&json!("room"), &json!(3)));
    assert_eq!(status["participants"][0]["gain_db"], -6);
    assert_eq!(client.ok("conference.list", json!({}))["conferences"], json!([status]));

    let (talking, in_room) = (ConnectionId::parse(&members[0]), ConferenceId::parse(&room));
    let (connection, conference) = (talking.expect("an id"), in_room.expect("an id"));
    rig.world.say(0, Event::TalkStarted { conference, connection });
    rig.world.say(0, Event::Digit { connection, digit: b'#', duration_ms: 80 });
    assert_eq!(client.event("talk.started")["connection_id"], members[0].as_str());
    let digit = client.event("digit");
    assert_eq!((&digit["digit"], &digit["duration_ms"]), (&json!("#"), &json!(80)));

    let both = json!({"conference_id": room, "connection_id": members[0]});
    let left = client.ok("connection.delete", both.clone());
    assert_eq!((&left["deleted"], &left["effect"]["clock"]), (&json!([]), &json!("conference")));
    client.fails("connection.delete", both, 1004);
    client.ok("connection.get", json!({"connection_id": members[0]}));

    let mut gone = client.ok("connection.delete", json!({"conference_id": room}))["deleted"].clone();
    gone.as_array_mut().expect("a list").sort_by_key(ToString::to_string);
    let mut expected = json!([members[1], members[2]]);
    expected.as_array_mut().expect("a list").sort_by_key(ToString::to_string);
    assert_eq!(gone, expected);
    assert_eq!(client.event("connection.ended")["reason"], "conference_deleted");
    assert_eq!(client.event("conference.ended")["reason"], "deleted");
    client.fails("conference.delete", json!({"conference_id": room}), 1002);

    let room = client.conference(json!({}));
    client.ok("conference.join", json!({"conference_id": room, "connection_id": members[3]}));
    let kept = client.ok("conference.delete", json!({"conference_id": room, "keep_connections": true}));
    assert_eq!(kept["deleted"], json!([]));
    client.ok("connection.get", json!({"connection_id": members[3]}));
}

#[test]
fn operations_play_record_and_stop() {
    let rig = Rig::start(2);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["operation.ended"]}));
    let id = client.connection(json!({}));
    let play = |target: &str, id: &str| json!({"kind": "play", target: id, "files": ["prompt.wav", "prompt.wav"]});
    let record = |path: &str| json!({"kind": "record", "connection_id": id, "path": path});
    let first = client.ok("operation.start", play("connection_id", &id));
    assert_eq!(first["connection_id"], id.as_str());
    let second = client.ok("operation.start", record("a.wav"));
    let running = client.ok("operation.list", json!({"connection_id": id}));
    assert_eq!(running["operations"].as_array().map(Vec::len), Some(2));
    assert_eq!(client.ok("operation.list", json!({})), running);

    // One of them, blocking: its end is told before the answer, and the file is there.
    let params = json!({"connection_id": id, "operation_id": second["operation_id"]});
    let stopped = client.ok("operation.stop", params.clone());
    assert_eq!(stopped["stopped"], json!([second["operation_id"]]));
    assert_eq!((&stopped["effect"]["streams"], &stopped["effect"]["rtp_timestamp"]), (&json!([]), &Value::Null));
    let told = client.events_so_far();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["kind"], &told[0]["condition"]), (&json!("record"), &json!("userstop")));
    let path = told[0]["path"].as_str().expect("a path");
    assert!(path.ends_with("a.wav") && std::path::Path::new(path).exists(), "{path}");
    client.fails("operation.stop", params, 1003);

    // All of them, not blocking.
    assert_eq!(
        client.ok("operation.stop", json!({"connection_id": id, "block": false}))["stopped"],
        json!([first["operation_id"]])
    );
    assert_eq!(client.event("operation.ended")["operation_id"], first["operation_id"]);
    assert_eq!(client.ok("operation.stop", json!({"connection_id": id}))["stopped"], json!([]));

    // On a conference: a temporary id stands for the operation.
    let room = client.conference(json!({}));
    let on_room = client.ok("operation.start", play("conference_id", &room));
    let utility = on_room["connection_id"].as_str().expect("an id");
    assert!(utility.starts_with("util-"));
    client.fails("operation.stop", json!({"connection_id": utility, "operation_id": first["operation_id"]}), 1003);
    client.fails("connection.get", json!({"connection_id": utility}), 1001);
    assert_eq!(
        client.ok("operation.stop", json!({"connection_id": utility}))["stopped"],
        json!([on_room["operation_id"]])
    );
    let ended = client.event("operation.ended");
    assert_eq!((&ended["connection_id"], &ended["conference_id"]), (&json!(utility), &json!(room)));
    client.fails("operation.stop", json!({"connection_id": utility}), 1001);
    client.ok("operation.start", play("conference_id", &room));
    assert_eq!(
        client.ok("operation.stop", json!({"conference_id": room}))["stopped"].as_array().map(Vec::len),
        Some(1)
    );

    // Those of a connection that is deleted.
    client.ok("operation.start", record("b.wav"));
    client.ok("connection.delete", json!({"connection_id": id}));
    let ended = std::iter::repeat_with(|| client.event("operation.ended")).find(|ended| ended["kind"] == "record");
    assert_eq!(ended.expect("told")["condition"], "autostop");
}

#[test]
fn files_that_cant_be_used_change_nothing() {
    let rig = Rig::start(1);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let play = |file: &str| json!({"kind": "play", "connection_id": id, "files": ["prompt.wav", file]});
    assert_eq!(client.fails("operation.start", play("none.wav"), 1009)["path"], "none.wav");
    client.fails("operation.start", play("../../etc/passwd"), 1011);
    client.fails("operation.start", json!({"kind": "record", "connection_id": id, "path": "../x.wav"}), 1011);
    assert_eq!(client.ok("operation.list", json!({}))["operations"], json!([]));
    // A recording that the shard does not take leaves no file.
    rig.world.hold(0);
    let start = client.send("operation.start", json!({"kind": "record", "connection_id": id, "path": "lost.wav"}));
    let file = rig.dir.path().join("state/recordings/lost.wav");
    eventually("the command is sent", || rig.world.waiting(0) == 1);
    assert!(file.exists());
    rig.world.fail(0);
    rig.world.release(0);
    assert_eq!(client.answer(start)["error"]["code"], 1017);
    eventually("the file is gone", || !file.exists());
}

#[test]
fn figures_and_metrics() {
    let address = free_tcp_port();
    let rig = Rig::start_with(2, |config| config.metrics = Some(address));
    let mut client = rig.client();
    client.connection(json!({"shard": 1}));
    let info = client.ok("server.info", json!({}));
    let codecs = ["PCMU", "PCMA", "G722", "opus", "L16/8000", "L16/16000", "L16/48000", "GSM", "G723", "G729"];
    assert_eq!((&info["shards"], &info["codecs"]), (&json!(2), &json!(codecs)));
    let stats = client.ok("server.stats", json!({}));
    let shard = &stats["shards"][1];
    assert_eq!((&shard["shard"], &shard["connections"], &shard["up"]), (&json!(1), &json!(1), &json!(true)));
    assert_eq!(shard["residence_us"]["p50"], 400);
    assert_eq!((&shard["playout"]["late"], &shard["playout"]["delay_ms"]["p50"]), (&json!(3), &json!(55)));
    assert_eq!(shard["drops"]["not_rtp"], 0);
    assert_eq!(shard["io"]["syscalls"], 0);
    assert_eq!(stats["control"]["clients"], 1);
    let text = scrape(address);
    for line in [
        "ringbridge_connections{shard=\"1\"} 1",
        "ringbridge_shard_up{shard=\"0\"} 1",
        "ringbridge_packets_in_total{shard=\"0\"} 11",
        "ringbridge_drops_total{shard=\"1\",reason=\"not_rtp\"} 0",
        "ringbridge_residence_seconds_bucket{le=\"0.0005\",shard=\"0\"} 1",
        "ringbridge_residence_seconds_count{shard=\"0\"} 1",
        "ringbridge_playout_delay_seconds_bucket{le=\"0.04\",shard=\"1\"} 0",
        "ringbridge_playout_delay_seconds_bucket{le=\"0.06\",shard=\"1\"} 1",
        "ringbridge_playout_delay_seconds_sum{shard=\"1\"} 0.055",
        "ringbridge_playout_late_packets_total{shard=\"0\"} 3",
        "ringbridge_playout_underruns_total{shard=\"0\"} 2",
        "ringbridge_playout_stretched_samples_total{shard=\"0\"} 0",
        "ringbridge_control_clients 1",
        "ringbridge_mediacontrol_events_refused_total 0",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}

pub(super) fn scrape(address: std::net::SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("metrics are served");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}
