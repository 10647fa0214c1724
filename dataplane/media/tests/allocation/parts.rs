//! A conference in parts: sums travel in boxes that are used again.

use super::*;
use ringbridge_media::command::Rate;
use ringbridge_media::parts::{Partial, Parts};

const ENGINES: u8 = 3;
const MEMBERS: u32 = 8;
const ROOM: ConferenceId = ConferenceId::new(ShardId(0), 0, 1);
const WIDE_ROOM: ConferenceId = ConferenceId::new(ShardId(1), 0, 1);

struct Shards {
    engines: Vec<Engine>,
    now: Instant,
    /// Sums on their way, with the millisecond in which they arrive.
    flying: Vec<(u64, Box<Partial>)>,
    packets_out: u64,
    sent: u64,
    exchanged: u64,
    queue: Arc<RecordQueue>,
    recorded: u64,
}

impl Shards {
    fn command(&mut self, shard: u8, command: Command) {
        let engine = &mut self.engines[usize::from(shard)];
        engine.handle_command(self.now, Request { token: 0, received: self.now, command });
        while let Some(event) = engine.poll_event() {
            if let Event::Answer { result, .. } = event {
                result.unwrap();
            }
        }
        self.drain(shard);
    }

    fn drain(&mut self, shard: u8) {
        let ms = self.now.as_nanos() / 1_000_000;
        let mut slot = [0; DATAGRAM_BYTES_MAX];
        let engine = &mut self.engines[usize::from(shard)];
        while engine.poll_transmit(&mut slot).is_some() {
            self.packets_out += 1;
        }
        while engine.poll_event().is_some() {}
        while engine.poll_port_action().is_some() {}
        while let Some(partial) = engine.poll_partial() {
            // Some are lost, some late, and some overtake others.
            self.sent += 1;
            match self.sent % 97 {
                0 => engine.drop_partial(partial),
                1 => self.flying.push((ms + 8, partial)),
                n => self.flying.push((ms + n % 3, partial)),
            }
        }
        while self.queue.chunks.pop().is_some() {
            self.recorded += 1;
        }
    }

    fn step(&mut self, ms: u64) {
        for shard in 0..ENGINES {
            for member in (0..2 * MEMBERS).filter(|member| u64::from(*member) == ms % 20) {
                let n = (ms / 20) as u32;
                let mut bytes = [0x90; RTP_HEADER_BYTES + 160];
                if !(n / 100 + member).is_multiple_of(3) {
                    bytes[RTP_HEADER_BYTES..].fill(0xff);
                }
                let header = RtpHeader {
                    marker: false,
                    payload_type: 0,
                    sequence_number: SeqNumber(n as u16),
                    timestamp: RtpTimestamp(n * 160),
                    ssrc: Ssrc(member),
                };
                header.emit(bytes.first_chunk_mut().unwrap());
                let meta = DatagramMeta { port: Port::rtp(member), source: Some(address(member)), truncated: false };
                self.engines[usize::from(shard)].handle_datagram(self.now, &meta, &mut bytes);
                self.drain(shard);
            }
            while self.engines[usize::from(shard)].poll_timeout().is_some_and(|due| due <= self.now) {
                self.engines[usize::from(shard)].handle_timeout(self.now);
                self.drain(shard);
            }
        }
        let mut at = 0;
        while at < self.flying.len() {
            if self.flying[at].0 > self.now.as_nanos() / 1_000_000 {
                at += 1;
                continue;
            }
            let (_, partial) = self.flying.swap_remove(at);
            let shard = partial.to().0;
            self.engines[usize::from(shard)].handle_partial(self.now, partial);
            self.exchanged += 1;
            self.drain(shard);
        }
        self.now = self.now + Duration::from_millis(1);
    }
}

#[test]
fn parts_allocate_nothing_once_warm() {
    let now = Instant::from_millis(1_000);
    let mut shards = Shards {
        engines: (0..ENGINES).map(|shard| Engine::with_slots(ShardId(shard), 1, now, 64, 64)).collect(),
        now,
        flying: Vec::with_capacity(64),
        packets_out: 0,
        sent: 0,
        exchanged: 0,
        queue: Arc::new(RecordQueue::new(64)),
        recorded: 0,
    };
    for (id, rate) in [(ROOM, Rate::Narrow), (WIDE_ROOM, Rate::Full)] {
        let spec = ConferenceSpec { tones: true, rate, ..ConferenceSpec::default() };
        for shard in 0..ENGINES {
            let slot = if shard == id.shard().0 { id.slot_number() } else { 20 + u32::from(id.shard().0) };
            let parts = Box::new(Parts { shards: (0..ENGINES).map(ShardId).collect(), epoch: now });
            shards.command(shard, Command::CreatePart { id, slot, spec, parts });
        }
    }
    for shard in 0..ENGINES {
        for member in 0..2 * MEMBERS {
            let id = ConnectionId::new(ShardId(shard), member, 1);
            let spec = ConnectionSpec { remote: Some(address(member)), ..ConnectionSpec::default() };
            shards.command(shard, Command::CreateConnection { id, spec: Box::new(spec) });
            let role = match (shard, member % MEMBERS) {
                (0, 1) => Role::Coach,
                (1, 1) => Role::Pupil,
                (_, 2) => Role::Monitor,
                _ => Role::Party,
            };
            shards.command(
                shard,
                Command::JoinConference {
                    conference: if member < MEMBERS { ROOM } else { WIDE_ROOM },
                    connection: id,
                    participant: ParticipantSpec { role, ..ParticipantSpec::default() },
                },
            );
        }
    }
    let prompt: Arc<[i16]> = vec![2_000i16; 16_000 * 60].into();
    let playlist = Box::new(Playlist { prompts: vec![Prompt::Whole(prompt)], rate: Rate::Wide });
    let until = StopConditions::default();
    let play = OperationSpec::Play { playlist, volume: None, speed: None, isolate: false, until };
    let record = OperationSpec::Record { queue: Arc::clone(&shards.queue), until };
    for (operation, number) in [play, record].into_iter().zip(1..) {
        let id = OperationId::new(ShardId(0), number, 1);
        shards.command(
            0,
            Command::StartOperation { id, target: Target::Conference(ROOM), operation: Box::new(operation) },
        );
    }
    let mut ms = 0;
    while ms < 10_000 {
        shards.step(ms);
        ms += 1;
    }
    let before = (shards.packets_out, shards.exchanged, shards.recorded);
    let late = shards.engines.iter().map(|engine| engine.totals().partials_late).sum::<u64>();
    let allocated = allocations();
    while ms < 30_000 {
        shards.step(ms);
        ms += 1;
    }
    let allocated = allocations() - allocated;
    assert!(shards.packets_out - before.0 > 40_000, "{}", shards.packets_out - before.0);
    assert!(shards.exchanged - before.1 > 20_000, "{}", shards.exchanged - before.1);
    assert!(shards.recorded - before.2 > 900, "{}", shards.recorded - before.2);
    assert!(shards.engines.iter().map(|engine| engine.totals().partials_late).sum::<u64>() - late > 100);
    assert_eq!(allocated, 0);
}
