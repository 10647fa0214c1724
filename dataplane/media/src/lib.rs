//! The sans-IO core of ringbridge: packets, commands and the time go in; packets, events and the next
//! deadline come out.
//!
//! Nothing here reads a clock, opens a socket, spawns, waits or draws randomness. Time and the seed for SSRCs
//! and first sequence numbers are inputs, so every rule runs on virtual time and every failure can be replayed.
//!
//! One [`engine::Engine`] belongs to one shard. The shard calls `handle_*`, then drains every `poll_*`, then waits.
#![forbid(unsafe_code)]

mod adjust;
mod bucket;
pub mod bursts;
pub mod command;
mod conference;
mod connection;
pub mod digits;
mod direct;
mod e_model;
pub mod engine;
pub mod event;
mod execute;
pub mod id;
mod ingress;
mod latch;
mod levels;
pub mod limits;
mod listen;
pub mod moving;
mod op;
mod outlet;
mod outputs;
pub mod parts;
pub mod playout;
pub mod port;
mod receiver;
pub mod reports;
mod rng;
mod rtcp;
pub mod samples;
mod sender;
mod talk;
pub mod time;
mod tones;
mod wheel;
