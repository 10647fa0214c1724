//! `operation.start` of kind `play`

use ringbridge_media::command::OperationSpec;
use ringbridge_media::limits::{PLAY_STEPS_MAX, PLAY_STEPS_MIN, PROMPTS_MAX};
use ringbridge_media::samples::Playlist;
use serde::Deserialize;
use serde_json::Value;

use super::format::{Encoding, Format};
use super::{DURATION_MS_MAX, conditions, exclusive, launch, place, target};
use crate::methods::{Call, in_length, in_range};
use crate::proto::{RpcError, params};

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
    start_ms: Option<u32>,
    encoding: Option<Encoding>,
    sample_rate_hz: Option<u32>,
    bits: Option<u16>,
    isolate: Option<bool>,
}

/// What is to be opened before it can be played.
#[derive(Debug)]
struct Prompts {
    sources: Sources,
    /// Of files that have no header.
    format: Format,
    start_ms: u32,
}

#[derive(Debug)]
enum Sources {
    Files(Vec<String>),
    Named { prompts: Vec<String>, application: Option<String>, locale: Option<String> },
}

/// Plays files, or named prompts and texts.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    let until = conditions::take(&mut given, conditions::PLAY)?;
    let mut given: Play = params(given)?;
    let target = target(given.connection_id.as_deref(), given.conference_id.as_deref())?;
    let (volume, speed) = (steps("volume", given.volume)?, steps("speed", given.speed)?);
    exclusive("volume", volume.is_some(), "speed", speed.is_some())?;
    let isolate = given.isolate.unwrap_or(false);
    let prompts = given.prompts()?;
    let place = place(call, target).await?;
    let playlist = prompts.open(call).await?;
    launch(call, place, None, OperationSpec::Play { playlist, volume, speed, isolate, until }).await
}

impl Play {
    fn prompts(&mut self) -> Result<Prompts, RpcError> {
        exclusive("files", self.files.is_some(), "prompts", self.prompts.is_some())?;
        let application = in_length("application", self.application.take(), NAME_BYTES_MAX)?;
        let locale = in_length("locale", self.locale.take(), NAME_BYTES_MAX)?;
        let (param, sources) = match (self.files.take(), self.prompts.take()) {
            (_, Some(prompts)) => ("prompts", Sources::Named { prompts, application, locale }),
            (files, None) => {
                if application.is_some() || locale.is_some() {
                    let param = if application.is_some() { "application" } else { "locale" };
                    return Err(RpcError::invalid_param(param, format!("{param}: only prompts are looked for by it")));
                }
                ("files", Sources::Files(files.unwrap_or_default()))
            }
        };
        let (Sources::Files(given) | Sources::Named { prompts: given, .. }) = &sources;
        if given.is_empty() || given.len() > PROMPTS_MAX {
            return Err(RpcError::invalid_param(param, format!("{param}: 1 to {PROMPTS_MAX} are played")));
        }
        let start_ms = in_range("start_ms", self.start_ms.unwrap_or(0), 0..=DURATION_MS_MAX)?;
        if start_ms > 0 && given.len() > 1 {
            return Err(RpcError::invalid_param("start_ms", "start_ms: only a single prompt can begin in the middle"));
        }
        let format = Format::new(self.encoding.unwrap_or(Encoding::Ulaw), self.sample_rate_hz, self.bits)?;
        Ok(Prompts { sources, format, start_ms })
    }
}

impl Prompts {
    /// The only place where prompts are opened.
    async fn open(self, call: &Call) -> Result<Box<Playlist>, RpcError> {
        let Self { sources, format, start_ms } = self;
        let plain = Format { encoding: Encoding::Ulaw, sample_rate_hz: 8000, bits: 8 };
        for (param, given) in [("start_ms", start_ms > 0), ("encoding", format != plain)] {
            if given {
                return Err(RpcError::unsupported(param).with("param", param));
            }
        }
        match sources {
            Sources::Files(files) => Ok(call.server.files.open_playlist(&files).await?),
            Sources::Named { prompts, application, locale } => {
                tracing::debug!(?prompts, application, locale, "prompts are not looked for yet");
                Err(RpcError::unsupported("prompts").with("param", "prompts"))
            }
        }
    }
}

/// Steps of volume or speed.
pub(super) fn steps(param: &str, given: Option<i8>) -> Result<Option<i8>, RpcError> {
    given.map(|steps| in_range(param, steps, PLAY_STEPS_MIN..=PLAY_STEPS_MAX)).transpose()
}

/// Bytes of the name of an application or locale.
const NAME_BYTES_MAX: usize = 256;
