//! The header of a WAV file as it is written: one channel or two, in every encoding a recording can have.
//!
//! `hound` writes PCM only. Formats other than PCM carry the extended `fmt ` chunk and a `fact` chunk, as the
//! registration of WAVE types (RFC 2361) asks for.

use super::format::Coding;

/// RFC 2361, WAVE_FORMAT_PCM.
pub(super) const TAG_PCM: u16 = 0x0001;
/// RFC 2361, WAVE_FORMAT_ALAW.
pub(super) const TAG_ALAW: u16 = 0x0006;
/// RFC 2361, WAVE_FORMAT_MULAW.
pub(super) const TAG_ULAW: u16 = 0x0007;
/// RFC 2361, WAVE_FORMAT_OKI_ADPCM.
pub(super) const TAG_OKI_ADPCM: u16 = 0x0010;
/// RFC 2361, WAVE_FORMAT_DIALOGIC_OKI_ADPCM: the one that needs nothing beyond the common fields.
pub(super) const TAG_DIALOGIC_OKI_ADPCM: u16 = 0x0017;

/// What ffmpeg writes G.726 under.
pub(super) const TAG_G726: u16 = 0x0045;
/// RFC 2361, WAVE_FORMAT_G726_ADPCM.
pub(super) const TAG_G726_ADPCM: u16 = 0x0064;

/// Bytes of samples a file can hold: its sizes are of 32 bits, and count the header too.
pub(super) const DATA_BYTES_MAX: u64 = u32::MAX as u64 - 1024;

/// The header of a file with `data_bytes` bytes of samples, at most [`DATA_BYTES_MAX`]. Its length depends on `coding`
/// alone, so it can be written again in place.
pub(super) fn wav_header(coding: Coding, channels: u16, sample_rate_hz: u32, data_bytes: u64) -> Vec<u8> {
    let data_bytes = u32::try_from(data_bytes.min(DATA_BYTES_MAX)).unwrap_or(u32::MAX);
    let bits = coding.bits();
    let tag = match coding {
        Coding::Pcm8 | Coding::Pcm16 => TAG_PCM,
        Coding::Ulaw => TAG_ULAW,
        Coding::Alaw => TAG_ALAW,
        Coding::Adpcm => TAG_DIALOGIC_OKI_ADPCM,
    };
    let mut header = Vec::with_capacity(58);
    header.extend_from_slice(b"RIFF\0\0\0\0WAVEfmt ");
    let extended = tag != TAG_PCM;
    header.extend_from_slice(&if extended { 18u32 } else { 16 }.to_le_bytes());
    header.extend_from_slice(&tag.to_le_bytes());
    header.extend_from_slice(&channels.to_le_bytes());
    header.extend_from_slice(&sample_rate_hz.to_le_bytes());
    header.extend_from_slice(&(sample_rate_hz * u32::from(channels) * u32::from(bits) / 8).to_le_bytes());
    header.extend_from_slice(&(channels * bits.div_ceil(8)).to_le_bytes());
    header.extend_from_slice(&bits.to_le_bytes());
    if extended {
        header.extend_from_slice(&0u16.to_le_bytes());
        header.extend_from_slice(b"fact");
        header.extend_from_slice(&4u32.to_le_bytes());
        let samples = u64::from(data_bytes) * 8 / u64::from(bits) / u64::from(channels);
        header.extend_from_slice(&u32::try_from(samples).unwrap_or(u32::MAX).to_le_bytes());
    }
    header.extend_from_slice(b"data");
    header.extend_from_slice(&data_bytes.to_le_bytes());
    // All that follows the size itself, and the byte that makes the samples even.
    let riff_bytes = u32::try_from(header.len() - 8).unwrap_or(0) + data_bytes + data_bytes % 2;
    header[4..8].copy_from_slice(&riff_bytes.to_le_bytes());
    header
}
