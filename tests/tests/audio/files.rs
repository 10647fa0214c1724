//! Prompts and recordings as files, at the rate of the conference or telephone.

use std::path::Path;
use std::time::Duration;

use ringbridge_codec::{CodecKind, Rate};
use ringbridge_tests::audio::{tone, write_wav_at};
use ringbridge_tests::hearing::judge;
use ringbridge_tests::line::Line;
use ringbridge_tests::server::{Server, text};
use ringbridge_tests::spectrum::Spectrum;
use ringbridge_tests::until_every;
use serde_json::{Value, json};

use crate::{L16, hears, join, patient, say, setup};

/// As long as any test may take to hear it.
const PROMPT_S: usize = 40;

/// Writes a prompt of these tones, each at [`ringbridge_tests::hearing::AMPLITUDE`].
fn prompt(server: &Server, name: &str, rate_hz: u32, tones: &[u32]) {
    // It fades in: a tone that begins at once is heard as a click by those who hear a part of the spectrum alone.
    let fade = f64::from(rate_hz) / 5.0;
    let sample = |index: usize| {
        let sum: i16 = tones.iter().map(|hz| tone(*hz, rate_hz, index) / 2).sum();
        (f64::from(sum) * (index as f64 / fade).min(1.0)) as i16
    };
    let samples: Vec<i16> = (0..rate_hz as usize * PROMPT_S).map(sample).collect();
    write_wav_at(&server.prompt(name), rate_hz, &samples);
}

fn start(server: &Server, params: Value) -> (String, String) {
    let started = server.ok("operation.start", params);
    (text(&started["operation_id"]), started["path"].as_str().unwrap_or_default().to_owned())
}

/// The rate and the samples of a recording.
fn recording(path: &Path) -> (u32, Vec<i16>) {
    let mut wav = hound::WavReader::open(path).unwrap();
    let rate_hz = wav.spec().sample_rate;
    (rate_hz, wav.samples().map(Result::unwrap).collect())
}

/// How many pieces of 200 ms of a recording have these tones and nothing else.
fn pieces(path: &Path, tones: &[u32]) -> usize {
    let (rate_hz, samples) = recording(path);
    samples.chunks_exact(rate_hz as usize / 5).filter(|piece| judge(piece, rate_hz, tones).is_ok()).count()
}

#[test]
fn a_wide_prompt_in_a_wide_conference_is_heard_and_recorded_whole() {
    let server = setup().start();
    prompt(&server, "wide.wav", 16_000, &[711, 5_011]);
    prompt(&server, "full.wav", 48_000, &[711, 13_011]);
    prompt(&server, "narrow.wav", 8_000, &[711, 3_011]);
    for (rate_hz, name, tones) in [
        (16_000, "wide.wav", [711, 5_011]),
        (48_000, "wide.wav", [711, 5_011]),
        (48_000, "full.wav", [711, 13_011]),
        (48_000, "narrow.wav", [711, 3_011]),
    ] {
        let what = format!("{name} at {rate_hz} Hz");
        let room = text(&server.ok("conference.create", json!({"sample_rate_hz": rate_hz}))["conference_id"]);
        let listener = Line::connect(&server, CodecKind::L16(Rate::Full), 10, json!({}));
        let telephone = Line::connect(&server, CodecKind::Pcmu, 20, json!({}));
        join(&server, &room, &listener);
        join(&server, &room, &telephone);
        let record = |rate_hz: Option<u32>| {
            start(&server, json!({"kind": "record", "conference_id": room, "sample_rate_hz": rate_hz})).1
        };
        let (own, narrow) = (record(None), record(Some(8_000)));
        start(&server, json!({"kind": "play", "conference_id": room, "files": [name]}));
        hears(&listener, &what, &tones, &[]);
        let low: Vec<u32> = tones.into_iter().filter(|hz| *hz < 4_000).collect();
        // 13011 and 5011 Hz would be folded to this.
        hears(&telephone, &format!("{what} by telephone"), &low, &[2_989]);
        server.ok("operation.stop", json!({"conference_id": room}));
        let (own, narrow) = (server.recording(&own), server.recording(&narrow));
        assert_eq!((recording(&own).0, recording(&narrow).0), (rate_hz, 8_000), "{what}");
        assert!(pieces(&own, &tones) >= 2, "{what}");
        assert!(pieces(&narrow, &low) >= 2, "{what} at 8 kHz");
        server.ok("conference.delete", json!({"conference_id": room}));
    }
    server.stop();
}

#[test]
fn a_telephone_is_played_to_and_recorded_as_wide_as_it_is() {
    let server = setup().start();
    prompt(&server, "full.wav", 48_000, &[711, 5_011]);
    for (kind, ptime_ms, rate_hz) in [
        (CodecKind::Pcmu, 20, 8_000),
        (CodecKind::G722, 20, 16_000),
        (L16, 20, 16_000),
        (CodecKind::Opus, 20, 48_000),
        (CodecKind::L16(Rate::Full), 10, 48_000),
    ] {
        let line = Line::connect(&server, kind, ptime_ms, patient());
        let speaker = say(&line, if rate_hz > 8_000 { 5_700 } else { 1_700 });
        let (_, path) = start(&server, json!({"kind": "record", "connection_id": line.leg.id}));
        let (_, low) = start(&server, json!({"kind": "record", "connection_id": line.leg.id, "sample_rate_hz": 8_000}));
        start(&server, json!({"kind": "play", "connection_id": line.leg.id, "files": ["full.wav"]}));
        let piece = rate_hz as usize / 5;
        until_every(Duration::from_millis(50), &format!("{kind} to hear it"), || {
            let heard = line.heard()?;
            let heard = heard.get(heard.len().saturating_sub(piece)..).filter(|heard| heard.len() == piece)?;
            let spectrum = Spectrum::of(heard, rate_hz);
            let high = rate_hz > 8_000;
            let as_loud = |hz| (-22.0..-16.0).contains(&spectrum.db(hz));
            (as_loud(711) && (!high || as_loud(5_011)) && (high || spectrum.db(2_989) < -60.0)).then_some(())
        });
        // What has come for a while is in the files.
        let (path, low) = (server.recording(&path), server.recording(&low));
        until_every(Duration::from_millis(50), &format!("{kind} to be recorded"), || {
            (recording(&path).1.len() >= 2 * rate_hz as usize).then_some(())
        });
        server.ok("operation.stop", json!({"connection_id": line.leg.id}));
        speaker.stop();
        let ((own_hz, samples), (low_hz, low)) = (recording(&path), recording(&low));
        assert_eq!((own_hz, low_hz), (rate_hz, 8_000), "{kind}");
        let last =
            |samples: &[i16], rate_hz: u32| Spectrum::of(&samples[samples.len() - rate_hz as usize / 5..], rate_hz);
        if rate_hz > 8_000 {
            let db = last(&samples, rate_hz).db(5_700);
            assert!((-22.0..-16.0).contains(&db), "{kind}: {db}");
            // 5700 Hz would be folded to this.
            let image = last(&low, 8_000).db(2_300);
            assert!(image < -60.0, "{kind}: {image}");
        } else {
            let db = last(&samples, rate_hz).db(1_700);
            assert!((-20.0..-16.0).contains(&db), "{kind}: {db}");
        }
        server.ok("connection.delete", json!({"connection_id": line.leg.id}));
    }
    server.stop();
}
