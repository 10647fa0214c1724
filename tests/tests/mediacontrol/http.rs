//! A slice over HTTP: the real binary, real shards, real RTP on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringbridge_tests::audio::{Codec, share, tone, write_wav};
use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::http::{self, Sink};
use ringbridge_tests::server::{Server, Setup};
use ringbridge_tests::until;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::telephone_event::{TELEPHONE_EVENT_BYTES, TelephoneEvent, event_of_digit};
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};
use serde_json::{Value, json};

use crate::rig::{rx, text};

/// A row.
pub(crate) type Case = (&'static str, fn());

pub(crate) const ROWS: &[Case] = &[
    ("http::reserve_create_play_stop", reserve_create_play_stop),
    ("http::digits_by_telephone_event", digits),
    ("http::conference_play_stopped_by_its_utility_id", conference_play),
    ("http::delete_during_play_autostop", delete_during_play),
    ("http::record_and_file", record),
    ("http::port_0_is_27", port_0),
    ("http::forms_of_requests", forms),
    ("http::a_remote_client_needs_the_token", token),
    ("http::long_poll", long_poll),
    ("http::server_sent_events", sse),
    ("http::webhook", webhook),
    ("http::ids_from_before_a_restart", restart),
    ("http::got_media_digits_for_who_subscribes", got_media_digits),
    ("http::a_script_that_ends_takes_its_connections_along", script_end),
    ("http::a_script_that_is_lost_takes_its_connections_along", script_lost),
];

/// A server with the API, and one script.
pub(crate) struct Script {
    pub(crate) server: Server,
    pub(crate) api: SocketAddr,
    pub(crate) guid: String,
    after: u64,
}

/// An answer to an action.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u32,
    pub(crate) branch: String,
    pub(crate) results: Value,
}

impl Script {
    pub(crate) fn start(pairs: u16, config: &str) -> Self {
        let api = http::free_port();
        let setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test")).pairs(pairs);
        Self::of(setup.arg("--mediacontrol").arg(api.to_string()).config(config).start(), api)
    }

    pub(crate) fn of(server: Server, api: SocketAddr) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let guid = format!("script-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let script = Self { server, api, guid, after: 0 };
        script.poll(0);
        script
    }

    pub(crate) fn call(&self, action: &str, params: Value) -> Answer {
        let body = json!({"routingGuid": self.guid, "params": params});
        let answer = http::post(self.api, &format!("/MediaControl/{action}"), &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = answer.json();
        Answer {
            code: text(&value["results"]["ResultCode"]).parse().unwrap_or(u32::MAX),
            branch: text(&value["branch"]),
            results: value["results"].clone(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(&self, action: &str, params: Value) -> Value {
        let answer = self.call(action, params.clone());
        assert!(answer.code <= 1 && answer.branch == "Success", "{action} {params}: {answer:?}\n{}", self.server.log());
        answer.results
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> (Endpoint, String, SocketAddr) {
        let endpoint = Endpoint::open();
        let address = endpoint.address();
        let to = json!({"MediaTxIP": address.ip().to_string(), "MediaTxPort": address.port()});
        let results = self.ok("CreateConnection", to);
        (endpoint, text(&results["ConnectionId"]), rx(&results))
    }

    fn poll(&self, wait_ms: u64) -> Value {
        let path = format!("/MediaControl/events?routingGuid={}&after={}&wait={wait_ms}", self.guid, self.after);
        let answer = http::get(self.api, &path);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The next events, once there are any.
    #[track_caller]
    pub(crate) fn events(&mut self) -> Vec<Value> {
        until("an event", || {
            let batch = self.poll(5_000);
            assert_eq!(batch["missed"], 0, "{batch}");
            self.after = batch["next"].as_u64().expect("a number");
            let events = batch["events"].as_array().expect("a list").clone();
            (!events.is_empty()).then_some(events)
        })
    }

    /// Everything that is there now.
    pub(crate) fn events_now(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let batch = self.poll(0);
            self.after = batch["next"].as_u64().expect("a number");
            let events = batch["events"].as_array().expect("a list");
            if events.is_empty() {
                return all;
            }
            all.extend(events.iter().cloned());
        }
    }

    /// The end of an operation, the only event that is expected.
    #[track_caller]
    fn end(&mut self, operation: &str) -> Value {
        let events = self.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(text(&events[0]["params"]["OperationId"]), operation, "{events:?}");
        events[0].clone()
    }

    pub(crate) fn tone(&self, name: &str, hz: u32, ms: usize) {
        let samples: Vec<i16> = (0..8 * ms).map(|index| tone(hz, 8000, index)).collect();
        write_wav(&self.server.prompt(name), &samples);
    }

    pub(crate) fn stop(self) {
        self.server.stop();
    }
}

/// The endpoint hears a tone.
#[track_caller]
fn hears(endpoint: &Endpoint, hz: u32) {
    endpoint.until("the tone", |_| {
        let samples = endpoint.stream(Codec::Pcmu)?.samples;
        let last = samples.len().checked_sub(1600)?;
        (share(&samples[last..], hz) > 0.5).then_some(())
    });
}

fn reserve_create_play_stop() {
    let mut script = Script::start(8, "");
    script.tone("long.wav", 1000, 60_000);
    let reserved = script.ok("ReserveConnection", json!({}));
    let endpoint = Endpoint::open();
    let address = endpoint.address();
    let created = script.ok(
        "CreateConnection",
        json!({"ConnectionId": reserved["ConnectionId"], "MediaTxIP": address.ip().to_string(), "MediaTxPort": address.port()}),
    );
    assert_eq!(created["MediaRxPort"], reserved["MediaRxPort"]);
    let play =
        script.ok("Play", json!({"ConnectionId": reserved["ConnectionId"], "Prompt1": "long.wav", "State": "x"}));
    assert_eq!(text(&play["ResultCode"]), "1");
    hears(&endpoint, 1000);
    let stop = json!({"ConnectionId": reserved["ConnectionId"], "OperationId": play["OperationId"], "Block": true});
    assert_eq!(script.call("StopMediaOperation", stop).code, 0);
    // Block: the event was there before the response.
    let events = script.events_now();
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    assert_eq!(event["event"], "Metreos.MediaControl.Play_Complete");
    assert_eq!(event["params"]["TerminationCondition"], "userstop");
    assert_eq!((text(&event["params"]["ResultCode"]), text(&event["params"]["State"])), ("0".into(), "x".into()));
    assert_eq!(script.call("DeleteConnection", json!({"ConnectionId": reserved["ConnectionId"]})).code, 0);
    assert_eq!(script.server.pairs_free(), 8);
    script.stop();
}

/// Presses digits as telephone-events, 60 ms each.
pub(crate) fn press(endpoint: &Endpoint, target: SocketAddr, digits: &str) {
    let mut sequence = 1u16;
    let mut timestamp = 1000u32;
    for digit in digits.bytes() {
        let event = event_of_digit(digit).expect("a digit");
        for packet in 0..6u16 {
            let (end, duration) = (packet >= 3, 160 * packet.min(3));
            let mut payload = [0; TELEPHONE_EVENT_BYTES];
            TelephoneEvent { event, end, volume: 10, duration }.emit(&mut payload);
            let mut head = [0; RTP_HEADER_BYTES];
            let header = RtpHeader {
                marker: packet == 0,
                payload_type: 101,
                sequence_number: SeqNumber(sequence),
                timestamp: RtpTimestamp(timestamp),
                ssrc: Ssrc(77),
            };
            header.emit(&mut head);
            endpoint.send(target, &[&head[..], &payload].concat());
            sequence += 1;
            if !end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        timestamp += 1600;
    }
}

fn digits() {
    let mut script = Script::start(8, "");
    let (endpoint, id, rx) = script.connect();
    let gather = script.ok("GatherDigits", json!({"ConnectionId": id, "TermCondDigit": "#"}));
    press(&endpoint, rx, "42#");
    let event = script.end(&text(&gather["OperationId"]));
    assert_eq!(event["event"], "Metreos.MediaControl.GatherDigits_Complete");
    assert_eq!(
        (&event["params"]["Digits"], &event["params"]["TerminationCondition"]),
        (&json!("42#"), &json!("digit"))
    );
    script.stop();
}

fn conference_play() {
    let mut script = Script::start(8, "");
    script.tone("long.wav", 1000, 60_000);
    let (one, first, _) = script.connect();
    let (other, second, _) = script.connect();
    let created = script.ok("CreateConference", json!({"ConnectionId": first}));
    script.ok("JoinConference", json!({"ConnectionId": second, "ConferenceId": created["ConferenceId"]}));
    let play = script.ok("Play", json!({"ConferenceId": created["ConferenceId"], "Prompt1": "long.wav"}));
    for endpoint in [&one, &other] {
        hears(endpoint, 1000);
    }
    let utility = text(&play["ConnectionId"]);
    assert!(utility != first && utility != second);
    assert_eq!(script.call("StopMediaOperation", json!({"ConnectionId": utility})).code, 0);
    let event = script.end(&text(&play["OperationId"]));
    assert_eq!(event["params"]["TerminationCondition"], "userstop");
    assert_eq!(script.call("StopMediaOperation", json!({"ConnectionId": utility})).code, 23);
    script.stop();
}

fn delete_during_play() {
    let mut script = Script::start(8, "");
    script.tone("long.wav", 1000, 60_000);
    let (endpoint, id, _) = script.connect();
    let play = script.ok("Play", json!({"ConnectionId": id, "Prompt1": "long.wav"}));
    hears(&endpoint, 1000);
    assert_eq!(script.call("DeleteConnection", json!({"ConnectionId": id})).code, 0);
    let events = script.events_now();
    assert_eq!(events.len(), 1, "told before the response: {events:?}");
    assert_eq!(events[0]["params"]["TerminationCondition"], "autostop");
    assert_eq!(text(&events[0]["params"]["OperationId"]), text(&play["OperationId"]));
    assert_eq!(script.call("DeleteConnection", json!({"ConnectionId": id})).code, 23);
    script.stop();
}

fn record() {
    let mut script = Script::start(8, "");
    let (endpoint, id, rx) = script.connect();
    let speaker = endpoint.speak(rx, Speech::new(9), |index| tone(700, 8000, index));
    let params = json!({
        "ConnectionId": id, "Filename": "r.wav", "AudioFileEncoding": "pcm", "AudioFileSampleSize": 16, "TermCondMaxTime": 1500,
    });
    let started = script.ok("Record", params);
    assert_eq!(text(&started["Filename"]), "r.wav");
    let event = script.end(&text(&started["OperationId"]));
    assert_eq!(
        (&event["params"]["Filename"], &event["params"]["TerminationCondition"]),
        (&json!("r.wav"), &json!("maxtime"))
    );
    let mut file = hound::WavReader::open(script.server.recording("r.wav")).expect("a file");
    let samples: Vec<i16> = file.samples().map(Result::unwrap).collect();
    assert!(samples.len().abs_diff(12_000) <= 320, "{}", samples.len());
    assert!(share(&samples[4000..], 700) > 0.8);
    speaker.stop();
    script.stop();
}

fn port_0() {
    let script = Script::start(8, "");
    let answer = script.call("CreateConnection", json!({"MediaTxIP": "127.0.0.1", "MediaTxPort": 0}));
    assert_eq!((answer.code, answer.branch.as_str()), (27, "Failure"));
    script.stop();
}

fn forms() {
    let script = Script::start(8, "");
    let act = |path: &str, body: &Value| http::post(script.api, path, body);
    let to = json!({"MediaTxIP": "127.0.0.1", "MediaTxPort": "4000"});
    // The action in the address or in the body, with the namespace or without.
    for (path, action) in [
        ("/MediaControl", "Metreos.MediaControl.CreateConnection"),
        ("/MediaControl", "CreateConnection"),
        ("/MediaControl/Metreos.MediaControl.CreateConnection", "CreateConnection"),
    ] {
        let answer = act(path, &json!({"action": action, "params": to}));
        assert_eq!(
            (answer.status, text(&answer.json()["results"]["ResultCode"])),
            (200, "0".into()),
            "{path} {action}"
        );
    }
    for (path, body, code) in [
        ("/MediaControl", json!({"params": {}}), "35"),
        ("/MediaControl/Play", json!({"action": "Record", "params": {}}), "35"),
        ("/MediaControl/Play", json!([1]), "35"),
        ("/MediaControl/Play", json!({"params": [1]}), "35"),
        ("/MediaControl/Fly", json!({}), "21"),
    ] {
        let answer = act(path, &body);
        assert_eq!(
            (answer.status, text(&answer.json()["results"]["ResultCode"])),
            (200, code.to_owned()),
            "{path} {body}"
        );
    }
    let broken = http::request(script.api, "POST", "/MediaControl/Play", &[], b"{\"params\": ");
    assert_eq!(text(&broken.json()["results"]["ResultCode"]), "35");
    assert_eq!(http::get(script.api, "/MediaControl/Play").status, 405);
    assert_eq!(http::get(script.api, "/elsewhere").status, 404);
    script.stop();
}

fn token() {
    // Any address of loopback counts as this machine; another one of this machine does not.
    let Some(address) = own_address() else {
        println!("this machine has no other address than loopback");
        return;
    };
    let port = http::free_port().port();
    let api = SocketAddr::new(address, port);
    let setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"));
    let server = setup.config(&format!("[mediacontrol]\nlisten = \"{api}\"\ntoken = \"open sesame\"")).start();
    let act = |headers: &[(&str, &str)]| {
        let body = json!({"params": {"MediaTxIP": "127.0.0.1", "MediaTxPort": 4000}}).to_string();
        http::request(api, "POST", "/MediaControl/CreateConnection", headers, body.as_bytes()).status
    };
    assert_eq!(act(&[]), 401);
    assert_eq!(act(&[("authorization", "Bearer open")]), 401);
    assert_eq!(act(&[("authorization", "Basic open sesame")]), 401);
    assert_eq!(act(&[("authorization", "Bearer open sesame")]), 200);
    assert_eq!(http::get(api, "/MediaControl/events?routingGuid=x").status, 401);
    server.stop();
}

/// An address of this machine that is not loopback: the one it would send from. Nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn long_poll() {
    let script = Script::start(8, "");
    let (_, id, _) = script.connect();
    let (api, guid) = (script.api, script.guid.clone());
    let events =
        move |after: u64| http::get(api, &format!("/MediaControl/events?routingGuid={guid}&after={after}&wait=30000"));
    let waiting = std::thread::spawn({
        let events = events.clone();
        move || events(0).json()
    });
    script.ok("PlayTone", json!({"ConnectionId": id, "Duration": 200}));
    let batch = waiting.join().expect("an answer");
    assert_eq!(batch["events"][0]["event"], "Metreos.MediaControl.PlayTone_Complete");
    let first = batch["next"].as_u64().expect("a number");
    // Who asks again from before gets it again, with its number; who goes on does not.
    assert_eq!(events(0).json()["events"], batch["events"]);
    script.ok("PlayTone", json!({"ConnectionId": id, "Duration": 100}));
    let next = events(first).json();
    assert_eq!(next["events"][0]["sequence"].as_u64(), Some(first + 1));
    script.stop();
}

fn sse() {
    let script = Script::start(8, "");
    let (_, id, _) = script.connect();
    let mut stream = http::event_stream(script.api, &format!("/MediaControl/events?routingGuid={}", script.guid));
    for number in 0..3 {
        let tone = script.ok("PlayTone", json!({"ConnectionId": id, "Duration": 60, "State": number}));
        let (sequence, event) = stream.next_event();
        assert_eq!(event["sequence"].as_u64(), Some(sequence));
        assert_eq!(text(&event["params"]["OperationId"]), text(&tone["OperationId"]));
        assert_eq!(text(&event["params"]["State"]), number.to_string());
    }
    script.stop();
}

fn webhook() {
    let sink = Sink::open();
    let prefix = format!("http://{}/", sink.address());
    let api = http::free_port();
    let setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"));
    let server = setup.config(&format!("[mediacontrol]\nlisten = \"{api}\"\nwebhooks = [\"{prefix}\"]")).start();
    let script = Script::of(server, api);
    let (_, id, _) = script.connect();
    let foreign = json!({"routingGuid": script.guid, "url": "http://127.0.0.1:1/elsewhere"});
    assert_eq!(http::post(api, "/MediaControl/subscriptions", &foreign).status, 403);
    let subscribe = json!({"routingGuid": script.guid, "url": format!("{prefix}events")});
    assert_eq!(http::post(api, "/MediaControl/subscriptions", &subscribe).status, 200);
    script.ok("PlayTone", json!({"ConnectionId": id, "Duration": 60}));
    // Refused once, so it comes again.
    let first = sink.take(503);
    let again = sink.take(200);
    for batch in [&first, &again] {
        assert_eq!(batch["events"][0]["event"], "Metreos.MediaControl.PlayTone_Complete", "{batch}");
    }
    assert_eq!(first["events"][0]["sequence"], again["events"][0]["sequence"]);
    script.stop();
}

fn restart() {
    let mut script = Script::start(8, "");
    let (_, id, _) = script.connect();
    let conference = text(&script.ok("CreateConference", json!({"ConnectionId": id}))["ConferenceId"]);
    let operation = text(&script.ok("GatherDigits", json!({"ConnectionId": id}))["OperationId"]);
    script.server.restart();
    let (_, new, _) = script.connect();
    assert_ne!(new, id, "ids are not met again soon");
    assert_eq!(script.call("GatherDigits", json!({"ConnectionId": id})).code, 23);
    assert_eq!(script.call("DeleteConnection", json!({"ConferenceId": conference})).code, 24);
    assert_eq!(script.call("StopMediaOperation", json!({"ConnectionId": new, "OperationId": operation})).code, 25);
    script.stop();
}

fn got_media_digits() {
    let script = Script::start(8, "");
    let (endpoint, id, rx) = script.connect();
    let path = format!("/MediaControl/events?routingGuid={}&digits=true", script.guid);
    let mut stream = http::event_stream(script.api, &path);
    press(&endpoint, rx, "4#");
    for digit in ["4", "#"] {
        let (_, event) = stream.next_event();
        assert_eq!(event["event"], "Metreos.MediaControl.GotMediaDigits");
        assert_eq!((&event["params"]["Digits"], text(&event["params"]["ConnectionId"])), (&json!(digit), id.clone()));
    }
    script.stop();
}

fn script_end() {
    let script = Script::start(8, "");
    let (_, id, _) = script.connect();
    script.ok("GatherDigits", json!({"ConnectionId": id}));
    let ended = http::post(script.api, &format!("/MediaControl/scripts/{}/end", script.guid), &json!({}));
    assert_eq!(ended.json()["deleted"], json!([id]));
    assert_eq!(script.call("GatherDigits", json!({"ConnectionId": id})).code, 23);
    crate::load::nothing_in_use(&script, 8);
    script.stop();
}

fn script_lost() {
    let api = http::free_port();
    let setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"));
    let server = setup.config(&format!("[mediacontrol]\nlisten = \"{api}\"\nsandbox_grace_ms = 200")).start();
    let script = Script { server, api, guid: "lost".to_owned(), after: 0 };
    let stream = http::event_stream(api, "/MediaControl/events?routingGuid=lost");
    script.connect();
    drop(stream);
    until("its connection is deleted", || {
        let list = script.server.ok("connection.list", json!({}));
        (list["connections"] == json!([])).then_some(())
    });
    crate::load::nothing_in_use(&script, 8);
    script.stop();
}
