//! One wheel holds every deadline of a shard.
//!
//! Millisecond lists, hashed by deadline, over one table with a place for each key; what was armed when it was due already
//! waits in a list of its own. A key has one deadline: who arms it again gives up the former. What is not wanted any more
//! stays until it is due or its key is armed for somebody else, and whoever armed it ignores it. So the table never grows,
//! however many come and go, and nothing is allocated.

use core::time::Duration;

use crate::time::Instant;

const BUCKETS: usize = 1024;
const WORDS: usize = BUCKETS / 64;
/// The list of what was armed late, behind those of the buckets.
const OVERDUE: u16 = 1024;
/// The list of what is not armed.
const IDLE: u16 = u16::MAX;
const NANOS_PER_MS: u64 = 1_000_000;
/// No entry.
const NONE: u32 = u32::MAX;
const _: () = assert!(OVERDUE as usize == BUCKETS);

/// Whose deadline it is.
pub(crate) trait Key: Copy {
    /// Its place in the table, which is nobody else's.
    fn place(self) -> u32;
    /// Whose place it is.
    fn at(place: u32) -> Self;
}

/// A deadline wheel over keys of type `K`.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    /// One for each place.
    entries: Vec<Entry>,
    lists: Vec<List>,
    occupied: [u64; WORDS],
    /// First millisecond that has not been looked at.
    cursor_ms: u64,
    /// Entries in buckets.
    len: usize,
    keys: core::marker::PhantomData<K>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due_ms: u64,
    prev: u32,
    next: u32,
    /// Which list it is in.
    list: u16,
}

impl Entry {
    const IDLE: Self = Self { due_ms: 0, prev: NONE, next: NONE, list: IDLE };
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

impl<K: Key> Wheel<K> {
    /// A wheel for keys with so many places.
    pub(crate) fn new(now: Instant, places: usize) -> Self {
        Self {
            entries: vec![Entry::IDLE; places],
            lists: vec![List::EMPTY; BUCKETS + 1],
            occupied: [0; WORDS],
            cursor_ms: now.as_nanos() / NANOS_PER_MS,
            len: 0,
            keys: core::marker::PhantomData,
        }
    }

    /// Fires `key` at `due`, rounded up to a whole millisecond, and not when it was to fire before.
    pub(crate) fn arm(&mut self, due: Instant, key: K) {
        let place = key.place();
        let Some(entry) = self.entries.get(place as usize).copied() else {
            debug_assert!(false, "every key has a place");
            return;
        };
        if entry.list != IDLE {
            self.take_out(place);
        }
        let due_ms = due.as_nanos().div_ceil(NANOS_PER_MS);
        self.entries[place as usize].due_ms = due_ms;
        // What is due already fires at the next look, and as the deadline it was, so that whoever armed it knows it again.
        let list = if due_ms < self.cursor_ms { OVERDUE } else { bucket_of(due_ms) };
        self.append(list, place);
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
            if self.occupied[usize::from(bucket / 64)] & (1 << (bucket % 64)) != 0 {
                self.fire(bucket, now_ms, fired);
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
        if !self.lists[usize::from(OVERDUE)].is_empty() {
            return Some(Instant::from_millis(self.cursor_ms - 1));
        }
        if self.len == 0 {
            return None;
        }
        let start = usize::from(bucket_of(self.cursor_ms));
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

    /// How many deadlines wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.entries.iter().filter(|entry| entry.list != IDLE).count()
    }

    /// Moves what is due by `now_ms` from a list to `fired`; the rest stays in order.
    fn fire(&mut self, list: u16, now_ms: u64, fired: &mut Vec<(Instant, K)>) {
        let mut at = self.lists[usize::from(list)].first;
        while at != NONE {
            let Entry { due_ms, next, .. } = self.entries[at as usize];
            if due_ms <= now_ms {
                fired.push((Instant::from_millis(due_ms), K::at(at)));
                self.take_out(at);
            }
            at = next;
        }
    }

    fn append(&mut self, list: u16, place: u32) {
        let List { first, last } = &mut self.lists[usize::from(list)];
        let before = core::mem::replace(last, place);
        if *first == NONE {
            *first = place;
        } else {
            self.entries[before as usize].next = place;
        }
        let entry = &mut self.entries[place as usize];
        (entry.prev, entry.next, entry.list) = (before, NONE, list);
        if list != OVERDUE {
            self.occupied[usize::from(list / 64)] |= 1 << (list % 64);
            self.len += 1;
        }
    }

    fn take_out(&mut self, place: u32) {
        let Entry { due_ms, prev, next, list } = self.entries[place as usize];
        self.entries[place as usize] = Entry { due_ms, ..Entry::IDLE };
        let of = &mut self.lists[usize::from(list)];
        if prev == NONE {
            of.first = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next == NONE {
            of.last = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
        if list != OVERDUE {
            self.len -= 1;
            if of.is_empty() {
                self.occupied[usize::from(list / 64)] &= !(1 << (list % 64));
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below the number of buckets")]
const fn bucket_of(ms: u64) -> u16 {
    (ms % BUCKETS as u64) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, ConnectionSpec, Request};
    use crate::engine::Engine;
    use crate::id::{ConnectionId, ShardId};

    impl Key for u32 {
        fn place(self) -> u32 {
            self
        }

        fn at(place: u32) -> Self {
            place
        }
    }

    fn fire(wheel: &mut Wheel<u32>, now_ms: u64) -> Vec<(u64, u32)> {
        let mut fired = Vec::new();
        wheel.expire(Instant::from_millis(now_ms), &mut fired);
        fired.into_iter().map(|(due, key)| (due.as_nanos() / NANOS_PER_MS, key)).collect()
    }

    #[test]
    fn fires_in_order_and_never_early() {
        let mut wheel = Wheel::new(Instant::from_millis(5_000), 8);
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
        let mut wheel = Wheel::new(Instant::ZERO, 64);
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
        let mut wheel = Wheel::new(Instant::ZERO, 64);
        for key in 0..50u32 {
            wheel.arm(Instant::from_millis(u64::from(key) * 97 + 1), key);
        }
        let fired = fire(&mut wheel, 1_000_000);
        assert_eq!(fired.iter().map(|&(_, key)| key).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_key_fires_when_it_was_armed_for_last() {
        let mut wheel = Wheel::new(Instant::ZERO, 8);
        // One alone in its bucket, and the first, the middle and the last of three.
        for key in [1, 2, 3] {
            wheel.arm(Instant::from_millis(50), key);
        }
        wheel.arm(Instant::from_millis(40), 4);
        wheel.arm(Instant::from_millis(70), 4);
        for (key, due) in [(2, 20), (1, 60), (3, 10), (3, 1_050)] {
            wheel.arm(Instant::from_millis(due), key);
        }
        assert_eq!((wheel.len, wheel.waiting()), (4, 4));
        assert_eq!(fire(&mut wheel, 1_000), [(20, 2), (60, 1), (70, 4)]);
        // Overdue, and not any more.
        wheel.arm(Instant::from_millis(500), 1);
        wheel.arm(Instant::from_millis(500), 2);
        wheel.arm(Instant::from_millis(1_040), 1);
        assert_eq!(fire(&mut wheel, 1_100), [(500, 2), (1_040, 1), (1_050, 3)]);
        assert_eq!((wheel.next_due(), wheel.len, wheel.waiting()), (None, 0, 0));
        assert!(wheel.lists.iter().all(|list| list.is_empty()) && wheel.occupied == [0; WORDS]);
    }

    #[test]
    fn it_does_as_a_list_does() {
        let (mut wheel, mut list) = (Wheel::new(Instant::ZERO, 64), [None; 64]);
        let mut random = 7u64;
        let mut now = 0;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, ahead) = ((random >> 33) as u32 % 64, (random >> 40) % 3_000);
            let due = (now + ahead).saturating_sub(50);
            wheel.arm(Instant::from_millis(due), key);
            list[key as usize] = Some(due);
            let looked = now;
            now += if random >> 60 == 0 { (random >> 50) % 2_500 } else { (random >> 50) % 7 };
            assert!(wheel.next_due().is_some_and(|next| {
                let first = list.iter().flatten().min().unwrap();
                next <= Instant::from_millis(looked.max(*first))
            }));
            let mut expected = Vec::new();
            for (place, due) in (0..).zip(&mut list) {
                if let Some(ms) = due.take_if(|due| *due <= now) {
                    expected.push((ms, place));
                }
            }
            let mut fired = fire(&mut wheel, now);
            fired.sort_unstable();
            expected.sort_unstable();
            assert_eq!(fired, expected);
        }
    }

    #[test]
    fn a_million_short_calls_leave_no_more_deadlines_than_there_are_places() {
        let start = Instant::from_millis(1_000);
        let mut engine = Engine::with_slots(ShardId(1), 1, start, 4, 2);
        let places = engine.wheel.entries.len();
        let spec = ConnectionSpec { rtp_timeout_ms: Some(86_400_000), ..ConnectionSpec::default() };
        let reserved = ConnectionSpec { reserve_ms: Some(3_600_000), ..spec };
        for call in 0..1_000_000u32 {
            // Ten a millisecond.
            let now = start + Duration::from_micros(u64::from(call) * 100);
            let id = ConnectionId::new(ShardId(1), call % 4, call / 4 % 200 + 1);
            let spec = Box::new(if call % 3 == 0 { reserved } else { spec });
            for command in [Command::CreateConnection { id, spec }, Command::DeleteConnection { id }] {
                engine.handle_command(now, Request { token: 1, received: now, command });
                while engine.poll_event().is_some() {}
                while engine.poll_port_action().is_some() {}
            }
        }
        assert_eq!(engine.totals().connections, 0);
        assert!((4..=8).contains(&engine.wheel.waiting()), "{}", engine.wheel.waiting());
        assert_eq!((engine.wheel.entries.len(), engine.wheel.entries.capacity()), (places, places));
        engine.handle_timeout(start + Duration::from_secs(200_000));
        assert_eq!((engine.wheel.waiting(), engine.poll_timeout()), (0, None));
        assert!(engine.poll_event().is_none(), "nobody is there any more");
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_rounded_up() {
        let mut wheel = Wheel::new(Instant::ZERO, 64);
        wheel.arm(Instant::from_nanos(10_000_001), 1);
        assert_eq!(fire(&mut wheel, 10), []);
        assert_eq!(fire(&mut wheel, 11), [(11, 1)]);
    }
}
