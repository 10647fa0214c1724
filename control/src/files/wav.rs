//! Reads audio files, with a WAV header or without one: linear PCM, float, A-law, µ-law, OKI ADPCM, and G.726 with 2
//! bits a sample; any number of channels mixed to one.
//!
//! The container is walked here rather than by `hound`, which refuses all but PCM and float. Every number in the file
//! is a claim until checked against the file's real length; nothing is allocated by a claim.

use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use ringbridge_codec::adpcm::AdpcmDecoder;
use ringbridge_codec::g711;
use ringbridge_codec::g726::G726Decoder16k;

use super::format::{Coding, FormatError, HeaderlessFormat};
use super::wav_header::{TAG_ALAW, TAG_DIALOGIC_OKI_ADPCM, TAG_G726, TAG_G726_ADPCM, TAG_OKI_ADPCM, TAG_PCM, TAG_ULAW};

/// Sample rates that are taken, in Hz.
const SAMPLE_RATES_HZ: std::ops::RangeInclusive<u32> = 4000..=192_000;
/// Channels that are mixed to one.
const CHANNELS_MAX: u16 = 8;
/// Chunks looked at before the samples have to come.
const CHUNKS_MAX: usize = 64;
/// Frames read at once.
const FRAMES_PER_READ_MAX: usize = 4096;

const TAG_FLOAT: u16 = 0x0003;
const TAG_EXTENSIBLE: u16 = 0xFFFE;
/// What follows the format tag in the sub-format GUID of `WAVEFORMATEXTENSIBLE`.
const SUB_TAG_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];

/// Why a file can't be read as WAV.
#[derive(Debug, thiserror::Error)]
pub(super) enum WavError {
    #[error("not a WAV file (no RIFF/WAVE header); convert it with: sox IN -r 8000 -c 1 -b 16 OUT.wav")]
    NotWav,
    #[error("the WAV file breaks off: {0}")]
    Truncated(&'static str),
    #[error("the WAV header contradicts itself: {0}")]
    Malformed(&'static str),
    #[error(
        "WAV format {tag:#06x} with {bits} bits is not supported; PCM, float, A-law, µ-law, OKI ADPCM and G.726 with 2 \
         bits are: sox IN -e signed -b 16 OUT.wav"
    )]
    Format { tag: u16, bits: u16 },
    #[error("{0} channels; 1 to {CHANNELS_MAX} are supported")]
    Channels(u16),
    #[error("a sample rate of {0} Hz; {from} to {to} Hz are supported", from = SAMPLE_RATES_HZ.start(), to = SAMPLE_RATES_HZ.end())]
    SampleRate(u32),
    #[error("{0} channels of ADPCM; only one is supported")]
    AdpcmChannels(u16),
    #[error("the file holds no samples")]
    Empty,
    #[error(transparent)]
    Headerless(#[from] FormatError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How one sample is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sample {
    Pcm8,
    Pcm16,
    Pcm24,
    Pcm32,
    Float32,
    Float64,
    Alaw,
    Ulaw,
    Adpcm,
    G726,
}

impl Sample {
    const fn bits(self) -> usize {
        match self {
            Self::G726 => 2,
            Self::Adpcm => 4,
            Self::Pcm8 | Self::Alaw | Self::Ulaw => 8,
            Self::Pcm16 => 16,
            Self::Pcm24 => 24,
            Self::Pcm32 | Self::Float32 => 32,
            Self::Float64 => 64,
        }
    }
}

impl From<Coding> for Sample {
    fn from(coding: Coding) -> Self {
        match coding {
            Coding::Pcm8 => Self::Pcm8,
            Coding::Pcm16 => Self::Pcm16,
            Coding::Ulaw => Self::Ulaw,
            Coding::Alaw => Self::Alaw,
            Coding::Adpcm => Self::Adpcm,
        }
    }
}

/// What a header or a description tells about the frames.
#[derive(Clone, Copy, Debug)]
struct Format {
    sample: Sample,
    channels: usize,
    sample_rate_hz: u32,
}

impl Format {
    /// Whole frames in this many bytes.
    fn frames(self, bytes: u64) -> u64 {
        bytes * 8 / (self.channels * self.sample.bits()) as u64
    }

    /// Bytes of this many frames. Those of ADPCM are even in number, those of G.726 a multiple of four, but for the last.
    fn bytes(self, frames: usize) -> usize {
        (frames * self.channels * self.sample.bits()).div_ceil(8)
    }
}

/// A file opened at its first sample.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    reader: R,
    format: Format,
    frames_left: u64,
    adpcm: AdpcmDecoder,
    g726: G726Decoder16k,
    raw: Vec<u8>,
    linear: Vec<i16>,
}

impl<R: Read + Seek> FrameReader<R> {
    /// Reads the header of a WAV file of `file_bytes` bytes.
    pub(super) fn new(mut reader: R, file_bytes: u64) -> Result<Self, WavError> {
        let mut riff = [0; 12];
        if file_bytes < riff.len() as u64 {
            return Err(WavError::NotWav);
        }
        reader.read_exact(&mut riff)?;
        if &riff[..4] != b"RIFF" || &riff[8..] != b"WAVE" {
            return Err(WavError::NotWav);
        }
        let mut at = 12;
        let mut format = None;
        for _ in 0..CHUNKS_MAX {
            let mut head = [0; 8];
            if at + 8 > file_bytes {
                return Err(WavError::Truncated("there is no data chunk"));
            }
            reader.seek(SeekFrom::Start(at))?;
            reader.read_exact(&mut head)?;
            at += 8;
            let bytes = u64::from(le32(&head[4..]));
            if at + bytes > file_bytes {
                return Err(WavError::Truncated("a chunk is longer than the file"));
            }
            match &head[..4] {
                b"fmt " => format = Some(read_format(&mut reader, bytes)?),
                b"data" => {
                    let format = format.ok_or(WavError::Malformed("samples before their format"))?;
                    return Self::at_first_sample(reader, format, bytes);
                }
                _ => {}
            }
            at += bytes + bytes % 2;
        }
        Err(WavError::Malformed("too many chunks before the samples"))
    }

    /// Takes all `file_bytes` bytes of a file as samples in `format`, in one channel.
    pub(super) fn headerless(reader: R, file_bytes: u64, format: HeaderlessFormat) -> Result<Self, WavError> {
        let sample = Sample::from(format.coding()?);
        let format = Format { sample, channels: 1, sample_rate_hz: format.sample_rate_hz };
        // No longer than a WAV file can be: lengths in samples are reckoned with.
        Self::at_first_sample(reader, format, file_bytes.min(u32::MAX.into()))
    }

    fn at_first_sample(reader: R, format: Format, bytes: u64) -> Result<Self, WavError> {
        let frames_left = format.frames(bytes);
        if frames_left == 0 {
            return Err(WavError::Empty);
        }
        let (adpcm, g726) = (AdpcmDecoder::new(), G726Decoder16k::new());
        Ok(Self { reader, format, frames_left, adpcm, g726, raw: Vec::new(), linear: Vec::new() })
    }

    /// How long what is left takes to play.
    pub(super) fn duration(&self) -> Duration {
        let micros = self.frames_left.saturating_mul(1_000_000) / u64::from(self.format.sample_rate_hz);
        Duration::from_micros(micros)
    }

    /// Jumps over the next `frames` frames, of which there are more. Returns how many have to be read and thrown away
    /// instead, since what follows depends on them.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn skip(&mut self, frames: u64) -> io::Result<u64> {
        let in_byte = match self.format.sample {
            Sample::Adpcm => 2,
            Sample::G726 => 4,
            Sample::Pcm8
            | Sample::Pcm16
            | Sample::Pcm24
            | Sample::Pcm32
            | Sample::Float32
            | Sample::Float64
            | Sample::Alaw
            | Sample::Ulaw => 1,
        };
        if in_byte > 1 {
            return Ok(frames - frames % in_byte);
        }
        let bytes = frames * (self.format.channels * self.format.sample.bits() / 8) as u64;
        self.reader.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)?;
        self.frames_left -= frames;
        Ok(0)
    }

    /// Appends at most `frames_max` samples to `out`, all channels mixed to one, on the scale of 16-bit samples
    /// (−32768 ..= 32767). Returns how many; 0 at the end.
    ///
    /// # Errors
    /// If the file breaks off or can't be read.
    pub(super) fn read_mono(&mut self, frames_max: usize, out: &mut Vec<f32>) -> io::Result<usize> {
        let left = usize::try_from(self.frames_left).unwrap_or(usize::MAX);
        let frames = frames_max.min(FRAMES_PER_READ_MAX).min(left);
        self.raw.resize(self.format.bytes(frames), 0);
        self.reader.read_exact(&mut self.raw)?;
        self.frames_left -= frames as u64;
        let raw = &self.raw[..];
        let channels = self.format.channels;
        match self.format.sample {
            Sample::Pcm8 => mix_down(raw, channels, out, |[byte]: [u8; 1]| (f32::from(byte) - 128.0) * 256.0),
            Sample::Pcm16 => mix_down(raw, channels, out, |bytes| f32::from(i16::from_le_bytes(bytes))),
            Sample::Pcm24 => {
                mix_down(raw, channels, out, |[a, b, c]: [u8; 3]| i32::from_le_bytes([0, a, b, c]) as f32 / 65536.0)
            }
            Sample::Pcm32 => mix_down(raw, channels, out, |bytes| i32::from_le_bytes(bytes) as f32 / 65536.0),
            Sample::Float32 => mix_down(raw, channels, out, |bytes| sane(f32::from_le_bytes(bytes).into())),
            Sample::Float64 => mix_down(raw, channels, out, |bytes| sane(f64::from_le_bytes(bytes))),
            Sample::Alaw => self.mix_down_g711(g711::decode_alaw, out),
            Sample::Ulaw => self.mix_down_g711(g711::decode_ulaw, out),
            Sample::Adpcm => {
                self.linear.resize(2 * raw.len(), 0);
                self.adpcm.decode(raw, &mut self.linear);
                out.extend(self.linear.iter().take(frames).map(|sample| f32::from(*sample)));
            }
            Sample::G726 => {
                self.linear.resize(4 * raw.len(), 0);
                // A WAV file has the first sample of a byte in its highest bits, RTP in its lowest.
                self.raw.iter_mut().for_each(|byte| *byte = turned(*byte));
                self.g726.decode(&self.raw, &mut self.linear);
                out.extend(self.linear.iter().take(frames).map(|sample| f32::from(*sample)));
            }
        }
        Ok(frames)
    }

    fn mix_down_g711(&mut self, decode: impl Fn(&[u8], &mut [i16]), out: &mut Vec<f32>) {
        self.linear.resize(self.raw.len(), 0);
        decode(&self.raw, &mut self.linear);
        let frames = self.linear.chunks_exact(self.format.channels);
        out.extend(frames.map(|frame| mean(frame.iter().map(|sample| f32::from(*sample)))));
    }

    /// Frames that have not been read yet.
    pub(super) fn frames_left(&self) -> u64 {
        self.frames_left
    }

    /// Samples a second and channel.
    pub(super) fn sample_rate_hz(&self) -> u32 {
        self.format.sample_rate_hz
    }
}

/// A byte with its four pairs of bits the other way round.
const fn turned(byte: u8) -> u8 {
    let bits = byte.reverse_bits();
    (bits & 0x55) << 1 | (bits & 0xAA) >> 1
}

/// Appends the mean of each frame's channels.
fn mix_down<const BYTES: usize>(raw: &[u8], channels: usize, out: &mut Vec<f32>, sample: impl Fn([u8; BYTES]) -> f32) {
    let frames = raw.chunks_exact(channels * BYTES);
    out.extend(frames.map(|frame| mean(frame.as_chunks::<BYTES>().0.iter().map(|bytes| sample(*bytes)))));
}

fn mean(samples: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = samples.len();
    samples.sum::<f32>() / count as f32
}

/// A float sample on the 16-bit scale. Whatever is no number becomes silence, whatever is beyond full scale is cut, so
/// that one wild sample can't ring through the resampler.
#[expect(clippy::cast_possible_truncation, reason = "within 16 bits by then; 24 of them are kept")]
fn sane(sample: f64) -> f32 {
    if sample.is_finite() { (sample * 32768.0).clamp(-32768.0, 32767.0) as f32 } else { 0.0 }
}

fn read_format(reader: &mut impl Read, bytes: u64) -> Result<Format, WavError> {
    if bytes < 16 {
        return Err(WavError::Malformed("its format is too short"));
    }
    let mut chunk = [0; 40];
    let len = usize::try_from(bytes).unwrap_or(usize::MAX).min(chunk.len());
    reader.read_exact(&mut chunk[..len])?;
    let (channels, block_bytes, bits) = (le16(&chunk[2..]), le16(&chunk[12..]), le16(&chunk[14..]));
    let sample_rate_hz = le32(&chunk[4..]);
    let mut tag = le16(&chunk);
    if tag == TAG_EXTENSIBLE {
        if len < 40 || chunk[26..40] != SUB_TAG_TAIL {
            return Err(WavError::Format { tag, bits });
        }
        tag = le16(&chunk[24..]);
    }
    if !(1..=CHANNELS_MAX).contains(&channels) {
        return Err(WavError::Channels(channels));
    }
    if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
        return Err(WavError::SampleRate(sample_rate_hz));
    }
    if matches!(tag, TAG_OKI_ADPCM | TAG_DIALOGIC_OKI_ADPCM) && bits == 4 {
        // A stream of codes: how many bytes a block has makes no difference.
        return match channels {
            1 => Ok(Format { sample: Sample::Adpcm, channels: 1, sample_rate_hz }),
            _ => Err(WavError::AdpcmChannels(channels)),
        };
    }
    if matches!(tag, TAG_G726 | TAG_G726_ADPCM) && bits == 2 {
        return match channels {
            1 => Ok(Format { sample: Sample::G726, channels: 1, sample_rate_hz }),
            _ => Err(WavError::AdpcmChannels(channels)),
        };
    }
    if block_bytes == 0 || block_bytes % channels != 0 {
        return Err(WavError::Malformed("its frames can't be divided among its channels"));
    }
    // Samples of 12 or 20 bits stand at the top of the next larger container, so the container is all that counts.
    let container_bytes = block_bytes / channels;
    if bits == 0 || bits > container_bytes.saturating_mul(8) {
        return Err(WavError::Malformed("its samples have more bits than room"));
    }
    let sample = match (tag, container_bytes) {
        (TAG_PCM, 1) => Sample::Pcm8,
        (TAG_PCM, 2) => Sample::Pcm16,
        (TAG_PCM, 3) => Sample::Pcm24,
        (TAG_PCM, 4) => Sample::Pcm32,
        (TAG_FLOAT, 4) => Sample::Float32,
        (TAG_FLOAT, 8) => Sample::Float64,
        (TAG_ALAW, 1) => Sample::Alaw,
        (TAG_ULAW, 1) => Sample::Ulaw,
        _ => return Err(WavError::Format { tag, bits }),
    };
    Ok(Format { sample, channels: usize::from(channels), sample_rate_hz })
}

fn le16(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
