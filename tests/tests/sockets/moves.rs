//! Connections, relays and conferences move between shards on request, in mid-stream.

use ringbridge_tests::audio::{Codec, tone, write_wav};
use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::{Events, Leg, Server, text};
use ringbridge_tests::until;
use ringbridge_wire::rtp::RtpPacket;
use serde_json::{Value, json};

use crate::{connect, setup};

/// Moves something back and forth, ending where it began; goes on when `then` has come true.
fn shuttle(server: &Server, what: &str, id: &str, times: usize, then: impl Fn()) {
    for n in 0..2 * times {
        let to = 1 - n % 2;
        let moved = server.ok(&format!("{what}.move"), json!({format!("{what}_id"): id, "shard": to}));
        assert_eq!(moved["shard"], to);
        assert!(!moved["effect"]["streams"].as_array().unwrap().is_empty());
        then();
    }
}

/// Waits until an endpoint has heard so many packets more, or all that there are.
fn hear(endpoint: &Endpoint, more: usize, all: usize) {
    let enough = (endpoint.heard_packets() + more).min(all);
    until("more to be heard", || (endpoint.heard_packets() >= enough).then_some(()));
}

/// Checks that a stream of the server's own has no gap in numbers or time; the samples.
fn samples_of(packets: &[Vec<u8>]) -> Vec<i16> {
    let parsed: Vec<_> = packets.iter().map(|packet| RtpPacket::parse(packet).unwrap()).collect();
    for pair in parsed.windows(2) {
        assert_eq!(pair[1].ssrc(), pair[0].ssrc());
        assert_eq!(pair[1].sequence_number(), pair[0].sequence_number().next(), "a packet is missing or came twice");
        let len = pair[0].payload().len() as u32;
        assert_eq!(pair[1].timestamp(), pair[0].timestamp().wrapping_add(len), "a hole in time");
    }
    parsed.iter().flat_map(|packet| Codec::Pcmu.decode(packet.payload())).collect()
}

#[test]
fn calls_at_their_own_pace_lose_nothing_however_often_they_move() {
    let server = setup().shards(2).pairs(16).start();
    let calls: Vec<[(Endpoint, Leg); 2]> = (0..6)
        .map(|_| {
            let pair = [0, 1].map(|_| connect(&server, json!({"shard": 0})));
            server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id}));
            pair
        })
        .collect();
    let speakers: Vec<_> = calls
        .iter()
        .flatten()
        .enumerate()
        .map(|(n, (endpoint, leg))| endpoint.speak(leg.local, Speech::new(n as u32 + 1), |index| index as i16))
        .collect();
    for (endpoint, _) in calls.iter().flatten() {
        endpoint.until("the other", |heard| (heard.len() > 5).then_some(()));
    }
    for round in 0..5 {
        for (n, call) in calls.iter().enumerate() {
            let (endpoint, leg) = &call[(round + n) % 2];
            shuttle(&server, "connection", &leg.id, 1, || hear(endpoint, 1, usize::MAX));
        }
    }
    let mut sent: Vec<_> = speakers.into_iter().map(ringbridge_tests::endpoint::Speaker::stop).collect();
    for pair in calls.iter().rev() {
        let (from_b, from_a) = (sent.pop().unwrap(), sent.pop().unwrap());
        for ((endpoint, _), said) in pair.iter().zip([from_b, from_a]) {
            endpoint.until("the last packet", |heard| (heard.len() >= said.len()).then_some(()));
            assert!(endpoint.heard() == said, "once, in order, as it was said");
        }
    }
    assert_eq!(server.figure("/drops/receive_buffer_full") + server.figure("/drops/closed_port"), 0);
    server.stop();
}

#[test]
fn a_prompt_goes_on_while_its_connection_moves() {
    const PACKETS: usize = 150;
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let prompt: Vec<i16> = (0..160 * PACKETS).map(|index| tone(450, 8000, index)).collect();
    write_wav(&server.prompt("long.wav"), &prompt);
    let (endpoint, leg) = connect(&server, json!({"shard": 0}));
    let play = json!({"kind": "play", "connection_id": leg.id, "files": ["long.wav"]});
    let operation = text(&server.ok("operation.start", play)["operation_id"]);
    endpoint.until("the prompt", |heard| (heard.len() > 5).then_some(()));
    shuttle(&server, "connection", &leg.id, 8, || hear(&endpoint, 1, PACKETS));
    let ended = events.wait("operation.ended", "operation_id", &operation);
    assert_eq!((&ended["condition"], &ended["elapsed_ms"]), (&json!("eod"), &json!(20 * PACKETS)));
    endpoint.until("the rest", |heard| (heard.len() >= PACKETS).then_some(()));
    let expected = Codec::Pcmu.decode(&Codec::Pcmu.encode(&prompt));
    assert!(samples_of(&endpoint.heard()) == expected, "every sample of the prompt once");
    server.stop();
}

#[test]
fn a_conference_moves_while_three_talk_and_it_is_recorded() {
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let room = text(&server.ok("conference.create", json!({"shard": 0}))["conference_id"]);
    let members: Vec<_> = (0..3).map(|_| connect(&server, json!({"shard": 0}))).collect();
    let speakers: Vec<_> = members
        .iter()
        .enumerate()
        .map(|(n, (endpoint, leg))| {
            server.ok("conference.join", json!({"conference_id": room, "connection_id": leg.id}));
            let hz = 300 + 200 * n as u32;
            endpoint.speak(leg.local, Speech::new(n as u32 + 1), move |index| tone(hz, 8000, index))
        })
        .collect();
    let record = json!({"kind": "record", "conference_id": room, "path": "room.wav"});
    let operation = text(&server.ok("operation.start", record)["operation_id"]);
    for (endpoint, _) in &members {
        endpoint.until("the mix", |heard| (heard.len() > 10).then_some(()));
    }
    shuttle(&server, "conference", &room, 6, || members.iter().for_each(|(endpoint, _)| hear(endpoint, 2, usize::MAX)));
    for (_, leg) in &members {
        assert_eq!(server.get(&leg.id)["shard"], 0);
    }
    let stopped = server.ok("operation.stop", json!({"conference_id": room}));
    assert_eq!(stopped["stopped"], json!([operation]));
    let ended = events.wait("operation.ended", "operation_id", &operation);
    // It lasts as long as the conference's clock has gone on, to the frame.
    let reader = hound::WavReader::open(server.recording("room.wav")).unwrap();
    assert_eq!(u64::from(reader.duration()), ended["elapsed_ms"].as_u64().unwrap() * 8);
    let sent: usize = speakers.into_iter().map(|speaker| speaker.stop().len()).sum();
    for (endpoint, _) in &members {
        assert!(samples_of(&endpoint.heard()).len() >= 8 * 360);
    }
    until("every packet to be counted", || {
        let counted: u64 = members
            .iter()
            .map(|(_, leg)| server.get(&leg.id)["counters"]["packets_in"].as_u64().unwrap_or_default())
            .sum();
        (counted >= sent as u64).then_some(())
    });
    server.stop();
}

#[test]
fn deletes_and_stops_that_race_with_a_move_are_answered_once_and_end_everything_once() {
    const ROUNDS: u64 = 40;
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    write_wav(&server.prompt("long.wav"), &vec![500; 80_000]);
    let (mut one, mut two) = (server.connect_raw(), server.connect_raw());
    for round in 0..ROUNDS {
        let room = text(&server.ok("conference.create", json!({"shard": 0}))["conference_id"]);
        let (alone, member) = (connect(&server, json!({"shard": 0})), connect(&server, json!({"shard": 0})));
        server.ok("conference.join", json!({"conference_id": room, "connection_id": member.1.id}));
        let on = [json!({"connection_id": alone.1.id}), json!({"conference_id": room})];
        let operations = on.map(|mut params| {
            params["kind"] = "play".into();
            params["files"] = json!(["long.wav"]);
            text(&server.ok("operation.start", params)["operation_id"])
        });
        one.request(4 * round, "connection.move", json!({"connection_id": alone.1.id, "shard": 1}));
        one.request(4 * round + 1, "conference.move", json!({"conference_id": room, "shard": 1}));
        if round % 2 == 0 {
            two.request(4 * round + 2, "operation.stop", json!({"connection_id": alone.1.id}));
        } else {
            two.request(4 * round + 2, "connection.delete", json!({"connection_id": member.1.id}));
        }
        two.request(4 * round + 3, "connection.delete", json!({"connection_id": alone.1.id}));
        let mut answers: Vec<Value> = [&mut one, &mut two].into_iter().flat_map(|it| [it.line(), it.line()]).collect();
        answers.sort_by_key(|answer| answer["id"].as_u64());
        assert!(answers.iter().map(|answer| answer["id"].as_u64().unwrap()).eq(4 * round..4 * round + 4));
        // A move that comes too late finds nothing; what ends something is never refused.
        for (answer, unknown) in answers[..2].iter().zip([1001, 1002]) {
            assert!(answer["error"].is_null() || answer["error"]["code"] == unknown, "{answer}");
        }
        assert!(answers[2..].iter().all(|answer| answer["error"].is_null()), "{answers:?}");
        if round % 2 == 0 {
            server.ok("conference.delete", json!({"conference_id": room}));
        }
        events.settle();
        for operation in operations {
            events.wait("operation.ended", "operation_id", &operation);
            assert_eq!(events.of("operation.ended", "operation_id", &operation).len(), 1);
        }
        for id in [&alone.1.id, &member.1.id] {
            events.wait("connection.ended", "connection_id", id);
            assert_eq!(events.of("connection.ended", "connection_id", id).len(), 1);
        }
        events.wait("conference.ended", "conference_id", &room);
        assert_eq!(events.of("conference.ended", "conference_id", &room).len(), 1);
    }
    until("all ports to be free", || {
        let control = server.ok("server.stats", json!({}))["control"].take();
        (control["port_pairs"] == control["port_pairs_free"]).then_some(())
    });
    server.stop();
}

#[test]
fn a_shard_that_fails_while_much_moves_ends_what_was_on_it_once() {
    for doomed in [0, 1] {
        let server = setup().shards(2).pairs(16).with_panics().start();
        let mut events = Events::follow(&server);
        let legs: Vec<_> = (0..12).map(|_| connect(&server, json!({"shard": 0}))).collect();
        let stays = connect(&server, json!({"shard": 1 - doomed}));
        for pair in legs[..8].chunks(2) {
            server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id}));
        }
        let (mut one, mut two) = (server.connect_raw(), server.connect_raw());
        for (n, (_, leg)) in legs.iter().enumerate() {
            one.request(n as u64, "connection.move", json!({"connection_id": leg.id, "shard": 1}));
        }
        two.request(0, "debug.shard_panic", json!({"shard": doomed}));
        assert!(two.line()["error"].is_null());
        let mut answered: Vec<u64> = Vec::new();
        for _ in &legs {
            let answer = one.line();
            let code = answer["error"]["code"].as_i64();
            assert!(code.is_none_or(|code| [1001, 1006, 1017].contains(&code)), "{answer}");
            answered.push(answer["id"].as_u64().unwrap());
        }
        answered.sort_unstable();
        assert!(answered.into_iter().eq(0..legs.len() as u64), "each once");
        events.wait("shard.failed", "event", "shard.failed");
        let is_known = |id: &str| server.client().call("connection.get", &json!({"connection_id": id})).is_ok();
        for (_, leg) in &legs {
            // What lives goes on, what was lost was told once.
            let told = events.of("connection.ended", "connection_id", &leg.id).len();
            assert_eq!(told, usize::from(!is_known(&leg.id)), "{}", leg.id);
            if told == 0 {
                server.ok("connection.delete", json!({"connection_id": leg.id}));
            }
        }
        assert!(is_known(&stays.1.id));
        server.ok("connection.delete", json!({"connection_id": stays.1.id}));
        until("all ports to be free", || {
            let stats = server.ok("server.stats", json!({}));
            let free = stats["control"]["port_pairs"] == stats["control"]["port_pairs_free"];
            (free && stats["shards"].as_array()?.iter().all(|shard| shard["connections"] == 0)).then_some(())
        });
        server.stop();
    }
}
