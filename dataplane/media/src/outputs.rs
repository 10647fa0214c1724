//! What the engine has ready to be polled.

use std::collections::VecDeque;

use crate::command::{ConnectionSpec, Target};
use crate::connection::Media;
use crate::event::{Condition, DropCounters, DropReason, Event};
use crate::limits::{CONNECTIONS_MAX, EVENTS_WAITING_MAX, FRAME_SAMPLES};
use crate::op::Operation;
use crate::port::PortAction;
use crate::time::Instant;

/// Counters of one engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Connections that live here.
    pub connections: u64,
    /// Conferences that live here.
    pub conferences: u64,
    /// Operations that run here.
    pub operations: u64,
    /// RTP and RTCP packets taken in.
    pub packets_in: u64,
    /// RTP and RTCP packets sent.
    pub packets_out: u64,
    /// Media frames that were mixed more than a frame after they were due.
    pub ticks_late: u64,
    /// Talk and digit events dropped because nobody polled.
    pub events_dropped: u64,
    /// Packets dropped, by reason.
    pub drops: DropCounters,
}

/// Queues towards the shard.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) events: VecDeque<Event>,
    pub(crate) port_actions: VecDeque<PortAction>,
    /// Slots of connections whose packet is complete.
    pub(crate) ready: VecDeque<u32>,
    pub(crate) totals: Totals,
}

impl Outputs {
    pub(crate) fn new() -> Self {
        Self {
            events: VecDeque::with_capacity(EVENTS_WAITING_MAX),
            port_actions: VecDeque::with_capacity(1024),
            ready: VecDeque::with_capacity(CONNECTIONS_MAX),
            totals: Totals::default(),
        }
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        if event.is_droppable() && self.events.len() >= EVENTS_WAITING_MAX {
            self.totals.events_dropped += 1;
            return;
        }
        self.events.push_back(event);
    }

    pub(crate) fn end_operation(&mut self, operation: Box<Operation>, target: Target, condition: Condition) {
        self.totals.operations -= 1;
        self.push_event(operation.end(target, condition));
    }

    /// Appends a frame to the stream of the connection in `slot`, and notes the packet if that completes one.
    pub(crate) fn send_frame(
        &mut self,
        media: &mut Media,
        slot: u32,
        due: Instant,
        payload: &[u8; FRAME_SAMPLES],
        spec: &ConnectionSpec,
    ) {
        media.owns_stream = true;
        media.relay_map = None;
        if media.sender.push(due, payload, spec.tx_payload_type, spec.ptime_ms) {
            self.ready.push_back(slot);
        }
    }

    pub(crate) fn drop_packets(&mut self, reason: DropReason, packets: u64) {
        self.totals.drops.add(reason, packets);
    }
}
