//! Section 4: MuteRecording.

use ringbridge_tests::until;
use serde_json::json;

use crate::Row;
use crate::rig::{ALWAYS, ENDED, NOT_FOUND, Rig, encode, state};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: String, run: Box<dyn FnOnce(&mut Rig) + Send>| rows.push(Row::new(format!("mute::{name}"), run));

    // 4.1 The value is the whole new state, whatever was before.
    for before in 0..4u8 {
        for after in 0..4u8 {
            row(
                format!("4.1_{before}_then_{after}"),
                Box::new(move |rig| {
                    let number = rig.number(0);
                    let (_, id) = rig.recorded(&number);
                    let mute = |value: u8| rig.ok(&format!("action=MuteRecording&callID={id}&mute={value}")).muted();
                    assert_eq!(mute(before), state(before));
                    assert_eq!(mute(after), state(after));
                    assert_eq!(rig.muted(&id), state(after));
                    assert_eq!(mute(after), state(after), "the state in force is a success");
                }),
            );
        }
        for (name, query) in [("absent", ""), ("empty", "&mute=")] {
            row(
                format!("4.1_{name}_asks_in_state_{before}"),
                Box::new(move |rig| {
                    let number = rig.number(0);
                    let (_, id) = rig.recorded(&number);
                    rig.ok(&format!("action=MuteRecording&callID={id}&mute={before}"));
                    for _ in 0..2 {
                        assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}{query}")).muted(), state(before));
                    }
                }),
            );
        }
    }
    for (number, value) in [
        "4",
        "-1",
        "00",
        "01",
        "03",
        "1.0",
        "+1",
        " 1",
        "1 ",
        "true",
        "on",
        "0x1",
        "1,2",
        "３",
        "99999999999999999999",
        "\0",
        "1\n",
        "null",
        "<1>",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("4.1_another_value_{number:02}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                rig.ok(&format!("action=MuteRecording&callID={id}&mute=2"));
                rig.fails(&format!("action=MuteRecording&callID={id}&mute={}", encode(value)), 3, "mute is");
                assert_eq!(rig.muted(&id), state(2), "nothing has changed");
            }),
        );
    }
    row(
        "4.1_given_twice_the_last_counts".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}&mute=1&MUTE=2")).muted(), state(2));
        }),
    );

    // 4.2 The answer, after a change by each way of naming and each method.
    for mute in 0..4u8 {
        row(
            format!("4.2_the_answer_to_the_letter_{mute}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                let (caller, called) = state(mute);
                let reply = rig.ok(&format!("action=MuteRecording&callID={id}&mute={mute}"));
                let expected = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" type=\"MuteRecording\" \
                 callerMuted=\"{caller}\" calledMuted=\"{called}\"/>\n</VerbaApi>\n"
                );
                assert_eq!(reply.text, expected);
            }),
        );
        row(
            format!("4.2_by_number_and_post_{mute}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                let reply = rig.post(
                    &format!("apiKey={}", crate::rig::OPEN),
                    &format!("action=MuteRecording&extension={number}&status=ongoing&mute={mute}"),
                );
                assert_eq!((reply.code().as_str(), reply.muted()), ("0", state(mute)));
                assert_eq!(rig.muted(&id), state(mute));
            }),
        );
    }

    // 4.3
    row(
        "4.3_not_being_recorded".into(),
        Box::new(|rig| {
            let (caller, called) = (rig.number(0), rig.number(1));
            rig.call(&caller, &called);
            for number in [&caller, &called] {
                for (status, mute) in [("ongoing", "&mute=3"), ("ongoing", ""), ("last,ongoing", "&mute=1")] {
                    rig.fails(
                        &format!("action=MuteRecording&extension={number}&status={status}{mute}"),
                        2,
                        "not being recorded",
                    );
                }
            }
        }),
    );
    row(
        "4.3_not_being_recorded_any_more".into(),
        Box::new(|rig| {
            let (caller, called) = (rig.number(0), rig.number(1));
            let (pair, id, operation) = rig.native_recording(&caller, &called);
            rig.native("operation.stop", json!({"connection_id": pair.0[0], "operation_id": operation}));
            rig.fails(&format!("action=MuteRecording&callID={id}&mute=1"), 2, ENDED);
            until("the end in the database", || {
                (rig.ask(&format!("action=GetCallInformation&callID={id}")).cdr_state()? == "1").then_some(())
            });
            rig.fails(
                &format!("action=MuteRecording&extension={caller}&status=ongoing&mute=1"),
                2,
                "not being recorded",
            );
        }),
    );
    for mute in 0..4u8 {
        row(
            format!("4.3_finished_by_id_{mute}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                rig.ok(&format!("action=MuteRecording&callID={id}&mute={mute}"));
                rig.finish(&pair, &id);
                for value in 0..4 {
                    rig.fails(&format!("action=MuteRecording&callID={id}&mute={value}"), 2, ENDED);
                }
                assert_eq!(rig.muted(&id), state(mute), "the state at its end");
            }),
        );
        row(
            format!("4.3_finished_as_last_{mute}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                rig.ok(&format!("action=MuteRecording&callID={id}&mute={mute}"));
                rig.finish(&pair, &id);
                rig.fails(&format!("action=MuteRecording&extension={number}&status=last&mute=0"), 2, ENDED);
                assert_eq!(
                    rig.ok(&format!("action=MuteRecording&extension={number}&status=last")).muted(),
                    state(mute)
                );
            }),
        );
    }
    row(
        "4.3_last_ongoing_does_not_fall_through".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.finish(&pair, &id);
            let (_, ongoing) = rig.recorded(&number);
            rig.fails(&format!("action=MuteRecording&extension={number}&status=last,ongoing&mute=3"), 2, ENDED);
            assert_eq!(rig.muted(&ongoing), state(0), "the ongoing one is untouched");
        }),
    );
    row(
        "4.3_the_call_ends_at_once".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.hang_up(&pair);
            rig.fails(&format!("action=MuteRecording&callID={id}&mute=1"), 2, ENDED);
        }),
    );
    row(
        "4.3_already_mixed_before_recording".into(),
        Box::new(|rig| {
            // A recording of one connection has no parties: it is none of a call, and not found here.
            let number = rig.number(0);
            let called = rig.number(1);
            let pair = rig.call(&number, &called);
            rig.native("operation.start", json!({"kind": "record", "connection_id": pair.0[0]}));
            rig.fails(
                &format!("action=MuteRecording&extension={number}&status=ongoing&mute=1"),
                2,
                "not being recorded",
            );
        }),
    );
    row(
        "4.3_two_requests_at_once".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            let mute = |value: u8| (value, rig.hold(&format!("action=MuteRecording&callID={id}&mute={value}")));
            let held: Vec<_> = [1, 2, 3, 0, 2].map(mute).into();
            for (value, held) in held {
                assert_eq!(crate::rig::Reply::of(held.finish()).muted(), state(value), "the state after its own");
            }
            let last = rig.muted(&id);
            assert!((0..4).any(|value| state(value) == last));
        }),
    );
    row(
        "4.4_a_mute_outlives_client_and_token".into(),
        Box::new(|rig| {
            use crate::rig::STRICT;
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            let token = rig.token("anna", STRICT);
            assert_eq!(
                rig.get(&format!("action=MuteRecording&apiKey={STRICT}&token={token}&callID={id}&mute=3")).muted(),
                state(3)
            );
            assert_eq!(rig.get(&format!("action=ReleaseToken&apiKey={STRICT}&token={token}")).code(), "0");
            assert_eq!(rig.muted(&id), state(3));
        }),
    );
    row(
        "4.4_every_call_has_a_state_of_its_own".into(),
        Box::new(|rig| {
            let ids: Vec<String> = (0..4)
                .map(|which| {
                    let number = rig.number(which);
                    rig.recorded(&number).1
                })
                .collect();
            for (mute, id) in ids.iter().enumerate() {
                rig.ok(&format!("action=MuteRecording&callID={id}&mute={mute}"));
            }
            for (mute, id) in ids.iter().enumerate() {
                assert_eq!(rig.muted(id), state(mute as u8));
            }
        }),
    );
    row(
        "a_mute_over_the_control_socket_is_told_here".into(),
        Box::new(|rig| {
            let (caller, called) = (rig.number(0), rig.number(1));
            let (pair, id, operation) = rig.native_recording(&caller, &called);
            for (channels, mute) in [("caller", 1), ("both", 3), ("called", 2), ("none", 0), ("caller", 1)] {
                let told = rig.native("recording.mute", json!({"operation_id": operation, "channels": channels}));
                assert_eq!(told["muted"], json!({"caller": mute & 1 == 1, "called": mute & 2 == 2}));
                assert_eq!(rig.muted(&id), state(mute));
            }
            // And the other way round: what is told here is what a mute there begins from.
            rig.ok(&format!("action=MuteRecording&callID={id}&mute=2"));
            let told = rig.native("recording.mute", json!({"operation_id": operation, "channels": "called"}));
            assert_eq!(told["effect"]["streams"], json!([]), "nothing changes any more");
            rig.finish(&pair, &id);
            assert_eq!(rig.muted(&id), state(2));
        }),
    );
    row(
        "unknown_and_of_another_number".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            rig.call(&number, ALWAYS);
            let id = rig.id(&number, "ongoing");
            rig.fails(&format!("action=MuteRecording&extension={}&status=ongoing&mute=3", rig.number(1)), 2, NOT_FOUND);
            assert_eq!(rig.muted(&id), state(0));
        }),
    );
    rows
}
