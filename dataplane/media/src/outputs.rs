//! What the engine has ready to be polled.

use core::net::SocketAddr;
use std::collections::VecDeque;

use ringbridge_wire::rtcp::CompoundWriter;
use ringbridge_wire::seq::Ssrc;

use crate::command::{ConnectionSpec, Target};
use crate::connection::Media;
use crate::event::{Condition, DropCounters, DropReason, Event};
use crate::limits::{CONNECTIONS_MAX, EVENTS_WAITING_MAX, FAREWELLS_WAITING_MAX};
use crate::op::Operation;
use crate::parts::Exchange;
use crate::port::{Port, PortAction, Transmit};
use crate::sender::Sender;
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
    /// Payloads encoded: of members with one of their own, and of formats that several listen to. G.711 counts a frame,
    /// others a packet.
    pub encodes: u64,
    /// Media frames that were mixed more than a frame after they were due.
    pub ticks_late: u64,
    /// Partial sums of other parts of a conference that a frame was mixed without.
    pub partials_late: u64,
    /// Partial sums that found no place in a queue, or were of no use.
    pub partials_dropped: u64,
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
    /// Slots of connections whose report is due.
    pub(crate) reports: VecDeque<u32>,
    /// Last packets of streams that have ended.
    pub(crate) farewells: VecDeque<Farewell>,
    /// Slots of connections whose codec has failed.
    pub(crate) broken: Vec<u32>,
    /// Partial sums on their way to other shards.
    pub(crate) exchange: Exchange,
    pub(crate) totals: Totals,
}

/// The RTCP packet that ends a stream of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    pub(crate) transmit: Transmit,
    pub(crate) bytes: [u8; FAREWELL_BYTES_MAX],
}

/// RR, name and BYE.
pub(crate) const FAREWELL_BYTES_MAX: usize = 64;
/// Reports of one millisecond, as many as there is room for at once without allocating.
const REPORTS_AT_ONCE: usize = 1024;

impl Outputs {
    pub(crate) fn new() -> Self {
        Self {
            events: VecDeque::with_capacity(EVENTS_WAITING_MAX),
            port_actions: VecDeque::with_capacity(1024),
            ready: VecDeque::with_capacity(CONNECTIONS_MAX),
            reports: VecDeque::with_capacity(REPORTS_AT_ONCE),
            farewells: VecDeque::with_capacity(FAREWELLS_WAITING_MAX),
            broken: Vec::new(),
            exchange: Exchange::default(),
            totals: Totals::default(),
        }
    }

    /// Ends a stream with a BYE, unless too many others wait to: then it just ends.
    pub(crate) fn say_bye(&mut self, ssrc: u32, cname: &[u8], (port, target): (Port, Option<SocketAddr>)) {
        let mut bytes = [0; FAREWELL_BYTES_MAX];
        let mut writer = CompoundWriter::new(&mut bytes);
        let ssrc = Ssrc(ssrc);
        let written = writer
            .receiver_report(ssrc, &[])
            .and_then(|()| writer.cname(ssrc, cname))
            .and_then(|()| writer.bye(&[ssrc]));
        let len = writer.len();
        if written.is_ok() && self.farewells.len() < FAREWELLS_WAITING_MAX {
            self.farewells.push_back(Farewell { transmit: Transmit { port, target, len }, bytes });
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

    /// Appends a frame to the stream of the connection in `slot`, which from now on is our own.
    pub(crate) fn send_frame(
        &mut self,
        media: &mut Media,
        slot: u32,
        due: Instant,
        bytes: &[u8],
        spec: &ConnectionSpec,
    ) {
        media.owns_stream = true;
        media.relay_map = None;
        self.push_frame(&mut media.sender, slot, due, bytes, spec);
    }

    /// Appends a frame, with the bytes that are known with it, and notes the packet if that completes one.
    pub(crate) fn push_frame(
        &mut self,
        sender: &mut Sender,
        slot: u32,
        due: Instant,
        bytes: &[u8],
        spec: &ConnectionSpec,
    ) {
        sender.set_clock_rate(spec.tx_codec.clock_rate_hz());
        if sender.push(due, bytes, spec.tx_payload_type, spec.ptime_ms) {
            self.ready.push_back(slot);
        }
    }

    pub(crate) fn drop_packets(&mut self, reason: DropReason, packets: u64) {
        self.totals.drops.add(reason, packets);
    }
}
