//! Logging in, the same for every API: throttle, look-up, password.
//!
//! Whether a name is unknown or its password wrong can't be told apart, neither by the answer nor by how long it takes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Instant;

use jiff::Timestamp;

use super::{KeyHash, Password, PasswordError, PasswordHash, Passwords, Throttle, ThrottleConfig, Wait};
use crate::store::agents::{self, Agent};
use crate::store::keys::{self, ApiKey, Scope};
use crate::store::users::{self, User};
use crate::store::{Store, StoreError};

/// Lets users, agents and applications in. One for all APIs, so that attempts are counted together.
#[derive(Debug)]
pub struct Logins {
    store: Store,
    passwords: Passwords,
    throttle: RefCell<Throttle>,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Unknown, or the password or key is wrong, or it may not be used from there or for that.
    #[error("unknown, or not with these credentials")]
    Wrong,
    /// There were too many attempts.
    #[error(transparent)]
    Wait(#[from] Wait),
    /// Passwords can't be checked now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The database can't be asked now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Logins {
    /// With nobody having tried yet. Takes as long as one password hash.
    ///
    /// # Errors
    /// Hashing does not work here.
    pub fn new(store: Store, throttle: ThrottleConfig) -> Result<Self, PasswordError> {
        Ok(Self { store, passwords: Passwords::new()?, throttle: RefCell::new(Throttle::new(throttle)) })
    }

    /// The user of that name, if that is the password. What the user may do is for the caller to see.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn user(&self, now: Instant, source: IpAddr, name: &str, password: Password) -> Result<User, LoginError> {
        self.throttle.borrow_mut().attempt(now, source, name)?;
        let wanted = name.to_owned();
        let user = self.store.run(move |connection| users::find(connection, &wanted)).await?;
        let stored = user.as_ref().map(|user| user.password.clone());
        self.check(now, source, name, password, stored, user).await
    }

    /// The agent of that work number, if that is the password. Whether the agent is locked, or the password expired,
    /// is for the caller to see.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn agent(
        &self,
        now: Instant,
        source: IpAddr,
        work_number: u32,
        password: Password,
    ) -> Result<Agent, LoginError> {
        // Not the name of a user: those do not begin with a control character.
        let name = format!("\u{1}{work_number}");
        self.throttle.borrow_mut().attempt(now, source, &name)?;
        let agent = self.store.run(move |connection| agents::find(connection, work_number)).await?;
        let stored = agent.as_ref().map(|agent| agent.password.clone());
        self.check(now, source, &name, password, stored, agent).await
    }

    /// The application that has that key, if it opens `scope`, from there, at `now`. Keys are too long to be guessed:
    /// attempts are not counted.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn key(&self, now: Timestamp, source: IpAddr, key: &str, scope: Scope) -> Result<ApiKey, LoginError> {
        let hash = KeyHash::of(key);
        let key = self.store.run(move |connection| keys::find_valid(connection, &hash, now)).await?;
        key.filter(|key| key.scopes.contains(&scope) && key.allows(source)).ok_or(LoginError::Wrong)
    }

    async fn check<T>(
        &self,
        now: Instant,
        source: IpAddr,
        name: &str,
        password: Password,
        stored: Option<PasswordHash>,
        found: Option<T>,
    ) -> Result<T, LoginError> {
        // Checked without a user too: it takes as long.
        let right = self.passwords.verify(password, stored).await?;
        let found = found.filter(|_| right).ok_or(LoginError::Wrong)?;
        self.throttle.borrow_mut().succeeded(now, source, name);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::path_in;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn logins(throttle: ThrottleConfig) -> (tempfile::TempDir, Logins) {
        let dir = tempfile::tempdir().unwrap();
        let connection = crate::store::connect(&path_in(dir.path())).unwrap();
        let hash = Passwords::hash_here(&Password::new("right one")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        users::add(&connection, &User::new("anna", hash.clone()), now).unwrap();
        agents::add(&connection, &Agent::new(101, hash), now).unwrap();
        let key = ApiKey {
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            ..ApiKey::new("crm", KeyHash::of("key"), &[Scope::Verba])
        };
        keys::add(&connection, &key, now).unwrap();
        let logins = Logins::new(Store::open(&path_in(dir.path())).unwrap(), throttle).unwrap();
        (dir, logins)
    }

    #[tokio::test]
    async fn only_right_credentials_let_in() {
        let (_dir, logins) = logins(ThrottleConfig::default());
        let now = Instant::now();
        let user = |name: &'static str, password: &str| logins.user(now, HERE, name, Password::new(password));
        assert_eq!(user("anna", "right one").await.unwrap().name, "anna");
        assert!(matches!(user("anna", "wrong one").await, Err(LoginError::Wrong)));
        assert!(matches!(user("nobody", "right one").await, Err(LoginError::Wrong)));
        let agent = |number, password: &str| logins.agent(now, HERE, number, Password::new(password));
        assert_eq!(agent(101, "right one").await.unwrap().work_number, 101);
        assert!(matches!(agent(102, "right one").await, Err(LoginError::Wrong)));
        let key = |key: &'static str, scope, source| logins.key(Timestamp::UNIX_EPOCH, source, key, scope);
        assert_eq!(key("key", Scope::Verba, HERE).await.unwrap().name, "crm");
        assert!(matches!(key("kez", Scope::Verba, HERE).await, Err(LoginError::Wrong)));
        assert!(matches!(key("key", Scope::MediaControl, HERE).await, Err(LoginError::Wrong)));
        assert!(matches!(key("key", Scope::Verba, [203, 0, 113, 1].into()).await, Err(LoginError::Wrong)));
    }

    #[tokio::test]
    async fn too_many_attempts_have_to_wait_even_with_the_right_password() {
        let (_dir, logins) = logins(ThrottleConfig { source_attempts: 2, ..ThrottleConfig::default() });
        let now = Instant::now();
        let user = |password: &str, now| logins.user(now, HERE, "anna", Password::new(password));
        user("right one", now).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(user("wrong one", now).await, Err(LoginError::Wrong)));
        }
        let Err(LoginError::Wait(Wait(wait))) = user("right one", now).await else { panic!("let in") };
        user("right one", now + wait).await.unwrap();
    }
}
