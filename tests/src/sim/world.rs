//! Two engines, their phones, a bad network, strangers, and a storm of commands.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringbridge_codec::g711;
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, DigitSource, Direction, OperationSpec,
    ParticipantChange, ParticipantSpec, PlayAdjust, PlayChange, Rate, Request, Role, StopConditions, Target, ToneSpec,
    VolumeToggle,
};
use ringbridge_media::digits::{DigitSet, Digits};
use ringbridge_media::engine::{Engine, Totals};
use ringbridge_media::event::{Answer, CommandError, DropReason, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, PortAction, Transmit};
use ringbridge_media::samples::{Playlist, Prompt, RecordQueue};
use ringbridge_media::time::Instant;
use ringbridge_wire::rtp::RtpPacket;

use super::checks::{Ledger, Streams};
use super::dice::Dice;
use super::network::{Datagram, Network, Weather};
use super::parts::Exchange;
use super::phone::{Phone, Voice};

pub(crate) const SHARDS: u8 = 2;
const CONNECTIONS_MAX: usize = 14;
const CONFERENCES_MAX: usize = 4;
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

/// Payload type of telephone-events.
const TELEPHONE_EVENT: u8 = 101;

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

    fn speak(&mut self, id: ConnectionId) {
        let Some(phone) = self.phones.get_mut(&id) else { return };
        while phone.next_at <= self.now {
            let at = phone.next_at;
            let bytes = phone.packet();
            self.network.send(at.max(self.now), Datagram { to: id, rtcp: false, source: phone.address, bytes });
        }
        let mut extra = |rtcp, source, bytes| self.network.send(self.now, Datagram { to: id, rtcp, source, bytes });
        match self.dice.below(400) {
            0 => phone.talks = !phone.talks,
            1 => phone.next_at = self.now + Duration::from_millis(self.dice.below(1_500)),
            2 => phone.restart(0x100 + u32::try_from(self.dice.below(1 << 30)).expect("30 bits")),
            // A NAT gives it another port.
            3 if self.dice.one_in(4) => phone.address.set_port(phone.address.port() ^ 1),
            4..8 => {
                let mut source = phone.address;
                source.set_port(source.port() + 1);
                extra(true, source, vec![0x80, 201, 0, 1, 0, 0, 0, 7]);
            }
            8..12 => extra(false, phone.address, phone.wrap(101, &[5, 0x80 | 10, 1, 0x40])),
            // A digit whose end never comes.
            20..22 => extra(false, phone.address, phone.wrap(101, &[11, 10, 0, 0xa0])),
            // A stranger, with noise or with a guess.
            12..20 => {
                let stranger = SocketAddr::from(([203, 0, 113, 9], 9));
                let mut bytes = phone.wrap(0, &[0x55; 40]);
                if self.dice.one_in(2) {
                    let len = self.dice.index(bytes.len() + 1);
                    bytes.truncate(len);
                    if let Some(byte) = bytes.first_mut() {
                        *byte = u8::try_from(self.dice.below(256)).expect("a byte");
                    }
                }
                extra(self.dice.one_in(4), stranger, bytes);
            }
            _ => {}
        }
    }

    fn arrive(&mut self, datagram: &Datagram) {
        // What is under way to a port that is closed, or that somebody else has by now, comes to nobody.
        let Some((shard, slot)) = self.place_of(datagram.to) else { return };
        let port = if datagram.rtcp { Port::rtcp(slot) } else { Port::rtp(slot) };
        let connected = self.shards[shard].connected.get(&port.index()).copied();
        if connected.is_some_and(|peer| peer != datagram.source) {
            return;
        }
        let source = if connected.is_some() { None } else { Some(datagram.source) };
        let meta = DatagramMeta { port, source, truncated: self.dice.one_in(5_000) };
        let mut buffer = datagram.bytes.clone();
        self.report.arrived += 1;
        let before = *self.shards[shard].engine.totals();
        let disposition = self.shards[shard].engine.handle_datagram(self.now, &meta, &mut buffer);
        let after = *self.shards[shard].engine.totals();
        check_counts(&before, &after, disposition);
        if let Disposition::Forward(transmit) = disposition {
            self.check_relayed(shard, transmit, &datagram.bytes, &buffer);
            self.leave(shard, transmit, &buffer);
        } else {
            assert!(buffer == datagram.bytes, "what is consumed is left alone");
        }
        self.drain(shard);
    }

    fn check_relayed(&mut self, shard: usize, transmit: Transmit, came: &[u8], goes: &[u8]) {
        assert_eq!(transmit.len, came.len());
        if transmit.port.rtcp {
            assert!(came == goes, "RTCP is relayed as it is");
            return;
        }
        let to = self.shards[shard].slots[&transmit.port.slot];
        let (before, after) = (RtpPacket::parse(came).expect("relayed"), RtpPacket::parse(goes).expect("relayed"));
        if self.streams.ssrc(to) == Some(after.ssrc().0) && after.payload_type() == TELEPHONE_EVENT {
            // Through a relay that transcodes its duration is counted by another clock.
            let starts = [before, after].map(|packet| packet.payload().get(..2));
            assert_eq!(starts[0], starts[1], "the same digit");
            self.streams.interjected(to, &after);
        } else if self.streams.ssrc(to) == Some(after.ssrc().0) {
            assert!(came[12..] == goes[12..] && came[0] == goes[0], "only our own header fields differ");
            assert_eq!(before.payload_type(), after.payload_type());
            self.streams.continued(to, &after);
        } else if before.ssrc() == after.ssrc() {
            assert!(came == goes, "a relay changes nothing");
        }
        if let Some(phone) = self.phones.get_mut(&to) {
            phone.ear.forget();
        }
    }

    /// A packet leaves; sometimes the kernel does not take it.
    fn leave(&mut self, shard: usize, transmit: Transmit, bytes: &[u8]) {
        let Transmit { port, target, len } = transmit;
        let owner = self.shards[shard].slots.get(&port.slot).copied();
        assert!(owner.is_some(), "a packet leaves by a port that is closed");
        assert!(owner.is_none_or(|id| !self.ledger.reserved.contains_key(&id)), "to one that is reserved only");
        let connected = self.shards[shard].connected.get(&port.index()).copied();
        let target = target.or(connected).expect("a packet has a destination");
        assert_ne!(target.ip(), SocketAddr::from(([203, 0, 113, 9], 9)).ip(), "a stranger is sent media");
        self.report.left += 1;
        self.shards[shard].packets_out += 1;
        let (now, place) = (self.now.as_nanos(), (shard as u64) << 32 | u64::from(port.index()));
        self.note(&now.to_le_bytes());
        self.note(&place.to_le_bytes());
        self.note(&bytes[..len]);
        if self.dice.one_in(1_000) {
            self.shards[shard].engine.count_drop(port, DropReason::SendBufferFull, 1);
            self.shards[shard].packets_out -= 1;
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

    fn listen(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let Some(phone) = self.phones.get_mut(&id) else { return };
        let mut samples = vec![0; packet.payload().len()];
        let l16 = Rate::ALL.into_iter().find(|rate| CodecKind::L16(*rate).payload_type() == packet.payload_type());
        match (packet.payload_type(), l16) {
            (_, Some(rate)) => {
                // Every sample of a ladder of 8 kHz: tones are far below half of that.
                let words = packet.payload().as_chunks::<2>().0.iter().map(|bytes| i16::from_be_bytes(*bytes));
                samples = words.step_by(rate.frame_samples() / Rate::Narrow.frame_samples()).collect();
            }
            (0, None) => g711::decode_ulaw(packet.payload(), &mut samples),
            (_, None) => g711::decode_alaw(packet.payload(), &mut samples),
        }
        let before = phone.ear.loud_windows;
        assert!(phone.ear.hear(&samples), "{id} hears itself");
        self.report.loud_windows += phone.ear.loud_windows - before;
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

    // The storm

    fn storm(&mut self) {
        match self.dice.below(33) {
            0..5 => self.create_connection(),
            5 | 6 => self.create_conference(),
            7..12 => {
                let (conference, connection) = (self.any_conference(), self.any_connection());
                let participant = ParticipantSpec {
                    muted: self.dice.one_in(5),
                    deaf: self.dice.one_in(5),
                    gain_db: self.gain(),
                    output_gain_db: if self.dice.one_in(5) { self.gain() } else { 0 },
                    agc: self.dice.one_in(5),
                    noise_suppression: self.dice.one_in(20),
                    role: self.role(),
                    tariff_tone: self.dice.one_in(5),
                };
                let shard = self.place_of(connection).map(|(shard, _)| shard);
                let joined = self.command(Command::JoinConference { conference, connection, participant });
                if let Some(shard) = shard.filter(|_| joined) {
                    self.cede(conference, participant.role, shard);
                }
            }
            12 | 13 => {
                let (conference, connection) = (self.any_conference(), self.any_connection());
                let change = ParticipantChange {
                    muted: self.dice.one_in(2).then(|| self.dice.one_in(2)),
                    deaf: self.dice.one_in(2).then(|| self.dice.one_in(3)),
                    gain_db: self.dice.one_in(2).then(|| self.gain()),
                    role: self.dice.one_in(3).then(|| self.role()),
                    tariff_tone: self.dice.one_in(4).then(|| self.dice.one_in(2)),
                    ..ParticipantChange::default()
                };
                let shard = self.place_of(connection).map(|(shard, _)| shard);
                let changed = self.command(Command::SetParticipant { conference, connection, change });
                if let (Some(role), Some(shard)) = (change.role, shard.filter(|_| changed)) {
                    self.cede(conference, role, shard);
                }
            }
            14 => {
                let (conference, connection) = (self.any_conference(), self.any_connection());
                self.command(Command::LeaveConference { conference, connection });
            }
            15 => {
                let id = self.any_connection();
                self.command(Command::DeleteConnection { id });
            }
            16 if self.dice.one_in(3) => {
                let (id, keep_connections) = (self.any_conference(), self.dice.one_in(2));
                self.command(Command::DeleteConference { id, keep_connections });
            }
            17 => {
                let (a, b) = (self.any_connection(), self.any_connection());
                let transcode = self.dice.one_in(2);
                self.command(Command::StartRelay { a, b, transcode });
            }
            18 if self.dice.one_in(2) => {
                let a = self.any_connection();
                self.command(Command::StopRelay { a });
            }
            19 | 20 | 24 | 25 => self.start_operation(),
            21 => self.stop_operation(),
            26 => {
                let digits = self.digits(6);
                let target = self.any_target();
                self.command(Command::SendDigits { target, digits });
            }
            27 => self.adjust(),
            22 => self.modify(),
            23 => self.complete(),
            28 => {
                let id = self.any_conference();
                self.command(Command::PromoteConference { id });
            }
            29 | 30 => {
                let id = self.any_conference();
                self.command(Command::InspectConference { id });
            }
            _ if self.dice.one_in(4) => self.disturb_parts(),
            _ => self.relocate(),
        }
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

    fn create_connection(&mut self) {
        if self.phones.len() >= CONNECTIONS_MAX {
            return;
        }
        let shard = self.dice.below(u64::from(SHARDS));
        let shard = u8::try_from(shard).expect("a shard");
        let slots = &self.shards[usize::from(shard)].slots;
        let slot = (0..GUEST_SLOTS).find(|slot| !slots.contains_key(slot)).expect("a free slot");
        self.generation += 1;
        let id = ConnectionId::new(ShardId(shard), slot, self.generation);
        let address = SocketAddr::from(([10, shard, 0, u8::try_from(slot).expect("few")], 4_000));
        let mut codec = *self.dice.pick(&[CodecKind::Pcmu, CodecKind::Pcma]);
        let l16 = CodecKind::L16(*self.dice.pick(&Rate::ALL));
        let mut tx_codec = *self.dice.pick(&[CodecKind::Pcmu, CodecKind::Pcmu, CodecKind::Pcma, l16]);
        let mut ptime_ms = *self.dice.pick(&[10, 20, 20, 30, 40]);
        if self.dice.one_in(4) {
            // Nobody can tell what is in it.
            (codec, tx_codec, ptime_ms) = (CodecKind::G729, CodecKind::G729, 20);
        }
        let reserve_ms = self.dice.one_in(4).then(|| 1 + u32::try_from(self.dice.below(1_500)).expect("small"));
        let spec = ConnectionSpec {
            // An address is always given before anybody is learned: without one it may be the stranger.
            remote: reserve_ms.is_none().then_some(address),
            reserve_ms,
            rx_codec: codec,
            rx_payload_type: codec.payload_type(),
            tx_codec,
            tx_payload_type: tx_codec.payload_type(),
            ptime_ms,
            digit_source: *self.dice.pick(&[DigitSource::Events, DigitSource::Events, DigitSource::Auto]),
            rtp_timeout_ms: self.dice.one_in(2).then(|| 50 + u32::try_from(self.dice.below(2_000)).expect("small")),
            ..ConnectionSpec::default()
        };
        let word = self.dice.next().to_le_bytes();
        let voice = Voice {
            ssrc: u32::from_le_bytes([word[0], word[1], word[2], word[3]]),
            sequence: u16::from_le_bytes([word[4], word[5]]),
            timestamp: u32::from_le_bytes([word[6], word[7], 0xff, 0xff]),
            drift_ppm: *self.dice.pick(&[-200, -50, 0, 50, 200]),
            tone: (0..)
                .find(|tone| self.phones.values().all(|phone| phone.tone != *tone))
                .expect("more tones than phones"),
        };
        self.connections.push(id);
        self.ledger.connections.insert(id);
        if let Some(ms) = reserve_ms {
            let until = self.now + Duration::from_millis(u64::from(ms));
            self.ledger.reserved.insert(id, until);
        }
        let next_at = self.now + Duration::from_micros(self.dice.below(300_000));
        self.phones.insert(id, Phone::new(id, address, codec, spec.ptime_ms, next_at, voice));
        assert!(self.command(Command::CreateConnection { id, spec: Box::new(spec) }));
    }

    fn create_conference(&mut self) {
        if self.ledger.conferences.len() >= CONFERENCES_MAX {
            return;
        }
        self.generation += 1;
        let shard = ShardId(u8::try_from(self.dice.below(u64::from(SHARDS))).expect("a shard"));
        let used: Vec<_> =
            self.ledger.conferences.iter().filter(|id| id.shard() == shard).map(|id| id.slot()).collect();
        let slot = (0..8u32).find(|slot| !used.contains(&(*slot as usize))).expect("a free slot");
        let id = ConferenceId::new(shard, slot, self.generation);
        self.conferences.push(id);
        self.ledger.conferences.insert(id);
        let (hairpin, tones) = (self.dice.one_in(3), self.dice.one_in(2));
        let participants_max = 1 + u32::try_from(self.dice.below(8)).expect("small");
        let rate = *self.dice.pick(&Rate::ALL);
        let loudest = self.dice.one_in(4).then(|| 1 + u16::try_from(self.dice.below(3)).expect("small"));
        let spec = ConferenceSpec { participants_max, hairpin, tones, rate, loudest, ..ConferenceSpec::default() };
        if !hairpin && self.dice.one_in(2) {
            self.create_parts(id, spec);
            return;
        }
        assert!(self.command(Command::CreateConference { id, spec }));
    }

    fn any_target(&mut self) -> Target {
        if self.dice.one_in(2) {
            Target::Connection(self.any_connection())
        } else {
            Target::Conference(self.any_conference())
        }
    }

    /// One digit or more, of those that phones press too.
    fn digits(&mut self, len_max: u64) -> Digits {
        (0..=self.dice.below(len_max)).map(|_| *self.dice.pick(b"15#")).collect()
    }

    fn conditions(&mut self) -> StopConditions {
        let mut ms = |below, n| self.dice.one_in(n).then(|| u32::try_from(self.dice.below(below)).expect("small"));
        let (max_time_ms, inter_digit_ms, silence_ms, nonsilence_ms, timeout_ms) =
            (ms(800, 2), ms(300, 4), ms(300, 5), ms(300, 5), ms(1_500, 4));
        StopConditions {
            max_time_ms,
            digits_max: self.dice.one_in(3).then(|| 1 + u8::try_from(self.dice.below(4)).expect("small")),
            digit: self.dice.one_in(5).then(|| DigitSet::parse("#")).flatten(),
            digit_list: self.dice.one_in(5).then(|| DigitSet::parse("1#")).flatten(),
            digit_pattern: self.dice.one_in(4).then(|| self.digits(3)),
            inter_digit_ms,
            silence_ms,
            nonsilence_ms,
            timeout_ms,
        }
    }

    fn adjust(&mut self) {
        let target = self.any_target();
        // Never much louder: see the prompts.
        let adjust = match self.dice.below(5) {
            0 => PlayAdjust::VolumeTo(*self.dice.pick(&[-10, -3, 0, 2])),
            1 => PlayAdjust::VolumeBy(*self.dice.pick(&[-20, -1, 0])),
            2 => PlayAdjust::SpeedTo(*self.dice.pick(&[-10, -2, 0, 3, 10])),
            3 => PlayAdjust::SpeedBy(*self.dice.pick(&[-20, -1, 0, 2])),
            _ => PlayAdjust::Toggle(*self.dice.pick(&[
                VolumeToggle::Switch,
                VolumeToggle::Origin,
                VolumeToggle::Last,
                VolumeToggle::Reset,
            ])),
        };
        let change = PlayChange { adjust, only_if_playing: self.dice.one_in(2) };
        self.command(Command::AdjustPlay { target, change });
    }

    fn start_operation(&mut self) {
        let target = self.any_target();
        self.generation += 1;
        let id = OperationId::new(ShardId(0), 0, self.generation);
        let until = self.conditions();
        let operation = match self.dice.below(9) {
            0..3 => {
                let prompts = (0..self.dice.below(3))
                    .map(|_| {
                        // A square wave so soft that eight of them are no voice.
                        let len = self.dice.index(12_000);
                        Prompt::Whole((0..len).map(|n| if n / 20 % 2 == 0 { 300 } else { -300 }).collect())
                    })
                    .collect();
                OperationSpec::Play {
                    playlist: Box::new(Playlist { prompts, rate: *self.dice.pick(&Rate::ALL) }),
                    volume: self.dice.one_in(4).then_some(-2),
                    speed: self.dice.one_in(4).then(|| *self.dice.pick(&[-5, 0, 4])),
                    isolate: self.dice.one_in(4),
                    until,
                }
            }
            3 | 4 => {
                let queue = Arc::new(RecordQueue::with_rate(*self.dice.pick(&Rate::ALL), 8));
                queue.failed.store(self.dice.one_in(10), Ordering::Release);
                self.queues.push(Arc::clone(&queue));
                OperationSpec::Record { queue, until }
            }
            5 => OperationSpec::Tone {
                tone: ToneSpec { first: (450, -35), second: self.dice.one_in(2).then_some((1_150, -40)) },
                duration_ms: self.dice.one_in(2).then(|| u32::try_from(self.dice.below(500)).expect("small")),
                isolate: self.dice.one_in(4),
                until,
            },
            6 => OperationSpec::GatherDigits { flush: self.dice.one_in(4), until },
            7 => OperationSpec::DetectSilence { until },
            _ => OperationSpec::DetectNonSilence { until },
        };
        self.ledger.operations.insert(id);
        self.operations.push((id, target));
        if !self.command(Command::StartOperation { id, target, operation: Box::new(operation) }) {
            // It never was.
            self.ledger.operation_ended(id);
        }
    }

    fn stop_operation(&mut self) {
        if self.operations.is_empty() {
            return;
        }
        let (id, target) = *self.dice.pick(&self.operations);
        let running = self.ledger.operations.contains(&id);
        let operation = self.dice.one_in(2).then_some(id);
        let stopped = self.command(Command::StopOperation { target, operation });
        if operation.is_some() {
            assert_eq!(stopped, running, "{id} runs or not, and can be stopped or not");
        }
        assert!(!self.ledger.operations.contains(&id));
    }

    fn modify(&mut self) {
        let id = self.any_connection();
        let codec = |dice: &mut Dice| {
            *dice.pick(&[(CodecKind::Pcmu, 0), (CodecKind::Pcma, 8), (CodecKind::Pcma, 8), (CodecKind::G729, 18)])
        };
        let change = ConnectionChange {
            tx_codec: self.dice.one_in(2).then(|| codec(&mut self.dice)),
            ptime_ms: self.dice.one_in(3).then(|| *self.dice.pick(&[10, 20, 25, 30, 40, 0])),
            direction: self.dice.one_in(2).then(|| {
                *self.dice.pick(&[Direction::SendRecv, Direction::SendRecv, Direction::RecvOnly, Direction::SendOnly])
            }),
            rtp_timeout_ms: self.dice.one_in(3).then(|| self.dice.one_in(2).then_some(700)),
            digit_source: self.dice.one_in(3).then(|| *self.dice.pick(&[DigitSource::Events, DigitSource::Auto])),
            // The address that the phone has by now.
            remote: self.dice.one_in(3).then(|| self.phones.get(&id).map(|phone| phone.address)).flatten(),
            ..ConnectionChange::default()
        };
        let completes = change.remote.is_some();
        if self.command(Command::ModifyConnection { id, change: Box::new(change) }) && completes {
            self.ledger.reserved.remove(&id);
        }
    }

    /// Gives a remote address to one that waits for it.
    fn complete(&mut self) {
        let Some((&id, _)) = self.ledger.reserved.first_key_value() else { return };
        let change = ConnectionChange { remote: Some(self.phones[&id].address), ..ConnectionChange::default() };
        assert!(self.command(Command::ModifyConnection { id, change: Box::new(change) }));
        self.ledger.reserved.remove(&id);
    }

    /// Whether a command has to be refused as a connection is reserved only.
    fn needs_remote(&self, command: &Command) -> bool {
        let needed = matches!(
            command,
            Command::StartRelay { .. }
                | Command::JoinConference { .. }
                | Command::StartOperation { .. }
                | Command::StopOperation { .. }
        );
        let peer = if let Command::StartRelay { b, .. } = command { Some(*b) } else { None };
        let mut ids = command.connection().into_iter().chain(peer);
        needed && ids.any(|id| self.ledger.reserved.contains_key(&id))
    }

    /// Moves a connection, the two of a relay or a whole conference to the next shard.
    fn relocate(&mut self) {
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

    // At the end of it

    fn clear_up(&mut self) {
        for id in self.ledger.conferences.iter().copied().collect::<Vec<_>>() {
            let keep_connections = self.dice.one_in(2);
            assert!(self.command(Command::DeleteConference { id, keep_connections }));
        }
        for id in self.ledger.connections.iter().copied().collect::<Vec<_>>() {
            assert!(self.command(Command::DeleteConnection { id }));
        }
        self.check();
        assert!(self.ledger.connections.is_empty() && self.ledger.conferences.is_empty());
        assert!(self.ledger.operations.is_empty(), "never ended: {:?}", self.ledger.operations);
        // Deadlines that nobody waits for pass, and there are no others.
        self.now = self.now + Duration::from_secs(10);
        self.exchange();
        self.report.exchanged = self.exchange.arrived;
        for shard in &mut self.shards {
            while shard.engine.poll_timeout().is_some_and(|due| due <= self.now) {
                shard.engine.handle_timeout(self.now);
            }
            assert_eq!(shard.engine.poll_timeout(), None);
            assert_eq!(shard.engine.events_waiting(), 0);
            assert!(shard.engine.poll_port_action().is_none());
            assert!(shard.engine.poll_partial().is_none());
            assert!(shard.slots.is_empty());
        }
    }

    /// What the engines say of themselves is what has been seen of them.
    fn check(&mut self) {
        let (mut connections, mut conferences, mut operations) = (0, 0, 0);
        for shard in &self.shards {
            let totals = shard.engine.totals();
            assert_eq!(totals.connections, shard.slots.len() as u64);
            assert_eq!(totals.packets_out, shard.packets_out, "packets that left");
            connections += totals.connections;
            conferences += totals.conferences;
            operations += totals.operations;
        }
        assert!(self.ledger.reserved.values().all(|until| until.ceil_to_millis() > self.now), "reserved for too long");
        assert_eq!(connections, self.ledger.connections.len() as u64);
        assert_eq!(conferences, self.ledger.conferences.len() as u64);
        assert_eq!(operations, self.ledger.operations.len() as u64);
    }

    fn any_connection(&mut self) -> ConnectionId {
        let live: Vec<_> = self.ledger.connections.iter().copied().collect();
        if live.is_empty() || self.dice.one_in(10) {
            self.generation += 1;
            let stranger = ConnectionId::new(ShardId(1), 3, self.generation);
            return if self.connections.is_empty() { stranger } else { *self.dice.pick(&self.connections) };
        }
        *self.dice.pick(&live)
    }

    fn any_conference(&mut self) -> ConferenceId {
        let live: Vec<_> = self.ledger.conferences.iter().copied().collect();
        if live.is_empty() || self.dice.one_in(10) {
            let stranger = ConferenceId::new(ShardId(1), 3, 0);
            return if self.conferences.is_empty() { stranger } else { *self.dice.pick(&self.conferences) };
        }
        *self.dice.pick(&live)
    }

    fn role(&mut self) -> Role {
        *self.dice.pick(&[Role::Party, Role::Party, Role::Party, Role::Monitor, Role::Coach, Role::Pupil])
    }

    fn gain(&mut self) -> i16 {
        *self.dice.pick(&[-3, 0, 0, 3])
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

/// Every datagram is taken in, or dropped, or both; what is forwarded is taken in and sent.
fn check_counts(before: &Totals, after: &Totals, disposition: Disposition) {
    let (came, went) = (after.packets_in - before.packets_in, after.packets_out - before.packets_out);
    let dropped = after.drops.total() - before.drops.total();
    match disposition {
        Disposition::Forward(_) => assert_eq!((came, went, dropped), (1, 1, 0)),
        Disposition::Consumed => {
            assert!(
                came <= 1 && dropped <= 1 && came + dropped >= 1 && went == 0,
                "{came} came, {went} went, {dropped} dropped"
            );
        }
    }
}
