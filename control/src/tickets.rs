//! Commands that name one id take effect in the order sent, also when one of them has to wait for a file first.
//!
//! A request takes a ticket for the ids it names, synchronously, in the order requests are read from all clients. Its
//! turn comes when every earlier ticket for any of these ids is gone; it drops the ticket when its command is in the
//! mailbox, from where on the mailbox keeps the order.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ringbridge_media::id::{ConferenceId, ConnectionId};

/// What a command can name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// A connection.
    Connection(ConnectionId),
    /// A conference.
    Conference(ConferenceId),
}

/// The queues of all ids that are in use right now.
#[derive(Clone, Debug, Default)]
pub struct Tickets(Rc<RefCell<Queues>>);

/// A place in the queue of each of its ids.
#[derive(Debug)]
pub struct Ticket {
    queues: Rc<RefCell<Queues>>,
    keys: Vec<Key>,
    number: u64,
}

#[derive(Debug, Default)]
struct Queues {
    by_key: HashMap<Key, VecDeque<u64>>,
    waiting: HashMap<u64, Waker>,
    next: u64,
}

impl Tickets {
    /// Takes the next place in the queues of `keys`.
    pub fn take(&self, keys: &[Key]) -> Ticket {
        let mut queues = self.0.borrow_mut();
        let number = queues.next;
        queues.next += 1;
        let mut own = Vec::with_capacity(keys.len());
        for key in keys {
            if !own.contains(key) {
                own.push(*key);
                queues.by_key.entry(*key).or_default().push_back(number);
            }
        }
        Ticket { queues: Rc::clone(&self.0), keys: own, number }
    }
}

impl Ticket {
    /// Waits until nobody is ahead. Needs no wait, and no turn of the scheduler, if nobody is.
    pub async fn turn(&self) {
        poll_fn(|context| {
            let mut queues = self.queues.borrow_mut();
            if queues.is_first(self.number, &self.keys) {
                queues.waiting.remove(&self.number);
                return Poll::Ready(());
            }
            queues.waiting.insert(self.number, context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut next = Vec::new();
        {
            let mut queues = self.queues.borrow_mut();
            queues.waiting.remove(&self.number);
            for key in &self.keys {
                let Some(queue) = queues.by_key.get_mut(key) else { continue };
                queue.retain(|number| *number != self.number);
                match queue.front() {
                    Some(front) => next.push(*front),
                    None => {
                        queues.by_key.remove(key);
                    }
                }
            }
            next.sort_unstable();
            next.dedup();
            // Whoever is first in this queue may still wait for another; then it goes back to sleep by itself.
            let wakers: Vec<_> = next.iter().filter_map(|number| queues.waiting.remove(number)).collect();
            drop(queues);
            for waker in wakers {
                waker.wake();
            }
        }
    }
}

impl Queues {
    fn is_first(&self, number: u64, keys: &[Key]) -> bool {
        keys.iter().all(|key| self.by_key.get(key).and_then(VecDeque::front) == Some(&number))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use ringbridge_media::id::ShardId;

    use super::*;

    fn key(slot: u32) -> Key {
        Key::Connection(ConnectionId::new(ShardId(0), slot, 0))
    }

    fn ready(ticket: &Ticket) -> bool {
        pin!(ticket.turn()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn turns_come_in_the_order_taken() {
        let tickets = Tickets::default();
        let first = tickets.take(&[key(1)]);
        let second = tickets.take(&[key(1), key(2)]);
        let third = tickets.take(&[key(2)]);
        let other = tickets.take(&[key(3)]);
        assert!(ready(&first) && !ready(&second) && !ready(&third) && ready(&other));
        drop(first);
        assert!(ready(&second) && !ready(&third));
        drop(second);
        assert!(ready(&third));
    }

    #[test]
    fn one_that_gives_up_does_not_block_the_rest() {
        let tickets = Tickets::default();
        let first = tickets.take(&[key(1)]);
        let second = tickets.take(&[key(1)]);
        let third = tickets.take(&[key(1)]);
        drop(second);
        assert!(!ready(&third));
        drop(first);
        assert!(ready(&third));
        drop((third, tickets.take(&[key(1), key(1)])));
        assert!(tickets.0.borrow().by_key.is_empty());
    }
}
