//! Sections 2.5 and 8.4: every action with every code it may answer, each by a request that provokes it.

use serde_json::{Value, json};

use crate::rig::Rig;
use crate::row::Row;

/// Action, parameters, expected ResultCode. A text that begins with `$` stands for an id of the [`scene`].
type Case = (&'static str, &'static str, Value, u32);

/// What requests are about:
///
/// | name | what |
/// | --- | --- |
/// | `$A`, `$B` | connections without anything |
/// | `$R` | only reserved |
/// | `$F` with `$M`, `$N` | a mixed conference and its members |
/// | `$H` with `$I`, `$J` | a hairpin and its members |
/// | `$P`, `$Q` | a connection that is played to, the operation |
/// | `$T` | a connection on which three operations run |
/// | `$D` | a connection on which silence is being detected |
/// | `$X`, `$Y`, `$Z` | a connection, a conference, an operation that have ended |
/// | `$W` | an id of another engine |
/// | `$U` | an id of this engine that was never given out |
fn scene(rig: &mut Rig) {
    rig.tone("short.wav", 1000, 200);
    rig.tone("long.wav", 1000, 60_000);
    for name in ["A", "B", "M", "N", "I", "J", "P", "T", "D", "X"] {
        let leg = rig.connect();
        rig.name(name, &leg.id);
        rig.name_address(name, &leg);
    }
    let reserved = rig.ok("ReserveConnection", json!({}));
    rig.name_result("R", &reserved, "ConnectionId");
    let mixed = rig.ok("CreateConference", json!({"ConnectionId": "$M", "Hairpin": false}));
    rig.name_result("F", &mixed, "ConferenceId");
    rig.ok("JoinConference", json!({"ConnectionId": "$N", "ConferenceId": "$F"}));
    let hairpin = rig.ok("CreateConference", json!({"ConnectionId": "$I", "Hairpin": true}));
    rig.name_result("H", &hairpin, "ConferenceId");
    rig.ok("JoinConference", json!({"ConnectionId": "$J", "ConferenceId": "$H"}));
    let ended = rig.ok("CreateConference", json!({"ConnectionId": "$X", "Hairpin": false}));
    rig.name_result("Y", &ended, "ConferenceId");
    let stopped = rig.ok("Play", json!({"ConferenceId": "$Y", "Prompt1": "long.wav"}));
    rig.name_result("Z", &stopped, "OperationId");
    rig.ok("DeleteConnection", json!({"ConferenceId": "$Y"}));
    let play = rig.ok("Play", json!({"ConnectionId": "$P", "Prompt1": "long.wav"}));
    rig.name_result("Q", &play, "OperationId");
    for _ in 0..3 {
        rig.ok("GatherDigits", json!({"ConnectionId": "$T"}));
    }
    rig.ok("DetectSilence", json!({"ConnectionId": "$D", "SilenceTime": 60_000, "CommandTimeout": 600_000}));
    let unknown = rig.id_beside("$A");
    rig.name("U", &unknown);
    let foreign = rig.id_of_another_engine("$A");
    rig.name("W", &foreign);
}

pub(crate) fn rows() -> Vec<Row> {
    cases()
        .into_iter()
        .enumerate()
        .map(|(number, (action, what, params, code))| {
            Row::new(format!("codes::{action}::{number:03}_{what}_is_{code}"), move |rig| {
                scene(rig);
                let before = rig.used();
                let response = rig.call(action, params.clone());
                assert_eq!(response.code, code, "{action} {params}: {response:?}");
                let branch = if code <= 1 { "Success" } else { "Failure" };
                assert_eq!(response.branch, branch, "{response:?}");
                if code > 1 {
                    assert_eq!(rig.used(), before, "what fails takes nothing");
                    assert!(response.results.get("OperationId").is_none(), "nothing was started: {response:?}");
                }
            })
        })
        .collect()
}

fn text_of(digits: usize) -> String {
    "1".repeat(digits)
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let mut cases = vec![
        // 3.1
        ("ReserveConnection", "plain", json!({}), 0),
        ("ReserveConnection", "own_engine", json!({"MmsId": "$MMS"}), 0),
        ("ReserveConnection", "engine_0_is_any", json!({"MmsId": 0}), 0),
        ("ReserveConnection", "unknown_engine", json!({"MmsId": 250}), 8),
        ("ReserveConnection", "engine_not_numeric", json!({"MmsId": "one"}), 27),
        ("ReserveConnection", "engine_beyond_255", json!({"MmsId": 256}), 27),
        ("ReserveConnection", "codec_in_any_case", json!({"MediaRxCodec": "g711A", "MediaTxCodec": "G711a"}), 0),
        ("ReserveConnection", "unknown_codec_is_unspecified", json!({"MediaRxCodec": "G722"}), 0),
        ("ReserveConnection", "low_bitrate", json!({"MediaRxCodec": "G729", "MediaTxCodec": "G729"}), 0),
        ("ReserveConnection", "unknown_parameters_are_ignored", json!({"Colour": "blue"}), 0),
        // 3.2
        ("CreateConnection", "plain", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}), 0),
        ("CreateConnection", "port_as_text", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": "4000"}), 0),
        ("CreateConnection", "odd_port", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4001}), 0),
        ("CreateConnection", "names_in_any_case", json!({"mediatxip": "10.1.0.1", "MEDIATXPORT": 4000}), 0),
        (
            "CreateConnection",
            "id_0_is_new",
            json!({"ConnectionId": "0", "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}),
            0,
        ),
        ("CreateConnection", "multicast", json!({"MediaTxIP": "239.1.2.3", "MediaTxPort": 4000}), 0),
        (
            "CreateConnection",
            "completes",
            json!({"ConnectionId": "$R", "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}),
            0,
        ),
        ("CreateConnection", "no_address", json!({"MediaTxPort": 4000}), 26),
        ("CreateConnection", "no_port", json!({"MediaTxIP": "10.1.0.1"}), 26),
        ("CreateConnection", "nothing", json!({}), 26),
        ("CreateConnection", "three_octets", json!({"MediaTxIP": "10.1.1", "MediaTxPort": 4000}), 27),
        ("CreateConnection", "octet_of_300", json!({"MediaTxIP": "300.1.1.1", "MediaTxPort": 4000}), 27),
        ("CreateConnection", "name", json!({"MediaTxIP": "localhost", "MediaTxPort": 4000}), 27),
        ("CreateConnection", "ipv6", json!({"MediaTxIP": "::1", "MediaTxPort": 4000}), 27),
        ("CreateConnection", "port_0", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 0}), 27),
        ("CreateConnection", "port_65536", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 65_536}), 27),
        ("CreateConnection", "port_not_numeric", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": "rtp"}), 27),
        (
            "CreateConnection",
            "id_not_decimal",
            json!({"ConnectionId": "x", "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}),
            22,
        ),
        (
            "CreateConnection",
            "id_beyond_32_bits",
            json!({"ConnectionId": "4294967296", "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}),
            22,
        ),
        (
            "CreateConnection",
            "unknown_id",
            json!({"ConnectionId": "$U", "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}),
            23,
        ),
        ("CreateConnection", "ended_id", json!({"ConnectionId": "$X", "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}), 23),
        (
            "CreateConnection",
            "foreign_id",
            json!({"ConnectionId": "$W", "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}),
            8,
        ),
        ("CreateConnection", "unknown_engine", json!({"MmsId": 250, "MediaTxIP": "10.1.0.1", "MediaTxPort": 40}), 8),
        (
            "CreateConnection",
            "already_complete",
            json!({"ConnectionId": "$A", "MediaTxIP": "$A.ip", "MediaTxPort": "$A.port"}),
            15,
        ),
        // Parameters are looked at before ids.
        ("CreateConnection", "order_26_before_23", json!({"ConnectionId": "$U", "MediaTxIP": "10.1.0.1"}), 26),
        (
            "CreateConnection",
            "order_27_before_23",
            json!({"ConnectionId": "$U", "MediaTxIP": "x", "MediaTxPort": 40}),
            27,
        ),
    ];
    // 9.2
    for (codec, frames, code) in [
        ("G711u", &[10, 20, 30][..], 0),
        ("G711a", &[10, 20, 30], 0),
        ("G723", &[30, 60], 0),
        ("G729", &[20, 30, 40], 0),
        ("G711u", &[25, 40, 60], 27),
        ("G711a", &[5, 40], 27),
        ("G723", &[10, 20, 40], 27),
        ("G729", &[10, 60], 27),
    ] {
        for frame in frames {
            let params = json!({
                "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000, "MediaTxCodec": codec, "MediaRxCodec": codec,
                "MediaTxFramesize": frame, "MediaRxFramesize": frame,
            });
            let what: &'static str = if code == 0 { "frame_size_of_the_codec" } else { "frame_size_not_of_the_codec" };
            cases.push(("CreateConnection", what, params, code));
        }
    }
    cases.extend([
        // 3.3
        ("ModifyConnection", "moves", json!({"ConnectionId": "$A", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}), 0),
        (
            "ModifyConnection",
            "unchanged",
            json!({"ConnectionId": "$A", "MediaTxIP": "$A.ip", "MediaTxPort": "$A.port"}),
            0,
        ),
        (
            "ModifyConnection",
            "beside_an_operation",
            json!({"ConnectionId": "$P", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}),
            0,
        ),
        (
            "ModifyConnection",
            "in_a_conference",
            json!({"ConnectionId": "$M", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}),
            0,
        ),
        ("ModifyConnection", "no_id", json!({"MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}), 26),
        ("ModifyConnection", "no_address", json!({"ConnectionId": "$A", "MediaTxPort": 4000}), 26),
        ("ModifyConnection", "no_port", json!({"ConnectionId": "$A", "MediaTxIP": "10.1.0.9"}), 26),
        (
            "ModifyConnection",
            "bad_address",
            json!({"ConnectionId": "$A", "MediaTxIP": "10.1", "MediaTxPort": 4000}),
            27,
        ),
        ("ModifyConnection", "port_0", json!({"ConnectionId": "$A", "MediaTxIP": "10.1.0.9", "MediaTxPort": 0}), 27),
        (
            "ModifyConnection",
            "reserved",
            json!({"ConnectionId": "$R", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}),
            16,
        ),
        (
            "ModifyConnection",
            "not_decimal",
            json!({"ConnectionId": "1x", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}),
            22,
        ),
        (
            "ModifyConnection",
            "unknown",
            json!({"ConnectionId": "$U", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}),
            23,
        ),
        ("ModifyConnection", "ended", json!({"ConnectionId": "$X", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}), 23),
        ("ModifyConnection", "foreign", json!({"ConnectionId": "$W", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000}), 8),
        (
            "ModifyConnection",
            "frame_size",
            json!({"ConnectionId": "$A", "MediaTxIP": "10.1.0.9", "MediaTxPort": 4000, "MediaTxFramesize": 25}),
            27,
        ),
        // 3.4
        ("DeleteConnection", "connection", json!({"ConnectionId": "$A"}), 0),
        ("DeleteConnection", "reserved", json!({"ConnectionId": "$R"}), 0),
        ("DeleteConnection", "a_member", json!({"ConnectionId": "$M"}), 0),
        ("DeleteConnection", "beside_an_operation", json!({"ConnectionId": "$P"}), 0),
        ("DeleteConnection", "conference", json!({"ConferenceId": "$F"}), 0),
        ("DeleteConnection", "both", json!({"ConnectionId": "$M", "ConferenceId": "$F"}), 0),
        ("DeleteConnection", "id_as_number", json!({"ConnectionId": "$A.number"}), 0),
        ("DeleteConnection", "neither", json!({}), 26),
        ("DeleteConnection", "zeros", json!({"ConnectionId": "0", "ConferenceId": "0"}), 26),
        ("DeleteConnection", "not_decimal", json!({"ConnectionId": "conn-1"}), 22),
        ("DeleteConnection", "negative", json!({"ConnectionId": "-1"}), 22),
        ("DeleteConnection", "conference_not_decimal", json!({"ConferenceId": "x"}), 22),
        ("DeleteConnection", "unknown", json!({"ConnectionId": "$U"}), 23),
        ("DeleteConnection", "ended", json!({"ConnectionId": "$X"}), 23),
        ("DeleteConnection", "foreign", json!({"ConnectionId": "$W"}), 8),
        ("DeleteConnection", "a_conference_is_no_connection", json!({"ConnectionId": "$F"}), 23),
        ("DeleteConnection", "unknown_conference", json!({"ConferenceId": "$U"}), 24),
        ("DeleteConnection", "ended_conference", json!({"ConferenceId": "$Y"}), 24),
        ("DeleteConnection", "not_a_member", json!({"ConnectionId": "$A", "ConferenceId": "$F"}), 24),
        ("DeleteConnection", "member_of_another", json!({"ConnectionId": "$I", "ConferenceId": "$F"}), 24),
        ("DeleteConnection", "member_of_an_ended_one", json!({"ConnectionId": "$A", "ConferenceId": "$Y"}), 24),
        ("DeleteConnection", "unknown_leaves", json!({"ConnectionId": "$U", "ConferenceId": "$F"}), 23),
        // 4.3
        ("LeaveConference", "member", json!({"ConnectionId": "$M", "ConferenceId": "$F"}), 0),
        ("LeaveConference", "no_conference", json!({"ConnectionId": "$M"}), 26),
        ("LeaveConference", "no_connection", json!({"ConferenceId": "$F"}), 26),
        ("LeaveConference", "not_decimal", json!({"ConnectionId": "x", "ConferenceId": "$F"}), 22),
        ("LeaveConference", "unknown_connection", json!({"ConnectionId": "$U", "ConferenceId": "$F"}), 23),
        ("LeaveConference", "unknown_conference", json!({"ConnectionId": "$M", "ConferenceId": "$U"}), 24),
        ("LeaveConference", "not_a_member", json!({"ConnectionId": "$A", "ConferenceId": "$F"}), 24),
        // 4.1
        ("CreateConference", "hairpin", json!({"ConnectionId": "$A"}), 0),
        ("CreateConference", "mixed", json!({"ConnectionId": "$A", "Hairpin": "False"}), 0),
        ("CreateConference", "new_connection", json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}), 0),
        (
            "CreateConference",
            "completes",
            json!({"ConnectionId": "$R", "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}),
            0,
        ),
        ("CreateConference", "withdrawn_parameters", json!({"ConnectionId": "$A", "NumParticipants": 5}), 0),
        ("CreateConference", "nothing", json!({}), 26),
        ("CreateConference", "address_without_port", json!({"MediaTxIP": "10.1.0.1"}), 26),
        ("CreateConference", "bad_address", json!({"MediaTxIP": "ten", "MediaTxPort": 4000}), 27),
        ("CreateConference", "bad_boolean", json!({"ConnectionId": "$A", "Monitor": "maybe"}), 27),
        ("CreateConference", "reserved", json!({"ConnectionId": "$R"}), 16),
        ("CreateConference", "not_decimal", json!({"ConnectionId": "x"}), 22),
        ("CreateConference", "unknown", json!({"ConnectionId": "$U"}), 23),
        ("CreateConference", "foreign", json!({"ConnectionId": "$W"}), 8),
        ("CreateConference", "unknown_engine", json!({"ConnectionId": "$A", "MmsId": 250}), 8),
        ("CreateConference", "in_a_conference", json!({"ConnectionId": "$M"}), 15),
        ("CreateConference", "in_a_hairpin", json!({"ConnectionId": "$I"}), 15),
        ("CreateConference", "beside_an_operation", json!({"ConnectionId": "$P"}), 14),
        ("CreateConference", "beside_a_detection", json!({"ConnectionId": "$D"}), 14),
        // 4.2
        ("JoinConference", "mixed", json!({"ConnectionId": "$A", "ConferenceId": "$F"}), 0),
        ("JoinConference", "third_party", json!({"ConnectionId": "$A", "ConferenceId": "$H"}), 0),
        (
            "JoinConference",
            "new_connection",
            json!({"ConferenceId": "$F", "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}),
            0,
        ),
        (
            "JoinConference",
            "completes",
            json!({"ConnectionId": "$R", "ConferenceId": "$F", "MediaTxIP": "10.1.0.1", "MediaTxPort": 4000}),
            0,
        ),
        ("JoinConference", "conference_0_is_new", json!({"ConnectionId": "$A", "ConferenceId": "0"}), 0),
        (
            "JoinConference",
            "coach_and_pupil_are_both_ignored",
            json!({"ConnectionId": "$A", "ConferenceId": "$F", "Coach": true, "Pupil": true}),
            0,
        ),
        ("JoinConference", "no_conference", json!({"ConnectionId": "$A"}), 26),
        ("JoinConference", "no_connection", json!({"ConferenceId": "$F"}), 26),
        ("JoinConference", "engines_differ", json!({"ConnectionId": "$A", "ConferenceId": "$W"}), 26),
        ("JoinConference", "bad_boolean", json!({"ConnectionId": "$A", "ConferenceId": "$F", "Coach": 7}), 27),
        ("JoinConference", "reserved", json!({"ConnectionId": "$R", "ConferenceId": "$F"}), 16),
        ("JoinConference", "not_decimal", json!({"ConnectionId": "x", "ConferenceId": "$F"}), 22),
        ("JoinConference", "conference_not_decimal", json!({"ConnectionId": "$A", "ConferenceId": "room"}), 22),
        ("JoinConference", "unknown_connection", json!({"ConnectionId": "$U", "ConferenceId": "$F"}), 23),
        ("JoinConference", "unknown_conference", json!({"ConnectionId": "$A", "ConferenceId": "$U"}), 24),
        ("JoinConference", "ended_conference", json!({"ConnectionId": "$A", "ConferenceId": "$Y"}), 24),
        ("JoinConference", "twice", json!({"ConnectionId": "$M", "ConferenceId": "$F"}), 15),
        ("JoinConference", "in_another", json!({"ConnectionId": "$I", "ConferenceId": "$F"}), 15),
        ("JoinConference", "beside_an_operation", json!({"ConnectionId": "$P", "ConferenceId": "$F"}), 14),
        // 4.4
        ("SetConfereeAttribute", "mute", json!({"ConnectionId": "$M", "ConferenceId": "$F", "Mute": true}), 0),
        (
            "SetConfereeAttribute",
            "all",
            json!({"ConnectionId": "$M", "ConferenceId": "$F", "Mute": false, "TariffTone": true, "Pupil": true}),
            0,
        ),
        (
            "SetConfereeAttribute",
            "mute_on_a_hairpin",
            json!({"ConnectionId": "$I", "ConferenceId": "$H", "Mute": "true"}),
            0,
        ),
        ("SetConfereeAttribute", "none_of_the_four", json!({"ConnectionId": "$M", "ConferenceId": "$F"}), 26),
        ("SetConfereeAttribute", "no_conference", json!({"ConnectionId": "$M", "Mute": true}), 26),
        ("SetConfereeAttribute", "no_connection", json!({"ConferenceId": "$F", "Mute": true}), 26),
        (
            "SetConfereeAttribute",
            "coach_with_tariff_tone",
            json!({"ConnectionId": "$M", "ConferenceId": "$F", "TariffTone": true, "Coach": true}),
            26,
        ),
        (
            "SetConfereeAttribute",
            "coach_muted",
            json!({"ConnectionId": "$M", "ConferenceId": "$F", "Mute": true, "Coach": true}),
            26,
        ),
        (
            "SetConfereeAttribute",
            "pupil_muted",
            json!({"ConnectionId": "$M", "ConferenceId": "$F", "Mute": true, "Pupil": true}),
            26,
        ),
        ("SetConfereeAttribute", "not_decimal", json!({"ConnectionId": "x", "ConferenceId": "$F", "Mute": true}), 22),
        (
            "SetConfereeAttribute",
            "unknown_connection",
            json!({"ConnectionId": "$U", "ConferenceId": "$F", "Mute": true}),
            23,
        ),
        (
            "SetConfereeAttribute",
            "unknown_conference",
            json!({"ConnectionId": "$M", "ConferenceId": "$U", "Mute": true}),
            24,
        ),
        ("SetConfereeAttribute", "not_a_member", json!({"ConnectionId": "$A", "ConferenceId": "$F", "Mute": true}), 24),
        ("Mute", "member", json!({"ConnectionId": "$M", "ConferenceId": "$F"}), 0),
        ("Mute", "no_conference", json!({"ConnectionId": "$M"}), 26),
        ("Mute", "not_a_member", json!({"ConnectionId": "$A", "ConferenceId": "$F"}), 24),
        ("Unmute", "member", json!({"ConnectionId": "$M", "ConferenceId": "$F"}), 0),
        ("Unmute", "unknown_connection", json!({"ConnectionId": "$U", "ConferenceId": "$F"}), 23),
        // 5.1
        ("Play", "connection", json!({"ConnectionId": "$A", "Prompt1": "short.wav"}), 1),
        ("Play", "conference", json!({"ConferenceId": "$F", "Prompt1": "short.wav"}), 1),
        ("Play", "hairpin", json!({"ConferenceId": "$H", "Prompt1": "short.wav"}), 1),
        ("Play", "a_member", json!({"ConnectionId": "$M", "Prompt1": "short.wav"}), 1),
        ("Play", "beside_a_detection", json!({"ConnectionId": "$D", "Prompt1": "short.wav"}), 1),
        (
            "Play",
            "numbers_as_text",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "Volume": "-10", "TermCondMaxTime": "100"}),
            1,
        ),
        ("Play", "neither_id", json!({"Prompt1": "short.wav"}), 26),
        ("Play", "both_ids", json!({"ConnectionId": "$A", "ConferenceId": "$F", "Prompt1": "short.wav"}), 26),
        ("Play", "no_prompt", json!({"ConnectionId": "$A"}), 26),
        ("Play", "second_prompt_only", json!({"ConnectionId": "$A", "Prompt2": "short.wav"}), 26),
        (
            "Play",
            "volume_and_speed",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "Volume": 1, "Speed": 1}),
            26,
        ),
        ("Play", "volume_11", json!({"ConnectionId": "$A", "Prompt1": "short.wav", "Volume": 11}), 27),
        ("Play", "speed_minus_11", json!({"ConnectionId": "$A", "Prompt1": "short.wav", "Speed": -11}), 27),
        ("Play", "volume_not_numeric", json!({"ConnectionId": "$A", "Prompt1": "short.wav", "Volume": "loud"}), 27),
        (
            "Play",
            "sample_rate_44",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "AudioFileSampleRate": 44}),
            27,
        ),
        (
            "Play",
            "sample_size_12",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "AudioFileSampleSize": 12}),
            27,
        ),
        (
            "Play",
            "encoding_of_seek_and_play",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "AudioFileEncoding": "g726"}),
            27,
        ),
        (
            "Play",
            "size_of_seek_and_play",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "AudioFileSampleSize": 2}),
            27,
        ),
        (
            "SeekAndPlay",
            "g726",
            json!({"ConnectionId": "$A", "Prompt": "short.wav", "AudioFileEncoding": "g726", "AudioFileSampleSize": 2}),
            1,
        ),
        ("Play", "encoding_mp3", json!({"ConnectionId": "$A", "Prompt1": "short.wav", "AudioFileEncoding": "mp3"}), 27),
        (
            "Play",
            "command_timeout_not_numeric",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "CommandTimeout": "x"}),
            27,
        ),
        ("Play", "unknown", json!({"ConnectionId": "$U", "Prompt1": "short.wav"}), 23),
        ("Play", "ended", json!({"ConnectionId": "$X", "Prompt1": "short.wav"}), 23),
        ("Play", "not_decimal", json!({"ConnectionId": "x", "Prompt1": "short.wav"}), 22),
        ("Play", "foreign", json!({"ConnectionId": "$W", "Prompt1": "short.wav"}), 8),
        ("Play", "unknown_conference", json!({"ConferenceId": "$U", "Prompt1": "short.wav"}), 24),
        ("Play", "ended_conference", json!({"ConferenceId": "$Y", "Prompt1": "short.wav"}), 24),
        ("Play", "reserved", json!({"ConnectionId": "$R", "Prompt1": "short.wav"}), 16),
        ("Play", "no_such_file", json!({"ConnectionId": "$A", "Prompt1": "nothing.wav"}), 30),
        (
            "Play",
            "second_prompt_missing",
            json!({"ConnectionId": "$A", "Prompt1": "short.wav", "Prompt2": "nothing.wav"}),
            30,
        ),
        ("Play", "path_outside", json!({"ConnectionId": "$A", "Prompt1": "/etc/passwd.wav"}), 30),
        ("Play", "path_upwards", json!({"ConnectionId": "$A", "Prompt1": "../../etc/hosts.wav"}), 30),
        ("Play", "text_without_speech_synthesis", json!({"ConnectionId": "$A", "Prompt1": "Please hold the line"}), 8),
        ("Play", "beside_a_play", json!({"ConnectionId": "$P", "Prompt1": "short.wav"}), 14),
        ("Play", "fourth_operation", json!({"ConnectionId": "$T", "Prompt1": "short.wav"}), 8),
        ("Play", "order_26_before_23", json!({"ConnectionId": "$U"}), 26),
        ("Play", "order_27_before_23", json!({"ConnectionId": "$U", "Prompt1": "short.wav", "Volume": 50}), 27),
        ("Play", "order_23_before_30", json!({"ConnectionId": "$U", "Prompt1": "nothing.wav"}), 23),
        // 5.11
        ("SeekAndPlay", "connection", json!({"ConnectionId": "$A", "Prompt": "long.wav", "SeekPosition": 30_000}), 1),
        (
            "SeekAndPlay",
            "beyond_the_end",
            json!({"ConnectionId": "$A", "Prompt": "short.wav", "SeekPosition": 1000}),
            1,
        ),
        ("SeekAndPlay", "no_prompt", json!({"ConnectionId": "$A"}), 26),
        ("SeekAndPlay", "neither_id", json!({"Prompt": "long.wav"}), 26),
        ("SeekAndPlay", "bad_position", json!({"ConnectionId": "$A", "Prompt": "long.wav", "SeekPosition": -1}), 27),
        ("SeekAndPlay", "no_such_file", json!({"ConnectionId": "$A", "Prompt": "nothing.wav"}), 30),
        ("SeekAndPlay", "unknown", json!({"ConnectionId": "$U", "Prompt": "long.wav"}), 23),
        // 5.2
        ("AdjustPlay", "volume", json!({"ConnectionId": "$P", "Volume": 5}), 0),
        ("AdjustPlay", "speed", json!({"ConnectionId": "$P", "Speed": -5}), 0),
        ("AdjustPlay", "relative_20", json!({"ConnectionId": "$P", "Volume": 20, "AdjustmentType": "relative"}), 0),
        (
            "AdjustPlay",
            "unknown_type_is_absolute",
            json!({"ConnectionId": "$P", "Volume": 2, "AdjustmentType": "sideways"}),
            0,
        ),
        ("AdjustPlay", "toggle_alone", json!({"ConnectionId": "$P", "AdjustmentType": "toggle", "ToggleType": 1}), 0),
        ("AdjustPlay", "toggle_0", json!({"ConnectionId": "$P", "AdjustmentType": "toggle", "ToggleType": 0}), 0),
        ("AdjustPlay", "toggle_5", json!({"ConnectionId": "$P", "AdjustmentType": "toggle", "ToggleType": 5}), 27),
        ("AdjustPlay", "absolute_11", json!({"ConnectionId": "$P", "Volume": 11}), 27),
        ("AdjustPlay", "relative_21", json!({"ConnectionId": "$P", "Volume": 21, "AdjustmentType": "relative"}), 27),
        ("AdjustPlay", "neither", json!({"ConnectionId": "$P"}), 26),
        ("AdjustPlay", "both", json!({"ConnectionId": "$P", "Volume": 1, "Speed": 1}), 26),
        ("AdjustPlay", "no_id", json!({"Volume": 1}), 26),
        ("AdjustPlay", "nothing_plays", json!({"ConnectionId": "$A", "Volume": 1}), 25),
        ("AdjustPlay", "not_decimal", json!({"ConnectionId": "x", "Volume": 1}), 22),
        ("AdjustPlay", "unknown", json!({"ConnectionId": "$U", "Volume": 1}), 23),
        // 5.3
        ("PlayTone", "connection", json!({"ConnectionId": "$A"}), 1),
        ("PlayTone", "conference", json!({"ConferenceId": "$F"}), 1),
        (
            "PlayTone",
            "at_the_edges",
            json!({"ConnectionId": "$A", "Frequency1": 200, "Amplitude1": -40, "Frequency2": 3000, "Amplitude2": 0}),
            1,
        ),
        ("PlayTone", "endless", json!({"ConnectionId": "$A", "Duration": -1, "TermCondMaxTime": 500}), 1),
        ("PlayTone", "endless_without_condition", json!({"ConnectionId": "$A", "Duration": 0}), 26),
        ("PlayTone", "neither_id", json!({"Frequency1": 600}), 26),
        ("PlayTone", "both_ids", json!({"ConnectionId": "$A", "ConferenceId": "$F"}), 26),
        ("PlayTone", "frequency_199", json!({"ConnectionId": "$A", "Frequency1": 199}), 27),
        ("PlayTone", "frequency_3001", json!({"ConnectionId": "$A", "Frequency1": 3001}), 27),
        ("PlayTone", "second_frequency_3001", json!({"ConnectionId": "$A", "Frequency2": 3001}), 27),
        ("PlayTone", "amplitude_1", json!({"ConnectionId": "$A", "Amplitude1": 1}), 27),
        ("PlayTone", "amplitude_minus_41", json!({"ConnectionId": "$A", "Amplitude1": -41}), 27),
        ("PlayTone", "beside_a_play", json!({"ConnectionId": "$P"}), 14),
        ("PlayTone", "fourth_operation", json!({"ConnectionId": "$T"}), 8),
        ("PlayTone", "reserved", json!({"ConnectionId": "$R"}), 16),
        ("PlayTone", "unknown", json!({"ConnectionId": "$U"}), 23),
        ("PlayTone", "unknown_conference", json!({"ConferenceId": "$U"}), 24),
        ("PlayTone", "bad_digit", json!({"ConnectionId": "$A", "TermCondDigit": "x"}), 36),
        // 5.4
        ("Record", "connection", json!({"ConnectionId": "$A"}), 1),
        ("Record", "conference", json!({"ConferenceId": "$F", "Filename": "f.wav"}), 1),
        ("Record", "hairpin", json!({"ConferenceId": "$H", "Filename": "h.wav"}), 1),
        ("Record", "beside_a_play", json!({"ConnectionId": "$P", "Filename": "p.wav"}), 1),
        ("Record", "never_expires", json!({"ConnectionId": "$A", "Filename": "n.wav", "Expires": 0}), 1),
        ("Record", "neither_id", json!({"Filename": "a.wav"}), 26),
        ("Record", "both_ids", json!({"ConnectionId": "$A", "ConferenceId": "$F"}), 26),
        ("Record", "format_mp3", json!({"ConnectionId": "$A", "AudioFileFormat": "mp3"}), 27),
        ("Record", "sample_rate_9", json!({"ConnectionId": "$A", "AudioFileSampleRate": 9}), 27),
        ("Record", "encoding_opus", json!({"ConnectionId": "$A", "AudioFileEncoding": "opus"}), 27),
        ("Record", "expires_not_numeric", json!({"ConnectionId": "$A", "Expires": "soon"}), 27),
        ("Record", "path_outside", json!({"ConnectionId": "$A", "Filename": "/etc/a.wav"}), 30),
        ("Record", "path_upwards", json!({"ConnectionId": "$A", "Filename": "../../a.wav"}), 30),
        ("Record", "not_decimal", json!({"ConnectionId": "x"}), 22),
        ("Record", "unknown", json!({"ConnectionId": "$U"}), 23),
        ("Record", "unknown_conference", json!({"ConferenceId": "$U"}), 24),
        ("Record", "reserved", json!({"ConnectionId": "$R"}), 16),
        ("Record", "fourth_operation", json!({"ConnectionId": "$T", "Filename": "t.wav"}), 8),
        ("Record", "bad_digit", json!({"ConnectionId": "$A", "TermCondDigit": "x"}), 36),
        // 5.5
        ("GatherDigits", "connection", json!({"ConnectionId": "$A"}), 1),
        ("GatherDigits", "beside_a_play", json!({"ConnectionId": "$P", "TermCondMaxDigits": 31}), 1),
        ("GatherDigits", "a_member", json!({"ConnectionId": "$M"}), 1),
        ("GatherDigits", "no_id", json!({}), 26),
        ("GatherDigits", "a_conference", json!({"ConferenceId": "$F"}), 26),
        ("GatherDigits", "not_decimal", json!({"ConnectionId": "x"}), 22),
        ("GatherDigits", "unknown", json!({"ConnectionId": "$U"}), 23),
        ("GatherDigits", "reserved", json!({"ConnectionId": "$R"}), 16),
        ("GatherDigits", "fourth_operation", json!({"ConnectionId": "$T"}), 8),
        ("GatherDigits", "32_digits", json!({"ConnectionId": "$A", "TermCondMaxDigits": 32}), 36),
        ("GatherDigits", "digit_x", json!({"ConnectionId": "$A", "TermCondDigit": "x"}), 36),
        ("GatherDigits", "list_of_16", json!({"ConnectionId": "$A", "TermCondDigitList": text_of(16)}), 36),
        ("GatherDigits", "list_with_commas", json!({"ConnectionId": "$A", "TermCondDigitList": "1,2"}), 36),
        ("GatherDigits", "pattern_of_15", json!({"ConnectionId": "$A", "TermCondDigitPattern": text_of(15)}), 1),
        ("GatherDigits", "pattern_of_16", json!({"ConnectionId": "$A", "TermCondDigitPattern": text_of(16)}), 36),
        ("GatherDigits", "max_time_not_numeric", json!({"ConnectionId": "$A", "TermCondMaxTime": "x"}), 36),
        // 5.6
        ("SendDigits", "connection", json!({"ConnectionId": "$A", "Digits": "0123456789*#ABCD"}), 0),
        ("SendDigits", "31", json!({"ConnectionId": "$A", "Digits": text_of(31)}), 0),
        ("SendDigits", "one", json!({"ConnectionId": "$A", "Digits": 5}), 0),
        ("SendDigits", "beside_operations", json!({"ConnectionId": "$T", "Digits": "1"}), 0),
        ("SendDigits", "32", json!({"ConnectionId": "$A", "Digits": text_of(32)}), 8),
        ("SendDigits", "no_digits", json!({"ConnectionId": "$A"}), 26),
        ("SendDigits", "no_id", json!({"Digits": "1"}), 26),
        ("SendDigits", "other_characters", json!({"ConnectionId": "$A", "Digits": "12x"}), 27),
        ("SendDigits", "not_decimal", json!({"ConnectionId": "x", "Digits": "1"}), 22),
        ("SendDigits", "unknown", json!({"ConnectionId": "$U", "Digits": "1"}), 23),
        ("SendDigits", "reserved", json!({"ConnectionId": "$R", "Digits": "1"}), 16),
        // 5.7
        ("DetectSilence", "connection", json!({"ConnectionId": "$A", "SilenceTime": 500}), 1),
        ("DetectSilence", "no_time", json!({"ConnectionId": "$A"}), 26),
        ("DetectSilence", "time_0", json!({"ConnectionId": "$A", "SilenceTime": 0}), 26),
        ("DetectSilence", "no_id", json!({"SilenceTime": 500}), 26),
        ("DetectSilence", "second", json!({"ConnectionId": "$D", "SilenceTime": 500}), 14),
        ("DetectSilence", "not_decimal", json!({"ConnectionId": "x", "SilenceTime": 500}), 22),
        ("DetectSilence", "unknown", json!({"ConnectionId": "$U", "SilenceTime": 500}), 23),
        ("DetectSilence", "reserved", json!({"ConnectionId": "$R", "SilenceTime": 500}), 16),
        ("DetectSilence", "fourth_operation", json!({"ConnectionId": "$T", "SilenceTime": 500}), 8),
        ("DetectNonSilence", "connection", json!({"ConnectionId": "$A", "NonSilenceTime": 500}), 1),
        ("DetectNonSilence", "no_time", json!({"ConnectionId": "$A", "SilenceTime": 500}), 26),
        ("DetectNonSilence", "time_0", json!({"ConnectionId": "$A", "NonSilenceTime": 0}), 26),
        ("DetectNonSilence", "beside_the_other", json!({"ConnectionId": "$D", "NonSilenceTime": 500}), 14),
        ("DetectNonSilence", "unknown", json!({"ConnectionId": "$U", "NonSilenceTime": 500}), 23),
        ("DetectNonSilence", "reserved", json!({"ConnectionId": "$R", "NonSilenceTime": 500}), 16),
        // 5.8, 5.9, 5.10
        ("VoiceRecognition", "no_grammar", json!({"ConnectionId": "$A"}), 26),
        ("VoiceRecognition", "no_id", json!({"Grammar1": "yes.grxml"}), 26),
        (
            "VoiceRecognition",
            "volume_and_speed",
            json!({"ConnectionId": "$A", "Grammar1": "yes.grxml", "Volume": 1, "Speed": 1}),
            26,
        ),
        ("VoiceRecognition", "no_recogniser", json!({"ConnectionId": "$A", "Grammar1": "yes.grxml"}), 8),
        ("VoiceRecognition", "no_recogniser_for_a_list", json!({"ConnectionId": "$A", "Grammars": ["yes.grxml"]}), 8),
        ("VoiceRecognition", "unknown", json!({"ConnectionId": "$U", "Grammar1": "yes.grxml"}), 23),
        ("VoiceRecognition", "not_decimal", json!({"ConnectionId": "x", "Grammar1": "yes.grxml"}), 22),
        ("ManageGrammar", "no_recogniser", json!({"ConnectionId": "$A", "Action": "Load", "Grammar": "yes.grxml"}), 8),
        ("ManageGrammar", "no_action", json!({"ConnectionId": "$A", "Grammar": "yes.grxml"}), 26),
        ("SaveDynamicGrammar", "no_grammar", json!({"IsScriptBound": true}), 26),
        ("SaveDynamicGrammar", "no_binding", json!({"DynGrammar": "<grammar/>"}), 26),
        // 5.12
        ("StopMediaOperation", "all", json!({"ConnectionId": "$P"}), 0),
        ("StopMediaOperation", "one", json!({"ConnectionId": "$P", "OperationId": "$Q"}), 0),
        ("StopMediaOperation", "without_block", json!({"ConnectionId": "$P", "Block": false}), 0),
        ("StopMediaOperation", "nothing_runs", json!({"ConnectionId": "$A"}), 0),
        ("StopMediaOperation", "no_id", json!({}), 26),
        ("StopMediaOperation", "operation_alone", json!({"OperationId": "$Q"}), 26),
        ("StopMediaOperation", "not_decimal", json!({"ConnectionId": "x"}), 22),
        ("StopMediaOperation", "operation_not_decimal", json!({"ConnectionId": "$P", "OperationId": "op"}), 22),
        ("StopMediaOperation", "unknown", json!({"ConnectionId": "$U"}), 23),
        ("StopMediaOperation", "ended", json!({"ConnectionId": "$X"}), 23),
        ("StopMediaOperation", "foreign", json!({"ConnectionId": "$W"}), 8),
        ("StopMediaOperation", "reserved", json!({"ConnectionId": "$R"}), 16),
        ("StopMediaOperation", "unknown_operation", json!({"ConnectionId": "$P", "OperationId": "$U"}), 25),
        ("StopMediaOperation", "ended_operation", json!({"ConnectionId": "$P", "OperationId": "$Z"}), 25),
        (
            "StopMediaOperation",
            "operation_of_another_connection",
            json!({"ConnectionId": "$A", "OperationId": "$Q"}),
            25,
        ),
        ("StopMediaOperation", "order_23_before_25", json!({"ConnectionId": "$U", "OperationId": "$U"}), 23),
        ("StopMediaOperation", "order_16_after_25", json!({"ConnectionId": "$R", "OperationId": "$U"}), 25),
        // 2.6
        ("MuteConnection", "not_of_this_namespace", json!({"ConnectionId": "$M"}), 21),
        ("UnmuteConnection", "not_of_this_namespace", json!({"ConnectionId": "$M"}), 21),
        ("SetConferenceAttribute", "not_of_this_namespace", json!({"ConnectionId": "$M"}), 21),
        ("CreateConnectionConference", "not_of_this_namespace", json!({"ConnectionId": "$M"}), 21),
        ("Dance", "unknown", json!({}), 21),
    ]);
    cases
}
