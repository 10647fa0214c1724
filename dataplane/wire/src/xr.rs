//! VoIP metrics of an extended report (RFC 3611 s.4.7), read and written.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      7        |   reserved    |       length in words = 8     |
//! |                        SSRC of source                         |
//! |   loss rate   | discard rate  | burst density |  gap density  |
//! |       burst duration          |         gap duration          |
//! |     round trip delay          |       end system delay        |
//! | signal level  |  noise level  |     RERL      |     Gmin      |
//! |   R factor    | ext. R factor |    MOS-LQ     |    MOS-CQ     |
//! |   RX config   |   reserved    |          JB nominal           |
//! |          JB maximum           |          JB abs max           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Blocks of other types are stepped over.

use crate::seq::Ssrc;

/// Packet type of an extended report.
pub const EXTENDED_REPORT: u8 = 207;
/// What a level, factor or score says that is not known.
pub const UNAVAILABLE: u8 = 127;
/// Bytes of a VoIP metrics block with its header.
pub const VOIP_METRICS_BYTES: usize = 36;

const VOIP_METRICS: u8 = 7;
const VOIP_METRICS_WORDS: u8 = 8;

/// How a stream of speech is heard by the reporter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoipMetrics {
    /// The source that is heard.
    pub ssrc: Ssrc,
    /// Packets lost since reception began, in 1/256.
    pub loss_rate: u8,
    /// Packets that came and were of no use, in 1/256.
    pub discard_rate: u8,
    /// Packets lost or discarded within bursts, in 1/256.
    pub burst_density: u8,
    /// Packets lost or discarded between bursts, in 1/256.
    pub gap_density: u8,
    /// Mean length of bursts in milliseconds.
    pub burst_duration_ms: u16,
    /// Mean length of what lies between bursts in milliseconds.
    pub gap_duration_ms: u16,
    /// Last round trip time in milliseconds, 0 if there is none.
    pub round_trip_delay_ms: u16,
    /// From arrival to play-out and from recording to sending, together, in milliseconds.
    pub end_system_delay_ms: u16,
    /// Level of speech in dBm0, [`UNAVAILABLE`] if it is not known.
    pub signal_level: i8,
    /// Level of silence in dBm0, likewise.
    pub noise_level: i8,
    /// Residual echo return loss in dB, likewise.
    pub residual_echo_return_loss: u8,
    /// Packets in a row that have to arrive for a burst to be over.
    pub gap_min: u8,
    /// R factor, 0 to 100, [`UNAVAILABLE`] if it is not known.
    pub r_factor: u8,
    /// R factor of the network beyond, likewise.
    pub external_r_factor: u8,
    /// Mean opinion score for listening in tenths, 10 to 50, likewise.
    pub mos_lq: u8,
    /// For conversation, likewise.
    pub mos_cq: u8,
    /// Concealment, kind of jitter buffer and its rate (RFC 3611 s.4.7.6).
    pub receiver_configuration: u8,
    /// Delay of the jitter buffer in milliseconds.
    pub jitter_buffer_nominal_ms: u16,
    /// Its delay for the latest packet it would take, now.
    pub jitter_buffer_maximum_ms: u16,
    /// The same at its worst.
    pub jitter_buffer_absolute_maximum_ms: u16,
}

impl VoipMetrics {
    /// The first block of VoIP metrics in the body of an extended report (what follows the first four bytes).
    ///
    /// Nothing if there is none, or if a block before it lies about its length.
    #[must_use]
    pub fn find(body: &[u8]) -> Option<Self> {
        let (_reporter, mut rest) = body.split_first_chunk::<4>()?;
        loop {
            let (&[kind, _, high, low], after) = rest.split_first_chunk()?;
            let (block, after) = after.split_at_checked(4 * usize::from(u16::from_be_bytes([high, low])))?;
            if let (VOIP_METRICS, Some(block)) = (kind, block.first_chunk()) {
                return Some(Self::parse(block));
            }
            rest = after;
        }
    }

    fn parse(block: &[u8; VOIP_METRICS_BYTES - 4]) -> Self {
        let [s0, s1, s2, s3, fields @ ..] = *block;
        let word = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
        Self {
            ssrc: Ssrc(u32::from_be_bytes([s0, s1, s2, s3])),
            loss_rate: fields[0],
            discard_rate: fields[1],
            burst_density: fields[2],
            gap_density: fields[3],
            burst_duration_ms: word(4),
            gap_duration_ms: word(6),
            round_trip_delay_ms: word(8),
            end_system_delay_ms: word(10),
            signal_level: fields[12].cast_signed(),
            noise_level: fields[13].cast_signed(),
            residual_echo_return_loss: fields[14],
            gap_min: fields[15],
            r_factor: fields[16],
            external_r_factor: fields[17],
            mos_lq: fields[18],
            mos_cq: fields[19],
            receiver_configuration: fields[20],
            jitter_buffer_nominal_ms: word(22),
            jitter_buffer_maximum_ms: word(24),
            jitter_buffer_absolute_maximum_ms: word(26),
        }
    }

    /// The block as it is sent.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; VOIP_METRICS_BYTES] {
        let [s0, s1, s2, s3] = self.ssrc.0.to_be_bytes();
        let [b0, b1] = self.burst_duration_ms.to_be_bytes();
        let [g0, g1] = self.gap_duration_ms.to_be_bytes();
        let [r0, r1] = self.round_trip_delay_ms.to_be_bytes();
        let [e0, e1] = self.end_system_delay_ms.to_be_bytes();
        let [n0, n1] = self.jitter_buffer_nominal_ms.to_be_bytes();
        let [m0, m1] = self.jitter_buffer_maximum_ms.to_be_bytes();
        let [a0, a1] = self.jitter_buffer_absolute_maximum_ms.to_be_bytes();
        let rates = [self.loss_rate, self.discard_rate, self.burst_density, self.gap_density];
        let [l0, l1, l2, l3] = rates;
        [
            VOIP_METRICS,
            0,
            0,
            VOIP_METRICS_WORDS,
            s0,
            s1,
            s2,
            s3,
            l0,
            l1,
            l2,
            l3,
            b0,
            b1,
            g0,
            g1,
            r0,
            r1,
            e0,
            e1,
            self.signal_level.cast_unsigned(),
            self.noise_level.cast_unsigned(),
            self.residual_echo_return_loss,
            self.gap_min,
            self.r_factor,
            self.external_r_factor,
            self.mos_lq,
            self.mos_cq,
            self.receiver_configuration,
            0,
            n0,
            n1,
            m0,
            m1,
            a0,
            a1,
        ]
    }
}

const _: () = assert!(VOIP_METRICS_BYTES == 4 * (VOIP_METRICS_WORDS as usize + 1));

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::rtcp::{CompoundWriter, RtcpPacket, parse_compound};

    const METRICS: VoipMetrics = VoipMetrics {
        ssrc: Ssrc(0x0102_0304),
        loss_rate: 1,
        discard_rate: 2,
        burst_density: 3,
        gap_density: 4,
        burst_duration_ms: 0x0506,
        gap_duration_ms: 0x0708,
        round_trip_delay_ms: 0x090a,
        end_system_delay_ms: 0x0b0c,
        signal_level: -13,
        noise_level: -60,
        residual_echo_return_loss: 55,
        gap_min: 16,
        r_factor: 93,
        external_r_factor: UNAVAILABLE,
        mos_lq: 44,
        mos_cq: 43,
        receiver_configuration: 0b0110_0000,
        jitter_buffer_nominal_ms: 20,
        jitter_buffer_maximum_ms: 512,
        jitter_buffer_absolute_maximum_ms: 513,
    };

    #[test]
    fn fields_stand_where_rfc_3611_puts_them() {
        let bytes = METRICS.to_bytes();
        let expected = [
            7, 0, 0, 8, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 243, 196, 55, 16, 93, 127, 44, 43, 0x60, 0,
            0, 20, 2, 0, 2, 1,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_written_is_found_behind_other_blocks() {
        let mut out = [0; 128];
        let mut writer = CompoundWriter::new(&mut out);
        writer.receiver_report(Ssrc(9), &[]).unwrap();
        writer.voip_metrics(Ssrc(9), &METRICS).unwrap();
        let len = writer.len();
        let packets: Vec<_> = parse_compound(&out[..len]).unwrap().collect();
        let [RtcpPacket::ReceiverReport(_), RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. }] = packets[..]
        else {
            panic!("{packets:?}")
        };
        assert_eq!(VoipMetrics::find(body), Some(METRICS));
        // A block of another type before it.
        let behind = [&body[..4], &[4, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0], &body[4..]].concat();
        assert_eq!(VoipMetrics::find(&behind), Some(METRICS));
    }

    #[test]
    fn lying_lengths_find_nothing() {
        let block = METRICS.to_bytes();
        for len in 0..block.len() {
            let body = [&[0; 4], &block[..len]].concat();
            assert_eq!(VoipMetrics::find(&body), None, "{len} bytes");
        }
        for lie in [[7, 0, 0xff, 0xff], [7, 0, 0, 7], [4, 0, 0, 9]] {
            let body = [&[0; 4], &lie[..], &block[4..]].concat();
            assert_eq!(VoipMetrics::find(&body), None, "{lie:?}");
        }
    }
}
