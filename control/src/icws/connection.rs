//! Signing in, and the station of a session.

use std::net::IpAddr;
use std::rc::Rc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::fault::Fault;
use super::session::{Credentials, Session, Station};
use super::{Icws, features, mailbox};
use crate::auth::Password;
use crate::store::users::{Role, User};

/// Members of a request's body.
pub(super) type Body = Map<String, Value>;

/// Whoever signed in.
pub(super) struct SignedIn {
    pub(super) credentials: Credentials,
    pub(super) answer: Value,
}

/// Opens a session for who knows the password of a user that may use this API.
pub(super) async fn sign_in(icws: &Icws, source: IpAddr, body: &Body, include: &[String]) -> Result<SignedIn, Fault> {
    match required(body, "__type")?.strip_prefix(NAMESPACE) {
        Some("icAuthConnectionRequestSettings") => {}
        Some("authTokenConnectionRequestSettings" | "singleSignOnTokenConnectionRequestSettings") => {
            return Err(Fault::invalid("__type", "only icAuthConnectionRequestSettings is supported here"));
        }
        Some(_) | None => return Err(Fault::invalid("__type", "not a way to sign in")),
    }
    required(body, "applicationName")?;
    let (name, password) = (required(body, "userID")?, required(body, "password")?);
    for optional in ["marketPlaceApplicationLicenseName", "marketPlaceApplicationCode"] {
        text(body, optional)?;
    }
    if icws.server.is_draining() {
        return Err(Fault::not_accepting("the server is about to end"));
    }
    let user = icws.logins.user(std::time::Instant::now(), source, name, Password::new(password)).await?;
    if !user.has(Role::Icws) {
        return Err(crate::auth::LoginError::Wrong.into());
    }
    let station = user.station.clone().map(|station| Station {
        settings: json!({"__type": format!("{NAMESPACE}workstationSettings"), "workstation": station}),
        id: Some(station),
    });
    let credentials = icws.sessions.open(Instant::now(), &user.name, station)?;
    credentials.session.password.replace(Some(user.password.clone()));
    let answer = answer(&credentials, &user, include);
    Ok(SignedIn { credentials, answer })
}

/// Sets the station of a session.
pub(super) async fn set_station(icws: &Icws, session: &Rc<Session>, body: &Body) -> Result<(), Fault> {
    let kind = required(body, "__type")?;
    let property = match kind.strip_prefix(NAMESPACE) {
        Some("workstationSettings") => Some("workstation"),
        Some("remoteWorkstationSettings") => {
            let name = required(body, "workstation")?;
            if icws.station(name).await?.is_none() {
                return Err(Fault::invalid("workstation", format!("there is no station {name}")));
            }
            // The workstation is where the client is, the number, if given, where its telephone is.
            Some(if text(body, "remoteNumber")?.is_some() { "remoteNumber" } else { "workstation" })
        }
        Some("remoteNumberSettings") => Some("remoteNumber"),
        Some("stationlessSettings") => None,
        Some(_) | None => return Err(Fault::invalid("__type", "not a kind of station")),
    };
    for kept in ["workstation", "remoteNumber"] {
        // Kept and told again, needed or not.
        text(body, kept)?;
    }
    for flag in ["persistentConnection", "readyForInteractions"] {
        if body.get(flag).is_some_and(|value| !value.is_boolean() && !value.is_null()) {
            return Err(Fault::invalid(flag, format!("{flag} is true or false")));
        }
    }
    if body.get("stationConnectionMode").is_some_and(|mode| !mode.is_i64() && !mode.is_null()) {
        return Err(Fault::invalid("stationConnectionMode", "stationConnectionMode is a number"));
    }
    if let Some(types) = body.get("supportedMediaTypes").filter(|types| !types.is_null())
        && !types.as_array().is_some_and(|types| types.len() <= MEDIA_TYPES_MAX && types.iter().all(Value::is_i64))
    {
        let rule = format!("supportedMediaTypes is a list of up to {MEDIA_TYPES_MAX} numbers");
        return Err(Fault::invalid("supportedMediaTypes", rule));
    }
    let id = match property {
        None => None,
        Some(property) => {
            let name = required(body, property)?;
            let found = icws.station(name).await?;
            let id = found.ok_or_else(|| Fault::invalid(property, format!("there is no station {name}")))?;
            let of_others = |other: &Rc<Session>| {
                other.user != session.user
                    && other.station.borrow().as_ref().is_some_and(|station| station.id.as_ref() == Some(&id))
            };
            if icws.sessions.all().iter().any(of_others) {
                return Err(Fault::forbidden(format!("station {id} is in use by somebody else")));
            }
            Some(id)
        }
    };
    // What is not known is not kept: whatever it is, and however much.
    let is_kept = |name: &str, value: &Value| SETTINGS.contains(&name) && !value.is_null();
    let settings: Body =
        body.iter().filter(|(name, value)| is_kept(name, value)).map(|(n, v)| (n.clone(), v.clone())).collect();
    session.station.replace(Some(Station { id, settings: settings.into() }));
    Ok(())
}

/// What `GET` of the station answers.
pub(super) fn station(session: &Session) -> Value {
    let none = || json!({"__type": format!("{NAMESPACE}stationlessSettings")});
    session.station.borrow().as_ref().map_or_else(none, |station| station.settings.clone())
}

/// What `GET /icws/connection/version` answers.
pub(super) fn version() -> Value {
    let number = |text: &str| text.parse::<u32>().unwrap_or_default();
    json!({
        "majorVersion": number(env!("CARGO_PKG_VERSION_MAJOR")),
        "minorVersion": number(env!("CARGO_PKG_VERSION_MINOR")),
        "su": number(env!("CARGO_PKG_VERSION_PATCH")),
        "build": 0,
        "productId": "ringbridge",
        "codebaseId": env!("CARGO_PKG_VERSION"),
    })
}

/// What `GET /icws/connection/server-time` answers.
pub(super) fn server_time() -> Value {
    json!({"serverUtcTime": mailbox::utc(Timestamp::now())})
}

/// A member that has to be there, and to be a text that is not empty.
pub(super) fn required<'a>(body: &'a Body, name: &str) -> Result<&'a str, Fault> {
    match text(body, name)? {
        None => Err(Fault::missing(name)),
        Some("") => Err(Fault::invalid(name, format!("{name} is empty"))),
        Some(text) => Ok(text),
    }
}

/// A member that is a text, if it is there.
fn text<'a>(body: &'a Body, name: &str) -> Result<Option<&'a str>, Fault> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text)),
        Some(Value::String(_)) => Err(Fault::invalid(name, format!("{name} is longer than {TEXT_BYTES_MAX} bytes"))),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Fault::invalid(name, format!("{name} is a text")))
        }
    }
}

fn answer(credentials: &Credentials, user: &User, include: &[String]) -> Value {
    let mut answer = json!({
        "csrfToken": credentials.csrf.as_str(),
        "sessionId": credentials.session.id,
        "alternateHostList": [],
        "userID": user.name,
        "userDisplayName": user.display_name,
        "icServer": "ringbridge",
    });
    for included in include {
        match included.as_str() {
            "version" => answer["version"] = version(),
            "features" => answer["features"] = features().into(),
            "server-time" => answer["serverTimeInfo"] = server_time(),
            "default-workstation" => answer["defaultWorkstationId"] = user.station.clone().into(),
            "effective-station" => {
                answer["effectiveStation"] = match &user.station {
                    Some(station) => json!({"stationId": station}),
                    None => Value::Null,
                }
            }
            // What is not known is left out.
            _ => {}
        }
    }
    answer
}

/// What the types of this part of the API begin with.
pub(super) const NAMESPACE: &str = "urn:inin.com:connection:";
/// Members of a station's settings that are told again.
const SETTINGS: [&str; 7] = [
    "__type",
    "workstation",
    "remoteNumber",
    "persistentConnection",
    "supportedMediaTypes",
    "readyForInteractions",
    "stationConnectionMode",
];
/// Media types a client may name.
const MEDIA_TYPES_MAX: usize = 64;
/// Longest text of a request.
const TEXT_BYTES_MAX: usize = 1024;
