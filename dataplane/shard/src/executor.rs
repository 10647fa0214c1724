//! Starts one executor a core, waits until it is ready, and reports how it ended.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringbridge_media::id::ShardId;

use crate::mailbox::{Mailbox, Outbox};

/// How one shard runs.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Which shard.
    pub id: ShardId,
    /// Core it is pinned to; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// How long arrivals are gathered before a turn, `0 ..= 1 ms`. 0 gives the lowest latency.
    pub batch_wait: Duration,
    /// Seed of SSRCs and first sequence numbers.
    pub seed: u64,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    /// Which shard.
    pub id: ShardId,
    /// Where its commands go.
    pub mailbox: Arc<Mailbox>,
    /// Where its answers and events come from.
    pub outbox: Arc<Outbox>,
    /// Its thread; ends after `Stopped` or `Failed`.
    pub thread: JoinHandle<()>,
}
