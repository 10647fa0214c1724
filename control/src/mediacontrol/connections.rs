//! Reserve, create, modify and delete connections.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use tokio::time::timeout;

use super::codes::{Code, Context, Fault, Reason};
use super::connect::{Given, Outcome, connect};
use super::effect::effect;
use super::ids::{Connection, Ids};
use super::lanes::Turn;
use super::media::{Media, Status, capabilities};
use super::{Cx, Results};
use crate::preparing::PATIENCE;

pub(super) async fn reserve(cx: &Cx) -> Result<Results, Fault> {
    let (engine, media) = (cx.engine()?, Media::read(&cx.params)?);
    cx.resolve(engine)?;
    let reservation = media.without_remote();
    decide(Given::Zero, Given::Absent, reservation.port, Outcome::NewHalf)?;
    let mut create = reservation.create(&cx.routing_guid);
    create["reserve_ms"] = RESERVE_MS.into();
    let (connection, told) = new_connection(cx, create).await?;
    let mut results = reservation.results(cx, connection.id, &told);
    results.insert("LocalMediaCaps".to_owned(), capabilities(cx.mc.native.low_bitrate_free()));
    Ok(results)
}

pub(super) async fn create(cx: &Cx) -> Result<Results, Fault> {
    let (engine, media) = (cx.engine()?, Media::read_required(&cx.params)?);
    let id = cx.params.id("ConnectionId")?;
    let Some(id) = id else {
        media.check_new()?;
        cx.resolve(engine)?;
        decide(Given::Absent, Given::Absent, media.port, Outcome::NewFull)?;
        let (connection, told) = new_connection(cx, media.create(&cx.routing_guid)).await?;
        connection.rtcp_told.set(media.tells_rtcp());
        return Ok(media.results(cx, connection.id, &told));
    };
    cx.resolve(engine)?;
    let connection = cx.connection(&id)?;
    decide(Given::Set, Given::Absent, media.port, Outcome::Complete)?;
    let _turn = connection.lane.turn().await?;
    let status = Status::of(cx, &connection.native).await?;
    if !status.is_reserved() {
        return Err(Fault::new(
            Code::AlreadyConnected,
            format!("connection {id} is complete; ModifyConnection changes it"),
        ));
    }
    complete(cx, &connection, &media, &status).await?;
    Ok(media.results(cx, connection.id, status.value()))
}

pub(super) async fn modify(cx: &Cx) -> Result<Results, Fault> {
    let id = cx.params.required_id("ConnectionId")?;
    let media = Media::read_required(&cx.params)?;
    let connection = cx.connection(&id)?;
    connection.lane.open()?;
    let status = Status::of(cx, &connection.native).await?;
    if status.is_reserved() {
        return Err(not_connected(&id));
    }
    let change = media.change(&status, connection.rtcp_told.get())?;
    let mut results = media.results(cx, connection.id, status.value());
    if change.is_empty() {
        results.insert("ReasonCode".to_owned(), Reason::NoChange.number().to_string().into());
        return Ok(results);
    }
    send_change(cx, &connection, change).await?;
    connection.rtcp_told.set(connection.rtcp_told.get() || media.tells_rtcp());
    Ok(results)
}

pub(super) async fn delete(cx: &Cx) -> Result<Results, Fault> {
    let (connection, conference) = (cx.params.id("ConnectionId")?, cx.params.id("ConferenceId")?);
    match (connection, conference) {
        (None, None) => Err(Fault::parameters("ConnectionId or ConferenceId or both have to be given")),
        (Some(connection), Some(conference)) => take_out(cx, &connection, &conference).await,
        (Some(connection), None) => release(cx, &connection).await,
        (None, Some(conference)) => dissolve(cx, &conference).await,
    }
}

/// Takes a connection out of a conference; it stays, and so do its operations.
pub(super) async fn take_out(cx: &Cx, connection: &str, conference: &str) -> Result<Results, Fault> {
    let connection = cx.connection(connection)?;
    let conference = cx.mc.ids.conference(conference)?;
    connection.lane.open()?;
    let _turn = connection.lane.last_turn().await;
    let params = json!({"connection_id": connection.native, "conference_id": conference.native});
    let told = cx.native("connection.delete", params, Context::Connect).await?;
    Ok(effect(cx, &told, std::slice::from_ref(&connection)))
}

async fn release(cx: &Cx, id: &str) -> Result<Results, Fault> {
    let connection = cx.connection(id)?;
    connection.lane.open()?;
    // Nothing that comes after this is taken; what came before is answered first.
    connection.lane.set_deleting(true);
    let _turn = turn_of_delete(cx, &connection).await;
    let params = json!({"connection_id": connection.native});
    let deleted = cx.native("connection.delete", params, Context::Connect).await;
    if deleted.is_err() {
        connection.lane.set_deleting(false);
    }
    let told = deleted?;
    // Its end is known by its event; should that be late, the id is gone all the same.
    cx.mc.ids.remove_connection(&connection.native, false);
    Ok(effect(cx, &told, std::slice::from_ref(&connection)))
}

/// Waits for what came before, as long as that does not wait itself for a text to be rendered.
async fn turn_of_delete(cx: &Cx, connection: &Connection) -> Turn {
    loop {
        match timeout(PATIENCE, connection.lane.last_turn()).await {
            Ok(turn) => return turn,
            Err(_) => cx.mc.native.give_up(&connection.native),
        }
    }
}

async fn dissolve(cx: &Cx, id: &str) -> Result<Results, Fault> {
    let conference = cx.mc.ids.conference(id)?;
    if conference.deleting.replace(true) {
        return Err(Fault::new(Code::ConnectionBusy, format!("conference {id} is being deleted")));
    }
    let members = members(cx, &conference.native).await.unwrap_or_default();
    for member in &members {
        member.lane.set_deleting(true);
    }
    let mut turns = Vec::new();
    for member in &members {
        turns.push(turn_of_delete(cx, member).await);
    }
    let params = json!({"conference_id": conference.native});
    let deleted = cx.native("connection.delete", params, Context::Connect).await;
    if deleted.is_err() {
        conference.deleting.set(false);
        for member in &members {
            member.lane.set_deleting(false);
        }
    }
    let told = deleted?;
    cx.mc.ids.remove_conference(&conference.native);
    for member in &members {
        cx.mc.ids.remove_connection(&member.native, false);
    }
    Ok(effect(cx, &told, &members))
}

/// The connections in a conference that are known here.
async fn members(cx: &Cx, conference: &str) -> Result<Vec<Rc<Connection>>, Fault> {
    let told = cx.native("conference.get", json!({"conference_id": conference}), Context::Connect).await?;
    let participants = told["participants"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids = participants.iter().filter_map(|participant| participant["connection_id"].as_str());
    Ok(ids.filter_map(|native| cx.mc.ids.connection_of(native)).collect())
}

/// Makes a connection and takes up its id.
pub(super) async fn new_connection(cx: &Cx, create: Value) -> Result<(Rc<Connection>, Value), Fault> {
    let told = cx.native("connection.create", create, Context::Connect).await?;
    let native = told["connection_id"].as_str().unwrap_or_default();
    let connection = cx.mc.ids.add_connection(native, &cx.routing_guid, false);
    Ok((connection, told))
}

/// Completes a reserved connection.
pub(super) async fn complete(cx: &Cx, connection: &Connection, media: &Media, status: &Status) -> Result<(), Fault> {
    let mut change = media.change(status, false)?;
    if let Some((ip, port)) = media.remote {
        // Whatever it was before: this is what completes it.
        change.insert("remote".to_owned(), format!("{ip}:{port}").into());
    }
    send_change(cx, connection, change).await?;
    connection.rtcp_told.set(media.tells_rtcp());
    Ok(())
}

/// Takes a completion back, as `before` it: nothing is left of a call that fails, not even a connection that nobody
/// knows to be complete and that never expires.
pub(super) async fn reserve_again(cx: &Cx, connection: &Connection, before: &Status) {
    let mut params = json!({"connection_id": connection.native, "reserve_ms": RESERVE_MS});
    for member in ["rx_codec", "tx_codec", "ptime_ms", "direction"] {
        params[member] = before.value()[member].clone();
    }
    connection.rtcp_told.set(false);
    let (result, _announce) = cx.mc.native.call("connection.modify", params).await;
    if let Err(error) = result {
        tracing::debug!(%error, connection = connection.id, "a completion could not be taken back: it has gone by itself");
    }
}

async fn send_change(cx: &Cx, connection: &Connection, mut change: Map<String, Value>) -> Result<(), Fault> {
    change.insert("connection_id".to_owned(), connection.native.clone().into());
    cx.native("connection.modify", change.into(), Context::Connect).await.map(drop)
}

/// What a connect request is, which has to be what the action is for.
pub(super) fn decide(connection: Given, conference: Given, port: Given, wanted: Outcome) -> Result<(), Fault> {
    let outcome = connect(connection, conference, port);
    if let Outcome::Refused(code) = outcome {
        return Err(Fault::new(code, "the ids and the port given leave nothing to do"));
    }
    if outcome != wanted {
        return Err(Fault::new(Code::UnexpectedState, format!("{outcome:?} is not what this action does")));
    }
    Ok(())
}

pub(super) fn not_connected(id: &str) -> Fault {
    Fault::new(Code::NotConnected, format!("connection {id} is only reserved; complete it with CreateConnection"))
}

impl Cx {
    /// The RTP connection a client means.
    pub(super) fn connection(&self, id: &str) -> Result<Rc<Connection>, Fault> {
        let connection = self.mc.ids.connection(id)?;
        if connection.utility {
            let message = format!("{id} only stands for an operation on a conference");
            return Err(Fault::new(Code::UnknownConnectionId, message));
        }
        Ok(connection)
    }

    /// Whether two ids are of one engine.
    pub(super) fn one_engine(connection: &str, conference: &str) -> Result<(), Fault> {
        if Ids::engines_differ(connection, conference) {
            return Err(Fault::parameters("all members of a conference are on one engine"));
        }
        Ok(())
    }
}

/// How long a reservation waits to be completed.
const RESERVE_MS: u32 = 300_000;
