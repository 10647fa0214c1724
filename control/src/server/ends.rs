//! The ends of operations and connections, as events tell them.

use std::path::PathBuf;

use ringbridge_media::command::{OperationKind, Target};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{Condition, EndReason};
use ringbridge_media::id::{ConnectionId, OperationId};
use serde_json::{Value, json};

use crate::registry::{RecordingEntry, utility_id};

/// How an operation ended, as far as the engine or its absence tells.
pub(super) struct Told {
    pub(super) condition: &'static str,
    pub(super) elapsed_ms: u64,
    pub(super) digits: Option<Digits>,
    pub(super) error: Option<String>,
}

/// What became of a recording's file.
pub(super) struct Closed {
    pub(super) path: PathBuf,
    pub(super) samples: u64,
    pub(super) gaps: usize,
    pub(super) error: Option<String>,
}

pub(super) async fn close_recording(recording: Option<RecordingEntry>) -> Option<Closed> {
    let recording = recording?;
    // The engine has said so already, unless its shard has failed: no more samples come.
    recording.queue.finish();
    Some(match recording.done.await {
        Ok(outcome) => {
            Closed { path: recording.path, samples: outcome.samples, gaps: outcome.gaps.len(), error: outcome.error }
        }
        Err(_) => Closed { path: recording.path, samples: 0, gaps: 0, error: Some("its writer has failed".to_owned()) },
    })
}

pub(super) fn operation_ended(
    id: OperationId,
    target: Target,
    kind: OperationKind,
    told: Told,
    recording: Option<Closed>,
) -> Value {
    let mut params = json!({
        "operation_id": id.to_string(),
        "kind": kind.name(),
        "condition": told.condition,
        "elapsed_ms": told.elapsed_ms,
    });
    match target {
        Target::Connection(connection) => params["connection_id"] = connection.to_string().into(),
        Target::Conference(conference) => {
            params["connection_id"] = utility_id(id).into();
            params["conference_id"] = conference.to_string().into();
        }
    }
    if let Some(digits) = told.digits {
        params["digits"] = digits.as_str().into();
    }
    let mut error = told.error;
    if let Some(recording) = recording {
        params["path"] = recording.path.to_string_lossy().into();
        params["samples"] = recording.samples.into();
        params["gaps"] = recording.gaps.into();
        if recording.error.is_some() {
            // Whatever stopped it, the file is not what was asked for.
            params["condition"] = Condition::Error.name().into();
            error = error.or(recording.error);
        }
    }
    if let Some(error) = error {
        params["error"] = error.into();
    }
    params
}

pub(super) fn connection_ended(id: ConnectionId, reason: EndReason) -> Value {
    json!({"connection_id": id.to_string(), "reason": reason_name(reason)})
}

pub(super) fn reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Deleted => "deleted",
        EndReason::ConferenceDeleted => "conference_deleted",
        EndReason::LastLeft => "last_left",
        EndReason::Expired => "expired",
        EndReason::ShardFailed => "shard_failed",
        EndReason::Shutdown => "shutdown",
    }
}
