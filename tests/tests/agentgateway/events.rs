//! The events of a conference (5): every one with its content, and who gets it.

use serde_json::{Value, json};

use crate::rig::{Agent, Desk, Room, phone_address, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    Row::plain("events", ROWS)
}

/// Three agents in a conference, and a telephone.
struct Cast {
    room: Room,
    second: Agent,
    third: Agent,
}

impl Cast {
    fn open(desk: &Desk) -> Self {
        let room = desk.room();
        let second = desk.second(&room);
        let third = desk.second(&room);
        desk.change(&second, 0);
        Self { room, second, third }
    }

    /// Ends the conference; what each of the three was told until then.
    fn told(&self, desk: &Desk) -> [Vec<(String, Value)>; 3] {
        let chair = desk.info(&self.room.chair, self.room.id)["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["role"] == 1)
            .expect("a chair")["address"]
            .clone();
        let agents = [&self.room.chair, &self.second, &self.third];
        let chair = agents.into_iter().find(|agent| chair == agent.address()["address"]).expect("one of them");
        desk.ok(chair, "releaseagentconf", Value::Null);
        agents.map(|agent| {
            let mut events = desk.events_until(agent, "AgentConf_SelfLeaveResult");
            // The end itself: everybody leaves.
            events.retain(|event| {
                event["content"]["changeReason"] != 3 && event["eventType"] != "AgentConf_SelfLeaveResult"
            });
            let told = events
                .into_iter()
                .map(|mut event| (event["eventType"].as_str().unwrap().to_owned(), event["content"].take()));
            told.collect()
        })
    }
}

fn changed(room: &Room, kind: u32, reason: u32, participant: &str, participant_type: u32) -> (String, Value) {
    let content = json!({
        "result": 0, "changeType": kind, "changeReason": reason, "confId": room.id, "participant": participant,
        "participantType": participant_type, "deviceCallType": 0, "deviceType": 0,
    });
    ("AgentConf_ParticipantChanged".to_owned(), content)
}

const ROWS: &[Plain] = &[
    ("joined", |desk| {
        let cast = Cast::open(desk);
        let guest = desk.guest(&cast.room);
        let number = guest.phone.number.clone();
        // The chair's was taken by whoever waited for it.
        let [chair, second, third] = cast.told(desk);
        let joined = changed(&cast.room, 0, 255, &number, 6);
        assert_eq!((chair, second, third), (vec![], vec![joined.clone()], vec![joined]));
    }),
    ("left_by_itself", |desk| {
        let cast = Cast::open(desk);
        let fourth = desk.second(&cast.room);
        desk.change(&cast.second, 0);
        desk.change(&cast.third, 0);
        desk.ok(&fourth, "requestleaveagentconf", Value::Null);
        let left = changed(&cast.room, 1, 0, &fourth.number.to_string(), 9);
        assert_eq!(cast.told(desk), [vec![left.clone()], vec![left.clone()], vec![left]]);
        assert_eq!(
            desk.types_until(&fourth, "AgentState_Ready"),
            ["AgentConf_SelfLeaveResult", "AgentOther_PhoneRelease", "AgentState_Ready"]
        );
    }),
    ("removed", |desk| {
        let cast = Cast::open(desk);
        let guest = desk.guest(&cast.room);
        desk.change(&cast.second, 0);
        desk.change(&cast.third, 0);
        desk.ok(&cast.room.chair, "batchremoveparticipant", json!({"addresses": [guest.address]}));
        let left = changed(&cast.room, 1, 1, &guest.phone.number, 6);
        assert_eq!(cast.told(desk), [vec![left.clone()], vec![left.clone()], vec![left]]);
    }),
    ("hung_up", |desk| {
        let cast = Cast::open(desk);
        let guest = desk.guest(&cast.room);
        desk.change(&cast.second, 0);
        desk.change(&cast.third, 0);
        let connection = guest.phone.connection(&desk.world).expect("there")["connection_id"].clone();
        desk.world.server.ok("connection.delete", json!({"connection_id": connection}));
        assert_eq!(desk.change(&cast.room.chair, 1)["changeReason"], 2);
        let left = changed(&cast.room, 1, 2, &guest.phone.number, 6);
        assert_eq!(cast.told(desk), [vec![], vec![left.clone()], vec![left]]);
    }),
    ("conference_ended", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        desk.ok(&room.chair, "releaseagentconf", Value::Null);
        for agent in [&room.chair, &second] {
            let events = desk.events_until(agent, "AgentState_Ready");
            let events: Vec<(String, Value)> = events
                .into_iter()
                .map(|mut event| (event["eventType"].as_str().unwrap().to_owned(), event["content"].take()))
                .collect();
            assert_eq!(
                events,
                [
                    changed(&room, 1, 3, &room.chair.number.to_string(), 9),
                    changed(&room, 1, 3, &second.number.to_string(), 9),
                    ("AgentConf_SelfLeaveResult".to_owned(), json!({"confId": room.id})),
                    ("AgentOther_PhoneRelease".to_owned(), Value::Null),
                    ("AgentState_Ready".to_owned(), Value::Null),
                ]
            );
        }
    }),
    ("chair_changed", |desk| {
        let cast = Cast::open(desk);
        desk.ok(&cast.room.chair, "applytoshiftpresident", json!({"destAgentNo": cast.second.number}));
        let change = changed(&cast.room, 2, 255, &cast.second.number.to_string(), 9);
        let new = ("AgentConf_PresidentChanged".to_owned(), json!({"confId": cast.room.id}));
        assert_eq!(cast.told(desk), [vec![change.clone()], vec![new], vec![change]]);
    }),
    ("muted_and_unmuted", |desk| {
        let cast = Cast::open(desk);
        for attribute in [1, 4, 2, 3] {
            let body = with(&cast.third.address(), json!({"attribute": attribute}));
            desk.ok(&cast.room.chair, "changeparticipantmode", body);
        }
        let number = cast.third.number.to_string();
        let told = vec![changed(&cast.room, 3, 255, &number, 9), changed(&cast.room, 4, 255, &number, 9)];
        assert_eq!(cast.told(desk), [told.clone(), told.clone(), told]);
    }),
    ("held_and_unheld", |desk| {
        let cast = Cast::open(desk);
        desk.ok(&cast.room.chair, "holdparticipant", with(&cast.third.address(), voice("music.wav")));
        desk.ok(&cast.room.chair, "unholdparticipant", cast.third.address());
        let number = cast.third.number.to_string();
        let told = vec![changed(&cast.room, 5, 255, &number, 9), changed(&cast.room, 6, 255, &number, 9)];
        assert_eq!(cast.told(desk), [told.clone(), told.clone(), told]);
    }),
    ("announcements_concern_the_chair", |desk| {
        let cast = Cast::open(desk);
        desk.ok(&cast.room.chair, "playvoicetoconf", voice("short.wav"));
        assert_eq!(desk.event(&cast.room.chair, "AgentConf_StopVoice"), json!({"result": 0}));
        desk.ok(&cast.room.chair, "playvoicetoparticipant", with(&cast.third.address(), voice("short.wav")));
        assert_eq!(desk.event(&cast.room.chair, "AgentConf_StopParticipantVoice"), json!({"result": 0}));
        assert_eq!(cast.told(desk), [vec![], vec![], vec![]]);
    }),
    ("nobody_answered", |desk| {
        let cast = Cast::open(desk);
        desk.ok(&cast.room.chair, "batchaddparticipant", json!({"addresses": [phone_address("4711")]}));
        assert_eq!(desk.change(&cast.room.chair, 0)["result"], 90_005);
        assert_eq!(cast.told(desk), [vec![], vec![], vec![]]);
    }),
    ("ringing_concerns_the_invited", |desk| {
        let cast = Cast::open(desk);
        let fourth = desk.agent_with_phone();
        desk.ok(&cast.room.chair, "batchaddparticipant", json!({"addresses": [fourth.address()]}));
        assert_eq!(desk.event(&fourth, "AgentConf_Ringing"), json!({"confId": cast.room.id}));
        assert_eq!(cast.told(desk), [vec![], vec![], vec![]]);
        assert_eq!(desk.types_until(&fourth, "AgentState_Ready"), ["AgentOther_PhoneRelease", "AgentState_Ready"]);
    }),
];
