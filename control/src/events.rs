//! Clients, and the events they have asked for.
//!
//! Every client has one bounded queue for answers and events. When it is half full, events that may be dropped (talk,
//! digit) are dropped and counted. When it is full the client is disconnected; its media goes on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use serde_json::Value;
use tokio::sync::Notify;

use crate::gate::Gate;
use crate::proto::notification;

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What can happen by itself.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name on the wire, `params.event`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

event_kinds! {
    /// An operation ended; exactly one each.
    OperationEnded = "operation.ended",
    /// A digit arrived.
    Digit = "digit",
    /// A participant began to talk.
    TalkStarted = "talk.started",
    /// A participant fell silent.
    TalkStopped = "talk.stopped",
    /// Another participant leads the talk.
    SpeakerActive = "speaker.active",
    /// The endpoint's source address is known.
    ConnectionLearned = "connection.learned",
    /// Two connections were wired to each other.
    CallStarted = "call.started",
    /// Both parties of a call are being recorded.
    RecordingStarted = "recording.started",
    /// It was said which parties of a call are left out of its recording.
    RecordingMuted = "recording.muted",
    /// Nothing was received for the connection's timeout.
    ConnectionTimeout = "connection.timeout",
    /// A connection is gone.
    ConnectionEnded = "connection.ended",
    /// A conference is gone.
    ConferenceEnded = "conference.ended",
    /// Something has moved to another shard, as somebody wanted or to even out loads.
    ShardMoved = "shard.moved",
    /// A shard has failed with all that was on it; it starts again.
    ShardFailed = "shard.failed",
    /// An event of the MediaControl API.
    MediaControl = "mediacontrol",
}

impl EventKind {
    /// The kind of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether it may be dropped when its reader is behind.
    pub const fn is_droppable(self) -> bool {
        matches!(self, Self::Digit | Self::TalkStarted | Self::TalkStopped | Self::SpeakerActive)
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// Told of every event, with its members but not its name.
pub type Observer = Box<dyn Fn(EventKind, &Value)>;

/// All clients of the control socket, and whoever else is told of events.
#[derive(Default)]
pub struct Hub {
    clients: RefCell<Vec<Rc<Client>>>,
    observers: RefCell<Vec<Observer>>,
    published: Cell<u64>,
    dropped: Cell<u64>,
    disconnected: Cell<u64>,
}

/// One client: what waits to be written to it, and what it has asked for.
#[derive(Debug, Default)]
pub struct Client {
    /// Who it is, in words.
    pub(crate) origin: Rc<str>,
    /// The user that runs it, if the system says.
    pub(crate) uid: Option<u32>,
    queue: RefCell<OutQueue>,
    subscribed: Cell<u16>,
    /// Rung when there is something to write, or nothing more will come.
    pub(crate) written: Notify,
    /// Opens when the client is to be disconnected at once.
    pub(crate) closed: Gate,
    /// Opens when nothing more will be queued: write what is left, then close.
    pub(crate) finished: Gate,
    /// Requests that are not answered yet.
    pub(crate) requests: Cell<usize>,
    /// Rung when a request is answered.
    pub(crate) answered: Notify,
}

#[derive(Debug, Default)]
struct OutQueue {
    lines: VecDeque<Rc<str>>,
    bytes: usize,
}

impl Hub {
    /// Takes up a client; `origin` says in words who it is, `uid` which user runs it.
    pub fn connect(&self, origin: &str, uid: Option<u32>) -> Rc<Client> {
        let client = Rc::new(Client { origin: origin.into(), uid, ..Client::default() });
        self.clients.borrow_mut().push(Rc::clone(&client));
        client
    }

    /// Drops a client.
    pub fn disconnect(&self, client: &Rc<Client>) {
        self.clients.borrow_mut().retain(|other| !Rc::ptr_eq(other, client));
    }

    /// Tells `observer` of every event from now on, in the order published and before any client can read it. It may
    /// look at the hub and publish what follows from the event, but not add another.
    pub fn observe(&self, observer: Observer) {
        self.observers.borrow_mut().push(observer);
    }

    /// Queues an event to everybody who asked for its kind. `params` is an object; its name is added.
    pub fn publish(&self, kind: EventKind, mut params: Value) {
        self.published.set(self.published.get() + 1);
        for observer in self.observers.borrow().iter() {
            observer(kind, &params);
        }
        let clients = self.clients.borrow();
        let mut subscribers = clients.iter().filter(|client| client.subscribed.get() & kind.bit() != 0).peekable();
        if subscribers.peek().is_none() {
            return;
        }
        params["event"] = kind.name().into();
        let line: Rc<str> = notification(params).into();
        for client in subscribers {
            self.push(client, &line, kind.is_droppable());
        }
    }

    /// Queues an answer.
    pub fn answer(&self, client: &Client, answer: &Value) {
        let mut line = answer.to_string();
        line.push('\n');
        self.push(client, &line.into(), false);
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Tells every client to close once what is queued has been written.
    pub fn finish(&self) {
        for client in self.clients.borrow().iter() {
            client.finish();
        }
    }

    /// Events that happened, whether anybody listened or not.
    pub fn published(&self) -> u64 {
        self.published.get()
    }

    /// Events dropped because their reader was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Clients disconnected because they did not read.
    pub fn disconnected(&self) -> u64 {
        self.disconnected.get()
    }

    fn push(&self, client: &Client, line: &Rc<str>, droppable: bool) {
        if client.closed.is_open() {
            return;
        }
        let mut queue = client.queue.borrow_mut();
        let share = if droppable { 2 } else { 1 };
        if queue.bytes >= OUTPUT_BYTES_MAX / share || queue.lines.len() >= OUTPUT_LINES_MAX / share {
            if droppable {
                self.dropped.set(self.dropped.get() + 1);
                return;
            }
            tracing::warn!("a client does not read: disconnected");
            *queue = OutQueue::default();
            self.disconnected.set(self.disconnected.get() + 1);
            client.closed.open();
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(Rc::clone(line));
        client.written.notify_one();
    }
}

impl Client {
    /// Sets what it wants to hear of.
    pub fn subscribe(&self, kinds: &[EventKind]) {
        self.subscribed.set(kinds.iter().fold(0, |bits, kind| bits | kind.bit()));
    }

    /// Nothing more will be queued.
    pub fn finish(&self) {
        self.finished.open();
        self.written.notify_one();
    }

    /// Takes what is to be written next: as many whole lines as make up some 64 KiB.
    pub fn take_output(&self) -> Option<Vec<u8>> {
        let mut queue = self.queue.borrow_mut();
        let mut bytes = Vec::new();
        while bytes.len() < WRITE_BYTES {
            let Some(line) = queue.lines.pop_front() else { break };
            queue.bytes -= line.len();
            bytes.extend_from_slice(line.as_bytes());
        }
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// Lines that wait for one client. When reached, the client is disconnected.
pub const OUTPUT_LINES_MAX: usize = 16_384;
/// Bytes that wait for one client before another line is refused; one answer of any length always fits behind less.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;
const WRITE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_asked_for_is_queued() {
        let hub = Hub::default();
        let client = hub.connect("a test", None);
        hub.publish(EventKind::Digit, json!({"digit": "1"}));
        client.subscribe(&[EventKind::Digit]);
        hub.publish(EventKind::ShardFailed, json!({"shard": 1}));
        hub.publish(EventKind::Digit, json!({"digit": "2"}));
        let text = String::from_utf8(client.take_output().expect("one event")).expect("text");
        assert_eq!(text.lines().count(), 1);
        let event: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(event["method"], "event");
        assert_eq!(event["params"], json!({"event": "digit", "digit": "2"}));
        assert_eq!(client.take_output(), None);
    }

    #[test]
    fn observers_hear_of_everything_in_order() {
        let hub = Hub::default();
        let heard: Rc<RefCell<Vec<(EventKind, Value)>>> = Rc::default();
        let listener = Rc::clone(&heard);
        hub.observe(Box::new(move |kind, params| listener.borrow_mut().push((kind, params.clone()))));
        hub.publish(EventKind::Digit, json!({"digit": "1"}));
        hub.publish(EventKind::ShardFailed, json!({"shard": 0}));
        let expected = [(EventKind::Digit, json!({"digit": "1"})), (EventKind::ShardFailed, json!({"shard": 0}))];
        assert_eq!(*heard.borrow(), expected);
    }

    #[test]
    fn a_full_queue_drops_digits_first_and_then_the_client() {
        let hub = Hub::default();
        let client = hub.connect("a test", None);
        client.subscribe(EventKind::ALL);
        for _ in 0..OUTPUT_LINES_MAX / 2 + 5 {
            hub.publish(EventKind::Digit, json!({}));
        }
        assert_eq!(hub.dropped(), 5);
        for _ in 0..OUTPUT_LINES_MAX / 2 {
            hub.publish(EventKind::ConnectionEnded, json!({}));
        }
        assert!(!client.closed.is_open());
        hub.answer(&client, &json!({}));
        assert!(client.closed.is_open());
        assert_eq!((hub.disconnected(), client.take_output()), (1, None));
    }

    #[test]
    fn one_long_answer_fits() {
        let hub = Hub::default();
        let client = hub.connect("a test", None);
        hub.answer(&client, &json!("x".repeat(2 * OUTPUT_BYTES_MAX)));
        assert!(!client.closed.is_open());
        hub.answer(&client, &json!("y"));
        assert!(client.closed.is_open());
    }
}
