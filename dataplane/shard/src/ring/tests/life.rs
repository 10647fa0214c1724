//! A ring under a load of everything.

use super::*;

#[test]
fn a_full_completion_queue_loses_nothing() {
    let mut fixture = Fixture::with(64, |config| {
        config.sq_entries = 16;
        config.cq_entries = 32;
        config.buffers = 256;
    });
    let sockets: Vec<UdpSocket> = (0..20).map(|_| local()).collect();
    let addresses: Vec<SocketAddr> = sockets.iter().map(address).collect();
    for (index, socket) in (0..).zip(sockets) {
        fixture.ring.open(Port::from_index(index), socket).unwrap();
    }
    let source = endpoint();
    for count in 0..30u32 {
        for address in &addresses {
            source.send_to(&count.to_be_bytes(), address).unwrap();
        }
    }
    let mut next = [0u32; 20];
    for (port, _, bytes) in fixture.collect(600) {
        let next = &mut next[port.index() as usize];
        assert_eq!(number(&bytes), *next);
        *next += 1;
    }
    assert_eq!(next, [30; 20]);
    fixture.assert_nothing_leaked();
}

/// Random opens, connects, disconnects and closes with traffic between. Whatever happens: each port's datagrams come
/// in the order sent, none is lost, none comes from where it does not, and every buffer is accounted for.
#[test]
fn random_life() {
    for seed in 0..12 {
        random_life_of(seed);
    }
}

fn random_life_of(seed: u64) {
    const PORTS: u32 = 6;
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut fixture = Fixture::with(PORTS, |config| {
        config.sq_entries = 16;
        config.cq_entries = 32;
        config.buffers = 16;
        config.send_slots = 4;
    });
    fixture.ring.want = 8;
    /// A socket of the test, wherever it is.
    struct Life {
        here: SocketAddr,
        idle: Option<UdpSocket>,
        closing: bool,
        sent: u32,
        expected: u32,
    }
    let source = endpoint();
    let sink = endpoint();
    let from = address(&source);
    let target = address(&sink);
    let mut lives: Vec<Life> = (0..PORTS)
        .map(|_| {
            let socket = local_fixed();
            Life { here: address(&socket), idle: Some(socket), closing: false, sent: 0, expected: 0 }
        })
        .collect();
    let mut forwarded = 0u64;
    let mut echoed = 0u64;
    let start = Instant::now();
    for step in 0.. {
        let storm = step < 3000;
        if !storm && lives.iter().all(|life| life.expected == life.sent) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "seed {seed}: {:?}", fixture.ring);
        let index = random.random_range(0..PORTS);
        let life = &mut lives[index as usize];
        let port = Port::from_index(index);
        match random.random_range(0..10) {
            _ if !storm => {
                if let Some(socket) = life.idle.take() {
                    fixture.ring.open(port, socket).unwrap();
                }
            }
            0 => {
                if let Some(socket) = life.idle.take() {
                    fixture.ring.open(port, socket).unwrap();
                }
            }
            1 if life.idle.is_none() && !life.closing => fixture.ring.connect(port, from).unwrap(),
            2 if life.idle.is_none() && !life.closing => fixture.ring.disconnect(port).unwrap(),
            3 if life.idle.is_none() && random.random_bool(0.5) => {
                fixture.ring.close(port);
                life.closing = true;
            }
            4 => fixture.ring.flush().unwrap(),
            _ => {
                for _ in 0..random.random_range(0..12) {
                    if life.sent - life.expected < 100 {
                        source.send_to(&life.sent.to_be_bytes(), life.here).unwrap();
                        life.sent += 1;
                    }
                }
            }
        }
        let micros = random.random_range(0..3) * 20;
        let batch = Duration::from_micros(random.random_range(0..2) * 20);
        if random.random_bool(0.5) {
            fixture.ring.wait(WaitPlan { timeout: Duration::from_micros(micros), batch }).unwrap();
        }
        let any_open = Port::from_index(random.random_range(0..PORTS));
        fixture.ring.receive(random.random_range(0..30), |meta, bytes| {
            let life = &mut lives[meta.port.index() as usize];
            assert!(life.idle.is_none(), "seed {seed}: delivered after it was closed");
            assert_eq!(number(bytes), life.expected, "seed {seed} port {:?}", meta.port);
            assert!(meta.source.is_none_or(|source| source == from));
            life.expected += 1;
            if random.random_bool(0.5) {
                forwarded += 1;
                Disposition::Forward(Transmit { port: any_open, target: Some(target), len: 4 })
            } else {
                Disposition::Consumed
            }
        });
        let mut own = random.random_range(0..8);
        fixture.ring.transmit(|slot| {
            own -= 1;
            (own >= 0).then(|| {
                forwarded += 1;
                slot[..4].copy_from_slice(b"mine");
                Transmit { port: any_open, target: Some(target), len: 4 }
            })
        });
        while let Some((port, socket)) = fixture.ring.poll_closed() {
            let life = &mut lives[port.index() as usize];
            assert_eq!(address(&socket), life.here);
            life.idle = Some(socket);
            life.closing = false;
        }
        sink.set_nonblocking(true).unwrap();
        while sink.recv(&mut [0; 16]).is_ok() {
            echoed += 1;
        }
    }
    // No buffer is lost, and each packet either left or is a counted drop.
    fixture.until(consume, |ring| !ring.has_work());
    fixture.assert_nothing_leaked();
    while sink.recv(&mut [0; 16]).is_ok() {
        echoed += 1;
    }
    let dropped: u64 = std::iter::from_fn(|| fixture.ring.poll_drop()).map(|(.., packets)| packets).sum();
    let counters = fixture.ring.counters();
    assert_eq!(counters.sent, echoed, "seed {seed}");
    // A drop of a port that is opened anew before it is polled goes with the old one.
    assert!(counters.sent + dropped <= forwarded, "seed {seed}: {counters:?} {dropped} {forwarded}");
    let open = lives.iter().filter(|life| life.idle.is_none()).count();
    assert_eq!(fixture.ring.operations, open + 1, "seed {seed}: one receive an open port, and the doorbell");
}
