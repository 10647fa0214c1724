//! Work that is carried as far as it goes at once, and only then becomes a task.
//!
//! This is what keeps things in order: whatever needs no waiting has happened when [`begin`] returns.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::task::{JoinHandle, spawn_local};

use crate::audit::Notes;

/// Work that was begun.
#[derive(Debug)]
pub enum Begun<T> {
    /// It needed no waiting.
    Ended(T),
    /// The rest of it is a task. Dropping this does not stop it.
    Running(JoinHandle<T>),
}

/// Carries `work` as far as it goes without waiting; the rest becomes a task of the current `LocalSet`.
pub fn begin<T: 'static>(work: impl Future<Output = T> + 'static) -> Begun<T> {
    // It belongs to the command that is being carried out, if there is one.
    let mut work: Pin<Box<dyn Future<Output = T>>> = match Notes::current() {
        Some(notes) => Box::pin(notes.follow(work)),
        None => Box::pin(work),
    };
    // Whatever it waits for registers the task's own waker when the task is first run.
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Begun::Ended(result),
        Poll::Pending => Begun::Running(spawn_local(work)),
    }
}

impl<T> Begun<T> {
    /// The result; `None` if the task was ended with the server.
    pub async fn end(self) -> Option<T> {
        match self {
            Self::Ended(result) => Some(result),
            Self::Running(task) => task.await.ok(),
        }
    }
}
