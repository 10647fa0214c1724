//! `operation.*`

use ringbridge_media::command::{Command, OperationKind, OperationSpec, Target};
use ringbridge_media::event::Answer;
use ringbridge_media::id::{OperationId, ShardId};
use ringbridge_media::limits::PROMPTS_MAX;
use ringbridge_shard::mailbox::Lane;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::render::{self, effect_of};
use super::{Call, conference_id, connection_id, in_range, unexpected};
use crate::gate::Gate;
use crate::proto::{ErrorKind, RpcError, params};
use crate::registry::{RecordingEntry, parse_utility_id, utility_id};
use crate::router::{Concern, Dispatch};
use crate::tickets::Key;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Play {
    connection_id: Option<String>,
    conference_id: Option<String>,
    files: Vec<String>,
    max_time_ms: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    connection_id: Option<String>,
    conference_id: Option<String>,
    path: String,
    channels: Option<Map<String, Value>>,
    max_time_ms: Option<u32>,
}

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
            "play" => play(call, given).await,
            "record" => record(call, given).await,
            later if KINDS_OF_LATER_VERSIONS.contains(&later) => {
                Err(RpcError::unsupported(&format!("operation `{later}`")).with("param", "kind"))
            }
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
    let utility = connection_id.as_deref().and_then(parse_utility_id);
    let (key_target, wanted) = match utility {
        Some(of_utility) => {
            if conference_id.is_some() {
                return Err(both_targets());
            }
            let text = connection_id.as_deref().unwrap_or_default();
            let registry = call.server.registry.borrow();
            let entry = registry.operation(of_utility).filter(|entry| !entry.ending);
            let target = entry.map(|entry| entry.target).filter(|target| matches!(target, Target::Conference(_)));
            let target = target.ok_or_else(|| RpcError::unknown_connection(text))?;
            if named.is_some_and(|named| named != of_utility) {
                return Err(RpcError::unknown_operation(operation_id.unwrap_or_default()));
            }
            (target, Some(of_utility))
        }
        None => (target(connection_id.as_deref(), conference_id.as_deref())?, named),
    };
    let ticket = call.ticket(&[key(key_target)]);
    ticket.turn().await;
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

async fn play(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Play { connection_id, conference_id, files, max_time_ms } = params(given)?;
    let target = target(connection_id.as_deref(), conference_id.as_deref())?;
    if files.is_empty() || files.len() > PROMPTS_MAX {
        return Err(RpcError::invalid_param("files", format!("files: 1 to {PROMPTS_MAX} paths are played")));
    }
    let max_time_ms = max_time(max_time_ms)?;
    let ticket = call.ticket(&[key(target)]);
    ticket.turn().await;
    // Nothing is read for a target that is not there or can't be reached.
    call.server.router.borrow().room(shard_of(call, target)?, Lane::Ordinary)?;
    let playlist = call.server.files.open_playlist(&crate::files::PlaylistSpec::files(files)).await?;
    let shard = shard_of(call, target)?;
    let spec = OperationSpec::Play { playlist, max_time_ms };
    let begun = begin(call, shard, target, OperationKind::Play, None, spec);
    drop(ticket);
    begun?.finish(call).await
}

async fn record(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Record { connection_id, conference_id, path, channels, max_time_ms } = params(given)?;
    let target = target(connection_id.as_deref(), conference_id.as_deref())?;
    if channels.is_some() {
        return Err(RpcError::unsupported("a recording with two channels").with("param", "channels"));
    }
    let max_time_ms = max_time(max_time_ms)?;
    let ticket = call.ticket(&[key(target)]);
    ticket.turn().await;
    call.server.router.borrow().room(shard_of(call, target)?, Lane::Ordinary)?;
    let recording = call.server.files.start_recording(crate::files::RecordingSpec::wav(path)).await?;
    let spec = OperationSpec::Record { queue: std::sync::Arc::clone(&recording.queue), max_time_ms };
    let entry = RecordingEntry { path: recording.path, queue: recording.queue, done: recording.done };
    let begun = match shard_of(call, target) {
        Ok(shard) => begin(call, shard, target, OperationKind::Record, Some(entry), spec),
        Err(gone) => {
            call.server.abandon_recording(entry);
            Err(gone)
        }
    };
    drop(ticket);
    begun?.finish(call).await
}

/// An operation whose start is on its way.
struct Starting {
    id: OperationId,
    target: Target,
    announced: Gate,
    in_flight: crate::server::InFlight,
}

fn begin(
    call: &Call,
    shard: ShardId,
    target: Target,
    kind: OperationKind,
    recording: Option<RecordingEntry>,
    operation: OperationSpec,
) -> Result<Starting, RpcError> {
    let server = &call.server;
    let (id, announced) = {
        let mut registry = server.registry.borrow_mut();
        let entry = registry.add_operation(shard, target, kind, recording);
        (entry.id, entry.announced.clone())
    };
    let command = Command::StartOperation { id, target, operation };
    let concern = Concern::Operation(id);
    match server.dispatch(Dispatch { shard, command, received: call.received, concern }) {
        Ok(in_flight) => Ok(Starting { id, target, announced, in_flight }),
        Err(error) => {
            server.abandon_operation(id);
            Err(error)
        }
    }
}

impl Starting {
    async fn finish(self, call: &Call) -> Result<Value, RpcError> {
        let Self { id, target, announced, in_flight } = self;
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

fn both_targets() -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, "connection_id and conference_id exclude each other")
        .with("param", "conference_id")
}

fn operation(text: &str) -> Result<OperationId, RpcError> {
    OperationId::parse(text).ok_or_else(|| RpcError::unknown_operation(text))
}

fn key(target: Target) -> Key {
    match target {
        Target::Connection(id) => Key::Connection(id),
        Target::Conference(id) => Key::Conference(id),
    }
}

fn shard_of(call: &Call, target: Target) -> Result<ShardId, RpcError> {
    match target {
        Target::Connection(id) => call.connection(id, |entry| entry.shard),
        Target::Conference(id) => call.conference(id, |entry| entry.id.shard()),
    }
}

fn max_time(max_time_ms: Option<u32>) -> Result<Option<u32>, RpcError> {
    max_time_ms.map(|time| in_range("max_time_ms", time, 1..=MAX_TIME_MS_MAX)).transpose()
}

/// Operations that are known by name and not carried out yet.
const KINDS_OF_LATER_VERSIONS: &[&str] = &["tone", "gather_digits", "detect_silence", "detect_nonsilence"];
/// A day.
const MAX_TIME_MS_MAX: u32 = 86_400_000;
/// Targets asked at once when all operations are listed.
const TARGETS_AT_ONCE: usize = 64;
