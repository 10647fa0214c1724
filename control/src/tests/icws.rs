//! The ICWS API over its listener, on pretended shards: every call in every way it can fail, and what clients are told.

mod faults;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::rig::{Client, Rig, eventually, free_tcp_port};
use crate::auth::{Password, Passwords};
use crate::config::{Config, StationConfig};
use crate::icws::{BODY_BYTES_MAX, openapi};

const PATIENCE: Duration = Duration::from_secs(30);
const VOICEMAIL: &str = "messaging/subscriptions/unified-messaging/voicemail-messages";
const FAX: &str = "messaging/subscriptions/unified-messaging/fax-messages";
const WAITING: &str = "messaging/subscriptions/unified-messaging/messages-waiting-indicator";
const MESSAGES: &str = "messaging/messages";

static HASH: LazyLock<String> =
    LazyLock::new(|| Passwords::hash_here(&Password::new("right one")).expect("hashed").as_str().to_owned());

/// A server with the API, users anna and berta, and others who may not use it.
struct Api {
    rig: Rig,
    address: SocketAddr,
}

/// Somebody who signed in.
struct Session {
    address: SocketAddr,
    id: String,
    cookie: String,
    csrf: String,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Has to be a failure with that error id and property.
    #[track_caller]
    fn refused(&self, status: u16, id: &str, property: Option<&str>) {
        let body = self.json();
        let told = body["errorId"].as_str().unwrap_or_default();
        assert_eq!((self.status, told.rsplit('.').next(), body["propertyName"].as_str()), (status, Some(id), property));
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        let shape = match id {
            "missingRequiredParameter" => "missingPropertyError",
            "invalidProperty" => "invalidPropertyError",
            _ => "error",
        };
        assert_eq!(body["__type"], format!("urn:inin.com:common:{shape}"));
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.to_lowercase().starts_with("application/vnd.inin.icws+json"), "{kind}");
    }
}

fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // One that says that it is too long is refused at once.
    let body = if body.len() > BODY_BYTES_MAX { "" } else { body };
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("sent");
    stream
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut answer = Vec::new();
    let read = send(address, method, path, headers, body).read_to_end(&mut answer);
    assert!(read.is_ok() || !answer.is_empty(), "{method} {path}: {read:?}");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Api {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let address = free_tcp_port();
        let text = format!(
            r#"
            [[users]]
            name = "anna"
            password_hash = "{hash}"
            extension = "7001"
            station = "desk"
            roles = ["icws"]
            [[users]]
            name = "berta"
            password_hash = "{hash}"
            roles = ["icws"]
            [[users]]
            name = "carla"
            password_hash = "{hash}"
            roles = ["verba"]
            "#,
            hash = *HASH
        );
        let users = toml::from_str::<Config>(&text).expect("valid").users;
        let rig = Rig::start_with(1, |config| {
            config.users = users;
            config.icws.listen = Some(address);
            change(config);
        });
        Self { rig, address }
    }

    fn sign_in(&self, user: &str) -> Session {
        let answer = self.try_sign_in(&credentials(user, "right one"));
        assert_eq!(answer.status, 201, "{answer:?}");
        let body = answer.json();
        let cookie = answer.header("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned();
        let text = |name: &str| body[name].as_str().expect("a text").to_owned();
        Session { address: self.address, id: text("sessionId"), cookie, csrf: text("csrfToken") }
    }

    fn try_sign_in(&self, body: &Value) -> Answer {
        ask(self.address, "POST", "/icws/connection", &[("Accept-Language", "en")], &body.to_string())
    }

    /// Drops a file into a mailbox and waits until it is a message of `session`, which is subscribed.
    fn leave(&self, user: &str, name: &str, session: &Session) -> String {
        let mailbox = self.rig.dir.path().join("state/voicemail").join(user);
        std::fs::create_dir_all(&mailbox).expect("made");
        if name.ends_with(".wav") {
            self.rig.prompt("new.wav");
            std::fs::rename(self.rig.dir.path().join("state/audio/new.wav"), mailbox.join(name)).expect("moved");
        } else {
            std::fs::write(mailbox.join(name), "a fax").expect("written");
        }
        let list = if name.ends_with(".wav") { "voicemailMessagesAdded" } else { "faxMessagesAdded" };
        let added = session.until("a message", |message| message[list][0].is_object());
        added[list][0]["unifiedMessageId"].as_str().expect("an id").to_owned()
    }
}

impl Session {
    fn path(&self, call: &str) -> String {
        format!("/icws/{}/{call}", self.id)
    }

    fn call(&self, method: &str, call: &str, body: &str) -> Answer {
        let headers = [("Cookie", self.cookie.as_str()), ("ININ-ICWS-CSRF-Token", self.csrf.as_str())];
        ask(self.address, method, &self.path(call), &headers, body)
    }

    #[track_caller]
    fn ok(&self, method: &str, call: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.call(method, call, &body);
        assert!((200..300).contains(&answer.status), "{method} {call}: {answer:?}");
        answer
    }

    fn poll(&self) -> Vec<Value> {
        self.ok("GET", MESSAGES, Value::Null).json().as_array().expect("an array").clone()
    }

    /// Polls until such a message comes; the others are dropped.
    #[track_caller]
    fn until(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(what, || {
            found = self.poll().into_iter().find(|message| wanted(message));
            found.is_some()
        });
        found.expect("found")
    }

    /// The play statuses polled now.
    fn statuses(&self) -> Vec<u64> {
        self.poll().iter().filter_map(|message| message["playStatus"].as_u64()).collect()
    }

    fn subscribe(&self, topic: &str) -> Vec<Value> {
        assert_eq!(self.ok("PUT", topic, Value::Null).status, 200);
        self.poll()
    }

    fn play(&self, id: &str, target: Option<&str>) -> Answer {
        let mut body = json!({"state": 1});
        if let Some(target) = target {
            body["playTarget"] = json!({"__type": PLAY_TARGET, "target": target});
        }
        self.call("POST", &format!("unified-messaging/{id}/voicemail-message/play/start"), &body.to_string())
    }

    fn stop(&self, id: &str) -> Answer {
        self.call("POST", &format!("unified-messaging/{id}/voicemail-message/play/stop"), "")
    }
}

const PLAY_TARGET: &str = "urn:inin.com:unifiedMessaging:voicemailPlayTarget";

fn credentials(user: &str, password: &str) -> Value {
    json!({
        "__type": "urn:inin.com:connection:icAuthConnectionRequestSettings",
        "applicationName": "a test", "userID": user, "password": password,
    })
}

/// A connection that is station `desk`.
fn desk(client: &mut Client) -> String {
    client.connection(json!({"label": "station:desk", "remote": "127.0.0.1:4000"}))
}

/// anna at her desk with one message.
fn anna() -> (Api, Client, String, Session, String) {
    let api = Api::start();
    let mut client = api.rig.client();
    let connection = desk(&mut client);
    let session = api.sign_in("anna");
    session.subscribe(VOICEMAIL);
    let id = api.leave("anna", "+4930111222_1.wav", &session);
    (api, client, connection, session, id)
}

#[test]
fn signing_in_and_out() {
    let api = Api::start();
    let language = [("Accept-Language", "en")];
    let right = credentials("anna", "right one");
    let include = "/icws/connection?include=version,features%2Cserver-time,default-workstation,effective-station,x";
    let answer = ask(api.address, "POST", include, &language, &right.to_string());
    assert_eq!(answer.status, 201);
    let body = answer.json();
    assert_eq!(answer.header("inin-icws-csrf-token"), body["csrfToken"].as_str());
    let id = body["sessionId"].as_str().expect("a text");
    assert_eq!(answer.header("inin-icws-session-id"), Some(id));
    assert!(id.len() == 10 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with(&format!("icws_{id}=")), "{cookie}");
    assert!(cookie.ends_with(&format!("; Path=/icws/{id}; HttpOnly")), "{cookie}");
    assert!(answer.header("content-type").expect("a type").starts_with("application/vnd.inin.icws+JSON"));
    assert_eq!(
        (&body["defaultWorkstationId"], &body["effectiveStation"]["stationId"]),
        (&json!("desk"), &json!("desk"))
    );
    assert_eq!((&body["features"][1]["featureId"], &body["features"][1]["version"]), (&json!("messaging"), &json!(2)));
    assert!(body["serverTimeInfo"]["serverUtcTime"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert!(body["version"]["majorVersion"].is_u64());

    ask(api.address, "POST", "/icws/connection", &[], &right.to_string()).refused(
        400,
        "missingRequiredParameter",
        Some("Accept-Language"),
    );
    for body in ["", "nonsense", "[]", "\"text\""] {
        ask(api.address, "POST", "/icws/connection", &language, body).refused(400, "malformed", None);
    }
    for name in ["__type", "applicationName", "userID", "password"] {
        let with = |value: Value| {
            let mut body = right.clone();
            body[name] = value;
            api.try_sign_in(&body)
        };
        with(Value::Null).refused(400, "missingRequiredParameter", Some(name));
        with(json!(5)).refused(400, "invalidProperty", Some(name));
        with(json!("")).refused(400, "invalidProperty", Some(name));
    }
    for kind in ["authTokenConnectionRequestSettings", "singleSignOnTokenConnectionRequestSettings", "x"] {
        let body = json!({"__type": format!("urn:inin.com:connection:{kind}")});
        api.try_sign_in(&body).refused(400, "invalidProperty", Some("__type"));
    }
    for (user, password) in [("anna", "wrong one"), ("nobody", "right one"), ("carla", "right one")] {
        api.try_sign_in(&credentials(user, password)).refused(400, "authenticationFailure", None);
    }
    // In the end this source has tried too often, whatever it knows.
    eventually("too often", || api.try_sign_in(&credentials("anna", "wrong one")).status == 503);
    let waiting = api.try_sign_in(&right);
    waiting.refused(503, "unavailable", None);
    assert!(waiting.header("retry-after").is_some() && waiting.json()["alternateHostList"].is_array());
}

#[test]
fn a_session_ends_when_it_is_signed_out_and_takes_its_playing_along() {
    let (api, mut client, connection, session, id) = anna();
    let other = api.sign_in("anna");
    other.subscribe(VOICEMAIL);
    assert_eq!(session.ok("GET", "connection", Value::Null).json(), json!({"connectionState": 1}));
    assert_eq!(session.ok("POST", "messaging/heartbeat", Value::Null).status, 204);
    assert_eq!(session.play(&id, None).status, 204);
    let ended = session.ok("DELETE", "connection", Value::Null);
    assert_eq!((ended.status, ended.body.as_str()), (200, ""));
    assert_eq!(other.statuses(), [0, 1]);
    let running = client.ok("operation.list", json!({"connection_id": connection}));
    assert_eq!(running["operations"], json!([]));
    let again = session.call("DELETE", "connection", "");
    again.refused(401, "authenticationFailure", None);
    assert_eq!(again.json()["errorCode"], 2);
    client.ok("server.drain", json!({"deadline_ms": 0}));
    let refused = api.try_sign_in(&credentials("anna", "right one"));
    refused.refused(503, "notAcceptingConnections", None);
}

#[test]
fn every_call_of_a_session_wants_its_cookie_and_token() {
    let api = Api::start();
    let (anna, berta) = (api.sign_in("anna"), api.sign_in("berta"));
    let document = openapi::document();
    let mut calls = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let Some(call) = path.strip_prefix("/icws/{sessionId}/") else { continue };
        let call = call.replace("{unifiedMessageId}", "vm-1").replace("{fileName}", "vm-1.wav");
        let path = anna.path(&call);
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            let refused = |headers: &[(&str, &str)], path: &str, code: Value| {
                let answer = ask(api.address, &method, path, headers, "");
                assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
                let challenge = "ICWS realm=\"ICWS\" location=\"/ICWS/connection\"";
                assert_eq!(answer.header("www-authenticate"), Some(challenge));
                assert_eq!(answer.json()["errorCode"], code, "{method} {path} {headers:?}");
            };
            let token = ("ININ-ICWS-CSRF-Token", anna.csrf.as_str());
            refused(&[token], &path, json!(4));
            refused(&[token, ("Cookie", &berta.cookie)], &path, json!(2));
            refused(&[token, ("Cookie", &format!("icws_{}=guessed", anna.id))], &path, json!(2));
            refused(&[token, ("Cookie", &anna.cookie)], &path.replace(&anna.id, "1"), json!(2));
            if call != MESSAGES && !call.starts_with("files/") {
                refused(&[("Cookie", &anna.cookie)], &path, Value::Null);
                let others = ("ININ-ICWS-CSRF-Token", berta.csrf.as_str());
                refused(&[("Cookie", &anna.cookie), others], &path, Value::Null);
            }
            calls += 1;
        }
        // Another method is refused before anything else.
        let answer = ask(api.address, "PATCH", &path, &[], "");
        assert_eq!(answer.status, 405);
        for method in methods.as_object().expect("methods").keys() {
            assert!(answer.header("allow").is_some_and(|allow| allow.contains(&method.to_uppercase())), "{answer:?}");
        }
    }
    assert!(calls > 15, "{calls}");
    let empty = anna.call("POST", "unified-messaging//voicemail-message/play/stop", "");
    assert_eq!(empty.status, 404);
}

#[test]
fn bodies_and_ids_are_checked_one_by_one() {
    let (api, _client, _, session, id) = anna();
    session.subscribe(FAX);
    let fax = api.leave("anna", "+4930111333_fax.pdf", &session);
    let (start, stop) = (
        format!("unified-messaging/{id}/voicemail-message/play/start"),
        format!("unified-messaging/{id}/voicemail-message/play/stop"),
    );
    let mark = format!("unified-messaging/{id}");
    for (method, call) in [("POST", &start), ("PUT", &mark)] {
        session.call(method, call, "{}").refused(400, "missingRequiredParameter", Some("state"));
        for state in ["2", "-1", "true", "\"1\"", "1.5"] {
            let body = format!("{{\"state\": {state}}}");
            session.call(method, call, &body).refused(400, "invalidProperty", Some("state"));
        }
        session.call(method, call, "").refused(400, "malformed", None);
    }
    for (method, call) in [("POST", &start), ("PUT", &mark), ("PUT", &"connection/station".to_owned()), ("POST", &stop)]
    {
        for body in ["nonsense", "[]", "{\"state\": 1"] {
            session.call(method, call, body).refused(400, "malformed", None);
        }
        let headers = [
            ("Cookie", session.cookie.as_str()),
            ("ININ-ICWS-CSRF-Token", &session.csrf),
            ("Content-Type", "text/xml"),
        ];
        assert_eq!(ask(api.address, method, &session.path(call), &headers, "{}").status, 415);
        assert_eq!(session.call(method, call, &" ".repeat(BODY_BYTES_MAX + 1)).status, 413);
    }
    let play = |target: Value| session.call("POST", &start, &json!({"state": 1, "playTarget": target}).to_string());
    for target in [json!("desk"), json!({}), json!({"target": "desk"}), json!({"__type": "x", "target": "desk"})] {
        play(target).refused(400, "invalidProperty", Some("playTarget"));
    }
    play(json!({"__type": PLAY_TARGET})).refused(400, "missingRequiredParameter", Some("target"));
    for target in [json!(""), json!(5), json!("nowhere")] {
        play(json!({"__type": PLAY_TARGET, "target": target})).refused(400, "invalidProperty", Some("target"));
    }
    // Unknown, of somebody else, or not of that type.
    let berta = api.sign_in("berta");
    for (session, id) in
        [(&session, "vm-99"), (&session, "17"), (&session, "vm-01"), (&berta, id.as_str()), (&session, &fax)]
    {
        let property = Some("unifiedMessageId");
        session.play(id, Some("desk")).refused(400, "invalidProperty", property);
        session.stop(id).refused(400, "invalidProperty", property);
        if id != fax {
            let path = format!("unified-messaging/{id}");
            session.call("PUT", &path, "{\"state\": 1}").refused(400, "invalidProperty", property);
            session.call("DELETE", &path, "").refused(400, "invalidProperty", property);
        }
    }
    // Nothing of all that was told.
    assert!(session.statuses().is_empty());
    // What is there is deleted with its file.
    assert_eq!(session.ok("DELETE", &format!("unified-messaging/{fax}"), Value::Null).status, 204);
    assert_eq!(
        session.until("removed", |message| message["faxMessagesRemoved"].is_array())["faxMessagesRemoved"],
        json!([fax])
    );
}

#[test]
fn a_message_is_played_and_stopped() {
    let (api, mut client, connection, session, id) = anna();
    let other = api.sign_in("anna");
    other.subscribe(VOICEMAIL);
    assert_eq!(session.play(&id, None).status, 204);
    assert!(api.rig.world.started().starts_with("play 1"), "{}", api.rig.world.started());
    let told = session.poll();
    assert_eq!(
        told[0],
        json!({"__type": "urn:inin.com:unifiedMessaging:voicemailPlayStatusMessage", "isDelta": true,
               "unifiedMessageId": id, "playStatus": 0})
    );
    assert_eq!((&told[1]["isDelta"], &told[1]["voicemailMessagesChanged"][0]["state"]), (&json!(true), &json!(1)));
    assert_eq!(told.len(), 2);
    // The same again changes nothing.
    assert_eq!(session.play(&id, Some("desk")).status, 204);
    assert_eq!(session.play(&id, Some("7001")).status, 204, "by the extension");
    assert!(session.poll().is_empty());
    // Another session of the same user stops it.
    let stopped = other.stop(&id);
    assert_eq!((stopped.status, stopped.body.as_str()), (204, ""));
    let effect: Value = serde_json::from_str(stopped.header("ringbridge-effect").expect("an effect")).expect("JSON");
    assert_eq!(effect["streams"][0]["connection_id"], connection);
    assert_eq!((session.statuses(), other.statuses()), (vec![1], vec![0, 1]));
    let running = client.ok("operation.list", json!({"connection_id": connection}));
    assert_eq!(running["operations"], json!([]));
    // Once more: still 204, told once more, and nothing it could have stopped.
    let again = session.call("POST", &format!("unified-messaging/{id}/voicemail-message/play/stop"), "{\"a\": 1}");
    assert_eq!((again.status, again.header("ringbridge-effect")), (204, None));
    assert_eq!(session.statuses(), [1]);
    // The station's connection was there before and stays.
    client.ok("connection.get", json!({"connection_id": connection}));
    // From the beginning again, unread.
    let start = format!("unified-messaging/{id}/voicemail-message/play/start");
    assert_eq!(session.call("POST", &start, "{\"state\": 0, \"playTarget\": null}").status, 204);
    session.until("unread", |message| message["voicemailMessagesChanged"][0]["state"] == 0);
    // A message that is deleted stops.
    assert_eq!(session.ok("DELETE", &format!("unified-messaging/{id}"), Value::Null).status, 204);
    let told = session.poll();
    assert_eq!((&told[0]["playStatus"], &told[1]["voicemailMessagesRemoved"]), (&json!(1), &json!([id])));
}

#[test]
fn two_at_once_stop_one_message() {
    let (api, _client, _, session, id) = anna();
    let other = api.sign_in("anna");
    for round in 0..10 {
        assert_eq!(session.play(&id, None).status, 204);
        assert_eq!(session.statuses(), [0], "{round}");
        std::thread::scope(|scope| {
            let stops = [&session, &other].map(|who| scope.spawn(|| who.stop(&id).status));
            for stop in stops {
                assert_eq!(stop.join().expect("answered"), 204);
            }
        });
        assert_eq!(session.statuses(), [1, 1], "one each, {round}");
    }
}

#[test]
fn a_stop_races_with_the_natural_end() {
    let (api, _client, _, session, id) = anna();
    // The end alone is told by itself.
    assert_eq!(session.play(&id, None).status, 204);
    api.rig.world.end_of_data();
    session.until("stopped", |message| message["playStatus"] == 1);
    for round in 0..20 {
        assert_eq!(session.play(&id, None).status, 204);
        assert_eq!(session.statuses(), [0], "{round}");
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| session.stop(&id).status);
            api.rig.world.end_of_data();
            assert_eq!(stop.join().expect("answered"), 204);
        });
        // By the end and by the stop, or by the stop alone.
        let told = session.statuses();
        assert!(told == [1] || told == [1, 1], "{told:?}");
    }
}

#[test]
fn playing_ends_with_the_stations_connection_and_with_its_shard() {
    let (api, mut client, connection, session, id) = anna();
    assert_eq!(session.play(&id, None).status, 204);
    client.ok("connection.delete", json!({"connection_id": connection}));
    assert_eq!(session.statuses(), [0, 1]);
    session.play(&id, Some("desk")).refused(400, "invalidProperty", Some("target"));
    desk(&mut client);
    assert_eq!(session.play(&id, None).status, 204);
    api.rig.world.fail(0);
    session.until("stopped", |message| message["playStatus"] == 1);
    assert_eq!(session.stop(&id).status, 204);
}

#[test]
fn a_station_is_used_by_one_message_at_a_time() {
    let (api, mut client, connection, session, id) = anna();
    let second = api.leave("anna", "2.wav", &session);
    client.connection(json!({"label": "station:kitchen", "remote": "127.0.0.1:4002"}));
    assert_eq!(session.play(&id, None).status, 204);
    session.play(&second, Some("desk")).refused(400, "invalidProperty", Some("target"));
    // Played elsewhere: the first place falls silent, and is told.
    session.poll();
    assert_eq!(session.play(&id, Some("kitchen")).status, 204);
    assert_eq!(session.statuses(), [1, 0]);
    assert_eq!(session.play(&second, Some("desk")).status, 204);
    assert_eq!(session.stop(&second).status, 204);
    // Something else plays there.
    client.ok("operation.start", json!({"kind": "tone", "connection_id": connection, "duration_ms": 60_000}));
    // A file that is gone is a fault of the server.
    let audio = api.rig.dir.path().join("state/audio/voicemail");
    std::fs::remove_dir_all(audio).expect("removed");
    assert_eq!(session.play(&second, None).status, 500);
    assert_eq!(session.stop(&second).status, 204, "it was not left behind");
}

#[test]
fn a_station_that_has_no_address_yet_is_waited_for() {
    let (_api, mut client, connection, session, id) = anna();
    client.ok("connection.delete", json!({"connection_id": connection}));
    let reserve = json!({"label": "station:desk", "reserve_ms": 60_000});
    let reserved = client.connection(reserve.clone());
    // Stopped while it is still being called.
    assert_eq!(session.play(&id, None).status, 204);
    assert_eq!(session.stop(&id).status, 204);
    assert_eq!(session.statuses(), [1]);
    assert_eq!(session.play(&id, None).status, 204);
    assert!(session.statuses().is_empty());
    client.ok("connection.modify", json!({"connection_id": reserved, "remote": "127.0.0.1:4000"}));
    session.until("playing", |message| message["playStatus"] == 0);
    session.stop(&id);
    client.ok("connection.delete", json!({"connection_id": reserved}));
    // It ends before it has answered.
    let reserved = client.connection(reserve);
    session.poll();
    assert_eq!(session.play(&id, None).status, 204);
    client.ok("connection.delete", json!({"connection_id": reserved}));
    session.until("stopped", |message| message["playStatus"] == 1);
}

#[test]
fn a_configured_station_is_called_and_hung_up() {
    let api = Api::start_with(|config| {
        config.icws.stations = vec![StationConfig {
            id: "desk".to_owned(),
            number: Some("+4930555".to_owned()),
            remote: Some(([127, 0, 0, 1], 4000).into()),
            codec: Some("PCMA".to_owned()),
        }];
    });
    let mut client = api.rig.client();
    let session = api.sign_in("anna");
    session.subscribe(VOICEMAIL);
    let id = api.leave("anna", "1.wav", &session);
    let mut connections = || client.ok("connection.list", json!({}))["connections"].as_array().expect("a list").len();
    assert_eq!(session.play(&id, Some("+4930555")).status, 204);
    assert_eq!(connections(), 1);
    assert_eq!(session.stop(&id).status, 204);
    eventually("hung up", || connections() == 0);
    assert_eq!(session.play(&id, None).status, 204);
    api.rig.world.end_of_data();
    eventually("hung up at the end too", || connections() == 0);
}

#[test]
fn stations_are_set_and_removed() {
    let api = Api::start();
    let mut client = api.rig.client();
    desk(&mut client);
    let (anna, berta) = (api.sign_in("anna"), api.sign_in("berta"));
    let kind = |name: &str| format!("urn:inin.com:connection:{name}");
    let put = |who: &Session, body: Value| who.call("PUT", "connection/station", &body.to_string());
    let get = |who: &Session| who.ok("GET", "connection/station", Value::Null).json();
    assert_eq!(get(&berta), json!({"__type": kind("stationlessSettings")}));
    assert_eq!(get(&anna)["workstation"], "desk", "the user's own");
    let desk = json!({"__type": kind("workstationSettings"), "workstation": "desk"});
    let taken = put(&berta, desk.clone());
    assert_eq!((taken.status, taken.header("www-authenticate")), (403, None));
    assert_eq!(anna.ok("DELETE", "connection/station", Value::Null).status, 204);
    assert_eq!(put(&berta, desk.clone()).status, 200);
    assert_eq!(get(&berta), desk);
    let number = json!({"__type": kind("remoteNumberSettings"), "remoteNumber": "7001"});
    assert_eq!(put(&berta, number).status, 200);
    let workstation = put(&berta, json!({"__type": kind("remoteWorkstationSettings")}));
    workstation.refused(400, "missingRequiredParameter", Some("workstation"));
    for (body, name) in [
        (json!({"__type": kind("workstationSettings"), "workstation": "nowhere"}), "workstation"),
        (json!({"__type": kind("workstationSettings"), "workstation": 5}), "workstation"),
        (json!({"__type": kind("remoteNumberSettings"), "remoteNumber": "1"}), "remoteNumber"),
        (json!({"__type": kind("spaceSettings")}), "__type"),
        (json!({"__type": kind("stationlessSettings"), "supportedMediaTypes": ["a"]}), "supportedMediaTypes"),
    ] {
        put(&berta, body).refused(400, "invalidProperty", Some(name));
    }
    put(&berta, json!({})).refused(400, "missingRequiredParameter", Some("__type"));
    assert_eq!(put(&berta, json!({"__type": kind("stationlessSettings")})).status, 200);
    // Without a station there has to be a target.
    berta.subscribe(VOICEMAIL);
    let id = api.leave("berta", "1.wav", &berta);
    berta.play(&id, None).refused(400, "missingRequiredParameter", Some("playTarget"));
    assert_eq!(berta.play(&id, Some("desk")).status, 204);
}

#[test]
fn mailboxes_take_in_files_and_recordings() {
    let (api, mut client, connection, session, id) = anna();
    let waiting = session.subscribe(WAITING);
    assert_eq!(waiting[0]["messagesWaiting"], 1);
    // A new subscription lists what is there.
    let listed = session.subscribe(VOICEMAIL);
    let message = &listed[0]["voicemailMessagesAdded"][0];
    assert_eq!((&listed[0]["isDelta"], &message["unifiedMessageId"]), (&json!(false), &json!(id)));
    assert_eq!((&message["from"], &message["subject"]), (&json!("+4930111222"), &json!("Voicemail (0 s)")));
    assert_eq!((&message["state"], &message["attachments"][0]["mimeType"]), (&json!(0), &json!("audio/wav")));
    assert_eq!(message["attachments"][0]["fileName"], "+4930111222_1.wav");
    // Its file is fetched by the cookie alone.
    let address = message["attachments"][0]["fileUri"].as_str().expect("an address");
    let mut file = Vec::new();
    send(api.address, "GET", address, &[("Cookie", &session.cookie)], "").read_to_end(&mut file).expect("read");
    assert!(file.windows(4).any(|bytes| bytes == b"WAVE"));
    assert_eq!(session.call("GET", "files/vm-1.exe", "").status, 404);
    let mark = format!("unified-messaging/{id}");
    for (state, unread) in [(1, 0), (0, 1)] {
        assert_eq!(session.ok("PUT", &mark, json!({"state": state})).status, 204);
        let told = session.poll();
        assert_eq!(told[0]["voicemailMessagesChanged"][0]["state"], state);
        assert_eq!(told[1]["messagesWaiting"], unread);
    }
    assert_eq!(session.ok("PUT", &mark, json!({"state": 0})).status, 204);
    assert!(session.poll().is_empty(), "nothing changed");
    assert_eq!(
        session.ok("PUT", "unified-messaging/messages-waiting-indicator/count-refresh", Value::Null).status,
        204
    );
    assert_eq!(session.poll()[0]["messagesWaiting"], 1);
    // What can't be played is put aside.
    let mailbox = api.rig.dir.path().join("state/voicemail/anna");
    std::fs::write(mailbox.join("bad.wav"), "no audio").expect("written");
    eventually("put aside", || mailbox.join("bad.wav.refused").exists());
    // A recording becomes a message when it ends.
    let record = json!({"kind": "record", "connection_id": connection, "path": "voicemail/anna/4711_x.wav"});
    client.ok("operation.start", record);
    client.ok("operation.stop", json!({"connection_id": connection}));
    let taken = api.rig.dir.path().join("state/recordings/voicemail/anna");
    // The pretended shard has recorded nothing, which can't be played.
    eventually("put aside too", || taken.join("4711_x.wav.refused").exists());
    assert!(!taken.join("4711_x.wav.json").exists(), "its name is free again");
    assert!(taken.join("4711_x.wav.refused.json").exists());
    for topic in [VOICEMAIL, WAITING] {
        assert_eq!(session.ok("DELETE", topic, Value::Null).status, 204);
        assert_eq!(session.ok("DELETE", topic, Value::Null).status, 204);
    }
    session.poll();
    session.ok("DELETE", &mark, Value::Null);
    assert!(session.poll().is_empty(), "nobody is told");
}

#[test]
fn a_stream_tells_messages_one_by_one_and_ends_the_one_before() {
    let (api, _client, _, session, id) = anna();
    let open = || {
        let headers = [("Cookie", session.cookie.as_str()), ("Accept", "text/event-stream")];
        let mut stream = BufReader::new(send(api.address, "GET", &session.path(MESSAGES), &headers, ""));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        stream
    };
    let next = |stream: &mut BufReader<TcpStream>| loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).expect("a line") > 0, "it has ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).expect("JSON");
        }
    };
    let mut first = open();
    assert_eq!(session.play(&id, None).status, 204);
    assert_eq!(next(&mut first)["playStatus"], 0);
    assert!(next(&mut first)["voicemailMessagesChanged"].is_array());
    assert!(session.poll().is_empty());
    let mut second = open();
    let mut rest = String::new();
    first.read_to_string(&mut rest).expect("it ends");
    assert_eq!(session.stop(&id).status, 204);
    assert_eq!(next(&mut second)["playStatus"], 1);
    // What comes while nobody listens waits for the next one.
    drop(second);
    eventually("missed", || {
        session.stop(&id);
        !session.poll().is_empty()
    });
    let mut third = open();
    session.ok("DELETE", "connection", Value::Null);
    third.read_to_string(&mut rest).expect("it ends with the session");
}

#[test]
fn pages_of_known_origins_may_ask() {
    let api = Api::start_with(|config| config.icws.origins = vec!["https://phone.example.com".to_owned()]);
    let known = [("Origin", "https://phone.example.com")];
    let path = "/icws/connection/server-time";
    let answer = ask(api.address, "GET", path, &known, "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://phone.example.com"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert!(answer.header("access-control-expose-headers").is_some_and(|names| names.contains("ININ-ICWS-CSRF-Token")));
    assert_eq!(ask(api.address, "OPTIONS", "/icws/connection", &known, "").status, 204);
    let other = ask(api.address, "GET", path, &[("Origin", "https://evil.example.com")], "");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (200, None));
    assert_eq!(ask(api.address, "OPTIONS", "/icws/connection", &[], "").status, 405);
}

#[test]
fn some_calls_need_no_session() {
    let api = Api::start();
    let get = |path: &str| ask(api.address, "GET", path, &[], "");
    assert!(get("/icws/connection/version").json()["majorVersion"].is_u64());
    assert_eq!(get("/icws/connection/features").json()["featureInfoList"][2]["featureId"], "unified-messaging");
    assert_eq!(get("/icws/connection/features/unified-messaging").json()["version"], 2);
    get("/icws/connection/features/nothing").refused(400, "invalidProperty", Some("featureId"));
    assert!(get("/icws/connection/server-time").json()["serverUtcTime"].is_string());
    assert_eq!(get("/icws/openapi.json").json(), openapi::document());
    for path in ["/", "/icws", "/icws/nothing", "/Icws/connection"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
}
