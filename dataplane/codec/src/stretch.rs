//! Faster or slower speech at the same pitch, at 8 kHz: overlap and add with a search for what is alike (WSOLA).
//!
//! Pieces of 20 ms are taken from the source at the distance that the speed asks for, and put one after the other. Where
//! a piece begins is moved by up to 10 ms, to where the source is most like what would have followed the piece before;
//! the two are faded into each other over 10 ms. So a period of a voice is never cut, only left out or said twice:
//!
//! ```text
//! source  ───────[ piece 1 ]natural ──────────────────
//!                       │ideal│◀─ search ─▶│
//!                          [ piece 2 ]natural ────────
//! output  …[ piece 1 ][fade piece 2 ]…
//! ```
//!
//! At 100 % samples are passed on as they are, to the bit and without delay. The state is the struct, about 2.5 kB; a
//! search costs 161 x 80 products for each 20 ms, which vectorise.

use core::fmt;

use crate::dispatch::kernels;
use crate::mix;

/// The speeds there are, in percent.
pub const PERCENT_MIN: u16 = 50;
/// The highest of them.
pub const PERCENT_MAX: u16 = 150;

/// Changes the speed of a stream of samples. The caller pulls: [`Self::fill`] asks the source for what it needs.
#[derive(Clone)]
pub struct TimeStretch {
    percent: i32,
    /// Samples of the source: some that are done with, for the search to go back to, then those to come.
    buffer: [i16; CAPACITY],
    len: usize,
    /// Where the output would go on without a splice.
    natural: usize,
    /// How many samples from there are to be put out before the next splice.
    ready: usize,
    /// Where the next piece should begin if nothing but the speed counted, in hundredths of a sample.
    ideal: i32,
    /// The samples that lead from one piece to the next, and how many of them are out.
    splice: [i16; OVERLAP],
    splice_done: usize,
    /// The source has given less than it was asked for, and what is buffered is being put out.
    is_draining: bool,
}

impl TimeStretch {
    /// One that passes everything on at 100 %.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            percent: UNCHANGED,
            buffer: [0; CAPACITY],
            len: 0,
            natural: 0,
            ready: 0,
            ideal: 0,
            splice: [0; OVERLAP],
            splice_done: OVERLAP,
            is_draining: false,
        }
    }

    /// Sets the speed, from the next piece on: 50 takes twice the time, 150 two thirds. Beyond [`PERCENT_MIN`] and
    /// [`PERCENT_MAX`] the nearer of them is taken.
    pub fn set_percent(&mut self, percent: u16) {
        self.percent = i32::from(percent.clamp(PERCENT_MIN, PERCENT_MAX));
    }

    /// Forgets what is buffered, for a source that continues elsewhere. The speed stays.
    pub fn clear(&mut self) {
        (self.len, self.natural, self.ready, self.ideal) = (0, 0, 0, 0);
        self.splice_done = OVERLAP;
        self.is_draining = false;
    }

    /// Writes the next samples of the output, and returns how many: fewer than there is room for when the source has
    /// come to its end and everything is out. A later call asks the source again.
    ///
    /// `source` fills a slice, never an empty one, and returns how many samples it gave; fewer than asked for mean that
    /// these were the last for now. The output as a whole is as long as the source by the speed, to 20 ms.
    ///
    /// # Panics
    ///
    /// If `source` claims to have given more than it was asked for.
    pub fn fill(&mut self, out: &mut [i16], source: &mut dyn FnMut(&mut [i16]) -> usize) -> usize {
        let mut written = 0;
        loop {
            written += self.take_ready(&mut out[written..]);
            if written == out.len() {
                return written;
            }
            if self.percent == UNCHANGED && self.natural < self.len {
                self.play_rest();
            } else if self.percent == UNCHANGED && !self.is_draining {
                self.clear();
                let room = &mut out[written..];
                let asked = room.len();
                let given = source(room);
                assert!(given <= asked, "a source gives what it is asked for at most");
                return written + given;
            } else {
                self.refill(source);
                if self.natural == self.len {
                    self.clear();
                    return written;
                }
                self.next_piece();
            }
        }
    }

    /// The speed in percent.
    #[must_use]
    pub fn percent(&self) -> u16 {
        u16::try_from(self.percent).unwrap_or(PERCENT_MAX)
    }

    /// Puts out what needs no decision.
    fn take_ready(&mut self, out: &mut [i16]) -> usize {
        let splice = &self.splice[self.splice_done..];
        let (head, tail) = out.split_at_mut(splice.len().min(out.len()));
        head.copy_from_slice(&splice[..head.len()]);
        self.splice_done += head.len();
        let count = self.ready.min(tail.len());
        tail[..count].copy_from_slice(&self.buffer[self.natural..][..count]);
        self.natural += count;
        self.ready -= count;
        head.len() + count
    }

    /// Asks the source for all that the next search may look at.
    fn refill(&mut self, source: &mut dyn FnMut(&mut [i16]) -> usize) {
        let wanted = self.ideal_index() + SEARCH + PIECE + OVERLAP;
        if self.is_draining || self.len >= wanted {
            return;
        }
        let done_with = self.natural.min(self.ideal_index()).saturating_sub(HISTORY);
        self.buffer.copy_within(done_with..self.len, 0);
        self.len -= done_with;
        self.natural -= done_with;
        self.ideal -= hundredths(done_with);
        let room = &mut self.buffer[self.len..wanted - done_with];
        let asked = room.len();
        let given = source(room);
        assert!(given <= asked, "a source gives what it is asked for at most");
        self.len += given;
        self.is_draining = given < asked;
    }

    /// Finds the begin of the next piece and makes the splice that leads to it.
    fn next_piece(&mut self) {
        let rest = self.len - self.natural;
        if rest < OVERLAP {
            return self.play_rest();
        }
        let is_last = self.len < self.ideal_index() + SEARCH + PIECE + OVERLAP;
        // The last samples are played as they are, so that their number has to be that of the output still due.
        let due = usize::try_from((hundredths(self.len) - self.ideal) / self.percent).unwrap_or(0);
        let target = if is_last { self.len.saturating_sub(due) } else { self.ideal_index() };
        let last = (target + SEARCH).min(self.len - OVERLAP);
        let first = target.saturating_sub(SEARCH).min(last);
        let begin = self.most_alike(first, last, target);

        let natural = &self.buffer[self.natural..][..OVERLAP];
        let piece = &self.buffer[begin..][..OVERLAP];
        for (at, ((out, from), to)) in self.splice.iter_mut().zip(natural).zip(piece).enumerate() {
            *out = faded(*from, *to, at);
        }
        self.splice_done = 0;

        let to_end = self.len - begin;
        let piece = if !is_last {
            PIECE
        } else if to_end + SEARCH >= due || to_end < 2 * OVERLAP {
            to_end
        } else {
            // A source of less than a few pieces is gone through more than once.
            PIECE.min(to_end - OVERLAP)
        };
        self.natural = begin + OVERLAP;
        self.ready = piece - OVERLAP;
        self.ideal += hundredths(piece) / UNCHANGED * self.percent;
    }

    fn play_rest(&mut self) {
        self.ready = self.len - self.natural;
        self.ideal = hundredths(self.len);
    }

    /// The index from `first` to `last` whose samples are most like those at `natural`; of equal ones that nearest to
    /// `target`.
    fn most_alike(&self, first: usize, last: usize, target: usize) -> usize {
        let mut pattern = [0; OVERLAP];
        pattern.copy_from_slice(&self.buffer[self.natural..][..OVERLAP]);
        // Eight bits of the pattern are enough, and keep the sums within 32 bits.
        let shift = (u16::BITS - mix::peak(&pattern).leading_zeros()).saturating_sub(PATTERN_BITS);
        for sample in &mut pattern {
            *sample >>= shift;
        }
        let region = &self.buffer[first..last + OVERLAP];
        let mut correlations = [0; 2 * SEARCH + 1];
        let correlations = &mut correlations[..=last - first];
        kernels().correlate_lags(&pattern, region, correlations);

        let mut energy = mix::energy(&region[..OVERLAP]);
        let mut best = (0.0, target.clamp(first, last));
        for (lag, correlation) in correlations.iter().enumerate() {
            let correlation = (*correlation).max(0) as f32;
            let likeness = correlation * correlation / (energy as f32 + 1.0);
            let index = first + lag;
            if likeness > best.0 || likeness == best.0 && index.abs_diff(target) < best.1.abs_diff(target) {
                best = (likeness, index);
            }
            if index < last {
                energy = energy + square(region[lag + OVERLAP]) - square(region[lag]);
            }
        }
        best.1
    }

    fn ideal_index(&self) -> usize {
        usize::try_from(self.ideal / UNCHANGED).unwrap_or(0)
    }
}

impl Default for TimeStretch {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows where it stands, not the samples.
impl fmt::Debug for TimeStretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeStretch")
            .field("percent", &self.percent)
            .field("buffered", &(self.len - self.natural))
            .field("is_draining", &self.is_draining)
            .finish_non_exhaustive()
    }
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    use super::OVERLAP;

    /// The correlation of `pattern` with every stretch of `region`. The pattern has nine bits, so that no sum overflows.
    #[inline(always)]
    pub(crate) fn correlate_lags(pattern: &[i16; OVERLAP], region: &[i16], out: &mut [i32]) {
        for (lag, out) in out.iter_mut().enumerate() {
            // An array and not a slice, so that the loop below has no rest to care for.
            let Some(stretch) = region.get(lag..).and_then(|region| region.first_chunk::<OVERLAP>()) else { return };
            let mut sum = 0;
            for at in 0..OVERLAP {
                sum += i32::from(pattern[at]) * i32::from(stretch[at]);
            }
            *out = sum;
        }
    }
}

/// The sample at place `at` of a splice.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a mean of two samples is a sample")]
fn faded(from: i16, to: i16, at: usize) -> i16 {
    let (to_weight, whole) = (at as i32, OVERLAP as i32);
    ((i32::from(from) * (whole - to_weight) + i32::from(to) * to_weight) / whole) as i16
}

fn square(sample: i16) -> u64 {
    u64::from(sample.unsigned_abs()).pow(2)
}

/// An index into the buffer in hundredths of a sample.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the buffer is short")]
const fn hundredths(index: usize) -> i32 {
    index as i32 * UNCHANGED
}

/// The speed at which nothing is changed, which is also what an ideal index is counted in.
const UNCHANGED: i32 = 100;
/// 20 ms, some periods of any voice.
const PIECE: usize = 160;
/// 10 ms.
const OVERLAP: usize = 80;
/// How far a piece may begin from where it should: 10 ms, so that a search spans a period of the lowest voice.
const SEARCH: usize = 80;
/// What is kept before the next piece, for the last pieces to go back to.
const HISTORY: usize = 480;
/// The history; the ideal index is up to 160 before the natural one or behind it; and what a search looks at.
const CAPACITY: usize = HISTORY + 160 + 160 + SEARCH + PIECE + OVERLAP;
const PATTERN_BITS: u32 = 8;

// The largest sum of `correlate_lags`.
const _: () = assert!((1_i64 << PATTERN_BITS) * (1 << 15) * (OVERLAP as i64) < i32::MAX as i64);

#[cfg(test)]
mod tests;
