//! CPU time of a forwarded packet: the ring against a plain epoll loop, on loopback.
//!
//! `cargo run --release -p ringbridge-shard --example forward_cost [STREAMS]`
//!
//! Each round puts 256 packets of 172 bytes (20 ms of G.711) into the input sockets, then measures the thread's CPU
//! time until all have been sent on, then empties the sinks. Sending on loopback includes the receive path of the sink.

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringbridge_media::port::{Disposition, Port, Transmit};
use ringbridge_shard::io::{PacketIo, WaitPlan};
use ringbridge_shard::mailbox::Doorbell;
use ringbridge_shard::ring::{Ring, RingConfig};
use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Packets of one round.
const PACKETS: usize = 256;
const ROUNDS: usize = 2000;
const PACKET: [u8; 172] = [0x80; 172];

/// One direction of a call: source → input, output → sink.
struct Stream {
    source: UdpSocket,
    input: UdpSocket,
    output: UdpSocket,
    sink: UdpSocket,
}

impl Stream {
    fn new(connected: bool) -> Outcome<Self> {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let stream = Self { source: bind()?, input: bind()?, output: bind()?, sink: bind()? };
        stream.source.connect(stream.input.local_addr()?)?;
        stream.sink.set_nonblocking(true)?;
        stream.input.set_nonblocking(true)?;
        if connected {
            stream.input.connect(stream.source.local_addr()?)?;
            stream.output.connect(stream.sink.local_addr()?)?;
        }
        Ok(stream)
    }
}

/// CPU time of a packet in nanoseconds (median of the rounds), and system calls for each.
struct Cost {
    nanos: u64,
    syscalls: f64,
}

fn main() -> Outcome<()> {
    let count: usize = std::env::args().nth(1).map_or(Ok(64), |text| text.parse())?;
    println!("{count} streams, {PACKETS} packets a round, {ROUNDS} rounds, best of three");
    for connected in [false, true] {
        let mut best = [u64::MAX; 2];
        let mut syscalls = [0.0; 2];
        // In turns, so that a machine that changes its speed does so for both.
        for _ in 0..3 {
            for (index, cost) in [through_epoll(count, connected)?, through_ring(count, connected)?].iter().enumerate()
            {
                best[index] = best[index].min(cost.nanos);
                syscalls[index] = cost.syscalls;
            }
        }
        let kind = if connected { "connected" } else { "unconnected" };
        for (name, index) in [("epoll", 0), ("ring", 1)] {
            println!("{kind:12} {name:6} {:5} ns  {:.3} system calls a packet", best[index], syscalls[index]);
        }
    }
    Ok(())
}

fn through_ring(count: usize, connected: bool) -> Outcome<Cost> {
    let doorbell = Doorbell::new()?;
    let mut ring = Ring::new(RingConfig::new(u32::try_from(2 * count)?, doorbell.fd()))?;
    let mut streams = Vec::new();
    for slot in 0..u32::try_from(count)? {
        let stream = Stream::new(connected)?;
        ring.open(Port::rtp(slot), stream.input.try_clone()?)?;
        ring.open(Port::rtcp(slot), stream.output.try_clone()?)?;
        if connected {
            ring.connect(Port::rtp(slot), stream.source.local_addr()?)?;
            ring.connect(Port::rtcp(slot), stream.sink.local_addr()?)?;
        }
        streams.push(stream);
    }
    let mut targets = Vec::new();
    for stream in &streams {
        targets.push(if connected { None } else { Some(stream.sink.local_addr()?) });
    }
    let plan = WaitPlan { timeout: Duration::from_millis(1), batch: Duration::ZERO };
    // Let the ring settle into its connected receives.
    for _ in 0..10 {
        ring.wait(plan)?;
        ring.receive(PACKETS, |_, _| Disposition::Consumed);
    }
    let mut syscalls = 0;
    let nanos = measure(&streams, || {
        let before = ring.counters().syscalls;
        let mut done = 0;
        while done < PACKETS {
            ring.wait(plan)?;
            done += ring.receive(PACKETS, |meta, bytes| {
                let (port, target) = (Port::rtcp(meta.port.slot), targets[meta.port.slot as usize]);
                Disposition::Forward(Transmit { port, target, len: bytes.len() })
            });
        }
        ring.flush()?;
        syscalls += ring.counters().syscalls - before;
        Ok(())
    })?;
    Ok(Cost { nanos, syscalls: syscalls as f64 / (PACKETS * ROUNDS) as f64 })
}

fn through_epoll(count: usize, connected: bool) -> Outcome<Cost> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = Vec::new();
    for slot in 0..count {
        let stream = Stream::new(connected)?;
        epoll::add(&poll, &stream.input, epoll::EventData::new_u64(slot as u64), epoll::EventFlags::IN)?;
        streams.push(stream);
    }
    let targets: Vec<SocketAddr> = streams.iter().map(|stream| stream.sink.local_addr()).collect::<Result<_, _>>()?;
    let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
    let mut syscalls = 0u64;
    let nanos = measure(&streams, || {
        let mut bytes = [0; 2048];
        let mut done = 0;
        while done < PACKETS {
            events.clear();
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
            syscalls += 1;
            for event in &events {
                let stream = &streams[usize::try_from(event.data.u64())?];
                loop {
                    syscalls += 1;
                    let len = if connected {
                        stream.input.recv(&mut bytes)
                    } else {
                        stream.input.recv_from(&mut bytes).map(|(len, _)| len)
                    };
                    let Ok(len) = len else { break };
                    syscalls += 1;
                    if connected {
                        stream.output.send(&bytes[..len])?;
                    } else {
                        stream.output.send_to(&bytes[..len], targets[usize::try_from(event.data.u64())?])?;
                    }
                    done += 1;
                }
            }
        }
        Ok(())
    })?;
    Ok(Cost { nanos, syscalls: syscalls as f64 / (PACKETS * ROUNDS) as f64 })
}

/// Runs the rounds; `forward` is to send on all packets of one.
fn measure(streams: &[Stream], mut forward: impl FnMut() -> Outcome<()>) -> Outcome<u64> {
    let mut costs = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        for stream in streams.iter().cycle().take(PACKETS) {
            stream.source.send(&PACKET)?;
        }
        let before = cpu_nanos();
        forward()?;
        costs.push((cpu_nanos() - before) / PACKETS as u64);
        let mut arrived = 0;
        for stream in streams {
            while stream.sink.recv(&mut [0; 256]).is_ok() {
                arrived += 1;
            }
        }
        assert_eq!(arrived, PACKETS, "packets were lost");
    }
    costs.sort_unstable();
    Ok(costs[ROUNDS / 2])
}

fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
