//! What the suites share.

pub mod audio;
pub mod endpoint;
pub mod hearing;
pub mod http;
pub mod https;
pub mod line;
pub mod server;
pub mod sim;
pub mod spectrum;
pub mod virtual_time;

use std::time::{Duration, Instant};

/// A condition that has not come true by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
///
/// # Panics
/// If it gives nothing within [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_every(Duration::from_millis(2), what, condition)
}

/// As [`until`], for a condition that costs too much to look at all the time.
///
/// # Panics
/// If it gives nothing within [`PATIENCE`].
#[track_caller]
pub fn until_every<T>(pace: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "this never came: {what}");
        std::thread::sleep(pace);
    }
}
