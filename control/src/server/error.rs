//! Why a server does not start.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::auth::PasswordError;
use crate::config::ConfigError;
use crate::socket::SocketError;
use crate::store::StoreError;
use crate::tls::TlsError;
use crate::web::WebError;

/// Why the server ended in any other way than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The library for G.729 can't be used.
    #[error("rtp.g729_library = \"{}\": {source}", path.display())]
    Codec {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ringbridge_codec::g729::LoadError,
    },
    /// A shard did not start.
    #[error("{0}")]
    Shard(Box<dyn Error + Send + Sync>),
    /// The machine or the limits of this process do not let a shard run.
    #[error(transparent)]
    Machine(#[from] ringbridge_shard::probe::Problem),
    /// Another server works on the same state.
    #[error(
        "another server uses the state directory {}: give each its own with --state-dir (or `state_dir` in the \
         configuration), or end the other one",
        .0.display()
    )]
    StateInUse(PathBuf),
    /// A directory can't be made.
    #[error("can't make the directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address can't be listened at.
    #[error("can't listen at {address} for {name}: {source}")]
    Listen {
        /// What for.
        name: &'static str,
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The listener of an API can't be opened.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Passwords can't be checked here.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The system refuses something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}
