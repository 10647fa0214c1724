//! Real shards on loopback, driven through their mailboxes: relay, mix, moves, parking, panic and restart.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

mod rig;

use std::net::UdpSocket;
use std::time::{Duration, Instant as WallClock};

use rig::{Rig, talk};
use ringbridge_media::command::{Command, Target};
use ringbridge_media::event::{Answer, CommandError, Event};
use ringbridge_media::id::ShardId;
use ringbridge_shard::mailbox::{ShardMessage, ShardReport};

#[test]
fn relays_both_ways_untouched_and_parks_in_between() {
    let mut rig = Rig::start(1);
    let [mut a, mut b] = rig.relayed(0, [0, 1]);
    for round in 0..300u32 {
        if round % 100 == 50 {
            // Long enough for the shard to park; what comes next has to wake it.
            let parked = WallClock::now();
            while parked.elapsed() < Duration::from_millis(250) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        talk(&mut a, &mut b, round as u8);
    }
    rig.stop();
}

#[test]
fn mixes_three_and_nobody_hears_himself() {
    let mut rig = Rig::start(1);
    let (_, mut legs) = rig.room(0, 5, 0, 3);
    // Constant levels 0x90, 0xa0, 0xb0 in µ-law; each hears the sum of the two others.
    let mut levels = [0i16; 3];
    ringbridge_codec::g711::decode_ulaw(&[0x90, 0xa0, 0xb0], &mut levels);
    let expected: Vec<i16> = (0..3).map(|own| (0..3).filter(|n| *n != own).map(|n| levels[n]).sum()).collect();
    let mut heard = [false; 3];
    for _ in 0..500 {
        for (leg, fill) in legs.iter_mut().zip([0x90, 0xa0, 0xb0]) {
            leg.send(fill);
        }
        for (n, leg) in legs.iter().enumerate() {
            let packet = leg.receive();
            let mut samples = [0i16; 160];
            ringbridge_codec::g711::decode_ulaw(&packet[12..], &mut samples);
            assert!(samples.iter().all(|sample| sample.unsigned_abs() < levels.iter().map(|l| l.unsigned_abs()).sum()));
            heard[n] |= samples.iter().all(|sample| (sample - expected[n]).abs() < 1000);
        }
        if heard == [true; 3] {
            rig.stop();
            return;
        }
    }
    panic!("the full mix was never heard: {heard:?}");
}

#[test]
fn a_connection_moves_under_traffic_without_losing_a_packet() {
    let mut rig = Rig::start(2);
    let (mut a, mut b) = (rig.connect(0, 0, 1), rig.connect(1, 0, 1));
    // Both are learned, so that the sockets are connected before the move.
    for leg in [&mut a, &mut b] {
        leg.send(1);
        leg.send(2);
    }
    for id in [a.id, b.id] {
        rig.wait_for(|report| matches!(report, ShardReport::Event(Event::ConnectionLearned { id: learned, .. }) if *learned == id));
    }
    rig.order(1, Target::Connection(b.id), 0, vec![(b.id, 9)], None);
    // Right behind the move, to the old shard: it is forwarded.
    let token = rig.post(1, Command::StartRelay { a: b.id, b: a.id, transcode: false });
    rig.wait_for(
        |report| matches!(report, ShardReport::Moved(moved) if moved.shard == ShardId(0) && moved.connections == [b.id]),
    );
    assert!(matches!(rig.answer(token), Ok(Answer::Effect(_))));
    for round in 0..200 {
        talk(&mut a, &mut b, round);
    }
    let token = rig.post(1, Command::DeleteConnection { id: b.id });
    assert!(matches!(rig.answer(token), Ok(Answer::Deleted { .. })));
    rig.stop();
}

#[test]
fn a_panic_ends_one_shard_and_it_starts_again_on_the_same_ports() {
    let mut rig = Rig::start(2);
    let [mut a, mut b] = rig.relayed(1, [0, 1]);
    let doomed = rig.connect(0, 0, 1);
    rig.send(0, ShardMessage::Panic);
    let ShardReport::Failed { reason } = rig.wait_for(|report| matches!(report, ShardReport::Failed { .. })) else {
        unreachable!()
    };
    assert!(reason.contains("told to panic"), "{reason}");
    // Its port is free again, and the other shard has not noticed.
    UdpSocket::bind(doomed.server).expect("the failed shard let go of its sockets");
    for round in 0..50 {
        talk(&mut a, &mut b, round);
    }
    rig.restart(0);
    let again = rig.connect(0, 0, 2);
    assert!(matches!(
        rig.ask(0, Command::InspectConnection { id: doomed.id }),
        Err(CommandError::UnknownConnection(_))
    ));
    assert!(matches!(rig.ask(0, Command::InspectConnection { id: again.id }), Ok(Answer::Connection(_))));
    rig.stop();
}
