//! Checks every packet of a stream: lost, out of order, doubled, damaged, misrouted.

use std::ops::{AddAssign, Range};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::figures::record;
use crate::packet::{self, HEADER_BYTES, RtpStream};

/// Packets of one stream that can be told apart; one numbered beyond is counted as misrouted.
const PACKETS_MAX: u64 = 1 << 26;

/// What became of the packets of one or more streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Verdict {
    /// Packets sent in the measured window.
    pub sent: u64,
    /// Of these, packets that arrived at least once, whole.
    pub arrived: u64,
    /// Packets that never arrived: `sent` less `arrived`.
    pub lost: u64,
    /// Packets that arrived after one with a higher number.
    pub out_of_order: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// Datagrams whose length or payload was not what was sent.
    pub corrupt: u64,
    /// Whole packets whose RTP header (sequence, timestamp, SSRC, marker, payload type) was changed.
    pub header_altered: u64,
    /// Whole packets of another stream or run.
    pub misrouted: u64,
}

impl Verdict {
    /// Nothing was lost, reordered, doubled, damaged or misrouted.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.out_of_order + self.duplicates + self.corrupt + self.header_altered + self.misrouted == 0
    }

    /// Share of the packets sent that were lost, 0 to 1.
    #[must_use]
    pub fn loss_share(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost as f64 / self.sent as f64 }
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.duplicates += other.duplicates;
        self.corrupt += other.corrupt;
        self.header_altered += other.header_altered;
        self.misrouted += other.misrouted;
    }
}

/// The receiving end of one stream.
#[derive(Clone, Debug)]
pub struct Verifier {
    run: u32,
    stream: u32,
    rtp: RtpStream,
    /// Numbers of the packets that belong to the measured window.
    window: Range<u64>,
    /// One bit for each number, grown as needed.
    seen: Vec<u64>,
    highest: Option<u64>,
    unique: u64,
    counts: Verdict,
}

impl Verifier {
    /// Expects stream `stream` of run `run`. Nothing is measured until [`open_window`](Self::open_window).
    #[must_use]
    pub fn new(run: u32, stream: u32) -> Self {
        Self {
            run,
            stream,
            rtp: RtpStream::numbered(run, stream),
            window: u64::MAX..u64::MAX,
            seen: Vec::new(),
            highest: None,
            unique: 0,
            counts: Verdict::default(),
        }
    }

    /// Looks at one datagram. Its delay (`arrival_ns` less the send time in it) goes into `delays` if it is a first
    /// arrival inside the window. Returns whether it is a first arrival.
    pub fn accept(&mut self, datagram: &[u8], arrival_ns: u64, delays: &mut Histogram<u64>) -> bool {
        let Some(contents) = packet::parse(datagram) else {
            self.counts.corrupt += 1;
            return false;
        };
        let number = contents.number;
        if contents.run != self.run || contents.stream != self.stream || number >= PACKETS_MAX {
            self.counts.misrouted += 1;
            return false;
        }
        if datagram[..HEADER_BYTES] != self.rtp.header(number) {
            self.counts.header_altered += 1;
        }
        if !self.mark_seen(number) {
            self.counts.duplicates += 1;
            return false;
        }
        self.unique += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.counts.out_of_order += 1;
        } else {
            self.highest = Some(number);
        }
        if self.window.contains(&number) {
            self.counts.arrived += 1;
            record(delays, arrival_ns.saturating_sub(contents.sent_ns));
        }
        true
    }

    /// The measured window begins with packet `number`.
    pub fn open_window(&mut self, number: u64) {
        self.window = number..u64::MAX;
    }

    /// The measured window ends before packet `number`: that many have been sent.
    pub fn close_window(&mut self, number: u64) {
        self.window.end = number;
    }

    /// Packets that arrived at least once, inside the window or not.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Whether everything sent in the closed window has arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.counts.arrived >= self.sent()
    }

    /// What became of the window's packets. Disorder, duplicates and damage are counted from the first packet on.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let sent = self.sent();
        Verdict { sent, lost: sent.saturating_sub(self.counts.arrived), ..self.counts }
    }

    fn sent(&self) -> u64 {
        if self.window.end == u64::MAX { 0 } else { self.window.end.saturating_sub(self.window.start) }
    }

    /// Notes `number`, which is below [`PACKETS_MAX`]; false if it was noted before.
    fn mark_seen(&mut self, number: u64) -> bool {
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        let bit = 1 << (number % 64);
        let fresh = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::duration_histogram;
    use crate::packet::{Contents, PACKET_BYTES};

    const RUN: u32 = 11;
    const STREAM: u32 = 4;

    fn packet(number: u64) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        let contents = Contents { run: RUN, stream: STREAM, number, sent_ns: 1_000 };
        packet::emit(&RtpStream::numbered(RUN, STREAM), &contents, &mut packet);
        packet
    }

    /// Ten packets sent, the window being 2..10; `deliver` says what the network made of them.
    fn check(deliver: impl FnOnce(Vec<[u8; PACKET_BYTES]>) -> Vec<Vec<u8>>) -> Verdict {
        let mut verifier = Verifier::new(RUN, STREAM);
        verifier.open_window(2);
        let mut delays = duration_histogram();
        for datagram in deliver((0..10).map(packet).collect()) {
            verifier.accept(&datagram, 6_000, &mut delays);
        }
        verifier.close_window(10);
        let verdict = verifier.verdict();
        assert_eq!(delays.len(), verdict.arrived, "one delay for each first arrival in the window");
        assert_eq!(verifier.is_complete(), verdict.lost == 0);
        verdict
    }

    fn all(packets: Vec<[u8; PACKET_BYTES]>) -> Vec<Vec<u8>> {
        packets.into_iter().map(Vec::from).collect()
    }

    #[test]
    fn a_faithful_network_is_clean() {
        let verdict = check(all);
        assert_eq!(verdict, Verdict { sent: 8, arrived: 8, ..Verdict::default() });
        assert!(verdict.is_clean());
    }

    #[test]
    fn a_lost_packet_is_found() {
        let verdict = check(|packets| {
            let mut out = all(packets);
            out.remove(5);
            out
        });
        assert_eq!(verdict, Verdict { sent: 8, arrived: 7, lost: 1, ..Verdict::default() });
    }

    #[test]
    fn a_packet_lost_before_the_window_does_not_count() {
        let verdict = check(|packets| all(packets)[1..].to_vec());
        assert!(verdict.is_clean());
    }

    #[test]
    fn the_last_packets_lost_are_found() {
        let verdict = check(|packets| all(packets)[..7].to_vec());
        assert_eq!(verdict.lost, 3);
    }

    #[test]
    fn swapped_packets_are_out_of_order_but_not_lost() {
        let verdict = check(|mut packets| {
            packets.swap(4, 5);
            all(packets)
        });
        assert_eq!(verdict, Verdict { sent: 8, arrived: 8, out_of_order: 1, ..Verdict::default() });
    }

    #[test]
    fn a_doubled_packet_is_found_even_much_later() {
        let verdict = check(|packets| {
            let mut out = all(packets);
            let again = out[3].clone();
            out.push(again);
            out
        });
        assert_eq!(verdict, Verdict { sent: 8, arrived: 8, duplicates: 1, ..Verdict::default() });
    }

    #[test]
    fn a_damaged_packet_is_corrupt_and_lost() {
        let verdict = check(|packets| {
            let mut out = all(packets);
            out[6][100] ^= 0x10;
            out
        });
        assert_eq!(verdict, Verdict { sent: 8, arrived: 7, lost: 1, corrupt: 1, ..Verdict::default() });
    }

    #[test]
    fn each_changed_header_field_is_found() {
        for byte in 0..HEADER_BYTES {
            let verdict = check(|packets| {
                let mut out = all(packets);
                out[6][byte] ^= 0x80;
                out
            });
            assert_eq!(verdict, Verdict { sent: 8, arrived: 8, header_altered: 1, ..Verdict::default() }, "{byte}");
        }
    }

    #[test]
    fn a_packet_of_another_stream_is_misrouted() {
        let mut stranger = [0; PACKET_BYTES];
        let contents = Contents { run: RUN, stream: STREAM + 1, number: 5, sent_ns: 0 };
        packet::emit(&RtpStream::numbered(RUN, STREAM + 1), &contents, &mut stranger);
        let verdict = check(|packets| {
            let mut out = all(packets);
            out.push(stranger.to_vec());
            out
        });
        assert_eq!(verdict, Verdict { sent: 8, arrived: 8, misrouted: 1, ..Verdict::default() });
    }
}
