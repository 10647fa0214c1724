//! Which protocol a datagram on a media port belongs to, told by its first bytes.

/// What a datagram claims to be. Its own parser still has to agree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// An RTP data packet.
    Rtp,
    /// An RTCP packet, compound or reduced-size.
    Rtcp,
    /// A STUN message.
    Stun,
    /// A DTLS record.
    Dtls,
    /// None of these: ZRTP, a TURN channel, or noise.
    Other,
    /// No bytes at all. Some endpoints send such datagrams to keep a NAT binding open.
    Empty,
}

/// Tells what `datagram` claims to be: the first byte by RFC 7983 s.7, RTP from RTCP by the second (RFC 5761 s.4). On a
/// port that does not carry RTCP, payload types 64 to 95 with the marker set are still taken for RTCP, as RFC 5761 asks
/// senders to avoid them.
#[must_use]
pub const fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [] => Kind::Empty,
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, ..] => Kind::Rtp,
        [..] => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_decides_as_in_rfc_7983() {
        let kinds = [
            (0..=3, Kind::Stun),
            (4..=19, Kind::Other),
            (20..=63, Kind::Dtls),
            (64..=127, Kind::Other),
            (128..=191, Kind::Rtp),
            (192..=255, Kind::Other),
        ];
        for (range, kind) in kinds {
            for first in range {
                assert_eq!(classify(&[first]), kind, "first byte {first}");
                assert_eq!(classify(&[first, 0, 0, 0]), kind, "first byte {first}");
            }
        }
        assert_eq!(classify(&[]), Kind::Empty);
    }

    #[test]
    fn second_byte_tells_rtcp_from_rtp_as_in_rfc_5761() {
        for second in 0..=255 {
            let kind = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            assert_eq!(classify(&[0x80, second]), kind, "second byte {second}");
        }
    }
}
