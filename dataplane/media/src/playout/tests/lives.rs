//! Random lives of a stream: whatever comes, what is heard goes forwards, and nothing is lost without being counted.

use proptest::prelude::*;

use super::super::store::SLOTS_MAX;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// The next packet of the sender, after so many that are lost, so late.
    Packet {
        lost: u8,
        late_ms: u8,
        len: u16,
    },
    /// Anything.
    Hostile {
        sequence: u16,
        timestamp: u32,
        len: u16,
        marker: bool,
    },
    Noise {
        len: u8,
    },
    Other,
    Pause {
        ms: u16,
    },
    Pull {
        frames: u8,
    },
    Skip,
    Delay {
        min_ms: u16,
        max_ms: u16,
    },
    Reset,
}

fn steps(hostile: bool) -> impl Strategy<Value = Vec<Step>> {
    let packet = (prop_oneof![8 => Just(0u8), 1 => 1..20u8], prop_oneof![5 => Just(0u8), 1 => any::<u8>()], lengths())
        .prop_map(|(lost, late_ms, len)| Step::Packet { lost, late_ms, len });
    let weight = u32::from(hostile);
    let step = prop_oneof![
        40 => packet,
        40 => (1..4u8).prop_map(|frames| Step::Pull { frames }),
        2 => Just(Step::Skip),
        1 => (0..600u16).prop_map(|ms| Step::Pause { ms }),
        1 => (0..50u8).prop_map(|len| Step::Noise { len }),
        1 => Just(Step::Other),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(min_ms, max_ms)| Step::Delay { min_ms, max_ms }),
        weight => Just(Step::Reset),
        5 * weight => (any::<u16>(), any::<u32>(), 0..1000u16, any::<bool>())
            .prop_map(|(sequence, timestamp, len, marker)| Step::Hostile { sequence, timestamp, len, marker }),
    ];
    proptest::collection::vec(step, 1..400)
}

fn lengths() -> impl Strategy<Value = u16> {
    prop_oneof![10 => Just(160u16), 1 => Just(80u16), 1 => Just(20u16), 1 => Just(960u16), 1 => 1..960u16]
}

/// A sender, and the packets of his that are still under way.
struct Sender {
    sequence: u16,
    timestamp: u32,
    under_way: Vec<(u64, u16, u32, usize)>,
}

fn live(steps: Vec<Step>, codec_first: u16, timestamp_first: u32) -> Result<(), TestCaseError> {
    let mut bench = Bench::new();
    bench.voice = |timestamp| (timestamp % 30_000 + 1) as i16;
    let mut sender = Sender { sequence: codec_first, timestamp: timestamp_first, under_way: Vec::new() };
    let mut ms = 1_000;
    let mut last: Option<u32> = None;
    for step in steps {
        match step {
            Step::Packet { lost, late_ms, len } => {
                sender.sequence = sender.sequence.wrapping_add(1 + u16::from(lost));
                sender.timestamp = sender.timestamp.wrapping_add(u32::from(lost) * u32::from(len));
                let len32 = u32::from(len);
                sender.under_way.push((ms + u64::from(late_ms), sender.sequence, sender.timestamp, len.into()));
                sender.timestamp = sender.timestamp.wrapping_add(len32);
            }
            Step::Hostile { sequence, timestamp, len, marker } => {
                let _ = bench.push_at(Instant::from_millis(ms), sequence, timestamp, len.into(), marker);
            }
            Step::Noise { len } => {
                sender.sequence = sender.sequence.wrapping_add(1);
                let (sequence, timestamp) = (SeqNumber(sender.sequence), RtpTimestamp(sender.timestamp));
                let payload = vec![60; len.into()];
                let _ = bench.playout.push_noise(Instant::from_millis(ms), sequence, timestamp, &payload);
            }
            Step::Other => {
                sender.sequence = sender.sequence.wrapping_add(1);
                bench.playout.note_other(SeqNumber(sender.sequence));
            }
            Step::Pause { ms } => sender.timestamp = sender.timestamp.wrapping_add(u32::from(ms) * 8),
            Step::Pull { frames } => {
                for _ in 0..frames {
                    ms += 10;
                    arrive(&mut bench, &mut sender, ms);
                    let before = bench.playout.next_timestamp();
                    let (frame, pulled) = bench.pull(ms);
                    let after = bench.playout.next_timestamp();
                    check(before, after, &frame, pulled, bench.voice)?;
                    if let Some(now) = after {
                        let restarts = bench.playout.delay().counters.restarts;
                        prop_assert!(restarts < 1000);
                        last = Some(now);
                    }
                }
            }
            Step::Skip => {
                ms += 10;
                arrive(&mut bench, &mut sender, ms);
                bench.playout.skip(Instant::from_millis(ms), &mut [0; FRAME]);
            }
            Step::Delay { min_ms, max_ms } => bench.playout.set_delay(DelaySpec { min_ms, max_ms }),
            Step::Reset => bench.playout.reset(),
        }
        prop_assert!(bench.playout.store.slots() <= SLOTS_MAX);
        prop_assert!(bench.playout.delay().target_ms <= 500);
    }
    // In the end everything is over.
    for _ in 0..2000 {
        ms += 10;
        arrive(&mut bench, &mut sender, ms);
        bench.pull(ms);
    }
    prop_assert_eq!(bench.playout.next_timestamp(), None, "after {:?}", last);
    Ok(())
}

fn arrive(bench: &mut Bench, sender: &mut Sender, ms: u64) {
    sender.under_way.sort_unstable();
    while sender.under_way.first().is_some_and(|(at, ..)| *at <= ms) {
        let (at, sequence, timestamp, len) = sender.under_way.remove(0);
        let _ = bench.push(at, sequence, timestamp, len);
    }
}

/// A frame that is wholly the endpoint's is what it sent there; the playout point goes forwards.
fn check(
    before: Option<u32>,
    after: Option<u32>,
    frame: &[i16],
    pulled: Pulled,
    voice: fn(u32) -> i16,
) -> Result<(), TestCaseError> {
    if let (Some(before), Some(after)) = (before, after) {
        let moved = after.wrapping_sub(before).cast_signed();
        prop_assert!(moved >= 0, "the playout point went back by {} samples", -moved);
        if pulled == HEARD && moved == 80 && !frame.contains(&0) {
            let wanted: Vec<i16> = (0..80).map(|n| voice(before.wrapping_add(n))).collect();
            prop_assert_eq!(frame, wanted);
        }
    }
    let sounds = pulled.heard || pulled.concealed || pulled.noise;
    // A pause begins with the fade of what was heard before it.
    prop_assert!(sounds || frame[20..].iter().all(|sample| *sample == 0), "something sounds that is not told of");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn of_an_honest_sender(steps in steps(false), sequence: u16, timestamp: u32) {
        live(steps, sequence, timestamp)?;
    }

    #[test]
    fn among_hostile_ones(steps in steps(true), sequence: u16, timestamp: u32) {
        live(steps, sequence, timestamp)?;
    }
}

/// Packets of any bytes to any codec: frames go on, and the playout point goes forwards.
fn storm(codec: CodecKind, steps: Vec<Step>, bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut playout = Playout::new(codec);
    let ticks = codec.clock_rate_hz() / 50;
    let (mut ms, mut sequence, mut timestamp, mut at) = (1_000u64, 0u16, 0u32, 0usize);
    let mut frame = vec![0; codec.rate().frame_samples()];
    for step in steps {
        let now = Instant::from_millis(ms);
        match step {
            Step::Packet { lost, len, .. } => {
                sequence = sequence.wrapping_add(1 + u16::from(lost));
                timestamp = timestamp.wrapping_add(ticks * (1 + u32::from(lost)));
                at = (at + 7) % bytes.len();
                let len = usize::from(len);
                let len = if codec == CodecKind::Gsm { 33 * (1 + len % 3) } else { len / 2 };
                let payload: Vec<u8> = bytes.iter().cycle().skip(at).take(len).copied().collect();
                let _ = playout.push(now, SeqNumber(sequence), RtpTimestamp(timestamp), lost > 3, &payload);
            }
            Step::Hostile { sequence, timestamp, len, marker } => {
                let payload = vec![bytes[0]; usize::from(len) % 200];
                let _ = playout.push(now, SeqNumber(sequence), RtpTimestamp(timestamp), marker, &payload);
            }
            Step::Noise { len } => {
                sequence = sequence.wrapping_add(1);
                let _ = playout.push_noise(now, SeqNumber(sequence), RtpTimestamp(timestamp), &vec![40; len.into()]);
            }
            Step::Other => {
                sequence = sequence.wrapping_add(1);
                playout.note_other(SeqNumber(sequence));
            }
            Step::Pause { ms } => timestamp = timestamp.wrapping_add(u32::from(ms) * ticks / 20),
            Step::Pull { frames } => {
                for _ in 0..frames {
                    ms += 10;
                    let before = playout.next_timestamp();
                    let pulled = playout.pull(Instant::from_millis(ms), &mut frame);
                    if let (Some(before), Some(after)) = (before, playout.next_timestamp()) {
                        prop_assert!(after.wrapping_sub(before).cast_signed() >= 0);
                    }
                    let sounds = pulled.heard || pulled.concealed || pulled.noise;
                    let rest = &frame[codec.rate().frame_samples() / 4..];
                    prop_assert!(sounds || rest.iter().all(|sample| *sample == 0));
                    prop_assert!(!pulled.failed);
                }
            }
            Step::Skip => {
                ms += 10;
                playout.skip(Instant::from_millis(ms), &mut frame);
            }
            Step::Delay { min_ms, max_ms } => playout.set_delay(DelaySpec { min_ms, max_ms }),
            Step::Reset => playout.reset(),
        }
        prop_assert!(playout.store.slots() <= SLOTS_MAX);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn of_any_codec(steps in steps(true), bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        for codec in [CodecKind::G722, CodecKind::Opus, CodecKind::Gsm, CodecKind::L16(Rate::Full), CodecKind::Pcma] {
            storm(codec, steps.clone(), &bytes)?;
        }
    }
}

/// Every packet that is taken is heard or counted: nothing but what is late and lost is missing in the end.
#[test]
fn every_sample_is_heard_once_or_counted() {
    let mut seed = 7u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for life in 0..40 {
        let jitter = [0, 5, 30, 80][life % 4];
        let mut bench = Bench::new();
        bench.voice = |timestamp| (timestamp % 30_000 + 1) as i16;
        let mut sender = Sender { sequence: 65_500, timestamp: 0u32.wrapping_sub(30_000), under_way: Vec::new() };
        let mut accepted = std::collections::BTreeMap::new();
        let mut heard = std::collections::BTreeMap::<i16, u32>::new();
        for ms in (1000..6000u64).step_by(10) {
            // Less than 30 000 samples, so that each value is sent once.
            if ms % 20 == 0 && ms < 4600 {
                if random(20) > 0 {
                    let at = ms + random(1 + jitter);
                    sender.under_way.push((at, sender.sequence, sender.timestamp, 160));
                }
                (sender.sequence, sender.timestamp) =
                    (sender.sequence.wrapping_add(1), sender.timestamp.wrapping_add(160));
            }
            sender.under_way.sort_unstable();
            while sender.under_way.first().is_some_and(|(at, ..)| *at <= ms) {
                let (at, sequence, timestamp, len) = sender.under_way.remove(0);
                if bench.push(at, sequence, timestamp, len).is_ok() {
                    accepted.extend((0..160).map(|n| ((bench.voice)(timestamp.wrapping_add(n)), ())));
                }
            }
            let (frame, pulled) = bench.pull(ms);
            if pulled == HEARD {
                for sample in frame.into_iter().filter(|sample| *sample != 0) {
                    *heard.entry(sample).or_default() += 1;
                }
            }
        }
        assert!(heard.values().all(|times| *times == 1), "life {life}: a sample was heard twice");
        assert!(heard.keys().all(|sample| accepted.contains_key(sample)), "life {life}: nobody said that");
        let counters = bench.playout.delay().counters;
        assert_eq!(counters.discarded, 0);
        // What is faded into or out of is not counted as heard here: some 20 ms for each hole and change of the delay.
        let changed = counters.concealed_samples + counters.stretched_samples + counters.compressed_samples;
        let unheard = (accepted.len() - heard.len()) as u64;
        assert!(unheard <= 3 * changed + 800, "life {life}: {unheard} samples were not heard: {counters:?}");
    }
}
