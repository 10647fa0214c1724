//! Evens out the shards' measured loads: looks every second, and moves what the [`Rebalancer`] says.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use ringbridge_media::command::{Command, Target};
use ringbridge_media::event::{Answer, ConnectionState, ConnectionStatus};
use ringbridge_media::id::ShardId;
use tokio::time::sleep;

use super::Server;
use crate::methods::Call;
use crate::rebalance::{Gap, Group, Rebalancer};

/// How often things have moved, by why.
#[derive(Debug, Default)]
pub struct MoveCounts {
    requested: Cell<u64>,
    rebalanced: Cell<u64>,
    joined: Cell<u64>,
    failed: Cell<u64>,
}

/// Why something moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MoveReason {
    /// A client wants it.
    Requested,
    /// Loads are to be evened out.
    Rebalanced,
    /// It joins something that lives elsewhere.
    Joined,
}

impl MoveReason {
    /// The name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Rebalanced => "rebalanced",
            Self::Joined => "joined",
        }
    }
}

impl MoveCounts {
    /// Counts a move, or one that came to nothing.
    pub(super) fn count(&self, reason: MoveReason, moved: bool) {
        let count = match reason {
            _ if !moved => &self.failed,
            MoveReason::Requested => &self.requested,
            MoveReason::Rebalanced => &self.rebalanced,
            MoveReason::Joined => &self.joined,
        };
        count.set(count.get() + 1);
    }

    /// What came of all moves, by name.
    pub fn all(&self) -> [(&'static str, u64); 4] {
        [
            (MoveReason::Requested.name(), self.requested.get()),
            (MoveReason::Rebalanced.name(), self.rebalanced.get()),
            (MoveReason::Joined.name(), self.joined.get()),
            ("failed", self.failed.get()),
        ]
    }
}

impl Server {
    /// Looks after the loads for as long as the server lives.
    pub(super) async fn rebalance(self: Rc<Self>) {
        let mut rebalancer = Rebalancer::new(self.config.rebalance);
        while !self.stopping.get() {
            sleep(LOOK_INTERVAL).await;
            let loads: Vec<(ShardId, f64)> = self
                .snapshots()
                .await
                .into_iter()
                .filter_map(|(shard, snapshot)| Some((shard, snapshot?.busy)))
                .collect();
            if let Some(gap) = rebalancer.observe(self.now(), &loads) {
                self.even_out(&mut rebalancer, gap).await;
            }
        }
    }

    async fn even_out(self: &Rc<Self>, rebalancer: &mut Rebalancer, gap: Gap) {
        let groups = self.groups_on(gap.from).await;
        let plan = rebalancer.plan(gap, &groups);
        tracing::info!(from = %gap.from, to = %gap.to, busy = gap.busy, apart = gap.apart, moves = plan.len(), "loads are evened out");
        for target in plan {
            // One at a time, whatever comes of it; a shard that is down takes nothing.
            rebalancer.note(self.now(), target);
            let call = Call::in_process(Rc::clone(self), ORIGIN.into());
            let moved = match target {
                Target::Connection(id) => call.move_connection(id, gap.to, MoveReason::Rebalanced).await.map(drop),
                Target::Conference(id) => call.move_conference(id, gap.to, MoveReason::Rebalanced).await.map(drop),
            };
            call.announce();
            if let Err(error) = moved {
                tracing::debug!(?target, %error, "it was not moved");
            }
        }
    }

    /// What lives on a shard, with what it costs: packets a second, as far as it has been heard and sent so far.
    async fn groups_on(&self, shard: ShardId) -> Vec<Group> {
        let mut groups: BTreeMap<(u8, u64), Group> = BTreeMap::new();
        let mut from = Some(0);
        for _ in 0..PAGES_MAX {
            let Some(first) = from else { break };
            let command = Command::ListConnections { from: first, limit: PAGE };
            let Ok(sent) = self.send(shard, command, self.now()) else { break };
            let Ok(Answer::Connections { page, next }) = sent.answer().await else { break };
            for status in &page {
                let Some((key, group)) = self.share_of(shard, status) else { continue };
                let known = groups.entry(key).or_insert(Group { members: 0, weight: 0.0, ..group });
                known.members += group.members;
                known.weight += group.weight;
            }
            from = next.filter(|next| *next > first);
        }
        groups.into_values().collect()
    }

    /// What a connection adds to the group it moves with.
    fn share_of(&self, shard: ShardId, status: &ConnectionStatus) -> Option<((u8, u64), Group)> {
        let registry = self.registry.borrow();
        let entry = registry.connection(status.id).filter(|entry| entry.shard == shard && entry.moving.is_none())?;
        let lived = Timestamp::now().duration_since(entry.created_at).as_secs_f64().max(1.0);
        let counters = &status.counters;
        let packets = (counters.packets_in + counters.packets_out) as f64 / lived;
        let (target, key, factor) = match status.state {
            ConnectionState::Idle => (Target::Connection(status.id), (0, status.id.to_bits()), 1.0),
            // Either side stands for both.
            ConnectionState::Relayed(peer) => {
                let named = status.id.min(peer);
                (Target::Connection(named), (0, named.to_bits()), 1.0)
            }
            ConnectionState::InConference(room) => (Target::Conference(room), (1, room.to_bits()), MIXED_FACTOR),
        };
        Some((key, Group { target, members: 1, weight: packets * factor }))
    }
}

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Connections asked for at once, and how often: those of the first slots stand for the rest of a very full shard.
const PAGE: u32 = 64;
const PAGES_MAX: usize = 64;
/// A packet that is decoded, mixed and encoded costs about so much more than one that is passed on.
const MIXED_FACTOR: f64 = 2.0;
/// Who moves what nobody has asked for.
const ORIGIN: &str = "rebalancer";
