//! How audio is stored in a file: container, encoding, sample rate and sample size.

use serde::{Deserialize, Serialize};

/// What the samples are wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// RIFF/WAVE: the header tells the format.
    Wav,
    /// Bare samples: the format has to be known from elsewhere.
    Vox,
}

impl Container {
    /// The container a file's extension stands for, whatever its case.
    pub fn of_path(path: &str) -> Option<Self> {
        let extension = std::path::Path::new(path).extension()?;
        [Self::Wav, Self::Vox].into_iter().find(|container| extension.eq_ignore_ascii_case(container.extension()))
    }

    /// The usual extension, without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Vox => "vox",
        }
    }
}

/// How one sample becomes bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Linear: 8 bits without a sign, or 16 bits with one, low byte first.
    Pcm,
    /// ITU-T G.711 µ-law.
    Ulaw,
    /// ITU-T G.711 A-law.
    Alaw,
    /// Dialogic (OKI) ADPCM: 4 bits, first sample in the high half of a byte.
    Adpcm,
}

/// The format of samples where no header tells it: in a VOX file, or in one that is about to be written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeaderlessFormat {
    /// How samples are encoded.
    pub encoding: Encoding,
    /// Samples a second: 6000, 8000, 11025, 16000 or 48000.
    pub sample_rate_hz: u32,
    /// Bits of a sample: 4 for ADPCM, 8 for µ-law and A-law, 8 or 16 for PCM.
    pub bits: u16,
}

impl Default for HeaderlessFormat {
    /// µ-law, 8 kHz.
    fn default() -> Self {
        Self { encoding: Encoding::Ulaw, sample_rate_hz: 8000, bits: 8 }
    }
}

impl HeaderlessFormat {
    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// The part that does not fit.
    pub fn check(self) -> Result<(), FormatError> {
        self.coding().map(|_| ())
    }

    pub(super) fn coding(self) -> Result<Coding, FormatError> {
        if !SAMPLE_RATES_HZ.contains(&self.sample_rate_hz) {
            return Err(FormatError::SampleRate(self.sample_rate_hz));
        }
        match (self.encoding, self.bits) {
            (Encoding::Pcm, 8) => Ok(Coding::Pcm8),
            (Encoding::Pcm, 16) => Ok(Coding::Pcm16),
            (Encoding::Ulaw, 8) => Ok(Coding::Ulaw),
            (Encoding::Alaw, 8) => Ok(Coding::Alaw),
            (Encoding::Adpcm, 4) => Ok(Coding::Adpcm),
            (Encoding::Pcm, bits) => Err(FormatError::Bits { encoding: "pcm", bits, rule: "8 or 16" }),
            (Encoding::Ulaw, bits) => Err(FormatError::Bits { encoding: "ulaw", bits, rule: "8" }),
            (Encoding::Alaw, bits) => Err(FormatError::Bits { encoding: "alaw", bits, rule: "8" }),
            (Encoding::Adpcm, bits) => Err(FormatError::Bits { encoding: "adpcm", bits, rule: "4" }),
        }
    }
}

/// Parts of a format that don't fit each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// Not a rate that is written or read without a header.
    #[error("a sample rate of {0} Hz; it has to be 6000, 8000, 11025, 16000 or 48000")]
    SampleRate(u32),
    /// The encoding has samples of another size.
    #[error("{encoding} with {bits} bits a sample; it has to be {rule}")]
    Bits {
        /// The encoding.
        encoding: &'static str,
        /// The size that was asked for.
        bits: u16,
        /// The sizes there are.
        rule: &'static str,
    },
}

/// An encoding and size that fit each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Pcm8,
    Pcm16,
    Ulaw,
    Alaw,
    Adpcm,
}

impl Coding {
    /// Bits of one sample.
    pub(super) const fn bits(self) -> u16 {
        match self {
            Self::Pcm8 | Self::Ulaw | Self::Alaw => 8,
            Self::Pcm16 => 16,
            Self::Adpcm => 4,
        }
    }
}

/// Rates of headerless files and of recordings.
const SAMPLE_RATES_HZ: [u32; 5] = [6000, 8000, 11_025, 16_000, 48_000];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_that_fit_make_a_format() {
        let encodings = [Encoding::Pcm, Encoding::Ulaw, Encoding::Alaw, Encoding::Adpcm];
        let mut fitting = Vec::new();
        for encoding in encodings {
            for bits in [0, 2, 4, 8, 12, 16, 24] {
                if (HeaderlessFormat { encoding, sample_rate_hz: 6000, bits }).check().is_ok() {
                    fitting.push((encoding, bits));
                }
            }
        }
        let expected =
            [(Encoding::Pcm, 8), (Encoding::Pcm, 16), (Encoding::Ulaw, 8), (Encoding::Alaw, 8), (Encoding::Adpcm, 4)];
        assert_eq!(fitting, expected);
        for sample_rate_hz in [0, 6, 4000, 11_000, 22_050, 44_100, 48_001] {
            let format = HeaderlessFormat { sample_rate_hz, ..HeaderlessFormat::default() };
            assert_eq!(format.check(), Err(FormatError::SampleRate(sample_rate_hz)));
        }
    }

    #[test]
    fn the_extension_tells_the_container() {
        assert_eq!(Container::of_path("a/b.c/greeting.VOX"), Some(Container::Vox));
        assert_eq!(Container::of_path("greeting.wav"), Some(Container::Wav));
        for none in ["greeting", "vox", ".vox", "a.vox/b", "a.mp3"] {
            assert_eq!(Container::of_path(none), None, "{none}");
        }
    }
}
