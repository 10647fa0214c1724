//! Section 5.2: volume and speed while something plays, and the toggle table.

use serde_json::json;

use crate::rig::{Leg, Rig};
use crate::row::{Plain, Row};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Volume, absolute.
    To(i32),
    /// Volume, relative.
    By(i32),
    /// ToggleType.
    Toggle(u32),
}

use Step::{By, To, Toggle};

/// Steps, and the volume they lead to.
const VOLUMES: [(&[Step], i32); 20] = [
    (&[], 0),
    (&[To(-5)], -5),
    (&[To(3)], 3),
    (&[By(-4)], -4),
    (&[By(-3), By(-3)], -6),
    (&[To(-8), By(5)], -3),
    // What results is kept within -10 and 10.
    (&[To(-8), By(-15)], -10),
    (&[To(-10), By(13)], 3),
    (&[By(-20)], -10),
    // 1: between origin and last modification.
    (&[Toggle(1)], 0),
    (&[To(-5), Toggle(1)], 0),
    (&[To(-5), Toggle(1), Toggle(1)], -5),
    (&[To(-5), Toggle(0)], 0),
    (&[To(-5), To(-8), Toggle(1), Toggle(1)], -8),
    // 2: origin. 3: last modification.
    (&[To(-5), Toggle(2), Toggle(2)], 0),
    (&[To(-5), Toggle(2), Toggle(3)], -5),
    (&[To(-5), Toggle(3)], -5),
    // 4: origin, and the last modification is forgotten.
    (&[To(-5), Toggle(4)], 0),
    (&[To(-5), Toggle(4), Toggle(1)], 0),
    (&[To(-5), Toggle(4), Toggle(3)], 0),
];

pub(crate) fn rows() -> Vec<Row> {
    let volumes = VOLUMES.into_iter().enumerate().map(|(number, (steps, volume))| {
        Row::new(format!("adjust::volume_{number:02}_{}", if volume < 0 { "down" } else { "up" }), move |rig| {
            let leg = playing(rig, json!({}));
            for step in steps {
                carry_out(rig, &leg, *step);
            }
            is_at(rig, &leg, volume);
        })
    });
    let initial = [(-10, -10), (-3, -3), (3, 3)].map(|(given, volume)| {
        Row::new(format!("adjust::a_play_with_volume_{given}"), move |rig| {
            let leg = playing(rig, json!({"Volume": given}));
            is_at(rig, &leg, volume);
        })
    });
    // Speed in steps of 10 %, and how long two seconds take then.
    let speeds = [(0, 2000), (2, 1667), (5, 1333), (-2, 2500), (-5, 4000)];
    let by_play = speeds.map(|(speed, ms)| {
        Row::new(format!("adjust::a_play_with_speed_{speed}"), move |rig| {
            rig.tone("two.wav", 1000, 2000);
            let leg = rig.connect();
            let began = rig.ms();
            let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "two.wav", "Speed": speed}));
            let event = rig.end_within(&play, 6000);
            assert_eq!(event.condition(), "eod");
            assert!((event.ms - began).abs_diff(ms) <= 50, "{} ms", event.ms - began);
        })
    });
    let by_adjust = speeds.map(|(speed, ms)| {
        Row::new(format!("adjust::speed_{speed}"), move |rig| {
            rig.tone("two.wav", 1000, 2000);
            let leg = rig.connect();
            let began = rig.ms();
            let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "two.wav"}));
            assert_eq!(rig.code("AdjustPlay", json!({"ConnectionId": leg.id, "Speed": speed})), 0);
            let event = rig.end_within(&play, 6000);
            assert!((event.ms - began).abs_diff(ms) <= 50, "{} ms", event.ms - began);
        })
    });
    let rows: [Plain; 4] = [
        ("a_toggle_leaves_speed_alone", toggle_and_speed),
        ("it_stays_in_force", stays),
        ("a_new_connection_begins_anew", anew),
        ("a_play_takes_the_type_of_the_last_adjustment", inherits),
    ];
    let rows = rows.into_iter().map(|(name, run)| Row::new(format!("adjust::{name}"), run));
    volumes.chain(initial).chain(by_play).chain(by_adjust).chain(rows).collect()
}

fn playing(rig: &mut Rig, mut params: serde_json::Value) -> Leg {
    rig.tone("long.wav", 1000, 60_000);
    let leg = rig.connect();
    params["ConnectionId"] = leg.id.as_str().into();
    params["Prompt1"] = "long.wav".into();
    rig.operation("Play", params);
    rig.pass(200);
    leg
}

fn carry_out(rig: &mut Rig, leg: &Leg, step: Step) {
    let params = match step {
        To(volume) => json!({"ConnectionId": leg.id, "Volume": volume, "AdjustmentType": "absolute"}),
        By(volume) => json!({"ConnectionId": leg.id, "Volume": volume, "AdjustmentType": "relative"}),
        Toggle(kind) => json!({"ConnectionId": leg.id, "AdjustmentType": "toggle", "ToggleType": kind}),
    };
    let response = rig.call("AdjustPlay", params);
    assert_eq!(response.code, 0, "{response:?}");
    rig.pass(100);
}

/// The phone hears the prompt at this volume: 2 dB a step.
#[track_caller]
fn is_at(rig: &mut Rig, leg: &Leg, volume: i32) {
    rig.pass(100);
    let from = rig.ms();
    rig.pass(500);
    let to = rig.ms();
    let share = rig.at(leg).share(1000, from, to);
    let decibels = 20.0 * share.log10();
    assert!((decibels - f64::from(2 * volume)).abs() < 0.7, "{decibels} dB instead of {}", 2 * volume);
}

fn toggle_and_speed(rig: &mut Rig) {
    rig.tone("two.wav", 1000, 2000);
    let leg = rig.connect();
    let began = rig.ms();
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "two.wav", "Speed": 5}));
    carry_out(rig, &leg, Toggle(1));
    carry_out(rig, &leg, Toggle(2));
    let event = rig.end(&play);
    assert!((event.ms - began).abs_diff(1333) <= 50, "{} ms", event.ms - began);
}

fn stays(rig: &mut Rig) {
    let leg = playing(rig, json!({}));
    carry_out(rig, &leg, To(-5));
    rig.ok("StopMediaOperation", json!({"ConnectionId": leg.id}));
    rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav"}));
    is_at(rig, &leg, -5);
}

fn anew(rig: &mut Rig) {
    let leg = playing(rig, json!({}));
    carry_out(rig, &leg, To(-5));
    rig.ok("DeleteConnection", json!({"ConnectionId": leg.id}));
    let next = playing(rig, json!({}));
    is_at(rig, &next, 0);
}

fn inherits(rig: &mut Rig) {
    let leg = playing(rig, json!({}));
    carry_out(rig, &leg, By(-2));
    rig.ok("StopMediaOperation", json!({"ConnectionId": leg.id}));
    rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav", "Volume": -3}));
    is_at(rig, &leg, -5);
    carry_out(rig, &leg, To(-4));
    rig.ok("StopMediaOperation", json!({"ConnectionId": leg.id}));
    rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav", "Volume": -3}));
    is_at(rig, &leg, -3);
}
