//! The AgentGateway conference API: a front over the native methods that holds no media of its own.
//!
//! ```text
//!  HTTP ──▶ http ──▶ sign-in, session ──▶ agentconf operation ──▶ native methods
//!  poll, push ◀── events of the session ◀── conferences ◀── native events
//! ```
//!
//! What is kept here is what only this API has: who is signed in with which telephone, who is the chair of which
//! conference, and which announcement is whose. Operations on one conference are carried out one after another, in the
//! order they came in.

pub mod codes;
pub mod http;
pub mod openapi;

mod agentconf;
mod announce;
mod conference;
mod effect;
mod members;
mod native;
mod params;
mod push;
mod session;
mod signin;
mod voice;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;
use tokio::task::spawn_local;
use tokio::time::sleep_until;

use crate::auth::Logins;
use crate::config::AgentGatewayConfig;
use crate::events::EventKind;
use crate::server::Server;
use crate::tls::{self, TlsError};

use self::announce::Purpose;
use self::codes::Code;
use self::conference::{Conference, Reason};
use self::params::Address;
use self::session::Session;

/// The adapter.
pub struct Gateway {
    config: AgentGatewayConfig,
    /// How events are posted to `https://`.
    callback_tls: Option<Arc<ClientConfig>>,
    server: Weak<Server>,
    logins: Rc<Logins>,
    sessions: RefCell<BTreeMap<u32, Rc<Session>>>,
    signing_in: RefCell<BTreeSet<u32>>,
    conferences: RefCell<BTreeMap<u32, Rc<Conference>>>,
    /// What every native operation of ours is for.
    operations: RefCell<HashMap<String, (u32, Purpose)>>,
    /// Whose native connection it is.
    connections: RefCell<HashMap<String, (u32, Address)>>,
    next_conference: Cell<u32>,
    own: Weak<Self>,
}

/// Puts the adapter on top of a server.
///
/// # Errors
/// The certificates that callbacks are trusted by can't be read.
pub fn start(server: &Rc<Server>, logins: Rc<Logins>) -> Result<Rc<Gateway>, TlsError> {
    let config = server.config.agentgateway.clone();
    let callback_tls = config.callback_ca.as_deref().map(tls::trust).transpose()?;
    let gateway = Rc::new_cyclic(|own| Gateway {
        config,
        callback_tls,
        server: Rc::downgrade(server),
        logins,
        sessions: RefCell::default(),
        signing_in: RefCell::default(),
        conferences: RefCell::default(),
        operations: RefCell::default(),
        connections: RefCell::default(),
        next_conference: Cell::new(CONFERENCE_MIN),
        own: own.clone(),
    });
    let observer = Rc::downgrade(&gateway);
    server.hub.observe(Box::new(move |kind, params| {
        if let Some(gateway) = observer.upgrade() {
            gateway.take_event(kind, params);
        }
    }));
    spawn_local(signin::keep_up(Rc::downgrade(&gateway)));
    Ok(gateway)
}

impl Gateway {
    /// The session of an agent.
    fn session(&self, number: u32) -> Option<Rc<Session>> {
        self.sessions.borrow().get(&number).cloned()
    }

    /// The session of an agent who shows its id.
    fn authenticate(&self, number: u32, guid: Option<&str>) -> Result<Rc<Session>, Code> {
        let session = self.session(number).ok_or(Code::NotSignedIn)?;
        match guid {
            Some(guid) if session.knows(guid) => Ok(session),
            Some(_) | None => Err(Code::NoPermission),
        }
    }

    fn conference(&self, id: u32) -> Option<Rc<Conference>> {
        self.conferences.borrow().get(&id).cloned()
    }

    /// Tells an agent, if it is signed in.
    fn tell(&self, number: u32, event: &str, content: Value) {
        if let Some(session) = self.session(number) {
            session.tell(event, content);
        }
    }

    /// Ends the session when its agent is silent for too long.
    fn watch(&self, session: Rc<Session>) {
        let own = self.own.clone();
        spawn_local(async move {
            loop {
                let expires = session.expires();
                tokio::select! {
                    () = sleep_until(expires) => {}
                    () = session.ended.wait() => return,
                }
                if session.expires() == expires {
                    break;
                }
            }
            if let Some(gateway) = own.upgrade() {
                tracing::info!(agent = session.number, "an agent was not heard of and is signed out");
                gateway.sign_out(&session, Reason::SignedOut).await;
            }
        });
    }

    /// Takes in a native event, while it is being published.
    fn take_event(&self, kind: EventKind, params: &Value) {
        let id = |member: &str| params[member].as_str().unwrap_or_default();
        match kind {
            EventKind::OperationEnded => self.operation_ended(id("operation_id"), id("condition")),
            EventKind::ConnectionLearned => self.connection_learned(id("connection_id")),
            EventKind::ConnectionTimeout | EventKind::ConnectionEnded => {
                self.connection_lost(id("connection_id"), kind == EventKind::ConnectionEnded);
            }
            EventKind::ConferenceEnded => self.conference_lost(id("conference_id")),
            EventKind::Digit
            | EventKind::TalkStarted
            | EventKind::TalkStopped
            | EventKind::SpeakerActive
            | EventKind::CallStarted
            | EventKind::RecordingStarted
            | EventKind::RecordingMuted
            | EventKind::ShardMoved
            | EventKind::ShardFailed
            | EventKind::MediaControl => {}
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Conferences are numbered upwards from here.
const CONFERENCE_MIN: u32 = 1_000_000;
