//! Codecs with a state: payloads in order, and what they themselves make of losses.

use super::fake::{Call, Fake, LOUD, MADE, RECOVERED};
use super::*;

struct Stateful {
    playout: Playout,
}

impl Stateful {
    fn new(codec: CodecKind, fake: Fake) -> Self {
        let mut playout = Playout::new(codec);
        let samples_per_ms = codec.rate().hz() as usize / 1000;
        playout.source.fake = Some(Fake { samples_per_ms, ..fake });
        Self { playout }
    }

    /// Packet `n` of 20 ms.
    fn push(&mut self, ms: u64, n: u8) -> Result<(), DropReason> {
        self.push_len(ms, n, u32::from(n) * 20, 20)
    }

    fn push_len(&mut self, ms: u64, n: u8, made_ms: u32, len_ms: usize) -> Result<(), DropReason> {
        let clock = self.playout.source.kind().clock_rate_hz() / 1000;
        let (sequence, timestamp) = (SeqNumber(u16::from(n)), RtpTimestamp(made_ms * clock));
        self.playout.push(Instant::from_millis(ms), sequence, timestamp, n == 0, &vec![n; len_ms])
    }

    /// First and last sample of a frame; those of packet `n` are `n`.
    fn pull(&mut self, ms: u64) -> (i16, i16, Pulled) {
        let mut frame = vec![0; self.playout.source.kind().rate().frame_samples()];
        let pulled = self.playout.pull(Instant::from_millis(ms), &mut frame);
        let number = |sample: i16| if sample < RECOVERED { sample / LOUD } else { sample };
        (number(frame[0]), number(frame[frame.len() - 1]), pulled)
    }

    fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.playout.source.fake.as_mut().unwrap().calls)
    }
}

const CODECS: [CodecKind; 3] = [CodecKind::Gsm, CodecKind::G722, CodecKind::Opus];

#[test]
fn every_packet_is_decoded_once_and_in_order() {
    for codec in CODECS {
        let mut bench = Stateful::new(codec, Fake::default());
        for (ms, n) in (0..).zip([0, 2, 1, 3, 5, 4]) {
            assert_eq!(bench.push(ms, n), Ok(()));
        }
        for frame in 0..12 {
            let n = frame / 2;
            assert_eq!(bench.pull(20 + 10 * frame as u64), (n, n, HEARD), "{codec} frame {frame}");
            let point = bench.playout.next_timestamp().unwrap();
            assert_eq!(point, (u32::try_from(frame).unwrap() + 1) * codec.clock_rate_hz() / 100);
        }
        assert_eq!(bench.calls(), (0..6).map(Call::Decode).collect::<Vec<_>>());
        let memory = bench.playout.cold.tape.bytes() + bench.playout.store.bytes();
        assert!(memory < 40_000, "{codec}: {memory}");
    }
}

#[test]
fn a_loss_is_recovered_from_the_next_packet_where_that_tells_of_it() {
    for codec in CODECS {
        let mut bench = Stateful::new(codec, Fake { has_fec: true, has_plc: true, ..Fake::default() });
        for n in [0, 1, 4, 5] {
            assert_eq!(bench.push(u64::from(n), n), Ok(()));
        }
        let frames: Vec<_> = (0..12).map(|n| bench.pull(20 + 10 * n)).collect();
        let samples: Vec<i16> = frames.iter().map(|(first, ..)| *first).collect();
        let recovered = RECOVERED + 3;
        assert_eq!(samples, [0, 0, 1, 1, MADE, MADE, recovered, recovered, 4, 4, 5, 5], "{codec}");
        assert!(frames[4..8].iter().all(|(.., pulled)| pulled.concealed && !pulled.heard));
        let missing: u32 = frames.iter().map(|(.., pulled)| pulled.missing).sum();
        assert_eq!(missing, 320, "as at 8 kHz");
        let frame = codec.rate().frame_samples();
        assert_eq!(
            bench.calls(),
            [
                Call::Decode(0),
                Call::Decode(1),
                Call::Conceal(frame),
                Call::Conceal(frame),
                Call::Recover(4, 2 * frame),
                Call::Decode(4),
                Call::Decode(5)
            ]
        );
    }
}

#[test]
fn a_late_packet_is_decoded_all_the_same_and_the_delay_has_grown() {
    let mut bench = Stateful::new(CodecKind::Opus, Fake { has_plc: true, ..Fake::default() });
    bench.playout.set_delay(DelaySpec { min_ms: 20, max_ms: 20 });
    bench.push(0, 0).unwrap();
    bench.push(20, 1).unwrap();
    let mut samples = Vec::new();
    for ms in (20..200).step_by(10) {
        if ms == 90 {
            // Packet 2 is 50 ms late; the others follow.
            (2..5).for_each(|n| bench.push(ms, n).unwrap());
        }
        if ms > 90 && ms % 20 == 0 {
            bench.push(ms, (ms / 20) as u8).unwrap();
        }
        samples.push(bench.pull(ms).0);
    }
    assert_eq!(samples[..14], [0, 0, 1, 1, MADE, MADE, MADE, 2, 2, 3, 3, 4, 4, 5]);
    assert_eq!(bench.playout.delay().current_ms, 50);
}

#[test]
fn a_codec_that_knows_nothing_of_losses_is_helped() {
    for codec in CODECS {
        let mut bench = Stateful::new(codec, Fake::default());
        for n in [10, 11, 13, 14] {
            bench.push_len(0, n, u32::from(n) * 20, 20).unwrap();
        }
        let frames: Vec<_> = (0..10).map(|n| bench.pull(20 + 10 * n)).collect();
        assert!(frames[4].2.concealed && frames[5].2.missing == 80, "{codec}: {frames:?}");
        assert_eq!((frames[7].0, frames[7].1), (13, 13));
    }
}

#[test]
fn a_failed_codec_is_told_and_stays_silent() {
    let mut bench = Stateful::new(CodecKind::Opus, Fake { fails_at: Some(1), ..Fake::default() });
    for n in 0..3 {
        bench.push(0, n).unwrap();
    }
    assert!(!bench.pull(20).2.failed);
    bench.pull(30);
    assert_eq!(bench.pull(40).0, 0);
    assert!(bench.pull(50).2.failed);
}

#[test]
fn a_payload_the_codec_refuses_is_as_good_as_lost() {
    let mut bench = Stateful::new(CodecKind::Opus, Fake { refuses: Some(1), has_plc: true, ..Fake::default() });
    for n in 0..4 {
        bench.push(0, n).unwrap();
    }
    let samples: Vec<i16> = (0..8).map(|n| bench.pull(20 + 10 * n).0).collect();
    assert_eq!(samples, [0, 0, MADE, MADE, 2, 2, 3, 3]);
    assert_eq!(bench.playout.delay().counters.discarded, 1);
}

#[test]
fn long_and_short_packets() {
    for codec in CODECS {
        let mut bench = Stateful::new(codec, Fake { has_plc: true, ..Fake::default() });
        let mut made_ms = 0;
        let lengths = [120, 10, 10, 60, 120, 5, 5, 40];
        for (n, len) in (0u8..).zip(lengths) {
            bench.push_len(0, n, made_ms, len).unwrap();
            made_ms += u32::try_from(len).unwrap();
        }
        let wanted = (0i16..).zip(lengths).flat_map(|(n, len)| vec![n; len / 5]);
        let played: Vec<i16> = (0..37)
            .flat_map(|n| {
                let (first, last, pulled) = bench.pull(20 + 10 * n);
                assert_eq!(pulled, HEARD, "{codec} frame {n}");
                [first, last]
            })
            .collect();
        assert_eq!(played, wanted.take(74).collect::<Vec<_>>(), "{codec}");
    }
}
