//! The operations of the agentconf family.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use ringbridge_media::command::Rate;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;

use super::announce::{Place, Purpose};
use super::codes::{Code, Done, Fault, cause};
use super::conference::{Change, Conference, Participant, Reason, Stage, State};
use super::effect::Effect;
use super::params::{ADDRESS_BYTES_MAX, Address, Params};
use super::session::Session;
use super::{Gateway, voice};
use crate::gate::Gate;
use crate::store::agents::{WORK_NUMBER_MAX, WORK_NUMBER_MIN};

macro_rules! operations {
    ($($name:ident = $text:literal, $body:literal, $note:literal;)*) => {
        /// Every operation of the family.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(super) enum Operation {
            $($name,)*
        }

        impl Operation {
            /// Every operation, in the order of the documentation.
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            /// As it stands in the address.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether its body is read.
            pub(super) const fn has_body(self) -> bool {
                match self { $(Self::$name => $body,)* }
            }

            /// What it does.
            pub(super) const fn summary(self) -> &'static str {
                match self { $(Self::$name => $note,)* }
            }
        }
    };
}

operations! {
    Request = "requestagentconf", true, "Starts a conference; the caller becomes its chair.";
    Answer = "answeragentconf", false, "Takes an invitation.";
    Reject = "rejectagentconf", false, "Refuses an invitation.";
    Leave = "requestleaveagentconf", false, "Leaves the conference. Not for the chair.";
    Release = "releaseagentconf", false, "Ends the conference for everybody.";
    Add = "batchaddparticipant", true, "Invites participants.";
    Remove = "batchremoveparticipant", true, "Removes participants.";
    Mode = "changeparticipantmode", true, "Sets whether a participant hears and is heard.";
    Hold = "holdparticipant", true, "Holds a participant, with music.";
    Unhold = "unholdparticipant", true, "Takes a participant back from hold.";
    Play = "playvoicetoconf", true, "Plays an announcement to all.";
    Stop = "stopvoicetoconf", false, "Stops the announcements to all.";
    PlayTo = "playvoicetoparticipant", true, "Plays an announcement to one participant.";
    StopTo = "stopvoicetoparticipant", true, "Stops the announcement to one participant.";
    Prolong = "prolongtime", true, "Lengthens the conference.";
    Shift = "applytoshiftpresident", true, "Hands the chair to another agent.";
    Resource = "modifyconfresource", true, "Takes more or fewer seats.";
    Query = "queryconfinfos", true, "Tells the state of conferences.";
    QueryIds = "queryvdnconfid", false, "Tells the conferences of the VDN. For inspectors.";
}

impl Operation {
    /// Whether its answer tells from where on it can be heard.
    pub(super) const fn can_be_heard(self) -> bool {
        matches!(
            self,
            Self::Release | Self::Remove | Self::Mode | Self::Hold | Self::Unhold | Self::Stop | Self::StopTo
        )
    }
}

/// A conference whose turn it is.
struct Turn<'a> {
    conference: &'a Rc<Conference>,
    _lane: MutexGuard<'a, ()>,
}

impl Gateway {
    /// Carries out one operation of a signed-in agent.
    pub(super) async fn operate(
        &self,
        operation: Operation,
        session: &Rc<Session>,
        params: &Params,
    ) -> Result<Done, Fault> {
        let done = |()| Done::plain();
        match operation {
            Operation::Request => self.request(session, params).await.map(done),
            Operation::Answer => self.answer(session).await.map(done),
            Operation::Reject => self.reject(session).await.map(done),
            Operation::Leave => self.request_leave(session).await.map(done),
            Operation::Release => self.release(session).await.map(Done::from),
            Operation::Add => self.add(session, params).await.map(done),
            Operation::Remove => self.remove(session, params).await,
            Operation::Mode => self.change_mode(session, params).await.map(Done::from),
            Operation::Hold => self.hold(session, params).await.map(Done::from),
            Operation::Unhold => self.unhold(session, params).await.map(Done::from),
            Operation::Play => self.play_to_all(session, params).await.map(done),
            Operation::Stop => self.stop_to_all(session).await.map(Done::from),
            Operation::PlayTo => self.play_to_one(session, params).await.map(done),
            Operation::StopTo => self.stop_to_one(session, params).await.map(Done::from),
            Operation::Prolong => self.prolong(session, params).await.map(Done::with),
            Operation::Shift => self.shift(session, params).await.map(done),
            Operation::Resource => self.change_seats(session, params).await.map(done),
            Operation::Query => self.query(session, params).map(Done::with),
            Operation::QueryIds => self.query_ids(session).map(Done::with),
        }
    }

    /// The conference the agent is in.
    fn own_conference(&self, session: &Session) -> Result<Rc<Conference>, Fault> {
        let conference = session.conference.get().and_then(|id| self.conference(id));
        conference.filter(|conference| conference.has(session.number)).ok_or_else(|| Code::NoConference.into())
    }

    async fn request(&self, session: &Rc<Session>, params: &Params) -> Result<(), Fault> {
        let seats = params.needed_int("memberNum", 1..=SEATS_MAX)?;
        params.text("confCallerNo", ADDRESS_BYTES_MAX)?;
        let minutes = params.int("time", 4..=MINUTES_MAX)?.unwrap_or(60);
        let prompt = params.int("promptTime", 3..=MINUTES_MAX)?.unwrap_or(3);
        let beeps = params.bool("beepTone")?.unwrap_or(false);
        let beep = self.optional_file(session, params, beeps)?;
        if session.conference.get().is_some() {
            return Err(Code::InConference.into());
        }
        // Its telephone rings already.
        if self.invitation(session.number).is_some() {
            return Err(Fault::below(cause::CALL_NOT_STABLE));
        }
        let beep = beep.transpose()?;
        // Taken before the first wait: of two requests one is the second.
        let id = self.next_conference.get();
        self.next_conference.set(id + 1);
        session.conference.set(Some(id));
        if let Some(path) = &beep
            && let Err(fault) = self.check_file(path, Rate::Narrow).await
        {
            session.conference.set(None);
            return Err(fault);
        }
        if session.ended.is_open() {
            return Err(Code::SignedOut.into());
        }
        let conference = Rc::new(Conference {
            id,
            vdn: session.vdn,
            lane: Mutex::new(()),
            state: Cell::new(State::Requested),
            chair: Cell::new(session.number),
            native: RefCell::default(),
            seats: Cell::new(seats),
            minutes: Cell::new(minutes),
            prompt_minutes: Cell::new(if prompt < minutes { prompt } else { minutes - 1 }),
            prolonged: Notify::new(),
            started: Cell::new(Instant::now()),
            started_ms: Cell::default(),
            beep,
            participants: RefCell::new(vec![Participant {
                session: Rc::downgrade(session),
                ..Participant::new(Address::Agent(session.number), Stage::Called)
            }]),
            foreground: RefCell::default(),
            background: RefCell::default(),
            ended: Gate::default(),
        });
        self.conferences.borrow_mut().insert(id, Rc::clone(&conference));
        self.open(conference);
        Ok(())
    }

    async fn answer(&self, session: &Rc<Session>) -> Result<(), Fault> {
        let conference = self.invitation(session.number).ok_or(Code::NoConference)?;
        if session.conference.get().is_some() {
            return Err(Code::InConference.into());
        }
        let _turn = conference.lane.lock().await;
        let address = Address::Agent(session.number);
        let rings = conference.with(&address, |member| {
            let rings = member.stage == Stage::Invited;
            member.stage = if rings { Stage::Called } else { member.stage };
            rings
        });
        if rings != Some(true) || conference.state.get() == State::Ended || session.ended.is_open() {
            return Err(Code::NoConference.into());
        }
        session.conference.set(Some(conference.id));
        self.call_or_tell(&conference, &address).await;
        Ok(())
    }

    async fn reject(&self, session: &Rc<Session>) -> Result<(), Fault> {
        let conference = self.invitation(session.number).ok_or(Code::NoConference)?;
        let _turn = conference.lane.lock().await;
        let address = Address::Agent(session.number);
        if conference.with(&address, |member| member.stage == Stage::Invited) != Some(true) {
            return Err(Code::NoConference.into());
        }
        self.leave(&conference, &address, Reason::Left).await;
        Ok(())
    }

    async fn request_leave(&self, session: &Rc<Session>) -> Result<(), Fault> {
        let conference = self.own_conference(session)?;
        let _turn = conference.lane.lock().await;
        if !conference.has(session.number) {
            return Err(Code::NoConference.into());
        }
        if conference.chair.get() == session.number {
            return Err(Code::ChairLeaves.into());
        }
        self.leave(&conference, &Address::Agent(session.number), Reason::Left).await;
        Ok(())
    }

    async fn release(&self, session: &Rc<Session>) -> Result<Effect, Fault> {
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        Ok(self.end(turn.conference, Reason::Released).await)
    }

    async fn add(&self, session: &Rc<Session>, params: &Params) -> Result<(), Fault> {
        let list = params.list("addresses", ADDRESSES_MAX)?;
        let mut wanted: Vec<(Address, u32, u32)> = Vec::new();
        let mut seen = BTreeSet::new();
        for value in list {
            let entry = Params::of(value)?;
            let address = entry.address()?;
            let call_type = entry.int("deviceCallType", 0..=255)?.unwrap_or(0);
            let device_type = entry.int("deviceType", 0..=255)?.unwrap_or(0);
            if seen.insert(address.clone()) {
                wanted.push((address, call_type, device_type));
            }
        }
        if wanted.is_empty() {
            return Err(Code::WrongParameter.into());
        }
        params.text("caller", ADDRESS_BYTES_MAX)?;
        let welcomes = params.bool("beepTone")?.unwrap_or(false);
        let welcome = self.optional_file(session, params, welcomes)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let welcome = welcome.transpose()?;
        if let Some(path) = &welcome {
            self.check_file(path, Rate::Narrow).await?;
        }
        let conference = turn.conference;
        wanted.retain(|(address, _, _)| conference.with(address, |_| ()).is_none());
        let taken = conference.participants.borrow().len() + wanted.len();
        if taken > conference.seats.get() as usize {
            return Err(Fault::below(cause::NO_RESOURCE));
        }
        for (address, call_type, device_type) in wanted {
            let is_agent = matches!(address, Address::Agent(_));
            let stage = if is_agent { Stage::Invited } else { Stage::Called };
            let welcome = welcome.clone();
            let member = Participant { call_type, device_type, welcome, ..Participant::new(address.clone(), stage) };
            if let Address::Agent(number) = address {
                let free = self.session(number).filter(|agent| agent.conference.get().is_none());
                match free.filter(|_| self.invitation(number).is_none()) {
                    Some(agent) => {
                        let member = Participant { session: Rc::downgrade(&agent), ..member };
                        conference.participants.borrow_mut().push(member);
                        agent.tell("AgentConf_Ringing", json!({"confId": conference.id}));
                        self.give_up_later(conference, &address);
                    }
                    None => {
                        let known = self.session(number).is_some();
                        let why = if known { cause::WRONG_STATE } else { cause::NO_PARTICIPANT };
                        self.tell_one(session.number, conference.id, &member, Change::Joined, why);
                    }
                }
                continue;
            }
            conference.participants.borrow_mut().push(member);
            self.call_or_tell(conference, &address).await;
        }
        Ok(())
    }

    async fn remove(&self, session: &Rc<Session>, params: &Params) -> Result<Done, Fault> {
        let list = params.list("addresses", REMOVALS_MAX)?;
        let mut addresses: Vec<Address> = Vec::new();
        for value in list {
            let address = Params::of(value)?.address()?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(Code::WrongParameter.into());
        }
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        if addresses.contains(&Address::Agent(session.number)) {
            return Err(Code::ChairRemovesSelf.into());
        }
        let mut missing = Vec::new();
        let mut effect = Effect::default();
        for address in &addresses {
            if turn.conference.with(address, |_| ()).is_some() {
                effect = effect.and(self.leave(turn.conference, address, Reason::Removed).await);
            } else {
                missing.push(address.to_value());
            }
        }
        Ok(Done { result: json!({"noExistParticipants": missing}), effect })
    }

    async fn change_mode(&self, session: &Rc<Session>, params: &Params) -> Result<Effect, Fault> {
        let attribute = params.needed_int("attribute", 1..=4)?;
        let address = params.address()?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let before = turn.member(&address)?;
        if before.attribute() == attribute && !before.unsure {
            return Ok(Effect::default());
        }
        let (hears, speaks) = (matches!(attribute, 1 | 3), matches!(attribute, 2 | 3));
        let after = Participant { hears, speaks, ..before.clone() };
        let applied = self.apply(turn.conference, &after).await;
        if is_unsure(&applied) {
            self.settle_later(turn.conference, &address);
        }
        let effect = applied?;
        turn.conference.with(&address, |member| {
            (member.hears, member.speaks, member.unsure) = (after.hears, after.speaks, false);
        });
        if before.attribute() == attribute {
            return Ok(effect);
        }
        match attribute {
            1 => self.tell_change(turn.conference, &after, Change::Muted, None),
            3 => self.tell_change(turn.conference, &after, Change::Unmuted, None),
            _ => {}
        }
        Ok(effect)
    }

    /// Makes the mix hear and be heard as a participant may.
    pub(super) async fn apply(&self, conference: &Conference, member: &Participant) -> Result<Effect, Fault> {
        let params = json!({
            "conference_id": conference.native(),
            "connection_id": member.connection,
            "muted": member.held || !member.speaks,
            "deaf": member.held || !member.hears,
        });
        self.done("conference.set", params).await
    }

    async fn hold(&self, session: &Rc<Session>, params: &Params) -> Result<Effect, Fault> {
        let address = params.address()?;
        let file = self.file(session, params)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let member = turn.member(&address)?;
        if member.held || member.announcement.is_some() {
            return Err(Fault::below(cause::WRONG_STATE));
        }
        let file = file?;
        self.end_greeting(turn.conference, &address).await;
        let place = Place::Connection(member.connection.clone().unwrap_or_default());
        let music = self.play(turn.conference, place.clone(), &file, Purpose::Music(address.clone())).await?;
        let held = Participant { held: true, ..member };
        let applied = self.apply(turn.conference, &held).await;
        if is_unsure(&applied) {
            self.settle_later(turn.conference, &address);
        }
        if applied.is_err() {
            // Told is what went wrong first.
            let _ = self.stop_play(place, &music).await;
        }
        let effect = applied?;
        turn.conference.with(&address, |member| {
            member.held = true;
            member.music = Some(music);
        });
        self.tell_change(turn.conference, &held, Change::Held, None);
        Ok(effect)
    }

    async fn unhold(&self, session: &Rc<Session>, params: &Params) -> Result<Effect, Fault> {
        let address = params.address()?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let member = turn.member(&address)?;
        if !member.held {
            return Err(Fault::below(cause::WRONG_STATE));
        }
        let back = Participant { held: false, ..member };
        let place = Place::Connection(back.connection.clone().unwrap_or_default());
        // Music that can't be stopped keeps its place, and the participant is still on hold.
        self.stop_slot(place, turn.conference, Purpose::Music(address.clone())).await?;
        let applied = self.apply(turn.conference, &back).await;
        if is_unsure(&applied) {
            self.settle_later(turn.conference, &address);
        }
        // That of coming back: the music has ended before.
        let effect = applied?;
        turn.conference.with(&address, |member| (member.held, member.unsure) = (false, false));
        self.tell_change(turn.conference, &back, Change::Unheld, None);
        Ok(effect)
    }

    async fn play_to_all(&self, session: &Rc<Session>, params: &Params) -> Result<(), Fault> {
        let background = params.int("playType", 0..=1)? == Some(1);
        let file = self.file(session, params)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let conference = turn.conference;
        let (slot, purpose) = match background {
            true => (&conference.background, Purpose::Background),
            false => (&conference.foreground, Purpose::Foreground),
        };
        if slot.borrow().is_some() {
            return Err(Fault::below(cause::PLAYING));
        }
        let file = file?;
        let native = conference.native().ok_or(Code::NoConference)?;
        let play = self.play(conference, Place::Conference(native), &file, purpose).await?;
        // It may have ended already.
        if self.operations.borrow().contains_key(&play.operation) {
            slot.replace(Some(play));
        }
        Ok(())
    }

    async fn stop_to_all(&self, session: &Rc<Session>) -> Result<Effect, Fault> {
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        self.stop_all(turn.conference).await
    }

    async fn play_to_one(&self, session: &Rc<Session>, params: &Params) -> Result<(), Fault> {
        let address = params.address()?;
        let file = self.file(session, params)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let member = turn.member(&address)?;
        if member.held {
            return Err(Fault::below(cause::WRONG_STATE));
        }
        if member.announcement.is_some() {
            return Err(Fault::below(cause::PLAYING));
        }
        let file = file?;
        self.end_greeting(turn.conference, &address).await;
        let place = Place::Connection(member.connection.unwrap_or_default());
        let play = self.play(turn.conference, place, &file, Purpose::ToParticipant(address.clone())).await?;
        if self.operations.borrow().contains_key(&play.operation) {
            turn.conference.with(&address, |member| member.announcement = Some(play));
        }
        Ok(())
    }

    async fn stop_to_one(&self, session: &Rc<Session>, params: &Params) -> Result<Effect, Fault> {
        let address = params.address()?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let member = turn.member(&address)?;
        let place = Place::Connection(member.connection.unwrap_or_default());
        let stopped = self.stop_slot(place, turn.conference, Purpose::ToParticipant(address)).await?;
        stopped.ok_or_else(|| Fault::below(cause::NOT_PLAYING))
    }

    async fn prolong(&self, session: &Rc<Session>, params: &Params) -> Result<Value, Fault> {
        let wanted = params.needed_int("prolongTime", 1..=MINUTES_MAX)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let minutes = turn.conference.minutes.get();
        let added = wanted.min(MINUTES_MAX - minutes);
        turn.conference.minutes.set(minutes + added);
        turn.conference.prolonged.notify_waiters();
        Ok(json!({"applyedTime": added}))
    }

    async fn shift(&self, session: &Rc<Session>, params: &Params) -> Result<(), Fault> {
        let range = WORK_NUMBER_MIN..=WORK_NUMBER_MAX;
        let named = params.int("destAgentNo", range.clone())?;
        let number = named.map_or_else(|| params.needed_int("destWorkNo", range), Ok)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        if number == session.number {
            return Err(Code::ChairToSelf.into());
        }
        let member = turn.member(&Address::Agent(number))?;
        turn.conference.chair.set(number);
        self.tell(number, "AgentConf_PresidentChanged", json!({"confId": turn.conference.id}));
        self.tell_change(turn.conference, &member, Change::Chair, Some(number));
        Ok(())
    }

    async fn change_seats(&self, session: &Rc<Session>, params: &Params) -> Result<(), Fault> {
        let takes = params.needed_int("modifyType", 0..=1)? == 1;
        let number = params.needed_int("modifyNum", 2..=118)?;
        let conference = self.own_conference(session)?;
        let turn = turn(&conference, session).await?;
        let seats = turn.conference.seats.get();
        let changed = if takes { seats.checked_sub(number) } else { seats.checked_add(number) };
        let present = turn.conference.participants.borrow().len();
        let fits = |seats: &u32| (1..=SEATS_MAX).contains(seats) && *seats as usize >= present;
        turn.conference.seats.set(changed.filter(fits).ok_or_else(|| Fault::below(cause::NO_RESOURCE))?);
        Ok(())
    }

    fn query(&self, session: &Session, params: &Params) -> Result<Value, Fault> {
        let list = params.list("confIds", QUERIES_MAX)?;
        let mut ids = BTreeSet::new();
        for value in list {
            let id = match value {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse().ok(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            };
            ids.insert(id.ok_or(Code::WrongParameter)?);
        }
        if !session.inspector {
            self.own_conference(session)?;
        }
        let visible = |conference: &&Rc<Conference>| {
            let allowed = session.inspector && conference.vdn == session.vdn || conference.has(session.number);
            conference.is_running() && allowed && ids.contains(&u64::from(conference.id))
        };
        let conferences = self.conferences.borrow();
        let confs: Vec<Value> = conferences.values().filter(visible).map(|conference| conference.to_value()).collect();
        Ok(json!({"confs": confs}))
    }

    fn query_ids(&self, session: &Session) -> Result<Value, Fault> {
        if !session.inspector {
            return Err(Code::NotInspector.into());
        }
        let conferences = self.conferences.borrow();
        let visible =
            conferences.values().filter(|conference| conference.vdn == session.vdn && conference.is_running());
        let ids: Vec<u32> = visible.map(|conference| conference.id).collect();
        Ok(json!({"confIds": ids}))
    }

    /// `voicePath`, which has to be there. Where it leads is told after who may play it.
    fn file(&self, session: &Session, params: &Params) -> Result<Result<String, Fault>, Fault> {
        params.check_play_mode()?;
        let given = params.text("voicePath", voice::PATH_BYTES_MAX)?.ok_or(Code::WrongParameter)?;
        Ok(voice::path(&self.config.announcements, session.vdn, given))
    }

    /// The same where it has to be there only if `wanted`.
    fn optional_file(
        &self,
        session: &Session,
        params: &Params,
        wanted: bool,
    ) -> Result<Option<Result<String, Fault>>, Fault> {
        if wanted { self.file(session, params).map(Some) } else { Ok(None) }
    }
}

/// Waits for the turn of an operation of the chair.
async fn turn<'a>(conference: &'a Rc<Conference>, session: &Session) -> Result<Turn<'a>, Fault> {
    // Who never was the chair does not wait.
    if conference.chair.get() != session.number {
        return Err(Code::NotChair.into());
    }
    let lane = conference.lane.lock().await;
    // Much may have happened meanwhile.
    if !conference.has(session.number) {
        return Err(Code::NoConference.into());
    }
    if conference.chair.get() != session.number {
        return Err(Code::NotChair.into());
    }
    Ok(Turn { conference, _lane: lane })
}

/// Whether a command was not answered, so that nobody knows whether it takes effect.
fn is_unsure(applied: &Result<Effect, Fault>) -> bool {
    applied.as_ref().is_err_and(|fault| fault.cause.is_none())
}

impl Turn<'_> {
    /// A participant who has joined.
    fn member(&self, address: &Address) -> Result<Participant, Fault> {
        let member = self.conference.with(address, |member| member.clone());
        let member = member.ok_or_else(|| Fault::below(cause::NO_PARTICIPANT))?;
        if member.stage == Stage::Joined { Ok(member) } else { Err(Fault::below(cause::WRONG_STATE)) }
    }
}

const SEATS_MAX: u32 = 120;
/// A day.
const MINUTES_MAX: u32 = 1440;
const ADDRESSES_MAX: usize = 120;
const REMOVALS_MAX: usize = 30;
const QUERIES_MAX: usize = 20;
