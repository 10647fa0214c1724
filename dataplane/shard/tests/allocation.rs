//! The packet path of a real shard allocates nothing once warm: relays, rooms, a prompt and a recording at once.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use rig::{Rig, play, talk};
use ringbridge_media::command::{OperationSpec, StopConditions, Target};
use ringbridge_media::samples::RecordQueue;
use ringbridge_shard::mailbox::{ShardMessage, ShardReport};

/// The thread whose allocations are counted; 0 counts none.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[allow(unsafe_code, reason = "a global allocator is an unsafe trait; every call is passed on as it came")]
// SAFETY: all memory comes from and goes back to `System`, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched != 0 && watched == rustix::thread::gettid().as_raw_nonzero().get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

fn watch(thread: i32) -> u64 {
    WATCHED.store(thread, Ordering::Relaxed);
    ALLOCATIONS.swap(0, Ordering::Relaxed)
}

#[test]
fn nothing_is_allocated_on_the_packet_path_once_warm() {
    // First that the counter counts.
    watch(rustix::thread::gettid().as_raw_nonzero().get());
    std::hint::black_box(vec![1u8; 100]);
    assert_eq!(watch(0), 1, "the counter counts");

    let mut rig = Rig::start(1);
    let mut calls: Vec<_> = (0..10).map(|n| rig.relayed(0, [n, 10 + n])).collect();
    let mut members = Vec::new();
    for n in 0..3 {
        let (id, legs) = rig.room(0, n, 20 + 4 * n, 4);
        members.extend(legs);
        let target = Target::Conference(id);
        let record = OperationSpec::Record { queue: Arc::new(RecordQueue::new(16)), until: StopConditions::default() };
        rig.operate(0, 2 * n, target, play(1000, 8000 * 600));
        rig.operate(0, 2 * n + 1, target, record);
    }
    rig.send(0, ShardMessage::Snapshot { token: 1 });
    let report = rig.wait_for(|report| matches!(report, ShardReport::Snapshot { .. }));
    let ShardReport::Snapshot { snapshot, .. } = report else { unreachable!() };

    let mut round = |fill: u8| {
        for [a, b] in &mut calls {
            talk(a, b, fill);
        }
        for member in &mut members {
            member.send(fill);
        }
        for member in &members {
            member.receive();
        }
    };
    (0..100).for_each(&mut round);
    watch(snapshot.thread_id);
    (0..200).for_each(&mut round);
    assert_eq!(watch(0), 0, "allocations of the shard's thread over 200 rounds of 32 endpoints");
    rig.stop();
}
