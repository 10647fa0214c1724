//! Section 5: KeepCall, and how a recording begins and ends.

use crate::Row;
use crate::rig::{ALWAYS, NOT_FOUND, ON_DEMAND, Rig, encode};

/// Keeps a call, or undoes it.
#[track_caller]
fn keep(rig: &Rig, id: &str, rest: &str) {
    let reply = rig.ok(&format!("action=KeepCall&callID={id}{rest}"));
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" type=\"KeepCall\"/>\n</VerbaApi>\n";
    assert_eq!(reply.text, expected);
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: String, run: Box<dyn FnOnce(&mut Rig) + Send>| rows.push(Row::new(format!("keep::{name}"), run));

    // On demand: what was asked for while it went on, and whether it is still there after its end.
    for (name, steps, kept) in [
        ("nothing", &[][..], false),
        ("kept", &[""][..], true),
        ("kept_twice", &["", ""][..], true),
        ("unmark_0_keeps", &["&unmark=0"][..], true),
        ("kept_and_not", &["", "&unmark=1"][..], false),
        ("kept_and_not_and_kept", &["", "&unmark=1", ""][..], true),
        ("not_kept_twice", &["&unmark=1", "&unmark=1"][..], false),
        ("manual_is_another_mark", &["&type=manualRecord"][..], false),
        ("manual_and_kept", &["&type=manualRecord", ""][..], true),
        ("kept_and_manual_undone", &["", "&type=manualRecord", "&type=manualRecord&unmark=1"][..], true),
        ("type_without_case", &["&type=MANUALRECORD", "&type="][..], true),
    ] {
        row(
            format!("on_demand_{name}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.on_demand(&number);
                assert_eq!(
                    rig.ok(&format!("action=GetCallInformation&callID={id}")).child("ondemand").as_deref(),
                    Some("1")
                );
                for step in steps {
                    keep(rig, &id, step);
                }
                if kept {
                    rig.finish(&pair, &id);
                    assert!(rig.file(&id).exists());
                    assert_eq!(rig.id(&number, "last"), id);
                } else {
                    rig.hang_up(&pair);
                    rig.gone(&id);
                    rig.fails(&format!("action=KeepCall&callID={id}"), 2, NOT_FOUND);
                    rig.fails(&format!("action=KeepCall&callID={id}&type=manualRecord"), 2, NOT_FOUND);
                    rig.fails(&format!("action=KeepCall&extension={number}&status=last"), 2, NOT_FOUND);
                }
            }),
        );
    }
    for side in ["", "&type=manualRecord"] {
        row(
            format!("finished_and_repeated{}", encode(side)),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.on_demand(&number);
                keep(rig, &id, "");
                rig.finish(&pair, &id);
                keep(rig, &id, side);
                keep(rig, &id, side);
                assert!(rig.file(&id).exists());
            }),
        );
    }
    row(
        "unmark_of_a_finished_kept_recording_deletes_it".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.on_demand(&number);
            keep(rig, &id, "");
            rig.finish(&pair, &id);
            keep(rig, &id, "&unmark=1");
            rig.gone(&id);
            rig.fails(&format!("action=KeepCall&callID={id}&unmark=1"), 2, NOT_FOUND);
        }),
    );
    for rest in ["", "&unmark=0", "&unmark=1", "&type=manualRecord", "&type=manualRecord&unmark=1"] {
        row(
            format!("not_on_demand{}", encode(rest)),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                keep(rig, &id, rest);
                rig.finish(&pair, &id);
                keep(rig, &id, rest);
                assert!(rig.file(&id).exists(), "kept anyway");
                let told = rig.ok(&format!("action=GetCallInformation&callID={id}"));
                let manual = rest == "&type=manualRecord";
                assert_eq!(told.child("manual").as_deref(), Some(if manual { "1" } else { "0" }));
                assert_eq!(told.child("ondemand").as_deref(), Some("0"));
            }),
        );
    }
    for (number, value) in ["keep", "manual", "manualRecord ", "0", "automatic", "<x>"].into_iter().enumerate() {
        row(
            format!("another_type_{number}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.on_demand(&number);
                rig.fails(&format!("action=KeepCall&callID={id}&type={}", encode(value)), 3, "type is");
            }),
        );
    }
    for (number, value) in ["2", "-1", "true", "yes", "01", " 1"].into_iter().enumerate() {
        row(
            format!("another_unmark_{number}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.on_demand(&number);
                keep(rig, &id, "");
                rig.fails(&format!("action=KeepCall&callID={id}&unmark={}", encode(value)), 3, "unmark is");
                rig.finish(&pair, &id);
                assert!(rig.file(&id).exists(), "it is kept as before");
            }),
        );
    }
    for status in ["ongoing", "ongoing,next", "last,ongoing"] {
        row(
            format!("by_number_{}", encode(status)),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.on_demand(&number);
                rig.ok(&format!("action=KeepCall&responseType=XML&extension={number}&status={status}"));
                rig.finish(&pair, &id);
                assert!(rig.file(&id).exists());
            }),
        );
    }

    // 5.1 How a recording begins: by a rule on either side, the stronger rule first, or by another interface.
    for (name, parties, on_demand) in [
        ("always_called", ["#", ALWAYS], Some("0")),
        ("always_caller", [ALWAYS, "#"], Some("0")),
        ("on_demand_called", ["#", ON_DEMAND], Some("1")),
        ("on_demand_caller", [ON_DEMAND, "#"], Some("1")),
        ("both_rules", [ALWAYS, "#"], Some("0")),
        ("always_as_a_sip_address", ["#", "sip:1000@example.com"], Some("0")),
        ("always_with_hyphens", ["#", "10-00"], Some("0")),
        ("a_part_of_a_number", ["#", "100"], None),
        ("a_longer_number", ["#", "10000"], None),
        ("no_rule", ["#", "3000"], None),
    ] {
        row(
            format!("5.1_{name}"),
            Box::new(move |rig| {
                let own = rig.number(0);
                let [caller, called] = parties.map(|party| party.replace('#', &own));
                rig.call(&caller, &called);
                match on_demand {
                    Some(on_demand) => {
                        let id = rig.id(&own, "ongoing");
                        let told = rig.ok(&format!("action=GetCallInformation&callID={id}"));
                        assert_eq!(told.child("ondemand").as_deref(), Some(on_demand));
                    }
                    None => {
                        // A later call is recorded already: this one would be, too.
                        let later = rig.number(1);
                        rig.recorded(&later);
                        rig.fails(
                            &format!("action=MuteRecording&extension={own}&status=ongoing"),
                            2,
                            "not being recorded",
                        );
                    }
                }
            }),
        );
    }
    row(
        "5.1_always_wins_over_on_demand".into(),
        Box::new(|rig| {
            rig.call(ON_DEMAND, ALWAYS);
            let relayed = rig.native("connection.list", serde_json::json!({}));
            assert!(relayed["connections"].as_array().is_some_and(|list| !list.is_empty()));
            let found = ringbridge_tests::until("the call", || {
                let reply = rig.ok(&format!(
                    "action=SearchCalls&status=ongoing&{}&anynum={ON_DEMAND}&pagelen=1000",
                    crate::rig::SPAN
                ));
                let sources = reply.children("source_caller_id");
                let at = sources.iter().position(|source| source == ON_DEMAND)?;
                Some(reply.children("ondemand")[at].clone())
            });
            assert_eq!(found, "0");
        }),
    );
    row(
        "5.1_by_another_interface".into(),
        Box::new(|rig| {
            let (caller, called) = (rig.number(0), rig.number(1));
            let (pair, id, _) = rig.native_recording(&caller, &called);
            let told = rig.ok(&format!("action=GetCallInformation&callID={id}"));
            assert_eq!(told.child("ondemand").as_deref(), Some("0"));
            assert_eq!(
                (told.child("source_caller_id"), told.child("destination_caller_id")),
                (Some(caller), Some(called))
            );
            rig.finish(&pair, &id);
        }),
    );
    row(
        "5.1_ends_with_the_relay".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.native("relay.stop", serde_json::json!({"a": pair.0[0]}));
            ringbridge_tests::until("the end", || {
                (rig.ask(&format!("action=GetCallInformation&callID={id}")).cdr_state()? == "1").then_some(())
            });
        }),
    );
    rows
}
