//! Connections, relays and conferences that move to another shard.

use ringbridge_media::event::Answer;
use ringbridge_media::port::Port;

use super::{GUEST_ROOMS, GUEST_SLOTS, World};

impl World {
    /// Moves a connection, the two of a relay or a whole conference to the next shard.
    pub(super) fn relocate(&mut self) {
        let target = self.any_target();
        let Some(from) = self.shards.iter().position(|shard| shard.engine.group_of(target).is_some()) else { return };
        let departure = self.shards[from].engine.depart(target).expect("it can move");
        self.drain(from);
        let to = (from + 1) % self.shards.len();
        let mut slots = Vec::new();
        let mut connected = Vec::new();
        for (id, slot) in departure.places() {
            assert_eq!(self.shards[from].slots.remove(&slot), Some(id));
            connected.push(self.shards[from].connected.remove(&Port::rtp(slot).index()));
            let there = &mut self.shards[to];
            let slot = (GUEST_SLOTS..).find(|slot| !there.slots.contains_key(slot)).expect("a free slot");
            there.slots.insert(slot, id);
            slots.push(slot);
        }
        let room = departure.conference().map(|_| {
            self.guest_rooms += 1;
            GUEST_ROOMS + self.guest_rooms
        });
        assert!(self.shards[to].engine.adopt(self.now, departure, &slots, room).is_ok());
        let effect = self.shards[to].engine.moved_effect(target, self.now).expect("it has arrived");
        self.ledger.answered(&Answer::Effect(effect));
        self.drain(to);
        let reconnected = slots.iter().map(|slot| self.shards[to].connected.get(&Port::rtp(*slot).index()).copied());
        assert!(connected.into_iter().eq(reconnected), "a connected socket stays connected");
        self.report.moved += 1;
        self.report.moved_together += u64::from(slots.len() > 1);
    }
}
