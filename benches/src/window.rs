//! Closed-loop sending: a bounded number of packets under way, and never more than a policed source may send.

/// Packets under way of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    size: u32,
    train: u32,
    outstanding: u32,
}

impl Window {
    /// At most `size` packets under way; sent in trains of `train`, which is at most `size`. Both at least one.
    #[must_use]
    pub fn new(size: u32, train: u32) -> Self {
        let size = size.max(1);
        Self { size, train: train.clamp(1, size), outstanding: 0 }
    }

    /// How many packets may be sent now: a whole train or nothing.
    #[must_use]
    pub fn grant(&self) -> u32 {
        if self.outstanding + self.train <= self.size { self.train } else { 0 }
    }

    /// `packets` have been sent.
    pub fn sent(&mut self, packets: u32) {
        self.outstanding += packets;
    }

    /// `packets` have come back.
    pub fn returned(&mut self, packets: u32) {
        self.outstanding = self.outstanding.saturating_sub(packets);
    }

    /// Gives up on what is under way: it is lost. Returns how many packets that were.
    pub fn write_off(&mut self) -> u32 {
        std::mem::take(&mut self.outstanding)
    }

    /// Packets under way.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }
}

/// The server's token bucket for one source, mirrored a little more strictly: what it would drop is not sent.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    burst: f64,
    rate: f64,
    filled_ns: u64,
}

impl Bucket {
    /// Share of the server's rate and burst that is used, so that clocks and rounding never decide.
    const MARGIN: f64 = 0.97;

    /// The bucket of a source with `packet_rate` packets per second of its own; full at `now_ns`.
    #[must_use]
    pub fn new(packet_rate: f64, now_ns: u64) -> Self {
        let burst = f64::from(SOURCE_BURST_PACKETS) * Self::MARGIN;
        Self { tokens: burst, burst, rate: packet_rate * SOURCE_RATE_FACTOR * Self::MARGIN, filled_ns: now_ns }
    }

    /// Takes `packets` tokens if there are as many.
    pub fn take(&mut self, packets: u32, now_ns: u64) -> bool {
        let elapsed = now_ns.saturating_sub(self.filled_ns) as f64 / 1e9;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        self.filled_ns = self.filled_ns.max(now_ns);
        let enough = self.tokens >= f64::from(packets);
        if enough {
            self.tokens -= f64::from(packets);
        }
        enough
    }
}

/// Packets a source may send in one burst.
const SOURCE_BURST_PACKETS: u32 = 500;
/// How many times its own rate a source may send.
const SOURCE_RATE_FACTOR: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_filled_by_trains_and_never_beyond() {
        let mut window = Window::new(8, 4);
        for expected in [4, 4, 0] {
            let grant = window.grant();
            assert_eq!(grant, expected);
            window.sent(grant);
        }
        assert_eq!(window.outstanding(), 8);
    }

    #[test]
    fn a_train_leaves_only_when_all_of_it_fits() {
        let mut window = Window::new(8, 4);
        window.sent(8);
        for _ in 0..3 {
            window.returned(1);
            assert_eq!(window.grant(), 0);
        }
        window.returned(1);
        assert_eq!(window.grant(), 4);
    }

    #[test]
    fn lost_packets_are_written_off_and_do_not_stop_the_stream() {
        let mut window = Window::new(4, 4);
        window.sent(4);
        window.returned(1);
        assert_eq!(window.grant(), 0);
        assert_eq!(window.write_off(), 3);
        assert_eq!(window.grant(), 4);
        window.returned(3);
        assert_eq!(window.outstanding(), 0, "what comes late after all does no harm");
    }

    #[test]
    fn impossible_sizes_become_possible() {
        assert_eq!(Window::new(0, 9).grant(), 1);
        assert_eq!(Window::new(3, 0).grant(), 1);
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(1_000.0, 0);
        let burst = (0..1_000).filter(|_| bucket.take(1, 0)).count();
        assert_eq!(burst, 485);
        // One second in steps of a millisecond: 97 % of 4000 packets.
        let steady = (1..=1_000u64).map(|ms| (0..10).filter(|_| bucket.take(1, ms * 1_000_000)).count()).sum::<usize>();
        assert!((3_870..=3_880).contains(&steady), "{steady}");
        assert!(!bucket.take(500, u64::MAX), "never more than the burst");
    }
}
