//! Conferences and how connections take part in them.

use std::rc::Rc;

use serde_json::{Value, json};

use super::codes::{Code, Context, Fault};
use super::connect::{Given, Outcome, connect};
use super::connections::{complete, new_connection, not_connected, reserve_again, take_out};
use super::effect::effect;
use super::ids::{Conference, Connection};
use super::media::{Media, Status};
use super::{Cx, Results};

/// How somebody takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Part {
    role: Option<&'static str>,
    muted: bool,
    tariff_tone: bool,
}

/// The conference a connection comes into.
enum Entry {
    New { hairpin: bool, tones: bool },
    Old(String),
}

pub(super) async fn create(cx: &Cx) -> Result<Results, Fault> {
    let engine = cx.engine()?;
    let into = Entry::New { hairpin: flag(cx, "Hairpin", true)?, tones: flag(cx, "SoundToneOnJoin", true)? };
    connect_into(cx, engine, into).await
}

pub(super) async fn join(cx: &Cx) -> Result<Results, Fault> {
    let id = cx.params.required("ConferenceId")?;
    // Zero is "create new".
    let into = if cx.params.id("ConferenceId")?.is_none() {
        Entry::New { hairpin: flag(cx, "Hairpin", true)?, tones: true }
    } else {
        Entry::Old(id)
    };
    connect_into(cx, None, into).await
}

async fn connect_into(cx: &Cx, engine: Option<u8>, into: Entry) -> Result<Results, Fault> {
    let id = cx.params.id("ConnectionId")?;
    let (part, media) = (part(cx)?, Media::read(&cx.params)?);
    let given = if id.is_some() { Given::Set } else { Given::Absent };
    let conference = match &into {
        Entry::New { .. } => Given::Zero,
        Entry::Old(_) => Given::Set,
    };
    let outcome = connect(given, conference, media.port);
    if let Outcome::Refused(code) = outcome {
        let message = "give a ConnectionId, or MediaTxIP and MediaTxPort for a new connection, or all of them";
        return Err(Fault::new(code, message));
    }
    if let (Some(id), Entry::Old(conference)) = (&id, &into) {
        Cx::one_engine(id, conference)?;
    }
    cx.resolve(engine)?;
    let Some(id) = id else {
        media.check_new()?;
        let conference = conference_of(cx, &into)?;
        let mut create = media.create(&cx.routing_guid);
        if let Some(conference) = &conference {
            create["conference_id"] = conference.native.clone().into();
        }
        let (connection, told) = new_connection(cx, create).await?;
        connection.rtcp_told.set(media.tells_rtcp());
        let joined = enter(cx, &connection, &into, conference, part, &told["shard"]).await;
        let conference = match joined {
            Ok(conference) => conference,
            Err(fault) => {
                // Nothing is left of a call that fails.
                give_up_connection(cx, &connection).await;
                return Err(fault);
            }
        };
        return Ok(results(cx, &media, &connection, &conference, &told));
    };
    let connection = cx.connection(&id)?;
    let conference = conference_of(cx, &into)?;
    let _turn = connection.lane.turn().await?;
    let status = Status::of(cx, &connection.native).await?;
    let completes = match (status.is_reserved(), media.remote.is_some()) {
        (true, false) => return Err(not_connected(&id)),
        (true, true) => true,
        (false, true) if !media.is_at(&status) => {
            let message = format!("connection {id} is complete; ModifyConnection changes its address");
            return Err(Fault::new(Code::AlreadyConnected, message));
        }
        (false, true | false) => false,
    };
    if status.is_in_conference() {
        return Err(Fault::new(Code::AlreadyConnected, format!("connection {id} is in a conference already")));
    }
    if status.runs_operations() {
        return Err(Fault::new(Code::ConnectionBusy, format!("an operation runs on connection {id}: stop it first")));
    }
    if completes {
        complete(cx, &connection, &media, &status).await?;
    }
    let entered = enter(cx, &connection, &into, conference, part, &status.value()["shard"]).await;
    if entered.is_err() && completes {
        reserve_again(cx, &connection, &status).await;
    }
    Ok(results(cx, &media, &connection, &*entered?, status.value()))
}

/// Lets a connection join, after making the conference if it is to be new.
async fn enter(
    cx: &Cx,
    connection: &Connection,
    into: &Entry,
    conference: Option<Rc<Conference>>,
    part: Part,
    shard: &Value,
) -> Result<Rc<Conference>, Fault> {
    let (conference, made) = match (conference, into) {
        (Some(conference), _) => (conference, false),
        (None, Entry::New { hairpin, tones }) => {
            // Where its first participant is, so that nothing has to move.
            let mut create = json!({"hairpin": hairpin, "tones": tones});
            if !shard.is_null() {
                create["shard"] = shard.clone();
            }
            // A conference needs no free connection slot, so a full table is a resource that is missing.
            let told = cx.native("conference.create", create, Context::Operation).await?;
            (cx.mc.ids.add_conference(told["conference_id"].as_str().unwrap_or_default()), true)
        }
        (None, Entry::Old(id)) => (cx.mc.ids.conference(id)?, false),
    };
    let mut params = json!({
        "conference_id": conference.native,
        "connection_id": connection.native,
        "muted": part.muted,
        "tariff_tone": part.tariff_tone,
    });
    if let Some(role) = part.role {
        params["role"] = role.into();
    }
    let joined = cx.native("conference.join", params, Context::Operation).await;
    if joined.is_err() && made {
        let params = json!({"conference_id": conference.native, "keep_connections": true});
        if let (Err(error), _announce) = cx.mc.native.call("conference.delete", params).await {
            tracing::debug!(%error, "the conference nobody could join has gone by itself");
        }
        cx.mc.ids.remove_conference(&conference.native);
    }
    joined?;
    Ok(conference)
}

async fn give_up_connection(cx: &Cx, connection: &Connection) {
    if let (Err(error), _announce) =
        cx.mc.native.call("connection.delete", json!({"connection_id": connection.native})).await
    {
        tracing::debug!(%error, "the connection that could not join has gone by itself");
    }
    cx.mc.ids.remove_connection(&connection.native, false);
}

fn conference_of(cx: &Cx, into: &Entry) -> Result<Option<Rc<Conference>>, Fault> {
    match into {
        Entry::New { .. } => Ok(None),
        Entry::Old(id) => {
            let conference = cx.mc.ids.conference(id)?;
            if conference.deleting.get() {
                return Err(Fault::new(Code::ConnectionBusy, format!("conference {id} is being deleted")));
            }
            Ok(Some(conference))
        }
    }
}

fn results(cx: &Cx, media: &Media, connection: &Connection, conference: &Conference, told: &Value) -> Results {
    let mut results = media.results(cx, connection.id, told);
    results.insert("ConferenceId".to_owned(), conference.id.to_string().into());
    results
}

/// How the connection is to take part. Who would be coach and pupil is neither; a coach is nothing else, and a pupil
/// may only have the tariff tone.
fn part(cx: &Cx) -> Result<Part, Fault> {
    let (coach, pupil) = (flag(cx, "Coach", false)?, flag(cx, "Pupil", false)?);
    let (monitor, muted) = (flag(cx, "Monitor", false)?, flag(cx, "ReceiveOnly", false)?);
    let tariff_tone = flag(cx, "TariffTone", false)?;
    Ok(match (coach, pupil) {
        (true, false) => Part { role: Some("coach"), muted: false, tariff_tone: false },
        (false, true) => Part { role: Some("pupil"), muted: false, tariff_tone },
        (both, _) => {
            if both {
                tracing::warn!(action = cx.action.name, "nobody is coach and pupil: both are ignored");
            }
            // A monitor is not heard anyway.
            Part { role: monitor.then_some("monitor"), muted: muted && !monitor, tariff_tone }
        }
    })
}

pub(super) async fn leave(cx: &Cx) -> Result<Results, Fault> {
    let connection = cx.params.required_id("ConnectionId")?;
    let conference = cx.params.required_id("ConferenceId")?;
    take_out(cx, &connection, &conference).await
}

pub(super) async fn set_attribute(cx: &Cx) -> Result<Results, Fault> {
    let connection = cx.params.required_id("ConnectionId")?;
    let conference = cx.params.required_id("ConferenceId")?;
    let (muted, tariff_tone) = (cx.params.boolean("Mute")?, cx.params.boolean("TariffTone")?);
    let (coach, pupil) = (cx.params.boolean("Coach")?, cx.params.boolean("Pupil")?);
    if muted.or(tariff_tone).or(coach).or(pupil).is_none() {
        return Err(Fault::parameters("at least one of Mute, TariffTone, Coach and Pupil has to be given"));
    }
    Cx::one_engine(&connection, &conference)?;
    let connection = cx.connection(&connection)?;
    let conference = cx.mc.ids.conference(&conference)?;
    let _turn = connection.lane.turn().await?;
    let mut params = json!({"conference_id": conference.native, "connection_id": connection.native});
    if let Some(muted) = muted {
        params["muted"] = muted.into();
    }
    if let Some(tariff_tone) = tariff_tone {
        params["tariff_tone"] = tariff_tone.into();
    }
    if coach.is_some() || pupil.is_some() {
        let now = role(cx, &conference, &connection).await?;
        // In this order: who is made coach and then pupil is the pupil.
        let mut then = now.as_str();
        for (given, name) in [(coach, "coach"), (pupil, "pupil")] {
            match given {
                Some(true) => then = name,
                Some(false) if then == name => then = "party",
                Some(false) | None => {}
            }
        }
        if then != now {
            params["role"] = then.into();
        }
    }
    // One native command: all of it or nothing.
    let told = cx.native("conference.set", params, Context::Attribute).await?;
    Ok(effect(cx, &told, &[]))
}

pub(super) async fn mute(cx: &Cx, muted: bool) -> Result<Results, Fault> {
    let connection = cx.params.required_id("ConnectionId")?;
    let conference = cx.params.required_id("ConferenceId")?;
    let connection = cx.connection(&connection)?;
    let conference = cx.mc.ids.conference(&conference)?;
    let _turn = connection.lane.turn().await?;
    let params = json!({"conference_id": conference.native, "connection_id": connection.native, "muted": muted});
    let told = cx.native("conference.set", params, Context::Attribute).await?;
    Ok(effect(cx, &told, &[]))
}

async fn role(cx: &Cx, conference: &Conference, connection: &Connection) -> Result<String, Fault> {
    let told = cx.native("conference.get", json!({"conference_id": conference.native}), Context::Connect).await?;
    let participants = told["participants"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = participants.iter().find(|participant| participant["connection_id"] == connection.native.as_str());
    let own = own.ok_or_else(|| {
        let message = format!("connection {} is not in conference {}", connection.id, conference.id);
        Fault::new(Code::UnknownConferenceId, message)
    })?;
    Ok(own["role"].as_str().unwrap_or("party").to_owned())
}

fn flag(cx: &Cx, name: &str, default: bool) -> Result<bool, Fault> {
    Ok(cx.params.boolean(name)?.unwrap_or(default))
}
