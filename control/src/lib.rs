//! The control plane of ringbridge: text, files and ports on this side, small commands and events on the other.
//!
//! ```text
//!  clients ── socket ── proto ── methods ──▶ router ──▶ mailboxes ──▶ shards
//!                │                  │           │                       │
//!             events ◀── server ◀───┴─ registry ┴────── outboxes ◀──────┘
//! ```
//!
//! Everything runs on one thread, so state is plain and nothing is locked. A command never waits for media, and
//! losing a client stops none.
#![forbid(unsafe_code)]

pub mod agentgateway;
mod apis;
pub mod audit;
pub mod auth;
pub mod begin;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod events;
pub mod files;
pub mod gate;
pub mod icws;
pub mod mediacontrol;
pub mod methods;
pub mod metrics;
pub mod openrpc;
pub mod placement;
pub mod ports;
pub mod preparing;
pub mod proto;
pub mod quota;
pub mod rebalance;
pub mod registry;
pub mod router;
pub mod server;
pub mod socket;
mod stop;
pub mod store;
pub mod tickets;
pub mod tls;
mod urlencoded;
mod verba;
pub mod web;

#[cfg(test)]
mod tests;
