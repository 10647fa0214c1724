//! The older namespace `Metreos.Providers.MediaServer` (framework 1.x): the same actions under other names.
//!
//! Its parameters differ in case, which does not matter, and a few in name. Results have the older names; events are
//! those of the newer actions.

use serde_json::{Map, Value};

use super::codes::{Code, Fault};
use super::{MediaControl, Request, Response};

/// The older name of an action, if that is the namespace it is given in.
pub(super) fn action(name: &str) -> Option<&str> {
    let (head, tail) = name.split_at_checked(NAMESPACE.len())?;
    head.eq_ignore_ascii_case(NAMESPACE).then_some(tail)
}

/// Carries out an action by its older name.
pub(super) async fn call(mc: &MediaControl, name: &str, mut request: Request) -> Response {
    let Some(older) = OLDER.iter().find(|older| older.eq_ignore_ascii_case(name)).copied() else {
        let refused = mc.failure(&Fault::new(Code::UnknownCommand, format!("no such action: {NAMESPACE}{name}")));
        return Response { results: older_results(refused.results), ..refused };
    };
    rename(&mut request.params, older == "PlayAnnouncement");
    let response = match older {
        // All modes in one action: no address is half a connection, an id with a new address a change.
        "CreateConnection" if is_none(&request, "MediaTxPort") => {
            by_name(mc, "ReserveConnection", without(request, &["MediaTxIP", "MediaTxPort", "ConnectionId"])).await
        }
        "CreateConnection" if is_none(&request, "ConnectionId") => by_name(mc, "CreateConnection", request).await,
        "CreateConnection" => {
            let completed = by_name(mc, "CreateConnection", request.clone()).await;
            if completed.code() == Some(Code::AlreadyConnected.number()) {
                by_name(mc, "ModifyConnection", request).await
            } else {
                completed
            }
        }
        "CreateConnectionConference" if is_none(&request, "ConferenceId") => {
            by_name(mc, "CreateConference", without(request, &["ConferenceId"])).await
        }
        "CreateConnectionConference" => by_name(mc, "JoinConference", request).await,
        "MuteConferenceConnection" => by_name(mc, "Mute", request).await,
        "UnMuteConferenceConnection" => by_name(mc, "Unmute", request).await,
        // If both ids are given, that of the connection wins.
        "PlayAnnouncement" | "RecordAudio" => {
            let action = if older == "RecordAudio" { "Record" } else { "Play" };
            let loser = if is_none(&request, "ConnectionId") { "ConnectionId" } else { "ConferenceId" };
            by_name(mc, action, without(request, &[loser])).await
        }
        "ReceiveDigits" => by_name(mc, "GatherDigits", request).await,
        same => by_name(mc, same, request).await,
    };
    Response { results: older_results(response.results), ..response }
}

async fn by_name(mc: &MediaControl, action: &str, request: Request) -> Response {
    Box::pin(mc.call(Request { action: action.to_owned(), ..request })).await
}

/// Whether a parameter says nothing: it is not there, or zero.
fn is_none(request: &Request, name: &str) -> bool {
    let given = request.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    given.is_none_or(|value| value.is_null() || *value == "" || *value == "0" || *value == 0)
}

/// Gives parameters the names they have now.
fn rename(params: &mut Map<String, Value>, plays: bool) {
    let given = std::mem::take(params);
    params.extend(given.into_iter().map(|(name, value)| {
        let now = NAMES.iter().find(|(then, _, of_play)| then.eq_ignore_ascii_case(&name) && (plays || !of_play));
        (now.map_or(name, |(_, now, _)| (*now).to_owned()), value)
    }));
}

fn without(mut request: Request, names: &[&str]) -> Request {
    request.params.retain(|given, _| !names.iter().any(|name| name.eq_ignore_ascii_case(given)));
    request
}

/// Results under the names they had.
fn older_results(results: Map<String, Value>) -> Map<String, Value> {
    let older = |name: String| match name.as_str() {
        "MediaRxIP" => "ipAddress".to_owned(),
        "MediaRxPort" => "port".to_owned(),
        _ => name.split_at_checked(1).map_or_else(String::new, |(head, tail)| head.to_ascii_lowercase() + tail),
    };
    results.into_iter().map(|(name, value)| (older(name), value)).collect()
}

const NAMESPACE: &str = "Metreos.Providers.MediaServer.";
/// Every action of that namespace.
const OLDER: &[&str] = &[
    "CreateConnection",
    "CreateConnectionConference",
    "DeleteConnection",
    "MuteConferenceConnection",
    "UnMuteConferenceConnection",
    "PlayAnnouncement",
    "ReceiveDigits",
    "RecordAudio",
    "SendDigits",
    "DetectSilence",
    "StopMediaOperation",
];
/// Names of parameters then and now, and whether only of PlayAnnouncement.
const NAMES: &[(&str, &str, bool)] = &[
    ("remoteIp", "MediaTxIP", false),
    ("remotePort", "MediaTxPort", false),
    ("filename", "Prompt1", true),
    ("filename2", "Prompt2", true),
    ("filename3", "Prompt3", true),
];
