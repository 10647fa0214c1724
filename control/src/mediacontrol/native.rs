//! The native methods, as far as this adapter knows them: names and JSON.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde_json::Value;

use crate::proto::RpcError;

/// What carries out every action.
pub(crate) trait Native {
    /// Calls one native method.
    fn call(&self, method: &'static str, params: Value) -> Answering<'_>;

    /// Tells the clients of the control socket of an event of this adapter.
    fn publish(&self, event: &Value);

    /// Gives up what is to be started on a connection and is not ready yet.
    fn give_up(&self, connection: &str);

    /// Whether a connection with a low-bitrate codec could be made now.
    fn low_bitrate_free(&self) -> bool;
}

/// A native call on its way.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = (Result<Value, RpcError>, Announce)> + 'a>>;

/// Held as long as an answer is on its way to the client: the end of an operation is told after the answer to its
/// start, which is when this is dropped.
#[derive(Default)]
pub struct Announce(Vec<Box<dyn FnOnce()>>);

impl Announce {
    /// Calls `open` when the answer has been handed over.
    pub(crate) fn new(open: impl FnOnce() + 'static) -> Self {
        Self(vec![Box::new(open)])
    }

    /// Adds what another call waits for.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl Drop for Announce {
    fn drop(&mut self) {
        for open in self.0.drain(..) {
            open();
        }
    }
}

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Announce({})", self.0.len())
    }
}
