//! What codecs and the rest allocate once they have been made and have warmed up: nothing.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringbridge_codec::agc::Agc;
use ringbridge_codec::conceal::Concealment;
use ringbridge_codec::denoise::Denoiser;
use ringbridge_codec::noise::{ComfortNoise, NoiseAnalyser, NoiseGenerator};
use ringbridge_codec::vad::Vad;
use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings, Limiter, Rate, Resampler};

thread_local! {
    /// Of this thread, for others run beside.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

/// Words and pauses.
fn samples(rate: Rate) -> Vec<i16> {
    let mut random = 1_u32;
    (0..2 * rate.hz())
        .map(|n| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let ramp = i16::try_from(n * 8000 / rate.hz() * 37 % 16_000).unwrap() - 8000;
            let noise = i16::try_from(random >> 24).unwrap() - 128;
            if (n / (rate.hz() / 4)).is_multiple_of(2) { ramp + noise } else { noise }
        })
        .collect()
}

#[test]
fn codecs_allocate_when_they_are_made() {
    let rows = [
        (CodecKind::Pcma, 0),
        (CodecKind::L16(Rate::Wide), 0),
        (CodecKind::G722, 0),
        (CodecKind::Gsm, 0),
        // SILK, hybrid and CELT, by what the rate allows.
        (CodecKind::Opus, 8_000),
        (CodecKind::Opus, 16_000),
        (CodecKind::Opus, 32_000),
        (CodecKind::Opus, 128_000),
    ];
    for (kind, bitrate) in rows {
        let samples = samples(kind.rate());
        for ptime_ms in [10, 20, 60].into_iter().filter(|ptime_ms| kind.can_encode_ms(*ptime_ms)) {
            let what = format!("{kind} {bitrate}, {ptime_ms} ms");
            let settings = EncoderSettings { bitrate, ..EncoderSettings::default() };
            let mut encoder = Encoder::new(kind, settings).unwrap();
            let mut other = Encoder::new(kind, settings).unwrap();
            let mut decoder = Decoder::new(kind).unwrap();
            let (mut bytes, mut toward, mut out) = ([0; 1440], [0; 1440], vec![0; 5760]);
            let ticks = kind.rate().frame_samples() * ptime_ms as usize / 10;
            for (at, frame) in samples.chunks_exact(ticks).enumerate() {
                let count = allocations(|| {
                    let len = encoder.encode(frame, &mut bytes).unwrap();
                    if at % 10 == 7 {
                        decoder.recover(&bytes[..len], &mut out[..frame.len()]).unwrap();
                        decoder.conceal(&mut out[..frame.len()]).unwrap();
                    }
                    decoder.decode(&bytes[..len], &mut out).unwrap();
                    if at % 10 == 4 {
                        other.copy_from(&encoder).unwrap();
                    }
                    let len = other.encode_toward(frame, &bytes[..len], &mut toward).unwrap();
                    other.watch(&encoder);
                    std::hint::black_box(other.could_go_on_with(&encoder, &toward[..len], true));
                    // What libgsm and the like keep they make anew.
                    if at % 30 == 29 && kind != CodecKind::Gsm {
                        encoder.reset();
                        decoder.reset();
                    }
                });
                // With the very first, tables are made that all share.
                assert!(count == 0 || at == 0, "{what}: {count} with packet {at}");
            }
        }
    }
}

#[test]
fn the_rest_allocates_when_it_is_made() {
    for rate in Rate::ALL {
        let samples = samples(rate);
        let sums: Vec<i32> = samples.iter().map(|sample| i32::from(*sample) * 7).collect();
        let noise = ComfortNoise::parse(&[40, 100, 120, 130]).unwrap();
        let mut out = vec![0; Rate::Full.frame_samples()];
        let (mut up, mut down) = (Resampler::new(rate, Rate::Full), Resampler::new(Rate::Full, rate));
        let (mut limiter, mut vad, mut agc) = (Limiter::new(), Vad::new(), Agc::new());
        let (mut generator, mut analyser) = (NoiseGenerator::new(), NoiseAnalyser::new());
        let mut concealment = Concealment::with_rate(rate);
        let mut denoiser = Denoiser::new(rate);
        let frame = rate.frame_samples();
        for round in 0..2 {
            for (at, (samples, sums)) in samples.chunks_exact(frame).zip(sums.chunks_exact(frame)).enumerate() {
                let count = allocations(|| {
                    up.process(samples, &mut out);
                    down.process(&out, &mut [0; 480][..frame]);
                    limiter.process(sums, &mut out[..frame]);
                    limiter.process_less(sums, samples, &mut out[..frame]);
                    vad.process(samples);
                    agc.process(&mut out[..frame]);
                    analyser.add(samples);
                    generator.set(&noise);
                    generator.fill(&mut out[..frame]);
                    concealment.begin(samples);
                    concealment.fill(&mut out[..frame]);
                    concealment.join(&mut out[..frame]);
                });
                assert!(round == 0 || count == 0, "{count} in frame {at} at {rate:?}");
                out[..frame].copy_from_slice(samples);
                let count = allocations(|| {
                    denoiser.process(&mut out[..frame]);
                });
                assert!(round == 0 || count == 0, "{count} to take the noise from frame {at} at {rate:?}");
            }
        }
    }
}
