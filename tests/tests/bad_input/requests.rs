//! Lines that are no requests, and requests that ask for what there is not.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ringbridge_tests::server::{RawClient, Server};
use serde_json::{Value, json};

use crate::setup;

/// Ids that are there, and one of each kind that is not there any more.
struct Ids {
    connection: String,
    conference: String,
    gone_connection: String,
    gone_conference: String,
}

/// One server for all lines that can't change it: each row still opens a connection of its own.
///
/// The last user ends it.
struct Shared {
    server: Option<(Server, Ids)>,
    users: usize,
}

static SHARED: OnceLock<Mutex<Shared>> = OnceLock::new();

struct Use;

fn shared() -> MutexGuard<'static, Shared> {
    SHARED.get_or_init(|| Mutex::new(Shared { server: None, users: 0 })).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Use {
    fn begin() -> Self {
        let mut shared = shared();
        shared.users += 1;
        if shared.server.is_none() {
            let server = setup().pairs(2).start();
            let connection = server.create(json!({}));
            let gone = server.create(json!({}));
            server.ok("connection.delete", json!({"connection_id": gone.id}));
            let conference = |server: &Server| {
                let created = server.ok("conference.create", json!({}));
                created["conference_id"].as_str().unwrap().to_owned()
            };
            let (kept, gone_conference) = (conference(&server), conference(&server));
            server.ok("conference.delete", json!({"conference_id": gone_conference}));
            let ids = Ids { connection: connection.id, conference: kept, gone_connection: gone.id, gone_conference };
            shared.server = Some((server, ids));
        }
        Self
    }

    fn with<T>(&self, look: impl FnOnce(&Server, &Ids) -> T) -> T {
        let shared = shared();
        let (server, ids) = shared.server.as_ref().unwrap();
        look(server, ids)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut shared = shared();
        shared.users -= 1;
        if shared.users == 0
            && let Some((server, _)) = shared.server.take()
            && !std::thread::panicking()
        {
            server.stop();
        }
    }
}

/// The connection goes on: its next request is answered.
fn still_usable(client: &mut RawClient) {
    client.request(4711, "server.info", json!({}));
    let answer = client.line();
    assert_eq!((&answer["id"], &answer["result"]["name"]), (&json!(4711), &json!("ringbridge")), "{answer}");
}

/// Sends a line; the answer has to be this error, to this id.
fn refuses_line(line: &[u8], id: &Value, code: i64, kind: &str) {
    let user = Use::begin();
    let mut client = user.with(|server, _| server.connect_raw());
    client.send(line);
    client.send(b"\n");
    let answer = client.line();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (id, &json!(code)), "{answer}");
    assert_eq!(answer["error"]["data"]["kind"], kind, "{answer}");
    assert!(answer.get("result").is_none() && answer["error"]["message"].is_string(), "{answer}");
    still_usable(&mut client);
}

macro_rules! lines {
    ($($name:ident: $line:expr => $id:tt, $code:literal, $kind:literal;)*) => {
        mod lines {
            use super::*;
            $(#[test]
            fn $name() {
                let line: Vec<u8> = Vec::from($line);
                refuses_line(&line, &json!($id), $code, $kind);
            })*
        }
    };
}

lines! {
    not_json: "hello" => null, -32700, "parse_error";
    cut_off: "{\"jsonrpc\":\"2.0\",\"id\":1," => null, -32700, "parse_error";
    not_utf8: [b'"', 0xFF, 0xFE, b'"'] => null, -32700, "parse_error";
    a_nul: [0u8] => null, -32700, "parse_error";
    two_objects: "{} {}" => null, -32700, "parse_error";
    nested_deeply: "[".repeat(10_000) => null, -32700, "parse_error";
    too_long: vec![b' '; 70_000] => null, -32700, "parse_error";
    too_long_by_far: vec![b'x'; 1_000_000] => null, -32700, "parse_error";
    a_number: "1" => null, -32600, "invalid_request";
    a_text: "\"server.info\"" => null, -32600, "invalid_request";
    nothing: "null" => null, -32600, "invalid_request";
    empty_batch: "[]" => null, -32600, "invalid_request";
    empty_object: "{}" => null, -32600, "invalid_request";
    no_version: "{\"id\":7,\"method\":\"server.info\"}" => 7, -32600, "invalid_request";
    old_version: "{\"jsonrpc\":\"1.0\",\"id\":7,\"method\":\"server.info\"}" => 7, -32600, "invalid_request";
    no_method: "{\"jsonrpc\":\"2.0\",\"id\":7}" => 7, -32600, "invalid_request";
    method_a_number: "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":7}" => 7, -32600, "invalid_request";
    id_an_array: "{\"jsonrpc\":\"2.0\",\"id\":[7],\"method\":\"server.info\"}" => null, -32600, "invalid_request";
    id_an_object: "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"server.info\"}" => null, -32600, "invalid_request";
    id_true: "{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"server.info\"}" => null, -32600, "invalid_request";
    unknown_method: "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"server.infos\"}" => "x", -32601, "method_not_found";
    no_name: "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}" => 1, -32601, "method_not_found";
    fault_injection_off: "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"debug.shard_panic\",\"params\":{\"shard\":0}}"
        => 1, -32601, "method_not_found";
    params_an_array: "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server.info\",\"params\":[1]}"
        => 1, -32602, "invalid_params";
    params_a_text: "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server.info\",\"params\":\"x\"}"
        => 1, -32602, "invalid_params";
}

#[test]
fn a_batch_is_answered_part_by_part() {
    let user = Use::begin();
    let mut client = user.with(|server, _| server.connect_raw());
    let good = json!({"jsonrpc": "2.0", "id": 1, "method": "server.info"});
    let notification = json!({"jsonrpc": "2.0", "method": "server.info"});
    client.send(format!("{}\n", json!([good, 5, notification, {"jsonrpc": "2.0", "id": 2, "method": "x"}])).as_bytes());
    let answer = client.line();
    let answers = answer.as_array().unwrap();
    assert_eq!(answers.len(), 3, "{answer}");
    assert_eq!(answers[0]["result"]["name"], "ringbridge");
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&Value::Null, &json!(-32600)));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&json!(2), &json!(-32601)));
    still_usable(&mut client);
}

/// Calls a method; `$connection` and the like stand for ids. The error has to have this code, and `data` these members.
fn refuses_call(method: &str, params: &str, code: i64, data: &[(&str, &str)]) {
    let user = Use::begin();
    let (mut client, params) = user.with(|server, ids| {
        let params = params
            .replace("$gone_connection", &ids.gone_connection)
            .replace("$gone_conference", &ids.gone_conference)
            .replace("$connection", &ids.connection)
            .replace("$conference", &ids.conference);
        (server.connect_raw(), params)
    });
    client.request(1, method, serde_json::from_str(&params).unwrap());
    let answer = client.line();
    assert_eq!(answer["error"]["code"], code, "{answer}");
    for (key, value) in data {
        assert_eq!(answer["error"]["data"][key], *value, "{answer}");
    }
    still_usable(&mut client);
    // It has changed nothing.
    let user = user.with(|server, ids| (server.get(&ids.connection), server.pairs_free()));
    assert_eq!((&user.0["state"], user.1), (&json!("idle"), 1));
}

macro_rules! calls {
    ($($name:ident: $method:literal $params:literal => $code:literal $(, $key:literal = $value:literal)*;)*) => {
        mod calls {
            use super::*;
            $(#[test]
            fn $name() {
                refuses_call($method, $params, $code, &[$(($key, $value)),*]);
            })*
        }
    };
}

calls! {
    get_without_id: "connection.get" "{}" => -32602, "param" = "connection_id", "kind" = "invalid_params";
    get_a_number: "connection.get" r#"{"connection_id": 5}"# => -32602, "param" = "connection_id";
    get_with_more: "connection.get" r#"{"connection_id": "x", "more": 1}"# => -32602, "param" = "more";
    info_with_more: "server.info" r#"{"more": 1}"# => -32602, "param" = "more";
    get_nonsense: "connection.get" r#"{"connection_id": "nonsense"}"# => 1001, "kind" = "unknown_connection", "connection_id" = "nonsense";
    get_empty: "connection.get" r#"{"connection_id": ""}"# => 1001, "kind" = "unknown_connection";
    get_far_shard: "connection.get" r#"{"connection_id": "conn-200-0-0"}"# => 1001, "kind" = "unknown_connection";
    get_overflow: "connection.get" r#"{"connection_id": "conn-0-99999999999999-0"}"# => 1001;
    get_stale: "connection.get" r#"{"connection_id": "$gone_connection"}"# => 1001, "kind" = "unknown_connection";
    get_another_kind: "connection.get" r#"{"connection_id": "$conference"}"# => 1001, "kind" = "unknown_connection";
    delete_stale: "connection.delete" r#"{"connection_id": "$gone_connection"}"# => 1001;
    delete_nothing: "connection.delete" "{}" => -32602, "param" = "connection_id";
    delete_not_in_it: "connection.delete" r#"{"connection_id": "$connection", "conference_id": "$conference"}"# => 1004, "kind" = "not_a_participant";
    modify_stale: "connection.modify" r#"{"connection_id": "$gone_connection"}"# => 1001;
    modify_codec: "connection.modify" r#"{"connection_id": "$connection", "codec": "iLBC"}"# => 1013, "kind" = "unsupported_codec";
    modify_shard: "connection.modify" r#"{"connection_id": "$connection", "shard": 0}"# => -32602, "param" = "shard";
    create_codec: "connection.create" r#"{"codec": "G728"}"# => 1013, "kind" = "unsupported_codec", "param" = "codec";
    create_ptime_0: "connection.create" r#"{"ptime_ms": 0}"# => -32602, "param" = "ptime_ms";
    create_ptime_201: "connection.create" r#"{"ptime_ms": 201}"# => -32602, "param" = "ptime_ms";
    create_ptime_negative: "connection.create" r#"{"ptime_ms": -20}"# => -32602, "param" = "ptime_ms";
    create_ptime_text: "connection.create" r#"{"ptime_ms": "20"}"# => -32602, "param" = "ptime_ms";
    create_ptime_fraction: "connection.create" r#"{"ptime_ms": 20.5}"# => -32602, "param" = "ptime_ms";
    create_dscp: "connection.create" r#"{"dscp": 64}"# => -32602, "param" = "dscp";
    create_telephone_event: "connection.create" r#"{"telephone_event_pt": 0}"# => -32602, "param" = "telephone_event_pt";
    create_payload_type: "connection.create" r#"{"payload_types": {"72": "x/8000"}}"# => -32602, "param" = "payload_types";
    create_payload_type_with_mux: "connection.create" r#"{"payload_types": {"95": "PCMU/8000"}, "rtcp_mux": true}"# => -32602, "param" = "payload_types";
    create_telephone_event_with_mux: "connection.create" r#"{"telephone_event_pt": 64, "rtcp_mux": true}"# => -32602, "param" = "telephone_event_pt";
    create_payload_types_array: "connection.create" r#"{"payload_types": [1]}"# => -32602, "param" = "payload_types";
    create_direction: "connection.create" r#"{"direction": "both"}"# => -32602, "param" = "direction";
    create_remote: "connection.create" r#"{"remote": "somewhere"}"# => -32602, "param" = "remote";
    create_remote_without_port: "connection.create" r#"{"remote": "127.0.0.1"}"# => -32602, "param" = "remote";
    create_remote_port_0: "connection.create" r#"{"remote": "127.0.0.1:0"}"# => -32602, "param" = "remote";
    create_remote_multicast: "connection.create" r#"{"remote": "224.0.0.1:5000"}"# => -32602, "param" = "remote";
    create_remote_anywhere: "connection.create" r#"{"remote": "0.0.0.0:5000"}"# => -32602, "param" = "remote";
    create_remote_v6: "connection.create" r#"{"remote": "[::1]:5000"}"# => -32602, "param" = "remote";
    create_shard: "connection.create" r#"{"shard": 1}"# => -32602, "param" = "shard";
    create_interface: "connection.create" r#"{"interface": "moon"}"# => -32602, "param" = "interface";
    create_conference: "connection.create" r#"{"conference_id": "$gone_conference"}"# => 1002, "kind" = "unknown_conference";
    create_timeout: "connection.create" r#"{"rtp_timeout_ms": 86400001}"# => -32602, "param" = "rtp_timeout_ms";
    create_unknown: "connection.create" r#"{"colour": "red"}"# => -32602, "param" = "colour";
    relay_without_b: "relay.start" r#"{"a": "$connection"}"# => -32602, "param" = "b";
    relay_to_itself: "relay.start" r#"{"a": "$connection", "b": "$connection"}"# => -32602, "param" = "b";
    relay_to_stale: "relay.start" r#"{"a": "$connection", "b": "$gone_connection"}"# => 1001, "kind" = "unknown_connection";
    relay_transcode: "relay.start" r#"{"a": "$connection", "b": "$gone_connection", "transcode": true}"# => 1001, "kind" = "unknown_connection";
    create_delay: "connection.create" r#"{"jitter_buffer": {"min_ms": 0, "max_ms": 501}}"# => -32602, "param" = "jitter_buffer.max_ms";
    create_delay_backwards: "connection.create" r#"{"jitter_buffer": {"min_ms": 60, "max_ms": 40}}"# => -32602, "param" = "jitter_buffer.min_ms";
    create_bitrate: "connection.create" r#"{"encoder": {"bitrate": 5999}}"# => -32602, "param" = "encoder.bitrate";
    create_extension: "connection.create" r#"{"audio_level_extension": 15}"# => -32602, "param" = "audio_level_extension";
    modify_extension: "connection.modify" r#"{"connection_id": "$connection", "mixer_level_extension": 0}"# => -32602, "param" = "mixer_level_extension";
    conference_loudest: "conference.create" r#"{"loudest": 0}"# => -32602, "param" = "loudest";
    conference_talk: "conference.create" r#"{"talk_stop_ms": 49}"# => -32602, "param" = "talk_stop_ms";
    conference_parts: "conference.create" r#"{"parts": 33}"# => -32602, "param" = "parts";
    relay_stop_none: "relay.stop" r#"{"a": "$connection"}"# => 1004, "kind" = "not_a_participant";
    conference_rate: "conference.create" r#"{"sample_rate_hz": 44100}"# => 1016, "param" = "sample_rate_hz";
    conference_members_0: "conference.create" r#"{"max_participants": 0}"# => -32602, "param" = "max_participants";
    conference_members_many: "conference.create" r#"{"max_participants": 5000}"# => -32602, "param" = "max_participants";
    conference_get_stale: "conference.get" r#"{"conference_id": "$gone_conference"}"# => 1002, "kind" = "unknown_conference";
    conference_get_another_kind: "conference.get" r#"{"conference_id": "$connection"}"# => 1002;
    conference_delete_stale: "conference.delete" r#"{"conference_id": "$gone_conference"}"# => 1002;
    join_stale: "conference.join" r#"{"conference_id": "$gone_conference", "connection_id": "$connection"}"# => 1002;
    join_by_stale: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$gone_connection"}"# => 1001;
    join_gain_high: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$connection", "gain_db": 25}"# => -32602, "param" = "gain_db";
    join_gain_low: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$connection", "gain_db": -61}"# => -32602, "param" = "gain_db";
    join_muted_text: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$connection", "muted": "yes"}"# => -32602, "param" = "muted";
    set_not_in_it: "conference.set" r#"{"conference_id": "$conference", "connection_id": "$connection"}"# => 1004, "kind" = "not_a_participant";
    leave_not_in_it: "conference.leave" r#"{"conference_id": "$conference", "connection_id": "$connection"}"# => 1004;
    start_without_kind: "operation.start" r#"{"connection_id": "$connection"}"# => -32602, "param" = "kind";
    start_unknown_kind: "operation.start" r#"{"kind": "dance"}"# => -32602, "param" = "kind";
    start_kind_a_number: "operation.start" r#"{"kind": 1}"# => -32602, "param" = "kind";
    start_tone_nowhere: "operation.start" r#"{"kind": "tone"}"# => -32602, "param" = "connection_id";
    tone_low: "operation.start" r#"{"kind": "tone", "connection_id": "$connection", "frequency_hz": 100}"# => -32602, "param" = "frequency_hz";
    tone_loud: "operation.start" r#"{"kind": "tone", "connection_id": "$connection", "level_db": 1}"# => -32602, "param" = "level_db";
    tone_without_end: "operation.start" r#"{"kind": "tone", "connection_id": "$connection", "duration_ms": 0}"# => -32602, "param" = "duration_ms";
    tone_level_of_none: "operation.start" r#"{"kind": "tone", "connection_id": "$connection", "level2_db": -3}"# => -32602, "param" = "level2_db";
    tone_on_stale: "operation.start" r#"{"kind": "tone", "connection_id": "$gone_connection"}"# => 1001;
    gather_32: "operation.start" r#"{"kind": "gather_digits", "connection_id": "$connection", "digits": 32}"# => -32602, "param" = "digits";
    gather_pattern: "operation.start" r#"{"kind": "gather_digits", "connection_id": "$connection", "digit_pattern": "1234567890123456"}"# => -32602, "param" = "digit_pattern";
    gather_flush_conference: "operation.start" r#"{"kind": "gather_digits", "conference_id": "$conference", "flush": true}"# => -32602, "param" = "flush";
    gather_silence: "operation.start" r#"{"kind": "gather_digits", "connection_id": "$connection", "silence_ms": 9}"# => -32602, "param" = "silence_ms";
    detect_without: "operation.start" r#"{"kind": "detect_silence", "connection_id": "$connection"}"# => -32602, "param" = "silence_ms";
    detect_0: "operation.start" r#"{"kind": "detect_nonsilence", "connection_id": "$connection", "nonsilence_ms": 0}"# => -32602, "param" = "nonsilence_ms";
    play_volume: "operation.start" r#"{"kind": "play", "connection_id": "$connection", "files": ["a.wav"], "volume": 11}"# => -32602, "param" = "volume";
    play_volume_and_speed: "operation.start" r#"{"kind": "play", "connection_id": "$connection", "files": ["a.wav"], "volume": 1, "speed": 1}"# => -32602, "param" = "speed";
    play_files_and_prompts: "operation.start" r#"{"kind": "play", "connection_id": "$connection", "files": ["a.wav"], "prompts": ["b"]}"# => -32602, "param" = "prompts";
    play_digit: "operation.start" r#"{"kind": "play", "connection_id": "$connection", "files": ["a.wav"], "digit": "x"}"# => -32602, "param" = "digit";
    adjust_nothing: "operation.adjust" r#"{"connection_id": "$connection"}"# => -32602, "param" = "volume";
    adjust_both: "operation.adjust" r#"{"connection_id": "$connection", "volume": 1, "speed": 1}"# => -32602, "param" = "speed";
    adjust_toggle_5: "operation.adjust" r#"{"connection_id": "$connection", "adjustment": "toggle", "toggle": 5}"# => -32602, "param" = "toggle";
    adjust_stale: "operation.adjust" r#"{"connection_id": "$gone_connection", "volume": 1}"# => 1001;
    digits_none: "connection.send_digits" r#"{"connection_id": "$connection", "digits": ""}"# => -32602, "param" = "digits";
    digits_letters: "connection.send_digits" r#"{"connection_id": "$connection", "digits": "xyz"}"# => -32602, "param" = "digits";
    digits_32: "connection.send_digits" r#"{"connection_id": "$connection", "digits": "12345678901234567890123456789012"}"# => 1008, "kind" = "limit_reached";
    digits_to_stale: "connection.send_digits" r#"{"connection_id": "$gone_connection", "digits": "1"}"# => 1001;
    digits_to_no_utility: "connection.send_digits" r#"{"connection_id": "util-0-9-9", "digits": "1"}"# => 1001;
    create_reserve_0: "connection.create" r#"{"reserve_ms": 0}"# => -32602, "param" = "reserve_ms";
    create_reserve_long: "connection.create" r#"{"reserve_ms": 3600001}"# => -32602, "param" = "reserve_ms";
    create_reserve_with_remote: "connection.create" r#"{"reserve_ms": 1000, "remote": "127.0.0.1:5000"}"# => -32602, "param" = "reserve_ms";
    create_digits: "connection.create" r#"{"digits": "tones"}"# => -32602, "param" = "digits";
    join_role: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$connection", "role": "chair"}"# => -32602, "param" = "role";
    join_muted_coach: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$connection", "role": "coach", "muted": true}"# => -32602, "param" = "muted";
    join_coach_tariff: "conference.join" r#"{"conference_id": "$conference", "connection_id": "$connection", "role": "coach", "tariff_tone": true}"# => -32602, "param" = "tariff_tone";
    set_monitor: "conference.set" r#"{"conference_id": "$conference", "connection_id": "$connection", "role": "monitor"}"# => -32602, "param" = "role";
    conference_hairpin_text: "conference.create" r#"{"hairpin": "yes"}"# => -32602, "param" = "hairpin";
    play_nowhere: "operation.start" r#"{"kind": "play", "files": ["a.wav"]}"# => -32602, "param" = "connection_id";
    play_on_both: "operation.start" r#"{"kind": "play", "files": ["a.wav"], "connection_id": "$connection", "conference_id": "$conference"}"# => -32602, "param" = "conference_id";
    play_no_files: "operation.start" r#"{"kind": "play", "connection_id": "$connection", "files": []}"# => -32602, "param" = "files";
    play_without_files: "operation.start" r#"{"kind": "play", "connection_id": "$connection"}"# => -32602, "param" = "files";
    play_file_a_number: "operation.start" r#"{"kind": "play", "connection_id": "$connection", "files": [1]}"# => -32602, "param" = "files[0]";
    play_on_stale: "operation.start" r#"{"kind": "play", "connection_id": "$gone_connection", "files": ["a.wav"]}"# => 1001;
    record_bits: "operation.start" r#"{"kind": "record", "connection_id": "$connection", "encoding": "ulaw", "bits": 16}"# => -32602, "param" = "bits";
    record_container: "operation.start" r#"{"kind": "record", "connection_id": "$connection", "container": "ogg"}"# => -32602, "param" = "container";
    record_time_0: "operation.start" r#"{"kind": "record", "connection_id": "$connection", "path": "a.wav", "max_time_ms": 0}"# => -32602, "param" = "max_time_ms";
    record_channels: "operation.start" r#"{"kind": "record", "connection_id": "$connection", "path": "a.wav", "channels": {}}"# => -32602, "param" = "channels.caller";
    stop_nothing: "operation.stop" "{}" => -32602, "param" = "connection_id";
    stop_unknown: "operation.stop" r#"{"connection_id": "$connection", "operation_id": "op-0-0"}"# => 1003, "kind" = "unknown_operation";
    stop_block_text: "operation.stop" r#"{"connection_id": "$connection", "block": "no"}"# => -32602, "param" = "block";
    mute_recording: "recording.mute" r#"{"operation_id": "x", "channels": "both"}"# => 1003, "operation_id" = "x";
    mute_channels: "recording.mute" r#"{"operation_id": "x", "channels": "all"}"# => -32602, "param" = "channels";
    subscribe_unknown: "events.subscribe" r#"{"kinds": ["weather"]}"# => -32602, "param" = "kinds";
    subscribe_a_text: "events.subscribe" r#"{"kinds": "digit"}"# => -32602, "param" = "kinds";
    drain_long: "server.drain" r#"{"deadline_ms": 3600001}"# => -32602, "param" = "deadline_ms";
}
