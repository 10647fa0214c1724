//! What is in the file: real RTP through a real call, compared sample by sample.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use hound::WavReader;
use ringbridge_tests::audio::Codec;
use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::server::text;
use ringbridge_tests::until;
use ringbridge_tests::virtual_time::{VirtualServer, Voice};
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::telephone_event::{TELEPHONE_EVENT_BYTES, TelephoneEvent};
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Row;
use crate::rig::{ALWAYS, ON_DEMAND, Pair, Reply, Rig, Serving, hex, state};

/// Packets of 20 ms between two changes.
const STRETCH: usize = 15;

/// Two endpoints in a call, both speaking.
pub(crate) struct Talk {
    pub(crate) pair: Pair,
    ends: [Endpoint; 2],
    locals: [SocketAddr; 2],
    speakers: [Option<Speaker>; 2],
    sent: [Vec<Vec<u8>>; 2],
    codec: Codec,
}

/// Who was told to be muted, and from which sample of the file on.
type Mutes = Vec<([bool; 2], u64)>;

impl Talk {
    /// A call between these numbers whose parties both speak.
    #[track_caller]
    pub(crate) fn begin(rig: &mut Rig, codec: Codec, caller: &str, called: &str) -> Self {
        rig.control.subscribe(&["recording.started", "recording.muted", "operation.ended"]).unwrap();
        let ends = [Endpoint::open(), Endpoint::open()];
        let created = [0, 1].map(|side: usize| {
            let remote = ends[side].address().to_string();
            rig.native("connection.create", json!({"remote": remote, "codec": codec.name()}))
        });
        let locals = [0, 1].map(|side: usize| text(&created[side]["local"]).parse().unwrap());
        let pair = rig.wire([0, 1].map(|side: usize| text(&created[side]["connection_id"])), caller, called);
        let speakers = [0, 1].map(|side: usize| Some(ends[side].speak(locals[side], speech(side, codec), voice(side))));
        Self { pair, ends, locals, speakers, sent: [Vec::new(), Vec::new()], codec }
    }

    /// Waits until each has heard so many more packets of the other.
    #[track_caller]
    pub(crate) fn pass(&self, packets: usize) {
        for end in &self.ends {
            let before = end.heard_packets();
            end.until("more packets", |heard| (heard.len() >= before + packets).then_some(()));
        }
    }

    /// Both fall silent; what was sent has arrived, byte for byte, in order and nothing else.
    #[track_caller]
    pub(crate) fn fall_silent(&mut self) {
        for side in [0, 1] {
            if let Some(speaker) = self.speakers[side].take() {
                self.sent[side].extend(speaker.stop());
            }
        }
        for side in [0, 1] {
            let sent = &self.sent[side];
            self.ends[1 - side].until("every packet", |heard| (heard.len() >= sent.len()).then_some(()));
            assert!(self.ends[1 - side].heard() == *sent, "the call itself was touched");
        }
    }

    /// What a party said, as it is decoded.
    fn said(&self, side: usize) -> Vec<i16> {
        let packets = self.sent[side].iter().filter(|packet| packet[1] & 0x7f == self.codec.payload_type());
        self.codec.decode(&packets.flat_map(|packet| packet[RTP_HEADER_BYTES..].to_vec()).collect::<Vec<_>>())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // Nobody is to speak to ports that are another's by then.
        for speaker in self.speakers.iter_mut().filter_map(Option::take) {
            speaker.stop();
        }
    }
}

fn speech(side: usize, codec: Codec) -> Speech {
    Speech { codec, ..Speech::new(side as u32 + 1) }
}

/// What a party says: no stretch of a few samples comes twice, nor does the other say it.
fn voice(side: usize) -> impl Fn(usize) -> i16 + Send + 'static {
    move |index| {
        let mixed = (index as u64 * 2 + side as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 49) as i16
    }
}

/// The next event of this name about this operation.
#[track_caller]
fn event(rig: &Rig, name: &str, operation: &str) -> Value {
    until(name, || {
        let event = rig.control.next_event(std::time::Duration::from_millis(10)).unwrap()?;
        (event["event"] == name && event["operation_id"] == operation).then_some(event)
    })
}

/// The operation that records a call, once it runs.
#[track_caller]
fn operation(rig: &Rig, talk: &Talk) -> String {
    until("the recording", || {
        let event = rig.control.next_event(std::time::Duration::from_millis(10)).unwrap()?;
        (event["event"] == "recording.started" && event["caller"] == talk.pair.0[0].as_str())
            .then(|| text(&event["operation_id"]))
    })
}

/// Carries out a mute, and notes what it did to the file.
#[track_caller]
fn mute(rig: &Rig, operation: &str, value: u8, mutes: &mut Mutes, carry_out: impl FnOnce(&Rig) -> Reply) {
    assert_eq!(carry_out(rig).muted(), state(value));
    let event = event(rig, "recording.muted", operation);
    let told = ["caller", "called"].map(|side| event[side] == true);
    assert_eq!(told, [value & 1 == 1, value & 2 == 2]);
    mutes.push((told, (event["media_time_ms"].as_f64().unwrap() * 8.0) as u64));
}

/// Muted stretches of a side in samples, from what was told.
fn muted(mutes: &Mutes, side: usize, end: u64) -> Vec<Range<u64>> {
    let mut stretches: Vec<Range<u64>> = Vec::new();
    let ends = mutes.iter().skip(1).map(|(_, from)| *from).chain([end]);
    for ((state, from), to) in mutes.iter().zip(ends) {
        if !state[side] || *from == to {
            continue;
        }
        match stretches.last_mut().filter(|last| last.end == *from) {
            Some(last) => last.end = to,
            None => stretches.push(*from..to),
        }
    }
    stretches
}

fn spans(list: &Value) -> Vec<Range<u64>> {
    let ms = |gap: &Value, name: &str| gap[name].as_u64().unwrap() * 8;
    list.as_array().unwrap().iter().map(|gap| ms(gap, "at_ms")..ms(gap, "at_ms") + ms(gap, "ms")).collect()
}

/// What a file holds, once it was compared with what was said.
pub(crate) struct Checked {
    pub(crate) manifest: Value,
    pub(crate) channels: [Vec<i16>; 2],
    /// Frames of each side that were found in what it said.
    pub(crate) found: [usize; 2],
}

/// Compares a file with what was said and what was muted, sample by sample.
#[track_caller]
pub(crate) fn check(file: &std::path::Path, talk: &Talk, mutes: &Mutes) -> Checked {
    let mut wav = WavReader::open(file).unwrap();
    let spec = wav.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, 8000, 16));
    let samples: Vec<i16> = wav.samples::<i16>().map(Result::unwrap).collect();
    let channels = [0, 1].map(|side| samples.iter().skip(side).step_by(2).copied().collect::<Vec<i16>>());
    let manifest: Value = serde_json::from_slice(&std::fs::read(file.with_extension("wav.json")).unwrap()).unwrap();
    assert_eq!(manifest["samples"], json!(channels[0].len()), "{manifest}");
    assert_eq!(manifest["sha256"], hex(&Sha256::digest(std::fs::read(file).unwrap())));
    let mut found = [0, 0];
    for (side, party) in ["caller", "called"].into_iter().enumerate() {
        let notes = &manifest[party];
        assert_eq!(notes["unlisted"], 0, "{notes}");
        let expected = muted(mutes, side, channels[side].len() as u64);
        assert_eq!(spans(&notes["muted"]), expected, "{party}: {mutes:?}");
        let silent = [&notes["muted"], &notes["gaps"], &manifest["gaps"]].map(spans).concat();
        let excepted = [silent.clone(), spans(&notes["concealed"])].concat();
        let within = |list: &[Range<u64>], frame: usize| list.iter().any(|span| span.contains(&(frame as u64 * 80)));
        let said = talk.said(side);
        let mut from = 0;
        for (frame, samples) in channels[side].chunks_exact(80).enumerate() {
            if within(&silent, frame) {
                assert!(samples.iter().all(|sample| *sample == 0), "{party}: a sample of frame {frame} is in the file");
            } else if !within(&excepted, frame) {
                let place = said[from..].windows(80).position(|window| window == samples);
                from += place.unwrap_or_else(|| panic!("{party}: frame {frame} is not what was said"));
                found[side] += 1;
            }
        }
    }
    Checked { manifest, channels, found }
}

/// A call in which these values follow each other, each asked for in another way; everything about it is looked at.
fn conversation(rig: &mut Rig, codec: Codec, values: &[u8]) {
    let number = rig.number(0);
    let mut talk = Talk::begin(rig, codec, &number, ALWAYS);
    let operation = operation(rig, &talk);
    let id = rig.id(&number, "ongoing");
    let mut mutes = Mutes::new();
    for (step, &value) in values.iter().enumerate() {
        talk.pass(STRETCH);
        mute(rig, &operation, value, &mut mutes, |rig| match step % 2 {
            0 => rig.ok(&format!("action=MuteRecording&callID={id}&mute={value}")),
            _ => rig.ok(&format!("action=MuteRecording&extension={number}&status=ongoing&mute={value}")),
        });
        assert_eq!(rig.muted(&id), state(value));
    }
    talk.pass(STRETCH);
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    let checked = check(&rig.file(&id), &talk, &mutes);
    assert_eq!(checked.manifest["state"], "complete");
    let end = checked.channels[0].len() as u64;
    for side in [0, 1] {
        let silent: u64 = muted(&mutes, side, end).iter().map(|span| span.end - span.start).sum();
        // What it says while it is not muted is there, but for what a noisy machine delays.
        let heard = end.saturating_sub(silent) / 80;
        assert!(checked.found[side] as u64 * 3 >= heard, "{} of {heard} frames of side {side}", checked.found[side]);
    }
    // The file over HTTP is the one that was looked at.
    let answer =
        rig.request("GET", &format!("/verba/api?action=GetMediaEncoded&apiKey={}&cid={id}", crate::rig::OPEN), &[], "");
    assert_eq!(checked.manifest["sha256"], hex(&Sha256::digest(&answer.body)));
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let sequences: [&[u8]; 10] =
        [&[], &[1], &[2], &[3], &[1, 0], &[2, 0], &[3, 0], &[1, 2, 1], &[3, 1, 2, 0], &[2, 2, 3, 0, 1]];
    for values in sequences {
        let name: String = values.iter().map(|value| format!("_{value}")).collect();
        rows.push(Row::new(format!("media::muted{name}"), move |rig| conversation(rig, Codec::Pcmu, values)));
    }
    rows.push(Row::new("media::a_law", |rig| conversation(rig, Codec::Pcma, &[1, 0, 2])));
    let mut row = |name: &str, run: fn(&mut Rig)| rows.push(Row::new(format!("media::{name}"), run));
    row("muted_over_the_control_socket", control_socket);
    row("recorded_by_operation_start_on_either_side", either_side);
    row("muted_from_its_beginning", from_the_beginning);
    row("on_demand_kept_and_not", on_demand);
    row("digits_of_a_muted_party", digits);
    row("a_party_that_falls_silent", silent_party);
    row("packets_that_are_lost", lost_packets);
    row("muted_up_to_the_end_though_the_token_is_gone", to_the_end);
    rows.push(Row::alone("media::wired_parties_do_not_move", moved));
    rows.push(Row::alone("media::stamps_on_virtual_time", stamps));
    rows
}

fn control_socket(rig: &mut Rig) {
    let (caller, called) = (rig.number(0), rig.number(1));
    let mut talk = Talk::begin(rig, Codec::Pcmu, &caller, &called);
    let operation = rig.record(&talk.pair);
    let id = rig.id(&caller, "ongoing");
    let path = text(&event(rig, "recording.started", &operation)["path"]);
    let mut mutes = Mutes::new();
    for (channels, value) in [("caller", 1), ("both", 3), ("called", 2), ("none", 0)] {
        talk.pass(STRETCH);
        mute(rig, &operation, value, &mut mutes, |rig| {
            let told = rig.native("recording.mute", json!({"operation_id": operation, "channels": channels}));
            let ms = |name: &str| told["effect"][name].as_f64().unwrap();
            assert!(ms("media_time_ms") >= ms("received_media_time_ms"), "{told}");
            rig.ok(&format!("action=MuteRecording&callID={id}"))
        });
    }
    talk.pass(STRETCH);
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    let checked = check(&rig.directory.join("recordings").join(path), &talk, &mutes);
    assert!(checked.found[0] > 20 && checked.found[1] > 20, "{:?}", checked.found);
}

fn either_side(rig: &mut Rig) {
    for side in [0, 1] {
        let (caller, called) = (rig.number(side * 2), rig.number(side * 2 + 1));
        let mut talk = Talk::begin(rig, Codec::Pcmu, &caller, &called);
        let [a, b] = talk.pair.0.clone();
        let on = talk.pair.0[side as usize].clone();
        let path = format!("sides/{caller}.wav");
        let started = rig.native(
            "operation.start",
            json!({"kind": "record", "connection_id": on, "path": path, "channels": {"caller": a, "called": b}}),
        );
        let operation = text(&started["operation_id"]);
        let id = rig.id(&called, "ongoing");
        let mut mutes = Mutes::new();
        talk.pass(STRETCH);
        mute(rig, &operation, 1, &mut mutes, |rig| rig.ok(&format!("action=MuteRecording&callID={id}&mute=1")));
        talk.pass(STRETCH);
        talk.fall_silent();
        // Stopped, not hung up.
        rig.native("operation.stop", json!({"connection_id": on, "operation_id": operation}));
        let checked = check(&rig.directory.join("recordings").join(&path), &talk, &mutes);
        assert!(checked.found[1] > checked.found[0] && checked.found[0] > 3, "{:?}", checked.found);
        rig.finish(&talk.pair, &id);
    }
}

fn from_the_beginning(rig: &mut Rig) {
    let number = rig.number(0);
    let held = rig.hold(&format!("action=MuteRecording&extension={number}&status=next&mute=3"));
    rig.settle();
    let mut talk = Talk::begin(rig, Codec::Pcmu, &number, ALWAYS);
    let operation = operation(rig, &talk);
    let mut mutes = Mutes::new();
    mute(rig, &operation, 3, &mut mutes, |_| Reply::of(held.finish()));
    let id = rig.id(&number, "ongoing");
    talk.pass(2 * STRETCH);
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    let checked = check(&rig.file(&id), &talk, &mutes);
    for channel in &checked.channels {
        assert!(channel[mutes[0].1 as usize..].iter().all(|sample| *sample == 0));
    }
}

fn on_demand(rig: &mut Rig) {
    for (which, keep) in [(0, true), (1, false)] {
        let number = rig.number(which);
        let mut talk = Talk::begin(rig, Codec::Pcmu, &number, ON_DEMAND);
        let id = rig.id(&number, "ongoing");
        talk.pass(2 * STRETCH);
        if keep {
            rig.ok(&format!("action=KeepCall&extension={number}&status=ongoing"));
        }
        talk.fall_silent();
        if keep {
            rig.finish(&talk.pair, &id);
            let checked = check(&rig.file(&id), &talk, &Mutes::new());
            assert!(checked.found[0] > 10 && checked.found[1] > 10, "{:?}", checked.found);
        } else {
            rig.hang_up(&talk.pair);
            rig.gone(&id);
        }
    }
}

/// A packet of a telephone-event (RFC 4733) that follows so many packets of the caller's speech.
fn event_packet(before: usize, number: u16) -> Vec<u8> {
    let speech = speech(0, Codec::Pcmu);
    let mut payload = [0; TELEPHONE_EVENT_BYTES];
    TelephoneEvent { event: 5, end: number >= 3, volume: 10, duration: 160 * number.min(3) }.emit(&mut payload);
    let header = RtpHeader {
        marker: number == 0,
        payload_type: 101,
        sequence_number: SeqNumber(speech.sequence.wrapping_add(before as u16).wrapping_add(number)),
        timestamp: RtpTimestamp(speech.timestamp.wrapping_add(before as u32 * 160)),
        ssrc: Ssrc(speech.ssrc),
    };
    let mut head = [0; RTP_HEADER_BYTES];
    header.emit(&mut head);
    [&head[..], &payload].concat()
}

fn digits(rig: &mut Rig) {
    let number = rig.number(0);
    let mut talk = Talk::begin(rig, Codec::Pcmu, &number, ALWAYS);
    let operation = operation(rig, &talk);
    let id = rig.id(&number, "ongoing");
    let mut mutes = Mutes::new();
    talk.pass(STRETCH);
    mute(rig, &operation, 1, &mut mutes, |rig| rig.ok(&format!("action=MuteRecording&callID={id}&mute=1")));
    // The caller types what nobody is to see; it is his only stream meanwhile.
    talk.sent[0].extend(talk.speakers[0].take().unwrap().stop());
    let before = talk.sent[0].len();
    talk.ends[1].until("what was said", |heard| (heard.len() >= before).then_some(()));
    for packet in 0..6 {
        let bytes = event_packet(before, packet);
        talk.ends[0].send(talk.locals[0], &bytes);
        talk.sent[0].push(bytes);
        talk.ends[1]
            .until("the event, passed on", |heard| (heard.len() >= before + usize::from(packet) + 1).then_some(()));
    }
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    let checked = check(&rig.file(&id), &talk, &mutes);
    assert!(checked.channels[0][mutes[0].1 as usize..].iter().all(|sample| *sample == 0));
    // Neither does anything beside the file tell the digit.
    assert!(!checked.manifest.to_string().contains("digit"), "{}", checked.manifest);
}

fn silent_party(rig: &mut Rig) {
    let number = rig.number(0);
    let mut talk = Talk::begin(rig, Codec::Pcmu, &number, ALWAYS);
    let id = rig.id(&number, "ongoing");
    talk.pass(2 * STRETCH);
    talk.sent[0].extend(talk.speakers[0].take().unwrap().stop());
    let before = talk.ends[0].heard_packets();
    talk.ends[0].until("the other to go on", |heard| (heard.len() >= before + 40).then_some(()));
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    let checked = check(&rig.file(&id), &talk, &Mutes::new());
    let total = |list: &Value| spans(list).iter().map(|span| (span.end - span.start) / 8).sum::<u64>();
    let [caller, called] = ["caller", "called"].map(|party| total(&checked.manifest[party]["gaps"]));
    assert!(caller > called + 300, "{caller} ms and {called} ms in which nothing came");
}

fn lost_packets(rig: &mut Rig) {
    let number = rig.number(0);
    let mut talk = Talk::begin(rig, Codec::Pcmu, &number, ALWAYS);
    let id = rig.id(&number, "ongoing");
    talk.pass(STRETCH);
    // The caller goes on by hand: one packet in five never arrives. The pace is that of the other's packets.
    talk.sent[0].extend(talk.speakers[0].take().unwrap().stop());
    let from = talk.sent[0].len();
    let lost = |number: usize| number % 5 == 3;
    for number in from..from + 60 {
        let packet = speech(0, Codec::Pcmu).packet(number, voice(0));
        if !lost(number) {
            talk.ends[0].send(talk.locals[0], &packet);
            talk.sent[0].push(packet);
        }
        let before = talk.ends[0].heard_packets();
        talk.ends[0].until("the next packet", |heard| (heard.len() > before).then_some(()));
    }
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    // What is not noted as concealed or a gap is what was said, in order.
    let checked = check(&rig.file(&id), &talk, &Mutes::new());
    let notes = &checked.manifest["caller"];
    let noted = spans(&notes["concealed"]).len() + spans(&notes["gaps"]).len();
    assert!(noted >= 6, "{notes}");
}

fn to_the_end(rig: &mut Rig) {
    use crate::rig::STRICT;
    let number = rig.number(0);
    let mut talk = Talk::begin(rig, Codec::Pcmu, &number, ALWAYS);
    let operation = operation(rig, &talk);
    let id = rig.id(&number, "ongoing");
    let token = rig.token("anna", STRICT);
    let mut mutes = Mutes::new();
    mute(rig, &operation, 2, &mut mutes, |rig| {
        rig.get(&format!("action=MuteRecording&apiKey={STRICT}&token={token}&callID={id}&mute=2"))
    });
    assert_eq!(rig.get(&format!("action=ReleaseToken&apiKey={STRICT}&token={token}")).code(), "0");
    talk.pass(2 * STRETCH);
    talk.fall_silent();
    rig.finish(&talk.pair, &id);
    let checked = check(&rig.file(&id), &talk, &mutes);
    assert!(checked.found[0] > 10, "{:?}", checked.found);
    assert_eq!(rig.muted(&id), state(2));
}

/// Parties that are wired to each other stay on their shard: whoever wants them elsewhere is refused, and the recording
/// goes on.
fn moved() {
    let serving = Serving::start(8, 2, "");
    let mut rig = serving.rig();
    let number = rig.number(0);
    let ends = [Endpoint::open(), Endpoint::open()];
    let legs = [0, 1].map(|side: usize| {
        let remote = ends[side].address().to_string();
        text(&rig.native("connection.create", json!({"remote": remote, "shard": side}))["connection_id"])
    });
    // The called comes over to the caller's shard.
    let pair = rig.wire(legs, &number, ALWAYS);
    let id = rig.id(&number, "ongoing");
    for connection in &pair.0 {
        assert_eq!(rig.native("connection.get", json!({"connection_id": connection}))["shard"], 0);
    }
    let room = text(&rig.native("conference.create", json!({"shard": 1}))["conference_id"]);
    for connection in &pair.0 {
        let given = json!({"conference_id": room, "connection_id": connection});
        let refused = rig.control.call("conference.join", &given).unwrap_err();
        assert!(refused.to_string().contains("1005"), "{refused}");
    }
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}&mute=3")).muted(), state(3));
    rig.finish(&pair, &id);
    drop(rig);
    serving.server.stop();
}

/// On virtual time: a mute takes effect two frames after it was received at most, whenever it comes, and exactly there.
fn stamps() {
    let mut server = VirtualServer::start();
    let phones = [0, 1].map(|_| {
        let phone = server.phone();
        let remote = server.address(phone).to_string();
        let created = server.method("connection.create", json!({"remote": remote})).unwrap();
        let local: SocketAddr = text(&created["local"]).parse().unwrap();
        (phone, text(&created["connection_id"]), local)
    });
    let [a, b] = [0, 1].map(|side: usize| phones[side].1.clone());
    server.method("relay.start", json!({"a": a, "b": b})).unwrap();
    for (side, (phone, _, local)) in phones.iter().enumerate() {
        server.talk(*phone, *local, Voice::Tone(400 + 300 * side as u32));
    }
    server.pass(200);
    let start =
        json!({"kind": "record", "connection_id": a, "path": "call.wav", "channels": {"caller": a, "called": b}});
    let operation = text(&server.method("operation.start", start).unwrap()["operation_id"]);
    let mut mutes: BTreeMap<u64, [bool; 2]> = BTreeMap::new();
    for step in 0..120_u64 {
        // At every offset from a frame.
        server.pass(93 + step % 11);
        let value = [1, 3, 0, 2, 0, 3, 2, 1][step as usize % 8];
        let channels = ["none", "caller", "called", "both"][value];
        let told = server.method("recording.mute", json!({"operation_id": operation, "channels": channels})).unwrap();
        let ms = |name: &str| told["effect"][name].as_f64().unwrap();
        let delay = ms("media_time_ms") - ms("received_media_time_ms");
        assert!((0.0..=20.0).contains(&delay), "{delay} ms: {told}");
        mutes.insert(ms("media_time_ms") as u64 * 8, [value & 1 == 1, value & 2 == 2]);
    }
    server.pass(300);
    server.method("operation.stop", json!({"connection_id": a})).unwrap();
    server.pass_until("the end", 1000, |server| {
        server.method_events().into_iter().find(|event| event["event"] == "operation.ended")
    });
    let mut wav = WavReader::open(server.recording("call.wav")).unwrap();
    let samples: Vec<i16> = wav.samples::<i16>().map(Result::unwrap).collect();
    let manifest = std::fs::read(server.recording("call.wav.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let gaps = ["caller", "called"].map(|party| spans(&manifest[party]["gaps"]));
    // The recording begins before the first packet is due; nothing is missing afterwards.
    assert!(gaps.iter().flatten().all(|gap| gap.end < 1600), "{gaps:?}");
    for (frame, samples) in samples.chunks_exact(160).enumerate() {
        let state = mutes.range(..=frame as u64 * 80).next_back().map_or([false, false], |(_, state)| *state);
        for side in [0, 1] {
            let is_silent = samples.iter().skip(side).step_by(2).all(|sample| *sample == 0);
            let is_missing = gaps[side].iter().any(|gap| gap.contains(&(frame as u64 * 80)));
            assert_eq!(is_silent, state[side] || is_missing, "side {side} at {} ms", frame * 10);
        }
    }
}
