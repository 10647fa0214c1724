//! The adaptive jitter buffer of one incoming stream: packets in as they come, frames of 10 ms out when they are due.
//!
//! ```text
//!          ┌──────────────── 100 ms with nothing, or comfort noise ────────────────┐
//!          ▼                                                                       │
//!        Idle ──packet──▶ Waiting ──the target delay after the fastest way──▶ Playing
//! ```
//!
//! Packets are kept as they came and decoded when they are played: a codec with a state gets them in order, and a codec
//! without takes half the memory. Time is counted in units of the RTP timestamp. The *anchor* is the fastest way through
//! the network ([`estimator`]); a sample is played the *target delay* after it would have come that way:
//!
//! ```text
//!  delay = (now − anchor) − playout point        (not how much is buffered: a sender may send ahead of time)
//! ```
//!
//! The target is what nearly all packets of late would have come in time with. Where the delay is off, frames are put in
//! or left out: in silence at once, in a voice whole periods and seldom. When nothing is there the playout point stands
//! still while something is made up; a late packet is then played all the same, and the delay has grown by what was made
//! up. If instead a later packet tells that one was lost, what was made up stands for it, and the delay is what it was.
//!
//! A codec without a state is played straight from its packets while all is well; when something has to be made up, put
//! in or left out, and for a moment afterwards, over the [`tape`] of decoded samples.
//!
//! Of the crates `neteq` 0.9 does the like, but it allocates for each packet and frame, and reads a clock of its own.

use core::time::Duration;

use ringbridge_codec::{CodecError, CodecKind};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use crate::event::DropReason;
use crate::limits::{AHEAD_MS_MAX, DELAY_MS_MAX};
use crate::time::Instant;
use estimator::Estimator;
use source::Source;
use store::{Kind, SLOTS_MAX, SLOTS_MIN, Slot, Store};
use tape::Tape;

mod estimator;
mod lag;
mod source;
mod store;
mod tape;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers of our own")]
mod tests;

/// Bounds of the delay in milliseconds. A fixed delay has both equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DelaySpec {
    /// At least so long.
    pub min_ms: u16,
    /// At most so long, up to [`DELAY_MS_MAX`](crate::limits::DELAY_MS_MAX).
    pub max_ms: u16,
}

impl Default for DelaySpec {
    fn default() -> Self {
        Self { min_ms: 20, max_ms: 200 }
    }
}

/// How long what is heard has waited, and what that took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delay {
    /// What the delay ought to be.
    pub target_ms: u32,
    /// What it is: from when a sample could have come at the earliest to when it is played.
    pub current_ms: u32,
    /// What has happened.
    pub counters: Counters,
}

/// What has happened since the buffer was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets that came after they were due.
    pub late: u64,
    /// Packets that were accepted and never played: left out to shorten the delay, or of a timeline that was given up.
    pub discarded: u64,
    /// Samples put in to lengthen the delay.
    pub stretched_samples: u64,
    /// Samples left out to shorten it.
    pub compressed_samples: u64,
    /// Samples made up, for what was lost and for what was late.
    pub concealed_samples: u64,
    /// Talkspurts that began.
    pub talkspurts: u64,
    /// Timelines given up for another.
    pub restarts: u64,
}

/// What [`Playout::pull`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pulled {
    /// Whether any sample of the frame is the endpoint's.
    pub(crate) heard: bool,
    /// Whether anything in it was made up, or faded into from what was.
    pub(crate) concealed: bool,
    /// Whether it is comfort noise.
    pub(crate) noise: bool,
    /// Samples, at 8 kHz, that were missing although later ones had arrived.
    pub(crate) missing: u32,
    /// The codec failed: nothing more can be heard of this stream.
    pub(crate) failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Waiting { until: i64 },
    Playing,
}

/// The playout buffer of one incoming stream.
#[derive(Debug)]
pub(crate) struct Playout {
    state: State,
    /// Position up to which samples were taken out of packets. Less what is on the [tape](Tape) it is the playout point.
    head: i64,
    /// Position of the last accepted packet, to unwrap the next timestamp.
    last: i64,
    /// When the last frame was pulled.
    pulled: i64,
    /// What was made up since nothing was there, and may yet turn out to stand for packets that were lost.
    made: i64,
    /// The delay that is aimed at.
    target: i64,
    /// Units of the RTP timestamp in an eighth of a millisecond.
    scale: i64,
    /// Timestamp at position 0.
    origin: u32,
    /// The first packet that is not wholly taken.
    next: SeqNumber,
    /// The newest of all.
    newest: SeqNumber,
    /// Samples in a unit of the RTP timestamp.
    density: u8,
    outside: u8,
    dry_frames: u8,
    /// Frames until the delay may be corrected again.
    rest: u8,
    /// Whether there was any packet.
    begun: bool,
    /// Whether silence is comfort noise.
    noise: bool,
    failed: bool,
    spec: DelaySpec,
    store: Store,
    source: Source,
    cold: Box<Cold>,
    estimator: Estimator,
}

/// What is not looked at while all is well.
#[derive(Debug)]
struct Cold {
    tape: Box<Tape>,
    counters: Counters,
    comfort_noise: ComfortNoise,
    /// When the first packet outside the buffer came.
    outside_since: Instant,
}

/// What silence sounds like (RFC 3389 section 3).
#[derive(Clone, Copy, Debug, Default)]
struct ComfortNoise {
    payload: [u8; COMFORT_NOISE_BYTES_MAX],
    len: u8,
}

impl Playout {
    pub(crate) fn new(codec: CodecKind) -> Self {
        let mut playout = Self {
            state: State::Idle,
            head: 0,
            last: 0,
            pulled: 0,
            made: 0,
            target: 0,
            scale: i64::from(codec.clock_rate_hz() / 8000),
            origin: 0,
            next: SeqNumber(0),
            newest: SeqNumber(0),
            density: density_of(codec),
            outside: 0,
            dry_frames: 0,
            rest: 0,
            begun: false,
            noise: false,
            failed: false,
            spec: DelaySpec::default(),
            store: Store::new(),
            source: Source::new(codec),
            cold: Box::new(Cold {
                tape: Tape::new(codec.rate()),
                counters: Counters::default(),
                comfort_noise: ComfortNoise::default(),
                outside_since: Instant::ZERO,
            }),
            estimator: Estimator::new(i64::from(codec.clock_rate_hz() / 8000)),
        };
        playout.set_target();
        playout
    }

    /// Another codec from now on. What is buffered of the old one is dropped.
    pub(crate) fn set_codec(&mut self, codec: CodecKind) {
        if codec == self.source.kind() {
            return;
        }
        let old = self.source.kind();
        self.discard_all();
        self.source = Source::new(codec);
        self.failed = false;
        if codec.clock_rate_hz() == old.clock_rate_hz() {
            // The timeline goes on.
            self.state = State::Idle;
        } else {
            self.reset();
        }
        if codec.rate() != old.rate() {
            self.cold.tape = Tape::new(codec.rate());
        }
        (self.scale, self.density) = (i64::from(codec.clock_rate_hz() / 8000), density_of(codec));
        if codec.clock_rate_hz() != old.clock_rate_hz() {
            self.estimator = Estimator::new(self.scale);
        }
        self.set_target();
    }

    /// Forgets everything but the codec, the bounds of the delay and the counters: another stream begins.
    pub(crate) fn reset(&mut self) {
        self.store.clear();
        self.source.reset();
        self.cold.tape.clear();
        self.estimator = Estimator::new(self.scale);
        self.state = State::Idle;
        (self.head, self.last, self.made) = (0, 0, 0);
        (self.outside, self.dry_frames, self.rest) = (0, 0, 0);
        (self.begun, self.noise) = (false, false);
        self.set_target();
    }

    /// Bounds of the delay from now on. It moves there at its usual pace.
    pub(crate) fn set_delay(&mut self, spec: DelaySpec) {
        let max_ms = spec.max_ms.min(DELAY_MS_MAX);
        self.spec = DelaySpec { min_ms: spec.min_ms.min(max_ms), max_ms };
        self.set_target();
    }

    /// Makes it as good as new for another connection.
    pub(crate) fn recycle(&mut self) {
        self.reset();
        self.cold.counters = Counters::default();
        self.set_delay(DelaySpec::default());
    }

    /// What it decodes.
    pub(crate) const fn codec(&self) -> CodecKind {
        self.source.kind()
    }

    /// Whether there is nothing to play: every frame is silence until a packet comes.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle && !self.noise
    }

    /// Takes a packet.
    ///
    /// # Errors
    /// The reason to drop it for.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        sequence: SeqNumber,
        timestamp: RtpTimestamp,
        marker: bool,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let samples = self.source.samples_in(payload).map_err(|error| self.refuse(error))?;
        let ticks = u16::try_from(samples / usize::from(self.density)).map_err(|_| DropReason::PayloadSize)?;
        if ticks == 0 {
            return Err(DropReason::PayloadSize);
        }
        let slot = Slot { sequence, ticks, kind: Kind::Audio, ..Slot::default() };
        self.accept(now, slot, timestamp, marker, payload)
    }

    /// Takes a packet of comfort noise (RFC 3389): until the next packet of samples there is silence that sounds like it.
    ///
    /// # Errors
    /// The reason to drop it for.
    pub(crate) fn push_noise(
        &mut self,
        now: Instant,
        sequence: SeqNumber,
        timestamp: RtpTimestamp,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if payload.is_empty() {
            return Err(DropReason::PayloadSize);
        }
        let payload = &payload[..payload.len().min(COMFORT_NOISE_BYTES_MAX)];
        let slot = Slot { sequence, kind: Kind::Noise, ..Slot::default() };
        self.accept(now, slot, timestamp, false, payload)
    }

    /// Takes the next frame: 10 ms at the codec's rate. Holes are filled with what stands for them, for a while.
    pub(crate) fn pull(&mut self, now: Instant, frame: &mut [i16]) -> Pulled {
        let now = self.ticks_at(now);
        self.pulled = now;
        if !self.begin_frame(now, frame) {
            return self.rest_frame(frame);
        }
        let plain = !self.cold_is_open() && self.correction(now).is_none();
        if plain && self.play_direct(frame) {
            return Pulled { heard: true, ..Pulled::default() };
        }
        self.play_taped(now, frame)
    }

    /// Moves on by a frame that nobody wants to hear. A codec without a state is not run.
    pub(crate) fn skip(&mut self, now: Instant, scratch: &mut [i16]) -> Pulled {
        let ticks = self.ticks_at(now);
        if self.state == State::Playing && !self.cold_is_open() && self.correction(ticks).is_none() {
            let frame = self.frame_ticks();
            if self.advance_direct(frame) {
                self.pulled = ticks;
                self.rest = self.rest.saturating_sub(1);
                return Pulled { heard: true, ..Pulled::default() };
            }
        }
        self.pull(now, scratch)
    }

    /// Timestamp of the first sample that is not yet played, while there is one.
    pub(crate) fn next_timestamp(&self) -> Option<u32> {
        (self.state != State::Idle).then(|| self.timestamp_of(self.point()))
    }

    /// Whether the codec has failed.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// How long what is heard has waited, and what that took.
    pub(crate) fn delay(&self) -> Delay {
        let is_playing = self.state == State::Playing;
        // The last frame is over.
        let current = if is_playing { (self.delay_ticks(self.pulled) + self.frame_ticks()).max(0) } else { 0 };
        Delay { target_ms: self.ms_of(self.target), current_ms: self.ms_of(current), counters: self.cold.counters }
    }

    // Packets

    fn refuse(&mut self, error: CodecError) -> DropReason {
        match error {
            CodecError::Failed => {
                self.failed = true;
                DropReason::PayloadType
            }
            CodecError::Unavailable => DropReason::PayloadType,
            CodecError::Payload | CodecError::Length => DropReason::PayloadSize,
        }
    }

    fn accept(
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
        let distance = slot.sequence.distance_from(self.next);
        if let Some(known) = self.store.get(slot.sequence)
            && (known.position == slot.position || (distance >= 0 && self.state != State::Idle))
        {
            return Err(DropReason::Duplicate);
        }
        if let Some(reason) = self.outside_reason(&slot, distance) {
            if reason == DropReason::Late {
                self.cold.counters.late += 1;
                if slot.kind == Kind::Audio && distance > -i16::try_from(SLOTS_MAX).unwrap_or(i16::MAX) {
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
            if begins {
                let wait = (self.target - late).max(self.target.min(self.ticks_of(PRIME_EIGHTHS)));
                self.state = State::Waiting { until: ticks + wait };
            }
        }
        Ok(())
    }

    /// Why a packet can't be taken, if it can't.
    fn outside_reason(&self, slot: &Slot, distance: i16) -> Option<DropReason> {
        let far = i16::try_from(SLOTS_MAX - SLOTS_MIN).unwrap_or(i16::MAX);
        let window = self.ticks_of(WINDOW_EIGHTHS);
        match self.state {
            State::Idle => {
                // Only what was sent before what was played is late; all else begins something.
                let is_straggler = slot.end() <= self.head && (-far..0).contains(&distance);
                return is_straggler.then_some(DropReason::Late);
            }
            // An overtaken packet may still become the first, if all fits.
            State::Waiting { .. } => {
                if slot.position < self.head - window || self.newest.distance_from(slot.sequence) >= far {
                    return Some(DropReason::Late);
                }
            }
            State::Playing => {
                let is_over = if slot.kind == Kind::Noise { distance < 0 } else { slot.end() <= self.head };
                if is_over || self.newest.distance_from(slot.sequence) >= far {
                    return Some(DropReason::Late);
                }
            }
        }
        if distance >= far || distance <= -far || slot.end() > self.head + window {
            return Some(DropReason::Early);
        }
        None
    }

    /// Nothing is known yet, or nothing that is known is of use: positions go on, from the packet at `timestamp`.
    fn begin_timeline(&mut self, sequence: SeqNumber, timestamp: RtpTimestamp) {
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
    fn rebase(&mut self, timestamp: RtpTimestamp) {
        self.last = self.head;
        self.origin = timestamp.0.wrapping_sub(low_bits(self.head));
    }

    fn begin_talkspurt(&mut self, now: i64, slot: &mut Slot, timestamp: RtpTimestamp, marker: bool) {
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

    fn insert(&mut self, slot: Slot, payload: &[u8], begins: bool) {
        let is_waiting = begins || matches!(self.state, State::Waiting { .. });
        if slot.sequence.distance_from(self.next) < 0 {
            self.next = slot.sequence;
        }
        if is_waiting {
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
        } else if slot.sequence.0.is_multiple_of(SHRINK_PACKETS) && slots > HISTORY_SLOTS_MAX && slots / 4 >= span {
            self.store.shrink(slots / 2, self.newest);
        }
        self.store.insert(slot, payload);
    }

    // Frames

    /// Whether there is anything to play in this frame.
    fn begin_frame(&mut self, now: i64, frame: &[i16]) -> bool {
        debug_assert_eq!(frame.len(), self.source.kind().rate().frame_samples(), "10 ms at the codec's rate");
        self.rest = self.rest.saturating_sub(1);
        match self.state {
            State::Idle => false,
            State::Waiting { until } => {
                if now >= until {
                    self.state = State::Playing;
                }
                now >= until
            }
            State::Playing => true,
        }
    }

    /// A frame in which there is nothing to play.
    fn rest_frame(&mut self, frame: &mut [i16]) -> Pulled {
        frame.fill(0);
        if self.noise {
            self.fill_noise(frame);
        }
        Pulled { noise: self.noise, failed: self.failed, ..Pulled::default() }
    }

    fn cold_is_open(&self) -> bool {
        !self.source.is_stateless() || self.cold.tape.is_open()
    }

    /// Decodes a frame straight from the packets; `false`: they are not all there, and nothing was taken.
    fn play_direct(&mut self, frame: &mut [i16]) -> bool {
        let (mut head, mut next, mut done) = (self.head, self.next, 0);
        while done < frame.len() {
            let Some(slot) = self.store.get(next).filter(|slot| slot.kind == Kind::Audio) else { return false };
            let (from, len) = (index_of(head - slot.position), usize::from(slot.ticks));
            if slot.position > head || from >= len {
                return false;
            }
            let taken = (len - from).min(frame.len() - done);
            self.source.decode_part(self.store.payload(slot), from, &mut frame[done..done + taken]);
            done += taken;
            head += ticks_of_len(taken);
            if from + taken == len {
                next = next.next();
            }
        }
        (self.head, self.next) = (head, next);
        true
    }

    /// As [`Self::play_direct`], without decoding.
    fn advance_direct(&mut self, ticks: i64) -> bool {
        let (mut head, mut next) = (self.head, self.next);
        let end = head + ticks;
        while head < end {
            let Some(slot) = self.store.get(next).filter(|slot| slot.kind == Kind::Audio) else { return false };
            if slot.position > head || slot.end() <= head {
                return false;
            }
            head = slot.end().min(end);
            if head == slot.end() {
                next = next.next();
            }
        }
        (self.head, self.next) = (head, next);
        true
    }

    /// Plays a frame over the tape.
    #[cold]
    fn play_taped(&mut self, now: i64, frame: &mut [i16]) -> Pulled {
        if !self.cold_is_open() {
            self.open_tape();
        }
        let mut pulled = Pulled::default();
        match self.correction(now) {
            Some(Correction::Longer { far }) if self.may_put_in(far) => {
                self.cold.counters.stretched_samples += len_of(frame);
                self.rest = if far { REST_VOICE } else { REST_QUIET };
                self.cold.tape.put_in(frame);
                return Pulled { heard: true, concealed: true, ..pulled };
            }
            Some(Correction::Shorter { far }) => self.leave_out(now, far, frame.len(), &mut pulled),
            Some(Correction::Cut) => self.cut(now),
            Some(Correction::Longer { .. }) | None => {}
        }
        let mut is_dry = false;
        while self.cold.tape.pending() < frame.len() && self.state == State::Playing {
            let wanted = frame.len() - self.cold.tape.pending();
            is_dry |= self.produce(now, wanted, &mut pulled);
        }
        let marks = self.cold.tape.emit(frame);
        (pulled.heard, pulled.concealed) = (marks.heard, marks.made);
        if !marks.heard && is_dry {
            self.dry_frames += 1;
        } else if marks.heard {
            self.dry_frames = 0;
        }
        if self.dry_frames >= IDLE_FRAMES {
            self.end_talkspurt();
        }
        if self.noise && !marks.heard {
            self.fill_noise(frame);
            pulled.noise = true;
        }
        pulled.failed = self.failed;
        pulled
    }

    /// Puts what is next on the tape, about `wanted` samples; whether there was nothing.
    fn produce(&mut self, now: i64, wanted: usize, pulled: &mut Pulled) -> bool {
        match self.find_next() {
            None if self.noise => self.end_talkspurt(),
            None => {
                let made = self.conceal(wanted);
                self.made += made;
                return true;
            }
            Some(slot) if slot.kind == Kind::Noise => {
                let payload = self.store.payload(&slot);
                let mut copy = [0; COMFORT_NOISE_BYTES_MAX];
                let len = payload.len().min(copy.len());
                copy[..len].copy_from_slice(&payload[..len]);
                self.begin_noise(&copy[..len]);
                self.head = self.head.max(slot.position);
                self.next = slot.sequence.next();
                self.made = 0;
            }
            Some(slot) if slot.position <= self.head => {
                self.made = 0;
                self.noise = false;
                self.decode(&slot, wanted);
            }
            Some(slot) => self.cross_gap(now, &slot, wanted, pulled),
        }
        false
    }

    /// The first packet that is not over.
    fn find_next(&mut self) -> Option<Slot> {
        let is_open = |slot: &Slot, head| slot.kind == Kind::Noise || slot.end() > head;
        let ahead = self.newest.distance_from(self.next);
        for _ in 0..=ahead.max(-1) {
            match self.store.get(self.next) {
                Some(slot) if is_open(slot, self.head) => return Some(*slot),
                Some(_) => {
                    // Its samples were others' as well.
                    self.cold.counters.discarded += 1;
                    self.next = self.next.next();
                }
                None => break,
            }
        }
        let ahead = self.newest.distance_from(self.next);
        let mut sequence = self.next;
        for _ in 0..ahead.max(0) {
            sequence = sequence.next();
            if let Some(slot) = self.store.get(sequence).filter(|slot| is_open(slot, self.head)) {
                return Some(*slot);
            }
        }
        None
    }

    /// Decodes a packet that is due.
    fn decode(&mut self, slot: &Slot, wanted: usize) {
        let Self { source, store, cold, .. } = self;
        let density = usize::from(self.density);
        let from = index_of(self.head - slot.position) * density;
        let samples = usize::from(slot.ticks) * density;
        let payload = store.payload(slot);
        if source.is_stateless() {
            let taken = wanted.min(samples - from);
            source.decode_part(payload, from, cold.tape.room(taken));
            cold.tape.append(taken, 0);
            self.head += ticks_of_len(taken / density);
        } else {
            match source.decode(payload, cold.tape.room(samples)) {
                Ok(_) => {
                    cold.tape.append(samples, from);
                    self.head = slot.end();
                }
                Err(error) => {
                    self.failed |= error == CodecError::Failed;
                    // It is as good as lost.
                    cold.counters.discarded += 1;
                    store.remove(slot.sequence);
                    if self.failed {
                        cold.tape.pause(wanted);
                    }
                    return;
                }
            }
        }
        self.next = if self.head >= slot.end() { slot.sequence.next() } else { slot.sequence };
    }

    /// There is something later, but not what is due.
    fn cross_gap(&mut self, now: i64, slot: &Slot, wanted: usize, pulled: &mut Pulled) {
        let is_pause = slot.sequence == self.next || self.noise;
        // What was made up stands for what is missing.
        let stands = self.made.min(slot.position - self.head);
        self.made = 0;
        self.head += stands;
        if !is_pause {
            pulled.missing += self.missing_of(stands);
        }
        let delay = self.delay_ticks(now);
        let excess = delay - self.target - self.frame_ticks();
        let may_skip = is_pause || self.cold.tape.is_silent();
        if excess > 0 && may_skip && self.estimator.is_live(now) {
            let skipped = excess.min(slot.position - self.head);
            self.head += skipped;
            self.cold.counters.compressed_samples += u64::from(self.samples_of(skipped));
        }
        let gap = slot.position - self.head;
        if gap == 0 {
            return;
        }
        let wanted_ticks = (ticks_of_len(wanted.div_ceil(usize::from(self.density)))).min(gap);
        if is_pause {
            let len = self.len_of_ticks(wanted_ticks);
            self.cold.tape.pause(len);
            if delay < self.target {
                // It may be longer than it was.
                self.cold.counters.stretched_samples += len as u64;
            } else {
                self.head += wanted_ticks;
            }
            return;
        }
        if gap <= i64::from(slot.ticks) && self.recover(slot, gap) {
            pulled.missing += self.missing_of(gap);
            return;
        }
        let own = !self.source.is_stateless();
        let filled = if own { gap.min(self.frame_ticks()) } else { wanted_ticks };
        self.conceal_exactly(filled);
        self.head += filled;
        pulled.missing += self.missing_of(filled);
    }

    /// Decodes what the packet behind a gap tells of it.
    fn recover(&mut self, slot: &Slot, gap: i64) -> bool {
        if self.source.is_stateless() {
            return false;
        }
        let (samples, kept) = (self.len_of_ticks(i64::from(slot.ticks)), self.len_of_ticks(gap));
        let Self { source, store, cold, .. } = self;
        match source.recover(store.payload(slot), cold.tape.room(samples)) {
            Ok(true) => {
                cold.tape.append_made(samples, samples - kept);
                self.head += gap;
                cold.counters.concealed_samples += kept as u64;
                true
            }
            Ok(false) => false,
            Err(_) => {
                self.failed = true;
                false
            }
        }
    }

    /// Makes up at least so many samples; how long they last.
    fn conceal(&mut self, wanted: usize) -> i64 {
        let frame = self.frame_ticks();
        let ticks =
            if self.source.is_stateless() { ticks_of_len(wanted.div_ceil(usize::from(self.density))) } else { frame };
        self.conceal_exactly(ticks);
        ticks
    }

    /// Makes up what lasts so long, at most a frame.
    fn conceal_exactly(&mut self, ticks: i64) {
        let len = self.len_of_ticks(ticks);
        let frame = self.len_of_ticks(self.frame_ticks());
        let Self { source, cold, .. } = self;
        cold.counters.concealed_samples += len as u64;
        if !source.is_stateless() && !cold.tape.is_making() {
            match source.conceal(cold.tape.room(frame)) {
                Ok(true) => {
                    let room = cold.tape.room(frame);
                    // What it made goes on where it is cut.
                    debug_assert_eq!(room.len(), frame);
                    cold.tape.append_made(len, 0);
                    return;
                }
                Ok(false) => {}
                Err(_) => self.failed = true,
            }
        }
        cold.tape.conceal(len);
    }

    /// Has the tape begin with what was heard, as far as it is still in the store.
    fn open_tape(&mut self) {
        let Self { source, store, cold, head, next, density, .. } = self;
        let density = usize::from(*density);
        cold.tape.open(|room| {
            let (mut known, mut position, mut sequence) = (0, *head, *next);
            while known < room.len() {
                // The one that is being played, or the one before.
                let here = store.get(sequence).filter(|slot| slot.position < position && slot.end() >= position);
                let slot = match here {
                    Some(slot) => slot,
                    None => {
                        sequence = SeqNumber(sequence.0.wrapping_sub(1));
                        match store.get(sequence) {
                            Some(slot) if slot.end() == position && slot.kind == Kind::Audio => slot,
                            Some(_) | None => break,
                        }
                    }
                };
                let samples = index_of(position - slot.position) * density;
                let taken = samples.min(room.len() - known);
                let end = room.len() - known;
                source.decode_part(store.payload(slot), samples - taken, &mut room[end - taken..end]);
                known += taken;
                position = slot.position;
            }
            known
        });
    }

    // Delay

    /// Whether the delay is off, and whether so far that a voice is worth it.
    fn correction(&self, now: i64) -> Option<Correction> {
        if self.rest > 0 {
            return None;
        }
        let anchor = self.estimator.anchor()?;
        let off = now - anchor - self.point() - self.target;
        if off < -self.ticks_of(SHORT_EIGHTHS) {
            let is_least = self.target <= self.ticks_of(self.spec.min_ms * 8);
            return Some(Correction::Longer { far: is_least || off < -self.ticks_of(SHORT_FAR_EIGHTHS) });
        }
        if off <= self.ticks_of(LONG_EIGHTHS) || !self.estimator.is_live(now) {
            return None;
        }
        let max = self.ticks_of(u16::saturating_mul(self.spec.max_ms, 8));
        if off + self.target > max + self.ticks_of(CUT_EIGHTHS) {
            return Some(Correction::Cut);
        }
        Some(Correction::Shorter { far: off > self.ticks_of(LONG_FAR_EIGHTHS) })
    }

    /// Whether a frame may be put in before what is due.
    fn may_put_in(&mut self, far: bool) -> bool {
        let is_here = self.cold.tape.pending() > 0 || self.find_next().is_some_and(|slot| slot.position <= self.head);
        let in_a_voice = far && self.cold.tape.knows_voices();
        is_here && self.made == 0 && (in_a_voice || self.cold.tape.was_quiet())
    }

    /// Leaves some samples out if nobody will notice: a quiet frame, or a period of a voice.
    fn leave_out(&mut self, now: i64, far: bool, frame: usize, pulled: &mut Pulled) {
        let rate = self.source.kind().rate();
        let excess = self.len_of_ticks(self.delay_ticks(now) - self.target);
        let longest = excess.min(lag::longest(rate));
        while self.cold.tape.pending() < 2 * frame {
            let is_here = self.find_next().is_some_and(|slot| slot.position <= self.head);
            if !is_here || self.failed {
                return;
            }
            let wanted = 2 * frame - self.cold.tape.pending();
            self.produce(now, wanted, pulled);
        }
        let ahead = self.cold.tape.ahead();
        let is_quiet = self.cold.tape.is_quiet(&ahead[..2 * frame]);
        let lag = if is_quiet {
            Some(frame)
        } else if far {
            lag::period(&ahead[..2 * frame], rate).filter(|lag| *lag <= longest)
        } else {
            None
        };
        let Some(lag) = lag else {
            self.rest = REST_QUIET;
            return;
        };
        let is_over = self.delay_ticks(now) > self.ticks_of(u16::saturating_mul(self.spec.max_ms, 8));
        self.rest = if is_quiet {
            REST_QUIET
        } else if is_over {
            REST_OVER
        } else {
            REST_VOICE
        };
        self.cold.tape.leave_out(lag, frame.min(2 * frame - lag));
        self.cold.counters.compressed_samples += lag as u64;
    }

    /// Leaves out all that is beyond the longest delay there may be.
    fn cut(&mut self, now: i64) {
        let max = self.ticks_of(u16::saturating_mul(self.spec.max_ms, 8));
        let cut = (self.delay_ticks(now) - max).max(0);
        // What comes after it is faded into.
        self.cold.tape.conceal(1);
        self.head += cut;
        self.cold.counters.compressed_samples += u64::from(self.samples_of(cut));
        self.rest = REST_VOICE;
    }

    fn set_target(&mut self) {
        let wanted = self.estimator.quantile().saturating_add(MARGIN_EIGHTHS);
        let (min, max) = (self.spec.min_ms * 8, self.spec.max_ms * 8);
        self.target = self.ticks_of(wanted.clamp(min, max));
    }

    fn delay_ticks(&self, now: i64) -> i64 {
        self.estimator.anchor().map_or(self.target, |anchor| now - anchor - self.point())
    }

    // Talkspurts

    fn end_talkspurt(&mut self) {
        self.state = State::Idle;
        self.cold.tape.clear();
        (self.made, self.dry_frames) = (0, 0);
        self.store.shrink(SLOTS_MIN, self.newest);
    }

    /// Drops all that is buffered.
    fn discard_all(&mut self) {
        let mut sequence = self.next;
        for _ in 0..=self.newest.distance_from(self.next).max(-1) {
            self.cold.counters.discarded += u64::from(self.store.get(sequence).is_some());
            sequence = sequence.next();
        }
        self.store.clear();
        self.cold.tape.clear();
        self.state = State::Idle;
        self.noise = false;
        self.next = self.newest.next();
        (self.made, self.dry_frames, self.outside) = (0, 0, 0);
    }

    // Comfort noise

    fn begin_noise(&mut self, payload: &[u8]) {
        let noise = &mut self.cold.comfort_noise;
        let len = payload.len().min(COMFORT_NOISE_BYTES_MAX);
        noise.payload[..len].copy_from_slice(&payload[..len]);
        noise.len = u8::try_from(len).unwrap_or(0);
        self.noise = true;
    }

    /// Fills a frame with comfort noise: silence for now.
    fn fill_noise(&mut self, frame: &mut [i16]) {
        let _spectrum = &self.cold.comfort_noise.payload[..usize::from(self.cold.comfort_noise.len)];
        frame.fill(0);
    }

    // Units

    /// Position of the first sample that is not yet played.
    fn point(&self) -> i64 {
        if self.cold_is_open() {
            self.head - ticks_of_len(self.cold.tape.pending() / usize::from(self.density))
        } else {
            self.head
        }
    }

    fn timestamp_of(&self, position: i64) -> u32 {
        self.origin.wrapping_add(low_bits(position))
    }

    fn position_of(&self, timestamp: RtpTimestamp) -> i64 {
        let last = RtpTimestamp(self.timestamp_of(self.last));
        self.last + i64::from(timestamp.distance_from(last))
    }

    /// Our clock in units of the RTP timestamp.
    fn ticks_at(&self, now: Instant) -> i64 {
        i64::try_from(now.as_nanos() / NANOS_PER_EIGHTH).unwrap_or(0) * self.scale
    }

    fn ticks_of(&self, eighths: impl Into<i64>) -> i64 {
        eighths.into() * self.scale
    }

    fn frame_ticks(&self) -> i64 {
        self.ticks_of(FRAME_EIGHTHS)
    }

    fn len_of_ticks(&self, ticks: i64) -> usize {
        index_of(ticks) * usize::from(self.density)
    }

    fn samples_of(&self, ticks: i64) -> u32 {
        u32::try_from(self.len_of_ticks(ticks)).unwrap_or(u32::MAX)
    }

    /// As samples at 8 kHz.
    fn missing_of(&self, ticks: i64) -> u32 {
        u32::try_from(ticks / self.scale).unwrap_or(0)
    }

    fn ms_of(&self, ticks: i64) -> u32 {
        self.missing_of(ticks) / 8
    }
}

/// How the delay is off. `far`: so much that it may be corrected in a voice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Correction {
    Longer { far: bool },
    Shorter { far: bool },
    Cut,
}

fn density_of(codec: CodecKind) -> u8 {
    u8::try_from(codec.rate().hz() / codec.clock_rate_hz()).unwrap_or(1).max(1)
}

/// A number of samples or units that is known to be small and not negative.
fn index_of(ticks: i64) -> usize {
    usize::try_from(ticks).unwrap_or(0)
}

fn ticks_of_len(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(0)
}

fn len_of(frame: &[i16]) -> u64 {
    frame.len() as u64
}

fn low_bits(position: i64) -> u32 {
    u32::try_from(position & 0xffff_ffff).unwrap_or(0)
}

/// Where the first timeline begins: far from zero, so that an earlier packet has a place too.
const ORIGIN: i64 = 1 << 40;
const NANOS_PER_EIGHTH: u64 = 125_000;
/// Packets outside the buffer in a row that mean a new timeline,
const RESYNC_PACKETS: u8 = 3;
/// if it took them this long: a burst that runs ahead of the buffer is over sooner.
const RESYNC_TIME: Duration = Duration::from_millis(20);
/// Frames without a sample after which the talkspurt is over.
const IDLE_FRAMES: u8 = 10;
/// Slots up to which the ring grows for what was heard: packets of 2.5 ms.
const HISTORY_SLOTS_MAX: u16 = 32;
/// A ring that is larger than it needs to be is halved once in so many packets.
const SHRINK_PACKETS: u16 = 64;
/// What is kept of a payload of comfort noise: its level, and ten coefficients are the most anybody sends.
const COMFORT_NOISE_BYTES_MAX: usize = 24;

// Times in eighths of a millisecond.

const FRAME_EIGHTHS: u16 = 10 * 8;
/// A talkspurt waits for so long at least, however late it came: what it is compared with may be another timeline.
const PRIME_EIGHTHS: u16 = 20 * 8;
/// The target is the quantile and so much more.
const MARGIN_EIGHTHS: u16 = 10 * 8;
/// What a sender may be ahead of time.
const WINDOW_EIGHTHS: u32 = AHEAD_MS_MAX as u32 * 8;
/// A talkspurt that begins so much too early is on another timeline,
const SHIFT_EARLY_EIGHTHS: u16 = 100 * 8;
/// or so much too late, if it says itself that it is one.
const SHIFT_LATE_EIGHTHS: u16 = 100 * 8;
/// What is kept of what was played.
const HISTORY_EIGHTHS: u16 = 50 * 8;
/// The delay may be so much shorter than the target,
const SHORT_EIGHTHS: u16 = 2 * 8;
/// and in a voice so much, unless the target is the least there may be.
const SHORT_FAR_EIGHTHS: u16 = 5 * 8;
/// The delay may be so much longer than the target,
const LONG_EIGHTHS: u16 = 20 * 8;
/// and in a voice so much.
const LONG_FAR_EIGHTHS: u16 = 40 * 8;
/// What is further beyond the longest delay is cut off.
const CUT_EIGHTHS: u16 = 300 * 8;
/// Frames between two corrections in silence,
const REST_QUIET: u8 = 2;
/// in a voice that is beyond the longest delay,
const REST_OVER: u8 = 3;
/// and in any other.
const REST_VOICE: u8 = 9;
