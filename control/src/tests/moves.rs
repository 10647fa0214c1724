//! Moves on request, and what becomes of them when a shard fails.

use serde_json::{Value, json};

use super::rig::{Client, Rig, eventually};

fn shard_of(client: &mut Client, connection: &str) -> Value {
    client.ok("connection.get", json!({"connection_id": connection}))["shard"].take()
}

fn sorted(mut ids: Vec<Value>) -> Vec<Value> {
    ids.sort_by_key(ToString::to_string);
    ids
}

#[test]
fn a_connection_moves_with_the_other_side_of_its_relay() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let (a, b) = (client.connection(json!({"shard": 0})), client.connection(json!({"shard": 0})));
    client.ok("relay.start", json!({"a": a, "b": b}));
    let moved = client.ok("connection.move", json!({"connection_id": b, "shard": 1}));
    assert_eq!(moved["shard"], 1);
    assert_eq!(sorted(moved["connections"].as_array().expect("ids").clone()), sorted(vec![json!(a), json!(b)]));
    assert_eq!(moved["effect"]["streams"].as_array().expect("stamps").len(), 2);
    for id in [&a, &b] {
        assert_eq!(shard_of(&mut client, id), 1);
    }
    // Where it is already: no effect.
    assert_eq!(client.ok("connection.move", json!({"connection_id": a, "shard": 1})), json!({"shard": 1}));
    client.ok("relay.stop", json!({"a": a}));
    client.ok("connection.move", json!({"connection_id": a, "shard": 0}));
    assert_eq!((shard_of(&mut client, &a), shard_of(&mut client, &b)), (json!(0), json!(1)));
    for id in [&a, &b] {
        client.ok("connection.delete", json!({"connection_id": id}));
    }
    let stats = client.ok("server.stats", json!({}));
    assert_eq!((&stats["shards"][0]["connections"], &stats["shards"][1]["connections"]), (&json!(0), &json!(0)));
}

#[test]
fn a_conference_moves_with_everybody_and_whoever_joins_next_goes_there() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let room = client.conference(json!({"shard": 0}));
    let members: Vec<String> = (0..3).map(|_| client.connection(json!({"shard": 0}))).collect();
    for id in &members {
        client.ok("conference.join", json!({"conference_id": room, "connection_id": id}));
    }
    let refused = client.fails("connection.move", json!({"connection_id": members[1], "shard": 1}), 1005);
    assert_eq!((&refused["conference_id"], &refused["connection_id"]), (&json!(room), &json!(members[1])));
    // Sent without waiting: what names it next finds it where it went.
    rig.world.hold(0);
    let moved = client.send("conference.move", json!({"conference_id": room, "shard": 1}));
    let newcomer = client.connection(json!({"shard": 1}));
    let joined = client.send("conference.join", json!({"conference_id": room, "connection_id": newcomer}));
    let again = client.send("conference.move", json!({"conference_id": room, "shard": 1}));
    rig.world.release(0);
    assert_eq!(client.answer(moved)["result"]["connections"].as_array().expect("ids").len(), 3);
    assert!(client.answer(joined)["result"]["effect"].is_object());
    assert_eq!(client.answer(again)["result"], json!({"shard": 1}));
    let status = client.ok("conference.get", json!({"conference_id": room}));
    assert_eq!((&status["shard"], status["participants"].as_array().expect("members").len()), (&json!(1), 4));
    assert_eq!(client.ok("conference.list", json!({}))["conferences"].as_array().expect("rooms").len(), 1);
    for id in &members {
        assert_eq!(shard_of(&mut client, id), 1);
    }
    let deleted = client.ok("conference.delete", json!({"conference_id": room}));
    assert_eq!(deleted["deleted"].as_array().expect("ids").len(), 4);
    eventually("its first home forgets all of it", || rig.world.forgotten().len() == 4);
}

#[test]
fn what_can_not_be_moved_is_refused_by_name() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let id = client.connection(json!({"shard": 0}));
    let room = client.conference(json!({"shard": 0}));
    assert_eq!(client.fails("connection.move", json!({"connection_id": id, "shard": 2}), -32602)["param"], "shard");
    assert_eq!(client.fails("conference.move", json!({"conference_id": room, "shard": 9}), -32602)["param"], "shard");
    assert_eq!(client.fails("connection.move", json!({"connection_id": id}), -32602)["param"], "shard");
    client.fails("connection.move", json!({"connection_id": "conn-0-99-1", "shard": 1}), 1001);
    client.fails("conference.move", json!({"conference_id": "conf-0-99-1", "shard": 1}), 1002);
    rig.world.refuse_starts(1_000);
    rig.world.fail(1);
    eventually("it is down", || client.ok("server.stats", json!({}))["shards"][1]["up"] == false);
    assert_eq!(client.fails("connection.move", json!({"connection_id": id, "shard": 1}), 1017)["shard"], 1);
    assert_eq!(shard_of(&mut client, &id), 0);
    rig.world.refuse_starts(0);
}

#[test]
fn a_shard_that_fails_in_mid_move_ends_the_move_and_all_that_was_on_its_way_once() {
    for fails in [0, 1] {
        let rig = Rig::start(2);
        let mut client = rig.client();
        client.ok("events.subscribe", json!({}));
        let alone = client.connection(json!({"shard": 0}));
        let room = client.conference(json!({"shard": 0}));
        let member = client.connection(json!({"shard": 0}));
        client.ok("conference.join", json!({"conference_id": room, "connection_id": member}));
        let joiner = client.connection(json!({"shard": 0}));
        let there = client.conference(json!({"shard": 1}));
        rig.world.hold(0);
        let moves = [
            client.send("connection.move", json!({"connection_id": alone, "shard": 1})),
            client.send("conference.move", json!({"conference_id": room, "shard": 1})),
            client.send("conference.join", json!({"conference_id": there, "connection_id": joiner})),
        ];
        // Behind a move: it waits for that, and ends with it.
        let behind = client.send("connection.move", json!({"connection_id": alone, "shard": 0}));
        client.ok("server.info", json!({}));
        rig.world.fail(fails);
        for id in moves {
            let error = &client.answer(id)["error"];
            assert!([1001, 1002, 1017].contains(&error["code"].as_i64().expect("refused")), "{error}");
        }
        assert!([1001, 1017].contains(&client.answer(behind)["error"]["code"].as_i64().expect("refused")));
        let mut told = client.events_so_far();
        while told.last().is_none_or(|event| event["event"] != "shard.failed") {
            told.push(client.read().expect("an event")["params"].clone());
        }
        let ended = |kind: &str, key: &str| {
            let ended = told.iter().filter(|event| event["event"] == kind).map(|event| event[key].clone());
            sorted(ended.collect())
        };
        assert_eq!(
            ended("connection.ended", "connection_id"),
            sorted(vec![json!(alone), json!(member), json!(joiner)])
        );
        let rooms = if fails == 0 { vec![json!(room)] } else { vec![json!(room), json!(there)] };
        assert_eq!(ended("conference.ended", "conference_id"), sorted(rooms));
        eventually("it is up again", || rig.world.starts() == 3);
        rig.world.release(0);
        // What the other shard still held goes too, and nobody is told again.
        eventually("nothing is left", || {
            let stats = client.ok("server.stats", json!({}));
            let shards = stats["shards"].as_array().expect("shards");
            let free = stats["control"]["port_pairs"] == stats["control"]["port_pairs_free"];
            free && stats["control"]["commands_in_flight"] == 0
                && shards.iter().all(|shard| shard["up"] == true && shard["connections"] == 0)
        });
        assert!(client.events_so_far().iter().all(|event| event["event"] != "connection.ended"));
    }
}

#[test]
fn what_makes_a_shard_busy_moves_by_itself_and_is_told() {
    let rig = Rig::start_with(2, |config| config.rebalance.sustain_ms = 1_000);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["shard.moved"]}));
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let (a, b) = (client.connection(json!({"shard": 0})), client.connection(json!({"shard": 0})));
            client.ok("relay.start", json!({"a": a, "b": b}));
            [a, b]
        })
        .collect();
    let room = client.conference(json!({"shard": 0}));
    for _ in 0..2 {
        let member = client.connection(json!({"shard": 0}));
        client.ok("conference.join", json!({"conference_id": room, "connection_id": member}));
    }
    // Of seven parts of the work the conference has two.
    rig.world.keep_busy(0, 0.6);
    let moved = [client.event("shard.moved"), client.event("shard.moved")];
    rig.world.keep_busy(0, 0.3);
    rig.world.keep_busy(1, 0.3);
    assert!(
        moved.iter().all(|told| told["reason"] == "rebalanced" && told["from"] == 0 && told["to"] == 1),
        "{moved:?}"
    );
    assert_eq!(moved[0]["conference_id"], room);
    assert_eq!(moved[1]["connections"].as_array().expect("ids").len(), 2);
    let there: Vec<bool> = calls
        .iter()
        .map(|[a, b]| {
            let both = [shard_of(&mut client, a), shard_of(&mut client, b)];
            assert_eq!(both[0], both[1], "both sides together");
            both[0] == 1
        })
        .collect();
    let stats = client.ok("server.stats", json!({}));
    assert_eq!(there.iter().filter(|there| **there).count(), 1, "{there:?} {moved:?} {}", stats["control"]["moves"]);
    assert_eq!(stats["control"]["moves"], json!({"requested": 0, "rebalanced": 2, "joined": 0, "failed": 0}));
    assert_eq!(stats["shards"][0]["busy"], 0.3);
    // What was asked for is told as well.
    client.ok("connection.move", json!({"connection_id": calls[0][0], "shard": u8::from(!there[0])}));
    assert_eq!(client.event("shard.moved")["reason"], "requested");
}

#[test]
fn nothing_moves_by_itself_if_that_is_switched_off() {
    let rig = Rig::start_with(2, |config| {
        (config.rebalance.enabled, config.rebalance.sustain_ms) = (false, 1_000);
    });
    let mut client = rig.client();
    client.connection(json!({"shard": 0}));
    rig.world.keep_busy(0, 0.9);
    // New connections go to where there is room.
    eventually("the load is known", || {
        client.ok("server.stats", json!({}));
        client.ok("connection.create", json!({}))["shard"] == 1
    });
    assert_eq!(client.ok("server.stats", json!({}))["control"]["moves"]["rebalanced"], 0);
}
