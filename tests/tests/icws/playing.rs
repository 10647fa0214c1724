//! Starting and stopping: every row of the tables of 4.3 to 4.5, and the sequence of 6.

use std::fs;

use ringbridge_tests::endpoint::Endpoint;
use serde_json::{Value, json};

use crate::rig::{CURRENT_STATION, FAX, PLAY_TARGET, Session, VOICEMAIL, play, world};
use crate::row::{Plain, Row, plain};

const ROWS: &[Plain] = &[
    ("start::at_the_current_station", at_current),
    ("start::at_a_station", at_station),
    ("start::at_a_number", at_number),
    ("start::at_an_extension", at_extension),
    ("start::no_station", no_station),
    ("start::station_without_a_connection", no_connection),
    ("start::a_fax", start_fax),
    ("start::state_becomes_that_of_the_message", start_state),
    ("start::again_on_the_same_target", start_again),
    ("start::elsewhere", start_elsewhere),
    ("start::target_busy", start_busy),
    ("start::target_busy_with_something_else", start_beside_tone),
    ("start::file_gone", file_gone),
    ("start::not_answered_yet", not_answered_yet),
    ("start::connection_ends_before_it_answers", gone_before_answer),
    ("start::connection_ends_at_once", gone_at_once),
    ("status::as_the_reference_has_it", status_shape),
    ("status::to_every_session_of_the_user", status_to_all),
    ("status::only_with_the_voicemail_subscription", status_subscribers),
    ("stop::playing", stop_playing),
    ("stop::still_calling", stop_calling),
    ("stop::not_playing", stop_not_playing),
    ("stop::already_stopped", stop_again),
    ("stop::after_the_end", stop_after_end),
    ("stop::by_another_session", stop_by_other),
    ("stop::a_fax", stop_fax),
    ("stop::empty_id", stop_empty_id),
    ("stop::what_else_runs_on_the_station_goes_on", stop_only_it),
    ("stop::station_stays_up", stop_keeps_station),
    ("stop::next_start_begins_at_the_beginning", from_the_beginning),
    ("stop::engine_fails", engine_fails),
    ("sequence::from_signing_in_to_signing_out", sequence),
];

/// What a start may have as `state` and `playTarget`, and what is refused of it.
const STARTS: &[(&str, &str, &str, &str)] = &[
    ("no_state", r#"{}"#, "missingRequiredParameter", "state"),
    ("state_null", r#"{"state":null}"#, "missingRequiredParameter", "state"),
    ("state_2", r#"{"state":2}"#, "invalidProperty", "state"),
    ("state_negative", r#"{"state":-1}"#, "invalidProperty", "state"),
    ("state_fraction", r#"{"state":0.5}"#, "invalidProperty", "state"),
    ("state_text", r#"{"state":"1"}"#, "invalidProperty", "state"),
    ("state_flag", r#"{"state":true}"#, "invalidProperty", "state"),
    ("state_list", r#"{"state":[1]}"#, "invalidProperty", "state"),
    ("state_huge", r#"{"state":99999999999999999999999}"#, "invalidProperty", "state"),
    ("target_text", r#"{"state":1,"playTarget":"S"}"#, "invalidProperty", "playTarget"),
    ("target_list", r#"{"state":1,"playTarget":["S"]}"#, "invalidProperty", "playTarget"),
    ("target_empty", r#"{"state":1,"playTarget":{}}"#, "invalidProperty", "playTarget"),
    ("target_without_type", r#"{"state":1,"playTarget":{"target":"S"}}"#, "invalidProperty", "playTarget"),
    ("target_type_number", r#"{"state":1,"playTarget":{"__type":1,"target":"S"}}"#, "invalidProperty", "playTarget"),
    ("target_type_null", r#"{"state":1,"playTarget":{"__type":null,"target":"S"}}"#, "invalidProperty", "playTarget"),
    (
        "target_type_unknown",
        r#"{"state":1,"playTarget":{"__type":"T:x","target":"S"}}"#,
        "invalidProperty",
        "playTarget",
    ),
    (
        "target_type_bare",
        r#"{"state":1,"playTarget":{"__type":"voicemailPlayTarget","target":"S"}}"#,
        "invalidProperty",
        "playTarget",
    ),
    (
        "no_target",
        r#"{"state":1,"playTarget":{"__type":"T:voicemailPlayTarget"}}"#,
        "missingRequiredParameter",
        "target",
    ),
    (
        "target_null",
        r#"{"state":1,"playTarget":{"__type":"T:voicemailPlayTarget","target":null}}"#,
        "missingRequiredParameter",
        "target",
    ),
    (
        "target_blank",
        r#"{"state":1,"playTarget":{"__type":"T:voicemailPlayTarget","target":""}}"#,
        "invalidProperty",
        "target",
    ),
    (
        "target_number",
        r#"{"state":1,"playTarget":{"__type":"T:voicemailPlayTarget","target":7001}}"#,
        "invalidProperty",
        "target",
    ),
    (
        "target_unknown",
        r#"{"state":1,"playTarget":{"__type":"T:voicemailPlayTarget","target":"nowhere"}}"#,
        "invalidProperty",
        "target",
    ),
    (
        "target_not_connected",
        r#"{"state":1,"playTarget":{"__type":"T:voicemailPlayTarget","target":"S"}}"#,
        "invalidProperty",
        "target",
    ),
    (
        "current_not_connected",
        r#"{"state":1,"playTarget":{"__type":"T:currentStation"}}"#,
        "invalidProperty",
        "playTarget",
    ),
    ("default_not_connected", r#"{"state":1}"#, "invalidProperty", "playTarget"),
    ("target_left_null", r#"{"state":1,"playTarget":null}"#, "invalidProperty", "playTarget"),
];

/// States of an update.
const UPDATES: &[(&str, &str, &str)] = &[
    ("no_state", r#"{}"#, "missingRequiredParameter"),
    ("null", r#"{"state":null}"#, "missingRequiredParameter"),
    ("2", r#"{"state":2}"#, "invalidProperty"),
    ("negative", r#"{"state":-1}"#, "invalidProperty"),
    ("fraction", r#"{"state":1.5}"#, "invalidProperty"),
    ("text", r#"{"state":"1"}"#, "invalidProperty"),
    ("flag", r#"{"state":false}"#, "invalidProperty"),
    ("object", r#"{"state":{}}"#, "invalidProperty"),
];

/// Bodies of a stop, and what comes of them.
const STOPS: &[(&str, &str, Option<&str>)] = &[
    ("none", "", None),
    ("empty_object", "{}", None),
    ("object", "{\"state\": 7, \"x\": [1]}", None),
    ("text", "stop", Some("malformed")),
    ("array", "[]", Some("malformed")),
    ("null", "null", Some("malformed")),
    ("truncated", "{\"a\":", Some("malformed")),
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = plain(ROWS);
    for (name, body, id, property) in STARTS {
        rows.push(Row::new(format!("start::refused::{name}"), move || {
            let seat = world().seat();
            let (session, message) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
            session.subscribe(VOICEMAIL);
            let body = body
                .replace("\"S\"", &format!("\"{}\"", seat.station))
                .replace("\"T:", "\"urn:inin.com:unifiedMessaging:");
            session.call("POST", &play(&message, "start"), body).refused(400, id, property);
            // Nothing is told, nothing has changed.
            assert_eq!(session.poll(), [] as [Value; 0]);
            assert_eq!(session.subscribe(VOICEMAIL)["voicemailMessagesAdded"][0]["state"], 0);
        }));
    }
    for (name, body, id) in UPDATES {
        rows.push(Row::new(format!("update::refused::{name}"), move || {
            let seat = world().seat();
            let (session, message) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
            session.call("PUT", &format!("unified-messaging/{message}"), *body).refused(400, id, "state");
        }));
    }
    for (name, body, refused) in STOPS {
        rows.push(Row::new(format!("stop::body::{name}"), move || {
            let seat = world().seat();
            let (session, message) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
            session.subscribe(VOICEMAIL);
            let answer = session.call("POST", &play(&message, "stop"), *body);
            match refused {
                Some(id) => {
                    answer.refused(400, id, "");
                    assert_eq!(session.poll(), [] as [Value; 0]);
                }
                None => {
                    assert_eq!(answer.done(204).body.len(), 0);
                    assert_eq!(session.statuses(&message, 1), [1]);
                }
            }
        }));
    }
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        for what in ["start", "stop"] {
            rows.push(Row::new(format!("{what}::method::{method}"), move || {
                let seat = world().seat();
                let (session, message) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
                session.subscribe(VOICEMAIL);
                let answer = session.call(method, &play(&message, what), "");
                answer.refused(405, "", "");
                assert_eq!(answer.header("allow"), "POST");
                assert_eq!(session.poll(), [] as [Value; 0]);
            }));
        }
    }
    for what in ["pause", "resume", "skip", "Stop", "STOP", "seek"] {
        rows.push(Row::new(format!("play::there_is_no_{what}"), move || {
            let session = world().seat().sign_in();
            session.call("POST", &play("vm-1", what), "").refused(404, "", "");
        }));
    }
    rows
}

/// Plays, waits until it does, stops, and wants nothing left.
#[track_caller]
fn plays(session: &Session, id: &str, body: &Value) {
    session.subscribe(VOICEMAIL);
    session.start(id, body).done(204);
    assert_eq!(session.statuses(id, 1), [0]);
    session.stop(id).done(204);
    assert_eq!(session.statuses(id, 1), [1]);
}

fn target(name: &str) -> Value {
    json!({"state": 1, "playTarget": {"__type": PLAY_TARGET, "target": name}})
}

fn at_current() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    plays(&session, &id, &json!({"state": 1}));
    plays(&session, &id, &json!({"state": 1, "playTarget": null}));
    plays(&session, &id, &json!({"state": 1, "playTarget": {"__type": CURRENT_STATION}}));
    // A target of the current station is ignored.
    plays(&session, &id, &json!({"state": 1, "playTarget": {"__type": CURRENT_STATION, "target": "nowhere"}}));
}

fn at_station() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.call("DELETE", "connection/station", "").done(204);
    plays(&session, &id, &target(&seat.station));
}

fn at_number() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    plays(&session, &id, &target(&seat.number()));
    // As the current station too.
    let number = json!({"__type": "urn:inin.com:connection:remoteNumberSettings", "remoteNumber": seat.number()});
    session.call("PUT", "connection/station", number.to_string()).done(200);
    plays(&session, &id, &json!({"state": 1}));
}

fn at_extension() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    plays(&session, &id, &target(&seat.extension()));
}

fn no_station() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.call("DELETE", "connection/station", "").done(204);
    session.play(&id).refused(400, "missingRequiredParameter", "playTarget");
    let stationless = json!({"__type": "urn:inin.com:connection:stationlessSettings"});
    session.call("PUT", "connection/station", stationless.to_string()).done(200);
    session.play(&id).refused(400, "missingRequiredParameter", "playTarget");
    let current = json!({"state": 1, "playTarget": {"__type": CURRENT_STATION}});
    session.start(&id, &current).refused(400, "missingRequiredParameter", "playTarget");
}

fn no_connection() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    let answer = session.play_at(&id, &seat.station);
    let message = answer.refused(400, "invalidProperty", "target").json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("station:{}", seat.station)), "it says what to do: {message}");
    // Refused, it is in nobody's way.
    let phone = Endpoint::open();
    let _leg = seat.connect(&phone);
    session.play(&id).done(204);
    session.stop(&id).done(204);
}

fn start_fax() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("fax.pdf", "1.pdf"));
    session.subscribe(FAX);
    session.subscribe(VOICEMAIL);
    session.play(&id).refused(400, "invalidProperty", "unifiedMessageId");
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn start_state() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    for (given, told) in [(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)] {
        session.start(&id, &json!({"state": given})).done(204);
        let messages = session.poll();
        assert_eq!(messages[0]["playStatus"], 0);
        assert_eq!(messages.len(), 1 + told, "told if it changed: {messages:?}");
        if told == 1 {
            let changed = json!([{"__type": "urn:inin.com:unifiedMessaging:voicemailMessage", "unifiedMessageId": id, "state": given}]);
            assert_eq!((&messages[1]["isDelta"], &messages[1]["voicemailMessagesChanged"]), (&json!(true), &changed));
        }
        session.stop(&id).done(204);
        session.poll();
    }
}

fn start_again() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    session.poll();
    for body in [
        json!({"state": 1}),
        target(&seat.station),
        target(&seat.number()),
        target(&seat.extension()),
        json!({"state": 0}),
    ] {
        session.start(&id, &body).done(204);
    }
    assert_eq!(session.poll(), [] as [Value; 0], "nothing happens");
    let other = seat.sign_in();
    other.play(&id).done(204);
    assert_eq!(session.poll(), [] as [Value; 0], "by another session neither");
    session.stop(&id).done(204);
}

fn start_elsewhere() {
    let (seat, desk, kitchen) = (world().seat(), Endpoint::open(), Endpoint::open());
    let other = world().seat();
    let (here, _there) = (seat.connect(&desk), other.connect(&kitchen));
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    session.play_at(&id, &other.station).done(204);
    assert_eq!(session.statuses(&id, 3), [0, 1, 0]);
    assert_eq!(seat.world.server.ok("operation.list", json!({"connection_id": here.id}))["operations"], json!([]));
    kitchen.until("it is heard there", |heard| (heard.len() > 5).then_some(()));
    session.stop(&id).done(204);
}

fn start_busy() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session) = (seat.connect(&phone), seat.sign_in());
    let (first, second) = (seat.message("long.wav", "1.wav"), seat.message("long.wav", "2.wav"));
    session.subscribe(VOICEMAIL);
    session.play(&first).done(204);
    session.play_at(&second, &seat.station).refused(400, "invalidProperty", "target");
    session.play(&second).refused(400, "invalidProperty", "playTarget");
    assert_eq!(session.statuses(&first, 1), [0], "the first one plays on");
    session.stop(&first).done(204);
    session.play(&second).done(204);
    session.stop(&second).done(204);
}

fn start_beside_tone() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    seat.world.server.ok("operation.start", json!({"kind": "tone", "connection_id": leg.id, "duration_ms": 60_000}));
    session.play_at(&id, &seat.station).refused(400, "invalidProperty", "target");
    assert_eq!(session.poll(), [] as [Value; 0]);
    seat.world.server.ok("operation.stop", json!({"connection_id": leg.id}));
    session.play(&id).done(204);
    session.stop(&id).done(204);
}

fn file_gone() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    fs::remove_dir_all(seat.files()).unwrap();
    session.subscribe(VOICEMAIL);
    session.play(&id).refused(500, "", "");
    session.call("GET", &format!("files/{id}.wav"), "").refused(500, "", "");
    assert_eq!(session.poll(), [] as [Value; 0]);
    // It is in nobody's way, and can be deleted.
    let second = seat.message("long.wav", "2.wav");
    session.play(&second).done(204);
    session.stop(&second).done(204);
    session.call("DELETE", &format!("unified-messaging/{id}"), "").done(204);
}

fn not_answered_yet() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let label = format!("station:{}", seat.station);
    let leg = seat.world.server.create(json!({"label": label, "reserve_ms": 60_000}));
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    assert_eq!(session.poll(), [] as [Value; 0], "accepted, but nothing flows, and it is unread");
    let remote = phone.address().to_string();
    seat.world.server.ok("connection.modify", json!({"connection_id": leg.id, "remote": remote}));
    assert_eq!(session.statuses(&id, 1), [0]);
    phone.until("it is heard", |heard| (heard.len() > 5).then_some(()));
    session.stop(&id).done(204);
}

fn gone_before_answer() {
    let seat = world().seat();
    let label = format!("station:{}", seat.station);
    let leg = seat.world.server.create(json!({"label": label, "reserve_ms": 60_000}));
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    seat.world.server.ok("connection.delete", json!({"connection_id": leg.id}));
    assert_eq!(session.statuses(&id, 1), [1]);
    assert_eq!(session.subscribe(VOICEMAIL)["voicemailMessagesAdded"][0]["state"], 0, "it was not heard");
}

fn gone_at_once() {
    // The reservation is over before anybody answers.
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    let label = format!("station:{}", seat.station);
    seat.world.server.create(json!({"label": label, "reserve_ms": 300}));
    let answer = session.play(&id);
    if answer.status == 204 {
        assert_eq!(session.statuses(&id, 1), [1]);
    } else {
        answer.refused(400, "invalidProperty", "playTarget");
    }
}

fn status_shape() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    let status = |status: u8| {
        json!({"__type": "urn:inin.com:unifiedMessaging:voicemailPlayStatusMessage", "isDelta": true,
               "unifiedMessageId": id, "playStatus": status})
    };
    session.start(&id, &json!({"state": 0})).done(204);
    assert_eq!(session.poll(), [status(0)]);
    session.stop(&id).done(204);
    assert_eq!(session.poll(), [status(1)]);
}

fn status_to_all() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, id) = (seat.connect(&phone), seat.voicemail());
    let sessions: Vec<Session> = (0..5).map(|_| seat.sign_in()).collect();
    for session in &sessions {
        session.subscribe(VOICEMAIL);
    }
    sessions[0].play(&id).done(204);
    sessions[1].stop(&id).done(204);
    for session in &sessions {
        assert_eq!(session.statuses(&id, 2), [0, 1]);
    }
}

fn status_subscribers() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(FAX);
    session.play(&id).done(204);
    session.stop(&id).done(204);
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn stop_playing() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    let stopped = session.stop(&id);
    assert_eq!(stopped.done(204).body.len(), 0);
    let effect: Value = serde_json::from_str(stopped.header("ringbridge-effect")).unwrap();
    assert_eq!(effect["streams"][0]["connection_id"], leg.id.as_str());
    assert_eq!(session.statuses(&id, 2), [0, 1]);
}

fn stop_calling() {
    let seat = world().seat();
    let label = format!("station:{}", seat.station);
    let leg = seat.world.server.create(json!({"label": label, "reserve_ms": 60_000}));
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    let stopped = session.stop(&id);
    assert_eq!((stopped.done(204).body.len(), stopped.header("ringbridge-effect")), (0, ""));
    assert_eq!(session.statuses(&id, 1), [1]);
    // The attempt is abandoned: who answers now hears nothing.
    let phone = Endpoint::open();
    let remote = phone.address().to_string();
    seat.world.server.ok("connection.modify", json!({"connection_id": leg.id, "remote": remote}));
    assert_eq!(seat.world.server.ok("operation.list", json!({"connection_id": leg.id}))["operations"], json!([]));
    assert_eq!(session.poll(), [] as [Value; 0]);
    session.play(&id).done(204);
    session.stop(&id).done(204);
}

fn stop_not_playing() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    let stopped = session.stop(&id);
    assert_eq!((stopped.done(204).body.len(), stopped.header("ringbridge-effect")), (0, ""));
    let told = session.poll();
    assert_eq!((told.len(), &told[0]["playStatus"]), (1, &json!(1)));
}

fn stop_again() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    for _ in 0..3 {
        assert_eq!(session.stop(&id).done(204).body.len(), 0);
    }
    assert_eq!(session.statuses(&id, 4), [0, 1, 1, 1], "once per call");
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn stop_after_end() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    assert_eq!(session.statuses(&id, 2), [0, 1]);
    session.stop(&id).done(204);
    assert_eq!(session.statuses(&id, 1), [1]);
}

fn stop_by_other() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, id) = (seat.connect(&phone), seat.voicemail());
    let (session, other) = (seat.sign_in(), seat.sign_in());
    session.subscribe(VOICEMAIL);
    other.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    other.stop(&id).done(204);
    assert_eq!((session.statuses(&id, 2), other.statuses(&id, 2)), (vec![0, 1], vec![0, 1]));
}

fn stop_fax() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("fax.pdf", "1.pdf"));
    session.subscribe(VOICEMAIL);
    session.stop(&id).refused(400, "invalidProperty", "unifiedMessageId");
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn stop_empty_id() {
    let session = world().seat().sign_in();
    session.subscribe(VOICEMAIL);
    for what in ["start", "stop"] {
        session.call("POST", &play("", what), "").refused(404, "", "");
    }
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn stop_only_it() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    let server = &seat.world.server;
    let gather = server.ok("operation.start", json!({"kind": "gather_digits", "connection_id": leg.id}));
    session.play(&id).done(204);
    session.stop(&id).done(204);
    let running = server.ok("operation.list", json!({"connection_id": leg.id}));
    assert_eq!(running["operations"][0]["operation_id"], gather["operation_id"]);
    server.ok("operation.stop", json!({"connection_id": leg.id}));
}

fn stop_keeps_station() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.play(&id).done(204);
    session.stop(&id).done(204);
    assert_eq!(seat.world.server.get(&leg.id)["remote"], phone.address().to_string());
}

fn from_the_beginning() {
    use ringbridge_tests::audio::{Codec, share};
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    phone.until("some of it", |heard| (heard.len() > 5).then_some(()));
    session.stop(&id).done(204);
    session.statuses(&id, 2);
    phone.forget();
    session.play(&id).done(204);
    session.statuses(&id, 2);
    // All of its 400 ms once more.
    let stream = phone.stream(Codec::Pcmu).unwrap();
    let loud = stream.samples.chunks_exact(160).filter(|frame| share(frame, crate::rig::SHORT_HZ) > 0.5).count();
    assert!((19..=21).contains(&loud), "{loud} frames of 20 ms");
}

fn engine_fails() {
    // A shard that is gone takes its connections along: the stop finds nothing, and says so.
    let world = std::sync::Arc::new(crate::rig::World::start_faulty(2));
    let (seat, phone) = (world.seat_number(0), Endpoint::open());
    let (_leg, session, id) = (seat.connect(&phone), seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    world.server.ok("debug.shard_panic", json!({"shard": 0}));
    assert_eq!(session.statuses(&id, 2), [0, 1], "the end is told");
    session.stop(&id).done(204);
    session.play(&id).refused(400, "invalidProperty", "playTarget");
    drop((seat, session));
    std::sync::Arc::into_inner(world).unwrap().server.stop();
}

fn sequence() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let (_leg, id) = (seat.connect(&phone), seat.voicemail());
    let session = seat.sign_in();
    let desk = json!({"__type": "urn:inin.com:connection:workstationSettings", "workstation": seat.station});
    session.call("PUT", "connection/station", desk.to_string()).done(200);
    let mut stream = session.stream();
    session.call("PUT", VOICEMAIL, "").done(200);
    assert_eq!(stream.message()["voicemailMessagesAdded"][0]["unifiedMessageId"], id.as_str());
    session.play(&id).done(204);
    assert_eq!(stream.message()["playStatus"], 0);
    assert_eq!(stream.message()["voicemailMessagesChanged"][0]["state"], 1);
    session.stop(&id).done(204);
    assert_eq!(stream.message()["playStatus"], 1);
    session.call("DELETE", VOICEMAIL, "").done(204);
    session.call("DELETE", "connection", "").done(200);
    assert_eq!(stream.rest().replace(": here\n\n", "").trim(), "");
}
