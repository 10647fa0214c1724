//! Both laws of G.711, both ways, one frame of 20 ms.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use ringbridge_codec::g711;

/// 20 ms at 8 kHz.
const FRAME_SAMPLES: u8 = 160;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    // Not in order, and of all loudnesses.
    let payload: Vec<u8> = (0..FRAME_SAMPLES).map(|at| at.wrapping_mul(37)).collect();
    let mut samples = vec![0; payload.len()];
    let mut encoded = vec![0; payload.len()];

    let mut group = criterion.benchmark_group(format!("g711/{}", ringbridge_codec::instruction_set()));
    group.throughput(Throughput::Elements(u64::from(FRAME_SAMPLES)));
    group.bench_function("decode_ulaw", |bencher| {
        bencher.iter(|| g711::decode_ulaw(black_box(&payload), black_box(&mut samples)));
    });
    group.bench_function("encode_ulaw", |bencher| {
        bencher.iter(|| g711::encode_ulaw(black_box(&samples), black_box(&mut encoded)));
    });
    group.bench_function("decode_alaw", |bencher| {
        bencher.iter(|| g711::decode_alaw(black_box(&payload), black_box(&mut samples)));
    });
    group.bench_function("encode_alaw", |bencher| {
        bencher.iter(|| g711::encode_alaw(black_box(&samples), black_box(&mut encoded)));
    });
    group.finish();
    criterion.final_summary();
}
