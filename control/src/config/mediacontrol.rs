//! Settings of the MediaControl API.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{ConfigError, Secret, is_webhook_prefix, within};

/// How the MediaControl API behaves. Without `listen` it is there for the control socket only.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaControlConfig {
    /// Where it is served over plain HTTP; off by default. Any other address than loopback needs a `token`.
    pub listen: Option<SocketAddr>,
    /// What clients that are not on this machine have to show as a bearer token.
    pub token: Option<Secret>,
    /// Number of this engine, `1 ..= 255`: the high byte of its ids.
    pub mms_id: u8,
    /// Answers 4, 8 and 14 with branches of their own instead of Failure.
    pub fine_branches: bool,
    /// Answers the start of an operation with ResultCode 0 instead of 1.
    pub started_as_zero: bool,
    /// Tells the end of data as `oed` instead of `eod`.
    pub legacy_oed: bool,
    /// Deletes the connections of a script that has ended, or has not read its events for the grace.
    pub sandbox: bool,
    /// How long a script's subscriber may be away, in milliseconds, `0 ..= 3600000`.
    pub sandbox_grace_ms: u32,
    /// Events may be posted to addresses that begin with one of these; none by default.
    pub webhooks: Vec<String>,
}

impl Default for MediaControlConfig {
    fn default() -> Self {
        Self {
            listen: None,
            token: None,
            mms_id: 1,
            fine_branches: false,
            started_as_zero: false,
            legacy_oed: false,
            sandbox: true,
            sandbox_grace_ms: 30_000,
            webhooks: Vec::new(),
        }
    }
}

impl MediaControlConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("mediacontrol.mms_id", u32::from(self.mms_id), 1, 255, "1 to 255")?;
        within("mediacontrol.sandbox_grace_ms", self.sandbox_grace_ms, 0, 3_600_000, "0 to 3600000")?;
        if let Some(prefix) = self.webhooks.iter().find(|prefix| !is_webhook_prefix(prefix)) {
            return Err(ConfigError::Range {
                field: "mediacontrol.webhooks",
                value: prefix.clone(),
                rule: "of the form http://host:port/ with a path that ends with a slash",
            });
        }
        match self.listen.filter(|listen| !listen.ip().is_loopback()) {
            Some(listen) if self.token.as_ref().is_none_or(|token| token.0.is_empty()) => {
                Err(ConfigError::MediaControlWithoutToken(listen))
            }
            Some(_) | None => Ok(()),
        }
    }
}
