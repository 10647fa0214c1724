//! The AgentGateway API on pretended shards, over its listener.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;

use ringbridge_media::event::{Condition, Event};
use ringbridge_media::id::ConnectionId;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::rig::{Client, Rig, eventually, free_tcp_port};
use crate::config::{AgentGatewayConfig, Config};
use crate::store::seed::AgentSeed;
use crate::tls::{self, TlsFiles};

/// A server with the API and four agents; 104 is an inspector, 105 of another VDN.
struct Desk {
    rig: Rig,
    client: RefCell<Client>,
    address: SocketAddr,
    guids: RefCell<HashMap<u32, String>>,
}

struct Reply {
    status: u16,
    head: String,
    body: Value,
}

/// A client that trusts the certificate the tests serve.
fn tls_client() -> Arc<ClientConfig> {
    let certificate = CertificateDer::from_pem_file(&certificate().cert).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Made once for all tests.
fn certificate() -> &'static TlsFiles {
    static MADE: OnceLock<(tempfile::TempDir, TlsFiles)> = OnceLock::new();
    let (_, files) = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let files = tls::make_certificate(dir.path(), &[]).expect("a certificate");
        (dir, files)
    });
    files
}

fn request(address: SocketAddr, method: &str, path: &str, guid: Option<&str>, body: &str) -> Reply {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::clone(CLIENT.get_or_init(tls_client)), name).expect("a client");
    let mut stream = StreamOwned::new(client, TcpStream::connect(address).expect("a listener"));
    let guid = guid.map(|guid| format!("Guid: {guid}\r\n")).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{guid}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Reply { status, head: head.to_ascii_lowercase(), body: serde_json::from_str(body).unwrap_or_default() }
}

fn agent(work_number: u32) -> AgentSeed {
    AgentSeed {
        work_number,
        password_hash: None,
        password_file: None,
        no_password: true,
        display_name: None,
        phone: None,
        vdn_id: Some(if work_number == 105 { 2 } else { 1 }),
        video: false,
        inspector: work_number == 104,
    }
}

impl Desk {
    fn open() -> Self {
        Self::open_with(|_| {})
    }

    fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        let address = free_tcp_port();
        let rig = Rig::start_with(1, |config| {
            let directory = (8801..=8809).map(|number| (number.to_string(), SocketAddr::from(([192, 0, 2, 1], 4000))));
            config.agentgateway = AgentGatewayConfig {
                listen: Some(address),
                directory: directory.collect(),
                ..AgentGatewayConfig::default()
            };
            config.tls = Some(certificate().clone());
            config.agents = (101..=105).map(agent).collect();
            change(config);
        });
        std::fs::create_dir_all(rig.dir.path().join("state/audio/conf/1")).expect("a folder");
        rig.prompt("conf/1/hello.wav");
        rig.prompt("secret.wav");
        std::fs::write(rig.dir.path().join("state/audio/conf/1/broken.wav"), "no wave").expect("written");
        let client = RefCell::new(rig.client());
        Self { rig, client, address, guids: RefCell::default() }
    }

    fn path(group: &str, agent: u32, operation: &str) -> String {
        let slash = if operation.is_empty() { "" } else { "/" };
        format!("/agentgateway/resource/{group}/{agent}{slash}{operation}")
    }

    fn guid(&self, agent: u32) -> Option<String> {
        self.guids.borrow().get(&agent).cloned()
    }

    /// One operation of the family.
    fn ask(&self, agent: u32, operation: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let method = if operation == "queryvdnconfid" { "GET" } else { "POST" };
        let path = Self::path("agentconf", agent, operation);
        let reply = request(self.address, method, &path, self.guid(agent).as_deref(), &body);
        assert_eq!(reply.status, 200, "{operation}: {}", reply.body);
        reply.body
    }

    #[track_caller]
    fn ok(&self, agent: u32, operation: &str, body: Value) -> Value {
        let answer = self.ask(agent, operation, body);
        assert_eq!((&answer["retcode"], &answer["message"]), (&json!("0"), &json!("success")), "{operation}: {answer}");
        answer["result"].clone()
    }

    #[track_caller]
    fn fails(&self, agent: u32, operation: &str, body: Value, code: &str) {
        let answer = self.ask(agent, operation, body.clone());
        assert_eq!(answer["retcode"], code, "{operation} {body}: {answer}");
    }

    #[track_caller]
    fn fails_below(&self, agent: u32, operation: &str, body: Value, cause: u32) {
        let answer = self.ask(agent, operation, body.clone());
        let told = json!({
            "message": format!("Unknown ERROR._{cause}"), "retcode": "100-007", "result": {"errorReason": cause},
        });
        assert_eq!(answer, told, "{operation} {body}");
    }

    fn try_sign_in(&self, agent: u32, force: bool, body: &Value) -> Reply {
        let path = Self::path("onlineagent", agent, if force { "forcelogin" } else { "" });
        request(self.address, "PUT", &path, None, &body.to_string())
    }

    /// An agent signs in with telephone 8700 + its number.
    #[track_caller]
    fn sign_in(&self, agent: u32) {
        let body = json!({"password": "", "phonenum": (8700 + agent).to_string(), "status": "4"});
        let reply = self.try_sign_in(agent, false, &body);
        assert_eq!(reply.body["retcode"], "0", "{}", reply.body);
        self.keep_guid(agent, &reply);
        self.event(agent, "AgentState_Ready");
    }

    fn keep_guid(&self, agent: u32, reply: &Reply) {
        let line = reply.head.lines().find_map(|line| line.strip_prefix("set-guid: jsessionid=")).expect("a Guid");
        // The head is in lower case here; the name of the gateway is not.
        let guid = line.replace("agentgateway1", "AgentGateway1");
        self.guids.borrow_mut().insert(agent, guid);
    }

    fn poll(&self, agent: u32) -> Value {
        let path = Self::path("agentevent", agent, "");
        request(self.address, "GET", &path, self.guid(agent).as_deref(), "").body
    }

    /// The next event of that type; others before it are returned too.
    #[track_caller]
    fn events_until(&self, agent: u32, wanted: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let answer = self.poll(agent);
            assert_eq!(answer["retcode"], "0", "waiting for {wanted}: {answer}");
            let event = answer["event"].clone();
            assert!(!event.is_null(), "no {wanted}, but {events:?}");
            let found = event["eventType"] == wanted;
            events.push(event);
            if found {
                return events;
            }
        }
    }

    #[track_caller]
    fn event(&self, agent: u32, wanted: &str) -> Value {
        let event = self.events_until(agent, wanted).pop().unwrap_or_default();
        assert_eq!(event["workNo"], agent.to_string());
        event["content"].clone()
    }

    fn connection(&self, phone: &str) -> Option<String> {
        let listed = self.client.borrow_mut().ok("connection.list", json!({}));
        let label = format!("AgentGateway {phone}");
        let connections = listed["connections"].as_array().expect("a list").clone();
        let found = connections.into_iter().find(|connection| connection["label"] == *label);
        found.map(|found| found["connection_id"].as_str().expect("an id").to_owned())
    }

    /// The telephone answers: its first packet comes.
    fn answers(&self, phone: &str) -> String {
        let mut found = None;
        eventually("it is called", || {
            found = self.connection(phone);
            found.is_some()
        });
        let id = found.expect("found");
        let connection = ConnectionId::parse(&id).expect("an id");
        self.rig.world.say(0, Event::ConnectionLearned { id: connection, remote: ([192, 0, 2, 1], 4000).into() });
        id
    }

    /// A conference of agent 101.
    fn conference(&self) -> u64 {
        self.sign_in(101);
        self.ok(101, "requestagentconf", json!({"memberNum": 6}));
        self.answers("8801");
        self.event(101, "AgentConf_RequestSuccess")["confId"].as_u64().expect("a number")
    }

    /// Agent 102 takes part.
    fn second(&self) {
        self.sign_in(102);
        self.ok(101, "batchaddparticipant", json!({"addresses": [{"addressType": "9", "address": "102"}]}));
        self.event(102, "AgentConf_Ringing");
        self.ok(102, "answeragentconf", Value::Null);
        self.answers("8802");
        self.event(102, "AgentConf_SelfJoinResult");
    }

    /// What plays on a target now, as operations and kinds.
    fn operations(&self) -> Vec<String> {
        let listed = self.client.borrow_mut().ok("operation.list", json!({}));
        let plays = listed["operations"].as_array().expect("a list").clone();
        let plays = plays.into_iter().filter(|operation| operation["kind"] == "play");
        plays.map(|operation| operation["operation_id"].as_str().expect("an id").to_owned()).collect()
    }
}

const HELLO: &str = "D:/conf/1/hello.wav";

/// Every operation with a body that is well formed, bodies that are not, and whether it is the chair's.
fn table() -> Vec<(&'static str, Value, Vec<Value>, bool)> {
    let phone = json!({"addressType": "6", "address": "8803"});
    let with = |more: Value| {
        let mut value = phone.clone();
        value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        value
    };
    let bad_address = || vec![json!({}), json!({"addressType": "5", "address": "1"}), json!({"addressType": "6"})];
    let voices = |mut more: Vec<Value>| {
        more.extend([with(json!({"voicePath": 5})), with(json!({})), with(json!({"voicePath": "x".repeat(128)}))]);
        more.push(with(json!({"voicePath": HELLO, "playMode": 1})));
        more
    };
    let list = |count: usize| json!({"addresses": vec![json!({"addressType": "6", "address": "1"}); count]});
    vec![
        (
            "requestagentconf",
            json!({"memberNum": 6}),
            vec![
                json!({}),
                json!({"memberNum": 0}),
                json!({"memberNum": 121}),
                json!({"memberNum": -1}),
                json!({"memberNum": 6, "time": 3}),
                json!({"memberNum": 6, "time": 1441}),
                json!({"memberNum": 6, "promptTime": 2}),
                json!({"memberNum": 6, "beepTone": 1}),
                json!({"memberNum": 6, "beepTone": true}),
                json!({"memberNum": 6, "confCallerNo": "1".repeat(25)}),
            ],
            false,
        ),
        ("answeragentconf", Value::Null, vec![], false),
        ("rejectagentconf", Value::Null, vec![], false),
        ("requestleaveagentconf", Value::Null, vec![], false),
        ("releaseagentconf", Value::Null, vec![], true),
        (
            "batchaddparticipant",
            list(1),
            vec![json!({}), list(0), list(121), json!({"addresses": [1]}), json!({"addresses": [{}]})],
            true,
        ),
        ("batchremoveparticipant", list(1), vec![json!({}), list(0), list(31), json!({"addresses": "6"})], true),
        (
            "changeparticipantmode",
            with(json!({"attribute": 1})),
            [bad_address(), vec![with(json!({"attribute": 0})), with(json!({"attribute": 5}))]].concat(),
            true,
        ),
        ("holdparticipant", with(json!({"voicePath": HELLO})), voices(bad_address()), true),
        ("unholdparticipant", phone.clone(), bad_address(), true),
        (
            "playvoicetoconf",
            json!({"voicePath": HELLO}),
            voices(vec![json!({"voicePath": HELLO, "playType": 2})]),
            true,
        ),
        ("stopvoicetoconf", Value::Null, vec![], true),
        ("playvoicetoparticipant", with(json!({"voicePath": HELLO})), voices(bad_address()), true),
        ("stopvoicetoparticipant", phone.clone(), bad_address(), true),
        ("prolongtime", json!({"prolongTime": 5}), vec![json!({}), json!({"prolongTime": 0})], true),
        ("applytoshiftpresident", json!({"destAgentNo": 102}), vec![json!({}), json!({"destAgentNo": 5})], true),
        (
            "modifyconfresource",
            json!({"modifyType": 0, "modifyNum": 2}),
            vec![json!({"modifyType": 2, "modifyNum": 2}), json!({"modifyType": 0, "modifyNum": 1})],
            true,
        ),
        (
            "queryconfinfos",
            json!({"confIds": [1_000_000]}),
            vec![json!({}), json!({"confIds": ["x"]}), json!({"confIds": vec![1; 21]})],
            false,
        ),
        ("queryvdnconfid", Value::Null, vec![], false),
    ]
}

#[test]
fn checks_come_in_their_order() {
    let desk = Desk::open();
    desk.conference();
    desk.second();
    desk.sign_in(103);
    let chair = desk.guid(101).expect("signed in");
    for (name, body, malformed, chairs) in table() {
        let method = if name == "queryvdnconfid" { "GET" } else { "POST" };
        let other = if method == "GET" { "POST" } else { "GET" };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let ask = |method: &str, agent: &str, guid: Option<&str>, body: &str| {
            let path = format!("/agentgateway/resource/agentconf/{agent}/{name}");
            request(desk.address, method, &path, guid, body)
        };
        let code = |reply: Reply| {
            assert_eq!(reply.status, 200, "{name}");
            reply.body["retcode"].as_str().unwrap_or_default().to_owned()
        };
        let wrong = ask(other, "x", None, "{");
        assert_eq!((wrong.status, &wrong.body["retcode"]), (405, &json!("000-002")), "{name}");
        assert!(wrong.head.contains(&format!("allow: {}", method.to_lowercase())), "{}", wrong.head);
        for agent in ["x", "0", "100", "1000000", "0101", "+101", "-101", "101.0", "%31%30%31", "99999999999"] {
            assert_eq!(code(ask(method, agent, Some(&chair), &text)), "000-002", "{name} {agent}");
        }
        // Not signed in comes before a Guid, that before the body.
        assert_eq!(code(ask(method, "199", Some(&chair), "{")), "100-006", "{name}");
        for guid in [None, Some(""), Some("x"), Some(&chair[..36])] {
            assert_eq!(code(ask(method, "101", guid, "{")), "000-003", "{name} {guid:?}");
        }
        assert_eq!(code(ask(method, "102", Some(&chair), &text)), "000-003", "{name}");
        if !malformed.is_empty() {
            for broken in ["{", "[]", "", "5"] {
                assert_eq!(code(ask(method, "101", Some(&chair), broken)), "000-006", "{name} {broken}");
            }
        }
        for body in malformed {
            // Before whether there is a conference.
            desk.fails(103, name, body, "000-002");
        }
        if chairs {
            desk.fails(103, name, body.clone(), "101-001");
            desk.fails(102, name, body, "101-002");
        }
    }
    for path in
        ["/", "/agentgateway/resource/agentconf/101/dance", "/agentgateway/resource/agentconf/101/StopVoiceToConf"]
    {
        let reply = request(desk.address, "POST", path, Some(&chair), "");
        assert_eq!((reply.status, &reply.body["retcode"]), (404, &json!("000-002")), "{path}");
    }
    let long = request(desk.address, "POST", &Desk::path("agentconf", 101, "prolongtime"), None, &"x".repeat(65_537));
    assert_eq!(long.status, 413);
}

#[test]
fn announcements_are_played_and_stopped() {
    let desk = Desk::open();
    let id = desk.conference();
    let query = json!({"confIds": [id]});
    let state = || desk.ok(101, "queryconfinfos", query.clone())["confs"][0]["confState"].clone();
    desk.fails_below(101, "stopvoicetoconf", Value::Null, 90_001);
    for (path, cause) in [
        ("D:/conf/1/none.wav", 90_003),
        ("D:/conf/1/broken.wav", 90_004),
        ("D:/conf/1/hello.V3", 90_004),
        ("D:/conf/2/hello.wav", 90_009),
        ("D:/conf/1/../../secret.wav", 90_009),
        ("/secret.wav", 90_009),
    ] {
        desk.fails_below(101, "playvoicetoconf", json!({"voicePath": path}), cause);
    }
    assert_eq!(state(), 0);
    let (front, back) = (json!({"voicePath": HELLO}), json!({"voicePath": HELLO, "playType": "1"}));
    assert_eq!(desk.ok(101, "playvoicetoconf", front.clone()), json!({}));
    assert!(desk.rig.world.started().starts_with("play 1 Some(0)"), "{}", desk.rig.world.started());
    desk.fails_below(101, "playvoicetoconf", front.clone(), 90_002);
    desk.ok(101, "playvoicetoconf", back.clone());
    assert!(desk.rig.world.started().starts_with("play 64 Some(-8)"), "{}", desk.rig.world.started());
    desk.fails_below(101, "playvoicetoconf", back.clone(), 90_002);
    assert_eq!((state(), desk.operations().len()), (json!(1), 2));
    assert_eq!(desk.ok(101, "stopvoicetoconf", Value::Null), json!({}));
    assert_eq!((state(), desk.operations().len()), (json!(0), 0));
    desk.fails_below(101, "stopvoicetoconf", Value::Null, 90_001);

    // An end that comes by itself is told, one that was asked for is not.
    desk.ok(101, "playvoicetoconf", front.clone());
    desk.rig.world.end(&desk.operations()[0], Condition::Eod);
    assert_eq!(desk.event(101, "AgentConf_StopVoice"), json!({"result": 0}));
    desk.fails_below(101, "stopvoicetoconf", Value::Null, 90_001);
    desk.ok(101, "playvoicetoconf", front);
    desk.rig.world.end(&desk.operations()[0], Condition::Error);
    assert_eq!(desk.event(101, "AgentConf_StopVoice"), json!({"result": 1}));

    // What is looped begins again until it is stopped.
    desk.ok(101, "playvoicetoconf", back);
    let first = desk.operations();
    desk.rig.world.end(&first[0], Condition::Eod);
    eventually("played again", || desk.operations().len() == 1 && desk.operations() != first);
    desk.ok(101, "stopvoicetoconf", Value::Null);
    assert_eq!(desk.operations().len(), 0);
}

#[test]
fn of_two_stops_at_once_one_succeeds() {
    let desk = Desk::open();
    desk.conference();
    desk.ok(101, "playvoicetoconf", json!({"voicePath": HELLO}));
    desk.rig.world.hold(0);
    let path = Desk::path("agentconf", 101, "stopvoicetoconf");
    let guid = desk.guid(101);
    let (address, world) = (desk.address, desk.rig.world.clone());
    let mut codes: Vec<String> = thread::scope(|scope| {
        let stop = || request(address, "POST", &path, guid.as_deref(), "").body["retcode"].to_string();
        let stops = [scope.spawn(stop), scope.spawn(stop)];
        eventually("a stop is under way", || world.waiting(0) > 0);
        world.release(0);
        stops.map(|stop| stop.join().expect("no panic")).to_vec()
    });
    codes.sort();
    assert_eq!(codes, ["\"0\"", "\"100-007\""]);
    assert_eq!(desk.operations().len(), 0);
}

#[test]
fn a_stop_against_the_natural_end_is_told_once() {
    let desk = Desk::open();
    desk.conference();
    for _ in 0..20 {
        desk.ok(101, "playvoicetoconf", json!({"voicePath": HELLO}));
        let operation = desk.operations().remove(0);
        desk.rig.world.end(&operation, Condition::Eod);
        // Whoever is first, the end is told or the stop succeeds, never both.
        let stopped = desk.ask(101, "stopvoicetoconf", Value::Null);
        assert_eq!(stopped["result"]["errorReason"], 90_001, "{stopped}");
        assert_eq!(desk.event(101, "AgentConf_StopVoice"), json!({"result": 0}));
    }
}

#[test]
fn a_conference_is_released_with_all_that_is_in_it() {
    let desk = Desk::open();
    let id = desk.conference();
    desk.second();
    desk.fails(101, "requestagentconf", json!({"memberNum": 6}), "101-003");
    desk.ok(101, "playvoicetoconf", json!({"voicePath": HELLO}));
    assert_eq!(desk.ok(101, "releaseagentconf", Value::Null), json!({}));
    for agent in [101, 102] {
        assert_eq!(desk.event(agent, "AgentConf_SelfLeaveResult"), json!({"confId": id}));
        assert!(
            desk.events_until(agent, "AgentState_Ready")
                .iter()
                .all(|event| event["eventType"] != "AgentConf_StopVoice")
        );
    }
    for operation in ["stopvoicetoconf", "releaseagentconf"] {
        desk.fails(101, operation, Value::Null, "101-001");
    }
    assert_eq!((desk.connection("8801"), desk.connection("8802")), (None, None));
    assert_eq!(desk.client.borrow_mut().ok("conference.list", json!({}))["conferences"], json!([]));
    // Numbers are not used again.
    desk.ok(101, "requestagentconf", json!({"memberNum": 6}));
    desk.fails(101, "stopvoicetoconf", Value::Null, "101-001");
    desk.answers("8801");
    assert_eq!(desk.event(101, "AgentConf_RequestSuccess"), json!({"confId": id + 1}));
}

#[test]
fn participants_come_and_go() {
    let desk = Desk::open();
    let id = desk.conference();
    let list = |entries: &[(&str, &str)]| {
        let entries = entries.iter().map(|(kind, address)| json!({"addressType": kind, "address": address}));
        json!({"addresses": entries.collect::<Vec<_>>()})
    };
    let seven = ["1", "2", "3", "4", "5", "7"].map(|address| ("6", address));
    desk.fails_below(101, "batchaddparticipant", list(&seven), 90_007);
    // Nobody can be reached there: taken, and told later.
    desk.ok(101, "batchaddparticipant", list(&[("6", "4711")]));
    let change = desk.event(101, "AgentConf_ParticipantChanged");
    assert_eq!((&change["result"], &change["participant"]), (&json!(90_005), &json!("4711")));
    desk.ok(101, "batchaddparticipant", list(&[("6", "8803"), ("6", "8803"), ("9", "101")]));
    let phone = json!({"addressType": "6", "address": "8803"});
    desk.fails_below(101, "unholdparticipant", phone.clone(), 90_006);
    desk.answers("8803");
    let change = desk.event(101, "AgentConf_ParticipantChanged");
    assert_eq!(
        (&change["changeType"], &change["confId"], &change["participantType"]),
        (&json!(0), &json!(id), &json!(6))
    );
    desk.sign_in(102);
    desk.fails(102, "answeragentconf", Value::Null, "101-001");
    desk.ok(101, "batchaddparticipant", list(&[("9", "102")]));
    desk.event(102, "AgentConf_Ringing");
    desk.ok(102, "rejectagentconf", Value::Null);
    desk.fails(102, "rejectagentconf", Value::Null, "101-001");
    desk.fails(101, "requestleaveagentconf", Value::Null, "101-007");
    desk.fails(101, "batchremoveparticipant", list(&[("9", "101")]), "101-006");
    let removed = desk.ok(101, "batchremoveparticipant", list(&[("6", "8803"), ("6", "8809")]));
    assert_eq!(removed, json!({"noExistParticipants": [{"addressType": "6", "address": "8809"}]}));
    assert_eq!(desk.connection("8803"), None);
    desk.fails_below(101, "stopvoicetoparticipant", phone, 90_005);
}

#[test]
fn participants_are_muted_held_and_played_to() {
    let desk = Desk::open();
    let id = desk.conference();
    desk.second();
    let second = |more: Value| {
        let mut value = json!({"addressType": "9", "address": "102"});
        value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        value
    };
    let told = |wanted: u32| {
        loop {
            let change = desk.event(102, "AgentConf_ParticipantChanged");
            if change["changeType"] == wanted {
                return;
            }
        }
    };
    let state = || {
        let infos = desk.ok(101, "queryconfinfos", json!({"confIds": [id]}));
        let addresses = infos["confs"][0]["addresses"].as_array().expect("a list").clone();
        let found = addresses.into_iter().find(|entry| entry["address"] == "102").expect("there");
        (found["channelAttrib"].clone(), found["channelState"].clone())
    };
    for (attribute, event) in [(1, Some(3)), (3, Some(4)), (2, None), (4, None), (3, Some(4)), (3, None)] {
        desk.ok(101, "changeparticipantmode", second(json!({"attribute": attribute})));
        event.into_iter().for_each(&told);
        assert_eq!(state(), (json!(attribute), json!(0)));
    }
    let voice = json!({"voicePath": HELLO});
    desk.ok(101, "playvoicetoparticipant", second(voice.clone()));
    assert_eq!(state().1, 2);
    desk.fails_below(101, "playvoicetoparticipant", second(voice.clone()), 90_002);
    desk.fails_below(101, "holdparticipant", second(voice.clone()), 90_006);
    // An announcement to all and one to a participant are stopped each by its own operation.
    desk.fails_below(101, "stopvoicetoconf", Value::Null, 90_001);
    desk.ok(101, "stopvoicetoparticipant", second(json!({})));
    desk.fails_below(101, "stopvoicetoparticipant", second(json!({})), 90_001);
    desk.ok(101, "holdparticipant", second(voice.clone()));
    told(5);
    assert_eq!(state().1, 1);
    desk.fails_below(101, "holdparticipant", second(voice.clone()), 90_006);
    desk.fails_below(101, "playvoicetoparticipant", second(voice), 90_006);
    desk.ok(101, "unholdparticipant", second(json!({})));
    told(6);
    assert_eq!((state().1, desk.operations().len()), (json!(0), 0));
    desk.fails_below(101, "unholdparticipant", second(json!({})), 90_006);

    assert_eq!(desk.ok(101, "prolongtime", json!({"prolongTime": "10"})), json!({"applyedTime": 10}));
    assert_eq!(desk.ok(101, "prolongtime", json!({"prolongTime": 1440})), json!({"applyedTime": 1370}));
    assert_eq!(desk.ok(101, "prolongtime", json!({"prolongTime": 1})), json!({"applyedTime": 0}));
    desk.fails_below(101, "modifyconfresource", json!({"modifyType": 1, "modifyNum": 5}), 90_007);
    desk.ok(101, "modifyconfresource", json!({"modifyType": 1, "modifyNum": 4}));
    desk.fails(101, "applytoshiftpresident", json!({"destAgentNo": 101}), "101-005");
    desk.fails_below(101, "applytoshiftpresident", json!({"destAgentNo": 103}), 90_005);
    desk.ok(101, "applytoshiftpresident", json!({"destAgentNo": 102}));
    desk.event(102, "AgentConf_PresidentChanged");
    desk.fails(101, "stopvoicetoconf", Value::Null, "101-002");
    desk.ok(101, "requestleaveagentconf", Value::Null);
    desk.sign_in(104);
    assert_eq!(desk.ok(104, "queryvdnconfid", Value::Null), json!({"confIds": [id]}));
    desk.fails(102, "queryvdnconfid", Value::Null, "101-004");
}

#[test]
fn agents_sign_in_and_out() {
    let desk = Desk::open();
    let code = |agent, force, body: Value| desk.try_sign_in(agent, force, &body).body["retcode"].clone();
    for (body, wanted) in [
        (json!({"password": ""}), "100-001"),
        (json!({"password": "", "phonenum": ""}), "100-001"),
        (json!({"password": "x".repeat(33), "phonenum": "1"}), "100-001"),
        (json!({"password": "", "phonenum": "1".repeat(25)}), "100-013"),
        (json!({"password": "", "phonenum": "1", "status": 6}), "100-001"),
        (json!({"password": "", "phonenum": "1", "agenttype": 5}), "100-001"),
        (json!({"password": "", "phonenum": "1", "agenttype": 11}), "100-012"),
        (json!({"password": "", "phonenum": "1", "ip": "::1"}), "100-016"),
        (json!({"password": "", "phonenum": "1", "callBackUri": "http://192.0.2.1/x", "serviceToken": "t"}), "100-001"),
        (json!({"password": "wrong", "phonenum": "1"}), "100-004"),
    ] {
        assert_eq!(code(101, false, body.clone()), wanted, "{body}");
    }
    desk.conference();
    assert_eq!(code(101, false, json!({"password": "", "phonenum": "8801"})), "100-002");
    let out = |operation: &str| {
        let path = Desk::path("onlineagent", 101, operation);
        request(desk.address, "DELETE", &path, desk.guid(101).as_deref(), "").body
    };
    assert_eq!(out("logout")["retcode"], "100-010");
    let old = desk.guid(101);
    let forced = desk.try_sign_in(101, true, &json!({"password": "", "phonenum": "8801"}));
    desk.keep_guid(101, &forced);
    assert_ne!(desk.guid(101), old);
    let stale = request(desk.address, "POST", &Desk::path("agentconf", 101, "stopvoicetoconf"), old.as_deref(), "");
    assert_eq!(stale.body["retcode"], "000-003");
    // Its conference went with the session that was replaced.
    desk.fails(101, "stopvoicetoconf", Value::Null, "101-001");
    assert_eq!(desk.connection("8801"), None);
    let answer = out("logout");
    assert_eq!((&answer["retcode"], &answer["result"]), (&json!("0"), &Value::Null));
    assert_eq!(out("forcelogout")["retcode"], "100-006");
}
