//! What happens when something is full, and to clients that misbehave.

use std::thread;

use serde_json::{Value, json};

use super::rig::{Rig, eventually, free_ports};
use crate::router::ORDINARY_IN_FLIGHT_MAX;

#[test]
fn a_full_mailbox_is_busy_and_deletes_still_get_through() {
    let rig = Rig::start(1);
    let mut first = rig.client();
    let (id, kept) = (first.connection(json!({})), first.connection(json!({})));
    rig.world.hold(0);
    // More than the lane takes, from clients none of which is too busy itself.
    let each = 1000;
    let mut crowd: Vec<_> = (0..=ORDINARY_IN_FLIGHT_MAX / each).map(|_| rig.client()).collect();
    let mut refused = 0;
    for client in &mut crowd {
        for _ in 0..each {
            client.send("connection.get", json!({"connection_id": kept}));
        }
        // Requests are taken in order: when this is answered, all before it are in the mailbox or refused.
        let last = client.send("server.info", json!({}));
        loop {
            let answer = client.read().expect("an answer");
            if answer["id"] == last {
                break;
            }
            assert_eq!(answer["error"]["code"], 1006);
            refused += 1;
        }
    }
    assert_eq!(refused, crowd.len() * each - ORDINARY_IN_FLIGHT_MAX);
    assert_eq!(first.fails("connection.create", json!({}), 1006)["kind"], "busy");
    assert_eq!(first.fails("connection.get", json!({"connection_id": id}), 1006)["shard"], 0);
    let delete = first.send("connection.delete", json!({"connection_id": id}));
    rig.world.release(0);
    assert!(first.answer(delete)["result"]["effect"].is_object());
    let mut answered = 0;
    while answered < ORDINARY_IN_FLIGHT_MAX {
        let client = &mut crowd[answered / each];
        assert!(client.read().expect("an answer")["error"].is_null());
        answered += 1;
    }
    // What was refused has left nothing behind.
    assert_eq!(first.ok("connection.list", json!({}))["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(ports_in_use(&rig), 1);
}

fn ports_in_use(rig: &Rig) -> i64 {
    let control = rig.client().ok("server.stats", json!({}))["control"].take();
    control["port_pairs"].as_i64().expect("a number") - control["port_pairs_free"].as_i64().expect("a number")
}

#[test]
fn ports_run_out_and_come_back() {
    let rig = Rig::start_with(1, |config| config.ports = free_ports(6));
    let mut client = rig.client();
    let ids: Vec<String> = (0..3).map(|_| client.connection(json!({"remote": "127.0.0.1:4000"}))).collect();
    assert_eq!(client.fails("connection.create", json!({}), 1007)["kind"], "out_of_ports");
    client.ok("connection.delete", json!({"connection_id": ids[1]}));
    let next = client.connection(json!({}));
    assert_ne!(next, ids[1]);
    // Who was heard on the pair before is barred on it now.
    assert_eq!(rig.world.spec(&next).barred, Some(("127.0.0.1:4000".parse().expect("an address"), 4711)));
    client.fails("connection.create", json!({}), 1007);
    assert_eq!(ports_in_use(&rig), 3);
}

#[test]
fn a_client_that_vanishes_leaves_its_command_to_its_end() {
    let rig = Rig::start(1);
    rig.world.hold(0);
    let mut client = rig.client();
    client.send("connection.create", json!({"label": "orphan"}));
    // Read and dispatched: this answer comes after it.
    client.ok("server.info", json!({}));
    drop(client);
    rig.world.release(0);
    let mut other = rig.client();
    eventually("the connection is there", || {
        other.ok("connection.list", json!({}))["connections"][0]["label"] == "orphan"
    });
    let id = other.ok("connection.list", json!({}))["connections"][0]["connection_id"].clone();
    other.ok("connection.delete", json!({"connection_id": id}));
    eventually("its ports are free", || ports_in_use(&rig) == 0);
}

#[test]
fn a_client_that_never_reads_is_disconnected_and_nobody_else_notices() {
    let rig = Rig::start(1);
    let mut other = rig.client();
    let id = other.connection(json!({}));
    let mut deaf = rig.client();
    let flood = thread::spawn(move || {
        // Ends when the server has closed the connection.
        while deaf.try_line(r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#).is_ok() {}
    });
    eventually("it is disconnected", || other.ok("server.stats", json!({}))["control"]["clients_disconnected"] == 1);
    flood.join().expect("no panic");
    assert_eq!(other.ok("connection.get", json!({"connection_id": id}))["state"], "idle");
}

#[test]
fn a_flood_of_pipelined_requests_is_answered_to_the_last() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let mut writer = rig.client();
    let rounds = 5000;
    let last = thread::scope(|scope| {
        let ask = scope.spawn(move || {
            let mut last = 0;
            for _ in 0..rounds {
                // A question with a short answer: all of them fit into what may wait.
                last = writer.send("operation.list", json!({"connection_id": id}));
            }
            writer.shut_down_sending();
            let mut answers = 0;
            while let Some(answer) = writer.read() {
                assert!(answer["error"].is_null() || answer["error"]["code"] == 1006, "{answer}");
                answers += 1;
            }
            assert_eq!(answers, rounds);
            last
        });
        ask.join().expect("no panic")
    });
    assert_eq!(last, rounds);
}

#[test]
fn draining_refuses_and_counts() {
    let rig = Rig::start(1);
    let (mut client, mut waiting) = (rig.client(), rig.client());
    let id = client.connection(json!({}));
    assert_eq!(client.ok("server.drain", json!({}))["connections"], 1);
    assert_eq!(client.fails("connection.create", json!({}), 1014)["kind"], "draining");
    assert_eq!(client.ok("server.drain", json!({"deadline_ms": 1}))["connections"], 1);
    // Everything else goes on.
    client.ok("connection.get", json!({"connection_id": id}));
    let drain = waiting.send("server.drain", json!({"deadline_ms": 3_600_000}));
    client.ok("connection.delete", json!({"connection_id": id}));
    assert_eq!(waiting.answer(drain)["result"]["connections"], 0);
    assert_eq!(client.ok("server.info", json!({}))["draining"], true);
}

#[test]
fn told_to_stop_the_server_drains_then_tells_everybody() {
    let mut rig = Rig::start_with(2, |config| config.drain_deadline_ms = 3_600_000);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({}));
    let (first, second) = (client.connection(json!({})), client.connection(json!({})));
    rig.tell_to_stop();
    let mut refused = Value::Null;
    eventually("new connections are refused", || {
        refused = client.ask("connection.create", json!({}));
        refused["error"]["code"] == 1014
    });
    let list = client.ok("connection.list", json!({}));
    for connection in list["connections"].as_array().expect("a list") {
        client.ok("connection.delete", json!({"connection_id": connection["connection_id"]}));
    }
    while client.read().is_some() {}
    rig.join().expect("a tidy end");
    assert!(!rig.socket_exists());
    assert_ne!(first, second);
}

#[test]
fn told_twice_the_server_waits_for_nobody() {
    let mut rig = Rig::start_with(1, |config| config.drain_deadline_ms = 3_600_000);
    let mut client = rig.client();
    client.connection(json!({}));
    rig.tell_to_stop();
    eventually("it drains", || client.ok("server.info", json!({}))["draining"] == true);
    rig.tell_to_stop();
    rig.join().expect("a tidy end");
}

#[test]
fn what_is_left_at_the_deadline_is_ended_with_one_event_each() {
    let mut rig = Rig::start(2);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({}));
    let id = client.connection(json!({}));
    let room = client.conference(json!({}));
    let start = client.ok("operation.start", json!({"kind": "record", "connection_id": id, "path": "x.wav"}));
    rig.tell_to_stop();
    let mut told = Vec::new();
    while let Some(message) = client.read() {
        told.push(message["params"].clone());
    }
    rig.join().expect("a tidy end");
    let told = |name: &str| told.iter().filter(|event| event["event"] == name).cloned().collect::<Vec<_>>();
    let operations = told("operation.ended");
    assert_eq!(operations.len(), 1);
    assert_eq!(
        (&operations[0]["operation_id"], &operations[0]["condition"]),
        (&start["operation_id"], &json!("autostop"))
    );
    let expected = json!({"event": "connection.ended", "connection_id": id, "reason": "shutdown"});
    assert_eq!(told("connection.ended"), [expected]);
    let expected = json!({"event": "conference.ended", "conference_id": room, "reason": "shutdown"});
    assert_eq!(told("conference.ended"), [expected]);
}
