//! Clients that mean harm, or are broken: nothing is let in, nobody else notices.

use std::io::{BufReader, Read, Write};
use std::process::Command;
use std::time::Duration;

use ringbridge_tests::https::read_answer;
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::rig::{Desk, VDN, conf_path, path, phone_address, retcode, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("hostile", ROWS);
    // Everything that is echoed: addresses, in answers and in events.
    for (what, text) in TEXTS {
        let name = what.replace(' ', "_");
        rows.push(Row::new(format!("hostile::echoed_in_an_answer::{name}"), move |desk| {
            let room = desk.room();
            let list = json!({"addresses": [phone_address(text)]});
            let answer = desk.ask_whole(&room.chair, "batchremoveparticipant", &list);
            if text.chars().any(char::is_control) || text.len() > 24 {
                assert_eq!(retcode(&answer), "000-002");
                return;
            }
            assert_eq!(answer.json()["result"], json!({"noExistParticipants": [phone_address(text)]}));
            let heads = answer.head.lines().filter(|line| !line.is_empty()).count();
            assert!(heads <= 5, "no header of its own: {}", answer.head);
        }));
        rows.push(Row::new(format!("hostile::echoed_in_an_event::{name}"), move |desk| {
            let room = desk.room();
            let list = json!({"addresses": [phone_address(text)]});
            let code = retcode(&desk.ask_whole(&room.chair, "batchaddparticipant", &list));
            if text.chars().any(char::is_control) || text.len() > 24 {
                assert_eq!(code, "000-002");
                return;
            }
            let change = desk.change(&room.chair, 0);
            assert_eq!((&change["participant"], &change["result"]), (&json!(text), &json!(90_005)));
        }));
        rows.push(Row::new(format!("hostile::as_phonenum::{name}"), move |desk| {
            let body = json!({"password": "", "phonenum": text});
            let number = desk.number();
            let answer = desk.sign_in_with(number, false, &body);
            let wanted = if text.chars().any(char::is_control) || text.len() > 24 { "100-013" } else { "0" };
            assert_eq!(answer.json()["retcode"], wanted);
            assert!(!answer.head.contains("Evil"), "{}", answer.head);
        }));
        rows.push(Row::new(format!("hostile::as_voicePath::{name}"), move |desk| {
            let room = desk.room();
            for path in [(*text).to_owned(), format!("D:/conf/{VDN}/{text}"), format!("D:/conf/{VDN}/{text}.wav")] {
                let answer = desk.ask(&room.chair, "playvoicetoconf", json!({"voicePath": path}));
                let cause = answer["result"]["errorReason"].as_u64();
                let refused =
                    answer["retcode"] == "000-002" || cause.is_some_and(|cause| (90_003..=90_009).contains(&cause));
                assert!(refused, "{path:?}: {answer}");
                assert!(!answer.to_string().contains(text.trim()) || text.trim().len() < 2, "not echoed: {answer}");
            }
        }));
    }
    for (what, head) in HEADS {
        rows.push(Row::new(format!("hostile::head::{}", what.replace(' ', "_")), move |desk| {
            let mut stream = desk.api.connect();
            stream.write_all(head.as_bytes()).expect("taken");
            stream.flush().expect("taken");
            let mut answer = Vec::new();
            // An answer, or a closed connection; never silence.
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
            is_served(desk);
        }));
    }
    rows
}

/// Texts that mean something to somebody else.
const TEXTS: &[(&str, &str)] = &[
    ("HTML", "<script>alert(1)</script>"),
    ("short HTML", "<b onclick=x()>"),
    ("XML", "</a><!--]]>&lt;&amp;"),
    ("JSON", "\",\"retcode\":\"0\",\"a\":\""),
    ("a header", "1\r\nEvil: yes"),
    ("a line break", "1\n2"),
    ("a carriage return", "1\r2"),
    ("NUL", "1\u{0}2"),
    ("an escape", "\u{1b}[2J"),
    ("DEL", "1\u{7f}"),
    ("C1", "1\u{85}2"),
    ("SQL", "1'; DROP TABLE agents"),
    ("a format", "%s%n{0}${jndi:x}"),
    ("a path", "../../../etc/passwd"),
    ("backslashes", "..\\..\\secret"),
    ("right to left", "\u{202e}wav.1"),
    ("umlauts", "Ärger"),
    ("an emoji", "\u{1f514}\u{1f514}"),
    ("too long", "1111111111111111111111111111111111111111111111111111111"),
    ("spaces", "   "),
];

/// Heads of requests that are none.
const HEADS: &[(&str, &str)] = &[
    ("no HTTP", "hello\r\n\r\n"),
    ("another version", "GET / HTTP/3.0\r\n\r\n"),
    (
        "a length that is none",
        "POST /agentgateway/resource/agentconf/101/stopvoicetoconf HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nxx",
    ),
    ("a negative length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
    (
        "a huge length",
        "PUT /agentgateway/resource/onlineagent/101 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    ),
    ("a NUL in a header", "GET / HTTP/1.1\r\nGuid: a\0b\r\n\r\n"),
    ("a space in a header", "GET / HTTP/1.1\r\nGuid : a\r\n\r\n"),
    ("a tab in the path", "GET /agent\tgateway HTTP/1.1\r\n\r\n"),
];

/// Somebody else is served meanwhile.
#[track_caller]
fn is_served(desk: &Desk) {
    let other = Desk::open(&desk.world);
    let agent = other.agent();
    let shake = path("onlineagent", agent.number, "handshake");
    assert_eq!(other.retcode("POST", &shake, Some(&agent.guid), b""), "0");
}

/// The first message of a client that speaks version 3.`minor` at most: SSL 3.0, TLS 1.0 and TLS 1.1.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session; one suite, ECDHE-ECDSA-AES128-SHA; no compression; no extensions.
    hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut message = vec![1, 0, 0, length];
    message.extend(hello);
    let mut record = vec![22, 3, minor.min(1), 0, length + 4];
    record.extend(message);
    record
}

const ROWS: &[Plain] = &[
    ("plain_HTTP_is_not_answered", |desk| {
        let mut stream = desk.api.connect_plain();
        stream.write_all(b"GET /agentgateway/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }),
    ("without_a_certificate_nothing_is_served", |_| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringbridge-under-test"));
        let state = tempfile::tempdir().expect("a directory");
        let output = command
            .args(["serve", "--agentgateway", "127.0.0.1:8043", "--state-dir"])
            .arg(state.path())
            .env_remove("RINGBRIDGE_LOG")
            .output()
            .expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert!(told.contains("HTTPS only") && told.contains("ringbridge check --make-cert DIR"), "{told}");
    }),
    ("nothing_older_than_TLS_1_2", |desk| {
        for version in [0, 1, 2] {
            let mut stream = desk.api.connect_plain();
            stream.write_all(&client_hello(version)).expect("sent");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            // An alert, or nothing; never a handshake.
            assert!(answer.first().is_none_or(|kind| *kind == 21), "version 3.{version}: {answer:?}");
        }
        is_served(desk);
    }),
    ("TLS_1_2_is_enough", |desk| {
        let answer = desk.api.only_tls12().request("GET", "/agentgateway/openapi.json", &[], b"");
        assert_eq!(answer.status, 200);
    }),
    ("a_client_that_never_shakes_hands_is_cut_off", |desk| {
        let mut stream = desk.api.connect_plain();
        stream.write_all(&[0x16, 0x03]).expect("sent");
        is_served(desk);
        let mut rest = Vec::new();
        // Closed or reset, either way it is over.
        let _ = stream.read_to_end(&mut rest);
    }),
    ("a_body_that_trickles_is_cut_off", |desk| {
        let agent = desk.agent();
        let mut stream = desk.api.connect();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nGuid: {}\r\nContent-Length: 60000\r\n\r\n",
            conf_path(agent.number, "requestagentconf"),
            agent.guid
        );
        stream.write_all(head.as_bytes()).expect("sent");
        is_served(desk);
        // A byte now and then does not keep it.
        until("it is cut off", || {
            std::thread::sleep(Duration::from_millis(200));
            let sent = stream.write_all(b" ").and_then(|()| stream.flush());
            sent.is_err().then_some(())
        });
        is_served(desk);
    }),
    ("a_head_that_trickles_keeps_nobody_waiting", |desk| {
        let mut slow: Vec<_> = (0..50).map(|_| desk.api.connect()).collect();
        for stream in &mut slow {
            stream.write_all(b"POST /agentgateway/resource/agentconf/101/stopvoiceto").expect("sent");
            stream.flush().expect("sent");
        }
        let room = desk.room();
        for turn in 0..10 {
            for stream in &mut slow {
                stream.write_all(if turn % 2 == 0 { b"c" } else { b"o" }).expect("sent");
                stream.flush().expect("sent");
            }
            desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
            desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        }
    }),
    ("a_head_too_long", |desk| {
        let mut stream = desk.api.connect();
        let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(40_000));
        // It may be cut off before all is sent.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        is_served(desk);
    }),
    ("too_many_headers", |desk| {
        let mut stream = desk.api.connect();
        let many: String = (0..500).map(|number| format!("X-{number}: y\r\n")).collect();
        let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }),
    ("several_guids", |desk| {
        // The first of several counts, whichever else is there.
        let agent = desk.agent();
        let shake = path("onlineagent", agent.number, "handshake");
        let headers = [("Guid", "wrong"), ("Guid", agent.guid.as_str())];
        assert_eq!(retcode(&desk.api.request("POST", &shake, &headers, b"")), "000-003");
    }),
    ("a_guid_that_is_no_text", |desk| {
        let agent = desk.agent();
        let mut stream = BufReader::new(desk.api.connect());
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nGuid: ",
            path("onlineagent", agent.number, "handshake")
        );
        stream.get_mut().write_all(&[head.as_bytes(), b"\xff\xfe\r\n\r\n"].concat()).expect("sent");
        assert_eq!(retcode(&read_answer(&mut stream).expect("an answer")), "000-003");
    }),
    ("a_guid_of_64_kilobytes", |desk| {
        let agent = desk.agent();
        let mut stream = desk.api.connect();
        let shake = path("onlineagent", agent.number, "handshake");
        let _ = stream.write_all(
            format!("POST {shake} HTTP/1.1\r\nHost: x\r\nGuid: {}\r\n\r\n", "0".repeat(64 << 10)).as_bytes(),
        );
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }),
    ("ids_of_two_agents_swapped", |desk| {
        let (first, second) = (desk.agent(), desk.agent());
        for (agent, guid) in [(&first, &second.guid), (&second, &first.guid)] {
            let code =
                desk.retcode("POST", &conf_path(agent.number, "requestagentconf"), Some(guid), b"{\"memberNum\": 2}");
            assert_eq!(code, "000-003");
        }
        let out = path("onlineagent", first.number, "forcelogout");
        assert_eq!(desk.retcode("DELETE", &out, Some(&second.guid), b""), "000-003");
        assert_eq!(desk.retcode("DELETE", &out, Some(&first.guid), b""), "0");
    }),
    ("a_thousand_guesses_let_nobody_in", |desk| {
        let agent = desk.agent();
        let shake = path("onlineagent", agent.number, "handshake");
        for guess in 0..1000 {
            let guid = format!("{guess:08x}-0000-4000-8000-000000000000.AgentGateway1");
            assert_eq!(desk.retcode("POST", &shake, Some(&guid), b""), "000-003");
        }
        assert_eq!(desk.retcode("POST", &shake, Some(&agent.guid), b""), "0");
    }),
    ("deep_JSON", |desk| {
        let agent = desk.agent();
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let depth = 10_000;
            let inner = if open == "[" { "" } else { "1" };
            let deep = format!("{{\"memberNum\": 2, \"x\": {}{inner}{}}}", open.repeat(depth), close.repeat(depth));
            let code =
                desk.retcode("POST", &conf_path(agent.number, "requestagentconf"), Some(&agent.guid), deep.as_bytes());
            assert_eq!(code, "000-006");
        }
    }),
    ("a_member_twice", |desk| {
        // The last one counts; both are looked at as little as any other.
        let agent = desk.agent();
        let body = b"{\"memberNum\": 2, \"memberNum\": 0}";
        let code = desk.retcode("POST", &conf_path(agent.number, "requestagentconf"), Some(&agent.guid), body);
        assert_eq!(code, "000-002");
    }),
    ("huge_numbers", |desk| {
        let agent = desk.agent();
        for number in ["1e999", "-1e999", "99999999999999999999999999", "1.0e2", "0x10", "1_000", "NaN"] {
            for form in [number.to_owned(), format!("\"{number}\"")] {
                let body = format!("{{\"memberNum\": {form}}}");
                let code = desk.retcode(
                    "POST",
                    &conf_path(agent.number, "requestagentconf"),
                    Some(&agent.guid),
                    body.as_bytes(),
                );
                assert!(["000-002", "000-006"].contains(&code.as_str()), "{body}: {code}");
            }
        }
    }),
    ("many_members", |desk| {
        let agent = desk.agent();
        let many: String = (0..3000).map(|number| format!("\"a{number}\": {number}, ")).collect();
        let body = format!("{{{many}\"memberNum\": 0}}");
        let code =
            desk.retcode("POST", &conf_path(agent.number, "requestagentconf"), Some(&agent.guid), body.as_bytes());
        assert_eq!(code, "000-002");
    }),
    ("a_query_of_16_kilobytes", |desk| {
        let agent = desk.agent();
        let query: String = (0..1500).map(|number| format!("a{number}=b&")).collect();
        let path = format!("{}?{query}", conf_path(agent.number, "prolongtime"));
        let answer = desk.send("POST", &path, Some(&agent.guid), b"");
        assert!(
            answer.status == 200 && retcode(&answer) == "000-006" || answer.status == 431 || answer.status == 414,
            "{answer:?}"
        );
    }),
    ("a_link_out_of_the_audio_root", |desk| {
        let room = desk.room();
        for name in ["outside.wav", "etc.wav"] {
            let to = with(&room.chair.address(), voice(name));
            desk.fails_below(&room.chair, "playvoicetoconf", voice(name), 90_009);
            desk.fails_below(&room.chair, "playvoicetoparticipant", to.clone(), 90_009);
            desk.fails_below(&room.chair, "holdparticipant", to, 90_009);
        }
    }),
    ("many_connections_of_one_client", |desk| {
        let idle: Vec<_> = (0..300).map(|_| desk.api.connect_plain()).collect();
        is_served(desk);
        drop(idle);
        is_served(desk);
    }),
    ("a_poll_that_is_given_up_is_no_poll", |desk| {
        let agent = desk.agent();
        desk.poll(&agent);
        desk.poll(&agent);
        for _ in 0..20 {
            let mut stream = desk.api.connect();
            let head = format!(
                "GET {} HTTP/1.1\r\nHost: x\r\nGuid: {}\r\n\r\n",
                path("agentevent", agent.number, ""),
                agent.guid
            );
            stream.write_all(head.as_bytes()).expect("sent");
            stream.flush().expect("sent");
        }
        // No event goes to one of those that are gone.
        let room = desk.room();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        assert_eq!(desk.event(&agent, "AgentConf_Ringing"), json!({"confId": room.id}));
    }),
];
