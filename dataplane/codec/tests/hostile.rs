//! Any bytes through every decoder, by the face that the engine uses: errors, but no panic behind the guard, and no more
//! samples than were announced.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "samples of our own")]

use proptest::prelude::*;
use ringbridge_codec::kind::PAYLOAD_SAMPLES_MAX;
use ringbridge_codec::{CodecError, CodecKind, Decoder, Encoder, EncoderSettings, Rate};

const KINDS: [CodecKind; 7] = [
    CodecKind::Pcmu,
    CodecKind::Pcma,
    CodecKind::L16(Rate::Narrow),
    CodecKind::L16(Rate::Full),
    CodecKind::G722,
    CodecKind::Gsm,
    CodecKind::Opus,
];

/// What happens to a packet on its way.
#[derive(Clone, Debug)]
enum Fate {
    Comes,
    IsLost,
    IsRecovered,
    Flipped(Vec<(usize, u8)>),
    Cut(usize),
    Is(Vec<u8>),
    Begins,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Comes),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::IsRecovered),
        3 => proptest::collection::vec((any::<usize>(), 1_u8..), 1..6).prop_map(Fate::Flipped),
        1 => any::<usize>().prop_map(Fate::Cut),
        3 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Fate::Is),
        1 => proptest::collection::vec(any::<u8>(), 1000..1500).prop_map(Fate::Is),
        1 => Just(Fate::Begins),
    ]
}

/// Packets of a signal of ramps and noise, in frames of different lengths.
fn packets(kind: CodecKind, bitrate: u32) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(kind, EncoderSettings { bitrate, fec: true, dtx: false }).unwrap();
    let mut random = bitrate;
    let mut bytes = [0; 8000];
    (0..12)
        .map(|at| {
            let samples: Vec<i16> = (0..kind.rate().frame_samples() * [2, 2, 2, 6][at % 4])
                .map(|n| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let noise = i16::try_from(random >> 22).unwrap();
                    i16::try_from(n * 97 % 12_000).unwrap() - 6000 + noise
                })
                .collect();
            let len = encoder.encode(&samples, &mut bytes).unwrap();
            bytes[..len].to_vec()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_break_a_decoder(
        kind in proptest::sample::select(KINDS.to_vec()),
        bitrate in proptest::sample::select(vec![8_000, 16_000, 32_000, 96_000]),
        fates in proptest::collection::vec(fate(), 1..24),
    ) {
        let packets = packets(kind, bitrate);
        let mut decoder = Decoder::new(kind).unwrap();
        let mut out = vec![0; PAYLOAD_SAMPLES_MAX];
        for (at, fate) in fates.iter().enumerate() {
            let mut packet = packets[at % packets.len()].clone();
            match fate {
                Fate::Comes => {}
                Fate::IsLost => {
                    decoder.conceal(&mut out[..kind.rate().frame_samples()]).unwrap();
                    continue;
                }
                Fate::IsRecovered => {
                    decoder.recover(&packet, &mut out[..2 * kind.rate().frame_samples()]).unwrap();
                }
                Fate::Flipped(bits) => bits.iter().for_each(|(place, mask)| {
                    let len = packet.len();
                    packet[place % len] ^= mask;
                }),
                Fate::Cut(len) => packet.truncate(len % (packet.len() + 1)),
                Fate::Is(bytes) => packet.clone_from(bytes),
                Fate::Begins => decoder.reset(),
            }
            let announced = decoder.samples_in(&packet);
            let decoded = decoder.decode(&packet, &mut out);
            match (announced, decoded) {
                (Ok(announced), Ok(decoded)) => prop_assert_eq!(announced, decoded),
                (Ok(_) | Err(_), Err(error)) => prop_assert_eq!(error, CodecError::Payload, "{} {:?}", kind, packet),
                (Err(error), Ok(_)) => prop_assert!(false, "{error} and decoded"),
            }
        }
        // It goes on with what is right.
        if let Some(right) = packets.first() {
            prop_assert!(decoder.decode(right, &mut out).is_ok());
        }
    }

    /// Whatever is to be encoded, however, and into however little.
    #[test]
    fn no_samples_break_an_encoder(
        kind in proptest::sample::select(KINDS.to_vec()),
        bitrate in prop_oneof![any::<u32>(), 6_000_u32..100_000],
        fec in any::<bool>(),
        dtx in any::<bool>(),
        frames in proptest::collection::vec((0_u8..6, any::<u32>(), prop_oneof![4 => 300_usize..1500, 1 => 0_usize..40]), 1..16),
    ) {
        let mut encoder = Encoder::new(kind, EncoderSettings { bitrate, fec, dtx }).unwrap();
        let mut decoder = Decoder::new(kind).unwrap();
        let frame = kind.rate().frame_samples();
        let mut out = vec![0; PAYLOAD_SAMPLES_MAX];
        for (what, seed, room) in frames {
            let mut random = seed;
            let samples: Vec<i16> = (0..frame * if seed % 3 == 0 { 6 } else { 2 })
                .map(|n| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    match what {
                        0 => 0,
                        1 => i16::MIN,
                        2 => if n / 37 % 2 == 0 { i16::MAX } else { i16::MIN },
                        3 => if n == 5 { i16::MAX } else { 0 },
                        4 => (random >> 16).cast_signed().clamp(0, 3) as i16,
                        _ => i16::from_ne_bytes([(random >> 16) as u8, (random >> 24) as u8]),
                    }
                })
                .collect();
            let mut bytes = vec![0; room];
            match encoder.encode(&samples, &mut bytes) {
                Ok(len) => prop_assert_eq!(decoder.decode(&bytes[..len], &mut out), Ok(samples.len()), "{}", kind),
                Err(error) => prop_assert_eq!(error, CodecError::Length, "{} into {}", kind, room),
            }
        }
    }
}
