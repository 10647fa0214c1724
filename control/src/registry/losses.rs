//! What goes with a shard that fails.

use ringbridge_media::command::Target;
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};

use super::{ConnectionEntry, Ended, LostParts, OperationEntry, Registry, Transit};

/// What was lost with a shard.
#[derive(Debug, Default)]
pub struct Lost {
    /// Operations that had not ended.
    pub operations: Vec<OperationEntry>,
    /// Connections that lived there or were on their way to or from there.
    pub connections: Vec<ConnectionEntry>,
    /// Conferences that lived there.
    pub conferences: Vec<ConferenceId>,
    /// Other shards that may still hold one of them.
    pub strays: Vec<(ShardId, Target)>,
    /// Of conferences in parts.
    pub parts: LostParts,
}

impl Registry {
    /// Takes out everything that lived on a shard.
    pub fn remove_shard(&mut self, shard: ShardId) -> Lost {
        let lost_connections: Vec<ConnectionId> = self
            .connections()
            .filter(|entry| entry.shard == shard || is_bound_for(entry.moving.as_ref(), shard))
            .map(|entry| entry.id)
            .collect();
        let mut conferences: Vec<ConferenceId> = self
            .conferences()
            .filter(|entry| entry.shard == shard || is_bound_for(entry.moving.as_ref(), shard))
            .map(|entry| entry.id)
            .collect();
        conferences.sort_unstable();
        let mut lost = Lost { conferences, parts: self.lose_parts(shard), ..Lost::default() };
        for id in &lost_connections {
            let Some(Ended { entry, forwarders }) = self.remove_connection(*id) else { continue };
            let ends = entry.moving.iter().map(|transit| transit.to).chain([entry.shard]).chain(forwarders);
            let target = Target::Connection(*id);
            lost.strays.extend(ends.filter(|other| *other != shard).map(|other| (other, target)));
            lost.connections.push(entry);
        }
        for id in &lost.conferences {
            let Some(entry) = self.remove_conference(*id) else { continue };
            let ends = entry.moving.iter().map(|transit| transit.to).chain([entry.shard]).chain(entry.visited);
            let target = Target::Conference(*id);
            lost.strays.extend(ends.filter(|other| *other != shard).map(|other| (other, target)));
        }
        self.lose_moves(shard);
        let mut sorted = lost_connections;
        sorted.sort_unstable();
        let is_lost = |target: Target| match target {
            Target::Connection(id) => sorted.binary_search(&id).is_ok(),
            Target::Conference(id) => lost.conferences.binary_search(&id).is_ok(),
        };
        let operations: Vec<OperationId> =
            self.operations().filter(|entry| is_lost(entry.target)).map(|entry| entry.id).collect();
        lost.operations = operations.into_iter().filter_map(|id| self.operations.remove(&id)).collect();
        lost.operations.sort_unstable_by_key(|entry| entry.id);
        lost
    }
}

fn is_bound_for(moving: Option<&Transit>, shard: ShardId) -> bool {
    moving.is_some_and(|transit| transit.to == shard)
}
