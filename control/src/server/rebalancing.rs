//! Evens out the shards' measured loads: looks every second, and moves what the [`Rebalancer`] says.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use ringbridge_media::command::{CodecKind, Command, Target};
use ringbridge_media::event::{Answer, ConnectionCounters, ConnectionState, ConnectionStatus};
use ringbridge_media::id::ShardId;
use ringbridge_media::time::Instant;
use ringbridge_shard::snapshot::ShardSnapshot;
use tokio::time::sleep;

use super::Server;
use crate::methods::Call;
use crate::rebalance::{Gap, Group, Load, Rebalancer};

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
        let mut waits = Waits::default();
        while !self.stopping.get() {
            sleep(LOOK_INTERVAL).await;
            let snapshots = self.snapshots().await;
            let now = self.now();
            let loads: Vec<Load> = snapshots
                .into_iter()
                .filter_map(|(shard, snapshot)| {
                    let snapshot = snapshot?;
                    Some(Load { shard, busy: snapshot.busy, waited: waits.share(now, &snapshot) })
                })
                .collect();
            if let Some(gap) = rebalancer.observe(now, &loads) {
                self.even_out(&mut rebalancer, gap).await;
            }
        }
    }

    async fn even_out(self: &Rc<Self>, rebalancer: &mut Rebalancer, gap: Gap) {
        let groups = self.groups_on(gap.from).await;
        let plan = rebalancer.plan(gap, &groups);
        let Gap { from, to, busy, apart } = gap;
        if plan.is_empty() {
            tracing::debug!(%from, %to, busy, apart, "loads are apart, and nothing that may move would help");
            return;
        }
        tracing::info!(%from, %to, busy, apart, moves = plan.len(), "loads are evened out");
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

    /// What lives on a shard, with what it costs: packets a second, as far as it has been heard and sent so far, and what
    /// its codecs have to do for them.
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
        let (target, key, coded) = match status.state {
            ConnectionState::Idle => {
                (Target::Connection(status.id), (0, status.id.to_bits()), !status.operations.is_empty())
            }
            ConnectionState::Relayed(peer) => {
                // Either side stands for both.
                let named = status.id.min(peer);
                let sent_on = registry.connection(peer).map(|peer| peer.negotiated.tx_codec);
                let transcoded = sent_on.is_some_and(|codec| codec != status.rx_codec);
                (Target::Connection(named), (0, named.to_bits()), transcoded)
            }
            // A conference in parts is spread as somebody wanted it.
            ConnectionState::InConference(room) if registry.conference(room).is_none_or(|room| room.spread) => {
                return None;
            }
            ConnectionState::InConference(room) => (Target::Conference(room), (1, room.to_bits()), true),
        };
        let cost = |codec| match coded {
            true => 1.0 + MIXING_COST + coding_cost(codec) * f64::from(status.ptime_ms) / 20.0,
            false => 1.0,
        };
        let ConnectionCounters { packets_in, packets_out, .. } = status.counters;
        let packets = packets_in as f64 * cost(status.rx_codec) + packets_out as f64 * cost(status.tx_codec);
        Some((key, Group { target, members: 1, weight: packets / lived }))
    }
}

/// How long the thread of each shard has waited for a core: which it is, when that was last asked for, and how long by then.
#[derive(Debug, Default)]
struct Waits(BTreeMap<ShardId, (i32, Instant, Duration)>);

impl Waits {
    /// The share of the time since the last look. Nothing the first time, and where the kernel does not tell.
    fn share(&mut self, now: Instant, snapshot: &ShardSnapshot) -> f64 {
        let Some(waited) = waited(snapshot.thread_id) else { return 0.0 };
        let latest = (snapshot.thread_id, now, waited);
        let known = self.0.insert(snapshot.shard, latest).filter(|(thread, ..)| *thread == snapshot.thread_id);
        let Some((_, at, before)) = known else { return 0.0 };
        let passed = now.saturating_since(at).as_secs_f64();
        if passed > 0.0 { (waited.saturating_sub(before).as_secs_f64() / passed).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// How long a thread of this process was ready to run while others held its core.
fn waited(thread_id: i32) -> Option<Duration> {
    // No file, but a line that the kernel has ready.
    let line = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/schedstat")).ok()?;
    line.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Connections asked for at once, and how often: those of the first slots stand for the rest of a very full shard.
const PAGE: u32 = 64;
const PAGES_MAX: usize = 64;
/// What is mixed costs about so much more than what is passed on.
const MIXING_COST: f64 = 0.4;

/// What 20 ms cost to be decoded or encoded, the mean of both: so many times what it costs to pass the packet on. Rough, as
/// it depends on the machine and on who talks; what matters is that a room of one codec costs ten times that of another.
const fn coding_cost(codec: CodecKind) -> f64 {
    match codec {
        CodecKind::Pcmu | CodecKind::Pcma | CodecKind::L16(_) => 0.1,
        CodecKind::G722 | CodecKind::Gsm => 1.0,
        CodecKind::G729 => 7.0,
        CodecKind::Opus => 11.0,
        // Never decoded here.
        CodecKind::G723 => 0.0,
    }
}

/// Who moves what nobody has asked for.
const ORIGIN: &str = "rebalancer";
