//! Logging in, the same for every API: throttle, look-up, password.
//!
//! Whether a name is unknown or its password wrong can't be told apart, neither by the answer nor by how long it takes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};

use super::throttle::{Attempt, Refused};
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
    /// An attempt has ended: others may have become possible.
    ended: Notify,
    /// Places of those that wait for that.
    queue: Semaphore,
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
        Ok(Self {
            store,
            passwords: Passwords::new()?,
            throttle: RefCell::new(Throttle::new(throttle)),
            ended: Notify::new(),
            queue: Semaphore::new(QUEUE_MAX),
        })
    }

    /// The user of that name, if that is the password. What the user may do is for the caller to see.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn user(&self, now: Instant, source: IpAddr, name: &str, password: Password) -> Result<User, LoginError> {
        let trying = self.begin(now, source, name).await?;
        let wanted = name.to_owned();
        let found = self.store.run(move |connection| users::find(connection, &wanted)).await;
        trying.end(self.check(password, found, |user| &user.password).await)
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
        let trying = self.begin(now, source, &name).await?;
        let found = self.store.run(move |connection| agents::find(connection, work_number)).await;
        trying.end(self.check(password, found, |agent| &agent.password).await)
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

    /// Waits for others that are trying, if they may use up what is left.
    async fn begin(&self, now: Instant, source: IpAddr, name: &str) -> Result<Trying<'_>, Wait> {
        let mut place = None;
        loop {
            // Registered before the look, so nothing is missed between them.
            let ended = self.ended.notified();
            let begun = self.throttle.borrow_mut().begin(now, source, name);
            match begun {
                Ok(attempt) => return Ok(Trying { logins: self, now, attempt: Some(attempt) }),
                Err(Refused::Wait(wait)) => return Err(wait),
                Err(Refused::InFlight) => {}
            }
            if place.is_none() {
                place = Some(self.queue.try_acquire().map_err(|_| Wait(QUEUE_REST))?);
            }
            ended.await;
        }
    }

    async fn check<T>(
        &self,
        password: Password,
        found: Result<Option<T>, StoreError>,
        stored: impl Fn(&T) -> &PasswordHash,
    ) -> Result<T, LoginError> {
        let found = found?;
        // Checked without a user too: it takes as long.
        let right = self.passwords.verify(password, found.as_ref().map(|found| stored(found).clone())).await?;
        found.filter(|_| right).ok_or(LoginError::Wrong)
    }
}

/// An attempt that is being made. One that is given up in the middle counts as a wrong one: its hash is made all the
/// same.
struct Trying<'a> {
    logins: &'a Logins,
    now: Instant,
    attempt: Option<Attempt>,
}

impl Trying<'_> {
    /// Only who was wrong pays.
    fn end<T>(mut self, answer: Result<T, LoginError>) -> Result<T, LoginError> {
        self.settle(matches!(answer, Err(LoginError::Wrong)));
        answer
    }

    fn settle(&mut self, wrong: bool) {
        if let Some(attempt) = self.attempt.take() {
            self.logins.throttle.borrow_mut().end(self.now, attempt, wrong);
            self.logins.ended.notify_waiters();
        }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.settle(true);
    }
}

/// Attempts that wait for others of the same source or on the same user, all together.
const QUEUE_MAX: usize = 64;
/// When to come back if there is no place to wait.
const QUEUE_REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{JoinSet, LocalSet};

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

    /// What eight attempts at one moment are answered.
    async fn together(logins: Rc<Logins>, password: &'static str) -> Vec<Result<User, LoginError>> {
        let now = Instant::now();
        let local = LocalSet::new();
        let mut all = JoinSet::new();
        for _ in 0..8 {
            let logins = Rc::clone(&logins);
            let attempt = async move { logins.user(now, HERE, "anna", Password::new(password)).await };
            all.spawn_local_on(attempt, &local);
        }
        local.run_until(all.join_all()).await
    }

    #[tokio::test]
    async fn right_ones_at_one_moment_are_all_let_in() {
        let (_dir, logins) = logins(ThrottleConfig { source_attempts: 2, ..ThrottleConfig::default() });
        for answer in together(Rc::new(logins), "right one").await {
            answer.unwrap();
        }
    }

    #[tokio::test]
    async fn wrong_ones_at_one_moment_are_no_more_than_allowed() {
        let (_dir, logins) = logins(ThrottleConfig { source_attempts: 2, ..ThrottleConfig::default() });
        let logins = Rc::new(logins);
        let answers = together(Rc::clone(&logins), "wrong one").await;
        let wrong = answers.iter().filter(|answer| matches!(answer, Err(LoginError::Wrong))).count();
        let refused = answers.iter().filter(|answer| matches!(answer, Err(LoginError::Wait(_)))).count();
        assert_eq!((wrong, refused), (2, 6));
        assert_eq!(logins.queue.available_permits(), QUEUE_MAX);
    }

    #[tokio::test]
    async fn one_that_could_not_be_checked_costs_nothing_and_one_given_up_does() {
        let (_dir, logins) = logins(ThrottleConfig { source_attempts: 1, ..ThrottleConfig::default() });
        let now = Instant::now();
        for error in [LoginError::Password(PasswordError::Busy(1)), LoginError::Store(StoreError::Closed)] {
            let trying = logins.begin(now, HERE, "anna").await.unwrap();
            trying.end::<()>(Err(error)).unwrap_err();
        }
        drop(logins.begin(now, HERE, "anna").await.unwrap());
        let Err(Wait(_)) = logins.begin(now, HERE, "anna").await else { panic!("let in") };
    }

    #[tokio::test]
    async fn too_many_that_wait_are_sent_away() {
        let (_dir, logins) = logins(ThrottleConfig { source_attempts: 1, ..ThrottleConfig::default() });
        let now = Instant::now();
        let first = logins.begin(now, HERE, "anna").await.unwrap();
        let places = logins.queue.acquire_many(u32::try_from(QUEUE_MAX).unwrap()).await.unwrap();
        let Err(Wait(QUEUE_REST)) = logins.begin(now, HERE, "anna").await else { panic!("let in") };
        drop(places);
        first.end(Ok(())).unwrap();
        logins.begin(now, HERE, "anna").await.unwrap().end(Ok(())).unwrap();
    }
}
