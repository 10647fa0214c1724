//! `operation.start` of kind `gather_digits`

use ringbridge_media::command::{OperationSpec, Target};
use serde::Deserialize;
use serde_json::Value;

use super::{conditions, launch, place, target};
use crate::methods::Call;
use crate::proto::{RpcError, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatherDigits {
    connection_id: Option<String>,
    conference_id: Option<String>,
    flush: Option<bool>,
}

/// Collects digits, those in the buffer first.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::GATHER_DIGITS)?;
    let given: GatherDigits = params(given)?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    let flush = given.flush.unwrap_or(false);
    if flush && matches!(target, Target::Conference(_)) {
        return Err(RpcError::invalid_param("flush", "flush: only a connection has digits from before"));
    }
    let place = place(call, target).await?;
    launch(call, place, None, OperationSpec::GatherDigits { flush, until }).await
}
