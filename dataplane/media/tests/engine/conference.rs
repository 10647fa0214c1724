//! Everybody hears the sum of all others, and never himself.

use std::collections::BTreeSet;
use std::time::Duration;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, Direction, ParticipantChange, ParticipantSpec, Target,
};
use ringbridge_media::event::{DropReason, Event};
use ringbridge_media::port::Port;

use crate::bench::{Bench, Rtp, Voice, amplitude, check_stream, decode, recorded};
use CodecKind::{Pcma, Pcmu};

/// The samples that the phone in `slot` heard in the last `ms` milliseconds.
fn last_heard(bench: &Bench, slot: u32, codec: CodecKind, ms: usize) -> Vec<i16> {
    let samples: Vec<i16> = bench.heard_by(slot).iter().flat_map(|packet| decode(&packet.payload, codec)).collect();
    samples[samples.len() - 8 * ms..].to_vec()
}

/// Expects a tone at `expected` ± half a decibel, or, with 0, at least 40 dB under a full voice of 4000.
fn check_tone(samples: &[i16], hz: f64, expected: f64, what: &str) {
    let found = amplitude(samples, hz);
    if expected == 0.0 {
        assert!(found < 40.0, "{what}: {hz} Hz should be absent but has {found}");
    } else {
        let db = 20.0 * (found / expected).log10();
        assert!(db.abs() < 0.5, "{what}: {hz} Hz has {found} instead of {expected}");
    }
}

#[test]
fn every_codec_and_packet_time_on_either_side() {
    for codecs in [(Pcmu, Pcmu), (Pcmu, Pcma), (Pcma, Pcma)] {
        for ptime_a in [10, 20, 30, 40] {
            for ptime_b in [10, 20, 30, 40] {
                let mut bench = Bench::new();
                let members = [(codecs.0, ptime_a), (codecs.1, ptime_b), (Pcma, 20)];
                let tones = [400.0, 700.0, 1_100.0];
                bench.room_of(&members);
                for (n, &hz) in tones.iter().enumerate() {
                    bench.say(n, Voice::Tone(hz, 4_000.0), 3 * n as u64);
                }
                bench.run(1_300);
                for (n, &(codec, ptime_ms)) in members.iter().enumerate() {
                    let packets = bench.heard_by(n as u32);
                    assert_eq!(check_stream(&packets), [0]);
                    assert!(packets.iter().all(|packet| packet.payload.len() == 8 * ptime_ms as usize));
                    let samples = last_heard(&bench, n as u32, codec, 1_000);
                    for (m, &hz) in tones.iter().enumerate() {
                        let expected = if m == n { 0.0 } else { 4_000.0 };
                        check_tone(&samples, hz, expected, &format!("{n} of {members:?}"));
                    }
                }
                assert_eq!(bench.engine.totals().drops.total(), 0);
            }
        }
    }
}

#[test]
fn different_codecs_each_way_in_one_connection() {
    let mut bench = Bench::new();
    let (_, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    bench.modify(ids[0], ConnectionChange { tx_codec: Some((Pcma, 97)), ..ConnectionChange::default() }).unwrap();
    bench.say(0, Voice::Tone(500.0, 4_000.0), 0);
    bench.say(1, Voice::Tone(900.0, 4_000.0), 0);
    bench.run(1_300);
    check_tone(&last_heard(&bench, 0, Pcma, 1_000), 900.0, 4_000.0, "a");
    check_tone(&last_heard(&bench, 1, Pcmu, 1_000), 500.0, 4_000.0, "b");
    assert_eq!(bench.heard_by(0).last().unwrap().header.payload_type, 97);
}

#[test]
fn loud_voices_are_clipped_and_not_wrapped() {
    let mut bench = Bench::new();
    bench.room_of(&[(Pcmu, 20), (Pcmu, 20), (Pcma, 20), (Pcmu, 20)]);
    for n in 0..3 {
        bench.say(n, Voice::Constant(30_000), 0);
    }
    bench.run(500);
    assert!(last_heard(&bench, 3, Pcmu, 300).iter().all(|&sample| sample > 30_000));
    for n in 0..3 {
        bench.phones[n].voice = Voice::Constant(-30_000);
    }
    bench.run(500);
    assert!(last_heard(&bench, 3, Pcmu, 300).iter().all(|&sample| sample < -30_000));
}

#[test]
fn mute_deaf_gain_join_and_leave() {
    let mut bench = Bench::new();
    let tones = [400.0, 700.0, 1_100.0, 1_500.0];
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 30), (Pcmu, 10)]);
    let late = bench.phone(Pcmu, 20);
    let muted = ParticipantSpec { muted: true, ..ParticipantSpec::default() };
    for (n, &hz) in tones.iter().enumerate() {
        bench.say(n, Voice::Tone(hz, 4_000.0), n as u64);
    }
    // What each of the first two hears of each tone.
    let expect = |bench: &mut Bench, what: &str, levels: [[f64; 4]; 2]| {
        bench.run(1_300);
        for (slot, codec) in [(0, Pcmu), (1, Pcma)] {
            let samples = last_heard(bench, slot, codec, 1_000);
            for (&hz, &level) in tones.iter().zip(&levels[slot as usize]) {
                check_tone(&samples, hz, level, &format!("{what}, slot {slot}"));
            }
        }
    };
    let full = 4_000.0;
    let set = |change| (room, change);
    let change = ParticipantChange::default();
    expect(&mut bench, "three", [[0.0, full, full, 0.0], [full, 0.0, full, 0.0]]);
    bench.join_as(room, late, muted);
    expect(&mut bench, "joined muted", [[0.0, full, full, 0.0], [full, 0.0, full, 0.0]]);
    let (_, unmute) = set(ParticipantChange { muted: Some(false), ..change });
    bench.set(room, late, unmute);
    expect(&mut bench, "unmuted", [[0.0, full, full, full], [full, 0.0, full, full]]);
    bench.set(room, ids[0], ParticipantChange { muted: Some(true), ..change });
    expect(&mut bench, "muted", [[0.0, full, full, full], [0.0, 0.0, full, full]]);
    bench.set(room, ids[1], ParticipantChange { deaf: Some(true), ..change });
    expect(&mut bench, "deaf", [[0.0, full, full, full], [0.0; 4]]);
    bench.set(room, ids[1], ParticipantChange { deaf: Some(false), gain_db: Some(-6), ..change });
    let half = full * 2053.0 / 4096.0;
    expect(&mut bench, "quieter", [[0.0, half, full, full], [0.0, 0.0, full, full]]);
    bench.effect(Command::LeaveConference { conference: room, connection: ids[2] });
    expect(&mut bench, "left", [[0.0, half, 0.0, full], [0.0, 0.0, 0.0, full]]);
    let status = bench.room_status(room);
    let found: Vec<_> = status
        .participants
        .iter()
        .map(|member| (member.connection, member.muted, member.gain_db, member.talking))
        .collect();
    assert_eq!(found, [(ids[0], true, 0, true), (ids[1], false, -6, true), (late, false, 0, true)]);
    for slot in 0..4 {
        check_stream(&bench.heard_by(slot));
    }
}

#[test]
fn clocks_that_drift_cost_hardly_anything() {
    let mut bench = Bench::new();
    bench.room_of(&[(Pcmu, 20), (Pcma, 30), (Pcmu, 20)]);
    for (n, ppm) in [200, -200, 0].into_iter().enumerate() {
        bench.phones[n].drift_ppm = ppm;
        bench.say(n, Voice::Constant(2_000), n as u64);
    }
    // Five minutes: 60 ms apart.
    bench.run(300_000);
    assert_eq!(bench.engine.totals().drops.total(), 0);
    for slot in 0..3 {
        assert_eq!(check_stream(&bench.heard_by(slot)), [0]);
    }
    let packets = bench.heard_by(2);
    let samples: Vec<i16> = packets.iter().skip(10).flat_map(|packet| decode(&packet.payload, Pcmu)).collect();
    let quiet = samples.iter().filter(|&&sample| sample < 3_000).count();
    assert!(quiet < 20 * 80, "{quiet} samples of both missed");
}

#[test]
fn loss_reordering_duplicates_and_lateness() {
    let mut bench = Bench::new();
    bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    bench.phones[0].voice = Voice::Constant(3_000);
    let start = bench.now;
    // Packets 10, 20, 30 … are lost; 3 and 4 change places; 5 comes twice; 7 comes 200 ms late.
    let packets: Vec<_> = (0..100).map(|_| bench.phones[0].packet()).collect();
    let mut arrivals: Vec<(u64, usize)> =
        (0..100).map(|n| (20 * n as u64, n)).filter(|&(_, n)| n == 0 || n % 10 != 0).collect();
    for (at, n) in &mut arrivals {
        *at += match n {
            3 => 22,
            7 => 200,
            _ => 0,
        };
    }
    arrivals.push((101, 5));
    arrivals.sort_unstable();
    for (at, n) in arrivals {
        bench.run((start + Duration::from_millis(at)).saturating_since(bench.now).as_millis() as u64);
        bench.deliver(Port::rtp(0), crate::bench::address(0), &packets[n]);
    }
    bench.run(200);
    let heard = bench.heard_by(1);
    assert_eq!(check_stream(&heard), [0]);
    let samples: Vec<i16> = heard.iter().flat_map(|packet| decode(&packet.payload, Pcmu)).collect();
    let loud = samples.iter().filter(|&&sample| sample > 2_000).count();
    // Nine were lost and one late; what stands for them is as loud at first. At the end it fades out.
    assert!((100 * 160..100 * 160 + 480).contains(&loud), "{loud}");
    assert_eq!((bench.drops(DropReason::Duplicate), bench.drops(DropReason::Late)), (1, 1));
    let id = bench.phones[0].id;
    assert_eq!(bench.status(id).cumulative_lost, 9 - 1);
    assert_eq!(bench.status(id).counters.concealed_samples, 10 * 160);
}

#[test]
fn a_digit_between_packets_of_audio_is_no_loss() {
    let mut bench = Bench::new();
    let (_, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    bench.say(0, Voice::Constant(3_000), 0);
    bench.run(300);
    for digit in *b"123" {
        bench.press(0, digit);
        bench.run(300);
    }
    assert_eq!(bench.status(ids[0]).counters.concealed_samples, 0);
    assert_eq!(bench.engine.totals().drops.total(), 0);
}

#[test]
fn the_marker_begins_a_talkspurt_and_nothing_else() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20), (Pcmu, 30)]);
    bench.say(1, Voice::Constant(3_000), 0);
    bench.run(305);
    bench.effect(Command::LeaveConference { conference: room, connection: ids[0] });
    bench.run(1_000);
    bench.join(room, ids[0]);
    bench.run(300);
    let packets = bench.heard_by(0);
    let markers = check_stream(&packets);
    assert_eq!(markers.len(), 2);
    let pause = |a: &Rtp, b: &Rtp| b.header.timestamp.distance_from(a.header.timestamp);
    let jump = pause(&packets[markers[1] - 1], &packets[markers[1]]);
    assert!((8_000..8_600).contains(&jump), "the pause counts on: {jump}");
    assert_eq!(check_stream(&bench.heard_by(1)), [0]);
    assert_eq!(check_stream(&bench.heard_by(2)), [0]);
}

#[test]
fn rooms_are_spread_over_the_frame() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    }
    bench.run(100);
    let phases: BTreeSet<_> = bench.sent.iter().map(|sent| sent.at.as_nanos() / 1_000_000 % 10).collect();
    assert_eq!(phases.len(), 10);
    for phase in phases {
        let rooms: BTreeSet<_> = bench
            .sent
            .iter()
            .filter(|sent| sent.at.as_nanos() / 1_000_000 % 10 == phase)
            .map(|sent| sent.port.slot / 2)
            .collect();
        assert_eq!(rooms.len(), 2, "at {phase} ms");
    }
}

#[test]
fn empty_and_one_party_rooms_cost_nothing() {
    let mut bench = Bench::new();
    let room = bench.room();
    assert_eq!(bench.engine.poll_timeout(), None);
    let (a, b) = (bench.phone(Pcmu, 20), bench.phone(Pcmu, 20));
    bench.join(room, a);
    assert_eq!(bench.engine.poll_timeout(), None);
    bench.say(0, Voice::Constant(3_000), 0);
    bench.run(200);
    assert!(bench.sent.is_empty() && bench.engine.poll_timeout().is_none());
    bench.join(room, b);
    bench.run(205);
    assert!(!bench.sent.is_empty());
    bench.effect(Command::LeaveConference { conference: room, connection: b });
    bench.hush(0);
    bench.run(30);
    assert_eq!(bench.engine.poll_timeout(), None);
    let sent = bench.sent.len();
    bench.run(1_000);
    assert_eq!(bench.sent.len(), sent);
    // The stream of the one who stayed ends with a whole packet.
    let packets = bench.heard_by(0);
    assert_eq!(check_stream(&packets), [0]);
    assert!(packets.iter().all(|packet| packet.payload.len() == 160));
}

#[test]
fn a_clock_that_was_held_up_catches_up_and_goes_on() {
    for stall_ms in [15, 99, 400, 700, 5_000] {
        let mut bench = Bench::new();
        bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
        let solo = bench.phone(Pcmu, 20);
        bench.play(Target::Connection(solo), vec![1000; 160_000]);
        bench.run(203);
        bench.now = bench.now + Duration::from_millis(stall_ms);
        bench.catch_up();
        bench.run(400);
        for slot in 0..3 {
            let packets = bench.heard_by(slot);
            check_stream(&packets);
            let samples: usize = packets.iter().map(|packet| packet.payload.len()).sum();
            let last = packets.last().unwrap();
            assert!(bench.now.saturating_since(last.at).as_millis() <= 40, "still running");
            let passed = 603 + if stall_ms < 500 { stall_ms as usize } else { 0 };
            assert!(samples.abs_diff(8 * passed) <= 8 * 50, "{stall_ms} ms, slot {slot}: {samples} samples");
        }
    }
}

#[test]
fn a_new_stream_of_the_endpoint_is_heard_at_once() {
    let mut bench = Bench::new();
    bench.room_of(&[(Pcmu, 20), (Pcmu, 20)]);
    bench.say(0, Voice::Constant(3_000), 0);
    bench.run(203);
    bench.hush(0);
    bench.run(80);
    let phone = &mut bench.phones[0];
    (phone.ssrc, phone.sequence, phone.timestamp) = (0xbeef, 1, 5);
    bench.say(0, Voice::Constant(5_000), 150);
    bench.run(1_000);
    let loud = last_heard(&bench, 1, Pcmu, 780).iter().filter(|&&sample| sample > 4_500).count();
    assert!(loud > 8 * 740, "{loud}");
}

#[test]
fn a_listener_only_member_hears_and_a_speaker_only_member_is_heard() {
    let mut bench = Bench::new();
    let (_, ids) = bench.room_of(&[(Pcmu, 20), (Pcmu, 20), (Pcmu, 20)]);
    for (n, hz) in [400.0, 700.0, 1_100.0].into_iter().enumerate() {
        bench.say(n, Voice::Tone(hz, 4_000.0), 0);
    }
    bench.run(100);
    for (id, direction) in [(ids[0], Direction::SendOnly), (ids[1], Direction::RecvOnly)] {
        bench.modify(id, ConnectionChange { direction: Some(direction), ..ConnectionChange::default() }).unwrap();
    }
    let sent = bench.heard_by(1).len();
    bench.run(1_300);
    let hears = last_heard(&bench, 2, Pcmu, 1_000);
    check_tone(&hears, 400.0, 0.0, "sendonly is not heard");
    check_tone(&hears, 700.0, 4_000.0, "recvonly is heard");
    check_tone(&last_heard(&bench, 0, Pcmu, 1_000), 700.0, 4_000.0, "sendonly hears");
    assert_eq!(bench.heard_by(1).len(), sent, "recvonly is sent nothing");
}

#[test]
fn talk_begins_and_ends_once_and_a_talker_who_leaves_has_stopped() {
    let mut bench = Bench::new();
    let (room, ids) = bench.room_of(&[(Pcmu, 20), (Pcma, 20), (Pcmu, 20)]);
    let starts = |bench: &Bench, who| {
        bench.count(|event| matches!(event, Event::TalkStarted { connection, .. } if *connection == who))
    };
    let stops = |bench: &Bench, who| {
        bench.count(|event| matches!(event, Event::TalkStopped { connection, .. } if *connection == who))
    };
    bench.say(0, Voice::Constant(5_000), 0);
    bench.say(1, Voice::Constant(5_000), 0);
    bench.run(1_000);
    assert_eq!((starts(&bench, ids[0]), stops(&bench, ids[0])), (1, 0));
    bench.hush(0);
    bench.run(1_000);
    assert_eq!((starts(&bench, ids[0]), stops(&bench, ids[0])), (1, 1));
    bench.say(0, Voice::Constant(5_000), 0);
    bench.run(100);
    assert_eq!((starts(&bench, ids[0]), stops(&bench, ids[0])), (2, 1));
    bench.effect(Command::LeaveConference { conference: room, connection: ids[0] });
    assert_eq!((starts(&bench, ids[0]), stops(&bench, ids[0])), (2, 2));
    // The room pauses: nobody in it talks any more.
    bench.call(Command::DeleteConnection { id: ids[2] }).unwrap();
    assert_eq!((starts(&bench, ids[1]), stops(&bench, ids[1])), (1, 1));
    assert!(!bench.room_status(room).participants[0].talking);
}

#[test]
fn a_recording_of_the_room_holds_the_full_mix() {
    let mut bench = Bench::new();
    let (room, _) = bench.room_of(&[(Pcmu, 20), (Pcma, 30)]);
    let (_, queue) = bench.record(Target::Conference(room), None);
    bench.say(0, Voice::Tone(400.0, 4_000.0), 0);
    bench.say(1, Voice::Tone(700.0, 4_000.0), 0);
    bench.run(1_500);
    bench.call(Command::StopOperation { target: Target::Conference(room), operation: None }).unwrap();
    let samples = recorded(&queue);
    assert_eq!(samples.len(), 12_000);
    for hz in [400.0, 700.0] {
        check_tone(&samples[4_000..], hz, 4_000.0, "recording");
    }
    assert_eq!(bench.ended()[0].2, 1_500);
}
