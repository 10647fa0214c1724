//! Payload to samples and back, and the sample arithmetic of a mix.
//!
//! Samples are 16-bit linear, one channel. Every kernel is a plain loop over slices that the compiler vectorises; the
//! widest instruction set of the machine is found once, at the first call, and the results are the same to the bit
//! whichever it is. No I/O, no state, no allocation. Frames that start on a 64-byte boundary are worth having: with
//! AVX-512 a frame that does not makes every load straddle two cache lines, which doubles the time of the shorter loops.
//!
//! | module | job |
//! | --- | --- |
//! | [`mod@format`] | the static payload types of RFC 3551 |
//! | [`g711`] | µ-law and A-law (ITU-T G.711) |
//! | [`mix`] | sums, differences, gain and levels |

mod dispatch;
pub mod format;
pub mod g711;
pub mod mix;

pub use dispatch::instruction_set;
pub use format::PayloadFormat;
