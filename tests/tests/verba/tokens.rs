//! Section 2: keys and tokens.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::DateTime;

use crate::Row;
use crate::rig::{ALWAYS, ELSEWHERE, OPEN, PASSWORD, Reply, Rig, SPAN, STRICT, STRICT2, basic, encode};

/// Asks for a token from the address of this row.
#[track_caller]
fn ask(rig: &Rig, key: &str, authorization: Option<&str>, rest: &str) -> Reply {
    let headers: Vec<_> = authorization.map(|text| ("authorization", text)).into_iter().collect();
    let reply = rig.get_from(rig.address(), &format!("action=RequestToken&apiKey={key}{rest}"), &headers);
    assert_eq!((reply.status, reply.kind().as_str()), (200, "RequestToken"), "{reply:?}");
    assert!(!reply.head.contains("www-authenticate"), "no browser asks for a password: {reply:?}");
    reply
}

const WRONG: &str = "The user name or password is wrong, or the user may not use the API.";

fn is_guid(token: &str) -> bool {
    let groups: Vec<usize> = token.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && token.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row =
        |name: String, run: Box<dyn FnOnce(&mut Rig) + Send>| rows.push(Row::new(format!("tokens::{name}"), run));

    // 2.1
    for (name, source, code) in [
        ("in_its_network", [127, 77, 3, 4], "0"),
        ("at_the_edge", [127, 77, 255, 255], "0"),
        ("beside_it", [127, 78, 0, 0], "1"),
        ("elsewhere", [127, 0, 0, 1], "1"),
    ] {
        row(
            format!("2.1_key_{name}"),
            Box::new(move |rig| {
                let source: IpAddr = Ipv4Addr::from(source).into();
                let query = format!("action=RequestToken&apiKey={ELSEWHERE}");
                let reply = rig.get_from(source, &query, &[("authorization", &basic("anna", PASSWORD))]);
                assert_eq!(reply.code(), code, "{reply:?}");
            }),
        );
    }
    row(
        "2.1_without_the_flag_one_get_suffices".into(),
        Box::new(|rig| {
            rig.ok(&format!("action=SearchCalls&{SPAN}&pagelen=1"));
        }),
    );
    row(
        "2.1_a_stolen_token_is_no_use_with_another_key_or_from_elsewhere".into(),
        Box::new(|rig| {
            let source: IpAddr = Ipv4Addr::new(127, 77, 0, 9).into();
            let reply = rig.get_from(
                source,
                &format!("action=RequestToken&apiKey={ELSEWHERE}"),
                &[("authorization", &basic("anna", PASSWORD))],
            );
            let token = reply.attribute("token").unwrap();
            let search = |key: &str, from: IpAddr| {
                rig.get_from(from, &format!("action=SearchCalls&apiKey={key}&token={token}&{SPAN}&pagelen=1"), &[])
                    .code()
            };
            assert_eq!(search(ELSEWHERE, source), "0");
            assert_eq!(search(ELSEWHERE, Ipv4Addr::LOCALHOST.into()), "1");
            assert_eq!(search(STRICT, source), "1");
        }),
    );

    // 2.2 Success.
    for (name, user) in [("the_right", "anna"), ("admin", "root")] {
        row(
            format!("2.2_by_header_with_{name}"),
            Box::new(move |rig| {
                let reply = ask(rig, STRICT, Some(&basic(user, PASSWORD)), "");
                let token = reply.attribute("token").unwrap();
                assert!(reply.code() == "0" && is_guid(&token), "{reply:?}");
            }),
        );
    }
    row(
        "2.2_the_answer_to_the_letter".into(),
        Box::new(|rig| {
            let reply = ask(rig, STRICT, Some(&basic("anna", PASSWORD)), "");
            let token = reply.attribute("token").unwrap();
            let expected = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<VerbaApi>\n<Response code=\"0\" type=\"RequestToken\" token=\"{token}\"/>\n</VerbaApi>\n"
            );
            assert_eq!(reply.text, expected);
        }),
    );
    row(
        "2.2_in_text".into(),
        Box::new(|rig| {
            let headers = [("authorization", &*basic("anna", PASSWORD))];
            let reply = rig.get_from(
                rig.address(),
                &format!("action=RequestToken&apiKey={STRICT}&responseType=TEXT"),
                &headers,
            );
            assert!(reply.line("token").is_some_and(is_guid), "{reply:?}");
        }),
    );
    row(
        "2.2_by_post".into(),
        Box::new(|rig| {
            let reply = Reply::of(rig.request(
                "POST",
                &format!("/verba/api?action=RequestToken&apiKey={STRICT}"),
                &[("authorization", &basic("anna", PASSWORD))],
                "",
            ));
            assert!(reply.attribute("token").is_some_and(|token| is_guid(&token)), "{reply:?}");
        }),
    );
    for scheme in ["basic", "BASIC", "Basic  ", " Basic"] {
        row(
            format!("2.2_scheme_as_{}", encode(scheme)),
            Box::new(move |rig| {
                let credentials = STANDARD.encode(format!("anna:{PASSWORD}"));
                assert_eq!(ask(rig, STRICT, Some(&format!("{scheme} {credentials}")), "").code(), "0");
            }),
        );
    }
    let parameters = || format!("userName=anna&password={}", encode(PASSWORD));
    row(
        "2.2_by_parameters".into(),
        Box::new(move |rig| {
            assert_eq!(ask(rig, STRICT, None, &format!("&{}", parameters())).code(), "0");
        }),
    );
    row(
        "2.2_by_parameters_in_a_form".into(),
        Box::new(move |rig| {
            let reply = rig.post("", &format!("action=RequestToken&apiKey={STRICT}&{}", parameters()));
            assert!(reply.attribute("token").is_some(), "{reply:?}");
        }),
    );
    row(
        "2.2_the_header_wins".into(),
        Box::new(move |rig| {
            let wrong = "&userName=nobody&password=x";
            assert_eq!(ask(rig, STRICT, Some(&basic("anna", PASSWORD)), wrong).code(), "0");
            let reply = ask(rig, STRICT, Some(&basic("anna", "wrong")), &format!("&{}", parameters()));
            assert_eq!((reply.code().as_str(), reply.error().as_str()), ("1", WRONG));
            let reply = ask(rig, STRICT, Some("Bearer x"), &format!("&{}", parameters()));
            assert_eq!(reply.code(), "3");
        }),
    );
    row(
        "2.2_every_token_is_another_and_all_are_valid".into(),
        Box::new(|rig| {
            let tokens: Vec<String> = (0..4).map(|_| rig.token("anna", STRICT)).collect();
            for token in &tokens {
                assert_eq!(tokens.iter().filter(|other| *other == token).count(), 1);
                assert_eq!(
                    rig.get(&format!("action=SearchCalls&apiKey={STRICT}&token={token}&{SPAN}&pagelen=1")).code(),
                    "0"
                );
            }
        }),
    );
    row(
        "2.2_a_token_outlives_the_connection_and_the_method".into(),
        Box::new(|rig| {
            let token = rig.token("anna", STRICT);
            for _ in 0..3 {
                assert_eq!(
                    rig.post(
                        &format!("token={token}"),
                        &format!("action=SearchCalls&apiKey={STRICT}&{SPAN}&pagelen=1")
                    )
                    .code(),
                    "0"
                );
            }
        }),
    );
    row(
        "2.2_a_key_that_needs_no_token_gets_one_too".into(),
        Box::new(|rig| {
            rig.token("anna", OPEN);
        }),
    );

    // 2.2 Failure.
    for (name, rest) in [
        ("nothing", ""),
        ("name_only", "&userName=anna"),
        ("password_only", "&password=x"),
        ("empty_name", "&userName=&password=x"),
        ("empty_password", "&userName=anna&password="),
    ] {
        row(
            format!("2.2_no_credentials_{name}"),
            Box::new(move |rig| {
                let reply = ask(rig, STRICT, None, rest);
                assert_eq!(reply.code(), "1");
                assert!(reply.error().contains("missing"), "{reply:?}");
            }),
        );
    }
    for (name, user, password) in [
        ("unknown_user", "nobody", PASSWORD),
        ("wrong_password", "user0", "wrong one"),
        ("empty_password", "user0", ""),
        ("password_in_other_case", "user0", "RIGHT:öne"),
        ("name_in_other_case", "ANNA", PASSWORD),
        ("password_and_more", "user1", "right:öne2"),
        ("without_the_right", "bert", PASSWORD),
        ("without_any_right", "nobody's", PASSWORD),
        ("empty_name", "", PASSWORD),
        ("name_with_quotes", "' OR 1=1 --", PASSWORD),
        ("name_with_markup", "<b>&\"", PASSWORD),
        ("name_without_end", &"x".repeat(4000), PASSWORD),
    ] {
        let (user, password) = (user.to_owned(), password.to_owned());
        row(
            format!("2.2_wrong_{name}"),
            Box::new(move |rig| {
                let reply = ask(rig, STRICT, Some(&basic(&user, &password)), "");
                assert_eq!((reply.code().as_str(), reply.error().as_str()), ("1", WRONG), "one text for all");
            }),
        );
    }
    for (name, header) in [
        ("bearer", "Bearer abc".to_owned()),
        ("digest", "Digest username=\"anna\"".to_owned()),
        ("no_base64", "Basic !!!".to_owned()),
        ("half_base64", "Basic YW5uYTpyaWdodA".to_owned()),
        ("no_colon", format!("Basic {}", STANDARD.encode("anna"))),
        ("no_credentials", "Basic".to_owned()),
        ("blank", "Basic  ".to_owned()),
        ("no_utf_8", format!("Basic {}", STANDARD.encode(b"anna:\xff"))),
        ("empty", String::new()),
    ] {
        row(
            format!("2.2_header_{name}"),
            Box::new(move |rig| {
                let reply = ask(rig, STRICT, Some(&header), "");
                assert_eq!(reply.code(), "3", "{reply:?}");
                assert!(reply.error().contains("Basic"), "{reply:?}");
            }),
        );
    }
    row(
        "2.2_more_than_five_failures_a_minute".into(),
        Box::new(|rig| {
            let wrong = basic("user2", "wrong one");
            for _ in 0..5 {
                assert_eq!(ask(rig, STRICT, Some(&wrong), "").error(), WRONG);
            }
            // From now on even with the right password; not from elsewhere, though.
            let right = basic("user3", PASSWORD);
            for credentials in [&wrong, &right] {
                let reply = ask(rig, STRICT, Some(credentials), "");
                assert_eq!(reply.code(), "1");
                assert!(reply.error().contains("Too many attempts"), "{reply:?}");
            }
            let source: IpAddr = Ipv4Addr::new(127, 98, 0, 1).into();
            let reply =
                rig.get_from(source, &format!("action=RequestToken&apiKey={STRICT}"), &[("authorization", &right)]);
            assert_eq!(reply.code(), "0", "{reply:?}");
            // What needs no login goes on.
            let reply = rig.get_from(rig.address(), &format!("action=SearchCalls&apiKey={OPEN}&{SPAN}&pagelen=1"), &[]);
            assert_eq!(reply.code(), "0", "{reply:?}");
        }),
    );
    row(
        "2.2_success_does_not_count_as_an_attempt".into(),
        Box::new(|rig| {
            for _ in 0..12 {
                assert_eq!(ask(rig, STRICT, Some(&basic("user4", PASSWORD)), "").code(), "0");
            }
        }),
    );

    // Times.
    row(
        "2.2_times_of_the_user_with_a_token_and_utc_without".into(),
        Box::new(|rig| {
            let number = rig.number(0);
            rig.call(&number, ALWAYS);
            let id = rig.id(&number, "ongoing");
            let time =
                |reply: &Reply| -> DateTime { reply.child("start_time").expect("a time").parse().expect("a time") };
            let token = rig.token("tokyo", OPEN);
            let utc = time(&rig.ok(&format!("action=GetCallInformation&callID={id}")));
            let local = time(&rig.ok(&format!("action=GetCallInformation&callID={id}&token={token}")));
            assert_eq!(utc.checked_add(jiff::Span::new().hours(9)).unwrap(), local);
            // What is asked for is in the same zone as what is told.
            let minute = |time: DateTime, minutes: i64| {
                let time = time.checked_add(jiff::Span::new().minutes(minutes)).unwrap();
                time.strftime("%Y-%m-%d+%H:%M").to_string()
            };
            let search = |token: &str, around: DateTime| {
                let span = format!("start={}&end={}", minute(around, -1), minute(around, 1));
                let reply = rig.ok(&format!("action=SearchCalls&status=ongoing&token={token}&anynum={number}&{span}"));
                reply.children("ccdr_id")
            };
            assert_eq!(search(&token, local), [id.clone()]);
            assert_eq!(search(&token, utc), [""; 0]);
            assert_eq!(search("", utc), [id.clone()]);
            assert_eq!(search("", local), [""; 0]);
        }),
    );

    // ReleaseToken
    row(
        "release_once".into(),
        Box::new(|rig| {
            let (token, other) = (rig.token("anna", STRICT), rig.token("anna", STRICT));
            let release = |key: &str, token: &str| rig.get(&format!("action=ReleaseToken&apiKey={key}&token={token}"));
            assert_eq!(release(STRICT2, &token).code(), "1");
            let reply = release(STRICT, &token);
            assert_eq!((reply.code().as_str(), reply.kind().as_str()), ("0", "ReleaseToken"));
            assert_eq!(release(STRICT, &token).code(), "1");
            let search = |token: &str| {
                rig.get(&format!("action=SearchCalls&apiKey={STRICT}&token={token}&{SPAN}&pagelen=1")).code()
            };
            assert_eq!(
                (search(&token).as_str(), search(&other).as_str()),
                ("1", "0"),
                "the other is as valid as before"
            );
        }),
    );
    row(
        "release_by_a_key_that_needs_none".into(),
        Box::new(|rig| {
            let token = rig.token("anna", OPEN);
            assert_eq!(rig.ask(&format!("action=ReleaseToken&token={token}")).code(), "0");
            assert_eq!(rig.ask(&format!("action=ReleaseToken&token={token}")).code(), "1");
            assert_eq!(rig.ask("action=ReleaseToken").code(), "1");
        }),
    );
    rows
}
