//! Packet memory of one shard: the buffers the kernel receives into, and the slots packets of our own are built in.
//!
//! ```text
//!            give_back + publish                     claim (a completion names it)
//!  Received ─────────────────────▶ kernel's ring ─────────────────────────────────▶ Received
//! ```
//!
//! A buffer that user space may touch is a token that cannot be copied: [`Received`] or [`Slot`]. While the kernel
//! may write to a buffer there is no token for it, so it can neither be read nor handed out twice. Nothing is
//! allocated after construction.
#![allow(unsafe_code, reason = "memory shared with the kernel: mapped pages and the ring of provided buffers")]

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Largest number of buffers in a [`BufferRing`]: the kernel's limit.
pub(crate) const BUFFERS_MAX: u16 = 1 << 15;

/// A buffer of a [`BufferRing`] that the kernel has filled and user space holds.
#[must_use = "a buffer that is not given back is lost to the kernel"]
#[derive(Debug)]
pub(crate) struct Received(u16);

/// The kernel's ring of provided buffers, and the memory behind it.
pub(crate) struct BufferRing {
    slab: Slab,
    /// The entries the kernel reads: page aligned, one per buffer. Its tail overlays the first entry.
    entries: Mapping,
    /// Tail as far as entries have been written; the kernel sees it after [`BufferRing::publish`].
    tail: u16,
    mask: u16,
    /// Which buffers user space holds.
    held: Box<[bool]>,
    held_count: u16,
}

impl BufferRing {
    /// `count` buffers of `bytes` bytes each, all offered to the kernel once registered.
    ///
    /// # Errors
    /// `count` is not a power of two up to [`BUFFERS_MAX`], `bytes` is zero, or the pages cannot be mapped.
    pub(crate) fn new(count: u16, bytes: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || count > BUFFERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the number of buffers is not a power of two"));
        }
        let mut ring = Self {
            slab: Slab::new(count, bytes)?,
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            tail: 0,
            mask: count - 1,
            held: vec![true; usize::from(count)].into_boxed_slice(),
            held_count: count,
        };
        for id in 0..count {
            ring.give_back(Received(id));
        }
        ring.publish();
        Ok(ring)
    }

    /// Offers the buffers to the kernel as buffer group `group`.
    ///
    /// # Errors
    /// The kernel refuses.
    ///
    /// # Safety
    /// `self` must not be dropped before [`unregister`](Self::unregister) has succeeded and every operation that
    /// selects from the group has ended.
    pub(crate) unsafe fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let address = self.entries.base.as_ptr() as u64;
        // SAFETY: the entries are mapped, page aligned and `mask + 1` long; the caller keeps them until unregistered.
        unsafe { submitter.register_buf_ring_with_flags(address, self.mask + 1, group, 0) }
    }

    /// Takes the buffers away from the kernel again.
    ///
    /// # Errors
    /// The kernel refuses; it may go on using them.
    pub(crate) fn unregister(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        submitter.unregister_buf_ring(group)
    }

    /// The buffer `id`, which a completion has just named. `None` if there is no such buffer or user space holds it
    /// already, so that even a confused kernel cannot make two tokens for one buffer.
    pub(crate) fn claim(&mut self, id: u16) -> Option<Received> {
        let held = self.held.get_mut(usize::from(id)).filter(|held| !**held)?;
        *held = true;
        self.held_count += 1;
        Some(Received(id))
    }

    /// Writes `buffer` into the ring. The kernel sees it after [`publish`](Self::publish).
    pub(crate) fn give_back(&mut self, buffer: Received) {
        let Received(id) = buffer;
        self.held[usize::from(id)] = false;
        self.held_count -= 1;
        let address = self.slab.address(id) as u64;
        let index = usize::from(self.tail & self.mask);
        // SAFETY: `index` is below the number of entries, all of which are mapped.
        let entry = unsafe { self.entries.base.cast::<BufRingEntry>().add(index) };
        // SAFETY: the entry lies at or behind the published tail, where the kernel does not read, and there are as
        // many entries as buffers, so it never laps the head. It is initialised, as mapped pages are.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(self.slab.bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what has been given back.
    pub(crate) fn publish(&mut self) {
        // SAFETY: the first entry is mapped; only the address of its tail field is taken.
        let tail = unsafe { BufRingEntry::tail(self.entries.base.cast::<BufRingEntry>().as_ptr()) };
        // SAFETY: the tail is two aligned mapped bytes that the kernel reads with acquire and nobody else writes.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The whole memory of `buffer`.
    pub(crate) fn bytes_mut(&mut self, buffer: &mut Received) -> &mut [u8] {
        self.slab.bytes_mut(buffer.0)
    }

    /// Where `buffer` begins, for the kernel to read from while the token is kept.
    pub(crate) fn address(&self, buffer: &Received) -> *const u8 {
        self.slab.address(buffer.0)
    }

    /// How many buffers user space holds.
    pub(crate) fn held(&self) -> u16 {
        self.held_count
    }

    /// How many buffers the kernel may fill.
    pub(crate) fn available(&self) -> u16 {
        self.mask + 1 - self.held_count
    }
}

/// A slot of a [`SendSlots`] that is being filled or sent.
#[must_use = "a slot that is not released is lost"]
#[derive(Debug)]
pub(crate) struct Slot(u16);

/// Memory for packets that do not leave from the buffer they came in.
pub(crate) struct SendSlots {
    slab: Slab,
    free: Vec<u16>,
}

impl SendSlots {
    /// `count` slots of `bytes` bytes each.
    ///
    /// # Errors
    /// One of the two is zero, or the pages cannot be mapped.
    pub(crate) fn new(count: u16, bytes: u32) -> io::Result<Self> {
        Ok(Self { slab: Slab::new(count, bytes)?, free: (0..count).rev().collect() })
    }

    /// A free slot.
    pub(crate) fn take(&mut self) -> Option<Slot> {
        self.free.pop().map(Slot)
    }

    /// Makes `slot` free again.
    pub(crate) fn release(&mut self, slot: Slot) {
        self.free.push(slot.0);
    }

    /// The whole memory of `slot`.
    pub(crate) fn bytes_mut(&mut self, slot: &mut Slot) -> &mut [u8] {
        self.slab.bytes_mut(slot.0)
    }

    /// Where `slot` begins, for the kernel to read from while the token is kept.
    pub(crate) fn address(&self, slot: &Slot) -> *const u8 {
        self.slab.address(slot.0)
    }

    /// How many slots are free.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }
}

/// Equal pieces of mapped memory. Knows nothing of who may touch them: the tokens above do.
struct Slab {
    memory: Mapping,
    count: u16,
    bytes: u32,
}

impl Slab {
    fn new(count: u16, bytes: u32) -> io::Result<Self> {
        Ok(Self { memory: Mapping::new(usize::from(count) * bytes as usize)?, count, bytes })
    }

    fn address(&self, id: u16) -> *mut u8 {
        assert!(id < self.count, "a token belongs to the slab that made it");
        // SAFETY: `id` is below the count, so the piece lies inside the mapping.
        unsafe { self.memory.base.as_ptr().add(usize::from(id) * self.bytes as usize) }
    }

    fn bytes_mut(&mut self, id: u16) -> &mut [u8] {
        let address = self.address(id);
        // SAFETY: the piece is mapped and initialised (anonymous pages are zeroed). The caller has the one token for
        // it, so neither the kernel nor another slice touches it while the borrow lasts.
        unsafe { slice::from_raw_parts_mut(address, self.bytes as usize) }
    }
}

/// Private anonymous pages, present from the start.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new anonymous mapping touches no existing memory; a length of zero is refused by the kernel.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; whoever owns the mapping has made sure that the kernel is done with it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would see: the buffers between its head and the published tail.
    struct FakeKernel {
        head: u16,
    }

    impl FakeKernel {
        fn entry(ring: &BufferRing, at: u16) -> (u64, u32, u16) {
            let index = usize::from(at & ring.mask);
            // SAFETY: the index is masked to the mapped entries.
            let entry = unsafe { ring.entries.base.cast::<BufRingEntry>().add(index) };
            // SAFETY: a mapped, initialised entry, and nobody writes on this thread.
            let entry = unsafe { entry.as_ref() };
            (entry.addr(), entry.len(), entry.bid())
        }

        fn tail(ring: &BufferRing) -> u16 {
            // SAFETY: the first entry has sixteen bytes, of which the tail overlays the last two.
            let tail = unsafe { ring.entries.base.cast::<u16>().add(7) };
            // SAFETY: mapped, aligned, initialised, and nobody writes on this thread.
            unsafe { tail.read() }
        }

        fn take(&mut self, ring: &mut BufferRing) -> Option<Received> {
            if self.head == Self::tail(ring) {
                return None;
            }
            let (address, bytes, id) = Self::entry(ring, self.head);
            assert_eq!((address, bytes), (ring.slab.address(id) as u64, ring.slab.bytes));
            self.head = self.head.wrapping_add(1);
            Some(ring.claim(id).expect("the kernel takes no buffer that user space holds"))
        }
    }

    #[test]
    fn every_buffer_goes_round_and_none_is_handed_out_twice() {
        let mut ring = BufferRing::new(8, 64).unwrap();
        let mut kernel = FakeKernel { head: 0 };
        // Far enough to wrap the 16-bit tail.
        for _ in 0..70_000 / 8 {
            let mut held: Vec<Received> = Vec::new();
            while let Some(mut buffer) = kernel.take(&mut ring) {
                let id = u8::try_from(buffer.0).unwrap();
                ring.bytes_mut(&mut buffer).fill(id);
                held.push(buffer);
            }
            assert_eq!((held.len(), ring.available(), ring.held()), (8, 0, 8));
            assert!(ring.claim(3).is_none(), "held already");
            for mut buffer in held {
                let id = u8::try_from(buffer.0).unwrap();
                assert!(ring.bytes_mut(&mut buffer).iter().all(|byte| *byte == id));
                ring.give_back(buffer);
            }
            assert!(kernel.take(&mut ring).is_none(), "not published yet");
            ring.publish();
        }
        assert_eq!(ring.available(), 8);
        assert!(ring.claim(8).is_none(), "no such buffer");
    }

    #[test]
    fn sizes_the_kernel_would_refuse_are_refused_here() {
        for (count, bytes) in [(0, 64), (3, 64), (BUFFERS_MAX + 1, 64), (8, 0)] {
            assert!(BufferRing::new(count, bytes).is_err(), "{count} x {bytes}");
        }
        assert!(SendSlots::new(0, 64).is_err());
    }

    #[test]
    fn slots_do_not_overlap() {
        let mut slots = SendSlots::new(4, 32).unwrap();
        let mut taken: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.len(), 4);
        for (mark, slot) in (1u8..).zip(&mut taken) {
            slots.bytes_mut(slot).fill(mark);
        }
        for (mark, slot) in (1u8..).zip(&mut taken) {
            assert!(slots.bytes_mut(slot).iter().all(|byte| *byte == mark));
        }
        for slot in taken {
            slots.release(slot);
        }
        assert_eq!(slots.free(), 4);
    }
}
