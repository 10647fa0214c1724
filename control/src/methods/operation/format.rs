//! How samples are stored in a file, as far as a client says.

use crate::files::{Encoding, FormatError, HeaderlessFormat};
use crate::proto::RpcError;

/// Completes what was given. Without `bits` samples have the usual size of their encoding.
pub(super) fn format(
    encoding: Encoding,
    sample_rate_hz: Option<u32>,
    bits: Option<u16>,
) -> Result<HeaderlessFormat, RpcError> {
    let usual = match encoding {
        Encoding::Pcm => 16,
        Encoding::Ulaw | Encoding::Alaw => 8,
        Encoding::Adpcm => 4,
    };
    let sample_rate_hz = sample_rate_hz.unwrap_or(SAMPLE_RATE_HZ);
    let format = HeaderlessFormat { encoding, sample_rate_hz, bits: bits.unwrap_or(usual) };
    format.check().map_err(|error| {
        let param = match error {
            FormatError::SampleRate(_) => "sample_rate_hz",
            FormatError::Bits { .. } => "bits",
        };
        RpcError::invalid_param(param, format!("{param}: {error}"))
    })?;
    Ok(format)
}

const SAMPLE_RATE_HZ: u32 = 8000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_with_encodings() {
        let bits = |encoding, bits| format(encoding, None, bits).map(|format| format.bits);
        assert_eq!(bits(Encoding::Pcm, None).expect("usual"), 16);
        assert_eq!(bits(Encoding::Pcm, Some(8)).expect("allowed"), 8);
        assert_eq!(bits(Encoding::Adpcm, None).expect("usual"), 4);
        let param =
            |result: Result<_, RpcError>| result.map(drop).expect_err("refused").to_value()["data"]["param"].clone();
        assert_eq!(param(format(Encoding::Ulaw, None, Some(16))), "bits");
        assert_eq!(param(format(Encoding::Ulaw, Some(22_050), None)), "sample_rate_hz");
    }
}
