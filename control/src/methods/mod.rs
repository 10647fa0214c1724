//! The methods of the control socket: typed parameters in, commands to a shard, JSON out. One file a family.

pub mod conference;
pub mod connection;
pub mod events;
mod moving;
pub mod operation;
mod parts;
pub mod recording;
pub mod relay;
pub mod render;
pub mod server;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;

use ringbridge_media::command::{Command, Target};
use ringbridge_media::event::Answer;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::time::Instant;
use serde_json::Value;

use crate::events::Client;
use crate::gate::Gate;
use crate::mediacontrol;
use crate::openrpc;
use crate::proto::{ErrorKind, NoParams, RpcError, params};
use crate::registry::{ConferenceEntry, ConnectionEntry};
use crate::server::{InFlight, Server};
use crate::tickets::{Key, Ticket};

/// One call of a method by one client.
pub struct Call {
    /// The server.
    pub server: Rc<Server>,
    /// Who calls.
    pub client: Rc<Client>,
    /// When the request was received.
    pub received: Instant,
    /// Where it came from, in words, for the log.
    pub origin: Rc<str>,
    announcements: RefCell<Vec<Gate>>,
}

macro_rules! methods {
    ($($name:literal => $handler:path,)*) => {
        /// The name of every method, in the order of the documentation.
        pub const NAMES: &[&str] = &[$($name),*];

        /// Carries out one call.
        ///
        /// # Errors
        /// -32601 for a method that is not known, else what the method says. A call that fails has changed nothing.
        pub async fn call(call: &Call, method: &str, params: Value) -> Result<Value, RpcError> {
            tracing::debug!(origin = &*call.origin, method, "call");
            match method {
                $($name => $handler(call, params).await,)*
                "debug.shard_panic" if call.server.config.fault_injection => server::shard_panic(call, params).await,
                _ => match method.strip_prefix("MediaControl.") {
                    Some(action) => mediacontrol::call_from_socket(call, action, params).await,
                    None => Err(RpcError::new(ErrorKind::MethodNotFound, format!("no such method: {method}"))),
                },
            }
        }
    };
}

methods! {
    "server.info" => server::info,
    "server.stats" => server::stats,
    "server.drain" => server::drain,
    "events.subscribe" => events::subscribe,
    "connection.create" => connection::create,
    "connection.modify" => connection::modify,
    "connection.get" => connection::get,
    "connection.list" => connection::list,
    "connection.delete" => connection::delete,
    "connection.send_digits" => connection::send_digits,
    "connection.move" => moving::connection,
    "relay.start" => relay::start,
    "relay.stop" => relay::stop,
    "conference.create" => conference::create,
    "conference.join" => conference::join,
    "conference.set" => conference::set,
    "conference.leave" => conference::leave,
    "conference.get" => conference::get,
    "conference.list" => conference::list,
    "conference.delete" => conference::delete,
    "conference.move" => moving::conference,
    "operation.start" => operation::start,
    "operation.stop" => operation::stop,
    "operation.list" => operation::list,
    "operation.adjust" => operation::adjust,
    "recording.mute" => recording::mute,
    "rpc.discover" => discover,
}

/// Whether a method changes nothing.
pub fn only_asks(method: &str) -> bool {
    const OTHERS: &[&str] = &["server.info", "server.stats", "events.subscribe", "rpc.discover"];
    OTHERS.contains(&method) || method.ends_with(".get") || method.ends_with(".list")
}

async fn discover(_call: &Call, given: Value) -> Result<Value, RpcError> {
    let NoParams {} = params(given)?;
    Ok(openrpc::document())
}

impl Call {
    /// A call of `client`.
    pub fn new(server: Rc<Server>, client: Rc<Client>, received: Instant, origin: Rc<str>) -> Self {
        Self { server, client, received, origin, announcements: RefCell::new(Vec::new()) }
    }

    /// A call from within this process, received now. It has no client whose queue could fill up: events are heard with
    /// [`Hub::observe`](crate::events::Hub::observe), and what [`call`] returns is the answer. Once that has been handed
    /// over, [`announce`](Self::announce) has to be called, whether the call failed or not: the ends of the operations
    /// it started are not told before.
    pub fn in_process(server: Rc<Server>, origin: Rc<str>) -> Self {
        let received = server.now();
        Self::new(server, Rc::default(), received, origin)
    }

    /// Opens `gate` once the answer to this call is queued.
    pub fn announce_to(&self, gate: Gate) {
        self.announcements.borrow_mut().push(gate);
    }

    /// The answer is queued.
    pub fn announce(&self) {
        for gate in self.announcements.borrow_mut().drain(..) {
            gate.open();
        }
    }

    /// Takes a place in the queue of everything a call names. To be called before the first wait.
    fn ticket(&self, keys: &[Key]) -> Ticket {
        self.server.tickets.take(keys)
    }

    /// Looks up something about a connection.
    fn connection<T>(&self, id: ConnectionId, look: impl FnOnce(&ConnectionEntry) -> T) -> Result<T, RpcError> {
        let registry = self.server.registry.borrow();
        registry.connection(id).map(look).ok_or_else(|| RpcError::unknown_connection(id))
    }

    /// Looks up something about a conference.
    fn conference<T>(&self, id: ConferenceId, look: impl FnOnce(&ConferenceEntry) -> T) -> Result<T, RpcError> {
        let registry = self.server.registry.borrow();
        registry.conference(id).map(look).ok_or_else(|| RpcError::unknown_conference(id))
    }

    /// Sends a command whose place in the order is the holder's of `ticket`, and gives the place up.
    fn send(&self, ticket: Ticket, shard: ShardId, command: Command) -> Result<InFlight, RpcError> {
        let sent = self.server.send(shard, command, self.received);
        drop(ticket);
        sent
    }

    /// The connections an answer says were released. Waits until that is known here too, and the ends of the operations
    /// on them and on `conference` were told, so that whoever reads the answer finds their ports free.
    async fn settle_deleted(&self, answer: &Answer, conference: Option<ConferenceId>) -> Vec<String> {
        let Answer::Deleted { connections, .. } = answer else { return Vec::new() };
        let targets = connections.iter().map(|id| Target::Connection(*id)).chain(conference.map(Target::Conference));
        let ends: Vec<Gate> = {
            let registry = self.server.registry.borrow();
            targets.flat_map(|target| registry.operations_of(target)).map(|entry| entry.ended.clone()).collect()
        };
        for end in ends {
            end.wait().await;
        }
        for id in connections {
            if let Ok(ended) = self.connection(*id, |entry| entry.ended.clone()) {
                ended.wait().await;
            }
        }
        connections.iter().map(ToString::to_string).collect()
    }
}

/// The connection a client means.
fn connection_id(text: &str) -> Result<ConnectionId, RpcError> {
    ConnectionId::parse(text).ok_or_else(|| RpcError::unknown_connection(text))
}

/// The conference a client means.
fn conference_id(text: &str) -> Result<ConferenceId, RpcError> {
    ConferenceId::parse(text).ok_or_else(|| RpcError::unknown_conference(text))
}

/// Checks that a number is in its range.
fn in_range<T: PartialOrd + ToString>(param: &str, value: T, range: RangeInclusive<T>) -> Result<T, RpcError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (min, max) = (range.start().to_string(), range.end().to_string());
    Err(RpcError::invalid_param(param, format!("{param}: {} is out of range, {min} to {max}", value.to_string())))
}

/// Checks that a text is not longer than it may be, in bytes.
fn in_length(param: &str, text: Option<String>, max: usize) -> Result<Option<String>, RpcError> {
    match text {
        Some(text) if text.len() > max => {
            Err(RpcError::invalid_param(param, format!("{param}: longer than {max} bytes")))
        }
        other => Ok(other),
    }
}

/// The shard a client names.
fn shard_id(server: &Server, shard: u8) -> Result<ShardId, RpcError> {
    let last = u8::try_from(server.derived.shard_cpus.len() - 1).unwrap_or(u8::MAX);
    in_range("shard", shard, 0..=last).map(ShardId)
}

/// An answer that does not belong to its command.
fn unexpected(answer: &Answer) -> RpcError {
    tracing::error!(?answer, "an answer that does not belong to its command");
    RpcError::new(ErrorKind::Internal, "the shard gave an answer that does not belong to the command")
}

/// Bytes of a label.
const LABEL_BYTES_MAX: usize = 256;
/// Connections or conferences asked for with one command while listing.
const PAGE: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, name) in NAMES.iter().enumerate() {
            assert!(!NAMES[index + 1..].contains(name), "{name}");
        }
    }

    #[test]
    fn methods_that_only_ask_are_told_from_those_that_change_something() {
        let asking: Vec<&str> = NAMES.iter().copied().filter(|name| only_asks(name)).collect();
        let expected = [
            "server.info",
            "server.stats",
            "events.subscribe",
            "connection.get",
            "connection.list",
            "conference.get",
            "conference.list",
            "operation.list",
            "rpc.discover",
        ];
        assert_eq!(asking, expected);
    }

    #[test]
    fn a_range_error_names_the_range() {
        let error = in_range("ptime_ms", 201, 1..=200).expect_err("out of range").to_value();
        assert_eq!(error["data"]["param"], "ptime_ms");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("1 to 200")));
    }
}
