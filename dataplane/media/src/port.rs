//! What crosses the line between the engine and the packet I/O: ports, datagrams and what becomes of them.

use core::net::SocketAddr;

/// One local UDP socket of a connection on this shard: the connection's slot on *this* shard, and which of its two
/// sockets is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Port {
    /// Slot of the connection in this shard's table; the ring's registered files use `2 * slot + rtcp`.
    pub slot: u32,
    /// `false` the RTP socket (even port), `true` the RTCP socket (odd port).
    pub rtcp: bool,
}

impl Port {
    /// The RTP socket of `slot`.
    pub const fn rtp(slot: u32) -> Self {
        Self { slot, rtcp: false }
    }

    /// The RTCP socket of `slot`.
    pub const fn rtcp(slot: u32) -> Self {
        Self { slot, rtcp: true }
    }

    /// Position in a table that holds both sockets of every slot.
    pub const fn index(self) -> u32 {
        self.slot * 2 + self.rtcp as u32
    }

    /// The port at `index`, the reverse of [`Port::index`].
    pub const fn from_index(index: u32) -> Self {
        Self { slot: index / 2, rtcp: index % 2 == 1 }
    }
}

/// What is known of a received datagram besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct DatagramMeta {
    /// The socket it came in on.
    pub port: Port,
    /// Where it came from; `None` on a connected socket, where the kernel has already dropped every other source. What
    /// was queued before the connect still comes with its source, and has to be checked.
    pub source: Option<SocketAddr>,
    /// It filled its buffer to the brim, so its end may be missing.
    pub truncated: bool,
}

/// What becomes of a datagram after the engine has looked at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Nothing more to do; the buffer may go back.
    Consumed,
    /// The very same bytes (rewritten in place at most) leave by another port.
    Forward(Transmit),
}

/// Where a packet leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The local socket it leaves by.
    pub port: Port,
    /// The destination; `None` if that socket is connected to it.
    pub target: Option<SocketAddr>,
    /// Length of the packet in bytes, from the start of its buffer.
    pub len: usize,
}

/// A wish of the engine concerning a socket, polled like an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortAction {
    /// Connect the socket to the endpoint it has learned.
    Connect(Port, SocketAddr),
    /// Undo a connect, so that another source can be heard.
    Disconnect(Port),
    /// The connection is gone: release both its sockets.
    Release {
        /// The slot whose sockets are to be closed.
        slot: u32,
    },
}
