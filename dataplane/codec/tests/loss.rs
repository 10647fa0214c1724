//! What concealment is worth to a listener: PESQ (ITU-T P.862) of voices with packets lost, holes left silent beside holes
//! filled, in a table that is reviewed.
//!
//! Not part of a normal run, for voices and PESQ have to be installed:
//!
//! ```text
//! apt-get install asterisk-core-sounds-{en,fr,it,ru}-wav
//! python3 -m venv pesq && pesq/bin/pip install numpy cython && pesq/bin/pip install pesq==0.0.4
//! PESQ_PYTHON=pesq/bin/python cargo test -p ringbridge-codec --test loss -- --ignored --nocapture
//! ```
//!
//! With `RINGBRIDGE_WRITE_TABLES=1` the table is written anew.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use ringbridge_codec::conceal::{Concealment, HISTORY};
use ringbridge_codec::g711;

const VOICES: [&str; 4] = ["en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"];
const SOUNDS: &str = "/usr/share/asterisk/sounds";
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loss.md");
const PACKET: usize = 160;
const FRAME: usize = 80;
/// Eight seconds, as P.862 likes it.
const LENGTH: usize = 8 * 8000;
/// Pieces of each voice.
const PIECES: usize = 2;
const PERCENT: [u32; 6] = [0, 1, 3, 5, 10, 20];
/// Scores are a little different on other processors.
const TOLERANCE: f64 = 0.05;

/// Scores pairs of files of samples: one line, one score.
const SCORE: &str = "
import sys
import numpy
from pesq import pesq
for line in open(sys.argv[1]):
    reference, degraded = (numpy.fromfile(name, dtype='<i2') for name in line.split())
    print(pesq(8000, reference, degraded, 'nb'))
";

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages, and PESQ"]
fn listeners_prefer_it_to_silence() {
    let directory = env::temp_dir().join(format!("ringbridge-loss-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let pieces: Vec<Vec<i16>> = VOICES.iter().flat_map(|voice| pieces(voice)).collect();
    assert_eq!(pieces.len(), VOICES.len() * PIECES);
    let file = |name: String, samples: &[i16]| {
        let path = directory.join(name);
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut pairs = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let reference = file(format!("{number}"), piece);
        for percent in PERCENT {
            for bursts in [false, true] {
                let lost = lost(percent, bursts, piece.len() / PACKET, number as u64);
                for (how, heard) in [("silence", silenced(piece, &lost)), ("ours", concealed(piece, &lost))] {
                    let degraded = file(format!("{number}-{percent}-{bursts}-{how}"), &heard);
                    pairs.push((reference.clone(), degraded));
                }
            }
        }
    }
    let scores = score(&pairs);
    fs::remove_dir_all(&directory).unwrap();
    // Of every condition the mean over all pieces, in the order of the loops above.
    let conditions = PERCENT.len() * 4;
    let mean = |at: usize| scores.iter().skip(at).step_by(conditions).sum::<f64>() / pieces.len() as f64;
    let mut table = String::from(
        "PESQ (P.862 narrowband, MOS-LQO) of G.711 in packets of 20 ms, mean over four voices, two pieces of eight seconds\n\
         each. Bursts: three packets long on average.\n\n\
         | lost | random: silence | random: ours | bursts: silence | bursts: ours |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut rows = Vec::new();
    for (row, percent) in PERCENT.iter().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|column| mean(4 * row + column));
        writeln!(table, "| {percent} % | {a:.2} | {b:.2} | {c:.2} | {d:.2} |").unwrap();
        rows.push([a, b, c, d]);
    }
    print!("{table}");
    if env::var_os("RINGBRIDGE_WRITE_TABLES").is_some() {
        fs::write(TABLE, &table).unwrap();
    }
    for (row, percent) in rows.iter().zip(PERCENT) {
        if percent > 0 {
            assert!(row[1] > row[0] + 0.1, "random {percent} %: {row:?}");
            assert!(row[3] > row[2], "bursts {percent} %: {row:?}");
        }
    }
    let reviewed = fs::read_to_string(TABLE).unwrap();
    let numbers = |text: &str| -> Vec<f64> { text.split('|').filter_map(|cell| cell.trim().parse().ok()).collect() };
    let (now, then) = (numbers(&table), numbers(&reviewed));
    assert_eq!(now.len(), then.len());
    assert!(now.iter().zip(&then).all(|(now, then)| (now - then).abs() <= TOLERANCE), "{table}\nis not\n{reviewed}");
}

/// Pieces of a voice, through G.711.
fn pieces(voice: &str) -> Vec<Vec<i16>> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(SOUNDS).join(voice))
        .unwrap_or_else(|error| panic!("{voice}: {error}: install asterisk-core-sounds-en-wav and so on"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wav"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vm-")))
        .collect();
    files.sort();
    let mut samples: Vec<i16> = files.iter().flat_map(|file| speech(file)).collect();
    samples.truncate(PIECES * LENGTH);
    let mut words = vec![0; samples.len()];
    g711::encode_ulaw(&samples, &mut words);
    g711::decode_ulaw(&words, &mut samples);
    samples.chunks_exact(LENGTH).map(<[i16]>::to_vec).collect()
}

/// The samples of a plain WAV file.
fn speech(file: &Path) -> Vec<i16> {
    let bytes = fs::read(file).unwrap();
    let data = bytes.windows(4).position(|window| window == b"data").unwrap();
    bytes[data + 8..].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// Which packets are lost: each by itself, or in bursts of three on average (Gilbert).
fn lost(percent: u32, bursts: bool, packets: usize, seed: u64) -> Vec<bool> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(percent) << 8 | 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    let share = f64::from(percent) / 100.0;
    let (leave, enter) = (1.0 / 3.0, share / (1.0 - share) / 3.0);
    let mut is_lost = false;
    let draw = |_| {
        let dice = random();
        is_lost = match (bursts, is_lost) {
            (false, _) => dice < share,
            (true, false) => dice < enter,
            (true, true) => dice >= leave,
        };
        is_lost
    };
    (0..packets).map(draw).collect()
}

fn silenced(samples: &[i16], lost: &[bool]) -> Vec<i16> {
    let packets = samples.chunks_exact(PACKET).zip(lost);
    packets.flat_map(|(packet, lost)| if *lost { vec![0; PACKET] } else { packet.to_vec() }).collect()
}

fn concealed(samples: &[i16], lost: &[bool]) -> Vec<i16> {
    let mut heard: Vec<i16> = Vec::new();
    let mut concealment = Concealment::new();
    for (packet, lost) in samples.chunks_exact(PACKET).zip(lost) {
        for frame in packet.chunks_exact(FRAME) {
            let mut frame = frame.to_vec();
            if *lost {
                if !concealment.is_active() {
                    concealment.begin(&heard[heard.len().saturating_sub(HISTORY)..]);
                }
                concealment.fill(&mut frame);
            } else {
                concealment.join(&mut frame);
            }
            heard.extend(frame);
        }
    }
    heard
}

fn score(pairs: &[(PathBuf, PathBuf)]) -> Vec<f64> {
    let python = env::var("PESQ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let lines: String = pairs.iter().map(|(a, b)| format!("{} {}\n", a.display(), b.display())).collect();
    let list = pairs[0].0.with_file_name("pairs");
    fs::write(&list, lines).unwrap();
    let output = Command::new(&python)
        .args(["-c", SCORE])
        .arg(&list)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; name it in PESQ_PYTHON"));
    let scores: Vec<f64> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(scores.len(), pairs.len(), "PESQ is not installed for {python}?");
    scores
}
