//! Every call of a session, in every way that is common to all: done, not let in, with another method, by another path,
//! with every kind of body and id (1.1 to 1.4 of the reference).

use std::sync::atomic::{AtomicUsize, Ordering};

use ringbridge_tests::endpoint::Endpoint;
use serde_json::{Value, json};

use crate::client::{Answer, BODY_BYTES_MAX, Request};
use crate::rig::{FAX, MESSAGES, SHARED_FROM, Session, VOICEMAIL, WAITING, play, world};
use crate::row::Row;

/// One call.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    method: &'static str,
    /// `{id}` is a message.
    path: &'static str,
    /// `{station}` is the seat's.
    body: &'static str,
    success: u16,
    /// What there is besides.
    allow: &'static str,
    /// Whether it wants the CSRF token.
    csrf: bool,
}

const fn call(name: &'static str, method: &'static str, path: &'static str, success: u16, allow: &'static str) -> Call {
    Call { name, method, path, body: "", success, allow, csrf: true }
}

impl Call {
    const fn with(self, body: &'static str) -> Self {
        Self { body, ..self }
    }

    const fn without_csrf(self) -> Self {
        Self { csrf: false, ..self }
    }

    fn needs_message(&self) -> bool {
        self.path.contains("{id}")
    }

    fn path(&self, id: &str) -> String {
        self.path.replace("{id}", id)
    }

    fn request(&self, session: &Session, id: &str, station: &str) -> Request<'static> {
        let request = session.request(self.method, &self.path(id)).body(self.body.replace("{station}", station));
        if self.csrf { request } else { request.without("ININ-ICWS-CSRF-Token") }
    }
}

const CALLS: [Call; 19] = [
    call("connection_get", "GET", "connection", 200, "GET, DELETE"),
    call("connection_delete", "DELETE", "connection", 200, "GET, DELETE"),
    call("station_get", "GET", "connection/station", 200, "GET, PUT, DELETE"),
    call("station_put", "PUT", "connection/station", 200, "GET, PUT, DELETE")
        .with("{\"__type\": \"urn:inin.com:connection:workstationSettings\", \"workstation\": \"{station}\"}"),
    call("station_delete", "DELETE", "connection/station", 204, "GET, PUT, DELETE"),
    call("heartbeat", "POST", "messaging/heartbeat", 204, "POST"),
    call("messages", "GET", MESSAGES, 200, "GET").without_csrf(),
    call("voicemail_put", "PUT", VOICEMAIL, 200, "PUT, DELETE"),
    call("voicemail_delete", "DELETE", VOICEMAIL, 204, "PUT, DELETE"),
    call("fax_put", "PUT", FAX, 200, "PUT, DELETE"),
    call("fax_delete", "DELETE", FAX, 204, "PUT, DELETE"),
    call("mwi_put", "PUT", WAITING, 200, "PUT, DELETE"),
    call("mwi_delete", "DELETE", WAITING, 204, "PUT, DELETE"),
    call("count_refresh", "PUT", "unified-messaging/messages-waiting-indicator/count-refresh", 204, "PUT"),
    call("message_put", "PUT", "unified-messaging/{id}", 204, "PUT, DELETE").with("{\"state\": 1}"),
    call("message_delete", "DELETE", "unified-messaging/{id}", 204, "PUT, DELETE"),
    call("start", "POST", "unified-messaging/{id}/voicemail-message/play/start", 204, "POST").with("{\"state\": 1}"),
    call("stop", "POST", "unified-messaging/{id}/voicemail-message/play/stop", 204, "POST"),
    call("file", "GET", "files/{id}.wav", 200, "GET").without_csrf(),
];

/// Asks with the credentials of a session, somebody else's session, and a mistake.
type Deny = fn(&Call, &Session, &Session);

/// What may have gone wrong with credentials, and what comes of it.
const DENIED: [(&str, Deny); 12] = [
    ("no_cookie", |call, session, _| request(call, session).without("Cookie").denied(session).no_cookie()),
    ("only_other_cookies", |call, session, _| {
        request(call, session).without("Cookie").header("Cookie", "theme=dark; a").denied(session).no_cookie();
    }),
    ("swapped_cookie", |call, session, other| {
        request(call, session).without("Cookie").header("Cookie", &other.cookie).denied(session).no_session();
    }),
    ("value_of_another_cookie", |call, session, other| {
        let value = other.cookie.split_once('=').unwrap().1;
        let cookie = format!("icws_{}={value}", session.id);
        request(call, session).without("Cookie").header("Cookie", &cookie).denied(session).no_session();
    }),
    ("guessed_cookie", |call, session, _| {
        for value in ["", "0", "%00", "' OR 1=1", "00000000-0000-4000-8000-000000000000"] {
            let cookie = format!("icws_{}={value}", session.id);
            request(call, session).without("Cookie").header("Cookie", &cookie).denied(session).no_session();
        }
    }),
    ("swapped_session", |call, session, other| {
        let mut request = request(call, session);
        request.path = request.path.replace(&session.id, &other.id);
        request.denied(session).no_session();
    }),
    ("unknown_session", |call, session, _| {
        for id in ["1", "4711", "99999999999999999999", "abc", "%2e%2e", "-1", "%00", "%3Cscript%3E"] {
            let mut request = request(call, session);
            request.path = request.path.replace(&session.id, id);
            request.denied(session).no_session();
        }
    }),
    ("ended_session", |call, session, _| {
        session.call("DELETE", "connection", "").done(200);
        request(call, session).denied(session).no_session();
        // Every one of its credentials is void, and nothing tells which was.
        request(call, session).without("Cookie").denied(session).no_cookie();
    }),
    ("cookie_among_others", |call, session, other| {
        let cookie = format!("theme=dark; {}; {}", other.cookie, session.cookie);
        let answer = request(call, session).without("Cookie").header("Cookie", &cookie).denied(session);
        assert_ne!(answer.status, 401, "{answer:?}");
    }),
    ("no_csrf_token", |call, session, _| {
        let answer = request(call, session).without("ININ-ICWS-CSRF-Token").denied(session);
        if call.csrf { answer.no_csrf() } else { assert_ne!(answer.status, 401, "an event source can't set headers") }
    }),
    ("wrong_csrf_token", |call, session, _| {
        for token in ["", "0", "null", &session.csrf.to_uppercase(), &format!("{}x", session.csrf)] {
            let request = request(call, session).without("ININ-ICWS-CSRF-Token");
            let answer = request.header("ININ-ICWS-CSRF-Token", token).denied(session);
            if call.csrf && token != session.csrf { answer.no_csrf() } else { assert_ne!(answer.status, 401) }
        }
    }),
    ("swapped_csrf_token", |call, session, other| {
        let request = request(call, session).without("ININ-ICWS-CSRF-Token");
        let answer = request.header("ININ-ICWS-CSRF-Token", &other.csrf).denied(session);
        if call.csrf { answer.no_csrf() } else { assert_ne!(answer.status, 401) }
    }),
];

/// Bodies that are no JSON object.
const MALFORMED: [(&str, &[u8]); 12] = [
    ("empty", b""),
    ("space", b"  \r\n"),
    ("text", b"nonsense"),
    ("array", b"[{\"state\": 1}]"),
    ("string", b"\"state\""),
    ("number", b"1"),
    ("null", b"null"),
    ("truncated", b"{\"state\": 1"),
    ("more_after_it", b"{\"state\": 1} {}"),
    ("not_utf8", b"{\"state\": \"\xff\xfe\"}"),
    ("single_quotes", b"{'state': 1}"),
    ("xml", b"<state>1</state>"),
];

/// What names no message of the user, whatever is asked for.
const UNKNOWN_IDS: [&str; 12] = [
    "vm-999999999",
    "17",
    "vm-",
    "vm-0",
    "vm-01",
    "VM-1",
    "vm--1",
    "vm-1%00",
    "vm-1%0d%0aX-Injected:%20yes",
    "vm-1'%20OR%201=1--",
    "%2e%2e%2f%2e%2e",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
];

fn request(call: &Call, session: &Session) -> Request<'static> {
    call.request(session, "vm-1", "s0")
}

trait Denied {
    fn denied(self, session: &Session) -> Answer;
}

impl Denied for Request<'_> {
    #[track_caller]
    fn denied(self, session: &Session) -> Answer {
        session.ask(&self)
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for call in CALLS {
        rows.push(Row::new(format!("calls::{}::done", call.name), move || done(call)));
        for (name, deny) in DENIED {
            rows.push(Row::new(format!("calls::{}::{name}", call.name), move || {
                let (session, other) = (shared(), shared());
                deny(&call, &session, &other);
            }));
        }
        rows.push(Row::new(format!("calls::{}::other_methods", call.name), move || other_methods(call)));
        rows.push(Row::new(format!("calls::{}::other_paths", call.name), move || other_paths(call)));
        rows.push(Row::new(format!("calls::{}::order_of_checks", call.name), move || order(call)));
        if call.body.is_empty() {
            rows.push(Row::new(format!("calls::{}::body_too_long", call.name), move || too_long(call)));
        } else {
            bodies(&mut rows, call);
        }
        if call.needs_message() {
            for id in UNKNOWN_IDS {
                rows.push(Row::new(format!("calls::{}::unknown_id::{id}", call.name), move || unknown_id(call, id)));
            }
            rows.push(Row::new(format!("calls::{}::message_of_somebody_else", call.name), move || foreign(call)));
            rows.push(Row::new(format!("calls::{}::deleted_message", call.name), move || deleted(call)));
        }
    }
    rows
}

/// A session of some user; many rows that change nothing use the same users.
fn shared() -> Session {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    world().seat_number(SHARED_FROM + NEXT.fetch_add(1, Ordering::Relaxed) % 16).sign_in()
}

fn done(call: Call) {
    let seat = world().seat();
    let session = seat.sign_in();
    let id = if call.needs_message() { seat.voicemail() } else { String::new() };
    let endpoint = Endpoint::open();
    let leg = (call.name == "start").then(|| seat.connect(&endpoint));
    let answer = session.ask(&call.request(&session, &id, &seat.station));
    answer.done(call.success);
    match call.name {
        "connection_get" => assert_eq!(answer.labelled().json(), json!({"connectionState": 1})),
        "station_get" => assert_eq!(answer.labelled().json()["workstation"], seat.station.as_str()),
        "messages" => assert_eq!(answer.labelled().json(), json!([])),
        "file" => assert_eq!((answer.header("content-type"), &answer.body[..4]), ("audio/wav", &b"RIFF"[..])),
        _ => assert_eq!(answer.body, b"", "{}", answer.head),
    }
    if let Some(leg) = leg {
        session.stop(&id).done(204);
        seat.world.server.ok("connection.delete", json!({"connection_id": leg.id}));
    }
}

fn other_methods(call: Call) {
    let session = shared();
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        if call.allow.split(", ").any(|allowed| allowed == method) {
            continue;
        }
        for request in
            [session.request(method, &call.path("vm-1")), Request::new(method, session.path(&call.path("vm-1")))]
        {
            let answer = session.ask(&request);
            answer.refused(405, "", "");
            assert_eq!(answer.header("allow"), call.allow);
        }
    }
    let head = session.ask(&session.request("HEAD", &call.path("vm-1")));
    assert_eq!((head.status, head.header("allow"), head.body.len()), (405, call.allow, 0));
}

fn other_paths(call: Call) {
    let session = shared();
    let path = session.path(&call.path("vm-1"));
    let mut others = vec![
        format!("{path}/"),
        format!("/{path}"),
        path.replacen("/icws/", "/ICWS/", 1),
        path.replacen("/icws/", "/icws//", 1),
        path.replacen("/icws/", "/api/", 1),
        format!("{path}/more"),
        format!("/icws{path}"),
    ];
    // Segments are case-sensitive.
    let (front, last) = path.rsplit_once('/').unwrap();
    let shouted = last.to_uppercase();
    if !call.path.ends_with("{id}") && !call.path.starts_with("files/") {
        others.push(format!("{front}/{shouted}"));
    }
    for path in others {
        let mut request = session.request(call.method, "");
        request.path.clone_from(&path);
        // A longer path may be another call, with its own methods.
        let answer = session.ask(&request);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        answer.refused(404, "", "");
    }
}

fn order(call: Call) {
    let (session, other) = (shared(), shared());
    let bare = |method: &'static str, path: &str| Request::new(method, format!("/icws/1/{path}"));
    // Path, then method, then cookie, session, CSRF token, message id, body.
    session.ask(&bare("BREW", "nothing/of/this")).refused(404, "", "");
    session.ask(&bare("BREW", &call.path("x")).body("nonsense")).refused(405, "", "");
    session.ask(&bare(call.method, &call.path("x")).body("nonsense")).no_cookie();
    let cookie = bare(call.method, &call.path("x")).body("nonsense").header("Cookie", &other.cookie);
    session.ask(&cookie).no_session();
    let own = Request::new(call.method, session.path(&call.path("x"))).body("nonsense");
    let own = own.header("Cookie", &session.cookie);
    if call.csrf {
        session.ask(&own).no_csrf();
        session.ask(&own.clone().header("ININ-ICWS-CSRF-Token", &other.csrf)).no_csrf();
    }
    if call.needs_message() {
        let all = own.header("ININ-ICWS-CSRF-Token", &session.csrf).header("Content-Type", "text/xml");
        session.ask(&all).refused(400, "invalidProperty", "unifiedMessageId");
    }
}

fn too_long(call: Call) {
    let session = shared();
    let body = " ".repeat(BODY_BYTES_MAX + 1);
    session.ask(&request(&call, &session).body(body)).refused(413, "", "");
}

fn bodies(rows: &mut Vec<Row>, call: Call) {
    let with = move |body: &[u8], kind: Option<&str>| {
        let seat = world().seat();
        let session = seat.sign_in();
        let id = if call.needs_message() { seat.message("short.wav", "1.wav") } else { String::new() };
        let request = call.request(&session, &id, &seat.station);
        let body = if body == b"{}" { request.body.clone() } else { body.to_vec() };
        let request = request.body(body);
        session.ask(&kind.iter().fold(request, |request, kind| request.header("Content-Type", kind)))
    };
    rows.push(Row::new(format!("calls::{}::malformed", call.name), move || {
        let seat = world().seat();
        let session = seat.sign_in();
        let id = if call.needs_message() { seat.message("short.wav", "1.wav") } else { String::new() };
        for (name, body) in MALFORMED {
            let answer = session.ask(&call.request(&session, &id, "").body(body));
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
            answer.refused(400, "malformed", "");
        }
        // As deep as it goes.
        for deep in ["[", "{\"a\":"] {
            session.ask(&call.request(&session, &id, "").body(deep.repeat(100_000))).refused(400, "malformed", "");
        }
        assert_eq!(session.poll(), [] as [Value; 0]);
    }));
    for (name, kind) in [
        ("icws", "application/vnd.inin.icws+JSON"),
        ("icws_with_charset", "application/vnd.inin.icws+JSON;charset=utf-8"),
        ("icws_in_small_letters", "application/vnd.inin.icws+json; charset=UTF-8"),
        ("json", "application/json"),
        ("json_in_capitals", "APPLICATION/JSON;charset=utf-8"),
    ] {
        rows.push(Row::new(format!("calls::{}::media_type::{name}", call.name), move || {
            let answer = with(b"{}", Some(kind));
            // There is no telephone at the station.
            if call.name == "start" {
                answer.refused(400, "invalidProperty", "playTarget")
            } else {
                answer.done(call.success)
            };
        }));
    }
    for kind in ["text/xml", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "*/*"] {
        rows.push(Row::new(format!("calls::{}::other_media_type::{kind}", call.name), move || {
            with(b"{}", Some(kind)).refused(415, "", "");
        }));
    }
    rows.push(Row::new(format!("calls::{}::body_of_1_mib", call.name), move || {
        let seat = world().seat();
        let session = seat.sign_in();
        let id = if call.needs_message() { seat.message("short.wav", "1.wav") } else { String::new() };
        let request = call.request(&session, &id, &seat.station);
        let mut body = request.body.clone();
        body.resize(BODY_BYTES_MAX, b' ');
        let answer = session.ask(&request.clone().body(body.clone()));
        if call.name == "start" {
            answer.refused(400, "invalidProperty", "playTarget")
        } else {
            answer.done(call.success)
        };
        body.push(b' ');
        session.ask(&request.body(body)).refused(413, "", "");
    }));
    rows.push(Row::new(format!("calls::{}::unknown_members_are_ignored", call.name), move || {
        let seat = world().seat();
        let session = seat.sign_in();
        let id = if call.needs_message() { seat.message("short.wav", "1.wav") } else { String::new() };
        let request = call.request(&session, &id, &seat.station);
        let mut body: Value = serde_json::from_slice(&request.body).unwrap();
        body["somethingElse"] = json!({"state": [1, 2, {"__type": 5}]});
        let answer = session.ask(&request.json(&body));
        if call.name == "start" {
            answer.refused(400, "invalidProperty", "playTarget")
        } else {
            answer.done(call.success)
        };
    }));
}

fn unknown_id(call: Call, id: &str) {
    let session = shared();
    let answer = session.ask(&call.request(&session, id, ""));
    answer.refused(400, "invalidProperty", "unifiedMessageId");
    assert!(!answer.head.contains("X-Injected"), "{}", answer.head);
}

fn foreign(call: Call) {
    let (anna, berta) = (world().seat(), shared());
    let id = anna.message("short.wav", "1.wav");
    berta.ask(&call.request(&berta, &id, &anna.station)).refused(400, "invalidProperty", "unifiedMessageId");
    // It is as it was.
    let session = anna.sign_in();
    let listed = session.subscribe(VOICEMAIL);
    assert_eq!(listed["voicemailMessagesAdded"][0]["state"], 0);
}

fn deleted(call: Call) {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.call("DELETE", &format!("unified-messaging/{id}"), "").done(204);
    session.poll();
    session.ask(&call.request(&session, &id, &seat.station)).refused(400, "invalidProperty", "unifiedMessageId");
    session.call("POST", &play(&id, "stop"), "").refused(400, "invalidProperty", "unifiedMessageId");
    assert_eq!(session.poll(), [] as [Value; 0], "nothing is told");
}
