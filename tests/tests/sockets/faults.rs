//! A shard that fails, a server that is ended while it is busy.

use hound::{SampleFormat, WavSpec, WavWriter};
use ringbridge_tests::audio::tone;
use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::server::{Events, Leg, Server, text};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::{connect, setup};

/// The first shard with everything on it: a relay that speaks, a conference, a play and a recording.
struct Business {
    legs: Vec<(Endpoint, Leg)>,
    room: String,
    operations: Vec<String>,
    speakers: Vec<Speaker>,
}

impl Business {
    fn open(server: &Server, recording: &str) -> Self {
        let prompt = server.prompt("long.wav");
        let spec = WavSpec { channels: 1, sample_rate: 8000, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let mut wav = WavWriter::create(prompt, spec).unwrap();
        (0..160_000).for_each(|index| wav.write_sample(tone(400, 8000, index)).unwrap());
        wav.finalize().unwrap();
        let legs: Vec<_> = (0..4).map(|_| connect(server, json!({"shard": 0}))).collect();
        server.ok("relay.start", json!({"a": legs[0].1.id, "b": legs[1].1.id}));
        let room = text(&server.ok("conference.create", json!({"shard": 0}))["conference_id"]);
        for (_, leg) in &legs[2..] {
            server.ok("conference.join", json!({"conference_id": room, "connection_id": leg.id}));
        }
        let speakers = legs.iter().zip(1..).map(|((endpoint, leg), n)| {
            endpoint.speak(leg.local, Speech::new(n), move |index| tone(300 * n, 8000, index))
        });
        let speakers = speakers.collect();
        let start = |params: Value| text(&server.ok("operation.start", params)["operation_id"]);
        let operations = vec![
            start(json!({"kind": "play", "conference_id": room, "files": ["long.wav"]})),
            start(json!({"kind": "record", "connection_id": legs[2].1.id, "path": recording})),
        ];
        for (endpoint, _) in &legs {
            endpoint.until("media", |heard| (heard.len() > 5).then_some(()));
        }
        Self { legs, room, operations, speakers }
    }

    /// Waits until everything is told to have ended, each thing once.
    fn ended(&self, events: &mut Events, reason: &str, condition: &str) {
        for (_, leg) in &self.legs {
            assert_eq!(events.wait("connection.ended", "connection_id", &leg.id)["reason"], reason);
        }
        assert_eq!(events.wait("conference.ended", "conference_id", &self.room)["reason"], reason);
        for operation in &self.operations {
            assert_eq!(events.wait("operation.ended", "operation_id", operation)["condition"], condition);
        }
    }

    fn told_once(self, events: &Events) {
        for (_, leg) in &self.legs {
            assert_eq!(events.of("connection.ended", "connection_id", &leg.id).len(), 1);
        }
        assert_eq!(events.of("conference.ended", "conference_id", &self.room).len(), 1);
        for operation in &self.operations {
            assert_eq!(events.of("operation.ended", "operation_id", operation).len(), 1);
        }
        self.speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    }
}

#[test]
fn a_shard_that_fails_takes_only_its_own_with_it() {
    let server = setup().shards(2).with_panics().start();
    let mut events = Events::follow(&server);
    let safe = [connect(&server, json!({"shard": 1})), connect(&server, json!({"shard": 1}))];
    server.ok("relay.start", json!({"a": safe[0].1.id, "b": safe[1].1.id}));
    let speaker = safe[0].0.speak(safe[0].1.local, Speech::new(99), |_| 600);
    safe[1].0.until("the other shard's relay", |heard| (heard.len() > 5).then_some(()));
    let business = Business::open(&server, "busy.wav");
    assert_eq!(server.pairs_free(), 2);
    server.ok("debug.shard_panic", json!({"shard": 0}));
    assert_eq!(events.wait("shard.failed", "event", "shard.failed")["shard"], 0);
    business.ended(&mut events, "shard_failed", "error");
    let refused = server.refused("connection.get", json!({"connection_id": business.legs[0].1.id}));
    assert_eq!(refused.code, 1001);
    until("the ports of the failed shard to be free", || (server.pairs_free() == 6).then_some(()));

    // The shard starts again, and everything can be had again on the same ports.
    until("the shard to be up again", || {
        let stats = server.ok("server.stats", Value::Null);
        (stats["shards"][0]["up"] == true).then_some(())
    });
    let again = Business::open(&server, "again.wav");
    events.settle();
    business.told_once(&events);
    assert_eq!(events.of("shard.failed", "event", "shard.failed").len(), 1);

    // The other shard has not missed a packet.
    let sent = speaker.stop();
    safe[1].0.until("the last packet", |heard| (heard.last() == sent.last()).then_some(()));
    assert!(safe[1].0.heard() == sent, "the other shard lost packets");
    assert!(events.of("connection.ended", "connection_id", &safe[0].1.id).is_empty());
    again.speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}

#[test]
fn without_fault_injection_nobody_makes_a_shard_panic() {
    let server = setup().start();
    assert_eq!(server.refused("debug.shard_panic", json!({"shard": 0})).code, -32601);
    server.stop();
}

#[test]
fn told_to_end_while_busy_it_ends_everything_and_says_so() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let business = Business::open(&server, "busy.wav");
    let recording = server.recording("busy.wav");
    // Ends with status 0, and everything is told before the sockets close.
    std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            business.ended(&mut events, "shutdown", "autostop");
            assert!(hound::WavReader::open(&recording).is_ok());
        });
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(server.pid().cast_signed()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        told.join().unwrap();
    });
    business.told_once(&events);
    server.stop();
}
