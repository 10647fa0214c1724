//! Audio levels in header extension elements: client to mixer (RFC 6464), one byte, and mixer to client (RFC 6465), one
//! byte for each contributing source.

use core::fmt;

use crate::rtp::RtpPacket;
use crate::seq::Ssrc;

/// `urn:ietf:params:rtp-hdrext:ssrc-audio-level`, the name SDP `extmap` gives the element.
pub const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// `urn:ietf:params:rtp-hdrext:csrc-audio-level`, the name SDP `extmap` gives the element with the levels of the
/// contributing sources.
pub const MIXER_LEVELS_URI: &str = "urn:ietf:params:rtp-hdrext:csrc-audio-level";

/// The level of a contributing source that is silent, or below what the scale tells.
pub const MIXER_LEVEL_SILENCE: u8 = 127;

/// How loud each contributing source of `packet` is in -dBov, `0 ..= 127` (RFC 6465 s.3), as far as the element `id`
/// tells: what it holds beyond the CSRC list belongs to nobody and is left out.
pub fn mixer_levels<'a>(packet: &RtpPacket<'a>, id: u8) -> impl Iterator<Item = (Ssrc, u8)> + use<'a> {
    let levels = packet.extension_element(id).unwrap_or_default();
    packet.csrcs().zip(levels).map(|(source, level)| (source, level & LEVEL_MASK))
}

/// How loud the audio of the packet is (RFC 6464 s.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// The sender believes that this is speech. Meaningless unless `vad=on` was negotiated.
    pub voice: bool,
    /// The level in dBov with the sign dropped: 0 is overload, 127 silence; only the low seven bits are sent.
    pub level: u8,
}

impl AudioLevel {
    /// Reads the element from its data. Bytes after the first are ignored.
    ///
    /// # Errors
    ///
    /// [`ElementEmpty`] if there is no first byte, which only the two-byte form can express.
    pub fn parse(data: &[u8]) -> Result<Self, ElementEmpty> {
        let byte = data.first().ok_or(ElementEmpty)?;
        Ok(Self { voice: byte & VOICE_BIT != 0, level: byte & LEVEL_MASK })
    }

    /// The element's one byte of data.
    #[must_use]
    pub const fn emit(&self) -> u8 {
        (if self.voice { VOICE_BIT } else { 0 }) | self.level & LEVEL_MASK
    }
}

/// The element carries no data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ElementEmpty;

impl fmt::Display for ElementEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("audio level element carries no data")
    }
}

impl core::error::Error for ElementEmpty {}

const VOICE_BIT: u8 = 0x80;
const LEVEL_MASK: u8 = 0x7F;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_a_round_trip() {
        for byte in 0..=255 {
            let level = AudioLevel::parse(&[byte]).unwrap();
            assert_eq!(level, AudioLevel { voice: byte >= 128, level: byte % 128 });
            assert_eq!(level.emit(), byte);
        }
    }

    #[test]
    fn empty_data_is_refused_and_padding_ignored() {
        assert_eq!(AudioLevel::parse(&[]), Err(ElementEmpty));
        assert_eq!(AudioLevel::parse(&[0x85, 0]), Ok(AudioLevel { voice: true, level: 5 }));
    }
}
