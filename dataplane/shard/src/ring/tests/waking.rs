//! What ends a wait, and when.

use std::os::fd::AsFd;

use super::*;

/// Polls `eventfd` until it is readable, then takes its count.
fn await_signal(eventfd: &Doorbell) {
    let mut poll = [rustix::event::PollFd::new(eventfd, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&patience)).unwrap(), 1, "no wake-up");
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).unwrap();
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[test]
fn an_idle_ring_wakes_its_sleeper_for_packets_and_for_the_doorbell() {
    let mut fixture = Fixture::new(600);
    let sockets: Vec<UdpSocket> = (0..300).map(|_| local()).collect();
    let addresses: Vec<SocketAddr> = sockets.iter().map(address).collect();
    for (index, socket) in (0..).zip(sockets) {
        fixture.ring.open(Port::from_index(index), socket).unwrap();
    }
    let wake = Doorbell::new().unwrap();
    let source = endpoint();
    let mut random = Pcg64Mcg::seed_from_u64(2);
    for round in 0..200u32 {
        // Traffic before, during and after the registration: whenever it comes, it is either seen or it wakes.
        let packets = if random.random_bool(0.2) { 300 } else { random.random_range(1..4) };
        let before = random.random_range(0..=packets);
        for address in &addresses[..before] {
            source.send_to(&round.to_be_bytes(), address).unwrap();
        }
        fixture.ring.register_wake(wake.fd()).unwrap();
        let mut got = 0;
        let mut sent = before;
        let mut rung = false;
        while got < packets || !rung {
            if fixture.ring.drain_idle().unwrap() {
                // Everything is quiet: what we do now has to wake us.
                if sent < packets {
                    source.send_to(&round.to_be_bytes(), addresses[sent]).unwrap();
                    sent += 1;
                } else if got == packets {
                    fixture.doorbell.ring_always();
                    rung = true;
                }
                await_signal(&wake);
            }
            fixture.ring.receive(1 << 16, |_, bytes| {
                assert_eq!(number(bytes), round);
                got += 1;
                Disposition::Consumed
            });
        }
        fixture.ring.unregister_wake().unwrap();
        // A stale signal must not satisfy the next round.
        let _ = rustix::io::read(&wake, &mut [0; 8]);
    }
}

#[test]
fn the_doorbell_ends_a_wait() {
    let mut fixture = Fixture::new(2);
    let plan = WaitPlan { timeout: PATIENCE, batch: Duration::from_micros(200) };
    for _ in 0..50 {
        fixture.doorbell.ring_always();
        let start = Instant::now();
        fixture.ring.wait(plan).unwrap();
        assert!(start.elapsed() < PATIENCE / 2);
    }
    // Rung while a flush was collecting: the next wait does not sleep through it.
    fixture.ring.flush().unwrap();
    fixture.doorbell.ring_always();
    fixture.ring.enter(0, EnterFlags::GETEVENTS, None).unwrap();
    fixture.ring.settle().unwrap();
    let start = Instant::now();
    fixture.ring.wait(plan).unwrap();
    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn a_wait_ends_with_its_timeout_and_gathers_for_its_batch_time() {
    let mut fixture = Fixture::new(2);
    let socket = local();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    fixture.ring.flush().unwrap();
    for batch in [0, 1, 5, 50] {
        let plan = WaitPlan { timeout: Duration::from_millis(5), batch: Duration::from_millis(batch) };
        let start = Instant::now();
        fixture.ring.wait(plan).unwrap();
        assert!(start.elapsed() >= plan.timeout, "batch {batch} ms");
    }
    let source = endpoint();
    source.send_to(b"first", here).unwrap();
    fixture.ring.wait(PLAN).unwrap();
    // Something to deliver: no wait at all, however long the plan; zero: neither.
    let plan = WaitPlan { timeout: PATIENCE, batch: PATIENCE };
    let before = fixture.ring.counters().syscalls;
    let start = Instant::now();
    fixture.ring.wait(plan).unwrap();
    assert_eq!(fixture.ring.receive(10, consume), 1);
    fixture.ring.wait(WaitPlan { timeout: Duration::ZERO, batch: Duration::ZERO }).unwrap();
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(fixture.ring.counters().syscalls, before + 2, "one enter a wait");
    // Only one datagram, and the batch gathers for its time before it returns with it.
    if fixture.ring.has_min_wait {
        let plan = WaitPlan { timeout: PATIENCE, batch: Duration::from_millis(20) };
        source.send_to(b"second", here).unwrap();
        let start = Instant::now();
        fixture.ring.wait(plan).unwrap();
        assert!(start.elapsed() >= plan.batch);
        assert!(start.elapsed() < PATIENCE / 2);
        assert_eq!(fixture.ring.receive(10, consume), 1);
    }
}

#[test]
fn without_min_wait_the_first_datagram_ends_a_wait() {
    let mut fixture = Fixture::new(2);
    fixture.ring.has_min_wait = false;
    let socket = local();
    let here = address(&socket);
    fixture.ring.open(Port::rtp(0), socket).unwrap();
    let source = endpoint();
    for _ in 0..20 {
        source.send_to(b"x", here).unwrap();
        let start = Instant::now();
        fixture.ring.wait(WaitPlan { timeout: PATIENCE, batch: PATIENCE }).unwrap();
        assert!(start.elapsed() < PATIENCE / 2);
        assert_eq!(fixture.ring.receive(10, consume), 1);
    }
}

#[test]
fn a_hushed_port_sends_until_it_is_closed_and_keeps_what_comes_in_its_socket() {
    let mut fixture = Fixture::new(4);
    let (port, other) = (Port::rtp(0), Port::rtp(1));
    let socket = local();
    let here = address(&socket);
    fixture.ring.open(port, socket).unwrap();
    fixture.ring.open(other, local()).unwrap();
    let far = endpoint();
    far.send_to(b"before", here).unwrap();
    assert_eq!(fixture.collect(1)[0].2, b"before");

    fixture.ring.hush(port);
    let mut quiet = None;
    let nothing = |_: &DatagramMeta, _: &mut [u8]| -> Disposition { panic!("nothing was sent") };
    fixture.until(nothing, |ring| {
        quiet = ring.poll_quiet();
        quiet.is_some()
    });
    assert_eq!(quiet, Some(port));
    far.send_to(b"later", here).unwrap();
    for _ in 0..5 {
        let mut left = Some(Transmit { port, target: Some(address(&far)), len: 2 });
        fixture.ring.transmit(|slot| {
            slot[..2].copy_from_slice(b"hi");
            left.take()
        });
        fixture.turn(nothing);
        let mut buffer = [0; 16];
        let (len, source) = far.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], source), (&b"hi"[..], here), "it still sends, from where it always did");
    }
    let refused = fixture.ring.connect(port, address(&far)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotConnected);
    let socket = fixture.close(port, nothing);
    // What came meanwhile is delivered wherever the socket goes.
    fixture.ring.open(Port::rtcp(1), socket).unwrap();
    assert_eq!(fixture.collect(1)[0], (Port::rtcp(1), Some(address(&far)), b"later".to_vec()));

    // Closed before it was quiet: the socket comes out, and nothing else is told.
    fixture.ring.hush(other);
    drop(fixture.close(other, nothing));
    assert_eq!(fixture.ring.poll_quiet(), None);
    fixture.assert_nothing_leaked();
}
