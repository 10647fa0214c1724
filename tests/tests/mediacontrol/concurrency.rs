//! Section 14: which operations run beside which, and how many commands may wait.

use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig};
use crate::row::{Plain, Row};

/// The asynchronous actions.
const OPERATIONS: [&str; 7] =
    ["Play", "SeekAndPlay", "PlayTone", "Record", "GatherDigits", "DetectSilence", "DetectNonSilence"];

/// What is tried beside them.
const TRIED: [&str; 13] = [
    "Play",
    "SeekAndPlay",
    "PlayTone",
    "Record",
    "GatherDigits",
    "DetectSilence",
    "DetectNonSilence",
    "SendDigits",
    "StopMediaOperation",
    "ModifyConnection",
    "DeleteConnection",
    "CreateConference",
    "JoinConference",
];

/// Table 14.1.
fn expected(running: &str, tried: &str) -> u32 {
    let heard = |action: &str| matches!(action, "Play" | "SeekAndPlay" | "PlayTone");
    let detects = |action: &str| action.starts_with("Detect");
    match tried {
        "CreateConference" | "JoinConference" => 14,
        _ if heard(tried) && heard(running) => 14,
        _ if detects(tried) && detects(running) => 14,
        _ if OPERATIONS.contains(&tried) => 1,
        _ => 0,
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let matrix = OPERATIONS.into_iter().flat_map(|running| TRIED.into_iter().map(move |tried| (running, tried)));
    let matrix = matrix.map(|(running, tried)| {
        let code = expected(running, tried);
        Row::new(format!("concurrency::{tried}_beside_{running}_is_{code}"), move |rig| {
            let (leg, conference) = scene(rig);
            let operation = rig.operation(running, params(running, &leg, &conference));
            rig.pass(100);
            let response = rig.call(tried, params(tried, &leg, &conference));
            assert_eq!(response.code, code, "{response:?}");
            rig.pass(200);
            match tried {
                "StopMediaOperation" => assert_eq!(rig.end(&operation).condition(), "userstop"),
                "DeleteConnection" => assert_eq!(rig.end(&operation).condition(), "autostop"),
                _ => assert_eq!(rig.ended(&operation), None, "what ran goes on"),
            }
        })
    });
    let others: [Plain; 9] = [
        ("a_fourth_operation_is_8", fourth),
        ("several_gathers_see_the_same_digits", several_gathers),
        ("adjust_beside_a_play_and_its_fellows", adjust_beside),
        ("conference_leave_is_always_allowed", leave),
        ("eight_wait_and_the_ninth_is_14", eight_wait),
        ("what_is_always_allowed_does_not_wait", always),
        ("a_delete_is_queued", delete_is_queued),
        ("commands_of_one_connection_keep_their_order", order),
        ("the_response_stands_before_the_end", response_first),
    ];
    matrix.chain(others.into_iter().map(|(name, run)| Row::new(format!("concurrency::{name}"), run))).collect()
}

fn scene(rig: &mut Rig) -> (Leg, String) {
    rig.tone("long.wav", 1000, 60_000);
    let (leg, other) = (rig.connect_saying(Voice::Silence), rig.connect());
    let conference = rig.mixed(&[&other]);
    rig.pass(200);
    (leg, conference)
}

fn params(action: &str, leg: &Leg, conference: &str) -> Value {
    let mut params = match action {
        "Play" => json!({"Prompt1": "long.wav"}),
        "SeekAndPlay" => json!({"Prompt": "long.wav", "SeekPosition": 5}),
        "PlayTone" => json!({"Duration": 8000}),
        "DetectSilence" => json!({"SilenceTime": 50_000, "CommandTimeout": 100_000}),
        "DetectNonSilence" => json!({"NonSilenceTime": 5000, "CommandTimeout": 100_000}),
        "SendDigits" => json!({"Digits": "1"}),
        "ModifyConnection" => json!({"MediaTxIP": "10.1.0.77", "MediaTxPort": 7000}),
        "JoinConference" => json!({"ConferenceId": conference}),
        _ => json!({}),
    };
    params["ConnectionId"] = leg.id.as_str().into();
    params
}

fn fourth(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    for action in ["Play", "Record", "GatherDigits"] {
        rig.operation(action, params(action, &leg, &conference));
    }
    for action in ["GatherDigits", "Record", "DetectSilence"] {
        assert_eq!(rig.code(action, params(action, &leg, &conference)), 8, "{action}");
    }
    assert_eq!(rig.used().voice, 3);
}

fn several_gathers(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    rig.operation("Play", params("Play", &leg, &conference));
    let one = rig.operation("GatherDigits", json!({"ConnectionId": leg.id, "TermCondMaxDigits": 2}));
    let other = rig.operation("GatherDigits", json!({"ConnectionId": leg.id, "TermCondDigit": "#"}));
    rig.press(&leg, "12#");
    let (one, other) = (rig.end_within(&one, 1000), rig.end_within(&other, 1000));
    assert_eq!((one.condition().as_str(), one.text("Digits").as_str()), ("maxdigits", "12"));
    assert_eq!((other.condition().as_str(), other.text("Digits").as_str()), ("digit", "12#"));
}

fn adjust_beside(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    for action in ["Play", "Record", "GatherDigits"] {
        rig.operation(action, params(action, &leg, &conference));
    }
    assert_eq!(rig.code("AdjustPlay", json!({"ConnectionId": leg.id, "Volume": 1})), 0);
}

fn leave(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    rig.ok("JoinConference", params("JoinConference", &leg, &conference));
    let play = rig.operation("Play", params("Play", &leg, &conference));
    assert_eq!(rig.code("LeaveConference", json!({"ConnectionId": leg.id, "ConferenceId": conference})), 0);
    rig.pass(500);
    assert_eq!(rig.ended(&play), None);
}

fn eight_wait(rig: &mut Rig) {
    let (leg, _) = scene(rig);
    let free = rig.connect();
    rig.server.hold();
    let gather = json!({"ConnectionId": leg.id, "TermCondMaxTime": 100});
    let mut flights: Vec<_> = (0..9).map(|_| rig.begin("GatherDigits", gather.clone())).collect();
    assert!(flights.iter().all(|flight| !rig.is_done(flight)), "one unanswered, eight wait");
    let ninth = rig.begin("GatherDigits", gather);
    assert!(rig.is_done(&ninth), "the ninth that would wait is answered at once");
    assert_eq!(rig.finish(ninth).code, 14);
    // Other connections have queues of their own.
    let other = rig.begin("GatherDigits", json!({"ConnectionId": free.id, "TermCondMaxTime": 100}));
    assert!(!rig.is_done(&other));
    rig.server.release();
    let codes: Vec<u32> = flights.drain(..).map(|flight| rig.finish(flight).code).collect();
    assert_eq!(codes, [1, 1, 1, 8, 8, 8, 8, 8, 8], "three run, in the order sent");
    assert_eq!(rig.finish(other).code, 1);
}

fn always(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    let play = rig.operation("Play", params("Play", &leg, &conference));
    rig.server.hold();
    let gather = json!({"ConnectionId": leg.id, "TermCondMaxTime": 100});
    let flights: Vec<_> = (0..9).map(|_| rig.begin("GatherDigits", gather.clone())).collect();
    // The queue is full; these are taken all the same.
    let taken = [
        rig.begin("SendDigits", json!({"ConnectionId": leg.id, "Digits": "1"})),
        rig.begin("AdjustPlay", json!({"ConnectionId": leg.id, "Volume": 1})),
        rig.begin("StopMediaOperation", json!({"ConnectionId": leg.id, "OperationId": play})),
        rig.begin("ModifyConnection", params("ModifyConnection", &leg, &conference)),
    ];
    assert!(taken.iter().all(|flight| !rig.is_done(flight)), "none is refused");
    rig.server.release();
    for flight in taken {
        let response = rig.finish(flight);
        assert_eq!(response.code, 0, "{response:?}");
    }
    for flight in flights {
        rig.finish(flight);
    }
}

fn delete_is_queued(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    rig.server.hold();
    let play = rig.begin("Play", params("Play", &leg, &conference));
    let delete = rig.begin("DeleteConnection", json!({"ConnectionId": leg.id}));
    assert!(!rig.is_done(&play) && !rig.is_done(&delete));
    rig.server.release();
    let play = rig.finish(play);
    assert_eq!(play.code, 1, "{play:?}");
    assert_eq!(rig.finish(delete).code, 0);
    let operation = crate::rig::text(&play.results["OperationId"]);
    assert_eq!(rig.end_within(&operation, 100).condition(), "autostop");
}

fn order(rig: &mut Rig) {
    let (leg, conference) = scene(rig);
    rig.server.hold();
    let flights = [
        rig.begin("Play", params("Play", &leg, &conference)),
        rig.begin("StopMediaOperation", json!({"ConnectionId": leg.id})),
        rig.begin("Play", params("Play", &leg, &conference)),
    ];
    rig.server.release();
    let codes = flights.map(|flight| rig.finish(flight).code);
    // A stop is never refused, and what follows it finds the connection free.
    assert_eq!(codes, [1, 0, 1]);
}

fn response_first(rig: &mut Rig) {
    let (leg, _) = scene(rig);
    rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": "12#"}));
    let response = rig.call("GatherDigits", json!({"ConnectionId": leg.id, "TermCondDigit": "#"}));
    assert_eq!((response.code, response.events_before), (1, 0), "the condition holds at once, the response is first");
    let operation = crate::rig::text(&response.results["OperationId"]);
    let event = rig.end_within(&operation, 50);
    assert_eq!((event.condition().as_str(), event.text("Digits").as_str()), ("digit", "12#"));
    let beyond = json!({"ConnectionId": leg.id, "Prompt": "long.wav", "SeekPosition": 60_000});
    let response = rig.call("SeekAndPlay", beyond);
    assert_eq!((response.code, response.events_before), (1, 1));
    let operation = crate::rig::text(&response.results["OperationId"]);
    assert_eq!(rig.end_within(&operation, 50).condition(), "eod");
}
