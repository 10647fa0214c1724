//! A conference that is mixed in parts on two shards.

use ringbridge_tests::audio::{Codec, tone};
use ringbridge_tests::endpoint::{Speaker, Speech};
use ringbridge_tests::server::{Events, Server, text};
use ringbridge_tests::until;
use serde_json::json;

use crate::conference::{Member, hears, join, member};
use crate::setup;

const TONES: [u32; 4] = [400, 700, 1100, 1700];

/// Four who talk in a conference on two shards; two on each.
fn room_of_four(server: &Server, events: &mut Events) -> (String, [Member; 4], Vec<Speaker>) {
    let created = server.ok("conference.create", json!({"parts": 2, "shard": 0}));
    assert_eq!(created["shards"], json!([0, 1]));
    let room = text(&created["conference_id"]);
    // All come from one shard; half of them move.
    let members = [Codec::Pcmu, Codec::Pcma, Codec::Pcmu, Codec::Pcma].map(|codec| member(server, codec, 20, 0));
    let mut speakers = Vec::new();
    for ((member, own), number) in members.iter().zip(TONES).zip(1..) {
        let speech = Speech { codec: member.codec, ..Speech::new(number) };
        speakers.push(member.endpoint.speak(member.leg.local, speech, move |index| tone(own, 8000, index)));
        events.wait("connection.learned", "connection_id", &member.leg.id);
        join(server, &room, member);
    }
    (room, members, speakers)
}

fn hear_each_other(members: &[Member]) {
    for (number, member) in members.iter().enumerate() {
        let others: Vec<u32> = TONES.iter().copied().filter(|tone| *tone != TONES[number]).collect();
        hears(member, &others, &[TONES[number]]);
    }
}

#[test]
fn each_hears_all_others_wherever_they_are_mixed() {
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let (room, members, speakers) = room_of_four(&server, &mut events);
    let shards = || members.each_ref().map(|member| server.get(&member.leg.id)["shard"].as_u64().unwrap());
    assert_eq!(shards().iter().filter(|shard| **shard == 1).count(), 2, "{:?}", shards());
    hear_each_other(&members);
    let status = server.ok("conference.get", json!({"conference_id": room}));
    assert_eq!(status["participants"].as_array().unwrap().len(), 4, "{status}");
    assert_eq!(status["shards"], json!([0, 1]));
    let all = server.ok("conference.list", json!({}));
    assert_eq!(all["conferences"].as_array().unwrap().len(), 1);
    assert_eq!(all["conferences"][0]["participants"].as_array().unwrap().len(), 4);
    assert_eq!(server.figure("/conferences"), 1);
    // Wherever a member is, it can be muted.
    for member in &members {
        let target = json!({"conference_id": room, "connection_id": member.leg.id, "muted": true});
        assert!(server.ok("conference.set", target)["effect"]["media_time_ms"].as_f64().unwrap() > 0.0);
    }
    let moved = server.refused("conference.move", json!({"conference_id": room, "shard": 1}));
    assert_eq!(moved.code, -32602);
    // The last to leave ends it, on whatever shard he is.
    for member in &members {
        assert!(events.of("conference.ended", "conference_id", &room).is_empty());
        server.ok("conference.leave", json!({"conference_id": room, "connection_id": member.leg.id}));
        events.settle();
    }
    assert_eq!(events.wait("conference.ended", "conference_id", &room)["reason"], "last_left");
    assert_eq!(server.refused("conference.get", json!({"conference_id": room})).code, 1002);
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    // All slots are free again.
    until("no conference", || (server.figure("/conferences") == 0).then_some(()));
    server.stop();
}

#[test]
fn one_delete_ends_all_parts() {
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let (room, members, speakers) = room_of_four(&server, &mut events);
    let deleted = server.ok("conference.delete", json!({"conference_id": room}));
    assert_eq!(deleted["deleted"].as_array().unwrap().len(), 4, "{deleted}");
    assert_eq!(events.wait("conference.ended", "conference_id", &room)["reason"], "deleted");
    for member in &members {
        let ended = events.wait("connection.ended", "connection_id", &member.leg.id);
        assert_eq!(ended["reason"], "conference_deleted");
    }
    events.settle();
    assert_eq!(events.of("conference.ended", "conference_id", &room).len(), 1);
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}

#[test]
fn a_coach_and_a_pupil_find_each_other_across_parts() {
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let (room, members, speakers) = room_of_four(&server, &mut events);
    let role = |member: &Member, role: &str| {
        server.ok("conference.set", json!({"conference_id": room, "connection_id": member.leg.id, "role": role}))
    };
    // They joined the parts in turn.
    role(&members[0], "coach");
    role(&members[1], "pupil");
    members.iter().for_each(|member| member.endpoint.forget());
    hears(&members[1], &[TONES[0], TONES[2], TONES[3]], &[TONES[1]]);
    // One coach in all: another one takes it over, wherever he is.
    role(&members[3], "coach");
    let status = server.ok("conference.get", json!({"conference_id": room}));
    let roles = |name: &str| {
        let participants = status["participants"].as_array().unwrap().iter();
        participants.filter(|participant| participant["role"] == name).map(|one| text(&one["connection_id"])).collect()
    };
    let (coaches, pupils): (Vec<_>, Vec<_>) = (roles("coach"), roles("pupil"));
    assert_eq!((coaches, pupils), (vec![members[3].leg.id.clone()], vec![members[1].leg.id.clone()]));
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}

#[test]
fn a_shard_that_fails_takes_its_part_with_it_and_no_other() {
    let server = setup().shards(2).with_panics().start();
    let mut events = Events::follow(&server);
    let (room, members, speakers) = room_of_four(&server, &mut events);
    hear_each_other(&members);
    let there = |member: &&Member| server.get(&member.leg.id)["shard"] == 1;
    let (lost, left): (Vec<&Member>, Vec<&Member>) = members.iter().partition(there);
    server.ok("debug.shard_panic", json!({"shard": 1}));
    for member in &lost {
        let ended = events.wait("connection.ended", "connection_id", &member.leg.id);
        assert_eq!(ended["reason"], "shard_failed");
    }
    let status = server.ok("conference.get", json!({"conference_id": room}));
    assert_eq!(status["participants"].as_array().unwrap().len(), left.len());
    assert_eq!(status["shards"], json!([0]));
    // Those who are left go on, and others may join them.
    let newcomer = member(&server, Codec::Pcmu, 20, 0);
    join(&server, &room, &newcomer);
    let tones: Vec<u32> = members
        .iter()
        .zip(TONES)
        .filter(|(one, _)| left.iter().any(|other| other.leg.id == one.leg.id))
        .map(|(_, tone)| tone)
        .collect();
    hears(&newcomer, &tones, &[]);
    // If the home fails it is over for all; who is elsewhere stays as a connection.
    server.ok("debug.shard_panic", json!({"shard": 0}));
    assert_eq!(events.wait("conference.ended", "conference_id", &room)["reason"], "shard_failed");
    events.settle();
    assert_eq!(events.of("conference.ended", "conference_id", &room).len(), 1);
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}
