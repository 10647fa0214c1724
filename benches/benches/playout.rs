//! A frame of 10 ms through the jitter buffer, packets that come and samples that are due: beside a plain ring of 60 ms that
//! never changes, on the same packets of 20 ms, and the decoder alone. Both fill holes, so that the difference is what it
//! takes to follow the network.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use comfy_table::Table;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use ringbridge_codec::conceal::Concealment;
use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings};
use ringbridge_media::playout::Playout;
use ringbridge_media::time::Instant;
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

const CODECS: [(&str, CodecKind); 3] =
    [("pcmu", CodecKind::Pcmu), ("g722", CodecKind::G722), ("opus", CodecKind::Opus)];
const NETWORKS: [(&str, Network); 4] = [
    ("steady", Network::Steady),
    ("jitter, exponential, 40 ms", Network::Jitter),
    ("5 % lost", Network::Loss),
    ("bursts of 500 ms", Network::Bursts),
];

const FRAME_US: u64 = 10_000;
const PACKET_US: u64 = 20_000;
/// A minute, over and over.
const PACKETS: u64 = 3_000;
const PAYLOAD_BYTES_MAX: usize = 1_440;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    let mut table = Table::new();
    table.set_header(["codec", "network", "decoder", "playout", "fixed ring", "ratio", "heard", "fixed: heard"]);
    let mut group = criterion.benchmark_group(format!("playout/{}", ringbridge_codec::instruction_set()));
    for (codec, kind) in CODECS {
        let packets = speech(kind);
        let decoder = decode(&mut group, codec, kind, &packets);
        for (name, network) in NETWORKS {
            let arrivals = network.arrivals();
            let ours = Line::new(kind, &arrivals, &packets, Playout::new(kind));
            let (ours, heard) = measure(&mut group, &format!("{codec}/{name}/playout"), ours);
            let ring = Line::new(kind, &arrivals, &packets, FixedRing::new(kind));
            let (ring, ring_heard) = measure(&mut group, &format!("{codec}/{name}/fixed-ring"), ring);
            // What a filter left out has no figure.
            let ratio = ours / ring;
            if ratio.is_finite() {
                let percent = |share: f64| format!("{:.1} %", 100.0 * share);
                table.add_row([
                    codec.to_owned(),
                    name.to_owned(),
                    format!("{decoder:.0} ns"),
                    format!("{ours:.0} ns"),
                    format!("{ring:.0} ns"),
                    format!("{ratio:.2}"),
                    percent(heard),
                    percent(ring_heard),
                ]);
            }
        }
    }
    group.finish();
    criterion.final_summary();
    println!("10 ms of one stream\n{table}");
}

/// When packets come.
#[derive(Clone, Copy)]
enum Network {
    Steady,
    Jitter,
    Loss,
    Bursts,
}

impl Network {
    /// Packets by number and when they come, in microseconds, in the order in which they do.
    fn arrivals(self) -> Vec<(u64, u64)> {
        let mut random = 7_u64;
        let mut dice = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a second at most, and not negative"
        )]
        let mut exponential = |mean: f64| (-mean * (1.0 - dice()).max(1e-9).ln()) as u64;
        let mut arrivals: Vec<(u64, u64)> = match self {
            Self::Steady => (0..PACKETS).map(|n| (n * PACKET_US, n)).collect(),
            Self::Jitter => (0..PACKETS).map(|n| (n * PACKET_US + exponential(40_000.0), n)).collect(),
            Self::Loss => (0..PACKETS).filter(|_| dice() >= 0.05).map(|n| (n * PACKET_US, n)).collect(),
            // As many at once as last until the next ones come.
            Self::Bursts => (0..PACKETS).map(|n| (n / 25 * 25 * PACKET_US, n)).collect(),
        };
        arrivals.sort_unstable();
        arrivals
    }
}

/// A buffer for one stream.
trait Buffer {
    fn push(&mut self, now: Instant, sequence: SeqNumber, timestamp: RtpTimestamp, payload: &[u8]);
    /// Whether anything of the frame came from the network.
    fn pull(&mut self, now: Instant, frame: &mut [i16]) -> bool;
}

impl Buffer for Playout {
    fn push(&mut self, now: Instant, sequence: SeqNumber, timestamp: RtpTimestamp, payload: &[u8]) {
        // What comes too late is refused.
        let _ = self.push(now, sequence, timestamp, false, payload);
    }

    fn pull(&mut self, now: Instant, frame: &mut [i16]) -> bool {
        self.pull(now, frame).heard
    }
}

/// The rival: a packet is played 60 ms after it would have come as fast as the first one, or not at all.
struct FixedRing {
    decoder: Decoder,
    slots: Vec<Slot>,
    /// The packet that is played, and when it is due.
    next: Option<(SeqNumber, Instant)>,
    /// It is played in two frames.
    packet: Vec<i16>,
    half: usize,
    is_here: bool,
    /// For a codec that has no way of its own to fill a hole, with what it looks at.
    concealment: Concealment,
    heard: Vec<i16>,
}

#[derive(Clone)]
struct Slot {
    sequence: Option<SeqNumber>,
    len: usize,
    payload: [u8; PAYLOAD_BYTES_MAX],
}

impl FixedRing {
    const DELAY: Duration = Duration::from_millis(60);
    /// More than a second of packets.
    const SLOTS: usize = 64;

    fn new(kind: CodecKind) -> Self {
        let concealment = Concealment::with_rate(kind.rate());
        Self {
            decoder: Decoder::new(kind).expect("it can be decoded"),
            slots: vec![Slot { sequence: None, len: 0, payload: [0; PAYLOAD_BYTES_MAX] }; Self::SLOTS],
            next: None,
            packet: vec![0; 2 * kind.rate().frame_samples()],
            half: 0,
            is_here: false,
            heard: vec![0; concealment.history()],
            concealment,
        }
    }

    fn index(sequence: SeqNumber) -> usize {
        usize::from(sequence.0) % Self::SLOTS
    }

    /// Decodes the packet that is due, or fills the hole.
    fn fill(&mut self, sequence: SeqNumber) {
        let slot = &mut self.slots[Self::index(sequence)];
        self.is_here = slot.sequence.take_if(|here| *here == sequence).is_some();
        if self.is_here && self.decoder.decode(&slot.payload[..slot.len], &mut self.packet).is_ok() {
            self.concealment.join(&mut self.packet);
        } else if self.decoder.conceal(&mut self.packet) != Ok(true) {
            if !self.concealment.is_active() {
                self.concealment.begin(&self.heard);
            }
            self.concealment.fill(&mut self.packet);
        }
        let len = self.packet.len();
        self.heard.copy_within(len.., 0);
        let end = self.heard.len() - len;
        self.heard[end..].copy_from_slice(&self.packet);
    }
}

impl Buffer for FixedRing {
    fn push(&mut self, now: Instant, sequence: SeqNumber, _: RtpTimestamp, payload: &[u8]) {
        let (next, _) = *self.next.get_or_insert((sequence, now + Self::DELAY));
        let ahead = usize::try_from(sequence.distance_from(next)).unwrap_or(usize::MAX);
        if ahead < Self::SLOTS {
            let slot = &mut self.slots[Self::index(sequence)];
            (slot.sequence, slot.len) = (Some(sequence), payload.len());
            slot.payload[..payload.len()].copy_from_slice(payload);
        }
    }

    fn pull(&mut self, now: Instant, frame: &mut [i16]) -> bool {
        let Some((next, due)) = self.next.filter(|(_, due)| *due <= now || self.half == 1) else {
            frame.fill(0);
            return false;
        };
        if self.half == 0 {
            self.fill(next);
            self.next = Some((next.next(), due + Duration::from_micros(PACKET_US)));
        }
        let at = self.half * frame.len();
        frame.copy_from_slice(&self.packet[at..at + frame.len()]);
        self.half = 1 - self.half;
        self.is_here
    }
}

/// A stream that goes on for ever, through a buffer.
struct Line<'a, B> {
    arrivals: &'a [(u64, u64)],
    packets: &'a [Vec<u8>],
    buffer: B,
    ticks: u32,
    now_us: u64,
    /// Of the arrivals, and how often all have come.
    next: usize,
    rounds: u64,
    frame: Vec<i16>,
    frames: u64,
    heard: u64,
}

impl<'a, B: Buffer> Line<'a, B> {
    fn new(kind: CodecKind, arrivals: &'a [(u64, u64)], packets: &'a [Vec<u8>], buffer: B) -> Self {
        Self {
            arrivals,
            packets,
            buffer,
            ticks: kind.clock_rate_hz() / 50,
            now_us: 0,
            next: 0,
            rounds: 0,
            frame: vec![0; kind.rate().frame_samples()],
            frames: 0,
            heard: 0,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "numbers of packets and timestamps wrap")]
    fn frame(&mut self) {
        self.now_us += FRAME_US;
        loop {
            let (at, n) = self.arrivals[self.next];
            let at = at + self.rounds * PACKETS * PACKET_US;
            if at > self.now_us {
                break;
            }
            let n = n + self.rounds * PACKETS;
            let payload = &self.packets[n as usize % self.packets.len()];
            let timestamp = RtpTimestamp((n as u32).wrapping_mul(self.ticks));
            self.buffer.push(Instant::from_nanos(at * 1_000), SeqNumber(n as u16), timestamp, black_box(payload));
            self.next += 1;
            if self.next == self.arrivals.len() {
                (self.next, self.rounds) = (0, self.rounds + 1);
            }
        }
        self.heard += u64::from(self.buffer.pull(Instant::from_nanos(self.now_us * 1_000), &mut self.frame));
        self.frames += 1;
        black_box(&self.frame);
    }
}

/// What a frame takes in nanoseconds, and what share of all frames was heard.
fn measure<B: Buffer>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut line: Line<'_, B>) -> (f64, f64) {
    let each = median_of(group, name, || line.frame());
    (each, line.heard as f64 / line.frames as f64)
}

/// What half a packet takes to be decoded.
fn decode(group: &mut BenchmarkGroup<'_, WallTime>, codec: &str, kind: CodecKind, packets: &[Vec<u8>]) -> f64 {
    let mut decoder = Decoder::new(kind).expect("it can be decoded");
    let mut out = vec![0; 2 * kind.rate().frame_samples()];
    let mut next = packets.iter().cycle();
    let each = median_of(group, &format!("{codec}/a packet decoded"), || {
        if let Some(packet) = next.next() {
            decoder.decode(black_box(packet), &mut out).expect("a packet of our own");
        }
        black_box(&out);
    });
    each / 2.0
}

/// Has it measured; nanoseconds of one in the middle of all samples.
fn median_of(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut once: impl FnMut()) -> f64 {
    let samples = RefCell::new(Vec::new());
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let began = cpu_time();
            (0..times).for_each(|_| once());
            let took = cpu_time() - began;
            samples.borrow_mut().push(took.as_secs_f64() * 1e9 / times as f64);
            took
        });
    });
    let mut samples = samples.into_inner();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What this thread has spent: other work on the machine does not count.
fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

/// Four seconds of something like a voice, in packets.
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
fn speech(kind: CodecKind) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(kind, EncoderSettings::default()).expect("it can be encoded");
    let hz = kind.rate().hz();
    let sample = |n: u32| {
        let t = f64::from(n) / f64::from(hz);
        let phase = (150.0 * t + 3.0 * (2.0 * t).sin()) * std::f64::consts::TAU;
        let voiced: f64 = (1..20).map(|k| (f64::from(k) * phase).sin() / f64::from(k)).sum();
        ((3.0 * t * std::f64::consts::TAU).sin().max(0.0) * voiced * 6_000.0) as i16
    };
    let samples: Vec<i16> = (0..4 * hz).map(sample).collect();
    let packets = samples.chunks_exact(2 * kind.rate().frame_samples());
    let encode = |samples: &[i16]| {
        let mut payload = vec![0; PAYLOAD_BYTES_MAX];
        let len = encoder.encode(samples, &mut payload).expect("room for a packet");
        payload.truncate(len);
        payload
    };
    packets.map(encode).collect()
}
