//! 20 ms of a voice through each codec both ways, through the resampler, and through what is done to samples beside.

use std::env;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use ringbridge_codec::agc::Agc;
use ringbridge_codec::conceal::Concealment;
use ringbridge_codec::denoise::Denoiser;
use ringbridge_codec::noise::{ComfortNoise, NoiseAnalyser, NoiseGenerator};
use ringbridge_codec::vad::Vad;
use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings, Limiter, Rate, Resampler, g729, mix};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let mut group = criterion.benchmark_group(format!("codecs/{}", ringbridge_codec::instruction_set()));
    codecs(&mut group);
    resampler(&mut group);
    limiter(&mut group);
    others(&mut group);
    group.finish();
    criterion.final_summary();
}

fn codecs(group: &mut BenchmarkGroup<'_, WallTime>) {
    let speech = EncoderSettings::default();
    let kinds = [
        ("pcmu", CodecKind::Pcmu, speech),
        ("pcma", CodecKind::Pcma, speech),
        ("l16-8000", CodecKind::L16(Rate::Narrow), speech),
        ("l16-16000", CodecKind::L16(Rate::Wide), speech),
        ("l16-48000", CodecKind::L16(Rate::Full), speech),
        ("g722", CodecKind::G722, speech),
        ("gsm", CodecKind::Gsm, speech),
        ("g729", CodecKind::G729, speech),
        ("opus-16k", CodecKind::Opus, EncoderSettings { bitrate: 16_000, ..speech }),
        ("opus-32k", CodecKind::Opus, speech),
        ("opus-32k-no-fec", CodecKind::Opus, EncoderSettings { fec: false, ..speech }),
        ("opus-64k", CodecKind::Opus, EncoderSettings { bitrate: 64_000, ..speech }),
    ];
    // Left out where there is no library for it.
    let library = env::var_os("BCG729_LIBRARY").unwrap_or_else(|| "libbcg729.so.0".into());
    if let Err(error) = g729::load(Path::new(&library)) {
        eprintln!("no figures of G.729: {error}");
    }
    for (name, kind, settings) in kinds.into_iter().filter(|(_, kind, _)| kind.is_decodable()) {
        let packet = 2 * kind.rate().frame_samples();
        let samples = voice(kind.rate(), 4);
        let mut encoder = Encoder::new(kind, settings).expect("it can be encoded");
        let mut bytes = [0; 1920];
        let packets: Vec<Vec<u8>> = samples
            .chunks_exact(packet)
            .map(|frame| {
                let len = encoder.encode(frame, &mut bytes).expect("whole frames");
                bytes[..len].to_vec()
            })
            .collect();
        let mut frames = samples.chunks_exact(packet).cycle();
        group.bench_function(format!("{name}/encode"), |bencher| {
            bencher.iter(|| encoder.encode(black_box(frames.next().unwrap_or_default()), &mut bytes));
        });
        let mut decoder = Decoder::new(kind).expect("it can be decoded");
        let mut out = vec![0; packet];
        let mut next = packets.iter().cycle();
        group.bench_function(format!("{name}/decode"), |bencher| {
            bencher.iter(|| next.next().map(|packet| decoder.decode(black_box(packet), &mut out)));
        });
        if decoder.conceal(&mut out) == Ok(true) {
            let mut next = packets.iter().cycle();
            group.bench_function(format!("{name}/conceal-and-decode"), |bencher| {
                bencher.iter(|| {
                    decoder.conceal(&mut out).ok();
                    next.next().map(|packet| decoder.decode(black_box(packet), &mut out))
                });
            });
        }
    }
}

fn resampler(group: &mut BenchmarkGroup<'_, WallTime>) {
    for from in Rate::ALL {
        for to in Rate::ALL.into_iter().filter(|to| *to != from) {
            let mut resampler = Resampler::new(from, to);
            let input = voice(from, 1)[..2 * from.frame_samples()].to_vec();
            let mut out = vec![0; 2 * to.frame_samples()];
            group.bench_function(format!("resample/{}-to-{}", from.hz(), to.hz()), |bencher| {
                bencher.iter(|| resampler.process(black_box(&input), black_box(&mut out)));
            });
        }
    }
}

/// Two frames, for a frame of the limiter is 10 ms.
fn limiter(group: &mut BenchmarkGroup<'_, WallTime>) {
    for rate in Rate::ALL {
        let frame = rate.frame_samples();
        // From the middle of a word.
        let quiet: Vec<i32> = voice(rate, 1)[8 * frame..10 * frame].iter().map(|sample| i32::from(*sample)).collect();
        assert!(quiet.iter().any(|sum| sum * 8 > 40_000), "loud is loud");
        let loud: Vec<i32> = quiet.iter().map(|sum| sum * 8).collect();
        let own = vec![100; 2 * frame];
        let mut out = vec![0; 2 * frame];
        group.bench_function(format!("narrow/{}", rate.hz()), |bencher| {
            bencher.iter(|| {
                for (sum, out) in quiet.chunks(frame).zip(out.chunks_mut(frame)) {
                    mix::narrow(black_box(sum), black_box(out));
                }
            });
        });
        for (name, sums) in [("quiet", &quiet), ("loud", &loud)] {
            let mut limiter = Limiter::new();
            group.bench_function(format!("limiter-{name}/{}", rate.hz()), |bencher| {
                bencher.iter(|| {
                    for (sum, out) in sums.chunks(frame).zip(out.chunks_mut(frame)) {
                        limiter.process(black_box(sum), black_box(out));
                    }
                });
            });
        }
        group.bench_function(format!("subtract_narrow/{}", rate.hz()), |bencher| {
            bencher.iter(|| {
                for ((sum, own), out) in quiet.chunks(frame).zip(own.chunks(frame)).zip(out.chunks_mut(frame)) {
                    mix::subtract_narrow(black_box(sum), own, black_box(out));
                }
            });
        });
        for (name, sums) in [("quiet", &quiet), ("loud", &loud)] {
            let mut limiter = Limiter::new();
            group.bench_function(format!("limiter-less-{name}/{}", rate.hz()), |bencher| {
                bencher.iter(|| {
                    for ((sum, own), out) in sums.chunks(frame).zip(own.chunks(frame)).zip(out.chunks_mut(frame)) {
                        limiter.process_less(black_box(sum), own, black_box(out));
                    }
                });
            });
        }
    }
}

fn others(group: &mut BenchmarkGroup<'_, WallTime>) {
    for rate in Rate::ALL {
        let (frame, hz) = (rate.frame_samples(), rate.hz());
        let samples = voice(rate, 1);
        let mut concealment = Concealment::with_rate(rate);
        let heard = &samples[..concealment.history()];
        let mut out = vec![0; 2 * frame];
        group.bench_function(format!("conceal/{hz}"), |bencher| {
            bencher.iter(|| {
                concealment.begin(black_box(heard));
                concealment.fill(black_box(&mut out));
            });
        });
        let mut generator = NoiseGenerator::new();
        if let Some(noise) = ComfortNoise::parse(&[40, 60, 140, 120, 130, 127, 120, 130, 125, 128, 127]) {
            generator.set(&noise);
        }
        group.bench_function(format!("noise/{hz}"), |bencher| {
            bencher.iter(|| generator.fill(black_box(&mut out)));
        });
        let mut frames = samples.chunks_exact(frame).cycle();
        let mut twice = |work: &mut dyn FnMut(&[i16])| {
            for _ in 0..2 {
                work(black_box(frames.next().unwrap_or_default()));
            }
        };
        let mut analyser = NoiseAnalyser::new();
        group.bench_function(format!("noise-analysis/{hz}"), |bencher| {
            bencher.iter(|| twice(&mut |frame| analyser.add(frame)));
        });
        let mut vad = Vad::new();
        group.bench_function(format!("vad/{hz}"), |bencher| {
            bencher.iter(|| {
                twice(&mut |frame| {
                    vad.process(frame);
                })
            });
        });
        let (mut agc, mut copy) = (Agc::new(), vec![0; frame]);
        group.bench_function(format!("agc/{hz}"), |bencher| {
            bencher.iter(|| {
                twice(&mut |frame| {
                    copy.copy_from_slice(frame);
                    agc.process(&mut copy);
                })
            });
        });
        let mut denoiser = Denoiser::new(rate);
        group.bench_function(format!("denoise/{hz}"), |bencher| {
            bencher.iter(|| {
                twice(&mut |frame| {
                    copy.copy_from_slice(frame);
                    denoiser.process(&mut copy);
                })
            });
        });
    }
}

/// Something like a voice, soft enough for eight times as much to be too loud.
#[expect(clippy::cast_possible_truncation, reason = "samples of our own")]
fn voice(rate: Rate, seconds: u32) -> Vec<i16> {
    let mut random = 1_u32;
    (0..seconds * rate.hz())
        .map(|n| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(random >> 16) / 32768.0 - 1.0;
            let t = f64::from(n) / f64::from(rate.hz());
            let phase = (150.0 * t + 3.0 * (2.0 * t).sin()) * std::f64::consts::TAU;
            let voiced: f64 = (1..20).map(|k| (f64::from(k) * phase).sin() / f64::from(k)).sum();
            let word = (3.0 * t * std::f64::consts::TAU).sin();
            (word.max(0.0) * voiced * 6000.0 + (-word - 0.5).max(0.0) * noise * 6000.0 + noise * 20.0) as i16
        })
        .collect()
}
