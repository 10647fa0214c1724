//! Asks for memory before it is needed.
//!
//! A shard serves thousands of streams in turn, and what one needs has left the cache by the time it is its turn again.
//! Who knows which streams are next asks for several at once: the memory then fetches them side by side, and not one
//! line after the other as each is stumbled upon. It changes nothing but time.

#![allow(unsafe_code, reason = "the instruction takes a pointer, and is unsafe to call although it never faults")]

/// Asks for all of a value. About a nanosecond a cache line; what is there already costs the same.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    head(value, usize::MAX);
}

/// Asks for the first bytes of a value.
#[inline]
pub fn head<T: ?Sized>(value: &T, bytes: usize) {
    let first = core::ptr::from_ref(value).cast::<u8>();
    let len = size_of_val(value).min(bytes);
    // A value that does not begin on a line ends on one more.
    let lead = first.addr() % LINE_BYTES;
    for line in (0..lead + len).step_by(LINE_BYTES) {
        fetch(first.wrapping_add(line).wrapping_sub(lead));
    }
}

const LINE_BYTES: usize = 64;

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 has the instruction, and it may be given any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
}

/// Other machines find out by themselves.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch(_line: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_size_and_place_are_as_they_were() {
        let bytes: Vec<u8> = (0..=255).collect();
        for from in 0..80 {
            for to in from..200 {
                prefetch(&bytes[from..to]);
                head(&bytes[from..to], 64);
            }
        }
        assert!(bytes.iter().copied().eq(0..=255));
    }
}
