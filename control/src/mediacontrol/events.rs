//! Native events become the events of this API.

use serde_json::{Value, json};

use crate::events::EventKind;
use crate::server::SHARD_FAILED;

use super::MediaControl;
use super::codes::Code;
use super::ids::Operation;

impl MediaControl {
    /// Takes in a native event. Called while it is being published, so that ids have ended and events are numbered
    /// before whoever waits for the same thing is answered.
    pub(crate) fn take_event(&self, kind: EventKind, params: &Value) {
        let id = |member: &str| params[member].as_str().unwrap_or_default();
        match kind {
            EventKind::OperationEnded => {
                if let Some(operation) = self.ids.remove_operation(id("operation_id")) {
                    self.operation_ended(&operation, params);
                }
            }
            EventKind::ConnectionEnded => {
                self.ids.remove_connection(id("connection_id"), params["reason"] == "expired");
            }
            EventKind::ConferenceEnded => {
                self.ids.remove_conference(id("conference_id"));
            }
            EventKind::Digit => self.digit(id("connection_id"), &params["digit"]),
            EventKind::TalkStarted
            | EventKind::TalkStopped
            | EventKind::SpeakerActive
            | EventKind::ConnectionLearned
            | EventKind::ConnectionTimeout
            | EventKind::ShardMoved
            | EventKind::ShardFailed
            | EventKind::CallStarted
            | EventKind::RecordingStarted
            | EventKind::RecordingMuted
            | EventKind::MediaControl => {}
        }
    }

    fn operation_ended(&self, operation: &Operation, ended: &Value) {
        if operation.notes.silent {
            return;
        }
        let mut params = json!({
            "ConnectionId": operation.connection.id.to_string(),
            "OperationId": operation.id.to_string(),
        });
        if let Some(state) = &operation.notes.state {
            params["State"] = state.as_str().into();
        }
        let condition = ended["condition"].as_str().unwrap_or("error");
        if condition == "error" {
            // A file that could not be read or written on, or an engine that has failed.
            let of_file = matches!(operation.action, "Play" | "SeekAndPlay" | "Record");
            let code = if of_file && ended["cause"] != SHARD_FAILED { Code::FileIo } else { Code::DeviceError };
            params["ResultCode"] = code.number().to_string().into();
            self.publish(&operation.routing_guid, &format!("{}_Failed", operation.action), params);
            return;
        }
        let legacy = condition == "eod" && self.config.legacy_oed;
        params["ResultCode"] = Code::Success.number().to_string().into();
        params["TerminationCondition"] = if legacy { "oed" } else { condition }.into();
        params["ElapsedTime"] = ended["elapsed_ms"].as_u64().unwrap_or_default().max(1).into();
        if operation.action == "GatherDigits" {
            params["Digits"] = ended["digits"].as_str().unwrap_or_default().into();
        }
        if let Some(filename) = &operation.notes.filename {
            params["Filename"] = filename.as_str().into();
        }
        self.publish(&operation.routing_guid, &format!("{}_Complete", operation.action), params);
    }

    fn digit(&self, connection: &str, digit: &Value) {
        let Some(connection) = self.ids.connection_of(connection) else { return };
        let Some(log) = self.logs.get(&connection.routing_guid).filter(|log| log.wants_digits()) else { return };
        let params = json!({"ConnectionId": connection.id.to_string(), "Digits": digit});
        self.publish(&log.routing_guid, "GotMediaDigits", params);
    }
}
