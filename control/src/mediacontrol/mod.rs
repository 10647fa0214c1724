//! The `Metreos.MediaControl` API: a front over the native methods that keeps no media state of its own.
//!
//! ```text
//!  HTTP, control socket, in process ──▶ MediaControl::call ──▶ action ──▶ native methods
//!  long poll, SSE, webhook, `ctl events` ◀── EventLogs ◀── translation ◀── native events
//! ```
//!
//! What is kept here is what only this API has: numeric ids, who owns a connection, the order of unanswered commands,
//! and the events of every script until they are read.

pub mod actions;
pub mod codes;
mod conferences;
pub mod connect;
mod connections;
mod effect;
mod events;
pub mod http;
pub mod ids;
pub mod lanes;
mod legacy;
pub mod log;
mod media;
pub mod native;
pub mod openapi;
mod operations;
pub mod params;
mod server;
mod speech;
mod webhook;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::spawn_local;
use tokio::time::{sleep_until, timeout};

use crate::begin::begin;
use crate::config::MediaControlConfig;

use self::actions::{Action, NAMESPACE};
use self::codes::{Code, Context, Fault};
use self::ids::Ids;
use self::log::EventLogs;
use self::native::{Announce, Native};
use self::params::Params;

pub use self::server::{call_from_socket, refused, start};

/// The adapter.
pub struct MediaControl {
    config: MediaControlConfig,
    native: Box<dyn Native>,
    ids: Ids,
    logs: Rc<EventLogs>,
    hooks: RefCell<std::collections::HashMap<String, webhook::Hook>>,
    own: Weak<Self>,
}

/// One call of an action.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Request {
    /// The action, with or without its namespace.
    pub action: String,
    /// The script that calls.
    pub routing_guid: Option<String>,
    /// The script's application: where its prompts are looked for first.
    pub application: Option<String>,
    /// The script's partition. Nothing depends on it.
    pub partition: Option<String>,
    /// The partition's locale, `en-US` if absent.
    pub locale: Option<String>,
    /// How long the caller waits, in milliseconds; 5000 if absent.
    pub timeout_ms: Option<u32>,
    /// The action's parameters.
    pub params: Map<String, Value>,
}

/// What an action answers.
#[derive(Debug)]
pub struct Response {
    /// Which branch the script takes.
    pub branch: Branch,
    /// Named results.
    pub results: Map<String, Value>,
    /// What was wrong, in words.
    pub diagnostic: Option<String>,
    /// Held until the response is handed over; only then is the end of an operation told that it started.
    pub announce: Announce,
}

/// The branches of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Branch {
    /// Done or started.
    Success,
    /// Not done.
    Failure,
    /// No answer in the time the caller waits.
    Timeout,
    /// Result 4, if fine branches are on.
    ServerBusy,
    /// Result 14, if fine branches are on.
    ConnectionBusy,
    /// Result 8, if fine branches are on.
    NoResourcesAvailable,
}

/// Results of an action that was carried out.
type Results = Map<String, Value>;

/// One action being carried out.
struct Cx {
    mc: Rc<MediaControl>,
    action: &'static Action,
    routing_guid: String,
    application: Option<String>,
    locale: String,
    params: Params,
    announce: RefCell<Announce>,
    /// The caller was answered already: that it took too long.
    abandoned: Rc<Cell<bool>>,
}

impl MediaControl {
    /// An adapter on top of `native`. `since_epoch` is the time of day.
    pub(crate) fn new(config: MediaControlConfig, native: Box<dyn Native>, since_epoch: Duration) -> Rc<Self> {
        Rc::new_cyclic(|own| Self {
            ids: Ids::new(config.mms_id, since_epoch),
            config,
            native,
            // Above what an earlier life of this server can have reached.
            logs: EventLogs::new(u64::try_from(since_epoch.as_millis()).unwrap_or_default()),
            hooks: RefCell::default(),
            own: own.clone(),
        })
    }

    /// Carries out one action.
    ///
    /// Wants the `LocalSet` of the server. What takes too long goes on after the response.
    pub async fn call(&self, request: Request) -> Response {
        let Some(mc) = self.own.upgrade() else {
            return self.failure(&Fault::new(Code::ServerInactive, "the server has ended"));
        };
        if let Some(older) = legacy::action(&request.action) {
            let older = older.to_owned();
            return legacy::call(self, &older, request).await;
        }
        let Some(action) = Action::by_name(&request.action) else {
            return self.failure(&Fault::new(Code::UnknownCommand, format!("no such action: {}", request.action)));
        };
        let limits = Params::new(request.params).and_then(|params| {
            // A Timeout of 0 or below says nothing.
            let given = params.integer("Timeout")?.and_then(|given| u32::try_from(given).ok()).filter(|ms| *ms > 0);
            Ok((given.or_else(|| request.timeout_ms.filter(|ms| *ms > 0)).unwrap_or(TIMEOUT_MS), params))
        });
        let (timeout_ms, params) = match limits {
            Ok(limits) => limits,
            Err(fault) => return self.failure(&fault),
        };
        let is_known = |name: &str| action.all_params().any(|param| param.name.eq_ignore_ascii_case(name));
        let unknown = || params.names().filter(|name| *name != "timeout" && !is_known(name));
        if let Some(name) = unknown().next() {
            let more = unknown().count() - 1;
            tracing::info!(action = action.name, name, more, "a parameter that is not known is ignored");
        }
        let abandoned = Rc::new(Cell::new(false));
        let cx = Cx {
            mc,
            action,
            routing_guid: request.routing_guid.unwrap_or_default(),
            application: request.application,
            locale: request.locale.unwrap_or_else(|| LOCALE.to_owned()),
            params,
            announce: RefCell::default(),
            abandoned: Rc::clone(&abandoned),
        };
        let work = begin(async move {
            let result = cx.carry_out().await;
            (result, cx.announce.into_inner())
        });
        let limit = Duration::from_millis(u64::from(timeout_ms)).min(NATIVE_LIMIT);
        match timeout(limit, work.end()).await {
            Ok(Some((Ok(results), announce))) => {
                Response { branch: Branch::Success, results: self.finish(results, action), diagnostic: None, announce }
            }
            Ok(Some((Err(fault), announce))) => Response { announce, ..self.failure(&fault) },
            Ok(None) => self.failure(&Fault::new(Code::ServerInternal, "the command was ended")),
            Err(_) => {
                abandoned.set(true);
                if limit < NATIVE_LIMIT || timeout_ms == TIMEOUT_MS {
                    let diagnostic = format!("no answer within {timeout_ms} ms");
                    return Response {
                        branch: Branch::Timeout,
                        results: Map::new(),
                        diagnostic: Some(diagnostic),
                        announce: Announce::default(),
                    };
                }
                self.failure(&Fault::new(Code::OperationTimeout, "the engine has not answered within 5 s"))
            }
        }
    }

    /// A response to what is no request at all.
    pub fn failure(&self, fault: &Fault) -> Response {
        let fine = [
            (Code::ServerBusy, Branch::ServerBusy),
            (Code::ConnectionBusy, Branch::ConnectionBusy),
            (Code::ResourceUnavailable, Branch::NoResourcesAvailable),
        ];
        let branch = fine.into_iter().find(|(code, _)| self.config.fine_branches && *code == fault.code);
        let branch = branch.map_or(Branch::Failure, |(_, branch)| branch);
        let mut results = Map::new();
        results.insert("ResultCode".to_owned(), fault.code.number().to_string().into());
        if let Some(reason) = fault.reason {
            results.insert("ReasonCode".to_owned(), reason.number().to_string().into());
        }
        Response { branch, results, diagnostic: Some(fault.message.clone()), announce: Announce::default() }
    }

    /// The events of every script.
    pub fn logs(&self) -> &Rc<EventLogs> {
        &self.logs
    }

    /// How it is configured.
    pub fn config(&self) -> &MediaControlConfig {
        &self.config
    }

    /// A script has ended: its connections are deleted if `sandbox` is on. Returns their ids.
    pub async fn end_script(&self, routing_guid: &str) -> Vec<String> {
        if let Some(log) = self.logs.get(routing_guid) {
            log.end_script();
        }
        webhook::end(self, routing_guid);
        if !self.config.sandbox || routing_guid.is_empty() {
            return Vec::new();
        }
        for utility in self.ids.utilities_of(routing_guid) {
            // What it plays to or records of a conference of somebody else.
            let params = json!({"connection_id": utility.native, "block": false});
            let (result, _announce) = self.native.call("operation.stop", params).await;
            if let Err(error) = result {
                tracing::debug!(%error, connection = utility.id, "was not there to be stopped");
            }
        }
        let mut deleted = Vec::new();
        let connections = self.ids.connections_of(routing_guid);
        for connection in &connections {
            connection.lane.set_deleting(true);
        }
        for connection in connections {
            let params = json!({"connection_id": connection.native});
            let (result, _announce) = self.native.call("connection.delete", params).await;
            match result {
                Ok(_) => deleted.push(connection.id.to_string()),
                Err(error) => {
                    connection.lane.set_deleting(false);
                    tracing::debug!(%error, connection = connection.id, "was not there to be deleted");
                }
            }
        }
        if !deleted.is_empty() {
            tracing::info!(
                routing_guid,
                connections = deleted.len(),
                "a script has ended; its connections are deleted"
            );
        }
        deleted
    }

    /// Ends the script if its subscriber stays away for too long. To be called when one may have been lost.
    pub fn watch_for_loss(&self, routing_guid: &str) {
        let (Some(mc), Some(log)) = (self.own.upgrade(), self.logs.get(routing_guid)) else { return };
        if !self.config.sandbox || routing_guid.is_empty() {
            // Nobody is missed.
            log.end_script();
            return;
        }
        let Some(lost) = log.lost() else { return };
        let grace = Duration::from_millis(u64::from(self.config.sandbox_grace_ms));
        spawn_local(async move {
            sleep_until(lost + grace).await;
            // Whoever came back and went again is watched from then on.
            if log.lost() == Some(lost) {
                mc.end_script(&log.routing_guid).await;
            }
        });
    }

    fn finish(&self, mut results: Results, action: &Action) -> Results {
        let executing = action.starts && !self.config.started_as_zero;
        let code = if executing { Code::Executing } else { Code::Success };
        results.insert("ResultCode".to_owned(), code.number().to_string().into());
        results
    }

    /// Adds an event to its script's log and tells the clients of the control socket.
    fn publish(&self, routing_guid: &str, name: &str, params: Value) {
        let event = self.logs.append(routing_guid, &format!("{NAMESPACE}{name}"), params);
        self.native.publish(&event);
    }
}

impl std::fmt::Debug for MediaControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaControl").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Cx {
    async fn carry_out(&self) -> Result<Results, Fault> {
        match self.action.name {
            "ReserveConnection" => connections::reserve(self).await,
            "CreateConnection" => connections::create(self).await,
            "ModifyConnection" => connections::modify(self).await,
            "DeleteConnection" => connections::delete(self).await,
            "CreateConference" => conferences::create(self).await,
            "JoinConference" => conferences::join(self).await,
            "LeaveConference" => conferences::leave(self).await,
            "SetConfereeAttribute" => conferences::set_attribute(self).await,
            "Mute" => conferences::mute(self, true).await,
            "Unmute" => conferences::mute(self, false).await,
            "Play" => operations::play(self).await,
            "SeekAndPlay" => operations::seek_and_play(self).await,
            "AdjustPlay" => operations::adjust(self).await,
            "PlayTone" => operations::tone(self).await,
            "Record" => operations::record(self).await,
            "GatherDigits" => operations::gather_digits(self).await,
            "SendDigits" => operations::send_digits(self).await,
            "DetectSilence" => operations::detect_silence(self).await,
            "DetectNonSilence" => operations::detect_nonsilence(self).await,
            "StopMediaOperation" => operations::stop(self).await,
            "VoiceRecognition" => speech::recognise(self),
            "ManageGrammar" => speech::manage_grammar(self),
            "SaveDynamicGrammar" => speech::save_grammar(self),
            other => Err(Fault::new(Code::UnknownCommand, format!("{other} is not carried out here"))),
        }
    }

    /// Calls a native method.
    async fn native(&self, method: &'static str, params: Value, context: Context) -> Result<Value, Fault> {
        let (result, announce) = self.mc.native.call(method, params).await;
        self.announce.borrow_mut().join(announce);
        result.map_err(|error| Fault::from_native(&error, context))
    }

    /// The engine asked for, its form checked.
    fn engine(&self) -> Result<Option<u8>, Fault> {
        let Some(given) = self.params.positive("MmsId")? else { return Ok(None) };
        u8::try_from(given).map(Some).map_err(|_| Fault::value(format!("MmsId: {given} is not 0 to 255")))
    }

    /// Whether the engine asked for is this one.
    fn resolve(&self, engine: Option<u8>) -> Result<(), Fault> {
        match engine {
            Some(other) if other != self.mc.ids.mms() => Err(Fault::new(
                Code::ResourceUnavailable,
                format!("there is no engine {other}, this is engine {}", self.mc.ids.mms()),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

impl Request {
    /// Reads a request; `action` is what the address it was sent to says, if anything.
    ///
    /// # Errors
    /// 35: it is no request.
    pub fn from_value(value: Value, action: Option<&str>) -> Result<Self, Fault> {
        let malformed = |message: String| Fault::new(Code::MalformedRequest, message);
        let Value::Object(mut object) = value else { return Err(malformed("a request is a JSON object".to_owned())) };
        let mut text = |name: &str| match object.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= CONTEXT_BYTES_MAX => Ok(Some(text)),
            Some(Value::String(_)) => Err(malformed(format!("{name} is longer than {CONTEXT_BYTES_MAX} bytes"))),
            Some(_) => Err(malformed(format!("{name} has to be a text"))),
        };
        let named = text("action")?;
        let (routing_guid, application) = (text("routingGuid")?, text("application")?);
        let (partition, locale) = (text("partition")?, text("locale")?);
        if let (Some(one), Some(other)) = (action, named.as_deref())
            && Action::by_name(one).map(|action| action.name) != Action::by_name(other).map(|action| action.name)
        {
            return Err(malformed(format!("the address says {one}, the body {other}")));
        }
        let action = named.or_else(|| action.map(str::to_owned)).ok_or_else(|| malformed("no action".to_owned()))?;
        let timeout_ms = match object.remove("timeout") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let parsed = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
                let parsed = parsed.and_then(|ms| u32::try_from(ms).ok());
                Some(parsed.ok_or_else(|| malformed("timeout is a number of milliseconds".to_owned()))?)
            }
        };
        let params = match object.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(malformed("params has to be an object".to_owned())),
        };
        Ok(Self { action, routing_guid, application, partition, locale, timeout_ms, params })
    }
}

impl Response {
    /// The response on the wire.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"branch": self.branch.name(), "results": self.results});
        if let Some(diagnostic) = &self.diagnostic {
            value["diagnostic"] = diagnostic.as_str().into();
        }
        value
    }

    /// The result code; `None` in the Timeout branch.
    pub fn code(&self) -> Option<u8> {
        self.results.get("ResultCode")?.as_str()?.parse().ok()
    }
}

impl Branch {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Failure => "Failure",
            Self::Timeout => "Timeout",
            Self::ServerBusy => "serverbusy",
            Self::ConnectionBusy => "connectionbusy",
            Self::NoResourcesAvailable => "noresourcesavailable",
        }
    }
}

/// How long a caller waits that does not say.
const TIMEOUT_MS: u32 = 5_000;
/// How long the native methods may take before the answer is 13.
const NATIVE_LIMIT: Duration = Duration::from_secs(5);
const LOCALE: &str = "en-US";
/// Bytes of a routing guid, an application's name and the like.
const CONTEXT_BYTES_MAX: usize = 128;
