//! Telling what runs beside us to end, and waiting until it has.

use tokio::sync::watch;

/// Ends what holds the other half. It also ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

/// What is to end holds this until it has.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

/// Both halves.
pub(crate) fn stop() -> (Stop, Stopping) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Stopping(receiver))
}

impl Stop {
    /// Tells all to end, and returns when they have.
    pub(crate) async fn stop(&self) {
        // Nobody listens to it any more when all has ended.
        let _ = self.0.send(true);
        self.0.closed().await;
    }
}

impl Stopping {
    /// Waits until it is told to stop, or nobody is left to tell it.
    pub(crate) async fn told(&mut self) {
        // An error says that the other half is gone.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
