//! How busy a shard's thread is: CPU time over a sliding window of a second.
//!
//! The CPU clock of the thread is the exact measure: what the thread waits for a core that others hold does not count,
//! and neither does what it waits in the ring. Reading it costs a system call, so it is read a few times a second.

use std::time::Duration;

use ringbridge_media::time::Instant;

/// CPU time of one thread at the latest few moments.
#[derive(Debug)]
pub(crate) struct LoadMeter {
    /// When, and how many nanoseconds the thread had run by then; a ring whose oldest is at `next`.
    readings: [(Instant, u64); READINGS],
    next: usize,
    latest: Instant,
}

impl LoadMeter {
    pub(crate) const fn new() -> Self {
        Self { readings: [(Instant::ZERO, 0); READINGS], next: 0, latest: Instant::ZERO }
    }

    /// Whether it is time to read the CPU clock again.
    pub(crate) fn wants_reading(&self, now: Instant) -> bool {
        now.saturating_since(self.latest) >= READING_INTERVAL
    }

    /// Takes a reading of the CPU clock.
    pub(crate) fn read(&mut self, now: Instant, cpu_ns: u64) {
        self.readings[self.next] = (now, cpu_ns);
        self.next = (self.next + 1) % READINGS;
        self.latest = now;
    }

    /// The share of the last second that the thread was on a core, `0.0 ..= 1.0`, with the clock at `cpu_ns` now. A
    /// thread that slept longer than that is judged from when it fell asleep; before the first reading it is idle.
    pub(crate) fn busy(&self, now: Instant, cpu_ns: u64) -> f64 {
        let is_real = |reading: &&(Instant, u64)| reading.0 > Instant::ZERO && reading.0 < now;
        let readings = || self.readings.iter().filter(is_real);
        // The latest of those that are a window old, else the oldest.
        let old = readings().filter(|(at, _)| now.saturating_since(*at) >= WINDOW).max_by_key(|(at, _)| *at);
        let Some((at, then_ns)) = old.or_else(|| readings().min_by_key(|(at, _)| *at)) else { return 0.0 };
        let used = Duration::from_nanos(cpu_ns.saturating_sub(*then_ns));
        (used.as_secs_f64() / now.saturating_since(*at).as_secs_f64()).clamp(0.0, 1.0)
    }
}

/// What is looked back upon.
const WINDOW: Duration = Duration::from_secs(1);
/// Time between two readings.
const READING_INTERVAL: Duration = Duration::from_millis(50);
/// A window and a little more.
const READINGS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(10_000 + ms)
    }

    /// Reads whenever it is time; `percent` tells the thread's share of each millisecond.
    fn run(meter: &mut LoadMeter, from: u64, to: u64, cpu_ns: &mut u64, percent: u64) {
        for ms in from..to {
            if meter.wants_reading(at(ms)) {
                meter.read(at(ms), *cpu_ns);
            }
            *cpu_ns += percent * MS / 100;
        }
    }

    #[test]
    fn the_share_of_the_last_second_counts_and_nothing_before() {
        let (mut meter, mut cpu_ns) = (LoadMeter::new(), 7);
        assert!(meter.busy(at(0), cpu_ns).abs() < f64::EPSILON);
        run(&mut meter, 0, 300, &mut cpu_ns, 40);
        assert!((meter.busy(at(300), cpu_ns) - 0.4).abs() < 0.01);
        run(&mut meter, 300, 3_000, &mut cpu_ns, 90);
        assert!((meter.busy(at(3_000), cpu_ns) - 0.9).abs() < 0.01);
        run(&mut meter, 3_000, 3_500, &mut cpu_ns, 10);
        assert!((meter.busy(at(3_500), cpu_ns) - 0.5).abs() < 0.05);
        run(&mut meter, 3_500, 4_100, &mut cpu_ns, 10);
        assert!((meter.busy(at(4_100), cpu_ns) - 0.1).abs() < 0.01);
    }

    #[test]
    fn a_long_sleep_is_idle_time() {
        let (mut meter, mut cpu_ns) = (LoadMeter::new(), 0);
        run(&mut meter, 0, 2_000, &mut cpu_ns, 100);
        assert!(meter.busy(at(60_000), cpu_ns) < 0.01);
        meter.read(at(60_000), cpu_ns);
        // The first milliseconds after it do not look like a second's work.
        assert!(meter.busy(at(60_010), cpu_ns + 10 * MS) < 0.01);
    }

    #[test]
    fn a_clock_that_stands_still_or_leaps_is_within_range() {
        let mut meter = LoadMeter::new();
        meter.read(at(0), 50);
        assert!(meter.busy(at(0), 50).abs() < f64::EPSILON);
        assert!((meter.busy(at(1), u64::MAX) - 1.0).abs() < f64::EPSILON);
        assert!(meter.busy(at(1), 0).abs() < f64::EPSILON);
    }
}
