//! What the API can do with a call.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read as _};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use hyper::body::Frame;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::Verba;
use super::answer::{Cdr, Code, Fault, Success};
use super::calls::ORIGIN;
use super::http::{Answered, Asked, Client, internal};
use crate::begin::begin;
use crate::methods::{self, Call};
use crate::proto::ErrorKind;
use crate::store::StoreError;
use crate::store::recordings::{self, ForeignId, Muted, Recording, Search, State, comparable};

/// Which call of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Ongoing,
    Next,
    Last,
    OngoingOrNext,
    LastOrOngoing,
}

impl Verba {
    pub(super) async fn act(self: &Rc<Self>, action: &str, asked: &Asked<'_>) -> Result<Answered, Fault> {
        let is = |name: &str| action.eq_ignore_ascii_case(name);
        if is("GetMediaEncoded") {
            return self.media(asked).await.map(Answered::File);
        }
        let success = if is("MuteRecording") {
            self.mute(asked).await
        } else if is("KeepCall") {
            self.keep(asked).await
        } else if is("SearchCalls") {
            self.search(asked).await
        } else if is("GetCallInformation") {
            let recording = self.named(asked, true).await?;
            Ok(Success { calls: vec![cdr(&recording, &asked.zone)], ..Success::default() })
        } else {
            self.delete(asked).await
        };
        success.map(Answered::Envelope)
    }

    async fn mute(self: &Rc<Self>, asked: &Asked<'_>) -> Result<Success, Fault> {
        let wanted = match asked.query.get("mute") {
            None => None,
            Some("0") => Some(Muted { caller: false, called: false }),
            Some("1") => Some(Muted { caller: true, called: false }),
            Some("2") => Some(Muted { caller: false, called: true }),
            Some("3") => Some(Muted { caller: true, called: true }),
            Some(_) => return Err(malformed("mute is 0, 1, 2 or 3.")),
        };
        let recording = self.named(asked, false).await?;
        let Some(wanted) = wanted else { return Ok(muted(recording.muted)) };
        let live = self.live.borrow().get(&recording.call.id).cloned();
        let Some(live) = live.filter(|_| recording.state == State::Ongoing) else { return Err(ended()) };
        let (verba, key) = (Rc::clone(self), asked.key.to_owned());
        let (answer, answered) = oneshot::channel();
        // Once begun it is carried through, whether the client waits for it or not.
        begin(async move {
            let _turn = live.turn.lock().await;
            let channels = match (wanted.caller, wanted.called) {
                (false, false) => "none",
                (true, false) => "caller",
                (false, true) => "called",
                (true, true) => "both",
            };
            let call = Call::in_process(Rc::clone(&verba.server), ORIGIN.into());
            let given = json!({"operation_id": live.operation, "channels": channels});
            let mut muting = pin!(methods::call(&call, "recording.mute", given));
            let (answer, done) = match timeout(CONFIRMED, muting.as_mut()).await {
                Ok(done) => (Some(answer), done),
                Err(_) => {
                    tracing::warn!(operation = live.operation, "a recording did not confirm in time who is muted");
                    // A client that has gone does not mind.
                    let _ = answer.send(Err(Fault(Code::Internal, UNCONFIRMED.to_owned())));
                    // It may still be carried out: then that is the state, and whoever asks is told so.
                    (None, muting.await)
                }
            };
            call.announce();
            let stored = match done {
                Ok(_) => {
                    let (id, now) = (recording.call.id, Timestamp::now());
                    let store = &verba.server.store;
                    let stored = store.run(move |connection| recordings::set_muted(connection, &id, wanted, &key, now));
                    stored.await.map(muted).map_err(|error| of_store(&error))
                }
                Err(error) if error.kind() == ErrorKind::UnknownOperation => Err(ended()),
                Err(error) => Err(internal(&error)),
            };
            if let Some(answer) = answer {
                let _ = answer.send(stored);
            }
        });
        answered.await.unwrap_or_else(|_| Err(internal(&"the server ends")))
    }

    async fn keep(self: &Rc<Self>, asked: &Asked<'_>) -> Result<Success, Fault> {
        let query = asked.query;
        let manual = match query.get("type") {
            None => false,
            Some(kind) if kind.eq_ignore_ascii_case("manualRecord") => true,
            Some(_) => return Err(malformed("type is manualRecord, or not given.")),
        };
        let keep = match query.get("unmark") {
            None | Some("0") => true,
            Some("1") => false,
            Some(_) => return Err(malformed("unmark is 1, or not given.")),
        };
        let id = self.named(asked, false).await?.call.id;
        let kept = id.clone();
        let state = self.server.store.run(move |connection| {
            if manual {
                return recordings::set_manual(connection, &kept, keep).map(|()| State::Finished);
            }
            recordings::set_kept(connection, &kept, keep)
        });
        self.discarded(&id, state.await.map_err(|error| of_store(&error))?).await;
        Ok(Success::default())
    }

    async fn delete(self: &Rc<Self>, asked: &Asked<'_>) -> Result<Success, Fault> {
        let id = self.named(asked, true).await?.call.id;
        let wanted = id.clone();
        let state = self.server.store.run(move |connection| recordings::discard(connection, &wanted)).await;
        self.discarded(&id, state.map_err(|error| of_store(&error))?).await;
        Ok(Success::default())
    }

    /// Deletes the files of a recording nobody wants any more.
    async fn discarded(&self, id: &str, state: State) {
        if state == State::Discarded {
            self.purge(id).await;
        }
    }

    async fn search(&self, asked: &Asked<'_>) -> Result<Success, Fault> {
        let query = asked.query;
        let state = match query.get("status") {
            None => State::Finished,
            Some(status) if status.eq_ignore_ascii_case("recorded") => State::Finished,
            Some(status) if status.eq_ignore_ascii_case("ongoing") => State::Ongoing,
            Some(_) => return Err(malformed("status is ongoing or recorded.")),
        };
        let time = |name: &str| {
            let text = query.get(name).ok_or_else(|| malformed("start and end have to be given."))?;
            time(text, &asked.zone).ok_or_else(|| malformed("start and end are YYYY-MM-DD hh:mm[:ss[.SSS]]."))
        };
        let (from, until) = (time("start")?, time("end")?);
        if until < from {
            return Err(malformed("end is before start."));
        }
        let limit = match query.get("pagelen") {
            None => PAGE,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                limit.ok_or_else(|| malformed("pagelen is 1 to 1000."))?
            }
        };
        let words = |name| query.all(name).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let (numbers, names) = (words("anynum"), words("anyname"));
        if numbers.len() + names.len() > WORDS_MAX {
            return Err(malformed("anynum and anyname may be given 32 times at most."));
        }
        let secondary = query.get("secondary") == Some("1");
        let search = Search { state, from, until, numbers, names, secondary, limit };
        let found = self.server.store.run(move |connection| recordings::search(connection, &search)).await;
        let found = found.map_err(|error| match of_store(&error) {
            // It would take as long every time, but to ask less helps.
            Fault(Code::Failed, text) => Fault(Code::Internal, text),
            fault => fault,
        })?;
        let calls = found.iter().map(|recording| cdr(recording, &asked.zone)).collect();
        Ok(Success { calls, is_list: true, ..Success::default() })
    }

    async fn media(&self, asked: &Asked<'_>) -> Result<Response<Body>, Fault> {
        let query = asked.query;
        let id = query.get("cid").or_else(|| query.get("callID")).ok_or_else(|| malformed("cid has to be given."))?;
        match query.get("format") {
            None => {}
            Some(format) if format.eq_ignore_ascii_case("wav") => {}
            Some(_) => return Err(malformed("format is wav.")),
        }
        let wanted = id.to_owned();
        let found = self.server.store.run(move |connection| {
            let recording = recordings::find(connection, &wanted)?;
            let files = recordings::files(connection, &wanted)?;
            Ok(recording.zip(files.into_iter().next()))
        });
        let (recording, path) = found.await.map_err(|error| of_store(&error))?.ok_or_else(not_found)?;
        asked.found.get_or_init(|| recording.call.id.clone());
        if recording.state == State::Ongoing {
            return Err(failed("The recording has not ended yet."));
        }
        let turn = tokio::select! {
            biased;
            () = asked.client.gone() => return Err(not_found()),
            // It is never closed.
            turn = Arc::clone(&self.downloads).acquire_owned() => turn.map_err(|error| internal(&error))?,
        };
        let files = self.server.files.clone();
        let opened = spawn_blocking(move || files.open_recording(&path)).await.map_err(|error| internal(&error))?;
        let (file, length) = opened.map_err(|error| {
            tracing::warn!(id, %error, "the file of a recording can't be read");
            failed("The file of the recording can't be read.")
        })?;
        let mut response = Response::new(Body::new(FileBody::new(file, turn)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("audio/wav"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// The recording a request names, by id, by a number, or (`foreign`) by what another system calls it.
    async fn named(&self, asked: &Asked<'_>, foreign: bool) -> Result<Recording, Fault> {
        let recording = self.looked_up(asked, foreign).await?;
        asked.found.get_or_init(|| recording.call.id.clone());
        Ok(recording)
    }

    async fn looked_up(&self, asked: &Asked<'_>, foreign: bool) -> Result<Recording, Fault> {
        let query = asked.query;
        if let Some(id) = query.get("callID") {
            return self.by_id(id).await?.ok_or_else(not_found);
        }
        let Some(number) = query.get("extension").or_else(|| query.get("number")) else {
            let names = ["platformCallID", "nativeID", "meetingID"];
            if let Some(name) = names.into_iter().find(|name| foreign && query.get(name).is_some()) {
                return self.by_foreign(name, query.get(name).unwrap_or_default()).await;
            }
            return Err(malformed("callID, or extension and status, have to be given."));
        };
        let status = query.get("status").ok_or_else(|| malformed("status has to be given with extension."))?;
        let which = which(status)
            .ok_or_else(|| malformed("status is ongoing, next, last, \"ongoing, next\" or \"last, ongoing\"."))?;
        let number = comparable(number);
        if number.is_empty() {
            return Err(malformed("extension is empty."));
        }
        match which {
            Which::Ongoing => self.ongoing(&number).await?.ok_or_else(|| self.not_ongoing(&number)),
            Which::Last => self.last(&number).await?.ok_or_else(not_found),
            Which::LastOrOngoing => match self.last(&number).await? {
                Some(recording) => Ok(recording),
                None => self.ongoing(&number).await?.ok_or_else(|| self.not_ongoing(&number)),
            },
            Which::Next => self.next(&number, false, asked.client).await,
            Which::OngoingOrNext => self.next(&number, true, asked.client).await,
        }
    }

    async fn by_id(&self, id: &str) -> Result<Option<Recording>, Fault> {
        let id = id.to_owned();
        let found = self.server.store.run(move |connection| recordings::find(connection, &id)).await;
        found.map_err(|error| of_store(&error))
    }

    async fn by_foreign(&self, name: &'static str, id: &str) -> Result<Recording, Fault> {
        let id = id.to_owned();
        let found = self.server.store.run(move |connection| {
            let id = match name {
                "nativeID" => ForeignId::Native(&id),
                "meetingID" => ForeignId::Meeting(&id),
                _ => ForeignId::PlatformCall(&id),
            };
            recordings::find_foreign(connection, id)
        });
        only(found.await.map_err(|error| of_store(&error))?)?.ok_or_else(not_found)
    }

    async fn ongoing(&self, number: &str) -> Result<Option<Recording>, Fault> {
        let number = number.to_owned();
        let found = self.server.store.run(move |connection| recordings::ongoing(connection, &number)).await;
        only(found.map_err(|error| of_store(&error))?)
    }

    async fn last(&self, number: &str) -> Result<Option<Recording>, Fault> {
        let number = number.to_owned();
        let found = self.server.store.run(move |connection| recordings::last(connection, &number)).await;
        found.map_err(|error| of_store(&error))
    }

    /// Waits for the recording of the next call of a number to begin; with `or_ongoing`, unless one is ongoing.
    /// A client that goes ends its wait.
    pub(super) async fn next(&self, number: &str, or_ongoing: bool, client: &Client) -> Result<Recording, Fault> {
        let deadline = Instant::now() + self.patience;
        let Some(_waiting) = Waiting::enter(&self.waits) else {
            return Err(Fault(Code::Internal, "Too many requests wait for a call; try again later.".to_owned()));
        };
        // Heard from before the look, so that no call falls between the two.
        let mut began = self.began.subscribe();
        if or_ongoing && let Some(recording) = self.ongoing(number).await? {
            return Ok(recording);
        }
        loop {
            let heard = tokio::select! {
                biased;
                () = client.gone() => return Err(not_found()),
                heard = timeout_at(deadline, began.recv()) => heard,
            };
            let call = match heard {
                Ok(Ok(call)) => call,
                // Some were missed: the next one counts.
                Ok(Err(RecvError::Lagged(_))) => continue,
                Ok(Err(RecvError::Closed)) | Err(_) => return Err(not_found()),
            };
            if [&call.caller, &call.called].into_iter().any(|party| party == number) {
                return self.by_id(&call.id).await?.ok_or_else(not_found);
            }
        }
    }

    /// Why there is no ongoing recording of a number: no call, or one that is not recorded.
    fn not_ongoing(&self, number: &str) -> Fault {
        let registry = self.server.registry.borrow();
        let talks = registry.connections().filter_map(|entry| entry.call.as_ref()).any(|call| {
            let numbers = [&call.caller_number, &call.called_number];
            numbers.into_iter().flatten().any(|party| comparable(party) == number)
        });
        if talks { failed("The call is not being recorded.") } else { not_found() }
    }
}

/// A request that waits, as long as this lives.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn enter(waits: &'a Cell<usize>) -> Option<Self> {
        if waits.get() >= WAITS_MAX {
            return None;
        }
        waits.set(waits.get() + 1);
        Some(Self(waits))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A file on its way to a client, read piece by piece by a thread that may wait for the disk.
struct FileBody(mpsc::Receiver<io::Result<Bytes>>);

impl FileBody {
    fn new(mut file: File, turn: OwnedSemaphorePermit) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        spawn_blocking(move || {
            let _turn = turn;
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = file.read(&mut piece).map(|len| {
                    piece.truncate(len);
                    Bytes::from(piece)
                });
                let is_end = read.as_ref().map_or(true, Bytes::is_empty);
                if read.as_ref().is_ok_and(Bytes::is_empty) || sender.blocking_send(read).is_err() || is_end {
                    return;
                }
            }
        });
        Self(receiver)
    }
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn which(status: &str) -> Option<Which> {
    let words: Vec<String> = status.split(',').map(|word| word.trim().to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ongoing"] => Some(Which::Ongoing),
        ["next"] => Some(Which::Next),
        ["last"] => Some(Which::Last),
        ["ongoing", "next"] => Some(Which::OngoingOrNext),
        ["last", "ongoing"] => Some(Which::LastOrOngoing),
        _ => None,
    }
}

/// The one that was found, if there is one at all.
fn only(found: Vec<Recording>) -> Result<Option<Recording>, Fault> {
    if found.len() > 1 {
        return Err(failed("More than one call was found."));
    }
    Ok(found.into_iter().next())
}

/// A time as the API writes it, in that zone.
fn time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-: .".contains(&byte));
    if !plain || !(16..=23).contains(&text.len()) || text.as_bytes().get(10) != Some(&b' ') {
        return None;
    }
    let time: DateTime = text.parse().ok()?;
    time.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
}

/// A recording as it is described. What is not known is left out.
fn cdr(recording: &Recording, zone: &TimeZone) -> Cdr {
    let Recording { call, state, end, kept: _, manual, delete_at_end: _, muted: _ } = recording;
    let details = &call.details;
    let told = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let flag = |set: bool| Some(if set { "1" } else { "0" }.to_owned());
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let fields = [
        ("ccdr_id", Some(call.id.clone())),
        ("native_id", details.native_id.clone()),
        ("platform_call_id", details.platform_call_id.clone()),
        ("location", details.location.clone()),
        ("source_ip", call.caller.ip.clone()),
        ("source_caller_id", Some(call.caller.address.clone())),
        ("source_name", call.caller.name.clone()),
        ("destination_ip", call.called.ip.clone()),
        ("destination_caller_id", Some(call.called.address.clone())),
        ("destination_name", call.called.name.clone()),
        ("start_time", Some(told(call.started_at))),
        ("end_time", end.map(|(at, _)| told(at))),
        ("audio_codec_id", number(details.audio_codec_id)),
        ("direction_id", number(details.direction_id)),
        ("cause_id", number(details.cause_id)),
        ("signaling_id", number(details.signaling_id)),
        ("ondemand", flag(call.on_demand)),
        ("conference", flag(call.conference)),
        ("manual", flag(*manual)),
        ("do_not_delete", flag(call.do_not_delete)),
        ("secondary", flag(call.secondary)),
        ("recorded_party", details.recorded_party.clone()),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    Cdr { state: if *state == State::Ongoing { "0" } else { "1" }, fields: fields.collect() }
}

fn muted(muted: Muted) -> Success {
    let attributes = vec![("callerMuted", muted.caller.to_string()), ("calledMuted", muted.called.to_string())];
    Success { attributes, ..Success::default() }
}

fn malformed(text: &str) -> Fault {
    Fault(Code::Malformed, text.to_owned())
}

fn failed(text: &str) -> Fault {
    Fault(Code::Failed, text.to_owned())
}

fn not_found() -> Fault {
    failed("The call cannot be found.")
}

fn ended() -> Fault {
    failed("The recording has ended.")
}

fn of_store(error: &StoreError) -> Fault {
    match error {
        StoreError::NotFound { .. } => not_found(),
        StoreError::Refused { rule } => {
            let mut rest = rule.chars();
            let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
            failed(&format!("{first}{}.", rest.as_str()))
        }
        StoreError::Busy { .. }
        | StoreError::Closed
        | StoreError::Panicked
        | StoreError::Exists { .. }
        | StoreError::Open { .. }
        | StoreError::Foreign { .. }
        | StoreError::Future { .. }
        | StoreError::DiskFull
        | StoreError::ReadOnly
        | StoreError::Locked
        | StoreError::Damaged(_)
        | StoreError::Failed(_) => internal(error),
    }
}

/// Calls of one answer, unless it is said otherwise.
const PAGE: u32 = 100;
/// Calls of one answer.
const PAGE_MAX: u32 = 1000;
/// Parts of numbers and names of one search.
const WORDS_MAX: usize = 32;
/// Requests that wait for a call at a time.
const WAITS_MAX: usize = 1000;
/// How long a recording may take to confirm that it is muted.
const CONFIRMED: Duration = Duration::from_secs(2);
/// What is answered then.
const UNCONFIRMED: &str = "The recorder did not confirm in time; ask who is muted.";
/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are read ahead of the client.
const PIECES_AHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;

    use tokio::sync::watch;
    use tokio::task::yield_now;

    use super::super::fixture::{call, native, with_verba};
    use super::super::query::Query;
    use super::*;
    use crate::config::VerbaConfig;

    #[test]
    fn a_wait_ends_after_a_minute_and_a_mute_nobody_confirms_after_two_seconds() {
        let rules = VerbaConfig { always: vec!["8856".to_owned()], ..VerbaConfig::default() };
        with_verba(rules, async |verba, world| {
            let [a, _] = call(&verba, json!({"caller_number": "1", "called_number": "8856"}), |_| {}).await;
            let recording = loop {
                if let Some(recording) = verba.ongoing("1").await.unwrap() {
                    break recording;
                }
                yield_now().await;
            };
            // The shard answers nothing any more, and time passes by itself.
            world.hold(0);
            tokio::time::pause();
            let begun = Instant::now();
            let query = Query::parse(&format!("callID={}&mute=1", recording.call.id), b"").unwrap();
            let (_there, client) = watch::channel(());
            let (client, found) = (Client(client), OnceCell::new());
            let asked = Asked { query: &query, key: "crm", zone: TimeZone::UTC, client: &client, found: &found };
            let Err(Fault(code, _)) = verba.mute(&asked).await else { panic!("confirmed by nobody") };
            assert_eq!(code, Code::Internal);
            assert!(begun.elapsed() >= CONFIRMED);
            let begun = Instant::now();
            assert_eq!(
                verba.next("1", false, &client).await.unwrap_err(),
                not_found(),
                "a call that goes on is not the next"
            );
            assert!((59..=61).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
            assert_eq!(verba.waits.get(), 0);
            // It was carried out after all, and is told so.
            tokio::time::resume();
            world.release(0);
            while !verba.by_id(&recording.call.id).await.unwrap().unwrap().muted.caller {
                // What wakes the shard.
                native(&verba, "connection.get", json!({"connection_id": a})).await;
            }
        });
    }

    #[test]
    fn five_kinds_of_status() {
        let all = ["ongoing", "NEXT", "last", "ongoing,next", "last , ongoing"].map(which);
        let expected = [Which::Ongoing, Which::Next, Which::Last, Which::OngoingOrNext, Which::LastOrOngoing];
        assert_eq!(all, expected.map(Some));
        for other in ["", "next, ongoing", "ongoing, last", "last, next", "ongoing, ongoing", "all", "ongoing,"] {
            assert_eq!(which(other), None, "{other}");
        }
    }

    #[test]
    fn times_have_one_form() {
        let utc = |text| time(text, &TimeZone::UTC).map(|at| at.to_string());
        assert_eq!(utc("2026-11-21 13:05").as_deref(), Some("2026-11-21T13:05:00Z"));
        assert_eq!(utc("2026-11-21 13:05:07.250").as_deref(), Some("2026-11-21T13:05:07.25Z"));
        for other in
            ["2026-11-21", "2026-11-21T13:05", "2026-13-21 13:05", "2026-11-21 25:00", "now", "2026-11-21 13:05+01"]
        {
            assert_eq!(utc(other), None, "{other}");
        }
    }
}
