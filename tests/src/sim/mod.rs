//! Deterministic simulation: real engines on virtual time, a seeded network, a storm of commands, and checkers after
//! every step.
//!
//! | checked | where |
//! | --- | --- |
//! | gapless sequence numbers, time that runs forward, markers only where it jumps, one SSRC for life | `checks::Streams` |
//! | every command answered once, every connection, conference and operation ended once | `checks::Ledger` |
//! | nobody hears itself | `phone::Ear` |
//! | relayed bytes unaltered, no media to strangers, counters that balance, nothing left at the end | `world` |
//!
//! The same seed gives the same trace, byte for byte.

mod checks;
mod dice;
mod network;
mod parts;
mod phone;
mod world;

pub use world::Report;

/// Simulates eight seconds decided by `seed` alone.
///
/// # Panics
/// When a checker objects.
#[must_use]
pub fn run(seed: u64) -> Report {
    world::World::new(seed).run()
}
