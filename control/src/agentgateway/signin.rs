//! Signing in and out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use axum::http::Uri;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::codes::{Answer, Code, Done, Fault};
use super::conference::Reason;
use super::params::{ADDRESS_BYTES_MAX, Params};
use super::session::{Push, Session, Sign};
use super::{Gateway, push};
use crate::auth::{LoginError, Password};
use crate::store::agents::{self, Agent, AgentKind};

/// The body of a sign-in.
struct SignIn {
    password: Password,
    phone: String,
    kind: AgentKind,
    status: u32,
    push: Option<Push>,
}

impl Gateway {
    /// Lets an agent in; with `force` instead of a session there is.
    pub(super) async fn sign_in(&self, number: u32, source: IpAddr, params: &Params, force: bool) -> Answer {
        let given = match self.read_sign_in(params) {
            Ok(given) => given,
            Err(code) => return Answer::failure(code.into()),
        };
        if !self.signing_in.borrow_mut().insert(number) {
            return Answer::failure(Code::SigningIn.into());
        }
        let signed_in = self.let_in(number, source, given, force).await;
        self.signing_in.borrow_mut().remove(&number);
        match signed_in {
            Ok((result, guid)) => {
                let body = json!({"message": "", "retcode": "0", "result": result});
                Answer { guid: Some(guid), ..Answer::of(body) }
            }
            Err(code) => Answer::failure(code.into()),
        }
    }

    async fn let_in(&self, number: u32, source: IpAddr, given: SignIn, force: bool) -> Result<(Value, String), Code> {
        let now = Timestamp::now();
        let attempt = self.logins.agent(std::time::Instant::now(), source, number, given.password).await;
        let agent = attempt.map_err(|error| match error {
            LoginError::Wrong => Code::WrongPassword,
            LoginError::Wait(_) => Code::Locked,
            LoginError::Password(_) | LoginError::Store(_) => {
                tracing::warn!(%error, agent = number, "an agent can't sign in");
                Code::Unavailable
            }
        })?;
        check_account(&agent, &given.phone, given.kind, now)?;
        if let Some(before) = self.session(number) {
            if !force {
                return Err(Code::AlreadySignedIn);
            }
            self.sign_out(&before, Reason::ForcedOut).await;
        }
        let sign = Sign {
            number,
            phone: given.phone,
            vdn: agent.vdn_id,
            inspector: agent.inspector,
            push: given.push,
            password: Some(agent.password),
        };
        let (session, guid) = Session::new(sign, &self.config.name);
        let session = Rc::new(session);
        self.sessions.borrow_mut().insert(number, Rc::clone(&session));
        session.tell("AgentOther_InService", Value::Null);
        session.tell("AgentState_Ready", Value::Null);
        match given.status {
            BUSY => session.tell("AgentState_SetNotReady_Success", Value::Null),
            WRAP_UP => session.tell("AgentState_Work", Value::Null),
            _ => {}
        }
        self.watch(Rc::clone(&session));
        if session.push.is_some() {
            push::start(session);
        }
        let left = agent.password_expires_at.map(|at| (at.as_second() - now.as_second()) / (24 * 3600));
        let result = json!({
            "vdnid": agent.vdn_id,
            "workno": number.to_string(),
            "mediatype": "TTF",
            "loginTime": now.as_millisecond().to_string(),
            "isForceChange": "false",
            "serverName": self.config.name,
            "timeRemaining": left.map(|days| days.to_string()).unwrap_or_default(),
        });
        Ok((result, guid))
    }

    fn read_sign_in(&self, params: &Params) -> Result<SignIn, Code> {
        let wrong = |_: Fault| Code::SignInParameter;
        // It may be empty, but has to be there.
        if !params.has("password") {
            return Err(Code::SignInParameter);
        }
        let password = params.text("password", PASSWORD_CHARS_MAX * 4).map_err(wrong)?.unwrap_or_default();
        if password.chars().count() > PASSWORD_CHARS_MAX {
            return Err(Code::SignInParameter);
        }
        let phone = params.text("phonenum", usize::MAX).map_err(wrong)?.ok_or(Code::SignInParameter)?;
        if phone.len() > ADDRESS_BYTES_MAX || phone.chars().any(char::is_control) {
            return Err(Code::WrongPhone);
        }
        let kind = match params.int("agenttype", 0..=u32::MAX).map_err(wrong)? {
            None | Some(4) => AgentKind::Audio,
            Some(11) => AgentKind::Video,
            Some(_) => return Err(Code::SignInParameter),
        };
        let status = params.int("status", BUSY..=WRAP_UP).map_err(wrong)?.unwrap_or(IDLE);
        for name in [
            "autoanswer",
            "autoenteridle",
            "releasephone",
            "phonelinkage",
            "checkInWebm",
            "checkInMailm",
            "listenStatus",
        ] {
            params.bool(name).map_err(wrong)?;
        }
        for name in ["vcPhoneNumber", "entryIp"] {
            params.text(name, usize::MAX).map_err(wrong)?;
        }
        if let Some(ip) = params.text("ip", usize::MAX).map_err(wrong)? {
            ip.parse::<Ipv4Addr>().map_err(|_| Code::WrongIp)?;
        }
        let uri = params.text("callBackUri", 200).map_err(wrong)?;
        let token = params.text("serviceToken", 50).map_err(wrong)?;
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
        {
            return Err(Code::SignInParameter);
        }
        let push = match (uri, token) {
            (Some(uri), Some(token)) => Some(self.push(uri, token)?),
            (Some(_) | None, Some(_) | None) => None,
        };
        Ok(SignIn { password: Password::new(password), phone: phone.to_owned(), kind, status, push })
    }

    /// How events are posted to an address, if they may be.
    fn push(&self, given: &str, token: &str) -> Result<Push, Code> {
        let uri: Uri = given.parse().map_err(|_| Code::SignInParameter)?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(self.callback_tls.clone().ok_or(Code::SignInParameter)?),
            Some(_) | None => return Err(Code::SignInParameter),
        };
        // A path that climbs is not below its prefix, whoever resolves it.
        let plain = uri.host().is_some()
            && uri.path().split('/').all(|part| part != "..")
            && !given.to_ascii_lowercase().contains("%2e");
        let allowed = self.config.callbacks.iter().any(|prefix| given.starts_with(prefix.as_str()));
        if plain && allowed { Ok(Push { uri, tls, token: token.to_owned() }) } else { Err(Code::SignInParameter) }
    }

    /// Ends a session; the agent leaves its conference.
    pub(super) async fn sign_out(&self, session: &Rc<Session>, reason: Reason) {
        let ours = {
            let mut sessions = self.sessions.borrow_mut();
            let ours = sessions.get(&session.number).is_some_and(|current| Rc::ptr_eq(current, session));
            if ours {
                sessions.remove(&session.number);
            }
            ours
        };
        session.end();
        if ours {
            self.forsake(session, reason).await;
        }
    }

    /// `logout`: not while the agent is in a call.
    pub(super) async fn log_out(&self, session: &Rc<Session>) -> Result<Done, Fault> {
        if session.conference.get().is_some() || self.invitation(session.number).is_some() {
            return Err(Code::SignOutState.into());
        }
        self.sign_out(session, Reason::SignedOut).await;
        Ok(Done::with(Value::Null))
    }
}

impl Session {
    /// Whether its agent may still be signed in, by what the database says now.
    fn holds(&self, agent: Option<&Agent>, now: Timestamp) -> bool {
        agent.is_some_and(|agent| {
            let expired = agent.password_expires_at.is_some_and(|at| at <= now);
            !agent.locked && !expired && self.password.as_ref() == Some(&agent.password)
        })
    }
}

/// Signs out whoever was removed, locked, has an expired password or another one than at the sign-in.
pub(super) async fn keep_up(own: Weak<Gateway>) {
    loop {
        sleep(UPKEEP).await;
        let Some(gateway) = own.upgrade() else { return };
        let Some(server) = gateway.server.upgrade() else { return };
        if gateway.sessions.borrow().is_empty() {
            continue;
        }
        let agents = match server.store.run(|connection| agents::list_all(connection)).await {
            Ok(agents) => agents,
            Err(error) => {
                tracing::warn!(%error, "can't see whether agents may stay signed in");
                continue;
            }
        };
        let now = Timestamp::now();
        let agents: BTreeMap<u32, Agent> = agents.into_iter().map(|agent| (agent.work_number, agent)).collect();
        let sessions: Vec<Rc<Session>> = gateway.sessions.borrow().values().cloned().collect();
        for session in sessions.iter().filter(|session| !session.holds(agents.get(&session.number), now)) {
            tracing::info!(agent = session.number, "an agent may not be signed in any more");
            gateway.sign_out(session, Reason::ForcedOut).await;
        }
    }
}

fn check_account(agent: &Agent, phone: &str, kind: AgentKind, now: Timestamp) -> Result<(), Code> {
    if agent.locked {
        return Err(Code::Locked);
    }
    if agent.password_expires_at.is_some_and(|at| at <= now) {
        return Err(Code::PasswordExpired);
    }
    if kind == AgentKind::Video && agent.kind == AgentKind::Audio {
        return Err(Code::WrongAgentType);
    }
    if agent.phone.as_deref().is_some_and(|only| only != phone) {
        return Err(Code::PhoneNotAllowed);
    }
    Ok(())
}

/// How often it is looked at who may stay signed in.
const UPKEEP: Duration = Duration::from_secs(5);
const PASSWORD_CHARS_MAX: usize = 32;
const BUSY: u32 = 3;
const IDLE: u32 = 4;
const WRAP_UP: u32 = 5;
