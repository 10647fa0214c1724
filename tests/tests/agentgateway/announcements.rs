//! Announcements (4.1 to 4.4) and their life (7), by what is answered and told. What is heard is in `media::`.

use serde_json::{Value, json};

use crate::rig::{Desk, Room, VDN, phone_address, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("announcements", ROWS);
    for (what, given, cause) in PATHS {
        let given = given.replace("VDN", &VDN.to_string());
        let cause = *cause;
        let name = what.replace(' ', "_");
        let path = given.clone();
        rows.push(Row::new(format!("announcements::playvoicetoconf::{name}"), move |desk| {
            let room = desk.room();
            desk.fails_below(&room.chair, "playvoicetoconf", json!({"voicePath": path}), cause);
            assert_eq!(state(desk, &room), 0);
            desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
        }));
        let path = given.clone();
        rows.push(Row::new(format!("announcements::playvoicetoparticipant::{name}"), move |desk| {
            let room = desk.room();
            let to = room.chair.address();
            let body = with(&to, json!({"voicePath": path}));
            desk.fails_below(&room.chair, "playvoicetoparticipant", body, cause);
            assert_eq!(desk.info_of(&room, &to)["channelState"], 0);
        }));
        let path = given.clone();
        rows.push(Row::new(format!("announcements::holdparticipant::{name}"), move |desk| {
            let room = desk.room();
            let to = room.chair.address();
            desk.fails_below(&room.chair, "holdparticipant", with(&to, json!({"voicePath": path})), cause);
            assert_eq!(desk.info_of(&room, &to)["channelState"], 0);
        }));
        rows.push(Row::new(format!("announcements::requestagentconf::{name}"), move |desk| {
            let agent = desk.agent_with_phone();
            let body = json!({"memberNum": 6, "beepTone": true, "voicePath": given});
            desk.fails_below(&agent, "requestagentconf", body, cause);
            // It can ask again.
            desk.ok(&agent, "requestagentconf", json!({"memberNum": 6}));
        }));
    }
    for (what, body) in FORMS {
        rows.push(Row::new(
            format!("announcements::playvoicetoconf::taken::{}", what.replace(' ', "_")),
            move |desk| {
                let room = desk.room();
                let body: Value = serde_json::from_str(body).expect("JSON");
                assert_eq!(desk.ok(&room.chair, "playvoicetoconf", body), json!({}));
                assert_eq!(state(desk, &room), 1);
                assert_eq!(desk.ok(&room.chair, "stopvoicetoconf", Value::Null), json!({}));
            },
        ));
    }
    rows
}

/// `confState`.
pub(crate) fn state(desk: &Desk, room: &Room) -> Value {
    desk.info(&room.chair, room.id)["confState"].clone()
}

/// Paths that are not played, and why.
const PATHS: &[(&str, &str, u32)] = &[
    ("no such file", "D:/conf/VDN/none.wav", 90_003),
    ("another case of letters", "D:/conf/VDN/LONG.wav", 90_003),
    ("no wave", "D:/conf/VDN/broken.wav", 90_004),
    ("a format of its own", "D:/conf/VDN/voice.V3", 90_004),
    ("no ending", "D:/conf/VDN/long", 90_004),
    ("a folder", "D:/conf/VDN/folder.wav", 90_004),
    ("of another VDN", "D:/conf/2/long.wav", 90_009),
    ("of a VDN with a zero", "D:/conf/01/long.wav", 90_009),
    ("parent", "D:/conf/VDN/../secret.wav", 90_009),
    ("parent of parent", "D:/conf/VDN/../../secret.wav", 90_009),
    ("parent in the beginning", "D:/../conf/VDN/long.wav", 90_009),
    ("parent with backslashes", "D:\\\\conf\\\\VDN\\\\..\\\\..\\\\secret.wav", 90_009),
    ("absolute", "/etc/passwd", 90_009),
    ("absolute wave", "/secret.wav", 90_009),
    ("relative", "long.wav", 90_009),
    ("without conf", "D:/VDN/long.wav", 90_009),
    ("a second drive", "D:/C:/conf/VDN/long.wav", 90_009),
    ("a second drive in the name", "D:/conf/VDN/C:long.wav", 90_009),
    ("two drives", "D:C:/conf/VDN/long.wav", 90_009),
    ("a subfolder", "D:/conf/VDN/sub/long.wav", 90_009),
    ("a double slash", "D:/conf//VDN/long.wav", 90_009),
    ("a share", "//server/conf/VDN/long.wav", 90_009),
    ("a file address", "file:///conf/VDN/long.wav", 90_009),
    ("no name", "D:/conf/VDN/", 90_009),
    ("NUL", "D:/conf/VDN/long.wav\0.wav", 90_009),
    ("a line break", "D:/conf/VDN/lo\nng.wav", 90_009),
    // Nothing is decoded: these are names, and there are no such files.
    ("encoded parent", "D:/conf/VDN/%2e%2e%2fsecret.wav", 90_003),
    ("encoded slash", "D:/conf/VDN/..%2f..%2fsecret.wav", 90_003),
    ("link out of the root", "D:/conf/VDN/outside.wav", 90_009),
    ("link to a folder outside", "D:/conf/VDN/etc.wav", 90_009),
];

/// Bodies that are taken.
const FORMS: &[(&str, &str)] = &[
    ("the least", r#"{"voicePath": "D:/conf/1/long.wav"}"#),
    ("everything", r#"{"playType": 0, "playMode": 2, "voicePath": "D:/conf/1/long.wav"}"#),
    ("numbers as texts", r#"{"playType": "1", "playMode": "2", "voicePath": "D:/conf/1/long.wav"}"#),
    ("background", r#"{"playType": 1, "voicePath": "D:/conf/1/long.wav"}"#),
    ("null is no value", r#"{"playType": null, "playMode": null, "voicePath": "D:/conf/1/long.wav"}"#),
    ("the empty text is no value", r#"{"playType": "", "playMode": "", "voicePath": "D:/conf/1/long.wav"}"#),
    ("unknown members", r#"{"voicePath": "D:/conf/1/long.wav", "colour": {"deep": [1, 2]}}"#),
    ("another drive", r#"{"voicePath": "z:/conf/1/long.wav"}"#),
    ("no drive", r#"{"voicePath": "/conf/1/long.wav"}"#),
    ("backslashes", r#"{"voicePath": "D:\\conf\\1\\long.wav"}"#),
    ("a short background file", r#"{"playType": 1, "voicePath": "D:/conf/1/short.wav"}"#),
];

const ROWS: &[Plain] = &[
    ("the_founding_call_answers_as_the_document_says", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        let answer = desk.ask(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(answer, json!({"result": {}, "message": "success", "retcode": "0"}));
    }),
    ("stop_when_nothing_plays", |desk| {
        let room = desk.room();
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
    }),
    ("stop_when_already_stopped", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
    }),
    ("stop_when_the_file_has_ended", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("short.wav"));
        assert_eq!(desk.event(&room.chair, "AgentConf_StopVoice"), json!({"result": 0}));
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
        assert_eq!(state(desk, &room), 0);
    }),
    ("a_stop_is_not_told", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(desk.drain(&room), Vec::<Value>::new());
    }),
    ("the_end_of_a_file_is_told_to_the_chair_only", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "playvoicetoconf", voice("short.wav"));
        assert_eq!(desk.event(&room.chair, "AgentConf_StopVoice"), json!({"result": 0}));
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        let told = desk.types_until(&second, "AgentConf_SelfLeaveResult");
        assert!(!told.contains(&"AgentConf_StopVoice".to_owned()), "{told:?}");
    }),
    ("the_end_is_told_to_whoever_is_the_chair_then", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "playvoicetoconf", voice("second.wav"));
        desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number}));
        assert_eq!(desk.event(&second, "AgentConf_StopVoice"), json!({"result": 0}));
    }),
    ("a_slot_of_each_kind", |desk| {
        let room = desk.room();
        let (front, back) = (voice("long.wav"), with(&voice("long.wav"), json!({"playType": 1})));
        desk.ok(&room.chair, "playvoicetoconf", front.clone());
        desk.fails_below(&room.chair, "playvoicetoconf", front.clone(), 90_002);
        desk.ok(&room.chair, "playvoicetoconf", back.clone());
        desk.fails_below(&room.chair, "playvoicetoconf", back.clone(), 90_002);
        desk.fails_below(&room.chair, "playvoicetoconf", front.clone(), 90_002);
        assert_eq!(state(desk, &room), 1);
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(state(desk, &room), 0);
        // Both are free again.
        desk.ok(&room.chair, "playvoicetoconf", back);
        desk.ok(&room.chair, "playvoicetoconf", front);
    }),
    ("a_taken_slot_comes_before_a_missing_file", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.fails_below(&room.chair, "playvoicetoconf", voice("none.wav"), 90_002);
        desk.fails_below(&room.chair, "playvoicetoconf", json!({"voicePath": "/etc/passwd"}), 90_002);
    }),
    ("a_slot_is_free_when_its_file_has_ended", |desk| {
        let room = desk.room();
        for _ in 0..5 {
            desk.ok(&room.chair, "playvoicetoconf", voice("short.wav"));
            assert_eq!(desk.event(&room.chair, "AgentConf_StopVoice"), json!({"result": 0}));
        }
    }),
    ("the_state_is_that_of_either_slot", |desk| {
        let room = desk.room();
        assert_eq!(state(desk, &room), 0);
        desk.ok(&room.chair, "playvoicetoconf", with(&voice("short.wav"), json!({"playType": 1})));
        desk.ok(&room.chair, "playvoicetoconf", voice("short.wav"));
        desk.event(&room.chair, "AgentConf_StopVoice");
        assert_eq!(state(desk, &room), 1, "the background goes on");
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(state(desk, &room), 0);
    }),
    ("a_stop_leaves_what_is_played_to_one", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let held = desk.guest(&room);
        desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav")));
        desk.ok(&room.chair, "holdparticipant", with(&held.address, voice("music.wav")));
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(desk.info_of(&room, &guest.address)["channelState"], 2);
        assert_eq!(desk.info_of(&room, &held.address)["channelState"], 1);
    }),
    ("to_one_and_its_stop", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        assert_eq!(desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav"))), json!({}));
        assert_eq!(desk.info_of(&room, &guest.address)["channelState"], 2);
        assert_eq!(state(desk, &room), 0);
        desk.fails_below(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav")), 90_002);
        assert_eq!(desk.ok(&room.chair, "stopvoicetoparticipant", guest.address.clone()), json!({}));
        assert_eq!(desk.info_of(&room, &guest.address)["channelState"], 0);
        desk.fails_below(&room.chair, "stopvoicetoparticipant", guest.address, 90_001);
        assert_eq!(desk.drain(&room), Vec::<Value>::new(), "a stop is not told");
    }),
    ("to_one_and_its_end", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("short.wav")));
        assert_eq!(desk.event(&room.chair, "AgentConf_StopParticipantVoice"), json!({"result": 0}));
        assert_eq!(desk.info_of(&room, &guest.address)["channelState"], 0);
        desk.fails_below(&room.chair, "stopvoicetoparticipant", guest.address, 90_001);
    }),
    ("to_the_chair_itself", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoparticipant", with(&room.chair.address(), voice("alone.wav")));
        desk.ok(&room.chair, "stopvoicetoparticipant", room.chair.address());
    }),
    ("to_two_each_its_own", |desk| {
        let room = desk.room();
        let guests = [desk.guest(&room), desk.guest(&room)];
        for guest in &guests {
            desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav")));
        }
        desk.ok(&room.chair, "stopvoicetoparticipant", guests[0].address.clone());
        assert_eq!(desk.info_of(&room, &guests[1].address)["channelState"], 2);
    }),
    ("to_nobody", |desk| {
        let room = desk.room();
        for address in [phone_address("4711"), json!({"addressType": "9", "address": "240"})] {
            desk.fails_below(&room.chair, "playvoicetoparticipant", with(&address, voice("long.wav")), 90_005);
            desk.fails_below(&room.chair, "stopvoicetoparticipant", address, 90_005);
        }
    }),
    ("to_one_of_the_other_kind", |desk| {
        // A number is an agent's or a telephone's.
        let room = desk.room();
        let as_phone = phone_address(&room.chair.number.to_string());
        desk.fails_below(&room.chair, "playvoicetoparticipant", with(&as_phone, voice("long.wav")), 90_005);
    }),
    ("to_one_who_has_not_joined", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        let address = phone_address(&phone.number);
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [address]}));
        desk.fails_below(&room.chair, "playvoicetoparticipant", with(&address, voice("long.wav")), 90_006);
        desk.fails_below(&room.chair, "stopvoicetoparticipant", address, 90_006);
    }),
    ("to_one_on_hold", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "holdparticipant", with(&guest.address, voice("music.wav")));
        desk.fails_below(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("long.wav")), 90_006);
        desk.fails_below(&room.chair, "stopvoicetoparticipant", guest.address, 90_001);
    }),
    ("to_one_who_leaves_meanwhile", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav")));
        desk.ok(&room.chair, "batchremoveparticipant", json!({"addresses": [guest.address]}));
        desk.fails_below(&room.chair, "stopvoicetoparticipant", guest.address, 90_005);
        let told = desk.drain(&room);
        assert!(told.iter().all(|event| event["eventType"] != "AgentConf_StopParticipantVoice"), "{told:?}");
    }),
    ("the_end_of_the_conference_is_no_end_of_an_announcement", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "playvoicetoparticipant", with(&room.chair.address(), voice("alone.wav")));
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        let told = desk.types_until(&room.chair, "AgentState_Ready");
        assert!(told.iter().all(|name| !name.contains("Voice")), "{told:?}");
        desk.fails(&room.chair, "stopvoicetoconf", Value::Null, "101-001");
    }),
    ("an_announcement_goes_on_under_a_new_chair", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number}));
        assert_eq!(desk.info(&second, room.id)["confState"], 1);
        desk.fails(&room.chair, "stopvoicetoconf", Value::Null, "101-002");
        desk.ok(&second, "stopvoicetoconf", Value::Null);
    }),
    ("the_effect_stands_in_the_header", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        let stopped = desk.effect(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(stopped["streams"].as_array().map(Vec::len), Some(2), "{stopped}");
        crate::media::delay_ms(&stopped);
        desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav")));
        let stopped = desk.effect(&room.chair, "stopvoicetoparticipant", guest.address);
        assert_eq!(stopped["streams"].as_array().map(Vec::len), Some(1), "{stopped}");
        crate::media::delay_ms(&stopped);
    }),
    ("a_stop_that_fails_has_no_effect", |desk| {
        let room = desk.room();
        let answer = desk.ask_whole(&room.chair, "stopvoicetoconf", &Value::Null);
        assert_eq!(crate::rig::effect_of(&answer), None);
    }),
];
