//! One turn of a shard: datagrams, deadlines, commands, moves, events, packets of our own.
//!
//! The order is fixed. Datagrams come first, so that what has arrived is known; a frame that is due is mixed before a
//! command changes the room; answers and events are handed over before the next wait. Nothing here waits, and nothing
//! here knows which packet I/O it drives: the same turn runs on the ring and on a simulated network.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringbridge_media::command::Request;
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{CommandError, DropReason, Event};
use ringbridge_media::id::ShardId;
use ringbridge_media::limits::{COMMANDS_PER_TURN_MAX, CONNECTIONS_MAX};
use ringbridge_media::port::{Disposition, Port, PortAction};
use ringbridge_media::time::Instant;

use crate::io::{PacketIo, WaitPlan};
use crate::load::LoadMeter;
use crate::mailbox::{MailboxReader, Outbox, PeerMessage, Peers, ShardMessage, ShardReport};
use crate::moves::{Moves, Route};
use crate::snapshot::ShardSnapshot;

/// Datagrams taken in one turn.
const DATAGRAMS_PER_TURN_MAX: usize = 1024;
/// Frames of one clock made up for in one turn.
const CATCH_UPS_PER_TURN_MAX: usize = 64;
/// How often one port's kernel counters are read, in round-robin.
const KERNEL_DROPS_INTERVAL: Duration = Duration::from_millis(4);
#[expect(clippy::cast_possible_truncation, reason = "below 2^24, as limits.rs asserts")]
const SLOTS: u32 = CONNECTIONS_MAX as u32;
/// How long a slot's sockets may take to come out of the I/O; a turn or two do.
const CLOSING_PATIENCE: Duration = Duration::from_millis(100);
/// Slots looked at for a port whose counters could be read.
const KERNEL_DROPS_LOOK: u32 = 64;
/// The longest time a histogram of microseconds tells apart: one minute.
const MICROSECONDS_MAX: u64 = 60_000_000;

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Datagrams, messages or deadlines were handled.
    pub active: bool,
    /// Work was left over: the next wait must not sleep.
    pub more: bool,
    /// The shard was told to stop.
    pub stop: bool,
}

/// A shard: its engine, its packet I/O, its mailboxes.
#[derive(Debug)]
pub struct Shard<P: PacketIo> {
    pub(crate) id: ShardId,
    batch_wait: Duration,
    pub(crate) engine: Engine,
    pub(crate) io: P,
    mailbox: MailboxReader<P::Socket>,
    outbox: Arc<Outbox>,
    pub(crate) peers: Arc<Peers<P::Socket>>,
    pub(crate) moves: Moves<P::Socket>,
    /// What a full inbox of another shard could not take yet, in order.
    peer_backlog: VecDeque<(ShardId, PeerMessage<P::Socket>)>,
    /// Slots whose sockets are on their way out.
    closing: Vec<Closing>,
    /// What wants a slot that is still closing, or a conference that waits for its other parts. All messages wait behind
    /// it, for a turn or two.
    deferred: Option<PeerMessage<P::Socket>>,
    stopping: bool,
    events_dropped: u64,
    kernel_drops_slot: u32,
    kernel_drops_at: Instant,
    forwarded: u64,
    pub(crate) turn_began: Instant,
    residence_us: Histogram<u64>,
    command_us: Histogram<u64>,
    load: LoadMeter,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    slot: u32,
    /// Sockets that are still to come out.
    sockets: u8,
    /// Not waited for any longer: one of them was never open.
    until: Instant,
}

impl<P: PacketIo> Shard<P> {
    /// A shard with nothing in it. `batch_wait` is how long arrivals are gathered.
    pub fn new(
        id: ShardId,
        batch_wait: Duration,
        engine: Engine,
        io: P,
        mailbox: MailboxReader<P::Socket>,
        outbox: Arc<Outbox>,
        peers: Arc<Peers<P::Socket>>,
    ) -> Self {
        let histogram = || {
            // Three figures of precision; made once, so nothing is allocated when a value is recorded.
            Histogram::new_with_bounds(1, MICROSECONDS_MAX, 3).expect("constant bounds are valid")
        };
        Self {
            id,
            batch_wait,
            engine,
            io,
            mailbox,
            outbox,
            peers,
            moves: Moves::new(),
            peer_backlog: VecDeque::new(),
            closing: Vec::new(),
            deferred: None,
            stopping: false,
            events_dropped: 0,
            kernel_drops_slot: 0,
            kernel_drops_at: Instant::ZERO,
            forwarded: 0,
            turn_began: Instant::ZERO,
            residence_us: histogram(),
            command_us: histogram(),
            load: LoadMeter::new(),
        }
    }

    /// Does everything there is to do at `now`, bounded by the limits above.
    ///
    /// # Errors
    /// The packet I/O is broken; the shard cannot go on.
    pub fn turn(&mut self, now: Instant) -> io::Result<Turn> {
        self.turn_began = now;
        let Self { engine, io, .. } = self;
        let mut forwarded = 0;
        let received = io.receive(DATAGRAMS_PER_TURN_MAX, |meta, datagram| {
            let disposition = engine.handle_datagram(now, meta, datagram);
            forwarded += u64::from(matches!(disposition, Disposition::Forward(_)));
            disposition
        });
        self.forwarded += forwarded;
        while let Some((port, reason, packets)) = self.io.poll_drop() {
            self.engine.count_drop(port, reason, packets);
        }
        // Before a deadline or a command can follow from them: an endpoint just learned is connected while it is still
        // the one that counts, and a connection whose sockets are out leaves before its clock ticks here again.
        self.settle_ports();
        let partials = self.take_partials(now);
        let ticked = self.tick(now);
        let messages = self.take_messages(now);
        // The last packet of a connection leaves before its sockets close.
        self.transmit();
        self.settle_ports();
        self.deliver_events();
        self.look_for_kernel_drops(now);
        self.transmit();
        Ok(Turn {
            active: received > 0 || ticked || messages > 0 || partials > 0,
            more: received >= DATAGRAMS_PER_TURN_MAX || messages >= COMMANDS_PER_TURN_MAX,
            stop: self.stopping,
        })
    }

    /// Records how long this turn's packets stayed, and says how to wait for the next. `now` is read after the turn.
    pub fn plan_wait(&mut self, now: Instant, turn: Turn, at_most: Duration) -> WaitPlan {
        let residence_us = u64::try_from(now.saturating_since(self.turn_began).as_micros()).unwrap_or(u64::MAX);
        if self.forwarded > 0 {
            self.residence_us.saturating_record_n(residence_us, self.forwarded);
            self.forwarded = 0;
        }
        if self.load.wants_reading(now) {
            self.load.read(now, thread_cpu_ns());
        }
        let until_due = self.engine.poll_timeout().map_or(at_most, |due| due.saturating_since(now).min(at_most));
        let sleepless = turn.more || !self.mailbox.is_empty() || !self.peers.is_empty(self.id);
        let timeout =
            if sleepless || self.waits_for_room() { until_due.min(self.impatience(sleepless)) } else { until_due };
        WaitPlan { timeout, batch: self.batch_wait.min(timeout) }
    }

    /// Sends what is queued, then waits as planned. The doorbell is armed around the wait.
    ///
    /// # Errors
    /// The packet I/O is broken.
    pub fn wait(&mut self, mut plan: WaitPlan) -> io::Result<()> {
        self.mailbox.doorbell().arm();
        if !self.mailbox.is_empty() || !self.peers.is_empty(self.id) {
            // Came in between the last look and arming.
            plan = WaitPlan { timeout: Duration::ZERO, batch: Duration::ZERO };
        }
        let waited = self.io.wait(plan);
        self.mailbox.doorbell().disarm();
        waited
    }

    /// When the engine wants to be called next.
    pub fn next_due(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }

    /// The packet I/O, for what only its owner knows how to do.
    pub const fn io_mut(&mut self) -> &mut P {
        &mut self.io
    }

    /// The bell that messages ring.
    pub fn mailbox(&self) -> &MailboxReader<P::Socket> {
        &self.mailbox
    }

    /// Whether messages wait, from control or from other shards.
    pub fn has_messages(&self) -> bool {
        !self.mailbox.is_empty() || !self.peers.is_empty(self.id)
    }

    fn tick(&mut self, now: Instant) -> bool {
        let mut ticked = false;
        for _ in 0..CATCH_UPS_PER_TURN_MAX {
            if self.engine.poll_timeout().is_none_or(|due| due > now) {
                break;
            }
            self.engine.handle_timeout(now);
            self.transmit();
            ticked = true;
        }
        ticked
    }

    pub(crate) fn transmit(&mut self) {
        let Self { engine, io, .. } = self;
        io.transmit(|slot| engine.poll_transmit(slot));
        self.send_partials();
    }

    fn take_messages(&mut self, now: Instant) -> usize {
        let mut taken = 0;
        while let Some((to, message)) = self.peer_backlog.pop_front() {
            if let Err(message) = self.peers.send(to, message) {
                self.peer_backlog.push_front((to, message));
                break;
            }
        }
        if let Some(message) = self.deferred.take() {
            self.handle_peer_message(now, message);
        }
        // Connections that arrive come before commands that may name them.
        // A backlog for other shards does not keep theirs waiting: two shards never block each other.
        while taken < COMMANDS_PER_TURN_MAX && !self.lacks_room() {
            let Some(message) = self.peers.pop(self.id) else { break };
            taken += 1;
            self.handle_peer_message(now, message);
        }
        while taken < COMMANDS_PER_TURN_MAX && !self.waits_for_room() && !self.stopping {
            let Some(message) = self.mailbox.pop() else { break };
            taken += 1;
            self.handle_message(now, message);
        }
        taken
    }

    /// Whether messages have to wait because what they cause could not be handed on. A shard that waits must not park:
    /// nobody rings when there is room again.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.lacks_room() || !self.peer_backlog.is_empty() || self.moves.is_full()
    }

    /// Whether there is no place for another report.
    fn lacks_room(&self) -> bool {
        self.engine.events_waiting() > 0 || self.outbox.room() == 0 || self.deferred.is_some()
    }

    fn is_closing(&self, slot: u32) -> bool {
        self.closing.iter().any(|closing| closing.slot == slot && closing.until > self.turn_began)
    }

    /// How long to wait at most when there is work that could not be done.
    fn impatience(&self, sleepless: bool) -> Duration {
        if sleepless && !self.waits_for_room() { Duration::ZERO } else { Duration::from_millis(1) }
    }

    fn handle_peer_message(&mut self, now: Instant, message: PeerMessage<P::Socket>) {
        match message {
            PeerMessage::Adopt(arrival) if arrival.seats.iter().any(|seat| self.is_closing(seat.slot)) => {
                self.deferred = Some(PeerMessage::Adopt(arrival));
            }
            PeerMessage::Adopt(arrival) => self.adopt(now, *arrival),
            PeerMessage::Forward(message) => self.handle_message(now, message),
        }
    }

    pub(crate) fn handle_message(&mut self, now: Instant, message: ShardMessage<P::Socket>) {
        let message = match self.moves.route(message) {
            Route::Here(message) => message,
            Route::Elsewhere(to, message) => return self.send_to_peer(to, PeerMessage::Forward(message)),
            Route::Held => return,
        };
        if let ShardMessage::Open { request, .. } = &message
            && request.command.connection().is_some_and(|id| self.is_closing(id.slot_number()))
        {
            self.deferred = Some(PeerMessage::Forward(message));
            return;
        }
        if let ShardMessage::Command(request) = &message
            && self.engine.is_awaited(&request.command)
        {
            // Its conference is about to deliver a frame.
            self.deferred = Some(PeerMessage::Forward(message));
            return;
        }
        match message {
            ShardMessage::Command(request) => self.handle_command(now, request),
            ShardMessage::Open { request, rtp, rtcp } => self.open(now, request, rtp, rtcp),
            ShardMessage::Move(order) => self.begin_move(order),
            ShardMessage::Forget { target } => self.moves.forget(target),
            ShardMessage::Snapshot { token } => {
                let snapshot = Box::new(self.snapshot());
                self.report(ShardReport::Snapshot { token, snapshot });
            }
            ShardMessage::Stop => self.stopping = true,
            ShardMessage::Panic => panic!("told to panic"),
        }
        self.deliver_events();
        self.transmit();
    }

    fn handle_command(&mut self, now: Instant, request: Request) {
        let waited = now.saturating_since(request.received).as_micros();
        self.command_us.saturating_record(u64::try_from(waited).unwrap_or(u64::MAX));
        self.engine.handle_command(now, request);
    }

    fn open(&mut self, now: Instant, request: Request, rtp: P::Socket, rtcp: P::Socket) {
        let token = request.token;
        let Some(id) = request.command.connection() else { return };
        let Ok(slot) = u32::try_from(id.slot()) else { return };
        if let Err(error) = self.open_ports(slot, rtp, rtcp) {
            tracing::warn!(shard = self.id.0, connection = %id, %error, "sockets could not be opened");
            let result = Err(CommandError::SocketFailed);
            self.report(ShardReport::Event(Event::Answer { token, result }));
            return;
        }
        self.handle_command(now, request);
        if !self.engine.has_connection(id) {
            self.close_ports(slot);
        }
    }

    pub(crate) fn open_ports(&mut self, slot: u32, rtp: P::Socket, rtcp: P::Socket) -> io::Result<()> {
        self.io.open(Port::rtp(slot), rtp)?;
        self.io.open(Port::rtcp(slot), rtcp).inspect_err(|_| self.io.close(Port::rtp(slot)))
    }

    /// Closes the sockets of a slot that nobody lives in.
    pub(crate) fn close_unused(&mut self, slot: u32) {
        if self.engine.slot_in_use(slot, 1).is_none() {
            self.close_ports(slot);
        }
    }

    fn close_ports(&mut self, slot: u32) {
        self.io.close(Port::rtp(slot));
        self.io.close(Port::rtcp(slot));
    }

    pub(crate) fn send_to_peer(&mut self, to: ShardId, message: PeerMessage<P::Socket>) {
        if !self.peer_backlog.is_empty() {
            self.peer_backlog.push_back((to, message));
        } else if let Err(message) = self.peers.send(to, message) {
            self.peer_backlog.push_back((to, message));
        }
    }

    pub(crate) fn settle_ports(&mut self) {
        while let Some(action) = self.engine.poll_port_action() {
            match action {
                PortAction::Connect(port, remote) => match self.io.connect(port, remote) {
                    Ok(()) => self.engine.port_connected(port),
                    // Unconnected sockets work as well, only dearer.
                    Err(error) => tracing::debug!(shard = self.id.0, ?port, %remote, %error, "connect refused"),
                },
                PortAction::Disconnect(port) => {
                    if let Err(error) = self.io.disconnect(port) {
                        tracing::warn!(shard = self.id.0, ?port, %error, "disconnect refused");
                    }
                }
                PortAction::Release { slot } => {
                    self.close_ports(slot);
                    self.closing.push(Closing { slot, sockets: 2, until: self.turn_began + CLOSING_PATIENCE });
                }
            }
        }
        self.closing.retain(|closing| closing.until > self.turn_began);
        self.settle_moves();
        while let Some((port, socket)) = self.io.poll_closed() {
            // Released: dropping the socket closes it, and the slot is free when both are out.
            drop(self.take_moving_socket(port, socket));
            for closing in self.closing.iter_mut().filter(|closing| closing.slot == port.slot) {
                closing.sockets = closing.sockets.saturating_sub(1);
            }
            self.closing.retain(|closing| closing.sockets > 0);
        }
        self.finish_moves();
    }

    // Reports

    pub(crate) fn deliver_events(&mut self) {
        while self.outbox.room() > 0 {
            let Some(event) = self.engine.poll_event() else { return };
            // Talk and digits leave half of the outbox to those who must not be lost.
            if event.is_droppable() && self.outbox.room() < self.outbox.capacity() / 2 {
                self.events_dropped += 1;
                continue;
            }
            self.report(ShardReport::Event(event));
        }
    }

    pub(crate) fn report(&mut self, report: ShardReport) {
        // Room was looked for, and answers are fewer than places: the control plane bounds what it has asked.
        if self.outbox.push(report).is_err() {
            tracing::error!(shard = self.id.0, "the outbox is full; a report is lost");
        }
    }

    fn look_for_kernel_drops(&mut self, now: Instant) {
        if now.saturating_since(self.kernel_drops_at) < KERNEL_DROPS_INTERVAL {
            return;
        }
        self.kernel_drops_at = now;
        let found = self.engine.slot_in_use(self.kernel_drops_slot, KERNEL_DROPS_LOOK);
        self.kernel_drops_slot = found.map_or(self.kernel_drops_slot + KERNEL_DROPS_LOOK, |slot| slot + 1);
        self.kernel_drops_slot %= SLOTS;
        let Some(slot) = found else { return };
        let port = Port::rtp(slot);
        let drops = self.io.kernel_drops(port);
        if drops > 0 {
            self.engine.count_drop(port, DropReason::ReceiveBufferFull, drops);
        }
    }

    fn snapshot(&self) -> ShardSnapshot {
        let totals = self.engine.totals();
        let cpu_ns = thread_cpu_ns();
        ShardSnapshot {
            shard: self.id,
            thread_id: rustix::thread::gettid().as_raw_nonzero().get(),
            connections: totals.connections,
            conferences: totals.conferences,
            operations: totals.operations,
            packets_in: totals.packets_in,
            packets_out: totals.packets_out,
            drops: totals.drops,
            ticks_late: totals.ticks_late,
            partials_late: totals.partials_late,
            partials_dropped: totals.partials_dropped,
            encodes: totals.encodes,
            packets_direct: totals.direct,
            events_dropped: totals.events_dropped + self.events_dropped,
            cpu_ns,
            busy: self.load.busy(self.turn_began, cpu_ns),
            io: self.io.counters(),
            residence_us: self.residence_us.clone(),
            command_us: self.command_us.clone(),
        }
    }
}

/// CPU time of the calling thread in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0)
}
