//! Two engines, their phones, a bad network, strangers, and a storm of commands.

mod end;
mod operations;
mod packets;
mod relocation;
mod storm;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringbridge_media::command::{Command, Request, Target};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{CommandError, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{Port, PortAction};
use ringbridge_media::samples::RecordQueue;
use ringbridge_media::time::Instant;
use ringbridge_wire::rtp::RtpPacket;

use super::checks::{Ledger, Streams};
use super::dice::Dice;
use super::network::{Network, Weather};
use super::parts::Exchange;
use super::phone::Phone;

pub(crate) const SHARDS: u8 = 2;
/// Slots for those that come from another shard.
const GUEST_SLOTS: u32 = 1_000;
/// As many slots of conferences are for those of the shard itself.
pub(crate) const GUEST_ROOMS: u32 = 1_000;
const STORM: Duration = Duration::from_secs(8);

/// What a simulation came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Hash of everything that left the engines, with its time.
    pub trace: u64,
    /// Datagrams that arrived.
    pub arrived: u64,
    /// Packets that left, relayed or our own.
    pub left: u64,
    /// Commands that succeeded.
    pub succeeded: u64,
    /// Commands that failed.
    pub failed: u64,
    /// Connections, relays and conferences that moved to another shard.
    pub moved: u64,
    /// Those of them that were more than one connection.
    pub moved_together: u64,
    /// Sums of parts of conferences that arrived on another shard.
    pub exchanged: u64,
    /// Windows of 10 ms in which a phone heard somebody.
    pub loud_windows: u64,
}

/// One shard as the simulation sees it.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    /// Who has which slot.
    slots: BTreeMap<u32, ConnectionId>,
    connected: BTreeMap<u32, SocketAddr>,
    packets_out: u64,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) now: Instant,
    pub(crate) shards: Vec<Shard>,
    pub(crate) exchange: Exchange,
    network: Network,
    phones: BTreeMap<ConnectionId, Phone>,
    streams: Streams,
    pub(crate) ledger: Ledger,
    /// Every id ever used, so that stale ones come up.
    connections: Vec<ConnectionId>,
    conferences: Vec<ConferenceId>,
    operations: Vec<(OperationId, Target)>,
    queues: Vec<Arc<RecordQueue>>,
    generation: u32,
    pub(crate) guest_rooms: u32,
    connects: bool,
    answers: Vec<(u64, bool)>,
    token: u64,
    report: Report,
    line: String,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let now = Instant::from_millis(dice.below(5_000));
        let weather = Weather::of(&mut dice);
        let network = Network::new(Dice::new(dice.next()), weather);
        let shard = |n, seed| Shard {
            engine: Engine::new(ShardId(n), seed, now),
            slots: BTreeMap::new(),
            connected: BTreeMap::new(),
            packets_out: 0,
        };
        let shards = (0..SHARDS).map(|n| shard(n, dice.next())).collect();
        let connects = dice.one_in(2);
        let exchange = Exchange::new(Dice::new(dice.next()));
        Self {
            exchange,
            dice,
            now,
            shards,
            network,
            phones: BTreeMap::new(),
            streams: Streams::default(),
            ledger: Ledger::default(),
            connections: Vec::new(),
            conferences: Vec::new(),
            operations: Vec::new(),
            queues: Vec::new(),
            generation: 0,
            guest_rooms: 0,
            connects,
            answers: Vec::new(),
            token: 0,
            report: Report { trace: 0xcbf2_9ce4_8422_2325, ..Report::default() },
            line: String::new(),
        }
    }

    /// Storms, then clears up, and expects that nothing is left.
    pub(crate) fn run(mut self) -> Report {
        let end = self.now + STORM;
        let mut next_command = self.now;
        while self.now < end {
            let next = self.next_at().map_or(next_command, |at| at.min(next_command));
            // Now and then a shard is held up, and everything comes at once.
            let stall = if self.dice.one_in(2_000) { self.dice.below(700_000) } else { self.dice.below(500) };
            self.now = self.now.max(next) + Duration::from_micros(stall);
            self.turn();
            if self.now >= next_command {
                self.storm();
                self.check();
                next_command = self.now + Duration::from_micros(self.dice.below(40_000));
            }
        }
        self.clear_up();
        self.report
    }

    fn next_at(&self) -> Option<Instant> {
        let phones = self.phones.values().map(|phone| phone.next_at);
        let clocks = self.shards.iter().filter_map(|shard| shard.engine.poll_timeout());
        phones.chain(clocks).chain(self.network.next_at()).chain(self.exchange.next_at()).min()
    }

    /// One turn of everything: phones send, datagrams arrive, clocks tick.
    fn turn(&mut self) {
        let due: Vec<_> =
            self.phones.values().filter(|phone| phone.next_at <= self.now).map(|phone| phone.connection).collect();
        for id in due {
            self.speak(id);
        }
        while let Some(datagram) = self.network.receive(self.now) {
            self.arrive(&datagram);
        }
        self.exchange();
        for shard in 0..self.shards.len() {
            while self.shards[shard].engine.poll_timeout().is_some_and(|due| due <= self.now) {
                self.shards[shard].engine.handle_timeout(self.now);
                self.drain(shard);
            }
        }
    }

    pub(crate) fn drain(&mut self, shard: usize) {
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        while let Some(transmit) = self.shards[shard].engine.poll_transmit(&mut slot) {
            let id = self.shards[shard].slots[&transmit.port.slot];
            if transmit.port.rtcp {
                self.streams.reported(id, &slot[..transmit.len]);
            } else {
                let packet = RtpPacket::parse(&slot[..transmit.len]).expect("a packet of our own");
                self.streams.made(id, &packet);
                self.listen(id, &packet);
            }
            self.leave(shard, transmit, &slot);
        }
        while let Some(action) = self.shards[shard].engine.poll_port_action() {
            self.act(shard, action);
        }
        while let Some(event) = self.shards[shard].engine.poll_event() {
            self.learn(event);
        }
        while let Some(partial) = self.shards[shard].engine.poll_partial() {
            if let Some(lost) = self.exchange.send(self.now, partial) {
                self.shards[shard].engine.drop_partial(lost);
            }
        }
        assert_eq!(self.shards[shard].engine.events_waiting(), 0);
        for queue in &self.queues {
            while queue.chunks.pop().is_some() {}
        }
    }

    fn act(&mut self, shard: usize, action: PortAction) {
        let here = &mut self.shards[shard];
        match action {
            PortAction::Connect(port, address) if self.connects => {
                here.connected.insert(port.index(), address);
                here.engine.port_connected(port);
            }
            PortAction::Connect(..) => {}
            PortAction::Disconnect(port) => {
                assert!(
                    here.connected.remove(&port.index()).is_some(),
                    "a socket is disconnected that was not connected"
                );
            }
            PortAction::Release { slot } => {
                assert!(here.slots.remove(&slot).is_some(), "a slot is released that was not in use");
                here.connected.remove(&Port::rtp(slot).index());
            }
        }
        self.line.clear();
        let _ = write!(self.line, "{action:?}");
        let line = std::mem::take(&mut self.line);
        self.note(line.as_bytes());
        self.line = line;
    }

    fn learn(&mut self, event: Event) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        match event {
            Event::Answer { token, result } => {
                let _ = write!(line, "{token} {result:?}");
                if let Ok(answer) = &result {
                    self.ledger.answered(answer);
                }
                self.answers.push((token, result.is_ok()));
                match result {
                    Ok(_) => self.report.succeeded += 1,
                    Err(CommandError::ShardFailed) => panic!("a shard fails by itself"),
                    Err(_) => self.report.failed += 1,
                }
            }
            Event::OperationEnded { id, target, kind, condition, elapsed_ms, digits, playlist } => {
                let playlist = playlist.is_some();
                let _ = write!(line, "{id} {target:?} {kind:?} {condition:?} {elapsed_ms} {digits:?} {playlist}");
                self.ledger.operation_ended(id);
            }
            Event::ConnectionEnded { id, reason, .. } => {
                let _ = write!(line, "{event:?}");
                self.ledger.connection_ended(self.now, id, reason);
                self.phones.remove(&id);
            }
            Event::ConferenceEnded { id, .. } => {
                let _ = write!(line, "{event:?}");
                self.ledger.conference_ended(id);
            }
            Event::ConnectionLearned { id, remote } => {
                let _ = write!(line, "{event:?}");
                assert_ne!(remote.ip(), SocketAddr::from(([203, 0, 113, 9], 9)).ip(), "{id} learned a stranger");
            }
            Event::ConnectionTimeout { .. }
            | Event::TalkStarted { .. }
            | Event::TalkStopped { .. }
            | Event::ActiveSpeaker { .. }
            | Event::Digit { .. } => {
                let _ = write!(line, "{event:?}");
            }
        }
        self.note(line.as_bytes());
        self.line = line;
    }

    /// Carries a command out on the shard where it belongs; whether it succeeded. It has one answer.
    fn command(&mut self, command: Command) -> bool {
        let shard = command
            .connection()
            .and_then(|id| Some(self.place_of(id)?.0))
            .or_else(|| self.room_place_of(command.conference()?))
            .unwrap_or_else(|| usize::from(home_of(&command).0 % SHARDS));
        if let Command::DeleteConference { id, keep_connections } = command {
            for other in self.others_of(id, shard) {
                // It may have ended.
                self.command_on(other, Command::DeleteConference { id, keep_connections });
            }
        }
        self.command_on(shard, command)
    }

    /// Carries a command out on a shard; whether it succeeded. It has one answer.
    pub(crate) fn command_on(&mut self, shard: usize, command: Command) -> bool {
        let refused = self.needs_remote(&command);
        let new = if let Command::CreateConnection { id, .. } = &command { Some(*id) } else { None };
        self.token += 1;
        let token = self.token;
        self.shards[shard].engine.handle_command(self.now, Request { token, received: self.now, command });
        if let Some(id) = new {
            self.shards[shard].slots.insert(id.slot_number(), id);
        }
        self.drain(shard);
        let answers = std::mem::take(&mut self.answers);
        assert!(matches!(answers[..], [(answered, _)] if answered == token), "one answer to {token}: {answers:?}");
        assert!(!(refused && answers[0].1), "{token}: a connection is reserved only");
        answers[0].1
    }

    /// Where a connection lives: shard and slot.
    fn place_of(&self, id: ConnectionId) -> Option<(usize, u32)> {
        self.shards.iter().enumerate().find_map(|(shard, here)| {
            let slot = here.slots.iter().find_map(|(slot, owner)| (*owner == id).then_some(*slot))?;
            Some((shard, slot))
        })
    }

    /// On which shard a conference lives.
    fn room_place_of(&self, id: ConferenceId) -> Option<usize> {
        self.shards.iter().position(|shard| shard.engine.group_of(Target::Conference(id)).is_some())
    }

    /// FNV-1a.
    fn note(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.report.trace = (self.report.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The shard that the ids of a command name.
fn home_of(command: &Command) -> ShardId {
    if let Some(id) = command.connection() {
        return id.shard();
    }
    if let Command::CreateConference { id, .. }
    | Command::DeleteConference { id, .. }
    | Command::PromoteConference { id }
    | Command::InspectConference { id } = command
    {
        return id.shard();
    }
    if let Command::StartOperation { target: Target::Conference(id), .. }
    | Command::StopOperation { target: Target::Conference(id), .. }
    | Command::AdjustPlay { target: Target::Conference(id), .. }
    | Command::SendDigits { target: Target::Conference(id), .. } = command
    {
        return id.shard();
    }
    ShardId(0)
}
