//! One wheel holds every deadline of a shard.
//!
//! Millisecond buckets, hashed by deadline. Cancelling is lazy: whoever armed a deadline remembers which one counts
//! and ignores the others when they fire. Buckets keep their capacity, so nothing is allocated once warm.

use core::time::Duration;

use crate::time::Instant;

const BUCKETS: usize = 1024;
const WORDS: usize = BUCKETS / 64;
const NANOS_PER_MS: u64 = 1_000_000;

/// A deadline wheel over keys of type `K`.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    buckets: Vec<Vec<(u64, K)>>,
    /// Armed when they were due already.
    overdue: Vec<(u64, K)>,
    occupied: [u64; WORDS],
    /// First millisecond that has not been looked at.
    cursor_ms: u64,
    len: usize,
}

impl<K: Copy> Wheel<K> {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Vec::with_capacity(4)).collect(),
            overdue: Vec::with_capacity(64),
            occupied: [0; WORDS],
            cursor_ms: now.as_nanos() / NANOS_PER_MS,
            len: 0,
        }
    }

    /// Fires `key` at `due`, rounded up to a whole millisecond.
    pub(crate) fn arm(&mut self, due: Instant, key: K) {
        let due_ms = due.as_nanos().div_ceil(NANOS_PER_MS);
        if due_ms < self.cursor_ms {
            // It fires at the next look, and as the deadline it was, so that whoever armed it knows it again.
            self.overdue.push((due_ms, key));
            return;
        }
        let bucket = bucket_of(due_ms);
        self.buckets[bucket].push((due_ms, key));
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.len += 1;
    }

    /// Moves everything due by `now` to `fired`, earliest first. What is armed while the fired keys are handled waits
    /// for the next call, so one call is bounded.
    pub(crate) fn expire(&mut self, now: Instant, fired: &mut Vec<(Instant, K)>) {
        fired.extend(self.overdue.drain(..).map(|(due_ms, key)| (Instant::from_millis(due_ms), key)));
        let now_ms = now.as_nanos() / NANOS_PER_MS;
        let Some(span) = (now_ms + 1).checked_sub(self.cursor_ms) else { return };
        for step in 0..span.min(BUCKETS as u64) {
            // After a long sleep each bucket is looked at once, and all rounds that have passed come out of it.
            let bucket = bucket_of(self.cursor_ms + step);
            if self.occupied[bucket / 64] & (1 << (bucket % 64)) == 0 {
                continue;
            }
            let entries = &mut self.buckets[bucket];
            let before = fired.len();
            entries.retain(|&(due_ms, key)| {
                if due_ms <= now_ms {
                    fired.push((Instant::from_millis(due_ms), key));
                }
                due_ms > now_ms
            });
            self.len -= fired.len() - before;
            if entries.is_empty() {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        }
        self.cursor_ms = now_ms + 1;
        if span > BUCKETS as u64 {
            fired.sort_by_key(|&(due, _)| due);
        }
    }

    /// When to call [`expire`](Self::expire) next. May be early by whole rounds of the wheel, never late; not later than
    /// the last look if something was armed that was due by then.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if !self.overdue.is_empty() {
            return Some(Instant::from_millis(self.cursor_ms - 1));
        }
        if self.len == 0 {
            return None;
        }
        let start = bucket_of(self.cursor_ms);
        let (first_word, first_bit) = (start / 64, start % 64);
        // Once around, and the first word twice: its high bits first, its low bits last.
        for step in 0..=WORDS {
            let word = (first_word + step) % WORDS;
            let mask = match step {
                0 => !0u64 << first_bit,
                WORDS => !(!0u64 << first_bit),
                _ => !0,
            };
            let bits = self.occupied[word] & mask;
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let distance = (bucket + BUCKETS - start) % BUCKETS;
                return Some(Instant::ZERO + Duration::from_millis(self.cursor_ms + distance as u64));
            }
        }
        None
    }
}

const fn bucket_of(ms: u64) -> usize {
    (ms % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(wheel: &mut Wheel<u32>, now_ms: u64) -> Vec<(u64, u32)> {
        let mut fired = Vec::new();
        wheel.expire(Instant::from_millis(now_ms), &mut fired);
        fired.into_iter().map(|(due, key)| (due.as_nanos() / NANOS_PER_MS, key)).collect()
    }

    #[test]
    fn fires_in_order_and_never_early() {
        let mut wheel = Wheel::new(Instant::from_millis(5_000));
        for (due, key) in [(5_010, 1), (5_003, 2), (9_000, 3), (5_003, 4), (100, 5)] {
            wheel.arm(Instant::from_millis(due), key);
        }
        assert_eq!(wheel.next_due(), Some(Instant::from_millis(4_999)));
        assert_eq!(fire(&mut wheel, 5_002), [(100, 5)]);
        assert_eq!(wheel.next_due(), Some(Instant::from_millis(5_003)));
        assert_eq!(fire(&mut wheel, 5_010), [(5_003, 2), (5_003, 4), (5_010, 1)]);
        assert!(wheel.next_due().is_some_and(|due| due <= Instant::from_millis(9_000)));
        assert_eq!(fire(&mut wheel, 8_999), []);
        assert_eq!(fire(&mut wheel, 9_000), [(9_000, 3)]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn what_is_armed_late_fires_at_the_next_look_as_what_it_was() {
        let mut wheel = Wheel::new(Instant::ZERO);
        assert_eq!(fire(&mut wheel, 100), []);
        wheel.arm(Instant::from_millis(100), 1);
        wheel.arm(Instant::from_millis(60), 2);
        wheel.arm(Instant::from_millis(100 + BUCKETS as u64), 3);
        assert_eq!(wheel.next_due(), Some(Instant::from_millis(100)));
        assert_eq!(fire(&mut wheel, 100), [(100, 1), (60, 2)]);
        assert!(wheel.next_due().is_some_and(|due| due > Instant::from_millis(100)));
    }

    #[test]
    fn a_long_sleep_delivers_every_round_in_order() {
        let mut wheel = Wheel::new(Instant::ZERO);
        for key in 0..50u32 {
            wheel.arm(Instant::from_millis(u64::from(key) * 97 + 1), key);
        }
        let fired = fire(&mut wheel, 1_000_000);
        assert_eq!(fired.iter().map(|&(_, key)| key).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_rounded_up() {
        let mut wheel = Wheel::new(Instant::ZERO);
        wheel.arm(Instant::from_nanos(10_000_001), 1);
        assert_eq!(fire(&mut wheel, 10), []);
        assert_eq!(fire(&mut wheel, 11), [(11, 1)]);
    }
}
