//! Events that are posted (2.1, 6): in order, in batches, three tries each, only where the configuration allows.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use ringbridge_control::tls::{self, TlsFiles};
use ringbridge_tests::{PATIENCE, until};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::rig::{Agent, Desk, guid_of, path};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("push", ROWS);
    for (what, change) in NOT_ALLOWED {
        rows.push(Row::new(format!("push::not_allowed::{}", what.replace(' ', "_")), move |desk| {
            // One of those that are allowed, changed.
            let allowed = desk.world.callback();
            let uri = change(&allowed);
            let body = json!({"password": "", "phonenum": "1", "callBackUri": uri, "serviceToken": "t"});
            let answer = desk.sign_in_with(desk.number(), false, &body).json();
            assert_eq!(answer["retcode"], "100-001", "{uri}");
        }));
    }
    rows
}

/// How an address that is allowed becomes one that is not.
type Change = fn(&str) -> String;

const NOT_ALLOWED: &[(&str, Change)] = &[
    ("another path", |uri| uri.replace("/events/", "/other/")),
    ("the folder above", |uri| uri.replace("/events/", "/")),
    ("a part of the path", |uri| uri.trim_end_matches('/').to_owned()),
    ("another port", |uri| uri.replace("http://127.0.0.1:", "http://127.0.0.1:1")),
    ("another host", |uri| uri.replace("127.0.0.1", "127.0.0.2")),
    ("a host that begins alike", |uri| uri.replace("/events/", ".example.com/events/")),
    ("a name before the host", |uri| uri.replace("http://", "http://x@")),
    ("the host as a name", |uri| uri.replace("http://", "http://192.0.2.1#@")),
    ("TLS where it is to be plain", |uri| uri.replace("http://", "https://")),
    ("no scheme", |uri| uri.replace("http://", "//")),
    ("another scheme", |uri| uri.replace("http://", "gopher://")),
    ("up again", |uri| format!("{uri}../other")),
    ("up again encoded", |uri| format!("{uri}%2e%2e/other")),
    ("up again half encoded", |uri| format!("{uri}.%2E/other")),
    ("a line break", |uri| format!("{uri}x\r\nHost: y")),
    ("a space", |uri| format!("{uri}x y")),
    ("more than 200", |uri| format!("{uri}{}", "x".repeat(200))),
];

/// One post as it came.
struct Post<S> {
    target: String,
    head: String,
    body: Value,
    stream: S,
}

/// Waits for a connection.
#[track_caller]
fn accept(sink: &TcpListener) -> TcpStream {
    sink.set_nonblocking(true).expect("set");
    let stream = until("a connection", || sink.accept().ok().map(|(stream, _)| stream));
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Waits for one post.
#[track_caller]
fn take(sink: &TcpListener) -> Post<TcpStream> {
    let stream = accept(sink);
    read(stream).expect("a post")
}

/// Reads one post.
fn read<S: Read>(stream: S) -> io::Result<Post<S>> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body)?;
    let target = head.lines().next().expect("a line").to_owned();
    let body = serde_json::from_slice(&body).expect("JSON");
    // Nothing follows what was read.
    Ok(Post { target, head, body, stream: reader.into_inner() })
}

impl<S: Write> Post<S> {
    fn answer(mut self, status: &str, body: &str) -> Vec<Value> {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        self.stream.write_all(answer.as_bytes()).and_then(|()| self.stream.flush()).expect("it is read");
        self.body["eventList"].as_array().expect("a list").clone()
    }

    /// Takes it: the events.
    fn taken(self) -> Vec<Value> {
        self.answer("200 OK", r#"{"message": "success", "retcode": "0"}"#)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(given, _)| given.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line))?.split_once(": ").map(|(_, value)| value)
    }
}

/// An agent whose events are posted to `sink`.
fn agent(desk: &Desk, sink: &TcpListener) -> Agent {
    agent_at(desk, &format!("http://{}/events/agent?of=7", sink.local_addr().expect("bound")))
}

fn agent_at(desk: &Desk, uri: &str) -> Agent {
    let phone = desk.phone();
    let number = desk.number();
    let body = json!({"password": "", "phonenum": phone.number, "callBackUri": uri, "serviceToken": "token-1"});
    let answer = desk.sign_in_with(number, false, &body);
    assert_eq!(answer.json()["retcode"], "0", "{answer:?}");
    Agent { number, guid: guid_of(&answer).expect("a Guid"), phone: Some(phone) }
}

/// Takes posts until an event of that type came; the types of all.
fn until_event(sink: &TcpListener, wanted: &str) -> Vec<String> {
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != wanted) {
        told.extend(names(&take(sink).taken()));
    }
    told
}

fn names(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["eventType"].as_str().expect("a name").to_owned()).collect()
}

/// Takes a connection of a sink over TLS with that certificate.
fn accept_tls(sink: &TcpListener, config: &Arc<ServerConfig>) -> StreamOwned<ServerConnection, TcpStream> {
    let stream = accept(sink);
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).expect("a server"), stream)
}

fn secure(sink: &TcpListener) -> String {
    format!("https://{}/events/agent?of=7", sink.local_addr().expect("bound"))
}

const ROWS: &[Plain] = &[
    ("over_TLS", |desk| {
        let (sink, files) = (desk.world.secure_sink(), &desk.world.callback_tls);
        let config = tls::load(files).expect("a certificate");
        let agent = agent_at(desk, &secure(&sink));
        let mut told = Vec::new();
        while told.len() < 2 {
            let post = read(accept_tls(&sink, &config)).expect("a post");
            assert_eq!(post.header("guid"), Some(agent.guid.as_str()));
            told.extend(names(&post.taken()));
        }
        assert_eq!(told, ["AgentOther_InService", "AgentState_Ready"]);
    }),
    ("over_TLS_with_a_certificate_that_is_not_trusted", |desk| {
        let sink = desk.world.secure_sink();
        let folder = tempfile::tempdir().expect("a directory");
        let files: TlsFiles = tls::make_certificate(folder.path(), &[]).expect("a certificate");
        let config = tls::load(&files).expect("a certificate");
        agent_at(desk, &secure(&sink));
        // Three tries, and nothing of the events to be read in any.
        for _ in 0..3 {
            assert!(read(accept_tls(&sink, &config)).is_err());
        }
    }),
    ("over_TLS_plain_text_is_no_answer", |desk| {
        let sink = desk.world.secure_sink();
        agent_at(desk, &secure(&sink));
        for _ in 0..3 {
            let mut stream = accept(&sink);
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).expect("a handshake");
            assert_eq!(hello[0], 22, "no plain text");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"retcode\":\"0\"}").expect("sent");
        }
    }),
    ("what_is_posted", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        let post = take(&sink);
        assert_eq!(post.target, "POST /events/agent?of=7 HTTP/1.1");
        assert_eq!(post.header("content-type"), Some("application/json; charset=UTF-8"));
        assert_eq!(post.header("guid"), Some(agent.guid.as_str()));
        assert_eq!(post.header("service_token"), Some("token-1"));
        assert_eq!(post.header("host"), Some(sink.local_addr().unwrap().to_string().as_str()));
        let body = post.body.as_object().unwrap().clone();
        assert_eq!(body.keys().collect::<Vec<_>>(), ["eventList", "workNo"]);
        assert_eq!(body["workNo"], agent.number.to_string());
        let events = post.taken();
        let event = events[0].as_object().unwrap();
        assert_eq!(event.keys().collect::<Vec<_>>(), ["content", "eventType", "workNo"]);
        assert_eq!(
            (&event["eventType"], &event["workNo"]),
            (&json!("AgentOther_InService"), &json!(agent.number.to_string()))
        );
    }),
    ("oldest_first_and_each_once", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        assert_eq!(until_event(&sink, "AgentState_Ready"), ["AgentOther_InService", "AgentState_Ready"]);
        // What comes while a post is not answered yet is posted together afterwards.
        let room = desk.room();
        let invite = || desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        invite();
        let first = take(&sink);
        desk.ok(&agent, "rejectagentconf", Value::Null);
        invite();
        desk.ok(&agent, "rejectagentconf", Value::Null);
        assert_eq!(names(&first.taken()), ["AgentConf_Ringing"]);
        let rest = [
            "AgentOther_PhoneRelease",
            "AgentState_Ready",
            "AgentConf_Ringing",
            "AgentOther_PhoneRelease",
            "AgentState_Ready",
        ];
        assert_eq!(names(&take(&sink).taken()), rest);
    }),
    ("a_conference_from_request_to_release", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        until_event(&sink, "AgentState_Ready");
        desk.ok(&agent, "requestagentconf", json!({"memberNum": 2}));
        agent.phone().answer(&desk.world);
        until_event(&sink, "AgentConf_RequestSuccess");
        desk.ok(&agent, "playvoicetoconf", crate::rig::voice("short.wav"));
        assert_eq!(until_event(&sink, "AgentConf_StopVoice"), ["AgentConf_StopVoice"]);
        desk.ok(&agent, "releaseagentconf", Value::Null);
        until_event(&sink, "AgentState_Ready");
    }),
    ("such_an_agent_does_not_poll", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        assert_eq!(desk.retcode("GET", &path("agentevent", agent.number, ""), Some(&agent.guid), b""), "000-001");
        assert_eq!(desk.retcode("GET", &path("agentevent", agent.number, ""), Some("x"), b""), "000-003");
        assert_eq!(desk.retcode("POST", &path("onlineagent", agent.number, "handshake"), Some(&agent.guid), b""), "0");
        until_event(&sink, "AgentState_Ready");
    }),
    ("three_tries_then_dropped", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        until_event(&sink, "AgentState_Ready");
        let room = desk.room();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        let mut last = Vec::new();
        for (status, body) in [
            ("500 No", r#"{"message": "success", "retcode": "0"}"#),
            ("200 OK", r#"{"message": "failed", "retcode": "1"}"#),
            ("200 OK", "not JSON"),
        ] {
            let post = take(&sink);
            if last.is_empty() {
                desk.ok(&agent, "rejectagentconf", Value::Null);
            }
            let events = post.answer(status, body);
            assert!(last.is_empty() || last == events, "the same again");
            last = events;
        }
        assert_eq!(names(&last), ["AgentConf_Ringing"]);
        // Those that came later are not dropped with it.
        assert_eq!(names(&take(&sink).taken()), ["AgentOther_PhoneRelease", "AgentState_Ready"]);
    }),
    ("a_second_try_is_enough", |desk| {
        let sink = desk.world.sink();
        agent(desk, &sink);
        let first = take(&sink).answer("503 No", "");
        assert_eq!(take(&sink).taken(), first);
    }),
    ("redirects_are_not_followed", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        until_event(&sink, "AgentState_Ready");
        let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
        elsewhere.set_nonblocking(true).expect("set");
        let room = desk.room();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        for status in ["301 Moved", "307 Moved", "308 Moved"] {
            let mut post = take(&sink);
            assert!(post.target.starts_with("POST /events/agent?of=7 "));
            let answer = format!(
                "HTTP/1.1 {status}\r\nlocation: http://{}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                elsewhere.local_addr().unwrap()
            );
            post.stream.write_all(answer.as_bytes()).expect("it is read");
        }
        desk.ok(&agent, "rejectagentconf", Value::Null);
        until_event(&sink, "AgentState_Ready");
        assert_eq!(elsewhere.accept().expect_err("nobody came").kind(), std::io::ErrorKind::WouldBlock);
    }),
    ("no_answer_is_given_up", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        until_event(&sink, "AgentState_Ready");
        let room = desk.room();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        for _ in 0..3 {
            let mut post = take(&sink);
            // It is read until the server closes.
            let mut rest = Vec::new();
            post.stream.read_to_end(&mut rest).expect("closed");
            assert!(rest.is_empty());
        }
        desk.ok(&agent, "rejectagentconf", Value::Null);
        until_event(&sink, "AgentState_Ready");
    }),
    ("an_answer_without_end_is_given_up", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        until_event(&sink, "AgentState_Ready");
        let room = desk.room();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        for _ in 0..3 {
            let mut post = take(&sink);
            post.stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").expect("it is read");
            // Until the server has had enough.
            while post.stream.write_all(&[b' '; 4096]).is_ok() {}
        }
        desk.ok(&agent, "rejectagentconf", Value::Null);
        until_event(&sink, "AgentState_Ready");
    }),
    ("nothing_after_the_sign_out", |desk| {
        let sink = desk.world.sink();
        let agent = agent(desk, &sink);
        until_event(&sink, "AgentState_Ready");
        let out = path("onlineagent", agent.number, "logout");
        assert_eq!(desk.retcode("DELETE", &out, Some(&agent.guid), b""), "0");
        // Signed in for polls, its events wait there.
        let again = desk.signed_in(agent.number, None, json!({}));
        assert_eq!(desk.poll(&again)["eventType"], "AgentOther_InService");
        assert_eq!(desk.poll(&again)["eventType"], "AgentState_Ready");
        sink.set_nonblocking(true).expect("set");
        assert_eq!(sink.accept().expect_err("nobody came").kind(), std::io::ErrorKind::WouldBlock);
    }),
];
