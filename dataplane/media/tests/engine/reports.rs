//! RTCP: when we report, what we say, and what becomes of the endpoint's reports.

use core::time::Duration;

use ringbridge_media::command::CodecKind::Pcmu;
use ringbridge_media::command::{Command, ConnectionSpec, OperationSpec, StopConditions, Target};
use ringbridge_media::event::{DropReason, Event};
use ringbridge_media::id::ConnectionId;
use ringbridge_media::port::{Disposition, Port};
use ringbridge_media::reports::Quality;
use ringbridge_media::time::Instant;
use ringbridge_wire::rtcp::{
    CompoundWriter, NtpTimestamp, ReportBlock, RtcpPacket, SenderInfo, SenderReport, parse_compound,
};
use ringbridge_wire::seq::{RtpTimestamp, Ssrc};
use ringbridge_wire::xr::{Delay, EXTENDED_REPORT, ExtendedReport, VoipMetrics, XrBlock, XrContents};

use crate::bench::{Bench, Voice, address, spec};

/// A connection that reports.
fn reporting(bench: &mut Bench, slot: u32) -> ConnectionId {
    bench.phone_with(ConnectionSpec { remote: Some(address(slot)), rtcp_reports: true, ..spec(Pcmu, 20) })
}

/// Two who talk in a room.
fn room(bench: &mut Bench) -> [ConnectionId; 2] {
    let room = bench.room();
    let ids = [reporting(bench, 0), reporting(bench, 1)];
    for (index, id) in ids.into_iter().enumerate() {
        bench.join(room, id);
        bench.say(index, Voice::Constant(1000), 0);
    }
    ids
}

/// One who talks and is listened to; nothing is sent to it.
fn listened_to(bench: &mut Bench) -> ConnectionId {
    let id = reporting(bench, 0);
    let until = StopConditions { silence_ms: Some(600_000), ..StopConditions::default() };
    bench.start(Target::Connection(id), OperationSpec::DetectSilence { until });
    bench.say(0, Voice::Constant(1000), 0);
    id
}

/// Compound packets that left by `port`.
fn reports(bench: &Bench, port: Port) -> Vec<(Instant, Vec<u8>)> {
    let rtcp = |bytes: &[u8]| (192..=223).contains(&bytes[1]);
    let sent = bench.sent.iter().filter(|sent| sent.port == port && rtcp(&sent.bytes));
    sent.map(|sent| (sent.at, sent.bytes.clone())).collect()
}

fn packets(bytes: &[u8]) -> Vec<RtcpPacket<'_>> {
    parse_compound(bytes).unwrap().collect()
}

fn sender_report(bytes: &[u8]) -> SenderReport<'_> {
    match packets(bytes)[0] {
        RtcpPacket::SenderReport(report) => report,
        ref other => panic!("{other:?}"),
    }
}

fn compound(fill: impl FnOnce(&mut CompoundWriter<'_>)) -> Vec<u8> {
    let mut out = [0; 512];
    let mut writer = CompoundWriter::new(&mut out);
    fill(&mut writer);
    let len = writer.len();
    out[..len].to_vec()
}

fn from_endpoint(bench: &mut Bench, slot: u32, bytes: &[u8]) -> Disposition {
    let mut source = address(slot);
    source.set_port(source.port() + 1);
    bench.deliver(Port::rtcp(slot), source, bytes)
}

fn about(ssrc: u32, last_sr: u32, delay: u32) -> ReportBlock {
    ReportBlock {
        ssrc: Ssrc(ssrc),
        fraction_lost: 32,
        cumulative_lost: 3,
        highest_sequence: 1,
        interarrival_jitter: 40,
        last_sr,
        delay_since_last_sr: delay,
    }
}

#[test]
fn who_is_mixed_is_told_what_was_sent_and_what_was_heard() {
    let mut bench = Bench::new();
    bench.engine.set_wall_clock(NtpTimestamp(0xe000_0000_0000_0000));
    room(&mut bench);
    let began = bench.now;
    bench.run(60_000);
    let reports = reports(&bench, Port::rtcp(0));
    // Every five seconds on average, the first sooner.
    assert!((8..=22).contains(&reports.len()), "{} reports in a minute", reports.len());
    assert!(reports[0].0.saturating_since(began).as_millis() < 3_800);
    let spans: Vec<_> = reports.windows(2).map(|pair| pair[1].0.saturating_since(pair[0].0).as_millis()).collect();
    assert!(spans.iter().all(|span| (2_000..=6_200).contains(span)), "{spans:?}");
    assert!(spans.windows(2).any(|pair| pair[0] != pair[1]), "random");
    let stream = bench.heard_by(0);
    for (at, bytes) in &reports {
        let report = sender_report(bytes);
        let sent: Vec<_> = stream.iter().filter(|packet| packet.at <= *at).collect();
        let last = sent.last().unwrap();
        assert_eq!(report.ssrc, last.header.ssrc);
        assert_eq!(report.info.packet_count as usize, sent.len());
        assert_eq!(report.info.octet_count as usize, 160 * sent.len());
        // The same moment on both clocks: a packet is sent when its last sample was due.
        let since = at.saturating_since(last.at).as_millis() as i32 * 8;
        let ahead = report.info.rtp_timestamp.distance_from(last.header.timestamp);
        assert!((since..=since + 320).contains(&ahead), "{ahead} ticks at {since}");
        let seconds = (report.info.ntp.0 >> 32) as u32;
        assert_eq!(seconds, 0xe000_0000 + (at.as_nanos() / 1_000_000_000) as u32);
        let block = report.report_blocks().next().unwrap();
        assert_eq!((block.ssrc.0, block.fraction_lost, block.cumulative_lost), (bench.phones[0].ssrc, 0, 0));
        let packets = packets(bytes);
        assert!(
            matches!(packets[1], RtcpPacket::SourceDescription(names) if names.chunks().next().unwrap().cname().is_some())
        );
        let RtcpPacket::Other { body, .. } = packets[2] else { panic!("{packets:?}") };
        let metrics = VoipMetrics::find(body).unwrap();
        assert_eq!((metrics.loss_rate, metrics.mos_lq), (0, 44));
    }
    // The sequence number it names is the last that came.
    let block = sender_report(&reports.last().unwrap().1).report_blocks().next().unwrap();
    let sent_by_phone = u32::from(bench.phones[0].sequence);
    assert!(sent_by_phone + 0x1_0000 - (block.highest_sequence & 0xffff) <= 310 + 0x1_0000);
    assert_eq!(block.highest_sequence >> 16, 1, "wrapped once");
}

#[test]
fn a_round_trip_is_measured_by_what_comes_back() {
    let mut bench = Bench::new();
    let [id, _] = room(&mut bench);
    bench.run(4_000);
    let (at, bytes) = reports(&bench, Port::rtcp(0)).pop().unwrap();
    let report = sender_report(&bytes);
    assert_eq!(bench.status(id).quality.round_trip_ms, None);
    // The endpoint answers some time after it was sent, and says it held it for 400 ms of that.
    bench.run(500);
    let answered_at = bench.now;
    let block = about(report.ssrc.0, report.info.ntp.middle(), 65_536 * 4 / 10);
    let info = SenderInfo {
        ntp: NtpTimestamp(0x1111_2222_3333_4444),
        rtp_timestamp: RtpTimestamp(0),
        packet_count: 1,
        octet_count: 1,
    };
    let theirs = bench.phones[0].ssrc;
    let packet = compound(|writer| writer.sender_report(Ssrc(theirs), &info, &[block]).unwrap());
    assert_eq!(from_endpoint(&mut bench, 0, &packet), Disposition::Consumed);
    let passed = answered_at.saturating_since(at).as_millis() as f64 - 400.0;
    let quality = bench.status(id).quality;
    assert!((quality.round_trip_ms.unwrap() - passed).abs() < 1.0, "{quality:?}");
    let told = quality.told.unwrap();
    assert_eq!((told.loss_percent, told.cumulative_lost, told.jitter_ms), (12.5, 3, 5.0));
    // And it is told when its report came.
    bench.run(7_000);
    let (at, bytes) = reports(&bench, Port::rtcp(0)).pop().unwrap();
    let block = sender_report(&bytes).report_blocks().next().unwrap();
    assert_eq!(block.last_sr, 0x2222_3333);
    let since = at.saturating_since(answered_at).as_millis() as f64;
    assert!((f64::from(block.delay_since_last_sr) / 65.536 - since).abs() < 15.0);
}

/// Blocks of the extended report in a compound packet.
fn extended(bytes: &[u8]) -> Vec<XrBlock<'_>> {
    let blocks = packets(bytes).into_iter().filter_map(|packet| match packet {
        RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. } => Some(ExtendedReport::parse(body)?.blocks()),
        RtcpPacket::Other { .. }
        | RtcpPacket::SenderReport(_)
        | RtcpPacket::ReceiverReport(_)
        | RtcpPacket::SourceDescription(_)
        | RtcpPacket::Bye(_) => None,
    });
    blocks.flatten().collect()
}

#[test]
fn a_round_trip_is_measured_where_nothing_is_sent() {
    let mut bench = Bench::new();
    bench.engine.set_wall_clock(NtpTimestamp(0xe000_0000_0000_0000));
    let id = listened_to(&mut bench);
    bench.run(4_000);
    let (at, bytes) = reports(&bench, Port::rtcp(0)).pop().unwrap();
    let RtcpPacket::ReceiverReport(report) = packets(&bytes)[0] else { panic!("nothing is sent") };
    let Some(XrBlock::ReferenceTime(time)) = extended(&bytes).first().copied() else { panic!("{bytes:?}") };
    assert_eq!(bench.status(id).quality.round_trip_ms, None);
    bench.run(500);
    // The answer alone, without a report before it (RFC 5506), and a row for somebody else in it.
    let ours = Delay { ssrc: report.ssrc, last_rr: time.middle(), delay_since_last_rr: 65_536 * 4 / 10 };
    let delays = [Delay { ssrc: Ssrc(!report.ssrc.0), delay_since_last_rr: 0, ..ours }, ours];
    let contents = XrContents { delays: &delays, ..XrContents::default() };
    let theirs = bench.phones[0].ssrc;
    let answer = compound(|writer| writer.extended_report(Ssrc(theirs), &contents).unwrap());
    assert_eq!(from_endpoint(&mut bench, 0, &answer), Disposition::Consumed);
    let passed = bench.now.saturating_since(at).as_millis() as f64 - 400.0;
    let quality = bench.status(id).quality;
    assert!((quality.round_trip_ms.unwrap() - passed).abs() < 1.0, "{quality:?}");
}

#[test]
fn who_only_receives_from_us_is_told_when_its_time_came() {
    let mut bench = Bench::new();
    room(&mut bench);
    bench.run(4_000);
    let listener = 0x5151;
    let contents = XrContents { reference_time: Some(NtpTimestamp(0x1111_2222_3333_4444)), ..XrContents::default() };
    let asked_at = bench.now;
    bench.sent.clear();
    let question = compound(|writer| writer.extended_report(Ssrc(listener), &contents).unwrap());
    assert_eq!(from_endpoint(&mut bench, 0, &question), Disposition::Consumed);
    bench.run(15_000);
    let reports = reports(&bench, Port::rtcp(0));
    assert!(reports.len() > 1);
    let answers: Vec<_> = reports
        .iter()
        .flat_map(|(at, bytes)| extended(bytes).into_iter().map(move |block| (*at, block)))
        .filter_map(|(at, block)| match block {
            XrBlock::Delays(delays) => Some((at, delays.rows().collect::<Vec<_>>())),
            XrBlock::ReferenceTime(_) => panic!("who sends does not ask"),
            XrBlock::VoipMetrics(_) | XrBlock::Other { .. } => None,
        })
        .collect();
    let [(at, rows)] = &answers[..] else { panic!("one answer: {answers:?}") };
    assert_eq!(*at, reports[0].0, "the next report answers");
    let [answer] = rows[..] else { panic!("{rows:?}") };
    assert_eq!((answer.ssrc, answer.last_rr), (Ssrc(listener), 0x2222_3333));
    let since = at.saturating_since(asked_at).as_millis() as f64;
    assert!((f64::from(answer.delay_since_last_rr) / 65.536 - since).abs() < 15.0);
}

#[test]
fn loss_and_jitter_are_rated() {
    let mut bench = Bench::new();
    let [clean, lossy] = room(&mut bench);
    for _ in 0..150 {
        bench.run(200);
        // One packet in ten never comes.
        let phone = &mut bench.phones[1];
        (phone.sequence, phone.timestamp) = (phone.sequence.wrapping_add(1), phone.timestamp.wrapping_add(160));
        phone.next_at = phone.next_at.map(|at| at + Duration::from_millis(20));
    }
    let (clean, lossy) = (bench.status(clean).quality, bench.status(lossy).quality);
    let rated = |quality: &Quality| (quality.r_factor.unwrap(), quality.mos_lq.unwrap(), quality.mos_cq.unwrap());
    assert!(rated(&clean).0 > 88.0 && rated(&clean).1 > 4.4 && rated(&clean).2 > 4.2, "{clean:?}");
    assert!((9.5..=10.5).contains(&lossy.pattern.loss_percent), "{lossy:?}");
    assert!((55.0..72.0).contains(&rated(&lossy).0) && (2.8..3.7).contains(&rated(&lossy).1), "{lossy:?}");
    assert!(lossy.pattern.burst_density_percent > 5.0 && lossy.pattern.burst_ratio < 1.1);
}

#[test]
fn nothing_of_ours_goes_into_a_relay() {
    let mut bench = Bench::new();
    let (a, b) = (reporting(&mut bench, 0), reporting(&mut bench, 1));
    bench.relay(a, b);
    bench.say(0, Voice::Constant(1000), 0);
    bench.say(1, Voice::Constant(1000), 0);
    bench.run(30_000);
    assert!(reports(&bench, Port::rtcp(0)).is_empty() && reports(&bench, Port::rtcp(1)).is_empty());
    assert_eq!(bench.engine.poll_timeout(), None, "no clock runs for a relay");
    // What they tell each other passes as it is.
    let theirs = compound(|writer| writer.receiver_report(Ssrc(bench.phones[0].ssrc), &[]).unwrap());
    assert!(matches!(from_endpoint(&mut bench, 0, &theirs), Disposition::Forward(_)));
    assert_eq!(reports(&bench, Port::rtcp(1)), [(bench.now, theirs)]);
    let quality = bench.status(a).quality;
    assert!(quality.r_factor.unwrap() > 90.0 && quality.playout_delay_ms == 0.0, "rated all the same: {quality:?}");
    bench.call(Command::DeleteConnection { id: a }).unwrap();
    assert_eq!(reports(&bench, Port::rtcp(0)), [], "no stream of ours, no BYE");
}

#[test]
fn a_stream_of_ours_ends_with_a_bye_and_the_end_says_how_it_was() {
    let mut bench = Bench::new();
    let [id, _] = room(&mut bench);
    bench.run(1_000);
    let ssrc = bench.heard_by(0)[0].header.ssrc;
    bench.sent.clear();
    bench.call(Command::DeleteConnection { id }).unwrap();
    let sent = reports(&bench, Port::rtcp(0));
    let packets = packets(&sent[0].1);
    assert_eq!(sent.len(), 1);
    assert!(matches!(packets[2], RtcpPacket::Bye(bye) if bye.sources().eq([ssrc])), "{packets:?}");
    let quality = bench.events.iter().find_map(|event| match event {
        Event::ConnectionEnded { id: ended, quality, .. } if *ended == id => Some(**quality),
        _ => None,
    });
    assert!(quality.unwrap().r_factor.unwrap() > 80.0);
}

#[test]
fn a_bye_of_the_endpoint_is_noted_until_it_sends_another_stream() {
    let mut bench = Bench::new();
    let [id, _] = room(&mut bench);
    bench.run(4_000);
    let theirs = bench.phones[0].ssrc;
    let foreign = compound(|writer| writer.bye(&[Ssrc(theirs + 1)]).unwrap());
    from_endpoint(&mut bench, 0, &foreign);
    assert!(!bench.status(id).quality.bye);
    bench.hush(0);
    from_endpoint(&mut bench, 0, &compound(|writer| writer.bye(&[Ssrc(theirs)]).unwrap()));
    assert!(bench.status(id).quality.bye);
    bench.run(500);
    bench.phones[0].ssrc += 77;
    bench.say(0, Voice::Constant(1000), 0);
    bench.run(1_000);
    assert!(!bench.status(id).quality.bye);
}

#[test]
fn reports_stop_when_nobody_sends_and_begin_again() {
    let mut bench = Bench::new();
    let id = listened_to(&mut bench);
    bench.run(10_000);
    assert!(!reports(&bench, Port::rtcp(0)).is_empty(), "a receiver report, as nothing is sent");
    assert!(matches!(packets(&reports(&bench, Port::rtcp(0))[0].1)[0], RtcpPacket::ReceiverReport(_)));
    bench.hush(0);
    bench.run(120_000);
    bench.sent.clear();
    bench.run(60_000);
    assert!(reports(&bench, Port::rtcp(0)).is_empty());
    bench.say(0, Voice::Constant(1000), 0);
    bench.run(8_000);
    assert!(!reports(&bench, Port::rtcp(0)).is_empty());
    assert!(bench.status(id).counters.rtcp_out > 0);
}

#[test]
fn a_collision_gives_up_our_ssrc_once_and_an_echo_changes_nothing_more() {
    let mut bench = Bench::new();
    let [id, _] = room(&mut bench);
    bench.run(1_000);
    let ours = bench.heard_by(0)[0].header.ssrc;
    bench.hush(0);
    bench.run(500);
    // The endpoint begins to send with our SSRC.
    bench.sent.clear();
    bench.phones[0].ssrc = ours.0;
    bench.say(0, Voice::Constant(1000), 0);
    bench.run(500);
    let said = reports(&bench, Port::rtcp(0));
    assert!(
        packets(&said[0].1).iter().any(|packet| matches!(packet, RtcpPacket::Bye(bye) if bye.sources().eq([ours])))
    );
    let next = bench.heard_by(0).last().unwrap().header.ssrc;
    assert_ne!(next, ours);
    assert_eq!(bench.status(id).counters.ssrc_collisions, 1);
    // It follows us: an echo. It is heard, and we stay what we are.
    bench.hush(0);
    bench.run(500);
    bench.phones[0].ssrc = next.0;
    bench.say(0, Voice::Constant(1000), 0);
    bench.run(500);
    assert_eq!(bench.heard_by(0).last().unwrap().header.ssrc, next);
    assert_eq!(bench.status(id).counters.ssrc_collisions, 1);
}

#[test]
fn rtcp_shares_the_port_only_where_that_was_agreed() {
    let mut bench = Bench::new();
    let room = bench.room();
    let muxed = ConnectionSpec { rtcp_reports: true, rtcp_mux: true, ..spec(Pcmu, 20) };
    let id = bench.phone_with(muxed);
    let other = reporting(&mut bench, 1);
    for id in [id, other] {
        bench.join(room, id);
    }
    bench.say(0, Voice::Constant(1000), 0);
    bench.say(1, Voice::Constant(1000), 0);
    bench.run(5_000);
    assert!(reports(&bench, Port::rtcp(0)).is_empty());
    let sent = reports(&bench, Port::rtp(0));
    assert!(!sent.is_empty());
    let target = bench.sent.iter().find(|sent| sent.bytes[1] == 200 && sent.port == Port::rtp(0)).unwrap().target;
    assert_eq!(target, Some(address(0)));
    let ssrc = sender_report(&sent[0].1).ssrc.0;
    let answer = compound(|writer| writer.receiver_report(Ssrc(bench.phones[0].ssrc), &[about(ssrc, 0, 0)]).unwrap());
    bench.deliver(Port::rtp(0), address(0), &answer);
    assert!(bench.status(id).quality.told.is_some());
    let before = bench.drops(DropReason::NotRtp);
    bench.deliver(Port::rtp(1), address(1), &answer);
    assert_eq!(bench.drops(DropReason::NotRtp), before + 1);
}

#[test]
fn lies_are_counted_and_change_nothing() {
    let mut bench = Bench::new();
    let [id, _] = room(&mut bench);
    bench.run(4_000);
    let good = compound(|writer| writer.receiver_report(Ssrc(1), &[about(1, 2, 3)]).unwrap());
    let before = bench.drops(DropReason::NotRtcp);
    let mut lies = Vec::new();
    for cut in 1..good.len() {
        lies.push(good[..cut].to_vec());
    }
    for count in 2..32u8 {
        let mut lie = good.clone();
        lie[0] = 0x80 | count;
        lies.push(lie);
    }
    for words in [0u16, 1, 6, 8, 0xffff] {
        let mut lie = good.clone();
        lie[2..4].copy_from_slice(&words.to_be_bytes());
        lies.push(lie);
    }
    for lie in &lies {
        assert_eq!(from_endpoint(&mut bench, 0, lie), Disposition::Consumed);
        bench.run(20);
    }
    assert_eq!(bench.drops(DropReason::NotRtcp) - before, lies.len() as u64);
    assert_eq!(bench.status(id).quality.told, None);
    // Reduced size (RFC 5506), unknown types, and reports about others are taken and say nothing.
    for fine in [&[0x80, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &good] {
        from_endpoint(&mut bench, 0, fine);
    }
    assert_eq!(bench.drops(DropReason::NotRtcp) - before, lies.len() as u64);
    assert_eq!(bench.status(id).quality.told, None);
}

#[test]
fn reports_go_along_with_a_connection_that_moves() {
    let mut bench = Bench::new();
    let id = listened_to(&mut bench);
    bench.run(1_000);
    let departure = bench.engine.depart(Target::Connection(id)).unwrap();
    let now = bench.now;
    bench.engine.adopt(now, departure, &[40], None).unwrap();
    bench.sent.clear();
    bench.run(10_000);
    assert!(!reports(&bench, Port::rtcp(40)).is_empty());
}
