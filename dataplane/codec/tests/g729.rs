//! G.729 with the library of Debian's package libbcg729-0. In a process of its own, for what was loaded stays.
//!
//! ```text
//! apt-get install libbcg729-0 ffmpeg
//! cargo test -p ringbridge-codec --test g729 -- --ignored
//! ```
#![expect(clippy::cast_possible_truncation, reason = "samples of our own")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use ringbridge_codec::g729::{self, LoadError};
use ringbridge_codec::{CodecError, CodecKind, Decoder, Encoder, EncoderSettings};

fn library() -> PathBuf {
    env::var_os("BCG729_LIBRARY").map_or_else(|| PathBuf::from("libbcg729.so.0"), PathBuf::from)
}

fn voice(n: usize) -> i16 {
    let phase = n as f64 / 40.0 * std::f64::consts::TAU;
    let loudness = 0.6 + 0.4 * (n as f64 / 900.0).sin();
    (loudness * (5000.0 * phase.sin() + 2500.0 * (2.0 * phase + 1.0).sin() + 800.0 * (5.0 * phase).sin())) as i16
}

fn energy(samples: &[i16]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64
}

#[test]
fn without_a_library_there_is_no_g729() {
    let missing = g729::load(Path::new("/nonexistent/libbcg729.so.0")).unwrap_err();
    assert!(matches!(missing, LoadError::Open(_)), "{missing:?}");
    assert!(missing.to_string().contains("install libbcg729"), "{missing}");
    let file = env::temp_dir().join(format!("ringbridge-not-a-library-{}", std::process::id()));
    fs::write(&file, "no library at all").unwrap();
    let other = g729::load(&file).unwrap_err();
    fs::remove_file(&file).unwrap();
    assert!(matches!(other, LoadError::Open(_)), "{other:?}");
    let wrong = g729::load(Path::new("libc.so.6")).unwrap_err();
    assert_eq!(wrong, LoadError::Symbol("bcg729GetRFC3389Payload"));
}

#[test]
#[ignore = "needs libbcg729 and ffmpeg"]
fn a_voice_comes_back() {
    assert_eq!(Decoder::new(CodecKind::G729).unwrap_err(), CodecError::Unavailable);
    assert!(!CodecKind::G729.is_decodable());
    g729::load(&library()).unwrap();
    assert!(g729::is_loaded() && CodecKind::G729.is_decodable());
    assert_eq!(g729::load(&library()), Err(LoadError::Twice));

    let samples: Vec<i16> = (0..16000).map(voice).collect();
    let mut encoder = Encoder::new(CodecKind::G729, EncoderSettings::default()).unwrap();
    let mut decoder = Decoder::new(CodecKind::G729).unwrap();
    let (mut bytes, mut out) = ([0; 100], [0; 960]);
    // The second time some packets are lost.
    for (lost, least) in [(usize::MAX, -1.5), (7, -5.0)] {
        let mut heard = Vec::new();
        for (at, packet) in samples.chunks_exact(160).enumerate() {
            assert_eq!(encoder.encode(packet, &mut bytes), Ok(20));
            if at % 10 == lost {
                assert_eq!(decoder.conceal(&mut out[..160]), Ok(true));
            } else {
                assert_eq!(decoder.decode(&bytes[..20], &mut out), Ok(160));
            }
            heard.extend(&out[..160]);
        }
        let loudness = 10.0 * (energy(&heard[2000..]) / energy(&samples[2000..])).log10();
        assert!((least..1.5).contains(&loudness), "{loudness:.1} dB");
    }

    // The decoder of ffmpeg, which shares nothing with the library, makes the same of its frames.
    let folder = env::temp_dir().join(format!("ringbridge-g729-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (file, back) = (folder.join("ours.g729"), folder.join("back.raw"));
    let mut words = vec![0; samples.len() / 8];
    encoder.reset();
    assert_eq!(encoder.encode(&samples, &mut words), Ok(words.len()));
    fs::write(&file, &words).unwrap();
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "g729", "-i"])
        .arg(&file)
        .args(["-f", "s16le"])
        .arg(&back)
        .status();
    assert!(status.expect("install ffmpeg").success());
    let theirs: Vec<i16> =
        fs::read(&back).unwrap().as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    fs::remove_dir_all(&folder).unwrap();
    decoder.reset();
    let mut ours: Vec<i16> = Vec::new();
    for words in words.chunks(20) {
        assert_eq!(decoder.decode(words, &mut out), Ok(160));
        ours.extend(&out[..160]);
    }
    let off: Vec<i16> = ours.iter().zip(&theirs).map(|(a, b)| a.saturating_sub(*b)).collect();
    let error = 10.0 * (energy(&off) / energy(&ours)).log10();
    println!("{error:.1} dB");
    assert!(error < -20.0, "{error:.1} dB");

    // Noise behind speech, the lengths there are, and what is none of it.
    assert_eq!(decoder.decode(&[&bytes[..10], &[0x55, 0x0a]].concat(), &mut out), Ok(160));
    assert_eq!(decoder.decode(&[0x55, 0x0a], &mut out), Ok(80));
    assert_eq!(decoder.conceal(&mut out[..80]), Ok(true));
    assert_eq!(decoder.conceal(&mut out[..81]), Ok(false));
    for len in [1, 3, 9, 11, 13, 130] {
        assert_eq!(decoder.decode(&vec![0; len], &mut out), Err(CodecError::Payload), "{len}");
    }
    assert_eq!(encoder.encode(&[0; 81], &mut bytes), Err(CodecError::Length));
    assert_eq!(encoder.encode(&[0; 160], &mut [0; 19]), Err(CodecError::Length));

    // Any bits are a frame.
    let mut state = 1_u64;
    for round in 0..20_000 {
        let mut payload = [0; 32];
        for byte in &mut payload {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        let len = [10, 20, 2, 12, 30, 32][round % 6];
        decoder.decode(&payload[..len], &mut out).unwrap();
        let loud: Vec<i16> = payload.iter().cycle().take(80).map(|byte| i16::from(*byte) << 8).collect();
        encoder.encode(&loud, &mut bytes).unwrap();
    }
    decoder.reset();
    encoder.reset();
    assert_eq!(encoder.encode(&samples[..80], &mut bytes), Ok(10));
}
