//! The tones that a conference makes by itself: when somebody joins or leaves, and the tariff tone.
//!
//! All are as long as each other and made once for every rate, so that a member who is given one needs no state but its
//! frame.

use ringbridge_codec::Rate;
use ringbridge_codec::resample::Resampler;
use ringbridge_codec::tone::{FADE_SAMPLES, ToneGenerator};

use crate::limits::{
    FRAME_MS, FRAME_SAMPLES, JOIN_TONE_HZ, NOTICE_TONE_DBM0, NOTICE_TONE_MS, SAMPLES_PER_MS, TARIFF_TONE_HZ,
};

/// Frames of every tone.
pub(crate) const TONE_FRAMES: usize = (NOTICE_TONE_MS / FRAME_MS) as usize;
const TONE_SAMPLES: usize = (NOTICE_TONE_MS * SAMPLES_PER_MS) as usize;

/// What everybody in a conference is told by a tone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    Joined,
    Left,
}

/// Every tone at every rate, 86 KiB.
#[derive(Debug)]
pub(crate) struct Tones {
    joined: [Vec<i16>; 3],
    left: [Vec<i16>; 3],
    tariff: [Vec<i16>; 3],
}

impl Tones {
    pub(crate) fn new() -> Box<Self> {
        let (low, high) = JOIN_TONE_HZ;
        Box::new(Self {
            joined: at_all_rates([low, high]),
            left: at_all_rates([high, low]),
            tariff: at_all_rates([TARIFF_TONE_HZ, TARIFF_TONE_HZ]),
        })
    }

    /// A frame of a notice; `None` when it is over.
    pub(crate) fn notice(&self, rate: Rate, notice: Notice, frame: u64) -> Option<&[i16]> {
        let tone = match notice {
            Notice::Joined => &self.joined,
            Notice::Left => &self.left,
        };
        frame_of(tone, rate, usize::try_from(frame).ok()?)
    }

    /// A frame of the tariff tone; `None` when it is over.
    pub(crate) fn tariff(&self, rate: Rate, frame: usize) -> Option<&[i16]> {
        frame_of(&self.tariff, rate, frame)
    }
}

fn frame_of(tone: &[Vec<i16>; 3], rate: Rate, frame: usize) -> Option<&[i16]> {
    tone[rate as usize].chunks_exact(rate.frame_samples()).nth(frame)
}

fn at_all_rates(halves_hz: [u16; 2]) -> [Vec<i16>; 3] {
    let narrow = tone(halves_hz);
    Rate::ALL.map(|rate| {
        let mut resampler = Resampler::new(Rate::Narrow, rate);
        let mut samples = vec![0; rate.frame_samples() * TONE_FRAMES];
        for (from, to) in narrow.chunks_exact(FRAME_SAMPLES).zip(samples.chunks_exact_mut(rate.frame_samples())) {
            resampler.process(from, to);
        }
        samples
    })
}

/// One frequency after the other, in halves of the same length. Where they differ, both have soft edges.
fn tone(halves_hz: [u16; 2]) -> [i16; TONE_SAMPLES] {
    let mut samples = [0; TONE_SAMPLES];
    let parts = if halves_hz[0] == halves_hz[1] { 1 } else { 2 };
    for (part, hz) in samples.chunks_exact_mut(TONE_SAMPLES / parts).zip(halves_hz) {
        let (body, end) = part.split_at_mut(part.len() - FADE_SAMPLES);
        let mut generator = ToneGenerator::new((hz, NOTICE_TONE_DBM0), None);
        generator.fade_in();
        generator.fill(body);
        generator.fade_out();
        generator.fill(end);
    }
    samples
}
