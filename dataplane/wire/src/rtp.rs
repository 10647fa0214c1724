//! RTP data packets: a checked view over received bytes, and the header of packets of our own.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |           synchronization source (SSRC) identifier            |
//! |            contributing source (CSRC) identifiers × CC        |
//! |      X: profile               |      X: length in words       |
//! |                     X: extension × length                     |
//! |                    payload, then P: padding                   |
//! ```

use core::fmt;

use crate::audio_level::MIXER_LEVEL_SILENCE;
use crate::extension::{EXTENSION_HEADER_BYTES, ExtensionElements, ExtensionForm, ExtensionWriter};
use crate::seq::{RtpTimestamp, SeqNumber, Ssrc};

/// Length of the fixed part of an RTP header (RFC 3550 s.5.1): all of it without a CSRC list and an extension.
pub const RTP_HEADER_BYTES: usize = 12;
/// Contributing sources that one header names at most.
pub const CSRCS_MAX: usize = 15;
/// Length of the longest header that [`RtpHeader::emit_with`] writes: fifteen sources and their levels in the two-byte
/// form.
pub const RTP_HEADER_BYTES_MAX: usize =
    RTP_HEADER_BYTES + 4 * CSRCS_MAX + EXTENSION_HEADER_BYTES + (2 + CSRCS_MAX).next_multiple_of(4);
/// Static payload type of comfort noise at 8 kHz (RFC 3389 s.4, RFC 3551 s.6).
pub const COMFORT_NOISE: u8 = 13;

/// One RTP data packet (RFC 3550 s.5.1) in the bytes it was received in. All lengths were checked by
/// [`parse`](Self::parse), so no getter can fail.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    header: &'a [u8; RTP_HEADER_BYTES],
    csrcs: &'a [[u8; 4]],
    extension: Option<(u16, &'a [u8])>,
    payload: &'a [u8],
    header_len: usize,
}

impl<'a> RtpPacket<'a> {
    /// Checks `datagram`, the payload of one UDP datagram, and returns the view.
    ///
    /// A packet whose padding fills the whole payload is accepted with an empty payload (endpoints send such packets to
    /// probe a path), although RFC 3550 A.1 asks for less. Constant time.
    ///
    /// # Errors
    ///
    /// The first rule that `datagram` breaks.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RtpError> {
        let (header, rest) = datagram.split_first_chunk::<RTP_HEADER_BYTES>().ok_or(RtpError::HeaderTooShort)?;
        if header[0] >> 6 != VERSION {
            return Err(RtpError::WrongVersion);
        }
        let csrc_bytes = 4 * usize::from(header[0] & CSRC_COUNT_MASK);
        let (csrcs, rest) = rest.split_at_checked(csrc_bytes).ok_or(RtpError::CsrcTruncated)?;
        let (extension, rest) = if header[0] & EXTENSION_BIT != 0 {
            let ([p0, p1, l0, l1], rest) = rest.split_first_chunk::<4>().ok_or(RtpError::ExtensionTruncated)?;
            let extension_bytes = 4 * usize::from(u16::from_be_bytes([*l0, *l1]));
            let (extension, rest) = rest.split_at_checked(extension_bytes).ok_or(RtpError::ExtensionTruncated)?;
            (Some((u16::from_be_bytes([*p0, *p1]), extension)), rest)
        } else {
            (None, rest)
        };
        let payload = if header[0] & PADDING_BIT != 0 { strip_padding(rest)? } else { rest };
        Ok(Self { header, csrcs: csrcs.as_chunks().0, extension, payload, header_len: datagram.len() - rest.len() })
    }

    /// The marker bit: in audio the first packet of a talkspurt, in a telephone event the first of an event.
    #[must_use]
    pub const fn marker(&self) -> bool {
        self.header[1] & MARKER_BIT != 0
    }

    /// The payload type, `0 ..= 127`.
    #[must_use]
    pub const fn payload_type(&self) -> u8 {
        self.header[1] & PAYLOAD_TYPE_MASK
    }

    /// The sequence number.
    #[must_use]
    pub const fn sequence_number(&self) -> SeqNumber {
        SeqNumber(u16::from_be_bytes([self.header[2], self.header[3]]))
    }

    /// When the first sample of the payload was taken.
    #[must_use]
    pub const fn timestamp(&self) -> RtpTimestamp {
        RtpTimestamp(u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]]))
    }

    /// The source that counts the sequence numbers.
    #[must_use]
    pub const fn ssrc(&self) -> Ssrc {
        Ssrc(u32::from_be_bytes([self.header[8], self.header[9], self.header[10], self.header[11]]))
    }

    /// The sources mixed into the payload, at most 15.
    pub fn csrcs(&self) -> impl ExactSizeIterator<Item = Ssrc> + use<'a> {
        self.csrcs.iter().map(|bytes| Ssrc(u32::from_be_bytes(*bytes)))
    }

    /// The header extension: the 16 bits its profile defines, and its content, whose length is a multiple of 4.
    #[must_use]
    pub const fn extension(&self) -> Option<(u16, &'a [u8])> {
        self.extension
    }

    /// The elements of a one-byte or two-byte header extension (RFC 8285 s.4.2, s.4.3) in the order they stand; none if
    /// the packet has no extension or one of another kind.
    #[must_use]
    pub const fn extension_elements(&self) -> ExtensionElements<'a> {
        ExtensionElements::of(self.extension)
    }

    /// The data of the first extension element with this identifier. Cost grows with the extension's length.
    #[must_use]
    pub fn extension_element(&self, id: u8) -> Option<&'a [u8]> {
        self.extension_elements().find(|element| element.id == id).map(|element| element.data)
    }

    /// Length of everything before the payload: fixed header, CSRC list and extension, in bytes.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// The payload without its padding; it may be empty.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields of the fixed header.
    #[must_use]
    pub const fn header(&self) -> RtpHeader {
        RtpHeader {
            marker: self.marker(),
            payload_type: self.payload_type(),
            sequence_number: self.sequence_number(),
            timestamp: self.timestamp(),
            ssrc: self.ssrc(),
        }
    }
}

/// The header of a packet of our own: version 2, no padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpHeader {
    /// The marker bit.
    pub marker: bool,
    /// The payload type, `0 ..= 127`; only the low seven bits are sent.
    pub payload_type: u8,
    /// The sequence number.
    pub sequence_number: SeqNumber,
    /// When the first sample of the payload was taken, in units of the clock rate.
    pub timestamp: RtpTimestamp,
    /// The source that counts the sequence numbers.
    pub ssrc: Ssrc,
}

impl RtpHeader {
    /// Writes the header without CSRC list and extension and returns its length, [`RTP_HEADER_BYTES`], which is where the
    /// payload starts. From a longer buffer take the array with `first_chunk_mut` or `split_first_chunk_mut`.
    pub fn emit(&self, out: &mut [u8; RTP_HEADER_BYTES]) -> usize {
        let [s0, s1] = self.sequence_number.0.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.0.to_be_bytes();
        let [i0, i1, i2, i3] = self.ssrc.0.to_be_bytes();
        let marker = if self.marker { MARKER_BIT } else { 0 };
        *out = [VERSION << 6, marker | self.payload_type & PAYLOAD_TYPE_MASK, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3];
        RTP_HEADER_BYTES
    }

    /// Writes the header with the sources that are mixed into the payload and, if `levels` are given, how loud each of
    /// them is ([RFC 6465](https://www.rfc-editor.org/rfc/rfc6465)): the identifier that SDP `extmap` gave
    /// [`MIXER_LEVELS_URI`](crate::audio_level::MIXER_LEVELS_URI), and one level in -dBov, `0 ..= 127`, for each source
    /// in the order of `csrcs`. Returns the header's length, which is where the payload starts.
    ///
    /// Sources beyond [`CSRCS_MAX`] are left out (RFC 3550 s.5.1). There are always as many levels as sources (RFC 6465
    /// s.3): a missing one is sent as silence. Without sources, or with identifier 0, there is no extension.
    /// [`RTP_HEADER_BYTES_MAX`] bytes are always enough; if `out` is too short nothing is written, and `None` returned.
    #[must_use]
    pub fn emit_with(&self, out: &mut [u8], csrcs: &[u32], levels: Option<(u8, &[u8])>) -> Option<usize> {
        let csrcs = &csrcs[..csrcs.len().min(CSRCS_MAX)];
        let levels = levels.filter(|(id, _)| *id != 0 && !csrcs.is_empty());
        let mut padded = [MIXER_LEVEL_SILENCE; CSRCS_MAX];
        let element = levels.map(|(id, levels)| {
            for (place, level) in padded.iter_mut().zip(levels) {
                *place = level & MIXER_LEVEL_SILENCE;
            }
            (id, &padded[..csrcs.len()])
        });

        let csrcs_end = RTP_HEADER_BYTES + 4 * csrcs.len();
        let (head, rest) = out.split_at_mut_checked(csrcs_end)?;
        // Before anything else is written, as this may not fit.
        let extension_len = match element {
            Some((id, data)) => {
                let mut writer = ExtensionWriter::new(rest, ExtensionForm::for_element(id, data.len()));
                writer.element(id, data).ok()?;
                writer.finish()
            }
            None => 0,
        };
        let (fixed, list) = head.split_first_chunk_mut::<RTP_HEADER_BYTES>()?;
        self.emit(fixed);
        let count = u8::try_from(csrcs.len()).unwrap_or_default();
        fixed[0] |= count | if extension_len > 0 { EXTENSION_BIT } else { 0 };
        for (place, csrc) in list.as_chunks_mut().0.iter_mut().zip(csrcs) {
            *place = csrc.to_be_bytes();
        }
        Some(csrcs_end + extension_len)
    }
}

/// Gives a packet another place in another stream, in place: payload, marker, CSRC list and extension stay as they are.
///
/// `packet` is one that [`RtpPacket::parse`] has accepted; anything shorter than a header is left as it is.
pub fn rewrite_header(packet: &mut [u8], ssrc: Ssrc, sequence_number: SeqNumber, timestamp: RtpTimestamp) {
    if let Some(header) = packet.first_chunk_mut::<RTP_HEADER_BYTES>() {
        header[2..4].copy_from_slice(&sequence_number.0.to_be_bytes());
        header[4..8].copy_from_slice(&timestamp.0.to_be_bytes());
        header[8..12].copy_from_slice(&ssrc.0.to_be_bytes());
    }
}

/// Sets or clears the marker bit in place.
///
/// `packet` is one that [`RtpPacket::parse`] has accepted; anything shorter than a header is left as it is.
pub fn set_marker(packet: &mut [u8], marker: bool) {
    if let Some(header) = packet.first_chunk_mut::<RTP_HEADER_BYTES>() {
        header[1] = header[1] & PAYLOAD_TYPE_MASK | if marker { MARKER_BIT } else { 0 };
    }
}

/// The rule of RFC 3550 s.5 that a datagram breaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RtpError {
    /// Fewer than [`RTP_HEADER_BYTES`] bytes.
    HeaderTooShort,
    /// The version is not 2.
    WrongVersion,
    /// The CSRC list runs over the end.
    CsrcTruncated,
    /// The header extension runs over the end.
    ExtensionTruncated,
    /// The padding count is zero or larger than what follows the header.
    PaddingInvalid,
}

impl fmt::Display for RtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderTooShort => "shorter than an RTP header",
            Self::WrongVersion => "RTP version is not 2",
            Self::CsrcTruncated => "CSRC list runs over the end of the packet",
            Self::ExtensionTruncated => "header extension runs over the end of the packet",
            Self::PaddingInvalid => "padding count is zero or larger than the payload",
        })
    }
}

impl core::error::Error for RtpError {}

/// Cuts the padding off `payload`: its last byte counts the padding bytes, itself included.
fn strip_padding(payload: &[u8]) -> Result<&[u8], RtpError> {
    let padding = usize::from(*payload.last().ok_or(RtpError::PaddingInvalid)?);
    if padding == 0 {
        return Err(RtpError::PaddingInvalid);
    }
    let len = payload.len().checked_sub(padding).ok_or(RtpError::PaddingInvalid)?;
    Ok(&payload[..len])
}

const VERSION: u8 = 2;
const PADDING_BIT: u8 = 0x20;
const EXTENSION_BIT: u8 = 0x10;
const CSRC_COUNT_MASK: u8 = 0x0F;
const MARKER_BIT: u8 = 0x80;
const PAYLOAD_TYPE_MASK: u8 = 0x7F;

const _: () = assert!(CSRCS_MAX == CSRC_COUNT_MASK as usize);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::audio_level::mixer_levels;

    /// Version 2, marker, payload type 0, sequence 0x1234, timestamp 0x56789ABC, SSRC 0xDEADBEEF, two bytes of payload.
    const PLAIN: [u8; 14] = [0x80, 0x80, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xAD, 0xBE, 0xEF, 0x11, 0x22];

    /// `PLAIN`'s fixed header with `first` as its first byte, then `rest`.
    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = PLAIN[..RTP_HEADER_BYTES].to_vec();
        bytes[0] = first;
        bytes.extend_from_slice(rest);
        bytes
    }

    fn elements(profile: [u8; 2], content: &[u8]) -> Vec<(u8, Vec<u8>)> {
        assert_eq!(content.len() % 4, 0);
        let words = u8::try_from(content.len() / 4).unwrap();
        let mut rest = [profile[0], profile[1], 0, words].to_vec();
        rest.extend_from_slice(content);
        let bytes = packet(0x90, &rest);
        let walk = RtpPacket::parse(&bytes).unwrap().extension_elements();
        walk.map(|element| (element.id, element.data.to_vec())).collect()
    }

    #[test]
    fn fixed_header_is_read_as_it_stands() {
        let parsed = RtpPacket::parse(&PLAIN).unwrap();
        assert!(parsed.marker());
        assert_eq!(parsed.payload_type(), 0);
        assert_eq!(parsed.sequence_number(), SeqNumber(0x1234));
        assert_eq!(parsed.timestamp(), RtpTimestamp(0x5678_9ABC));
        assert_eq!(parsed.ssrc(), Ssrc(0xDEAD_BEEF));
        assert_eq!(parsed.csrcs().len(), 0);
        assert_eq!(parsed.extension(), None);
        assert_eq!(parsed.extension_elements().next(), None);
        assert_eq!(parsed.header_len(), 12);
        assert_eq!(parsed.payload(), [0x11, 0x22]);
    }

    #[test]
    fn csrcs_extension_payload_and_padding_are_told_apart() {
        let bytes = packet(0xB1, &[0, 0, 0, 7, 0xAB, 0xCD, 0, 1, 1, 2, 3, 4, 0x55, 0, 2]);
        let parsed = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(parsed.csrcs().collect::<Vec<_>>(), [Ssrc(7)]);
        assert_eq!(parsed.extension(), Some((0xABCD, &[1, 2, 3, 4][..])));
        assert_eq!(parsed.header_len(), 24);
        assert_eq!(parsed.payload(), [0x55]);
    }

    #[test]
    fn each_broken_rule_is_named() {
        let rows: [(Vec<u8>, RtpError); 10] = [
            (Vec::new(), RtpError::HeaderTooShort),
            (PLAIN[..11].to_vec(), RtpError::HeaderTooShort),
            (packet(0x40, &[]), RtpError::WrongVersion),
            (packet(0xC0, &[]), RtpError::WrongVersion),
            (packet(0x82, &[0; 7]), RtpError::CsrcTruncated),
            (packet(0x90, &[0xBE, 0xDE, 0]), RtpError::ExtensionTruncated),
            (packet(0x90, &[0xBE, 0xDE, 0, 2, 0, 0, 0, 0, 0, 0, 0]), RtpError::ExtensionTruncated),
            (packet(0xA0, &[]), RtpError::PaddingInvalid),
            (packet(0xA0, &[1, 2, 0]), RtpError::PaddingInvalid),
            (packet(0xA0, &[1, 2, 4]), RtpError::PaddingInvalid),
        ];
        for (bytes, error) in rows {
            assert_eq!(RtpPacket::parse(&bytes).err(), Some(error), "{bytes:02X?}");
        }
    }

    #[test]
    fn padding_may_fill_the_payload() {
        let bytes = packet(0xA0, &[0, 0, 3]);
        assert!(RtpPacket::parse(&bytes).unwrap().payload().is_empty());
    }

    #[test]
    fn one_byte_elements_are_walked_over_padding() {
        let found = elements([0xBE, 0xDE], &[0x10, 0xAA, 0, 0, 0x21, 0xBB, 0xCC, 0]);
        assert_eq!(found, [(1, [0xAA].to_vec()), (2, [0xBB, 0xCC].to_vec())]);
    }

    #[test]
    fn one_byte_walk_stops_where_rfc_8285_says_so() {
        // Identifier 15, identifier 0 with a length, and an element that runs over the end.
        for stop in [0xF0, 0x02, 0x37] {
            let found = elements([0xBE, 0xDE], &[0x10, 0xAA, stop, 0, 0x20, 0xBB, 0, 0]);
            assert_eq!(found, [(1, [0xAA].to_vec())], "stop {stop:02X}");
        }
    }

    #[test]
    fn two_byte_elements_may_be_empty_and_carry_any_identifier() {
        for profile in [[0x10, 0x00], [0x10, 0x0F]] {
            let found = elements(profile, &[15, 0, 0, 200, 1, 0xAA, 3, 9]);
            assert_eq!(found, [(15, Vec::new()), (200, [0xAA].to_vec())]);
        }
        assert_eq!(elements([0x10, 0x10], &[1, 0, 0, 0]), [], "a profile of another kind");
        assert_eq!(elements([0x10, 0x00], &[0, 0, 0, 1]), [], "an identifier without a length");
    }

    #[test]
    fn rewriting_leaves_all_else_alone() {
        let mut bytes = packet(0x91, &[0, 0, 0, 7, 0xAB, 0xCD, 0, 0, 0x55]);
        let before = bytes.clone();
        rewrite_header(&mut bytes, Ssrc(1), SeqNumber(2), RtpTimestamp(3));
        set_marker(&mut bytes, false);
        assert_eq!(bytes[..12], [0x91, 0x00, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1]);
        assert_eq!(bytes[12..], before[12..]);
        set_marker(&mut bytes, true);
        assert_eq!(bytes[1], 0x80);
    }

    #[test]
    fn what_is_no_packet_is_not_rewritten() {
        let mut bytes = [0xFF; RTP_HEADER_BYTES - 1];
        rewrite_header(&mut bytes, Ssrc(1), SeqNumber(2), RtpTimestamp(3));
        set_marker(&mut bytes, false);
        assert_eq!(bytes, [0xFF; RTP_HEADER_BYTES - 1]);
    }

    const HEADER: RtpHeader = RtpHeader {
        marker: true,
        payload_type: 8,
        sequence_number: SeqNumber(0x0102),
        timestamp: RtpTimestamp(0x0304_0506),
        ssrc: Ssrc(0x0708_090A),
    };

    #[test]
    fn sources_and_their_levels_stand_where_rfc_3550_and_6465_put_them() {
        let mut out = [0xFF; RTP_HEADER_BYTES_MAX];
        let fixed = [0x88, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        assert_eq!(HEADER.emit_with(&mut out, &[], None), Some(12));
        assert_eq!((out[0], &out[1..12]), (0x80, &fixed[..]));
        assert_eq!(HEADER.emit_with(&mut out, &[1, 2], None), Some(20));
        assert_eq!((out[0], &out[1..12], &out[12..20]), (0x82, &fixed[..], &[0, 0, 0, 1, 0, 0, 0, 2][..]));
        assert_eq!(HEADER.emit_with(&mut out, &[1, 2], Some((5, &[0x85, 90]))), Some(28));
        assert_eq!((out[0], &out[1..12], &out[12..20]), (0x92, &fixed[..], &[0, 0, 0, 1, 0, 0, 0, 2][..]));
        assert_eq!(out[20..28], [0xBE, 0xDE, 0, 1, 0x51, 5, 90, 0], "the reserved bit is not sent");
        assert_eq!(HEADER.emit_with(&mut out, &[1], Some((15, &[1]))), Some(24));
        assert_eq!(out[16..24], [0x10, 0, 0, 1, 15, 1, 1, 0], "an identifier for the two-byte form alone");
    }

    #[test]
    fn there_are_as_many_levels_as_sources_and_at_most_fifteen() {
        let mut out = [0xFF; RTP_HEADER_BYTES_MAX];
        let levels_of = |out: &mut [u8], csrcs: &[u32], levels: &[u8], id| {
            let len = HEADER.emit_with(out, csrcs, Some((id, levels))).unwrap();
            let parsed = RtpPacket::parse(&out[..len]).unwrap();
            assert_eq!(parsed.header_len(), len);
            let read: Vec<_> = mixer_levels(&parsed, id).map(|(csrc, level)| (csrc.0, level)).collect();
            assert_eq!(parsed.extension_element(id).map_or(0, <[u8]>::len), read.len());
            (len, read)
        };
        assert_eq!(levels_of(&mut out, &[1, 2], &[10, 20, 30], 1).1, [(1, 10), (2, 20)]);
        assert_eq!(levels_of(&mut out, &[1, 2], &[10], 1).1, [(1, 10), (2, 127)]);
        assert_eq!(levels_of(&mut out, &[], &[10], 1), (12, Vec::new()));
        assert_eq!(levels_of(&mut out, &[1], &[10], 0), (16, Vec::new()));
        let (csrcs, levels): (Vec<_>, Vec<_>) = (0_u32..20).zip(40_u8..).unzip();
        let expected: Vec<_> = (0_u32..15).zip(40_u8..).collect();
        assert_eq!(levels_of(&mut out, &csrcs, &levels, 14), (RTP_HEADER_BYTES_MAX - 4, expected.clone()));
        assert_eq!(levels_of(&mut out, &csrcs, &levels, 255), (RTP_HEADER_BYTES_MAX, expected));
    }

    #[test]
    fn without_room_nothing_is_written() {
        for (sources, id) in [(0, None), (3, None), (3, Some(1)), (15, Some(200))] {
            let (csrcs, levels) = (&[1; 15][..sources], id.map(|id| (id, &[9; 15][..sources])));
            let needed = HEADER.emit_with(&mut [0; RTP_HEADER_BYTES_MAX], csrcs, levels).unwrap();
            for room in 0..needed {
                let mut out = std::vec![0xEE; room];
                assert_eq!(HEADER.emit_with(&mut out, csrcs, levels), None, "{room} of {needed} bytes");
                assert!(out.iter().all(|byte| *byte == 0xEE), "{room} of {needed} bytes");
            }
        }
    }

    #[test]
    fn an_element_is_found_by_its_identifier_and_lying_lengths_find_nothing() {
        let find = |profile: [u8; 2], content: &[u8], id| {
            let words = u8::try_from(content.len() / 4).unwrap();
            let bytes = packet(0x90, &[&profile, &[0, words][..], content].concat());
            RtpPacket::parse(&bytes).unwrap().extension_element(id).map(<[u8]>::to_vec)
        };
        let one = [0x10, 7, 0x21, 8, 9, 0, 0x10, 10];
        assert_eq!(find([0xBE, 0xDE], &one, 1), Some([7].to_vec()), "the first of two");
        assert_eq!(find([0xBE, 0xDE], &one, 2), Some([8, 9].to_vec()));
        for id in [0, 3, 15, 255] {
            assert_eq!(find([0xBE, 0xDE], &one, id), None, "{id}");
        }
        assert_eq!(find([0xBE, 0xDE], &[0x1F, 0, 0, 0], 1), None, "runs over the end");
        assert_eq!(find([0xBE, 0xDE], &[0xF0, 0, 0x10, 1], 1), None, "behind the stop");
        assert_eq!(find([0x10, 0x0F], &[15, 0, 200, 1, 9, 0, 0, 0], 200), Some([9].to_vec()));
        assert_eq!(find([0x10, 0], &[200, 255, 1, 1], 200), None, "runs over the end");
        assert_eq!(find([0xAB, 0xCD], &one, 1), None, "a profile of another kind");
    }

    #[test]
    fn levels_that_lie_are_told_for_the_sources_there_are() {
        // Two sources, five levels; then one level for two sources; then levels for nobody.
        let bytes = packet(0x92, &[0, 0, 0, 1, 0, 0, 0, 2, 0xBE, 0xDE, 0, 2, 0x34, 0xFF, 2, 3, 4, 5, 0, 0]);
        let parsed = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(mixer_levels(&parsed, 3).collect::<Vec<_>>(), [(Ssrc(1), 127), (Ssrc(2), 2)]);
        assert_eq!(mixer_levels(&parsed, 4).count(), 0);
        let bytes = packet(0x92, &[0, 0, 0, 1, 0, 0, 0, 2, 0xBE, 0xDE, 0, 1, 0x30, 9, 0, 0]);
        assert_eq!(mixer_levels(&RtpPacket::parse(&bytes).unwrap(), 3).collect::<Vec<_>>(), [(Ssrc(1), 9)]);
        let bytes = packet(0x90, &[0xBE, 0xDE, 0, 1, 0x30, 9, 0, 0]);
        assert_eq!(mixer_levels(&RtpPacket::parse(&bytes).unwrap(), 3).count(), 0);
    }

    fn header() -> impl Strategy<Value = RtpHeader> {
        (any::<bool>(), 0_u8..128, any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
            |(marker, payload_type, sequence_number, timestamp, ssrc)| RtpHeader {
                marker,
                payload_type,
                sequence_number: SeqNumber(sequence_number),
                timestamp: RtpTimestamp(timestamp),
                ssrc: Ssrc(ssrc),
            },
        )
    }

    proptest! {
        #[test]
        fn parse_reads_what_emit_wrote(header in header(), payload: Vec<u8>) {
            let mut bytes = [0xFF; RTP_HEADER_BYTES].to_vec();
            prop_assert_eq!(header.emit(bytes.first_chunk_mut().unwrap()), RTP_HEADER_BYTES);
            bytes.extend_from_slice(&payload);
            let parsed = RtpPacket::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.header(), header);
            prop_assert_eq!(parsed.payload(), payload);
            prop_assert_eq!(parsed.header_len(), RTP_HEADER_BYTES);
        }

        #[test]
        fn parse_reads_what_emit_with_wrote(
            header in header(),
            csrcs in prop::collection::vec(any::<u32>(), 0..18),
            levels in prop::option::of((any::<u8>(), prop::collection::vec(any::<u8>(), 0..18))),
            payload: Vec<u8>,
            room in 0..2 * RTP_HEADER_BYTES_MAX,
        ) {
            let mut bytes = std::vec![0xFF; room];
            let levels = levels.as_ref().map(|(id, levels)| (*id, &levels[..]));
            let Some(len) = header.emit_with(&mut bytes, &csrcs, levels) else {
                prop_assert!(room < RTP_HEADER_BYTES_MAX);
                return Ok(());
            };
            prop_assert!(len <= RTP_HEADER_BYTES_MAX && bytes[len..].iter().all(|byte| *byte == 0xFF));
            bytes.truncate(len);
            bytes.extend_from_slice(&payload);
            let parsed = RtpPacket::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.header(), header);
            prop_assert_eq!((parsed.header_len(), parsed.payload()), (len, &payload[..]));
            let named = &csrcs[..csrcs.len().min(CSRCS_MAX)];
            prop_assert_eq!(parsed.csrcs().map(|csrc| csrc.0).collect::<Vec<_>>(), named);
            let sent = levels.filter(|(id, _)| *id != 0 && !csrcs.is_empty());
            prop_assert_eq!(parsed.extension().is_some(), sent.is_some());
            if let Some((id, levels)) = sent {
                let expected: Vec<_> = (0..named.len())
                    .map(|at| (Ssrc(named[at]), levels.get(at).map_or(MIXER_LEVEL_SILENCE, |level| level & 0x7F)))
                    .collect();
                prop_assert_eq!(mixer_levels(&parsed, id).collect::<Vec<_>>(), expected);
                prop_assert_eq!(parsed.extension_elements().count(), 1);
            }
        }

        #[test]
        fn a_rewritten_packet_differs_in_three_fields(bytes: Vec<u8>, first in 0x80_u8..0xC0, to in header()) {
            let mut bytes = packet(first, &bytes);
            let before = bytes.clone();
            if let Ok(old) = RtpPacket::parse(&before) {
                rewrite_header(&mut bytes, to.ssrc, to.sequence_number, to.timestamp);
                let new = RtpPacket::parse(&bytes).unwrap();
                let expected = RtpHeader { marker: old.marker(), payload_type: old.payload_type(), ..to };
                prop_assert_eq!(new.header(), expected);
                prop_assert_eq!(&bytes[RTP_HEADER_BYTES..], &before[RTP_HEADER_BYTES..]);
            }
        }

        #[test]
        fn any_bytes_parse_within_their_bounds_or_fail(bytes: Vec<u8>, first in 0x80_u8..0xC0) {
            let framed = packet(first, &bytes);
            for datagram in [&bytes, &framed] {
                if let Ok(parsed) = RtpPacket::parse(datagram) {
                    let extension = parsed.extension().map_or(0, |(_, content)| 4 + content.len());
                    prop_assert_eq!(parsed.header_len(), RTP_HEADER_BYTES + 4 * parsed.csrcs().len() + extension);
                    prop_assert!(parsed.header_len() + parsed.payload().len() <= datagram.len());
                    let walked: usize = parsed.extension_elements().map(|element| 1 + element.data.len()).sum();
                    prop_assert!(walked <= extension);
                    for id in 0..=255 {
                        let found = parsed.extension_element(id);
                        prop_assert!(found.is_none_or(|data| data.len() < extension));
                        let levels = mixer_levels(&parsed, id).count();
                        prop_assert_eq!(levels, found.map_or(0, <[u8]>::len).min(parsed.csrcs().len()));
                    }
                }
            }
        }
    }
}
