//! The adapter without a listener, on shards that only pretend.

use std::rc::Rc;

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::{NEXT_CALL, Verba};
use crate::auth::{Logins, ThrottleConfig};
use crate::config::{Config, Machine, ShardCount, VerbaConfig};
use crate::methods::{self, Call};
use crate::server::Server;
use crate::tests::fake::World;
use crate::tests::rig::free_ports;

/// Runs `test` with these rules.
pub(super) fn with_verba(verba: VerbaConfig, test: impl AsyncFnOnce(Rc<Verba>, World)) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        shards: ShardCount::Fixed(1),
        ports: free_ports(20),
        state_dir: Some(dir.path().to_owned()),
        media_threads: 1,
        verba,
        ..Config::default()
    };
    let derived = config.derive(&Machine { cpus: vec![0], files: 65_536 }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::default();
    LocalSet::new().block_on(&runtime, async {
        let server = Server::start(config, derived, world.starter()).unwrap();
        let logins = Logins::new(server.store.clone(), ThrottleConfig::default()).unwrap();
        test(Verba::new(Rc::clone(&server), Rc::new(logins), NEXT_CALL), world).await;
    });
}

/// Calls a method of the native interface.
pub(super) async fn native(verba: &Verba, method: &str, given: Value) -> Value {
    let call = Call::in_process(Rc::clone(&verba.server), "a test".into());
    let result = methods::call(&call, method, given).await.unwrap();
    call.announce();
    result
}

/// A call between two new connections; `meanwhile` is told the caller when the call has begun, before anything else
/// happens.
pub(super) async fn call(verba: &Verba, mut numbers: Value, meanwhile: impl FnOnce(String)) -> [String; 2] {
    let mut pair = [String::new(), String::new()];
    for id in &mut pair {
        let made = native(verba, "connection.create", json!({})).await;
        made["connection_id"].as_str().unwrap().clone_into(id);
    }
    (numbers["a"], numbers["b"]) = (json!(pair[0]), json!(pair[1]));
    native(verba, "relay.start", numbers).await;
    meanwhile(pair[0].clone());
    pair
}
