//! Table 7.2: every condition on every action that lists it, by live digits and real sound; 7.3; the order of
//! precedence; section 13's limits.

use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig};
use crate::row::Row;

/// What has to happen for a condition to hold.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    /// Nothing: it holds so many milliseconds after the start.
    After(u64),
    /// So many milliseconds after the start these digits are pressed; it holds with the last of them.
    Press(u64, &'static str),
    /// It holds so many milliseconds after the last of the digits.
    PressAnd(u64, &'static str, u64),
    /// The phone changes its voice so many milliseconds after the start; it holds so many milliseconds after that.
    Say(u64, Voice, u64),
    /// StopMediaOperation.
    Stop,
    /// DeleteConnection.
    Delete,
}

use Trigger::{After, Delete, Press, PressAnd, Say, Stop};

/// Action, its parameters, what the phone says at first, what happens, the condition.
type Case = (&'static str, Value, Voice, Trigger, &'static str);

/// Tone of a phone.
const TONE: Voice = Voice::Tone(440);
const SILENCE: Voice = Voice::Silence;

fn cases() -> Vec<Case> {
    let play = || json!({"Prompt1": "long.wav"});
    let short = || json!({"Prompt1": "short.wav"});
    let tone = || json!({"Duration": 9000});
    let record = || json!({"Filename": "a.wav"});
    let gather = || json!({});
    let silence = |ms: u32| json!({"SilenceTime": ms});
    let nonsilence = |ms: u32| json!({"NonSilenceTime": ms});
    let with = |mut params: Value, name: &str, value: Value| {
        params[name] = value;
        params
    };
    let mut cases: Vec<Case> = vec![
        ("Play", short(), SILENCE, After(700), "eod"),
        (
            "Play",
            json!({"Prompt1": "short.wav", "Prompt2": "short.wav", "Prompt3": "short.wav"}),
            SILENCE,
            After(2100),
            "eod",
        ),
        ("SeekAndPlay", json!({"Prompt": "short.wav"}), SILENCE, After(700), "eod"),
        ("SeekAndPlay", json!({"Prompt": "short.wav", "SeekPosition": 400}), SILENCE, After(300), "eod"),
        ("SeekAndPlay", json!({"Prompt": "short.wav", "SeekPosition": 700}), SILENCE, After(0), "eod"),
        ("PlayTone", json!({}), SILENCE, After(1000), "eod"),
        ("PlayTone", json!({"Duration": 330}), SILENCE, After(330), "eod"),
        // The configured cap of a tone.
        ("PlayTone", json!({"Duration": 15_000}), SILENCE, After(10_000), "timeout"),
        (
            "GatherDigits",
            with(gather(), "TermCondDigitPattern", "1#4".into()),
            SILENCE,
            Press(200, "1#4"),
            "digitpattern",
        ),
        (
            "GatherDigits",
            with(gather(), "TermCondDigitPattern", "12".into()),
            SILENCE,
            Press(200, "3112"),
            "digitpattern",
        ),
        (
            "GatherDigits",
            with(gather(), "TermCondInterDigitDelay", 800.into()),
            SILENCE,
            PressAnd(300, "12", 800),
            "interdigdelay",
        ),
        // Before the first digit it does not run.
        (
            "GatherDigits",
            with(gather(), "TermCondInterDigitDelay", 400.into()),
            SILENCE,
            PressAnd(2000, "5", 400),
            "interdigdelay",
        ),
        ("DetectSilence", silence(600), SILENCE, After(600), "silence"),
        ("DetectSilence", silence(600), TONE, Say(500, SILENCE, 600), "silence"),
        ("DetectNonSilence", nonsilence(600), TONE, After(600), "nonsilence"),
        ("DetectNonSilence", nonsilence(600), SILENCE, Say(500, TONE, 600), "nonsilence"),
        // The default limit of a detection.
        ("DetectSilence", silence(600), TONE, After(30_000), "timeout"),
        ("DetectNonSilence", nonsilence(600), SILENCE, After(30_000), "timeout"),
        // Two in 13: the defaults of the others.
        ("GatherDigits", gather(), SILENCE, After(90_000), "timeout"),
        ("Play", json!({"Prompt1": "endless.wav"}), Voice::Nothing, After(600_000), "timeout"),
        ("Record", record(), Voice::Nothing, After(600_000), "timeout"),
    ];
    let heard: [(&str, Value); 3] =
        [("Play", play()), ("SeekAndPlay", json!({"Prompt": "long.wav"})), ("PlayTone", tone())];
    for (action, base) in heard.iter().cloned().chain([("Record", record()), ("GatherDigits", gather())]) {
        cases.push((action, with(base.clone(), "TermCondMaxTime", 540.into()), SILENCE, After(540), "maxtime"));
        cases.push((action, with(base, "TermCondDigit", "#".into()), SILENCE, Press(200, "12#"), "digit"));
    }
    for (action, base) in heard.iter().cloned().chain([("GatherDigits", gather())]) {
        cases.push((
            action,
            with(base.clone(), "TermCondMaxDigits", 3.into()),
            SILENCE,
            Press(200, "129"),
            "maxdigits",
        ));
        cases.push((action, with(base, "TermCondDigitList", "*7A".into()), SILENCE, Press(200, "12A"), "digitlist"));
    }
    for (action, base) in heard.iter().cloned().chain([("Record", record())]) {
        cases.push((action, with(base.clone(), "TermCondSilence", 700.into()), SILENCE, After(700), "silence"));
        cases.push((
            action,
            with(base.clone(), "TermCondSilence", 700.into()),
            TONE,
            Say(400, SILENCE, 700),
            "silence",
        ));
        cases.push((action, with(base.clone(), "TermCondNonSilence", 300.into()), TONE, After(300), "nonsilence"));
        cases.push((action, with(base, "TermCondNonSilence", 300.into()), SILENCE, Say(400, TONE, 300), "nonsilence"));
    }
    let limited = heard.iter().take(2).cloned().chain([
        ("Record", record()),
        ("GatherDigits", gather()),
        ("DetectSilence", silence(60_000)),
        ("DetectNonSilence", nonsilence(60_000)),
    ]);
    for (action, base) in limited {
        cases.push((action, with(base, "CommandTimeout", 1500.into()), SILENCE, After(1500), "timeout"));
    }
    let all = heard.into_iter().chain([
        ("Record", record()),
        ("GatherDigits", gather()),
        ("DetectSilence", silence(60_000)),
        ("DetectNonSilence", nonsilence(60_000)),
    ]);
    for (action, base) in all {
        cases.push((action, base.clone(), SILENCE, Stop, "userstop"));
        cases.push((action, base, SILENCE, Delete, "autostop"));
    }
    cases
}

pub(crate) fn rows() -> Vec<Row> {
    let live = cases().into_iter().enumerate().map(|(number, (action, params, voice, trigger, condition))| {
        Row::new(format!("conditions::{action}::{condition}_{number:03}"), move |rig| {
            carry_out(rig, action, params, voice, trigger, condition);
        })
    });
    live.chain(precedence())
        .chain([
            Row::new("conditions::state_comes_back_with_every_event", state_comes_back),
            Row::new("conditions::a_tone_condition_needs_no_media", conditions_without_media),
            Row::new("conditions::speech_shorter_than_the_time_does_not_count", short_sounds),
            Row::new("conditions::zero_is_no_condition", zero_is_none),
            Row::new("conditions::conditions_combine_and_the_first_wins", first_wins),
        ])
        .collect()
}

fn prompts(rig: &Rig) {
    rig.tone("short.wav", 1000, 700);
    rig.tone("long.wav", 1000, 20_000);
}

fn carry_out(rig: &mut Rig, action: &str, mut params: Value, voice: Voice, trigger: Trigger, condition: &str) {
    prompts(rig);
    if params["Prompt1"] == "endless.wav" {
        rig.tone("endless.wav", 1000, 650_000);
    }
    let leg = if voice == Voice::Nothing { rig.connect() } else { rig.connect_saying(voice) };
    // The phone is known, its stream is under way.
    rig.pass(500);
    params["ConnectionId"] = leg.id.as_str().into();
    params["State"] = "opaque 1/2".into();
    let idle = rig.used();
    let began = rig.ms();
    let operation = rig.operation(action, params.clone());
    assert_eq!(rig.used().voice, idle.voice + 1, "one voice resource while it runs");
    let (expected, tolerance) = match trigger {
        After(ms) => (began + ms, CLOCK_MS),
        Press(after, digits) => {
            rig.pass(after);
            (rig.press(&leg, digits) - DIGIT_MS / 2, CLOCK_MS + DIGIT_MS / 2)
        }
        PressAnd(after, digits, then) => {
            rig.pass(after);
            (rig.press(&leg, digits) - DIGIT_MS / 2 + then, CLOCK_MS + DIGIT_MS / 2)
        }
        Say(after, voice, then) => {
            rig.pass(after);
            rig.at(&leg).say(voice);
            (rig.ms() + then, SOUND_MS)
        }
        Stop => {
            rig.pass(333);
            let at = rig.ms();
            assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": leg.id})), 0);
            (at, CLOCK_MS)
        }
        Delete => {
            rig.pass(333);
            let at = rig.ms();
            assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 0);
            (at, CLOCK_MS)
        }
    };
    let left = expected.saturating_sub(rig.ms());
    let event = rig.end_within(&operation, left + 1000);
    assert_eq!(event.condition(), condition, "{action} {params} {trigger:?}: {event:?}");
    assert_eq!(event.name, format!("{action}_Complete"));
    assert!(
        event.ms.abs_diff(expected) <= tolerance,
        "{action} {trigger:?} ended {} ms after its start instead of {}",
        event.ms - began,
        expected - began,
    );
    assert_eq!(event.text("ResultCode"), "0");
    assert_eq!(event.text("ConnectionId"), leg.id);
    assert_eq!(event.text("State"), "opaque 1/2");
    if !matches!(action, "PlayTone" | "DetectSilence" | "DetectNonSilence") {
        assert!(event.elapsed() >= u64::from(matches!(trigger, Stop | Delete)), "{event:?}");
        let took = expected - began;
        assert!(event.elapsed().abs_diff(took) <= tolerance, "ElapsedTime {} instead of {took}", event.elapsed());
    }
    if action == "Record" {
        assert_eq!(event.text("Filename"), "a.wav");
    }
    let released = matches!(trigger, Delete);
    assert_eq!(rig.used().voice, idle.voice, "the voice resource is back");
    assert_eq!(rig.used().rtp, idle.rtp - u64::from(released));
}

/// The order of 7.2, if several hold in the same step.
fn precedence() -> Vec<Row> {
    // Digits that come at once make all of these hold in one step.
    let by_digits: [(&str, Value, &str); 5] = [
        (
            "digitpattern",
            json!({"TermCondDigitPattern": "12", "TermCondDigit": "2", "TermCondDigitList": "2", "TermCondMaxDigits": 2}),
            "GatherDigits",
        ),
        ("digit", json!({"TermCondDigit": "2", "TermCondDigitList": "2", "TermCondMaxDigits": 2}), "GatherDigits"),
        ("digitlist", json!({"TermCondDigitList": "2", "TermCondMaxDigits": 2}), "GatherDigits"),
        (
            "digit",
            json!({"TermCondDigit": "2", "TermCondDigitList": "2", "TermCondMaxDigits": 2, "Prompt1": "long.wav"}),
            "Play",
        ),
        ("maxdigits", json!({"TermCondMaxDigits": 2, "Prompt1": "long.wav"}), "Play"),
    ];
    let by_time: [(&str, Value, &str); 6] = [
        ("maxtime", json!({"TermCondMaxTime": 700, "CommandTimeout": 700, "Prompt1": "short.wav"}), "Play"),
        ("maxtime", json!({"TermCondMaxTime": 700, "Prompt1": "short.wav"}), "Play"),
        ("eod", json!({"CommandTimeout": 700, "Prompt1": "short.wav"}), "Play"),
        ("maxtime", json!({"TermCondMaxTime": 700, "TermCondSilence": 700, "Prompt1": "long.wav"}), "Play"),
        ("silence", json!({"TermCondSilence": 700, "Prompt1": "short.wav"}), "Play"),
        ("maxtime", json!({"TermCondMaxTime": 500, "CommandTimeout": 500}), "GatherDigits"),
    ];
    let digits = by_digits.into_iter().enumerate().map(|(number, (condition, params, action))| {
        Row::new(format!("conditions::precedence::digits_{number}_{condition}"), move |rig| {
            let operation = start(rig, action, params);
            let id = rig.ended(&operation.1);
            assert_eq!(id, None, "not before the digits");
            rig.ok("SendDigits", json!({"ConnectionId": operation.0.id, "Digits": "12"}));
            assert_eq!(rig.end_within(&operation.1, 1000).condition(), condition);
        })
    });
    let time = by_time.into_iter().enumerate().map(|(number, (condition, params, action))| {
        Row::new(format!("conditions::precedence::time_{number}_{condition}"), move |rig| {
            let operation = start(rig, action, params);
            assert_eq!(rig.end_within(&operation.1, 2000).condition(), condition);
        })
    });
    digits.chain(time).collect()
}

fn start(rig: &mut Rig, action: &str, mut params: Value) -> (Leg, String) {
    prompts(rig);
    let leg = rig.connect_saying(SILENCE);
    rig.pass(500);
    params["ConnectionId"] = leg.id.as_str().into();
    let operation = rig.operation(action, params);
    (leg, operation)
}

fn state_comes_back(rig: &mut Rig) {
    // A recording whose file can't be written any more fails; what fails has its State too.
    let (leg, play) = start(rig, "Play", json!({"Prompt1": "short.wav", "State": "{\"a\": [1, \"ü\"]}"}));
    assert_eq!(rig.end(&play).text("State"), "{\"a\": [1, \"ü\"]}");
    let without = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "short.wav"}));
    assert!(rig.end(&without).params.get("State").is_none(), "no State was given");
}

fn conditions_without_media(rig: &mut Rig) {
    prompts(rig);
    let leg = rig.connect();
    // Nobody sends anything: that is silence.
    let began = rig.ms();
    let operation = rig.operation("PlayTone", json!({"ConnectionId": leg.id, "Duration": 0, "TermCondSilence": 800}));
    let event = rig.end_within(&operation, 2000);
    assert_eq!(event.condition(), "silence");
    assert!((event.ms - began).abs_diff(800) <= CLOCK_MS, "{}", event.ms - began);
}

fn short_sounds(rig: &mut Rig) {
    let (leg, operation) = start(rig, "DetectNonSilence", json!({"NonSilenceTime": 500}));
    for _ in 0..4 {
        rig.at(&leg).say(TONE);
        rig.pass(300);
        rig.at(&leg).say(SILENCE);
        rig.pass(1000);
    }
    assert_eq!(rig.ended(&operation), None, "300 ms are not 500");
    rig.at(&leg).say(TONE);
    let at = rig.ms();
    let event = rig.end_within(&operation, 2000);
    assert_eq!(event.condition(), "nonsilence");
    assert!((event.ms - at).abs_diff(500) <= SOUND_MS, "{}", event.ms - at);
}

fn zero_is_none(rig: &mut Rig) {
    let zeros = json!({"Prompt1": "short.wav", "TermCondMaxTime": 0, "TermCondSilence": 0, "TermCondNonSilence": 0, "TermCondMaxDigits": 0});
    let (_, operation) = start(rig, "Play", zeros);
    assert_eq!(rig.end(&operation).condition(), "eod");
}

fn first_wins(rig: &mut Rig) {
    let all = json!({
        "Prompt1": "long.wav", "TermCondMaxTime": 5000, "TermCondMaxDigits": 4, "TermCondDigit": "9", "TermCondDigitList": "78",
        "TermCondSilence": 9000, "TermCondNonSilence": 9000, "CommandTimeout": 8000,
    });
    let (leg, operation) = start(rig, "Play", all);
    rig.pass(300);
    let over = rig.press(&leg, "127");
    let event = rig.end(&operation);
    assert_eq!(event.condition(), "digitlist");
    assert!(event.ms.abs_diff(over - DIGIT_MS / 2) <= CLOCK_MS + DIGIT_MS / 2);
}

/// Accuracy of whatever follows a clock or a digit.
const CLOCK_MS: u64 = 20;
/// How long a digit is pressed. When within that time it counts is left open.
const DIGIT_MS: u64 = 60;
/// The same for sound: it is known a packet late (20 ms) and waits in the jitter buffer (20 ms).
const SOUND_MS: u64 = 60;
