//! What the parts of a conference tell each other, from shard to shard.
//!
//! One queue for each ordered pair of shards: one writes, the other reads, neither waits. A conference takes one place a
//! frame in each of them. Full means dropped and counted; the frame is mixed without.

use std::sync::OnceLock;

use crossbeam::queue::ArrayQueue;
use ringbridge_media::id::ShardId;
use ringbridge_media::parts::Partial;
use ringbridge_media::time::Instant;

use crate::io::PacketIo;
use crate::run::Shard;

/// Sums that wait on their way from one shard to another.
pub const PARTIALS_QUEUED_MAX: usize = 256;
/// Sums taken from one shard in one turn.
const PARTIALS_PER_TURN_MAX: usize = PARTIALS_QUEUED_MAX;

/// The queues of all pairs. One is made when it is used first.
#[derive(Debug)]
pub(crate) struct PartialQueues {
    shards: usize,
    queues: Vec<OnceLock<ArrayQueue<Box<Partial>>>>,
}

impl PartialQueues {
    pub(crate) fn new(shards: u8) -> Self {
        let shards = usize::from(shards);
        Self { shards, queues: (0..shards * shards).map(|_| OnceLock::new()).collect() }
    }

    fn place(&self, from: ShardId, to: ShardId) -> Option<&OnceLock<ArrayQueue<Box<Partial>>>> {
        let (from, to) = (usize::from(from.0), usize::from(to.0));
        if from < self.shards && to < self.shards { self.queues.get(from * self.shards + to) } else { None }
    }

    /// Puts a sum into the queue to its shard; it comes back if that is full or not there.
    fn send(&self, partial: Box<Partial>) -> Result<(), Box<Partial>> {
        let Some(queue) = self.place(partial.from(), partial.to()) else { return Err(partial) };
        queue.get_or_init(|| ArrayQueue::new(PARTIALS_QUEUED_MAX)).push(partial)
    }

    fn pop(&self, from: ShardId, to: ShardId) -> Option<Box<Partial>> {
        self.place(from, to)?.get()?.pop()
    }

    /// Whether nothing waits for a shard.
    pub(crate) fn is_empty(&self, to: ShardId) -> bool {
        self.sources().all(|from| self.place(from, to).and_then(OnceLock::get).is_none_or(ArrayQueue::is_empty))
    }

    fn sources(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..=u8::MAX).take(self.shards).map(ShardId)
    }
}

impl<P: PacketIo> Shard<P> {
    /// Hands the engine what other shards have sent; how much.
    pub(crate) fn take_partials(&mut self, now: Instant) -> usize {
        let mut taken = 0;
        for from in self.peers.partials.sources() {
            for _ in 0..PARTIALS_PER_TURN_MAX {
                let Some(partial) = self.peers.partials.pop(from, self.id) else { break };
                taken += 1;
                self.engine.handle_partial(now, partial);
                // One frame leaves before the next.
                self.transmit();
            }
        }
        taken
    }

    /// Sends what the engine has for other shards.
    pub(crate) fn send_partials(&mut self) {
        while let Some(partial) = self.engine.poll_partial() {
            let to = partial.to();
            match self.peers.partials.send(partial) {
                Ok(()) => self.peers.ring(to),
                Err(partial) => self.engine.drop_partial(partial),
            }
        }
    }
}
