//! Conferences as such (3.1, 3.6 to 3.9, 7): requested, answered, left, released, lengthened, handed on, asked for.

use serde_json::{Value, json};

use crate::rig::{Agent, Desk, INSPECTOR, OTHER_VDN, conf_path, phone_address, retcode, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("conferences", ROWS);
    for (what, body) in REQUESTS {
        rows.push(Row::new(format!("conferences::requestagentconf::{}", what.replace(' ', "_")), move |desk| {
            let body: Value = serde_json::from_str(body).expect("JSON");
            let room = desk.room_with(body);
            desk.ok(&room.chair, "releaseagentconf", Value::Null);
        }));
    }
    for (asked, prompt, time) in [(4, 3, 4), (4, 4, 4), (5, 1440, 5), (1440, 3, 1440)] {
        rows.push(Row::new(format!("conferences::requestagentconf::time_{asked}_prompt_{prompt}"), move |desk| {
            let room = desk.room_with(json!({"memberNum": 2, "time": asked, "promptTime": prompt}));
            assert_eq!(desk.info(&room.chair, room.id)["applyConfTime"], time);
        }));
    }
    for (first, asked, added) in
        [(60, 10, 10), (60, 1440, 1380), (1440, 1, 0), (1439, 5, 1), (4, 1, 1), (4, 1436, 1436)]
    {
        rows.push(Row::new(format!("conferences::prolongtime::{asked}_after_{first}"), move |desk| {
            let room = desk.room_with(json!({"memberNum": 2, "time": first}));
            let result = desk.ok(&room.chair, "prolongtime", json!({"prolongTime": asked}));
            assert_eq!(result, json!({"applyedTime": added}));
            assert_eq!(desk.info(&room.chair, room.id)["applyConfTime"], first + added);
        }));
    }
    for (seats, kind, number, fits) in [
        (6, 0, 2, true),
        (6, 0, 114, true),
        (6, 0, 115, false),
        (120, 0, 2, false),
        (2, 0, 118, true),
        (6, 1, 5, true),
        (6, 1, 6, false),
        (6, 1, 118, false),
        (3, 1, 2, true),
        (2, 1, 2, false),
    ] {
        let way = if kind == 0 { "more" } else { "less" };
        rows.push(Row::new(format!("conferences::modifyconfresource::{number}_{way}_than_{seats}"), move |desk| {
            let room = desk.room_with(json!({"memberNum": seats}));
            let body = json!({"modifyType": kind, "modifyNum": number});
            if fits {
                assert_eq!(desk.ok(&room.chair, "modifyconfresource", body), json!({}));
            } else {
                desk.fails_below(&room.chair, "modifyconfresource", body, 90_007);
            }
        }));
    }
    rows
}

/// Requests that are taken.
const REQUESTS: &[(&str, &str)] = &[
    ("the least", r#"{"memberNum": 1}"#),
    ("the most", r#"{"memberNum": 120, "time": 1440, "promptTime": 1440}"#),
    ("numbers as texts", r#"{"memberNum": "6", "time": "30", "promptTime": "4"}"#),
    ("the example", r#"{"memberNum": 6, "time": 30, "promptTime": 4}"#),
    ("a calling number", r#"{"memberNum": 6, "confCallerNo": "111111111111111111111111"}"#),
    ("no beep and no file", r#"{"memberNum": 6, "beepTone": false}"#),
    ("a file without a beep is not looked at", r#"{"memberNum": 6, "beepTone": "false", "voicePath": "/etc/passwd"}"#),
    ("with a beep", r#"{"memberNum": 6, "beepTone": "true", "playMode": "2", "voicePath": "D:/conf/1/beep.wav"}"#),
    ("unknown members", r#"{"memberNum": 6, "colour": [{}]}"#),
];

/// The agent in a room's second place of another row's VDN.
fn inspector(desk: &Desk) -> Agent {
    desk.agent_of(INSPECTOR)
}

fn ask_ids(desk: &Desk, agent: &Agent) -> Vec<u64> {
    let result = desk.ok(agent, "queryvdnconfid", Value::Null);
    assert_eq!(result.as_object().unwrap().len(), 1);
    result["confIds"].as_array().expect("a list").iter().map(|id| id.as_u64().expect("a number")).collect()
}

const ROWS: &[Plain] = &[
    ("requestagentconf::its_events_in_order", |desk| {
        let agent = desk.agent_with_phone();
        assert_eq!(desk.ok(&agent, "requestagentconf", json!({"memberNum": 6})), json!({}));
        agent.phone().answer(&desk.world);
        assert_eq!(
            desk.types_until(&agent, "AgentConf_RequestSuccess"),
            [
                "AgentState_Busy",
                "AgentOther_PhoneAlerting",
                "AgentOther_PhoneOffhook",
                "AgentConf_SelfJoinResult",
                "AgentConf_RequestSuccess"
            ]
        );
    }),
    ("requestagentconf::its_number", |desk| {
        let first = desk.room();
        assert!((1_000_000..10_000_000).contains(&first.id), "{}", first.id);
        desk.ok(&first.chair, "releaseagentconf", Value::Null);
        desk.event(&first.chair, "AgentState_Ready");
        let again = desk.room_of(first.chair, json!({"memberNum": 6}));
        assert!(again.id > first.id, "never used again");
    }),
    ("requestagentconf::in_a_conference_already", |desk| {
        let room = desk.room();
        desk.fails(&room.chair, "requestagentconf", json!({"memberNum": 6}), "101-003");
        let second = desk.second(&room);
        desk.fails(&second, "requestagentconf", json!({"memberNum": 6}), "101-003");
    }),
    ("requestagentconf::requested_already", |desk| {
        let agent = desk.agent_with_phone();
        desk.ok(&agent, "requestagentconf", json!({"memberNum": 6}));
        desk.fails(&agent, "requestagentconf", json!({"memberNum": 6}), "101-003");
    }),
    ("requestagentconf::while_it_rings", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.fails_below(&agent, "requestagentconf", json!({"memberNum": 6}), 90_008);
        desk.ok(&agent, "rejectagentconf", Value::Null);
        desk.room_of(agent, json!({"memberNum": 6}));
    }),
    ("requestagentconf::nobody_answers_at_its_telephone", |desk| {
        // There is no such telephone.
        let agent = desk.agent();
        desk.ok(&agent, "requestagentconf", json!({"memberNum": 6}));
        assert_eq!(desk.event(&agent, "AgentConf_RequestFailed"), json!({"cause": 90_005}));
        desk.event(&agent, "AgentState_Ready");
        desk.fails(&agent, "stopvoicetoconf", Value::Null, "101-001");
        // It can ask again.
        desk.ok(&agent, "requestagentconf", json!({"memberNum": 6}));
    }),
    ("requestagentconf::the_prompt_is_looked_at_before_the_conference", |desk| {
        let room = desk.room();
        desk.fails(&room.chair, "requestagentconf", json!({"memberNum": 6, "promptTime": 2}), "000-002");
    }),
    ("answeragentconf::and_its_events", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        assert_eq!(desk.event(&agent, "AgentConf_Ringing"), json!({"confId": room.id}));
        assert_eq!(desk.ok(&agent, "answeragentconf", Value::Null), json!({}));
        agent.phone().answer(&desk.world);
        assert_eq!(
            desk.types_until(&agent, "AgentConf_SelfJoinResult"),
            ["AgentOther_PhoneOffhook", "AgentConf_SelfJoinResult"]
        );
        let change = desk.change(&room.chair, 0);
        assert_eq!((&change["result"], &change["participantType"]), (&json!(0), &json!(9)));
    }),
    ("answeragentconf::nothing_rings", |desk| {
        desk.fails(&desk.agent(), "answeragentconf", Value::Null, "101-001");
    }),
    ("answeragentconf::in_the_conference_already", |desk| {
        let room = desk.room();
        desk.fails(&room.chair, "answeragentconf", Value::Null, "101-001");
        let second = desk.second(&room);
        desk.fails(&second, "answeragentconf", Value::Null, "101-001");
    }),
    ("answeragentconf::twice", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.ok(&agent, "answeragentconf", Value::Null);
        desk.fails(&agent, "answeragentconf", Value::Null, "101-001");
        desk.fails(&agent, "rejectagentconf", Value::Null, "101-001");
    }),
    ("answeragentconf::after_the_release", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        desk.fails(&agent, "answeragentconf", Value::Null, "101-001");
        assert_eq!(desk.types_until(&agent, "AgentState_Ready").last().map(String::as_str), Some("AgentState_Ready"));
    }),
    ("answeragentconf::taken_back", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.ok(&room.chair, "batchremoveparticipant", json!({"addresses": [agent.address()]}));
        desk.fails(&agent, "answeragentconf", Value::Null, "101-001");
    }),
    ("rejectagentconf::and_its_events", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        assert_eq!(desk.ok(&agent, "rejectagentconf", Value::Null), json!({}));
        assert_eq!(
            desk.types_until(&agent, "AgentState_Ready"),
            ["AgentConf_Ringing", "AgentOther_PhoneRelease", "AgentState_Ready"]
        );
        let change = desk.change(&room.chair, 1);
        assert_eq!((&change["changeReason"], &change["participant"]), (&json!(0), &json!(agent.number.to_string())));
    }),
    ("rejectagentconf::nothing_rings", |desk| {
        desk.fails(&desk.agent(), "rejectagentconf", Value::Null, "101-001");
    }),
    ("rejectagentconf::twice", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.ok(&agent, "rejectagentconf", Value::Null);
        desk.fails(&agent, "rejectagentconf", Value::Null, "101-001");
        // It can be invited again.
        desk.take_in(&room, &agent);
    }),
    ("requestleaveagentconf::and_its_events", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        assert_eq!(desk.ok(&second, "requestleaveagentconf", Value::Null), json!({}));
        assert_eq!(desk.event(&second, "AgentConf_SelfLeaveResult"), json!({"confId": room.id}));
        assert_eq!(desk.types_until(&second, "AgentState_Ready"), ["AgentOther_PhoneRelease", "AgentState_Ready"]);
        let change = desk.change(&room.chair, 1);
        assert_eq!((&change["changeReason"], &change["participant"]), (&json!(0), &json!(second.number.to_string())));
        assert_eq!(second.phone().connection(&desk.world), None, "its call is released");
        desk.fails(&second, "requestleaveagentconf", Value::Null, "101-001");
    }),
    ("requestleaveagentconf::not_the_chair", |desk| {
        let room = desk.room();
        desk.fails(&room.chair, "requestleaveagentconf", Value::Null, "101-007");
    }),
    ("requestleaveagentconf::the_chair_of_before", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number}));
        desk.ok(&room.chair, "requestleaveagentconf", Value::Null);
        desk.fails(&second, "requestleaveagentconf", Value::Null, "101-007");
    }),
    ("requestleaveagentconf::and_back_again", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&second, "requestleaveagentconf", Value::Null);
        desk.event(&second, "AgentState_Ready");
        second.phone().hush();
        desk.take_in(&room, &second);
        assert_eq!(desk.info(&room.chair, room.id)["addresses"].as_array().map(Vec::len), Some(2));
    }),
    ("releaseagentconf::and_its_events", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let guest = desk.guest(&room);
        assert_eq!(desk.ok(&room.chair, "releaseagentconf", Value::Null), json!({}));
        for agent in [&room.chair, &second] {
            let events = desk.events_until(agent, "AgentState_Ready");
            let of = |name: &str| events.iter().filter(|event| event["eventType"] == name).collect::<Vec<_>>();
            assert_eq!(of("AgentConf_SelfLeaveResult").len(), 1, "{events:?}");
            assert_eq!(of("AgentOther_PhoneRelease").len(), 1, "{events:?}");
            let left = of("AgentConf_ParticipantChanged");
            let left = left.iter().find(|event| event["content"]["changeType"] == 1).expect("told");
            assert_eq!(left["content"]["changeReason"], 3);
        }
        for phone in [room.chair.phone(), second.phone(), &guest.phone] {
            assert_eq!(phone.connection(&desk.world), None, "every call is released");
        }
        desk.fails(&room.chair, "releaseagentconf", Value::Null, "101-001");
    }),
    ("releaseagentconf::its_effect", |desk| {
        let room = desk.room();
        desk.guest(&room);
        let effect = desk.effect(&room.chair, "releaseagentconf", Value::Null);
        assert!(effect["streams"].as_array().is_some_and(|streams| streams.len() >= 2), "{effect}");
    }),
    ("releaseagentconf::then_a_new_one_at_once", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        room.chair.phone().hush();
        desk.event(&room.chair, "AgentState_Ready");
        let again = desk.room_of(room.chair, json!({"memberNum": 2}));
        desk.ok(&again.chair, "playvoicetoconf", voice("long.wav"));
    }),
    ("prolongtime::as_a_text", |desk| {
        let room = desk.room();
        assert_eq!(desk.ok(&room.chair, "prolongtime", json!({"prolongTime": "10"})), json!({"applyedTime": 10}));
    }),
    ("prolongtime::in_the_query", |desk| {
        let room = desk.room();
        let path = format!("{}?prolongTime=7", conf_path(room.chair.number, "prolongtime"));
        let answer = desk.send("POST", &path, Some(&room.chair.guid), b"").json();
        assert_eq!(answer["result"], json!({"applyedTime": 7}));
        let answer = desk.send("POST", &path.replace("=7", "=0"), Some(&room.chair.guid), b"");
        assert_eq!(retcode(&answer), "000-002");
    }),
    ("prolongtime::the_body_wins_over_the_query", |desk| {
        let room = desk.room();
        let path = format!("{}?prolongTime=7", conf_path(room.chair.number, "prolongtime"));
        let answer = desk.send("POST", &path, Some(&room.chair.guid), b"{\"prolongTime\": 5}").json();
        assert_eq!(answer["result"], json!({"applyedTime": 5}));
    }),
    ("applytoshiftpresident::and_its_events", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let third = desk.second(&room);
        assert_eq!(desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number})), json!({}));
        assert_eq!(desk.event(&second, "AgentConf_PresidentChanged"), json!({"confId": room.id}));
        for agent in [&room.chair, &third] {
            let change = desk.change(agent, 2);
            assert_eq!(
                (&change["participant"], &change["changeReason"]),
                (&json!(second.number.to_string()), &json!(255))
            );
        }
        let role = |agent: &Agent| {
            let info = desk.info(&second, room.id);
            let entry = info["addresses"]
                .as_array()
                .unwrap()
                .iter()
                .find(|entry| entry["address"] == agent.address()["address"]);
            entry.expect("there")["role"].clone()
        };
        assert_eq!((role(&room.chair), role(&second), role(&third)), (json!(0), json!(1), json!(0)));
        // The new chair gets no change of its own.
        desk.ok(&second, "releaseagentconf", Value::Null);
        let told = desk.events_until(&second, "AgentConf_SelfLeaveResult");
        assert!(told.iter().all(|event| event["content"]["changeType"] != 2), "{told:?}");
    }),
    ("applytoshiftpresident::to_itself", |desk| {
        let room = desk.room();
        desk.fails(&room.chair, "applytoshiftpresident", json!({"destAgentNo": room.chair.number}), "101-005");
    }),
    ("applytoshiftpresident::to_nobody", |desk| {
        let room = desk.room();
        desk.fails_below(&room.chair, "applytoshiftpresident", json!({"destAgentNo": desk.agent().number}), 90_005);
    }),
    ("applytoshiftpresident::to_one_who_rings", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.fails_below(&room.chair, "applytoshiftpresident", json!({"destAgentNo": agent.number}), 90_006);
    }),
    ("applytoshiftpresident::to_a_telephone", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let number: u32 = guest.phone.number.parse().unwrap();
        desk.fails_below(&room.chair, "applytoshiftpresident", json!({"destAgentNo": number}), 90_005);
    }),
    ("applytoshiftpresident::as_a_text", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number.to_string()}));
    }),
    ("applytoshiftpresident::in_the_query", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let path = format!("{}?destWorkNo={}", conf_path(room.chair.number, "applytoshiftpresident"), second.number);
        assert_eq!(desk.retcode("POST", &path, Some(&room.chair.guid), b""), "0");
        desk.event(&second, "AgentConf_PresidentChanged");
    }),
    ("applytoshiftpresident::and_back", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number}));
        desk.fails(&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number}), "101-002");
        desk.ok(&second, "applytoshiftpresident", json!({"destAgentNo": room.chair.number}));
        desk.event(&room.chair, "AgentConf_PresidentChanged");
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
    }),
    ("modifyconfresource::not_below_those_present", |desk| {
        let room = desk.room_with(json!({"memberNum": 4}));
        desk.second(&room);
        desk.fails_below(&room.chair, "modifyconfresource", json!({"modifyType": 1, "modifyNum": 3}), 90_007);
        desk.ok(&room.chair, "modifyconfresource", json!({"modifyType": 1, "modifyNum": 2}));
        // Now it is full.
        let more = json!({"addresses": [phone_address("1")]});
        desk.fails_below(&room.chair, "batchaddparticipant", more.clone(), 90_007);
        desk.ok(&room.chair, "modifyconfresource", json!({"modifyType": "0", "modifyNum": "2"}));
        desk.ok(&room.chair, "batchaddparticipant", more);
    }),
    ("queryconfinfos::everything_there_is", |desk| {
        let room = desk.room_with(json!({"memberNum": 6, "time": 30}));
        let guest = desk.guest(&room);
        let before = jiff::Timestamp::now().as_millisecond();
        let result = desk.ok(&room.chair, "queryconfinfos", json!({"confIds": [room.id]}));
        assert_eq!(result.as_object().unwrap().keys().collect::<Vec<_>>(), ["confs"]);
        let conf = &result["confs"][0];
        assert_eq!((&conf["confId"], &conf["confState"]), (&json!(room.id), &json!(0)));
        assert_eq!((&conf["applyConfTime"], &conf["confHaveBeenTime"]), (&json!(30), &json!(0)));
        assert!((before - conf["startTime"].as_i64().expect("a number")).abs() < 600_000);
        let addresses = conf["addresses"].as_array().expect("a list");
        assert_eq!(addresses.len(), 2);
        for (entry, (kind, address, role)) in
            addresses.iter().zip([("9", room.chair.number.to_string(), 1), ("6", guest.phone.number.clone(), 0)])
        {
            let mut entry = entry.clone();
            let entered = entry.as_object_mut().unwrap().remove("enterTime").expect("told");
            assert!((before - entered.as_i64().expect("a number")).abs() < 600_000);
            assert_eq!(
                entry,
                json!({"addressType": kind, "address": address, "deviceCallType": 0, "deviceType": 0,
                       "channelAttrib": 3, "channelState": 0, "role": role})
            );
        }
    }),
    ("queryconfinfos::of_a_participant", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        assert_eq!(desk.info(&second, room.id)["confId"], room.id);
    }),
    ("queryconfinfos::only_its_own", |desk| {
        let (room, other) = (desk.room(), desk.room());
        let ids = json!({"confIds": [room.id, other.id, 1, 999_999_999_999_u64]});
        let confs = desk.ok(&room.chair, "queryconfinfos", ids)["confs"].clone();
        assert_eq!(confs.as_array().map(Vec::len), Some(1), "{confs}");
        assert_eq!(confs[0]["confId"], room.id);
    }),
    ("queryconfinfos::forms_of_numbers", |desk| {
        let room = desk.room();
        let confs =
            desk.ok(&room.chair, "queryconfinfos", json!({"confIds": [room.id.to_string(), room.id]}))["confs"].clone();
        assert_eq!(confs.as_array().map(Vec::len), Some(1), "{confs}");
        assert_eq!(desk.ok(&room.chair, "queryconfinfos", json!({"confIds": []})), json!({"confs": []}));
    }),
    ("queryconfinfos::twenty", |desk| {
        let room = desk.room();
        let mut ids: Vec<u64> = (1..20).collect();
        ids.push(room.id);
        assert_eq!(desk.ok(&room.chair, "queryconfinfos", json!({"confIds": ids}))["confs"][0]["confId"], room.id);
    }),
    ("queryconfinfos::of_an_inspector", |desk| {
        let inspector = inspector(desk);
        let chair = desk.agent_of(OTHER_VDN);
        let room = desk.room_of(chair, json!({"memberNum": 2}));
        assert_eq!(desk.info(&inspector, room.id)["confId"], room.id);
        // Not of another VDN.
        let other = desk.room();
        assert_eq!(desk.info(&inspector, other.id), Value::Null);
    }),
    ("queryconfinfos::who_has_not_joined_is_left_out", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        let ringing = desk.agent_with_phone();
        desk.ok(
            &room.chair,
            "batchaddparticipant",
            json!({"addresses": [phone_address(&phone.number), ringing.address()]}),
        );
        assert_eq!(desk.info(&room.chair, room.id)["addresses"].as_array().map(Vec::len), Some(1));
    }),
    ("queryvdnconfid::for_inspectors", |desk| {
        let inspector = inspector(desk);
        let chair = desk.agent_of(OTHER_VDN);
        let room = desk.room_of(chair, json!({"memberNum": 2}));
        let other = desk.room();
        let ids = ask_ids(desk, &inspector);
        assert!(ids.contains(&room.id) && !ids.contains(&other.id), "{ids:?}");
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        assert!(!ask_ids(desk, &inspector).contains(&room.id));
    }),
    ("queryvdnconfid::for_nobody_else", |desk| {
        desk.fails(&desk.agent(), "queryvdnconfid", Value::Null, "101-004");
        let room = desk.room();
        desk.fails(&room.chair, "queryvdnconfid", Value::Null, "101-004");
    }),
    ("queryvdnconfid::not_while_it_is_requested", |desk| {
        let inspector = inspector(desk);
        let before = ask_ids(desk, &inspector);
        let chair = desk.agent_of(OTHER_VDN);
        desk.ok(&chair, "requestagentconf", json!({"memberNum": 2}));
        chair.phone().called(&desk.world);
        chair.phone().answer(&desk.world);
        let id = desk.event(&chair, "AgentConf_RequestSuccess")["confId"].as_u64().expect("a number");
        assert!(!before.contains(&id));
        assert!(ask_ids(desk, &inspector).contains(&id));
    }),
    ("life::with_the_last_telephone_it_goes_on", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "batchremoveparticipant", json!({"addresses": [guest.address]}));
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
    }),
    ("life::the_connection_of_a_participant_is_deleted", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let connection = guest.phone.connection(&desk.world).expect("there")["connection_id"].clone();
        desk.world.server.ok("connection.delete", json!({"connection_id": connection}));
        let change = desk.change(&room.chair, 1);
        assert_eq!((&change["changeReason"], &change["participant"]), (&json!(2), &guest.address["address"]));
        assert_eq!(desk.info_of(&room, &guest.address), Value::Null);
    }),
    ("life::the_connection_of_the_chair_is_deleted", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let connection = room.chair.phone().connection(&desk.world).expect("there")["connection_id"].clone();
        desk.world.server.ok("connection.delete", json!({"connection_id": connection}));
        for agent in [&room.chair, &second] {
            assert_eq!(desk.event(agent, "AgentConf_SelfLeaveResult"), json!({"confId": room.id}));
        }
        desk.fails(&room.chair, "stopvoicetoconf", Value::Null, "101-001");
    }),
    ("life::the_conference_is_deleted_below", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        let label = format!("AgentGateway {}", room.id);
        let listed = desk.world.server.ok("conference.list", json!({}));
        let found = listed["conferences"].as_array().unwrap().iter().find(|conference| conference["label"] == *label);
        let id = found.expect("there")["conference_id"].clone();
        desk.world.server.ok("conference.delete", json!({"conference_id": id}));
        assert_eq!(desk.event(&room.chair, "AgentConf_SelfLeaveResult"), json!({"confId": room.id}));
        desk.fails(&room.chair, "stopvoicetoconf", Value::Null, "101-001");
    }),
    ("life::a_connection_that_is_there_already_is_used", |desk| {
        // Of the control socket, labelled with the number, in no conference: it takes part, and stays afterwards.
        let phone = desk.phone();
        let label = format!("77{}", phone.number);
        let leg = desk.world.server.create(json!({"remote": phone.endpoint.address().to_string(), "label": label}));
        phone.speak_to(leg.local);
        let room = desk.room();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [phone_address(&label)]}));
        assert_eq!(desk.change(&room.chair, 0)["result"], 0);
        assert_eq!(desk.world.server.get(&leg.id)["state"], "conference");
        desk.ok(&room.chair, "playvoicetoparticipant", with(&phone_address(&label), voice("alone.wav")));
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        assert_eq!(desk.world.server.get(&leg.id)["state"], "idle");
        assert_eq!(desk.world.server.get(&leg.id)["operations"], json!([]));
        desk.world.server.ok("connection.delete", json!({"connection_id": leg.id}));
    }),
];
