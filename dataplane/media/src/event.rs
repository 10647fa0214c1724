//! The vocabulary that comes out: answers to commands, and what happened by itself.

use core::net::SocketAddr;

use crate::command::{CodecKind, Direction, OperationKind, Rate, Role, Target};
use crate::digits::Digits;
use crate::id::{ConferenceId, ConnectionId, OperationId};
use crate::reports::Quality;
use crate::samples::Playlist;

/// Something the engine has to say. Drained with `poll_event`, in order.
#[derive(Debug)]
pub enum Event {
    /// The answer to one command; exactly one each.
    Answer {
        /// As in the request.
        token: u64,
        /// What came of it.
        result: Result<Answer, CommandError>,
    },
    /// An operation ended; exactly one each.
    OperationEnded {
        /// Which.
        id: OperationId,
        /// What it ran on.
        target: Target,
        /// What it was.
        kind: OperationKind,
        /// Why it ended.
        condition: Condition,
        /// How long it ran on the media clock, in milliseconds; at least 1 if it was stopped.
        elapsed_ms: u64,
        /// What it gathered, if it gathers digits.
        digits: Option<Digits>,
        /// A play's prompts, to be freed off the shard.
        playlist: Option<Box<Playlist>>,
    },
    /// The endpoint's source address is known.
    ConnectionLearned {
        /// Which connection.
        id: ConnectionId,
        /// Where its endpoint sends from.
        remote: SocketAddr,
    },
    /// Nothing was received for the connection's `rtp_timeout_ms`.
    ConnectionTimeout {
        /// Which connection.
        id: ConnectionId,
    },
    /// A connection is gone; the last word about it.
    ConnectionEnded {
        /// Which.
        id: ConnectionId,
        /// Why.
        reason: EndReason,
        /// The endpoint it had learned and the SSRC heard, so that its port's next user can bar them.
        heard: Option<(SocketAddr, u32)>,
        /// How well it was heard, up to its end.
        quality: Box<Quality>,
    },
    /// A conference is gone; the last word about it.
    ConferenceEnded {
        /// Which.
        id: ConferenceId,
        /// Why.
        reason: EndReason,
    },
    /// A participant began to talk. May be dropped when nobody reads.
    TalkStarted {
        /// Where.
        conference: ConferenceId,
        /// Who.
        connection: ConnectionId,
    },
    /// A participant fell silent. May be dropped when nobody reads.
    TalkStopped {
        /// Where.
        conference: ConferenceId,
        /// Who.
        connection: ConnectionId,
    },
    /// Somebody else leads the talk: he has been the loudest for a while.
    ActiveSpeaker {
        /// Where.
        conference: ConferenceId,
        /// Who.
        connection: ConnectionId,
    },
    /// A digit was pressed: as telephone-event (RFC 4733) or as tones. Told when it ends. May be dropped when nobody reads.
    Digit {
        /// From whom.
        connection: ConnectionId,
        /// `0-9 * # A-D` as ASCII.
        digit: u8,
        /// How long it was pressed, in milliseconds.
        duration_ms: u32,
    },
}

impl Event {
    /// Whether it may be dropped when its reader is behind. All others have a reserved place.
    pub const fn is_droppable(&self) -> bool {
        matches!(
            self,
            Self::TalkStarted { .. } | Self::TalkStopped { .. } | Self::ActiveSpeaker { .. } | Self::Digit { .. }
        )
    }
}

/// What a command that succeeded has to say.
#[derive(Debug)]
pub enum Answer {
    /// Done, nothing more to say.
    Done,
    /// Done, and from here on it can be heard.
    Effect(Box<Effect>),
    /// Connections were released.
    Deleted {
        /// Which.
        connections: Vec<ConnectionId>,
        /// The first timestamps no longer sent.
        effect: Box<Effect>,
    },
    /// Operations were stopped.
    Stopped {
        /// Which.
        operations: Vec<OperationId>,
        /// From where on they can't be heard any more.
        effect: Box<Effect>,
    },
    /// One connection.
    Connection(Box<ConnectionStatus>),
    /// Some connections; `next` is where to go on.
    Connections {
        /// The page.
        page: Vec<ConnectionStatus>,
        /// First slot of the next page, if there is one.
        next: Option<u32>,
    },
    /// One conference.
    Conference(Box<ConferenceStatus>),
    /// Some conferences; `next` is where to go on.
    Conferences {
        /// The page.
        page: Vec<ConferenceStatus>,
        /// First slot of the next page, if there is one.
        next: Option<u32>,
    },
    /// Running operations.
    Operations(Vec<OperationStatus>),
}

impl Answer {
    /// From where on the command can be heard, if it can.
    pub fn effect(&self) -> Option<&Effect> {
        match self {
            Self::Effect(effect) | Self::Deleted { effect, .. } | Self::Stopped { effect, .. } => Some(effect),
            Self::Done
            | Self::Connection(_)
            | Self::Connections { .. }
            | Self::Conference(_)
            | Self::Conferences { .. }
            | Self::Operations(_) => None,
        }
    }
}

/// Why a command failed. It has changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// The id names no connection (any more).
    #[error("no such connection: {0}")]
    UnknownConnection(ConnectionId),
    /// The id names no conference (any more).
    #[error("no such conference: {0}")]
    UnknownConference(ConferenceId),
    /// The operation has ended or never was.
    #[error("no such operation: {0}")]
    UnknownOperation(OperationId),
    /// The connection is not in that conference (or in no relay).
    #[error("{0} does not take part")]
    NotAParticipant(ConnectionId),
    /// The connection is already in a conference or relay; take it out first.
    #[error("{0} is already in a conference or relay")]
    AlreadyJoined(ConnectionId),
    /// A concurrency rule: try again when what is running has ended.
    #[error("busy")]
    Busy,
    /// Nothing plays whose volume or speed could be adjusted.
    #[error("nothing plays")]
    NothingPlaying,
    /// A table or quota is full.
    #[error("limit reached")]
    LimitReached,
    /// The connection is reserved only, or knows no remote address yet.
    #[error("{0} has no remote address yet")]
    NotConnected(ConnectionId),
    /// The codec or packet time can't be mixed.
    #[error("codec or packet time can't be decoded here")]
    UnsupportedCodec,
    /// A packet of that payload type would be taken for RTCP.
    #[error("payload type {0} would be taken for RTCP: take one outside 72 to 76, with rtcp_mux one outside 64 to 95")]
    TakenForRtcp(u8),
    /// A coach or pupil can't be muted, a coach can't have the tariff tone, a monitor can't take another role.
    #[error("{0} has a role that does not go with that")]
    RoleConflict(ConnectionId),
    /// Not supported.
    #[error("not supported")]
    Unsupported,
    /// The connection's sockets could not be taken up.
    #[error("the sockets could not be opened on the shard; see its log")]
    SocketFailed,
    /// The shard failed while the command was in it.
    #[error("shard failed")]
    ShardFailed,
}

/// Why an operation ended. The names are those of Metreos.MediaControl; the order is that of precedence, if several
/// hold at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Condition {
    /// The digits of the pattern, in order.
    DigitPattern,
    /// The digit waited for.
    Digit,
    /// One of the digits waited for.
    DigitList,
    /// As many digits as were wanted.
    MaxDigits,
    /// Too long since the last digit.
    InterDigitDelay,
    /// The operation's own time limit.
    MaxTime,
    /// Silence for long enough.
    Silence,
    /// Sound for long enough.
    NonSilence,
    /// End of data: everything was played.
    Eod,
    /// The time limit of the command.
    Timeout,
    /// Stopped by command.
    UserStop,
    /// Its connection or conference went away.
    AutoStop,
    /// Its file broke off or could not be written.
    Error,
}

impl Condition {
    /// The name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DigitPattern => "digitpattern",
            Self::Digit => "digit",
            Self::DigitList => "digitlist",
            Self::MaxDigits => "maxdigits",
            Self::InterDigitDelay => "interdigdelay",
            Self::MaxTime => "maxtime",
            Self::Silence => "silence",
            Self::NonSilence => "nonsilence",
            Self::Eod => "eod",
            Self::Timeout => "timeout",
            Self::UserStop => "userstop",
            Self::AutoStop => "autostop",
            Self::Error => "error",
        }
    }
}

/// Why a connection or conference ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EndReason {
    /// By command.
    Deleted,
    /// Its conference was deleted.
    ConferenceDeleted,
    /// The last participant left.
    LastLeft,
    /// It was reserved and never completed.
    Expired,
    /// Its codec failed in a way that it can't go on from.
    CodecFailed,
    /// Its shard failed.
    ShardFailed,
    /// The server ends.
    Shutdown,
}

/// Which media clock an effect is told on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EffectClock {
    /// Milliseconds since the connection was created.
    Connection,
    /// Milliseconds since the conference was created.
    Conference,
    /// Milliseconds since the recording began.
    Recording,
}

/// From where on a command can be heard (or not heard any more).
#[derive(Clone, PartialEq, Debug)]
pub struct Effect {
    /// The clock of the two times below.
    pub clock: EffectClock,
    /// When the control plane received the command.
    pub received_media_time_ms: f64,
    /// When it took effect.
    pub media_time_ms: f64,
    /// The first sample of each stream to which the change applies.
    pub streams: Vec<StreamStamp>,
}

/// One stream of an effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamStamp {
    /// The connection whose stream it is.
    pub connection: ConnectionId,
    /// The stream.
    pub ssrc: u32,
    /// `true`: from us to the endpoint; `false`: from the endpoint to us.
    pub outgoing: bool,
    /// First timestamp to which the change applies; for a delete the first one no longer sent.
    pub rtp_timestamp: u32,
    /// Sequence number of the packet that holds (or would have held) that timestamp.
    pub sequence: Option<u16>,
}

/// What there is to say about a connection.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectionStatus {
    /// Which.
    pub id: ConnectionId,
    /// What it is doing.
    pub state: ConnectionState,
    /// The address given for the endpoint.
    pub remote: Option<SocketAddr>,
    /// The address the endpoint was seen to send from, once learned.
    pub learned: Option<SocketAddr>,
    /// Where RTCP goes.
    pub remote_rtcp: Option<SocketAddr>,
    /// Whether the socket is connected, so that the kernel drops foreign sources uncounted.
    pub connected_socket: bool,
    /// Decoded.
    pub rx_codec: CodecKind,
    /// Encoded.
    pub tx_codec: CodecKind,
    /// Packet time, milliseconds.
    pub ptime_ms: u32,
    /// Which way media may flow.
    pub direction: Direction,
    /// SSRC received, once learned.
    pub ssrc_in: Option<u32>,
    /// SSRC sent, if we send a stream of our own.
    pub ssrc_out: Option<u32>,
    /// What was counted.
    pub counters: ConnectionCounters,
    /// Cumulative packets lost on the way to us (RFC 3550 A.3); negative with duplicates.
    pub cumulative_lost: i64,
    /// Interarrival jitter in milliseconds (RFC 3550 A.8).
    pub jitter_ms: f64,
    /// How well it is heard, and what it says of how it hears us.
    pub quality: Quality,
    /// Level of what was last decoded, in dBov (0 loudest, −127 silence); `None` if nothing is decoded.
    pub level_db: Option<i8>,
    /// Operations running on it.
    pub operations: Vec<OperationId>,
    /// Reserved: waits for its remote address.
    pub reserved: bool,
    /// Digits that wait in its buffer.
    pub digits: Digits,
}

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// Wired to nothing.
    Idle,
    /// In a relay with the other.
    Relayed(ConnectionId),
    /// In a conference.
    InConference(ConferenceId),
}

/// Packets of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionCounters {
    /// RTP packets taken in.
    pub packets_in: u64,
    /// RTP bytes taken in, header included.
    pub bytes_in: u64,
    /// RTP packets given to the kernel.
    pub packets_out: u64,
    /// RTP bytes given to the kernel.
    pub bytes_out: u64,
    /// RTCP packets taken in.
    pub rtcp_in: u64,
    /// RTCP packets given to the kernel.
    pub rtcp_out: u64,
    /// Times the endpoint sent with our SSRC, and we took another.
    pub ssrc_collisions: u64,
    /// Packets dropped, all reasons together.
    pub drops: u64,
    /// Samples that were missing when they were due.
    pub concealed_samples: u64,
}

/// What there is to say about a conference.
#[derive(Clone, PartialEq, Debug)]
pub struct ConferenceStatus {
    /// Which.
    pub id: ConferenceId,
    /// Everybody in it.
    pub participants: Vec<ParticipantStatus>,
    /// Operations running on it.
    pub operations: Vec<OperationId>,
    /// Rate of its mix.
    pub rate: Rate,
    /// Two parties patched to each other; not promoted yet.
    pub hairpin: bool,
    /// Who leads the talk, or did last.
    pub active_speaker: Option<ConnectionId>,
    /// So many of the loudest are mixed; `None`: all.
    pub loudest: Option<u16>,
    /// Media time since it was created, milliseconds.
    pub media_time_ms: f64,
}

/// One participant.
#[derive(Clone, PartialEq, Debug)]
pub struct ParticipantStatus {
    /// Who.
    pub connection: ConnectionId,
    /// Not heard by the others.
    pub muted: bool,
    /// Hears nothing.
    pub deaf: bool,
    /// Gain in decibels.
    pub gain_db: i16,
    /// Gain of what it hears, in decibels.
    pub output_gain_db: i16,
    /// Whether its gain is automatic.
    pub agc: bool,
    /// Whether noise is taken out of what it says.
    pub noise_suppression: bool,
    /// What it is in the conference.
    pub role: Role,
    /// Gets the tariff tone.
    pub tariff_tone: bool,
    /// Talks right now.
    pub talking: bool,
    /// Level in dBov.
    pub level_db: i8,
}

/// One running operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperationStatus {
    /// Which.
    pub id: OperationId,
    /// On what.
    pub target: Target,
    /// What.
    pub kind: OperationKind,
    /// How long it has run on the media clock, in milliseconds.
    pub elapsed_ms: u64,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was dropped: the same names in log, metric and test.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in order of its number.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// The name shown outside.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// The datagram filled its buffer, so its end may be missing.
    Truncated = "truncated",
    /// Zero bytes.
    Empty = "empty",
    /// Not RTP version 2, or not RTP at all.
    NotRtp = "not_rtp",
    /// Not RTCP, on the RTCP port.
    NotRtcp = "not_rtcp",
    /// From an address that is not the endpoint's.
    ForeignSource = "foreign_source",
    /// An SSRC that is not the one learned.
    ForeignSsrc = "foreign_ssrc",
    /// While the endpoint was being learned, before its second packet.
    Learning = "learning",
    /// The previous user of the port, still sending.
    Barred = "barred",
    /// More than four times the source's own rate for longer than its burst.
    RateLimited = "rate_limited",
    /// The connection's direction does not let it in.
    Direction = "direction",
    /// The connection is reserved only: its remote address is not given yet.
    Reserved = "reserved",
    /// Nothing is wired to the connection.
    Unrouted = "unrouted",
    /// No address to send to yet.
    NoTarget = "no_target",
    /// Arrived after its time to be mixed.
    Late = "late",
    /// Arrived twice.
    Duplicate = "duplicate",
    /// Further ahead than the jitter buffer holds.
    Early = "early",
    /// A payload type that was not negotiated, where it would have to be decoded.
    PayloadType = "payload_type",
    /// A payload longer than a packet that is mixed can be.
    PayloadSize = "payload_size",
    /// In a hairpin that passes packets on: its sender is muted or a monitor, or its receiver deaf.
    Muted = "muted",
    /// Replaced by a prompt played in its direction.
    Replaced = "replaced",
    /// The socket's send buffer was full.
    SendBufferFull = "send_buffer_full",
    /// The kernel refused to send (unreachable, refused).
    SendFailed = "send_failed",
    /// The kernel's receive buffer was full (SO_MEMINFO).
    ReceiveBufferFull = "receive_buffer_full",
    /// A port that is open to nobody any more.
    ClosedPort = "closed_port",
}

/// Drops by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts `packets` drops.
    pub fn add(&mut self, reason: DropReason, packets: u64) {
        self.0[reason as usize] += packets;
    }

    /// How many were dropped for `reason`.
    pub fn count(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.count(reason)))
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}
