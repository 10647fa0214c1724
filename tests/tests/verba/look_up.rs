//! Section 6: SearchCalls, GetCallInformation, DeleteCall, GetMediaEncoded.

use jiff::civil::DateTime;
use serde_json::json;

use crate::Row;
use crate::rig::{FORM, NOT_FOUND, OPEN, Reply, Rig, SPAN, encode};

/// Ids a search finds.
#[track_caller]
fn search(rig: &Rig, query: &str) -> Vec<String> {
    rig.ok(&format!("action=SearchCalls&{query}")).children("ccdr_id")
}

#[track_caller]
fn media(rig: &Rig, query: &str) -> Reply {
    Reply::of(rig.request("GET", &format!("/verba/api?apiKey={OPEN}&action=GetMediaEncoded&{query}"), &[], ""))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: String, run: Box<dyn FnOnce(&mut Rig) + Send>| rows.push(Row::new(format!("look_up::{name}"), run));

    // 6.1
    for (name, status, ongoing, finished) in [
        ("by_default_recorded", "", false, true),
        ("recorded", "&status=recorded", false, true),
        ("recorded_without_case", "&status=Recorded", false, true),
        ("ongoing", "&status=ongoing", true, false),
        ("ongoing_without_case", "&status=ONGOING", true, false),
    ] {
        row(
            format!("6.1_{name}"),
            Box::new(move |rig| {
                let numbers = [rig.number(0), rig.number(1)];
                let (pair, over) = rig.recorded(&numbers[0]);
                rig.finish(&pair, &over);
                let (_, still) = rig.recorded(&numbers[1]);
                let found =
                    search(rig, &format!("{SPAN}&pagelen=1000&anynum={}&anynum={}{status}", numbers[0], numbers[1]));
                assert_eq!((found.contains(&still), found.contains(&over)), (ongoing, finished));
            }),
        );
    }
    for (number, status) in ["last", "next", "finished", "all", "recorded,ongoing", "0"].into_iter().enumerate() {
        row(
            format!("6.1_another_status_{number}"),
            Box::new(move |rig| {
                rig.fails(&format!("action=SearchCalls&status={status}&{SPAN}"), 3, "status is");
            }),
        );
    }
    for (name, query) in [
        ("neither", ""),
        ("no_end", "start=2026-01-01+00:00"),
        ("no_start", "end=2026-01-01+00:00"),
        ("empty_start", "start=&end=2026-01-01+00:00"),
        ("empty_end", "start=2026-01-01+00:00&end="),
    ] {
        row(
            format!("6.1_times_{name}"),
            Box::new(move |rig| {
                for status in ["", "&status=ongoing"] {
                    rig.fails(&format!("action=SearchCalls&{query}{status}"), 3, "start and end");
                }
            }),
        );
    }
    for (number, time) in [
        "2026-01-01 00:00",
        "2026-01-01 00:00:00",
        "2026-01-01 23:59:59.999",
        "2026-01-01 00:00:00.5",
        "2026-01-01 00:00:00.25",
        "2024-02-29 12:00",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("6.1_time_{number}"),
            Box::new(move |rig| {
                rig.ok(&format!("action=SearchCalls&start={}&end=2126-01-01+00:00&pagelen=1", encode(time)));
                rig.ok(&format!("action=SearchCalls&start=2020-01-01+00:00&end={}&pagelen=1", encode(time)));
            }),
        );
    }
    for (number, time) in [
        "2026-01-01",
        "2026-01-01T00:00",
        "2026-01-01T00:00:00Z",
        "2026-13-01 00:00",
        "2026-00-01 00:00",
        "2026-02-30 00:00",
        "2025-02-29 00:00",
        "2026-01-01 24:00",
        "2026-01-01 00:60",
        "2026-01-01 00:00:61",
        "2026-01-01 00:00+01",
        "26-01-01 00:00",
        "01.01.2026 00:00",
        "2026/01/01 00:00",
        "2026-1-1 00:00",
        "2026-01-01  00:00",
        "2026-01-01 0:00",
        "2026-01-01 00:00:00.0000",
        "2026-01-01 00:00:",
        "1767225600",
        "now",
        "",
        "-2026-01-01 00:00",
        "2026-01-01 00:00:00[UTC]",
        "99999-01-01 00:00",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("6.1_no_time_{number:02}"),
            Box::new(move |rig| {
                rig.fails(
                    &format!("action=SearchCalls&start={}&end=2126-01-01+00:00", encode(time)),
                    3,
                    "start and end",
                );
                rig.fails(
                    &format!("action=SearchCalls&start=2020-01-01+00:00&end={}", encode(time)),
                    3,
                    "start and end",
                );
            }),
        );
    }
    row(
        "6.1_end_before_start".into(),
        Box::new(|rig| {
            rig.fails("action=SearchCalls&start=2026-01-01+00:01&end=2026-01-01+00:00", 3, "end is before start");
            rig.fails(
                "action=SearchCalls&start=2026-01-01+00:00:00.001&end=2026-01-01+00:00",
                3,
                "end is before start",
            );
            rig.ok("action=SearchCalls&start=2026-01-01+00:00&end=2026-01-01+00:00");
        }),
    );
    for (name, status) in [("recorded", ""), ("ongoing", "&status=ongoing")] {
        row(
            format!("6.1_nothing_found_{name}"),
            Box::new(move |rig| {
                let reply = rig.ok(&format!("action=SearchCalls&start=2020-01-01+00:00&end=2020-01-02+00:00{status}"));
                let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" \
                            type=\"SearchCalls\"><verbacdrlist></verbacdrlist></Response>\n</VerbaApi>\n";
                assert_eq!(reply.text, expected);
            }),
        );
        row(
            format!("6.1_the_span_is_that_of_the_begin_{name}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                if status.is_empty() {
                    rig.finish(&pair, &id);
                }
                let told = rig.ok(&format!("action=GetCallInformation&callID={id}")).child("start_time").unwrap();
                let begin: DateTime = told.parse().unwrap();
                let at = |ms: i64| {
                    encode(
                        &begin
                            .checked_add(jiff::Span::new().milliseconds(ms))
                            .unwrap()
                            .strftime("%Y-%m-%d %H:%M:%S%.3f")
                            .to_string(),
                    )
                };
                for (start, end, found) in
                    [(0, 0, true), (-1, 1, true), (-5, 0, true), (0, 5, true), (1, 5, false), (-5, -1, false)]
                {
                    let found_ids =
                        search(rig, &format!("start={}&end={}&anynum={number}{status}", at(start), at(end)));
                    assert_eq!(found_ids == [id.clone()], found, "{start} to {end}: {found_ids:?}");
                }
            }),
        );
    }
    for (name, query, found) in [
        ("whole", "anynum=#", true),
        ("begin", "anynum=<", true),
        ("end", "anynum=>", true),
        ("the_other_side", "anynum=#&anynum=1000", true),
        ("one_of_two", "anynum=nothing&anynum=#", true),
        ("none_of_two", "anynum=nothing&anynum=nobody", false),
        ("another", "anynum=#9", false),
        ("empty_is_none", "anynum=&anynum=#", true),
        ("wildcard", "anynum=%25%25#%25", false),
        ("underscore", "anynum=______________#", false),
        ("quote", "anynum=%27+OR+1=1+--", false),
        ("name_unknown", "anynum=#&anyname=anna", false),
    ] {
        row(
            format!("6.1_anynum_{name}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                let query = query.replace('#', &number).replace('<', &number[..8]).replace('>', &number[1..]);
                let ids = search(rig, &format!("status=ongoing&{SPAN}&pagelen=1000&{query}"));
                assert_eq!(ids.contains(&id), found, "{ids:?}");
            }),
        );
    }
    row(
        "6.1_too_many_words".into(),
        Box::new(|rig| {
            let words = |count: usize| "&anynum=1&anyname=a".repeat(count / 2);
            rig.ok(&format!("action=SearchCalls&{SPAN}&pagelen=1{}", words(32)));
            rig.fails(&format!("action=SearchCalls&{SPAN}{}", words(34)), 3, "32 times");
        }),
    );
    for (pages, valid) in [
        ("1", true),
        ("100", true),
        ("1000", true),
        ("0", false),
        ("1001", false),
        ("-1", false),
        ("x", false),
        ("1.5", false),
        ("99999999999", false),
        ("", true),
    ] {
        row(
            format!("6.1_pagelen_{}", encode(pages)),
            Box::new(move |rig| {
                let query = format!("action=SearchCalls&{SPAN}&pagelen={pages}");
                if valid { drop(rig.ok(&query)) } else { rig.fails(&query, 3, "pagelen is") }
            }),
        );
    }
    row(
        "6.1_pagelen_cuts_the_earliest_off".into(),
        Box::new(|rig| {
            let ids: Vec<String> = (0..3)
                .map(|which| {
                    let number = rig.number(which);
                    rig.recorded(&number).1
                })
                .collect();
            let part = &rig.number(0)[..6];
            let found = |limit| search(rig, &format!("status=ongoing&{SPAN}&anynum={part}&pagelen={limit}"));
            assert_eq!(found(3), ids, "earliest first");
            assert_eq!(found(2), ids[1..]);
            assert_eq!(found(1), ids[2..]);
        }),
    );
    for rest in
        ["returnMetadata=1", "participant_name=anna", "secondary=1", "secondary=0", "secondary=", "anything=else"]
    {
        row(
            format!("6.1_with_{}", encode(rest)),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (_, id) = rig.recorded(&number);
                assert_eq!(search(rig, &format!("status=ongoing&{SPAN}&anynum={number}&{rest}")), [id]);
            }),
        );
    }
    row(
        "6.1_by_post".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            let reply =
                rig.post("", &format!("action=SearchCalls&apiKey={OPEN}&status=ongoing&{SPAN}&anynum={number}"));
            assert_eq!(reply.children("ccdr_id"), [id]);
        }),
    );
    row(
        "6.1_the_list_in_its_envelope".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            let reply = rig.ok(&format!("action=SearchCalls&status=ongoing&{SPAN}&anynum={number}"));
            let begin = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" type=\"SearchCalls\">\
                     <verbacdrlist><verbacdr state=\"0\"><ccdr_id>";
            assert!(reply.text.starts_with(&format!("{begin}{id}</ccdr_id>")), "{reply:?}");
        }),
    );

    // 6.2
    row(
        "6.2_ongoing".into(),
        Box::new(|rig| {
            let (caller, called) = (rig.number(0), rig.number(1));
            let (_, id, _) = rig.native_recording(&caller, &called);
            let reply = rig.ok(&format!("action=GetCallInformation&callID={id}"));
            assert_eq!((reply.kind().as_str(), reply.cdr_state().as_deref()), ("GetCallInformation", Some("0")));
            for (name, value) in [
                ("ccdr_id", id.as_str()),
                ("source_caller_id", &caller),
                ("destination_caller_id", &called),
                ("source_ip", "127.0.0.1"),
                ("destination_ip", "127.0.0.1"),
                ("audio_codec_id", "4"),
                ("ondemand", "0"),
                ("conference", "0"),
                ("manual", "0"),
                ("do_not_delete", "0"),
                ("secondary", "0"),
            ] {
                assert_eq!(reply.child(name).as_deref(), Some(value), "{name}: {reply:?}");
            }
            for absent in
                ["end_time", "native_id", "source_name", "destination_name", "location", "recorded_party", "cause_id"]
            {
                assert_eq!(reply.child(absent), None, "{absent}");
            }
            let started = reply.child("start_time").unwrap();
            assert!(started.len() == 23 && started.parse::<DateTime>().is_ok(), "{started}");
        }),
    );
    row(
        "6.2_finished".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.finish(&pair, &id);
            let reply = rig.ok(&format!("action=GetCallInformation&callID={id}"));
            assert_eq!(reply.cdr_state().as_deref(), Some("1"));
            let time = |name| -> DateTime { reply.child(name).unwrap().parse().unwrap() };
            assert!(time("start_time") <= time("end_time"), "{reply:?}");
            assert_eq!(reply.child("end_time").unwrap().len(), 23);
        }),
    );
    for action in ["GetCallInformation", "DeleteCall"] {
        row(
            format!("6.2_{action}_by_platform_call_id"),
            Box::new(move |rig| {
                let (caller, called) = (rig.number(0), rig.number(1));
                let pair = rig.call(&caller, &called);
                let call = rig.native("connection.get", json!({"connection_id": pair.0[0]}))["call_id"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                rig.record(&pair);
                let id = rig.id(&caller, "ongoing");
                assert_eq!(
                    rig.ok(&format!("action=GetCallInformation&platformCallID={}", encode(&call))).child("ccdr_id"),
                    Some(id)
                );
                rig.ok(&format!("action={action}&platformCallID={}", encode(&call)));
            }),
        );
        for name in ["platformCallID", "nativeID", "meetingID"] {
            row(
                format!("6.2_{action}_by_{name}_unknown"),
                Box::new(move |rig| {
                    rig.fails(&format!("action={action}&{name}=nothing"), 2, NOT_FOUND);
                    rig.fails(&format!("action={action}&{name}={}", encode("' OR 1=1 --")), 2, NOT_FOUND);
                    rig.fails(&format!("action={action}&{name}="), 3, "callID");
                }),
            );
            row(
                format!("6.2_{action}_{name}_comes_after_call_id_and_extension"),
                Box::new(move |rig| {
                    let number = rig.number(0);
                    let (_, id) = rig.recorded(&number);
                    rig.ok(&format!("action={action}&callID={id}&{name}=nothing"));
                    rig.ok(&format!("action={action}&extension={number}&status=ongoing&{name}=nothing"));
                }),
            );
        }
    }
    for action in ["MuteRecording", "KeepCall"] {
        for name in ["platformCallID", "nativeID", "meetingID"] {
            row(
                format!("6.2_{action}_knows_no_{name}"),
                Box::new(move |rig| {
                    rig.fails(&format!("action={action}&{name}=x"), 3, "callID");
                }),
            );
        }
    }

    // 6.3
    row(
        "6.3_finished".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.finish(&pair, &id);
            let reply = rig.ok(&format!("action=DeleteCall&callID={id}"));
            assert_eq!(
                reply.text,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" type=\"DeleteCall\"/>\n</VerbaApi>\n"
            );
            rig.gone(&id);
            for action in ["DeleteCall", "MuteRecording", "KeepCall", "GetCallInformation"] {
                rig.fails(&format!("action={action}&callID={id}"), 2, NOT_FOUND);
            }
            assert_eq!(media(rig, &format!("cid={id}")).status, 404);
            assert_eq!(search(rig, &format!("{SPAN}&anynum={number}")), [""; 0]);
        }),
    );
    row(
        "6.3_ongoing_is_marked".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.ok(&format!("action=DeleteCall&callID={id}"));
            rig.ok(&format!("action=DeleteCall&callID={id}"));
            assert!(rig.file(&id).exists());
            assert_eq!(
                rig.ok(&format!("action=MuteRecording&callID={id}&mute=1")).muted(),
                crate::rig::state(1),
                "it goes on"
            );
            rig.hang_up(&pair);
            rig.gone(&id);
        }),
    );
    row(
        "6.3_kept_and_marked".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.on_demand(&number);
            rig.ok(&format!("action=KeepCall&callID={id}"));
            rig.ok(&format!("action=DeleteCall&callID={id}"));
            rig.hang_up(&pair);
            rig.gone(&id);
        }),
    );
    row(
        "6.3_of_another_interface".into(),
        Box::new(|rig| {
            let (caller, called) = (rig.number(0), rig.number(1));
            let pair = rig.call(&caller, &called);
            let name = format!("mine/{caller}.wav");
            let [a, b] = &pair.0;
            rig.native(
                "operation.start",
                json!({"kind": "record", "connection_id": b, "path": name, "channels": {"caller": a, "called": b}}),
            );
            let id = rig.id(&caller, "ongoing");
            rig.finish(&pair, &id);
            let file = rig.directory.join("recordings").join(&name);
            assert!(file.exists());
            rig.ok(&format!("action=DeleteCall&callID={id}"));
            rig.gone(&id);
            assert!(!file.exists() && !file.with_extension("wav.json").exists());
        }),
    );

    // 6.4
    for (name, query) in
        [("wav", "&format=wav"), ("wav_in_capitals", "&format=WAV"), ("no_format", ""), ("empty_format", "&format=")]
    {
        row(
            format!("6.4_{name}"),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                rig.finish(&pair, &id);
                let answer = rig.request(
                    "GET",
                    &format!("/verba/api?action=GetMediaEncoded&apiKey={OPEN}&cid={id}{query}"),
                    &[],
                    "",
                );
                assert_eq!(answer.status, 200);
                let file = std::fs::read(rig.file(&id)).unwrap();
                assert!(
                    answer.head.contains("content-type: audio/wav")
                        && answer.head.contains(&format!("content-length: {}", file.len())),
                    "{}",
                    answer.head
                );
                assert!(answer.body == file, "{} bytes of {}", answer.body.len(), file.len());
            }),
        );
    }
    row(
        "6.4_by_post".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.finish(&pair, &id);
            let answer = rig.request(
                "POST",
                "/verba/api",
                &[FORM],
                &format!("action=GetMediaEncoded&apiKey={OPEN}&cid={id}&format=wav"),
            );
            assert!(answer.status == 200 && answer.body.starts_with(b"RIFF"), "{answer:?}");
        }),
    );
    for format in ["mp3", "ogg", "wav2", "audio/wav", "../wav", "<b>"] {
        row(
            format!("6.4_format_{}", encode(format)),
            Box::new(move |rig| {
                let number = rig.number(0);
                let (pair, id) = rig.recorded(&number);
                rig.finish(&pair, &id);
                let reply = media(rig, &format!("cid={id}&format={}", encode(format)));
                assert_eq!((reply.status, reply.code().as_str()), (400, "3"), "{reply:?}");
            }),
        );
    }
    row(
        "6.4_without_id".into(),
        Box::new(|rig| {
            for query in ["", "cid=", "cid=&format=wav", "extension=1&status=last"] {
                let reply = media(rig, query);
                assert_eq!((reply.status, reply.code().as_str()), (400, "3"), "{reply:?}");
            }
        }),
    );
    row(
        "6.4_ongoing".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (_, id) = rig.recorded(&number);
            let reply = media(rig, &format!("cid={id}"));
            assert_eq!((reply.status, reply.code().as_str()), (404, "2"), "{reply:?}");
            assert!(reply.error().contains("not ended"), "{reply:?}");
        }),
    );
    for (number, id) in [
        "x",
        "8d1c2f5e-0000-4000-8000-000000000000",
        "../ringbridge.toml",
        "..%2f..%2fringbridge.db",
        "/etc/passwd",
        "verba/x.wav",
        "x%00.wav",
        "%2e%2e/",
        "*",
        "'%20OR%201=1",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            format!("6.4_unknown_id_{number}"),
            Box::new(move |rig| {
                for name in ["cid", "callID"] {
                    let reply = media(rig, &format!("{name}={id}&format=wav"));
                    assert_eq!(
                        (reply.status, reply.code().as_str(), reply.error().as_str()),
                        (404, "2", NOT_FOUND),
                        "{reply:?}"
                    );
                }
            }),
        );
    }
    row(
        "6.4_the_file_is_not_there_any_more".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            rig.finish(&pair, &id);
            std::fs::remove_file(rig.file(&id)).unwrap();
            let reply = media(rig, &format!("cid={id}"));
            assert_eq!((reply.status, reply.code().as_str()), (404, "2"), "{reply:?}");
            rig.ok(&format!("action=DeleteCall&callID={id}"));
            rig.gone(&id);
        }),
    );
    row(
        "6.4_the_file_was_swapped_for_a_link".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            let (pair, id) = rig.recorded(&number);
            std::fs::write(rig.directory.join("secret"), "secret").unwrap();
            let file = rig.file(&id);
            std::fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(rig.directory.join("secret"), &file).unwrap();
            rig.finish(&pair, &id);
            let reply = media(rig, &format!("cid={id}"));
            assert!(reply.status == 404 && !reply.text.contains("secret"), "{reply:?}");
            rig.ok(&format!("action=DeleteCall&callID={id}"));
            assert_eq!(
                std::fs::read(rig.directory.join("secret")).unwrap(),
                b"secret",
                "the link is deleted, not what it points to"
            );
        }),
    );
    rows
}
