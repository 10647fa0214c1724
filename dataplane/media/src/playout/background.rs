//! What sounds while a sender is silent: nothing, noise that he has described (RFC 3389), or what his codec makes of it.

use ringbridge_codec::kind::FRAME_SAMPLES_MAX;
use ringbridge_codec::noise::{ComfortNoise, NoiseGenerator};
use ringbridge_codec::resample::Resampler;
use ringbridge_codec::{CodecKind, Rate};

use super::source::Source;

/// Where the background of a silence comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Background {
    /// There is none.
    #[default]
    Silence,
    /// Packets of comfort noise.
    Described,
    /// The codec has its own packets for it.
    Codec,
}

impl Background {
    /// What `payload` tells of the silence behind it.
    pub(super) fn behind(codec: CodecKind, payload: &[u8]) -> Self {
        let is_own = match codec {
            // A packet of a frame that was not sent (RFC 6716 section 3.4: nothing but the first byte or two).
            CodecKind::Opus => payload.len() <= 2,
            // A description of silence closes the packet (RFC 3551 section 4.5.6).
            CodecKind::G729 => payload.len() % 10 == 2,
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::L16(_)
            | CodecKind::Gsm
            | CodecKind::G723 => false,
        };
        if is_own { Self::Codec } else { Self::Silence }
    }
}

/// Makes comfort noise.
#[derive(Debug)]
pub(super) struct Noise {
    generator: NoiseGenerator,
    /// From the rate of the RTP clock, which the description is for.
    resampler: Resampler,
}

impl Noise {
    pub(super) fn new(codec: CodecKind) -> Self {
        let clock = Rate::from_hz(codec.clock_rate_hz()).unwrap_or_default();
        Self { generator: NoiseGenerator::new(), resampler: Resampler::new(clock, codec.rate()) }
    }

    pub(super) fn set(&mut self, payload: &[u8]) {
        if let Some(noise) = ComfortNoise::parse(payload) {
            self.generator.set(&noise);
        }
    }

    pub(super) fn clear(&mut self) {
        self.generator.clear();
        self.resampler.reset();
    }

    /// Fills a frame, or the beginning of one.
    pub(super) fn fill(&mut self, background: Background, source: &mut Source, failed: &mut bool, out: &mut [i16]) {
        let mut whole = [0; FRAME_SAMPLES_MAX];
        let whole = &mut whole[..self.resampler.to().frame_samples()];
        match background {
            Background::Silence => {}
            Background::Described => {
                let mut made = [0; FRAME_SAMPLES_MAX];
                let made = &mut made[..self.resampler.from().frame_samples()];
                self.generator.fill(made);
                self.resampler.process(made, whole);
            }
            Background::Codec => *failed |= source.conceal(whole).is_err(),
        }
        let len = out.len().min(whole.len());
        out[..len].copy_from_slice(&whole[..len]);
        out[len..].fill(0);
    }
}
