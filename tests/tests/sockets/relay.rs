//! Two connections wired to each other.

use std::time::Duration;

use ringbridge_tests::audio::tone;
use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::Events;
use ringbridge_tests::until;
use ringbridge_wire::rtp::RtpPacket;
use serde_json::json;

use crate::{connect, relayed, setup};

/// Sends both ways at once until each has heard so many packets of the other, byte for byte and in order.
fn converse([a, b]: &[(Endpoint, ringbridge_tests::server::Leg); 2], packets: usize) {
    a.0.forget();
    b.0.forget();
    let speakers = [
        a.0.speak_to(a.1.local, Speech::new(0xA), packets, |index| tone(400, 8000, index)),
        b.0.speak_to(b.1.local, Speech::new(0xB), packets, |index| tone(700, 8000, index)),
    ];
    let [from_a, from_b] = speakers.map(ringbridge_tests::endpoint::Speaker::join);
    b.0.until("every packet of a", |heard| (heard.len() >= from_a.len()).then_some(()));
    a.0.until("every packet of b", |heard| (heard.len() >= from_b.len()).then_some(()));
    assert!(b.0.heard() == from_a, "what b heard is not what a sent");
    assert!(a.0.heard() == from_b, "what a heard is not what b sent");
}

#[test]
fn both_ways_byte_for_byte_with_rtcp_beside_it() {
    let server = setup().start();
    let pair = [0, 1].map(|_| {
        let endpoint = Endpoint::open();
        let remote = json!({
            "remote": endpoint.address().to_string(), "remote_rtcp": endpoint.rtcp_address().to_string(),
        });
        let leg = server.create(remote);
        (endpoint, leg)
    });
    server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id}));
    converse(&pair, 50);
    // An empty receiver report (RFC 3550 section 6.4.2) and a source description (section 6.5).
    let report = |ssrc: u8| {
        let description = [0x81, 202, 0, 3, 0, 0, 0, ssrc, 1, 4, b'n', b'a', b'm', b'e', 0, 0];
        [vec![0x80, 201, 0, 1, 0, 0, 0, ssrc], description.to_vec()].concat()
    };
    let [a, b] = &pair;
    a.0.send_rtcp(a.1.local_rtcp, &report(0xA));
    assert_eq!(b.0.receive_rtcp(), report(0xA));
    b.0.send_rtcp(b.1.local_rtcp, &report(0xB));
    assert_eq!(a.0.receive_rtcp(), report(0xB));
    converse(&pair, 25);
    server.ok("relay.stop", json!({"a": a.1.id}));
    let silent = a.0.heard_packets();
    b.0.speak_to(b.1.local, Speech::new(0xB), 3, |_| 0).join();
    until("packets that go nowhere", || (server.figure("/drops/unrouted") >= 3).then_some(()));
    assert_eq!(a.0.heard_packets(), silent);
    server.stop();
}

#[test]
fn endpoints_are_learned_without_a_remote() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let pair = [0, 1].map(|_| (Endpoint::open(), server.create(json!({}))));
    server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id}));
    let speakers = [0, 1].map(|n| pair[n].0.speak(pair[n].1.local, Speech::new(n as u32 + 1), |_| 1000));
    for (endpoint, leg) in &pair {
        let learned = events.wait("connection.learned", "connection_id", &leg.id);
        assert_eq!(learned["remote"], endpoint.address().to_string());
        endpoint.until("the other", |heard| (heard.len() > 10).then_some(()));
    }
    drop(speakers.map(ringbridge_tests::endpoint::Speaker::stop));
    server.stop();
}

#[test]
fn a_relay_across_shards_moves_under_traffic_without_losing_a_packet() {
    let server = setup().shards(2).start();
    let mut events = Events::follow(&server);
    let (a, b) = (connect(&server, json!({"shard": 0})), connect(&server, json!({"shard": 1})));
    let third = connect(&server, json!({"shard": 1}));
    server.ok("relay.start", json!({"a": b.1.id, "b": third.1.id}));
    let (speaks_a, speaks_b) =
        (a.0.speak(a.1.local, Speech::new(1), |_| 500), b.0.speak(b.1.local, Speech::new(2), |_| 900));
    events.wait("connection.learned", "connection_id", &a.1.id);
    third.0.until("b in its first relay", |heard| (heard.len() > 20).then_some(()));
    // From here on b is moved, in full speech. What it says meanwhile belongs to one relay, to the other or to none,
    // but it may not be lost on the way.
    server.ok("relay.stop", json!({"a": b.1.id}));
    let effect = server.ok("relay.start", json!({"a": a.1.id, "b": b.1.id}));
    assert_eq!(effect["effect"]["clock"], "connection");
    assert_eq!(server.get(&b.1.id)["shard"], 0);
    a.0.until("b in its second relay", |heard| (heard.len() > 40).then_some(()));
    let (sent_a, sent_b) = (speaks_a.stop(), speaks_b.stop());
    // Everything a said since b heard it first, without a hole: the last packet ends the wait.
    for (endpoint, sent) in [(&b.0, &sent_a), (&a.0, &sent_b)] {
        endpoint.until("the last packet", |heard| (heard.last() == sent.last()).then_some(()));
        let heard = endpoint.heard();
        assert!(heard.len() > 20);
        assert!(sent.ends_with(&heard), "a packet is missing, or came out of order");
    }
    // What b said went to the third, to nobody while it was in no relay, or to a: nothing else.
    let [to_third, to_a] = [third.0.heard_packets(), a.0.heard_packets()];
    let nowhere = (sent_b.len() - to_third - to_a) as u64;
    until("the packets of b that went nowhere to be counted", || {
        (server.figure("/drops/unrouted") >= nowhere).then_some(())
    });
    assert_eq!(server.figure("/drops/receive_buffer_full") + server.figure("/drops/closed_port"), 0);
    server.stop();
}

#[test]
fn a_relay_goes_on_through_pauses() {
    let server = setup().start();
    let pair = relayed(&server);
    for _ in 0..3 {
        converse(&pair, 10);
        // Longer than it takes a shard to park; what comes next has to wake it.
        std::thread::sleep(Duration::from_millis(250));
    }
    server.stop();
}

#[test]
fn digits_pass_through_a_relay_that_transcodes_and_no_audio_behind_them_is_older() {
    /// Packets at which a digit begins; each takes ten in place of audio.
    const DIGITS: [usize; 2] = [41, 80];
    let server = setup().start();
    let pair = [connect(&server, json!({})), connect(&server, json!({"codec": "PCMA", "ptime_ms": 30}))];
    server.ok("relay.start", json!({"a": pair[0].1.id, "b": pair[1].1.id, "transcode": true}));
    let speech = Speech::new(0xA);
    let speaker = pair[0].0.send_each(pair[0].1.local, Duration::from_millis(20), 130, move |number| {
        let audio = speech.packet(number, |index| tone(400, 8000, index));
        let Some(begin) = DIGITS.into_iter().find(|&begin| (begin..begin + 10).contains(&number)) else {
            return Some(audio);
        };
        let first = speech.packet(begin, |_| 0);
        let nth = u16::try_from(number - begin).unwrap() + 1;
        let [high, low] = (160 * nth).to_be_bytes();
        let marker = if nth == 1 { 0x80 } else { 0 };
        let end = if nth == 10 { 0x80 } else { 0 };
        // The number of this packet, and the timestamp of the first.
        let head = [&[0x80, 101 | marker][..], &audio[2..4], &first[4..8], &audio[8..12]].concat();
        Some([head, vec![5, end | 10, high, low]].concat())
    });
    speaker.join();
    let heard = pair[1].0.until("both digits and what follows", |heard| {
        let last = heard.iter().rposition(|packet| packet[1] & 0x7F == 101)?;
        let ends = heard.iter().filter(|packet| packet[1] & 0x7F == 101 && packet[13] & 0x80 != 0).count();
        (ends == 2 && heard.len() > last + 10).then(|| heard.to_vec())
    });
    let packets: Vec<_> = heard.iter().map(|packet| RtpPacket::parse(packet).unwrap()).collect();
    let (mut events, mut audio) = (Vec::new(), 0);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence_number(), pair[0].sequence_number().next());
        assert_eq!(pair[1].ssrc(), pair[0].ssrc());
    }
    for packet in &packets {
        if packet.payload_type() == 101 {
            if events.last() != Some(&packet.timestamp()) {
                events.push(packet.timestamp());
            }
        } else if let Some(event) = events.last() {
            assert!(packet.timestamp().distance_from(*event) >= 0, "{} behind a digit", packet.timestamp().0);
            audio += 1;
        }
    }
    assert_eq!(events.len(), 2, "each has one timestamp");
    assert!(events[1].distance_from(events[0]) > 0 && audio > 20);
    server.stop();
}
