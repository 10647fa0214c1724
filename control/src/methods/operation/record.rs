//! `operation.start` of kind `record`

use std::sync::Arc;

use ringbridge_media::command::{OperationSpec, Rate, Target};
use ringbridge_media::id::ConnectionId;
use serde::Deserialize;
use serde_json::Value;

use super::format::format;
use super::{conditions, launch, place, target};
use crate::events::EventKind;
use crate::files::{Container, Encoding, HeaderlessFormat, RecordingSpec};
use crate::methods::relay::add_numbers;
use crate::methods::{Call, connection_id, in_range};
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
    channels: Option<Channels>,
}

/// The parties of a call, each of which gets a channel of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Channels {
    caller: String,
    called: String,
}

/// Records into a file.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::RECORD)?;
    let given: Record = params(given)?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    let parties = given.channels.as_ref().map(|channels| channels.parties(call, target)).transpose()?;
    let follows_clock = given.sample_rate_hz.is_none();
    let mut file = given.file()?;
    if parties.is_some() {
        check_channels(&file)?;
    }
    let place = place(call, target).await?;
    if follows_clock && is_plain(&file) {
        file.sample_rate_hz = call.server.registry.borrow().clock_rate(target).hz();
    }
    let recording = call.server.files.start_recording(file).await?;
    let queue = Arc::clone(&recording.queue);
    let spec = match parties {
        Some((caller, called)) => OperationSpec::RecordCall { queue, caller, called, until },
        None => OperationSpec::Record { queue, until },
    };
    let entry = RecordingEntry { path: recording.path, queue: recording.queue, done: recording.done };
    let mut started = launch(call, place, Some(entry), spec).await?;
    started["path"] = recording.name.to_string_lossy().into();
    if let Some((caller, called)) = parties {
        tell(call, &started, caller, called);
    }
    Ok(started)
}

/// Tells that both parties of a call are being recorded.
fn tell(call: &Call, started: &Value, caller: ConnectionId, called: ConnectionId) {
    let mut told = started.clone();
    told["caller"] = caller.to_string().into();
    told["called"] = called.to_string().into();
    // A relay that has ended meanwhile has no text any more.
    let relay = call.connection(caller, |entry| entry.call.clone()).ok().flatten();
    if let Some(relay) = relay.filter(|relay| relay.a == caller) {
        told["call_id"] = relay.id.as_str().into();
        add_numbers(&mut told, &relay);
    }
    call.server.hub.publish(EventKind::RecordingStarted, told);
}

impl Channels {
    /// Caller and called; one of them is what is recorded.
    fn parties(&self, call: &Call, target: Target) -> Result<(ConnectionId, ConnectionId), RpcError> {
        let (caller, called) = (connection_id(&self.caller)?, connection_id(&self.called)?);
        for id in [caller, called] {
            call.connection(id, |_| ())?;
        }
        if caller == called {
            return Err(RpcError::invalid_param("channels.called", "channels: caller and called are the same"));
        }
        if ![caller, called].map(Target::Connection).contains(&target) {
            let text = "channels: connection_id has to be that of the caller or of the called";
            return Err(RpcError::invalid_param("channels", text));
        }
        Ok((caller, called))
    }
}

/// Whether it is what a recording is if nothing is asked for: what else there is comes from telephony, and so does its rate.
fn is_plain(file: &RecordingSpec) -> bool {
    (file.container, file.encoding, file.bits, file.channels) == (Container::Wav, Encoding::Pcm, 16, 1)
}

/// Refuses what can't hold two channels.
fn check_channels(file: &RecordingSpec) -> Result<(), RpcError> {
    let unsupported = |what: &str, param| Err(RpcError::unsupported(&format!("a call as {what}")).with("param", param));
    if file.container != Container::Wav {
        return unsupported("a VOX file", "container");
    }
    match file.encoding {
        Encoding::Pcm | Encoding::Ulaw | Encoding::Alaw => {}
        Encoding::Adpcm => return unsupported("ADPCM", "encoding"),
    }
    if Rate::from_hz(file.sample_rate_hz).is_none() {
        return unsupported("anything but 8000, 16000 or 48000 samples a second", "sample_rate_hz");
    }
    Ok(())
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
        let channels = if self.channels.is_some() { 2 } else { 1 };
        Ok(RecordingSpec { path: self.path, container, encoding, sample_rate_hz, bits, channels, expires_days })
    }
}

/// Days a recording can be kept for.
const EXPIRES_DAYS_MAX: u32 = 9999;
