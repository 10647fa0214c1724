//! From the engine's samples to the bytes of a recording.

use std::io;

use ringbridge_codec::adpcm::AdpcmEncoder;
use ringbridge_codec::g711;
use ringbridge_media::command::Rate;

use super::format::Coding;
use super::resample::{Rates, Resampler, narrow};

/// Resamples and encodes.
pub(super) struct Encoder {
    coding: Coding,
    resampler: Option<Resampler>,
    adpcm: AdpcmEncoder,
    floats: Vec<f32>,
    resampled: Vec<f32>,
    /// At the file's rate. Of ADPCM an odd sample stays here until its partner comes.
    samples: Vec<i16>,
}

impl Encoder {
    /// From the engine's rate to the file's.
    pub(super) fn new(coding: Coding, rate: Rate, sample_rate_hz: u32) -> io::Result<Self> {
        let resampler = Rates { from_hz: rate.hz(), to_hz: sample_rate_hz }.resampler()?;
        let (floats, resampled, samples) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { coding, resampler, adpcm: AdpcmEncoder::new(), floats, resampled, samples })
    }

    /// Takes samples at the engine's rate, appends bytes.
    pub(super) fn push(&mut self, samples: &[i16], out: &mut Vec<u8>) -> io::Result<()> {
        let Some(resampler) = &mut self.resampler else {
            self.samples.extend_from_slice(samples);
            self.encode(out);
            return Ok(());
        };
        self.floats.clear();
        self.floats.extend(samples.iter().map(|sample| f32::from(*sample)));
        self.resampled.clear();
        resampler.push(&self.floats, &mut self.resampled)?;
        self.take_resampled(out);
        Ok(())
    }

    /// Appends what has been held back.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(mut resampler) = self.resampler.take() {
            self.resampled.clear();
            resampler.finish(&mut self.resampled)?;
            self.take_resampled(out);
        }
        // Of ADPCM the odd one.
        self.encode_adpcm(self.samples.len(), out);
        Ok(())
    }

    fn take_resampled(&mut self, out: &mut Vec<u8>) {
        self.samples.extend(self.resampled.iter().map(|sample| narrow(*sample)));
        self.encode(out);
    }

    /// Encodes all there is, but for an odd sample of ADPCM.
    fn encode(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        match self.coding {
            Coding::Pcm8 => out.extend(self.samples.iter().map(|sample| unsigned(*sample))),
            Coding::Pcm16 => out.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes())),
            Coding::Ulaw => {
                out.resize(start + self.samples.len(), 0);
                g711::encode_ulaw(&self.samples, &mut out[start..]);
            }
            Coding::Alaw => {
                out.resize(start + self.samples.len(), 0);
                g711::encode_alaw(&self.samples, &mut out[start..]);
            }
            Coding::Adpcm => {
                let pairs = self.samples.len() / 2 * 2;
                self.encode_adpcm(pairs, out);
                return;
            }
        }
        self.samples.clear();
    }

    fn encode_adpcm(&mut self, samples: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + samples.div_ceil(2), 0);
        self.adpcm.encode(&self.samples[..samples], &mut out[start..]);
        self.samples.drain(..samples);
    }
}

/// The nearest of 256 levels, the middle being 128.
fn unsigned(sample: i16) -> u8 {
    let level = ((i32::from(sample) + 0x80) >> 8) + 128;
    u8::try_from(level).unwrap_or(u8::MAX)
}
