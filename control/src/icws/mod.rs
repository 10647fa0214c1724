//! The ICWS voicemail API: sessions, messaging, mailboxes, and playing a message on a station.
//!
//! ```text
//!  HTTP ──▶ http ──▶ connection │ play │ mailbox ──▶ native methods, database
//!  poll, server-sent events ◀── session queues ◀── mailbox, play ◀── native events
//! ```
//!
//! No media is handled here: a message is played by `operation.start` on the connection of a station and stopped by
//! `operation.stop`, and how that ends is heard from the native events.

mod connection;
mod download;
mod fault;
mod http;
mod mailbox;
pub mod openapi;
mod play;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep};

use crate::auth::{Logins, PasswordHash};
use crate::events::EventKind;
use crate::methods::{self, Call};
use crate::proto::RpcError;
use crate::server::{ServeError, Server};
use crate::store::StoreError;
use crate::store::users::{self, Role, User};
use crate::store::voicemail::{self, Message, MessageId};
use crate::web::{Limits, Listener, Serving};

use self::fault::Fault;
use self::mailbox::{Change, Found, NotTaken};
use self::play::Play;
use self::session::{Session, Sessions, Topic};

/// The adapter.
struct Icws {
    server: Rc<Server>,
    logins: Rc<Logins>,
    sessions: Sessions,
    plays: RefCell<HashMap<MessageId, Play>>,
    /// Connections that were made for a message and are about to end.
    hanging_up: RefCell<HashSet<String>>,
    serials: Cell<u64>,
    /// Files become messages one after the other.
    taking_in: Mutex<()>,
    /// Turns of those who fetch files of messages.
    downloads: Arc<Semaphore>,
}

/// The API at work. It ends when told to, or when this is dropped.
pub struct Running {
    icws: Rc<Icws>,
    serving: Serving,
    upkeep: [JoinHandle<()>; 2],
}

/// Serves the API.
///
/// # Errors
/// The folder messages are dropped into can't be made.
pub async fn start(server: &Rc<Server>, logins: Rc<Logins>, listener: Listener) -> Result<Running, ServeError> {
    let icws = Rc::new(Icws {
        server: Rc::clone(server),
        logins,
        sessions: Sessions::default(),
        plays: RefCell::default(),
        hanging_up: RefCell::default(),
        serials: Cell::new(0),
        taking_in: Mutex::new(()),
        downloads: Arc::new(Semaphore::new(download::DOWNLOADS_MAX)),
    });
    let drop_box = icws.drop_box();
    std::fs::create_dir_all(&drop_box).map_err(|source| ServeError::Directory { path: drop_box, source })?;
    icws.reconcile().await;
    // Recordings the last server left: none is being written yet.
    match icws.users().await {
        Ok(users) => drop(icws.take_in_all(icws.recorded(), &names(&users), Duration::ZERO).await),
        Err(error) => tracing::warn!(%error, "mailboxes are not looked into"),
    }
    let observer = Rc::downgrade(&icws);
    server.hub.observe(Box::new(move |kind, params| {
        if let Some(icws) = observer.upgrade() {
            icws.take_event(kind, params);
        }
    }));
    let upkeep = [spawn_local(Rc::clone(&icws).upkeep()), spawn_local(Rc::clone(&icws).expire())];
    let limits = Limits { body_bytes_max: BODY_BYTES_MAX, ..Limits::default() };
    let serving = listener.serve(http::Http(Rc::clone(&icws)), limits);
    Ok(Running { icws, serving, upkeep })
}

impl Running {
    /// Ends every session, and returns when all has been answered.
    pub async fn stop(&self) {
        self.upkeep.iter().for_each(JoinHandle::abort);
        for session in self.icws.sessions.all() {
            self.icws.sessions.end(&session);
        }
        self.serving.stop().await;
    }
}

impl Icws {
    /// Ends sessions nobody has asked for in time: whatever the disk or the media engine is waiting for.
    async fn expire(self: Rc<Self>) {
        loop {
            for session in self.sessions.expire(Instant::now()) {
                self.leave_later(session);
            }
            sleep(UPKEEP_EVERY).await;
        }
    }

    /// Looks into the drop box, and for users who may not use this API any more, now and then.
    async fn upkeep(self: Rc<Self>) {
        loop {
            let looked = match self.users().await {
                Ok(users) => {
                    self.end_sessions_of_others(&users);
                    self.take_in_all(self.drop_box(), &names(&users), REST).await
                }
                Err(error) => {
                    tracing::warn!(%error, "mailboxes are not looked into");
                    Looked::InTrouble
                }
            };
            sleep(if looked == Looked::InTrouble { TROUBLE_REST } else { UPKEEP_EVERY }).await;
        }
    }

    /// Ends the sessions of who may not use this API any more.
    fn end_sessions_of_others(self: &Rc<Self>, users: &[User]) {
        let allowed: HashMap<&str, &PasswordHash> =
            users.iter().filter(|user| user.has(Role::Icws)).map(|user| (user.name.as_str(), &user.password)).collect();
        for session in self.sessions.all() {
            let is_allowed = allowed
                .get(session.user.as_str())
                .is_some_and(|password| session.password.borrow().as_ref().is_none_or(|before| before == *password));
            if !is_allowed {
                let user = session.user.as_str();
                tracing::info!(user, "a session ends: its user may not use this API any more, or has another password");
                self.sessions.end(&session);
                self.leave_later(session);
            }
        }
    }

    /// Stops what a session that has ended was playing, while others are looked after.
    fn leave_later(self: &Rc<Self>, session: Rc<Session>) {
        let icws = Rc::clone(self);
        spawn_local(async move { icws.leave(&session).await });
    }

    /// Makes good what a crash left between the disk and the database.
    async fn reconcile(&self) {
        let known = match self.server.store.run(|connection| voicemail::files(connection)).await {
            Ok(known) => known,
            Err(error) => return tracing::warn!(%error, "files of messages are not looked after"),
        };
        let audio_root = self.server.derived.audio_root.clone();
        let done = spawn_blocking(move || mailbox::reconcile(&audio_root, &known)).await.unwrap_or_default();
        if done.missing > 0 {
            tracing::warn!(
                messages = done.missing,
                "messages whose file is gone: they are listed, but can't be played"
            );
        }
        if done != mailbox::Reconciled::default() {
            tracing::info!(done.restored, done.removed, done.unknown, "looked after the files of messages");
        }
    }

    /// Stops what a session that has ended was playing.
    async fn leave(self: &Rc<Self>, session: &Session) {
        let left: Vec<MessageId> = {
            let plays = self.plays.borrow();
            plays.iter().filter(|(_, play)| play.session == session.id).map(|(id, _)| *id).collect()
        };
        for id in left {
            if let Err(fault) = play::stop_if_playing(self, id).await {
                tracing::warn!(id = %id, fault.message, "a message goes on playing though its session has ended");
            }
        }
    }

    fn take_event(self: &Rc<Self>, kind: EventKind, params: &Value) {
        if kind != EventKind::OperationEnded {
            return;
        }
        if let Some(operation) = params["operation_id"].as_str() {
            play::operation_ended(self, operation);
        }
        let recording = params["path"].as_str().filter(|_| params["condition"] != "error");
        let found = recording.and_then(|path| mailbox::of_recording(&self.recorded(), path.as_ref()));
        if let Some(found) = found {
            let icws = Rc::clone(self);
            spawn_local(async move {
                match icws.users().await {
                    Ok(users) if names(&users).contains(&found.user) => drop(icws.take_in(found).await),
                    Ok(_) => {
                        tracing::warn!(user = found.user, "a recording in the mailbox of nobody stays where it is");
                    }
                    Err(error) => tracing::warn!(%error, "a recording stays where it is until the next start"),
                }
            });
        }
    }

    /// Where files are dropped.
    fn drop_box(&self) -> PathBuf {
        self.server.derived.state_dir.join(mailbox::DIRECTORY)
    }

    /// Where recordings for mailboxes are.
    fn recorded(&self) -> PathBuf {
        self.server.derived.recording_root.join(mailbox::DIRECTORY)
    }

    async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.server.store.run(|connection| users::list_all(connection)).await
    }

    /// Makes every file in the mailboxes below `root` a message.
    async fn take_in_all(&self, root: PathBuf, users: &HashSet<String>, rest: Duration) -> Looked {
        loop {
            let (root, users) = (root.clone(), users.clone());
            let found = spawn_blocking(move || mailbox::scan(&root, &users, rest)).await.unwrap_or_default();
            let is_all = found.len() < mailbox::FILES_OF_MAILBOX_MAX;
            let mut looked = Looked::Done;
            for found in found {
                if self.take_in(found).await == Looked::InTrouble {
                    // What comes after it may be in better shape.
                    looked = Looked::InTrouble;
                }
            }
            if is_all || looked == Looked::InTrouble {
                return looked;
            }
        }
    }

    /// Makes a file a message: its copy, then its row, then the original goes. A crash in between leaves the original,
    /// which is known again; never a message without a file.
    async fn take_in(&self, found: Found) -> Looked {
        let _turn = self.taking_in.lock().await;
        let audio_root = self.server.derived.audio_root.clone();
        let path = found.path.clone();
        let is_recording = path.starts_with(self.recorded());
        let content = match spawn_blocking(move || mailbox::take_in(&audio_root, &found)).await {
            Ok(Ok(content)) => content,
            Ok(Err(NotTaken::Never(reason))) => {
                tracing::warn!(?path, reason, "a file can't become a message and is put aside");
                return put_aside(path, is_recording).await;
            }
            Ok(Err(NotTaken::NotNow(reason))) => {
                tracing::warn!(?path, reason, "a file can't become a message now");
                return Looked::InTrouble;
            }
            Err(error) => {
                tracing::error!(?path, %error, "a file was not looked at to its end");
                return Looked::InTrouble;
            }
        };
        let row = content.clone();
        let added = self.server.store.run(move |connection| voicemail::add_once(connection, &row)).await;
        let id = match added {
            Ok(id) => id,
            Err(error) => {
                tracing::warn!(?path, %error, "a file can't become a message now");
                remove_file(self.server.derived.audio_root.join(&content.file)).await;
                return Looked::InTrouble;
            }
        };
        let looked = if remove_original(path, is_recording).await { Looked::Done } else { Looked::InTrouble };
        // Else it was one already, and only the original had been left.
        if let Some(id) = id {
            tracing::info!(id = %id, mailbox = content.mailbox, sender = content.sender, "a message has come");
            self.changed(&Change::Added(&Message { id, read: false, content })).await;
        }
        looked
    }

    /// Marks a message as read or unread.
    async fn set_read(&self, user: &str, id: MessageId, read: bool) -> Result<(), StoreError> {
        let mailbox = user.to_owned();
        let changed = self.server.store.run(move |connection| {
            let changed = voicemail::set_read(connection, &mailbox, id, read)?;
            Ok(if changed { voicemail::find(connection, &mailbox, id)? } else { None })
        });
        if let Some(message) = changed.await? {
            self.changed(&Change::Read(&message)).await;
        }
        Ok(())
    }

    /// Deletes a message; it stops if it was playing.
    async fn delete(self: &Rc<Self>, message: &Message) -> Result<(), Fault> {
        let (mailbox, id) = (message.content.mailbox.clone(), message.id);
        play::stop_if_playing(self, id).await?;
        let file = self.server.derived.audio_root.join(&message.content.file);
        let marked = file.clone();
        let is_marked = spawn_blocking(move || mailbox::mark_deleted(&marked)).await.unwrap_or_default();
        let removed = self.server.store.run(move |connection| voicemail::remove(connection, &mailbox, id)).await;
        let is_gone = matches!(removed, Ok(_) | Err(StoreError::NotFound { .. }));
        if is_marked && is_gone {
            // Perhaps somebody else deleted the row: the file goes all the same.
            remove_file(mailbox::deleted(&file)).await;
        } else if is_marked {
            let unmarked = spawn_blocking(move || mailbox::unmark_deleted(&file)).await;
            if !matches!(unmarked, Ok(Ok(()))) {
                tracing::warn!(id = %id, "the file of a message that could not be deleted is back at the next start");
            }
        }
        let removed = removed?;
        // Somebody may have begun to play it meanwhile.
        let stopped = play::stop_if_playing(self, id).await;
        // It is gone whether that went well or not.
        self.changed(&Change::Removed(&removed)).await;
        stopped
    }

    /// Tells everybody subscribed what happened to a message.
    async fn changed(&self, change: &Change<'_>) {
        let (Change::Added(message) | Change::Read(message) | Change::Removed(message)) = change;
        let user = &message.content.mailbox;
        self.each_subscribed(user, change.topic(), |session| {
            session.push_delta(change.topic(), change.added(), mailbox::delta(session, change));
        });
        match self.unread(user).await {
            Ok(unread) => self.each_subscribed(user, Topic::Waiting, |session| {
                session.push(mailbox::all_of(session, Topic::Waiting, &[], unread));
            }),
            Err(error) => tracing::warn!(%error, "how many messages are unread can't be told"),
        }
    }

    /// Queues a full message of a topic.
    async fn tell_all(&self, session: &Session, topic: Topic) -> Result<(), Fault> {
        let user = session.user.clone();
        // In one turn of the database, so that what changes after it is told after it.
        let listed = self.server.store.run(move |connection| {
            let messages = match mailbox::kind_of_topic(topic) {
                Some(kind) => voicemail::list_mailbox(connection, &user, kind, LIST_MAX)?,
                None => Vec::new(),
            };
            Ok((messages, voicemail::unread(connection, &user)?, voicemail::latest(connection)?))
        });
        let (messages, unread, latest) = listed.await?;
        session.push_full(topic, latest, mailbox::all_of(session, topic, &messages, unread));
        Ok(())
    }

    /// What a session is to be sent now.
    async fn take_messages(&self, session: &Session) -> Vec<Value> {
        let (messages, overflowed) = session.take();
        if !overflowed {
            return messages;
        }
        for topic in Topic::ALL.into_iter().filter(|topic| session.is_subscribed(*topic)) {
            if let Err(fault) = self.tell_all(session, topic).await {
                tracing::warn!(fault.message, "a session that was behind can't be brought up to date now");
                // All of it is tried again when it is asked for next.
                session.overflow();
                return Vec::new();
            }
        }
        session.take().0
    }

    async fn unread(&self, user: &str) -> Result<u64, StoreError> {
        let user = user.to_owned();
        self.server.store.run(move |connection| voicemail::unread(connection, &user)).await
    }

    /// Every session of a user that is subscribed.
    fn each_subscribed(&self, user: &str, topic: Topic, tell: impl Fn(&Session)) {
        for session in self.sessions.of_user(user) {
            if session.is_subscribed(topic) {
                tell(&session);
            }
        }
    }

    /// A message of a user, by what a client calls it.
    async fn message(&self, user: &str, text: &str) -> Result<Message, Fault> {
        let unknown = || Fault::invalid(MESSAGE_ID, format!("there is no message {text} in this mailbox"));
        let id: MessageId = text.parse().map_err(|_| unknown())?;
        let user = user.to_owned();
        let found = self.server.store.run(move |connection| voicemail::find(connection, &user, id)).await?;
        found.ok_or_else(unknown)
    }

    /// The station of that id or number.
    async fn station(&self, name: &str) -> Result<Option<String>, Fault> {
        let configured = &self.server.config.icws.stations;
        let is_station =
            |id: &str| configured.iter().any(|station| station.id == id) || self.connection_of(id).is_some();
        if is_station(name) {
            return Ok(Some(name.to_owned()));
        }
        if let Some(station) = configured.iter().find(|station| station.number.as_deref() == Some(name)) {
            return Ok(Some(station.id.clone()));
        }
        let extension = name.to_owned();
        let user = self.server.store.run(move |connection| users::find_by_extension(connection, &extension)).await?;
        Ok(user.and_then(|user| user.station).filter(|station| is_station(station)))
    }

    /// The latest connection of a station.
    fn connection_of(&self, station: &str) -> Option<String> {
        let label = label_of(station);
        let registry = self.server.registry.borrow();
        let ending = self.hanging_up.borrow();
        let labelled = registry.connections().filter(|entry| entry.label.as_deref() == Some(&label));
        let mut labelled: Vec<_> = labelled.map(|entry| (entry.created_at, entry.id.to_string())).collect();
        labelled.retain(|(_, id)| !ending.contains(id));
        labelled.into_iter().max().map(|(_, id)| id)
    }

    /// Calls a native method whose answer opens no gate.
    async fn native(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        let (result, call) = self.native_call(method, params).await;
        call.announce();
        result
    }

    /// Calls a native method; [`Call::announce`] is to be called once its answer was taken up.
    async fn native_call(&self, method: &'static str, params: Value) -> (Result<Value, RpcError>, Call) {
        let call = Call::in_process(Rc::clone(&self.server), "ICWS".into());
        let result = methods::call(&call, method, params).await;
        (result, call)
    }

    fn next_serial(&self) -> u64 {
        self.serials.set(self.serials.get() + 1);
        self.serials.get()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // They would keep the server.
        self.upkeep.iter().for_each(JoinHandle::abort);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("serving", &self.serving).finish_non_exhaustive()
    }
}

/// The label of a station's connection.
fn label_of(station: &str) -> String {
    format!("station:{station}")
}

/// Whether a look into the mailboxes did all there was to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looked {
    Done,
    /// The disk or the database does not let it; it is tried again after a while.
    InTrouble,
}

fn names(users: &[User]) -> HashSet<String> {
    users.iter().map(|user| user.name.clone()).collect()
}

/// Removes a file; whether it is gone.
async fn remove_file(path: PathBuf) -> bool {
    let removed = spawn_blocking(move || std::fs::remove_file(&path).map_err(|error| (path, error))).await;
    if let Ok(Err((path, error))) = &removed {
        tracing::warn!(?path, %error, "a file of a message can't be removed");
    }
    matches!(removed, Ok(Ok(())))
}

/// Removes a file that has become a message, and its manifest; whether it is gone.
async fn remove_original(path: PathBuf, is_recording: bool) -> bool {
    let removed =
        spawn_blocking(move || mailbox::remove_original(&path, is_recording).map_err(|error| (path, error))).await;
    if let Ok(Err((path, error))) = &removed {
        tracing::warn!(?path, %error, "a file that has become a message can't be removed");
    }
    matches!(removed, Ok(Ok(())))
}

async fn put_aside(path: PathBuf, is_recording: bool) -> Looked {
    let put = spawn_blocking(move || mailbox::put_aside(&path, is_recording).map_err(|error| (path, error))).await;
    if let Ok(Err((path, error))) = &put {
        tracing::warn!(?path, %error, "a file can't be put aside");
    }
    if matches!(put, Ok(Ok(()))) { Looked::Done } else { Looked::InTrouble }
}

/// What the features are called, and their versions.
fn features() -> Vec<Value> {
    let features = [("connection", 3), ("messaging", 2), ("unified-messaging", 2)];
    features.map(|(id, version)| json!({"featureId": id, "version": version})).to_vec()
}

#[cfg(test)]
pub(crate) const QUEUE_MAX: usize = session::QUEUE_MAX;
const MESSAGE_ID: &str = "unifiedMessageId";
/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Messages listed in one message, the latest.
pub const LIST_MAX: u32 = 5000;
/// How often the drop box is looked into.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// The same after the disk or the database gave trouble.
pub const TROUBLE_REST: Duration = Duration::from_secs(10);
/// How long nobody has written to a file that is taken in.
pub const REST: Duration = Duration::from_secs(1);
/// How long a station may take to answer.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const CALL_REST: Duration = Duration::from_millis(50);
