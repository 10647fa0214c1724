//! Foreign implementations of RTP at the other end.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

mod ffmpeg;
mod parties;
mod sipp;
mod tshark;
mod wideband;

use ringbridge_tests::server::Setup;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"))
}
