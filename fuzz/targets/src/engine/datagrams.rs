//! What endpoints and strangers send.

use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_media::command::ConnectionSpec;
use ringbridge_media::port::Port;
use ringbridge_wire::rtcp::{CompoundWriter, NtpTimestamp, ReportBlock, SenderInfo};
use ringbridge_wire::rtp::{COMFORT_NOISE, RTP_HEADER_BYTES_MAX, RtpHeader};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};
use ringbridge_wire::telephone_event::TelephoneEvent;
use ringbridge_wire::xr::{Delay, XrContents};

use super::World;
use crate::script::Script;

const STRANGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), 9);

/// An endpoint, in step with its own stream unless the script says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phone {
    pub(super) address: SocketAddr,
    pub(super) payload_type: u8,
    pub(super) event_payload_type: u8,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// Bytes of a packet that fits its codec and packet time, if that can be told.
    payload_bytes: usize,
    ticks: u32,
    ptime_ms: u32,
}

impl Phone {
    pub(super) fn new(address: SocketAddr, spec: &ConnectionSpec, ssrc: u32) -> Self {
        let ticks = spec.rx_codec.clock_rate_hz() / 1000 * spec.ptime_ms;
        let samples = spec.rx_codec.rate().hz() / 1000 * spec.ptime_ms;
        let bytes = if spec.rx_codec.static_payload_type().is_some() { samples } else { 2 * samples };
        Self {
            address,
            payload_type: spec.rx_payload_type & 0x7F,
            event_payload_type: spec.telephone_event_payload_type & 0x7F,
            ssrc,
            sequence: 65_530,
            timestamp: 0xFFFF_F000,
            payload_bytes: usize::try_from(bytes).unwrap_or(0).min(1_500),
            ticks,
            ptime_ms: spec.ptime_ms,
        }
    }

    fn header(&self, payload_type: u8) -> RtpHeader {
        RtpHeader {
            marker: false,
            payload_type,
            sequence_number: SeqNumber(self.sequence),
            timestamp: RtpTimestamp(self.timestamp),
            ssrc: Ssrc(self.ssrc),
        }
    }

    fn advance(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.ticks);
    }
}

impl World {
    /// Some packets as they should be, in time.
    pub(super) fn talk(&mut self, script: &mut Script<'_>) {
        let Some((slot, mut phone)) = self.any_phone(script) else { return };
        let (packets, loudness) = (script.below(24), script.byte());
        for _ in 0..packets {
            let mut bytes = [0; 12 + 1_500];
            if let Some(head) = bytes.first_chunk_mut() {
                phone.header(phone.payload_type).emit(head);
            }
            for (n, byte) in bytes[12..].iter_mut().enumerate() {
                *byte = if n % 16 < 8 { loudness } else { !loudness };
            }
            self.deliver(Port::rtp(slot), phone.address, false, &bytes[..12 + phone.payload_bytes]);
            phone.advance();
            self.pass(Duration::from_millis(u64::from(phone.ptime_ms.min(200))));
        }
        self.keep(slot, phone);
    }

    /// A packet with something unusual about it.
    pub(super) fn send_rtp(&mut self, script: &mut Script<'_>) {
        let Some((slot, mut phone)) = self.any_phone(script) else { return };
        let payload_type = match script.below(4) {
            0 => script.byte() & 0x7F,
            1 => COMFORT_NOISE,
            _ => phone.payload_type,
        };
        match script.below(8) {
            0 => phone.ssrc = script.long(),
            1 => phone.timestamp = script.long(),
            2 => phone.sequence = script.word(),
            // As we send.
            3 => phone.ssrc = self.streams_ssrc(slot).unwrap_or(phone.ssrc),
            4 => phone.address.set_port(script.word().max(1)),
            _ => {}
        }
        let mut header = phone.header(payload_type);
        header.marker = script.flag();
        let csrcs: Vec<u32> = (0..script.below(17)).map(u32::from).collect();
        let levels = script.option(|script| (script.byte(), script.bytes(4)));
        let mut bytes = vec![0; RTP_HEADER_BYTES_MAX];
        let len = header.emit_with(&mut bytes, &csrcs, levels).unwrap_or(0);
        bytes.truncate(len);
        match script.below(4) {
            0 => bytes.resize(len + usize::from(script.word()) % 1_600, script.byte()),
            1 => bytes.extend_from_slice(script.counted()),
            2 => bytes.resize(len + phone.payload_bytes, script.byte()),
            _ => {}
        }
        // Bits of the first byte, or of the header, that lie.
        if script.below(4) == 0 {
            let at = usize::from(script.byte()) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= script.byte();
            }
        }
        let source = if script.below(8) == 0 { STRANGER } else { phone.address };
        let truncated = script.below(32) == 1;
        self.deliver(Port::rtp(slot), source, truncated, &bytes);
        phone.advance();
        self.keep(slot, phone);
    }

    /// Packets of a telephone-event, with an end or without.
    pub(super) fn send_event(&mut self, script: &mut Script<'_>) {
        let Some((slot, mut phone)) = self.any_phone(script) else { return };
        let (event, packets) = (script.byte() % 20, script.below(6));
        let end_from = script.below(8);
        for n in 0..packets {
            let mut bytes = [0; 16];
            if let Some((head, payload)) = bytes.split_first_chunk_mut::<12>() {
                phone.header(phone.event_payload_type).emit(head);
                let duration = u16::from(n + 1) * 160;
                if let Some(payload) = payload.first_chunk_mut() {
                    TelephoneEvent { event, end: n >= end_from, volume: 10, duration }.emit(payload);
                }
            }
            self.deliver(Port::rtp(slot), phone.address, false, &bytes);
            phone.sequence = phone.sequence.wrapping_add(1);
        }
        phone.timestamp = phone.timestamp.wrapping_add(160 * u32::from(packets));
        self.keep(slot, phone);
    }

    /// Reports, true ones and lies.
    pub(super) fn send_rtcp(&mut self, script: &mut Script<'_>) {
        let Some((slot, phone)) = self.any_phone(script) else { return };
        let about = Ssrc(self.streams_ssrc(slot).unwrap_or(1));
        let ssrc = Ssrc(if script.flag() { phone.ssrc } else { script.long() });
        let mut out = [0; 512];
        let mut writer = CompoundWriter::new(&mut out);
        let block = ReportBlock {
            ssrc: about,
            fraction_lost: script.byte(),
            cumulative_lost: script.long().cast_signed(),
            highest_sequence: script.long(),
            interarrival_jitter: script.long(),
            last_sr: script.long(),
            delay_since_last_sr: script.long(),
        };
        let ntp = NtpTimestamp(u64::from(script.long()) << 16);
        let written = match script.below(5) {
            0 => {
                let info = SenderInfo {
                    ntp,
                    rtp_timestamp: RtpTimestamp(phone.timestamp),
                    packet_count: 1,
                    octet_count: script.long(),
                };
                writer.sender_report(ssrc, &info, &[block])
            }
            1 => writer.receiver_report(ssrc, &[block, block]),
            2 => writer.bye(&[ssrc]),
            3 => {
                let delay = Delay { ssrc: about, last_rr: script.long(), delay_since_last_rr: script.long() };
                let contents = XrContents { reference_time: Some(ntp), delays: &[delay], metrics: None };
                writer.extended_report(ssrc, &contents)
            }
            _ => writer.cname(ssrc, script.bytes(20)),
        };
        assert!(written.is_ok(), "there is room");
        let len = writer.len();
        if script.below(3) == 0 {
            let at = usize::from(script.byte()) % len;
            out[at] ^= script.byte();
        }
        let cut = if script.below(8) == 0 { usize::from(script.byte()) % len } else { len };
        let mut source = phone.address;
        if !script.flag() {
            source.set_port(source.port().wrapping_add(1));
            self.deliver(Port::rtcp(slot), source, false, &out[..cut]);
        } else {
            self.deliver(Port::rtp(slot), source, false, &out[..cut]);
        }
    }

    /// Whatever the script says, to any port, from anybody.
    pub(super) fn send_noise(&mut self, script: &mut Script<'_>) {
        let port = self.any_port(script);
        let phone = self.slots.get(&port.slot).and_then(|id| self.phones.get(id));
        let source = phone.filter(|_| script.flag()).map_or(STRANGER, |phone| phone.address);
        let truncated = script.below(8) == 1;
        let bytes = script.counted();
        self.deliver(port, source, truncated, bytes);
    }

    fn any_phone(&self, script: &mut Script<'_>) -> Option<(u32, Phone)> {
        let at = usize::from(script.byte()) % self.slots.len().max(1);
        let (slot, id) = self.slots.iter().nth(at)?;
        Some((*slot, *self.phones.get(id)?))
    }

    /// Remembers how far its stream has got, if it is still there.
    fn keep(&mut self, slot: u32, phone: Phone) {
        if let Some(place) = self.slots.get(&slot).and_then(|id| self.phones.get_mut(id)) {
            *place = phone;
        }
    }

    fn streams_ssrc(&self, slot: u32) -> Option<u32> {
        self.streams.ssrc(*self.slots.get(&slot)?)
    }
}
