//! Everything that goes by the clock, on virtual time: the real control plane and a real shard, each row with a server of
//! its own. Requests go in where the listener would put them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use ringbridge_control::agentgateway::{self, Gateway};
use ringbridge_control::auth::{Logins, ThrottleConfig};
use ringbridge_control::config::{AgentGatewayConfig, Config};
use ringbridge_control::store;
use ringbridge_control::store::agents::{self, Agent};
use ringbridge_control::web::Peer;
use ringbridge_tests::virtual_time::{Pending, PhoneId, VirtualServer, Voice};
use serde_json::{Value, json};

use crate::rig::{agent_address, path, phone_address, voice, with};

/// A server on virtual time with agents 101 to 103, whose telephones are 8801 to 8803, and three more telephones.
struct Clock {
    server: VirtualServer,
    gateway: Rc<Gateway>,
    phones: Vec<PhoneId>,
    guids: BTreeMap<u32, String>,
}

/// An answer, and the session id it gives.
struct Reply {
    body: Value,
    guid: Option<String>,
    effect: Option<Value>,
}

impl Clock {
    fn start(change: impl FnOnce(&mut AgentGatewayConfig)) -> Self {
        Self::start_with(|config| change(&mut config.agentgateway))
    }

    fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut server = VirtualServer::start_with(|config| {
            let agents: String = (101..=103)
                .map(|number| crate::rig::agent(number, crate::rig::EMPTY, ""))
                .collect::<Vec<_>>()
                .join("\n");
            config.agents = toml::from_str::<Config>(&agents).expect("agents").agents;
            // Where telephones of a server on virtual time are.
            let directory = (0..PHONES)
                .map(|number| ((8801 + number).to_string(), SocketAddr::from(([10, 1, 0, 1], 20_000 + 2 * number))));
            config.agentgateway.directory = directory.collect();
            change(config);
        });
        let phones = (0..PHONES).map(|_| server.phone()).collect();
        let control = Rc::clone(&server.server);
        let gateway = server.run(async move {
            let (seeds, now) = (control.config.seeds(), Timestamp::now());
            control.store.run(move |connection| seeds.apply(connection, now)).await.expect("agents");
            let logins = Logins::new(control.store.clone(), ThrottleConfig::default()).expect("hashing works");
            agentgateway::start(&control, Rc::new(logins)).expect("no certificates to read")
        });
        for (name, hz, ms) in [("long.wav", 1000, 60_000), ("short.wav", 1000, 100), ("beep.wav", 1700, 200)] {
            server.write_tone(&format!("conf/1/{name}"), hz, ms);
        }
        Self { server, gateway, phones, guids: BTreeMap::new() }
    }

    fn begin(&mut self, method: &str, path: &str, guid: Option<&str>, body: &Value) -> Pending<Reply> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let mut request = Request::builder().method(method).uri(path);
        if let Some(guid) = guid {
            request = request.header("Guid", guid);
        }
        let request = request.body(body).expect("a request");
        let peer = Peer { address: SocketAddr::from(([127, 0, 0, 1], 1)), tls: true };
        let gateway = Rc::clone(&self.gateway);
        self.server.begin(async move {
            let response: Response<Body> = gateway.answer_http(peer, request).await;
            let guid = response.headers().get("set-guid").map(|value| value.to_str().expect("text").to_owned());
            let guid = guid.map(|guid| guid.strip_prefix("JSESSIONID=").expect("an id").to_owned());
            let effect =
                response.headers().get("ringbridge-effect").map(|value| value.to_str().expect("text").to_owned());
            let effect = effect.map(|effect| serde_json::from_str(&effect).expect("JSON"));
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            Reply { body: serde_json::from_slice(&body).expect("JSON"), guid, effect }
        })
    }

    fn request(&mut self, method: &str, path: &str, guid: Option<&str>, body: &Value) -> Reply {
        let pending = self.begin(method, path, guid, body);
        self.server.finish(pending)
    }

    fn sign_in(&mut self, number: u32) {
        let phone = (8700 + number).to_string();
        let body = json!({"password": "", "phonenum": phone});
        let reply = self.request("PUT", &path("onlineagent", number, ""), None, &body);
        assert_eq!(reply.body["retcode"], "0", "{}", reply.body);
        self.guids.insert(number, reply.guid.expect("an id"));
    }

    fn guid(&self, number: u32) -> String {
        self.guids[&number].clone()
    }

    fn ask(&mut self, number: u32, operation: &str, body: Value) -> Value {
        let guid = self.guid(number);
        self.request("POST", &path("agentconf", number, operation), Some(&guid), &body).body
    }

    #[track_caller]
    fn ok(&mut self, number: u32, operation: &str, body: Value) -> Value {
        let answer = self.ask(number, operation, body);
        assert_eq!(answer["retcode"], "0", "{operation}: {answer}");
        answer["result"].clone()
    }

    /// The `retcode` of a handshake.
    fn shake(&mut self, number: u32) -> Value {
        let guid = self.guid(number);
        self.request("POST", &path("onlineagent", number, "handshake"), Some(&guid), &Value::Null).body["retcode"]
            .clone()
    }

    /// Begins an operation.
    fn begin_operation(&mut self, number: u32, operation: &str, body: &Value) -> Pending<Reply> {
        let guid = self.guid(number);
        self.begin("POST", &path("agentconf", number, operation), Some(&guid), body)
    }

    /// Agent 102 takes part; nobody's events of that are left.
    fn second(&mut self) {
        self.sign_in(102);
        self.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        self.ok(102, "answeragentconf", Value::Null);
        self.answer(8802);
        self.pass(1, &[101, 102]);
        self.told(101);
        self.told(102);
    }

    fn begin_poll(&mut self, number: u32) -> Pending<Reply> {
        let guid = self.guid(number);
        self.begin("GET", &path("agentevent", number, ""), Some(&guid), &Value::Null)
    }

    /// The events that wait. Time passes: the last poll is held.
    fn events(&mut self, number: u32) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let poll = self.begin_poll(number);
            let reply = self.end(poll);
            if let Some(guid) = reply.guid {
                self.guids.insert(number, guid);
            }
            let event = reply.body["event"].clone();
            if event.is_null() {
                return events;
            }
            events.push(event);
        }
    }

    /// Waits for an answer while time passes.
    fn end(&mut self, pending: Pending<Reply>) -> Reply {
        let mut waited = 0;
        while !self.server.is_done(&pending) {
            assert!(waited < 60_000, "never answered");
            self.server.pass(10);
            waited += 10;
        }
        self.server.finish(pending)
    }

    /// Lets time pass while agents shake hands every 30 s.
    fn pass(&mut self, seconds: u64, agents: &[u32]) {
        for passed in 0..seconds {
            if passed % 30 == 0 {
                for number in agents {
                    assert_eq!(self.shake(*number), "0");
                }
            }
            self.server.pass(1000);
        }
    }

    /// The telephone of that number answers with silence.
    fn answer(&mut self, phone: u16) {
        let label = format!("AgentGateway {phone}");
        let local = self.server.pass_until("it is called", 5_000, |server| {
            let listed = server.method("connection.list", json!({})).expect("a list");
            let found =
                listed["connections"].as_array()?.iter().find(|connection| connection["label"] == *label)?.clone();
            found["local"].as_str()?.parse().ok()
        });
        let id = self.phones[usize::from(phone - 8801)];
        self.server.talk(id, local, Voice::Silence);
    }

    /// A running conference of agent 101.
    fn conference(&mut self, body: Value) -> u64 {
        self.sign_in(101);
        self.ok(101, "requestagentconf", body);
        self.answer(8801);
        let began = self.server.ms();
        loop {
            self.server.pass(20);
            assert!(self.server.ms() < began + 5_000, "it never begins");
            let poll = self.begin_poll(101);
            let event = self.end(poll).body["event"].clone();
            if event["eventType"] == "AgentConf_RequestSuccess" {
                return event["content"]["confId"].as_u64().expect("a number");
            }
        }
    }

    /// The types of events with what matters of their content.
    fn told(&mut self, number: u32) -> Vec<String> {
        let events = self.events(number);
        events.iter().map(|event| event["eventType"].as_str().expect("a name").to_owned()).collect()
    }

    fn database(&self) -> rusqlite::Connection {
        store::connect(&store::path_in(&self.server.server.derived.state_dir)).expect("the database")
    }

    /// Whether the server still calls or hears that telephone.
    fn is_connected(&mut self, phone: u16) -> bool {
        let label = format!("AgentGateway {phone}");
        let listed = self.server.method("connection.list", json!({})).expect("a list");
        listed["connections"].as_array().expect("a list").iter().any(|connection| connection["label"] == *label)
    }
}

fn change_agent(clock: &Clock, number: u32, change: impl FnOnce(&mut Agent)) {
    let connection = clock.database();
    let mut agent = agents::find(&connection, number).expect("read").expect("there");
    change(&mut agent);
    agents::update(&connection, &agent, Timestamp::now()).expect("written");
}

fn lock_agent(clock: &Clock, number: u32) {
    change_agent(clock, number, |agent| agent.locked = true);
}

fn expire_password(clock: &Clock, number: u32) {
    change_agent(clock, number, |agent| agent.password_expires_at = Some(Timestamp::now()));
}

fn give_another_password(clock: &Clock, number: u32) {
    let hash = crate::rig::CORRECT_HORSE.parse().expect("a hash");
    agents::set_password(&clock.database(), number, &hash, Timestamp::now()).expect("written");
}

fn remove_agent(clock: &Clock, number: u32) {
    agents::remove(&clock.database(), number).expect("removed");
}

/// A row, by name.
pub(crate) const ROWS: &[(&str, fn())] = &[
    ("a_poll_is_held_for_ten_seconds", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        for _ in 0..2 {
            let poll = clock.begin_poll(101);
            assert!(clock.server.is_done(&poll), "an event waits");
            clock.server.finish(poll);
        }
        let poll = clock.begin_poll(101);
        clock.server.pass(9_950);
        assert!(!clock.server.is_done(&poll));
        clock.server.pass(100);
        assert!(clock.server.is_done(&poll));
        assert_eq!(clock.server.finish(poll).body, json!({"message": "", "retcode": "0", "event": null}));
    }),
    ("a_held_poll_gets_what_comes", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.sign_in(102);
        clock.told(102);
        let poll = clock.begin_poll(102);
        clock.server.pass(9_000);
        assert!(!clock.server.is_done(&poll));
        clock.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        assert!(clock.server.is_done(&poll), "at once");
        assert_eq!(clock.server.finish(poll).body["event"]["eventType"], "AgentConf_Ringing");
    }),
    ("the_older_of_two_polls_is_answered_empty_at_once", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        clock.told(101);
        let first = clock.begin_poll(101);
        clock.server.pass(1_000);
        let second = clock.begin_poll(101);
        assert!(clock.server.is_done(&first) && !clock.server.is_done(&second));
        assert_eq!(clock.server.finish(first).body["event"], Value::Null);
        clock.server.pass(9_900);
        assert!(!clock.server.is_done(&second), "it is held for ten seconds of its own");
        clock.server.pass(200);
        assert!(clock.server.is_done(&second));
    }),
    ("two_minutes_of_silence_sign_an_agent_out", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        clock.server.pass(119_900);
        let reply = clock.ask(101, "answeragentconf", Value::Null);
        assert_eq!(reply["retcode"], "101-001", "signed in still; what is no heartbeat does not count as one");
        clock.server.pass(200);
        assert_eq!(clock.ask(101, "answeragentconf", Value::Null)["retcode"], "100-006");
        // It may sign in again.
        clock.sign_in(101);
        assert_eq!(clock.shake(101), "0");
    }),
    ("a_handshake_keeps_a_session", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        for _ in 0..5 {
            clock.server.pass(119_000);
            assert_eq!(clock.shake(101), "0");
        }
        clock.server.pass(120_100);
        assert_eq!(clock.shake(101), "100-006");
    }),
    ("a_poll_keeps_a_session", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        clock.told(101);
        clock.server.pass(115_000);
        // Held until 125 s after the last.
        let poll = clock.begin_poll(101);
        assert_eq!(clock.end(poll).body["retcode"], "0");
        clock.server.pass(119_000);
        assert_eq!(clock.shake(101), "0");
    }),
    ("a_silent_chair_ends_its_conference", || {
        let mut clock = Clock::start(|_| {});
        let id = clock.conference(json!({"memberNum": 3}));
        clock.sign_in(102);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        clock.ok(102, "answeragentconf", Value::Null);
        clock.answer(8802);
        clock.pass(1, &[101, 102]);
        clock.told(102);
        assert_eq!(clock.shake(101), "0");
        clock.pass(125, &[102]);
        assert_eq!(clock.shake(101), "100-006");
        let events = clock.events(102);
        assert_eq!(events[0]["content"]["changeReason"], 4, "{events:?}");
        assert_eq!(events[1]["content"]["changeReason"], 3, "for the others it is over: {events:?}");
        let left = &events[2];
        assert_eq!((&left["eventType"], &left["content"]["confId"]), (&json!("AgentConf_SelfLeaveResult"), &json!(id)));
        assert!(!clock.is_connected(8801) && !clock.is_connected(8802));
    }),
    ("a_silent_participant_leaves", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.sign_in(102);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        clock.ok(102, "answeragentconf", Value::Null);
        clock.answer(8802);
        clock.pass(1, &[101]);
        clock.told(101);
        clock.pass(125, &[101]);
        let events = clock.events(101);
        assert_eq!((events.len(), &events[0]["content"]["changeReason"]), (1, &json!(4)), "{events:?}");
        assert!(clock.is_connected(8801) && !clock.is_connected(8802));
    }),
    ("dynamic_ids_are_replaced_by_each_poll_and_handshake", || {
        let mut clock = Clock::start(|config| config.auth_mode = 2);
        clock.sign_in(101);
        let first = clock.guid(101);
        let poll = clock.begin_poll(101);
        let second = clock.server.finish(poll).guid.expect("another id");
        assert_ne!(first, second);
        let shake = path("onlineagent", 101, "handshake");
        let third = clock.request("POST", &shake, Some(&second), &Value::Null).guid.expect("another id");
        assert!(![&first, &second].contains(&&third));
        // Only the one before is still good.
        let code = |clock: &mut Clock, guid: &str| {
            clock.request("POST", &path("agentconf", 101, "answeragentconf"), Some(guid), &Value::Null).body["retcode"]
                .clone()
        };
        assert_eq!([&first, &second, &third].map(|guid| code(&mut clock, guid)), ["000-003", "101-001", "101-001"]);
    }),
    ("the_id_before_is_good_for_five_seconds", || {
        let mut clock = Clock::start(|config| config.auth_mode = 2);
        clock.sign_in(101);
        let first = clock.guid(101);
        let poll = clock.begin_poll(101);
        let second = clock.server.finish(poll).guid.expect("another id");
        let code = |clock: &mut Clock, guid: &str| {
            clock.request("POST", &path("agentconf", 101, "answeragentconf"), Some(guid), &Value::Null).body["retcode"]
                .clone()
        };
        clock.server.pass(4_900);
        assert_eq!([&first, &second].map(|guid| code(&mut clock, guid)), ["101-001", "101-001"]);
        clock.server.pass(200);
        assert_eq!([&first, &second].map(|guid| code(&mut clock, guid)), ["000-003", "101-001"]);
    }),
    ("static_ids_stay", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        let poll = clock.begin_poll(101);
        assert_eq!(clock.server.finish(poll).guid, None);
        clock.pass(600, &[101]);
        assert_eq!(clock.shake(101), "0");
    }),
    ("a_conference_ends_when_its_time_is_over", || {
        let mut clock = Clock::start(|_| {});
        let id = clock.conference(json!({"memberNum": 3, "time": 4, "promptTime": 3}));
        clock.ok(101, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        clock.pass(59, &[101]);
        assert_eq!(clock.told(101), ["AgentConf_Timeout"], "a minute, within the poll that is held");
        // Ten seconds of polls are in between.
        clock.pass(160, &[101]);
        let query = json!({"confIds": [id]});
        assert_eq!(clock.ok(101, "queryconfinfos", query.clone())["confs"][0]["confHaveBeenTime"], 3);
        clock.pass(30, &[101]);
        assert_eq!(clock.ask(101, "queryconfinfos", query)["retcode"], "101-001");
        let events = clock.events(101);
        assert_eq!(events[0]["content"]["changeReason"], 3, "{events:?}");
        assert_eq!(events[1]["eventType"], "AgentConf_SelfLeaveResult");
        assert_eq!(events.len(), 4, "no end of an announcement: {events:?}");
        assert!(!clock.is_connected(8801));
    }),
    ("the_prompt_is_told_at_its_time", || {
        for (time, prompt, minute) in [(6, 4, 2), (6, 3, 3), (5, 5, 1), (5, 1440, 1)] {
            let mut clock = Clock::start(|_| {});
            clock.conference(json!({"memberNum": 3, "time": time, "promptTime": prompt}));
            clock.pass(60 * minute - 15, &[101]);
            assert_eq!(clock.told(101), Vec::<String>::new(), "not yet: {time} {prompt}");
            clock.pass(10, &[101]);
            assert_eq!(clock.told(101), ["AgentConf_Timeout"], "{time} {prompt}");
        }
    }),
    ("prolonging_sets_the_timer_anew", || {
        let mut clock = Clock::start(|_| {});
        let id = clock.conference(json!({"memberNum": 3, "time": 4, "promptTime": 3}));
        clock.pass(65, &[101]);
        assert_eq!(clock.told(101), ["AgentConf_Timeout"]);
        assert_eq!(clock.ok(101, "prolongtime", json!({"prolongTime": 2})), json!({"applyedTime": 2}));
        // Now after three minutes, and the end after six.
        clock.pass(90, &[101]);
        assert_eq!(clock.told(101), Vec::<String>::new());
        clock.pass(10, &[101]);
        assert_eq!(clock.told(101), ["AgentConf_Timeout"]);
        clock.pass(150, &[101]);
        assert_eq!(clock.ok(101, "queryconfinfos", json!({"confIds": [id]}))["confs"][0]["applyConfTime"], 6);
        clock.pass(35, &[101]);
        assert_eq!(clock.ask(101, "stopvoicetoconf", Value::Null)["retcode"], "101-001");
    }),
    ("prolonging_before_the_prompt_moves_it", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3, "time": 5, "promptTime": 4}));
        clock.pass(30, &[101]);
        clock.ok(101, "prolongtime", json!({"prolongTime": 1}));
        clock.pass(60, &[101]);
        assert_eq!(clock.told(101), Vec::<String>::new(), "not after one minute");
        clock.pass(15, &[101]);
        assert_eq!(clock.told(101), ["AgentConf_Timeout"], "but after two");
    }),
    ("the_prompt_is_told_to_the_chair_of_then", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3, "time": 4, "promptTime": 3}));
        clock.sign_in(102);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        clock.ok(102, "answeragentconf", Value::Null);
        clock.answer(8802);
        clock.pass(1, &[101, 102]);
        clock.ok(101, "applytoshiftpresident", json!({"destAgentNo": 102}));
        clock.told(101);
        clock.told(102);
        clock.pass(60, &[101, 102]);
        assert_eq!(clock.told(102), ["AgentConf_Timeout"]);
        assert_eq!(clock.told(101), Vec::<String>::new());
    }),
    ("who_does_not_answer_is_given_up", || {
        let mut clock = Clock::start(|config| config.answer_timeout_ms = 30_000);
        clock.conference(json!({"memberNum": 2}));
        clock.told(101);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [phone_address("8804")]}));
        clock.pass(29, &[101]);
        assert!(clock.is_connected(8804));
        clock.pass(2, &[101]);
        assert!(!clock.is_connected(8804));
        let events = clock.events(101);
        assert_eq!(events.len(), 1, "{events:?}");
        let change = &events[0]["content"];
        assert_eq!(
            (&change["result"], &change["changeType"], &change["participant"]),
            (&json!(90_006), &json!(0), &json!("8804"))
        );
        // The seat is free again.
        clock.ok(101, "batchaddparticipant", json!({"addresses": [phone_address("8805")]}));
    }),
    ("an_agent_who_does_not_answer_is_given_up", || {
        let mut clock = Clock::start(|config| config.answer_timeout_ms = 30_000);
        clock.conference(json!({"memberNum": 3}));
        clock.told(101);
        clock.sign_in(102);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        clock.pass(31, &[101]);
        assert_eq!(clock.events(101)[0]["content"]["result"], 90_006);
        assert_eq!(clock.told(102)[2..], ["AgentConf_Ringing", "AgentOther_PhoneRelease", "AgentState_Ready"]);
        assert_eq!(clock.ask(102, "answeragentconf", Value::Null)["retcode"], "101-001");
    }),
    ("a_telephone_may_take_its_time_after_the_agent_has_answered", || {
        let mut clock = Clock::start(|config| config.answer_timeout_ms = 30_000);
        clock.conference(json!({"memberNum": 3}));
        clock.sign_in(102);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [agent_address(102)]}));
        clock.pass(25, &[101, 102]);
        clock.ok(102, "answeragentconf", Value::Null);
        clock.pass(25, &[101, 102]);
        clock.answer(8802);
        clock.pass(1, &[101, 102]);
        assert_eq!(clock.told(102).last().map(String::as_str), Some("AgentConf_SelfJoinResult"));
    }),
    ("a_chair_whose_telephone_does_not_answer", || {
        let mut clock = Clock::start(|config| config.answer_timeout_ms = 30_000);
        clock.sign_in(101);
        clock.ok(101, "requestagentconf", json!({"memberNum": 3}));
        clock.pass(31, &[101]);
        let events = clock.events(101);
        let failed = events.iter().find(|event| event["eventType"] == "AgentConf_RequestFailed").expect("told");
        assert_eq!(failed["content"], json!({"cause": 90_008}));
        assert_eq!(events.last().expect("one")["eventType"], "AgentState_Ready");
        assert!(!clock.is_connected(8801));
        clock.ok(101, "requestagentconf", json!({"memberNum": 3}));
    }),
    ("a_mixer_that_does_not_answer", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.server.hold();
        let guid = clock.guid(101);
        let stop = clock.begin("POST", &path("agentconf", 101, "stopvoicetoconf"), Some(&guid), &Value::Null);
        clock.server.pass(4_900);
        assert!(!clock.server.is_done(&stop));
        clock.server.pass(200);
        let answer = clock.server.finish(stop).body;
        assert_eq!((&answer["retcode"], &answer["result"]), (&json!("100-007"), &json!({})));
        clock.server.release();
        clock.server.pass(100);
        // What was asked for was carried out later, and is told as no end; nothing is left over.
        let again = clock.ask(101, "stopvoicetoconf", Value::Null);
        assert_eq!(again["result"]["errorReason"], 90_001, "{again}");
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.ok(101, "stopvoicetoconf", Value::Null);
    }),
    ("turns_of_a_background_have_no_seam", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.ok(101, "batchaddparticipant", json!({"addresses": [phone_address("8804")]}));
        clock.answer(8804);
        clock.pass(1, &[101]);
        clock.ok(101, "playvoicetoconf", with(&voice("short.wav"), json!({"playType": 1})));
        let from = clock.server.ms() + 200;
        // Fifty turns: one operation.
        clock.pass(6, &[101]);
        let phone = clock.phones[3];
        let heard = clock.server.at(phone).samples(from, from + 5_000);
        let quiet = heard.chunks_exact(80).filter(|chunk| chunk.iter().all(|sample| sample.unsigned_abs() < 64));
        assert_eq!(quiet.count(), 0, "no frame is silent in {} ms", heard.len() / 8);
        let share = clock.server.at(phone).share(1000, from, from + 5_000);
        assert!((0.12..0.2).contains(&share), "{share}");
    }),
    ("an_announcement_ends_after_its_length", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.told(101);
        clock.ok(101, "playvoicetoconf", voice("short.wav"));
        let poll = clock.begin_poll(101);
        clock.server.pass(90);
        assert!(!clock.server.is_done(&poll));
        clock.server.pass(60);
        assert!(clock.server.is_done(&poll));
        let event = clock.server.finish(poll).body["event"].clone();
        assert_eq!((&event["eventType"], &event["content"]), (&json!("AgentConf_StopVoice"), &json!({"result": 0})));
    }),
    ("a_poll_that_is_held_ends_with_its_session", || {
        for (method, operation, body) in [
            ("DELETE", "logout", Value::Null),
            ("DELETE", "forcelogout", Value::Null),
            ("PUT", "forcelogin", json!({"password": "", "phonenum": "8801"})),
        ] {
            let mut clock = Clock::start(|_| {});
            clock.sign_in(101);
            clock.told(101);
            let poll = clock.begin_poll(101);
            clock.server.pass(1_000);
            let guid = clock.guid(101);
            let reply = clock.request(method, &path("onlineagent", 101, operation), Some(&guid), &body);
            assert_eq!(reply.body["retcode"], "0", "{operation}");
            assert!(clock.server.is_done(&poll), "{operation}: at once");
            assert_eq!(clock.server.finish(poll).body["retcode"], "100-008", "{operation}");
        }
    }),
    ("a_second_sign_in_while_the_first_is_looked_at", || {
        let mut clock = Clock::start(|_| {});
        let body = json!({"password": "", "phonenum": "8801"});
        // The database may be quicker than the second of them: then both are let in, one after the other.
        let met = (0..100).any(|_| {
            let both = ["forcelogin", "forcelogin"]
                .map(|operation| clock.begin("PUT", &path("onlineagent", 101, operation), None, &body));
            let codes = both.map(|pending| clock.server.finish(pending).body["retcode"].clone());
            assert!(codes[0] == "0" && (codes[1] == "0" || codes[1] == "100-021"), "{codes:?}");
            codes[1] == "100-021"
        });
        assert!(met);
    }),
    ("a_release_that_waits_for_a_stop", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.server.hold();
        let stop = clock.begin_operation(101, "stopvoicetoconf", &Value::Null);
        assert!(!clock.server.is_done(&stop));
        let release = clock.begin_operation(101, "releaseagentconf", &Value::Null);
        assert!(!clock.server.is_done(&release));
        clock.server.release();
        let codes = [stop, release].map(|pending| clock.end(pending).body["retcode"].clone());
        assert_eq!(codes, ["0", "0"]);
        assert!(!clock.told(101).contains(&"AgentConf_StopVoice".to_owned()));
    }),
    ("a_stop_that_waits_for_a_release", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.server.hold();
        let release = clock.begin_operation(101, "releaseagentconf", &Value::Null);
        assert!(!clock.server.is_done(&release));
        let stop = clock.begin_operation(101, "stopvoicetoconf", &Value::Null);
        clock.server.release();
        let codes = [release, stop].map(|pending| clock.end(pending).body["retcode"].clone());
        assert_eq!(codes, ["0", "101-001"]);
    }),
    ("the_chair_is_passed_on_while_a_stop_is_under_way", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.second();
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.server.hold();
        let stop = clock.begin_operation(101, "stopvoicetoconf", &Value::Null);
        assert!(!clock.server.is_done(&stop));
        let shift = clock.begin_operation(101, "applytoshiftpresident", &json!({"destAgentNo": 102}));
        // Whoever is not the chair yet does not wait.
        let early = clock.begin_operation(102, "stopvoicetoconf", &Value::Null);
        assert!(clock.server.is_done(&early) && !clock.server.is_done(&shift));
        clock.server.release();
        let codes = [stop, shift, early].map(|pending| clock.end(pending).body["retcode"].clone());
        assert_eq!(codes, ["0", "0", "101-002"]);
        assert_eq!(clock.ask(102, "stopvoicetoconf", Value::Null)["result"]["errorReason"], 90_001);
    }),
    ("a_stop_that_waits_while_the_chair_is_passed_on", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.second();
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.server.hold();
        let mute = with(&agent_address(102), json!({"attribute": 1}));
        let first = clock.begin_operation(101, "changeparticipantmode", &mute);
        assert!(!clock.server.is_done(&first));
        let shift = clock.begin_operation(101, "applytoshiftpresident", &json!({"destAgentNo": 102}));
        assert!(!clock.server.is_done(&shift));
        let stop = clock.begin_operation(101, "stopvoicetoconf", &Value::Null);
        assert!(!clock.server.is_done(&stop));
        clock.server.release();
        let codes = [first, shift, stop].map(|pending| clock.end(pending).body["retcode"].clone());
        // When its turn comes it is not the chair's any more.
        assert_eq!(codes, ["0", "0", "101-002"]);
        clock.ok(102, "stopvoicetoconf", Value::Null);
    }),
    ("two_stops_one_after_the_other", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        clock.ok(101, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        clock.server.hold();
        let stops = [(); 2].map(|()| clock.begin_operation(101, "stopvoicetoconf", &Value::Null));
        assert!(stops.iter().all(|stop| !clock.server.is_done(stop)));
        clock.server.release();
        let causes = stops.map(|stop| clock.end(stop).body["result"]["errorReason"].clone());
        assert_eq!(causes, [Value::Null, json!(90_001)], "the first one takes both");
    }),
    ("no_mixing_resource_for_a_conference", || {
        let mut clock = Clock::start_with(|config| config.quota.conference = Some(0));
        clock.sign_in(101);
        clock.ok(101, "requestagentconf", json!({"memberNum": 3}));
        clock.answer(8801);
        clock.pass(1, &[101]);
        let events = clock.events(101);
        let failed = events.iter().find(|event| event["eventType"] == "AgentConf_RequestFailed").expect("told");
        assert_eq!(failed["content"], json!({"cause": 90_007}));
        assert!(!clock.is_connected(8801));
    }),
    ("no_mixing_resource_for_a_participant", || {
        let mut clock = Clock::start_with(|config| config.quota.conference = Some(1));
        clock.conference(json!({"memberNum": 3}));
        clock.told(101);
        clock.ok(101, "batchaddparticipant", json!({"addresses": [phone_address("8804")]}));
        clock.answer(8804);
        clock.pass(1, &[101]);
        let events = clock.events(101);
        assert_eq!((events.len(), &events[0]["content"]["result"]), (1, &json!(90_007)), "{events:?}");
        assert!(!clock.is_connected(8804));
        // Neither for an announcement to all.
        let answer = clock.ask(101, "playvoicetoconf", voice("long.wav"));
        assert_eq!(answer["result"]["errorReason"], 90_007, "{answer}");
        assert_eq!(clock.ask(101, "stopvoicetoconf", Value::Null)["result"]["errorReason"], 90_001);
    }),
    ("no_voice_resource_for_a_hold", || {
        // The chair is rung with one operation; then nothing is left for music.
        let mut clock = Clock::start_with(|config| config.quota.voice = Some(1));
        clock.conference(json!({"memberNum": 3}));
        clock.ok(101, "playvoicetoconf", voice("long.wav"));
        let hold = with(&agent_address(101), voice("long.wav"));
        assert_eq!(clock.ask(101, "holdparticipant", hold.clone())["result"]["errorReason"], 90_007);
        assert_eq!(clock.ask(101, "unholdparticipant", agent_address(101))["result"]["errorReason"], 90_006);
        clock.ok(101, "stopvoicetoconf", Value::Null);
        clock.ok(101, "holdparticipant", hold);
        clock.ok(101, "unholdparticipant", agent_address(101));
    }),
    ("what_is_stopped_or_changed_is_so_within_two_frames", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.second();
        let second = agent_address(102);
        for turn in 0..20 {
            // At another moment of a frame each time.
            clock.server.pass(7 + turn % 13);
            clock.ok(101, "playvoicetoconf", voice("long.wav"));
            clock.ok(101, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
            clock.ok(101, "playvoicetoparticipant", with(&second, voice("long.wav")));
            clock.server.pass(40 + turn);
            for (operation, body) in [
                ("stopvoicetoconf", Value::Null),
                ("stopvoicetoparticipant", second.clone()),
                ("changeparticipantmode", with(&second, json!({"attribute": 1}))),
                ("changeparticipantmode", with(&second, json!({"attribute": 3}))),
                ("holdparticipant", with(&second, voice("long.wav"))),
                ("unholdparticipant", second.clone()),
            ] {
                let pending = clock.begin_operation(101, operation, &body);
                let reply = clock.end(pending);
                assert_eq!(reply.body["retcode"], "0", "{operation}: {}", reply.body);
                let effect = reply.effect.unwrap_or_else(|| panic!("{operation} has no effect"));
                let ms = crate::media::delay_ms(&effect);
                assert!((0.0..=40.0).contains(&ms), "{operation}: {ms} ms: {effect}");
            }
        }
    }),
    ("who_was_removed_or_locked_does_not_stay_signed_in", || {
        for change in [lock_agent, remove_agent, give_another_password, expire_password] {
            let mut clock = Clock::start(|_| {});
            clock.sign_in(101);
            clock.sign_in(102);
            clock.server.pass(6_000);
            assert_eq!(clock.shake(101), "0");
            change(&clock, 101);
            // Threads of the database take no virtual time: it is looked at again a moment later.
            let mut waited = 0;
            while clock.shake(101) == "0" {
                assert!(waited < 100, "never signed out");
                assert_eq!(clock.shake(102), "0");
                clock.server.pass(1_000);
                std::thread::sleep(std::time::Duration::from_millis(5));
                waited += 1;
            }
            assert_eq!(clock.shake(101), "100-006");
            assert_eq!(clock.shake(102), "0");
        }
    }),
    ("an_old_invitation_is_not_given_up_for_a_new_one", || {
        let mut clock = Clock::start(|config| config.answer_timeout_ms = 30_000);
        clock.conference(json!({"memberNum": 3}));
        clock.sign_in(102);
        let invite = json!({"addresses": [agent_address(102)]});
        clock.ok(101, "batchaddparticipant", invite.clone());
        clock.pass(20, &[101, 102]);
        clock.ok(102, "rejectagentconf", Value::Null);
        clock.ok(101, "batchaddparticipant", invite);
        // Thirty seconds after the first, and fifteen after the second.
        clock.pass(15, &[101, 102]);
        clock.ok(102, "answeragentconf", Value::Null);
    }),
    ("signed_out_before_the_conference_is_made", || {
        let mut clock = Clock::start(|_| {});
        clock.sign_in(101);
        let guid = clock.guid(101);
        let request = clock.begin_operation(101, "requestagentconf", &json!({"memberNum": 3}));
        let out = clock.begin("DELETE", &path("onlineagent", 101, "forcelogout"), Some(&guid), &Value::Null);
        clock.end(request);
        assert_eq!(clock.end(out).body["retcode"], "0");
        clock.server.pass(1_000);
        let left = clock.server.method("conference.list", json!({})).expect("a list");
        assert_eq!(left["conferences"], json!([]));
        assert!(!clock.is_connected(8801));
    }),
    ("a_mode_that_was_not_answered_is_put_right", || {
        let mut clock = Clock::start(|_| {});
        clock.conference(json!({"memberNum": 3}));
        clock.second();
        clock.server.hold();
        let mute = with(&agent_address(102), json!({"attribute": 1}));
        let pending = clock.begin_operation(101, "changeparticipantmode", &mute);
        clock.server.pass(5_100);
        let answer = clock.server.finish(pending).body;
        assert_eq!((&answer["retcode"], &answer["result"]), (&json!("100-007"), &json!({})));
        clock.server.release();
        clock.server.pass(100);
        // What is told and what is mixed are the same again.
        let muted = |clock: &mut Clock| {
            let listed = clock.server.method("conference.list", json!({})).expect("a list");
            let entries = listed["conferences"][0]["participants"].as_array().expect("a list").clone();
            entries.iter().filter(|entry| entry["muted"] == true).count()
        };
        assert_eq!(muted(&mut clock), 0);
        clock.ok(101, "changeparticipantmode", mute);
        assert_eq!(muted(&mut clock), 1);
    }),
];

const PHONES: u16 = 6;
