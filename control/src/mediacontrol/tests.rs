//! Every family of actions on pretended native methods, on virtual time.

mod actions;

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

    /// How often a method was called.
    pub(super) fn called(&self, method: &str) -> usize {
        self.calls.borrow().iter().filter(|(called, _)| *called == method).count()
    }

    pub(super) fn hold(&self, method: &'static str) -> Gate {
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
