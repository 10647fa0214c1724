//! Seeded numbers for SSRCs and first sequence numbers.
//!
//! Not for secrets: RFC 3550 section 8.1 asks for SSRCs that are unlikely to collide, and the seed comes from the
//! shard's start (the operating system's randomness in production, a fixed number in tests).

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed is good.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}
