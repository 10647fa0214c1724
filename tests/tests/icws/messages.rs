//! What clients are told: polls, server-sent events, subscriptions, the queue, pages of other origins (3 of the
//! reference).

use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::client::Request;
use crate::rig::{FAX, MESSAGES, ORIGIN, VOICEMAIL, WAITING, world};
use crate::row::{Plain, Row, plain};
use crate::sessions::is_time;

const ROWS: &[Plain] = &[
    ("messages::poll_is_empty_without_a_subscription", poll_nothing),
    ("messages::what_was_polled_is_gone", polled_once),
    ("messages::in_the_order_they_arose", order),
    ("messages::a_message_is_told_whole", added),
    ("messages::a_fax_is_told_whole", fax_added),
    ("messages::first_is_full_then_deltas", full_then_deltas),
    ("messages::second_put_is_full_anew", second_put),
    ("messages::asked_a_thousand_times", many_puts),
    ("messages::no_subscription_no_message", unsubscribed),
    ("messages::waiting_indicator", waiting),
    ("messages::count_refresh", count_refresh),
    ("messages::each_session_has_its_queue", own_queue),
    ("messages::nothing_of_others", of_others),
    ("messages::queue_limit", queue_limit),
    ("messages::stream_as_it_comes", raw_stream),
    ("messages::stream_by_cookie_alone", stream_auth),
    ("messages::one_stream_a_session", one_stream),
    ("messages::poll_is_empty_while_a_stream_is_open", poll_beside_stream),
    ("messages::what_came_meanwhile_waits_for_the_next_stream", reconnect),
    ("messages::stream_ends_with_its_session", stream_end),
    ("messages::queue_limit_on_a_stream", stream_backlog),
];

/// Requests of pages, and whether the page may read the answer.
const PAGES: [(&str, &str, bool); 7] = [
    ("configured", ORIGIN, true),
    ("other", "https://evil.example.com", false),
    ("other_scheme", "http://phone.example.com", false),
    ("other_port", "https://phone.example.com:8443", false),
    ("longer", "https://phone.example.com.evil.example.com", false),
    ("null", "null", false),
    ("star", "*", false),
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = plain(ROWS);
    for (name, origin, allowed) in PAGES {
        rows.push(Row::new(format!("messages::origin::{name}"), move || page(origin, allowed)));
    }
    for (topic, path, kind) in [
        ("voicemail", VOICEMAIL, "voicemailMessagesMessage"),
        ("fax", FAX, "faxMessagesMessage"),
        ("waiting", WAITING, "mwiMessage"),
    ] {
        rows.push(Row::new(format!("messages::subscription::{topic}"), move || subscription(path, kind)));
    }
    rows
}

fn poll_nothing() {
    let session = world().seat().sign_in();
    for _ in 0..3 {
        assert_eq!(session.poll(), [] as [Value; 0]);
    }
}

fn subscription(path: &str, kind: &str) {
    let session = world().seat().sign_in();
    let answer = session.call("PUT", path, "");
    assert_eq!(answer.done(200).body.len(), 0);
    let told = session.poll();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["__type"], &told[0]["isDelta"]),
        (&json!(format!("urn:inin.com:unifiedMessaging:{kind}")), &json!(false))
    );
    // Its end, also when there is none.
    for _ in 0..2 {
        assert_eq!(session.call("DELETE", path, "").done(204).body.len(), 0);
    }
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn polled_once() {
    let session = world().seat().sign_in();
    session.call("PUT", VOICEMAIL, "").done(200);
    assert_eq!((session.poll().len(), session.poll().len()), (1, 0));
}

fn order() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    for state in [1, 0, 1, 0, 1] {
        session.ok("PUT", &format!("unified-messaging/{id}"), json!({"state": state}));
        session.stop(&id).done(204);
    }
    let told = session.poll();
    let states: Vec<_> = told.iter().filter_map(|it| it["voicemailMessagesChanged"][0]["state"].as_u64()).collect();
    assert_eq!(states, [1, 0, 1, 0, 1]);
    let kinds: Vec<_> = told.iter().map(|it| it["playStatus"] == 1).collect();
    assert_eq!(kinds, [false, true].repeat(5), "each where it belongs");
}

fn added() {
    let seat = world().seat();
    let session = seat.sign_in();
    session.subscribe(VOICEMAIL);
    seat.leave("long.wav", "+4930111222_1.wav");
    let told = session.until("a message", |message| message["voicemailMessagesAdded"][0].is_object());
    let message = &told["voicemailMessagesAdded"][0];
    let id = message["unifiedMessageId"].as_str().unwrap();
    is_time(&message["dateReceived"]);
    let wanted = json!({
        "__type": "urn:inin.com:unifiedMessaging:voicemailMessagesMessage",
        "isDelta": true,
        "voicemailMessagesAdded": [{
            "__type": "urn:inin.com:unifiedMessaging:voicemailMessageAdded",
            "unifiedMessageId": id,
            "state": 0,
            "dateReceived": message["dateReceived"],
            "from": "+4930111222",
            "subject": "Voicemail (60 s)",
            "attachments": [{"fileUri": format!("/icws/{}/files/{id}.wav", session.id),
                             "fileName": "+4930111222_1.wav", "mimeType": "audio/wav"}],
        }],
    });
    assert_eq!(told, wanted);
    // The same in the full message.
    let mut full = wanted;
    full["isDelta"] = json!(false);
    assert_eq!(session.subscribe(VOICEMAIL), full);
}

fn fax_added() {
    let seat = world().seat();
    let session = seat.sign_in();
    session.subscribe(FAX);
    seat.leave("fax.pdf", "+4930111333_1.pdf");
    let told = session.until("a fax", |message| message["faxMessagesAdded"][0].is_object());
    let message = &told["faxMessagesAdded"][0];
    assert_eq!(
        (&told["__type"], &told["isDelta"]),
        (&json!("urn:inin.com:unifiedMessaging:faxMessagesMessage"), &json!(true))
    );
    assert_eq!(message["__type"], "urn:inin.com:unifiedMessaging:faxMessageAdded");
    assert_eq!((&message["from"], &message["subject"]), (&json!("+4930111333"), &json!("Fax")));
    assert_eq!(message["attachments"][0]["mimeType"], "application/pdf");
    let file = session.call("GET", &format!("files/{}.pdf", message["unifiedMessageId"].as_str().unwrap()), "");
    assert_eq!((file.status, file.header("content-type")), (200, "application/pdf"));
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    // A fax is no voicemail message, and not listed there.
    assert_eq!(session.subscribe(VOICEMAIL)["voicemailMessagesAdded"], json!([]));
}

fn full_then_deltas() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    let full = session.subscribe(VOICEMAIL);
    assert_eq!(full["voicemailMessagesAdded"][0]["unifiedMessageId"], id.as_str());
    session.ok("PUT", &format!("unified-messaging/{id}"), json!({"state": 1}));
    assert_eq!(
        session.poll(),
        [json!({"__type": "urn:inin.com:unifiedMessaging:voicemailMessagesMessage", "isDelta": true,
                "voicemailMessagesChanged": [{"__type": "urn:inin.com:unifiedMessaging:voicemailMessage",
                                              "unifiedMessageId": id, "state": 1}]})]
    );
    // What changes nothing is not told.
    session.ok("PUT", &format!("unified-messaging/{id}"), json!({"state": 1}));
    assert_eq!(session.poll(), [] as [Value; 0]);
    session.call("DELETE", &format!("unified-messaging/{id}"), "").done(204);
    assert_eq!(
        session.poll(),
        [json!({"__type": "urn:inin.com:unifiedMessaging:voicemailMessagesMessage", "isDelta": true,
                "voicemailMessagesRemoved": [id]})]
    );
}

fn second_put() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    let first = session.subscribe(VOICEMAIL);
    assert_eq!(session.subscribe(VOICEMAIL), first);
    // What is not fetched yet is replaced, except for what the full message can't tell.
    session.ok("PUT", &format!("unified-messaging/{id}"), json!({"state": 1}));
    session.stop(&id).done(204);
    session.call("PUT", VOICEMAIL, "").done(200);
    let told = session.poll();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["playStatus"], 1);
    assert_eq!((&told[1]["isDelta"], &told[1]["voicemailMessagesAdded"][0]["state"]), (&json!(false), &json!(1)));
}

fn many_puts() {
    let session = world().seat().sign_in();
    for _ in 0..1000 {
        session.call("PUT", VOICEMAIL, "").done(200);
    }
    assert_eq!(session.poll().len(), 1, "one full message is enough");
}

fn unsubscribed() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.call("DELETE", VOICEMAIL, "").done(204);
    session.ok("PUT", &format!("unified-messaging/{id}"), json!({"state": 1}));
    session.stop(&id).done(204);
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn waiting() {
    let seat = world().seat();
    let session = seat.sign_in();
    let mwi = |count: u32| json!({"__type": "urn:inin.com:unifiedMessaging:mwiMessage", "isDelta": false, "messagesWaiting": count});
    assert_eq!(session.subscribe(WAITING), mwi(0));
    let id = seat.message("short.wav", "1.wav");
    assert_eq!(session.until("one", |message| message["messagesWaiting"].is_u64()), mwi(1));
    let fax = seat.message("fax.pdf", "2.pdf");
    assert_eq!(session.until("two", |message| message["messagesWaiting"].is_u64()), mwi(2));
    session.ok("PUT", &format!("unified-messaging/{id}"), json!({"state": 1}));
    assert_eq!(session.until("one", |message| message["messagesWaiting"].is_u64()), mwi(1));
    session.call("DELETE", &format!("unified-messaging/{fax}"), "").done(204);
    assert_eq!(session.until("none", |message| message["messagesWaiting"].is_u64()), mwi(0));
}

fn count_refresh() {
    let session = world().seat().sign_in();
    let refresh = "unified-messaging/messages-waiting-indicator/count-refresh";
    // Without a subscription there is nobody to tell.
    session.call("PUT", refresh, "").done(204);
    assert_eq!(session.poll(), [] as [Value; 0]);
    session.subscribe(WAITING);
    session.call("PUT", refresh, "").done(204);
    assert_eq!(session.poll()[0]["messagesWaiting"], 0);
}

fn own_queue() {
    let seat = world().seat();
    let (session, other, id) = (seat.sign_in(), seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    let listed = other.subscribe(VOICEMAIL);
    let uri = listed["voicemailMessagesAdded"][0]["attachments"][0]["fileUri"].as_str().unwrap();
    assert!(uri.starts_with(&format!("/icws/{}/", other.id)), "{uri}");
    other.stop(&id).done(204);
    assert_eq!((session.statuses(&id, 1), other.statuses(&id, 1)), (vec![1], vec![1]));
}

fn of_others() {
    let (anna, berta) = (world().seat(), world().seat());
    let (session, id) = (berta.sign_in(), anna.message("short.wav", "1.wav"));
    for topic in [VOICEMAIL, FAX, WAITING] {
        session.subscribe(topic);
    }
    let own = anna.sign_in();
    own.stop(&id).done(204);
    own.call("DELETE", &format!("unified-messaging/{id}"), "").done(204);
    assert_eq!(session.poll(), [] as [Value; 0]);
}

fn queue_limit() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.subscribe(WAITING);
    for _ in 0..1000 {
        session.stop(&id).done(204);
    }
    assert_eq!(session.poll().len(), 1000, "exactly as many as there is room for");
    for _ in 0..1001 {
        session.stop(&id).done(204);
    }
    // One too many: full messages of what it is subscribed to, instead of all of them.
    let told = session.poll();
    let kinds: Vec<_> = told.iter().map(|it| it["__type"].as_str().unwrap().rsplit(':').next().unwrap()).collect();
    assert_eq!(kinds, ["voicemailMessagesMessage", "mwiMessage"]);
    assert!(told.iter().all(|it| it["isDelta"] == false), "{told:?}");
    session.stop(&id).done(204);
    assert_eq!(session.statuses(&id, 1), [1], "and on it goes");
}

fn raw_stream() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    let mut stream = session.stream();
    let head = stream.head.to_lowercase();
    assert!(head.contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    session.call("PUT", VOICEMAIL, "").done(200);
    session.stop(&id).done(204);
    let mut lines = Vec::new();
    while lines.len() < 4 {
        let line = stream.line().unwrap();
        // A comment is a line and an empty one.
        if !(line.starts_with(':') || lines.is_empty() && line == "\n") {
            lines.push(line);
        }
    }
    // One event a message, its data one object; no name, no id.
    let data = |line: &str| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data(&lines[0])["voicemailMessagesAdded"][0]["unifiedMessageId"], id.as_str());
    assert_eq!(data(&lines[2])["playStatus"], 1);
    assert_eq!((lines[1].as_str(), lines[3].as_str()), ("\n", "\n"));
}

fn stream_auth() {
    let (session, other) = (world().seat().sign_in(), world().seat().sign_in());
    // The rig's stream has the cookie alone.
    drop(session.stream());
    let bare = Request::new("GET", session.path(MESSAGES)).header("Accept", "text/event-stream");
    world().ask(&bare).no_cookie();
    world().ask(&bare.header("Cookie", &other.cookie)).no_session();
}

fn one_stream() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    let first = session.stream();
    let mut second = session.stream();
    assert_eq!(first.rest().replace(": here\n\n", ""), "", "the one before ends");
    session.stop(&id).done(204);
    assert_eq!(second.message()["playStatus"], 1);
    // Another session has its own.
    let other = seat.sign_in();
    let _third = other.stream();
    session.stop(&id).done(204);
    assert_eq!(second.message()["playStatus"], 1);
}

fn poll_beside_stream() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    let mut stream = session.stream();
    for _ in 0..10 {
        session.stop(&id).done(204);
        assert_eq!(session.poll(), [] as [Value; 0]);
    }
    for _ in 0..10 {
        assert_eq!(stream.message()["playStatus"], 1);
    }
}

fn reconnect() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    drop(session.stream());
    // Once it is noticed that nobody listens, polls are answered again.
    until("the end of the stream", || {
        session.stop(&id).done(204);
        (!session.poll().is_empty()).then_some(())
    });
    session.stop(&id).done(204);
    session.stop(&id).done(204);
    let mut stream = session.stream();
    assert_eq!((&stream.message()["playStatus"], &stream.message()["playStatus"]), (&json!(1), &json!(1)));
}

fn stream_end() {
    let session = world().seat().sign_in();
    let stream = session.stream();
    session.call("DELETE", "connection", "").done(200);
    assert_eq!(stream.rest().replace(": here\n\n", "").trim(), "");
}

fn stream_backlog() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    for _ in 0..1500 {
        session.stop(&id).done(204);
    }
    let mut stream = session.stream();
    let first = stream.message();
    assert_eq!((&first["isDelta"], first["voicemailMessagesAdded"].as_array().unwrap().len()), (&json!(false), 1));
}

fn page(origin: &str, allowed: bool) {
    let session = world().seat().sign_in();
    let requests = [
        session.request("GET", "connection"),
        session.request("GET", "nothing"),
        session.request("PUT", "unified-messaging/vm-0").body("{}"),
        session.request("GET", "connection").without("Cookie"),
        Request::new("GET", "/icws/connection/server-time"),
        Request::new("POST", "/icws/connection"),
    ];
    for request in requests {
        let answer = session.ask(&request.header("Origin", origin));
        let told = (answer.header("access-control-allow-origin"), answer.header("access-control-allow-credentials"));
        assert_eq!(told, if allowed { (ORIGIN, "true") } else { ("", "") }, "{}", answer.head);
        let exposed = answer.header("access-control-expose-headers");
        for name in ["ININ-ICWS-CSRF-Token", "ININ-ICWS-Session-ID"] {
            assert_eq!(exposed.contains(name), allowed, "{exposed}");
        }
        assert_eq!(answer.header("vary"), "Origin", "a cache keeps them apart");
    }
    // Before a request that is not simple, a browser asks whether it may.
    let preflight = Request::new("OPTIONS", session.path("connection")).header("Origin", origin);
    let preflight = preflight.header("Access-Control-Request-Method", "DELETE");
    let answer = session.ask(&preflight.header("Access-Control-Request-Headers", "inin-icws-csrf-token"));
    if !allowed {
        answer.refused(405, "", "");
        assert_eq!(answer.header("access-control-allow-methods"), "");
        return;
    }
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, ORIGIN));
    assert_eq!(answer.header("access-control-allow-methods"), "GET, POST, PUT, DELETE");
    for name in ["Accept", "Accept-Language", "Content-Type", "ININ-ICWS-CSRF-Token"] {
        assert!(answer.header("access-control-allow-headers").contains(name), "{}", answer.head);
    }
    // A stream is a request like any other.
    let stream = session.request("GET", MESSAGES).header("Accept", "text/event-stream").header("Origin", origin);
    let mut reader = std::io::BufReader::new(stream.send(crate::client::own_address(), world().api));
    let (status, head) = crate::client::read_head(&mut reader);
    assert_eq!(status, 200);
    assert!(head.contains(&format!("access-control-allow-origin: {ORIGIN}\r\n")), "{head}");
}
