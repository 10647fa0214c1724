//! A WAV file as a stream of samples the engine can play: 16-bit linear, one channel, 8 kHz.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use ringbridge_media::limits::SAMPLE_RATE_HZ;
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Indexing, Resampler as _, SincInterpolationParameters, SincInterpolationType, WindowFunction,
};

use super::wav::{WavError, WavReader};

/// Frames the resampler takes at once.
const RESAMPLER_FRAMES: usize = 1024;
/// Length of the anti-aliasing filter, counted in samples at the lower of the two rates.
const FILTER_SAMPLES: usize = 96;
/// Longest filter, in samples at the file's rate: reached at 192 kHz.
const FILTER_FRAMES_MAX: usize = 2304;

/// Decodes, mixes down and resamples a file piece by piece.
pub(super) struct Decoder<R = BufReader<File>> {
    wav: WavReader<R>,
    resampler: Option<Resampler>,
    mono: Vec<f32>,
    resampled: Vec<f32>,
    ended: bool,
}

impl<R: Read + Seek> Decoder<R> {
    /// Reads the header of a file of `file_bytes` bytes.
    pub(super) fn new(reader: R, file_bytes: u64) -> Result<Self, WavError> {
        let wav = WavReader::new(reader, file_bytes)?;
        let rate_hz = wav.sample_rate_hz();
        let resampler = (rate_hz != SAMPLE_RATE_HZ).then(|| Resampler::new(rate_hz)).transpose()?;
        Ok(Self { wav, resampler, mono: Vec::new(), resampled: Vec::new(), ended: false })
    }

    /// Appends the next samples, some hundred milliseconds at most. Returns `false` once there are no more.
    ///
    /// # Errors
    /// If the file breaks off or can't be read.
    pub(super) fn step(&mut self, out: &mut Vec<i16>) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.mono.clear();
        self.ended = self.wav.read_mono(usize::MAX, &mut self.mono)? == 0;
        let samples = match &mut self.resampler {
            None => &self.mono,
            Some(resampler) => {
                self.resampled.clear();
                if self.ended {
                    resampler.finish(&mut self.resampled)?;
                } else {
                    resampler.push(&self.mono, &mut self.resampled)?;
                }
                &self.resampled
            }
        };
        out.extend(samples.iter().map(|sample| narrow(*sample)));
        Ok(!self.ended)
    }

    /// How many samples there will be in all.
    pub(super) fn samples(&self) -> u64 {
        resampled_length(self.wav.frames(), self.wav.sample_rate_hz())
    }
}

/// Brings samples of one rate to 8 kHz. What comes out starts with what went in: the filter's own delay is cut off.
///
/// A windowed sinc whose memory does not depend on how the two rates divide, as that of an FFT would: a header may claim
/// any rate.
struct Resampler {
    inner: Async<f32>,
    rate_hz: u32,
    pending: Vec<f32>,
    block: Vec<f32>,
    delay_left: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    fn new(rate_hz: u32) -> io::Result<Self> {
        // The filter works at the file's rate, but has to be long enough at the lower one.
        let factor = (rate_hz as usize).div_ceil(SAMPLE_RATE_HZ as usize);
        let parameters = SincInterpolationParameters {
            sinc_len: (FILTER_SAMPLES * factor).min(FILTER_FRAMES_MAX),
            f_cutoff: None,
            oversampling_factor: 128,
            interpolation: SincInterpolationType::Cubic,
            window: WindowFunction::BlackmanHarris2,
        };
        let ratio = f64::from(SAMPLE_RATE_HZ) / f64::from(rate_hz);
        let inner = Async::new_sinc(ratio, 1.0, &parameters, RESAMPLER_FRAMES, 1, FixedAsync::Input)
            .map_err(io::Error::other)?;
        let delay_left = inner.output_delay();
        let block = vec![0.0; inner.output_frames_max()];
        Ok(Self { inner, rate_hz, pending: Vec::new(), block, delay_left, taken: 0, given: 0 })
    }

    /// Takes samples and appends those that are ready.
    fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> io::Result<()> {
        self.taken += samples.len() as u64;
        self.pending.extend_from_slice(samples);
        let mut used = 0;
        while self.pending.len() - used >= RESAMPLER_FRAMES {
            self.resample(used, None, out)?;
            used += RESAMPLER_FRAMES;
        }
        self.pending.drain(..used);
        Ok(())
    }

    /// Appends the rest, as if silence followed.
    fn finish(&mut self, out: &mut Vec<f32>) -> io::Result<()> {
        let total = resampled_length(self.taken, self.rate_hz);
        let mut rest = Some(self.pending.len());
        while self.given < total {
            self.resample(0, Some(rest.take().unwrap_or(0)), out)?;
        }
        let surplus = usize::try_from(self.given - total).unwrap_or(usize::MAX);
        out.truncate(out.len().saturating_sub(surplus));
        Ok(())
    }

    /// Resamples one block that begins at `start` of the pending samples; `frames` if there are fewer than a block.
    fn resample(&mut self, start: usize, frames: Option<usize>, out: &mut Vec<f32>) -> io::Result<()> {
        let input = InterleavedSlice::new(&self.pending[..], 1, self.pending.len()).map_err(io::Error::other)?;
        let room = self.block.len();
        let mut output = InterleavedSlice::new_mut(&mut self.block[..], 1, room).map_err(io::Error::other)?;
        let mut indexing = Indexing::new().input_offset(start);
        indexing.partial_len = frames;
        let (_, made) =
            self.inner.process_into_buffer(&input, &mut output, Some(&indexing)).map_err(io::Error::other)?;
        let skipped = made.min(self.delay_left);
        self.delay_left -= skipped;
        out.extend_from_slice(&self.block[skipped..made]);
        self.given += (made - skipped) as u64;
        Ok(())
    }
}

/// Length at 8 kHz of `frames` at `rate_hz`, to the nearest sample.
fn resampled_length(frames: u64, rate_hz: u32) -> u64 {
    // A 32-bit number of bytes at most, so the product fits.
    (frames * u64::from(SAMPLE_RATE_HZ) + u64::from(rate_hz) / 2) / u64::from(rate_hz)
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates, which is what is wanted")]
fn narrow(sample: f32) -> i16 {
    sample.round() as i16
}
