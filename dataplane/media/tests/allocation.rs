//! The packet path allocates nothing once it is warm: relaying, passing on, mixing with all roles and tones, and every
//! operation.
#![expect(unsafe_code, reason = "a global allocator that counts")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "small numbers of our own, known to be there"
)]

#[path = "allocation/parts.rs"]
mod parts;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringbridge_codec::{Rate, g711};
use ringbridge_media::command::{
    CodecKind, Command, ConferenceSpec, ConnectionSpec, DigitSource, OperationSpec, ParticipantSpec, PlayAdjust,
    PlayChange, Request, Role, StopConditions, Target, ToneSpec,
};
use ringbridge_media::digits::{DigitSet, Digits};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::Event;
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::limits::DATAGRAM_BYTES_MAX;
use ringbridge_media::port::{DatagramMeta, Disposition, Port};
use ringbridge_media::samples::{Playlist, Prompt, RecordQueue};
use ringbridge_media::time::Instant;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};

/// Counts what the present thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

const SHARD: ShardId = ShardId(0);
const ROOMS: u32 = 100;
const MEMBERS: u32 = 10;
const RELAYS: u32 = 50;
/// Phones that press digits: tones in the audio, and telephone-events.
const LISTENERS: u32 = 40;
const EVENT_SENDERS: u32 = 40;
const PHONES: u32 = ROOMS * MEMBERS + 2 * RELAYS + LISTENERS + EVENT_SENDERS;

#[test]
fn the_counter_counts() {
    let before = allocations();
    let boxed = std::hint::black_box(Box::new(1u64));
    assert_eq!(allocations(), before + 1);
    let mut grown = vec![*boxed; 1];
    grown.reserve_exact(100);
    std::hint::black_box(grown);
    assert_eq!(allocations(), before + 3);
}

/// Whether a pair is not relayed, but patched as a hairpin that can't be decoded.
const fn is_hairpin(pair: u32) -> bool {
    pair % 2 == 1
}

/// Whether a pair is not relayed, but two in a conference who need no mix.
const fn is_direct(pair: u32) -> bool {
    pair % 4 == 2
}

fn address(slot: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, (slot >> 8) as u8, slot as u8], 4000))
}

struct World {
    engine: Engine,
    now: Instant,
    queues: Vec<Arc<RecordQueue>>,
    packets_out: u64,
    forwarded: u64,
    recorded: u64,
    ended: u64,
    digits: u64,
}

impl World {
    fn command(&mut self, command: Command) {
        self.engine.handle_command(self.now, Request { token: 0, received: self.now, command });
        while let Some(event) = self.engine.poll_event() {
            if let Event::Answer { result, .. } = event {
                result.unwrap();
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        while self.engine.poll_transmit(&mut slot).is_some() {
            self.packets_out += 1;
        }
        while let Some(event) = self.engine.poll_event() {
            self.ended += u64::from(matches!(event, Event::OperationEnded { .. }));
            self.digits += u64::from(matches!(event, Event::Digit { .. }));
        }
        while self.engine.poll_port_action().is_some() {}
        for queue in &self.queues {
            while queue.chunks.pop().is_some() {
                self.recorded += 1;
            }
        }
    }

    /// One millisecond: the phones whose turn it is send, some of it lost, late or twice; then what is due.
    fn step(&mut self, ms: u64) {
        for phone in (0..PHONES).filter(|phone| u64::from(*phone) % 20 == ms % 20) {
            let n = (ms / 20) as u32;
            let fate = n.wrapping_mul(31).wrapping_add(phone * 17) % 50;
            if fate == 0 {
                continue;
            }
            let n = if fate == 1 { n.saturating_sub(8) } else { n };
            self.send(phone, n);
            if fate == 2 {
                self.send(phone, n);
            }
        }
        while self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.now + Duration::from_millis(1);
    }

    fn send(&mut self, phone: u32, n: u32) {
        let mut bytes = [0; RTP_HEADER_BYTES + 160];
        // Ten seconds of talk, ten seconds of pause, so that talk begins and ends.
        let loud = (n / 500 + phone).is_multiple_of(2);
        bytes[RTP_HEADER_BYTES..].fill(if loud { 0x90 } else { 0xff });
        if phone >= PHONES - LISTENERS {
            // A digit of 100 ms every second.
            if n % 50 < 5 {
                for (at, byte) in bytes[RTP_HEADER_BYTES..].iter_mut().enumerate() {
                    let turns = f64::from(n * 160 + at as u32) / 8_000.0 * std::f64::consts::TAU;
                    let sample = ((turns * 697.0).sin() + (turns * 1209.0).sin()) * 4_000.0;
                    g711::encode_ulaw(&[sample as i16], std::slice::from_mut(byte));
                }
            } else {
                bytes[RTP_HEADER_BYTES..].fill(0xff);
            }
        }
        // Now and then a telephone-event takes the place of the audio.
        let is_event =
            (PHONES - LISTENERS - EVENT_SENDERS..PHONES - LISTENERS).contains(&phone) && n.is_multiple_of(10);
        if is_event {
            bytes[RTP_HEADER_BYTES..RTP_HEADER_BYTES + 4].copy_from_slice(&[5, 0x80, 0, 160]);
        }
        let header = RtpHeader {
            marker: false,
            payload_type: if is_event { 101 } else { 0 },
            sequence_number: SeqNumber(n as u16),
            timestamp: RtpTimestamp(n * 160 + phone),
            ssrc: Ssrc(phone),
        };
        header.emit(bytes.first_chunk_mut().unwrap());
        let meta = DatagramMeta { port: Port::rtp(phone), source: Some(address(phone)), truncated: false };
        if let Disposition::Forward(_) = self.engine.handle_datagram(self.now, &meta, &mut bytes) {
            self.forwarded += 1;
        }
        self.drain();
    }
}

#[test]
fn relaying_mixing_and_operations_allocate_nothing_once_warm() {
    let now = Instant::from_millis(1_000);
    let mut world = World {
        engine: Engine::new(SHARD, 1, now),
        now,
        queues: Vec::new(),
        packets_out: 0,
        forwarded: 0,
        recorded: 0,
        ended: 0,
        digits: 0,
    };
    for slot in 0..PHONES {
        let pair = slot.checked_sub(ROOMS * MEMBERS).map(|beyond| beyond / 2);
        let hairpin = pair.is_some_and(|pair| pair < RELAYS && is_hairpin(pair));
        let direct = pair.is_some_and(|pair| pair < RELAYS && is_direct(pair));
        let rx_codec = if hairpin { CodecKind::G729 } else { CodecKind::Pcmu };
        let tx_codec = match slot % 2 {
            _ if hairpin => CodecKind::G729,
            _ if direct => CodecKind::Pcmu,
            0 => CodecKind::Pcmu,
            _ => CodecKind::Pcma,
        };
        let spec = ConnectionSpec {
            remote: Some(address(slot)),
            rx_codec,
            rx_payload_type: rx_codec.payload_type(),
            tx_codec,
            tx_payload_type: tx_codec.payload_type(),
            ptime_ms: if hairpin || direct { 20 } else { [10, 20, 30, 40][slot as usize % 4] },
            rtp_timeout_ms: Some(100 + slot * 7 % 900),
            handover: slot % 3 == 0,
            digit_source: if slot >= PHONES - LISTENERS || slot % 50 == 7 {
                DigitSource::Auto
            } else {
                DigitSource::Events
            },
            ..ConnectionSpec::default()
        };
        world.command(Command::CreateConnection { id: connection(slot), spec: Box::new(spec) });
    }
    let prompt: Arc<[i16]> = vec![2_000i16; 48_000 * 60].into();
    for n in 0..ROOMS {
        let id = ConferenceId::new(SHARD, n, 1);
        let tones = n % 2 == 0;
        world.command(Command::CreateConference { id, spec: ConferenceSpec { tones, ..ConferenceSpec::default() } });
        for member in 0..MEMBERS {
            let role = match member {
                1 if n % 4 == 0 => Role::Coach,
                2 if n % 4 == 0 => Role::Pupil,
                3 | 4 if n % 4 == 0 => Role::Monitor,
                _ => Role::Party,
            };
            world.command(Command::JoinConference {
                conference: id,
                connection: connection(n * MEMBERS + member),
                participant: ParticipantSpec {
                    gain_db: (member % 3) as i16,
                    role,
                    tariff_tone: role != Role::Coach && member % 2 == 0,
                    ..ParticipantSpec::default()
                },
            });
        }
        world.operate(2 * n, Target::Conference(id), &prompt);
    }
    for n in 0..RELAYS {
        let (a, b) = (ROOMS * MEMBERS + 2 * n, ROOMS * MEMBERS + 2 * n + 1);
        if is_hairpin(n) || is_direct(n) {
            let conference = ConferenceId::new(SHARD, ROOMS + n, 1);
            let spec = ConferenceSpec { hairpin: true, ..ConferenceSpec::default() };
            world.command(Command::CreateConference { id: conference, spec });
            for slot in [a, b] {
                let (connection, participant) = (connection(slot), ParticipantSpec::default());
                world.command(Command::JoinConference { conference, connection, participant });
            }
            continue;
        }
        world.command(Command::StartRelay { a: connection(a), b: connection(b), transcode: false });
        if n % 5 == 0 {
            world.operate(1_000 + 2 * n, Target::Connection(connection(b)), &prompt);
        }
    }

    for n in 0..LISTENERS + EVENT_SENDERS {
        world.listen(2_000 + 3 * n, connection(ROOMS * MEMBERS + 2 * RELAYS + n), n, &prompt);
    }

    // Once through everything, pauses included.
    let mut ms = 0;
    while ms < 25_000 {
        world.step(ms);
        ms += 1;
    }
    assert!(world.ended == 0, "everything runs");
    let before = (world.packets_out, world.forwarded, world.recorded, world.digits);
    let direct = world.engine.totals().direct;
    let allocated = allocations();
    while ms < 35_000 {
        world.step(ms);
        ms += 1;
    }
    let allocated = allocations() - allocated;
    assert!(world.packets_out - before.0 > 400_000, "{}", world.packets_out - before.0);
    assert!(world.forwarded - before.1 > 30_000, "{}", world.forwarded - before.1);
    assert!(world.recorded - before.2 > 50_000, "{}", world.recorded - before.2);
    assert!(world.digits - before.3 > 1_000, "{}", world.digits - before.3);
    assert!(world.engine.totals().direct - direct > 5_000, "{}", world.engine.totals().direct - direct);
    assert_eq!(world.ended, 0, "everything still runs");
    assert_eq!(allocated, 0);
}

impl World {
    /// Gathers, detects, and plays at another speed or a tone.
    fn listen(&mut self, operation: u32, connection: ConnectionId, n: u32, prompt: &Arc<[i16]>) {
        let target = Target::Connection(connection);
        let until = StopConditions {
            digit: DigitSet::parse("D"),
            digit_list: DigitSet::parse("ABC"),
            digit_pattern: Digits::parse("99"),
            max_time_ms: Some(3_600_000),
            silence_ms: Some(3_600_000),
            nonsilence_ms: Some(3_600_000),
            ..StopConditions::default()
        };
        let heard = if n.is_multiple_of(2) {
            let rate = Rate::ALL[operation as usize / 2 % 3];
            let playlist = Box::new(Playlist { prompts: vec![Prompt::Whole(Arc::clone(prompt))], rate });
            OperationSpec::Play { playlist, volume: None, speed: Some(-3), isolate: true, until }
        } else {
            let tone = ToneSpec { first: (600, -10), second: Some((900, -20)) };
            OperationSpec::Tone { tone, duration_ms: None, isolate: false, until }
        };
        let operations = [
            heard,
            OperationSpec::GatherDigits { flush: false, until },
            match n % 3 {
                0 => OperationSpec::DetectSilence { until },
                1 => OperationSpec::DetectNonSilence { until },
                _ => OperationSpec::GatherDigits { flush: true, until },
            },
        ];
        for (spec, number) in operations.into_iter().zip(operation..) {
            let id = OperationId::new(SHARD, number, 1);
            self.command(Command::StartOperation { id, target, operation: Box::new(spec) });
        }
        let change = PlayChange { adjust: PlayAdjust::VolumeBy(-2), only_if_playing: false };
        self.command(Command::AdjustPlay { target, change });
    }

    /// Plays and records on `target`.
    fn operate(&mut self, operation: u32, target: Target, prompt: &Arc<[i16]>) {
        // That of its clock, or another.
        let rate = Rate::ALL[operation as usize / 2 % 3];
        let playlist = Box::new(Playlist { prompts: vec![Prompt::Whole(Arc::clone(prompt))], rate });
        let play = OperationSpec::Play {
            playlist,
            volume: None,
            speed: None,
            isolate: false,
            until: StopConditions::default(),
        };
        let id = OperationId::new(SHARD, operation, 1);
        self.command(Command::StartOperation { id, target, operation: Box::new(play) });
        let queue = Arc::new(RecordQueue::with_rate(Rate::ALL[operation as usize % 3], 64));
        self.queues.push(Arc::clone(&queue));
        let record = OperationSpec::Record { queue, until: StopConditions::default() };
        let id = OperationId::new(SHARD, operation + 1, 1);
        self.command(Command::StartOperation { id, target, operation: Box::new(record) });
    }
}

fn connection(slot: u32) -> ConnectionId {
    ConnectionId::new(SHARD, slot, 1)
}
