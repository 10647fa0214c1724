//! What has to happen exactly once, and what has to hold of streams.

use std::collections::{BTreeMap, BTreeSet};

use ringbridge_media::engine::Totals;
use ringbridge_media::event::{Answer, Effect};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId};
use ringbridge_wire::rtp::RtpPacket;

/// What lives.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    connections: BTreeSet<ConnectionId>,
    conferences: BTreeSet<ConferenceId>,
    operations: BTreeSet<OperationId>,
}

impl Ledger {
    pub(super) fn connection_begins(&mut self, id: ConnectionId) {
        assert!(self.connections.insert(id));
    }

    pub(super) fn conference_begins(&mut self, id: ConferenceId) {
        assert!(self.conferences.insert(id));
    }

    pub(super) fn operation_begins(&mut self, id: OperationId) {
        assert!(self.operations.insert(id));
    }

    pub(super) fn connection_ended(&mut self, id: ConnectionId) {
        assert!(self.connections.remove(&id), "{id} ended, and was not there");
    }

    pub(super) fn conference_ended(&mut self, id: ConferenceId) {
        assert!(self.conferences.remove(&id), "{id} ended, and was not there");
    }

    pub(super) fn operation_ended(&mut self, id: OperationId) {
        assert!(self.operations.remove(&id), "{id} ended, and was not there");
    }

    pub(super) fn lives(&self, id: ConnectionId) {
        assert!(self.connections.contains(&id), "{id} is told of, and is not there");
    }

    pub(super) fn is_open(&self, id: ConferenceId) {
        assert!(self.conferences.contains(&id), "{id} is told of, and is not there");
    }

    pub(super) fn runs(&self, id: OperationId) -> bool {
        self.operations.contains(&id)
    }

    pub(super) fn connections(&self) -> Vec<ConnectionId> {
        self.connections.iter().copied().collect()
    }

    pub(super) fn conferences(&self) -> Vec<ConferenceId> {
        self.conferences.iter().copied().collect()
    }

    /// What an answer claims has to have happened.
    pub(super) fn answered(&self, answer: &Answer) {
        if let Some(effect) = answer.effect() {
            check_effect(effect);
        }
        match answer {
            Answer::Deleted { connections, .. } => {
                for id in connections {
                    assert!(!self.connections.contains(id), "{id} deleted without an end");
                }
            }
            Answer::Stopped { operations, .. } => {
                for id in operations {
                    assert!(!self.operations.contains(id), "{id} stopped without an end");
                }
            }
            Answer::Connection(status) => self.lives(status.id),
            Answer::Connections { page, .. } => page.iter().for_each(|status| self.lives(status.id)),
            Answer::Conference(status) => {
                status.participants.iter().for_each(|member| self.lives(member.connection));
            }
            Answer::Conferences { page, .. } => page.iter().for_each(|status| self.is_open(status.id)),
            Answer::Operations(page) => assert!(page.iter().all(|operation| self.runs(operation.id))),
            Answer::Done | Answer::Effect(_) => {}
        }
    }

    pub(super) fn check(&self, totals: &Totals) {
        assert_eq!(totals.connections, self.connections.len() as u64);
        assert_eq!(totals.conferences, self.conferences.len() as u64);
        assert_eq!(totals.operations, self.operations.len() as u64);
    }

    pub(super) fn check_empty(&self) {
        assert!(self.connections.is_empty() && self.conferences.is_empty());
        assert!(self.operations.is_empty(), "never ended: {:?}", self.operations);
    }
}

fn check_effect(effect: &Effect) {
    let took = effect.media_time_ms - effect.received_media_time_ms;
    assert!((0.0..=20.0).contains(&took), "took effect after {took} ms");
    let mut streams: Vec<_> = effect.streams.iter().map(|stamp| (stamp.connection, stamp.outgoing)).collect();
    streams.sort_unstable();
    assert!(streams.windows(2).all(|pair| pair[0] != pair[1]), "two stamps for one stream: {effect:?}");
}

/// The stream of our own towards one connection.
#[derive(Clone, Copy, Debug)]
struct OwnStream {
    ssrc: u32,
    /// Highest so far.
    sequence: u16,
    timestamp: u32,
    /// Whether the highest was relayed: the step to the next packet of our own is then the sender's affair.
    relayed: bool,
}

/// Every stream of our own, by connection.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<ConnectionId, OwnStream>);

impl Streams {
    /// A packet that the engine made. A collision of SSRCs gives it another SSRC, and the numbers go on.
    pub(super) fn made(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let header = packet.header();
        let (ssrc, sequence, timestamp) = (header.ssrc.0, header.sequence_number.0, header.timestamp.0);
        let Some(before) = self.0.insert(id, OwnStream { ssrc, sequence, timestamp, relayed: false }) else {
            assert!(header.marker, "{id}: a stream begins with a marker");
            return;
        };
        assert!(before.ssrc == ssrc || header.marker, "{id}: a stream begins with a marker");
        assert_eq!(sequence, before.sequence.wrapping_add(1), "{id}: a gap in the sequence numbers");
        let step = timestamp.wrapping_sub(before.timestamp).cast_signed();
        // What an endpoint has sent may lie anywhere.
        assert!(step > 0 || before.relayed, "{id}: time runs backwards by {step}");
    }

    /// A packet that was relayed under our own SSRC; loss, order and duplicates are the sender's.
    pub(super) fn continued(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let header = packet.header();
        let (ssrc, sequence, timestamp) = (header.ssrc.0, header.sequence_number.0, header.timestamp.0);
        let next = OwnStream { ssrc, sequence, timestamp, relayed: true };
        // It may have begun with packets that had nowhere to go.
        let stream = self.0.entry(id).or_insert(next);
        let ahead = sequence.wrapping_sub(stream.sequence).cast_signed();
        assert!(stream.relayed || ahead > 0, "{id}: a number that was used");
        if ahead > 0 {
            *stream = next;
        }
    }

    pub(super) fn ssrc(&self, id: ConnectionId) -> Option<u32> {
        self.0.get(&id).map(|stream| stream.ssrc)
    }
}
