//! An audio file as a stream of samples the engine can play: 16-bit linear, one channel, at a rate of the engine's.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use ringbridge_media::command::Rate;

use super::format::HeaderlessFormat;
use super::resample::{Rates, Resampler, narrow};
use super::wav::{FrameReader, WavError};

/// At which rate a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    /// The lowest that holds all that the file has, and this at most.
    UpTo(Rate),
    /// This one, whatever the file has.
    Exactly(Rate),
}

impl Aim {
    /// The rate for a file of that one.
    fn rate(self, file_hz: u32) -> Rate {
        match self {
            Self::UpTo(most) => Rate::ALL.into_iter().find(|rate| rate.hz() >= file_hz).unwrap_or(Rate::Full).min(most),
            Self::Exactly(rate) => rate,
        }
    }
}

/// Decodes, mixes down and resamples a file piece by piece.
pub(super) struct Decoder<R = BufReader<File>> {
    frames: FrameReader<R>,
    rate: Rate,
    rates: Rates,
    resampler: Option<Resampler>,
    mono: Vec<f32>,
    resampled: Vec<f32>,
    /// Frames to be decoded and thrown away before the first that is wanted.
    unwanted: u64,
    ended: bool,
}

impl<R: Read + Seek> Decoder<R> {
    /// Reads the header of a WAV file of `file_bytes` bytes.
    pub(super) fn new(reader: R, file_bytes: u64, aim: Aim) -> Result<Self, WavError> {
        Ok(Self::of_frames(FrameReader::new(reader, file_bytes)?, aim)?)
    }

    /// Takes all `file_bytes` bytes of a file as samples in `format`.
    pub(super) fn headerless(reader: R, file_bytes: u64, format: HeaderlessFormat, aim: Aim) -> Result<Self, WavError> {
        Ok(Self::of_frames(FrameReader::headerless(reader, file_bytes, format)?, aim)?)
    }

    fn of_frames(frames: FrameReader<R>, aim: Aim) -> io::Result<Self> {
        let rate = aim.rate(frames.sample_rate_hz());
        let rates = Rates { from_hz: frames.sample_rate_hz(), to_hz: rate.hz() };
        let resampler = rates.resampler()?;
        let (mono, resampled) = (Vec::new(), Vec::new());
        Ok(Self { frames, rate, rates, resampler, mono, resampled, unwanted: 0, ended: false })
    }

    /// Rate of the samples it gives.
    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Skips the beginning, before anything has been decoded. Whether anything is left.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn skip_ms(&mut self, ms: u32) -> io::Result<bool> {
        let frames = u64::from(ms) * u64::from(self.rates.from_hz) / 1000;
        if frames >= self.frames.frames_left() {
            return Ok(false);
        }
        self.unwanted = self.frames.skip(frames)?;
        Ok(true)
    }

    /// Throws away a bounded part of what [`Self::skip_ms`] could not jump over. Whether there is more of it.
    ///
    /// # Errors
    /// If the file breaks off or can't be read.
    pub(super) fn skip_step(&mut self) -> io::Result<bool> {
        for _ in 0..SKIPS_PER_STEP {
            if self.unwanted == 0 {
                return Ok(false);
            }
            self.mono.clear();
            let frames_max = usize::try_from(self.unwanted).unwrap_or(usize::MAX);
            self.unwanted -= self.frames.read_mono(frames_max, &mut self.mono)? as u64;
        }
        Ok(self.unwanted > 0)
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
        self.ended = self.frames.read_mono(usize::MAX, &mut self.mono)? == 0;
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

    /// How many samples there will be from here on.
    pub(super) fn samples(&self) -> u64 {
        self.rates.length(self.frames.frames_left().saturating_sub(self.unwanted))
    }
}

/// Reads of what is skipped in one step, some four thousand frames each.
const SKIPS_PER_STEP: usize = 16;
