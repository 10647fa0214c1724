//! Sections 3.1 to 3.3 and 9: reserve, create, modify; the connect decision table; codecs; expiry.

use ringbridge_control::mediacontrol::codes::Code;
use ringbridge_control::mediacontrol::connect::{Given, Outcome, connect};
use ringbridge_tests::audio::Codec;
use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::rig::{Rig, Used, rx, text};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let rows: [Plain; 15] = [
        ("a_reservation_tells_where_to_send", reservation_results),
        ("a_completed_reservation_keeps_its_address", completed),
        ("a_completed_reservation_never_expires", never_expires),
        ("a_reservation_expires_after_300_s", expires),
        ("low_bitrate_is_given_back_when_completed_otherwise", low_bitrate_back),
        ("codecs_are_carried_over_from_the_reservation", carried_over),
        ("the_rx_codec_follows_the_tx_codec", follows),
        ("call_id_is_echoed", call_id),
        ("rtcp_addresses_are_honoured", rtcp),
        ("modify_moves_what_is_sent", modify_moves),
        ("modify_keeps_operations_running", modify_keeps),
        ("modify_unchanged_has_reason_17", modify_unchanged),
        ("modify_moves_the_low_bitrate_account", modify_codec),
        ("ids_have_the_engine_in_their_high_byte", ids),
        ("ids_are_not_used_again_for_60_s", ids_rest),
    ];
    let table = decision_table().into_iter().map(|(row, given, outcome)| {
        Row::new(format!("connections::decision_table_{row:02}"), move |_| {
            let [connection, conference, port] = given;
            assert_eq!(connect(connection, conference, port), outcome);
        })
    });
    let actions = by_action().into_iter().map(|(row, action, params, code, used)| {
        Row::new(format!("connections::decision_table_{row:02}_by_{action}"), move |rig| {
            let leg = rig.connect();
            rig.name("C", &leg.id);
            let other = rig.connect();
            let conference = rig.mixed(&[&other]);
            rig.name("F", &conference);
            let reserved = rig.ok("ReserveConnection", json!({}));
            rig.name_result("R", &reserved, "ConnectionId");
            let response = rig.call(action, params);
            assert_eq!(response.code, code, "{response:?}");
            assert_eq!(rig.used(), Used::new(used.0, 0, 0, used.1));
        })
    });
    let frames = [("G711u", 10), ("G711u", 20), ("G711u", 30), ("G711a", 10), ("G711a", 30)].map(|(codec, ms)| {
        Row::new(format!("connections::frames_of_{ms}_ms_of_{codec}"), move |rig| frame_size(rig, codec, ms))
    });
    let rows = rows.into_iter().map(|(name, run)| Row::new(format!("connections::{name}"), run));
    table.chain(actions).chain(frames).chain(rows).collect()
}

/// Table 9.1.
fn decision_table() -> Vec<(usize, [Given; 3], Outcome)> {
    use Given::{Absent as N, Set as P, Zero as Z};
    let (insufficient, exists) = (Outcome::Refused(Code::InvalidParameters), Outcome::Refused(Code::AlreadyConnected));
    let table = [
        (0, [Z, N, N], insufficient),
        (1, [Z, N, Z], Outcome::NewHalf),
        (2, [Z, N, P], Outcome::NewFull),
        (3, [Z, Z, N], insufficient),
        (4, [Z, Z, Z], insufficient),
        (5, [Z, Z, P], Outcome::NewFullInNewConference),
        (6, [Z, P, N], insufficient),
        (7, [Z, P, Z], insufficient),
        (8, [Z, P, P], Outcome::NewFullJoins),
        (9, [P, N, N], exists),
        (10, [P, N, Z], exists),
        (11, [P, N, P], Outcome::Complete),
        (12, [P, Z, N], Outcome::CreatesConference),
        (13, [P, Z, Z], insufficient),
        (14, [P, Z, P], Outcome::CompleteAndCreatesConference),
        (15, [P, P, N], Outcome::Joins),
        (16, [P, P, Z], exists),
        (17, [P, P, P], Outcome::CompleteAndJoins),
    ];
    // A connection id that is absent counts as zero.
    let absent = table.into_iter().filter(|(_, [connection, ..], _)| *connection == Z);
    let absent: Vec<_> =
        absent.map(|(row, [_, conference, port], outcome)| (row + 20, [N, conference, port], outcome)).collect();
    table.into_iter().chain(absent).collect()
}

/// Row, action, parameters, code, RTP and conference resources afterwards.
type ByAction = (usize, &'static str, Value, u32, (u64, u64));

/// Rows of 9.1 that an action can ask for: row, action, parameters, code, RTP and conference resources afterwards. The
/// scene holds three connections, one of them in a mixed conference, one reserved.
fn by_action() -> Vec<ByAction> {
    let to = |mut params: Value| {
        params["MediaTxIP"] = "10.1.0.50".into();
        params["MediaTxPort"] = 4000.into();
        params
    };
    let mixed = |mut params: Value| {
        params["Hairpin"] = false.into();
        params
    };
    vec![
        (1, "ReserveConnection", json!({}), 0, (4, 1)),
        (2, "CreateConnection", to(json!({})), 0, (4, 1)),
        (5, "CreateConference", mixed(to(json!({}))), 0, (4, 2)),
        (5, "JoinConference", mixed(to(json!({"ConferenceId": "0"}))), 0, (4, 2)),
        (6, "JoinConference", json!({"ConferenceId": "$F"}), 26, (3, 1)),
        (8, "JoinConference", to(json!({"ConferenceId": "$F"})), 0, (4, 2)),
        (11, "CreateConnection", to(json!({"ConnectionId": "$R"})), 0, (3, 1)),
        (12, "CreateConference", mixed(json!({"ConnectionId": "$C"})), 0, (3, 2)),
        (12, "JoinConference", mixed(json!({"ConnectionId": "$C", "ConferenceId": 0})), 0, (3, 2)),
        (14, "CreateConference", mixed(to(json!({"ConnectionId": "$R"}))), 0, (3, 2)),
        (15, "JoinConference", json!({"ConnectionId": "$C", "ConferenceId": "$F"}), 0, (3, 2)),
        (17, "JoinConference", to(json!({"ConnectionId": "$R", "ConferenceId": "$F"})), 0, (3, 2)),
    ]
}

fn reservation_results(rig: &mut Rig) {
    let results = rig.ok("ReserveConnection", json!({}));
    let (ip, port) = (text(&results["MediaRxIP"]), results["MediaRxPort"].as_u64().expect("a number"));
    assert!(ip.parse::<std::net::Ipv4Addr>().is_ok() && port % 2 == 0 && port > 0, "{results}");
    assert_eq!(text(&results["MediaRxControlIP"]), ip);
    assert_eq!(results["MediaRxControlPort"].as_u64(), Some(port + 1));
    assert_eq!(results["MmsId"].as_u64(), Some(1), "{results}");
    assert!(results["ConnectionId"].is_string() && results["ResultCode"] == "0", "{results}");
    let capabilities = results["LocalMediaCaps"].as_object().expect("codecs with their frame sizes");
    assert!(capabilities.contains_key("G711u") && capabilities.contains_key("G711a"), "{capabilities:?}");
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
}

fn completed(rig: &mut Rig) {
    let reserved = rig.ok("ReserveConnection", json!({}));
    let phone = rig.server.phone();
    let address = rig.server.address(phone);
    let complete = json!({
        "ConnectionId": reserved["ConnectionId"], "MediaTxIP": address.ip().to_string(), "MediaTxPort": address.port(),
    });
    let created = rig.ok("CreateConnection", complete.clone());
    for name in ["ConnectionId", "MmsId", "MediaRxIP", "MediaRxPort", "MediaRxControlIP", "MediaRxControlPort"] {
        assert_eq!(created[name], reserved[name], "{name}");
    }
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
    assert_eq!(rig.code("CreateConnection", complete), 15);
    rig.operation("PlayTone", json!({"ConnectionId": created["ConnectionId"], "Frequency1": 1000, "Amplitude1": -10}));
    rig.pass(1000);
    assert!(rig.server.at(phone).share(1000, 300, 900) > 0.3, "the phone hears it");
}

fn never_expires(rig: &mut Rig) {
    let reserved = rig.ok("ReserveConnection", json!({}));
    rig.pass(299_000);
    let complete = json!({"ConnectionId": reserved["ConnectionId"], "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000});
    assert_eq!(rig.code("CreateConnection", complete), 0);
    rig.pass(700_000);
    assert_eq!(rig.code("SendDigits", json!({"ConnectionId": reserved["ConnectionId"], "Digits": "1"})), 0);
}

fn expires(rig: &mut Rig) {
    let reserved = rig.ok("ReserveConnection", json!({}));
    let complete = json!({"ConnectionId": reserved["ConnectionId"], "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000});
    rig.pass(299_900);
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
    rig.pass(200);
    assert_eq!(rig.used(), Used::default(), "its port is free again");
    assert_eq!(rig.code("CreateConnection", complete.clone()), 12);
    assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": reserved["ConnectionId"]})), 12);
    rig.pass(59_000);
    assert_eq!(rig.code("CreateConnection", complete.clone()), 12);
    rig.pass(2_000);
    assert_eq!(rig.code("CreateConnection", complete), 23);
    assert!(rig.events().is_empty(), "closed silently");
}

fn low_bitrate_back(rig: &mut Rig) {
    let reserved = rig.ok("ReserveConnection", json!({"MediaTxCodec": "G729", "MediaRxCodec": "G729"}));
    assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
    let complete = json!({
        "ConnectionId": reserved["ConnectionId"], "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000,
        "MediaTxCodec": "G711u", "MediaRxCodec": "G711u",
    });
    rig.ok("CreateConnection", complete);
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
}

fn carried_over(rig: &mut Rig) {
    let reserved = rig.ok("ReserveConnection", json!({"MediaTxCodec": "G711a", "MediaRxCodec": "G711a"}));
    let phone = rig.server.phone();
    rig.server.at(phone).set_codec(Codec::Pcma);
    let address = rig.server.address(phone);
    let complete = json!({
        "ConnectionId": reserved["ConnectionId"], "MediaTxIP": address.ip().to_string(), "MediaTxPort": address.port(),
    });
    rig.ok("CreateConnection", complete);
    rig.operation("PlayTone", json!({"ConnectionId": reserved["ConnectionId"], "Frequency1": 1000}));
    rig.pass(1000);
    assert!(rig.server.at(phone).heard().iter().all(|packet| packet.payload_type == 8), "A-law");
    assert!(rig.server.at(phone).share(1000, 200, 900) > 0.3);
}

fn follows(rig: &mut Rig) {
    let leg = rig.connect_with(json!({"MediaTxCodec": "G711a"}));
    rig.at(&leg).set_codec(Codec::Pcma);
    rig.say(&leg, Voice::Tone(500));
    let heard = rig.operation("DetectNonSilence", json!({"ConnectionId": leg.id, "NonSilenceTime": 400}));
    assert_eq!(rig.end(&heard).condition(), "nonsilence");
}

fn call_id(rig: &mut Rig) {
    let id = i64::MAX - 7;
    let created = rig.ok("CreateConnection", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000, "CallId": id}));
    assert_eq!(text(&created["CallId"]), id.to_string());
    let again =
        json!({"ConnectionId": created["ConnectionId"], "MediaTxIP": "10.1.0.2", "MediaTxPort": 4000, "CallId": "-3"});
    assert_eq!(text(&rig.ok("ModifyConnection", again)["CallId"]), "-3");
}

fn rtcp(rig: &mut Rig) {
    let leg = rig.connect_with(json!({"MediaTxControlIP": "10.1.0.99", "MediaTxControlPort": 4321}));
    rig.pass(20);
    let list = rig.server.method("connection.list", json!({})).expect("a list");
    let told = &list["connections"][0];
    assert_eq!(told["remote_rtcp"], "10.1.0.99:4321", "{told}");
    drop(leg);
}

fn modify_moves(rig: &mut Rig) {
    let leg = rig.connect();
    rig.operation("PlayTone", json!({"ConnectionId": leg.id, "Duration": 9000}));
    rig.pass(500);
    let other = rig.server.phone();
    let address = rig.server.address(other);
    let modify = json!({"ConnectionId": leg.id, "MediaTxIP": address.ip().to_string(), "MediaTxPort": address.port()});
    let modified = rig.ok("ModifyConnection", modify);
    assert_eq!((text(&modified["ConnectionId"]), rx(&modified)), (leg.id.clone(), leg.rx), "the Rx side stays");
    rig.pass(60);
    rig.at(&leg).forget();
    rig.pass(500);
    assert_eq!(rig.at(&leg).heard(), []);
    assert!(rig.server.at(other).heard().len() >= 20);
}

fn modify_keeps(rig: &mut Rig) {
    let (leg, other) = (rig.connect(), rig.connect());
    let conference = rig.mixed(&[&leg, &other]);
    rig.tone("long.wav", 1000, 2000);
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "long.wav"}));
    rig.pass(500);
    assert_eq!(
        rig.code("ModifyConnection", json!({"ConnectionId": leg.id, "MediaTxIP": "10.1.0.50", "MediaTxPort": 4000})),
        0
    );
    let event = rig.end(&play);
    assert_eq!(event.condition(), "eod");
    assert!(event.elapsed().abs_diff(2000) <= 20, "{event:?}");
    assert_eq!(rig.code("Mute", json!({"ConnectionId": leg.id, "ConferenceId": conference})), 0, "still a member");
}

fn modify_unchanged(rig: &mut Rig) {
    let leg = rig.connect();
    let address = rig.server.address(leg.phone);
    let modify = json!({"ConnectionId": leg.id, "MediaTxIP": address.ip().to_string(), "MediaTxPort": address.port()});
    let results = rig.ok("ModifyConnection", modify);
    assert_eq!((text(&results["ResultCode"]), text(&results["ReasonCode"])), ("0".into(), "17".into()));
}

fn modify_codec(rig: &mut Rig) {
    let leg = rig.connect();
    let change = |codec: &str| {
        json!({
            "ConnectionId": leg.id, "MediaTxIP": "10.1.0.60", "MediaTxPort": 4000, "MediaTxCodec": codec, "MediaRxCodec": codec,
        })
    };
    assert_eq!(rig.code("ModifyConnection", change("G729")), 0);
    assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
    assert_eq!(rig.code("ModifyConnection", change("G723")), 0);
    assert_eq!(rig.used(), Used::new(1, 1, 0, 0));
    assert_eq!(rig.code("ModifyConnection", change("G711u")), 0);
    assert_eq!(rig.used(), Used::new(1, 0, 0, 0));
}

fn ids(rig: &mut Rig) {
    let leg = rig.connect();
    let conference = rig.mixed(&[&leg]);
    let operation = rig.operation("GatherDigits", json!({"ConnectionId": leg.id}));
    for id in [&leg.id, &conference, &operation] {
        let number: u32 = id.parse().expect("a decimal of 32 bits");
        assert!(number >> 24 == 1 && number & 0x00ff_ffff != 0, "{id}");
    }
}

fn ids_rest(rig: &mut Rig) {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let leg = rig.connect();
        assert!(seen.insert(leg.id.clone()), "{} twice", leg.id);
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": leg.id})), 0);
    }
}

fn frame_size(rig: &mut Rig, codec: &str, ms: u64) {
    let leg = rig.connect_with(json!({
        "MediaTxCodec": codec, "MediaRxCodec": codec, "MediaTxFramesize": ms, "MediaRxFramesize": ms,
    }));
    rig.operation("PlayTone", json!({"ConnectionId": leg.id, "Duration": 1200}));
    rig.pass(1000);
    let bytes = usize::try_from(ms * 8).expect("small");
    let heard = rig.at(&leg).heard().to_vec();
    let whole = heard.iter().filter(|packet| packet.payload.len() == bytes).count();
    assert!(whole + 1 >= heard.len() && heard.len() as u64 >= 900 / ms, "{whole} of {}", heard.len());
}
