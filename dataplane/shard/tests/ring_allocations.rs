//! The packet path of the ring allocates nothing.
#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ringbridge_media::port::{Disposition, Port, Transmit};
use ringbridge_shard::io::{PacketIo, WaitPlan};
use ringbridge_shard::mailbox::Doorbell;
use ringbridge_shard::ring::{Ring, RingConfig};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: passed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn forwarding_transmitting_and_switching_allocate_nothing() -> Result<(), Box<dyn Error>> {
    let before = ALLOCATIONS.get();
    black_box(Box::new(1u8));
    assert_eq!(ALLOCATIONS.get(), before + 1, "the counter counts");

    let bind = || UdpSocket::bind("127.0.0.1:0");
    // Bound by number: the kernel takes an automatic port away when a socket is disconnected.
    let chosen = bind()?.local_addr()?;
    let (socket, source, sink) = (UdpSocket::bind(chosen)?, bind()?, bind()?);
    let here = socket.local_addr()?;
    let from = source.local_addr()?;
    let target = Some(sink.local_addr()?);
    let doorbell = Doorbell::new()?;
    // Few buffers and entries, so that both run out on the way.
    let sizes =
        RingConfig { sq_entries: 16, cq_entries: 32, buffers: 16, send_slots: 8, ..RingConfig::new(8, doorbell.fd()) };
    let mut ring = Ring::new(sizes)?;
    ring.open(Port::rtp(0), socket)?;

    let before = ALLOCATIONS.get();
    let start = Instant::now();
    let mut received = 0;
    for round in 0..500u32 {
        for _ in 0..40 {
            source.send_to(&[1; 172], here)?;
        }
        match round % 50 {
            10 => ring.connect(Port::rtp(0), from)?,
            40 => ring.disconnect(Port::rtp(0))?,
            _ => {}
        }
        while received < (round + 1) * 40 {
            assert!(start.elapsed() < Duration::from_secs(20));
            ring.wait(WaitPlan { timeout: Duration::from_millis(1), batch: Duration::from_micros(50) })?;
            ring.receive(64, |_, bytes| {
                received += 1;
                // Every fifth fails, for want of a port.
                let port = if received % 5 == 0 { Port::rtp(3) } else { Port::rtp(0) };
                Disposition::Forward(Transmit { port, target, len: bytes.len() })
            });
            let mut left = 20;
            ring.transmit(|_| {
                left -= 1;
                (left > 0).then_some(Transmit { port: Port::rtp(0), target, len: 100 })
            });
            while ring.poll_drop().is_some() {}
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    let counters = ring.counters();
    assert!(counters.buffers_exhausted > 0 && counters.rearms > 0, "{counters:?}");
    Ok(())
}
