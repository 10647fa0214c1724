//! Participants (3.2 to 3.5): added, removed, muted, held, by what is answered and told.

use serde_json::{Value, json};

use crate::rig::{Desk, NOBODY, Party, Room, agent_address, phone_address, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("members", ROWS);
    // Every change from every mode to every mode: 1 and 3 are told, 2 and 4 are not, the same again is not.
    for from in 1..=4u32 {
        for to in 1..=4u32 {
            rows.push(Row::new(format!("members::changeparticipantmode::{from}_to_{to}"), move |desk| {
                let room = desk.room();
                let guest = desk.guest(&room);
                set_mode(desk, &room, &guest, from);
                desk.drain(&room);
                set_mode(desk, &room, &guest, to);
                let told = match to {
                    1 if from != to => vec![3],
                    3 if from != to => vec![4],
                    _ => vec![],
                };
                let events = desk.drain(&room);
                let changes: Vec<Value> = events.iter().map(|event| event["content"]["changeType"].clone()).collect();
                assert_eq!(changes, told, "{events:?}");
                assert_eq!(desk.info_of(&room, &guest.address)["channelAttrib"], to);
            }));
        }
    }
    for attribute in 1..=4u32 {
        rows.push(Row::new(
            format!("members::changeparticipantmode::{attribute}_of_an_agent_as_a_text"),
            move |desk| {
                let room = desk.room();
                let second = desk.second(&room);
                let body = with(&second.address(), json!({"attribute": attribute.to_string()}));
                desk.ok(&room.chair, "changeparticipantmode", body);
                assert_eq!(desk.info_of(&room, &second.address())["channelAttrib"], attribute);
            },
        ));
        rows.push(Row::new(format!("members::changeparticipantmode::{attribute}_stays_through_a_hold"), move |desk| {
            let room = desk.room();
            let guest = desk.guest(&room);
            set_mode(desk, &room, &guest, attribute);
            hold(desk, &room, &guest);
            assert_eq!(desk.info_of(&room, &guest.address)["channelAttrib"], attribute);
            desk.ok(&room.chair, "unholdparticipant", guest.address.clone());
            assert_eq!(desk.info_of(&room, &guest.address)["channelAttrib"], attribute);
        }));
    }
    for (operation, more) in [
        ("changeparticipantmode", json!({"attribute": 1})),
        ("holdparticipant", voice("music.wav")),
        ("unholdparticipant", json!({})),
    ] {
        let given = more.clone();
        rows.push(Row::new(format!("members::{operation}::unknown_telephone"), move |desk| {
            let room = desk.room();
            desk.fails_below(&room.chair, operation, with(&phone_address("4711"), given), 90_005);
        }));
        let given = more.clone();
        rows.push(Row::new(format!("members::{operation}::unknown_agent"), move |desk| {
            let room = desk.room();
            desk.fails_below(&room.chair, operation, with(&agent_address(NOBODY), given), 90_005);
        }));
        let given = more.clone();
        rows.push(Row::new(format!("members::{operation}::of_another_conference"), move |desk| {
            let (room, other) = (desk.room(), desk.room());
            let guest = desk.guest(&other);
            desk.fails_below(&room.chair, operation, with(&guest.address, given), 90_005);
        }));
        let given = more.clone();
        rows.push(Row::new(format!("members::{operation}::not_joined_yet"), move |desk| {
            let room = desk.room();
            let agent = desk.agent_with_phone();
            desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
            desk.fails_below(&room.chair, operation, with(&agent.address(), given), 90_006);
        }));
        rows.push(Row::new(format!("members::{operation}::gone"), move |desk| {
            let room = desk.room();
            let guest = desk.guest(&room);
            desk.ok(&room.chair, "batchremoveparticipant", json!({"addresses": [guest.address]}));
            desk.fails_below(&room.chair, operation, with(&guest.address, more), 90_005);
        }));
    }
    rows
}

fn set_mode(desk: &Desk, room: &Room, party: &Party, attribute: u32) {
    let body = with(&party.address, json!({"attribute": attribute}));
    assert_eq!(desk.ok(&room.chair, "changeparticipantmode", body), json!({}));
}

fn hold(desk: &Desk, room: &Room, party: &Party) {
    assert_eq!(desk.ok(&room.chair, "holdparticipant", with(&party.address, voice("music.wav"))), json!({}));
    let change = desk.change(&room.chair, 5);
    assert_eq!((&change["participant"], &change["result"]), (&party.address["address"], &json!(0)));
}

fn list(addresses: &[Value]) -> Value {
    json!({"addresses": addresses})
}

const ROWS: &[Plain] = &[
    ("batchaddparticipant::telephones", |desk| {
        let room = desk.room();
        let phones = [desk.phone(), desk.phone()];
        let addresses: Vec<Value> = phones.iter().map(|phone| phone_address(&phone.number)).collect();
        assert_eq!(desk.ok(&room.chair, "batchaddparticipant", list(&addresses)), json!({}));
        for phone in &phones {
            phone.answer(&desk.world);
            assert_eq!(desk.change(&room.chair, 0)["participantType"], 6);
        }
        assert_eq!(desk.info(&room.chair, room.id)["addresses"].as_array().map(Vec::len), Some(3));
    }),
    ("batchaddparticipant::all_fields", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        let body = json!({
            "addresses": [{"addressType": 6, "address": phone.number, "deviceCallType": "7", "deviceType": 255}],
            "beepTone": "true", "playMode": "2", "voicePath": "D:/conf/1/beep.wav", "caller": "4930123",
        });
        desk.ok(&room.chair, "batchaddparticipant", body);
        phone.answer(&desk.world);
        let change = desk.change(&room.chair, 0);
        assert_eq!((&change["deviceCallType"], &change["deviceType"]), (&json!(7), &json!(255)));
        let info = desk.info_of(&room, &phone_address(&phone.number));
        assert_eq!((&info["deviceCallType"], &info["deviceType"]), (&json!(7), &json!(255)));
    }),
    ("batchaddparticipant::numbers_as_numbers", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        let number: u64 = phone.number.parse().unwrap();
        desk.ok(&room.chair, "batchaddparticipant", list(&[json!({"addressType": 6, "address": number})]));
        phone.answer(&desk.world);
        assert_eq!(desk.change(&room.chair, 0)["participant"], phone.number);
    }),
    ("batchaddparticipant::rings_until_it_answers", |desk| {
        let room = desk.room();
        // Somebody to talk to: for one alone nothing is mixed.
        desk.guest(&room);
        let phone = desk.phone();
        desk.ok(&room.chair, "batchaddparticipant", list(&[phone_address(&phone.number)]));
        phone.hears(425, 0.05..2.0);
        // Those in the conference do not hear it.
        room.chair.phone().hears(425, 0.0..0.01);
        phone.answer(&desk.world);
        desk.change(&room.chair, 0);
        phone.hears(425, 0.0..0.01);
    }),
    ("batchaddparticipant::already_in_is_skipped", |desk| {
        let room = desk.room_with(json!({"memberNum": 2}));
        let guest = desk.guest(&room);
        // Otherwise there would be no seat.
        let again = list(&[guest.address.clone(), room.chair.address(), guest.address.clone()]);
        assert_eq!(desk.ok(&room.chair, "batchaddparticipant", again), json!({}));
        assert_eq!(desk.drain(&room), Vec::<Value>::new());
        assert_eq!(desk.info(&room.chair, room.id)["addresses"].as_array().map(Vec::len), Some(2));
    }),
    ("batchaddparticipant::twice_in_one_list", |desk| {
        let room = desk.room_with(json!({"memberNum": 2}));
        let phone = desk.phone();
        let address = phone_address(&phone.number);
        desk.ok(&room.chair, "batchaddparticipant", list(&[address.clone(), address]));
        phone.answer(&desk.world);
        desk.change(&room.chair, 0);
    }),
    ("batchaddparticipant::too_few_seats", |desk| {
        let room = desk.room_with(json!({"memberNum": 2}));
        let phones = [desk.phone(), desk.phone()];
        let addresses: Vec<Value> = phones.iter().map(|phone| phone_address(&phone.number)).collect();
        desk.fails_below(&room.chair, "batchaddparticipant", list(&addresses), 90_007);
        assert!(phones.iter().all(|phone| phone.connection(&desk.world).is_none()), "nobody was called");
        desk.ok(&room.chair, "batchaddparticipant", list(&addresses[..1]));
        desk.fails_below(&room.chair, "batchaddparticipant", list(&addresses[1..]), 90_007);
    }),
    ("batchaddparticipant::a_seat_is_free_again", |desk| {
        let room = desk.room_with(json!({"memberNum": 2}));
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "batchremoveparticipant", list(std::slice::from_ref(&guest.address)));
        desk.guest(&room);
    }),
    ("batchaddparticipant::nobody_there", |desk| {
        let room = desk.room();
        assert_eq!(desk.ok(&room.chair, "batchaddparticipant", list(&[phone_address("4711")])), json!({}));
        let change = desk.change(&room.chair, 0);
        assert_eq!((&change["result"], &change["participant"]), (&json!(90_005), &json!("4711")));
    }),
    ("batchaddparticipant::an_agent_not_signed_in", |desk| {
        let room = desk.room();
        let number = desk.number();
        desk.ok(&room.chair, "batchaddparticipant", list(&[agent_address(number)]));
        assert_eq!(desk.change(&room.chair, 0)["result"], 90_005);
    }),
    ("batchaddparticipant::an_agent_in_another_conference", |desk| {
        let (room, other) = (desk.room(), desk.room());
        desk.ok(&room.chair, "batchaddparticipant", list(&[other.chair.address()]));
        assert_eq!(desk.change(&room.chair, 0)["result"], 90_006);
    }),
    ("batchaddparticipant::an_agent_who_rings_already", |desk| {
        let (room, other) = (desk.room(), desk.room());
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", list(&[agent.address()]));
        desk.ok(&other.chair, "batchaddparticipant", list(&[agent.address()]));
        assert_eq!(desk.change(&other.chair, 0)["result"], 90_006);
        assert_eq!(desk.event(&agent, "AgentConf_Ringing"), json!({"confId": room.id}));
    }),
    ("batchaddparticipant::an_agent_whose_telephone_is_unknown", |desk| {
        let room = desk.room();
        let agent = desk.agent();
        desk.ok(&room.chair, "batchaddparticipant", list(&[agent.address()]));
        desk.event(&agent, "AgentConf_Ringing");
        desk.ok(&agent, "answeragentconf", Value::Null);
        assert_eq!(desk.change(&room.chair, 0)["result"], 90_005);
        desk.event(&agent, "AgentState_Ready");
        desk.fails(&agent, "requestleaveagentconf", Value::Null, "101-001");
    }),
    ("batchaddparticipant::the_welcome_is_looked_for_first", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        let body = |name: &str| {
            with(
                &list(&[phone_address(&phone.number)]),
                json!({"beepTone": true, "voicePath": format!("D:/conf/1/{name}")}),
            )
        };
        desk.fails_below(&room.chair, "batchaddparticipant", body("none.wav"), 90_003);
        desk.fails_below(&room.chair, "batchaddparticipant", body("broken.wav"), 90_004);
        desk.fails_below(&room.chair, "batchaddparticipant", body("../x.wav"), 90_009);
        assert_eq!(phone.connection(&desk.world), None);
    }),
    ("batchremoveparticipant::and_its_events", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let third = desk.second(&room);
        let result = desk.ok(&room.chair, "batchremoveparticipant", list(&[second.address()]));
        assert_eq!(result, json!({"noExistParticipants": []}));
        assert_eq!(desk.event(&second, "AgentConf_SelfLeaveResult"), json!({"confId": room.id}));
        for agent in [&room.chair, &third] {
            let change = desk.change(agent, 1);
            assert_eq!(
                (&change["changeReason"], &change["participant"]),
                (&json!(1), &json!(second.number.to_string()))
            );
        }
        assert_eq!(second.phone().connection(&desk.world), None);
        desk.fails(&second, "requestleaveagentconf", Value::Null, "101-001");
    }),
    ("batchremoveparticipant::those_that_are_not_there", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let absent = [phone_address("4711"), agent_address(NOBODY)];
        let body = list(&[absent[0].clone(), guest.address.clone(), absent[1].clone()]);
        assert_eq!(desk.ok(&room.chair, "batchremoveparticipant", body), json!({"noExistParticipants": absent}));
        let again = desk.ok(&room.chair, "batchremoveparticipant", list(std::slice::from_ref(&guest.address)));
        assert_eq!(again, json!({"noExistParticipants": [guest.address]}));
    }),
    ("batchremoveparticipant::twice_in_one_list", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let twice = list(&[guest.address.clone(), guest.address.clone()]);
        assert_eq!(desk.ok(&room.chair, "batchremoveparticipant", twice), json!({"noExistParticipants": []}));
    }),
    ("holdparticipant::while_it_is_welcomed", |desk| {
        let room = desk.room();
        for operation in ["holdparticipant", "playvoicetoparticipant"] {
            let phone = desk.phone();
            let address = phone_address(&phone.number);
            let body = with(
                &list(std::slice::from_ref(&address)),
                json!({"beepTone": true, "voicePath": "D:/conf/1/long.wav"}),
            );
            desk.ok(&room.chair, "batchaddparticipant", body);
            phone.answer(&desk.world);
            desk.change(&room.chair, 0);
            phone.hears(1000, 0.5..1.6);
            desk.ok(&room.chair, operation, with(&address, voice("alone.wav")));
            phone.hears(1300, 0.5..1.6);
        }
    }),
    ("batchremoveparticipant::the_chair_itself", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let both = list(&[guest.address.clone(), room.chair.address()]);
        desk.fails(&room.chair, "batchremoveparticipant", both, "101-006");
        assert_eq!(desk.info_of(&room, &guest.address)["address"], guest.address["address"], "nobody was removed");
    }),
    ("batchremoveparticipant::one_who_rings", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", list(&[agent.address()]));
        desk.ok(&room.chair, "batchremoveparticipant", list(&[agent.address()]));
        assert_eq!(
            desk.types_until(&agent, "AgentState_Ready"),
            ["AgentConf_Ringing", "AgentOther_PhoneRelease", "AgentState_Ready"]
        );
    }),
    ("batchremoveparticipant::one_who_is_called", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        desk.ok(&room.chair, "batchaddparticipant", list(&[phone_address(&phone.number)]));
        phone.called(&desk.world);
        desk.ok(&room.chair, "batchremoveparticipant", list(&[phone_address(&phone.number)]));
        assert_eq!(phone.connection(&desk.world), None);
    }),
    ("batchremoveparticipant::one_on_hold", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        hold(desk, &room, &guest);
        let connection = guest.phone.connection(&desk.world).expect("there")["connection_id"].clone();
        desk.ok(&room.chair, "batchremoveparticipant", list(std::slice::from_ref(&guest.address)));
        assert_eq!(guest.phone.connection(&desk.world), None);
        let operations = desk.world.server.ok("operation.list", json!({}))["operations"].clone();
        let left = operations.as_array().unwrap().iter().filter(|operation| operation["connection_id"] == connection);
        assert_eq!(left.count(), 0);
    }),
    ("batchremoveparticipant::its_effect", |desk| {
        let room = desk.room();
        let guests = [desk.guest(&room), desk.guest(&room)];
        let both: Vec<Value> = guests.iter().map(|guest| guest.address.clone()).collect();
        let effect = desk.effect(&room.chair, "batchremoveparticipant", list(&both));
        assert!(effect["streams"].as_array().is_some_and(|streams| streams.len() >= 2), "{effect}");
    }),
    ("changeparticipantmode::told_to_all", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "changeparticipantmode", with(&second.address(), json!({"attribute": 1})));
        for agent in [&room.chair, &second] {
            let change = desk.change(agent, 3);
            assert_eq!(
                (&change["participant"], &change["participantType"]),
                (&json!(second.number.to_string()), &json!(9))
            );
        }
    }),
    ("changeparticipantmode::of_the_chair", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "changeparticipantmode", with(&room.chair.address(), json!({"attribute": 1})));
        assert_eq!(desk.change(&room.chair, 3)["participant"], room.chair.number.to_string());
    }),
    ("changeparticipantmode::of_one_on_hold", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        hold(desk, &room, &guest);
        set_mode(desk, &room, &guest, 1);
        let info = desk.info_of(&room, &guest.address);
        assert_eq!((&info["channelAttrib"], &info["channelState"]), (&json!(1), &json!(1)));
    }),
    ("changeparticipantmode::its_effect", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let effect = desk.effect(&room.chair, "changeparticipantmode", with(&guest.address, json!({"attribute": 4})));
        assert!(effect["streams"].as_array().is_some_and(|streams| !streams.is_empty()), "{effect}");
        crate::media::delay_ms(&effect);
        // The same again changes nothing.
        let again =
            desk.ask_whole(&room.chair, "changeparticipantmode", &with(&guest.address, json!({"attribute": 4})));
        assert_eq!(crate::rig::effect_of(&again), None);
    }),
    ("holdparticipant::and_unhold", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "holdparticipant", with(&second.address(), voice("music.wav")));
        for agent in [&room.chair, &second] {
            assert_eq!(desk.change(agent, 5)["participant"], second.number.to_string());
        }
        assert_eq!(desk.info_of(&room, &second.address())["channelState"], 1);
        assert_eq!(desk.ok(&room.chair, "unholdparticipant", second.address()), json!({}));
        for agent in [&room.chair, &second] {
            assert_eq!(desk.change(agent, 6)["participant"], second.number.to_string());
        }
        assert_eq!(desk.info_of(&room, &second.address())["channelState"], 0);
    }),
    ("holdparticipant::twice", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        hold(desk, &room, &guest);
        desk.fails_below(&room.chair, "holdparticipant", with(&guest.address, voice("music.wav")), 90_006);
        desk.ok(&room.chair, "unholdparticipant", guest.address.clone());
        hold(desk, &room, &guest);
    }),
    ("holdparticipant::while_played_to", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("alone.wav")));
        desk.fails_below(&room.chair, "holdparticipant", with(&guest.address, voice("music.wav")), 90_006);
        desk.ok(&room.chair, "stopvoicetoparticipant", guest.address.clone());
        hold(desk, &room, &guest);
    }),
    ("holdparticipant::the_chair_itself", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "holdparticipant", with(&room.chair.address(), voice("music.wav")));
        assert_eq!(desk.info_of(&room, &room.chair.address())["channelState"], 1);
        desk.ok(&room.chair, "unholdparticipant", room.chair.address());
    }),
    ("holdparticipant::its_effect", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let held = desk.effect(&room.chair, "holdparticipant", with(&guest.address, voice("music.wav")));
        crate::media::delay_ms(&held);
        let back = desk.effect(&room.chair, "unholdparticipant", guest.address.clone());
        crate::media::delay_ms(&back);
    }),
    ("unholdparticipant::one_not_on_hold", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        desk.fails_below(&room.chair, "unholdparticipant", guest.address.clone(), 90_006);
        hold(desk, &room, &guest);
        desk.ok(&room.chair, "unholdparticipant", guest.address.clone());
        desk.fails_below(&room.chair, "unholdparticipant", guest.address, 90_006);
    }),
];
