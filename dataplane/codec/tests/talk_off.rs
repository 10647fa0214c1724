//! Talk-off: hours of human voices and music in which no digit may be found.
//!
//! Not part of a normal run, for the recordings have to be installed (Debian):
//!
//! ```text
//! apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-wav asterisk-moh-opsound-wav
//! cargo test -p ringbridge-codec --test talk_off -- --ignored --nocapture
//! ```

use std::path::{Path, PathBuf};
use std::{env, fs};

use ringbridge_codec::dtmf::{DtmfChange, DtmfDetector, symbol};
use ringbridge_codec::{g711, mix};

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages"]
fn talk_off() {
    let roots = env::var("TALK_OFF_PATHS").unwrap_or_else(|_| DEFAULT_PATHS.to_owned());
    let mut files = Vec::new();
    for root in roots.split(':') {
        collect(Path::new(root), &mut files);
    }
    files.sort();
    assert!(
        files.len() >= FILES_MIN,
        "{} sound files in {roots}: install {PACKAGES}, or name other directories in TALK_OFF_PATHS",
        files.len()
    );

    let mut recorded = 0;
    let mut heard = 0;
    let mut loud = 0;
    let mut tone_like = 0;
    let mut found = Vec::new();
    for file in &files {
        let samples = samples(file).unwrap_or_else(|| panic!("{} is not 16 bits at 8 kHz", file.display()));
        let mut words = vec![0; samples.len()];
        let mut decoded = vec![0; samples.len()];
        g711::encode_ulaw(&samples, &mut words);
        g711::decode_ulaw(&words, &mut decoded);
        // As recorded, half as loud, through G.711, and as voices that are lower and higher.
        let softer: Vec<i16> = samples.iter().map(|sample| sample / 2).collect();
        let lower = resampled(&samples, 0.83);
        let higher = resampled(&samples, 1.19);
        let variants =
            [("plain", &samples), ("softer", &softer), ("µ-law", &decoded), ("lower", &lower), ("higher", &higher)];
        for (variant, samples) in variants {
            // Cries of apes, no voice of a caller: made lower, one of them holds 770 and 1477 Hz for 40 ms.
            if file.ends_with("tt-monkeys.wav") && variant == "lower" {
                continue;
            }
            let mut detector = DtmfDetector::new();
            for (n, frame) in samples.chunks(80).enumerate() {
                detector.process(frame, &mut |change| {
                    if let DtmfChange::Started { event, .. } = change {
                        let at = n as f64 / 100.0;
                        found.push(format!("{} ({variant}) at {at} s: {:?}", file.display(), symbol(event)));
                    }
                });
                tone_like += usize::from(detector.is_tone_like());
                loud += usize::from(mix::level_dbov(mix::energy(frame), frame.len()) > -45);
            }
            heard += samples.len();
        }
        recorded += samples.len();
    }
    let hours = |samples: usize| samples as f64 / 8000.0 / 3600.0;
    println!("{} files, {:.2} hours recorded, {:.2} heard", files.len(), hours(recorded), hours(heard));
    println!("{} digits found", found.len());
    println!("{tone_like} frames like a tone, of {loud} louder than -45 dBov");
    assert!(found.is_empty(), "digits found in speech:\n{}", found.join("\n"));
}

/// All WAV files below a directory; links are not followed, so that none counts twice.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "wav") {
            files.push(path);
        }
    }
}

/// The samples of a WAV file with one channel of 16 bits at 8 kHz; none for any other file.
fn samples(path: &Path) -> Option<Vec<i16>> {
    let bytes = fs::read(path).ok()?;
    let mut rest = bytes.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    let mut is_supported = false;
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let [name @ .., a, b, c, d] = head;
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?.min(body.len());
        let (chunk, next) = body.split_at(length);
        match name {
            b"fmt " => is_supported = chunk.get(..8) == Some(&[1, 0, 1, 0, 0x40, 0x1F, 0, 0]) && chunk[14] == 16,
            b"data" if is_supported => {
                return Some(chunk.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect());
            }
            _ => (),
        }
        rest = next.get(length % 2..).unwrap_or_default();
    }
    None
}

/// The samples at another speed, between two of them by a straight line.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "indices, and means of two samples")]
fn resampled(samples: &[i16], speed: f64) -> Vec<i16> {
    let count = (samples.len().saturating_sub(1) as f64 / speed) as usize;
    (0..count)
        .map(|n| {
            let at = n as f64 * speed;
            let (index, part) = (at as usize, at.fract());
            (f64::from(samples[index]) * (1.0 - part) + f64::from(samples[index + 1]) * part) as i16
        })
        .collect()
}

const DEFAULT_PATHS: &str = "/usr/share/asterisk/sounds:/usr/share/asterisk/moh";
const PACKAGES: &str = "asterisk-core-sounds-en-wav, -es-wav, -fr-wav, -it-wav, -ru-wav and asterisk-moh-opsound-wav";
/// The packages hold some 2800.
const FILES_MIN: usize = 2500;
