//! Starting a shard again that has failed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringbridge_media::id::ShardId;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Server;

impl Server {
    /// Starts a shard again, after longer and longer pauses if it keeps failing.
    pub(super) async fn restart_shard(self: Rc<Self>, shard: ShardId, lived: Duration) {
        let index = usize::from(shard.0);
        let (thread, mut failures) = {
            let mut shards = self.shards.borrow_mut();
            let runtime = &mut shards[index];
            runtime.failures = failures_after(runtime.failures, lived);
            (runtime.thread.take(), runtime.failures)
        };
        if let Some(thread) = thread {
            // It has said its last word, so this is short; still not for the thread all commands run on.
            drop(spawn_blocking(move || thread.join()).await);
        }
        loop {
            sleep(pause_before_restart(failures)).await;
            if self.stopping.get() {
                return;
            }
            let (start, config, doorbell) =
                (Arc::clone(&self.start_shard), self.shard_config(shard), Arc::clone(&self.doorbell));
            match spawn_blocking(move || start(config, doorbell)).await {
                Ok(Ok(handle)) => {
                    tracing::info!(%shard, "a shard has started again");
                    self.take_up(handle);
                    return;
                }
                Ok(Err(error)) => tracing::error!(%shard, %error, "a shard does not start"),
                Err(error) => tracing::error!(%shard, %error, "a shard does not start"),
            }
            failures += 1;
            self.shards.borrow_mut()[index].failures = failures;
        }
    }
}

/// Failures in a row, after one more: long life is forgiven.
fn failures_after(failures: u32, lived: Duration) -> u32 {
    if lived > LIFE_TO_FORGIVE { 0 } else { failures.saturating_add(1) }
}

fn pause_before_restart(failures: u32) -> Duration {
    RESTART_PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RESTART_PAUSE_MAX)
}

/// First pause before a shard is started again; doubled with each failure that follows soon.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a shard is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A shard that ran for this long starts again as if it had never failed.
const LIFE_TO_FORGIVE: Duration = Duration::from_secs(60);
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_life_is_forgiven() {
        assert_eq!(failures_after(3, Duration::from_secs(1)), 4);
        assert_eq!(failures_after(3, LIFE_TO_FORGIVE + Duration::from_secs(1)), 0);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(pause_before_restart(0), Duration::from_millis(100));
        assert_eq!(pause_before_restart(1), Duration::from_millis(100));
        assert_eq!(pause_before_restart(3), Duration::from_millis(400));
        assert_eq!(pause_before_restart(u32::MAX), RESTART_PAUSE_MAX);
    }
}
