//! The sans-IO core of ringbridge: packets, commands and the time go in; packets, events and the next
//! deadline come out.
//!
//! Nothing here reads a clock, opens a socket, spawns, waits or draws randomness. Time and the seed for SSRCs
//! and first sequence numbers are inputs, so every rule runs on virtual time and every failure can be replayed.
//!
//! One [`Engine`] belongs to one shard. The shard calls `handle_*`, then drains every `poll_*`, then waits.
#![forbid(unsafe_code)]

pub mod command;
pub mod event;
pub mod id;
pub mod limits;
pub mod port;
pub mod samples;
pub mod time;
