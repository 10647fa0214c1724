//! Conferences and who is in them.

use super::{Before, Outcome};
use crate::command::{ConferenceSpec, ParticipantChange, ParticipantSpec, Role, Target};
use crate::conference::{Cast, Conference};
use crate::connection::{Connection, Link, Participant};
use crate::direct::Shortcut;
use crate::engine::{Engine, fall_silent};
use crate::event::{Answer, CommandError, Condition, EndReason, Event, StreamStamp};
use crate::id::{ConferenceId, ConnectionId};
use crate::limits::{HAIRPIN_MAX, PARTICIPANTS_MAX, PARTS_MAX};
use crate::parts::{Part, Parts};
use crate::time::Instant;
use crate::tones::Notice;

impl Engine {
    pub(super) fn create_conference(&mut self, id: ConferenceId, spec: ConferenceSpec) -> Outcome {
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

    pub(super) fn create_part(&mut self, id: ConferenceId, slot: u32, spec: ConferenceSpec, parts: &Parts) -> Outcome {
        if spec.hairpin {
            return Err(CommandError::Unsupported);
        }
        let is_home = id.shard() == self.shard;
        let fits = parts.shards.contains(self.shard) && parts.shards.contains(id.shard());
        let is_free = self.conferences.get(slot as usize).is_some_and(Option::is_none);
        if !fits || !is_free || parts.shards.len() > PARTS_MAX || (is_home && slot != id.slot_number()) {
            return Err(CommandError::LimitReached);
        }
        let participants_max = spec.participants_max.min(u32::try_from(PARTICIPANTS_MAX).unwrap_or(u32::MAX));
        let mut conference = Conference::new(self.now, id, ConferenceSpec { participants_max, ..spec }, 0);
        conference.epoch = Instant::from_millis(parts.epoch.as_nanos() / 1_000_000);
        conference.part = Some(Part::new(self.shard, id.shard(), parts.shards));
        if is_home {
            self.out.totals.conferences += 1;
        } else {
            self.adopted_rooms.insert(id, slot);
        }
        self.conferences[slot as usize] = Some(conference);
        Ok(Answer::Done)
    }

    pub(super) fn cede_role(&mut self, received: Instant, id: ConferenceId, role: Role) -> Outcome {
        let room = self.find_conference(id)?;
        let mut streams = Vec::new();
        self.take_role_away(room, role, &mut streams);
        Ok(Answer::Effect(self.conference_effect(room, received, streams)))
    }

    pub(super) fn vacate_conference(&mut self, received: Instant, id: ConferenceId) -> Outcome {
        let room = self.find_conference(id)?;
        let members: Vec<u32> = self.conferences[room as usize].iter().flat_map(|c| c.participants.clone()).collect();
        let streams = members.iter().filter_map(|&slot| self.stamp_leaving(room, slot)).collect();
        let effect = self.conference_effect(room, received, streams);
        self.close_conference(room, EndReason::LastLeft);
        Ok(Answer::Effect(effect))
    }

    pub(super) fn promote_conference(&mut self, id: ConferenceId) -> Outcome {
        let room = self.find_conference(id)?;
        let conference = self.conferences[room as usize].as_mut().ok_or(CommandError::UnknownConference(id))?;
        if conference.passes_on {
            return Err(CommandError::UnsupportedCodec);
        }
        // It is mixed already: nobody hears a difference.
        conference.hairpin = false;
        Ok(Answer::Done)
    }

    pub(super) fn join(
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
        if place.participants_everywhere() >= place.participants_max as usize {
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
            let spec = member.spec;
            let place = self.conferences[room as usize].as_mut().ok_or(CommandError::UnknownConference(conference))?;
            place.provide_for(&spec)?;
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
                    media.playout.reset();
                }
            }
        }
        self.fit_media(slot);
        if let Some(place) = self.conferences[room as usize].as_mut() {
            place.participants.push(slot);
            place.passes_on = !mixable;
            place.shortcut = Shortcut::new();
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
        if let Some(place) =
            self.conferences[room as usize].as_mut().filter(|place| place.participants_everywhere() > 1)
            && participant.was_audible
        {
            place.announce(self.now, Notice::Joined);
            self.tell_change(room);
        }
        self.start_stream(slot);
        let change = ParticipantChange { deaf: Some(spec.deaf), ..ParticipantChange::default() };
        self.stamp_change(room, slot, before, change, &mut streams);
        Ok(Answer::Effect(self.conference_effect(room, received, streams)))
    }

    pub(super) fn set_participant(
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
        self.fit_media(slot);
        let member = self.connections[slot as usize].as_mut().ok_or(CommandError::UnknownConnection(connection))?;
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

    pub(super) fn leave(&mut self, received: Instant, conference: ConferenceId, connection: ConnectionId) -> Outcome {
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

    pub(super) fn delete_conference(&mut self, received: Instant, id: ConferenceId, keep_connections: bool) -> Outcome {
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

    pub(super) fn inspect_conference(&self, id: ConferenceId) -> Outcome {
        let room = self.find_conference(id)?;
        let conference = self.conferences[room as usize].as_ref().ok_or(CommandError::UnknownConference(id))?;
        Ok(Answer::Conference(Box::new(self.conference_status(conference))))
    }

    pub(super) fn list_conferences(&self, from: u32, limit: u32) -> Answer {
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
        self.make_party(former, role, streams);
    }

    /// Takes a role away from who has it, if anybody here has.
    fn take_role_away(&mut self, room: u32, role: Role, streams: &mut Vec<StreamStamp>) {
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        let former = match role {
            Role::Coach => conference.cast.coach.take(),
            Role::Pupil => conference.cast.pupil.take(),
            Role::Party | Role::Monitor => None,
        };
        if let Some(former) = former {
            self.make_party(former, role, streams);
        }
    }

    fn make_party(&mut self, former: u32, role: Role, streams: &mut Vec<StreamStamp>) {
        let Some(member) = self.connections[former as usize].as_mut() else { return };
        member.participant.role = Role::Party;
        if role == Role::Coach {
            streams.extend(member.stamp_in());
        }
    }

    /// Whether a conference ends if one participant leaves: monitors alone don't keep it.
    pub(super) fn ends_without(&self, room: u32, slot: u32) -> bool {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return true };
        if conference.part.is_some() {
            // Only who knows all parts can tell.
            return false;
        }
        let is_monitor = |member: &Connection| member.participant.role == Role::Monitor;
        let leaves_monitors = self.connections[slot as usize].as_ref().is_some_and(is_monitor);
        let mut others = conference.members(&self.connections).filter(|&(other, _)| other != slot);
        if leaves_monitors { others.next().is_none() } else { others.all(|(_, other)| is_monitor(other)) }
    }

    /// Takes a connection out of its conference; the last party out ends it.
    pub(super) fn unseat(&mut self, room: u32, slot: u32, reason: EndReason) {
        self.close_direct(room);
        let due = self.due_of(slot);
        let over = self.ends_without(room, slot);
        let was_audible = self.connections[slot as usize].as_ref().is_some_and(|member| member.participant.was_audible);
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        let id = conference.id;
        conference.participants.retain(|&member| member != slot);
        conference.shortcut = Shortcut::new();
        conference.cast.remove(slot);
        if let Some(leaver) = self.connections[slot as usize].as_ref() {
            if conference.active_speaker.current() == Some(leaver.id)
                && let Some(part) = conference.part.as_deref_mut()
            {
                part.note_left(leaver.id);
            }
            conference.active_speaker.leave(leaver.id);
        }
        conference.forget_formats(&self.connections);
        self.unlink(slot, id, due);
        if over {
            self.close_conference(room, reason);
        } else {
            self.review_hairpin(room);
            self.review_conference(room);
            if let Some(conference) = self.conferences[room as usize].as_mut().filter(|_| was_audible) {
                conference.announce(self.now, Notice::Left);
            }
            self.tell_change(room);
        }
    }

    /// Ends a conference; its connections stay.
    fn close_conference(&mut self, room: u32, reason: EndReason) {
        self.close_direct(room);
        let Some(mut conference) = self.conferences[room as usize].take() else { return };
        self.adopted_rooms.remove(&conference.id);
        let is_counted = conference.part.as_ref().is_none_or(|part| part.is_home);
        self.dissolve_part(&mut conference);
        let due = conference.running.then(|| conference.next_due());
        for slot in core::mem::take(&mut conference.participants) {
            self.unlink(slot, conference.id, due);
        }
        let target = Target::Conference(conference.id);
        for operation in conference.operations.iter_mut().filter_map(Option::take) {
            self.out.end_operation(operation, target, Condition::AutoStop);
        }
        if is_counted {
            self.out.totals.conferences -= 1;
            self.out.push_event(Event::ConferenceEnded { id: conference.id, reason });
        }
    }

    fn unlink(&mut self, slot: u32, conference: ConferenceId, due: Option<Instant>) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        connection.link = Link::None;
        fall_silent(connection, conference, &mut self.out);
        if let Some(media) = &mut connection.media {
            media.in_mix = false;
            if !media.needs_audio() && !connection.listens {
                media.playout.reset();
            }
            if !media.is_played_to() {
                media.sender.discard_partial();
            }
        }
        self.fit_media(slot);
        // Operations of its own go on, on its own clock.
        self.review_solo(slot, due);
    }
}
