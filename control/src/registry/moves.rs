//! Moves under way: places kept where they go, and who waits for them to be over.

use ringbridge_media::command::Target;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::time::Instant;
use ringbridge_shard::mailbox::{MoveOrder, Moved};
use tokio::sync::oneshot;

use super::{Registry, TableFull};
use crate::gate::Gate;

/// Where a connection or conference is going.
#[derive(Debug)]
pub struct Transit {
    /// The shard.
    pub to: ShardId,
    /// Opens when the move is over, whatever came of it.
    pub over: Gate,
    slot: u32,
}

/// A move that is under way.
#[derive(Debug)]
pub(super) struct PendingMove {
    from: ShardId,
    to: ShardId,
    target: Target,
    members: Vec<ConnectionId>,
    over: Gate,
    done: oneshot::Sender<Result<Moved, ShardId>>,
}

/// Why a move was not begun.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MoveRefused {
    /// No room where it was to go.
    #[error(transparent)]
    Full(#[from] TableFull),
    /// It is moving already.
    #[error("it is being moved already; try again when that is over")]
    Moving,
    /// It does not exist any more.
    #[error("it has ended")]
    Ended,
}

/// An order to be sent, and what tells when it is carried out: `Err` if that shard has failed meanwhile.
pub type Begun = (Box<MoveOrder>, oneshot::Receiver<Result<Moved, ShardId>>);

impl Registry {
    /// Reserves places for `target` and `members`, which move with it, on the shard they are to move to. All of them or
    /// none.
    ///
    /// # Errors
    /// A table there is full, or something is moving already.
    pub fn begin_move(
        &mut self,
        target: Target,
        members: Vec<ConnectionId>,
        to: ShardId,
        received: Instant,
    ) -> Result<Begun, MoveRefused> {
        let from = match target {
            Target::Connection(id) => self.any_connection(id).map(|entry| entry.shard),
            Target::Conference(id) => self.any_conference(id).map(|entry| entry.shard),
        };
        let from = from.ok_or(MoveRefused::Ended)?;
        if self.is_moving(target, &members) {
            return Err(MoveRefused::Moving);
        }
        let over = Gate::default();
        let mut slots = Vec::with_capacity(members.len());
        for id in &members {
            match self.seat(*id, to) {
                Ok(slot) => slots.push((*id, slot)),
                Err(full) => {
                    self.free_seats(&slots, to);
                    return Err(full.into());
                }
            }
        }
        let room = match target {
            Target::Connection(_) => None,
            Target::Conference(id) => match self.seat_conference(id, to) {
                Ok(slot) => Some(slot),
                Err(full) => {
                    self.free_seats(&slots, to);
                    return Err(full.into());
                }
            },
        };
        for (id, slot) in &slots {
            if let Some(entry) = self.any_connection(*id) {
                entry.moving = Some(Transit { to, over: over.clone(), slot: *slot });
            }
        }
        if let (Target::Conference(id), Some(slot)) = (target, room)
            && let Some(entry) = self.any_conference(id)
        {
            entry.moving = Some(Transit { to, over: over.clone(), slot });
        }
        let token = self.moves_begun;
        self.moves_begun += 1;
        let (done, outcome) = oneshot::channel();
        self.moves.insert(token, PendingMove { from, to, target, members, over, done });
        Ok((Box::new(MoveOrder { token, received, target, to, slots, room }), outcome))
    }

    /// The shard from which a move that was begun goes.
    pub fn origin_of(&self, token: u64) -> Option<ShardId> {
        self.moves.get(&token).map(|pending| pending.from)
    }

    /// A move was not even sent.
    pub fn cancel_move(&mut self, token: u64) {
        if let Some(pending) = self.moves.remove(&token) {
            self.settle_move(&pending, &[], None);
            pending.over.open();
        }
    }

    /// A move is over. What has arrived lives where the report says from now on, the rest where it was. Returns what has
    /// arrived although it is not known any more.
    pub fn end_move(&mut self, moved: Moved) -> Vec<Target> {
        let arrived = moved.connections.iter().copied().map(Target::Connection);
        let arrived = arrived.chain(moved.conference.map(Target::Conference));
        let Some(pending) = self.moves.remove(&moved.token) else { return arrived.collect() };
        let strays = arrived.filter(|target| match target {
            Target::Connection(id) => self.any_connection(*id).is_none(),
            Target::Conference(id) => self.any_conference(*id).is_none(),
        });
        let strays = strays.collect();
        self.settle_move(&pending, &moved.connections, moved.conference);
        pending.over.open();
        // Whoever asked may have gone.
        drop(pending.done.send(Ok(moved)));
        strays
    }

    /// Moves to and from a shard that is gone will never be over: whoever waits is told.
    pub(super) fn lose_moves(&mut self, shard: ShardId) {
        let lost: Vec<_> = self.moves.extract_if(|_, pending| pending.from == shard || pending.to == shard).collect();
        for (_, pending) in lost {
            self.settle_move(&pending, &[], None);
            pending.over.open();
            drop(pending.done.send(Err(shard)));
        }
    }

    fn is_moving(&mut self, target: Target, members: &[ConnectionId]) -> bool {
        let room = match target {
            Target::Connection(_) => false,
            Target::Conference(id) => self.any_conference(id).is_some_and(|entry| entry.moving.is_some()),
        };
        room || members.iter().any(|id| self.any_connection(*id).is_some_and(|entry| entry.moving.is_some()))
    }

    /// A slot for a connection on another shard: at home its own.
    fn seat(&mut self, id: ConnectionId, to: ShardId) -> Result<u32, TableFull> {
        if id.shard() == to {
            return Ok(id.slot_number());
        }
        self.shards[usize::from(to.0)].connections.reserve().map(|(slot, _)| slot).ok_or(TableFull(to))
    }

    pub(super) fn seat_conference(&mut self, id: ConferenceId, to: ShardId) -> Result<u32, TableFull> {
        if id.shard() == to {
            return Ok(id.slot_number());
        }
        self.shards[usize::from(to.0)].conferences.reserve().map(|(slot, _)| slot).ok_or(TableFull(to))
    }

    fn free_seats(&mut self, slots: &[(ConnectionId, u32)], shard: ShardId) {
        for (id, slot) in slots {
            self.free_seat(*id, (shard, *slot));
        }
    }

    /// Gives a guest slot back.
    pub(super) fn free_seat(&mut self, id: ConnectionId, (shard, slot): (ShardId, u32)) {
        if id.shard() != shard {
            self.shards[usize::from(shard.0)].connections.release(slot as usize);
        }
    }

    /// Gives a conference's guest slot back.
    pub(super) fn free_conference_seat(&mut self, id: ConferenceId, (shard, slot): (ShardId, u32)) {
        if id.shard() != shard {
            self.shards[usize::from(shard.0)].conferences.release(slot as usize);
        }
    }

    /// Gives back the places that are not needed any more: where it was, or where it has not arrived.
    fn settle_move(&mut self, pending: &PendingMove, arrived: &[ConnectionId], room: Option<ConferenceId>) {
        let mut arrived = arrived.to_vec();
        arrived.sort_unstable();
        let (from, to) = (pending.from, pending.to);
        for id in &pending.members {
            let Some(entry) = self.any_connection(*id) else { continue };
            let Some(transit) = entry.moving.take() else { continue };
            let here = (transit.to, transit.slot);
            if arrived.binary_search(id).is_err() {
                self.free_seat(*id, here);
                continue;
            }
            let live = entry.live;
            let before = std::mem::replace(&mut entry.place, here);
            entry.shard = to;
            if !entry.visited.contains(&from) {
                entry.visited.push(from);
            }
            self.free_seat(*id, before);
            if live {
                self.shards[usize::from(before.0.0)].connections_living -= 1;
                self.shards[usize::from(to.0)].connections_living += 1;
            }
        }
        let Target::Conference(id) = pending.target else { return };
        let Some(entry) = self.any_conference(id) else { return };
        let Some(transit) = entry.moving.take() else { return };
        let here = (transit.to, transit.slot);
        if room.is_none() {
            self.free_conference_seat(id, here);
            return;
        }
        let before = std::mem::replace(&mut entry.place, here);
        entry.shard = to;
        if !entry.visited.contains(&from) {
            entry.visited.push(from);
        }
        self.free_conference_seat(id, before);
    }
}

impl Transit {
    /// The slot kept for it, and on which shard.
    pub(super) const fn seat(&self) -> (ShardId, u32) {
        (self.to, self.slot)
    }
}
