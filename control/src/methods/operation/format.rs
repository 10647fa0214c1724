//! How samples are stored in a file, as far as a client says.

use serde::Deserialize;

use crate::proto::RpcError;

/// What samples are wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Container {
    Wav,
    Vox,
}

/// How one sample becomes bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Pcm,
    Ulaw,
    Alaw,
    Adpcm,
}

/// Encoding, rate and size, fitting each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub(super) encoding: Encoding,
    pub(super) sample_rate_hz: u32,
    pub(super) bits: u16,
}

impl Container {
    /// The one a path's extension stands for.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let extension = std::path::Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "wav" => Some(Self::Wav),
            "vox" => Some(Self::Vox),
            _ => None,
        }
    }
}

impl Format {
    /// What was given, completed. Without `bits` samples have the usual size of their encoding.
    pub(super) fn new(encoding: Encoding, sample_rate_hz: Option<u32>, bits: Option<u16>) -> Result<Self, RpcError> {
        let sample_rate_hz = sample_rate_hz.unwrap_or(8000);
        if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
            let message = format!("sample_rate_hz: {sample_rate_hz} is none of 6000, 8000, 11025");
            return Err(RpcError::invalid_param("sample_rate_hz", message));
        }
        let sizes: &[u16] = match encoding {
            Encoding::Pcm => &[16, 8],
            Encoding::Ulaw | Encoding::Alaw => &[8],
            Encoding::Adpcm => &[4],
        };
        let bits = bits.unwrap_or(sizes[0]);
        if !sizes.contains(&bits) {
            let message = format!("bits: {bits} bits don't go with the encoding; it has {sizes:?}");
            return Err(RpcError::invalid_param("bits", message));
        }
        Ok(Self { encoding, sample_rate_hz, bits })
    }
}

const SAMPLE_RATES_HZ: [u32; 3] = [6000, 8000, 11025];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_with_encodings() {
        let new = |encoding, bits| Format::new(encoding, None, bits).map(|format| format.bits);
        assert_eq!(new(Encoding::Pcm, None).expect("usual"), 16);
        assert_eq!(new(Encoding::Pcm, Some(8)).expect("allowed"), 8);
        assert_eq!(new(Encoding::Adpcm, None).expect("usual"), 4);
        let param = |result: Result<Format, RpcError>| result.expect_err("refused").to_value()["data"]["param"].clone();
        assert_eq!(param(Format::new(Encoding::Ulaw, None, Some(16))), "bits");
        assert_eq!(param(Format::new(Encoding::Ulaw, Some(16_000), None)), "sample_rate_hz");
        assert_eq!(Container::of_path("a/b.VOX"), Some(Container::Vox));
        assert_eq!(Container::of_path("a.b/c"), None);
    }
}
