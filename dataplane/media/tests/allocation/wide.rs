//! Conferences of codecs with a state: shared encoders, encoders of one's own and changes between them, losses that the
//! codecs conceal, and prompts.

use ringbridge_codec::{Encoder, EncoderSettings};
use ringbridge_media::command::Rate;
use ringbridge_media::event::Answer;

use super::*;

const SETTINGS: EncoderSettings = EncoderSettings { bitrate: 24_000, fec: true, dtx: false };
/// Each in a room of four, whose rates differ.
const FORMATS: [(CodecKind, u32, Rate); 6] = [
    (CodecKind::Opus, 20, Rate::Full),
    (CodecKind::Opus, 60, Rate::Wide),
    (CodecKind::Opus, 10, Rate::Narrow),
    (CodecKind::G722, 20, Rate::Wide),
    (CodecKind::Gsm, 20, Rate::Narrow),
    (CodecKind::L16(Rate::Wide), 20, Rate::Full),
];
const MEMBERS: u32 = 4;

struct Room {
    /// What its talkers say, in packets, again and again.
    said: Vec<Vec<u8>>,
    codec: CodecKind,
    ptime_ms: u32,
}

/// Three seconds that end where they begin, nearly.
fn said(codec: CodecKind, ptime_ms: u32) -> Vec<Vec<u8>> {
    let rate = codec.rate().hz();
    let mut encoder = Encoder::new(codec, SETTINGS).unwrap();
    let samples: Vec<i16> = (0..3 * rate)
        .map(|n| {
            let turns = f64::from(n) / f64::from(rate) * std::f64::consts::TAU;
            let voice: f64 = (1..8).map(|k| (turns * f64::from(140 * k)).sin() / f64::from(k)).sum();
            ((turns / 3.0).sin().abs() * voice * 5_000.0) as i16
        })
        .collect();
    let mut bytes = [0; 1500];
    let packet = |samples: &[i16]| {
        let len = encoder.encode(samples, &mut bytes).unwrap();
        bytes[..len].to_vec()
    };
    samples.chunks_exact((rate / 1000 * ptime_ms) as usize).map(packet).collect()
}

#[test]
fn rooms_of_codecs_with_a_state_allocate_nothing_once_warm() {
    let mut engine = Engine::with_slots(SHARD, 1, Instant::from_millis(1_000), 64, 64);
    let mut now = Instant::from_millis(1_000);
    let command = |engine: &mut Engine, now, command| {
        engine.handle_command(now, Request { token: 0, received: now, command });
        while let Some(event) = engine.poll_event() {
            if let Event::Answer { result, .. } = event {
                result.unwrap();
            }
        }
    };
    let prompt: Arc<[i16]> = vec![2_000i16; 8_000 * 60].into();
    let rooms: Vec<Room> = FORMATS
        .into_iter()
        .zip(0..)
        .map(|((codec, ptime_ms, rate), room)| {
            let id = ConferenceId::new(SHARD, room, 1);
            let spec = ConferenceSpec { rate, ..ConferenceSpec::default() };
            command(&mut engine, now, Command::CreateConference { id, spec });
            for slot in room * MEMBERS..(room + 1) * MEMBERS {
                let spec = ConnectionSpec {
                    remote: Some(address(slot)),
                    rx_codec: codec,
                    rx_payload_type: codec.payload_type(),
                    tx_codec: codec,
                    tx_payload_type: codec.payload_type(),
                    ptime_ms,
                    encoder: SETTINGS,
                    ..ConnectionSpec::default()
                };
                command(&mut engine, now, Command::CreateConnection { id: connection(slot), spec: Box::new(spec) });
                let participant = ParticipantSpec::default();
                let join = Command::JoinConference { conference: id, connection: connection(slot), participant };
                command(&mut engine, now, join);
            }
            // The last member hears a prompt of his own.
            let playlist =
                Box::new(Playlist { prompts: vec![Prompt::Whole(Arc::clone(&prompt))], ..Playlist::default() });
            let until = StopConditions::default();
            let play = OperationSpec::Play { playlist, volume: None, speed: None, isolate: false, until };
            let target = Target::Connection(connection(room * MEMBERS + MEMBERS - 1));
            let id = OperationId::new(SHARD, room, 1);
            command(&mut engine, now, Command::StartOperation { id, target, operation: Box::new(play) });
            Room { said: said(codec, ptime_ms), codec, ptime_ms }
        })
        .collect();
    let (mut packets_out, mut allocated_before, mut out_before) = (0_u64, 0, 0);
    let mut slot = [0; DATAGRAM_BYTES_MAX];
    for ms in 0..24_000_u64 {
        if ms == 12_000 {
            (allocated_before, out_before) = (allocations(), packets_out);
        }
        for (room, at) in rooms.iter().zip(0..) {
            let n = ms / u64::from(room.ptime_ms);
            // The first talks on and on, the second now and then; each twentieth packet is lost, and three in a row.
            for talker in 0..2 {
                let talks = talker == 0 || ms % 3_000 < 1_300;
                let is_lost = (n + 7 * talker) % 20 == 3 || (n + talker) % 90 < 3;
                if !ms.is_multiple_of(u64::from(room.ptime_ms)) || !talks || is_lost {
                    continue;
                }
                let payload = &room.said[(n as usize + 40 * talker as usize) % room.said.len()];
                let mut bytes = [0; RTP_HEADER_BYTES + 1500];
                let len = RTP_HEADER_BYTES + payload.len();
                bytes[RTP_HEADER_BYTES..len].copy_from_slice(payload);
                let phone = at * MEMBERS + talker as u32;
                let header = RtpHeader {
                    marker: false,
                    payload_type: room.codec.payload_type(),
                    sequence_number: SeqNumber(n as u16),
                    timestamp: RtpTimestamp(n as u32 * room.ptime_ms * room.codec.clock_rate_hz() / 1000),
                    ssrc: Ssrc(phone),
                };
                header.emit(bytes.first_chunk_mut().unwrap());
                let meta = DatagramMeta { port: Port::rtp(phone), source: Some(address(phone)), truncated: false };
                engine.handle_datagram(now, &meta, &mut bytes[..len]);
            }
        }
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
            while engine.poll_transmit(&mut slot).is_some() {
                packets_out += 1;
            }
        }
        while engine.poll_event().is_some() {}
        while engine.poll_port_action().is_some() {}
        now = now + Duration::from_millis(1);
    }
    let allocated = allocations() - allocated_before;
    assert!(packets_out - out_before > 12_000, "{}", packets_out - out_before);
    for room in 0..FORMATS.len() as u32 {
        let concealed = concealed(&mut engine, now, connection(room * MEMBERS));
        assert!(concealed > 5_000, "room {room}: {concealed}");
    }
    assert_eq!(allocated, 0);
}

/// Samples of a member that were made up.
fn concealed(engine: &mut Engine, now: Instant, id: ConnectionId) -> u64 {
    engine.handle_command(now, Request { token: 0, received: now, command: Command::InspectConnection { id } });
    let mut concealed = 0;
    while let Some(event) = engine.poll_event() {
        if let Event::Answer { result: Ok(Answer::Connection(status)), .. } = event {
            concealed = status.counters.concealed_samples;
        }
    }
    concealed
}
