//! Brings the delay to where it ought to be.

use super::{Playout, Pulled, lag};

impl Playout {
    /// Whether the delay is off, and whether so far that a voice is worth it.
    pub(super) fn correction(&self, now: i64) -> Option<Correction> {
        if self.rest > 0 {
            return None;
        }
        let anchor = self.estimator.anchor()?;
        let off = now - anchor - self.point() - self.target;
        if off < -self.ticks_of(SHORT_EIGHTHS) {
            return Some(Correction::Longer { far: off < -self.ticks_of(SHORT_FAR_EIGHTHS) });
        }
        if off <= self.ticks_of(LONG_EIGHTHS) || !self.estimator.is_live(now) {
            return None;
        }
        if self.estimator.is_ahead() {
            // What he has sent ahead of time is worth being heard.
            return Some(Correction::Shorter { far: false });
        }
        let max = self.ticks_of(u16::saturating_mul(self.spec.max_ms, 8));
        if off + self.target > max + self.ticks_of(CUT_EIGHTHS) {
            return Some(Correction::Cut);
        }
        if now < self.cold.hold_until && off + self.target <= max {
            return None;
        }
        Some(Correction::Shorter { far: off > self.ticks_of(LONG_FAR_EIGHTHS) })
    }

    /// What was late is here: the delay has grown by what was made up meanwhile, and stays so for a while, for where one
    /// packet was held up another will be.
    pub(super) fn end_underrun(&mut self, now: i64) {
        if self.made == 0 {
            return;
        }
        self.made = 0;
        self.cold.counters.underruns += 1;
        if self.delay_ticks(now) <= self.ticks_of(u16::saturating_mul(self.spec.max_ms, 8)) {
            self.cold.hold_until = now + self.ticks_of(HOLD_EIGHTHS);
        }
    }

    /// Whether the delay is longer than it ought to be.
    pub(super) fn is_long(&self, now: i64) -> bool {
        self.delay_ticks(now) > self.target + self.ticks_of(LONG_EIGHTHS)
    }

    /// Whether a frame may be put in before what is due.
    pub(super) fn may_put_in(&mut self, far: bool) -> bool {
        let is_here = self.cold.tape.pending() > 0 || self.find_next().is_some_and(|slot| slot.position <= self.head);
        is_here && self.made == 0 && (far || self.cold.tape.was_quiet())
    }

    /// Leaves some samples out if nobody will notice: a quiet frame, or a period of a voice.
    pub(super) fn leave_out(&mut self, now: i64, far: bool, frame: usize, pulled: &mut Pulled) {
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
    pub(super) fn cut(&mut self, now: i64) {
        let max = self.ticks_of(u16::saturating_mul(self.spec.max_ms, 8));
        let cut = (self.delay_ticks(now) - max).max(0);
        // What comes after it is faded into.
        self.cold.tape.conceal(1);
        self.head += cut;
        self.cold.counters.compressed_samples += u64::from(self.samples_of(cut));
        self.rest = REST_VOICE;
    }

    /// Aims at what the estimator says.
    pub(super) fn set_target(&mut self) {
        let wanted = self.estimator.quantile().saturating_add(MARGIN_EIGHTHS);
        let (min, max) = (self.spec.min_ms * 8, self.spec.max_ms * 8);
        self.target = self.ticks_of(wanted.clamp(min, max));
    }

    pub(super) fn delay_ticks(&self, now: i64) -> i64 {
        self.estimator.anchor().map_or(self.target, |anchor| now - anchor - self.point())
    }
}

/// How the delay is off. `far`: so much that it may be corrected in a voice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Correction {
    Longer { far: bool },
    Shorter { far: bool },
    Cut,
}

// Times in eighths of a millisecond.

/// The target is the quantile and so much more.
const MARGIN_EIGHTHS: u16 = 10 * 8;
/// The delay may be so much shorter than the target,
const SHORT_EIGHTHS: u16 = 2 * 8;
/// and in a voice so much.
const SHORT_FAR_EIGHTHS: u16 = 5 * 8;
/// The delay may be so much longer than the target,
const LONG_EIGHTHS: u16 = 15 * 8;
/// and in a voice so much.
const LONG_FAR_EIGHTHS: u16 = 40 * 8;
/// How long the delay stays what a late packet has made it.
const HOLD_EIGHTHS: u32 = 10_000 * 8;
/// What is further beyond the longest delay is cut off.
const CUT_EIGHTHS: u16 = 300 * 8;

/// Frames between two corrections in silence,
pub(super) const REST_QUIET: u8 = 2;
/// in a voice that is beyond the longest delay,
const REST_OVER: u8 = 3;
/// and in any other.
pub(super) const REST_VOICE: u8 = 9;
