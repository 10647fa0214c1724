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
//! the network (`estimator`); a sample is played the *target delay* after it would have come that way:
//!
//! ```text
//!  delay = (now − anchor) − playout point        (not how much is buffered: a sender may send ahead of time)
//! ```
//!
//! The target is what nearly all packets of late would have come in time with. Where the delay is off, frames are put in
//! or left out: in silence at once, in a voice whole periods and seldom, and for a while not at all behind a packet that
//! was late. When nothing is there the playout point stands
//! still while something is made up; a late packet is then played all the same, and the delay has grown by what was made
//! up. If instead a later packet tells that one was lost, what was made up stands for it, and the delay is what it was.
//!
//! A codec without a state is played straight from its packets while all is well; when something has to be made up, put
//! in or left out, and for a moment afterwards, over the `tape` of decoded samples.
//!
//! Of the crates `neteq` 0.9 does the like, but it allocates for each packet and frame, and reads a clock of its own.

use ringbridge_codec::CodecKind;
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use crate::event::DropReason;
use crate::limits::DELAY_MS_MAX;
use crate::time::Instant;
use background::{Background, Noise};
use estimator::Estimator;
use source::Source;
use store::{FAR, Kind, Slot, Store};
use tape::Tape;

mod arrive;
mod background;
mod control;
mod direct;
mod estimator;
mod lag;
mod play;
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
    /// At most so long, up to [`DELAY_MS_MAX`].
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
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pulled {
    /// Whether any sample of the frame is the endpoint's.
    pub heard: bool,
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

/// The playout buffer of one incoming stream. Outside this crate only its benchmark has to do with it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Playout {
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
    /// By how much numbers are more than in the packets.
    renumbered: u16,
    /// Samples in a unit of the RTP timestamp.
    density: u8,
    outside: u8,
    dry_frames: u8,
    /// Frames until the delay may be corrected again.
    rest: u8,
    /// Whether there was any packet.
    begun: bool,
    /// What silence sounds like.
    background: Background,
    /// Whether frames are played over the tape.
    taped: bool,
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
    tape: Tape,
    counters: Counters,
    noise: Noise,
    /// Until when the delay is not made shorter.
    hold_until: i64,
    /// When the first packet outside the buffer came.
    outside_since: Instant,
}

impl Playout {
    /// A buffer in which nothing has come yet.
    pub fn new(codec: CodecKind) -> Self {
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
            renumbered: 0,
            density: density_of(codec),
            outside: 0,
            dry_frames: 0,
            rest: 0,
            begun: false,
            background: Background::Silence,
            taped: false,
            failed: false,
            spec: DelaySpec::default(),
            store: Store::new(),
            source: Source::new(codec),
            cold: Box::new(Cold {
                tape: Tape::new(codec.rate()),
                counters: Counters::default(),
                noise: Noise::new(codec),
                hold_until: 0,
                outside_since: Instant::ZERO,
            }),
            estimator: Estimator::new(i64::from(codec.clock_rate_hz() / 8000)),
        };
        playout.set_delay(DelaySpec::default());
        playout
    }

    fn new_estimator(&mut self) {
        self.estimator = Estimator::new(self.scale);
        self.estimator.set_reach(8 * self.spec.max_ms);
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
        self.cold.noise = Noise::new(codec);
        (self.scale, self.density) = (i64::from(codec.clock_rate_hz() / 8000), density_of(codec));
        if codec.clock_rate_hz() != old.clock_rate_hz() {
            self.new_estimator();
        }
        self.set_target();
    }

    /// Forgets everything but the codec, the bounds of the delay and the counters: another stream begins.
    pub(crate) fn reset(&mut self) {
        self.store.clear();
        self.source.reset();
        self.cold.tape.clear();
        self.taped = false;
        self.new_estimator();
        self.state = State::Idle;
        (self.head, self.last, self.made) = (0, 0, 0);
        (self.outside, self.dry_frames, self.rest) = (0, 0, 0);
        self.begun = false;
        self.background = Background::Silence;
        self.cold.noise.clear();
        self.cold.hold_until = 0;
        self.set_target();
    }

    /// Bounds of the delay from now on. It moves there at its usual pace.
    pub(crate) fn set_delay(&mut self, spec: DelaySpec) {
        let max_ms = spec.max_ms.min(DELAY_MS_MAX);
        self.spec = DelaySpec { min_ms: spec.min_ms.min(max_ms), max_ms };
        self.estimator.set_reach(8 * max_ms);
        self.set_target();
    }

    /// Makes it as good as new for another connection.
    pub(crate) fn recycle(&mut self) {
        self.reset();
        self.store.release();
        self.cold.counters = Counters::default();
        self.set_delay(DelaySpec::default());
    }

    /// Asks for the memory of the packet that is played next.
    pub(crate) fn prefetch(&self) {
        self.store.prefetch(self.next);
    }

    /// What it decodes.
    pub(crate) const fn codec(&self) -> CodecKind {
        self.source.kind()
    }

    /// Whether there is nothing to play: every frame is silence until a packet comes.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle && self.background == Background::Silence
    }

    /// Takes a packet.
    ///
    /// # Errors
    /// The reason to drop it for.
    pub fn push(
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

    /// Notes that `sequence` is the number of a packet that holds no samples, such as a telephone-event: what lies between
    /// its neighbours is a pause and not a loss.
    pub(crate) fn note_other(&mut self, sequence: SeqNumber) {
        let sequence = sequence.wrapping_add(self.renumbered);
        let distance = sequence.distance_from(self.next);
        if self.state == State::Idle || !(0..FAR).contains(&distance) || self.store.get(sequence).is_some() {
            return;
        }
        self.insert(Slot { position: self.last, sequence, kind: Kind::Other, ..Slot::default() }, &[], false);
    }

    /// Takes the next frame: 10 ms at the codec's rate. Holes are filled with what stands for them, for a while.
    pub fn pull(&mut self, now: Instant, frame: &mut [i16]) -> Pulled {
        let now = self.ticks_at(now);
        self.pulled = now;
        if !self.begin_frame(now, frame) {
            return self.rest_frame(frame);
        }
        if self.is_plain(now) && self.play_direct(frame) {
            return Pulled { heard: true, ..Pulled::default() };
        }
        self.play_taped(now, frame)
    }

    /// Moves on by a frame that nobody wants to hear. A codec without a state is not run.
    pub(crate) fn skip(&mut self, now: Instant, scratch: &mut [i16]) -> Pulled {
        let ticks = self.ticks_at(now);
        if self.state == State::Playing && self.is_plain(ticks) {
            let frame = self.frame_ticks();
            if self.advance_direct(frame) {
                self.pulled = ticks;
                self.rest = self.rest.saturating_sub(1);
                return Pulled { heard: true, ..Pulled::default() };
            }
        }
        self.pull(now, scratch)
    }

    /// Whether a frame can come straight from the packets if they are there.
    fn is_plain(&self, now: i64) -> bool {
        !self.is_taped() && self.background == Background::Silence && self.correction(now).is_none()
    }

    /// Timestamp of the first sample that is not yet played, while there is one.
    pub(crate) fn next_timestamp(&self) -> Option<u32> {
        (self.state != State::Idle).then(|| self.timestamp_of(self.point()))
    }

    /// How long what is heard has waited, and what that took.
    pub(crate) fn delay(&self) -> Delay {
        let is_playing = self.state == State::Playing;
        // The last frame is over.
        let current = if is_playing { (self.delay_ticks(self.pulled) + self.frame_ticks()).max(0) } else { 0 };
        Delay { target_ms: self.ms_of(self.target), current_ms: self.ms_of(current), counters: self.cold.counters }
    }

    // Units

    /// Position of the first sample that is not yet played.
    fn point(&self) -> i64 {
        if self.is_taped() {
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

fn low_bits(position: i64) -> u32 {
    u32::try_from(position & 0xffff_ffff).unwrap_or(0)
}

const NANOS_PER_EIGHTH: u64 = 125_000;
/// What is kept of a payload of comfort noise: its level, and ten coefficients are the most anybody sends.
const COMFORT_NOISE_BYTES_MAX: usize = 24;
const FRAME_EIGHTHS: u16 = 10 * 8;
