//! Sessions: who signed in, at which station, and the messages that wait to be fetched.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fault::Fault;
use crate::auth::{KeyHash, PasswordHash, Token};
use crate::store::voicemail::MessageId;

/// What a session can be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Topic {
    /// Voicemail messages, and how far playing one is.
    Voicemail,
    /// Fax messages.
    Fax,
    /// How many messages are unread.
    Waiting,
}

impl Topic {
    /// Every topic.
    pub(super) const ALL: [Self; 3] = [Self::Voicemail, Self::Fax, Self::Waiting];

    const fn index(self) -> usize {
        match self {
            Self::Voicemail => 0,
            Self::Fax => 1,
            Self::Waiting => 2,
        }
    }
}

/// Where "the current station" of a session is.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Station {
    /// Its id; none: the session has no station.
    pub(super) id: Option<String>,
    /// What the client gave, as it is told again.
    pub(super) settings: Value,
}

/// One session of one user.
#[derive(Debug)]
pub(super) struct Session {
    /// A decimal number.
    pub(super) id: String,
    /// Whose.
    pub(super) user: String,
    /// What was known of the user's password when the session was opened: with another, it ends.
    pub(super) password: RefCell<Option<PasswordHash>>,
    cookie: KeyHash,
    csrf: KeyHash,
    last_seen: Cell<Instant>,
    /// Where messages are played.
    pub(super) station: RefCell<Option<Station>>,
    subscribed: RefCell<[bool; 3]>,
    /// The latest message each full message knew of.
    listed: RefCell<[Option<MessageId>; 3]>,
    queue: RefCell<VecDeque<Queued>>,
    /// Deltas were dropped: full messages have to be sent.
    overflowed: Cell<bool>,
    /// Rung when there is something to send, or the stream is to look whether it is still wanted.
    pub(super) changed: Notify,
    /// Counts streams: the latest is the one.
    stream: Cell<u64>,
    has_stream: Cell<bool>,
    ended: Cell<bool>,
}

/// A message that waits.
#[derive(Debug)]
struct Queued {
    message: Value,
    /// A full message of that topic takes its place, unless it tells of a later message than that knew.
    superseded_by: Option<(Topic, Option<MessageId>)>,
}

/// What a client needs to use a session.
pub(super) struct Credentials {
    pub(super) session: Rc<Session>,
    pub(super) cookie: Token,
    pub(super) csrf: Token,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(RefCell<HashMap<String, Rc<Session>>>);

impl Sessions {
    /// Opens a session for a user.
    pub(super) fn open(&self, now: Instant, user: &str, station: Option<Station>) -> Result<Credentials, Fault> {
        let mut sessions = self.0.borrow_mut();
        let own = sessions.values().filter(|session| session.user == user).count();
        if sessions.len() >= SESSIONS_MAX || own >= SESSIONS_OF_USER_MAX {
            return Err(Fault::not_accepting(format!(
                "there are {SESSIONS_MAX} sessions, or {SESSIONS_OF_USER_MAX} of this user: end one with DELETE \
                 /icws/{{sessionId}}/connection, or wait until one expires"
            )));
        }
        let id = loop {
            let id = rand::random_range(1_000_000_000_u64..=9_999_999_999).to_string();
            if !sessions.contains_key(&id) {
                break id;
            }
        };
        let (cookie, csrf) = (Token::random_guid(), Token::random());
        let session = Rc::new(Session {
            id: id.clone(),
            user: user.to_owned(),
            password: RefCell::default(),
            cookie: cookie.hash(),
            csrf: csrf.hash(),
            last_seen: Cell::new(now),
            station: RefCell::new(station),
            subscribed: RefCell::default(),
            listed: RefCell::default(),
            queue: RefCell::default(),
            overflowed: Cell::new(false),
            changed: Notify::new(),
            stream: Cell::new(0),
            has_stream: Cell::new(false),
            ended: Cell::new(false),
        });
        sessions.insert(id, Rc::clone(&session));
        Ok(Credentials { session, cookie, csrf })
    }

    /// The session of that id, if the cookies hold its own. Being asked for keeps it alive.
    pub(super) fn find(&self, now: Instant, id: &str, cookies: &[(&str, &str)]) -> Result<Rc<Session>, Fault> {
        if !cookies.iter().any(|(name, _)| name.starts_with(COOKIE)) {
            return Err(Fault::cookie_missing());
        }
        let session = self.0.borrow().get(id).filter(|session| !session.is_over(now)).cloned();
        let session = session.ok_or_else(Fault::session_unknown)?;
        let own = |name: &str| name.strip_prefix(COOKIE) == Some(id);
        if !cookies.iter().any(|(name, value)| own(name) && KeyHash::of(value) == session.cookie) {
            return Err(Fault::session_unknown());
        }
        session.last_seen.set(now);
        Ok(session)
    }

    /// Ends a session; whether it was there.
    pub(super) fn end(&self, session: &Session) -> bool {
        session.end();
        self.0.borrow_mut().remove(&session.id).is_some()
    }

    /// Takes out those nobody has asked for in time.
    pub(super) fn expire(&self, now: Instant) -> Vec<Rc<Session>> {
        let gone: Vec<_> = self.0.borrow_mut().extract_if(|_, session| session.is_over(now)).collect();
        gone.into_iter().map(|(_, session)| session).inspect(|session| session.end()).collect()
    }

    /// Every session of a user.
    pub(super) fn of_user(&self, user: &str) -> Vec<Rc<Session>> {
        self.0.borrow().values().filter(|session| session.user == user).cloned().collect()
    }

    /// Every session.
    pub(super) fn all(&self) -> Vec<Rc<Session>> {
        self.0.borrow().values().cloned().collect()
    }
}

impl Session {
    /// Whether that is its CSRF token.
    pub(super) fn has_csrf(&self, token: &str) -> bool {
        KeyHash::of(token) == self.csrf
    }

    /// Whether it is told of a topic.
    pub(super) fn is_subscribed(&self, topic: Topic) -> bool {
        self.subscribed.borrow()[topic.index()]
    }

    /// Begins or ends being told of a topic.
    pub(super) fn subscribe(&self, topic: Topic, on: bool) {
        self.subscribed.borrow_mut()[topic.index()] = on;
    }

    /// Queues a message.
    pub(super) fn push(&self, message: Value) {
        self.queue_up(Queued { message, superseded_by: None });
    }

    /// Queues what changed in a topic; `added` is the message it tells of if that is new. What a full message has told
    /// already is not told again.
    pub(super) fn push_delta(&self, topic: Topic, added: Option<MessageId>, message: Value) {
        if added.is_none() || added > self.listed.borrow()[topic.index()] {
            self.queue_up(Queued { message, superseded_by: Some((topic, added)) });
        }
    }

    /// Queues a full message of a topic, which knows of every message up to `latest`. It takes the place of what it
    /// makes needless, so asking for it again and again fills no memory.
    pub(super) fn push_full(&self, topic: Topic, latest: Option<MessageId>, message: Value) {
        self.listed.borrow_mut()[topic.index()] = latest;
        let is_superseded = |queued: &Queued| {
            queued.superseded_by.is_some_and(|(other, added)| other == topic && (added.is_none() || added <= latest))
        };
        self.queue.borrow_mut().retain(|queued| !is_superseded(queued));
        self.queue_up(Queued { message, superseded_by: Some((topic, None)) });
    }

    fn queue_up(&self, queued: Queued) {
        if self.queue.borrow().len() >= QUEUE_MAX {
            self.overflow();
        }
        if !self.overflowed.get() {
            self.queue.borrow_mut().push_back(queued);
        }
        self.changed.notify_waiters();
    }

    /// Drops what is queued: full messages make good what is left out.
    pub(super) fn overflow(&self) {
        self.queue.borrow_mut().clear();
        self.overflowed.set(true);
    }

    /// Takes what is queued. `true`: messages were dropped, full ones have to take their place.
    pub(super) fn take(&self) -> (Vec<Value>, bool) {
        let messages = self.queue.borrow_mut().drain(..).map(|queued| queued.message).collect();
        (messages, self.overflowed.replace(false))
    }

    /// Puts back what was taken and reached nobody.
    pub(super) fn put_back(&self, messages: Vec<Value>) {
        let mut queue = self.queue.borrow_mut();
        for message in messages.into_iter().rev() {
            queue.push_front(Queued { message, superseded_by: None });
        }
        self.changed.notify_waiters();
    }

    /// A new stream of messages begins; the one before ends. Returns its number.
    pub(super) fn begin_stream(&self) -> u64 {
        self.stream.set(self.stream.get() + 1);
        self.has_stream.set(true);
        self.changed.notify_waiters();
        self.stream.get()
    }

    /// A stream has ended.
    pub(super) fn end_stream(&self, now: Instant, number: u64) {
        if self.is_stream(number) {
            self.has_stream.set(false);
            self.last_seen.set(now);
        }
    }

    /// Whether that stream is still the one.
    pub(super) fn is_stream(&self, number: u64) -> bool {
        !self.ended.get() && self.stream.get() == number
    }

    /// Whether messages go to a stream.
    pub(super) fn has_stream(&self) -> bool {
        self.has_stream.get()
    }

    /// Whether it is over.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    fn end(&self) {
        self.ended.set(true);
        self.changed.notify_waiters();
    }

    fn is_over(&self, now: Instant) -> bool {
        !self.has_stream.get() && now.duration_since(self.last_seen.get()) >= LIFETIME
    }
}

/// What the name of a session's cookie begins with; its id follows.
pub(super) const COOKIE: &str = "icws_";
/// How long a session lasts with neither a request nor a stream.
pub(super) const LIFETIME: Duration = Duration::from_secs(300);
/// Sessions at once.
pub(super) const SESSIONS_MAX: usize = 4096;
/// Sessions of one user at once.
pub(super) const SESSIONS_OF_USER_MAX: usize = 64;
/// Messages that wait for one session.
pub(super) const QUEUE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(sessions: &Sessions, now: Instant) -> Credentials {
        sessions.open(now, "anna", None).unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    #[test]
    fn only_its_own_cookie_opens_a_session() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, other) = (open(&sessions, now), open(&sessions, now));
        let names = [&one, &other].map(|it| format!("{COOKIE}{}", it.session.id));
        let find = |cookies: &[(&str, &str)]| sessions.find(now, &one.session.id, cookies);
        assert_eq!(find(&[(&names[0], one.cookie.as_str())]).unwrap().id, one.session.id);
        assert_eq!(find(&[]).unwrap_err(), Fault::cookie_missing());
        assert_eq!(find(&[("theme", "dark")]).unwrap_err(), Fault::cookie_missing());
        assert_eq!(find(&[(&names[1], other.cookie.as_str())]).unwrap_err(), Fault::session_unknown());
        assert_eq!(find(&[(&names[0], other.cookie.as_str())]).unwrap_err(), Fault::session_unknown());
        assert!(one.session.has_csrf(one.csrf.as_str()) && !one.session.has_csrf(other.csrf.as_str()));
    }

    #[test]
    fn a_session_ends_when_nobody_asks_for_it_unless_it_has_a_stream() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let [idle, streaming] = [open(&sessions, now), open(&sessions, now)];
        let number = streaming.session.begin_stream();
        let gone = sessions.expire(now + LIFETIME);
        assert_eq!(gone.iter().map(|session| &session.id).collect::<Vec<_>>(), [&idle.session.id]);
        streaming.session.end_stream(now + LIFETIME, number);
        assert!(sessions.expire(now + 2 * LIFETIME - Duration::from_millis(1)).is_empty());
        assert_eq!(sessions.expire(now + 2 * LIFETIME).len(), 1);
    }

    #[test]
    fn a_full_queue_makes_room_for_full_messages() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let session = open(&sessions, now).session;
        for number in 0..QUEUE_MAX {
            session.push(json!(number));
        }
        assert_eq!(session.take(), ((0..QUEUE_MAX).map(|number| json!(number)).collect(), false));
        for number in 0..=QUEUE_MAX {
            session.push(json!(number));
        }
        assert_eq!(session.take(), (Vec::new(), true));
        session.push(json!(1));
        assert_eq!(session.take(), (vec![json!(1)], false));
    }

    #[test]
    fn sessions_are_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        for _ in 0..SESSIONS_OF_USER_MAX {
            open(&sessions, now);
        }
        assert!(sessions.open(now, "anna", None).is_err());
        assert!(sessions.open(now, "berta", None).is_ok());
    }
}
