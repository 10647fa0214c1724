//! A real shard on the simulated network, behind the mailbox and the outbox the control plane knows.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringbridge_media::command::{Command, OperationSpec};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::Event;
use ringbridge_media::id::OperationId;
use ringbridge_media::samples::RecordQueue;
use ringbridge_media::time::Instant;
use ringbridge_shard::mailbox::{Doorbell, Lane, Mailbox, MailboxReader, Outbox, Peers, ShardMessage, ShardReport};
use ringbridge_shard::run::Shard;
use ringbridge_shard::sim::{SimIo, SimNet, SimSocket};

use super::Started;

/// One shard.
pub(super) struct Node {
    net: SimNet,
    /// From the control plane.
    mailbox: MailboxReader<UdpSocket>,
    outbox: Arc<Outbox>,
    /// To the shard.
    inner_mailbox: Arc<Mailbox<SimSocket>>,
    inner_outbox: Arc<Outbox>,
    shard: Shard<SimIo>,
    recordings: Vec<Weak<RecordQueue>>,
}

impl Node {
    pub(super) fn new(net: &SimNet, now: Instant, started: Started) -> Self {
        let Started { config, mailbox, outbox } = started;
        let bell = Arc::new(Doorbell::new().expect("a descriptor"));
        let (inner_mailbox, inner_outbox) = (Mailbox::with_doorbell(Arc::clone(&bell)), Outbox::new(bell));
        let engine = Engine::new(config.id, 1, now);
        let peers = Peers::new(1).expect("a descriptor");
        let reader = MailboxReader::new(Arc::clone(&inner_mailbox));
        let io = net.io(2 * config.connections_max);
        let shard = Shard::new(config.id, Duration::ZERO, engine, io, reader, Arc::clone(&inner_outbox), peers);
        let mailbox = MailboxReader::new(mailbox);
        Self { net: net.clone(), mailbox, outbox, inner_mailbox, inner_outbox, shard, recordings: Vec::new() }
    }

    /// Whether the control plane has sent something that was not taken yet.
    pub(super) fn has_messages(&self) -> bool {
        !self.mailbox.is_empty()
    }

    /// When the shard wants its next turn.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.shard.next_due()
    }

    /// One turn; whether anything happened. Operations that end are added to `ending`.
    pub(super) fn turn(&mut self, now: Instant, ending: &mut BTreeSet<OperationId>) -> bool {
        let mut active = false;
        while let Some(message) = self.mailbox.pop() {
            let message = self.translate(message);
            assert!(self.inner_mailbox.send(Lane::Ordinary, message).is_ok(), "the mailbox has room");
        }
        // What has arrived by now is taken over, then handled, and what is said to it leaves.
        for _ in 0..2 {
            let turn = self.shard.turn(now).expect("a simulated network does not break");
            active |= turn.active;
            let plan = self.shard.plan_wait(now, turn, Duration::ZERO);
            self.shard.wait(plan).expect("a simulated network does not break");
        }
        while let Some(report) = self.inner_outbox.pop() {
            if let ShardReport::Event(Event::OperationEnded { id, .. }) = &report {
                ending.insert(*id);
            }
            active = true;
            assert!(self.outbox.push(report).is_ok(), "the outbox has room");
        }
        active
    }

    /// Whether a recording's writer is far behind: then the clock has to wait, since it runs faster than any disk.
    pub(super) fn recordings_are_behind(&mut self) -> bool {
        self.recordings.retain(|queue| queue.strong_count() > 0);
        let behind = |queue: &Weak<RecordQueue>| {
            let queue = queue.upgrade();
            // A writer that has failed takes nothing any more.
            queue.is_some_and(|queue| queue.chunks.len() > BEHIND_CHUNKS && !queue.failed.load(Ordering::Acquire))
        };
        self.recordings.iter().any(behind)
    }

    /// The same message for a simulated network: sockets of the kernel are closed, and simulated ones stand at their
    /// addresses.
    fn translate(&mut self, message: ShardMessage<UdpSocket>) -> ShardMessage<SimSocket> {
        let bind = |socket: UdpSocket| {
            let address = socket.local_addr().expect("bound");
            self.net.bind(address).expect("the address is free")
        };
        match message {
            ShardMessage::Command(request) => {
                if let Command::StartOperation { operation, .. } = &request.command
                    && let OperationSpec::Record { queue, .. } | OperationSpec::RecordCall { queue, .. } =
                        operation.as_ref()
                {
                    self.recordings.push(Arc::downgrade(queue));
                }
                ShardMessage::Command(request)
            }
            ShardMessage::Open { request, rtp, rtcp } => {
                ShardMessage::Open { request, rtp: bind(rtp), rtcp: bind(rtcp) }
            }
            ShardMessage::Move(order) => ShardMessage::Move(order),
            ShardMessage::Forget { target } => ShardMessage::Forget { target },
            ShardMessage::Snapshot { token } => ShardMessage::Snapshot { token },
            ShardMessage::Stop => ShardMessage::Stop,
            ShardMessage::Panic => ShardMessage::Panic,
        }
    }
}

/// Chunks that may wait for a recording's writer: a second of them.
const BEHIND_CHUNKS: usize = 50;
