//! How long it waits, and how it comes to another delay.

use std::sync::LazyLock;

use super::super::Counters;
use super::*;

/// A period of a voice: two harmonics.
static PERIOD: LazyLock<[i16; 64]> = LazyLock::new(|| {
    std::array::from_fn(|n| {
        let phase = n as f64 / 64.0 * std::f64::consts::TAU;
        (6000.0 * phase.sin() + 2500.0 * (2.0 * phase + 1.0).sin()) as i16
    })
});

/// A voice with a pause every second.
fn speech(timestamp: u32) -> i16 {
    let sample = PERIOD[timestamp as usize % 64];
    if timestamp % 8000 < 6400 { sample } else { sample / 512 }
}

/// A voice without a pause.
fn song(timestamp: u32) -> i16 {
    PERIOD[timestamp as usize % 64]
}

/// Plays `ms` of a stream whose packet `n` is `late(n)` late; the delay after each frame.
fn play(bench: &mut Bench, ms: u64, mut late_us: impl FnMut(u64) -> Option<u64>) -> Vec<u32> {
    let mut arrivals: Vec<(u64, u64)> = (0..ms / 20).filter_map(|n| Some((20_000 * n + late_us(n)?, n))).collect();
    arrivals.sort_unstable();
    let mut arrivals = arrivals.into_iter().peekable();
    let mut delays = Vec::new();
    for at in (0..ms * 1000).step_by(10_000) {
        while let Some((when, n)) = arrivals.next_if(|(when, _)| *when <= at) {
            let now = Instant::from_nanos(when * 1000);
            let _ = bench.push_at(now, n as u16, 160 * n as u32, 160, n == 0);
        }
        if arrivals.peek().is_none() {
            break;
        }
        bench.pull_at(Instant::from_nanos(at * 1000));
        delays.push(bench.playout.delay().current_ms);
    }
    delays
}

#[test]
fn clocks_that_differ_cost_a_frame_now_and_then_and_no_packet() {
    for voice in [speech, song] {
        for ppm in [-500i64, -200, 200, 500] {
            let mut bench = Bench::new();
            bench.voice = voice;
            // Two hours.
            let delays = play(&mut bench, 7_200_000, |n| (20 * n as i64 * ppm / 1000 + 4_000_000).try_into().ok());
            let Counters {
                late, discarded, talkspurts, stretched_samples, compressed_samples, concealed_samples, ..
            } = bench.playout.delay().counters;
            assert_eq!((late, discarded, talkspurts, concealed_samples), (0, 0, 1, 0), "{ppm} ppm");
            let (least, most) = (delays[600..].iter().min().unwrap(), delays.iter().max().unwrap());
            assert!(*least >= 18 && *most <= 70, "{ppm} ppm: {least} to {most} ms");
            let moved = (stretched_samples + compressed_samples) as i64;
            let drift = 7200 * 8000 * ppm.abs() / 1_000_000;
            assert!((moved - drift).abs() < 800, "{ppm} ppm: {moved} samples for {drift}");
        }
    }
}
