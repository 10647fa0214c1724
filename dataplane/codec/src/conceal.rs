//! Fills holes in speech with what was said before them: the last periods of the voice, said again and faded out. Of the
//! class of ITU-T G.711 appendix I, without its delay, and for any rate.
//!
//! ```text
//! heard ──────[  period  ]│ made: [  period  ][  period  ]…  fading │ heard again
//!                         └ a step is taken up over a quarter       └ faded into what comes
//! ```
//!
//! The period is found by correlation in what was heard last. A loss longer than 10 ms repeats the last two periods in
//! turn, one longer than 20 ms three, so that it does not buzz; from 10 ms on what is made fades, and after 60 ms there
//! is silence. At the end of a hole what is made goes on for a moment under what comes, and is faded into it.
//!
//! The state is the struct, about 800 bytes, and at the higher rates what was heard last beside it. The search costs 60 x
//! 160 products once a hole: it is one at 8 kHz whatever the rate, refined at that rate afterwards.

use crate::kind::Rate;

/// Makes up for samples that are missing.
#[derive(Clone, Debug)]
pub struct Concealment {
    /// What was heard last; what is in use lies at its end.
    cycle: Cycle,
    /// Samples for each at 8 kHz, by which all lengths below are multiplied.
    scale: usize,
    /// Samples of it in use, a whole number of periods.
    len: usize,
    period: usize,
    /// Place in `cycle` of the next sample.
    at: usize,
    /// Samples made since the hole began.
    made: usize,
    /// What the first sample made is off by, to be taken up over a quarter of a period.
    step: i32,
}

impl Concealment {
    /// With nothing missing, at 8 kHz.
    #[must_use]
    pub const fn new() -> Self {
        Self { cycle: Cycle::Narrow([0; CYCLE]), scale: 1, len: 0, period: 0, at: 0, made: 0, step: 0 }
    }

    /// With nothing missing. Allocates, but for 8 kHz.
    #[must_use]
    pub fn with_rate(rate: Rate) -> Self {
        let scale = rate.frame_samples() / FRAME;
        let cycle = if scale == 1 { Cycle::Narrow([0; CYCLE]) } else { Cycle::Wider(vec![0; CYCLE * scale].into()) };
        Self { cycle, scale, ..Self::new() }
    }

    /// Samples before a hole that are looked at; [`HISTORY`] at 8 kHz.
    #[must_use]
    pub const fn history(&self) -> usize {
        HISTORY * self.scale
    }

    /// Whether a hole is being filled.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.made > 0
    }

    /// Whether what is made has faded to silence.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.made >= SILENT_AFTER * self.scale || (self.made > 0 && self.period == 0)
    }

    /// Forgets a hole: something else begins.
    pub const fn clear(&mut self) {
        self.made = 0;
    }

    /// Begins a hole behind `heard`: the samples before it, the more of [`Self::history`] the better. Without enough of
    /// them, or without sound in them, silence is made.
    pub fn begin(&mut self, heard: &[i16]) {
        let heard = &heard[heard.len().saturating_sub(self.history())..];
        (self.made, self.step) = (0, 0);
        self.period = period_of(heard, self.scale).unwrap_or(0);
        if self.period == 0 {
            return;
        }
        let (period, quarter) = (self.period, self.period / 4);
        // One period at least, and what comes before it for the seam.
        let periods = ((heard.len() - quarter) / period).clamp(1, PERIODS_MAX);
        self.len = periods * period;
        let end = CYCLE * self.scale;
        let cycle = &mut self.cycle.samples_mut()[end - self.len..];
        cycle.copy_from_slice(&heard[heard.len() - self.len..]);
        // The end leads back to the beginning of the last period, and so of any whole number of them.
        let seam = &mut cycle[periods * period - quarter..];
        let before = &heard[heard.len() - period - quarter..heard.len() - period];
        fade(seam, before);
        self.at = end - period;
        // What the voice would say next is what it said a period ago; where it stood then and where it stands differ.
        self.step = i32::from(heard[heard.len() - 1]) - i32::from(heard[heard.len() - 1 - period]);
    }

    /// Makes the samples of a hole, from its beginning or where it was left.
    pub fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            *sample = self.next();
        }
    }

    /// Ends a hole: fades from what would have been made into what has come, at the beginning of `samples`. They are to
    /// be the first that follow it, 10 ms if there are as many.
    pub fn join(&mut self, samples: &mut [i16]) {
        if self.made == 0 {
            return;
        }
        // The longer the hole the less what was made fits what comes.
        let quarter = self.period / 4;
        let (shortest, longest) = (FADE_MIN * self.scale, FADE_MAX * self.scale);
        let over = (quarter + self.made / 4).clamp(shortest, longest).min(samples.len());
        let mut made = [0; FADE_MAX * SCALE_MAX];
        let silent = self.is_silent();
        self.fill(&mut made[..over]);
        self.made = 0;
        if silent {
            // What begins after silence begins as it is.
            return;
        }
        for (place, (sample, made)) in samples[..over].iter_mut().zip(made).enumerate() {
            *sample = weigh(made, *sample, place + 1, over + 1);
        }
    }

    fn next(&mut self) -> i16 {
        if self.is_silent() || self.period == 0 {
            self.made = self.made.saturating_add(1);
            return 0;
        }
        let end = CYCLE * self.scale;
        if self.at == end {
            let periods = 1 + self.made / (FRAME * self.scale);
            self.at = end - (periods * self.period).min(self.len);
        }
        let quarter = self.period / 4;
        let taken_up = if self.made < quarter { self.step * as_i32(quarter - self.made) / as_i32(quarter) } else { 0 };
        let sample = i32::from(self.cycle.samples()[self.at]) + taken_up;
        let (fade_after, silent_after) = (FADE_AFTER * self.scale, SILENT_AFTER * self.scale);
        let gain = as_i32(silent_after - self.made.max(fade_after));
        (self.at, self.made) = (self.at + 1, self.made + 1);
        narrow(sample * gain / as_i32(silent_after - fade_after))
    }
}

impl Default for Concealment {
    fn default() -> Self {
        Self::new()
    }
}

/// Where what was heard last is kept.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most streams are at 8 kHz, and theirs is to lie with the rest")]
enum Cycle {
    Narrow([i16; CYCLE]),
    Wider(Box<[i16]>),
}

impl Cycle {
    fn samples(&self) -> &[i16] {
        match self {
            Self::Narrow(samples) => samples,
            Self::Wider(samples) => samples,
        }
    }

    fn samples_mut(&mut self) -> &mut [i16] {
        match self {
            Self::Narrow(samples) => samples,
            Self::Wider(samples) => samples,
        }
    }
}

/// The period of a voice at the end of `heard`; `None` if there is too little of it, or nothing to be heard.
fn period_of(heard: &[i16], scale: usize) -> Option<usize> {
    // As at 8 kHz: the mean of so many samples each, what is left over at the beginning.
    let (_, groups) = heard.split_at(heard.len() % scale);
    let len = groups.len() / scale;
    let window = WINDOW.min(len.checked_sub(PERIOD_MAX + PERIOD_MAX / 4)?);
    if window < WINDOW_MIN || heard.iter().all(|sample| sample.unsigned_abs() < AUDIBLE) {
        return None;
    }
    let mut samples = [0.0f32; HISTORY];
    let samples = &mut samples[..len];
    for (to, group) in samples.iter_mut().zip(groups.chunks_exact(scale)) {
        *to = group.iter().map(|sample| f32::from(*sample)).sum();
    }
    let best = |lags: &mut dyn Iterator<Item = usize>, alike: &dyn Fn(usize) -> f32| {
        lags.map(|lag| (lag, alike(lag))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(lag, _)| lag)
    };
    let coarse_alike = |lag: usize| alike(samples, window, lag, |sample| *sample);
    let coarse = best(&mut (PERIOD_MIN..=PERIOD_MAX).step_by(2), &coarse_alike)?;
    let fine = best(&mut (coarse.saturating_sub(1).max(PERIOD_MIN)..=(coarse + 1).min(PERIOD_MAX)), &coarse_alike)?;
    if scale == 1 {
        return Some(fine);
    }
    let shortest = (fine * scale).saturating_sub(scale - 1).max(PERIOD_MIN * scale);
    let longest = (fine * scale + scale - 1).min(PERIOD_MAX * scale);
    best(&mut (shortest..=longest), &|lag| alike(heard, window * scale, lag, |sample| f32::from(*sample)))
}

/// How alike the end is to what came `lag` before it: the cosine between the two, were it not for the energy of the end,
/// which is the same for all.
fn alike<T>(samples: &[T], window: usize, lag: usize, number: impl Fn(&T) -> f32) -> f32 {
    let last = &samples[samples.len() - window..];
    let before = &samples[samples.len() - window - lag..samples.len() - lag];
    let (mut product, mut energy) = (0.0f32, 1.0f32);
    for (a, b) in last.iter().zip(before) {
        let (a, b) = (number(a), number(b));
        product += a * b;
        energy += b * b;
    }
    product / energy.sqrt()
}

/// Fades `samples` into `into`.
fn fade(samples: &mut [i16], into: &[i16]) {
    let len = samples.len();
    for (place, (sample, into)) in samples.iter_mut().zip(into).enumerate() {
        *sample = weigh(*sample, *into, place + 1, len);
    }
}

/// `place` of `len` steps from one to the other.
fn weigh(from: i16, to: i16, place: usize, len: usize) -> i16 {
    let (from, to) = (i32::from(from), i32::from(to));
    narrow(from + (to - from) * as_i32(place) / as_i32(len))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "lengths within a cycle")]
const fn as_i32(len: usize) -> i32 {
    len as i32
}

#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn narrow(sample: i32) -> i16 {
    sample.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// Samples before a hole that are looked at, at 8 kHz as all the lengths below.
pub const HISTORY: usize = CYCLE + PERIOD_MAX / 4;
/// 10 ms.
const FRAME: usize = 80;
/// Shortest period: 200 Hz.
const PERIOD_MIN: usize = 40;
/// Longest period: 67 Hz.
const PERIOD_MAX: usize = 120;
/// Periods that are repeated in turn.
const PERIODS_MAX: usize = 3;
const CYCLE: usize = PERIODS_MAX * PERIOD_MAX;
/// Samples that are compared with those a period before.
const WINDOW: usize = 160;
/// With fewer there is no telling.
const WINDOW_MIN: usize = 80;
/// Below this there is nothing to repeat.
const AUDIBLE: u16 = 16;
/// What is made fades from here on,
const FADE_AFTER: usize = FRAME;
/// and is silence from here on.
const SILENT_AFTER: usize = 6 * FRAME;
/// Samples over which what is made is faded into what comes.
const FADE_MIN: usize = 10;
/// At most.
const FADE_MAX: usize = FRAME;
/// Of 48 kHz.
const SCALE_MAX: usize = 6;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
mod tests {
    use super::*;

    /// A voice of `period` samples: a few harmonics.
    fn voice(period: f64) -> impl Fn(usize) -> i16 {
        move |n| {
            let phase = n as f64 / period * std::f64::consts::TAU;
            (6000.0 * phase.sin() + 2500.0 * (2.0 * phase + 1.0).sin() + 1500.0 * (5.0 * phase + 2.0).sin()) as i16
        }
    }

    fn error_db(made: &[i16], wanted: impl Fn(usize) -> i16) -> f64 {
        let (mut signal, mut error) = (0.0, 0.0);
        for (n, made) in made.iter().enumerate() {
            signal += f64::from(wanted(n)).powi(2);
            error += (f64::from(*made) - f64::from(wanted(n))).powi(2);
        }
        10.0 * (error / signal).log10()
    }

    #[test]
    fn ten_milliseconds_of_a_steady_voice_are_as_good_as_heard() {
        for period in [41.0, 53.3, 64.0, 80.5, 97.0, 118.0] {
            let voice = voice(period);
            let heard: Vec<i16> = (0..HISTORY).map(&voice).collect();
            let mut concealment = Concealment::new();
            concealment.begin(&heard);
            let mut made = [0; FRAME];
            concealment.fill(&mut made);
            let error = error_db(&made, |n| voice(HISTORY + n));
            assert!(error < -12.0, "{error} dB at a period of {period}");
        }
    }

    #[test]
    fn higher_rates_are_concealed_as_well() {
        for (rate, scale) in [(Rate::Wide, 2), (Rate::Full, 6)] {
            for period in [41.0, 53.3, 64.0, 80.5, 97.0, 118.0] {
                let voice = voice(period * scale as f64);
                let mut concealment = Concealment::with_rate(rate);
                assert_eq!(concealment.history(), HISTORY * scale);
                let heard: Vec<i16> = (0..concealment.history()).map(&voice).collect();
                concealment.begin(&heard);
                let mut made = vec![0; rate.frame_samples()];
                concealment.fill(&mut made);
                let error = error_db(&made, |n| voice(heard.len() + n));
                assert!(error < -12.0, "{error} dB at a period of {period} x {scale}");
                // Faded to silence after 60 ms, and joined without a step.
                let mut rest = vec![0; 6 * rate.frame_samples()];
                let steepest = (0..6000).map(|n| (i32::from(voice(n + 1)) - i32::from(voice(n))).abs()).max().unwrap();
                concealment.fill(&mut rest[..rate.frame_samples()]);
                let mut next: Vec<i16> =
                    (heard.len() + 2 * made.len()..heard.len() + 3 * made.len()).map(&voice).collect();
                let mut ends = concealment.clone();
                ends.join(&mut next);
                let heard: Vec<i16> =
                    heard.iter().chain(&made).chain(&rest[..made.len()]).chain(&next).copied().collect();
                for (n, pair) in heard.windows(2).enumerate() {
                    let step = (i32::from(pair[1]) - i32::from(pair[0])).abs();
                    assert!(step <= steepest * 2, "a step of {step} at {n}, period of {period} x {scale}");
                }
                concealment.fill(&mut rest);
                assert!(rest[4 * rate.frame_samples()..].iter().all(|sample| *sample == 0));
            }
        }
    }

    #[test]
    fn the_rate_of_8_khz_is_what_new_makes() {
        let heard: Vec<i16> = (0..HISTORY).map(voice(71.3)).collect();
        let (mut a, mut b) = (Concealment::new(), Concealment::with_rate(Rate::Narrow));
        let (mut made_a, mut made_b) = ([0; 300], [0; 300]);
        a.begin(&heard);
        b.begin(&heard);
        a.fill(&mut made_a);
        b.fill(&mut made_b);
        assert_eq!(made_a, made_b);
    }

    #[test]
    fn what_is_made_fades_and_ends() {
        let voice = voice(64.0);
        let heard: Vec<i16> = (0..HISTORY).map(&voice).collect();
        let mut concealment = Concealment::new();
        concealment.begin(&heard);
        let mut last = i64::MAX / 2;
        for frame in 0..8 {
            let mut made = [0; FRAME];
            concealment.fill(&mut made);
            let energy: i64 = made.iter().map(|sample| i64::from(*sample).pow(2)).sum();
            assert!(energy <= last + last / 8, "frame {frame}");
            assert_eq!(energy == 0, frame >= 6, "frame {frame}");
            last = energy;
        }
        assert!(concealment.is_silent());
    }

    /// No step larger than the voice itself has, at either end of a hole of any length.
    #[test]
    fn holes_begin_and_end_without_a_click() {
        for period in [45.0, 77.7, 110.0] {
            let voice = voice(period);
            let steepest = (0..2000).map(|n| (i32::from(voice(n + 1)) - i32::from(voice(n))).abs()).max().unwrap();
            for hole in [8, 80, 160, 240, 400] {
                let mut said: Vec<i16> = (0..2000).map(&voice).collect();
                let mut concealment = Concealment::new();
                concealment.begin(&said[..1000]);
                concealment.fill(&mut said[1000..1000 + hole]);
                concealment.join(&mut said[1000 + hole..1000 + hole + FRAME]);
                assert!(!concealment.is_active());
                for (n, pair) in said.windows(2).enumerate() {
                    let step = (i32::from(pair[1]) - i32::from(pair[0])).abs();
                    assert!(step <= steepest * 2, "a step of {step} at {n}, hole of {hole}, period of {period}");
                }
            }
        }
    }

    #[test]
    fn silence_and_too_little_are_followed_by_silence() {
        let quiet = [3; HISTORY];
        let loud: Vec<i16> = (0..HISTORY).map(voice(64.0)).collect();
        for heard in [&quiet[..], &loud[..100], &[]] {
            let mut concealment = Concealment::new();
            concealment.begin(heard);
            let mut made = [1; 2 * FRAME];
            concealment.fill(&mut made);
            assert_eq!(made, [0; 2 * FRAME]);
            let mut next = [1000; FRAME];
            concealment.join(&mut next);
            assert_eq!(next, [1000; FRAME], "nothing to fade from");
        }
    }

    #[test]
    fn the_loudest_input_stays_in_range() {
        let heard: Vec<i16> = (0..HISTORY).map(|n| if n % 90 < 45 { i16::MAX } else { i16::MIN }).collect();
        let mut concealment = Concealment::new();
        concealment.begin(&heard);
        let mut made = [0; 600];
        concealment.fill(&mut made);
        let mut next = [i16::MIN; 7];
        concealment.join(&mut next);
    }
}
