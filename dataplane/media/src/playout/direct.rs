//! Packets that are passed on as they come, and kept for when they no longer are.

use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use super::arrive::WINDOW_EIGHTHS;
use super::background::Background;
use super::store::{FAR, Kind, Slot};
use super::{Playout, State, index_of};
use crate::event::DropReason;
use crate::time::Instant;

impl Playout {
    /// Whether it plays straight from its packets, with nothing made up, put in or left out.
    pub(crate) fn is_steady(&self) -> bool {
        let is_whole = self.made == 0 && self.dry_frames == 0 && self.background == Background::Silence;
        self.state == State::Playing && !self.is_taped() && !self.failed && is_whole
    }

    /// Whether packets of so many samples of G.711 come at the pace they are played at: what waits would reach its
    /// listener ahead of time by no more than he can hold.
    pub(crate) fn is_live(&self, samples: u32) -> bool {
        let newest = self.store.get(self.newest).filter(|slot| u32::from(slot.ticks) == samples);
        !self.estimator.is_ahead()
            && newest.is_some_and(|slot| slot.end() - self.head <= self.ticks_of(BACKLOG_EIGHTHS))
    }

    /// Nothing came for a while: what comes next begins anew.
    pub(crate) fn fall_silent(&mut self) {
        if self.state == State::Playing {
            self.end_talkspurt();
        }
    }

    /// Whether no packet has been played in part.
    pub(crate) fn is_between_packets(&self) -> bool {
        self.store.get(self.next).is_none_or(|slot| slot.position >= self.head)
    }

    /// Number of the first packet that is not wholly played, and timestamp of the first sample that is not; `None`: it
    /// is not [steady](Self::is_steady).
    pub(crate) fn unplayed(&self) -> Option<(SeqNumber, u32)> {
        self.is_steady().then(|| (self.next, self.timestamp_of(self.head)))
    }

    /// Takes what is left of the next packet, undecoded: its number, its timestamp and its payload, a byte of which is a
    /// sample.
    pub(crate) fn take_packet(&mut self) -> Option<(SeqNumber, RtpTimestamp, &[u8])> {
        while self.newest.distance_from(self.next) >= 0 {
            let number = self.next;
            self.next = number.next();
            let Some(slot) = self.store.get(number).copied() else { continue };
            if slot.kind != Kind::Audio || slot.end() <= self.head {
                continue;
            }
            let from = (self.head - slot.position).max(0);
            self.head = slot.end();
            let timestamp = RtpTimestamp(self.timestamp_of(slot.position + from));
            return Some((number, timestamp, self.store.payload(&slot).get(index_of(from)..).unwrap_or_default()));
        }
        None
    }

    /// Takes a packet that is passed on now, and counts it as played. Its number, as if the sender had never begun to
    /// count anew; `None`: it holds no samples, does not follow what was played, or comes so far ahead of its time that it
    /// has to wait here.
    ///
    /// # Errors
    /// `Duplicate`: it has been passed on of late.
    pub(crate) fn follow(
        &mut self,
        now: Instant,
        sequence: SeqNumber,
        timestamp: RtpTimestamp,
        payload: &[u8],
    ) -> Option<Result<SeqNumber, DropReason>> {
        if !self.is_steady() {
            return None;
        }
        let samples = self.source.samples_in(payload).ok()?;
        let ticks = u16::try_from(samples).ok().filter(|&ticks| ticks > 0)?;
        let position = self.position_of(timestamp);
        let number = self.number_of(sequence, position);
        let (steps, span) = (number.distance_from(self.newest), position - self.head);
        let is_far = !(-FAR..FAR).contains(&steps) || span.abs() > self.ticks_of(WINDOW_EIGHTHS);
        let now = self.ticks_at(now);
        let is_early =
            self.estimator.anchor().is_some_and(|anchor| now - position < anchor - self.ticks_of(EARLY_EIGHTHS));
        if is_far || is_early || (steps > 0 && span < 0) {
            return None;
        }
        if self.store.get(number).is_some_and(|known| known.position == position) {
            return Some(Err(DropReason::Duplicate));
        }
        self.estimator.observe(now, position);
        self.set_target();
        self.pulled = now;
        // One that was overtaken is passed on all the same, and put in its place by who hears it.
        if steps > 0 {
            self.last = position;
            let slot = Slot { position, sequence: number, ticks, kind: Kind::Audio, ..Slot::default() };
            self.insert(slot, payload, false);
            (self.head, self.next) = (slot.end(), number.next());
        }
        Some(Ok(number))
    }
}

// Times in eighths of a millisecond.

/// What may wait when it begins to be passed on.
const BACKLOG_EIGHTHS: u16 = 100 * 8;
/// A packet that comes so much before its time waits until then.
const EARLY_EIGHTHS: u16 = 100 * 8;
