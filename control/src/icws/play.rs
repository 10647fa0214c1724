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

use std::rc::Rc;

use serde_json::{Value, json};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::fault::Fault;
use super::session::{Session, Topic};
use super::{CALL_LIMIT, CALL_REST, Icws};
use crate::config::codec_name;
use crate::proto::{ErrorKind, RpcError};
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
    /// Known while it plays.
    operation: Option<String>,
    /// Somebody is stopping it, and tells the end.
    stopping: bool,
}

/// What a station's connection is good for now.
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
        if play.station == station && !play.stopping {
            return Ok(());
        }
        stop(icws, &session.user, message.id).await?;
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
        operation: None,
        stopping: false,
    };
    icws.plays.borrow_mut().insert(message.id, play);
    let begun = begin(icws, message, serial, read, station, property).await;
    begun.inspect_err(|_| drop(take(icws, message.id, serial)))
}

/// Stops a message and tells that it has stopped, whether it was playing or not. Returns from when on that can be heard.
pub(super) async fn stop(icws: &Rc<Icws>, user: &str, id: MessageId) -> Result<Option<Value>, Fault> {
    let play = icws.plays.borrow_mut().get_mut(&id).map(|play| {
        play.stopping = true;
        play.clone()
    });
    let mut effect = None;
    if let Some(Play { serial, connection: Some(connection), operation: Some(operation), .. }) = &play {
        let params = json!({"connection_id": connection, "operation_id": operation, "block": true});
        match icws.native("operation.stop", params).await {
            Ok(mut stopped) => effect = Some(stopped["effect"].take()).filter(|effect| !effect.is_null()),
            Err(error) if is_over(&error) => {}
            Err(error) => {
                let mut plays = icws.plays.borrow_mut();
                // If it has ended meanwhile, there is nothing left to fail.
                if let Some(play) = plays.get_mut(&id).filter(|play| play.serial == *serial) {
                    play.stopping = false;
                    return Err(error.into());
                }
            }
        }
    }
    if let Some(play) = play {
        take(icws, id, play.serial);
    }
    tell(icws, user, id, Status::Stopped);
    Ok(effect)
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
    if let Some(play) = take(icws, id, serial).filter(|play| !play.stopping) {
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

fn hang_up(icws: &Rc<Icws>, connection: String) {
    let icws = Rc::clone(icws);
    spawn_local(async move {
        if let Err(error) = icws.native("connection.delete", json!({"connection_id": connection})).await {
            tracing::debug!(%error, connection, "the connection of a message had ended already");
        }
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
    if let Line::Connected = line(icws, &connection).await? {
        return launch(icws, message, serial, read, &connection, property).await;
    }
    let (icws, message) = (Rc::clone(icws), message.clone());
    spawn_local(async move {
        let called = timeout(CALL_LIMIT, async {
            loop {
                match line(&icws, &connection).await {
                    Ok(Line::Connected) => {
                        return launch(&icws, &message, serial, read, &connection, property).await;
                    }
                    Ok(Line::Calling) => sleep(CALL_REST).await,
                    Err(fault) => return Err(fault),
                }
                if icws.plays.borrow().get(&message.id).is_none_or(|play| play.serial != serial) {
                    return Ok(());
                }
            }
        });
        let failed = match called.await {
            Ok(Ok(())) => return,
            Ok(Err(fault)) => fault.message,
            Err(_) => "the station has not answered".to_owned(),
        };
        tracing::info!(message = %message.id, connection, failed, "a message could not be played");
        end(&icws, message.id, serial);
    });
    Ok(())
}

/// Starts the operation. Whoever stopped the message meanwhile is obeyed.
async fn launch(
    icws: &Rc<Icws>,
    message: &Message,
    serial: u64,
    read: bool,
    connection: &str,
    property: &'static str,
) -> Result<(), Fault> {
    let params = json!({"kind": "play", "connection_id": connection, "files": [message.content.file]});
    let (started, call) = icws.native_call("operation.start", params).await;
    let started = started.map_err(|error| {
        if !matches!(error.kind(), ErrorKind::Busy | ErrorKind::LimitReached) {
            return error.into();
        }
        Fault::invalid(property, format!("nothing more can be played on the station now: {error}"))
    });
    let result = match started {
        Ok(started) => {
            let operation = started["operation_id"].as_str().unwrap_or_default().to_owned();
            let wanted = {
                let mut plays = icws.plays.borrow_mut();
                let play = plays.get_mut(&message.id).filter(|play| play.serial == serial && !play.stopping);
                play.map(|play| play.operation = Some(operation.clone())).is_some()
            };
            if wanted {
                tell(icws, &message.content.mailbox, message.id, Status::Playing);
            } else {
                stop_operation(icws, connection.to_owned(), operation);
            }
            Ok(wanted)
        }
        Err(fault) => Err(fault),
    };
    // Its end is told from now on.
    call.announce();
    if result? {
        icws.set_read(&message.content.mailbox, message.id, read).await?;
    }
    Ok(())
}

fn stop_operation(icws: &Rc<Icws>, connection: String, operation: String) {
    let icws = Rc::clone(icws);
    spawn_local(async move {
        let params = json!({"connection_id": connection, "operation_id": operation});
        if let Err(error) = icws.native("operation.stop", params).await {
            tracing::debug!(%error, operation, "had ended before it could be stopped");
        }
    });
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

async fn line(icws: &Icws, connection: &str) -> Result<Line, Fault> {
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
    icws.publish(user, Topic::Voicemail, |_| {
        json!({
            "__type": "urn:inin.com:unifiedMessaging:voicemailPlayStatusMessage",
            "isDelta": true,
            "unifiedMessageId": id.to_string(),
            "playStatus": status as u8,
        })
    });
}

fn is_over(error: &RpcError) -> bool {
    matches!(error.kind(), ErrorKind::UnknownOperation | ErrorKind::UnknownConnection)
}
