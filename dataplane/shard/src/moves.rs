//! Moves between shards: a connection, the two of a relay, or a conference with its members.
//!
//! ```text
//!            hush all ports           all quiet: state departs        all sockets out
//!  order ────────────────▶ draining ───────────────────────▶ leaving ───────────────▶ gone
//!            still plays, mixes, relays     no clock ticks           to the other shard, then what was held
//! ```
//!
//! Nothing is lost: what the kernel had handed over is handled here, by a group that is still whole and can still send;
//! what it had not waits in the sockets. Messages for what moves wait as well, and follow it in order.

use std::collections::{HashMap, HashSet, VecDeque};

use ringbridge_media::command::Target;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::moving::Departure;
use ringbridge_media::port::Port;
use ringbridge_media::time::Instant;

use crate::io::PacketIo;
use crate::mailbox::{Arrival, MoveOrder, Moved, PeerMessage, Seat, ShardMessage, ShardReport};
use crate::run::Shard;

/// Messages held back while what they name is on its way out.
const HELD_MESSAGES_MAX: usize = 1024;

/// What is on its way out of a shard, and where went what has left.
#[derive(Debug)]
pub(crate) struct Moves<S> {
    pending: Vec<Move<S>>,
    /// Everything that moves with one of `pending`.
    moving: HashSet<Target>,
    /// Where things went that had lived here.
    gone: HashMap<Target, ShardId>,
    /// Messages that name something in `moving`, in order.
    held: VecDeque<ShardMessage<S>>,
}

#[derive(Debug)]
struct Move<S> {
    order: Box<MoveOrder>,
    /// By the slot they come from.
    legs: Vec<Leg<S>>,
    /// Ports that may still deliver something.
    draining: usize,
    /// Sockets that are not out yet.
    inside: usize,
    /// Nothing can arrive any more, and the state is out of the engine.
    left: bool,
    departure: Option<Departure>,
}

#[derive(Debug)]
struct Leg<S> {
    connection: ConnectionId,
    from_slot: u32,
    to_slot: u32,
    rtp: Side<S>,
    rtcp: Side<S>,
}

/// Where one port of a leg stands.
#[derive(Debug)]
enum Side<S> {
    Draining,
    Quiet,
    Out(S),
}

impl<S> Moves<S> {
    pub(crate) fn new() -> Self {
        Self { pending: Vec::new(), moving: HashSet::new(), gone: HashMap::new(), held: VecDeque::new() }
    }

    /// Whether messages have to wait since too many are held back.
    pub(crate) fn is_full(&self) -> bool {
        self.held.len() >= HELD_MESSAGES_MAX
    }

    /// Stops forwarding for something that has ended.
    pub(crate) fn forget(&mut self, target: Target) {
        self.gone.remove(&target);
    }

    /// What is to be done with a message, as something it names is moving or has moved.
    pub(crate) fn route(&mut self, message: ShardMessage<S>) -> Route<S> {
        let named = named(&message);
        let mut names = named.into_iter().flatten();
        if !self.moving.is_empty() && names.clone().any(|target| self.moving.contains(&target)) {
            self.held.push_back(message);
            return Route::Held;
        }
        // Both sides of a relay live where the first one does, or the command fails there.
        if self.gone.is_empty() {
            return Route::Here(message);
        }
        match names.find_map(|target| self.gone.get(&target).copied()) {
            Some(to) => Route::Elsewhere(to, message),
            None => Route::Here(message),
        }
    }

    /// The move that the socket of a port belongs to, and the leg.
    fn find(&self, port: Port) -> Option<(usize, usize)> {
        self.pending.iter().enumerate().find_map(|(index, pending)| {
            let leg = pending.legs.binary_search_by_key(&port.slot, |leg| leg.from_slot).ok()?;
            Some((index, leg))
        })
    }

    /// Nothing more comes from a port. The move that goes on with that.
    fn quiet(&mut self, port: Port) -> Option<usize> {
        let (index, leg) = self.find(port)?;
        let pending = &mut self.pending[index];
        let side = pending.legs[leg].side(port);
        if matches!(side, Side::Draining) {
            *side = Side::Quiet;
            pending.draining -= 1;
        }
        (pending.draining == 0 && !pending.left).then_some(index)
    }

    /// A port has given its socket back; whether it is one that moves, else the socket comes back.
    fn out(&mut self, port: Port, socket: S) -> Result<(), S> {
        let Some((index, leg)) = self.find(port) else { return Err(socket) };
        let pending = &mut self.pending[index];
        let side = pending.legs[leg].side(port);
        if !matches!(side, Side::Out(_)) {
            pending.inside -= 1;
        }
        *side = Side::Out(socket);
        Ok(())
    }
}

/// What is to be done with a message.
pub(crate) enum Route<S> {
    /// Carry it out.
    Here(ShardMessage<S>),
    /// What it names has moved there.
    Elsewhere(ShardId, ShardMessage<S>),
    /// It waits.
    Held,
}

impl<S> Leg<S> {
    fn side(&mut self, port: Port) -> &mut Side<S> {
        if port.rtcp { &mut self.rtcp } else { &mut self.rtp }
    }
}

impl<P: PacketIo> Shard<P> {
    pub(crate) fn begin_move(&mut self, order: Box<MoveOrder>) {
        let Some(legs) = self.legs_of(&order) else {
            // It stays: unknown, or wired to something that was not expected.
            self.report_stays(order.token);
            return;
        };
        self.moves.moving.insert(order.target);
        for leg in &legs {
            self.moves.moving.insert(Target::Connection(leg.connection));
            self.io.hush(Port::rtp(leg.from_slot));
            self.io.hush(Port::rtcp(leg.from_slot));
        }
        let ports = 2 * legs.len();
        let pending = Move { order, legs, draining: ports, inside: ports, left: false, departure: None };
        self.moves.pending.push(pending);
        if ports == 0 {
            // A conference without members has nothing to wait for.
            self.depart(self.moves.pending.len() - 1);
            self.finish_moves();
        }
    }

    /// Who moves from which slot to which. `None`: nobody, as it does not live here, has no place where it is to go, or
    /// is wired to somebody who has none.
    fn legs_of(&self, order: &MoveOrder) -> Option<Vec<Leg<P::Socket>>> {
        if order.to == self.id || matches!(order.target, Target::Conference(_)) != order.room.is_some() {
            return None;
        }
        let mut slots = order.slots.clone();
        slots.sort_unstable();
        let group = self.engine.group_of(order.target)?;
        let legs = group.into_iter().map(|(connection, from_slot)| {
            let place = slots.binary_search_by_key(&connection, |&(id, _)| id).ok()?;
            let is_free = !self.moves.moving.contains(&Target::Connection(connection));
            let to_slot = slots[place].1;
            is_free.then_some(Leg { connection, from_slot, to_slot, rtp: Side::Draining, rtcp: Side::Draining })
        });
        let mut legs = legs.collect::<Option<Vec<_>>>()?;
        legs.sort_unstable_by_key(|leg| leg.from_slot);
        Some(legs)
    }

    /// Nothing can arrive for a group any more: its state leaves the engine, so that no clock ticks for it, and its
    /// sockets leave the I/O once all it has sent is on its way.
    fn depart(&mut self, index: usize) {
        self.transmit();
        self.deliver_events();
        let pending = &mut self.moves.pending[index];
        let group = self.engine.group_of(pending.order.target).unwrap_or_default();
        // Whatever could add somebody names one of them, and is held.
        let all_known =
            group.iter().all(|(_, slot)| pending.legs.binary_search_by_key(slot, |leg| leg.from_slot).is_ok());
        assert!(all_known, "nobody joins what moves");
        pending.departure = self.engine.depart(pending.order.target);
        pending.left = true;
        for leg in &pending.legs {
            self.io.close(Port::rtp(leg.from_slot));
            self.io.close(Port::rtcp(leg.from_slot));
        }
    }

    /// Goes on with what waits for ports to be quiet, or for sockets to be out.
    pub(crate) fn settle_moves(&mut self) {
        while let Some(port) = self.io.poll_quiet() {
            if let Some(index) = self.moves.quiet(port) {
                self.depart(index);
            }
        }
    }

    /// Takes the socket of a port that moves; another one comes back.
    pub(crate) fn take_moving_socket(&mut self, port: Port, socket: P::Socket) -> Option<P::Socket> {
        // One that was released meanwhile has not said that it is quiet.
        if let Some(index) = self.moves.quiet(port) {
            self.depart(index);
        }
        self.moves.out(port, socket).err()
    }

    /// Sends on what is out, and what was held for it.
    pub(crate) fn finish_moves(&mut self) {
        while let Some(index) = self.moves.pending.iter().position(|pending| pending.left && pending.inside == 0) {
            let Move { order, legs, departure, .. } = self.moves.pending.swap_remove(index);
            self.moves.moving.remove(&order.target);
            for leg in &legs {
                self.moves.moving.remove(&Target::Connection(leg.connection));
            }
            match departure {
                Some(departure) => self.send_off(&order, legs, departure),
                // It has ended by itself.
                None => self.report_stays(order.token),
            }
            for message in std::mem::take(&mut self.moves.held) {
                self.handle_message(self.turn_began, message);
            }
        }
    }

    fn send_off(&mut self, order: &MoveOrder, mut legs: Vec<Leg<P::Socket>>, departure: Departure) {
        let to = order.to;
        let mut seats = Vec::with_capacity(legs.len());
        for (connection, slot) in departure.places() {
            self.moves.gone.insert(Target::Connection(connection), to);
            let Ok(place) = legs.binary_search_by_key(&slot, |leg| leg.from_slot) else { continue };
            let Leg { to_slot, rtp, rtcp, .. } = &mut legs[place];
            if let (Side::Out(rtp), Side::Out(rtcp)) =
                (std::mem::replace(rtp, Side::Quiet), std::mem::replace(rtcp, Side::Quiet))
            {
                seats.push(Seat { slot: *to_slot, rtp, rtcp });
            }
        }
        if let Some(conference) = departure.conference() {
            self.moves.gone.insert(Target::Conference(conference), to);
        }
        let MoveOrder { token, received, target, room, .. } = *order;
        let arrival = Arrival { token, received, target, departure, seats, room };
        self.send_to_peer(to, PeerMessage::Adopt(Box::new(arrival)));
    }

    pub(crate) fn adopt(&mut self, now: Instant, arrival: Arrival<P::Socket>) {
        let Arrival { token, received, target, departure, seats, room } = arrival;
        let connections: Vec<ConnectionId> = departure.places().map(|(connection, _)| connection).collect();
        let conference: Option<ConferenceId> = departure.conference();
        for &connection in &connections {
            self.moves.gone.remove(&Target::Connection(connection));
        }
        if let Some(conference) = conference {
            self.moves.gone.remove(&Target::Conference(conference));
        }
        let mut lost = Vec::new();
        let mut slots = Vec::with_capacity(seats.len());
        for (Seat { slot, rtp, rtcp }, &connection) in seats.into_iter().zip(&connections) {
            if let Err(error) = self.open_ports(slot, rtp, rtcp) {
                tracing::warn!(shard = self.id.0, %connection, %error, "sockets could not be opened");
                lost.push(connection);
            }
            slots.push(slot);
        }
        let shard = self.id;
        let moved = |effect| {
            ShardReport::Moved(Box::new(Moved { token, shard, connections: connections.clone(), conference, effect }))
        };
        if let Err(departure) = self.engine.adopt(now, departure, &slots, room) {
            // The slots were promised; without them it can only end, and has to say so.
            tracing::error!(shard = self.id.0, ?connections, "no slot for what moves here");
            slots.iter().for_each(|&slot| self.close_unused(slot));
            self.report(moved(None));
            self.engine.abandon(now, departure);
            return;
        }
        self.report(moved(self.engine.moved_effect(target, received)));
        for connection in lost {
            self.engine.fail_connection(now, connection);
        }
        // The kernel's socket may be connected: the I/O learns it before a command can change the remote address.
        self.settle_ports();
    }

    fn report_stays(&mut self, token: u64) {
        let moved = Moved { token, shard: self.id, connections: Vec::new(), conference: None, effect: None };
        self.report(ShardReport::Moved(Box::new(moved)));
    }
}

/// What a message names, first of all what decides where it is carried out.
fn named<S>(message: &ShardMessage<S>) -> [Option<Target>; 3] {
    match message {
        ShardMessage::Command(request) => {
            let command = &request.command;
            [
                command.conference().map(Target::Conference),
                command.connection().map(Target::Connection),
                command.peer().map(Target::Connection),
            ]
        }
        ShardMessage::Move(order) => [Some(order.target), None, None],
        ShardMessage::Open { .. }
        | ShardMessage::Forget { .. }
        | ShardMessage::Snapshot { .. }
        | ShardMessage::Stop
        | ShardMessage::Panic => [None; 3],
    }
}
