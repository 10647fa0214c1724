//! Conferences.

use jiff::Timestamp;
use ringbridge_media::command::Rate;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};

use super::members::Member;
use super::{Registry, TableFull, Transit};
use crate::quota::Units;

/// What the control plane knows of a conference.
#[derive(Debug)]
pub struct ConferenceEntry {
    /// Its id.
    pub id: ConferenceId,
    /// Where it lives now.
    pub shard: ShardId,
    /// Where it is going, while it is being moved.
    pub moving: Option<Transit>,
    /// Given by the client.
    pub label: Option<String>,
    /// How many may join.
    pub participants_max: u32,
    /// Rate of its mix.
    pub rate: Rate,
    /// When it was created.
    pub created_at: Timestamp,
    /// Two parties patched to each other; not promoted yet.
    pub hairpin: bool,
    /// It is mixed in parts, or was until their shards failed.
    pub spread: bool,
    /// Its parts besides the one where it lives, and their slots.
    pub(super) parts: Vec<(ShardId, u32)>,
    /// In parts: a party has left since the last one came.
    pub(super) deserted: bool,
    /// In parts: it is being ended.
    pub(super) ending: bool,
    /// Its place among the mixed conferences.
    pub(super) mix: Option<Units>,
    pub(super) members: Vec<Member>,
    pub(super) live: bool,
    /// The slot it lives in.
    pub(super) place: (ShardId, u32),
    /// Shards it has moved away from.
    pub(super) visited: Vec<ShardId>,
}

impl Registry {
    /// Takes a slot for a new conference, a hairpin unless it has a place among the mixed ones; not known to anybody until [`confirm_conference`](Self::confirm_conference).
    ///
    /// # Errors
    /// The table is full.
    pub fn add_conference(
        &mut self,
        shard: ShardId,
        label: Option<String>,
        (participants_max, rate): (u32, Rate),
        mix: Option<Units>,
    ) -> Result<ConferenceId, TableFull> {
        let table = &mut self.shards[usize::from(shard.0)].conferences;
        let (slot, generation) = table.reserve().ok_or(TableFull(shard))?;
        let id = ConferenceId::new(shard, slot, generation);
        let created_at = Timestamp::now();
        table.entries[slot as usize] = Some(Box::new(ConferenceEntry {
            id,
            shard,
            moving: None,
            label,
            participants_max,
            rate,
            created_at,
            hairpin: mix.is_none(),
            spread: false,
            parts: Vec::new(),
            deserted: false,
            ending: false,
            mix,
            members: Vec::new(),
            live: false,
            place: (shard, slot),
            visited: Vec::new(),
        }));
        Ok(id)
    }

    /// Makes a conference known.
    pub fn confirm_conference(&mut self, id: ConferenceId) {
        let table = &mut self.shards[usize::from(id.shard().0)].conferences;
        if let Some(entry) = table.entries[id.slot()].as_mut().filter(|entry| entry.id == id) {
            entry.live = true;
        }
    }

    /// Takes a conference out, known or not.
    pub fn remove_conference(&mut self, id: ConferenceId) -> Option<ConferenceEntry> {
        let table = &mut self.shards.get_mut(usize::from(id.shard().0))?.conferences;
        table.entries.get(id.slot())?.as_ref().filter(|entry| entry.id == id)?;
        let entry = *table.release(id.slot())?;
        self.free_conference_seat(id, entry.place);
        for part in &entry.parts {
            self.free_conference_seat(id, *part);
        }
        if let Some(transit) = &entry.moving {
            self.free_conference_seat(id, transit.seat());
        }
        for member in &entry.members {
            self.forget_membership(id, member.connection);
        }
        Some(entry)
    }

    /// A conference that is known.
    pub fn conference(&self, id: ConferenceId) -> Option<&ConferenceEntry> {
        let table = &self.shards.get(usize::from(id.shard().0))?.conferences;
        table.entries.get(id.slot())?.as_deref().filter(|entry| entry.id == id && entry.live)
    }

    /// Every conference that is known.
    pub fn conferences(&self) -> impl Iterator<Item = &ConferenceEntry> {
        self.shards
            .iter()
            .flat_map(|tables| tables.conferences.entries.iter().filter_map(Option::as_deref))
            .filter(|entry| entry.live)
    }

    pub(super) fn any_conference(&mut self, id: ConferenceId) -> Option<&mut ConferenceEntry> {
        let table = &mut self.shards.get_mut(usize::from(id.shard().0))?.conferences;
        table.entries.get_mut(id.slot())?.as_deref_mut().filter(|entry| entry.id == id)
    }
}

impl ConferenceEntry {
    /// How many are in it, or about to join.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Every connection that is in it, or about to join.
    pub fn member_ids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.members.iter().map(|member| member.connection)
    }

    /// Shards that may still forward commands for it.
    pub fn forwarders(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.visited.iter().copied().filter(|shard| *shard != self.shard)
    }

    /// Whether a connection is in it, or about to join.
    pub fn has_member(&self, connection: ConnectionId) -> bool {
        self.members.iter().any(|member| member.connection == connection)
    }
}
