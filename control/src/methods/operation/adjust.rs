//! `operation.adjust`

use ringbridge_media::command::{Command, PlayAdjust, PlayChange, VolumeToggle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::play::steps;
use super::{exclusive, key, shard_of, target_or_utility};
use crate::methods::render::effect_of;
use crate::methods::{Call, in_range};
use crate::proto::{ErrorKind, RpcError, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adjust {
    connection_id: String,
    volume: Option<i8>,
    speed: Option<i8>,
    adjustment: Option<Adjustment>,
    toggle: Option<u8>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Adjustment {
    Absolute,
    Relative,
    Toggle,
}

/// Changes volume or speed of what plays, and of what will be played there.
pub(in crate::methods) async fn adjust(call: &Call, given: Value) -> Result<Value, RpcError> {
    let given: Adjust = params(given)?;
    let adjust = given.change()?;
    let (target, _) = target_or_utility(call, Some(&given.connection_id), None)?;
    let ticket = call.ticket(&[key(target)]);
    ticket.turn().await;
    let change = PlayChange { adjust, only_if_playing: true };
    let sent = call.send(ticket, shard_of(call, target)?, Command::AdjustPlay { target, change })?;
    let answer = sent.answer().await.map_err(|error| {
        if error.kind() == ErrorKind::UnknownOperation {
            let nothing = RpcError::new(ErrorKind::UnknownOperation, "nothing plays there");
            return nothing.with("connection_id", given.connection_id.as_str());
        }
        error
    })?;
    Ok(json!({"effect": effect_of(&answer)?}))
}

impl Adjust {
    fn change(&self) -> Result<PlayAdjust, RpcError> {
        let (volume, speed) = (steps("volume", self.volume)?, steps("speed", self.speed)?);
        exclusive("volume", volume.is_some(), "speed", speed.is_some())?;
        let toggle = self.toggle.map(|toggle| in_range("toggle", toggle, 1..=4)).transpose()?;
        let adjustment = self.adjustment.unwrap_or(Adjustment::Absolute);
        let misplaced = |param| Err(RpcError::invalid_param(param, format!("{param}: not with this adjustment")));
        match (adjustment, volume, speed) {
            (Adjustment::Toggle, Some(_), _) => misplaced("volume"),
            (Adjustment::Toggle, None, Some(_)) => misplaced("speed"),
            (Adjustment::Toggle, None, None) => Ok(PlayAdjust::Toggle(match toggle.unwrap_or(1) {
                1 => VolumeToggle::Switch,
                2 => VolumeToggle::Origin,
                3 => VolumeToggle::Last,
                _ => VolumeToggle::Reset,
            })),
            (Adjustment::Absolute | Adjustment::Relative, _, _) if toggle.is_some() => misplaced("toggle"),
            (Adjustment::Absolute, Some(steps), _) => Ok(PlayAdjust::VolumeTo(steps)),
            (Adjustment::Relative, Some(steps), _) => Ok(PlayAdjust::VolumeBy(steps)),
            (Adjustment::Absolute, None, Some(steps)) => Ok(PlayAdjust::SpeedTo(steps)),
            (Adjustment::Relative, None, Some(steps)) => Ok(PlayAdjust::SpeedBy(steps)),
            (Adjustment::Absolute | Adjustment::Relative, None, None) => {
                Err(RpcError::invalid_param("volume", "volume or speed has to be given"))
            }
        }
    }
}
