//! Between sample rates: those of files and those of the engine.

use std::io;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Indexing, Resampler as _, SincInterpolationParameters, SincInterpolationType, WindowFunction,
};

/// Frames the resampler takes at once.
const RESAMPLER_FRAMES: usize = 1024;
/// Length of the anti-aliasing filter, counted in samples at the lower of the two rates.
const FILTER_SAMPLES: usize = 96;
/// Longest filter, in samples at the file's rate: reached at 192 kHz.
const FILTER_FRAMES_MAX: usize = 2304;

/// From which rate to which, in Hz.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) from_hz: u32,
    pub(super) to_hz: u32,
}

impl Rates {
    /// A resampler, unless there is nothing to do.
    pub(super) fn resampler(self) -> io::Result<Option<Resampler>> {
        (self.from_hz != self.to_hz).then(|| Resampler::new(self)).transpose()
    }

    /// What `samples` become, to the nearest sample.
    pub(super) fn length(self, samples: u64) -> u64 {
        // Counts come from 32-bit numbers of bytes or are days of samples at most, so the product fits.
        (samples * u64::from(self.to_hz) + u64::from(self.from_hz) / 2) / u64::from(self.from_hz)
    }
}

/// Brings samples of one rate to another. What comes out starts with what went in: the filter's own delay is cut off.
///
/// A windowed sinc whose memory does not depend on how the two rates divide, as that of an FFT would: a header may claim
/// any rate.
pub(super) struct Resampler {
    inner: Async<f32>,
    rates: Rates,
    pending: Vec<f32>,
    block: Vec<f32>,
    delay_left: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    pub(super) fn new(rates: Rates) -> io::Result<Self> {
        // The filter works at the rate that comes in, but has to be long enough at the lower one.
        let factor = (rates.from_hz as usize).div_ceil(rates.to_hz as usize);
        let parameters = SincInterpolationParameters {
            sinc_len: (FILTER_SAMPLES * factor).min(FILTER_FRAMES_MAX),
            f_cutoff: None,
            oversampling_factor: 128,
            interpolation: SincInterpolationType::Cubic,
            window: WindowFunction::BlackmanHarris2,
        };
        let ratio = f64::from(rates.to_hz) / f64::from(rates.from_hz);
        let inner = Async::new_sinc(ratio, 1.0, &parameters, RESAMPLER_FRAMES, 1, FixedAsync::Input)
            .map_err(io::Error::other)?;
        let delay_left = inner.output_delay();
        let block = vec![0.0; inner.output_frames_max()];
        Ok(Self { inner, rates, pending: Vec::new(), block, delay_left, taken: 0, given: 0 })
    }

    /// Takes samples and appends those that are ready.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> io::Result<()> {
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
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) -> io::Result<()> {
        let total = self.rates.length(self.taken);
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

/// The nearest 16-bit sample.
#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates, which is what is wanted")]
pub(super) fn narrow(sample: f32) -> i16 {
    sample.round() as i16
}
