//! `conference.*`

use std::rc::Rc;

use ringbridge_media::command::{Command, ConferenceSpec, ParticipantChange, ParticipantSpec, Rate, Role, TalkSpec};
use ringbridge_media::event::{Answer, CommandError, ConnectionState};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::limits::{
    GAIN_DB_MAX, GAIN_DB_MIN, PARTICIPANTS_MAX, SAMPLE_RATE_HZ, TALK_STOP_MS, TALK_STOP_MS_DEFAULT,
};
use ringbridge_shard::mailbox::Lane;
use serde::Deserialize;
use serde_json::{Value, json};

use super::parts;
use super::render::{self, effect_of};
use super::{Call, LABEL_BYTES_MAX, PAGE, conference_id, connection_id, in_length, in_range, shard_id, unexpected};
use crate::proto::{ErrorKind, NoParams, RpcError, params};
use crate::quota::Units;
use crate::router::{Concern, Dispatch};
use crate::tickets::{Key, Ticket};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    label: Option<String>,
    sample_rate_hz: Option<u32>,
    max_participants: Option<u32>,
    shard: Option<u8>,
    hairpin: Option<bool>,
    tones: Option<bool>,
    loudest: Option<u16>,
    talk_events: Option<bool>,
    talk_stop_ms: Option<u16>,
    parts: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Take {
    conference_id: String,
    connection_id: String,
    muted: Option<bool>,
    deaf: Option<bool>,
    gain_db: Option<f64>,
    output_gain_db: Option<f64>,
    agc: Option<bool>,
    noise_suppression: Option<bool>,
    role: Option<RoleName>,
    tariff_tone: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleName {
    Party,
    Monitor,
    Coach,
    Pupil,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Leave {
    conference_id: String,
    connection_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    conference_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    conference_id: String,
    keep_connections: Option<bool>,
}

/// Opens a conference on the shard named, or the one with the most headroom.
pub(super) async fn create(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Create {
        label,
        sample_rate_hz,
        max_participants,
        shard,
        hairpin,
        tones,
        parts,
        loudest,
        talk_events,
        talk_stop_ms,
    } = params(given)?;
    let label = in_length("label", label, LABEL_BYTES_MAX)?;
    let most = u32::try_from(PARTICIPANTS_MAX).unwrap_or(u32::MAX);
    let participants_max = in_range("max_participants", max_participants.unwrap_or(most), 1..=most)?;
    let rate_hz = sample_rate_hz.unwrap_or(SAMPLE_RATE_HZ);
    let rate = Rate::from_hz(rate_hz).ok_or_else(|| {
        RpcError::unsupported(&format!("a sample rate of {rate_hz} Hz (8000, 16000 and 48000 are supported)"))
            .with("param", "sample_rate_hz")
    })?;
    let loudest = loudest.map(|loudest| in_range("loudest", loudest, 1..=LOUDEST_MAX)).transpose()?;
    let stop_ms = talk_stop_ms.unwrap_or(TALK_STOP_MS_DEFAULT);
    let stop_ms = in_range("talk_stop_ms", stop_ms, TALK_STOP_MS.0..=TALK_STOP_MS.1)?;
    let talk = TalkSpec { told: talk_events.unwrap_or(true), stop_ms };
    let hairpin = hairpin.unwrap_or(false);
    let parts = in_range("parts", parts.unwrap_or(1), 0..=parts::PARTS_ASKED_MAX)?;
    if hairpin && parts != 1 {
        return Err(RpcError::invalid_param("parts", "parts: a hairpin has one".to_owned()));
    }
    let server = &call.server;
    let shard = match shard {
        Some(shard) => shard_id(server, shard)?,
        None => server.place(),
    };
    let mix = if hairpin { None } else { Some(server.quota.try_take_mix()?) };
    let id = server
        .registry
        .borrow_mut()
        .add_conference(shard, label, (participants_max, rate), mix)
        .map_err(|full| RpcError::new(ErrorKind::LimitReached, full.to_string()).with("shard", shard.0))?;
    let spec = ConferenceSpec { participants_max, hairpin, tones: tones.unwrap_or(false), rate, loudest, talk };
    let shards = parts::choose_shards(server, shard, parts);
    if shards.len() > 1 {
        parts::open(call, id, spec, &shards).await?;
        return Ok(created(id, &shards));
    }
    let command = Command::CreateConference { id, spec };
    let concern = Concern::Conference(id);
    let sent = server.dispatch(Dispatch { shard, command, received: call.received, concern });
    if sent.is_err() {
        server.registry.borrow_mut().remove_conference(id);
    }
    sent?.answer().await?;
    Ok(created(id, &shards))
}

fn created(id: ConferenceId, shards: &[ShardId]) -> Value {
    let parts: Vec<u8> = shards.iter().map(|shard| shard.0).collect();
    json!({"conference_id": id.to_string(), "shard": shards.first().map(|home| home.0), "shards": parts})
}

/// Puts a connection into a conference; it moves to where the conference lives.
pub(super) async fn join(call: &Call, given: Value) -> Result<Value, RpcError> {
    let given: Take = params(given)?;
    let (conference, connection) = (conference_id(&given.conference_id)?, connection_id(&given.connection_id)?);
    given.check_role()?;
    let participant = ParticipantSpec {
        muted: given.muted.unwrap_or(false),
        deaf: given.deaf.unwrap_or(false),
        gain_db: gain("gain_db", given.gain_db.unwrap_or(0.0))?,
        output_gain_db: gain("output_gain_db", given.output_gain_db.unwrap_or(0.0))?,
        agc: given.agc.unwrap_or(false),
        noise_suppression: given.noise_suppression.unwrap_or(false),
        role: given.role.map_or_else(Role::default, Role::from),
        tariff_tone: given.tariff_tone.unwrap_or(false),
    };
    let ticket = call.ticket(&[Key::Conference(conference), Key::Connection(connection)]);
    ticket.turn().await;
    let spread = call.conference(conference, |entry| entry.spread)?;
    if spread && call.conference(conference, |entry| entry.is_full() && !entry.has_member(connection))? {
        // Its parts don't know of each other's newest members.
        return Err(RpcError::from(CommandError::LimitReached).about("conference_id", conference));
    }
    let shard = call.part_for(conference, Some(connection))?;
    call.bring(connection, shard, Lane::Ordinary).await?;
    let monitor = participant.role == Role::Monitor;
    let (hairpin, promotes) = call.conference(conference, |entry| {
        let crowded = entry.members() >= HAIRPIN_MEMBERS_MAX || is_special(participant.role);
        // What is going to be refused promotes nothing.
        let refused = entry.members() >= entry.participants_max as usize || entry.has_member(connection);
        (entry.hairpin, entry.hairpin && crowded && !refused)
    })?;
    let server = &call.server;
    let unit = if promotes {
        expect_joinable(call, connection, shard).await?;
        promote(call, conference, Some(monitor)).await?
    } else {
        server.registry.borrow().member_unit(conference, monitor, &server.quota)?
    };
    let join = server.registry.borrow_mut().add_member(conference, connection, monitor, unit);
    let command = Command::JoinConference { conference, connection, participant };
    let concern = Concern::Join(conference, join);
    let sent = server.dispatch(Dispatch { shard, command, received: call.received, concern });
    // Who joins a hairpin next has to know how many are in it, and one who wants its role that it has it.
    let ceded = Some(participant.role).filter(|role| spread && is_special(*role));
    let held = (hairpin || ceded.is_some()).then_some(ticket);
    let in_flight = sent.inspect_err(|_| server.registry.borrow_mut().remove_member(conference, join))?;
    let mut answer = in_flight.answer().await.map_err(|error| error.about("conference_id", conference))?;
    if let (Some(role), Answer::Effect(effect)) = (ceded, &mut answer) {
        call.cede(conference, role, shard, effect).await;
    }
    drop(held);
    Ok(json!({"effect": effect_of(&answer)?}))
}

/// Changes how a connection takes part.
pub(super) async fn set(call: &Call, given: Value) -> Result<Value, RpcError> {
    let given: Take = params(given)?;
    let (conference, connection) = (conference_id(&given.conference_id)?, connection_id(&given.connection_id)?);
    given.check_role()?;
    if matches!(given.role, Some(RoleName::Monitor)) {
        let message = "role: to listen outside the mix, leave and join again as monitor";
        return Err(RpcError::invalid_param("role", message));
    }
    let change = ParticipantChange {
        muted: given.muted,
        deaf: given.deaf,
        gain_db: given.gain_db.map(|db| gain("gain_db", db)).transpose()?,
        output_gain_db: given.output_gain_db.map(|db| gain("output_gain_db", db)).transpose()?,
        agc: given.agc,
        noise_suppression: given.noise_suppression,
        role: given.role.map(Role::from),
        tariff_tone: given.tariff_tone,
    };
    let (ticket, shard) = member(call, conference, connection).await?;
    if change.role.is_some_and(is_special) {
        let (hairpin, known) = call.conference(conference, |entry| (entry.hairpin, entry.has_member(connection)))?;
        if hairpin && known {
            promote(call, conference, None).await?;
        }
    }
    let spread = call.conference(conference, |entry| entry.spread)?;
    let ceded = change.role.filter(|role| spread && is_special(*role));
    let command = Command::SetParticipant { conference, connection, change };
    let in_flight = call.server.send(shard, command, call.received)?;
    let held = ceded.is_some().then_some(ticket);
    let mut answer = in_flight.answer().await.map_err(|error| given.name_param(error))?;
    if let (Some(role), Answer::Effect(effect)) = (ceded, &mut answer) {
        call.cede(conference, role, shard, effect).await;
    }
    drop(held);
    Ok(json!({"effect": effect_of(&answer)?}))
}

impl Take {
    /// Refuses what can be known not to go with the role given.
    fn check_role(&self) -> Result<(), RpcError> {
        let wrong = |param, what| Err(RpcError::invalid_param(param, format!("{param}: {what}")));
        match self.role {
            Some(RoleName::Coach | RoleName::Pupil) if self.muted == Some(true) => {
                wrong("muted", "a coach or pupil can't be muted")
            }
            Some(RoleName::Coach) if self.tariff_tone == Some(true) => {
                wrong("tariff_tone", "a coach can't have the tariff tone")
            }
            Some(RoleName::Party | RoleName::Monitor | RoleName::Coach | RoleName::Pupil) | None => Ok(()),
        }
    }

    /// Names the parameter that does not go with the role a participant has.
    fn name_param(&self, error: RpcError) -> RpcError {
        if error.kind() != ErrorKind::InvalidParams {
            return error;
        }
        let params = [("muted", self.muted == Some(true)), ("tariff_tone", self.tariff_tone == Some(true))];
        let param =
            params.into_iter().find(|(_, given)| *given && self.role.is_none()).map_or("role", |(param, _)| param);
        error.with("param", param)
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Party => Self::Party,
            RoleName::Monitor => Self::Monitor,
            RoleName::Coach => Self::Coach,
            RoleName::Pupil => Self::Pupil,
        }
    }
}

/// As many as may be mixed if only the loudest are.
const LOUDEST_MAX: u16 = 1_000;

/// Gain in whole decibels, the grain of the mix; a fraction is rounded.
fn gain(param: &str, gain_db: f64) -> Result<i16, RpcError> {
    let gain_db = in_range(param, gain_db, f64::from(GAIN_DB_MIN)..=f64::from(GAIN_DB_MAX))?;
    #[expect(clippy::cast_possible_truncation, reason = "in a range of i16")]
    Ok(gain_db.round() as i16)
}

/// Takes a connection out of a conference.
pub(super) async fn leave(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Leave { conference_id: conference, connection_id: connection } = params(given)?;
    let (conference, connection) = (conference_id(&conference)?, connection_id(&connection)?);
    Ok(json!({"effect": effect_of(&take_out(call, conference, connection).await?)?}))
}

/// Carries out a `LeaveConference`.
pub(super) async fn take_out(
    call: &Call,
    conference: ConferenceId,
    connection: ConnectionId,
) -> Result<Answer, RpcError> {
    let (ticket, shard) = member(call, conference, connection).await?;
    let hairpin = call.conference(conference, |entry| entry.hairpin)?;
    let command = Command::LeaveConference { conference, connection };
    let concern = Concern::Leave(conference, connection);
    let in_flight = call.server.dispatch(Dispatch { shard, command, received: call.received, concern })?;
    // Who joins a hairpin next has to know how many are in it.
    let held = hairpin.then_some(ticket);
    let answer = in_flight.answer().await;
    drop(held);
    answer
}

/// Makes a mixed conference of a hairpin. The caller keeps the conference's ticket until what needs it is sent, so that
/// nothing comes between. Returns what a newcomer, who may be a monitor, takes of the class `conference`.
pub(super) async fn promote(
    call: &Call,
    id: ConferenceId,
    newcomer: Option<bool>,
) -> Result<Option<Rc<Units>>, RpcError> {
    let server = &call.server;
    let shard = call.conference(id, |entry| entry.shard)?;
    let unit = server.registry.borrow_mut().begin_promotion(id, &server.quota, newcomer)?;
    let command = Command::PromoteConference { id };
    let concern = Concern::Promotion(id);
    let sent = server.dispatch(Dispatch { shard, command, received: call.received, concern });
    let in_flight = sent.inspect_err(|_| server.registry.borrow_mut().end_promotion(id, false))?;
    in_flight.answer().await.map_err(|error| error.about("conference_id", id))?;
    Ok(unit)
}

/// Refuses who can't join a mix, before a hairpin is promoted for it.
async fn expect_joinable(call: &Call, connection: ConnectionId, shard: ShardId) -> Result<(), RpcError> {
    let sent = call.server.send(shard, Command::InspectConnection { id: connection }, call.received)?;
    let answer = sent.answer().await?;
    let Answer::Connection(status) = &answer else { return Err(unexpected(&answer)) };
    if status.reserved {
        return Err(CommandError::NotConnected(connection).into());
    }
    if status.state != ConnectionState::Idle {
        return Err(CommandError::AlreadyJoined(connection).into());
    }
    if !status.rx_codec.is_decodable() || !status.tx_codec.is_decodable() {
        return Err(RpcError::from(CommandError::UnsupportedCodec).about("connection_id", connection));
    }
    Ok(())
}

/// Whether a role needs a mix.
fn is_special(role: Role) -> bool {
    matches!(role, Role::Coach | Role::Pupil)
}

/// Reports one conference.
pub(super) async fn get(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Get { conference_id: id } = params(given)?;
    let id = conference_id(&id)?;
    let ticket = call.ticket(&[Key::Conference(id)]);
    ticket.turn().await;
    let shards = call.shards_of(id)?;
    let sent = call.send_parts(&shards, || Command::InspectConference { id }, Concern::Nothing)?;
    drop(ticket);
    let mut statuses = Vec::with_capacity(shards.len());
    for answer in parts::answers(sent).await? {
        let Answer::Conference(status) = answer else { return Err(unexpected(&answer)) };
        statuses.push(*status);
    }
    let registry = call.server.registry.borrow();
    let mut statuses = parts::merge_statuses(statuses);
    statuses.pop().map(|status| render::conference(&status, &registry)).ok_or_else(|| RpcError::unknown_conference(id))
}

/// Reports every conference of every shard that is up, page by page.
pub(super) async fn list(call: &Call, given: Value) -> Result<Value, RpcError> {
    let NoParams {} = params(given)?;
    let mut conferences = Vec::new();
    for shard in call.server.shard_ids() {
        let mut from = Some(0);
        while let Some(first) = from {
            if !call.server.router.borrow().is_up(shard) {
                break;
            }
            let command = Command::ListConferences { from: first, limit: PAGE };
            let answer = call.server.send(shard, command, call.received)?.answer().await?;
            let Answer::Conferences { page, next } = answer else { return Err(unexpected(&answer)) };
            conferences.extend(page);
            from = next.filter(|next| *next > first);
        }
    }
    let registry = call.server.registry.borrow();
    let conferences: Vec<_> =
        parts::merge_statuses(conferences).iter().map(|status| render::conference(status, &registry)).collect();
    Ok(json!({"conferences": conferences}))
}

/// Ends a conference, with or without its connections.
pub(super) async fn delete(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Delete { conference_id: id, keep_connections } = params(given)?;
    let id = conference_id(&id)?;
    dissolve(call, id, keep_connections.unwrap_or(false)).await
}

/// Carries out a `DeleteConference`.
pub(super) async fn dissolve(call: &Call, id: ConferenceId, keep_connections: bool) -> Result<Value, RpcError> {
    let ticket = call.ticket(&[Key::Conference(id)]);
    call.server.preparing.turn_of_stop(&ticket, Key::Conference(id)).await;
    let shards = call.shards_of(id)?;
    let command = || Command::DeleteConference { id, keep_connections };
    let sent = call.send_parts(&shards, command, Concern::Dissolution(id))?;
    drop(ticket);
    let answer = parts::merge_deleted(parts::answers(sent).await?)?;
    let deleted = call.settle_deleted(&answer, Some(id)).await;
    Ok(json!({"deleted": deleted, "effect": effect_of(&answer)?}))
}

/// Waits for the turn of a command about a participant. Whoever lives on another shard than the conference is none.
async fn member(
    call: &Call,
    conference: ConferenceId,
    connection: ConnectionId,
) -> Result<(Ticket, ShardId), RpcError> {
    let ticket = call.ticket(&[Key::Conference(conference), Key::Connection(connection)]);
    ticket.turn().await;
    let shards = call.shards_of(conference)?;
    let shard = call.connection(connection, |entry| entry.shard)?;
    if !shards.contains(&shard) {
        return Err(CommandError::NotAParticipant(connection).into());
    }
    Ok((ticket, shard))
}

/// Who can be in a hairpin; one more promotes it.
const HAIRPIN_MEMBERS_MAX: usize = 2;
