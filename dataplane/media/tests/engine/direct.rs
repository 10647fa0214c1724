//! Two parties who need no mix: packets go from one to the other under our own numbers, and nobody hears where that
//! begins and ends.

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, ConnectionSpec, Direction, ParticipantChange, ParticipantSpec, Target,
};
use ringbridge_media::event::{DropReason, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId};
use ringbridge_media::port::{Disposition, Port};

use crate::bench::{Bench, Rtp, Voice, address, bytes_by_timestamp, check_stream, decode, rtcp, spec, stair, stamp};
use CodecKind::{G722, Pcma, Pcmu};

/// Two phones that talk, and when they began to send.
fn call(codec: CodecKind, ptime_ms: u32, offsets: [u64; 2]) -> (Bench, ConferenceId, Vec<ConnectionId>) {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(codec, ptime_ms); 2]);
    for (index, offset) in offsets.into_iter().enumerate() {
        bench.say(index, Voice::Stairs, offset);
    }
    (bench, room, ids)
}

fn begun(bench: &Bench) -> u64 {
    bench.engine.totals().direct_begun
}

/// The bytes that phone `slot` was sent.
fn bytes(bench: &Bench, slot: u32) -> Vec<u8> {
    bench.heard_by(slot).into_iter().flat_map(|packet| packet.payload).collect()
}

/// Every step of the stairs follows the one before, from the first on.
#[track_caller]
fn is_whole(bytes: &[u8]) {
    let first = bytes.iter().position(|&byte| byte != 0xff).expect("the other is heard");
    for (n, pair) in bytes[first..].windows(2).enumerate() {
        let next = stair(u32::from(pair[0] & 0x3f) + 1);
        assert_eq!(pair[1], next, "{n} bytes after the first");
    }
}

/// Has the two go the short way.
#[track_caller]
fn open(bench: &mut Bench) {
    let (before, passed) = (begun(bench), bench.engine.totals().direct);
    for _ in 0..700 {
        bench.run(100);
        if begun(bench) > before && bench.engine.totals().direct > passed + 10 {
            return;
        }
    }
    panic!("the mix goes on: {:?}", bench.engine.totals());
}

#[test]
fn the_short_way_begins_without_a_step_lost_or_heard_twice() {
    for ptime_ms in [10, 20, 30, 60] {
        for offset in [0, 3, 7, 10, 14, 19] {
            let (mut bench, ..) = call(Pcmu, ptime_ms, [0, offset]);
            bench.run(3_000);
            assert_eq!(begun(&bench), 1);
            // Most of two seconds both ways.
            assert!(bench.engine.totals().direct >= 2 * 1_700 / u64::from(ptime_ms), "{:?}", bench.engine.totals());
            for slot in 0..2 {
                assert_eq!(check_stream(&bench.heard_by(slot)), [0], "{ptime_ms} ms, {offset} later");
                is_whole(&bytes(&bench, slot));
            }
        }
    }
}

#[test]
fn what_is_passed_on_is_neither_decoded_for_the_mix_nor_encoded() {
    let (mut bench, ..) = call(Pcma, 20, [0, 5]);
    open(&mut bench);
    let before = *bench.engine.totals();
    bench.run(1_000);
    let after = bench.engine.totals();
    assert_eq!((after.encodes, after.direct), (before.encodes, before.direct + 100));
    assert_eq!(after.packets_out - before.packets_out, 100);
    // It arrives as soon as it came.
    let last = bench.heard_by(1).pop().unwrap();
    let phone = &bench.phones[0];
    assert!(last.payload.iter().zip(0..).all(|(&byte, n)| byte == stair(phone.timestamp.wrapping_sub(160) + n)));
    assert_eq!(last.header.payload_type, 8);
}

/// What ends the short way, and how long it takes until both are heard again.
type Cause = (&'static str, fn(&mut Bench, ConferenceId, &[ConnectionId]));

const CAUSES: [Cause; 7] = [
    ("a third joins", |bench, room, _| {
        let third = bench.phone(Pcmu, 20);
        bench.join(room, third);
    }),
    ("a gain is set", |bench, room, ids| {
        bench.set(room, ids[0], ParticipantChange { output_gain_db: Some(0), ..ParticipantChange::default() });
    }),
    ("nothing in particular is changed", |bench, _, ids| {
        bench.modify(ids[1], ConnectionChange::default()).unwrap();
    }),
    ("a digit is pressed", |bench, _, _| bench.press(0, b'5')),
    ("a payload of another type comes", |bench, _, _| {
        let mut bytes = bench.phones[0].packet();
        bytes[1] = 13;
        bench.deliver(Port::rtp(0), address(0), &bytes);
    }),
    ("a payload comes that holds nothing", |bench, _, _| {
        let bytes = bench.phones[0].packet();
        bench.deliver(Port::rtp(0), address(0), &bytes[..12]);
    }),
    ("a prompt is played to one", |bench, _, ids| {
        bench.play(Target::Connection(ids[0]), vec![1_000; 800]);
    }),
];

#[test]
fn the_mix_goes_on_from_there_without_a_gap_or_a_click() {
    for (name, cause) in CAUSES {
        for late in [0, 1, 4, 9, 13, 18] {
            let (mut bench, room, ids) = call(Pcmu, 20, [0, 11]);
            let tone = Voice::Tone(500.0, 8_000.0);
            (bench.phones[0].voice, bench.phones[1].voice) = (tone, tone);
            open(&mut bench);
            bench.run(late);
            let passed = bench.engine.totals().direct;
            let from = bench.heard_by(1).len();
            cause(&mut bench, room, &ids);
            bench.run(900);
            assert_eq!(bench.engine.totals().direct, passed, "{name}: the mix is not needed");
            let heard = bench.heard_by(1);
            assert_eq!(check_stream(&heard), [0], "{name}, {late} ms");
            // What was sent last before that, and all behind it.
            let samples: Vec<i16> = heard[from - 2..].iter().flat_map(|packet| decode(&packet.payload, Pcmu)).collect();
            assert!(samples.len() > 900 * 8 - 320, "{name}: a pause of {} samples", 900 * 8 - samples.len());
            // The steepest step of that tone is 3061.
            let steepest = samples.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).map(i32::abs).max();
            assert!(steepest.unwrap() < 3_600, "{name}, {late} ms: a step of {steepest:?}");
            if name == "a digit is pressed" {
                // Its sender is not heard meanwhile.
                continue;
            }
            // And it is as loud throughout.
            let softest =
                samples.chunks_exact(160).map(|part| crate::bench::amplitude(part, 500.0)).fold(f64::MAX, f64::min);
            assert!(softest > 6_000.0, "{name}, {late} ms: down to {softest}");
        }
    }
}

#[test]
fn who_needs_the_mix_again_and_again_waits_longer_for_the_short_way() {
    let (mut bench, room, ids) = call(Pcmu, 20, [0, 4]);
    // In silence the delay is soon what it ought to be.
    (bench.phones[0].voice, bench.phones[1].voice) = (Voice::Silence, Voice::Silence);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let since = bench.now;
        open(&mut bench);
        waits.push(bench.now.saturating_since(since).as_millis() / 1_000);
        bench.set(room, ids[0], ParticipantChange { deaf: Some(false), ..ParticipantChange::default() });
    }
    assert_eq!(waits, [1, 2, 4, 8]);
}

#[test]
fn who_falls_silent_is_heard_as_silence_and_talk_is_told_as_ever() {
    let (mut bench, room, ids) = call(Pcmu, 20, [0, 4]);
    bench.phones[1].voice = Voice::Tone(500.0, 2_000.0);
    open(&mut bench);
    assert_eq!(bench.room_status(room).active_speaker, Some(ids[0]));
    // Silence that is sent.
    bench.say(1, Voice::Silence, 0);
    bench.run(700);
    let stopped = |bench: &Bench, id| {
        bench.count(|event| matches!(event, Event::TalkStopped { connection, .. } if *connection == id))
    };
    assert_eq!((stopped(&bench, ids[0]), stopped(&bench, ids[1])), (0, 1));
    assert!(bench.engine.totals().direct > 0);
    // Nothing is sent.
    bench.hush(0);
    bench.run(1_000);
    assert_eq!(stopped(&bench, ids[0]), 1);
    let heard = bench.heard_by(1);
    assert!(heard.last().unwrap().payload.iter().all(|&byte| byte == 0xff));
    assert!(bench.now.saturating_since(heard.last().unwrap().at).as_millis() <= 20);
    let status = bench.room_status(room);
    assert!(status.participants.iter().all(|one| !one.talking && one.level_db == -127));
}

#[test]
fn what_is_lost_or_overtaken_on_its_way_here_is_so_there() {
    let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
    open(&mut bench);
    bench.hush(0);
    let mut packets: Vec<_> = (0..8).map(|_| bench.phones[0].packet()).collect();
    packets.swap(3, 4);
    let from = bench.heard_by(1).len();
    for (n, packet) in packets.iter().enumerate() {
        bench.run(20);
        if n != 1 {
            assert!(matches!(bench.deliver(Port::rtp(0), address(0), packet), Disposition::Forward(_)));
        }
        // What comes twice leaves once.
        let again = bench.drops(DropReason::Duplicate);
        if n == 6 {
            assert_eq!(bench.deliver(Port::rtp(0), address(0), packet), Disposition::Consumed);
            assert_eq!(bench.drops(DropReason::Duplicate), again + 1);
        }
    }
    let heard: Vec<Rtp> = bench.heard_by(1).split_off(from - 1);
    let place = |rtp: &Rtp| {
        let first = &heard[0].header;
        let (steps, span) = (
            rtp.header.sequence_number.distance_from(first.sequence_number),
            rtp.header.timestamp.distance_from(first.timestamp),
        );
        assert_eq!(i32::from(steps) * 160, span);
        steps
    };
    assert_eq!(heard.iter().map(place).collect::<Vec<_>>(), [0, 1, 3, 5, 4, 6, 7, 8]);
}

#[test]
fn extensions_contributors_and_padding_stay_behind() {
    let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
    open(&mut bench);
    bench.hush(0);
    bench.run(15);
    let plain = bench.phones[0].packet();
    let mut bytes = plain.clone();
    // One contributor, an extension of one word, and four bytes of padding.
    bytes[0] = 0xb1;
    bytes.splice(12..12, [1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0]);
    bytes.extend_from_slice(&[0, 0, 0, 4]);
    let Disposition::Forward(transmit) = bench.deliver(Port::rtp(0), address(0), &bytes) else {
        panic!("it is passed on")
    };
    assert_eq!(transmit.len, plain.len());
    let last = bench.heard_by(1).pop().unwrap();
    assert_eq!(last.payload, plain[12..]);
    check_stream(&bench.heard_by(1));
}

#[test]
fn from_the_stamp_on_nothing_is_heard() {
    for late in [0, 3, 8, 14, 19] {
        let (mut bench, room, ids) = call(Pcmu, 20, [0, 7]);
        open(&mut bench);
        bench.run(late);
        let change = ParticipantChange { muted: Some(true), ..ParticipantChange::default() };
        let effect = bench.effect(Command::SetParticipant { conference: room, connection: ids[0], change });
        let from = stamp(&effect, ids[1], true);
        bench.run(500);
        let heard = bytes_by_timestamp(&bench.heard_by(1));
        let first = heard.iter().position(|&(.., byte)| byte != 0xff).unwrap();
        for &(timestamp, _, byte) in &heard[first..] {
            let behind = timestamp.distance_from(ringbridge_wire::seq::RtpTimestamp(from.rtp_timestamp));
            assert_eq!(byte == 0xff, behind >= 0, "{late} ms: {behind} samples from the stamp");
        }
        check_stream(&bench.heard_by(1));
    }
}

#[test]
fn another_timeline_is_heard_through_the_mix_again() {
    let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
    open(&mut bench);
    let passed = bench.engine.totals().direct;
    bench.phones[0].timestamp += 1 << 25;
    bench.run(900);
    assert!(bench.engine.totals().direct <= passed + 1);
    check_stream(&bench.heard_by(1));
    assert_ne!(bench.heard_by(1).last().unwrap().payload[0], 0xff);
}

#[test]
fn numbers_that_begin_anew_go_on_as_ours() {
    let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
    open(&mut bench);
    let passed = bench.engine.totals().direct;
    bench.phones[0].sequence = bench.phones[0].sequence.wrapping_add(20_000);
    bench.run(900);
    assert_eq!(bench.engine.totals().direct, passed + 90);
    check_stream(&bench.heard_by(1));
    is_whole(&bytes(&bench, 1));
}

/// What two ask for, and their connections.
type Row = (&'static str, fn(&mut Bench) -> Vec<ConnectionId>);

#[test]
fn what_needs_the_mix_keeps_it() {
    let rows: [Row; 5] = [
        ("other codecs", |bench| bench.room_of(&[(Pcmu, 20), (Pcma, 20)]).1),
        ("other packet times", |bench| bench.room_of(&[(Pcmu, 20), (Pcmu, 30)]).1),
        ("a codec with a state", |bench| bench.room_of(&[(G722, 20), (G722, 20)]).1),
        ("one who only listens", |bench| {
            let (room, mut ids) = bench.room_of(&[(Pcmu, 20)]);
            let (remote, direction) = (Some(address(1)), Direction::SendOnly);
            let listener = bench.phone_with(ConnectionSpec { remote, direction, ..spec(Pcmu, 20) });
            bench.join(room, listener);
            ids.push(listener);
            ids
        }),
        ("one who is louder", |bench| {
            let (room, mut ids) = bench.room_of(&[(Pcmu, 20)]);
            let loud = bench.phone(Pcmu, 20);
            bench.join_as(room, loud, ParticipantSpec { gain_db: 3, ..ParticipantSpec::default() });
            ids.push(loud);
            ids
        }),
    ];
    for (name, open) in rows {
        let mut bench = Bench::new();
        open(&mut bench);
        bench.say(0, Voice::Tone(500.0, 8_000.0), 0);
        bench.say(1, Voice::Tone(700.0, 8_000.0), 3);
        bench.run(5_000);
        assert_eq!(begun(&bench), 0, "{name}");
    }
}

#[test]
fn reports_count_what_was_passed_on() {
    let mut bench = Bench::new();
    let room = bench.room();
    let ids = [0, 1].map(|slot| {
        let remote = Some(address(slot));
        let id = bench.phone_with(ConnectionSpec { remote, rtcp_reports: true, ..spec(Pcmu, 20) });
        bench.join(room, id);
        bench.say(slot as usize, Voice::Stairs, 3 * u64::from(slot));
        id
    });
    open(&mut bench);
    let mut from = address(0);
    from.set_port(4001);
    bench.deliver(Port::rtcp(0), from, &rtcp(7));
    // Long enough for a report.
    bench.run(20_000);
    let sent = bench.heard_by(1).len() as u64;
    assert_eq!(bench.status(ids[1]).counters.packets_out, sent);
    let report =
        bench.sent.iter().rev().find(|sent| sent.port == Port::rtcp(1) && sent.bytes[1] == 200).expect("a report");
    let before = bench.heard_by(1).iter().filter(|packet| packet.at <= report.at).count() as u32;
    let counted = u32::from_be_bytes(report.bytes[20..24].try_into().unwrap());
    assert!(counted.abs_diff(before) <= 1, "{counted} of {before}");
}

#[test]
fn who_sends_ahead_of_time_is_held_for_the_listener() {
    // Before the short way begins, and on it.
    for early in [true, false] {
        let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
        if early {
            bench.run(300);
        } else {
            open(&mut bench);
        }
        let before = bench.heard_by(1).len();
        for _ in 0..150 {
            bench.send_from(0);
        }
        bench.run(100);
        assert!(bench.heard_by(1).len() - before < 20, "{}", bench.heard_by(1).len() - before);
        bench.run(2_500);
        // A step of three seconds each 20 ms, and not one is lost.
        let heard = bench.heard_by(1);
        assert!(heard.windows(2).all(|pair| pair[1].at.saturating_since(pair[0].at).as_millis() < 50));
        check_stream(&heard);
        assert_eq!(bench.engine.totals().drops.total(), 0);
    }
}

#[test]
fn after_silence_a_stream_is_where_the_clock_is() {
    let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
    open(&mut bench);
    for _ in 0..3 {
        bench.hush(0);
        bench.run(1_000);
        let late = bench.now;
        bench.phones[0].timestamp += 8_000;
        bench.say(0, Voice::Stairs, 0);
        bench.run(3_000);
        assert!(bench.now > late);
    }
    let heard = bench.heard_by(1);
    check_stream(&heard);
    let (first, last) = (&heard[0], &heard[heard.len() - 1]);
    let span = i64::from(last.header.timestamp.distance_from(first.header.timestamp)) / 8;
    let passed = last.at.saturating_since(first.at).as_millis() as i64;
    // Ahead by what the buffer held, at most; behind by nothing.
    assert!((-20..200).contains(&(span - passed)), "{span} ms in {passed} ms");
    // In silence nothing of the last word is made up again.
    let of_silence = heard.iter().filter(|packet| packet.payload.iter().all(|&byte| byte == 0xff)).count();
    assert!(of_silence > 3 * 30, "{of_silence}");
}

#[test]
fn packets_of_another_length_are_mixed_to_the_one_agreed_on() {
    for ptime_ms in [10, 40] {
        let (mut bench, ..) = call(Pcmu, 20, [0, 4]);
        open(&mut bench);
        bench.phones[0].ptime_ms = ptime_ms;
        bench.run(100);
        let from = bench.heard_by(1).len();
        bench.run(3_000);
        assert!(bench.heard_by(1)[from..].iter().all(|packet| packet.payload.len() == 160), "{ptime_ms} ms");
        check_stream(&bench.heard_by(1));
    }
}
