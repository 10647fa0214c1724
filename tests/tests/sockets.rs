//! The real server on loopback: everything it is for, from outside.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "sockets/conference.rs"]
mod conference;
#[path = "sockets/faults.rs"]
mod faults;
#[path = "sockets/figures.rs"]
mod figures;
#[path = "sockets/moves.rs"]
mod moves;
#[path = "sockets/operations.rs"]
mod operations;
#[path = "sockets/parts.rs"]
mod parts;
#[path = "sockets/ports.rs"]
mod ports;
#[path = "sockets/rebalance.rs"]
mod rebalance;
#[path = "sockets/relay.rs"]
mod relay;
#[path = "sockets/rtcp.rs"]
mod rtcp;

use ringbridge_tests::endpoint::Endpoint;
use ringbridge_tests::server::{Leg, Server, Setup};
use ringbridge_wire::rtp::RtpPacket;
use serde_json::{Value, json};

/// A server to be started.
fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"))
}

/// An endpoint and its connection, which knows where the endpoint is.
fn connect(server: &Server, mut params: Value) -> (Endpoint, Leg) {
    let endpoint = Endpoint::open();
    params["remote"] = endpoint.address().to_string().into();
    let leg = server.create(params);
    (endpoint, leg)
}

/// Two endpoints in a relay.
fn relayed(server: &Server) -> [(Endpoint, Leg); 2] {
    let pair = [connect(server, json!({})), connect(server, json!({}))];
    server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id}));
    pair
}

/// The runs of a stream of the server's own, in packets of so many units of time. No number is missing or comes twice,
/// whatever moves. Time has a hole only where the machine had no core for the shard for half a second; the marker says so.
fn runs(packets: &[Vec<u8>], ticks: u32) -> Vec<Vec<RtpPacket<'_>>> {
    let mut runs: Vec<Vec<RtpPacket<'_>>> = Vec::new();
    for packet in packets.iter().map(|packet| RtpPacket::parse(packet).unwrap()) {
        let Some(last) = runs.last().and_then(|run| run.last()) else {
            runs.push(vec![packet]);
            continue;
        };
        assert_eq!(packet.ssrc(), last.ssrc());
        assert_eq!(packet.sequence_number(), last.sequence_number().next(), "a packet is missing or came twice");
        let step = packet.timestamp().distance_from(last.timestamp());
        if step == ticks.cast_signed() {
            runs.last_mut().unwrap().push(packet);
        } else {
            assert!(packet.marker() && step >= 25 * ticks.cast_signed(), "a hole in time of {step}");
            runs.push(vec![packet]);
        }
    }
    runs
}
