//! Numbers that wrap: sequence numbers and media timestamps, and the identifier of the source that counts them.

/// A sequence number as it stands in an RTP header (RFC 3550 s.5.1). It wraps at 2¹⁶, so it has no total order: compare
/// two with [`distance_from`](Self::distance_from).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct SeqNumber(pub u16);

impl SeqNumber {
    /// The number `packets` further on.
    #[must_use]
    pub const fn wrapping_add(self, packets: u16) -> Self {
        Self(self.0.wrapping_add(packets))
    }

    /// The number of the packet that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        self.wrapping_add(1)
    }

    /// How many packets `self` lies after `other`, negative if it lies before. The shorter way round counts; at exactly
    /// half the range the answer is `i16::MIN` both ways.
    #[must_use]
    pub const fn distance_from(self, other: Self) -> i16 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// `self` was sent after `other`. Two numbers half the range apart are neither newer than the other.
    #[must_use]
    pub const fn is_newer_than(self, other: Self) -> bool {
        self.distance_from(other) > 0
    }
}

/// A sequence number with the wraps before it: `65 536 × cycles + number` (RFC 3550 A.1), so it is ordered and does not
/// wrap in the life of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ExtendedSeq(pub u64);

impl ExtendedSeq {
    /// `number` in cycle 0: the start of a stream.
    #[must_use]
    pub const fn first(number: SeqNumber) -> Self {
        Self(number.0 as u64)
    }

    /// The extended number closest to `self` whose low 16 bits are `number`; `None` if it lies before cycle 0, which is
    /// a packet from before the stream's start.
    #[must_use]
    pub const fn nearest(self, number: SeqNumber) -> Option<Self> {
        match self.0.checked_add_signed(number.distance_from(self.number()) as i64) {
            Some(extended) => Some(Self(extended)),
            None => None,
        }
    }

    /// The number as it stands in the packet.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are the number on the wire")]
    pub const fn number(self) -> SeqNumber {
        SeqNumber(self.0 as u16)
    }

    /// The 32 bits a report block carries (RFC 3550 s.6.4.1).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a report block holds the low 32 bits")]
    pub const fn report_field(self) -> u32 {
        self.0 as u32
    }
}

/// A time on the media clock, in samples of the payload's clock rate from a random start (RFC 3550 s.5.1). It wraps at
/// 2³².
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct RtpTimestamp(pub u32);

impl RtpTimestamp {
    /// The time `units` of the clock rate later.
    #[must_use]
    pub const fn wrapping_add(self, units: u32) -> Self {
        Self(self.0.wrapping_add(units))
    }

    /// How far `self` lies after `other` in units of the clock rate, negative if before. The shorter way round counts;
    /// at exactly half the range the answer is `i32::MIN` both ways.
    #[must_use]
    pub const fn distance_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }
}

/// Synchronization source (or, in a CSRC list, contributing source): who counts the sequence numbers (RFC 3550 s.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ssrc(pub u32);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequence_numbers_wrap_in_both_directions() {
        assert_eq!(SeqNumber(0xFFFF).next(), SeqNumber(0));
        assert_eq!(SeqNumber(2).distance_from(SeqNumber(0xFFFE)), 4);
        assert_eq!(SeqNumber(0xFFFE).distance_from(SeqNumber(2)), -4);
        assert!(SeqNumber(0).is_newer_than(SeqNumber(0xFFFF)));
        assert!(!SeqNumber(7).is_newer_than(SeqNumber(7)));
    }

    #[test]
    fn half_the_range_is_newer_neither_way() {
        assert!(!SeqNumber(0x8000).is_newer_than(SeqNumber(0)));
        assert!(!SeqNumber(0).is_newer_than(SeqNumber(0x8000)));
        assert!(SeqNumber(0x7FFF).is_newer_than(SeqNumber(0)));
    }

    #[test]
    fn extended_numbers_follow_a_wrap_and_look_back_over_it() {
        let before = ExtendedSeq::first(SeqNumber(0xFFFF));
        let after = before.nearest(SeqNumber(1)).unwrap();
        assert_eq!(after, ExtendedSeq(0x1_0001));
        assert_eq!(after.nearest(SeqNumber(0xFFFE)), Some(ExtendedSeq(0xFFFE)));
        assert_eq!(ExtendedSeq::first(SeqNumber(1)).nearest(SeqNumber(0xFFFE)), None);
        assert_eq!(ExtendedSeq(0x1_2345_6789).report_field(), 0x2345_6789);
    }

    proptest! {
        #[test]
        fn distance_undoes_addition(start: u16, step: u16, time: u32, units: u32) {
            let distance = SeqNumber(start).wrapping_add(step).distance_from(SeqNumber(start));
            prop_assert_eq!(distance.cast_unsigned(), step);
            let distance = RtpTimestamp(time).wrapping_add(units).distance_from(RtpTimestamp(time));
            prop_assert_eq!(distance.cast_unsigned(), units);
        }

        #[test]
        fn nearest_keeps_the_number_and_stays_within_half_the_range(reference in 0x1_0000_u64..u64::MAX / 2, number: u16) {
            let found = ExtendedSeq(reference).nearest(SeqNumber(number)).unwrap();
            prop_assert_eq!(found.number(), SeqNumber(number));
            prop_assert!(found.0.abs_diff(reference) <= 0x8000);
        }
    }
}
