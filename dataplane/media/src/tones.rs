//! The tones that a conference makes by itself: when somebody joins or leaves, and the tariff tone.
//!
//! All are as long as each other and made once, so that a member who is given one needs no state but its frame.

use ringbridge_codec::tone::{FADE_SAMPLES, ToneGenerator};

use crate::limits::{FRAME_SAMPLES, JOIN_TONE_HZ, NOTICE_TONE_DBM0, NOTICE_TONE_MS, SAMPLES_PER_MS, TARIFF_TONE_HZ};

/// Frames of every tone.
pub(crate) const TONE_FRAMES: usize = TONE_SAMPLES / FRAME_SAMPLES;
const TONE_SAMPLES: usize = (NOTICE_TONE_MS * SAMPLES_PER_MS) as usize;

/// A tone, frame by frame.
pub(crate) type Tone = [[i16; FRAME_SAMPLES]; TONE_FRAMES];

/// What everybody in a conference is told by a tone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    Joined,
    Left,
}

/// Every tone, 9 KiB.
#[derive(Debug)]
pub(crate) struct Tones {
    joined: Tone,
    left: Tone,
    tariff: Tone,
}

impl Tones {
    pub(crate) fn new() -> Box<Self> {
        let (low, high) = JOIN_TONE_HZ;
        Box::new(Self {
            joined: tone([low, high]),
            left: tone([high, low]),
            tariff: tone([TARIFF_TONE_HZ, TARIFF_TONE_HZ]),
        })
    }

    /// A frame of a notice; `None` when it is over.
    pub(crate) fn notice(&self, notice: Notice, frame: u64) -> Option<&[i16; FRAME_SAMPLES]> {
        let tone = match notice {
            Notice::Joined => &self.joined,
            Notice::Left => &self.left,
        };
        tone.get(usize::try_from(frame).ok()?)
    }

    pub(crate) const fn tariff(&self) -> &Tone {
        &self.tariff
    }
}

/// One frequency after the other, in halves of the same length. Where they differ, both have soft edges.
fn tone(halves_hz: [u16; 2]) -> Tone {
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
    let mut tone = [[0; FRAME_SAMPLES]; TONE_FRAMES];
    for (frame, samples) in tone.iter_mut().zip(samples.chunks_exact(FRAME_SAMPLES)) {
        frame.copy_from_slice(samples);
    }
    tone
}
