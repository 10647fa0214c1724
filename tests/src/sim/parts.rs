//! Conferences that are mixed in parts: what their engines tell each other is late, lost, or overtaken.

use std::time::Duration;

use ringbridge_media::command::{Command, ConferenceSpec, Role};
use ringbridge_media::id::{ConferenceId, ShardId};
use ringbridge_media::parts::{Partial, Parts};
use ringbridge_media::time::Instant;

use super::dice::Dice;
use super::world::{GUEST_ROOMS, SHARDS, World};

/// Between the engines.
#[derive(Debug)]
pub(crate) struct Exchange {
    dice: Dice,
    flying: Vec<(Instant, Box<Partial>)>,
    /// Conferences in parts, with the shards where they are.
    pub(crate) spread: Vec<ConferenceId>,
    pub(crate) arrived: u64,
}

impl Exchange {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { dice, flying: Vec::new(), spread: Vec::new(), arrived: 0 }
    }

    /// When the next one arrives.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.flying.iter().map(|(at, _)| *at).min()
    }

    /// Sends one on its way; it comes back if it is lost.
    pub(crate) fn send(&mut self, now: Instant, mut partial: Box<Partial>) -> Option<Box<Partial>> {
        match self.dice.below(100) {
            0 => return Some(partial),
            1 => {
                let frame = self.dice.next() >> self.dice.below(64);
                partial.set_frame(Some(frame));
            }
            _ => {}
        }
        let delay = if self.dice.one_in(20) { self.dice.below(15_000) } else { self.dice.below(1_500) };
        self.flying.push((now + Duration::from_micros(delay), partial));
        None
    }

    /// One that has arrived by now.
    pub(crate) fn receive(&mut self, now: Instant) -> Option<Box<Partial>> {
        let index = self.flying.iter().position(|(at, _)| *at <= now)?;
        self.arrived += 1;
        Some(self.flying.remove(index).1)
    }
}

impl World {
    /// Opens a conference on all shards.
    pub(crate) fn create_parts(&mut self, id: ConferenceId, spec: ConferenceSpec) {
        let parts = Parts { shards: (0..SHARDS).map(ShardId).collect(), epoch: self.now };
        for shard in 0..SHARDS {
            let slot = if shard == id.shard().0 {
                id.slot_number()
            } else {
                self.guest_rooms += 1;
                GUEST_ROOMS + self.guest_rooms
            };
            let command = Command::CreatePart { id, slot, spec, parts: Box::new(parts) };
            assert!(self.command_on(usize::from(shard), command));
        }
        self.exchange.spread.push(id);
    }

    /// What one part has to be told besides, or the others before.
    pub(crate) fn others_of(&self, id: ConferenceId, shard: usize) -> Vec<usize> {
        if !self.exchange.spread.contains(&id) {
            return Vec::new();
        }
        (0..usize::from(SHARDS)).filter(|other| *other != shard).collect()
    }

    /// Somebody has a role in one part: nobody has it in the others.
    pub(crate) fn cede(&mut self, conference: ConferenceId, role: Role, shard: usize) {
        if matches!(role, Role::Coach | Role::Pupil) {
            for other in self.others_of(conference, shard) {
                // It may have ended.
                self.command_on(other, Command::CedeRole { conference, role });
            }
        }
    }

    /// The last party has left, as far as anybody knows; or a part is gone for the others.
    pub(crate) fn disturb_parts(&mut self) {
        let live: Vec<_> =
            self.exchange.spread.iter().copied().filter(|id| self.ledger.conferences.contains(id)).collect();
        if live.is_empty() {
            return;
        }
        let id = *self.dice.pick(&live);
        if self.dice.one_in(3) {
            let (from, gone) = (self.dice.index(usize::from(SHARDS)), self.dice.below(u64::from(SHARDS)));
            let shard = ShardId(u8::try_from(gone).expect("a shard"));
            assert!(self.command_on(from, Command::DropPart { conference: id, shard }));
        } else if self.dice.one_in(3) {
            for shard in 0..usize::from(SHARDS) {
                assert!(self.command_on(shard, Command::VacateConference { id }));
            }
        }
    }

    /// Lets arrive what the parts tell each other.
    pub(crate) fn exchange(&mut self) {
        while let Some(partial) = self.exchange.receive(self.now) {
            let shard = usize::from(partial.to().0);
            self.shards[shard].engine.handle_partial(self.now, partial);
            self.drain(shard);
        }
    }
}
