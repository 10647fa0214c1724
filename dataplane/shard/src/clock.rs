//! The only reader of time.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use ringbridge_media::time::Instant;
use ringbridge_wire::rtcp::NtpTimestamp;

static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();

/// Now, on the monotonic clock all shards of this process share. The epoch is one second before the first call, so
/// that no early computation meets zero.
pub fn now() -> Instant {
    let epoch = *EPOCH.get_or_init(std::time::Instant::now);
    let nanos = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(nanos.saturating_add(1_000_000_000))
}

/// Wallclock time at [`Instant::ZERO`], as sender reports carry it. A step of the wallclock later is not followed, so
/// that round trip times stay right.
pub fn ntp_at_zero() -> NtpTimestamp {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = wall.as_nanos().saturating_sub(u128::from(now().as_nanos()));
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(0).wrapping_add(UNIX_EPOCH_IN_NTP_S);
    let fraction = u64::try_from(((nanos % 1_000_000_000) << 32) / 1_000_000_000).unwrap_or(0);
    NtpTimestamp(seconds << 32 | fraction)
}

/// From 1900 to 1970 (RFC 5905 figure 4).
const UNIX_EPOCH_IN_NTP_S: u64 = 2_208_988_800;
