//! An engine on a bench: virtual time, virtual phones, and everything that leaves is kept.
//!
//! The bench drives the engine as a shard does: datagrams, then timeouts, then commands, and every `poll_*` is drained
//! after each `handle_*`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbridge_codec::{Encoder, EncoderSettings, g711};
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, OperationSpec, ParticipantChange,
    ParticipantSpec, Request, StopConditions, Target, ToneSpec,
};
use ringbridge_media::digits::{DigitSet, Digits};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{
    Answer, CommandError, Condition, ConferenceStatus, ConnectionStatus, DropReason, Effect, Event, StreamStamp,
};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, PortAction, Transmit};
use ringbridge_media::samples::{Playlist, Prompt, RecordQueue};
use ringbridge_media::time::Instant;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader, RtpPacket};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};
use ringbridge_wire::telephone_event::TelephoneEvent;

/// When every bench begins: not at zero, and not on a frame border.
pub(crate) const START: Instant = Instant::from_millis(1_003);
pub(crate) const SHARD: ShardId = ShardId(1);

/// A packet that left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) port: Port,
    pub(crate) target: Option<SocketAddr>,
    pub(crate) bytes: Vec<u8>,
}

/// An RTP packet that left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rtp {
    pub(crate) at: Instant,
    pub(crate) header: RtpHeader,
    pub(crate) payload: Vec<u8>,
}

/// What a phone says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Voice {
    /// Digital silence.
    Silence,
    /// Every sample the same.
    Constant(i16),
    /// A sine of this frequency and amplitude.
    Tone(f64, f64),
    /// White noise of this level in dBov.
    Noise(f64),
    /// A tone that rises and falls four times a second, of this amplitude, in noise of this level.
    Speech(f64, f64),
    /// Words of half a second: harmonics that glide, hisses between them, and some noise below.
    Words,
    /// The two tones of a digit.
    Digit(u8),
    /// Loud payload bytes that tell their own timestamp modulo 64 (µ-law).
    Stairs,
}

/// A virtual endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Phone {
    pub(crate) id: ConnectionId,
    pub(crate) slot: u32,
    pub(crate) address: SocketAddr,
    pub(crate) codec: CodecKind,
    pub(crate) ptime_ms: u32,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) voice: Voice,
    /// When it sends next; `None` is silent.
    pub(crate) next_at: Option<Instant>,
    /// How fast its clock is, in parts per million of ours.
    pub(crate) drift_ppm: i64,
    samples: u64,
    /// Made with the first packet of a codec that is not G.711.
    encoder: Option<Rc<RefCell<Encoder>>>,
}

impl Phone {
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        if ![CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G723, CodecKind::G729].contains(&self.codec) {
            return self.encoded_packet();
        }
        let len = (self.ptime_ms * 8) as usize;
        let mut payload = vec![0; len];
        let pcm: Vec<i16> = (self.samples..).take(len).map(|n| self.sample(n)).collect();
        match (self.voice, self.codec) {
            (Voice::Stairs, _) => {
                for (n, byte) in payload.iter_mut().enumerate() {
                    *byte = stair(self.timestamp.wrapping_add(n as u32));
                }
            }
            (_, CodecKind::Pcma) => g711::encode_alaw(&pcm, &mut payload),
            (_, _) => g711::encode_ulaw(&pcm, &mut payload),
        }
        let bytes = rtp(self.ssrc, self.sequence, self.timestamp, self.codec.payload_type(), &payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(len as u32);
        self.samples += len as u64;
        bytes
    }

    /// A packet of a codec that is not G.711: of tones or speech alone.
    fn encoded_packet(&mut self) -> Vec<u8> {
        let (codec, rate) = (self.codec, self.codec.rate());
        let len = (self.ptime_ms * rate.hz() / 1000) as usize;
        let pcm: Vec<i16> = (self.samples..)
            .take(len)
            .map(|n| match self.voice {
                Voice::Tone(hz, amplitude) => {
                    ((n as f64 * hz * std::f64::consts::TAU / f64::from(rate.hz())).sin() * amplitude).round() as i16
                }
                Voice::Words => words(n, rate.hz()),
                _ => 0,
            })
            .collect();
        let new = || Rc::new(RefCell::new(Encoder::new(codec, EncoderSettings::default()).unwrap()));
        let encoder = self.encoder.get_or_insert_with(new);
        let mut payload = [0; 1500];
        let bytes = encoder.borrow_mut().encode(&pcm, &mut payload).unwrap();
        let bytes = rtp(self.ssrc, self.sequence, self.timestamp, codec.payload_type(), &payload[..bytes]);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.ptime_ms * codec.clock_rate_hz() / 1000);
        self.samples += len as u64;
        bytes
    }

    fn sample(&self, n: u64) -> i16 {
        match self.voice {
            Voice::Silence | Voice::Stairs => 0,
            Voice::Constant(value) => value,
            Voice::Tone(hz, amplitude) => sine(n, hz, amplitude),
            Voice::Noise(dbov) => noise(n, dbov),
            Voice::Speech(amplitude, dbov) => {
                let syllable = (n as f64 * 4.0 * std::f64::consts::PI / 8000.0).sin().powi(2);
                sine(n, 230.0, amplitude * syllable) + noise(n, dbov)
            }
            Voice::Words => words(n, 8_000),
            Voice::Digit(digit) => {
                let place = b"123A456B789C*0#D".iter().position(|&other| other == digit).unwrap();
                let row = sine(n, [697.0, 770.0, 852.0, 941.0][place / 4], 4_000.0);
                row + sine(n, [1209.0, 1336.0, 1477.0, 1633.0][place % 4], 4_000.0)
            }
        }
    }

    fn interval(&self) -> Duration {
        let nanos = i64::from(self.ptime_ms) * 1_000_000;
        Duration::from_nanos((nanos - nanos * self.drift_ppm / 1_000_000) as u64)
    }
}

/// Sample `n` of a sine.
pub(crate) fn sine(n: u64, hz: f64, amplitude: f64) -> i16 {
    ((n as f64 * hz * std::f64::consts::TAU / 8000.0).sin() * amplitude).round() as i16
}

/// Sample `n` of noise of a level.
fn noise(n: u64, dbov: f64) -> i16 {
    // Evenly spread between its peaks, whose square is three times its power.
    let random = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let random = (random ^ random >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32;
    let peak = 32_768.0 * 10f64.powf(dbov / 20.0) * 3f64.sqrt();
    ((random as f64 / f64::from(u32::MAX) * 2.0 - 1.0) * peak).round() as i16
}

/// Sample `n` of [`Voice::Words`] at a rate.
fn words(n: u64, rate_hz: u32) -> i16 {
    use std::f64::consts::TAU;
    let t = n as f64 / f64::from(rate_hz);
    // Any bits that look like none.
    let noise = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n << 17).wrapping_mul(0xd134_2543_de82_ef95) >> 40;
    let noise = noise as f64 / f64::from(1 << 23) - 1.0;
    let phase = (150.0 * t + 3.0 * (2.0 * t).sin()) * TAU;
    let voiced: f64 = (1..20).map(|k| (f64::from(k) * phase).sin() / f64::from(k)).sum();
    let word = (t * TAU).sin();
    (word.max(0.0) * voiced * 5_000.0 + (-word - 0.7).max(0.0) * noise * 6_000.0 + noise * 20.0) as i16
}

/// The payload byte of [`Voice::Stairs`] at `timestamp`.
pub(crate) const fn stair(timestamp: u32) -> u8 {
    0x80 | (timestamp % 64) as u8
}

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    pub(crate) sent: Vec<Sent>,
    pub(crate) events: Vec<Event>,
    pub(crate) actions: Vec<PortAction>,
    pub(crate) phones: Vec<Phone>,
    /// Whether sockets are connected when the engine asks for it.
    pub(crate) connects: bool,
    connected: BTreeMap<u32, SocketAddr>,
    tokens: u64,
    next_slot: u32,
    next_room: u32,
    next_operation: u32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(SHARD, START)
    }

    pub(crate) fn on(shard: ShardId, now: Instant) -> Self {
        Self {
            engine: Engine::new(shard, 7, now),
            now,
            sent: Vec::new(),
            events: Vec::new(),
            actions: Vec::new(),
            phones: Vec::new(),
            connects: false,
            connected: BTreeMap::new(),
            tokens: 0,
            next_slot: 0,
            next_room: 0,
            next_operation: 0,
        }
    }

    // Commands

    /// Carries out a command that was received just now; its answer.
    pub(crate) fn call(&mut self, command: Command) -> Result<Answer, CommandError> {
        self.catch_up();
        self.tokens += 1;
        let token = self.tokens;
        self.engine.handle_command(self.now, Request { token, received: self.now, command });
        self.drain();
        let mut answers = Vec::new();
        let events = std::mem::take(&mut self.events);
        for event in events {
            match event {
                Event::Answer { token: answered, result } => {
                    assert_eq!(answered, token, "an answer to another command");
                    answers.push(result);
                }
                other => self.events.push(other),
            }
        }
        assert_eq!(answers.len(), 1, "every command has one answer");
        let answer = answers.remove(0);
        if let Ok(Answer::Effect(effect) | Answer::Deleted { effect, .. } | Answer::Stopped { effect, .. }) = &answer {
            let took = effect.media_time_ms - effect.received_media_time_ms;
            assert!((0.0..=20.0).contains(&took), "took effect after {took} ms");
        }
        answer
    }

    pub(crate) fn effect(&mut self, command: Command) -> Effect {
        match self.call(command) {
            Ok(Answer::Effect(effect) | Answer::Deleted { effect, .. } | Answer::Stopped { effect, .. }) => *effect,
            other => panic!("no effect: {other:?}"),
        }
    }

    /// A connection without a phone.
    pub(crate) fn connection(&mut self, spec: ConnectionSpec) -> ConnectionId {
        let id = ConnectionId::new(SHARD, self.next_slot, 1);
        self.next_slot += 1;
        assert!(matches!(self.call(Command::CreateConnection { id, spec: Box::new(spec) }), Ok(Answer::Done)));
        id
    }

    /// A connection with a phone that is silent so far. Its index is its slot as long as only phones connect.
    pub(crate) fn phone(&mut self, codec: CodecKind, ptime_ms: u32) -> ConnectionId {
        let slot = self.next_slot;
        self.phone_with(ConnectionSpec { remote: Some(address(slot)), ..spec(codec, ptime_ms) })
    }

    pub(crate) fn phone_with(&mut self, spec: ConnectionSpec) -> ConnectionId {
        let slot = self.next_slot;
        let id = self.connection(spec);
        self.phones.push(Phone {
            id,
            slot,
            address: address(slot),
            codec: spec.rx_codec,
            ptime_ms: spec.ptime_ms,
            ssrc: 0x1000 + slot,
            sequence: 65_500_u16.wrapping_add(slot as u16),
            // An odd number, so that nothing is aligned to blocks.
            timestamp: 0xffff_f001_u32.wrapping_add(1_000 * slot),
            voice: Voice::Silence,
            next_at: None,
            drift_ppm: 0,
            samples: 0,
            encoder: None,
        });
        id
    }

    /// The phone at `index` begins to say `voice` in `after_ms`.
    pub(crate) fn say(&mut self, index: usize, voice: Voice, after_ms: u64) {
        self.phones[index].voice = voice;
        self.phones[index].next_at = Some(self.now + Duration::from_millis(after_ms));
    }

    /// The phone at `index` sends a digit as a telephone-event of 60 ms, all packets at once.
    pub(crate) fn press(&mut self, index: usize, digit: u8) {
        for (end, duration) in [(false, 160), (false, 320), (true, 480), (true, 480), (true, 480)] {
            self.send_event(index, digit, end, duration);
        }
        self.phones[index].timestamp = self.phones[index].timestamp.wrapping_add(480);
    }

    /// Sends one packet of a telephone-event that begins at the phone's present timestamp.
    pub(crate) fn send_event(&mut self, index: usize, digit: u8, end: bool, duration: u16) {
        let phone = &mut self.phones[index];
        let event = b"0123456789*#ABCD".iter().position(|&other| other == digit).unwrap() as u8;
        let mut payload = [0; 4];
        TelephoneEvent { event, end, volume: 10, duration }.emit(&mut payload);
        let bytes = rtp(phone.ssrc, phone.sequence, phone.timestamp, 101, &payload);
        phone.sequence = phone.sequence.wrapping_add(1);
        let (slot, source) = (phone.slot, phone.address);
        self.deliver(Port::rtp(slot), source, &bytes);
    }

    pub(crate) fn send_digits(&mut self, target: Target, digits: &str) -> Result<Answer, CommandError> {
        self.call(Command::SendDigits { target, digits: Digits::parse(digits).unwrap() })
    }

    /// Starts gathering digits.
    pub(crate) fn gather(&mut self, id: ConnectionId, until: StopConditions) -> OperationId {
        self.start(Target::Connection(id), OperationSpec::GatherDigits { flush: false, until })
    }

    /// What is in the digit buffer.
    pub(crate) fn digits(&mut self, id: ConnectionId) -> String {
        self.status(id).digits.as_str().to_owned()
    }

    pub(crate) fn hush(&mut self, index: usize) {
        self.phones[index].next_at = None;
    }

    pub(crate) fn room(&mut self) -> ConferenceId {
        let id = ConferenceId::new(SHARD, self.next_room, 1);
        self.next_room += 1;
        assert!(matches!(
            self.call(Command::CreateConference { id, spec: ConferenceSpec::default() }),
            Ok(Answer::Done)
        ));
        id
    }

    pub(crate) fn join(&mut self, conference: ConferenceId, connection: ConnectionId) -> Effect {
        self.join_as(conference, connection, ParticipantSpec::default())
    }

    pub(crate) fn join_as(
        &mut self,
        conference: ConferenceId,
        connection: ConnectionId,
        participant: ParticipantSpec,
    ) -> Effect {
        self.effect(Command::JoinConference { conference, connection, participant })
    }

    /// A room with a phone for each codec and packet time.
    pub(crate) fn room_of(&mut self, members: &[(CodecKind, u32)]) -> (ConferenceId, Vec<ConnectionId>) {
        let room = self.room();
        let ids: Vec<_> = members.iter().map(|&(codec, ptime_ms)| self.phone(codec, ptime_ms)).collect();
        for &id in &ids {
            self.join(room, id);
        }
        (room, ids)
    }

    pub(crate) fn set(
        &mut self,
        conference: ConferenceId,
        connection: ConnectionId,
        change: ParticipantChange,
    ) -> Effect {
        self.effect(Command::SetParticipant { conference, connection, change })
    }

    pub(crate) fn relay(&mut self, a: ConnectionId, b: ConnectionId) -> Effect {
        self.effect(Command::StartRelay { a, b, transcode: false })
    }

    pub(crate) fn modify(&mut self, id: ConnectionId, change: ConnectionChange) -> Result<Answer, CommandError> {
        self.call(Command::ModifyConnection { id, change: Box::new(change) })
    }

    pub(crate) fn start(&mut self, target: Target, operation: OperationSpec) -> OperationId {
        let id = self.operation_id();
        let answer = self.call(Command::StartOperation { id, target, operation: Box::new(operation) });
        assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
        id
    }

    pub(crate) fn operation_id(&mut self) -> OperationId {
        self.next_operation += 1;
        OperationId::new(SHARD, self.next_operation, 1)
    }

    /// Starts playing `samples` to `target`.
    pub(crate) fn play(&mut self, target: Target, samples: Vec<i16>) -> OperationId {
        self.start(target, play(vec![samples], None))
    }

    /// Starts recording `target`.
    pub(crate) fn record(&mut self, target: Target, max_time_ms: Option<u32>) -> (OperationId, Arc<RecordQueue>) {
        let queue = Arc::new(RecordQueue::new(4096));
        let id = self.start(
            target,
            OperationSpec::Record { queue: Arc::clone(&queue), until: StopConditions::after(max_time_ms) },
        );
        (id, queue)
    }

    // Time and packets

    /// Lets `ms` milliseconds pass: phones send and clocks tick.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let phone = self.phones.iter().enumerate().filter_map(|(n, phone)| Some((phone.next_at?, n))).min();
            let tick = self.engine.poll_timeout();
            // Datagrams come before timeouts of the same instant.
            match (phone, tick) {
                (Some((at, n)), _) if at <= end && tick.is_none_or(|tick| at <= tick) => {
                    self.now = self.now.max(at);
                    self.send_from(n);
                    self.phones[n].next_at = Some(at + self.phones[n].interval());
                }
                (_, Some(tick)) if tick <= end => {
                    self.now = self.now.max(tick);
                    self.engine.handle_timeout(self.now);
                    self.drain();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Sends the next packet of a phone.
    pub(crate) fn send_from(&mut self, index: usize) -> Disposition {
        let bytes = self.phones[index].packet();
        let (slot, source) = (self.phones[index].slot, self.phones[index].address);
        self.deliver(Port::rtp(slot), source, &bytes)
    }

    /// Hands a datagram to the engine as the kernel would.
    pub(crate) fn deliver(&mut self, port: Port, source: SocketAddr, bytes: &[u8]) -> Disposition {
        match self.connected.get(&port.index()) {
            Some(&peer) if peer != source => return Disposition::Consumed,
            Some(_) => return self.deliver_meta(DatagramMeta { port, source: None, truncated: false }, bytes),
            None => {}
        }
        self.deliver_meta(DatagramMeta { port, source: Some(source), truncated: false }, bytes)
    }

    pub(crate) fn deliver_meta(&mut self, meta: DatagramMeta, bytes: &[u8]) -> Disposition {
        let mut buffer = bytes.to_vec();
        let disposition = self.engine.handle_datagram(self.now, &meta, &mut buffer);
        if let Disposition::Forward(transmit) = disposition {
            self.keep(transmit, &buffer);
        }
        self.drain();
        disposition
    }

    /// Ticks whatever is due.
    pub(crate) fn catch_up(&mut self) {
        while self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now);
            self.drain();
        }
    }

    pub(crate) fn drain(&mut self) {
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        while let Some(transmit) = self.engine.poll_transmit(&mut slot) {
            self.keep(transmit, &slot);
        }
        while let Some(action) = self.engine.poll_port_action() {
            match action {
                PortAction::Connect(port, address) if self.connects => {
                    self.connected.insert(port.index(), address);
                    self.engine.port_connected(port);
                }
                PortAction::Disconnect(port) => {
                    self.connected.remove(&port.index());
                }
                PortAction::Release { slot } => {
                    self.connected.remove(&Port::rtp(slot).index());
                }
                PortAction::Connect(..) => {}
            }
            self.actions.push(action);
        }
        while let Some(event) = self.engine.poll_event() {
            self.events.push(event);
        }
    }

    fn keep(&mut self, transmit: Transmit, buffer: &[u8]) {
        let Transmit { port, target, len } = transmit;
        let target = target.or_else(|| self.connected.get(&port.index()).copied());
        assert!(target.is_some(), "a packet without a destination on a socket that is not connected");
        self.sent.push(Sent { at: self.now, port, target, bytes: buffer[..len].to_vec() });
    }

    // Looking at what came of it

    /// The RTP packets sent to the phone in `slot`.
    pub(crate) fn heard_by(&self, slot: u32) -> Vec<Rtp> {
        let packets = self.sent.iter().filter(|sent| sent.port == Port::rtp(slot));
        packets
            .map(|sent| {
                let packet = RtpPacket::parse(&sent.bytes).unwrap();
                Rtp { at: sent.at, header: packet.header(), payload: packet.payload().to_vec() }
            })
            .collect()
    }

    pub(crate) fn status(&mut self, id: ConnectionId) -> ConnectionStatus {
        match self.call(Command::InspectConnection { id }) {
            Ok(Answer::Connection(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn room_status(&mut self, id: ConferenceId) -> ConferenceStatus {
        match self.call(Command::InspectConference { id }) {
            Ok(Answer::Conference(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.engine.totals().drops.count(reason)
    }

    /// How many operations were begun.
    pub(crate) const fn operations_begun(&self) -> usize {
        self.next_operation as usize
    }

    /// Condition and length of every operation that has ended so far.
    pub(crate) fn ended(&self) -> Vec<(OperationId, Condition, u64)> {
        let ended = self.events.iter().filter_map(|event| match event {
            Event::OperationEnded { id, condition, elapsed_ms, .. } => Some((*id, *condition, *elapsed_ms)),
            _ => None,
        });
        ended.collect()
    }

    /// What was gathered, in the order of the ends.
    pub(crate) fn gathered(&self) -> Vec<(OperationId, Condition, String)> {
        let gathered = self.events.iter().filter_map(|event| match event {
            Event::OperationEnded { id, condition, digits: Some(digits), .. } => {
                Some((*id, *condition, digits.as_str().to_owned()))
            }
            _ => None,
        });
        gathered.collect()
    }

    /// Every digit that was reported.
    pub(crate) fn reported(&self) -> String {
        let digits = self.events.iter().filter_map(|event| match event {
            Event::Digit { digit, .. } => Some(char::from(*digit)),
            _ => None,
        });
        digits.collect()
    }

    /// Every sample sent to the phone in `slot`.
    pub(crate) fn samples_to(&self, slot: u32, codec: CodecKind) -> Vec<i16> {
        self.heard_by(slot).iter().flat_map(|packet| decode(&packet.payload, codec)).collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }
}

pub(crate) fn address(slot: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, (slot >> 8) as u8, slot as u8)), 4000)
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn spec(codec: CodecKind, ptime_ms: u32) -> ConnectionSpec {
    ConnectionSpec {
        rx_codec: codec,
        rx_payload_type: codec.payload_type(),
        tx_codec: codec,
        tx_payload_type: codec.payload_type(),
        ptime_ms,
        // Of what is sent most tests look at RTP alone, and at no deadline but that of a media clock.
        rtcp_reports: false,
        ..ConnectionSpec::default()
    }
}

pub(crate) fn rtp(ssrc: u32, sequence: u16, timestamp: u32, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; RTP_HEADER_BYTES];
    RtpHeader {
        marker: false,
        payload_type,
        sequence_number: SeqNumber(sequence),
        timestamp: RtpTimestamp(timestamp),
        ssrc: Ssrc(ssrc),
    }
    .emit(bytes.first_chunk_mut().unwrap());
    bytes.extend_from_slice(payload);
    bytes
}

/// The smallest receiver report.
pub(crate) fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 201, 0, 1];
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes
}

pub(crate) fn play(prompts: Vec<Vec<i16>>, max_time_ms: Option<u32>) -> OperationSpec {
    let prompts = prompts.into_iter().map(|samples| Prompt::Whole(samples.into())).collect();
    let until = StopConditions::after(max_time_ms);
    OperationSpec::Play {
        playlist: Box::new(Playlist { prompts, ..Playlist::default() }),
        volume: None,
        speed: None,
        isolate: false,
        until,
    }
}

/// A tone of one sine.
pub(crate) fn tone(hz: u16, duration_ms: Option<u32>, until: StopConditions) -> OperationSpec {
    OperationSpec::Tone { tone: ToneSpec { first: (hz, -10), second: None }, duration_ms, isolate: false, until }
}

/// A play of `ms` milliseconds.
pub(crate) fn play_for(ms: usize, until: StopConditions) -> OperationSpec {
    let prompts = vec![Prompt::Whole(vec![9_000; 8 * ms].into())];
    OperationSpec::Play {
        playlist: Box::new(Playlist { prompts, ..Playlist::default() }),
        volume: None,
        speed: None,
        isolate: false,
        until,
    }
}

/// A recording that nobody reads.
pub(crate) fn recording(until: StopConditions) -> OperationSpec {
    OperationSpec::Record { queue: Arc::new(RecordQueue::new(4096)), until }
}

pub(crate) fn set(digits: &str) -> Option<DigitSet> {
    DigitSet::parse(digits)
}

/// What a recording holds; gaps are `None`.
pub(crate) fn recorded(queue: &RecordQueue) -> Vec<i16> {
    let mut samples: Vec<i16> = Vec::new();
    while let Some(chunk) = queue.chunks.pop() {
        assert_eq!(chunk.position, samples.len() as u64, "a recording without gaps");
        samples.extend_from_slice(chunk.chunk.as_slice());
    }
    samples
}

pub(crate) fn decode(payload: &[u8], codec: CodecKind) -> Vec<i16> {
    let mut samples = vec![0; payload.len()];
    if codec == CodecKind::Pcma {
        g711::decode_alaw(payload, &mut samples);
    } else {
        g711::decode_ulaw(payload, &mut samples);
    }
    samples
}

/// Amplitude of the sine of `hz` in `samples` (Goertzel).
pub(crate) fn amplitude(samples: &[i16], hz: f64) -> f64 {
    let omega = hz * std::f64::consts::TAU / 8000.0;
    let (mut s1, mut s2) = (0.0, 0.0);
    for &sample in samples {
        (s1, s2) = (f64::from(sample) + 2.0 * omega.cos() * s1 - s2, s1);
    }
    let power = s1 * s1 + s2 * s2 - 2.0 * omega.cos() * s1 * s2;
    2.0 * power.max(0.0).sqrt() / samples.len() as f64
}

/// Checks a stream of our own: one SSRC, no gap in sequence numbers, timestamps that follow each other or, with the
/// marker, jump ahead. Returns the packets whose marker is set.
pub(crate) fn check_stream(packets: &[Rtp]) -> Vec<usize> {
    let mut markers = Vec::new();
    for (n, packet) in packets.iter().enumerate() {
        if packet.header.marker {
            markers.push(n);
        }
        let Some(before) = n.checked_sub(1).map(|n| &packets[n]) else { continue };
        assert_eq!(packet.header.ssrc, before.header.ssrc, "packet {n}: another SSRC");
        assert_eq!(packet.header.sequence_number, before.header.sequence_number.next(), "packet {n}: a gap");
        let step = packet.header.timestamp.distance_from(before.header.timestamp);
        let len = before.payload.len() as i32;
        if packet.header.marker {
            assert!(step > len, "packet {n}: a marker without a pause, {step} after {len}");
        } else {
            assert_eq!(step, len, "packet {n}: a jump without a marker");
        }
    }
    markers
}

/// Every sample of a stream with its timestamp.
pub(crate) fn bytes_by_timestamp(packets: &[Rtp]) -> Vec<(RtpTimestamp, SeqNumber, u8)> {
    packets
        .iter()
        .flat_map(|packet| {
            let (timestamp, sequence) = (packet.header.timestamp, packet.header.sequence_number);
            packet.payload.iter().enumerate().map(move |(n, &byte)| (timestamp.wrapping_add(n as u32), sequence, byte))
        })
        .collect()
}

/// The stamp of the stream to or from `id`.
pub(crate) fn stamp(effect: &Effect, id: ConnectionId, outgoing: bool) -> StreamStamp {
    let mut stamps = effect.streams.iter().filter(|stamp| stamp.connection == id && stamp.outgoing == outgoing);
    let stamp = *stamps.next().unwrap_or_else(|| panic!("no stamp for {id}: {effect:?}"));
    assert_eq!(stamps.next(), None, "two stamps for one stream");
    stamp
}
