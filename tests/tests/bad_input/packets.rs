//! Datagrams of every kind: each counted under its reason, and the call goes on.

use std::net::SocketAddr;

use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::{Leg, Server};
use ringbridge_tests::until;
use serde_json::json;

use crate::setup;

/// A relay that nobody has spoken in yet, or both have.
struct Call {
    server: Server,
    legs: [Leg; 2],
    ends: [Endpoint; 2],
    said: usize,
}

impl Call {
    fn open() -> Self {
        let server = setup().pairs(2).start();
        let ends = [Endpoint::open(), Endpoint::open()];
        let legs =
            [&ends[0], &ends[1]].map(|endpoint| server.create(json!({"remote": endpoint.address().to_string()})));
        server.ok("relay.start", json!({"a": legs[0].id, "b": legs[1].id}));
        Self { server, legs, ends, said: 0 }
    }

    /// Both say something, and hear each other byte for byte.
    fn converse(&mut self) {
        for _ in 0..3 {
            for from in 0..2 {
                let to = 1 - from;
                let packet = Speech::new(from as u32 + 1).packet(self.said, |index| index as i16);
                self.ends[from].send(self.legs[from].local, &packet);
                self.ends[to].until("the other", |heard| (heard.last() == Some(&packet)).then_some(()));
            }
            self.said += 1;
        }
    }

    fn drops(&self, reason: &str) -> u64 {
        self.server.figure(&format!("/drops/{reason}"))
    }

    /// Sends datagrams to the first connection; each has to be dropped for that reason, and no one else's.
    fn drops_all(
        &mut self,
        target: fn(&Leg) -> SocketAddr,
        from: Option<&Endpoint>,
        reason: &str,
        datagrams: &[Vec<u8>],
    ) {
        let target = target(&self.legs[0]);
        for datagram in datagrams {
            from.unwrap_or(&self.ends[0]).send(target, datagram);
        }
        until(&format!("{} to be counted", reason), || (self.drops(reason) == datagrams.len() as u64).then_some(()));
        let stats = self.server.ok("server.stats", serde_json::Value::Null);
        for (other, count) in stats["shards"][0]["drops"].as_object().unwrap() {
            assert!(other == reason || count == 0, "{count} {other}");
        }
    }

    /// The call goes on, and nothing of what was dropped got through.
    fn unharmed(mut self) {
        self.ends.iter().for_each(Endpoint::forget);
        self.converse();
        assert!(self.ends.iter().all(|end| end.heard_packets() == 3), "something got through");
        self.server.stop();
    }
}

fn rtp(leg: &Leg) -> SocketAddr {
    leg.local
}

fn rtcp(leg: &Leg) -> SocketAddr {
    leg.local_rtcp
}

/// Bytes that look random and are the same each time.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Before anybody is known, and within a call.
fn dropped(target: fn(&Leg) -> SocketAddr, reason: &str, datagrams: &[Vec<u8>]) {
    for known in [false, true] {
        let mut call = Call::open();
        if known {
            call.converse();
        }
        call.drops_all(target, None, reason, datagrams);
        call.unharmed();
    }
}

macro_rules! packets {
    ($($name:ident: $target:ident, $reason:literal, $datagrams:expr;)*) => {
        $(#[test]
        fn $name() {
            dropped($target, $reason, &$datagrams);
        })*
    };
}

packets! {
    shorter_than_a_header: rtp, "not_rtp", [vec![0x80], vec![0x80, 0], vec![0x80; 11]];
    more_csrcs_than_bytes: rtp, "not_rtp", [[vec![0x8F], vec![0; 20]].concat()];
    more_extension_than_bytes: rtp, "not_rtp",
        [[vec![0x90, 0], vec![0; 10], vec![0xBE, 0xDE, 0xFF, 0xFF], vec![0; 20]].concat()];
    more_padding_than_bytes: rtp, "not_rtp", [[vec![0xA0, 0], vec![0; 10], vec![200; 20]].concat()];
    oversized: rtp, "truncated", [[vec![0x80, 0], noise(1, 2998)].concat(), [vec![0x80, 0], noise(2, 2998)].concat()];
    of_another_version: rtp, "not_rtp", [[vec![0x40], vec![0; 171]].concat(), vec![0xC0; 172], vec![0; 172]];
    a_text: rtp, "not_rtp", [b"hello, is anybody there?".to_vec()];
    random: rtp, "not_rtp",
        (0..50).map(|seed| [vec![noise(seed, 1)[0] & 0x3F], noise(seed, 200)].concat()).collect::<Vec<_>>();
    rtp_to_the_rtcp_port: rtcp, "not_rtcp", [Speech::new(1).packet(0, |_| 0), Speech::new(1).packet(1, |_| 0)];
    noise_to_the_rtcp_port: rtcp, "not_rtcp", [vec![0x80], b"hello".to_vec(), [vec![0x41, 201], vec![0; 50]].concat()];
}

#[test]
fn empty_datagrams_are_counted_or_dropped_by_the_kernel() {
    let mut call = Call::open();
    call.converse();
    for _ in 0..20 {
        call.ends[0].send(call.legs[0].local, &[]);
    }
    until("empty datagrams to be counted", || (call.drops("empty") >= 1).then_some(()));
    call.unharmed();
}

#[test]
fn another_source_is_not_heard_and_moves_nothing() {
    let mut call = Call::open();
    // One packet pins an endpoint that is where it was said to be.
    call.converse();
    let stranger = Endpoint::open();
    for number in 0..50 {
        // The endpoint's own SSRC and numbers, as one who listens in would know them.
        stranger.send(call.legs[0].local, &Speech::new(1).packet(call.said + number, |_| 9_000));
    }
    // The kernel may drop what is foreign to a connected socket; then it is not counted. A packet of the endpoint
    // sent later has been behind them in either case.
    call.converse();
    let status = call.server.get(&call.legs[0].id);
    assert_eq!(status["learned"], call.ends[0].address().to_string());
    let packets_in = status["counters"]["packets_in"].as_u64().unwrap();
    assert!(packets_in <= 6 + call.drops("foreign_source"), "{status}");
    assert_eq!(stranger.heard_packets(), 0);
    call.unharmed();
}

#[test]
fn a_flood_is_dropped_and_the_other_call_goes_on() {
    let server = setup().pairs(4).start();
    let ends: Vec<Endpoint> = (0..4).map(|_| Endpoint::open()).collect();
    let legs: Vec<Leg> = ends.iter().map(|end| server.create(json!({"remote": end.address().to_string()}))).collect();
    for pair in legs.chunks_exact(2) {
        server.ok("relay.start", json!({"a": pair[0].id, "b": pair[1].id}));
    }
    let calm = ends[2].speak(legs[2].local, Speech::new(3), |_| 500);
    ends[3].until("the calm call", |heard| (heard.len() > 3).then_some(()));
    let mut number = 0;
    until("the flood to be dropped", || {
        for _ in 0..1000 {
            ends[0].send(legs[0].local, &Speech::new(1).packet(number, |_| 0));
            number += 1;
        }
        (server.figure("/drops/rate_limited") > 3000).then_some(())
    });
    let status = server.get(&legs[0].id);
    assert!(status["counters"]["drops"].as_u64() > Some(3000), "{status}");
    let sent = calm.stop();
    ends[3].until("the last packet", |heard| (heard.last() == sent.last()).then_some(()));
    assert!(ends[3].heard() == sent, "the flood has cost another call a packet");
    server.stop();
}
