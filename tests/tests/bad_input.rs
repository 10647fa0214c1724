//! Hostile input of every kind: the exact error, the counted drop, and everything else unharmed. Each row a case.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "bad_input/clients.rs"]
mod clients;
#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/packets.rs"]
mod packets;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/startup.rs"]
mod startup;

use ringbridge_tests::server::Setup;

/// The server's executable.
const BINARY: &str = env!("CARGO_BIN_EXE_ringbridge-under-test");

/// A server to be started.
fn setup() -> Setup {
    Setup::new(BINARY)
}
