//! The packets of one stream, as they came, in a ring by sequence number.
//!
//! What was played stays until its slot is needed: it is what concealment looks back at. The ring begins with four slots
//! as long as the payloads are, and doubles for bursts; both only ever move packets upwards in place, so that memory that
//! was once needed is all that is ever allocated.

use ringbridge_codec::prefetch;
use ringbridge_wire::seq::SeqNumber;

/// Slots of a stream without bursts.
pub(super) const SLOTS_MIN: u16 = 4;
/// Slots of the largest burst.
pub(super) const SLOTS_MAX: u16 = 512;
/// Packets whose numbers are further apart than this don't belong together.
pub(super) const FAR: i16 = 508;
/// Bytes that are kept for the next stream.
const BYTES_KEPT: usize = 8192;
/// Payloads are given room in steps of this.
const STRIDE_STEP: u16 = 32;
/// Of a payload, a frame uses no more.
const PREFETCH_BYTES: usize = 192;

const _: () = assert!((FAR as u16) <= SLOTS_MAX - SLOTS_MIN);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    #[default]
    Empty,
    Audio,
    /// Comfort noise (RFC 3389): no samples, but what the silence behind it sounds like.
    Noise,
    /// Of another payload type, such as a telephone-event: its number is not missing.
    Other,
}

/// What is known of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Slot {
    /// Of the first sample, in units of the RTP timestamp.
    pub(super) position: i64,
    pub(super) sequence: SeqNumber,
    /// How long it lasts, in the same units.
    pub(super) ticks: u16,
    /// Bytes of its payload.
    pub(super) len: u16,
    pub(super) kind: Kind,
}

impl Slot {
    /// Position after the last sample.
    pub(super) const fn end(&self) -> i64 {
        self.position + self.ticks as i64
    }
}

#[derive(Debug)]
pub(super) struct Store {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    /// Slots in use, less one.
    mask: u16,
    stride: u16,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default(); usize::from(SLOTS_MIN)], bytes: Vec::new(), mask: SLOTS_MIN - 1, stride: 0 }
    }

    /// Forgets all packets. The ring is small again, the memory is kept.
    pub(super) fn clear(&mut self) {
        self.slots.truncate(usize::from(SLOTS_MIN));
        self.slots.fill(Slot::default());
        self.mask = SLOTS_MIN - 1;
        self.stride = 0;
    }

    /// As [`Self::clear`], and gives back what a burst took.
    pub(super) fn release(&mut self) {
        self.clear();
        if self.bytes.capacity() > BYTES_KEPT {
            self.bytes = Vec::new();
            self.slots.shrink_to_fit();
        }
    }

    /// How many packets in a row it has room for now.
    pub(super) const fn slots(&self) -> u16 {
        self.mask + 1
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.bytes.capacity()
    }

    pub(super) fn get(&self, sequence: SeqNumber) -> Option<&Slot> {
        let slot = self.slots.get(self.index(sequence))?;
        (slot.sequence == sequence && slot.kind != Kind::Empty).then_some(slot)
    }

    /// Asks for the memory of a packet.
    pub(super) fn prefetch(&self, sequence: SeqNumber) {
        let index = self.index(sequence);
        let begin = index * usize::from(self.stride);
        self.slots.get(index).into_iter().for_each(prefetch::prefetch);
        self.bytes
            .get(begin..begin + usize::from(self.stride))
            .into_iter()
            .for_each(|bytes| prefetch::head(bytes, PREFETCH_BYTES));
    }

    pub(super) fn payload(&self, slot: &Slot) -> &[u8] {
        let begin = self.index(slot.sequence) * usize::from(self.stride);
        self.bytes.get(begin..begin + usize::from(slot.len)).unwrap_or_default()
    }

    pub(super) fn remove(&mut self, sequence: SeqNumber) {
        let index = self.index(sequence);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.kind = Kind::Empty;
        }
    }

    /// Puts a packet into its slot, over what was there.
    pub(super) fn insert(&mut self, slot: Slot, payload: &[u8]) {
        let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        if len > self.stride {
            self.widen(len);
        }
        let index = self.index(slot.sequence);
        let begin = index * usize::from(self.stride);
        let end = begin + usize::from(len);
        if self.bytes.len() < end {
            self.bytes.resize(usize::from(self.slots()) * usize::from(self.stride), 0);
        }
        self.bytes[begin..end].copy_from_slice(&payload[..usize::from(len)]);
        self.slots[index] = Slot { len, ..slot };
    }

    /// Makes room for `span` packets in a row, at most [`SLOTS_MAX`].
    pub(super) fn reserve(&mut self, span: u16) {
        while self.slots() < span && self.slots() < SLOTS_MAX {
            let half = usize::from(self.slots());
            self.mask = 2 * self.mask + 1;
            self.slots.resize(2 * half, Slot::default());
            self.bytes.resize(2 * half * usize::from(self.stride), 0);
            // A slot stays, or moves up by as many as there were.
            for index in 0..half {
                let slot = self.slots[index];
                if self.index(slot.sequence) != index && slot.kind != Kind::Empty {
                    self.copy(index, half + index);
                    self.slots[index] = Slot::default();
                }
            }
        }
    }

    /// Halves the ring while there is room enough for `span` packets up to `newest`; what is further back is forgotten.
    pub(super) fn shrink(&mut self, span: u16, newest: SeqNumber) {
        while self.slots() > SLOTS_MIN && self.slots() / 2 >= span {
            let half = self.slots() / 2;
            self.mask /= 2;
            for index in 0..usize::from(half) {
                let upper = self.slots[usize::from(half) + index];
                let lower = self.slots[index];
                let age = |slot: Slot| newest.0.wrapping_sub(slot.sequence.0);
                if upper.kind != Kind::Empty && (lower.kind == Kind::Empty || age(upper) < age(lower)) {
                    self.copy(usize::from(half) + index, index);
                }
            }
            self.slots.truncate(usize::from(half));
        }
    }

    #[cold]
    fn widen(&mut self, len: u16) {
        let (old, new) = (usize::from(self.stride), usize::from(len.next_multiple_of(STRIDE_STEP)));
        self.stride = len.next_multiple_of(STRIDE_STEP);
        let room = usize::from(self.slots()) * new;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        // The last first, so that none is written over.
        for index in (1..usize::from(self.slots())).rev() {
            self.bytes.copy_within(index * old..(index + 1) * old, index * new);
        }
    }

    fn copy(&mut self, from: usize, to: usize) {
        let stride = usize::from(self.stride);
        self.slots[to] = self.slots[from];
        self.bytes.copy_within(from * stride..(from + 1) * stride, to * stride);
    }

    const fn index(&self, sequence: SeqNumber) -> usize {
        (sequence.0 & self.mask) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(sequence: u16) -> Slot {
        Slot {
            position: i64::from(sequence) * 160,
            sequence: SeqNumber(sequence),
            ticks: 160,
            len: 0,
            kind: Kind::Audio,
        }
    }

    fn check(store: &Store, sequence: u16, len: usize) {
        let found = store.get(SeqNumber(sequence)).unwrap_or_else(|| panic!("{sequence} is there"));
        assert_eq!(store.payload(found), vec![sequence.to_le_bytes()[0]; len], "{sequence}");
    }

    fn insert(store: &mut Store, sequence: u16, len: usize) {
        store.insert(slot(sequence), &vec![sequence.to_le_bytes()[0]; len]);
    }

    #[test]
    fn packets_survive_growing_and_widening_and_shrinking_across_the_wrap() {
        let mut store = Store::new();
        let first = 65_530u16;
        for n in 0..8 {
            store.reserve(n + 1);
            insert(&mut store, first.wrapping_add(n), 33);
        }
        store.reserve(9);
        assert_eq!(store.slots(), 16);
        for n in 8..16 {
            insert(&mut store, first.wrapping_add(n), 160);
        }
        store.reserve(100);
        insert(&mut store, first.wrapping_add(99), 1000);
        for n in 0..16 {
            check(&store, first.wrapping_add(n), if n < 8 { 33 } else { 160 });
        }
        check(&store, first.wrapping_add(99), 1000);
        assert_eq!(store.slots(), 128);
        store.shrink(4, SeqNumber(first.wrapping_add(99)));
        assert_eq!(store.slots(), 4);
        check(&store, first.wrapping_add(99), 1000);
        let newest_of_all = |n: u16| (0..100).rev().find(|m| (*m < 16 || *m == 99) && m % 4 == n % 4) == Some(n);
        for n in 0..100 {
            assert_eq!(store.get(SeqNumber(first.wrapping_add(n))).is_some(), newest_of_all(n), "{n}");
        }
    }

    #[test]
    fn there_are_never_more_slots_than_allowed_and_memory_is_kept() {
        let mut store = Store::new();
        insert(&mut store, 1, 160);
        store.reserve(u16::MAX);
        assert_eq!(store.slots(), SLOTS_MAX);
        let bytes = store.bytes();
        store.clear();
        assert!(store.get(SeqNumber(1)).is_none());
        for n in 0..2000 {
            insert(&mut store, n, 160);
            store.reserve(512);
        }
        assert_eq!(store.bytes(), bytes);
        store.release();
        assert_eq!(store.bytes(), usize::from(SLOTS_MIN) * size_of::<Slot>());
        insert(&mut store, 1, 160);
        let bytes = store.bytes();
        store.release();
        assert_eq!(store.bytes(), bytes, "what is small is kept");
    }
}
