//! Two clients at once on one conference: each request has one outcome, and what is told fits it.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::rig::{Agent, Desk, Room, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    Row::plain("concurrency", ROWS)
}

/// Asks several things at the same moment, each over a connection of its own; the answers in the order of the questions.
fn at_once(desk: &Desk, asked: &[(&Agent, &str, Value)]) -> Vec<Value> {
    let together = Barrier::new(asked.len());
    thread::scope(|scope| {
        let asked: Vec<_> = asked
            .iter()
            .map(|(agent, operation, body)| {
                let together = &together;
                let api = desk.api.from_address([127, 0, 0, 1].into());
                scope.spawn(move || {
                    let body = if body.is_null() { String::new() } else { body.to_string() };
                    let path = crate::rig::conf_path(agent.number, operation);
                    // The connection is there before all begin.
                    let shake = crate::rig::path("onlineagent", agent.number, "handshake");
                    api.request("POST", &shake, &[("Guid", &agent.guid)], b"");
                    together.wait();
                    api.request("POST", &path, &[("Guid", &agent.guid)], body.as_bytes()).json()
                })
            })
            .collect();
        asked.into_iter().map(|answer| answer.join().expect("answered")).collect()
    })
}

/// How an answer came out: `0`, a cause, or a code.
fn outcome(answer: &Value) -> String {
    match answer["result"]["errorReason"].as_u64() {
        Some(cause) => cause.to_string(),
        None => answer["retcode"].as_str().expect("a code").to_owned(),
    }
}

fn outcomes(answers: &[Value]) -> Vec<String> {
    let mut outcomes: Vec<String> = answers.iter().map(outcome).collect();
    outcomes.sort();
    outcomes
}

/// The ends of announcements among events.
fn ends(events: &[Value]) -> usize {
    events.iter().filter(|event| event["eventType"] == "AgentConf_StopVoice").count()
}

/// A wait that is another one each time: what races begins at different moments of it.
fn spread(turn: u64, over_ms: u64) -> Duration {
    Duration::from_micros(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (over_ms * 1000))
}

fn play(desk: &Desk, room: &Room, name: &str) {
    desk.ok(&room.chair, "playvoicetoconf", voice(name));
}

const ROWS: &[Plain] = &[
    ("of_two_stops_at_once_one_succeeds", |desk| {
        let room = desk.room();
        for _ in 0..10 {
            play(desk, &room, "long.wav");
            let stop = (&room.chair, "stopvoicetoconf", Value::Null);
            assert_eq!(outcomes(&at_once(desk, &[stop.clone(), stop])), ["0", "90001"]);
        }
        assert_eq!(desk.drain(&room), Vec::<Value>::new());
    }),
    ("of_eight_stops_at_once_one_succeeds", |desk| {
        let room = desk.room();
        play(desk, &room, "long.wav");
        desk.ok(&room.chair, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        let stops: Vec<_> = (0..8).map(|_| (&room.chair, "stopvoicetoconf", Value::Null)).collect();
        let outcomes = outcomes(&at_once(desk, &stops));
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "0").count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "90001").count(), 7, "{outcomes:?}");
    }),
    ("of_two_plays_at_once_one_succeeds", |desk| {
        let room = desk.room();
        for kind in [0, 1] {
            let play = (&room.chair, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": kind})));
            assert_eq!(outcomes(&at_once(desk, &[play.clone(), play])), ["0", "90002"]);
        }
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
    }),
    ("a_stop_against_the_natural_end", |desk| {
        let room = desk.room();
        let mut stopped = 0;
        for turn in 0..60 {
            play(desk, &room, "short.wav");
            // The file lasts 100 ms and starts at a frame: around its end both are possible.
            thread::sleep(Duration::from_millis(85) + spread(turn, 60));
            let answer = desk.ask(&room.chair, "stopvoicetoconf", Value::Null);
            let told = ends(&desk.drain(&room));
            match outcome(&answer).as_str() {
                "0" => assert_eq!(told, 0, "stopped, and an end is told"),
                "90001" => assert_eq!(told, 1, "not stopped, and no end is told"),
                other => panic!("{other}"),
            }
            stopped += u32::from(outcome(&answer) == "0");
            assert_eq!(desk.info(&room.chair, room.id)["confState"], 0);
        }
        // How often which was first is up to the machine.
        assert!(stopped <= 60);
    }),
    ("two_stops_against_the_natural_end", |desk| {
        let room = desk.room();
        for turn in 0..30 {
            play(desk, &room, "short.wav");
            thread::sleep(Duration::from_millis(60) + spread(turn, 60));
            let stop = (&room.chair, "stopvoicetoconf", Value::Null);
            let outcomes = outcomes(&at_once(desk, &[stop.clone(), stop]));
            let told = ends(&desk.drain(&room));
            assert!(
                outcomes == ["0", "90001"] && told == 0 || outcomes == ["90001", "90001"] && told == 1,
                "{outcomes:?} {told}"
            );
        }
    }),
    ("a_stop_to_one_against_its_natural_end", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        for turn in 0..30 {
            desk.ok(&room.chair, "playvoicetoparticipant", with(&guest.address, voice("short.wav")));
            thread::sleep(Duration::from_millis(85) + spread(turn, 60));
            let answer = desk.ask(&room.chair, "stopvoicetoparticipant", guest.address.clone());
            let events = desk.drain(&room);
            let told = events.iter().filter(|event| event["eventType"] == "AgentConf_StopParticipantVoice").count();
            assert_eq!(told, usize::from(outcome(&answer) == "90001"), "{answer} {events:?}");
        }
    }),
    ("a_play_while_the_one_before_ends", |desk| {
        let room = desk.room();
        let mut ended = 0;
        for turn in 0..30 {
            play(desk, &room, "short.wav");
            thread::sleep(Duration::from_millis(85) + spread(turn, 60));
            let answer = desk.ask(&room.chair, "playvoicetoconf", voice("short.wav"));
            match outcome(&answer).as_str() {
                "0" => ended += 2,
                "90002" => ended += 1,
                other => panic!("{other}"),
            }
            until("all ends are told", || {
                ended -= ends(&[desk.poll(&room.chair)]);
                (ended == 0).then_some(())
            });
        }
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
    }),
    ("a_release_against_a_stop", |desk| {
        for _ in 0..10 {
            let room = desk.room();
            play(desk, &room, "long.wav");
            let asked = [(&room.chair, "releaseagentconf", Value::Null), (&room.chair, "stopvoicetoconf", Value::Null)];
            let answers = at_once(desk, &asked);
            assert_eq!(outcome(&answers[0]), "0");
            assert!(["0", "101-001"].contains(&outcome(&answers[1]).as_str()), "{}", answers[1]);
            let told = desk.events_until(&room.chair, "AgentState_Ready");
            assert_eq!(ends(&told), 0, "{told:?}");
            room.chair.phone().hush();
            assert_eq!(room.chair.phone().connection(&desk.world), None);
            let out = crate::rig::path("onlineagent", room.chair.number, "logout");
            assert_eq!(desk.retcode("DELETE", &out, Some(&room.chair.guid), b""), "0");
        }
    }),
    ("of_two_releases_one_succeeds", |desk| {
        let room = desk.room();
        let release = (&room.chair, "releaseagentconf", Value::Null);
        assert_eq!(outcomes(&at_once(desk, &[release.clone(), release])), ["0", "101-001"]);
        let told = desk.types_until(&room.chair, "AgentState_Ready");
        assert_eq!(told.iter().filter(|name| *name == "AgentConf_SelfLeaveResult").count(), 1, "{told:?}");
    }),
    ("the_chair_passes_on_while_a_stop_is_under_way", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        let mut agents = [&room.chair, &second];
        for _ in 0..10 {
            let [chair, other] = agents;
            desk.ok(chair, "playvoicetoconf", voice("long.wav"));
            let asked = [
                (chair, "stopvoicetoconf", Value::Null),
                (chair, "applytoshiftpresident", json!({"destAgentNo": other.number})),
            ];
            let answers = at_once(desk, &asked);
            assert_eq!(outcome(&answers[1]), "0");
            match outcome(&answers[0]).as_str() {
                "0" => desk.fails_below(other, "stopvoicetoconf", Value::Null, 90_001),
                // It came second: what plays is left to the new chair.
                "101-002" => drop(desk.ok(other, "stopvoicetoconf", Value::Null)),
                wrong => panic!("{wrong}"),
            }
            agents = [other, chair];
        }
    }),
    ("both_chairs_stop_while_the_chair_passes_on", |desk| {
        let room = desk.room();
        let second = desk.second(&room);
        play(desk, &room, "long.wav");
        let asked = [
            (&room.chair, "stopvoicetoconf", Value::Null),
            (&room.chair, "applytoshiftpresident", json!({"destAgentNo": second.number})),
            (&second, "stopvoicetoconf", Value::Null),
        ];
        let answers = at_once(desk, &asked);
        assert_eq!(outcome(&answers[1]), "0");
        let stops = [outcome(&answers[0]), outcome(&answers[2])];
        let known = ["0", "101-002", "90001"];
        assert!(stops.iter().all(|stop| known.contains(&stop.as_str())), "{stops:?}");
        assert!(stops.iter().filter(|stop| *stop == "0").count() <= 1, "{stops:?}");
        let after = outcome(&desk.ask(&second, "stopvoicetoconf", Value::Null));
        assert_eq!(after == "0", !stops.contains(&"0".to_owned()), "{stops:?} {after}");
    }),
    ("no_mode_is_lost", |desk| {
        let room = desk.room();
        let guests = [desk.guest(&room), desk.guest(&room)];
        for turn in 0..10u32 {
            let mode = |guest: usize| with(&guests[guest].address, json!({"attribute": (turn + guest as u32) % 4 + 1}));
            let asked = [
                (&room.chair, "changeparticipantmode", mode(0)),
                (&room.chair, "changeparticipantmode", mode(1)),
                (&room.chair, "prolongtime", json!({"prolongTime": 1})),
                (&room.chair, "prolongtime", json!({"prolongTime": 1})),
            ];
            assert_eq!(outcomes(&at_once(desk, &asked)), ["0"; 4]);
            for (number, guest) in guests.iter().enumerate() {
                let wanted = (turn + number as u32) % 4 + 1;
                assert_eq!(desk.info_of(&room, &guest.address)["channelAttrib"], wanted);
            }
        }
        assert_eq!(desk.info(&room.chair, room.id)["applyConfTime"], 80);
    }),
    ("seats_are_counted_one_after_the_other", |desk| {
        let room = desk.room_with(json!({"memberNum": 100}));
        let more = (&room.chair, "modifyconfresource", json!({"modifyType": 0, "modifyNum": 10}));
        let asked = [more.clone(), more.clone(), more];
        assert_eq!(outcomes(&at_once(desk, &asked)), ["0", "0", "90007"]);
    }),
    ("the_last_seat_is_given_once", |desk| {
        let room = desk.room_with(json!({"memberNum": 2}));
        let phones = [desk.phone(), desk.phone()];
        let add = |number: usize| json!({"addresses": [crate::rig::phone_address(&phones[number].number)]});
        let asked = [(&room.chair, "batchaddparticipant", add(0)), (&room.chair, "batchaddparticipant", add(1))];
        assert_eq!(outcomes(&at_once(desk, &asked)), ["0", "90007"]);
        assert_eq!(phones.iter().filter(|phone| phone.connection(&desk.world).is_some()).count(), 1);
    }),
    ("one_on_hold_is_held_once", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        for _ in 0..5 {
            let hold = (&room.chair, "holdparticipant", with(&guest.address, voice("music.wav")));
            assert_eq!(outcomes(&at_once(desk, &[hold.clone(), hold])), ["0", "90006"]);
            let back = (&room.chair, "unholdparticipant", guest.address.clone());
            assert_eq!(outcomes(&at_once(desk, &[back.clone(), back])), ["0", "90006"]);
        }
    }),
    ("one_is_removed_once", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let list = json!({"addresses": [guest.address]});
        let remove = (&room.chair, "batchremoveparticipant", list);
        let answers = at_once(desk, &[remove.clone(), remove]);
        let missing: usize =
            answers.iter().map(|answer| answer["result"]["noExistParticipants"].as_array().map_or(9, Vec::len)).sum();
        assert_eq!(missing, 1, "{answers:?}");
        let events = desk.drain(&room);
        assert_eq!(events.iter().filter(|event| event["content"]["changeType"] == 1).count(), 1, "{events:?}");
    }),
    ("of_two_requests_of_one_agent_one_is_taken", |desk| {
        let agent = desk.agent_with_phone();
        let request = (&agent, "requestagentconf", json!({"memberNum": 2}));
        assert_eq!(outcomes(&at_once(desk, &[request.clone(), request])), ["0", "101-003"]);
        agent.phone().answer(&desk.world);
        desk.event(&agent, "AgentConf_RequestSuccess");
    }),
    ("an_invitation_is_answered_once", |desk| {
        let room = desk.room();
        let agent = desk.agent_with_phone();
        desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent.address()]}));
        desk.event(&agent, "AgentConf_Ringing");
        let asked = [(&agent, "answeragentconf", Value::Null), (&agent, "rejectagentconf", Value::Null)];
        assert_eq!(outcomes(&at_once(desk, &asked)), ["0", "101-001"]);
    }),
    ("two_invitations_of_one_agent", |desk| {
        let rooms = [desk.room(), desk.room()];
        let agent = desk.agent_with_phone();
        let list = json!({"addresses": [agent.address()]});
        let asked =
            [(&rooms[0].chair, "batchaddparticipant", list.clone()), (&rooms[1].chair, "batchaddparticipant", list)];
        assert_eq!(outcomes(&at_once(desk, &asked)), ["0", "0"]);
        desk.event(&agent, "AgentConf_Ringing");
        desk.ok(&agent, "answeragentconf", Value::Null);
        agent.phone().answer(&desk.world);
        let id = desk.event(&agent, "AgentConf_SelfJoinResult")["confId"].clone();
        let (inside, outside) = if id == rooms[0].id { (&rooms[0], &rooms[1]) } else { (&rooms[1], &rooms[0]) };
        assert_eq!(desk.change(&inside.chair, 0)["result"], 0);
        assert_eq!(desk.change(&outside.chair, 0)["result"], 90_006);
    }),
    ("sign_ins_of_one_agent_at_once", |desk| {
        let number = desk.number();
        let body = json!({"password": "", "phonenum": "1"});
        let answers: Vec<Value> = thread::scope(|scope| {
            let asked: Vec<_> =
                (0..4).map(|_| scope.spawn(|| desk.sign_in_with(number, false, &body).json())).collect();
            asked.into_iter().map(|answer| answer.join().expect("answered")).collect()
        });
        let codes = outcomes(&answers);
        assert_eq!(codes.iter().filter(|code| *code == "0").count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| ["0", "100-002", "100-021"].contains(&code.as_str())), "{codes:?}");
    }),
    ("a_sign_out_against_a_play", |desk| {
        for _ in 0..5 {
            let room = desk.room();
            let out = crate::rig::path("onlineagent", room.chair.number, "forcelogout");
            thread::scope(|scope| {
                let played = scope.spawn(|| desk.ask(&room.chair, "playvoicetoconf", voice("long.wav")));
                let api = desk.api.from_address([127, 0, 0, 1].into());
                assert_eq!(api.request("DELETE", &out, &[("Guid", &room.chair.guid)], b"").json()["retcode"], "0");
                let outcome = outcome(&played.join().expect("answered"));
                assert!(["0", "101-001", "100-006"].contains(&outcome.as_str()), "{outcome}");
            });
            room.chair.phone().hush();
            assert_eq!(room.chair.phone().connection(&desk.world), None);
        }
    }),
    ("participants_come_and_go_all_at_once", |desk| {
        let room = desk.room();
        let phones = [desk.phone(), desk.phone(), desk.phone()];
        for _ in 0..3 {
            let addresses: Vec<Value> = phones.iter().map(|phone| crate::rig::phone_address(&phone.number)).collect();
            desk.ok(&room.chair, "batchaddparticipant", json!({"addresses": addresses}));
            for phone in &phones {
                phone.answer(&desk.world);
            }
            for _ in &phones {
                assert_eq!(desk.change(&room.chair, 0)["result"], 0);
            }
            let asked: Vec<_> = addresses
                .iter()
                .map(|address| (&room.chair, "batchremoveparticipant", json!({"addresses": [address]})))
                .collect();
            assert_eq!(outcomes(&at_once(desk, &asked)), ["0", "0", "0"]);
            for phone in &phones {
                phone.hush();
                assert_eq!(phone.connection(&desk.world), None);
            }
        }
        assert_eq!(desk.info(&room.chair, room.id)["addresses"].as_array().map(Vec::len), Some(1));
    }),
];
