//! `recording.mute`

use ringbridge_media::command::{Command, Target};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use super::operation::{key, operation, shard_of};
use super::render::effect_of;
use crate::events::EventKind;
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

/// Says which channels of the recording of a call are silence from now on; the call itself is not touched.
pub(super) async fn mute(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Mute { operation_id, channels } = params(given)?;
    let id = operation(&operation_id)?;
    let (caller, called) = match channels {
        Channels::None => (false, false),
        Channels::Caller => (true, false),
        Channels::Called => (false, true),
        Channels::Both => (true, true),
    };
    let target = call.server.registry.borrow().operation(id).filter(|entry| !entry.ending).map(|entry| entry.target);
    let target = target.ok_or_else(|| RpcError::unknown_operation(&operation_id))?;
    let Target::Connection(connection) = target else {
        return Err(RpcError::unsupported("muting a recording without channels").with("operation_id", operation_id));
    };
    let ticket = call.ticket(&[key(target)]);
    ticket.turn().await;
    let shard = shard_of(call, target).map_err(|_| RpcError::unknown_operation(&operation_id))?;
    let command = Command::MuteRecording { connection, operation: id, caller, called };
    let answer = call.send(ticket, shard, command)?.answer().await;
    let answer = answer.map_err(|error| error.about("operation_id", id))?;
    let effect = effect_of(&answer)?;
    let told = json!({
        "operation_id": operation_id, "connection_id": connection.to_string(), "caller": caller, "called": called,
        "media_time_ms": effect["media_time_ms"], "by": &*call.origin,
    });
    call.server.hub.publish(EventKind::RecordingMuted, told);
    Ok(json!({"muted": {"caller": caller, "called": called}, "effect": effect}))
}
