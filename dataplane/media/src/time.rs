//! Local monotonic time as plain nanoseconds.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A point on the server's monotonic clock: nanoseconds since an epoch that all shards of a process share.
///
/// Plain numbers, so traces can be replayed and state can move between shards. Only `shard::clock` makes one
/// from a real clock. No cast leads from here to an RTP timestamp: media schedules count samples.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);

    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// The same or the next whole millisecond: the grain of every deadline.
    pub const fn ceil_to_millis(self) -> Self {
        Self(self.0.div_ceil(1_000_000).saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to here, zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds from `origin` to here with fractions, negative if `origin` is later.
    pub fn millis_since(self, origin: Self) -> f64 {
        (self.0 as f64 - origin.0 as f64) / 1e6
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        // 2^64 ns are 584 years; a saturated deadline is simply never reached.
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
