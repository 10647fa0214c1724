//! Settings of the Verba API.

use std::net::SocketAddr;

use serde::Deserialize;

/// How the Verba API behaves. Without `listen` it is not there, and no call is recorded by a rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerbaConfig {
    /// Where it is served; off by default. Over TLS if there is a certificate, else on loopback only.
    pub listen: Option<SocketAddr>,
    /// Numbers whose calls are recorded; `*` is every call.
    pub always: Vec<String>,
    /// Numbers whose calls are recorded, and thrown away at their end unless somebody keeps them; likewise.
    pub on_demand: Vec<String>,
}
