//! Prompts and recordings at 16 and 48 kHz.

use super::*;

impl Fixture {
    /// What is played of these files on a clock of that rate.
    fn at(&self, rate: Rate, names: &[&str]) -> Playlist {
        let files = PlaylistSpec::files(names.iter().map(|name| (*name).to_owned()));
        *wait(self.files.open_playlist(&PlaylistSpec { rate, ..files })).unwrap()
    }
}

fn samples(prompt: &Prompt) -> Vec<i16> {
    match prompt {
        Prompt::Whole(samples) => samples.to_vec(),
        Prompt::Stream(stream) => play(stream),
    }
}

fn put_tone(fixture: &Fixture, name: &str, rate_hz: u32, hz: f64, ms: u32) {
    let tone = tone(hz, rate_hz, 0.5, (rate_hz / 1000 * ms) as usize);
    fixture.put(name, &Wav::new(Kind::Pcm(16), 1, rate_hz, &tone).bytes());
}

#[test]
fn a_prompt_has_the_lowest_rate_that_holds_it_and_no_more_than_its_clock() {
    let fixture = Fixture::new(1 << 20);
    for (file_hz, enough) in [
        (6_000, Rate::Narrow),
        (8_000, Rate::Narrow),
        (11_025, Rate::Wide),
        (16_000, Rate::Wide),
        (22_050, Rate::Full),
        (44_100, Rate::Full),
        (48_000, Rate::Full),
        (96_000, Rate::Full),
    ] {
        let name = format!("{file_hz}.wav");
        put_tone(&fixture, &name, file_hz, 1_000.0, 200);
        for clock in Rate::ALL {
            let playlist = fixture.at(clock, &[&name]);
            assert_eq!(playlist.rate, enough.min(clock), "{file_hz} on {clock:?}");
            let samples = samples(&playlist.prompts[0]);
            let ms = samples.len() as f64 * 1000.0 / f64::from(playlist.rate.hz());
            assert!((199.0..=201.0).contains(&ms), "{file_hz} on {clock:?}: {ms}");
            let middle = &samples[samples.len() / 4..][..samples.len() / 2];
            let (amplitude, rest) = judge_at(playlist.rate.hz(), middle, 1_000.0);
            assert!((0.49..0.51).contains(&amplitude), "{file_hz} on {clock:?}: {amplitude}");
            assert!(rest < 0.02, "{file_hz} on {clock:?}: {rest}");
        }
    }
}

#[test]
fn what_lies_above_a_clock_leaves_no_image_and_is_there_on_one_that_holds_it() {
    let fixture = Fixture::new(1 << 20);
    put_tone(&fixture, "high.wav", 48_000, 12_000.0, 500);
    put_tone(&fixture, "middle.wav", 16_000, 5_000.0, 500);
    for (name, hz, least) in [("high.wav", 12_000.0, Rate::Full), ("middle.wav", 5_000.0, Rate::Wide)] {
        for clock in Rate::ALL {
            let playlist = fixture.at(clock, &[name]);
            let samples = samples(&playlist.prompts[0]);
            let middle = &samples[samples.len() / 10..samples.len() * 9 / 10];
            let (amplitude, rest) = judge_at(playlist.rate.hz(), middle, hz);
            if clock >= least {
                assert!((0.49..0.51).contains(&amplitude) && rest < 0.002, "{name} on {clock:?}: {amplitude}, {rest}");
            } else {
                // -60 dB of what was there.
                assert!(rest < 0.000_5, "{name} on {clock:?}: {rest}");
            }
        }
    }
}

#[test]
fn the_prompts_of_one_play_have_the_rate_of_the_best_of_them() {
    let fixture = Fixture::new(1 << 20);
    put_tone(&fixture, "a.wav", 8_000, 500.0, 100);
    put_tone(&fixture, "b.wav", 16_000, 5_000.0, 100);
    put_tone(&fixture, "c.wav", 48_000, 12_000.0, 100);
    for (clock, names, rate) in [
        (Rate::Full, &["a.wav", "a.wav"][..], Rate::Narrow),
        (Rate::Full, &["a.wav", "b.wav", "a.wav"], Rate::Wide),
        (Rate::Full, &["a.wav", "b.wav", "c.wav"], Rate::Full),
        (Rate::Wide, &["a.wav", "b.wav", "c.wav"], Rate::Wide),
        (Rate::Narrow, &["a.wav", "b.wav", "c.wav"], Rate::Narrow),
    ] {
        let playlist = fixture.at(clock, names);
        assert_eq!(playlist.rate, rate, "{names:?} on {clock:?}");
        for prompt in &playlist.prompts {
            assert_eq!(samples(prompt).len(), rate.hz() as usize / 10, "{names:?} on {clock:?}");
        }
        let (amplitude, _) = judge_at(rate.hz(), &samples(&playlist.prompts[0]), 500.0);
        assert!((0.48..0.52).contains(&amplitude), "{names:?} on {clock:?}: {amplitude}");
    }
}

#[test]
fn what_is_held_in_memory_is_bounded_in_samples_whatever_the_rate() {
    let fixture = Fixture::new(16 << 20);
    put_tone(&fixture, "short.wav", 48_000, 1_000.0, 19_000);
    put_tone(&fixture, "long.wav", 48_000, 1_000.0, 21_000);
    assert!(matches!(fixture.at(Rate::Full, &["short.wav"]).prompts[0], Prompt::Whole(_)));
    assert!(matches!(fixture.at(Rate::Narrow, &["long.wav"]).prompts[0], Prompt::Whole(_)));
    let held = fixture.files.cache_stats().bytes;
    assert_eq!(held, 2 * (48_000 * 19 + 8_000 * 21));
    let long = fixture.at(Rate::Full, &["long.wav"]);
    let Prompt::Stream(stream) = &long.prompts[0] else { panic!("it is held as a whole") };
    assert_eq!(stream.chunks.capacity() * CHUNK_SAMPLES, 2 * 48_000, "two seconds ahead");
    assert!(stream.chunks.is_full());
    assert_eq!(play(stream).len(), 48_000 * 21);
    assert_eq!(fixture.files.cache_stats().bytes, held);
}

#[test]
fn a_wide_recording_is_written_and_counted_at_its_rate() {
    for rate in [Rate::Wide, Rate::Full] {
        let fixture = Fixture::new(1 << 20);
        let spec = RecordingSpec { sample_rate_hz: rate.hz(), ..RecordingSpec::wav("wide.wav") };
        let recording = wait(fixture.files.start_recording(spec)).unwrap();
        let queue = &recording.queue;
        assert_eq!(queue.rate, rate);
        assert_eq!(queue.chunks.capacity() * CHUNK_SAMPLES, 5 * rate.hz() as usize, "five seconds");
        // A second of a tone, of which 100 ms are lost in the middle.
        let hz = f64::from(rate.hz()) / 4.0 - 1_000.0;
        let tone: Vec<i16> =
            tone(hz, rate.hz(), 0.5, rate.hz() as usize).iter().map(|sample| (sample * 32_768.0) as i16).collect();
        for (samples, position) in tone.chunks(CHUNK_SAMPLES).zip((0..).step_by(CHUNK_SAMPLES)) {
            if !(u64::from(rate.hz()) / 2..u64::from(rate.hz()) * 6 / 10).contains(&position) {
                let chunk = RecordChunk { position, chunk: Chunk::new(samples), marks: Marks::default() };
                queue.chunks.push(chunk).unwrap();
            }
        }
        queue.finish();
        let outcome = wait(recording.done).unwrap();
        let gaps = vec![Gap { at_ms: 500, ms: 100 }];
        assert_eq!(outcome, RecordingOutcome { samples: 8_000, gaps, ..RecordingOutcome::default() });
        let mut reader = hound::WavReader::open(&recording.path).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().bits_per_sample), (rate.hz(), 16));
        let written: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        let half = rate.hz() as usize / 2;
        assert_eq!(written.len(), 2 * half);
        assert_eq!(written[..half], tone[..half]);
        assert!(written[half..half * 12 / 10].iter().all(|sample| *sample == 0));
        assert_eq!(written[half * 12 / 10..], tone[half * 12 / 10..]);
        let manifest = manifest(&recording.path);
        assert_eq!((&manifest["sample_rate"], &manifest["samples"]), (&rate.hz().into(), &rate.hz().into()));
    }
}

#[test]
fn a_bare_wide_recording_is_played_as_its_manifest_says() {
    let fixture = Fixture::new(1 << 20);
    let spec = RecordingSpec {
        container: Container::Vox,
        encoding: Encoding::Ulaw,
        bits: 8,
        sample_rate_hz: 16_000,
        ..RecordingSpec::wav("bare.vox")
    };
    let recording = wait(fixture.files.start_recording(spec)).unwrap();
    let tone: Vec<i16> = tone(5_000.0, 16_000, 0.5, 16_000).iter().map(|sample| (sample * 32_768.0) as i16).collect();
    for (samples, position) in tone.chunks(CHUNK_SAMPLES).zip((0..).step_by(CHUNK_SAMPLES)) {
        let chunk = RecordChunk { position, chunk: Chunk::new(samples), marks: Marks::default() };
        recording.queue.chunks.push(chunk).unwrap();
    }
    recording.queue.finish();
    assert_eq!(wait(recording.done).unwrap().error, None);
    let text = recording.path.to_string_lossy().into_owned();
    let named = PromptSource::Named { text, application: None, locale: None };
    let spec = PlaylistSpec { prompts: vec![named], rate: Rate::Full, ..PlaylistSpec::default() };
    let playlist = wait(fixture.files.open_playlist(&spec)).unwrap();
    assert_eq!(playlist.rate, Rate::Wide);
    let (amplitude, _) = judge_at(16_000, &samples(&playlist.prompts[0]), 5_000.0);
    assert!((0.48..0.52).contains(&amplitude), "{amplitude}");
}
