//! Calls from within the process, as an adapter makes them.

use std::cell::RefCell;
use std::rc::Rc;

use ringbridge_media::id::ShardId;
use ringbridge_media::time::Instant;
use serde_json::{Value, json};
use tokio::task::{LocalSet, yield_now};

use super::fake::World;
use super::rig::free_ports;
use crate::config::{Config, Machine, ShardCount};
use crate::events::EventKind;
use crate::methods::{self, Call};
use crate::server::Server;

async fn call(server: &Rc<Server>, method: &str, params: Value) -> (Call, Value) {
    let call = Call::in_process(Rc::clone(server), "a test".into());
    let result = methods::call(&call, method, params).await.expect("a result");
    (call, result)
}

#[test]
fn an_adapter_hears_of_an_end_after_it_has_handed_over_the_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        shards: ShardCount::Fixed(1),
        ports: free_ports(20),
        state_dir: Some(dir.path().to_owned()),
        media_threads: 1,
        ..Config::default()
    };
    let derived = config.derive(&Machine { cpus: vec![0], files: 65_536 }).expect("valid");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let server = Server::start(config, derived, World::default().starter()).expect("started");
        server.set_clock(Rc::new(|| Instant::from_millis(7_000)));
        let heard: Rc<RefCell<Vec<(EventKind, Value)>>> = Rc::default();
        let observer = Rc::clone(&heard);
        server.hub.observe(Box::new(move |kind, params| observer.borrow_mut().push((kind, params.clone()))));

        let (create, created) = call(&server, "connection.create", json!({})).await;
        assert_eq!(create.received, Instant::from_millis(7_000));
        let id = created["connection_id"].clone();
        let params = json!({"kind": "tone", "connection_id": id, "max_time_ms": 1});
        let (start, started) = call(&server, "operation.start", params).await;
        // The shard answers this after it has told the end of the tone.
        call(&server, "connection.get", json!({"connection_id": id})).await.0.announce();
        assert_eq!(*heard.borrow(), []);
        start.announce();
        while heard.borrow().is_empty() {
            yield_now().await;
        }
        let (kind, params) = heard.borrow()[0].clone();
        assert_eq!((kind, &params["operation_id"]), (EventKind::OperationEnded, &started["operation_id"]));
        call(&server, "events.subscribe", json!({})).await.0.announce();
        call(&server, "connection.delete", json!({"connection_id": id})).await.0.announce();
        assert!(server.router.borrow_mut().stop(ShardId(0)));
        while server.router.borrow().is_up(ShardId(0)) {
            yield_now().await;
        }
        assert_eq!(heard.borrow().len(), 2);
    });
}
