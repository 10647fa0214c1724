//! DTMF digits as named events in RTP (RFC 4733 s.2.3).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     event     |E|R|  volume   |          duration             |
//! ```

use core::fmt;

/// Length of one event block in bytes.
pub const TELEPHONE_EVENT_BYTES: usize = 4;

/// One event as one packet reports it (RFC 4733 s.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TelephoneEvent {
    /// The event code; `0 ..= 15` are DTMF, see [`digit`].
    pub event: u8,
    /// The event is over. Sent three times.
    pub end: bool,
    /// Power of the tone, `0 ..= 63`, in dBm0 with the sign dropped; only the low six bits are sent.
    pub volume: u8,
    /// How long the event lasts so far, in timestamp units from the packet's RTP timestamp.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Reads the first event block of `payload`. The reserved bit is ignored.
    ///
    /// # Errors
    ///
    /// [`PayloadTooShort`] if `payload` holds no whole block.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadTooShort> {
        payload.first_chunk().map(Self::from_block).ok_or(PayloadTooShort)
    }

    /// Reads all event blocks of `payload`: contiguous events may share a packet (RFC 4733 s.2.5.1.5). Bytes after the
    /// last whole block are ignored.
    pub fn parse_all(payload: &[u8]) -> impl ExactSizeIterator<Item = Self> {
        payload.as_chunks().0.iter().map(Self::from_block)
    }

    /// Writes the block and returns its length, [`TELEPHONE_EVENT_BYTES`].
    pub fn emit(&self, out: &mut [u8; TELEPHONE_EVENT_BYTES]) -> usize {
        let [d0, d1] = self.duration.to_be_bytes();
        let end = if self.end { END_BIT } else { 0 };
        *out = [self.event, end | self.volume & VOLUME_MASK, d0, d1];
        TELEPHONE_EVENT_BYTES
    }

    fn from_block(&[event, flags, d0, d1]: &[u8; TELEPHONE_EVENT_BYTES]) -> Self {
        Self { event, end: flags & END_BIT != 0, volume: flags & VOLUME_MASK, duration: u16::from_be_bytes([d0, d1]) }
    }
}

/// The payload is shorter than one event block of [`TELEPHONE_EVENT_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PayloadTooShort;

impl fmt::Display for PayloadTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payload is shorter than one telephone event")
    }
}

impl core::error::Error for PayloadTooShort {}

/// The key a DTMF event stands for, in ASCII: `0` to `9`, `*`, `#`, `A` to `D` (RFC 4733 s.3.2, table 3).
#[must_use]
pub fn digit(event: u8) -> Option<u8> {
    DIGITS.get(usize::from(event)).copied()
}

/// The event of a DTMF key in ASCII, letters in either case; the reverse of [`digit`].
#[must_use]
pub fn event_of_digit(digit: u8) -> Option<u8> {
    (0..).zip(DIGITS).find_map(|(event, key)| (*key == digit.to_ascii_uppercase()).then_some(event))
}

const END_BIT: u8 = 0x80;
const VOLUME_MASK: u8 = 0x3F;
const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_bytes_parse() {
        let event = TelephoneEvent::parse(&[11, 0x8A, 0x03, 0x20]).unwrap();
        assert_eq!(event, TelephoneEvent { event: 11, end: true, volume: 10, duration: 800 });
    }

    #[test]
    fn reserved_bit_is_ignored_and_sent_clear() {
        let event = TelephoneEvent::parse(&[1, 0x40, 0, 0]).unwrap();
        assert_eq!(event, TelephoneEvent { event: 1, end: false, volume: 0, duration: 0 });
        let mut out = [0xFF; TELEPHONE_EVENT_BYTES];
        event.emit(&mut out);
        assert_eq!(out, [1, 0, 0, 0]);
    }

    #[test]
    fn short_payloads_are_refused_and_packed_events_all_read() {
        for len in 0..TELEPHONE_EVENT_BYTES {
            assert_eq!(TelephoneEvent::parse(&[0; 3][..len]), Err(PayloadTooShort));
        }
        let packed = [1, 0x80, 0, 80, 2, 0x0A, 0, 160, 3];
        let events: std::vec::Vec<_> = TelephoneEvent::parse_all(&packed).map(|block| block.event).collect();
        assert_eq!(events, [1, 2]);
    }

    #[test]
    fn digits_and_events_name_each_other() {
        for event in 0..=255 {
            match digit(event) {
                Some(key) => {
                    assert!(event < 16);
                    assert_eq!(event_of_digit(key), Some(event));
                    assert_eq!(event_of_digit(key.to_ascii_lowercase()), Some(event));
                }
                None => assert!(event >= 16),
            }
        }
        assert_eq!((digit(0), digit(10), digit(11), digit(15)), (Some(b'0'), Some(b'*'), Some(b'#'), Some(b'D')));
        assert_eq!(event_of_digit(b'E'), None);
        assert_eq!(event_of_digit(0), None);
    }

    proptest! {
        #[test]
        fn parse_reads_what_emit_wrote(event: u8, end: bool, volume in 0_u8..64, duration: u16) {
            let event = TelephoneEvent { event, end, volume, duration };
            let mut out = [0xFF; TELEPHONE_EVENT_BYTES];
            prop_assert_eq!(event.emit(&mut out), TELEPHONE_EVENT_BYTES);
            prop_assert_eq!(TelephoneEvent::parse(&out), Ok(event));
        }
    }
}
