//! Carries out commands. Each checks everything first: a command that fails has changed nothing.

use core::time::Duration;

use crate::adjust::Adjustment;
use crate::command::{
    Command, ConferenceSpec, ConnectionChange, ConnectionSpec, DigitSource, OperationKind, OperationSpec,
    ParticipantChange, ParticipantSpec, PlayChange, Role, Target,
};
use crate::conference::{Cast, Conference};
use crate::connection::{Connection, Link, Media, Participant, Taped};
use crate::digits::{DigitBuffer, Digits};
use crate::engine::{Engine, TimerKey, arm_silence, fall_silent};
use crate::event::{
    Answer, CommandError, Condition, ConferenceStatus, ConnectionState, ConnectionStatus, Effect, EffectClock,
    EndReason, Event, OperationStatus, ParticipantStatus, StreamStamp,
};
use crate::id::{ConferenceId, ConnectionId, OperationId};
use crate::limits::{HAIRPIN_MAX, MEDIA_POOL_MAX, PARTICIPANTS_MAX, SAMPLES_PER_MS};
use crate::listen::InBand;
use crate::op::Operation;
use crate::port::{Port, PortAction};
use crate::time::Instant;
use crate::tones::Notice;

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
            Command::StartRelay { a, b } => self.start_relay(received, a, b),
            Command::StopRelay { a } => self.stop_relay(received, a),
            Command::CreateConference { id, spec } => self.create_conference(id, spec),
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

    // Connections

    fn create_connection(&mut self, id: ConnectionId, spec: ConnectionSpec) -> Outcome {
        let slot = id.slot();
        if id.shard() != self.shard || self.connections.get(slot).is_none_or(Option::is_some) {
            return Err(CommandError::LimitReached);
        }
        if !Connection::has_valid_ptime(&spec) {
            return Err(CommandError::UnsupportedCodec);
        }
        let mut connection = Connection::new(self.now, id, spec);
        arm_silence(&mut connection, id.slot_number(), &mut self.wheel);
        if let Some(due) = connection.reserved_until {
            self.wheel.arm(due, TimerKey::Reservation(id.slot_number()));
        }
        self.connections[slot] = Some(connection);
        self.out.totals.connections += 1;
        self.review_listening(id.slot_number());
        Ok(Answer::Done)
    }

    fn modify_connection(&mut self, id: ConnectionId, change: &ConnectionChange) -> Outcome {
        let slot = self.find(id)?;
        let connection = self.connections[slot as usize].as_ref().ok_or(CommandError::UnknownConnection(id))?;
        let mut spec = connection.spec;
        spec.remote = change.remote.or(spec.remote);
        spec.remote_rtcp = change.remote_rtcp.or(spec.remote_rtcp);
        (spec.rx_codec, spec.rx_payload_type) = change.rx_codec.unwrap_or((spec.rx_codec, spec.rx_payload_type));
        (spec.tx_codec, spec.tx_payload_type) = change.tx_codec.unwrap_or((spec.tx_codec, spec.tx_payload_type));
        spec.telephone_event_payload_type =
            change.telephone_event_payload_type.unwrap_or(spec.telephone_event_payload_type);
        spec.payload_types = change.payload_types.unwrap_or(spec.payload_types);
        spec.ptime_ms = change.ptime_ms.unwrap_or(spec.ptime_ms);
        spec.direction = change.direction.unwrap_or(spec.direction);
        spec.digit_source = change.digit_source.unwrap_or(spec.digit_source);
        spec.rtp_timeout_ms = change.rtp_timeout_ms.unwrap_or(spec.rtp_timeout_ms);
        if !self.may_become(slot, &spec) {
            return Err(CommandError::UnsupportedCodec);
        }
        let connection = self.connections[slot as usize].as_mut().ok_or(CommandError::UnknownConnection(id))?;
        let before = core::mem::replace(&mut connection.spec, spec);
        if let Some(media) = connection.media.as_mut().filter(|media| media.sender.is_partial()) {
            if !spec.direction.sends() {
                media.sender.discard_partial();
            } else if before.tx_codec != spec.tx_codec || spec.ptime_ms != before.ptime_ms {
                // One packet never holds two codecs: what was begun leaves as a short packet.
                self.out.ready.push_back(slot);
            }
        }
        if change.remote.is_some() && connection.reserved_until.take().is_some() {
            // Silence counts from here on.
            connection.last_heard = self.now;
        }
        if before.remote_rtcp != spec.remote_rtcp {
            connection.rtcp_learned = None;
        }
        let moved = change.remote.is_some_and(|remote| {
            before.remote != Some(remote) && connection.latch.pinned().is_none_or(|(source, _)| source != remote)
        });
        if moved {
            connection.latch.restart(spec.remote);
            connection.rtcp_learned = None;
            if connection.connected {
                connection.connected = false;
                self.out.port_actions.push_back(PortAction::Disconnect(Port::rtp(slot)));
            }
        }
        arm_silence(connection, slot, &mut self.wheel);
        let link = connection.link;
        self.review_listening(slot);
        if let Link::Conference(room) = link {
            self.review_hairpin(room);
        }
        Ok(Answer::Done)
    }

    /// Whether what a connection is wired to, and what runs on it, allows it to be so.
    fn may_become(&self, slot: u32, spec: &ConnectionSpec) -> bool {
        let Some(connection) = self.connections[slot as usize].as_ref() else { return false };
        let can_mix = Connection::can_mix(spec);
        if !Connection::has_valid_ptime(spec) || ((connection.runs_any() || connection.taped != Taped::Not) && !can_mix)
        {
            return false;
        }
        match connection.link {
            Link::Conference(room) => self.conferences[room as usize].as_ref().is_some_and(|conference| {
                let mut others = conference.members(&self.connections).filter(|&(other, _)| other != slot);
                if can_mix && !conference.passes_on {
                    true
                } else {
                    conference.hairpin && others.all(|(_, other)| Connection::can_pass_on(spec, &other.spec))
                }
            }),
            Link::Relay(_) | Link::None => true,
        }
    }

    /// Has a hairpin pass packets on, or mix, as its parties' codecs demand. They differ only while there is one party.
    fn review_hairpin(&mut self, room: u32) {
        let Some(conference) = self.conferences[room as usize].as_ref().filter(|room| room.hairpin) else { return };
        let passes_on = conference.members(&self.connections).any(|(_, member)| !member.is_mixable());
        if passes_on == conference.passes_on {
            return;
        }
        let member = conference.participants.first().copied();
        if let Some(conference) = self.conferences[room as usize].as_mut() {
            conference.passes_on = passes_on;
        }
        if let Some(slot) = member.filter(|_| !passes_on) {
            self.ensure_media(slot);
            self.start_stream(slot);
        }
    }

    fn inspect_connection(&self, id: ConnectionId) -> Outcome {
        let slot = self.find(id)?;
        let connection = self.connections[slot as usize].as_ref().ok_or(CommandError::UnknownConnection(id))?;
        Ok(Answer::Connection(Box::new(self.status_of(connection))))
    }

    fn list_connections(&self, from: u32, limit: u32) -> Answer {
        let slots = self.connections.iter().zip(0u32..).skip(from as usize);
        let mut found = slots.filter_map(|(connection, slot)| connection.as_ref().map(|connection| (connection, slot)));
        let page = found.by_ref().take(limit as usize).map(|(connection, _)| self.status_of(connection)).collect();
        let next = found.next().map(|(_, slot)| slot);
        Answer::Connections { page, next }
    }

    fn delete_connection(&mut self, received: Instant, id: ConnectionId) -> Outcome {
        let slot = self.find(id)?;
        let epoch = self.epoch_of(slot);
        let at = self.due_of(slot).unwrap_or(self.now);
        let mut streams = self.stamp_release(slot);
        if let (Some(Link::Conference(room)), None) = (self.link_of(slot), self.relayed_to(slot)) {
            self.stamp_without(room, slot, &mut streams);
        }
        self.release_wherever(slot, EndReason::Deleted);
        let effect = effect(EffectClock::Connection, epoch, received, at, streams);
        Ok(Answer::Deleted { connections: vec![id], effect })
    }

    // Relays

    fn start_relay(&mut self, received: Instant, a: ConnectionId, b: ConnectionId) -> Outcome {
        let (slot_a, slot_b) = (self.find(a)?, self.find(b)?);
        if slot_a == slot_b {
            return Err(CommandError::AlreadyJoined(a));
        }
        for (slot, id) in [(slot_a, a), (slot_b, b)] {
            if self.link_of(slot) != Some(Link::None) {
                return Err(CommandError::AlreadyJoined(id));
            }
        }
        for (slot, peer) in [(slot_a, slot_b), (slot_b, slot_a)] {
            if let Some(connection) = self.connections[slot as usize].as_mut() {
                connection.link = Link::Relay(peer);
            }
        }
        let streams = self.stamp_relay(slot_a, slot_b);
        Ok(Answer::Effect(effect(EffectClock::Connection, self.epoch_of(slot_a), received, self.now, streams)))
    }

    fn stop_relay(&mut self, received: Instant, a: ConnectionId) -> Outcome {
        let slot = self.find(a)?;
        let Some(Link::Relay(peer)) = self.link_of(slot) else { return Err(CommandError::NotAParticipant(a)) };
        let streams = self.stamp_relay(slot, peer);
        self.part(slot, peer);
        Ok(Answer::Effect(effect(EffectClock::Connection, self.epoch_of(slot), received, self.now, streams)))
    }

    /// Undoes the wiring of two relayed connections.
    fn part(&mut self, slot: u32, peer: u32) {
        for side in [slot, peer] {
            if let Some(connection) = self.connections[side as usize].as_mut() {
                connection.link = Link::None;
            }
        }
        for side in [slot, peer] {
            self.end_recording_of_call(side);
        }
    }

    /// The call is over: so is its recording, if it runs on this connection.
    fn end_recording_of_call(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_ref() else { return };
        if !matches!(connection.taped, Taped::With(_)) {
            return;
        }
        let operations = connection.media.iter().flat_map(|media| media.operations.iter().flatten());
        let recording = operations.filter(|operation| operation.records_call()).map(|operation| operation.id()).next();
        let target = connection.target();
        if recording.is_some() {
            self.end_operations(target, recording, Condition::AutoStop);
        }
        self.review_solo(slot, None);
    }

    // Conferences

    fn create_conference(&mut self, id: ConferenceId, spec: ConferenceSpec) -> Outcome {
        let slot = id.slot();
        if id.shard() != self.shard || self.conferences.get(slot).is_none_or(Option::is_some) {
            return Err(CommandError::LimitReached);
        }
        let participants_max = spec.participants_max.min(u32::try_from(PARTICIPANTS_MAX).unwrap_or(u32::MAX));
        let spec = ConferenceSpec { participants_max, ..spec };
        self.conferences[slot] = Some(Conference::new(self.now, id, spec, self.phase_next));
        self.phase_next = self.phase_next.wrapping_add(1);
        self.out.totals.conferences += 1;
        Ok(Answer::Done)
    }

    fn promote_conference(&mut self, id: ConferenceId) -> Outcome {
        let room = self.find_conference(id)?;
        let conference = self.conferences[room as usize].as_mut().ok_or(CommandError::UnknownConference(id))?;
        if conference.passes_on {
            return Err(CommandError::UnsupportedCodec);
        }
        // It is mixed already: nobody hears a difference.
        conference.hairpin = false;
        Ok(Answer::Done)
    }

    fn join(
        &mut self,
        received: Instant,
        conference: ConferenceId,
        connection: ConnectionId,
        spec: ParticipantSpec,
    ) -> Outcome {
        let slot = self.find(connection)?;
        if self.link_of(slot) != Some(Link::None) {
            return Err(CommandError::AlreadyJoined(connection));
        }
        let room = self.find_conference(conference)?;
        let place = self.conferences[room as usize].as_ref().ok_or(CommandError::UnknownConference(conference))?;
        let before = Before { cast: place.cast, heard: false };
        if place.participants.len() >= place.participants_max as usize {
            return Err(CommandError::LimitReached);
        }
        let member = self.connections[slot as usize].as_ref().ok_or(CommandError::UnknownConnection(connection))?;
        let mixable = member.is_mixable();
        if place.hairpin && place.participants.len() >= HAIRPIN_MAX {
            return Err(CommandError::Busy);
        }
        let fits = |other: &Connection| Connection::can_pass_on(&member.spec, &other.spec);
        if (!mixable || place.passes_on)
            && !(place.hairpin && place.members(&self.connections).all(|(_, other)| fits(other)))
        {
            return Err(CommandError::UnsupportedCodec);
        }
        let mut participant = Participant::new(spec).ok_or(CommandError::RoleConflict(connection))?;
        participant.was_audible = participant.is_audible() && member.spec.direction.receives();
        if place.hairpin && spec.role.needs_promotion() {
            return Err(CommandError::Busy);
        }
        if mixable {
            self.ensure_media(slot);
        }
        if let Some(member) = self.connections[slot as usize].as_mut() {
            member.link = Link::Conference(room);
            member.participant = participant;
            // From here on the conference's clock drives it.
            member.solo_due = None;
            if let Some(media) = &mut member.media {
                media.in_mix = false;
                // A recording goes on with what has arrived.
                if !media.needs_audio() && !member.listens {
                    media.jitter.reset();
                }
            }
        }
        if let Some(place) = self.conferences[room as usize].as_mut() {
            place.participants.push(slot);
            place.passes_on = !mixable;
        }
        let mut streams = Vec::new();
        if !mixable {
            if let Some(peer) = self.relayed_to(slot) {
                streams = self.stamp_relay(slot, peer);
            }
            return Ok(Answer::Effect(self.conference_effect(room, received, streams)));
        }
        self.assign_role(room, slot, spec.role, &mut streams);
        self.review_conference(room);
        if let Some(place) = self.conferences[room as usize].as_mut().filter(|place| place.participants.len() > 1)
            && participant.was_audible
        {
            place.announce(Notice::Joined);
        }
        self.start_stream(slot);
        let change = ParticipantChange { deaf: Some(spec.deaf), ..ParticipantChange::default() };
        self.stamp_change(room, slot, before, change, &mut streams);
        Ok(Answer::Effect(self.conference_effect(room, received, streams)))
    }

    fn set_participant(
        &mut self,
        received: Instant,
        conference: ConferenceId,
        connection: ConnectionId,
        change: ParticipantChange,
    ) -> Outcome {
        let (room, slot) = self.find_participant(conference, connection)?;
        let relayed_to = self.relayed_to(slot);
        let member = self.connections[slot as usize].as_mut().ok_or(CommandError::UnknownConnection(connection))?;
        let was = member.participant;
        let mut participant = was.changed(change).ok_or(CommandError::RoleConflict(connection))?;
        participant.was_audible |= participant.is_audible() && member.spec.direction.receives();
        let hairpin = self.conferences[room as usize].as_ref().is_some_and(|conference| conference.hairpin);
        if hairpin && participant.role.needs_promotion() {
            return Err(CommandError::Busy);
        }
        member.participant = participant;
        let mut streams = Vec::new();
        if participant.role != Role::Monitor
            && (change.muted.is_some() || change.gain_db.is_some() || participant.role != was.role)
        {
            streams.extend(member.stamp_in());
        }
        if let Some(peer) = relayed_to {
            streams.extend(change.muted.and_then(|_| self.stamp_relayed(slot, peer)));
            streams.extend(change.deaf.and_then(|_| self.stamp_relayed(peer, slot)));
            return Ok(Answer::Effect(self.conference_effect(room, received, streams)));
        }
        let cast = self.conferences[room as usize].as_ref().map_or_else(Cast::default, |conference| conference.cast);
        self.assign_role(room, slot, participant.role, &mut streams);
        self.stamp_change(room, slot, Before { cast, heard: was.can_be_heard() }, change, &mut streams);
        Ok(Answer::Effect(self.conference_effect(room, received, streams)))
    }

    fn leave(&mut self, received: Instant, conference: ConferenceId, connection: ConnectionId) -> Outcome {
        let (room, slot) = self.find_participant(conference, connection)?;
        let mut streams: Vec<_> = self.stamp_leaving(room, slot).into_iter().collect();
        if let Some(peer) = self.relayed_to(slot) {
            streams.extend(self.stamp_relayed(slot, peer));
        } else {
            self.stamp_without(room, slot, &mut streams);
        }
        let effect = self.conference_effect(room, received, streams);
        self.unseat(room, slot, EndReason::LastLeft);
        Ok(Answer::Effect(effect))
    }

    fn delete_conference(&mut self, received: Instant, id: ConferenceId, keep_connections: bool) -> Outcome {
        let room = self.find_conference(id)?;
        let members: Vec<u32> = self.conferences[room as usize].iter().flat_map(|c| c.participants.clone()).collect();
        let stamp = |&slot: &u32| if keep_connections { self.stamp_leaving(room, slot) } else { self.stamp_end(slot) };
        let streams: Vec<_> = members.iter().filter_map(stamp).collect();
        let effect = self.conference_effect(room, received, streams);
        let ids: Vec<_> =
            members.iter().filter_map(|&slot| self.connections[slot as usize].as_ref().map(|c| c.id)).collect();
        self.close_conference(room, EndReason::Deleted);
        if keep_connections {
            return Ok(Answer::Deleted { connections: Vec::new(), effect });
        }
        for slot in members {
            self.release(slot, EndReason::ConferenceDeleted);
        }
        Ok(Answer::Deleted { connections: ids, effect })
    }

    fn inspect_conference(&self, id: ConferenceId) -> Outcome {
        let room = self.find_conference(id)?;
        let conference = self.conferences[room as usize].as_ref().ok_or(CommandError::UnknownConference(id))?;
        Ok(Answer::Conference(Box::new(self.conference_status(conference))))
    }

    fn list_conferences(&self, from: u32, limit: u32) -> Answer {
        let slots = self.conferences.iter().zip(0u32..).skip(from as usize);
        let mut found = slots.filter_map(|(conference, slot)| conference.as_ref().map(|conference| (conference, slot)));
        let page =
            found.by_ref().take(limit as usize).map(|(conference, _)| self.conference_status(conference)).collect();
        let next = found.next().map(|(_, slot)| slot);
        Answer::Conferences { page, next }
    }

    /// Gives a participant a role; whoever had it is a party from then on, and may be heard by others.
    fn assign_role(&mut self, room: u32, slot: u32, role: Role, streams: &mut Vec<StreamStamp>) {
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        let Some(former) = conference.cast.assign(slot, role) else { return };
        let Some(member) = self.connections[former as usize].as_mut() else { return };
        member.participant.role = Role::Party;
        if role == Role::Coach {
            streams.extend(member.stamp_in());
        }
    }

    /// Whether a conference ends if one participant leaves: monitors alone don't keep it.
    fn ends_without(&self, room: u32, slot: u32) -> bool {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return true };
        let is_monitor = |member: &Connection| member.participant.role == Role::Monitor;
        let leaves_monitors = self.connections[slot as usize].as_ref().is_some_and(is_monitor);
        let mut others = conference.members(&self.connections).filter(|&(other, _)| other != slot);
        if leaves_monitors { others.next().is_none() } else { others.all(|(_, other)| is_monitor(other)) }
    }

    /// Takes a connection out of its conference; the last party out ends it.
    fn unseat(&mut self, room: u32, slot: u32, reason: EndReason) {
        let due = self.due_of(slot);
        let over = self.ends_without(room, slot);
        let was_audible = self.connections[slot as usize].as_ref().is_some_and(|member| member.participant.was_audible);
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        let id = conference.id;
        conference.participants.retain(|&member| member != slot);
        conference.cast.remove(slot);
        self.unlink(slot, id, due);
        if over {
            self.close_conference(room, reason);
        } else {
            self.review_hairpin(room);
            self.review_conference(room);
            if let Some(conference) = self.conferences[room as usize].as_mut().filter(|_| was_audible) {
                conference.announce(Notice::Left);
            }
        }
    }

    /// Ends a conference; its connections stay.
    fn close_conference(&mut self, room: u32, reason: EndReason) {
        let Some(mut conference) = self.conferences[room as usize].take() else { return };
        let due = conference.running.then(|| conference.next_due());
        for slot in core::mem::take(&mut conference.participants) {
            self.unlink(slot, conference.id, due);
        }
        let target = Target::Conference(conference.id);
        for operation in conference.operations.iter_mut().filter_map(Option::take) {
            self.out.end_operation(operation, target, Condition::AutoStop);
        }
        self.out.totals.conferences -= 1;
        self.out.push_event(Event::ConferenceEnded { id: conference.id, reason });
    }

    fn unlink(&mut self, slot: u32, conference: ConferenceId, due: Option<Instant>) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        connection.link = Link::None;
        fall_silent(connection, conference, &mut self.out);
        if let Some(media) = &mut connection.media {
            media.in_mix = false;
            if !media.needs_audio() && !connection.listens {
                media.jitter.reset();
            }
            if !media.is_played_to() {
                media.sender.discard_partial();
            }
        }
        // Operations of its own go on, on its own clock.
        self.review_solo(slot, due);
    }

    // Operations

    fn start_operation(&mut self, id: OperationId, target: Target, spec: OperationSpec) -> Outcome {
        match target {
            Target::Connection(connection) => self.start_on_connection(id, connection, spec),
            Target::Conference(conference) => self.start_on_conference(id, conference, spec),
        }
    }

    fn start_on_connection(&mut self, id: OperationId, connection: ConnectionId, spec: OperationSpec) -> Outcome {
        let slot = self.find(connection)?;
        let kind = spec.kind();
        let unknown = CommandError::UnknownConnection(connection);
        let member = self.connections[slot as usize].as_ref().ok_or(unknown)?;
        if !member.is_mixable() {
            return Err(CommandError::UnsupportedCodec);
        }
        if kind.is_heard() && member.latch.target().is_none() {
            return Err(CommandError::NotConnected(connection));
        }
        let operations = member.media.as_ref().map(|media| &media.operations);
        if operations.is_some_and(|operations| operations.iter().all(Option::is_some)) {
            return Err(CommandError::LimitReached);
        }
        if member.media.as_ref().is_some_and(|media| media.excludes(kind)) {
            return Err(CommandError::Busy);
        }
        let peer = self.other_party(slot, &spec)?;
        self.ensure_media(slot);
        let member = self.connections[slot as usize].as_mut().ok_or(unknown)?;
        let hears = member.needs_audio() || matches!(member.link, Link::Conference(_));
        let Connection { media: Some(media), digits, adjustment, .. } = member else { return Err(unknown) };
        if !hears {
            // What an earlier operation has left behind was said long ago.
            media.jitter.reset();
        }
        begin(&mut media.operations, id, Target::Connection(connection), spec, adjustment, digits)?;
        self.out.totals.operations += 1;
        if kind.is_heard() {
            self.start_stream(slot);
        }
        match peer {
            Some(peer) => self.tape(slot, peer),
            None => self.review_clock(slot),
        }
        Ok(Answer::Done)
    }

    /// The other party of the call that `spec` is to record, if it is one that records a call.
    fn other_party(&self, slot: u32, spec: &OperationSpec) -> Result<Option<u32>, CommandError> {
        let OperationSpec::RecordCall { caller, called, .. } = spec else { return Ok(None) };
        let Some(connection) = self.connections[slot as usize].as_ref() else { return Ok(None) };
        let absent = if connection.id == *caller { *called } else { *caller };
        if ![*caller, *called].contains(&connection.id) {
            return Err(CommandError::NotAParticipant(connection.id));
        }
        let Link::Relay(peer) = connection.link else { return Err(CommandError::NotAParticipant(connection.id)) };
        let other = self.connections[peer as usize].as_ref().filter(|other| other.id == absent);
        let other = other.ok_or(CommandError::NotAParticipant(absent))?;
        if !other.is_mixable() {
            return Err(CommandError::UnsupportedCodec);
        }
        if connection.taped != Taped::Not {
            return Err(CommandError::Busy);
        }
        Ok(Some(peer))
    }

    /// From now on one clock drives both parties of a call, that of the first.
    fn tape(&mut self, slot: u32, peer: u32) {
        self.ensure_media(peer);
        let peer_due = self.connections[peer as usize].as_ref().and_then(|peer| peer.solo_due);
        self.review_solo(slot, peer_due);
        let due = self.due_of(slot);
        if let Some(connection) = self.connections[slot as usize].as_mut() {
            connection.taped = Taped::With(peer);
        }
        let Some(other) = self.connections[peer as usize].as_mut() else { return };
        if !other.needs_audio()
            && let Some(media) = &mut other.media
        {
            // What an earlier operation has left behind was said long ago.
            media.jitter.reset();
        }
        other.taped = Taped::By;
        other.solo_due = due;
    }

    fn mute_recording(
        &mut self,
        received: Instant,
        id: ConnectionId,
        operation: OperationId,
        caller: bool,
        called: bool,
    ) -> Outcome {
        let slot = self.find(id)?;
        let due = self.due_of(slot).unwrap_or(self.now);
        let unknown = CommandError::UnknownOperation(operation);
        let connection = self.connections[slot as usize].as_mut().ok_or(unknown)?;
        let peer = if let Taped::With(peer) = connection.taped { Some(peer) } else { None };
        let mut operations = connection.media.iter_mut().flat_map(|media| media.operations.iter_mut().flatten());
        let recording = operations.find(|running| running.id() == operation).ok_or(unknown)?;
        let muted = recording.mute(caller, called).ok_or(CommandError::Unsupported)?;
        let changed = [Some(slot).filter(|_| muted.own), peer.filter(|_| muted.other)].into_iter().flatten();
        let changed = changed.filter_map(|slot| self.connections[slot as usize].as_ref());
        let streams = changed.filter_map(Connection::stamp_in).collect();
        let recorded = Duration::from_millis(muted.samples / u64::from(SAMPLES_PER_MS));
        Ok(Answer::Effect(effect(EffectClock::Recording, due - recorded, received, due, streams)))
    }

    fn start_on_conference(&mut self, id: OperationId, conference: ConferenceId, spec: OperationSpec) -> Outcome {
        if matches!(spec, OperationSpec::GatherDigits { .. } | OperationSpec::RecordCall { .. }) {
            // A conference has no digits of its own, and no caller.
            return Err(CommandError::Unsupported);
        }
        let room = self.find_conference(conference)?;
        let Some(place) = self.conferences[room as usize].as_mut() else {
            return Err(CommandError::UnknownConference(conference));
        };
        begin(
            &mut place.operations,
            id,
            Target::Conference(conference),
            spec,
            &mut place.adjustment,
            &mut DigitBuffer::default(),
        )?;
        self.out.totals.operations += 1;
        self.review_conference(room);
        Ok(Answer::Done)
    }

    fn adjust_play(&mut self, received: Instant, target: Target, change: PlayChange) -> Outcome {
        let mut streams = Vec::new();
        let effect = match target {
            Target::Connection(id) => {
                let slot = self.find(id)?;
                let due = self.due_of(slot).unwrap_or(self.now);
                let epoch = self.epoch_of(slot);
                let connection = self.connections[slot as usize].as_mut().ok_or(CommandError::UnknownConnection(id))?;
                let operations = connection.media.as_deref_mut().map(|media| media.operations.as_mut_slice());
                let plays = adjust(operations.unwrap_or_default(), &mut connection.adjustment, change)?;
                streams.extend(connection.stamp_out(due).filter(|_| plays));
                effect(EffectClock::Connection, epoch, received, due, streams)
            }
            Target::Conference(id) => {
                let room = self.find_conference(id)?;
                let place = self.conferences[room as usize].as_mut().ok_or(CommandError::UnknownConference(id))?;
                if adjust(&mut place.operations, &mut place.adjustment, change)? {
                    self.stamp_all(room, &mut streams);
                }
                self.conference_effect(room, received, streams)
            }
        };
        Ok(Answer::Effect(effect))
    }

    fn send_digits(&mut self, target: Target, digits: &Digits) -> Outcome {
        match target {
            Target::Connection(id) => {
                let slot = self.find(id)?;
                let connection = self.connections[slot as usize].as_mut().ok_or(CommandError::UnknownConnection(id))?;
                if !connection.digits.waiting().has_room_for(digits.len()) {
                    return Err(CommandError::LimitReached);
                }
                digits.as_bytes().iter().for_each(|&digit| connection.press(digit));
            }
            Target::Conference(id) => {
                let room = self.find_conference(id)?;
                // They are not kept: nobody gathers them.
                let operations = self.conferences[room as usize].iter_mut().flat_map(|room| room.operations.iter_mut());
                for operation in operations.flatten() {
                    digits.as_bytes().iter().for_each(|&digit| operation.press(digit, false));
                }
            }
        }
        Ok(Answer::Done)
    }

    fn stop_operation(&mut self, received: Instant, target: Target, only: Option<OperationId>) -> Outcome {
        let mut streams = Vec::new();
        let effect = match target {
            Target::Connection(id) => {
                let slot = self.find(id)?;
                let due = self.due_of(slot).unwrap_or(self.now);
                if let Some(connection) = self.connections[slot as usize].as_ref() {
                    // However many end, each stream is named once.
                    let (heard, listening): (Vec<_>, Vec<_>) =
                        connection.kinds_of(only).partition(|kind| kind.is_heard());
                    streams.extend(connection.stamp_out(due).filter(|_| !heard.is_empty()));
                    streams.extend(connection.stamp_in().filter(|_| !listening.is_empty()));
                }
                effect(EffectClock::Connection, self.epoch_of(slot), received, due, streams)
            }
            Target::Conference(id) => {
                let room = self.find_conference(id)?;
                self.stamp_all(room, &mut streams);
                self.conference_effect(room, received, streams)
            }
        };
        let stopped = self.end_operations(target, only, Condition::UserStop);
        if let (Some(id), true) = (only, stopped.is_empty()) {
            return Err(CommandError::UnknownOperation(id));
        }
        match target {
            Target::Connection(id) => {
                if let Ok(slot) = self.find(id) {
                    self.review_clock(slot);
                }
            }
            Target::Conference(id) => {
                if let Ok(room) = self.find_conference(id) {
                    self.review_conference(room);
                }
            }
        }
        Ok(Answer::Stopped { operations: stopped, effect })
    }

    fn list_operations(&self, target: Target) -> Outcome {
        let statuses = |operations: &[Option<Box<Operation>>]| -> Vec<OperationStatus> {
            operations.iter().flatten().map(|operation| operation.status(target)).collect()
        };
        Ok(Answer::Operations(match target {
            Target::Connection(id) => {
                let slot = self.find(id)?;
                let media = self.connections[slot as usize].as_ref().and_then(|connection| connection.media.as_ref());
                media.map_or_else(Vec::new, |media| statuses(&media.operations))
            }
            Target::Conference(id) => {
                let room = self.find_conference(id)?;
                self.conferences[room as usize].as_ref().map_or_else(Vec::new, |room| statuses(&room.operations))
            }
        }))
    }

    /// Ends one or all operations of a target; which.
    fn end_operations(&mut self, target: Target, only: Option<OperationId>, condition: Condition) -> Vec<OperationId> {
        // Operations on a conference gather no digits.
        let mut none = DigitBuffer::default();
        let (places, buffer): (&mut [Option<Box<Operation>>], _) = match target {
            Target::Connection(id) => {
                let Some(slot) = self.slot_of(id) else { return Vec::new() };
                let Some(Connection { media: Some(media), digits, .. }) = self.connections[slot as usize].as_mut()
                else {
                    return Vec::new();
                };
                (&mut media.operations, digits)
            }
            Target::Conference(id) => {
                let Some(room) = self.conferences.get_mut(id.slot()).and_then(Option::as_mut) else {
                    return Vec::new();
                };
                (&mut room.operations, &mut none)
            }
        };
        let mut ended = Vec::new();
        for place in places {
            let Some(operation) = place.take_if(|operation| only.is_none_or(|id| operation.id() == id)) else {
                continue;
            };
            ended.push(operation.id());
            operation.settle(condition, buffer);
            self.out.end_operation(operation, target, condition);
        }
        ended
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
        let here = id.shard() == self.shard
            && self.conferences.get(id.slot()).and_then(Option::as_ref).is_some_and(|room| room.id == id);
        if here { Ok(id.slot_number()) } else { Err(CommandError::UnknownConference(id)) }
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

    fn link_of(&self, slot: u32) -> Option<Link> {
        self.connections[slot as usize].as_ref().map(|connection| connection.link)
    }

    fn epoch_of(&self, slot: u32) -> Instant {
        self.connections[slot as usize].as_ref().map_or(self.now, |connection| connection.created)
    }

    /// When the next frame to or from a connection is due, if a clock runs for it.
    fn due_of(&self, slot: u32) -> Option<Instant> {
        let connection = self.connections[slot as usize].as_ref()?;
        match connection.link {
            Link::Conference(room) => {
                self.conferences[room as usize].as_ref().filter(|room| room.running).map(Conference::next_due)
            }
            Link::Relay(_) | Link::None => connection.solo_due,
        }
    }

    // Effect stamps

    fn conference_effect(&self, room: u32, received: Instant, streams: Vec<StreamStamp>) -> Box<Effect> {
        let Some(conference) = self.conferences[room as usize].as_ref() else {
            return effect(EffectClock::Conference, self.now, received, self.now, streams);
        };
        effect(EffectClock::Conference, conference.epoch, received, self.frame_due(room), streams)
    }

    /// When the next frame of a conference is mixed; now, if it is at rest.
    fn frame_due(&self, room: u32) -> Instant {
        let running = self.conferences[room as usize].as_ref().filter(|conference| conference.running);
        running.map_or(self.now, Conference::next_due)
    }

    /// What a participant hears from the next frame on.
    fn stamp_hearing(&self, room: u32, slot: u32) -> Option<StreamStamp> {
        let due = self.frame_due(room);
        self.connections[slot as usize].as_ref().and_then(|member| member.stamp_out(due))
    }

    fn stamp_all(&self, room: u32, streams: &mut Vec<StreamStamp>) {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return };
        let due = self.frame_due(room);
        streams.extend(conference.members(&self.connections).filter_map(|(_, member)| member.stamp_out(due)));
    }

    /// What participants hear from the next frame on who hear a participant's change.
    fn stamp_change(
        &self,
        room: u32,
        slot: u32,
        before: Before,
        change: ParticipantChange,
        streams: &mut Vec<StreamStamp>,
    ) {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return };
        let Some(changed) = self.connections[slot as usize].as_ref().map(|member| member.participant) else { return };
        let due = self.frame_due(room);
        let (was, is) = (before.cast, conference.cast);
        let differs = |listener: u32| {
            // Others than the one that changes begin or cease to be heard only as coach, and a coach is never muted.
            let others = [was.coach, is.coach].into_iter().flatten().filter(|&speaker| speaker != slot);
            (before.heard && was.hears(listener, slot)) != (changed.can_be_heard() && is.hears(listener, slot))
                || others.into_iter().any(|speaker| was.hears(listener, speaker) != is.hears(listener, speaker))
        };
        let revoiced = (change.muted.is_some() || change.gain_db.is_some()) && changed.role != Role::Monitor;
        let hears =
            |listener: u32| differs(listener) || (revoiced && (was.hears(listener, slot) || is.hears(listener, slot)));
        let touched = |listener: u32, member: &Connection| {
            (listener == slot && (change.deaf.is_some() || change.tariff_tone.is_some()))
                || (!member.participant.deaf && hears(listener))
        };
        let members = conference.members(&self.connections).filter(|&(listener, member)| touched(listener, member));
        streams.extend(members.filter_map(|(_, member)| member.stamp_out(due)));
    }

    /// What all others hear from the next frame on if a participant leaves; nothing more, if that ends the conference.
    fn stamp_without(&self, room: u32, slot: u32, streams: &mut Vec<StreamStamp>) {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return };
        let Some(leaver) = self.connections[slot as usize].as_ref() else { return };
        let mut others = conference.members(&self.connections).filter(|&(listener, _)| listener != slot);
        if self.ends_without(room, slot) {
            streams.extend(others.filter_map(|(monitor, _)| self.stamp_leaving(room, monitor)));
        } else if leaver.participant.role != Role::Monitor {
            let due = self.frame_due(room);
            // Also to those who don't hear a coach.
            let tone = leaver.participant.was_audible && conference.announces();
            let hear = others.by_ref().filter(|&(listener, other)| {
                !other.participant.deaf && (tone || conference.cast.hears(listener, slot))
            });
            streams.extend(hear.filter_map(|(_, other)| other.stamp_out(due)));
        }
    }

    /// What a participant who goes is not sent any more; a prompt of his own goes on.
    fn stamp_leaving(&self, room: u32, slot: u32) -> Option<StreamStamp> {
        let prompted = self.connections[slot as usize].as_ref().is_some_and(Connection::is_played_to);
        if prompted { self.stamp_hearing(room, slot) } else { self.stamp_end(slot) }
    }

    /// The first timestamp that a connection's own stream does not send if it ends now.
    fn stamp_end(&self, slot: u32) -> Option<StreamStamp> {
        if let Some(peer) = self.relayed_to(slot) {
            return self.stamp_relayed(peer, slot);
        }
        self.connections[slot as usize].as_ref().and_then(Connection::stamp_unsent)
    }

    /// What ends with a connection: its own stream, what it relayed, what it sent us.
    fn stamp_release(&self, slot: u32) -> Vec<StreamStamp> {
        let Some(connection) = self.connections[slot as usize].as_ref() else { return Vec::new() };
        let mut streams: Vec<_> = match self.relayed_to(slot) {
            Some(peer) => self.stamp_relay(peer, slot),
            None => connection.stamp_unsent().into_iter().collect(),
        };
        streams.extend(connection.stamp_in());
        streams
    }

    /// The next packets of both directions of a relay, towards `b` last.
    fn stamp_relay(&self, a: u32, b: u32) -> Vec<StreamStamp> {
        [(a, b), (b, a)].into_iter().filter_map(|(from, to)| self.stamp_relayed(from, to)).collect()
    }

    /// The next packet relayed from one connection to another, as the latter's endpoint sees it.
    fn stamp_relayed(&self, from: u32, to: u32) -> Option<StreamStamp> {
        let source = self.connections[from as usize].as_ref()?;
        let target = self.connections[to as usize].as_ref()?;
        if let Some(own) = target.stamp_unsent() {
            return Some(own);
        }
        let (ssrc, rtp_timestamp, sequence) = source.receiver.expected()?;
        Some(StreamStamp { connection: target.id, ssrc, outgoing: true, rtp_timestamp, sequence: Some(sequence) })
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
            role: member.participant.role,
            tariff_tone: member.participant.tariff_tone,
            talking: member.participant.talk.is_talking(),
            level_db: member.participant.talk.level_dbov(),
        });
        ConferenceStatus {
            id: conference.id,
            participants: participants.collect(),
            operations: conference.operations.iter().flatten().map(|operation| operation.id()).collect(),
            hairpin: conference.hairpin,
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

/// Begins an operation in a free place.
fn begin(
    places: &mut [Option<Box<Operation>>],
    id: OperationId,
    target: Target,
    spec: OperationSpec,
    adjustment: &mut Adjustment,
    buffer: &mut DigitBuffer,
) -> Result<(), CommandError> {
    let place = places.iter_mut().find(|place| place.is_none()).ok_or(CommandError::LimitReached)?;
    if let OperationSpec::Play { volume, speed, .. } = &spec {
        adjustment.begin(*volume, *speed);
    }
    let mut operation = Box::new(Operation::new(id, target, spec, buffer));
    operation.adjust(*adjustment);
    *place = Some(operation);
    Ok(())
}

/// Changes volume or speed of every play among `operations` and of those to come; whether there is one.
fn adjust(
    operations: &mut [Option<Box<Operation>>],
    adjustment: &mut Adjustment,
    change: PlayChange,
) -> Result<bool, CommandError> {
    let plays = operations.iter().flatten().any(|operation| operation.kind() == OperationKind::Play);
    if change.only_if_playing && !plays {
        return Err(CommandError::NothingPlaying);
    }
    adjustment.apply(change.adjust);
    operations.iter_mut().flatten().for_each(|operation| operation.adjust(*adjustment));
    Ok(plays)
}

fn effect(
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
