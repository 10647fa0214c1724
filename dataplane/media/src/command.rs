//! The vocabulary that goes in: small, plain, and free of text.

use core::net::SocketAddr;
use std::sync::Arc;

use crate::id::{ConferenceId, ConnectionId, OperationId};
use crate::limits::PAYLOAD_TYPES_MAX;
use crate::samples::{Playlist, RecordQueue};
use crate::time::Instant;

/// A command with what its answer needs.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the sender, comes back with the answer.
    pub token: u64,
    /// When the control plane received the command; the start of its control-to-effect time.
    pub received: Instant,
    /// What to do.
    pub command: Command,
}

/// What a shard can be told to do.
///
/// A command that fails has changed nothing.
#[derive(Debug)]
pub enum Command {
    /// Take up a connection whose sockets are open. Its slot is free (the control plane allocates slots).
    CreateConnection {
        /// The new connection's id. Its home shard is this one.
        id: ConnectionId,
        /// How it is to be.
        spec: Box<ConnectionSpec>,
    },
    /// Change a connection. An address that changes starts learning anew.
    ModifyConnection {
        /// Which.
        id: ConnectionId,
        /// What changes.
        change: Box<ConnectionChange>,
    },
    /// Report one connection.
    InspectConnection {
        /// Which.
        id: ConnectionId,
    },
    /// Report the connections in slots `from ..`, at most `limit` of them.
    ListConnections {
        /// First slot looked at.
        from: u32,
        /// How many at most.
        limit: u32,
    },
    /// Release a connection: it leaves its relay and conference, its operations end with `autostop`.
    DeleteConnection {
        /// Which.
        id: ConnectionId,
    },
    /// Wire two connections to each other.
    StartRelay {
        /// The caller.
        a: ConnectionId,
        /// The called.
        b: ConnectionId,
    },
    /// Undo a relay, named by either of its connections.
    StopRelay {
        /// Either side.
        a: ConnectionId,
    },
    /// Open a conference. Its slot is free.
    CreateConference {
        /// The new conference's id.
        id: ConferenceId,
        /// How many may join.
        participants_max: u32,
    },
    /// Put a connection into a conference.
    JoinConference {
        /// The conference.
        conference: ConferenceId,
        /// Who joins.
        connection: ConnectionId,
        /// How it takes part.
        participant: ParticipantSpec,
    },
    /// Change how a connection takes part: mute, deaf, gain.
    SetParticipant {
        /// The conference.
        conference: ConferenceId,
        /// The participant.
        connection: ConnectionId,
        /// What changes.
        change: ParticipantChange,
    },
    /// Take a connection out of a conference; the last one out ends the conference.
    LeaveConference {
        /// The conference.
        conference: ConferenceId,
        /// Who leaves.
        connection: ConnectionId,
    },
    /// End a conference.
    DeleteConference {
        /// Which.
        id: ConferenceId,
        /// `false`: every connection in it is released too.
        keep_connections: bool,
    },
    /// Report one conference.
    InspectConference {
        /// Which.
        id: ConferenceId,
    },
    /// Report the conferences in slots `from ..`, at most `limit` of them.
    ListConferences {
        /// First slot looked at.
        from: u32,
        /// How many at most.
        limit: u32,
    },
    /// Start a media operation.
    StartOperation {
        /// The new operation's id, chosen by the control plane.
        id: OperationId,
        /// On what.
        target: Target,
        /// What it does.
        operation: OperationSpec,
    },
    /// Stop operations of a target with condition `userstop`.
    StopOperation {
        /// On what.
        target: Target,
        /// One operation, or all of the target.
        operation: Option<OperationId>,
    },
    /// Report running operations of one target.
    ListOperations {
        /// On what.
        target: Target,
    },
}

impl Command {
    /// The connection whose whereabouts decide which shard carries the command out.
    pub const fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::CreateConnection { id, .. }
            | Self::ModifyConnection { id, .. }
            | Self::InspectConnection { id }
            | Self::DeleteConnection { id } => Some(*id),
            Self::StartRelay { a: id, .. } | Self::StopRelay { a: id } => Some(*id),
            Self::JoinConference { connection, .. }
            | Self::SetParticipant { connection, .. }
            | Self::LeaveConference { connection, .. } => Some(*connection),
            Self::StartOperation { target, .. }
            | Self::StopOperation { target, .. }
            | Self::ListOperations { target } => match target {
                Target::Connection(id) => Some(*id),
                Target::Conference(_) => None,
            },
            Self::ListConnections { .. }
            | Self::CreateConference { .. }
            | Self::DeleteConference { .. }
            | Self::InspectConference { .. }
            | Self::ListConferences { .. } => None,
        }
    }
}

/// What an operation runs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// One connection: its endpoint hears a play; what it sends is recorded.
    Connection(ConnectionId),
    /// A conference: all members hear a play; the full mix is recorded.
    Conference(ConferenceId),
}

/// A codec that can be decoded and encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CodecKind {
    /// G.711 µ-law, 8 kHz (RFC 3551 section 4.5.14).
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

/// Which way media may flow, seen from the server (RFC 8866 section 6.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// The server sends and ignores what arrives.
    SendOnly,
    /// The server listens and sends nothing.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Whether the server may send.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the server listens.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// How a connection is to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConnectionSpec {
    /// Where the endpoint says it receives RTP; an exact match wins while learning.
    pub remote: Option<SocketAddr>,
    /// Where the endpoint says it receives RTCP; by default the port after `remote`.
    pub remote_rtcp: Option<SocketAddr>,
    /// Decoded from the endpoint, with its payload type.
    pub rx_codec: CodecKind,
    /// Payload type that is decoded, `0 ..= 127`.
    pub rx_payload_type: u8,
    /// Encoded to the endpoint.
    pub tx_codec: CodecKind,
    /// Payload type that is sent, `0 ..= 127`.
    pub tx_payload_type: u8,
    /// Payload type of telephone-events (RFC 4733).
    pub telephone_event_payload_type: u8,
    /// Further payload types that the endpoint may send; relayed, never decoded.
    pub payload_types: [Option<u8>; PAYLOAD_TYPES_MAX],
    /// Packet time in milliseconds, both ways: `1 ..= RELAY_PTIME_MS_MAX`; a multiple of 10 up to 60 to be mixed.
    pub ptime_ms: u32,
    /// Which way media may flow.
    pub direction: Direction,
    /// Without any packet for this long: `connection.timeout`, once per silence. Milliseconds.
    pub rtp_timeout_ms: Option<u32>,
    /// Source and SSRC last heard on this port pair by its previous user: never learned.
    pub barred: Option<(SocketAddr, u32)>,
    /// Whether another source may take over after learning; keeps the socket unconnected.
    pub handover: bool,
}

/// What changes in a connection; `None` leaves a field as it is.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ConnectionChange {
    /// A new remote address: learning starts anew.
    pub remote: Option<SocketAddr>,
    /// A new remote RTCP address.
    pub remote_rtcp: Option<SocketAddr>,
    /// A new codec to decode, with its payload type.
    pub rx_codec: Option<(CodecKind, u8)>,
    /// A new codec to encode, with its payload type.
    pub tx_codec: Option<(CodecKind, u8)>,
    /// A new payload type of telephone-events.
    pub telephone_event_payload_type: Option<u8>,
    /// New further payload types.
    pub payload_types: Option<[Option<u8>; PAYLOAD_TYPES_MAX]>,
    /// A new packet time.
    pub ptime_ms: Option<u32>,
    /// A new direction.
    pub direction: Option<Direction>,
    /// A new timeout; `Some(None)` switches it off.
    pub rtp_timeout_ms: Option<Option<u32>>,
}

/// How a connection takes part in a conference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ParticipantSpec {
    /// Not heard by the others.
    pub muted: bool,
    /// Hears nothing.
    pub deaf: bool,
    /// Gain of what it says, in decibels, `GAIN_DB_MIN ..= GAIN_DB_MAX`.
    pub gain_db: i16,
}

/// What changes in a participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ParticipantChange {
    /// Mute or unmute.
    pub muted: Option<bool>,
    /// Deafen or undeafen.
    pub deaf: Option<bool>,
    /// New gain in decibels.
    pub gain_db: Option<i16>,
}

/// What an operation does.
#[derive(Debug)]
pub enum OperationSpec {
    /// Plays prompts one after the other; ends with `eod` after the last.
    Play {
        /// The prompts; handed back in the final event.
        playlist: Box<Playlist>,
        /// Ends with `maxtime` after this many milliseconds.
        max_time_ms: Option<u32>,
    },
    /// Records.
    Record {
        /// Where the samples go.
        queue: Arc<RecordQueue>,
        /// Ends with `maxtime` after this many milliseconds.
        max_time_ms: Option<u32>,
    },
}

/// The kinds of operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OperationKind {
    /// See [`OperationSpec::Play`].
    Play,
    /// See [`OperationSpec::Record`].
    Record,
}
