//! The short way of two: what one sends goes to the other as it came, for as long as nothing needs the mix.
//!
//! ```text
//!            a second in which both were heard and nothing was asked for
//!  mixed ──────────────────────────────────────────────────────────────────▶ direct
//!    ◀──────────────────────────────────────────────────────────────────────
//!      a command, a third party, silence of one, another codec or timeline
//! ```
//!
//! A payload is copied, but under our own SSRC, with timestamps and numbers that go on from those of the mix, so that
//! what was lost on its way here is seen to be lost there too. It is not decoded but for its level, waits in no buffer,
//! and is not encoded again.
//!
//! On the way in, what waits in the jitter buffer is sent at once, ahead of its time; nothing of it is left out. Who sends
//! more than a tenth of a second ahead keeps the mix, which holds it for the listener. On the way out the buffer goes on
//! behind the last packet that was passed: it has the packets themselves to look back at, and stretches what is heard
//! until it is as far behind as it ought to be. So with each time there and back a stream is ahead of the clock by that
//! delay, until its next pause; that is why each time is further off than the last.

use ringbridge_codec::Rate;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader, RtpPacket};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};

use crate::command::Command;
use crate::conference::Conference;
use crate::connection::{Connection, Link, Media, RelayMap, Taped, law_of};
use crate::engine::{Engine, TimerKey};
use crate::event::{DropReason, Event};
use crate::limits::{
    DIRECT_AFTER_MS, DIRECT_AFTER_MS_MAX, DIRECT_CHECK_MS, DIRECT_QUIET, FRAME_MS, FRAME_SAMPLES, SAMPLES_PER_MS,
};
use crate::port::{Disposition, Port, Transmit};
use crate::sender::decode;
use crate::time::Instant;

/// Whether a conference takes the short way, or when it may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortcut {
    pub(crate) is_open: bool,
    /// Frames in a row that did not need the mix,
    calm: u32,
    /// and how many of them it takes.
    wait: u32,
}

impl Shortcut {
    pub(crate) const fn new() -> Self {
        Self { is_open: false, calm: 0, wait: AFTER_FRAMES }
    }
}

/// Frames from one look at a conference that takes the short way to the next.
const CHECK_FRAMES: u32 = DIRECT_CHECK_MS / FRAME_MS;
const AFTER_FRAMES: u32 = DIRECT_AFTER_MS / FRAME_MS;
const AFTER_FRAMES_MAX: u32 = DIRECT_AFTER_MS_MAX / FRAME_MS;
/// Frames that are waited beyond that for a moment at which no packet is cut in two.
const NEAT_FRAMES: u32 = 10;

impl Conference {
    /// Its two members, if it is one of two that asks for nothing but what they say.
    fn pair(&self) -> Option<[u32; 2]> {
        let &[a, b] = &self.participants[..] else { return None };
        let is_plain = !self.passes_on
            && self.part.is_none()
            && self.wide.is_none()
            && self.rate == Rate::Narrow
            && self.notice.is_none()
            && self.loudest.is_none()
            && !self.names
            && self.cast.coach.is_none()
            && self.cast.pupil.is_none()
            && self.operations.iter().all(Option::is_none);
        is_plain.then_some([a, b])
    }
}

impl Connection {
    /// Whether what it says and hears can go past the mix.
    fn needs_no_mix(&self, now: Instant) -> bool {
        let Some(media) = self.media.as_deref() else { return false };
        let is_heard = now.saturating_since(self.last_heard) < DIRECT_QUIET;
        is_heard
            && self.participant.is_plain()
            && self.spec.direction.receives()
            && self.spec.direction.sends()
            && law_of(self.spec.rx_codec).is_some()
            && law_of(self.spec.tx_codec).is_some()
            && self.spec.comfort_noise_payload_type.is_none()
            && !self.listens
            && self.taped == Taped::Not
            && self.latch.target().is_some()
            && media.wide.is_none()
            && media.care.is_none()
            && !media.runs_any()
    }
}

impl Engine {
    /// After a frame of a conference: has it take the short way if nothing has needed the mix for long enough.
    pub(crate) fn consider_direct(&mut self, room: u32) {
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        let Some(pair) = conference.pair() else {
            conference.shortcut.calm = 0;
            return;
        };
        let [Some(Some(a)), Some(Some(b))] = pair.map(|slot| self.connections.get(slot as usize).map(Option::as_ref))
        else {
            return;
        };
        let now = self.now;
        let fits = a.spec.rx_codec == b.spec.tx_codec
            && b.spec.rx_codec == a.spec.tx_codec
            && a.spec.ptime_ms == b.spec.ptime_ms
            && a.needs_no_mix(now)
            && b.needs_no_mix(now);
        conference.shortcut.calm = if fits { conference.shortcut.calm.saturating_add(1) } else { 0 };
        let Shortcut { calm, wait, .. } = conference.shortcut;
        let is_steady = || {
            [a, b].iter().all(|one| {
                let samples = one.spec.ptime_ms * SAMPLES_PER_MS;
                one.media.as_ref().is_some_and(|media| media.playout.is_steady() && media.playout.is_live(samples))
            })
        };
        let is_neat = || [a, b].iter().all(|one| one.media.as_ref().is_some_and(|media| media.is_between_packets()));
        // Where something is made up or left out just now, that has to be over first.
        if calm >= wait && is_steady() && (calm - wait >= NEAT_FRAMES || is_neat()) {
            self.open_direct(room, pair);
        }
    }

    fn open_direct(&mut self, room: u32, pair: [u32; 2]) {
        let [a, b] = pair;
        for (from, to) in [(a, b), (b, a)] {
            let Ok([Some(speaker), Some(listener)]) = self.connections.get_disjoint_mut([from as usize, to as usize])
            else {
                return;
            };
            let (Some(said), Some(heard)) = (speaker.media.as_deref_mut(), listener.media.as_deref_mut()) else {
                return;
            };
            let Some((number, timestamp)) = said.playout.unplayed() else { return };
            let (next, at) = heard.sender.behind();
            heard.relay_map = Some(RelayMap {
                source_ssrc: speaker.receiver.ssrc().unwrap_or_default(),
                floor: next,
                sequence_offset: next.0.wrapping_sub(number.0),
                timestamp_offset: at.0.wrapping_sub(timestamp),
            });
            heard.catches_up = true;
            if !self.out.ready.contains(&to) {
                self.out.ready.push_back(to);
            }
        }
        if let Some(conference) = self.conferences[room as usize].as_mut() {
            // Who needs the mix now and then would go to and fro.
            let wait = (2 * conference.shortcut.wait).min(AFTER_FRAMES_MAX);
            conference.shortcut = Shortcut { is_open: true, calm: 0, wait };
        }
        self.out.totals.direct_begun += 1;
    }

    /// Looks after a conference that takes the short way. The clock goes on at a slower pace.
    pub(crate) fn check_direct(&mut self, room: u32) {
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        conference.frame += u64::from(CHECK_FRAMES);
        let is_told = conference.tells_talk();
        for _ in 0..CHECK_FRAMES {
            for &slot in &conference.participants {
                let Some(Connection { id, participant, .. }) = self.connections[slot as usize].as_ref() else {
                    continue;
                };
                if participant.talk.is_talking() {
                    conference.active_speaker.hear(*id, participant.talk.loudness());
                }
            }
            if let Some(connection) = conference.active_speaker.decide()
                && is_told
            {
                self.out.push_event(Event::ActiveSpeaker { conference: conference.id, connection });
            }
        }
        let now = self.now;
        let is_quiet = |connection: &Connection| now.saturating_since(connection.last_heard) >= DIRECT_QUIET;
        if conference.members(&self.connections).any(|(_, connection)| is_quiet(connection)) {
            for &slot in &conference.participants {
                let Some(connection) = self.connections[slot as usize].as_mut().filter(|one| is_quiet(one)) else {
                    continue;
                };
                // What it said last is over.
                connection.media.iter_mut().for_each(|media| media.playout.fall_silent());
            }
            self.close_direct(room);
            return;
        }
        for &slot in &conference.participants {
            let media = self.connections[slot as usize].as_ref().and_then(|connection| connection.media.as_ref());
            // Nothing is forgotten that waits.
            if media.is_some_and(|media| media.catches_up) && !self.out.ready.contains(&slot) {
                self.out.ready.push_back(slot);
            }
        }
        self.wheel.arm(conference.next_due(), TimerKey::Conference(room));
    }

    /// Goes back to the mix, if a conference takes the short way.
    pub(crate) fn close_direct(&mut self, room: u32) {
        let Some(conference) = self.conferences[room as usize].as_mut().filter(|room| room.shortcut.is_open) else {
            return;
        };
        conference.shortcut.is_open = false;
        // It was put ahead to the next look.
        conference.frame = 0;
        conference.skip_to(self.now);
        let due = conference.next_due();
        for &slot in &conference.participants {
            let Some(connection) = self.connections[slot as usize].as_mut() else { continue };
            let Some(media) = connection.media.as_deref_mut() else { continue };
            media.relay_map = None;
            media.catches_up = false;
            // What it said of its loudness meanwhile was not looked at.
            media.claims.note(self.now, None);
            media.sender.resume(due);
        }
        self.wheel.arm(due, TimerKey::Conference(room));
    }

    /// Goes back to the mix where a command may need it.
    pub(crate) fn close_direct_for(&mut self, command: &Command, rooms: [Option<u32>; 3]) {
        if !command.only_asks() {
            rooms.into_iter().flatten().for_each(|room| self.close_direct(room));
        }
    }

    /// Passes a packet of audio on to the other party; `None`: the mix has to see to it.
    pub(crate) fn pass_direct(
        &mut self,
        now: Instant,
        room: u32,
        from: u32,
        datagram: &mut [u8],
    ) -> Option<Result<Disposition, DropReason>> {
        let to = self.conferences[room as usize].as_ref()?.peer_of(from)?;
        let Ok([Some(speaker), Some(listener)]) = self.connections.get_disjoint_mut([from as usize, to as usize])
        else {
            return None;
        };
        let packet = RtpPacket::parse(datagram).ok()?;
        let said = speaker.media.as_deref_mut()?;
        let heard = listener.media.as_deref_mut()?;
        // Another length is another packet time than the two have in common.
        if packet.payload_type() != speaker.spec.rx_payload_type
            || packet.payload().len() != (speaker.spec.ptime_ms * SAMPLES_PER_MS) as usize
            || heard.relay_map.is_none_or(|map| map.source_ssrc != packet.ssrc().0)
        {
            return None;
        }
        let (sequence, timestamp, payload) = (packet.sequence_number(), packet.timestamp(), packet.payload());
        let marker = packet.marker();
        let waits = heard.catches_up || heard.sender.is_partial();
        let number = if waits {
            // It goes behind those that wait.
            if let Err(reason) = said.playout.push(now, sequence, timestamp, marker, payload) {
                return Some(Err(reason));
            }
            None
        } else {
            match said.playout.follow(now, sequence, timestamp, payload)? {
                Ok(number) => Some(number),
                Err(reason) => return Some(Err(reason)),
            }
        };
        let (header, len) = (packet.header_len(), payload.len());
        self.measure(room, from, datagram.get(header..header + len).unwrap_or_default());
        let Some(number) = number else { return Some(Ok(Disposition::Consumed)) };
        Some(self.forward_direct(now, to, (number, timestamp, marker), (header, len), datagram))
    }

    fn forward_direct(
        &mut self,
        now: Instant,
        to: u32,
        (number, timestamp, marker): (SeqNumber, RtpTimestamp, bool),
        (header, len): (usize, usize),
        datagram: &mut [u8],
    ) -> Result<Disposition, DropReason> {
        let Some(listener) = self.connections[to as usize].as_mut() else { return Err(DropReason::Unrouted) };
        let Connection { spec, latch, counters, connected, reports, media: Some(media), .. } = listener else {
            return Err(DropReason::Unrouted);
        };
        let target = if *connected { None } else { Some(latch.target().ok_or(DropReason::NoTarget)?) };
        let own = media.pass(now, number, timestamp, len, spec.tx_payload_type)?;
        // Extensions and contributors mean nothing beyond this session.
        if header != RTP_HEADER_BYTES {
            datagram.copy_within(header..header + len, RTP_HEADER_BYTES);
        }
        RtpHeader { marker, ..own }.emit(datagram.first_chunk_mut().ok_or(DropReason::NotRtp)?);
        let len = RTP_HEADER_BYTES + len;
        counters.packets_out += 1;
        counters.bytes_out += len as u64;
        self.out.totals.packets_out += 1;
        self.out.totals.direct += 1;
        if reports.due.is_none() && spec.rtcp_reports {
            self.begin_reports(to);
        }
        Ok(Disposition::Forward(Transmit { port: Port::rtp(to), target, len }))
    }

    /// What waits in the speaker's buffer, one packet at a time; `None`: no more does.
    pub(crate) fn catch_up(&mut self, to: u32, out: &mut [u8]) -> Option<Transmit> {
        let Link::Conference(room) = self.link_of(to)? else { return None };
        let from = self.conferences[room as usize].as_ref()?.peer_of(to)?;
        let Ok([Some(speaker), Some(listener)]) = self.connections.get_disjoint_mut([from as usize, to as usize])
        else {
            return None;
        };
        let Connection { spec, latch, counters, connected, media: Some(media), .. } = listener else { return None };
        let target = if *connected { None } else { Some(latch.target()?) };
        let playout = &mut speaker.media.as_deref_mut()?.playout;
        let (header, payload) = loop {
            let Some((number, timestamp, payload)) = playout.take_packet() else {
                media.catches_up = false;
                return None;
            };
            match media.pass(self.now, number, timestamp, payload.len(), spec.tx_payload_type) {
                Ok(header) => break (header, payload),
                Err(reason) => self.out.drop_packets(reason, 1),
            }
        };
        header.emit(out.first_chunk_mut()?);
        let len = RTP_HEADER_BYTES + payload.len();
        out.get_mut(RTP_HEADER_BYTES..len)?.copy_from_slice(payload);
        counters.packets_out += 1;
        counters.bytes_out += len as u64;
        self.out.totals.packets_out += 1;
        self.out.totals.direct += 1;
        Some(Transmit { port: Port::rtp(to), target, len })
    }

    /// Looks at the level of what is passed on, as the mix would have.
    fn measure(&mut self, room: u32, slot: u32, payload: &[u8]) {
        let Some(conference) = self.conferences[room as usize].as_ref() else { return };
        let Some(Connection { id, participant, spec, .. }) = self.connections[slot as usize].as_mut() else { return };
        let Some(law) = law_of(spec.rx_codec) else { return };
        let mut frame = [0; FRAME_SAMPLES];
        for part in payload.chunks_exact(FRAME_SAMPLES) {
            decode(law, part, &mut frame);
            let change = participant.talk.look(Some(&frame), conference.talk_stop_frames());
            if let Some(change) = change.filter(|_| conference.tells_talk()) {
                self.out.tell_talk(change, conference.id, *id);
            }
        }
    }
}

impl Media {
    /// Whether neither the packet it is sent nor the one it is heard from is cut in two now.
    fn is_between_packets(&self) -> bool {
        !self.sender.is_partial() && self.playout.is_between_packets()
    }

    /// The header under which a packet from elsewhere goes on as part of our own stream.
    ///
    /// # Errors
    /// `Late`: its number belongs to what was mixed.
    fn pass(
        &mut self,
        now: Instant,
        number: SeqNumber,
        timestamp: RtpTimestamp,
        bytes: usize,
        payload_type: u8,
    ) -> Result<RtpHeader, DropReason> {
        let map = self.relay_map.as_mut().ok_or(DropReason::Unrouted)?;
        let sequence_number = map.take(number).ok_or(DropReason::Late)?;
        let timestamp = RtpTimestamp(timestamp.0.wrapping_add(map.timestamp_offset));
        // G.711: a byte is a sample, and a unit of the timestamp.
        let ticks = u32::try_from(bytes).unwrap_or(0);
        self.sender.pass(now, (sequence_number, timestamp), ticks);
        Ok(RtpHeader { marker: false, payload_type, sequence_number, timestamp, ssrc: Ssrc(self.sender.ssrc()) })
    }
}
