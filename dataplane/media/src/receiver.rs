//! What is known of the stream an endpoint sends: loss and jitter (RFC 3550 A.3, A.8), and what comes next.

use ringbridge_wire::rtp::RtpPacket;
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use crate::bursts::{Bursts, LossPattern};
use crate::time::Instant;

/// Reception statistics of one SSRC.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    heard: Option<Heard>,
}

#[derive(Clone, Debug)]
struct Heard {
    ssrc: u32,
    /// Of the timestamps.
    clock_rate_hz: u32,
    base: u64,
    /// Highest sequence number with cycles.
    highest: u64,
    highest_timestamp: RtpTimestamp,
    /// Timestamp units from one packet to the next, as last seen between two in sequence.
    step: u32,
    received: u64,
    /// Scaled by 16, as in RFC 3550 A.8.
    jitter: u32,
    transit: i64,
    bursts: Bursts,
}

/// What a report says of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeardByNow {
    pub(crate) ssrc: u32,
    /// Packets that should have come.
    pub(crate) expected: u64,
    /// Packets that did, duplicates too.
    pub(crate) received: u64,
    /// Extended by the wraps.
    pub(crate) highest_sequence: u32,
    /// In units of the timestamp.
    pub(crate) jitter: u32,
}

impl Receiver {
    pub(crate) const fn new() -> Self {
        Self { heard: None }
    }

    /// Takes in one accepted packet. `ptime_ms` is the step until two packets have shown it.
    pub(crate) fn update(&mut self, now: Instant, packet: &RtpPacket<'_>, clock_rate_hz: u32, ptime_ms: u32) {
        let (ssrc, seq, timestamp) = (packet.ssrc().0, packet.sequence_number(), packet.timestamp());
        let arrival = arrival(now, clock_rate_hz);
        // Modulo 2^64 and only ever used as a difference.
        let transit = (arrival as i64).wrapping_sub(i64::from(timestamp.0));
        let heard = match &mut self.heard {
            Some(heard) if heard.ssrc == ssrc && heard.clock_rate_hz == clock_rate_hz => heard,
            Some(_) | None => {
                self.heard = Some(Heard {
                    ssrc,
                    base: u64::from(seq.0) + (1 << 16),
                    highest: u64::from(seq.0) + (1 << 16),
                    highest_timestamp: timestamp,
                    clock_rate_hz,
                    step: ptime_ms * (clock_rate_hz / 1000),
                    received: 1,
                    jitter: 0,
                    transit,
                    bursts: Bursts::new(),
                });
                if let Some(heard) = &mut self.heard {
                    heard.bursts.received();
                }
                return;
            }
        };
        heard.received += 1;
        let ahead = i64::from(seq.distance_from(SeqNumber((heard.highest & 0xffff) as u16)));
        if ahead > 0 {
            // More than that is a new timeline, not a loss (RFC 3550 A.1).
            if ahead > 1 && ahead < DROPOUT_MAX {
                heard.bursts.lost(u32::try_from(ahead - 1).unwrap_or(0));
            }
            heard.bursts.received();
            let step = timestamp.0.wrapping_sub(heard.highest_timestamp.0);
            if ahead == 1 && step > 0 && step < clock_rate_hz {
                heard.step = step;
            }
            heard.highest = heard.highest.wrapping_add_signed(ahead);
            heard.highest_timestamp = timestamp;
        } else {
            if ahead < 0 {
                heard.bursts.recovered();
            }
            // An early packet that was overtaken lowers the base, so that it does not count as a gain.
            heard.base = heard.base.min(heard.highest.wrapping_add_signed(ahead));
        }
        let difference = u32::try_from(transit.wrapping_sub(heard.transit).unsigned_abs()).unwrap_or(u32::MAX);
        heard.transit = transit;
        // A jump of more than ten seconds is a new timeline, not jitter.
        if difference < 10 * clock_rate_hz {
            heard.jitter = heard.jitter + difference - ((heard.jitter + 8) >> 4);
        }
    }

    /// The packet that was last taken in was of no use: it came too late, or too early.
    pub(crate) fn discard(&mut self) {
        if let Some(heard) = &mut self.heard {
            heard.bursts.discarded();
        }
    }

    /// How losses are spread.
    pub(crate) fn pattern(&self) -> LossPattern {
        self.heard.as_ref().map_or_else(|| Bursts::new().pattern(), |heard| heard.bursts.pattern())
    }

    /// What a report says.
    pub(crate) fn heard_by_now(&self) -> Option<HeardByNow> {
        self.heard.as_ref().map(|heard| HeardByNow {
            ssrc: heard.ssrc,
            expected: heard.highest - heard.base + 1,
            received: heard.received,
            // The first cycle is numbered 1 here, and 0 in a report.
            highest_sequence: (heard.highest.wrapping_sub(1 << 16) & 0xffff_ffff) as u32,
            jitter: heard.jitter >> 4,
        })
    }

    pub(crate) fn ssrc(&self) -> Option<u32> {
        self.heard.as_ref().map(|heard| heard.ssrc)
    }

    /// SSRC, timestamp and sequence number of the packet expected next.
    pub(crate) fn expected(&self) -> Option<(u32, u32, u16)> {
        self.heard.as_ref().map(|heard| {
            let sequence = (heard.highest.wrapping_add(1) & 0xffff) as u16;
            (heard.ssrc, heard.highest_timestamp.0.wrapping_add(heard.step), sequence)
        })
    }

    /// Expected minus received (RFC 3550 A.3); negative with duplicates.
    pub(crate) fn cumulative_lost(&self) -> i64 {
        self.heard.as_ref().map_or(0, |heard| {
            let expected = heard.highest - heard.base + 1;
            i64::try_from(expected).unwrap_or(i64::MAX) - i64::try_from(heard.received).unwrap_or(i64::MAX)
        })
    }

    /// Interarrival jitter in milliseconds.
    pub(crate) fn jitter_ms(&self) -> f64 {
        self.heard.as_ref().map_or(0.0, |heard| f64::from(heard.jitter >> 4) * 1000.0 / f64::from(heard.clock_rate_hz))
    }
}

/// When a packet came, in units of the timestamp.
const fn arrival(now: Instant, clock_rate_hz: u32) -> u64 {
    // All clock rates are whole thousands; what is less than a unit is cut.
    let (seconds, nanos) = (now.as_nanos() / 1_000_000_000, now.as_nanos() % 1_000_000_000);
    seconds * clock_rate_hz as u64 + nanos * (clock_rate_hz as u64 / 1000) / 1_000_000
}

/// Packets ahead of the last that are still taken for losses.
const DROPOUT_MAX: i64 = 3000;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of our own")]
mod tests {
    use super::*;
    use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
    use ringbridge_wire::seq::Ssrc;

    fn feed(receiver: &mut Receiver, ms: u64, seq: u16, timestamp: u32) {
        let mut bytes = [0; RTP_HEADER_BYTES];
        RtpHeader {
            marker: false,
            payload_type: 0,
            sequence_number: SeqNumber(seq),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(7),
        }
        .emit(&mut bytes);
        receiver.update(Instant::from_millis(ms), &RtpPacket::parse(&bytes).unwrap(), 8000, 20);
    }

    #[test]
    fn counts_loss_over_the_wrap_and_forgives_reordering() {
        let mut receiver = Receiver::new();
        for (n, seq) in [65_533u16, 65_534, 0, 65_535, 3].into_iter().enumerate() {
            feed(&mut receiver, 20 * n as u64, seq, 160 * n as u32);
        }
        assert_eq!(receiver.cumulative_lost(), 2);
        feed(&mut receiver, 100, 3, 640);
        assert_eq!(receiver.cumulative_lost(), 1);
    }

    #[test]
    fn expects_the_next_packet() {
        let mut receiver = Receiver::new();
        feed(&mut receiver, 0, 10, 1000);
        assert_eq!(receiver.expected(), Some((7, 1160, 11)));
        feed(&mut receiver, 30, 11, 1240);
        assert_eq!(receiver.expected(), Some((7, 1480, 12)));
    }

    #[test]
    fn an_even_stream_has_no_jitter_and_an_uneven_one_converges() {
        let mut receiver = Receiver::new();
        for n in 0..100u16 {
            feed(&mut receiver, 20 * u64::from(n), n, 160 * u32::from(n));
        }
        assert!(receiver.jitter_ms() < 0.01);
        for n in 100..1000u16 {
            // Alternately 4 ms late: every difference is 4 ms.
            feed(&mut receiver, 20 * u64::from(n) + 4 * u64::from(n % 2), n, 160 * u32::from(n));
        }
        assert!((receiver.jitter_ms() - 4.0).abs() < 0.5, "{}", receiver.jitter_ms());
    }
}
