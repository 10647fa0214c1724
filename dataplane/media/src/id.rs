//! Names of the things a shard owns.
//!
//! An id carries its home shard, a slot in that shard's table and a generation. Routing therefore needs no table,
//! and an id whose generation has passed is refused in constant time. The control plane allocates ids; the engine
//! only checks them. An id keeps its value when a connection moves to another shard.

use core::fmt;

/// Number of a shard, `0 ..= 254`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u8);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Some shards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    /// Puts a shard in.
    pub const fn insert(&mut self, shard: ShardId) {
        self.0[shard.0 as usize / 64] |= 1 << (shard.0 % 64);
    }

    /// Whether a shard is in it.
    pub const fn contains(self, shard: ShardId) -> bool {
        self.0[shard.0 as usize / 64] & (1 << (shard.0 % 64)) != 0
    }

    /// The shards, in order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..=u8::MAX).map(ShardId).filter(move |&shard| self.contains(shard))
    }

    /// How many.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<T: IntoIterator<Item = ShardId>>(shards: T) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        ///
        /// Text form (opaque to clients): the prefix, then shard, slot and generation in hexadecimal.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// What the text form starts with; tells one kind of id from another.
            pub const PREFIX: &'static str = $prefix;

            /// Builds an id. `slot` is below 2^24.
            ///
            /// # Panics
            /// If `slot` needs more than 24 bits.
            pub const fn new(shard: ShardId, slot: u32, generation: u32) -> Self {
                assert!(slot < 1 << 24, "slot needs more than 24 bits");
                Self(((shard.0 as u64) << 56) | ((slot as u64) << 32) | generation as u64)
            }

            /// The shard that issued the id. Unless the thing has moved it lives there.
            pub const fn shard(self) -> ShardId {
                ShardId((self.0 >> 56) as u8)
            }

            /// Index in the home shard's table.
            pub const fn slot(self) -> usize {
                ((self.0 >> 32) & 0xff_ffff) as usize
            }

            /// The same index as [`Port`](crate::port::Port) has it.
            pub const fn slot_number(self) -> u32 {
                ((self.0 >> 32) & 0xff_ffff) as u32
            }

            /// How often the slot had been used before.
            pub const fn generation(self) -> u32 {
                (self.0 & 0xffff_ffff) as u32
            }

            /// The whole id as one number, for queues and traces.
            pub const fn to_bits(self) -> u64 {
                self.0
            }

            /// The id that [`Self::to_bits`] gave.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// Reads the text form; `None` if it is not one of this kind.
            pub fn parse(text: &str) -> Option<Self> {
                let mut parts = text.strip_prefix($prefix)?.strip_prefix('-')?.split('-');
                let shard = u8::from_str_radix(parts.next()?, 16).ok()?;
                let slot = u32::from_str_radix(parts.next()?, 16).ok().filter(|slot| *slot < 1 << 24)?;
                let generation = u32::from_str_radix(parts.next()?, 16).ok()?;
                let id = Self::new(ShardId(shard), slot, generation);
                // One id has one text: a second spelling (upper case, leading zeros, a sign) is refused.
                (parts.next().is_none() && id.to_string() == text).then_some(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}-{:x}-{:x}-{:x}", $prefix, self.shard().0, self.slot(), self.generation())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id_type!(
    /// Names a connection: one RTP session with one endpoint.
    ConnectionId,
    "conn"
);
id_type!(
    /// Names a conference: a mix of any number of connections.
    ConferenceId,
    "conf"
);
id_type!(
    /// Names a media operation: play, record, …
    OperationId,
    "op"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_parts_round_trip() {
        let id = ConnectionId::new(ShardId(3), 0xabc, 77);
        assert_eq!((id.shard(), id.slot(), id.generation()), (ShardId(3), 0xabc, 77));
        assert_eq!(id.to_string(), "conn-3-abc-4d");
        assert_eq!(ConnectionId::parse("conn-3-abc-4d"), Some(id));
        assert_eq!(ConnectionId::from_bits(id.to_bits()), id);
    }

    #[test]
    fn other_kinds_and_other_spellings_are_refused() {
        for text in [
            "conf-3-abc-4d",
            "conn-3-abc",
            "conn-3-abc-4d-1",
            "conn-03-abc-4d",
            "conn-3-ABC-4d",
            "conn-+3-a-1",
            "conn-3-1000000-1",
            "",
        ] {
            assert_eq!(ConnectionId::parse(text), None, "{text:?}");
        }
    }
}
