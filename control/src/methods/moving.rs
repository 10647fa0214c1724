//! `connection.move`, `conference.move`, and what moves of itself on its way into a relay or conference.

use ringbridge_media::command::Target;
use ringbridge_media::event::CommandError;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_shard::mailbox::{Lane, Moved};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Call, conference_id, connection_id, render, shard_id};
use crate::proto::{ErrorKind, RpcError, params};
use crate::server::{MOVE_PATIENCE, MoveReason, busy};
use crate::tickets::Key;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveConnection {
    connection_id: String,
    shard: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveConference {
    conference_id: String,
    shard: u8,
}

/// Moves a connection to another shard, together with the other side of its relay.
pub(super) async fn connection(call: &Call, given: Value) -> Result<Value, RpcError> {
    let MoveConnection { connection_id: id, shard } = params(given)?;
    let id = connection_id(&id)?;
    let to = shard_id(&call.server, shard)?;
    Ok(told(to, call.move_connection(id, to, MoveReason::Requested).await?))
}

/// Moves a conference to another shard, with everybody in it.
pub(super) async fn conference(call: &Call, given: Value) -> Result<Value, RpcError> {
    let MoveConference { conference_id: id, shard } = params(given)?;
    let id = conference_id(&id)?;
    let to = shard_id(&call.server, shard)?;
    Ok(told(to, call.move_conference(id, to, MoveReason::Requested).await?))
}

fn told(to: ShardId, moved: Option<Moved>) -> Value {
    let Some(moved) = moved else { return json!({"shard": to.0}) };
    json!({
        "shard": moved.shard.0,
        "connections": moved.connections.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "effect": moved.effect.as_deref().map(render::effect),
    })
}

impl Call {
    /// Moves a connection, and the other side of its relay. `None`: it lived there already.
    pub(crate) async fn move_connection(
        &self,
        id: ConnectionId,
        to: ShardId,
        reason: MoveReason,
    ) -> Result<Option<Moved>, RpcError> {
        let keys: Vec<Key> = self.group(id).unwrap_or_else(|_| vec![id]).into_iter().map(Key::Connection).collect();
        let ticket = self.ticket(&keys);
        ticket.turn().await;
        let group = self.group(id)?;
        if self.connection(id, |entry| entry.shard)? == to {
            return Ok(None);
        }
        let target = Target::Connection(id);
        let moved = self.server.relocate(target, group, to, self.received, reason).await?;
        drop(ticket);
        if moved.connections.is_empty() {
            self.connection(id, |_| ())?;
            return Err(busy("what the connection is wired to has just changed; try again", target));
        }
        Ok(Some(moved))
    }

    /// Moves a conference with everybody in it. `None`: it lived there already.
    pub(crate) async fn move_conference(
        &self,
        id: ConferenceId,
        to: ShardId,
        reason: MoveReason,
    ) -> Result<Option<Moved>, RpcError> {
        let ticket = self.ticket(&[Key::Conference(id)]);
        ticket.turn().await;
        if self.conference(id, |entry| entry.shard)? == to {
            return Ok(None);
        }
        if self.conference(id, |entry| entry.spread)? {
            let message = "conference_id: a conference in parts stays where its parts are";
            return Err(RpcError::invalid_param("conference_id", message));
        }
        let target = Target::Conference(id);
        let moved = self.server.relocate(target, self.members_of(id)?, to, self.received, reason).await?;
        drop(ticket);
        if moved.conference.is_none() {
            self.conference(id, |_| ())?;
            return Err(busy("the members of the conference have just changed; try again", target));
        }
        Ok(Some(moved))
    }

    /// A connection and the other side of its relay, if it is in one. A member of a conference does not move alone.
    fn group(&self, id: ConnectionId) -> Result<Vec<ConnectionId>, RpcError> {
        let (call, conference) =
            self.connection(id, |entry| (entry.call.clone(), entry.conferences.first().copied()))?;
        if let Some(conference) = conference {
            let message = format!("it is in {conference}; move that with conference.move");
            let error = RpcError::new(ErrorKind::AlreadyJoined, message);
            return Err(error.with("connection_id", id.to_string()).with("conference_id", conference.to_string()));
        }
        let peer = call.map(|call| if call.a == id { call.b } else { call.a });
        Ok([id].into_iter().chain(peer).collect())
    }

    /// Everybody who moves with a conference: members, and those whose join is on its way to where it lives.
    fn members_of(&self, id: ConferenceId) -> Result<Vec<ConnectionId>, RpcError> {
        let registry = self.server.registry.borrow();
        let entry = registry.conference(id).ok_or_else(|| RpcError::unknown_conference(id))?;
        let lives_there =
            |member: &ConnectionId| registry.connection(*member).is_some_and(|member| member.shard == entry.shard);
        let mut members: Vec<_> = entry.member_ids().filter(lives_there).collect();
        members.sort_unstable();
        members.dedup();
        Ok(members)
    }

    /// Moves a connection to `shard` if it lives elsewhere. To be called by the holder of its ticket, which has to be
    /// kept until the command that needs it there is sent, so that nothing can overtake the move.
    pub(super) async fn bring(&self, connection: ConnectionId, shard: ShardId, lane: Lane) -> Result<(), RpcError> {
        let target = Target::Connection(connection);
        loop {
            let (from, moving) = self.connection(connection, |entry| {
                (entry.shard, entry.moving.as_ref().map(|transit| transit.over.clone()))
            })?;
            if let Some(over) = moving {
                // Somebody else moves it, with what it was wired to.
                let waited = timeout(MOVE_PATIENCE, over.wait()).await;
                waited.map_err(|_| busy("it is being moved; try again", target))?;
                continue;
            }
            if from == shard {
                return Ok(());
            }
            self.server.router.borrow().room(shard, lane)?;
            let moved =
                self.server.relocate(target, vec![connection], shard, self.received, MoveReason::Joined).await?;
            self.connection(connection, |_| ())?;
            if moved.connections.contains(&connection) {
                return Ok(());
            }
            // What is wired to something where it lives stays there.
            return Err(CommandError::AlreadyJoined(connection).into());
        }
    }
}
