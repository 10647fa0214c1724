//! Tables of slots: a free one waits at the end of a queue, and its generation is bumped with each use.

use std::collections::VecDeque;

use ringbridge_media::id::ShardId;

/// A table has no free slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shard {0} can hold no more")]
pub struct TableFull(pub ShardId);

/// A table of slots. An entry is boxed so that an empty table is small.
#[derive(Debug)]
pub(super) struct Slots<T> {
    generations: Vec<u32>,
    pub(super) entries: Vec<Option<Box<T>>>,
    free: VecDeque<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new(slots: usize) -> Self {
        let count = u32::try_from(slots).expect("a table has fewer than 2^24 slots");
        Self {
            generations: vec![0; slots],
            entries: std::iter::repeat_with(|| None).take(slots).collect(),
            free: (0..count).collect(),
        }
    }

    pub(super) fn reserve(&mut self) -> Option<(u32, u32)> {
        let slot = self.free.pop_front()?;
        Some((slot, self.generations[slot as usize]))
    }

    pub(super) fn release(&mut self, slot: usize) -> Option<Box<T>> {
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        self.free.push_back(u32::try_from(slot).expect("a table has fewer than 2^24 slots"));
        self.entries[slot].take()
    }
}
