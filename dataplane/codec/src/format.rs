//! What a payload type number means when nothing was negotiated for it: the static audio types of RFC 3551 s.6, table 4.

/// The meaning of a payload type, as SDP's `rtpmap` states it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PayloadFormat {
    /// Encoding name in the letters of its registration. Names compare without regard to case (RFC 4855 s.3).
    pub name: &'static str,
    /// Units of the RTP timestamp per second, in Hz. For G722 this is 8000 although it samples at 16 000 (RFC 3551
    /// s.4.5.2).
    pub clock_rate: u32,
    /// Channels; 1 for MPA, which tells them in the stream itself.
    pub channels: u8,
}

impl PayloadFormat {
    /// The format of a static payload type; `None` if the number has to be negotiated.
    #[must_use]
    pub fn of_static(payload_type: u8) -> Option<&'static Self> {
        STATIC.iter().find_map(|(number, format)| (*number == payload_type).then_some(format))
    }

    /// The static payload type of a format; `None` if it has none.
    #[must_use]
    pub fn static_payload_type(name: &str, clock_rate: u32, channels: u8) -> Option<u8> {
        STATIC.iter().find_map(|(number, format)| format.is(name, clock_rate, channels).then_some(*number))
    }

    /// The format has this name (in any case), clock rate and number of channels.
    #[must_use]
    pub fn is(&self, name: &str, clock_rate: u32, channels: u8) -> bool {
        self.name.eq_ignore_ascii_case(name) && self.clock_rate == clock_rate && self.channels == channels
    }
}

/// Shorthand for a row of the table.
const fn format(name: &'static str, clock_rate: u32, channels: u8) -> PayloadFormat {
    PayloadFormat { name, clock_rate, channels }
}

/// RFC 3551 table 4 without the reserved and unassigned numbers.
const STATIC: &[(u8, PayloadFormat)] = &[
    (0, format("PCMU", 8_000, 1)),
    (3, format("GSM", 8_000, 1)),
    (4, format("G723", 8_000, 1)),
    (5, format("DVI4", 8_000, 1)),
    (6, format("DVI4", 16_000, 1)),
    (7, format("LPC", 8_000, 1)),
    (8, format("PCMA", 8_000, 1)),
    (9, format("G722", 8_000, 1)),
    (10, format("L16", 44_100, 2)),
    (11, format("L16", 44_100, 1)),
    (12, format("QCELP", 8_000, 1)),
    (13, format("CN", 8_000, 1)),
    (14, format("MPA", 90_000, 1)),
    (15, format("G728", 8_000, 1)),
    (16, format("DVI4", 11_025, 1)),
    (17, format("DVI4", 22_050, 1)),
    (18, format("G729", 8_000, 1)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_format_find_each_other() {
        let mut found = 0;
        for payload_type in 0..=u8::MAX {
            if let Some(format) = PayloadFormat::of_static(payload_type) {
                let back = PayloadFormat::static_payload_type(format.name, format.clock_rate, format.channels);
                assert_eq!(back, Some(payload_type));
                found += 1;
            }
        }
        assert_eq!(found, STATIC.len());
    }

    #[test]
    fn names_compare_without_case_but_rate_and_channels_count() {
        assert_eq!(PayloadFormat::static_payload_type("pcma", 8_000, 1), Some(8));
        assert_eq!(PayloadFormat::static_payload_type("PCMA", 16_000, 1), None);
        assert_eq!(PayloadFormat::static_payload_type("PCMA", 8_000, 2), None);
        assert_eq!(PayloadFormat::static_payload_type("L16", 44_100, 2), Some(10));
        assert_eq!(PayloadFormat::of_static(0).map(|format| format.name), Some("PCMU"));
        assert_eq!(PayloadFormat::of_static(1), None);
        assert_eq!(PayloadFormat::of_static(96), None);
    }
}
