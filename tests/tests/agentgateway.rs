//! The AgentGateway API over HTTP: the real binary, real shards, real RTP on loopback.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;

use ringbridge_tests::audio::{Codec, share, tone, write_wav};
use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::http;
use ringbridge_tests::server::{Server, Setup};
use ringbridge_tests::until;
use serde_json::{Value, json};

struct Desk {
    server: Server,
    api: SocketAddr,
    guid: String,
}

impl Desk {
    fn ask(&self, operation: &str, body: &Value) -> Value {
        let path = format!("/agentgateway/resource/agentconf/101/{operation}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::request(self.api, "POST", &path, &[("guid", &self.guid)], body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    #[track_caller]
    fn ok(&self, operation: &str, body: &Value) -> Value {
        let answer = self.ask(operation, body);
        assert_eq!(answer["retcode"], "0", "{operation}: {answer}\n{}", self.server.log());
        answer["result"].clone()
    }

    fn event(&self, wanted: &str) -> Value {
        until(wanted, || {
            let answer =
                http::request(self.api, "GET", "/agentgateway/resource/agentevent/101", &[("guid", &self.guid)], b"");
            let event = answer.json()["event"].clone();
            (event["eventType"] == wanted).then(|| event["content"].clone())
        })
    }

    /// The telephone sends once it is called.
    fn answers(&self, endpoint: &Endpoint, phone: &str, ssrc: u32) -> (String, Speaker) {
        endpoint.until("it rings", |heard| (!heard.is_empty()).then_some(()));
        let listed = self.server.ok("connection.list", json!({}));
        let label = format!("AgentGateway {phone}");
        let connections = listed["connections"].as_array().expect("a list");
        let found = connections.iter().find(|connection| connection["label"] == *label).expect("called");
        let local = found["local"].as_str().and_then(|local| local.parse().ok()).expect("an address");
        let id = found["connection_id"].as_str().expect("an id").to_owned();
        (id, endpoint.speak(local, Speech::new(ssrc), |_| 0))
    }
}

#[test]
fn an_announcement_is_heard_by_all_and_by_none_after_its_stop() {
    let endpoints = [Endpoint::open(), Endpoint::open(), Endpoint::open()];
    let phones = ["8801", "8802", "8803"];
    let api = http::free_port();
    let mut setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test")).arg("--agentgateway").arg(api.to_string());
    setup = setup.config("[[agents]]\nwork_number = 101\nno_password = true\n[agentgateway.directory]");
    for (phone, endpoint) in phones.iter().zip(&endpoints) {
        setup = setup.config(&format!("{phone} = \"{}\"", endpoint.address()));
    }
    let server = setup.start();
    std::fs::create_dir_all(server.prompt("conf/1")).expect("a folder");
    let samples: Vec<i16> = (0..8 * 5_000).map(|index| tone(1000, 8000, index)).collect();
    write_wav(&server.prompt("conf/1/tone.wav"), &samples);
    let body = json!({"password": "", "phonenum": "8801"}).to_string();
    let answer = http::request(api, "PUT", "/agentgateway/resource/onlineagent/101", &[], body.as_bytes());
    let guid = answer.head.lines().find_map(|line| line.strip_prefix("set-guid: jsessionid=")).expect("signed in");
    let guid = guid.replace("agentgateway1", "AgentGateway1");
    let desk = Desk { server, api, guid };

    let id = {
        desk.ok("requestagentconf", &json!({"memberNum": 3}));
        let (_, speaker) = desk.answers(&endpoints[0], phones[0], 1);
        let id = desk.event("AgentConf_RequestSuccess")["confId"].clone();
        (id, speaker)
    };
    let (id, first) = id;
    let added = phones[1..].iter().map(|phone| json!({"addressType": "6", "address": phone}));
    desk.ok("batchaddparticipant", &json!({"addresses": added.collect::<Vec<_>>()}));
    let others: Vec<Speaker> = endpoints[1..]
        .iter()
        .zip(&phones[1..])
        .zip(2..)
        .map(|((endpoint, phone), ssrc)| desk.answers(endpoint, phone, ssrc).1)
        .collect();
    let query = json!({"confIds": [id]});
    until("all are in", || {
        let infos = desk.ok("queryconfinfos", &query);
        (infos["confs"][0]["addresses"].as_array().map(Vec::len) == Some(3)).then_some(())
    });
    desk.ok("playvoicetoconf", &json!({"voicePath": "D:/conf/1/tone.wav"}));
    for endpoint in &endpoints {
        endpoint.until("the tone", |_| {
            let samples = endpoint.stream(Codec::Pcmu)?.samples;
            let last = samples.len().checked_sub(1600)?;
            (share(&samples[last..], 1000) > 0.5).then_some(())
        });
    }
    assert_eq!(desk.ok("stopvoicetoconf", &Value::Null), json!({}));
    assert_eq!(desk.ask("stopvoicetoconf", &Value::Null)["result"]["errorReason"], 90_001);
    // From which timestamp on that is so, for each stream.
    let log = desk.server.log();
    let line = log.lines().find(|line| line.contains("an announcement was stopped")).expect("logged");
    let from = line.find("effect=").expect("an effect") + "effect=".len();
    let effect: Value = serde_json::Deserializer::from_str(&line[from..]).into_iter().next().unwrap().unwrap();
    let streams = effect["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), 3, "{effect}");
    for endpoint in &endpoints {
        endpoint.until("silence from the effect on", |_| {
            let stream = streams.iter().find_map(|stamp| {
                let ssrc = u32::try_from(stamp["ssrc"].as_u64()?).ok()?;
                let timestamp = u32::try_from(stamp["rtp_timestamp"].as_u64()?).ok()?;
                let stream = endpoint.stream_of(ssrc, Codec::Pcmu)?;
                let index = stream.index(timestamp)?;
                Some(stream.samples[index..].to_vec())
            })?;
            // A fifth of a second of it.
            let after = stream.get(..1600)?;
            assert!(after.iter().all(|sample| sample.unsigned_abs() < 64), "heard after the stop");
            Some(())
        });
    }
    desk.ok("releaseagentconf", &Value::Null);
    drop(first.stop());
    others.into_iter().for_each(|speaker| drop(speaker.stop()));
    desk.server.stop();
}
