//! One port of the ring and where it stands between open and closed.
//!
//! ```text
//!          open                connect: cancel               final completion
//!  Vacant ─────▶ Armed ────────────────────────▶ Stopping ─────────────────────▶ Draining
//!    ▲            ▲ ▲ │ └── empty datagram ────────│─│─────────────────────────────▶ │
//!    │            │ │ └─ no buffers ──▶ Starved    │ └─ disconnect ─▶ Armed          │
//!    │            │ └─────────────────────┘        │                                 │
//!    │            └────────────────────────────────│──────────────── queue empty ────┘
//!    └────────────────── Finished ◀────────────────┘ close: final completion
//! ```
//!
//! At most one receive of a port is with the kernel, and the next is armed only after the last one's final completion
//! has been delivered: that is what keeps the datagrams in order.

use std::net::{SocketAddr, UdpSocket};

use super::tag::Shape;

/// Where a port stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    /// Not in use.
    Vacant,
    /// A multishot receive is with the kernel.
    Armed(Shape),
    /// It has been cancelled; its final completion is not delivered yet.
    Stopping(Shape),
    /// It ended for want of buffers and waits for some.
    Starved(Shape),
    /// No receive is with the kernel; direct calls read the queue, telling source and end. After a connect, since what
    /// was queued before may be from anyone, and after an empty datagram.
    Draining,
    /// Nothing more to deliver; the file is taken out of the ring once all sends are done, or on request if it lingers.
    Finished,
}

/// A port of the ring.
pub(super) struct PortState {
    /// Kept open for as long as the ring uses it.
    pub(super) socket: Option<UdpSocket>,
    /// How often the slot has been used; 24 bits of it are in the tags.
    pub(super) generation: u32,
    pub(super) receiving: Receiving,
    /// The kernel has posted the final completion of the receive; it may still wait to be delivered.
    pub(super) ended: bool,
    pub(super) closing: bool,
    /// It stays in the ring for its sends when nothing more can be received.
    pub(super) lingers: bool,
    /// An IPv6 socket, which speaks IPv4 in IPv6 clothes.
    pub(super) is_v6: bool,
    /// Whom the kernel has connected the socket to, as the ring knows.
    pub(super) remote: Option<SocketAddr>,
    /// Whom plain datagrams are from that were received before a connect or disconnect, but not delivered yet.
    pub(super) former: Option<SocketAddr>,
    /// The kernel's count of receive drops when last read.
    pub(super) kernel_drops: u32,
    /// Sends dropped and not yet reported, and whether the port waits to report them.
    pub(super) buffer_full: u64,
    pub(super) refused: u64,
    pub(super) reporting: bool,
}

impl PortState {
    pub(super) const VACANT: Self = Self {
        socket: None,
        generation: 0,
        receiving: Receiving::Vacant,
        ended: false,
        closing: false,
        lingers: false,
        is_v6: false,
        remote: None,
        former: None,
        kernel_drops: 0,
        buffer_full: 0,
        refused: 0,
        reporting: false,
    };

    /// Whether the port can still be connected and disconnected.
    pub(super) fn is_open(&self) -> bool {
        !self.closing && !matches!(self.receiving, Receiving::Vacant | Receiving::Finished)
    }
}
