//! What ten minutes over networks of all kinds cost, beside a buffer of 60 ms that never changes: a table that is
//! reviewed. With `RINGBRIDGE_WRITE_TABLES=1` it is written anew.

use std::fmt::Write as _;
use std::{env, fs};

use super::delay::{speech, two_hours};
use super::*;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/playout/tests/jitter.md");
const MINUTES: u64 = 10;
const PACKETS: u64 = MINUTES * 60 * 50;
/// What the fixed buffer waits.
pub(super) const FIXED_US: i64 = 60_000;

/// The networks: their names, how much slower the sender's clock is in ppm, and what they are.
pub(super) const NETWORKS: [(&str, i64, &str); 11] = [
    ("none", 0, "no jitter"),
    ("LAN", 0, "LAN: normal, 2 ms"),
    ("Wi-Fi", 0, "Wi-Fi: normal, 10 ms, and held up for 30 to 80 ms now and then"),
    ("LTE", 0, "LTE: up to 12 ms, and held up for 60 to 150 ms twice in three seconds"),
    ("stalls", 0, "300 ms stall each 10 s"),
    ("bursts", 0, "sent in bursts of 3 s"),
    ("loss 2 %", 0, "LAN that loses 2 %"),
    ("+50 ppm", 50, "clock 50 ppm slow"),
    ("-50 ppm", -50, "clock 50 ppm fast"),
    ("+200 ppm", 200, "clock 200 ppm slow"),
    ("-200 ppm", -200, "clock 200 ppm fast"),
];

/// Numbers that are the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// About normal around 0: the sum of twelve.
    fn normal(&mut self, deviation_us: i64) -> i64 {
        let sum: i64 = (0..12).map(|_| self.below(1001) as i64).sum();
        (sum - 6000) * deviation_us / 1000
    }
}

/// When each packet of 20 ms arrives, in microseconds since the first was sent on the fastest way; `None` is lost.
pub(super) fn network(name: &str) -> Vec<Option<i64>> {
    let mut dice = Dice(name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte)));
    let (mut clear_at, mut spike) = (0i64, 0i64);
    (0..PACKETS as i64)
        .map(|n| {
            let sent = 20_000 * n;
            let skewed = |ppm: i64| sent + sent * ppm / 1_000_000 + 2_000_000;
            Some(match name {
                "none" => sent,
                "LAN" => sent + dice.normal(2_000).abs(),
                "Wi-Fi" => {
                    // The air is taken for a while now and then; what waits comes at once, in order.
                    if dice.below(40) == 0 {
                        clear_at = sent + 30_000 + dice.below(50_000) as i64;
                    }
                    clear_at = clear_at.max(sent + dice.normal(20_000).abs() / 2) + 500;
                    clear_at
                }
                "LTE" => {
                    if dice.below(100) == 0 {
                        spike = sent + 60_000 + dice.below(90_000) as i64;
                    }
                    clear_at = spike.max(sent + 4_000 * dice.below(4) as i64).max(clear_at + 200);
                    clear_at
                }
                "stalls" => sent.max(if n % 500 >= 400 && n % 500 < 415 { (n / 500 * 500 + 415) * 20_000 } else { 0 }),
                "bursts" => n / 150 * 3_000_000,
                "loss 2 %" => {
                    if dice.below(50) == 0 {
                        return None;
                    }
                    sent + dice.normal(2_000).abs()
                }
                "+50 ppm" => skewed(50),
                "-50 ppm" => skewed(-50),
                "+200 ppm" => skewed(200),
                "-200 ppm" => skewed(-200),
                other => panic!("{other}"),
            })
        })
        .collect()
}

#[derive(Clone, Copy, Default, Debug)]
struct Cost {
    delay_ms: f64,
    late_percent: f64,
    concealed_percent: f64,
    restarts: u64,
    changed_percent: f64,
}

/// Plays the packets as this buffer does.
fn ours(arrivals: &[Option<i64>], ppm: i64) -> Cost {
    let mut bench = Bench::new();
    bench.voice = speech;
    let mut by_time: Vec<(i64, usize)> = arrivals.iter().enumerate().filter_map(|(n, at)| Some(((*at)?, n))).collect();
    by_time.sort_unstable();
    let mut coming = by_time.into_iter().peekable();
    let (mut delay_us, mut frames) = (0i64, 0i64);
    for ms in (0..).step_by(10) {
        while let Some((at, n)) = coming.next_if(|(at, _)| *at <= ms * 1000) {
            let now = Instant::from_nanos(at as u64 * 1000);
            let _ = bench.push_at(now, n as u16, 160 * n as u32, 160, n == 0);
        }
        if coming.peek().is_none() {
            break;
        }
        let point = bench.playout.next_timestamp();
        let (_, pulled) = bench.pull(ms as u64);
        if let (Some(point), true) = (point, pulled.heard) {
            delay_us += ms * 1000 - sent_at(i64::from(point), ppm);
            frames += 1;
        }
    }
    let counters = bench.playout.delay().counters;
    let percent = |samples: u64| samples as f64 * 100.0 / (PACKETS * 160) as f64;
    Cost {
        delay_ms: delay_us as f64 / frames as f64 / 1000.0,
        late_percent: counters.late as f64 * 100.0 / PACKETS as f64,
        concealed_percent: percent(counters.concealed_samples),
        restarts: counters.talkspurts - 1 + counters.restarts,
        changed_percent: percent(counters.stretched_samples + counters.compressed_samples),
    }
}

/// When a sample was sent, in microseconds.
fn sent_at(sample: i64, ppm: i64) -> i64 {
    let us = sample * 125;
    us + us * ppm / 1_000_000 + if ppm == 0 { 0 } else { 2_000_000 }
}

/// Plays the packets 60 ms after the first, whatever comes, and begins anew when for half a second all were too late. It
/// holds half a second.
fn fixed(arrivals: &[Option<i64>], ppm: i64) -> Cost {
    let mut cost = Cost::default();
    let (mut begin, mut missed) = (None, 0);
    let (mut unheard, mut delay_us) = (0u64, 0);
    for (n, at) in arrivals.iter().enumerate() {
        let made = 20_000 * n as i64;
        let Some(at) = *at else { continue };
        let due = *begin.get_or_insert(at - made + FIXED_US) + made;
        if at <= due && due - at <= 500_000 {
            missed = 0;
            delay_us += due - sent_at(160 * n as i64, ppm);
            continue;
        }
        (missed, unheard) = (missed + u32::from(at > due), unheard + 1);
        if missed == 25 {
            begin = Some(at - made + FIXED_US);
            cost.restarts += 1;
            missed = 0;
        }
    }
    let lost = arrivals.iter().filter(|at| at.is_none()).count() as u64;
    cost.delay_ms = delay_us as f64 / (PACKETS - unheard - lost) as f64 / 1000.0;
    cost.late_percent = unheard as f64 * 100.0 / PACKETS as f64;
    cost.concealed_percent = (unheard + lost) as f64 * 100.0 / PACKETS as f64;
    cost
}

#[test]
fn what_networks_cost() {
    let mut table = String::from(
        "Ten minutes of packets of 20 ms: mean delay on top of the fastest way, packets too late to be played, samples made up,\n\
         talkspurts that had to begin anew, samples put in or left out. Beside it a buffer of 60 ms that never changes, on\n\
         the same packets.\n\n\
         | network | delay | late | made up | restarts | stretched | fixed: delay | late | made up | restarts |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, ppm, title) in NETWORKS {
        let arrivals = network(name);
        let (ours, fixed) = (ours(&arrivals, ppm), fixed(&arrivals, ppm));
        writeln!(
            table,
            "| {title} | {:.0} ms | {:.2} % | {:.2} % | {} | {:.2} % | {:.0} ms | {:.2} % | {:.2} % | {} |",
            ours.delay_ms,
            ours.late_percent,
            ours.concealed_percent,
            ours.restarts,
            ours.changed_percent,
            fixed.delay_ms,
            fixed.late_percent,
            fixed.concealed_percent,
            fixed.restarts,
        )
        .unwrap();
        assert!(ours.late_percent < 0.1, "{name}: {ours:?}");
        assert!(ours.concealed_percent <= fixed.concealed_percent + 0.3, "{name}: {ours:?} {fixed:?}");
    }
    table.push_str(
        "\nTwo hours of a clock that differs, without jitter: nothing is late, made up or begun anew.\n\n\
         | clock | least delay | most delay | stretched |\n| --- | --- | --- | --- |\n",
    );
    for ppm in [-500i64, -200, -50, 50, 200, 500] {
        let (least, most, moved) = two_hours(speech, ppm);
        let percent = moved as f64 * 100.0 / (7200.0 * 8000.0);
        let pace = if ppm > 0 { "slow" } else { "fast" };
        writeln!(table, "| {} ppm {pace} | {least} ms | {most} ms | {percent:.3} % |", ppm.abs()).unwrap();
        assert!(least >= 18 && most <= 50, "{ppm} ppm: {least} to {most} ms");
    }
    if env::var_os("RINGBRIDGE_WRITE_TABLES").is_some() {
        fs::write(TABLE, &table).unwrap();
    }
    let reviewed = fs::read_to_string(TABLE).unwrap_or_default();
    assert!(table == reviewed, "{table}\nis not\n{reviewed}");
}
