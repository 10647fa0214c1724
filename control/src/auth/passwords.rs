//! Passwords: Argon2id with the parameters OWASP recommends (19 MiB, two passes, one lane).
//!
//! A hash takes tens of milliseconds of a core, on purpose. It is made on blocking threads, a few at a time, so
//! neither the control thread nor the database waits for it; who would have to queue for long is refused.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// A password as somebody gave it. It does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// As given.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether it is one to choose: 8 to 1024 bytes, without control characters.
    ///
    /// # Errors
    /// A sentence with the rule it breaks.
    pub fn check(&self) -> Result<(), String> {
        if self.0.chars().count() < PASSWORD_CHARS_MIN {
            return Err(format!("a password has at least {PASSWORD_CHARS_MIN} characters"));
        }
        if self.0.len() > PASSWORD_BYTES_MAX {
            return Err(format!("a password has at most {PASSWORD_BYTES_MAX} bytes"));
        }
        if self.0.chars().any(char::is_control) {
            return Err("a password holds no control characters".to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// An Argon2id hash as a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`. It does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The PHC string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PasswordHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "no Argon2id hash like $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH; `ringbridge user hash` makes one";
        let hash = phc::PasswordHash::new(text).map_err(|_| wrong.to_owned())?;
        let params = Params::try_from(&hash).map_err(|_| wrong.to_owned())?;
        if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
            return Err(wrong.to_owned());
        }
        // Each attempt costs as much as the hash says, whoever made it.
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
            return Err(format!(
                "an Argon2id hash that costs too much: at most m={MEMORY_KIB_MAX}, t={PASSES_MAX}, p={LANES_MAX}"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Why a password was neither accepted nor refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already.
    #[error("{0} logins wait already; try again in a while")]
    Busy(usize),
    /// Hashing failed.
    #[error("a password can't be hashed: {0}")]
    Hash(String),
}

/// Makes and checks hashes; cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    shared: Arc<Shared>,
}

struct Shared {
    params: Params,
    /// Checked when there is no such user, so that it takes as long.
    nobody: PasswordHash,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Passwords {
    /// With the recommended parameters. Takes as long as one hash.
    ///
    /// # Errors
    /// Hashing does not work here, for lack of memory for instance.
    pub fn new() -> Result<Self, PasswordError> {
        Self::with_params(Params::default())
    }

    fn with_params(params: Params) -> Result<Self, PasswordError> {
        let nobody = hash(&params, &rand::random::<[u8; 32]>())?;
        let turns = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Ok(Self { shared: Arc::new(Shared { params, nobody, turns, waiting: AtomicUsize::new(0) }) })
    }

    /// Hashes a password in this thread. For the command line; a server has [`hash`](Self::hash).
    ///
    /// # Errors
    /// [`PasswordError::Hash`].
    pub fn hash_here(password: &Password) -> Result<PasswordHash, PasswordError> {
        hash(&Params::default(), password.0.as_bytes())
    }

    /// Hashes a password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, PasswordError> {
        let shared = Arc::clone(&self.shared);
        self.turn(move || hash(&shared.params, password.0.as_bytes())).await?
    }

    /// Whether `password` is the one `stored` was made of. Takes as long without a user, when it is always false.
    ///
    /// # Errors
    /// [`PasswordError::Busy`].
    pub async fn verify(&self, password: Password, stored: Option<PasswordHash>) -> Result<bool, PasswordError> {
        let shared = Arc::clone(&self.shared);
        self.turn(move || {
            let known = stored.is_some();
            let stored = stored.as_ref().unwrap_or(&shared.nobody);
            let given = password.0.as_bytes();
            let fits = given.len() <= PASSWORD_BYTES_MAX;
            // Compared in constant time, with the parameters the hash was made with.
            let given = if fits { given } else { &[] };
            let matches = Argon2::default().verify_password(given, stored.as_str()).is_ok();
            matches & known & fits
        })
        .await
    }

    async fn turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let waiting = Waiting::new(&self.shared)?;
        let failed = |error: &dyn fmt::Display| PasswordError::Hash(error.to_string());
        let turn = Arc::clone(&self.shared.turns).acquire_owned().await.map_err(|error| failed(&error))?;
        // A hash that has begun goes on when nobody waits for it any more: its turn ends with it, not with us.
        let work = move || {
            let done = work();
            drop((turn, waiting));
            done
        };
        spawn_blocking(work).await.map_err(|error| failed(&error))
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("waiting", &self.shared.waiting).finish_non_exhaustive()
    }
}

/// One that waits or has its turn; whoever gives up waiting does not count any more.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn new(shared: &Arc<Shared>) -> Result<Self, PasswordError> {
        if shared.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(PasswordError::Busy(WAITING_MAX));
        }
        Ok(Self(Arc::clone(shared)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash(params: &Params, password: &[u8]) -> Result<PasswordHash, PasswordError> {
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let salt: [u8; 16] = rand::random();
    let hash: phc::PasswordHash =
        argon.hash_password_with_salt(password, &salt).map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(PasswordHash(hash.to_string()))
}

/// Shortest password that can be chosen.
const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Hashes made at the same time: 19 MiB and a core each.
const AT_ONCE_MAX: usize = 2;
/// Logins that wait or are looked at.
const WAITING_MAX: usize = 64;
/// What a hash from elsewhere may cost.
const MEMORY_KIB_MAX: u32 = 262_144;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn quick() -> Passwords {
        Passwords::with_params(Params::new(8, 1, 1, None).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_accepted() {
        let passwords = quick();
        let stored = passwords.hash(Password::new("right and long")).await.unwrap();
        let other = passwords.hash(Password::new("right and long")).await.unwrap();
        assert_ne!(stored, other, "the salt is random");
        let verify =
            |password: &str, stored: Option<&PasswordHash>| passwords.verify(Password::new(password), stored.cloned());
        assert!(verify("right and long", Some(&stored)).await.unwrap());
        assert!(!verify("wrong", Some(&stored)).await.unwrap());
        assert!(!verify("", Some(&stored)).await.unwrap());
        assert!(!verify("right and long", None).await.unwrap());
        let empty = passwords.hash(Password::new("")).await.unwrap();
        assert!(verify("", Some(&empty)).await.unwrap());
        assert!(!verify(&"x".repeat(PASSWORD_BYTES_MAX + 1), Some(&empty)).await.unwrap());
        assert!(!verify("", None).await.unwrap());
    }

    #[test]
    fn the_recommended_parameters_are_used() {
        let hash = Passwords::hash_here(&Password::new("correct horse")).unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        assert_eq!(hash.as_str().parse::<PasswordHash>().unwrap(), hash);
        let passwords = Passwords::new().unwrap();
        assert!(passwords.shared.nobody.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn only_argon2id_is_taken() {
        for text in [
            "",
            "secret",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$K5gX8ZdzOPhZkzZzQ7nqFQ",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        ] {
            assert!(text.parse::<PasswordHash>().unwrap_err().contains("Argon2id"), "{text}");
        }
        let costly = Passwords::hash_here(&Password::new("x")).unwrap().0.replace("m=19456", "m=99999999");
        assert!(costly.parse::<PasswordHash>().unwrap_err().contains("costs too much"));
    }

    #[tokio::test]
    async fn too_many_logins_are_refused_and_forgotten_when_done() {
        let passwords = quick();
        let turns = passwords.shared.turns.acquire_many(2).await.unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| Box::pin(passwords.verify(Password::new("x"), None))).collect();
        for login in &mut waiting {
            assert!(futures_pending(login));
        }
        assert!(matches!(passwords.verify(Password::new("x"), None).await, Err(PasswordError::Busy(_))));
        // One gives up: there is room again.
        waiting.pop();
        waiting.push(Box::pin(passwords.verify(Password::new("x"), None)));
        drop(turns);
        for login in waiting {
            assert!(!login.await.unwrap());
        }
        assert_eq!(passwords.shared.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_hash_nobody_waits_for_keeps_its_turn_until_it_is_done() {
        let passwords = quick();
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let mut given_up = Box::pin(passwords.turn(move || told.recv()));
        assert!(futures_pending(&mut given_up));
        drop(given_up);
        let shared = &passwords.shared;
        assert_eq!((shared.turns.available_permits(), shared.waiting.load(Ordering::Relaxed)), (AT_ONCE_MAX - 1, 1));
        drop(go_on);
        let all = u32::try_from(AT_ONCE_MAX).unwrap();
        drop(shared.turns.acquire_many(all).await.unwrap());
        while shared.waiting.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn futures_pending<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_pending()
    }

    #[test]
    fn nothing_shows_in_logs() {
        assert_eq!(format!("{:?}", Password::new("hunter2hunter2")), "Password(…)");
        let hash = Passwords::hash_here(&Password::new("x")).unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    }

    #[test]
    fn passwords_to_choose_follow_the_rules() {
        Password::new("long enough").check().unwrap();
        for (text, part) in [("short", "at least 8"), ("tab\tis in here", "control")] {
            assert!(Password::new(text).check().unwrap_err().contains(part));
        }
        assert!(Password::new("x".repeat(1025)).check().unwrap_err().contains("at most"));
    }
}
