//! Several at once: clients among each other, and against the end of the call.

use ringbridge_tests::http::{self, Held};
use ringbridge_tests::until;
use serde_json::json;

use crate::Row;
use crate::rig::{ENDED, NOT_FOUND, OPEN, Reply, Rig, state};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, run: fn(&mut Rig)| rows.push(Row::new(format!("concurrency::{name}"), run));
    row("two_clients_on_one_recording", two_clients);
    row("ten_clients_and_the_control_socket", many_clients);
    row("mutes_against_the_end_of_the_call", against_the_end);
    row("a_delete_while_mutes_wait", delete_while_muting);
    row("keep_against_the_end", keep_against_the_end);
    row("unmark_against_the_end", unmark_against_the_end);
    row("two_deletes_at_once", two_deletes);
    row("a_delete_against_a_download", delete_against_download);
    row("a_client_that_goes_away_in_the_middle", gone_in_the_middle);
    row("many_calls_begin_and_end", many_calls);
    rows
}

/// What is told of each change of a recording, in order.
struct Changes(ringbridge_control::client::Client);

impl Changes {
    fn follow(rig: &Rig) -> Self {
        let client = ringbridge_control::client::Client::connect(&rig.directory.join("control.sock")).unwrap();
        client.subscribe(&["recording.muted"]).unwrap();
        Self(client)
    }

    /// The next `count` of an operation.
    #[track_caller]
    fn take(&self, operation: &str, count: usize) -> Vec<(String, String)> {
        let mut taken = Vec::new();
        until("every change", || {
            let event = self.0.next_event(std::time::Duration::from_millis(10)).unwrap()?;
            if event["operation_id"] == operation {
                taken.push((event["caller"].to_string(), event["called"].to_string()));
            }
            (taken.len() == count).then_some(())
        });
        taken
    }
}

fn two_clients(rig: &mut Rig) {
    let (caller, called) = (rig.number(0), rig.number(1));
    let (_, id, operation) = rig.native_recording(&caller, &called);
    let changes = Changes::follow(rig);
    let (api, rounds) = (rig.api, 25);
    let client = |offset: u8| {
        let id = id.clone();
        std::thread::spawn(move || {
            for round in 0..rounds {
                let value = (round + offset) % 4;
                let target = format!("/verba/api?apiKey={OPEN}&action=MuteRecording&callID={id}&mute={value}");
                let reply = Reply::of(http::request(api, "GET", &target, &[], b""));
                assert_eq!(reply.muted(), state(value), "the state after its own");
            }
        })
    };
    let clients = [client(1), client(2)];
    clients.into_iter().for_each(|client| client.join().unwrap());
    let told = changes.take(&operation, 2 * usize::from(rounds));
    assert_eq!(rig.muted(&id), *told.last().unwrap(), "the last one counts");
}

fn many_clients(rig: &mut Rig) {
    let (caller, called) = (rig.number(0), rig.number(1));
    let (pair, id, operation) = rig.native_recording(&caller, &called);
    let changes = Changes::follow(rig);
    let mutes: Vec<(u8, Held)> = (0..30)
        .map(|round| {
            let value = round % 4;
            if round % 3 == 0 {
                let channels = ["none", "caller", "called", "both"][usize::from(3 - value)];
                rig.native("recording.mute", json!({"operation_id": operation, "channels": channels}));
            }
            (value, rig.hold(&format!("action=MuteRecording&callID={id}&mute={value}")))
        })
        .collect();
    for (value, held) in mutes {
        assert_eq!(Reply::of(held.finish()).muted(), state(value));
    }
    let told = changes.take(&operation, 40);
    assert_eq!(rig.muted(&id), *told.last().unwrap());
    rig.finish(&pair, &id);
    assert_eq!(rig.muted(&id), *told.last().unwrap());
}

fn against_the_end(rig: &mut Rig) {
    for round in 0..8 {
        let number = rig.number(round);
        let (pair, id) = rig.recorded(&number);
        let held: Vec<(u8, Held)> = (0..6)
            .map(|number| (number % 4, rig.hold(&format!("action=MuteRecording&callID={id}&mute={}", number % 4))))
            .collect();
        rig.hang_up(&pair);
        let late: Vec<(u8, Held)> =
            (0..2).map(|_| (3, rig.hold(&format!("action=MuteRecording&callID={id}&mute=3")))).collect();
        for (value, held) in held {
            let reply = Reply::of(held.finish());
            match reply.code().as_str() {
                "0" => assert_eq!(reply.muted(), state(value)),
                _ => assert_eq!((reply.code().as_str(), reply.error().as_str()), ("2", ENDED)),
            }
        }
        for (_, held) in late {
            let reply = Reply::of(held.finish());
            assert_eq!((reply.code().as_str(), reply.error().as_str()), ("2", ENDED), "{reply:?}");
        }
    }
}

fn delete_while_muting(rig: &mut Rig) {
    let number = rig.number(0);
    let (pair, id) = rig.recorded(&number);
    let mute = |value: u8| rig.hold(&format!("action=MuteRecording&callID={id}&mute={value}"));
    let before: Vec<Held> = (0..5).map(|value| mute(value % 4)).collect();
    let delete = rig.hold(&format!("action=DeleteCall&callID={id}"));
    let after: Vec<Held> = (0..5).map(|value| mute(value % 4)).collect();
    for held in before.into_iter().chain([delete]).chain(after) {
        let reply = Reply::of(held.finish());
        assert_eq!(reply.code(), "0", "{reply:?}");
    }
    rig.hang_up(&pair);
    rig.gone(&id);
}

/// A request against the end of a call, sometimes sooner, sometimes later; its answer.
#[track_caller]
fn race(rig: &mut Rig, round: u32, kept: bool, query: &str) -> (String, Reply) {
    let number = rig.number(round);
    let (pair, id) = rig.on_demand(&number);
    if kept {
        rig.ok(&format!("action=KeepCall&callID={id}"));
    }
    let query = format!("{query}&callID={id}");
    let reply = if round % 2 == 0 {
        let held = rig.hold(&query);
        rig.hang_up(&pair);
        Reply::of(held.finish())
    } else {
        rig.control.call("relay.stop", &json!({"a": pair.0[0]})).unwrap();
        let reply = rig.ask(&query);
        rig.hang_up(&pair);
        reply
    };
    (id, reply)
}

fn keep_against_the_end(rig: &mut Rig) {
    for round in 0..12 {
        let (id, reply) = race(rig, round, false, "action=KeepCall");
        if reply.code() == "0" {
            // Whoever was told that it is kept finds it.
            until("its end", || {
                (rig.ask(&format!("action=GetCallInformation&callID={id}")).cdr_state()? == "1").then_some(())
            });
            assert!(rig.file(&id).exists());
        } else {
            assert_eq!((reply.code().as_str(), reply.error().as_str()), ("2", NOT_FOUND));
            rig.gone(&id);
        }
    }
}

fn unmark_against_the_end(rig: &mut Rig) {
    for round in 0..8 {
        let (id, reply) = race(rig, round, true, "action=KeepCall&unmark=1");
        assert_eq!(reply.code(), "0", "{reply:?}");
        rig.gone(&id);
    }
}

fn two_deletes(rig: &mut Rig) {
    for round in 0..4 {
        let number = rig.number(round);
        let (pair, id) = rig.recorded(&number);
        rig.finish(&pair, &id);
        let held: Vec<Held> = (0..4).map(|_| rig.hold(&format!("action=DeleteCall&callID={id}"))).collect();
        let codes: Vec<String> = held.into_iter().map(|held| Reply::of(held.finish()).code()).collect();
        assert_eq!(codes.iter().filter(|code| *code == "0").count(), 1, "{codes:?}");
        rig.gone(&id);
    }
}

fn delete_against_download(rig: &mut Rig) {
    let number = rig.number(0);
    let (pair, id) = rig.recorded(&number);
    rig.finish(&pair, &id);
    let whole = std::fs::read(rig.file(&id)).unwrap();
    let held = rig.hold(&format!("action=GetMediaEncoded&cid={id}"));
    until("the answer to begin", || held.is_answered().then_some(()));
    rig.ok(&format!("action=DeleteCall&callID={id}"));
    let answer = held.finish();
    assert!(answer.status == 200 && answer.body == whole, "what was begun is served to its end");
    rig.gone(&id);
}

fn gone_in_the_middle(rig: &mut Rig) {
    let number = rig.number(0);
    let (_, id) = rig.recorded(&number);
    for value in [1, 2, 3, 0, 3] {
        drop(rig.hold(&format!("action=MuteRecording&callID={id}&mute={value}")));
    }
    // Each was carried out or not; whatever is told now is what holds.
    rig.settle();
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}&mute=2")).muted(), state(2));
    assert_eq!(rig.muted(&id), state(2));
}

fn many_calls(rig: &mut Rig) {
    let part = rig.number(0)[..6].to_owned();
    for round in 0..15 {
        let number = rig.number(round);
        let (pair, id) = rig.recorded(&number);
        rig.ok(&format!("action=MuteRecording&extension={number}&status=ongoing&mute={}", round % 4));
        rig.finish(&pair, &id);
    }
    let found = rig.ok(&format!("action=SearchCalls&{}&anynum={part}", crate::rig::SPAN));
    assert_eq!(found.children("ccdr_id").len(), 15);
    assert_eq!(
        rig.ok(&format!("action=SearchCalls&status=ongoing&{}&anynum={part}", crate::rig::SPAN))
            .children("ccdr_id")
            .len(),
        0
    );
}
