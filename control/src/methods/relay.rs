//! `relay.*`

use ringbridge_media::command::Command;
use ringbridge_shard::mailbox::Lane;
use serde::Deserialize;
use serde_json::{Value, json};

use super::render::effect_of;
use super::{Call, connection_id, in_length};
use crate::events::EventKind;
use crate::proto::{RpcError, params};
use crate::tickets::Key;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    a: String,
    b: String,
    caller_number: Option<String>,
    called_number: Option<String>,
    transcode: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    a: String,
}

/// Wires two connections to each other; `b` moves to where `a` lives.
pub(super) async fn start(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Start { a, b, caller_number, called_number, transcode } = params(given)?;
    let (a, b) = (connection_id(&a)?, connection_id(&b)?);
    if a == b {
        return Err(RpcError::invalid_param("b", "b: a connection can't be relayed to itself"));
    }
    let caller_number = in_length("caller_number", caller_number, NUMBER_BYTES_MAX)?;
    let called_number = in_length("called_number", called_number, NUMBER_BYTES_MAX)?;
    let transcode = transcode.unwrap_or(false);
    let ticket = call.ticket(&[Key::Connection(a), Key::Connection(b)]);
    ticket.turn().await;
    let shard = call.connection(a, |entry| entry.shard)?;
    call.bring(b, shard, Lane::Ordinary).await?;
    let sent = call.server.send(shard, Command::StartRelay { a, b, transcode }, call.received)?;
    let answer = sent.answer().await.map_err(|error| error.about("connection_id", a))?;
    // Whoever stops the relay next finds its text.
    let relay = call.server.registry.borrow_mut().add_call(a, b, caller_number, called_number, transcode);
    drop(ticket);
    let mut told = json!({"call_id": relay.id, "a": a.to_string(), "b": b.to_string()});
    add_numbers(&mut told, &relay);
    call.server.hub.publish(EventKind::CallStarted, told);
    Ok(json!({"call_id": relay.id, "effect": effect_of(&answer)?}))
}

/// Undoes a relay, named by either side.
pub(super) async fn stop(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Stop { a } = params(given)?;
    let a = connection_id(&a)?;
    let ticket = call.ticket(&[Key::Connection(a)]);
    ticket.turn().await;
    let (shard, relay) = call.connection(a, |entry| (entry.shard, entry.call.clone()))?;
    let answer = call.send(ticket, shard, Command::StopRelay { a })?.answer().await?;
    if let Some(relay) = relay {
        call.server.registry.borrow_mut().clear_call(&relay);
    }
    Ok(json!({"effect": effect_of(&answer)?}))
}

/// Adds the numbers of a relay to what is told of it, as far as they are known.
pub(super) fn add_numbers(told: &mut Value, relay: &crate::registry::Call) {
    let numbers = [("caller_number", &relay.caller_number), ("called_number", &relay.called_number)];
    for (name, number) in numbers {
        if let Some(number) = number {
            told[name] = number.as_str().into();
        }
    }
}

/// Bytes of a telephone number or address.
const NUMBER_BYTES_MAX: usize = 256;
