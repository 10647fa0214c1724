//! The media threads as their callers see them.
#![expect(clippy::cast_possible_truncation, reason = "test signals and test files are small")]

use std::f64::consts::TAU;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringbridge_codec::g711;
use ringbridge_media::limits::{CHUNK_SAMPLES, SAMPLE_RATE_HZ};
use ringbridge_media::samples::{Chunk, Marks, Prompt, PromptStream, RecordChunk};
use sha2::{Digest as _, Sha256};

use super::decode::{Aim, Decoder};
use super::*;

mod expiry;
mod formats;
mod rates;
mod resolution;
mod speech;

/// Upper bound of every wait; nothing is expected to take a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A whole number of cycles in 4000 samples, and no sample like another.
const TONE_HZ: f64 = 1014.0;

struct Fixture {
    directory: tempfile::TempDir,
    files: MediaFiles,
}

impl Fixture {
    fn new(cache_bytes_max: usize) -> Self {
        // Nothing to speak with.
        let command = Some(Vec::new());
        Self::with_tts(cache_bytes_max, TtsConfig { command, time_limit: PATIENCE, cache_bytes_max: 0 })
    }

    fn with_tts(cache_bytes_max: usize, tts: TtsConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("audio")).unwrap();
        let config = Self::config_in(directory.path(), cache_bytes_max, tts);
        Self { files: MediaFiles::start(config).unwrap(), directory }
    }

    fn config_in(directory: &Path, cache_bytes_max: usize, tts: TtsConfig) -> FilesConfig {
        let root = |name| directory.join(name);
        FilesConfig {
            audio_root: root("audio"),
            recording_root: root("recordings"),
            speech_root: root("speech"),
            tts,
            sweep_every: None,
            cache_bytes_max,
            threads: 2,
        }
    }

    fn audio(&self, name: &str) -> PathBuf {
        self.directory.path().join("audio").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.audio(name), bytes).unwrap();
    }

    fn open(&self, name: &str) -> Result<Prompt, FileError> {
        wait(self.files.open_playlist(&PlaylistSpec::files([name.to_owned()])))
            .map(|mut playlist| playlist.prompts.remove(0))
    }

    fn whole(&self, name: &str) -> Arc<[i16]> {
        match self.open(name).unwrap() {
            Prompt::Whole(samples) => samples,
            Prompt::Stream(_) => panic!("{name} is streamed"),
        }
    }

    fn record(&self, name: &str) -> Result<Recording, FileError> {
        wait(self.files.start_recording(RecordingSpec::wav(name)))
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How the samples of a test file are written.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Pcm(u16),
    Float(u16),
    Alaw,
    Ulaw,
}

/// A WAV file as a list of its header's fields, so that tests can spoil any of them.
struct Wav {
    kind: Kind,
    extensible: bool,
    channels: u16,
    rate_hz: u32,
    data: Vec<u8>,
}

impl Wav {
    /// `samples` (−1 ..= 1) in every channel.
    fn new(kind: Kind, channels: u16, rate_hz: u32, samples: &[f64]) -> Self {
        let mut data = Vec::new();
        for sample in samples {
            let linear = (sample * 32767.0).round() as i16;
            let mut word = [0];
            let bytes = match kind {
                Kind::Pcm(8) => vec![(sample * 127.0 + 128.0).round() as u8],
                Kind::Pcm(16) => linear.to_le_bytes().to_vec(),
                Kind::Pcm(24) => ((sample * 8_388_607.0).round() as i32).to_le_bytes()[..3].to_vec(),
                Kind::Pcm(_) => ((sample * 2_147_483_647.0).round() as i32).to_le_bytes().to_vec(),
                Kind::Float(32) => (*sample as f32).to_le_bytes().to_vec(),
                Kind::Float(_) => sample.to_le_bytes().to_vec(),
                Kind::Alaw => {
                    g711::encode_alaw(&[linear], &mut word);
                    word.to_vec()
                }
                Kind::Ulaw => {
                    g711::encode_ulaw(&[linear], &mut word);
                    word.to_vec()
                }
            };
            for _ in 0..channels {
                data.extend_from_slice(&bytes);
            }
        }
        Self { kind, extensible: false, channels, rate_hz, data }
    }

    fn format(&self) -> Vec<u8> {
        let (tag, bits) = match self.kind {
            Kind::Pcm(bits) => (1u16, bits),
            Kind::Float(bits) => (3, bits),
            Kind::Alaw => (6, 8),
            Kind::Ulaw => (7, 8),
        };
        let block = self.channels.wrapping_mul(bits / 8);
        let outer = if self.extensible { 0xFFFE } else { tag };
        let mut format = Vec::new();
        format.extend_from_slice(&outer.to_le_bytes());
        format.extend_from_slice(&self.channels.to_le_bytes());
        format.extend_from_slice(&self.rate_hz.to_le_bytes());
        format.extend_from_slice(&self.rate_hz.wrapping_mul(u32::from(block)).to_le_bytes());
        format.extend_from_slice(&block.to_le_bytes());
        format.extend_from_slice(&bits.to_le_bytes());
        if self.extensible {
            format.extend_from_slice(&22u16.to_le_bytes());
            format.extend_from_slice(&bits.to_le_bytes());
            format.extend_from_slice(&0u32.to_le_bytes());
            format.extend_from_slice(&tag.to_le_bytes());
            format.extend_from_slice(&[0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
        }
        format
    }

    fn bytes(&self) -> Vec<u8> {
        riff(&[(b"LIST", b"odd"), (b"fmt ", &self.format()), (b"fact", &[0; 4]), (b"data", &self.data)])
    }
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WAVE".to_vec();
    for (name, content) in chunks {
        body.extend_from_slice(*name);
        body.extend_from_slice(&(content.len() as u32).to_le_bytes());
        body.extend_from_slice(content);
        if content.len() % 2 == 1 {
            body.push(0);
        }
    }
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.extend_from_slice(&body);
    file
}

fn tone(hz: f64, rate_hz: u32, amplitude: f64, samples: usize) -> Vec<f64> {
    (0..samples).map(|index| amplitude * (TAU * hz * index as f64 / f64::from(rate_hz)).sin()).collect()
}

/// Amplitude of the part of `samples` at `hz`, and the level of all the rest, both relative to full scale.
fn judge(samples: &[i16], hz: f64) -> (f64, f64) {
    judge_at(SAMPLE_RATE_HZ, samples, hz)
}

/// The same at another rate.
fn judge_at(rate_hz: u32, samples: &[i16], hz: f64) -> (f64, f64) {
    let n = samples.len() as f64;
    let (mut cosine, mut sine, mut square) = (0.0, 0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        let phase = TAU * hz * index as f64 / f64::from(rate_hz);
        let value = f64::from(*sample) / 32768.0;
        cosine += value * phase.cos();
        sine += value * phase.sin();
        square += value * value;
    }
    let amplitude = 2.0 * cosine.hypot(sine) / n;
    (amplitude, (square / n - amplitude * amplitude / 2.0).max(0.0).sqrt())
}

#[test]
fn every_format_and_rate_keeps_tone_level_and_length() {
    let fixture = Fixture::new(16 << 20);
    let kinds = [
        Kind::Pcm(8),
        Kind::Pcm(16),
        Kind::Pcm(24),
        Kind::Pcm(32),
        Kind::Float(32),
        Kind::Float(64),
        Kind::Alaw,
        Kind::Ulaw,
    ];
    for kind in kinds {
        for (rate_hz, channels, extensible) in [
            (8000, 1, false),
            (8000, 2, true),
            (11_025, 1, false),
            (16_000, 2, false),
            (22_050, 1, true),
            (44_100, 2, false),
            (48_000, 1, false),
            (4000, 1, false),
            (47_999, 8, true),
            (192_000, 1, false),
        ] {
            let case = format!("{kind:?} at {rate_hz} Hz, {channels} channels, extensible {extensible}");
            let frames = rate_hz as usize * 3 / 4 + 1;
            let mut wav = Wav::new(kind, channels, rate_hz, &tone(TONE_HZ, rate_hz, 0.5, frames));
            wav.extensible = extensible;
            fixture.put("tone.wav", &wav.bytes());
            let samples = fixture.whole("tone.wav");
            let expected = frames as f64 * 8000.0 / f64::from(rate_hz);
            assert!((samples.len() as f64 - expected).abs() <= 1.0, "{case}: {} of {expected}", samples.len());
            let (amplitude, rest) = judge(&samples[400..4400], TONE_HZ);
            assert!((amplitude - 0.5).abs() < 0.005, "{case}: amplitude {amplitude}");
            // Eight bits linear: 1/sqrt(12) of 1/128. G.711: some 38 dB below the tone.
            let noise_max = match kind {
                Kind::Pcm(8) => 0.004,
                Kind::Alaw | Kind::Ulaw => 0.006,
                Kind::Pcm(_) | Kind::Float(_) => 0.0004,
            };
            assert!(rest < noise_max, "{case}: {rest} besides the tone");
        }
    }
}

#[test]
fn eight_kilohertz_files_are_taken_as_they_are() {
    let fixture = Fixture::new(1 << 20);
    let samples: Vec<i16> = (0..16_000).map(|n: i32| (n * 7919 % 65_536 - 32_768) as i16).collect();
    // Written by another hand than the one that reads.
    let spec =
        hound::WavSpec { channels: 1, sample_rate: 8000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(fixture.audio("exact.wav"), spec).unwrap();
    samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
    writer.finalize().unwrap();
    assert_eq!(*fixture.whole("exact.wav"), *samples);

    let words: Vec<u8> = (0..=255).collect();
    let mut linear = [0; 256];
    for (kind, decode) in [(Kind::Ulaw, g711::decode_ulaw as fn(&[u8], &mut [i16])), (Kind::Alaw, g711::decode_alaw)] {
        let name = format!("{kind:?}.wav");
        let wav = Wav { kind, extensible: false, channels: 1, rate_hz: 8000, data: words.clone() };
        fixture.put(&name, &wav.bytes());
        decode(&words, &mut linear);
        assert_eq!(*fixture.whole(&name), linear);
    }
}

#[test]
fn resampling_adds_no_silence_in_front_and_lets_no_alias_through() {
    let fixture = Fixture::new(16 << 20);
    for rate_hz in [16_000, 44_100, 48_000, 192_000] {
        // A click 100 ms into the file stays there.
        let mut click = vec![0.0; rate_hz as usize];
        let width = rate_hz as usize / 4000;
        click[rate_hz as usize / 10..][..width].fill(0.9);
        fixture.put("click.wav", &Wav::new(Kind::Pcm(16), 1, rate_hz, &click).bytes());
        let samples = fixture.whole("click.wav");
        let loudest = (0..samples.len()).max_by_key(|at| samples[*at].unsigned_abs()).unwrap();
        assert!(loudest.abs_diff(801) <= 1, "{rate_hz} Hz: the click is at {loudest}");
        // 6 kHz can't be told at 8 kHz: it has to vanish, not to come back as 2 kHz.
        fixture.put(
            "high.wav",
            &Wav::new(Kind::Pcm(16), 1, rate_hz, &tone(6000.0, rate_hz, 0.5, rate_hz as usize)).bytes(),
        );
        let samples = fixture.whole("high.wav");
        let (amplitude, rest) = judge(&samples[400..7600], 2000.0);
        assert!(amplitude < 0.0005 && rest < 0.0005, "{rate_hz} Hz: {amplitude}, {rest}");
        // And what telephony carries is kept.
        fixture.put(
            "edge.wav",
            &Wav::new(Kind::Pcm(16), 1, rate_hz, &tone(3400.0, rate_hz, 0.5, rate_hz as usize)).bytes(),
        );
        let (amplitude, _) = judge(&fixture.whole("edge.wav")[400..7600], 3400.0);
        assert!((0.45..0.55).contains(&amplitude), "{rate_hz} Hz: {amplitude} at 3.4 kHz");
    }
}

#[test]
fn channels_are_mixed_with_equal_weight() {
    let fixture = Fixture::new(1 << 20);
    let mut wav = Wav::new(Kind::Pcm(16), 1, 8000, &[]);
    wav.channels = 2;
    wav.data = (0..1000).flat_map(|_| [20_000i16, -10_000]).flat_map(i16::to_le_bytes).collect();
    fixture.put("stereo.wav", &wav.bytes());
    assert_eq!(*fixture.whole("stereo.wav"), [5000; 1000]);
}

#[test]
fn bad_files_are_refused_with_a_reason() {
    let fixture = Fixture::new(1 << 20);
    let good = Wav::new(Kind::Pcm(16), 1, 8000, &tone(440.0, 8000, 0.5, 800));
    let spoiled = |at: usize, bytes: &[u8]| {
        let mut format = good.format();
        format[at..at + bytes.len()].copy_from_slice(bytes);
        riff(&[(b"fmt ", &format), (b"data", &good.data)])
    };
    let claim = |len: u32| {
        let mut file = good.bytes();
        let at = file.len() - good.data.len() - 4;
        file[at..at + 4].copy_from_slice(&len.to_le_bytes());
        file
    };
    let cut = |len: usize| good.bytes()[..len].to_vec();
    let many: Vec<(&[u8; 4], &[u8])> = vec![(b"junk", b""); 100];
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty file", vec![], "not a WAV"),
        ("eleven bytes", cut(11), "not a WAV"),
        ("text", b"This is no audio at all, but long enough to be looked at.".to_vec(), "not a WAV"),
        ("only the RIFF header", cut(12), "no data chunk"),
        ("cut in the format", cut(40), "longer than the file"),
        ("cut in the samples", cut(500), "longer than the file"),
        ("4 GiB claimed", claim(u32::MAX), "longer than the file"),
        ("2 GiB claimed", claim(0x7FFF_FFFF), "longer than the file"),
        ("no samples", riff(&[(b"fmt ", &good.format()), (b"data", &[])]), "no samples"),
        ("less than a frame", riff(&[(b"fmt ", &good.format()), (b"data", &[1])]), "no samples"),
        ("samples first", riff(&[(b"data", &good.data), (b"fmt ", &good.format())]), "before their format"),
        ("no format", riff(&[(b"data", &good.data)]), "before their format"),
        ("format too short", riff(&[(b"fmt ", &good.format()[..14]), (b"data", &good.data)]), "too short"),
        ("a hundred chunks", riff(&many), "too many chunks"),
        ("zero channels", spoiled(2, &[0, 0]), "0 channels"),
        ("65535 channels", spoiled(2, &[255, 255]), "65535 channels"),
        ("0 Hz", spoiled(4, &[0; 4]), "0 Hz"),
        ("4 GHz", spoiled(4, &[255; 4]), "4294967295 Hz"),
        ("block of nothing", spoiled(12, &[0, 0]), "divided among"),
        ("block of 65535", spoiled(12, &[255, 255]), "not supported"),
        ("0 bits", spoiled(14, &[0, 0]), "more bits than room"),
        ("17 bits in two bytes", spoiled(14, &[17, 0]), "more bits than room"),
        ("65535 bits", spoiled(14, &[255, 255]), "more bits than room"),
        ("ADPCM", spoiled(0, &[2, 0]), "not supported"),
        ("MP3 in WAV", spoiled(0, &[0x55, 0]), "not supported"),
        ("extensible, but short", spoiled(0, &[0xFE, 0xFF]), "not supported"),
    ];
    for (case, bytes, reason) in rows {
        fixture.put("bad.wav", &bytes);
        match fixture.open("bad.wav") {
            Err(FileError::Unsupported { path, reason: told }) => {
                assert_eq!(path, Path::new("bad.wav"));
                assert!(told.contains(reason), "{case}: {told}");
            }
            other => panic!("{case}: {other:?}"),
        }
    }
    // And nothing of all that has hurt.
    fixture.put("good.wav", &good.bytes());
    assert_eq!(fixture.whole("good.wav").len(), 800);
}

#[test]
fn any_bytes_decode_or_fail_cleanly() {
    // Every single byte of a valid header, spoiled in several ways, and every length.
    let mut wav = Wav::new(Kind::Pcm(16), 2, 44_100, &tone(440.0, 44_100, 0.5, 64));
    wav.extensible = true;
    let good = wav.bytes();
    let mut decoded = 0;
    let mut check = |file: &[u8]| {
        if let Ok(mut decoder) = Decoder::new(io::Cursor::new(file), file.len() as u64, Aim::Exactly(Rate::Narrow)) {
            let (mut samples, expected) = (Vec::new(), decoder.samples());
            while matches!(decoder.step(&mut samples), Ok(true)) {}
            assert!(samples.len() as u64 <= expected);
            decoded += 1;
        }
    };
    for at in 0..100 {
        for change in [0x01, 0x80, 0xFF] {
            let mut file = good.clone();
            file[at] ^= change;
            check(&file);
        }
    }
    for len in 0..good.len() {
        check(&good[..len]);
    }
    assert!(decoded > 20, "the test shows nothing: {decoded}");
}

#[test]
fn paths_stay_inside_the_root() {
    let fixture = Fixture::new(1 << 20);
    let good = Wav::new(Kind::Pcm(16), 1, 8000, &tone(440.0, 8000, 0.5, 800)).bytes();
    std::fs::create_dir_all(fixture.audio("deep/er")).unwrap();
    fixture.put("deep/er/good.wav", &good);
    std::fs::write(fixture.directory.path().join("secret.wav"), &good).unwrap();
    symlink("../secret.wav", fixture.audio("out.wav")).unwrap();
    symlink(fixture.directory.path(), fixture.audio("outside")).unwrap();
    symlink("../..", fixture.audio("deep/up")).unwrap();
    symlink("loop.wav", fixture.audio("loop.wav")).unwrap();
    symlink("deep/er/good.wav", fixture.audio("inside.wav")).unwrap();
    symlink("nowhere.wav", fixture.audio("dangling.wav")).unwrap();
    let fifo = fixture.audio("fifo.wav");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.audio("socket.wav")).unwrap();

    let absolute = |name: &str| fixture.audio(name).to_str().unwrap().to_owned();
    for name in ["deep/er/good.wav", "./deep//er/./good.wav", "inside.wav", &absolute("deep/er/good.wav")] {
        assert_eq!(fixture.open(name).map(|_| ()).map_err(|error| error.to_string()), Ok(()), "{name}");
    }
    let outside = fixture.directory.path().join("secret.wav");
    let long = "x".repeat(5000);
    let nested = "a/".repeat(100) + "a.wav";
    let rows = [
        ("../secret.wav", "outside"),
        ("deep/../deep/er/good.wav", "outside"),
        ("deep/../../secret.wav", "outside"),
        (outside.to_str().unwrap(), "outside"),
        ("/etc/passwd", "outside"),
        (&absolute("../secret.wav"), "outside"),
        ("out.wav", "outside"),
        ("outside/secret.wav", "outside"),
        ("deep/up/secret.wav", "outside"),
        ("loop.wav", "outside"),
        ("missing.wav", "missing"),
        ("deep/missing/good.wav", "missing"),
        ("deep/er/good.wav/more", "missing"),
        ("dangling.wav", "missing"),
        ("deep", "unsupported"),
        ("deep/", "unsupported"),
        ("fifo.wav", "unsupported"),
        ("socket.wav", "unsupported"),
        ("good.wav\0.txt", "unsupported"),
        ("", "unsupported"),
        (".", "unsupported"),
        ("/", "outside"),
        (&long, "unsupported"),
        (&nested, "unsupported"),
    ];
    for (name, expected) in rows {
        let error = fixture.open(name).expect_err(name);
        let kind = match &error {
            FileError::OutsideRoot { .. } => "outside",
            FileError::NotFound { .. } => "missing",
            FileError::Unsupported { .. } => "unsupported",
            FileError::Format { .. } | FileError::Speech { .. } | FileError::Io { .. } => "other",
        };
        assert_eq!(kind, expected, "{name}: {error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
}

#[test]
fn recordings_stay_inside_their_root_and_overwrite_nothing() {
    let fixture = Fixture::new(1 << 20);
    let root = fixture.directory.path().join("recordings");
    std::fs::create_dir(&root).unwrap();
    let elsewhere = fixture.directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink("../elsewhere", root.join("link")).unwrap();
    symlink("../elsewhere/new.wav", root.join("file.wav")).unwrap();
    std::fs::write(root.join("there.wav"), b"precious").unwrap();
    std::fs::write(root.join("manifest.wav.json"), b"precious").unwrap();
    for name in ["../elsewhere/a.wav", "link/a.wav", "link/new/a.wav", "/tmp/a.wav", "a/../../elsewhere/a.wav"] {
        let error = fixture.record(name).expect_err(name);
        assert!(matches!(error, FileError::OutsideRoot { .. }), "{name}: {error}");
    }
    for name in ["there.wav", "file.wav", "manifest.wav"] {
        let error = fixture.record(name).expect_err(name);
        let FileError::Io { source, .. } = &error else { panic!("{name}: {error}") };
        assert_eq!(source.kind(), io::ErrorKind::AlreadyExists, "{name}: {error}");
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert_eq!(std::fs::read(root.join("there.wav")).unwrap(), b"precious");
    assert!(!root.join("manifest.wav").exists());
}

#[test]
fn a_prompt_is_decoded_once_and_again_when_it_has_changed() {
    let fixture = Fixture::new(16 << 20);
    fixture.put("p.wav", &Wav::new(Kind::Pcm(16), 1, 48_000, &tone(440.0, 48_000, 0.5, 480_000)).bytes());
    let names = PlaylistSpec::files(vec!["p.wav".to_owned(); 40]);
    let playlist = wait(fixture.files.open_playlist(&names)).unwrap();
    let whole = |prompt: &Prompt| match prompt {
        Prompt::Whole(samples) => samples.clone(),
        Prompt::Stream(_) => panic!("streamed"),
    };
    let first = whole(&playlist.prompts[0]);
    assert_eq!((playlist.prompts.len(), first.len()), (40, 80_000));
    assert!(playlist.prompts.iter().all(|prompt| Arc::ptr_eq(&first, &whole(prompt))));
    let stats = fixture.files.cache_stats();
    assert_eq!((stats.misses, stats.hits, stats.bytes, stats.prompts), (1, 39, 160_000, 1));

    fixture.put("p.wav", &Wav::new(Kind::Pcm(16), 1, 8000, &tone(440.0, 8000, 0.5, 100)).bytes());
    assert_eq!(fixture.whole("p.wav").len(), 100);
    assert_eq!((fixture.files.cache_stats().misses, fixture.files.cache_stats().bytes), (2, 200));
}

#[test]
fn the_cache_keeps_to_its_size() {
    let fixture = Fixture::new(4000);
    for name in ["a", "b", "c"] {
        fixture.put(name, &Wav::new(Kind::Pcm(16), 1, 8000, &tone(440.0, 8000, 0.5, 800)).bytes());
        fixture.whole(name);
    }
    let stats = fixture.files.cache_stats();
    assert_eq!((stats.misses, stats.evictions, stats.prompts, stats.bytes), (3, 1, 2, 3200));
    fixture.whole("a");
    assert_eq!(fixture.files.cache_stats().misses, 4);
}

#[test]
fn a_playlist_is_in_order_bounded_and_fails_as_a_whole() {
    let fixture = Fixture::new(1 << 20);
    for (name, length) in [("a.wav", 100), ("b.wav", 200)] {
        fixture.put(name, &Wav::new(Kind::Ulaw, 1, 8000, &tone(440.0, 8000, 0.5, length)).bytes());
    }
    let open = |names: &[&str]| {
        wait(fixture.files.open_playlist(&PlaylistSpec::files(names.iter().map(|name| (*name).to_owned()))))
    };
    let lengths: Vec<usize> = open(&["b.wav", "a.wav", "b.wav"])
        .unwrap()
        .prompts
        .iter()
        .map(|prompt| match prompt {
            Prompt::Whole(samples) => samples.len(),
            Prompt::Stream(_) => 0,
        })
        .collect();
    assert_eq!(lengths, [200, 100, 200]);
    assert!(open(&[]).unwrap().prompts.is_empty());
    assert!(matches!(open(&["a.wav", "missing.wav"]), Err(FileError::NotFound { .. })));
    assert!(matches!(open(&["a.wav"; PROMPTS_MAX + 1]), Err(FileError::Unsupported { .. })));
    assert!(open(&["a.wav"; PROMPTS_MAX]).is_ok());
}

fn play(stream: &PromptStream) -> Vec<i16> {
    let mut samples = Vec::new();
    until(|| {
        let finished = stream.finished.load(Ordering::Acquire);
        while let Some(chunk) = stream.chunks.pop() {
            samples.extend_from_slice(chunk.as_slice());
        }
        (finished || stream.failed.load(Ordering::Acquire)).then_some(())
    });
    samples
}

fn streamed(fixture: &Fixture, name: &str) -> Arc<PromptStream> {
    match fixture.open(name).unwrap() {
        Prompt::Stream(stream) => stream,
        Prompt::Whole(_) => panic!("{name} is not streamed"),
    }
}

/// Longer than what is decoded as a whole.
fn long_wav() -> Vec<u8> {
    let noise: Vec<f64> = (0..11_025u64 * 121 + 5).map(|n| (n * n * 7919 % 65_536) as f64 / 65_536.0 - 0.5).collect();
    Wav::new(Kind::Pcm(8), 1, 11_025, &noise).bytes()
}

#[test]
fn a_long_prompt_is_streamed_and_equals_its_whole_decoding() {
    let fixture = Fixture::new(1 << 20);
    let file = long_wav();
    fixture.put("long.wav", &file);
    let mut expected = Vec::new();
    let mut decoder = Decoder::new(io::Cursor::new(&file), file.len() as u64, Aim::Exactly(Rate::Narrow)).unwrap();
    let length = decoder.samples();
    while decoder.step(&mut expected).unwrap() {}
    assert_eq!(expected.len() as u64, length);

    let stream = streamed(&fixture, "long.wav");
    assert!(stream.chunks.is_full(), "nothing is decoded ahead");
    let samples = play(&stream);
    assert!(!stream.failed.load(Ordering::Acquire));
    assert_eq!(samples.len(), expected.len());
    assert!(samples == expected, "the samples differ");
    assert_eq!(fixture.files.cache_stats().misses, 0);
}

#[test]
fn a_stream_ends_when_its_file_breaks_off_and_when_nobody_listens() {
    let fixture = Fixture::new(1 << 20);
    fixture.put("long.wav", &long_wav());
    let stream = streamed(&fixture, "long.wav");
    std::fs::File::options().write(true).open(fixture.audio("long.wav")).unwrap().set_len(200_000).unwrap();
    let samples = play(&stream);
    assert!(stream.failed.load(Ordering::Acquire) && !stream.finished.load(Ordering::Acquire));
    assert!(samples.len() < 200_000);

    fixture.put("long.wav", &long_wav());
    let (abandoned, dropped) = (streamed(&fixture, "long.wav"), streamed(&fixture, "long.wav"));
    let open = || fixture.files.inner.shared.open_files.load(Ordering::Relaxed);
    until(|| (open() == 2).then_some(()));
    abandoned.abandoned.store(true, Ordering::Release);
    until(|| (open() == 1).then_some(()));
    drop(dropped);
    until(|| (open() == 0).then_some(()));
}

#[test]
fn streams_end_with_the_server() {
    let fixture = Fixture::new(1 << 20);
    fixture.put("long.wav", &long_wav());
    let stream = streamed(&fixture, "long.wav");
    drop(fixture);
    assert!(stream.failed.load(Ordering::Acquire));
}

fn chunk(position: u64, level: i16) -> RecordChunk {
    RecordChunk { position, chunk: Chunk::new(&[level; CHUNK_SAMPLES]), marks: Marks::default() }
}

fn recorded(path: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(path).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 8000, 16));
    reader.samples().map(Result::unwrap).collect()
}

fn manifest(path: &Path) -> serde_json::Value {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    serde_json::from_slice(&std::fs::read(name).unwrap()).unwrap()
}

#[test]
fn a_recording_holds_what_was_queued_and_silence_for_gaps() {
    let fixture = Fixture::new(1 << 20);
    let recording = fixture.record("2026/11/call.wav").unwrap();
    assert_eq!(recording.path, fixture.directory.path().join("recordings/2026/11/call.wav"));
    let frame = CHUNK_SAMPLES as u64;
    let queue = &recording.queue;
    queue.chunks.push(chunk(0, 100)).unwrap();
    queue.chunks.push(chunk(frame, 200)).unwrap();
    queue.chunks.push(chunk(4 * frame, 300)).unwrap();
    queue.chunks.push(chunk(7 * frame, 400)).unwrap();
    // Two gaps of two frames in between, and one frame lost at the very end.
    queue.lost_samples.store(5 * frame, Ordering::Release);
    queue.finish();
    let outcome = wait(recording.done).unwrap();
    let gaps = vec![Gap { at_ms: 40, ms: 40 }, Gap { at_ms: 100, ms: 40 }, Gap { at_ms: 160, ms: 20 }];
    assert_eq!(outcome, RecordingOutcome { samples: 9 * frame, gaps: gaps.clone(), ..RecordingOutcome::default() });

    let expected: Vec<i16> =
        [100, 200, 0, 0, 300, 0, 0, 400, 0].iter().flat_map(|level| [*level; CHUNK_SAMPLES]).collect();
    assert_eq!(recorded(&recording.path), expected);
    let manifest = manifest(&recording.path);
    assert_eq!(manifest["file"], "call.wav");
    assert_eq!(manifest["state"], "complete");
    assert_eq!((&manifest["sample_rate"], &manifest["channels"]), (&8000.into(), &1.into()));
    assert_eq!(manifest["samples"], 9 * frame);
    assert_eq!(manifest["gaps"], serde_json::to_value(gaps).unwrap());
    for time in ["started_at", "ended_at"] {
        manifest[time].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
}

/// A frame of a call: caller and called.
fn frame(index: u64, levels: [i16; 2], marks: Marks) -> RecordChunk {
    let samples: Vec<i16> = (0..CHUNK_SAMPLES).map(|sample| levels[sample % 2]).collect();
    RecordChunk { position: index * CHUNK_SAMPLES as u64 / 2, chunk: Chunk::new(&samples), marks }
}

#[test]
fn a_call_has_two_channels_and_its_manifest_says_what_is_not_in_them() {
    for (encoding, bits) in [(Encoding::Pcm, 16), (Encoding::Ulaw, 8), (Encoding::Alaw, 8)] {
        let fixture = Fixture::new(1 << 20);
        let spec = RecordingSpec { encoding, bits, channels: 2, ..RecordingSpec::wav("call.wav") };
        let recording = wait(fixture.files.start_recording(spec)).unwrap();
        let muted = Marks { muted: [true, false], ..Marks::default() };
        let lost = Marks { concealed: [false, true], gap: [true, false], ..Marks::default() };
        let plain = Marks::default();
        let frames = [
            frame(0, [1000, -2000], plain),
            frame(1, [0, -2000], muted),
            frame(2, [0, -2000], muted),
            frame(3, [1000, -2000], lost),
            // Two frames the server lost.
            frame(6, [0, -2000], muted),
            frame(7, [1000, -2000], plain),
        ];
        for frame in frames {
            recording.queue.chunks.push(frame).unwrap();
        }
        recording.queue.lost_samples.store(160, Ordering::Release);
        recording.queue.finish();
        let outcome = wait(recording.done).unwrap();
        assert_eq!((outcome.samples, &outcome.error), (640, &None));

        let content = std::fs::read(&recording.path).unwrap();
        let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(outcome.sha256.as_ref(), Some(&hash));
        let manifest = manifest(&recording.path);
        assert_eq!((&manifest["sha256"], &manifest["channels"]), (&hash.into(), &2.into()));
        assert_eq!((&manifest["samples"], &manifest["state"]), (&640.into(), &"complete".into()));
        let gaps = |gaps: &[(u64, u64)]| {
            serde_json::to_value(gaps.iter().map(|&(at_ms, ms)| Gap { at_ms, ms }).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(manifest["gaps"], gaps(&[(40, 20)]));
        assert_eq!(manifest["caller"]["muted"], gaps(&[(10, 20), (60, 10)]));
        assert_eq!(manifest["caller"]["gaps"], gaps(&[(30, 10)]));
        assert_eq!(manifest["called"]["concealed"], gaps(&[(30, 10)]));
        assert_eq!((&manifest["called"]["muted"], &manifest["called"]["unlisted"]), (&gaps(&[]), &0.into()));

        // The header by its fields (RFC 2361): tag, channels, rate, bytes a second, block, bits.
        let number = |at: usize, len: usize| {
            content[at..at + len].iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let block = 2 * u32::from(bits) / 8;
        assert_eq!((number(22, 2), number(24, 4), number(28, 4)), (2, 8000, 8000 * block));
        assert_eq!((number(32, 2), number(34, 2)), (block, u32::from(bits)));
        assert_eq!(number(4, 4) as usize, content.len() - 8);
        if encoding == Encoding::Pcm {
            let samples: Vec<i16> =
                hound::WavReader::open(&recording.path).unwrap().samples().map(Result::unwrap).collect();
            let expected =
                [[1000, -2000], [0, -2000], [0, -2000], [1000, -2000], [0, 0], [0, 0], [0, -2000], [1000, -2000]];
            let expected: Vec<i16> = expected.into_iter().flat_map(|pair| [pair; 80]).flatten().collect();
            assert_eq!(samples, expected);
        }
    }
}

#[test]
fn two_channels_need_a_format_that_can_hold_them() {
    let fixture = Fixture::new(1 << 20);
    let wav = RecordingSpec { channels: 2, ..RecordingSpec::wav("a.wav") };
    for spec in [
        RecordingSpec { container: Container::Vox, ..wav.clone() },
        RecordingSpec { encoding: Encoding::Adpcm, bits: 4, ..wav.clone() },
        RecordingSpec { sample_rate_hz: 6000, ..wav.clone() },
        RecordingSpec { channels: 3, ..wav.clone() },
    ] {
        wait(fixture.files.start_recording(spec)).unwrap_err();
    }
}

#[test]
fn a_call_that_nobody_feeds_any_more_has_its_checksum_too() {
    let fixture = Fixture::new(1 << 20);
    let spec = RecordingSpec { channels: 2, ..RecordingSpec::wav("call.wav") };
    let Recording { queue, path, done, .. } = wait(fixture.files.start_recording(spec)).unwrap();
    queue.chunks.push(frame(0, [1, 2], Marks::default())).unwrap();
    // The server ends.
    drop(fixture.files);
    let outcome = wait(done).unwrap();
    assert_eq!((outcome.samples, outcome.failure), (80, Some(RecordingFailure::Abandoned)));
    let hash: String = Sha256::digest(std::fs::read(&path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(outcome.sha256, Some(hash));
    assert_eq!(manifest(&path)["state"], "abandoned");
}

#[test]
fn a_file_that_is_being_written_is_valid_to_its_last_second() {
    let fixture = Fixture::new(1 << 20);
    let recording = fixture.record("live.wav").unwrap();
    assert_eq!(recorded(&recording.path), [0i16; 0]);
    assert_eq!(manifest(&recording.path)["state"], "recording");
    // Until the header has been refreshed twice, without the recording having ended.
    let (mut position, mut lengths) = (0, vec![0]);
    until(|| {
        if recording.queue.chunks.push(chunk(position, 1234)).is_ok() {
            position += CHUNK_SAMPLES as u64;
        }
        let samples = recorded(&recording.path);
        assert!(samples.iter().all(|sample| *sample == 1234));
        if samples.len() > lengths[lengths.len() - 1] {
            lengths.push(samples.len());
        }
        (lengths.len() >= 3).then_some(())
    });
    recording.queue.finish();
    assert_eq!(wait(recording.done).unwrap().samples, position);
    assert_eq!(recorded(&recording.path).len() as u64, position);
}

#[test]
fn a_recording_nobody_feeds_any_more_ends_by_itself() {
    let fixture = Fixture::new(1 << 20);
    let Recording { queue, path, done, .. } = fixture.record("left.wav").unwrap();
    queue.chunks.push(chunk(0, 1)).unwrap();
    drop(queue);
    let outcome = wait(done).unwrap();
    assert_eq!(outcome.samples, CHUNK_SAMPLES as u64);
    assert!(outcome.error.is_some());
    assert_eq!(recorded(&path).len(), CHUNK_SAMPLES);
    assert_eq!(manifest(&path)["state"], "abandoned");

    let Recording { queue, path, done, .. } = fixture.record("never.wav").unwrap();
    drop(queue);
    assert_eq!(wait(done).unwrap().samples, 0);
    assert!(!path.exists());
    assert_eq!(fixture.record("never.wav").map(|_| ()).map_err(|error| error.to_string()), Ok(()));
}

#[test]
fn recordings_are_completed_when_the_server_ends() {
    let fixture = Fixture::new(1 << 20);
    let mut recording = fixture.record("ending.wav").unwrap();
    for index in 0..100 {
        recording.queue.chunks.push(chunk(index * CHUNK_SAMPLES as u64, 5)).unwrap();
    }
    let Fixture { directory, files } = fixture;
    drop(files);
    // The threads have ended, so nothing needs to be waited for.
    let outcome = recording.done.try_recv().unwrap();
    assert_eq!(outcome.samples, 100 * CHUNK_SAMPLES as u64);
    assert!(recording.queue.failed.load(Ordering::Acquire));
    assert_eq!(recorded(&recording.path), [5; 100 * CHUNK_SAMPLES]);
    drop(directory);
}
