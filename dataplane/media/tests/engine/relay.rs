//! A relay leaves everything as it is; a prompt played into it makes a stream of our own, and that stays.

use ringbridge_media::command::{CodecKind, Command, ConnectionSpec, Target};
use ringbridge_media::event::{ConnectionState, Event};
use ringbridge_media::port::{Disposition, Port};
use ringbridge_wire::rtp::RtpPacket;

use crate::bench::{Bench, Voice, address, decode, recorded, rtcp, rtp, spec, stair, stamp};
use CodecKind::{Pcma, Pcmu};

fn relayed() -> Bench {
    let mut bench = Bench::new();
    let (a, b) = (bench.phone(Pcmu, 20), bench.phone(Pcma, 30));
    bench.relay(a, b);
    bench
}

#[test]
fn packets_pass_untouched_in_the_order_they_came() {
    let mut bench = relayed();
    // Lost, reordered, duplicated, marked, of any type and length, with extension and CSRCs.
    let mut marked = rtp(7, 4, 640, 0, &[3; 160]);
    marked[1] |= 0x80;
    let mut extended = rtp(7, 5, 800, 96, &[]);
    extended[0] |= 0x12;
    extended.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0xbe, 0xde, 0, 1, 0x10, 0x55, 0, 0, 9, 9, 9]);
    let packets = [
        rtp(7, 1, 160, 0, &[1; 160]),
        rtp(7, 3, 480, 0, &[2; 160]),
        rtp(7, 2, 320, 0, &[4; 160]),
        rtp(7, 2, 320, 0, &[4; 160]),
        marked,
        extended,
        rtp(7, 9, 1440, 101, &[1, 0x8a, 3, 0x20]),
        rtp(7, 10, 1600, 13, &[60]),
        rtp(7, 11, 1760, 127, &[7; 1200]),
        rtp(7, 12, 1920, 0, &[]),
    ];
    for packet in &packets {
        assert!(matches!(bench.deliver(Port::rtp(0), address(0), packet), Disposition::Forward(_)));
    }
    let sent: Vec<_> = bench.sent.iter().map(|sent| (sent.port, sent.target, sent.bytes.clone())).collect();
    let expected: Vec<_> = packets.into_iter().map(|bytes| (Port::rtp(1), Some(address(1)), bytes)).collect();
    assert_eq!(sent, expected);
    assert_eq!(bench.engine.poll_timeout(), None, "a relay has no clock");
}

#[test]
fn a_marked_packet_of_a_payload_type_like_one_of_rtcp_passes_where_it_was_negotiated() {
    let mut bench = Bench::new();
    let a = bench.phone_with(ConnectionSpec { rx_payload_type: 77, ..spec(Pcmu, 20) });
    let b = bench.phone(Pcmu, 20);
    bench.relay(a, b);
    let marked = |number| {
        let mut packet = rtp(7, 1, 160, number, &[1; 160]);
        packet[1] |= 0x80;
        packet
    };
    assert!(matches!(bench.deliver(Port::rtp(0), address(0), &marked(77)), Disposition::Forward(_)));
    assert_eq!(bench.deliver(Port::rtp(0), address(0), &marked(78)), Disposition::Consumed);
    assert_eq!(bench.status(a).counters.packets_in, 1);
}

#[test]
fn both_directions_and_rtcp_beside() {
    let mut bench = relayed();
    bench.say(0, Voice::Constant(1000), 0);
    bench.say(1, Voice::Constant(2000), 3);
    bench.run(300);
    assert_eq!((bench.heard_by(0).len(), bench.heard_by(1).len()), (10, 16));
    bench.sent.clear();
    let (mut from, mut to) = (address(0), address(1));
    from.set_port(4001);
    to.set_port(4001);
    let report = [rtcp(7), vec![0x81, 203, 0, 1, 0, 0, 0, 7]].concat();
    bench.deliver(Port::rtcp(0), from, &report);
    assert_eq!(bench.sent.len(), 1);
    assert_eq!((bench.sent[0].port, bench.sent[0].target, &bench.sent[0].bytes), (Port::rtcp(1), Some(to), &report));
    let ids: Vec<_> = bench.phones.iter().map(|phone| phone.id).collect();
    let (a, b) = (bench.status(ids[0]), bench.status(ids[1]));
    assert_eq!((a.state, b.state), (ConnectionState::Relayed(ids[1]), ConnectionState::Relayed(ids[0])));
    assert_eq!(
        (a.counters.packets_in, b.counters.packets_out, a.counters.rtcp_in, b.counters.rtcp_out),
        (16, 16, 1, 1)
    );
    assert_eq!((a.ssrc_out, b.ssrc_out, a.ssrc_in), (None, None, Some(0x1000)));
}

#[test]
fn a_stop_names_the_next_packet_of_each_direction() {
    for by in 0..3 {
        let mut bench = relayed();
        let ids: Vec<_> = bench.phones.iter().map(|phone| phone.id).collect();
        bench.say(0, Voice::Constant(1000), 0);
        bench.say(1, Voice::Constant(2000), 3);
        bench.run(305);
        let effect = bench.effect(match by {
            0 => Command::StopRelay { a: ids[0] },
            1 => Command::StopRelay { a: ids[1] },
            _ => Command::DeleteConnection { id: ids[0] },
        });
        let expected = [(ids[1], &bench.phones[0]), (ids[0], &bench.phones[1])];
        for (id, phone) in expected {
            let found = stamp(&effect, id, true);
            assert_eq!(
                (found.ssrc, found.rtp_timestamp, found.sequence),
                (phone.ssrc, phone.timestamp, Some(phone.sequence))
            );
        }
        let sent = bench.sent.len();
        bench.run(200);
        assert_eq!(bench.sent.len(), sent);
        let peer = bench.status(ids[1]);
        assert_eq!(peer.state, ConnectionState::Idle);
    }
}

#[test]
fn a_prompt_replaces_the_relayed_media_and_becomes_one_stream_with_what_follows() {
    for delay_ms in 0..20 {
        let mut bench = relayed();
        let b = bench.phones[1].id;
        bench.say(0, Voice::Stairs, 0);
        bench.run(200 + delay_ms);
        let relayed = bench.heard_by(1).len();
        bench.play(Target::Connection(b), vec![9000; 2400]);
        bench.run(400);
        let all = bench.heard_by(1);
        let (before, own) = all.split_at(relayed);
        assert!(before.iter().all(|packet| packet.header.ssrc.0 == 0x1000));
        let ssrc = own[0].header.ssrc;
        assert_ne!(ssrc.0, 0x1000);
        assert_eq!(bench.status(b).ssrc_out, Some(ssrc.0));
        assert!(own.iter().all(|packet| packet.header.ssrc == ssrc));
        for pair in own.windows(2) {
            assert_eq!(pair[1].header.sequence_number, pair[0].header.sequence_number.next());
            let step = pair[1].header.timestamp.distance_from(pair[0].header.timestamp);
            // The prompt in 30 ms packets, then 20 ms packets; where they meet up to one packet of pause.
            assert!((160..=480).contains(&step), "{step}");
        }
        // Prompt first, whole, then what is relayed, whole.
        let prompt: Vec<_> = own.iter().filter(|packet| packet.header.payload_type == 8).collect();
        assert_eq!(prompt.iter().map(|packet| packet.payload.len()).sum::<usize>(), 2400);
        let resumed = &own[prompt.len()..];
        assert!(resumed.len() >= 3);
        assert!(resumed[0].header.marker && !resumed[1].header.marker);
        for packet in resumed {
            assert_eq!(packet.header.payload_type, 0);
            assert!(packet.payload.windows(2).all(|pair| pair[1] == stair(u32::from(pair[0] & 63) + 1)));
        }

        // Loss stays visible, and so do order and duplicates.
        bench.hush(0);
        let last = resumed.last().unwrap().header;
        let mut sent = Vec::new();
        for step in [2u16, 1, 4, 4, 7] {
            let (sequence, timestamp) = (bench.phones[0].sequence, bench.phones[0].timestamp);
            let bytes =
                rtp(0x1000, sequence.wrapping_add(step), timestamp.wrapping_add(160 * u32::from(step)), 0, &[5; 160]);
            bench.deliver(Port::rtp(0), address(0), &bytes);
            let packet = RtpPacket::parse(&bench.sent.last().unwrap().bytes).unwrap().header();
            sent.push((
                packet.sequence_number.distance_from(last.sequence_number),
                packet.timestamp.distance_from(last.timestamp),
            ));
        }
        assert_eq!(sent, [2, 1, 4, 4, 7].map(|step: i16| (step + 1, 160 * (i32::from(step) + 1))));
    }
}

#[test]
fn a_packet_overtaken_by_the_end_of_a_prompt_does_not_take_a_number_of_the_prompt() {
    let mut bench = relayed();
    let b = bench.phones[1].id;
    bench.say(0, Voice::Stairs, 0);
    bench.run(100);
    bench.hush(0);
    bench.play(Target::Connection(b), vec![9000; 800]);
    bench.run(150);
    let before = bench.sent.len();
    let (sequence, timestamp) = (bench.phones[0].sequence, bench.phones[0].timestamp);
    let at = |n: i16| {
        rtp(0x1000, sequence.wrapping_add_signed(n), timestamp.wrapping_add_signed(160 * i32::from(n)), 0, &[5; 160])
    };
    for n in [5, 4, 3, 6] {
        bench.deliver(Port::rtp(0), address(0), &at(n));
    }
    let sent: Vec<_> = bench.heard_by(1);
    let own: Vec<_> = sent.iter().filter(|packet| packet.header.ssrc.0 != 0x1000).collect();
    let mut numbers: Vec<_> = own.iter().map(|packet| packet.header.sequence_number.0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), own.len(), "no number twice");
    assert_eq!(bench.sent.len(), before + 2);
    assert_eq!(bench.drops(ringbridge_media::event::DropReason::Late), 2);
}

#[test]
fn a_prompt_stopped_while_a_recording_goes_on_is_sent_to_its_last_sample() {
    for with_record in [false, true] {
        for delay_ms in 0..30 {
            let mut bench = relayed();
            let b = bench.phones[1].id;
            bench.say(0, Voice::Stairs, 7);
            bench.run(50);
            if with_record {
                bench.record(Target::Connection(b), None);
            }
            let play = bench.play(Target::Connection(b), vec![9000; 24_000]);
            bench.run(100 + delay_ms);
            let effect = bench.effect(Command::StopOperation { target: Target::Connection(b), operation: Some(play) });
            let stamp = stamp(&effect, b, true);
            assert_eq!(effect.streams.len(), 1, "the recording's stream is not concerned");
            bench.run(100);
            let own: Vec<_> =
                bench.heard_by(1).into_iter().filter(|packet| packet.header.ssrc.0 == stamp.ssrc).collect();
            let first = own[0].header.timestamp;
            for packet in own.iter().filter(|packet| packet.header.payload_type == 8) {
                let samples = decode(&packet.payload, Pcma);
                for (n, sample) in samples.into_iter().enumerate() {
                    let timestamp = packet.header.timestamp.wrapping_add(n as u32);
                    let before = timestamp.0.wrapping_sub(stamp.rtp_timestamp).cast_signed() < 0;
                    assert_eq!((8_500..9_500).contains(&sample), before, "at {}", timestamp.distance_from(first));
                }
            }
            let numbers: Vec<_> = own.iter().map(|packet| packet.header.sequence_number).collect();
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].next()));
            let held: u32 = own
                .iter()
                .filter(|packet| packet.header.payload_type == 8)
                .map(|packet| packet.payload.len() as u32)
                .sum();
            assert!(held >= stamp.rtp_timestamp.wrapping_sub(first.0), "every sample before the stamp was sent");
        }
    }
}

#[test]
fn recording_one_side_takes_what_that_side_says_and_disturbs_nothing() {
    let mut bench = relayed();
    let ids: Vec<_> = bench.phones.iter().map(|phone| phone.id).collect();
    bench.say(0, Voice::Stairs, 0);
    bench.say(1, Voice::Constant(-4000), 5);
    let (_, queue) = bench.record(Target::Connection(ids[0]), None);
    bench.run(1_000);
    bench.call(Command::StopOperation { target: Target::Connection(ids[0]), operation: None }).unwrap();
    let samples = recorded(&queue);
    let spoken: Vec<_> = samples.iter().copied().filter(|&sample| sample != 0).collect();
    assert!(spoken.len() >= 7_600, "{}", spoken.len());
    let start = bench.heard_by(1)[0].clone();
    let expected: Vec<u8> = (0..spoken.len()).map(|n| stair(start.header.timestamp.0.wrapping_add(n as u32))).collect();
    assert!(spoken == decode(&expected, Pcmu), "from the first sample on, without a gap");
    // Beside it everything is relayed as before.
    let packets = bench.heard_by(1);
    assert!(packets.iter().all(|packet| packet.header.ssrc.0 == 0x1000));
    assert_eq!(packets.len(), 51);
    bench.hush(0);
    bench.hush(1);
    bench.run(100);
    assert_eq!(bench.engine.poll_timeout(), None);
}

#[test]
fn a_relay_after_a_conference_goes_on_in_the_stream_of_the_conference() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    bench.say(0, Voice::Constant(1000), 0);
    bench.run(207);
    bench.call(Command::DeleteConference { id: room, keep_connections: true }).unwrap();
    bench.relay(ids[0], ids[1]);
    bench.run(200);
    let packets = bench.heard_by(1);
    let ssrc = packets[0].header.ssrc;
    for pair in packets.windows(2) {
        assert_eq!(pair[1].header.ssrc, ssrc);
        assert_eq!(pair[1].header.sequence_number, pair[0].header.sequence_number.next());
        assert!(pair[1].header.timestamp.distance_from(pair[0].header.timestamp) >= 160);
    }
    assert_eq!(bench.count(|event| matches!(event, Event::ConferenceEnded { .. })), 1);
}

#[test]
fn a_relay_to_an_endpoint_not_yet_known_begins_when_it_is_learned() {
    let mut bench = Bench::new();
    let (a, b) = (bench.phone_with(spec(Pcmu, 20)), bench.phone_with(ConnectionSpec { ..spec(Pcmu, 20) }));
    bench.relay(a, b);
    bench.say(0, Voice::Constant(1000), 0);
    bench.run(100);
    assert!(bench.sent.is_empty());
    bench.say(1, Voice::Constant(1000), 0);
    bench.run(100);
    assert!(bench.heard_by(0).len() == 6 && bench.heard_by(1).len() >= 4);
}
