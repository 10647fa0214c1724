//! RTCP: a checked walk over received compound packets, and a writer for packets of our own.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |V=2|P|  count  |  packet type  |   length in words, minus one  |
//! |                       body, then P: padding                   |
//! ```
//!
//! Sender and receiver reports, source descriptions and BYE are read; any other type is handed out as bytes. When to
//! send what (RFC 3550 s.6.2, s.6.3) is left to the caller.

mod writer;

use core::fmt;

pub(crate) use writer::put;
pub use writer::{CompoundWriter, RtcpWriteError};

use crate::seq::{RtpTimestamp, Ssrc};

/// Report blocks one SR or RR holds at most.
pub const REPORT_BLOCKS_MAX: usize = 31;
/// Longest canonical name in bytes.
pub const CNAME_BYTES_MAX: usize = 255;

/// `datagram` begins like RTCP: version 2, first packet type 192 to 223 (RFC 5761 s.4), and a length that fits. The
/// packets themselves are checked by [`parse_compound`].
#[must_use]
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.first_chunk::<HEADER_BYTES>().is_some_and(|header| {
        header[0] >> 6 == VERSION && (192..=223).contains(&header[1]) && packet_len(*header) <= datagram.len()
    })
}

/// Checks `datagram` from its first packet to its last and returns the walk over them.
///
/// What RFC 3550 s.6.1 asks of a compound packet (a report first, a CNAME always) is not asked for, since a reduced-size
/// packet (RFC 5506) lacks both.
///
/// # Errors
///
/// The first rule that any of the packets breaks; a datagram with a bad packet is refused as a whole (RFC 3550 A.2).
pub fn parse_compound(datagram: &[u8]) -> Result<Compound<'_>, RtcpError> {
    let mut rest = RtcpPacket::parse(datagram)?.1;
    while !rest.is_empty() {
        rest = RtcpPacket::parse(rest)?.1;
    }
    Ok(Compound { rest: datagram })
}

/// The packets of one datagram in the order they stand; at least one.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Compound<'a> {
    type Item = RtcpPacket<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (packet, rest) = RtcpPacket::parse(self.rest).ok()?;
        self.rest = rest;
        Some(packet)
    }
}

/// One RTCP packet.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    /// SR, type 200.
    SenderReport(SenderReport<'a>),
    /// RR, type 201.
    ReceiverReport(ReceiverReport<'a>),
    /// SDES, type 202.
    SourceDescription(SourceDescription<'a>),
    /// BYE, type 203.
    Bye(Bye<'a>),
    /// Any other type: APP, feedback (RFC 4585), extended reports (RFC 3611).
    Other {
        /// The packet type.
        packet_type: u8,
        /// The five bits where the types above count their blocks.
        count: u8,
        /// What follows the first four bytes, without padding.
        body: &'a [u8],
    },
}

impl<'a> RtcpPacket<'a> {
    /// Reads the packet at the start of `bytes` and returns what follows it.
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RtcpError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(RtcpError::HeaderTooShort)?;
        if header[0] >> 6 != VERSION {
            return Err(RtcpError::WrongVersion);
        }
        let (packet, rest) = bytes.split_at_checked(packet_len(*header)).ok_or(RtcpError::PacketTruncated)?;
        let body = &packet[HEADER_BYTES..];
        let body = if header[0] & PADDING_BIT != 0 {
            // Only the last packet of a compound may be padded (RFC 3550 s.6.4.1).
            if !rest.is_empty() {
                return Err(RtcpError::PaddingInvalid);
            }
            strip_padding(body)?
        } else {
            body
        };
        let count = header[0] & COUNT_MASK;
        let packet = match header[1] {
            SENDER_REPORT => Self::SenderReport(SenderReport::parse(count, body)?),
            RECEIVER_REPORT => Self::ReceiverReport(ReceiverReport::parse(count, body)?),
            SOURCE_DESCRIPTION => Self::SourceDescription(SourceDescription::parse(count, body)?),
            BYE => Self::Bye(Bye::parse(count, body)?),
            packet_type => Self::Other { packet_type, count, body },
        };
        Ok((packet, rest))
    }
}

/// A sender report (RFC 3550 s.6.4.1).
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    /// The source that sent the report.
    pub ssrc: Ssrc,
    /// What it has sent.
    pub info: SenderInfo,
    blocks: &'a [[u8; BLOCK_BYTES]],
}

impl<'a> SenderReport<'a> {
    /// What the source has received, one block for each source it hears.
    pub fn report_blocks(&self) -> impl ExactSizeIterator<Item = ReportBlock> + use<'a> {
        self.blocks.iter().map(ReportBlock::parse)
    }

    fn parse(count: u8, body: &'a [u8]) -> Result<Self, RtcpError> {
        let (ssrc, rest) = split_word(body).ok_or(RtcpError::ReportTruncated)?;
        let (info, rest) = rest.split_first_chunk().ok_or(RtcpError::ReportTruncated)?;
        Ok(Self { ssrc: Ssrc(ssrc), info: SenderInfo::parse(info), blocks: report_blocks(count, rest)? })
    }
}

/// A receiver report (RFC 3550 s.6.4.2).
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    /// The source that sent the report.
    pub ssrc: Ssrc,
    blocks: &'a [[u8; BLOCK_BYTES]],
}

impl<'a> ReceiverReport<'a> {
    /// What the source has received, one block for each source it hears.
    pub fn report_blocks(&self) -> impl ExactSizeIterator<Item = ReportBlock> + use<'a> {
        self.blocks.iter().map(ReportBlock::parse)
    }

    fn parse(count: u8, body: &'a [u8]) -> Result<Self, RtcpError> {
        let (ssrc, rest) = split_word(body).ok_or(RtcpError::ReportTruncated)?;
        Ok(Self { ssrc: Ssrc(ssrc), blocks: report_blocks(count, rest)? })
    }
}

/// Wallclock time of an SR: seconds since 1900 in the upper 32 bits, the fraction of a second in the lower
/// (RFC 3550 s.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NtpTimestamp(pub u64);

impl NtpTimestamp {
    /// The middle 32 bits, as `last_sr` carries them: units of 1/65 536 s.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the upper 16 bits are dropped by definition")]
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// What a sender has sent up to now (RFC 3550 s.6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// When the report was sent.
    pub ntp: NtpTimestamp,
    /// The same moment on the media clock.
    pub rtp_timestamp: RtpTimestamp,
    /// Packets sent; wraps.
    pub packet_count: u32,
    /// Payload bytes sent, headers and padding left out; wraps.
    pub octet_count: u32,
}

impl SenderInfo {
    fn parse(bytes: &[u8; SENDER_INFO_BYTES]) -> Self {
        let word = |at| word(bytes, at);
        Self {
            ntp: NtpTimestamp(u64::from(word(0)) << 32 | u64::from(word(1))),
            rtp_timestamp: RtpTimestamp(word(2)),
            packet_count: word(3),
            octet_count: word(4),
        }
    }
}

/// How one source is heard by the reporter (RFC 3550 s.6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlock {
    /// The source that is heard.
    pub ssrc: Ssrc,
    /// Packets lost since the last report in 1/256 of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the start; negative when duplicates outnumber losses. 24 bits: emitted clamped to
    /// `-2²³ ..= 2²³ - 1`, as RFC 3550 A.3 does.
    pub cumulative_lost: i32,
    /// The highest sequence number received with the wraps before it in the upper 16 bits.
    pub highest_sequence: u32,
    /// Mean deviation of packet spacing in timestamp units (RFC 3550 A.8).
    pub interarrival_jitter: u32,
    /// [`NtpTimestamp::middle`] of the last SR from this source, 0 if there was none.
    pub last_sr: u32,
    /// Time since that SR in units of 1/65 536 s, 0 if there was none.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn parse(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let word = |at| word(bytes, at);
        Self {
            ssrc: Ssrc(word(0)),
            fraction_lost: bytes[4],
            // The shifts carry the sign of the 24-bit field into the upper byte.
            cumulative_lost: (word(1) << 8).cast_signed() >> 8,
            highest_sequence: word(2),
            interarrival_jitter: word(3),
            last_sr: word(4),
            delay_since_last_sr: word(5),
        }
    }

    fn words(&self) -> [u32; BLOCK_BYTES / 4] {
        let lost = self.cumulative_lost.clamp(CUMULATIVE_LOST_MIN, CUMULATIVE_LOST_MAX).cast_unsigned() & 0x00FF_FFFF;
        [
            self.ssrc.0,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest_sequence,
            self.interarrival_jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ]
    }
}

/// Descriptions of sources (RFC 3550 s.6.5).
#[derive(Clone, Copy, Debug)]
pub struct SourceDescription<'a> {
    count: u8,
    chunks: &'a [u8],
}

impl<'a> SourceDescription<'a> {
    /// The descriptions, one chunk for each source, in the order they stand.
    pub fn chunks(&self) -> impl Iterator<Item = SdesChunk<'a>> + use<'a> {
        let mut rest = self.chunks;
        (0..self.count).map_while(move |_| {
            let (chunk, after) = SdesChunk::parse(rest).ok()?;
            rest = after;
            Some(chunk)
        })
    }

    fn parse(count: u8, body: &'a [u8]) -> Result<Self, RtcpError> {
        let mut rest = body;
        for _ in 0..count {
            rest = SdesChunk::parse(rest)?.1;
        }
        Ok(Self { count, chunks: body })
    }
}

/// The description of one source.
#[derive(Clone, Copy, Debug)]
pub struct SdesChunk<'a> {
    /// The source described.
    pub ssrc: Ssrc,
    items: &'a [u8],
}

impl<'a> SdesChunk<'a> {
    /// The canonical name, the one item every source sends: up to 255 bytes of what should be UTF-8.
    #[must_use]
    pub fn cname(&self) -> Option<&'a [u8]> {
        self.items().find_map(|(item_type, text)| (item_type == CNAME).then_some(text))
    }

    /// All items: type and text.
    pub fn items(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.items;
        core::iter::from_fn(move || {
            let (item_type, text, after) = split_item(rest)?;
            rest = after;
            Some((item_type, text))
        })
    }

    /// Reads the chunk at the start of `bytes` and returns what follows its padding.
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RtcpError> {
        let (ssrc, after) = split_word(bytes).ok_or(RtcpError::DescriptionTruncated)?;
        let mut rest = after;
        while rest.first().is_some_and(|item_type| *item_type != END_OF_ITEMS) {
            rest = split_item(rest).ok_or(RtcpError::DescriptionTruncated)?.2;
        }
        let items_len = after.len() - rest.len();
        // At least one null byte ends the list, and more of them fill the last word (RFC 3550 s.6.5).
        let chunk_len = (items_len / 4 + 1) * 4;
        let (items, rest) = after.split_at_checked(chunk_len).ok_or(RtcpError::DescriptionTruncated)?;
        Ok((Self { ssrc: Ssrc(ssrc), items: &items[..items_len] }, rest))
    }
}

/// Sources that leave (RFC 3550 s.6.6).
#[derive(Clone, Copy, Debug)]
pub struct Bye<'a> {
    sources: &'a [[u8; 4]],
    /// Why they leave, if they say so: up to 255 bytes of what should be UTF-8.
    pub reason: Option<&'a [u8]>,
}

impl<'a> Bye<'a> {
    /// The sources, at most 31 and perhaps none.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = Ssrc> + use<'a> {
        self.sources.iter().map(|bytes| Ssrc(u32::from_be_bytes(*bytes)))
    }

    fn parse(count: u8, body: &'a [u8]) -> Result<Self, RtcpError> {
        let (sources, rest) = body.split_at_checked(4 * usize::from(count)).ok_or(RtcpError::ByeTruncated)?;
        let reason = match rest.split_first() {
            Some((len, text)) => Some(text.get(..usize::from(*len)).ok_or(RtcpError::ByeTruncated)?),
            None => None,
        };
        Ok(Self { sources: sources.as_chunks().0, reason })
    }
}

/// The rule of RFC 3550 s.6 that a datagram breaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RtcpError {
    /// Fewer than the four bytes every packet begins with.
    HeaderTooShort,
    /// The version is not 2.
    WrongVersion,
    /// The length runs over the end of the datagram.
    PacketTruncated,
    /// The padding count is zero, not a multiple of four or larger than the body, or a packet that is not the last of
    /// its datagram is padded.
    PaddingInvalid,
    /// A report is shorter than its fixed part and its blocks.
    ReportTruncated,
    /// A chunk or item of a source description runs over the end.
    DescriptionTruncated,
    /// The sources of a BYE or its reason run over the end.
    ByeTruncated,
}

impl fmt::Display for RtcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderTooShort => "shorter than an RTCP header",
            Self::WrongVersion => "RTCP version is not 2",
            Self::PacketTruncated => "RTCP length runs over the end of the datagram",
            Self::PaddingInvalid => "RTCP padding is miscounted or not at the end of the datagram",
            Self::ReportTruncated => "report is shorter than its blocks",
            Self::DescriptionTruncated => "source description runs over the end of its packet",
            Self::ByeTruncated => "BYE runs over the end of its packet",
        })
    }
}

impl core::error::Error for RtcpError {}

/// Length in bytes of the packet that begins with `header`.
const fn packet_len(header: [u8; HEADER_BYTES]) -> usize {
    4 * (u16::from_be_bytes([header[2], header[3]]) as usize + 1)
}

/// Cuts the padding off `body`: its last byte counts the padding bytes, itself included, in whole words.
fn strip_padding(body: &[u8]) -> Result<&[u8], RtcpError> {
    let padding = usize::from(*body.last().ok_or(RtcpError::PaddingInvalid)?);
    if padding == 0 || padding % 4 != 0 {
        return Err(RtcpError::PaddingInvalid);
    }
    let len = body.len().checked_sub(padding).ok_or(RtcpError::PaddingInvalid)?;
    Ok(&body[..len])
}

/// The `count` blocks at the start of `rest`; what follows them is a profile's extension and not looked at.
fn report_blocks(count: u8, rest: &[u8]) -> Result<&[[u8; BLOCK_BYTES]], RtcpError> {
    rest.as_chunks().0.get(..usize::from(count)).ok_or(RtcpError::ReportTruncated)
}

fn split_word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u32::from_be_bytes(*word), rest))
}

/// Type and text of the SDES item at the start of `bytes`, and what follows it.
fn split_item(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([item_type, len], rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((*item_type, text, rest))
}

/// The word at `index` of a block whose length is known to the compiler.
fn word<const N: usize>(bytes: &[u8; N], index: usize) -> u32 {
    u32::from_be_bytes(bytes.as_chunks().0[index])
}

const VERSION: u8 = 2;
const PADDING_BIT: u8 = 0x20;
const COUNT_MASK: u8 = 0x1F;
const HEADER_BYTES: usize = 4;
const SENDER_INFO_BYTES: usize = 20;
const BLOCK_BYTES: usize = 24;
const CUMULATIVE_LOST_MIN: i32 = -0x80_0000;
const CUMULATIVE_LOST_MAX: i32 = 0x7F_FFFF;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;

/// SDES item types (RFC 3550 s.6.5).
const END_OF_ITEMS: u8 = 0;
const CNAME: u8 = 1;

const _: () = assert!(REPORT_BLOCKS_MAX == COUNT_MASK as usize && CNAME_BYTES_MAX == u8::MAX as usize);

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// A receiver report of source 1 with one block on source 2, laid out by hand.
    const RECEIVER_REPORT_BYTES: [u8; 32] = [
        0x81, 201, 0, 7, 0, 0, 0, 1, // header, reporter
        0, 0, 0, 2, 64, 0xFF, 0xFF, 0xFE, // source, fraction and cumulative loss
        0, 1, 0xFF, 0xFF, 0, 0, 0, 9, // highest sequence, jitter
        1, 2, 3, 4, 0, 1, 0, 0, // last SR, delay since
    ];

    fn parse_error(bytes: &[u8]) -> Option<RtcpError> {
        parse_compound(bytes).err()
    }

    #[test]
    fn report_block_fields_stand_where_rfc_3550_puts_them() {
        let mut packets = parse_compound(&RECEIVER_REPORT_BYTES).unwrap();
        let Some(RtcpPacket::ReceiverReport(report)) = packets.next() else { panic!("a receiver report") };
        assert!(packets.next().is_none());
        assert_eq!(report.ssrc, Ssrc(1));
        let block = ReportBlock {
            ssrc: Ssrc(2),
            fraction_lost: 64,
            cumulative_lost: -2,
            highest_sequence: 0x0001_FFFF,
            interarrival_jitter: 9,
            last_sr: 0x0102_0304,
            delay_since_last_sr: 65_536,
        };
        assert_eq!(report.report_blocks().collect::<Vec<_>>(), [block]);

        let mut out = [0; 32];
        let mut writer = CompoundWriter::new(&mut out);
        writer.receiver_report(Ssrc(1), &[block]).unwrap();
        assert_eq!(writer.len(), 32);
        assert_eq!(out, RECEIVER_REPORT_BYTES);
    }

    #[test]
    fn sender_report_fields_stand_where_rfc_3550_puts_them() {
        let bytes = [
            0x80, 200, 0, 6, 0, 0, 0, 1, // header, sender
            0xE0, 0, 0, 1, 0x80, 0, 0, 2, // NTP
            0, 0, 3, 0x20, 0, 0, 0, 5, 0, 0, 3, 0x20, // RTP timestamp, packets, octets
        ];
        let Some(RtcpPacket::SenderReport(report)) = parse_compound(&bytes).unwrap().next() else {
            panic!("a sender report")
        };
        let info = SenderInfo {
            ntp: NtpTimestamp(0xE000_0001_8000_0002),
            rtp_timestamp: RtpTimestamp(800),
            packet_count: 5,
            octet_count: 800,
        };
        assert_eq!((report.ssrc, report.info, report.report_blocks().len()), (Ssrc(1), info, 0));
        assert_eq!(info.ntp.middle(), 0x0001_8000);

        let mut out = [0; 28];
        CompoundWriter::new(&mut out).sender_report(Ssrc(1), &info, &[]).unwrap();
        assert_eq!(out, bytes);
    }

    #[test]
    fn cname_is_found_among_other_items_and_sources() {
        let bytes = [
            0x82, 202, 0, 6, // two chunks
            0, 0, 0, 1, 2, 1, b'x', 1, 2, b'm', b'e', 0, // name, cname, one null
            0, 0, 0, 2, 3, 2, b'a', b'b', 0, 0, 0, 0, // e-mail, four nulls
        ];
        let Some(RtcpPacket::SourceDescription(description)) = parse_compound(&bytes).unwrap().next() else {
            panic!("a source description")
        };
        let names: Vec<_> = description.chunks().map(|chunk| (chunk.ssrc, chunk.cname())).collect();
        assert_eq!(names, [(Ssrc(1), Some(&b"me"[..])), (Ssrc(2), None)]);
        let second: Vec<_> = description.chunks().nth(1).unwrap().items().collect();
        assert_eq!(second, [(3, &b"ab"[..])]);
    }

    #[test]
    fn bye_tells_who_leaves_and_why() {
        let bytes = [0x82, 203, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 4, b'd', b'o', b'n', b'e', 0, 0, 0];
        let Some(RtcpPacket::Bye(bye)) = parse_compound(&bytes).unwrap().next() else { panic!("a BYE") };
        assert_eq!(bye.sources().collect::<Vec<_>>(), [Ssrc(1), Ssrc(2)]);
        assert_eq!(bye.reason, Some(&b"done"[..]));
        let Some(RtcpPacket::Bye(bye)) = parse_compound(&[0x80, 203, 0, 0]).unwrap().next() else { panic!("a BYE") };
        assert_eq!((bye.sources().len(), bye.reason), (0, None));
    }

    #[test]
    fn reduced_size_and_unknown_packets_are_handed_out() {
        let feedback = [0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let Some(RtcpPacket::Other { packet_type, count, body }) = parse_compound(&feedback).unwrap().next() else {
            panic!("an unknown packet")
        };
        assert_eq!((packet_type, count, body), (205, 1, &feedback[4..]));
    }

    #[test]
    fn only_the_last_packet_may_be_padded() {
        let padded = [0xA0, 203, 0, 1, 0, 0, 0, 4];
        let Some(RtcpPacket::Bye(bye)) = parse_compound(&padded).unwrap().next() else { panic!("a BYE") };
        assert_eq!(bye.reason, None, "padding is no reason");
        let followed = [padded, [0x80, 203, 0, 1, 0, 0, 0, 0]].concat();
        assert_eq!(parse_error(&followed), Some(RtcpError::PaddingInvalid));
    }

    #[test]
    fn each_broken_rule_is_named() {
        let rows: [(&[u8], RtcpError); 15] = [
            (&[], RtcpError::HeaderTooShort),
            (&[0x80, 201, 0], RtcpError::HeaderTooShort),
            (&[0x80, 203, 0, 0, 0x80], RtcpError::HeaderTooShort),
            (&[0x40, 201, 0, 0], RtcpError::WrongVersion),
            (&[0x80, 203, 0, 1], RtcpError::PacketTruncated),
            (&[0xA0, 203, 0, 0], RtcpError::PaddingInvalid),
            (&[0xA0, 203, 0, 1, 0, 0, 0, 0], RtcpError::PaddingInvalid),
            (&[0xA0, 203, 0, 1, 0, 0, 0, 3], RtcpError::PaddingInvalid),
            (&[0xA0, 203, 0, 1, 0, 0, 0, 8], RtcpError::PaddingInvalid),
            (&[0x80, 201, 0, 0], RtcpError::ReportTruncated),
            (&[0x81, 201, 0, 1, 0, 0, 0, 1], RtcpError::ReportTruncated),
            (&[0x80, 200, 0, 1, 0, 0, 0, 1], RtcpError::ReportTruncated),
            (&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 2, b'm', b'e'], RtcpError::DescriptionTruncated),
            (&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 3, b'm', b'e'], RtcpError::DescriptionTruncated),
            (&[0x81, 203, 0, 0], RtcpError::ByeTruncated),
        ];
        for (bytes, error) in rows {
            assert_eq!(parse_error(bytes), Some(error), "{bytes:02X?}");
        }
        assert_eq!(parse_error(&[0x80, 203, 0, 1, 4, b'd', b'o', b'n']), Some(RtcpError::ByeTruncated));
    }

    #[test]
    fn first_packet_tells_rtcp() {
        assert!(is_rtcp(&RECEIVER_REPORT_BYTES));
        assert!(is_rtcp(&[0x80, 192, 0, 0]) && is_rtcp(&[0x80, 223, 0, 0]));
        assert!(!is_rtcp(&[0x80, 191, 0, 0]) && !is_rtcp(&[0x80, 224, 0, 0]));
        assert!(!is_rtcp(&RECEIVER_REPORT_BYTES[..31]), "length runs over the end");
        assert!(!is_rtcp(&[0x00, 201, 0, 0]) && !is_rtcp(&[0x80, 201, 0]) && !is_rtcp(&[]));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_no_trace() {
        let mut out = [0xEE; 15];
        let mut writer = CompoundWriter::new(&mut out);
        writer.bye(&[Ssrc(1)]).unwrap();
        assert_eq!(writer.receiver_report(Ssrc(1), &[]), Err(RtcpWriteError::NoRoom));
        assert_eq!(writer.cname(Ssrc(1), b""), Err(RtcpWriteError::NoRoom));
        assert_eq!(writer.bye(&[Ssrc(1); 32]), Err(RtcpWriteError::TooMany));
        assert_eq!(writer.cname(Ssrc(1), &[b'x'; 256]), Err(RtcpWriteError::CnameTooLong));
        assert_eq!(writer.len(), 8);
        assert_eq!(out[8..], [0xEE; 7]);
    }

    #[test]
    fn cumulative_loss_is_clamped_to_24_bits() {
        let block = |cumulative_lost| ReportBlock {
            ssrc: Ssrc(0),
            fraction_lost: 0,
            cumulative_lost,
            highest_sequence: 0,
            interarrival_jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let sent = [i32::MAX, 0x7F_FFFF, -0x80_0000, i32::MIN].map(block);
        let mut out = [0; 8 + 4 * 24];
        CompoundWriter::new(&mut out).receiver_report(Ssrc(0), &sent).unwrap();
        let Some(RtcpPacket::ReceiverReport(report)) = parse_compound(&out).unwrap().next() else {
            panic!("a receiver report")
        };
        let read: Vec<_> = report.report_blocks().map(|block| block.cumulative_lost).collect();
        assert_eq!(read, [0x7F_FFFF, 0x7F_FFFF, -0x80_0000, -0x80_0000]);
        assert!(report.report_blocks().all(|block| block.fraction_lost == 0));
    }

    fn block() -> impl Strategy<Value = ReportBlock> {
        (any::<[u32; 5]>(), any::<u8>(), CUMULATIVE_LOST_MIN..=CUMULATIVE_LOST_MAX).prop_map(
            |([ssrc, highest_sequence, interarrival_jitter, last_sr, delay_since_last_sr], fraction_lost, lost)| {
                ReportBlock {
                    ssrc: Ssrc(ssrc),
                    fraction_lost,
                    cumulative_lost: lost,
                    highest_sequence,
                    interarrival_jitter,
                    last_sr,
                    delay_since_last_sr,
                }
            },
        )
    }

    fn info() -> impl Strategy<Value = SenderInfo> {
        (any::<u64>(), any::<[u32; 3]>()).prop_map(|(ntp, [rtp_timestamp, packet_count, octet_count])| SenderInfo {
            ntp: NtpTimestamp(ntp),
            rtp_timestamp: RtpTimestamp(rtp_timestamp),
            packet_count,
            octet_count,
        })
    }

    /// One to six packets of any content behind headers that are mostly right.
    fn datagram() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![8 => 0x80_u8..0x84, 1 => 0xA0_u8..0xA4, 1 => any::<u8>()];
        let packet = (first, 199_u8..206, prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..9], 0..80));
        prop::collection::vec(packet, 1..6).prop_map(|packets| {
            let mut bytes = Vec::new();
            for (first, packet_type, mut body) in packets {
                body.truncate(body.len() / 4 * 4);
                let words = u8::try_from(body.len() / 4).unwrap();
                bytes.extend_from_slice(&[first, packet_type, 0, words]);
                bytes.extend_from_slice(&body);
            }
            bytes
        })
    }

    /// Reads everything there is to read and returns how many bytes of it were handed out.
    fn read_all(packet: RtcpPacket<'_>) -> usize {
        match packet {
            RtcpPacket::SenderReport(report) => 24 + 24 * report.report_blocks().count(),
            RtcpPacket::ReceiverReport(report) => 4 + 24 * report.report_blocks().count(),
            RtcpPacket::SourceDescription(description) => {
                description.chunks().map(|chunk| 4 + chunk.items().map(|(_, text)| 2 + text.len()).sum::<usize>()).sum()
            }
            RtcpPacket::Bye(bye) => 4 * bye.sources().count() + bye.reason.map_or(0, |reason| 1 + reason.len()),
            RtcpPacket::Other { body, .. } => body.len(),
        }
    }

    proptest! {
        #[test]
        fn parse_reads_what_was_written(
            ssrc: u32,
            info in info(),
            sent in prop::collection::vec(block(), 0..=REPORT_BLOCKS_MAX),
            heard in prop::collection::vec(block(), 0..=REPORT_BLOCKS_MAX),
            name in prop::collection::vec(any::<u8>(), 0..=CNAME_BYTES_MAX),
            leaving in prop::collection::vec(any::<u32>().prop_map(Ssrc), 0..=31),
        ) {
            let mut out = vec![0xFF; 2048];
            let mut writer = CompoundWriter::new(&mut out);
            prop_assert!(writer.is_empty());
            writer.sender_report(Ssrc(ssrc), &info, &sent).unwrap();
            writer.receiver_report(Ssrc(ssrc), &heard).unwrap();
            writer.cname(Ssrc(ssrc), &name).unwrap();
            writer.bye(&leaving).unwrap();
            let len = writer.len();
            prop_assert!(is_rtcp(&out[..len]));

            let packets: Vec<_> = parse_compound(&out[..len]).unwrap().collect();
            let [
                RtcpPacket::SenderReport(sender),
                RtcpPacket::ReceiverReport(receiver),
                RtcpPacket::SourceDescription(description),
                RtcpPacket::Bye(bye),
            ] = packets[..] else { panic!("four packets: {packets:?}") };
            prop_assert_eq!((sender.ssrc, sender.info), (Ssrc(ssrc), info));
            prop_assert_eq!(sender.report_blocks().collect::<Vec<_>>(), sent);
            prop_assert_eq!(receiver.ssrc, Ssrc(ssrc));
            prop_assert_eq!(receiver.report_blocks().collect::<Vec<_>>(), heard);
            let chunks: Vec<_> = description.chunks().map(|chunk| (chunk.ssrc, chunk.cname())).collect();
            prop_assert_eq!(chunks, [(Ssrc(ssrc), Some(&name[..]))]);
            prop_assert_eq!(bye.sources().collect::<Vec<_>>(), leaving);
            prop_assert_eq!(bye.reason, None);
        }

        #[test]
        fn any_bytes_parse_within_their_bounds_or_fail(noise: Vec<u8>, framed in datagram(), cut: prop::sample::Index) {
            for datagram in [&noise[..], &framed, &framed[..cut.index(framed.len())]] {
                if let Ok(packets) = parse_compound(datagram) {
                    let read: usize = packets.clone().map(|packet| HEADER_BYTES + read_all(packet)).sum();
                    prop_assert!(packets.count() > 0);
                    prop_assert!(read <= datagram.len());
                }
            }
        }
    }
}
