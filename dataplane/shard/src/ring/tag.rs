//! The 64 bits that name an operation to the kernel and come back with each of its completions.
//!
//! ```text
//!  63    56 55                    32 31                             0
//! +--------+------------------------+--------------------------------+
//! |  kind  |  generation of a port  |  port, or number of the send   |
//! +--------+------------------------+--------------------------------+
//! ```

/// What an operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A multishot receive of one port.
    Receive(Shape),
    /// One datagram leaving; the number counts within one submission.
    Send,
    /// A cancellation; completes only if there was nothing to cancel.
    Cancel,
    /// The read of the doorbell.
    Doorbell,
}

/// What a multishot receive gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Header, source address, payload (`RECVMSG`).
    Sourced,
    /// The payload alone (`RECV`), on a connected socket.
    Plain,
}

/// Name of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(u64);

impl Tag {
    /// The receive of `port` in its `generation` (24 bits count).
    pub(super) const fn receive(shape: Shape, port: u32, generation: u32) -> Self {
        let kind = match shape {
            Shape::Sourced => SOURCED,
            Shape::Plain => PLAIN,
        };
        Self((kind << 56) | ((generation as u64 & GENERATION_MASK) << 32) | port as u64)
    }

    /// Send number `index` of a submission.
    pub(super) const fn send(index: u32) -> Self {
        Self((SEND << 56) | index as u64)
    }

    /// Any cancellation.
    pub(super) const CANCEL: Self = Self(CANCEL << 56);
    /// The read of the doorbell.
    pub(super) const DOORBELL: Self = Self(DOORBELL << 56);

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// What it names; `None` if we never made it.
    pub(super) const fn kind(self) -> Option<Kind> {
        match self.0 >> 56 {
            SOURCED => Some(Kind::Receive(Shape::Sourced)),
            PLAIN => Some(Kind::Receive(Shape::Plain)),
            SEND => Some(Kind::Send),
            CANCEL => Some(Kind::Cancel),
            DOORBELL => Some(Kind::Doorbell),
            _ => None,
        }
    }

    /// Which port, or which send.
    pub(super) const fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    /// Whether it was made for `generation` of its port.
    pub(super) const fn is_of(self, generation: u32) -> bool {
        (self.0 >> 32) & GENERATION_MASK == generation as u64 & GENERATION_MASK
    }
}

const SOURCED: u64 = 1;
const PLAIN: u64 = 2;
const SEND: u64 = 3;
const CANCEL: u64 = 4;
const DOORBELL: u64 = 5;
const GENERATION_MASK: u64 = 0xff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip() {
        for shape in [Shape::Sourced, Shape::Plain] {
            let tag = Tag::from_bits(Tag::receive(shape, u32::MAX, 0x0123_4567).to_bits());
            assert_eq!(tag.kind(), Some(Kind::Receive(shape)));
            assert_eq!(tag.index(), u32::MAX as usize);
            assert!(tag.is_of(0x0123_4567));
            assert!(!tag.is_of(0x0123_4568));
        }
        assert_eq!((Tag::send(1023).kind(), Tag::send(1023).index()), (Some(Kind::Send), 1023));
        assert_eq!(Tag::CANCEL.kind(), Some(Kind::Cancel));
        assert_eq!(Tag::DOORBELL.kind(), Some(Kind::Doorbell));
        assert_eq!(Tag::from_bits(0).kind(), None);
        assert_eq!(Tag::from_bits(u64::MAX).kind(), None);
    }
}
