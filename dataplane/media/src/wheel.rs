//! One wheel holds every deadline of a shard.
//!
//! Millisecond lists, hashed by deadline, over one table of entries; what was armed when it was due already waits in a
//! list of its own. Cancelling is lazy: whoever armed a deadline remembers which one counts and ignores the others when
//! they fire. The table grows to the most deadlines that ever waited and stays, so nothing is allocated once warm.

use core::time::Duration;

use crate::time::Instant;

const BUCKETS: usize = 1024;
const WORDS: usize = BUCKETS / 64;
/// The list of what was armed late, behind those of the buckets.
const OVERDUE: usize = BUCKETS;
const NANOS_PER_MS: u64 = 1_000_000;
/// No entry.
const NONE: u32 = u32::MAX;

/// A deadline wheel over keys of type `K`.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    entries: Vec<Entry<K>>,
    /// First of the entries that are not in use.
    free: u32,
    lists: Vec<List>,
    occupied: [u64; WORDS],
    /// First millisecond that has not been looked at.
    cursor_ms: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    due_ms: u64,
    key: K,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };

    const fn is_empty(self) -> bool {
        self.first == NONE
    }
}

impl<K: Copy> Wheel<K> {
    /// A wheel with room for `deadlines`; more make it grow.
    pub(crate) fn new(now: Instant, deadlines: usize) -> Self {
        Self {
            entries: Vec::with_capacity(deadlines),
            free: NONE,
            lists: vec![List::EMPTY; BUCKETS + 1],
            occupied: [0; WORDS],
            cursor_ms: now.as_nanos() / NANOS_PER_MS,
            len: 0,
        }
    }

    /// Fires `key` at `due`, rounded up to a whole millisecond.
    pub(crate) fn arm(&mut self, due: Instant, key: K) {
        let due_ms = due.as_nanos().div_ceil(NANOS_PER_MS);
        let entry = self.claim(Entry { due_ms, key, next: NONE });
        if due_ms < self.cursor_ms {
            // It fires at the next look, and as the deadline it was, so that whoever armed it knows it again.
            self.append(OVERDUE, entry);
            return;
        }
        let bucket = bucket_of(due_ms);
        self.append(bucket, entry);
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.len += 1;
    }

    /// Moves everything due by `now` to `fired`, what was overdue first, then the earliest. What is armed while the
    /// fired keys are handled waits for the next call, so one call is bounded.
    pub(crate) fn expire(&mut self, now: Instant, fired: &mut Vec<(Instant, K)>) {
        let now_ms = now.as_nanos() / NANOS_PER_MS;
        self.fire(OVERDUE, u64::MAX, fired);
        let Some(span) = (now_ms + 1).checked_sub(self.cursor_ms) else { return };
        for step in 0..span.min(BUCKETS as u64) {
            // After a long sleep each bucket is looked at once, and all rounds that have passed come out of it.
            let bucket = bucket_of(self.cursor_ms + step);
            if self.occupied[bucket / 64] & (1 << (bucket % 64)) == 0 {
                continue;
            }
            let before = fired.len();
            self.fire(bucket, now_ms, fired);
            self.len -= fired.len() - before;
            if self.lists[bucket].is_empty() {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        }
        self.cursor_ms = now_ms + 1;
        if span > BUCKETS as u64 {
            fired.sort_unstable_by_key(|&(due, _)| due);
        }
    }

    /// When to call [`expire`](Self::expire) next. May be early by whole rounds of the wheel, never late; not later than
    /// the last look if something was armed that was due by then.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if !self.lists[OVERDUE].is_empty() {
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

    /// Moves what is due by `now_ms` from a list to `fired`; the rest stays in order.
    fn fire(&mut self, list: usize, now_ms: u64, fired: &mut Vec<(Instant, K)>) {
        let mut at = core::mem::replace(&mut self.lists[list], List::EMPTY).first;
        while at != NONE {
            let Entry { due_ms, key, next } = self.entries[at as usize];
            if due_ms <= now_ms {
                fired.push((Instant::from_millis(due_ms), key));
                self.entries[at as usize].next = self.free;
                self.free = at;
            } else {
                self.append(list, at);
            }
            at = next;
        }
    }

    fn append(&mut self, list: usize, entry: u32) {
        self.entries[entry as usize].next = NONE;
        let List { first, last } = &mut self.lists[list];
        if *first == NONE {
            *first = entry;
        } else {
            self.entries[*last as usize].next = entry;
        }
        *last = entry;
    }

    fn claim(&mut self, entry: Entry<K>) -> u32 {
        if self.free == NONE {
            self.entries.push(entry);
            return u32::try_from(self.entries.len() - 1).expect("memory ends long before 2^32 deadlines");
        }
        let index = self.free;
        self.free = core::mem::replace(&mut self.entries[index as usize], entry).next;
        index
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
        let mut wheel = Wheel::new(Instant::from_millis(5_000), 4);
        for (due, key) in [(5_010, 1), (5_003, 2), (9_000, 3), (5_003, 4), (100, 5)] {
            wheel.arm(Instant::from_millis(due), key);
        }
        assert_eq!(wheel.next_due(), Some(Instant::from_millis(4_999)));
        assert_eq!(fire(&mut wheel, 5_002), [(100, 5)], "late, but it says when it was due");
        assert_eq!(wheel.next_due(), Some(Instant::from_millis(5_003)));
        assert_eq!(fire(&mut wheel, 5_010), [(5_003, 2), (5_003, 4), (5_010, 1)]);
        assert!(wheel.next_due().is_some_and(|due| due <= Instant::from_millis(9_000)));
        assert_eq!(fire(&mut wheel, 8_999), []);
        assert_eq!(fire(&mut wheel, 9_000), [(9_000, 3)]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn what_is_armed_late_fires_at_the_next_look_as_what_it_was() {
        let mut wheel = Wheel::new(Instant::ZERO, 4);
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
        let mut wheel = Wheel::new(Instant::ZERO, 4);
        for key in 0..50u32 {
            wheel.arm(Instant::from_millis(u64::from(key) * 97 + 1), key);
        }
        let fired = fire(&mut wheel, 1_000_000);
        assert_eq!(fired.iter().map(|&(_, key)| key).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_table_is_as_large_as_what_waits_at_once() {
        let mut wheel = Wheel::new(Instant::ZERO, 4);
        for ms in 0..10_000u64 {
            for key in 0..3 {
                wheel.arm(Instant::from_millis(ms + 10 + 700 * u64::from(key)), key);
            }
            fire(&mut wheel, ms);
        }
        assert!(wheel.entries.len() < 3 * 720 + 10, "{}", wheel.entries.len());
        assert_eq!(fire(&mut wheel, 20_000).len(), wheel.entries.len() - 3);
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_rounded_up() {
        let mut wheel = Wheel::new(Instant::ZERO, 4);
        wheel.arm(Instant::from_nanos(10_000_001), 1);
        assert_eq!(fire(&mut wheel, 10), []);
        assert_eq!(fire(&mut wheel, 11), [(11, 1)]);
    }
}
