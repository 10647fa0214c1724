//! Operations, and what runs beside them.

use core::time::Duration;

use ringbridge_codec::Rate;

use super::{Outcome, effect};
use crate::adjust::Adjustment;
use crate::command::{OperationKind, OperationSpec, PlayChange, Target};
use crate::connection::{Connection, Link, Taped};
use crate::digits::{DigitBuffer, Digits};
use crate::engine::Engine;
use crate::event::{Answer, CommandError, Condition, EffectClock, OperationStatus};
use crate::id::{ConferenceId, ConnectionId, OperationId};
use crate::op::Operation;
use crate::time::Instant;

impl Engine {
    pub(super) fn start_operation(&mut self, id: OperationId, target: Target, spec: OperationSpec) -> Outcome {
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
        // Its clock may still have the rate of one that it has left.
        self.fit_media(slot);
        let member = self.connections[slot as usize].as_mut().ok_or(unknown)?;
        let hears = member.needs_audio() || matches!(member.link, Link::Conference(_));
        let Connection { media: Some(media), digits, adjustment, .. } = member else { return Err(unknown) };
        if !hears {
            // What an earlier operation has left behind was said long ago.
            media.playout.reset();
        }
        let target = Target::Connection(connection);
        begin(&mut media.operations, id, (target, media.rate), spec, adjustment, digits)?;
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
            media.playout.reset();
        }
        other.taped = Taped::By;
        other.solo_due = due;
    }

    pub(super) fn mute_recording(
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
        let recorded = Duration::from_millis(muted.recorded_ms);
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
        if place.part.as_ref().is_some_and(|part| !part.is_home) {
            // They run at home.
            return Err(CommandError::Unsupported);
        }
        begin(
            &mut place.operations,
            id,
            (Target::Conference(conference), place.rate),
            spec,
            &mut place.adjustment,
            &mut DigitBuffer::default(),
        )?;
        self.out.totals.operations += 1;
        self.review_conference(room);
        Ok(Answer::Done)
    }

    pub(super) fn adjust_play(&mut self, received: Instant, target: Target, change: PlayChange) -> Outcome {
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

    pub(super) fn send_digits(&mut self, target: Target, digits: &Digits) -> Outcome {
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

    pub(super) fn stop_operation(&mut self, received: Instant, target: Target, only: Option<OperationId>) -> Outcome {
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

    pub(super) fn list_operations(&self, target: Target) -> Outcome {
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
    pub(super) fn end_operations(
        &mut self,
        target: Target,
        only: Option<OperationId>,
        condition: Condition,
    ) -> Vec<OperationId> {
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
                let Some(room) = self.room_of(id).and_then(|room| self.conferences[room as usize].as_mut()) else {
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
}

/// Begins an operation in a free place, on a target whose clock has that rate.
fn begin(
    places: &mut [Option<Box<Operation>>],
    id: OperationId,
    (target, clock): (Target, Rate),
    spec: OperationSpec,
    adjustment: &mut Adjustment,
    buffer: &mut DigitBuffer,
) -> Result<(), CommandError> {
    let place = places.iter_mut().find(|place| place.is_none()).ok_or(CommandError::LimitReached)?;
    if let OperationSpec::Play { volume, speed, .. } = &spec {
        adjustment.begin(*volume, *speed);
    }
    let mut operation = Box::new(Operation::new(id, target, clock, spec, buffer));
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
