//! The database of a running server.

use jiff::Timestamp;

use super::rig::Rig;
use crate::config::Config;
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
    rig.client().ok("server.info", serde_json::json!({}));
    drop(connection);
    rig.tell_to_stop();
    rig.join().unwrap();
    assert!(!path.with_extension("db-wal").exists(), "closed in order");
    assert_eq!(users::list_all(&connect(&path).unwrap()).unwrap().len(), 2);
}
