//! Section 12: the digit buffer.

use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig};
use crate::row::{Plain, Row};

/// What is in the buffer, the conditions of a GatherDigits, what is pressed then, its condition and `Digits`, what a
/// second GatherDigits of one digit finds at once (`None`: nothing).
type Case = (&'static str, Value, &'static str, &'static str, &'static str, Option<&'static str>);

fn cases() -> Vec<Case> {
    vec![
        ("123", json!({"TermCondMaxDigits": 3}), "", "maxdigits", "123", None),
        // Only so many are taken; the rest stays.
        ("12345", json!({"TermCondMaxDigits": 2}), "", "maxdigits", "12", Some("3")),
        ("12", json!({"TermCondMaxDigits": 4}), "34", "maxdigits", "1234", None),
        ("12#", json!({"TermCondDigit": "#"}), "", "digit", "12#", None),
        // Up to the first occurrence.
        ("1#2#3", json!({"TermCondDigit": "#"}), "", "digit", "1#", Some("2")),
        ("12", json!({"TermCondDigit": "#"}), "3#", "digit", "123#", None),
        ("1*2", json!({"TermCondDigitList": "#*"}), "", "digitlist", "1*", Some("2")),
        ("", json!({"TermCondDigitList": "45"}), "125", "digitlist", "125", None),
        ("9123", json!({"TermCondDigitPattern": "123"}), "", "digitpattern", "9123", None),
        // The published example.
        ("123", json!({"TermCondDigitPattern": "1234"}), "4", "digitpattern", "1234", None),
        ("", json!({"TermCondDigitPattern": "12"}), "1112", "digitpattern", "1112", None),
        ("AbCd", json!({"TermCondDigit": "d"}), "", "digit", "ABCD", None),
        ("12", json!({"TermCondDigit": "7", "TermCondMaxTime": 700}), "3", "maxtime", "123", None),
        ("12", json!({"TermCondDigit": "7", "CommandTimeout": 700}), "", "timeout", "12", None),
        ("12", json!({"TermCondInterDigitDelay": 500}), "", "interdigdelay", "12", None),
        // Only the first character of a digit counts.
        ("12", json!({"TermCondDigit": "21"}), "", "digit", "12", None),
        (
            "",
            json!({"TermCondMaxDigits": 31}),
            "1234567890123456789012345678901",
            "maxdigits",
            "1234567890123456789012345678901",
            None,
        ),
        ("77", json!({"TermCondMaxDigits": 1, "FlushBuffer": true}), "8", "maxdigits", "8", None),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let cases = cases().into_iter().enumerate().map(|(number, (waiting, params, pressed, condition, digits, rest))| {
        Row::new(format!("digits::buffer_{number:02}_{condition}"), move |rig| {
            let leg = connect(rig);
            if !waiting.is_empty() {
                rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": waiting}));
            }
            let event = gather(rig, &leg, params, pressed);
            assert_eq!((event.0.as_str(), event.1.as_str()), (condition, digits));
            let next = rig.operation("GatherDigits", json!({"ConnectionId": leg.id, "TermCondMaxDigits": 1}));
            rig.pass(300);
            assert_eq!(rig.ended(&next).map(|event| event.text("Digits")).as_deref(), rest, "what stays in the buffer");
        })
    });
    let kept = ["Play", "PlayTone", "Record"].into_iter().map(|action| {
        Row::new(format!("digits::{action}_clears_the_buffer_and_keeps_what_is_pressed_then"), move |rig| {
            rig.tone("short.wav", 1000, 600);
            let leg = connect(rig);
            rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": "99"}));
            let params = match action {
                "Play" => json!({"ConnectionId": leg.id, "Prompt1": "short.wav"}),
                "PlayTone" => json!({"ConnectionId": leg.id, "Duration": 600}),
                _ => json!({"ConnectionId": leg.id, "TermCondMaxTime": 600}),
            };
            let operation = rig.operation(action, params);
            rig.press(&leg, "12");
            rig.end(&operation);
            let event = gather(rig, &leg, json!({"TermCondMaxDigits": 2}), "");
            assert_eq!(event, ("maxdigits".to_owned(), "12".to_owned()));
        })
    });
    let rows: [Plain; 10] = [
        ("a_stopped_play_leaves_its_digit_to_the_gather", play_then_gather),
        ("a_pause_of_2_s_starts_a_pattern_anew", pattern_restarts),
        ("a_pause_before_the_gather_does_not", pattern_in_buffer),
        ("overflow_drops_the_newest", overflow),
        ("send_digits_beyond_31_takes_none", send_overflow),
        ("digits_sent_while_operations_run_end_them", sent_live),
        ("three_end_packets_are_one_digit", one_digit),
        ("all_sixteen", all_sixteen),
        ("user_stop_returns_what_was_pressed", stopped),
        ("an_idle_connection_buffers", idle),
    ];
    let rows = rows.into_iter().map(|(name, run)| Row::new(format!("digits::{name}"), run));
    cases.chain(kept).chain(rows).collect()
}

fn connect(rig: &mut Rig) -> Leg {
    let leg = rig.connect_saying(Voice::Silence);
    rig.pass(200);
    leg
}

/// Condition and `Digits` of a GatherDigits while this is pressed.
fn gather(rig: &mut Rig, leg: &Leg, mut params: Value, pressed: &str) -> (String, String) {
    params["ConnectionId"] = leg.id.as_str().into();
    let operation = rig.operation("GatherDigits", params);
    if !pressed.is_empty() {
        rig.press(leg, pressed);
    }
    let event = rig.end_within(&operation, 10_000);
    assert_eq!(event.name, "GatherDigits_Complete");
    // Whatever is still being pressed comes to its end.
    rig.pass(300);
    (event.condition(), event.text("Digits"))
}

fn play_then_gather(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 60_000);
    let leg = connect(rig);
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav", "TermCondMaxDigits": 1}));
    rig.pass(500);
    rig.press(&leg, "123");
    assert_eq!(rig.end(&play).condition(), "maxdigits");
    let event = gather(rig, &leg, json!({"TermCondMaxDigits": 3}), "");
    assert_eq!(event.1, "123");
}

fn pattern_restarts(rig: &mut Rig) {
    let leg = connect(rig);
    let operation = rig.operation("GatherDigits", json!({"ConnectionId": leg.id, "TermCondDigitPattern": "1234"}));
    rig.press(&leg, "12");
    rig.pass(2800);
    rig.press(&leg, "34");
    rig.pass(1000);
    assert_eq!(rig.ended(&operation), None, "they do not belong together");
    rig.press(&leg, "1234");
    let event = rig.end_within(&operation, 2000);
    assert_eq!((event.condition().as_str(), event.text("Digits").as_str()), ("digitpattern", "12341234"));
}

fn pattern_in_buffer(rig: &mut Rig) {
    let leg = connect(rig);
    rig.press(&leg, "12");
    rig.pass(4000);
    rig.press(&leg, "34");
    rig.pass(4000);
    let event = gather(rig, &leg, json!({"TermCondDigitPattern": "1234"}), "");
    assert_eq!(event.0, "digitpattern");
}

fn overflow(rig: &mut Rig) {
    let leg = connect(rig);
    rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": "1".repeat(30)}));
    rig.press(&leg, "29");
    rig.pass(1000);
    let event = gather(rig, &leg, json!({"TermCondMaxTime": 200}), "");
    assert_eq!(event.1, format!("{}2", "1".repeat(30)));
}

fn send_overflow(rig: &mut Rig) {
    let leg = connect(rig);
    rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": "1".repeat(30)}));
    assert_eq!(rig.code("SendDigits", json!({"ConnectionId": leg.id, "Digits": "23"})), 8);
    rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": "4"}));
    let event = gather(rig, &leg, json!({"TermCondMaxDigits": 31}), "");
    assert_eq!(event.1, format!("{}4", "1".repeat(30)));
}

fn sent_live(rig: &mut Rig) {
    rig.tone("long.wav", 1000, 60_000);
    let leg = connect(rig);
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav", "TermCondDigit": "5"}));
    let record = rig.operation("Record", json!({"ConnectionId": leg.id, "Filename": "r.wav", "TermCondDigit": "5"}));
    rig.pass(300);
    rig.ok("SendDigits", json!({"ConnectionId": leg.id, "Digits": "45"}));
    for operation in [play, record] {
        assert_eq!(rig.end_within(&operation, 100).condition(), "digit");
    }
}

fn one_digit(rig: &mut Rig) {
    let leg = connect(rig);
    rig.press(&leg, "5");
    rig.press(&leg, "5");
    rig.pass(1000);
    let event = gather(rig, &leg, json!({"TermCondMaxTime": 100}), "");
    assert_eq!(event.1, "55");
}

fn all_sixteen(rig: &mut Rig) {
    let leg = connect(rig);
    let event = gather(rig, &leg, json!({"TermCondMaxDigits": 16}), "0123456789*#ABCD");
    assert_eq!(event.1, "0123456789*#ABCD");
}

fn stopped(rig: &mut Rig) {
    let leg = connect(rig);
    let operation = rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
    rig.press(&leg, "12");
    rig.pass(1000);
    rig.ok("StopMediaOperation", json!({"ConnectionId": leg.id, "OperationId": operation}));
    let event = rig.ended(&operation).expect("told");
    assert_eq!((event.condition().as_str(), event.text("Digits").as_str()), ("userstop", "12"));
}

fn idle(rig: &mut Rig) {
    let leg = connect(rig);
    rig.press(&leg, "42#");
    rig.pass(20_000);
    let event = gather(rig, &leg, json!({"TermCondDigit": "#"}), "");
    assert_eq!(event.1, "42#");
}
