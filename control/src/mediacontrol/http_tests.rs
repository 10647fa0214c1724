//! The listener on loopback, on pretended native methods.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::http;
use super::tests::Rig;
use crate::audit::tests::captured_at;
use crate::config::MediaControlConfig;

const PATIENCE: Duration = Duration::from_secs(20);

fn serve(change: impl FnOnce(&mut MediaControlConfig), work: impl AsyncFnOnce(Rig, String)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let rig = Rig::new(change);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let _serving = http::serve(Rc::clone(&rig.mc), listener);
        timeout(PATIENCE, work(rig, address)).await.expect("in time");
    });
}

/// Sends one request; returns the status and what the body says.
async fn ask(address: &str, method: &str, target: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.expect("sent");
    // A body that is too large may not be read to its end.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, serde_json::from_str(body).unwrap_or_default())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

#[test]
fn actions_are_carried_out() {
    serve(
        |_| {},
        async |rig, address| {
            let create = json!({"routingGuid": "script", "params": {"MediaTxIP": "192.0.2.1", "MediaTxPort": "4000"}});
            let (status, answer) = ask(&address, "POST", "/MediaControl/CreateConnection", &create.to_string()).await;
            assert_eq!(
                (status, &answer["branch"], &answer["results"]["ResultCode"]),
                (200, &json!("Success"), &json!("0"))
            );
            let id = &answer["results"]["ConnectionId"];
            let play = json!({"action": "Metreos.MediaControl.Play", "routingGuid": "script",
            "params": {"ConnectionId": id, "Prompt1": "a.wav"}});
            let (_, answer) = ask(&address, "POST", "/MediaControl", &play.to_string()).await;
            assert_eq!(answer["results"]["ResultCode"], "1", "{answer}");
            for (action, body, code) in [
                ("Play", "nonsense", "35"),
                ("Play", "[]", "35"),
                ("Play", r#"{"action": "Record"}"#, "35"),
                ("Play", "{}", "26"),
                ("Dance", "{}", "21"),
            ] {
                let (status, answer) = ask(&address, "POST", &format!("/MediaControl/{action}"), body).await;
                assert_eq!((status, &answer["branch"]), (200, &json!("Failure")), "{answer}");
                assert_eq!(answer["results"]["ResultCode"], code, "{action} {body}");
            }
            drop(rig);
        },
    );
}

#[test]
fn each_action_leaves_its_line_in_the_audit_log() {
    let logged = captured_at("audit=info", || {
        serve(
            |_| {},
            async |rig, address| {
                let create = r#"{"routingGuid": "script", "params": {"MediaTxIP": "192.0.2.1", "MediaTxPort": 4000}}"#;
                let (_, created) = ask(&address, "POST", "/MediaControl/CreateConnection", create).await;
                let id = created["results"]["ConnectionId"].as_str().expect("an id");
                let play = json!({"params": {"connectionid": id, "Prompt1": "a.wav"}}).to_string();
                ask(&address, "POST", "/MediaControl/Play", &play).await;
                ask(&address, "POST", "/MediaControl/DeleteConnection", r#"{"params": {"ConnectionId": 7}}"#).await;
                ask(&address, "POST", "/MediaControl/Play", "nonsense").await;
                ask(&address, "GET", "/MediaControl/events?routingGuid=script", "").await;
                ask(&address, "POST", "/MediaControl/subscriptions?url=http://127.0.0.1/", "").await;
                ask(&address, "POST", "/MediaControl/scripts/a%20b/end", "").await;
                // Somebody who does not wait for the answer.
                let slow = rig.fake.hold("connection.create");
                let served = Rc::strong_count(&rig.mc);
                let mut gone = TcpStream::connect(&address).await.expect("a listener");
                let head = format!(
                    "POST /MediaControl/CreateConnection HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                    create.len()
                );
                gone.write_all(format!("{head}{create}").as_bytes()).await.expect("sent");
                until("it has arrived", || rig.fake.called("connection.create") == 2).await;
                drop(gone);
                // Who is left is the command alone: what it calls, and its line.
                until("nobody listens", || Rc::strong_count(&rig.mc) <= served + 2).await;
                slow.open();
                until("it is carried out", || rig.connections() == 2).await;
                // Whatever follows from it.
                super::tests::settle().await;
            },
        )
    });
    let lines: Vec<String> = logged
        .lines()
        .map(|line| {
            let what = line.split("api=\"mediacontrol\" ").nth(1).expect("of this API");
            assert!(line.starts_with(" INFO audit: who=unknown from=127.0.0.1:"), "{line}");
            what.split(" took_ms=").next().unwrap_or_default().to_owned()
        })
        .collect();
    let created = lines[0].strip_prefix("what=CreateConnection ids=script,").and_then(|line| line.split(' ').next());
    let id = created.expect("the id of the connection");
    assert_eq!(lines[0], format!("what=CreateConnection ids=script,{id} result=done"));
    assert!(
        lines[1].starts_with(&format!("what=Play ids={id},")) && lines[1].ends_with(" result=done"),
        "{}",
        lines[1]
    );
    assert_eq!(
        lines[2..6],
        [
            "what=DeleteConnection ids=7 result=refused:23",
            "what=Play ids= result=refused:35",
            "what=subscribe ids= result=refused:403",
            "what=end_script ids=a_b result=done",
        ]
    );
    assert!(
        lines[6].starts_with("what=CreateConnection ids=script,") && lines[6].ends_with(" result=done"),
        "{logged}"
    );
    assert_eq!(lines.len(), 7, "{logged}");
}

#[test]
fn faults_of_http_have_a_status() {
    serve(
        |_| {},
        async |_rig, address| {
            for (method, target, status) in [
                ("GET", "/", 404),
                ("POST", "/MediaControl/a/b", 404),
                ("GET", "/MediaControl/Play", 405),
                ("POST", "/MediaControl/events", 405),
                ("GET", "/MediaControl/subscriptions", 405),
                ("GET", "/MediaControl/events?after=x", 400),
                ("POST", "/MediaControl/subscriptions", 400),
                ("DELETE", "/MediaControl/subscriptions?routingGuid=x", 404),
                ("POST", "/MediaControl/subscriptions?url=http%3A%2F%2F127.0.0.1%2F", 403),
                ("POST", "/MediaControl/subscriptions?url=https://127.0.0.1/", 400),
            ] {
                assert_eq!(ask(&address, method, target, "").await.0, status, "{method} {target}");
            }
            let large = "x".repeat(http::BODY_BYTES_MAX + 1);
            assert_eq!(ask(&address, "POST", "/MediaControl/Play", &large).await.0, 413);
            let (status, document) = ask(&address, "GET", "/MediaControl/openapi.json", "").await;
            assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
        },
    );
}

#[test]
fn the_end_is_told_after_the_response_was_handed_over() {
    serve(
        |_| {},
        async |rig, address| {
            let id = rig.connection().await;
            let before = rig.announced();
            let play = json!({"params": {"ConnectionId": id, "Prompt1": "a.wav"}});
            ask(&address, "POST", "/MediaControl/Play", &play.to_string()).await;
            until("announced", || rig.announced() > before).await;
        },
    );
}

#[test]
fn events_are_polled_for() {
    serve(
        |_| {},
        async |rig, address| {
            let (_, nothing) = ask(&address, "GET", "/MediaControl/events?routingGuid=script", "").await;
            assert_eq!((&nothing["events"], &nothing["next"]), (&json!([]), &json!(0)));
            let polled = {
                let address = address.clone();
                spawn_local(async move {
                    ask(&address, "GET", "/MediaControl/events?routingGuid=script&after=0&wait=15000", "").await
                })
            };
            until("somebody waits", || rig.mc.logs().get("script").is_some_and(|log| log.is_subscribed())).await;
            let id = rig.connection().await;
            rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
            rig.fake.end("o-2", "eod", Value::Null);
            let (_, batch) = polled.await.expect("no panic");
            assert_eq!((&batch["next"], &batch["missed"]), (&json!(1), &json!(0)));
            assert_eq!(batch["events"][0]["event"], "Metreos.MediaControl.Play_Complete");
            assert_eq!(batch["events"][0]["params"]["TerminationCondition"], "eod");
            let (_, after) = ask(&address, "GET", "/MediaControl/events?routingGuid=script&after=1&wait=1", "").await;
            assert_eq!(after["events"], json!([]));
        },
    );
}

#[test]
fn events_are_streamed_and_taken_up_again() {
    serve(
        |_| {},
        async |rig, address| {
            for _ in 0..2 {
                rig.mc.logs().append("script", "Metreos.MediaControl.Play_Complete", json!({}));
            }
            let mut stream = BufReader::new(TcpStream::connect(&address).await.expect("a listener"));
            let head = "GET /MediaControl/events?routingGuid=script HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\
            Last-Event-ID: 1\r\n\r\n";
            stream.get_mut().write_all(head.as_bytes()).await.expect("sent");
            let mut lines = Vec::new();
            let mut read = async |stream: &mut BufReader<TcpStream>, until: &str| loop {
                let mut line = String::new();
                assert!(stream.read_line(&mut line).await.expect("open") > 0);
                lines.push(line.trim().to_owned());
                if line.starts_with(until) {
                    return lines.clone();
                }
            };
            let seen = read(&mut stream, "data:").await;
            assert!(seen.contains(&"id: 2".to_owned()) && !seen.contains(&"id: 1".to_owned()), "{seen:?}");
            rig.mc.logs().append("script", "Metreos.MediaControl.Play_Failed", json!({}));
            assert!(read(&mut stream, "data: ").await.iter().any(|line| line.contains("id: 3")));
            drop(stream);
            until("it is missed", || rig.mc.logs().get("script").is_some_and(|log| !log.is_subscribed())).await;
        },
    );
}

#[test]
fn a_script_whose_stream_is_lost_is_cleaned_up() {
    serve(
        |config| config.sandbox_grace_ms = 20,
        async |rig, address| {
            rig.connection().await;
            assert_eq!(ask(&address, "GET", "/MediaControl/events?routingGuid=script&wait=1", "").await.0, 200);
            until("deleted", || rig.connections() == 0).await;
            let id = rig.connection().await;
            let (_, ended) = ask(&address, "POST", "/MediaControl/scripts/script/end", "").await;
            assert_eq!(ended["deleted"], json!([id]));
        },
    );
}

#[test]
fn events_are_posted_in_order_until_they_are_taken() {
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/events/", receiver.local_addr().expect("bound"));
    let prefix = url.clone();
    serve(
        move |config| config.webhooks = vec![prefix],
        async |rig, address| {
            receiver.set_nonblocking(true).expect("set");
            let receiver = TcpListener::from_std(receiver).expect("taken over");
            let subscription = json!({"routingGuid": "script", "url": format!("{url}a?b=c")}).to_string();
            assert_eq!(ask(&address, "POST", "/MediaControl/subscriptions", &subscription).await.0, 200);
            rig.mc.logs().append("script", "one", json!({}));
            let mut told = Vec::new();
            for (turn, status) in ["500 Broken", "204 Taken", "200 OK"].into_iter().enumerate() {
                let (mut stream, _) = receiver.accept().await.expect("somebody posts");
                let mut request = String::new();
                let body = loop {
                    let mut chunk = [0; 4096];
                    let length = stream.read(&mut chunk).await.expect("open");
                    request.push_str(std::str::from_utf8(&chunk[..length]).expect("text"));
                    if let Some((_, body)) = request.split_once("\r\n\r\n")
                        && let Ok(body) = serde_json::from_str::<Value>(body)
                    {
                        break body;
                    }
                };
                assert!(request.starts_with("POST /events/a?b=c HTTP/1.1\r\n"), "{request}");
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                    .await
                    .expect("sent");
                told.push(
                    body["events"]
                        .as_array()
                        .expect("events")
                        .iter()
                        .map(|event| event["sequence"].clone())
                        .collect::<Vec<_>>(),
                );
                if turn == 1 {
                    rig.mc.logs().append("script", "two", json!({}));
                }
            }
            assert_eq!(told, [[json!(1)], [json!(1)], [json!(2)]]);
            assert_eq!(ask(&address, "DELETE", "/MediaControl/subscriptions?routingGuid=script", "").await.0, 200);
            until("nobody reads", || rig.mc.logs().get("script").is_some_and(|log| !log.is_subscribed())).await;
        },
    );
}

#[test]
fn stopping_closes_what_rests_and_ends_what_waits_for_events() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let rig = Rig::new(|_| {});
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let serving = http::serve(Rc::clone(&rig.mc), listener);
        let mut open = Vec::new();
        for head in [
            "GET /MediaControl/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /MediaControl/events?routingGuid=a HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(address).await.expect("a listener");
            stream.write_all(head.as_bytes()).await.expect("sent");
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("a status");
            assert_eq!(&status, b"HTTP/1.1 200");
            open.push(stream);
        }
        let waiting = spawn_local(async move {
            ask(&address.to_string(), "GET", "/MediaControl/events?routingGuid=b&wait=30000", "").await
        });
        until("the poll waits", || rig.mc.logs().get("b").is_some()).await;
        timeout(PATIENCE, serving.stop()).await.expect("in time");
        for mut stream in open {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("closed tidily");
        }
        let (status, answer) = waiting.await.expect("answered");
        assert_eq!((status, &answer["events"]), (200, &json!([])));
        TcpStream::connect(address).await.expect_err("it has stopped");
    });
}
