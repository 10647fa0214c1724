//! `next`: a request that is held until a call begins.

use ringbridge_tests::http::Held;

use crate::Row;
use crate::rig::{ALWAYS, Reply, Rig, Serving, encode, state};

/// Waits for the next call of a number.
fn wait(rig: &Rig, action: &str, number: &str, status: &str) -> Held {
    rig.hold(&format!("action={action}&extension={number}&status={}", encode(status)))
}

#[track_caller]
fn answer(held: Held) -> Reply {
    let reply = Reply::of(held.finish());
    assert_eq!((reply.status, reply.code().as_str()), (200, "0"), "{reply:?}");
    reply
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for action in ["MuteRecording", "KeepCall", "GetCallInformation", "DeleteCall"] {
        for status in ["next", "ongoing, next"] {
            for side in [0, 1] {
                let name = format!("next::{action}_{}_{}", status.replace(", ", "_"), ["caller", "called"][side]);
                rows.push(Row::new(name, move |rig| {
                    let number = rig.number(0);
                    let held = wait(rig, action, &number, status);
                    rig.settle();
                    assert!(!held.is_answered());
                    let mut parties = [ALWAYS, ALWAYS];
                    parties[side] = &number;
                    rig.call(parties[0], parties[1]);
                    let reply = answer(held);
                    if action == "GetCallInformation" {
                        assert_eq!(reply.child("ccdr_id"), Some(rig.id(&number, "ongoing")));
                    }
                }));
            }
        }
    }
    let mut row = |name: &str, run: fn(&mut Rig)| rows.push(Row::new(format!("next::{name}"), run));
    row("mutes_what_begins", |rig| {
        let number = rig.number(0);
        let held = rig.hold(&format!("action=MuteRecording&extension={number}&status=next&mute=2"));
        rig.settle();
        rig.call(&number, ALWAYS);
        assert_eq!(answer(held).muted(), state(2));
        let id = rig.id(&number, "ongoing");
        assert_eq!(rig.muted(&id), state(2));
    });
    row("keeps_what_begins", |rig| {
        let number = rig.number(0);
        let held = rig.hold(&format!("action=KeepCall&extension={number}&status=next"));
        rig.settle();
        let (pair, id) = rig.on_demand(&number);
        answer(held);
        rig.finish(&pair, &id);
        assert!(rig.file(&id).exists());
    });
    row("is_not_the_one_that_goes_on", |rig| {
        let number = rig.number(0);
        let (_, first) = rig.recorded(&number);
        let held = wait(rig, "GetCallInformation", &number, "next");
        rig.settle();
        assert!(!held.is_answered());
        rig.call(&number, ALWAYS);
        let id = answer(held).child("ccdr_id").unwrap();
        assert_ne!(id, first);
        assert_eq!(rig.ok(&format!("action=GetCallInformation&callID={id}")).cdr_state().as_deref(), Some("0"));
    });
    row("is_one_whose_recording_begins", |rig| {
        let (number, called) = (rig.number(0), rig.number(1));
        let held = wait(rig, "GetCallInformation", &number, "next");
        rig.settle();
        // Nobody records this one, until somebody does.
        let pair = rig.call(&number, &called);
        rig.settle();
        assert!(!held.is_answered());
        rig.record(&pair);
        assert_eq!(answer(held).child("destination_caller_id"), Some(called));
    });
    row("is_of_this_number", |rig| {
        let (number, other) = (rig.number(0), rig.number(1));
        let held = wait(rig, "GetCallInformation", &number, "next");
        rig.settle();
        rig.recorded(&other);
        assert!(!held.is_answered());
        rig.call(&number, ALWAYS);
        assert_eq!(answer(held).child("source_caller_id"), Some(number));
    });
    row("compares_numbers_as_ever", |rig| {
        let number = rig.number(0);
        let held = wait(rig, "GetCallInformation", &encode(&format!("sip:{number}@b.example")), "next");
        rig.settle();
        rig.call(&format!("({number})"), ALWAYS);
        answer(held);
    });
    row("all_who_wait_get_the_same_call", |rig| {
        let number = rig.number(0);
        let statuses = ["next", "ongoing, next"];
        let held: Vec<Held> =
            (0..10).map(|which| wait(rig, "GetCallInformation", &number, statuses[which % 2])).collect();
        rig.settle();
        assert!(held.iter().all(|held| !held.is_answered()));
        rig.call(&number, ALWAYS);
        let mut ids: Vec<_> = held.into_iter().map(|held| answer(held).child("ccdr_id")).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1);
    });
    row("who_goes_away_does_nothing", |rig| {
        let number = rig.number(0);
        let gone = rig.hold(&format!("action=MuteRecording&extension={number}&status=next&mute=3"));
        let stays = wait(rig, "GetCallInformation", &number, "next");
        rig.settle();
        drop(gone);
        rig.settle();
        rig.call(&number, ALWAYS);
        let id = answer(stays).child("ccdr_id").unwrap();
        assert_eq!(rig.muted(&id), state(0));
    });
    row("malformed_is_told_at_once", |rig| {
        let number = rig.number(0);
        rig.fails(&format!("action=MuteRecording&extension={number}&status=next&mute=4"), 3, "mute is");
        rig.fails("action=MuteRecording&extension=-&status=next", 3, "empty");
    });
    rows.push(Row::alone("next::a_thousand_wait_and_no_more", thousand));
    rows.push(Row::alone("next::waits_end_with_the_server", server_ends));
    rows
}

fn thousand() {
    let serving = Serving::start(8, 1, "");
    let mut rig = serving.rig();
    let number = rig.number(0);
    let mut held: Vec<Held> = (0..1001).map(|_| wait(&rig, "GetCallInformation", &number, "next")).collect();
    // Which of them are the thousand is not said; whoever is one too many hears so at once, and everybody else is served.
    let one = ringbridge_tests::until("one too many", || held.iter().position(Held::is_answered));
    let refused = Reply::of(held.swap_remove(one).finish());
    assert_eq!((refused.status, refused.code().as_str()), (200, "9"), "{refused:?}");
    assert!(refused.error().contains("Too many"), "{refused:?}");
    rig.settle();
    assert!(held.iter().all(|held| !held.is_answered()));
    // Whoever goes makes room.
    drop(held.pop());
    let late = ringbridge_tests::until("room", || {
        let late = wait(&rig, "GetCallInformation", &number, "ongoing, next");
        rig.settle();
        (!late.is_answered()).then_some(late)
    });
    rig.call(&number, ALWAYS);
    for held in held.into_iter().chain([late]) {
        assert_eq!(answer(held).child("source_caller_id").as_ref(), Some(&number));
    }
    drop(rig);
    serving.server.stop();
}

fn server_ends() {
    let serving = Serving::start(8, 1, "");
    let rig = serving.rig();
    let number = rig.number(0);
    let held: Vec<Held> = (0..3).map(|_| wait(&rig, "MuteRecording", &number, "next")).collect();
    rig.settle();
    assert!(held.iter().all(|held| !held.is_answered()));
    drop(rig);
    // It does not wait for a call.
    serving.server.stop();
    assert!(held.iter().all(Held::is_answered), "answered or closed");
}
