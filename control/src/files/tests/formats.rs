//! Every format that is written, read again by ourselves and by others.

use std::process::Command;

use super::*;

const ALL: [(Encoding, u16); 5] =
    [(Encoding::Pcm, 8), (Encoding::Pcm, 16), (Encoding::Ulaw, 8), (Encoding::Alaw, 8), (Encoding::Adpcm, 4)];

/// Every container, encoding and rate.
fn every_spec() -> Vec<RecordingSpec> {
    let mut specs = Vec::new();
    for container in [Container::Wav, Container::Vox] {
        for (encoding, bits) in ALL {
            for sample_rate_hz in [6000, 8000, 11_025] {
                let extension = container.extension();
                let path = Some(format!("{encoding:?}-{bits}-{sample_rate_hz}.{extension}"));
                specs.push(RecordingSpec {
                    path,
                    container,
                    encoding,
                    sample_rate_hz,
                    bits,
                    channels: 1,
                    expires_days: None,
                });
            }
        }
    }
    specs
}

/// Records `samples`, as many whole chunks as there are.
fn record(fixture: &Fixture, spec: RecordingSpec, samples: &[i16]) -> PathBuf {
    let recording = wait(fixture.files.start_recording(spec)).unwrap();
    for (index, some) in samples.chunks(CHUNK_SAMPLES).enumerate() {
        let mut next =
            RecordChunk { position: (index * CHUNK_SAMPLES) as u64, chunk: Chunk::new(some), marks: Marks::default() };
        until(|| recording.queue.chunks.push(next).map_err(|back| next = back).ok());
    }
    recording.queue.finish();
    let outcome = wait(recording.done).unwrap();
    assert_eq!((outcome.samples, outcome.error), (samples.len() as u64, None));
    recording.path
}

fn tone_samples(samples: usize) -> Vec<i16> {
    tone(TONE_HZ, SAMPLE_RATE_HZ, 0.5, samples).iter().map(|sample| (sample * 32767.0).round() as i16).collect()
}

/// Noise left beside the tone: that of the samples' size, and of ADPCM's steps.
fn noise_max(encoding: Encoding, bits: u16) -> f64 {
    match (encoding, bits) {
        (Encoding::Pcm, 16) => 0.0004,
        (Encoding::Pcm, _) => 0.004,
        (Encoding::Ulaw | Encoding::Alaw, _) => 0.006,
        (Encoding::Adpcm, _) => 0.04,
    }
}

fn named(name: &str) -> PromptSource {
    PromptSource::Named { text: name.to_owned(), application: None, locale: None }
}

fn open(fixture: &Fixture, spec: &PlaylistSpec) -> Vec<i16> {
    let playlist = wait(fixture.files.open_playlist(spec)).unwrap();
    let prompts = playlist.prompts.iter().map(|prompt| match prompt {
        Prompt::Whole(samples) => samples.to_vec(),
        Prompt::Stream(stream) => play(stream),
    });
    prompts.collect::<Vec<_>>().concat()
}

#[test]
fn what_is_recorded_in_any_format_is_played_again() {
    let fixture = Fixture::new(16 << 20);
    // An odd number of samples, at each rate.
    let samples = tone_samples(8081);
    for spec in every_spec() {
        let case = spec.path.clone().unwrap();
        let path = record(&fixture, spec.clone(), &samples);
        // The format of a VOX file comes from its manifest, not from this.
        let headerless = HeaderlessFormat { encoding: Encoding::Pcm, sample_rate_hz: 8000, bits: 16 };
        let play = PlaylistSpec { prompts: vec![named(&case)], headerless, start_ms: 0, ..PlaylistSpec::default() };
        let played = open(&fixture, &play);
        assert!(played.len().abs_diff(samples.len()) <= 2, "{case}: {} samples", played.len());
        let (amplitude, rest) = judge(&played[400..4400], TONE_HZ);
        assert!((amplitude - 0.5).abs() < 0.01, "{case}: amplitude {amplitude}");
        assert!(rest < noise_max(spec.encoding, spec.bits), "{case}: {rest} besides the tone");
        let manifest = manifest(&path);
        let format = serde_json::json!({
            "container": spec.container, "encoding": spec.encoding,
            "sample_rate": spec.sample_rate_hz, "bits": spec.bits, "channels": 1,
        });
        for (key, value) in format.as_object().unwrap() {
            assert_eq!(&manifest[key], value, "{case}: {key}");
        }
        assert!(manifest.get("expires_at").is_none());
        let length = 8081.0 * f64::from(spec.sample_rate_hz) / 8000.0;
        assert!((manifest["samples"].as_f64().unwrap() - length).abs() < 1.0, "{case}");
    }
}

#[test]
fn sizes_in_headers_are_those_of_the_file() {
    let fixture = Fixture::new(1 << 20);
    for spec in every_spec() {
        let (case, container) = (spec.path.clone().unwrap(), spec.container);
        let bits = usize::from(spec.bits);
        let rate = spec.sample_rate_hz as usize;
        let path = record(&fixture, spec, &tone_samples(8160 + 81));
        let file = std::fs::read(path).unwrap();
        let data = ((8241 * rate + 4000) / 8000 * bits).div_ceil(8);
        match container {
            Container::Vox => assert_eq!(file.len(), data, "{case}"),
            Container::Wav => {
                let header = if case.starts_with("Pcm") { 44 } else { 58 };
                let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
                assert_eq!(word(header - 4), data, "{case}: samples");
                assert_eq!(word(4) + 8, file.len(), "{case}: all");
                assert_eq!(file.len(), header + data + data % 2, "{case}");
                assert_eq!(word(28), rate * bits / 8, "{case}: bytes a second");
            }
        }
    }
}

#[test]
fn eight_kilohertz_recordings_hold_the_very_samples() {
    let fixture = Fixture::new(1 << 20);
    let samples: Vec<i16> = (0..4000).map(|n: i32| (n * 7919 % 65_536 - 32_768) as i16).collect();
    let spec = |name: &str, encoding, bits| RecordingSpec {
        path: Some(name.to_owned()),
        container: Container::Vox,
        encoding,
        bits,
        ..RecordingSpec::wav("")
    };
    let mut expected = vec![0; 4000];
    g711::encode_alaw(&samples, &mut expected);
    assert_eq!(std::fs::read(record(&fixture, spec("a.vox", Encoding::Alaw, 8), &samples)).unwrap(), expected);
    g711::encode_ulaw(&samples, &mut expected);
    assert_eq!(std::fs::read(record(&fixture, spec("u.vox", Encoding::Ulaw, 8), &samples)).unwrap(), expected);
    let linear: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    assert_eq!(std::fs::read(record(&fixture, spec("l.vox", Encoding::Pcm, 16), &samples)).unwrap(), linear);
    let levels: Vec<i16> = vec![i16::MIN, -128, -1, 0, 127, 128, i16::MAX];
    let bytes = std::fs::read(record(&fixture, spec("b.vox", Encoding::Pcm, 8), &levels)).unwrap();
    assert_eq!(bytes, [0, 128, 128, 128, 128, 129, 255]);
}

#[test]
fn formats_that_do_not_exist_are_refused() {
    let fixture = Fixture::new(1 << 20);
    let wav = RecordingSpec::wav("no.wav");
    for (encoding, bits, sample_rate_hz) in [
        (Encoding::Adpcm, 8, 8000),
        (Encoding::Ulaw, 16, 8000),
        (Encoding::Alaw, 4, 8000),
        (Encoding::Pcm, 4, 8000),
        (Encoding::Pcm, 16, 22_050),
    ] {
        for container in [Container::Wav, Container::Vox] {
            let spec = RecordingSpec { container, encoding, bits, sample_rate_hz, ..wav.clone() };
            let error = wait(fixture.files.start_recording(spec)).expect_err("no such format");
            assert!(matches!(error, FileError::Format { .. }), "{error}");
        }
    }
    assert!(!fixture.directory.path().join("recordings").exists());
}

#[test]
fn a_recording_without_a_name_gets_one() {
    let fixture = Fixture::new(1 << 20);
    for container in [Container::Wav, Container::Vox] {
        let spec = RecordingSpec { path: None, container, ..RecordingSpec::wav("") };
        let recording = wait(fixture.files.start_recording(spec)).unwrap();
        let name = recording.name.to_str().unwrap();
        let (stem, extension) = name.split_once('.').unwrap();
        assert_eq!((stem.len(), extension), (8, container.extension()));
        assert!(stem.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_eq!(recording.path, fixture.directory.path().join("recordings").join(name));
        assert!(recording.path.exists());
    }
}

#[test]
fn a_directory_that_can_not_be_written_is_told() {
    let fixture = Fixture::new(1 << 20);
    // A file where the directory should be: not even root can create anything there.
    std::fs::write(fixture.directory.path().join("recordings"), b"").unwrap();
    let error = fixture.record("a.wav").expect_err("no directory");
    assert!(matches!(error, FileError::Io { .. }), "{error}");
}

#[test]
fn vox_without_a_manifest_is_read_as_the_play_says() {
    let fixture = Fixture::new(1 << 20);
    let words: Vec<u8> = (0..=255).collect();
    fixture.put("p.VOX", &words);
    let play = |headerless| {
        let prompts = vec![PromptSource::File("p.VOX".to_owned())];
        open(&fixture, &PlaylistSpec { prompts, headerless, start_ms: 0, ..PlaylistSpec::default() })
    };
    let mut linear = vec![0; 256];
    g711::decode_ulaw(&words, &mut linear);
    assert_eq!(play(HeaderlessFormat::default()), linear);
    g711::decode_alaw(&words, &mut linear);
    assert_eq!(play(HeaderlessFormat { encoding: Encoding::Alaw, ..HeaderlessFormat::default() }), linear);
    // The cache has not mixed them up.
    g711::decode_ulaw(&words, &mut linear);
    assert_eq!(play(HeaderlessFormat::default()), linear);
    let adpcm = HeaderlessFormat { encoding: Encoding::Adpcm, sample_rate_hz: 8000, bits: 4 };
    assert_eq!(play(adpcm).len(), 512);

    let prompts = vec![PromptSource::File("p.VOX".to_owned())];
    let headerless = HeaderlessFormat { bits: 16, ..HeaderlessFormat::default() };
    let error = wait(fixture.files.open_playlist(&PlaylistSpec {
        prompts,
        headerless,
        start_ms: 0,
        ..PlaylistSpec::default()
    }));
    assert!(matches!(error, Err(FileError::Unsupported { .. })), "{error:?}");

    // A manifest that is none, or is about another file, says nothing.
    for text in
        ["", "{}", "[1]", r#"{"file": "q.VOX", "container": "vox", "encoding": "pcm", "sample_rate": 8000, "bits": 8}"#]
    {
        fixture.put("p.VOX.json", text.as_bytes());
        assert_eq!(play(HeaderlessFormat::default()), linear, "{text}");
    }
}

#[test]
fn the_manifest_tells_the_container_whatever_the_name() {
    let fixture = Fixture::new(1 << 20);
    let samples = tone_samples(1600);
    let vox = RecordingSpec { container: Container::Vox, ..RecordingSpec::wav("bare") };
    record(&fixture, vox, &samples);
    record(&fixture, RecordingSpec::wav("headed.vox"), &samples);
    for name in ["bare", "headed.vox"] {
        let spec = PlaylistSpec { prompts: vec![named(name)], ..PlaylistSpec::default() };
        assert!(open(&fixture, &spec) == samples, "{name}");
    }
}

#[test]
fn playing_can_begin_anywhere() {
    let fixture = Fixture::new(1 << 20);
    let samples: Vec<i16> = (0..16_000).map(|n: i32| (n * 7919 % 65_536 - 32_768) as i16).collect();
    let play = |name: &str, start_ms| {
        let prompts = vec![named(name), named("tail.wav")];
        open(&fixture, &PlaylistSpec { prompts, start_ms, ..PlaylistSpec::default() })
    };
    record(&fixture, RecordingSpec::wav("tail.wav"), &[1; 7]);
    for spec in every_spec() {
        let (name, rate_hz) = (spec.path.clone().unwrap(), spec.sample_rate_hz);
        record(&fixture, spec, &samples);
        let whole = play(&name, 0);
        for start_ms in [1, 500, 1999] {
            let part = play(&name, start_ms);
            let expected = &whole[start_ms as usize * 8..];
            assert!(part.len().abs_diff(expected.len()) <= 2, "{name} from {start_ms}: {}", part.len());
            // A resampler that begins in the middle has no past: its first samples differ.
            if rate_hz == SAMPLE_RATE_HZ {
                assert!(part == expected, "{name} from {start_ms}");
            }
        }
        for start_ms in [2000, 2001, u32::MAX] {
            assert_eq!(play(&name, start_ms), [1; 7], "{name} from {start_ms}");
        }
    }
    // Nothing at all: a play of this ends at once.
    let spec = PlaylistSpec { prompts: vec![named("tail.wav")], start_ms: 1, ..PlaylistSpec::default() };
    assert!(wait(fixture.files.open_playlist(&spec)).unwrap().prompts.is_empty());
}

#[test]
fn a_long_adpcm_prompt_is_entered_in_the_middle() {
    let fixture = Fixture::new(1 << 20);
    let bytes: Vec<u8> = (0..8000u64 * 130 / 2).map(|n| (n * n % 251) as u8).collect();
    fixture.put("long.vox", &bytes);
    let headerless = HeaderlessFormat { encoding: Encoding::Adpcm, sample_rate_hz: 8000, bits: 4 };
    let play = |start_ms| {
        let prompts = vec![PromptSource::File("long.vox".to_owned())];
        open(&fixture, &PlaylistSpec { prompts, headerless, start_ms, ..PlaylistSpec::default() })
    };
    let whole = play(0);
    assert_eq!(whole.len(), 8000 * 130);
    assert!(play(129_000) == whole[8000 * 129..]);
}

#[test]
fn adpcm_in_wav_is_read_under_both_tags_and_in_one_channel_only() {
    let fixture = Fixture::new(1 << 20);
    let codes: Vec<u8> = (0..1000u32).map(|n| (n * n % 251) as u8).collect();
    let file = |tag: u16, channels: u16| {
        let mut format = Vec::new();
        for half in [tag, channels, 8000, 0, 4000, 0, 1, 4, 0] {
            format.extend_from_slice(&half.to_le_bytes());
        }
        riff(&[(b"fmt ", &format), (b"data", &codes)])
    };
    fixture.put("a.wav", &file(0x10, 1));
    fixture.put("b.wav", &file(0x17, 1));
    fixture.put("stereo.wav", &file(0x17, 2));
    let samples = fixture.whole("a.wav");
    assert_eq!((samples.len(), &samples), (2000, &fixture.whole("b.wav")));
    assert!(matches!(fixture.open("stereo.wav"), Err(FileError::Unsupported { .. })));
}

#[test]
fn g726_in_wav_is_read_under_both_tags_and_in_one_channel_only() {
    let fixture = Fixture::new(1 << 20);
    let file = |tag: u16, channels: u16, codes: &[u8]| {
        let mut format = Vec::new();
        for half in [tag, channels, 8000, 0, 2000, 0, 1, 2, 0] {
            format.extend_from_slice(&half.to_le_bytes());
        }
        riff(&[(b"fmt ", &format), (b"data", codes)])
    };
    fixture.put("a.wav", &file(0x45, 1, &G726_TONE));
    fixture.put("b.wav", &file(0x64, 1, &G726_TONE));
    fixture.put("stereo.wav", &file(0x45, 2, &G726_TONE));
    let samples = fixture.whole("a.wav");
    assert_eq!((samples.len(), &samples), (800, &fixture.whole("b.wav")));
    let (amplitude, rest) = judge(&samples[160..], 440.0);
    assert!((amplitude - 0.5).abs() < 0.05, "amplitude {amplitude}");
    assert!(rest < 0.15, "{rest} besides the tone");
    assert!(matches!(fixture.open("stereo.wav"), Err(FileError::Unsupported { .. })));
    // In the middle, what follows depends on what was before.
    let long = file(0x45, 1, &G726_TONE.repeat(60));
    fixture.put("long.wav", &long);
    let play = |start_ms| {
        let prompts = vec![PromptSource::File("long.wav".to_owned())];
        open(&fixture, &PlaylistSpec { prompts, start_ms, ..PlaylistSpec::default() })
    };
    let whole = play(0);
    assert_eq!(whole.len(), 48_000);
    for start_ms in [1, 33, 5_000] {
        let part = play(start_ms);
        assert!(whole.len() - part.len() == start_ms as usize * 8 && whole.ends_with(&part), "from {start_ms}");
    }
}

/// 0.1 s of 440 Hz at half scale: what `ffmpeg -f lavfi -i sine=440:r=8000:d=0.1,volume=12dB -c:a g726 -b:a 16k` makes.
const G726_TONE: [u8; 200] = [
    0x15, 0x55, 0x5A, 0xAA, 0xB1, 0x44, 0x03, 0xAE, 0xFF, 0x14, 0x40, 0x3B, 0xAF, 0xF1, 0x11, 0x03, 0xBB, 0xBF, 0x05,
    0x04, 0xCE, 0xEE, 0xCC, 0x44, 0x77, 0xFE, 0xE2, 0x0D, 0x04, 0xCF, 0xAF, 0x8F, 0x41, 0x07, 0xFE, 0xBF, 0xC1, 0x41,
    0x32, 0x2E, 0x20, 0xC4, 0x1C, 0x22, 0xFE, 0x0D, 0x1D, 0xC2, 0x22, 0x3C, 0x04, 0x77, 0x38, 0x88, 0xF7, 0x13, 0x73,
    0xB2, 0xFC, 0x4D, 0x70, 0x22, 0xFF, 0xF7, 0x40, 0x7F, 0x22, 0xF3, 0x00, 0x4C, 0x3F, 0xB2, 0xC0, 0x05, 0x33, 0xFA,
    0xF2, 0x01, 0xC4, 0xFC, 0xEC, 0x83, 0x1C, 0x73, 0xCE, 0xF3, 0xC1, 0xDD, 0xFF, 0xF8, 0xF1, 0xDD, 0x33, 0xFE, 0x23,
    0x00, 0x77, 0xCF, 0xEF, 0x33, 0x40, 0x73, 0xFB, 0x2C, 0x00, 0x10, 0xCB, 0xFA, 0x0F, 0x74, 0x30, 0xE2, 0x23, 0xC7,
    0x10, 0x32, 0x2F, 0xFC, 0x77, 0x40, 0x8E, 0xFF, 0xC1, 0xC4, 0x3F, 0xFE, 0xCC, 0x34, 0x00, 0xF8, 0xBC, 0xF1, 0x13,
    0x7C, 0xFB, 0xF3, 0xD0, 0x01, 0xE3, 0xFB, 0x19, 0xD3, 0x02, 0xFF, 0x8C, 0x01, 0xDF, 0x3F, 0x8F, 0xC0, 0x07, 0x3C,
    0x2E, 0x0F, 0xD7, 0x03, 0x6E, 0x3F, 0xC7, 0x77, 0x7F, 0x88, 0x8F, 0x4D, 0x03, 0x3B, 0xBF, 0x21, 0x1C, 0x73, 0xBF,
    0xE3, 0x17, 0x1D, 0xE3, 0xFE, 0xDC, 0x05, 0xF0, 0x8B, 0xFC, 0xC5, 0xD3, 0x0E, 0xF8, 0xE7, 0x04, 0x03, 0xFE, 0x23,
    0xC1, 0xDD, 0xCF, 0xEF, 0xCF, 0x10, 0x1C, 0xFE, 0xFF, 0x31,
];

/// Raw 16-bit samples at the file's own rate, as another program decodes it. `None` if there is no such program.
fn decoded_by(program: &str, arguments: &[&str]) -> Option<Vec<i16>> {
    let output = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect())
}

/// ffmpeg for every WAV file, sox for what it knows of the rest.
#[test]
#[ignore = "needs ffmpeg and sox"]
fn other_programs_read_what_is_recorded() {
    let fixture = Fixture::new(16 << 20);
    let samples = tone_samples(8081);
    for spec in every_spec() {
        let case = spec.path.clone().unwrap();
        let path = record(&fixture, spec.clone(), &samples);
        let path = path.to_str().unwrap();
        let rate = spec.sample_rate_hz.to_string();
        let decoded = match (spec.container, spec.encoding) {
            (Container::Wav, _) => {
                decoded_by("ffmpeg", &["-v", "error", "-xerror", "-i", path, "-ar", "8000", "-f", "s16le", "-"])
            }
            (Container::Vox, Encoding::Adpcm) => decoded_by(
                "sox",
                &["-t", "vox", "-r", &rate, path, "-r", "8000", "-t", "raw", "-e", "signed", "-b", "16", "-"],
            ),
            (Container::Vox, encoding) => {
                let encoding = match (encoding, spec.bits) {
                    (Encoding::Ulaw, _) => "mu-law",
                    (Encoding::Alaw, _) => "a-law",
                    (Encoding::Pcm, 8) => "unsigned-integer",
                    (Encoding::Pcm | Encoding::Adpcm, _) => "signed-integer",
                };
                let bits = spec.bits.to_string();
                let of = ["-t", "raw", "-r", &rate, "-e", encoding, "-b", &bits, "-c", "1", path];
                let to = ["-r", "8000", "-t", "raw", "-e", "signed", "-b", "16", "-"];
                decoded_by("sox", &[&of[..], &to].concat())
            }
        };
        let decoded = decoded.expect("the program is installed");
        assert!(decoded.len().abs_diff(samples.len()) <= 40, "{case}: {} samples", decoded.len());
        let (amplitude, rest) = judge(&decoded[400..4400], TONE_HZ);
        assert!((amplitude - 0.5).abs() < 0.01, "{case}: amplitude {amplitude}");
        assert!(rest < noise_max(spec.encoding, spec.bits), "{case}: {rest} besides the tone");
    }
}
