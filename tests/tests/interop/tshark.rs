//! Wireshark's dissectors, which read our RTCP and find nothing wrong with it.

use std::fs::{self, File};
use std::process::Command;

use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::wait_for_exit;
use serde_json::json;

use crate::setup;

/// A capture file (libpcap, raw IP) of UDP datagrams between made-up addresses.
fn capture(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (number, datagram) in datagrams.iter().enumerate() {
        let (udp_len, ip_len) = (8 + datagram.len() as u16, 28 + datagram.len() as u16);
        for word in [number as u32, 0, u32::from(ip_len), u32::from(ip_len)] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0x45, 0, (ip_len >> 8) as u8, ip_len as u8, 0, 0, 0, 0, 64, 17, 0, 0]);
        file.extend([127, 0, 0, 1, 127, 0, 0, 2]);
        for port in [5001u16, 5003, udp_len, 0] {
            file.extend(port.to_be_bytes());
        }
        file.extend(datagram);
    }
    file
}

#[test]
#[ignore = "needs tshark"]
fn reports_are_read_field_by_field() {
    let server = setup().start();
    let endpoint = Endpoint::open();
    let leg = server.create(json!({"remote": endpoint.address().to_string()}));
    let room = server.ok("conference.create", json!({}))["conference_id"].clone();
    server.ok("conference.join", json!({"conference_id": room, "connection_id": leg.id}));
    let other = Endpoint::open();
    let partner = server.create(json!({"remote": other.address().to_string()}));
    server.ok("conference.join", json!({"conference_id": room, "connection_id": partner.id}));
    let speaker = endpoint.speak(leg.local, Speech::new(0xCAFE), |_| 900);
    let report = endpoint.receive_rtcp();
    server.ok("connection.delete", json!({"connection_id": leg.id}));
    let farewell = endpoint.receive_rtcp();
    speaker.stop();
    server.stop();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rtcp.pcap");
    fs::write(&file, capture(&[report, farewell])).unwrap();
    let fields = [
        "rtcp.pt",
        "rtcp.ssrc.identifier",
        "rtcp.xr.bt",
        "rtcp.xr.voipmetrics.moslq",
        "rtcp.length_check",
        "rtcp.sdes.text",
        "_ws.malformed",
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&file).args(["-d", "udp.port==5001,rtcp", "-T", "fields", "-E", "separator=;"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let [said, complained] = ["said", "complained"].map(|name| directory.path().join(name));
    tshark.stdout(File::create(&said).unwrap()).stderr(File::create(&complained).unwrap());
    let mut child = tshark.spawn().expect("tshark is installed (Debian: tshark)");
    let ended = wait_for_exit(&mut child);
    let complaints = fs::read_to_string(&complained).unwrap();
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("tshark did not end: {complaints}");
    }
    let text = fs::read_to_string(&said).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(';').collect()).collect();
    assert_eq!(rows.len(), 2, "{text}{complaints}");
    assert_eq!(rows[0][0], "200,202,207", "{text}");
    assert_eq!(rows[1][0], "201,202,203", "{text}");
    assert!(rows[0][1].contains("0x0000cafe") || rows[0][1].contains("51966"), "{text}");
    assert_eq!(rows[0][2], "7", "{text}");
    assert!(rows[0][3].parse::<f64>().is_ok_and(|mos| mos >= 4.0), "{text}");
    for row in &rows {
        assert!(!row[4].contains('0') && !row[4].contains("False"), "lengths agree: {text}");
        assert_eq!(row[5].len(), 24, "a name: {text}");
        assert_eq!(row[6], "", "{text}");
    }
}
