//! Sounds, and what can be said of them.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::path::Path;

use ringbridge_codec::g711;
use ringbridge_wire::rtp::RtpPacket;

/// What a payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// G.711 µ-law, payload type 0.
    Pcmu,
    /// G.711 A-law, payload type 8.
    Pcma,
}

impl Codec {
    /// Its name on the control socket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Its payload type.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// Encodes samples.
    pub fn encode(self, samples: &[i16]) -> Vec<u8> {
        let mut payload = vec![0; samples.len()];
        match self {
            Self::Pcmu => g711::encode_ulaw(samples, &mut payload),
            Self::Pcma => g711::encode_alaw(samples, &mut payload),
        }
        payload
    }

    /// Decodes a payload.
    pub fn decode(self, payload: &[u8]) -> Vec<i16> {
        let mut samples = vec![0; payload.len()];
        match self {
            Self::Pcmu => g711::decode_ulaw(payload, &mut samples),
            Self::Pcma => g711::decode_alaw(payload, &mut samples),
        }
        samples
    }
}

/// One sample of a tone of that frequency in Hz, at −12 dBov.
#[expect(clippy::cast_possible_truncation, reason = "the amplitude fits")]
pub fn tone(frequency: u32, sample_rate_hz: u32, index: usize) -> i16 {
    let turns = f64::from(frequency) / f64::from(sample_rate_hz) * index as f64;
    (AMPLITUDE * (TAU * turns.fract()).sin()) as i16
}

/// Amplitude of `frequency` in samples at 8 kHz, as a share of that of [`tone`] (Goertzel's algorithm).
pub fn share(samples: &[i16], frequency: u32) -> f64 {
    let step = TAU * f64::from(frequency) / 8000.0;
    let coefficient = 2.0 * step.cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        (last, before) = (f64::from(*sample) + coefficient * last - before, last);
    }
    let power = last * last + before * before - coefficient * last * before;
    2.0 * power.max(0.0).sqrt() / samples.len() as f64 / AMPLITUDE
}

/// Writes 16-bit samples at 8 kHz as a WAV file, with the directories it is in.
///
/// # Panics
/// If that fails.
pub fn write_wav(path: &Path, samples: &[i16]) {
    write_wav_at(path, 8000, samples);
}

/// The same at another rate.
///
/// # Panics
/// If that fails.
pub fn write_wav_at(path: &Path, sample_rate: u32, samples: &[i16]) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("a directory");
    }
    let spec =
        hound::WavSpec { channels: 1, sample_rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec).expect("a file");
    samples.iter().for_each(|sample| writer.write_sample(*sample).expect("written"));
    writer.finalize().expect("closed");
}

/// Amplitude of [`tone`].
const AMPLITUDE: f64 = 8000.0;

/// One stream as it was heard, by timestamp.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// Whose it is.
    pub ssrc: u32,
    /// Timestamp of the first sample.
    pub first: u32,
    /// From the first packet's first sample on; silence where nothing came.
    pub samples: Vec<i16>,
}

impl Stream {
    /// Puts what was heard of `ssrc` in order. Other payload types are left out.
    pub fn of(ssrc: u32, codec: Codec, packets: &[Vec<u8>]) -> Option<Self> {
        let parsed = packets.iter().filter_map(|packet| RtpPacket::parse(packet).ok());
        let mut origin = None;
        let mut placed = BTreeMap::new();
        for packet in parsed.filter(|packet| packet.ssrc().0 == ssrc && packet.payload_type() == codec.payload_type()) {
            let timestamp = packet.timestamp().0;
            let origin = *origin.get_or_insert(timestamp);
            placed.insert(timestamp.wrapping_sub(origin).cast_signed(), codec.decode(packet.payload()));
        }
        let (start, origin) = (*placed.keys().next()?, origin?);
        let mut samples: Vec<i16> = Vec::new();
        for (offset, payload) in placed {
            let at = usize::try_from(offset - start).ok()?;
            if samples.len() < at + payload.len() {
                samples.resize(at + payload.len(), 0);
            }
            samples[at..at + payload.len()].copy_from_slice(&payload);
        }
        Some(Self { ssrc, first: origin.wrapping_add_signed(start), samples })
    }

    /// Where a timestamp lies, if it has been heard or will be.
    pub fn index(&self, timestamp: u32) -> Option<usize> {
        usize::try_from(timestamp.wrapping_sub(self.first).cast_signed()).ok()
    }
}
