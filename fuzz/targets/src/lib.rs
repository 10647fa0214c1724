//! What is fuzzed, and what has to hold for any bytes: one plain function for each target, which panics where something
//! does not hold.
//!
//! libFuzzer calls them from `fuzz/fuzz_targets`, the tests here with every file of `fuzz/corpus`. See `docs/fuzzing.md`.
//!
//! | target | bytes are |
//! | --- | --- |
//! | [`rtp`](fn@rtp) | a datagram; then fields of a header to write |
//! | [`rtcp`](fn@rtcp) | a datagram; what was read of it is written again |
//! | [`codec`](fn@codec) | a codec, and what happens to its stream |
//! | [`audio`](fn@audio) | samples and settings for what works on samples, and files' codecs |
//! | [`engine`](fn@engine) | a script: commands, datagrams, time |

mod audio;
mod codec;
mod engine;
mod rtcp;
mod rtp;
mod script;

pub use audio::audio;
pub use codec::codec;
pub use engine::engine;
pub use rtcp::rtcp;
pub use rtp::rtp;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, as the folders of `fuzz/corpus` are named.
pub const TARGETS: [Target; 5] = [("rtp", rtp), ("rtcp", rtcp), ("codec", codec), ("audio", audio), ("engine", engine)];
