//! `events.subscribe`

use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use crate::events::EventKind;
use crate::proto::{RpcError, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    kinds: Option<Vec<String>>,
}

/// Sets which events this client hears of: those named, or all. An empty list is none.
pub(super) async fn subscribe(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Subscribe { kinds } = params(given)?;
    let kinds = match kinds {
        None => EventKind::ALL.to_vec(),
        Some(names) => names.iter().map(|name| kind(name)).collect::<Result<_, _>>()?,
    };
    call.client.subscribe(&kinds);
    Ok(json!({"subscribed": kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>()}))
}

fn kind(name: &str) -> Result<EventKind, RpcError> {
    EventKind::by_name(name)
        .ok_or_else(|| RpcError::invalid_param("kinds", format!("kinds: there are no events called `{name}`")))
}
