//! Recorded calls from their beginning to their end: which are recorded, what the database learns of them, and what
//! becomes of their files.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ringbridge_media::command::CodecKind;
use ringbridge_media::id::ConnectionId;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::sleep;

use super::{Began, Live, Starting, Verba};
use crate::auth::tokens::random_guid;
use crate::begin::begin;
use crate::config::VerbaConfig;
use crate::events::EventKind;
use crate::methods::{self, Call};
use crate::registry::ConnectionEntry;
use crate::store::StoreError;
use crate::store::recordings::{self, Details, EndReason, Muted, NewRecording, Party, State, comparable};

impl Verba {
    /// Hears of calls and recordings from now on, for as long as somebody holds it.
    pub(super) fn listen(self: &Rc<Self>) {
        let this = Rc::downgrade(self);
        self.server.hub.observe(Box::new(move |kind, params| {
            let Some(verba) = Weak::upgrade(&this) else { return };
            match kind {
                EventKind::CallStarted => verba.call_started(params),
                EventKind::RecordingStarted => verba.recording_started(params),
                EventKind::RecordingMuted => verba.recording_muted(params),
                EventKind::OperationEnded => verba.operation_ended(params),
                EventKind::Digit
                | EventKind::TalkStarted
                | EventKind::TalkStopped
                | EventKind::SpeakerActive
                | EventKind::ConnectionLearned
                | EventKind::ConnectionTimeout
                | EventKind::ConnectionEnded
                | EventKind::ConferenceEnded
                | EventKind::ShardMoved
                | EventKind::ShardFailed
                | EventKind::MediaControl => {}
            }
        }));
    }

    /// Records a call, if there is a rule that says so.
    fn call_started(self: &Rc<Self>, params: &Value) {
        let number = |name: &str| params[name].as_str().unwrap_or_default();
        let parties = [number("caller_number"), number("called_number")];
        let Some(on_demand) = rule(&self.server.config.verba, parties) else { return };
        let (Some(a), Some(b)) = (params["a"].as_str(), params["b"].as_str()) else { return };
        let (a, b) = (a.to_owned(), b.to_owned());
        let id = random_guid();
        let path = format!("verba/{id}.wav");
        self.starting.borrow_mut().insert(path.clone(), Starting { id, on_demand });
        let verba = Rc::clone(self);
        spawn_local(async move {
            let call = Call::in_process(Rc::clone(&verba.server), "the Verba recording rule".into());
            let given = json!({
                "kind": "record", "connection_id": &a, "path": &path, "channels": {"caller": &a, "called": b},
            });
            let started = methods::call(&call, "operation.start", given).await;
            call.announce();
            verba.starting.borrow_mut().remove(&path);
            if let Err(error) = started {
                tracing::warn!(caller = a, %error, "a call that a rule wants recorded is not");
            }
        });
    }

    /// A recording of a call has begun, by a rule or by another interface: from now on it can be found.
    fn recording_started(self: &Rc<Self>, params: &Value) {
        let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
        // By its file, which nobody else can have named: another interface may record the same call at the same time.
        let begun = self.starting.borrow_mut().remove(&text("path"));
        let Starting { id, on_demand } = begun.unwrap_or_else(|| Starting { id: random_guid(), on_demand: false });
        let party = |number: &str, connection: &str| Party {
            address: text(number),
            name: None,
            ip: self.connection(&text(connection), |entry| entry.remote).flatten().map(|ip| ip.to_string()),
        };
        let new = NewRecording {
            id: id.clone(),
            caller: party("caller_number", "caller"),
            called: party("called_number", "called"),
            started_at: Timestamp::now(),
            on_demand,
            conference: false,
            secondary: false,
            do_not_delete: false,
            details: Details {
                platform_call_id: params["call_id"].as_str().map(str::to_owned),
                audio_codec_id: self.audio_codec_id(&text("caller")),
                ..Details::default()
            },
        };
        let began = Arc::new(Began {
            id: id.clone(),
            caller: comparable(&new.caller.address),
            called: comparable(&new.called.address),
        });
        let (operation, path) = (text("operation_id"), text("path"));
        self.by_operation.borrow_mut().insert(operation.clone(), id.clone());
        let live = Rc::new(Live { operation, turn: Mutex::new(()), storing: Mutex::new(()) });
        self.live.borrow_mut().insert(id.clone(), Rc::clone(&live));
        let verba = Rc::clone(self);
        // The store gets it now, and so before the end of the same recording.
        begin(async move {
            let _order = live.storing.lock().await;
            let stored = verba.stored(&id, move |connection| recordings::begin_with_file(connection, &new, &path));
            if stored.await.is_some() {
                // Nobody waits for a call is no error.
                drop(verba.began.send(began));
            }
        });
    }

    /// Does `work` in the database, again and again while that can't be written now: a recording is not forgotten, and
    /// does not go on forever, because a disk was full for a while. `None` if it can't be done at all.
    async fn stored<T, W>(&self, id: &str, work: W) -> Option<T>
    where
        T: Send + 'static,
        W: Fn(&mut Connection) -> Result<T, StoreError> + Clone + Send + 'static,
    {
        let mut pause = AGAIN_FIRST;
        loop {
            let error = match self.server.store.run(work.clone()).await {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            match error {
                StoreError::Busy { .. }
                | StoreError::DiskFull
                | StoreError::ReadOnly
                | StoreError::Locked
                | StoreError::Failed(_) => {
                    // Once: there may be many, for as long as a disk is full.
                    if pause == AGAIN_FIRST {
                        tracing::warn!(id, %error, "what becomes of a recording can't be written; trying again");
                    }
                    sleep(pause).await;
                    pause = AGAIN_MAX.min(pause * 2);
                }
                StoreError::Closed
                | StoreError::Panicked
                | StoreError::NotFound { .. }
                | StoreError::Exists { .. }
                | StoreError::Refused { .. }
                | StoreError::Open { .. }
                | StoreError::Foreign { .. }
                | StoreError::Future { .. }
                | StoreError::Damaged(_) => {
                    tracing::error!(id, %error, "what became of a recording is not in the database");
                    return None;
                }
            }
        }
    }

    /// What the API calls the caller's codec, if it has a number for it.
    fn audio_codec_id(&self, connection: &str) -> Option<u32> {
        match self.connection(connection, |entry| entry.negotiated.rx_codec)? {
            CodecKind::Pcmu => Some(PCMU),
            CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::L16(_)
            | CodecKind::Gsm
            | CodecKind::G723
            | CodecKind::G729
            | CodecKind::Opus => None,
        }
    }

    /// Looks up something about a connection.
    fn connection<T>(&self, id: &str, look: impl FnOnce(&ConnectionEntry) -> T) -> Option<T> {
        self.server.registry.borrow().connection(ConnectionId::parse(id)?).map(look)
    }

    /// Another interface has said who is left out of a recording: that is its state here too.
    fn recording_muted(self: &Rc<Self>, params: &Value) {
        let by = params["by"].as_str().unwrap_or_default().to_owned();
        if by == ORIGIN {
            // Whoever asked here stores it, with the name of the key.
            return;
        }
        let operation = params["operation_id"].as_str().unwrap_or_default();
        let Some(id) = self.by_operation.borrow().get(operation).cloned() else { return };
        let Some(live) = self.live.borrow().get(&id).cloned() else { return };
        let muted = Muted { caller: params["caller"] == true, called: params["called"] == true };
        let (verba, now) = (Rc::clone(self), Timestamp::now());
        // The store gets it now, and so in the order of the answers.
        begin(async move {
            let _order = live.storing.lock().await;
            let wanted = id.clone();
            verba.stored(&id, move |connection| recordings::set_muted(connection, &wanted, muted, &by, now)).await
        });
    }

    fn operation_ended(self: &Rc<Self>, params: &Value) {
        let operation = params["operation_id"].as_str().unwrap_or_default();
        let Some(id) = self.by_operation.borrow_mut().remove(operation) else { return };
        let Some(live) = self.live.borrow_mut().remove(&id) else { return };
        let reason = if params["condition"] == "error" { EndReason::Failed } else { EndReason::Completed };
        let verba = Rc::clone(self);
        begin(async move {
            let _order = live.storing.lock().await;
            let (ended, now) = (id.clone(), Timestamp::now());
            let state = verba.stored(&id, move |connection| recordings::finish(connection, &ended, reason, now)).await;
            if state == Some(State::Discarded) {
                verba.purge(&id).await;
            }
        });
    }

    /// Deletes the files of a recording that was discarded, and then what is known of it.
    pub(super) async fn purge(&self, id: &str) {
        let wanted = id.to_owned();
        let paths = self.server.store.run(move |connection| recordings::files(connection, &wanted)).await;
        let removed = match paths {
            Ok(paths) => {
                let files = self.server.files.clone();
                let removal = move || paths.iter().try_for_each(|path| files.remove_recording(path));
                spawn_blocking(removal).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let forgotten = match removed.map(|removed| removed.map_err(|error| error.to_string())) {
            Ok(Ok(())) => {
                let id = id.to_owned();
                let forgotten = self.server.store.run(move |connection| recordings::forget(connection, &id)).await;
                forgotten.map_err(|error| error.to_string())
            }
            Ok(Err(error)) | Err(error) => Err(error),
        };
        // It stays discarded, and is tried again when the server starts.
        if let Err(error) = forgotten {
            tracing::warn!(id, error, "a discarded recording can't be deleted now");
        }
    }

    /// Deletes what an earlier server left discarded.
    pub(super) async fn purge_all(&self) {
        let left = self.server.store.run(|connection| recordings::discarded(connection, PURGED_MAX)).await;
        for (id, _) in left.unwrap_or_default() {
            self.purge(&id).await;
        }
    }
}

/// Whether a call between these numbers is recorded, and if so, whether on demand only.
fn rule(config: &VerbaConfig, parties: [&str; 2]) -> Option<bool> {
    let parties = parties.map(comparable);
    let matches =
        |numbers: &[String]| numbers.iter().any(|number| number == EVERY_CALL || parties.contains(&comparable(number)));
    if matches(&config.always) { Some(false) } else { matches(&config.on_demand).then_some(true) }
}

/// Who this adapter is to the native interface.
pub(super) const ORIGIN: &str = "the Verba API";
/// `audio_codec_id` of G.711 µ-law.
const PCMU: u32 = 4;
/// Stands for every number in a rule.
const EVERY_CALL: &str = "*";
/// Recordings that are deleted when the server starts; the rest waits for the next start.
const PURGED_MAX: u32 = 10_000;
/// How long after it was refused something is written again, at first.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
/// The same, after many times.
const AGAIN_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::fixture::{call, native, with_verba};
    use super::*;

    #[test]
    fn what_another_interface_records_is_not_on_demand_because_a_rule_records_the_same_call() {
        let rules = VerbaConfig { on_demand: vec!["*".to_owned()], ..VerbaConfig::default() };
        with_verba(rules, async |verba, _| {
            // Begins before the rule's own recording has.
            let told = json!({"operation_id": "theirs", "path": "mine.wav", "caller": "x", "called": "y",
                "caller_number": "1", "called_number": "2"});
            let numbers = json!({"caller_number": "1", "called_number": "2"});
            let [a, _] = call(&verba, numbers, |a| {
                let mut told = told.clone();
                told["caller"] = a.into();
                verba.server.hub.publish(EventKind::RecordingStarted, told);
            })
            .await;
            let by_path = |path: String| {
                let sql = "SELECT on_demand FROM recordings JOIN recording_files ON recording = id WHERE path LIKE ?1";
                let store = verba.server.store.clone();
                async move {
                    let found = store.run(move |connection| {
                        let mut statement = connection.prepare(sql)?;
                        Ok(statement.query_row([path], |row| row.get::<_, bool>(0)).ok())
                    });
                    found.await.unwrap()
                }
            };
            let rule = loop {
                if let Some(on_demand) = by_path("verba/%".to_owned()).await {
                    break on_demand;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!((by_path("mine.wav".to_owned()).await, rule), (Some(false), true), "{a}");
            assert!(verba.starting.borrow().is_empty());
        });
    }

    #[test]
    fn what_the_database_refuses_for_a_while_is_in_it_afterwards() {
        let rules = VerbaConfig { always: vec!["*".to_owned()], ..VerbaConfig::default() };
        with_verba(rules, async |verba, _| {
            let only_read = async |on: bool| {
                let sql = if on { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" };
                verba.server.store.run(move |connection| Ok(connection.execute_batch(sql)?)).await.unwrap();
            };
            only_read(true).await;
            let [a, _] = call(&verba, json!({"caller_number": "1", "called_number": "2"}), |_| {}).await;
            while verba.live.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            native(&verba, "connection.delete", json!({"connection_id": a})).await;
            while !verba.live.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            only_read(false).await;
            let recording = loop {
                let found = verba.server.store.run(|connection| recordings::last(connection, "1")).await.unwrap();
                if let Some(recording) = found {
                    break recording;
                }
                tokio::task::yield_now().await;
            };
            let id = recording.call.id;
            let files = verba.server.store.run(move |connection| recordings::files(connection, &id)).await.unwrap();
            assert!(recording.end.is_some() && files.len() == 1, "{files:?}");
        });
    }

    #[test]
    fn a_rule_is_for_all_calls_or_for_numbers_of_either_side() {
        let config = |always: &[&str], on_demand: &[&str]| VerbaConfig {
            always: always.iter().map(|&text| text.to_owned()).collect(),
            on_demand: on_demand.iter().map(|&text| text.to_owned()).collect(),
            ..VerbaConfig::default()
        };
        let call = ["sip:8856@example.com", "+1 (555) 0100"];
        assert_eq!(rule(&config(&[], &[]), call), None);
        assert_eq!(rule(&config(&["*"], &["*"]), call), Some(false));
        assert_eq!(rule(&config(&["1234"], &["*"]), call), Some(true));
        assert_eq!(rule(&config(&["8856"], &[]), call), Some(false));
        assert_eq!(rule(&config(&[], &["+15550100"]), call), Some(true));
        assert_eq!(rule(&config(&["885"], &["55"]), call), None, "a part of a number is another number");
    }
}
