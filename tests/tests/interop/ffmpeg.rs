//! ffmpeg, as sender and as receiver.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ringbridge_tests::audio::{Codec, share, tone};
use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::server::{Leg, Server, text};
use ringbridge_tests::until;
use serde_json::json;

use crate::setup;
use ringbridge_tests::server::free_pair;

/// What ffmpeg says, in Hz.
const SINE: u32 = 440;
/// What the harness says, in Hz: it has whole periods in a window as well.
const TONE: u32 = 1100;
/// Samples of a window that tones are looked for in.
const WINDOW: usize = 800;
/// Amplitude of ffmpeg's sine source as a share of the harness's tone: 1/8 of full scale.
const SINE_SHARE: f64 = 4096.0 / 8000.0;

/// A process of ffmpeg. Ended when dropped.
struct Ffmpeg(Child);

impl Ffmpeg {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]).args(args);
        Self(command.stdin(Stdio::null()).spawn().expect("ffmpeg is installed"))
    }

    /// Speaks to `target` from `port`.
    fn speak(codec: Codec, port: u16, target: SocketAddr) -> Self {
        let encoder = if codec == Codec::Pcmu { "pcm_mulaw" } else { "pcm_alaw" };
        let source = format!("sine=frequency={SINE}:sample_rate=8000");
        let target = format!("rtp://{target}?localrtpport={port}&localrtcpport={}&pkt_size=172", port + 1);
        let payload_type = codec.payload_type().to_string();
        Self::start(&[
            "-re",
            "-f",
            "lavfi",
            "-i",
            &source,
            "-ar",
            "8000",
            "-ac",
            "1",
            "-c:a",
            encoder,
            "-payload_type",
            &payload_type,
            "-f",
            "rtp",
            &target,
        ])
    }

    /// Listens at `port` and writes what it hears into a file.
    fn listen(codec: Codec, port: u16, directory: &Path) -> (Self, PathBuf) {
        let (sdp, wav) = (directory.join(format!("{port}.sdp")), directory.join(format!("{port}.wav")));
        let payload_type = codec.payload_type();
        let description = format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {}/8000\r\n",
            codec.name()
        );
        std::fs::write(&sdp, description).unwrap();
        let (sdp, out) = (sdp.to_str().unwrap(), wav.to_str().unwrap());
        let whitelist = ["-protocol_whitelist", "file,udp,rtp", "-i", sdp];
        let args = [&whitelist[..], &["-c:a", "pcm_s16le", "-flush_packets", "1", out]].concat();
        (Self::start(&args), wav)
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(server: &Server, port: u16, codec: Codec) -> Leg {
    server.create(json!({"remote": format!("127.0.0.1:{port}"), "codec": codec.name()}))
}

/// Waits until a tone stands in what `samples` gives, in three windows at least, and `absent` in none.
fn hears(samples: impl Fn() -> Option<Vec<i16>>, present: u32, loudness: f64, absent: u32) {
    let heard = until(&format!("{present} Hz"), || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let samples = samples()?;
        let loud = |window: &&[i16]| share(window, present) > 0.7 * loudness;
        (samples.chunks_exact(WINDOW).filter(loud).count() >= 3).then_some(samples)
    });
    for window in heard.chunks_exact(WINDOW) {
        assert!(share(window, absent) < 0.2, "{absent} Hz is heard");
    }
}

/// What a WAV file that is still being written holds so far.
pub(crate) fn written(wav: &Path) -> Option<Vec<i16>> {
    let bytes = std::fs::read(wav).ok()?;
    let samples = bytes.get(bytes.windows(4).position(|chunk| chunk == b"data")? + 8..)?;
    Some(samples.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect())
}

/// ffmpeg speaks to the harness and hears it, in a relay or a conference.
fn converses(codec: Codec, in_conference: bool) {
    let server = setup().start();
    let (speaks, listens) = (free_pair(), free_pair());
    let (speaker, listener) = (connect(&server, speaks, codec), connect(&server, listens, codec));
    let ends = [Endpoint::open(), Endpoint::open()];
    let legs = [&ends[0], &ends[1]]
        .map(|end| server.create(json!({"remote": end.address().to_string(), "codec": codec.name()})));
    if in_conference {
        let room = text(&server.ok("conference.create", json!({}))["conference_id"]);
        for leg in [&speaker, &listener, &legs[0]] {
            server.ok("conference.join", json!({"conference_id": room, "connection_id": leg.id}));
        }
    } else {
        server.ok("relay.start", json!({"a": speaker.id, "b": legs[0].id}));
        server.ok("relay.start", json!({"a": listener.id, "b": legs[1].id}));
    }
    let (receiver, wav) = Ffmpeg::listen(codec, listens, server.directory());
    let sender = Ffmpeg::speak(codec, speaks, speaker.local);
    let say = |end: &Endpoint, leg: &Leg| {
        end.speak(leg.local, Speech { codec, ..Speech::new(1) }, |index| tone(TONE, 8000, index))
    };
    // In the conference one end both speaks and listens; a relay has one for each.
    let says = usize::from(!in_conference);
    let talk = say(&ends[says], &legs[says]);
    hears(|| Some(ends[0].stream(codec)?.samples), SINE, SINE_SHARE, TONE);
    hears(|| written(&wav), TONE, 1.0, if in_conference { 2000 } else { SINE });
    if in_conference {
        hears(|| written(&wav), SINE, SINE_SHARE, 2000);
    }
    talk.stop();
    drop((sender, receiver));
    server.stop();
}

#[test]
#[ignore = "needs ffmpeg"]
fn relayed_in_mu_law() {
    converses(Codec::Pcmu, false);
}

#[test]
#[ignore = "needs ffmpeg"]
fn relayed_in_a_law() {
    converses(Codec::Pcma, false);
}

#[test]
#[ignore = "needs ffmpeg"]
fn in_a_conference_in_mu_law() {
    converses(Codec::Pcmu, true);
}

#[test]
#[ignore = "needs ffmpeg"]
fn in_a_conference_in_a_law() {
    converses(Codec::Pcma, true);
}
