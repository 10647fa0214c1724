//! One frame of a conference in which all talk and each hears all but itself: every member decoded and summed, every
//! listener's own samples subtracted and the rest encoded. Throughput is members mixed.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use ringbridge_codec::{g711, mix};

/// 20 ms at 8 kHz.
const FRAME_SAMPLES: usize = 160;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    let laws = [
        ("ulaw", Law { decode: g711::decode_ulaw, encode: g711::encode_ulaw }),
        ("alaw", Law { decode: g711::decode_alaw, encode: g711::encode_alaw }),
    ];
    for (name, law) in laws {
        let mut group = criterion.benchmark_group(format!("mixing/{name}/{}", ringbridge_codec::instruction_set()));
        for members in [3_u32, 10, 100, 1000] {
            let mut conference = Conference::new(members, law);
            group.throughput(Throughput::Elements(u64::from(members)));
            group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
                bencher.iter(|| black_box(&mut conference).mix());
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

#[derive(Clone, Copy)]
struct Law {
    decode: fn(&[u8], &mut [i16]),
    encode: fn(&[i16], &mut [u8]),
}

/// A frame on a cache line of its own, as the engine would hold it.
#[repr(align(64))]
struct Frame<T>([T; FRAME_SAMPLES]);

struct Conference {
    law: Law,
    sum: Frame<i32>,
    members: Vec<Member>,
}

struct Member {
    received: Frame<u8>,
    samples: Frame<i16>,
    sent: Frame<u8>,
}

impl Conference {
    fn new(members: u32, law: Law) -> Self {
        let member = |number: u32| {
            let mut received = Frame([0; FRAME_SAMPLES]);
            for (word, at) in received.0.iter_mut().zip(number..) {
                *word = at.wrapping_mul(37).to_le_bytes()[0];
            }
            Member { received, samples: Frame([0; FRAME_SAMPLES]), sent: Frame([0; FRAME_SAMPLES]) }
        };
        Self { law, sum: Frame([0; FRAME_SAMPLES]), members: (0..members).map(member).collect() }
    }

    fn mix(&mut self) {
        let sum = &mut self.sum.0;
        sum.fill(0);
        for member in &mut self.members {
            (self.law.decode)(&member.received.0, &mut member.samples.0);
            mix::accumulate(sum, &member.samples.0);
        }
        let mut others = Frame([0; FRAME_SAMPLES]);
        for member in &mut self.members {
            mix::subtract_narrow(sum, &member.samples.0, &mut others.0);
            (self.law.encode)(&others.0, &mut member.sent.0);
        }
    }
}
