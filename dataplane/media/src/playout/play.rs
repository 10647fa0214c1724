//! Frames that are due: taken from packets, made up, or silent.

use ringbridge_codec::CodecError;
use ringbridge_codec::kind::FRAME_SAMPLES_MAX;

use super::background::Background;
use super::control::{Correction, REST_QUIET, REST_VOICE};
use super::store::{Kind, SLOTS_MIN, Slot};
use super::{COMFORT_NOISE_BYTES_MAX, Playout, Pulled, State, index_of, ticks_of_len};
use ringbridge_wire::seq::SeqNumber;

impl Playout {
    /// Whether there is anything to play in this frame.
    pub(super) fn begin_frame(&mut self, now: i64, frame: &[i16]) -> bool {
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
    pub(super) fn rest_frame(&mut self, frame: &mut [i16]) -> Pulled {
        let noise = self.fill_background(frame);
        Pulled { noise, failed: self.failed, ..Pulled::default() }
    }

    pub(super) fn is_taped(&self) -> bool {
        self.taped || !self.source.is_stateless()
    }

    /// Decodes a frame straight from the packets; `false`: they are not all there, and nothing was taken.
    pub(super) fn play_direct(&mut self, frame: &mut [i16]) -> bool {
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
    pub(super) fn advance_direct(&mut self, ticks: i64) -> bool {
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
    pub(super) fn play_taped(&mut self, now: i64, frame: &mut [i16]) -> Pulled {
        if !self.is_taped() {
            self.open_tape();
            self.taped = true;
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
        self.taped = self.cold.tape.is_open();
        if self.dry_frames >= IDLE_FRAMES {
            self.end_talkspurt();
        }
        pulled.failed = self.failed;
        pulled
    }

    /// Puts what is next on the tape, about `wanted` samples; whether there was nothing.
    pub(super) fn produce(&mut self, now: i64, wanted: usize, pulled: &mut Pulled) -> bool {
        match self.find_next() {
            None if self.background != Background::Silence => {
                self.pause(wanted, pulled);
                // With this frame, unless something of it was heard.
                self.dry_frames = IDLE_FRAMES;
            }
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
                self.end_underrun(now);
                self.decode(&slot, wanted);
            }
            Some(slot) => self.cross_gap(now, &slot, wanted, pulled),
        }
        false
    }

    /// The first packet that is not over.
    pub(super) fn find_next(&mut self) -> Option<Slot> {
        let is_open = |slot: &Slot, head| match slot.kind {
            Kind::Audio => slot.end() > head,
            Kind::Noise => true,
            Kind::Empty | Kind::Other => false,
        };
        let ahead = self.newest.distance_from(self.next);
        for _ in 0..=ahead.max(-1) {
            match self.store.get(self.next) {
                Some(slot) if is_open(slot, self.head) => return Some(*slot),
                Some(slot) => {
                    // The samples of one that is over were others' as well.
                    self.cold.counters.discarded += u64::from(slot.kind == Kind::Audio);
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
    pub(super) fn decode(&mut self, slot: &Slot, wanted: usize) {
        let Self { source, store, cold, background, .. } = self;
        let density = usize::from(self.density);
        let from = index_of(self.head - slot.position) * density;
        let samples = usize::from(slot.ticks) * density;
        let payload = store.payload(slot);
        *background = Background::behind(source.kind(), payload);
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
                        cold.tape.pause(&[0; FRAME_SAMPLES_MAX][..wanted.min(FRAME_SAMPLES_MAX)]);
                    }
                    return;
                }
            }
        }
        self.next = if self.head >= slot.end() { slot.sequence.next() } else { slot.sequence };
    }

    /// There is something later, but not what is due.
    pub(super) fn cross_gap(&mut self, now: i64, slot: &Slot, wanted: usize, pulled: &mut Pulled) {
        let is_pause = slot.sequence == self.next || self.background != Background::Silence;
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
            self.pause(len, pulled);
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
    pub(super) fn recover(&mut self, slot: &Slot, gap: i64) -> bool {
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
    pub(super) fn conceal(&mut self, wanted: usize) -> i64 {
        let frame = self.frame_ticks();
        let ticks =
            if self.source.is_stateless() { ticks_of_len(wanted.div_ceil(usize::from(self.density))) } else { frame };
        self.conceal_exactly(ticks);
        ticks
    }

    /// Makes up what lasts so long, at most a frame.
    pub(super) fn conceal_exactly(&mut self, ticks: i64) {
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
    pub(super) fn open_tape(&mut self) {
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

    // Talkspurts

    pub(super) fn end_talkspurt(&mut self) {
        self.state = State::Idle;
        self.cold.tape.clear();
        self.taped = false;
        (self.made, self.dry_frames) = (0, 0);
        self.store.shrink(SLOTS_MIN, self.newest);
    }

    /// Drops all that is buffered.
    pub(super) fn discard_all(&mut self) {
        let mut sequence = self.next;
        for _ in 0..=self.newest.distance_from(self.next).max(-1) {
            self.cold.counters.discarded +=
                u64::from(self.store.get(sequence).is_some_and(|slot| slot.kind == Kind::Audio));
            sequence = sequence.next();
        }
        self.store.clear();
        self.cold.tape.clear();
        self.taped = false;
        self.state = State::Idle;
        self.background = Background::Silence;
        self.next = self.newest.next();
        (self.made, self.dry_frames, self.outside) = (0, 0, 0);
    }

    // The background of silence

    /// Has silence sound as a packet of comfort noise tells.
    pub(super) fn begin_noise(&mut self, payload: &[u8]) {
        self.cold.noise.set(payload);
        self.background = Background::Described;
    }

    /// Puts a pause of at most a frame on the tape.
    fn pause(&mut self, len: usize, pulled: &mut Pulled) {
        let mut background = [0; FRAME_SAMPLES_MAX];
        let background = &mut background[..len.min(FRAME_SAMPLES_MAX)];
        pulled.noise |= self.fill_background(background);
        self.cold.tape.pause(background);
    }

    /// Fills a frame, or part of one, with what silence sounds like; whether it is anything.
    fn fill_background(&mut self, out: &mut [i16]) -> bool {
        if self.background == Background::Silence {
            out.fill(0);
            return false;
        }
        let Self { source, cold, failed, background, .. } = self;
        cold.noise.fill(*background, source, failed, out);
        true
    }
}

fn len_of(frame: &[i16]) -> u64 {
    frame.len() as u64
}

/// Frames without a sample after which the talkspurt is over.
const IDLE_FRAMES: u8 = 10;
