//! Faster or slower speech at the same pitch, at any [`Rate`]: overlap and add with a search for what is alike (WSOLA).
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
//! At 100 % samples are passed on as they are, to the bit and without delay. The state is allocated once, about 2.5 kB at
//! 8 kHz and 14 kB at 48; a search costs 161 x 80 products for each 20 ms, which vectorise. Above 8 kHz it is made at
//! 8 kHz, and then to the sample around what it has found.

use core::fmt;

use crate::dispatch::kernels;
use crate::kind::Rate;
use crate::mix;

/// The speeds there are, in percent.
pub const PERCENT_MIN: u16 = 50;
/// The highest of them.
pub const PERCENT_MAX: u16 = 150;

/// Changes the speed of a stream of samples. The caller pulls: [`Self::fill`] asks the source for what it needs.
#[derive(Clone)]
pub struct TimeStretch {
    percent: i32,
    /// How many times 8 kHz its rate is; all lengths are so many times those at 8 kHz.
    scale: usize,
    /// Samples of the source: some that are done with, for the search to go back to, then those to come.
    buffer: Box<[i16]>,
    len: usize,
    /// Where the output would go on without a splice.
    natural: usize,
    /// How many samples from there are to be put out before the next splice.
    ready: usize,
    /// Where the next piece should begin if nothing but the speed counted, in hundredths of a sample.
    ideal: i32,
    /// The samples that lead from one piece to the next, and how many of them are out.
    splice: Box<[i16]>,
    splice_done: usize,
    /// The source has given less than it was asked for, and what is buffered is being put out.
    is_draining: bool,
}

impl TimeStretch {
    /// One for 8 kHz that passes everything on at 100 %.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rate(Rate::Narrow)
    }

    /// The same for another rate.
    #[must_use]
    pub fn with_rate(rate: Rate) -> Self {
        let scale = rate.frame_samples() / Rate::Narrow.frame_samples();
        Self {
            percent: UNCHANGED,
            scale,
            buffer: vec![0; CAPACITY * scale].into(),
            len: 0,
            natural: 0,
            ready: 0,
            ideal: 0,
            splice: vec![0; OVERLAP * scale].into(),
            splice_done: OVERLAP * scale,
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
        self.splice_done = self.overlap();
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
        let wanted = self.ideal_index() + self.search() + self.piece() + self.overlap();
        if self.is_draining || self.len >= wanted {
            return;
        }
        let done_with = self.natural.min(self.ideal_index()).saturating_sub(HISTORY * self.scale);
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
        let (overlap, search) = (self.overlap(), self.search());
        let rest = self.len - self.natural;
        if rest < overlap {
            return self.play_rest();
        }
        let is_last = self.len < self.ideal_index() + search + self.piece() + overlap;
        // The last samples are played as they are, so that their number has to be that of the output still due.
        let due = usize::try_from((hundredths(self.len) - self.ideal) / self.percent).unwrap_or(0);
        let target = if is_last { self.len.saturating_sub(due) } else { self.ideal_index() };
        let last = (target + search).min(self.len - overlap);
        let first = target.saturating_sub(search).min(last);
        let begin = self.most_alike(first, last, target);

        let natural = &self.buffer[self.natural..][..overlap];
        let piece = &self.buffer[begin..][..overlap];
        for (at, ((out, from), to)) in self.splice.iter_mut().zip(natural).zip(piece).enumerate() {
            *out = faded(*from, *to, (at, overlap));
        }
        self.splice_done = 0;

        let to_end = self.len - begin;
        let piece = if !is_last {
            self.piece()
        } else if to_end + search >= due || to_end < 2 * overlap {
            to_end
        } else {
            // A source of less than a few pieces is gone through more than once.
            self.piece().min(to_end - overlap)
        };
        self.natural = begin + overlap;
        self.ready = piece - overlap;
        self.ideal += hundredths(piece) / UNCHANGED * self.percent;
    }

    fn play_rest(&mut self) {
        self.ready = self.len - self.natural;
        self.ideal = hundredths(self.len);
    }

    /// The index from `first` to `last` whose samples are most like those at `natural`; of equal ones that nearest to
    /// `target`.
    fn most_alike(&self, first: usize, last: usize, target: usize) -> usize {
        let (scale, overlap) = (self.scale, self.overlap());
        let pattern = &self.buffer[self.natural..][..overlap];
        if scale == 1 {
            let mut exact = [0; OVERLAP];
            exact.copy_from_slice(pattern);
            let region = &self.buffer[first..last + overlap];
            return first + likest(exact, region, target.clamp(first, last) - first);
        }
        // At 8 kHz first.
        let (mut coarse, mut region) = ([0; OVERLAP], [0; 2 * SEARCH + OVERLAP]);
        reduce(pattern, scale, &mut coarse);
        let lags = (last - first) / scale;
        let region = &mut region[..lags + OVERLAP];
        reduce(&self.buffer[first..last + overlap], scale, region);
        let near = first + scale * likest(coarse, region, (target.clamp(first, last) - first) / scale).min(lags);
        let (from, to) = (near.saturating_sub(scale - 1).max(first), (near + scale - 1).min(last));
        let mut best = (0.0, target.clamp(from, to));
        for index in from..=to {
            let stretch = &self.buffer[index..][..overlap];
            let (mut correlation, mut energy) = (0.0_f32, 1.0_f32);
            for (pattern, sample) in pattern.iter().zip(stretch) {
                let sample = f32::from(*sample);
                correlation += f32::from(*pattern) * sample;
                energy += sample * sample;
            }
            let correlation = correlation.max(0.0);
            let likeness = correlation * correlation / energy;
            if likeness > best.0 {
                best = (likeness, index);
            }
        }
        best.1
    }

    /// Samples of a piece.
    const fn piece(&self) -> usize {
        PIECE * self.scale
    }

    /// Samples over which pieces are faded into each other.
    const fn overlap(&self) -> usize {
        OVERLAP * self.scale
    }

    /// Samples by which a piece may begin from where it should.
    const fn search(&self) -> usize {
        SEARCH * self.scale
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

/// Which of the stretches of `region` is most like `pattern`; of equal ones that nearest to the one that is wanted.
fn likest(mut pattern: [i16; OVERLAP], region: &[i16], wanted: usize) -> usize {
    // Eight bits of the pattern are enough, and keep the sums within 32 bits.
    let shift = (u16::BITS - mix::peak(&pattern).leading_zeros()).saturating_sub(PATTERN_BITS);
    for sample in &mut pattern {
        *sample >>= shift;
    }
    let mut correlations = [0; 2 * SEARCH + 1];
    let lags = region.len() - OVERLAP;
    let correlations = &mut correlations[..=lags];
    kernels().correlate_lags(&pattern, region, correlations);

    let mut energy = mix::energy(&region[..OVERLAP]);
    let mut best = (0.0, wanted);
    for (lag, correlation) in correlations.iter().enumerate() {
        let correlation = (*correlation).max(0) as f32;
        let likeness = correlation * correlation / (energy as f32 + 1.0);
        if likeness > best.0 || likeness == best.0 && lag.abs_diff(wanted) < best.1.abs_diff(wanted) {
            best = (likeness, lag);
        }
        if lag < lags {
            energy = energy + square(region[lag + OVERLAP]) - square(region[lag]);
        }
    }
    best.1
}

/// Means of each `scale` samples.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a mean of samples is a sample")]
fn reduce(samples: &[i16], scale: usize, out: &mut [i16]) {
    for (out, samples) in out.iter_mut().zip(samples.chunks_exact(scale)) {
        *out = (samples.iter().map(|sample| i32::from(*sample)).sum::<i32>() / scale as i32) as i16;
    }
}

/// The sample at a place of a splice of that length.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a mean of two samples is a sample")]
fn faded(from: i16, to: i16, (at, len): (usize, usize)) -> i16 {
    let (to_weight, whole) = (at as i32, len as i32);
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
/// 20 ms at 8 kHz, as all lengths: some periods of any voice.
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
