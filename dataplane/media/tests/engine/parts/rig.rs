//! One conference on one engine or on several that exchange their partial sums, driven by the same script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringbridge_codec::{CodecKind, Encoder, EncoderSettings, Rate};
use ringbridge_media::command::{
    Command, ConferenceSpec, ConnectionSpec, OperationSpec, ParticipantChange, ParticipantSpec, Request, Role, Target,
};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{Answer, CommandError, Event, StreamStamp};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::parts::{Partial, Parts};
use ringbridge_media::port::{DatagramMeta, Port};
use ringbridge_media::samples::RecordQueue;
use ringbridge_media::time::Instant;
use ringbridge_wire::audio_level::mixer_levels;
use ringbridge_wire::rtp::RtpPacket;

use crate::bench::{address, rtp, sine, spec};

/// Media time zero of the conference; its frames are due every 10 ms from here.
pub(super) const EPOCH: Instant = Instant::from_millis(1_000);
pub(super) const START: Instant = Instant::from_millis(1_003);
pub(super) const ROOM: ConferenceId = ConferenceId::new(ShardId(0), 0, 1);

/// Identifier of the extension in which members are told who is in the mix.
const MIXER_LEVEL: u8 = 5;

/// Numbers that look like chance.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What a member is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) marker: bool,
    /// Since the first packet.
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) payload: Vec<u8>,
    /// Whom it names with which level, in order of their SSRCs.
    pub(super) named: Vec<(u32, u8)>,
}

impl Heard {
    /// What has to be the same however the conference is spread.
    pub(super) fn content(&self) -> (bool, u16, u32, &[u8]) {
        (self.marker, self.sequence, self.timestamp, &self.payload)
    }
}

pub(super) struct Phone {
    pub(super) id: ConnectionId,
    pub(super) engine: usize,
    pub(super) codec: CodecKind,
    encoder: Encoder,
    ptime_ms: u64,
    offset_ms: u64,
    hz: f64,
    sequence: u16,
    timestamp: u32,
    samples: u64,
    /// Amplitude of what it says; 0 is digital silence, none sends nothing.
    pub(super) says: Option<f64>,
    first: Option<(u16, u32)>,
    pub(super) heard: Vec<Heard>,
}

impl Phone {
    fn packet(&mut self) -> Vec<u8> {
        let rate = self.codec.rate();
        let len = (u64::from(rate.hz()) * self.ptime_ms / 1000) as usize;
        let hz = self.hz * 8000.0 / f64::from(rate.hz());
        let amplitude = self.says.unwrap_or_default();
        let samples: Vec<i16> = (self.samples..).take(len).map(|n| sine(n, hz, amplitude)).collect();
        let mut payload = vec![0; 4096];
        let bytes = self.encoder.encode(&samples, &mut payload).unwrap();
        let packet = rtp(
            0x100 + self.id.slot_number(),
            self.sequence,
            self.timestamp,
            self.codec.payload_type(),
            &payload[..bytes],
        );
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.codec.clock_rate_hz() / 1000 * self.ptime_ms as u32);
        self.samples += len as u64;
        packet
    }
}

/// What becomes of partial sums on their way.
pub(super) type Road = Box<dyn FnMut(&mut Dice, &mut Partial) -> Fate>;

pub(super) enum Fate {
    /// Arrives after so many milliseconds.
    After(u64),
    Lost,
}

pub(super) struct Rig {
    pub(super) engines: Vec<Engine>,
    /// Engines that stand still until then.
    pub(super) asleep: Vec<Option<Instant>>,
    pub(super) now: Instant,
    pub(super) phones: Vec<Phone>,
    pub(super) events: Vec<(usize, Event)>,
    pub(super) road: Road,
    pub(super) dice: Dice,
    flying: Vec<(Instant, Box<Partial>)>,
    /// Where recordings go.
    pub(super) queues: Vec<Arc<RecordQueue>>,
    operations: u32,
    /// What was told of joins, changes and leaves: the media time and the streams.
    pub(super) told: Vec<(f64, Vec<StreamStamp>)>,
    /// Partial sums that were delivered.
    pub(super) exchanged: u64,
}

impl Rig {
    /// A conference on `engines` engines.
    pub(super) fn new(engines: u8, rate: Rate, tones: bool, seed: u64) -> Self {
        Self::of(engines, ConferenceSpec { rate, tones, ..ConferenceSpec::default() }, seed)
    }

    pub(super) fn of(engines: u8, spec: ConferenceSpec, seed: u64) -> Self {
        let made = (0..engines).map(|shard| Engine::new(ShardId(shard), seed + u64::from(shard), START)).collect();
        let mut rig = Self {
            engines: made,
            asleep: vec![None; usize::from(engines)],
            now: START,
            phones: Vec::new(),
            events: Vec::new(),
            road: Box::new(|_, _| Fate::After(0)),
            dice: Dice(seed),
            flying: Vec::new(),
            queues: Vec::new(),
            operations: 0,
            told: Vec::new(),
            exchanged: 0,
        };
        if engines == 1 {
            // As every conference is made.
            assert!(rig.call(0, Command::CreateConference { id: ROOM, spec }).is_ok());
            return rig;
        }
        let parts = Parts { shards: (0..engines).map(ShardId).collect(), epoch: EPOCH };
        for shard in 0..engines {
            let slot = if shard == 0 { ROOM.slot_number() } else { 77 };
            let command = Command::CreatePart { id: ROOM, slot, spec, parts: Box::new(parts) };
            assert!(rig.call(usize::from(shard), command).is_ok());
        }
        rig
    }

    pub(super) fn call(&mut self, engine: usize, command: Command) -> Result<Answer, CommandError> {
        let request = Request { token: 9, received: self.now, command };
        self.engines[engine].handle_command(self.now, request);
        self.drain(engine);
        let answers: Vec<_> = self.events.extract_if(.., |(_, event)| matches!(event, Event::Answer { .. })).collect();
        let [(_, Event::Answer { result, .. })] = <[_; 1]>::try_from(answers).unwrap() else { panic!() };
        self.fly();
        result
    }

    /// A phone whose connection lives on the engine whose turn it is.
    pub(super) fn phone(&mut self, codec: CodecKind, ptime_ms: u32) -> usize {
        self.phone_as(spec(codec, ptime_ms))
    }

    /// One that is told who is in the mix.
    pub(super) fn phone_that_is_told(&mut self, codec: CodecKind, ptime_ms: u32) -> usize {
        self.phone_as(ConnectionSpec { mixer_level_extension: Some(MIXER_LEVEL), ..spec(codec, ptime_ms) })
    }

    fn phone_as(&mut self, spec: ConnectionSpec) -> usize {
        let (codec, ptime_ms) = (spec.rx_codec, spec.ptime_ms);
        let index = self.phones.len();
        let engine = index % self.engines.len();
        let slot = index as u32;
        let id = ConnectionId::new(ShardId(engine as u8), slot, 1);
        let spec = ConnectionSpec { remote: Some(address(slot)), ..spec };
        assert!(self.call(engine, Command::CreateConnection { id, spec: Box::new(spec) }).is_ok());
        self.phones.push(Phone {
            id,
            engine,
            codec,
            encoder: Encoder::new(codec, EncoderSettings::default()).unwrap(),
            ptime_ms: u64::from(ptime_ms),
            offset_ms: index as u64 * 7 % u64::from(ptime_ms),
            hz: 310.0 + 70.0 * index as f64,
            sequence: 65_530,
            timestamp: 77_777 * slot,
            samples: 0,
            says: None,
            first: None,
            heard: Vec::new(),
        });
        index
    }

    pub(super) fn join(&mut self, index: usize, participant: ParticipantSpec) -> Result<Answer, CommandError> {
        let (engine, connection) = (self.phones[index].engine, self.phones[index].id);
        let answer = self.call(engine, Command::JoinConference { conference: ROOM, connection, participant });
        self.note(&answer);
        if answer.is_ok() {
            self.cede(engine, participant.role);
        }
        answer
    }

    pub(super) fn set(&mut self, index: usize, change: ParticipantChange) -> Result<Answer, CommandError> {
        let (engine, connection) = (self.phones[index].engine, self.phones[index].id);
        let answer = self.call(engine, Command::SetParticipant { conference: ROOM, connection, change });
        self.note(&answer);
        if let (Ok(_), Some(role)) = (&answer, change.role) {
            self.cede(engine, role);
        }
        answer
    }

    pub(super) fn leave(&mut self, index: usize) -> Result<Answer, CommandError> {
        let (engine, connection) = (self.phones[index].engine, self.phones[index].id);
        let answer = self.call(engine, Command::LeaveConference { conference: ROOM, connection });
        self.note(&answer);
        answer
    }

    fn note(&mut self, answer: &Result<Answer, CommandError>) {
        if let Ok(Answer::Effect(effect)) = answer {
            self.told.push((effect.media_time_ms, effect.streams.clone()));
        }
    }

    fn cede(&mut self, engine: usize, role: Role) {
        for other in (0..self.engines.len()).filter(|other| *other != engine) {
            assert!(self.call(other, Command::CedeRole { conference: ROOM, role }).is_ok());
        }
    }

    pub(super) fn start(&mut self, target: Target, operation: OperationSpec) -> Option<OperationId> {
        self.operations += 1;
        let id = OperationId::new(ShardId(0), self.operations, 1);
        let engine = self.home_of(target);
        let started = self.call(engine, Command::StartOperation { id, target, operation: Box::new(operation) });
        started.is_ok().then_some(id)
    }

    pub(super) fn home_of(&self, target: Target) -> usize {
        match target {
            Target::Conference(_) => 0,
            Target::Connection(id) => usize::from(id.shard().0),
        }
    }

    /// Lets time pass up to `until`, a millisecond at a time.
    pub(super) fn run_to(&mut self, until: Instant) {
        while self.now < until {
            self.now = self.now + Duration::from_millis(1);
            let ms = self.now.as_nanos() / 1_000_000;
            for index in 0..self.phones.len() {
                let phone = &mut self.phones[index];
                if phone.says.is_none() || ms % phone.ptime_ms != phone.offset_ms {
                    continue;
                }
                let (engine, slot) = (phone.engine, phone.id.slot_number());
                let mut bytes = phone.packet();
                let meta = DatagramMeta { port: Port::rtp(slot), source: Some(address(slot)), truncated: false };
                if self.asleep[engine].is_none() {
                    self.engines[engine].handle_datagram(self.now, &meta, &mut bytes);
                    self.drain(engine);
                }
            }
            for engine in 0..self.engines.len() {
                if self.asleep[engine].is_some_and(|until| until > self.now) {
                    continue;
                }
                self.asleep[engine] = None;
                self.arrive(engine);
                while self.engines[engine].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.engines[engine].handle_timeout(self.now);
                    self.drain(engine);
                }
            }
            self.fly();
        }
    }

    pub(super) fn run(&mut self, ms: u64) {
        self.run_to(self.now + Duration::from_millis(ms));
    }

    /// Lets the partial sums arrive that do so by now, and those that follow from them.
    fn fly(&mut self) {
        while self.flying.iter().any(|(at, partial)| *at <= self.now && self.is_awake(partial)) {
            (0..self.engines.len()).for_each(|engine| self.arrive(engine));
        }
    }

    fn is_awake(&self, partial: &Partial) -> bool {
        self.asleep[usize::from(partial.to().0)].is_none()
    }

    fn arrive(&mut self, engine: usize) {
        let now = self.now;
        let here = self.flying.extract_if(.., |(at, partial)| *at <= now && usize::from(partial.to().0) == engine);
        for (_, partial) in here.collect::<Vec<_>>() {
            if self.asleep[engine].is_some() {
                self.flying.push((now, partial));
                continue;
            }
            self.exchanged += 1;
            self.engines[engine].handle_partial(now, partial);
            self.drain(engine);
        }
    }

    fn drain(&mut self, engine: usize) {
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        let machine = &mut self.engines[engine];
        while let Some(transmit) = machine.poll_transmit(&mut slot) {
            let packet = RtpPacket::parse(&slot[..transmit.len]).unwrap();
            let phone = &mut self.phones[transmit.port.slot as usize];
            assert_eq!(phone.engine, engine);
            let header = packet.header();
            let (sequence, timestamp) = (header.sequence_number.0, header.timestamp.0);
            let (first_sequence, first_timestamp) = *phone.first.get_or_insert((sequence, timestamp));
            let levels = mixer_levels(&packet, MIXER_LEVEL);
            let mut named: Vec<_> = levels.map(|(source, level)| (source.0, level)).collect();
            named.sort_unstable();
            phone.heard.push(Heard {
                at: self.now,
                marker: header.marker,
                sequence: sequence.wrapping_sub(first_sequence),
                timestamp: timestamp.wrapping_sub(first_timestamp),
                payload: packet.payload().to_vec(),
                named,
            });
        }
        while machine.poll_port_action().is_some() {}
        while let Some(event) = machine.poll_event() {
            self.events.push((engine, event));
        }
        while let Some(mut partial) = machine.poll_partial() {
            match (self.road)(&mut self.dice, &mut partial) {
                Fate::After(ms) => self.flying.push((self.now + Duration::from_millis(ms), partial)),
                Fate::Lost => machine.drop_partial(partial),
            }
        }
    }

    /// Whose stamp it is, and what it says as counted from the first packet of its stream; none if that was never sent.
    pub(super) fn relative(&self, stamp: &StreamStamp) -> Option<(u32, bool, u32, Option<u16>)> {
        let phone = &self.phones[stamp.connection.slot()];
        let (sequence, timestamp) = if stamp.outgoing { phone.first? } else { (0, 0) };
        let sequence = stamp.sequence.map(|own| own.wrapping_sub(sequence));
        Some((phone.id.slot_number(), stamp.outgoing, stamp.rtp_timestamp.wrapping_sub(timestamp), sequence))
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        let totals = self.engines.iter().map(Engine::totals);
        totals.fold((0, 0), |(late, dropped), totals| (late + totals.partials_late, dropped + totals.partials_dropped))
    }

    /// What was recorded, in the order the recordings began.
    pub(super) fn recorded(&self) -> Vec<Vec<i16>> {
        self.queues.iter().map(|queue| crate::bench::recorded(queue)).collect()
    }

    /// Condition and length of every operation that has ended.
    pub(super) fn ended(&self) -> BTreeMap<OperationId, (String, u64)> {
        let ended = self.events.iter().filter_map(|(_, event)| match event {
            Event::OperationEnded { id, condition, elapsed_ms, .. } => {
                Some((*id, (format!("{condition:?}"), *elapsed_ms)))
            }
            _ => None,
        });
        ended.collect()
    }

    /// Who was told to lead the talk, in order, and by which engine.
    pub(super) fn leaders(&self) -> Vec<(usize, u32)> {
        let leaders = self.events.iter().filter_map(|(engine, event)| match event {
            Event::ActiveSpeaker { connection, .. } => Some((*engine, connection.slot_number())),
            _ => None,
        });
        leaders.collect()
    }

    /// Who began and ceased to talk, in order.
    pub(super) fn talk(&self) -> Vec<(u32, bool)> {
        let talk = self.events.iter().filter_map(|(_, event)| match event {
            Event::TalkStarted { connection, .. } => Some((connection.slot_number(), true)),
            Event::TalkStopped { connection, .. } => Some((connection.slot_number(), false)),
            _ => None,
        });
        talk.collect()
    }
}
