//! All that happened in one demo: what was sent and heard, and what the server said about it. Judged afterwards.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::stream::{Packet, Sent};

/// What the server says about when a command took effect.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Effect {
    /// When the server received the command, on its media clock.
    pub(super) received_media_time_ms: f64,
    /// When it took effect.
    pub(super) media_time_ms: f64,
    /// The first timestamp of each stream to which it applies.
    #[serde(default)]
    pub(super) streams: Vec<Stamp>,
}

/// One stream of an effect.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Stamp {
    pub(super) connection_id: String,
    /// `in` or `out`, seen from the server.
    pub(super) direction: String,
    pub(super) rtp_timestamp: u32,
}

impl Effect {
    /// The stamp of what the server sends to a connection.
    pub(super) fn outgoing(&self, connection_id: &str) -> Option<u32> {
        let mut stamps = self.streams.iter();
        let stamp = stamps.find(|stamp| stamp.connection_id == connection_id && stamp.direction == "out")?;
        Some(stamp.rtp_timestamp)
    }

    /// Time from the command to its effect.
    pub(super) fn control_to_effect_ms(&self) -> f64 {
        self.media_time_ms - self.received_media_time_ms
    }
}

/// A command that can be heard: when it was sent and answered, since the demo began, and from where on it holds.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Change {
    pub(super) sent: Duration,
    pub(super) answered: Duration,
    pub(super) effect: Effect,
}

/// One endpoint's part.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) connection_id: String,
    pub(super) sent: Sent,
    pub(super) heard: Vec<Packet>,
}

/// The recording of the conference.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) operation_id: String,
    /// When it was asked for.
    pub(super) started: Duration,
    pub(super) samples: Vec<i16>,
    pub(super) manifest: Value,
    pub(super) path: PathBuf,
}

/// The whole.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Two endpoints, relayed.
    pub(super) relay: [Member; 2],
    /// When relaying began.
    pub(super) relayed: Change,
    pub(super) conference_id: String,
    /// Alice, Bob and Carol.
    pub(super) members: [Member; 3],
    /// The last of them joins.
    pub(super) joined: Change,
    /// From here on all three hear the conference.
    pub(super) talking: Duration,
    pub(super) recorded: Recorded,
    /// The recording is stopped.
    pub(super) recording_stopped: Change,
    pub(super) announcement_id: String,
    /// The announcement is asked for.
    pub(super) announced: Duration,
    /// The announcement is stopped half-way.
    pub(super) announcement_stopped: Change,
    /// Bob is muted.
    pub(super) muted: Change,
    /// Bob is unmuted.
    pub(super) unmuted: Change,
    /// Carol is deleted.
    pub(super) deleted: Change,
    /// Alice leaves, and Bob with her.
    pub(super) left: Change,
    /// All events, in order.
    pub(super) events: Vec<Value>,
}

impl Session {
    /// How late the latest packet of any endpoint was sent: what the machine did to the demo before the server had a
    /// part in it.
    pub(super) fn lateness(&self) -> Duration {
        let members = self.relay.iter().chain(&self.members);
        members.map(|member| member.sent.lateness()).max().unwrap_or_default()
    }
}
