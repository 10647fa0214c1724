//! How long packets have to wait so that nearly all of them are there when they are due.
//!
//! Every packet has an offset: when it came, less when it was made. The least offset of the last seconds is the anchor,
//! the fastest way through the network; how far another packet is above it is how late that is. A histogram of that,
//! which forgets, gives the delay that nearly all would have come in time with.
//!
//! Both clocks are counted in units of the RTP timestamp, so that a difference between them shows as an anchor that moves.

/// What is known about how packets arrive.
#[derive(Clone, Debug)]
pub(super) struct Estimator {
    /// Least offset of the present window; [`NONE`] without any.
    present: i64,
    /// Of the one before.
    past: i64,
    /// The lesser of them.
    anchor: i64,
    /// The anchor when the window began: it does not go further below than [`EARLY`].
    reference: i64,
    window_end: i64,
    /// The newest packet: when it came, and its position.
    before: (i64, i64),
    /// When a packet came last that was neither far too early nor far too late.
    near: i64,
    run: Run,
    /// Whether the anchor was last moved because the sender is ahead of where he began.
    is_ahead: bool,
    /// Units of the RTP timestamp in an eighth of a millisecond.
    scale: i64,
    /// The weight of the next packet, 8 bits of it a fraction.
    weight: u16,
    total: u16,
    /// Packets until the quantile is looked for again.
    wait: u8,
    /// The quantile in eighths of a millisecond.
    quantile: u16,
    /// The longest delay there may be, in the same.
    reach: u16,
    histogram: [u16; BUCKETS],
}

/// Packets in a row that are all equally far from the anchor.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    since: i64,
    least: i64,
    most: i64,
    packets: u32,
}

impl Estimator {
    pub(super) const fn new(scale: i64) -> Self {
        let mut histogram = [0; BUCKETS];
        histogram[0] = PRIOR;
        Self {
            present: NONE,
            past: NONE,
            anchor: NONE,
            reference: NONE,
            window_end: 0,
            before: (0, 0),
            near: 0,
            run: Run { since: 0, least: 0, most: 0, packets: 0 },
            is_ahead: false,
            scale,
            weight: WEIGHT_MIN,
            total: PRIOR,
            wait: 0,
            quantile: 0,
            reach: u16::MAX,
            histogram,
        }
    }

    /// Sets the longest delay there may be, in eighths of a millisecond.
    pub(super) const fn set_reach(&mut self, eighths: u16) {
        self.reach = eighths;
    }

    /// The offset of the fastest packets; `None` before the first.
    pub(super) fn anchor(&self) -> Option<i64> {
        (self.anchor != NONE).then_some(self.anchor)
    }

    /// How late nearly all packets are at most, in eighths of a millisecond.
    pub(super) const fn quantile(&self) -> u16 {
        self.quantile
    }

    /// Whether packets come at the pace they are played at: what waits beyond the target then is of no use. If not they
    /// were sent ahead of time.
    pub(super) const fn is_live(&self, now: i64) -> bool {
        now - self.near <= LIVE * self.scale
    }

    /// Whether the sender is ahead of where he began, so that the delay seems long: he may have sent what he had at once,
    /// as well as it may have been held up.
    pub(super) const fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    /// The delay is what it ought to be, wherever the sender began.
    pub(super) const fn catch_up(&mut self) {
        self.is_ahead = false;
    }

    /// Another timeline begins, or the sender has moved on his own: what packets are compared with is of no use any more.
    pub(super) const fn restart(&mut self) {
        (self.present, self.past, self.anchor, self.reference) = (NONE, NONE, NONE, NONE);
        self.run.packets = 0;
        self.is_ahead = false;
    }

    /// A packet came; how late, in units of the RTP timestamp.
    pub(super) fn observe(&mut self, now: i64, position: i64) -> i64 {
        let offset = now - position;
        if self.anchor == NONE {
            self.set_anchor(now, offset);
            self.before = (now, position);
            self.count(0);
            return 0;
        }
        let (passed, made) = (now - self.before.0, position - self.before.1);
        // One that was overtaken tells nothing of the pace.
        let is_fast = made <= 0 || 4 * passed < 3 * made;
        if made > 0 {
            self.before = (now, position);
        }
        let late = offset - self.anchor;
        let is_ahead = offset < self.reference - EARLY * self.scale || (is_fast && late < 0);
        if !is_ahead {
            if now >= self.window_end {
                self.turn_window(now);
            }
            self.present = self.present.min(offset);
            self.anchor = self.present.min(self.past);
        }
        let late = offset - self.anchor;
        if late < -EARLY * self.scale || late > SHIFTED * self.scale {
            self.follow(now, offset, late);
        } else {
            self.run.packets = 0;
            // One that comes faster than it is played may be of a burst that only begins here.
            if !is_fast {
                self.near = now;
            }
        }
        let late = offset - self.anchor;
        if !is_ahead || late > -EARLY * self.scale {
            self.count(late.max(0));
        }
        late
    }

    fn set_anchor(&mut self, now: i64, offset: i64) {
        (self.present, self.past, self.anchor, self.reference) = (offset, NONE, offset, offset);
        self.window_end = now + WINDOW * self.scale;
        self.near = now;
        self.run.packets = 0;
    }

    fn turn_window(&mut self, now: i64) {
        if self.present != NONE {
            self.past = self.present;
        }
        self.present = NONE;
        self.reference = self.anchor;
        self.window_end = now + WINDOW * self.scale;
    }

    /// A packet far from the anchor: with enough that are so, and come at an even pace, that is where the anchor belongs.
    #[cold]
    fn follow(&mut self, now: i64, offset: i64, late: i64) {
        let run = &mut self.run;
        let band = if late < 0 { BAND_EARLY } else { BAND_LATE } * self.scale;
        let (least, most) = (run.least.min(offset), run.most.max(offset));
        if run.packets == 0 || most - least > band {
            *run = Run { since: now, least: offset, most: offset, packets: 1 };
            return;
        }
        *run = Run { least, most, packets: run.packets.saturating_add(1), ..*run };
        let lasts = now - run.since >= STEADY * self.scale && run.packets >= STEADY_PACKETS;
        if !lasts || late < -LEAD_MAX * self.scale {
            return;
        }
        self.set_anchor(now, least);
        self.is_ahead = late < 0;
        if late > 0 {
            // What seemed late was not.
            self.histogram = [0; BUCKETS];
            self.histogram[0] = PRIOR;
            (self.weight, self.total, self.quantile, self.wait) = (WEIGHT_MIN, PRIOR, 0, 0);
        }
    }

    /// Puts a lateness into the histogram.
    fn count(&mut self, late: i64) {
        let eighths = late / self.scale;
        // No delay that is allowed would have been long enough: nothing to be learned.
        let Some(bucket) = bucket_of(eighths).filter(|_| eighths <= i64::from(self.reach)) else { return };
        let weight = self.weight >> 8;
        self.histogram[bucket] += weight;
        self.total += weight;
        self.weight += self.weight >> FORGET_SHIFT;
        if self.weight >= 2 * WEIGHT_MIN {
            self.weight /= 2;
            self.total = 0;
            for count in &mut self.histogram {
                *count /= 2;
                self.total += *count;
            }
        }
        self.wait = self.wait.saturating_sub(1);
        if self.wait == 0 || edge_of(bucket) > self.quantile {
            self.wait = QUANTILE_PACKETS;
            self.quantile = self.find_quantile();
        }
    }

    fn find_quantile(&self) -> u16 {
        let beyond = (u32::from(self.total) * LATE_PER_MILLE).div_euclid(1000);
        let mut sum = 0;
        for (bucket, count) in self.histogram.iter().enumerate().rev() {
            sum += u32::from(*count);
            if sum > beyond {
                return edge_of(bucket);
            }
        }
        0
    }
}

/// The bucket of a lateness; `None`: further than any delay reaches.
fn bucket_of(eighths: i64) -> Option<usize> {
    let bucket = if eighths < FINE_END { eighths >> FINE_SHIFT } else { FINE + ((eighths - FINE_END) >> COARSE_SHIFT) };
    usize::try_from(bucket).ok().filter(|bucket| *bucket < BUCKETS)
}

/// The upper edge of a bucket in eighths of a millisecond.
#[expect(clippy::cast_possible_truncation, reason = "there are few buckets")]
const fn edge_of(bucket: usize) -> u16 {
    let next = bucket as u16 + 1;
    let fine = FINE as u16;
    if next <= fine { next << FINE_SHIFT } else { (FINE_END as u16) + ((next - fine) << COARSE_SHIFT) }
}

/// No offset at all.
const NONE: i64 = i64::MAX;
const BUCKETS: usize = 64;
/// Buckets of 4 ms,
const FINE: i64 = 32;
const FINE_SHIFT: u32 = 5;
/// up to 128 ms;
const FINE_END: i64 = FINE << FINE_SHIFT;
/// then of 16 ms, up to 640 ms.
const COARSE_SHIFT: u32 = 7;
/// A packet's share of the histogram is 1/512 in the end: it remembers 10 seconds of packets of 20 ms.
const FORGET_SHIFT: u32 = 9;
/// So small that 512 times twice as much is a `u16`.
const WEIGHT_MIN: u16 = 32 << 8;
/// Packets that may be late, in a thousand: fewer would cost more by their delay than they save, by tests/jitter.md and
/// tests/voices.md.
const LATE_PER_MILLE: u32 = 10;
/// At the beginning it is as if so much had come in time: one packet that is late tells nothing yet.
const PRIOR: u16 = 110 * (WEIGHT_MIN >> 8);
/// The quantile is looked for once in so many packets, and at once when it may have grown.
const QUANTILE_PACKETS: u8 = 16;

// Times in eighths of a millisecond.

/// The anchor is the least offset of one to two windows: 2 s.
const WINDOW: i64 = 2_000 * 8;
/// Packets that are this much faster than the fastest were sent ahead of time.
const EARLY: i64 = 100 * 8;
/// Packets that are this much slower than the fastest may be on another timeline.
const SHIFTED: i64 = 60 * 8;
/// Either of them is followed if it lasts so long,
const STEADY: i64 = 500 * 8;
const STEADY_PACKETS: u32 = 8;
/// and the packets are no further apart than this,
const BAND_EARLY: i64 = 60 * 8;
const BAND_LATE: i64 = 20 * 8;
/// and not further ahead than this: a sender that leads by more means it.
const LEAD_MAX: i64 = 1_000 * 8;
/// Without a packet near the anchor for so long a stream is not live.
const LIVE: i64 = 150 * 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile_ms(estimator: &Estimator) -> u16 {
        estimator.quantile() / 8
    }

    /// Packets of 20 ms, each as late as told in milliseconds.
    fn feed(estimator: &mut Estimator, from: i64, late_ms: impl IntoIterator<Item = i64>) -> i64 {
        let mut n = from;
        for late in late_ms {
            estimator.observe((1000 + 20 * n + late) * 8, 20 * n * 8);
            n += 1;
        }
        n
    }

    #[test]
    fn buckets_and_their_edges() {
        for eighths in 0..640 * 8 {
            let bucket = bucket_of(eighths).unwrap();
            assert!(i64::from(edge_of(bucket)) > eighths);
            assert!(bucket == 0 || i64::from(edge_of(bucket - 1)) <= eighths);
        }
        assert_eq!((bucket_of(640 * 8), edge_of(BUCKETS - 1)), (None, 640 * 8));
    }

    #[test]
    fn the_quantile_is_that_of_what_came_lately() {
        let mut estimator = Estimator::new(1);
        let n = feed(&mut estimator, 0, (0..500).map(|n| if n % 10 == 9 { 50 } else { 0 }));
        assert_eq!(quantile_ms(&estimator), 52);
        // One of two hundred is not worth waiting for.
        let n = feed(&mut estimator, n, (0..4000).map(|n| if n % 200 == 199 { 50 } else { 0 }));
        assert_eq!(quantile_ms(&estimator), 4);
        // When it gets worse that is known at once.
        let n = feed(&mut estimator, n, (0..40).map(|n| if n % 5 == 4 { 80 } else { 0 }));
        assert_eq!(quantile_ms(&estimator), 84);
        // What no delay could help teaches nothing.
        estimator.set_reach(100 * 8);
        feed(&mut estimator, n, (0..40).map(|n| if n % 5 == 4 { 120 } else { 0 }));
        assert_eq!(quantile_ms(&estimator), 84);
    }

    #[test]
    fn the_anchor_follows_clocks_both_ways() {
        for ppm in [-500i64, 500] {
            let mut estimator = Estimator::new(1);
            for n in 0..50_000i64 {
                let position = 160 * n;
                let now = 8000 + position + position * ppm / 1_000_000;
                let late = estimator.observe(now, position);
                assert!((0..=20).contains(&late), "{ppm} ppm, packet {n}: {late}");
            }
            assert_eq!(quantile_ms(&estimator), 4);
        }
    }

    #[test]
    fn what_is_sent_ahead_of_time_moves_nothing() {
        let mut estimator = Estimator::new(1);
        for burst in 0..10i64 {
            for n in 0..150 {
                estimator.observe(8000 + burst * 24_000, (burst * 150 + n) * 160);
            }
        }
        assert_eq!((estimator.anchor(), quantile_ms(&estimator)), (Some(8000), 4));
        assert!(!estimator.is_live(8000 + 9 * 24_000 + 4000));
    }

    #[test]
    fn a_stream_that_stays_early_or_late_is_followed() {
        let mut estimator = Estimator::new(1);
        let n = feed(&mut estimator, 0, [0; 100]);
        let n = feed(&mut estimator, n, [-300; 40]);
        assert_eq!(estimator.anchor(), Some(700 * 8), "early");
        feed(&mut estimator, n, [100; 40]);
        assert_eq!((estimator.anchor(), quantile_ms(&estimator)), (Some(1100 * 8), 4), "late");
    }

    #[test]
    fn hostile_times_stay_inside() {
        let mut estimator = Estimator::new(6);
        let mut seed = 1u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let position = (seed >> 24).cast_signed();
            estimator.observe((seed >> 30).cast_signed(), position);
            assert!(estimator.quantile() <= 640 * 8);
        }
    }
}
