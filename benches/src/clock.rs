//! Wall clock in nanoseconds: the clock of the kernel's receive stamps.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// `CLOCK_REALTIME` in nanoseconds since 1970. Send times use it because the kernel stamps arrivals with it.
#[must_use]
pub fn wall_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// Watches whether the wall clock was stepped or slewed against the monotonic one during a run.
#[derive(Clone, Copy, Debug)]
pub struct ClockWatch {
    monotonic: Instant,
    wall: u64,
}

impl ClockWatch {
    /// Notes both clocks.
    #[must_use]
    pub fn start() -> Self {
        Self { monotonic: Instant::now(), wall: wall_ns() }
    }

    /// How far the wall clock has moved against the monotonic one since the start, in microseconds.
    #[must_use]
    pub fn shift_us(&self) -> f64 {
        let wall = wall_ns() as f64 - self.wall as f64;
        (wall - self.monotonic.elapsed().as_nanos() as f64) / 1e3
    }
}
