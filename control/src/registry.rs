//! Which ids exist and where they live: an index, never a second truth about media.
//!
//! The control plane allocates ids. Every shard has one table of slots for connections and one for conferences; a
//! free slot waits at the end of a queue, and its generation is bumped with each use, also across a restart of the
//! shard. What has moved keeps its id and its home slot, and holds a guest slot on the shard it lives on.

mod moves;
mod parts;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use ringbridge_media::command::{DigitSource, OperationKind, Rate, Target};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::CONFERENCES_MAX;
use ringbridge_media::samples::RecordQueue;
use tokio::sync::oneshot;

use crate::files::RecordingOutcome;
use crate::gate::Gate;
use crate::methods::connection::Negotiated;
use crate::ports::PortLease;
use crate::quota::{Class, Denied, Quota, Units};

use self::moves::PendingMove;
pub use self::moves::{Begun, MoveRefused, Transit};
pub use self::parts::LostParts;

/// Every id in use.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Tables>,
    operations: HashMap<OperationId, OperationEntry>,
    operations_started: u64,
    /// What sets the ids of calls apart from those of earlier servers: they stay in the database.
    calls_of: u32,
    calls_started: u64,
    joins: u64,
    /// Moves under way, by token.
    moves: HashMap<u64, PendingMove>,
    moves_begun: u64,
    /// Conferences in parts whose last party may have left.
    vacated: Vec<ConferenceId>,
}

/// What the control plane knows of a connection.
#[derive(Debug)]
pub struct ConnectionEntry {
    /// Its id.
    pub id: ConnectionId,
    /// Where it lives now.
    pub shard: ShardId,
    /// Where it is going, while it is being moved.
    pub moving: Option<Transit>,
    /// Its ports.
    pub lease: PortLease,
    /// Given by the client.
    pub label: Option<String>,
    /// Name of the interface asked for.
    pub interface: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Codecs and payload types as last negotiated.
    pub negotiated: Negotiated,
    /// Where the client says that its endpoint is.
    pub remote: Option<IpAddr>,
    /// Differentiated services code point of its sockets.
    pub dscp: u8,
    /// Where its digits come from.
    pub digit_source: DigitSource,
    /// Waits for its remote address, as far as has been answered.
    pub reserved: bool,
    /// The relay it is in, as far as text goes.
    pub call: Option<Rc<Call>>,
    /// What it takes of the class `rtp`.
    pub rtp: Units,
    /// What it takes of the class `enhanced_rtp`, while it has a codec that is only passed on.
    pub enhanced_rtp: Option<Units>,
    /// The conferences it is a member of or about to join.
    pub conferences: Vec<ConferenceId>,
    /// Opens when it has ended: its id is unknown then, and its ports are free.
    pub ended: Gate,
    live: bool,
    /// The slot it lives in.
    place: (ShardId, u32),
    /// Shards it has moved away from.
    visited: Vec<ShardId>,
}

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
    parts: Vec<(ShardId, u32)>,
    /// In parts: a party has left since the last one came.
    deserted: bool,
    /// In parts: it is being ended.
    ending: bool,
    /// Its place among the mixed conferences.
    mix: Option<Units>,
    members: Vec<Member>,
    live: bool,
    /// The slot it lives in.
    place: (ShardId, u32),
    /// Shards it has moved away from.
    visited: Vec<ShardId>,
}

/// A connection in a conference, or about to join.
#[derive(Debug)]
struct Member {
    join: u64,
    connection: ConnectionId,
    monitor: bool,
    /// What it takes of the class `conference`, which all monitors share; none in a hairpin.
    unit: Option<Rc<Units>>,
    live: bool,
}

/// The text that goes with a relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The caller.
    pub a: ConnectionId,
    /// The called.
    pub b: ConnectionId,
    /// Number of the caller.
    pub caller_number: Option<String>,
    /// Number of the called.
    pub called_number: Option<String>,
    /// It may decode and encode again what the two differ in.
    pub transcode: bool,
}

/// What the control plane knows of an operation.
#[derive(Debug)]
pub struct OperationEntry {
    /// Its id.
    pub id: OperationId,
    /// On what it runs.
    pub target: Target,
    /// What it does.
    pub kind: OperationKind,
    /// The recording it writes.
    pub recording: Option<RecordingEntry>,
    /// When it was started.
    pub started: std::time::Instant,
    /// Opens when the answer to its start is queued: its end is not told before.
    pub announced: Gate,
    /// Opens when its end is queued to all subscribers.
    pub ended: Gate,
    /// Its end is known and being told.
    pub ending: bool,
    /// What it takes of the classes `voice` and `conference`, as long as it runs.
    pub units: Vec<Units>,
    live: bool,
}

/// A recording as long as its operation runs.
#[derive(Debug)]
pub struct RecordingEntry {
    /// The file.
    pub path: std::path::PathBuf,
    /// Where its samples go.
    pub queue: Arc<RecordQueue>,
    /// Told when the file is closed.
    pub done: oneshot::Receiver<RecordingOutcome>,
}

/// A connection taken out of the registry, and the shards that still forward for it.
#[derive(Debug)]
pub struct Ended {
    /// What was known.
    pub entry: ConnectionEntry,
    /// Shards to be told to forget it.
    pub forwarders: Vec<ShardId>,
}

/// What was lost with a shard.
#[derive(Debug, Default)]
pub struct Lost {
    /// Operations that had not ended.
    pub operations: Vec<OperationEntry>,
    /// Connections that lived there or were on their way to or from there.
    pub connections: Vec<ConnectionEntry>,
    /// Conferences that lived there.
    pub conferences: Vec<ConferenceId>,
    /// Other shards that may still hold one of them.
    pub strays: Vec<(ShardId, Target)>,
    /// Of conferences in parts.
    pub parts: LostParts,
}

/// A table has no free slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shard {0} can hold no more")]
pub struct TableFull(pub ShardId);

#[derive(Debug)]
struct Tables {
    connections: Slots<ConnectionEntry>,
    conferences: Slots<ConferenceEntry>,
    connections_living: usize,
}

/// A table of slots. An entry is boxed so that an empty table is small.
#[derive(Debug)]
struct Slots<T> {
    generations: Vec<u32>,
    entries: Vec<Option<Box<T>>>,
    free: VecDeque<u32>,
}

impl Registry {
    /// An empty registry for `shards` shards with room for `connections_max` connections each.
    pub fn new(shards: usize, connections_max: u32) -> Self {
        let tables = || Tables {
            connections: Slots::new(connections_max as usize),
            conferences: Slots::new(CONFERENCES_MAX),
            connections_living: 0,
        };
        Self {
            shards: (0..shards).map(|_| tables()).collect(),
            operations: HashMap::new(),
            operations_started: 0,
            calls_of: rand::random(),
            calls_started: 0,
            joins: 0,
            moves: HashMap::new(),
            moves_begun: 0,
            vacated: Vec::new(),
        }
    }

    /// Takes a slot for a new connection. It is not known to anybody until [`confirm_connection`](Self::confirm_connection).
    ///
    /// # Errors
    /// The table is full; the lease goes back to its pool.
    pub fn add_connection(
        &mut self,
        shard: ShardId,
        lease: PortLease,
        negotiated: Negotiated,
        dscp: u8,
        rtp: Units,
        enhanced_rtp: Option<Units>,
    ) -> Result<&mut ConnectionEntry, TableFull> {
        let table = &mut self.shards[usize::from(shard.0)].connections;
        let (slot, generation) = table.reserve().ok_or(TableFull(shard))?;
        let entry = ConnectionEntry {
            id: ConnectionId::new(shard, slot, generation),
            shard,
            moving: None,
            lease,
            label: None,
            interface: None,
            created_at: Timestamp::now(),
            negotiated,
            remote: None,
            dscp,
            digit_source: DigitSource::default(),
            reserved: false,
            call: None,
            rtp,
            enhanced_rtp,
            conferences: Vec::new(),
            ended: Gate::default(),
            live: false,
            place: (shard, slot),
            visited: Vec::new(),
        };
        Ok(table.entries[slot as usize].insert(Box::new(entry)))
    }

    /// Makes a connection known: its shard has taken it up.
    pub fn confirm_connection(&mut self, id: ConnectionId) {
        let Some(entry) = self.any_connection(id) else { return };
        entry.live = true;
        let shard = entry.shard;
        self.shards[usize::from(shard.0)].connections_living += 1;
    }

    /// Takes a connection out, known or not.
    pub fn remove_connection(&mut self, id: ConnectionId) -> Option<Ended> {
        self.any_connection(id)?;
        let home = id.shard();
        let entry = *self.shards[usize::from(home.0)].connections.release(id.slot())?;
        self.free_seat(id, entry.place);
        if let Some(transit) = &entry.moving {
            self.free_seat(id, transit.seat());
        }
        if entry.live {
            self.shards[usize::from(entry.shard.0)].connections_living -= 1;
        }
        entry.ended.open();
        for conference in &entry.conferences {
            if let Some(members) = self.any_conference(*conference).map(|entry| &mut entry.members) {
                let gone: Vec<_> = members.extract_if(.., |member| member.connection == id).collect();
                self.note_gone(*conference, &gone);
            }
        }
        if let Some(call) = &entry.call {
            self.clear_call(&Rc::clone(call));
        }
        let forwarders = entry.visited.iter().copied().filter(|shard| *shard != entry.shard).collect();
        Some(Ended { entry, forwarders })
    }

    /// A connection that is known.
    pub fn connection(&self, id: ConnectionId) -> Option<&ConnectionEntry> {
        let table = &self.shards.get(usize::from(id.shard().0))?.connections;
        table.entries.get(id.slot())?.as_deref().filter(|entry| entry.id == id && entry.live)
    }

    /// A connection that is known, to be changed.
    pub fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut ConnectionEntry> {
        self.any_connection(id).filter(|entry| entry.live)
    }

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

    /// Notes a connection that is about to join, with what it takes. Not counted as a member until
    /// [`confirm_member`](Self::confirm_member); given back by [`remove_member`](Self::remove_member).
    pub fn add_member(
        &mut self,
        conference: ConferenceId,
        connection: ConnectionId,
        monitor: bool,
        unit: Option<Rc<Units>>,
    ) -> u64 {
        let join = self.joins;
        self.joins += 1;
        let Some(entry) = self.any_conference(conference) else { return join };
        entry.members.push(Member { join, connection, monitor, unit, live: false });
        if let Some(entry) = self.any_connection(connection) {
            entry.conferences.push(conference);
        }
        join
    }

    /// What one more member takes of the class `conference`; nothing in a hairpin, and monitors share a unit.
    ///
    /// # Errors
    /// None is free.
    pub fn member_unit(
        &self,
        conference: ConferenceId,
        monitor: bool,
        quota: &Quota,
    ) -> Result<Option<Rc<Units>>, Denied> {
        let Some(entry) = self.conference(conference).filter(|entry| !entry.hairpin) else { return Ok(None) };
        let mut monitors = entry.members.iter().filter(|member| monitor && member.monitor);
        if let Some(shared) = monitors.find_map(|member| member.unit.clone()) {
            return Ok(Some(shared));
        }
        Ok(Some(Rc::new(quota.try_take(Class::Conference)?)))
    }

    /// A connection has joined.
    pub fn confirm_member(&mut self, conference: ConferenceId, join: u64) {
        let Some(entry) = self.any_conference(conference) else { return };
        if let Some(member) = entry.members.iter_mut().find(|member| member.join == join) {
            member.live = true;
            entry.deserted &= member.monitor;
        }
    }

    /// A connection has not joined.
    pub fn remove_member(&mut self, conference: ConferenceId, join: u64) {
        self.retain_members(conference, |member| member.join != join);
    }

    /// A connection has left. One that is about to join again stays.
    pub fn member_left(&mut self, conference: ConferenceId, connection: ConnectionId) {
        self.retain_members(conference, |member| member.connection != connection || !member.live);
    }

    /// A conference is as good as gone: all units of its members are given back.
    pub fn empty_conference(&mut self, conference: ConferenceId) {
        if let Some(entry) = self.any_conference(conference) {
            entry.ending = true;
        }
        self.retain_members(conference, |_| false);
        if let Some(entry) = self.any_conference(conference) {
            entry.mix = None;
        }
    }

    /// Takes what the members of a hairpin need once it is a mixed conference, and a newcomer who may be a monitor: all
    /// at once or nothing. Returns what the newcomer takes. [`end_promotion`](Self::end_promotion) says what came of it.
    ///
    /// # Errors
    /// Not as many units are free.
    pub fn begin_promotion(
        &mut self,
        conference: ConferenceId,
        quota: &Quota,
        newcomer: Option<bool>,
    ) -> Result<Option<Rc<Units>>, Denied> {
        let Some(entry) = self.any_conference(conference) else { return Ok(None) };
        let mix = quota.try_take_mix()?;
        let all = || entry.members.iter().map(|member| member.monitor).chain(newcomer);
        let monitors = all().any(|monitor| monitor);
        let parties = all().filter(|monitor| !monitor).count() + usize::from(monitors);
        let needed = u32::try_from(parties).unwrap_or(u32::MAX);
        let mut units = quota.try_take_many(Class::Conference, needed)?;
        let shared = if monitors { units.split_one().map(Rc::new) } else { None };
        let mut unit = |monitor| if monitor { shared.clone() } else { units.split_one().map(Rc::new) };
        for member in &mut entry.members {
            member.unit = unit(member.monitor);
        }
        entry.mix = Some(mix);
        Ok(newcomer.and_then(unit))
    }

    /// A hairpin has been promoted, or stays one and its members need nothing.
    pub fn end_promotion(&mut self, conference: ConferenceId, promoted: bool) {
        let Some(entry) = self.any_conference(conference) else { return };
        if promoted {
            entry.hairpin = false;
            return;
        }
        entry.mix = None;
        for member in &mut entry.members {
            member.unit = None;
        }
    }

    /// A conference that is known.
    pub fn conference(&self, id: ConferenceId) -> Option<&ConferenceEntry> {
        let table = &self.shards.get(usize::from(id.shard().0))?.conferences;
        table.entries.get(id.slot())?.as_deref().filter(|entry| entry.id == id && entry.live)
    }

    /// The rate of the clock that an operation on `target` runs on, as far as is known here: that of the conference it is
    /// in, that of a relay that transcodes, or else that of its codec. The engine makes up for what is wrong.
    pub fn clock_rate(&self, target: Target) -> Rate {
        let id = match target {
            Target::Conference(id) => return self.conference(id).map_or(Rate::Narrow, |entry| entry.rate),
            Target::Connection(id) => id,
        };
        let own = |id| {
            self.connection(id)
                .map_or(Rate::Narrow, |entry| entry.negotiated.rx_codec.rate().max(entry.negotiated.tx_codec.rate()))
        };
        let Some(entry) = self.connection(id) else { return Rate::Narrow };
        if let Some(room) = entry.conferences.last().and_then(|room| self.conference(*room)) {
            return room.rate;
        }
        match &entry.call {
            Some(call) if call.transcode => own(call.a).min(own(call.b)),
            Some(_) | None => own(id),
        }
    }

    /// Notes an operation that is about to be started on `shard`; not known to anybody until
    /// [`confirm_operation`](Self::confirm_operation).
    pub fn add_operation(
        &mut self,
        shard: ShardId,
        target: Target,
        kind: OperationKind,
        recording: Option<RecordingEntry>,
        units: Vec<Units>,
    ) -> &OperationEntry {
        let number = self.operations_started;
        self.operations_started += 1;
        // 2^56 operations take two thousand years at a million a second.
        let slot = u32::try_from(number & 0xff_ffff).unwrap_or_default();
        let generation = u32::try_from((number >> 24) & 0xffff_ffff).unwrap_or_default();
        let id = OperationId::new(shard, slot, generation);
        let entry = OperationEntry {
            id,
            target,
            kind,
            recording,
            started: std::time::Instant::now(),
            announced: Gate::default(),
            ended: Gate::default(),
            ending: false,
            units,
            live: false,
        };
        self.operations.entry(id).insert_entry(entry).into_mut()
    }

    /// Makes an operation known.
    pub fn confirm_operation(&mut self, id: OperationId) {
        if let Some(entry) = self.operations.get_mut(&id) {
            entry.live = true;
        }
    }

    /// Takes an operation out, known or not.
    pub fn remove_operation(&mut self, id: OperationId) -> Option<OperationEntry> {
        self.operations.remove(&id)
    }

    /// An operation that is known.
    pub fn operation(&self, id: OperationId) -> Option<&OperationEntry> {
        self.operations.get(&id).filter(|entry| entry.live)
    }

    /// An operation that is known, to be changed.
    pub fn operation_mut(&mut self, id: OperationId) -> Option<&mut OperationEntry> {
        self.operations.get_mut(&id).filter(|entry| entry.live)
    }

    /// Every operation that is known and has not ended.
    pub fn operations(&self) -> impl Iterator<Item = &OperationEntry> {
        self.operations.values().filter(|entry| entry.live && !entry.ending)
    }

    /// Every operation of a target whose end is not told yet.
    pub fn operations_of(&self, target: Target) -> impl Iterator<Item = &OperationEntry> {
        self.operations.values().filter(move |entry| entry.live && entry.target == target)
    }

    /// Notes the text of a relay with both its connections.
    pub fn add_call(
        &mut self,
        a: ConnectionId,
        b: ConnectionId,
        caller_number: Option<String>,
        called_number: Option<String>,
        transcode: bool,
    ) -> Rc<Call> {
        let id = format!("call-{:08x}-{:x}", self.calls_of, self.calls_started);
        self.calls_started += 1;
        let call = Rc::new(Call { id, a, b, caller_number, called_number, transcode });
        for side in [a, b] {
            if let Some(entry) = self.any_connection(side) {
                entry.call = Some(Rc::clone(&call));
            }
        }
        call
    }

    /// Drops the text of a relay.
    pub fn clear_call(&mut self, call: &Rc<Call>) {
        for side in [call.a, call.b] {
            if let Some(entry) = self.any_connection(side)
                && entry.call.as_ref().is_some_and(|other| Rc::ptr_eq(other, call))
            {
                entry.call = None;
            }
        }
    }

    /// Takes out everything that lived on a shard.
    pub fn remove_shard(&mut self, shard: ShardId) -> Lost {
        let lost_connections: Vec<ConnectionId> = self
            .connections()
            .filter(|entry| entry.shard == shard || is_bound_for(entry.moving.as_ref(), shard))
            .map(|entry| entry.id)
            .collect();
        let mut conferences: Vec<ConferenceId> = self
            .conferences()
            .filter(|entry| entry.shard == shard || is_bound_for(entry.moving.as_ref(), shard))
            .map(|entry| entry.id)
            .collect();
        conferences.sort_unstable();
        let mut lost = Lost { conferences, parts: self.lose_parts(shard), ..Lost::default() };
        for id in &lost_connections {
            let Some(Ended { entry, forwarders }) = self.remove_connection(*id) else { continue };
            let ends = entry.moving.iter().map(|transit| transit.to).chain([entry.shard]).chain(forwarders);
            let target = Target::Connection(*id);
            lost.strays.extend(ends.filter(|other| *other != shard).map(|other| (other, target)));
            lost.connections.push(entry);
        }
        for id in &lost.conferences {
            let Some(entry) = self.remove_conference(*id) else { continue };
            let ends = entry.moving.iter().map(|transit| transit.to).chain([entry.shard]).chain(entry.visited);
            let target = Target::Conference(*id);
            lost.strays.extend(ends.filter(|other| *other != shard).map(|other| (other, target)));
        }
        self.lose_moves(shard);
        let mut sorted = lost_connections;
        sorted.sort_unstable();
        let is_lost = |target: Target| match target {
            Target::Connection(id) => sorted.binary_search(&id).is_ok(),
            Target::Conference(id) => lost.conferences.binary_search(&id).is_ok(),
        };
        let operations: Vec<OperationId> =
            self.operations().filter(|entry| is_lost(entry.target)).map(|entry| entry.id).collect();
        lost.operations = operations.into_iter().filter_map(|id| self.operations.remove(&id)).collect();
        lost.operations.sort_unstable_by_key(|entry| entry.id);
        lost
    }

    /// Every connection that is known.
    pub fn connections(&self) -> impl Iterator<Item = &ConnectionEntry> {
        self.shards
            .iter()
            .flat_map(|tables| tables.connections.entries.iter().filter_map(Option::as_deref))
            .filter(|entry| entry.live)
    }

    /// Every conference that is known.
    pub fn conferences(&self) -> impl Iterator<Item = &ConferenceEntry> {
        self.shards
            .iter()
            .flat_map(|tables| tables.conferences.entries.iter().filter_map(Option::as_deref))
            .filter(|entry| entry.live)
    }

    /// How many connections live on a shard.
    pub fn connections_on(&self, shard: ShardId) -> usize {
        self.shards[usize::from(shard.0)].connections_living
    }

    /// How many connections there are.
    pub fn connections_total(&self) -> usize {
        self.shards.iter().map(|tables| tables.connections_living).sum()
    }

    fn retain_members(&mut self, conference: ConferenceId, keep: impl Fn(&Member) -> bool) {
        let Some(entry) = self.any_conference(conference) else { return };
        let gone: Vec<_> = entry.members.extract_if(.., |member| !keep(member)).collect();
        self.note_gone(conference, &gone);
        for member in gone {
            self.forget_membership(conference, member.connection);
        }
    }

    fn forget_membership(&mut self, conference: ConferenceId, connection: ConnectionId) {
        let Some(entry) = self.any_connection(connection) else { return };
        if let Some(place) = entry.conferences.iter().position(|other| *other == conference) {
            entry.conferences.swap_remove(place);
        }
    }

    fn any_conference(&mut self, id: ConferenceId) -> Option<&mut ConferenceEntry> {
        let table = &mut self.shards.get_mut(usize::from(id.shard().0))?.conferences;
        table.entries.get_mut(id.slot())?.as_deref_mut().filter(|entry| entry.id == id)
    }

    fn any_connection(&mut self, id: ConnectionId) -> Option<&mut ConnectionEntry> {
        let table = &mut self.shards.get_mut(usize::from(id.shard().0))?.connections;
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

fn is_bound_for(moving: Option<&Transit>, shard: ShardId) -> bool {
    moving.is_some_and(|transit| transit.to == shard)
}

impl<T> Slots<T> {
    fn new(slots: usize) -> Self {
        let count = u32::try_from(slots).expect("a table has fewer than 2^24 slots");
        Self {
            generations: vec![0; slots],
            entries: std::iter::repeat_with(|| None).take(slots).collect(),
            free: (0..count).collect(),
        }
    }

    fn reserve(&mut self) -> Option<(u32, u32)> {
        let slot = self.free.pop_front()?;
        Some((slot, self.generations[slot as usize]))
    }

    fn release(&mut self, slot: usize) -> Option<Box<T>> {
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        self.free.push_back(u32::try_from(slot).expect("a table has fewer than 2^24 slots"));
        self.entries[slot].take()
    }
}

/// What the id of a conference operation's utility connection starts with.
const UTILITY_PREFIX: &str = "util-";

/// The id that stands for the temporary connection of a conference operation.
pub fn utility_id(operation: OperationId) -> String {
    operation.to_string().replacen("op-", UTILITY_PREFIX, 1)
}

/// The operation behind a utility id.
pub fn parse_utility_id(text: &str) -> Option<OperationId> {
    OperationId::parse(&format!("op-{}", text.strip_prefix(UTILITY_PREFIX)?))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ringbridge_media::command::CodecKind;
    use ringbridge_media::time::Instant;
    use ringbridge_shard::mailbox::Moved;
    use ringbridge_shard::sockets::SocketOptions;

    use super::*;
    use crate::config::PortRange;
    use crate::ports::PortPool;
    use crate::quota::QuotaConfig;

    const SLOTS: u32 = 100;

    fn pool() -> PortPool {
        PortPool::new(PortRange::new(29_200, 29_499).expect("a range"), [IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }

    fn quota() -> Quota {
        Quota::new(&QuotaConfig::default())
    }

    fn add(registry: &mut Registry, pool: &PortPool, shard: u8) -> ConnectionId {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (lease, _, _) = pool.take(ip, SocketOptions::default()).expect("ports");
        let negotiated = Negotiated::new(CodecKind::Pcmu, 101);
        let rtp = quota().try_take(Class::Rtp).expect("unlimited");
        let id = registry.add_connection(ShardId(shard), lease, negotiated, 46, rtp, None).expect("room").id;
        assert!(registry.connection(id).is_none(), "not known before it is confirmed");
        registry.confirm_connection(id);
        id
    }

    #[test]
    fn a_slot_is_used_again_last_and_under_a_new_generation() {
        let (mut registry, pool) = (Registry::new(1, SLOTS), pool());
        let first = add(&mut registry, &pool, 0);
        assert!(registry.remove_connection(first).is_some());
        assert!(registry.remove_connection(first).is_none());
        let mut last = first;
        for _ in 0..SLOTS {
            last = add(&mut registry, &pool, 0);
            assert!(registry.remove_connection(last).is_some());
        }
        assert_eq!(last.slot(), first.slot());
        assert_ne!(last, first);
        assert!(registry.connection(first).is_none());
        assert_eq!(pool.pairs_free(), pool.pairs_total());
    }

    fn begin(registry: &mut Registry, id: ConnectionId, to: u8) -> Result<Begun, MoveRefused> {
        registry.begin_move(Target::Connection(id), vec![id], ShardId(to), Instant::ZERO)
    }

    fn end(registry: &mut Registry, token: u64, shard: u8, connections: Vec<ConnectionId>) -> Vec<Target> {
        registry.end_move(Moved { token, shard: ShardId(shard), connections, conference: None, effect: None })
    }

    #[test]
    fn a_move_holds_a_guest_slot_where_the_connection_lives() {
        let (mut registry, pool) = (Registry::new(3, 2), pool());
        let id = add(&mut registry, &pool, 0);
        let (order, mut done) = begin(&mut registry, id, 1).expect("room");
        assert!(done.try_recv().is_err());
        assert_eq!(begin(&mut registry, id, 2).expect_err("it is on its way"), MoveRefused::Moving);
        assert_eq!(end(&mut registry, order.token, 1, vec![id]), []);
        assert!(matches!(done.try_recv(), Ok(Ok(moved)) if moved.connections == [id]));
        assert_eq!((registry.connections_on(ShardId(0)), registry.connections_on(ShardId(1))), (0, 1));
        // Half of that table is taken; the rest takes one more, and no third one.
        let other = add(&mut registry, &pool, 1);
        let third = add(&mut registry, &pool, 0);
        assert_eq!(begin(&mut registry, third, 1).expect_err("no room"), MoveRefused::Full(TableFull(ShardId(1))));
        // Back home it has its own slot, and the other one is free.
        let (order, _done) = begin(&mut registry, id, 0).expect("room");
        assert_eq!(order.slots, [(id, id.slot_number())]);
        assert_eq!(end(&mut registry, order.token, 0, vec![id]), []);
        let (order, _done) = begin(&mut registry, third, 1).expect("room");
        // It stays after all.
        assert_eq!(end(&mut registry, order.token, 0, vec![]), []);
        assert_eq!(registry.connection(third).map(|entry| entry.shard), Some(ShardId(0)));
        let (order, _done) = begin(&mut registry, id, 1).expect("room");
        registry.cancel_move(order.token);
        let (order, _done) = begin(&mut registry, id, 1).expect("room");
        assert_eq!(end(&mut registry, order.token, 1, vec![id]), []);
        let ended = registry.remove_connection(id).expect("known");
        assert_eq!(ended.forwarders, [ShardId(0)]);
        assert_eq!(end(&mut registry, order.token, 1, vec![id]), [Target::Connection(id)]);
        for id in [other, third] {
            assert!(registry.remove_connection(id).is_some());
        }
        assert_eq!(registry.connections_total(), 0);
    }

    #[test]
    fn a_conference_moves_with_its_members_or_not_at_all() {
        let (mut registry, pool) = (Registry::new(2, 3), pool());
        let room = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
        registry.confirm_conference(room);
        let members: Vec<_> = (0..3).map(|_| add(&mut registry, &pool, 0)).collect();
        for id in &members {
            let join = registry.add_member(room, *id, false, None);
            registry.confirm_member(room, join);
        }
        let local = add(&mut registry, &pool, 1);
        let target = Target::Conference(room);
        let full = registry.begin_move(target, members.clone(), ShardId(1), Instant::ZERO).expect_err("two slots");
        assert_eq!(full, MoveRefused::Full(TableFull(ShardId(1))));
        assert!(registry.remove_connection(local).is_some());
        let (order, _done) = registry.begin_move(target, members.clone(), ShardId(1), Instant::ZERO).expect("room");
        assert_eq!((order.slots.len(), order.room.is_some()), (3, true));
        let moved = Moved {
            token: order.token,
            shard: ShardId(1),
            connections: members.clone(),
            conference: Some(room),
            effect: None,
        };
        assert_eq!(registry.end_move(moved), []);
        assert_eq!(registry.conference(room).map(|entry| entry.shard), Some(ShardId(1)));
        // It is lost with the shard it lives on, not with its first home.
        assert!(registry.remove_shard(ShardId(0)).conferences.is_empty());
        let lost = registry.remove_shard(ShardId(1));
        assert_eq!((lost.conferences, lost.connections.len()), (vec![room], 3));
        assert!(lost.strays.contains(&(ShardId(0), target)));
    }

    #[test]
    fn a_lost_shard_takes_its_own_and_nothing_else() {
        let (mut registry, pool) = (Registry::new(2, SLOTS), pool());
        let stays = add(&mut registry, &pool, 1);
        let dies = add(&mut registry, &pool, 0);
        let on_its_way = add(&mut registry, &pool, 1);
        let (_order, mut done) = begin(&mut registry, on_its_way, 0).expect("room");
        let room = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
        registry.confirm_conference(room);
        let target = Target::Conference(room);
        let operation = registry.add_operation(ShardId(0), target, OperationKind::Play, None, Vec::new()).id;
        registry.confirm_operation(operation);
        let lost = registry.remove_shard(ShardId(0));
        let connections: Vec<_> = lost.connections.iter().map(|entry| entry.id).collect();
        assert_eq!(connections, [dies, on_its_way]);
        assert_eq!(lost.strays, [(ShardId(1), Target::Connection(on_its_way))]);
        assert!(matches!(done.try_recv(), Ok(Err(ShardId(0)))), "whoever waits is told");
        assert_eq!(lost.conferences, [room]);
        assert_eq!(lost.operations.len(), 1);
        assert!(registry.connection(stays).is_some() && registry.connection(dies).is_none());
        assert!(registry.conference(room).is_none() && registry.operation(operation).is_none());
        let again = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
        assert_ne!(again, room);
        assert_eq!(registry.connections_on(ShardId(0)), 0);
    }

    #[test]
    fn utility_ids_stand_for_operations() {
        let id = OperationId::new(ShardId(2), 0xab, 3);
        assert_eq!(utility_id(id), "util-2-ab-3");
        assert_eq!(parse_utility_id("util-2-ab-3"), Some(id));
        assert_eq!(parse_utility_id("op-2-ab-3"), None);
        assert_eq!(parse_utility_id("conn-2-ab-3"), None);
    }

    #[test]
    fn a_conference_in_parts_is_over_when_its_last_party_has_left() {
        let (mut registry, pool) = (Registry::new(2, 8), pool());
        let room = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
        assert!(registry.add_part(room, ShardId(1)).is_ok());
        registry.confirm_conference(room);
        let members: Vec<_> = (0..4).map(|n| add(&mut registry, &pool, n % 2)).collect();
        let place = |registry: &Registry, id| {
            let entry = registry.conference(room).expect("known");
            registry.part_for(entry, Some(id), |_| true)
        };
        // Where one is already, as long as the parts are equal; then where fewer are.
        assert_eq!(place(&registry, members[0]), ShardId(0));
        assert_eq!(place(&registry, members[1]), ShardId(1));
        let joins: Vec<_> = members.iter().map(|id| registry.add_member(room, *id, *id == members[3], None)).collect();
        registry.remove_member(room, joins[1]);
        assert_eq!(place(&registry, members[0]), ShardId(1));
        assert_eq!(registry.take_vacated(), [], "nobody has left so far");
        for join in [joins[0], joins[2], joins[3]] {
            registry.confirm_member(room, join);
        }
        registry.member_left(room, members[0]);
        assert_eq!(registry.take_vacated(), [], "one is left");
        let late = registry.add_member(room, members[1], false, None);
        assert!(registry.remove_connection(members[2]).is_some());
        assert_eq!(registry.take_vacated(), [], "one is about to join");
        registry.remove_member(room, late);
        // Monitors don't keep it.
        assert_eq!(registry.take_vacated(), [(room, vec![ShardId(0), ShardId(1)])]);
        registry.member_left(room, members[3]);
        assert_eq!(registry.take_vacated(), [], "it is told once");
        let lost = registry.lose_parts(ShardId(1));
        assert_eq!(lost.bereft, [(room, vec![ShardId(0)])]);
        assert!(registry.remove_conference(room).is_some());
        assert_eq!(pool.pairs_free(), pool.pairs_total() - 3);
    }
}
