//! Payload to samples and back, and the sample arithmetic of a mix.
//!
//! Samples are 16-bit linear, one channel. Every kernel is a plain loop over slices that the compiler vectorises; the
//! widest instruction set of the machine is found once, at the first call, and the results are the same to the bit
//! whichever it is. No I/O, and no state but in the structs of streams and operations; those of codecs are allocated when
//! they are made. Frames that start on a 64-byte boundary are worth having: with AVX-512 a frame that does not makes every
//! load straddle two cache lines, which doubles the time of the shorter loops.
//!
//! | module | job |
//! | --- | --- |
//! | [`kind`] | the codecs that can be negotiated, and their rates |
//! | [`codec`] | one face for all of them |
//! | [`mod@format`] | the static payload types of RFC 3551 |
//! | [`g711`] | µ-law and A-law (ITU-T G.711) |
//! | [`mix`] | sums, differences, gain and levels |
//! | [`mod@dtmf`] | finds in-band digits (ITU-T Q.23, Q.24) |
//! | [`mod@tone`] | one or two sines |
//! | [`mod@adpcm`] | Dialogic ADPCM, for `.vox` files |
//! | `g722`, `opus` | behind [`codec`]: 7 kHz of speech (ITU-T G.722), and everything up to fullband (RFC 6716) |
//! | `gsm`, [`g729`] | behind [`codec`] too; the latter by a library that is found at run time |
//! | [`mod@g726`] | decodes G.726 at 16 kbit/s |
//! | [`mod@stretch`] | another speed at the same pitch |
//! | [`limit`] | brings sums back to 16 bits without cutting them off |
//! | [`vad`], [`agc`], [`denoise`] | tell voice from background, bring it to one level, take noise away |
//! | [`noise`] | comfort noise (RFC 3389) |
//! | [`resample`] | from one rate to another |
//! | [`mod@conceal`] | fills holes (class of ITU-T G.711 appendix I) |
//! | [`mod@prefetch`] | asks for memory before it is needed |

pub mod adpcm;
pub mod agc;
pub mod codec;
pub mod conceal;
pub mod denoise;
mod dispatch;
pub mod dtmf;
pub mod format;
pub mod g711;
mod g722;
pub mod g726;
pub mod g729;
mod gsm;
pub mod kind;
pub mod limit;
pub mod mix;
pub mod noise;
mod opus;
pub mod prefetch;
pub mod resample;
pub mod stretch;
pub mod tone;
pub mod vad;

pub use codec::{CodecError, Decoder, Encoder, EncoderSettings};
pub use dispatch::instruction_set;
pub use format::PayloadFormat;
pub use kind::{CodecKind, Rate};
pub use limit::Limiter;
pub use resample::Resampler;
