//! Writes RTCP packets of our own.

use core::fmt;

use super::{
    BLOCK_BYTES, BYE, CNAME, COUNT_MASK, END_OF_ITEMS, HEADER_BYTES, RECEIVER_REPORT, ReportBlock, SENDER_INFO_BYTES,
    SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo, VERSION,
};
use crate::seq::Ssrc;
use crate::xr::{EXTENDED_REPORT, XrContents};

/// Writes packets one behind the other into the caller's memory. A packet that fails to be written leaves what stands
/// before it untouched.
///
/// ```
/// use ringbridge_wire::{Ssrc, rtcp};
///
/// let mut datagram = [0; 64];
/// let mut writer = rtcp::CompoundWriter::new(&mut datagram);
/// writer.receiver_report(Ssrc(7), &[])?;
/// writer.cname(Ssrc(7), b"7@example.net")?;
/// writer.bye(&[Ssrc(7)])?;
/// let len = writer.len();
/// assert_eq!(rtcp::parse_compound(&datagram[..len])?.count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CompoundWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> CompoundWriter<'a> {
    /// A writer that starts at the first byte of `out`.
    pub const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Appends a sender report of `ssrc`: 28 bytes and 24 for each block.
    ///
    /// # Errors
    ///
    /// No room, or more than [`REPORT_BLOCKS_MAX`](super::REPORT_BLOCKS_MAX) blocks.
    pub fn sender_report(
        &mut self,
        ssrc: Ssrc,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Result<(), RtcpWriteError> {
        let body_len = 4 + SENDER_INFO_BYTES + BLOCK_BYTES * blocks.len();
        let ntp = info.ntp.0.to_be_bytes();
        let body = self.append(SENDER_REPORT, blocks.len(), body_len)?;
        let body = put(body, &ssrc.0.to_be_bytes());
        let body = put(body, &ntp);
        let body = put_words(body, &[info.rtp_timestamp.0, info.packet_count, info.octet_count]);
        put_blocks(body, blocks);
        Ok(())
    }

    /// Appends a receiver report of `ssrc`: 8 bytes and 24 for each block.
    ///
    /// # Errors
    ///
    /// No room, or more than [`REPORT_BLOCKS_MAX`](super::REPORT_BLOCKS_MAX) blocks.
    pub fn receiver_report(&mut self, ssrc: Ssrc, blocks: &[ReportBlock]) -> Result<(), RtcpWriteError> {
        let body = self.append(RECEIVER_REPORT, blocks.len(), 4 + BLOCK_BYTES * blocks.len())?;
        let body = put(body, &ssrc.0.to_be_bytes());
        put_blocks(body, blocks);
        Ok(())
    }

    /// Appends a source description that gives `ssrc` its canonical name.
    ///
    /// # Errors
    ///
    /// No room, or a name longer than [`CNAME_BYTES_MAX`](super::CNAME_BYTES_MAX).
    pub fn cname(&mut self, ssrc: Ssrc, name: &[u8]) -> Result<(), RtcpWriteError> {
        let name_len = u8::try_from(name.len()).map_err(|_| RtcpWriteError::CnameTooLong)?;
        let body = self.append(SOURCE_DESCRIPTION, 1, 4 + (2 + name.len()) / 4 * 4 + 4)?;
        let body = put(body, &ssrc.0.to_be_bytes());
        let body = put(body, &[CNAME, name_len]);
        put(body, name).fill(END_OF_ITEMS);
        Ok(())
    }

    /// Appends a BYE of `sources` without a reason.
    ///
    /// # Errors
    ///
    /// No room, or more than 31 sources.
    pub fn bye(&mut self, sources: &[Ssrc]) -> Result<(), RtcpWriteError> {
        let mut body = self.append(BYE, sources.len(), 4 * sources.len())?;
        for source in sources {
            body = put(body, &source.0.to_be_bytes());
        }
        Ok(())
    }

    /// Appends an extended report of `ssrc`: 8 bytes and the blocks.
    ///
    /// # Errors
    ///
    /// No room, or more delays than the length of a packet can tell.
    pub fn extended_report(&mut self, ssrc: Ssrc, contents: &XrContents<'_>) -> Result<(), RtcpWriteError> {
        let body = self.append(EXTENDED_REPORT, 0, 4 + contents.len())?;
        contents.emit(put(body, &ssrc.0.to_be_bytes()));
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Nothing was written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the header of a packet with `body_len` bytes of body, a multiple of 4, and returns the body.
    fn append(&mut self, packet_type: u8, count: usize, body_len: usize) -> Result<&mut [u8], RtcpWriteError> {
        let count = u8::try_from(count).ok().filter(|count| *count <= COUNT_MASK).ok_or(RtcpWriteError::TooMany)?;
        // With at most 31 blocks or 255 bytes of text the length in words is far below 2¹⁶; extended reports may be longer.
        let words = u16::try_from(body_len / 4).map_err(|_| RtcpWriteError::TooMany)?;
        let end = self.len + HEADER_BYTES + body_len;
        let packet = self.out.get_mut(self.len..end).ok_or(RtcpWriteError::NoRoom)?;
        self.len = end;
        let [w0, w1] = words.to_be_bytes();
        Ok(put(packet, &[VERSION << 6 | count, packet_type, w0, w1]))
    }
}

/// Why a packet could not be written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RtcpWriteError {
    /// The caller's memory is too short.
    NoRoom,
    /// More report blocks or sources than the five-bit count can tell, or delays than the length can.
    TooMany,
    /// The canonical name is longer than [`CNAME_BYTES_MAX`](super::CNAME_BYTES_MAX).
    CnameTooLong,
}

impl fmt::Display for RtcpWriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no room for the RTCP packet",
            Self::TooMany => "more report blocks, sources or delays than a packet holds",
            Self::CnameTooLong => "canonical name is longer than 255 bytes",
        })
    }
}

impl core::error::Error for RtcpWriteError {}

/// Copies `bytes` to the start of `out`, which is long enough by construction, and returns what follows them.
pub(crate) fn put<'a>(out: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (start, rest) = out.split_at_mut(bytes.len());
    start.copy_from_slice(bytes);
    rest
}

fn put_words<'a>(out: &'a mut [u8], words: &[u32]) -> &'a mut [u8] {
    words.iter().fold(out, |out, word| put(out, &word.to_be_bytes()))
}

fn put_blocks(out: &mut [u8], blocks: &[ReportBlock]) {
    blocks.iter().fold(out, |out, block| put_words(out, &block.words()));
}
