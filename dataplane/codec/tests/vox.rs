//! Dialogic ADPCM against SoX, on minutes of signal. Not part of a normal run, for it needs `sox` (Debian: sox):
//!
//! ```text
//! cargo test -p ringbridge-codec --test vox -- --ignored
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use ringbridge_codec::adpcm::{AdpcmDecoder, AdpcmEncoder};
use ringbridge_codec::tone::ToneGenerator;

#[test]
#[ignore = "needs sox"]
fn vox_files_are_those_of_sox() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = |name: &str| directory.join(name).to_str().expect("a path of the build").to_owned();
    let (vox, raw) = (path("signal.vox"), path("signal.raw"));
    let pcm = ["-t", "raw", "-e", "signed", "-b", "16", "-L", "-r", "8000", "-c", "1"];

    // Tones that come and go, and noise. Nothing that overloads, for there SoX clips at 16 bits and not at 12.
    let mut samples = vec![0; 8000 * 60];
    let mut seed = 1_u32;
    for (n, stretch) in samples.chunks_mut(777).enumerate() {
        let hz = u16::try_from(100 + n * 37 % 3500).expect("below 3600");
        let level = -i8::try_from(6 + n * 7 % 40).expect("below 50");
        ToneGenerator::new((hz, level), Some((hz / 2, level))).fill(stretch);
        if n % 5 == 0 {
            for sample in stretch {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *sample = sample.wrapping_add(i16::from_le_bytes([seed.to_le_bytes()[2], seed.to_le_bytes()[3]]) / 16);
            }
        }
    }

    fs::write(&raw, samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>()).expect("written");
    sox(&[&pcm[..], &[&raw, "-t", "vox", &vox]].concat());
    let theirs = fs::read(&vox).expect("made by sox");
    let mut ours = vec![0; samples.len() / 2];
    AdpcmEncoder::new().encode(&samples, &mut ours);
    assert!(ours == theirs, "the first byte that differs is {:?}", ours.iter().zip(&theirs).position(|(a, b)| a != b));

    sox(&[&["-t", "vox", "-r", "8000", &vox], &pcm[..], &[&raw]].concat());
    let theirs: Vec<i16> =
        fs::read(&raw).expect("made by sox").as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let mut decoded = vec![0; ours.len() * 2];
    AdpcmDecoder::new().decode(&ours, &mut decoded);
    assert!(decoded == theirs, "the first that differs is {:?}", decoded.iter().zip(&theirs).position(|(a, b)| a != b));
}

fn sox(arguments: &[&str]) {
    let status = Command::new("sox").arg("-D").args(arguments).status().expect("sox runs: install the package sox");
    assert!(status.success(), "sox {arguments:?}");
}
