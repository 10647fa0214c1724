//! An outgoing stream of our own: SSRC, sequence, timestamps, and the packet that is being filled.
//!
//! Time advances by samples, never by the clock. Only when nothing was sent for a while does the timestamp jump, by
//! the samples that went by, and the next packet carries the marker: a new talkspurt (RFC 3551 section 4.1).

use core::mem::offset_of;
use core::time::Duration;

use ringbridge_codec::{g711, kind, prefetch};
use ringbridge_wire::rtcp::{NtpTimestamp, SenderInfo};
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};

use crate::levels::Contributors;
use crate::limits::{FRAME_MS, FRAME_SAMPLES, PTIME_MS_MAX};
use crate::rng::SplitMix64;
use crate::time::Instant;

const FRAME: Duration = Duration::from_millis(FRAME_MS as u64);
const FRAMES_PER_PACKET_MAX: u32 = PTIME_MS_MAX / FRAME_MS;
const PAYLOAD_BYTES_MAX: usize = kind::PAYLOAD_BYTES_MAX as usize;

/// Encodes one frame of G.711.
pub(crate) fn encode(law: Law, samples: &[i16], payload: &mut [u8; FRAME_SAMPLES]) {
    match law {
        Law::Mu => g711::encode_ulaw(samples, payload),
        Law::A => g711::encode_alaw(samples, payload),
    }
}

/// One frame of silence in G.711.
pub(crate) const fn silence(law: Law) -> [u8; FRAME_SAMPLES] {
    match law {
        Law::Mu => [0xff; FRAME_SAMPLES],
        Law::A => [0xd5; FRAME_SAMPLES],
    }
}

/// The samples of one frame of G.711.
pub(crate) fn decode(law: Law, payload: &[u8], samples: &mut [i16; FRAME_SAMPLES]) {
    match law {
        Law::Mu => g711::decode_ulaw(payload, samples),
        Law::A => g711::decode_alaw(payload, samples),
    }
}

/// The two laws of G.711.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Law {
    Mu,
    A,
}

/// An outgoing stream. What each packet looks at lies together, the payload last.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Sender {
    ssrc: u32,
    /// Of the packet being filled.
    sequence: SeqNumber,
    /// Of the first sample of the packet being filled.
    timestamp: RtpTimestamp,
    marker: bool,
    /// Of the packet being filled: it keeps the type it was begun with.
    payload_type: u8,
    /// When the next frame is due if the stream goes on without a break.
    next_due: Option<Instant>,
    /// Packets and payload bytes sent under this SSRC.
    sent: (u32, u32),
    /// Units of the timestamp in a frame.
    frame_ticks: u32,
    /// Frames of the packet being filled,
    frames: u32,
    /// and the bytes of its payload that are known so far: a codec may tell all at the last frame.
    filled: usize,
    /// Whom the packet names, and the identifier of the extension with their levels.
    named: Option<Box<(u8, Contributors)>>,
    payload: [u8; PAYLOAD_BYTES_MAX],
}

impl Sender {
    pub(crate) fn new(rng: &mut SplitMix64) -> Self {
        Self {
            ssrc: rng.next_u32(),
            // Only 16 bits of the number are wanted.
            sequence: SeqNumber((rng.next_u32() >> 16) as u16),
            timestamp: RtpTimestamp(rng.next_u32()),
            marker: true,
            payload_type: 0,
            next_due: None,
            sent: (0, 0),
            frame_ticks: TICKS_AT_FIRST,
            frames: 0,
            filled: 0,
            named: None,
            payload: [0; PAYLOAD_BYTES_MAX],
        }
    }

    /// Asks for the memory that the next frame goes to.
    pub(crate) fn prefetch(&self) {
        prefetch::head(self, offset_of!(Self, payload) + 2 * FRAME_SAMPLES);
    }

    /// Sets the rate of the timestamps.
    pub(crate) fn set_clock_rate(&mut self, clock_rate_hz: u32) {
        let frame_ticks = clock_rate_hz / (1000 / FRAME_MS);
        if frame_ticks != self.frame_ticks {
            self.discard_partial();
            self.frame_ticks = frame_ticks;
        }
    }

    /// Appends a frame due at `due`, with the bytes that are known with it; `true` when the packet of `ptime_ms` is
    /// complete and waits for [`emit`](Self::emit).
    pub(crate) fn push(&mut self, due: Instant, bytes: &[u8], payload_type: u8, ptime_ms: u32) -> bool {
        self.catch_up(due);
        if self.frames == 0 {
            self.payload_type = payload_type;
        }
        let end = self.filled + bytes.len();
        debug_assert!(end <= PAYLOAD_BYTES_MAX, "a complete packet is emitted before the next frame");
        if let Some(place) = self.payload.get_mut(self.filled..end) {
            place.copy_from_slice(bytes);
            self.filled = end;
        }
        self.frames += 1;
        self.frames >= frames_of(ptime_ms)
    }

    /// Appends a frame right behind the last one; `true` when the packet is complete.
    pub(crate) fn fill(&mut self, bytes: &[u8], ptime_ms: u32) -> bool {
        let due = self.next_due.unwrap_or_default();
        self.push(due, bytes, self.payload_type, ptime_ms)
    }

    /// Frames of the packet being filled.
    pub(crate) const fn frames(&self) -> u32 {
        self.frames
    }

    /// Frames of the packet being filled, if the next one is due at `due`: none after a break.
    pub(crate) fn frames_before(&self, due: Instant) -> u32 {
        if self.breaks_before(due) { 0 } else { self.frames }
    }

    /// Names those who are in the next frame, but not the listener himself, with their levels in the extension `id`.
    /// Allocates the first time.
    pub(crate) fn name(&mut self, id: u8, contributors: Option<&Contributors>, own: Option<u32>) {
        let named = self.named.get_or_insert_with(|| Box::new((id, Contributors::new())));
        named.0 = id;
        if self.frames == 0 {
            named.1.len = 0;
        }
        if let Some(contributors) = contributors {
            named.1.add_all(contributors, own);
        }
    }

    /// Whether a packet is partly filled.
    pub(crate) const fn is_partial(&self) -> bool {
        self.frames > 0
    }

    /// Writes the packet and begins the next. Returns its length in bytes.
    ///
    /// `out` holds at least a header and the longest payload.
    pub(crate) fn emit(&mut self, out: &mut [u8]) -> usize {
        let header = RtpHeader {
            marker: self.marker,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: Ssrc(self.ssrc),
        };
        let header_len = match &mut self.named {
            None => out.first_chunk_mut().map_or(RTP_HEADER_BYTES, |head| header.emit(head)),
            Some(named) => {
                let (id, contributors) = &mut **named;
                let levels = Some((*id, contributors.levels()));
                let len = header.emit_with(out, contributors.ssrcs(), levels).unwrap_or(RTP_HEADER_BYTES);
                contributors.len = 0;
                len
            }
        };
        let len = header_len + self.filled;
        out[header_len..len].copy_from_slice(&self.payload[..self.filled]);
        self.sequence = self.sequence.next();
        self.timestamp = self.timestamp.wrapping_add(self.filled_ticks());
        self.marker = false;
        #[expect(clippy::cast_possible_truncation, reason = "at most the longest payload")]
        let bytes = self.filled as u32;
        self.sent = (self.sent.0.wrapping_add(1), self.sent.1.wrapping_add(bytes));
        (self.filled, self.frames) = (0, 0);
        len
    }

    /// What a sender report says at `now`; `None` before the first packet.
    pub(crate) fn info(&self, now: Instant, ntp: NtpTimestamp) -> Option<SenderInfo> {
        let next = self.next_due.filter(|_| self.sent.0 > 0)?;
        let next_timestamp = self.timestamp.wrapping_add(self.filled_ticks());
        let ticks = |span: Duration| {
            u32::try_from(span.as_nanos() * u128::from(self.frame_ticks) / FRAME.as_nanos()).unwrap_or(u32::MAX)
        };
        let (ahead, behind) = (ticks(next.saturating_since(now)), ticks(now.saturating_since(next)));
        Some(SenderInfo {
            ntp,
            rtp_timestamp: next_timestamp.wrapping_add(behind.wrapping_sub(ahead)),
            packet_count: self.sent.0,
            octet_count: self.sent.1,
        })
    }

    /// Units of the timestamp in a millisecond.
    pub(crate) const fn ticks_per_ms(&self) -> u32 {
        self.frame_ticks / FRAME_MS
    }

    /// Whether anything was sent.
    pub(crate) const fn has_sent(&self) -> bool {
        self.sent.0 > 0
    }

    /// Whether anything was sent within `span` before `now`.
    pub(crate) fn sent_since(&self, now: Instant, span: Duration) -> bool {
        self.has_sent() && self.next_due.is_some_and(|next| now.saturating_since(next) < span)
    }

    /// Goes on under another SSRC: somebody else has ours (RFC 3550 section 8.2).
    pub(crate) fn change_ssrc(&mut self, rng: &mut SplitMix64) {
        self.ssrc = rng.next_u32();
        self.sent = (0, 0);
        self.marker = true;
    }

    /// Gives up the packet that waits, as there is nowhere to send it. Its samples have passed, its number is not used,
    /// and the first packet that is sent begins the talkspurt.
    pub(crate) fn skip(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(self.filled_ticks());
        self.marker = true;
        (self.filled, self.frames) = (0, 0);
    }

    /// Throws away what is partly filled: those samples are never sent.
    pub(crate) fn discard_partial(&mut self) {
        let unsent = FRAME * self.frames;
        self.next_due = self.next_due.map(|due| due - unsent);
        (self.filled, self.frames) = (0, 0);
    }

    /// Continues the stream with a relayed packet due now: the sequence number and timestamp it gets.
    pub(crate) fn take_over(&mut self, now: Instant) -> (Ssrc, SeqNumber, RtpTimestamp) {
        self.timestamp = self.timestamp.wrapping_add(self.filled_ticks());
        (self.filled, self.frames) = (0, 0);
        self.catch_up(now);
        (Ssrc(self.ssrc), self.sequence, self.timestamp)
    }

    /// Sequence number and timestamp of what follows the packet that is being filled, if one is.
    pub(crate) fn behind(&self) -> (SeqNumber, RtpTimestamp) {
        let sequence = if self.frames > 0 { self.sequence.next() } else { self.sequence };
        (sequence, self.timestamp.wrapping_add(self.filled_ticks()))
    }

    /// Notes that a packet of `ticks` units of G.711 went out as part of the stream.
    pub(crate) fn pass(&mut self, now: Instant, (sequence, timestamp): (SeqNumber, RtpTimestamp), ticks: u32) {
        if sequence.next().is_newer_than(self.sequence) {
            (self.sequence, self.timestamp) = (sequence.next(), timestamp.wrapping_add(ticks));
            self.next_due = Some(now + FRAME * ticks / self.frame_ticks.max(1));
        }
        self.sent = (self.sent.0.wrapping_add(1), self.sent.1.wrapping_add(ticks));
    }

    /// Has the stream go on without a break with a frame that is due then, unless nothing was sent for a while.
    pub(crate) fn resume(&mut self, due: Instant) {
        if self.next_due.is_none_or(|next| due.saturating_since(next) < INTERJECT_BREAK) {
            self.next_due = Some(due);
        }
    }

    /// Sequence number and timestamp of a packet that goes between those of the stream: its number is used up. Nothing
    /// that is sent later has an earlier timestamp (RFC 4733 section 2.5.1.2), so it is that of the packet being filled.
    ///
    /// `last`: the timestamp of the last one, which another has to differ from. If nothing was sent for a while the time
    /// that has passed counts, for what follows as well.
    pub(crate) fn interject(&mut self, now: Instant, last: Option<RtpTimestamp>) -> (SeqNumber, RtpTimestamp) {
        let break_min = if last == Some(self.timestamp) { FRAME } else { INTERJECT_BREAK };
        if self.next_due.is_some_and(|expected| now.saturating_since(expected) >= break_min) {
            self.catch_up(now);
            self.next_due = Some(now);
        }
        (self.use_number(), self.timestamp)
    }

    /// Sequence number of one more packet with the timestamp of one that was interjected.
    pub(crate) const fn use_number(&mut self) -> SeqNumber {
        let sequence = self.sequence;
        self.sequence = sequence.next();
        sequence
    }

    /// Notes that relayed packets of this stream reached `sequence` and `timestamp`, the next ones to be used.
    pub(crate) fn advance_to(&mut self, now: Instant, sequence: SeqNumber, timestamp: RtpTimestamp, ptime_ms: u32) {
        if sequence.distance_from(self.sequence) > 0 {
            (self.sequence, self.timestamp) = (sequence, timestamp);
            self.next_due = Some(now + Duration::from_millis(u64::from(ptime_ms)));
        }
        self.marker = true;
    }

    pub(crate) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// SSRC, timestamp of the first sample of a frame due at `due`, and sequence number of its packet.
    pub(crate) fn stamp(&self, due: Instant) -> (u32, u32, u16) {
        let mut preview = Self { payload: [0; PAYLOAD_BYTES_MAX], ..self.clone() };
        preview.catch_up(due);
        (self.ssrc, preview.timestamp.0.wrapping_add(preview.filled_ticks()), preview.sequence.0)
    }

    /// Timestamp and sequence number of the first packet that is not sent if the stream ends now.
    pub(crate) const fn first_unsent(&self) -> (u32, u32, u16) {
        (self.ssrc, self.timestamp.0, self.sequence.0)
    }

    /// What the packet being filled holds, in units of the timestamp.
    const fn filled_ticks(&self) -> u32 {
        self.frames * self.frame_ticks
    }

    fn breaks_before(&self, due: Instant) -> bool {
        self.next_due.is_some_and(|expected| due.saturating_since(expected) >= FRAME)
    }

    fn catch_up(&mut self, due: Instant) {
        if let Some(expected) = self.next_due.filter(|_| self.breaks_before(due)) {
            // A packet that was partly filled before the break is given up; its samples count as passed.
            let gap_ms = u32::try_from(due.saturating_since(expected).as_millis()).unwrap_or(u32::MAX);
            let samples = gap_ms.wrapping_mul(self.frame_ticks / FRAME_MS);
            self.timestamp = self.timestamp.wrapping_add(samples.wrapping_add(self.filled_ticks()));
            (self.filled, self.frames) = (0, 0);
            self.marker = true;
        }
        self.next_due = Some(due + FRAME);
    }
}

/// So long nothing is sent in a pause of the stream; less is a clock that is late.
const INTERJECT_BREAK: Duration = Duration::from_millis(100);
/// Units of the timestamp in a frame until the codec is known.
const TICKS_AT_FIRST: u32 = 80;

/// Frames of a packet of `ptime_ms`, cut to what is mixed.
pub(crate) fn frames_of(ptime_ms: u32) -> u32 {
    (ptime_ms / FRAME_MS).clamp(1, FRAMES_PER_PACKET_MAX)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of our own")]
mod tests {
    use super::*;
    use ringbridge_wire::rtp::RtpPacket;

    fn packets(
        sender: &mut Sender,
        dues_ms: impl IntoIterator<Item = u64>,
        ptime_ms: u32,
    ) -> Vec<(bool, u16, u32, usize)> {
        let mut out = Vec::new();
        for due in dues_ms {
            if sender.push(Instant::from_millis(due), &[0xff; FRAME_SAMPLES], 0, ptime_ms) {
                let mut bytes = [0; 600];
                let len = sender.emit(&mut bytes);
                let packet = RtpPacket::parse(&bytes[..len]).unwrap();
                out.push((packet.marker(), packet.sequence_number().0, packet.timestamp().0, packet.payload().len()));
            }
        }
        out
    }

    #[test]
    fn a_steady_stream_counts_samples() {
        for (ptime, frames) in [(10, 1), (20, 2), (30, 3), (40, 4)] {
            let mut sender = Sender::new(&mut SplitMix64::new(1));
            let (_, timestamp, sequence) = sender.stamp(Instant::from_millis(1000));
            let sent = packets(&mut sender, (0..24).map(|n| 1000 + 10 * n), ptime);
            assert_eq!(sent.len(), 24 / frames);
            for (n, packet) in sent.into_iter().enumerate() {
                let (n16, n32) = (n as u16, n as u32);
                assert_eq!(
                    packet,
                    (n == 0, sequence.wrapping_add(n16), timestamp.wrapping_add(n32 * 80 * frames as u32), 80 * frames)
                );
            }
        }
    }

    #[test]
    fn a_pause_moves_the_timestamp_and_sets_the_marker() {
        let mut sender = Sender::new(&mut SplitMix64::new(2));
        let first = packets(&mut sender, [1000, 1010], 20)[0];
        // 1020 would be next; the stream pauses until 1500.
        let (_, stamp, _) = sender.stamp(Instant::from_millis(1500));
        let second = packets(&mut sender, [1500, 1510], 20)[0];
        assert_eq!(second, (true, first.1.wrapping_add(1), first.2.wrapping_add(160 + 480 * 8), 160));
        assert_eq!(stamp, second.2);
    }

    #[test]
    fn a_shift_of_less_than_a_frame_is_no_break() {
        let mut sender = Sender::new(&mut SplitMix64::new(3));
        let sent = packets(&mut sender, [1000, 1010, 1027, 1037], 20);
        assert_eq!(sent[1].2.wrapping_sub(sent[0].2), 160);
        assert!(!sent[1].0);
    }
}
