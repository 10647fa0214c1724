//! Files that are not what they should be, or not where.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use hound::{SampleFormat, WavSpec, WavWriter};
use ringbridge_tests::server::{Server, text};
use serde_json::{Value, json};

use crate::setup;

fn wav(path: &Path) {
    let spec = WavSpec { channels: 1, sample_rate: 8000, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut wav = WavWriter::create(path, spec).unwrap();
    (0..800).for_each(|sample: i16| wav.write_sample(sample).unwrap());
    wav.finalize().unwrap();
}

/// Prompts of every kind, good and bad.
fn furnish(server: &Server) {
    let audio = server.directory().join("audio");
    wav(&audio.join("good.wav"));
    wav(&server.directory().join("outside.wav"));
    let whole = fs::read(audio.join("good.wav")).unwrap();
    for (name, bytes) in [
        ("empty.wav", &[][..]),
        ("text.wav", b"This is no sound at all, only a text that is long enough."),
        ("head.wav", &whole[..20]),
        ("half.wav", &whole[..whole.len() / 2]),
        ("no_samples.wav", &whole[..36]),
    ] {
        fs::write(audio.join(name), bytes).unwrap();
    }
    let mut adpcm = whole.clone();
    adpcm[20..22].copy_from_slice(&2u16.to_le_bytes());
    fs::write(audio.join("adpcm.wav"), adpcm).unwrap();
    let mut still = whole;
    still[24..28].copy_from_slice(&0u32.to_le_bytes());
    fs::write(audio.join("rate_0.wav"), still).unwrap();
    fs::create_dir(audio.join("directory")).unwrap();
    symlink("../outside.wav", audio.join("link_out.wav")).unwrap();
    symlink("/etc/passwd", audio.join("link_absolute.wav")).unwrap();
    symlink("good.wav", audio.join("link_inside.wav")).unwrap();
    symlink("nowhere.wav", audio.join("link_nowhere.wav")).unwrap();
    symlink("..", audio.join("up")).unwrap();
    assert!(Command::new("mkfifo").arg(audio.join("fifo.wav")).status().unwrap().success());
}

/// Starts an operation that has to be refused, and shows that a good one still runs and no trace is left.
fn refused(params: Value, code: i64, kind: &str) {
    let server = setup().pairs(1).start();
    furnish(&server);
    fs::write(server.recording("there.wav"), b"somebody's").unwrap();
    fs::create_dir(server.recording("directory")).unwrap();
    let leg = server.create(json!({"remote": "127.0.0.1:9"}));
    let start = |mut params: Value| {
        params["connection_id"] = leg.id.clone().into();
        params
    };
    let error = server.refused("operation.start", start(params));
    let data = error.data.clone().unwrap();
    assert_eq!((error.code, text(&data["kind"])), (code, kind.to_owned()), "{error}");
    assert!(data["path"].is_string() || data["param"].is_string(), "{error}");
    assert_eq!(server.ok("operation.list", json!({}))["operations"], json!([]));
    assert_eq!(fs::read(server.recording("there.wav")).unwrap(), b"somebody's");
    assert_eq!(fs::read_dir(server.directory().join("recordings")).unwrap().count(), 2);
    let good = json!({"kind": "play", "files": ["good.wav", "link_inside.wav"], "max_time_ms": 20});
    server.ok("operation.start", start(good));
    server.stop();
}

macro_rules! files {
    ($($name:ident: $params:tt => $code:literal, $kind:literal;)*) => {
        $(#[test]
        fn $name() {
            refused(json!($params), $code, $kind);
        })*
    };
}

files! {
    missing: {"kind": "play", "files": ["none.wav"]} => 1009, "file_not_found";
    missing_directory: {"kind": "play", "files": ["none/good.wav"]} => 1009, "file_not_found";
    missing_after_a_good_one: {"kind": "play", "files": ["good.wav", "none.wav"]} => 1009, "file_not_found";
    link_nowhere: {"kind": "play", "files": ["link_nowhere.wav"]} => 1009, "file_not_found";
    up_and_out: {"kind": "play", "files": ["../outside.wav"]} => 1011, "path_outside_root";
    up_in_the_middle: {"kind": "play", "files": ["directory/../../outside.wav"]} => 1011, "path_outside_root";
    absolute: {"kind": "play", "files": ["/etc/passwd"]} => 1011, "path_outside_root";
    link_out: {"kind": "play", "files": ["link_out.wav"]} => 1011, "path_outside_root";
    link_absolute: {"kind": "play", "files": ["link_absolute.wav"]} => 1011, "path_outside_root";
    through_a_link: {"kind": "play", "files": ["up/outside.wav"]} => 1011, "path_outside_root";
    empty: {"kind": "play", "files": ["empty.wav"]} => 1010, "file_unsupported";
    not_wav: {"kind": "play", "files": ["text.wav"]} => 1010, "file_unsupported";
    truncated_head: {"kind": "play", "files": ["head.wav"]} => 1010, "file_unsupported";
    truncated_samples: {"kind": "play", "files": ["half.wav"]} => 1010, "file_unsupported";
    no_samples: {"kind": "play", "files": ["no_samples.wav"]} => 1010, "file_unsupported";
    adpcm: {"kind": "play", "files": ["adpcm.wav"]} => 1010, "file_unsupported";
    no_sample_rate: {"kind": "play", "files": ["rate_0.wav"]} => 1010, "file_unsupported";
    a_directory: {"kind": "play", "files": ["directory"]} => 1010, "file_unsupported";
    a_fifo: {"kind": "play", "files": ["fifo.wav"]} => 1010, "file_unsupported";
    no_name: {"kind": "play", "files": [""]} => 1010, "file_unsupported";
    a_nul: {"kind": "play", "files": ["good.wav\u{0}"]} => 1010, "file_unsupported";
    too_many: {"kind": "play", "files": (vec!["good.wav"; 65])} => -32602, "invalid_params";
    record_over_another: {"kind": "record", "path": "there.wav"} => 1015, "io_error";
    record_outside: {"kind": "record", "path": "../out.wav"} => 1011, "path_outside_root";
    record_absolute: {"kind": "record", "path": "/tmp/out.wav"} => 1011, "path_outside_root";
    record_no_name: {"kind": "record", "path": ""} => 1010, "file_unsupported";
}
