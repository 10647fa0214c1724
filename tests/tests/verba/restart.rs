//! The server is killed in the middle of recordings, or told to end: file, manifest and database agree afterwards.

use std::path::Path;

use hound::WavReader;
use ringbridge_tests::audio::Codec;
use ringbridge_tests::server::text;
use ringbridge_tests::until;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Row;
use crate::media::Talk;
use crate::rig::{ALWAYS, ENDED, OPEN, Serving, hex, state};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::alone("restart::killed_in_the_middle", killed),
        Row::alone("restart::killed_twice", killed_twice),
        Row::alone("restart::told_to_end_in_the_middle", told_to_end),
        Row::alone("restart::what_was_deleted_stays_deleted", deleted),
    ]
}

fn manifest(file: &Path) -> Option<Value> {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    serde_json::from_slice(&std::fs::read(name).ok()?).ok()
}

/// Waits until a recording that was cut off has been ended.
#[track_caller]
fn cut_off(file: &Path) -> Value {
    until("the end of what was cut off", || manifest(file).filter(|manifest| manifest["state"] == "cut_off"))
}

/// Waits until a file holds so many bytes, as its header has it or not.
fn grows(file: &Path, bytes: u64) {
    until("the file to grow", || (std::fs::metadata(file).ok()?.len() >= bytes).then_some(()));
}

fn killed() {
    let mut serving = Serving::start(16, 1, "");
    let mut rig = serving.rig();
    let [number, kept, lost] = [0, 1, 2].map(|which| rig.number(which));
    let talk = Talk::begin(&mut rig, Codec::Pcmu, &number, ALWAYS);
    let id = rig.id(&number, "ongoing");
    let (_, kept_id) = rig.on_demand(&kept);
    rig.ok(&format!("action=KeepCall&callID={kept_id}"));
    let (_, lost_id) = rig.on_demand(&lost);
    // Recordings of other kinds, of a connection that talks.
    let record = |side: usize, path: &str, rest: Value| {
        let mut given = json!({"kind": "record", "connection_id": talk.pair.0[side], "path": path});
        given.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        rig.native("operation.start", given);
        rig.directory.join("recordings").join(path)
    };
    let plain = record(0, "plain.wav", json!({}));
    let ulaw = record(0, "deep/ulaw.wav", json!({"encoding": "ulaw", "bits": 8}));
    let vox =
        record(1, "call.vox", json!({"container": "vox", "encoding": "adpcm", "sample_rate_hz": 6000, "bits": 4}));
    talk.pass(10);
    rig.ok(&format!("action=MuteRecording&callID={id}&mute=1"));
    // Long enough for a header and a manifest to be refreshed.
    for (file, bytes) in
        [(rig.file(&id), 60_000), (plain.clone(), 30_000), (ulaw.clone(), 15_000), (vox.clone(), 4_000)]
    {
        grows(&file, bytes);
    }
    until("the muted stretch in the manifest", || {
        (!rig.manifest(&id)["caller"]["muted"].as_array()?.is_empty()).then_some(())
    });
    assert_eq!(rig.manifest(&id)["state"], "recording");
    serving.server.kill_and_restart();
    drop(rig);
    let rig = serving.rig();

    // The call: playable as far as it got, its manifest and its hash right, and the database says that it is over.
    let told = cut_off(&rig.file(&id));
    let bytes = std::fs::read(rig.file(&id)).unwrap();
    assert_eq!(told["sha256"], hex(&Sha256::digest(&bytes)), "{told}");
    let mut wav = WavReader::open(rig.file(&id)).unwrap();
    assert_eq!((wav.spec().channels, json!(wav.duration())), (2, told["samples"].clone()));
    assert!(wav.duration() > 10_000 && u64::from(wav.duration()) * 4 + 44 == bytes.len() as u64, "{}", bytes.len());
    let samples: Vec<i16> = wav.samples::<i16>().map(Result::unwrap).collect();
    let from = told["caller"]["muted"][0]["at_ms"].as_u64().unwrap() as usize * 8;
    assert!(samples[from * 2..].iter().step_by(2).all(|sample| *sample == 0), "muted up to its last sample");
    assert!(samples.iter().skip(1).step_by(2).any(|sample| *sample != 0));
    assert!(told["ended_at"].is_string() && told["error"].is_string(), "{told}");
    let described = rig.ok(&format!("action=GetCallInformation&callID={id}"));
    assert_eq!(described.cdr_state().as_deref(), Some("1"));
    assert!(described.child("end_time").is_some());
    assert_eq!(rig.muted(&id), state(1), "as it was at its end");
    rig.fails(&format!("action=MuteRecording&callID={id}&mute=0"), 2, ENDED);
    let fetched = rig.request("GET", &format!("/verba/api?action=GetMediaEncoded&apiKey={OPEN}&cid={id}"), &[], "");
    assert!(fetched.status == 200 && fetched.body == bytes);
    // On demand: what was kept is there, what was not is not.
    assert_eq!(rig.id(&kept, "last"), kept_id);
    assert_eq!(cut_off(&rig.file(&kept_id))["channels"], 2);
    rig.gone(&lost_id);
    // The others.
    for (file, channels) in [(&plain, 1), (&ulaw, 1)] {
        let told = cut_off(file);
        let wav = hound_or_header(file);
        assert_eq!((told["channels"].as_u64(), told["samples"].as_u64()), (Some(channels), Some(wav)), "{told}");
        assert!(wav > 10_000);
    }
    let told = cut_off(&vox);
    assert_eq!(told["samples"].as_u64(), Some(std::fs::metadata(&vox).unwrap().len() * 2), "{told}");
    drop(rig);
    serving.server.stop();
}

/// Samples a file has by its header.
fn hound_or_header(file: &Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(4).position(|part| part == b"data").unwrap();
    let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
    assert!(bytes.len() as u64 - (at as u64 + 8) == u64::from(length), "the header counts all there is");
    let bits = u16::from_le_bytes(bytes[34..36].try_into().unwrap());
    u64::from(length) * 8 / u64::from(bits)
}

fn killed_twice() {
    let mut serving = Serving::start(16, 1, "");
    let mut before = Vec::new();
    for _ in 0..2 {
        let mut rig = serving.rig();
        let number = rig.number(0);
        let (_, id) = rig.recorded(&number);
        serving.server.kill_and_restart();
        before.push((number, id));
    }
    let mut rig = serving.rig();
    for (number, id) in &before {
        let told = cut_off(&rig.file(id));
        assert!(told["samples"].is_u64(), "{told}");
        assert_eq!(rig.id(number, "last"), *id);
        rig.fails(&format!("action=MuteRecording&extension={number}&status=ongoing"), 2, "cannot be found");
        // Even what was killed before its first second is a file.
        assert!(WavReader::open(rig.file(id)).is_ok());
    }
    // And the server records as before.
    let number = rig.number(1);
    let (pair, id) = rig.recorded(&number);
    rig.finish(&pair, &id);
    assert_eq!(rig.manifest(&id)["state"], "complete");
    drop(rig);
    serving.server.stop();
}

fn told_to_end() {
    let mut serving = Serving::start(16, 1, "");
    let mut rig = serving.rig();
    let [number, lost] = [0, 1].map(|which| rig.number(which));
    let talk = Talk::begin(&mut rig, Codec::Pcmu, &number, ALWAYS);
    let id = rig.id(&number, "ongoing");
    let (_, lost_id) = rig.on_demand(&lost);
    talk.pass(20);
    serving.server.restart();
    drop(rig);
    let rig = serving.rig();
    let told = manifest(&rig.file(&id)).unwrap();
    assert!(["complete", "abandoned"].contains(&text(&told["state"]).as_str()), "{told}");
    let bytes = std::fs::read(rig.file(&id)).unwrap();
    assert_eq!(told["sha256"], hex(&Sha256::digest(&bytes)), "{told}");
    assert_eq!(json!(WavReader::open(rig.file(&id)).unwrap().duration()), told["samples"]);
    assert_eq!(rig.ok(&format!("action=GetCallInformation&callID={id}")).cdr_state().as_deref(), Some("1"));
    rig.gone(&lost_id);
    drop(talk);
    drop(rig);
    serving.server.stop();
}

fn deleted() {
    let mut serving = Serving::start(16, 1, "");
    let mut rig = serving.rig();
    let [one, two] = [0, 1].map(|which| rig.number(which));
    let (pair, over) = rig.recorded(&one);
    rig.finish(&pair, &over);
    rig.ok(&format!("action=DeleteCall&callID={over}"));
    let (_, marked) = rig.recorded(&two);
    rig.ok(&format!("action=DeleteCall&callID={marked}"));
    serving.server.kill_and_restart();
    drop(rig);
    let rig = serving.rig();
    // It was to be deleted at its end, and that was its end.
    rig.gone(&marked);
    rig.gone(&over);
    drop(rig);
    serving.server.stop();
}
