//! The test packet: an RTP packet of 20 ms of G.711 whose payload says where it comes from and proves it is whole.
//!
//! ```text
//! offset  bytes  content
//!      0     12  RTP header (RFC 3550 s.5.1), payload type 0 (PCMU, RFC 3551)
//!     12      4  "RBL1"
//!     16      4  run
//!     20      4  stream
//!     24      8  number of the packet in its stream, from 0
//!     32      8  send time, nanoseconds of CLOCK_REALTIME
//!     40    124  filler
//!    164      8  checksum of bytes 12 to 163
//! ```
//! All numbers are big-endian. A relay must not change a bit of it.

/// Size of a packet in bytes: RTP header and 160 samples.
pub const PACKET_BYTES: usize = HEADER_BYTES + SAMPLES;
/// Size of the RTP header in bytes.
pub const HEADER_BYTES: usize = 12;
/// Samples in a packet: 20 ms at 8 kHz, one byte each.
pub const SAMPLES: usize = 160;

const MAGIC: [u8; 4] = *b"RBL1";
const CHECKSUM_AT: usize = PACKET_BYTES - 8;
/// One packet in this many carries the marker bit, so that a lost or invented marker shows.
const MARKER_EVERY: u64 = 50;

/// The RTP side of a stream, from which each packet's header follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpStream {
    /// Synchronization source.
    pub ssrc: u32,
    /// Sequence number of packet 0.
    pub first_sequence: u16,
    /// Timestamp of packet 0.
    pub first_timestamp: u32,
}

impl RtpStream {
    /// The stream numbered `stream` of run `run`: starting points differ and some of them wrap early on purpose.
    #[must_use]
    pub fn numbered(run: u32, stream: u32) -> Self {
        let seed = mix(u64::from(run) << 32 | u64::from(stream));
        let [a, b, c, d, e, f, g, h] = seed.to_be_bytes();
        Self {
            ssrc: u32::from_be_bytes([a, b, c, d]),
            // The upper byte near the top makes sequence numbers wrap within the first few hundred packets.
            first_sequence: u16::from_be_bytes([0xFE | (e & 1), f]),
            first_timestamp: u32::from_be_bytes([0xFF, g, h, e]),
        }
    }

    /// The RTP header of packet `number`.
    #[must_use]
    pub fn header(&self, number: u64) -> [u8; HEADER_BYTES] {
        let marker = number.is_multiple_of(MARKER_EVERY);
        self.header_with(number, marker)
    }

    /// The RTP header of packet `number` with the given marker bit.
    #[must_use]
    pub fn header_with(&self, number: u64, marker: bool) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0] = 0x80;
        header[1] = u8::from(marker) << 7;
        header[2..4].copy_from_slice(&self.sequence(number).to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp(number).to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        header
    }

    /// Sequence number of packet `number`.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
    #[must_use]
    pub fn sequence(&self, number: u64) -> u16 {
        self.first_sequence.wrapping_add(number as u16)
    }

    /// Timestamp of packet `number`.
    #[expect(clippy::cast_possible_truncation, reason = "timestamps wrap")]
    #[must_use]
    pub fn timestamp(&self, number: u64) -> u32 {
        self.first_timestamp.wrapping_add((number as u32).wrapping_mul(SAMPLES as u32))
    }
}

/// What the payload of a whole packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contents {
    /// Run it belongs to.
    pub run: u32,
    /// Stream it belongs to.
    pub stream: u32,
    /// Its number in the stream.
    pub number: u64,
    /// Send time, nanoseconds of `CLOCK_REALTIME`.
    pub sent_ns: u64,
}

/// Writes packet `contents` of `rtp` into `packet`, which is [`PACKET_BYTES`] long.
pub fn emit(rtp: &RtpStream, contents: &Contents, packet: &mut [u8; PACKET_BYTES]) {
    packet[..12].copy_from_slice(&rtp.header(contents.number));
    packet[12..16].copy_from_slice(&MAGIC);
    packet[16..20].copy_from_slice(&contents.run.to_be_bytes());
    packet[20..24].copy_from_slice(&contents.stream.to_be_bytes());
    packet[24..32].copy_from_slice(&contents.number.to_be_bytes());
    packet[32..40].copy_from_slice(&contents.sent_ns.to_be_bytes());
    // The filler differs from stream to stream, so that mixed-up halves of packets are found.
    let filler = 0x55 ^ packet[23];
    packet[40..CHECKSUM_AT].fill(filler);
    let sum = checksum(&packet[HEADER_BYTES..CHECKSUM_AT]);
    packet[CHECKSUM_AT..].copy_from_slice(&sum.to_be_bytes());
}

/// Reads the payload of a packet.
///
/// `None` if it is not [`PACKET_BYTES`] long, not one of ours, or any bit of the payload has changed.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<Contents> {
    let packet: &[u8; PACKET_BYTES] = datagram.try_into().ok()?;
    if packet[12..16] != MAGIC || long(packet, CHECKSUM_AT) != checksum(&packet[HEADER_BYTES..CHECKSUM_AT]) {
        return None;
    }
    Some(Contents {
        run: short(packet, 16),
        stream: short(packet, 20),
        number: long(packet, 24),
        sent_ns: long(packet, 32),
    })
}

/// The 32-bit number at `at`, which is a constant inside the packet.
fn short(packet: &[u8; PACKET_BYTES], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"))
}

/// The 64-bit number at `at`, which is a constant inside the packet.
fn long(packet: &[u8; PACKET_BYTES], at: usize) -> u64 {
    u64::from_be_bytes(packet[at..at + 8].try_into().expect("eight bytes"))
}

/// 64-bit sum in which each bit of each word counts. `bytes` is a multiple of eight long.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0x9E37_79B9_7F4A_7C15, |sum, word| {
        let word = u64::from_be_bytes(word.try_into().expect("eight bytes"));
        (sum ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
    })
}

/// Spreads a small number over 64 bits (the finalizer of SplitMix64).
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const _: () = assert!((CHECKSUM_AT - HEADER_BYTES).is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ([u8; PACKET_BYTES], Contents) {
        let contents = Contents { run: 7, stream: 3, number: 70_000, sent_ns: 1_234_567_890 };
        let mut packet = [0; PACKET_BYTES];
        emit(&RtpStream::numbered(7, 3), &contents, &mut packet);
        (packet, contents)
    }

    #[test]
    fn what_is_emitted_is_parsed() {
        let (packet, contents) = sample();
        assert_eq!(parse(&packet), Some(contents));
    }

    #[test]
    fn every_changed_payload_bit_is_found() {
        let (packet, _) = sample();
        for bit in HEADER_BYTES * 8..PACKET_BYTES * 8 {
            let mut broken = packet;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&broken), None, "bit {bit}");
        }
    }

    #[test]
    fn other_lengths_are_not_ours() {
        let (packet, _) = sample();
        assert_eq!(parse(&packet[..PACKET_BYTES - 1]), None);
        assert_eq!(parse(&[&packet[..], &[0]].concat()), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn headers_count_up_and_wrap() {
        let rtp = RtpStream { ssrc: 0xDEAD_BEEF, first_sequence: 0xFFFF, first_timestamp: u32::MAX - 159 };
        assert_eq!(rtp.header(0), [0x80, 0x80, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x60, 0xDE, 0xAD, 0xBE, 0xEF]);
        assert_eq!(rtp.header(1), [0x80, 0x00, 0, 0, 0, 0, 0, 0, 0xDE, 0xAD, 0xBE, 0xEF]);
    }
}
