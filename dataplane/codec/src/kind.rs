//! The codecs that can be negotiated, and the rates that audio is handled at.

use core::fmt;

/// Samples per second of audio that is decoded, mixed, or about to be encoded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Rate {
    /// 8 kHz: telephone band.
    #[default]
    Narrow,
    /// 16 kHz: wideband.
    Wide,
    /// 48 kHz: fullband.
    Full,
}

impl Rate {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::Narrow, Self::Wide, Self::Full];

    /// In Hz.
    pub const fn hz(self) -> u32 {
        match self {
            Self::Narrow => 8_000,
            Self::Wide => 16_000,
            Self::Full => 48_000,
        }
    }

    /// Samples of 10 ms.
    pub const fn frame_samples(self) -> usize {
        match self {
            Self::Narrow => 80,
            Self::Wide => 160,
            Self::Full => 480,
        }
    }

    /// The rate of so many Hz, if it is one of them.
    pub const fn from_hz(hz: u32) -> Option<Self> {
        match hz {
            8_000 => Some(Self::Narrow),
            16_000 => Some(Self::Wide),
            48_000 => Some(Self::Full),
            _ => None,
        }
    }
}

/// Samples of 10 ms at the highest rate.
pub const FRAME_SAMPLES_MAX: usize = Rate::Full.frame_samples();

/// A codec that can be negotiated. One channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CodecKind {
    /// G.711 µ-law, 8 kHz (RFC 3551 section 4.5.14).
    #[default]
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// G.722 at 64 kbit/s: 16 kHz, although its RTP clock runs at 8 kHz (RFC 3551 section 4.5.2).
    G722,
    /// Uncompressed samples in network byte order (RFC 3551 section 4.5.11).
    L16(Rate),
    /// GSM full rate, 8 kHz, frames of 20 ms (RFC 3551 section 4.5.8).
    Gsm,
    /// G.723.1 (RFC 3551 section 4.5.3): passed on between equal connections, never decoded.
    G723,
    /// G.729 (RFC 3551 section 4.5.6): decoded only if a library for it was loaded, else passed on as G.723.1 is.
    G729,
    /// Opus (RFC 6716, RFC 7587): decoded and encoded at 48 kHz.
    Opus,
}

impl CodecKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Pcmu,
        Self::Pcma,
        Self::L16(Rate::Narrow),
        Self::L16(Rate::Wide),
        Self::L16(Rate::Full),
        Self::G722,
        Self::Gsm,
        Self::G723,
        Self::G729,
        Self::Opus,
    ];

    /// Whether its payload can be decoded from any sample on, with nothing remembered.
    pub const fn is_stateless(self) -> bool {
        matches!(self, Self::Pcmu | Self::Pcma | Self::L16(_))
    }

    /// What it decodes to, and is encoded from.
    pub const fn rate(self) -> Rate {
        match self {
            Self::Pcmu | Self::Pcma | Self::Gsm | Self::G723 | Self::G729 => Rate::Narrow,
            Self::G722 => Rate::Wide,
            Self::L16(rate) => rate,
            Self::Opus => Rate::Full,
        }
    }

    /// Rate of its RTP timestamps in Hz.
    pub const fn clock_rate_hz(self) -> u32 {
        match self {
            Self::G722 => 8_000,
            Self::Pcmu | Self::Pcma | Self::L16(_) | Self::Gsm | Self::G723 | Self::G729 | Self::Opus => {
                self.rate().hz()
            }
        }
    }

    /// Its static payload type (RFC 3551 section 6), if it has one.
    pub const fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Gsm => Some(3),
            Self::G723 => Some(4),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::G729 => Some(18),
            Self::L16(_) | Self::Opus => None,
        }
    }

    /// The payload type it has unless another is negotiated: the static one, or a dynamic one of our choice.
    pub const fn payload_type(self) -> u8 {
        match (self.static_payload_type(), self) {
            (Some(number), _) => number,
            (None, Self::L16(Rate::Narrow)) => 112,
            (None, Self::L16(Rate::Wide)) => 113,
            (None, Self::L16(Rate::Full)) => 114,
            (None, _) => 111,
        }
    }

    /// Its name in SDP.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::L16(_) => "L16",
            Self::Gsm => "GSM",
            Self::G723 => "G723",
            Self::G729 => "G729",
            Self::Opus => "opus",
        }
    }

    /// Whether packets of so many milliseconds can be encoded: whole frames of the codec, and a payload that fits a
    /// packet.
    pub const fn can_encode_ms(self, ptime_ms: u32) -> bool {
        match self {
            Self::Opus => matches!(ptime_ms, 10 | 20 | 40 | 60),
            Self::Gsm => matches!(ptime_ms, 20 | 40 | 60),
            Self::L16(rate) => {
                matches!(ptime_ms, 10 | 20 | 30 | 40 | 50 | 60) && rate.hz() / 1000 * ptime_ms * 2 <= PAYLOAD_BYTES_MAX
            }
            Self::Pcmu | Self::Pcma | Self::G722 | Self::G729 => matches!(ptime_ms, 10 | 20 | 30 | 40 | 50 | 60),
            Self::G723 => false,
        }
    }
}

impl fmt::Display for CodecKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::L16(rate) = self { write!(f, "L16/{}", rate.hz()) } else { f.write_str(self.name()) }
    }
}

/// Largest payload that is encoded: what leaves room for headers in an Ethernet frame.
pub const PAYLOAD_BYTES_MAX: u32 = 1440;
/// Longest audio that one payload may hold, in milliseconds (Opus: RFC 7587 section 3).
pub const PAYLOAD_MS_MAX: u32 = 120;
/// Samples of that at the highest rate.
pub const PAYLOAD_SAMPLES_MAX: usize = (Rate::Full.hz() / 1000 * PAYLOAD_MS_MAX) as usize;
