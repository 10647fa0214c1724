//! `operation.start` of kind `play`

use ringbridge_media::command::OperationSpec;
use ringbridge_media::limits::{PLAY_STEPS_MAX, PLAY_STEPS_MIN, PROMPTS_MAX};
use ringbridge_media::samples::Playlist;
use serde::Deserialize;
use serde_json::Value;

use super::format::format;
use super::{DURATION_MS_MAX, conditions, exclusive, key, launch, place, target};
use crate::files::{Encoding, PlaylistSpec, PromptSource, TtsError};
use crate::methods::{Call, in_length, in_range};
use crate::proto::{ErrorKind, RpcError, params};
use crate::quota::Class;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Play {
    connection_id: Option<String>,
    conference_id: Option<String>,
    files: Option<Vec<String>>,
    prompts: Option<Vec<String>>,
    application: Option<String>,
    locale: Option<String>,
    volume: Option<i8>,
    speed: Option<i8>,
    spoken: Option<bool>,
    start_ms: Option<u32>,
    encoding: Option<Encoding>,
    sample_rate_hz: Option<u32>,
    bits: Option<u16>,
    isolate: Option<bool>,
}

/// Plays files, or named prompts and texts.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::PLAY)?;
    let mut given: Play = params(given)?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    let (volume, speed) = (steps("volume", given.volume)?, steps("speed", given.speed)?);
    exclusive("volume", volume.is_some(), "speed", speed.is_some())?;
    let isolate = given.isolate.unwrap_or(false);
    let mut prompts = given.playlist()?;
    let place = place(call, target).await?;
    prompts.rate = call.server.registry.borrow().clock_rate(target);
    let preparation = call.server.preparing.begin(key(target));
    let playlist = tokio::select! {
        opened = open(call, &prompts) => opened?,
        () = preparation.given_up() => {
            return Err(RpcError::new(ErrorKind::Busy, "stopped before its prompts were ready"));
        }
    };
    drop(preparation);
    launch(call, place, None, OperationSpec::Play { playlist, volume, speed, isolate, until }).await
}

impl Play {
    fn playlist(&mut self) -> Result<PlaylistSpec, RpcError> {
        exclusive("files", self.files.is_some(), "prompts", self.prompts.is_some())?;
        let application = in_length("application", self.application.take(), NAME_BYTES_MAX)?;
        let locale = in_length("locale", self.locale.take(), NAME_BYTES_MAX)?;
        let (param, prompts) = match (self.files.take(), self.prompts.take()) {
            (_, Some(texts)) => {
                let named =
                    |text| PromptSource::Named { text, application: application.clone(), locale: locale.clone() };
                ("prompts", texts.into_iter().map(named).collect::<Vec<_>>())
            }
            (files, None) => {
                if application.is_some() || locale.is_some() {
                    let param = if application.is_some() { "application" } else { "locale" };
                    return Err(RpcError::invalid_param(param, format!("{param}: only prompts are looked for by it")));
                }
                ("files", files.unwrap_or_default().into_iter().map(PromptSource::File).collect())
            }
        };
        if prompts.is_empty() || prompts.len() > PROMPTS_MAX {
            return Err(RpcError::invalid_param(param, format!("{param}: 1 to {PROMPTS_MAX} are played")));
        }
        let start_ms = in_range("start_ms", self.start_ms.unwrap_or(0), 0..=DURATION_MS_MAX)?;
        if start_ms > 0 && prompts.len() > 1 {
            return Err(RpcError::invalid_param("start_ms", "start_ms: only a single prompt can begin in the middle"));
        }
        let headerless = format(self.encoding.unwrap_or(Encoding::Ulaw), self.sample_rate_hz, self.bits)?;
        let files_only = self.spoken == Some(false);
        Ok(PlaylistSpec { prompts, headerless, start_ms, files_only, ..PlaylistSpec::default() })
    }
}

/// Opens what is to be played. A text that has to be rendered takes a port as long as that lasts.
async fn open(call: &Call, prompts: &PlaylistSpec) -> Result<Box<Playlist>, RpcError> {
    let server = &call.server;
    let port = || server.quota.try_take(Class::Tts).map_err(|_| TtsError::NoPort);
    Ok(server.files.open_playlist_with(prompts, port).await?)
}

/// Steps of volume or speed.
pub(super) fn steps(param: &str, given: Option<i8>) -> Result<Option<i8>, RpcError> {
    given.map(|steps| in_range(param, steps, PLAY_STEPS_MIN..=PLAY_STEPS_MAX)).transpose()
}

/// Bytes of the name of an application or locale.
const NAME_BYTES_MAX: usize = 256;
