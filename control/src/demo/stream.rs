//! What was sent and what was heard: packets, and the samples they carry.

use std::time::Duration;

use ringbridge_codec::g711;
use ringbridge_wire::rtp::RtpPacket;

use super::signal::Voice;

/// Samples in one packet: 20 ms.
pub(super) const PACKET_SAMPLES: usize = 160;
/// Longest pause in a stream that is taken for one, in samples: a minute.
const SILENCE_MAX: usize = 480_000;
/// Samples in a millisecond.
const SAMPLES_PER_MS: u32 = 8;

/// One RTP packet as it went over the wire.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Packet {
    /// When, since the demo began.
    pub(super) at: Duration,
    /// The whole datagram.
    pub(super) bytes: Vec<u8>,
}

/// What one endpoint sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) packets: Vec<Packet>,
}

/// What one endpoint heard, on the clock of the stream it was sent.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Whose ears.
    pub(super) name: String,
    /// Timestamp of the first sample.
    first_timestamp: u32,
    /// From the first packet's first sample to the last packet's last; silence where nothing came.
    pub(super) samples: Vec<f32>,
    /// Where each packet's samples begin, and when it arrived; in order of their timestamps.
    arrivals: Vec<(usize, Duration)>,
}

impl Packet {
    /// Its fields.
    ///
    /// # Errors
    /// If it is no RTP, in words.
    pub(super) fn rtp(&self) -> Result<RtpPacket<'_>, String> {
        RtpPacket::parse(&self.bytes).map_err(|error| format!("a packet that is not RTP: {error}"))
    }
}

impl Sent {
    /// The samples of all packets in a row, as a listener decodes them.
    pub(super) fn voice(&self, name: &str) -> Voice {
        let mut samples = Vec::new();
        for payload in self.packets.iter().filter_map(|packet| packet.rtp().ok()).map(|rtp| rtp.payload()) {
            let start = samples.len();
            samples.resize(start + payload.len(), 0);
            g711::decode_ulaw(payload, &mut samples[start..]);
        }
        Voice::new(name, &samples)
    }

    /// Which sample was being sent at a time. Packets hold what came before, so it is the first one of the latest.
    pub(super) fn sample_at(&self, at: Duration) -> i64 {
        let packets = self.packets.partition_point(|packet| packet.at <= at);
        i64::try_from(packets.saturating_sub(1) * PACKET_SAMPLES).unwrap_or(i64::MAX)
    }

    /// How late the latest packet was sent, by the schedule that began with the first.
    pub(super) fn lateness(&self) -> Duration {
        let Some(first) = self.packets.first() else { return Duration::ZERO };
        let late = |(index, packet): (usize, &Packet)| {
            packet.at.saturating_sub(first.at + samples_long(index * PACKET_SAMPLES))
        };
        self.packets.iter().enumerate().map(late).max().unwrap_or_default()
    }

    /// When the packet that holds a sample was sent.
    pub(super) fn sent_at(&self, sample: i64) -> Option<Duration> {
        let index = usize::try_from(sample).ok()? / PACKET_SAMPLES;
        self.packets.get(index).map(|packet| packet.at)
    }
}

impl Heard {
    /// Puts the packets of one stream in order.
    ///
    /// # Errors
    /// If they are not one continuous stream of G.711 µ-law, in words.
    pub(super) fn new(name: &str, packets: &[Packet]) -> Result<Self, String> {
        let Some(first) = packets.first() else { return Err(format!("{name} heard nothing at all")) };
        let (ssrc, origin) = (first.rtp()?.ssrc().0, first.rtp()?.timestamp());
        let mut placed = Vec::with_capacity(packets.len());
        for packet in packets {
            let rtp = packet.rtp()?;
            if rtp.ssrc().0 != ssrc {
                return Err(format!("{name} heard SSRC {:08x} after {ssrc:08x}: not one stream", rtp.ssrc().0));
            }
            if rtp.payload_type() != 0 {
                return Err(format!("{name} heard payload type {}, not PCMU", rtp.payload_type()));
            }
            placed.push((rtp.timestamp().distance_from(origin), rtp.payload(), packet.at));
        }
        placed.sort_by_key(|(offset, ..)| *offset);
        let start = placed[0].0;
        let mut heard = Self {
            name: name.to_owned(),
            first_timestamp: origin.0.wrapping_add_signed(start),
            samples: Vec::new(),
            arrivals: Vec::with_capacity(placed.len()),
        };
        let mut linear = Vec::new();
        for (offset, payload, at) in placed {
            let offset = usize::try_from(offset - start).unwrap_or(usize::MAX);
            if offset < heard.samples.len() {
                return Err(format!("{name} heard timestamp {} twice", heard.timestamp(offset)));
            }
            if offset > heard.samples.len() + SILENCE_MAX {
                return Err(format!("{name} heard timestamps jump to {}", heard.timestamp(offset)));
            }
            heard.samples.resize(offset, 0.0);
            linear.resize(payload.len(), 0);
            g711::decode_ulaw(payload, &mut linear);
            heard.samples.extend(linear.iter().map(|sample| f32::from(*sample)));
            heard.arrivals.push((offset, at));
        }
        Ok(heard)
    }

    /// Samples that did not come over a network but lay in a file that began at `start`.
    pub(super) fn from_file(name: &str, samples: &[i16], start: Duration) -> Self {
        Self {
            name: name.to_owned(),
            first_timestamp: 0,
            samples: samples.iter().map(|sample| f32::from(*sample)).collect(),
            arrivals: vec![(0, start)],
        }
    }

    /// The sample that has a timestamp: negative before the first, past the end after the last.
    pub(super) fn offset(&self, timestamp: u32) -> i64 {
        i64::from(timestamp.wrapping_sub(self.first_timestamp).cast_signed())
    }

    /// The same as an index, limited to what was heard.
    pub(super) fn index(&self, timestamp: u32) -> usize {
        usize::try_from(self.offset(timestamp)).unwrap_or(0).min(self.samples.len())
    }

    /// The timestamp of a sample.
    pub(super) fn timestamp(&self, offset: usize) -> u32 {
        self.first_timestamp.wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX))
    }

    /// When a sample arrived, reckoned from the packet that held it.
    pub(super) fn arrived(&self, offset: usize) -> Duration {
        let packets = self.arrivals.partition_point(|(start, _)| *start <= offset);
        let (start, at) = self.arrivals[packets.saturating_sub(1)];
        at + samples_long(offset.saturating_sub(start))
    }

    /// The first sample that arrived after a time.
    pub(super) fn index_at(&self, at: Duration) -> usize {
        let packets = self.arrivals.partition_point(|(_, arrival)| *arrival <= at);
        let Some((start, arrival)) = packets.checked_sub(1).and_then(|index| self.arrivals.get(index)) else {
            return 0;
        };
        let later = (at - *arrival).as_millis() * u128::from(SAMPLES_PER_MS);
        (start + usize::try_from(later).unwrap_or(usize::MAX / 2)).min(self.samples.len())
    }

    /// Where each packet's samples begin, and when it arrived.
    pub(super) fn arrivals(&self) -> &[(usize, Duration)] {
        &self.arrivals
    }
}

/// How long some samples last.
pub(super) fn samples_long(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 125)
}
