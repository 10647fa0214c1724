//! What happens to a datagram: checked, learned from, counted, then relayed in place, decoded, or dropped by name.

use ringbridge_wire::audio_level::AudioLevel;
use ringbridge_wire::demux::{self, Kind};
use ringbridge_wire::rtcp;
use ringbridge_wire::rtp::{self, RtpPacket};
use ringbridge_wire::seq::RtpTimestamp;
use ringbridge_wire::telephone_event::{self, TelephoneEvent};

use crate::connection::{Connection, Link, Media, RelayMap};
use crate::engine::{Engine, arm_silence};
use crate::event::{DropReason, Event};
use crate::latch::Verdict;
use crate::levels::Claims;
use crate::port::{DatagramMeta, Disposition, Port, PortAction, Transmit};
use crate::time::Instant;

impl Engine {
    pub(crate) fn take_datagram(
        &mut self,
        now: Instant,
        meta: &DatagramMeta,
        datagram: &mut [u8],
    ) -> Result<Disposition, DropReason> {
        let Some(connection) = self.connections.get(meta.port.slot as usize).and_then(Option::as_ref) else {
            return Err(DropReason::ClosedPort);
        };
        if connection.reserved_until.is_some() {
            return Err(DropReason::Reserved);
        }
        if datagram.is_empty() {
            return Err(DropReason::Empty);
        }
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        if meta.port.rtcp { self.take_rtcp(meta, datagram) } else { self.take_rtp(now, meta, datagram) }
    }

    fn take_rtp(&mut self, now: Instant, meta: &DatagramMeta, datagram: &mut [u8]) -> Result<Disposition, DropReason> {
        let slot = meta.port.slot;
        let Some(mut connection) = self.connections[slot as usize].as_mut() else {
            return Err(DropReason::ClosedPort);
        };
        // Media alone: RTCP goes both ways whatever the direction (RFC 3264 section 5.1).
        if !connection.spec.direction.receives() {
            return Err(DropReason::Direction);
        }
        match demux::classify(datagram) {
            Kind::Rtp => {}
            Kind::Rtcp if connection.spec.rtcp_mux => return self.take_rtcp(meta, datagram),
            // Where no RTCP is to be expected, a packet with the marker and a payload type like one of RTCP.
            Kind::Rtcp if datagram.get(1).is_some_and(|&second| connection.spec.has_payload_type(second & 0x7F)) => {}
            Kind::Rtcp | Kind::Stun | Kind::Dtls | Kind::Other | Kind::Empty => return Err(DropReason::NotRtp),
        }
        let mut packet = RtpPacket::parse(datagram).map_err(|_| DropReason::NotRtp)?;
        match connection.latch.judge(now, meta.source, &packet, connection.spec.handover) {
            Verdict::Accepted | Verdict::NewSsrc => {}
            Verdict::Refused(reason) => return Err(reason),
            Verdict::Pinned(remote) => {
                // After a handover its RTCP has moved too.
                connection.rtcp_learned = connection.rtcp_learned.filter(|learned| learned.ip() == remote.ip());
                self.out.push_event(Event::ConnectionLearned { id: connection.id, remote });
                if !connection.spec.handover {
                    self.out.port_actions.push_back(PortAction::Connect(Port::rtp(slot), remote));
                }
            }
        }
        if !connection.bucket.take(now, connection.spec.ptime_ms) {
            return Err(DropReason::RateLimited);
        }
        connection.last_heard = now;
        connection.timed_out = false;
        let known = connection.receiver.ssrc();
        if known.is_some_and(|known| known != packet.ssrc().0) {
            // Another stream, another timeline.
            connection.reports.restart();
            (connection.event_begun, connection.event_ended) = (None, None);
            if let Some(media) = &mut connection.media {
                media.playout.reset();
                media.claims = Claims::default();
            }
        }
        let clock_rate_hz = connection.clock_rate_hz();
        connection.receiver.update(now, &packet, clock_rate_hz, connection.spec.ptime_ms);
        connection.counters.packets_in += 1;
        connection.counters.bytes_in += datagram.len() as u64;
        self.out.totals.packets_in += 1;
        if connection.silence_due.is_none() {
            arm_silence(connection, slot, &mut self.wheel);
        }

        if known != Some(packet.ssrc().0) && connection.sends_as(packet.ssrc().0) {
            self.resolve_collision(slot);
            connection = self.connections[slot as usize].as_mut().ok_or(DropReason::ClosedPort)?;
        }
        let relays = matches!(connection.link, Link::Relay(_)) && !connection.transcodes;
        let may_report = connection.spec.rtcp_reports && !relays;
        if may_report && connection.reports.due.is_none() {
            self.begin_reports(slot);
            connection = self.connections[slot as usize].as_mut().ok_or(DropReason::ClosedPort)?;
        }

        let payload_type = packet.payload_type();
        if connection.may_begin_to_listen(payload_type) {
            self.begin_to_listen(slot);
            connection = self.connections[slot as usize].as_mut().ok_or(DropReason::ClosedPort)?;
        }
        if let Link::Conference(room) = connection.link
            && self.conferences[room as usize].as_ref().is_some_and(|room| room.shortcut.is_open)
        {
            if let Some(outcome) = self.pass_direct(now, room, slot, datagram) {
                if let Err(DropReason::Late | DropReason::Early) = outcome
                    && let Some(connection) = self.connections[slot as usize].as_mut()
                {
                    connection.receiver.discard();
                }
                return outcome;
            }
            self.close_direct(room);
            connection = self.connections[slot as usize].as_mut().ok_or(DropReason::ClosedPort)?;
            packet = RtpPacket::parse(datagram).map_err(|_| DropReason::NotRtp)?;
        }
        if payload_type == connection.spec.telephone_event_payload_type {
            if let Some(event) = take_digit(now, connection, &packet) {
                self.out.push_event(event);
            }
            if let Some(media) = &mut connection.media {
                // Its number is not missing among those of the audio.
                media.playout.note_other(packet.sequence_number());
            }
            if connection.link == Link::None {
                // Its digit waits to be gathered.
                return Ok(Disposition::Consumed);
            }
        } else if wants_samples(connection, &self.conferences) {
            let kept = keep(now, connection, &packet);
            if matches!(kept, Err(DropReason::Late | DropReason::Early)) {
                connection.receiver.discard();
            }
            // In a conference the samples are all there is; a relayed packet goes on even if it can't be recorded.
            if matches!(connection.link, Link::Conference(_)) {
                kept?;
            }
        }
        match connection.link {
            Link::Relay(_) if connection.transcodes && connection.is_audio(payload_type) => Ok(Disposition::Consumed),
            Link::Relay(peer) if connection.transcodes => self.relay_event(slot, peer, datagram),
            Link::Relay(peer) => self.relay_rtp(now, slot, peer, datagram),
            Link::Conference(room) => {
                let conference = self.conferences[room as usize].as_ref();
                let Some(conference) = conference.filter(|conference| conference.passes_on) else {
                    return Ok(Disposition::Consumed);
                };
                let peer = conference.peer_of(slot).ok_or(DropReason::Unrouted)?;
                let heard = connection.participant.can_be_heard();
                let hears = self.connections[peer as usize].as_ref().is_some_and(|peer| !peer.participant.deaf);
                if heard && hears { self.relay_rtp(now, slot, peer, datagram) } else { Err(DropReason::Muted) }
            }
            Link::None if connection.needs_audio() => Ok(Disposition::Consumed),
            Link::None => Err(DropReason::Unrouted),
        }
    }

    /// Audio arrives where digits may be in it: has a clock run that looks for them.
    #[cold]
    fn begin_to_listen(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        let Some(in_band) = connection.media.as_mut().and_then(|media| media.in_band.as_mut()) else { return };
        in_band.restart();
        connection.listens = true;
        match connection.link {
            Link::Conference(room) => self.review_conference(room),
            Link::Relay(_) | Link::None => self.review_solo(slot, None),
        }
    }

    /// The other end of the relay, or of the hairpin that passes packets on.
    pub(crate) fn relayed_to(&self, slot: u32) -> Option<u32> {
        match self.connections[slot as usize].as_ref()?.link {
            Link::Relay(peer) => Some(peer),
            Link::Conference(room) => {
                let conference = self.conferences[room as usize].as_ref().filter(|conference| conference.passes_on)?;
                conference.peer_of(slot)
            }
            Link::None => None,
        }
    }

    /// Where its RTCP goes on to: it says nothing of a stream that is encoded again.
    pub(crate) fn passes_rtcp_to(&self, slot: u32) -> Option<u32> {
        self.relayed_to(slot).filter(|_| self.connections[slot as usize].as_ref().is_some_and(|side| !side.transcodes))
    }

    fn relay_rtp(&mut self, now: Instant, from: u32, to: u32, datagram: &mut [u8]) -> Result<Disposition, DropReason> {
        debug_assert_eq!(self.relayed_to(to), Some(from), "both sides of a relay know each other");
        let Some(peer) = self.connections[to as usize].as_mut() else { return Err(DropReason::Unrouted) };
        if !peer.spec.direction.sends() {
            return Err(DropReason::Direction);
        }
        let target = if peer.connected { None } else { Some(peer.latch.target().ok_or(DropReason::NoTarget)?) };
        if let Some(media) = peer.media.as_mut().filter(|media| media.owns_stream) {
            if media.is_played_to() {
                return Err(DropReason::Replaced);
            }
            continue_as_own(now, media, peer.spec.ptime_ms, datagram)?;
        }
        peer.counters.packets_out += 1;
        peer.counters.bytes_out += datagram.len() as u64;
        self.out.totals.packets_out += 1;
        Ok(Disposition::Forward(Transmit { port: Port::rtp(to), target, len: datagram.len() }))
    }

    /// Passes a telephone-event into the stream that the other side of a transcoding relay is sent.
    fn relay_event(&mut self, from: u32, to: u32, datagram: &mut [u8]) -> Result<Disposition, DropReason> {
        let Ok([Some(sender), Some(peer)]) = self.connections.get_disjoint_mut([from as usize, to as usize]) else {
            return Err(DropReason::Unrouted);
        };
        let clock_in = sender.clock_rate_hz();
        let target = if peer.connected { None } else { Some(peer.latch.target().ok_or(DropReason::NoTarget)?) };
        let Connection { spec, media: Some(media), .. } = peer else { return Err(DropReason::Unrouted) };
        if !spec.direction.sends() {
            return Err(DropReason::Direction);
        }
        if media.is_played_to() {
            return Err(DropReason::Replaced);
        }
        let packet = RtpPacket::parse(datagram).map_err(|_| DropReason::NotRtp)?;
        // Others mean something only to who knows their codec.
        if packet.payload_type() != sender.spec.telephone_event_payload_type {
            return Err(DropReason::PayloadType);
        }
        TelephoneEvent::parse(packet.payload()).map_err(|_| DropReason::PayloadSize)?;
        let (source, duration_at) = ((packet.ssrc().0, packet.timestamp()), packet.header_len() + 2);
        // All packets of an event have one timestamp (RFC 4733 section 2.2.1), and its duration counts from there.
        let (sequence, timestamp) = match media.event {
            Some((known, own)) if known == source => (media.sender.use_number(), own),
            last => media.sender.interject(self.now, last.map(|(_, own)| own)),
        };
        media.event = Some((source, timestamp));
        rtp::rewrite_header(datagram, ringbridge_wire::seq::Ssrc(media.sender.ssrc()), sequence, timestamp);
        datagram[1] = datagram[1] & 0x80 | spec.telephone_event_payload_type;
        if let Some(bytes) = datagram.get_mut(duration_at..).and_then(<[u8]>::first_chunk_mut::<2>) {
            let duration =
                u32::from(u16::from_be_bytes(*bytes)) * (spec.tx_codec.clock_rate_hz() / 1000) / (clock_in / 1000);
            *bytes = u16::try_from(duration).unwrap_or(u16::MAX).to_be_bytes();
        }
        peer.counters.packets_out += 1;
        peer.counters.bytes_out += datagram.len() as u64;
        self.out.totals.packets_out += 1;
        Ok(Disposition::Forward(Transmit { port: Port::rtp(to), target, len: datagram.len() }))
    }

    fn take_rtcp(&mut self, meta: &DatagramMeta, datagram: &mut [u8]) -> Result<Disposition, DropReason> {
        let Some(connection) = self.connections[meta.port.slot as usize].as_mut() else {
            return Err(DropReason::ClosedPort);
        };
        if !rtcp::is_rtcp(datagram) {
            return Err(DropReason::NotRtcp);
        }
        if meta.source.is_some_and(|source| !connection.accepts_rtcp_from(source)) {
            return Err(DropReason::ForeignSource);
        }
        // Beside RTP it comes from where that comes from.
        if let Some(source) = meta.source.filter(|_| meta.port.rtcp) {
            // Symmetric RTCP, once: a later packet from elsewhere on that host does not move it, unless it comes from
            // the very address that was given.
            if connection.spec.remote_rtcp == Some(source) {
                connection.rtcp_learned = Some(source);
            }
            connection.rtcp_learned.get_or_insert(source);
            if connection.rtcp_learned != Some(source) {
                return Err(DropReason::ForeignSource);
            }
        }
        if !connection.rtcp_bucket.take(self.now, connection.spec.ptime_ms) {
            return Err(DropReason::RateLimited);
        }
        connection.counters.rtcp_in += 1;
        self.out.totals.packets_in += 1;
        let Some(to) = self.passes_rtcp_to(meta.port.slot) else { return self.take_reports(meta.port.slot, datagram) };
        let Some(peer) = self.connections[to as usize].as_mut() else { return Ok(Disposition::Consumed) };
        let (port, target) = peer.rtcp_way(to).ok_or(DropReason::NoTarget)?;
        peer.counters.rtcp_out += 1;
        self.out.totals.packets_out += 1;
        Ok(Disposition::Forward(Transmit { port, target, len: datagram.len() }))
    }
}

/// Whether somebody is there to use the samples.
fn wants_samples(connection: &Connection, conferences: &[Option<crate::conference::Conference>]) -> bool {
    match connection.link {
        Link::Conference(conference) => {
            connection.is_listened_to() && conferences[conference as usize].as_ref().is_some_and(|room| room.running)
        }
        Link::Relay(_) | Link::None => {
            connection.solo_due.is_some() && (connection.needs_audio() || connection.transcodes)
        }
    }
}

/// Keeps a packet until it is played.
fn keep(now: Instant, connection: &mut Connection, packet: &RtpPacket<'_>) -> Result<(), DropReason> {
    let Connection { spec, media: Some(media), .. } = connection else { return Ok(()) };
    let (payload, payload_type) = (packet.payload(), packet.payload_type());
    let (sequence, timestamp) = (packet.sequence_number(), packet.timestamp());
    if let Some(id) = spec.audio_level_extension {
        let level = packet.extension_element(id).and_then(|data| AudioLevel::parse(data).ok());
        media.claims.note(now, level.map(|level| level.level));
    }
    if payload_type == spec.rx_payload_type {
        media.playout.push(now, sequence, timestamp, packet.marker(), payload)
    } else if Some(payload_type) == spec.comfort_noise_payload_type {
        media.playout.push_noise(now, sequence, timestamp, payload)
    } else {
        Err(DropReason::PayloadType)
    }
}

/// Takes a digit at the first packet of its event, whichever that is, and reports it at the first with the end bit (RFC
/// 4733 section 2.5.1.4 sends it three times).
fn take_digit(now: Instant, connection: &mut Connection, packet: &RtpPacket<'_>) -> Option<Event> {
    let event = TelephoneEvent::parse(packet.payload()).ok()?;
    let clock_rate_hz = connection.clock_rate_hz();
    let timestamp = packet.timestamp();
    let digit = telephone_event::digit(event.event);
    if is_next_event(connection.event_begun, timestamp, clock_rate_hz) {
        connection.event_begun = Some(timestamp);
        connection.press_event(now, digit);
    }
    if !event.end || !is_next_event(connection.event_ended, timestamp, clock_rate_hz) {
        return None;
    }
    connection.event_ended = Some(timestamp);
    Some(Event::Digit {
        connection: connection.id,
        digit: digit?,
        duration_ms: u32::from(event.duration) * 1000 / clock_rate_hz,
    })
}

/// Whether `timestamp` is not that of the last event, nor of one shortly before it whose packets were overtaken: two
/// seconds. What is further back is another timeline.
fn is_next_event(last: Option<RtpTimestamp>, timestamp: RtpTimestamp, clock_rate_hz: u32) -> bool {
    let overtaken_max = 2 * clock_rate_hz.cast_signed();
    last.is_none_or(|last| !(-overtaken_max..=0).contains(&timestamp.distance_from(last)))
}

/// Rewrites a relayed packet so that it continues the stream of our own that a prompt began.
///
/// # Errors
/// `Late`: it was sent before the first packet that continued the stream, and its number is taken.
fn continue_as_own(now: Instant, media: &mut Media, ptime_ms: u32, datagram: &mut [u8]) -> Result<(), DropReason> {
    let packet = RtpPacket::parse(datagram).map_err(|_| DropReason::NotRtp)?;
    let (source_ssrc, sequence, timestamp) = (packet.ssrc().0, packet.sequence_number(), packet.timestamp());
    let known = media.relay_map.filter(|map| map.source_ssrc == source_ssrc);
    let mut map = known.unwrap_or_else(|| {
        let (_, next_sequence, next_timestamp) = media.sender.take_over(now);
        RelayMap {
            source_ssrc,
            floor: next_sequence,
            sequence_offset: next_sequence.0.wrapping_sub(sequence.0),
            timestamp_offset: next_timestamp.0.wrapping_sub(timestamp.0),
        }
    });
    let own_sequence = map.take(sequence).ok_or(DropReason::Late)?;
    media.relay_map = Some(map);
    let own_timestamp = RtpTimestamp(timestamp.0.wrapping_add(map.timestamp_offset));
    rtp::rewrite_header(datagram, ringbridge_wire::seq::Ssrc(media.sender.ssrc()), own_sequence, own_timestamp);
    if known.is_none() {
        rtp::set_marker(datagram, true);
    }
    let step = ptime_ms * media.sender.ticks_per_ms();
    media.sender.advance_to(now, own_sequence.next(), own_timestamp.wrapping_add(step), ptime_ms);
    Ok(())
}
