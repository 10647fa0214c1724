//! Calls and conferences move between real shards in full speech: every packet arrives once and in order.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

mod rig;

use std::collections::HashMap;
use std::time::Instant as WallClock;

use rig::{Leg, PATIENCE, Rig, play, talk};
use ringbridge_media::command::{Command, Target};
use ringbridge_media::event::{Answer, CommandError, Condition, Event};
use ringbridge_media::id::{ConnectionId, ShardId};
use ringbridge_shard::mailbox::{ShardMessage, ShardReport};

const CALLS: usize = 20;
const MOVES: usize = 20;
/// Packets of one side that are on their way at once.
const WINDOW: usize = 16;

struct Call {
    sides: [Leg; 2],
    sent: [usize; 2],
    heard: [usize; 2],
    shard: u8,
    moves: usize,
}

impl Call {
    /// Both say something unless much is on its way; what has arrived is what was said, in order.
    fn talk(&mut self, speak: bool) {
        for own in 0..2 {
            let other = 1 - own;
            if speak && self.sent[own] - self.heard[other] < WINDOW {
                self.sides[own].send(self.sent[own] as u8);
                self.sent[own] += 1;
            }
            while let Some(packet) = self.sides[own].poll_receive() {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                assert_eq!(usize::from(sequence), self.heard[own], "once and in order");
                assert_eq!((packet[12], packet.len()), (sequence as u8, 172), "as it was said");
                self.heard[own] += 1;
            }
        }
    }

    fn ids(&self) -> [ConnectionId; 2] {
        [self.sides[0].id, self.sides[1].id]
    }
}

#[test]
fn calls_move_back_and_forth_without_losing_a_packet() {
    let mut rig = Rig::start(2);
    let mut calls: Vec<Call> = (0..CALLS as u32)
        .map(|n| {
            let sides = rig.relayed(0, [2 * n, 2 * n + 1]);
            Call { sides, sent: [0; 2], heard: [0; 2], shard: 0, moves: 0 }
        })
        .collect();
    let mut ordered: HashMap<u64, usize> = HashMap::new();
    let mut idle: Vec<usize> = (0..CALLS).collect();
    let began = WallClock::now();
    while calls.iter().any(|call| call.moves < MOVES) {
        assert!(began.elapsed() < PATIENCE, "{:?}", calls.iter().map(|call| call.moves).collect::<Vec<_>>());
        calls.iter_mut().for_each(|call| call.talk(true));
        while let Some(moved) = rig.poll_moved() {
            let call = &mut calls[ordered[&moved.token]];
            assert_eq!((moved.shard, moved.connections.len()), (ShardId(1 - call.shard), 2));
            assert!(moved.effect.is_some());
            (call.shard, call.moves) = (1 - call.shard, call.moves + 1);
            idle.push(ordered[&moved.token]);
        }
        // Some speech between two moves of a call.
        idle.retain(|&n| {
            let call = &mut calls[n];
            let ready = call.moves < MOVES && call.heard.iter().all(|&heard| heard > 5 * call.moves);
            if ready {
                let to = 1 - call.shard;
                let seats = |id: ConnectionId| (id, id.slot_number() + 20 * u32::from(to));
                let token = rig.order(
                    call.shard,
                    Target::Connection(call.ids()[n % 2]),
                    to,
                    call.ids().map(seats).to_vec(),
                    None,
                );
                ordered.insert(token, n);
            }
            !ready
        });
    }
    let all_heard = |call: &Call| call.sent[0] == call.heard[1] && call.sent[1] == call.heard[0];
    while !calls.iter().all(all_heard) {
        assert!(began.elapsed() < 2 * PATIENCE, "some never arrived");
        calls.iter_mut().for_each(|call| call.talk(false));
    }
    // Late commands find their way from the first home.
    for call in &calls {
        let token = rig.post(1, Command::InspectConnection { id: call.ids()[0] });
        assert!(matches!(rig.answer(token), Ok(Answer::Connection(status)) if status.counters.drops == 0));
    }
    rig.stop();
}

#[test]
fn a_conference_moves_while_three_talk_and_a_prompt_is_played() {
    let mut rig = Rig::start(2);
    let (room, mut legs) = rig.room(0, 5, 0, 3);
    rig.operate(0, 1, Target::Conference(room), play(900, 8_000));
    let mut shard = 0u8;
    let mut last: Vec<Option<(u16, u32)>> = vec![None; 3];
    for round in 0..10 {
        let to = 1 - shard;
        let seats = legs.iter().enumerate().map(|(n, leg)| match to {
            0 => (leg.id, leg.id.slot_number()),
            _ => (leg.id, 30 - n as u32),
        });
        let slots = seats.collect();
        let token = rig.order(shard, Target::Conference(room), to, slots, Some(if to == 0 { 5 } else { 1 }));
        // Right behind, to the old home: forwarded, and answered by the new one.
        let inspect = rig.post(shard, Command::InspectConference { id: room });
        let mut moved = None;
        let mut packets = 0;
        while moved.is_none() || packets < 3 * 8 {
            for (leg, last) in legs.iter_mut().zip(&mut last) {
                leg.send(0x90);
                // The mix sets the pace.
                let packet = leg.receive();
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
                if let Some((sequence_before, timestamp_before)) = last.replace((sequence, timestamp)) {
                    assert_eq!(sequence, sequence_before.wrapping_add(1), "round {round}");
                    assert_eq!(timestamp, timestamp_before.wrapping_add(160), "round {round}");
                }
                packets += 1;
            }
            moved = moved.or_else(|| rig.poll_moved());
        }
        let moved = moved.unwrap();
        assert_eq!((moved.token, moved.shard, moved.conference), (token, ShardId(to), Some(room)));
        assert_eq!(moved.effect.unwrap().streams.iter().filter(|stamp| stamp.outgoing).count(), 3);
        assert!(matches!(rig.answer(inspect), Ok(Answer::Conference(status)) if status.participants.len() == 3));
        shard = to;
    }
    let ended = rig.wait_for(|report| matches!(report, ShardReport::Event(Event::OperationEnded { .. })));
    let ShardReport::Event(Event::OperationEnded { condition, elapsed_ms, .. }) = ended else { unreachable!() };
    assert_eq!((condition, elapsed_ms), (Condition::Eod, 1_000));
    rig.stop();
}

#[test]
fn what_can_not_move_stays_and_says_so() {
    let mut rig = Rig::start(2);
    let [mut a, mut b] = rig.relayed(0, [0, 1]);
    let stranger = ConnectionId::new(ShardId(0), 7, 1);
    let orders = [
        // No place for the other side; nobody; not elsewhere.
        rig.order(0, Target::Connection(a.id), 1, vec![(a.id, 3)], None),
        rig.order(0, Target::Connection(stranger), 1, vec![(stranger, 3)], None),
        rig.order(0, Target::Connection(a.id), 0, vec![(a.id, 3), (b.id, 4)], None),
    ];
    for token in orders {
        let moved = rig.moved(token);
        assert_eq!((moved.shard, moved.connections.len(), moved.effect.is_none()), (ShardId(0), 0, true));
    }
    talk(&mut a, &mut b, 1);

    // A second order for what is on its way waits, follows it, and finds that it is there already.
    let seats = vec![(a.id, 3), (b.id, 4)];
    let first = rig.order(0, Target::Connection(a.id), 1, seats.clone(), None);
    let second = rig.order(0, Target::Connection(b.id), 1, seats, None);
    let stopped = rig.post(0, Command::StopRelay { a: b.id });
    for (token, count) in [(first, 2), (second, 0)] {
        let moved = rig.moved(token);
        assert_eq!((moved.shard, moved.connections.len()), (ShardId(1), count));
    }
    assert!(matches!(rig.answer(stopped), Ok(Answer::Effect(_))));
    // A delete on its heels ends it there, once.
    rig.order(1, Target::Connection(a.id), 0, vec![(a.id, 0)], None);
    let deleted = rig.post(1, Command::DeleteConnection { id: a.id });
    assert!(matches!(rig.answer(deleted), Ok(Answer::Deleted { .. })));
    let gone = rig.post(1, Command::InspectConnection { id: a.id });
    assert!(matches!(rig.answer(gone), Err(CommandError::UnknownConnection(_))));
    let ended = |report: &ShardReport| matches!(report, ShardReport::Event(Event::ConnectionEnded { .. }));
    rig.wait_for(ended);
    assert_eq!(rig.count_seen(ended), 0);
    rig.stop();
}

#[test]
fn what_is_on_its_way_to_a_shard_that_fails_arrives_at_the_next_one() {
    let mut rig = Rig::start(2);
    let [mut a, b] = rig.relayed(0, [0, 1]);
    rig.send(1, ShardMessage::Panic);
    rig.wait_for(|report| matches!(report, ShardReport::Failed { .. }));
    let token = rig.order(0, Target::Connection(a.id), 1, vec![(a.id, 0), (b.id, 1)], None);
    let sent = a.send(9);
    rig.restart(1);
    assert_eq!(rig.moved(token).connections.len(), 2);
    assert_eq!(b.receive(), sent, "it waited in the socket, or was passed on before");
    rig.stop();
}
