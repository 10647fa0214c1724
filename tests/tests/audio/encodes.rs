//! What a conference encodes: once for everybody who talks, and once for each format that others listen in.

use ringbridge_codec::CodecKind;
use ringbridge_tests::endpoint::Speaker;
use ringbridge_tests::line::Line;
use ringbridge_tests::server::Server;
use ringbridge_tests::until;
use serde_json::Value;

use crate::{L16, join, patient, say, setup, wide_room};

/// Payloads that were encoded and packets that were sent, as of the same moment.
fn counts(server: &Server) -> (u64, u64) {
    let stats = server.ok("server.stats", Value::Null);
    let shard = &stats["shards"][0];
    (shard["encodes"].as_u64().unwrap(), shard["packets_out"].as_u64().unwrap())
}

/// Waits until of all packets that go to `lines` so many are encoded in each round, and sees that it stays so.
fn encodes(server: &Server, lines: usize, per_round: usize) {
    let (lines, per_round) = (lines as u64, per_round as u64);
    // Rounds of packets that are looked at together; one of them may be under way.
    let rounds = 50;
    let measure = || {
        let (encodes, packets) = counts(server);
        let (encoded, sent) = until("packets", || {
            let (now_encodes, now_packets) = counts(server);
            (now_packets >= packets + rounds * lines).then_some((now_encodes - encodes, now_packets - packets))
        });
        (encoded as i64 * lines as i64 - (sent * per_round) as i64) / lines as i64
    };
    until(&format!("{per_round} payloads for {lines} lines"), || (measure().unsigned_abs() <= per_round).then_some(()));
    assert!(measure() <= per_round as i64, "more is encoded than has to be");
}

#[test]
fn once_for_each_talker_and_once_for_each_format_of_the_others() {
    let server = setup().start();
    let room = wide_room(&server);
    let kinds = [CodecKind::G722, CodecKind::Opus, CodecKind::Pcmu, L16];
    // Three of each.
    let lines: Vec<Line> = (0..12).map(|number| Line::connect(&server, kinds[number % 4], 20, patient())).collect();
    lines.iter().for_each(|line| join(&server, &room, line));
    let mut talk: Vec<Speaker> = Vec::new();
    // Nobody talks: everybody hears the same.
    encodes(&server, lines.len(), kinds.len());
    // One of each but the last talks,
    talk.extend(lines[..3].iter().zip([400, 700, 1_100]).map(|(line, hz)| say(line, hz)));
    encodes(&server, lines.len(), 3 + kinds.len());
    // then everybody.
    talk.extend(lines[3..].iter().zip((0..).map(|number| 1_300 + 100 * number)).map(|(line, hz)| say(line, hz)));
    encodes(&server, lines.len(), lines.len());
    for (number, speaker) in talk.into_iter().enumerate() {
        speaker.stop();
        if number == 8 {
            // The last of each talk on, and nobody else is left: one listens in each format.
            encodes(&server, lines.len(), 3 + kinds.len());
        }
    }
    encodes(&server, lines.len(), kinds.len());
    server.stop();
}
