//! G.711 µ-law by the book (ITU-T G.711): a second opinion, on purpose not the server's own codec.

/// Code of a zero sample.
pub const SILENCE: u8 = 0xFF;

const BIAS: i32 = 0x84;
const CLIP: i32 = 32_635;

/// Encodes one 16-bit linear sample.
#[must_use]
pub fn encode(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(CLIP) + BIAS;
    // The segment is the place of the highest bit; the bias puts it between 7 and 14.
    let exponent = magnitude.ilog2() - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0F;
    let code = sign | i32::try_from(exponent << 4).unwrap_or(0) | mantissa;
    !u8::try_from(code).unwrap_or(0)
}

/// Decodes one code to a 16-bit linear sample.
#[must_use]
pub fn decode(code: u8) -> i16 {
    let code = !code;
    let magnitude = (((i32::from(code & 0x0F) << 3) + BIAS) << ((code >> 4) & 7)) - BIAS;
    i16::try_from(if code & 0x80 == 0 { magnitude } else { -magnitude }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes() {
        for (sample, code) in [(0, 0xFF), (-1, 0x7F), (32_767, 0x80), (-32_768, 0x00), (1_000, 0xCE), (-1_000, 0x4E)] {
            assert_eq!(encode(sample), code, "{sample}");
        }
        for (code, sample) in [(0xFF, 0), (0x7F, 0), (0x80, 32_124), (0x00, -32_124), (0xCE, 988)] {
            assert_eq!(decode(code), sample, "{code:#x}");
        }
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for code in 0..=u8::MAX {
            // 0x7F is minus zero; it comes back as plus zero.
            let expected = if code == 0x7F { 0xFF } else { code };
            assert_eq!(encode(decode(code)), expected);
        }
    }

    #[test]
    fn the_error_is_within_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            let error = (i32::from(decode(encode(sample))) - i32::from(sample)).abs();
            let step = (i32::from(sample).abs() + BIAS).ilog2().saturating_sub(4).min(10);
            let clipped = i32::from(sample).abs() > CLIP;
            assert!(clipped || error <= 1 << step.saturating_sub(1).max(2), "{sample}: {error}");
        }
    }
}
