//! Reads WAV files: linear PCM, float, A-law and µ-law, any number of channels mixed to one.
//!
//! The container is walked here rather than by `hound`, which refuses the two G.711 formats. Every number in the file
//! is a claim until checked against the file's real length; nothing is allocated by a claim.

use std::io::{self, Read, Seek, SeekFrom};

use ringbridge_codec::g711;

/// Sample rates that are taken, in Hz.
const SAMPLE_RATES_HZ: std::ops::RangeInclusive<u32> = 4000..=192_000;
/// Channels that are mixed to one.
const CHANNELS_MAX: u16 = 8;
/// Chunks looked at before the samples have to come.
const CHUNKS_MAX: usize = 64;
/// Frames read at once.
const FRAMES_PER_READ_MAX: usize = 4096;

const FORMAT_PCM: u16 = 1;
const FORMAT_FLOAT: u16 = 3;
const FORMAT_ALAW: u16 = 6;
const FORMAT_ULAW: u16 = 7;
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;
/// What follows the format tag in the sub-format GUID of `WAVEFORMATEXTENSIBLE`.
const SUB_FORMAT_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];

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
        "WAV format {tag:#06x} with {bits} bits is not supported; PCM, float, A-law and µ-law are: \
         sox IN -e signed -b 16 OUT.wav"
    )]
    Format { tag: u16, bits: u16 },
    #[error("{0} channels; 1 to {CHANNELS_MAX} are supported")]
    Channels(u16),
    #[error("a sample rate of {0} Hz; {from} to {to} Hz are supported", from = SAMPLE_RATES_HZ.start(), to = SAMPLE_RATES_HZ.end())]
    SampleRate(u32),
    #[error("the WAV file holds no samples")]
    Empty,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How one sample is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    Pcm8,
    Pcm16,
    Pcm24,
    Pcm32,
    Float32,
    Float64,
    Alaw,
    Ulaw,
}

impl Encoding {
    const fn bytes(self) -> usize {
        match self {
            Self::Pcm8 | Self::Alaw | Self::Ulaw => 1,
            Self::Pcm16 => 2,
            Self::Pcm24 => 3,
            Self::Pcm32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

/// The `fmt ` chunk as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Format {
    encoding: Encoding,
    channels: usize,
    sample_rate_hz: u32,
}

/// A WAV file opened at its first sample.
#[derive(Debug)]
pub(super) struct WavReader<R> {
    reader: R,
    format: Format,
    frames: u64,
    frames_left: u64,
    raw: Vec<u8>,
    linear: Vec<i16>,
}

impl<R: Read + Seek> WavReader<R> {
    /// Reads the header of a file of `file_bytes` bytes.
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
                    let frames = bytes / (format.channels * format.encoding.bytes()) as u64;
                    if frames == 0 {
                        return Err(WavError::Empty);
                    }
                    let (raw, linear) = (Vec::new(), Vec::new());
                    return Ok(Self { reader, format, frames, frames_left: frames, raw, linear });
                }
                _ => {}
            }
            at += bytes + bytes % 2;
        }
        Err(WavError::Malformed("too many chunks before the samples"))
    }

    /// Appends at most `frames_max` samples to `out`, all channels mixed to one, on the scale of 16-bit samples
    /// (−32768 ..= 32767). Returns how many; 0 at the end.
    ///
    /// # Errors
    /// If the file breaks off or can't be read.
    pub(super) fn read_mono(&mut self, frames_max: usize, out: &mut Vec<f32>) -> io::Result<usize> {
        let left = usize::try_from(self.frames_left).unwrap_or(usize::MAX);
        let frames = frames_max.min(FRAMES_PER_READ_MAX).min(left);
        self.raw.resize(frames * self.format.channels * self.format.encoding.bytes(), 0);
        self.reader.read_exact(&mut self.raw)?;
        self.frames_left -= frames as u64;
        let raw = &self.raw[..];
        let channels = self.format.channels;
        match self.format.encoding {
            Encoding::Pcm8 => mix_down(raw, channels, out, |[byte]: [u8; 1]| (f32::from(byte) - 128.0) * 256.0),
            Encoding::Pcm16 => mix_down(raw, channels, out, |bytes| f32::from(i16::from_le_bytes(bytes))),
            Encoding::Pcm24 => {
                mix_down(raw, channels, out, |[a, b, c]: [u8; 3]| i32::from_le_bytes([0, a, b, c]) as f32 / 65536.0)
            }
            Encoding::Pcm32 => mix_down(raw, channels, out, |bytes| i32::from_le_bytes(bytes) as f32 / 65536.0),
            Encoding::Float32 => mix_down(raw, channels, out, |bytes| sane(f32::from_le_bytes(bytes).into())),
            Encoding::Float64 => mix_down(raw, channels, out, |bytes| sane(f64::from_le_bytes(bytes))),
            Encoding::Alaw => self.mix_down_g711(g711::decode_alaw, out),
            Encoding::Ulaw => self.mix_down_g711(g711::decode_ulaw, out),
        }
        Ok(frames)
    }

    fn mix_down_g711(&mut self, decode: impl Fn(&[u8], &mut [i16]), out: &mut Vec<f32>) {
        self.linear.resize(self.raw.len(), 0);
        decode(&self.raw, &mut self.linear);
        let frames = self.linear.chunks_exact(self.format.channels);
        out.extend(frames.map(|frame| mean(frame.iter().map(|sample| f32::from(*sample)))));
    }

    /// Length in samples of one channel.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Samples a second and channel.
    pub(super) fn sample_rate_hz(&self) -> u32 {
        self.format.sample_rate_hz
    }
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
    if tag == FORMAT_EXTENSIBLE {
        if len < 40 || chunk[26..40] != SUB_FORMAT_TAIL {
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
    if block_bytes == 0 || block_bytes % channels != 0 {
        return Err(WavError::Malformed("its frames can't be divided among its channels"));
    }
    // Samples of 12 or 20 bits stand at the top of the next larger container, so the container is all that counts.
    let container_bytes = block_bytes / channels;
    if bits == 0 || bits > container_bytes.saturating_mul(8) {
        return Err(WavError::Malformed("its samples have more bits than room"));
    }
    let encoding = match (tag, container_bytes) {
        (FORMAT_PCM, 1) => Encoding::Pcm8,
        (FORMAT_PCM, 2) => Encoding::Pcm16,
        (FORMAT_PCM, 3) => Encoding::Pcm24,
        (FORMAT_PCM, 4) => Encoding::Pcm32,
        (FORMAT_FLOAT, 4) => Encoding::Float32,
        (FORMAT_FLOAT, 8) => Encoding::Float64,
        (FORMAT_ALAW, 1) => Encoding::Alaw,
        (FORMAT_ULAW, 1) => Encoding::Ulaw,
        _ => return Err(WavError::Format { tag, bits }),
    };
    Ok(Format { encoding, channels: usize::from(channels), sample_rate_hz })
}

fn le16(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
