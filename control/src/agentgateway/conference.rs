//! What is known of one conference: its chair, its participants, its announcements.

use std::cell::{Cell, RefCell};
use std::rc::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::Gateway;
use super::params::Address;
use super::session::Session;
use crate::gate::Gate;

/// A conference.
pub(super) struct Conference {
    pub(super) id: u32,
    pub(super) vdn: u32,
    /// One operation at a time, in the order they came in.
    pub(super) lane: Mutex<()>,
    pub(super) state: Cell<State>,
    pub(super) chair: Cell<u32>,
    /// The native conference.
    pub(super) native: RefCell<Option<String>>,
    pub(super) seats: Cell<u32>,
    pub(super) minutes: Cell<u32>,
    pub(super) prompt_minutes: Cell<u32>,
    /// Rung when its length has changed.
    pub(super) prolonged: Notify,
    pub(super) started: Cell<Instant>,
    pub(super) started_ms: Cell<i64>,
    /// Played to all when somebody joins or leaves.
    pub(super) beep: Option<String>,
    /// In the order they were invited.
    pub(super) participants: RefCell<Vec<Participant>>,
    pub(super) foreground: RefCell<Option<Play>>,
    pub(super) background: RefCell<Option<Play>>,
    /// Opens when it is over.
    pub(super) ended: Gate,
}

/// How far a conference is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The chair is not in yet.
    Requested,
    /// Everything works.
    Running,
    /// Over.
    Ended,
}

/// What is being played, from one place.
#[derive(Clone, Debug)]
pub(super) struct Play {
    /// The native operation.
    pub(super) operation: String,
    /// The file, if it is played again when it ends.
    pub(super) looped: Option<String>,
}

/// Somebody in a conference, or on the way into it.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub(super) address: Address,
    pub(super) stage: Stage,
    /// Of this invitation: the same address may be invited again.
    pub(super) serial: u64,
    /// The session of an agent that was invited. Another one of the same number is somebody else.
    pub(super) session: Weak<Session>,
    /// What the mix does may be something else than what stands here: a command was not answered in time.
    pub(super) unsure: bool,
    /// A file that was played at the join.
    pub(super) greeting: Option<Play>,
    /// The native connection.
    pub(super) connection: Option<String>,
    /// The connection was made for this conference and goes with it.
    pub(super) own: bool,
    pub(super) speaks: bool,
    pub(super) hears: bool,
    pub(super) held: bool,
    /// Hold music.
    pub(super) music: Option<Play>,
    /// An announcement to this participant.
    pub(super) announcement: Option<Play>,
    /// Played when the participant joins.
    pub(super) welcome: Option<String>,
    pub(super) call_type: u32,
    pub(super) device_type: u32,
    pub(super) entered_ms: i64,
}

/// How far a participant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The agent's telephone rings.
    Invited,
    /// Nothing was heard from its endpoint yet.
    Called,
    /// In the conference.
    Joined,
}

/// Why somebody left (`changeReason`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    Left,
    Removed,
    HungUp,
    Released,
    SignedOut,
    ForcedOut,
}

impl Reason {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Left => 0,
            Self::Removed => 1,
            Self::HungUp => 2,
            Self::Released => 3,
            Self::SignedOut => 4,
            Self::ForcedOut => 6,
        }
    }
}

/// What happened to a participant (`changeType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Joined,
    Left(Reason),
    Chair,
    Muted,
    Unmuted,
    Held,
    Unheld,
}

impl Change {
    fn number(self) -> u32 {
        match self {
            Self::Joined => 0,
            Self::Left(_) => 1,
            Self::Chair => 2,
            Self::Muted => 3,
            Self::Unmuted => 4,
            Self::Held => 5,
            Self::Unheld => 6,
        }
    }

    fn reason(self) -> u32 {
        match self {
            Self::Left(reason) => reason.number(),
            Self::Joined | Self::Chair | Self::Muted | Self::Unmuted | Self::Held | Self::Unheld => 255,
        }
    }
}

impl Participant {
    pub(super) fn new(address: Address, stage: Stage) -> Self {
        Self {
            address,
            stage,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            session: Weak::new(),
            unsure: false,
            greeting: None,
            connection: None,
            own: false,
            speaks: true,
            hears: true,
            held: false,
            music: None,
            announcement: None,
            welcome: None,
            call_type: 0,
            device_type: 0,
            entered_ms: 0,
        }
    }

    /// `channelAttrib`; 4 is neither.
    pub(super) fn attribute(&self) -> u32 {
        match (self.hears, self.speaks) {
            (true, false) => 1,
            (false, true) => 2,
            (true, true) => 3,
            (false, false) => 4,
        }
    }

    /// `channelState`.
    pub(super) fn channel_state(&self) -> u32 {
        match (self.held, &self.announcement) {
            (true, _) => 1,
            (false, Some(_)) => 2,
            (false, None) => 0,
        }
    }
}

impl Conference {
    /// Looks at a participant, if it is there.
    pub(super) fn with<T>(&self, address: &Address, look: impl FnOnce(&mut Participant) -> T) -> Option<T> {
        self.participants.borrow_mut().iter_mut().find(|participant| participant.address == *address).map(look)
    }

    /// Agents that are in.
    pub(super) fn agents(&self) -> Vec<u32> {
        let participants = self.participants.borrow();
        let joined = participants.iter().filter(|participant| participant.stage == Stage::Joined);
        joined
            .filter_map(|participant| match participant.address {
                Address::Agent(number) => Some(number),
                Address::Phone(_) => None,
            })
            .collect()
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.get() == State::Running
    }

    /// The native conference, while there is one.
    pub(super) fn native(&self) -> Option<String> {
        self.native.borrow().clone()
    }

    /// Whether this agent has it for its conference: `101-001` if not.
    pub(super) fn has(&self, agent: u32) -> bool {
        self.is_running() && self.with(&Address::Agent(agent), |member| member.stage == Stage::Joined) == Some(true)
    }

    /// As `queryconfinfos` tells it.
    pub(super) fn to_value(&self) -> Value {
        let playing = self.foreground.borrow().is_some() || self.background.borrow().is_some();
        let participants = self.participants.borrow();
        let joined = participants.iter().filter(|participant| participant.stage == Stage::Joined);
        let addresses: Vec<Value> = joined
            .map(|participant| {
                let mut value = participant.address.to_value();
                value["deviceCallType"] = participant.call_type.into();
                value["deviceType"] = participant.device_type.into();
                value["channelAttrib"] = participant.attribute().into();
                value["channelState"] = participant.channel_state().into();
                value["role"] = u32::from(participant.address == Address::Agent(self.chair.get())).into();
                value["enterTime"] = participant.entered_ms.into();
                value
            })
            .collect();
        json!({
            "confId": self.id,
            "confState": u32::from(playing),
            "startTime": self.started_ms.get(),
            "applyConfTime": self.minutes.get(),
            "confHaveBeenTime": self.started.get().elapsed().as_secs() / 60,
            "addresses": addresses,
        })
    }
}

impl Gateway {
    /// Tells the agents in a conference, but for one, what happened to a participant.
    pub(super) fn tell_change(
        &self,
        conference: &Conference,
        participant: &Participant,
        change: Change,
        but: Option<u32>,
    ) {
        for number in conference.agents().into_iter().filter(|number| Some(*number) != but) {
            self.tell_one(number, conference.id, participant, change, 0);
        }
    }

    /// Tells one agent. `result` is 0, or why it did not come about.
    pub(super) fn tell_one(&self, number: u32, id: u32, participant: &Participant, change: Change, result: i64) {
        if let Some(session) = self.session(number) {
            session.tell_change(id, participant, change, result);
        }
    }
}

impl Session {
    /// Tells this agent what happened to a participant. `result` is 0, or why it did not come about.
    pub(super) fn tell_change(&self, id: u32, participant: &Participant, change: Change, result: i64) {
        let content = json!({
            "result": result,
            "changeType": change.number(),
            "changeReason": change.reason(),
            "confId": id,
            "participant": participant.address.to_string(),
            "participantType": participant.address.kind(),
            "deviceCallType": participant.call_type,
            "deviceType": participant.device_type,
        });
        self.tell("AgentConf_ParticipantChanged", content);
    }
}

/// Invitations so far.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
