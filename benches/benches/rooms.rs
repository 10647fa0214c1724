//! What conferences cost: rooms of ten on one shard, and a large one on one shard and in parts on several. Engines alone,
//! on virtual time, by the CPU clock of the thread; all members have one format. Packets are made, but not sent.

use std::net::SocketAddr;
use std::time::Duration;

use comfy_table::Table;
use ringbridge_codec::{Encoder, EncoderSettings};
use ringbridge_media::command::{CodecKind, Command, ConferenceSpec, ConnectionSpec, ParticipantSpec, Rate, Request};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::Event;
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::limits::{DATAGRAM_BYTES_MAX, FRAME_MS};
use ringbridge_media::parts::{Partial, Parts};
use ringbridge_media::port::{DatagramMeta, Port};
use ringbridge_media::time::Instant;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};

/// Members of the large room, and who of them talk.
const LARGE: Size = Size { rooms: 1, members: 2_000, talkers: 3 };
const SMALL: Size = Size { rooms: 10, members: 10, talkers: 2 };
const PTIME_MS: u32 = 20;
const WARM_MS: u64 = 2_000;
const MEASURED_MS: u64 = 10_000;

/// How many rooms, of how many members each, of whom how many talk.
#[derive(Clone, Copy)]
struct Size {
    rooms: u32,
    members: u32,
    talkers: u32,
}

const FORMATS: [(CodecKind, Rate); 3] =
    [(CodecKind::Pcmu, Rate::Narrow), (CodecKind::G722, Rate::Wide), (CodecKind::Opus, Rate::Full)];

fn main() {
    small_rooms();
    large_room();
}

fn small_rooms() {
    let mut table = Table::new();
    table.set_header(["members", "mix", "ns per member and frame", "members a core"]);
    for (codec, rate) in FORMATS {
        let mut room = Room::new(codec, rate, 1, SMALL);
        room.run(WARM_MS);
        let before = room.cpu_ns[0];
        room.run(MEASURED_MS);
        let frames = MEASURED_MS / u64::from(FRAME_MS) * u64::from(SMALL.rooms * SMALL.members);
        let each = (room.cpu_ns[0] - before) / frames;
        let a_core = u64::from(FRAME_MS) * 1_000_000 / each.max(1);
        table.add_row([codec.to_string(), format!("{} Hz", rate.hz()), each.to_string(), a_core.to_string()]);
    }
    let Size { rooms, members, talkers } = SMALL;
    println!("{rooms} rooms of {members}, of whom {talkers} talk; {MEASURED_MS} ms of media, no I/O\n{table}");
}

fn large_room() {
    let mut table = Table::new();
    table.set_header([
        "listeners",
        "mix",
        "shards",
        "ns per member and frame",
        "busiest shard, % of a core",
        "partials",
    ]);
    for (codec, rate) in FORMATS {
        for shards in [1, 2, 4] {
            let mut room = Room::new(codec, rate, shards, LARGE);
            room.run(WARM_MS);
            let before = (room.cpu_ns.clone(), room.exchanged, room.packets_out);
            room.run(MEASURED_MS);
            let spent: Vec<u64> = room.cpu_ns.iter().zip(&before.0).map(|(after, before)| after - before).collect();
            let frames = MEASURED_MS / u64::from(FRAME_MS);
            assert_eq!(room.packets_out - before.2, u64::from(LARGE.members) * MEASURED_MS / u64::from(PTIME_MS));
            let total: u64 = spent.iter().sum();
            let busiest = spent.iter().copied().max().unwrap_or(0);
            table.add_row([
                codec.to_string(),
                format!("{} Hz", rate.hz()),
                shards.to_string(),
                (total / frames / u64::from(LARGE.members)).to_string(),
                format!("{:.2}", busiest as f64 / (MEASURED_MS * 10_000) as f64),
                (room.exchanged - before.1).to_string(),
            ]);
        }
    }
    println!("{} members, {} talk; {MEASURED_MS} ms of media\n{table}", LARGE.members, LARGE.talkers);
}

struct Room {
    size: Size,
    codec: CodecKind,
    engines: Vec<Engine>,
    /// What each engine has spent.
    cpu_ns: Vec<u64>,
    now: Instant,
    /// What a talker says, packet by packet, over and over.
    packets: Vec<Vec<u8>>,
    sent: u32,
    packets_out: u64,
    exchanged: u64,
    #[expect(clippy::vec_box, reason = "partials change hands as they are")]
    arriving: Vec<Box<Partial>>,
}

impl Room {
    fn new(codec: CodecKind, rate: Rate, shards: u8, size: Size) -> Self {
        let now = Instant::from_millis(1_000);
        let mut room = Self {
            size,
            codec,
            engines: (0..shards).map(|shard| Engine::new(ShardId(shard), 1, now)).collect(),
            cpu_ns: vec![0; usize::from(shards)],
            now,
            packets: speech(codec),
            sent: 0,
            packets_out: 0,
            exchanged: 0,
            arriving: Vec::new(),
        };
        let spec = ConferenceSpec { rate, ..ConferenceSpec::default() };
        for number in 0..size.rooms {
            let id = room_id(number);
            for shard in 0..shards {
                let command = if shards == 1 {
                    Command::CreateConference { id, spec }
                } else {
                    let parts = Parts { shards: (0..shards).map(ShardId).collect(), epoch: now };
                    let slot = if shard == 0 { id.slot_number() } else { 77 };
                    Command::CreatePart { id, slot, spec, parts: Box::new(parts) }
                };
                room.command(usize::from(shard), command);
            }
        }
        for member in 0..size.rooms * size.members {
            let (shard, id) = room.place(member);
            let spec = ConnectionSpec {
                remote: Some(address(member)),
                rx_codec: codec,
                rx_payload_type: codec.payload_type(),
                tx_codec: codec,
                tx_payload_type: codec.payload_type(),
                ptime_ms: PTIME_MS,
                rtcp_reports: false,
                ..ConnectionSpec::default()
            };
            room.command(shard, Command::CreateConnection { id, spec: Box::new(spec) });
            let participant = ParticipantSpec::default();
            let conference = room_id(member / size.members);
            room.command(shard, Command::JoinConference { conference, connection: id, participant });
        }
        room
    }

    /// The members are dealt out in turn.
    fn place(&self, member: u32) -> (usize, ConnectionId) {
        let shard = member as usize % self.engines.len();
        let home = ShardId(u8::try_from(shard).expect("few shards"));
        (shard, ConnectionId::new(home, member, 1))
    }

    fn command(&mut self, shard: usize, command: Command) {
        self.engines[shard].handle_command(self.now, Request { token: 0, received: self.now, command });
        while let Some(event) = self.engines[shard].poll_event() {
            if let Event::Answer { result, .. } = event {
                result.expect("it can be done");
            }
        }
        self.drain(shard);
        self.exchange();
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now + Duration::from_millis(1);
            if (self.now.as_nanos() / 1_000_000).is_multiple_of(u64::from(PTIME_MS)) {
                self.talk();
            }
            for shard in 0..self.engines.len() {
                let began = cpu_ns();
                while self.engines[shard].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.engines[shard].handle_timeout(self.now);
                    self.drain(shard);
                }
                self.cpu_ns[shard] += cpu_ns() - began;
            }
            self.exchange();
        }
    }

    fn talk(&mut self) {
        let Size { rooms, members, talkers } = self.size;
        for talker in (0..rooms).flat_map(|room| (0..talkers).map(move |talker| room * members + talker)) {
            let (shard, _) = self.place(talker);
            let payload = &self.packets[self.sent as usize % self.packets.len()];
            let mut bytes = [0; RTP_HEADER_BYTES + 1_500];
            let header = RtpHeader {
                marker: false,
                payload_type: self.codec.payload_type(),
                #[expect(clippy::cast_possible_truncation, reason = "a sequence number wraps")]
                sequence_number: SeqNumber(self.sent as u16),
                timestamp: RtpTimestamp(self.sent * (self.codec.clock_rate_hz() / 1_000 * PTIME_MS)),
                ssrc: Ssrc(talker),
            };
            header.emit(bytes.first_chunk_mut().expect("room for a header"));
            let len = RTP_HEADER_BYTES + payload.len();
            bytes[RTP_HEADER_BYTES..len].copy_from_slice(payload);
            let meta = DatagramMeta { port: Port::rtp(talker), source: Some(address(talker)), truncated: false };
            let began = cpu_ns();
            self.engines[shard].handle_datagram(self.now, &meta, &mut bytes[..len]);
            self.drain(shard);
            self.cpu_ns[shard] += cpu_ns() - began;
        }
        self.sent += 1;
    }

    fn exchange(&mut self) {
        while let Some(partial) = self.arriving.pop() {
            let shard = usize::from(partial.to().0);
            self.exchanged += 1;
            let began = cpu_ns();
            self.engines[shard].handle_partial(self.now, partial);
            self.drain(shard);
            self.cpu_ns[shard] += cpu_ns() - began;
        }
    }

    fn drain(&mut self, shard: usize) {
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        let engine = &mut self.engines[shard];
        while engine.poll_transmit(&mut slot).is_some() {
            self.packets_out += 1;
        }
        while engine.poll_event().is_some() {}
        while engine.poll_port_action().is_some() {}
        while let Some(partial) = engine.poll_partial() {
            self.arriving.push(partial);
        }
    }
}

fn room_id(number: u32) -> ConferenceId {
    ConferenceId::new(ShardId(0), number, 1)
}

/// A second of something like a voice: a tone whose height and loudness change.
fn speech(codec: CodecKind) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(codec, EncoderSettings::default()).expect("it can be encoded");
    let hz = codec.rate().hz();
    let packet_samples = (hz / 1_000 * PTIME_MS) as usize;
    let sample = |at: f64| {
        let loudness = 3_000.0 * (1.0 + (at * 25.0).sin());
        #[expect(clippy::cast_possible_truncation, reason = "far below the largest sample")]
        let sample = (loudness * (at * 1_300.0 + 3.0 * (at * 12.0).sin()).sin()) as i16;
        sample
    };
    let samples: Vec<i16> = (0..hz).map(|n| sample(f64::from(n) / f64::from(hz))).collect();
    let encode = |samples: &[i16]| {
        let mut payload = vec![0; 1_500];
        let len = encoder.encode(samples, &mut payload).expect("room for a packet");
        payload.truncate(len);
        payload
    };
    samples.chunks_exact(packet_samples).map(encode).collect()
}

fn address(member: u32) -> SocketAddr {
    let [_, high, middle, low] = member.to_be_bytes();
    SocketAddr::from(([10, high, middle, low], 4_000))
}

fn cpu_ns() -> u64 {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0)
}
