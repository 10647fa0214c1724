//! Every family of actions on pretended native methods, on virtual time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{advance, sleep};

use super::native::{Announce, Answering, Native};
use super::{Branch, MediaControl, Request, Response};
use crate::config::MediaControlConfig;
use crate::events::EventKind;
use crate::gate::Gate;
use crate::proto::{ErrorKind, RpcError};

/// Native methods that keep just enough state to answer plausibly.
#[derive(Default)]
pub(super) struct Fake {
    adapter: RefCell<Weak<MediaControl>>,
    connections: RefCell<BTreeMap<String, Value>>,
    conferences: RefCell<BTreeMap<String, Vec<(String, String)>>>,
    operations: RefCell<BTreeMap<String, String>>,
    made: Cell<u32>,
    calls: RefCell<Vec<(&'static str, Value)>>,
    published: RefCell<Vec<Value>>,
    /// Methods that answer an error.
    refusing: RefCell<BTreeMap<&'static str, RpcError>>,
    /// Methods that wait.
    held: RefCell<BTreeMap<&'static str, Gate>>,
    announced: Rc<Cell<u32>>,
}

/// A test's adapter, and what it stands on.
pub(super) struct Rig {
    pub(super) mc: Rc<MediaControl>,
    pub(super) fake: Rc<Fake>,
}

struct Shared(Rc<Fake>);

impl Native for Shared {
    fn call(&self, method: &'static str, params: Value) -> Answering<'_> {
        Box::pin(async move {
            let fake = &self.0;
            fake.calls.borrow_mut().push((method, params.clone()));
            let held = fake.held.borrow().get(method).cloned();
            if let Some(held) = held {
                held.wait().await;
            }
            let refusal = fake.refusing.borrow().get(method).cloned();
            let result = refusal.map_or_else(|| fake.carry_out(method, &params), Err);
            let announced = Rc::clone(&fake.announced);
            (result, Announce::new(move || announced.set(announced.get() + 1)))
        })
    }

    fn publish(&self, event: &Value) {
        self.0.published.borrow_mut().push(event.clone());
    }

    fn give_up(&self, _connection: &str) {
        // Nothing here is waited for.
    }

    fn low_bitrate_free(&self) -> bool {
        false
    }
}

impl Fake {
    fn name(&self, kind: &str) -> String {
        self.made.set(self.made.get() + 1);
        format!("{kind}-{}", self.made.get())
    }

    fn tell(&self, kind: EventKind, params: &Value) {
        self.adapter.borrow().upgrade().expect("a living adapter").take_event(kind, params);
    }

    /// The native id of an operation ends.
    pub(super) fn end(&self, operation: &str, condition: &str, more: Value) {
        self.operations.borrow_mut().remove(operation);
        let mut ended = json!({"operation_id": operation, "condition": condition, "elapsed_ms": 120});
        if let Value::Object(more) = more {
            ended.as_object_mut().expect("an object").extend(more);
        }
        self.tell(EventKind::OperationEnded, &ended);
    }

    fn carry_out(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
        let connection = || {
            let id = text("connection_id");
            self.connections.borrow().get(&id).cloned().ok_or_else(|| RpcError::unknown_connection(id))
        };
        match method {
            "connection.create" => {
                let id = self.name("c");
                let mut entry = params.clone();
                entry["connection_id"] = id.clone().into();
                entry["local"] = "198.51.100.1:30000".into();
                entry["local_rtcp"] = "198.51.100.1:30001".into();
                entry["shard"] = 0.into();
                entry["reserved"] = params["reserve_ms"].is_number().into();
                self.connections.borrow_mut().insert(id, entry.clone());
                Ok(entry)
            }
            "connection.get" => {
                let mut entry = connection()?;
                let id = text("connection_id");
                let running = self.operations.borrow().values().filter(|target| **target == id).count();
                entry["operations"] = vec!["x"; running].into();
                let conferences = self.conferences.borrow();
                let conference =
                    conferences.iter().find(|(_, members)| members.iter().any(|(member, _)| *member == id));
                if let Some((conference, _)) = conference {
                    entry["conference_id"] = conference.clone().into();
                }
                Ok(entry)
            }
            "connection.modify" => {
                let mut entry = connection()?;
                let given = params.as_object().expect("an object").clone();
                if given.contains_key("remote") || given.contains_key("reserve_ms") {
                    entry["reserved"] = given.contains_key("reserve_ms").into();
                }
                entry.as_object_mut().expect("an object").extend(given);
                self.connections.borrow_mut().insert(text("connection_id"), entry.clone());
                Ok(entry)
            }
            "connection.delete" => self.delete(params),
            "connection.send_digits" => {
                let entry = connection()?;
                if entry["reserved"] == true {
                    return Err(RpcError::new(ErrorKind::NotConnected, "reserved"));
                }
                Ok(json!({}))
            }
            "conference.create" => {
                let id = self.name("f");
                self.conferences.borrow_mut().insert(id.clone(), Vec::new());
                Ok(json!({"conference_id": id, "shard": 0}))
            }
            "conference.join" => {
                let role = params["role"].as_str().unwrap_or("party").to_owned();
                let mut conferences = self.conferences.borrow_mut();
                let members = conferences.get_mut(&text("conference_id"));
                members.ok_or_else(|| RpcError::unknown_conference(""))?.push((text("connection_id"), role));
                Ok(json!({}))
            }
            "conference.set" => {
                let mut conferences = self.conferences.borrow_mut();
                let members = conferences.get_mut(&text("conference_id"));
                let members = members.ok_or_else(|| RpcError::unknown_conference(""))?;
                let member = members.iter_mut().find(|(member, _)| *member == text("connection_id"));
                let member = member.ok_or_else(|| RpcError::new(ErrorKind::NotAParticipant, "not in it"))?;
                if let Some(role) = params["role"].as_str() {
                    member.1 = role.to_owned();
                }
                Ok(json!({}))
            }
            "conference.get" => {
                let conferences = self.conferences.borrow();
                let members = conferences.get(&text("conference_id"));
                let members = members.ok_or_else(|| RpcError::unknown_conference(""))?;
                let told: Vec<_> =
                    members.iter().map(|(id, role)| json!({"connection_id": id, "role": role})).collect();
                Ok(json!({"participants": told}))
            }
            "conference.delete" => {
                self.conferences.borrow_mut().remove(&text("conference_id"));
                Ok(json!({}))
            }
            "operation.start" => {
                let mut target = text("connection_id");
                if target.is_empty() {
                    target = self.name("util");
                } else if connection()?["reserved"] == true {
                    return Err(RpcError::new(ErrorKind::NotConnected, "reserved"));
                }
                let id = self.name("o");
                self.operations.borrow_mut().insert(id.clone(), target.clone());
                let mut told = json!({"operation_id": id, "connection_id": target});
                if params["kind"] == "record" {
                    told["path"] = params["path"].as_str().unwrap_or("0000abcd.vox").into();
                }
                Ok(told)
            }
            "operation.stop" => {
                let running = self.operations.borrow().clone();
                let wanted = params["operation_id"].as_str();
                let here = running.into_iter().filter(|(_, target)| *target == text("connection_id"));
                for (id, _) in here.filter(|(id, _)| wanted.is_none_or(|wanted| wanted == id)) {
                    self.end(&id, "userstop", Value::Null);
                }
                Ok(json!({}))
            }
            "operation.adjust" => {
                let running = self.operations.borrow().values().any(|target| *target == text("connection_id"));
                if running { Ok(json!({})) } else { Err(RpcError::unknown_operation("")) }
            }
            other => panic!("{other} is called"),
        }
    }

    fn delete(&self, params: &Value) -> Result<Value, RpcError> {
        let connection = params["connection_id"].as_str();
        let conference = params["conference_id"].as_str();
        let gone: Vec<String> = match (connection, conference) {
            (Some(connection), Some(conference)) => {
                let mut conferences = self.conferences.borrow_mut();
                let members = conferences.get_mut(conference).ok_or_else(|| RpcError::unknown_conference(""))?;
                let place = members.iter().position(|(member, _)| member == connection);
                members.remove(place.ok_or_else(|| RpcError::new(ErrorKind::NotAParticipant, "not in it"))?);
                let last = members.is_empty();
                if last {
                    conferences.remove(conference);
                    drop(conferences);
                    self.tell(EventKind::ConferenceEnded, &json!({"conference_id": conference}));
                }
                Vec::new()
            }
            (None, Some(conference)) => {
                let members = self.conferences.borrow_mut().remove(conference);
                let members = members.ok_or_else(|| RpcError::unknown_conference(""))?;
                self.tell(EventKind::ConferenceEnded, &json!({"conference_id": conference}));
                members.into_iter().map(|(member, _)| member).collect()
            }
            (Some(connection), None) => vec![connection.to_owned()],
            (None, None) => Vec::new(),
        };
        for id in &gone {
            self.connections.borrow_mut().remove(id).ok_or_else(|| RpcError::unknown_connection(id))?;
            let running = self.operations.borrow().clone();
            for (operation, _) in running.into_iter().filter(|(_, target)| target == id) {
                self.end(&operation, "autostop", Value::Null);
            }
            self.tell(EventKind::ConnectionEnded, &json!({"connection_id": id, "reason": "deleted"}));
        }
        Ok(json!({"deleted": gone}))
    }

    /// The parameters of the last call of a method.
    fn last(&self, method: &str) -> Value {
        let calls = self.calls.borrow();
        calls.iter().rev().find(|(called, _)| *called == method).expect("called").1.clone()
    }

    fn count(&self, method: &str) -> usize {
        self.calls.borrow().iter().filter(|(called, _)| *called == method).count()
    }

    fn refuse(&self, method: &'static str, error: RpcError) {
        self.refusing.borrow_mut().insert(method, error);
    }

    fn hold(&self, method: &'static str) -> Gate {
        let gate = Gate::default();
        self.held.borrow_mut().insert(method, gate.clone());
        gate
    }
}

impl Rig {
    pub(super) fn new(change: impl FnOnce(&mut MediaControlConfig)) -> Self {
        let mut config = MediaControlConfig::default();
        change(&mut config);
        let fake = Rc::new(Fake::default());
        let mc = MediaControl::new(config, Box::new(Shared(Rc::clone(&fake))), Duration::from_millis(0));
        *fake.adapter.borrow_mut() = Rc::downgrade(&mc);
        Self { mc, fake }
    }

    pub(super) async fn call(&self, action: &str, params: Value) -> Response {
        let Value::Object(params) = params else { panic!("an object") };
        let routing_guid = Some("script".to_owned());
        self.mc.call(Request { action: action.to_owned(), routing_guid, params, ..Request::default() }).await
    }

    /// An action that has to succeed.
    pub(super) async fn ok(&self, action: &str, params: Value) -> Map<String, Value> {
        let response = self.call(action, params).await;
        assert_eq!(response.branch, Branch::Success, "{action}: {:?}", response.to_value());
        response.results
    }

    /// The code of an action that has to fail, and its reason.
    async fn code(&self, action: &str, params: Value) -> u8 {
        let response = self.call(action, params).await;
        assert_eq!(response.branch, Branch::Failure, "{action}: {:?}", response.to_value());
        response.code().expect("a code")
    }

    /// A new connection.
    pub(super) async fn connection(&self) -> String {
        let results = self.ok("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 4000})).await;
        results["ConnectionId"].as_str().expect("an id").to_owned()
    }

    async fn reserved(&self) -> String {
        let results = self.ok("ReserveConnection", json!({})).await;
        results["ConnectionId"].as_str().expect("an id").to_owned()
    }

    async fn conference(&self, connection: &str) -> String {
        let results = self.ok("CreateConference", json!({"ConnectionId": connection})).await;
        results["ConferenceId"].as_str().expect("an id").to_owned()
    }

    /// Answers that were handed over.
    pub(super) fn announced(&self) -> u32 {
        self.fake.announced.get()
    }

    /// Connections there are.
    pub(super) fn connections(&self) -> usize {
        self.fake.connections.borrow().len()
    }

    /// Events of the script so far, by name without the namespace.
    pub(super) fn events(&self) -> Vec<(String, Value)> {
        let Some(log) = self.mc.logs().get("script") else { return Vec::new() };
        let name = |event: &Value| event["event"].as_str().unwrap_or_default().replace("Metreos.MediaControl.", "");
        log.read(0, usize::MAX).events.iter().map(|event| (name(event), event["params"].clone())).collect()
    }
}

/// Runs a test on virtual time.
pub(super) fn run(work: impl AsyncFnOnce(Rig)) {
    run_with(|_| {}, work);
}

pub(super) fn run_with(change: impl FnOnce(&mut MediaControlConfig), work: impl AsyncFnOnce(Rig)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { work(Rig::new(change)).await });
}

/// Lets everything run that can.
pub(super) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn text(results: &Map<String, Value>, name: &str) -> String {
    results[name].as_str().unwrap_or_else(|| panic!("{name} is no text")).to_owned()
}

#[test]
fn reserve_and_complete() {
    run(async |rig| {
        let reserved = rig.ok("ReserveConnection", json!({"MediaTxCodec": "G729"})).await;
        assert_eq!((&reserved["MmsId"], &reserved["ResultCode"]), (&json!(1), &json!("0")));
        assert_eq!((&reserved["MediaRxIP"], &reserved["MediaRxPort"]), (&json!("198.51.100.1"), &json!(30000)));
        assert_eq!(reserved["LocalMediaCaps"], json!({"G711u": [10, 20, 30], "G711a": [10, 20, 30]}));
        let create = rig.fake.last("connection.create");
        assert_eq!(
            (&create["reserve_ms"], &create["rx_codec"], &create["digits"]),
            (&json!(300_000), &json!("G729"), &json!("auto"))
        );
        let id = text(&reserved, "ConnectionId");
        assert_eq!(
            rig.code("ModifyConnection", json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 1})).await,
            16
        );
        assert_eq!(rig.code("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await, 16);
        assert_eq!(rig.code("SendDigits", json!({"ConnectionId": id, "Digits": "1"})).await, 16);
        let tx = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 4000, "CallId": 77});
        let complete = rig.ok("CreateConnection", tx.clone()).await;
        assert_eq!((&complete["ConnectionId"], &complete["CallId"]), (&json!(id), &json!(77)));
        let modify = rig.fake.last("connection.modify");
        assert_eq!((&modify["remote"], &modify["tx_codec"]), (&json!("192.0.2.1:4000"), &Value::Null));
        assert_eq!(rig.code("CreateConnection", tx).await, 15);
    });
}

#[test]
fn an_expired_reservation_is_12_and_then_23() {
    run(async |rig| {
        let id = rig.reserved().await;
        rig.fake.tell(EventKind::ConnectionEnded, &json!({"connection_id": "c-1", "reason": "expired"}));
        let tx = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 4000});
        assert_eq!(rig.code("CreateConnection", tx.clone()).await, 12);
        advance(Duration::from_secs(61)).await;
        assert_eq!(rig.code("CreateConnection", tx).await, 23);
    });
}

#[test]
fn parameters_are_checked_before_ids() {
    run(async |rig| {
        for (action, params, code) in [
            ("CreateConnection", json!({"MediaTxPort": 4000}), 26),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1"}), 26),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 0}), 27),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.999", "MediaTxPort": 1, "ConnectionId": "x"}), 27),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "MmsId": 256}), 27),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "MmsId": 9}), 8),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "ConnectionId": "x"}), 22),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "ConnectionId": "16777999"}), 23),
            (
                "CreateConnection",
                json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "MediaTxCodec": "G729", "MediaTxFramesize": 10}),
                27,
            ),
            ("ReserveConnection", json!({"MmsId": "one"}), 27),
            ("ModifyConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1}), 26),
            ("ModifyConnection", json!({"ConnectionId": "33554433", "MediaTxIP": "192.0.2.1", "MediaTxPort": 1}), 8),
            ("DeleteConnection", json!({}), 26),
            ("DeleteConnection", json!({"ConnectionId": "0"}), 26),
            ("DeleteConnection", json!({"ConnectionId": "-"}), 22),
            ("DeleteConnection", json!({"ConferenceId": "16777999"}), 24),
            ("LeaveConference", json!({"ConnectionId": "16777217"}), 26),
            ("CreateConference", json!({}), 26),
            ("JoinConference", json!({"ConnectionId": "16777217"}), 26),
            ("JoinConference", json!({"ConnectionId": "16777217", "ConferenceId": "33554433"}), 26),
            ("JoinConference", json!({"ConferenceId": "16777217"}), 26),
            ("CreateConference", json!({"ConnectionId": "16777217", "MediaTxPort": 0}), 26),
            ("JoinConference", json!({"ConnectionId": "16777217", "ConferenceId": "16777218", "MediaTxPort": 0}), 15),
            ("SetConfereeAttribute", json!({"ConnectionId": "1", "ConferenceId": "1"}), 26),
            ("SetConfereeAttribute", json!({"ConnectionId": "1", "Mute": true}), 26),
            ("Mute", json!({"ConnectionId": "1"}), 26),
            ("Play", json!({"Prompt1": "a"}), 26),
            ("Play", json!({"ConnectionId": "1"}), 26),
            ("Play", json!({"ConnectionId": "1", "ConferenceId": "1", "Prompt1": "a"}), 26),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "Volume": 1, "Speed": 1}), 26),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "Volume": 11}), 27),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "AudioFileSampleRate": 7}), 27),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "TermCondMaxDigits": 32}), 36),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "TermCondDigit": "x"}), 36),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a"}), 23),
            ("SeekAndPlay", json!({"ConnectionId": "1", "Prompt1": "a"}), 26),
            ("PlayTone", json!({"ConnectionId": "1", "Frequency1": 199}), 27),
            ("PlayTone", json!({"ConnectionId": "1", "Amplitude1": 1}), 27),
            ("PlayTone", json!({"ConnectionId": "1", "Duration": 0}), 26),
            ("Record", json!({"ConnectionId": "1", "Expires": 10_000}), 27),
            ("Record", json!({"ConnectionId": "1", "AudioFileFormat": "mp3"}), 27),
            ("GatherDigits", json!({}), 26),
            ("GatherDigits", json!({"ConnectionId": "1", "ConferenceId": "1"}), 26),
            ("GatherDigits", json!({"ConnectionId": "1", "TermCondDigitPattern": "1234567890123456"}), 36),
            ("SendDigits", json!({"ConnectionId": "1"}), 26),
            ("SendDigits", json!({"ConnectionId": "1", "Digits": "1x"}), 27),
            ("DetectSilence", json!({"ConnectionId": "1", "SilenceTime": 0}), 26),
            ("DetectNonSilence", json!({"ConnectionId": "1", "SilenceTime": 5}), 26),
            ("AdjustPlay", json!({"ConnectionId": "1"}), 26),
            ("AdjustPlay", json!({"ConnectionId": "1", "Volume": 1, "Speed": 1}), 26),
            ("AdjustPlay", json!({"ConnectionId": "1", "Volume": 11}), 27),
            ("AdjustPlay", json!({"ConnectionId": "1", "AdjustmentType": "toggle", "ToggleType": 5}), 27),
            ("StopMediaOperation", json!({"OperationId": "1"}), 26),
            ("StopMediaOperation", json!({"ConnectionId": "1", "Block": "maybe"}), 27),
            ("VoiceRecognition", json!({"ConnectionId": "1"}), 26),
            ("ManageGrammar", json!({"ConnectionId": "1", "Grammar": "a"}), 26),
            ("SaveDynamicGrammar", json!({"DynGrammar": "x"}), 26),
            ("SaveDynamicGrammar", json!({"DynGrammar": "x", "IsScriptBound": true}), 8),
            ("NoSuchAction", json!({}), 21),
            ("Play", json!({"ConnectionId": "1", "connectionid": "1", "Prompt1": "a"}), 26),
        ] {
            assert_eq!(rig.code(action, params.clone()).await, code, "{action} {params}");
        }
        assert!(rig.fake.calls.borrow().is_empty(), "nothing of this goes to the engine");
        let id = rig.connection().await;
        assert_eq!(rig.code("VoiceRecognition", json!({"ConnectionId": id, "Grammar1": "a"})).await, 8);
        let params = json!({"ConnectionId": id, "Action": "load", "Grammars": ["a"]});
        assert_eq!(rig.code("ManageGrammar", params).await, 8);
    });
}

#[test]
fn modify_says_when_nothing_is_different() {
    run(async |rig| {
        let id = rig.connection().await;
        let same = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": "4000"});
        let response = rig.ok("ModifyConnection", same).await;
        assert_eq!((&response["ReasonCode"], &response["ResultCode"]), (&json!("17"), &json!("0")));
        assert_eq!(rig.fake.count("connection.modify"), 0);
        let other = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.2", "MediaTxPort": "4000"});
        let response = rig.ok("ModifyConnection", other.clone()).await;
        assert!(!response.contains_key("ReasonCode"));
        let full = RpcError::new(ErrorKind::LimitReached, "full").with("resource", "enhanced_rtp").with("reason", 7);
        rig.fake.refuse("connection.modify", full);
        let low = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.2", "MediaTxPort": 4000, "MediaTxCodec": "G729"});
        let response = rig.call("ModifyConnection", low).await;
        assert_eq!((response.code(), &response.results["ReasonCode"]), (Some(8), &json!("7")));
    });
}

#[test]
fn the_older_namespace_has_other_names_for_the_same() {
    run(async |rig| {
        let call = |name: &str| format!("Metreos.Providers.MediaServer.{name}");
        let code = async |name: &str, params: Value| {
            rig.call(&call(name), params).await.results["resultCode"].as_str().map(str::to_owned)
        };
        let half = rig.call(&call("CreateConnection"), json!({"remoteIp": "0", "remotePort": 0})).await;
        assert_eq!(half.results["resultCode"], "0", "{half:?}");
        let id = half.results["connectionId"].as_str().expect("an id").to_owned();
        assert!(half.results.contains_key("ipAddress") && half.results.contains_key("port"), "{half:?}");
        let full = json!({"connectionId": id, "remoteIp": "192.0.2.1", "remotePort": "4000"});
        assert_eq!(code("CreateConnection", full).await.as_deref(), Some("0"), "completed");
        let moved = json!({"connectionId": id, "remoteIp": "192.0.2.2", "remotePort": "4000"});
        assert_eq!(code("CreateConnection", moved).await.as_deref(), Some("0"), "changed");
        assert_eq!(rig.fake.count("connection.modify"), 2);
        let room = json!({"conferenceId": 0, "connectionId": id});
        let room = rig.call(&call("CreateConnectionConference"), room).await;
        let conference = room.results["conferenceId"].as_str().expect("an id").to_owned();
        let both = json!({"connectionId": id, "conferenceId": conference, "filename": "a.wav"});
        let played = rig.call(&call("PlayAnnouncement"), both.clone()).await;
        assert_eq!(
            (&played.results["resultCode"], &played.results["connectionId"]),
            (&json!("1"), &json!(id)),
            "{played:?}"
        );
        drop(played);
        assert_eq!(code("MuteConferenceConnection", both.clone()).await.as_deref(), Some("0"));
        assert_eq!(code("StopMediaOperation", json!({"connectionId": id})).await.as_deref(), Some("0"));
        assert_eq!(code("JoinConference", both).await.as_deref(), Some("21"), "not of that namespace");
        assert_eq!(code("DeleteConnection", json!({"connectionId": id})).await.as_deref(), Some("0"));
    });
}

#[test]
fn delete_has_three_forms() {
    run(async |rig| {
        let (one, other) = (rig.connection().await, rig.connection().await);
        let conference = rig.conference(&one).await;
        rig.ok("JoinConference", json!({"ConnectionId": other, "ConferenceId": conference})).await;
        let leave = json!({"ConnectionId": one, "ConferenceId": conference});
        assert_eq!(
            rig.ok("DeleteConnection", leave.clone()).await,
            json!({"ResultCode": "0"}).as_object().expect("one").clone()
        );
        assert_eq!(rig.code("LeaveConference", leave).await, 24);
        rig.ok("LeaveConference", json!({"ConnectionId": other, "ConferenceId": conference})).await;
        // The last one out has ended it.
        assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})).await, 24);
        rig.ok("DeleteConnection", json!({"ConnectionId": one})).await;
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": one})).await, 23);
        let conference = rig.conference(&other).await;
        rig.ok("DeleteConnection", json!({"ConferenceId": conference})).await;
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": other})).await, 23);
        assert!(rig.fake.connections.borrow().is_empty());
    });
}

#[test]
fn a_delete_waits_for_what_is_unanswered_and_ends_operations() {
    run(async |rig| {
        let id = rig.connection().await;
        let gate = rig.fake.hold("operation.start");
        let mc = Rc::clone(&rig.mc);
        let play = request("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"}));
        let play = spawn_local(async move { mc.call(play).await });
        settle().await;
        let (mc, delete) = (Rc::clone(&rig.mc), request("DeleteConnection", json!({"ConnectionId": id})));
        let delete = spawn_local(async move { mc.call(delete).await });
        settle().await;
        assert_eq!(rig.fake.count("connection.delete"), 0);
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": id})).await, 14);
        assert_eq!(rig.code("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await, 14);
        gate.open();
        assert_eq!(play.await.expect("no panic").code(), Some(1));
        assert_eq!(delete.await.expect("no panic").code(), Some(0));
        let events = rig.events();
        assert_eq!((events[0].0.as_str(), &events[0].1["TerminationCondition"]), ("Play_Complete", &json!("autostop")));
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": id})).await, 23);
    });
}

#[test]
fn conferences_are_made_and_joined() {
    run(async |rig| {
        let id = rig.connection().await;
        let made = rig.ok("CreateConference", json!({"ConnectionId": id, "Hairpin": "false", "CallId": "5"})).await;
        assert_eq!(
            (&made["ConnectionId"], &made["CallId"], &made["MediaRxPort"]),
            (&json!(id), &json!("5"), &json!(30000))
        );
        let create = rig.fake.last("conference.create");
        assert_eq!(create, json!({"hairpin": false, "tones": true, "shard": 0}));
        assert_eq!(rig.code("CreateConference", json!({"ConnectionId": id})).await, 15);
        let conference = text(&made, "ConferenceId");
        // One is completed on the way, one is made on the way, one is only reserved.
        let reserved = rig.reserved().await;
        assert_eq!(rig.code("JoinConference", json!({"ConnectionId": reserved, "ConferenceId": conference})).await, 16);
        let tx = json!({"ConnectionId": reserved, "ConferenceId": conference, "MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "ReceiveOnly": true});
        rig.ok("JoinConference", tx).await;
        assert_eq!(rig.fake.last("conference.join")["muted"], true);
        let fresh = rig
            .ok("JoinConference", json!({"ConferenceId": conference, "MediaTxIP": "192.0.2.1", "MediaTxPort": 7}))
            .await;
        assert_ne!(text(&fresh, "ConnectionId"), reserved);
        // Busy with an operation.
        let busy = rig.connection().await;
        rig.ok("Play", json!({"ConnectionId": busy, "Prompt1": "a.wav"})).await;
        assert_eq!(rig.code("JoinConference", json!({"ConnectionId": busy, "ConferenceId": conference})).await, 14);
        // Zero is a new one.
        let alone = rig.connection().await;
        let made = rig.ok("JoinConference", json!({"ConnectionId": alone, "ConferenceId": "0"})).await;
        assert_ne!(text(&made, "ConferenceId"), conference);
    });
}

#[test]
fn nothing_is_left_of_a_join_that_fails() {
    run(async |rig| {
        let full = RpcError::new(ErrorKind::LimitReached, "full").with("resource", "conference");
        rig.fake.refuse("conference.join", full);
        let params = json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 7});
        assert_eq!(rig.code("CreateConference", params).await, 8);
        assert!(rig.fake.connections.borrow().is_empty() && rig.fake.conferences.borrow().is_empty());
        // A reserved connection is as it was.
        let reserved = rig.ok("ReserveConnection", json!({"MediaRxCodec": "G711a", "MediaRxFramesize": 30})).await;
        let id = text(&reserved, "ConnectionId");
        let params = json!({
            "ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 7, "MediaTxCodec": "G729", "MediaTxFramesize": 40,
        });
        let before = rig.fake.connections.borrow().clone();
        assert_eq!(rig.code("CreateConference", params).await, 8);
        for (native, then) in before {
            let now = rig.fake.connections.borrow()[&native].clone();
            for member in ["reserved", "rx_codec", "tx_codec", "ptime_ms", "direction"] {
                assert_eq!(now[member], then[member], "{member}");
            }
            assert_eq!(now["reserve_ms"], 300_000);
        }
        assert_eq!(rig.code("PlayTone", json!({"ConnectionId": id})).await, 16);
    });
}

#[test]
fn roles_go_by_precedence() {
    run(async |rig| {
        for (given, role, muted, tariff_tone) in [
            (json!({}), Value::Null, false, false),
            (
                json!({"Coach": true, "ReceiveOnly": true, "TariffTone": true, "Monitor": true}),
                json!("coach"),
                false,
                false,
            ),
            (json!({"Pupil": true, "ReceiveOnly": true, "TariffTone": true}), json!("pupil"), false, true),
            (json!({"Pupil": true, "Coach": true, "ReceiveOnly": true}), Value::Null, true, false),
            (json!({"Monitor": true}), json!("monitor"), false, false),
        ] {
            let mut params = given.clone();
            params["ConnectionId"] = rig.connection().await.into();
            rig.ok("CreateConference", params).await;
            let join = rig.fake.last("conference.join");
            assert_eq!(
                (&join["role"], &join["muted"], &join["tariff_tone"]),
                (&role, &json!(muted), &json!(tariff_tone)),
                "{given}"
            );
        }
    });
}

#[test]
fn attributes_are_set_together() {
    run(async |rig| {
        let id = rig.connection().await;
        let conference = rig.conference(&id).await;
        let with = |more: Value| {
            let mut params = json!({"ConnectionId": id, "ConferenceId": conference});
            params.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
            params
        };
        rig.ok("SetConfereeAttribute", with(json!({"TariffTone": true, "Pupil": true}))).await;
        let set = rig.fake.last("conference.set");
        assert_eq!((&set["role"], &set["tariff_tone"], &set["muted"]), (&json!("pupil"), &json!(true), &Value::Null));
        rig.ok("SetConfereeAttribute", with(json!({"Coach": false}))).await;
        assert!(rig.fake.last("conference.set")["role"].is_null(), "it is no coach");
        rig.ok("SetConfereeAttribute", with(json!({"Pupil": false}))).await;
        assert_eq!(rig.fake.last("conference.set")["role"], "party");
        rig.ok("Mute", with(json!({}))).await;
        assert_eq!(rig.fake.last("conference.set")["muted"], true);
        rig.ok("Unmute", with(json!({}))).await;
        assert_eq!(rig.fake.last("conference.set")["muted"], false);
        rig.fake.refuse("conference.set", RpcError::invalid_param("muted", "a coach can't be muted"));
        assert_eq!(rig.code("SetConfereeAttribute", with(json!({"Mute": true}))).await, 26);
        let other = rig.connection().await;
        let stranger = json!({"ConnectionId": other, "ConferenceId": conference, "Coach": true});
        assert_eq!(rig.code("SetConfereeAttribute", stranger).await, 24);
    });
}

#[test]
fn operations_are_started_with_what_was_asked() {
    run(async |rig| {
        let id = rig.connection().await;
        let check = async |action: &str, params: Value, expected: Value| {
            let mut params = params;
            params["ConnectionId"] = id.clone().into();
            let started = rig.ok(action, params).await;
            assert_eq!((&started["ResultCode"], &started["ConnectionId"]), (&json!("1"), &json!(id)));
            let mut expected = expected;
            expected["connection_id"] = "c-1".into();
            assert_eq!(rig.fake.last("operation.start"), expected, "{action}");
        };
        check(
            "Play",
            json!({"Prompt1": "a.wav", "Prompt3": "c", "Volume": "-4", "TermCondMaxTime": 900, "TermCondDigit": "5#",
                "TermCondDigitList": "12", "TermCondMaxDigits": 4, "TermCondSilence": 10, "TermCondNonSilence": 20,
                "AudioFileEncoding": "PCM", "AudioFileSampleRate": 11, "AudioFileSampleSize": 16, "CommandTimeout": 5}),
            json!({"kind": "play", "prompts": ["a.wav", "c"], "volume": -4, "max_time_ms": 900, "digit": "5",
                "digit_list": "12", "digits": 4, "silence_ms": 10, "nonsilence_ms": 20, "encoding": "pcm",
                "sample_rate_hz": 11025, "bits": 16, "timeout_ms": 5, "locale": "en-US", "isolate": true}),
        )
        .await;
        check(
            "SeekAndPlay",
            json!({"Prompt": "a.wav", "SeekPosition": 250}),
            json!({"kind": "play", "prompts": ["a.wav"], "spoken": false, "start_ms": 250, "timeout_ms": 600_000,
                "locale": "en-US", "isolate": true}),
        )
        .await;
        check(
            "PlayTone",
            json!({"Frequency2": 440, "TermCondMaxTime": 3}),
            json!({"kind": "tone", "frequency_hz": 600, "level_db": -10, "frequency2_hz": 440, "level2_db": -10,
                "duration_ms": 1000, "timeout_ms": 10_000, "max_time_ms": 3, "isolate": true}),
        )
        .await;
        check(
            "Record",
            json!({"Filename": "x.WAV", "AudioFileEncoding": "adpcm", "Expires": 0}),
            json!({"kind": "record", "path": "x.WAV", "container": "wav", "encoding": "adpcm", "bits": 4,
                "sample_rate_hz": 8000, "expires_days": 0, "timeout_ms": 600_000}),
        )
        .await;
        check(
            "Record",
            json!({}),
            json!({"kind": "record", "container": "vox", "encoding": "ulaw", "bits": 8, "sample_rate_hz": 8000,
                "expires_days": 1, "timeout_ms": 600_000}),
        )
        .await;
        check(
            "GatherDigits",
            json!({"TermCondDigitPattern": "12", "TermCondInterDigitDelay": 700, "TermCondMaxDigits": "3"}),
            json!({"kind": "gather_digits", "digit_pattern": "12", "inter_digit_ms": 700, "digits": 3,
                "timeout_ms": 90_000}),
        )
        .await;
        let silence = json!({"kind": "detect_silence", "silence_ms": 400, "timeout_ms": 30_000});
        check("DetectSilence", json!({"SilenceTime": 400}), silence).await;
        let sound = json!({"kind": "detect_nonsilence", "nonsilence_ms": 400, "timeout_ms": 7});
        check("DetectNonSilence", json!({"NonSilenceTime": 400, "CommandTimeout": 7}), sound).await;
    });
}

#[test]
fn an_end_is_told_once_with_the_state_given() {
    run(async |rig| {
        let id = rig.connection().await;
        let play = json!({"ConnectionId": id, "Prompt1": "a.wav", "State": "mine"});
        let started = rig.ok("Play", play.clone()).await;
        rig.fake.end("o-2", "eod", Value::Null);
        rig.fake.end("o-2", "eod", Value::Null);
        rig.ok("Record", json!({"ConnectionId": id, "Filename": "x.wav", "State": "rec"})).await;
        rig.fake.end("o-3", "maxtime", json!({"path": "x.wav"}));
        rig.ok("GatherDigits", json!({"ConnectionId": id})).await;
        rig.fake.end("o-4", "maxdigits", json!({"digits": "12"}));
        rig.ok("Play", play).await;
        rig.fake.end("o-5", "error", json!({"cause": "shard_failed"}));
        let events = rig.events();
        let operation = &started["OperationId"];
        assert_eq!(
            events[0],
            (
                "Play_Complete".to_owned(),
                json!({"ConnectionId": id, "OperationId": operation, "State": "mine",
                "ResultCode": "0", "TerminationCondition": "eod", "ElapsedTime": 120})
            )
        );
        assert_eq!((events[1].0.as_str(), &events[1].1["Filename"]), ("Record_Complete", &json!("x.wav")));
        assert_eq!((events[2].0.as_str(), &events[2].1["Digits"]), ("GatherDigits_Complete", &json!("12")));
        assert_eq!(
            (events[3].0.as_str(), &events[3].1["ResultCode"], &events[3].1["State"]),
            ("Play_Failed", &json!("7"), &json!("mine"))
        );
        assert_eq!(events.len(), 4);
        assert_eq!(rig.fake.published.borrow().len(), 4);
    });
}

#[test]
fn an_operation_on_a_conference_has_a_connection_of_its_own() {
    run(async |rig| {
        let id = rig.connection().await;
        let conference = rig.conference(&id).await;
        let started = rig.ok("Play", json!({"ConferenceId": conference, "Prompt1": "a.wav"})).await;
        let utility = text(&started, "ConnectionId");
        assert_ne!(utility, id);
        assert!(rig.fake.last("operation.start")["isolate"].is_null());
        assert_eq!(rig.code("Play", json!({"ConnectionId": utility, "Prompt1": "a.wav"})).await, 23);
        rig.ok("AdjustPlay", json!({"ConnectionId": utility, "Volume": 2})).await;
        rig.ok("StopMediaOperation", json!({"ConnectionId": utility})).await;
        assert_eq!(rig.events()[0].1["ConnectionId"], json!(utility));
        assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": utility})).await, 23);
    });
}

#[test]
fn stop_ends_one_or_all_and_tells_before_it_answers() {
    run(async |rig| {
        let (id, other) = (rig.connection().await, rig.connection().await);
        let play = rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
        rig.ok("GatherDigits", json!({"ConnectionId": id})).await;
        let operation = &play["OperationId"];
        assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": other, "OperationId": operation})).await, 25);
        let (fake, mc) = (Rc::clone(&rig.fake), Rc::clone(&rig.mc));
        rig.ok("StopMediaOperation", json!({"ConnectionId": id, "OperationId": operation})).await;
        assert_eq!(fake.last("operation.stop"), json!({"connection_id": "c-1", "operation_id": "o-3", "block": true}));
        let events = rig.events();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].0.as_str(), &events[0].1["TerminationCondition"]), ("Play_Complete", &json!("userstop")));
        assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": id, "OperationId": operation})).await, 25);
        rig.ok("StopMediaOperation", json!({"ConnectionId": id, "Block": "False"})).await;
        assert_eq!(fake.last("operation.stop")["block"], false);
        assert_eq!(mc.logs().get("script").expect("a log").read(0, 9).events.len(), 2);
        rig.ok("StopMediaOperation", json!({"ConnectionId": id})).await;
    });
}

#[test]
fn adjust_follows_its_type() {
    run(async |rig| {
        let id = rig.connection().await;
        assert_eq!(rig.code("AdjustPlay", json!({"ConnectionId": id, "Volume": 1})).await, 25);
        rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
        for (given, native) in [
            (json!({"Volume": 3}), json!({"adjustment": "absolute", "volume": 3})),
            (json!({"Speed": "-20", "AdjustmentType": "Relative"}), json!({"adjustment": "relative", "speed": -10})),
            (json!({"AdjustmentType": "toggle"}), json!({"adjustment": "toggle", "toggle": 1})),
            (json!({"AdjustmentType": "toggle", "ToggleType": 4}), json!({"adjustment": "toggle", "toggle": 4})),
            (json!({"Volume": 3, "AdjustmentType": "what"}), json!({"adjustment": "absolute", "volume": 3})),
        ] {
            let (mut given, mut native) = (given, native);
            given["ConnectionId"] = id.clone().into();
            native["connection_id"] = "c-1".into();
            rig.ok("AdjustPlay", given).await;
            assert_eq!(rig.fake.last("operation.adjust"), native);
        }
    });
}

#[test]
fn one_command_is_unanswered_and_the_always_allowed_pass_it() {
    run(async |rig| {
        let id = rig.connection().await;
        let gate = rig.fake.hold("operation.start");
        let mut waiting = Vec::new();
        for _ in 0..9 {
            let (mc, gather) = (Rc::clone(&rig.mc), request("GatherDigits", json!({"ConnectionId": id})));
            waiting.push(spawn_local(async move { mc.call(gather).await }));
        }
        settle().await;
        assert_eq!(rig.fake.count("operation.start"), 1, "the others wait");
        assert_eq!(rig.code("GatherDigits", json!({"ConnectionId": id})).await, 14);
        rig.ok("SendDigits", json!({"ConnectionId": id, "Digits": "1"})).await;
        rig.ok("StopMediaOperation", json!({"ConnectionId": id})).await;
        rig.ok("ModifyConnection", json!({"ConnectionId": id, "MediaTxIP": "192.0.2.9", "MediaTxPort": 9})).await;
        gate.open();
        for call in waiting {
            assert_eq!(call.await.expect("no panic").code(), Some(1));
        }
    });
}

#[test]
fn a_caller_that_waits_no_longer_cancels_nothing_and_hears_no_end() {
    run(async |rig| {
        let id = rig.connection().await;
        let gate = rig.fake.hold("operation.start");
        let response = rig.call("Play", json!({"ConnectionId": id, "Prompt1": "a.wav", "Timeout": 100})).await;
        assert_eq!((response.branch, response.code()), (Branch::Timeout, None));
        assert_eq!(rig.call("GatherDigits", json!({"ConnectionId": id})).await.branch, Branch::Timeout);
        gate.open();
        settle().await;
        assert_eq!(rig.fake.operations.borrow().len(), 2, "both run");
        rig.fake.end("o-2", "eod", Value::Null);
        assert!(rig.events().is_empty());
        let late = rig.fake.hold("connection.get");
        let params = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.9", "MediaTxPort": 9, "Timeout": "60000"});
        assert_eq!(rig.code("ModifyConnection", params).await, 13);
        late.open();
    });
}

#[test]
fn the_end_may_be_told_when_the_response_is_handed_over() {
    run(async |rig| {
        let id = rig.connection().await;
        let before = rig.fake.announced.get();
        let response = rig.call("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
        assert_eq!(rig.fake.announced.get(), before);
        drop(response);
        assert_eq!(rig.fake.announced.get(), before + 1);
    });
}

#[test]
fn switches_change_the_wording() {
    let change = |config: &mut MediaControlConfig| {
        config.fine_branches = true;
        config.started_as_zero = true;
        config.legacy_oed = true;
        config.mms_id = 200;
    };
    run_with(change, async |rig| {
        let id = rig.connection().await;
        assert_eq!(id.parse::<u32>().expect("a number") >> 24, 200);
        assert_eq!(rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await["ResultCode"], "0");
        rig.fake.end("o-2", "eod", Value::Null);
        assert_eq!(rig.events()[0].1["TerminationCondition"], "oed");
        for (kind, branch) in [
            (ErrorKind::Busy, Branch::ConnectionBusy),
            (ErrorKind::LimitReached, Branch::NoResourcesAvailable),
            (ErrorKind::OutOfPorts, Branch::ServerBusy),
            (ErrorKind::FileNotFound, Branch::Failure),
        ] {
            rig.fake.refuse("operation.start", RpcError::new(kind, "x"));
            let response = rig.call("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
            assert_eq!(response.branch, branch);
        }
    });
}

#[test]
fn digits_are_told_to_who_asked() {
    run(async |rig| {
        rig.connection().await;
        let log = rig.mc.logs().open("script").expect("room");
        let plain = log.subscribe(false);
        rig.fake.tell(EventKind::Digit, &json!({"connection_id": "c-1", "digit": "5"}));
        assert!(rig.events().is_empty());
        let curious = log.subscribe(true);
        rig.fake.tell(EventKind::Digit, &json!({"connection_id": "c-1", "digit": "5"}));
        assert_eq!(rig.events()[0].0, "GotMediaDigits");
        assert_eq!(rig.events()[0].1["Digits"], "5");
        drop((plain, curious));
    });
}

#[test]
fn a_script_that_is_gone_takes_its_connections_along() {
    run(async |rig| {
        rig.connection().await;
        let log = rig.mc.logs().open("script").expect("room");
        let one = log.subscribe(false);
        drop(one);
        rig.mc.watch_for_loss("script");
        sleep(Duration::from_secs(20)).await;
        let back = log.subscribe(false);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(rig.fake.connections.borrow().len(), 1, "it came back in time");
        drop(back);
        rig.mc.watch_for_loss("script");
        sleep(Duration::from_secs(31)).await;
        assert!(rig.fake.connections.borrow().is_empty());
        let id = rig.connection().await;
        assert_eq!(rig.mc.end_script("script").await, [id]);
    });
    run_with(
        |config| config.sandbox = false,
        async |rig| {
            rig.connection().await;
            drop(rig.mc.logs().open("script").expect("room").subscribe(false));
            rig.mc.watch_for_loss("script");
            sleep(Duration::from_secs(31)).await;
            assert!(rig.mc.end_script("script").await.is_empty());
            assert_eq!(rig.fake.connections.borrow().len(), 1);
        },
    );
}

#[test]
fn requests_are_read() {
    let read = |value, action| Request::from_value(value, action).map_err(|fault| fault.code.number());
    let request = read(
        json!({"action": "Metreos.MediaControl.Play", "routingGuid": "g", "timeout": "70", "params": {"A": 1}}),
        Some("play"),
    )
    .expect("valid");
    assert_eq!((request.action.as_str(), request.timeout_ms), ("Metreos.MediaControl.Play", Some(70)));
    assert_eq!(read(json!({}), Some("Play")).expect("the address says it").action, "Play");
    for (value, action) in [
        (json!([]), Some("Play")),
        (json!({}), None),
        (json!({"action": 5}), None),
        (json!({"action": "Play", "params": []}), None),
        (json!({"action": "Play", "timeout": -1}), None),
        (json!({"action": "Play", "routingGuid": "x".repeat(129)}), None),
        (json!({"action": "Play"}), Some("Record")),
    ] {
        assert_eq!(read(value.clone(), action), Err(35), "{value}");
    }
}

fn request(action: &str, params: Value) -> Request {
    let Value::Object(params) = params else { panic!("an object") };
    Request { action: action.to_owned(), routing_guid: Some("script".to_owned()), params, ..Request::default() }
}
