//! One signed-in agent: its session id, and the events that wait for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::codes::Code;
use crate::auth::tokens::random_guid;
use crate::auth::{KeyHash, PasswordHash};
use crate::gate::Gate;

/// A signed-in agent.
pub(super) struct Session {
    pub(super) number: u32,
    /// The telephone of this sign-in.
    pub(super) phone: String,
    pub(super) vdn: u32,
    pub(super) inspector: bool,
    /// Where events are posted; none: they are polled.
    pub(super) push: Option<Push>,
    /// The password of this sign-in.
    pub(super) password: Option<PasswordHash>,
    /// The conference the agent has asked for or is in.
    pub(super) conference: Cell<Option<u32>>,
    /// Opens when the session is over.
    pub(super) ended: Gate,
    guids: RefCell<Guids>,
    seen: Cell<Instant>,
    poll: Cell<u64>,
    events: RefCell<VecDeque<Value>>,
    changed: Notify,
}

/// Where events are posted.
#[derive(Clone)]
pub(super) struct Push {
    pub(super) uri: axum::http::Uri,
    /// Over TLS, trusting these certificates; else plainly.
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) token: String,
}

struct Guids {
    current: KeyHash,
    /// The one before, and until when it is good.
    previous: Option<(KeyHash, Instant)>,
    /// As it was handed out, for the header of pushed events.
    text: String,
}

/// Who signs in, and how.
pub(super) struct Sign {
    pub(super) number: u32,
    pub(super) phone: String,
    pub(super) vdn: u32,
    pub(super) inspector: bool,
    pub(super) push: Option<Push>,
    pub(super) password: Option<PasswordHash>,
}

impl Session {
    /// A new session, and its id.
    pub(super) fn new(sign: Sign, gateway: &str) -> (Self, String) {
        let guid = new_guid(gateway);
        let guids = Guids { current: KeyHash::of(&guid), previous: None, text: guid.clone() };
        let Sign { number, phone, vdn, inspector, push, password } = sign;
        let session = Self {
            number,
            phone,
            vdn,
            inspector,
            push,
            password,
            conference: Cell::default(),
            ended: Gate::default(),
            guids: RefCell::new(guids),
            seen: Cell::new(Instant::now()),
            poll: Cell::default(),
            events: RefCell::default(),
            changed: Notify::new(),
        };
        (session, guid)
    }

    /// Whether this is the id of the session.
    pub(super) fn knows(&self, guid: &str) -> bool {
        let given = KeyHash::of(guid);
        let guids = self.guids.borrow();
        let previous = guids.previous.filter(|(_, until)| Instant::now() < *until).map(|(hash, _)| hash);
        // Both are compared, so that it takes as long.
        (guids.current == given) | (previous == Some(given))
    }

    /// Gives the session another id; the one before is good for a moment.
    pub(super) fn renew(&self, gateway: &str) -> String {
        let guid = new_guid(gateway);
        let mut guids = self.guids.borrow_mut();
        let previous = Some((guids.current, Instant::now() + PREVIOUS_GUID));
        *guids = Guids { current: KeyHash::of(&guid), previous, text: guid.clone() };
        guid
    }

    /// The id of the session.
    pub(super) fn guid(&self) -> String {
        self.guids.borrow().text.clone()
    }

    /// The agent was heard of.
    pub(super) fn touch(&self) {
        self.seen.set(Instant::now());
    }

    /// When the session ends unless the agent is heard of.
    pub(super) fn expires(&self) -> Instant {
        self.seen.get() + SILENCE
    }

    /// Queues an event. Beyond the maximum the oldest goes.
    pub(super) fn tell(&self, event: &str, content: Value) {
        let mut events = self.events.borrow_mut();
        if events.len() >= EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(json!({
            "eventType": event,
            "workNo": self.number.to_string(),
            "content": content,
            "eventGenTime": Timestamp::now().as_millisecond(),
        }));
        drop(events);
        self.changed.notify_waiters();
    }

    /// The next event; null if none comes in time or another poll takes over.
    pub(super) async fn poll(&self) -> Result<Value, Code> {
        let turn = self.poll.get() + 1;
        self.poll.set(turn);
        self.touch();
        self.changed.notify_waiters();
        let deadline = Instant::now() + HOLD;
        let event = loop {
            let changed = self.changed.notified();
            if self.ended.is_open() {
                return Err(Code::SignedOut);
            }
            if self.poll.get() != turn {
                return Ok(Value::Null);
            }
            if let Some(event) = self.events.borrow_mut().pop_front() {
                break event;
            }
            if timeout_at(deadline, changed).await.is_err() {
                break Value::Null;
            }
        };
        self.touch();
        Ok(event)
    }

    /// Waits until there are events, and takes them.
    pub(super) async fn take(&self) -> Vec<Value> {
        loop {
            let changed = self.changed.notified();
            let waiting: Vec<Value> = self.events.borrow_mut().drain(..).collect();
            if !waiting.is_empty() || self.ended.is_open() {
                return waiting;
            }
            changed.await;
        }
    }

    /// The agent is not in that conference any more.
    pub(super) fn leave(&self, conference: u32) {
        if self.conference.get() == Some(conference) {
            self.conference.set(None);
        }
    }

    /// The session is over.
    pub(super) fn end(&self) {
        self.ended.open();
        self.changed.notify_waiters();
    }
}

fn new_guid(gateway: &str) -> String {
    format!("{}.{gateway}", random_guid())
}

/// Events that may wait.
const EVENTS_MAX: usize = 1_000;
/// How long a poll is held.
const HOLD: Duration = Duration::from_secs(10);
/// How long an agent may be silent.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a session id is good after it was replaced.
const PREVIOUS_GUID: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, String) {
        let sign = Sign { number: 101, phone: "8801".to_owned(), vdn: 1, inspector: false, push: None, password: None };
        Session::new(sign, "AgentGateway1")
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_id_is_good_for_a_moment() {
        let (session, first) = session();
        assert!(first.len() == 36 + 14 && first.ends_with(".AgentGateway1"), "{first}");
        assert!(session.knows(&first) && !session.knows("") && !session.knows(&first[..36]));
        let second = session.renew("AgentGateway1");
        assert!(session.knows(&first) && session.knows(&second) && session.guid() == second);
        tokio::time::advance(PREVIOUS_GUID).await;
        assert!(!session.knows(&first) && session.knows(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_one_by_one_and_an_empty_poll_is_held() {
        let (session, _) = session();
        session.tell("A", json!({"confId": 1}));
        session.tell("B", Value::Null);
        assert_eq!(session.poll().await.expect("signed in")["eventType"], "A");
        assert_eq!(session.poll().await.expect("signed in")["eventType"], "B");
        let begun = Instant::now();
        assert_eq!(session.poll().await, Ok(Value::Null));
        assert_eq!(begun.elapsed(), HOLD);
        for number in 0..=EVENTS_MAX {
            session.tell(&number.to_string(), Value::Null);
        }
        assert_eq!(session.poll().await.expect("signed in")["eventType"], "1");
    }

    #[tokio::test(start_paused = true)]
    async fn the_older_of_two_polls_is_answered_empty() {
        let (session, _) = session();
        let second = async {
            tokio::task::yield_now().await;
            tokio::join!(session.poll(), async {
                tokio::task::yield_now().await;
                session.tell("A", Value::Null);
            })
            .0
        };
        let (first, second) = tokio::join!(session.poll(), second);
        assert_eq!(first, Ok(Value::Null));
        assert_eq!(second.expect("signed in")["eventType"], "A");
        session.end();
        assert_eq!(session.poll().await, Err(Code::SignedOut));
    }
}
