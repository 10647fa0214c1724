//! Playing messages: `operation.start` and `operation.stop` on the connection of a station, and what is told of it.
//!
//! ```text
//!  play/start ──▶ calling ──▶ starting ──▶ playing ──▶ gone
//!                    │ (the station has an address)  ▲
//!                    └── 30 s, play/stop, or its ────┘ operation.ended, play/stop
//!                        connection has ended
//! ```
//!
//! Every start that got through is told once when playing begins, and each end once, whatever brought it about; each
//! stop besides is told once too.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};

use super::fault::Fault;
use super::session::{Session, Topic};
use super::{CALL_LIMIT, CALL_REST, Icws};
use crate::config::codec_name;
use crate::gate::Gate;
use crate::proto::{ErrorKind, RpcError};
use crate::store::StoreError;
use crate::store::voicemail::{Message, MessageId};

/// A message being played, or about to be.
#[derive(Clone, Debug)]
pub(super) struct Play {
    /// Tells it from an earlier one of the same message.
    serial: u64,
    /// Who hears of it.
    user: String,
    /// The session that started it.
    pub(super) session: String,
    /// Where.
    station: String,
    /// The station's connection, as soon as there is one.
    connection: Option<String>,
    /// Whether that was made for this message, and ends with it.
    own_connection: bool,
    /// Closed while its operation is being started: who wants to stop it has to know which that is.
    launching: Option<Gate>,
    /// Known while it plays.
    operation: Option<String>,
    /// So many are stopping it, and tell the end.
    stopping: u32,
    /// Whether one of them has undertaken it.
    end_told: Rc<Cell<bool>>,
}

/// What a station's connection is good for now.
#[derive(Clone, Copy, Debug)]
enum Line {
    Connected,
    /// Nobody knows yet where its endpoint is.
    Calling,
}

/// Begins to play a message on a station.
pub(super) async fn start(
    icws: &Rc<Icws>,
    session: &Session,
    message: &Message,
    read: bool,
    station: &str,
    property: &'static str,
) -> Result<(), Fault> {
    let known = icws.plays.borrow().get(&message.id).cloned();
    if let Some(play) = known {
        if play.station == station && play.stopping == 0 {
            return Ok(());
        }
        stop_if_playing(icws, message.id).await?;
    }
    if session.has_ended() {
        // Nobody would be left to stop what it plays.
        return Err(Fault::session_unknown());
    }
    let busy = || Fault::invalid(property, format!("another message is being played on station {station}"));
    if icws.plays.borrow().iter().any(|(id, play)| play.station == station || *id == message.id) {
        return Err(busy());
    }
    let serial = icws.next_serial();
    // Its place is taken before anything is waited for.
    let play = Play {
        serial,
        user: session.user.clone(),
        session: session.id.clone(),
        station: station.to_owned(),
        connection: None,
        own_connection: false,
        launching: None,
        operation: None,
        stopping: 0,
        end_told: Rc::default(),
    };
    icws.plays.borrow_mut().insert(message.id, play);
    let begun = begin(icws, message, serial, read, station, property).await;
    begun.inspect_err(|_| drop(take(icws, message.id, serial)))
}

/// Stops a message and tells that it has stopped, whether it was playing or not. Returns from when on that can be heard.
pub(super) async fn stop(icws: &Rc<Icws>, user: &str, id: MessageId) -> Result<Option<Value>, Fault> {
    let effect = halt(icws, id).await?.effect;
    tell(icws, user, id, Status::Stopped);
    Ok(effect)
}

/// Stops a message if it is playing, and tells so unless somebody else who stops it has told.
pub(super) async fn stop_if_playing(icws: &Rc<Icws>, id: MessageId) -> Result<(), Fault> {
    if let Some(user) = halt(icws, id).await?.untold {
        tell(icws, &user, id, Status::Stopped);
    }
    Ok(())
}

/// What came of ending a play.
#[derive(Debug, Default)]
struct Halted {
    /// From when on nothing of it can be heard.
    effect: Option<Value>,
    /// Whose it was, if nobody has undertaken to tell its end yet.
    untold: Option<String>,
}

/// Ends a play, if there is one. Its end is for the caller to tell.
async fn halt(icws: &Rc<Icws>, id: MessageId) -> Result<Halted, Fault> {
    let (serial, user, end_told) = {
        let mut plays = icws.plays.borrow_mut();
        let Some(play) = plays.get_mut(&id) else { return Ok(Halted::default()) };
        play.stopping += 1;
        (play.serial, play.user.clone(), Rc::clone(&play.end_told))
    };
    let look = || icws.plays.borrow().get(&id).filter(|play| play.serial == serial).cloned();
    if let Some(Play { launching: Some(launched), .. }) = look() {
        launched.wait().await;
    }
    let mut effect = None;
    if let Some(Play { connection: Some(connection), operation: Some(operation), .. }) = look() {
        let params = json!({"connection_id": connection, "operation_id": operation, "block": true});
        match icws.native("operation.stop", params).await {
            Ok(mut stopped) => effect = Some(stopped["effect"].take()).filter(|effect| !effect.is_null()),
            Err(error) if is_over(&error) => {}
            Err(error) => {
                let mut plays = icws.plays.borrow_mut();
                // If it has ended meanwhile, there is nothing left to fail.
                if let Some(play) = plays.get_mut(&id).filter(|play| play.serial == serial) {
                    play.stopping -= 1;
                    return Err(error.into());
                }
            }
        }
    }
    take(icws, id, serial);
    Ok(Halted { effect, untold: (!end_told.replace(true)).then_some(user) })
}

/// An operation has ended: if a message was played by it, that is told.
pub(super) fn operation_ended(icws: &Rc<Icws>, operation: &str) {
    let ended = {
        let plays = icws.plays.borrow();
        let mut plays = plays.iter();
        let found = plays.find(|(_, play)| play.operation.as_deref() == Some(operation));
        found.map(|(id, play)| (*id, play.serial))
    };
    if let Some((id, serial)) = ended {
        end(icws, id, serial);
    }
}

/// Takes a play out and tells its end, unless somebody is stopping it, who tells it then.
fn end(icws: &Rc<Icws>, id: MessageId, serial: u64) {
    if let Some(play) = take(icws, id, serial).filter(|play| play.stopping == 0) {
        tell(icws, &play.user, id, Status::Stopped);
    }
}

/// Takes a play out, if it is still that one. What was made for it ends.
fn take(icws: &Rc<Icws>, id: MessageId, serial: u64) -> Option<Play> {
    let play = {
        let mut plays = icws.plays.borrow_mut();
        plays.get(&id).filter(|play| play.serial == serial)?;
        plays.remove(&id)?
    };
    if let Some(connection) = play.connection.clone().filter(|_| play.own_connection) {
        hang_up(icws, connection);
    }
    Some(play)
}

/// Ends a connection that was made for a message. It is nobody's station from now on.
fn hang_up(icws: &Rc<Icws>, connection: String) {
    let icws = Rc::clone(icws);
    icws.hanging_up.borrow_mut().insert(connection.clone());
    spawn_local(async move {
        if let Err(error) = icws.native("connection.delete", json!({"connection_id": connection})).await {
            tracing::debug!(%error, connection, "the connection of a message had ended already");
        }
        icws.hanging_up.borrow_mut().remove(&connection);
    });
}

/// Finds or makes the station's connection, and plays on it as soon as it has an address to send to.
async fn begin(
    icws: &Rc<Icws>,
    message: &Message,
    serial: u64,
    read: bool,
    station: &str,
    property: &'static str,
) -> Result<(), Fault> {
    let file = icws.server.derived.audio_root.join(&message.content.file);
    // Now, and not when the station has answered and nobody waits to be told.
    if !spawn_blocking(move || file.is_file()).await.unwrap_or_default() {
        tracing::warn!(id = %message.id, "a message can't be played: its file is gone");
        return Err(Fault::internal("the file of the message is gone"));
    }
    let (connection, own) = match icws.connection_of(station) {
        Some(connection) => (connection, false),
        None => (connect(icws, station, property).await?, true),
    };
    {
        let mut plays = icws.plays.borrow_mut();
        let Some(play) = plays.get_mut(&message.id).filter(|play| play.serial == serial) else {
            // Stopped while the connection was being made.
            if own {
                hang_up(icws, connection);
            }
            return Ok(());
        };
        (play.connection, play.own_connection) = (Some(connection.clone()), own);
    }
    match line(icws, &connection).await {
        Ok(Line::Connected) => return launch(icws, message, serial, read, &connection, property).await,
        Ok(Line::Calling) => {}
        Err(error) if is_over(&error) => {
            return Err(Fault::invalid(property, format!("the connection of station {station} has just ended")));
        }
        Err(error) => return Err(error.into()),
    }
    let (icws, message) = (Rc::clone(icws), message.clone());
    spawn_local(async move {
        let is_wanted = || icws.plays.borrow().get(&message.id).is_some_and(|play| play.serial == serial);
        let failed = match answered(async || line(&icws, &connection).await, is_wanted).await {
            Called::Answered => match launch(&icws, &message, serial, read, &connection, property).await {
                Ok(()) => return,
                Err(fault) => fault.message,
            },
            Called::Abandoned => return,
            Called::Failed(error) => error.to_string(),
            Called::Unanswered => "the station has not answered".to_owned(),
        };
        tracing::info!(id = %message.id, connection, failed, "a message could not be played");
        end(&icws, message.id, serial);
    });
    Ok(())
}

/// What came of waiting for a station.
#[derive(Debug)]
enum Called {
    Answered,
    /// Nobody wants it any more.
    Abandoned,
    Failed(RpcError),
    Unanswered,
}

/// Waits until a line is connected, for [`CALL_LIMIT`] at most.
async fn answered(mut look: impl AsyncFnMut() -> Result<Line, RpcError>, is_wanted: impl Fn() -> bool) -> Called {
    let called = timeout(CALL_LIMIT, async {
        loop {
            let looked = look().await;
            if !is_wanted() {
                return Called::Abandoned;
            }
            match looked {
                Ok(Line::Connected) => return Called::Answered,
                Ok(Line::Calling) => sleep(CALL_REST).await,
                Err(error) => return Called::Failed(error),
            }
        }
    });
    called.await.unwrap_or(Called::Unanswered)
}

/// Starts the operation, unless the message was stopped meanwhile.
async fn launch(
    icws: &Rc<Icws>,
    message: &Message,
    serial: u64,
    read: bool,
    connection: &str,
    property: &'static str,
) -> Result<(), Fault> {
    let launched = Gate::default();
    {
        let mut plays = icws.plays.borrow_mut();
        let play = plays.get_mut(&message.id).filter(|play| play.serial == serial && play.stopping == 0);
        let Some(play) = play else { return Ok(()) };
        play.launching = Some(launched.clone());
    }
    let params = json!({"kind": "play", "connection_id": connection, "files": [message.content.file]});
    let (started, call) = icws.native_call("operation.start", params).await;
    let mut is_wanted = false;
    if let Ok(started) = &started {
        let operation = started["operation_id"].as_str().unwrap_or_default();
        let mut plays = icws.plays.borrow_mut();
        // Nobody takes it out while it is being launched.
        let play = plays.get_mut(&message.id).filter(|play| play.serial == serial);
        if let Some(play) = play {
            (play.operation, play.launching) = (Some(operation.to_owned()), None);
            is_wanted = play.stopping == 0;
        }
    }
    if is_wanted {
        tell(icws, &message.content.mailbox, message.id, Status::Playing);
    }
    launched.open();
    // Its end is told from now on.
    call.announce();
    if let Err(error) = started {
        if matches!(error.kind(), ErrorKind::Busy | ErrorKind::LimitReached | ErrorKind::UnknownConnection) {
            tracing::info!(id = %message.id, connection, %error, "a message can't be played on a station now");
            let reason = if error.kind() == ErrorKind::Busy {
                "its connection is busy"
            } else if error.kind() == ErrorKind::LimitReached {
                "a limit of the server is reached"
            } else {
                "its connection has just ended"
            };
            return Err(Fault::invalid(property, format!("nothing can be played on the station now: {reason}")));
        }
        return Err(error.into());
    }
    if !is_wanted {
        return Ok(());
    }
    match icws.set_read(&message.content.mailbox, message.id, read).await {
        Ok(()) => {}
        Err(StoreError::NotFound { .. }) => {
            // Deleted meanwhile, by somebody who saw nothing play.
            stop_if_playing(icws, message.id).await?;
        }
        // It is heard all the same.
        Err(error) => tracing::warn!(id = %message.id, %error, "a message that plays can't be marked"),
    }
    Ok(())
}

/// Makes the connection of a station that has none.
async fn connect(icws: &Icws, station: &str, property: &'static str) -> Result<String, Fault> {
    let server = &icws.server;
    let configured = server.config.icws.stations.iter().find(|configured| configured.id == station);
    let Some((configured, remote)) = configured.and_then(|configured| Some((configured, configured.remote?))) else {
        let message = format!(
            "station {station} has no connection now: make one with the label `station:{station}`, or give it a \
             `remote` in the configuration"
        );
        return Err(Fault::invalid(property, message));
    };
    let codec = configured.codec.as_deref().unwrap_or_else(|| codec_name(server.config.rtp.codec));
    let params = json!({"remote": remote.to_string(), "codec": codec, "label": super::label_of(station)});
    let created = icws.native("connection.create", params).await?;
    Ok(created["connection_id"].as_str().unwrap_or_default().to_owned())
}

async fn line(icws: &Icws, connection: &str) -> Result<Line, RpcError> {
    let told = icws.native("connection.get", json!({"connection_id": connection})).await?;
    let known = !told["remote"].is_null() || !told["learned"].is_null();
    Ok(if known && told["reserved"] != true { Line::Connected } else { Line::Calling })
}

#[derive(Clone, Copy)]
enum Status {
    Playing = 0,
    Stopped = 1,
}

fn tell(icws: &Icws, user: &str, id: MessageId, status: Status) {
    icws.each_subscribed(user, Topic::Voicemail, |session| {
        session.push(json!({
            "__type": "urn:inin.com:unifiedMessaging:voicemailPlayStatusMessage",
            "isDelta": true,
            "unifiedMessageId": id.to_string(),
            "playStatus": status as u8,
        }));
    });
}

fn is_over(error: &RpcError) -> bool {
    matches!(error.kind(), ErrorKind::UnknownOperation | ErrorKind::UnknownConnection)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_station_has_half_a_minute_to_answer() {
        let began = Instant::now();
        assert!(matches!(answered(async || Ok(Line::Calling), || true).await, Called::Unanswered));
        assert_eq!(began.elapsed(), CALL_LIMIT);
        assert_eq!(CALL_LIMIT.as_secs(), 30);
        // At the last moment, and then at once.
        let began = Instant::now();
        let late = async || Ok(if began.elapsed() + CALL_REST < CALL_LIMIT { Line::Calling } else { Line::Connected });
        assert!(matches!(answered(late, || true).await, Called::Answered));
        assert!(began.elapsed() < CALL_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_station_nobody_waits_for_is_not_called() {
        let began = Instant::now();
        let is_wanted = || began.elapsed().as_secs() < 10;
        assert!(matches!(answered(async || Ok(Line::Calling), is_wanted).await, Called::Abandoned));
        assert!(began.elapsed() < CALL_LIMIT);
        let gone = async || Err(RpcError::new(ErrorKind::UnknownConnection, "gone"));
        assert!(matches!(answered(gone, || true).await, Called::Failed(error) if is_over(&error)));
    }
}
