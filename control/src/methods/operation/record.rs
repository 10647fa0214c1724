//! `operation.start` of kind `record`

use std::path::PathBuf;
use std::sync::Arc;

use ringbridge_media::command::OperationSpec;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::format::{Container, Encoding, Format};
use super::{conditions, launch, place, target};
use crate::files::Recording;
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

/// The file that is to be made.
#[derive(Debug)]
struct File {
    /// Generated if there is none.
    path: Option<String>,
    container: Container,
    format: Format,
    /// 0: never.
    expires_days: u32,
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
    let (recording, name) = file.create(call).await?;
    let spec = OperationSpec::Record { queue: Arc::clone(&recording.queue), until };
    let entry = RecordingEntry { path: recording.path, queue: recording.queue, done: recording.done };
    let mut started = launch(call, place, Some(entry), spec).await?;
    started["path"] = name.to_string_lossy().into();
    Ok(started)
}

impl Record {
    fn file(self) -> Result<File, RpcError> {
        let by_extension = self.path.as_deref().and_then(Container::of_path);
        let container = self.container.or(by_extension).unwrap_or(Container::Wav);
        let usual = match container {
            Container::Wav => Encoding::Pcm,
            Container::Vox => Encoding::Ulaw,
        };
        let format = Format::new(self.encoding.unwrap_or(usual), self.sample_rate_hz, self.bits)?;
        let expires_days = in_range("expires_days", self.expires_days.unwrap_or(0), 0..=EXPIRES_DAYS_MAX)?;
        Ok(File { path: self.path, container, format, expires_days })
    }
}

impl File {
    /// The only place where recordings are made. Also tells the path below the recording root.
    async fn create(self, call: &Call) -> Result<(Recording, PathBuf), RpcError> {
        let Self { path, container, format, expires_days } = self;
        let plain = Format { encoding: Encoding::Pcm, sample_rate_hz: 8000, bits: 16 };
        let unsupported = [
            ("container", container != Container::Wav),
            ("encoding", format != plain),
            ("expires_days", expires_days > 0),
        ];
        if let Some((param, _)) = unsupported.into_iter().find(|(_, given)| *given) {
            return Err(RpcError::unsupported(param).with("param", param));
        }
        let path = path.unwrap_or_else(|| format!("{:08x}.wav", rand::random::<u32>()));
        let recording = call.server.files.start_recording(&path).await?;
        let root = &call.server.derived.recording_root;
        let name = recording.path.strip_prefix(root).map_or_else(|_| PathBuf::from(path), PathBuf::from);
        Ok((recording, name))
    }
}

/// Days a recording can be kept for.
const EXPIRES_DAYS_MAX: u32 = 9999;
