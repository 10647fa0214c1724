//! Programs of others in one wideband conference, one for each codec, with a telephone: who hears what, and how well.
//! And the same with a telephone in a relay that transcodes.

use std::fs;
use std::path::Path;

use ringbridge_tests::audio::Codec;
use ringbridge_tests::server::{Events, Server, text};
use serde_json::{Value, json};

use crate::parties::{Format, Party};
use crate::setup;

/// What the programs said, printed if the test fails.
struct Logs<'a>(&'a Path);

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        print_logs(self.0);
    }
}

/// Those of a directory and of the ones in it.
fn print_logs(directory: &Path) {
    for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            print_logs(&path);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            eprintln!("{}:\n{}", path.display(), fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// Brings everybody together in a conference, as they are heard of.
fn meet(server: &Server, events: &mut Events, sample_rate_hz: u32, parties: &[Party]) -> Value {
    let _logs = Logs(server.directory());
    let room = text(&server.ok("conference.create", json!({"sample_rate_hz": sample_rate_hz}))["conference_id"]);
    for party in parties {
        events.wait("connection.learned", "connection_id", &party.leg.id);
        server.ok("conference.join", json!({"conference_id": room, "connection_id": party.leg.id}));
    }
    room.into()
}

/// Everybody hears every tone but his own, as far up as his codec and the conference go.
fn all_hear_each_other(server: &Server, parties: &[Party], top_hz: u32) {
    let _logs = Logs(server.directory());
    for party in parties {
        // 7 kHz of 8, and so on: no filter is steeper.
        let band_hz = party.rate_hz.min(top_hz) / 16 * 7;
        let others = || parties.iter().map(|other| other.says_hz).filter(|hz| *hz != party.says_hz);
        let expected: Vec<u32> = others().filter(|hz| *hz < band_hz).collect();
        // What is above half the rate can't be told from what it is folded down to, which is looked for anyway.
        let beyond = others().filter(|hz| *hz >= band_hz && *hz < party.rate_hz / 2);
        let never: Vec<u32> = beyond.chain([party.says_hz]).collect();
        party.ears().hears(&expected, &never);
    }
}

#[test]
#[ignore = "needs ffmpeg, GStreamer, baresip and SIPp"]
fn ffmpeg_gstreamer_baresip_and_a_telephone_at_16_khz() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let parties = [
        Party::phone(&server, Codec::Pcmu, 400),
        Party::ffmpeg(&server, Format::Opus, 700),
        Party::gstreamer(&server, Format::L16(16_000), 1_100),
        Party::baresip(&server, Format::G722, 1_700),
        Party::gstreamer(&server, Format::Opus, 2_300),
        Party::ffmpeg(&server, Format::G722, 5_000),
    ];
    meet(&server, &mut events, 16_000, &parties);
    all_hear_each_other(&server, &parties, 16_000);
    drop(parties);
    server.stop();
}

#[test]
#[ignore = "needs ffmpeg, GStreamer, baresip and SIPp"]
fn ffmpeg_gstreamer_baresip_and_a_telephone_at_48_khz() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let parties = [
        Party::phone(&server, Codec::Pcma, 400),
        Party::gstreamer(&server, Format::G722, 700),
        Party::baresip(&server, Format::Opus, 1_100),
        Party::gstreamer(&server, Format::Opus, 2_300),
        Party::ffmpeg(&server, Format::Opus, 5_000),
        Party::ffmpeg(&server, Format::L16(48_000), 12_000),
    ];
    meet(&server, &mut events, 48_000, &parties);
    all_hear_each_other(&server, &parties, 48_000);
    drop(parties);
    server.stop();
}

#[test]
#[ignore = "needs ffmpeg"]
fn both_sides_of_stereo_are_heard() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let parties = [
        Party::phone(&server, Codec::Pcmu, 400),
        Party::ffmpeg_of(&server, Format::Opus, &[700, 1_900]),
        Party::ffmpeg(&server, Format::L16(16_000), 1_100),
    ];
    meet(&server, &mut events, 16_000, &parties);
    {
        let _logs = Logs(server.directory());
        let [phone, stereo, mono] = &parties;
        phone.ears().hears(&[700, 1_100, 1_900], &[400]);
        stereo.ears().hears(&[400, 1_100], &[700, 1_900]);
        mono.ears().hears(&[400, 700, 1_900], &[1_100]);
    }
    drop(parties);
    server.stop();
}

/// A party and a telephone talk to each other although they share no codec.
fn talk_through_a_relay(party: fn(&Server, Format, u32) -> Party, format: Format, codec: Codec) {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let pair = [party(&server, format, 700), Party::phone(&server, codec, 1_100)];
    {
        let _logs = Logs(server.directory());
        for party in &pair {
            events.wait("connection.learned", "connection_id", &party.leg.id);
        }
        server.ok("relay.start", json!({"a": pair[0].leg.id, "b": pair[1].leg.id, "transcode": true}));
        pair[0].ears().hears(&[1_100], &[700]);
        pair[1].ears().hears(&[700], &[1_100]);
    }
    drop(pair);
    server.stop();
}

#[test]
#[ignore = "needs ffmpeg"]
fn a_relay_between_ffmpeg_with_opus_and_a_telephone() {
    talk_through_a_relay(Party::ffmpeg, Format::Opus, Codec::Pcmu);
}

#[test]
#[ignore = "needs baresip and SIPp"]
fn a_relay_between_baresip_with_opus_and_a_telephone() {
    talk_through_a_relay(Party::baresip, Format::Opus, Codec::Pcma);
}

#[test]
#[ignore = "needs GStreamer"]
fn a_relay_between_gstreamer_with_g722_and_a_telephone() {
    talk_through_a_relay(Party::gstreamer, Format::G722, Codec::Pcmu);
}
