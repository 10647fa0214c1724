//! A gate that opens once.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Closed at first, then open for ever. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Cell<bool>,
    opened: Notify,
}

impl Gate {
    /// Opens it.
    pub fn open(&self) {
        self.0.open.set(true);
        self.0.opened.notify_waiters();
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.0.open.get()
    }

    /// Waits until it is open; at once if it is.
    pub async fn wait(&self) {
        // One thread: nothing can open the gate between the look and the first poll of `notified`, which registers.
        while !self.is_open() {
            self.0.opened.notified().await;
        }
    }
}
