//! Learns where an endpoint sends from (symmetric RTP, RFC 4961), and refuses everybody else from then on.
//!
//! ```text
//!  Learning ──exact match of the given remote──────────────▶ Pinned
//!     │  two sequential packets of one SSRC                    │ same source, old SSRC silent,
//!     ├── no remote was given ──────────────────▶ Pinned       │ two sequential packets of a new one
//!     └── a remote was given ──▶ Provisional ──window over──▶  └──▶ Pinned (new SSRC)
//!                    ▲               ├── exact match ──────▶ Pinned
//!                    └── Learning ◀──└── silent for a window, and somebody else comes
//! ```
//!
//! The window opens at the first packet, however late that comes. Media of the one and only candidate is let through
//! from its first packet if no remote was given, so that nothing of a lawful stream is lost; the send target never
//! moves before `Pinned`. The previous user of the port (its source with its SSRC) is never learned.

use core::net::SocketAddr;

use ringbridge_wire::rtp::RtpPacket;
use ringbridge_wire::seq::SeqNumber;

use crate::event::DropReason;
use crate::limits::{LEARNING_CANDIDATES_MAX, LEARNING_WINDOW, SSRC_HANDOVER_SILENCE};
use crate::time::Instant;

/// What the latch says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is the endpoint's.
    Accepted,
    /// It is the endpoint's, and from now on the source is pinned.
    Pinned(SocketAddr),
    /// It is the endpoint's first with a new SSRC.
    NewSsrc,
    /// Not let in.
    Refused(DropReason),
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    last: SeqNumber,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Learning,
    Provisional { source: SocketAddr, ssrc: u32 },
    Pinned { source: SocketAddr, ssrc: u32 },
}

/// The learning state of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Latch {
    given: Option<SocketAddr>,
    barred: Option<(SocketAddr, u32)>,
    state: State,
    opened: Option<Instant>,
    last_accepted: Instant,
    candidates: [Option<Candidate>; LEARNING_CANDIDATES_MAX],
    replace_next: usize,
}

impl Latch {
    pub(crate) const fn new(given: Option<SocketAddr>, barred: Option<(SocketAddr, u32)>) -> Self {
        Self {
            given,
            barred,
            state: State::Learning,
            opened: None,
            last_accepted: Instant::ZERO,
            candidates: [None; LEARNING_CANDIDATES_MAX],
            replace_next: 0,
        }
    }

    /// Starts learning anew, with another given remote.
    pub(crate) fn restart(&mut self, given: Option<SocketAddr>) {
        // Whoever was heard so far must prove itself against the new address.
        *self = Self::new(given, self.barred);
    }

    /// Judges a packet from `source` (`None`: a connected socket, the kernel has checked).
    ///
    /// With `handover` another source takes over a pinned one that has fallen silent, with two sequential packets.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        source: Option<SocketAddr>,
        packet: &RtpPacket<'_>,
        handover: bool,
    ) -> Verdict {
        let (ssrc, seq) = (packet.ssrc().0, packet.sequence_number());
        let verdict = match self.state {
            State::Pinned { source: pinned, ssrc: known } => {
                if let Some(source) = source.filter(|&source| source != pinned) {
                    return if handover {
                        self.judge_successor(now, source, ssrc, seq)
                    } else {
                        Verdict::Refused(DropReason::ForeignSource)
                    };
                }
                if ssrc == known { Verdict::Accepted } else { self.judge_new_ssrc(now, pinned, ssrc, seq) }
            }
            State::Learning | State::Provisional { .. } => match source {
                Some(source) => self.judge_unpinned(now, source, ssrc, seq),
                // Taken from the socket while it was still connected to the endpoint of before.
                None => Verdict::Refused(DropReason::Learning),
            },
        };
        if !matches!(verdict, Verdict::Refused(_)) {
            self.last_accepted = now;
        }
        verdict
    }

    /// The source that was learned.
    pub(crate) const fn pinned(&self) -> Option<(SocketAddr, u32)> {
        match self.state {
            State::Pinned { source, ssrc } => Some((source, ssrc)),
            State::Learning | State::Provisional { .. } => None,
        }
    }

    /// Where to send: the pinned source, until then the given remote.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        self.pinned().map(|(source, _)| source).or(self.given)
    }

    fn judge_unpinned(&mut self, now: Instant, source: SocketAddr, ssrc: u32, seq: SeqNumber) -> Verdict {
        if self.barred == Some((source, ssrc)) {
            return Verdict::Refused(DropReason::Barred);
        }
        let exact = self.given == Some(source);
        if exact {
            return self.pin(source, ssrc);
        }
        let opened = *self.opened.get_or_insert(now);
        let window_over = self.given.is_none() || now.saturating_since(opened) >= LEARNING_WINDOW;
        if let State::Provisional { source: leader, ssrc: leader_ssrc } = self.state {
            if leader == source && leader_ssrc == ssrc {
                return if window_over { self.pin(source, ssrc) } else { Verdict::Accepted };
            }
            if now.saturating_since(self.last_accepted) < LEARNING_WINDOW {
                return Verdict::Refused(DropReason::ForeignSource);
            }
            // Whoever led has fallen silent, and does not keep the others out for ever.
            self.state = State::Learning;
            self.candidates = [None; LEARNING_CANDIDATES_MAX];
        }
        if self.follows_candidate(source, ssrc, seq) {
            if window_over {
                return self.pin(source, ssrc);
            }
            self.state = State::Provisional { source, ssrc };
            return Verdict::Accepted;
        }
        let alone = self.candidates.iter().flatten().count() == 1;
        if alone && self.given.is_none() { Verdict::Accepted } else { Verdict::Refused(DropReason::Learning) }
    }

    fn judge_successor(&mut self, now: Instant, source: SocketAddr, ssrc: u32, seq: SeqNumber) -> Verdict {
        if self.barred == Some((source, ssrc)) {
            return Verdict::Refused(DropReason::Barred);
        }
        if now.saturating_since(self.last_accepted) < SSRC_HANDOVER_SILENCE
            || !self.follows_candidate(source, ssrc, seq)
        {
            return Verdict::Refused(DropReason::ForeignSource);
        }
        self.last_accepted = now;
        self.pin(source, ssrc)
    }

    fn judge_new_ssrc(&mut self, now: Instant, source: SocketAddr, ssrc: u32, seq: SeqNumber) -> Verdict {
        if self.barred == Some((source, ssrc)) {
            return Verdict::Refused(DropReason::Barred);
        }
        if now.saturating_since(self.last_accepted) < SSRC_HANDOVER_SILENCE
            || !self.follows_candidate(source, ssrc, seq)
        {
            return Verdict::Refused(DropReason::ForeignSsrc);
        }
        self.state = State::Pinned { source, ssrc };
        self.candidates = [None; LEARNING_CANDIDATES_MAX];
        Verdict::NewSsrc
    }

    /// Notes the packet; whether it is the second of two in sequence.
    fn follows_candidate(&mut self, source: SocketAddr, ssrc: u32, seq: SeqNumber) -> bool {
        let known = self.candidates.iter_mut().flatten().find(|known| known.source == source && known.ssrc == ssrc);
        if let Some(known) = known {
            let follows = seq == known.last.next();
            known.last = seq;
            return follows;
        }
        let free = self.candidates.iter().position(Option::is_none).unwrap_or(self.replace_next);
        self.candidates[free] = Some(Candidate { source, ssrc, last: seq });
        self.replace_next = (free + 1) % LEARNING_CANDIDATES_MAX;
        false
    }

    fn pin(&mut self, source: SocketAddr, ssrc: u32) -> Verdict {
        self.state = State::Pinned { source, ssrc };
        self.candidates = [None; LEARNING_CANDIDATES_MAX];
        Verdict::Pinned(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
    use ringbridge_wire::seq::{RtpTimestamp, Ssrc};

    const ENDPOINT: &str = "10.0.0.1:4000";
    const NATTED: &str = "10.9.9.9:61000";
    const ATTACKER: &str = "10.6.6.6:666";

    /// `(milliseconds, source, ssrc, sequence)` in, verdict out.
    fn check(given: Option<&str>, barred: Option<(&str, u32)>, rows: &[(u64, &str, u32, u16, Verdict)]) {
        let mut latch = Latch::new(given.map(addr), barred.map(|(source, ssrc)| (addr(source), ssrc)));
        for (row, &(ms, source, ssrc, seq, expected)) in rows.iter().enumerate() {
            let mut bytes = [0; RTP_HEADER_BYTES];
            RtpHeader {
                marker: false,
                payload_type: 0,
                sequence_number: SeqNumber(seq),
                timestamp: RtpTimestamp(0),
                ssrc: Ssrc(ssrc),
            }
            .emit(&mut bytes);
            let packet = RtpPacket::parse(&bytes).unwrap();
            assert_eq!(
                latch.judge(Instant::from_millis(ms), Some(addr(source)), &packet, false),
                expected,
                "row {row}"
            );
        }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn refused(reason: DropReason) -> Verdict {
        Verdict::Refused(reason)
    }

    #[test]
    fn an_exact_match_is_pinned_at_once() {
        check(
            Some(ENDPOINT),
            None,
            &[
                (0, ENDPOINT, 1, 10, Verdict::Pinned(addr(ENDPOINT))),
                (20, ENDPOINT, 1, 11, Verdict::Accepted),
                (25, ATTACKER, 1, 12, refused(DropReason::ForeignSource)),
            ],
        );
    }

    #[test]
    fn without_a_remote_two_sequential_packets_pin_and_the_first_is_not_lost() {
        check(
            None,
            None,
            &[
                (0, NATTED, 1, 65_535, Verdict::Accepted),
                (20, NATTED, 1, 0, Verdict::Pinned(addr(NATTED))),
                (21, ATTACKER, 1, 1, refused(DropReason::ForeignSource)),
                (40, NATTED, 1, 1, Verdict::Accepted),
            ],
        );
    }

    #[test]
    fn an_attacker_who_comes_first_does_not_win_without_sequence() {
        check(
            None,
            None,
            &[
                (0, ATTACKER, 6, 100, Verdict::Accepted),
                (10, NATTED, 1, 10, refused(DropReason::Learning)),
                (20, ATTACKER, 6, 900, refused(DropReason::Learning)),
                (30, NATTED, 1, 11, Verdict::Pinned(addr(NATTED))),
                (40, ATTACKER, 6, 901, refused(DropReason::ForeignSource)),
            ],
        );
    }

    #[test]
    fn the_given_remote_wins_over_a_flood_inside_the_window() {
        check(
            Some(ENDPOINT),
            None,
            &[
                (0, ATTACKER, 6, 1, refused(DropReason::Learning)),
                (1, ATTACKER, 6, 2, Verdict::Accepted),
                (2, ATTACKER, 6, 3, Verdict::Accepted),
                (300, ENDPOINT, 1, 10, Verdict::Pinned(addr(ENDPOINT))),
                (301, ATTACKER, 6, 4, refused(DropReason::ForeignSource)),
            ],
        );
    }

    #[test]
    fn behind_nat_the_provisional_source_is_pinned_when_the_window_is_over() {
        check(
            Some(ENDPOINT),
            None,
            &[
                (0, NATTED, 1, 1, refused(DropReason::Learning)),
                (20, NATTED, 1, 2, Verdict::Accepted),
                (499, NATTED, 1, 3, Verdict::Accepted),
                (500, NATTED, 1, 4, Verdict::Pinned(addr(NATTED))),
                (520, ENDPOINT, 9, 1, refused(DropReason::ForeignSource)),
            ],
        );
    }

    #[test]
    fn late_media_is_still_learned() {
        check(
            None,
            None,
            &[(3_600_000, NATTED, 1, 1, Verdict::Accepted), (3_600_020, NATTED, 1, 2, Verdict::Pinned(addr(NATTED)))],
        );
    }

    #[test]
    fn the_previous_user_of_the_port_is_never_learned() {
        check(
            None,
            Some((NATTED, 7)),
            &[
                (0, NATTED, 7, 1, refused(DropReason::Barred)),
                (20, NATTED, 7, 2, refused(DropReason::Barred)),
                // The same address with a new stream is a new call.
                (40, NATTED, 8, 1, Verdict::Accepted),
                (60, NATTED, 8, 2, Verdict::Pinned(addr(NATTED))),
            ],
        );
    }

    #[test]
    fn a_new_ssrc_takes_over_only_after_silence_and_in_sequence() {
        check(
            Some(ENDPOINT),
            None,
            &[
                (0, ENDPOINT, 1, 1, Verdict::Pinned(addr(ENDPOINT))),
                (20, ENDPOINT, 2, 1, refused(DropReason::ForeignSsrc)),
                (40, ENDPOINT, 1, 2, Verdict::Accepted),
                (300, ENDPOINT, 2, 50, refused(DropReason::ForeignSsrc)),
                (320, ENDPOINT, 2, 51, Verdict::NewSsrc),
                (340, ENDPOINT, 1, 3, refused(DropReason::ForeignSsrc)),
            ],
        );
    }
}
