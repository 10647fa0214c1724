//! Clients that mean harm: requests that are cut, slow or too long, credentials that were stolen, a crowd.

use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringbridge_tests::endpoint::Endpoint;
use ringbridge_tests::until;
use serde_json::json;

use crate::client::{BODY_BYTES_MAX, Request, connect, own_address, read_answer};
use crate::rig::{Session, VOICEMAIL, World, credentials, play, sign_in_request, world};
use crate::row::{Plain, Row, plain};

const ROWS: &[Plain] = &[
    ("hostile::no_http", no_http),
    ("hostile::paths", paths),
    ("hostile::file_names", file_names),
    ("hostile::headers_that_end_early", header_injection),
    ("hostile::too_many_and_too_long_headers", long_headers),
    ("hostile::a_body_too_long_in_chunks", chunks),
    ("hostile::a_body_that_never_comes", slow_body),
    ("hostile::many_slow_clients", many_slow),
    ("hostile::a_listener_that_never_reads", never_reads),
    ("hostile::values_that_are_told_again", echoed),
    ("hostile::stolen_cookie", stolen_cookie),
    ("hostile::stolen_token", stolen_token),
    ("hostile::cookies_by_the_thousand", many_cookies),
    ("hostile::two_lengths", two_lengths),
    ("hostile::a_thousand_sessions", thousand_sessions),
    ("hostile::a_thousand_connections", thousand_connections),
    ("hostile::nothing_secret_in_the_log", log),
];

pub(crate) fn rows() -> Vec<Row> {
    plain(ROWS)
}

/// Sends bytes as they are and reads whatever comes until the server closes.
fn exchange(bytes: &[u8]) -> String {
    let mut stream = connect(own_address(), world().api);
    // It may close before all is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // A reset ends it as well.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The server is there, and answers.
#[track_caller]
fn is_well() {
    world().get("/icws/connection/version").done(200);
}

fn no_http() {
    for bytes in [
        &b""[..],
        b"\r\n\r\n\r\n",
        b"GET",
        b"GET /icws/connection/version",
        b"GET /icws/connection/version HTTP/9.9\r\n\r\n",
        b"GET  /icws/connection/version  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /icws/connection/version HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /icws/connection/version HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /icws/connection HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET /icws/connection/version HTTP/1.1\r\nX\0: y\r\n\r\n",
        b"GET /icws/\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
    ] {
        let answer = exchange(bytes);
        assert!(!answer.contains(" 200 "), "{answer}");
        is_well();
    }
    let noise: Vec<u8> = (0..100_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    exchange(&noise);
    is_well();
}

fn paths() {
    let session = world().seat().sign_in();
    for path in [
        "/icws/../icws/connection/version",
        "/icws/%2e%2e/connection/version",
        "/icws/./connection/version",
        "/icws/connection%2fversion",
        "/icws/connection/version%00",
        "/icws/connection/version;a=b",
        "/icws/connection\\version",
        "/../../etc/passwd",
        "/icws/..%2f..%2fetc%2fpasswd",
    ] {
        let mut request = session.request("GET", "");
        request.path = path.to_owned();
        let answer = session.ask(&request);
        assert!([401, 404, 405].contains(&answer.status), "{path}: {answer:?}");
        answer.labelled();
    }
    let long = format!("/icws/{}", "a/".repeat(4000));
    world().get(&long).refused(404, "", "");
}

fn file_names() {
    let (seat, other) = (world().seat(), world().seat());
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    let foreign = other.message("short.wav", "1.wav");
    session.call("GET", &format!("files/{id}.wav"), "").done(200);
    for name in [
        format!("{foreign}.wav"),
        "vm-999999.wav".to_owned(),
        "%2e%2e".to_owned(),
        "%2e%2e%2f%2e%2e%2fringbridge.db".to_owned(),
        format!("%2e%2e%2f{id}.wav"),
        "ringbridge.db".to_owned(),
        "%00".to_owned(),
        "...wav".to_owned(),
    ] {
        session.call("GET", &format!("files/{name}"), "").refused(400, "invalidProperty", "unifiedMessageId");
    }
    for name in [
        id.clone(),
        format!("{id}."),
        format!("{id}.wav.wav"),
        format!("{id}.exe"),
        format!("{id}.wav%00"),
        format!("{id}.WAV"),
    ] {
        session.call("GET", &format!("files/{name}"), "").refused(404, "", "");
    }
    for name in ["", "../connection", "a/b.wav"] {
        session.call("GET", &format!("files/{name}"), "").refused(404, "", "");
    }
}

fn header_injection() {
    let session = world().seat().sign_in();
    // A line end in a value ends the value: what follows is another header, and nothing of it is told again.
    let bytes = format!(
        "GET /icws/{}/connection HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: https://evil.example.com\r\n Set-Cookie: a=b\r\n\r\n",
        session.id
    );
    let answer = exchange(bytes.as_bytes());
    assert!(!answer.to_lowercase().contains("set-cookie") && !answer.contains("evil"), "{answer}");
    for name in ["X-Forwarded-For", "X-HTTP-Method-Override", "X-Original-URL", "Host"] {
        let answer = session.ask(&session.request("GET", "connection").header(name, "DELETE"));
        assert!([200, 400].contains(&answer.status), "{name}: {answer:?}");
    }
    session.call("GET", "connection", "").done(200);
}

fn long_headers() {
    let session = world().seat().sign_in();
    let mut many = session.request("GET", "connection");
    for number in 0..100 {
        many = many.header(&format!("X-{number}"), "y");
    }
    assert_eq!(session.ask(&many).status, 431);
    let answer = exchange(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(100_000)).as_bytes());
    assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    session.call("GET", "connection", "").done(200);
}

fn chunks() {
    let head = "POST /icws/connection HTTP/1.1\r\nHost: x\r\nAccept-Language: en\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut bytes = format!("{head}{BODY_BYTES_MAX:x}\r\n").into_bytes();
    bytes.extend(vec![b' '; BODY_BYTES_MAX]);
    bytes.extend(b"\r\n1\r\nx\r\n");
    let mut stream = connect(own_address(), world().api);
    stream.write_all(&bytes).unwrap();
    read_answer(&mut BufReader::new(stream)).refused(413, "", "");
    let broken = exchange(format!("{head}zz\r\n").as_bytes());
    assert!(broken.contains(" 400 ") && broken.contains("error.request.invalidRepresentation.malformed"), "{broken}");
}

/// A request whose body does not come.
fn half(session: &Session) -> std::net::TcpStream {
    let mut stream = connect(own_address(), world().api);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nCookie: {}\r\nININ-ICWS-CSRF-Token: {}\r\nContent-Length: 100\r\n\r\n{{\"st",
        session.path(&play("vm-1", "stop")),
        session.cookie,
        session.csrf
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn slow_body() {
    let session = world().seat().sign_in();
    let stream = half(&session);
    // Others are served meanwhile, and in the end it is cut off.
    for _ in 0..100 {
        session.call("POST", "messaging/heartbeat", "").done(204);
    }
    let mut reader = BufReader::new(stream);
    let answer = read_answer(&mut reader);
    answer.refused(408, "", "");
    assert_eq!(answer.header("connection"), "close");
    let mut rest = Vec::new();
    assert_eq!(reader.read_to_end(&mut rest).unwrap(), 0);
}

fn many_slow() {
    let world_ = world();
    let session = world_.seat().sign_in();
    let slow: Vec<_> = (0..200).map(|_| half(&session)).collect();
    for _ in 0..20 {
        session.call("POST", "messaging/heartbeat", "").done(204);
        session.poll();
    }
    drop(slow);
    session.call("GET", "connection", "").done(200);
}

fn never_reads() {
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    // Its stream is opened and never read; a thousand stops fill what the system holds of it, or the queue.
    let _stream = session.stream();
    for _ in 0..3000 {
        session.stop(&id).done(204);
    }
    let other = seat.sign_in();
    other.subscribe(VOICEMAIL);
    session.stop(&id).done(204);
    assert_eq!(other.statuses(&id, 1), [1]);
}

fn echoed() {
    let seat = world().seat();
    let session = seat.sign_in();
    let nasty = "<script>alert(1)</script>\"}],\"x\":[{\r\nX-Injected: yes\r\n\r\n\u{0}\u{2028}\u{1b}[2J";
    let kinds = "urn:inin.com:connection:";
    for (method, call, body) in [
        ("PUT", "connection/station", json!({"__type": format!("{kinds}workstationSettings"), "workstation": nasty})),
        ("PUT", "connection/station", json!({"__type": format!("{kinds}remoteNumberSettings"), "remoteNumber": nasty})),
        ("PUT", "connection/station", json!({"__type": nasty})),
        ("PUT", "connection/station", json!({nasty: 1})),
    ] {
        let answer = session.call(method, call, body.to_string());
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.labelled();
        assert!(!answer.head.contains("Injected"), "{}", answer.head);
        // As it stands in JSON: nothing of it ends a text.
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert!(!text.contains('\r') && !text.contains('\n') && !text.contains('\u{0}'), "{text}");
    }
    let mut body = credentials(nasty, nasty);
    world().ask(&sign_in_request(&body)).refused(400, "authenticationFailure", "");
    body["applicationName"] = json!(nasty);
    body["userID"] = seat.user.clone().into();
    world().ask(&sign_in_request(&body)).refused(400, "authenticationFailure", "");
    assert!(!seat.world.server.log().lines().any(|line| line.starts_with("X-Injected")));
    // The name of a feature and of a message stand in the URL.
    for path in ["/icws/connection/features/%3Cscript%3E%0d%0aX-Injected:1", "/icws/connection/features/%FF%FE"] {
        let answer = world().get(path);
        answer.refused(400, "invalidProperty", "featureId");
        assert!(!answer.head.contains("Injected"), "{}", answer.head);
    }
}

fn stolen_cookie() {
    // Who has the cookie alone can read, but change nothing.
    let seat = world().seat();
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    let thief = |method, call: &str, body: &str| {
        session.ask(&session.request(method, call).without("ININ-ICWS-CSRF-Token").body(body))
    };
    for (method, call, body) in [
        ("POST", play(&id, "stop"), ""),
        ("POST", play(&id, "start"), "{\"state\": 1}"),
        ("DELETE", format!("unified-messaging/{id}"), ""),
        ("PUT", format!("unified-messaging/{id}"), "{\"state\": 1}"),
        ("DELETE", "connection".to_owned(), ""),
        ("PUT", VOICEMAIL.to_owned(), ""),
    ] {
        thief(method, &call, body).no_csrf();
    }
    assert_eq!(session.subscribe(VOICEMAIL)["voicemailMessagesAdded"][0]["state"], 0);
    // A form of another page: the cookie goes along, the token can't.
    let form = session.request("POST", &play(&id, "stop")).without("ININ-ICWS-CSRF-Token");
    session.ask(&form.header("Content-Type", "text/plain").header("Origin", "https://evil.example.com")).no_csrf();
}

fn stolen_token() {
    // Session id and token are in the body of an answer; without the cookie they open nothing.
    let (session, thief) = (world().seat().sign_in(), world().seat().sign_in());
    let stolen = Request::new("GET", session.path("connection")).header("ININ-ICWS-CSRF-Token", &session.csrf);
    world().ask(&stolen).no_cookie();
    world().ask(&stolen.header("Cookie", &thief.cookie)).no_session();
    // In the address they are not looked for.
    let query = format!("{}?cookie={}&token={}", session.path("connection"), session.cookie, session.csrf);
    world().get(&query).no_cookie();
    // After signing out all of it is void.
    session.call("DELETE", "connection", "").done(200);
    session.call("GET", "connection", "").no_session();
}

fn many_cookies() {
    let session = world().seat().sign_in();
    let guesses: Vec<String> = (0..200).map(|number| format!("icws_{}={number}", session.id)).collect();
    let request = session.request("GET", "connection").without("Cookie");
    session.ask(&request.clone().header("Cookie", &guesses.join("; "))).no_session();
    let garbage = ";;;===;icws_;=;icws_=;\u{7f}";
    let answer = session.ask(&request.header("Cookie", garbage));
    assert!([400, 401].contains(&answer.status), "{answer:?}");
}

fn two_lengths() {
    // Two lengths could hide a second request from whoever is in front; with chunks, those are what counts.
    let smuggled = "GET /icws/connection/features HTTP/1.1\r\nHost: x\r\n\r\n";
    let with = |heads: &str, body: &str| {
        exchange(format!("POST /icws/connection/version HTTP/1.1\r\nHost: x\r\n{heads}\r\n\r\n{body}").as_bytes())
    };
    for lengths in [
        "Content-Length: 0\r\nContent-Length: 56",
        "Content-Length: 0, 56",
        "Content-Length: +0",
        "Content-Length: 0x0",
    ] {
        let answer = with(lengths, smuggled);
        assert!(answer.contains(" 400 ") && !answer.contains("featureInfoList"), "{lengths}: {answer}");
    }
    let chunked = "Transfer-Encoding: chunked\r\nContent-Length: 4";
    let answer = with(chunked, &format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()));
    assert!(!answer.contains("featureInfoList"), "it is a body: {answer}");
    is_well();
}

/// Works through some numbers on a few threads.
fn in_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
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

fn thousand_sessions() {
    let world = Arc::new(World::start(20, 0, ""));
    let seat = world.seat_number(0);
    let id = seat.voicemail();
    let phone = Endpoint::open();
    let _leg = seat.connect(&phone);
    let sessions = std::sync::Mutex::new(Vec::new());
    in_parallel(1000, |number| {
        let session = world.seat_number(number % 20).sign_in();
        session.call("PUT", VOICEMAIL, "").done(200);
        sessions.lock().unwrap().push((number % 20, session));
    });
    let sessions = sessions.into_inner().unwrap();
    let first = &sessions.iter().find(|(seat, _)| *seat == 0).unwrap().1;
    first.play(&id).done(204);
    first.stop(&id).done(204);
    in_parallel(sessions.len(), |number| {
        let (seat, session) = &sessions[number];
        let told: Vec<_> = session.poll().iter().filter_map(|it| it["playStatus"].as_u64()).collect();
        assert_eq!(told, if *seat == 0 { vec![0, 1] } else { Vec::new() }, "its user's, and nobody else's");
    });
    let count = sessions.iter().filter(|(seat, _)| *seat == 0).count();
    assert_eq!(count, 50);
    for (_, session) in sessions {
        session.forget();
    }
    drop(seat);
    Arc::into_inner(world).unwrap_or_else(|| panic!("nobody else has it")).server.stop();
}

fn thousand_connections() {
    // A server of its own: it is full then. Who comes when it is full is sent away, who was there is served.
    let world = Arc::new(World::start(2, 0, ""));
    let session = world.seat_number(0).sign_in();
    let mut crowd: Vec<_> = (0..1100).map(|_| connect(own_address(), world.api)).collect();
    until("room again", || {
        crowd.truncate(crowd.len().saturating_sub(20));
        let mut stream = connect(own_address(), world.api);
        let request = format!(
            "GET {} HTTP/1.0\r\nCookie: {}\r\nININ-ICWS-CSRF-Token: {}\r\n\r\n",
            session.path("connection"),
            session.cookie,
            session.csrf
        );
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        (asked.is_ok() && answer.contains(" 200 ")).then_some(())
    });
    drop(crowd);
    until("all room again", || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.call("GET", "connection", "").status))
            .ok()
            .filter(|status| *status == 200)
    });
    drop(session);
    Arc::into_inner(world).unwrap().server.stop();
}

fn log() {
    let seat = world().seat();
    let session = seat.sign_in();
    session.call("POST", "messaging/heartbeat", "").done(204);
    session.call("GET", "connection", "").done(200);
    let log = seat.world.server.log();
    let secrets = [session.csrf.as_str(), session.cookie.split_once('=').unwrap().1, crate::rig::PASSWORD];
    assert!(secrets.iter().all(|secret| !log.contains(secret)));
}
