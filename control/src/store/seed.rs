//! What the configuration puts into the database: users, agents and keys that are not there yet. The database owns
//! them from then on; nothing that exists is ever changed from here.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Deserializer};

use super::agents::{self, Agent, AgentKind};
use super::keys::{self, ApiKey, Network, Scope};
use super::users::{self, Role, User};
use super::{StoreError, first};
use crate::auth::{KeyHash, Password, PasswordHash, Passwords};

/// One entry of `[[users]]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSeed {
    /// What the user logs in with.
    pub name: String,
    /// An Argon2id hash, as `ringbridge user hash` prints it. Either this or `password_file`.
    #[serde(default, deserialize_with = "optional_text")]
    pub password_hash: Option<PasswordHash>,
    /// A file whose first line is the password. Only read when the user is added.
    pub password_file: Option<PathBuf>,
    /// The name shown to people. Default: `name`.
    pub display_name: Option<String>,
    /// The number of the user's telephone.
    pub extension: Option<String>,
    /// The station the user sits at unless another is named.
    pub station: Option<String>,
    /// IANA name of the time zone times are shown in. Default: UTC.
    pub time_zone: Option<String>,
    /// What the user may do: `admin`, `icws`, `verba`.
    #[serde(default, deserialize_with = "texts")]
    pub roles: Vec<Role>,
}

/// One entry of `[[agents]]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSeed {
    /// What the agent signs in with, `101 ..= 999999`.
    pub work_number: u32,
    /// An Argon2id hash. One of this, `password_file` and `no_password`.
    #[serde(default, deserialize_with = "optional_text")]
    pub password_hash: Option<PasswordHash>,
    /// A file whose first line is the password. Only read when the agent is added.
    pub password_file: Option<PathBuf>,
    /// `true`: the agent signs in with an empty password, as many clients do.
    #[serde(default)]
    pub no_password: bool,
    /// The name shown to people. Default: the work number.
    pub display_name: Option<String>,
    /// The only number the agent may sign in with. Default: any.
    pub phone: Option<String>,
    /// The virtual call centre (VDN) the agent belongs to. Default: 1.
    pub vdn_id: Option<u32>,
    /// Whether the agent handles video too.
    #[serde(default)]
    pub video: bool,
    /// Whether the agent may query the conferences of others.
    #[serde(default)]
    pub inspector: bool,
}

/// One entry of `[[api_keys]]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySeed {
    /// Which application has the key.
    pub name: String,
    /// The SHA-256 of the key, 64 hexadecimal digits. Either this or `key_file`.
    #[serde(default, deserialize_with = "optional_text")]
    pub sha256: Option<KeyHash>,
    /// A file whose first line is the key. Only read when the key is added.
    pub key_file: Option<PathBuf>,
    /// What it opens: `mediacontrol`, `verba`.
    #[serde(deserialize_with = "texts")]
    pub scopes: Vec<Scope>,
    /// Addresses and networks it may be used from. Default: any.
    #[serde(default, deserialize_with = "texts")]
    pub networks: Vec<Network>,
    /// Whether calls need the token of a user besides it.
    #[serde(default)]
    pub requires_token: bool,
    /// From when on it is not accepted any more, as in `2027-01-31T00:00:00Z`. Default: never.
    #[serde(default, deserialize_with = "optional_text")]
    pub expires_at: Option<Timestamp>,
}

/// All that the configuration has of this kind.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Seeds {
    /// Users.
    pub users: Vec<UserSeed>,
    /// Agents.
    pub agents: Vec<AgentSeed>,
    /// Keys.
    pub api_keys: Vec<KeySeed>,
}

/// How many were added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Added {
    /// Users.
    pub users: usize,
    /// Agents.
    pub agents: usize,
    /// Keys.
    pub api_keys: usize,
}

impl Seeds {
    /// Checks what can be told without the database.
    ///
    /// # Errors
    /// A sentence with the first rule that is broken.
    pub fn check(&self) -> Result<(), String> {
        for user in &self.users {
            if user.password_hash.is_some() == user.password_file.is_some() {
                return Err(format!("user {}: give either `password_hash` or `password_file`", user.name));
            }
        }
        for agent in &self.agents {
            let given = [agent.password_hash.is_some(), agent.password_file.is_some(), agent.no_password];
            if given.into_iter().filter(|given| *given).count() != 1 {
                return Err(format!(
                    "agent {}: give one of `password_hash`, `password_file` and `no_password = true`",
                    agent.work_number
                ));
            }
        }
        for key in &self.api_keys {
            if key.sha256.is_some() == key.key_file.is_some() {
                return Err(format!("API key {}: give either `sha256` or `key_file`", key.name));
            }
            if key.scopes.is_empty() {
                return Err(format!("API key {}: give it at least one of the `scopes` mediacontrol, verba", key.name));
            }
        }
        let names = self.users.iter().map(|user| format!("user {}", user.name));
        let names = names.chain(self.agents.iter().map(|agent| format!("agent {}", agent.work_number)));
        let mut names: Vec<_> = names.chain(self.api_keys.iter().map(|key| format!("API key {}", key.name))).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("{} stands in the configuration twice", pair[0])),
            None => Ok(()),
        }
    }

    /// Adds what is not there yet.
    ///
    /// # Errors
    /// A file can't be read, a value breaks a rule, or the database fails. What was added before stays.
    pub fn apply(&self, connection: &mut Connection, now: Timestamp) -> Result<Added, StoreError> {
        let mut added = Added::default();
        for seed in &self.users {
            let known = "SELECT 1 FROM users WHERE name = ?1";
            if first(connection, known, [&seed.name], |_| Ok(()))?.is_some() {
                continue;
            }
            let what = format!("user {}", seed.name);
            let password = password(&what, seed.password_hash.as_ref(), seed.password_file.as_deref(), false)?;
            let user = User {
                display_name: seed.display_name.clone().unwrap_or_else(|| seed.name.clone()),
                extension: seed.extension.clone(),
                station: seed.station.clone(),
                time_zone: seed.time_zone.clone(),
                roles: seed.roles.clone(),
                ..User::new(seed.name.clone(), password)
            };
            added.users += usize::from(users::add_if_absent(connection, &user, now)?);
        }
        for seed in &self.agents {
            if agents::find(connection, seed.work_number)?.is_some() {
                continue;
            }
            let what = format!("agent {}", seed.work_number);
            let (hash, file) = (seed.password_hash.as_ref(), seed.password_file.as_deref());
            let mut agent = Agent::new(seed.work_number, password(&what, hash, file, seed.no_password)?);
            if let Some(display_name) = &seed.display_name {
                agent.display_name.clone_from(display_name);
            }
            agent.phone.clone_from(&seed.phone);
            agent.vdn_id = seed.vdn_id.unwrap_or(agent.vdn_id);
            agent.kind = if seed.video { AgentKind::Video } else { AgentKind::Audio };
            agent.inspector = seed.inspector;
            added.agents += usize::from(agents::add_if_absent(connection, &agent, now)?);
        }
        for seed in &self.api_keys {
            if keys::find(connection, &seed.name)?.is_some() {
                continue;
            }
            let hash = match (&seed.sha256, &seed.key_file) {
                (Some(hash), _) => *hash,
                (None, Some(file)) => KeyHash::of(&key_text(&seed.name, file)?),
                (None, None) => return Err(nothing(&format!("API key {}", seed.name))),
            };
            let key = ApiKey {
                networks: seed.networks.clone(),
                requires_token: seed.requires_token,
                expires_at: seed.expires_at,
                ..ApiKey::new(seed.name.clone(), hash, &seed.scopes)
            };
            added.api_keys += usize::from(keys::add_if_absent(connection, &key, now)?);
        }
        Ok(added)
    }
}

fn password(
    what: &str,
    hash: Option<&PasswordHash>,
    file: Option<&Path>,
    none: bool,
) -> Result<PasswordHash, StoreError> {
    if let Some(hash) = hash {
        return Ok(hash.clone());
    }
    let password = match file {
        Some(file) => {
            let password = Password::new(first_line(what, file)?);
            password.check().map_err(|rule| refused(what, file, &rule))?;
            password
        }
        None if none => Password::new(""),
        None => return Err(nothing(what)),
    };
    Passwords::hash_here(&password).map_err(|error| StoreError::Refused { rule: format!("{what}: {error}") })
}

fn key_text(name: &str, file: &Path) -> Result<String, StoreError> {
    let what = format!("API key {name}");
    let text = first_line(&what, file)?;
    if text.len() < KEY_BYTES_MIN {
        let rule = format!("a key has at least {KEY_BYTES_MIN} characters; `ringbridge key add` makes a good one");
        return Err(refused(&what, file, &rule));
    }
    Ok(text)
}

fn first_line(what: &str, file: &Path) -> Result<String, StoreError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| refused(what, file, &format!("can't read it: {error}")))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn refused(what: &str, file: &Path, why: &str) -> StoreError {
    StoreError::Refused { rule: format!("{what}: {}: {why}", file.display()) }
}

fn nothing(what: &str) -> StoreError {
    StoreError::Refused { rule: format!("{what}: neither a hash nor a file is given") }
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn optional_text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    // TOML has no null: what is there has a value.
    text(deserializer).map(Some)
}

fn texts<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

/// Shortest key.
const KEY_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::tests::{at, database, hash};
    use super::*;
    use crate::config::Config;

    fn seeds(text: &str) -> Seeds {
        toml::from_str::<Config>(text).unwrap().seeds()
    }

    #[test]
    fn what_is_not_there_is_added_and_nothing_else_is_touched() {
        let (dir, mut connection) = database();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        let password_file = file("anna", "a long password\nignored\n");
        let key_file = file("key", "0123456789abcdef\n");
        let text = format!(
            r#"
            [[users]]
            name = "anna"
            password_file = "{password_file}"
            extension = "7001"
            roles = ["icws"]
            [[users]]
            name = "berta"
            password_hash = "{berta}"
            display_name = "Berta B."
            station = "desk"
            time_zone = "Europe/Berlin"
            [[agents]]
            work_number = 101
            no_password = true
            phone = "8801"
            vdn_id = 3
            video = true
            inspector = true
            [[api_keys]]
            name = "crm"
            key_file = "{key_file}"
            scopes = ["verba"]
            networks = ["192.0.2.0/24"]
            requires_token = true
            expires_at = "2027-01-31T00:00:00Z"
            "#,
            berta = hash("b").as_str(),
        );
        let seeds = seeds(&text);
        seeds.check().unwrap();
        let added = seeds.apply(&mut connection, at(1)).unwrap();
        assert_eq!(added, Added { users: 2, agents: 1, api_keys: 1 });
        let anna = users::find(&connection, "anna").unwrap().unwrap();
        assert_eq!((anna.extension.as_deref(), &anna.roles[..]), (Some("7001"), &[Role::Icws][..]));
        let key = keys::find_valid(&connection, &KeyHash::of("0123456789abcdef"), at(1)).unwrap().unwrap();
        assert!(key.requires_token && !key.allows([203, 0, 113, 1].into()));
        let agent = agents::find(&connection, 101).unwrap().unwrap();
        assert_eq!((agent.vdn_id, agent.kind, agent.inspector), (3, AgentKind::Video, true));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let passwords = Passwords::new().unwrap();
            let right = passwords.verify(Password::new("a long password"), Some(anna.password.clone()));
            assert!(right.await.unwrap());
            assert!(passwords.verify(Password::new(""), Some(agent.password)).await.unwrap());
        });
        // The second start: the database owns them, and the files are not needed any more.
        users::set_password(&connection, "anna", &hash("new"), at(2)).unwrap();
        keys::revoke(&connection, "crm", at(2)).unwrap();
        std::fs::remove_file(dir.path().join("anna")).unwrap();
        std::fs::remove_file(dir.path().join("key")).unwrap();
        assert_eq!(seeds.apply(&mut connection, at(3)).unwrap(), Added::default());
        assert_eq!(users::find(&connection, "anna").unwrap().unwrap().password, hash("new"));
        assert!(keys::find(&connection, "crm").unwrap().unwrap().revoked_at.is_some());
    }

    #[test]
    fn entries_that_can_not_be_meant_are_refused() {
        for (text, part) in [
            ("[[users]]\nname = \"a\"", "either `password_hash`"),
            ("[[agents]]\nwork_number = 101", "no_password"),
            ("[[agents]]\nwork_number = 101\nno_password = true\npassword_file = \"x\"", "one of"),
            ("[[api_keys]]\nname = \"a\"\nscopes = [\"verba\"]", "either `sha256`"),
            ("[[api_keys]]\nname = \"a\"\nscopes = []\nkey_file = \"x\"", "at least one"),
            (
                "[[users]]\nname = \"a\"\npassword_file = \"x\"\n[[users]]\nname = \"a\"\npassword_file = \"x\"",
                "user a stands in the configuration twice",
            ),
        ] {
            let error = seeds(text).check().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("[[users]]\nname = \"a\"\npassword = \"x\"", "unknown field"),
            ("[[users]]\nname = \"a\"\npassword_hash = \"x\"", "Argon2id"),
            ("[[users]]\nname = \"a\"\nroles = [\"boss\"]", "no role"),
            ("[[api_keys]]\nname = \"a\"\nscopes = [\"all\"]", "no scope"),
            ("[[api_keys]]\nname = \"a\"\nscopes = []\nsha256 = \"12\"", "64 hexadecimal"),
            ("[[api_keys]]\nname = \"a\"\nscopes = []\nnetworks = [\"x\"]", "no address"),
            ("[[api_keys]]\nname = \"a\"\nscopes = []\nexpires_at = \"soon\"", "expires_at"),
        ] {
            let error = toml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn files_that_do_not_help_are_named() {
        let (dir, mut connection) = database();
        let path = dir.path().join("secret");
        let user = format!("[[users]]\nname = \"a\"\npassword_file = \"{}\"", path.display());
        let key = format!("[[api_keys]]\nname = \"k\"\nscopes = [\"verba\"]\nkey_file = \"{}\"", path.display());
        let mut apply = |text: &str| seeds(text).apply(&mut connection, at(1)).unwrap_err().to_string();
        assert!(apply(&user).contains("user a: ") && apply(&user).contains("can't read it"));
        std::fs::write(&path, "short\n").unwrap();
        assert!(apply(&user).contains("at least 8"));
        assert!(apply(&key).contains("at least 16"));
    }

    #[test]
    fn nothing_secret_shows_in_the_log() {
        let text = format!("[[users]]\nname = \"a\"\npassword_hash = \"{}\"", hash("x").as_str());
        let config = toml::from_str::<Config>(&text).unwrap();
        assert!(!format!("{config:?}").contains("argon2id"));
    }
}
