//! When each packet is due, how late it went out, and whether the run may be believed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::error::{Error, Result};
use crate::figures::{Quantiles, duration_histogram, record};

/// A run whose 99th percentile of send lateness is above this is void.
pub const LATENESS_P99_MAX: Duration = Duration::from_millis(2);
/// A send later than this counts as very late.
pub const VERY_LATE: Duration = Duration::from_millis(5);
/// A run with a greater share of very late sends than this is void.
pub const VERY_LATE_SHARE_MAX: f64 = 0.001;

/// Gaps longer than this are slept through, shorter ones spun through, when spinning is asked for.
const SPIN_GAP_MAX: Duration = Duration::from_micros(300);
/// How much of a slept gap is left for spinning: an idle virtual CPU needs some 50 µs to wake.
const SPIN_REST: Duration = Duration::from_micros(150);

/// How to wait for a packet's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pacing {
    /// Spin: each packet leaves within a microsecond of its time, at the price of one whole core.
    Spin,
    /// Sleep: packets leave in small bunches, some 60 µs apart; the core stays usable for others.
    Sleep,
}

/// An absolute schedule: packet `i` is due `i / rate` seconds after the start, whatever became of those before it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rate: u64,
}

impl Schedule {
    /// A schedule of `rate` packets per second, at least one.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1) }
    }

    /// When packet `index` is due, from the start.
    #[must_use]
    pub fn due(&self, index: u64) -> Duration {
        let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many packets are due before `elapsed` is over.
    #[must_use]
    pub fn packets_in(&self, elapsed: Duration) -> u64 {
        u64::try_from(elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

/// Waits for `due` and returns the time then.
///
/// # Errors
/// [`Error::Interrupted`] once `stop` is set.
pub fn wait_until(due: Instant, pacing: Pacing, stop: &AtomicBool) -> Result<Instant> {
    /// Longest sleep without a look at `stop`.
    const NAP_MAX: Duration = Duration::from_millis(100);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let now = Instant::now();
        let gap = due.saturating_duration_since(now);
        if gap.is_zero() {
            return Ok(now);
        }
        match pacing {
            Pacing::Spin if gap > SPIN_GAP_MAX => std::thread::sleep((gap - SPIN_REST).min(NAP_MAX)),
            Pacing::Spin => std::hint::spin_loop(),
            Pacing::Sleep => std::thread::sleep(gap.min(NAP_MAX)),
        }
    }
}

/// How late the sends of a run were.
#[derive(Clone, Debug)]
pub struct Lateness {
    histogram: Histogram<u64>,
    very_late: u64,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { histogram: duration_histogram(), very_late: 0 }
    }
}

impl Lateness {
    /// Counts one send that was `late` behind its time.
    pub fn record(&mut self, late: Duration) {
        record(&mut self.histogram, u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        self.very_late += u64::from(late > VERY_LATE);
    }

    /// The distribution in microseconds.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        Quantiles::of_nanos(&self.histogram)
    }

    /// Share of the sends that were later than [`VERY_LATE`], 0 to 1.
    #[must_use]
    pub fn very_late_share(&self) -> f64 {
        if self.histogram.is_empty() { 0.0 } else { self.very_late as f64 / self.histogram.len() as f64 }
    }

    /// Why the run is void, if it is: the load offered was not the load asked for.
    #[must_use]
    pub fn void_reason(&self) -> Option<String> {
        let p99 = Duration::from_nanos(self.histogram.value_at_quantile(0.99));
        if p99 > LATENESS_P99_MAX {
            return Some(format!(
                "sends were late: p99 {:.2} ms, limit {:.0} ms",
                p99.as_secs_f64() * 1e3,
                LATENESS_P99_MAX.as_secs_f64() * 1e3
            ));
        }
        let share = self.very_late_share();
        (share > VERY_LATE_SHARE_MAX).then(|| {
            format!(
                "{:.2} % of the sends were more than {} ms late, limit {:.1} %",
                share * 100.0,
                VERY_LATE.as_millis(),
                VERY_LATE_SHARE_MAX * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_spaced_evenly_and_never_drift() {
        let schedule = Schedule::new(50_000);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_micros(20));
        assert_eq!(schedule.due(50_000 * 3_600), Duration::from_secs(3_600));
        // A rate that does not divide a second: rounding must not add up.
        let schedule = Schedule::new(3);
        assert_eq!(schedule.due(3_000_000), Duration::from_secs(1_000_000));
        assert_eq!(schedule.due(1), Duration::from_nanos(333_333_333));
    }

    #[test]
    fn the_count_of_due_packets_is_the_inverse_of_the_due_time() {
        let schedule = Schedule::new(50_000);
        assert_eq!(schedule.packets_in(Duration::from_secs(2)), 100_000);
        for index in [1u64, 17, 4_999] {
            assert_eq!(schedule.packets_in(schedule.due(index)), index);
        }
    }

    #[test]
    fn a_punctual_run_is_valid() {
        let mut lateness = Lateness::default();
        for _ in 0..10_000 {
            lateness.record(Duration::from_micros(10));
        }
        // Exactly 0.1 % very late is still allowed.
        for _ in 0..10 {
            lateness.record(Duration::from_millis(6));
        }
        assert_eq!(lateness.void_reason(), None);
    }

    #[test]
    fn too_high_a_p99_voids_the_run() {
        let mut lateness = Lateness::default();
        for index in 0..1_000 {
            lateness.record(if index < 980 { Duration::ZERO } else { Duration::from_millis(3) });
        }
        assert!(lateness.void_reason().unwrap().contains("p99"));
    }

    #[test]
    fn too_many_very_late_sends_void_the_run() {
        let mut lateness = Lateness::default();
        for index in 0..1_000 {
            lateness.record(if index < 998 { Duration::ZERO } else { Duration::from_millis(6) });
        }
        assert!(lateness.void_reason().unwrap().contains("more than 5 ms late"));
    }

    #[test]
    fn waiting_ends_after_the_due_time_and_on_interruption() {
        let stop = AtomicBool::new(false);
        for pacing in [Pacing::Spin, Pacing::Sleep] {
            let due = Instant::now() + Duration::from_millis(1);
            assert!(wait_until(due, pacing, &stop).unwrap() >= due);
        }
        stop.store(true, Ordering::Relaxed);
        let far = Instant::now() + Duration::from_secs(3_600);
        assert!(matches!(wait_until(far, Pacing::Sleep, &stop), Err(Error::Interrupted)));
    }
}
