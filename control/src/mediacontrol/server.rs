//! The adapter inside the server: native methods called in process, and the control socket's `MediaControl.*`.

use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use ringbridge_media::id::ConnectionId;
use serde_json::{Value, json};
use tokio::task::spawn_local;

use crate::events::EventKind;
use crate::gate::Gate;
use crate::methods::{self, Call};
use crate::proto::{ErrorKind, RpcError};
use crate::quota::Class;
use crate::server::Server;
use crate::tickets::Key;

use super::native::{Announce, Answering, Native};
use super::{MediaControl, Request};

/// The native methods of the server this adapter is part of.
struct InProcess {
    server: Weak<Server>,
    origin: Rc<str>,
}

impl Native for InProcess {
    fn call(&self, method: &'static str, params: Value) -> Answering<'_> {
        Box::pin(async move {
            let Some(server) = self.server.upgrade() else {
                return (Err(RpcError::new(ErrorKind::Draining, "the server has ended")), Announce::default());
            };
            let call = Call::in_process(server, Rc::clone(&self.origin));
            let result = methods::call(&call, method, params).await;
            (result, Announce::new(move || call.announce()))
        })
    }

    fn publish(&self, event: &Value) {
        let Some(server) = self.server.upgrade() else { return };
        let mut told = event.clone();
        told["name"] = event["event"].clone();
        server.hub.publish(EventKind::MediaControl, told);
    }

    fn give_up(&self, connection: &str) {
        if let (Some(server), Some(id)) = (self.server.upgrade(), ConnectionId::parse(connection)) {
            server.preparing.give_up(Key::Connection(id));
        }
    }

    fn low_bitrate_free(&self) -> bool {
        let usage = self.server.upgrade().map(|server| server.quota.usage(Class::EnhancedRtp));
        usage.is_some_and(|usage| usage.limit.is_none_or(|limit| usage.in_use < limit))
    }
}

/// Puts the adapter on top of a server.
pub fn start(server: &Rc<Server>) -> Rc<MediaControl> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let config = server.config.mediacontrol.clone();
    let native = InProcess { server: Rc::downgrade(server), origin: "MediaControl".into() };
    let mc = MediaControl::new(config, Box::new(native), since_epoch);
    let observer = Rc::downgrade(&mc);
    server.hub.observe(Box::new(move |kind, params| {
        if let Some(mc) = observer.upgrade() {
            mc.take_event(kind, params);
        }
    }));
    mc
}

/// Carries out `MediaControl.{action}` for a client of the control socket. The parameters are those of the action, and
/// beside them what goes with a request.
///
/// # Errors
/// -32601: there is no such action. -32602: the parameters are no object. All else is in the result.
pub async fn call_from_socket(call: &Call, action: &str, params: Value) -> Result<Value, RpcError> {
    let Some(action) = super::actions::Action::by_name(action) else {
        return Err(RpcError::new(ErrorKind::MethodNotFound, format!("no such method: MediaControl.{action}")));
    };
    let mut params = match params {
        Value::Null => serde_json::Map::new(),
        Value::Object(params) => params,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(RpcError::new(ErrorKind::InvalidParams, "parameters are given by name, as an object"));
        }
    };
    let mut request = json!({"action": action.name});
    for name in ["routingGuid", "application", "partition", "locale", "timeout"] {
        if let Some(value) = params.remove(name) {
            request[name] = value;
        }
    }
    request["params"] = params.into();
    let mc = call.server.mediacontrol();
    let response = match Request::from_value(request, None) {
        Ok(request) => mc.call(request).await,
        Err(fault) => mc.failure(&fault),
    };
    let told = response.to_value();
    let queued = Gate::default();
    call.announce_to(queued.clone());
    spawn_local(async move {
        queued.wait().await;
        drop(response.announce);
    });
    Ok(told)
}

/// What an answer to `MediaControl.{action}` refuses with: its result code, or that it took too long. None if it was
/// done, or the method is none of ours.
pub fn refused<'a>(method: &str, told: &'a Value) -> Option<&'a str> {
    let is_ours = method.starts_with("MediaControl.") && told["branch"] != super::Branch::Success.name();
    is_ours.then(|| told["results"]["ResultCode"].as_str().unwrap_or("timeout"))
}
