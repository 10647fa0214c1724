//! A shard that fails.

use serde_json::{Value, json};

use tokio::task::LocalSet;

use super::fake::World;
use super::rig::{Rig, eventually};
use crate::config::{Config, Machine};
use crate::server;

#[test]
fn everybody_is_told_once_and_the_shard_starts_again() {
    let rig = Rig::start(2);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    client.ok("events.subscribe", json!({}));
    let (dies, stays) = (client.connection(json!({"shard": 0})), client.connection(json!({"shard": 1})));
    let guest = client.connection(json!({"shard": 1}));
    let room = client.conference(json!({"shard": 0}));
    client.ok("conference.join", json!({"conference_id": room, "connection_id": guest}));
    let play = json!({"kind": "play", "connection_id": dies, "files": ["prompt.wav"]});
    let playing = client.ok("operation.start", play);
    let recording = client.ok("operation.start", json!({"kind": "record", "conference_id": room, "path": "r.wav"}));
    let other = client.ok("operation.start", json!({"kind": "play", "connection_id": stays, "files": ["prompt.wav"]}));

    client.ok("debug.shard_panic", json!({"shard": 0}));
    let mut told = client.events_so_far();
    while told.last().is_none_or(|event| event["event"] != "shard.failed") {
        told.push(client.read().expect("an event")["params"].clone());
    }
    assert_eq!(told.last().expect("told")["shard"], 0);
    let ended = |name: &str, key: &str| {
        let mut ids: Vec<Value> =
            told.iter().filter(|event| event["event"] == name).map(|event| event[key].clone()).collect();
        ids.sort_by_key(ToString::to_string);
        ids
    };
    let mut operations = [playing["operation_id"].clone(), recording["operation_id"].clone()];
    operations.sort_by_key(ToString::to_string);
    assert_eq!(ended("operation.ended", "operation_id"), operations);
    let mut connections = [json!(dies), json!(guest)];
    connections.sort_by_key(ToString::to_string);
    assert_eq!(ended("connection.ended", "connection_id"), connections);
    assert_eq!(ended("conference.ended", "conference_id"), [json!(room)]);
    assert!(
        told.iter().filter(|event| event["event"] == "connection.ended").all(|event| event["reason"] == "shard_failed")
    );
    let ends = || told.iter().filter(|event| event["event"] == "operation.ended");
    assert!(ends().all(|event| event["condition"] == "error" && event["cause"] == "shard_failed"), "{told:?}");

    for id in [&dies, &guest] {
        client.fails("connection.get", json!({"connection_id": id}), 1001);
    }
    client.fails("conference.get", json!({"conference_id": room}), 1002);
    client.fails("operation.stop", json!({"connection_id": stays, "operation_id": playing["operation_id"]}), 1003);
    // The other shard never noticed.
    assert_eq!(client.ok("operation.stop", json!({"connection_id": stays}))["stopped"], json!([other["operation_id"]]));

    eventually("it is up again", || client.ok("server.stats", json!({}))["shards"][0]["up"] == true);
    let control = client.ok("server.stats", json!({}))["control"].take();
    let in_use =
        control["port_pairs"].as_i64().expect("a number") - control["port_pairs_free"].as_i64().expect("a number");
    assert_eq!(in_use, 1, "only the survivor has ports");
    for _ in 0..100 {
        let id = client.connection(json!({"shard": 0}));
        assert_ne!(id, dies, "an id of before is never used again");
        client.ok("connection.delete", json!({"connection_id": id}));
    }
}

#[test]
fn commands_in_a_failed_shard_are_answered_and_leave_nothing() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({}));
    let (a, b) = (client.connection(json!({"shard": 0})), client.connection(json!({"shard": 1})));
    rig.world.hold(0);
    // Starts of the shard are refused for a while, so that it can be seen down.
    rig.world.refuse_starts(2);
    let create = client.send("connection.create", json!({"shard": 0}));
    let room = client.send("conference.create", json!({"shard": 0}));
    let get = client.send("connection.get", json!({"connection_id": a}));
    let relay = client.send("relay.start", json!({"a": a, "b": b}));
    let list = client.send("connection.list", json!({}));
    client.ok("server.info", json!({}));
    rig.world.fail(0);
    for id in [create, room, get, list] {
        assert_eq!(client.answer(id)["error"]["data"]["kind"], "shard_failed");
    }
    // `b` was on its way to that shard, or had just arrived.
    assert!([1001, 1017].contains(&client.answer(relay)["error"]["code"].as_i64().expect("refused")));
    // What was never taken up ends without an event.
    let mut told = client.events_so_far();
    while told.last().is_none_or(|event| event["event"] != "shard.failed") {
        told.push(client.read().expect("an event")["params"].clone());
    }
    assert_eq!(told.iter().filter(|event| event["event"] == "connection.ended").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|event| event["event"] == "conference.ended").count(), 0);
    rig.world.release(0);
    eventually("it is up again", || rig.world.starts() == 3);
    eventually("its ports are free", || {
        let control = client.ok("server.stats", json!({}))["control"].take();
        control["port_pairs"] == control["port_pairs_free"] && control["commands_in_flight"] == 0
    });
}

#[test]
fn a_second_server_on_the_same_state_does_not_start() {
    let mut rig = Rig::start(1);
    let (state_dir, socket) = (rig.dir.path().join("state"), rig.dir.path().join("second.sock"));
    let second = || {
        let config =
            Config { control_socket: Some(socket.clone()), state_dir: Some(state_dir.clone()), ..Config::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // It is told to stop before it has begun.
        let (_, stops) = tokio::sync::mpsc::channel(1);
        let machine = Machine { cpus: vec![0], files: 65_536 };
        let served = server::run(config, &machine, World::default().starter(), stops, |_, _| {});
        LocalSet::new().block_on(&runtime, served)
    };
    let refused = second().expect_err("refused").to_string();
    assert!(refused.contains(&*state_dir.to_string_lossy()) && refused.contains("--state-dir"), "{refused}");
    // The first one is none the worse, and its end frees the directory.
    rig.client().ok("server.info", json!({}));
    rig.tell_to_stop();
    rig.join().expect("a tidy end");
    second().expect("the directory is free");
}
