//! Loads that are measured, of rooms that are mixed in earnest, are evened out while everybody talks.

use std::time::Duration;

use ringbridge_codec::CodecKind;
use ringbridge_tests::audio::tone;
use ringbridge_tests::endpoint::Speaker;
use ringbridge_tests::line::Line;
use ringbridge_tests::server::{Events, Server, text};
use ringbridge_tests::until;
use ringbridge_wire::rtp::RtpHeader;
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};
use serde_json::{Value, json};

use crate::{runs, setup};

const PTIME_MS: u32 = 20;
/// Rooms of three with a codec that costs much, and as many with one that costs next to nothing for as many packets.
const ROOMS_EACH: usize = 4;
const MEMBERS: u32 = 3;
const CONFIG: &str = "[rebalance]\nthreshold_percent = 5\nsustain_ms = 2000\ncooldown_ms = 1000";
/// Packets without a move after which none is expected any more: eight seconds, time for four decisions.
const CALM: usize = 400;

struct Room {
    id: String,
    kind: CodecKind,
    members: Vec<(Line, Speaker)>,
}

/// Has a line say the same second over and over: encoded once, so that only the server has much to do.
fn talk(line: &Line, hz: u32) -> Speaker {
    let (kind, ssrc, rate_hz) = (line.kind, line.ssrc, line.rate_hz());
    let mut packets = line.packets(move |index| Some(tone(hz, rate_hz, index) / 8));
    let second: Vec<Vec<u8>> = (0..50).filter_map(&mut packets).collect();
    let ticks = kind.clock_rate_hz() / 1_000 * PTIME_MS;
    let step = Duration::from_millis(PTIME_MS.into());
    line.endpoint.send_each(line.leg.local, step, usize::MAX, move |number| {
        let mut packet = second[number % second.len()].clone();
        let header = RtpHeader {
            marker: number == 0,
            payload_type: kind.payload_type(),
            sequence_number: SeqNumber(number as u16),
            timestamp: RtpTimestamp(ticks.wrapping_mul(number as u32)),
            ssrc: Ssrc(ssrc),
        };
        header.emit(packet.first_chunk_mut().unwrap());
        Some(packet)
    })
}

/// Rooms of both kinds in turn, all on the first shard; everybody talks, and hears the others.
fn rooms(server: &Server) -> Vec<Room> {
    let room = |kind: CodecKind| {
        let params = json!({"shard": 0, "sample_rate_hz": kind.rate().hz()});
        let id = text(&server.ok("conference.create", params)["conference_id"]);
        let member = |n: u32| {
            let mut line = Line::connect(server, kind, PTIME_MS, json!({"shard": 0}));
            line.ssrc = n + 1;
            server.ok("conference.join", json!({"conference_id": id, "connection_id": line.leg.id}));
            let speaker = talk(&line, 300 + 100 * n);
            (line, speaker)
        };
        Room { members: (0..MEMBERS).map(member).collect(), kind, id }
    };
    let rooms: Vec<Room> = (0..ROOMS_EACH).flat_map(|_| [CodecKind::Opus, CodecKind::Pcmu]).map(room).collect();
    for (line, _) in rooms.iter().flat_map(|room| &room.members) {
        hear(line, 1);
    }
    rooms
}

/// Waits until a line has heard so many packets more.
fn hear(line: &Line, packets: usize) {
    let enough = line.endpoint.heard_packets() + packets;
    until("more to be heard", || (line.endpoint.heard_packets() >= enough).then_some(()));
}

#[test]
fn a_shard_with_too_much_to_do_gives_rooms_away_and_then_there_is_rest() {
    let pairs = 2 * ROOMS_EACH as u16 * MEMBERS as u16;
    let server = setup().shards(2).pairs(pairs).config(CONFIG).start();
    let mut events = Events::follow(&server);
    let rooms = rooms(&server);
    let dear_on = |shard: u64| {
        let on = |room: &&Room| server.ok("conference.get", json!({"conference_id": room.id}))["shard"] == shard;
        rooms.iter().filter(|room| room.kind == CodecKind::Opus).filter(on).count()
    };
    until("what costs much to be on both", || (dear_on(0) > 0 && dear_on(1) > 0).then_some(()));
    let stats = || server.ok("server.stats", Value::Null);
    let moves = || stats()["control"]["moves"]["rebalanced"].as_u64().unwrap();
    let line = &rooms[0].members[0].0;
    let (mut moved, mut since) = (moves(), line.endpoint.heard_packets());
    until("rest", || {
        let (now, heard) = (moves(), line.endpoint.heard_packets());
        if now != moved {
            (moved, since) = (now, heard);
        }
        hear(line, 10);
        (heard - since >= CALM).then_some(())
    });
    events.settle();
    let told = events.of("shard.moved", "reason", "rebalanced");
    let busy: Vec<_> = stats()["shards"].as_array().unwrap().iter().map(|shard| shard["busy"].clone()).collect();
    let figures = format!("busy {busy:?} after {} moves, {} and {} dear rooms", told.len(), dear_on(0), dear_on(1));
    println!("{figures}");
    assert!(dear_on(0) > 0 && dear_on(1) > 0, "{figures}");
    assert!(told[0]["from"] == 0 && told[0]["to"] == 1, "{told:?}");
    // What was taken for dear was: no room has to move again to put it right.
    assert!(told.len() <= rooms.len(), "{figures}: {told:?}");
    for room in rooms {
        let ticks = room.kind.clock_rate_hz() / 1_000 * PTIME_MS;
        for (line, speaker) in room.members {
            let sent = speaker.stop().len() as u64;
            runs(&line.endpoint.heard(), ticks);
            until("every packet to be counted", || {
                let counters = server.get(&line.leg.id)["counters"].take();
                assert_eq!(counters["drops"], 0, "{counters}");
                (counters["packets_in"].as_u64()? == sent).then_some(())
            });
        }
    }
    server.stop();
}
