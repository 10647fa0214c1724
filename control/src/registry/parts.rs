//! Conferences that are mixed in parts, each on its own shard: where the parts are, and when the last party has left.
//!
//! No shard knows all members of such a conference, so it is here that it is seen to be over.

use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};

use super::members::Member;
use super::{ConferenceEntry, Registry, TableFull};

/// What a shard that is gone leaves to be told to others.
#[derive(Debug, Default)]
pub struct LostParts {
    /// Parts of conferences whose home it was.
    pub orphans: Vec<(ShardId, ConferenceId)>,
    /// Conferences that had a part there, and where the others are.
    pub bereft: Vec<(ConferenceId, Vec<ShardId>)>,
}

impl Registry {
    /// Takes a slot for one more part of a conference.
    ///
    /// # Errors
    /// The table is full.
    pub fn add_part(&mut self, id: ConferenceId, shard: ShardId) -> Result<u32, TableFull> {
        let slot = self.seat_conference(id, shard)?;
        if let Some(entry) = self.any_conference(id) {
            entry.parts.push((shard, slot));
            entry.spread = true;
        }
        Ok(slot)
    }

    /// The part of a conference that one more member weighs least on, if any is up: the one with the fewest; of equals
    /// the one where the connection is already.
    pub fn part_for(
        &self,
        entry: &ConferenceEntry,
        connection: Option<ConnectionId>,
        is_up: impl Fn(ShardId) -> bool,
    ) -> ShardId {
        if entry.parts.is_empty() {
            return entry.shard;
        }
        let lives_at = |id| self.connection(id).map(|connection| connection.shard);
        let present = connection.and_then(lives_at);
        let members: Vec<_> = entry.member_ids().filter_map(lives_at).collect();
        let weight = |shard: &ShardId| {
            (members.iter().filter(|place| *place == shard).count(), present != Some(*shard), shard.0)
        };
        entry.shards().filter(|shard| is_up(*shard)).min_by_key(weight).unwrap_or(entry.shard)
    }

    /// Conferences whose last party has left, and where their parts are.
    pub fn take_vacated(&mut self) -> Vec<(ConferenceId, Vec<ShardId>)> {
        let suspects = std::mem::take(&mut self.vacated);
        let is_over = |entry: &&mut ConferenceEntry| {
            // Somebody may have joined since.
            entry.live && !entry.ending && entry.deserted && entry.members.iter().all(|member| member.monitor)
        };
        let vacated = suspects.into_iter().filter_map(|id| {
            let entry = self.any_conference(id).filter(is_over)?;
            entry.ending = true;
            Some((id, entry.shards().collect()))
        });
        vacated.collect()
    }

    /// Notes that members are gone, and whether that may have been the end of a conference in parts.
    pub(super) fn note_gone(&mut self, id: ConferenceId, gone: &[Member]) {
        let Some(entry) = self.any_conference(id) else { return };
        if !entry.spread {
            return;
        }
        let left = |member: &Member| member.live && (!member.monitor || entry.members.is_empty());
        entry.deserted |= gone.iter().any(left);
        if entry.deserted {
            self.vacated.push(id);
        }
    }

    /// Takes out the parts on a shard that is gone.
    pub(super) fn lose_parts(&mut self, shard: ShardId) -> LostParts {
        let mut lost = LostParts::default();
        let mut bereft: Vec<(ConferenceId, u32)> = Vec::new();
        for entry in self.conferences().filter(|entry| entry.spread) {
            if entry.shard == shard {
                lost.orphans.extend(entry.parts.iter().map(|(other, _)| (*other, entry.id)));
            } else if let Some((_, slot)) = entry.parts.iter().find(|(other, _)| *other == shard) {
                bereft.push((entry.id, *slot));
            }
        }
        for (id, slot) in bereft {
            self.free_conference_seat(id, (shard, slot));
            let Some(entry) = self.any_conference(id) else { continue };
            entry.parts.retain(|(other, _)| *other != shard);
            lost.bereft.push((id, entry.shards().collect()));
        }
        lost
    }
}

impl ConferenceEntry {
    /// Where its parts are, the home first.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        [self.shard].into_iter().chain(self.parts.iter().map(|(shard, _)| *shard))
    }

    /// How many are in it or about to join, against how many may.
    pub fn is_full(&self) -> bool {
        self.members.len() >= self.participants_max as usize
    }
}
