//! One unanswered command per connection; a few more wait their turn.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::codes::{Code, Fault};

/// The order of the commands of one connection.
#[derive(Debug)]
pub struct Lane {
    turn: std::sync::Arc<Semaphore>,
    waiting: Rc<Cell<usize>>,
    deleting: Cell<bool>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { turn: std::sync::Arc::new(Semaphore::new(1)), waiting: Rc::default(), deleting: Cell::new(false) }
    }
}

/// A command's turn; the next may start when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

struct Waits(Rc<Cell<usize>>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Lane {
    /// Waits for the turn of an ordinary command.
    ///
    /// # Errors
    /// 14: the connection is being deleted, or too many commands wait.
    pub async fn turn(&self) -> Result<Turn, Fault> {
        self.open()?;
        if self.turn.available_permits() == 0 && self.waiting.get() >= WAITING_MAX {
            return Err(busy(format!("{WAITING_MAX} commands wait for this connection already")));
        }
        self.waiting.set(self.waiting.get() + 1);
        let waits = Waits(Rc::clone(&self.waiting));
        let turn = self.last_turn().await;
        drop(waits);
        Ok(turn)
    }

    /// Waits for the turn of a command that is always taken.
    pub async fn last_turn(&self) -> Turn {
        // A lane is never closed, so there is always a permit in the end.
        Turn { _permit: std::sync::Arc::clone(&self.turn).acquire_owned().await.ok() }
    }

    /// Whether commands are taken.
    ///
    /// # Errors
    /// 14: the connection is being deleted.
    pub fn open(&self) -> Result<(), Fault> {
        if self.deleting.get() {
            return Err(busy("the connection is being deleted".to_owned()));
        }
        Ok(())
    }

    /// From now on the connection is being deleted, or not any more.
    pub fn set_deleting(&self, deleting: bool) {
        self.deleting.set(deleting);
    }
}

fn busy(message: String) -> Fault {
    Fault::new(Code::ConnectionBusy, message)
}

/// Commands that may wait behind the one that is carried out.
pub const WAITING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn eight_wait_and_the_ninth_is_refused() {
        let lane = Lane::default();
        let mut first = pin!(lane.turn());
        let Poll::Ready(Ok(turn)) = poll(first.as_mut()) else { panic!("nobody is ahead") };
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(lane.turn())).collect();
        assert!(waiting.iter_mut().all(|wait| poll(wait.as_mut()).is_pending()));
        let Poll::Ready(Err(fault)) = poll(pin!(lane.turn())) else { panic!("refused") };
        assert_eq!(fault.code, Code::ConnectionBusy);
        assert!(poll(pin!(lane.last_turn())).is_pending());
        drop(turn);
        assert!(poll(waiting[0].as_mut()).is_ready());
        waiting.pop();
        assert!(poll(pin!(lane.turn())).is_pending(), "there is room again");
    }

    #[test]
    fn nothing_is_taken_while_it_is_deleted() {
        let lane = Lane::default();
        lane.set_deleting(true);
        assert!(matches!(poll(pin!(lane.turn())), Poll::Ready(Err(_))));
        lane.set_deleting(false);
        assert!(lane.open().is_ok());
    }
}
