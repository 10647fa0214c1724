//! What the engine has ready to be polled.

use core::net::SocketAddr;
use std::collections::VecDeque;

use ringbridge_codec::noise::ComfortNoise;
use ringbridge_wire::rtcp::CompoundWriter;
use ringbridge_wire::seq::Ssrc;

use crate::command::{ConnectionSpec, Target};
use crate::connection::Media;
use crate::event::{Condition, DropCounters, DropReason, Event};
use crate::id::{ConferenceId, ConnectionId};
use crate::limits::{
    COMFORT_NOISE_AFTER_MS, COMFORT_NOISE_DBOV, CONNECTIONS_MAX, EVENTS_WAITING_MAX, FAREWELLS_WAITING_MAX, FRAME_MS,
};

const COMFORT_NOISE_AFTER_FRAMES: u32 = COMFORT_NOISE_AFTER_MS / FRAME_MS;
use crate::op::Operation;
use crate::parts::Exchange;
use crate::playout;
use crate::port::{Port, PortAction, Transmit};
use crate::sender::Sender;
use crate::talk::TalkChange;
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
    /// Packets passed from one of two parties to the other past the mix,
    pub direct: u64,
    /// and how often two began to.
    pub direct_begun: u64,
    /// Frames that were not decoded as they were said to be silent.
    pub decodes_saved: u64,
    /// Media frames that were mixed more than a frame after they were due.
    pub ticks_late: u64,
    /// Partial sums of other parts of a conference that a frame was mixed without.
    pub partials_late: u64,
    /// Partial sums that found no place in a queue, or were of no use.
    pub partials_dropped: u64,
    /// What has happened in the jitter buffers, as far as it has been [gathered](crate::engine::Engine::gather_playout).
    pub playout: playout::Counters,
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
            exchange: Exchange::new(),
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

    /// Tells that somebody in a conference has begun or ceased to talk.
    pub(crate) fn tell_talk(&mut self, change: TalkChange, conference: ConferenceId, connection: ConnectionId) {
        self.push_event(match change {
            TalkChange::Started => Event::TalkStarted { conference, connection },
            TalkChange::Stopped => Event::TalkStopped { conference, connection },
        });
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

    /// Takes note of a frame that is silent or not, for an endpoint that takes comfort noise (RFC 3389). `true`: silence
    /// has lasted long enough to be described, once, and is then not sent.
    pub(crate) fn send_noise(
        &mut self,
        media: &mut Media,
        slot: u32,
        due: Instant,
        is_silent: bool,
        payload_type: u8,
        spec: &ConnectionSpec,
    ) -> bool {
        if !is_silent {
            (media.silent_frames, media.describes_silence) = (0, false);
            return false;
        }
        media.silent_frames = media.silent_frames.saturating_add(1);
        // What was begun is sent as it is.
        if media.silent_frames <= COMFORT_NOISE_AFTER_FRAMES || media.sender.frames_before(due) > 0 {
            return false;
        }
        if !core::mem::replace(&mut media.describes_silence, true) {
            let mut payload = [0; 1];
            let len = ComfortNoise::white(COMFORT_NOISE_DBOV).write(&mut payload).unwrap_or(0);
            media.sender.set_clock_rate(spec.tx_codec.clock_rate_hz());
            if media.sender.push(due, &payload[..len], payload_type, FRAME_MS) {
                self.ready.push_back(slot);
            }
        }
        true
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
