//! Who may do what: passwords, tokens and keys, and how often somebody may try.
//!
//! Nothing here reads a clock: the time is passed in. What has to outlive a restart is in [`crate::store`].

pub mod login;
pub mod passwords;
pub mod throttle;
pub mod tokens;

pub use login::{LoginError, Logins};
pub use passwords::{Password, PasswordError, PasswordHash, Passwords};
pub use throttle::{Throttle, ThrottleConfig, Wait};
pub use tokens::{KeyHash, Token, Tokens};
