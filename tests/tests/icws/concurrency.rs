//! Several at once: clients on one message, stops against starts, ends, deletions and the end of sessions.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use ringbridge_tests::endpoint::Endpoint;
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::client::{BODY_BYTES_MAX, own_address};
use crate::rig::{Seat, Session, VOICEMAIL, play, world};
use crate::row::{Plain, Row, plain};

const ROWS: &[Plain] = &[
    ("concurrency::two_clients_start_one_message", two_starts),
    ("concurrency::two_stops_at_once", two_stops),
    ("concurrency::two_stops_while_calling", two_stops_calling),
    ("concurrency::start_against_stop", start_against_stop),
    ("concurrency::stop_against_the_natural_end", stop_against_end),
    ("concurrency::start_on_two_stations_at_once", two_targets),
    ("concurrency::two_messages_on_one_station", two_messages),
    ("concurrency::delete_against_stop", delete_against_stop),
    ("concurrency::delete_against_start", delete_against_start),
    ("concurrency::two_deletions_at_once", two_deletions),
    ("concurrency::connection_deleted_while_playing", connection_deleted),
    ("concurrency::connection_deleted_against_stop", connection_against_stop),
    ("concurrency::session_ends_against_start", session_end_against_start),
    ("concurrency::session_ends_against_stop", session_end_against_stop),
    ("concurrency::file_dropped_in_while_listing", listing),
    ("concurrency::two_sessions_mark_one_message", marks),
    ("concurrency::a_client_that_goes_is_obeyed", gone_client),
    ("concurrency::two_streams_at_once", two_streams),
];

pub(crate) fn rows() -> Vec<Row> {
    plain(ROWS)
}

/// Rounds of what can come out one way or another.
const ROUNDS: usize = 30;

/// Does two things at the same moment.
fn at_once<A: Send, B: Send>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            barrier.wait();
            one()
        });
        barrier.wait();
        let other = other();
        (one.join().unwrap(), other)
    })
}

/// A seat at a telephone with two sessions and a long message.
fn desk() -> (Seat, Endpoint, String, Session, Session, String) {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let connection = seat.connect(&phone).id;
    let (session, other, id) = (seat.sign_in(), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    other.subscribe(VOICEMAIL);
    (seat, phone, connection, session, other, id)
}

/// Operations on a connection.
fn running(seat: &Seat, connection: &str) -> usize {
    let listed = seat.world.server.ok("operation.list", json!({"connection_id": connection}));
    listed["operations"].as_array().unwrap().len()
}

fn statuses(session: &Session) -> Vec<u64> {
    session.poll().iter().filter_map(|message| message["playStatus"].as_u64()).collect()
}

fn two_starts() {
    let (seat, _phone, connection, session, other, id) = desk();
    for _ in 0..ROUNDS {
        let (one, two) = at_once(|| session.play(&id).status, || other.play(&id).status);
        assert_eq!((one, two), (204, 204));
        assert_eq!(running(&seat, &connection), 1, "it plays once");
        session.stop(&id).done(204);
        assert_eq!((statuses(&session), statuses(&other)), (vec![0, 1], vec![0, 1]));
    }
}

fn two_stops() {
    let (seat, _phone, connection, session, other, id) = desk();
    for _ in 0..ROUNDS {
        session.play(&id).done(204);
        let (one, two) = at_once(|| session.stop(&id), || other.stop(&id));
        one.done(204);
        two.done(204);
        assert_eq!(running(&seat, &connection), 0);
        assert_eq!((statuses(&session), statuses(&other)), (vec![0, 1, 1], vec![0, 1, 1]), "one each");
    }
}

fn two_stops_calling() {
    let seat = world().seat();
    let label = format!("station:{}", seat.station);
    let leg = seat.world.server.create(json!({"label": label, "reserve_ms": 600_000}));
    let (session, other, id) = (seat.sign_in(), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    for _ in 0..ROUNDS {
        session.play(&id).done(204);
        let (one, two) = at_once(|| session.stop(&id).status, || other.stop(&id).status);
        assert_eq!((one, two, statuses(&session)), (204, 204, vec![1, 1]));
    }
    seat.world.server.ok("connection.delete", json!({"connection_id": leg.id}));
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn start_against_stop() {
    let (seat, _phone, connection, session, other, id) = desk();
    for _ in 0..ROUNDS {
        let (started, stopped) = at_once(|| session.play(&id).status, || other.stop(&id).status);
        assert_eq!((started, stopped), (204, 204));
        // Either way round: it plays now, or nothing of it is left.
        let told = statuses(&session);
        match running(&seat, &connection) {
            0 => assert!([&[1][..], &[0, 1]].contains(&&told[..]), "{told:?}"),
            _ => assert_eq!(told, [1, 0]),
        }
        session.stop(&id).done(204);
        assert_eq!((running(&seat, &connection), statuses(&session)), (0, vec![1]));
    }
}

fn stop_against_end() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let connection = seat.connect(&phone).id;
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    for round in 0..ROUNDS {
        phone.forget();
        session.play(&id).done(204);
        // Ever nearer to its 20th and last packet.
        phone.until("nearly all of it", |heard| (heard.len() >= 15 + round % 6).then_some(()));
        session.stop(&id).done(204);
        let told = statuses(&session);
        assert!([&[0, 1][..], &[0, 1, 1]].contains(&&told[..]), "by the stop, or by the end and the stop: {told:?}");
        assert_eq!(running(&seat, &connection), 0);
    }
}

fn two_targets() {
    let (seat, _phone, connection, session, other, id) = desk();
    let (kitchen, there) = (world().seat(), Endpoint::open());
    let far = kitchen.connect(&there).id;
    for _ in 0..ROUNDS {
        let (one, two) = at_once(|| session.play(&id).status, || other.play_at(&id, &kitchen.station).status);
        // Whoever comes later moves it; who comes in the middle of that finds it busy.
        assert!(one == 204 || two == 204, "{one} {two}");
        assert!([204, 400].contains(&one) && [204, 400].contains(&two), "{one} {two}");
        assert_eq!(running(&seat, &connection) + running(&seat, &far), 1);
        session.stop(&id).done(204);
        assert_eq!(running(&seat, &connection) + running(&seat, &far), 0);
        let told = statuses(&session);
        assert_eq!(told.iter().filter(|status| **status == 1).count(), told.len().div_ceil(2), "{told:?}");
        assert_eq!(told.last(), Some(&1));
        statuses(&other);
    }
}

fn two_messages() {
    let (seat, _phone, connection, session, other, id) = desk();
    let second = seat.message("long.wav", "2.wav");
    for _ in 0..ROUNDS {
        let (one, two) = at_once(|| session.play(&id).status, || other.play(&second).status);
        assert!([(204, 400), (400, 204)].contains(&(one, two)), "one of them: {one} {two}");
        assert_eq!(running(&seat, &connection), 1);
        session.stop(if one == 204 { &id } else { &second }).done(204);
    }
}

fn delete_against_stop() {
    let (seat, _phone, connection, session, other, _) = desk();
    for round in 0..10 {
        let id = seat.message("long.wav", &format!("{round}.wav"));
        session.play(&id).done(204);
        let path = format!("unified-messaging/{id}");
        let (stopped, deleted) = at_once(|| session.stop(&id), || other.call("DELETE", &path, ""));
        deleted.done(204);
        if stopped.status != 204 {
            stopped.refused(400, "invalidProperty", "unifiedMessageId");
        }
        assert_eq!(running(&seat, &connection), 0);
        let told = session.poll();
        let gone = told.iter().position(|it| it["voicemailMessagesRemoved"] == json!([id])).unwrap();
        assert!(told[..gone].iter().any(|it| it["playStatus"] == 1), "its end is told: {told:?}");
    }
    assert_eq!(std::fs::read_dir(seat.files()).unwrap().count(), 1, "the files are gone too");
}

fn delete_against_start() {
    let (seat, _phone, connection, session, other, _) = desk();
    for round in 0..10 {
        let id = seat.message("long.wav", &format!("{round}.wav"));
        let path = format!("unified-messaging/{id}");
        let (started, deleted) = at_once(|| session.play(&id), || other.call("DELETE", &path, ""));
        deleted.done(204);
        // It was played and stopped, or was gone already.
        assert!([204, 400, 500].contains(&started.status), "{started:?}");
        until("silence", || (running(&seat, &connection) == 0).then_some(()));
        session.stop(&id).refused(400, "invalidProperty", "unifiedMessageId");
        let told: Vec<_> = statuses(&session);
        assert_eq!(told.iter().filter(|status| **status == 0).count(), usize::from(told.contains(&0)), "{told:?}");
        assert!(!told.contains(&0) || told.last() == Some(&1), "what began has ended: {told:?}");
    }
}

fn two_deletions() {
    let (seat, _phone, _connection, session, other, _) = desk();
    for round in 0..10 {
        let id = seat.message("short.wav", &format!("{round}.wav"));
        let path = format!("unified-messaging/{id}");
        let (one, two) = at_once(|| session.call("DELETE", &path, ""), || other.call("DELETE", &path, ""));
        let (done, refused) = if one.status == 204 { (one, two) } else { (two, one) };
        done.done(204);
        refused.refused(400, "invalidProperty", "unifiedMessageId");
        let removed = session.poll().iter().filter(|it| it["voicemailMessagesRemoved"].is_array()).count();
        assert_eq!(removed, 1, "told once");
    }
    assert_eq!(std::fs::read_dir(seat.files()).unwrap().count(), 1);
}

fn connection_deleted() {
    let (seat, phone, connection, session, _other, id) = desk();
    session.play(&id).done(204);
    phone.until("some of it", |heard| (heard.len() > 5).then_some(()));
    seat.world.server.ok("connection.delete", json!({"connection_id": connection}));
    assert_eq!(session.statuses(&id, 2), [0, 1]);
    session.stop(&id).done(204);
    session.play(&id).refused(400, "invalidProperty", "playTarget");
    let _again = seat.connect(&phone);
    session.play(&id).done(204);
    session.stop(&id).done(204);
}

fn connection_against_stop() {
    let (seat, phone, mut connection, session, _other, id) = desk();
    for _ in 0..ROUNDS {
        session.play(&id).done(204);
        let delete = json!({"connection_id": connection});
        let client = seat.world.server.connect();
        let (stopped, _) = at_once(|| session.stop(&id), || client.call("connection.delete", &delete).unwrap());
        stopped.done(204);
        let told = statuses(&session);
        assert!([&[0, 1][..], &[0, 1, 1]].contains(&&told[..]), "{told:?}");
        connection = seat.connect(&phone).id;
    }
}

fn session_end_against_start() {
    let (seat, _phone, connection, session, _other, id) = desk();
    for _ in 0..ROUNDS {
        let short = seat.sign_in();
        let start = play(&id, "start");
        let started = short.request("POST", &start).body("{\"state\": 1}");
        let (started, ended) = at_once(|| short.ask(&started), || short.call("DELETE", "connection", ""));
        ended.done(200);
        if started.status != 204 {
            started.no_session();
        }
        until("silence", || (running(&seat, &connection) == 0).then_some(()));
        let told = statuses(&session);
        assert!([&[][..], &[1], &[0, 1]].contains(&&told[..]), "{told:?}");
    }
}

fn session_end_against_stop() {
    let (seat, _phone, connection, session, _other, id) = desk();
    for _ in 0..ROUNDS {
        let short = seat.sign_in();
        short.play(&id).done(204);
        let (stopped, ended) = at_once(|| session.stop(&id), || short.call("DELETE", "connection", ""));
        stopped.done(204);
        ended.done(200);
        assert_eq!(running(&seat, &connection), 0);
        let told = statuses(&session);
        assert!([&[0, 1][..], &[0, 1, 1]].contains(&&told[..]), "{told:?}");
    }
}

fn listing() {
    let seat = world().seat();
    let watcher = seat.sign_in();
    watcher.subscribe(VOICEMAIL);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lister = scope.spawn(|| {
            // Subscribes again and again while messages come. In the end every one was told: in the last full message
            // or after it, and in neither twice.
            let session = seat.sign_in();
            let mut known: HashSet<String> = HashSet::new();
            loop {
                let last = done.load(Ordering::Acquire);
                session.call("PUT", VOICEMAIL, "").done(200);
                for message in session.poll() {
                    if message["isDelta"] == false {
                        known.clear();
                    }
                    for added in message["voicemailMessagesAdded"].as_array().into_iter().flatten() {
                        let is_new = known.insert(added["unifiedMessageId"].as_str().unwrap().to_owned());
                        assert!(is_new, "told twice: {message}");
                    }
                }
                if last {
                    return known;
                }
            }
        });
        for number in 0..40 {
            seat.leave("short.wav", format!("{number}.wav"));
        }
        let mut seen = 0;
        until("all of them", || {
            let added = |message: &Value| message["voicemailMessagesAdded"].as_array().map_or(0, Vec::len);
            seen += watcher.poll().iter().map(added).sum::<usize>();
            (seen >= 40).then_some(())
        });
        done.store(true, Ordering::Release);
        assert_eq!((seen, lister.join().unwrap().len()), (40, 40));
    });
}

fn marks() {
    let (_seat, _phone, _connection, session, other, id) = desk();
    let path = format!("unified-messaging/{id}");
    std::thread::scope(|scope| {
        for who in [&session, &other] {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    who.ok("PUT", &path, json!({"state": round % 2}));
                }
            });
        }
    });
    // Every change was told to both in the order it was made: each is another state than the one before, and the last
    // is what the mailbox has.
    let states = |session: &Session| {
        let told = session.poll();
        told.iter().filter_map(|it| it["voicemailMessagesChanged"][0]["state"].as_u64()).collect::<Vec<_>>()
    };
    let (one, two) = (states(&session), states(&other));
    assert_eq!(one, two);
    assert!(one.windows(2).all(|pair| pair[0] != pair[1]), "{one:?}");
    assert_eq!(one.first(), Some(&1), "it was unread");
    let listed = session.subscribe(VOICEMAIL);
    assert_eq!(listed["voicemailMessagesAdded"][0]["state"], *one.last().unwrap());
}

fn gone_client() {
    let (seat, _phone, connection, session, _other, id) = desk();
    for _ in 0..ROUNDS {
        // Asks, and closes the connection at once: it may get through or not, but never half.
        for (what, body) in [("start", "{\"state\": 1}"), ("stop", "")] {
            drop(session.request("POST", &play(&id, what)).body(body).send(own_address(), seat.world.api));
        }
        session.play(&id).done(204);
        // What was asked for before may still come.
        until("it is silent", || {
            session.stop(&id).done(204);
            (running(&seat, &connection) == 0).then_some(())
        });
    }
    until("the last of it", || {
        session.play(&id).done(204);
        let played = running(&seat, &connection);
        session.stop(&id).done(204);
        ((played, running(&seat, &connection)) == (1, 0)).then_some(())
    });
    assert_eq!(statuses(&session).last(), Some(&1));
    // Half a request is none.
    let half = session.request("POST", &play(&id, "start")).body(vec![b' '; BODY_BYTES_MAX / 2]);
    session.ask(&half).refused(400, "malformed", "");
    assert_eq!(running(&seat, &connection), 0);
}

fn two_streams() {
    let (_seat, _phone, _connection, session, _other, id) = desk();
    for _ in 0..10 {
        let (one, two) = at_once(|| session.stream(), || session.stream());
        session.stop(&id).done(204);
        // One of them is the later one, and gets it; the other has ended.
        let told: Vec<_> = std::thread::scope(|scope| {
            [one, two]
                .map(|mut stream| {
                    scope.spawn(move || {
                        loop {
                            match stream.line() {
                                None => return None,
                                Some(line) if line.starts_with("data: ") => return Some(line),
                                Some(_) => {}
                            }
                        }
                    })
                })
                .map(|thread| thread.join().unwrap())
                .into_iter()
                .flatten()
                .collect()
        });
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("\"playStatus\":1"), "{told:?}");
    }
}
