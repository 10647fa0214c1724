//! Foreign implementations of RTP at the other end.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

mod ffmpeg;
mod parties;
mod sipp;
mod tshark;
mod wideband;

use std::net::{Ipv4Addr, UdpSocket};

use ringbridge_tests::server::Setup;
use ringbridge_tests::until;

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"))
}

/// An even port that is free now, and so is the next.
fn free_port() -> u16 {
    until("a free pair of ports", || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let port = socket.local_addr().ok()?.port();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port.checked_add(1)?)).ok()?;
        port.is_multiple_of(2).then_some(port)
    })
}
