//! Section 2: branches, timeouts and switches; what holds of any action, of a full or ending server, and of a script's
//! events; section 5.3's tones and section 12's sources of digits.

use std::time::Instant;

use ringbridge_control::config::PortRange;
use ringbridge_tests::PATIENCE;
use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let row = |name: &str, run: fn(&mut Rig)| Row::new(format!("script::{name}"), run);
    vec![
        row("timeout_is_a_branch_and_cancels_nothing", timeout_branch),
        row("the_default_timeout_is_5_s", default_timeout),
        row("an_engine_that_does_not_answer_is_13", engine_timeout),
        row("a_server_without_a_free_connection_is_4", |rig| {
            rig.connect();
            let to = json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000});
            assert_eq!(rig.code("CreateConnection", to.clone()), 4);
            assert_eq!(rig.code("ReserveConnection", json!({})), 4);
            assert_eq!(rig.code("CreateConference", to), 4);
        })
        .on(|config| config.ports = PortRange::new(10_000, 10_001).expect("a range")),
        row("a_draining_server_is_5", |rig| {
            let leg = rig.connect();
            rig.server.method("server.drain", json!({"deadline_ms": 0})).expect("drains");
            assert_eq!(rig.code("ReserveConnection", json!({})), 5);
            assert_eq!(rig.code("CreateConnection", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000})), 5);
            // What is there goes on.
            rig.operation("PlayTone", json!({"ConnectionId": leg.id}));
            assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 0);
        }),
        row("fine_branches", |rig| {
            let leg = rig.connect();
            rig.operation("PlayTone", json!({"ConnectionId": leg.id}));
            let busy = rig.call("PlayTone", json!({"ConnectionId": leg.id}));
            assert_eq!((busy.code, busy.branch.as_str()), (14, "connectionbusy"));
            let none = rig.call("ReserveConnection", json!({"MmsId": 250}));
            assert_eq!((none.code, none.branch.as_str()), (8, "noresourcesavailable"));
            let other = rig.call("ReserveConnection", json!({"MmsId": "x"}));
            assert_eq!((other.code, other.branch.as_str()), (27, "Failure"));
        })
        .on(|config| config.mediacontrol.fine_branches = true),
        row("started_as_zero", |rig| {
            let leg = rig.connect();
            let started = rig.call("PlayTone", json!({"ConnectionId": leg.id}));
            assert_eq!((started.code, started.branch.as_str()), (0, "Success"));
        })
        .on(|config| config.mediacontrol.started_as_zero = true),
        row("legacy_oed", |rig| {
            let leg = rig.connect();
            let tone = rig.operation("PlayTone", json!({"ConnectionId": leg.id, "Duration": 100}));
            assert_eq!(rig.end(&tone).condition(), "oed");
        })
        .on(|config| config.mediacontrol.legacy_oed = true),
        row("another_engine_number", |rig| {
            let leg = rig.connect();
            assert_eq!(leg.id.parse::<u32>().expect("a number") >> 24, 77);
            assert_eq!(rig.code("ReserveConnection", json!({"MmsId": 1})), 8);
            assert_eq!(rig.code("ReserveConnection", json!({"MmsId": 77})), 0);
        })
        .on(|config| config.mediacontrol.mms_id = 77),
        row("events_are_kept_for_60_s", events_are_kept),
        row("default_tone", |rig| tone(rig, json!({}), &[(600, -10)])),
        row("loud_tone", |rig| tone(rig, json!({"Frequency1": 1000, "Amplitude1": -3}), &[(1000, -3)])),
        row("two_tones", |rig| {
            let both = json!({"Frequency1": 400, "Amplitude1": -15, "Frequency2": 1800, "Amplitude2": -20});
            tone(rig, both, &[(400, -15), (1800, -20)]);
        }),
        row("second_tone_has_a_level_by_default", |rig| {
            tone(rig, json!({"Frequency2": 1000}), &[(600, -10), (1000, -10)])
        }),
        row("in_band_digits", in_band),
        row("dtmf_is_clamped_out_of_conferences", clamped),
    ]
}

fn timeout_branch(rig: &mut Rig) {
    rig.tone("short.wav", 1000, 500);
    let leg = rig.connect();
    rig.server.hold();
    let play = rig.begin("Play", json!({"ConnectionId": leg.id, "Prompt1": "short.wav", "Timeout": 1000}));
    rig.pass(900);
    assert!(!rig.is_done(&play));
    rig.pass(200);
    assert!(rig.is_done(&play));
    let response = rig.finish(play);
    assert_eq!((response.branch.as_str(), response.results.get("OperationId")), ("Timeout", None));
    rig.server.release();
    // Its file is opened by a thread that does not go by this clock.
    let began = Instant::now();
    while rig.at(&leg).heard().len() < 25 || rig.used().voice > 0 {
        assert!(began.elapsed() < PATIENCE, "it is played all the same");
        rig.pass(20);
    }
    rig.pass(1500);
    assert_eq!(rig.at(&leg).heard().len(), 25, "once");
    assert_eq!(rig.events(), [], "without a callback");
    assert_eq!(rig.used().voice, 0);
}

fn default_timeout(rig: &mut Rig) {
    let leg = rig.connect();
    rig.server.hold();
    let send = rig.begin("SendDigits", json!({"ConnectionId": leg.id, "Digits": "1"}));
    rig.pass(4900);
    assert!(!rig.is_done(&send));
    rig.pass(200);
    assert!(rig.is_done(&send));
    assert_eq!(rig.finish(send).branch, "Timeout");
    rig.server.release();
}

fn engine_timeout(rig: &mut Rig) {
    let leg = rig.connect();
    rig.server.hold();
    let send = rig.begin("SendDigits", json!({"ConnectionId": leg.id, "Digits": "1", "Timeout": 60_000}));
    rig.pass(5100);
    assert!(rig.is_done(&send));
    let response = rig.finish(send);
    assert_eq!((response.branch.as_str(), response.code), ("Failure", 13));
    rig.server.release();
}

fn events_are_kept(rig: &mut Rig) {
    let leg = rig.connect();
    let tone = rig.operation("PlayTone", json!({"ConnectionId": leg.id, "Duration": 100}));
    rig.end(&tone);
    rig.pass(58_000);
    assert_eq!(rig.kept(), 1, "for who comes back");
    rig.pass(4_000);
    assert_eq!(rig.kept(), 0);
}

/// Frequencies, and their levels in dBm0 as far as they differ from the first.
fn tone(rig: &mut Rig, mut params: Value, parts: &[(u32, i32)]) {
    let leg = rig.connect();
    params["ConnectionId"] = leg.id.as_str().into();
    let began = rig.ms();
    let operation = rig.operation("PlayTone", params);
    let event = rig.end(&operation);
    assert_eq!(event.condition(), "eod");
    assert!((event.ms - began).abs_diff(1000) <= 20, "one second by default");
    let phone = rig.at(&leg);
    for &(hz, level) in parts {
        // A phone says 8000; the overload point of G.711 is +3.14 dBm0 and has a peak of 32124 (µ-law).
        let peak = 8000.0 * phone.share(hz, began + 100, began + 900);
        let dbm0 = 20.0 * (peak / 32_124.0).log10() + 3.17;
        assert!((dbm0 - f64::from(level)).abs() < 1.0, "{hz} Hz at {dbm0} instead of {level} dBm0");
    }
    let strange = phone.share(2600, began + 100, began + 900);
    assert!(strange < 0.02, "and nothing else: {strange}");
}

fn in_band(rig: &mut Rig) {
    let leg = rig.connect_saying(Voice::Silence);
    rig.pass(500);
    let gather = rig.operation("GatherDigits", json!({"ConnectionId": leg.id, "TermCondDigit": "#"}));
    for digit in "19A#".chars() {
        rig.at(&leg).say(Voice::Dtmf(digit));
        rig.pass(100);
        rig.at(&leg).say(Voice::Silence);
        rig.pass(100);
    }
    let event = rig.end_within(&gather, 500);
    assert_eq!((event.condition(), event.text("Digits")), ("digit".to_owned(), "19A#".to_owned()));
}

fn clamped(rig: &mut Rig) {
    let legs = [rig.connect_saying(Voice::Silence), rig.connect_saying(Voice::Silence)];
    rig.mixed(&[&legs[0], &legs[1]]);
    rig.pass(500);
    rig.at(&legs[0]).say(Voice::Dtmf('5'));
    let began = rig.ms();
    rig.pass(600);
    let ear = rig.at(&legs[1]);
    for hz in [770, 1336] {
        let share = ear.share(hz, began + 120, began + 600);
        assert!(share < 0.05, "{hz} Hz at {share}");
    }
    rig.at(&legs[0]).say(Voice::Tone(500));
    rig.pass(600);
    let now = rig.ms();
    assert!(rig.at(&legs[1]).share(500, now - 300, now) > 0.8, "speech is heard again");
}
