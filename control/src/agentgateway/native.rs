//! Native methods, called in process.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::Gateway;
use super::codes::{Code, Fault};
use super::effect::Effect;
use crate::begin::begin;
use crate::methods::{self, Call};
use crate::proto::RpcError;

impl Gateway {
    /// Calls a native method. `take` looks at the result before anything that follows from it is told.
    ///
    /// A call that takes too long is given up; what it starts later is stopped again.
    pub(super) async fn native<T: 'static>(
        &self,
        method: &'static str,
        params: Value,
        take: impl FnOnce(&Value) -> T + 'static,
    ) -> Result<T, Fault> {
        let server = self.server.upgrade().ok_or(Code::Exception)?;
        let abandoned = Rc::new(Cell::new(false));
        let late = Rc::clone(&abandoned);
        let work = begin(async move {
            let call = Call::in_process(Rc::clone(&server), API.into());
            let result = methods::call(&call, method, params).await;
            let taken = match result {
                Ok(result) if late.get() => {
                    undo(&server, method, &result).await;
                    Err(RpcError::new(crate::proto::ErrorKind::Internal, "it came too late"))
                }
                Ok(result) => Ok(take(&result)),
                Err(error) => Err(error),
            };
            call.announce();
            taken
        });
        match timeout(PATIENCE, work.end()).await {
            Ok(Some(result)) => result.map_err(|error| {
                tracing::debug!(method, %error, "refused below");
                Fault::from(&error)
            }),
            Ok(None) => Err(Code::Exception.into()),
            Err(_) => {
                abandoned.set(true);
                tracing::warn!(method, "no answer from below");
                Err(Code::Exception.into())
            }
        }
    }

    /// The same where only its effect matters.
    pub(super) async fn done(&self, method: &'static str, params: Value) -> Result<Effect, Fault> {
        self.native(method, params, Effect::of).await
    }

    /// The same where a failure does not matter either: whatever it was about may have gone by itself.
    pub(super) async fn try_done(&self, method: &'static str, params: Value) -> Effect {
        self.done(method, params).await.unwrap_or_else(|fault| {
            tracing::debug!(method, ?fault, "was not there any more");
            Effect::default()
        })
    }
}

/// Takes back what was made for somebody who does not wait any more.
async fn undo(server: &Rc<crate::server::Server>, method: &str, result: &Value) {
    let (method, params) = match method {
        "operation.start" => (
            "operation.stop",
            json!({"connection_id": result["connection_id"], "operation_id": result["operation_id"], "block": false}),
        ),
        "connection.create" => ("connection.delete", json!({"connection_id": result["connection_id"]})),
        "conference.create" => ("conference.delete", json!({"conference_id": result["conference_id"]})),
        _ => return,
    };
    let call = Call::in_process(Rc::clone(server), API.into());
    if let Err(error) = methods::call(&call, method, params).await {
        tracing::debug!(method, %error, "nothing to take back");
    }
    call.announce();
}

const API: &str = "AgentGateway";
/// How long the layer below may take.
const PATIENCE: Duration = Duration::from_secs(5);
