//! Bounded lock-free queues between the control plane and a shard, and between shards.
//!
//! A shard's mailbox has two lanes. Stop, delete and mute go by the urgent lane, so they find room when others do not.
//! Messages carry a sequence number and are taken in the order sent, whichever lane they came by: the lanes differ in
//! capacity, not in priority, so commands that name one id take effect in the order sent.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use ringbridge_media::command::{Request, Target};
use ringbridge_media::event::{Effect, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::moving::Departure;
use ringbridge_media::time::Instant;

use crate::partials::PartialQueues;
use crate::snapshot::ShardSnapshot;

/// Ordinary messages that wait in a mailbox.
pub const MAILBOX_MESSAGES_MAX: usize = 4096;
/// Urgent messages that wait in a mailbox.
pub const MAILBOX_URGENT_MAX: usize = 4096;
/// Messages that wait in a shard's inbox for other shards.
pub const PEER_MESSAGES_MAX: usize = 1024;
/// Reports that wait for the control plane.
pub const OUTBOX_REPORTS_MAX: usize = 16_384;

/// A message to a shard.
#[derive(Debug)]
pub enum ShardMessage<S = UdpSocket> {
    /// A command for the engine; answered by [`Event::Answer`].
    Command(Request),
    /// A `Command::CreateConnection` together with the sockets it uses.
    Open {
        /// The create request.
        request: Request,
        /// Bound to the even port.
        rtp: S,
        /// Bound to the odd port.
        rtcp: S,
    },
    /// Move a connection, the two of a relay or a conference with its members to another shard. Messages for them that
    /// come later are forwarded in order. Reported once by [`ShardReport::Moved`].
    Move(Box<MoveOrder>),
    /// What had moved away from here has ended: stop forwarding for it.
    Forget {
        /// What.
        target: Target,
    },
    /// Asks for [`ShardReport::Snapshot`].
    Snapshot {
        /// Comes back with it.
        token: u64,
    },
    /// End the shard: its sockets are closed, its thread ends. Reported by [`ShardReport::Stopped`].
    Stop,
    /// Fault injection: panic on the shard's thread.
    Panic,
}

/// What is to move, and the places kept for it where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveOrder {
    /// Comes back with the report.
    pub token: u64,
    /// When the control plane received the request.
    pub received: Instant,
    /// A connection by itself or either side of a relay, or a conference.
    pub target: Target,
    /// The shard it goes to.
    pub to: ShardId,
    /// Slots reserved there for connections. If one that would have to move has none, nothing moves.
    pub slots: Vec<(ConnectionId, u32)>,
    /// The slot reserved there for the conference.
    pub room: Option<u32>,
}

/// What became of a [`MoveOrder`].
#[derive(Debug)]
pub struct Moved {
    /// As in the order.
    pub token: u64,
    /// Where it is now: the reporting shard.
    pub shard: ShardId,
    /// The connections that have arrived here. None if nothing moved, or a conference without members.
    pub connections: Vec<ConnectionId>,
    /// The conference that has arrived here.
    pub conference: Option<ConferenceId>,
    /// From when on; `None` if nothing moved.
    pub effect: Option<Box<Effect>>,
}

/// A message from a shard.
#[derive(Debug)]
pub enum ShardReport {
    /// What the engine has to say.
    Event(Event),
    /// What was to move has arrived here, or stays where it was.
    Moved(Box<Moved>),
    /// State and figures.
    Snapshot {
        /// As in the message.
        token: u64,
        /// The figures.
        snapshot: Box<ShardSnapshot>,
    },
    /// The shard's thread has ended as it was told to.
    Stopped,
    /// The shard's thread has ended by a panic or a broken ring; everything on it is lost.
    Failed {
        /// What went wrong, for the log.
        reason: String,
    },
}

/// Which lane of a mailbox a message takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Everything else.
    Ordinary,
    /// Stop, delete, mute.
    Urgent,
}

/// An eventfd that wakes one sleeper, and the flag that tells whether it sleeps.
#[derive(Debug)]
pub struct Doorbell {
    eventfd: OwnedFd,
    armed: AtomicBool,
}

impl Doorbell {
    /// A silent bell.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    #[allow(unsafe_code, reason = "libc::eventfd is the only way to make one; glommio and tokio take the descriptor")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { eventfd, armed: AtomicBool::new(true) })
    }

    /// Wakes the sleeper if it says it sleeps; otherwise costs one atomic swap.
    pub fn ring(&self) {
        if self.armed.swap(false, Ordering::AcqRel) {
            self.ring_always();
        }
    }

    /// Wakes the sleeper whatever it says.
    #[allow(unsafe_code, reason = "write(2) on the eventfd")]
    pub fn ring_always(&self) {
        let one = 1u64;
        // SAFETY: the buffer is eight readable bytes, as an eventfd wants; a full counter (EAGAIN) wakes just as well.
        unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Says that the next [`ring`](Self::ring) has to wake us. Look into the queue once more after this, then sleep.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Says that nobody sleeps.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }

    /// The descriptor to sleep on: readable once rung. Eight bytes are to be read from it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// The mailbox of one shard; shared by its senders and the shard.
#[derive(Debug)]
pub struct Mailbox<S = UdpSocket> {
    ordinary: ArrayQueue<(u64, ShardMessage<S>)>,
    urgent: ArrayQueue<(u64, ShardMessage<S>)>,
    sequence: AtomicU64,
    doorbell: Arc<Doorbell>,
}

impl<S> Mailbox<S> {
    /// An empty mailbox with a bell of its own.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Self::with_doorbell(Arc::new(Doorbell::new()?)))
    }

    /// An empty mailbox that rings `doorbell`, which its shard's other queues ring too.
    pub fn with_doorbell(doorbell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self {
            ordinary: ArrayQueue::new(MAILBOX_MESSAGES_MAX),
            urgent: ArrayQueue::new(MAILBOX_URGENT_MAX),
            sequence: AtomicU64::new(0),
            doorbell,
        })
    }

    /// Puts a message into the mailbox; never waits. Only the control thread sends, so sequence numbers and queue
    /// order agree.
    ///
    /// # Errors
    /// The lane is full: the message comes back, and `busy` is the answer to give.
    pub fn send(&self, lane: Lane, message: ShardMessage<S>) -> Result<(), ShardMessage<S>> {
        let queue = match lane {
            Lane::Ordinary => &self.ordinary,
            Lane::Urgent => &self.urgent,
        };
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        queue.push((sequence, message)).map_err(|(_, message)| message)?;
        self.doorbell.ring();
        Ok(())
    }

    /// How many messages wait, in both lanes.
    pub fn len(&self) -> usize {
        self.ordinary.len() + self.urgent.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ordinary.is_empty() && self.urgent.is_empty()
    }
}

/// The shard's end of its mailbox: merges the two lanes into the order sent.
#[derive(Debug)]
pub struct MailboxReader<S = UdpSocket> {
    mailbox: Arc<Mailbox<S>>,
    ordinary_head: Option<(u64, ShardMessage<S>)>,
    urgent_head: Option<(u64, ShardMessage<S>)>,
}

impl<S> MailboxReader<S> {
    /// The one reader of `mailbox`.
    pub const fn new(mailbox: Arc<Mailbox<S>>) -> Self {
        Self { mailbox, ordinary_head: None, urgent_head: None }
    }

    /// The next message in the order sent.
    pub fn pop(&mut self) -> Option<ShardMessage<S>> {
        if self.ordinary_head.is_none() {
            self.ordinary_head = self.mailbox.ordinary.pop();
        }
        // Read the urgent lane second: whatever urgent was sent before the ordinary head is there by now. An ordinary
        // message sent before an urgent one that the first look missed is found by the second look.
        if self.urgent_head.is_none() {
            self.urgent_head = self.mailbox.urgent.pop();
            if self.urgent_head.is_some() && self.ordinary_head.is_none() {
                self.ordinary_head = self.mailbox.ordinary.pop();
            }
        }
        let urgent_first = match (&self.ordinary_head, &self.urgent_head) {
            (Some((ordinary, _)), Some((urgent, _))) => urgent < ordinary,
            (None, Some(_)) => true,
            (Some(_) | None, None) => false,
        };
        let head = if urgent_first { &mut self.urgent_head } else { &mut self.ordinary_head };
        head.take().map(|(_, message)| message)
    }

    /// Whether nothing waits, neither here nor in the queues.
    pub fn is_empty(&self) -> bool {
        self.ordinary_head.is_none() && self.urgent_head.is_none() && self.mailbox.is_empty()
    }

    /// The bell that rings when a message arrives.
    pub fn doorbell(&self) -> &Doorbell {
        &self.mailbox.doorbell
    }
}

/// What one shard sends another.
#[derive(Debug)]
pub(crate) enum PeerMessage<S> {
    /// Connections that move here, with their sockets.
    Adopt(Box<Arrival<S>>),
    /// A message for what has moved here.
    Forward(ShardMessage<S>),
}

/// What arrives from another shard.
#[derive(Debug)]
pub(crate) struct Arrival<S> {
    pub(crate) token: u64,
    pub(crate) received: Instant,
    pub(crate) target: Target,
    pub(crate) departure: Departure,
    /// The slot and sockets of each connection, in the order of the departure.
    pub(crate) seats: Vec<Seat<S>>,
    pub(crate) room: Option<u32>,
}

/// Where a connection that arrives is to live, and its sockets.
#[derive(Debug)]
pub(crate) struct Seat<S> {
    pub(crate) slot: u32,
    pub(crate) rtp: S,
    pub(crate) rtcp: S,
}

/// The queues between shards: one inbox each, rarely used, by moves only; and those of conferences in parts.
#[derive(Debug)]
pub struct Peers<S = UdpSocket> {
    inboxes: Vec<PeerInbox<S>>,
    pub(crate) partials: PartialQueues,
}

#[derive(Debug)]
struct PeerInbox<S> {
    queue: ArrayQueue<PeerMessage<S>>,
    doorbell: Arc<Doorbell>,
}

impl<S> Peers<S> {
    /// Inboxes for `shards` shards, each with the bell that its mailbox rings too.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new(shards: u8) -> io::Result<Arc<Self>> {
        let inbox = |_| {
            let doorbell = Arc::new(Doorbell::new()?);
            Ok(PeerInbox { queue: ArrayQueue::new(PEER_MESSAGES_MAX), doorbell })
        };
        let inboxes = (0..shards).map(inbox).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { inboxes, partials: PartialQueues::new(shards) }))
    }

    /// The bell of `shard`; `None` if there is no such shard.
    pub fn doorbell(&self, shard: ShardId) -> Option<&Arc<Doorbell>> {
        self.inboxes.get(usize::from(shard.0)).map(|inbox| &inbox.doorbell)
    }

    /// Puts a message into a shard's inbox; never waits. It comes back when the inbox is full or not there.
    pub(crate) fn send(&self, to: ShardId, message: PeerMessage<S>) -> Result<(), PeerMessage<S>> {
        let Some(inbox) = self.inboxes.get(usize::from(to.0)) else { return Err(message) };
        inbox.queue.push(message)?;
        inbox.doorbell.ring();
        Ok(())
    }

    pub(crate) fn pop(&self, shard: ShardId) -> Option<PeerMessage<S>> {
        self.inboxes.get(usize::from(shard.0))?.queue.pop()
    }

    /// Whether nothing waits for a shard.
    pub(crate) fn is_empty(&self, shard: ShardId) -> bool {
        self.inboxes.get(usize::from(shard.0)).is_none_or(|inbox| inbox.queue.is_empty())
            && self.partials.is_empty(shard)
    }

    /// Wakes a shard if it sleeps.
    pub(crate) fn ring(&self, shard: ShardId) {
        if let Some(inbox) = self.inboxes.get(usize::from(shard.0)) {
            inbox.doorbell.ring();
        }
    }
}

/// Where a shard puts its reports. One shard writes, the control plane reads.
#[derive(Debug)]
pub struct Outbox {
    reports: ArrayQueue<ShardReport>,
    doorbell: Arc<Doorbell>,
}

impl Outbox {
    /// An empty outbox that rings `doorbell` (one bell serves all shards).
    pub fn new(doorbell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self { reports: ArrayQueue::new(OUTBOX_REPORTS_MAX), doorbell })
    }

    /// How many reports fit in all.
    pub fn capacity(&self) -> usize {
        self.reports.capacity()
    }

    /// Room left. The shard takes no event from the engine that it could not put here.
    pub fn room(&self) -> usize {
        self.reports.capacity() - self.reports.len()
    }

    /// Puts a report; the caller has looked for [`room`](Self::room) first.
    ///
    /// # Errors
    /// There was no room: the report comes back.
    pub fn push(&self, report: ShardReport) -> Result<(), ShardReport> {
        self.reports.push(report)?;
        self.doorbell.ring();
        Ok(())
    }

    /// The next report, in order.
    pub fn pop(&self) -> Option<ShardReport> {
        self.reports.pop()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }
}
