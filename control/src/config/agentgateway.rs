//! Settings of the AgentGateway API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, is_webhook_prefix, within};

/// How the AgentGateway API behaves.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentGatewayConfig {
    /// Where it is served, over HTTPS only: needs `tls`. Off by default.
    pub listen: Option<SocketAddr>,
    /// Name of this gateway: the end of every session id.
    pub name: String,
    /// 1: the session id of a sign-in stays valid. 2: every poll or handshake gives another one.
    pub auth_mode: u8,
    /// Where telephone numbers are: the RTP address of each.
    pub directory: BTreeMap<String, SocketAddr>,
    /// Folder below the audio root that stands for `drive:/conf`.
    pub announcements: String,
    /// How long somebody who is called may take, in milliseconds, `1000 ..= 600000`.
    pub answer_timeout_ms: u32,
    /// Events may be posted to addresses that begin with one of these; none by default.
    pub callbacks: Vec<String>,
    /// Certificates in PEM that are trusted where events are posted to `https://`.
    pub callback_ca: Option<PathBuf>,
}

impl Default for AgentGatewayConfig {
    fn default() -> Self {
        Self {
            listen: None,
            name: "AgentGateway1".to_owned(),
            auth_mode: 1,
            directory: BTreeMap::new(),
            announcements: "conf".to_owned(),
            answer_timeout_ms: 60_000,
            callbacks: Vec::new(),
            callback_ca: None,
        }
    }
}

impl AgentGatewayConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("agentgateway.auth_mode", u32::from(self.auth_mode), 1, 2, "1 or 2")?;
        within("agentgateway.answer_timeout_ms", self.answer_timeout_ms, 1_000, 600_000, "1000 to 600000")?;
        let range = |field, value: &str, rule| Err(ConfigError::Range { field, value: value.to_owned(), rule });
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            return range("agentgateway.name", &self.name, "1 to 64 letters, digits, - or _");
        }
        if self.announcements.starts_with('/') || self.announcements.split('/').any(|part| part == "..") {
            return range("agentgateway.announcements", &self.announcements, "a path below the audio root");
        }
        let plain = |prefix: &str| prefix.strip_prefix("https://").map(|rest| format!("http://{rest}"));
        let is_prefix = |prefix: &str| is_webhook_prefix(plain(prefix).as_deref().unwrap_or(prefix));
        if let Some(prefix) = self.callbacks.iter().find(|prefix| !is_prefix(prefix)) {
            let rule = "of the form https://host:port/ or http://host:port/ with a path that ends with a slash";
            return range("agentgateway.callbacks", prefix, rule);
        }
        if let Some(prefix) = self.callbacks.iter().find(|prefix| plain(prefix).is_some() && self.callback_ca.is_none())
        {
            let rule = "an http:// address unless `agentgateway.callback_ca` names the certificates to trust";
            return range("agentgateway.callbacks", prefix, rule);
        }
        let unusable = |address: &SocketAddr| address.port() == 0 || address.ip().is_unspecified();
        match self.directory.iter().find(|(_, address)| unusable(address)) {
            Some((_, address)) => range("agentgateway.directory", &address.to_string(), "addresses with a port"),
            None => Ok(()),
        }
    }
}
