//! `operation.start` of kind `tone`

use ringbridge_media::command::{OperationSpec, StopConditions, ToneSpec};
use ringbridge_media::limits::{TONE_DBM0, TONE_HZ};
use serde::Deserialize;
use serde_json::Value;

use super::{DURATION_MS_MAX, conditions, launch, place, target};
use crate::methods::{Call, in_range};
use crate::proto::{RpcError, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tone {
    connection_id: Option<String>,
    conference_id: Option<String>,
    frequency_hz: Option<u16>,
    level_db: Option<i8>,
    frequency2_hz: Option<u16>,
    level2_db: Option<i8>,
    duration_ms: Option<u32>,
    isolate: Option<bool>,
}

/// Plays one or two sines.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::PLAY)?;
    let given: Tone = params(given)?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    let frequency = |param, frequency| in_range(param, frequency, TONE_HZ.0..=TONE_HZ.1);
    let level = |param, level| in_range(param, level, TONE_DBM0.0..=TONE_DBM0.1);
    let first = (
        frequency("frequency_hz", given.frequency_hz.unwrap_or(FREQUENCY_HZ))?,
        level("level_db", given.level_db.unwrap_or(LEVEL_DB))?,
    );
    let second = match (given.frequency2_hz, given.level2_db) {
        (Some(second), level2) => {
            Some((frequency("frequency2_hz", second)?, level("level2_db", level2.unwrap_or(LEVEL_DB))?))
        }
        (None, Some(_)) => {
            return Err(RpcError::invalid_param(
                "level2_db",
                "level2_db: without frequency2_hz there is no second tone",
            ));
        }
        (None, None) => None,
    };
    let duration_ms = in_range("duration_ms", given.duration_ms.unwrap_or(DURATION_MS), 0..=DURATION_MS_MAX)?;
    if duration_ms == 0 && until == StopConditions::default() {
        let message = "duration_ms: a tone without end needs a condition that ends it, such as max_time_ms";
        return Err(RpcError::invalid_param("duration_ms", message));
    }
    let place = place(call, target).await?;
    let spec = OperationSpec::Tone {
        tone: ToneSpec { first, second },
        duration_ms: Some(duration_ms).filter(|duration| *duration > 0),
        isolate: given.isolate.unwrap_or(false),
        until,
    };
    launch(call, place, None, spec).await
}

const FREQUENCY_HZ: u16 = 600;
const LEVEL_DB: i8 = -10;
const DURATION_MS: u32 = 1000;
