//! What concealment is worth to a listener: PESQ (ITU-T P.862) of voices with packets lost, holes left silent beside holes
//! filled, in a table that is reviewed.
//!
//! Not part of a normal run, for voices and PESQ have to be installed:
//!
//! ```text
//! apt-get install asterisk-core-sounds-{en,fr,it,ru}-{wav,g722}
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
use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings, Rate, Resampler, g711};

const VOICES: [&str; 4] = ["en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"];
const SOUNDS: &str = "/usr/share/asterisk/sounds";
const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
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
rate, mode = int(sys.argv[2]), sys.argv[3]
for line in open(sys.argv[1]):
    reference, degraded = (numpy.fromfile(name, dtype='<i2') for name in line.split())
    print(pesq(rate, reference, degraded, mode))
";

/// What becomes of a piece when packets are lost.
type Treatment<'a> = (&'static str, Box<dyn Fn(&Piece, &[bool]) -> Vec<i16> + 'a>);

/// What was said, and what is heard of it if nothing is lost.
struct Piece {
    said: Vec<i16>,
    heard: Vec<i16>,
    /// What is sent, one packet for each 20 ms, if the codec has a state.
    packets: Vec<Vec<u8>>,
    /// The same with redundancy in it.
    redundant: Vec<Vec<u8>>,
}

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages, and PESQ"]
fn listeners_prefer_it_to_silence() {
    let pieces: Vec<Piece> = VOICES
        .iter()
        .flat_map(|voice| pieces(voice))
        .map(|heard| Piece { said: heard.clone(), heard, packets: Vec::new(), redundant: Vec::new() })
        .collect();
    let title = "PESQ (P.862 narrowband, MOS-LQO) of G.711 in packets of 20 ms, mean over four voices, two pieces of eight seconds\n\
         each. Bursts: three packets long on average.\n\n";
    let treatments: [Treatment; 2] = [
        ("silence", Box::new(|piece, lost| silenced(&piece.heard, lost))),
        ("ours", Box::new(|piece, lost| concealed(&piece.heard, lost))),
    ];
    let rows = scored("loss.md", title, Rate::Narrow, &pieces, &treatments);
    for (row, percent) in rows.iter().zip(PERCENT) {
        if percent > 0 {
            assert!(row[1] > row[0] + 0.1, "random {percent} %: {row:?}");
            assert!(row[3] > row[2], "bursts {percent} %: {row:?}");
        }
    }
}

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages, and PESQ"]
fn listeners_prefer_it_to_silence_in_g722() {
    let pieces: Vec<Piece> = VOICES
        .iter()
        .flat_map(|voice| wide_pieces(voice))
        .map(|said| {
            let packets = sent(CodecKind::G722, EncoderSettings::default(), &said);
            let heard = heard(CodecKind::G722, &packets, &vec![false; packets.len()], Filling::Silence);
            Piece { said: heard.clone(), heard, packets, redundant: Vec::new() }
        })
        .collect();
    let title = "PESQ (P.862.2 wideband, MOS-LQO) of G.722 in packets of 20 ms against G.722 without loss, mean over four voices, two\n\
         pieces of eight seconds each. The decoder is out of step after a loss, whatever fills the hole. Bursts: three packets\n\
         long on average.\n\n";
    let treatments: [Treatment; 2] = [
        ("silence", Box::new(|piece, lost| heard(CodecKind::G722, &piece.packets, lost, Filling::Silence))),
        ("ours", Box::new(|piece, lost| heard(CodecKind::G722, &piece.packets, lost, Filling::Ours))),
    ];
    let rows = scored("loss_g722.md", title, Rate::Wide, &pieces, &treatments);
    for (row, percent) in rows.iter().zip(PERCENT) {
        if percent > 0 {
            assert!(row[1] > row[0] + 0.1, "random {percent} %: {row:?}");
            assert!(row[3] > row[2], "bursts {percent} %: {row:?}");
        }
    }
}

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages, and PESQ"]
fn listeners_prefer_redundancy_in_opus() {
    let pieces: Vec<Piece> = VOICES
        .iter()
        .flat_map(|voice| wide_pieces(voice))
        .map(|said| {
            let full = resampled(Rate::Wide, Rate::Full, &said);
            let [packets, redundant] = [false, true]
                .map(|fec| sent(CodecKind::Opus, EncoderSettings { fec, ..EncoderSettings::default() }, &full));
            Piece { said, heard: Vec::new(), packets, redundant }
        })
        .collect();
    let title = "PESQ (P.862.2 wideband, MOS-LQO) of Opus at 32 kbit/s in packets of 20 ms against what was said, mean over four\n\
         voices, two pieces of eight seconds each. Without redundancy but in the last column of each kind of loss; there a lost\n\
         packet is made up from the next, if that has come, else as in the column before. Bursts: three packets long on average.\n\n";
    let opus = |packets: &[Vec<u8>], lost: &[bool], filling| {
        resampled(Rate::Full, Rate::Wide, &heard(CodecKind::Opus, packets, lost, filling))
    };
    let treatments: [Treatment; 4] = [
        ("silence", Box::new(|piece, lost| opus(&piece.packets, lost, Filling::Silence))),
        ("ours", Box::new(|piece, lost| opus(&piece.packets, lost, Filling::Ours))),
        ("Opus", Box::new(|piece, lost| opus(&piece.packets, lost, Filling::Codec))),
        ("redundancy", Box::new(|piece, lost| opus(&piece.redundant, lost, Filling::Redundancy))),
    ];
    let rows = scored("loss_opus.md", title, Rate::Wide, &pieces, &treatments);
    for (row, percent) in rows.iter().zip(PERCENT) {
        if percent > 0 {
            assert!(row[2] > row[0] && row[2] > row[1], "Opus knows best: random {percent} %: {row:?}");
        }
        if percent >= 3 {
            assert!(row[3] > row[2], "random {percent} %: {row:?}");
        }
    }
}

/// Of every share of losses the mean over all pieces: random with each treatment, bursts with each. Writes and checks the
/// table.
fn scored(table: &str, title: &str, rate: Rate, pieces: &[Piece], treatments: &[Treatment]) -> Vec<Vec<f64>> {
    let directory = env::temp_dir().join(format!("ringbridge-{table}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    assert_eq!(pieces.len(), VOICES.len() * PIECES);
    let file = |name: String, samples: &[i16]| {
        let path = directory.join(name);
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut pairs = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let reference = file(format!("{number}"), &piece.said);
        for percent in PERCENT {
            for bursts in [false, true] {
                let packets = piece.said.len() / (2 * rate.frame_samples());
                let lost = lost(percent, bursts, packets, number as u64);
                for (how, treatment) in treatments {
                    let degraded = file(format!("{number}-{percent}-{bursts}-{how}"), &treatment(piece, &lost));
                    pairs.push((reference.clone(), degraded));
                }
            }
        }
    }
    let scores = score(&pairs, rate);
    fs::remove_dir_all(&directory).unwrap();
    let columns = 2 * treatments.len();
    let mean = |at: usize| scores.iter().skip(at).step_by(PERCENT.len() * columns).sum::<f64>() / pieces.len() as f64;
    let heads = ["random", "bursts"].map(|kind| treatments.iter().map(move |(how, _)| format!(" {kind}: {how} |")));
    let heads: String = heads.into_iter().flatten().collect();
    let mut text = format!("{title}| lost |{heads}\n|{}\n", " --- |".repeat(columns + 1));
    let mut rows = Vec::new();
    for (row, percent) in PERCENT.iter().enumerate() {
        let means: Vec<f64> = (0..columns).map(|column| mean(columns * row + column)).collect();
        let cells: String = means.iter().fold(String::new(), |mut cells, mean| {
            write!(cells, " {mean:.2} |").unwrap();
            cells
        });
        writeln!(text, "| {percent} % |{cells}").unwrap();
        rows.push(means);
    }
    print!("{text}");
    let path = Path::new(TABLES).join(table);
    if env::var_os("RINGBRIDGE_WRITE_TABLES").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let reviewed = fs::read_to_string(path).unwrap();
    let numbers = |text: &str| -> Vec<f64> { text.split('|').filter_map(|cell| cell.trim().parse().ok()).collect() };
    let (now, then) = (numbers(&text), numbers(&reviewed));
    assert_eq!(now.len(), then.len());
    assert!(now.iter().zip(&then).all(|(now, then)| (now - then).abs() <= TOLERANCE), "{text}\nis not\n{reviewed}");
    rows
}

/// What fills a hole.
#[derive(Clone, Copy, PartialEq)]
enum Filling {
    Silence,
    Ours,
    Codec,
    Redundancy,
}

/// Packets of 20 ms.
fn sent(kind: CodecKind, settings: EncoderSettings, samples: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(kind, settings).unwrap();
    let mut bytes = [0; 1440];
    samples
        .chunks_exact(2 * kind.rate().frame_samples())
        .map(|frame| {
            let len = encoder.encode(frame, &mut bytes).unwrap();
            bytes[..len].to_vec()
        })
        .collect()
}

/// What a listener hears of packets some of which are lost.
fn heard(kind: CodecKind, packets: &[Vec<u8>], lost: &[bool], filling: Filling) -> Vec<i16> {
    let frame = 2 * kind.rate().frame_samples();
    let mut decoder = Decoder::new(kind).unwrap();
    let mut concealment = Concealment::with_rate(kind.rate());
    let mut heard: Vec<i16> = Vec::new();
    for (at, packet) in packets.iter().enumerate() {
        let mut samples = vec![0; frame];
        if !lost[at] {
            decoder.decode(packet, &mut samples).unwrap();
            concealment.join(&mut samples);
        } else if filling == Filling::Ours {
            if !concealment.is_active() {
                concealment.begin(&heard);
            }
            concealment.fill(&mut samples);
        } else if filling != Filling::Silence {
            let next = packets.get(at + 1).filter(|_| filling == Filling::Redundancy && !lost[at + 1]);
            let is_made = next.is_some_and(|next| decoder.recover(next, &mut samples).unwrap());
            assert!(is_made || decoder.conceal(&mut samples).unwrap());
        }
        heard.extend(samples);
    }
    heard
}

fn resampled(from: Rate, to: Rate, samples: &[i16]) -> Vec<i16> {
    let mut out = vec![0; samples.len() / from.frame_samples() * to.frame_samples()];
    Resampler::new(from, to).process(samples, &mut out);
    out
}

/// Pieces of a voice at 16 kHz.
fn wide_pieces(voice: &str) -> Vec<Vec<i16>> {
    let samples: Vec<i16> = prompts(voice, "g722")
        .iter()
        .flat_map(|file| {
            let bytes = fs::read(file).unwrap();
            let mut decoder = Decoder::new(CodecKind::G722).unwrap();
            let mut samples = vec![0; 2 * bytes.len()];
            for (bytes, samples) in bytes.chunks(160).zip(samples.chunks_mut(320)) {
                decoder.decode(bytes, samples).unwrap();
            }
            samples
        })
        .take(2 * PIECES * LENGTH)
        .collect();
    samples.chunks_exact(2 * LENGTH).map(<[i16]>::to_vec).collect()
}

/// Pieces of a voice, through G.711.
fn pieces(voice: &str) -> Vec<Vec<i16>> {
    let files = prompts(voice, "wav");
    let mut samples: Vec<i16> = files.iter().flat_map(|file| speech(file)).collect();
    samples.truncate(PIECES * LENGTH);
    let mut words = vec![0; samples.len()];
    g711::encode_ulaw(&samples, &mut words);
    g711::decode_ulaw(&words, &mut samples);
    samples.chunks_exact(LENGTH).map(<[i16]>::to_vec).collect()
}

/// The voice-mail prompts of a voice, in order.
fn prompts(voice: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(SOUNDS).join(voice))
        .unwrap_or_else(|error| panic!("{voice}: {error}: install asterisk-core-sounds-en-{extension} and so on"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vm-")))
        .collect();
    files.sort();
    files
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

fn score(pairs: &[(PathBuf, PathBuf)], rate: Rate) -> Vec<f64> {
    let python = env::var("PESQ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let lines: String = pairs.iter().map(|(a, b)| format!("{} {}\n", a.display(), b.display())).collect();
    let list = pairs[0].0.with_file_name("pairs");
    fs::write(&list, lines).unwrap();
    let output = Command::new(&python)
        .args(["-c", SCORE])
        .arg(&list)
        .args(if rate == Rate::Narrow { ["8000", "nb"] } else { ["16000", "wb"] })
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; name it in PESQ_PYTHON"));
    let scores: Vec<f64> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(scores.len(), pairs.len(), "PESQ is not installed for {python}?");
    scores
}
