//! Packets that come: which are taken, and what they tell.

use core::time::Duration;

use ringbridge_codec::CodecError;
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use super::store::{FAR, Kind, SLOTS_MIN, Slot};
use super::{Playout, State, low_bits};
use crate::event::DropReason;
use crate::limits::AHEAD_MS_MAX;
use crate::time::Instant;

impl Playout {
    pub(super) fn refuse(&mut self, error: CodecError) -> DropReason {
        match error {
            CodecError::Failed => {
                self.failed = true;
                DropReason::PayloadType
            }
            CodecError::Unavailable => DropReason::PayloadType,
            CodecError::Payload | CodecError::Length => DropReason::PayloadSize,
        }
    }

    pub(super) fn accept(
        &mut self,
        now: Instant,
        slot: Slot,
        timestamp: RtpTimestamp,
        marker: bool,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let ticks = self.ticks_at(now);
        let mut slot = slot;
        if !self.begun {
            self.begin_timeline(slot.sequence, timestamp);
        }
        slot.position = self.position_of(timestamp);
        slot.sequence = self.number_of(slot.sequence, slot.position);
        let distance = slot.sequence.distance_from(self.next);
        if let Some(known) = self.store.get(slot.sequence)
            && (known.position == slot.position || (distance >= 0 && self.state != State::Idle))
        {
            return Err(DropReason::Duplicate);
        }
        if let Some(reason) = self.outside_reason(&slot, distance) {
            if reason == DropReason::Late {
                self.cold.counters.late += 1;
                if slot.kind == Kind::Audio && distance > -FAR {
                    self.estimator.observe(ticks, slot.position);
                    self.set_target();
                }
            }
            if self.outside == 0 {
                self.cold.outside_since = now;
            }
            self.outside = self.outside.saturating_add(1);
            let lasts = now.saturating_since(self.cold.outside_since) >= RESYNC_TIME;
            if self.outside < RESYNC_PACKETS || !lasts {
                return Err(reason);
            }
            // The sender has begun a new timeline without saying so.
            self.discard_all();
            self.cold.counters.restarts += 1;
            self.begin_timeline(slot.sequence, timestamp);
            slot.position = self.head;
        }
        self.outside = 0;
        let begins = self.state == State::Idle;
        if begins {
            self.begin_talkspurt(ticks, &mut slot, timestamp, marker);
        }
        self.last = slot.position;
        if slot.kind == Kind::Noise && begins {
            // Nothing precedes it: it sounds now.
            self.begin_noise(payload);
            (self.head, self.next, self.newest) = (slot.position, slot.sequence.next(), slot.sequence);
            return Ok(());
        }
        self.insert(slot, payload, begins);
        if slot.kind == Kind::Audio {
            let late = self.estimator.observe(ticks, slot.position);
            self.set_target();
            if self.estimator.is_ahead() && !self.is_long(ticks) {
                self.estimator.catch_up();
            }
            if begins {
                let wait = (self.target - late).max(self.target.min(self.ticks_of(PRIME_EIGHTHS)));
                self.state = State::Waiting { until: ticks + wait };
            }
        }
        Ok(())
    }

    /// The number of a packet as if the sender had never begun to count anew: he has if its number is far from that of the
    /// newest packet, or before it, although it follows that right away.
    pub(super) fn number_of(&mut self, sequence: SeqNumber, position: i64) -> SeqNumber {
        let number = sequence.wrapping_add(self.renumbered);
        let steps = number.distance_from(self.newest);
        let follows = || {
            let newest = self.store.get(self.newest).filter(|newest| newest.kind == Kind::Audio);
            newest.is_some_and(|newest| newest.end() == position)
        };
        if self.state == State::Idle || (1..FAR).contains(&steps) || !follows() {
            return number;
        }
        let next = self.newest.next();
        self.renumbered = next.0.wrapping_sub(sequence.0);
        next
    }

    /// Why a packet can't be taken, if it can't.
    pub(super) fn outside_reason(&self, slot: &Slot, distance: i16) -> Option<DropReason> {
        let window = self.ticks_of(WINDOW_EIGHTHS);
        match self.state {
            State::Idle => {
                // Only what was sent before what was played is late; all else begins something.
                let is_straggler = slot.end() <= self.head && (-FAR..0).contains(&distance);
                return is_straggler.then_some(DropReason::Late);
            }
            // An overtaken packet may still become the first, if all fits.
            State::Waiting { .. } => {
                if slot.position < self.head - window || self.newest.distance_from(slot.sequence) >= FAR {
                    return Some(DropReason::Late);
                }
            }
            State::Playing => {
                let is_over = if slot.kind == Kind::Noise { distance < 0 } else { slot.end() <= self.head };
                if is_over || self.newest.distance_from(slot.sequence) >= FAR {
                    return Some(DropReason::Late);
                }
            }
        }
        if distance >= FAR || distance <= -FAR || slot.end() > self.head + window {
            return Some(DropReason::Early);
        }
        None
    }

    /// Nothing is known yet, or nothing that is known is of use: positions go on, from the packet at `timestamp`.
    pub(super) fn begin_timeline(&mut self, sequence: SeqNumber, timestamp: RtpTimestamp) {
        if !self.begun {
            self.head = ORIGIN;
        }
        self.begun = true;
        self.rebase(timestamp);
        (self.next, self.newest) = (sequence, sequence);
        self.store.clear();
        self.estimator.restart();
    }

    /// Has the packet at `timestamp` follow what was played.
    pub(super) fn rebase(&mut self, timestamp: RtpTimestamp) {
        self.last = self.head;
        self.origin = timestamp.0.wrapping_sub(low_bits(self.head));
    }

    pub(super) fn begin_talkspurt(&mut self, now: i64, slot: &mut Slot, timestamp: RtpTimestamp, marker: bool) {
        if slot.position < self.head {
            self.rebase(timestamp);
            slot.position = self.head;
            self.estimator.restart();
        }
        if let Some(anchor) = self.estimator.anchor() {
            let late = now - slot.position - anchor;
            let is_shifted = late < -self.ticks_of(SHIFT_EARLY_EIGHTHS)
                || late > self.ticks_of(WINDOW_EIGHTHS)
                || (marker && late > self.ticks_of(SHIFT_LATE_EIGHTHS));
            if is_shifted {
                self.estimator.restart();
            }
        }
        let distance = slot.sequence.distance_from(self.next);
        if !(0..i16::try_from(SLOTS_MIN).unwrap_or(0)).contains(&distance) {
            self.store.clear();
        }
        (self.head, self.next, self.newest) = (slot.position, slot.sequence, slot.sequence);
        (self.made, self.dry_frames, self.rest) = (0, 0, 0);
        self.cold.counters.talkspurts += 1;
    }

    pub(super) fn insert(&mut self, slot: Slot, payload: &[u8], begins: bool) {
        let is_waiting = begins || matches!(self.state, State::Waiting { .. });
        if slot.sequence.distance_from(self.next) < 0 {
            self.next = slot.sequence;
        }
        if is_waiting && slot.kind == Kind::Audio {
            self.head = self.head.min(slot.position);
        }
        if slot.sequence.is_newer_than(self.newest) {
            self.newest = slot.sequence;
        }
        let span = self.newest.0.wrapping_sub(self.next.0).wrapping_add(1);
        let slots = self.store.slots();
        // What was heard has to stay long enough for a hole to look back at it.
        let heard = i64::from(slots - span.min(slots)) * i64::from(slot.ticks);
        let is_short = slots < HISTORY_SLOTS_MAX && heard < self.ticks_of(HISTORY_EIGHTHS);
        if span > slots {
            self.store.reserve(span);
        } else if is_short && self.source.is_stateless() && slot.kind == Kind::Audio {
            self.store.reserve(slots + 1);
        } else if slot.sequence.0.is_multiple_of(SHRINK_PACKETS) && slots / 4 >= span {
            self.store.shrink(slots / 2, self.newest);
        }
        self.store.insert(slot, payload);
    }
}

/// Where the first timeline begins: far from zero, so that an earlier packet has a place too.
const ORIGIN: i64 = 1 << 40;
/// Packets outside the buffer in a row that mean a new timeline,
const RESYNC_PACKETS: u8 = 3;
/// if it took them this long: a burst that runs ahead of the buffer is over sooner.
const RESYNC_TIME: Duration = Duration::from_millis(20);
/// Slots up to which the ring grows for what was heard: packets of 2.5 ms.
const HISTORY_SLOTS_MAX: u16 = 32;
/// A ring that is larger than it needs to be is halved once in so many packets.
const SHRINK_PACKETS: u16 = 64;

// Times in eighths of a millisecond.

/// A talkspurt waits for so long at least, however late it came: what it is compared with may be another timeline.
const PRIME_EIGHTHS: u16 = 20 * 8;
/// What a sender may be ahead of time.
pub(super) const WINDOW_EIGHTHS: u32 = AHEAD_MS_MAX as u32 * 8;
/// A talkspurt that begins so much too early is on another timeline,
const SHIFT_EARLY_EIGHTHS: u16 = 100 * 8;
/// or so much too late, if it says itself that it is one.
const SHIFT_LATE_EIGHTHS: u16 = 100 * 8;
/// What is kept of what was played.
const HISTORY_EIGHTHS: u16 = 40 * 8;
