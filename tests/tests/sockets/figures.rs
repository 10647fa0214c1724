//! What the server counts, against what was sent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;

use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::{relayed, setup};

#[test]
fn every_packet_is_counted() {
    let server = setup().start();
    let [a, b] = relayed(&server);
    let speakers =
        [a.0.speak_to(a.1.local, Speech::new(1), 40, |_| 100), b.0.speak_to(b.1.local, Speech::new(2), 25, |_| 100)];
    drop(speakers.map(Speaker::join));
    b.0.until("all of a", |heard| (heard.len() == 40).then_some(()));
    a.0.until("all of b", |heard| (heard.len() == 25).then_some(()));
    until("the figures", || (server.figure("/packets_out") == 65).then_some(()));
    assert_eq!(server.figure("/packets_in"), 65);
    let stats = server.ok("server.stats", Value::Null);
    for (reason, count) in stats["shards"][0]["drops"].as_object().unwrap() {
        assert_eq!(count, 0, "{reason}");
    }
    assert_eq!(stats["shards"][0]["connections"], 2);
    assert!(stats["shards"][0]["residence_us"]["count"].as_u64() >= Some(65), "{stats}");
    assert!(stats["shards"][0]["command_us"]["count"].as_u64() >= Some(3), "{stats}");
    for (leg, sent, heard) in [(&a.1, 40, 25), (&b.1, 25, 40)] {
        let status = server.get(&leg.id);
        let counters = &status["counters"];
        assert_eq!((&counters["packets_in"], &counters["packets_out"]), (&json!(sent), &json!(heard)), "{status}");
        assert_eq!((&counters["bytes_in"], &counters["bytes_out"]), (&json!(172 * sent), &json!(172 * heard)));
        assert_eq!((&counters["drops"], &status["cumulative_lost"]), (&json!(0), &json!(0)));
    }
    server.stop();
}

#[test]
fn metrics_tell_the_same() {
    let (server, address) = {
        // Nobody else takes a port below the ephemeral ones so soon.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        (setup().arg("--metrics").arg(address.to_string()).start(), address)
    };
    let [a, b] = relayed(&server);
    a.0.speak_to(a.1.local, Speech::new(1), 12, |_| 100).join();
    b.0.until("all of a", |heard| (heard.len() == 12).then_some(()));
    until("the figures", || (server.figure("/packets_out") == 12).then_some(()));
    let scrape = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(ringbridge_tests::PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    let (head, body) = scrape("/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples: Vec<(&str, f64)> = body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();
    let value = |name: &str| {
        let found: Vec<_> = samples.iter().filter(|(sample, _)| *sample == name).collect();
        assert_eq!(found.len(), 1, "{name} in\n{body}");
        found[0].1
    };
    assert_eq!(value("ringbridge_packets_in_total{shard=\"0\"}"), 12.0);
    assert_eq!(value("ringbridge_packets_out_total{shard=\"0\"}"), 12.0);
    assert_eq!(value("ringbridge_connections{shard=\"0\"}"), 2.0);
    assert_eq!(value("ringbridge_shard_up{shard=\"0\"}"), 1.0);
    assert_eq!(value("ringbridge_drops_total{shard=\"0\",reason=\"late\"}"), 0.0);
    assert_eq!(value("ringbridge_port_pairs_free"), 6.0);
    let families = body.lines().filter(|line| line.starts_with("# TYPE ringbridge_")).count();
    assert!(families > 15, "{families}");
    assert!(scrape("/other").0.starts_with("HTTP/1.1 404"));
    server.stop();
}

#[test]
#[ignore = "needs strace"]
fn a_busy_shard_makes_few_system_calls_and_no_futex() {
    const CONNECTIONS: usize = 160;
    let server = setup().pairs(CONNECTIONS as u16).start();
    let endpoint = Endpoint::open();
    // One endpoint each, but none that listens: a call sent to a port where nobody is costs the shard the same.
    let legs: Vec<_> = (0..CONNECTIONS).map(|_| server.create(json!({}))).collect();
    for pair in legs.chunks_exact(2) {
        server.ok("relay.start", json!({"a": pair[0].id, "b": pair[1].id}));
    }
    let stats = server.ok("server.stats", Value::Null);
    let thread = stats["shards"][0]["thread_id"].as_u64().unwrap().to_string();
    let report = server.directory().join("strace.txt");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, legs) = (&done, &legs);
        let sender = scope.spawn(move || {
            let begin = std::time::Instant::now();
            for number in 0.. {
                if done.load(std::sync::atomic::Ordering::Acquire) {
                    return;
                }
                let due = begin + std::time::Duration::from_millis(20) * number;
                std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
                let packet = Speech::new(1).packet(number as usize, |_| 100);
                legs.iter().for_each(|leg| endpoint.send(leg.local, &packet));
            }
        });
        until("the load", || (server.figure("/packets_out") > 5_000).then_some(()));
        let mut strace = Command::new("strace");
        strace.args(["-c", "-p", &thread, "-o"]).arg(&report);
        let before = server.figure("/packets_in");
        let mut strace = strace.spawn().expect("strace runs");
        until("enough packets", || {
            // Each look at the figures costs the shard calls of its own.
            std::thread::sleep(std::time::Duration::from_millis(250));
            (server.figure("/packets_in") > before + 20_000).then_some(())
        });
        let pid = rustix::process::Pid::from_child(&strace);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        strace.wait().unwrap();
        let packets = server.figure("/packets_in") - before;
        done.store(true, std::sync::atomic::Ordering::Release);
        sender.join().unwrap();
        let report = std::fs::read_to_string(&report).unwrap();
        let rows = report.lines().filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
        let mut calls = 0;
        for row in rows {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let name = *fields.last().unwrap();
            if name != "total" {
                assert!(!name.contains("futex"), "{report}");
                calls += fields[3].parse::<u64>().unwrap();
            }
        }
        assert!(calls > 0 && (calls as f64) < packets as f64 * 0.1, "{calls} calls, {packets} packets\n{report}");
    });
    server.stop();
}
