//! Ports: a tiny range, used up, given back, used again.

use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::{Events, Leg};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::{connect, setup};

#[test]
fn exhaustion_is_told_and_nothing_leaks() {
    let server = setup().pairs(3).start();
    let range = server.ports();
    for _ in 0..60 {
        let legs: Vec<Leg> = (0..3).map(|_| server.create(json!({}))).collect();
        for leg in &legs {
            assert!(leg.local.port() % 2 == 0 && leg.local_rtcp.port() == leg.local.port() + 1);
            assert!(range.contains(&leg.local.port()) && range.contains(&leg.local_rtcp.port()));
        }
        let refused = server.refused("connection.create", json!({}));
        assert_eq!((refused.code, &refused.data.unwrap()["kind"]), (1007, &json!("out_of_ports")));
        for leg in &legs {
            assert_eq!(server.ok("connection.delete", json!({"connection_id": leg.id}))["deleted"], json!([leg.id]));
            // A stale id stays unknown whoever has the slot now.
            assert_eq!(server.refused("connection.get", json!({"connection_id": leg.id})).code, 1001);
        }
        until("three free pairs", || (server.pairs_free() == 3).then_some(()));
    }
    assert_eq!(server.figure("/connections"), 0);
    server.stop();
}

#[test]
fn the_previous_caller_never_moves_the_target_of_a_reused_port() {
    let server = setup().pairs(1).start();
    let mut events = Events::follow(&server);
    let old = Endpoint::open();
    let first = server.create(json!({}));
    // It goes on and on, as a caller does who has not noticed that he was cut off.
    let speaker = old.speak(first.local, Speech::new(0x01D), |_| 1000);
    events.wait("connection.learned", "connection_id", &first.id);
    server.ok("connection.delete", json!({"connection_id": first.id}));
    until("the free pair", || (server.pairs_free() == 1).then_some(()));

    let second = server.create(json!({}));
    assert_eq!(second.local, first.local);
    until("packets of the old caller at the new connection", || (server.figure("/drops/barred") >= 5).then_some(()));
    assert_eq!(server.get(&second.id)["learned"], Value::Null);
    let new = Endpoint::open();
    let new_speaker = new.speak(second.local, Speech::new(0x11E3), |_| 1000);
    let learned = events.wait("connection.learned", "connection_id", &second.id);
    assert_eq!(learned["remote"], new.address().to_string());
    let barred = || server.figure("/drops/barred") + server.figure("/drops/foreign_source");
    let before = barred();
    // Once learned the socket is connected, and the kernel may drop the old caller uncounted.
    new.until("some time to pass by packets", |_| {
        (server.get(&second.id)["counters"]["packets_in"].as_u64() >= Some(20)).then_some(())
    });
    assert!(barred() >= before);
    assert_eq!(server.get(&second.id)["learned"], new.address().to_string());
    drop((speaker.stop(), new_speaker.stop()));
    server.stop();
}

#[test]
fn the_same_ports_are_there_at_once_after_a_restart() {
    let mut server = setup().pairs(2).start();
    for _ in 0..3 {
        let pair = [connect(&server, json!({})), connect(&server, json!({}))];
        server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id}));
        let speakers = [0, 1].map(|n| pair[n].0.speak(pair[n].1.local, Speech::new(n as u32 + 1), |_| 700));
        for (endpoint, _) in &pair {
            endpoint.until("the other", |heard| (heard.len() > 5).then_some(()));
        }
        // Told to end while both speak.
        server.restart();
        drop(speakers.map(ringbridge_tests::endpoint::Speaker::stop));
        assert_eq!(server.pairs_free(), 2);
    }
    server.stop();
}

#[test]
fn a_drained_server_takes_no_more_and_says_when_it_is_empty() {
    let server = setup().start();
    let ((a, leg_a), (b, leg_b)) = (connect(&server, json!({})), connect(&server, json!({})));
    assert_eq!(server.ok("server.drain", json!({}))["connections"], 2);
    let refused = server.refused("connection.create", json!({}));
    assert_eq!((refused.code, &refused.data.unwrap()["kind"]), (1014, &json!("draining")));
    assert_eq!(server.ok("server.info", Value::Null)["draining"], true);
    // What is there goes on.
    server.ok("relay.start", json!({"a": leg_a.id, "b": leg_b.id}));
    let sent = a.speak_to(leg_a.local, Speech::new(1), 5, |_| 300).join();
    b.until("a", |heard| (heard == sent).then_some(()));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| server.connect().call("server.drain", &json!({"deadline_ms": 60_000})).unwrap());
        server.ok("connection.delete", json!({"connection_id": leg_a.id}));
        server.ok("connection.delete", json!({"connection_id": leg_b.id}));
        assert_eq!(waits.join().unwrap()["connections"], 0);
    });
    server.stop();
}
