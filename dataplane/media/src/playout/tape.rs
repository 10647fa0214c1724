//! Decoded samples around the playout point: some that were heard, then those to come.
//!
//! A codec with a state is always played from here. Others only while something is out of the ordinary: what is made up
//! has to be kept for as long as the next hole looks back at it.

use ringbridge_codec::Rate;
use ringbridge_codec::conceal::Concealment;
use ringbridge_codec::kind::PAYLOAD_MS_MAX;
use ringbridge_codec::mix;

/// What is kept of what was heard, for holes to look back at.
const HEARD_MS: usize = 60;
/// What a packet may add, what is looked at ahead, and a frame.
const ROOM_MS: usize = HEARD_MS + PAYLOAD_MS_MAX as usize + 60;
/// Frames behind something out of the ordinary that are played from here: what is heard has to be long enough again.
const LIVES: u8 = 6;
/// Below this a frame is quiet whatever it is.
const QUIET_PEAK: u16 = 64;
/// A frame is quiet that is so much below the loudest of the last seconds: 30 dB.
const QUIET_SHIFT: u32 = 5;

/// What is in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Marks {
    /// Samples of the endpoint.
    pub(super) heard: bool,
    /// Samples that stand for others.
    pub(super) made: bool,
}

/// Places on the tape, from the first to before the last.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    from: usize,
    to: usize,
}

impl Stretch {
    /// Adds the places between `from` and `to`; what lies before `at` is over.
    fn add(&mut self, at: usize, from: usize, to: usize) {
        if self.to <= at {
            *self = Self { from, to };
        } else if from < to {
            *self = Self { from: self.from.min(from), to: self.to.max(to) };
        }
    }

    fn meets(self, from: usize, to: usize) -> bool {
        self.from.max(from) < self.to.min(to)
    }

    fn move_down(&mut self, by: usize) {
        *self = Self { from: self.from.saturating_sub(by), to: self.to.saturating_sub(by) };
    }

    fn move_up(&mut self, by: usize) {
        *self = Self { from: self.from + by, to: self.to + by };
    }
}

#[derive(Debug)]
pub(super) struct Tape {
    samples: Vec<i16>,
    /// The first sample to come.
    at: usize,
    end: usize,
    /// The first sample that was ever written since it was opened.
    begin: usize,
    /// Where samples of the endpoint are among those to come,
    heard_in: Stretch,
    /// and where such that stand for others.
    made_in: Stretch,
    concealment: Concealment,
    frame: usize,
    /// Frames for which a codec without a state is still played from here; 0: it is closed.
    lives: u8,
    /// The loudest of late.
    peak: u16,
}

impl Tape {
    pub(super) fn new(rate: Rate) -> Self {
        let frame = rate.frame_samples();
        Self {
            samples: vec![0; frame * ROOM_MS / 10],
            at: 0,
            end: 0,
            begin: 0,
            heard_in: Stretch::default(),
            made_in: Stretch::default(),
            concealment: Concealment::with_rate(rate),
            frame,
            lives: 0,
            peak: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        (self.at, self.end, self.begin, self.lives) = (0, 0, 0, 0);
        (self.heard_in, self.made_in) = (Stretch::default(), Stretch::default());
        self.concealment.clear();
    }

    pub(super) const fn is_open(&self) -> bool {
        self.lives > 0
    }

    /// Opens it behind what `fill` knows of what was heard: it writes the end of the slice and returns how much of it.
    pub(super) fn open(&mut self, fill: impl FnOnce(&mut [i16]) -> usize) {
        self.clear();
        self.lives = LIVES;
        let room = self.frame * HEARD_MS / 10;
        let known = fill(&mut self.samples[..room]).min(room);
        (self.begin, self.at, self.end) = (room - known, room, room);
    }

    /// Samples to come.
    pub(super) const fn pending(&self) -> usize {
        self.end - self.at
    }

    pub(super) fn ahead(&self) -> &[i16] {
        &self.samples[self.at..self.end]
    }

    /// Room for `len` samples behind those to come. They are [taken](Self::append) afterwards.
    pub(super) fn room(&mut self, len: usize) -> &mut [i16] {
        if self.end + len > self.samples.len() {
            let from = self.at.saturating_sub(self.frame * HEARD_MS / 10).max(self.begin);
            self.samples.copy_within(from..self.end, 0);
            (self.begin, self.at, self.end) = (0, self.at - from, self.end - from);
            self.heard_in.move_down(from);
            self.made_in.move_down(from);
        }
        let end = (self.end + len).min(self.samples.len());
        &mut self.samples[self.end..end]
    }

    /// Takes what was written into the [room](Self::room), less the first `skip`: samples of the endpoint.
    pub(super) fn append(&mut self, len: usize, skip: usize) {
        let kept = self.take(len, skip);
        let begin = self.end - kept;
        if self.concealment.is_active() {
            let over = kept.min(self.frame);
            self.concealment.join(&mut self.samples[begin..begin + over]);
            self.made_in.add(self.at, begin, self.end.min(begin + self.frame));
            self.lives = LIVES;
        }
        self.heard_in.add(self.at, begin, self.end);
    }

    /// Takes what the codec itself made up for missing samples.
    pub(super) fn append_made(&mut self, len: usize, skip: usize) {
        let kept = self.take(len, skip);
        let begin = self.end - kept;
        if let Some(last) = self.samples[begin..self.end].iter().rposition(|sample| *sample != 0) {
            self.made_in.add(self.at, begin, begin + last + 1);
        }
        self.lives = LIVES;
    }

    fn take(&mut self, len: usize, skip: usize) -> usize {
        let len = len.min(self.samples.len() - self.end);
        let skip = skip.min(len);
        if skip > 0 {
            self.samples.copy_within(self.end + skip..self.end + len, self.end);
        }
        self.end += len - skip;
        len - skip
    }

    /// Makes up `len` samples.
    pub(super) fn conceal(&mut self, len: usize) {
        let Self { samples, begin, end, concealment, .. } = self;
        if !concealment.is_active() {
            concealment.begin(&samples[*begin..*end]);
        }
        let room = self.room(len);
        let len = room.len();
        let (from, to) = (self.end, self.end + len);
        self.concealment.fill(&mut self.samples[from..to]);
        self.append_made(len, 0);
    }

    /// Whether what is made up is silence by now.
    pub(super) fn is_silent(&self) -> bool {
        self.concealment.is_silent()
    }

    /// Whether samples are being made up.
    pub(super) fn is_making(&self) -> bool {
        self.concealment.is_active()
    }

    /// Puts in a pause that is meant, with what sounds in it: nothing is missing.
    pub(super) fn pause(&mut self, background: &[i16]) {
        let ends = self.at == self.end && self.begin < self.end && !self.concealment.is_active();
        let last = if ends { self.samples[self.end - 1] } else { 0 };
        self.concealment.clear();
        let room = self.room(background.len());
        let len = room.len();
        room.copy_from_slice(&background[..len]);
        let fade = (self.frame / 4).min(len);
        // A step would click.
        for (place, sample) in self.room(len)[..fade].iter_mut().enumerate() {
            *sample = sample.saturating_add(weigh(last, 0, place + 1, fade));
        }
        self.take(len, 0);
        self.lives = LIVES;
    }

    /// Leaves `lag` of the samples to come out, fading over the first `over` of them.
    pub(super) fn leave_out(&mut self, lag: usize, over: usize) {
        debug_assert!(lag + over <= self.pending());
        for place in 0..over {
            let (from, to) = (self.samples[self.at + place], self.samples[self.at + lag + place]);
            self.samples[self.at + lag + place] = weigh(from, to, place + 1, over + 1);
        }
        self.at += lag;
        self.made_in.add(self.at, self.at, self.at + over);
        self.lives = LIVES;
    }

    /// Puts a frame in that continues what was heard before those to come.
    pub(super) fn put_in(&mut self, frame: &mut [i16]) {
        let heard = &self.samples[self.begin..self.at];
        self.concealment.begin(heard);
        self.concealment.fill(frame);
        // It counts as heard; what was to come comes behind it.
        let len = frame.len();
        self.room(len);
        self.samples.copy_within(self.at..self.end, self.at + len);
        self.samples[self.at..self.at + len].copy_from_slice(frame);
        (self.at, self.end) = (self.at + len, self.end + len);
        self.heard_in.move_up(len);
        self.made_in.move_up(len);
        if self.pending() > 0 {
            let over = self.pending().min(self.frame);
            self.concealment.join(&mut self.samples[self.at..self.at + over]);
            self.made_in.add(self.at, self.at, self.at + over);
        }
        self.lives = LIVES;
    }

    /// Moves a frame out.
    pub(super) fn emit(&mut self, frame: &mut [i16]) -> Marks {
        let here = self.pending().min(frame.len());
        frame[..here].copy_from_slice(&self.samples[self.at..self.at + here]);
        frame[here..].fill(0);
        self.at += here;
        // Nothing that is to come may be left behind.
        self.lives = self.lives.saturating_sub(1).max(u8::from(self.pending() > 0));
        let peak = mix::peak(frame);
        // Half of it is forgotten in about four seconds.
        self.peak = peak.max(self.peak - self.peak.div_ceil(512));
        let from = self.at - here;
        Marks { heard: self.heard_in.meets(from, self.at), made: self.made_in.meets(from, self.at) }
    }

    /// Whether `samples` are so quiet that nobody misses some of them.
    pub(super) fn is_quiet(&self, samples: &[i16]) -> bool {
        mix::peak(samples) <= (self.peak >> QUIET_SHIFT).max(QUIET_PEAK)
    }

    /// Whether what was heard last is quiet.
    pub(super) fn was_quiet(&self) -> bool {
        let heard = &self.samples[self.begin..self.at];
        self.is_quiet(&heard[heard.len().saturating_sub(self.frame)..])
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        2 * self.samples.capacity()
    }
}

/// `place` of `len` steps from one to the other.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "between two samples, in few steps")]
fn weigh(from: i16, to: i16, place: usize, len: usize) -> i16 {
    let (from, to) = (i32::from(from), i32::from(to));
    (from + (to - from) * place as i32 / len as i32) as i16
}
