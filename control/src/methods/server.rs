//! `server.*`

use std::time::Duration;

use hdrhistogram::Histogram;
use ringbridge_shard::snapshot::ShardSnapshot;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Call, in_range, shard_id};
use crate::config::{CODECS, codec_name};
use crate::proto::{ErrorKind, NoParams, RpcError, params};
use crate::quota::{Class, Usage};
use crate::server::Server;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    deadline_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardPanic {
    shard: u8,
}

/// Who serves here.
pub(super) async fn info(call: &Call, given: Value) -> Result<Value, RpcError> {
    let NoParams {} = params(given)?;
    Ok(json!({
        "name": "ringbridge",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "shards": call.server.derived.shard_cpus.len(),
        "codecs": CODECS.iter().map(|kind| codec_name(*kind)).collect::<Vec<_>>(),
        "started_at": call.server.started_at.to_string(),
        "draining": call.server.is_draining(),
    }))
}

/// The figures of every shard and of the control plane.
pub(super) async fn stats(call: &Call, given: Value) -> Result<Value, RpcError> {
    let NoParams {} = params(given)?;
    let snapshots = call.server.snapshots().await;
    let shards: Vec<_> = snapshots
        .into_iter()
        .map(|(shard, snapshot)| match snapshot {
            Some(snapshot) => shard_stats(&snapshot),
            None => json!({"shard": shard.0, "up": false}),
        })
        .collect();
    let resources: Map<String, Value> =
        Class::ALL.iter().map(|class| (class.name().to_owned(), usage(call.server.quota.usage(*class)))).collect();
    Ok(json!({"shards": shards, "control": control_stats(&call.server), "resources": resources}))
}

/// Refuses new connections; with a deadline, waits until none is left or it has passed.
pub(super) async fn drain(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Drain { deadline_ms } = params(given)?;
    let deadline = deadline_ms.map(|deadline| in_range("deadline_ms", deadline, 0..=3_600_000)).transpose()?;
    let connections = call.server.drain(deadline.map(Duration::from_millis)).await;
    Ok(json!({"connections": connections}))
}

/// Makes a shard panic. Only there with `fault_injection`.
pub(super) async fn shard_panic(call: &Call, given: Value) -> Result<Value, RpcError> {
    let ShardPanic { shard } = params(given)?;
    let shard = shard_id(&call.server, shard)?;
    if call.server.panic_shard(shard) {
        return Ok(json!({"shard": shard.0}));
    }
    Err(RpcError::new(ErrorKind::ShardFailed, format!("shard {shard} does not run")).with("shard", shard.0))
}

fn shard_stats(snapshot: &ShardSnapshot) -> Value {
    let drops: Map<String, Value> =
        snapshot.drops.iter().map(|(reason, count)| (reason.name().to_owned(), count.into())).collect();
    json!({
        "shard": snapshot.shard.0,
        "up": true,
        "connections": snapshot.connections,
        "conferences": snapshot.conferences,
        "operations": snapshot.operations,
        "packets_in": snapshot.packets_in,
        "packets_out": snapshot.packets_out,
        "drops": drops,
        "ticks_late": snapshot.ticks_late,
        "partials_late": snapshot.partials_late,
        "partials_dropped": snapshot.partials_dropped,
        "encodes": snapshot.encodes,
        "packets_direct": snapshot.packets_direct,
        "events_dropped": snapshot.events_dropped,
        "residence_us": percentiles(&snapshot.residence_us),
        "command_us": percentiles(&snapshot.command_us),
        "io": {
            "syscalls": snapshot.io.syscalls,
            "received": snapshot.io.received,
            "sent": snapshot.io.sent,
            "rearms": snapshot.io.rearms,
            "buffers_exhausted": snapshot.io.buffers_exhausted,
            "resends": snapshot.io.resends,
        },
        "busy": snapshot.busy,
        "cpu_ns": snapshot.cpu_ns,
        "thread_id": snapshot.thread_id,
    })
}

fn usage(usage: Usage) -> Value {
    json!({"in_use": usage.in_use, "limit": usage.limit, "denied": usage.denied})
}

fn control_stats(server: &Server) -> Value {
    let (requests, errors) = server.counts();
    json!({
        "clients": server.hub.clients(),
        "clients_disconnected": server.hub.disconnected(),
        "requests": requests,
        "errors": errors,
        "events": server.hub.published(),
        "events_dropped": server.hub.dropped(),
        "commands_in_flight": server.router.borrow().in_flight(),
        "port_pairs": server.ports.pairs_total(),
        "port_pairs_free": server.ports.pairs_free(),
        "moves": server.moves.all().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, Value>>(),
        "cpu_ns": thread_cpu_ns(),
        "thread_id": nix::unistd::gettid().as_raw(),
    })
}

/// CPU time of the calling thread in nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    json!({
        "p50": histogram.value_at_quantile(0.5),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
        "count": histogram.len(),
    })
}
