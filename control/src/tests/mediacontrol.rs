//! The MediaControl API on the native methods, by the control socket and by its listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::rig::{Client, Rig, free_tcp_port};

/// An action that has to end in `branch`; returns its results.
#[track_caller]
fn act(client: &mut Client, action: &str, params: Value, branch: &str) -> Value {
    let mut answer = client.ok(&format!("MediaControl.{action}"), params);
    assert_eq!(answer["branch"], branch, "{action}: {answer}");
    answer["results"].take()
}

fn post(address: SocketAddr, target: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).expect("a listener");
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
}

#[test]
fn a_call_by_the_control_socket() {
    let rig = Rig::start(2);
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["mediacontrol", "operation.ended"]}));
    let reserved = act(&mut client, "ReserveConnection", json!({"routingGuid": "script"}), "Success");
    let id = reserved["ConnectionId"].as_str().expect("an id").to_owned();
    assert!(reserved["MediaRxPort"].as_u64().is_some_and(|port| port > 0));
    let gather = json!({"ConnectionId": id, "routingGuid": "script", "State": "mine"});
    assert_eq!(act(&mut client, "GatherDigits", gather.clone(), "Failure")["ResultCode"], "16");
    let create = json!({"ConnectionId": id, "MediaTxIP": "127.0.0.1", "MediaTxPort": 4000});
    act(&mut client, "CreateConnection", create.clone(), "Success");
    assert_eq!(act(&mut client, "CreateConnection", create, "Failure")["ResultCode"], "15");
    let same = json!({"ConnectionId": id, "MediaTxIP": "127.0.0.1", "MediaTxPort": 4000});
    assert_eq!(act(&mut client, "ModifyConnection", same, "Success")["ReasonCode"], "17");
    let started = act(&mut client, "GatherDigits", gather, "Success");
    assert_eq!(started["ResultCode"], "1");
    let stop = json!({"ConnectionId": id, "OperationId": started["OperationId"]});
    let stopping = client.send("MediaControl.StopMediaOperation", stop);
    let ended = client.event("mediacontrol");
    assert_eq!(client.answer(stopping)["result"]["branch"], "Success");
    assert_eq!(ended["name"], "Metreos.MediaControl.GatherDigits_Complete");
    assert!(ended["sequence"].is_u64());
    assert_eq!(ended["params"]["TerminationCondition"], "userstop");
    assert_eq!((&ended["params"]["State"], &ended["params"]["OperationId"]), (&json!("mine"), &started["OperationId"]));
    act(&mut client, "DeleteConnection", json!({"ConnectionId": id}), "Success");
    assert_eq!(act(&mut client, "DeleteConnection", json!({"ConnectionId": id}), "Failure")["ResultCode"], "23");
    assert_eq!(client.ok("connection.list", json!({}))["connections"], json!([]));
    client.fails("MediaControl.Dance", json!({}), -32601);
    client.fails("MediaControl.Play", json!([1]), -32602);
}

#[test]
fn a_conference_by_the_listener() {
    let address = free_tcp_port();
    let rig = Rig::start_with(2, |config| config.mediacontrol.listen = Some(address));
    let act =
        |action: &str, params: Value| post(address, &format!("/MediaControl/{action}"), &json!({"params": params}));
    let connect = || act("CreateConnection", json!({"MediaTxIP": "127.0.0.1", "MediaTxPort": 4000}));
    let (one, other) = (connect()["results"]["ConnectionId"].clone(), connect()["results"]["ConnectionId"].clone());
    let made = act("CreateConference", json!({"ConnectionId": one, "Hairpin": false}));
    assert_eq!(made["branch"], "Success", "{made}");
    let conference = &made["results"]["ConferenceId"];
    let joined = act("JoinConference", json!({"ConnectionId": other, "ConferenceId": conference, "Pupil": "true"}));
    assert_eq!(joined["branch"], "Success", "{joined}");
    let again = act("JoinConference", json!({"ConnectionId": other, "ConferenceId": conference}));
    assert_eq!(again["results"]["ResultCode"], "15");
    let muted = act("SetConfereeAttribute", json!({"ConnectionId": other, "ConferenceId": conference, "Mute": true}));
    assert_eq!(muted["results"]["ResultCode"], "26", "a pupil can't be muted: {muted}");
    let set = json!({"ConnectionId": one, "ConferenceId": conference, "Coach": true});
    assert_eq!(act("SetConfereeAttribute", set)["branch"], "Success");
    let deleted = act("DeleteConnection", json!({"ConferenceId": conference}));
    assert_eq!(deleted["branch"], "Success", "{deleted}");
    assert_eq!(act("DeleteConnection", json!({"ConnectionId": one}))["results"]["ResultCode"], "23");
    assert_eq!(rig.client().ok("connection.list", json!({}))["connections"], json!([]));
}

#[test]
fn files_are_found_made_and_missed() {
    // What is no file would be spoken otherwise.
    let rig = Rig::start_with(1, |config| config.tts.command = Some(Vec::new()));
    rig.prompt("welcome.wav");
    let mut client = rig.client();
    client.ok("events.subscribe", json!({"kinds": ["mediacontrol"]}));
    let made = act(&mut client, "CreateConnection", json!({"MediaTxIP": "127.0.0.1", "MediaTxPort": 4000}), "Success");
    let id = &made["ConnectionId"];
    let play = json!({"ConnectionId": id, "Prompt1": "welcome.wav", "Volume": 3, "TermCondDigit": "#"});
    let played = act(&mut client, "Play", play, "Success");
    let missing = json!({"ConnectionId": id, "Prompt1": "missing.wav"});
    assert_eq!(act(&mut client, "Play", missing, "Failure")["ResultCode"], "30");
    let recorded = act(&mut client, "Record", json!({"ConnectionId": id, "Expires": 2}), "Success");
    let name = recorded["Filename"].as_str().expect("a name");
    assert!(name.ends_with(".vox") && !name.starts_with('/'), "{name}");
    act(&mut client, "AdjustPlay", json!({"ConnectionId": id, "Volume": 20, "AdjustmentType": "relative"}), "Success");
    act(&mut client, "StopMediaOperation", json!({"ConnectionId": id}), "Success");
    let mut ends = Vec::new();
    for _ in 0..2 {
        let event = client.event("mediacontrol");
        assert_eq!(event["params"]["TerminationCondition"], "userstop", "{event}");
        ends.push((event["params"]["OperationId"].clone(), event["params"]["Filename"].clone()));
    }
    assert!(ends.contains(&(played["OperationId"].clone(), Value::Null)), "{ends:?}");
    assert!(ends.contains(&(recorded["OperationId"].clone(), json!(name))), "{ends:?}");
}
