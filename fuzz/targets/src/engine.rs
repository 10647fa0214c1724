//! A whole engine under a script: commands, datagrams, and time that passes.
//!
//! The script plays control plane, I/O and endpoints, and keeps what the engine asks of them: slots are free when they
//! are taken, every `poll_*` is drained after every `handle_*`. All else is its own choice, and hostile.

mod commands;
mod datagrams;
mod ledger;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringbridge_media::command::{Command, Request};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{DropReason, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, PortAction, Transmit};
use ringbridge_media::samples::RecordQueue;
use ringbridge_media::time::Instant;
use ringbridge_wire::rtcp::parse_compound;
use ringbridge_wire::rtp::RtpPacket;

use self::datagrams::Phone;
use self::ledger::{Ledger, Streams};
use crate::script::Script;

/// Slots that connections are created in. As many phones as that are enough for every way of wiring them.
const SLOTS: u32 = 6;
/// Slots that connections move to.
const GUEST_SLOTS: u32 = 100;
/// All of them.
const ENGINE_SLOTS: u32 = 128;
/// Slots that conferences are created in; they move to those behind.
const CONFERENCES: u32 = 3;
const ENGINE_CONFERENCES: u32 = 6;
const SHARD: ShardId = ShardId(1);
/// What has a limit of at most so many milliseconds is waited for at the end.
const LIMIT_MS: u32 = 500;
/// Steps of one script. libFuzzer's inputs are shorter; a longer one tells nothing more.
const STEPS_MAX: usize = 2_000;
/// How often timers may fire until the engine has caught up.
const TIMEOUTS_MAX: usize = 100_000;

/// Runs the script, ends everything, and expects that nothing is left.
pub fn engine(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut world = World::new(&mut script);
    world.set_scene(&mut script);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        world.step(&mut script);
        world.check();
    }
    world.clear_up();
}

struct World {
    engine: Engine,
    now: Instant,
    /// Who has which slot.
    slots: BTreeMap<u32, ConnectionId>,
    /// Which conference has which.
    rooms: BTreeMap<u32, ConferenceId>,
    connected: BTreeMap<u32, SocketAddr>,
    /// Whether sockets are connected when the engine asks for it.
    connects: bool,
    phones: BTreeMap<ConnectionId, Phone>,
    ledger: Ledger,
    streams: Streams,
    /// Every id ever used, so that stale ones come up.
    connections: Vec<ConnectionId>,
    conferences: Vec<ConferenceId>,
    operations: Vec<OperationId>,
    queues: Vec<Arc<RecordQueue>>,
    generation: u32,
    token: u64,
    answers: Vec<(u64, bool)>,
    packets_out: u64,
    /// Tells what happens on stderr.
    traces: bool,
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Instant::from_millis(u64::from(script.word()));
        Self {
            engine: Engine::with_slots(
                SHARD,
                u64::from(script.byte()),
                now,
                ENGINE_SLOTS as usize,
                ENGINE_CONFERENCES as usize,
            ),
            now,
            slots: BTreeMap::new(),
            rooms: BTreeMap::new(),
            connected: BTreeMap::new(),
            connects: script.flag(),
            phones: BTreeMap::new(),
            ledger: Ledger::default(),
            streams: Streams::default(),
            connections: Vec::new(),
            conferences: Vec::new(),
            operations: Vec::new(),
            queues: Vec::new(),
            generation: 0,
            token: 0,
            answers: Vec::new(),
            packets_out: 0,
            traces: std::env::var_os("RINGBRIDGE_FUZZ_TRACE").is_some(),
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(40) {
            0..=2 => self.create_connection(script),
            3 => self.create_conference(script),
            4..=6 => self.join(script),
            7..=9 => self.start_operation(script),
            10..=19 => self.command_of_many(script),
            20..=23 => self.talk(script),
            24..=27 => self.send_rtp(script),
            28..=30 => self.send_event(script),
            31 | 32 => self.send_rtcp(script),
            33 => self.send_noise(script),
            34 => self.relocate(script),
            35 => self.lose(script),
            36..=38 => {
                let ms = u64::from(script.byte());
                self.pass(Duration::from_millis(ms));
            }
            _ => {
                // Up to a minute, perhaps all at once, as if the shard had been held up.
                let span = Duration::from_micros(u64::from(script.word()) * 1_000 + u64::from(script.byte()));
                if script.flag() {
                    self.now = self.now + span;
                    self.catch_up();
                } else {
                    self.pass(span.min(Duration::from_secs(8)));
                }
            }
        }
    }

    // Time

    /// Lets time pass, and whatever is due happens when it is.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..TIMEOUTS_MAX {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        panic!("timers fire without end at {:?}", self.now);
    }

    /// Does what has become due.
    fn catch_up(&mut self) {
        self.pass(Duration::ZERO);
    }

    // What goes in

    /// Carries a command out; whether it succeeded. It has one answer.
    fn command(&mut self, command: Command) -> bool {
        self.catch_up();
        self.token += 1;
        let token = self.token;
        if self.traces {
            eprintln!("{:?} {token} {command:?}", self.now);
        }
        self.engine.handle_command(self.now, Request { token, received: self.now, command });
        self.drain();
        let answers = std::mem::take(&mut self.answers);
        assert!(matches!(answers[..], [(answered, _)] if answered == token), "one answer to {token}: {answers:?}");
        answers[0].1
    }

    fn deliver(&mut self, port: Port, source: SocketAddr, truncated: bool, bytes: &[u8]) {
        let connected = self.connected.get(&port.index()).copied();
        if connected.is_some_and(|peer| peer != source) {
            return;
        }
        let bytes = &bytes[..bytes.len().min(DATAGRAM_BYTES_MAX)];
        let meta = DatagramMeta { port, source: if connected.is_some() { None } else { Some(source) }, truncated };
        let mut buffer = bytes.to_vec();
        let before = *self.engine.totals();
        let disposition = self.engine.handle_datagram(self.now, &meta, &mut buffer);
        if self.traces {
            eprintln!("{:?} {meta:?} {bytes:02x?}: {disposition:?}", self.now);
        }
        let after = *self.engine.totals();
        let (came, went) = (after.packets_in - before.packets_in, after.packets_out - before.packets_out);
        let dropped = after.drops.total() - before.drops.total();
        match disposition {
            Disposition::Forward(transmit) => {
                assert_eq!((came, went, dropped), (1, 1, 0), "taken in and sent");
                assert_eq!(transmit.len, bytes.len());
                self.check_relayed(transmit, bytes, &buffer);
                self.leave(transmit, &buffer);
            }
            Disposition::Consumed => {
                assert!(came <= 1 && dropped <= 1 && came + dropped >= 1 && went == 0, "{came}, {went}, {dropped}");
                assert!(buffer == bytes, "what is consumed is left alone");
            }
        }
        self.drain();
    }

    fn check_relayed(&mut self, transmit: Transmit, came: &[u8], goes: &[u8]) {
        let muxed = came.get(1).is_some_and(|second| (192..=223).contains(second));
        if transmit.port.rtcp || muxed {
            assert!(came == goes, "RTCP is relayed as it is");
            return;
        }
        let to = self.slots[&transmit.port.slot];
        let packet = RtpPacket::parse(goes).expect("what is relayed is a packet");
        // The duration of a telephone-event is counted by another clock behind a relay that transcodes.
        let duration = goes.len() - packet.payload().len() + 2;
        let same = |range: std::ops::Range<usize>| came.get(range.clone()) == goes.get(range);
        let but_for_duration = packet.payload().len() >= 4 && same(12..duration) && same(duration + 2..goes.len());
        assert!(came[12..] == goes[12..] || but_for_duration, "at most the header's own fields differ");
        assert_eq!(came[0], goes[0], "nor is there more in the header");
        if came == goes {
            return;
        }
        self.streams.continued(to, &packet);
    }

    // What comes out

    /// A packet leaves by a port that is open.
    fn leave(&mut self, transmit: Transmit, bytes: &[u8]) {
        let Transmit { port, target, len } = transmit;
        assert!(len <= bytes.len() && len > 0, "{len} bytes");
        assert!(self.slots.contains_key(&port.slot), "a packet leaves by a port that is closed");
        let connected = self.connected.get(&port.index()).copied();
        assert!(target.or(connected).is_some(), "a packet without a destination");
        self.packets_out += 1;
    }

    fn drain(&mut self) {
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        while let Some(transmit) = self.engine.poll_transmit(&mut slot) {
            let bytes = &slot[..transmit.len];
            let id = self.slots[&transmit.port.slot];
            if (192..=223).contains(&bytes[1]) {
                assert!(parse_compound(bytes).is_ok(), "RTCP of our own");
            } else {
                assert!(!transmit.port.rtcp, "RTP by the port for RTCP");
                self.streams.made(id, &RtpPacket::parse(bytes).expect("RTP of our own"));
            }
            self.leave(transmit, &slot);
        }
        while let Some(action) = self.engine.poll_port_action() {
            self.act(action);
        }
        while let Some(event) = self.engine.poll_event() {
            self.learn(event);
        }
        assert_eq!(self.engine.events_waiting(), 0);
        for queue in &self.queues {
            while queue.chunks.pop().is_some() {}
        }
    }

    fn act(&mut self, action: PortAction) {
        match action {
            PortAction::Connect(port, address) if self.connects => {
                self.connected.insert(port.index(), address);
                self.engine.port_connected(port);
            }
            PortAction::Connect(..) => {}
            PortAction::Disconnect(port) => {
                assert!(self.connected.remove(&port.index()).is_some(), "a socket was not connected");
            }
            PortAction::Release { slot } => {
                assert!(self.slots.remove(&slot).is_some(), "a slot was not in use");
                self.connected.remove(&Port::rtp(slot).index());
            }
        }
    }

    fn learn(&mut self, event: Event) {
        match event {
            Event::Answer { token, result } => {
                if let Ok(answer) = &result {
                    self.ledger.answered(answer);
                }
                if self.traces {
                    eprintln!("{:?} {token} {result:?}", self.now);
                }
                self.answers.push((token, result.is_ok()));
            }
            Event::OperationEnded { id, .. } => self.ledger.operation_ended(id),
            Event::ConnectionEnded { id, .. } => {
                self.ledger.connection_ended(id);
                self.phones.remove(&id);
            }
            Event::ConferenceEnded { id, .. } => {
                self.ledger.conference_ended(id);
                self.rooms.retain(|_, open| *open != id);
            }
            Event::ConnectionLearned { id, .. } | Event::ConnectionTimeout { id } => self.ledger.lives(id),
            Event::TalkStarted { conference, .. }
            | Event::TalkStopped { conference, .. }
            | Event::ActiveSpeaker { conference, .. } => {
                self.ledger.is_open(conference);
            }
            Event::Digit { digit, .. } => assert!(b"0123456789*#ABCD".contains(&digit)),
        }
    }

    // What has to hold

    /// What the engine says of itself is what was seen of it.
    fn check(&self) {
        let totals = self.engine.totals();
        assert_eq!(totals.connections, self.slots.len() as u64);
        assert_eq!(totals.packets_out, self.packets_out, "packets that left");
        self.ledger.check(totals);
    }

    fn clear_up(&mut self) {
        if !self.ledger.timed().is_empty() {
            // Some frames more, as a clock may begin late.
            self.pass(Duration::from_millis(u64::from(LIMIT_MS) + 100));
            assert!(self.ledger.timed().is_empty(), "past their limits: {:?}", self.ledger.timed());
        }
        for id in self.ledger.conferences() {
            assert!(self.command(Command::DeleteConference { id, keep_connections: true }));
        }
        for id in self.ledger.connections() {
            assert!(self.command(Command::DeleteConnection { id }));
        }
        self.check();
        self.ledger.check_empty();
        assert!(self.slots.is_empty(), "slots are given back");
        // Deadlines that nobody waits for pass, and there are no others.
        self.pass(Duration::from_secs(70));
        assert_eq!(self.engine.poll_timeout(), None);
        assert_eq!(self.engine.totals().packets_out, self.packets_out);
    }

    /// The kernel has not taken a packet, or has lost some that came.
    fn lose(&mut self, script: &mut Script<'_>) {
        let port = self.any_port(script);
        let reason = script.pick(&[DropReason::Truncated, DropReason::ForeignSource, DropReason::NotRtp]);
        self.engine.count_drop(port, reason, u64::from(script.byte()));
        self.drain();
    }

    fn any_port(&self, script: &mut Script<'_>) -> Port {
        let slot = match script.below(16) {
            0 => script.long() >> 8,
            n => self.slots.keys().copied().nth(usize::from(n) % self.slots.len().max(1)).unwrap_or_default(),
        };
        Port { slot, rtcp: script.below(4) == 0 }
    }
}
