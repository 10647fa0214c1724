//! Checkers that hold for any input.

use std::collections::{BTreeMap, BTreeSet};

use ringbridge_media::command::Role;
use ringbridge_media::command::{CodecKind, Rate};
use ringbridge_media::event::{Answer, ConferenceStatus, Effect, EndReason};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId};
use ringbridge_media::time::Instant;
use ringbridge_wire::rtcp::{RtcpPacket, parse_compound};
use ringbridge_wire::rtp::RtpPacket;

/// The stream of our own towards one connection.
#[derive(Clone, Copy, Debug)]
struct OwnStream {
    ssrc: u32,
    /// Highest so far.
    sequence: u16,
    timestamp: u32,
    /// Whether the highest was relayed: the step to the next packet of our own is then the sender's affair.
    relayed: bool,
    len: u32,
}

/// Every stream of our own, by connection.
#[derive(Debug, Default)]
pub(crate) struct Streams(BTreeMap<ConnectionId, OwnStream>);

impl Streams {
    /// A packet that the engine made.
    pub(crate) fn made(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let header = packet.header();
        let (sequence, timestamp) = (header.sequence_number.0, header.timestamp.0);
        let bytes = u32::try_from(packet.payload().len()).expect("a packet");
        // Two bytes a sample in L16.
        let is_l16 = Rate::ALL.map(|rate| CodecKind::L16(rate).payload_type()).contains(&header.payload_type);
        let len = if is_l16 { bytes / 2 } else { bytes };
        let stream = OwnStream { ssrc: header.ssrc.0, sequence, timestamp, relayed: false, len };
        let Some(before) = self.0.insert(id, stream) else {
            assert!(header.marker, "{id}: a stream begins with a marker");
            return;
        };
        assert_eq!(before.ssrc, header.ssrc.0, "{id}: one SSRC for life");
        assert_eq!(sequence, before.sequence.wrapping_add(1), "{id}: a gap in the sequence numbers");
        let step = timestamp.wrapping_sub(before.timestamp).cast_signed();
        assert!(step > 0, "{id}: time runs backwards by {step}");
        if !before.relayed {
            let jumped = step.cast_unsigned() != before.len;
            assert_eq!(
                jumped, header.marker,
                "{id}: a marker where and only where time jumps: {step} after {}",
                before.len
            );
        }
    }

    /// A packet that was relayed under our own SSRC; loss, order and duplicates are the sender's.
    pub(crate) fn continued(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let header = packet.header();
        let stream = self.0.get_mut(&id).unwrap_or_else(|| panic!("{id}: a stream of our own was not begun by us"));
        assert_eq!(stream.ssrc, header.ssrc.0, "{id}: one SSRC for life");
        let ahead = header.sequence_number.0.wrapping_sub(stream.sequence).cast_signed();
        assert!(stream.relayed || ahead > 0, "{id}: a number that was used");
        if ahead > 0 {
            (stream.sequence, stream.timestamp, stream.relayed) = (header.sequence_number.0, header.timestamp.0, true);
        }
    }

    /// A telephone-event that was passed into our own stream: it takes a number, and has a time of its own.
    pub(crate) fn interjected(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let header = packet.header();
        let stream = self.0.get_mut(&id).unwrap_or_else(|| panic!("{id}: a stream of our own was not begun by us"));
        assert_eq!(stream.ssrc, header.ssrc.0, "{id}: one SSRC for life");
        let ahead = header.sequence_number.0.wrapping_sub(stream.sequence).cast_signed();
        assert!(stream.relayed || ahead > 0, "{id}: a number that was used");
        if ahead > 0 {
            (stream.sequence, stream.relayed) = (header.sequence_number.0, true);
        }
    }

    /// RTCP that the engine made: about the stream it sends, if it sends one.
    pub(crate) fn reported(&self, id: ConnectionId, bytes: &[u8]) {
        for packet in parse_compound(bytes).expect("a compound packet of our own") {
            let ssrc = match packet {
                RtcpPacket::SenderReport(report) => {
                    assert!(self.0.contains_key(&id), "{id}: a sender report without a stream");
                    report.ssrc
                }
                RtcpPacket::ReceiverReport(report) => report.ssrc,
                RtcpPacket::SourceDescription(_) | RtcpPacket::Bye(_) | RtcpPacket::Other { .. } => continue,
            };
            assert!(self.ssrc(id).is_none_or(|own| own == ssrc.0), "{id}: a report under another SSRC");
        }
    }

    pub(crate) fn ssrc(&self, id: ConnectionId) -> Option<u32> {
        self.0.get(&id).map(|stream| stream.ssrc)
    }
}

/// Everything that has to happen exactly once.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) connections: BTreeSet<ConnectionId>,
    pub(crate) conferences: BTreeSet<ConferenceId>,
    pub(crate) operations: BTreeSet<OperationId>,
    /// Reserved only, and until when.
    pub(crate) reserved: BTreeMap<ConnectionId, Instant>,
    /// Told to be deleted, but not yet said to have ended.
    deleted: BTreeSet<ConnectionId>,
}

impl Ledger {
    pub(crate) fn connection_ended(&mut self, now: Instant, id: ConnectionId, reason: EndReason) {
        assert!(self.connections.remove(&id), "{id} ended, and was not there");
        let reserved_until = self.reserved.remove(&id);
        if reason == EndReason::Expired {
            assert!(
                reserved_until.is_some_and(|until| until <= now),
                "{id} expired, reserved until {reserved_until:?}"
            );
        } else {
            self.deleted.insert(id);
        }
    }

    pub(crate) fn conference_ended(&mut self, id: ConferenceId) {
        assert!(self.conferences.remove(&id), "{id} ended, and was not there");
    }

    pub(crate) fn operation_ended(&mut self, id: OperationId) {
        assert!(self.operations.remove(&id), "{id} ended, and was not there");
    }

    /// What an answer claims has to have happened.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        match answer {
            Answer::Deleted { connections, effect } => {
                for id in connections {
                    assert!(self.deleted.remove(id), "{id} deleted without an end");
                }
                check_effect(effect);
            }
            Answer::Effect(effect) => check_effect(effect),
            Answer::Stopped { operations, effect } => {
                for id in operations {
                    assert!(!self.operations.contains(id), "{id} stopped without an end");
                }
                check_effect(effect);
            }
            Answer::Conference(status) => check_conference(status),
            Answer::Done
            | Answer::Connection(_)
            | Answer::Connections { .. }
            | Answer::Conferences { .. }
            | Answer::Operations(_) => {}
        }
        assert!(self.deleted.is_empty(), "ended, but not said to be deleted: {:?}", self.deleted);
    }
}

/// What is true of every conference at any time.
fn check_conference(status: &ConferenceStatus) {
    let count = |role| status.participants.iter().filter(|member| member.role == role).count();
    let (coaches, pupils) = (count(Role::Coach), count(Role::Pupil));
    assert!(coaches <= 1 && pupils <= 1, "{status:?}");
    assert!(!status.hairpin || (status.participants.len() <= 2 && coaches + pupils == 0), "{status:?}");
    assert!(!status.hairpin || status.operations.is_empty(), "{status:?}");
    for member in &status.participants {
        assert!(!member.muted || member.role == Role::Party, "{status:?}");
        assert!(!member.tariff_tone || member.role != Role::Coach, "{status:?}");
        assert!(!member.talking || member.role != Role::Monitor, "{status:?}");
    }
}

fn check_effect(effect: &Effect) {
    let took = effect.media_time_ms - effect.received_media_time_ms;
    assert!((0.0..=20.0).contains(&took), "took effect after {took} ms");
    let mut streams: Vec<_> = effect.streams.iter().map(|stamp| (stamp.connection, stamp.outgoing)).collect();
    streams.sort_unstable();
    assert!(streams.windows(2).all(|pair| pair[0] != pair[1]), "two stamps for one stream: {effect:?}");
}
