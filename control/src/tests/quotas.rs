//! Hairpins and their promotion, and what is counted of each class of resources.

use ringbridge_media::event::{EndReason, Event};
use ringbridge_media::id::ConnectionId;
use serde_json::{Value, json};

use super::rig::{Client, Rig, eventually, free_tcp_port};
use crate::quota::{Profile, QuotaConfig};

/// Units in use of rtp, enhanced_rtp, voice and conference.
fn in_use(client: &mut Client) -> [u64; 4] {
    let resources = client.ok("server.stats", json!({}))["resources"].take();
    ["rtp", "enhanced_rtp", "voice", "conference"].map(|class| resources[class]["in_use"].as_u64().expect("a number"))
}

fn denied(client: &mut Client, class: &str) -> Value {
    client.ok("server.stats", json!({}))["resources"][class]["denied"].take()
}

fn join(client: &mut Client, room: &str, id: &str) {
    client.ok("conference.join", json!({"conference_id": room, "connection_id": id}));
}

fn connections(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.connection(json!({}))).collect()
}

fn hairpin(client: &mut Client, room: &str) -> bool {
    client.ok("conference.get", json!({"conference_id": room}))["hairpin"].as_bool().expect("told")
}

fn limited(change: impl FnOnce(&mut QuotaConfig)) -> Rig {
    Rig::start_with(1, |config| {
        change(&mut config.quota);
    })
}

fn promotions(rig: &Rig) -> usize {
    rig.world.log().iter().filter(|entry| entry.ends_with("PromoteConference")).count()
}

#[test]
fn each_kind_of_use_counts_as_documented() {
    let rig = Rig::start(1);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    // One connection, idle.
    let plain = client.connection(json!({}));
    assert_eq!(in_use(&mut client), [1, 0, 0, 0]);
    client.ok("connection.delete", json!({"connection_id": plain}));
    assert_eq!(in_use(&mut client), [0, 0, 0, 0]);
    // One with a codec that is only passed on, playing.
    let enhanced = client.connection(json!({"codec": "G729"}));
    client.ok("operation.start", json!({"kind": "play", "connection_id": enhanced, "files": ["prompt.wav"]}));
    assert_eq!(in_use(&mut client), [1, 1, 1, 0]);
    client.ok("connection.delete", json!({"connection_id": enhanced}));
    assert_eq!(in_use(&mut client), [0, 0, 0, 0]);
    // A hairpin, and the same with a recording of the conference, which promotes it.
    let room = client.conference(json!({"hairpin": true}));
    let members = connections(&mut client, 2);
    members.iter().for_each(|id| join(&mut client, &room, id));
    assert_eq!(in_use(&mut client), [2, 0, 0, 0]);
    let record = client.ok("operation.start", json!({"kind": "record", "conference_id": room}));
    assert_eq!(in_use(&mut client), [2, 0, 1, 3]);
    client.ok("operation.stop", json!({"connection_id": record["connection_id"]}));
    assert_eq!(in_use(&mut client), [2, 0, 0, 2]);
    client.ok("conference.delete", json!({"conference_id": room}));
    assert_eq!(in_use(&mut client), [0, 0, 0, 0]);
    // Three parties and two monitors.
    let room = client.conference(json!({}));
    let members = connections(&mut client, 5);
    members[..3].iter().for_each(|id| join(&mut client, &room, id));
    assert_eq!(in_use(&mut client), [5, 0, 0, 3]);
    for id in &members[3..] {
        client.ok("conference.join", json!({"conference_id": room, "connection_id": id, "role": "monitor"}));
    }
    assert_eq!(in_use(&mut client), [5, 0, 0, 4]);
    // The shared unit goes with the last monitor, that of a party with its connection.
    client.ok("conference.leave", json!({"conference_id": room, "connection_id": members[3]}));
    assert_eq!(in_use(&mut client), [5, 0, 0, 4]);
    client.ok("conference.leave", json!({"conference_id": room, "connection_id": members[4]}));
    assert_eq!(in_use(&mut client), [5, 0, 0, 3]);
    client.ok("connection.delete", json!({"connection_id": members[0]}));
    assert_eq!(in_use(&mut client), [4, 0, 0, 2]);
    client.ok("conference.delete", json!({"conference_id": room, "keep_connections": true}));
    assert_eq!(in_use(&mut client), [4, 0, 0, 0]);
}

#[test]
fn a_hairpin_is_promoted_by_a_third_a_monitor_or_a_role() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    let by_third = |client: &mut Client, third: Value| {
        let room = client.conference(json!({"hairpin": true, "shard": 0}));
        let members = connections(client, 3);
        members[..2].iter().for_each(|id| join(client, &room, id));
        // Some of them live on another shard, and have to move first.
        assert!(hairpin(client, &room));
        let mut params = third;
        params["conference_id"] = json!(room);
        params["connection_id"] = json!(members[2]);
        client.ok("conference.join", params);
        assert!(!hairpin(client, &room));
        client.ok("conference.delete", json!({"conference_id": room}));
    };
    by_third(&mut client, json!({}));
    by_third(&mut client, json!({"role": "monitor"}));
    assert_eq!(promotions(&rig), 2);
    let room = client.conference(json!({"hairpin": true}));
    let members = connections(&mut client, 3);
    join(&mut client, &room, &members[0]);
    // What can be done with a hairpin as it is.
    let both = json!({"conference_id": room, "connection_id": members[0], "muted": true, "tariff_tone": true});
    client.ok("conference.set", both);
    let stranger = json!({"conference_id": room, "connection_id": members[1], "role": "coach"});
    client.fails("conference.set", stranger, 1004);
    assert!(hairpin(&mut client, &room));
    client.ok("conference.set", json!({"conference_id": room, "connection_id": members[0], "muted": false}));
    client.ok("conference.set", json!({"conference_id": room, "connection_id": members[0], "role": "pupil"}));
    assert!(!hairpin(&mut client, &room));
    assert_eq!(in_use(&mut client), [3, 0, 0, 1]);
    let room = client.conference(json!({"hairpin": true}));
    client.ok("conference.join", json!({"conference_id": room, "connection_id": members[1], "role": "coach"}));
    assert!(!hairpin(&mut client, &room));
    assert_eq!((promotions(&rig), in_use(&mut client)), (4, [3, 0, 0, 2]));
}

#[test]
fn pipelined_joins_promote_once_and_a_place_that_came_free_counts() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let room = client.conference(json!({"hairpin": true}));
    let members = connections(&mut client, 5);
    let take = |client: &mut Client, method: &str, id: &str| {
        client.send(method, json!({"conference_id": room, "connection_id": id}))
    };
    rig.world.hold(0);
    let asked = [
        take(&mut client, "conference.join", &members[0]),
        take(&mut client, "conference.join", &members[1]),
        take(&mut client, "conference.leave", &members[0]),
        take(&mut client, "conference.join", &members[2]),
    ];
    rig.world.release(0);
    for id in asked {
        assert!(client.answer(id)["result"]["effect"].is_object());
    }
    assert_eq!((promotions(&rig), in_use(&mut client)), (0, [5, 0, 0, 0]));
    rig.world.hold(0);
    let asked = [3, 4, 0].map(|index: usize| take(&mut client, "conference.join", &members[index]));
    rig.world.release(0);
    for id in asked {
        assert!(client.answer(id)["result"]["effect"].is_object());
    }
    assert_eq!((promotions(&rig), in_use(&mut client)), (1, [5, 0, 0, 5]));
}

#[test]
fn a_promotion_that_fails_leaves_the_hairpin_as_it_was() {
    let rig = limited(|quota| quota.conference = Some(2));
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    let room = client.conference(json!({"hairpin": true}));
    let members = connections(&mut client, 4);
    members[..2].iter().for_each(|id| join(&mut client, &room, id));
    let third = json!({"conference_id": room, "connection_id": members[2]});
    let data = client.fails("conference.join", third.clone(), 1008);
    assert_eq!((&data["resource"], &data["kind"]), (&json!("conference"), &json!("limit_reached")));
    for start in [
        json!({"kind": "play", "conference_id": room, "files": ["prompt.wav"]}),
        json!({"kind": "record", "conference_id": room, "path": "denied.wav"}),
    ] {
        assert_eq!(client.fails("operation.start", start, 1008)["resource"], "conference");
    }
    let file = rig.dir.path().join("state/recordings/denied.wav");
    eventually("no file is left", || !file.exists());
    assert!(hairpin(&mut client, &room));
    assert_eq!((promotions(&rig), in_use(&mut client)), (0, [4, 0, 0, 0]));
    assert_eq!(denied(&mut client, "conference"), 3);
    // Nor is it promoted for who can't join.
    let reserved = client.connection(json!({"reserve_ms": 3_600_000}));
    let wired = connections(&mut client, 2);
    client.ok("relay.start", json!({"a": wired[0], "b": wired[1]}));
    let passed_on = client.connection(json!({"codec": "G729"}));
    for (id, code) in [(&reserved, 1012), (&wired[0], 1005), (&passed_on, 1013), (&members[0], 1005)] {
        client.fails("conference.join", json!({"conference_id": room, "connection_id": id}), code);
    }
    assert!(hairpin(&mut client, &room));
    assert_eq!((promotions(&rig), in_use(&mut client)), (0, [8, 1, 0, 0]));
    for id in [&reserved, &wired[0], &wired[1], &passed_on] {
        client.ok("connection.delete", json!({"connection_id": id}));
    }
    // A role fits: two parties.
    client.ok("conference.set", json!({"conference_id": room, "connection_id": members[0], "role": "coach"}));
    assert_eq!(client.fails("conference.join", third.clone(), 1008)["resource"], "conference");
    client.ok("connection.delete", json!({"connection_id": members[1]}));
    client.ok("conference.join", third);
    assert_eq!(in_use(&mut client), [3, 0, 0, 2]);

    // Somebody who can't be decoded.
    let rig = Rig::start(1);
    let mut client = rig.client();
    let room = client.conference(json!({"hairpin": true}));
    let passed_on: Vec<String> = (0..2).map(|_| client.connection(json!({"codec": "G729"}))).collect();
    passed_on.iter().for_each(|id| join(&mut client, &room, id));
    let third = client.connection(json!({}));
    let both = json!({"conference_id": room, "connection_id": third});
    assert_eq!(client.fails("conference.join", both, 1013)["conference_id"], room.as_str());
    assert!(hairpin(&mut client, &room));
    assert_eq!(in_use(&mut client), [3, 2, 0, 0]);
}

#[test]
fn what_is_denied_takes_nothing_and_says_of_which_class() {
    let address = free_tcp_port();
    let rig = Rig::start_with(1, |config| {
        config.metrics = Some(address);
        config.quota = QuotaConfig { profile: Profile::Sdk, ..QuotaConfig::default() };
    });
    let mut client = rig.client();
    let data = client.fails("connection.create", json!({"codec": "G723"}), 1008);
    assert_eq!((&data["resource"], &data["reason"]), (&json!("enhanced_rtp"), &json!(7)));
    let ids = connections(&mut client, 6);
    let data = client.fails("connection.create", json!({}), 1008);
    assert_eq!((&data["resource"], &data["reason"]), (&json!("rtp"), &Value::Null));
    assert_eq!(in_use(&mut client), [6, 0, 0, 0]);
    assert_eq!(client.ok("server.stats", json!({}))["control"]["port_pairs"], 100);
    for id in &ids {
        client.ok("operation.start", json!({"kind": "tone", "connection_id": id}));
    }
    let seventh = json!({"kind": "tone", "connection_id": ids[0]});
    assert_eq!(client.fails("operation.start", seventh.clone(), 1008)["resource"], "voice");
    client.ok("operation.stop", json!({"connection_id": ids[1]}));
    client.ok("operation.start", seventh);
    // Half of six conferences at once, and none of them has more than six parties.
    let rooms: Vec<String> = (0..3).map(|_| client.conference(json!({}))).collect();
    assert_eq!(client.fails("conference.create", json!({}), 1008)["resource"], "conference");
    let pin = client.conference(json!({"hairpin": true}));
    let coach = json!({"conference_id": pin, "connection_id": ids[0], "role": "coach"});
    assert_eq!(client.fails("conference.join", coach.clone(), 1008)["resource"], "conference");
    client.ok("conference.delete", json!({"conference_id": rooms[0]}));
    client.ok("conference.join", coach);
    let resources = client.ok("server.stats", json!({}))["resources"].take();
    assert_eq!(resources["rtp"], json!({"in_use": 6, "limit": 6, "denied": 1}));
    assert_eq!(resources["enhanced_rtp"], json!({"in_use": 0, "limit": 0, "denied": 1}));
    assert_eq!(resources["voice"], json!({"in_use": 6, "limit": 6, "denied": 1}));
    assert_eq!(resources["conference"], json!({"in_use": 1, "limit": 6, "denied": 2}));
    assert_eq!(resources["tts"], json!({"in_use": 0, "limit": 1, "denied": 0}));
    let text = super::media::scrape(address);
    for line in [
        "ringbridge_resources_in_use{class=\"voice\"} 6",
        "ringbridge_resources_limit{class=\"tts\"} 1",
        "ringbridge_resources_denied_total{class=\"conference\"} 2",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert!(!super::media::scrape(address).contains("resources_limit{class=\"none\"}"));
}

#[test]
fn a_change_of_codec_moves_the_unit() {
    let rig = limited(|quota| quota.enhanced_rtp = Some(1));
    let mut client = rig.client();
    let (one, other) = (client.connection(json!({"codec": "G729"})), client.connection(json!({})));
    assert_eq!(in_use(&mut client), [2, 1, 0, 0]);
    let change = |id: &str, codec: &str| json!({"connection_id": id, "tx_codec": codec});
    assert_eq!(client.fails("connection.modify", change(&other, "G723"), 1008)["reason"], 7);
    assert_eq!(client.ok("connection.get", json!({"connection_id": other}))["tx_codec"], "PCMU");
    // One way is enough to need it, the other way keeps it.
    client.ok("connection.modify", change(&one, "PCMA"));
    client.fails("connection.modify", change(&other, "G723"), 1008);
    client.ok("connection.modify", json!({"connection_id": one, "rx_codec": "PCMA"}));
    assert_eq!(in_use(&mut client), [2, 0, 0, 0]);
    client.ok("connection.modify", change(&other, "G723"));
    client.ok("connection.modify", change(&other, "G729"));
    assert_eq!(in_use(&mut client), [2, 1, 0, 0]);
    client.ok("connection.delete", json!({"connection_id": other}));
    assert_eq!(in_use(&mut client), [1, 0, 0, 0]);
}

#[test]
fn everything_comes_back_when_starts_fail_connections_expire_and_shards_die() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["shard.failed", "connection.ended"]}));
    let id = client.connection(json!({"shard": 0, "codec": "G729", "reserve_ms": 100}));
    client.fails("operation.start", json!({"kind": "tone", "connection_id": id}), 1012);
    let room = client.conference(json!({"shard": 0}));
    client.fails("conference.join", json!({"conference_id": room, "connection_id": id}), 1012);
    client.fails("operation.start", json!({"kind": "play", "connection_id": id, "files": ["none.wav"]}), 1009);
    assert_eq!(in_use(&mut client), [1, 1, 0, 0]);
    let expired = ConnectionId::parse(&id).expect("an id");
    rig.world.say(
        0,
        Event::ConnectionEnded { id: expired, reason: EndReason::Expired, heard: None, quality: Box::default() },
    );
    assert_eq!(client.event("connection.ended")["reason"], "expired");
    assert_eq!(in_use(&mut client), [0, 0, 0, 0]);
    // A member from another shard, an operation on each, and a command that waits while the shard dies.
    let guest = client.connection(json!({"shard": 1}));
    join(&mut client, &room, &guest);
    client.ok("operation.start", json!({"kind": "tone", "conference_id": room}));
    client.ok("operation.start", json!({"kind": "tone", "connection_id": guest}));
    let late = client.connection(json!({"shard": 0}));
    assert_eq!(in_use(&mut client), [2, 0, 2, 2]);
    rig.world.hold(0);
    let waiting = client.send("conference.join", json!({"conference_id": room, "connection_id": late}));
    eventually("the command is sent", || rig.world.waiting(0) == 1);
    rig.world.fail(0);
    rig.world.release(0);
    assert_eq!(client.answer(waiting)["error"]["code"], 1017);
    client.event("shard.failed");
    assert_eq!(in_use(&mut client), [0, 0, 0, 0]);
}

#[test]
fn ends_are_told_before_the_answer_to_a_delete() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["operation.ended"]}));
    for target in ["connection_id", "conference_id"] {
        let (id, room) = (client.connection(json!({})), client.conference(json!({})));
        join(&mut client, &room, &id);
        client.ok("operation.start", json!({"kind": "record", "connection_id": id}));
        client.ok("operation.start", json!({"kind": "gather_digits", "connection_id": id}));
        let which = if target == "connection_id" { &id } else { &room };
        client.ok("connection.delete", json!({target: which}));
        let told = client.events_so_far();
        assert_eq!(told.len(), 2, "{target}");
        assert!(told.iter().all(|event| event["condition"] == "autostop"), "{told:?}");
    }
}
