//! RTP: parsing, rewriting, extensions, telephone-events, telling protocols apart.

use ringbridge_wire::audio_level::{self, AudioLevel};
use ringbridge_wire::demux::{self, Kind};
use ringbridge_wire::extension::{ExtensionForm, ExtensionWriter};
use ringbridge_wire::rtp::{
    self, CSRCS_MAX, RTP_HEADER_BYTES, RTP_HEADER_BYTES_MAX, RtpError, RtpHeader, RtpPacket, rewrite_header, set_marker,
};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};
use ringbridge_wire::telephone_event::{self, TELEPHONE_EVENT_BYTES, TelephoneEvent};

use crate::script::Script;

/// Takes `bytes` for a datagram, and then for fields of a header to write.
pub fn rtp(bytes: &[u8]) {
    read(bytes);
    events(bytes);
    write(&mut Script::new(bytes));
}

fn read(bytes: &[u8]) {
    let kind = demux::classify(bytes);
    assert_eq!(kind == Kind::Empty, bytes.is_empty());
    let packet = match RtpPacket::parse(bytes) {
        Ok(packet) => packet,
        Err(error) => {
            assert_eq!(error == RtpError::HeaderTooShort, bytes.len() < RTP_HEADER_BYTES);
            return;
        }
    };
    assert!(matches!(kind, Kind::Rtp | Kind::Rtcp), "version 2 is told by the first byte");
    let extension = packet.extension().map_or(0, |(_, content)| 4 + content.len());
    assert_eq!(packet.header_len(), RTP_HEADER_BYTES + 4 * packet.csrcs().len() + extension);
    assert!(packet.csrcs().len() <= CSRCS_MAX && packet.payload_type() < 128);
    assert!(packet.header_len() + packet.payload().len() <= bytes.len());

    let mut walked = 0;
    for element in packet.extension_elements() {
        walked += 1 + element.data.len();
        assert!(packet.extension_element(element.id).is_some_and(|data| data.len() < extension));
        let level = AudioLevel::parse(element.data);
        assert_eq!(level.is_err(), element.data.is_empty());
        assert!(level.is_ok_and(|level| level.level < 128) || element.data.is_empty());
        let levels = audio_level::mixer_levels(&packet, element.id);
        assert!(levels.map(|(_, level)| assert!(level < 128)).count() <= packet.csrcs().len());
    }
    assert!(walked <= extension);

    let mut rewritten = bytes.to_vec();
    let (sequence_number, timestamp) = (packet.sequence_number().next(), packet.timestamp().wrapping_add(160));
    rewrite_header(&mut rewritten, Ssrc(!packet.ssrc().0), sequence_number, timestamp);
    set_marker(&mut rewritten, !packet.marker());
    let again = RtpPacket::parse(&rewritten).expect("a packet stays one");
    let expected = RtpHeader {
        marker: !packet.marker(),
        payload_type: packet.payload_type(),
        sequence_number,
        timestamp,
        ssrc: Ssrc(!packet.ssrc().0),
    };
    assert_eq!(again.header(), expected);
    assert_eq!((rewritten[0], &rewritten[RTP_HEADER_BYTES..]), (bytes[0], &bytes[RTP_HEADER_BYTES..]));
}

fn events(payload: &[u8]) {
    let first = TelephoneEvent::parse(payload);
    assert_eq!(first.is_ok(), payload.len() >= TELEPHONE_EVENT_BYTES);
    let all = TelephoneEvent::parse_all(payload);
    assert_eq!(all.len(), payload.len() / TELEPHONE_EVENT_BYTES);
    for (event, block) in all.zip(payload.as_chunks::<TELEPHONE_EVENT_BYTES>().0) {
        let mut out = [0; TELEPHONE_EVENT_BYTES];
        event.emit(&mut out);
        // All but the reserved bit.
        assert_eq!(out, [block[0], block[1] & 0xBF, block[2], block[3]]);
        assert_eq!(telephone_event::digit(event.event).is_some(), event.event < 16);
    }
}

fn write(script: &mut Script<'_>) {
    let header = RtpHeader {
        marker: script.flag(),
        payload_type: script.byte() & 0x7F,
        sequence_number: SeqNumber(script.word()),
        timestamp: RtpTimestamp(script.long()),
        ssrc: Ssrc(script.long()),
    };
    let csrcs: Vec<u32> = (0..script.below(18)).map(|_| script.long()).collect();
    let levels = script.option(|script| (script.byte(), script.counted()));
    let mut out = [0xEE; RTP_HEADER_BYTES_MAX + 8];
    let room = usize::from(script.byte()) % (out.len() + 1);
    let Some(len) = header.emit_with(&mut out[..room], &csrcs, levels) else {
        assert!(room < RTP_HEADER_BYTES_MAX && out == [0xEE; RTP_HEADER_BYTES_MAX + 8]);
        return;
    };
    assert!(out[len..].iter().all(|byte| *byte == 0xEE), "nothing behind the header");
    let packet = RtpPacket::parse(&out[..len]).expect("a header of our own");
    assert_eq!((packet.header(), packet.header_len()), (header, len));
    assert!(packet.csrcs().map(|csrc| csrc.0).eq(csrcs.iter().copied().take(CSRCS_MAX)));
    if let Some((id, levels)) = levels.filter(|(id, _)| *id != 0) {
        let expected = levels.iter().map(|level| level & 0x7F).chain(core::iter::repeat(127));
        let read = audio_level::mixer_levels(&packet, id).map(|(_, level)| level);
        assert!(read.eq(expected.take(csrcs.len().min(CSRCS_MAX))));
    }
    elements(script);
}

/// Elements as the script says are written, and read again.
fn elements(script: &mut Script<'_>) {
    let form = if script.flag() { ExtensionForm::TwoByte } else { ExtensionForm::OneByte };
    let mut datagram = [0xEE; 2048];
    RtpHeader {
        marker: false,
        payload_type: rtp::COMFORT_NOISE,
        sequence_number: SeqNumber(0),
        timestamp: RtpTimestamp(0),
        ssrc: Ssrc(0),
    }
    .emit(datagram.first_chunk_mut().expect("long enough"));
    datagram[0] |= 0x10;
    let room = usize::from(script.word()) % (datagram.len() - RTP_HEADER_BYTES);
    let mut writer = ExtensionWriter::new(&mut datagram[RTP_HEADER_BYTES..][..room], form);
    let mut written = Vec::new();
    while !script.is_over() {
        let (id, data) = (script.byte(), script.counted());
        if writer.element(id, data).is_ok() {
            written.push((id, data));
        }
    }
    let len = writer.finish();
    assert_eq!(len == 0, written.is_empty());
    if len > 0 {
        let packet = RtpPacket::parse(&datagram[..RTP_HEADER_BYTES + len]).expect("an extension of our own");
        assert!(packet.extension_elements().map(|element| (element.id, element.data)).eq(written));
    }
}
