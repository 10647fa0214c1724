//! Every kind of operation and every parameter of the commands around them.

use std::path::Path;

use serde_json::{Value, json};

use super::rig::{Client, Rig};

/// Calls that fail, with the code and the parameter named.
#[track_caller]
fn refused(client: &mut Client, method: &str, common: &Value, rows: &[(Value, i64, &str)]) {
    for (given, code, param) in rows {
        let mut params = common.clone();
        let own = given.as_object().expect("an object").clone();
        params.as_object_mut().expect("an object").extend(own);
        let data = client.fails(method, params.clone(), *code);
        assert_eq!(data["param"], *param, "{method} {params}");
    }
}

#[test]
fn tones_take_frequencies_levels_and_a_duration() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let common = json!({"kind": "tone", "connection_id": id});
    client.ok("operation.start", common.clone());
    let none = "StopConditions { max_time_ms: None, digits_max: None, digit: None, digit_list: None, \
                digit_pattern: None, inter_digit_ms: None, silence_ms: None, nonsilence_ms: None, timeout_ms: None }";
    let expected = format!("tone ToneSpec {{ first: (600, -10), second: None }} Some(1000) false {none}");
    assert_eq!(rig.world.started(), expected);
    client.ok(
        "operation.start",
        json!({"kind": "tone", "connection_id": id, "frequency_hz": 350, "level_db": -13, "frequency2_hz": 440,
               "level2_db": -20, "duration_ms": 0, "isolate": true, "max_time_ms": 5000}),
    );
    let started = rig.world.started();
    assert!(
        started.starts_with("tone ToneSpec { first: (350, -13), second: Some((440, -20)) } None true"),
        "{started}"
    );
    assert!(started.contains("max_time_ms: Some(5000)"), "{started}");
    refused(
        &mut client,
        "operation.start",
        &common,
        &[
            (json!({"frequency_hz": 199}), -32602, "frequency_hz"),
            (json!({"frequency_hz": 3001}), -32602, "frequency_hz"),
            (json!({"frequency_hz": -1}), -32602, "frequency_hz"),
            (json!({"level_db": 1}), -32602, "level_db"),
            (json!({"level_db": -41}), -32602, "level_db"),
            (json!({"frequency2_hz": 100}), -32602, "frequency2_hz"),
            (json!({"frequency2_hz": 400, "level2_db": 3}), -32602, "level2_db"),
            (json!({"level2_db": -3}), -32602, "level2_db"),
            (json!({"duration_ms": 86_400_001}), -32602, "duration_ms"),
            (json!({"duration_ms": 0}), -32602, "duration_ms"),
            (json!({"isolate": 1}), -32602, "isolate"),
            (json!({"inter_digit_ms": 100}), -32602, "inter_digit_ms"),
            (json!({"files": ["a.wav"]}), -32602, "files"),
        ],
    );
}

#[test]
fn digits_are_gathered_and_told() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["operation.ended"]}));
    let id = client.connection(json!({}));
    let room = client.conference(json!({}));
    let all = json!({
        "kind": "gather_digits", "connection_id": id, "flush": true, "digits": 31, "digit": "#", "digit_list": "12",
        "digit_pattern": "*9", "inter_digit_ms": 3000, "max_time_ms": 9000, "timeout_ms": 20_000,
    });
    let first = client.ok("operation.start", all);
    let started = rig.world.started();
    for part in [
        "gather_digits true",
        "max_time_ms: Some(9000)",
        "digits_max: Some(31)",
        "digit_pattern: Some(\"*9\")",
        "inter_digit_ms: Some(3000)",
        "timeout_ms: Some(20000)",
    ] {
        assert!(started.contains(part), "{part}: {started}");
    }
    client.ok("operation.stop", json!({"connection_id": id, "operation_id": first["operation_id"]}));
    let ended = client.event("operation.ended");
    assert_eq!((&ended["kind"], &ended["digits"]), (&json!("gather_digits"), &json!("12#")));
    let common = json!({"kind": "gather_digits", "connection_id": id});
    refused(
        &mut client,
        "operation.start",
        &common,
        &[
            (json!({"digits": 32}), -32602, "digits"),
            (json!({"digit_pattern": "x"}), -32602, "digit_pattern"),
            (json!({"silence_ms": 100}), -32602, "silence_ms"),
            (json!({"flush": "yes"}), -32602, "flush"),
        ],
    );
    let params = json!({"kind": "gather_digits", "conference_id": room, "flush": true});
    assert_eq!(client.fails("operation.start", params, -32602)["param"], "flush");
    client.ok("operation.start", json!({"kind": "gather_digits", "conference_id": room}));
}

#[test]
fn silence_and_sound_are_waited_for() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let id = client.connection(json!({}));
    for (kind, own, other) in
        [("detect_silence", "silence_ms", "nonsilence_ms"), ("detect_nonsilence", "nonsilence_ms", "silence_ms")]
    {
        let common = json!({"kind": kind, "connection_id": id});
        refused(
            &mut client,
            "operation.start",
            &common,
            &[
                (json!({}), -32602, own),
                (json!({own: 0}), -32602, own),
                (json!({own: 500, other: 500}), -32602, other),
                (json!({own: 500, "max_time_ms": 1}), -32602, "max_time_ms"),
                (json!({own: 500, "timeout_ms": 0}), -32602, "timeout_ms"),
            ],
        );
        client.ok("operation.start", json!({"kind": kind, "connection_id": id, own: 500, "timeout_ms": 9000}));
        let started = rig.world.started();
        assert!(started.starts_with(kind) && started.contains(&format!("{own}: Some(500)")), "{started}");
        client.ok("operation.stop", json!({"connection_id": id}));
    }
}

#[test]
fn plays_take_volume_or_speed_and_conditions() {
    let rig = Rig::start(1);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let common = json!({"kind": "play", "connection_id": id, "files": ["prompt.wav"]});
    client.ok(
        "operation.start",
        json!({"kind": "play", "connection_id": id, "files": ["prompt.wav"], "volume": -4, "isolate": true,
               "digit": "#", "silence_ms": 700}),
    );
    let started = rig.world.started();
    assert!(started.starts_with("play 1 Some(-4) None true"), "{started}");
    assert!(started.contains("silence_ms: Some(700)"), "{started}");
    refused(
        &mut client,
        "operation.start",
        &common,
        &[
            (json!({"volume": 11}), -32602, "volume"),
            (json!({"speed": -11}), -32602, "speed"),
            (json!({"volume": 1, "speed": 1}), -32602, "speed"),
            (json!({"prompts": ["hello"]}), -32602, "prompts"),
            (json!({"application": "ivr"}), -32602, "application"),
            (json!({"locale": "en-GB"}), -32602, "locale"),
            (json!({"files": ["prompt.wav", "prompt.wav"], "start_ms": 10}), -32602, "start_ms"),
            (json!({"start_ms": -1}), -32602, "start_ms"),
            (json!({"encoding": "mp3"}), -32602, "encoding"),
            (json!({"sample_rate_hz": 22_050}), -32602, "sample_rate_hz"),
            (json!({"encoding": "adpcm", "bits": 8}), -32602, "bits"),
            (json!({"flush": true}), -32602, "flush"),
        ],
    );
    let prompts = |prompts: Value| json!({"kind": "play", "connection_id": id, "prompts": prompts});
    assert_eq!(client.fails("operation.start", prompts(json!([])), -32602)["param"], "prompts");
    assert_eq!(client.fails("operation.start", prompts(json!([1])), -32602)["param"], "prompts[0]");
}

#[test]
fn prompts_are_files_or_spoken() {
    let rig = Rig::start_with(1, |config| {
        let spoken = config.state_dir.clone().expect("set").join("audio/spoken.wav");
        let spoken = spoken.to_str().expect("text").to_owned();
        config.tts.command = Some(vec!["/bin/cp".into(), spoken, "{output}".into()]);
        config.quota.tts = Some(1);
    });
    rig.prompt("spoken.wav");
    std::fs::create_dir_all(rig.dir.path().join("state/audio/ivr/en-GB")).expect("made");
    rig.prompt("ivr/en-GB/menu.wav");
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let play = |prompts: Value, application: Value| {
        json!({"kind": "play", "connection_id": id, "prompts": prompts, "application": application, "locale": "en-GB",
               "start_ms": 10})
    };
    client.ok("operation.start", play(json!(["menu.wav"]), json!("ivr")));
    assert!(rig.world.started().starts_with("play 1"));
    client.ok("operation.start", play(json!(["please hold the line"]), Value::Null));
    let tts = client.ok("server.stats", json!({}))["resources"]["tts"].take();
    assert_eq!(tts, json!({"in_use": 0, "limit": 1, "denied": 0}));

    let rig = Rig::start_with(1, |config| {
        config.tts.command = Some(vec!["/bin/cp".into(), "/nowhere".into(), "{output}".into()]);
        config.quota.tts = Some(0);
    });
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let spoken = json!({"kind": "play", "connection_id": id, "prompts": ["please hold the line"]});
    assert_eq!(client.fails("operation.start", spoken, 1008)["resource"], "tts");
    assert_eq!(client.ok("server.stats", json!({}))["resources"]["tts"]["denied"], 1);
    assert_eq!(client.ok("server.stats", json!({}))["resources"]["voice"]["in_use"], 0);
}

#[test]
fn recordings_are_named_when_they_have_no_name() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["operation.ended"]}));
    let id = client.connection(json!({}));
    let named = client.ok("operation.start", json!({"kind": "record", "connection_id": id, "path": "in/a.wav"}));
    assert_eq!(named["path"], "in/a.wav");
    let params = json!({"kind": "record", "connection_id": id, "digit": "0123456789", "nonsilence_ms": 20});
    let unnamed = client.ok("operation.start", params);
    assert!(rig.world.started().contains("nonsilence_ms: Some(20)"));
    client.ok("operation.stop", json!({"connection_id": id, "operation_id": unnamed["operation_id"]}));
    let path = client.event("operation.ended")["path"].as_str().expect("a path").to_owned();
    assert!(path.ends_with(unnamed["path"].as_str().expect("a path")) && Path::new(&path).exists(), "{path}");
    let vox = json!({"kind": "record", "connection_id": id, "container": "vox", "encoding": "adpcm",
                     "sample_rate_hz": 6000, "bits": 4, "expires_days": 3});
    let vox = client.ok("operation.start", vox);
    assert!(vox["path"].as_str().is_some_and(|path| path.ends_with(".vox")), "{vox}");
    refused(
        &mut client,
        "operation.start",
        &json!({"kind": "record", "connection_id": id}),
        &[
            (json!({"container": "mp3"}), -32602, "container"),
            (json!({"encoding": "opus"}), -32602, "encoding"),
            (json!({"sample_rate_hz": 44_100}), -32602, "sample_rate_hz"),
            (json!({"encoding": "pcm", "bits": 4}), -32602, "bits"),
            (json!({"path": "a.vox", "bits": 16}), -32602, "bits"),
            (json!({"expires_days": 10_000}), -32602, "expires_days"),
            (json!({"digits": 3}), -32602, "digits"),
        ],
    );
}

#[test]
fn what_plays_is_adjusted() {
    let rig = Rig::start(1);
    rig.prompt("prompt.wav");
    let mut client = rig.client();
    let id = client.connection(json!({}));
    let params = json!({"connection_id": id, "volume": 2});
    assert_eq!(client.fails("operation.adjust", params, 1003)["connection_id"], id.as_str());
    client.ok("operation.start", json!({"kind": "play", "connection_id": id, "files": ["prompt.wav"]}));
    for (given, expected) in [
        (json!({"volume": 2}), "VolumeTo(2)"),
        (json!({"volume": -2, "adjustment": "relative"}), "VolumeBy(-2)"),
        (json!({"speed": 10, "adjustment": "absolute"}), "SpeedTo(10)"),
        (json!({"speed": -10, "adjustment": "relative"}), "SpeedBy(-10)"),
        (json!({"adjustment": "toggle"}), "Toggle(Switch)"),
        (json!({"adjustment": "toggle", "toggle": 2}), "Toggle(Origin)"),
        (json!({"adjustment": "toggle", "toggle": 3}), "Toggle(Last)"),
        (json!({"adjustment": "toggle", "toggle": 4}), "Toggle(Reset)"),
    ] {
        let mut params = given.clone();
        params["connection_id"] = json!(id);
        assert!(client.ok("operation.adjust", params)["effect"].is_object());
        assert_eq!(rig.world.started(), expected, "{given}");
    }
    refused(
        &mut client,
        "operation.adjust",
        &json!({"connection_id": id}),
        &[
            (json!({}), -32602, "volume"),
            (json!({"volume": 11}), -32602, "volume"),
            (json!({"volume": 1, "speed": 1}), -32602, "speed"),
            (json!({"volume": 1, "toggle": 1}), -32602, "toggle"),
            (json!({"adjustment": "toggle", "toggle": 5}), -32602, "toggle"),
            (json!({"adjustment": "toggle", "speed": 1}), -32602, "speed"),
            (json!({"adjustment": "louder"}), -32602, "adjustment"),
        ],
    );
    let room = client.conference(json!({}));
    let play = client.ok("operation.start", json!({"kind": "play", "conference_id": room, "files": ["prompt.wav"]}));
    client.ok("operation.adjust", json!({"connection_id": play["connection_id"], "speed": 1}));
    client.fails("operation.adjust", json!({"connection_id": "util-0-7-7", "speed": 1}), 1001);
}

#[test]
fn digits_go_into_the_buffer_all_or_none() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let id = client.connection(json!({"digits": "auto"}));
    let send = |digits: &str| json!({"connection_id": id, "digits": digits});
    assert_eq!(client.ok("connection.send_digits", send("12a")), json!({}));
    let status = client.ok("connection.get", json!({"connection_id": id}));
    assert_eq!((&status["digits"], &status["digit_source"]), (&json!("12A"), &json!("auto")));
    assert_eq!(client.fails("connection.send_digits", send(&"1".repeat(29)), 1008)["connection_id"], id.as_str());
    assert_eq!(client.fails("connection.send_digits", send(&"1".repeat(32)), 1008)["param"], "digits");
    client.ok("connection.send_digits", send(&"1".repeat(28)));
    for wrong in ["", "1 2", "x"] {
        assert_eq!(client.fails("connection.send_digits", send(wrong), -32602)["param"], "digits");
    }
    client.ok("connection.modify", json!({"connection_id": id, "digits": "events"}));
    assert_eq!(client.ok("connection.get", json!({"connection_id": id}))["digit_source"], "events");
    assert_eq!(client.fails("connection.create", json!({"digits": "tones"}), -32602)["param"], "digits");
    let room = client.conference(json!({}));
    let gather = client.ok("operation.start", json!({"kind": "gather_digits", "conference_id": room}));
    client.ok("connection.send_digits", json!({"connection_id": gather["connection_id"], "digits": "5"}));
}

#[test]
fn a_reserved_connection_waits_for_its_address() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    for (reserve, param) in [(0, "reserve_ms"), (3_600_001, "reserve_ms")] {
        assert_eq!(client.fails("connection.create", json!({"reserve_ms": reserve}), -32602)["param"], param);
    }
    let both = json!({"reserve_ms": 1000, "remote": "127.0.0.1:4000"});
    assert_eq!(client.fails("connection.create", both, -32602)["param"], "reserve_ms");
    let created = client.ok("connection.create", json!({"reserve_ms": 1000}));
    assert_eq!(created["reserved"], true);
    let id = created["connection_id"].as_str().expect("an id");
    let room = client.conference(json!({}));
    client.fails("conference.join", json!({"conference_id": room, "connection_id": id}), 1012);
    client.fails("operation.start", json!({"kind": "tone", "connection_id": id}), 1012);
    client.fails("connection.send_digits", json!({"connection_id": id, "digits": "1"}), 1012);
    assert_eq!(client.ok("connection.modify", json!({"connection_id": id, "label": "x"}))["reserved"], true);
    assert_eq!(client.ok("connection.get", json!({"connection_id": id}))["reserved"], true);
    let modified = client.ok("connection.modify", json!({"connection_id": id, "remote": "127.0.0.1:4000"}));
    assert!(modified["reserved"].is_null(), "{modified}");
    client.ok("operation.start", json!({"kind": "tone", "connection_id": id}));
}

#[test]
fn roles_and_tariff_tones() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let room = client.conference(json!({"tones": true}));
    let id = client.connection(json!({}));
    let both = json!({"conference_id": room, "connection_id": id});
    let combined: &[(Value, i64, &str)] = &[
        (json!({"role": "coach", "muted": true}), -32602, "muted"),
        (json!({"role": "pupil", "muted": true}), -32602, "muted"),
        (json!({"role": "coach", "tariff_tone": true}), -32602, "tariff_tone"),
        (json!({"role": "chair"}), -32602, "role"),
    ];
    refused(&mut client, "conference.join", &both, combined);
    client.ok(
        "conference.join",
        json!({"conference_id": room, "connection_id": id, "role": "pupil", "tariff_tone": true}),
    );
    let participant = client.ok("conference.get", json!({"conference_id": room}))["participants"][0].take();
    assert_eq!((&participant["role"], &participant["tariff_tone"]), (&json!("pupil"), &json!(true)));
    refused(&mut client, "conference.set", &both, combined);
    refused(
        &mut client,
        "conference.set",
        &both,
        &[
            (json!({"muted": true}), -32602, "muted"),
            (json!({"role": "coach"}), -32602, "role"),
            (json!({"role": "monitor"}), -32602, "role"),
        ],
    );
    client.ok(
        "conference.set",
        json!({"conference_id": room, "connection_id": id, "role": "coach", "tariff_tone": false}),
    );
    let params = json!({"conference_id": room, "connection_id": id, "tariff_tone": true});
    assert_eq!(client.fails("conference.set", params, -32602)["param"], "tariff_tone");
    client.ok("conference.set", json!({"conference_id": room, "connection_id": id, "role": "party"}));
}

#[test]
fn codecs_that_are_only_passed_on() {
    let rig = Rig::start(1);
    let mut client = rig.client();
    let id = client.connection(json!({"codec": "g729"}));
    let spec = rig.world.spec(&id);
    assert_eq!((spec.rx_payload_type, spec.tx_payload_type), (18, 18));
    assert_eq!(client.ok("connection.get", json!({"connection_id": id}))["tx_codec"], "G729");
    let room = client.conference(json!({}));
    client.fails("conference.join", json!({"conference_id": room, "connection_id": id}), 1013);
    let other = client.connection(json!({"rx_codec": "G723", "tx_codec": "PCMA"}));
    assert_eq!(rig.world.spec(&other).rx_payload_type, 4);
}

#[test]
fn both_parties_of_a_call_are_recorded_and_muted() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["operation.ended"]}));
    let [a, b, other] = [0; 3].map(|_| client.connection(json!({})));
    let channels = json!({"caller": a, "called": b});
    let common = json!({"kind": "record", "connection_id": a, "channels": channels});
    // They are not relayed to each other yet.
    let data = client.fails("operation.start", common.clone(), 1004);
    assert_eq!(data["connection_id"], *b);
    client.ok("relay.start", json!({"a": a, "b": b}));
    let started = client.ok("operation.start", common.clone());
    assert!(rig.world.started().starts_with(&format!("record {a} {b} StopConditions")), "{}", rig.world.started());
    let id = started["operation_id"].as_str().expect("an id").to_owned();
    assert!(started["path"].as_str().expect("a path").ends_with(".wav"), "{started}");
    assert_eq!(started["connection_id"], *a);

    let states = [("none", false, false), ("caller", true, false), ("called", false, true), ("both", true, true)];
    for (channels, caller, called) in states {
        let muted = client.ok("recording.mute", json!({"operation_id": id, "channels": channels}));
        assert_eq!(muted["muted"], json!({"caller": caller, "called": called}));
        assert_eq!(muted["effect"]["clock"], "recording");
        assert_eq!(rig.world.started(), format!("mute {caller} {called}"));
    }
    let tone = client.ok("operation.start", json!({"kind": "tone", "connection_id": a}));
    client.fails("recording.mute", json!({"operation_id": tone["operation_id"], "channels": "both"}), 1016);
    let room = client.conference(json!({}));
    let of_room = client.ok("operation.start", json!({"kind": "record", "conference_id": room}));
    client.fails("recording.mute", json!({"operation_id": of_room["operation_id"], "channels": "both"}), 1016);

    refused(
        &mut client,
        "operation.start",
        &common,
        &[
            (json!({"channels": {"caller": a}}), -32602, "channels.called"),
            (json!({"channels": {"caller": a, "called": a}}), -32602, "channels.called"),
            (json!({"channels": {"caller": a, "called": b, "third": b}}), -32602, "channels.third"),
            (json!({"connection_id": other}), -32602, "channels"),
            (json!({"container": "vox"}), 1016, "container"),
            (json!({"encoding": "adpcm"}), 1016, "encoding"),
            (json!({"sample_rate_hz": 6000}), 1016, "sample_rate_hz"),
        ],
    );
    let nobody = json!({"kind": "record", "connection_id": a, "channels": {"caller": a, "called": "conn-9-9-9"}});
    client.fails("operation.start", nobody, 1001);
    let in_room = json!({"kind": "record", "conference_id": room, "channels": channels});
    assert_eq!(client.fails("operation.start", in_room, -32602)["param"], "channels");

    client.ok("operation.stop", json!({"connection_id": a, "operation_id": id}));
    for operation in [id.as_str(), "op-0-0-0", "nonsense"] {
        client.fails("recording.mute", json!({"operation_id": operation, "channels": "none"}), 1003);
    }
    let data = client.fails("recording.mute", json!({"operation_id": id, "channels": "all"}), -32602);
    assert_eq!(data["param"], "channels");
}
