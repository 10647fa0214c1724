//! A small fixed jitter buffer: samples by RTP timestamp, played on the mix's schedule.
//!
//! ```text
//!  Idle ──packet──▶ Priming ──JITTER_DELAY later──▶ Playing ──100 ms without a sample──▶ Idle
//! ```
//!
//! Samples are decoded when their packet arrives and written where their timestamp says, so any packet time, order,
//! duplicate and hole comes out right. What is missing when it is due is made up from what was heard before it
//! ([`ringbridge_codec::conceal`]), for which what was played stays in the ring until it is written over. A clock that
//! differs from ours shows as packets that arrive ever earlier or later before their time; one frame is then made up or
//! left out. 8 KiB a stream, constant time a packet.

use core::time::Duration;

use ringbridge_codec::conceal::{Concealment, HISTORY};
use ringbridge_wire::seq::RtpTimestamp;

use crate::event::DropReason;
use crate::limits::{FRAME_SAMPLES, FRAME_TICKS, JITTER_DELAY, JITTER_SAMPLES};
use crate::time::Instant;

/// Samples that share one validity bit.
const BLOCK: usize = BLOCK_TICKS as usize;
const BLOCK_TICKS: u32 = 8;
const WORDS: usize = JITTER_SAMPLES / BLOCK / 64;
/// The ring of a stream without bursts: 128 ms, what concealment looks back at among them.
const RING_SAMPLES_MIN: usize = 1024;
/// Packets outside the buffer in a row that mean a new timeline,
const RESYNC_PACKETS: u8 = 3;
/// if it took them this long: a burst that runs ahead of the buffer is over sooner.
const RESYNC_TIME: Duration = Duration::from_millis(20);
/// Frames without a sample after which the talkspurt is over.
const IDLE_FRAMES: u8 = 10;
/// Packets over which the least earliness is taken.
const WINDOW_PACKETS: u32 = 64;
/// Least earliness, in samples, below which a frame is inserted: 4 ms.
const EARLINESS_MIN: i64 = 32;
/// Least earliness, in samples, above which a frame is dropped: 45 ms.
const EARLINESS_MAX: i64 = 360;

/// Where a talkspurt begins: far from zero, so that an earlier packet has a place too.
const ORIGIN: u64 = 1 << 32;
/// All blocks of a frame.
const ALL_BLOCKS: u32 = (1 << (FRAME_SAMPLES / BLOCK)) - 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Priming { since: Instant },
    Playing,
}

/// What [`JitterBuffer::pull`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pulled {
    /// Whether any sample of the frame is the endpoint's.
    pub(crate) heard: bool,
    /// Whether anything in it was made up, or faded into from what was.
    pub(crate) concealed: bool,
    /// Samples that were missing although later ones had arrived.
    pub(crate) missing: u32,
}

/// The playout buffer of one incoming stream.
#[derive(Debug)]
pub(crate) struct JitterBuffer {
    samples: Box<[i16; JITTER_SAMPLES]>,
    valid: [u64; WORDS],
    state: State,
    /// Timestamp of the first sample of the talkspurt, which is at [`ORIGIN`].
    origin: u32,
    /// Position of the next sample to play: samples since the talkspurt began, from [`ORIGIN`] on.
    play: u64,
    /// Position after the last sample written.
    end: u64,
    /// Position of the last accepted packet, to unwrap the next timestamp.
    last: u64,
    /// Samples of the ring in use, a power of two; grows for a burst. A small ring stays in the processor's cache.
    ring: usize,
    outside: u8,
    /// When the first of them came.
    outside_since: Instant,
    dry_frames: u8,
    earliness_min: i64,
    window: u32,
    correction: Correction,
    concealment: Concealment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Correction {
    None,
    Insert,
    Drop,
}

impl JitterBuffer {
    pub(crate) fn new() -> Self {
        Self {
            samples: Box::new([0; JITTER_SAMPLES]),
            valid: [0; WORDS],
            state: State::Idle,
            origin: 0,
            play: 0,
            end: 0,
            last: 0,
            ring: RING_SAMPLES_MIN,
            outside: 0,
            outside_since: Instant::ZERO,
            dry_frames: 0,
            earliness_min: i64::MAX,
            window: 0,
            correction: Correction::None,
            concealment: Concealment::new(),
        }
    }

    /// Forgets everything: another stream begins.
    pub(crate) fn reset(&mut self) {
        self.ring = RING_SAMPLES_MIN;
        self.concealment.clear();
        self.valid = [0; WORDS];
        self.state = State::Idle;
        self.outside = 0;
        self.dry_frames = 0;
        self.start_window();
        self.correction = Correction::None;
    }

    /// Makes room for `len` samples at `timestamp` and has `write` decode into them. `write` is called with one or two
    /// slices (the buffer is a ring) and the offset of each in the packet.
    ///
    /// # Errors
    /// The reason to drop the packet for.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        timestamp: RtpTimestamp,
        len: usize,
        mut write: impl FnMut(usize, &mut [i16]),
    ) -> Result<(), DropReason> {
        if len == 0 || len > JITTER_SAMPLES / 2 {
            return Err(DropReason::PayloadSize);
        }
        if self.state == State::Idle {
            self.begin(now, timestamp, len);
        }
        let mut position = self.position_of(timestamp);
        if let Some(reason) = self.outside_reason(position, len) {
            if self.outside == 0 {
                self.outside_since = now;
            }
            self.outside = self.outside.saturating_add(1);
            if self.outside < RESYNC_PACKETS || now.saturating_since(self.outside_since) < RESYNC_TIME {
                return Err(reason);
            }
            // The sender has begun a new timeline without saying so.
            self.reset();
            self.begin(now, timestamp, len);
            position = self.position_of(timestamp);
        }
        self.make_room(self.play.min(position), self.end.max(position + len as u64));
        // The block that holds the first sample may be the packet's before; the next one is its own.
        let first_block = position.max(self.play).next_multiple_of(BLOCK as u64);
        let last = position + len as u64 - 1;
        if self.is_valid(last) && self.is_valid(first_block.min(last)) {
            return Err(DropReason::Duplicate);
        }
        self.outside = 0;
        self.last = position;
        if matches!(self.state, State::Priming { .. }) {
            // Whole blocks, as everywhere.
            self.play = self.play.min(position / BLOCK as u64 * BLOCK as u64);
        }
        self.note_earliness(position);
        // What lies before the playout point came too late; the rest of the packet is still good.
        let late = usize::try_from(self.play.saturating_sub(position)).unwrap_or(0);
        self.write(position, late, len, &mut write);
        self.end = self.end.max(position + len as u64);
        Ok(())
    }

    /// Nothing but G.711.
    pub(crate) const fn set_codec(&mut self, _codec: crate::command::CodecKind) {}

    /// Samples of a frame.
    pub(crate) const fn frame_samples(&self) -> usize {
        FRAME_SAMPLES
    }

    /// Takes the next frame. Holes are filled with what stands for them, for a while.
    pub(crate) fn pull(&mut self, now: Instant, frame: &mut [i16]) -> Pulled {
        let Some(frame) = frame.first_chunk_mut::<FRAME_SAMPLES>() else {
            return Pulled { heard: false, concealed: false, missing: 0 };
        };
        const SILENT: Pulled = Pulled { heard: false, concealed: false, missing: 0 };
        match self.state {
            State::Priming { since } if now.saturating_since(since) >= JITTER_DELAY => self.state = State::Playing,
            State::Idle | State::Priming { .. } => {
                frame.fill(0);
                return SILENT;
            }
            State::Playing => {}
        }
        match core::mem::replace(&mut self.correction, Correction::None) {
            Correction::Insert => {
                self.begin_hole(self.play);
                self.concealment.fill(frame);
                return Pulled { heard: true, concealed: true, missing: 0 };
            }
            Correction::Drop => {
                // What comes after the frame is faded into from what would have come instead of it.
                self.begin_hole(self.play);
                self.concealment.fill(&mut [0]);
                self.clear_blocks(FRAME_SAMPLES);
                self.play += FRAME_SAMPLES as u64;
            }
            Correction::None => {}
        }
        let more_is_here = self.play + (FRAME_SAMPLES as u64) < self.end;
        let was_active = self.concealment.is_active();
        let (valid, made) = self.take(frame);
        if valid == 0 {
            self.dry_frames += 1;
            if self.dry_frames >= IDLE_FRAMES && !more_is_here {
                self.reset();
            }
        } else {
            self.dry_frames = 0;
        }
        let missing = if more_is_here { FRAME_TICKS - valid } else { 0 };
        Pulled { heard: valid > 0, concealed: made || (was_active && valid > 0), missing }
    }

    /// Timestamp of the next sample to be played, while there is one.
    pub(crate) fn next_timestamp(&self) -> Option<u32> {
        (self.state != State::Idle).then(|| self.timestamp_of(self.play))
    }

    fn begin(&mut self, now: Instant, timestamp: RtpTimestamp, _len: usize) {
        self.state = State::Priming { since: now };
        self.origin = timestamp.0;
        (self.play, self.end, self.last) = (ORIGIN, ORIGIN, ORIGIN);
        self.concealment.clear();
        self.start_window();
    }

    fn timestamp_of(&self, position: u64) -> u32 {
        // The low 32 bits of a position are the distance from the origin.
        self.origin.wrapping_add((position & 0xffff_ffff) as u32)
    }

    fn position_of(&self, timestamp: RtpTimestamp) -> u64 {
        let last = RtpTimestamp(self.timestamp_of(self.last));
        self.last.wrapping_add_signed(i64::from(timestamp.distance_from(last)))
    }

    fn outside_reason(&self, position: u64, len: usize) -> Option<DropReason> {
        let first = match self.state {
            // While priming an overtaken packet may still become the first, if all fits.
            State::Priming { .. } => self.end.saturating_sub(JITTER_SAMPLES as u64),
            State::Playing | State::Idle => self.play,
        };
        if position + len as u64 <= first {
            return Some(DropReason::Late);
        }
        let play = self.play.min(position.max(first));
        (position + len as u64 > play + JITTER_SAMPLES as u64).then_some(DropReason::Early)
    }

    fn note_earliness(&mut self, position: u64) {
        if self.state != State::Playing {
            return;
        }
        // Positions are within one buffer of each other.
        self.earliness_min = self.earliness_min.min(position as i64 - self.play as i64);
        self.window += 1;
        if self.window == WINDOW_PACKETS {
            self.correction = match self.earliness_min {
                least if least < EARLINESS_MIN => Correction::Insert,
                least if least > EARLINESS_MAX => Correction::Drop,
                _ => Correction::None,
            };
            self.start_window();
        }
    }

    fn start_window(&mut self) {
        self.earliness_min = i64::MAX;
        self.window = 0;
    }

    /// Has the ring hold everything from `first` to `end`.
    fn make_room(&mut self, first: u64, end: u64) {
        // What lies before the playout point is not written.
        let first = if self.state == State::Playing { self.play } else { first };
        let span = usize::try_from(end.saturating_sub(first)).unwrap_or(JITTER_SAMPLES);
        if span <= self.ring {
            return;
        }
        let grown = span.next_power_of_two().min(JITTER_SAMPLES);
        let mut samples = [0; JITTER_SAMPLES];
        let mut valid = [0; WORDS];
        for position in self.play - self.remembered(self.play) as u64..self.end {
            samples[index_of(position, grown)] = self.samples[index_of(position, self.ring)];
        }
        // A buffer that ran dry holds nothing: its playout point is past the end.
        let span = usize::try_from(self.end.saturating_sub(self.play)).unwrap_or(0);
        for (from, to) in blocks(self.play, span, self.ring).zip(blocks(self.play, span, grown)) {
            let bit = (self.valid[from / 64] >> (from % 64)) & 1;
            valid[to / 64] |= bit << (to % 64);
        }
        *self.samples = samples;
        (self.valid, self.ring) = (valid, grown);
    }

    fn write(&mut self, position: u64, late: usize, len: usize, write: &mut impl FnMut(usize, &mut [i16])) {
        let mut offset = late;
        while offset < len {
            let start = index_of(position + offset as u64, self.ring);
            let run = (len - offset).min(self.ring - start);
            write(offset, &mut self.samples[start..start + run]);
            offset += run;
        }
        for block in blocks(position + late as u64, len - late, self.ring) {
            self.valid[block / 64] |= 1 << (block % 64);
        }
        // The rest of the last block is nobody's yet.
        let end = position + len as u64;
        for rest in end..end.next_multiple_of(BLOCK as u64) {
            if rest >= self.end {
                self.samples[index_of(rest, self.ring)] = 0;
            }
        }
    }

    /// Moves one frame out of the ring, with its holes filled; how many of its samples were valid, and whether anything
    /// stands for the others.
    fn take(&mut self, frame: &mut [i16; FRAME_SAMPLES]) -> (u32, bool) {
        let mut done = 0;
        while done < FRAME_SAMPLES {
            let start = index_of(self.play + done as u64, self.ring);
            let run = (FRAME_SAMPLES - done).min(self.ring - start);
            frame[done..done + run].copy_from_slice(&self.samples[start..start + run]);
            done += run;
        }
        let here = self.clear_blocks(FRAME_SAMPLES);
        let conceals = here != ALL_BLOCKS || self.concealment.is_active();
        let made = conceals && self.conceal(frame, here);
        self.play += FRAME_SAMPLES as u64;
        ((here.count_ones() * BLOCK_TICKS).min(FRAME_TICKS), made)
    }

    /// Takes the validity of the blocks of the next `len` samples away; the bits, the first the lowest.
    fn clear_blocks(&mut self, len: usize) -> u32 {
        let mut here = 0;
        for (place, block) in blocks(self.play, len, self.ring).enumerate() {
            let bit = 1 << (block % 64);
            here |= u32::from(self.valid[block / 64] & bit != 0) << place;
            self.valid[block / 64] &= !bit;
        }
        here
    }

    /// Fills the blocks of a frame that are not `here`, and fades into those that are behind a hole. Whether there is any
    /// sound in what it has filled.
    #[cold]
    fn conceal(&mut self, frame: &mut [i16; FRAME_SAMPLES], here: u32) -> bool {
        let mut sounds = false;
        let mut block = 0;
        while block < FRAME_SAMPLES / BLOCK {
            let is_here = here >> block & 1 != 0;
            let same = |other: &usize| (here >> other & 1 != 0) == is_here;
            let end = block + (block..FRAME_SAMPLES / BLOCK).take_while(same).count();
            let (from, to) = (block * BLOCK, end * BLOCK);
            if is_here {
                self.concealment.join(&mut frame[from..to]);
            } else {
                if !self.concealment.is_active() {
                    self.begin_hole(self.play + from as u64);
                }
                self.concealment.fill(&mut frame[from..to]);
                sounds |= frame[from..to].iter().any(|sample| *sample != 0);
                // What is made counts as heard for the next hole.
                for (place, sample) in (self.play + from as u64..).zip(&frame[from..to]) {
                    self.samples[index_of(place, self.ring)] = *sample;
                }
            }
            block = end;
        }
        sounds
    }

    /// A hole begins at `position`: looks back at what came before it.
    fn begin_hole(&mut self, position: u64) {
        let mut heard = [0; HISTORY];
        let heard = &mut heard[..self.remembered(position).min(HISTORY)];
        let from = position - heard.len() as u64;
        for (sample, place) in heard.iter_mut().zip(from..) {
            *sample = self.samples[index_of(place, self.ring)];
        }
        self.concealment.begin(heard);
    }

    /// Samples before `position` that the ring still holds.
    fn remembered(&self, position: u64) -> usize {
        let ahead = usize::try_from(self.end.saturating_sub(self.play)).unwrap_or(self.ring);
        let kept = self.ring.saturating_sub(ahead) as u64;
        let since = position.saturating_sub(ORIGIN.min(position));
        usize::try_from(since.min(kept)).unwrap_or(0)
    }

    fn is_valid(&self, position: u64) -> bool {
        let block = index_of(position, self.ring) / BLOCK;
        position < self.end && self.valid[block / 64] & (1 << (block % 64)) != 0
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below the length of the ring")]
const fn index_of(position: u64, ring: usize) -> usize {
    (position % ring as u64) as usize
}

/// The validity blocks of a ring of `ring` samples that begin inside `len` samples from `position`.
#[expect(clippy::cast_possible_truncation, reason = "below the number of blocks")]
fn blocks(position: u64, len: usize, ring: usize) -> impl Iterator<Item = usize> {
    let first = position.div_ceil(BLOCK as u64);
    let last = (position + len as u64).div_ceil(BLOCK as u64);
    (first..last).map(move |block| (block % (ring / BLOCK) as u64) as usize)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of our own")]
mod tests {
    use super::*;

    /// A buffer fed with packets whose sample at timestamp `t` has the value `t % 10_000 + 1`.
    struct Bench {
        buffer: JitterBuffer,
    }

    impl Bench {
        fn new() -> Self {
            Self { buffer: JitterBuffer::new() }
        }

        fn push(&mut self, ms: u64, timestamp: u32, len: usize) -> Result<(), DropReason> {
            self.buffer.push(Instant::from_millis(ms), RtpTimestamp(timestamp), len, |offset, out| {
                for (n, sample) in out.iter_mut().enumerate() {
                    *sample = value(timestamp.wrapping_add((offset + n) as u32));
                }
            })
        }

        fn pull(&mut self, ms: u64) -> (Vec<i16>, Pulled) {
            let mut frame = [0; FRAME_SAMPLES];
            let pulled = self.buffer.pull(Instant::from_millis(ms), &mut frame);
            (frame.to_vec(), pulled)
        }
    }

    fn value(timestamp: u32) -> i16 {
        (timestamp % 10_000 + 1) as i16
    }

    fn ramp(timestamp: u32) -> Vec<i16> {
        (0..FRAME_SAMPLES as u32).map(|n| value(timestamp.wrapping_add(n))).collect()
    }

    #[test]
    fn plays_what_came_in_order_bit_exactly_across_the_timestamp_wrap() {
        for ptime in [80usize, 160, 240, 320, 480] {
            let mut bench = Bench::new();
            let start = 0u32.wrapping_sub(4000);
            let (mut sent, mut played) = (start, start);
            for ms in (0..3000).step_by(10) {
                if ms % (ptime as u64 / 8) == 0 {
                    assert_eq!(bench.push(ms, sent, ptime), Ok(()));
                    sent = sent.wrapping_add(ptime as u32);
                }
                let (frame, pulled) = bench.pull(ms);
                if ms < 20 {
                    assert!(!pulled.heard);
                    continue;
                }
                assert_eq!(
                    (frame, pulled),
                    (ramp(played), Pulled { heard: true, concealed: false, missing: 0 }),
                    "ptime {ptime} ms {ms}"
                );
                played = played.wrapping_add(80);
            }
        }
    }

    #[test]
    fn a_burst_grows_the_ring_and_comes_out_whole() {
        let mut bench = Bench::new();
        for (n, timestamp) in (0u32..24).map(|n| (n, 777 + 160 * n)) {
            assert_eq!(bench.push(u64::from(n) / 4, timestamp, 160), Ok(()), "packet {n}");
        }
        assert_eq!(bench.push(7, 777 + 160, 160), Err(DropReason::Duplicate), "what was valid before it grew still is");
        assert!(bench.buffer.ring > RING_SAMPLES_MIN);
        for n in 0..48 {
            let (frame, pulled) = bench.pull(20 + 10 * n);
            assert_eq!((frame, pulled.heard), (ramp(777 + 80 * n as u32), true), "frame {n}");
        }
    }

    #[test]
    fn a_burst_into_a_buffer_that_ran_dry() {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 1000, 160), Ok(()));
        for ms in [20, 30, 40, 50] {
            bench.pull(ms);
        }
        assert!(bench.buffer.play > bench.buffer.end);
        // Later than the playout point, and further ahead than the small ring holds.
        assert_eq!(bench.push(55, 1000 + 320 + 640, 160), Ok(()));
        let heard: Vec<_> = (0..10).map(|n| bench.pull(60 + 10 * n).0).filter(|frame| frame[0] != 0).collect();
        assert_eq!(heard, [ramp(1960), ramp(2040)]);
    }

    #[test]
    fn reordered_duplicated_and_lost_packets() {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 1160, 160), Ok(()));
        assert_eq!(bench.push(1, 1000, 160), Ok(()), "an overtaken first packet still comes first");
        assert_eq!(bench.push(2, 1160, 160), Err(DropReason::Duplicate));
        for timestamp in [1320, 1480, 1800] {
            assert_eq!(bench.push(10, timestamp, 160), Ok(()));
        }
        let played: Vec<_> = (0..12).map(|n| bench.pull(20 + 10 * n)).collect();
        for (n, (frame, pulled)) in played.into_iter().enumerate() {
            let timestamp = 1000 + 80 * n as u32;
            if (1640..1800).contains(&timestamp) {
                assert_eq!(pulled, Pulled { heard: false, concealed: true, missing: 80 });
                assert_ne!(frame, vec![0; 80]);
            } else if timestamp == 1800 {
                // Faded into.
                assert_eq!(pulled, Pulled { heard: true, concealed: true, missing: 0 });
                assert_eq!(frame[79], ramp(timestamp)[79]);
            } else {
                assert_eq!((frame, pulled), (ramp(timestamp), Pulled { heard: true, concealed: false, missing: 0 }));
            }
        }
        assert_eq!(bench.push(140, 1640, 160), Err(DropReason::Late));
    }

    /// What is told of a frame is what is in it: to the last sample that fades.
    #[test]
    fn what_stands_for_the_end_of_a_voice_is_told_until_it_has_faded() {
        let mut bench = Bench::new();
        for n in 0..4 {
            assert_eq!(bench.push(0, 1000 + 160 * n, 160), Ok(()));
        }
        let frames: Vec<_> = (0..17).map(|n| bench.pull(20 + 10 * n)).collect();
        for (n, (frame, pulled)) in frames.into_iter().enumerate() {
            assert_eq!(pulled.heard, n < 8, "frame {n}");
            assert_eq!(pulled.concealed, n >= 8 && frame.iter().any(|sample| *sample != 0), "frame {n}");
            assert_eq!(pulled.concealed, (8..14).contains(&n), "frame {n}");
        }
    }

    #[test]
    fn a_new_timeline_is_followed_after_three_packets() {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 1000, 160), Ok(()));
        bench.pull(20);
        assert_eq!(bench.push(20, 900_000, 160), Err(DropReason::Early));
        assert_eq!(bench.push(40, 900_160, 160), Err(DropReason::Early));
        assert_eq!(bench.push(60, 900_320, 160), Ok(()));
        assert_eq!(bench.pull(80).0, ramp(900_320));
    }

    #[test]
    fn silence_ends_the_talkspurt_and_the_next_one_is_primed_again() {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 1000, 160), Ok(()));
        for ms in (20..200).step_by(10) {
            bench.pull(ms);
        }
        assert_eq!(bench.buffer.next_timestamp(), None);
        assert_eq!(bench.push(500, 5000, 160), Ok(()));
        assert!(!bench.pull(510).1.heard);
        assert_eq!(bench.pull(520).0, ramp(5000));
    }

    #[test]
    fn clocks_that_differ_cost_a_frame_now_and_then_and_no_packet() {
        for (interval_us, ppm) in [(20_010u64, -500), (19_990, 500)] {
            let mut bench = Bench::new();
            let (mut next_packet_us, mut timestamp, mut heard, mut dropped) = (0, 0u32, 0, 0);
            for ms in (0..600_000u64).step_by(10) {
                while next_packet_us <= ms * 1000 {
                    dropped += u32::from(bench.push(ms, timestamp, 160).is_err());
                    timestamp = timestamp.wrapping_add(160);
                    next_packet_us += interval_us;
                }
                heard += u32::from(bench.pull(ms).1.heard);
            }
            assert_eq!(dropped, 0, "{ppm} ppm");
            assert!(heard > 59_900, "{ppm} ppm: {heard}");
            // Ten minutes at 500 ppm are 300 ms; the delay stays where it was.
            let depth = bench.buffer.end - bench.buffer.play;
            assert!(depth < 800, "{ppm} ppm: {depth} samples deep");
        }
    }

    #[test]
    fn hostile_lengths_and_timestamps_stay_inside() {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 7, 0), Err(DropReason::PayloadSize));
        assert_eq!(bench.push(0, 7, JITTER_SAMPLES), Err(DropReason::PayloadSize));
        let mut seed = 1u32;
        for ms in 0..20_000u64 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let _ =
                bench.push(ms, if seed.is_multiple_of(3) { seed } else { ms as u32 * 8 }, (seed >> 20) as usize % 600);
            bench.pull(ms);
        }
    }
}
