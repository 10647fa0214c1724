//! Agents of the AgentGateway API: work number, password, telephone.
//!
//! Who is signed in, with which telephone, is not here: a sign-in ends with the server, as its media do.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::error::is_conflict;
use super::{StoreError, all, check_name, first, optional_timestamp, transaction, word};
use crate::auth::PasswordHash;

/// An agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agent {
    /// What the agent signs in with, `101 ..= 999999`.
    pub work_number: u32,
    /// What is known of the password. Agents may have an empty one, which is hashed like any other.
    pub password: PasswordHash,
    /// The name shown to people.
    pub display_name: String,
    /// The only number the agent may sign in with; none: any.
    pub phone: Option<String>,
    /// The virtual call centre (VDN) the agent belongs to.
    pub vdn_id: u32,
    /// Which media the agent handles.
    pub kind: AgentKind,
    /// Whether the agent may query the conferences of others.
    pub inspector: bool,
    /// Whether signing in is barred.
    pub locked: bool,
    /// From when on the password is not accepted any more.
    pub password_expires_at: Option<Timestamp>,
}

/// Which media an agent handles (`agenttype`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AgentKind {
    /// 4
    Audio,
    /// 11
    Video,
}

impl Agent {
    /// An audio agent of VDN 1 with nothing special.
    pub fn new(work_number: u32, password: PasswordHash) -> Self {
        Self {
            work_number,
            password,
            display_name: work_number.to_string(),
            phone: None,
            vdn_id: 1,
            kind: AgentKind::Audio,
            inspector: false,
            locked: false,
            password_expires_at: None,
        }
    }
}

/// Adds an agent.
///
/// # Errors
/// [`StoreError::Exists`] if the work number is taken.
pub fn add(connection: &Connection, agent: &Agent, now: Timestamp) -> Result<(), StoreError> {
    check(agent)?;
    let sql = "INSERT INTO agents (work_number, password_hash, display_name, phone, vdn_id, agent_type, inspector, \
               locked, password_expires_at, created_at, updated_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)";
    match connection.execute(sql, row(agent, now)) {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => {
            Err(StoreError::Exists { what: "agent", id: agent.work_number.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Adds an agent unless the work number is known; whether it was added.
///
/// # Errors
/// The agent breaks a rule, or the database fails.
pub fn add_if_absent(connection: &mut Connection, agent: &Agent, now: Timestamp) -> Result<bool, StoreError> {
    transaction(connection, |connection| {
        if find(connection, agent.work_number)?.is_some() {
            return Ok(false);
        }
        add(connection, agent, now).map(|()| true)
    })
}

/// The agent of that work number.
///
/// # Errors
/// The database fails.
pub fn find(connection: &Connection, work_number: u32) -> Result<Option<Agent>, StoreError> {
    first(connection, "SELECT * FROM agents WHERE work_number = ?1", [work_number], read)
}

/// Every agent, by work number.
///
/// # Errors
/// The database fails.
pub fn list_all(connection: &Connection) -> Result<Vec<Agent>, StoreError> {
    all(connection, "SELECT * FROM agents ORDER BY work_number", [], read)
}

/// Sets everything of the agent of that work number.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn update(connection: &Connection, agent: &Agent, now: Timestamp) -> Result<(), StoreError> {
    check(agent)?;
    let sql = "UPDATE agents SET password_hash = ?2, display_name = ?3, phone = ?4, vdn_id = ?5, agent_type = ?6, \
               inspector = ?7, locked = ?8, password_expires_at = ?9, updated_at = ?10 WHERE work_number = ?1";
    found(connection.execute(sql, row(agent, now))?, agent.work_number)
}

/// Sets another password, which does not expire.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn set_password(
    connection: &Connection,
    work_number: u32,
    password: &PasswordHash,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql =
        "UPDATE agents SET password_hash = ?2, password_expires_at = NULL, updated_at = ?3 WHERE work_number = ?1";
    found(connection.execute(sql, params![work_number, password.as_str(), now.as_millisecond()])?, work_number)
}

/// Removes an agent.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn remove(connection: &Connection, work_number: u32) -> Result<(), StoreError> {
    found(connection.execute("DELETE FROM agents WHERE work_number = ?1", [work_number])?, work_number)
}

fn check(agent: &Agent) -> Result<(), StoreError> {
    if !(WORK_NUMBER_MIN..=WORK_NUMBER_MAX).contains(&agent.work_number) {
        let rule =
            format!("{} is no work number: it has to be {WORK_NUMBER_MIN} to {WORK_NUMBER_MAX}", agent.work_number);
        return Err(StoreError::Refused { rule });
    }
    check_name("display name", &agent.display_name)?;
    if let Some(phone) = &agent.phone {
        check_name("telephone number", phone)?;
        if phone.chars().count() > PHONE_CHARS_MAX {
            let rule = format!("a telephone number has at most {PHONE_CHARS_MAX} characters");
            return Err(StoreError::Refused { rule });
        }
    }
    Ok(())
}

fn found(changed: usize, work_number: u32) -> Result<(), StoreError> {
    if changed == 0 {
        return Err(StoreError::NotFound { what: "agent", id: work_number.to_string() });
    }
    Ok(())
}

fn row(agent: &Agent, now: Timestamp) -> impl rusqlite::Params {
    let kind = match agent.kind {
        AgentKind::Audio => AUDIO,
        AgentKind::Video => VIDEO,
    };
    (
        agent.work_number,
        agent.password.as_str().to_owned(),
        agent.display_name.clone(),
        agent.phone.clone(),
        agent.vdn_id,
        kind,
        agent.inspector,
        agent.locked,
        agent.password_expires_at.map(Timestamp::as_millisecond),
        now.as_millisecond(),
    )
}

fn read(row: &Row<'_>) -> rusqlite::Result<Agent> {
    let kind: u8 = row.get("agent_type")?;
    Ok(Agent {
        work_number: row.get("work_number")?,
        password: word(row, "password_hash")?,
        display_name: row.get("display_name")?,
        phone: row.get("phone")?,
        vdn_id: row.get("vdn_id")?,
        // Nothing else passes the table's check.
        kind: if kind == VIDEO { AgentKind::Video } else { AgentKind::Audio },
        inspector: row.get("inspector")?,
        locked: row.get("locked")?,
        password_expires_at: optional_timestamp(row, "password_expires_at")?,
    })
}

/// Work numbers lie between these.
pub const WORK_NUMBER_MIN: u32 = 101;
/// See [`WORK_NUMBER_MIN`].
pub const WORK_NUMBER_MAX: u32 = 999_999;
/// Longest telephone number.
const PHONE_CHARS_MAX: usize = 24;
const AUDIO: u8 = 4;
const VIDEO: u8 = 11;

#[cfg(test)]
mod tests {
    use super::super::tests::{at, database, hash};
    use super::*;

    #[test]
    fn an_agent_is_added_found_changed_and_removed() {
        let (_dir, mut connection) = database();
        let mut agent = Agent {
            phone: Some("8801".to_owned()),
            kind: AgentKind::Video,
            inspector: true,
            password_expires_at: Some(at(100)),
            ..Agent::new(101, hash("x"))
        };
        add(&connection, &agent, at(1)).unwrap();
        assert_eq!(find(&connection, 101).unwrap().as_ref(), Some(&agent));
        agent.kind = AgentKind::Audio;
        agent.locked = true;
        agent.vdn_id = 7;
        agent.phone = None;
        update(&connection, &agent, at(2)).unwrap();
        assert_eq!(find(&connection, 101).unwrap().as_ref(), Some(&agent));
        set_password(&connection, 101, &hash(""), at(3)).unwrap();
        assert_eq!(find(&connection, 101).unwrap().unwrap().password_expires_at, None);
        assert!(add_if_absent(&mut connection, &Agent::new(999_999, hash("x")), at(3)).unwrap());
        assert!(!add_if_absent(&mut connection, &Agent::new(101, hash("other")), at(3)).unwrap());
        let numbers: Vec<u32> = list_all(&connection).unwrap().iter().map(|agent| agent.work_number).collect();
        assert_eq!(numbers, [101, 999_999]);
        remove(&connection, 101).unwrap();
        assert_eq!(find(&connection, 101).unwrap(), None);
    }

    #[test]
    fn conflicts_missing_agents_and_wrong_numbers_are_refused() {
        let (_dir, connection) = database();
        add(&connection, &Agent::new(200, hash("x")), at(1)).unwrap();
        let twice = add(&connection, &Agent::new(200, hash("x")), at(1)).unwrap_err();
        assert_eq!(twice.to_string(), "agent 200 exists already");
        for number in [0, 100, 1_000_000] {
            let refused = add(&connection, &Agent::new(number, hash("x")), at(1));
            assert!(matches!(refused, Err(StoreError::Refused { .. })), "{number}");
        }
        let long = Agent { phone: Some("1".repeat(25)), ..Agent::new(201, hash("x")) };
        assert!(matches!(add(&connection, &long, at(1)), Err(StoreError::Refused { .. })));
        for result in [
            update(&connection, &Agent::new(300, hash("x")), at(2)),
            set_password(&connection, 300, &hash("x"), at(2)),
            remove(&connection, 300),
        ] {
            assert!(matches!(result, Err(StoreError::NotFound { what: "agent", .. })));
        }
    }
}
