//! Connections and relays.

use super::{Outcome, effect};
use crate::command::{ConnectionChange, ConnectionSpec};
use crate::connection::{Connection, Link, Taped, reserved_until};
use crate::engine::{Engine, arm_reservation, arm_silence};
use crate::event::{Answer, CommandError, Condition, EffectClock, EndReason};
use crate::id::ConnectionId;
use crate::port::{Port, PortAction};
use crate::time::Instant;

impl Engine {
    pub(super) fn create_connection(&mut self, id: ConnectionId, spec: ConnectionSpec) -> Outcome {
        let slot = id.slot();
        if id.shard() != self.shard || self.connections.get(slot).is_none_or(Option::is_some) {
            return Err(CommandError::LimitReached);
        }
        if !Connection::has_valid_ptime(&spec) {
            return Err(CommandError::UnsupportedCodec);
        }
        if let Some(number) = spec.payload_type_taken_for_rtcp() {
            return Err(CommandError::TakenForRtcp(number));
        }
        let mut connection = Connection::new(self.now, id, spec);
        arm_silence(&mut connection, id.slot_number(), &mut self.wheel);
        arm_reservation(&mut connection, id.slot_number(), &mut self.wheel);
        self.connections[slot] = Some(connection);
        self.out.totals.connections += 1;
        self.review_listening(id.slot_number());
        Ok(Answer::Done)
    }

    pub(super) fn modify_connection(&mut self, id: ConnectionId, change: &ConnectionChange) -> Outcome {
        let slot = self.find(id)?;
        let connection = self.connections[slot as usize].as_ref().ok_or(CommandError::UnknownConnection(id))?;
        let mut spec = connection.spec;
        if change.reserve_ms.is_some() {
            if change.remote.is_some() || !connection.is_idle() {
                return Err(CommandError::Busy);
            }
            (spec.remote, spec.remote_rtcp) = (None, None);
        }
        spec.remote = change.remote.or(spec.remote);
        spec.remote_rtcp = change.remote_rtcp.or(spec.remote_rtcp);
        (spec.rx_codec, spec.rx_payload_type) = change.rx_codec.unwrap_or((spec.rx_codec, spec.rx_payload_type));
        (spec.tx_codec, spec.tx_payload_type) = change.tx_codec.unwrap_or((spec.tx_codec, spec.tx_payload_type));
        spec.encoder = change.encoder.unwrap_or(spec.encoder);
        spec.telephone_event_payload_type =
            change.telephone_event_payload_type.unwrap_or(spec.telephone_event_payload_type);
        spec.comfort_noise_payload_type = change.comfort_noise_payload_type.unwrap_or(spec.comfort_noise_payload_type);
        spec.audio_level_extension = change.audio_level_extension.unwrap_or(spec.audio_level_extension);
        spec.mixer_level_extension = change.mixer_level_extension.unwrap_or(spec.mixer_level_extension);
        spec.delay = change.delay.unwrap_or(spec.delay);
        spec.payload_types = change.payload_types.unwrap_or(spec.payload_types);
        spec.ptime_ms = change.ptime_ms.unwrap_or(spec.ptime_ms);
        spec.direction = change.direction.unwrap_or(spec.direction);
        spec.digit_source = change.digit_source.unwrap_or(spec.digit_source);
        spec.rtp_timeout_ms = change.rtp_timeout_ms.unwrap_or(spec.rtp_timeout_ms);
        if let Some(number) = spec.payload_type_taken_for_rtcp() {
            return Err(CommandError::TakenForRtcp(number));
        }
        if !self.may_become(slot, &spec) {
            return Err(CommandError::UnsupportedCodec);
        }
        if let Some(Link::Conference(room)) = self.link_of(slot)
            && let Some(conference) = self.conferences[room as usize].as_mut().filter(|_| Connection::can_mix(&spec))
        {
            conference.provide_for(&spec)?;
        }
        let connection = self.connections[slot as usize].as_mut().ok_or(CommandError::UnknownConnection(id))?;
        let before = core::mem::replace(&mut connection.spec, spec);
        if let Some(media) = connection.media.as_mut().filter(|media| media.sender.is_partial()) {
            if !spec.direction.sends() || media.wide.is_some() {
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
        if let Some(reserve_ms) = change.reserve_ms {
            connection.reserved_until = Some(reserved_until(self.now, reserve_ms));
            arm_reservation(connection, slot, &mut self.wheel);
            // It is silent until it is complete, and whoever was heard so far is not listened to.
            connection.timed_out = false;
            connection.listens = false;
        }
        let elsewhere = change.remote.is_some_and(|remote| {
            before.remote != Some(remote) && connection.latch.pinned().is_none_or(|(source, _)| source != remote)
        });
        let moved = elsewhere || change.reserve_ms.is_some();
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
        self.fit_media(slot);
        self.review_listening(slot);
        if change.reserve_ms.is_some() {
            self.review_clock(slot);
        }
        match link {
            Link::Conference(room) => {
                if let Some(conference) = self.conferences[room as usize].as_mut() {
                    conference.forget_formats(&self.connections);
                }
                self.review_hairpin(room);
            }
            Link::Relay(peer) => self.review_transcoding(slot, peer),
            Link::None => {}
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
    pub(super) fn review_hairpin(&mut self, room: u32) {
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

    pub(super) fn inspect_connection(&self, id: ConnectionId) -> Outcome {
        let slot = self.find(id)?;
        let connection = self.connections[slot as usize].as_ref().ok_or(CommandError::UnknownConnection(id))?;
        Ok(Answer::Connection(Box::new(self.status_of(connection))))
    }

    pub(super) fn list_connections(&self, from: u32, limit: u32) -> Answer {
        let slots = self.connections.iter().zip(0u32..).skip(from as usize);
        let mut found = slots.filter_map(|(connection, slot)| connection.as_ref().map(|connection| (connection, slot)));
        let page = found.by_ref().take(limit as usize).map(|(connection, _)| self.status_of(connection)).collect();
        let next = found.next().map(|(_, slot)| slot);
        Answer::Connections { page, next }
    }

    pub(super) fn delete_connection(&mut self, received: Instant, id: ConnectionId) -> Outcome {
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

    pub(super) fn start_relay(
        &mut self,
        received: Instant,
        a: ConnectionId,
        b: ConnectionId,
        transcode: bool,
    ) -> Outcome {
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
                connection.may_transcode = transcode;
            }
        }
        self.review_transcoding(slot_a, slot_b);
        let streams = self.stamp_relay(slot_a, slot_b);
        Ok(Answer::Effect(effect(EffectClock::Connection, self.epoch_of(slot_a), received, self.now, streams)))
    }

    pub(super) fn stop_relay(&mut self, received: Instant, a: ConnectionId) -> Outcome {
        let slot = self.find(a)?;
        let Some(Link::Relay(peer)) = self.link_of(slot) else { return Err(CommandError::NotAParticipant(a)) };
        let streams = self.stamp_relay(slot, peer);
        self.part(slot, peer);
        Ok(Answer::Effect(effect(EffectClock::Connection, self.epoch_of(slot), received, self.now, streams)))
    }

    /// Has a relay decode and encode, or pass packets on, as its sides' codecs demand.
    fn review_transcoding(&mut self, a: u32, b: u32) {
        let (Some(side_a), Some(side_b)) =
            (self.connections[a as usize].as_ref(), self.connections[b as usize].as_ref())
        else {
            return;
        };
        let transcodes = side_a.may_transcode && Connection::must_transcode(&side_a.spec, &side_b.spec);
        let was = side_a.transcodes;
        if !transcodes && !was {
            return;
        }
        for side in [a, b] {
            if transcodes {
                self.ensure_media(side);
            }
            if let Some(connection) = self.connections[side as usize].as_mut() {
                connection.transcodes = transcodes;
                if !connection.needs_audio()
                    && !was
                    && let Some(media) = &mut connection.media
                {
                    // What an earlier operation has left behind was said long ago.
                    media.playout.reset();
                }
            }
        }
        for side in [a, b] {
            self.fit_media(side);
            if transcodes {
                self.start_stream(side);
            }
            self.review_solo(side, None);
        }
    }

    /// Undoes the wiring of two relayed connections.
    pub(super) fn part(&mut self, slot: u32, peer: u32) {
        for side in [slot, peer] {
            if let Some(connection) = self.connections[side as usize].as_mut() {
                connection.link = Link::None;
            }
        }
        for side in [slot, peer] {
            self.end_recording_of_call(side);
        }
        for side in [slot, peer] {
            let Some(connection) = self.connections[side as usize].as_mut() else { continue };
            if core::mem::take(&mut connection.transcodes) {
                self.fit_media(side);
                self.review_solo(side, None);
            }
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
}
