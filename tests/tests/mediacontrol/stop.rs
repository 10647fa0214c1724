//! Section 5.12, rule by rule.

use ringbridge_tests::virtual_time::Voice;
use serde_json::json;

use crate::rig::{Leg, Rig, text};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let rows: [Plain; 13] = [
        ("one_of_two_is_named", one_of_two),
        ("all_of_three", all_of_three),
        ("events_stand_before_the_response", events_first),
        ("without_block_the_response_may_come_first", without_block),
        ("nothing_runs", nothing_runs),
        ("a_finished_operation_is_25", finished),
        ("the_connection_of_a_conference_play", conference_play),
        ("the_connection_of_a_conference_record", conference_record),
        ("a_stopped_record_is_a_whole_file", record_file),
        ("elapsed_is_at_least_1", elapsed),
        ("a_natural_end_that_came_first_stays", natural_end),
        ("a_member_is_back_in_the_mix", back_in_the_mix),
        ("it_passes_by_the_queue", passes_by),
    ];
    rows.into_iter().map(|(name, run)| Row::new(format!("stop::{name}"), run)).collect()
}

/// A connection on which a play, a record and a gather run.
fn three(rig: &mut Rig) -> (Leg, [String; 3]) {
    rig.tone("long.wav", 1000, 60_000);
    let leg = rig.connect_saying(Voice::Silence);
    rig.pass(200);
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav"}));
    let record = rig.operation("Record", json!({"ConnectionId": leg.id, "Filename": "r.wav"}));
    let gather = rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
    (leg, [play, record, gather])
}

fn one_of_two(rig: &mut Rig) {
    let (leg, [play, record, gather]) = three(rig);
    rig.pass(400);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id, "OperationId": play})), 0);
    let event = rig.ended(&play).expect("told before the response");
    assert_eq!((event.name.as_str(), event.condition().as_str()), ("Play_Complete", "userstop"));
    assert_eq!(event.text("ResultCode"), "0");
    assert!(event.elapsed().abs_diff(400) <= 20, "{event:?}");
    rig.pass(1000);
    assert_eq!((rig.ended(&record), rig.ended(&gather)), (None, None), "the others go on");
}

fn all_of_three(rig: &mut Rig) {
    let (leg, operations) = three(rig);
    rig.pass(400);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id})), 0);
    for operation in operations {
        assert_eq!(rig.ended(&operation).expect("told before the response").condition(), "userstop");
    }
    // The connection is as good as new.
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav", "TermCondMaxTime": 100}));
    assert_eq!(rig.end(&play).condition(), "maxtime");
}

fn events_first(rig: &mut Rig) {
    let (leg, operations) = three(rig);
    rig.pass(100);
    for block in
        [json!({"ConnectionId": leg.id, "OperationId": operations[0], "Block": true}), json!({"ConnectionId": leg.id})]
    {
        let known = rig.events().len() as u64;
        let response = rig.call("StopMediaOperation", block);
        assert!(response.events_before > known, "the events come first: {response:?}");
        assert_eq!(response.events_before, rig.events().len() as u64, "all of them");
    }
    assert_eq!(rig.events().len(), 3);
}

fn without_block(rig: &mut Rig) {
    let (leg, operations) = three(rig);
    rig.pass(100);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id, "Block": false})), 0);
    for operation in operations {
        assert_eq!(rig.end_within(&operation, 1000).condition(), "userstop");
    }
}

fn nothing_runs(rig: &mut Rig) {
    let leg = rig.connect();
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id})), 0);
    rig.pass(100);
    assert!(rig.events().is_empty());
}

fn finished(rig: &mut Rig) {
    rig.tone("short.wav", 1000, 100);
    let leg = rig.connect();
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "short.wav"}));
    rig.end(&play);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id, "OperationId": play})), 25);
}

/// A conference of two; what an operation on it returned.
fn on_conference(rig: &mut Rig, action: &str, mut params: serde_json::Value) -> (String, String, String) {
    rig.tone("long.wav", 1000, 60_000);
    let (a, b) = (rig.connect_saying(Voice::Silence), rig.connect_saying(Voice::Silence));
    let conference = rig.mixed(&[&a, &b]);
    params["ConferenceId"] = conference.as_str().into();
    let started = rig.ok(action, params);
    let (utility, operation) = (text(&started["ConnectionId"]), text(&started["OperationId"]));
    assert!(utility != a.id && utility != b.id, "an id of its own");
    assert!(
        utility.parse::<u32>().is_ok_and(|id| id >> 24 == a.id.parse::<u32>().expect("a number") >> 24),
        "{utility}"
    );
    (conference, utility, operation)
}

fn conference_play(rig: &mut Rig) {
    let (_, utility, operation) = on_conference(rig, "Play", json!({"Prompt1": "long.wav"}));
    rig.pass(300);
    // It stands for the operation.
    assert_eq!(rig.code("AdjustPlay", json!({"ConnectionId": utility, "Volume": -5})), 0);
    let response = rig.call("StopMediaOperation", json!({"ConnectionId": utility}));
    assert_eq!(response.code, 0, "{response:?}");
    let event = rig.ended(&operation).expect("told before the response");
    assert_eq!((event.condition().as_str(), event.text("ConnectionId").as_str()), ("userstop", utility.as_str()));
    // And ends with it.
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": utility})), 23);
}

fn conference_record(rig: &mut Rig) {
    let (conference, utility, operation) = on_conference(rig, "Record", json!({"Filename": "c.wav"}));
    rig.pass(300);
    let stop = json!({"ConnectionId": utility, "OperationId": operation});
    assert_eq!(rig.code("StopMediaOperation", stop), 0);
    let event = rig.ended(&operation).expect("told before the response");
    assert_eq!((event.condition().as_str(), event.text("Filename").as_str()), ("userstop", "c.wav"));
    assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})), 0, "the conference was still there");
}

fn record_file(rig: &mut Rig) {
    let leg = rig.connect_saying(Voice::Tone(700));
    rig.pass(300);
    let params =
        json!({"ConnectionId": leg.id, "Filename": "r.wav", "AudioFileEncoding": "pcm", "AudioFileSampleSize": 16});
    let record = rig.operation("Record", params);
    rig.pass(2000);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id})), 0);
    // The file is whole when the response is there.
    let mut file = hound::WavReader::open(rig.server.recording("r.wav")).expect("a file");
    let samples: Vec<i16> = file.samples().map(|sample| sample.expect("a sample")).collect();
    assert!(samples.len().abs_diff(16_000) <= 320, "{}", samples.len());
    assert!(ringbridge_tests::audio::share(&samples[1600..], 700) > 0.9);
    assert!(rig.ended(&record).expect("told").elapsed().abs_diff(2000) <= 20);
}

fn elapsed(rig: &mut Rig) {
    let (leg, operations) = three(rig);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id})), 0);
    for operation in operations {
        assert!(rig.end(&operation).elapsed() >= 1);
    }
}

fn natural_end(rig: &mut Rig) {
    rig.tone("short.wav", 1000, 300);
    let leg = rig.connect();
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "short.wav"}));
    rig.end(&play);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id})), 0);
    rig.pass(500);
    assert_eq!(rig.ended(&play).expect("one event").condition(), "eod");
    assert_eq!(rig.events().len(), 1);
}

fn back_in_the_mix(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 60_000);
    let (a, b) = (rig.connect_saying(Voice::Tone(500)), rig.connect_saying(Voice::Silence));
    rig.mixed(&[&a, &b]);
    rig.pass(1000);
    let heard = |rig: &mut Rig, leg: &Leg, hz| {
        let now = rig.ms();
        rig.at(leg).share(hz, now - 400, now)
    };
    assert!(heard(rig, &b, 500) > 0.8, "b hears a");
    rig.operation("Play", json!({"ConnectionId": a.id, "Prompt1": "long.wav"}));
    rig.pass(1000);
    assert!(heard(rig, &b, 500) < 0.05, "a is out of the mix while it is played to");
    assert!(heard(rig, &a, 1000) > 0.8, "a hears the prompt");
    assert!(heard(rig, &b, 1000) < 0.05, "b does not");
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": a.id})), 0);
    rig.pass(1000);
    assert!(heard(rig, &b, 500) > 0.8, "a is back");
}

fn passes_by(rig: &mut Rig) {
    let (leg, operations) = three(rig);
    // An operation beyond the limit of three is refused, the stop is not.
    assert_eq!(rig.code("GatherDigits", json!({"ConnectionId": leg.id})), 8);
    assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id, "OperationId": operations[2]})), 0);
    rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
}
