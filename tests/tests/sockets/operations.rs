//! Prompts and recordings.

use std::path::Path;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use ringbridge_tests::audio::{Codec, share, tone};
use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::{Events, Server, text};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::{connect, setup};

/// Writes a tone of so many milliseconds.
fn write_wav(path: &Path, frequency: u32, ms: u32, spec: WavSpec) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut wav = WavWriter::create(path, spec).unwrap();
    for index in 0..(spec.sample_rate * ms / 1000) as usize {
        let sample = tone(frequency, spec.sample_rate, index);
        for _ in 0..spec.channels {
            match (spec.sample_format, spec.bits_per_sample) {
                (SampleFormat::Float, _) => wav.write_sample(f32::from(sample) / 32768.0).unwrap(),
                (SampleFormat::Int, 8) => wav.write_sample((sample >> 8) as i8).unwrap(),
                (SampleFormat::Int, 24) => wav.write_sample(i32::from(sample) << 8).unwrap(),
                (SampleFormat::Int, _) => wav.write_sample(sample).unwrap(),
            }
        }
    }
    wav.finalize().unwrap();
}

fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
    WavSpec { channels, sample_rate, bits_per_sample, sample_format }
}

fn plain() -> WavSpec {
    spec(1, 8000, 16, SampleFormat::Int)
}

fn start(server: &Server, params: Value) -> String {
    text(&server.ok("operation.start", params)["operation_id"])
}

/// Waits for the end of an operation, and for no second one.
fn ended(events: &mut Events, operation: &str) -> Value {
    let ended = events.wait("operation.ended", "operation_id", operation);
    events.settle();
    assert_eq!(events.of("operation.ended", "operation_id", operation).len(), 1);
    ended
}

/// The tones heard one after the other, each with how many windows of 100 ms it filled.
fn melody(samples: &[i16], tones: &[u32]) -> Vec<(u32, usize)> {
    let mut melody: Vec<(u32, usize)> = Vec::new();
    for window in samples.chunks_exact(800) {
        let Some(heard) = tones.iter().copied().find(|tone| share(window, *tone) > 0.7) else { continue };
        match melody.last_mut() {
            Some((last, windows)) if *last == heard => *windows += 1,
            _ => melody.push((heard, 1)),
        }
    }
    melody
}

#[test]
fn files_of_every_kind_are_played_in_order() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let formats = [
        ("a.wav", 400, plain()),
        ("b.wav", 700, spec(2, 16_000, 16, SampleFormat::Int)),
        ("c.wav", 1100, spec(1, 44_100, 32, SampleFormat::Float)),
        ("d.wav", 1700, spec(1, 48_000, 24, SampleFormat::Int)),
        ("e.wav", 500, spec(1, 8000, 8, SampleFormat::Int)),
    ];
    let files = formats.map(|(name, ..)| name);
    for (name, frequency, format) in formats {
        write_wav(&server.prompt(name), frequency, 400, format);
    }
    let (endpoint, leg) = connect(&server, json!({"codec": "PCMA"}));
    let play = start(&server, json!({"kind": "play", "connection_id": leg.id, "files": files}));
    let end = ended(&mut events, &play);
    assert_eq!((&end["condition"], &end["kind"]), (&json!("eod"), &json!("play")));
    assert!((1900..=2100).contains(&end["elapsed_ms"].as_u64().unwrap()), "{end}");
    endpoint.until("the whole play", |heard| (heard.len() >= 100).then_some(()));
    let stream = endpoint.stream(Codec::Pcma).unwrap();
    let heard = melody(&stream.samples, &formats.map(|(_, frequency, _)| frequency));
    assert_eq!(heard.iter().map(|(tone, _)| *tone).collect::<Vec<_>>(), [400, 700, 1100, 1700, 500]);
    assert!(heard.iter().all(|(_, windows)| (3..=4).contains(windows)), "{heard:?}");
    server.stop();
}

#[test]
fn everybody_in_a_conference_hears_a_prompt() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    write_wav(&server.prompt("deep/a.wav"), 1100, 600, plain());
    let room = text(&server.ok("conference.create", json!({}))["conference_id"]);
    let members = [0; 3].map(|_| connect(&server, json!({})));
    for (_, leg) in &members {
        server.ok("conference.join", json!({"conference_id": room, "connection_id": leg.id}));
    }
    let play = start(&server, json!({"kind": "play", "conference_id": room, "files": ["deep/a.wav"]}));
    let end = ended(&mut events, &play);
    assert_eq!((&end["condition"], &end["conference_id"]), (&json!("eod"), &json!(room)));
    for (endpoint, _) in &members {
        endpoint.until("the prompt", |_| {
            let stream = endpoint.stream(Codec::Pcmu)?;
            // Wherever it began within a window.
            (melody(&stream.samples, &[1100]).iter().map(|(_, windows)| windows).sum::<usize>() >= 4).then_some(())
        });
    }
    server.stop();
}

#[test]
fn a_stop_ends_one_or_all_and_each_is_told_once() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    write_wav(&server.prompt("long.wav"), 400, 20_000, plain());
    let (endpoint, leg) = connect(&server, json!({}));
    let begin = |path: &str| {
        let play = start(&server, json!({"kind": "play", "connection_id": leg.id, "files": ["long.wav"]}));
        let record = start(&server, json!({"kind": "record", "connection_id": leg.id, "path": path}));
        [play, record]
    };
    let [play, record] = begin("one.wav");
    endpoint.until("the prompt", |heard| (heard.len() > 10).then_some(()));
    let stopped = server.ok("operation.stop", json!({"connection_id": leg.id, "operation_id": play}));
    assert_eq!(stopped["stopped"], json!([play]));
    assert_eq!(ended(&mut events, &play)["condition"], "userstop");
    // From the stamp on there is no tone any more.
    let timestamp = stopped["effect"]["streams"][0]["rtp_timestamp"].as_u64().unwrap() as u32;
    let stream = endpoint.stream(Codec::Pcmu).unwrap();
    let border = stream.index(timestamp).unwrap().min(stream.samples.len());
    assert!(stream.samples[border..].iter().all(|sample| sample.abs() <= 8), "heard after the stamp");
    assert!(stream.samples[..border].iter().any(|sample| sample.abs() > 4000), "never heard");
    let left = server.ok("operation.list", json!({"connection_id": leg.id}));
    assert_eq!(left["operations"].as_array().unwrap().len(), 1);
    // Without an operation: all there are.
    let stopped = server.ok("operation.stop", json!({"connection_id": leg.id}));
    assert_eq!(stopped["stopped"], json!([record]));
    assert_eq!(ended(&mut events, &record)["condition"], "userstop");

    let both = begin("two.wav");
    let stopped = server.ok("operation.stop", json!({"connection_id": leg.id}));
    assert_eq!(stopped["stopped"].as_array().unwrap().len(), 2);
    for operation in both {
        assert_eq!(ended(&mut events, &operation)["condition"], "userstop");
        let again = json!({"connection_id": leg.id, "operation_id": operation});
        assert_eq!(server.refused("operation.stop", again).code, 1003);
    }
    assert_eq!(server.ok("operation.list", json!({}))["operations"], json!([]));
    server.stop();
}

#[test]
fn time_limits_and_deletes_end_operations() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    write_wav(&server.prompt("long.wav"), 400, 20_000, plain());
    let (_endpoint, leg) = connect(&server, json!({}));
    let play = |limit: Option<u32>| {
        let params = json!({"kind": "play", "connection_id": leg.id, "files": ["long.wav"], "max_time_ms": limit});
        start(&server, params)
    };
    let limited = play(Some(200));
    let end = ended(&mut events, &limited);
    assert_eq!(end["condition"], "maxtime");
    assert!((200..300).contains(&end["elapsed_ms"].as_u64().unwrap()), "{end}");
    let unlimited = play(None);
    let record = start(&server, json!({"kind": "record", "connection_id": leg.id, "path": "cut.wav"}));
    server.ok("connection.delete", json!({"connection_id": leg.id}));
    for operation in [unlimited, record] {
        assert_eq!(ended(&mut events, &operation)["condition"], "autostop");
    }
    assert!(WavReader::open(server.recording("cut.wav")).is_ok());
    server.stop();
}

fn recorded(server: &Server, name: &str, end: &Value) -> Vec<i16> {
    let mut wav = WavReader::open(server.recording(name)).unwrap();
    assert_eq!((wav.spec().channels, wav.spec().sample_rate), (1, 8000));
    let samples: Vec<i16> = wav.samples::<i16>().map(Result::unwrap).collect();
    assert_eq!(end["samples"].as_u64(), Some(samples.len() as u64));
    assert!(text(&end["path"]).ends_with(name));
    samples
}

/// Waits until a recording that runs has that much in it.
fn until_recorded(server: &Server, operation: &str, ms: u64) {
    until("the recording to grow", || {
        let list = server.ok("operation.list", json!({}));
        let running = list["operations"].as_array()?.iter();
        let elapsed = running
            .filter(|running| running["operation_id"] == *operation)
            .find_map(|running| running["elapsed_ms"].as_u64());
        (elapsed? >= ms).then_some(())
    });
}

#[test]
fn a_recording_of_a_connection_holds_what_it_said() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let (endpoint, leg) = connect(&server, json!({}));
    let speaker = endpoint.speak(leg.local, Speech::new(1), |index| tone(700, 8000, index));
    events.wait("connection.learned", "connection_id", &leg.id);
    let record = start(&server, json!({"kind": "record", "connection_id": leg.id, "path": "deep/one.wav"}));
    until_recorded(&server, &record, 1500);
    server.ok("operation.stop", json!({"connection_id": leg.id, "operation_id": record}));
    let end = ended(&mut events, &record);
    assert_eq!(end["condition"], "userstop");
    let samples = recorded(&server, "deep/one.wav", &end);
    assert!(samples.len() >= 12_000, "{end}");
    // Some of it may have been late on a busy machine.
    let loud = samples.chunks_exact(800).filter(|window| share(window, 700) > 0.7).count();
    assert!(loud * 2 > samples.len() / 800, "{loud} windows of {}", samples.len() / 800);
    speaker.stop();
    server.stop();
}

#[test]
fn a_recording_of_a_conference_holds_the_full_mix() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let room = text(&server.ok("conference.create", json!({}))["conference_id"]);
    let mut talking: Vec<(Endpoint, ringbridge_tests::endpoint::Speaker)> = Vec::new();
    for (ssrc, frequency) in [(1, 400), (2, 1100)] {
        let (endpoint, leg) = connect(&server, json!({}));
        server.ok("conference.join", json!({"conference_id": room, "connection_id": leg.id}));
        let speaker = endpoint.speak(leg.local, Speech::new(ssrc), move |index| tone(frequency, 8000, index));
        events.wait("connection.learned", "connection_id", &leg.id);
        talking.push((endpoint, speaker));
    }
    let record = start(&server, json!({"kind": "record", "conference_id": room, "path": "room.wav"}));
    until_recorded(&server, &record, 1500);
    server.ok("operation.stop", json!({"conference_id": room, "operation_id": record}));
    let end = ended(&mut events, &record);
    let samples = recorded(&server, "room.wav", &end);
    let both = samples.chunks_exact(800).filter(|window| share(window, 400) > 0.7 && share(window, 1100) > 0.7).count();
    assert!(both * 2 > samples.len() / 800, "{both} windows of {}", samples.len() / 800);
    talking.into_iter().for_each(|(_, speaker)| drop(speaker.stop()));
    server.stop();
}

/// What both parties say: no stretch of a few samples comes twice.
fn noise(index: usize) -> i16 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 49) as i16
}

/// Frames of 10 ms that a manifest does not except, each with where its samples stand in what was said.
fn places(channel: &[i16], notes: &Value, lost: &Value, said: &[i16]) -> Vec<(usize, usize)> {
    let excepted = |frame: usize| {
        let at = frame as u64 * 10;
        let lists = [&notes["muted"], &notes["gaps"], &notes["concealed"], lost];
        lists.into_iter().flat_map(|list| list.as_array().unwrap()).any(|gap| {
            let from = gap["at_ms"].as_u64().unwrap();
            (from..from + gap["ms"].as_u64().unwrap()).contains(&at)
        })
    };
    let frames = channel.chunks_exact(80).enumerate().filter(|(frame, _)| !excepted(*frame));
    let mut from = 0;
    frames
        .map(|(frame, samples)| {
            let place = said[from..].windows(80).position(|window| window == samples);
            from += place.unwrap_or_else(|| panic!("frame {frame} is not what was said: {samples:?}"));
            (frame, from)
        })
        .collect()
}

#[test]
fn a_call_is_recorded_side_by_side_and_a_muted_party_is_silence_from_the_stamp_on() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let pair = crate::relayed(&server);
    let speech = [Speech::new(1), Speech::new(2)];
    let speakers = [0, 1].map(|side| pair[side].0.speak(pair[side].1.local, speech[side], noise));
    for (_, leg) in &pair {
        events.wait("connection.learned", "connection_id", &leg.id);
    }
    let [caller, called] = [&pair[0].1.id, &pair[1].1.id];
    let record = start(
        &server,
        json!({"kind": "record", "connection_id": caller, "path": "call.wav",
               "channels": {"caller": caller, "called": called}}),
    );
    let mute = |channels: &str| {
        let muted = server.ok("recording.mute", json!({"operation_id": record, "channels": channels}));
        let effect = &muted["effect"];
        assert_eq!(effect["clock"], "recording");
        assert_eq!(effect["streams"][0]["connection_id"], **caller);
        let index = (effect["rtp_timestamp"].as_u64().unwrap() as u32).wrapping_sub(speech[0].timestamp);
        (effect["media_time_ms"].as_f64().unwrap() as usize * 8, index as usize)
    };
    until_recorded(&server, &record, 700);
    let (from, first) = mute("caller");
    until_recorded(&server, &record, 1400);
    let (to, next) = mute("none");
    until_recorded(&server, &record, 2000);
    server.ok("relay.stop", json!({"a": caller}));
    let end = ended(&mut events, &record);
    assert_eq!(end["condition"], "autostop");
    let sent = speakers.map(ringbridge_tests::endpoint::Speaker::stop);

    let mut wav = WavReader::open(server.recording("call.wav")).unwrap();
    assert_eq!((wav.spec().channels, wav.spec().sample_rate), (2, 8000));
    let samples: Vec<i16> = wav.samples::<i16>().map(Result::unwrap).collect();
    let [left, right]: [Vec<i16>; 2] = [0, 1].map(|side| samples.iter().skip(side).step_by(2).copied().collect());
    let manifest: Value = serde_json::from_slice(&std::fs::read(server.recording("call.wav.json")).unwrap()).unwrap();
    assert_eq!(manifest["caller"]["muted"], json!([{"at_ms": from / 8, "ms": (to - from) / 8}]));
    assert_eq!(manifest["called"]["muted"], json!([]));
    assert_eq!(manifest["sha256"].as_str().map(str::len), Some(64));
    assert!(left[from..to].iter().all(|&sample| sample == 0), "a sample of the muted stretch is in the file");

    let said = Codec::Pcmu.decode(&sent[0].iter().flat_map(|packet| packet[12..].to_vec()).collect::<Vec<_>>());
    let heard = places(&left, &manifest["caller"], &manifest["gaps"], &said);
    assert!(heard.len() > 40, "{} frames of the caller", heard.len());
    for (frame, place) in heard {
        // The stamps divide what was said exactly as the file is divided.
        assert_eq!(frame * 80 >= to, place >= next, "frame {frame}, which was said at {place}");
        assert!(frame * 80 >= to || place + 80 <= first, "frame {frame}, which was said at {place}");
    }
    let said = Codec::Pcmu.decode(&sent[1].iter().flat_map(|packet| packet[12..].to_vec()).collect::<Vec<_>>());
    let heard = places(&right, &manifest["called"], &manifest["gaps"], &said);
    let meanwhile = heard.iter().filter(|(frame, _)| (from..to).contains(&(frame * 80))).count();
    assert!(meanwhile * 2 > (to - from) / 80, "{meanwhile} frames of the called while the caller is muted");
    // The call itself went on: the called heard the caller all the time.
    let muted = sent[0].iter().skip(first / 160 + 1).take((next - first) / 160 - 1);
    let passed = pair[1].0.heard();
    assert!(muted.clone().count() > 10 && muted.clone().all(|packet| passed.contains(packet)));
    server.stop();
}
