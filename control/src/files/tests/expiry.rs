//! Recordings whose time is over.

use jiff::{SignedDuration, Timestamp};

use super::*;

fn record_for(fixture: &Fixture, name: &str, expires_days: Option<u32>) -> Recording {
    wait(fixture.files.start_recording(RecordingSpec { expires_days, ..RecordingSpec::wav(name) })).unwrap()
}

/// A recording that has ended, with a sample in it.
fn recorded_for(fixture: &Fixture, name: &str, expires_days: Option<u32>) -> PathBuf {
    let recording = record_for(fixture, name, expires_days);
    recording.queue.chunks.push(chunk(0, 1)).unwrap();
    recording.queue.finish();
    assert_eq!(wait(recording.done).unwrap().error, None);
    recording.path
}

/// What a sweep removes that begins after so many hours.
fn sweep(fixture: &Fixture, hours: i64) -> u64 {
    let now = Timestamp::now() + SignedDuration::from_hours(hours);
    let outcome = wait(fixture.files.sweep(now)).unwrap();
    assert_eq!(outcome.failed, 0);
    outcome.removed
}

fn exist(path: &Path) -> (bool, bool) {
    let mut manifest = path.as_os_str().to_owned();
    manifest.push(".json");
    (path.exists(), Path::new(&manifest).exists())
}

#[test]
fn each_recording_goes_in_its_time_with_its_manifest() {
    let fixture = Fixture::new(1 << 20);
    assert_eq!(sweep(&fixture, 1_000_000), 0, "there are no recordings yet");
    let one = recorded_for(&fixture, "one.wav", Some(1));
    let two = recorded_for(&fixture, "deep/er/two.wav", Some(2));
    let capped = recorded_for(&fixture, "deep/capped.wav", Some(u32::MAX));
    let ever = [recorded_for(&fixture, "ever.wav", None), recorded_for(&fixture, "deep/zero.wav", Some(0))];
    assert_eq!(sweep(&fixture, 23), 0);
    assert_eq!(exist(&one), (true, true));
    assert_eq!(sweep(&fixture, 25), 1);
    assert_eq!((exist(&one), exist(&two)), ((false, false), (true, true)));
    assert_eq!(sweep(&fixture, 49), 1);
    assert_eq!((exist(&two), exist(&capped)), ((false, false), (true, true)));
    assert_eq!(sweep(&fixture, 9998 * 24), 0);
    assert_eq!(sweep(&fixture, 9999 * 24 + 1), 1);
    assert_eq!(sweep(&fixture, 50_000_000), 0);
    for path in ever {
        assert_eq!(exist(&path), (true, true));
    }
}

#[test]
fn what_is_being_recorded_stays() {
    let fixture = Fixture::new(1 << 20);
    let recording = record_for(&fixture, "live.wav", Some(1));
    recording.queue.chunks.push(chunk(0, 1)).unwrap();
    assert_eq!(sweep(&fixture, 100), 0);
    assert_eq!(exist(&recording.path), (true, true));
    recording.queue.finish();
    wait(recording.done).unwrap();
    assert_eq!(sweep(&fixture, 100), 1);
}

#[test]
fn nothing_else_is_touched() {
    let fixture = Fixture::new(1 << 20);
    let root = fixture.directory.path().join("recordings");
    let outside = fixture.directory.path().join("outside");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    let expired =
        |file: &str| format!(r#"{{"file": "{file}", "state": "complete", "expires_at": "2001-01-01T00:00:00Z"}}"#);
    let put = |path: PathBuf, text: &str| std::fs::write(path, text).unwrap();
    // Over its time, but not below the root: reached by links only.
    put(outside.join("a.wav"), "");
    put(outside.join("a.wav.json"), &expired("a.wav"));
    symlink(&outside, root.join("link")).unwrap();
    symlink(outside.join("a.wav.json"), root.join("a.wav.json")).unwrap();
    put(root.join("a.wav"), "");
    // A manifest about a link, a directory, another file, a path, no file; one that is none, one without a time.
    symlink(outside.join("a.wav"), root.join("linked.wav")).unwrap();
    put(root.join("linked.wav.json"), &expired("linked.wav"));
    put(root.join("sub.json"), &expired("sub"));
    put(root.join("b.wav"), "");
    put(root.join("c.wav.json"), &expired("b.wav"));
    put(root.join("d.wav.json"), &expired("../outside/a.wav"));
    put(root.join(".json"), &expired(""));
    put(root.join("e.wav"), "");
    put(root.join("e.wav.json"), "{\"file\": \"e.wav\", \"expires_at\": \"soon\"}");
    put(root.join("f.wav"), "");
    put(root.join("f.wav.json"), "expires_at");
    put(root.join("g.wav"), "");
    put(root.join("g.wav.json"), &(expired("g.wav") + &" ".repeat(600_000)));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo.wav.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    // And one that is to go, so that the sweep has been there.
    put(root.join("sub/gone.vox"), "");
    put(root.join("sub/gone.vox.json"), &expired("gone.vox"));
    // Its recording is gone already.
    put(root.join("sub/half.vox.json"), &expired("half.vox"));
    let list = |directory: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = [list(&root), list(&outside)];
    assert_eq!(sweep(&fixture, 0), 2);
    // The one manifest whose name is nothing but the extension is about no file.
    assert_eq!([list(&root), list(&outside)], before);
    assert_eq!(list(&root.join("sub")).len(), 0);
}

#[test]
fn a_sweep_goes_through_more_than_it_does_at_once() {
    let fixture = Fixture::new(1 << 20);
    let root = fixture.directory.path().join("recordings");
    for directory in 0..20 {
        let directory = format!("{directory}");
        std::fs::create_dir_all(root.join(&directory)).unwrap();
        for index in 0..20 {
            let name = format!("{index}.vox");
            let manifest = format!(r#"{{"file": "{name}", "expires_at": "2001-01-01T00:00:00Z"}}"#);
            std::fs::write(root.join(&directory).join(&name), b"").unwrap();
            std::fs::write(root.join(&directory).join(name + ".json"), manifest).unwrap();
        }
    }
    assert_eq!(sweep(&fixture, 0), 400);
}

#[test]
fn a_server_sweeps_by_itself() {
    let mut fixture = Fixture::new(1 << 20);
    let root = fixture.directory.path().join("recordings");
    std::fs::create_dir_all(&root).unwrap();
    for round in 0..2 {
        std::fs::write(root.join("a.vox"), b"").unwrap();
        let manifest = r#"{"file": "a.vox", "expires_at": "2001-01-01T00:00:00Z"}"#;
        std::fs::write(root.join("a.vox.json"), manifest).unwrap();
        if round == 0 {
            // One that sweeps at once, and often.
            let tts = TtsConfig { command: Some(vec![]), time_limit: PATIENCE, cache_bytes_max: 0 };
            let config = Fixture::config_in(fixture.directory.path(), 0, tts);
            fixture.files =
                MediaFiles::start(FilesConfig { sweep_every: Some(Duration::from_millis(20)), ..config }).unwrap();
        }
        until(|| (exist(&root.join("a.vox")) == (false, false)).then_some(()));
    }
}

#[test]
fn what_an_earlier_server_was_killed_in_is_ended() {
    let fixture = Fixture::new(1 << 20);
    let root = fixture.directory.path().join("recordings");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    let manifest = |name: &str, state: &str, channels: u16| {
        format!(
            r#"{{"file": "{name}", "state": "{state}", "started_at": "2026-01-01T00:00:00Z", "container": "wav",
            "encoding": "pcm", "sample_rate": 8000, "bits": 16, "channels": {channels}, "samples": 0, "gaps": []}}"#
        )
    };
    // What a header says that was refreshed some time before the end: nothing.
    let put = |name: &str, state: &str, channels: u16| {
        std::fs::write(root.join(name), vec![0; 44 + 4 * 1000 + 1]).unwrap();
        let plain = Path::new(name).file_name().unwrap().to_str().unwrap();
        std::fs::write(root.join(format!("{name}.json")), manifest(plain, state, channels)).unwrap();
    };
    put("sub/two.wav", "recording", 2);
    put("one.wav", "recording", 1);
    put("whole.wav", "complete", 2);
    // Still being written, by this server or another.
    put("live.wav", "recording", 2);
    let live = std::fs::File::open(root.join("live.wav")).unwrap();
    rustix::fs::flock(&live, rustix::fs::FlockOperation::LockExclusive).unwrap();
    // Nothing is written through a link.
    std::fs::write(fixture.directory.path().join("outside.wav"), b"outside").unwrap();
    std::os::unix::fs::symlink(fixture.directory.path().join("outside.wav"), root.join("link.wav")).unwrap();
    std::fs::write(root.join("link.wav.json"), manifest("link.wav", "recording", 2)).unwrap();
    std::fs::write(root.join("torn.wav.json"), r#"{"file": "torn.wav", "state": "recording"}"#).unwrap();
    std::fs::write(root.join("torn.wav"), b"RIFF").unwrap();

    let outcome = wait(fixture.files.sweep(Timestamp::now())).unwrap();
    assert_eq!((outcome.ended, outcome.removed, outcome.failed), (2, 0, 0));
    let told = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(root.join(format!("{name}.json"))).unwrap()).unwrap()
    };
    for (name, channels, samples) in [("sub/two.wav", 2, 1000), ("one.wav", 1, 2000)] {
        let told = told(name);
        assert_eq!((&told["state"], &told["samples"]), (&"cut_off".into(), &samples.into()), "{told}");
        assert!(told["ended_at"].is_string() && told["error"].is_string() && told["started_at"].is_string(), "{told}");
        let bytes = std::fs::read(root.join(name)).unwrap();
        let hash: String =
            <sha2::Sha256 as sha2::Digest>::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told["sha256"].as_str(), (channels == 2).then_some(hash.as_str()));
        let wav = hound::WavReader::open(root.join(name)).unwrap();
        assert_eq!((wav.spec().channels, u64::from(wav.duration())), (channels, samples));
    }
    assert_eq!(told("whole.wav")["state"], "complete");
    assert_eq!(told("live.wav")["state"], "recording");
    assert_eq!(std::fs::read(fixture.directory.path().join("outside.wav")).unwrap(), b"outside");
    assert_eq!(wait(fixture.files.sweep(Timestamp::now())).unwrap().ended, 0, "once");
    drop(live);
    assert_eq!(wait(fixture.files.sweep(Timestamp::now())).unwrap().ended, 1);
    assert_eq!(told("live.wav")["state"], "cut_off");
}
