//! What moves from one shard to another: a connection by itself, the two of a relay, or a conference with its members.
//!
//! State travels whole, with its operations, its place in time and its streams, so nobody who listens notices. Only
//! slots are of the shard: they are told anew on arrival, as are the deadlines.

use crate::command::Target;
use crate::conference::{Cast, Conference};
use crate::connection::{Connection, Link, Taped};
use crate::engine::{Engine, TimerKey, arm_reservation, fall_silent};
use crate::event::{Condition, Effect, EffectClock, EndReason, Event};
use crate::execute::effect;
use crate::id::{ConferenceId, ConnectionId};
use crate::port::{Port, PortAction};
use crate::time::Instant;

/// What is on its way from one shard to another.
#[derive(Debug)]
pub struct Departure {
    members: Vec<Member>,
    room: Option<Box<Conference>>,
}

#[derive(Debug)]
struct Member {
    /// Where it lived.
    slot: u32,
    connection: Box<Connection>,
    /// A packet of its own is complete and has not left.
    ready: bool,
    /// A report of its is due and has not left.
    reports: bool,
}

impl Departure {
    /// Which connections, and the slots they lived in, in the order that [`Engine::adopt`] wants their new ones.
    pub fn places(&self) -> impl Iterator<Item = (ConnectionId, u32)> + '_ {
        self.members.iter().map(|member| (member.connection.id, member.slot))
    }

    /// Which conference, if it is one.
    pub fn conference(&self) -> Option<ConferenceId> {
        self.room.as_ref().map(|room| room.id)
    }

    /// Puts the slots of the new shard in place of those of the old one.
    fn rename(&mut self, slots: &[u32], room: Option<u32>) {
        let mut renamed: Vec<(u32, u32)> =
            self.members.iter().map(|member| member.slot).zip(slots.iter().copied()).collect();
        renamed.sort_unstable();
        let new = |old: u32| {
            let place = renamed.binary_search_by_key(&old, |&(from, _)| from).ok()?;
            Some(renamed[place].1)
        };
        for (member, &slot) in self.members.iter_mut().zip(slots) {
            member.slot = slot;
            let connection = &mut *member.connection;
            connection.link = match connection.link {
                Link::None => Link::None,
                Link::Relay(peer) => new(peer).map_or(Link::None, Link::Relay),
                Link::Conference(_) => room.map_or(Link::None, Link::Conference),
            };
            connection.taped = match connection.taped {
                Taped::With(peer) => new(peer).map_or(Taped::Not, Taped::With),
                alone @ (Taped::Not | Taped::By) => alone,
            };
        }
        if let Some(room) = &mut self.room {
            room.participants = room.participants.iter().filter_map(|&member| new(member)).collect();
            let Cast { coach, pupil } = room.cast;
            room.cast = Cast { coach: coach.and_then(new), pupil: pupil.and_then(new) };
        }
    }
}

impl Engine {
    /// Who moves if `target` does, and the slots they live in: a connection, its relay's other side behind it, or all
    /// members of a conference in the order they joined. `None`: it does not live here, or is a member of a conference,
    /// which only moves as a whole.
    pub fn group_of(&self, target: Target) -> Option<Vec<(ConnectionId, u32)>> {
        match target {
            Target::Connection(id) => {
                let slot = self.slot_of(id)?;
                match self.connections[slot as usize].as_ref()?.link {
                    Link::None => Some(vec![(id, slot)]),
                    Link::Relay(peer) => {
                        let other = self.connections[peer as usize].as_ref()?;
                        Some(vec![(id, slot), (other.id, peer)])
                    }
                    Link::Conference(_) => None,
                }
            }
            Target::Conference(id) => {
                let room = self.conferences[self.room_of(id)? as usize].as_ref()?;
                if room.part.is_some() {
                    // Its other parts know where it is.
                    return None;
                }
                Some(room.members(&self.connections).map(|(slot, member)| (member.id, slot)).collect())
            }
        }
    }

    /// Takes out what moves, to be [adopted](Self::adopt) by another shard. Nothing can arrive for it any more; what it
    /// has to send and to say has been polled before.
    pub fn depart(&mut self, target: Target) -> Option<Departure> {
        let group = self.group_of(target)?;
        let room = match target {
            Target::Connection(_) => None,
            Target::Conference(id) => {
                let slot = self.room_of(id)?;
                self.close_direct(slot);
                let room = self.conferences[slot as usize].take()?;
                self.adopted_rooms.remove(&id);
                self.out.totals.conferences -= 1;
                self.out.totals.operations -= operations_of_room(&room);
                Some(Box::new(room))
            }
        };
        let mut members = Vec::with_capacity(group.len());
        for (id, slot) in group {
            let Some(connection) = self.connections[slot as usize].take() else { continue };
            self.adopted.remove(&id);
            self.out.totals.connections -= 1;
            self.out.totals.operations -= operations_of(&connection);
            let (ready, reports) = (self.out.ready.contains(&slot), self.out.reports.contains(&slot));
            members.push(Member { slot, connection: Box::new(connection), ready, reports });
        }
        let stays = |slot: &u32| self.connections[*slot as usize].is_some();
        self.out.ready.retain(stays);
        self.out.reports.retain(stays);
        Some(Departure { members, room })
    }

    /// Takes in what another shard let go; the sockets of its connections are open here as `slots`, in the order of
    /// [`Departure::places`], and its conference, if it is one, gets the slot `room`.
    ///
    /// # Errors
    /// A slot is in use, or there are not as many as it takes; all of it comes back.
    pub fn adopt(
        &mut self,
        now: Instant,
        mut departure: Departure,
        slots: &[u32],
        room: Option<u32>,
    ) -> Result<(), Departure> {
        self.now = now;
        let taken = |slot: &u32| self.connections.get(*slot as usize).is_none_or(Option::is_some);
        let no_room = room.is_some_and(|room| self.conferences.get(room as usize).is_none_or(Option::is_some));
        let complete = slots.len() == departure.members.len() && room.is_some() == departure.room.is_some();
        if !complete || no_room || slots.iter().any(taken) {
            return Err(departure);
        }
        departure.rename(slots, room);
        for member in departure.members {
            self.settle_in(member);
        }
        if let (Some(conference), Some(slot)) = (departure.room, room) {
            if conference.id.shard() != self.shard || conference.id.slot_number() != slot {
                self.adopted_rooms.insert(conference.id, slot);
            }
            self.out.totals.conferences += 1;
            self.out.totals.operations += operations_of_room(&conference);
            if conference.running {
                self.wheel.arm(conference.next_due(), TimerKey::Conference(slot));
            }
            self.conferences[slot as usize] = Some(*conference);
        }
        Ok(())
    }

    fn settle_in(&mut self, member: Member) {
        let Member { slot, connection, ready, reports } = member;
        let mut connection = *connection;
        if connection.id.shard() != self.shard || connection.id.slot_number() != slot {
            self.adopted.insert(connection.id, slot);
        }
        self.out.totals.connections += 1;
        self.out.totals.operations += operations_of(&connection);
        // The socket is still connected in the kernel, but the I/O here has to learn it.
        if connection.connected
            && let Some((source, _)) = connection.latch.pinned()
        {
            connection.connected = false;
            self.out.port_actions.push_back(PortAction::Connect(Port::rtp(slot), source));
        }
        if let Some(due) = connection.solo_due {
            self.wheel.arm(due, TimerKey::Solo(slot));
        }
        if let Some(due) = connection.silence_due {
            self.wheel.arm(due, TimerKey::Silence(slot));
        }
        // Whatever was armed was armed elsewhere.
        connection.reservation_due = None;
        arm_reservation(&mut connection, slot, &mut self.wheel);
        if let Some(due) = connection.reports.due {
            self.wheel.arm(due, TimerKey::Report(slot));
        }
        if ready {
            self.out.ready.push_back(slot);
        }
        if reports {
            self.out.reports.push_back(slot);
        }
        self.connections[slot as usize] = Some(connection);
    }

    /// Ends what found no place here; the final events come as usual.
    pub fn abandon(&mut self, now: Instant, departure: Departure) {
        self.now = now;
        let reason = EndReason::ShardFailed;
        let Departure { members, mut room } = departure;
        let conference = room.as_ref().map(|room| room.id);
        for member in members {
            let mut connection = *member.connection;
            if let Some(conference) = conference {
                fall_silent(&mut connection, conference, &mut self.out);
            }
            let target = connection.target();
            for operation in connection.media.iter_mut().flat_map(|media| media.operations.iter_mut()) {
                if let Some(operation) = operation.take() {
                    self.out.totals.operations += 1;
                    self.out.end_operation(operation, target, Condition::AutoStop);
                }
            }
            let (heard, quality) = (connection.latch.pinned(), Box::new(connection.quality()));
            self.out.push_event(Event::ConnectionEnded { id: connection.id, reason, heard, quality });
        }
        if let Some(room) = &mut room {
            for operation in room.operations.iter_mut().filter_map(Option::take) {
                self.out.totals.operations += 1;
                self.out.end_operation(operation, Target::Conference(room.id), Condition::AutoStop);
            }
            self.out.push_event(Event::ConferenceEnded { id: room.id, reason });
        }
    }

    /// From which packets on it is this shard that `target` and what moves with it are looked after by.
    pub fn moved_effect(&self, target: Target, received: Instant) -> Option<Box<Effect>> {
        let group = self.group_of(target)?;
        let mut streams: Vec<_> = group
            .iter()
            .filter_map(|&(_, slot)| self.connections[slot as usize].as_ref().and_then(Connection::stamp_in))
            .collect();
        match target {
            Target::Conference(id) => {
                let room = self.room_of(id)?;
                self.stamp_all(room, &mut streams);
                Some(self.conference_effect(room, received, streams))
            }
            Target::Connection(_) => {
                let &(_, slot) = group.first()?;
                let due = self.due_of(slot).unwrap_or(self.now);
                match group[..] {
                    [(_, a), (_, b)] => streams.extend(self.stamp_relay(a, b)),
                    [..] => streams.extend(self.connections[slot as usize].as_ref().and_then(|one| one.stamp_out(due))),
                }
                Some(effect(EffectClock::Connection, self.epoch_of(slot), received, due, streams))
            }
        }
    }

    /// Where a conference lives on this shard, if it does.
    pub(crate) fn room_of(&self, id: ConferenceId) -> Option<u32> {
        let home = (id.shard() == self.shard).then_some(id.slot_number());
        let here = |slot: &u32| {
            self.conferences.get(*slot as usize).and_then(Option::as_ref).is_some_and(|room| room.id == id)
        };
        home.filter(here).or_else(|| self.adopted_rooms.get(&id).copied().filter(here))
    }
}

fn operations_of(connection: &Connection) -> u64 {
    connection.media.as_ref().map_or(0, |media| media.operations.iter().flatten().count() as u64)
}

fn operations_of_room(room: &Conference) -> u64 {
    room.operations.iter().flatten().count() as u64
}
