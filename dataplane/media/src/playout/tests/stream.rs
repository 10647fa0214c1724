//! Packets in, frames out: order, holes, ends and what hostile senders do.

use super::*;

#[test]
fn plays_what_came_in_order_bit_exactly_across_the_wraps() {
    for ptime in [20usize, 80, 160, 240, 320, 480, 960] {
        let mut bench = Bench::new();
        let start = 0u32.wrapping_sub(4000);
        let (mut sent, mut played, mut sequence) = (start, start, 65_500u16);
        for tick in (0..3000 * 8u64).step_by(20) {
            let now = Instant::from_nanos(tick * 125_000);
            if tick % ptime as u64 == 0 {
                assert_eq!(bench.push_at(now, sequence, sent, ptime, sent == start), Ok(()));
                (sent, sequence) = (sent.wrapping_add(ptime as u32), sequence.wrapping_add(1));
            }
            if tick % 80 != 0 {
                continue;
            }
            let (frame, pulled) = bench.pull_at(now);
            if tick < 160 {
                assert_eq!(pulled, SILENT);
                continue;
            }
            assert_eq!((frame, pulled), (ramp(played), HEARD), "packets of {ptime} samples, {} ms", tick / 8);
            played = played.wrapping_add(80);
            assert_eq!(bench.playout.next_timestamp(), Some(played));
        }
        let delay = bench.playout.delay();
        assert_eq!((delay.target_ms, delay.current_ms), (20, 20));
    }
}

#[test]
fn a_burst_comes_out_whole() {
    let mut bench = Bench::new();
    for n in 0u16..500 {
        assert_eq!(bench.push(u64::from(n) / 40, n, 777 + 160 * u32::from(n), 160), Ok(()), "packet {n}");
    }
    assert_eq!(
        bench.push(12, 1, 777 + 160, 160),
        Err(DropReason::Duplicate),
        "what came before it grew is still there"
    );
    for n in 0..1000 {
        assert_eq!(bench.pull(20 + 10 * n), (ramp(777 + 80 * n as u32), HEARD), "frame {n}");
    }
}

#[test]
fn bursts_of_seconds_are_played_one_after_the_other() {
    let mut bench = Bench::new();
    let mut frames = 0u32;
    for ms in (0..30_000u64).step_by(10) {
        if ms % 3000 == 0 {
            for n in 0..150 {
                let n = ms / 20 + n;
                assert_eq!(bench.push(ms, n as u16, 160 * n as u32, 160), Ok(()));
            }
        }
        let (frame, pulled) = bench.pull(ms);
        if ms >= 20 {
            assert_eq!((frame, pulled), (ramp(80 * frames), HEARD), "{ms} ms");
            frames += 1;
        }
    }
    let counters = bench.playout.delay().counters;
    assert_eq!((counters.talkspurts, counters.compressed_samples, counters.discarded), (1, 0, 0));
}

#[test]
fn more_than_ten_seconds_ahead_is_too_early() {
    let mut bench = Bench::new();
    let accepted = (0..1000u16).filter(|n| bench.push(0, *n, 160 * u32::from(*n), 160).is_ok()).count();
    assert!((490..=512).contains(&accepted), "{accepted}");
    assert_eq!(bench.push(0, 502, 11 * 8000, 160), Err(DropReason::Early));
}

#[test]
fn a_burst_into_a_buffer_that_ran_dry() {
    let mut bench = Bench::new();
    assert_eq!(bench.push(0, 1, 1000, 160), Ok(()));
    for ms in [20, 30, 40, 50] {
        bench.pull(ms);
    }
    for n in 0..10u16 {
        assert_eq!(bench.push(55, 6 + n, 1000 + 320 + 640 + 160 * u32::from(n), 160), Ok(()));
    }
    // 100 ms are missing, of which 20 were made up.
    let heard: Vec<_> = (0..30).map(|n| bench.pull(60 + 10 * n)).skip_while(|(_, pulled)| !pulled.heard).collect();
    assert_eq!(heard[0].0[79], ramp(1960)[79]);
    for (n, (frame, pulled)) in heard.iter().enumerate().take(20).skip(1) {
        assert_eq!((frame, pulled), (&ramp(1960 + 80 * n as u32), &HEARD), "frame {n}");
    }
    let missing: u32 = heard.iter().map(|(_, pulled)| pulled.missing).sum();
    assert_eq!(missing, 0);
}

#[test]
fn reordered_duplicated_and_lost_packets() {
    let mut bench = Bench::new();
    assert_eq!(bench.push(0, 2, 1160, 160), Ok(()));
    assert_eq!(bench.push(1, 1, 1000, 160), Ok(()), "an overtaken first packet still comes first");
    assert_eq!(bench.push(2, 2, 1160, 160), Err(DropReason::Duplicate));
    for (sequence, timestamp) in [(3, 1320), (4, 1480), (6, 1800)] {
        assert_eq!(bench.push(10, sequence, timestamp, 160), Ok(()));
    }
    for n in 0..12 {
        let (frame, pulled) = bench.pull(20 + 10 * n);
        let timestamp = 1000 + 80 * n as u32;
        if (1640..1800).contains(&timestamp) {
            assert_eq!(pulled, Pulled { heard: false, concealed: true, missing: 80, ..HEARD });
            assert_ne!(frame, vec![0; 80]);
        } else if timestamp == 1800 {
            assert_eq!(pulled, Pulled { concealed: true, ..HEARD }, "faded into");
            assert_eq!(frame[79], ramp(timestamp)[79]);
        } else {
            assert_eq!((frame, pulled), (ramp(timestamp), HEARD), "frame {n}");
        }
    }
    assert_eq!(bench.push(140, 5, 1640, 160), Err(DropReason::Late));
    assert_eq!(bench.push(140, 4, 1480, 160), Err(DropReason::Duplicate));
    assert_eq!(bench.playout.delay().counters.late, 1);
}

/// What is told of a frame is what is in it: to the last sample that fades.
#[test]
fn what_stands_for_the_end_of_a_voice_is_told_until_it_has_faded() {
    let mut bench = Bench::new();
    for n in 0..4u16 {
        assert_eq!(bench.push(0, n, 1000 + 160 * u32::from(n), 160), Ok(()));
    }
    let frames: Vec<_> = (0..17).map(|n| bench.pull(20 + 10 * n)).collect();
    for (n, (frame, pulled)) in frames.into_iter().enumerate() {
        assert_eq!(pulled.heard, n < 8, "frame {n}");
        assert_eq!(pulled.concealed, n >= 8 && frame.iter().any(|sample| *sample != 0), "frame {n}");
        assert_eq!(pulled.concealed, (8..14).contains(&n), "frame {n}");
    }
}

#[test]
fn a_new_timeline_is_followed_after_three_packets() {
    for (sequence, timestamp) in [(2, 900_000), (30_000, 2_000_000_000), (40_000, 1320), (2, 4_000_000_000)] {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 1, 1000, 160), Ok(()));
        bench.pull(20);
        assert!(bench.push(20, sequence, timestamp, 160).is_err());
        assert!(bench.push(40, sequence + 1, timestamp + 160, 160).is_err());
        assert_eq!(bench.push(60, sequence + 2, timestamp + 320, 160), Ok(()), "{sequence} {timestamp}");
        assert_eq!(bench.pull(70).1, SILENT);
        assert_eq!(bench.pull(80), (ramp(timestamp + 320), HEARD), "{sequence} {timestamp}");
    }
}

/// A sender that counts anew and goes on otherwise loses nothing.
#[test]
fn numbers_that_jump_between_packets_that_follow_each_other() {
    let mut bench = Bench::new();
    let mut sequence = 65_500u16;
    for ms in (0..6000).step_by(10) {
        if ms % 20 == 0 {
            sequence = match ms % 1000 {
                200 => sequence.wrapping_sub(14),
                400 => sequence.wrapping_add(1 << 15),
                600 => sequence,
                800 => sequence.wrapping_add(3000),
                _ => sequence.wrapping_add(1),
            };
            assert_eq!(bench.push(ms, sequence, 8 * ms as u32, 160), Ok(()), "{ms} ms");
        }
        let (frame, pulled) = bench.pull(ms);
        if ms >= 20 {
            assert_eq!((frame, pulled), (ramp(8 * ms as u32 - 160), HEARD), "{ms} ms");
        }
    }
}

#[test]
fn silence_ends_the_talkspurt_and_the_next_one_waits_again() {
    for timestamp in [5000, 1160, 900, 0x8000_0000] {
        let mut bench = Bench::new();
        assert_eq!(bench.push(0, 1, 1000, 160), Ok(()));
        for ms in (20..200).step_by(10) {
            bench.pull(ms);
        }
        assert_eq!(bench.playout.next_timestamp(), None);
        assert!(bench.playout.is_idle());
        assert_eq!(bench.push(500, 2, timestamp, 160), Ok(()));
        assert_eq!(bench.pull(510).1, SILENT);
        assert_eq!(bench.pull(520), (ramp(timestamp), HEARD), "{timestamp}");
    }
}

/// Numbers in order and a timestamp that jumps: the sender was silent.
#[test]
fn a_pause_of_the_sender_is_silence_and_nothing_is_missing() {
    for pause_ms in [20, 40, 80, 400] {
        let mut bench = Bench::new();
        let mut frames = Vec::new();
        for ms in (0..1000).step_by(10) {
            if ms % 20 == 0 && !(200..200 + pause_ms).contains(&ms) {
                let n = if ms < 200 { ms / 20 } else { (ms - pause_ms) / 20 };
                assert_eq!(bench.push(ms, n as u16, ms as u32 * 8, 160), Ok(()));
            }
            frames.push(bench.pull(ms));
        }
        assert!(frames.iter().all(|(_, pulled)| pulled.missing == 0), "{pause_ms} ms");
        let first = frames.iter().rposition(|(_, pulled)| !pulled.heard).unwrap() + 1;
        assert_eq!(first as u64 * 10, 220 + pause_ms, "it goes on where it belongs");
        for (n, (frame, pulled)) in frames.iter().enumerate().skip(first + 1) {
            assert_eq!((frame, pulled), (&ramp((n as u32 - 2) * 80), &HEARD));
        }
    }
}

/// While a digit is sent there is no audio, and its packets have numbers of the stream.
#[test]
fn a_digit_in_between_is_a_pause_and_not_a_loss() {
    for told in [true, false] {
        let mut bench = Bench::new();
        let mut missing = 0;
        for ms in (0..400).step_by(10) {
            if ms % 20 == 0 {
                let n = (ms / 20) as u16;
                if !(5..8).contains(&n) {
                    assert_eq!(bench.push(ms, n, 160 * u32::from(n), 160), Ok(()));
                } else if told {
                    bench.playout.note_other(SeqNumber(n));
                }
            }
            let (frame, pulled) = bench.pull(ms);
            if !(120..190).contains(&ms) && ms >= 20 {
                assert_eq!((frame, pulled), (ramp(8 * ms as u32 - 160), HEARD), "{ms} ms");
            }
            missing += pulled.missing;
        }
        assert_eq!(missing, if told { 0 } else { 480 });
    }
}

#[test]
fn comfort_noise_lasts_until_the_next_packet() {
    let mut bench = Bench::new();
    for n in 0..5u16 {
        assert_eq!(bench.push(0, n, 160 * u32::from(n), 160), Ok(()));
    }
    let now = Instant::from_millis(0);
    assert_eq!(bench.playout.push_noise(now, SeqNumber(5), RtpTimestamp(800), &[60, 1, 2]), Ok(()));
    assert_eq!(bench.playout.push_noise(now, SeqNumber(5), RtpTimestamp(800), &[60]), Err(DropReason::Duplicate));
    for n in 0..200 {
        let pulled = bench.pull(20 + 10 * n).1;
        let wanted = if n < 10 { HEARD } else { Pulled { noise: true, ..SILENT } };
        assert_eq!(pulled, wanted, "frame {n}");
    }
    assert!(!bench.playout.is_idle());
    assert_eq!(bench.push(2_100, 6, 2_100 * 8, 160), Ok(()));
    assert!(bench.pull(2_110).1.noise);
    assert_eq!(bench.pull(2_120), (ramp(2_100 * 8), HEARD));
    bench.playout.reset();
    assert!(bench.playout.is_idle());
}

#[test]
fn comfort_noise_may_come_first_and_between_packets_that_are_there() {
    let mut bench = Bench::new();
    assert_eq!(bench.playout.push_noise(Instant::ZERO, SeqNumber(5), RtpTimestamp(0), &[60]), Ok(()));
    assert!(bench.pull(10).1.noise);
    // A second of it lies between two packets that are both here.
    assert_eq!(bench.push(20, 6, 160, 160), Ok(()));
    let now = Instant::from_millis(20);
    assert_eq!(bench.playout.push_noise(now, SeqNumber(7), RtpTimestamp(320), &[60]), Ok(()));
    assert_eq!(bench.push(20, 8, 8160, 160), Ok(()));
    let pulled: Vec<_> = (0..110).map(|n| bench.pull(30 + 10 * n)).collect();
    let heard: Vec<_> = (0..110).filter(|n| pulled[*n].1.heard).collect();
    assert_eq!(heard, [1, 2, 101, 102]);
    assert_eq!(pulled[102].0, ramp(8240));
    assert!((3..101).all(|n| pulled[n].1 == Pulled { noise: true, ..SILENT }));
}

#[test]
fn hostile_lengths_and_timestamps_stay_inside() {
    let mut bench = Bench::new();
    assert_eq!(bench.push(0, 1, 7, 0), Err(DropReason::PayloadSize));
    assert_eq!(bench.push(0, 1, 7, 961), Err(DropReason::PayloadSize));
    assert_eq!(
        bench.playout.push_noise(Instant::ZERO, SeqNumber(1), RtpTimestamp(1), &[]),
        Err(DropReason::PayloadSize)
    );
    let mut seed = 1u32;
    for ms in 0..20_000u64 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let timestamp = if seed.is_multiple_of(3) { seed } else { ms as u32 * 8 };
        let sequence = if seed.is_multiple_of(5) { (seed >> 8) as u16 } else { ms as u16 };
        let _ = bench.push(ms, sequence, timestamp, (seed >> 20) as usize % 600);
        bench.pull(ms);
    }
}

#[test]
fn another_codec_in_mid_stream() {
    let mut playout = Playout::new(CodecKind::Pcmu);
    let at = Instant::from_millis;
    for n in 0..10u16 {
        assert_eq!(playout.push(at(0), SeqNumber(n), RtpTimestamp(160 * u32::from(n)), n == 0, &[0x80; 160]), Ok(()));
    }
    playout.pull(at(20), &mut [0; 80]);
    playout.set_codec(CodecKind::L16(Rate::Wide));
    assert!(playout.is_idle());
    assert_eq!(playout.delay().counters.discarded, 10);
    assert_eq!(playout.push(at(40), SeqNumber(10), RtpTimestamp(99), false, &[1; 640]), Ok(()));
    let mut frame = [0; 160];
    assert_eq!(playout.pull(at(60), &mut frame), HEARD);
    assert_eq!(frame, [0x101; 160]);
    playout.set_codec(CodecKind::G723);
    assert_eq!(playout.push(at(80), SeqNumber(11), RtpTimestamp(0), false, &[1; 24]), Err(DropReason::PayloadType));
}

#[test]
fn what_is_skipped_is_as_if_it_had_been_played() {
    let mut bench = Bench::new();
    for n in 0..50u16 {
        assert_eq!(bench.push(20 * u64::from(n), n, 160 * u32::from(n), 160), Ok(()));
        for frame in [2 * u64::from(n), 2 * u64::from(n) + 1] {
            let now = Instant::from_millis(10 * frame);
            if frame % 3 == 0 {
                assert_eq!(bench.playout.skip(now, &mut [0; FRAME]).heard, frame > 1);
            } else if frame > 1 {
                assert_eq!(bench.pull_at(now), (ramp(80 * (frame as u32 - 2)), HEARD));
            } else {
                bench.pull_at(now);
            }
        }
    }
}
