//! Load generator and honest measuring tool for the media server.
//!
//! It knows the server only by its control socket and by the packets that come back. The pieces: [`traffic`] sends and
//! receives, [`verify`] and [`listener`] judge what came back, [`mod@reference`] holds the forwarders the server is
//! compared with, [`scenario`] puts them together, [`report`] prints.

pub mod cli;
pub mod clock;
pub mod cpu;
pub mod error;
pub mod figures;
pub mod listener;
pub mod machine;
pub mod mulaw;
pub mod pacing;
pub mod packet;
pub mod progress;
pub mod reference;
pub mod report;
pub mod rpc;
pub mod scenario;
pub mod session;
pub mod signal;
#[expect(unsafe_code, reason = "the system calls the standard library does not offer, each behind a safe function")]
pub mod sys;
pub mod target;
#[cfg(test)]
mod testing;
pub mod traffic;
pub mod verify;
pub mod window;
