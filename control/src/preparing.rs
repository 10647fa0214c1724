//! Starts that still make their prompts ready, which takes long when a text has to be rendered first. Whoever stops or
//! deletes what they would start gives them up, so that no stop waits for a rendering.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;

use crate::gate::Gate;
use crate::tickets::{Key, Ticket};

/// Every start that is not ready yet, by what it would start on.
#[derive(Debug, Default)]
pub struct Preparing {
    starts: RefCell<HashMap<Key, Vec<(u64, Gate)>>>,
    begun: Cell<u64>,
}

/// A start that is not ready yet, until this is dropped.
#[derive(Debug)]
pub struct Preparation<'a> {
    all: &'a Preparing,
    key: Key,
    number: u64,
    given_up: Gate,
}

impl Preparing {
    /// Notes a start.
    pub fn begin(&self, key: Key) -> Preparation<'_> {
        let number = self.begun.get();
        self.begun.set(number + 1);
        let given_up = Gate::default();
        self.starts.borrow_mut().entry(key).or_default().push((number, given_up.clone()));
        Preparation { all: self, key, number, given_up }
    }

    /// Gives up every start on `key` that is not ready.
    pub fn give_up(&self, key: Key) {
        for (_, given_up) in self.starts.borrow().get(&key).into_iter().flatten() {
            given_up.open();
        }
    }

    /// Waits for the turn of a command that stops or deletes. What is before it and opens a file gets the time for
    /// that; what takes longer is given up.
    pub async fn turn_of_stop(&self, ticket: &Ticket, key: Key) {
        while timeout(PATIENCE, ticket.turn()).await.is_err() {
            self.give_up(key);
        }
    }
}

impl Preparation<'_> {
    /// Waits until it is given up.
    pub async fn given_up(&self) {
        self.given_up.wait().await;
    }
}

impl Drop for Preparation<'_> {
    fn drop(&mut self) {
        let mut starts = self.all.starts.borrow_mut();
        let Some(same) = starts.get_mut(&self.key) else { return };
        same.retain(|(number, _)| *number != self.number);
        if same.is_empty() {
            starts.remove(&self.key);
        }
    }
}

/// How long a stop waits for prompts that were asked for before it.
pub const PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use ringbridge_media::id::{ConnectionId, ShardId};
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::tickets::Tickets;

    #[test]
    fn a_stop_waits_for_files_but_not_for_a_rendering() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let (all, tickets) = (Rc::new(Preparing::default()), Tickets::default());
            let key = Key::Connection(ConnectionId::new(ShardId(0), 1, 1));
            for (takes, is_given_up) in [(PATIENCE / 2, false), (PATIENCE * 100, true)] {
                let (start, stop) = (tickets.take(&[key]), tickets.take(&[key]));
                let preparing = Rc::clone(&all);
                let started = spawn_local(async move {
                    start.turn().await;
                    let preparation = preparing.begin(key);
                    tokio::select! {
                        () = tokio::time::sleep(takes) => false,
                        () = preparation.given_up() => true,
                    }
                });
                let asked = tokio::time::Instant::now();
                all.turn_of_stop(&stop, key).await;
                assert!(asked.elapsed() <= PATIENCE * 2, "{:?}", asked.elapsed());
                assert_eq!(started.await.expect("no panic"), is_given_up);
                assert!(all.starts.borrow().is_empty());
            }
        });
    }
}
