//! Shards without media: they answer every command plausibly, note the order in which commands came, and can be told
//! to hold still or to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringbridge_media::command::{
    Command, ConferenceSpec, ConnectionSpec, OperationKind, OperationSpec, ParticipantSpec, Role, Target,
};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{
    Answer, CommandError, Condition, ConferenceStatus, ConnectionCounters, ConnectionState, ConnectionStatus,
    DropCounters, Effect, EffectClock, EndReason, Event, OperationStatus, ParticipantStatus, StreamStamp,
};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::reports::Quality;
use ringbridge_media::samples::RecordQueue;
use ringbridge_shard::executor::{ShardConfig, ShardHandle};
use ringbridge_shard::io::IoCounters;
use ringbridge_shard::mailbox::{
    Doorbell, Mailbox, MailboxReader, MoveOrder, Moved, Outbox, ShardMessage, ShardReport,
};
use ringbridge_shard::snapshot::ShardSnapshot;

use crate::server::StartShard;

/// All pretended shards of one server.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    connections: BTreeMap<ConnectionId, Connection>,
    conferences: BTreeMap<ConferenceId, Conference>,
    operations: BTreeMap<OperationId, Operation>,
    outboxes: BTreeMap<u8, Arc<Outbox>>,
    mailboxes: BTreeMap<u8, Arc<Mailbox>>,
    held: BTreeSet<u8>,
    busy: BTreeMap<u8, f64>,
    failing: BTreeSet<u8>,
    log: Vec<String>,
    started: Vec<String>,
    forgotten: Vec<(u8, Target)>,
    starts: u32,
    refused_starts: u32,
}

struct Connection {
    shard: ShardId,
    spec: ConnectionSpec,
    state: ConnectionState,
    reserved: bool,
    digits: Digits,
    _sockets: (UdpSocket, UdpSocket),
}

struct Conference {
    shard: ShardId,
    members: BTreeMap<ConnectionId, ParticipantSpec>,
    spec: ConferenceSpec,
}

struct Operation {
    target: Target,
    kind: OperationKind,
    queue: Option<Arc<RecordQueue>>,
}

impl World {
    /// What the server starts its shards with.
    pub(crate) fn starter(&self) -> StartShard {
        let world = self.clone();
        Arc::new(move |config, doorbell| world.start(config, doorbell))
    }

    /// The shard takes no more messages from its mailbox until released.
    pub(crate) fn hold(&self, shard: u8) {
        self.state().held.insert(shard);
    }

    /// From now on the shard says that it is so busy, and its connections that they have heard something.
    pub(super) fn keep_busy(&self, shard: u8, busy: f64) {
        self.state().busy.insert(shard, busy);
    }

    /// The shard goes on.
    pub(crate) fn release(&self, shard: u8) {
        self.state().held.remove(&shard);
    }

    /// The shard fails as soon as it looks, held or not.
    pub(super) fn fail(&self, shard: u8) {
        self.state().failing.insert(shard);
    }

    /// The next `starts` starts of a shard are refused.
    pub(super) fn refuse_starts(&self, starts: u32) {
        self.state().refused_starts = starts;
    }

    /// How often a shard was started.
    pub(super) fn starts(&self) -> u32 {
        self.state().starts
    }

    /// Commands in the order carried out, by name.
    pub(super) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// What the last operation was started with, without its samples.
    pub(super) fn started(&self) -> String {
        self.state().started.last().cloned().unwrap_or_default()
    }

    /// Connections the shards were told to forget.
    pub(super) fn forgotten(&self) -> Vec<(u8, Target)> {
        self.state().forgotten.clone()
    }

    /// What a connection was created with.
    pub(super) fn spec(&self, id: &str) -> ConnectionSpec {
        self.state().connections[&ConnectionId::parse(id).expect("an id")].spec
    }

    /// A shard says something by itself.
    pub(super) fn say(&self, shard: u8, event: Event) {
        let outbox = Arc::clone(&self.state().outboxes[&shard]);
        assert!(outbox.push(ShardReport::Event(event)).is_ok());
    }

    /// An operation ends by itself.
    pub(super) fn end(&self, id: &str, condition: Condition) {
        let id = OperationId::parse(id).expect("an id");
        let mut state = self.state();
        let event = state.end(id, condition);
        let Event::OperationEnded { id, .. } = &event else { return };
        let shard = id.shard();
        state.event(shard, event);
    }

    /// Every operation on a connection comes to its natural end.
    pub(super) fn end_of_data(&self) {
        let mut state = self.state();
        let running: Vec<(OperationId, Target)> =
            state.operations.iter().map(|(id, operation)| (*id, operation.target)).collect();
        for (id, target) in running {
            let Target::Connection(connection) = target else { continue };
            let shard = state.connections[&connection].shard;
            let event = state.end(id, Condition::Eod);
            state.event(shard, event);
        }
    }

    /// How many messages wait in a shard's mailbox.
    pub(super) fn waiting(&self, shard: u8) -> usize {
        self.state().mailboxes[&shard].len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        config: ShardConfig,
        doorbell: Arc<Doorbell>,
    ) -> Result<ShardHandle, Box<dyn std::error::Error + Send + Sync>> {
        let mut state = self.state();
        if state.refused_starts > 0 {
            state.refused_starts -= 1;
            return Err("no start today".into());
        }
        state.starts += 1;
        let mailbox = Mailbox::new()?;
        let outbox = Outbox::new(doorbell);
        state.outboxes.insert(config.id.0, Arc::clone(&outbox));
        state.mailboxes.insert(config.id.0, Arc::clone(&mailbox));
        let (world, reader) = (self.clone(), MailboxReader::new(Arc::clone(&mailbox)));
        let thread = thread::spawn(move || world.run(config.id, reader));
        Ok(ShardHandle { id: config.id, mailbox, outbox, thread })
    }

    fn run(&self, shard: ShardId, mut mailbox: MailboxReader) {
        loop {
            let mut state = self.state();
            if state.failing.remove(&shard.0) {
                state.fail(shard);
                return;
            }
            let message = if state.held.contains(&shard.0) { None } else { mailbox.pop() };
            match message {
                Some(ShardMessage::Stop) => {
                    state.report(shard, ShardReport::Stopped);
                    return;
                }
                Some(ShardMessage::Panic) => {
                    state.fail(shard);
                    return;
                }
                Some(message) => state.handle(shard, message),
                None => {
                    drop(state);
                    thread::sleep(Duration::from_micros(200));
                }
            }
        }
    }
}

impl Conference {
    /// Monitors don't keep it alive.
    fn is_empty(&self) -> bool {
        self.members.values().all(|member| member.role == Role::Monitor)
    }
}

fn describe(operation: &OperationSpec) -> String {
    match operation {
        OperationSpec::Play { playlist, volume, speed, isolate, until } => {
            format!("play {} {volume:?} {speed:?} {isolate} {until:?}", playlist.prompts.len())
        }
        OperationSpec::Tone { tone, duration_ms, isolate, until } => {
            format!("tone {tone:?} {duration_ms:?} {isolate} {until:?}")
        }
        OperationSpec::Record { queue: _, until } => format!("record {until:?}"),
        OperationSpec::RecordCall { queue: _, caller, called, until } => format!("record {caller} {called} {until:?}"),
        OperationSpec::GatherDigits { flush, until } => format!("gather_digits {flush} {until:?}"),
        OperationSpec::DetectSilence { until } => format!("detect_silence {until:?}"),
        OperationSpec::DetectNonSilence { until } => format!("detect_nonsilence {until:?}"),
    }
}

impl State {
    fn report(&self, shard: ShardId, report: ShardReport) {
        assert!(self.outboxes[&shard.0].push(report).is_ok(), "the outbox has room for every answer");
    }

    fn event(&self, shard: ShardId, event: Event) {
        self.report(shard, ShardReport::Event(event));
    }

    fn fail(&mut self, shard: ShardId) {
        self.connections.retain(|_, connection| connection.shard != shard);
        self.conferences.retain(|_, conference| conference.shard != shard);
        let connections = &self.connections;
        let conferences = &self.conferences;
        self.operations.retain(|_, operation| match operation.target {
            Target::Connection(id) => connections.contains_key(&id),
            Target::Conference(id) => conferences.contains_key(&id),
        });
        self.report(shard, ShardReport::Failed { reason: "told to".into() });
    }

    fn handle(&mut self, shard: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Command(request) => {
                let result = self.carry_out(shard, request.command, None);
                self.answer(shard, request.token, result);
            }
            ShardMessage::Open { request, rtp, rtcp } => {
                let result = self.carry_out(shard, request.command, Some((rtp, rtcp)));
                self.answer(shard, request.token, result);
            }
            ShardMessage::Move(order) => {
                let moved = self.relocate(shard, &order);
                self.report(moved.shard, ShardReport::Moved(Box::new(moved)));
            }
            ShardMessage::Forget { target } => self.forgotten.push((shard.0, target)),
            ShardMessage::Snapshot { token } => {
                let snapshot = Box::new(self.snapshot(shard));
                self.report(shard, ShardReport::Snapshot { token, snapshot });
            }
            ShardMessage::Stop | ShardMessage::Panic => unreachable!("taken by the loop"),
        }
    }

    fn relocate(&mut self, shard: ShardId, order: &MoveOrder) -> Moved {
        let (group, conference) = match order.target {
            Target::Connection(id) => {
                self.log.push(format!("{shard} move {id}"));
                let group = match self.connections.get(&id).map(|moved| moved.state) {
                    Some(ConnectionState::Idle) => vec![id],
                    Some(ConnectionState::Relayed(peer)) => vec![id, peer],
                    Some(ConnectionState::InConference(_)) | None => Vec::new(),
                };
                (group, None)
            }
            Target::Conference(id) => {
                self.log.push(format!("{shard} move {id}"));
                let known = self.conferences.get_mut(&id);
                let members = known.map(|room| room.members.keys().copied().collect()).unwrap_or_default();
                (members, Some(id).filter(|id| self.conferences.contains_key(id)))
            }
        };
        let all_placed = group.iter().all(|id| order.slots.iter().any(|(placed, _)| placed == id));
        if !all_placed || (group.is_empty() && conference.is_none()) {
            return Moved { token: order.token, shard, connections: Vec::new(), conference: None, effect: None };
        }
        for id in &group {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.shard = order.to;
            }
        }
        if let Some(room) = conference.and_then(|id| self.conferences.get_mut(&id)) {
            room.shard = order.to;
        }
        let effect = Some(effect(EffectClock::Connection, &group));
        Moved { token: order.token, shard: order.to, connections: group, conference, effect }
    }

    /// The answer, and then what the command caused.
    fn answer(&mut self, shard: ShardId, token: u64, done: Result<(Answer, Vec<Event>), CommandError>) {
        match done {
            Ok((answer, events)) => {
                self.event(shard, Event::Answer { token, result: Ok(answer) });
                for event in events {
                    self.event(shard, event);
                }
            }
            Err(error) => self.event(shard, Event::Answer { token, result: Err(error) }),
        }
    }

    fn carry_out(
        &mut self,
        shard: ShardId,
        command: Command,
        sockets: Option<(UdpSocket, UdpSocket)>,
    ) -> Result<(Answer, Vec<Event>), CommandError> {
        let text = format!("{command:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default();
        self.log.push(format!("{shard} {name}"));
        let quietly = |answer| Ok((answer, Vec::new()));
        match command {
            Command::CreateConnection { id, spec } => {
                let connection = Connection {
                    shard,
                    spec: *spec,
                    state: ConnectionState::Idle,
                    reserved: spec.reserve_ms.is_some(),
                    digits: Digits::default(),
                    _sockets: sockets.expect("sockets come along"),
                };
                self.connections.insert(id, connection);
                quietly(Answer::Done)
            }
            Command::ModifyConnection { id, change } => {
                let connection = self.connection(shard, id)?;
                connection.reserved = change.reserve_ms.is_some() || (connection.reserved && change.remote.is_none());
                let spec = &mut connection.spec;
                if change.reserve_ms.is_some() {
                    (spec.remote, spec.remote_rtcp) = (None, None);
                }
                spec.remote = change.remote.or(spec.remote);
                spec.remote_rtcp = change.remote_rtcp.or(spec.remote_rtcp);
                spec.direction = change.direction.unwrap_or(spec.direction);
                spec.ptime_ms = change.ptime_ms.unwrap_or(spec.ptime_ms);
                spec.rtp_timeout_ms = change.rtp_timeout_ms.unwrap_or(spec.rtp_timeout_ms);
                (spec.rx_codec, spec.rx_payload_type) =
                    change.rx_codec.unwrap_or((spec.rx_codec, spec.rx_payload_type));
                (spec.tx_codec, spec.tx_payload_type) =
                    change.tx_codec.unwrap_or((spec.tx_codec, spec.tx_payload_type));
                spec.digit_source = change.digit_source.unwrap_or(spec.digit_source);
                quietly(Answer::Done)
            }
            Command::InspectConnection { id } => {
                self.connection(shard, id)?;
                quietly(Answer::Connection(Box::new(self.status(id))))
            }
            Command::ListConnections { from, limit } => {
                let here = self.connections.iter().filter(|(_, connection)| connection.shard == shard);
                let mut slots: Vec<ConnectionId> = here.map(|(id, _)| *id).collect();
                slots.sort_by_key(|id| id.slot());
                slots.retain(|id| id.slot() >= from as usize);
                let next = slots.get(limit as usize).map(|id| u32::try_from(id.slot()).expect("small"));
                slots.truncate(limit as usize);
                quietly(Answer::Connections { page: slots.into_iter().map(|id| self.status(id)).collect(), next })
            }
            Command::DeleteConnection { id } => {
                self.connection(shard, id)?;
                let events = self.release(id, EndReason::Deleted);
                Ok((Answer::Deleted { connections: vec![id], effect: effect(EffectClock::Connection, &[id]) }, events))
            }
            Command::StartRelay { a, b, transcode: _ } => {
                for id in [a, b] {
                    if self.connection(shard, id)?.state != ConnectionState::Idle {
                        return Err(CommandError::AlreadyJoined(id));
                    }
                }
                self.connection(shard, a)?.state = ConnectionState::Relayed(b);
                self.connection(shard, b)?.state = ConnectionState::Relayed(a);
                quietly(Answer::Effect(effect(EffectClock::Connection, &[a, b])))
            }
            Command::StopRelay { a } => {
                let ConnectionState::Relayed(b) = self.connection(shard, a)?.state else {
                    return Err(CommandError::NotAParticipant(a));
                };
                self.connection(shard, a)?.state = ConnectionState::Idle;
                self.connection(shard, b)?.state = ConnectionState::Idle;
                quietly(Answer::Effect(effect(EffectClock::Connection, &[a, b])))
            }
            Command::CreateConference { id, spec } => {
                self.conferences.insert(id, Conference { shard, members: BTreeMap::new(), spec });
                quietly(Answer::Done)
            }
            // Of parts the home has everything.
            Command::CreatePart { id, spec, .. } => {
                if shard == id.shard() {
                    self.conferences.insert(id, Conference { shard, members: BTreeMap::new(), spec });
                }
                quietly(Answer::Done)
            }
            Command::DropPart { .. } => quietly(Answer::Done),
            Command::CedeRole { .. } => quietly(Answer::Effect(effect(EffectClock::Conference, &[]))),
            Command::VacateConference { id } => {
                let events = if shard == id.shard() { self.dissolve(id, EndReason::LastLeft) } else { Vec::new() };
                Ok((Answer::Effect(effect(EffectClock::Conference, &[])), events))
            }
            Command::JoinConference { conference, connection, participant } => {
                if self.connection(shard, connection)?.state != ConnectionState::Idle {
                    return Err(CommandError::AlreadyJoined(connection));
                }
                self.usable(shard, connection)?;
                let decodable = self.connection(shard, connection)?.spec.rx_codec.is_decodable();
                let room = self.conference(conference)?;
                if room.members.len() >= room.spec.participants_max as usize {
                    return Err(CommandError::LimitReached);
                }
                if !decodable && !room.spec.hairpin {
                    return Err(CommandError::UnsupportedCodec);
                }
                assert!(!room.spec.hairpin || room.members.len() < 2, "it has to be promoted before a third joins");
                room.members.insert(connection, participant);
                self.connection(shard, connection)?.state = ConnectionState::InConference(conference);
                quietly(Answer::Effect(effect(EffectClock::Conference, &[connection])))
            }
            Command::SetParticipant { conference, connection, change } => {
                self.connection(shard, connection)?;
                let room = self.conference(conference)?;
                let hairpin = room.spec.hairpin;
                let member = room.members.get_mut(&connection).ok_or(CommandError::NotAParticipant(connection))?;
                let role = change.role.unwrap_or(member.role);
                let special = matches!(role, Role::Coach | Role::Pupil);
                if special && change.muted.unwrap_or(member.muted)
                    || role == Role::Coach && change.tariff_tone.unwrap_or(member.tariff_tone)
                    || member.role == Role::Monitor && change.role.is_some()
                {
                    return Err(CommandError::RoleConflict(connection));
                }
                assert!(!hairpin || !special, "it has to be promoted before there is a coach or pupil");
                member.role = role;
                member.tariff_tone = change.tariff_tone.unwrap_or(member.tariff_tone);
                member.muted = change.muted.unwrap_or(member.muted);
                member.gain_db = change.gain_db.unwrap_or(member.gain_db);
                quietly(Answer::Effect(effect(EffectClock::Conference, &[connection])))
            }
            Command::LeaveConference { conference, connection } => {
                self.connection(shard, connection)?;
                let room = self.conference(conference)?;
                room.members.remove(&connection).ok_or(CommandError::NotAParticipant(connection))?;
                let empty = room.is_empty();
                self.connection(shard, connection)?.state = ConnectionState::Idle;
                let mut events = Vec::new();
                if empty {
                    events = self.dissolve(conference, EndReason::LastLeft);
                }
                Ok((Answer::Effect(effect(EffectClock::Conference, &[connection])), events))
            }
            Command::DeleteConference { id, keep_connections } => {
                let members: Vec<ConnectionId> = self.conference(id)?.members.keys().copied().collect();
                let mut events = Vec::new();
                for member in &members {
                    self.connection(shard, *member)?.state = ConnectionState::Idle;
                    if !keep_connections {
                        events.extend(self.release(*member, EndReason::ConferenceDeleted));
                    }
                }
                events.extend(self.dissolve(id, EndReason::Deleted));
                let connections = if keep_connections { Vec::new() } else { members.clone() };
                Ok((Answer::Deleted { connections, effect: effect(EffectClock::Conference, &members) }, events))
            }
            Command::InspectConference { id } => {
                self.conference(id)?;
                quietly(Answer::Conference(Box::new(self.conference_status(id))))
            }
            Command::ListConferences { from: _, limit: _ } => {
                let here: Vec<_> =
                    self.conferences.iter().filter(|(_, room)| room.shard == shard).map(|(id, _)| *id).collect();
                let page = here.into_iter().map(|id| self.conference_status(id)).collect();
                quietly(Answer::Conferences { page, next: None })
            }
            Command::StartOperation { id, target, operation } => {
                self.target(shard, target)?;
                if let Target::Connection(id) = target {
                    self.usable(shard, id)?;
                }
                if let Target::Conference(id) = target {
                    assert!(!self.conference(id)?.spec.hairpin, "it has to be promoted before an operation runs on it");
                }
                let kind = operation.kind();
                self.started.push(describe(&operation));
                let (queue, until) = match *operation {
                    OperationSpec::Play { until, .. }
                    | OperationSpec::Tone { until, .. }
                    | OperationSpec::GatherDigits { until, .. }
                    | OperationSpec::DetectSilence { until }
                    | OperationSpec::DetectNonSilence { until } => (None, until),
                    OperationSpec::RecordCall { queue, caller, called, until } => {
                        if self.connection(shard, caller)?.state != ConnectionState::Relayed(called) {
                            return Err(CommandError::NotAParticipant(called));
                        }
                        (Some(queue), until)
                    }
                    OperationSpec::Record { queue, until } => (Some(queue), until),
                };
                let ends = until.max_time_ms;
                self.operations.insert(id, Operation { target, kind, queue });
                // A limit of one millisecond is over before the answer is read.
                let events = if ends == Some(1) { vec![self.end(id, Condition::MaxTime)] } else { Vec::new() };
                Ok((Answer::Done, events))
            }
            Command::StopOperation { target, operation } => {
                self.target(shard, target)?;
                let running = self
                    .operations
                    .iter()
                    .filter(|(id, running)| running.target == target && operation.is_none_or(|wanted| wanted == **id));
                let operations: Vec<OperationId> = running.map(|(id, _)| *id).collect();
                if let Some(wanted) = operation.filter(|_| operations.is_empty()) {
                    return Err(CommandError::UnknownOperation(wanted));
                }
                let heard: Vec<ConnectionId> = match target {
                    Target::Connection(id)
                        if operations.iter().any(|id| self.operations[id].kind == OperationKind::Play) =>
                    {
                        vec![id]
                    }
                    Target::Connection(_) | Target::Conference(_) => Vec::new(),
                };
                let events = operations.iter().map(|id| self.end(*id, Condition::UserStop)).collect();
                Ok((Answer::Stopped { operations, effect: effect(EffectClock::Connection, &heard) }, events))
            }
            Command::AdjustPlay { target, change } => {
                self.target(shard, target)?;
                let plays = |running: &Operation| running.target == target && running.kind == OperationKind::Play;
                if change.only_if_playing && !self.operations.values().any(plays) {
                    return Err(CommandError::UnknownOperation(OperationId::new(shard, 0, 0)));
                }
                self.started.push(format!("{:?}", change.adjust));
                quietly(Answer::Effect(effect(EffectClock::Connection, &[])))
            }
            Command::SendDigits { target, digits } => {
                self.target(shard, target)?;
                if let Target::Connection(id) = target {
                    self.usable(shard, id)?;
                    let buffer = &mut self.connection(shard, id)?.digits;
                    let mut longer = *buffer;
                    if !digits.as_bytes().iter().all(|digit| longer.push(*digit)) {
                        return Err(CommandError::LimitReached);
                    }
                    *buffer = longer;
                }
                quietly(Answer::Done)
            }
            Command::PromoteConference { id } => {
                let members: Vec<ConnectionId> = self.conference(id)?.members.keys().copied().collect();
                for member in members {
                    if !self.connection(shard, member)?.spec.rx_codec.is_decodable() {
                        return Err(CommandError::UnsupportedCodec);
                    }
                }
                self.conference(id)?.spec.hairpin = false;
                quietly(Answer::Done)
            }
            Command::MuteRecording { connection, operation, caller, called } => {
                self.connection(shard, connection)?;
                let running = self.operations.get(&operation).ok_or(CommandError::UnknownOperation(operation))?;
                assert_eq!(running.target, Target::Connection(connection), "control knows where it runs");
                if running.kind != OperationKind::Record {
                    return Err(CommandError::Unsupported);
                }
                self.started.push(format!("mute {caller} {called}"));
                quietly(Answer::Effect(effect(EffectClock::Recording, &[connection])))
            }
            Command::ListOperations { target } => {
                self.target(shard, target)?;
                let running = self.operations.iter().filter(|(_, operation)| operation.target == target);
                let statuses = running.map(|(id, operation)| OperationStatus {
                    id: *id,
                    target,
                    kind: operation.kind,
                    elapsed_ms: 10,
                });
                quietly(Answer::Operations(statuses.collect()))
            }
        }
    }

    fn connection(&mut self, shard: ShardId, id: ConnectionId) -> Result<&mut Connection, CommandError> {
        let connection = self.connections.get_mut(&id).filter(|connection| connection.shard == shard);
        connection.ok_or(CommandError::UnknownConnection(id))
    }

    fn conference(&mut self, id: ConferenceId) -> Result<&mut Conference, CommandError> {
        self.conferences.get_mut(&id).ok_or(CommandError::UnknownConference(id))
    }

    fn usable(&mut self, shard: ShardId, id: ConnectionId) -> Result<(), CommandError> {
        if self.connection(shard, id)?.reserved { Err(CommandError::NotConnected(id)) } else { Ok(()) }
    }

    fn target(&mut self, shard: ShardId, target: Target) -> Result<(), CommandError> {
        match target {
            Target::Connection(id) => self.connection(shard, id).map(|_| ()),
            Target::Conference(id) => self.conference(id).map(|_| ()),
        }
    }

    fn end(&mut self, id: OperationId, condition: Condition) -> Event {
        let operation = self.operations.remove(&id).expect("it runs");
        if let Some(queue) = &operation.queue {
            queue.finish();
        }
        let Operation { target, kind, .. } = operation;
        let digits = (kind == OperationKind::GatherDigits).then(|| Digits::parse("12#").expect("digits"));
        Event::OperationEnded { id, target, kind, condition, elapsed_ms: 42, digits, playlist: None }
    }

    fn end_all(&mut self, target: Target) -> Vec<Event> {
        let running = self.operations.iter().filter(|(_, operation)| operation.target == target);
        let running: Vec<OperationId> = running.map(|(id, _)| *id).collect();
        running.into_iter().map(|id| self.end(id, Condition::AutoStop)).collect()
    }

    fn release(&mut self, id: ConnectionId, reason: EndReason) -> Vec<Event> {
        let mut events = self.end_all(Target::Connection(id));
        let connection = self.connections.remove(&id).expect("it is there");
        match connection.state {
            ConnectionState::Idle => {}
            ConnectionState::Relayed(peer) => {
                if let Some(peer) = self.connections.get_mut(&peer) {
                    peer.state = ConnectionState::Idle;
                }
            }
            ConnectionState::InConference(room) => {
                let emptied = self.conferences.get_mut(&room).is_some_and(|conference| {
                    conference.members.remove(&id);
                    conference.is_empty()
                });
                if emptied {
                    events.extend(self.dissolve(room, EndReason::LastLeft));
                }
            }
        }
        let heard = connection.spec.remote.map(|remote| (remote, 4711));
        events.push(Event::ConnectionEnded { id, reason, heard, quality: Box::default() });
        events
    }

    fn dissolve(&mut self, id: ConferenceId, reason: EndReason) -> Vec<Event> {
        let mut events = self.end_all(Target::Conference(id));
        self.conferences.remove(&id);
        events.push(Event::ConferenceEnded { id, reason });
        events
    }

    fn status(&self, id: ConnectionId) -> ConnectionStatus {
        let connection = &self.connections[&id];
        let spec = &connection.spec;
        let operations = self.operations.iter().filter(|(_, operation)| operation.target == Target::Connection(id));
        ConnectionStatus {
            id,
            state: connection.state,
            remote: spec.remote,
            learned: None,
            remote_rtcp: spec.remote_rtcp,
            connected_socket: false,
            rx_codec: spec.rx_codec,
            tx_codec: spec.tx_codec,
            ptime_ms: spec.ptime_ms,
            direction: spec.direction,
            ssrc_in: None,
            ssrc_out: Some(7),
            counters: ConnectionCounters {
                packets_in: if self.busy.is_empty() { 0 } else { 500 },
                ..ConnectionCounters::default()
            },
            cumulative_lost: 0,
            jitter_ms: 0.5,
            quality: Quality::default(),
            level_db: None,
            operations: operations.map(|(id, _)| *id).collect(),
            reserved: connection.reserved,
            digits: connection.digits,
        }
    }

    fn conference_status(&self, id: ConferenceId) -> ConferenceStatus {
        let members = &self.conferences[&id].members;
        let participants = members.iter().map(|(connection, spec)| ParticipantStatus {
            connection: *connection,
            muted: spec.muted,
            deaf: spec.deaf,
            gain_db: spec.gain_db,
            output_gain_db: spec.output_gain_db,
            agc: spec.agc,
            noise_suppression: spec.noise_suppression,
            role: spec.role,
            tariff_tone: spec.tariff_tone,
            talking: false,
            level_db: -127,
        });
        ConferenceStatus {
            id,
            participants: participants.collect(),
            operations: Vec::new(),
            rate: self.conferences[&id].spec.rate,
            active_speaker: None,
            loudest: self.conferences[&id].spec.loudest,
            hairpin: self.conferences[&id].spec.hairpin,
            media_time_ms: 5.0,
        }
    }

    fn snapshot(&self, shard: ShardId) -> ShardSnapshot {
        let mut residence_us = Histogram::new(3).expect("three digits");
        residence_us.saturating_record(400);
        let connections = self.connections.values().filter(|connection| connection.shard == shard).count();
        let conferences = self.conferences.values().filter(|room| room.shard == shard).count();
        ShardSnapshot {
            shard,
            thread_id: 1,
            connections: connections as u64,
            conferences: conferences as u64,
            operations: self.operations.len() as u64,
            packets_in: 11,
            packets_out: 12,
            drops: DropCounters::default(),
            ticks_late: 0,
            partials_late: 0,
            partials_dropped: 0,
            encodes: 0,
            packets_direct: 0,
            events_dropped: 0,
            cpu_ns: 1000,
            busy: self.busy.get(&shard.0).copied().unwrap_or(0.0),
            io: IoCounters::default(),
            command_us: residence_us.clone(),
            residence_us,
        }
    }
}

fn effect(clock: EffectClock, connections: &[ConnectionId]) -> Box<Effect> {
    let streams = connections.iter().map(|connection| StreamStamp {
        connection: *connection,
        ssrc: 7,
        outgoing: true,
        rtp_timestamp: 160,
        sequence: Some(3),
    });
    Box::new(Effect { clock, received_media_time_ms: 1.5, media_time_ms: 20.0, streams: streams.collect() })
}
