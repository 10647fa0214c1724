//! What the control plane tells the engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionChange, ConnectionSpec, DigitSource, Direction, EncoderSettings,
    OperationSpec, ParticipantChange, ParticipantSpec, PlayAdjust, PlayChange, Rate, Role, StopConditions, TalkSpec,
    Target, ToneSpec, VolumeToggle,
};
use ringbridge_media::digits::{DigitSet, Digits};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId};
use ringbridge_media::limits::DELAY_MS_MAX;
use ringbridge_media::playout::DelaySpec;
use ringbridge_media::port::Port;
use ringbridge_media::samples::{Chunk, Playlist, Prompt, PromptStream, RecordQueue};
use ringbridge_wire::rtp::COMFORT_NOISE;

use super::datagrams::Phone;
use super::{CONFERENCES, ENGINE_CONFERENCES, ENGINE_SLOTS, GUEST_SLOTS, LIMIT_MS, SHARD, SLOTS, World};
use crate::script::Script;

/// Those that cost least come up more often.
const CODECS: [CodecKind; 12] = [
    CodecKind::Pcmu,
    CodecKind::Pcmu,
    CodecKind::Pcma,
    CodecKind::Pcma,
    CodecKind::G723,
    CodecKind::G729,
    CodecKind::L16(Rate::Narrow),
    CodecKind::L16(Rate::Wide),
    CodecKind::L16(Rate::Full),
    CodecKind::G722,
    CodecKind::Gsm,
    CodecKind::Opus,
];
const PTIMES_MS: [u32; 10] = [20, 20, 20, 10, 30, 40, 60, 1, 25, 200];
const DIRECTIONS: [Direction; 5] =
    [Direction::SendRecv, Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
const ROLES: [Role; 5] = [Role::Party, Role::Party, Role::Monitor, Role::Coach, Role::Pupil];
const DIGITS: &[u8] = b"0123456789*#ABCD";

impl World {
    pub(super) fn create_connection(&mut self, script: &mut Script<'_>) {
        let Some(slot) = (0..SLOTS).find(|slot| !self.slots.contains_key(slot)) else { return };
        self.generation += 1;
        let id = ConnectionId::new(SHARD, slot, self.generation);
        let address = SocketAddr::from(([10, 0, 0, u8::try_from(slot).unwrap_or(0)], 4_000));
        let (rx_codec, rx_payload_type) = codec(script);
        let (tx_codec, tx_payload_type) =
            if script.below(4) == 0 { codec(script) } else { (rx_codec, rx_payload_type) };
        let flags = script.byte();
        #[allow(clippy::needless_update, reason = "what is new needs no script at first")]
        let spec = ConnectionSpec {
            remote: (flags & 3 != 0).then_some(address),
            remote_rtcp: None,
            rtcp_mux: flags & 4 != 0,
            rtcp_reports: flags & 8 != 0,
            rx_codec,
            rx_payload_type,
            tx_codec,
            tx_payload_type,
            encoder: EncoderSettings {
                bitrate: script.pick(&[32_000, 8_000]),
                fec: flags & 16 != 0,
                dtx: flags & 32 != 0,
            },
            telephone_event_payload_type: if flags & 64 != 0 { 101 } else { script.byte() & 0x7F },
            payload_types: [script.option(|script| script.byte() & 0x7F), None, None, None, None, None, None, None],
            ptime_ms: script.pick(&PTIMES_MS),
            direction: script.pick(&DIRECTIONS),
            rtp_timeout_ms: script.option(timeout),
            barred: script.option(|script| (address, script.long())),
            handover: flags & 128 != 0,
            digit_source: script.pick(&[DigitSource::Events, DigitSource::Auto]),
            reserve_ms: if script.below(6) == 1 { Some(timeout(script)) } else { None },
            comfort_noise_payload_type: script.option(|script| script.pick(&[COMFORT_NOISE, 118])),
            delay: script.option(delay).unwrap_or_default(),
            ..ConnectionSpec::default()
        };
        self.connect(id, &spec, address);
    }

    /// Creates a connection with a phone.
    fn connect(&mut self, id: ConnectionId, spec: &ConnectionSpec, address: SocketAddr) {
        let slot = id.slot_number();
        self.connections.push(id);
        self.slots.insert(slot, id);
        self.ledger.connection_begins(id);
        if self.command(Command::CreateConnection { id, spec: Box::new(*spec) }) {
            self.phones.insert(id, Phone::new(address, spec, 0x100 + slot));
        } else {
            // It never was.
            self.slots.remove(&slot);
            self.ledger.connection_ended(id);
        }
    }

    /// What is there when the script begins, so that it need not find its way to it.
    pub(super) fn set_scene(&mut self, script: &mut Script<'_>) {
        let scene = script.below(8);
        let phones = match scene {
            0 => return,
            1..=3 | 6 => 2,
            4 | 5 | 7.. => 3,
        };
        // One codec for all, or one for each.
        let shared = script.option(codec);
        let ids: Vec<_> = (0..phones)
            .map(|slot| {
                self.generation += 1;
                let id = ConnectionId::new(SHARD, slot, self.generation);
                let address = SocketAddr::from(([10, 0, 0, u8::try_from(slot).unwrap_or(0)], 4_000));
                let (codec, payload_type) = shared.unwrap_or_else(|| codec(script));
                let spec = ConnectionSpec {
                    remote: Some(address),
                    rx_codec: codec,
                    rx_payload_type: payload_type,
                    tx_codec: codec,
                    tx_payload_type: payload_type,
                    digit_source: script.pick(&[DigitSource::Events, DigitSource::Auto]),
                    comfort_noise_payload_type: script.option(|_| COMFORT_NOISE),
                    ..ConnectionSpec::default()
                };
                self.connect(id, &spec, address);
                id
            })
            .collect();
        if scene <= 2 {
            self.command(Command::StartRelay { a: ids[0], b: ids[1], transcode: scene == 2 });
            self.generation += 1;
            let id = OperationId::new(SHARD, 0, self.generation);
            let (queue, until) = (self.queue(script), StopConditions::default());
            self.begin(
                id,
                Target::Connection(ids[0]),
                OperationSpec::RecordCall { queue, caller: ids[0], called: ids[1], until },
            );
            return;
        }
        self.generation += 1;
        let conference = ConferenceId::new(SHARD, 0, self.generation);
        let spec = ConferenceSpec {
            hairpin: scene == 3,
            tones: script.flag(),
            rate: script.pick(&Rate::ALL),
            loudest: script.option(|script| u16::from(script.below(4))),
            talk: TalkSpec { told: script.flag(), stop_ms: 10 * u16::from(script.byte()) },
            ..ConferenceSpec::default()
        };
        self.open(conference, spec);
        let roles = match scene {
            5 => [Role::Party, Role::Coach, Role::Pupil],
            6 => [Role::Party, Role::Monitor, Role::Party],
            _ => [Role::Party; 3],
        };
        for (connection, role) in ids.into_iter().zip(roles) {
            let participant = ParticipantSpec { role, tariff_tone: scene == 7, ..ParticipantSpec::default() };
            self.command(Command::JoinConference { conference, connection, participant });
        }
    }

    fn open(&mut self, id: ConferenceId, spec: ConferenceSpec) {
        self.conferences.push(id);
        if self.command(Command::CreateConference { id, spec }) {
            self.ledger.conference_begins(id);
            self.rooms.insert(id.slot_number(), id);
        }
    }

    fn begin(&mut self, id: OperationId, target: Target, operation: OperationSpec) {
        // The one condition that every kind of operation has.
        let timeout_ms = conditions_of(&operation).timeout_ms;
        self.ledger.operation_begins(id, timeout_ms.is_some_and(|ms| ms <= LIMIT_MS));
        self.operations.push(id);
        if !self.command(Command::StartOperation { id, target, operation: Box::new(operation) }) {
            // It never was.
            self.ledger.operation_ended(id);
        }
    }

    pub(super) fn create_conference(&mut self, script: &mut Script<'_>) {
        let Some(slot) = (0..CONFERENCES).find(|slot| !self.rooms.contains_key(slot)) else { return };
        self.generation += 1;
        let id = ConferenceId::new(SHARD, slot, self.generation);
        let spec = ConferenceSpec {
            participants_max: script.pick(&[8, 8, 8, 2, 1, 0]),
            hairpin: script.below(3) == 1,
            tones: script.flag(),
            rate: script.pick(&Rate::ALL),
            loudest: script.option(|script| u16::from(script.below(4))),
            talk: TalkSpec { told: script.flag(), stop_ms: 10 * u16::from(script.byte()) },
        };
        self.open(id, spec);
    }

    pub(super) fn join(&mut self, script: &mut Script<'_>) {
        let (conference, connection) = (self.any_conference(script), self.any_connection(script));
        let flags = script.byte();
        let participant = ParticipantSpec {
            muted: flags & 7 == 1,
            deaf: flags & 0x38 == 8,
            gain_db: if flags & 0x40 != 0 { i16::from(script.byte().cast_signed()) } else { 0 },
            output_gain_db: if flags & 0x41 == 0x41 { i16::from(script.byte().cast_signed()) } else { 0 },
            agc: flags & 0x82 == 0x82,
            noise_suppression: flags & 0x87 == 0x85,
            role: script.pick(&ROLES),
            tariff_tone: flags & 0x80 != 0,
        };
        self.command(Command::JoinConference { conference, connection, participant });
    }

    /// One of those that need less.
    pub(super) fn command_of_many(&mut self, script: &mut Script<'_>) {
        let command = match script.below(19) {
            0 | 1 => self.modification(script),
            2 => Command::DeleteConnection { id: self.any_connection(script) },
            3 => {
                let conference = self.any_conference(script);
                Command::LeaveConference { conference, connection: self.any_connection(script) }
            }
            4 => Command::DeleteConference { id: self.any_conference(script), keep_connections: script.flag() },
            5 => Command::PromoteConference { id: self.any_conference(script) },
            6 | 7 => self.participant_change(script),
            8 | 9 => {
                let (a, b) = (self.any_connection(script), self.any_connection(script));
                Command::StartRelay { a, b, transcode: script.flag() }
            }
            10 => Command::StopRelay { a: self.any_connection(script) },
            11 | 12 => {
                let operation = script.option(|script| self.any_operation(script));
                let running = operation.is_some_and(|id| self.ledger.runs(id));
                let target = self.any_target(script);
                let stopped = self.command(Command::StopOperation { target, operation });
                assert!(running || operation.is_none() || !stopped, "what does not run was stopped");
                return;
            }
            13 => {
                let change = PlayChange { adjust: adjustment(script), only_if_playing: script.flag() };
                Command::AdjustPlay { target: self.any_target(script), change }
            }
            14 => Command::SendDigits { target: self.any_target(script), digits: digits(script) },
            15 => Command::MuteRecording {
                connection: self.any_connection(script),
                operation: self.any_operation(script),
                caller: script.flag(),
                called: script.flag(),
            },
            16 => match script.below(3) {
                0 => Command::ListConnections { from: script.long(), limit: u32::from(script.byte()) },
                1 => Command::ListConferences { from: script.long(), limit: u32::from(script.byte()) },
                _ => Command::ListOperations { target: self.any_target(script) },
            },
            17 => Command::InspectConnection { id: self.any_connection(script) },
            _ => Command::InspectConference { id: self.any_conference(script) },
        };
        self.command(command);
    }

    fn modification(&self, script: &mut Script<'_>) -> Command {
        let id = self.any_connection(script);
        let change = ConnectionChange {
            remote: script.option(|script| SocketAddr::from(([10, 0, 0, script.below(6)], 4_000))),
            rx_codec: script.option(codec),
            tx_codec: script.option(codec),
            telephone_event_payload_type: script.option(|script| script.byte() & 0x7F),
            ptime_ms: script.option(|script| script.pick(&PTIMES_MS)),
            direction: script.option(|script| script.pick(&DIRECTIONS)),
            rtp_timeout_ms: script.option(|script| script.option(timeout)),
            digit_source: script.option(|script| script.pick(&[DigitSource::Events, DigitSource::Auto])),
            reserve_ms: if script.below(8) == 1 { Some(timeout(script)) } else { None },
            comfort_noise_payload_type: script
                .option(|script| script.option(|script| script.pick(&[COMFORT_NOISE, 118]))),
            delay: script.option(delay),
            encoder: script.option(|script| EncoderSettings {
                bitrate: script.pick(&[32_000, 8_000, 64_000]),
                fec: script.flag(),
                dtx: script.flag(),
            }),
            ..ConnectionChange::default()
        };
        Command::ModifyConnection { id, change: Box::new(change) }
    }

    fn participant_change(&self, script: &mut Script<'_>) -> Command {
        let (conference, connection) = (self.any_conference(script), self.any_connection(script));
        let change = ParticipantChange {
            muted: script.option(Script::flag),
            deaf: script.option(Script::flag),
            gain_db: script.option(|script| i16::from(script.byte().cast_signed())),
            output_gain_db: script.option(|script| i16::from(script.byte().cast_signed())),
            agc: script.option(Script::flag),
            noise_suppression: script.option(|script| script.below(8) == 1),
            role: script.option(|script| script.pick(&ROLES)),
            tariff_tone: script.option(Script::flag),
        };
        Command::SetParticipant { conference, connection, change }
    }

    pub(super) fn start_operation(&mut self, script: &mut Script<'_>) {
        let target = self.any_target(script);
        self.generation += 1;
        let id = OperationId::new(SHARD, 0, self.generation);
        let until = conditions(script);
        let operation = match script.below(10) {
            0..=2 => OperationSpec::Play {
                playlist: Box::new(playlist(script)),
                volume: script.option(|script| script.byte().cast_signed()),
                speed: script.option(|script| script.byte().cast_signed()),
                isolate: script.below(4) == 1,
                until,
            },
            3 => OperationSpec::Tone {
                tone: ToneSpec { first: tone(script), second: script.option(tone) },
                duration_ms: script.option(Script::millis),
                isolate: script.below(4) == 1,
                until,
            },
            4 | 5 => OperationSpec::Record { queue: self.queue(script), until },
            6 => OperationSpec::RecordCall {
                queue: self.queue(script),
                caller: self.any_connection(script),
                called: self.any_connection(script),
                until,
            },
            7 => OperationSpec::GatherDigits { flush: script.flag(), until },
            8 => OperationSpec::DetectSilence { until },
            _ => OperationSpec::DetectNonSilence { until },
        };
        self.begin(id, target, operation);
    }

    fn queue(&mut self, script: &mut Script<'_>) -> Arc<RecordQueue> {
        let queue = Arc::new(RecordQueue::with_rate(script.pick(&Rate::ALL), 1 + usize::from(script.below(8))));
        queue.failed.store(script.below(8) == 1, Ordering::Release);
        self.queues.push(Arc::clone(&queue));
        queue
    }

    /// Takes a connection, a relay or a conference away and, mostly, brings it back in another place.
    pub(super) fn relocate(&mut self, script: &mut Script<'_>) {
        self.catch_up();
        let target = self.any_target(script);
        if let (Target::Connection(id), 1) = (target, script.below(8)) {
            self.engine.fail_connection(self.now, id);
            self.drain();
            return;
        }
        let Some(group) = self.engine.group_of(target) else { return };
        let Some(departure) = self.engine.depart(target) else { panic!("{target:?} can move, and does not") };
        self.drain();
        let mut connected = Vec::new();
        for (_, slot) in &group {
            self.slots.remove(slot);
            connected.push(self.connected.remove(&Port::rtp(*slot).index()));
        }
        let conference = if let Target::Conference(id) = target { Some(id) } else { None };
        self.rooms.retain(|_, id| Some(*id) != conference);
        let free = |slot: &u32| !self.slots.contains_key(slot);
        let places: Vec<_> = (GUEST_SLOTS..ENGINE_SLOTS).filter(free).take(group.len()).collect();
        let room = (CONFERENCES..ENGINE_CONFERENCES).find(|slot| !self.rooms.contains_key(slot));
        if script.below(8) == 1 || places.len() < group.len() || (conference.is_some() && room.is_none()) {
            self.engine.abandon(self.now, departure);
            self.drain();
            return;
        }
        for ((id, _), slot) in group.iter().zip(&places) {
            self.slots.insert(*slot, *id);
        }
        let room = room.zip(conference);
        self.rooms.extend(room);
        let adopted = self.engine.adopt(self.now, departure, &places, room.map(|(slot, _)| slot));
        assert!(adopted.is_ok(), "the slots are free");
        self.drain();
        for (slot, connected) in places.iter().zip(connected) {
            let reconnected = self.connected.get(&Port::rtp(*slot).index()).copied();
            assert_eq!(connected, reconnected, "a connected socket stays connected");
        }
    }

    fn any_connection(&self, script: &mut Script<'_>) -> ConnectionId {
        any(script, &self.ledger.connections(), &self.connections)
            .unwrap_or_else(|| ConnectionId::new(SHARD, 3, u32::MAX))
    }

    fn any_conference(&self, script: &mut Script<'_>) -> ConferenceId {
        any(script, &self.ledger.conferences(), &self.conferences)
            .unwrap_or_else(|| ConferenceId::new(SHARD, 3, u32::MAX))
    }

    fn any_operation(&self, script: &mut Script<'_>) -> OperationId {
        any(script, &[], &self.operations).unwrap_or_else(|| OperationId::new(SHARD, 3, u32::MAX))
    }

    fn any_target(&self, script: &mut Script<'_>) -> Target {
        if script.flag() {
            Target::Conference(self.any_conference(script))
        } else {
            Target::Connection(self.any_connection(script))
        }
    }
}

/// One of those that live, or now and then one that may have gone.
fn any<T: Copy>(script: &mut Script<'_>, live: &[T], all: &[T]) -> Option<T> {
    let byte = script.byte();
    let from = if live.is_empty() || byte >= 0xF0 { all } else { live };
    // The latest are the likeliest to live.
    from.iter().rev().copied().nth(usize::from(byte & 0xF) % from.len().max(1))
}

fn codec(script: &mut Script<'_>) -> (CodecKind, u8) {
    let codec = script.pick(&CODECS);
    // What can be told from RTCP (RFC 5761 section 4).
    let payload_type =
        if script.below(8) == 1 { script.byte() % 64 } else { codec.static_payload_type().unwrap_or(96) };
    (codec, payload_type)
}

/// Not so long that its deadline could not be waited for at the end.
fn timeout(script: &mut Script<'_>) -> u32 {
    1 + script.millis() % 60_000
}

fn delay(script: &mut Script<'_>) -> DelaySpec {
    let (a, b) = (script.word() % (DELAY_MS_MAX + 1), script.word() % (DELAY_MS_MAX + 1));
    DelaySpec { min_ms: a.min(b), max_ms: a.max(b) }
}

fn adjustment(script: &mut Script<'_>) -> PlayAdjust {
    let steps = script.byte().cast_signed();
    match script.below(5) {
        0 => PlayAdjust::VolumeTo(steps),
        1 => PlayAdjust::VolumeBy(steps),
        2 => PlayAdjust::SpeedTo(steps),
        3 => PlayAdjust::SpeedBy(steps),
        _ => PlayAdjust::Toggle(script.pick(&[
            VolumeToggle::Switch,
            VolumeToggle::Origin,
            VolumeToggle::Last,
            VolumeToggle::Reset,
        ])),
    }
}

fn digits(script: &mut Script<'_>) -> Digits {
    (0..script.below(33)).map(|_| script.pick(DIGITS)).collect()
}

fn set(script: &mut Script<'_>) -> Option<DigitSet> {
    DigitSet::parse(digits(script).as_str())
}

fn conditions(script: &mut Script<'_>) -> StopConditions {
    let which = script.byte();
    StopConditions {
        max_time_ms: (which & 1 != 0).then(|| script.millis()),
        digits_max: (which & 2 != 0).then(|| script.byte()),
        digit: if which & 4 != 0 { set(script) } else { None },
        digit_list: if which & 8 != 0 { set(script) } else { None },
        digit_pattern: (which & 16 != 0).then(|| digits(script)),
        inter_digit_ms: (which & 32 != 0).then(|| script.millis()),
        silence_ms: (which & 64 != 0).then(|| script.millis()),
        nonsilence_ms: (which & 128 != 0).then(|| script.millis()),
        timeout_ms: script.option(Script::millis),
    }
}

const fn conditions_of(operation: &OperationSpec) -> &StopConditions {
    match operation {
        OperationSpec::Play { until, .. }
        | OperationSpec::Tone { until, .. }
        | OperationSpec::Record { until, .. }
        | OperationSpec::RecordCall { until, .. }
        | OperationSpec::GatherDigits { until, .. }
        | OperationSpec::DetectSilence { until }
        | OperationSpec::DetectNonSilence { until } => until,
    }
}

fn tone(script: &mut Script<'_>) -> (u16, i8) {
    (200 + script.word() % 2_801, -i8::try_from(script.below(41)).unwrap_or(0))
}

fn playlist(script: &mut Script<'_>) -> Playlist {
    let prompts = (0..script.below(4)).map(|_| {
        let (len, loud) = (usize::from(script.word()) % 12_000, script.word().cast_signed());
        let samples = (0..len).map(|n| if n / 20 % 2 == 0 { loud } else { loud.wrapping_neg() });
        if script.below(3) > 0 {
            return Prompt::Whole(samples.collect());
        }
        let stream = PromptStream::new(8);
        let samples: Vec<i16> = samples.collect();
        for chunk in samples.chunks(usize::from(script.byte()).clamp(1, 160)) {
            // What does not fit never comes.
            stream.chunks.push(Chunk::new(chunk)).ok();
        }
        stream.finished.store(script.below(4) > 0, Ordering::Release);
        stream.failed.store(script.below(4) == 1, Ordering::Release);
        Prompt::Stream(Arc::new(stream))
    });
    let prompts = prompts.collect();
    Playlist { prompts, rate: script.pick(&Rate::ALL) }
}
