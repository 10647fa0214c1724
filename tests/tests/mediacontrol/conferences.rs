//! Sections 4 and 10: hairpins and their promotion, roles, tones.

use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig, Used, text};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let rows: [Plain; 22] = [
        ("results_of_a_conference", results),
        ("a_hairpin_is_the_default_and_takes_nothing", hairpin),
        ("a_third_party_promotes", third),
        ("mute_on_a_hairpin", mute_hairpin),
        ("tariff_tone_waits_for_promotion", tariff_waits),
        ("tariff_tone_is_heard_by_one_alone", tariff_tone),
        ("join_tone_by_default", join_tone),
        ("no_join_tone_if_not_wanted", no_join_tone),
        ("no_join_tone_for_those_who_cannot_be_heard", silent_join),
        ("no_join_tone_in_a_hairpin", hairpin_join),
        ("mute_and_unmute", mute),
        ("receive_only_can_be_unmuted", receive_only),
        ("a_monitor_hears_and_is_not_heard", monitor),
        ("monitors_share_one_resource", monitors_share),
        ("monitors_alone_keep_no_conference", monitors_alone),
        ("an_operation_keeps_no_conference", operation_alone),
        ("a_coach_is_heard_by_the_pupil_alone", coach),
        ("the_coach_moves", coach_moves),
        ("a_coach_turned_pupil_is_no_coach", coach_turned_pupil),
        ("attributes_are_set_all_or_none", all_or_none),
        ("coach_excludes_everything_else_at_join", coach_excludes),
        ("everybody_hears_a_play_on_the_conference", conference_play),
    ];
    let promotions: [(&str, &str, Value); 5] = [
        ("a_play", "Play", json!({"ConferenceId": "$F", "Prompt1": "long.wav"})),
        ("a_tone", "PlayTone", json!({"ConferenceId": "$F"})),
        ("a_record", "Record", json!({"ConferenceId": "$F", "Filename": "c.wav"})),
        ("a_coach", "SetConfereeAttribute", json!({"ConnectionId": "$A", "ConferenceId": "$F", "Coach": true})),
        ("a_pupil", "SetConfereeAttribute", json!({"ConnectionId": "$A", "ConferenceId": "$F", "Pupil": true})),
    ];
    let promotions = promotions.map(|(what, action, params)| {
        Row::new(format!("conferences::{what}_promotes"), move |rig| {
            let (_, _) = pair(rig);
            assert_eq!(rig.used(), Used::new(2, 0, 0, 0));
            let operation = u64::from(action != "SetConfereeAttribute");
            rig.ok(action, params);
            assert_eq!(rig.used(), Used::new(2, 0, operation, 2 + operation));
        })
    });
    promotions
        .into_iter()
        .chain(rows.into_iter().map(|(name, run)| Row::new(format!("conferences::{name}"), run)))
        .collect()
}

/// A hairpin of two who say tones of 400 and 500 Hz.
fn pair(rig: &mut Rig) -> ([Leg; 2], String) {
    rig.tone("long.wav", 1500, 30_000);
    let legs = [rig.connect_saying(Voice::Tone(400)), rig.connect_saying(Voice::Tone(500))];
    let conference = rig.conference(&[&legs[0], &legs[1]], json!({}));
    rig.name("F", &conference);
    rig.name("A", &legs[0].id);
    rig.pass(500);
    (legs, conference)
}

/// A mixed conference without join tones of so many who say tones of 400, 500, 600... Hz.
fn room(rig: &mut Rig, members: u32) -> (Vec<Leg>, String) {
    rig.tone("long.wav", 1500, 30_000);
    let legs: Vec<Leg> = (0..members).map(|number| rig.connect_saying(Voice::Tone(400 + 100 * number))).collect();
    let conference = rig.mixed(&legs.iter().collect::<Vec<_>>());
    rig.pass(500);
    (legs, conference)
}

/// Whether a leg hears a tone from now on.
#[track_caller]
fn hears(rig: &mut Rig, leg: &Leg, hz: u32) -> bool {
    // What was on its way when this began is over.
    rig.pass(100);
    let from = rig.ms();
    rig.pass(400);
    let to = rig.ms();
    let share = rig.at(leg).share(hz, from, to);
    assert!(!(0.08..0.5).contains(&share), "half heard: {hz} Hz at {share}");
    share >= 0.5
}

fn results(rig: &mut Rig) {
    let leg = rig.connect();
    let created = rig.ok("CreateConference", json!({"ConnectionId": leg.id, "CallId": 77}));
    assert_eq!(text(&created["ConnectionId"]), leg.id);
    assert_eq!(text(&created["CallId"]), "77");
    assert_eq!(crate::rig::rx(&created), leg.rx, "filled for a complete connection as well");
    assert_eq!(text(&created["MmsId"]), "1");
    assert!(created["ConferenceId"].is_string());
}

fn hairpin(rig: &mut Rig) {
    let (legs, _) = pair(rig);
    assert_eq!(rig.used(), Used::new(2, 0, 0, 0));
    assert!(hears(rig, &legs[0], 500) && hears(rig, &legs[1], 400));
    assert!(!hears(rig, &legs[0], 400), "nobody hears himself");
}

fn third(rig: &mut Rig) {
    let (legs, conference) = pair(rig);
    let third = rig.connect_saying(Voice::Tone(800));
    rig.ok("JoinConference", json!({"ConnectionId": third.id, "ConferenceId": conference}));
    assert_eq!(rig.used(), Used::new(3, 0, 0, 3));
    rig.pass(1000);
    for (leg, heard) in [(&legs[0], [500, 800]), (&legs[1], [400, 800]), (&third, [400, 500])] {
        assert!(heard.into_iter().all(|hz| hears(rig, leg, hz)), "all hear all");
    }
    // Promoted for good.
    rig.ok("LeaveConference", json!({"ConnectionId": third.id, "ConferenceId": conference}));
    assert_eq!(rig.used(), Used::new(3, 0, 0, 2));
}

fn mute_hairpin(rig: &mut Rig) {
    let (legs, conference) = pair(rig);
    let member = json!({"ConnectionId": legs[0].id, "ConferenceId": conference});
    assert_eq!(rig.code("Mute", member.clone()), 0);
    assert!(!hears(rig, &legs[1], 400) && hears(rig, &legs[0], 500));
    assert_eq!(rig.used(), Used::new(2, 0, 0, 0), "no promotion");
    assert_eq!(rig.code("Unmute", member), 0);
    assert!(hears(rig, &legs[1], 400));
}

/// The most a leg hears of the tariff tone in any 200 ms of so many milliseconds, and how often it begins.
fn beeps(rig: &mut Rig, leg: &Leg, ms: u64) -> (f64, usize) {
    let from = rig.ms();
    rig.pass(ms);
    let phone = rig.at(leg);
    let shares: Vec<f64> = (from..from + ms).step_by(100).map(|at| phone.share(1000, at, at + 100)).collect();
    let begins = shares.windows(2).filter(|pair| pair[0] < 0.1 && pair[1] >= 0.1).count();
    (shares.into_iter().fold(0.0, f64::max), begins)
}

fn tariff_waits(rig: &mut Rig) {
    let (legs, conference) = pair(rig);
    rig.ok("SetConfereeAttribute", json!({"ConnectionId": legs[0].id, "ConferenceId": conference, "TariffTone": true}));
    assert_eq!(rig.used(), Used::new(2, 0, 0, 0), "no promotion");
    assert!(beeps(rig, &legs[0], 20_000).0 < 0.05, "no tone yet");
    let third = rig.connect_saying(Voice::Silence);
    rig.ok("JoinConference", json!({"ConnectionId": third.id, "ConferenceId": conference, "ReceiveOnly": true}));
    let (loudest, count) = beeps(rig, &legs[0], 32_000);
    assert!(loudest > 0.15 && (2..=3).contains(&count), "every 15 s from now on: {loudest} {count}");
}

fn tariff_tone(rig: &mut Rig) {
    let (legs, conference) = room(rig, 2);
    let third = rig.connect_saying(Voice::Silence);
    rig.ok("JoinConference", json!({"ConnectionId": third.id, "ConferenceId": conference, "TariffTone": true}));
    let (loudest, count) = beeps(rig, &third, 32_000);
    // 200 ms of 1 kHz at -20 dBm0, which is some 0.28 of what a phone says, every 15 s.
    assert!((0.15..0.4).contains(&loudest), "{loudest}");
    assert!((2..=3).contains(&count), "{count}");
    assert!(beeps(rig, &legs[0], 16_000).0 < 0.05, "nobody else hears it");
}

/// Whether a leg hears a tone of about 600 Hz in the next second.
fn hears_join(rig: &mut Rig, leg: &Leg, before: u64) -> bool {
    rig.pass(1000);
    let to = rig.ms();
    let phone = rig.at(leg);
    let band = |at: u64| (480..=760).step_by(5).map(|hz| phone.share(hz, at, at + 80)).fold(0.0, f64::max);
    let loudest = (before..to - 80).step_by(20).map(band).fold(0.0, f64::max);

    loudest > 0.06
}

/// A mixed conference of two silent ones, which has had its own tones.
fn silent_room(rig: &mut Rig, mut params: Value) -> (Vec<Leg>, String) {
    params["Hairpin"] = false.into();
    let legs: Vec<Leg> = (0..2).map(|_| rig.connect_saying(Voice::Silence)).collect();
    let conference = rig.conference(&legs.iter().collect::<Vec<_>>(), params);
    rig.pass(2000);
    (legs, conference)
}

fn join_tone(rig: &mut Rig) {
    let (legs, conference) = silent_room(rig, json!({}));
    let third = rig.connect_saying(Voice::Silence);
    rig.pass(100);
    let before = rig.ms();
    rig.ok("JoinConference", json!({"ConnectionId": third.id, "ConferenceId": conference}));
    assert!(hears_join(rig, &legs[0], before), "somebody joins");
    let before = rig.ms();
    rig.ok("LeaveConference", json!({"ConnectionId": third.id, "ConferenceId": conference}));
    assert!(hears_join(rig, &legs[0], before), "somebody leaves");
}

fn no_join_tone(rig: &mut Rig) {
    let (legs, conference) = silent_room(rig, json!({"SoundToneOnJoin": false}));
    let third = rig.connect_saying(Voice::Silence);
    let before = rig.ms();
    rig.ok("JoinConference", json!({"ConnectionId": third.id, "ConferenceId": conference}));
    assert!(!hears_join(rig, &legs[0], before));
}

fn silent_join(rig: &mut Rig) {
    let (legs, conference) = silent_room(rig, json!({}));
    for role in ["ReceiveOnly", "Monitor"] {
        let third = rig.connect_saying(Voice::Silence);
        let before = rig.ms();
        let mut join = json!({"ConnectionId": third.id, "ConferenceId": conference});
        join[role] = true.into();
        rig.ok("JoinConference", join);
        assert!(!hears_join(rig, &legs[0], before), "{role} joins");
        let before = rig.ms();
        rig.ok("LeaveConference", json!({"ConnectionId": third.id, "ConferenceId": conference}));
        assert!(!hears_join(rig, &legs[0], before), "{role} leaves");
    }
}

fn hairpin_join(rig: &mut Rig) {
    let (a, b) = (rig.connect_saying(Voice::Silence), rig.connect_saying(Voice::Silence));
    let conference = rig.conference(&[&a], json!({"SoundToneOnJoin": true}));
    rig.pass(500);
    let before = rig.ms();
    rig.ok("JoinConference", json!({"ConnectionId": b.id, "ConferenceId": conference}));
    assert!(!hears_join(rig, &a, before));
}

fn mute(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    let set = |muted: bool| json!({"ConnectionId": legs[0].id, "ConferenceId": conference, "Mute": muted});
    rig.ok("SetConfereeAttribute", set(true));
    assert!(!hears(rig, &legs[1], 400) && hears(rig, &legs[1], 600), "only the muted one is gone");
    assert!(hears(rig, &legs[0], 500), "who is muted hears");
    assert_eq!(rig.used(), Used::new(3, 0, 0, 3), "and takes its resource");
    rig.ok("SetConfereeAttribute", set(false));
    assert!(hears(rig, &legs[1], 400));
}

fn receive_only(rig: &mut Rig) {
    let (legs, conference) = room(rig, 2);
    let third = rig.connect_saying(Voice::Tone(800));
    rig.ok("JoinConference", json!({"ConnectionId": third.id, "ConferenceId": conference, "ReceiveOnly": true}));
    assert!(hears(rig, &third, 400) && !hears(rig, &legs[0], 800));
    assert_eq!(rig.used(), Used::new(3, 0, 0, 3));
    rig.ok("Unmute", json!({"ConnectionId": third.id, "ConferenceId": conference}));
    assert!(hears(rig, &legs[0], 800));
}

fn monitor(rig: &mut Rig) {
    let (legs, conference) = room(rig, 2);
    let ear = rig.connect_saying(Voice::Tone(800));
    rig.ok("JoinConference", json!({"ConnectionId": ear.id, "ConferenceId": conference, "Monitor": true}));
    assert!(hears(rig, &ear, 400) && hears(rig, &ear, 500) && !hears(rig, &legs[0], 800));
    // To speak it leaves and comes back.
    rig.ok("LeaveConference", json!({"ConnectionId": ear.id, "ConferenceId": conference}));
    rig.ok("JoinConference", json!({"ConnectionId": ear.id, "ConferenceId": conference}));
    assert!(hears(rig, &legs[0], 800));
}

fn monitors_share(rig: &mut Rig) {
    let (_, conference) = room(rig, 3);
    for monitors in 1..=3 {
        let ear = rig.connect_saying(Voice::Silence);
        rig.ok("JoinConference", json!({"ConnectionId": ear.id, "ConferenceId": conference, "Monitor": true}));
        assert_eq!(rig.used(), Used::new(3 + monitors, 0, 0, 4));
    }
}

fn monitors_alone(rig: &mut Rig) {
    let (legs, conference) = room(rig, 2);
    let ear = rig.connect_saying(Voice::Silence);
    rig.ok("JoinConference", json!({"ConnectionId": ear.id, "ConferenceId": conference, "Monitor": true}));
    for leg in &legs {
        rig.ok("LeaveConference", json!({"ConnectionId": leg.id, "ConferenceId": conference}));
    }
    assert_eq!(rig.code("JoinConference", json!({"ConnectionId": legs[0].id, "ConferenceId": conference})), 24);
    assert_eq!(rig.used(), Used::new(3, 0, 0, 0));
    // The monitor is a connection still, and in no conference.
    assert_eq!(rig.code("CreateConference", json!({"ConnectionId": ear.id})), 0);
}

fn operation_alone(rig: &mut Rig) {
    let (legs, conference) = room(rig, 2);
    let play = rig.operation("Play", json!({"ConferenceId": conference, "Prompt1": "long.wav"}));
    rig.pass(300);
    for leg in &legs {
        rig.ok("LeaveConference", json!({"ConnectionId": leg.id, "ConferenceId": conference}));
    }
    assert_eq!(rig.end_within(&play, 100).condition(), "autostop");
    assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})), 24);
    assert_eq!(rig.used(), Used::new(2, 0, 0, 0));
}

/// A room of three, the first of whom coaches the second.
fn school(rig: &mut Rig) -> (Vec<Leg>, String) {
    let (legs, conference) = room(rig, 3);
    rig.ok("SetConfereeAttribute", json!({"ConnectionId": legs[0].id, "ConferenceId": conference, "Coach": true}));
    rig.ok("SetConfereeAttribute", json!({"ConnectionId": legs[1].id, "ConferenceId": conference, "Pupil": true}));
    (legs, conference)
}

fn coach(rig: &mut Rig) {
    let (legs, _) = school(rig);
    assert!(hears(rig, &legs[1], 400), "the pupil hears the coach");
    assert!(!hears(rig, &legs[2], 400), "nobody else does");
    assert!(hears(rig, &legs[1], 600) && hears(rig, &legs[2], 500), "the pupil and the conference hear each other");
    assert!(hears(rig, &legs[0], 500) && hears(rig, &legs[0], 600), "the coach hears all");
}

fn coach_moves(rig: &mut Rig) {
    let (legs, conference) = school(rig);
    rig.ok("SetConfereeAttribute", json!({"ConnectionId": legs[2].id, "ConferenceId": conference, "Coach": true}));
    assert!(hears(rig, &legs[1], 600) && !hears(rig, &legs[0], 600), "the other one coaches now");
    assert!(hears(rig, &legs[1], 400), "and the first is a party again");
}

fn coach_turned_pupil(rig: &mut Rig) {
    let (legs, conference) = school(rig);
    rig.ok("SetConfereeAttribute", json!({"ConnectionId": legs[0].id, "ConferenceId": conference, "Pupil": true}));
    assert!(hears(rig, &legs[2], 400), "the pupil is heard by all");
    // Muting tells that the role is gone: a coach can't be muted, a pupil neither, a party can.
    assert_eq!(rig.code("Mute", json!({"ConnectionId": legs[0].id, "ConferenceId": conference})), 26);
    assert_eq!(rig.code("Mute", json!({"ConnectionId": legs[1].id, "ConferenceId": conference})), 0);
}

fn all_or_none(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    let member = |leg: &Leg| json!({"ConnectionId": leg.id, "ConferenceId": conference});
    let mut set = member(&legs[0]);
    (set["Mute"], set["TariffTone"], set["Coach"]) = (false.into(), true.into(), true.into());
    assert_eq!(rig.code("SetConfereeAttribute", set), 26);
    assert!(hears(rig, &legs[1], 400), "no coach");
    assert!(beeps(rig, &legs[0], 16_000).0 < 0.05, "no tariff tone");
    assert_eq!(rig.code("Mute", member(&legs[0])), 0, "as before");
}

fn coach_excludes(rig: &mut Rig) {
    let (legs, conference) = room(rig, 2);
    let third = rig.connect_saying(Voice::Tone(800));
    let join = json!({"ConnectionId": third.id, "ConferenceId": conference, "Coach": true, "ReceiveOnly": true, "TariffTone": true});
    rig.ok("JoinConference", join);
    rig.ok("SetConfereeAttribute", json!({"ConnectionId": legs[0].id, "ConferenceId": conference, "Pupil": true}));
    assert!(hears(rig, &legs[0], 800), "a coach that is heard by its pupil");
    assert!(beeps(rig, &third, 16_000).0 < 0.05, "without the tariff tone");
}

fn conference_play(rig: &mut Rig) {
    let (legs, conference) = room(rig, 3);
    let play =
        rig.operation("Play", json!({"ConferenceId": conference, "Prompt1": "long.wav", "TermCondMaxTime": 4000}));
    assert_eq!(rig.used(), Used::new(3, 0, 1, 4));
    for leg in &legs {
        assert!(hears(rig, leg, 1500));
    }
    assert!(hears(rig, &legs[0], 500), "and each other as before");
    assert_eq!(rig.end(&play).condition(), "maxtime");
    assert_eq!(rig.used(), Used::new(3, 0, 0, 3));
}
