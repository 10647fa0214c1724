//! Finding known voices in what was heard: alignment by correlation, then gains by least squares.
//!
//! What an endpoint hears is a sum of voices, each late by some delay, and every voice is known to the sample. So the
//! question "is she heard here, and how loud?" has a number for an answer: the gain with which her samples, aligned,
//! best explain the heard ones (together with all the others' samples). The gain comes with its standard error, so that
//! a pause in speech reads as "can't tell" and never as "absent".
//!
//! On a busy machine packets come late: voices have holes, and their delays move. So alignment is followed in blocks, and
//! windows of 20 ms that no sum of the voices explains well count as evidence for nothing.

use std::ops::Range;

/// Length of a block for which one alignment holds, in samples: half a second.
const BLOCK: usize = 4000;
const STEP: i64 = BLOCK as i64;
/// Alignment looked for at first: the voice was sent up to this many samples before it was heard, …
const DELAY_MAX: i64 = 8000;
/// … or after, as far as the guess may be wrong.
const DELAY_MIN: i64 = -1600;
/// Samples that are taken together where alignments are looked for at first.
const COARSE: usize = 4;
const COARSE_STEP: i64 = COARSE as i64;
/// Coarse alignments that are looked at closely.
const CANDIDATES: usize = 3;
/// Within a block, whether an alignment has moved already is told in parts of this many samples: 25 ms.
const PART: usize = 200;
/// How far the alignment of a part may be from that of the whole.
const MOVE_MAX: i64 = 1000;
/// A block has to fit this well to move the alignment: the voice alone makes up some 0.6 of a mix of three.
const CORRELATION_MIN: f64 = 0.45;
/// And this much better than where it was.
const BETTER: f64 = 1.3;
/// The loudest blocks among which the first alignment is looked for.
const ANCHORS: usize = 5;
/// Windows in which a voice is looked for: 20 ms.
pub(super) const WINDOW: usize = 160;
/// A voice quieter than this in a window can't be told from rounding, as mean square: −60 dBov.
const POWER_MIN: f64 = 1000.0;
/// The voices explain a window if their best sum correlates this well with it.
const CLEAR_MIN: f64 = 0.95;

/// Samples of a voice as its endpoint sent them.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    /// Whose.
    pub(super) name: String,
    /// All that was sent, pauses included.
    pub(super) samples: Vec<f32>,
    /// The same at a lower rate, to look for alignments quickly.
    coarse: Vec<f32>,
}

/// Where a voice lies under what was heard: for each part of a block from `origin` on, its sample that was heard with the
/// part's first. Before and after, the nearest alignment goes on.
#[derive(Clone, Debug)]
pub(super) struct Track {
    origin: usize,
    starts: Vec<i64>,
}

/// One voice under what was heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aligned<'a> {
    pub(super) voice: &'a Voice,
    pub(super) track: &'a Track,
}

/// How loud a voice is in what was heard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Gain {
    /// 1 as it was sent, 0 not at all.
    pub(super) value: f64,
    /// Standard error of that; infinite where the voice is silent.
    pub(super) error: f64,
}

/// Whether a voice is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    Present,
    Absent,
    /// The voice pauses, or too much is missing around it.
    Unclear,
}

/// What a least-squares fit found.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    /// One for each voice, in the order given.
    pub(super) gains: Vec<Gain>,
    /// Correlation of what was heard with the best sum of the voices, 0 ..= 1.
    pub(super) correlation: f64,
}

impl Fit {
    /// Whether the voices explain what was heard.
    pub(super) fn is_clear(&self) -> bool {
        self.correlation >= CLEAR_MIN
    }

    /// Whether a voice is there with at least half its level.
    pub(super) fn presence(&self, voice: usize) -> Presence {
        let Gain { value, error } = self.gains[voice];
        if !self.is_clear() {
            Presence::Unclear
        } else if value > 0.5 && value > 6.0 * error {
            Presence::Present
        } else if error < 0.1 && value < 0.5 {
            Presence::Absent
        } else {
            Presence::Unclear
        }
    }
}

impl Voice {
    pub(super) fn new(name: &str, samples: &[i16]) -> Self {
        let samples: Vec<f32> = samples.iter().map(|sample| f32::from(*sample)).collect();
        Self { name: name.to_owned(), coarse: coarse(&samples), samples }
    }

    /// The sample at `index`, silence outside.
    fn at(&self, index: i64) -> f32 {
        usize::try_from(index).ok().and_then(|index| self.samples.get(index)).copied().unwrap_or(0.0)
    }
}

impl Track {
    /// Aligns a voice with what was heard in `range`. `sent(at)` is a guess from the clock: which of its samples was being
    /// sent when sample `at` was heard.
    pub(super) fn find(heard: &[f32], voice: &Voice, range: Range<usize>, sent: impl Fn(usize) -> i64) -> Self {
        let blocks = blocks(heard, &range);
        let wide = |index: usize| {
            let guess = sent(range.start + index * BLOCK);
            guess - DELAY_MAX..guess - DELAY_MIN
        };
        // The loud block that tells most fixes the first alignment; from there it is followed both ways.
        let mut anchors: Vec<usize> = (0..blocks.len()).collect();
        anchors.sort_by(|a, b| energy(blocks[*b]).total_cmp(&energy(blocks[*a])));
        anchors.truncate(ANCHORS);
        let anchor = anchors
            .into_iter()
            .map(|index| (index, best_start(blocks[index], voice, wide(index))))
            .max_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        let Some((anchor, (start, _))) = anchor else {
            return Self { origin: range.start, starts: vec![sent(range.start)] };
        };
        let mut starts = vec![start; blocks.len()];
        for index in anchor + 1..blocks.len() {
            starts[index] = follow(blocks[index], voice, starts[index - 1] + STEP, wide(index));
        }
        for index in (0..anchor).rev() {
            starts[index] = follow(blocks[index], voice, starts[index + 1] - STEP, wide(index));
        }
        Self { origin: range.start, starts: in_parts(&blocks, voice, &starts) }
    }

    /// The same for a part, whose blocks begin with it: where delays change at its start, they change between blocks.
    pub(super) fn refine(&self, heard: &[f32], voice: &Voice, range: Range<usize>) -> Self {
        let blocks = blocks(heard, &range);
        let Some(_) = blocks.first() else {
            return Self { origin: range.start, starts: vec![self.sample(range.start)] };
        };
        let starts: Vec<i64> = blocks
            .iter()
            .enumerate()
            .map(|(index, block)| {
                let start = self.sample(range.start + index * BLOCK);
                follow(block, voice, start, start - MOVE_MAX..start + MOVE_MAX)
            })
            .collect();
        Self { origin: range.start, starts: in_parts(&blocks, voice, &starts) }
    }

    /// One alignment for all of a part and for what comes after: that of the block that tells most.
    pub(super) fn steady(&self, heard: &[f32], voice: &Voice, range: Range<usize>) -> Self {
        let refined = self.refine(heard, voice, range.clone());
        let best = blocks(heard, &range)
            .into_iter()
            .zip((range.start..).step_by(BLOCK))
            .map(|(block, at)| {
                (refined.sample(at), at, correlation(block, energy(block), &voice.samples, refined.sample(at)))
            })
            .max_by(|a, b| a.2.total_cmp(&b.2));
        let (start, at, _) = best.unwrap_or_else(|| (refined.sample(range.start), range.start, 0.0));
        Self { origin: range.start, starts: vec![start - signed(at) + signed(range.start)] }
    }

    /// The voice's sample that was heard as sample `at`.
    pub(super) fn sample(&self, at: usize) -> i64 {
        let index = (at.saturating_sub(self.origin) / PART).min(self.starts.len() - 1);
        self.starts[index] + signed(at) - signed(self.origin + index * PART)
    }
}

/// Explains what was heard in some ranges as one sum of voices.
pub(super) fn fit(heard: &[f32], ranges: &[Range<usize>], voices: &[Aligned<'_>]) -> Fit {
    let inside = ranges.iter().flat_map(|range| range.start..range.end.min(heard.len()));
    let n = voices.len();
    let mut count = 0.0;
    let mut normal = vec![vec![0.0; n]; n];
    let mut right = vec![0.0; n];
    let mut total = 0.0;
    let mut row = vec![0.0; n];
    for at in inside {
        count += 1.0;
        let value = f64::from(heard[at]);
        total += value * value;
        for (cell, aligned) in row.iter_mut().zip(voices) {
            *cell = f64::from(aligned.voice.at(aligned.track.sample(at)));
        }
        for i in 0..n {
            right[i] += row[i] * value;
            for j in 0..n {
                normal[i][j] += row[i] * row[j];
            }
        }
    }
    // Voices that pause here take no part; a trace of ridge keeps near-equal ones apart.
    let active: Vec<usize> = (0..n).filter(|i| normal[*i][*i] > POWER_MIN * count).collect();
    for i in &active {
        normal[*i][*i] *= 1.0 + 1e-6;
    }
    let inverse = invert(&active.iter().map(|i| active.iter().map(|j| normal[*i][*j]).collect()).collect::<Vec<_>>());
    let mut gains = vec![Gain { value: 0.0, error: f64::INFINITY }; n];
    let mut explained = 0.0;
    for (row, i) in inverse.iter().zip(&active) {
        gains[*i].value = row.iter().zip(&active).map(|(cell, j)| cell * right[*j]).sum();
        explained += gains[*i].value * right[*i];
    }
    // At least the rounding to whole samples is left over.
    let freedom = (count - active.len() as f64).max(1.0);
    let noise = ((total - explained) / freedom).max(1.0 / 12.0);
    for (index, i) in active.iter().enumerate() {
        gains[*i].error = (noise * inverse[index][index]).max(0.0).sqrt();
    }
    let correlation = if total > 0.0 { (explained / total).clamp(0.0, 1.0).sqrt() } else { 0.0 };
    Fit { gains, correlation }
}

/// The same for each window of a range by itself, but those in which nobody speaks.
pub(super) fn fits(heard: &[f32], range: Range<usize>, voices: &[Aligned<'_>]) -> Vec<(Range<usize>, Fit)> {
    let windows = range.clone().step_by(WINDOW).map(|start| start..(start + WINDOW).min(range.end));
    let fits = windows.map(|window| (window.clone(), fit(heard, &[window], voices)));
    fits.filter(|(_, fit)| fit.gains.iter().any(|gain| gain.error.is_finite())).collect()
}

/// `heard[range]` in blocks; a rest of less than a quarter of a block is aligned like the one before.
fn blocks<'a>(heard: &'a [f32], range: &Range<usize>) -> Vec<&'a [f32]> {
    let part = &heard[range.start.min(heard.len())..range.end.min(heard.len())];
    part.chunks(BLOCK).filter(|block| block.len() >= BLOCK / 4).collect()
}

/// Keeps an alignment, unless the block says clearly that it has moved to another in `range`.
fn follow(block: &[f32], voice: &Voice, start: i64, range: Range<i64>) -> i64 {
    let here = correlation(block, energy(block), &voice.samples, start);
    if here > CORRELATION_MIN {
        return start;
    }
    let (best, there) = best_start(block, voice, range);
    if there > CORRELATION_MIN && there > here * BETTER { best } else { start }
}

/// Alignments of blocks as those of their parts: where an alignment moves, it does so within a block.
fn in_parts(blocks: &[&[f32]], voice: &Voice, starts: &[i64]) -> Vec<i64> {
    let mut parts = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let own = starts[index];
        // What the neighbours' alignments would be here, if they differ.
        let before = index.checked_sub(1).map(|index| starts[index] + STEP);
        let after = starts.get(index + 1).map(|start| start - STEP);
        let others: Vec<i64> = before.into_iter().chain(after).filter(|start| *start != own).collect();
        for (part, heard) in (0..).step_by(PART).zip(block.chunks(PART)) {
            let fits = |start: i64| correlation(heard, energy(heard), &voice.samples, start + part);
            let better = |best: i64, other: i64| if fits(other) > fits(best) { other } else { best };
            parts.push(others.iter().copied().fold(own, better) + part);
        }
    }
    parts
}

fn signed(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// The start in `starts` where the voice fits the block best, and how well: looked for at a quarter of the rate first,
/// which speech is slow enough for.
fn best_start(block: &[f32], voice: &Voice, starts: Range<i64>) -> (i64, f64) {
    let coarse_block = coarse(block);
    let coarse_energy = energy(&coarse_block);
    let mut candidates: Vec<(i64, f64)> = (starts.start.div_euclid(COARSE_STEP)..=starts.end.div_euclid(COARSE_STEP))
        .map(|start| (start * COARSE_STEP, correlation(&coarse_block, coarse_energy, &voice.coarse, start)))
        .collect();
    candidates.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let block_energy = energy(block);
    candidates
        .into_iter()
        .take(CANDIDATES)
        .flat_map(|(start, _)| start - COARSE_STEP..=start + COARSE_STEP)
        .map(|start| (start, correlation(block, block_energy, &voice.samples, start)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .unwrap_or((starts.start, 0.0))
}

/// The mean of every few samples.
fn coarse(samples: &[f32]) -> Vec<f32> {
    samples.as_chunks::<COARSE>().0.iter().map(|chunk| chunk.iter().sum::<f32>() / COARSE as f32).collect()
}

/// Normalised correlation of the block with the voice from `start` on; 0 where the voice is silent.
fn correlation(block: &[f32], block_energy: f64, voice: &[f32], start: i64) -> f64 {
    let from = usize::try_from(start.max(0)).unwrap_or(usize::MAX).min(voice.len());
    let skipped = usize::try_from(-start.min(0)).unwrap_or(usize::MAX).min(block.len());
    let voice = &voice[from..];
    let (mut product, mut squares) = ([0.0f32; 8], [0.0f32; 8]);
    // Eight sums side by side, so that the loop can be vectorised.
    let (heard_parts, voice_parts) = (block[skipped..].as_chunks::<8>().0, voice.as_chunks::<8>().0);
    for (heard, voice) in heard_parts.iter().zip(voice_parts) {
        for lane in 0..8 {
            product[lane] += heard[lane] * voice[lane];
            squares[lane] += voice[lane] * voice[lane];
        }
    }
    let product: f32 = product.iter().sum();
    let squares: f32 = squares.iter().sum();
    let scale = f64::from(squares).sqrt() * block_energy.sqrt();
    if scale > POWER_MIN * block.len() as f64 { f64::from(product) / scale } else { 0.0 }
}

fn energy(block: &[f32]) -> f64 {
    block.iter().map(|sample| f64::from(*sample) * f64::from(*sample)).sum()
}

/// Inverse of a small symmetric positive matrix, by Gauss-Jordan elimination with row exchange.
fn invert(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = matrix.len();
    let mut rows: Vec<Vec<f64>> = matrix
        .iter()
        .enumerate()
        .map(|(i, row)| row.iter().copied().chain((0..n).map(|j| f64::from(u8::from(i == j)))).collect())
        .collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let scale = rows[column][column];
        rows[column].iter_mut().for_each(|cell| *cell /= scale);
        let pivot_row = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column];
            row.iter_mut().zip(&pivot_row).for_each(|(cell, pivot)| *cell -= factor * pivot);
        }
    }
    rows.into_iter().map(|row| row[n..].to_vec()).collect()
}
