//! Jitter buffers as they are set and told of, and a sender who sends seconds at once.

use std::time::Duration;

use ringbridge_codec::CodecKind;
use ringbridge_tests::audio::tone;
use ringbridge_tests::line::Line;
use ringbridge_tests::spectrum::Spectrum;
use ringbridge_tests::until_every;
use serde_json::json;

use crate::{L16, hears, join, patient, say, setup, wide_room};

#[test]
fn a_delay_that_is_set_while_audio_flows_is_taken_and_told() {
    let server = setup().start();
    for kind in [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus] {
        let room = wide_room(&server);
        let line = Line::connect(&server, kind, 20, json!({"jitter_buffer": {"min_ms": 40, "max_ms": 40}}));
        let listener = Line::connect(&server, L16, 20, json!({}));
        join(&server, &room, &line);
        join(&server, &room, &listener);
        let speaker = say(&line, 700);
        hears(&listener, &format!("who listens to {kind}"), &[700], &[]);
        for delay_ms in [200, 60] {
            let modify =
                json!({"connection_id": line.leg.id, "jitter_buffer": {"min_ms": delay_ms, "max_ms": delay_ms}});
            server.ok("connection.modify", modify);
            until_every(Duration::from_millis(20), &format!("{kind} with {delay_ms} ms"), || {
                let buffer = server.get(&line.leg.id)["quality"]["jitter_buffer"].clone();
                // In a voice without a pause it may stay up to 40 ms longer than it ought to be.
                let over = buffer["delay_ms"].as_f64()?.round() as i64 - delay_ms;
                (buffer["target_ms"] == delay_ms && (-10..=50).contains(&over)).then_some(())
            });
            listener.endpoint.forget();
            hears(&listener, &format!("who listens to {kind} after {delay_ms} ms"), &[700], &[]);
        }
        speaker.stop();
        server.ok("connection.delete", json!({"connection_id": line.leg.id}));
        server.ok("connection.delete", json!({"connection_id": listener.leg.id}));
    }
    server.stop();
}

#[test]
fn who_sends_three_seconds_at_once_is_heard_whole() {
    /// Each 100 ms has a tone of its own.
    const STEPS: usize = 90;
    fn hz(step: usize) -> u32 {
        500 + 30 * step as u32
    }
    for kind in [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus] {
        let server = setup().start();
        let room = wide_room(&server);
        let line = Line::connect(&server, kind, 20, json!({}));
        let listener = Line::connect(&server, L16, 20, patient());
        join(&server, &room, &line);
        join(&server, &room, &listener);
        let rate_hz = line.rate_hz();
        let mut packet = line.packets(move |index| {
            let step = index / (rate_hz as usize / 10);
            Some(tone(hz(step.min(STEPS - 1)), rate_hz, index) / 2)
        });
        let heard = |samples: &[i16]| {
            let pieces: Vec<Spectrum> = samples.chunks_exact(320).map(|piece| Spectrum::of(piece, 16_000)).collect();
            let level = |piece: &Spectrum, step: usize| piece.db(hz(step));
            (0..STEPS).find(|&step| pieces.iter().filter(|piece| level(piece, step) > -22.0).count() < 4)
        };
        for burst in 0..3 {
            for number in 150 * burst..150 * (burst + 1) {
                line.endpoint.send(line.leg.local, &packet(number).unwrap());
            }
            // The next one comes half a second before the last sample of this one is played.
            until_every(Duration::from_millis(20), &format!("burst {burst} of {kind} but for its end"), || {
                (heard(&listener.heard()?).unwrap_or(STEPS) >= STEPS / 3 * (burst + 1) - 5).then_some(())
            });
        }
        let missing = std::cell::Cell::new(None);
        until_every(Duration::from_millis(100), &format!("all that was sent in {kind}"), || {
            let samples = listener.heard()?;
            missing.set(heard(&samples));
            missing.get().is_none().then_some(())
        });
        let status = server.get(&line.leg.id);
        assert_eq!(status["counters"]["drops"], 0, "{status}");
        let buffer = &status["quality"]["jitter_buffer"];
        assert_eq!((&buffer["late"], &buffer["discarded"]), (&json!(0), &json!(0)), "{status}");
        server.stop();
    }
}
