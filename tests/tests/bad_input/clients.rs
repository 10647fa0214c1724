//! Clients of the control socket that vanish, do not read, or ask for a thousand things at once.

use std::collections::BTreeSet;

use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::Server;
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::setup;

/// Memory of the server that is not in files, in KiB.
fn memory_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn who_vanishes_in_the_middle_leaves_no_trace() {
    let server = setup().pairs(4).start();
    for round in 0..20 {
        let mut half = server.connect_raw();
        half.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"meth");
        drop(half);
        // This one is carried out to its end, answer or not.
        let mut whole = server.connect_raw();
        whole.request(1, "connection.create", json!({"label": round.to_string()}));
        drop(whole);
        let id = until("the connection that nobody waits for", || {
            let list = server.ok("connection.list", json!({}));
            list["connections"][0]["connection_id"].as_str().map(str::to_owned)
        });
        server.ok("connection.delete", json!({"connection_id": id}));
        until("the free pairs", || (server.pairs_free() == 4).then_some(()));
    }
    until("the clients to be gone", || {
        (server.ok("server.stats", Value::Null)["control"]["clients"] == 1).then_some(())
    });
    server.stop();
}

#[test]
fn who_never_reads_is_disconnected_and_media_goes_on() {
    let server = setup().pairs(2).start();
    let ends = [Endpoint::open(), Endpoint::open()];
    let legs = [&ends[0], &ends[1]].map(|end| server.create(json!({"remote": end.address().to_string()})));
    server.ok("relay.start", json!({"a": legs[0].id, "b": legs[1].id}));
    let speaker = ends[0].speak(legs[0].local, Speech::new(1), |_| 500);
    ends[1].until("the call", |heard| (heard.len() > 3).then_some(()));
    let before = memory_kib(&server);
    let mut deaf = server.connect_raw();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}).to_string() + "\n";
    let many = request.repeat(50);
    until("the client that does not read to be disconnected", || {
        let sent = deaf.try_send(many.as_bytes());
        let disconnected = &server.ok("server.stats", Value::Null)["control"]["clients_disconnected"];
        (!sent || disconnected.as_u64() > Some(0)).then_some(())
    });
    let after = memory_kib(&server);
    assert!(after < before + 48 * 1024, "{before} KiB have become {after} KiB");
    let sent = speaker.stop();
    ends[1].until("the last packet", |heard| (heard.last() == sent.last()).then_some(()));
    assert!(ends[1].heard() == sent, "the call has lost packets");
    assert!(deaf.is_closed());
    server.stop();
}

#[test]
fn a_thousand_requests_at_once_are_all_answered() {
    let server = setup().pairs(2).start();
    let leg = server.create(json!({}));
    let mut client = server.connect_raw();
    let mut lines = String::new();
    for id in 0..1000 {
        let (method, params) = match id % 4 {
            0 => ("server.info", json!({})),
            1 => ("connection.get", json!({"connection_id": leg.id})),
            2 => ("connection.get", json!({"connection_id": "nobody"})),
            _ => ("no.such.method", json!({})),
        };
        lines += &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        lines.push('\n');
    }
    client.send(lines.as_bytes());
    let mut seen = BTreeSet::new();
    for _ in 0..1000 {
        let answer = client.line();
        let id = answer["id"].as_u64().unwrap();
        assert!(seen.insert(id), "{answer}");
        match id % 4 {
            0 => assert_eq!(answer["result"]["name"], "ringbridge"),
            1 => assert_eq!(answer["result"]["connection_id"], leg.id),
            2 => assert_eq!(answer["error"]["code"], 1001),
            _ => assert_eq!(answer["error"]["code"], -32601),
        }
    }
    server.stop();
}

#[test]
fn requests_about_one_id_take_effect_in_the_order_sent() {
    let server = setup().pairs(2).start();
    let leg = server.create(json!({}));
    let mut client = server.connect_raw();
    let get = json!({"jsonrpc": "2.0", "id": 1, "method": "connection.get", "params": {"connection_id": leg.id}});
    let delete = json!({"jsonrpc": "2.0", "id": 2, "method": "connection.delete", "params": {"connection_id": leg.id}});
    let stale = json!({"jsonrpc": "2.0", "id": 3, "method": "connection.get", "params": {"connection_id": leg.id}});
    client.send(format!("{get}\n{delete}\n{stale}\n").as_bytes());
    let mut answers: Vec<Value> = (0..3).map(|_| client.line()).collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["result"]["state"], "idle");
    assert_eq!(answers[1]["result"]["deleted"], json!([leg.id]));
    assert_eq!(answers[2]["error"]["code"], 1001);
    server.stop();
}

#[test]
fn a_batch_that_starts_and_stops_an_operation_is_answered() {
    let server = setup().pairs(2).start();
    let leg = server.create(json!({}));
    let mut client = server.connect_raw();
    let start = json!({
        "jsonrpc": "2.0", "id": 1, "method": "operation.start",
        "params": {"kind": "record", "connection_id": leg.id, "path": "batch.wav"},
    });
    // Blocks until the end of what the other part of the batch has started.
    let stop = json!({"jsonrpc": "2.0", "id": 2, "method": "operation.stop", "params": {"connection_id": leg.id}});
    client.send(format!("[{start},{stop}]\n").as_bytes());
    let answers = client.line();
    assert!(answers[0]["result"]["operation_id"].is_string(), "{answers}");
    assert_eq!(answers[1]["result"]["stopped"], json!([answers[0]["result"]["operation_id"]]), "{answers}");
    server.stop();
}
