//! RTCP: compound and reduced-size packets, extended reports; what can be written is written again and read alike.

use ringbridge_wire::demux::{self, Kind};
use ringbridge_wire::rtcp::{
    CompoundWriter, NtpTimestamp, REPORT_BLOCKS_MAX, ReportBlock, RtcpPacket, SenderInfo, is_rtcp, parse_compound,
};
use ringbridge_wire::seq::{RtpTimestamp, Ssrc};
use ringbridge_wire::xr::{Delay, EXTENDED_REPORT, ExtendedReport, VoipMetrics, XrBlock, XrContents};

use crate::script::Script;

/// Takes `bytes` for a datagram, and then for what a report of ours is to say.
pub fn rtcp(bytes: &[u8]) {
    read(bytes);
    write(&mut Script::new(bytes));
    // Whatever it is, a body of an extended report too.
    extended(bytes);
}

fn read(bytes: &[u8]) {
    let Ok(packets) = parse_compound(bytes) else { return };
    assert!(bytes.len().is_multiple_of(4) && packets.clone().count() > 0);
    assert_eq!(is_rtcp(bytes), demux::classify(bytes) == Kind::Rtcp, "of the first packet");
    // Words may be left over in each packet, so what we write is never longer.
    let mut out = vec![0xEE; bytes.len()];
    let mut writer = CompoundWriter::new(&mut out);
    for packet in packets {
        match packet {
            RtcpPacket::SenderReport(report) => {
                let blocks: Vec<_> = report.report_blocks().collect();
                assert!(blocks.len() <= REPORT_BLOCKS_MAX);
                writer.sender_report(report.ssrc, &report.info, &blocks).expect("as long as what was read");
            }
            RtcpPacket::ReceiverReport(report) => {
                let blocks: Vec<_> = report.report_blocks().collect();
                writer.receiver_report(report.ssrc, &blocks).expect("as long as what was read");
            }
            RtcpPacket::SourceDescription(description) => {
                assert!(description.chunks().count() <= 31);
                for chunk in description.chunks() {
                    let named = chunk.items().any(|(item_type, _)| item_type == 1);
                    assert_eq!(chunk.cname().is_some(), named);
                }
            }
            RtcpPacket::Bye(bye) => {
                let sources: Vec<_> = bye.sources().collect();
                writer.bye(&sources).expect("as long as what was read");
                assert!(bye.reason.is_none_or(|reason| reason.len() < 256));
            }
            RtcpPacket::Other { packet_type, body, .. } => {
                assert!(!(200..=203).contains(&packet_type));
                if packet_type == EXTENDED_REPORT {
                    extended(body);
                }
            }
        }
    }
    let len = writer.len();
    if len > 0 {
        assert!(out[len..].iter().all(|byte| *byte == 0xEE));
        let reports = |bytes: &[u8]| -> Vec<(Ssrc, Option<SenderInfo>, Vec<ReportBlock>)> {
            let packets = parse_compound(bytes).expect("read before");
            packets
                .filter_map(|packet| match packet {
                    RtcpPacket::SenderReport(report) => {
                        Some((report.ssrc, Some(report.info), report.report_blocks().collect()))
                    }
                    RtcpPacket::ReceiverReport(report) => Some((report.ssrc, None, report.report_blocks().collect())),
                    RtcpPacket::SourceDescription(_) | RtcpPacket::Bye(_) | RtcpPacket::Other { .. } => None,
                })
                .collect()
        };
        assert_eq!(reports(&out[..len]), reports(bytes));
    }
}

/// Reads the body of an extended report, and writes what was read of each kind.
fn extended(body: &[u8]) {
    let Some(report) = ExtendedReport::parse(body) else {
        assert!(body.len() < 4);
        return;
    };
    let (mut time, mut delays, mut metrics) = (None, Vec::new(), None);
    for block in report.blocks() {
        match block {
            XrBlock::ReferenceTime(ntp) => time = Some(ntp),
            XrBlock::Delays(rows) => delays.extend(rows.rows()),
            XrBlock::VoipMetrics(read) => metrics = metrics.or(Some(read)),
            XrBlock::Other { body: rest, .. } => assert!(rest.len() + 8 <= body.len()),
        }
    }
    assert_eq!(VoipMetrics::find(body), metrics, "the first of several");
    let contents = XrContents { reference_time: time, delays: &delays, metrics: metrics.as_ref() };
    check_extended(report.ssrc, &contents);
}

fn check_extended(ssrc: Ssrc, contents: &XrContents<'_>) {
    let mut out = vec![0xEE; 8 + contents.len()];
    let mut writer = CompoundWriter::new(&mut out);
    if writer.extended_report(ssrc, contents).is_err() {
        assert!(contents.len() > 0xFFFF, "there is room");
        return;
    }
    assert_eq!(writer.len(), 8 + contents.len());
    let Some(RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. }) =
        parse_compound(&out).expect("a packet of our own").next()
    else {
        panic!("an extended report")
    };
    let report = ExtendedReport::parse(body).expect("a report of our own");
    assert_eq!(report.ssrc, ssrc);
    let (mut time, mut delays, mut metrics) = (None, Vec::new(), None);
    for block in report.blocks() {
        match block {
            XrBlock::ReferenceTime(ntp) => time = Some(ntp),
            XrBlock::Delays(rows) => delays.extend(rows.rows()),
            XrBlock::VoipMetrics(read) => metrics = Some(read),
            XrBlock::Other { .. } => panic!("{block:?}"),
        }
    }
    assert_eq!((time, &delays[..], metrics.as_ref()), (contents.reference_time, contents.delays, contents.metrics));
}

fn write(script: &mut Script<'_>) {
    let room = usize::from(script.word()) % 2048;
    let mut out = vec![0xEE; room];
    let mut writer = CompoundWriter::new(&mut out);
    let mut packets = 0;
    while !script.is_over() {
        let ssrc = Ssrc(script.long());
        let before = writer.len();
        let written = match script.below(5) {
            0 => {
                let info = SenderInfo {
                    ntp: NtpTimestamp(u64::from(script.long()) << 32 | u64::from(script.long())),
                    rtp_timestamp: RtpTimestamp(script.long()),
                    packet_count: script.long(),
                    octet_count: script.long(),
                };
                let blocks = blocks(script);
                writer.sender_report(ssrc, &info, &blocks)
            }
            1 => {
                let blocks = blocks(script);
                writer.receiver_report(ssrc, &blocks)
            }
            2 => writer.cname(ssrc, script.counted()),
            3 => {
                let sources: Vec<_> = (0..script.below(40)).map(|_| Ssrc(script.long())).collect();
                writer.bye(&sources)
            }
            _ => {
                let delays: Vec<_> = (0..script.below(8))
                    .map(|_| Delay {
                        ssrc: Ssrc(script.long()),
                        last_rr: script.long(),
                        delay_since_last_rr: script.long(),
                    })
                    .collect();
                let time = script.option(|script| NtpTimestamp(u64::from(script.long())));
                let contents = XrContents { reference_time: time, delays: &delays, metrics: None };
                check_extended(ssrc, &contents);
                writer.extended_report(ssrc, &contents)
            }
        };
        assert_eq!(written.is_err(), writer.len() == before, "what is refused leaves no trace");
        packets += usize::from(written.is_ok());
    }
    let len = writer.len();
    assert!(out[len..].iter().all(|byte| *byte == 0xEE));
    if packets > 0 {
        assert_eq!(parse_compound(&out[..len]).expect("packets of our own").count(), packets);
    }
}

fn blocks(script: &mut Script<'_>) -> Vec<ReportBlock> {
    let block = |script: &mut Script<'_>| ReportBlock {
        ssrc: Ssrc(script.long()),
        fraction_lost: script.byte(),
        cumulative_lost: script.long().cast_signed(),
        highest_sequence: script.long(),
        interarrival_jitter: script.long(),
        last_sr: script.long(),
        delay_since_last_sr: script.long(),
    };
    (0..script.below(40)).map(|_| block(script)).collect()
}
