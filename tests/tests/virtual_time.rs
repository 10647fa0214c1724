//! The control plane and a shard on virtual time: what the other suites measure in seconds, here to the millisecond.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;

use ringbridge_tests::virtual_time::{PhoneId, VirtualServer, Voice};
use serde_json::{Value, json};

/// A phone and its connection.
fn connect(server: &mut VirtualServer) -> (PhoneId, String, SocketAddr) {
    let phone = server.phone();
    let remote = server.address(phone).to_string();
    let created = server.method("connection.create", json!({ "remote": remote })).unwrap();
    let local = created["local"].as_str().unwrap().parse().unwrap();
    (phone, created["connection_id"].as_str().unwrap().to_owned(), local)
}

fn ended(server: &mut VirtualServer) -> Option<Value> {
    server.method_events().into_iter().find(|event| event["event"] == "operation.ended")
}

#[test]
fn a_prompt_takes_its_own_time() {
    let mut server = VirtualServer::start();
    server.write_tone("tone.wav", 1000, 700);
    let (phone, id, _) = connect(&mut server);
    server.method("operation.start", json!({"connection_id": id, "kind": "play", "files": ["tone.wav"]})).unwrap();
    let began = server.ms();
    let event = server.pass_until("its end", 2_000, ended);
    assert!((680..=740).contains(&(server.ms() - began)), "{}", server.ms() - began);
    assert_eq!((&event["condition"], &event["elapsed_ms"]), (&json!("eod"), &json!(700)));
    assert!(server.at(phone).share(1000, began, began + 700) > 0.9);
}

#[test]
fn a_recording_holds_what_was_said() {
    let mut server = VirtualServer::start();
    let (phone, id, local) = connect(&mut server);
    server.talk(phone, local, Voice::Tone(800));
    let start = json!({"connection_id": id, "kind": "record", "path": "a.wav", "max_time_ms": 60_000});
    server.method("operation.start", start).unwrap();
    let event = server.pass_until("its end", 61_000, ended);
    assert_eq!((&event["condition"], &event["gaps"]), (&json!("maxtime"), &json!(0)));
    let mut file = hound::WavReader::open(server.recording("a.wav")).unwrap();
    let samples: Vec<i16> = file.samples().map(Result::unwrap).collect();
    assert_eq!(samples.len(), 480_000);
    assert!(ringbridge_tests::audio::share(&samples[80_000..], 800) > 0.95);
}

#[test]
fn digits_count_when_they_are_over() {
    let mut server = VirtualServer::start();
    let (phone, _, local) = connect(&mut server);
    server.talk(phone, local, Voice::Silence);
    server.pass(100);
    server.method_events();
    for (digit, over) in "12#".chars().zip(server.press(phone, "12#")) {
        let event = server.pass_until("a digit", 500, |server| {
            server.method_events().into_iter().find(|event| event["event"] == "digit")
        });
        assert_eq!(event["digit"], digit.to_string());
        assert!(server.ms().abs_diff(over) <= 1, "{} instead of {over}", server.ms());
    }
}

#[test]
fn a_call_to_a_shard_that_stands_still_waits() {
    let mut server = VirtualServer::start();
    server.hold();
    let list = server.server.clone();
    let pending = server.begin(async move { list.snapshots().await.len() });
    assert!(!server.is_done(&pending));
    server.release();
    assert_eq!(server.finish(pending), 1);
}
