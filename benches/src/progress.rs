//! A progress bar for long runs; hidden when standard error is no terminal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Runs `work` on a thread of its own, which reports how far it is by storing into the counter it gets, and shows
/// that as a bar of `total` steps.
///
/// # Panics
/// If `work` panics.
pub fn with_bar<T: Send>(label: &str, total: u64, work: impl FnOnce(&AtomicU64) -> T + Send) -> T {
    const REDRAW: Duration = Duration::from_millis(200);
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {percent:>3} % {eta:>5}") {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    let done = AtomicU64::new(0);
    let result = thread::scope(|scope| {
        let worker = scope.spawn(|| work(&done));
        while !worker.is_finished() {
            bar.set_position(done.load(Ordering::Relaxed));
            // The worker's end is noticed at once; the rest is only drawing.
            thread::park_timeout(REDRAW);
        }
        worker.join()
    });
    bar.finish_and_clear();
    match result {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
