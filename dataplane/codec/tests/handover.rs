//! What a listener hears of it when he goes from one encoder's packets to another's, in a table that is reviewed: how long
//! it takes until he may, and by how much what he hears differs from what is heard by who has always had the other.
//!
//! Not part of a normal run, for voices have to be installed:
//!
//! ```text
//! apt-get install asterisk-core-sounds-{en,fr,it,ru}-g722
//! cargo test --release -p ringbridge-codec --test handover -- --ignored --nocapture
//! ```
//!
//! With `RINGBRIDGE_WRITE_TABLES=1` the table is written anew.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "samples of our own")]

use std::f64::consts::TAU;
use std::fmt::Write as _;
use std::{env, fs};

use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings, Rate, Resampler};

const VOICES: [&str; 4] = ["en_US_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"];
const SOUNDS: &str = "/usr/share/asterisk/sounds";
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/handover.md");
/// Seconds of each voice.
const SECONDS: usize = 30;
/// Packets of 20 ms for which somebody talks, and then hears what others hear: at least, until less will do, at most.
const TALKS: usize = 25;
const HOLD: [usize; 3] = [5, 150, 300];

/// Prompts of a voice one behind the other, at a rate.
fn said(voice: &str, rate: Rate) -> Vec<i16> {
    let mut files: Vec<_> = fs::read_dir(format!("{SOUNDS}/{voice}"))
        .unwrap_or_else(|error| panic!("{voice}: {error}: install asterisk-core-sounds-en-g722 and so on"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vm-")))
        .filter(|path| path.extension().is_some_and(|extension| extension == "g722"))
        .collect();
    files.sort();
    let mut samples = Vec::new();
    for bytes in files.iter().map(|path| fs::read(path).unwrap()) {
        let mut decoder = Decoder::new(CodecKind::G722).unwrap();
        for bytes in bytes.chunks_exact(160) {
            let mut out = [0; 320];
            decoder.decode(bytes, &mut out).unwrap();
            samples.extend(out);
        }
    }
    samples.truncate(SECONDS * 16_000);
    let mut out = vec![0; samples.len() / 160 * rate.frame_samples()];
    Resampler::new(Rate::Wide, rate).process(&samples, &mut out);
    out
}

fn tone(rate: Rate) -> Vec<i16> {
    let turns = |n: usize| 440.0 * n as f64 / f64::from(rate.hz()) * TAU;
    (0..SECONDS * rate.hz() as usize).map(|n| (turns(n).sin() * 6_000.0) as i16).collect()
}

fn power(samples: &[i16]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len() as f64
}

/// The power of what two rows differ by, of the half that differs more.
fn difference(a: &[i16], b: &[i16]) -> f64 {
    let half = a.len() / 2;
    let halves = a.chunks(half).zip(b.chunks(half));
    let squares = halves
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(i32::from(*a) - i32::from(*b)).powi(2)).sum::<f64>());
    squares.fold(0.0, f64::max) / half as f64
}

struct Handover {
    wait_ms: f64,
    /// What is heard besides in the half second after it, and what the noise of two encoders differs by in the 100 ms
    /// before, both relative to the level of what is said.
    heard_db: f64,
    noise_db: f64,
}

/// Who hears `common` begins to talk at packet `at` and ceases; the others hear `own` besides meanwhile.
fn handover(kind: CodecKind, settings: EncoderSettings, common: &[i16], own: &[i16], at: usize) -> Handover {
    let samples = 2 * kind.rate().frame_samples();
    let new = || (Encoder::new(kind, settings).unwrap(), Decoder::new(kind).unwrap());
    let ((mut shared, mut others), (mut private, mut his)) = (new(), new());
    let (mut packet, mut private_packet) = ([0; 1440], [0; 1440]);
    let (mut heard, mut should) = (vec![0; samples], vec![0; samples]);
    let (mut gone_at, mut watches) = (None, false);
    let (mut worst, mut noise) = (0.0_f64, [0.0; 5]);
    let ceases = at + TALKS;
    for n in at - 20.. {
        let row = n * samples..(n + 1) * samples;
        let is_talking = (at..ceases).contains(&n);
        let mix = |(common, own): (&i16, &i16)| if is_talking { common.saturating_add(*own) } else { *common };
        let mixed: Vec<i16> = common[row.clone()].iter().zip(&own[row.clone()]).map(mix).collect();
        if n == at {
            private.copy_from(&shared).unwrap();
        }
        let len = shared.encode(&mixed, &mut packet).unwrap();
        others.decode(&packet[..len], &mut should).unwrap();
        if n >= ceases + HOLD[0] && gone_at.is_none() {
            let lenient = n >= ceases + HOLD[1];
            let goes = watches && private.could_go_on_with(&shared, &packet[..len], lenient);
            gone_at = (goes || n >= ceases + HOLD[2]).then_some(n);
        }
        if n < at || gone_at.is_some() {
            his.decode(&packet[..len], &mut heard).unwrap();
        } else {
            let own_len = if is_talking {
                private.encode(&common[row], &mut private_packet).unwrap()
            } else {
                private.encode_toward(&common[row], &packet[..len], &mut private_packet).unwrap()
            };
            his.decode(&private_packet[..own_len], &mut heard).unwrap();
            watches = !is_talking;
            private.watch(&shared);
        }
        let differs = difference(&heard, &should);
        match gone_at {
            None => noise[n % 5] = differs,
            Some(gone_at) if n < gone_at + 25 => worst = worst.max(differs),
            Some(gone_at) => {
                let level = power(common);
                let db = |power: f64| 10.0 * (power / level).max(1e-10).log10();
                let wait_ms = 20.0 * (gone_at - ceases) as f64;
                return Handover { wait_ms, heard_db: db(worst), noise_db: db(noise.into_iter().fold(0.0, f64::max)) };
            }
        }
    }
    unreachable!("packets go on")
}

/// The median, the ninth of ten, and the largest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values.len() / 2, values.len() * 9 / 10, values.len() - 1].map(|at| values[at])
}

#[test]
#[ignore = "needs the voice prompts of Debian's asterisk packages"]
fn who_changes_encoders_hears_little_of_it() {
    let mut table = String::from(
        "What is heard when a listener goes from an encoder of his own to one that others share, packets of 20 ms, four voices \
         and a\ntone of 440 Hz: median, the worst of nine in ten, and the worst. The wait is from where both hear the same. \
         The click is the\ndifference to who has always had the shared one, in the half second that follows, in the loudest 10 \
         ms, relative to the\nlevel of the voice; the noise is what the two encoders differ by before.\n\n\
         | codec | signal | wait, ms | click, dB | noise, dB |\n| --- | --- | --- | --- | --- |\n",
    );
    for (kind, bitrate) in [
        (CodecKind::G722, 64_000),
        (CodecKind::Opus, 16_000),
        (CodecKind::Opus, 24_000),
        (CodecKind::Opus, 32_000),
        (CodecKind::Opus, 64_000),
        (CodecKind::Gsm, 13_000),
    ] {
        let settings = EncoderSettings { bitrate, ..EncoderSettings::default() };
        let voices = VOICES.map(|voice| said(voice, kind.rate()));
        let tone = [tone(kind.rate())];
        for (name, signals) in [("voices", &voices[..]), ("tone", &tone[..])] {
            let mut handovers = Vec::new();
            for (at, common) in signals.iter().enumerate() {
                let own = &voices[(at + 1) % VOICES.len()];
                let last = common.len().min(own.len()) / (2 * kind.rate().frame_samples()) - TALKS - HOLD[2] - 26;
                handovers.extend((20..last).step_by(37).map(|at| handover(kind, settings, common, own, at)));
            }
            let wait = spread(handovers.iter().map(|handover| handover.wait_ms).collect());
            let heard = spread(handovers.iter().map(|handover| handover.heard_db).collect());
            let noise = spread(handovers.iter().map(|handover| handover.noise_db).collect());
            let [wait, heard, noise] = [wait, heard, noise].map(|[a, b, c]| format!("{a:.0} / {b:.0} / {c:.0}"));
            writeln!(table, "| {kind} {} | {name} | {wait} | {heard} | {noise} |", bitrate / 1000).unwrap();
        }
    }
    println!("{table}");
    if env::var_os("RINGBRIDGE_WRITE_TABLES").is_some() {
        fs::write(TABLE, &table).unwrap();
    }
}
