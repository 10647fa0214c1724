//! The database of a running server.

use jiff::Timestamp;

use super::rig::Rig;
use crate::config::Config;
use crate::store::recordings::{self, Details, EndReason, NewRecording, Party};
use crate::store::users::{self, User};
use crate::store::{connect, path_in};

#[test]
fn the_configuration_fills_the_database_and_others_write_beside_the_server() {
    let text = "[[users]]\nname = \"anna\"\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1\
                $c29tZXNhbHRzb21lc2FsdA$RSkjGJ8lWdxSxO6pkqKuFTVHhNcPqOXuWwNBCVMp/rM\"\nroles = [\"icws\"]";
    let configured: Config = toml::from_str(text).unwrap();
    let mut rig = Rig::start_with(1, |config| config.users = configured.users);
    let path = path_in(&rig.dir.path().join("state"));
    let connection = connect(&path).unwrap();
    let anna = users::find(&connection, "anna").unwrap().unwrap();
    users::add(&connection, &User::new("berta", anna.password), Timestamp::now()).unwrap();
    let id = "00000000-0000-4000-8000-000000000001";
    recordings::begin(&connection, &ongoing(id)).unwrap();
    rig.client().ok("server.info", serde_json::json!({}));
    drop(connection);
    rig.tell_to_stop();
    rig.join().unwrap();
    assert!(!path.with_extension("db-wal").exists(), "closed in order");
    assert_eq!(users::list_all(&connect(&path).unwrap()).unwrap().len(), 2);
    // The next server on that state directory ends what this one left.
    let state_dir = path.parent().unwrap().to_owned();
    let _next = Rig::start_with(1, |config| config.state_dir = Some(state_dir));
    let left = recordings::find(&connect(&path).unwrap(), id).unwrap().unwrap();
    assert_eq!(left.end.unwrap().1, EndReason::Interrupted);
}

fn ongoing(id: &str) -> NewRecording {
    NewRecording {
        id: id.to_owned(),
        caller: Party { address: "1".to_owned(), ..Party::default() },
        called: Party { address: "2".to_owned(), ..Party::default() },
        started_at: Timestamp::now(),
        on_demand: false,
        conference: false,
        secondary: false,
        do_not_delete: false,
        details: Details::default(),
    }
}
