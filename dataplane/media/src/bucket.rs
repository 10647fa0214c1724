//! Polices one source: a burst of packets, then four times its own rate.

use crate::limits::{SOURCE_BURST_PACKETS, SOURCE_RATE_FACTOR};
use crate::time::Instant;

/// A token bucket in the form of the generic cell rate algorithm (ITU-T I.371 Annex A): the only state is when the
/// bucket will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TokenBucket {
    full_at_nanos: u64,
}

impl TokenBucket {
    /// Takes a token if there is one. `ptime_ms` gives the source's own rate.
    pub(crate) fn take(&mut self, now: Instant, ptime_ms: u32) -> bool {
        let cost = u64::from(ptime_ms) * 1_000_000 / u64::from(SOURCE_RATE_FACTOR);
        let now = now.as_nanos();
        let full_at = self.full_at_nanos.max(now);
        if full_at - now > cost * u64::from(SOURCE_BURST_PACKETS - 1) {
            return false;
        }
        self.full_at_nanos = full_at + cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let mut bucket = TokenBucket::default();
        let start = Instant::from_millis(1_000);
        let passed = (0..1_000).filter(|_| bucket.take(start, 20)).count();
        assert_eq!(passed, 500);
        // A second later four times fifty tokens are back.
        let later = Instant::from_millis(2_000);
        assert_eq!((0..1_000).filter(|_| bucket.take(later, 20)).count(), 200);
    }

    #[test]
    fn the_own_rate_always_passes() {
        let mut bucket = TokenBucket::default();
        assert!((0..10_000).all(|n| bucket.take(Instant::from_millis(n * 20), 20)));
    }
}
