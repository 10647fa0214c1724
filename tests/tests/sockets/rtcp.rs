//! RTCP over sockets: reports, round trips, and the last packet of a stream.

use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::Events;
use ringbridge_tests::until;
use ringbridge_wire::rtcp::{CompoundWriter, ReportBlock, RtcpPacket, parse_compound};
use ringbridge_wire::seq::Ssrc;
use serde_json::json;

use crate::{connect, setup};

/// What a compound packet holds, by type.
fn types(bytes: &[u8]) -> Vec<u8> {
    let packets = parse_compound(bytes).expect("a compound packet");
    let of = |packet| match packet {
        RtcpPacket::SenderReport(_) => 200,
        RtcpPacket::ReceiverReport(_) => 201,
        RtcpPacket::SourceDescription(_) => 202,
        RtcpPacket::Bye(_) => 203,
        RtcpPacket::Other { packet_type, .. } => packet_type,
    };
    packets.map(of).collect()
}

fn join(server: &ringbridge_tests::server::Server, ids: &[&str]) {
    let room = server.ok("conference.create", json!({}))["conference_id"].clone();
    for id in ids {
        server.ok("conference.join", json!({"conference_id": room, "connection_id": id}));
    }
}

#[test]
fn a_member_of_a_room_is_reported_to_rated_and_told_of_the_end() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let [a, b] = [connect(&server, json!({})), connect(&server, json!({}))];
    join(&server, &[&a.1.id, &b.1.id]);
    let speakers = [a.0.speak(a.1.local, Speech::new(0xA), |_| 900), b.0.speak(b.1.local, Speech::new(0xB), |_| 900)];
    let report = a.0.receive_rtcp();
    assert_eq!(types(&report), [200, 202, 207]);
    let (ours, last_sr) = match parse_compound(&report).unwrap().next() {
        Some(RtcpPacket::SenderReport(report)) => {
            assert_eq!(report.report_blocks().next().map(|block| block.ssrc), Some(Ssrc(0xA)));
            (report.ssrc, report.info.ntp.middle())
        }
        other => panic!("{other:?}"),
    };
    // Answered at once.
    let block = ReportBlock {
        ssrc: ours,
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_sequence: 0,
        interarrival_jitter: 8,
        last_sr,
        delay_since_last_sr: 0,
    };
    let mut out = [0; 64];
    let mut writer = CompoundWriter::new(&mut out);
    writer.receiver_report(Ssrc(0xA), &[block]).unwrap();
    let len = writer.len();
    a.0.send_rtcp(a.1.local_rtcp, &out[..len]);
    let quality = until("a round trip", || {
        let quality = server.ok("connection.get", json!({"connection_id": a.1.id}))["quality"].clone();
        quality["round_trip_ms"].is_f64().then_some(quality)
    });
    assert_eq!((&quality["loss_percent"], &quality["told"]["jitter_ms"]), (&json!(0.0), &json!(1.0)));
    assert!(quality["mos_lq"].as_f64().is_some_and(|mos| mos > 4.0), "{quality}");
    // A BYE when its stream ends.
    server.ok("connection.delete", json!({"connection_id": a.1.id}));
    until("a BYE", || (types(&a.0.receive_rtcp()) == [201, 202, 203]).then_some(()));
    let ended = events.wait("connection.ended", "connection_id", &a.1.id);
    assert!(ended["quality"]["r_factor"].is_f64(), "{ended}");
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}

#[test]
fn rtcp_beside_rtp_comes_and_goes_by_one_port() {
    let server = setup().start();
    let endpoint = Endpoint::open();
    let leg = server.create(json!({"remote": endpoint.address().to_string(), "rtcp_mux": true}));
    let other = connect(&server, json!({}));
    join(&server, &[&leg.id, &other.1.id]);
    let speaker = endpoint.speak(leg.local, Speech::new(0xA), |_| 900);
    let is_rtcp = |packet: &&Vec<u8>| (192..=223).contains(&packet[1]);
    let report = endpoint.until("a report among RTP", |heard| heard.iter().find(is_rtcp).cloned());
    assert_eq!(types(&report), [200, 202, 207]);
    endpoint.send(leg.local, &[0x80, 201, 0, 1, 0, 0, 0, 0xA]);
    until("it is taken", || {
        let counters = server.ok("connection.get", json!({"connection_id": leg.id}))["counters"].clone();
        (counters["rtcp_in"] == 1).then_some(())
    });
    speaker.stop();
    server.stop();
}

#[test]
fn without_reports_there_are_none() {
    let server = setup().start();
    let (endpoint, leg) = connect(&server, json!({"rtcp_reports": false}));
    let (reported_to, other) = connect(&server, json!({}));
    join(&server, &[&leg.id, &other.id]);
    let speakers = [
        endpoint.speak(leg.local, Speech::new(0xA), |_| 900),
        reported_to.speak(other.local, Speech::new(0xB), |_| 900),
    ];
    // Long enough for the one is long enough for the other, within a report.
    (0..2).for_each(|_| drop(reported_to.receive_rtcp()));
    let counters = server.ok("connection.get", json!({"connection_id": leg.id}))["counters"].clone();
    assert_eq!(counters["rtcp_out"], 0);
    speakers.into_iter().for_each(|speaker| drop(speaker.stop()));
    server.stop();
}
