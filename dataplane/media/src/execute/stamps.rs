//! From which packet on a change can be heard.

use super::{Before, effect};
use crate::command::{ParticipantChange, Role};
use crate::conference::Conference;
use crate::connection::Connection;
use crate::engine::Engine;
use crate::event::{Effect, EffectClock, StreamStamp};
use crate::time::Instant;

impl Engine {
    pub(crate) fn conference_effect(&self, room: u32, received: Instant, streams: Vec<StreamStamp>) -> Box<Effect> {
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

    pub(crate) fn stamp_all(&self, room: u32, streams: &mut Vec<StreamStamp>) {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return };
        let due = self.frame_due(room);
        streams.extend(conference.members(&self.connections).filter_map(|(_, member)| member.stamp_out(due)));
    }

    /// What participants hear from the next frame on who hear a participant's change.
    pub(super) fn stamp_change(
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
    pub(super) fn stamp_without(&self, room: u32, slot: u32, streams: &mut Vec<StreamStamp>) {
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
    pub(super) fn stamp_leaving(&self, room: u32, slot: u32) -> Option<StreamStamp> {
        let prompted = self.connections[slot as usize].as_ref().is_some_and(Connection::is_played_to);
        if prompted { self.stamp_hearing(room, slot) } else { self.stamp_end(slot) }
    }

    /// The first timestamp that a connection's own stream does not send if it ends now.
    pub(super) fn stamp_end(&self, slot: u32) -> Option<StreamStamp> {
        if let Some(peer) = self.relayed_to(slot) {
            return self.stamp_relayed(peer, slot);
        }
        self.connections[slot as usize].as_ref().and_then(Connection::stamp_unsent)
    }

    /// What ends with a connection: its own stream, what it relayed, what it sent us.
    pub(super) fn stamp_release(&self, slot: u32) -> Vec<StreamStamp> {
        let Some(connection) = self.connections[slot as usize].as_ref() else { return Vec::new() };
        let mut streams: Vec<_> = match self.relayed_to(slot) {
            Some(peer) => self.stamp_relay(peer, slot),
            None => connection.stamp_unsent().into_iter().collect(),
        };
        streams.extend(connection.stamp_in());
        streams
    }

    /// The next packets of both directions of a relay, towards `b` last.
    pub(crate) fn stamp_relay(&self, a: u32, b: u32) -> Vec<StreamStamp> {
        [(a, b), (b, a)].into_iter().filter_map(|(from, to)| self.stamp_relayed(from, to)).collect()
    }

    /// The next packet relayed from one connection to another, as the latter's endpoint sees it.
    pub(super) fn stamp_relayed(&self, from: u32, to: u32) -> Option<StreamStamp> {
        let source = self.connections[from as usize].as_ref()?;
        let target = self.connections[to as usize].as_ref()?;
        if let Some(own) = target.stamp_unsent() {
            return Some(own);
        }
        let (ssrc, rtp_timestamp, sequence) = source.receiver.expected()?;
        Some(StreamStamp { connection: target.id, ssrc, outgoing: true, rtp_timestamp, sequence: Some(sequence) })
    }
}
