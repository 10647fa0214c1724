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
pub(super) fn speech(timestamp: u32) -> i16 {
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

/// The least and the most delay in two hours of a clock that differs, and the samples put in or left out.
pub(super) fn two_hours(voice: fn(u32) -> i16, ppm: i64) -> (u32, u32, u64) {
    let mut bench = Bench::new();
    bench.voice = voice;
    let delays = play(&mut bench, 7_200_000, |n| (20 * n as i64 * ppm / 1000 + 4_000_000).try_into().ok());
    let Counters { late, discarded, talkspurts, stretched_samples, compressed_samples, concealed_samples, .. } =
        bench.playout.delay().counters;
    assert_eq!((late, discarded, talkspurts, concealed_samples), (0, 0, 1, 0), "{ppm} ppm");
    let (least, most) = (*delays[600..].iter().min().unwrap(), *delays.iter().max().unwrap());
    (least, most, stretched_samples + compressed_samples)
}

#[test]
fn clocks_that_differ_cost_a_frame_now_and_then_and_no_packet() {
    for ppm in [-500i64, -200, 200, 500] {
        let (least, most, moved) = two_hours(song, ppm);
        assert!(least >= 15 && most <= 70, "{ppm} ppm: {least} to {most} ms");
        let drift = 7200 * 8000 * ppm.abs() / 1_000_000;
        assert!((moved as i64 - drift).abs() < 800, "{ppm} ppm: {moved} samples for {drift}");
    }
}

/// The steepest step of what is heard is that of the voice, or not much more.
fn steepest(samples: &[i16]) -> i32 {
    samples.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap_or(0)
}

#[test]
fn another_delay_is_come_to_without_a_click() {
    for (voice, seconds, wanted) in [(speech as fn(u32) -> i16, 8, 0.78), (song, 12, 0.99)] {
        let mut bench = Bench::new();
        bench.voice = voice;
        let of_voice = steepest(&(0..8000).map(voice).collect::<Vec<_>>());
        let mut heard = Vec::new();
        for ms in (0..3 * seconds * 1000).step_by(10) {
            if ms % 20 == 0 {
                bench.push(ms, (ms / 20) as u16, 8 * ms as u32, 160).unwrap();
            }
            if ms == seconds * 1000 {
                bench.playout.set_delay(DelaySpec { min_ms: 120, max_ms: 200 });
            }
            if ms == 2 * seconds * 1000 {
                let delay = bench.playout.delay();
                assert!(delay.target_ms == 120 && (118..=140).contains(&delay.current_ms), "{delay:?}");
                bench.playout.set_delay(DelaySpec::default());
            }
            let (frame, pulled) = bench.pull(ms);
            assert_eq!(pulled.heard, ms >= 20, "{ms} ms");
            heard.extend(frame);
        }
        let delay = bench.playout.delay();
        // In a song it need not be exact.
        assert!(delay.target_ms == 20 && (20..=60).contains(&delay.current_ms), "{delay:?}");
        assert_eq!((delay.counters.late, delay.counters.concealed_samples), (0, 0));
        let steepest = steepest(&heard[400..]);
        assert!(steepest < 2 * of_voice, "{steepest}, and the voice {of_voice}");
        let loud = heard.chunks_exact(80).skip(2).filter(|frame| frame.iter().any(|sample| sample.abs() > 3000));
        let share = loud.count() as f64 / heard.len() as f64 * 80.0;
        assert!(share > wanted, "what is put into a voice sounds: {share}");
    }
}

/// After a stall all that waited is played, and the delay goes back to what it was.
#[test]
fn the_delay_after_a_stall_is_brought_down() {
    let mut bench = Bench::new();
    bench.voice = speech;
    let delays = play(&mut bench, 20_000, |n| Some(if (100..115).contains(&n) { (115 - n) * 20_000 } else { 0 }));
    let most = delays.iter().max().unwrap();
    assert!((300..330).contains(most), "{most}");
    let counters = bench.playout.delay().counters;
    assert_eq!((counters.late, counters.discarded, counters.talkspurts), (0, 0, 2), "{counters:?}");
    let last = delays.last().unwrap();
    assert!((20..=60).contains(last), "{last}");
}

/// What the mix of thousands of streams touches is what its time goes by.
#[test]
fn a_stream_is_small() {
    let mut bench = Bench::new();
    bench.playout = Playout::new(CodecKind::Pcmu);
    for n in 0..1000u16 {
        let now = Instant::from_millis(20 * u64::from(n));
        bench.playout.push(now, SeqNumber(n), RtpTimestamp(160 * u32::from(n)), false, &[0x80; 160]).unwrap();
        bench.pull_at(now);
        bench.pull_at(Instant::from_millis(20 * u64::from(n) + 10));
    }
    let hot = size_of::<Playout>() + bench.playout.store.bytes();
    let cold = size_of::<super::super::Cold>() + bench.playout.cold.tape.bytes();
    assert!(hot <= 1200 && cold <= 5400, "{hot} and {cold} bytes");
}

/// A voice that is made faster than it is spoken: so much at once at the beginning, then a packet each 20 ms.
fn lead(bench: &mut Bench, lead_ms: u64, ms: u64) -> Vec<i16> {
    let mut heard = Vec::new();
    let mut sent = 0;
    for now in (0..ms).step_by(10) {
        while sent * 20 <= now + lead_ms {
            bench.push(now, sent as u16, 160 * sent as u32, 160).unwrap();
            sent += 1;
        }
        heard.extend(bench.pull(now).0);
    }
    heard
}

#[test]
fn what_is_sent_ahead_loses_pauses_and_no_words() {
    for (lead_ms, shortened) in [(80, true), (300, true), (800, true), (1500, false), (5000, false)] {
        let mut bench = Bench::new();
        bench.voice = speech;
        let heard = lead(&mut bench, lead_ms, 10_000);
        let Counters { compressed_samples, discarded, concealed_samples, .. } = bench.playout.delay().counters;
        assert_eq!((compressed_samples > 0, discarded, concealed_samples), (shortened, 0, 0), "{lead_ms} ms ahead");
        let loud = heard.chunks_exact(FRAME).filter(|frame| frame.iter().any(|sample| sample.abs() > 3000)).count();
        // Eight of ten frames, and more if there are fewer pauses.
        assert!(loud >= 798, "{lead_ms} ms ahead: {loud} frames of the voice");
        // A voice without a pause loses nothing.
        let mut bench = Bench::new();
        bench.voice = song;
        lead(&mut bench, lead_ms, 10_000);
        let off = if lead_ms == 80 { 80 * 8 } else { 0 };
        assert!(bench.playout.delay().counters.compressed_samples <= off, "{lead_ms} ms ahead");
    }
}

/// An assistant sends each thing it says at once, with timestamps that go on from the last as if there were no pause.
#[test]
fn utterances_that_come_at_once_are_heard_whole() {
    for pause_ms in [30, 60, 90, 150, 250, 600, 1_500, 4_000] {
        for said_ms in [400u64, 1_000, 3_000] {
            let mut bench = Bench::new();
            bench.voice = value;
            let (mut sent, mut heard, mut frames) = (0u64, Vec::new(), Vec::new());
            let turn = said_ms + pause_ms;
            for ms in (0..10 * turn).step_by(10) {
                if ms % turn == 0 {
                    for _ in 0..said_ms / 20 {
                        bench.push(ms, sent as u16, 160 * sent as u32, 160).unwrap();
                        sent += 1;
                    }
                }
                let (frame, pulled) = bench.pull(ms);
                heard.extend(frame);
                frames.push(pulled);
            }
            let counters = bench.playout.delay().counters;
            let Counters { compressed_samples, discarded, late, stretched_samples, .. } = counters;
            assert_eq!((compressed_samples, discarded, late), (0, 0, 0), "{said_ms} and {pause_ms} ms");
            let whole = frames.iter().filter(|pulled| pulled.heard).count() as u64;
            assert_eq!(whole, said_ms + stretched_samples / 80, "{said_ms} and {pause_ms} ms");
        }
    }
}

/// A sender that does not count the time he is silent: with the marker it is known at once that he is not late.
#[test]
fn a_marker_begins_a_talkspurt_with_the_delay_there_ought_to_be() {
    for marker in [true, false] {
        let mut bench = Bench::new();
        bench.voice = song;
        let mut delays = Vec::new();
        for ms in (0..4000).step_by(10) {
            if ms % 20 == 0 && !(1000..1400).contains(&ms) {
                let n = if ms < 1000 { ms / 20 } else { (ms - 400) / 20 };
                let now = Instant::from_millis(ms);
                bench.push_at(now, n as u16, 160 * n as u32, 160, marker && ms == 1400).unwrap();
            }
            let (_, pulled) = bench.pull(ms);
            assert_eq!(pulled.heard, (20..1020).contains(&ms) || ms >= 1420, "{ms} ms");
            delays.push(bench.playout.delay().current_ms);
        }
        // Without it the packets seem to be late, until that has lasted too long.
        assert_eq!(delays[150], if marker { 20 } else { 420 });
        assert_eq!(delays[399], 20, "{marker}");
        let counters = bench.playout.delay().counters;
        assert_eq!((counters.compressed_samples, counters.stretched_samples), (0, 0));
    }
}
