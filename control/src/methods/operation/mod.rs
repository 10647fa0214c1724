//! `operation.*`, one file for each kind that can be started.

mod adjust;
mod conditions;
mod detect;
mod digits;
mod format;
mod play;
mod record;
mod tone;

use ringbridge_media::command::{Command, OperationSpec, Target};
use ringbridge_media::event::Answer;
use ringbridge_media::id::{OperationId, ShardId};
use ringbridge_shard::mailbox::Lane;
use serde::Deserialize;
use serde_json::{Value, json};

use super::conference::promote;
use super::render::{self, effect_of};
use super::{Call, conference_id, connection_id, unexpected};
use crate::gate::Gate;
use crate::proto::{ErrorKind, RpcError, params};
use crate::quota::Units;
use crate::registry::{RecordingEntry, parse_utility_id, utility_id};
use crate::router::{Concern, Dispatch};
use crate::tickets::{Key, Ticket};

pub(super) use adjust::adjust;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    connection_id: Option<String>,
    conference_id: Option<String>,
    operation_id: Option<String>,
    block: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    connection_id: Option<String>,
    conference_id: Option<String>,
}

/// Starts a media operation; its end is told by exactly one `operation.ended`.
pub(super) async fn start(call: &Call, mut given: Value) -> Result<Value, RpcError> {
    // What else there may be depends on the kind.
    let kind = given.as_object_mut().and_then(|object| object.remove("kind"));
    match kind {
        Some(Value::String(kind)) => match kind.as_str() {
            "play" => play::start(call, given).await,
            "tone" => tone::start(call, given).await,
            "record" => record::start(call, given).await,
            "gather_digits" => digits::start(call, given).await,
            "detect_silence" => detect::silence(call, given).await,
            "detect_nonsilence" => detect::nonsilence(call, given).await,
            other => Err(RpcError::invalid_param("kind", format!("kind: there is no operation `{other}`"))),
        },
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(RpcError::invalid_param("kind", "kind: invalid type, expected a string"))
        }
        None => {
            params::<Value>(given)?;
            Err(RpcError::invalid_param("kind", "missing field `kind`"))
        }
    }
}

/// Stops operations; with `block` the answer comes after their ends were told.
pub(super) async fn stop(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Stop { connection_id, conference_id, operation_id, block } = params(given)?;
    let named = operation_id.as_deref().map(operation).transpose()?;
    let (key_target, of_utility) = target_or_utility(call, connection_id.as_deref(), conference_id.as_deref())?;
    if of_utility.is_some_and(|of_utility| named.is_some_and(|named| named != of_utility)) {
        return Err(RpcError::unknown_operation(operation_id.unwrap_or_default()));
    }
    let wanted = of_utility.or(named);
    let ticket = call.ticket(&[key(key_target)]);
    call.server.preparing.turn_of_stop(&ticket, key(key_target)).await;
    let shard = shard_of(call, key_target)?;
    // The gates of all that run now, since an end may be told before the answer is here.
    let ends: Vec<(OperationId, Gate)> = {
        let registry = call.server.registry.borrow();
        let known = wanted.is_none_or(|id| registry.operation(id).is_some_and(|entry| entry.target == key_target));
        if !known {
            return Err(RpcError::unknown_operation(operation_id.or(connection_id).unwrap_or_default()));
        }
        let here = registry.operations().filter(|entry| entry.target == key_target);
        here.map(|entry| (entry.id, entry.ended.clone())).collect()
    };
    let answer = call.send(ticket, shard, Command::StopOperation { target: key_target, operation: wanted })?;
    let answer = answer.answer().await?;
    let Answer::Stopped { operations, .. } = &answer else { return Err(unexpected(&answer)) };
    if block.unwrap_or(true) {
        for id in operations {
            let end = match ends.iter().find(|(running, _)| running == id) {
                Some((_, end)) => Some(end.clone()),
                // Started while this command was on its way.
                None => call.server.registry.borrow().operation(*id).map(|entry| entry.ended.clone()),
            };
            if let Some(end) = end {
                end.wait().await;
            }
        }
    }
    let stopped: Vec<String> = operations.iter().map(ToString::to_string).collect();
    Ok(json!({"stopped": stopped, "effect": effect_of(&answer)?}))
}

/// Reports what runs, on one target or on all.
pub(super) async fn list(call: &Call, given: Value) -> Result<Value, RpcError> {
    let List { connection_id, conference_id } = params(given)?;
    let mut operations = Vec::new();
    if connection_id.is_some() || conference_id.is_some() {
        let target = target(connection_id.as_deref(), conference_id.as_deref())?;
        let ticket = call.ticket(&[key(target)]);
        ticket.turn().await;
        let shard = shard_of(call, target)?;
        let answer = call.send(ticket, shard, Command::ListOperations { target })?.answer().await?;
        append(call, &mut operations, &answer)?;
    } else {
        let mut targets: Vec<Target> = Vec::new();
        for entry in call.server.registry.borrow().operations() {
            targets.push(entry.target);
        }
        targets.sort_unstable_by_key(|target| match target {
            Target::Connection(id) => (0, id.to_bits()),
            Target::Conference(id) => (1, id.to_bits()),
        });
        targets.dedup();
        for some in targets.chunks(TARGETS_AT_ONCE) {
            // Whatever ended meanwhile is simply not there any more.
            let asked: Vec<_> = some
                .iter()
                .filter_map(|target| {
                    let shard = shard_of(call, *target).ok()?;
                    call.server.send(shard, Command::ListOperations { target: *target }, call.received).ok()
                })
                .collect();
            for answer in asked {
                if let Ok(answer) = answer.answer().await {
                    append(call, &mut operations, &answer)?;
                }
            }
        }
    }
    Ok(json!({"operations": operations}))
}

/// An operation's place in the order of commands to its target. Its turn has come.
struct Place {
    ticket: Ticket,
    target: Target,
    units: Vec<Units>,
}

/// Waits for the turn of an operation. Nothing is opened for a target that is not there or can't be reached.
async fn place(call: &Call, target: Target) -> Result<Place, RpcError> {
    let ticket = call.ticket(&[key(target)]);
    ticket.turn().await;
    call.server.router.borrow().room(shard_of(call, target)?, Lane::Ordinary)?;
    let units = call.server.quota.try_take_operation(matches!(target, Target::Conference(_)))?;
    Ok(Place { ticket, target, units })
}

/// Sends an operation on its way and waits until it runs. A recording whose operation does not start is removed.
async fn launch(
    call: &Call,
    place: Place,
    recording: Option<RecordingEntry>,
    operation: OperationSpec,
) -> Result<Value, RpcError> {
    let Place { ticket, target, units } = place;
    let server = &call.server;
    let shard = match ready(call, target).await {
        Ok(shard) => shard,
        Err(error) => {
            if let Some(recording) = recording {
                server.abandon_recording(recording);
            }
            return Err(error);
        }
    };
    let (id, announced) = {
        let mut registry = server.registry.borrow_mut();
        let entry = registry.add_operation(shard, target, operation.kind(), recording, units);
        (entry.id, entry.announced.clone())
    };
    let command = Command::StartOperation { id, target, operation: Box::new(operation) };
    let concern = Concern::Operation(id);
    let sent = server.dispatch(Dispatch { shard, command, received: call.received, concern });
    drop(ticket);
    let in_flight = sent.inspect_err(|_| server.abandon_operation(id))?;
    // Its end is told after this answer, or never if it does not start.
    call.announce_to(announced);
    let answer = in_flight.answer().await;
    let (name, target_id, connection_id) = match target {
        Target::Connection(connection) => ("connection_id", connection.to_string(), connection.to_string()),
        Target::Conference(conference) => ("conference_id", conference.to_string(), utility_id(id)),
    };
    answer.map_err(|error| error.about(name, target_id))?;
    Ok(json!({"operation_id": id.to_string(), "connection_id": connection_id}))
}

/// Where an operation can run now. A hairpin has to be promoted before.
async fn ready(call: &Call, target: Target) -> Result<ShardId, RpcError> {
    let shard = shard_of(call, target)?;
    if let Target::Conference(id) = target
        && call.conference(id, |entry| entry.hairpin)?
    {
        promote(call, id, None).await?;
    }
    Ok(shard)
}

fn append(call: &Call, operations: &mut Vec<Value>, answer: &Answer) -> Result<(), RpcError> {
    let Answer::Operations(running) = answer else { return Err(unexpected(answer)) };
    let registry = call.server.registry.borrow();
    operations.extend(running.iter().map(|status| render::operation(status, registry.operation(status.id))));
    Ok(())
}

fn target(connection: Option<&str>, conference: Option<&str>) -> Result<Target, RpcError> {
    match (connection, conference) {
        (Some(connection), None) => Ok(Target::Connection(connection_id(connection)?)),
        (None, Some(conference)) => Ok(Target::Conference(conference_id(conference)?)),
        (Some(_), Some(_)) => Err(both_targets()),
        (None, None) => {
            Err(RpcError::invalid_param("connection_id", "either connection_id or conference_id has to be given"))
        }
    }
}

/// What a client means who may also name a conference by the temporary id of an operation on it, as long as that runs.
pub(super) fn target_or_utility(
    call: &Call,
    connection: Option<&str>,
    conference: Option<&str>,
) -> Result<(Target, Option<OperationId>), RpcError> {
    let named = connection.and_then(|text| parse_utility_id(text).map(|operation| (text, operation)));
    let Some((text, operation)) = named else { return Ok((target(connection, conference)?, None)) };
    if conference.is_some() {
        return Err(both_targets());
    }
    let registry = call.server.registry.borrow();
    let entry = registry.operation(operation).filter(|entry| !entry.ending);
    let target = entry.map(|entry| entry.target).filter(|target| matches!(target, Target::Conference(_)));
    Ok((target.ok_or_else(|| RpcError::unknown_connection(text))?, Some(operation)))
}

/// Refuses the second of two parameters that exclude each other.
fn exclusive(one: &str, has_one: bool, other: &str, has_other: bool) -> Result<(), RpcError> {
    if has_one && has_other {
        return Err(RpcError::invalid_param(other, format!("{one} and {other} exclude each other")));
    }
    Ok(())
}

fn both_targets() -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, "connection_id and conference_id exclude each other")
        .with("param", "conference_id")
}

pub(super) fn operation(text: &str) -> Result<OperationId, RpcError> {
    OperationId::parse(text).ok_or_else(|| RpcError::unknown_operation(text))
}

pub(super) fn key(target: Target) -> Key {
    match target {
        Target::Connection(id) => Key::Connection(id),
        Target::Conference(id) => Key::Conference(id),
    }
}

pub(super) fn shard_of(call: &Call, target: Target) -> Result<ShardId, RpcError> {
    match target {
        Target::Connection(id) => call.connection(id, |entry| entry.shard),
        Target::Conference(id) => call.conference(id, |entry| entry.shard),
    }
}

/// A day.
const DURATION_MS_MAX: u32 = 86_400_000;
/// Targets asked at once when all operations are listed.
const TARGETS_AT_ONCE: usize = 64;
