//! People: who may log in, with which telephone, in which roles.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::error::{is_conflict, is_dangling};
use super::{StoreError, all, check_name, first, json_list, list, timestamp, transaction, word};
use crate::auth::PasswordHash;

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// What the user logs in with. Case matters.
    pub name: String,
    /// What is known of the password.
    pub password: PasswordHash,
    /// The name shown to people.
    pub display_name: String,
    /// The number of the user's telephone; of one user only.
    pub extension: Option<String>,
    /// The station the user sits at unless another is named.
    pub station: Option<String>,
    /// IANA name of the time zone times are shown in; none: UTC.
    pub time_zone: Option<String>,
    /// What the user may do.
    pub roles: Vec<Role>,
}

/// What a user may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Everything.
    Admin,
    /// Open ICWS sessions and hear the own mailbox.
    Icws,
    /// Ask for tokens of the Verba API.
    Verba,
}

impl User {
    /// A user with nothing but a name and a password.
    pub fn new(name: impl Into<String>, password: PasswordHash) -> Self {
        let name = name.into();
        Self {
            display_name: name.clone(),
            name,
            password,
            extension: None,
            station: None,
            time_zone: None,
            roles: Vec::new(),
        }
    }

    /// Whether the user has a role; administrators have all.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }
}

/// Adds a user.
///
/// # Errors
/// [`StoreError::Exists`] if the name or extension is taken.
pub fn add(connection: &Connection, user: &User, now: Timestamp) -> Result<(), StoreError> {
    check(user)?;
    let sql = "INSERT INTO users (name, password_hash, display_name, extension, station, time_zone, roles, created_at, \
               updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";
    let row = params![
        user.name,
        user.password.as_str(),
        user.display_name,
        user.extension,
        user.station,
        user.time_zone,
        json_list(&user.roles),
        now.as_millisecond(),
    ];
    match connection.execute(sql, row) {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Err(taken(connection, user)?),
        Err(error) => Err(error.into()),
    }
}

/// Adds a user unless the name is known; whether it was added.
///
/// # Errors
/// [`StoreError::Exists`] if the extension is another user's.
pub fn add_if_absent(connection: &mut Connection, user: &User, now: Timestamp) -> Result<bool, StoreError> {
    transaction(connection, |connection| {
        if find(connection, &user.name)?.is_some() {
            return Ok(false);
        }
        add(connection, user, now).map(|()| true)
    })
}

/// The user of that name.
///
/// # Errors
/// The database fails.
pub fn find(connection: &Connection, name: &str) -> Result<Option<User>, StoreError> {
    first(connection, "SELECT * FROM users WHERE name = ?1", [name], read)
}

/// The user of that extension.
///
/// # Errors
/// The database fails.
pub fn find_by_extension(connection: &Connection, extension: &str) -> Result<Option<User>, StoreError> {
    first(connection, "SELECT * FROM users WHERE extension = ?1", [extension], read)
}

/// Every user, by name.
///
/// # Errors
/// The database fails.
pub fn list_all(connection: &Connection) -> Result<Vec<User>, StoreError> {
    all(connection, "SELECT * FROM users ORDER BY name", [], read)
}

/// Sets everything of the user of that name.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Exists`] if the extension is another user's.
pub fn update(connection: &Connection, user: &User, now: Timestamp) -> Result<(), StoreError> {
    check(user)?;
    let sql = "UPDATE users SET password_hash = ?2, display_name = ?3, extension = ?4, station = ?5, time_zone = ?6, \
               roles = ?7, updated_at = ?8 WHERE name = ?1";
    let row = params![
        user.name,
        user.password.as_str(),
        user.display_name,
        user.extension,
        user.station,
        user.time_zone,
        json_list(&user.roles),
        now.as_millisecond(),
    ];
    match connection.execute(sql, row) {
        Ok(changed) => found(changed, &user.name),
        Err(error) if is_conflict(&error) => Err(taken(connection, user)?),
        Err(error) => Err(error.into()),
    }
}

/// Sets another password.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn set_password(
    connection: &Connection,
    name: &str,
    password: &PasswordHash,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE users SET password_hash = ?2, updated_at = ?3 WHERE name = ?1";
    found(connection.execute(sql, params![name, password.as_str(), now.as_millisecond()])?, name)
}

/// Removes a user.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] while there are messages in the mailbox.
pub fn remove(connection: &Connection, name: &str) -> Result<(), StoreError> {
    match connection.execute("DELETE FROM users WHERE name = ?1", [name]) {
        Ok(changed) => found(changed, name),
        Err(error) if is_dangling(&error) => {
            let rule = format!("the mailbox of user {name} holds messages: delete them first");
            Err(StoreError::Refused { rule })
        }
        Err(error) => Err(error.into()),
    }
}

/// When a user was added and last changed.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn times(connection: &Connection, name: &str) -> Result<(Timestamp, Timestamp), StoreError> {
    let times = |row: &Row<'_>| Ok((timestamp(row, "created_at")?, timestamp(row, "updated_at")?));
    first(connection, "SELECT * FROM users WHERE name = ?1", [name], times)?
        .ok_or_else(|| StoreError::NotFound { what: "user", id: name.to_owned() })
}

fn check(user: &User) -> Result<(), StoreError> {
    check_name("user's name", &user.name)?;
    check_name("display name", &user.display_name)?;
    let optional = [("extension", &user.extension), ("station's name", &user.station), ("time zone", &user.time_zone)];
    for (what, value) in optional {
        if let Some(value) = value {
            check_name(what, value)?;
        }
    }
    Ok(())
}

fn found(changed: usize, name: &str) -> Result<(), StoreError> {
    if changed == 0 {
        return Err(StoreError::NotFound { what: "user", id: name.to_owned() });
    }
    Ok(())
}

/// Which of the two unique values is taken.
fn taken(connection: &Connection, user: &User) -> Result<StoreError, StoreError> {
    let other = match &user.extension {
        Some(extension) => find_by_extension(connection, extension)?.filter(|other| other.name != user.name),
        None => None,
    };
    Ok(match (other, &user.extension) {
        (Some(_), Some(extension)) => StoreError::Exists { what: "user with extension", id: extension.clone() },
        (Some(_) | None, _) => StoreError::Exists { what: "user", id: user.name.clone() },
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        name: row.get("name")?,
        password: word(row, "password_hash")?,
        display_name: row.get("display_name")?,
        extension: row.get("extension")?,
        station: row.get("station")?,
        time_zone: row.get("time_zone")?,
        roles: list(row, "roles")?,
    })
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Icws, Self::Verba];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Icws => "icws",
            Self::Verba => "verba",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.to_string() == text);
        role.ok_or_else(|| format!("`{text}` is no role: admin, icws or verba"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, database, hash};
    use super::*;

    #[test]
    fn a_user_is_added_found_changed_and_removed() {
        let (_dir, connection) = database();
        let mut anna = User {
            display_name: "Anna Ärmel".to_owned(),
            extension: Some("7001".to_owned()),
            station: Some("desk-1".to_owned()),
            time_zone: Some("Europe/Berlin".to_owned()),
            roles: vec![Role::Icws, Role::Verba],
            ..User::new("anna", hash("one"))
        };
        add(&connection, &anna, at(1)).unwrap();
        assert_eq!(find(&connection, "anna").unwrap().as_ref(), Some(&anna));
        assert_eq!(find_by_extension(&connection, "7001").unwrap().as_ref(), Some(&anna));
        assert_eq!(find(&connection, "Anna").unwrap(), None);
        anna.extension = None;
        anna.roles = vec![Role::Admin];
        update(&connection, &anna, at(2)).unwrap();
        assert_eq!(find(&connection, "anna").unwrap().as_ref(), Some(&anna));
        assert!(anna.has(Role::Icws), "an administrator has every role");
        set_password(&connection, "anna", &hash("two"), at(3)).unwrap();
        assert_ne!(find(&connection, "anna").unwrap().unwrap().password, anna.password);
        assert_eq!(times(&connection, "anna").unwrap(), (at(1), at(3)));
        add(&connection, &User::new("Anna", hash("x")), at(4)).unwrap();
        let names: Vec<String> = list_all(&connection).unwrap().into_iter().map(|user| user.name).collect();
        assert_eq!(names, ["Anna", "anna"]);
        remove(&connection, "anna").unwrap();
        assert_eq!(find(&connection, "anna").unwrap(), None);
    }

    #[test]
    fn conflicts_and_missing_users_are_told_apart() {
        let (_dir, mut connection) = database();
        let anna = User { extension: Some("1".to_owned()), ..User::new("anna", hash("x")) };
        let berta = User { extension: Some("2".to_owned()), ..User::new("berta", hash("x")) };
        add(&connection, &anna, at(1)).unwrap();
        add(&connection, &berta, at(1)).unwrap();
        let error = |result: Result<(), StoreError>| result.unwrap_err().to_string();
        assert_eq!(error(add(&connection, &anna, at(2))), "user anna exists already");
        let thief = User { extension: Some("1".to_owned()), ..User::new("thief", hash("x")) };
        assert_eq!(error(add(&connection, &thief, at(2))), "user with extension 1 exists already");
        let thief = User { extension: Some("1".to_owned()), ..berta };
        assert_eq!(error(update(&connection, &thief, at(2))), "user with extension 1 exists already");
        assert!(!add_if_absent(&mut connection, &User::new("anna", hash("other")), at(2)).unwrap());
        assert_eq!(find(&connection, "anna").unwrap(), Some(anna));
        assert!(add_if_absent(&mut connection, &User::new("carla", hash("x")), at(2)).unwrap());
        for result in [
            update(&connection, &User::new("nobody", hash("x")), at(2)),
            set_password(&connection, "nobody", &hash("x"), at(2)),
            remove(&connection, "nobody"),
        ] {
            assert!(matches!(result, Err(StoreError::NotFound { what: "user", .. })));
        }
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        let (_dir, connection) = database();
        for name in ["", " a", "a\n", "a\u{7}b", &"x".repeat(129)] {
            let refused = add(&connection, &User::new(name, hash("x")), at(1));
            assert!(matches!(refused, Err(StoreError::Refused { .. })), "{name:?}");
        }
        assert_eq!("janitor".parse::<Role>().unwrap_err(), "`janitor` is no role: admin, icws or verba");
    }
}
