//! Codecs against others' implementations of them: ffmpeg with its own G.722 and GSM, with libgsm and with libopus, and the
//! tools of opus-tools.
//!
//! Not part of a normal run, for the programs have to be installed; what they said once is in `vectors.rs`.
//!
//! ```text
//! apt-get install ffmpeg opus-tools
//! cargo test -p ringbridge-codec --test interop -- --ignored
//! ```
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::cast_possible_truncation, reason = "samples of our own")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use opus_pure::{OggOpusReader, OggOpusWriter, OpusHead};
use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings, Rate, Resampler};

/// A folder that is gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ringbridge-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, samples: &[i16]) -> String {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn samples_of(path: impl AsRef<Path>) -> Vec<i16> {
    fs::read(path).unwrap().as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: install ffmpeg and opus-tools"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Words of half a second: harmonics that glide, hisses between them, and some noise below.
fn voice(rate: Rate, seconds: usize) -> Vec<i16> {
    let mut random = 1_u32;
    (0..seconds * rate.hz() as usize)
        .map(|n| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(random >> 16) / 32768.0 - 1.0;
            let t = n as f64 / f64::from(rate.hz());
            let phase = (150.0 * t + 3.0 * (2.0 * t).sin()) * std::f64::consts::TAU;
            let voiced: f64 = (1..20).map(|k| (f64::from(k) * phase).sin() / f64::from(k)).sum();
            let word = (t * std::f64::consts::TAU).sin();
            (word.max(0.0) * voiced * 6000.0 + (-word - 0.7).max(0.0) * noise * 8000.0 + noise * 20.0) as i16
        })
        .collect()
}

/// How far below `wanted` the difference is, in dB.
fn error_db(wanted: &[i16], found: &[i16]) -> f64 {
    let (mut signal, mut error) = (0.0, 1e-9);
    for (a, b) in wanted.iter().zip(found) {
        signal += f64::from(*a).powi(2);
        error += (f64::from(*a) - f64::from(*b)).powi(2);
    }
    10.0 * (error / signal).log10()
}

fn encoded(kind: CodecKind, settings: EncoderSettings, samples: &[i16], frame: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(kind, settings).unwrap();
    let mut bytes = [0; 1440];
    samples
        .chunks_exact(frame)
        .map(|frame| {
            let len = encoder.encode(frame, &mut bytes).unwrap();
            bytes[..len].to_vec()
        })
        .collect()
}

fn decoded<'a>(kind: CodecKind, packets: impl Iterator<Item = &'a [u8]>) -> Vec<i16> {
    let mut decoder = Decoder::new(kind).unwrap();
    let (mut out, mut heard) = (vec![0; 5760], Vec::new());
    for packet in packets {
        let len = decoder.decode(packet, &mut out).unwrap();
        heard.extend(&out[..len]);
    }
    heard
}

#[test]
#[ignore = "needs ffmpeg"]
fn g722_is_that_of_ffmpeg_to_the_bit() {
    let folder = Folder::new("g722");
    let samples = voice(Rate::Wide, 10);
    let pcm = folder.write("in.raw", &samples);
    let (theirs, back) = (folder.path("theirs.g722"), folder.path("back.raw"));
    run("ffmpeg", &["-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", &pcm, "-c:a", "g722", &theirs]);
    run("ffmpeg", &["-v", "error", "-f", "g722", "-i", &theirs, "-f", "s16le", &back]);
    let ours = encoded(CodecKind::G722, EncoderSettings::default(), &samples, 320).concat();
    assert!(fs::read(&theirs).unwrap() == ours, "the words differ");
    assert!(samples_of(&back) == decoded(CodecKind::G722, ours.chunks(160)), "the samples differ");
}

#[test]
#[ignore = "needs ffmpeg"]
fn gsm_is_that_of_ffmpeg_to_the_bit() {
    let folder = Folder::new("gsm");
    let samples = voice(Rate::Narrow, 10);
    let pcm = folder.write("in.raw", &samples);
    let (theirs, back) = (folder.path("theirs.gsm"), folder.path("back.raw"));
    run("ffmpeg", &["-v", "error", "-f", "s16le", "-ar", "8000", "-ac", "1", "-i", &pcm, "-c:a", "libgsm", &theirs]);
    // The decoder is ffmpeg's own.
    run("ffmpeg", &["-v", "error", "-c:a", "gsm", "-f", "gsm", "-i", &theirs, "-f", "s16le", &back]);
    let ours = encoded(CodecKind::Gsm, EncoderSettings::default(), &samples, 160).concat();
    assert!(fs::read(&theirs).unwrap() == ours, "the frames differ");
    assert!(samples_of(&back) == decoded(CodecKind::Gsm, ours.chunks(33)), "the samples differ");
}

/// Every mode of Opus, as libopus encodes it, decodes to what libopus makes of it: to the bit where only SILK is used,
/// else but for rounding.
#[test]
#[ignore = "needs ffmpeg with libopus"]
fn opus_of_libopus_is_decoded() {
    let folder = Folder::new("opus-from");
    let pcm = folder.write("in.raw", &voice(Rate::Full, 10));
    // What to ask of ffmpeg, the configurations that should come of it (RFC 6716 table 2), the error there may be.
    let conditions: [(&str, std::ops::RangeInclusive<u8>, f64); 9] = [
        ("-ar 8000 -b:a 10k -application voip", 0..=3, -120.0),
        ("-ar 12000 -b:a 12k -application voip", 4..=7, -120.0),
        ("-ar 16000 -b:a 16k -application voip -fec 1 -packet_loss 15", 8..=11, -120.0),
        ("-b:a 26k -application voip -fec 1 -packet_loss 15", 8..=15, -90.0),
        ("-b:a 24k -application voip -frame_duration 60 -fec 1 -packet_loss 15", 8..=15, -90.0),
        ("-b:a 64k -application audio", 16..=31, -80.0),
        ("-b:a 64k -application lowdelay -frame_duration 5", 16..=31, -80.0),
        ("-ac 2 -b:a 64k -application audio", 8..=31, -50.0),
        ("-ac 2 -ar 16000 -b:a 20k -application voip", 8..=11, -50.0),
    ];
    for (settings, configurations, error_max) in conditions {
        let (theirs, back) = (folder.path("theirs.opus"), folder.path("back.raw"));
        let mut arguments = vec!["-v", "error", "-y", "-f", "s16le", "-ar", "48000", "-ac", "1", "-i", &pcm];
        arguments.extend(settings.split(' '));
        arguments.extend(["-c:a", "libopus", &theirs]);
        run("ffmpeg", &arguments);
        run("ffmpeg", &["-v", "error", "-y", "-c:a", "libopus", "-i", &theirs, "-ac", "1", "-f", "s16le", &back]);
        let mut reader = OggOpusReader::new(File::open(&theirs).unwrap()).unwrap();
        let skip = reader.head().pre_skip as usize;
        let packets: Vec<Vec<u8>> = reader.packets().map(|packet| packet.unwrap().data).collect();
        let found = packets.iter().filter(|packet| configurations.contains(&(packet[0] >> 3))).count();
        assert!(found * 10 >= packets.len() * 9, "{settings}: {found} of {} packets", packets.len());
        let ours = decoded(CodecKind::Opus, packets.iter().map(Vec::as_slice));
        let error = error_db(&samples_of(&back), &ours[skip..]);
        println!("{settings}: {error:.1} dB, {} packets", packets.len());
        assert!(error < error_max, "{settings}: {error:.1} dB");
    }
}

/// libopus makes the same of our packets as we do, and what opusenc writes is understood.
#[test]
#[ignore = "needs ffmpeg with libopus, opusenc and opusdec"]
fn libopus_decodes_ours() {
    let folder = Folder::new("opus-to");
    let samples = voice(Rate::Full, 10);
    for (bitrate, fec, frame) in [
        (12_000, false, 960),
        (16_000, true, 960),
        (32_000, true, 960),
        (32_000, true, 2880),
        (48_000, false, 480),
        (96_000, false, 960),
    ] {
        let settings = EncoderSettings { bitrate, fec, dtx: false };
        let packets = encoded(CodecKind::Opus, settings, &samples, frame);
        let (file, back, tools) = (folder.path("ours.opus"), folder.path("back.raw"), folder.path("back.wav"));
        let mut head = OpusHead::new(1, 48_000).unwrap();
        head.pre_skip = 312;
        let mut writer = OggOpusWriter::new(File::create(&file).unwrap(), head).unwrap();
        packets.iter().for_each(|packet| writer.write_packet(packet).unwrap());
        writer.finish().unwrap();
        run("ffmpeg", &["-v", "error", "-y", "-c:a", "libopus", "-i", &file, "-f", "s16le", &back]);
        run("opusdec", &["--quiet", "--no-dither", "--force-wav", &file, &tools]);
        let ours = decoded(CodecKind::Opus, packets.iter().map(Vec::as_slice));
        let [of_ffmpeg, of_opusdec] = [samples_of(&back), samples_of(&tools)[22..].to_vec()];
        for (who, theirs) in [("ffmpeg", of_ffmpeg), ("opusdec", of_opusdec)] {
            assert!(theirs.len() + 4 * 960 > samples.len(), "{who} dropped packets");
            let error = error_db(&theirs, &ours[312..]);
            println!("{bitrate} bit/s, {frame} samples, {who}: {error:.1} dB");
            assert!(error < -60.0, "{bitrate} bit/s, {frame} samples, {who}: {error:.1} dB");
        }
    }

    let pcm = folder.write("in.raw", &samples);
    let (theirs, back) = (folder.path("theirs.opus"), folder.path("theirs.wav"));
    run(
        "opusenc",
        &["--quiet", "--raw", "--raw-rate", "48000", "--raw-chan", "1", "--bitrate", "24", "--speech", &pcm, &theirs],
    );
    run("opusdec", &["--quiet", "--no-dither", "--force-wav", &theirs, &back]);
    let mut reader = OggOpusReader::new(File::open(&theirs).unwrap()).unwrap();
    let skip = reader.head().pre_skip as usize;
    let packets: Vec<Vec<u8>> = reader.packets().map(|packet| packet.unwrap().data).collect();
    let ours = decoded(CodecKind::Opus, packets.iter().map(Vec::as_slice));
    let error = error_db(&samples_of(&back)[22..], &ours[skip..]);
    assert!(error < -60.0, "opusenc: {error:.1} dB");
}

/// A resampler of ours and one of theirs have the same of a voice.
#[test]
#[ignore = "needs ffmpeg"]
fn resampled_voices_are_those_of_ffmpeg() {
    let folder = Folder::new("resample");
    for (from, to) in
        [(Rate::Full, Rate::Wide), (Rate::Full, Rate::Narrow), (Rate::Wide, Rate::Narrow), (Rate::Narrow, Rate::Full)]
    {
        let samples = voice(from, 4);
        let (pcm, out) = (folder.write("in.raw", &samples), folder.path("out.raw"));
        let (from_hz, to_hz) = (from.hz().to_string(), to.hz().to_string());
        run(
            "ffmpeg",
            &[
                "-v",
                "error",
                "-y",
                "-f",
                "s16le",
                "-ar",
                &from_hz,
                "-ac",
                "1",
                "-i",
                &pcm,
                "-af",
                "aresample=filter_size=64:cutoff=0.9:dither_method=none",
                "-ar",
                &to_hz,
                "-f",
                "s16le",
                &out,
            ],
        );
        let mut resampler = Resampler::new(from, to);
        let mut ours = vec![0; samples.len() / from.frame_samples() * to.frame_samples()];
        resampler.process(&samples, &mut ours);
        let error = error_db(&samples_of(&out), &ours[resampler.delay_samples()..]);
        println!("{from:?} to {to:?}: {error:.1} dB");
        assert!(error < -25.0, "{from:?} to {to:?}: {error:.1} dB");
    }
}
