//! The audit log: one line for each command that came in over an interface, whatever became of it.
//!
//! A structured `tracing` event of target `audit`, level info, always with the same fields, so that it can be routed
//! and searched (`RINGBRIDGE_LOG=warn,audit=info` shows nothing else). What a command of the control socket only asks
//! for is level debug, so that a poller does not flood the log. There is no field a password, token or key belongs in:
//! who asked is a name, what was asked the name of an operation, never an address or a body. Texts from outside are cut
//! and lose their control characters, so nobody writes lines of their own.
//!
//! The line is written at the edge, where the answer is known; which shard did it, and from where on it can be heard,
//! is known only deep below. So an edge carries a command out in a [`scope`], and what shards answer to the task that
//! runs in it, or to what that has begun ([`begin`](crate::begin::begin)), is noted for it.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringbridge_media::event::{Answer, Effect};
use ringbridge_media::id::ShardId;
use serde_json::Value;
use tokio::task::futures::TaskLocalFuture;
use tracing::Level;

/// One command.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Who asked.
    pub who: Who<'a>,
    /// From where; none for the control socket.
    pub from: Option<SocketAddr>,
    /// Through which API.
    pub api: &'static str,
    /// What was asked for: the name of the operation.
    pub what: &'a str,
    /// What it concerned: ids as the API or the registry writes them.
    pub ids: &'a [&'a dyn fmt::Display],
    /// The shard it was carried out on.
    pub shard: Option<ShardId>,
    /// From where on it can be heard.
    pub effect: Option<&'a Effect>,
    /// What was answered.
    pub result: Outcome<'a>,
    /// From the request's arrival to its answer.
    pub took: Duration,
}

/// Who asked for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who<'a> {
    /// Somebody who is not known, or not yet.
    Unknown,
    /// A user of the database, by name.
    User(&'a str),
    /// An agent, by work number.
    Agent(u32),
    /// An application, by the name of its API key.
    Key(&'a str),
    /// A process on this machine, by user id.
    Process(u32),
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<'a> {
    /// Done.
    Done,
    /// Not done, with the code of the API.
    Refused(&'a str),
    /// The client went before it was answered. Part of it may have been done.
    Unanswered,
}

/// What was noted about a command while it was carried out.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Noted {
    /// The shard its effect is on; without any effect the first that was asked.
    pub shard: Option<ShardId>,
    /// The first effect, with one stream at most.
    pub effect: Option<Effect>,
}

/// What a command does, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// It changes something: level info.
    Changes,
    /// It only asks: level debug.
    Asks,
}

/// Writes a line if it is dropped before there is an answer: what is not carried out to its end when its client goes
/// leaves a line all the same.
pub struct Unanswered<F: FnOnce()>(Option<F>);

/// Where notes about the command in progress are taken.
#[derive(Clone, Default, Debug)]
pub(crate) struct Notes(Rc<RefCell<Noted>>);

tokio::task_local! {
    static NOTES: Notes;
}

macro_rules! line {
    ($level:expr, $entry:expr) => {{
        let entry: &Entry<'_> = $entry;
        let stream = entry.effect.and_then(|effect| effect.streams.first());
        tracing::event!(
            target: TARGET,
            $level,
            who = %entry.who,
            from = entry.from.map(tracing::field::display),
            api = entry.api,
            what = %Plain(&entry.what),
            ids = %Ids(entry.ids),
            shard = entry.shard.map(|shard| shard.0),
            effect_ms = entry.effect.map(|effect| effect.media_time_ms),
            effect_rtp_timestamp = stream.map(|stream| stream.rtp_timestamp),
            result = %entry.result,
            // To the microsecond.
            took_ms = (entry.took.as_secs_f64() * 1e6).round() / 1e3,
        )
    }};
}

/// Writes one line.
pub fn record(entry: &Entry<'_>) {
    line!(Level::INFO, entry);
}

/// Writes one line at the level of its weight.
pub fn record_as(weight: Weight, entry: &Entry<'_>) {
    match weight {
        Weight::Changes => record(entry),
        Weight::Asks => line!(Level::DEBUG, entry),
    }
}

/// Whether a line of that weight goes anywhere. Costs next to nothing.
pub fn is_on(weight: Weight) -> bool {
    match weight {
        Weight::Changes => tracing::enabled!(target: TARGET, Level::INFO),
        Weight::Asks => tracing::enabled!(target: TARGET, Level::DEBUG),
    }
}

/// Carries out a command, and tells what was noted meanwhile. Nothing is if no line would go anywhere.
pub async fn scope<T>(work: impl Future<Output = T>) -> (T, Noted) {
    scope_as(Weight::Changes, work).await
}

/// The same for a line of that weight.
pub async fn scope_as<T>(weight: Weight, work: impl Future<Output = T>) -> (T, Noted) {
    if !is_on(weight) {
        return (work.await, Noted::default());
    }
    let notes = Notes::default();
    let result = notes.clone().follow(work).await;
    (result, notes.0.take())
}

/// Notes for the command in progress, if there is one, what a shard has answered.
pub(crate) fn note(shard: ShardId, answer: Option<&Answer>) {
    // Outside any scope nobody wants to know.
    let _ = NOTES.try_with(|notes| {
        let mut noted = notes.0.borrow_mut();
        let effect = answer.and_then(Answer::effect).filter(|_| noted.effect.is_none());
        if let Some(effect) = effect {
            let streams = effect.streams.iter().take(1).copied().collect();
            noted.effect = Some(Effect { streams, ..*effect });
            noted.shard = Some(shard);
        }
        noted.shard.get_or_insert(shard);
    });
}

/// The texts of the ids that a command's parameters, or its result, name; each once.
pub(crate) fn gather_ids(from: &Value, ids: &mut Vec<String>) {
    for name in ID_NAMES {
        let id = match &from[*name] {
            Value::String(id) if !id.is_empty() => id.clone(),
            Value::Number(id) => id.to_string(),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => continue,
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
}

impl<F: FnOnce()> Unanswered<F> {
    /// `write` is called unless the answer comes first.
    pub fn new(write: F) -> Self {
        Self(Some(write))
    }

    /// The answer has come.
    pub fn answered(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Unanswered<F> {
    fn drop(&mut self) {
        if let Some(write) = self.0.take() {
            write();
        }
    }
}

impl<F: FnOnce()> fmt::Debug for Unanswered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unanswered({})", self.0.is_some())
    }
}

impl Notes {
    /// Those of the command in progress.
    pub(crate) fn current() -> Option<Self> {
        NOTES.try_with(Self::clone).ok()
    }

    /// Carries out `work` with these notes.
    pub(crate) fn follow<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        NOTES.scope(self, work)
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::User(name) => write!(f, "user:{}", Plain(name)),
            Self::Agent(work_number) => write!(f, "agent:{work_number}"),
            Self::Key(name) => write!(f, "key:{}", Plain(name)),
            Self::Process(uid) => write!(f, "uid:{uid}"),
        }
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(code) => write!(f, "refused:{}", Plain(code)),
            Self::Unanswered => f.write_str("unanswered"),
        }
    }
}

struct Ids<'a>(&'a [&'a dyn fmt::Display]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, id) in self.0.iter().take(IDS_MAX).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", Plain(id))?;
        }
        if self.0.len() > IDS_MAX {
            write!(f, ",… {} more", self.0.len() - IDS_MAX)?;
        }
        Ok(())
    }
}

/// A text from outside: without what would break a line or pass for another field, and not longer than others.
struct Plain<'a, T: ?Sized>(&'a T);

impl<T: fmt::Display + ?Sized> fmt::Display for Plain<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cut = Cut { to: f, left: CHARS_MAX };
        // The only error of its own is that enough was written.
        match write!(cut, "{}", self.0) {
            Err(_) if cut.left == 0 => f.write_char('…'),
            result => result,
        }
    }
}

struct Cut<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Cut<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.left == 0 {
                return Err(fmt::Error);
            }
            self.left -= 1;
            let breaks = char.is_control() || char.is_whitespace() || matches!(char, '=' | '"' | ',');
            self.to.write_char(if breaks { '_' } else { char })?;
        }
        Ok(())
    }
}

/// The target of the events.
pub const TARGET: &str = "audit";
/// Names under which ids stand in parameters and results.
const ID_NAMES: &[&str] = &[
    "connection_id",
    "conference_id",
    "operation_id",
    "a",
    "b",
    "call_id",
    "ConnectionId",
    "ConferenceId",
    "OperationId",
];
/// Ids of one line.
const IDS_MAX: usize = 32;
/// Characters of one text from outside.
const CHARS_MAX: usize = 128;

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, OnceLock};

    use ringbridge_media::event::{EffectClock, StreamStamp};
    use ringbridge_media::id::ConnectionId;
    use tracing_subscriber::EnvFilter;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(write: impl FnOnce()) -> String {
        captured_at("warn,audit=info", write)
    }

    /// What is logged meanwhile on this thread.
    pub(crate) fn captured_at(filter: &str, write: impl FnOnce()) -> String {
        // With one subscriber alone, whichever thread of the tests is first at an event decides for all whether anybody
        // wants it; with two, both are asked.
        static OTHER: OnceLock<tracing::Dispatch> = OnceLock::new();
        OTHER.get_or_init(|| {
            let filter = EnvFilter::new("audit=trace");
            tracing::Dispatch::new(tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::sink).finish())
        });
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, write);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn entry<'a>() -> Entry<'a> {
        Entry {
            who: Who::Unknown,
            from: None,
            api: "icws",
            what: "connection",
            ids: &[],
            shard: None,
            effect: None,
            result: Outcome::Done,
            took: Duration::from_micros(1500),
        }
    }

    #[test]
    fn a_line_tells_everything() {
        let effect = Effect {
            clock: EffectClock::Conference,
            received_media_time_ms: 990.0,
            media_time_ms: 1000.0,
            streams: vec![StreamStamp {
                connection: ConnectionId::new(ShardId(3), 0, 0),
                ssrc: 1,
                outgoing: true,
                rtp_timestamp: 8000,
                sequence: None,
            }],
        };
        let line = captured(|| {
            tracing::info!("something else");
            record(&Entry {
                who: Who::Agent(101),
                from: Some(([192, 0, 2, 1], 5060).into()),
                api: "agentgateway",
                what: "stopvoicetoconf",
                ids: &[&1_000_001, &"conf-0-0-0"],
                shard: Some(ShardId(3)),
                effect: Some(&effect),
                result: Outcome::Refused("101-002"),
                ..entry()
            });
        });
        assert_eq!(
            line,
            " INFO audit: who=agent:101 from=192.0.2.1:5060 api=\"agentgateway\" what=stopvoicetoconf \
             ids=1000001,conf-0-0-0 shard=3 effect_ms=1000.0 effect_rtp_timestamp=8000 result=refused:101-002 \
             took_ms=1.5\n"
        );
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let line = captured(|| record(&entry()));
        assert_eq!(line, " INFO audit: who=unknown api=\"icws\" what=connection ids= result=done took_ms=1.5\n");
        let line = captured(|| record(&Entry { who: Who::Process(1000), ..entry() }));
        assert!(line.contains("who=uid:1000 "), "{line}");
    }

    #[test]
    fn nobody_writes_lines_of_their_own() {
        let line = captured(|| {
            record(&Entry {
                who: Who::User("eve\n INFO audit: who=user:admin"),
                what: "x\u{1b}[2J\r",
                ids: &[&"a,b", &"c=\"d\""],
                result: Outcome::Refused("a b"),
                ..entry()
            });
        });
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("who=user:eve__INFO_audit:_who_user:admin "), "{line}");
        assert!(line.contains("what=x_[2J_ ids=a_b,c__d_ result=refused:a_b"), "{line}");
    }

    #[test]
    fn lines_are_bounded() {
        let long = "x".repeat(100_000);
        let ids: Vec<&dyn fmt::Display> = vec![&long; 1000];
        let line = captured(|| record(&Entry { who: Who::Key(&long), ids: &ids, ..entry() }));
        assert!(line.len() < 6000, "{}", line.len());
        assert!(line.contains("… 968 more"), "{line}");
    }

    #[test]
    fn secrets_do_not_show_even_where_they_do_not_belong() {
        let token = crate::auth::Token::random();
        let password = crate::auth::Password::new("correct horse battery");
        let line = captured(|| {
            // Neither has a text form but its placeholder.
            let (token, password) = (format!("{token:?}"), format!("{password:?}"));
            record(&Entry { ids: &[&token, &password], ..entry() });
        });
        assert!(!line.contains(token.as_str()) && !line.contains("correct"), "{line}");
    }

    fn effect(media_time_ms: f64, streams: u32) -> Effect {
        let stamp = |ssrc| StreamStamp {
            connection: ConnectionId::new(ShardId(2), 0, 0),
            ssrc,
            outgoing: true,
            rtp_timestamp: 8000,
            sequence: None,
        };
        Effect {
            clock: EffectClock::Conference,
            received_media_time_ms: 0.0,
            media_time_ms,
            streams: (0..streams).map(stamp).collect(),
        }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, work)
    }

    #[test]
    fn what_is_begun_in_a_scope_is_noted_and_nothing_else() {
        let mut noted = Vec::new();
        captured(|| {
            noted = run(async {
                let one = scope(async {
                    note(ShardId(1), Some(&Answer::Done));
                    // The rest of it is a task of its own.
                    let below = crate::begin::begin(async {
                        tokio::task::yield_now().await;
                        note(ShardId(2), Some(&Answer::Effect(Box::new(effect(20.0, 3)))));
                        note(ShardId(3), Some(&Answer::Effect(Box::new(effect(40.0, 1)))));
                    });
                    below.end().await.unwrap();
                });
                let other = scope(async {
                    tokio::task::yield_now().await;
                    note(ShardId(4), None);
                });
                let ((), one_noted) = one.await;
                note(ShardId(5), None);
                let ((), other_noted) = other.await;
                vec![one_noted, other_noted]
            });
        });
        let other = Noted { shard: Some(ShardId(4)), effect: None };
        assert_eq!(noted, [Noted { shard: Some(ShardId(2)), effect: Some(effect(20.0, 1)) }, other]);
    }

    #[test]
    fn nothing_is_noted_for_a_line_that_goes_nowhere() {
        let mut noted = Noted::default();
        let line = captured_at("warn", || {
            noted = run(scope(async { note(ShardId(1), Some(&Answer::Effect(Box::new(effect(20.0, 1))))) })).1;
            record(&entry());
        });
        assert_eq!((line.as_str(), noted), ("", Noted::default()));
    }

    #[test]
    fn who_does_not_wait_for_the_answer_leaves_a_line() {
        let open = || Unanswered::new(|| record(&Entry { result: Outcome::Unanswered, ..entry() }));
        let line = captured(|| drop(open()));
        assert_eq!(line, " INFO audit: who=unknown api=\"icws\" what=connection ids= result=unanswered took_ms=1.5\n");
        assert_eq!(captured(|| open().answered()), "");
    }

    #[test]
    fn what_only_asks_is_told_at_debug() {
        let both = || {
            record_as(Weight::Asks, &Entry { what: "connection.list", ..entry() });
            record_as(Weight::Changes, &Entry { what: "connection.create", ..entry() });
        };
        let line = captured(both);
        assert!(line.lines().count() == 1 && line.contains("what=connection.create"), "{line}");
        let lines = captured_at("audit=debug", both);
        assert!(lines.lines().count() == 2 && lines.starts_with("DEBUG audit: "), "{lines}");
    }
}
