//! What listeners would say: PESQ (ITU-T P.862) of voices over the networks of [`super::tables`], beside a buffer of 60 ms
//! that never changes and fills its holes the same way. A table that is reviewed.
//!
//! Not part of a normal run, for voices and PESQ have to be installed: see `dataplane/codec/tests/loss.rs`, then
//!
//! ```text
//! PESQ_PYTHON=pesq/bin/python cargo test -p ringbridge-media --lib voices -- --ignored
//! ```
//!
//! With `RINGBRIDGE_WRITE_TABLES=1` the table is written anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use ringbridge_codec::conceal::{Concealment, HISTORY};

use super::tables::{FIXED_US, NETWORKS, network};
use super::*;

const VOICES: [&str; 4] = ["en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"];
const SOUNDS: &str = "/usr/share/asterisk/sounds";
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/playout/tests/voices.md");
/// Eight seconds, as P.862 likes it.
const LENGTH: usize = 8 * 8000;
const PACKET: usize = 160;
/// The first piece is for the buffer to get to know the network.
const PIECES: usize = 3;
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
fn listeners_prefer_a_delay_that_follows() {
    let directory = env::temp_dir().join(format!("ringbridge-playout-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let voices: Vec<Vec<i16>> = VOICES.iter().map(|voice| speech(voice)).collect();
    let write = |name: String, samples: &[i16]| {
        let path = directory.join(name);
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut pairs = Vec::new();
    for (row, (name, ..)) in NETWORKS.iter().enumerate() {
        let arrivals = network(name);
        for (number, voice) in voices.iter().enumerate() {
            // Each voice another stretch of the network.
            let packets = voice.len() / PACKET;
            let first = number * packets;
            let base = 20_000 * first as i64;
            let arrivals: Vec<Option<i64>> =
                arrivals[first..first + packets].iter().map(|at| Some((*at)? - base)).collect();
            for (how, heard) in [("ours", ours(voice, &arrivals)), ("fixed", fixed(voice, &arrivals))] {
                for piece in 1..PIECES {
                    let reference = write(format!("{number}-{piece}"), &voice[piece * LENGTH..(piece + 1) * LENGTH]);
                    let degraded = write(format!("{row}-{number}-{piece}-{how}"), &heard[piece]);
                    pairs.push((reference, degraded));
                }
            }
        }
    }
    let scores = score(&pairs);
    fs::remove_dir_all(&directory).unwrap();
    let mut table = String::from(
        "PESQ (P.862 narrowband, MOS-LQO) of uncompressed voices over networks, packets of 20 ms, mean over four voices, two\n\
         pieces of eight seconds each. Beside it a buffer of 60 ms that never changes and fills its holes the same way.\n\
         What each waits is in jitter.md. PESQ has no ear for speech that goes on later than it should: behind a stall the\n\
         one plays what was held up, the other has lost it.\n\n| network | ours | fixed |\n| --- | --- | --- |\n",
    );
    let per_network = voices.len() * 2 * (PIECES - 1);
    for ((name, _, title), scores) in NETWORKS.iter().zip(scores.chunks_exact(per_network)) {
        let mean = |odd: bool| {
            let of = scores.chunks_exact(PIECES - 1).enumerate().filter(|(at, _)| (at % 2 == 1) == odd);
            let all: Vec<f64> = of.flat_map(|(_, scores)| scores.to_vec()).collect();
            all.iter().sum::<f64>() / all.len() as f64
        };
        let (ours, fixed) = (mean(false), mean(true));
        writeln!(table, "| {title} | {ours:.2} | {fixed:.2} |").unwrap();
        assert!(ours > fixed - 0.15 || *name == "stalls", "{title}: {ours} and {fixed}");
    }
    print!("{table}");
    if env::var_os("RINGBRIDGE_WRITE_TABLES").is_some() {
        fs::write(TABLE, &table).unwrap();
    }
    let reviewed = fs::read_to_string(TABLE).unwrap();
    let numbers = |text: &str| -> Vec<f64> { text.split('|').filter_map(|cell| cell.trim().parse().ok()).collect() };
    let (now, then) = (numbers(&table), numbers(&reviewed));
    assert_eq!(now.len(), then.len());
    assert!(now.iter().zip(&then).all(|(now, then)| (now - then).abs() <= TOLERANCE), "{table}\nis not\n{reviewed}");
}

/// What is heard of each piece.
fn ours(voice: &[i16], arrivals: &[Option<i64>]) -> Vec<Vec<i16>> {
    let mut playout = Playout::new(CodecKind::L16(Rate::Narrow));
    let mut coming: Vec<(i64, usize)> = arrivals.iter().enumerate().filter_map(|(n, at)| Some(((*at)?, n))).collect();
    coming.sort_unstable();
    let begin = coming[0].0;
    let mut coming = coming.into_iter().peekable();
    let mut pieces = vec![Vec::new(); PIECES];
    let mut piece = 0;
    for ms in (0..30_000).step_by(10) {
        while let Some((at, n)) = coming.next_if(|(at, _)| *at - begin <= ms * 1000) {
            let now = Instant::from_nanos((at - begin) as u64 * 1000);
            let payload: Vec<u8> = voice[n * PACKET..(n + 1) * PACKET].iter().flat_map(|s| s.to_be_bytes()).collect();
            let _ = playout.push(now, SeqNumber(n as u16), RtpTimestamp((n * PACKET) as u32), n == 0, &payload);
        }
        if let Some(point) = playout.next_timestamp() {
            piece = (point as usize / LENGTH).min(PIECES - 1);
        }
        if coming.peek().is_none() && playout.next_timestamp().is_none() {
            break;
        }
        let mut frame = [0; FRAME];
        playout.pull(Instant::from_millis(ms as u64), &mut frame);
        pieces[piece].extend(frame);
    }
    pieces
}

/// What is heard of each piece 60 ms after the first packet.
fn fixed(voice: &[i16], arrivals: &[Option<i64>]) -> Vec<Vec<i16>> {
    let mut heard: Vec<i16> = Vec::new();
    let mut concealment = Concealment::new();
    let first = arrivals.iter().flatten().next().unwrap();
    for (n, packet) in voice.chunks_exact(PACKET).enumerate() {
        let due = first + FIXED_US + 20_000 * n as i64;
        let is_here = arrivals[n].is_some_and(|at| at <= due && due - at <= 500_000);
        for frame in packet.chunks_exact(FRAME) {
            let mut frame = frame.to_vec();
            if is_here {
                concealment.join(&mut frame);
            } else {
                if !concealment.is_active() {
                    concealment.begin(&heard[heard.len().saturating_sub(HISTORY)..]);
                }
                concealment.fill(&mut frame);
            }
            heard.extend(frame);
        }
    }
    heard.chunks_exact(LENGTH).map(<[i16]>::to_vec).collect()
}

/// The prompts of a voice, one after the other.
fn speech(voice: &str) -> Vec<i16> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(SOUNDS).join(voice))
        .unwrap_or_else(|error| panic!("{voice}: {error}: install asterisk-core-sounds-en-wav and so on"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wav"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vm-")))
        .collect();
    files.sort();
    let mut samples: Vec<i16> = files.iter().flat_map(|file| wav(file)).collect();
    assert!(samples.len() >= PIECES * LENGTH);
    samples.truncate(PIECES * LENGTH);
    samples
}

/// The samples of a plain WAV file.
fn wav(file: &Path) -> Vec<i16> {
    let bytes = fs::read(file).unwrap();
    let data = bytes.windows(4).position(|window| window == b"data").unwrap();
    bytes[data + 8..].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
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
