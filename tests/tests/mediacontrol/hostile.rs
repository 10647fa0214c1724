//! Bad input: files that lie, disks that are full, subscribers that never read.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ringbridge_tests::audio::tone;
use ringbridge_tests::http;
use ringbridge_tests::virtual_time::Voice;
use serde_json::{Value, json};

use crate::http::{Case, Script};
use crate::load::nothing_in_use;
use crate::rig::{Leg, Rig, text};
use crate::row::{Plain, Row};

pub(crate) const REAL: &[Case] = &[
    ("hostile::a_subscriber_that_never_reads", never_reads),
    ("hostile::a_flood_of_half_requests", half_requests),
    ("hostile::bodies_without_end_or_sense", bodies),
];

pub(crate) fn rows() -> Vec<Row> {
    let ids = [
        "0x1",
        "-0",
        "+1",
        " ",
        "1.0",
        "1e3",
        "4294967296",
        "99999999999999999999",
        "１６７７７２１７",
        "conn-1-1-1",
        "util-1",
        "16777217;",
        "null",
        "true",
        "\u{0}",
        "../1",
    ];
    let ids = ids.into_iter().enumerate().flat_map(|(number, id)| {
        ["Play", "StopMediaOperation", "DeleteConnection", "JoinConference"].into_iter().map(move |action| {
            Row::new(format!("hostile::id_{number:02}_of_{action}"), move |rig| {
                rig.connect();
                let params = json!({"ConnectionId": id, "Prompt1": "a.wav", "ConferenceId": if action == "JoinConference" { "16777218" } else { "" }});
                let code = rig.code(action, params);
                // What is nothing but blanks may count as absent.
                assert!(code == 22 || (id.trim().is_empty() && code == 26), "{id:?}: {code}");
            })
        })
    });
    let types = [json!([1]), json!({"a": 1}), json!(1.5), json!(-1), json!(u64::MAX), json!("x"), json!(true)];
    let numbers = [
        ("CreateConnection", "MediaTxPort", json!({"MediaTxIP": "10.1.0.1"})),
        ("Play", "Volume", json!({"ConnectionId": "$A", "Prompt1": "a.wav"})),
        ("Play", "CommandTimeout", json!({"ConnectionId": "$A", "Prompt1": "a.wav"})),
        ("PlayTone", "Frequency1", json!({"ConnectionId": "$A"})),
        ("Record", "Expires", json!({"ConnectionId": "$A"})),
        ("ReserveConnection", "MmsId", json!({})),
    ];
    let types = numbers.into_iter().flat_map(move |(action, name, base)| {
        types.clone().into_iter().enumerate().map(move |(number, value)| {
            let mut params = base.clone();
            params[name] = value.clone();
            let negative = value == json!(-1) && name == "Volume";
            Row::new(format!("hostile::{action}_{name}_of_type_{number}"), move |rig| {
                rig.tone("a.wav", 1000, 100);
                let leg = rig.connect();
                rig.name("A", &leg.id);
                let code = rig.code(action, params);
                assert_eq!(code, if negative { 1 } else { 27 }, "{name}: {value}");
            })
        })
    });
    let rows: [Plain; 14] = [
        ("unknown_parameters_are_ignored", unknown_parameters),
        ("long_texts", long_texts),
        ("a_prompt_behind_a_symlink_out", symlink_out),
        ("a_directory_behind_a_symlink_out", directory_out),
        ("a_recording_behind_a_symlink_out", recording_out),
        ("a_prompt_that_is_a_directory", directory),
        ("a_prompt_that_is_a_fifo", fifo),
        ("an_empty_wav", empty),
        ("a_truncated_wav_plays_what_is_there", truncated),
        ("a_wav_that_claims_4_gib", four_gib),
        ("a_wav_of_noise", noise),
        ("a_wav_of_no_known_format", unknown_format),
        ("a_read_only_directory", read_only),
        ("a_disk_that_gets_full", full_disk),
    ];
    let rows = rows.into_iter().map(|(name, run)| Row::new(format!("hostile::{name}"), run));
    ids.chain(types).chain(rows).collect()
}

fn unknown_parameters(rig: &mut Rig) {
    let mut params = json!({"MediaTxIP": "10.1.0.1", "MediaTxPort": 4000});
    for number in 0..500 {
        params[format!("Unknown{number}")] = json!({"deep": [[[[number]]]]});
    }
    assert_eq!(rig.code("CreateConnection", params), 0);
}

fn long_texts(rig: &mut Rig) {
    rig.tone("a.wav", 1000, 100);
    let leg = rig.connect();
    let long = "x".repeat(100_000);
    assert_eq!(rig.code("Play", json!({"ConnectionId": long, "Prompt1": "a.wav"})), 22);
    assert!([8, 27, 30, 35].contains(&rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": long}))));
    assert!([27, 30].contains(&rig.code("Record", json!({"ConnectionId": leg.id, "Filename": format!("{long}.wav")}))));
    // State is the script's own.
    let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "a.wav", "State": long}));
    assert_eq!(rig.end(&play).text("State").len(), 100_000);
}

fn audio_dir(rig: &Rig) {
    fs::create_dir_all(rig.server.prompt("")).expect("a directory");
}

fn symlink_out(rig: &mut Rig) {
    audio_dir(rig);
    let outside = tempfile::tempdir().expect("a directory");
    ringbridge_tests::audio::write_wav(&outside.path().join("secret.wav"), &[1000; 800]);
    std::os::unix::fs::symlink(outside.path().join("secret.wav"), rig.server.prompt("a.wav")).expect("linked");
    let leg = rig.connect();
    assert_eq!(rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": "a.wav"})), 30);
}

fn directory_out(rig: &mut Rig) {
    audio_dir(rig);
    let outside = tempfile::tempdir().expect("a directory");
    ringbridge_tests::audio::write_wav(&outside.path().join("en-US/secret.wav"), &[1000; 800]);
    std::os::unix::fs::symlink(outside.path(), rig.server.prompt("ivr")).expect("linked");
    rig.application = Some("ivr".to_owned());
    let leg = rig.connect();
    for prompt in ["secret.wav", "ivr/en-US/secret.wav"] {
        assert_eq!(rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": prompt})), 30, "{prompt}");
    }
    // Neither application nor locale lead out.
    rig.application = Some("../../..".to_owned());
    rig.locale = Some("..".to_owned());
    assert!([27, 30].contains(&rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": "etc/hosts.wav"}))));
}

fn recording_out(rig: &mut Rig) {
    let outside = tempfile::tempdir().expect("a directory");
    let link = rig.server.recording("out");
    fs::create_dir_all(link.parent().expect("a parent")).expect("a directory");
    std::os::unix::fs::symlink(outside.path(), link).expect("linked");
    let leg = rig.connect();
    assert_eq!(rig.code("Record", json!({"ConnectionId": leg.id, "Filename": "out/a.wav"})), 30);
    assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 0, "nothing was written there");
}

fn directory(rig: &mut Rig) {
    fs::create_dir_all(rig.server.prompt("a.wav")).expect("a directory");
    let leg = rig.connect();
    assert!([27, 30].contains(&rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": "a.wav"}))));
}

fn fifo(rig: &mut Rig) {
    audio_dir(rig);
    let made = Command::new("mkfifo").arg(rig.server.prompt("a.wav")).status().expect("mkfifo");
    assert!(made.success());
    let leg = rig.connect();
    // Nobody writes to it: it must not be waited for.
    assert!([27, 30].contains(&rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": "a.wav"}))));
}

/// Plays a file; the code, and the event if it was started.
fn play(rig: &mut Rig, bytes: &[u8]) -> (u32, Option<crate::rig::Event>) {
    audio_dir(rig);
    fs::write(rig.server.prompt("a.wav"), bytes).expect("written");
    let leg = rig.connect();
    let response = rig.call("Play", json!({"ConnectionId": leg.id, "Prompt1": "a.wav"}));
    let event = (response.code == 1).then(|| rig.end_within(&text(&response.results["OperationId"]), 10_000));
    // Whatever it was, the connection is as good as before.
    rig.tone("good.wav", 1000, 100);
    let good = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": "good.wav"}));
    assert_eq!(rig.end(&good).condition(), "eod");
    (response.code, event)
}

/// A WAV header that claims so many bytes of samples, and so many milliseconds of samples.
fn wav(claimed: u32, ms: usize) -> Vec<u8> {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend(claimed.saturating_add(36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    bytes.extend(claimed.to_le_bytes());
    bytes.extend((0..8 * ms).flat_map(|index| tone(1000, 8000, index).to_le_bytes()));
    bytes
}

fn empty(rig: &mut Rig) {
    assert!([27, 30].contains(&play(rig, b"").0));
}

fn truncated(rig: &mut Rig) {
    let (code, event) = play(rig, &wav(16_000, 500));
    // Either it is refused as broken, or what is there is played to its end.
    match event {
        None => assert!([27, 30, 31].contains(&code), "{code}"),
        Some(event) if event.name == "Play_Complete" => assert!(event.elapsed().abs_diff(500) <= 20, "{event:?}"),
        Some(event) => assert_eq!((event.name.as_str(), event.text("ResultCode").as_str()), ("Play_Failed", "31")),
    }
    // A header that breaks off.
    for length in [4, 12, 20, 36, 43] {
        let (code, _) = play(rig, &wav(16_000, 500)[..length]);
        assert!([27, 30].contains(&code), "{length} bytes: {code}");
    }
}

fn four_gib(rig: &mut Rig) {
    let (code, event) = play(rig, &wav(u32::MAX - 36, 500));
    match event {
        None => assert!([27, 30, 31].contains(&code), "{code}"),
        Some(event) if event.name == "Play_Complete" => assert!(event.elapsed().abs_diff(500) <= 20, "{event:?}"),
        Some(event) => assert_eq!((event.name.as_str(), event.text("ResultCode").as_str()), ("Play_Failed", "31")),
    }
}

fn noise(rig: &mut Rig) {
    let bytes: Vec<u8> = (0..50_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(play(rig, &bytes).0, 27);
}

fn unknown_format(rig: &mut Rig) {
    let mut bytes = wav(8000, 500);
    // MPEG layer 3.
    bytes[20] = 0x55;
    assert_eq!(play(rig, &bytes).0, 27);
}

fn read_only(rig: &mut Rig) {
    let directory = rig.server.recording("locked");
    fs::create_dir_all(&directory).expect("a directory");
    // Root writes anywhere by mode, so for root the directory is made immutable by its file system instead.
    let Some(_guard) = Unwritable::make(&directory) else {
        println!("neither modes nor mounts keep this process from writing");
        return;
    };
    let leg = rig.connect();
    let code = rig.code("Record", json!({"ConnectionId": leg.id, "Filename": "locked/a.wav"}));
    assert!([30, 31].contains(&code), "{code}");
    assert_eq!(rig.used().voice, 0);
}

/// A directory nothing can be made in.
struct Unwritable(std::path::PathBuf, bool);

impl Unwritable {
    fn make(directory: &Path) -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            let mounted = mount(directory, "ro,size=64k");
            return mounted.then(|| Self(directory.to_owned(), true));
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o555)).ok()?;
        Some(Self(directory.to_owned(), false))
    }
}

impl Drop for Unwritable {
    fn drop(&mut self) {
        if self.1 {
            unmount(&self.0);
        } else {
            drop(fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755)));
        }
    }
}

fn mount(directory: &Path, options: &str) -> bool {
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory).status();
    status.is_ok_and(|status| status.success())
}

fn unmount(directory: &Path) {
    // Lazily: a writer may still hold a file.
    drop(Command::new("umount").arg("-l").arg(directory).status());
}

/// A file system of 64 KiB.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

fn full_disk(rig: &mut Rig) {
    let directory = rig.server.recording("small");
    fs::create_dir_all(&directory).expect("a directory");
    if !mount(&directory, "size=64k") {
        println!("this process may not mount");
        return;
    }
    let _small = Small(directory);
    let leg: Leg = rig.connect_saying(Voice::Tone(700));
    rig.pass(300);
    let pcm = json!({
        "ConnectionId": leg.id, "Filename": "small/a.wav", "AudioFileEncoding": "pcm", "AudioFileSampleSize": 16, "State": "s",
        "TermCondMaxTime": 20_000,
    });
    let record = rig.operation("Record", pcm);
    // 64 KiB are some four seconds; the operation ends then, not at its own limit.
    let event = rig.end_within(&record, 30_000);
    assert_eq!((event.name.as_str(), event.text("ResultCode").as_str()), ("Record_Failed", "31"), "{event:?}");
    assert_eq!((event.text("ConnectionId"), event.text("State")), (leg.id.clone(), "s".to_owned()));
    // The file is valid up to its last whole frame.
    let mut file = hound::WavReader::open(rig.server.recording("small/a.wav")).expect("a file");
    let samples: Vec<i16> = file.samples().map(|sample| sample.expect("a whole sample")).collect();
    assert!(samples.len() > 8000 && samples.len() < 33_000, "{}", samples.len());
    assert!(ringbridge_tests::audio::share(&samples[1600..], 700) > 0.9);
    assert_eq!(rig.used().voice, 0);
    rig.operation("Record", json!({"ConnectionId": leg.id, "Filename": "b.wav", "TermCondMaxTime": 100}));
}

fn never_reads() {
    let script = Script::start(8, "");
    let (_, id, _) = script.connect();
    let mut deaf = TcpStream::connect(script.api).expect("it listens");
    let head = format!(
        "GET /MediaControl/events?routingGuid={} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n",
        script.guid
    );
    deaf.write_all(head.as_bytes()).expect("sent");
    let state = "s".repeat(20_000);
    for _ in 0..400 {
        // A stop makes an event at once; some megabytes of them come together.
        script.ok("GatherDigits", json!({"ConnectionId": id, "State": state}));
        script.ok("StopMediaOperation", json!({"ConnectionId": id}));
    }
    // Everybody else is served as before, and the server has not grown by what one does not read.
    let batch = http::get(script.api, &format!("/MediaControl/events?routingGuid={}&after=0", script.guid)).json();
    let (kept, missed) =
        (batch["events"].as_array().expect("a list").len() as u64, batch["missed"].as_u64().expect("a number"));
    assert!(kept > 0 && kept + missed <= 400, "{kept} {missed}");
    drop(deaf);
    assert_eq!(script.call("DeleteConnection", json!({"ConnectionId": id})).code, 0);
    nothing_in_use(&script, 8);
    script.stop();
}

fn half_requests() {
    let script = Script::start(8, "");
    let mut halves = Vec::new();
    for _ in 0..200 {
        if let Ok(mut stream) = TcpStream::connect(script.api) {
            // The rest never comes.
            if stream.write_all(b"POST /MediaControl/Play HTTP/1.1\r\ncontent-length: 100\r\n\r\n{").is_ok() {
                halves.push(stream);
            }
        }
    }
    assert_eq!(script.call("ReserveConnection", json!({})).code, 0);
    drop(halves);
    script.stop();
}

fn bodies() {
    let script = Script::start(8, "");
    let send = |body: &[u8]| http::request(script.api, "POST", "/MediaControl/Play", &[], body);
    // Deep nesting is malformed or too large, never a crash.
    assert!([200, 413].contains(&send(&vec![b'['; 200_000]).status));
    for body in [&b"\xff\xfe"[..], b"\"", b"nul", b"{\"params\": {\"ConnectionId\": 1}}{", b"[]", b"1e999999"] {
        let answer = send(body);
        let code: Value = answer.json()["results"]["ResultCode"].clone();
        assert_eq!((answer.status, text(&code)), (200, "35".to_owned()), "{body:?}");
    }
    assert_eq!(script.call("ReserveConnection", json!({})).code, 0);
    script.stop();
}
