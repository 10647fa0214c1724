//! An endpoint in a conference that sends what it should not. Each row says under which name that is counted; and the
//! listener's stream goes on without a gap, and hears the endpoint again as soon as it sends what it should.

use ringbridge_codec::Rate;
use ringbridge_media::command::{CodecKind, ConnectionChange, ConnectionSpec, OperationSpec, StopConditions, Target};
use ringbridge_media::event::{Condition, DropReason, Event};
use ringbridge_media::id::ConnectionId;
use ringbridge_media::limits::{DIGITS_MAX, SOURCE_BURST_PACKETS};
use ringbridge_media::port::{Disposition, Port};
use ringbridge_wire::rtcp::CompoundWriter;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES_MAX, RtpHeader, RtpPacket};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};
use ringbridge_wire::xr::{Delay, XrContents};

use crate::bench::{Bench, Voice, address, amplitude, check_stream, play_for, rtp, spec};
use CodecKind::{G722, Gsm, L16, Opus, Pcma, Pcmu};

/// What the hostile endpoint says when it behaves. Whole waves fit a frame, so that one left out to keep step is not
/// heard.
const TONE_HZ: f64 = 500.0;
const TONE: Voice = Voice::Tone(TONE_HZ, 8_000.0);

/// A hostile phone, 0, and a listener, 1, in a room.
struct Scene {
    bench: Bench,
    hostile: ConnectionId,
    drops: u64,
}

impl Scene {
    fn new() -> Self {
        Self::of(|_| {})
    }

    fn of(change: impl FnOnce(&mut ConnectionSpec)) -> Self {
        let mut bench = Bench::new();
        let room = bench.room();
        let mut hostile = ConnectionSpec { remote: Some(address(0)), ..spec(Pcmu, 20) };
        change(&mut hostile);
        let hostile = bench.phone_with(hostile);
        let listener = bench.phone(Pcmu, 20);
        bench.join(room, hostile);
        bench.join(room, listener);
        // Who says nothing: with three there is a mix.
        let third = bench.phone(Pcmu, 20);
        bench.join(room, third);
        bench.say(0, TONE, 0);
        bench.say(1, Voice::Silence, 0);
        let mut scene = Self { bench, hostile, drops: 0 };
        scene.is_heard("at the beginning");
        scene
    }

    /// The endpoint behaves for a while, and is heard, with nothing counted meanwhile.
    #[track_caller]
    fn is_heard(&mut self, when: &str) {
        // What was sent before has been played by then.
        self.bench.run(1_000);
        self.drops = self.bench.engine.totals().drops.total();
        let from = self.bench.heard_by(1).len();
        self.bench.run(500);
        let loudness = self.loudness(from);
        assert!((7_500.0..8_500.0).contains(&loudness), "{when}: {loudness}");
        assert_eq!(self.bench.engine.totals().drops.total(), self.drops, "{when}: {:?}", self.bench.engine.totals());
        check_stream(&self.bench.heard_by(1));
    }

    fn loudness(&self, from: usize) -> f64 {
        let samples: Vec<i16> = self
            .bench
            .heard_by(1)
            .iter()
            .skip(from)
            .flat_map(|packet| crate::bench::decode(&packet.payload, Pcmu))
            .collect();
        amplitude(&samples, TONE_HZ)
    }

    /// The endpoint sends these bytes.
    fn send(&mut self, bytes: &[u8]) -> Disposition {
        self.bench.deliver(Port::rtp(0), address(0), bytes)
    }

    /// The header its next packet would have.
    fn header(&self) -> RtpHeader {
        let phone = &self.bench.phones[0];
        RtpHeader {
            marker: false,
            payload_type: 0,
            sequence_number: SeqNumber(phone.sequence),
            timestamp: RtpTimestamp(phone.timestamp),
            ssrc: Ssrc(phone.ssrc),
        }
    }

    /// Its next packet of 20 ms with something else before the payload; its own stream goes on behind it.
    fn framed(&mut self, first: u8, head: &[u8]) -> Vec<u8> {
        let mut bytes = self.bench.phones[0].packet();
        bytes[0] = first;
        bytes.splice(12..12, head.iter().copied());
        bytes
    }

    /// Expects that `packets` were dropped for `reason` since the last time it behaved, and nothing else was.
    #[track_caller]
    fn dropped(&mut self, reason: DropReason, before: u64, packets: u64) {
        assert_eq!(self.bench.drops(reason) - before, packets, "{}: {:?}", reason.name(), self.bench.engine.totals());
        let total = self.bench.engine.totals().drops.total();
        assert_eq!(total - self.drops, packets, "{} alone: {:?}", reason.name(), self.bench.engine.totals());
    }
}

#[test]
fn payload_types_that_were_not_negotiated_are_not_decoded() {
    let mut scene = Scene::new();
    let header = scene.header();
    // RTP that could be RTCP, with the marker, is not even looked at.
    let types: Vec<u8> = (1..128).filter(|number| *number != 101).collect();
    for (n, payload_type) in (0..).zip(&types) {
        let header = RtpHeader {
            payload_type: *payload_type,
            sequence_number: SeqNumber(header.sequence_number.0.wrapping_add(n)),
            ..header
        };
        let mut bytes = [0x55; 172];
        header.emit(bytes.first_chunk_mut().unwrap());
        assert_eq!(scene.send(&bytes), Disposition::Consumed);
    }
    scene.dropped(DropReason::PayloadType, 0, types.len() as u64);
    scene.bench.phones[0].sequence = header.sequence_number.0.wrapping_add(types.len() as u16);
    scene.is_heard("after payload types of all kinds");
}

#[test]
fn a_codec_that_changes_in_mid_stream_changes_at_a_packet() {
    let mut scene = Scene::new();
    for round in 0..6 {
        let codec = if round % 2 == 0 { Pcma } else { Pcmu };
        let change = ConnectionChange {
            rx_codec: Some((codec, codec.static_payload_type().unwrap())),
            tx_codec: Some((codec, codec.static_payload_type().unwrap())),
            ..ConnectionChange::default()
        };
        scene.bench.modify(scene.hostile, change).unwrap();
        // What was under way is of the old codec.
        let before = scene.bench.drops(DropReason::PayloadType);
        for _ in 0..3 {
            scene.bench.send_from(0);
        }
        scene.dropped(DropReason::PayloadType, before, 3);
        scene.bench.phones[0].codec = codec;
        scene.is_heard("in the new codec");
        let sent = scene.bench.heard_by(0);
        let last = sent.last().unwrap();
        assert_eq!(last.header.payload_type, codec.static_payload_type().unwrap());
        check_stream(&sent);
    }
}

#[test]
fn another_ssrc_waits_until_the_first_is_silent() {
    let mut scene = Scene::new();
    let before = scene.bench.drops(DropReason::ForeignSsrc);
    let header = scene.header();
    for n in 0..100_u16 {
        let header = RtpHeader { ssrc: Ssrc(0x9000 + u32::from(n % 3)), sequence_number: SeqNumber(n / 3), ..header };
        let mut bytes = [0x80; 172];
        header.emit(bytes.first_chunk_mut().unwrap());
        scene.send(&bytes);
    }
    scene.dropped(DropReason::ForeignSsrc, before, 100);
    scene.is_heard("beside foreign SSRCs");
    // It changes its SSRC in earnest: what comes in the first 200 ms is foreign, then one more.
    let before = scene.bench.drops(DropReason::ForeignSsrc);
    scene.bench.phones[0].ssrc ^= 1;
    scene.bench.run(1_000);
    let foreign = scene.bench.drops(DropReason::ForeignSsrc) - before;
    assert!((10..=12).contains(&foreign), "{foreign} foreign");
    scene.is_heard("under its new SSRC");
    assert_eq!(scene.bench.status(scene.hostile).ssrc_in, Some(scene.bench.phones[0].ssrc));
}

#[test]
fn a_collision_of_ssrcs_is_resolved_once_and_the_endpoint_is_heard() {
    let mut scene = Scene::new();
    let ours = scene.bench.heard_by(0)[0].header.ssrc;
    scene.bench.hush(0);
    scene.bench.run(500);
    scene.bench.phones[0].ssrc = ours.0;
    scene.bench.say(0, TONE, 0);
    scene.is_heard("under our own SSRC");
    let last = scene.bench.heard_by(0).last().unwrap().header.ssrc;
    assert_ne!(last, ours, "we have taken another");
    // It follows us again and again: an echo, for all we know.
    for _ in 0..5 {
        scene.bench.hush(0);
        scene.bench.run(500);
        scene.bench.phones[0].ssrc = scene.bench.heard_by(0).last().unwrap().header.ssrc.0;
        scene.bench.say(0, TONE, 0);
        scene.is_heard("under our next SSRC");
    }
    assert_eq!(scene.bench.status(scene.hostile).counters.ssrc_collisions, 1);
}

#[test]
fn timestamps_that_jump_by_a_day_begin_a_new_timeline() {
    const DAY: u32 = 24 * 3600 * 8000;
    for jump in [DAY, DAY.wrapping_neg(), 1 << 31, 8000, 8000_u32.wrapping_neg()] {
        let mut scene = Scene::new();
        let lost = scene.bench.status(scene.hostile).cumulative_lost;
        for _ in 0..3 {
            scene.bench.phones[0].timestamp = scene.bench.phones[0].timestamp.wrapping_add(jump);
            scene.is_heard("behind a jump of its timestamps");
        }
        let status = scene.bench.status(scene.hostile);
        assert_eq!(status.cumulative_lost, lost, "nothing was lost");
        assert!(status.jitter_ms < 100.0, "{jump}: {} ms", status.jitter_ms);
    }
}

#[test]
fn one_packet_from_another_day_is_dropped_and_nothing_else_is() {
    let mut scene = Scene::new();
    let header = scene.header();
    for (n, (ahead, reason)) in
        [(86_400_u32 * 8000, DropReason::Early), ((86_400_u32 * 8000).wrapping_neg(), DropReason::Late)]
            .into_iter()
            .enumerate()
    {
        let (before, drops) = (scene.bench.drops(reason), scene.bench.engine.totals().drops.total());
        let header = RtpHeader {
            timestamp: RtpTimestamp(header.timestamp.0.wrapping_add(ahead)),
            sequence_number: SeqNumber(scene.bench.phones[0].sequence),
            ..header
        };
        scene.bench.phones[0].sequence = scene.bench.phones[0].sequence.wrapping_add(1);
        let mut bytes = [0x80; 172];
        header.emit(bytes.first_chunk_mut().unwrap());
        scene.send(&bytes);
        assert_eq!(scene.bench.drops(reason) - before, 1, "row {n}: {:?}", scene.bench.engine.totals());
        assert_eq!(scene.bench.engine.totals().drops.total() - drops, 1);
        scene.is_heard("beside a packet from another day");
    }
}

#[test]
fn sequence_numbers_wrap_and_jump() {
    let mut scene = Scene::new();
    assert!(scene.bench.phones[0].sequence < 1_000, "it has wrapped by now");
    assert_eq!(scene.bench.status(scene.hostile).cumulative_lost, 0);
    for jump in [1_u16 << 15, 40_000, 1, 65_535, 3_000, 65_500, 65_400] {
        scene.bench.phones[0].sequence = scene.bench.phones[0].sequence.wrapping_add(jump);
        scene.is_heard("behind a jump of its sequence numbers");
    }
    let lost = scene.bench.status(scene.hostile).cumulative_lost;
    assert!((-100_000..300_000).contains(&lost), "no more than the jumps: {lost}");
}

#[test]
fn payloads_of_no_length_are_not_played() {
    let mut scene = Scene::new();
    let before = scene.bench.drops(DropReason::PayloadSize);
    for padded in [false, true] {
        for _ in 0..5 {
            let header = scene.header();
            let phone = &mut scene.bench.phones[0];
            phone.sequence = phone.sequence.wrapping_add(1);
            let mut bytes = rtp(header.ssrc.0, header.sequence_number.0, header.timestamp.0, 0, &[]);
            if padded {
                // Padding alone is no payload either.
                bytes[0] |= 0x20;
                bytes.extend_from_slice(&[0, 0, 0, 4]);
            }
            scene.send(&bytes);
        }
    }
    scene.dropped(DropReason::PayloadSize, before, 10);
    scene.is_heard("behind payloads of no length");
}

#[test]
fn payloads_of_200_ms_are_not_played() {
    let mut scene = Scene::new();
    let before = scene.bench.drops(DropReason::PayloadSize);
    for _ in 0..5 {
        let header = scene.header();
        let phone = &mut scene.bench.phones[0];
        phone.sequence = phone.sequence.wrapping_add(1);
        scene.send(&rtp(header.ssrc.0, header.sequence_number.0, header.timestamp.0, 0, &[0x80; 1_600]));
    }
    scene.dropped(DropReason::PayloadSize, before, 5);
    scene.is_heard("behind payloads of 200 ms");
}

#[test]
fn payloads_that_no_codec_writes_are_refused_or_decoded_and_the_stream_goes_on() {
    for codec in [Opus, G722, Gsm, L16(Rate::Wide)] {
        let mut scene = Scene::of(|spec| {
            (spec.rx_codec, spec.rx_payload_type) = (codec, codec.payload_type());
        });
        scene.bench.hush(0);
        let before = scene.bench.drops(DropReason::PayloadSize);
        // Two seconds of packets, each corrupt in its own way: what tells how to read the rest, its length, or any byte.
        for n in 0..100_usize {
            let mut bytes = scene.bench.phones[0].packet();
            let len = bytes.len();
            match n % 4 {
                0 => bytes[12] = (n * 37 % 256) as u8,
                1 => bytes.truncate(12 + n * 31 % (len - 12)),
                2 => bytes[12..].iter_mut().for_each(|byte| *byte ^= (n * 91 % 256) as u8),
                _ => bytes.extend_from_slice(&[(n % 256) as u8; 17]),
            }
            assert_eq!(scene.send(&bytes), Disposition::Consumed);
            scene.bench.run(20);
        }
        let refused = scene.bench.drops(DropReason::PayloadSize) - before;
        // Opus says itself how it is to be read, so that much can be refused at once; any length fits G.722.
        assert!(codec == G722 || refused > 0, "{codec}");
        // A payload that claims to be longer than it was makes those behind it late.
        let late = scene.bench.drops(DropReason::Late);
        assert_eq!(scene.bench.engine.totals().drops.total() - scene.drops, refused + late, "{codec}");
        scene.bench.say(0, TONE, 0);
        scene.is_heard(codec.name());
        assert_eq!(scene.bench.count(|event| matches!(event, Event::ConnectionEnded { .. })), 0);
    }
}

#[test]
fn rtcp_that_lies_about_its_lengths_and_counts_is_dropped_whole() {
    let mut scene = Scene::of(|spec| spec.rtcp_mux = true);
    let report = [&[0x80, 201, 0, 1, 0, 0, 0, 1][..], &[0x81, 203, 0, 1, 0, 0, 0, 1]].concat();
    let mut lies = Vec::new();
    for at in [0, 8] {
        for count in 2..32 {
            let mut lie = report.clone();
            lie[at] = 0x80 | count;
            lies.push(lie);
        }
        for words in [0_u16, 2, 3, 0x7FFF, 0xFFFF] {
            let mut lie = report.clone();
            lie[at + 2..at + 4].copy_from_slice(&words.to_be_bytes());
            lies.push(lie);
        }
        let mut padded = report.clone();
        padded[at] |= 0x20;
        lies.push(padded);
    }
    // A first packet that swallows the second, or a BYE with fewer sources than bytes: odd, but not wrong.
    lies.retain(|lie| ringbridge_wire::rtcp::parse_compound(lie).is_err());
    assert!(lies.len() > 60, "{}", lies.len());
    let before = scene.bench.drops(DropReason::NotRtcp);
    for lie in &lies {
        let mut source = address(0);
        source.set_port(source.port() + 1);
        scene.bench.deliver(Port::rtcp(0), source, lie);
    }
    scene.dropped(DropReason::NotRtcp, before, lies.len() as u64);
    scene.is_heard("beside RTCP that lies");
    let status = scene.bench.status(scene.hostile);
    assert!(status.quality.told.is_none() && !status.quality.bye);
}

#[test]
fn extended_reports_that_lie_tell_nothing() {
    let mut scene = Scene::of(|spec| spec.rtcp_reports = true);
    let ours = scene.bench.heard_by(0)[0].header.ssrc;
    let delays = [Delay { ssrc: ours, last_rr: 1, delay_since_last_rr: u32::MAX / 2 }];
    let contents = XrContents { delays: &delays, ..XrContents::default() };
    let mut honest = [0; 64];
    let mut writer = CompoundWriter::new(&mut honest);
    writer.extended_report(Ssrc(scene.bench.phones[0].ssrc), &contents).unwrap();
    let len = writer.len();
    let honest = honest[..len].to_vec();
    let mut source = address(0);
    source.set_port(source.port() + 1);
    for (at, byte) in [(8, 4), (8, 7), (8, 255), (10, 0xFF), (11, 0), (11, 1), (11, 4), (11, 255)] {
        let mut lie = honest.clone();
        lie[at] = byte;
        assert_eq!(scene.bench.deliver(Port::rtcp(0), source, &lie), Disposition::Consumed);
        scene.bench.run(20);
    }
    assert_eq!(scene.bench.deliver(Port::rtcp(0), source, &honest), Disposition::Consumed, "a round trip of hours");
    assert_eq!(scene.bench.status(scene.hostile).quality.round_trip_ms, None);
    scene.is_heard("beside reports that lie");
}

#[test]
fn header_extensions_of_absurd_length_are_no_packets() {
    let mut scene = Scene::new();
    let before = scene.bench.drops(DropReason::NotRtp);
    let rows: [(u8, &[u8]); 5] = [
        (0x90, &[0xBE, 0xDE, 0xFF, 0xFF]),
        (0x90, &[0xBE, 0xDE, 0, 42]),
        (0x90, &[0x10, 0x00, 0x40, 0]),
        (0x9F, &[]),
        (0xB0, &[0xBE, 0xDE, 0x7F, 0xFF]),
    ];
    for (first, head) in rows {
        let mut bytes = scene.framed(first, head);
        if first == 0x9F {
            // Fifteen sources, and no room for them.
            bytes.truncate(50);
        }
        assert_eq!(scene.send(&bytes), Disposition::Consumed);
    }
    scene.dropped(DropReason::NotRtp, before, rows.len() as u64);
    scene.is_heard("beside extensions of absurd length");
}

#[test]
fn an_extension_that_leaves_no_payload_leaves_nothing_to_play() {
    let mut scene = Scene::new();
    let before = scene.bench.drops(DropReason::PayloadSize);
    // The 160 bytes of the payload are 40 words.
    let bytes = scene.framed(0x90, &[0xBE, 0xDE, 0, 40]);
    scene.send(&bytes);
    scene.dropped(DropReason::PayloadSize, before, 1);
    scene.is_heard("beside a packet that is all extension");
}

#[test]
fn elements_and_levels_that_lie_change_nothing() {
    let mut scene = Scene::new();
    scene.bench.hush(0);
    scene.bench.run(200);
    let from = scene.bench.heard_by(1).len();
    // One second of sound in packets whose extensions say that it is silent, of others, and endless.
    let rows: [(u8, &[u8]); 6] = [
        (0x90, &[0xBE, 0xDE, 0, 1, 0x10, 0xFF, 0, 0]),
        (0x90, &[0xBE, 0xDE, 0, 1, 0x1F, 0, 0, 0]),
        (0x90, &[0x10, 0x00, 0, 1, 1, 255, 0, 0]),
        (0x90, &[0xBE, 0xDE, 0, 0]),
        (0x92, &[0, 0, 0, 1, 0, 0, 0, 2, 0xBE, 0xDE, 0, 4, 0x2F, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        (0x91, &[0, 0, 0, 1, 0xFF, 0xFF, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]),
    ];
    for n in 0..50 {
        let (first, head) = rows[n % rows.len()];
        let bytes = scene.framed(first, head);
        assert!(RtpPacket::parse(&bytes).unwrap().payload().len() == 160, "row {}", n % rows.len());
        scene.send(&bytes);
        scene.bench.run(20);
    }
    let loudness = scene.loudness(from);
    assert!(loudness > 6_000.0, "{loudness}");
    // More sources than there are, and levels of none of them.
    let mut bytes = vec![0; RTP_HEADER_BYTES_MAX];
    let len = scene.header().emit_with(&mut bytes, &[7; 20], Some((200, &[0xFF; 40]))).unwrap();
    bytes.truncate(len);
    let phone = &mut scene.bench.phones[0];
    (phone.sequence, phone.timestamp) = (phone.sequence.wrapping_add(1), phone.timestamp.wrapping_add(160));
    bytes.extend_from_slice(&[0x80; 160]);
    assert_eq!(scene.send(&bytes), Disposition::Consumed);
    assert_eq!(scene.bench.engine.totals().drops.total(), scene.drops, "nothing is dropped");
    scene.bench.say(0, TONE, 20);
    scene.is_heard("after elements that lie");
}

#[test]
fn a_telephone_event_that_never_ends_is_one_digit_and_holds_nothing_up() {
    let mut scene = Scene::new();
    let gather = scene.bench.gather(scene.hostile, StopConditions { digits_max: Some(1), ..StopConditions::default() });
    let play = scene.bench.start(
        Target::Connection(scene.hostile),
        play_for(2_000, StopConditions { digit: crate::bench::set("9"), ..StopConditions::default() }),
    );
    scene.bench.hush(0);
    // Ten seconds of packets of one event, the longest there is, without an end.
    for n in 1..500_u16 {
        scene.bench.send_event(0, b'5', false, n.saturating_mul(160));
        scene.bench.run(20);
        if n == 3 {
            let ended = scene.bench.gathered();
            assert_eq!(ended, [(gather, Condition::MaxDigits, "5".to_owned())], "at its first packet");
        }
    }
    let ended = scene.bench.ended();
    let (_, condition, elapsed_ms) = ended.iter().find(|(id, ..)| *id == play).unwrap();
    assert_eq!((*condition, *elapsed_ms), (Condition::Eod, 2_000), "played to its end, in its time");
    assert_eq!(scene.bench.digits(scene.hostile), "", "the digit was gathered, and there is no other");
    assert_eq!(scene.bench.reported(), "", "it has not ended");
    // The next digit ends the silence about digits.
    scene.bench.phones[0].timestamp = scene.bench.phones[0].timestamp.wrapping_add(80_000);
    scene.bench.press(0, b'7');
    assert_eq!((scene.bench.digits(scene.hostile), scene.bench.reported()), ("7".to_owned(), "7".to_owned()));
    scene.bench.say(0, TONE, 0);
    scene.is_heard("after an event that never ended");
}

#[test]
fn a_flood_of_telephone_events_fills_a_buffer_of_31_digits_and_no_more() {
    let mut scene = Scene::new();
    scene.bench.hush(0);
    scene.bench.run(500);
    let before = scene.bench.drops(DropReason::RateLimited);
    let flood = SOURCE_BURST_PACKETS + 1_000;
    for _ in 0..flood {
        scene.bench.send_event(0, b'1', false, 160);
        let phone = &mut scene.bench.phones[0];
        phone.timestamp = phone.timestamp.wrapping_add(160);
    }
    let dropped = scene.bench.drops(DropReason::RateLimited) - before;
    assert!((900..=1_000).contains(&dropped), "{dropped} of {flood}");
    assert_eq!(scene.bench.digits(scene.hostile).len(), DIGITS_MAX);
    assert_eq!(scene.bench.count(|event| matches!(event, Event::Digit { .. })), 0, "none has ended");
    // And one that gathers them is served at once.
    let until = StopConditions { digits_max: Some(31), ..StopConditions::default() };
    let operation = OperationSpec::GatherDigits { flush: false, until };
    scene.bench.start(Target::Connection(scene.hostile), operation);
    scene.bench.run(40);
    assert_eq!(scene.bench.gathered()[0].2.len(), DIGITS_MAX);
    scene.bench.run(5_000);
    scene.bench.say(0, TONE, 0);
    scene.is_heard("after a flood of events");
}

#[test]
fn events_of_no_meaning_are_no_digits() {
    let mut scene = Scene::new();
    let header = RtpHeader { payload_type: 101, ..scene.header() };
    for (n, payload) in (0..).zip([&[][..], &[5], &[5, 0x80, 1], &[16, 0x80, 1, 0], &[255, 0x80, 1, 0]]) {
        let header = RtpHeader {
            sequence_number: SeqNumber(header.sequence_number.0.wrapping_add(n)),
            timestamp: RtpTimestamp(header.timestamp.0.wrapping_add(u32::from(n) * 800)),
            ..header
        };
        let mut bytes = [0; 16];
        header.emit(bytes.first_chunk_mut().unwrap());
        bytes[12..12 + payload.len()].copy_from_slice(payload);
        assert_eq!(scene.send(&bytes[..12 + payload.len()]), Disposition::Consumed);
    }
    scene.bench.phones[0].sequence = header.sequence_number.0.wrapping_add(5);
    assert_eq!((scene.bench.digits(scene.hostile), scene.bench.reported()), (String::new(), String::new()));
    scene.is_heard("after events of no meaning");
}
