//! Who hears whom in a conference at 16 kHz, and what a change of codec in mid-call does to it.

use ringbridge_codec::CodecKind;
use ringbridge_tests::line::Line;
use serde_json::json;

use crate::{L16, hears, join, patient, say, setup, wide_room};

#[test]
fn everybody_hears_everybody_as_far_up_as_his_codec_goes() {
    let server = setup().start();
    let room = wide_room(&server);
    let said = [
        (CodecKind::Pcmu, 20, 400),
        (CodecKind::G722, 20, 700),
        (CodecKind::Opus, 20, 1_100),
        (L16, 20, 5_000),
        (CodecKind::Pcma, 30, 1_700),
        (CodecKind::Opus, 60, 2_300),
    ];
    let lines = said.map(|(kind, ptime_ms, hz)| {
        let mut params = patient();
        // Five tones at once are no speech: Opus needs more bits for them.
        params["encoder"] = json!({"bitrate": 96_000});
        let line = Line::connect(&server, kind, ptime_ms, params);
        join(&server, &room, &line);
        (say(&line, hz), line)
    });
    for ((_, line), (kind, ptime_ms, own)) in lines.iter().zip(said) {
        let others = || said.into_iter().map(|(_, _, hz)| hz).filter(|hz| *hz != own);
        let is_narrow = line.rate_hz() == 8_000;
        let expected: Vec<u32> = others().filter(|hz| !is_narrow || *hz < 4_000).collect();
        hears(line, &format!("{kind} with {ptime_ms} ms"), &expected, &[own]);
    }
    for (speaker, _) in lines {
        speaker.stop();
    }
    server.stop();
}

#[test]
fn a_codec_changed_in_mid_call_is_used_both_ways_from_then_on() {
    let server = setup().start();
    let room = wide_room(&server);
    let other = Line::connect(&server, L16, 20, patient());
    let mut line = Line::connect(&server, CodecKind::Pcmu, 20, patient());
    join(&server, &room, &other);
    join(&server, &room, &line);
    let others = say(&other, 700);
    for (ssrc, kind) in
        [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus, L16, CodecKind::Pcma].into_iter().enumerate()
    {
        if line.kind != kind {
            let modify = json!({"connection_id": line.leg.id, "codec": kind.to_string()});
            server.ok("connection.modify", modify);
        }
        line.endpoint.forget();
        other.endpoint.forget();
        (line.kind, line.ssrc) = (kind, ssrc as u32 + 1);
        let speaker = say(&line, 1_100);
        hears(&line, &kind.to_string(), &[700], &[1_100]);
        hears(&other, &format!("who listens to {kind}"), &[1_100], &[700]);
        let status = server.get(&line.leg.id);
        assert_eq!((&status["rx_codec"], &status["tx_codec"]), (&json!(kind.to_string()), &json!(kind.to_string())));
        speaker.stop();
    }
    others.stop();
    server.stop();
}
