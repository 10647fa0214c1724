//! Who comes and who goes: calling, joining, leaving, and the end of a conference.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::Gateway;
use super::announce::{Place, Purpose};
use super::codes::{Fault, cause};
use super::conference::{Change, Conference, Participant, Play, Reason, Stage, State, now_ms};
use super::effect::Effect;
use super::params::Address;
use super::session::Session;

impl Gateway {
    /// Opens a conference that was requested and calls its chair.
    pub(super) fn open(&self, conference: Rc<Conference>) {
        let Some(gateway) = self.own.upgrade() else { return };
        spawn_local(async move {
            let turn = conference.lane.lock().await;
            // Its agent may have signed out again.
            if conference.state.get() != State::Requested {
                return;
            }
            let chair = conference.chair.get();
            gateway.tell(chair, "AgentState_Busy", Value::Null);
            gateway.tell(chair, "AgentOther_PhoneAlerting", Value::Null);
            let label = format!("AgentGateway {}", conference.id);
            let own = Rc::clone(&conference);
            let created = gateway.native("conference.create", json!({"label": label}), move |result| {
                own.native.replace(result["conference_id"].as_str().map(str::to_owned));
            });
            let opened = match created.await {
                Ok(()) => gateway.call_out(&conference, &Address::Agent(chair)).await,
                Err(fault) => Err(fault),
            };
            drop(turn);
            if let Err(fault) = opened {
                gateway.fail(&conference, fault.cause_or(cause::CALL_NOT_STABLE)).await;
            }
        });
    }

    /// Finds or makes the connection of a participant. It joins once something valid is heard from it.
    async fn call_out(&self, conference: &Rc<Conference>, address: &Address) -> Result<(), Fault> {
        let nobody = Fault::below(cause::NO_PARTICIPANT);
        let number = match address {
            Address::Phone(number) => number.clone(),
            Address::Agent(_) => {
                let session = conference.with(address, |member| member.session.upgrade()).flatten();
                session.ok_or(nobody)?.phone.clone()
            }
        };
        let (connection, own) = match self.labelled(&number).await? {
            Some(connection) => (connection, false),
            None => {
                let remote = self.config.directory.get(&number).ok_or(nobody)?;
                let params = json!({"remote": remote.to_string(), "label": format!("AgentGateway {number}")});
                let id = |result: &Value| result["connection_id"].as_str().unwrap_or_default().to_owned();
                (self.native("connection.create", params, id).await?, true)
            }
        };
        let known = conference.with(address, |member| {
            member.stage = Stage::Called;
            member.connection = Some(connection.clone());
            member.own = own;
        });
        if known.is_none() || conference.state.get() == State::Ended {
            // Gone in the meantime.
            if own {
                self.try_done("connection.delete", json!({"connection_id": connection})).await;
            }
            return Ok(());
        }
        self.connections.borrow_mut().insert(connection.clone(), (conference.id, address.clone()));
        if own {
            // So that the endpoint learns where to send.
            let limit = self.config.answer_timeout_ms;
            let ring = json!({"kind": "tone", "connection_id": connection, "frequency_hz": 425, "level_db": -30,
                              "duration_ms": 0, "max_time_ms": limit});
            self.try_done("operation.start", ring).await;
        }
        self.give_up_later(conference, address);
        let heard = self
            .native("connection.get", json!({"connection_id": connection}), |state| {
                !state["learned"].is_null()
                    || state["counters"]["packets_in"].as_u64().is_some_and(|packets| packets > 0)
            })
            .await?;
        if heard {
            self.connection_learned(&connection);
        }
        Ok(())
    }

    /// A connection of that label that is free.
    async fn labelled(&self, number: &str) -> Result<Option<String>, Fault> {
        // Labels of other adapters are no telephone numbers.
        if !number.bytes().all(|byte| byte.is_ascii_digit() || b"+*#".contains(&byte)) {
            return Ok(None);
        }
        let wanted = number.to_owned();
        let found = self.native("connection.list", json!({}), move |result| {
            let connections = result["connections"].as_array();
            let labelled = connections.into_iter().flatten().filter(|connection| connection["label"] == *wanted);
            let free = labelled.filter(|connection| connection["state"] == "idle" && connection["reserved"] != true);
            let ids = free.filter_map(|connection| connection["connection_id"].as_str()).map(str::to_owned);
            ids.collect::<Vec<_>>()
        });
        let found = found.await?;
        Ok(found.into_iter().find(|id| !self.connections.borrow().contains_key(id)))
    }

    /// Takes back a call that nobody answers.
    pub(super) fn give_up_later(&self, conference: &Rc<Conference>, address: &Address) {
        let (own, conference, address) = (self.own.clone(), Rc::clone(conference), address.clone());
        let limit = Duration::from_millis(u64::from(self.config.answer_timeout_ms));
        let stage = conference.with(&address, |member| (member.serial, member.stage));
        spawn_local(async move {
            tokio::select! {
                () = sleep(limit) => {}
                () = conference.ended.wait() => return,
            }
            let (Some(gateway), Some(stage)) = (own.upgrade(), stage) else { return };
            let waits = || {
                let now = conference.with(&address, |member| (member.serial, member.stage));
                now == Some(stage) && conference.state.get() != State::Ended
            };
            if !waits() {
                return;
            }
            if conference.state.get() == State::Requested {
                gateway.fail(&conference, cause::CALL_NOT_STABLE).await;
                return;
            }
            let turn = conference.lane.lock().await;
            if waits() {
                gateway.unreachable(&conference, &address, cause::WRONG_STATE).await;
            }
            drop(turn);
        });
    }

    /// Somebody who was invited does not come.
    async fn unreachable(&self, conference: &Rc<Conference>, address: &Address, why: i64) {
        if conference.with(address, |member| member.stage != Stage::Joined) != Some(true) {
            return;
        }
        let Some(member) = self.take_out(conference, address) else { return };
        self.hang_up(conference, &member).await;
        self.tell_one(conference.chair.get(), conference.id, &member, Change::Joined, why);
        self.release_agent(conference, &member);
    }

    /// Something valid was heard on a connection for the first time.
    pub(super) fn connection_learned(&self, connection: &str) {
        let known = self.connections.borrow().get(connection).cloned();
        let Some((id, address)) = known else { return };
        let (Some(gateway), Some(conference)) = (self.own.upgrade(), self.conference(id)) else { return };
        let connection = connection.to_owned();
        spawn_local(async move {
            let turn = conference.lane.lock().await;
            let called = |member: &mut Participant| {
                member.stage == Stage::Called && member.connection.as_deref() == Some(&connection)
            };
            if conference.state.get() == State::Ended || conference.with(&address, called) != Some(true) {
                return;
            }
            let joined = gateway.take_in(&conference, &address, &connection).await;
            drop(turn);
            if let Err(fault) = joined {
                let why = fault.cause_or(cause::WRONG_STATE);
                if conference.state.get() == State::Requested {
                    gateway.fail(&conference, why).await;
                } else {
                    let _turn = conference.lane.lock().await;
                    gateway.unreachable(&conference, &address, why).await;
                }
            }
        });
    }

    async fn take_in(&self, conference: &Rc<Conference>, address: &Address, connection: &str) -> Result<(), Fault> {
        let native = conference.native().ok_or(super::Code::Exception)?;
        let own = conference.with(address, |member| member.own) == Some(true);
        if own {
            self.try_done("operation.stop", json!({"connection_id": connection})).await;
        }
        let join = json!({"conference_id": native, "connection_id": connection});
        self.done("conference.join", join).await?;
        let joined = conference.with(address, |member| {
            member.stage = Stage::Joined;
            member.entered_ms = now_ms();
            member.clone()
        });
        let Some(member) = joined else { return Ok(()) };
        let agent = match address {
            Address::Agent(number) => Some(*number),
            Address::Phone(_) => None,
        };
        if let Some(number) = agent {
            self.tell(number, "AgentOther_PhoneOffhook", Value::Null);
            self.tell(number, "AgentConf_SelfJoinResult", json!({"confId": conference.id}));
        }
        if conference.state.get() == State::Requested {
            conference.state.set(State::Running);
            conference.started.set(Instant::now());
            conference.started_ms.set(now_ms());
            self.keep_time(conference);
            self.tell(conference.chair.get(), "AgentConf_RequestSuccess", json!({"confId": conference.id}));
            return Ok(());
        }
        self.tell_change(conference, &member, Change::Joined, agent);
        if let Some(file) = &member.welcome {
            let place = Place::Connection(connection.to_owned());
            let greeting = self.beep(conference, place, file).await;
            conference.with(address, |member| member.greeting = greeting);
        }
        self.beep_to_all(conference).await;
        Ok(())
    }

    async fn beep_to_all(&self, conference: &Conference) {
        if let (Some(file), Some(native)) = (&conference.beep, conference.native()) {
            self.beep(conference, Place::Conference(native), file).await;
        }
    }

    async fn beep(&self, conference: &Conference, place: Place, file: &str) -> Option<Play> {
        let played = self.play(conference, place, file, Purpose::Beep).await;
        played.map_err(|fault| tracing::warn!(conference = conference.id, ?fault, file, "a tone can't be played")).ok()
    }

    /// What is to be played to a participant takes the place of the file of its join.
    pub(super) async fn end_greeting(&self, conference: &Conference, address: &Address) {
        let greeting = conference.with(address, |member| (member.greeting.take(), member.connection.clone()));
        if let Some((Some(greeting), Some(connection))) = greeting
            && let Err(fault) = self.stop_play(Place::Connection(connection), &greeting).await
        {
            tracing::debug!(?fault, "was not playing any more");
        }
    }

    /// Tells the chair when time is nearly over, and ends the conference when it is.
    fn keep_time(&self, conference: &Rc<Conference>) {
        let (own, conference) = (self.own.clone(), Rc::clone(conference));
        let minutes = |minutes: u32| Duration::from_secs(60 * u64::from(minutes));
        spawn_local(async move {
            let mut told = None;
            loop {
                let prolonged = conference.prolonged.notified();
                let length = conference.minutes.get();
                let end = conference.started.get() + minutes(length);
                let prompt = end - minutes(conference.prompt_minutes.get().min(length));
                let next = if told == Some(length) { end } else { prompt };
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = prolonged => continue,
                    () = conference.ended.wait() => return,
                }
                let Some(gateway) = own.upgrade() else { return };
                if next == end {
                    let turn = conference.lane.lock().await;
                    // Prolonged at the last moment.
                    if conference.minutes.get() != length {
                        continue;
                    }
                    gateway.end(&conference, Reason::Released).await;
                    drop(turn);
                    return;
                }
                gateway.tell(conference.chair.get(), "AgentConf_Timeout", json!({"confId": conference.id}));
                told = Some(length);
            }
        });
    }

    /// A conference that was requested does not come about.
    async fn fail(&self, conference: &Rc<Conference>, why: i64) {
        let _turn = conference.lane.lock().await;
        if conference.state.get() != State::Requested {
            return;
        }
        let (members, _) = self.dissolve(conference).await;
        for session in members.iter().filter_map(|member| member.session.upgrade()) {
            session.leave(conference.id);
            session.tell("AgentConf_RequestFailed", json!({"cause": why}));
            session.tell("AgentState_Ready", Value::Null);
        }
    }

    /// Ends a conference for everybody. To be called by the holder of its lane.
    pub(super) async fn end(&self, conference: &Rc<Conference>, reason: Reason) -> Effect {
        if conference.state.get() == State::Ended {
            return Effect::default();
        }
        let chair = Address::Agent(conference.chair.get());
        let (members, effect) = self.dissolve(conference).await;
        let joined = || members.iter().filter(|member| member.stage == Stage::Joined);
        for agent in joined() {
            let Some(session) = agent.session.upgrade() else { continue };
            for member in joined() {
                // Whoever it ends by has a reason of its own; for the others the conference is over.
                let why = if member.address == chair { reason } else { Reason::Released };
                session.tell_change(conference.id, member, Change::Left(why), 0);
            }
            session.tell("AgentConf_SelfLeaveResult", json!({"confId": conference.id}));
        }
        for member in &members {
            self.release_agent(conference, member);
        }
        effect
    }

    /// Takes all down; who was in it.
    async fn dissolve(&self, conference: &Rc<Conference>) -> (Vec<Participant>, Effect) {
        conference.state.set(State::Ended);
        conference.ended.open();
        self.conferences.borrow_mut().remove(&conference.id);
        self.operations.borrow_mut().retain(|_, (id, _)| *id != conference.id);
        self.connections.borrow_mut().retain(|_, (id, _)| *id != conference.id);
        conference.foreground.take();
        conference.background.take();
        let members = conference.participants.take();
        let mut effect = Effect::default();
        for member in members.iter().filter(|member| !member.own || member.stage == Stage::Called) {
            effect = effect.and(self.hang_up(conference, member).await);
        }
        if let Some(native) = conference.native.take() {
            effect = effect.and(self.try_done("conference.delete", json!({"conference_id": native})).await);
        }
        (members, effect)
    }

    /// Takes a participant off the list.
    pub(super) fn take_out(&self, conference: &Conference, address: &Address) -> Option<Participant> {
        let mut participants = conference.participants.borrow_mut();
        let place = participants.iter().position(|member| member.address == *address)?;
        let member = participants.remove(place);
        drop(participants);
        if let Some(connection) = &member.connection {
            self.connections.borrow_mut().remove(connection);
        }
        Some(member)
    }

    /// Takes the connection of a participant out of the mix; if it was made here it goes.
    pub(super) async fn hang_up(&self, conference: &Conference, member: &Participant) -> Effect {
        let Some(connection) = &member.connection else { return Effect::default() };
        if member.own {
            return self.try_done("connection.delete", json!({"connection_id": connection})).await;
        }
        for play in [&member.music, &member.announcement].into_iter().flatten() {
            if let Err(fault) = self.stop_play(Place::Connection(connection.clone()), play).await {
                tracing::debug!(?fault, "was not playing any more");
            }
        }
        // A join that was not answered may have come about.
        if let Some(native) = conference.native() {
            let leave = json!({"conference_id": native, "connection_id": connection});
            return self.try_done("conference.leave", leave).await;
        }
        Effect::default()
    }

    /// A participant leaves. To be called by the holder of the lane.
    pub(super) async fn leave(&self, conference: &Rc<Conference>, address: &Address, reason: Reason) -> Effect {
        let Some(member) = self.take_out(conference, address) else { return Effect::default() };
        let effect = self.hang_up(conference, &member).await;
        if member.stage == Stage::Joined {
            if let Some(session) = member.session.upgrade() {
                session.tell("AgentConf_SelfLeaveResult", json!({"confId": conference.id}));
            }
            self.tell_change(conference, &member, Change::Left(reason), None);
            self.beep_to_all(conference).await;
        } else {
            self.tell_one(conference.chair.get(), conference.id, &member, Change::Left(reason), 0);
        }
        self.release_agent(conference, &member);
        effect
    }

    /// The agent's telephone is free again.
    fn release_agent(&self, conference: &Conference, member: &Participant) {
        let Some(session) = member.session.upgrade().filter(|session| !session.ended.is_open()) else { return };
        session.leave(conference.id);
        session.tell("AgentOther_PhoneRelease", Value::Null);
        session.tell("AgentState_Ready", Value::Null);
    }

    /// A connection has ended or fallen silent. What it was in goes on without it, unless it was the chair's.
    pub(super) fn connection_lost(&self, connection: &str, ended: bool) {
        let known = self.connections.borrow().get(connection).cloned();
        let Some((id, address)) = known else { return };
        let (Some(gateway), Some(conference)) = (self.own.upgrade(), self.conference(id)) else { return };
        let connection = connection.to_owned();
        spawn_local(async move {
            let turn = conference.lane.lock().await;
            let same = |member: &mut Participant| {
                let same = member.connection.as_deref() == Some(&connection);
                if same && ended {
                    member.connection = None;
                }
                same
            };
            if conference.state.get() == State::Ended || conference.with(&address, same) != Some(true) {
                return;
            }
            gateway.connections.borrow_mut().remove(&connection);
            if address != Address::Agent(conference.chair.get()) {
                gateway.leave(&conference, &address, Reason::HungUp).await;
            } else if conference.state.get() == State::Requested {
                drop(turn);
                gateway.fail(&conference, cause::CALL_NOT_STABLE).await;
            } else {
                gateway.end(&conference, Reason::HungUp).await;
            }
        });
    }

    /// A native conference has ended by itself: its shard has failed, or somebody else has deleted it.
    pub(super) fn conference_lost(&self, native: &str) {
        let found = {
            let conferences = self.conferences.borrow();
            conferences.values().find(|conference| conference.native.borrow().as_deref() == Some(native)).cloned()
        };
        let (Some(gateway), Some(conference)) = (self.own.upgrade(), found) else { return };
        spawn_local(async move {
            let turn = conference.lane.lock().await;
            conference.native.take();
            if conference.state.get() == State::Requested {
                drop(turn);
                gateway.fail(&conference, cause::NO_RESOURCE).await;
            } else {
                gateway.end(&conference, Reason::Released).await;
            }
        });
    }

    /// A session is over: its agent leaves; a conference without its chair ends.
    pub(super) async fn forsake(&self, session: &Session, reason: Reason) {
        if let Some(invited) = self.invitation(session.number) {
            let _turn = invited.lane.lock().await;
            self.leave(&invited, &Address::Agent(session.number), reason).await;
        }
        let Some(conference) = session.conference.take().and_then(|id| self.conference(id)) else { return };
        let _turn = conference.lane.lock().await;
        if conference.chair.get() == session.number {
            self.end(&conference, if reason == Reason::Left { Reason::Released } else { reason }).await;
        } else {
            self.leave(&conference, &Address::Agent(session.number), reason).await;
        }
    }

    /// A command about a participant was not answered in time, and may take effect yet: once the layer below answers
    /// again, the mix is made to do what is known of the participant.
    pub(super) fn settle_later(&self, conference: &Rc<Conference>, address: &Address) {
        conference.with(address, |member| member.unsure = true);
        let (own, conference, address) = (self.own.clone(), Rc::clone(conference), address.clone());
        spawn_local(async move {
            for _ in 0..SETTLE_TRIES {
                let _turn = conference.lane.lock().await;
                let Some(gateway) = own.upgrade() else { return };
                let Some(member) = conference.with(&address, |member| member.clone()) else { return };
                if !member.unsure || conference.state.get() != State::Running {
                    return;
                }
                if gateway.apply(&conference, &member).await.is_ok() {
                    conference.with(&address, |member| member.unsure = false);
                    return;
                }
            }
        });
    }

    /// The conference that rings at an agent.
    pub(super) fn invitation(&self, agent: u32) -> Option<Rc<Conference>> {
        let address = Address::Agent(agent);
        let rings = |conference: &&Rc<Conference>| {
            conference.with(&address, |member| member.stage == Stage::Invited) == Some(true)
        };
        self.conferences.borrow().values().find(rings).cloned()
    }

    /// Calls somebody who is on the list; what fails is told to the chair. To be called by the holder of the lane.
    pub(super) async fn call_or_tell(&self, conference: &Rc<Conference>, address: &Address) {
        if let Err(fault) = self.call_out(conference, address).await {
            self.unreachable(conference, address, fault.cause_or(cause::NO_PARTICIPANT)).await;
        }
    }
}

/// How often the mix is put right after a command that was not answered.
const SETTLE_TRIES: usize = 12;
