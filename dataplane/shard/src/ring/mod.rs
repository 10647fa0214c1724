//! Batched datagram I/O of one shard on a private io_uring ring.
//!
//! ```text
//!                 ┌──────────────────── wait: one io_uring_enter ───────────────────┐
//!                 ▼                                                                 │
//!   kernel ── completions ──▶ arrivals ──receive──▶ engine ──forward in place──▶ submission queue
//!      ▲                                                 └───transmit, a slot───────▶
//!      └── buffers and slots go back once their sends are done and looked at
//! ```
//!
//! Every receive is a multishot operation that fills provided buffers: with the source's address on an unconnected
//! port, without on a connected one, where the kernel drops foreign sources by itself.
//!
//! Every send carries `MSG_DONTWAIT` and `IOSQE_CQE_SKIP_SUCCESS`: when `io_uring_enter` returns, it is either done or
//! its failure is among the completions. So a packet leaves from the buffer it came in, and the buffer goes back after
//! one look at the failures.
//!
//! The kernel gives completions only within `io_uring_enter` (`DEFER_TASKRUN`), and each enter is followed by taking
//! all of them. What the kernel holds, what waits here and what is on its way out are therefore known exactly at any
//! time between two enters; the state machine of a port (`port.rs`) is built on that.
//!
//! Bounds: arrivals never exceed the buffers plus one end for each port; datagrams on their way out never exceed the
//! submission queue. Nothing is allocated after [`Ring::new`].
#![allow(unsafe_code, reason = "io_uring: the kernel reads and writes memory named by submissions")]

mod address;
mod kernel;
mod lifecycle;
mod port;
mod receive;
mod send;
mod tag;
#[cfg(test)]
mod tests;

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};
use ringbridge_media::event::DropReason;
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, Transmit};
use thiserror::Error;

use self::address::{ADDRESS_BYTES_MAX, RawAddress};
use self::lifecycle::kernel_drops;
use self::port::PortState;
use self::receive::Arrival;
use self::send::{Held, Outgoing};
use crate::buffer::{BufferRing, SendSlots};
use crate::io::{IoCounters, PacketIo, WaitPlan};

/// Sizes of a ring. Each is memory reserved at the start.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig<'a> {
    /// Ports, twice the connection slots: `1 ..= 65536`. `RLIMIT_NOFILE` must be larger.
    pub ports_max: u32,
    /// Submissions of one enter, a power of two, `16 ..= 32768`.
    pub sq_entries: u32,
    /// Completions that wait, a power of two, `2 * sq_entries ..= 65536`. 4096 do for 4000 ports.
    pub cq_entries: u32,
    /// Receive buffers, a power of two, `1 ..= 32768`.
    pub buffers: u16,
    /// Bytes of a receive buffer, `128 ..= 65536`. A datagram that came with its source has 44 bytes less.
    pub buffer_bytes: u32,
    /// Packets of our own making in one submission, `1 ..= 32768`; each `DATAGRAM_BYTES_MAX` bytes.
    pub send_slots: u16,
    /// The mailbox's eventfd. The ring keeps its own reference and takes every count it shows.
    pub doorbell: BorrowedFd<'a>,
}

impl<'a> RingConfig<'a> {
    /// The usual sizes for `ports_max` ports: 8 MiB of receive buffers, 2 MiB of send slots.
    pub fn new(ports_max: u32, doorbell: BorrowedFd<'a>) -> Self {
        Self {
            ports_max,
            sq_entries: 1024,
            cq_entries: if ports_max > 4000 { 16_384 } else { 4096 },
            buffers: 4096,
            buffer_bytes: 2048,
            send_slots: 1024,
            doorbell,
        }
    }
}

/// Why there is no ring.
#[derive(Debug, Error)]
pub enum RingError {
    /// A size is out of range.
    #[error("{what} is out of range")]
    Size {
        /// The field of [`RingConfig`].
        what: &'static str,
    },
    /// `io_uring_setup` was refused; [`probe`](crate::probe::probe) says why.
    #[error("io_uring was refused: {0}")]
    Setup(#[source] io::Error),
    /// The kernel has io_uring, but not this part of it.
    #[error("the kernel's io_uring lacks {what}")]
    Feature {
        /// What it lacks.
        what: &'static str,
    },
    /// The table of registered files could not be made; `EMFILE` means that `RLIMIT_NOFILE` is too small.
    #[error("no table for {files} registered files: {source}")]
    Files {
        /// How many files it would have held.
        files: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Packet memory could not be mapped or registered.
    #[error("no packet memory: {0}")]
    Memory(#[source] io::Error),
}

/// The packet I/O of one shard. Belongs to the thread that made it.
///
/// Dropping it cancels all receives and releases all files before it returns, so no socket outlives it.
pub struct Ring {
    uring: IoUring,
    /// What the kernel may touch; leaked rather than freed if the kernel cannot be made to let go.
    memory: ManuallyDrop<Memory>,
    ports: Box<[PortState]>,
    /// Completions of receives that wait to be delivered, in the kernel's order.
    arrivals: VecDeque<Arrival>,
    /// Sends since the submission queue was last empty; a send's tag is its position.
    outgoing: Vec<Outgoing>,
    /// The other half of a double buffer: holds `outgoing` while it is settled.
    settling: Vec<Outgoing>,
    /// Sends that failed: position and errno.
    failed: Vec<(usize, i32)>,
    /// Ports that wait for buffers; each once.
    starved: Vec<u32>,
    /// Ports that are being drained; each once.
    draining: VecDeque<u32>,
    /// Ports whose file is to be taken out of the ring.
    finished: Vec<u32>,
    /// Ports on their way out through `poll_quiet`.
    quiet: VecDeque<Port>,
    /// Ports on their way out through `poll_closed`.
    closed: VecDeque<(Port, UdpSocket)>,
    /// Ports with send drops to report; each once.
    reporting: VecDeque<u32>,
    /// Receives and the doorbell's read that are with the kernel or on their way to it.
    operations: usize,
    bell_armed: bool,
    /// The doorbell rang since the last wait returned.
    bell_rung: bool,
    /// Set once the ring cannot go on; every later wait and flush fails with it.
    broken: Option<i32>,
    has_min_wait: bool,
    enter_flags: EnterFlags,
    want: u32,
    counters: IoCounters,
}

/// Memory named by submissions.
struct Memory {
    received: BufferRing,
    slots: SendSlots,
    /// Addresses of the sends in the submission queue, by position.
    targets: Box<[RawAddress]>,
    /// Says how much room for a source address each received message has; the same for all.
    header: Box<UnsafeCell<libc::msghdr>>,
    /// Where the doorbell's count is read to.
    bell: Box<UnsafeCell<u64>>,
}

impl Ring {
    /// A ring with no port open. To be called on the shard's own thread.
    ///
    /// # Errors
    /// A size is out of range, or the kernel refuses; the error says what.
    pub fn new(config: RingConfig<'_>) -> Result<Self, RingError> {
        check(&config)?;
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.cq_entries)
            .build(config.sq_entries)
            .map_err(RingError::Setup)?;
        let features = uring.params();
        for (has, what) in [
            (features.is_feature_ext_arg(), "waiting with a timeout (IORING_FEAT_EXT_ARG)"),
            (features.is_feature_nodrop(), "keeping completions (IORING_FEAT_NODROP)"),
            (features.is_feature_submit_stable(), "stable submissions (IORING_FEAT_SUBMIT_STABLE)"),
            (features.is_feature_skip_cqe_on_success(), "silent sends (IORING_FEAT_CQE_SKIP)"),
        ] {
            if !has {
                return Err(RingError::Feature { what });
            }
        }
        let has_min_wait = features.is_feature_min_timeout();
        let enter_flags = if features.is_feature_no_iowait() { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };

        let files = config.ports_max + 1;
        uring.submitter().register_files_sparse(files).map_err(|source| RingError::Files { files, source })?;
        // The last entry of the table is the doorbell.
        uring
            .submitter()
            .register_files_update(config.ports_max, &[config.doorbell.as_raw_fd()])
            .map_err(|source| RingError::Files { files, source })?;

        let memory = Memory::new(&config).map_err(RingError::Memory)?;
        let ports_max = config.ports_max as usize;
        let sends_max = config.sq_entries as usize;
        let mut ring = Self {
            uring,
            memory: ManuallyDrop::new(memory),
            ports: (0..ports_max).map(|_| PortState::VACANT).collect(),
            arrivals: VecDeque::with_capacity(usize::from(config.buffers) + ports_max),
            outgoing: Vec::with_capacity(sends_max),
            settling: Vec::with_capacity(sends_max),
            failed: Vec::with_capacity(sends_max),
            starved: Vec::with_capacity(ports_max),
            draining: VecDeque::with_capacity(ports_max),
            finished: Vec::with_capacity(ports_max),
            quiet: VecDeque::with_capacity(ports_max),
            closed: VecDeque::with_capacity(ports_max),
            reporting: VecDeque::with_capacity(ports_max),
            operations: 0,
            bell_armed: false,
            bell_rung: false,
            broken: None,
            has_min_wait,
            enter_flags,
            want: WANT_MAX.min(config.cq_entries / 2),
            counters: IoCounters::default(),
        };
        // SAFETY: dropping the ring ends every receive and unregisters the group before it frees the buffers, and
        // leaks them if it cannot.
        unsafe { ring.memory.received.register(&ring.uring.submitter(), GROUP) }.map_err(RingError::Memory)?;
        ring.arm_bell().map_err(RingError::Setup)?;
        Ok(ring)
    }

    /// Has `eventfd` signalled from now on whenever the ring has something to do. Call
    /// [`drain_idle`](Self::drain_idle) before sleeping on it: only what comes after that signals.
    ///
    /// # Errors
    /// The kernel refuses, for instance because one is registered already.
    pub fn register_wake(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.counters.syscalls += 1;
        self.uring.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    /// Undoes [`register_wake`](Self::register_wake).
    ///
    /// # Errors
    /// None is registered.
    pub fn unregister_wake(&mut self) -> io::Result<()> {
        self.counters.syscalls += 1;
        self.uring.submitter().unregister_eventfd()
    }

    /// Submits everything and has the kernel do all it has put off. `true` if nothing waits after that, neither here
    /// nor in the kernel: the shard may sleep on the eventfd of [`register_wake`](Self::register_wake). `false` if
    /// there is something to receive, to close or to read in the mailbox.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn drain_idle(&mut self) -> io::Result<bool> {
        self.prepare()?;
        loop {
            self.enter(0, EnterFlags::GETEVENTS, None)?;
            self.settle()?;
            self.finish()?;
            if self.has_work() || mem::take(&mut self.bell_rung) {
                return Ok(false);
            }
            // The kernel runs some twenty pieces of deferred work an enter; the flag falls with the last.
            let queue = self.uring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() && self.bell_armed {
                return Ok(true);
            }
            drop(queue);
            self.prepare()?;
        }
    }
}

impl PacketIo for Ring {
    type Socket = UdpSocket;

    /// As [`PacketIo::open`]. Sources are told also if the socket is still connected from an earlier life; connect it
    /// again for the cheaper path, or disconnect it to hear others.
    fn open(&mut self, port: Port, socket: UdpSocket) -> io::Result<()> {
        self.try_open(port, socket)
    }

    /// As [`PacketIo::connect`]; a connected port may be connected elsewhere, and stays as it was if that fails.
    ///
    /// A datagram from elsewhere that is passing through the kernel in the very moment of the connect can still get
    /// in; like all that were queued before, it is delivered with its source.
    fn connect(&mut self, port: Port, remote: SocketAddr) -> io::Result<()> {
        self.try_connect(port, remote)
    }

    /// As [`PacketIo::disconnect`]. The socket must have been bound to a port of its own choice: the kernel takes an
    /// automatic one away.
    fn disconnect(&mut self, port: Port) -> io::Result<()> {
        self.try_disconnect(port)
    }

    fn hush(&mut self, port: Port) {
        self.start_hush(port);
    }

    fn poll_quiet(&mut self) -> Option<Port> {
        self.quiet.pop_front()
    }

    fn close(&mut self, port: Port) {
        self.start_close(port);
    }

    fn poll_closed(&mut self) -> Option<(Port, UdpSocket)> {
        self.closed.pop_front()
    }

    fn wait(&mut self, plan: WaitPlan) -> io::Result<()> {
        self.prepare()?;
        let ready = self.has_work() || self.bell_rung || !self.uring.completion().is_empty();
        if ready || plan.timeout.is_zero() {
            self.enter(0, EnterFlags::GETEVENTS, None)?;
        } else {
            let timeout = Timespec::from(plan.timeout);
            let args = SubmitArgs::new().timespec(&timeout);
            let batch = plan.batch.min(plan.timeout);
            if self.has_min_wait && !batch.is_zero() {
                let args = args.min_wait_usec(micros(batch));
                self.enter(self.want, EnterFlags::GETEVENTS, Some(&args))?;
            } else {
                self.enter(1, EnterFlags::GETEVENTS, Some(&args))?;
            }
        }
        self.settle()?;
        // The caller looks into the mailbox after every wait.
        self.bell_rung = false;
        self.finish()
    }

    fn receive<F>(&mut self, budget: usize, mut handle: F) -> usize
    where
        F: FnMut(&DatagramMeta, &mut [u8]) -> Disposition,
    {
        // Ports that are being drained have a share, and what the others leave.
        let mut delivered = self.drain(budget / 4, &mut handle);
        while delivered < budget {
            let Some(arrival) = self.arrivals.pop_front() else { break };
            delivered += self.deliver(arrival, &mut handle);
        }
        delivered += self.drain(budget - delivered, &mut handle);
        self.counters.received += delivered as u64;
        delivered
    }

    fn transmit<F>(&mut self, mut fill: F)
    where
        F: FnMut(&mut [u8]) -> Option<Transmit>,
    {
        while let Some(mut slot) = self.take_slot() {
            let bytes = self.memory.slots.bytes_mut(&mut slot);
            let Some(transmit) = fill(bytes) else {
                self.memory.slots.release(slot);
                break;
            };
            assert!(transmit.len <= bytes.len(), "a packet fits its slot");
            self.queue(transmit, Held::Slot(slot), 0);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.prepare()?;
        let queue = self.uring.submission();
        let (empty, deferred) = (queue.is_empty(), queue.taskrun());
        drop(queue);
        // A port that is being closed needs the kernel's deferred work too.
        if !empty || deferred {
            let flags = if deferred { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
            self.enter(0, flags, None)?;
            self.settle()?;
        }
        self.finish()
    }

    fn poll_drop(&mut self) -> Option<(Port, DropReason, u64)> {
        loop {
            let &index = self.reporting.front()?;
            let state = &mut self.ports[index as usize];
            let port = Port::from_index(index);
            for (count, reason) in
                [(&mut state.buffer_full, DropReason::SendBufferFull), (&mut state.refused, DropReason::SendFailed)]
            {
                let packets = mem::take(count);
                if packets > 0 {
                    return Some((port, reason, packets));
                }
            }
            state.reporting = false;
            self.reporting.pop_front();
        }
    }

    fn kernel_drops(&mut self, port: Port) -> u64 {
        let Some(state) = self.ports.get_mut(port.index() as usize) else { return 0 };
        let Some(socket) = &state.socket else { return 0 };
        self.counters.syscalls += 1;
        // A socket of ours always has the option; should reading fail, nothing is known to be lost.
        let Ok(drops) = kernel_drops(socket) else { return 0 };
        let delta = drops.wrapping_sub(state.kernel_drops);
        state.kernel_drops = drops;
        u64::from(delta)
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let quiet = self.quiesce();
        let submitter = self.uring.submitter();
        // The files first: they are what others wait for. Failures leave them to the end of the ring itself.
        if let Err(error) = submitter.unregister_files() {
            tracing::warn!(%error, "the ring's sockets are released late");
        }
        let unregistered = self.memory.received.unregister(&submitter, GROUP);
        if quiet && unregistered.is_ok() {
            // SAFETY: no operation is left and the buffers are unregistered, so the kernel has no business with the
            // memory any more; it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            tracing::warn!("the kernel would not let go of the ring's memory; it is left mapped");
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("ports_max", &self.ports.len())
            .field("arrivals", &self.arrivals.len())
            .field("outgoing", &self.outgoing.len())
            .field("operations", &self.operations)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Memory {
    #[expect(clippy::cast_possible_truncation, reason = "both sizes are small constants")]
    fn new(config: &RingConfig<'_>) -> io::Result<Self> {
        // SAFETY: a msghdr is plain numbers and pointers, for all of which zero is a value.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_namelen = ADDRESS_BYTES_MAX as libc::socklen_t;
        Ok(Self {
            received: BufferRing::new(config.buffers, config.buffer_bytes)?,
            slots: SendSlots::new(config.send_slots, DATAGRAM_BYTES_MAX as u32)?,
            targets: vec![RawAddress::NONE; config.sq_entries as usize].into_boxed_slice(),
            header: Box::new(UnsafeCell::new(header)),
            bell: Box::new(UnsafeCell::new(0)),
        })
    }
}

/// Refuses sizes that the kernel would refuse less clearly.
fn check(config: &RingConfig<'_>) -> Result<(), RingError> {
    let power_in = |value: u32, low: u32, high: u32| value.is_power_of_two() && (low..=high).contains(&value);
    for (good, what) in [
        ((1..=65_536).contains(&config.ports_max), "ports_max"),
        (power_in(config.sq_entries, 16, 32_768), "sq_entries"),
        (power_in(config.cq_entries, config.sq_entries.saturating_mul(2), 65_536), "cq_entries"),
        (power_in(u32::from(config.buffers), 1, 32_768), "buffers"),
        ((128..=65_536).contains(&config.buffer_bytes), "buffer_bytes"),
        ((1..=32_768).contains(&config.send_slots), "send_slots"),
    ] {
        if !good {
            return Err(RingError::Size { what });
        }
    }
    Ok(())
}

/// `duration` in whole microseconds, at least one, as the kernel takes it.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1)
}

/// The group of provided buffers; there is one.
const GROUP: u16 = 0;
/// Completions a wait gathers before its batch time is over.
const WANT_MAX: u32 = 256;
/// Enters, beyond those that deferred work explains, that ending an operation may take.
const STOP_ATTEMPTS: usize = 64;
