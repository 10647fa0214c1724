//! The judge on sessions made by a server small enough to be right, and by the same with one fault each.
#![expect(clippy::cast_possible_truncation, reason = "times and samples of a short session")]

use std::time::Duration;

use ringbridge_codec::g711;
use ringbridge_wire::{RTP_HEADER_BYTES, RtpHeader, RtpTimestamp, SeqNumber, Ssrc};
use serde_json::{Value, json};

use super::clips::{self, Payload, SILENCE, SPEAKERS};
use super::judge::{Judgement, judge};
use super::session::{Change, Effect, Member, Recorded, Session, Stamp};
use super::stream::{Heard, PACKET_SAMPLES, Packet, Sent};

/// What goes wrong, besides nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Faults {
    /// Everybody hears herself too, with this gain.
    echo: f64,
    /// Carol hears nothing of Alice.
    deaf: bool,
    /// The muted is heard this much longer.
    mute_leak_ms: u64,
    /// The announcement is heard this much longer.
    announcement_leak_ms: u64,
    /// The announcement stops this much before its stamp.
    announcement_early_ms: u64,
    /// Unmuting does nothing.
    stays_muted: bool,
    /// Packets sent past the end of a deleted stream.
    late_packets: usize,
    /// The deleted goes on to be heard.
    ghost: bool,
    /// The recording lacks Bob.
    recording_hole: bool,
    /// The announcement's end is told twice.
    ended_twice: bool,
    /// The announcement's end is told as something else.
    wrong_condition: bool,
    /// The conference's end is not told.
    no_conference_end: bool,
    /// A relayed byte changes.
    relay_bit: bool,
    /// A relayed packet is lost.
    relay_loss: bool,
    /// Two relayed packets change places.
    relay_order: bool,
    /// A sequence number of a mix is left out.
    mix_gap: bool,
    /// The mute's answer holds no stamps.
    no_stamps: bool,
    /// No fault of the server: the machine is busy, packets come late, voices have holes and shift.
    busy: bool,
}

// The session in milliseconds since it began.
const SPEAK: [u64; 3] = [1000, 1040, 1080];
const STREAM: u64 = 1200;
const TALKING: u64 = 1900;
const RECORDED: u64 = 4900;
const ANNOUNCED: u64 = 4960;
const PLAYED: u64 = 4970;
/// In the middle of a packet.
const STOPPED: u64 = 7510;
const MUTED: u64 = 9010;
const UNMUTED: u64 = 10_530;
const DELETED: u64 = 12_040;
const LEFT: u64 = 13_600;
const DELAYS: [u64; 3] = [37, 41, 58];

fn packet(number: u16, index: usize, at_ms: u64, payload: &[u8]) -> Packet {
    let header = RtpHeader {
        marker: index == 0,
        payload_type: 0,
        sequence_number: SeqNumber(65_500).wrapping_add(index as u16),
        timestamp: RtpTimestamp(base(number).wrapping_add((index * PACKET_SAMPLES) as u32)),
        ssrc: Ssrc(u32::from(number)),
    };
    let mut head = [0; RTP_HEADER_BYTES];
    header.emit(&mut head);
    Packet { at: Duration::from_millis(at_ms), bytes: [&head, payload].concat() }
}

/// First timestamp of a stream; wraps soon.
fn base(number: u16) -> u32 {
    u32::MAX - 20_000 - 777 * u32::from(number)
}

fn sent(number: u16, start_ms: u64, payloads: impl Iterator<Item = Payload>) -> Sent {
    let packets =
        payloads.enumerate().map(|(index, payload)| packet(number, index, start_ms + 20 * index as u64, &payload));
    Sent { packets: packets.collect() }
}

/// All that is said, as samples.
fn said(sent: &Sent) -> Vec<i32> {
    sent.voice("").samples.iter().map(|sample| *sample as i32).collect()
}

/// Whether a voice has a hole at a time, on a busy machine: some 30 of 1000 ms, in runs of 10 and 20.
fn is_late(faults: Faults, speaker: usize, ms: u64) -> bool {
    let frame = ms / 10 + 1000 * speaker as u64;
    faults.busy && (frame.wrapping_mul(2_654_435_761) >> 7).is_multiple_of(40)
}

/// What the mixing server says at a time to a listener (or to its recorder).
fn mixed(faults: Faults, voices: &[Vec<i32>; 3], prompt: &[i32], listener: Option<usize>, sample: u64) -> i16 {
    let ms = STREAM + sample / 8;
    let of = |samples: &[i32], start_ms: u64| {
        let at = (STREAM * 8 + sample).checked_sub(start_ms * 8);
        at.and_then(|at| samples.get(at as usize)).copied().unwrap_or(0)
    };
    let mut sum = 0.0;
    for speaker in 0..3 {
        let gain = if listener == Some(speaker) { faults.echo } else { 1.0 };
        let muted = speaker == 1 && ms >= MUTED + faults.mute_leak_ms && (ms < UNMUTED || faults.stays_muted);
        let gone = speaker == 2 && ms >= DELETED && !faults.ghost;
        let hole = (speaker == 1 && listener.is_none() && faults.recording_hole)
            || (speaker == 0 && listener == Some(2) && faults.deaf);
        // A burst makes a jitter buffer wait longer, for a while or from then on; the room of two has shorter ways.
        let shift = match ms {
            _ if !faults.busy => 0,
            2600..3400 => 180,
            3400..4000 => 330,
            9700.. => 40,
            8500.. => 20,
            _ => 0,
        };
        let delay = if ms >= DELETED { 20 } else { DELAYS[speaker] + shift };
        if !muted && !gone && !hole && !is_late(faults, speaker, ms) {
            sum += gain * f64::from(of(&voices[speaker], SPEAK[speaker] + delay));
        }
    }
    let played = PLAYED..STOPPED + faults.announcement_leak_ms - faults.announcement_early_ms;
    if played.contains(&ms) && listener.is_some() {
        sum += f64::from(of(prompt, PLAYED));
    }
    sum.clamp(-32_768.0, 32_767.0) as i16
}

fn session(faults: Faults) -> Session {
    let frames = |from: u64, to: u64| ((to - from) / 20) as usize;
    let speech: [Sent; 3] = std::array::from_fn(|index| {
        let payloads = std::iter::repeat_n(SILENCE, 12).chain(clips::packets(SPEAKERS[index].1).cycle());
        sent(index as u16, SPEAK[index], payloads.take(frames(SPEAK[index], LEFT)))
    });
    let voices = speech.each_ref().map(said);
    let prompt = said(&sent(9, 0, clips::packets(clips::ANNOUNCEMENT)));
    let stamp = |member: usize, ms: u64| Stamp {
        connection_id: format!("c{member}"),
        direction: "out".to_owned(),
        rtp_timestamp: base(10 + member as u16).wrapping_add(((ms - STREAM) * 8) as u32),
    };
    let change = |ms: u64, streams: Vec<Stamp>| Change {
        sent: Duration::from_millis(ms - 12),
        answered: Duration::from_millis(ms - 2),
        effect: Effect { received_media_time_ms: ms as f64 - 9.5, media_time_ms: ms as f64, streams },
    };
    let all = |ms: u64| (0..3).map(|member| stamp(member, ms)).collect::<Vec<_>>();

    let members = std::array::from_fn(|listener| {
        let end = if listener == 2 { DELETED } else { LEFT };
        let count = frames(STREAM, end) + if listener == 2 { faults.late_packets } else { 0 };
        let heard = (0..count).filter(|index| !(faults.mix_gap && *index == 70)).map(|index| {
            let first = (index * PACKET_SAMPLES) as u64;
            let samples: Vec<i16> =
                (first..first + 160).map(|at| mixed(faults, &voices, &prompt, Some(listener), at)).collect();
            let mut payload = SILENCE;
            g711::encode_ulaw(&samples, &mut payload);
            let late = if faults.busy && index % 90 < 4 { 70 - 20 * (index as u64 % 90) } else { 1 };
            packet(10 + listener as u16, index, STREAM + 20 * index as u64 + late, &payload)
        });
        Member {
            name: SPEAKERS[listener].0.to_owned(),
            connection_id: format!("c{listener}"),
            heard: heard.collect(),
            sent: speech[listener].clone(),
        }
    });

    let talk = |index: usize, number| {
        sent(number, 900, std::iter::repeat_n(SILENCE, 12).chain(clips::packets(SPEAKERS[index].1)))
    };
    let (a, b) = (talk(0, 20), talk(1, 21));
    let relayed = |speech: &Sent| {
        let mut heard: Vec<Packet> = speech.packets[2..].to_vec();
        heard.iter_mut().for_each(|packet| packet.at += Duration::from_millis(1));
        if faults.relay_bit {
            heard[50].bytes[100] ^= 1;
        }
        if faults.relay_loss {
            heard.remove(60);
        }
        if faults.relay_order {
            heard.swap(60, 61);
        }
        heard
    };
    let (a_heard, b_heard) = (relayed(&b), relayed(&a));
    let member =
        |name: &str, id: &str, sent, heard| Member { name: name.to_owned(), connection_id: id.to_owned(), sent, heard };

    let recorded_from = (TALKING - STREAM) * 8;
    let samples: Vec<i16> =
        (recorded_from..(RECORDED - STREAM) * 8).map(|at| mixed(faults, &voices, &prompt, None, at)).collect();
    let condition = if faults.wrong_condition { "eod" } else { "userstop" };
    let prompt_ended = json!({
        "event": "operation.ended", "operation_id": "op-2", "kind": "play", "condition": condition, "elapsed_ms": 2540,
    });
    let mut events = vec![
        json!({"event": "operation.ended", "operation_id": "op-1", "kind": "record", "condition": "userstop", "elapsed_ms": 3000}),
        prompt_ended.clone(),
        json!({"event": "connection.ended", "connection_id": "c2", "reason": "deleted"}),
    ];
    if faults.ended_twice {
        events.push(prompt_ended);
    }
    if !faults.no_conference_end {
        events.push(json!({"event": "conference.ended", "conference_id": "conf", "reason": "last_left"}));
    }
    Session {
        relay: [member("alice", "r0", a, a_heard), member("bob", "r1", b, b_heard)],
        relayed: change(900, vec![]),
        conference_id: "conf".to_owned(),
        members,
        joined: change(1300, all(1300)),
        talking: Duration::from_millis(TALKING),
        recorded: Recorded {
            operation_id: "op-1".to_owned(),
            started: Duration::from_millis(TALKING - 3),
            manifest: json!({"state": "complete", "samples": samples.len(), "gaps": []}),
            samples,
            path: "unused".into(),
        },
        recording_stopped: change(RECORDED, vec![]),
        announcement_id: "op-2".to_owned(),
        announced: Duration::from_millis(ANNOUNCED),
        announcement_stopped: change(STOPPED, all(STOPPED)),
        muted: change(MUTED, if faults.no_stamps { vec![] } else { vec![stamp(0, MUTED), stamp(2, MUTED)] }),
        unmuted: change(UNMUTED, vec![stamp(0, UNMUTED), stamp(2, UNMUTED)]),
        deleted: change(DELETED, vec![stamp(2, DELETED)]),
        left: change(LEFT, vec![stamp(0, LEFT)]),
        events,
    }
}

fn judged(faults: Faults) -> Judgement {
    judge(&session(faults))
}

/// Every failure holds one of these words, and there is at least one.
fn check(faults: Faults, expected: &[&str]) {
    let failures = judged(faults).failures();
    assert!(!failures.is_empty(), "{faults:?} was not noticed");
    for failure in &failures {
        assert!(expected.iter().any(|words| failure.contains(words)), "{faults:?}: {failure}\nof {failures:#?}");
    }
}

const NONE: Faults = Faults {
    echo: 0.0,
    deaf: false,
    mute_leak_ms: 0,
    announcement_leak_ms: 0,
    announcement_early_ms: 0,
    stays_muted: false,
    late_packets: 0,
    ghost: false,
    recording_hole: false,
    ended_twice: false,
    wrong_condition: false,
    no_conference_end: false,
    relay_bit: false,
    relay_loss: false,
    relay_order: false,
    mix_gap: false,
    no_stamps: false,
    busy: false,
};

#[test]
fn a_right_server_passes_every_check() {
    let judgement = judged(NONE);
    assert_eq!(judgement.failures(), [""; 0]);
    let checks: usize = judgement.rows.iter().map(|row| row.checks.len()).sum();
    assert_eq!((judgement.rows.len(), checks), (8, 23));
    // The delays that were built in, found again: 1 ms relayed; 37 to 58 ms and up to a packet's length mixed.
    assert_eq!(judgement.relay_us.value_at_quantile(0.5), 1000);
    let mix = [0.0, 1.0].map(|quantile| judgement.mix_us.value_at_quantile(quantile) / 1000);
    assert!(mix[0] >= 37 && mix[1] <= 79, "{mix:?}");
}

#[test]
fn a_busy_machine_fails_no_check() {
    assert_eq!(judged(Faults { busy: true, ..NONE }).failures(), [""; 0]);
}

#[test]
fn hearing_oneself_is_noticed() {
    for echo in [1.0, 0.3, 0.15] {
        check(Faults { echo, ..NONE }, &["not herself", "hears bob again", "something else", "with gain"]);
    }
}

#[test]
fn not_hearing_somebody_is_noticed() {
    check(Faults { deaf: true, ..NONE }, &["carol hears"]);
}

#[test]
fn an_announcement_that_goes_on_is_noticed() {
    for announcement_leak_ms in [20, 40, 500] {
        check(Faults { announcement_leak_ms, ..NONE }, &["the announcement"]);
    }
    check(Faults { announcement_early_ms: 500, ..NONE }, &["the announcement up to its stamp"]);
}

#[test]
fn a_muted_voice_that_leaks_is_noticed() {
    for mute_leak_ms in [20, 60, 400, 10_000] {
        check(Faults { mute_leak_ms, ..NONE }, &["silence from him"]);
    }
    check(Faults { stays_muted: true, ..NONE }, &["hears bob again", "still hears"]);
    check(Faults { no_stamps: true, ..NONE }, &["no stamp"]);
}

#[test]
fn a_stream_that_outlives_its_stamp_is_noticed() {
    check(Faults { late_packets: 1, ..NONE }, &["at or past the stamp"]);
    check(Faults { ghost: true, ..NONE }, &["no longer carol"]);
}

#[test]
fn faults_of_recording_events_relay_and_stream_are_noticed() {
    check(Faults { recording_hole: true, ..NONE }, &["the recording holds all three"]);
    check(Faults { ended_twice: true, ..NONE }, &["came 2 times"]);
    check(Faults { wrong_condition: true, ..NONE }, &["condition \"eod\""]);
    check(Faults { no_conference_end: true, ..NONE }, &["conference.ended"]);
    check(Faults { relay_bit: true, ..NONE }, &["to the bit"]);
    check(Faults { relay_loss: true, ..NONE }, &["to the bit"]);
    check(Faults { relay_order: true, ..NONE }, &["to the bit"]);
    check(Faults { mix_gap: true, ..NONE }, &["one continuous stream"]);
}

#[test]
fn only_the_endpoints_own_delays_make_a_machine_too_busy() {
    let mut session = session(Faults { busy: true, ..NONE });
    assert_eq!(session.lateness(), Duration::ZERO);
    session.members[1].sent.packets[30].at += Duration::from_millis(55);
    assert_eq!(session.lateness(), Duration::from_millis(55));
}

#[test]
fn silence_and_strangers_are_told_in_words() {
    let mut session = session(NONE);
    session.members[1].heard.clear();
    session.relay[0].heard.clear();
    session.recorded.manifest = Value::Null;
    let failures = judge(&session).failures();
    assert!(failures.iter().any(|failure| failure.contains("bob heard nothing at all")), "{failures:?}");
    assert!(failures.iter().any(|failure| failure.contains("alice heard up to packet 0")), "{failures:?}");

    let noise = Packet { at: Duration::ZERO, bytes: vec![1, 2, 3] };
    assert!(Heard::new("eve", &[noise]).is_err());
    let strangers = [packet(1, 0, 0, &SILENCE), packet(2, 1, 20, &SILENCE)];
    assert!(Heard::new("eve", &strangers).is_err_and(|why| why.contains("not one stream")));
    let twice = [packet(1, 0, 0, &SILENCE), packet(1, 0, 20, &SILENCE)];
    assert!(Heard::new("eve", &twice).is_err_and(|why| why.contains("twice")));
}
