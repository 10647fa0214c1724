//! Codecs against what others' implementations of them once said: vectors in `tests/vectors`, and the hashes of what ffmpeg
//! 5.1 makes of a signal that is made up here.
//!
//! The vectors are of our own making and under the licence of the rest. Those of the ITU for G.722 and of ETSI for GSM may
//! not be passed on, those of RFC 8251 for Opus are too large to be kept here. With `RINGBRIDGE_WRITE_SIGNAL=folder` the
//! signal is written to `signal.raw` there, for ffmpeg to encode as `g722` and `libgsm`, and to decode as `g722` and `gsm`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

/// Packets that libopus encoded, and every 16th sample of what it decoded them to.
fn opus(name: &str) -> (Vec<Vec<u8>>, Vec<i16>) {
    let file = fs::read(Path::new(VECTORS).join(name)).unwrap();
    let (mut rest, mut packets) = (file.as_slice(), Vec::new());
    loop {
        let len = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        let (packet, behind) = rest[2..].split_at(len);
        rest = behind;
        if packet.is_empty() {
            break;
        }
        packets.push(packet.to_vec());
    }
    let heard = rest.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    (packets, heard)
}

#[test]
fn opus_is_decoded_as_by_libopus() {
    // With SILK alone to the bit; CELT is made of floats.
    for (name, off_max) in [
        ("opus-silk-narrow.bin", 0),
        ("opus-silk-wide-fec.bin", 0),
        ("opus-stereo.bin", 0),
        ("opus-hybrid.bin", 1),
        ("opus-celt.bin", 1),
    ] {
        let (packets, wanted) = opus(name);
        let mut decoder = Decoder::new(CodecKind::Opus).unwrap();
        let mut heard = Vec::new();
        for (at, packet) in packets.iter().enumerate() {
            let mut out = [0; 960];
            if name.contains("fec") && at % 10 == 7 {
                assert_eq!(decoder.recover(&packets[at + 1], &mut out), Ok(true));
            } else {
                assert_eq!(decoder.decode(packet, &mut out), Ok(960));
            }
            heard.extend(out);
        }
        let found: Vec<i16> = heard.into_iter().step_by(16).collect();
        assert_eq!(found.len(), wanted.len());
        let off = found.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(off <= off_max, "{name}: off by {off}");
        assert!(wanted.iter().any(|sample| *sample > 8000), "{name} is silent");
    }
}

/// Three triangles and noise, loud and soft; integers alone, the same everywhere.
fn signal(samples: i32) -> Vec<i16> {
    let mut random = 1_u32;
    let triangle = |n: i32, period: i32| (n % period - period / 2).abs() * 4 * 1000 / period - 1000;
    (0..samples)
        .map(|n| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = i32::try_from(random >> 21).unwrap() - 1024;
            let loudness = triangle(n, 9001) + 1000;
            let sum = 4 * triangle(n, 73) + 2 * triangle(n, 19) + triangle(n, 5) + noise / 4;
            i16::try_from((sum * loudness / 600).clamp(-32768, 32767)).unwrap()
        })
        .collect()
}

/// FNV-1a.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn little_endian(samples: &[i16]) -> impl Iterator<Item = u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes())
}

#[test]
fn g722_and_gsm_are_those_of_ffmpeg() {
    // Of the signal: what ffmpeg encodes it to, and what it decodes that to.
    for (kind, encoded_hash, decoded_hash) in [
        (CodecKind::G722, 0x96a1_f882_6b43_d11c, 0x1c3b_7898_3767_e7da),
        (CodecKind::Gsm, 0x20ba_a5ae_7064_23cd, 0xc2a0_5c40_4c5a_f8fc),
    ] {
        let samples = signal(64_000);
        if let Some(folder) = std::env::var_os("RINGBRIDGE_WRITE_SIGNAL") {
            fs::write(Path::new(&folder).join("signal.raw"), little_endian(&samples).collect::<Vec<u8>>()).unwrap();
        }
        let mut bytes = vec![0; 64_000];
        let len = Encoder::new(kind, EncoderSettings::default()).unwrap().encode(&samples, &mut bytes).unwrap();
        assert_eq!(hash(bytes[..len].iter().copied()), encoded_hash, "{kind}");
        let mut decoder = Decoder::new(kind).unwrap();
        let mut heard = vec![0; 64_000];
        let packet = if kind == CodecKind::Gsm { 33 } else { 80 };
        for (bytes, out) in bytes[..len].chunks(packet).zip(heard.chunks_mut(160)) {
            assert_eq!(decoder.decode(bytes, out), Ok(160));
        }
        assert_eq!(hash(little_endian(&heard)), decoded_hash, "{kind}");
    }
}
