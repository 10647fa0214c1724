//! Section 16: what takes which resource, the worked examples, and what happens when one is exhausted.

use ringbridge_control::config::Config;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig, Used};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let rows: [Plain; 9] = [
        ("worked_example_1_one_idle", |rig| {
            rig.connect();
            assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
        }),
        // No codec for G.729 is at hand: what would need one is refused and takes nothing.
        ("worked_example_2_low_bitrate_playing", |rig| {
            let leg = rig.connect_with(json!({"MediaTxCodec": "G729", "MediaRxCodec": "G729"}));
            assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
            assert_eq!(rig.code("PlayTone", json!({"ConnectionId": leg.id, "Duration": 5000})), 8);
            assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
        }),
        ("worked_example_3_hairpin", |rig| {
            let legs = [rig.connect(), rig.connect()];
            rig.conference(&[&legs[0], &legs[1]], json!({}));
            assert_eq!(rig.used(), Used::new(2, 0, 0, 0));
        }),
        ("worked_example_4_record_on_a_hairpin", |rig| {
            let legs = [rig.connect(), rig.connect()];
            let conference = rig.conference(&[&legs[0], &legs[1]], json!({}));
            rig.operation("Record", json!({"ConferenceId": conference, "Filename": "c.wav"}));
            assert_eq!(rig.used(), Used::new(2, 0, 1, 3));
        }),
        ("worked_example_5_three_with_one_low_bitrate", |rig| {
            let legs = [rig.connect(), rig.connect(), rig.connect_with(json!({"MediaTxCodec": "G729"}))];
            let conference = rig.mixed(&[&legs[0], &legs[1]]);
            assert_eq!(rig.used(), Used::new(3, 1, 0, 2));
            let join = json!({"ConnectionId": legs[2].id, "ConferenceId": conference});
            assert_eq!(rig.code("JoinConference", join), 8);
            assert_eq!(rig.used(), Used::new(3, 1, 0, 2));
        }),
        ("worked_example_6_three_and_two_monitors", |rig| {
            let legs = [rig.connect(), rig.connect(), rig.connect()];
            let conference = rig.mixed(&legs.iter().collect::<Vec<_>>());
            for _ in 0..2 {
                let ear = rig.connect();
                rig.ok("JoinConference", json!({"ConnectionId": ear.id, "ConferenceId": conference, "Monitor": true}));
            }
            assert_eq!(rig.used(), Used::new(5, 0, 0, 4));
        }),
        ("a_member_that_is_played_to_takes_no_second_conference_resource", |rig| {
            let legs = [rig.connect(), rig.connect()];
            rig.mixed(&[&legs[0], &legs[1]]);
            rig.operation("PlayTone", json!({"ConnectionId": legs[0].id, "Duration": 5000}));
            assert_eq!(rig.used(), Used::new(2, 0, 1, 2));
        }),
        ("a_refused_start_takes_nothing", |rig| {
            let leg = rig.connect();
            for _ in 0..3 {
                rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
            }
            assert_eq!(rig.code("GatherDigits", json!({"ConnectionId": leg.id})), 8);
            assert_eq!(rig.used(), Used::new(1, 0, 3, 0));
        }),
        ("every_operation_gives_its_voice_resource_back", |rig| {
            rig.tone("short.wav", 1000, 200);
            let leg = rig.connect();
            for (action, mut params) in [
                ("Play", json!({"Prompt1": "short.wav"})),
                ("PlayTone", json!({"Duration": 100})),
                ("Record", json!({"TermCondMaxTime": 100})),
                ("GatherDigits", json!({"TermCondMaxTime": 100})),
                ("DetectSilence", json!({"SilenceTime": 100})),
                ("DetectNonSilence", json!({"NonSilenceTime": 100, "CommandTimeout": 100})),
            ] {
                params["ConnectionId"] = leg.id.as_str().into();
                let operation = rig.operation(action, params);
                assert_eq!(rig.used().voice, 1, "{action}");
                rig.end(&operation);
                assert_eq!(rig.used().voice, 0, "{action}");
            }
        }),
    ];
    let rows = rows.into_iter().map(|(name, run)| Row::new(format!("resources::{name}"), run));
    rows.chain(exhausted()).collect()
}

/// What is done before, the action that finds nothing left, its parameters, the limits.
fn exhausted() -> Vec<Row> {
    let row = |name: &str, limits: &'static [(&'static str, u32)], run: fn(&mut Rig)| {
        Row::new(format!("resources::exhausted::{name}"), run).on(move |config| limit(config, limits))
    };
    vec![
        row("rtp", &[("rtp", 2)], |rig| {
            let _first = rig.connect();
            let second = rig.connect();
            is_8(rig, "CreateConnection", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}), None);
            is_8(rig, "ReserveConnection", json!({}), None);
            is_8(rig, "CreateConference", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}), None);
            rig.ok("DeleteConnection", json!({"ConnectionId": second.id}));
            rig.connect();
        }),
        row("low_bitrate", &[("enhanced_rtp", 1)], |rig| {
            rig.connect_with(json!({"MediaTxCodec": "G729"}));
            let before = rig.used();
            for codec in ["G729", "G723"] {
                is_8(rig, "ReserveConnection", json!({"MediaTxCodec": codec}), Some("7"));
                is_8(
                    rig,
                    "CreateConnection",
                    json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 40, "MediaTxCodec": codec}),
                    Some("7"),
                );
            }
            assert_eq!(rig.used(), before, "nothing has leaked");
            rig.connect();
        }),
        row("low_bitrate_by_modify", &[("enhanced_rtp", 0)], |rig| {
            let leg = rig.connect();
            let modify = json!({"ConnectionId": leg.id, "MediaTxIP": "10.1.0.60", "MediaTxPort": 4000, "MediaTxCodec": "G729", "MediaRxCodec": "G729"});
            is_8(rig, "ModifyConnection", modify, Some("7"));
            // It keeps its codec and its address.
            rig.operation("PlayTone", json!({"ConnectionId": leg.id, "Duration": 500}));
            rig.pass(600);
            assert!(rig.at(&leg).heard().len() > 15);
        }),
        row("capabilities_follow", &[("enhanced_rtp", 1)], |rig| {
            let caps = |rig: &mut Rig| rig.ok("ReserveConnection", json!({}))["LocalMediaCaps"].clone();
            assert!(caps(rig).get("G729").is_some(), "while it is free");
            rig.connect_with(json!({"MediaTxCodec": "G729"}));
            let caps = caps(rig);
            assert!(caps.get("G729").is_none() && caps.get("G711u").is_some(), "{caps}");
        }),
        row("voice", &[("voice", 2)], |rig| {
            rig.tone("short.wav", 1000, 200);
            let leg = rig.connect();
            let other = rig.connect();
            let gather = rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
            rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
            for (action, params) in [
                ("Play", json!({"ConnectionId": other.id, "Prompt1": "short.wav"})),
                ("PlayTone", json!({"ConnectionId": other.id})),
                ("Record", json!({"ConnectionId": other.id, "Filename": "r.wav"})),
                ("GatherDigits", json!({"ConnectionId": other.id})),
                ("DetectSilence", json!({"ConnectionId": other.id, "SilenceTime": 100})),
                ("DetectNonSilence", json!({"ConnectionId": other.id, "NonSilenceTime": 100})),
            ] {
                is_8(rig, action, params, None);
            }
            assert!(!rig.server.recording("r.wav").exists(), "nothing is left of a recording that did not start");
            rig.ok("StopMediaOperation", json!({"ConnectionId": leg.id, "OperationId": gather}));
            rig.operation("Play", json!({"ConnectionId": other.id, "Prompt1": "short.wav"}));
        }),
        row("conference", &[("conference", 2)], |rig| {
            let legs: Vec<Leg> = (0..3).map(|_| rig.connect()).collect();
            let conference = rig.mixed(&[&legs[0], &legs[1]]);
            is_8(rig, "JoinConference", json!({"ConnectionId": legs[2].id, "ConferenceId": conference}), None);
            is_8(
                rig,
                "JoinConference",
                json!({"ConnectionId": legs[2].id, "ConferenceId": conference, "Monitor": true}),
                None,
            );
            is_8(rig, "CreateConference", json!({"ConnectionId": legs[2].id, "Hairpin": false}), None);
            is_8(rig, "PlayTone", json!({"ConferenceId": conference}), None);
            // A new connection made on the way is gone again.
            is_8(
                rig,
                "JoinConference",
                json!({"ConferenceId": conference, "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}),
                None,
            );
            rig.ok("LeaveConference", json!({"ConnectionId": legs[0].id, "ConferenceId": conference}));
            rig.ok("JoinConference", json!({"ConnectionId": legs[2].id, "ConferenceId": conference}));
        }),
        row("what_was_reserved_stays_reserved", &[("conference", 2)], |rig| {
            let legs: Vec<Leg> = (0..2).map(|_| rig.connect()).collect();
            let conference = rig.mixed(&[&legs[0], &legs[1]]);
            let reserved = rig.ok("ReserveConnection", json!({"MediaRxCodec": "G711a", "MediaTxCodec": "G711a"}));
            let id = reserved["ConnectionId"].clone();
            let with = |more: Value| {
                let mut params = json!({"ConnectionId": id, "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000});
                params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                params
            };
            is_8(rig, "JoinConference", with(json!({"ConferenceId": conference, "MediaTxCodec": "G711u"})), None);
            is_8(rig, "CreateConference", with(json!({"Hairpin": false, "MediaTxCodec": "G729"})), None);
            is_8(rig, "JoinConference", with(json!({"ConferenceId": conference, "MediaTxCodec": "G729"})), None);
            assert_eq!(rig.code("PlayTone", json!({"ConnectionId": id})), 16);
            assert_eq!(rig.code("ModifyConnection", with(json!({}))), 16);
            // It is completed as it was reserved, by whoever comes next.
            rig.ok("LeaveConference", json!({"ConnectionId": legs[0].id, "ConferenceId": conference}));
            rig.ok("JoinConference", with(json!({"ConferenceId": conference})));
            rig.ok("LeaveConference", json!({"ConnectionId": id, "ConferenceId": conference}));
            assert_eq!(rig.ok("ModifyConnection", with(json!({"MediaTxCodec": "G711a"})))["ReasonCode"], "17");
        }),
        row("what_was_reserved_expires", &[("conference", 2)], |rig| {
            let legs: Vec<Leg> = (0..2).map(|_| rig.connect()).collect();
            let conference = rig.mixed(&[&legs[0], &legs[1]]);
            let reserved = rig.ok("ReserveConnection", json!({}));
            let join = json!({
                "ConnectionId": reserved["ConnectionId"], "ConferenceId": conference,
                "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000,
            });
            rig.pass(5_000);
            is_8(rig, "JoinConference", join.clone(), None);
            // From then on.
            rig.pass(299_000);
            is_8(rig, "JoinConference", join, None);
            rig.pass(299_000);
            assert_eq!(rig.code("PlayTone", json!({"ConnectionId": reserved["ConnectionId"]})), 16);
            assert_eq!(rig.used(), Used::new(3, 0, 0, 2));
            rig.pass(2_000);
            assert_eq!(rig.used(), Used::new(2, 0, 0, 2), "its place is free again");
        }),
        row("promotion_needs_one_for_each_party", &[("conference", 2)], |rig| {
            let legs: Vec<Leg> =
                (0..3).map(|_| rig.connect_saying(ringbridge_tests::virtual_time::Voice::Tone(500))).collect();
            let conference = rig.conference(&[&legs[0], &legs[1]], json!({}));
            rig.pass(500);
            is_8(rig, "JoinConference", json!({"ConnectionId": legs[2].id, "ConferenceId": conference}), None);
            is_8(rig, "PlayTone", json!({"ConferenceId": conference}), None);
            assert_eq!(rig.used(), Used::new(3, 0, 0, 0), "still a hairpin");
            rig.pass(500);
            let now = rig.ms();
            assert!(rig.at(&legs[0]).share(500, now - 300, now) > 0.5, "which goes on");
        }),
    ]
}

/// Refused with 8 and this reason; nothing is taken.
#[track_caller]
fn is_8(rig: &mut Rig, action: &str, params: Value, reason: Option<&str>) {
    let before = rig.used();
    let response = rig.call(action, params);
    assert_eq!((response.code, response.branch.as_str()), (8, "Failure"), "{action}: {response:?}");
    if let Some(reason) = reason {
        assert_eq!(response.results.get("ReasonCode").map(crate::rig::text).as_deref(), Some(reason), "{action}");
    }
    assert_eq!(rig.used(), before, "{action}");
}

/// Sets limits of resource classes.
pub(crate) fn limit(config: &mut Config, limits: &[(&str, u32)]) {
    for (class, limit) in limits {
        crate::rig::set_limit(config, class, *limit);
    }
}
