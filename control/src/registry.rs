//! Which ids exist and where they live: an index, never a second truth about media.
//!
//! The control plane allocates ids. Every shard has one table of slots for connections and one for conferences; a
//! free slot waits at the end of a queue, and its generation is bumped with each use, also across a restart of the
//! shard. What has moved keeps its id and its home slot, and holds a guest slot on the shard it lives on.

mod conferences;
mod connections;
mod losses;
mod members;
mod moves;
mod operations;
mod parts;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ringbridge_media::id::{ConferenceId, OperationId};
use ringbridge_media::limits::CONFERENCES_MAX;

use self::moves::PendingMove;
use self::slots::Slots;

pub use self::conferences::ConferenceEntry;
pub use self::connections::{Call, ConnectionEntry, Ended};
pub use self::losses::Lost;
pub use self::moves::{Begun, MoveRefused, Transit};
pub use self::operations::{OperationEntry, RecordingEntry, parse_utility_id, utility_id};
pub use self::parts::LostParts;
pub use self::slots::TableFull;

/// Every id in use.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Tables>,
    operations: HashMap<OperationId, OperationEntry>,
    operations_started: u64,
    /// What sets the ids of calls apart from those of earlier servers: they stay in the database.
    calls_of: u32,
    calls_started: u64,
    joins: u64,
    /// Moves under way, by token.
    moves: HashMap<u64, PendingMove>,
    moves_begun: u64,
    /// Conferences in parts whose last party may have left.
    vacated: Vec<ConferenceId>,
}

#[derive(Debug)]
struct Tables {
    connections: Slots<ConnectionEntry>,
    conferences: Slots<ConferenceEntry>,
    connections_living: usize,
}

impl Registry {
    /// An empty registry for `shards` shards with room for `connections_max` connections each.
    pub fn new(shards: usize, connections_max: u32) -> Self {
        let tables = || Tables {
            connections: Slots::new(connections_max as usize),
            conferences: Slots::new(CONFERENCES_MAX),
            connections_living: 0,
        };
        Self {
            shards: (0..shards).map(|_| tables()).collect(),
            operations: HashMap::new(),
            operations_started: 0,
            calls_of: rand::random(),
            calls_started: 0,
            joins: 0,
            moves: HashMap::new(),
            moves_begun: 0,
            vacated: Vec::new(),
        }
    }
}
