//! The engine as a whole, on virtual time: every rule of the vocabulary, one case each.
#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "small numbers of our own; a test names the cases it looks for and what it expects to be there"
)]

mod adjust;
mod attacks;
mod bench;
mod commands;
mod concurrency;
mod conditions;
mod conference;
mod detect;
mod digits;
mod direct;
mod drops;
mod groups;
mod hairpin;
mod hostile_audio;
mod levels;
mod moving;
mod operations;
mod parts;
mod rates;
mod relay;
mod reports;
mod reservation;
mod roles;
mod stamps;
mod taping;
mod timers;
mod tones;
mod wideband;
