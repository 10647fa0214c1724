//! The ends of operations and connections, as events tell them.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use ringbridge_media::command::{OperationKind, Target};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{Condition, EndReason};
use ringbridge_media::id::{ConnectionId, OperationId};
use serde_json::{Value, json};

use crate::files::RecordingFailure;
use crate::registry::{RecordingEntry, utility_id};

/// How an operation ended, as far as the engine or its absence tells.
pub(super) struct Told {
    pub(super) condition: &'static str,
    pub(super) elapsed_ms: u64,
    pub(super) digits: Option<Digits>,
    /// That its shard has failed.
    pub(super) shard_failed: bool,
}

/// What became of a recording's file.
pub(super) struct Closed {
    pub(super) path: PathBuf,
    pub(super) samples: u64,
    pub(super) gaps: usize,
    pub(super) error: Option<String>,
    pub(super) failure: Option<RecordingFailure>,
}

pub(super) async fn close_recording(recording: Option<RecordingEntry>) -> Option<Closed> {
    let recording = recording?;
    if !recording.queue.deserted.load(Ordering::Acquire) {
        // The engine has said so already, or is about to end: no more samples come.
        recording.queue.finish();
    }
    Some(match recording.done.await {
        Ok(outcome) => Closed {
            path: recording.path,
            samples: outcome.samples,
            gaps: outcome.gaps.len(),
            error: outcome.error,
            failure: outcome.failure,
        },
        Err(_) => Closed {
            path: recording.path,
            samples: 0,
            gaps: 0,
            error: Some("its writer has failed".to_owned()),
            failure: Some(RecordingFailure::Io),
        },
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
    let mut error = told.shard_failed.then(|| "its shard has failed".to_owned());
    let mut failure = None;
    if let Some(recording) = recording {
        params["path"] = recording.path.to_string_lossy().into();
        params["samples"] = recording.samples.into();
        params["gaps"] = recording.gaps.into();
        if recording.error.is_some() {
            // Whatever stopped it, the file is not what was asked for.
            params["condition"] = Condition::Error.name().into();
            error = error.or(recording.error);
            failure = recording.failure;
        }
    }
    if let Some(error) = error {
        params["error"] = error.into();
    }
    if params["condition"] == Condition::Error.name() {
        params["cause"] = if told.shard_failed { SHARD_FAILED } else { cause(failure) }.into();
    }
    params
}

/// Why an operation ended with `error`. What no writer tells of is a prompt that could not be read on.
fn cause(failure: Option<RecordingFailure>) -> &'static str {
    match failure {
        Some(RecordingFailure::StorageFull) => "storage_full",
        Some(RecordingFailure::TooLong) => "too_long",
        Some(RecordingFailure::Abandoned) => "abandoned",
        Some(RecordingFailure::Io) | None => "io",
    }
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
        EndReason::CodecFailed => "codec_failed",
        EndReason::ShardFailed => "shard_failed",
        EndReason::Shutdown => "shutdown",
    }
}

/// The cause of an `operation.ended` that is its shard.
pub(crate) const SHARD_FAILED: &str = "shard_failed";

#[cfg(test)]
mod tests {
    use ringbridge_media::id::ShardId;

    use super::*;

    #[test]
    fn an_error_has_its_cause_and_nothing_else_has() {
        let connection = ConnectionId::new(ShardId(0), 1, 0);
        let id = OperationId::new(ShardId(0), 2, 0);
        let ended = |condition: Condition, shard_failed, closed: Option<Option<RecordingFailure>>| {
            let told = Told { condition: condition.name(), elapsed_ms: 20, digits: None, shard_failed };
            let closed = closed.map(|failure| Closed {
                path: "a.wav".into(),
                samples: 160,
                gaps: 0,
                error: failure.map(|failure| format!("{failure:?}")),
                failure,
            });
            let kind = if closed.is_some() { OperationKind::Record } else { OperationKind::Play };
            let told = operation_ended(id, Target::Connection(connection), kind, told, closed);
            (told["condition"].clone(), told["cause"].clone())
        };
        let error = json!("error");
        // A prompt that can't be read on; a shard that fails, whatever became of the file.
        assert_eq!(ended(Condition::Error, false, None), (error.clone(), json!("io")));
        assert_eq!(ended(Condition::Error, true, None), (error.clone(), json!("shard_failed")));
        let abandoned = Some(Some(RecordingFailure::Abandoned));
        assert_eq!(ended(Condition::Error, true, abandoned), (error.clone(), json!("shard_failed")));
        // The file decides, whatever the engine says.
        for (failure, cause) in [
            (RecordingFailure::StorageFull, "storage_full"),
            (RecordingFailure::TooLong, "too_long"),
            (RecordingFailure::Io, "io"),
            (RecordingFailure::Abandoned, "abandoned"),
        ] {
            for condition in [Condition::Error, Condition::UserStop] {
                assert_eq!(ended(condition, false, Some(Some(failure))), (error.clone(), json!(cause)));
            }
        }
        assert_eq!(ended(Condition::UserStop, false, Some(None)), (json!("userstop"), Value::Null));
        assert_eq!(ended(Condition::Eod, false, None), (json!("eod"), Value::Null));
    }
}
