//! The I/O edge of a shard: one glommio executor pinned to one core, a private io_uring ring for all packets, the
//! mailboxes to and from the control plane, the only clock.
//!
//! ```text
//!  control ──Mailbox (two bounded lanes + eventfd)──▶ run loop ──▶ Engine (media, sans-IO)
//!          ◀──Outbox  (bounded, doorbell eventfd)───      │
//!                                                     PacketIo: ring (kernel) or sim (virtual network)
//! ```

mod buffer;
pub mod clock;
pub mod executor;
pub mod io;
mod load;
pub mod mailbox;
mod moves;
pub mod partials;
pub mod probe;
pub mod ring;
pub mod run;
pub mod sim;
pub mod snapshot;
pub mod sockets;
