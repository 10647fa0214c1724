//! What the engine says, as JSON.

use std::collections::BTreeMap;

use ringbridge_media::command::{DigitSource, Direction, Role, Target};
use ringbridge_media::event::{
    Answer, ConferenceStatus, ConnectionState, ConnectionStatus, Effect, EffectClock, OperationStatus, StreamStamp,
};
use ringbridge_media::reports::Quality;
use serde_json::{Map, Value, json};

use super::unexpected;
use crate::config::codec_name;
use crate::proto::RpcError;
use crate::registry::{OperationEntry, Registry, utility_id};

/// The effect of an answer that has one; null if nothing could be heard of the change.
///
/// # Errors
/// The answer is of another kind.
pub fn effect_of(answer: &Answer) -> Result<Value, RpcError> {
    match answer {
        Answer::Effect(told) | Answer::Deleted { effect: told, .. } | Answer::Stopped { effect: told, .. } => {
            Ok(effect(told))
        }
        Answer::Done => Ok(Value::Null),
        Answer::Connection(_)
        | Answer::Connections { .. }
        | Answer::Conference(_)
        | Answer::Conferences { .. }
        | Answer::Operations(_) => Err(unexpected(answer)),
    }
}

/// `effect`, as the contract says. Without any stream `rtp_timestamp` is null.
pub fn effect(effect: &Effect) -> Value {
    let clock = match effect.clock {
        EffectClock::Connection => "connection",
        EffectClock::Conference => "conference",
        EffectClock::Recording => "recording",
    };
    json!({
        "clock": clock,
        "received_media_time_ms": effect.received_media_time_ms,
        "media_time_ms": effect.media_time_ms,
        "rtp_timestamp": effect.streams.first().map(|stream| stream.rtp_timestamp),
        "streams": effect.streams.iter().map(stream).collect::<Vec<_>>(),
    })
}

fn stream(stamp: &StreamStamp) -> Value {
    let mut stream = json!({
        "connection_id": stamp.connection.to_string(),
        "ssrc": stamp.ssrc,
        "direction": if stamp.outgoing { "out" } else { "in" },
        "rtp_timestamp": stamp.rtp_timestamp,
    });
    if let Some(sequence) = stamp.sequence {
        stream["sequence"] = sequence.into();
    }
    stream
}

/// How well an endpoint is heard, and what it says of how it hears us.
pub fn quality(quality: &Quality) -> Value {
    let pattern = &quality.pattern;
    let told = quality.told.as_ref().map(|told| {
        json!({
            "loss_percent": told.loss_percent,
            "cumulative_lost": told.cumulative_lost,
            "jitter_ms": told.jitter_ms,
            "r_factor": told.r_factor,
            "mos_cq": told.mos_cq,
        })
    });
    json!({
        "loss_percent": pattern.loss_percent,
        "discard_percent": pattern.discard_percent,
        "burst_density_percent": pattern.burst_density_percent,
        "gap_density_percent": pattern.gap_density_percent,
        "burst_packets": pattern.burst_packets,
        "gap_packets": pattern.gap_packets,
        "burst_ratio": pattern.burst_ratio,
        "round_trip_ms": quality.round_trip_ms,
        "playout_delay_ms": quality.playout_delay_ms,
        "jitter_buffer": quality.delay.map(|delay| json!({
            "target_ms": delay.target_ms,
            "delay_ms": delay.current_ms,
            "late": delay.counters.late,
            "discarded": delay.counters.discarded,
            "stretched_samples": delay.counters.stretched_samples,
            "compressed_samples": delay.counters.compressed_samples,
            "concealed_samples": delay.counters.concealed_samples,
            "talkspurts": delay.counters.talkspurts,
            "restarts": delay.counters.restarts,
        })),
        "r_factor": quality.r_factor,
        "mos_lq": quality.mos_lq,
        "mos_cq": quality.mos_cq,
        "told": told,
        "bye": quality.bye,
    })
}

/// A connection: what the engine says, and the text that goes with it.
pub fn connection(status: &ConnectionStatus, registry: &Registry) -> Value {
    let address = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    let counters = &status.counters;
    let mut value = json!({
        "connection_id": status.id.to_string(),
        "state": match status.state {
            ConnectionState::Idle => "idle",
            ConnectionState::Relayed(_) => "relayed",
            ConnectionState::InConference(_) => "conference",
        },
        "remote": address(status.remote),
        "learned": address(status.learned),
        "remote_rtcp": address(status.remote_rtcp),
        "connected_socket": status.connected_socket,
        "rx_codec": codec_name(status.rx_codec),
        "tx_codec": codec_name(status.tx_codec),
        "ptime_ms": status.ptime_ms,
        "direction": direction_name(status.direction),
        "ssrc_in": status.ssrc_in,
        "ssrc_out": status.ssrc_out,
        "counters": {
            "packets_in": counters.packets_in,
            "bytes_in": counters.bytes_in,
            "packets_out": counters.packets_out,
            "bytes_out": counters.bytes_out,
            "rtcp_in": counters.rtcp_in,
            "rtcp_out": counters.rtcp_out,
            "drops": counters.drops,
            "concealed_samples": counters.concealed_samples,
            "ssrc_collisions": counters.ssrc_collisions,
        },
        "cumulative_lost": status.cumulative_lost,
        "jitter_ms": status.jitter_ms,
        "quality": quality(&status.quality),
        "level_db": status.level_db,
        "operations": status.operations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "reserved": status.reserved,
        "digits": status.digits.as_str(),
    });
    match status.state {
        ConnectionState::Idle => {}
        ConnectionState::Relayed(peer) => value["peer_id"] = peer.to_string().into(),
        ConnectionState::InConference(id) => value["conference_id"] = id.to_string().into(),
    }
    let Some(entry) = registry.connection(status.id) else { return value };
    value["shard"] = entry.shard.0.into();
    value["local"] = entry.lease.rtp().to_string().into();
    value["local_rtcp"] = entry.lease.rtcp().to_string().into();
    value["created_at"] = entry.created_at.to_string().into();
    value["label"] = entry.label.clone().into();
    value["interface"] = entry.interface.clone().into();
    value["dscp"] = entry.dscp.into();
    value["digit_source"] = match entry.digit_source {
        DigitSource::Events => "events",
        DigitSource::Auto => "auto",
    }
    .into();
    value["telephone_event_pt"] = entry.negotiated.telephone_event_payload_type.into();
    let names: BTreeMap<String, &str> =
        entry.negotiated.names.iter().map(|(number, name)| (number.to_string(), name.as_str())).collect();
    value["payload_types"] = json!(names);
    if let Some(call) = &entry.call {
        value["call_id"] = call.id.clone().into();
        value["caller_number"] = call.caller_number.clone().into();
        value["called_number"] = call.called_number.clone().into();
    }
    value
}

/// A conference: what the engine says, and the text that goes with it.
pub fn conference(status: &ConferenceStatus, registry: &Registry) -> Value {
    let participants: Vec<_> = status
        .participants
        .iter()
        .map(|participant| {
            json!({
                "connection_id": participant.connection.to_string(),
                "muted": participant.muted,
                "deaf": participant.deaf,
                "gain_db": participant.gain_db,
                "role": role_name(participant.role),
                "tariff_tone": participant.tariff_tone,
                "talking": participant.talking,
                "level_db": participant.level_db,
            })
        })
        .collect();
    let mut value = json!({
        "conference_id": status.id.to_string(),
        "shard": registry.conference(status.id).map_or_else(|| status.id.shard(), |entry| entry.shard).0,
        "shards": registry.conference(status.id).map_or_else(Vec::new, |entry| entry.shards().map(|shard| shard.0).collect()),
        "sample_rate_hz": status.rate.hz(),
        "media_time_ms": status.media_time_ms,
        "hairpin": status.hairpin,
        "participants": participants,
        "operations": status.operations.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let Some(entry) = registry.conference(status.id) else { return value };
    value["label"] = entry.label.clone().into();
    value["max_participants"] = entry.participants_max.into();
    value["created_at"] = entry.created_at.to_string().into();
    value
}

/// A running operation.
pub fn operation(status: &OperationStatus, entry: Option<&OperationEntry>) -> Value {
    let mut value = Map::new();
    value.insert("operation_id".into(), status.id.to_string().into());
    match status.target {
        Target::Connection(id) => value.insert("connection_id".into(), id.to_string().into()),
        Target::Conference(id) => {
            value.insert("conference_id".into(), id.to_string().into());
            value.insert("connection_id".into(), utility_id(status.id).into())
        }
    };
    value.insert("kind".into(), status.kind.name().into());
    value.insert("elapsed_ms".into(), status.elapsed_ms.into());
    if let Some(recording) = entry.and_then(|entry| entry.recording.as_ref()) {
        value.insert("path".into(), recording.path.to_string_lossy().into());
    }
    value.into()
}

/// The name of a participant's role.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Party => "party",
        Role::Monitor => "monitor",
        Role::Coach => "coach",
        Role::Pupil => "pupil",
    }
}

/// The name of a direction (RFC 8866 section 6.7).
pub fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}
