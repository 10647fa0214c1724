//! Section 3: naming a call, the same for all four actions.

use crate::Row;
use crate::rig::{ALWAYS, NOT_FOUND, Rig, encode};

/// The actions that name a call so.
const NAMING: [&str; 4] = ["MuteRecording", "KeepCall", "GetCallInformation", "DeleteCall"];
/// What one of them may answer about a call that is found: nothing of it changes what the rows here look at.
const FOUND: &str = "0";

/// Asks who is meant; the id if it was one.
#[track_caller]
fn meant(rig: &Rig, query: &str) -> Option<String> {
    rig.ask(&format!("action=GetCallInformation&{query}")).child("ccdr_id")
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: String, run: Box<dyn FnOnce(&mut Rig) + Send>| rows.push(Row::new(format!("naming::{name}"), run));

    for action in NAMING {
        row(
            format!("{action}_by_id_while_it_goes_on"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                assert_eq!(rig.ask(&format!("action={action}&callID={id}")).code(), FOUND);
            }),
        );
        row(
            format!("{action}_by_id_after_its_end"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                rig.finish(&pair, &id);
                assert_eq!(rig.ask(&format!("action={action}&callID={id}")).code(), FOUND);
            }),
        );
        row(
            format!("{action}_by_id_in_other_case"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                assert_eq!(rig.ask(&format!("action={action}&callID={}", id.to_uppercase())).code(), FOUND);
            }),
        );
        for (name, id) in [
            ("unknown", "8d1c2f5e-0000-4000-8000-000000000000"),
            ("no_guid", "12345"),
            ("in_braces", "{8d1c2f5e-0000-4000-8000-000000000000}"),
            ("a_path", "../../../etc/passwd"),
            ("quotes", "' OR '1'='1"),
            ("a_wildcard", "%"),
            ("an_underscore", "________-____-____-____-____________"),
            ("nul", "\0"),
        ] {
            row(
                format!("{action}_by_id_{name}"),
                Box::new(move |rig| {
                    rig.fails(&format!("action={action}&callID={}", encode(id)), 2, NOT_FOUND);
                }),
            );
        }
        for side in [0, 1] {
            for status in ["ongoing", "ongoing, next", "last, ongoing"] {
                let party = ["caller", "called"][side];
                row(
                    format!("{action}_of_the_{party}_{}", status.replace(", ", "_")),
                    Box::new(move |rig| {
                        let numbers = [rig.number(0), rig.number(1)];
                        rig.native_recording(&numbers[0], &numbers[1]);
                        let query = format!("action={action}&extension={}&status={}", numbers[side], encode(status));
                        assert_eq!(rig.ask(&query).code(), FOUND);
                    }),
                );
            }
            for status in ["last", "last, ongoing"] {
                let party = ["caller", "called"][side];
                row(
                    format!("{action}_of_the_{party}_{}_finished", status.replace(", ", "_")),
                    Box::new(move |rig| {
                        let numbers = [rig.number(0), rig.number(1)];
                        let (pair, id, _) = rig.native_recording(&numbers[0], &numbers[1]);
                        rig.finish(&pair, &id);
                        let query = format!("action={action}&extension={}&status={}", numbers[side], encode(status));
                        assert_eq!(rig.ask(&query).code(), FOUND);
                    }),
                );
            }
        }
        row(
            format!("{action}_by_number_instead_of_extension"),
            Box::new(move |rig| {
                let number = rig.number(0);
                rig.recorded(&number);
                assert_eq!(rig.ask(&format!("action={action}&number={number}&status=ongoing")).code(), FOUND);
            }),
        );
        for (name, query) in [
            ("neither", String::new()),
            ("both_empty", "&callID=&extension=".to_owned()),
            ("status_only", "&status=ongoing".to_owned()),
        ] {
            row(
                format!("{action}_with_{name}"),
                Box::new(move |rig| {
                    rig.fails(&format!("action={action}{query}"), 3, "callID");
                }),
            );
        }
        row(
            format!("{action}_without_status"),
            Box::new(move |rig| {
                let number = rig.number(0);
                rig.recorded(&number);
                rig.fails(&format!("action={action}&extension={number}"), 3, "status");
                rig.fails(&format!("action={action}&number={number}&status="), 3, "status");
            }),
        );
        row(
            format!("{action}_with_both_the_id_decides"),
            Box::new(move |rig| {
                let (number, other) = (rig.number(0), rig.number(1));
                let (_, id) = rig.recorded(&number);
                for rest in [
                    format!("extension={other}&status=ongoing"),
                    format!("extension={number}&status=nonsense"),
                    "extension=-&status=".into(),
                ] {
                    assert_eq!(rig.ask(&format!("action={action}&callID={id}&{rest}")).code(), FOUND, "{rest}");
                }
                rig.fails(&format!("action={action}&callID=x&extension={number}&status=ongoing"), 2, NOT_FOUND);
            }),
        );
        for status in ["ongoing", "last", "last, ongoing"] {
            row(
                format!("{action}_none_{}", status.replace(", ", "_")),
                Box::new(move |rig| {
                    let number = rig.number(0);
                    rig.fails(&format!("action={action}&extension={number}&status={}", encode(status)), 2, NOT_FOUND);
                }),
            );
        }
        row(
            format!("{action}_ongoing_does_not_find_what_is_finished_nor_last_what_goes_on"),
            Box::new(move |rig| {
                let (number, other) = (rig.number(0), rig.number(1));
                let (pair, id) = rig.recorded(&number);
                rig.finish(&pair, &id);
                rig.recorded(&other);
                rig.fails(&format!("action={action}&extension={number}&status=ongoing"), 2, NOT_FOUND);
                rig.fails(&format!("action={action}&extension={other}&status=last"), 2, NOT_FOUND);
            }),
        );
        for status in ["ongoing", "ongoing, next", "last, ongoing"] {
            row(
                format!("{action}_more_than_one_{}", status.replace(", ", "_")),
                Box::new(move |rig| {
                    let number = rig.number(0);
                    rig.recorded(&number);
                    let called = rig.number(1);
                    rig.native_recording(&number, &called);
                    rig.fails(
                        &format!("action={action}&extension={number}&status={}", encode(status)),
                        2,
                        "More than one",
                    );
                }),
            );
        }
    }

    // status: five values.
    for (number, status) in [
        "ongoing",
        "ONGOING",
        "Ongoing",
        " ongoing ",
        "ongoing,next",
        "ongoing, next",
        "ongoing ,next",
        "ongoing , next",
        "  ongoing  ,  next  ",
        "Ongoing,Next",
        "last,ongoing",
        "last, ongoing",
        "last ,ongoing",
        "LAST,ONGOING",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("status_{number:02}_{}", encode(status)),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                assert_eq!(meant(rig, &format!("extension={number}&status={}", encode(status))), Some(id));
            }),
        );
    }
    for (number, status) in [
        "next, ongoing",
        "ongoing, last",
        "last, next",
        "next, last",
        "ongoing, ongoing",
        "last, ongoing, next",
        "ongoing,",
        ",ongoing",
        ",",
        "all",
        "recorded",
        "ongoing next",
        "ongoing;next",
        "on going",
        "0",
        "ongoing, next, last",
        "ｏｎｇｏｉｎｇ",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("other_status_{number:02}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                rig.recorded(&number);
                rig.fails(
                    &format!("action=MuteRecording&mute=1&extension={number}&status={}", encode(status)),
                    3,
                    "status is",
                );
            }),
        );
    }

    // Which one.
    row(
        "last_is_the_one_that_ended_last".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (first, first_id) = rig.recorded(&number);
            let called = rig.number(1);
            let second = rig.call(&called, &number);
            rig.record(&second);
            let second_id = rig.id(&called, "ongoing");
            rig.finish(&second, &second_id);
            assert_eq!(meant(rig, &format!("extension={number}&status=last")).as_ref(), Some(&second_id));
            rig.finish(&first, &first_id);
            assert_eq!(meant(rig, &format!("extension={number}&status=last")), Some(first_id), "though it began first");
        }),
    );
    row(
        "last_then_ongoing".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let query = format!("extension={number}&status=last,ongoing");
            let (first, first_id) = rig.recorded(&number);
            assert_eq!(meant(rig, &query).as_ref(), Some(&first_id), "none has ended yet");
            rig.finish(&first, &first_id);
            let (_, second_id) = rig.recorded(&number);
            assert_ne!(first_id, second_id);
            assert_eq!(meant(rig, &query), Some(first_id), "the finished one, though another goes on");
        }),
    );
    row(
        "ongoing_then_next_takes_the_ongoing_one".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            assert_eq!(meant(rig, &format!("extension={number}&status=ongoing,next")), Some(id));
        }),
    );
    row(
        "a_deleted_call_is_not_the_last".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (first, first_id) = rig.recorded(&number);
            rig.finish(&first, &first_id);
            let (second, second_id) = rig.recorded(&number);
            rig.finish(&second, &second_id);
            rig.ok(&format!("action=DeleteCall&callID={second_id}"));
            assert_eq!(meant(rig, &format!("extension={number}&status=last")), Some(first_id));
        }),
    );
    row(
        "who_calls_himself_is_one_call".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id, _) = rig.native_recording(&number, &number);
            assert_eq!(meant(rig, &format!("extension={number}&status=ongoing")), Some(id));
        }),
    );
    row(
        "extension_before_number".into(),
        Box::new(|rig| {
            let (number, other) = (rig.number(0), rig.number(1));
            let (_, id) = rig.recorded(&number);
            assert_eq!(meant(rig, &format!("extension={number}&number={other}&status=ongoing")), Some(id));
        }),
    );
    row(
        "a_number_nobody_signalled_is_not_found_by_what_is_left_of_nothing".into(),
        Box::new(|rig| {
            for empty in ["-", "+", "()", "sip:", "sip:@host", "[]"] {
                let reply = rig.ask(&format!("action=MuteRecording&extension={}&status=ongoing", encode(empty)));
                assert!(["2", "3"].contains(&reply.code().as_str()), "{empty}: {reply:?}");
            }
        }),
    );

    // Numbers are compared after taking out spaces, hyphens, brackets, sip: and @host. `#` is the row's own number.
    for (number, (signalled, asked)) in [
        ("#", "#"),
        ("sip:#@example.com", "#"),
        ("#", "sip:#@example.com"),
        ("sip:#@a.example", "sip:#@b.example"),
        ("SIP:#@example.com", "#"),
        ("#@example.com", "#"),
        ("sips:#@example.com", "#"),
        ("tel:#", "#"),
        ("sip:#@example.com;transport=tcp", "#"),
        ("+49 (30) #", "+4930#"),
        ("+4930#", "+49-30-#"),
        ("(030) #-1", "030#1"),
        ("[030] #", "030 #"),
        (" # ", "#"),
        ("#", " # "),
        ("#", "- #( )"),
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("number_{number:02}_alike"),
            Box::new(move |rig| {
                let own = rig.number(0);
                let (signalled, asked) = (signalled.replace('#', &own), asked.replace('#', &own));
                rig.call(&signalled, ALWAYS);
                let id = rig.id(&asked, "ongoing");
                let told = rig.ok(&format!("action=GetCallInformation&callID={id}"));
                // Told as it was signalled, but for blanks around it.
                assert_eq!(
                    told.child("source_caller_id").map(|told| told.trim().to_owned()),
                    Some(signalled.trim().to_owned())
                );
            }),
        );
    }
    for (number, (signalled, asked)) in
        [("+#", "#"), ("#", "0#"), ("#", "#0"), ("#a", "#A"), ("#.1", "#1"), ("#", "%"), ("#/1", "#1"), ("x#", "#")]
            .into_iter()
            .enumerate()
    {
        row(
            format!("number_{number:02}_different"),
            Box::new(move |rig| {
                let own = rig.number(0);
                let (signalled, asked) = (signalled.replace('#', &own), asked.replace('#', &own));
                rig.call(&signalled, ALWAYS);
                rig.id(&signalled, "ongoing");
                rig.fails(&format!("action=MuteRecording&extension={}&status=ongoing", encode(&asked)), 2, NOT_FOUND);
            }),
        );
    }
    rows
}
