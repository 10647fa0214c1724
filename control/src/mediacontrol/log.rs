//! Events per script: numbered, bounded, kept for a while for a subscriber that is away.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

/// The events of every script.
#[derive(Debug, Default)]
pub struct EventLogs {
    logs: RefCell<HashMap<String, Rc<Log>>>,
    /// Where the numbers of a new log begin: above those of all that were forgotten.
    floor: Cell<u64>,
    sweeping: Cell<bool>,
    refused: Cell<u64>,
}

/// The events of one script.
#[derive(Debug)]
pub struct Log {
    /// Whose they are.
    pub routing_guid: String,
    kept: RefCell<VecDeque<Kept>>,
    /// The number of the first event there ever was here.
    start: u64,
    /// The number of the next event.
    next: Cell<u64>,
    touched: Cell<Instant>,
    subscribers: Cell<usize>,
    /// When the last subscriber went; `None` if there never was one, or its script has ended.
    lost: Cell<Option<Instant>>,
    wants_digits: Cell<bool>,
    /// Rung when an event was added, or a subscriber came or went.
    pub(super) changed: Notify,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    at: Instant,
    event: Rc<Value>,
}

/// Some events of a script.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    /// In order.
    pub events: Vec<Rc<Value>>,
    /// To be given as `after` next time: the number of the last of them.
    pub last: u64,
    /// Events before these that were not kept.
    pub missed: u64,
}

/// Somebody who reads a script's events; it is lost when this is dropped.
#[derive(Debug)]
pub struct Subscriber {
    log: Rc<Log>,
}

impl EventLogs {
    /// No logs yet. Numbers begin after `floor`, which no earlier life of the server has reached.
    pub fn new(floor: u64) -> Rc<Self> {
        Rc::new(Self { floor: Cell::new(floor), ..Self::default() })
    }

    /// The log of a script, made if there is none; `None` if there are too many.
    pub fn open(self: &Rc<Self>, routing_guid: &str) -> Option<Rc<Log>> {
        let mut logs = self.logs.borrow_mut();
        if let Some(log) = logs.get(routing_guid) {
            log.touched.set(Instant::now());
            return Some(Rc::clone(log));
        }
        if logs.len() >= LOGS_MAX {
            self.refused.set(self.refused.get() + 1);
            return None;
        }
        let start = self.floor.get().max(1);
        let log = Rc::new(Log {
            routing_guid: routing_guid.to_owned(),
            kept: RefCell::default(),
            start,
            next: Cell::new(start),
            touched: Cell::new(Instant::now()),
            subscribers: Cell::new(0),
            lost: Cell::new(None),
            wants_digits: Cell::new(false),
            changed: Notify::new(),
        });
        logs.insert(routing_guid.to_owned(), Rc::clone(&log));
        drop(logs);
        self.sweep();
        Some(log)
    }

    /// The log of a script, if there is one.
    pub fn get(&self, routing_guid: &str) -> Option<Rc<Log>> {
        self.logs.borrow().get(routing_guid).cloned()
    }

    /// Adds an event of the form the contract gives; returns it with its number.
    pub fn append(self: &Rc<Self>, routing_guid: &str, name: &str, params: Value) -> Rc<Value> {
        let log = self.open(routing_guid);
        let number = log.as_ref().map(|log| log.next.get());
        let event = Rc::new(json!({
            "event": name,
            "routingGuid": routing_guid,
            "sequence": number,
            "params": params,
        }));
        if let (Some(log), Some(number)) = (log, number) {
            log.next.set(number + 1);
            let mut kept = log.kept.borrow_mut();
            if kept.len() >= EVENTS_MAX {
                kept.pop_front();
            }
            kept.push_back(Kept { number, at: Instant::now(), event: Rc::clone(&event) });
            drop(kept);
            log.changed.notify_waiters();
        }
        event
    }

    /// Events that had no log to go to.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Forgets what is old, now and then, as long as there is anything.
    fn sweep(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let logs: Weak<Self> = Rc::downgrade(self);
        spawn_local(async move {
            loop {
                sleep(SWEEP).await;
                let Some(logs) = logs.upgrade() else { return };
                logs.forget();
                if logs.logs.borrow().is_empty() {
                    logs.sweeping.set(false);
                    return;
                }
            }
        });
    }

    fn forget(&self) {
        self.logs.borrow_mut().retain(|_, log| {
            log.purge();
            let keep = log.is_subscribed()
                || log.lost.get().is_some()
                || !log.kept.borrow().is_empty()
                || log.touched.get().elapsed() < KEPT_FOR;
            if !keep {
                self.floor.set(self.floor.get().max(log.next.get()));
            }
            keep
        });
    }
}

impl Log {
    /// What came after event `after`, `most` of it at most. A number that was not reached yet is from another life
    /// of the server: everything kept is given.
    pub fn read(&self, after: u64, most: usize) -> Batch {
        self.purge();
        self.touched.set(Instant::now());
        let next = self.next.get();
        let after = if after >= next { 0 } else { after };
        let kept = self.kept.borrow();
        let first = kept.front().map_or(next, |kept| kept.number);
        let events = kept.iter().filter(|kept| kept.number > after).take(most);
        let missed = (first - 1).saturating_sub(after.max(self.start - 1));
        let mut batch = Batch { events: Vec::new(), last: after.max(first - 1), missed };
        for kept in events {
            batch.last = kept.number;
            batch.events.push(Rc::clone(&kept.event));
        }
        batch
    }

    /// Takes up a subscriber.
    pub fn subscribe(self: &Rc<Self>, wants_digits: bool) -> Subscriber {
        self.subscribers.set(self.subscribers.get() + 1);
        self.lost.set(None);
        if wants_digits {
            self.wants_digits.set(true);
        }
        Subscriber { log: Rc::clone(self) }
    }

    /// Whether somebody reads.
    pub fn is_subscribed(&self) -> bool {
        self.subscribers.get() > 0
    }

    /// When the last subscriber was lost.
    pub fn lost(&self) -> Option<Instant> {
        self.lost.get()
    }

    /// Its script has ended: nobody is missed any more.
    pub fn end_script(&self) {
        self.lost.set(None);
        if !self.is_subscribed() {
            self.wants_digits.set(false);
        }
    }

    /// Whether a subscriber has asked for GotMediaDigits.
    pub fn wants_digits(&self) -> bool {
        self.wants_digits.get()
    }

    fn purge(&self) {
        let mut kept = self.kept.borrow_mut();
        while kept.front().is_some_and(|kept| kept.at.elapsed() > KEPT_FOR) {
            kept.pop_front();
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let log = &self.log;
        log.subscribers.set(log.subscribers.get() - 1);
        log.touched.set(Instant::now());
        if log.subscribers.get() == 0 {
            log.lost.set(Some(Instant::now()));
        }
        log.changed.notify_waiters();
    }
}

/// Scripts whose events are kept.
pub const LOGS_MAX: usize = 65_536;
/// Events kept of one script.
pub const EVENTS_MAX: usize = 1_024;
/// How long an event is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;
    use tokio::time::advance;

    use super::*;

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event["sequence"].as_u64().expect("a number")).collect()
    }

    fn with_logs(work: impl AsyncFnOnce(Rc<EventLogs>)) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        LocalSet::new().block_on(&runtime, work(Rc::default()));
    }

    #[test]
    fn events_are_numbered_per_script_and_given_again() {
        with_logs(async |logs| {
            for script in ["a", "b"] {
                for _ in 0..3 {
                    logs.append(script, "X", json!({}));
                }
            }
            let log = logs.get("a").expect("a log");
            assert_eq!(numbers(&log.read(0, 9)), [1, 2, 3]);
            assert_eq!(numbers(&log.read(2, 9)), [3]);
            assert_eq!(numbers(&log.read(2, 9)), [3], "until it is old");
            assert_eq!(log.read(3, 9), Batch { events: Vec::new(), last: 3, missed: 0 });
            assert_eq!(numbers(&log.read(0, 2)), [1, 2]);
            // A number from before a restart.
            assert_eq!(numbers(&log.read(77, 9)), [1, 2, 3]);
        });
    }

    #[test]
    fn a_log_is_bounded_and_tells_the_gap() {
        with_logs(async |logs| {
            for _ in 0..EVENTS_MAX + 5 {
                logs.append("a", "X", json!({}));
            }
            let batch = logs.get("a").expect("a log").read(2, usize::MAX);
            assert_eq!((batch.missed, batch.events.len()), (3, EVENTS_MAX));
            assert_eq!(batch.last, u64::try_from(EVENTS_MAX + 5).expect("small"));
        });
    }

    #[test]
    fn events_are_kept_for_a_minute_and_empty_logs_are_forgotten() {
        with_logs(async |logs| {
            logs.append("a", "X", json!({}));
            advance(KEPT_FOR - Duration::from_secs(1)).await;
            logs.append("a", "X", json!({}));
            let log = logs.get("a").expect("a log");
            assert_eq!(log.read(0, 9).events.len(), 2);
            advance(Duration::from_secs(2)).await;
            let batch = log.read(0, 9);
            assert_eq!((numbers(&batch), batch.missed), (vec![2], 1));
            drop(log);
            sleep(KEPT_FOR * 3).await;
            assert!(logs.get("a").is_none());
            // Its numbers are not met again.
            assert_eq!(logs.append("a", "X", json!({}))["sequence"], 3);
        });
    }

    #[test]
    fn the_last_subscriber_that_goes_is_missed() {
        with_logs(async |logs| {
            let log = logs.open("a").expect("room");
            assert_eq!(log.lost(), None);
            let (one, other) = (log.subscribe(true), log.subscribe(false));
            assert!(log.wants_digits());
            drop(one);
            assert_eq!(log.lost(), None);
            drop(other);
            assert!(log.lost().is_some() && log.wants_digits(), "digits pressed between two polls are kept");
            let again = log.subscribe(false);
            assert_eq!(log.lost(), None);
            drop(again);
        });
    }
}
