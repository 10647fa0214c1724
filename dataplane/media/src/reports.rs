//! RTCP of one connection: when to report (RFC 3550 section 6.3), what is said, and what the endpoint's reports tell.
//!
//! Two can be members here, the endpoint and us, so the interval is the minimum of five seconds unless a session is
//! very narrow; half of it before the first report. What passes through a relay is the endpoints' own business: no
//! report of ours is sent there.

use core::time::Duration;

use ringbridge_wire::rtcp::{CompoundWriter, NtpTimestamp, ReportBlock, RtcpPacket, RtcpWriteError, SenderInfo};
use ringbridge_wire::seq::Ssrc;
use ringbridge_wire::xr::{self, EXTENDED_REPORT, ExtendedReport, UNAVAILABLE, VoipMetrics, XrBlock, XrContents};

use crate::bursts::{GAP_MIN, LossPattern};
use crate::command::CodecKind;
use crate::e_model::{Impairment, Path, mos, r_factor};
use crate::limits::{DELAY_MS_MAX, FRAME_MS};
use crate::playout;
use crate::receiver::Receiver;
use crate::rng::SplitMix64;
use crate::time::Instant;

/// RTCP state of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    /// When the deadline that counts fires; `None` while there is nobody to report to.
    pub(crate) due: Option<Instant>,
    /// When the last report went out, or reporting began.
    last: Instant,
    reported: bool,
    /// Members that the deadline was computed for.
    members: u8,
    /// Of compound packets sent and received, with UDP and IP headers, in bytes.
    average_size: f64,
    /// Packets we had sent at the last report and at the one before.
    sent_before: [u32; 2],
    /// Packets expected and received by the last report.
    prior: (u64, u64),
    /// Middle of the NTP timestamp of the endpoint's last sender report, and when it came.
    sender_report: Option<(u32, Instant)>,
    /// A reference time that is still to be answered: who sent it, the middle of its NTP timestamp, and when it came.
    reference_time: Option<(u32, u32, Instant)>,
    round_trip: Option<Duration>,
    told: Option<Told>,
    /// SSRC that has said BYE.
    left: Option<u32>,
    /// When a collision of SSRCs was last resolved.
    pub(crate) collided: Option<Instant>,
}

/// What the endpoint's reports say of the stream we send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Told {
    /// Packets lost since its report before, in per cent of those expected.
    pub loss_percent: f64,
    /// Packets lost since the start; negative with duplicates.
    pub cumulative_lost: i32,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f64,
    /// R factor it has computed (RFC 3611), if it sends one.
    pub r_factor: Option<u8>,
    /// Its mean opinion score for conversation, if it sends one.
    pub mos_cq: Option<f64>,
}

/// How well the stream of an endpoint is heard, and what the endpoint says of ours.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Quality {
    /// How losses are spread.
    pub pattern: LossPattern,
    /// From here to the endpoint and back, in milliseconds, if it answers our sender reports, or our reference times
    /// (RFC 3611 section 4.4) while we only receive.
    pub round_trip_ms: Option<f64>,
    /// From when a sample could have come at the earliest to when it is played out here, in milliseconds; 0 in a relay.
    pub playout_delay_ms: f64,
    /// The jitter buffer, where there is one.
    pub delay: Option<playout::Delay>,
    /// R factor of ITU-T G.107, 0 to 100; `None` until something came.
    pub r_factor: Option<f64>,
    /// Mean opinion score for listening, 1 to 4.5: without delay.
    pub mos_lq: Option<f64>,
    /// Mean opinion score for conversation, 1 to 4.5.
    pub mos_cq: Option<f64>,
    /// What the endpoint tells of our stream.
    pub told: Option<Told>,
    /// The endpoint has said BYE for the stream it sent last.
    pub bye: bool,
}

/// What a deadline comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// A report is to be written, and the next is due then.
    Send(Instant),
    /// Not yet: there are more members than there were.
    Later(Instant),
}

/// What goes into a report of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ours<'a> {
    /// SSRC we send, or would send, with.
    pub(crate) ssrc: u32,
    /// What we have sent, if that is a stream of our own.
    pub(crate) sent: Option<SenderInfo>,
    /// Wallclock time.
    pub(crate) ntp: NtpTimestamp,
    /// Canonical name.
    pub(crate) cname: &'a [u8],
    /// Packet time of what is heard, in milliseconds.
    pub(crate) ptime_ms: u32,
}

/// What an endpoint's reports are read by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// SSRC of the stream we send, if we send one.
    pub(crate) own: Option<u32>,
    /// SSRC of our reports.
    pub(crate) reporter: Option<u32>,
    /// SSRC of the stream that is heard.
    pub(crate) heard: Option<u32>,
    /// Units of the timestamps we send in a second.
    pub(crate) clock_rate_hz: u32,
}

impl Reports {
    pub(crate) const fn new() -> Self {
        Self {
            due: None,
            last: Instant::ZERO,
            reported: false,
            members: 1,
            average_size: SIZE_AT_FIRST,
            sent_before: [0; 2],
            prior: (0, 0),
            sender_report: None,
            reference_time: None,
            round_trip: None,
            told: None,
            left: None,
            collided: None,
        }
    }

    /// Begins to report if that has not begun: somebody sends. When the first report is due.
    pub(crate) fn begin(&mut self, now: Instant, rng: &mut SplitMix64) -> Instant {
        self.last = now;
        self.members = 1;
        self.due_after(now, rng)
    }

    /// Stops reporting until it begins again.
    pub(crate) const fn pause(&mut self) {
        self.due = None;
    }

    /// What is to be done at the deadline: with a new interval drawn, a report may turn out not to be due yet (timer
    /// reconsideration, 6.3.6).
    pub(crate) fn expire(&mut self, now: Instant, members: u8, rng: &mut SplitMix64) -> Due {
        self.members = members;
        let due = (self.last + self.interval(rng)).ceil_to_millis();
        if due > now {
            self.due = Some(due);
            return Due::Later(due);
        }
        self.last = now;
        self.reported = true;
        Due::Send(self.due_after(now, rng))
    }

    /// A member has left: what waits comes earlier (reverse reconsideration, 6.3.4). The deadline that counts from now
    /// on, if one does.
    fn bring_forward(&mut self, now: Instant, members: u8) -> Option<Instant> {
        let due = self.due?;
        if members >= self.members {
            return None;
        }
        let share = f64::from(members) / f64::from(self.members);
        let due = (now + due.saturating_since(now).mul_f64(share)).ceil_to_millis();
        self.last = now - now.saturating_since(self.last).mul_f64(share);
        (self.members, self.due) = (members, Some(due));
        Some(due)
    }

    fn due_after(&mut self, now: Instant, rng: &mut SplitMix64) -> Instant {
        let due = (now + self.interval(rng)).ceil_to_millis();
        self.due = Some(due);
        due
    }

    /// The randomised interval of 6.3.1.
    fn interval(&self, rng: &mut SplitMix64) -> Duration {
        let least = if self.reported { INTERVAL_MIN_S } else { INTERVAL_MIN_S / 2.0 };
        let wanted = f64::from(self.members) * self.average_size / BANDWIDTH_BYTES_PER_S;
        let random = 0.5 + f64::from(rng.next_u32()) / 2f64.powi(32);
        Duration::from_secs_f64(wanted.max(least) * random / COMPENSATION)
    }

    /// Writes a compound packet: a report and the name. If anything is heard, VoIP metrics, and if we don't send, the time
    /// by which the round trip is measured then (RFC 3611 section 4.4). Such a time of the endpoint's is answered.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        ours: &Ours<'_>,
        receiver: &Receiver,
        quality: &Quality,
        out: &mut [u8],
    ) -> Result<usize, RtcpWriteError> {
        let heard = receiver.heard_by_now();
        let block = heard.map(|heard| {
            let (expected, received) = (heard.expected - self.prior.0.min(heard.expected), heard.received);
            let got = received - self.prior.1.min(received);
            self.prior = (heard.expected, heard.received);
            // Nothing expected, or more duplicates than losses: no fraction.
            let lost = expected.saturating_sub(got);
            let fraction = (lost * 256).checked_div(expected).unwrap_or(0);
            let since = self.sender_report.map(|(_, at)| now.saturating_since(at));
            ReportBlock {
                ssrc: Ssrc(heard.ssrc),
                fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
                cumulative_lost: i32::try_from(receiver.cumulative_lost()).unwrap_or(i32::MAX),
                highest_sequence: heard.highest_sequence,
                interarrival_jitter: heard.jitter,
                last_sr: self.sender_report.map_or(0, |(middle, _)| middle),
                delay_since_last_sr: since.map_or(0, units_of_65536),
            }
        });
        let mut writer = CompoundWriter::new(out);
        let blocks = block.as_slice();
        match &ours.sent {
            Some(info) => writer.sender_report(Ssrc(ours.ssrc), info, blocks)?,
            None => writer.receiver_report(Ssrc(ours.ssrc), blocks)?,
        }
        writer.cname(Ssrc(ours.ssrc), ours.cname)?;
        let answer = self.reference_time.map(|(ssrc, last_rr, at)| xr::Delay {
            ssrc: Ssrc(ssrc),
            last_rr,
            delay_since_last_rr: units_of_65536(now.saturating_since(at)),
        });
        let metrics = heard.map(|heard| metrics(heard.ssrc, quality, ours.ptime_ms));
        let extended = XrContents {
            reference_time: heard.filter(|_| ours.sent.is_none()).map(|_| ours.ntp),
            delays: answer.as_slice(),
            metrics: metrics.as_ref(),
        };
        if !extended.is_empty() {
            writer.extended_report(Ssrc(ours.ssrc), &extended)?;
        }
        self.reference_time = None;
        let len = writer.len();
        self.note_size(len);
        Ok(len)
    }

    /// Whether we count as a sender: something was sent since the report before the last.
    pub(crate) fn counts_as_sender(&mut self, packets_out: u32) -> bool {
        let sends = packets_out != self.sent_before[1];
        self.sent_before = [packets_out, self.sent_before[0]];
        sends
    }

    /// Takes in a compound packet of the endpoint. The deadline that counts from now on, if that has changed.
    pub(crate) fn take<'a>(
        &mut self,
        now: Instant,
        ntp: NtpTimestamp,
        packets: impl Iterator<Item = RtcpPacket<'a>>,
        len: usize,
        known: &Known,
    ) -> Option<Instant> {
        let heard = known.heard;
        self.note_size(len);
        let mut due = None;
        for packet in packets {
            match packet {
                RtcpPacket::SenderReport(report) => {
                    if heard.is_none_or(|heard| heard == report.ssrc.0) {
                        self.sender_report = Some((report.info.ntp.middle(), now));
                    }
                    self.take_blocks(ntp, report.report_blocks(), known);
                }
                RtcpPacket::ReceiverReport(report) => self.take_blocks(ntp, report.report_blocks(), known),
                RtcpPacket::Bye(bye) => {
                    if let Some(source) = bye.sources().find(|source| heard == Some(source.0)) {
                        self.left = Some(source.0);
                        due = self.bring_forward(now, 1).or(due);
                    }
                }
                RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. } => {
                    if let Some(report) = ExtendedReport::parse(body) {
                        self.take_extended(now, ntp, &report, known);
                    }
                }
                RtcpPacket::SourceDescription(_) | RtcpPacket::Other { .. } => {}
            }
        }
        due
    }

    fn take_blocks(&mut self, ntp: NtpTimestamp, blocks: impl Iterator<Item = ReportBlock>, known: &Known) {
        let Some(block) = blocks.into_iter().find(|block| known.own == Some(block.ssrc.0)) else { return };
        self.measure_round_trip(ntp, block.last_sr, block.delay_since_last_sr);
        let metrics = self.told.map(|told| (told.r_factor, told.mos_cq));
        let (r_factor, mos_cq) = metrics.unwrap_or_default();
        self.told = Some(Told {
            loss_percent: f64::from(block.fraction_lost) * 100.0 / 256.0,
            cumulative_lost: block.cumulative_lost,
            jitter_ms: units_to_ms(block.interarrival_jitter, known.clock_rate_hz),
            r_factor,
            mos_cq,
        });
    }

    /// `last`: middle of the NTP timestamp of ours that is answered, 0 if none is; `delay`: how long that was held.
    fn measure_round_trip(&mut self, ntp: NtpTimestamp, last: u32, delay: u32) {
        if last == 0 {
            return;
        }
        let passed = ntp.middle().wrapping_sub(last).wrapping_sub(delay);
        // What seems to come from the future, or from long ago, is a lie or a step of a clock.
        if passed < ROUND_TRIP_MAX {
            self.round_trip = Some(Duration::from_nanos(u64::from(passed) * 1_000_000_000 / 65_536));
        }
    }

    fn take_extended(&mut self, now: Instant, ntp: NtpTimestamp, report: &ExtendedReport<'_>, known: &Known) {
        for block in report.blocks() {
            match block {
                XrBlock::ReferenceTime(time) => self.reference_time = Some((report.ssrc.0, time.middle(), now)),
                XrBlock::Delays(delays) => {
                    if let Some(delay) = delays.rows().find(|delay| known.reporter == Some(delay.ssrc.0)) {
                        self.measure_round_trip(ntp, delay.last_rr, delay.delay_since_last_rr);
                    }
                }
                XrBlock::VoipMetrics(metrics) => {
                    if let Some(told) = self.told.as_mut().filter(|_| known.own == Some(metrics.ssrc.0)) {
                        told.r_factor = (metrics.r_factor <= 100).then_some(metrics.r_factor);
                        let mos_cq = (10..=50).contains(&metrics.mos_cq).then_some(metrics.mos_cq);
                        told.mos_cq = mos_cq.map(|tenths| f64::from(tenths) / 10.0);
                    }
                }
                XrBlock::Other { .. } => {}
            }
        }
    }

    /// Another stream is received from now on.
    pub(crate) const fn restart(&mut self) {
        self.prior = (0, 0);
        self.sender_report = None;
    }

    /// Whether the source of this SSRC has said BYE.
    pub(crate) fn has_left(&self, ssrc: u32) -> bool {
        self.left == Some(ssrc)
    }

    /// How well the endpoint is heard. `delay`: its audio is played out here after so long, not just passed on.
    pub(crate) fn quality(
        &self,
        receiver: &Receiver,
        codec: CodecKind,
        ptime_ms: u32,
        delay: Option<playout::Delay>,
    ) -> Quality {
        let pattern = receiver.pattern();
        let playout_delay_ms = delay.map_or(0.0, |delay| f64::from(delay.current_ms) + f64::from(FRAME_MS) / 2.0);
        let heard = receiver.ssrc();
        let impairment = Impairment::of(codec, delay.is_some());
        let rate = |delay_ms| {
            let loss_percent = pattern.loss_percent + pattern.discard_percent;
            r_factor(&Path { delay_ms, loss_percent, burst_ratio: pattern.burst_ratio }, impairment)
        };
        let round_trip_ms = self.round_trip.map(|passed| passed.as_secs_f64() * 1e3);
        // The endpoint has filled a packet before it was sent.
        let one_way_ms = round_trip_ms.unwrap_or(0.0) / 2.0 + f64::from(ptime_ms) + playout_delay_ms;
        let r = heard.map(|_| rate(one_way_ms));
        Quality {
            pattern,
            round_trip_ms,
            playout_delay_ms,
            delay,
            r_factor: r,
            mos_lq: heard.map(|_| mos(rate(0.0))),
            mos_cq: r.map(mos),
            told: self.told,
            bye: heard.is_some_and(|heard| self.has_left(heard)),
        }
    }

    fn note_size(&mut self, len: usize) {
        let size = (len + UDP_IP_HEADER_BYTES) as f64;
        self.average_size += (size - self.average_size) / 16.0;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "kept within what the fields hold")]
fn metrics(ssrc: u32, quality: &Quality, ptime_ms: u32) -> VoipMetrics {
    let pattern = &quality.pattern;
    let rate = |percent: f64| (percent * 256.0 / 100.0).clamp(0.0, 255.0) as u8;
    let ms = |ms: f64| ms.clamp(0.0, 65_535.0) as u16;
    let score = |score: Option<f64>| score.map_or(UNAVAILABLE, |score| (score * 10.0).round() as u8);
    VoipMetrics {
        ssrc: Ssrc(ssrc),
        loss_rate: rate(pattern.loss_percent),
        discard_rate: rate(pattern.discard_percent),
        burst_density: rate(pattern.burst_density_percent),
        gap_density: rate(pattern.gap_density_percent),
        burst_duration_ms: ms(pattern.burst_packets * f64::from(ptime_ms)),
        gap_duration_ms: ms(pattern.gap_packets * f64::from(ptime_ms)),
        round_trip_delay_ms: ms(quality.round_trip_ms.unwrap_or(0.0)),
        end_system_delay_ms: ms(quality.playout_delay_ms),
        signal_level: UNAVAILABLE.cast_signed(),
        noise_level: UNAVAILABLE.cast_signed(),
        residual_echo_return_loss: UNAVAILABLE,
        gap_min: GAP_MIN as u8,
        r_factor: quality.r_factor.map_or(UNAVAILABLE, |r| r.round() as u8),
        external_r_factor: UNAVAILABLE,
        mos_lq: score(quality.mos_lq),
        mos_cq: score(quality.mos_cq),
        receiver_configuration: RECEIVER_CONFIGURATION,
        jitter_buffer_nominal_ms: quality.delay.map_or(0, |delay| ms(f64::from(delay.current_ms))),
        jitter_buffer_maximum_ms: quality.delay.map_or(0, |delay| ms(f64::from(delay.target_ms))),
        jitter_buffer_absolute_maximum_ms: DELAY_MS_MAX,
    }
}

/// Units of an RTP timestamp in milliseconds.
fn units_to_ms(units: u32, clock_rate_hz: u32) -> f64 {
    f64::from(units) * 1000.0 / f64::from(clock_rate_hz)
}

/// A span in units of 1/65 536 s.
fn units_of_65536(span: Duration) -> u32 {
    u32::try_from(span.as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Least mean interval between reports, in seconds (RFC 3550 section 6.2).
const INTERVAL_MIN_S: f64 = 5.0;
/// Makes up for what reconsideration does to the mean: e − 3/2 (section 6.3.1).
const COMPENSATION: f64 = core::f64::consts::E - 1.5;
/// What RTCP may use: 5 % of the 80 kbit/s that G.711 in packets of 20 ms takes.
const BANDWIDTH_BYTES_PER_S: f64 = 500.0;
/// UDP and IPv4 headers, which count (section 6.2).
const UDP_IP_HEADER_BYTES: usize = 28;
/// What a compound packet is taken to be before there was one: SR with a block, name, metrics.
const SIZE_AT_FIRST: f64 = 160.0;
/// Longest round trip that is believed, in units of 1/65 536 s: one minute.
const ROUND_TRIP_MAX: u32 = 60 << 16;
/// Standard concealment (11), a buffer that adapts (11), no rate of adaptation.
const RECEIVER_CONFIGURATION: u8 = 0b1111_0000;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of our own")]
mod tests {
    use super::*;
    use ringbridge_wire::rtcp::parse_compound;
    use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader, RtpPacket};
    use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

    const OWN: u32 = 7;
    const THEIRS: u32 = 9;
    const DELAY: playout::Delay = playout::Delay {
        target_ms: 20,
        current_ms: 20,
        counters: playout::Counters {
            late: 0,
            discarded: 0,
            stretched_samples: 0,
            compressed_samples: 0,
            concealed_samples: 0,
            talkspurts: 1,
            restarts: 0,
            underruns: 0,
        },
    };
    const KNOWN: Known = Known { own: Some(OWN), reporter: Some(OWN), heard: Some(THEIRS), clock_rate_hz: 8000 };

    fn hear(receiver: &mut Receiver, sequence: u16) {
        let mut bytes = [0; RTP_HEADER_BYTES];
        RtpHeader {
            marker: false,
            payload_type: 0,
            sequence_number: SeqNumber(sequence),
            timestamp: RtpTimestamp(160 * u32::from(sequence)),
            ssrc: Ssrc(THEIRS),
        }
        .emit(&mut bytes);
        let now = Instant::from_millis(20 * u64::from(sequence));
        receiver.update(now, &RtpPacket::parse(&bytes).unwrap(), 8000, 20);
    }

    fn take(reports: &mut Reports, now: Instant, ntp: NtpTimestamp, packet: &[u8]) -> Option<Instant> {
        reports.take(now, ntp, parse_compound(packet).unwrap(), packet.len(), &KNOWN)
    }

    fn compound(fill: impl FnOnce(&mut CompoundWriter<'_>)) -> Vec<u8> {
        let mut out = [0; 256];
        let mut writer = CompoundWriter::new(&mut out);
        fill(&mut writer);
        let len = writer.len();
        out[..len].to_vec()
    }

    fn about_ours(last_sr: u32, delay: u32) -> ReportBlock {
        ReportBlock {
            ssrc: Ssrc(OWN),
            fraction_lost: 64,
            cumulative_lost: 5,
            highest_sequence: 100,
            interarrival_jitter: 80,
            last_sr,
            delay_since_last_sr: delay,
        }
    }

    /// Intervals are between 0.5 and 1.5 times the minimum over the compensation, and their mean is near it.
    #[test]
    fn intervals_are_random_about_five_seconds_and_half_of_that_at_first() {
        let mut rng = SplitMix64::new(1);
        let mut reports = Reports::new();
        let (mut now, mut spans) = (Instant::ZERO, Vec::new());
        let first = reports.begin(now, &mut rng).saturating_since(now).as_secs_f64() * COMPENSATION;
        assert!((1.25..=3.751).contains(&first), "{first}");
        now = reports.due.unwrap();
        let mut last = now;
        while spans.len() < 2000 {
            match reports.expire(now, 2, &mut rng) {
                Due::Send(next) => {
                    spans.push(now.saturating_since(last).as_secs_f64());
                    (last, now) = (now, next);
                }
                Due::Later(next) => now = next,
            }
        }
        let spans = &spans[1..];
        assert!(spans.iter().all(|span| (2.0..=6.2).contains(span)), "{spans:?}");
        // Reconsideration brings the mean back to five seconds, near enough.
        let mean = spans.iter().sum::<f64>() / spans.len() as f64;
        assert!((4.3..=5.3).contains(&mean), "{mean}");
        assert!(spans.iter().any(|span| *span < 3.6) && spans.iter().any(|span| *span > 5.2));
    }

    #[test]
    fn a_report_says_what_was_lost_since_the_last() {
        let (mut receiver, mut reports) = (Receiver::new(), Reports::new());
        let mut report = |receiver: &Receiver| {
            let quality = reports.quality(receiver, CodecKind::Pcmu, 20, Some(DELAY));
            let ours = Ours { ssrc: OWN, sent: None, ntp: NtpTimestamp(0), cname: b"us", ptime_ms: 20 };
            let mut out = [0; 256];
            let len = reports.write(Instant::from_millis(1), &ours, receiver, &quality, &mut out).unwrap();
            let packets: Vec<_> = parse_compound(&out[..len]).unwrap().collect();
            let RtcpPacket::ReceiverReport(report) = packets[0] else { panic!("{packets:?}") };
            let metrics = packets.iter().find_map(|packet| match packet {
                RtcpPacket::Other { body, .. } => VoipMetrics::find(body),
                RtcpPacket::SenderReport(_)
                | RtcpPacket::ReceiverReport(_)
                | RtcpPacket::SourceDescription(_)
                | RtcpPacket::Bye(_) => None,
            });
            let names = packets.iter().any(|packet| matches!(packet, RtcpPacket::SourceDescription(_)));
            assert!(names, "a name always");
            (report.report_blocks().next(), metrics)
        };
        assert_eq!(report(&receiver), (None, None));
        (0..100).for_each(|sequence| hear(&mut receiver, sequence));
        let (block, metrics) = report(&receiver);
        let block = block.unwrap();
        assert_eq!(
            (block.ssrc.0, block.fraction_lost, block.cumulative_lost, block.highest_sequence),
            (THEIRS, 0, 0, 99)
        );
        let metrics = metrics.unwrap();
        assert_eq!((metrics.loss_rate, metrics.mos_lq, metrics.gap_min), (0, 44, 16));
        // A quarter of the next hundred.
        (100..200).filter(|sequence| sequence % 4 != 0).for_each(|sequence| hear(&mut receiver, sequence));
        let (block, metrics) = report(&receiver);
        let block = block.unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 25));
        let metrics = metrics.unwrap();
        assert_eq!(metrics.loss_rate, (25 * 256 / 200) as u8);
        assert!((55..70).contains(&metrics.r_factor) && metrics.burst_density > 0, "{metrics:?}");
        (200..300).for_each(|sequence| hear(&mut receiver, sequence));
        assert_eq!(report(&receiver).0.map(|block| (block.fraction_lost, block.cumulative_lost)), Some((0, 25)));
    }

    #[test]
    fn the_round_trip_is_what_is_left_without_the_delay_over_there() {
        let mut reports = Reports::new();
        let ntp = NtpTimestamp(0xe000_1000_0000_0000);
        // Our report left 10 s ago and was held for 9.5 s.
        let sent = ntp.middle().wrapping_sub(10 << 16);
        let held = 9 * 65_536 + 32_768;
        let packet = compound(|writer| writer.receiver_report(Ssrc(THEIRS), &[about_ours(sent, held)]).unwrap());
        take(&mut reports, Instant::from_millis(1), ntp, &packet);
        let quality = reports.quality(&Receiver::new(), CodecKind::Pcmu, 20, Some(DELAY));
        assert_eq!(quality.round_trip_ms, Some(500.0));
        let told = quality.told.unwrap();
        assert_eq!((told.loss_percent, told.cumulative_lost, told.jitter_ms), (25.0, 5, 10.0));
        // Lies: from the future, from long ago, about somebody else.
        for (last_sr, delay) in [(ntp.middle().wrapping_add(65_536), 0), (1, 0), (sent, u32::MAX / 2)] {
            let packet =
                compound(|writer| writer.receiver_report(Ssrc(THEIRS), &[about_ours(last_sr, delay)]).unwrap());
            take(&mut reports, Instant::from_millis(2), ntp, &packet);
        }
        let other = ReportBlock { ssrc: Ssrc(8), ..about_ours(sent, 0) };
        take(
            &mut reports,
            Instant::from_millis(3),
            ntp,
            &compound(|writer| {
                writer.receiver_report(Ssrc(THEIRS), &[other]).unwrap();
            }),
        );
        assert_eq!(reports.quality(&Receiver::new(), CodecKind::Pcmu, 20, Some(DELAY)).round_trip_ms, Some(500.0));
    }

    /// The first two packets are a report and a name.
    fn extended(compound: &[u8]) -> Option<(u32, Vec<XrBlock<'_>>)> {
        let packet = parse_compound(compound).unwrap().nth(2)?;
        let RtcpPacket::Other { packet_type: EXTENDED_REPORT, body, .. } = packet else { panic!("{packet:?}") };
        let report = ExtendedReport::parse(body).unwrap();
        Some((report.ssrc.0, report.blocks().collect()))
    }

    #[test]
    fn who_only_receives_measures_the_round_trip_by_a_time_of_its_own() {
        let ntp = NtpTimestamp(0xe000_1000_8000_0000);
        let (mut receiver, mut reports) = (Receiver::new(), Reports::new());
        hear(&mut receiver, 0);
        let quality = reports.quality(&receiver, CodecKind::Pcmu, 20, Some(DELAY));
        let ours = Ours { ssrc: OWN, sent: None, ntp, cname: b"us", ptime_ms: 20 };
        let mut out = [0; 256];
        let len = reports.write(Instant::from_millis(1), &ours, &receiver, &quality, &mut out).unwrap();
        let Some((OWN, blocks)) = extended(&out[..len]) else { panic!("an extended report") };
        let [XrBlock::ReferenceTime(time), XrBlock::VoipMetrics(_)] = blocks[..] else { panic!("{blocks:?}") };
        assert_eq!(time, ntp);
        // Answered 2 s later; of those the endpoint held it for 1.75 s. What is said to others is not for us.
        let later = NtpTimestamp(ntp.0 + (2 << 32));
        let delay = |ssrc, last_rr, delay_since_last_rr| xr::Delay { ssrc: Ssrc(ssrc), last_rr, delay_since_last_rr };
        let held = 65_536 * 7 / 4;
        let rows = [delay(8, time.middle(), 0), delay(OWN, time.middle(), held)];
        let answer = |rows: &[xr::Delay]| {
            compound(|writer| {
                let extended = XrContents { delays: rows, ..XrContents::default() };
                writer.extended_report(Ssrc(THEIRS), &extended).unwrap();
            })
        };
        let known = Known { own: None, ..KNOWN };
        for (rows, expected) in [
            (&rows[..1], None),
            (&[delay(OWN, 0, 0)], None),
            (&rows[..], Some(250.0)),
            (&[delay(OWN, later.middle().wrapping_add(65_536), 0)], Some(250.0)),
            (&[delay(OWN, time.middle(), u32::MAX / 2)], Some(250.0)),
        ] {
            let packet = answer(rows);
            let packets = parse_compound(&packet).unwrap();
            reports.take(Instant::from_millis(2000), later, packets, packet.len(), &known);
            assert_eq!(
                reports.quality(&receiver, CodecKind::Pcmu, 20, Some(DELAY)).round_trip_ms,
                expected,
                "{rows:?}"
            );
        }
        // Who sends has its sender reports for that.
        let info = SenderInfo { ntp, rtp_timestamp: RtpTimestamp(0), packet_count: 1, octet_count: 160 };
        let ours = Ours { sent: Some(info), ..ours };
        let len = reports.write(Instant::from_millis(3), &ours, &receiver, &quality, &mut out).unwrap();
        let Some((OWN, blocks)) = extended(&out[..len]) else { panic!("an extended report") };
        assert!(matches!(blocks[..], [XrBlock::VoipMetrics(_)]), "{blocks:?}");
    }

    #[test]
    fn a_reference_time_is_answered_once_and_the_last_of_several() {
        let mut reports = Reports::new();
        let time = |ssrc, ntp| {
            compound(|writer| {
                let extended = XrContents { reference_time: Some(NtpTimestamp(ntp)), ..XrContents::default() };
                writer.extended_report(Ssrc(ssrc), &extended).unwrap();
            })
        };
        take(&mut reports, Instant::from_millis(500), NtpTimestamp(0), &time(5, 1 << 32));
        take(&mut reports, Instant::from_millis(1000), NtpTimestamp(0), &time(6, 0x0000_0102_0304_0000));
        let receiver = Receiver::new();
        let quality = reports.quality(&receiver, CodecKind::Pcmu, 20, Some(DELAY));
        let ours = Ours { ssrc: OWN, sent: None, ntp: NtpTimestamp(0), cname: b"us", ptime_ms: 20 };
        // Without room for the answer it waits for the next report.
        let mut short = [0; 24];
        assert!(reports.write(Instant::from_millis(3400), &ours, &receiver, &quality, &mut short).is_err());
        let mut out = [0; 256];
        let len = reports.write(Instant::from_millis(3500), &ours, &receiver, &quality, &mut out).unwrap();
        let Some((OWN, blocks)) = extended(&out[..len]) else { panic!("an extended report") };
        let [XrBlock::Delays(delays)] = blocks[..] else { panic!("{blocks:?}") };
        let answer = xr::Delay { ssrc: Ssrc(6), last_rr: 0x0102_0304, delay_since_last_rr: 5 * 65_536 / 2 };
        assert_eq!(delays.rows().collect::<Vec<_>>(), [answer]);
        let len = reports.write(Instant::from_millis(4500), &ours, &receiver, &quality, &mut out).unwrap();
        assert!(extended(&out[..len]).is_none());
    }

    #[test]
    fn jitter_is_told_in_units_of_the_clock_rate() {
        for (clock_rate_hz, expected) in [(8_000, 10.0), (16_000, 5.0), (48_000, 80.0 / 48.0)] {
            let mut reports = Reports::new();
            let packet = compound(|writer| writer.receiver_report(Ssrc(THEIRS), &[about_ours(0, 0)]).unwrap());
            let known = Known { clock_rate_hz, ..KNOWN };
            let packets = parse_compound(&packet).unwrap();
            reports.take(Instant::from_millis(1), NtpTimestamp(0), packets, packet.len(), &known);
            assert!((reports.told.unwrap().jitter_ms - expected).abs() < 1e-9, "{clock_rate_hz} Hz");
        }
    }

    #[test]
    fn a_sender_report_is_answered_with_its_time_and_our_delay() {
        let (mut receiver, mut reports) = (Receiver::new(), Reports::new());
        hear(&mut receiver, 0);
        let info = SenderInfo {
            ntp: NtpTimestamp(0x0000_0102_0304_0000),
            rtp_timestamp: RtpTimestamp(0),
            packet_count: 1,
            octet_count: 160,
        };
        let packet = compound(|writer| writer.sender_report(Ssrc(THEIRS), &info, &[]).unwrap());
        take(&mut reports, Instant::from_millis(1000), NtpTimestamp(0), &packet);
        let quality = reports.quality(&receiver, CodecKind::Pcmu, 20, Some(DELAY));
        let ours = Ours { ssrc: OWN, sent: Some(info), ntp: info.ntp, cname: b"us", ptime_ms: 20 };
        let mut out = [0; 256];
        let len = reports.write(Instant::from_millis(3500), &ours, &receiver, &quality, &mut out).unwrap();
        let Some(RtcpPacket::SenderReport(report)) = parse_compound(&out[..len]).unwrap().next() else {
            panic!("an SR")
        };
        let block = report.report_blocks().next().unwrap();
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0x0102_0304, 5 * 65_536 / 2));
    }

    #[test]
    fn their_metrics_and_a_bye_are_taken_in() {
        let mut rng = SplitMix64::new(1);
        let (mut receiver, mut reports) = (Receiver::new(), Reports::new());
        hear(&mut receiver, 0);
        reports.begin(Instant::ZERO, &mut rng);
        let Due::Send(due) = reports.expire(Instant::from_millis(10_000), 2, &mut rng) else { panic!("long due") };
        let quality = reports.quality(&receiver, CodecKind::Pcmu, 20, Some(DELAY));
        let metrics = VoipMetrics { ssrc: Ssrc(OWN), r_factor: 80, mos_cq: 40, ..metrics(OWN, &quality, 20) };
        let packet = compound(|writer| {
            writer.receiver_report(Ssrc(THEIRS), &[about_ours(0, 0)]).unwrap();
            let extended = XrContents { metrics: Some(&metrics), ..XrContents::default() };
            writer.extended_report(Ssrc(THEIRS), &extended).unwrap();
            writer.bye(&[Ssrc(THEIRS)]).unwrap();
        });
        let sooner = take(&mut reports, Instant::from_millis(10_001), NtpTimestamp(0), &packet).unwrap();
        assert!(sooner < due && reports.due == Some(sooner));
        let quality = reports.quality(&receiver, CodecKind::Pcmu, 20, Some(DELAY));
        assert_eq!(quality.told.map(|told| (told.r_factor, told.mos_cq)), Some((Some(80), Some(4.0))));
        assert!(quality.bye);
        // Somebody else's BYE, and another of the same, change nothing.
        let other = compound(|writer| writer.bye(&[Ssrc(1)]).unwrap());
        assert_eq!(take(&mut reports, Instant::from_millis(10_002), NtpTimestamp(0), &other), None);
        assert_eq!(take(&mut reports, Instant::from_millis(10_003), NtpTimestamp(0), &packet), None);
    }
}
