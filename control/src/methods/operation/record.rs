//! `operation.start` of kind `record`

use std::sync::Arc;

use ringbridge_media::command::OperationSpec;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::format::format;
use super::{conditions, launch, place, target};
use crate::files::{Container, Encoding, HeaderlessFormat, RecordingSpec};
use crate::methods::{Call, in_range};
use crate::proto::{RpcError, params};
use crate::registry::RecordingEntry;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    connection_id: Option<String>,
    conference_id: Option<String>,
    path: Option<String>,
    container: Option<Container>,
    encoding: Option<Encoding>,
    sample_rate_hz: Option<u32>,
    bits: Option<u16>,
    expires_days: Option<u32>,
    channels: Option<Map<String, Value>>,
}

/// Records into a file.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::RECORD)?;
    let given: Record = params(given)?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    if given.channels.is_some() {
        return Err(RpcError::unsupported("a recording with two channels").with("param", "channels"));
    }
    let file = given.file()?;
    let place = place(call, target).await?;
    let recording = call.server.files.start_recording(file).await?;
    let spec = OperationSpec::Record { queue: Arc::clone(&recording.queue), until };
    let entry = RecordingEntry { path: recording.path, queue: recording.queue, done: recording.done };
    let mut started = launch(call, place, Some(entry), spec).await?;
    started["path"] = recording.name.to_string_lossy().into();
    Ok(started)
}

impl Record {
    fn file(self) -> Result<RecordingSpec, RpcError> {
        let by_extension = self.path.as_deref().and_then(Container::of_path);
        let container = self.container.or(by_extension).unwrap_or(Container::Wav);
        let usual = match container {
            Container::Wav => Encoding::Pcm,
            Container::Vox => Encoding::Ulaw,
        };
        let HeaderlessFormat { encoding, sample_rate_hz, bits } =
            format(self.encoding.unwrap_or(usual), self.sample_rate_hz, self.bits)?;
        let expires_days =
            self.expires_days.map(|days| in_range("expires_days", days, 0..=EXPIRES_DAYS_MAX)).transpose()?;
        Ok(RecordingSpec { path: self.path, container, encoding, sample_rate_hz, bits, expires_days })
    }
}

/// Days a recording can be kept for.
const EXPIRES_DAYS_MAX: u32 = 9999;
