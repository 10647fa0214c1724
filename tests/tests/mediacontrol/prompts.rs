//! Section 11: where prompts are found, what formats are read and written, and what recordings are called.

use ringbridge_codec::g711;
use ringbridge_tests::audio;
use serde_json::{Value, json};

use crate::rig::{Leg, Rig, text};
use crate::row::{Plain, Row};

/// Files that exist (path below the base, frequency), application and locale, the prompt, what is heard.
type Case =
    (&'static str, &'static [(&'static str, u32)], Option<&'static str>, Option<&'static str>, &'static str, u32);

const LOOKUPS: [Case; 9] = [
    ("base", &[("a.wav", 500)], None, None, "a.wav", 500),
    ("application_before_base", &[("a.wav", 500), ("ivr/en-US/a.wav", 700)], Some("ivr"), Some("en-US"), "a.wav", 700),
    ("locale_is_en_us", &[("a.wav", 500), ("ivr/en-US/a.wav", 700)], Some("ivr"), None, "a.wav", 700),
    (
        "the_scripts_locale",
        &[("ivr/de-DE/a.wav", 900), ("ivr/en-US/a.wav", 700)],
        Some("ivr"),
        Some("de-DE"),
        "a.wav",
        900,
    ),
    (
        "another_locale_is_not_taken",
        &[("a.wav", 500), ("ivr/en-US/a.wav", 700)],
        Some("ivr"),
        Some("de-DE"),
        "a.wav",
        500,
    ),
    ("another_application_is_not_taken", &[("a.wav", 500), ("ivr/en-US/a.wav", 700)], Some("shop"), None, "a.wav", 500),
    ("a_directory_below", &[("sub/a.wav", 600)], None, None, "sub/a.wav", 600),
    ("a_directory_below_the_locale", &[("ivr/en-US/sub/a.wav", 800)], Some("ivr"), None, "sub/a.wav", 800),
    ("a_full_path", &[("sub/a.wav", 600)], None, None, "$BASE/sub/a.wav", 600),
];

pub(crate) fn rows() -> Vec<Row> {
    let lookups = LOOKUPS.into_iter().map(|(name, files, application, locale, prompt, hz)| {
        Row::new(format!("prompts::lookup::{name}"), move |rig| {
            for (path, hz) in files {
                rig.tone(path, *hz, 600);
            }
            (rig.application, rig.locale) = (application.map(str::to_owned), locale.map(str::to_owned));
            let base = rig.server.prompt("");
            let prompt = prompt.replace("$BASE", base.to_str().expect("text").trim_end_matches('/'));
            let leg = rig.connect();
            let began = rig.ms();
            let play = rig.operation("Play", json!({"ConnectionId": leg.id, "Prompt1": prompt}));
            assert_eq!(rig.end(&play).condition(), "eod");
            assert!(rig.at(&leg).share(hz, began, began + 600) > 0.9);
        })
    });
    // Vox: encoding, kHz, bits; bytes of one second.
    let vox = [
        ("ulaw", 8, 8, 8000),
        ("alaw", 8, 8, 8000),
        ("pcm", 8, 8, 8000),
        ("pcm", 8, 16, 16_000),
        ("ulaw", 6, 8, 6000),
        ("pcm", 11, 16, 22_050),
        ("adpcm", 8, 4, 4000),
        ("adpcm", 6, 4, 3000),
    ];
    let formats = vox.into_iter().flat_map(|(encoding, rate, bits, bytes)| {
        ["vox", "wav"].into_iter().map(move |container| {
            Row::new(format!("prompts::recorded_{container}_{encoding}_{rate}_kHz_{bits}_bit"), move |rig| {
                record_and_play(rig, container, encoding, rate, bits, bytes);
            })
        })
    });
    let rows: [Plain; 11] = [
        ("three_prompts_without_a_gap", three),
        ("formats_may_be_mixed", mixed),
        ("a_headerless_prompt_is_ulaw_at_8_kHz", headerless),
        ("a_missing_prompt_among_three_plays_nothing", missing),
        ("seek_begins_in_the_middle", seek),
        ("a_name_is_made_up", made_up_name),
        ("the_format_follows_the_name", by_name),
        ("two_recordings_without_a_name_are_two_files", two_names),
        ("a_recording_of_silence_keeps_the_silence", trailing_silence),
        ("a_member_is_recorded_in_the_mix", member),
        ("a_conference_is_recorded_as_a_whole", conference),
    ];
    let rows = rows.into_iter().map(|(name, run)| Row::new(format!("prompts::{name}"), run));
    lookups.chain(formats).chain(rows).chain(speech()).collect()
}

/// Text to speech, by a program that says the same whatever the text.
fn speech() -> Vec<Row> {
    let spoken = tempfile::tempdir().expect("a directory").keep().join("spoken.wav");
    let row = |name: &str, run: fn(&mut Rig)| {
        let spoken = spoken.clone();
        Row::new(format!("prompts::speech::{name}"), run).on(move |config| {
            let samples: Vec<i16> = (0..6400).map(|index| audio::tone(1200, 8000, index)).collect();
            audio::write_wav(&spoken, &samples);
            let program = ["/bin/cp", spoken.to_str().expect("text"), "{output}"];
            config.tts.command = Some(program.map(str::to_owned).to_vec());
        })
    };
    vec![
        row("a_text_is_spoken", |rig| is_spoken(rig, "Please hold the line")),
        row("a_name_that_is_nowhere_is_spoken", |rig| is_spoken(rig, "nothing.wav")),
        row("a_full_path_that_is_nowhere_is_spoken", |rig| {
            let path = rig.server.prompt("nothing.wav");
            is_spoken(rig, path.to_str().expect("text"));
        }),
        row("a_file_comes_before_speech", |rig| {
            rig.tone("hello", 500, 300);
            rig.tone("hello.wav", 500, 300);
            let leg = rig.connect();
            let (began, event) = play(rig, &leg, json!({"Prompt1": "hello.wav"}));
            assert!(rig.at(&leg).share(500, began, event.ms) > 0.8);
        }),
        row("text_and_file_in_one_play", |rig| {
            rig.tone("a.wav", 500, 400);
            let leg = rig.connect();
            let (_, event) = play(rig, &leg, json!({"Prompt1": "You have", "Prompt2": "a.wav", "Prompt3": "messages"}));
            assert!(event.elapsed().abs_diff(2000) <= 20, "{event:?}");
        }),
        row("nothing_is_spoken_for_a_path_outside", |rig| {
            let leg = rig.connect();
            assert_eq!(rig.code("Play", json!({"ConnectionId": leg.id, "Prompt1": "../../../etc/hosts.wav"})), 30);
        }),
    ]
}

fn is_spoken(rig: &mut Rig, prompt: &str) {
    let leg = rig.connect();
    let (began, event) = play(rig, &leg, json!({"Prompt1": prompt}));
    assert_eq!(event.condition(), "eod");
    assert!(event.elapsed().abs_diff(800) <= 20, "{event:?}");
    assert!(rig.at(&leg).share(1200, began, event.ms) > 0.8);
}

fn record_and_play(rig: &mut Rig, container: &str, encoding: &str, rate: u32, bits: u32, bytes: u64) {
    let leg = rig.connect_saying(ringbridge_tests::virtual_time::Voice::Tone(800));
    rig.pass(300);
    let name = format!("r.{container}");
    let format = |mut params: Value| {
        params["ConnectionId"] = leg.id.as_str().into();
        params["AudioFileEncoding"] = encoding.into();
        params["AudioFileSampleRate"] = rate.into();
        params["AudioFileSampleSize"] = bits.into();
        params
    };
    let started = rig.ok("Record", format(json!({"Filename": name, "TermCondMaxTime": 2000})));
    assert_eq!(text(&started["Filename"]), name);
    let event = rig.end(&text(&started["OperationId"]));
    assert_eq!((event.condition().as_str(), event.text("Filename").as_str()), ("maxtime", name.as_str()));
    let recording = rig.server.recording(&name);
    let size = std::fs::metadata(&recording).expect("a file").len();
    let data = 2 * bytes;
    let slack = data / 50 + if container == "wav" { 600 } else { 0 };
    assert!(size.abs_diff(data) <= slack, "{size} bytes instead of {data}");
    // Played again, with nothing said of a wav, and its attributes for a vox.
    std::fs::copy(&recording, rig.server.prompt(&name)).expect("copied");
    let began = rig.ms();
    let again = match container {
        "wav" => json!({"ConnectionId": leg.id, "Prompt1": name}),
        _ => format(json!({"Prompt1": name})),
    };
    let play = rig.operation("Play", again);
    let event = rig.end(&play);
    assert_eq!(event.condition(), "eod");
    assert!(event.elapsed().abs_diff(2000) <= 40, "{event:?}");
    let share = rig.at(&leg).share(800, began + 200, began + 1900);
    assert!((0.8..1.2).contains(&share), "{share}");
}

fn play(rig: &mut Rig, leg: &Leg, mut params: Value) -> (u64, crate::rig::Event) {
    params["ConnectionId"] = leg.id.as_str().into();
    let began = rig.ms();
    let operation = rig.operation("Play", params);
    (began, rig.end(&operation))
}

fn three(rig: &mut Rig) {
    for (name, hz) in [("a.wav", 500), ("b.wav", 700), ("c.wav", 900)] {
        rig.tone(name, hz, 400);
    }
    let leg = rig.connect();
    let (began, event) = play(rig, &leg, json!({"Prompt1": "a.wav", "Prompt2": "b.wav", "Prompt3": "c.wav"}));
    assert!(event.elapsed().abs_diff(1200) <= 20, "{event:?}");
    let samples = rig.at(&leg).samples(began, event.ms + 40);
    assert!(samples.len().abs_diff(9600) <= 160, "{}", samples.len());
    for (part, hz) in [(0, 500), (1, 700), (2, 900)] {
        assert!(audio::share(&samples[part * 3200 + 200..(part + 1) * 3200 - 200], hz) > 0.9, "{hz}");
    }
}

fn ulaw(hz: u32, samples: usize) -> Vec<u8> {
    let pcm: Vec<i16> = (0..samples).map(|index| audio::tone(hz, 8000, index)).collect();
    let mut bytes = vec![0; samples];
    g711::encode_ulaw(&pcm, &mut bytes);
    bytes
}

fn mixed(rig: &mut Rig) {
    rig.tone("a.wav", 500, 400);
    std::fs::create_dir_all(rig.server.prompt("")).expect("a directory");
    std::fs::write(rig.server.prompt("b.vox"), ulaw(700, 3200)).expect("written");
    let leg = rig.connect();
    let (_, event) = play(rig, &leg, json!({"Prompt1": "a.wav", "Prompt2": "b.vox"}));
    assert_eq!(event.condition(), "eod");
    assert!(event.elapsed().abs_diff(800) <= 20, "{event:?}");
}

fn headerless(rig: &mut Rig) {
    std::fs::create_dir_all(rig.server.prompt("")).expect("a directory");
    std::fs::write(rig.server.prompt("a.vox"), ulaw(700, 8000)).expect("written");
    let leg = rig.connect();
    let (began, event) = play(rig, &leg, json!({"Prompt1": "a.vox"}));
    assert!(event.elapsed().abs_diff(1000) <= 20, "{event:?}");
    assert!(rig.at(&leg).share(700, began, began + 1000) > 0.9);
}

fn missing(rig: &mut Rig) {
    rig.tone("a.wav", 500, 400);
    let leg = rig.connect();
    let params = json!({"ConnectionId": leg.id, "Prompt1": "a.wav", "Prompt2": "b.wav", "Prompt3": "a.wav"});
    assert_eq!(rig.code("Play", params), 30);
    rig.pass(1000);
    assert_eq!(rig.at(&leg).heard(), []);
    assert_eq!(rig.events(), []);
}

fn seek(rig: &mut Rig) {
    let samples: Vec<i16> =
        (0..16_000).map(|index| audio::tone(if index < 8000 { 500 } else { 900 }, 8000, index)).collect();
    audio::write_wav(&rig.server.prompt("a.wav"), &samples);
    let leg = rig.connect();
    let began = rig.ms();
    let operation =
        rig.operation("SeekAndPlay", json!({"ConnectionId": leg.id, "Prompt": "a.wav", "SeekPosition": 1000}));
    let event = rig.end(&operation);
    assert_eq!(event.name, "SeekAndPlay_Complete");
    assert!((event.ms - began).abs_diff(1000) <= 20, "{event:?}");
    assert!(rig.at(&leg).share(900, began, began + 1000) > 0.9);
}

fn made_up_name(rig: &mut Rig) {
    let leg = rig.connect();
    let started = rig.ok("Record", json!({"ConnectionId": leg.id, "TermCondMaxTime": 300}));
    let name = text(&started["Filename"]);
    let (stem, extension) = name.rsplit_once('.').expect("an extension");
    assert!(stem.len() == 8 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    assert_eq!(extension, "vox", "the default format");
    assert_eq!(rig.end(&text(&started["OperationId"])).text("Filename"), name);
    assert!(rig.server.recording(&name).exists());
}

fn by_name(rig: &mut Rig) {
    let leg = rig.connect();
    for (params, extension, riff) in [
        (json!({"Filename": "a.wav"}), "wav", true),
        (json!({"Filename": "b.vox"}), "vox", false),
        (json!({"AudioFileFormat": "WAV"}), "wav", true),
    ] {
        let mut params = params;
        params["ConnectionId"] = leg.id.as_str().into();
        params["TermCondMaxTime"] = 200.into();
        let started = rig.ok("Record", params);
        rig.end(&text(&started["OperationId"]));
        let name = text(&started["Filename"]);
        assert!(name.ends_with(extension), "{name}");
        let bytes = std::fs::read(rig.server.recording(&name)).expect("a file");
        assert_eq!(bytes.starts_with(b"RIFF"), riff, "{name}");
    }
}

fn two_names(rig: &mut Rig) {
    let leg = rig.connect();
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let started = rig.ok("Record", json!({"ConnectionId": leg.id, "TermCondMaxTime": 20}));
        rig.end(&text(&started["OperationId"]));
        assert!(names.insert(text(&started["Filename"])));
    }
}

fn trailing_silence(rig: &mut Rig) {
    let leg = rig.connect_saying(ringbridge_tests::virtual_time::Voice::Tone(700));
    rig.pass(300);
    let started = rig.ok("Record", json!({"ConnectionId": leg.id, "Filename": "s.vox", "TermCondSilence": 1500}));
    rig.pass(1000);
    rig.at(&leg).say(ringbridge_tests::virtual_time::Voice::Silence);
    let event = rig.end(&text(&started["OperationId"]));
    assert_eq!(event.condition(), "silence");
    let size = std::fs::metadata(rig.server.recording("s.vox")).expect("a file").len();
    assert!(size.abs_diff(8 * 2500) <= 8 * 80, "{size} bytes are not 2.5 s");
}

fn member(rig: &mut Rig) {
    use ringbridge_tests::virtual_time::Voice;
    let legs = [rig.connect_saying(Voice::Tone(500)), rig.connect_saying(Voice::Tone(900))];
    rig.mixed(&[&legs[0], &legs[1]]);
    rig.pass(500);
    let pcm = json!({"ConnectionId": legs[0].id, "Filename": "m.wav", "AudioFileEncoding": "pcm", "AudioFileSampleSize": 16, "TermCondMaxTime": 1000});
    let operation = rig.operation("Record", pcm);
    rig.end(&operation);
    let now = rig.ms();
    assert!(rig.at(&legs[1]).share(500, now - 500, now) > 0.5, "it stayed in the mix");
    let samples = samples(rig, "m.wav");
    assert!(
        audio::share(&samples[800..], 500) > 0.8 && audio::share(&samples[800..], 900) < 0.1,
        "what it says, alone"
    );
}

fn conference(rig: &mut Rig) {
    use ringbridge_tests::virtual_time::Voice;
    let legs = [rig.connect_saying(Voice::Tone(500)), rig.connect_saying(Voice::Tone(900))];
    let conference = rig.mixed(&[&legs[0], &legs[1]]);
    rig.pass(500);
    let pcm = json!({"ConferenceId": conference, "Filename": "c.wav", "AudioFileEncoding": "pcm", "AudioFileSampleSize": 16, "TermCondMaxTime": 1000});
    let operation = rig.operation("Record", pcm);
    rig.end(&operation);
    let samples = samples(rig, "c.wav");
    assert!(audio::share(&samples[800..], 500) > 0.7 && audio::share(&samples[800..], 900) > 0.7, "both");
}

fn samples(rig: &Rig, name: &str) -> Vec<i16> {
    let mut file = hound::WavReader::open(rig.server.recording(name)).expect("a file");
    file.samples().map(|sample| sample.expect("a sample")).collect()
}
