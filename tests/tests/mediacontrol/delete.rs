//! Section 3.4, rule by rule; check list 3, 4, 5.

use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig, Used};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let rows: [Plain; 12] = [
        ("a_connection_gives_back_its_rtp", connection),
        ("a_low_bitrate_connection_gives_back_both", low_bitrate),
        ("a_reserved_connection", reserved),
        ("a_member_leaves_first", member),
        ("a_conference_takes_its_connections_along", conference),
        ("both_ids_take_out_and_keep", both),
        ("the_last_one_out_ends_the_conference", last_out),
        ("during_play_autostop_stands_before_the_response", during_play),
        ("during_three_operations", during_three),
        ("leaving_keeps_operations_running", leaving_keeps),
        ("a_conference_with_operations_on_it", conference_operations),
        ("a_second_delete_is_14_then_23", second_delete),
    ];
    rows.into_iter().map(|(name, run)| Row::new(format!("delete::{name}"), run)).collect()
}

fn connection(rig: &mut Rig) {
    let leg = rig.connect();
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 0);
    assert_eq!(rig.used(), Used::default());
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 23);
}

fn low_bitrate(rig: &mut Rig) {
    let leg = rig.connect_with(json!({"MediaTxCodec": "G729"}));
    assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 0);
    assert_eq!(rig.used(), Used::default());
}

fn reserved(rig: &mut Rig) {
    let results = rig.ok("ReserveConnection", json!({"MediaTxCodec": "G723", "MediaRxCodec": "G723"}));
    assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": results["ConnectionId"]})), 0);
    assert_eq!(rig.used(), Used::default());
}

fn room(rig: &mut Rig, members: usize) -> (Vec<Leg>, String) {
    let legs: Vec<Leg> = (0..members).map(|_| rig.connect_saying(Voice::Silence)).collect();
    let conference = rig.mixed(&legs.iter().collect::<Vec<_>>());
    (legs, conference)
}

fn member(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    assert_eq!(rig.used(), Used::new(3, 0, 0, 3));
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": legs[1].id})), 0);
    assert_eq!(rig.used(), Used::new(2, 0, 0, 2));
    assert_eq!(rig.code("Mute", json!({"ConnectionId": legs[0].id, "ConferenceId": conference})), 0);
}

fn conference(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    let other = rig.connect();
    assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})), 0);
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
    for leg in &legs {
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 23);
    }
    assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})), 24);
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": other.id})), 0);
}

fn both(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    let taken_out = json!({"ConnectionId": legs[0].id, "ConferenceId": conference});
    assert_eq!(rig.code("DeleteConnection", taken_out.clone()), 0);
    assert_eq!(rig.used(), Used::new(3, 0, 0, 2));
    assert_eq!(rig.code("DeleteConnection", taken_out), 24, "no member any more");
    // It is still a connection and may come back.
    assert_eq!(rig.code("JoinConference", json!({"ConnectionId": legs[0].id, "ConferenceId": conference})), 0);
}

fn last_out(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    for (left, leg) in legs.iter().enumerate() {
        assert_eq!(rig.code("LeaveConference", json!({"ConnectionId": leg.id, "ConferenceId": conference})), 0);
        assert_eq!(rig.used(), Used::new(3, 0, 0, 2 - left as u64));
    }
    assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})), 24);
    assert_eq!(rig.code("JoinConference", json!({"ConnectionId": legs[0].id, "ConferenceId": conference})), 24);
    for leg in legs {
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 0);
    }
    assert_eq!(rig.used(), Used::default());
}

fn during_play(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 60_000);
    let leg = rig.connect();
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav", "State": "s"}));
    rig.pass(777);
    let response = rig.call("DeleteConnection", json!({"ConnectionId": leg.id}));
    assert_eq!((response.code, response.events_before), (0, 1), "the event comes first");
    let event = rig.ended(&play).expect("told");
    assert_eq!((event.name.as_str(), event.condition().as_str()), ("Play_Complete", "autostop"));
    assert_eq!((event.text("ResultCode").as_str(), event.text("State").as_str()), ("0", "s"));
    assert!(event.elapsed().abs_diff(777) <= 20, "{event:?}");
}

fn during_three(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 60_000);
    let leg = rig.connect_saying(Voice::Silence);
    rig.pass(100);
    let starts = [
        ("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav"})),
        ("Record", json!({"ConnectionId": leg.id, "Filename": "r.wav"})),
        ("DetectNonSilence", json!({"ConnectionId": leg.id, "NonSilenceTime": 1000})),
    ];
    let operations = starts.map(|(action, params): (&str, Value)| rig.operation(action, params));
    rig.pass(300);
    let response = rig.call("DeleteConnection", json!({"ConnectionId": leg.id}));
    assert_eq!((response.code, response.events_before), (0, 3));
    for operation in operations {
        assert_eq!(rig.ended(&operation).expect("told").condition(), "autostop");
    }
    assert_eq!(rig.used(), Used::default());
}

fn leaving_keeps(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 2000);
    let (legs, conference) = room(rig, 2);
    let play = rig.operation("Play", json!({"ConnectionId": legs[0].id, "Prompt1": "long.wav"}));
    rig.pass(500);
    assert_eq!(rig.code("LeaveConference", json!({"ConnectionId": legs[0].id, "ConferenceId": conference})), 0);
    let event = rig.end(&play);
    assert_eq!(event.condition(), "eod");
    assert!(event.elapsed().abs_diff(2000) <= 20, "{event:?}");
}

fn conference_operations(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 60_000);
    let (_, conference) = room(rig, 2);
    let play = rig.operation("Play", json!({"ConferenceId": conference, "Prompt1": "long.wav"}));
    let record = rig.operation("Record", json!({"ConferenceId": conference, "Filename": "c.wav"}));
    rig.pass(300);
    let response = rig.call("DeleteConnection", json!({"ConferenceId": conference}));
    assert_eq!((response.code, response.events_before), (0, 2), "{response:?}");
    for operation in [play, record] {
        assert_eq!(rig.ended(&operation).expect("told").condition(), "autostop");
    }
    assert_eq!(rig.used(), Used::default());
}

fn second_delete(rig: &mut Rig) {
    let leg = rig.connect();
    rig.server.hold();
    let first = rig.begin("DeleteConnection", json!({"ConnectionId": leg.id}));
    assert!(!rig.is_done(&first));
    let second = rig.begin("DeleteConnection", json!({"ConnectionId": leg.id}));
    assert!(rig.is_done(&second), "answered at once");
    assert_eq!(rig.finish(second).code, 14);
    rig.server.release();
    assert_eq!(rig.finish(first).code, 0);
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 23);
}
