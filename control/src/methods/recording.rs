//! `recording.mute`

use serde::Deserialize;
use serde_json::Value;

use super::Call;
use crate::proto::{RpcError, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mute {
    operation_id: String,
    channels: Channels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    None,
    Caller,
    Called,
    Both,
}

/// Two-channel recordings are not made yet, so there is nothing to mute.
pub(super) async fn mute(_call: &Call, given: Value) -> Result<Value, RpcError> {
    let Mute { operation_id, channels: Channels::None | Channels::Caller | Channels::Called | Channels::Both } =
        params(given)?;
    Err(RpcError::unsupported("recording.mute").with("operation_id", operation_id))
}
