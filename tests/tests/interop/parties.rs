//! Programs of others as endpoints: each says a tone of its own, and writes down what it hears.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use ringbridge_tests::audio::{Codec, tone};
use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::hearing::{AMPLITUDE, Listener};
use ringbridge_tests::server::{Leg, Server};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::sipp::Sipp;
use ringbridge_tests::server::free_pair;

/// Amplitude of every tone that is said, with full scale as 1.
const VOLUME: f64 = AMPLITUDE / 32_768.0;

/// A program. Ended when dropped.
pub(crate) struct Program(Child);

impl Program {
    fn start(name: &str, directory: &Path, args: &[String]) -> Self {
        let log = fs::File::options().create(true).append(true).open(directory.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(name);
        command.args(args).current_dir(directory);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{name} is not installed: {error}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes one endpoint of a program that sends from one port and listens at another: what it sends to this port goes on
/// to the server from here, and what comes from the server goes on to the program.
struct Crossing {
    port: u16,
    server: Arc<OnceLock<SocketAddr>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crossing {
    fn open(listens: u16) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, free_pair())).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (server, closing) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (server, closing): (Arc<OnceLock<SocketAddr>>, _) = (server.clone(), closing.clone());
            move || {
                let mut buffer = [0; 4096];
                while !closing.load(Ordering::Acquire) {
                    // Nothing in time, or an ICMP error for what was sent: both are no news.
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    let Some(server) = server.get() else { continue };
                    let to = if from == *server { SocketAddr::from((Ipv4Addr::LOCALHOST, listens)) } else { *server };
                    let _ = socket.send_to(&buffer[..length], to);
                }
            }
        });
        Self { port, server, closing, thread: Some(thread) }
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What a program sends and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    G722,
    /// In its own rate, 16 or 48 kHz.
    L16(u32),
    Opus,
}

impl Format {
    /// Its codec, its payload type and what that means, as the control socket takes them. The types are not those the
    /// server would choose.
    fn params(self) -> Value {
        match self {
            Self::G722 => json!({"codec": "G722", "payload_types": {"9": "G722/8000"}}),
            Self::L16(16_000) => json!({"codec": "L16/16000", "payload_types": {"98": "L16/16000"}}),
            Self::L16(_) => json!({"codec": "L16/48000", "payload_types": {"98": "L16/48000"}, "ptime_ms": 10}),
            // Five tones at once are no speech: they take more bits.
            Self::Opus => json!({
                "codec": "opus",
                "payload_types": {"96": "opus/48000/2"},
                "encoder": {"bitrate": 96_000},
            }),
        }
    }

    const fn payload_type(self) -> u8 {
        match self {
            Self::G722 => 9,
            Self::L16(_) => 98,
            Self::Opus => 96,
        }
    }

    /// As in SDP.
    fn rtpmap(self) -> String {
        match self {
            Self::G722 => "G722/8000".to_owned(),
            Self::L16(rate_hz) => format!("L16/{rate_hz}"),
            Self::Opus => "opus/48000/2".to_owned(),
        }
    }

    /// Samples per second of what it carries.
    pub(crate) const fn rate_hz(self) -> u32 {
        match self {
            Self::G722 => 16_000,
            Self::L16(rate_hz) => rate_hz,
            Self::Opus => 48_000,
        }
    }
}

/// An endpoint of one of these programs.
pub(crate) struct Party {
    pub(crate) name: String,
    /// The tone it says.
    pub(crate) says_hz: u32,
    /// Samples per second of what it writes down.
    pub(crate) rate_hz: u32,
    pub(crate) leg: Leg,
    heard: Box<dyn Fn() -> Option<Vec<i16>>>,
    /// What ends with it, in this order.
    _sipp: Option<Sipp>,
    _programs: Vec<Program>,
    _crossing: Option<Crossing>,
    _speaker: Option<Speaking>,
}

/// A speaker who is told to stop when it is dropped.
struct Speaking(Option<Speaker>);

impl Drop for Speaking {
    fn drop(&mut self) {
        if let Some(speaker) = self.0.take() {
            speaker.stop();
        }
    }
}

impl Party {
    /// As one who hears.
    pub(crate) fn ears(&self) -> Listener<'_> {
        Listener { name: &self.name, rate_hz: self.rate_hz, heard: &self.heard }
    }

    /// ffmpeg with what it can send. Opus is stereo with the same tone on both sides.
    pub(crate) fn ffmpeg(server: &Server, format: Format, says_hz: u32) -> Self {
        let sides = if format == Format::Opus { &[says_hz, says_hz][..] } else { &[says_hz][..] };
        Self::ffmpeg_of(server, format, sides)
    }

    /// ffmpeg with a tone for each channel.
    pub(crate) fn ffmpeg_of(server: &Server, format: Format, sides: &[u32]) -> Self {
        let directory = server.directory();
        let listens = free_pair();
        let (crossing, leg) = connect(server, format, listens);
        let (payload_type, rate_hz) = (format.payload_type(), format.rate_hz());
        let (sdp, raw) = (directory.join(format!("{listens}.sdp")), directory.join(format!("{listens}.raw")));
        let description = format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {listens} RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {}\r\n",
            format.rtpmap()
        );
        fs::write(&sdp, description).unwrap();
        // Left to itself it takes an Opus decoder of its own.
        let decoder = if format == Format::Opus { "-c:a libopus" } else { "" };
        let common = "-nostdin -hide_banner -loglevel error -y";
        let listen = format!(
            "{common} -protocol_whitelist file,udp,rtp {decoder} -i {} -ac 1 -ar {rate_hz} -f s16le -flush_packets 1 {}",
            sdp.display(),
            raw.display()
        );
        // Of two sides the mean is heard.
        let volume = if sides.windows(2).all(|pair| pair[0] == pair[1]) { VOLUME } else { 2.0 * VOLUME };
        let tones: Vec<String> = sides.iter().map(|hz| format!("{volume}*sin(2*PI*{hz}*t)")).collect();
        let layout = if sides.len() == 2 { "stereo" } else { "mono" };
        let source = format!("aevalsrc=exprs={}:s={rate_hz}:c={layout}", tones.join("|"));
        // Packets of 20 ms; of 10 where they would not fit otherwise.
        let (encoder, bytes) = match format {
            Format::G722 => ("g722", 172),
            Format::L16(16_000) => ("pcm_s16be", 652),
            Format::L16(_) => ("pcm_s16be", 972),
            Format::Opus => ("libopus -b:a 48k", 1_200),
        };
        let speak = format!(
            "{common} -re -f lavfi -i {source} -c:a {encoder} -payload_type {payload_type} -f rtp \
             rtp://127.0.0.1:{}?pkt_size={bytes}",
            crossing.port
        );
        let programs = [listen, speak].map(|args| Program::start("ffmpeg", directory, &words(&args)));
        Self::of_programs(format!("ffmpeg with {format:?}"), sides[0], rate_hz, leg, raw, programs.into(), crossing)
    }

    /// GStreamer. Opus has redundancy for what is lost.
    pub(crate) fn gstreamer(server: &Server, format: Format, says_hz: u32) -> Self {
        let directory = server.directory();
        let listens = free_pair();
        let (crossing, leg) = connect(server, format, listens);
        let (payload_type, rate_hz) = (format.payload_type(), format.rate_hz());
        let raw = directory.join(format!("{listens}.raw"));
        let (encode, decode, clock_rate, name) = match format {
            Format::G722 => (
                "avenc_g722 ! rtpg722pay min-ptime=20000000 max-ptime=20000000",
                "rtpg722depay ! avdec_g722",
                8_000,
                "G722",
            ),
            Format::L16(_) => {
                ("audioconvert ! rtpL16pay min-ptime=20000000 max-ptime=20000000", "rtpL16depay", rate_hz, "L16")
            }
            Format::Opus => (
                "opusenc inband-fec=true packet-loss-percentage=10 audio-type=voice bitrate=32000 ! rtpopuspay",
                "rtpopusdepay ! opusdec use-inband-fec=true",
                48_000,
                "OPUS",
            ),
        };
        let pipelines = format!(
            "-q audiotestsrc is-live=true freq={says_hz} volume={VOLUME} samplesperbuffer={} \
             ! audio/x-raw,rate={rate_hz},channels=1 ! {encode} pt={payload_type} \
             ! udpsink host=127.0.0.1 port={} sync=false async=false \
             udpsrc address=127.0.0.1 port={listens} \
             caps=application/x-rtp,media=audio,clock-rate={clock_rate},encoding-name={name},payload={payload_type},channels=1 \
             ! {decode} ! audioconvert ! audio/x-raw,format=S16LE,channels=1,rate={rate_hz} \
             ! filesink location={} buffer-mode=unbuffered sync=false async=false",
            rate_hz / 50,
            crossing.port,
            raw.display()
        );
        let program = Program::start("gst-launch-1.0", directory, &words(&pipelines));
        Self::of_programs(format!("GStreamer with {format:?}"), says_hz, rate_hz, leg, raw, vec![program], crossing)
    }

    /// baresip, a telephone: it calls, and is told by an answer to its INVITE where to send to.
    pub(crate) fn baresip(server: &Server, format: Format, says_hz: u32) -> Self {
        let (sip, answers, media) = (free_pair(), free_pair(), free_pair());
        let directory = server.directory().join(format!("baresip-{sip}"));
        fs::create_dir(&directory).unwrap();
        // Like a telephone behind a NAT it is learned from what it sends.
        let leg = server.create(format.params());
        let (codec, channels) = match format {
            Format::G722 => ("G722/16000/1", 1),
            Format::Opus => ("opus/48000/2", 2),
            Format::L16(_) => panic!("baresip decides for itself what L16 is"),
        };
        let wav = directory.join("says.wav");
        let spec = hound::WavSpec {
            channels,
            sample_rate: format.rate_hz(),
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&wav, spec).unwrap();
        for index in 0..90 * format.rate_hz() as usize {
            for _ in 0..channels {
                writer.write_sample(tone(says_hz, format.rate_hz(), index) / 2).unwrap();
            }
        }
        writer.finalize().unwrap();
        let config = format!(
            "sip_listen 127.0.0.1:{sip}\naudio_source aufile,{}\naudio_channels {channels}\nrtp_ports {media}-{}\n\
             opus_stereo yes\nopus_bitrate 48000\nopus_inbandfec yes\n\
             module_path /usr/lib/baresip/modules\nmodule g722.so\nmodule opus.so\nmodule aufile.so\nmodule sndfile.so\n\
             module_app account.so\nmodule_app menu.so\nsnd_path {}\n",
            wav.display(),
            media + 1,
            directory.display()
        );
        fs::write(directory.join("config"), config).unwrap();
        let account = format!("<sip:caller@127.0.0.1>;regint=0;audio_codecs={codec};ptime=20\n");
        fs::write(directory.join("accounts"), account).unwrap();
        let sipp = Sipp::answer(server.directory(), answers, leg.local, (format.payload_type(), &format.rtpmap()));
        // One is heard by the other only if it is there first.
        until("SIPp to take calls", || UdpSocket::bind((Ipv4Addr::LOCALHOST, answers)).is_err().then_some(()));
        let dial = format!("/dial sip:room@127.0.0.1:{answers}");
        let args = ["-f".to_owned(), directory.display().to_string(), "-e".to_owned(), dial];
        let programs = vec![Program::start("baresip", &directory, &args)];
        let dumped = move || {
            let mut files = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.path());
            let file = files.find(|path| path.to_str().is_some_and(|path| path.ends_with("-dec.wav")))?;
            let samples = crate::ffmpeg::written(&file)?;
            // It writes both channels of what has two.
            Some(samples.into_iter().step_by(usize::from(channels)).collect())
        };
        Self {
            name: format!("baresip with {format:?}"),
            says_hz,
            rate_hz: format.rate_hz(),
            leg,
            heard: Box::new(dumped),
            _sipp: Some(sipp),
            _programs: programs,
            _crossing: None,
            _speaker: None,
        }
    }

    /// A telephone of the harness's own.
    pub(crate) fn phone(server: &Server, codec: Codec, says_hz: u32) -> Self {
        let endpoint = Endpoint::open();
        let leg = server.create(json!({"remote": endpoint.address().to_string(), "codec": codec.name()}));
        let speech = Speech { codec, ..Speech::new(says_hz) };
        let speaker = endpoint.speak(leg.local, speech, move |index| tone(says_hz, 8000, index) / 2);
        Self {
            name: format!("a telephone with {codec:?}"),
            says_hz,
            rate_hz: 8_000,
            leg,
            heard: Box::new(move || Some(endpoint.stream(codec)?.samples)),
            _sipp: None,
            _programs: Vec::new(),
            _crossing: None,
            _speaker: Some(Speaking(Some(speaker))),
        }
    }

    fn of_programs(
        name: String,
        says_hz: u32,
        rate_hz: u32,
        leg: Leg,
        raw: PathBuf,
        programs: Vec<Program>,
        crossing: Crossing,
    ) -> Self {
        let read = move || {
            let bytes = fs::read(&raw).ok()?;
            Some(bytes.as_chunks::<2>().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect())
        };
        Self {
            name,
            says_hz,
            rate_hz,
            leg,
            heard: Box::new(read),
            _sipp: None,
            _programs: programs,
            _crossing: Some(crossing),
            _speaker: None,
        }
    }
}

/// A connection to a program behind a crossing.
fn connect(server: &Server, format: Format, listens: u16) -> (Crossing, Leg) {
    let crossing = Crossing::open(listens);
    let mut params = format.params();
    params["remote"] = format!("127.0.0.1:{}", crossing.port).into();
    let leg = server.create(params);
    crossing.server.set(leg.local).unwrap();
    (crossing, leg)
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(ToOwned::to_owned).collect()
}
