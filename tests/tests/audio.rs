//! Codecs and wideband conferences over the control socket, with the product's own codecs at the other end.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "audio/change.rs"]
mod change;
#[path = "audio/encodes.rs"]
mod encodes;
#[path = "audio/files.rs"]
mod files;
#[path = "audio/hearing.rs"]
mod hearing;
#[path = "audio/playout.rs"]
mod playout;

use ringbridge_codec::{CodecKind, Rate};
use ringbridge_tests::audio::tone;
use ringbridge_tests::endpoint::Speaker;
use ringbridge_tests::hearing::Listener;
use ringbridge_tests::line::Line;
use ringbridge_tests::server::{Server, Setup, text};
use serde_json::{Value, json};

/// Uncompressed, at 16 kHz.
const L16: CodecKind = CodecKind::L16(Rate::Wide);

/// A server to be started.
fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test")).pairs(16)
}

/// A conference at 16 kHz.
fn wide_room(server: &Server) -> String {
    text(&server.ok("conference.create", json!({"sample_rate_hz": 16_000}))["conference_id"])
}

fn join(server: &Server, room: &str, line: &Line) {
    server.ok("conference.join", json!({"conference_id": room, "connection_id": line.leg.id}));
}

/// What is late by less than this is not missed: a machine that is busy with other things is not what is tested.
fn patient() -> Value {
    json!({"jitter_buffer": {"min_ms": 300, "max_ms": 300}})
}

/// Has a line say a tone without end, at [`ringbridge_tests::hearing::AMPLITUDE`].
fn say(line: &Line, hz: u32) -> Speaker {
    let rate_hz = line.rate_hz();
    line.speak(move |index| Some(tone(hz, rate_hz, index) / 2))
}

/// Waits until a line has heard these tones and nothing else.
fn hears(line: &Line, name: &str, expected: &[u32], never: &[u32]) {
    Listener { name, rate_hz: line.rate_hz(), heard: &|| line.heard() }.hears(expected, never);
}
