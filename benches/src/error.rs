//! What can end a measurement early.

use std::io;

/// Result with this package's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server answered a request with an error.
    #[error("{method}: {error}")]
    Refused {
        /// The method called.
        method: String,
        /// The server's error.
        error: crate::rpc::RpcError,
    },
    /// The server or a forwarder said something that is not in the contract.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The scenario could not be set up as asked for.
    #[error("{0}")]
    Setup(String),
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Wraps a system error with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
