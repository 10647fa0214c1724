//! API keys: one for each application, known by the SHA-256 of their text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::error::is_conflict;
use super::{StoreError, all, check_name, first, json_list, list, optional_timestamp, timestamp, transaction};
use crate::auth::KeyHash;

/// An API key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiKey {
    /// Which application has it; shows in the audit log. A name is never used for a second key.
    pub name: String,
    /// What is known of the key.
    pub hash: KeyHash,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; none: anywhere.
    pub networks: Vec<Network>,
    /// Whether calls need the token of a user besides it.
    pub requires_token: bool,
    /// From when on it is not accepted any more.
    pub expires_at: Option<Timestamp>,
}

/// An API key with what happened to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRecord {
    /// The key.
    pub key: ApiKey,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// What a key opens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// The MediaControl API.
    MediaControl,
    /// The Verba API.
    Verba,
}

/// Addresses that start alike, as in `192.0.2.0/24`; or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl ApiKey {
    /// A key that never expires and may be used from anywhere.
    pub fn new(name: impl Into<String>, hash: KeyHash, scopes: &[Scope]) -> Self {
        let scopes = scopes.to_vec();
        Self { name: name.into(), hash, scopes, networks: Vec::new(), requires_token: false, expires_at: None }
    }

    /// Whether it may be used from that address.
    pub fn allows(&self, source: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(source))
    }
}

/// Adds a key.
///
/// # Errors
/// [`StoreError::Exists`] if there is or was one of that name, or the same key under another.
pub fn add(connection: &Connection, key: &ApiKey, now: Timestamp) -> Result<(), StoreError> {
    check_name("key's name", &key.name)?;
    let sql = "INSERT INTO api_keys (name, sha256, scopes, networks, requires_token, created_at, expires_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let row = params![
        key.name,
        key.hash.as_bytes(),
        json_list(&key.scopes),
        json_list(&key.networks),
        key.requires_token,
        now.as_millisecond(),
        key.expires_at.map(Timestamp::as_millisecond),
    ];
    match connection.execute(sql, row) {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Err(StoreError::Exists { what: "API key", id: key.name.clone() }),
        Err(error) => Err(error.into()),
    }
}

/// Adds a key unless there is or was one of that name: what was revoked stays so. Whether it was added.
///
/// # Errors
/// [`StoreError::Exists`] if the same key has another name.
pub fn add_if_absent(connection: &mut Connection, key: &ApiKey, now: Timestamp) -> Result<bool, StoreError> {
    transaction(connection, |connection| {
        if find(connection, &key.name)?.is_some() {
            return Ok(false);
        }
        add(connection, key, now).map(|()| true)
    })
}

/// The key with that hash, if it is accepted at `now`: neither revoked nor expired. Whether it opens what is asked
/// for, from where it is asked, is for the caller to see.
///
/// # Errors
/// The database fails.
pub fn find_valid(connection: &Connection, hash: &KeyHash, now: Timestamp) -> Result<Option<ApiKey>, StoreError> {
    let sql = "SELECT * FROM api_keys WHERE sha256 = ?1 AND revoked_at IS NULL \
               AND (expires_at IS NULL OR expires_at > ?2)";
    let found = first(connection, sql, params![hash.as_bytes(), now.as_millisecond()], read)?;
    Ok(found.map(|record| record.key))
}

/// The key of that name, revoked or not.
///
/// # Errors
/// The database fails.
pub fn find(connection: &Connection, name: &str) -> Result<Option<KeyRecord>, StoreError> {
    first(connection, "SELECT * FROM api_keys WHERE name = ?1", [name], read)
}

/// Every key, by name.
///
/// # Errors
/// The database fails.
pub fn list_all(connection: &Connection) -> Result<Vec<KeyRecord>, StoreError> {
    all(connection, "SELECT * FROM api_keys ORDER BY name", [], read)
}

/// Revokes a key for good. The second time nothing changes.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn revoke(connection: &Connection, name: &str, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE name = ?1";
    if connection.execute(sql, params![name, now.as_millisecond()])? == 0 {
        return Err(StoreError::NotFound { what: "API key", id: name.to_owned() });
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    Ok(KeyRecord {
        key: ApiKey {
            name: row.get("name")?,
            hash: KeyHash::from_bytes(row.get("sha256")?),
            scopes: list(row, "scopes")?,
            networks: list(row, "networks")?,
            requires_token: row.get("requires_token")?,
            expires_at: optional_timestamp(row, "expires_at")?,
        },
        created_at: timestamp(row, "created_at")?,
        revoked_at: optional_timestamp(row, "revoked_at")?,
    })
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::MediaControl, Self::Verba];
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MediaControl => "mediacontrol",
            Self::Verba => "verba",
        })
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scope = Self::ALL.into_iter().find(|scope| scope.to_string() == text);
        scope.ok_or_else(|| format!("`{text}` is no scope: mediacontrol or verba"))
    }
}

impl Network {
    /// Whether an address is in it. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differs = base.to_bits() ^ address.to_bits();
                differs.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differs = base.to_bits() ^ address.to_bits();
                differs.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address or network like 192.0.2.0/24");
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let prefix_max = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(prefix_max);
        if prefix > prefix_max {
            return Err(wrong());
        }
        Ok(Self { base, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, database};
    use super::*;
    use crate::auth::Token;

    #[test]
    fn a_key_is_valid_until_it_expires_or_is_revoked() {
        let (_dir, mut connection) = database();
        let token = Token::random();
        let key = ApiKey {
            networks: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            requires_token: true,
            expires_at: Some(at(100)),
            ..ApiKey::new("crm", token.hash(), &[Scope::Verba])
        };
        add(&connection, &key, at(1)).unwrap();
        let valid = |connection: &Connection, text: &str, now| find_valid(connection, &KeyHash::of(text), now).unwrap();
        assert_eq!(valid(&connection, token.as_str(), at(99)).as_ref(), Some(&key));
        assert_eq!(valid(&connection, token.as_str(), at(100)), None);
        assert_eq!(valid(&connection, "guessed", at(2)), None);
        revoke(&connection, "crm", at(50)).unwrap();
        revoke(&connection, "crm", at(60)).unwrap();
        assert_eq!(valid(&connection, token.as_str(), at(51)), None);
        let records = list_all(&connection).unwrap();
        assert_eq!(records, [KeyRecord { key: key.clone(), created_at: at(1), revoked_at: Some(at(50)) }]);
        // The configuration can't bring it back.
        assert!(!add_if_absent(&mut connection, &key, at(70)).unwrap());
        assert_eq!(valid(&connection, token.as_str(), at(71)), None);
    }

    #[test]
    fn the_key_itself_is_not_in_the_file() {
        let (dir, connection) = database();
        let token = Token::random();
        add(&connection, &ApiKey::new("crm", token.hash(), &[]), at(1)).unwrap();
        drop(connection);
        let bytes = std::fs::read(dir.path().join("x.db")).unwrap();
        assert!(bytes.windows(32).any(|window| window == token.hash().as_bytes()));
        assert!(!bytes.windows(43).any(|window| window == token.as_str().as_bytes()));
    }

    #[test]
    fn conflicts_and_missing_keys_are_told_apart() {
        let (_dir, mut connection) = database();
        let key = ApiKey::new("one", KeyHash::of("k"), &Scope::ALL);
        add(&connection, &key, at(1)).unwrap();
        let same_name = ApiKey::new("one", KeyHash::of("other"), &[]);
        assert!(matches!(add(&connection, &same_name, at(1)), Err(StoreError::Exists { .. })));
        let same_key = ApiKey::new("two", KeyHash::of("k"), &[]);
        assert!(matches!(add(&connection, &same_key, at(1)), Err(StoreError::Exists { .. })));
        assert!(matches!(add_if_absent(&mut connection, &same_key, at(1)), Err(StoreError::Exists { .. })));
        assert!(matches!(revoke(&connection, "two", at(1)), Err(StoreError::NotFound { .. })));
        assert_eq!(find(&connection, "two").unwrap(), None);
    }

    #[test]
    fn networks_hold_what_they_say() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:192.0.2.6"),
        ] {
            let key = ApiKey { networks: vec![network.parse().unwrap()], ..ApiKey::new("x", KeyHash::of("x"), &[]) };
            assert!(key.allows(inside.parse().unwrap()), "{network} {inside}");
            assert!(!key.allows(outside.parse().unwrap()), "{network} {outside}");
        }
        for wrong in ["", "192.0.2.0/33", "::/129", "host", "192.0.2.0/", "192.0.2.0/x"] {
            wrong.parse::<Network>().unwrap_err();
        }
        assert!(ApiKey::new("x", KeyHash::of("x"), &[]).allows("192.0.2.1".parse().unwrap()));
    }
}
