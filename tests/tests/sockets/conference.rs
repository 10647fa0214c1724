//! Conferences: who hears whom, from which sample on.

use ringbridge_tests::audio::{Codec, share, tone};
use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::server::{Events, Leg, Server, text};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::{connect, setup};

/// Samples of one window that tones are looked for in: whole periods of every tone used here.
const WINDOW: usize = 800;
/// Windows in which everybody has to be heard.
const WINDOWS: usize = 3;

pub(crate) struct Member {
    pub(crate) endpoint: Endpoint,
    pub(crate) leg: Leg,
    pub(crate) codec: Codec,
}

pub(crate) fn member(server: &Server, codec: Codec, ptime_ms: u32, shard: u8) -> Member {
    let (endpoint, leg) = connect(server, json!({"codec": codec.name(), "ptime_ms": ptime_ms, "shard": shard}));
    Member { endpoint, leg, codec }
}

fn conference(server: &Server, params: Value) -> String {
    text(&server.ok("conference.create", params)["conference_id"])
}

pub(crate) fn join(server: &Server, conference: &str, member: &Member) {
    server.ok("conference.join", json!({"conference_id": conference, "connection_id": member.leg.id}));
}

/// Waits until `member` has heard all of `present` together, and never one of `absent`.
pub(crate) fn hears(member: &Member, present: &[u32], absent: &[u32]) {
    let windows = until(&format!("a mix of {present:?}"), || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let stream = member.endpoint.stream(member.codec)?;
        let full = |window: &&[i16]| present.iter().all(|tone| share(window, *tone) > 0.7);
        (stream.samples.chunks_exact(WINDOW).filter(full).count() >= WINDOWS).then_some(stream.samples)
    });
    for window in windows.chunks_exact(WINDOW) {
        for tone in absent {
            assert!(share(window, *tone) < 0.2, "{tone} Hz is heard");
        }
    }
}

#[test]
fn each_hears_all_others_whatever_the_codec_and_packet_time() {
    const TONES: [u32; 4] = [400, 700, 1100, 1700];
    let server = setup().start();
    let mut events = Events::follow(&server);
    let room = conference(&server, json!({}));
    let kinds = [(Codec::Pcmu, 20), (Codec::Pcma, 30), (Codec::Pcmu, 10), (Codec::Pcma, 40)];
    let members = kinds.map(|(codec, ptime_ms)| member(&server, codec, ptime_ms, 0));
    let mut speakers = Vec::new();
    for (number, (member, (codec, ptime_ms))) in members.iter().zip(kinds).enumerate() {
        join(&server, &room, member);
        let speech = Speech { codec, ptime_ms, ..Speech::new(number as u32 + 1) };
        speakers.push(member.endpoint.speak(member.leg.local, speech, move |index| tone(TONES[number], 8000, index)));
    }
    for (number, member) in members.iter().enumerate() {
        let others: Vec<u32> = TONES.iter().copied().filter(|tone| *tone != TONES[number]).collect();
        hears(member, &others, &[TONES[number]]);
        events.wait("talk.started", "connection_id", &member.leg.id);
        let length = kinds[number].1 as usize * 8 + 12;
        assert!(member.endpoint.heard().iter().all(|packet| packet.len() == length), "the packet time is kept");
    }
    let status = server.ok("conference.get", json!({"conference_id": room}));
    assert_eq!(status["participants"].as_array().unwrap().len(), 4);
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}

#[test]
fn who_joins_from_another_shard_loses_nothing() {
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let room = conference(&server, json!({"shard": 0}));
    let members = [0, 1, 1].map(|shard| member(&server, Codec::Pcmu, 20, shard));
    let tones = [400, 700, 1100];
    let speakers: Vec<Speaker> = members
        .iter()
        .zip(tones)
        .map(|(member, own)| {
            member.endpoint.speak(member.leg.local, Speech::new(own), move |index| tone(own, 8000, index))
        })
        .collect();
    for member in &members {
        events.wait("connection.learned", "connection_id", &member.leg.id);
        join(&server, &room, member);
        assert_eq!(server.get(&member.leg.id)["shard"], 0);
    }
    for (member, own) in members.iter().zip(tones) {
        let others: Vec<u32> = tones.into_iter().filter(|tone| *tone != own).collect();
        hears(member, &others, &[own]);
    }
    for (member, speaker) in members.iter().zip(speakers) {
        let sent = speaker.stop().len() as u64;
        until("every packet to be counted", || {
            let counters = server.get(&member.leg.id)["counters"].clone();
            (counters["packets_in"].as_u64()? + counters["drops"].as_u64()? >= sent).then_some(())
        });
    }
    assert_eq!(server.figure("/drops/receive_buffer_full") + server.figure("/drops/closed_port"), 0);
    server.stop();
}

const LOUD: i16 = 8031;

fn loud(sample: i16) -> bool {
    (7_500..8_600).contains(&sample)
}

fn half(sample: i16) -> bool {
    (3_700..4_400).contains(&sample)
}

fn silent(sample: i16) -> bool {
    sample.abs() <= 8
}

/// What one listener heard on both sides of a stamp, once enough has come.
fn sides(member: &Member, effect: &Value) -> (Vec<i16>, Vec<i16>) {
    let stamp = stamp(member, effect);
    let ssrc = stamp["ssrc"].as_u64().unwrap() as u32;
    let timestamp = stamp["rtp_timestamp"].as_u64().unwrap() as u32;
    until("what comes after a stamp", || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let stream = member.endpoint.stream_of(ssrc, member.codec)?;
        let (before, after) = stream.samples.split_at_checked(stream.index(timestamp)?)?;
        (after.len() >= 1600).then(|| (before.to_vec(), after.to_vec()))
    })
}

fn stamp(member: &Member, effect: &Value) -> Value {
    let streams = effect["streams"].as_array().unwrap().iter();
    let mut own = streams.filter(|stream| stream["connection_id"] == *member.leg.id && stream["direction"] == "out");
    own.next().expect("a stamp for the listener").clone()
}

/// A room of one who talks and two who listen.
struct Scene {
    server: Server,
    room: String,
    talker: Member,
    speaker: Option<Speaker>,
    listeners: [Member; 2],
}

impl Scene {
    fn new() -> Self {
        let server = setup().start();
        let room = conference(&server, json!({}));
        let listeners = [(Codec::Pcmu, 20), (Codec::Pcma, 30)].map(|(codec, ptime)| member(&server, codec, ptime, 0));
        listeners.iter().for_each(|listener| join(&server, &room, listener));
        let talker = member(&server, Codec::Pcmu, 20, 0);
        let speaker = Some(talker.endpoint.speak(talker.leg.local, Speech::new(7), |_| LOUD));
        Self { server, room, talker, speaker, listeners }
    }

    fn call(&self, method: &str, who: &Member, mut params: Value) -> Value {
        params["conference_id"] = self.room.clone().into();
        params["connection_id"] = who.leg.id.clone().into();
        let effect = self.server.ok(method, params)["effect"].clone();
        assert_eq!(effect["clock"], "conference");
        let time = |name: &str| effect[name].as_f64().unwrap();
        assert!(time("media_time_ms") >= time("received_media_time_ms"));
        effect
    }

    /// Waits until the listener has heard the talker as `is` says for a while.
    fn settled(&self, listener: &Member, is: fn(i16) -> bool) {
        listener.endpoint.forget();
        until("the talker to be heard", || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let stream = listener.endpoint.stream(listener.codec)?;
            (stream.samples.len() >= 800 && stream.samples.iter().rev().take(400).all(|sample| is(*sample)))
                .then_some(())
        });
    }

    /// Makes a change and takes it back, until both borders were seen to the sample. What has to be silent is so each
    /// time; what has to be loud may have been lost on the way here, when the machine is busy.
    fn there_and_back(&self, who: &Member, hearers: &[&Member], there: Value, back: Value) {
        for _ in 0..20 {
            hearers.iter().for_each(|hearer| self.settled(hearer, loud));
            let off = self.call("conference.set", who, there.clone());
            let mut seen = true;
            for hearer in hearers {
                let (before, after) = sides(hearer, &off);
                assert!(after.iter().all(|sample| silent(*sample)), "heard after the stamp");
                seen &= before.last().copied().is_some_and(loud);
            }
            hearers.iter().for_each(|hearer| self.settled(hearer, silent));
            let on = self.call("conference.set", who, back.clone());
            for hearer in hearers {
                let (before, after) = sides(hearer, &on);
                assert!(before.iter().all(|sample| silent(*sample)), "heard before the stamp");
                seen &= loud(after[0]);
            }
            if seen {
                return;
            }
        }
        panic!("the talker was never heard right up to the stamp");
    }

    fn stop(mut self) {
        if let Some(speaker) = self.speaker.take() {
            speaker.stop();
        }
        self.server.stop();
    }
}

#[test]
fn joined_muted_then_muted_and_heard_from_the_stamp_on() {
    let scene = Scene::new();
    let both: Vec<&Member> = scene.listeners.iter().collect();
    let joined = scene.call("conference.join", &scene.talker, json!({"muted": true}));
    assert!(joined["media_time_ms"].as_f64().is_some());
    both.iter().for_each(|listener| scene.settled(listener, silent));
    let unmuted = scene.call("conference.set", &scene.talker, json!({"muted": false}));
    for listener in &both {
        let (before, _) = sides(listener, &unmuted);
        assert!(before.iter().all(|sample| silent(*sample)), "heard before the stamp");
    }
    scene.there_and_back(&scene.talker, &both, json!({"muted": true}), json!({"muted": false}));
    scene.stop();
}

#[test]
fn deaf_and_hearing_from_the_stamp_on() {
    let scene = Scene::new();
    scene.call("conference.join", &scene.talker, json!({}));
    let [deaf, other] = &scene.listeners;
    scene.there_and_back(deaf, &[deaf], json!({"deaf": true}), json!({"deaf": false}));
    // The other has heard everything all along, as far as the machine let it.
    let stream = other.endpoint.stream(other.codec).unwrap();
    assert!(stream.samples.iter().filter(|sample| loud(**sample)).count() * 2 > stream.samples.len());
    scene.stop();
}

#[test]
fn a_gain_from_the_stamp_on() {
    let scene = Scene::new();
    scene.call("conference.join", &scene.talker, json!({}));
    let listener = &scene.listeners[0];
    let mut seen = false;
    for _ in 0..20 {
        scene.settled(listener, loud);
        let softer = scene.call("conference.set", &scene.talker, json!({"gain_db": -6}));
        let (before, after) = sides(listener, &softer);
        assert!(!after.iter().any(|sample| loud(*sample)), "loud after the stamp");
        seen = before.last().copied().is_some_and(loud) && half(after[0]);
        scene.settled(listener, half);
        let louder = scene.call("conference.set", &scene.talker, json!({"gain_db": 0}));
        let (before, _) = sides(listener, &louder);
        assert!(!before.iter().any(|sample| loud(*sample)), "loud before the stamp");
        if seen {
            break;
        }
    }
    assert!(seen, "the change was never seen to the sample");
    scene.stop();
}

#[test]
fn who_leaves_is_gone_from_the_stamp_on_and_hears_nothing_more() {
    let scene = Scene::new();
    let both: Vec<&Member> = scene.listeners.iter().collect();
    let mut seen = false;
    for _ in 0..20 {
        scene.call("conference.join", &scene.talker, json!({}));
        both.iter().for_each(|listener| scene.settled(listener, loud));
        let left = scene.call("conference.leave", &scene.talker, json!({}));
        seen = true;
        for listener in &both {
            let (before, after) = sides(listener, &left);
            assert!(after.iter().all(|sample| silent(*sample)), "heard after the stamp");
            seen &= before.last().copied().is_some_and(loud);
        }
        let stamp = stamp(&scene.talker, &left);
        let timestamp = stamp["rtp_timestamp"].as_u64().unwrap() as u32;
        let own = scene.talker.endpoint.stream_of(stamp["ssrc"].as_u64().unwrap() as u32, Codec::Pcmu).unwrap();
        assert_eq!(own.index(timestamp), Some(own.samples.len()), "the first timestamp no longer sent");
        if seen {
            break;
        }
    }
    assert!(seen, "the talker was never heard right up to the stamp");
    assert_eq!(server_state(&scene.server, &scene.talker.leg.id), "idle");
    scene.stop();
}

fn server_state(server: &Server, id: &str) -> String {
    text(&server.get(id)["state"])
}

#[test]
fn delete_has_three_forms() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let room = conference(&server, json!({}));
    let members: Vec<Member> = (0..4).map(|_| member(&server, Codec::Pcmu, 20, 0)).collect();
    members.iter().for_each(|member| join(&server, &room, member));
    let id = |number: usize| members[number].leg.id.clone();
    let delete = |params: Value| {
        let result = server.ok("connection.delete", params);
        assert!(result["effect"].is_object());
        result["deleted"].clone()
    };
    // Out of the conference; the connection stays.
    assert_eq!(delete(json!({"conference_id": room, "connection_id": id(0)})), json!([]));
    assert_eq!(server_state(&server, &id(0)), "idle");
    // The connection alone.
    assert_eq!(delete(json!({"connection_id": id(1)})), json!([id(1)]));
    assert_eq!(events.wait("connection.ended", "connection_id", &id(1))["reason"], "deleted");
    // The conference with all that are in it.
    let mut deleted: Vec<String> =
        delete(json!({"conference_id": room})).as_array().unwrap().iter().map(text).collect();
    deleted.sort();
    let mut expected = [id(2), id(3)];
    expected.sort();
    assert_eq!(deleted, expected);
    assert_eq!(events.wait("conference.ended", "conference_id", &room)["reason"], "deleted");
    for gone in expected {
        assert_eq!(events.wait("connection.ended", "connection_id", &gone)["reason"], "conference_deleted");
    }
    assert_eq!(server.refused("conference.get", json!({"conference_id": room})).code, 1002);
    assert_eq!(server.refused("connection.delete", json!({"connection_id": id(1)})).code, 1001);
    assert_eq!(server_state(&server, &id(0)), "idle");
    events.settle();
    assert_eq!(events.of("conference.ended", "conference_id", &room).len(), 1);
    server.stop();
}

#[test]
fn the_last_one_out_ends_the_conference() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let members = [0, 1].map(|_| member(&server, Codec::Pcmu, 20, 0));
    for leave in [true, false] {
        let room = conference(&server, json!({}));
        let members = if leave { &members[..] } else { &members[..1] };
        members.iter().for_each(|member| join(&server, &room, member));
        for member in members {
            server.ok("conference.get", json!({"conference_id": room}));
            match leave {
                true => server.ok("conference.leave", json!({"conference_id": room, "connection_id": member.leg.id})),
                false => server.ok("connection.delete", json!({"connection_id": member.leg.id})),
            };
        }
        assert_eq!(events.wait("conference.ended", "conference_id", &room)["reason"], "last_left");
        assert_eq!(server.refused("conference.get", json!({"conference_id": room})).code, 1002);
    }
    server.stop();
}
