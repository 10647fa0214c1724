//! Carries out commands. Each checks everything first: a command that fails has changed nothing.

mod conferences;
mod connections;
mod operations;
mod stamps;

use crate::command::{Command, DigitSource, Target};
use crate::conference::{Cast, Conference};
use crate::connection::{Connection, Link, Media};
use crate::engine::Engine;
use crate::event::{
    Answer, CommandError, Condition, ConferenceStatus, ConnectionState, ConnectionStatus, Effect, EffectClock,
    EndReason, Event, ParticipantStatus, StreamStamp,
};
use crate::id::{ConferenceId, ConnectionId};
use crate::limits::MEDIA_POOL_MAX;
use crate::listen::InBand;
use crate::port::PortAction;
use crate::time::Instant;

type Outcome = Result<Answer, CommandError>;

impl Engine {
    pub(crate) fn execute(&mut self, received: Instant, command: Command) -> Outcome {
        self.admit(&command)?;
        match command {
            Command::CreateConnection { id, spec } => self.create_connection(id, *spec),
            Command::ModifyConnection { id, change } => self.modify_connection(id, &change),
            Command::InspectConnection { id } => self.inspect_connection(id),
            Command::ListConnections { from, limit } => Ok(self.list_connections(from, limit)),
            Command::DeleteConnection { id } => self.delete_connection(received, id),
            Command::StartRelay { a, b, transcode } => self.start_relay(received, a, b, transcode),
            Command::StopRelay { a } => self.stop_relay(received, a),
            Command::CreateConference { id, spec } => self.create_conference(id, spec),
            Command::CreatePart { id, slot, spec, parts } => self.create_part(id, slot, spec, &parts),
            Command::DropPart { conference, shard } => {
                let room = self.find_conference(conference)?;
                self.drop_part(room, shard);
                Ok(Answer::Done)
            }
            Command::CedeRole { conference, role } => self.cede_role(received, conference, role),
            Command::VacateConference { id } => self.vacate_conference(received, id),
            Command::PromoteConference { id } => self.promote_conference(id),
            Command::JoinConference { conference, connection, participant } => {
                self.join(received, conference, connection, participant)
            }
            Command::SetParticipant { conference, connection, change } => {
                self.set_participant(received, conference, connection, change)
            }
            Command::LeaveConference { conference, connection } => self.leave(received, conference, connection),
            Command::DeleteConference { id, keep_connections } => {
                self.delete_conference(received, id, keep_connections)
            }
            Command::InspectConference { id } => self.inspect_conference(id),
            Command::ListConferences { from, limit } => Ok(self.list_conferences(from, limit)),
            Command::StartOperation { id, target, operation } => self.start_operation(id, target, *operation),
            Command::StopOperation { target, operation } => self.stop_operation(received, target, operation),
            Command::AdjustPlay { target, change } => self.adjust_play(received, target, change),
            Command::SendDigits { target, digits } => self.send_digits(target, &digits),
            Command::MuteRecording { connection, operation, caller, called } => {
                self.mute_recording(received, connection, operation, caller, called)
            }
            Command::ListOperations { target } => self.list_operations(target),
        }
    }

    /// Refuses what can't be done with a connection that is reserved only, or with a hairpin.
    fn admit(&self, command: &Command) -> Result<(), CommandError> {
        let needs_endpoint = matches!(
            command,
            Command::JoinConference { .. }
                | Command::StartRelay { .. }
                | Command::StartOperation { .. }
                | Command::StopOperation { .. }
                | Command::SendDigits { .. }
        );
        let peer = if let Command::StartRelay { b, .. } = command { Some(*b) } else { None };
        let mut named = command.connection().into_iter().chain(peer).filter(|_| needs_endpoint);
        let reserved = |id: &ConnectionId| {
            let connection = self.slot_of(*id).and_then(|slot| self.connections[slot as usize].as_ref());
            connection.is_some_and(|connection| connection.reserved_until.is_some())
        };
        if let Some(id) = named.find(reserved) {
            return Err(CommandError::NotConnected(id));
        }
        if let Command::StartOperation { target: Target::Conference(id), .. } = command {
            let room = self.find_conference(*id)?;
            if self.conferences[room as usize].as_ref().is_some_and(|conference| conference.hairpin) {
                return Err(CommandError::Busy);
            }
        }
        Ok(())
    }

    // Parts of the above

    /// Releases a connection, out of whatever it is wired to.
    pub(crate) fn release_wherever(&mut self, slot: u32, reason: EndReason) {
        if let Some(Link::Conference(room)) = self.link_of(slot) {
            self.unseat(room, slot, EndReason::LastLeft);
        }
        self.release(slot, reason);
    }

    /// Releases a connection that is in no conference any more.
    fn release(&mut self, slot: u32, reason: EndReason) {
        if let Some(Link::Relay(peer)) = self.link_of(slot) {
            self.part(slot, peer);
        }
        let Some(id) = self.connections[slot as usize].as_ref().map(|connection| connection.id) else { return };
        self.end_operations(Target::Connection(id), None, Condition::AutoStop);
        self.say_bye(slot);
        let Some(mut connection) = self.connections[slot as usize].take() else { return };
        let quality = Box::new(connection.quality());
        self.adopted.remove(&id);
        if let Some(media) = &mut connection.media {
            self.out.totals.playout.add(media.playout.take_news());
        }
        if let Some(mut media) = connection.media.take().filter(|_| self.media_pool.len() < MEDIA_POOL_MAX) {
            media.recycle(&mut self.rng);
            self.media_pool.push(media);
        }
        self.out.totals.connections -= 1;
        self.out.port_actions.push_back(PortAction::Release { slot });
        self.out.push_event(Event::ConnectionEnded { id, reason, heard: connection.latch.pinned(), quality });
    }

    fn ensure_media(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if connection.media.is_none() {
            let pooled = self.media_pool.pop();
            connection.media = Some(pooled.unwrap_or_else(|| Media::new(&mut self.rng)));
            self.fit_media(slot);
        }
    }

    /// Gives a connection what it takes to find digits in its audio, or takes it away.
    fn review_listening(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if connection.spec.digit_source == DigitSource::Auto && connection.is_mixable() {
            self.ensure_media(slot);
            let media = self.connections[slot as usize].as_mut().and_then(|connection| connection.media.as_mut());
            if let Some(media) = media {
                media.in_band.get_or_insert_with(InBand::new);
            }
            return;
        }
        if let Some(media) = &mut connection.media {
            media.in_band = None;
        }
        if core::mem::take(&mut connection.listens) {
            self.review_clock(slot);
        }
    }

    /// Starts or stops the clock that drives a connection, as it is needed or not.
    fn review_clock(&mut self, slot: u32) {
        match self.link_of(slot) {
            Some(Link::Conference(room)) => self.review_conference(room),
            Some(Link::Relay(_) | Link::None) => self.review_solo(slot, None),
            None => {}
        }
    }

    /// From now on the connection sends a stream of its own.
    fn start_stream(&mut self, slot: u32) {
        let Some(media) = self.connections[slot as usize].as_mut().and_then(|c| c.media.as_mut()) else { return };
        media.owns_stream = true;
    }

    fn find(&self, id: ConnectionId) -> Result<u32, CommandError> {
        self.slot_of(id).ok_or(CommandError::UnknownConnection(id))
    }

    fn find_conference(&self, id: ConferenceId) -> Result<u32, CommandError> {
        self.room_of(id).ok_or(CommandError::UnknownConference(id))
    }

    fn find_participant(&self, conference: ConferenceId, connection: ConnectionId) -> Result<(u32, u32), CommandError> {
        let slot = self.find(connection)?;
        let room = self.find_conference(conference)?;
        if self.link_of(slot) == Some(Link::Conference(room)) {
            Ok((room, slot))
        } else {
            Err(CommandError::NotAParticipant(connection))
        }
    }

    pub(crate) fn link_of(&self, slot: u32) -> Option<Link> {
        self.connections[slot as usize].as_ref().map(|connection| connection.link)
    }

    pub(crate) fn epoch_of(&self, slot: u32) -> Instant {
        self.connections[slot as usize].as_ref().map_or(self.now, |connection| connection.created)
    }

    /// When the next frame to or from a connection is due, if a clock runs for it.
    pub(crate) fn due_of(&self, slot: u32) -> Option<Instant> {
        let connection = self.connections[slot as usize].as_ref()?;
        match connection.link {
            Link::Conference(room) => {
                self.conferences[room as usize].as_ref().filter(|room| room.running).map(Conference::next_due)
            }
            Link::Relay(_) | Link::None => connection.solo_due,
        }
    }

    // Status

    fn status_of(&self, connection: &Connection) -> ConnectionStatus {
        let state = match connection.link {
            Link::None => ConnectionState::Idle,
            Link::Relay(peer) => self.connections[peer as usize]
                .as_ref()
                .map_or(ConnectionState::Idle, |peer| ConnectionState::Relayed(peer.id)),
            Link::Conference(room) => self.conferences[room as usize]
                .as_ref()
                .map_or(ConnectionState::Idle, |room| ConnectionState::InConference(room.id)),
        };
        connection.status(state)
    }

    fn conference_status(&self, conference: &Conference) -> ConferenceStatus {
        let participants = conference.members(&self.connections).map(|(_, member)| ParticipantStatus {
            connection: member.id,
            muted: member.participant.muted,
            deaf: member.participant.deaf,
            gain_db: member.participant.gain_db,
            output_gain_db: member.participant.output_gain_db,
            agc: member.participant.agc,
            noise_suppression: member.participant.noise_suppression,
            role: member.participant.role,
            tariff_tone: member.participant.tariff_tone,
            talking: member.participant.talk.is_talking(),
            level_db: member.participant.talk.level_dbov(),
        });
        ConferenceStatus {
            id: conference.id,
            participants: participants.collect(),
            operations: conference.operations.iter().flatten().map(|operation| operation.id()).collect(),
            rate: conference.rate,
            hairpin: conference.hairpin,
            active_speaker: conference.active_speaker.current(),
            loudest: conference.loudest,
            media_time_ms: self.now.millis_since(conference.epoch),
        }
    }
}

/// What was before a participant changed.
#[derive(Clone, Copy)]
struct Before {
    cast: Cast,
    /// It could be heard.
    heard: bool,
}

pub(crate) fn effect(
    clock: EffectClock,
    epoch: Instant,
    received: Instant,
    at: Instant,
    streams: Vec<StreamStamp>,
) -> Box<Effect> {
    Box::new(Effect {
        clock,
        received_media_time_ms: received.millis_since(epoch),
        media_time_ms: at.millis_since(epoch),
        streams,
    })
}
