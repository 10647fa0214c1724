//! How losses are spread over a stream: runs of them, bursts and what lies between (RFC 3611 s.4.7.2 and its model,
//! appendix A.2).
//!
//! A burst begins and ends with a packet that is lost or discarded, and has fewer than 16 good packets in a row
//! in it. What is told of a packet that comes costs an addition; a loss a few.

/// Packets in a row that have to arrive for a burst to be over.
pub(crate) const GAP_MIN: u32 = 16;

/// Counts of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Bursts {
    /// Good packets since the last that was not.
    good: u32,
    /// Losses since the last run of [`GAP_MIN`] good packets.
    recent: u32,
    /// Good packets in gaps.
    gap_good: u32,
    /// Losses in gaps.
    gap_lost: u32,
    /// Good packets in bursts.
    burst_good: u32,
    /// From a good packet to a loss within a burst.
    burst_entries: u32,
    /// Losses right behind losses within bursts.
    burst_runs: u32,
    /// Bursts that are over.
    bursts: u32,
    lost: u32,
    discarded: u32,
    /// Runs of losses, however short.
    runs: u32,
    received: u32,
}

/// What there is to say about them.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LossPattern {
    /// Packets that did not come, in per cent of those expected.
    pub loss_percent: f64,
    /// Packets that came and were of no use (too late, too early), in per cent of those expected.
    pub discard_percent: f64,
    /// Losses and discards within bursts, in per cent.
    pub burst_density_percent: f64,
    /// Losses and discards between bursts, in per cent.
    pub gap_density_percent: f64,
    /// Mean length of a burst in packets.
    pub burst_packets: f64,
    /// Mean length of what lies between bursts in packets.
    pub gap_packets: f64,
    /// Mean length of a run of losses over that of random loss (BurstR of G.107), at least 1.
    pub burst_ratio: f64,
}

impl Bursts {
    pub(crate) const fn new() -> Self {
        Self {
            good: 0,
            recent: 0,
            gap_good: 0,
            gap_lost: 0,
            burst_good: 0,
            burst_entries: 0,
            burst_runs: 0,
            bursts: 0,
            lost: 0,
            discarded: 0,
            runs: 0,
            received: 0,
        }
    }

    /// A packet came, in time as far as is known.
    pub(crate) const fn received(&mut self) {
        self.received = self.received.saturating_add(1);
        self.good = self.good.saturating_add(1);
    }

    /// So many packets in a row did not come.
    pub(crate) fn lost(&mut self, packets: u32) {
        if packets > 0 {
            self.lost = self.lost.saturating_add(packets);
            self.missed(packets);
        }
    }

    /// One that was taken for lost has come after all. Which run it was in is not known any more.
    pub(crate) const fn recovered(&mut self) {
        self.lost = self.lost.saturating_sub(1);
    }

    /// The packet that was last told of was of no use.
    pub(crate) fn discarded(&mut self) {
        self.discarded = self.discarded.saturating_add(1);
        self.good = self.good.saturating_sub(1);
        self.missed(1);
    }

    fn missed(&mut self, packets: u32) {
        if self.good > 0 || self.runs == 0 {
            self.runs = self.runs.saturating_add(1);
        }
        if self.recent == 0 || self.good >= GAP_MIN {
            // What came before is over: one loss alone was no burst.
            match self.recent {
                0 => {}
                1 => self.gap_lost = self.gap_lost.saturating_add(1),
                _ => self.bursts = self.bursts.saturating_add(1),
            }
            self.gap_good = self.gap_good.saturating_add(self.good);
            self.recent = 1;
        } else {
            self.recent = self.recent.saturating_add(1);
            if self.good == 0 {
                self.burst_runs = self.burst_runs.saturating_add(1);
            } else {
                self.burst_entries = self.burst_entries.saturating_add(1);
                self.burst_good = self.burst_good.saturating_add(self.good);
            }
        }
        let more = packets - 1;
        self.recent = self.recent.saturating_add(more);
        self.burst_runs = self.burst_runs.saturating_add(more);
        self.good = 0;
    }

    /// What there is to say up to now.
    pub(crate) fn pattern(&self) -> LossPattern {
        let expected = f64::from(self.received) + f64::from(self.lost);
        if expected == 0.0 {
            return LossPattern { burst_ratio: 1.0, ..LossPattern::default() };
        }
        let missed = f64::from(self.lost) + f64::from(self.discarded);
        // The present stretch counts as what it would be if it ended now.
        let open_burst = u32::from(self.recent > 1);
        let bursts = f64::from(self.bursts + open_burst);
        let gap_lost = f64::from(self.gap_lost + u32::from(self.recent == 1));
        let ends_in_gap = self.recent < 2 || self.good >= GAP_MIN;
        let gap_good = f64::from(self.gap_good) + if ends_in_gap { f64::from(self.good) } else { 0.0 };
        let burst_good = f64::from(self.burst_good) + if ends_in_gap { 0.0 } else { f64::from(self.good) };
        let burst_lost = (missed - gap_lost).max(0.0);
        let share = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        let mean = |whole: f64, count: f64| if count > 0.0 { whole / count } else { 0.0 };
        let loss = (missed / expected).min(1.0);
        let run = mean(missed, f64::from(self.runs));
        LossPattern {
            loss_percent: share(f64::from(self.lost), expected),
            discard_percent: share(f64::from(self.discarded), expected),
            burst_density_percent: share(burst_lost, burst_lost + burst_good),
            gap_density_percent: share(gap_lost, gap_lost + gap_good),
            burst_packets: mean(burst_lost + burst_good, bursts),
            gap_packets: mean(gap_lost + gap_good, bursts.max(1.0)),
            // Random loss of a share p comes in runs of 1 / (1 − p) on average.
            burst_ratio: (run * (1.0 - loss)).max(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` came, `x` was lost, `d` was discarded.
    fn of(stream: &str) -> LossPattern {
        let mut bursts = Bursts::new();
        for packet in stream.chars() {
            match packet {
                '.' => bursts.received(),
                'x' => bursts.lost(1),
                'd' => {
                    bursts.received();
                    bursts.discarded();
                }
                other => panic!("{other}"),
            }
        }
        bursts.pattern()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_clean_stream_has_nothing() {
        let pattern = of(&".".repeat(100));
        assert_eq!((pattern.loss_percent, pattern.burst_packets, pattern.burst_ratio), (0.0, 0.0, 1.0));
        assert_eq!(Bursts::new().pattern().burst_ratio, 1.0);
    }

    #[test]
    fn losses_far_apart_are_no_bursts() {
        let stream = format!("{}x", ".".repeat(19)).repeat(10);
        let pattern = of(&stream);
        assert!(near(pattern.loss_percent, 5.0) && near(pattern.gap_density_percent, 5.0), "{pattern:?}");
        assert_eq!((pattern.burst_density_percent, pattern.burst_packets), (0.0, 0.0));
        assert!(near(pattern.burst_ratio, 1.0));
    }

    #[test]
    fn losses_near_each_other_are_one() {
        // A burst of ten packets, half of them lost, between two gaps of 45.
        let stream = format!("{}x.x.xx...x{}", ".".repeat(45), ".".repeat(45));
        let pattern = of(&stream);
        assert!(near(pattern.burst_packets, 10.0), "{pattern:?}");
        assert!(near(pattern.burst_density_percent, 50.0));
        assert!(near(pattern.gap_packets, 90.0));
        assert_eq!(pattern.gap_density_percent, 0.0);
        // Four runs of five losses.
        assert!(near(pattern.burst_ratio, 5.0 / 4.0 * 0.95));
    }

    #[test]
    fn a_run_at_once_is_the_same_as_one_by_one() {
        let (mut at_once, mut singly) = (Bursts::new(), Bursts::new());
        for bursts in [&mut at_once, &mut singly] {
            (0..50).for_each(|_| bursts.received());
        }
        at_once.lost(7);
        (0..7).for_each(|_| singly.lost(1));
        at_once.received();
        singly.received();
        assert_eq!(at_once.pattern(), singly.pattern());
        assert!(near(at_once.pattern().burst_packets, 8.0));
        assert!(near(at_once.pattern().burst_ratio, 7.0 * 51.0 / 58.0));
    }

    #[test]
    fn what_is_discarded_counts_as_a_loss_and_is_told_apart() {
        let pattern = of(&format!("{}dxd{}", ".".repeat(47), ".".repeat(50)));
        assert!(near(pattern.loss_percent, 1.0) && near(pattern.discard_percent, 2.0), "{pattern:?}");
        assert!(near(pattern.burst_packets, 3.0) && near(pattern.burst_density_percent, 100.0));
    }

    #[test]
    fn what_comes_after_all_was_not_lost() {
        let mut bursts = Bursts::new();
        (0..98).for_each(|_| bursts.received());
        bursts.lost(2);
        bursts.received();
        bursts.recovered();
        assert!(near(bursts.pattern().loss_percent, 1.0));
    }

    #[test]
    fn endless_streams_stay_bounded() {
        let mut bursts = Bursts::new();
        bursts.lost(u32::MAX);
        bursts.lost(u32::MAX);
        bursts.received();
        bursts.discarded();
        let pattern = bursts.pattern();
        assert!((0.0..=100.0).contains(&pattern.loss_percent) && pattern.burst_ratio >= 1.0);
    }
}
