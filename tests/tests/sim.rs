//! The deterministic simulation: fixed seeds first, then a few hundred others.
//!
//! `RINGBRIDGE_SIM_SEED` replays one seed, `RINGBRIDGE_SIM_SEEDS` says how many to try.

use std::panic::catch_unwind;

use ringbridge_tests::sim::{Report, run};

/// Seeds tried in an ordinary run.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn fixed_seeds() -> Vec<u64> {
    let lines = include_str!("../seeds/sim.txt").lines();
    let words = lines.filter_map(|line| line.split_whitespace().next()).filter(|word| !word.starts_with('#'));
    words.map(|word| word.parse().expect("a seed")).collect()
}

/// Runs one seed; if it fails, says how to replay it.
fn replay(seed: u64) -> Report {
    catch_unwind(|| run(seed)).unwrap_or_else(|_| {
        panic!(
            "seed {seed} failed; replay it with: \
             RINGBRIDGE_SIM_SEED={seed} cargo test -p ringbridge-tests --test sim -- --nocapture"
        )
    })
}

#[test]
fn storms_break_no_rule() {
    if let Some(seed) = number("RINGBRIDGE_SIM_SEED") {
        println!("seed {seed}: {:?}", replay(seed));
        return;
    }
    let seeds = fixed_seeds().into_iter().chain(1..=number("RINGBRIDGE_SIM_SEEDS").unwrap_or(SEEDS));
    let mut all = Report::default();
    for seed in seeds {
        let report = replay(seed);
        all.arrived += report.arrived;
        all.left += report.left;
        all.succeeded += report.succeeded;
        all.failed += report.failed;
        all.moved += report.moved;
        all.moved_together += report.moved_together;
        all.exchanged += report.exchanged;
        all.loud_windows += report.loud_windows;
    }
    println!("{all:?}");
    // The storms do what they are meant to do.
    assert!(all.arrived > 10_000 && all.left > 10_000 && all.loud_windows > 1_000, "{all:?}");
    assert!(all.exchanged > 10_000, "{all:?}");
    assert!(all.succeeded > 5_000 && all.failed > 1_000 && all.moved > 100 && all.moved_together > 50, "{all:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 77, 1_000_003] {
        let (first, second) = (replay(seed), replay(seed));
        assert_eq!(first, second);
        assert_ne!(first.trace, replay(seed + 1).trace);
    }
}
