//! In-band DTMF: finds the sixteen digits of ITU-T Q.23 in samples at 8 kHz, inside the tolerances of ITU-T Q.24.
//!
//! Samples are worked on in blocks of 5 ms. Of each block only its correlations with the eight frequencies and its
//! energy are kept; everything else is computed from the last six blocks, 30 ms:
//!
//! ```text
//! samples ─ 8 correlations of 40 samples ─ last 6 blocks ─┬─ last 2: looks like a digit ─▶ is_tone_like
//!                                                         └─ all 6, twice running: is a digit ─▶ Started … Ended
//! ```
//!
//! In a block, a row and a column frequency are fitted together by least squares, so that neither leaks into the
//! other. From block to block a tone turns its phase by an amount that tells its frequency to about one hertz. A window
//! is a digit if two steady tones of the right frequencies, of levels that may go together, make up almost all of its
//! energy. Speech has such moments, but not for 35 ms.
//!
//! Levels are in dBm0 as in [`mod@crate::tone`]. A digit begins after 35 to 40 ms of tone and ends after 25 to 30 ms
//! without. Cost: two blocks a frame of 10 ms, each a loop over 40 x 16 products that the compiler vectorises; below
//! the lowest level nothing but the energy is computed. No state but the struct, about 700 bytes.

use crate::dispatch::kernels;
use crate::mix;
use crate::tone::AMPLITUDE_0_DBM0;

/// Finds DTMF digits in a stream of samples.
#[derive(Debug, Clone)]
pub struct DtmfDetector {
    /// Samples that do not fill a block yet.
    pending: [i16; BLOCK],
    pending_len: usize,
    /// The last blocks, the newest at the end.
    blocks: [Block; HISTORY],
    /// What the window before the newest block was, and how many windows in a row.
    candidate: Option<Pair>,
    windows: u32,
    active: Option<Active>,
    is_tone_like: bool,
}

/// What [`DtmfDetector::process`] has found. Digits are the event numbers of RFC 4733 s.3.2: 0 to 9, `*` 10, `#` 11, A
/// to D 12 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtmfChange {
    /// A digit is being sent.
    Started {
        /// The digit.
        event: u8,
        /// How long its tones last already, in samples.
        elapsed: u32,
        /// The level of the louder tone, in dBm0.
        level_dbm0: i8,
    },
    /// The digit that was started last is over.
    Ended {
        /// The digit.
        event: u8,
        /// How long its tones lasted, in samples, to about 5 ms.
        duration: u32,
    },
}

/// The character of an event number, or none if it is not a DTMF digit.
#[must_use]
pub fn symbol(event: u8) -> Option<char> {
    SYMBOLS.get(usize::from(event)).copied()
}

impl DtmfDetector {
    /// A detector that has heard silence.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pending: [0; BLOCK],
            pending_len: 0,
            blocks: [Block::SILENT; HISTORY],
            candidate: None,
            windows: 0,
            active: None,
            is_tone_like: false,
        }
    }

    /// Takes the next samples, any number of them, and reports every change in order. A frame of up to 30 ms makes no
    /// more than two: the end of a digit and the start of the next.
    pub fn process(&mut self, samples: &[i16], on_change: &mut impl FnMut(DtmfChange)) {
        let mut rest = samples;
        if self.pending_len > 0 {
            let (head, tail) = rest.split_at(rest.len().min(BLOCK - self.pending_len));
            self.pending[self.pending_len..][..head.len()].copy_from_slice(head);
            self.pending_len += head.len();
            rest = tail;
            if self.pending_len < BLOCK {
                return;
            }
            let block = self.pending;
            self.take_block(&block, on_change);
        }
        let (blocks, rest) = rest.as_chunks::<BLOCK>();
        for block in blocks {
            self.take_block(block, on_change);
        }
        self.pending[..rest.len()].copy_from_slice(rest);
        self.pending_len = rest.len();
    }

    /// Whether the last 10 ms sound like a digit, or one has begun and is not over. True from the first 10 ms that lie
    /// wholly in the tones, long before the digit is sure, so that it can be kept out of a conference; now and then
    /// true for some milliseconds of speech or music.
    #[must_use]
    pub const fn is_tone_like(&self) -> bool {
        self.is_tone_like
    }

    /// The digit that has begun and is not over.
    #[must_use]
    pub fn active(&self) -> Option<u8> {
        self.active.map(|active| active.pair.event())
    }

    fn take_block(&mut self, samples: &[i16; BLOCK], on_change: &mut impl FnMut(DtmfChange)) {
        self.blocks.rotate_left(1);
        self.blocks[HISTORY - 1] = Block::of(samples);
        let newest = &self.blocks[HISTORY - 1];
        // While a digit lasts nothing more has to be computed.
        if let Some(active) = &mut self.active
            && active.follow(newest)
            && newest.loudest() == active.pair
        {
            self.candidate = None;
            self.is_tone_like = true;
            return;
        }

        let found = self.find();
        self.windows = if found.is_some_and(|found| Some(found.pair) == self.candidate) { self.windows + 1 } else { 1 };
        self.candidate = found.map(|found| found.pair);

        if let Some(active) = self.active {
            let is_other = found.is_some_and(|found| found.pair != active.pair) && self.windows >= WINDOWS_MIN;
            if is_other || active.missing >= MISSING_MAX {
                on_change(DtmfChange::Ended { event: active.pair.event(), duration: active.heard });
                self.active = None;
            }
        }
        if let (None, Some(found)) = (self.active, found)
            && self.windows >= WINDOWS_MIN
        {
            let active = Active::begin(found, &self.blocks);
            on_change(DtmfChange::Started {
                event: active.pair.event(),
                elapsed: active.heard,
                level_dbm0: level_dbm0(active.row.max(active.column)),
            });
            self.active = Some(active);
        }
        self.is_tone_like = self.active.is_some() || self.looks_like_a_digit();
    }

    /// The digit that fills the window.
    fn find(&self) -> Option<Found> {
        let blocks = self.blocks.last_chunk::<WINDOW>()?;
        let found = fit(blocks, &SURE)?;
        // A tone that is still rising, or has gone, is not counted in: 23 ms have to be too short.
        blocks.iter().all(|block| found.is_in(block)).then_some(found)
    }

    fn looks_like_a_digit(&self) -> bool {
        self.blocks.last_chunk::<2>().is_some_and(|blocks| {
            fit(blocks, &LIKELY).is_some_and(|found| blocks.iter().all(|block| found.is_in(block)))
        })
    }
}

impl Default for DtmfDetector {
    fn default() -> Self {
        Self::new()
    }
}

/// 40 samples: their cosine correlations with the eight frequencies, then the sine correlations, and the sum of their
/// squares.
#[derive(Debug, Clone, Copy)]
struct Block {
    correlations: [f32; 2 * TONES],
    energy: f32,
}

/// One of the sixteen digits by its row and column, both `0 .. 4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    row: usize,
    column: usize,
}

/// Two tones in a window, with their amplitudes.
#[derive(Debug, Clone, Copy)]
struct Found {
    pair: Pair,
    row: f32,
    column: f32,
}

/// A digit that has begun.
#[derive(Debug, Clone, Copy)]
struct Active {
    pair: Pair,
    /// The amplitudes.
    row: f32,
    column: f32,
    /// Samples since the begin, to the end of the newest block.
    elapsed: u32,
    /// Samples from the begin to the end of the tones, as far as they were heard.
    heard: u32,
    /// Blocks without the tones.
    missing: u32,
}

/// How strictly two tones are judged.
struct Judgement {
    /// The share of the energy that they have to make up.
    share_min: f32,
    /// How far a frequency may be off, relative.
    deviation_max: f32,
    /// By how much the row may be louder than the column, and the other way round, as a ratio of amplitudes.
    twist_max: f32,
    reverse_twist_max: f32,
}

impl Block {
    const SILENT: Self = Self { correlations: [0.0; 2 * TONES], energy: 0.0 };

    #[expect(clippy::cast_precision_loss, reason = "24 bits are enough for an energy")]
    fn of(samples: &[i16; BLOCK]) -> Self {
        let energy = mix::energy(samples) as f32;
        if energy < ENERGY_MIN {
            // The energy counts all the same: tones in a part of the window must not pass for tones in the whole of it.
            return Self { energy, ..Self::SILENT };
        }
        let mut correlations = [0.0; 2 * TONES];
        kernels().correlate_dtmf(samples, &mut correlations);
        Self { correlations, energy }
    }

    fn power(&self, tone: usize) -> f32 {
        let (cosine, sine) = (self.correlations[tone], self.correlations[TONES + tone]);
        cosine * cosine + sine * sine
    }

    /// The row and the column that are loudest by themselves.
    fn loudest(&self) -> Pair {
        let powers: [f32; TONES] = core::array::from_fn(|tone| self.power(tone));
        let (rows, columns) = powers.split_at(GROUP);
        Pair { row: loudest(rows), column: loudest(columns) }
    }

    /// The least-squares fit of the two tones: their complex amplitudes and the energy of both.
    fn fit(&self, pair: Pair) -> ([Complex; 2], f32) {
        let (row, column) = (pair.row, GROUP + pair.column);
        let products = [
            self.correlations[row],
            self.correlations[TONES + row],
            self.correlations[column],
            self.correlations[TONES + column],
        ];
        let solve = &SOLUTIONS[pair.row][pair.column];
        let [a, b, c, d] = solve.map(|line| line.iter().zip(products).map(|(a, b)| a * b).sum::<f32>());
        let energy = a * products[0] + b * products[1] + c * products[2] + d * products[3];
        // a·cos + b·sin is the real part of (a - jb)·exp(jωn).
        ([Complex { re: a, im: -b }, Complex { re: c, im: -d }], energy)
    }
}

impl Pair {
    const fn event(self) -> u8 {
        EVENTS[self.row][self.column]
    }
}

impl Found {
    /// Whether both tones are there with at least half of their amplitude.
    fn is_in(&self, block: &Block) -> bool {
        let ([row, column], _) = block.fit(self.pair);
        row.magnitude() >= self.row * PRESENT_MIN && column.magnitude() >= self.column * PRESENT_MIN
    }
}

impl Active {
    fn begin(found: Found, blocks: &[Block; HISTORY]) -> Self {
        let mut active =
            Self { pair: found.pair, row: found.row, column: found.column, elapsed: 0, heard: 0, missing: 0 };
        active.heard = blocks.iter().map(|block| active.samples_in(block)).sum();
        active.elapsed = active.heard;
        active
    }

    /// Takes the next block into account. True if the tones are in it.
    fn follow(&mut self, block: &Block) -> bool {
        let samples = self.samples_in(block);
        let (_, energy) = block.fit(self.pair);
        let is_there = samples >= BLOCK_SAMPLES / 2 && energy >= block.energy * SHARE_TO_GO_ON;
        // A part of the first block without the tones may still have them.
        if is_there || self.missing == 0 {
            self.heard = self.elapsed.saturating_add(samples);
        }
        self.missing = if is_there { 0 } else { self.missing + 1 };
        self.elapsed = self.elapsed.saturating_add(BLOCK_SAMPLES);
        is_there
    }

    /// How much of a block the tones fill, in samples.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 ..= 40 before")]
    fn samples_in(&self, block: &Block) -> u32 {
        let ([row, column], _) = block.fit(self.pair);
        let part = (row.magnitude() / self.row).min(column.magnitude() / self.column);
        (part.clamp(0.0, 1.0) * BLOCK as f32).round() as u32
    }
}

/// The two tones that make up the energy of `blocks`, if there are any that stand the judgement.
fn fit(blocks: &[Block], judgement: &Judgement) -> Option<Found> {
    let energy: f32 = blocks.iter().map(|block| block.energy).sum();
    let length = (blocks.len() * BLOCK) as f32;
    if energy < length * POWER_MIN {
        return None;
    }
    let powers: [f32; TONES] = core::array::from_fn(|tone| blocks.iter().map(|block| block.power(tone)).sum());
    let (rows, columns) = powers.split_at(GROUP);
    let (row, column) = (loudest(rows), loudest(columns));
    // Most sounds end here. The powers are those of separate fits, which count some energy twice.
    if (rows[row] + columns[column]) * 2.0 / (BLOCK as f32) < energy * judgement.share_min * 0.8 {
        return None;
    }
    // The louder tone leaks into the other group, so that the softer one has to be looked for together with it.
    let fitted = |pair: Pair| blocks.iter().map(|block| block.fit(pair).1).sum::<f32>();
    let pair = if rows[row] >= columns[column] {
        Pair { row, column: loudest(&[0, 1, 2, 3].map(|column| fitted(Pair { row, column }))) }
    } else {
        Pair { row: loudest(&[0, 1, 2, 3].map(|row| fitted(Pair { row, column }))), column }
    };
    // Blocks are too short to tell neighbours apart when both are off; their phases are not.
    match fit_pair(blocks, pair, energy, judgement) {
        Ok(found) => found,
        Err(nearer) => fit_pair(blocks, nearer, energy, judgement).ok().flatten(),
    }
}

/// Fits one pair. The error is a pair whose frequencies lie nearer.
fn fit_pair(blocks: &[Block], pair: Pair, energy: f32, judgement: &Judgement) -> Result<Option<Found>, Pair> {
    let mut amplitudes = [[Complex::ZERO; 2]; WINDOW];
    let amplitudes = &mut amplitudes[..blocks.len()];
    for (amplitudes, block) in amplitudes.iter_mut().zip(blocks) {
        (*amplitudes, _) = block.fit(pair);
    }
    let row = SteadyTone::of(amplitudes.iter().map(|[row, _]| *row), pair.row);
    let column = SteadyTone::of(amplitudes.iter().map(|[_, column]| *column), GROUP + pair.column);

    let nearer = Pair { row: nearest(row.hz, 0), column: nearest(column.hz, GROUP) };
    if nearer != pair {
        return Err(nearer);
    }
    let is_near = |tone: &SteadyTone, index: usize| {
        (tone.hz - FREQUENCIES_HZ[index]).abs() <= FREQUENCIES_HZ[index] * judgement.deviation_max
    };
    let length = (blocks.len() * BLOCK) as f32;
    let share = (row.amplitude.powi(2) + column.amplitude.powi(2)) * length / 2.0 / energy;
    let is_digit = is_near(&row, pair.row)
        && is_near(&column, GROUP + pair.column)
        && row.amplitude.min(column.amplitude) >= AMPLITUDE_MIN
        && row.amplitude <= column.amplitude * judgement.twist_max
        && column.amplitude <= row.amplitude * judgement.reverse_twist_max
        && share >= judgement.share_min;
    Ok(is_digit.then_some(Found { pair, row: row.amplitude, column: column.amplitude }))
}

/// The tone of a constant amplitude and frequency that is nearest to a row of complex amplitudes.
struct SteadyTone {
    hz: f32,
    amplitude: f32,
}

impl SteadyTone {
    /// `amplitudes` were measured against the nominal frequency of `tone`, each from the begin of its own block.
    fn of(amplitudes: impl ExactSizeIterator<Item = Complex> + Clone, tone: usize) -> Self {
        let length = amplitudes.len() as f32;
        let turn = amplitudes
            .clone()
            .zip(amplitudes.clone().skip(1))
            .fold(Complex::ZERO, |turn, (from, to)| turn.plus(to.times(from.conjugate())));
        // What the phase turns in a block beyond what the nominal frequency makes it turn; half a turn is 100 Hz.
        let excess = turn.times(TURNS[tone].conjugate());
        let angle = excess.im.atan2(excess.re);
        let magnitude = turn.magnitude();
        let back = if magnitude > 0.0 { turn.conjugate().scaled(1.0 / magnitude) } else { Complex::ZERO };
        let (sum, _) = amplitudes.fold((Complex::ZERO, Complex::ONE), |(sum, rotation), amplitude| {
            (sum.plus(amplitude.times(rotation)), rotation.times(back))
        });
        // A fit at the nominal frequency sees less of a tone that is off: sin(x) / x, of which two terms are plenty.
        let half = angle / 2.0;
        let seen = 1.0 - half * half / 6.0;
        Self { hz: FREQUENCIES_HZ[tone] + angle * HZ_PER_ANGLE, amplitude: sum.magnitude() / length / seen }
    }
}

/// The index of the largest.
fn loudest(powers: &[f32]) -> usize {
    let mut best = 0;
    for (index, power) in powers.iter().enumerate() {
        if *power > powers[best] {
            best = index;
        }
    }
    best
}

/// The place in its group of the frequency nearest to `hz`; the group is the four from `first`.
fn nearest(hz: f32, first: usize) -> usize {
    let distance = |index: usize| (FREQUENCIES_HZ[first + index] - hz).abs();
    (1..GROUP).fold(0, |best, index| if distance(index) < distance(best) { index } else { best })
}

#[expect(clippy::cast_possible_truncation, reason = "a float saturates when cast, and is clamped before")]
fn level_dbm0(amplitude: f32) -> i8 {
    (20.0 * (f64::from(amplitude) / AMPLITUDE_0_DBM0).log10()).round().clamp(-99.0, 3.0) as i8
}

#[derive(Debug, Clone, Copy)]
struct Complex {
    re: f32,
    im: f32,
}

impl Complex {
    const ZERO: Self = Self { re: 0.0, im: 0.0 };
    const ONE: Self = Self { re: 1.0, im: 0.0 };

    fn plus(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    fn scaled(self, factor: f32) -> Self {
        Self { re: self.re * factor, im: self.im * factor }
    }

    fn conjugate(self) -> Self {
        Self { im: -self.im, ..self }
    }

    fn magnitude(self) -> f32 {
        (self.re * self.re + self.im * self.im).sqrt()
    }
}

/// The loops, compiled for every instruction set by [`crate::dispatch`].
pub(crate) mod loops {
    use super::{BASIS, BLOCK, TONES};

    /// The correlations of a block with the cosines of all frequencies, then with their sines. Two sums run side by
    /// side, because an addition takes longer than a product.
    #[inline(always)]
    pub(crate) fn correlate_dtmf(samples: &[i16; BLOCK], out: &mut [f32; 2 * TONES]) {
        let mut even = [0.0; 2 * TONES];
        let mut odd = [0.0; 2 * TONES];
        let (pairs, _) = samples.as_chunks::<2>();
        let (lines, _) = BASIS.as_chunks::<2>();
        for ([a, b], [line_a, line_b]) in pairs.iter().zip(lines) {
            let (a, b) = (f32::from(*a), f32::from(*b));
            for tone in 0..2 * TONES {
                even[tone] += a * line_a[tone];
                odd[tone] += b * line_b[tone];
            }
        }
        for tone in 0..2 * TONES {
            out[tone] = even[tone] + odd[tone];
        }
    }
}

/// The cosines and sines that a block is multiplied with, computed when the crate is compiled.
const fn basis() -> [[f64; 2 * TONES]; BLOCK] {
    let mut lines = [[0.0; 2 * TONES]; BLOCK];
    let mut tone = 0;
    while tone < TONES {
        let (step_cos, step_sin) = cos_sin(FREQUENCIES_HZ[tone] as f64 * core::f64::consts::TAU / 8000.0);
        let (mut cos, mut sin) = (1.0, 0.0);
        let mut n = 0;
        while n < BLOCK {
            lines[n][tone] = cos;
            lines[n][TONES + tone] = sin;
            (cos, sin) = (cos * step_cos - sin * step_sin, cos * step_sin + sin * step_cos);
            n += 1;
        }
        tone += 1;
    }
    lines
}

/// The power series, for angles up to some 1.3.
const fn cos_sin(angle: f64) -> (f64, f64) {
    let (mut cos, mut sin) = (0.0, 0.0);
    let mut term = 1.0;
    let mut order = 0;
    while order < 24 {
        match order % 4 {
            0 => cos += term,
            1 => sin += term,
            2 => cos -= term,
            _ => sin -= term,
        }
        order += 1;
        term *= angle / order as f64;
    }
    (cos, sin)
}

#[expect(clippy::cast_possible_truncation, reason = "cosines need no more than 24 bits")]
const fn narrow_basis() -> [[f32; 2 * TONES]; BLOCK] {
    let wide = basis();
    let mut lines = [[0.0; 2 * TONES]; BLOCK];
    let mut n = 0;
    while n < BLOCK {
        let mut tone = 0;
        while tone < 2 * TONES {
            lines[n][tone] = wide[n][tone] as f32;
            tone += 1;
        }
        n += 1;
    }
    lines
}

/// For each pair of tones the inverse of the products of cosine and sine of the row and the column with one another,
/// which turns correlations into amplitudes.
const fn solutions() -> [[[[f32; 4]; 4]; GROUP]; GROUP] {
    let basis = basis();
    let mut all = [[[[0.0; 4]; 4]; GROUP]; GROUP];
    let mut row = 0;
    while row < GROUP {
        let mut column = 0;
        while column < GROUP {
            all[row][column] = inverse(products(&basis, [row, TONES + row, GROUP + column, TONES + GROUP + column]));
            column += 1;
        }
        row += 1;
    }
    all
}

const fn products(basis: &[[f64; 2 * TONES]; BLOCK], lines: [usize; 4]) -> [[f64; 4]; 4] {
    let mut matrix = [[0.0; 4]; 4];
    let mut n = 0;
    while n < BLOCK {
        let mut a = 0;
        while a < 4 {
            let mut b = 0;
            while b < 4 {
                matrix[a][b] += basis[n][lines[a]] * basis[n][lines[b]];
                b += 1;
            }
            a += 1;
        }
        n += 1;
    }
    matrix
}

/// Gauss and Jordan. The matrix is positive definite, so that no pivot is zero.
#[expect(clippy::cast_possible_truncation, reason = "24 bits are enough for an amplitude")]
const fn inverse(mut matrix: [[f64; 4]; 4]) -> [[f32; 4]; 4] {
    let mut result = [[0.0; 4]; 4];
    let mut at = 0;
    while at < 4 {
        result[at][at] = 1.0;
        at += 1;
    }
    let mut pivot = 0;
    while pivot < 4 {
        let scale = 1.0 / matrix[pivot][pivot];
        let mut k = 0;
        while k < 4 {
            matrix[pivot][k] *= scale;
            result[pivot][k] *= scale;
            k += 1;
        }
        let mut line = 0;
        while line < 4 {
            if line != pivot {
                let factor = matrix[line][pivot];
                let mut k = 0;
                while k < 4 {
                    matrix[line][k] -= factor * matrix[pivot][k];
                    result[line][k] -= factor * result[pivot][k];
                    k += 1;
                }
            }
            line += 1;
        }
        pivot += 1;
    }
    let mut narrow = [[0.0; 4]; 4];
    let mut line = 0;
    while line < 4 {
        let mut k = 0;
        while k < 4 {
            narrow[line][k] = result[line][k] as f32;
            k += 1;
        }
        line += 1;
    }
    narrow
}

/// How far each tone turns its phase in a block.
#[expect(clippy::cast_possible_truncation, reason = "cosines need no more than 24 bits")]
const fn turns() -> [Complex; TONES] {
    let mut turns = [Complex::ZERO; TONES];
    let mut tone = 0;
    while tone < TONES {
        // A turn of the phase has 200 Hz in a block, and only the rest of it counts.
        let rest = FREQUENCIES_HZ[tone] as f64 % 200.0 / 200.0 * core::f64::consts::TAU;
        // A quarter of the angle keeps to where the power series is exact.
        let (cos, sin) = cos_sin(rest / 4.0);
        let (cos, sin) = (cos * cos - sin * sin, 2.0 * cos * sin);
        let (cos, sin) = (cos * cos - sin * sin, 2.0 * cos * sin);
        turns[tone] = Complex { re: cos as f32, im: sin as f32 };
        tone += 1;
    }
    turns
}

static BASIS: [[f32; 2 * TONES]; BLOCK] = narrow_basis();
static SOLUTIONS: [[[[f32; 4]; 4]; GROUP]; GROUP] = solutions();
static TURNS: [Complex; TONES] = turns();

/// 5 ms: short enough for 40 ms to hold seven whole ones however they lie, and 23 ms no more than five halves of them.
const BLOCK: usize = 40;
const BLOCK_SAMPLES: u32 = 40;
/// Blocks of a digit that is sure.
const WINDOW: usize = 6;
/// Windows in a row that have to agree; 40 ms of tone hold two.
const WINDOWS_MIN: u32 = 2;
/// All blocks of the windows, and the one before, of which the tones may fill a part.
const HISTORY: usize = WINDOW + 2;
/// Blocks without the tones that end a digit. An interruption of 10 ms spoils three, a pause of 40 ms makes seven.
const MISSING_MAX: u32 = 5;

const GROUP: usize = 4;
const TONES: usize = 2 * GROUP;
/// The rows, then the columns (ITU-T Q.23).
const FREQUENCIES_HZ: [f32; TONES] = [697.0, 770.0, 852.0, 941.0, 1209.0, 1336.0, 1477.0, 1633.0];
const EVENTS: [[u8; GROUP]; GROUP] = [[1, 2, 3, 12], [4, 5, 6, 13], [7, 8, 9, 14], [10, 0, 11, 15]];
const SYMBOLS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];
/// 200 Hz turn the phase once in a block.
const HZ_PER_ANGLE: f32 = 200.0 / core::f32::consts::TAU;

/// A tone of -34 dBm0, with the tolerance of Q.24 (-25 dBm0) well inside.
const AMPLITUDE_MIN: f32 = 455.0;
/// The mean square of two such tones.
const POWER_MIN: f32 = AMPLITUDE_MIN * AMPLITUDE_MIN;
/// The energy of a block that two such tones fill to a third.
const ENERGY_MIN: f32 = POWER_MIN * (BLOCK as f32) / 3.0;
/// The part of its amplitude that a tone must have in every block of a window.
const PRESENT_MIN: f32 = 0.5;
/// The share of a block's energy that the tones of a running digit must have.
const SHARE_TO_GO_ON: f32 = 0.5;

/// Q.24 wants ±1.5 % accepted and ±3.5 % refused, the column up to 4 dB louder than the row and up to 8 dB softer. Noise
/// at -15 dB leaves the tones 97 % of the energy, in so short a window now and then some 90 %. What is given beyond that
/// goes to speech: with 2.5 % transposed music begins to hold digits.
const SURE: Judgement = Judgement { share_min: 0.86, deviation_max: 0.022, twist_max: 3.16, reverse_twist_max: 2.0 };
/// The same for 10 ms, in which everything is measured less well.
const LIKELY: Judgement = Judgement { share_min: 0.8, deviation_max: 0.035, twist_max: 3.98, reverse_twist_max: 2.51 };

#[cfg(test)]
mod tests;
