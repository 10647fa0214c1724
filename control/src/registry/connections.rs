//! Connections, and the text that goes with a relay.

use std::net::IpAddr;
use std::rc::Rc;

use jiff::Timestamp;
use ringbridge_media::command::DigitSource;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};

use super::{Registry, TableFull, Transit};
use crate::gate::Gate;
use crate::methods::connection::Negotiated;
use crate::ports::PortLease;
use crate::quota::Units;

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
    pub(super) live: bool,
    /// The slot it lives in.
    pub(super) place: (ShardId, u32),
    /// Shards it has moved away from.
    pub(super) visited: Vec<ShardId>,
}

/// A connection taken out of the registry, and the shards that still forward for it.
#[derive(Debug)]
pub struct Ended {
    /// What was known.
    pub entry: ConnectionEntry,
    /// Shards to be told to forget it.
    pub forwarders: Vec<ShardId>,
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

impl Registry {
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

    /// Every connection that is known.
    pub fn connections(&self) -> impl Iterator<Item = &ConnectionEntry> {
        self.shards
            .iter()
            .flat_map(|tables| tables.connections.entries.iter().filter_map(Option::as_deref))
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

    pub(super) fn any_connection(&mut self, id: ConnectionId) -> Option<&mut ConnectionEntry> {
        let table = &mut self.shards.get_mut(usize::from(id.shard().0))?.connections;
        table.entries.get_mut(id.slot())?.as_deref_mut().filter(|entry| entry.id == id)
    }
}
