//! Stop and delete under load: many connections, each with a play, a record and a gather, end in random order while
//! others start. Afterwards nothing is in use, and each operation has ended once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use ringbridge_tests::{http, until};
use serde_json::{Value, json};

use crate::http::{Case, Script};
use crate::rig::text;

pub(crate) const ROWS: &[Case] = &[("load::stop_and_delete_500_connections", five_hundred)];

/// Connections of the first wave; half as many come while they go.
const CONNECTIONS: usize = 500;
const THREADS: usize = 8;

/// A connection with its three operations.
struct Busy {
    id: String,
    operations: [String; 3],
}

fn act(api: SocketAddr, guid: &str, action: &str, params: Value) -> Value {
    let body = json!({"routingGuid": guid, "timeout": 30_000, "params": params});
    http::post(api, &format!("/MediaControl/{action}"), &body).json()
}

#[track_caller]
fn ok(api: SocketAddr, guid: &str, action: &str, params: Value) -> Value {
    let answer = act(api, guid, action, params);
    assert_eq!(answer["branch"], "Success", "{action}: {answer}");
    answer["results"].clone()
}

fn start(api: SocketAddr, guid: &str, number: usize) -> Busy {
    let created = ok(api, guid, "CreateConnection", json!({"MediaTxIP": "127.0.0.1", "MediaTxPort": 9}));
    let id = text(&created["ConnectionId"]);
    let starts = [
        ("Play", json!({"ConnectionId": id, "Prompt1": "long.wav"})),
        ("Record", json!({"ConnectionId": id, "Filename": format!("load/{number}.vox")})),
        ("GatherDigits", json!({"ConnectionId": id})),
    ];
    let operations = starts.map(|(action, params)| text(&ok(api, guid, action, params)["OperationId"]));
    Busy { id, operations }
}

/// Works through some numbers on a few threads.
fn in_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// Reads a script's events until it is done and nothing more comes.
fn read_events(api: SocketAddr, guid: &str, done: &AtomicBool) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        // Looked at first: what came before it was set is then read.
        let last = done.load(Ordering::Acquire);
        let batch = http::get(api, &format!("/MediaControl/events?routingGuid={guid}&after={after}&wait=200")).json();
        assert_eq!(batch["missed"], 0, "no event is lost to who keeps up");
        after = batch["next"].as_u64().expect("a number");
        let new = batch["events"].as_array().expect("a list");
        if new.is_empty() && last {
            return events;
        }
        events.extend(new.iter().cloned());
    }
}

fn five_hundred() {
    let pairs = u16::try_from(2 * CONNECTIONS).expect("small");
    let script = Script::start(pairs, "");
    script.tone("long.wav", 1000, 60_000);
    let (api, guid) = (script.api, script.guid.clone());
    // A subscriber that keeps up: no log holds all of this.
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (guid, done) = (guid.clone(), Arc::clone(&done));
        move || read_events(api, &guid, &done)
    });
    let first: Mutex<Vec<Busy>> = Mutex::default();
    in_parallel(CONNECTIONS, |number| {
        let busy = start(api, &guid, number);
        first.lock().unwrap().push(busy);
    });
    let mut first = first.into_inner().unwrap();
    assert_eq!(script.server.figure("/operations"), 3 * CONNECTIONS as u64);
    let mut dice = Pcg64Mcg::seed_from_u64(7);
    first.shuffle(&mut dice);
    let choices: Vec<u8> = (0..CONNECTIONS).map(|_| dice.random_range(0..4)).collect();
    let second: Mutex<Vec<Busy>> = Mutex::default();
    // Every other turn begins one of the second wave.
    in_parallel(CONNECTIONS + CONNECTIONS / 2, |turn| {
        if turn % 3 == 2 {
            let busy = start(api, &guid, CONNECTIONS + turn / 3);
            second.lock().unwrap().push(busy);
            return;
        }
        let number = turn - turn / 3;
        let busy = &first[number];
        match choices[number] {
            // Deleted as it is.
            0 => {}
            // All stopped first.
            1 => drop(ok(api, &guid, "StopMediaOperation", json!({"ConnectionId": busy.id}))),
            // One stopped first.
            2 => {
                let stop = json!({"ConnectionId": busy.id, "OperationId": busy.operations[number % 3]});
                drop(ok(api, &guid, "StopMediaOperation", stop));
            }
            // Stopped without waiting: the delete follows at once.
            _ => drop(ok(api, &guid, "StopMediaOperation", json!({"ConnectionId": busy.id, "Block": false}))),
        }
        ok(api, &guid, "DeleteConnection", json!({"ConnectionId": busy.id}));
    });
    let second = second.into_inner().unwrap();
    assert_eq!(second.len(), CONNECTIONS / 2);
    in_parallel(second.len(), |number| {
        drop(ok(api, &guid, "DeleteConnection", json!({"ConnectionId": second[number].id})))
    });

    nothing_in_use(&script, u64::from(pairs));
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    done.store(true, Ordering::Release);
    for event in reader.join().expect("it read") {
        assert!(["userstop", "autostop"].contains(&text(&event["params"]["TerminationCondition"]).as_str()), "{event}");
        *ends.entry(text(&event["params"]["OperationId"])).or_default() += 1;
    }
    let started: Vec<&String> = first.iter().chain(&second).flat_map(|busy| &busy.operations).collect();
    assert_eq!(ends.len(), started.len());
    for operation in started {
        assert_eq!(ends.get(operation), Some(&1), "operation {operation}");
    }
    // Every recording is there, whole, and no temporary file beside it.
    let files = std::fs::read_dir(script.server.recording("load")).expect("a directory");
    let vox =
        files.filter_map(Result::ok).filter(|file| file.path().extension().is_some_and(|extension| extension == "vox"));
    assert_eq!(vox.count(), CONNECTIONS + CONNECTIONS / 2);
    script.stop();
}

/// No connection, operation, port or unit of any quota is in use.
pub(crate) fn nothing_in_use(script: &Script, pairs: u64) {
    let server = &script.server;
    until("everything is given back", || {
        let stats = server.ok("server.stats", Value::Null);
        let resources = stats["resources"].as_object().expect("classes");
        resources.values().all(|class| class["in_use"] == 0).then_some(())
    });
    assert_eq!(server.ok("connection.list", json!({}))["connections"], json!([]));
    assert_eq!(server.ok("operation.list", json!({}))["operations"], json!([]));
    assert_eq!(server.ok("conference.list", json!({}))["conferences"], json!([]));
    assert_eq!((server.figure("/connections"), server.figure("/operations"), server.pairs_free()), (0, 0, pairs));
}
