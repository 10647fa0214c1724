//! Who falls silent hears what the others hear, out of one encoder with them; who talks has one of his own. Going over
//! from one to the other can't be heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringbridge_codec::CodecKind;
use ringbridge_media::limits::PRIVATE_HOLD_MS_MAX;
use ringbridge_tests::audio::tone;
use ringbridge_tests::hearing::AMPLITUDE;
use ringbridge_tests::line::{Line, decode, payloads};
use ringbridge_tests::server::Server;
use ringbridge_tests::spectrum::Spectrum;
use ringbridge_tests::until;
use serde_json::json;

use crate::{L16, join, patient, say, setup, wide_room};

/// What the others say. No packet is like another: these have no whole periods in one.
const TONES: [u32; 2] = [711, 1_123];
/// What is said in turns.
const OWN: u32 = 1_699;
/// Times of talking and of silence.
const TURNS: usize = 3;

/// What there is besides the tones, in each 10 ms: the energy of a sample.
fn rest(samples: &[i16], rate_hz: u32) -> Vec<f64> {
    let block = rate_hz as usize / 100;
    // Fitted over 320 ms, looked at in the middle 160 ms, so that each block is looked at once.
    let (piece, hop) = (32 * block, 16 * block);
    let mut energies = Vec::new();
    for from in (0..samples.len().saturating_sub(piece)).step_by(hop) {
        let rest = Spectrum::of(&samples[from..from + piece], rate_hz).without(&TONES);
        let middle = rest[piece / 4..piece / 4 + hop].chunks_exact(block);
        energies
            .extend(middle.map(|block| block.iter().map(|sample| sample * sample).sum::<f64>() / block.len() as f64));
    }
    energies
}

/// Which of these payloads the other has got too, at the same time. One has begun before the other.
fn in_common(later: &[Vec<u8>], sooner: &[Vec<u8>]) -> Vec<bool> {
    let with_lead = |lead: usize| -> Vec<bool> {
        let sooner = sooner.iter().map(Some).chain(std::iter::repeat(None)).skip(lead);
        later.iter().zip(sooner).map(|(later, sooner)| Some(later) == sooner).collect()
    };
    let count = |common: &Vec<bool>| common.iter().filter(|common| **common).count();
    (0..50).map(with_lead).max_by_key(count).unwrap_or_default()
}

/// Whether what a line says was played as it came: nothing was late, made up, put in or left out.
fn undisturbed(server: &Server, line: &Line) -> bool {
    let buffer = &server.get(&line.leg.id)["quality"]["jitter_buffer"];
    let counters = ["late", "discarded", "stretched_samples", "compressed_samples", "concealed_samples"];
    counters.iter().all(|counter| buffer[counter].as_u64() == Some(0))
}

/// One run; `None`: the machine was too busy to tell.
fn run(kind: CodecKind, allowed: f64) -> Option<()> {
    let server = setup().start();
    let room = wide_room(&server);
    let others = TONES.map(|hz| {
        let line = Line::connect(&server, L16, 20, patient());
        join(&server, &room, &line);
        (say(&line, hz), line)
    });
    // Enough for Opus to render tones by their shape: with less it takes them for speech.
    let encoder = json!({"encoder": {"bitrate": 128_000, "fec": false}});
    let [line, listener] = [(), ()].map(|()| Line::connect(&server, kind, 20, encoder.clone()));
    let talks = Arc::new(AtomicBool::new(true));
    let rate_hz = line.rate_hz();
    let own = line.speak({
        let talks = talks.clone();
        move |index| talks.load(Ordering::Acquire).then(|| tone(OWN, rate_hz, index) / 2)
    });
    // Both are there, and the others are heard in full.
    let talking = |expected: bool| {
        until("the talker to be heard of", || {
            let status = server.ok("conference.get", json!({"conference_id": room}));
            let members = status["participants"].as_array()?.clone();
            let member = members.iter().find(|member| member["connection_id"] == *line.leg.id)?;
            (member["talking"] == expected).then_some(())
        });
    };
    // 400 packets are 8 s of the others before the change begins.
    join(&server, &room, &listener);
    join(&server, &room, &line);
    talking(true);
    let more = |line: &Line, packets: usize| {
        let until_now = line.endpoint.heard_packets();
        line.endpoint.until("packets", |heard| (heard.len() >= until_now + packets).then_some(()));
    };
    more(&line, 150);
    let steady_packets = line.endpoint.heard_packets();
    for _ in 0..TURNS {
        talks.store(false, Ordering::Release);
        talking(false);
        // However long it waits for a moment to give its encoder back, and some time with the other.
        more(&line, PRIVATE_HOLD_MS_MAX as usize / 20 + 50);
        talks.store(true, Ordering::Release);
        talking(true);
        more(&line, 50);
    }
    own.stop();
    let clean = others.iter().all(|(_, line)| undisturbed(&server, line));
    for (speaker, _) in others {
        speaker.stop();
    }
    server.stop();
    if !clean {
        return None;
    }

    let (heard, shared) = (payloads(kind, &line.endpoint.heard()), payloads(kind, &listener.endpoint.heard()));
    let common = in_common(&heard, &shared);
    let changes = common.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes >= 2 * TURNS, "the encoder was changed {changes} times");
    assert!(!common[50..steady_packets].contains(&true), "who talks hears what the others hear");

    let energies = rest(&decode(kind, &heard), rate_hz);
    // Two blocks for each packet; the first second is left out.
    let steady = energies[100..2 * steady_packets - 32].iter().copied().fold(0.0, f64::max);
    let (worst, energy) = energies.iter().enumerate().skip(100).max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    let seconds = (worst + 8) as f64 / 100.0;
    assert!(
        *energy < (1.6 * steady).max(allowed),
        "{kind}: {energy:.0} at {seconds:.2} s, {steady:.0} before the first change"
    );
    Some(())
}

/// `allowed`: the energy of a sample that a change may leave over in its first moments.
fn changes_without_a_click(kind: CodecKind, allowed: f64) {
    assert!((0..6).any(|_| run(kind, allowed).is_some()), "what was said was never heard as it was said");
}

#[test]
fn between_encoders_of_g722() {
    // Steady tones never bring two encoders together: until the far end has come round, for some 30 ms, it is off by 15 dB
    // below the tones at most. If nothing were done about it that would be as loud as they are.
    let tones = AMPLITUDE * AMPLITUDE * TONES.len() as f64 / 2.0;
    changes_without_a_click(CodecKind::G722, tones / 32.0);
}

#[test]
fn between_encoders_of_opus() {
    changes_without_a_click(CodecKind::Opus, 0.0);
}

#[test]
fn between_encoders_of_mu_law() {
    changes_without_a_click(CodecKind::Pcmu, 0.0);
}
