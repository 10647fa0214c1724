//! `operation.start` of kind `detect_silence` and `detect_nonsilence`

use ringbridge_media::command::OperationSpec;
use serde::Deserialize;
use serde_json::Value;

use super::{conditions, launch, place, target};
use crate::methods::Call;
use crate::proto::{RpcError, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detect {
    connection_id: Option<String>,
    conference_id: Option<String>,
}

/// Waits for silence.
pub(super) async fn silence(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::DETECT_SILENCE)?;
    let wait = until.silence_ms.ok_or_else(|| missing("silence_ms"));
    start(call, given, wait, OperationSpec::DetectSilence { until }).await
}

/// Waits for sound.
pub(super) async fn nonsilence(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::DETECT_NONSILENCE)?;
    let wait = until.nonsilence_ms.ok_or_else(|| missing("nonsilence_ms"));
    start(call, given, wait, OperationSpec::DetectNonSilence { until }).await
}

async fn start(call: &Call, given: Value, wait: Result<u32, RpcError>, spec: OperationSpec) -> Result<Value, RpcError> {
    let given: Detect = params(given)?;
    wait?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    launch(call, place(call, target).await?, None, spec).await
}

fn missing(param: &str) -> RpcError {
    RpcError::invalid_param(param, format!("missing field `{param}`"))
}
