//! Sessions: signing in and out, stations, life time, and the calls that need none (2 and 5 of the reference).

use std::collections::HashSet;
use std::sync::Arc;

use ringbridge_tests::endpoint::Endpoint;
use serde_json::{Value, json};

use crate::client::{Request, own_address};
use crate::rig::{PASSWORD, Session, VOICEMAIL, World, credentials, sign_in_request, world};
use crate::row::{Plain, Row, plain};

const ROWS: &[Plain] = &[
    ("sessions::sign_in", sign_in),
    ("sessions::sign_in_with_every_media_type", sign_in_media_types),
    ("sessions::language_is_required", language),
    ("sessions::wrong_password", wrong_password),
    ("sessions::unknown_user", unknown_user),
    ("sessions::user_without_the_role", no_role),
    ("sessions::too_many_attempts", too_many_attempts),
    ("sessions::ids_and_tokens_are_unlike", unlike),
    ("sessions::sixty_four_of_a_user", sixty_four),
    ("sessions::draining", draining),
    ("sessions::state", state),
    ("sessions::end", end),
    ("sessions::end_stops_what_it_plays", end_stops),
    ("sessions::end_of_the_users_right", end_of_right),
    ("sessions::heartbeat", heartbeat),
    ("sessions::station_of_the_user", station_of_the_user),
    ("sessions::station_removed", station_removed),
    ("sessions::station_of_somebody_else", station_taken),
    ("sessions::station_keeps_what_is_known", station_settings),
    ("sessions::version", version),
    ("sessions::features", features),
    ("sessions::feature", feature),
    ("sessions::server_time", server_time),
    ("sessions::calls_without_a_session_need_no_cookie_and_take_no_other_method", sessionless_methods),
    ("sessions::description", description),
    ("sessions::no_such_path", no_such_path),
];

/// What `include` adds.
const INCLUDES: [(&str, &[&str]); 11] = [
    ("version", &["version"]),
    ("features", &["features"]),
    ("server-time", &["serverTimeInfo"]),
    ("default-workstation", &["defaultWorkstationId"]),
    ("effective-station", &["effectiveStation"]),
    ("purecloud-integration", &[]),
    ("nonsense", &[]),
    ("", &[]),
    ("version,features,server-time", &["version", "features", "serverTimeInfo"]),
    ("version%2Cfeatures", &["version", "features"]),
    ("version,%20features,,x", &["version", "features"]),
];

/// A request to set the station, and what comes of it: a property that is refused, or none.
const STATIONS: &[(&str, &str, &str, &str)] = &[
    ("workstation", r#"{"__type":"T:workstationSettings","workstation":"S"}"#, "", ""),
    ("workstation_by_number", r#"{"__type":"T:workstationSettings","workstation":"N"}"#, "", ""),
    ("remote_workstation", r#"{"__type":"T:remoteWorkstationSettings","workstation":"S"}"#, "", ""),
    (
        "remote_workstation_with_number",
        r#"{"__type":"T:remoteWorkstationSettings","workstation":"S","remoteNumber":"N"}"#,
        "",
        "",
    ),
    ("remote_number", r#"{"__type":"T:remoteNumberSettings","remoteNumber":"N"}"#, "", ""),
    ("remote_number_extension", r#"{"__type":"T:remoteNumberSettings","remoteNumber":"E"}"#, "", ""),
    (
        "remote_number_persistent",
        r#"{"__type":"T:remoteNumberSettings","remoteNumber":"N","persistentConnection":true}"#,
        "",
        "",
    ),
    ("stationless", r#"{"__type":"T:stationlessSettings"}"#, "", ""),
    (
        "all_optional",
        r#"{"__type":"T:workstationSettings","workstation":"S","supportedMediaTypes":[1,2],"readyForInteractions":true,"stationConnectionMode":1}"#,
        "",
        "",
    ),
    (
        "optional_null",
        r#"{"__type":"T:stationlessSettings","supportedMediaTypes":null,"readyForInteractions":null}"#,
        "",
        "",
    ),
    ("no_type", r#"{"workstation":"S"}"#, "missingRequiredParameter", "__type"),
    ("type_null", r#"{"__type":null,"workstation":"S"}"#, "missingRequiredParameter", "__type"),
    ("type_number", r#"{"__type":1,"workstation":"S"}"#, "invalidProperty", "__type"),
    ("type_unknown", r#"{"__type":"T:spaceSettings"}"#, "invalidProperty", "__type"),
    ("type_without_namespace", r#"{"__type":"workstationSettings","workstation":"S"}"#, "invalidProperty", "__type"),
    ("type_in_other_case", r#"{"__type":"T:WorkstationSettings","workstation":"S"}"#, "invalidProperty", "__type"),
    ("no_workstation", r#"{"__type":"T:workstationSettings"}"#, "missingRequiredParameter", "workstation"),
    ("workstation_empty", r#"{"__type":"T:workstationSettings","workstation":""}"#, "invalidProperty", "workstation"),
    ("workstation_number", r#"{"__type":"T:workstationSettings","workstation":5}"#, "invalidProperty", "workstation"),
    (
        "workstation_object",
        r#"{"__type":"T:workstationSettings","workstation":{"a":1}}"#,
        "invalidProperty",
        "workstation",
    ),
    (
        "workstation_unknown",
        r#"{"__type":"T:workstationSettings","workstation":"nowhere"}"#,
        "invalidProperty",
        "workstation",
    ),
    ("no_remote_workstation", r#"{"__type":"T:remoteWorkstationSettings"}"#, "missingRequiredParameter", "workstation"),
    (
        "remote_workstation_unknown_number",
        r#"{"__type":"T:remoteWorkstationSettings","workstation":"S","remoteNumber":"1"}"#,
        "invalidProperty",
        "remoteNumber",
    ),
    (
        "remote_workstation_number_of_wrong_type",
        r#"{"__type":"T:remoteWorkstationSettings","workstation":"S","remoteNumber":1}"#,
        "invalidProperty",
        "remoteNumber",
    ),
    ("no_remote_number", r#"{"__type":"T:remoteNumberSettings"}"#, "missingRequiredParameter", "remoteNumber"),
    (
        "remote_number_empty",
        r#"{"__type":"T:remoteNumberSettings","remoteNumber":""}"#,
        "invalidProperty",
        "remoteNumber",
    ),
    (
        "remote_number_unknown",
        r#"{"__type":"T:remoteNumberSettings","remoteNumber":"+1"}"#,
        "invalidProperty",
        "remoteNumber",
    ),
    (
        "persistent_text",
        r#"{"__type":"T:remoteNumberSettings","remoteNumber":"N","persistentConnection":"yes"}"#,
        "invalidProperty",
        "persistentConnection",
    ),
    (
        "media_types_text",
        r#"{"__type":"T:stationlessSettings","supportedMediaTypes":"1"}"#,
        "invalidProperty",
        "supportedMediaTypes",
    ),
    (
        "media_types_of_texts",
        r#"{"__type":"T:stationlessSettings","supportedMediaTypes":["1"]}"#,
        "invalidProperty",
        "supportedMediaTypes",
    ),
    (
        "ready_number",
        r#"{"__type":"T:stationlessSettings","readyForInteractions":1}"#,
        "invalidProperty",
        "readyForInteractions",
    ),
    (
        "mode_text",
        r#"{"__type":"T:stationlessSettings","stationConnectionMode":"1"}"#,
        "invalidProperty",
        "stationConnectionMode",
    ),
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = plain(ROWS);
    for (include, members) in INCLUDES {
        rows.push(Row::new(format!("sessions::include::{include}"), move || included(include, members)));
    }
    for member in ["__type", "applicationName", "userID", "password"] {
        for (name, value, id) in [
            ("absent", Value::Null, "missingRequiredParameter"),
            ("number", json!(5), "invalidProperty"),
            ("flag", json!(true), "invalidProperty"),
            ("object", json!({"a": 1}), "invalidProperty"),
            ("list", json!(["a"]), "invalidProperty"),
            ("empty", json!(""), "invalidProperty"),
            ("too_long", json!("x".repeat(1025)), "invalidProperty"),
        ] {
            rows.push(Row::new(format!("sessions::sign_in::{member}::{name}"), move || {
                let mut body = credentials("u0", PASSWORD);
                body[member] = value;
                world().ask(&sign_in_request(&body)).refused(400, id, member);
                body.as_object_mut().unwrap().remove(member);
                world().ask(&sign_in_request(&body)).refused(400, "missingRequiredParameter", member);
            }));
        }
    }
    for optional in ["marketPlaceApplicationLicenseName", "marketPlaceApplicationCode"] {
        rows.push(Row::new(format!("sessions::sign_in::{optional}"), move || {
            let mut body = credentials("u0", PASSWORD);
            body[optional] = json!(5);
            world().ask(&sign_in_request(&body)).refused(400, "invalidProperty", optional);
        }));
    }
    for kind in [
        "urn:inin.com:connection:authTokenConnectionRequestSettings",
        "urn:inin.com:connection:singleSignOnTokenConnectionRequestSettings",
        "urn:inin.com:connection:nothing",
        "icAuthConnectionRequestSettings",
        "URN:ININ.COM:connection:icAuthConnectionRequestSettings",
    ] {
        rows.push(Row::new(format!("sessions::sign_in::kind::{kind}"), move || {
            let mut body = credentials("u0", PASSWORD);
            body["__type"] = kind.into();
            world().ask(&sign_in_request(&body)).refused(400, "invalidProperty", "__type");
        }));
    }
    for (name, body) in [
        ("empty", ""),
        ("text", "nonsense"),
        ("array", "[]"),
        ("null", "null"),
        ("truncated", "{\"__type\": \"urn"),
        ("form", "userID=u0&password=correct-horse"),
    ] {
        rows.push(Row::new(format!("sessions::sign_in::malformed::{name}"), move || {
            world().ask(&sign_in_request(&json!({})).body(body)).refused(400, "malformed", "");
        }));
    }
    for (name, body, id, property) in STATIONS {
        rows.push(Row::new(format!("sessions::station::{name}"), move || station(body, id, property)));
    }
    rows
}

fn sign_in() {
    let seat = world().seat();
    let session = seat.sign_in();
    let (answer, body) = (&session.answer, session.answer.json());
    assert_eq!(answer.header("inin-icws-csrf-token"), body["csrfToken"]);
    assert_eq!(answer.header("inin-icws-session-id"), body["sessionId"]);
    assert!(session.id.len() == 10 && session.id.bytes().all(|byte| byte.is_ascii_digit()), "{}", session.id);
    let cookie = answer.header("set-cookie");
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, format!("Path=/icws/{}; HttpOnly", session.id), "plain HTTP: not Secure");
    let guid = pair.strip_prefix(&format!("icws_{}=", session.id)).unwrap();
    assert_eq!(guid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{guid}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let members: HashSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    let always = ["csrfToken", "sessionId", "alternateHostList", "userID", "userDisplayName", "icServer"];
    assert_eq!(members, HashSet::from(always), "{body}");
    assert_eq!(body["userID"], seat.user.as_str());
}

fn sign_in_media_types() {
    let seat = world().seat();
    for kind in ["application/vnd.inin.icws+JSON;charset=utf-8", "application/vnd.inin.icws+json", "application/json"] {
        let request = sign_in_request(&credentials(&seat.user, PASSWORD)).header("Content-Type", kind);
        world().ask(&request.header("Accept", "application/vnd.inin.icws+JSON")).done(201).labelled();
    }
    let request = sign_in_request(&credentials(&seat.user, PASSWORD)).header("Content-Type", "text/plain");
    world().ask(&request).refused(415, "", "");
}

fn language() {
    let request = sign_in_request(&credentials("u0", PASSWORD)).without("Accept-Language");
    world().ask(&request).refused(400, "missingRequiredParameter", "Accept-Language");
    world().ask(&request.clone().header("Accept-Language", "")).refused(
        400,
        "missingRequiredParameter",
        "Accept-Language",
    );
    // Before the body.
    world().ask(&request.body("nonsense")).refused(400, "missingRequiredParameter", "Accept-Language");
}

fn wrong_password() {
    let seat = world().seat();
    let long = "x".repeat(1024);
    for password in ["wrong", "Correct-horse", "correct-horse ", "correct-horse\u{0}", &long] {
        let answer = world().ask(&sign_in_request(&credentials(&seat.user, password)));
        answer.refused(400, "authenticationFailure", "");
        assert_eq!((answer.header("set-cookie"), answer.header("www-authenticate")), ("", ""));
    }
    drop(seat.sign_in());
}

fn unknown_user() {
    let known = world().ask(&sign_in_request(&credentials(&world().seat().user, "wrong")));
    for user in ["not-there", "U0", " u0", "u0 ", "u0'--", "\u{1}101", "../u0"] {
        let answer = world().ask(&sign_in_request(&credentials(user, PASSWORD)));
        answer.refused(400, "authenticationFailure", "");
        assert_eq!(answer.body, known.body, "whether the name or the password is wrong is not told");
    }
}

fn no_role() {
    world().ask(&sign_in_request(&credentials("nobody", PASSWORD))).refused(400, "authenticationFailure", "");
}

fn too_many_attempts() {
    let (seat, source) = (world().seat(), own_address());
    let attempt = |password: &str| sign_in_request(&credentials(&seat.user, password)).ask(source, world().api);
    for _ in 0..5 {
        attempt("wrong").refused(400, "authenticationFailure", "");
    }
    // Now not even with the right one, from there.
    let answer = attempt(PASSWORD);
    answer.refused(503, "unavailable", "");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
    drop(seat.sign_in());
}

fn unlike() {
    let seat = world().seat();
    let sessions: Vec<Session> = (0..20).map(|_| seat.sign_in()).collect();
    let texts = sessions.iter().flat_map(|session| {
        [session.id.clone(), session.csrf.clone(), session.cookie.split_once('=').unwrap().1.to_owned()]
    });
    assert_eq!(texts.collect::<HashSet<_>>().len(), 60);
}

fn sixty_four() {
    let seat = world().seat();
    let mut sessions: Vec<Session> = (0..64).map(|_| seat.sign_in()).collect();
    let refused = world().ask(&sign_in_request(&credentials(&seat.user, PASSWORD)));
    refused.refused(503, "notAcceptingConnections", "");
    // Others are not touched, and one that goes makes room.
    drop(world().seat().sign_in());
    drop(sessions.pop());
    drop(seat.sign_in());
}

fn draining() {
    let world = Arc::new(World::start(2, 0, ""));
    let session = world.seat_number(0).sign_in();
    world.server.ok("server.drain", json!({}));
    world.ask(&sign_in_request(&credentials("u1", PASSWORD))).refused(503, "notAcceptingConnections", "");
    // Sessions there are go on.
    session.call("POST", "messaging/heartbeat", "").done(204);
    drop(session);
    Arc::into_inner(world).unwrap().server.stop();
}

fn included(include: &str, members: &[&str]) {
    let seat = world().seat();
    let mut request = sign_in_request(&credentials(&seat.user, PASSWORD));
    request.path = format!("/icws/connection?include={include}&other=1");
    let answer = world().ask(&request);
    let body = answer.done(201).labelled().json();
    for member in ["version", "features", "serverTimeInfo", "defaultWorkstationId", "effectiveStation"] {
        assert_eq!(body.get(member).is_some(), members.contains(&member), "{member} in {body}");
        let told = &body[member];
        match member {
            _ if told.is_null() => {}
            "version" => assert!(told["majorVersion"].is_u64() && told["productId"].is_string(), "{told}"),
            "features" => {
                assert_eq!(told, &json!(FEATURES.map(|(id, version)| json!({"featureId": id, "version": version}))))
            }
            "serverTimeInfo" => is_time(&told["serverUtcTime"]),
            "defaultWorkstationId" => assert_eq!(told, seat.station.as_str()),
            _ => assert_eq!(told, &json!({"stationId": seat.station})),
        }
    }
}

const FEATURES: [(&str, u64); 3] = [("connection", 3), ("messaging", 2), ("unified-messaging", 2)];

/// `YYYY-MM-DDThh:mm:ss.fffZ`.
#[track_caller]
pub(crate) fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99T99:99:99.999Z");
}

fn state() {
    let session = world().seat().sign_in();
    assert_eq!(session.call("GET", "connection", "").done(200).labelled().json(), json!({"connectionState": 1}));
}

fn end() {
    let seat = world().seat();
    let (session, other) = (seat.sign_in(), seat.sign_in());
    let ended = session.call("DELETE", "connection", "");
    assert_eq!((ended.status, ended.body.len(), ended.header("content-type")), (200, 0, ""));
    for (method, call) in [("DELETE", "connection"), ("GET", "connection"), ("GET", "messaging/messages")] {
        session.call(method, call, "").no_session();
    }
    other.call("GET", "connection", "").done(200);
}

fn end_stops() {
    let seat = world().seat();
    let (endpoint, id) = (Endpoint::open(), seat.voicemail());
    let leg = seat.connect(&endpoint);
    let (session, other) = (seat.sign_in(), seat.sign_in());
    other.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    session.call("DELETE", "connection", "").done(200);
    assert_eq!(other.statuses(&id, 2), [0, 1]);
    let running = seat.world.server.ok("operation.list", json!({"connection_id": leg.id}));
    assert_eq!(running["operations"], json!([]));
    seat.world.server.ok("connection.delete", json!({"connection_id": leg.id}));
}

fn end_of_right() {
    let world = Arc::new(World::start(2, 0, ""));
    let (stays, goes) = (world.seat_number(0).sign_in(), world.seat_number(1).sign_in());
    let binary = env!("CARGO_BIN_EXE_ringbridge-under-test");
    let directory = world.server.directory();
    let removed =
        std::process::Command::new(binary).args(["user", "remove", "u1", "--state-dir"]).arg(directory).output();
    let removed = removed.unwrap();
    assert!(removed.status.success(), "{removed:?}");
    ringbridge_tests::until("its end", || (goes.call("GET", "connection", "").status == 401).then_some(()));
    stays.call("GET", "connection", "").done(200);
    drop((stays, goes));
    Arc::into_inner(world).unwrap().server.stop();
}

fn heartbeat() {
    let session = world().seat().sign_in();
    for body in ["", "nonsense"] {
        let answer = session.call("POST", "messaging/heartbeat", body);
        assert_eq!(answer.done(204).body.len(), 0);
    }
}

fn station_of_the_user() {
    let seat = world().seat();
    let told = seat.sign_in().call("GET", "connection/station", "").done(200).labelled().json();
    assert_eq!(told, json!({"__type": "urn:inin.com:connection:workstationSettings", "workstation": seat.station}));
}

fn station_removed() {
    let session = world().seat().sign_in();
    for _ in 0..2 {
        session.call("DELETE", "connection/station", "").done(204);
        let told = session.call("GET", "connection/station", "").json();
        assert_eq!(told, json!({"__type": "urn:inin.com:connection:stationlessSettings"}));
    }
}

fn station_taken() {
    let (anna, berta) = (world().seat(), world().seat());
    let (session, other) = (anna.sign_in(), berta.sign_in());
    let desk =
        json!({"__type": "urn:inin.com:connection:workstationSettings", "workstation": anna.station}).to_string();
    let taken = other.call("PUT", "connection/station", desk.clone());
    taken.refused(403, "", "");
    assert_eq!(other.call("GET", "connection/station", "").json()["workstation"], berta.station.as_str());
    // By its number neither; by another session of the same user, yes.
    let number = json!({"__type": "urn:inin.com:connection:remoteNumberSettings", "remoteNumber": anna.number()});
    other.call("PUT", "connection/station", number.to_string()).refused(403, "", "");
    anna.sign_in().call("PUT", "connection/station", desk.clone()).done(200);
    // Free again when its user has gone.
    drop(session);
    other.call("PUT", "connection/station", desk).done(200);
}

fn station_settings() {
    let seat = world().seat();
    let session = seat.sign_in();
    let known = json!({"__type": "urn:inin.com:connection:workstationSettings", "workstation": seat.station,
                       "supportedMediaTypes": [1], "readyForInteractions": false, "stationConnectionMode": 2});
    let mut body = known.clone();
    body["somethingElse"] = json!("x".repeat(100_000));
    session.call("PUT", "connection/station", body.to_string()).done(200);
    assert_eq!(session.call("GET", "connection/station", "").json(), known);
}

fn station(body: &str, id: &str, property: &str) {
    let seat = world().seat();
    let session = seat.sign_in();
    let before = session.call("GET", "connection/station", "").json();
    let body = body.replace("\"T:", "\"urn:inin.com:connection:").replace("\"S\"", &format!("\"{}\"", seat.station));
    let body = body.replace("\"N\"", &format!("\"{}\"", seat.number()));
    let body = body.replace("\"E\"", &format!("\"{}\"", seat.extension()));
    let answer = session.call("PUT", "connection/station", body.clone());
    let told = session.call("GET", "connection/station", "").json();
    if id.is_empty() {
        assert_eq!(answer.done(200).body.len(), 0);
        let mut given: Value = serde_json::from_str(&body).unwrap();
        given.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        assert_eq!(told, given);
    } else {
        answer.refused(400, id, property);
        assert_eq!(told, before, "nothing has changed");
    }
}

fn version() {
    let told = world().get("/icws/connection/version").done(200).labelled().json();
    for member in ["majorVersion", "minorVersion", "su", "build"] {
        assert!(told[member].is_u64(), "{told}");
    }
    assert!(told["productId"].is_string() && told["codebaseId"].is_string(), "{told}");
}

fn features() {
    let told = world().get("/icws/connection/features").done(200).labelled().json();
    let wanted = FEATURES.map(|(id, version)| json!({"featureId": id, "version": version}));
    assert_eq!(told, json!({"featureInfoList": wanted}));
}

fn feature() {
    for (id, version) in FEATURES {
        let told = world().get(&format!("/icws/connection/features/{id}")).done(200).labelled().json();
        assert_eq!(told, json!({"featureId": id, "version": version}));
    }
    for id in ["nothing", "Messaging", "%3Cscript%3E", "%00", "..", "%22%2C%22a%22%3A%22"] {
        world().get(&format!("/icws/connection/features/{id}")).refused(400, "invalidProperty", "featureId");
    }
}

fn server_time() {
    let told = world().get("/icws/connection/server-time").done(200).labelled().json();
    is_time(&told["serverUtcTime"]);
}

fn sessionless_methods() {
    for (path, allow) in [
        ("/icws/connection", "POST"),
        ("/icws/connection/version", "GET"),
        ("/icws/connection/features", "GET"),
        ("/icws/connection/features/messaging", "GET"),
        ("/icws/connection/server-time", "GET"),
        ("/icws/openapi.json", "GET"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if method != allow {
                let answer = world().ask(&Request::new(method, path));
                answer.refused(405, "", "");
                assert_eq!(answer.header("allow"), allow);
            }
        }
    }
}

fn description() {
    let answer = world().get("/icws/openapi.json");
    let committed: Value = serde_json::from_str(include_str!("../../../docs/icws-openapi.json")).unwrap();
    assert_eq!(answer.done(200).json(), committed);
}

fn no_such_path() {
    for path in
        ["/", "/icws", "/icws/", "/icws/nothing", "/icws/connection/", "/Icws/connection", "/icws/connection/x", "/x"]
    {
        for method in ["GET", "POST"] {
            world().ask(&Request::new(method, path)).refused(404, "", "");
        }
    }
}
