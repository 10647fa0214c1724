//! Operations, and the ids that stand for their temporary connections.

use std::sync::Arc;

use ringbridge_media::command::{OperationKind, Rate, Target};
use ringbridge_media::id::{OperationId, ShardId};
use ringbridge_media::samples::RecordQueue;
use tokio::sync::oneshot;

use super::Registry;
use crate::files::RecordingOutcome;
use crate::gate::Gate;
use crate::quota::Units;

/// What the control plane knows of an operation.
#[derive(Debug)]
pub struct OperationEntry {
    /// Its id.
    pub id: OperationId,
    /// On what it runs.
    pub target: Target,
    /// What it does.
    pub kind: OperationKind,
    /// The recording it writes.
    pub recording: Option<RecordingEntry>,
    /// When it was started.
    pub started: std::time::Instant,
    /// Opens when the answer to its start is queued: its end is not told before.
    pub announced: Gate,
    /// Opens when its end is queued to all subscribers.
    pub ended: Gate,
    /// Its end is known and being told.
    pub ending: bool,
    /// What it takes of the classes `voice` and `conference`, as long as it runs.
    pub units: Vec<Units>,
    live: bool,
}

/// A recording as long as its operation runs.
#[derive(Debug)]
pub struct RecordingEntry {
    /// The file.
    pub path: std::path::PathBuf,
    /// Where its samples go.
    pub queue: Arc<RecordQueue>,
    /// Told when the file is closed.
    pub done: oneshot::Receiver<RecordingOutcome>,
}

impl Registry {
    /// The rate of the clock that an operation on `target` runs on, as far as is known here: that of the conference it is
    /// in, that of a relay that transcodes, or else that of its codec. The engine makes up for what is wrong.
    pub fn clock_rate(&self, target: Target) -> Rate {
        let id = match target {
            Target::Conference(id) => return self.conference(id).map_or(Rate::Narrow, |entry| entry.rate),
            Target::Connection(id) => id,
        };
        let own = |id| {
            self.connection(id)
                .map_or(Rate::Narrow, |entry| entry.negotiated.rx_codec.rate().max(entry.negotiated.tx_codec.rate()))
        };
        let Some(entry) = self.connection(id) else { return Rate::Narrow };
        if let Some(room) = entry.conferences.last().and_then(|room| self.conference(*room)) {
            return room.rate;
        }
        match &entry.call {
            Some(call) if call.transcode => own(call.a).min(own(call.b)),
            Some(_) | None => own(id),
        }
    }

    /// Notes an operation that is about to be started on `shard`; not known to anybody until
    /// [`confirm_operation`](Self::confirm_operation).
    pub fn add_operation(
        &mut self,
        shard: ShardId,
        target: Target,
        kind: OperationKind,
        recording: Option<RecordingEntry>,
        units: Vec<Units>,
    ) -> &OperationEntry {
        let number = self.operations_started;
        self.operations_started += 1;
        // 2^56 operations take two thousand years at a million a second.
        let slot = u32::try_from(number & 0xff_ffff).unwrap_or_default();
        let generation = u32::try_from((number >> 24) & 0xffff_ffff).unwrap_or_default();
        let id = OperationId::new(shard, slot, generation);
        let entry = OperationEntry {
            id,
            target,
            kind,
            recording,
            started: std::time::Instant::now(),
            announced: Gate::default(),
            ended: Gate::default(),
            ending: false,
            units,
            live: false,
        };
        self.operations.entry(id).insert_entry(entry).into_mut()
    }

    /// Makes an operation known.
    pub fn confirm_operation(&mut self, id: OperationId) {
        if let Some(entry) = self.operations.get_mut(&id) {
            entry.live = true;
        }
    }

    /// Takes an operation out, known or not.
    pub fn remove_operation(&mut self, id: OperationId) -> Option<OperationEntry> {
        self.operations.remove(&id)
    }

    /// An operation that is known.
    pub fn operation(&self, id: OperationId) -> Option<&OperationEntry> {
        self.operations.get(&id).filter(|entry| entry.live)
    }

    /// An operation that is known, to be changed.
    pub fn operation_mut(&mut self, id: OperationId) -> Option<&mut OperationEntry> {
        self.operations.get_mut(&id).filter(|entry| entry.live)
    }

    /// Every operation that is known and has not ended.
    pub fn operations(&self) -> impl Iterator<Item = &OperationEntry> {
        self.operations.values().filter(|entry| entry.live && !entry.ending)
    }

    /// Every operation of a target whose end is not told yet.
    pub fn operations_of(&self, target: Target) -> impl Iterator<Item = &OperationEntry> {
        self.operations.values().filter(move |entry| entry.live && entry.target == target)
    }
}

/// The id that stands for the temporary connection of a conference operation.
pub fn utility_id(operation: OperationId) -> String {
    operation.to_string().replacen("op-", UTILITY_PREFIX, 1)
}

/// The operation behind a utility id.
pub fn parse_utility_id(text: &str) -> Option<OperationId> {
    OperationId::parse(&format!("op-{}", text.strip_prefix(UTILITY_PREFIX)?))
}

/// What the id of a conference operation's utility connection starts with.
const UTILITY_PREFIX: &str = "util-";
