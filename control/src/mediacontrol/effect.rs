//! From where on a command can be heard, in the ids of this API.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::ids::Connection;
use super::{Cx, Results};

/// The result `Effect` of what a native method told. `gone`: connections that may not be known any more.
pub(super) fn effect(cx: &Cx, told: &Value, gone: &[Rc<Connection>]) -> Results {
    let mut results = Map::new();
    let mut effect = told["effect"].clone();
    if effect.is_null() {
        return results;
    }
    for stream in effect["streams"].as_array_mut().into_iter().flatten() {
        let Some(stream) = stream.as_object_mut() else { continue };
        let Some(native) = stream.remove("connection_id") else { continue };
        let native = native.as_str().unwrap_or_default();
        let known = cx.mc.ids.connection_of(native);
        if let Some(connection) = known.or_else(|| gone.iter().find(|gone| gone.native == native).cloned()) {
            stream.insert("ConnectionId".to_owned(), connection.id.to_string().into());
        }
    }
    results.insert("Effect".to_owned(), effect);
    results
}
