//! What a shard asks of its packet I/O. Two implementations: the ring (real sockets) and a simulated network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_media::event::DropReason;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, Transmit};

/// Batched datagram I/O of one shard.
///
/// A loop turn is: [`wait`](Self::wait), then [`receive`](Self::receive) until it says nothing is left or the budget
/// is used up, then [`transmit`](Self::transmit), and again. What `receive` forwards and `transmit` fills is queued;
/// it leaves with the next `flush` or `wait`, in the order queued.
pub trait PacketIo {
    /// An open, bound UDP socket.
    type Socket;

    /// Starts receiving on `socket` as `port`. Datagrams queued in it before are delivered too.
    ///
    /// # Errors
    /// The slot is out of range or still in use, or the kernel refuses; the socket is then closed.
    fn open(&mut self, port: Port, socket: Self::Socket) -> io::Result<()>;

    /// Connects `port` to `remote`: foreign sources are dropped by the kernel from now on, sends need no address.
    /// Datagrams that were queued before the connect are still delivered with their source, in order.
    ///
    /// # Errors
    /// The kernel refuses; the port stays unconnected.
    fn connect(&mut self, port: Port, remote: SocketAddr) -> io::Result<()>;

    /// Undoes [`connect`](Self::connect); datagrams come with their source again.
    ///
    /// # Errors
    /// The kernel refuses.
    fn disconnect(&mut self, port: Port) -> io::Result<()>;

    /// Stops receiving on `port`, which sends until it is [closed](Self::close), and tells by
    /// [`poll_quiet`](Self::poll_quiet) once nothing more can be delivered from it. What the kernel had already handed
    /// over is delivered before; what it had not stays in the socket. It is not connected or disconnected meanwhile.
    fn hush(&mut self, port: Port);

    /// A port whose [`hush`](Self::hush) is complete. Not told of one that is closed before.
    fn poll_quiet(&mut self) -> Option<Port>;

    /// Stops receiving on `port` and gives the socket back through [`poll_closed`](Self::poll_closed) once nothing
    /// more can be delivered from it. What the kernel had already handed over is delivered before; what it had not
    /// stays in the socket.
    fn close(&mut self, port: Port);

    /// A port whose [`close`](Self::close) is complete, with its socket (drop it to close it).
    fn poll_closed(&mut self) -> Option<(Port, Self::Socket)>;

    /// Sends what is queued, then waits until datagrams, the mailbox's doorbell or the end of `plan.timeout`.
    ///
    /// # Errors
    /// Only when the ring itself is broken; the shard cannot go on.
    fn wait(&mut self, plan: WaitPlan) -> io::Result<()>;

    /// Delivers received datagrams one by one, in order per port, at most `budget` of them, and queues what `handle`
    /// wants forwarded, in place. Returns how many were delivered.
    fn receive<F>(&mut self, budget: usize, handle: F) -> usize
    where
        F: FnMut(&DatagramMeta, &mut [u8]) -> Disposition;

    /// Fills send slots for as long as `fill` gives packets. Each slot holds `DATAGRAM_BYTES_MAX` bytes.
    fn transmit<F>(&mut self, fill: F)
    where
        F: FnMut(&mut [u8]) -> Option<Transmit>;

    /// Sends what is queued without waiting.
    ///
    /// # Errors
    /// Only when the ring itself is broken.
    fn flush(&mut self) -> io::Result<()>;

    /// Packets that did not arrive or leave, to be counted by the engine: `(port, reason, packets)`. Drains.
    fn poll_drop(&mut self) -> Option<(Port, DropReason, u64)>;

    /// Datagrams the kernel dropped on `port` since the last look because the socket's buffer was full. May cost a
    /// system call.
    fn kernel_drops(&mut self, port: Port) -> u64;

    /// What was counted since the start.
    fn counters(&self) -> IoCounters;
}

/// How long and how eagerly to wait.
#[derive(Clone, Copy, Debug)]
pub struct WaitPlan {
    /// Return after this long at the latest. Zero: only send and collect.
    pub timeout: Duration,
    /// Gather arrivals for this long before returning (`min_wait`); never longer than `timeout`.
    pub batch: Duration,
}

/// Counters of the packet I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoCounters {
    /// System calls made for packets: enters of the ring and what little goes around it.
    pub syscalls: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams handed to the kernel for sending.
    pub sent: u64,
    /// Multishot receives that had to be armed again.
    pub rearms: u64,
    /// Times the provided buffers ran dry.
    pub buffers_exhausted: u64,
    /// Sends tried a second time after a pending ICMP error.
    pub resends: u64,
}
