//! The only reader of time.

use std::sync::OnceLock;

use ringbridge_media::time::Instant;

static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();

/// Now, on the monotonic clock all shards of this process share. The epoch is one second before the first call, so
/// that no early computation meets zero.
pub fn now() -> Instant {
    let epoch = *EPOCH.get_or_init(std::time::Instant::now);
    let nanos = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(nanos.saturating_add(1_000_000_000))
}
