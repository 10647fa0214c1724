//! Datagrams: what phones and strangers send, what engines make of it, and what leaves them.

use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_codec::g711;
use ringbridge_media::command::{CodecKind, Rate};
use ringbridge_media::engine::Totals;
use ringbridge_media::event::DropReason;
use ringbridge_media::id::ConnectionId;
use ringbridge_media::port::{DatagramMeta, Disposition, Port, Transmit};
use ringbridge_wire::rtp::RtpPacket;

use super::World;
use crate::sim::network::Datagram;

impl World {
    pub(super) fn speak(&mut self, id: ConnectionId) {
        let Some(phone) = self.phones.get_mut(&id) else { return };
        while phone.next_at <= self.now {
            let at = phone.next_at;
            let bytes = phone.packet();
            self.network.send(at.max(self.now), Datagram { to: id, rtcp: false, source: phone.address, bytes });
        }
        let mut extra = |rtcp, source, bytes| self.network.send(self.now, Datagram { to: id, rtcp, source, bytes });
        match self.dice.below(400) {
            0 => phone.talks = !phone.talks,
            1 => phone.next_at = self.now + Duration::from_millis(self.dice.below(1_500)),
            2 => phone.restart(0x100 + u32::try_from(self.dice.below(1 << 30)).expect("30 bits")),
            // A NAT gives it another port.
            3 if self.dice.one_in(4) => phone.address.set_port(phone.address.port() ^ 1),
            4..8 => {
                let mut source = phone.address;
                source.set_port(source.port() + 1);
                extra(true, source, vec![0x80, 201, 0, 1, 0, 0, 0, 7]);
            }
            8..12 => extra(false, phone.address, phone.wrap(101, &[5, 0x80 | 10, 1, 0x40])),
            // A digit whose end never comes.
            20..22 => extra(false, phone.address, phone.wrap(101, &[11, 10, 0, 0xa0])),
            // A stranger, with noise or with a guess.
            12..20 => {
                let stranger = SocketAddr::from(([203, 0, 113, 9], 9));
                let mut bytes = phone.wrap(0, &[0x55; 40]);
                if self.dice.one_in(2) {
                    let len = self.dice.index(bytes.len() + 1);
                    bytes.truncate(len);
                    if let Some(byte) = bytes.first_mut() {
                        *byte = u8::try_from(self.dice.below(256)).expect("a byte");
                    }
                }
                extra(self.dice.one_in(4), stranger, bytes);
            }
            _ => {}
        }
    }

    pub(super) fn arrive(&mut self, datagram: &Datagram) {
        // What is under way to a port that is closed, or that somebody else has by now, comes to nobody.
        let Some((shard, slot)) = self.place_of(datagram.to) else { return };
        let port = if datagram.rtcp { Port::rtcp(slot) } else { Port::rtp(slot) };
        let connected = self.shards[shard].connected.get(&port.index()).copied();
        if connected.is_some_and(|peer| peer != datagram.source) {
            return;
        }
        let source = if connected.is_some() { None } else { Some(datagram.source) };
        let meta = DatagramMeta { port, source, truncated: self.dice.one_in(5_000) };
        let mut buffer = datagram.bytes.clone();
        self.report.arrived += 1;
        let before = *self.shards[shard].engine.totals();
        let disposition = self.shards[shard].engine.handle_datagram(self.now, &meta, &mut buffer);
        let after = *self.shards[shard].engine.totals();
        check_counts(&before, &after, disposition);
        if let Disposition::Forward(transmit) = disposition {
            self.check_relayed(shard, transmit, &datagram.bytes, &buffer);
            self.leave(shard, transmit, &buffer);
        } else {
            assert!(buffer == datagram.bytes, "what is consumed is left alone");
        }
        self.drain(shard);
    }

    fn check_relayed(&mut self, shard: usize, transmit: Transmit, came: &[u8], goes: &[u8]) {
        assert_eq!(transmit.len, came.len());
        if transmit.port.rtcp {
            assert!(came == goes, "RTCP is relayed as it is");
            return;
        }
        let to = self.shards[shard].slots[&transmit.port.slot];
        let (before, after) = (RtpPacket::parse(came).expect("relayed"), RtpPacket::parse(goes).expect("relayed"));
        if self.streams.ssrc(to) == Some(after.ssrc().0) && after.payload_type() == TELEPHONE_EVENT {
            // Through a relay that transcodes its duration is counted by another clock.
            let starts = [before, after].map(|packet| packet.payload().get(..2));
            assert_eq!(starts[0], starts[1], "the same digit");
            self.streams.interjected(to, &after);
        } else if self.streams.ssrc(to) == Some(after.ssrc().0) {
            assert!(came[12..] == goes[12..] && came[0] == goes[0], "only our own header fields differ");
            assert_eq!(before.payload_type(), after.payload_type());
            self.streams.continued(to, &after);
        } else if before.ssrc() == after.ssrc() {
            assert!(came == goes, "a relay changes nothing");
        }
        if let Some(phone) = self.phones.get_mut(&to) {
            phone.ear.forget();
        }
    }

    /// A packet leaves; sometimes the kernel does not take it.
    pub(super) fn leave(&mut self, shard: usize, transmit: Transmit, bytes: &[u8]) {
        let Transmit { port, target, len } = transmit;
        let owner = self.shards[shard].slots.get(&port.slot).copied();
        assert!(owner.is_some(), "a packet leaves by a port that is closed");
        assert!(owner.is_none_or(|id| !self.ledger.reserved.contains_key(&id)), "to one that is reserved only");
        let connected = self.shards[shard].connected.get(&port.index()).copied();
        let target = target.or(connected).expect("a packet has a destination");
        assert_ne!(target.ip(), SocketAddr::from(([203, 0, 113, 9], 9)).ip(), "a stranger is sent media");
        self.report.left += 1;
        self.shards[shard].packets_out += 1;
        let (now, place) = (self.now.as_nanos(), (shard as u64) << 32 | u64::from(port.index()));
        self.note(&now.to_le_bytes());
        self.note(&place.to_le_bytes());
        self.note(&bytes[..len]);
        if self.dice.one_in(1_000) {
            self.shards[shard].engine.count_drop(port, DropReason::SendBufferFull, 1);
            self.shards[shard].packets_out -= 1;
        }
    }

    pub(super) fn listen(&mut self, id: ConnectionId, packet: &RtpPacket<'_>) {
        let Some(phone) = self.phones.get_mut(&id) else { return };
        let mut samples = vec![0; packet.payload().len()];
        let l16 = Rate::ALL.into_iter().find(|rate| CodecKind::L16(*rate).payload_type() == packet.payload_type());
        match (packet.payload_type(), l16) {
            (_, Some(rate)) => {
                // Every sample of a ladder of 8 kHz: tones are far below half of that.
                let words = packet.payload().as_chunks::<2>().0.iter().map(|bytes| i16::from_be_bytes(*bytes));
                samples = words.step_by(rate.frame_samples() / Rate::Narrow.frame_samples()).collect();
            }
            (0, None) => g711::decode_ulaw(packet.payload(), &mut samples),
            (_, None) => g711::decode_alaw(packet.payload(), &mut samples),
        }
        let before = phone.ear.loud_windows;
        assert!(phone.ear.hear(&samples), "{id} hears itself");
        self.report.loud_windows += phone.ear.loud_windows - before;
    }
}

/// Every datagram is taken in, or dropped, or both; what is forwarded is taken in and sent.
fn check_counts(before: &Totals, after: &Totals, disposition: Disposition) {
    let (came, went) = (after.packets_in - before.packets_in, after.packets_out - before.packets_out);
    let dropped = after.drops.total() - before.drops.total();
    match disposition {
        Disposition::Forward(_) => assert_eq!((came, went, dropped), (1, 1, 0)),
        Disposition::Consumed => {
            assert!(
                came <= 1 && dropped <= 1 && came + dropped >= 1 && went == 0,
                "{came} came, {went} went, {dropped} dropped"
            );
        }
    }
}

/// Payload type of telephone-events.
const TELEPHONE_EVENT: u8 = 101;
