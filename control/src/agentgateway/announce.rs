//! Announcements and hold music: what plays where, what follows when it ends, and how it is stopped.

use std::io;
use std::rc::Rc;

use ringbridge_media::command::{Rate, Target};
use ringbridge_media::id::{ConferenceId, ConnectionId};
use ringbridge_media::samples::Prompt;
use serde_json::{Value, json};
use tokio::task::spawn_local;

use super::Gateway;
use super::codes::{Fault, cause};
use super::conference::{Conference, Play};
use super::effect::Effect;
use super::params::Address;
use crate::files::{FileError, PlaylistSpec};
use crate::proto::RpcError;

/// What an operation of ours is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Once, beside the talk.
    Foreground,
    /// Again and again, below the talk.
    Background,
    /// To one participant.
    ToParticipant(Address),
    /// To one participant on hold.
    Music(Address),
    /// Somebody has joined or left.
    Beep,
}

impl Purpose {
    /// Whether the file begins again when it ends.
    fn is_looped(&self) -> bool {
        matches!(self, Self::Background | Self::Music(_))
    }
}

/// Where it is heard.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Conference(String),
    Connection(String),
}

impl Place {
    fn into_params(self) -> Value {
        match self {
            Self::Conference(id) => json!({"conference_id": id}),
            Self::Connection(id) => json!({"connection_id": id}),
        }
    }
}

impl Gateway {
    /// Checks that a file can be played; how often one operation may play it. What lies in memory as a whole costs nothing
    /// more; of what is read while it plays each turn would be an open file.
    pub(super) async fn check_file(&self, path: &str, rate: Rate) -> Result<usize, Fault> {
        let server = self.server.upgrade().ok_or(super::Code::Exception)?;
        let playlist =
            server.files.open_playlist(&PlaylistSpec { rate, ..PlaylistSpec::files([path.to_owned()]) }).await;
        let playlist = playlist.map_err(|error| match &error {
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::QuotaExceeded => {
                Fault::below(cause::NO_RESOURCE)
            }
            // A file that can't be read, to a client, is one that can't be played.
            FileError::Io { .. } => Fault::below(cause::BAD_FILE),
            FileError::NotFound { .. }
            | FileError::Unsupported { .. }
            | FileError::OutsideRoot { .. }
            | FileError::Format { .. }
            | FileError::Speech { .. } => Fault::from(&RpcError::from(error)),
        })?;
        let whole = playlist.prompts.iter().all(|prompt| matches!(prompt, Prompt::Whole(_)));
        Ok(if whole { TURNS } else { 1 })
    }

    /// Rate of the clock there.
    fn rate_of(&self, place: &Place) -> Rate {
        let target = match place {
            Place::Conference(id) => ConferenceId::parse(id).map(Target::Conference),
            Place::Connection(id) => ConnectionId::parse(id).map(Target::Connection),
        };
        let server = self.server.upgrade();
        server.zip(target).map_or(Rate::Narrow, |(server, target)| server.registry.borrow().clock_rate(target))
    }

    /// Starts to play a file.
    pub(super) async fn play(
        &self,
        conference: &Conference,
        place: Place,
        file: &str,
        purpose: Purpose,
    ) -> Result<Play, Fault> {
        let looped = purpose.is_looped();
        let turns = self.check_file(file, self.rate_of(&place)).await?;
        let files = vec![file; if looped { turns } else { 1 }];
        let mut params = place.into_params();
        params["kind"] = "play".into();
        params["files"] = files.into();
        // Given each time: the volume of one play would stay for the next.
        params["volume"] = if purpose == Purpose::Background { BACKGROUND_STEPS } else { 0 }.into();
        let (own, id) = (self.own.clone(), conference.id);
        let started = self.native("operation.start", params, move |result| {
            let operation = result["operation_id"].as_str().unwrap_or_default().to_owned();
            if let Some(gateway) = own.upgrade() {
                gateway.operations.borrow_mut().insert(operation.clone(), (id, purpose));
            }
            operation
        });
        let operation = started.await.map_err(|fault| match fault.cause {
            // It could be read a moment ago: it is one file too many.
            Some(IO_ERROR) => Fault::below(cause::NO_RESOURCE),
            Some(_) | None => fault,
        })?;
        Ok(Play { operation, looped: looped.then(|| file.to_owned()) })
    }

    /// Stops what plays; from where on it is not heard, if it did.
    pub(super) async fn stop_play(&self, place: Place, play: &Play) -> Result<Option<Effect>, Fault> {
        let mut params = place.into_params();
        params["operation_id"] = play.operation.as_str().into();
        let stopped = self.native("operation.stop", params, |result| {
            let stopped = result["stopped"].as_array().is_some_and(|stopped| !stopped.is_empty());
            (stopped, Effect::of(result))
        });
        match stopped.await {
            Ok((stopped, effect)) => {
                tracing::info!(operation = play.operation, %effect, "an announcement was stopped");
                Ok(stopped.then_some(effect))
            }
            // It has ended; what is looped would have begun again.
            Err(fault) if fault.cause == Some(cause::NOT_PLAYING) => {
                Ok(play.looped.as_ref().map(|_| Effect::default()))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Stops all announcements of a conference: `stopvoicetoconf`.
    pub(super) async fn stop_all(&self, conference: &Conference) -> Result<Effect, Fault> {
        let native = conference.native().ok_or_else(|| Fault::below(cause::NOT_PLAYING))?;
        let stop = |slot| self.stop_slot(Place::Conference(native.clone()), conference, slot);
        // At the same time, so that neither goes on because of the other.
        let (foreground, background) = tokio::join!(stop(Purpose::Foreground), stop(Purpose::Background));
        match (foreground?, background?) {
            (Some(foreground), Some(background)) => Ok(foreground.and(background)),
            (one, another) => one.or(another).ok_or_else(|| Fault::below(cause::NOT_PLAYING)),
        }
    }

    /// Stops what plays for a purpose, if anything does. What can't be stopped keeps its slot: it is still heard.
    pub(super) async fn stop_slot(
        &self,
        place: Place,
        conference: &Conference,
        purpose: Purpose,
    ) -> Result<Option<Effect>, Fault> {
        let Some(play) = at(conference, &purpose, Option::take) else { return Ok(None) };
        let stopped = self.stop_play(place, &play).await;
        if stopped.is_err() && self.operations.borrow().contains_key(&play.operation) {
            at(conference, &purpose, |slot| slot.replace(play));
        }
        stopped
    }

    /// An operation has ended.
    pub(super) fn operation_ended(&self, operation: &str, condition: &str) {
        let Some((id, purpose)) = self.operations.borrow_mut().remove(operation) else { return };
        let Some(conference) = self.conference(id) else { return };
        let again = condition == "eod" && self.plays(&conference, &purpose, operation, |play| play.looped.clone());
        if again {
            self.play_again(conference, purpose, operation.to_owned());
            return;
        }
        forget(&conference, &purpose, operation);
        // The one place that decides what an end is told as: a stop that was asked for is none, and neither is the end
        // of the conference.
        let result = match condition {
            // A turn has ended while the whole was being stopped.
            "eod" if purpose.is_looped() => return,
            "eod" | "maxtime" => 0,
            "error" => 1,
            _ => return,
        };
        let event = match &purpose {
            Purpose::Foreground | Purpose::Background => "AgentConf_StopVoice",
            Purpose::ToParticipant(_) => "AgentConf_StopParticipantVoice",
            Purpose::Music(_) | Purpose::Beep => return,
        };
        self.tell(conference.chair.get(), event, json!({"result": result}));
    }

    /// Whether this operation is what plays for that purpose, and is played again.
    fn plays(
        &self,
        conference: &Conference,
        purpose: &Purpose,
        operation: &str,
        look: impl FnOnce(&Play) -> Option<String>,
    ) -> bool {
        at(conference, purpose, |play| play.as_ref().filter(|play| play.operation == operation).and_then(look))
            .is_some()
    }

    fn play_again(&self, conference: Rc<Conference>, purpose: Purpose, operation: String) {
        let own = self.own.clone();
        spawn_local(async move {
            let Some(gateway) = own.upgrade() else { return };
            let _turn = conference.lane.lock().await;
            let same = |play: &mut Option<Play>| play.clone().filter(|play| play.operation == operation);
            // Stopped in the meantime, or the conference is over.
            let Some(file) = at(&conference, &purpose, same).and_then(|play| play.looped) else { return };
            let place = match &purpose {
                Purpose::Music(address) | Purpose::ToParticipant(address) => {
                    conference.with(address, |member| member.connection.clone()).flatten().map(Place::Connection)
                }
                Purpose::Foreground | Purpose::Background | Purpose::Beep => conference.native().map(Place::Conference),
            };
            let Some(place) = place else { return };
            match gateway.play(&conference, place, &file, purpose.clone()).await {
                Ok(play) => drop(at(&conference, &purpose, |slot| slot.replace(play))),
                Err(fault) => {
                    tracing::warn!(conference = conference.id, ?fault, "an announcement can't be played again");
                    forget(&conference, &purpose, &operation);
                    if purpose == Purpose::Background {
                        gateway.tell(conference.chair.get(), "AgentConf_StopVoice", json!({"result": 1}));
                    }
                }
            }
        });
    }
}

/// Looks at the slot of a purpose.
fn at<T>(conference: &Conference, purpose: &Purpose, look: impl FnOnce(&mut Option<Play>) -> Option<T>) -> Option<T> {
    match purpose {
        Purpose::Foreground => look(&mut conference.foreground.borrow_mut()),
        Purpose::Background => look(&mut conference.background.borrow_mut()),
        Purpose::ToParticipant(address) => conference.with(address, |member| look(&mut member.announcement)).flatten(),
        Purpose::Music(address) => conference.with(address, |member| look(&mut member.music)).flatten(),
        Purpose::Beep => None,
    }
}

/// Frees the slot of a purpose if this operation has it.
fn forget(conference: &Conference, purpose: &Purpose, operation: &str) {
    at(conference, purpose, |play| play.take_if(|play| play.operation == operation));
}

/// How often a file that is looped is played by one operation: the seam between two is not heard so often.
const TURNS: usize = 64;
/// Steps of 2 dB.
const BACKGROUND_STEPS: i8 = -8;
const IO_ERROR: i64 = 1015;
