//! The lines that commands of the control socket leave in the audit log.

use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

use super::fake::World;
use super::rig::free_ports;
use crate::audit::tests::captured_at;
use crate::config::{Config, Machine, ShardCount};
use crate::server::Server;
use crate::socket::ControlSocket;

/// What is logged, one line each, while a client asks for one thing after the other.
fn lines(filter: &str, requests: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    let config = Config {
        shards: ShardCount::Fixed(1),
        ports: free_ports(20),
        state_dir: Some(dir.path().to_owned()),
        media_threads: 1,
        ..Config::default()
    };
    let derived = config.derive(&Machine { cpus: vec![0], files: 65_536 }).expect("valid");
    let logged = captured_at(filter, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let server = Server::start(config, derived, World::default().starter()).expect("started");
            let socket = ControlSocket::bind(Some(&path), None).expect("a socket");
            let serving = Rc::clone(&server);
            spawn_local(async move { socket.serve(serving).await });
            let mut client = BufReader::new(UnixStream::connect(&path).await.expect("a server listens"));
            for (id, request) in requests.iter().enumerate() {
                let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{request}}}\n");
                client.write_all(line.as_bytes()).await.expect("sent");
                let mut answer = String::new();
                client.read_line(&mut answer).await.expect("an answer");
            }
        });
    });
    // Which uid runs the test, and how fast, is not of interest.
    let uid = format!("who=uid:{} ", nix::unistd::Uid::current());
    let cut = |line: &str| line.replace(&uid, "who=us ").split(" took_ms=").next().unwrap_or_default().to_owned();
    logged.lines().map(cut).collect()
}

const CREATE: &str = r#""method":"connection.create","params":{"remote":"127.0.0.1:9"}"#;
const REQUESTS: &[&str] = &[
    CREATE,
    r#""method":"connection.list""#,
    r#""method":"connection.delete","params":{"connection_id":"conn-0-0-1"}"#,
    r#""method":"connection.delete","params":{"connection_id":"conn-9-9-9"}"#,
    r#""method":"Media\nControl""#,
    r#""method":"MediaControl.DeleteConnection","params":{"ConnectionId":"77"}"#,
];

#[test]
fn each_command_leaves_its_line() {
    let created = &lines("audit=info", &REQUESTS[..1])[0];
    assert!(created.starts_with(" INFO audit: who=us api=\"control\" what=connection.create ids=conn-0-"), "{created}");
    let id = created.split("ids=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id").to_owned();
    let requests: Vec<String> = REQUESTS.iter().map(|request| request.replace("conn-0-0-1", &id)).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    let expected = [
        format!(" INFO audit: who=us api=\"control\" what=connection.create ids={id} shard=0 result=done"),
        "DEBUG audit: who=us api=\"control\" what=connection.list ids= shard=0 result=done".to_owned(),
        format!(
            " INFO audit: who=us api=\"control\" what=connection.delete ids={id} shard=0 effect_ms=20.0 effect_rtp_timestamp=160 result=done"
        ),
        " INFO audit: who=us api=\"control\" what=connection.delete ids=conn-9-9-9 result=refused:unknown_connection"
            .to_owned(),
        " INFO audit: who=us api=\"control\" what=Media_Control ids= result=refused:method_not_found".to_owned(),
        " INFO audit: who=us api=\"control\" what=MediaControl.DeleteConnection ids=77 result=refused:23".to_owned(),
    ];
    assert_eq!(lines("audit=debug", &requests), expected);
    let info: Vec<&String> = expected.iter().filter(|line| !line.starts_with("DEBUG")).collect();
    assert_eq!(lines("audit=info", &requests).iter().collect::<Vec<_>>(), info);
    assert_eq!(lines("warn", &requests), Vec::<String>::new());
}
