use std::net::{IpAddr, Ipv4Addr};

use ringbridge_media::command::{CodecKind, OperationKind, Rate, Target};
use ringbridge_media::id::{ConnectionId, ShardId};
use ringbridge_media::time::Instant;
use ringbridge_shard::mailbox::Moved;
use ringbridge_shard::sockets::SocketOptions;

use super::*;
use crate::config::PortRange;
use crate::methods::connection::Negotiated;
use crate::ports::PortPool;
use crate::quota::{Class, Quota, QuotaConfig};

const SLOTS: u32 = 100;

fn pool() -> PortPool {
    PortPool::new(PortRange::new(29_200, 29_499).expect("a range"), [IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

fn quota() -> Quota {
    Quota::new(&QuotaConfig::default())
}

fn add(registry: &mut Registry, pool: &PortPool, shard: u8) -> ConnectionId {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (lease, _, _) = pool.take(ip, SocketOptions::default()).expect("ports");
    let negotiated = Negotiated::new(CodecKind::Pcmu, 101);
    let rtp = quota().try_take(Class::Rtp).expect("unlimited");
    let id = registry.add_connection(ShardId(shard), lease, negotiated, 46, rtp, None).expect("room").id;
    assert!(registry.connection(id).is_none(), "not known before it is confirmed");
    registry.confirm_connection(id);
    id
}

#[test]
fn a_slot_is_used_again_last_and_under_a_new_generation() {
    let (mut registry, pool) = (Registry::new(1, SLOTS), pool());
    let first = add(&mut registry, &pool, 0);
    assert!(registry.remove_connection(first).is_some());
    assert!(registry.remove_connection(first).is_none());
    let mut last = first;
    for _ in 0..SLOTS {
        last = add(&mut registry, &pool, 0);
        assert!(registry.remove_connection(last).is_some());
    }
    assert_eq!(last.slot(), first.slot());
    assert_ne!(last, first);
    assert!(registry.connection(first).is_none());
    assert_eq!(pool.pairs_free(), pool.pairs_total());
}

fn begin(registry: &mut Registry, id: ConnectionId, to: u8) -> Result<Begun, MoveRefused> {
    registry.begin_move(Target::Connection(id), vec![id], ShardId(to), Instant::ZERO)
}

fn end(registry: &mut Registry, token: u64, shard: u8, connections: Vec<ConnectionId>) -> Vec<Target> {
    registry.end_move(Moved { token, shard: ShardId(shard), connections, conference: None, effect: None })
}

#[test]
fn a_move_holds_a_guest_slot_where_the_connection_lives() {
    let (mut registry, pool) = (Registry::new(3, 2), pool());
    let id = add(&mut registry, &pool, 0);
    let (order, mut done) = begin(&mut registry, id, 1).expect("room");
    assert!(done.try_recv().is_err());
    assert_eq!(begin(&mut registry, id, 2).expect_err("it is on its way"), MoveRefused::Moving);
    assert_eq!(end(&mut registry, order.token, 1, vec![id]), []);
    assert!(matches!(done.try_recv(), Ok(Ok(moved)) if moved.connections == [id]));
    assert_eq!((registry.connections_on(ShardId(0)), registry.connections_on(ShardId(1))), (0, 1));
    // Half of that table is taken; the rest takes one more, and no third one.
    let other = add(&mut registry, &pool, 1);
    let third = add(&mut registry, &pool, 0);
    assert_eq!(begin(&mut registry, third, 1).expect_err("no room"), MoveRefused::Full(TableFull(ShardId(1))));
    // Back home it has its own slot, and the other one is free.
    let (order, _done) = begin(&mut registry, id, 0).expect("room");
    assert_eq!(order.slots, [(id, id.slot_number())]);
    assert_eq!(end(&mut registry, order.token, 0, vec![id]), []);
    let (order, _done) = begin(&mut registry, third, 1).expect("room");
    // It stays after all.
    assert_eq!(end(&mut registry, order.token, 0, vec![]), []);
    assert_eq!(registry.connection(third).map(|entry| entry.shard), Some(ShardId(0)));
    let (order, _done) = begin(&mut registry, id, 1).expect("room");
    registry.cancel_move(order.token);
    let (order, _done) = begin(&mut registry, id, 1).expect("room");
    assert_eq!(end(&mut registry, order.token, 1, vec![id]), []);
    let ended = registry.remove_connection(id).expect("known");
    assert_eq!(ended.forwarders, [ShardId(0)]);
    assert_eq!(end(&mut registry, order.token, 1, vec![id]), [Target::Connection(id)]);
    for id in [other, third] {
        assert!(registry.remove_connection(id).is_some());
    }
    assert_eq!(registry.connections_total(), 0);
}

#[test]
fn a_conference_moves_with_its_members_or_not_at_all() {
    let (mut registry, pool) = (Registry::new(2, 3), pool());
    let room = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
    registry.confirm_conference(room);
    let members: Vec<_> = (0..3).map(|_| add(&mut registry, &pool, 0)).collect();
    for id in &members {
        let join = registry.add_member(room, *id, false, None);
        registry.confirm_member(room, join);
    }
    let local = add(&mut registry, &pool, 1);
    let target = Target::Conference(room);
    let full = registry.begin_move(target, members.clone(), ShardId(1), Instant::ZERO).expect_err("two slots");
    assert_eq!(full, MoveRefused::Full(TableFull(ShardId(1))));
    assert!(registry.remove_connection(local).is_some());
    let (order, _done) = registry.begin_move(target, members.clone(), ShardId(1), Instant::ZERO).expect("room");
    assert_eq!((order.slots.len(), order.room.is_some()), (3, true));
    let moved = Moved {
        token: order.token,
        shard: ShardId(1),
        connections: members.clone(),
        conference: Some(room),
        effect: None,
    };
    assert_eq!(registry.end_move(moved), []);
    assert_eq!(registry.conference(room).map(|entry| entry.shard), Some(ShardId(1)));
    // It is lost with the shard it lives on, not with its first home.
    assert!(registry.remove_shard(ShardId(0)).conferences.is_empty());
    let lost = registry.remove_shard(ShardId(1));
    assert_eq!((lost.conferences, lost.connections.len()), (vec![room], 3));
    assert!(lost.strays.contains(&(ShardId(0), target)));
}

#[test]
fn a_lost_shard_takes_its_own_and_nothing_else() {
    let (mut registry, pool) = (Registry::new(2, SLOTS), pool());
    let stays = add(&mut registry, &pool, 1);
    let dies = add(&mut registry, &pool, 0);
    let on_its_way = add(&mut registry, &pool, 1);
    let (_order, mut done) = begin(&mut registry, on_its_way, 0).expect("room");
    let room = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
    registry.confirm_conference(room);
    let target = Target::Conference(room);
    let operation = registry.add_operation(ShardId(0), target, OperationKind::Play, None, Vec::new()).id;
    registry.confirm_operation(operation);
    let lost = registry.remove_shard(ShardId(0));
    let connections: Vec<_> = lost.connections.iter().map(|entry| entry.id).collect();
    assert_eq!(connections, [dies, on_its_way]);
    assert_eq!(lost.strays, [(ShardId(1), Target::Connection(on_its_way))]);
    assert!(matches!(done.try_recv(), Ok(Err(ShardId(0)))), "whoever waits is told");
    assert_eq!(lost.conferences, [room]);
    assert_eq!(lost.operations.len(), 1);
    assert!(registry.connection(stays).is_some() && registry.connection(dies).is_none());
    assert!(registry.conference(room).is_none() && registry.operation(operation).is_none());
    let again = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
    assert_ne!(again, room);
    assert_eq!(registry.connections_on(ShardId(0)), 0);
}

#[test]
fn utility_ids_stand_for_operations() {
    let id = OperationId::new(ShardId(2), 0xab, 3);
    assert_eq!(utility_id(id), "util-2-ab-3");
    assert_eq!(parse_utility_id("util-2-ab-3"), Some(id));
    assert_eq!(parse_utility_id("op-2-ab-3"), None);
    assert_eq!(parse_utility_id("conn-2-ab-3"), None);
}

#[test]
fn a_conference_in_parts_is_over_when_its_last_party_has_left() {
    let (mut registry, pool) = (Registry::new(2, 8), pool());
    let room = registry.add_conference(ShardId(0), None, (8, Rate::Narrow), None).expect("room");
    assert!(registry.add_part(room, ShardId(1)).is_ok());
    registry.confirm_conference(room);
    let members: Vec<_> = (0..4).map(|n| add(&mut registry, &pool, n % 2)).collect();
    let place = |registry: &Registry, id| {
        let entry = registry.conference(room).expect("known");
        registry.part_for(entry, Some(id), |_| true)
    };
    // Where one is already, as long as the parts are equal; then where fewer are.
    assert_eq!(place(&registry, members[0]), ShardId(0));
    assert_eq!(place(&registry, members[1]), ShardId(1));
    let joins: Vec<_> = members.iter().map(|id| registry.add_member(room, *id, *id == members[3], None)).collect();
    registry.remove_member(room, joins[1]);
    assert_eq!(place(&registry, members[0]), ShardId(1));
    assert_eq!(registry.take_vacated(), [], "nobody has left so far");
    for join in [joins[0], joins[2], joins[3]] {
        registry.confirm_member(room, join);
    }
    registry.member_left(room, members[0]);
    assert_eq!(registry.take_vacated(), [], "one is left");
    let late = registry.add_member(room, members[1], false, None);
    assert!(registry.remove_connection(members[2]).is_some());
    assert_eq!(registry.take_vacated(), [], "one is about to join");
    registry.remove_member(room, late);
    // Monitors don't keep it.
    assert_eq!(registry.take_vacated(), [(room, vec![ShardId(0), ShardId(1)])]);
    registry.member_left(room, members[3]);
    assert_eq!(registry.take_vacated(), [], "it is told once");
    let lost = registry.lose_parts(ShardId(1));
    assert_eq!(lost.bereft, [(room, vec![ShardId(0)])]);
    assert!(registry.remove_conference(room).is_some());
    assert_eq!(pool.pairs_free(), pool.pairs_total() - 3);
}
