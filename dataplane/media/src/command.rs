//! The vocabulary that goes in: small, plain, and free of text.

use core::net::SocketAddr;
use std::sync::Arc;

pub use ringbridge_codec::{CodecKind, EncoderSettings, Rate};

use crate::digits::{DigitSet, Digits};
use crate::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use crate::limits::{PARTICIPANTS_MAX, PAYLOAD_TYPES_MAX, TALK_STOP_MS_DEFAULT};
use crate::parts::Parts;
use crate::playout::DelaySpec;
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
        /// Whether packets are decoded, and encoded again, where the sides differ in codec or packet time. Where they
        /// don't, and without it, packets pass untouched.
        transcode: bool,
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
        /// How it is to be.
        spec: ConferenceSpec,
    },
    /// Open one part of a conference that is mixed on several shards. All parts are opened with the same id, spec and
    /// `parts`; the one on the id's own shard is its home, where operations on it run.
    CreatePart {
        /// The conference's id.
        id: ConferenceId,
        /// A free slot of this shard; at home that of the id.
        slot: u32,
        /// How the conference is to be. No hairpin.
        spec: ConferenceSpec,
        /// What all parts have in common.
        parts: Box<Parts>,
    },
    /// One part of a conference is gone, with its shard: the others don't wait for it any more.
    DropPart {
        /// The conference.
        conference: ConferenceId,
        /// Where the part was.
        shard: ShardId,
    },
    /// Whoever has a role in this part of a conference is a party from now on: somebody in another part has it.
    CedeRole {
        /// The conference.
        conference: ConferenceId,
        /// Coach or pupil.
        role: Role,
    },
    /// End a conference of several parts, or one part of it, as the last party has left: whoever is still in it stays as
    /// a connection.
    VacateConference {
        /// Which.
        id: ConferenceId,
    },
    /// Make a mixed conference of a hairpin, for good. Changes nothing if it is one.
    PromoteConference {
        /// Which.
        id: ConferenceId,
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
    /// Change how a connection takes part: mute, deaf, gain, role, tariff tone.
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
        operation: Box<OperationSpec>,
    },
    /// Stop operations of a target with condition `userstop`.
    StopOperation {
        /// On what.
        target: Target,
        /// One operation, or all of the target.
        operation: Option<OperationId>,
    },
    /// Change volume or speed of what plays on a target, now and for plays to come.
    AdjustPlay {
        /// On what.
        target: Target,
        /// What changes.
        change: PlayChange,
    },
    /// Put digits into a target's buffer as if they had been pressed; nothing is sent to anybody.
    SendDigits {
        /// Whose buffer: a connection's, or that of a conference's operations.
        target: Target,
        /// All of them or, if they don't fit, none.
        digits: Digits,
    },
    /// Say which channels of a recording of a call are silence from the next frame on. The call itself is not touched.
    MuteRecording {
        /// The connection it runs on.
        connection: ConnectionId,
        /// The recording.
        operation: OperationId,
        /// Whether the caller's channel is silence.
        caller: bool,
        /// Whether the called's is.
        called: bool,
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
            | Self::MuteRecording { connection, .. }
            | Self::SetParticipant { connection, .. }
            | Self::LeaveConference { connection, .. } => Some(*connection),
            Self::StartOperation { target, .. }
            | Self::StopOperation { target, .. }
            | Self::AdjustPlay { target, .. }
            | Self::SendDigits { target, .. }
            | Self::ListOperations { target } => match target {
                Target::Connection(id) => Some(*id),
                Target::Conference(_) => None,
            },
            Self::ListConnections { .. }
            | Self::CreateConference { .. }
            | Self::CreatePart { .. }
            | Self::DropPart { .. }
            | Self::CedeRole { .. }
            | Self::VacateConference { .. }
            | Self::PromoteConference { .. }
            | Self::DeleteConference { .. }
            | Self::InspectConference { .. }
            | Self::ListConferences { .. } => None,
        }
    }

    /// The other connection it names, if it names two.
    pub const fn peer(&self) -> Option<ConnectionId> {
        if let Self::StartRelay { b, .. } = self { Some(*b) } else { None }
    }

    /// Whether it only asks and changes nothing.
    pub(crate) const fn only_asks(&self) -> bool {
        matches!(
            self,
            Self::InspectConnection { .. }
                | Self::ListConnections { .. }
                | Self::InspectConference { .. }
                | Self::ListConferences { .. }
                | Self::ListOperations { .. }
        )
    }

    /// The conference that exists already and is named.
    pub const fn conference(&self) -> Option<ConferenceId> {
        match self {
            Self::PromoteConference { id } | Self::DeleteConference { id, .. } | Self::InspectConference { id } => {
                Some(*id)
            }
            Self::VacateConference { id } => Some(*id),
            Self::JoinConference { conference, .. }
            | Self::DropPart { conference, .. }
            | Self::CedeRole { conference, .. }
            | Self::SetParticipant { conference, .. }
            | Self::LeaveConference { conference, .. } => Some(*conference),
            Self::StartOperation { target, .. }
            | Self::StopOperation { target, .. }
            | Self::AdjustPlay { target, .. }
            | Self::SendDigits { target, .. }
            | Self::ListOperations { target } => match target {
                Target::Conference(id) => Some(*id),
                Target::Connection(_) => None,
            },
            Self::CreateConnection { .. }
            | Self::ModifyConnection { .. }
            | Self::InspectConnection { .. }
            | Self::DeleteConnection { .. }
            | Self::StartRelay { .. }
            | Self::StopRelay { .. }
            | Self::MuteRecording { .. }
            | Self::ListConnections { .. }
            | Self::CreateConference { .. }
            | Self::CreatePart { .. }
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

/// Where a connection's digits come from, besides `SendDigits`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum DigitSource {
    /// Telephone-events (RFC 4733).
    #[default]
    Events,
    /// Telephone-events and, until the endpoint sends its first one, tones in the audio. Costs a decoder and a detector
    /// for every connection that is sent audio.
    Auto,
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
    /// Where the endpoint says it receives RTCP; by default the port after `remote`. Not used with `rtcp_mux`.
    pub remote_rtcp: Option<SocketAddr>,
    /// RTP and RTCP share the RTP port, both ways (RFC 5761).
    pub rtcp_mux: bool,
    /// Whether we send RTCP of our own, where RTP is not just passed on.
    pub rtcp_reports: bool,
    /// Decoded from the endpoint, with its payload type.
    pub rx_codec: CodecKind,
    /// Payload type that is decoded, `0 ..= 127`.
    pub rx_payload_type: u8,
    /// Encoded to the endpoint.
    pub tx_codec: CodecKind,
    /// Payload type that is sent, `0 ..= 127`.
    pub tx_payload_type: u8,
    /// How the encoder is to encode, if it has a choice.
    pub encoder: EncoderSettings,
    /// Payload type of telephone-events (RFC 4733).
    pub telephone_event_payload_type: u8,
    /// Payload type of comfort noise (RFC 3389), both ways: silence is then not sent but described.
    pub comfort_noise_payload_type: Option<u8>,
    /// Identifier of the header extension in which it says how loud each packet is (RFC 6464), `1 ..= 14`. What is said to
    /// be silent is not decoded for a mix, if its codec has no state.
    pub audio_level_extension: Option<u8>,
    /// Identifier of the header extension in which it is told who is how loud in the mix (RFC 6465), `1 ..= 14`. The
    /// packets then name the SSRCs of those who are heard.
    pub mixer_level_extension: Option<u8>,
    /// How long what arrives may wait to be played.
    pub delay: DelaySpec,
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
    /// Where its digits come from.
    pub digit_source: DigitSource,
    /// Reserved only: it ends with `expired` if `ModifyConnection` gives no remote address within this many
    /// milliseconds. Until then it can be modified, inspected and deleted, and nothing else; what arrives is dropped as
    /// `reserved`, so that nobody is learned whom the remote address could still exclude, and `rtp_timeout_ms` counts from
    /// its completion.
    pub reserve_ms: Option<u32>,
}

impl Default for ConnectionSpec {
    /// G.711 µ-law in packets of 20 ms, telephone-events as 101, from whoever sends first.
    fn default() -> Self {
        Self {
            remote: None,
            remote_rtcp: None,
            rtcp_mux: false,
            rtcp_reports: true,
            rx_codec: CodecKind::Pcmu,
            rx_payload_type: CodecKind::Pcmu.payload_type(),
            tx_codec: CodecKind::Pcmu,
            tx_payload_type: CodecKind::Pcmu.payload_type(),
            encoder: EncoderSettings::default(),
            telephone_event_payload_type: 101,
            comfort_noise_payload_type: None,
            audio_level_extension: None,
            mixer_level_extension: None,
            delay: DelaySpec::default(),
            payload_types: [None; PAYLOAD_TYPES_MAX],
            ptime_ms: 20,
            direction: Direction::SendRecv,
            rtp_timeout_ms: None,
            barred: None,
            handover: false,
            digit_source: DigitSource::Events,
            reserve_ms: None,
        }
    }
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
    /// Another way to encode.
    pub encoder: Option<EncoderSettings>,
    /// A new payload type of telephone-events.
    pub telephone_event_payload_type: Option<u8>,
    /// A new payload type of comfort noise; `Some(None)`: none.
    pub comfort_noise_payload_type: Option<Option<u8>>,
    /// A new extension for its levels; `Some(None)`: none.
    pub audio_level_extension: Option<Option<u8>>,
    /// A new extension for the levels of the mix; `Some(None)`: none.
    pub mixer_level_extension: Option<Option<u8>>,
    /// New bounds of the delay.
    pub delay: Option<DelaySpec>,
    /// New further payload types.
    pub payload_types: Option<[Option<u8>; PAYLOAD_TYPES_MAX]>,
    /// A new packet time.
    pub ptime_ms: Option<u32>,
    /// A new direction.
    pub direction: Option<Direction>,
    /// A new timeout; `Some(None)` switches it off.
    pub rtp_timeout_ms: Option<Option<u32>>,
    /// A new source of digits.
    pub digit_source: Option<DigitSource>,
    /// Reserved only from now on, as [`ConnectionSpec::reserve_ms`]: its remote addresses are forgotten, and who was
    /// learned. `Busy` with a `remote`, or while it is wired to something or an operation runs on it.
    pub reserve_ms: Option<u32>,
}

/// How a conference is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConferenceSpec {
    /// How many may join.
    pub participants_max: u32,
    /// Two parties patched to each other, without tones, until it is promoted: `Busy` for a third, for an operation on
    /// it, and for a coach or pupil. Parties whose codec can't be decoded may join if both have the same codecs, payload
    /// types and packet time: their packets are passed on as in a relay, and it can't be promoted.
    pub hairpin: bool,
    /// A tone to all when somebody joins who can be heard (not muted, no monitor, no coach, not receive-only), if others
    /// are there already, and when one leaves who could be heard at any time. Recordings of the conference hold it.
    pub tones: bool,
    /// Rate of the mix. A member whose codec has another is resampled once each way; prompts and recordings are at 8 kHz
    /// whatever it is.
    pub rate: Rate,
    /// So many of the loudest are mixed, with some preference for those who are mixed already; `None`: all.
    pub loudest: Option<u16>,
    /// When talk is told: `talk.started` and `talk.stopped`, and who is the active speaker.
    pub talk: TalkSpec,
}

/// When talk is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TalkSpec {
    /// Whether it is told at all.
    pub told: bool,
    /// A silence of so many milliseconds ends talk, `TALK_STOP_MS`.
    pub stop_ms: u16,
}

impl Default for TalkSpec {
    fn default() -> Self {
        Self { told: true, stop_ms: TALK_STOP_MS_DEFAULT }
    }
}

impl Default for ConferenceSpec {
    fn default() -> Self {
        let participants_max = u32::try_from(PARTICIPANTS_MAX).unwrap_or(u32::MAX);
        Self {
            participants_max,
            hairpin: false,
            tones: false,
            rate: Rate::Narrow,
            loudest: None,
            talk: TalkSpec::default(),
        }
    }
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
    /// Gain of what it hears, likewise. Other than 0 it costs an encoder of its own.
    pub output_gain_db: i16,
    /// Brings what it says to the loudness of a telephone line, -19 dBm0.
    pub agc: bool,
    /// Takes noise out of what it says (RNNoise). Adds 10 ms of delay.
    pub noise_suppression: bool,
    /// Who hears it, and what it hears.
    pub role: Role,
    /// A short beep to it alone, again and again: the first one `TARIFF_PERIOD` after it was switched on, or after the
    /// conference was promoted, counted in time that is mixed.
    pub tariff_tone: bool,
}

/// What a participant is in its conference (Metreos.MediaControl).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Role {
    /// Heard by all, hears all.
    #[default]
    Party,
    /// Outside the mix: hears it, can't be heard, and does not count as somebody who keeps the conference alive.
    Monitor,
    /// Heard by the pupil alone; hears the conference. At most one: the role moves here if another has it.
    Coach,
    /// Hears the conference and the coach. At most one, likewise.
    Pupil,
}

impl Role {
    /// Whether it means nothing between two: a hairpin has to be promoted before.
    pub const fn needs_promotion(self) -> bool {
        matches!(self, Self::Coach | Self::Pupil)
    }
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
    /// New gain of what it hears, in decibels.
    pub output_gain_db: Option<i16>,
    /// Automatic gain on or off.
    pub agc: Option<bool>,
    /// Noise suppression on or off.
    pub noise_suppression: Option<bool>,
    /// A new role; from and to `Monitor` only by leaving and joining again.
    pub role: Option<Role>,
    /// Tariff tone on or off.
    pub tariff_tone: Option<bool>,
}

/// What an operation does.
#[derive(Debug)]
pub enum OperationSpec {
    /// Plays prompts one after the other; ends with `eod` after the last.
    Play {
        /// The prompts; handed back in the final event.
        playlist: Box<Playlist>,
        /// Volume to begin with, in steps; taken as the latest `AdjustPlay` was (absolute or relative).
        volume: Option<i8>,
        /// Speed to begin with, in steps; likewise.
        speed: Option<i8>,
        /// A participant it plays to is not heard by the others meanwhile.
        isolate: bool,
        /// What else ends it.
        until: StopConditions,
    },
    /// Plays one or two tones; ends with `eod` after its duration.
    Tone {
        /// The tone.
        tone: ToneSpec,
        /// For how long, in milliseconds; `None`: until something else ends it.
        duration_ms: Option<u32>,
        /// A participant it plays to is not heard by the others meanwhile.
        isolate: bool,
        /// What else ends it.
        until: StopConditions,
    },
    /// Records.
    Record {
        /// Where the samples go.
        queue: Arc<RecordQueue>,
        /// What ends it.
        until: StopConditions,
    },
    /// Records both parties of a relay, the caller left and the called right, until the relay ends (`autostop`) or
    /// something else ends it. Runs on either of the two; one at a time. `silence` is that of both.
    RecordCall {
        /// Where the samples go.
        queue: Arc<RecordQueue>,
        /// Whose channel is the left one.
        caller: ConnectionId,
        /// Whose is the right one.
        called: ConnectionId,
        /// What ends it.
        until: StopConditions,
    },
    /// Collects digits, those in the buffer first.
    GatherDigits {
        /// Forget what was pressed before.
        flush: bool,
        /// What ends it.
        until: StopConditions,
    },
    /// Ends with `silence` once there has been silence for as long as `until.silence_ms` says.
    DetectSilence {
        /// What ends it; `silence_ms` is given.
        until: StopConditions,
    },
    /// Ends with `nonsilence` once there has been sound for as long as `until.nonsilence_ms` says.
    DetectNonSilence {
        /// What ends it; `nonsilence_ms` is given.
        until: StopConditions,
    },
}

impl OperationSpec {
    /// Its kind.
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Play { .. } => OperationKind::Play,
            Self::Tone { .. } => OperationKind::Tone,
            Self::Record { .. } | Self::RecordCall { .. } => OperationKind::Record,
            Self::GatherDigits { .. } => OperationKind::GatherDigits,
            Self::DetectSilence { .. } => OperationKind::DetectSilence,
            Self::DetectNonSilence { .. } => OperationKind::DetectNonSilence,
        }
    }
}

/// What ends an operation besides its own end. Whatever comes first ends it; if several hold in one step of 20 ms, the
/// first in the order of [`Condition`](crate::event::Condition) is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StopConditions {
    /// The operation's own time limit in milliseconds: `maxtime`.
    pub max_time_ms: Option<u32>,
    /// So many digits, `1 ..= DIGITS_MAX`: `maxdigits`.
    pub digits_max: Option<u8>,
    /// One of these digits: `digit`.
    pub digit: Option<DigitSet>,
    /// One of these digits: `digitlist`.
    pub digit_list: Option<DigitSet>,
    /// These digits in this order: `digitpattern`.
    pub digit_pattern: Option<Digits>,
    /// So many milliseconds since the last digit, once there was one: `interdigdelay`.
    pub inter_digit_ms: Option<u32>,
    /// So many milliseconds of silence: `silence`.
    pub silence_ms: Option<u32>,
    /// So many milliseconds of sound: `nonsilence`.
    pub nonsilence_ms: Option<u32>,
    /// The limit of the command, in milliseconds: `timeout`.
    pub timeout_ms: Option<u32>,
}

impl StopConditions {
    /// Ends with `maxtime` after so many milliseconds.
    pub fn after(max_time_ms: Option<u32>) -> Self {
        Self { max_time_ms, ..Self::default() }
    }
}

/// One or two sines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToneSpec {
    /// Frequency in Hz and level in dBm0 of the first.
    pub first: (u16, i8),
    /// The same of the second, if there is one.
    pub second: Option<(u16, i8)>,
}

/// A change of volume or speed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlayChange {
    /// What is changed and how.
    pub adjust: PlayAdjust,
    /// Whether `AdjustPlay` fails if nothing plays.
    pub only_if_playing: bool,
}

/// How volume or speed are changed. Steps are 2 dB of volume, 10 % of speed; what results is kept within
/// `PLAY_STEPS_MIN ..= PLAY_STEPS_MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlayAdjust {
    /// To so many steps of volume.
    VolumeTo(i8),
    /// By so many steps of volume.
    VolumeBy(i8),
    /// To so many steps of speed.
    SpeedTo(i8),
    /// By so many steps of speed.
    SpeedBy(i8),
    /// Between the volume at the origin and the last one it was changed to.
    Toggle(VolumeToggle),
}

/// What a toggle of the volume does (Metreos.MediaControl, ToggleType 1 to 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VolumeToggle {
    /// To the origin if it is changed, else to the last change.
    Switch,
    /// To the origin.
    Origin,
    /// To the last change.
    Last,
    /// To the origin, and the last change is forgotten.
    Reset,
}

/// The kinds of operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OperationKind {
    /// See [`OperationSpec::Play`].
    Play,
    /// See [`OperationSpec::Tone`].
    Tone,
    /// See [`OperationSpec::Record`].
    Record,
    /// See [`OperationSpec::GatherDigits`].
    GatherDigits,
    /// See [`OperationSpec::DetectSilence`].
    DetectSilence,
    /// See [`OperationSpec::DetectNonSilence`].
    DetectNonSilence,
}

impl OperationKind {
    /// Whether its target hears it: one such operation at a time on a connection.
    pub const fn is_heard(self) -> bool {
        matches!(self, Self::Play | Self::Tone)
    }

    /// Whether it waits for silence or sound: one such operation at a time on a connection.
    pub const fn is_detection(self) -> bool {
        matches!(self, Self::DetectSilence | Self::DetectNonSilence)
    }

    /// The name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Tone => "tone",
            Self::Record => "record",
            Self::GatherDigits => "gather_digits",
            Self::DetectSilence => "detect_silence",
            Self::DetectNonSilence => "detect_nonsilence",
        }
    }
}
