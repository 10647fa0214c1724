//! Blocks of an extended report (RFC 3611), read and written: receiver reference time (s.4.4), the answer to one (DLRR,
//! s.4.5) and VoIP metrics (s.4.7). With the first two an end that only receives learns the round trip, as one that
//! sends does from sender reports.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      4        |   reserved    |       length in words = 2     |
//! |                        NTP timestamp                          |
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |      5        |   reserved    |  length in words = 3 * count  |
//! |              count times: SSRC of the receiver                |
//! |                   last reference time (LRR)                   |
//! |                 delay since then (DLRR)                       |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!
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
//! Blocks of other types are handed out as bytes.

use crate::rtcp::{NtpTimestamp, put};
use crate::seq::Ssrc;

/// Packet type of an extended report.
pub const EXTENDED_REPORT: u8 = 207;
/// What a level, factor or score says that is not known.
pub const UNAVAILABLE: u8 = 127;
/// Bytes of a VoIP metrics block with its header.
pub const VOIP_METRICS_BYTES: usize = 36;

/// Bytes of a receiver reference time block with its header.
pub const REFERENCE_TIME_BYTES: usize = 12;
/// Bytes of what a DLRR block says to one receiver; its header takes [`BLOCK_HEADER_BYTES`] more.
pub const DELAY_BYTES: usize = 12;
/// Bytes before the body of each block.
pub const BLOCK_HEADER_BYTES: usize = 4;

const REFERENCE_TIME: u8 = 4;
const DELAYS: u8 = 5;
const VOIP_METRICS: u8 = 7;
const VOIP_METRICS_WORDS: u8 = 8;

/// An extended report: who reports, and the blocks.
///
/// ```
/// use ringbridge_wire::rtcp::{CompoundWriter, NtpTimestamp, RtcpPacket, parse_compound};
/// use ringbridge_wire::xr::{EXTENDED_REPORT, ExtendedReport, XrBlock, XrContents};
/// use ringbridge_wire::Ssrc;
///
/// let mut datagram = [0; 64];
/// let mut writer = CompoundWriter::new(&mut datagram);
/// let contents = XrContents { reference_time: Some(NtpTimestamp(1 << 32)), ..XrContents::default() };
/// writer.extended_report(Ssrc(7), &contents)?;
/// let len = writer.len();
///
/// let Some(RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. }) = parse_compound(&datagram[..len])?.next()
/// else {
///     panic!("an extended report")
/// };
/// let report = ExtendedReport::parse(body).ok_or("too short")?;
/// assert_eq!(report.ssrc, Ssrc(7));
/// assert!(matches!(report.blocks().next(), Some(XrBlock::ReferenceTime(NtpTimestamp(0x1_0000_0000)))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    /// The source that reports.
    pub ssrc: Ssrc,
    rest: &'a [u8],
}

impl<'a> ExtendedReport<'a> {
    /// Reads `body`, what follows the first four bytes of the packet; `None` if not even the reporter's SSRC is there.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (ssrc, rest) = body.split_first_chunk()?;
        Some(Self { ssrc: Ssrc(u32::from_be_bytes(*ssrc)), rest })
    }

    /// The blocks in the order they stand. The walk ends early at a block that runs over the end.
    #[must_use]
    pub const fn blocks(&self) -> XrBlocks<'a> {
        XrBlocks { rest: self.rest }
    }
}

/// Walks the blocks of an extended report.
#[derive(Clone, Debug)]
pub struct XrBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for XrBlocks<'a> {
    type Item = XrBlock<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&[block_type, _, high, low], after) = self.rest.split_first_chunk()?;
        let (body, rest) = after.split_at_checked(4 * usize::from(u16::from_be_bytes([high, low])))?;
        self.rest = rest;
        Some(XrBlock::parse(block_type, body))
    }
}

/// One block of an extended report.
#[derive(Clone, Copy, Debug)]
pub enum XrBlock<'a> {
    /// When a receiver sent the report, by its clock (s.4.4).
    ReferenceTime(NtpTimestamp),
    /// How long ago such times came (s.4.5).
    Delays(Delays<'a>),
    /// How a stream of speech is heard (s.4.7).
    VoipMetrics(VoipMetrics),
    /// Any other type, or one of the above that is too short to be one.
    Other {
        /// The block type.
        block_type: u8,
        /// What follows the block's first four bytes.
        body: &'a [u8],
    },
}

impl<'a> XrBlock<'a> {
    fn parse(block_type: u8, body: &'a [u8]) -> Self {
        match (block_type, body.first_chunk(), body.first_chunk()) {
            (REFERENCE_TIME, Some(ntp), _) => Self::ReferenceTime(NtpTimestamp(u64::from_be_bytes(*ntp))),
            (DELAYS, ..) => Self::Delays(Delays { rows: body.as_chunks().0 }),
            (VOIP_METRICS, _, Some(metrics)) => Self::VoipMetrics(VoipMetrics::parse(metrics)),
            _ => Self::Other { block_type, body },
        }
    }
}

/// What a DLRR block says, receiver by receiver.
#[derive(Clone, Copy, Debug)]
pub struct Delays<'a> {
    rows: &'a [[u8; DELAY_BYTES]],
}

impl<'a> Delays<'a> {
    /// One row for each receiver in the order they stand.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Delay> + use<'a> {
        self.rows.iter().map(Delay::parse)
    }
}

/// When the last reference time of a receiver came (RFC 3611 s.4.5): its `last_rr` and `delay_since_last_rr`, as a
/// report block has `last_sr` and `delay_since_last_sr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    /// The receiver that is answered.
    pub ssrc: Ssrc,
    /// [`NtpTimestamp::middle`] of its reference time, 0 if there was none.
    pub last_rr: u32,
    /// Time since that came in units of 1/65 536 s, 0 if there was none.
    pub delay_since_last_rr: u32,
}

impl Delay {
    fn parse(row: &[u8; DELAY_BYTES]) -> Self {
        let [s0, s1, s2, s3, l0, l1, l2, l3, d0, d1, d2, d3] = *row;
        Self {
            ssrc: Ssrc(u32::from_be_bytes([s0, s1, s2, s3])),
            last_rr: u32::from_be_bytes([l0, l1, l2, l3]),
            delay_since_last_rr: u32::from_be_bytes([d0, d1, d2, d3]),
        }
    }

    /// The row as it is sent.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; DELAY_BYTES] {
        let [s0, s1, s2, s3] = self.ssrc.0.to_be_bytes();
        let [l0, l1, l2, l3] = self.last_rr.to_be_bytes();
        let [d0, d1, d2, d3] = self.delay_since_last_rr.to_be_bytes();
        [s0, s1, s2, s3, l0, l1, l2, l3, d0, d1, d2, d3]
    }
}

/// What an extended report of our own holds; what is empty is left out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct XrContents<'a> {
    /// When the report is sent, from an end that sends no media.
    pub reference_time: Option<NtpTimestamp>,
    /// Answers to the reference times of receivers.
    pub delays: &'a [Delay],
    /// How a stream of speech is heard.
    pub metrics: Option<&'a VoipMetrics>,
}

impl XrContents<'_> {
    /// There is nothing to report.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the blocks take.
    #[must_use]
    pub const fn len(&self) -> usize {
        let delays = if self.delays.is_empty() { 0 } else { BLOCK_HEADER_BYTES + DELAY_BYTES * self.delays.len() };
        let time = if self.reference_time.is_some() { REFERENCE_TIME_BYTES } else { 0 };
        time + delays + if self.metrics.is_some() { VOIP_METRICS_BYTES } else { 0 }
    }

    /// Writes the blocks to the start of `out`, which holds at least [`len`](Self::len) bytes and not more than an RTCP
    /// packet can.
    pub(crate) fn emit(&self, out: &mut [u8]) {
        let mut out = out;
        if let Some(ntp) = self.reference_time {
            out = put(out, &[REFERENCE_TIME, 0, 0, 2]);
            out = put(out, &ntp.0.to_be_bytes());
        }
        if !self.delays.is_empty() {
            let [w0, w1] = u16::try_from(3 * self.delays.len()).unwrap_or(u16::MAX).to_be_bytes();
            out = put(out, &[DELAYS, 0, w0, w1]);
            for delay in self.delays {
                out = put(out, &delay.to_bytes());
            }
        }
        if let Some(metrics) = self.metrics {
            put(out, &metrics.to_bytes());
        }
    }
}

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
        ExtendedReport::parse(body)?.blocks().find_map(|block| match block {
            XrBlock::VoipMetrics(metrics) => Some(metrics),
            XrBlock::ReferenceTime(_) | XrBlock::Delays(_) | XrBlock::Other { .. } => None,
        })
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
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::rtcp::{CompoundWriter, RtcpPacket, RtcpWriteError, parse_compound};

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
        writer.extended_report(Ssrc(9), &XrContents { metrics: Some(&METRICS), ..XrContents::default() }).unwrap();
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

    const DELAY: Delay = Delay { ssrc: Ssrc(0x0102_0304), last_rr: 0x0506_0708, delay_since_last_rr: 0x090a_0b0c };

    #[test]
    fn times_and_their_answers_stand_where_rfc_3611_puts_them() {
        let mut out = [0xFF; 64];
        let mut writer = CompoundWriter::new(&mut out);
        let contents = XrContents {
            reference_time: Some(NtpTimestamp(0xE000_0001_8000_0002)),
            delays: &[DELAY, DELAY],
            metrics: None,
        };
        assert_eq!(contents.len(), 40);
        writer.extended_report(Ssrc(9), &contents).unwrap();
        assert_eq!(writer.len(), 48);
        let row = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let expected = [
            &[0x80, 207, 0, 11, 0, 0, 0, 9][..],
            &[4, 0, 0, 2, 0xE0, 0, 0, 1, 0x80, 0, 0, 2],
            &[5, 0, 0, 6],
            &row,
            &row,
        ];
        assert_eq!(out[..48], expected.concat());
    }

    #[test]
    fn blocks_of_wrong_lengths_are_no_blocks_of_their_kind() {
        let body = [
            &[0, 0, 0, 9][..],
            &[4, 0, 0, 1, 1, 2, 3, 4],
            &[5, 0, 0, 0],
            &[5, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xEE, 0xEE, 0xEE, 0xEE],
            &[7, 0, 0, 1, 0, 0, 0, 0],
            &[200, 0, 0, 0],
            &[4, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat();
        let report = ExtendedReport::parse(&body).unwrap();
        assert_eq!(report.ssrc, Ssrc(9));
        let blocks: Vec<_> = report.blocks().collect();
        let [
            XrBlock::Other { block_type: 4, body: [1, 2, 3, 4] },
            XrBlock::Delays(none),
            XrBlock::Delays(one),
            XrBlock::Other { block_type: 7, .. },
            XrBlock::Other { block_type: 200, body: [] },
        ] = blocks[..]
        else {
            panic!("{blocks:?}, and the last runs over the end")
        };
        assert_eq!(none.rows().len(), 0);
        let row = Delay { ssrc: Ssrc(1), last_rr: 2, delay_since_last_rr: 3 };
        assert_eq!(one.rows().collect::<Vec<_>>(), [row], "what is left over is no row");
        assert!(ExtendedReport::parse(&body[..3]).is_none());
    }

    #[test]
    fn more_delays_than_a_packet_can_tell_are_refused() {
        let delays = vec![DELAY; 22_000];
        let mut out = vec![0; 300_000];
        let mut writer = CompoundWriter::new(&mut out);
        let contents = XrContents { delays: &delays, ..XrContents::default() };
        assert_eq!(writer.extended_report(Ssrc(9), &contents), Err(RtcpWriteError::TooMany));
        // As many as there can be.
        let most = XrContents { delays: &delays[..(0xFFFF - 2) / 3], ..XrContents::default() };
        writer.extended_report(Ssrc(9), &most).unwrap();
        let len = writer.len();
        let Some(RtcpPacket::Other { body, .. }) = parse_compound(&out[..len]).unwrap().next() else { panic!("one") };
        let Some(XrBlock::Delays(read)) = ExtendedReport::parse(body).unwrap().blocks().next() else { panic!("one") };
        assert_eq!(read.rows().len(), most.delays.len());
    }

    proptest! {
        #[test]
        fn the_walk_finds_what_was_written(
            ssrc: u32,
            time: Option<u64>,
            delays in prop::collection::vec(any::<(u32, u32, u32)>(), 0..40),
            metrics: bool,
        ) {
            let delays: Vec<_> = delays
                .into_iter()
                .map(|(ssrc, last_rr, delay_since_last_rr)| Delay { ssrc: Ssrc(ssrc), last_rr, delay_since_last_rr })
                .collect();
            let contents = XrContents {
                reference_time: time.map(NtpTimestamp),
                delays: &delays,
                metrics: metrics.then_some(&METRICS),
            };
            let mut out = [0xFF; 1024];
            let mut writer = CompoundWriter::new(&mut out);
            writer.extended_report(Ssrc(ssrc), &contents).unwrap();
            let len = writer.len();
            prop_assert_eq!(len, 8 + contents.len());
            let Some(RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. }) =
                parse_compound(&out[..len]).unwrap().next() else { panic!("an extended report") };
            let report = ExtendedReport::parse(body).unwrap();
            prop_assert_eq!(report.ssrc, Ssrc(ssrc));
            let (mut read_time, mut read_delays, mut read_metrics) = (None, Vec::new(), None);
            for block in report.blocks() {
                match block {
                    XrBlock::ReferenceTime(ntp) => read_time = Some(ntp),
                    XrBlock::Delays(delays) => read_delays.extend(delays.rows()),
                    XrBlock::VoipMetrics(metrics) => read_metrics = Some(metrics),
                    XrBlock::Other { .. } => panic!("{block:?}"),
                }
            }
            prop_assert_eq!(read_time, contents.reference_time);
            prop_assert_eq!(&read_delays, &delays);
            prop_assert_eq!(read_metrics.as_ref(), contents.metrics);
        }

        #[test]
        fn any_bytes_are_walked_within_their_bounds(
            blocks in prop::collection::vec((0_u8..9, 0_u8..12, prop::collection::vec(any::<u8>(), 0..48)), 0..8),
        ) {
            let mut body = vec![0, 0, 0, 1];
            for (block_type, words, bytes) in blocks {
                body.extend_from_slice(&[block_type, 0, 0, words]);
                body.extend_from_slice(&bytes);
            }
            let read: usize = ExtendedReport::parse(&body)
                .unwrap()
                .blocks()
                .map(|block| {
                    BLOCK_HEADER_BYTES
                        + match block {
                            XrBlock::ReferenceTime(_) => REFERENCE_TIME_BYTES - BLOCK_HEADER_BYTES,
                            XrBlock::Delays(delays) => DELAY_BYTES * delays.rows().len(),
                            XrBlock::VoipMetrics(_) => VOIP_METRICS_BYTES - BLOCK_HEADER_BYTES,
                            XrBlock::Other { body, .. } => body.len(),
                        }
                })
                .sum();
            prop_assert!(read + 4 <= body.len());
        }
    }
}
