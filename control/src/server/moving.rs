//! Moves between shards, for whoever wants one.

use std::time::Duration;

use ringbridge_media::command::Target;
use ringbridge_media::id::{ConnectionId, ShardId};
use ringbridge_media::time::Instant;
use ringbridge_shard::mailbox::{Lane, Moved};
use serde_json::json;
use tokio::time::timeout;

use super::{MoveReason, Server};
use crate::events::EventKind;
use crate::proto::{ErrorKind, RpcError};
use crate::registry::MoveRefused;

impl Server {
    /// Moves `target` and `members`, which go with it, to another shard, and waits until that is over. What is reported
    /// names those that have arrived; none if they stay, as something they are wired to was not expected.
    ///
    /// # Errors
    /// A shard is busy, full or has failed, or something is moving already. Nothing has moved, unless the time limit is
    /// over: then it may still come to that.
    pub async fn relocate(
        &self,
        target: Target,
        members: Vec<ConnectionId>,
        to: ShardId,
        received: Instant,
        reason: MoveReason,
    ) -> Result<Moved, RpcError> {
        let from = self.shard_of(target);
        let outcome = self.try_relocate(target, members, to, received).await;
        let moved = outcome.as_ref().ok().filter(|moved| moved.conference.is_some() || !moved.connections.is_empty());
        self.moves.count(reason, moved.is_some());
        if let (Some(moved), Some(from), MoveReason::Requested | MoveReason::Rebalanced) = (moved, from, reason) {
            let mut told = json!({
                "from": from.0,
                "to": moved.shard.0,
                "connections": moved.connections.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "reason": reason.name(),
            });
            if let Some(conference) = moved.conference {
                told["conference_id"] = conference.to_string().into();
            }
            self.hub.publish(EventKind::ShardMoved, told);
        }
        outcome
    }

    fn shard_of(&self, target: Target) -> Option<ShardId> {
        let registry = self.registry.borrow();
        match target {
            Target::Connection(id) => registry.connection(id).map(|entry| entry.shard),
            Target::Conference(id) => registry.conference(id).map(|entry| entry.shard),
        }
    }

    async fn try_relocate(
        &self,
        target: Target,
        members: Vec<ConnectionId>,
        to: ShardId,
        received: Instant,
    ) -> Result<Moved, RpcError> {
        self.router.borrow().room(to, Lane::Ordinary)?;
        let begun = self.registry.borrow_mut().begin_move(target, members, to, received);
        let (order, outcome) = begun.map_err(|refused| match (refused, target) {
            (MoveRefused::Ended, Target::Connection(id)) => RpcError::unknown_connection(id),
            (MoveRefused::Ended, Target::Conference(id)) => RpcError::unknown_conference(id),
            (MoveRefused::Full(full), _) => about(RpcError::new(ErrorKind::LimitReached, full.to_string()), target),
            (MoveRefused::Moving, _) => busy(&MoveRefused::Moving.to_string(), target),
        })?;
        let token = order.token;
        // It was begun just now.
        let from = self.registry.borrow().origin_of(token).unwrap_or(to);
        if let Err(refusal) = self.router.borrow().send_move(from, order) {
            self.registry.borrow_mut().cancel_move(token);
            return Err(refusal.into());
        }
        match timeout(MOVE_PATIENCE, outcome).await {
            Ok(Ok(Ok(moved))) => Ok(moved),
            Ok(Ok(Err(failed))) => Err(about(RpcError::shard_failed(failed.0), target)),
            Ok(Err(_)) => Err(about(RpcError::shard_failed(from.0), target)),
            Err(_) => Err(busy("the shards have not carried out the move in time; try again", target)),
        }
    }
}

/// What is moving and can't be moved or commanded elsewhere now.
pub(crate) fn busy(message: &str, target: Target) -> RpcError {
    about(RpcError::new(ErrorKind::Busy, message), target)
}

fn about(error: RpcError, target: Target) -> RpcError {
    match target {
        Target::Connection(id) => error.about("connection_id", id),
        Target::Conference(id) => error.about("conference_id", id),
    }
}

/// How long whoever asks waits for a move, which takes some milliseconds. A shard that has failed is known before.
pub(crate) const MOVE_PATIENCE: Duration = Duration::from_secs(10);
