//! What one conference member heard, kept whole and judged afterwards.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::figures::record;
use crate::mulaw;
use crate::packet::{self, HEADER_BYTES};
use crate::signal::{self, BLOCK, MARKER_SAMPLES, SAMPLE_RATE_HZ, VOICES};

/// Below this share of its loudest a voice that never pauses is missing. The swell goes down to 0.85.
const PRESENT_LEVEL: f64 = 0.6;
/// A member's own voice at or above this share, over a whole measurement, is self-hearing (-20 dB).
const SELF_LEVEL: f64 = 0.1;
/// A member's own voice at or above this share in two blocks in a row may be self-hearing.
const SELF_BLOCK_LEVEL: f64 = 0.42;
/// Samples up to this size count as silence: the smallest µ-law steps.
const SILENT_MAX: u16 = 8;
/// A run of so many silent samples while somebody else talks is a hole: 5 ms, longer than any beat of the tones stays
/// that quiet.
const HOLE_SAMPLES: usize = 40;
/// How long after its sending a marker is looked for.
const MARKER_SEARCH_MS: u64 = 400;
/// A jump of the timestamp by more than this is not filled with silence.
const JUMP_SAMPLES_MAX: i64 = 8_000;
/// Samples at either end of a measurement in which half a marker may hide.
const EDGE_SAMPLES: usize = MARKER_SAMPLES + BLOCK;
/// Nanoseconds of one sample.
const SAMPLE_NS: u64 = 1_000_000_000 / SAMPLE_RATE_HZ as u64;

/// The packets one member received, in the order received.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    packets: Vec<Captured>,
    audio: Vec<u8>,
    /// Datagrams that were no RTP version 2 packet of payload type 0.
    foreign: u64,
}

#[derive(Clone, Copy, Debug)]
struct Captured {
    sequence: u16,
    timestamp: u32,
    arrival_ns: u64,
    /// Where its payload lies in `audio`.
    from: usize,
    length: usize,
}

/// A talker as the analysis sees it.
#[derive(Clone, Debug)]
pub struct Talker {
    /// Index of its voice.
    pub voice: usize,
    /// When each of its packets was sent, nanoseconds of `CLOCK_REALTIME`. Packet `n` holds the samples from `160 n` on.
    pub sent_ns: Vec<u64>,
}

/// What is wrong, and right, with what one or more members heard.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Heard {
    /// Packets received inside the measured window.
    pub packets: u64,
    /// Packets missing by their sequence numbers.
    pub packets_missing: u64,
    /// Steps of the sequence number other than by one, backwards included.
    pub sequence_breaks: u64,
    /// Steps of the timestamp that do not fit the sequence number and the packet's length.
    pub timestamp_breaks: u64,
    /// Datagrams that were no PCMU packet.
    pub foreign: u64,
    /// Holes of silence of 5 ms and more while somebody talked.
    pub holes: u64,
    /// Times a talking voice was missing from the mix for one or more blocks of 10 ms.
    pub voice_gaps: u64,
    /// Sum of these gaps in milliseconds.
    pub voice_gap_ms: u64,
    /// Markers that should have been heard.
    pub markers_expected: u64,
    /// Markers that were heard.
    pub markers_found: u64,
    /// Members that heard themselves.
    pub self_hearing: u64,
    /// Loudest own voice heard, as a share of its full level (0.01 is -40 dB).
    pub own_level_max: f64,
    /// Voices heard that do not belong to the room.
    pub foreign_voices: u64,
}

impl Heard {
    /// Gaps of any kind: missing packets, breaks of the numbering, holes, missing voices and markers.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.packets_missing
            + self.sequence_breaks
            + self.timestamp_breaks
            + self.holes
            + self.voice_gaps
            + self.markers_expected.saturating_sub(self.markers_found)
    }

    /// Adds another member's findings.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.packets_missing += other.packets_missing;
        self.sequence_breaks += other.sequence_breaks;
        self.timestamp_breaks += other.timestamp_breaks;
        self.foreign += other.foreign;
        self.holes += other.holes;
        self.voice_gaps += other.voice_gaps;
        self.voice_gap_ms += other.voice_gap_ms;
        self.markers_expected += other.markers_expected;
        self.markers_found += other.markers_found;
        self.self_hearing += other.self_hearing;
        self.own_level_max = self.own_level_max.max(other.own_level_max);
        self.foreign_voices += other.foreign_voices;
    }
}

impl Capture {
    /// Room for `packets` packets of 20 ms; more are still kept.
    #[must_use]
    pub fn with_capacity(packets: usize) -> Self {
        Self { packets: Vec::with_capacity(packets), audio: Vec::with_capacity(packets * packet::SAMPLES), foreign: 0 }
    }

    /// Keeps one datagram, a plain RTP packet of PCMU without CSRCs or extensions, or one with them.
    pub fn push(&mut self, datagram: &[u8], arrival_ns: u64) {
        let Some(payload_at) = pcmu_payload(datagram) else {
            self.foreign += 1;
            return;
        };
        let payload = &datagram[payload_at..];
        self.packets.push(Captured {
            sequence: u16::from_be_bytes([datagram[2], datagram[3]]),
            timestamp: u32::from_be_bytes([datagram[4], datagram[5], datagram[6], datagram[7]]),
            arrival_ns,
            from: self.audio.len(),
            length: payload.len(),
        });
        self.audio.extend_from_slice(payload);
    }

    /// Packets kept so far.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    /// Judges what was heard between the wall clock times of `window`.
    ///
    /// `talkers` are all talkers of the room; `own` is the index of the member's own entry there, if it is one. The
    /// mix delay of each marker goes into `delays`, in nanoseconds: the time at which the marker's first sample came
    /// out, less the time at which it was sent in, both reckoned as the packet's time plus 125 µs for each sample
    /// before it in the packet.
    pub fn judge(
        &self,
        window: &Range<u64>,
        talkers: &[Talker],
        own: Option<usize>,
        delays: &mut Histogram<u64>,
    ) -> Heard {
        let mut heard = Heard { foreign: self.foreign, ..Heard::default() };
        let timeline = self.timeline(window, &mut heard);
        let others = talkers.len() - usize::from(own.is_some());
        let mut loud = vec![false; timeline.pcm.len()];
        for (index, talker) in talkers.iter().enumerate() {
            self.look_for_markers(&timeline, window, talker, own == Some(index), &mut loud, delays, &mut heard);
        }
        if others > 0 {
            heard.holes = count_holes(&timeline.pcm);
        }
        measure_levels(&timeline.pcm, &loud, talkers, own, &mut heard);
        heard
    }

    /// Lays the packets of the window end to end by their timestamps.
    fn timeline(&self, window: &Range<u64>, heard: &mut Heard) -> Timeline {
        let mut timeline = Timeline::default();
        let mut previous: Option<&Captured> = None;
        for packet in self.packets.iter().filter(|packet| window.contains(&packet.arrival_ns)) {
            heard.packets += 1;
            if let Some(previous) = previous {
                let steps = packet.sequence.wrapping_sub(previous.sequence).cast_signed();
                heard.sequence_breaks += u64::from(steps != 1);
                heard.packets_missing += u64::try_from(i64::from(steps) - 1).unwrap_or(0);
                let advance = i64::from(packet.timestamp.wrapping_sub(previous.timestamp).cast_signed());
                let expected = i64::from(steps) * i64::try_from(previous.length).unwrap_or(0);
                heard.timestamp_breaks += u64::from(advance != expected);
                // What is missing in time becomes silence; a wild jump or a step back is laid end to end.
                let missing = advance - i64::try_from(previous.length).unwrap_or(0);
                if (1..=JUMP_SAMPLES_MAX).contains(&missing) {
                    let silence = usize::try_from(missing).unwrap_or(0);
                    timeline.pcm.resize(timeline.pcm.len() + silence, 0);
                }
            }
            timeline.starts.push((timeline.pcm.len(), packet.arrival_ns));
            let codes = &self.audio[packet.from..packet.from + packet.length];
            timeline.pcm.extend(codes.iter().map(|&code| mulaw::decode(code)));
            previous = Some(packet);
        }
        timeline
    }

    #[expect(clippy::too_many_arguments, reason = "one step of the analysis, with all its inputs and outputs")]
    fn look_for_markers(
        &self,
        timeline: &Timeline,
        window: &Range<u64>,
        talker: &Talker,
        is_own: bool,
        loud: &mut [bool],
        delays: &mut Histogram<u64>,
        heard: &mut Heard,
    ) {
        let packets_per_period = (signal::PERIOD / packet::SAMPLES) as u64;
        let marker = signal::marker_at(talker.voice);
        let (marker_packet, marker_offset) = ((marker / packet::SAMPLES) as u64, (marker % packet::SAMPLES) as u64);
        let search_ns = MARKER_SEARCH_MS * 1_000_000;
        for (number, &sent_ns) in talker.sent_ns.iter().enumerate() {
            // Markers that reach over the window's edges are looked for too, because they drown the tones all the same.
            let touches = sent_ns + search_ns >= window.start && sent_ns < window.end;
            if number as u64 % packets_per_period != marker_packet || !touches {
                continue;
            }
            let fits = sent_ns >= window.start && sent_ns + search_ns + 40_000_000 < window.end;
            let Some(from) = timeline.position_at(sent_ns) else { continue };
            let length = usize::try_from(MARKER_SEARCH_MS).unwrap_or(0) * SAMPLE_RATE_HZ / 1_000;
            let to = (from + length + MARKER_SAMPLES).min(timeline.pcm.len());
            let found = signal::find_marker(talker.voice, &timeline.pcm[from..to]).map(|at| from + at);
            if let Some(at) = found {
                let loud_from = at.saturating_sub(BLOCK);
                let loud_to = (at + MARKER_SAMPLES + BLOCK).min(loud.len());
                loud[loud_from..loud_to].fill(true);
            }
            if is_own {
                heard.self_hearing |= u64::from(found.is_some());
                continue;
            }
            if !fits {
                continue;
            }
            heard.markers_expected += 1;
            if let Some(out_ns) = found.and_then(|at| timeline.time_at(at)) {
                heard.markers_found += 1;
                record(delays, out_ns.saturating_sub(sent_ns + marker_offset * SAMPLE_NS));
            }
        }
    }
}

/// Received sound end to end.
#[derive(Default)]
struct Timeline {
    pcm: Vec<i16>,
    /// First sample and arrival time of each packet, both rising.
    starts: Vec<(usize, u64)>,
}

impl Timeline {
    /// First sample of the first packet that arrived at `time_ns` or later.
    fn position_at(&self, time_ns: u64) -> Option<usize> {
        let index = self.starts.partition_point(|&(_, arrival)| arrival < time_ns);
        self.starts.get(index).map(|&(start, _)| start)
    }

    /// When the sample at `position` came out.
    fn time_at(&self, position: usize) -> Option<u64> {
        let index = self.starts.partition_point(|&(start, _)| start <= position).checked_sub(1)?;
        let (start, arrival) = self.starts[index];
        Some(arrival + (position - start) as u64 * SAMPLE_NS)
    }
}

/// Where the payload of a PCMU packet begins; `None` for anything else.
fn pcmu_payload(datagram: &[u8]) -> Option<usize> {
    let (&first, &second) = (datagram.first()?, datagram.get(1)?);
    if first >> 6 != 2 || second & 0x7F != 0 || first & 0x20 != 0 {
        return None;
    }
    let mut at = HEADER_BYTES + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        let words = u16::from_be_bytes([*datagram.get(at + 2)?, *datagram.get(at + 3)?]);
        at += 4 + 4 * usize::from(words);
    }
    (at < datagram.len()).then_some(at)
}

fn count_holes(pcm: &[i16]) -> u64 {
    let mut holes = 0;
    let mut run = 0;
    for sample in pcm {
        run = if sample.unsigned_abs() <= SILENT_MAX { run + 1 } else { 0 };
        holes += u64::from(run == HOLE_SAMPLES);
    }
    holes
}

/// Whether two blocks in a row hold the own voice, that of talker `own`.
///
/// Where another voice stops, starts or jumps within a block, its tone spreads over its neighbours', so a level alone
/// proves nothing. Such a step touches one block; a frame of one's own voice fills one block and half of a second. And
/// in the fuller of them every other voice must be either there or not, and the voices together make up all there is.
fn is_own_voice(own: usize, talkers: &[Talker], first: &[i16], second: &[i16]) -> bool {
    /// Share of a block's energy its voices have to explain.
    const EXPLAINED: f64 = 0.9;
    let voice = talkers[own].voice;
    let (first_level, second_level) = (signal::voice_level(voice, first), signal::voice_level(voice, second));
    if first_level.min(second_level) < SELF_BLOCK_LEVEL {
        return false;
    }
    let fuller = if first_level > second_level { first } else { second };
    let mut explained = 0.0;
    for (index, talker) in talkers.iter().enumerate() {
        let level = signal::voice_level(talker.voice, fuller);
        if index != own && (0.1..0.8).contains(&level) {
            return false;
        }
        explained += level * level;
    }
    let energy: f64 = fuller.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / fuller.len() as f64;
    explained >= EXPLAINED * energy * 2.0 / signal::TONE_AMPLITUDE.powi(2)
}

/// Reads the level of each voice block by block, where no marker drowns it. The edges are left out: a marker cut off
/// by them is not found.
fn measure_levels(pcm: &[i16], loud: &[bool], talkers: &[Talker], own: Option<usize>, heard: &mut Heard) {
    let inner = EDGE_SAMPLES..pcm.len().saturating_sub(EDGE_SAMPLES).max(EDGE_SAMPLES);
    let (Some(pcm), Some(loud)) = (pcm.get(inner.clone()), loud.get(inner)) else { return };
    let clear_blocks =
        || pcm.chunks_exact(BLOCK).zip(loud.chunks_exact(BLOCK)).map(|(block, loud)| (block, !loud.contains(&true)));
    for (index, talker) in talkers.iter().enumerate() {
        if own == Some(index) {
            let levels: Vec<f64> = clear_blocks()
                .filter(|&(_, clear)| clear)
                .map(|(block, _)| signal::voice_level(talker.voice, block))
                .collect();
            let typical = crate::figures::median(&levels).unwrap_or(0.0);
            heard.own_level_max = typical;
            let blocks: Vec<_> = clear_blocks().collect();
            let once = blocks.array_windows().any(|&[(first, first_clear), (second, second_clear)]| {
                first_clear && second_clear && is_own_voice(index, talkers, first, second)
            });
            heard.self_hearing |= u64::from(typical >= SELF_LEVEL || once);
            continue;
        }
        let mut missing = false;
        for (block, clear) in clear_blocks() {
            if !clear {
                continue;
            }
            let absent = signal::voice_level(talker.voice, block) < PRESENT_LEVEL;
            heard.voice_gaps += u64::from(absent && !missing);
            heard.voice_gap_ms += if absent { (BLOCK * 1_000 / SAMPLE_RATE_HZ) as u64 } else { 0 };
            missing = absent;
        }
    }
    // Voices of other rooms: a look at some blocks is enough, a wrong wire stays wrong.
    for voice in (0..VOICES).filter(|voice| talkers.iter().all(|talker| talker.voice != *voice)) {
        let levels: Vec<f64> = clear_blocks()
            .filter(|&(_, clear)| clear)
            .step_by(37)
            .map(|(block, _)| signal::voice_level(voice, block))
            .collect();
        heard.foreign_voices += u64::from(crate::figures::median(&levels).unwrap_or(0.0) >= 0.3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Quantiles, duration_histogram};
    use crate::packet::RtpStream;

    const FRAME_NS: u64 = 20_000_000;
    const START_NS: u64 = 1_000_000_000_000;
    const FRAMES: u64 = 200;
    /// What the simulated mixer adds: 37 ms and 24 samples.
    const SHIFT_SAMPLES: usize = 24;
    const TRAVEL_NS: u64 = 37_000_000;

    fn talkers() -> Vec<Talker> {
        (0..3).map(|voice| Talker { voice, sent_ns: (0..FRAMES).map(|n| START_NS + n * FRAME_NS).collect() }).collect()
    }

    /// The sum of some voices, delayed, as a stream of PCM; `edit` plants the fault.
    fn check(voices: &[usize], own: Option<usize>, edit: impl FnOnce(&mut Vec<i16>)) -> (Heard, Quantiles) {
        check_packets(voices, own, edit, |_| true)
    }

    fn check_packets(
        voices: &[usize],
        own: Option<usize>,
        edit: impl FnOnce(&mut Vec<i16>),
        keep: impl Fn(u64) -> bool,
    ) -> (Heard, Quantiles) {
        let samples = usize::try_from(FRAMES).unwrap() * packet::SAMPLES;
        let mut pcm = vec![0i16; SHIFT_SAMPLES];
        for at in 0..samples - SHIFT_SAMPLES {
            let frame = (at / packet::SAMPLES * packet::SAMPLES) as u64;
            let code = |voice: usize| signal::voice_frame(voice, frame)[at % packet::SAMPLES];
            pcm.push(voices.iter().map(|&voice| mulaw::decode(code(voice))).sum());
        }
        edit(&mut pcm);
        let rtp = RtpStream::numbered(1, 1);
        let mut capture = Capture::default();
        for (number, frame) in (0u64..).zip(pcm.chunks_exact(packet::SAMPLES)).filter(|&(number, _)| keep(number)) {
            let mut datagram = rtp.header(number).to_vec();
            datagram.extend(frame.iter().map(|&sample| mulaw::encode(sample)));
            capture.push(&datagram, START_NS + number * FRAME_NS + TRAVEL_NS);
        }
        let mut delays = duration_histogram();
        let window = START_NS + 10 * FRAME_NS..START_NS + FRAMES * FRAME_NS;
        let heard = capture.judge(&window, &talkers(), own, &mut delays);
        (heard, Quantiles::of_nanos(&delays))
    }

    #[test]
    fn a_perfect_mix_has_no_faults_and_the_delay_is_exact() {
        let (heard, delay) = check(&[0, 1, 2], None, |_| ());
        assert_eq!(heard.gaps(), 0, "{heard:?}");
        assert_eq!((heard.self_hearing, heard.foreign_voices), (0, 0), "{heard:?}");
        assert!(heard.markers_found >= 6, "{heard:?}");
        // 37 ms of travel and 24 samples of 125 µs.
        assert!((delay.p50 - 40_000.0).abs() < 40.0 && (delay.max - 40_000.0).abs() < 40.0, "{delay:?}");
    }

    #[test]
    fn a_talker_that_hears_the_others_only_is_fine() {
        let (heard, _) = check(&[0, 2], Some(1), |_| ());
        assert_eq!((heard.gaps(), heard.self_hearing), (0, 0), "{heard:?}");
        assert!(heard.own_level_max < 0.05, "{heard:?}");
    }

    #[test]
    fn planted_self_hearing_is_found() {
        let (heard, _) = check(&[0, 1, 2], Some(1), |_| ());
        assert_eq!(heard.self_hearing, 1, "{heard:?}");
        assert!(heard.own_level_max > 0.8, "{heard:?}");
    }

    #[test]
    fn self_hearing_for_one_frame_is_found() {
        let (heard, _) = check(&[0, 2], Some(1), |pcm| {
            for (at, sample) in pcm.iter_mut().enumerate().skip(20_000).take(packet::SAMPLES) {
                *sample += mulaw::decode(signal::voice_frame(1, 0)[(at + 40) % packet::SAMPLES]);
            }
        });
        assert_eq!(heard.self_hearing, 1, "{heard:?}");
    }

    #[test]
    fn a_frame_of_self_hearing_is_found_wherever_it_begins() {
        for from in (20_000..20_080).step_by(7) {
            let (heard, _) = check(&[0, 2], Some(1), |pcm| {
                for (at, sample) in pcm.iter_mut().enumerate().skip(from).take(packet::SAMPLES) {
                    *sample += mulaw::decode(signal::voice_frame(1, 0)[(at + 40) % packet::SAMPLES]);
                }
            });
            assert_eq!(heard.self_hearing, 1, "from {from}: {heard:?}");
        }
    }

    #[test]
    fn gaps_and_jumps_of_others_are_not_taken_for_self_hearing() {
        // Voices 0 and 2 stand on either side of the own one; where they break off or jump, they spread into it.
        for length in [40, 80, 97, 160, 333] {
            for from in (20_000..20_080).step_by(3) {
                let (heard, _) = check(&[0, 2], Some(1), |pcm| pcm[from..from + length].fill(0));
                assert_eq!(heard.self_hearing, 0, "a hole of {length} at {from}: {heard:?}");
                let (heard, _) = check(&[0, 2], Some(1), |pcm| drop(pcm.drain(from..from + length)));
                assert_eq!(heard.self_hearing, 0, "a jump of {length} at {from}: {heard:?}");
            }
        }
    }

    #[test]
    fn a_planted_hole_of_one_frame_is_found() {
        let (heard, _) = check(&[0, 1, 2], None, |pcm| pcm[16_240..16_400].fill(0));
        assert_eq!(heard.holes, 1, "{heard:?}");
        assert!(heard.voice_gaps >= 3, "each voice is missing there: {heard:?}");
    }

    #[test]
    fn a_gap_of_one_voice_among_others_is_found() {
        let (heard, _) = check(&[0, 1, 2], None, |pcm| {
            for (at, sample) in pcm.iter_mut().enumerate().skip(16_024).take(packet::SAMPLES) {
                let source = at - SHIFT_SAMPLES;
                let frame = (source / packet::SAMPLES * packet::SAMPLES) as u64;
                *sample -= mulaw::decode(signal::voice_frame(1, frame)[source % packet::SAMPLES]);
            }
        });
        assert_eq!(heard.holes, 0, "{heard:?}");
        assert_eq!(heard.voice_gaps, 1, "{heard:?}");
        assert!((10..=30).contains(&heard.voice_gap_ms), "{heard:?}");
    }

    #[test]
    fn a_lost_packet_is_a_break_and_a_gap() {
        let (heard, _) = check_packets(&[0, 1, 2], None, |_| (), |number| number != 100);
        assert_eq!((heard.packets_missing, heard.sequence_breaks, heard.timestamp_breaks), (1, 1, 0), "{heard:?}");
        assert_eq!(heard.holes, 1, "{heard:?}");
    }

    #[test]
    fn a_missing_voice_and_a_stranger_are_found() {
        let (heard, _) = check(&[0, 1, 9], None, |_| ());
        assert_eq!(heard.foreign_voices, 1, "{heard:?}");
        assert!(heard.markers_found < heard.markers_expected, "{heard:?}");
        assert!(heard.voice_gap_ms > 1_000, "{heard:?}");
    }

    #[test]
    fn payloads_are_found_behind_csrcs_and_extensions() {
        let mut packet = vec![0x92, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend([0; 8]);
        packet.extend([0xBE, 0xDE, 0, 1, 0, 0, 0, 0]);
        assert_eq!(pcmu_payload(&packet), None, "no payload");
        packet.push(1);
        assert_eq!(pcmu_payload(&packet), Some(28));
        for length in 0..28 {
            assert_eq!(pcmu_payload(&packet[..length]), None);
        }
        packet[1] = 101;
        assert_eq!(pcmu_payload(&packet), None, "another payload type");
    }
}
