//! Bytes to fields and back: RTP, RTCP and the small payloads that ride in them.
//!
//! Every parser takes a slice as it came from the network, checks all lengths first and hands out a view whose getters
//! cannot fail. Nothing here keeps state, does I/O or allocates (the crate is `no_std`), and no input makes it panic:
//! what breaks a rule comes back as a small `Copy` error that names the rule.
//!
//! | module | layout | source |
//! | --- | --- | --- |
//! | [`seq`] | wrapping sequence numbers and timestamps | RFC 3550 s.5.1, A.1 |
//! | [`rtp`] | RTP header | RFC 3550 s.5 |
//! | [`extension`] | elements of a header extension | RFC 8285 |
//! | [`rtcp`] | compound SR, RR, SDES, BYE | RFC 3550 s.6, RFC 5506 |
//! | [`xr`] | extended reports: reference times, their answers, VoIP metrics | RFC 3611 s.4 |
//! | [`demux`] | RTP, RTCP, STUN or DTLS by first bytes | RFC 5761 s.4, RFC 7983 |
//! | [`telephone_event`] | DTMF payload | RFC 4733 s.2.3 |
//! | [`audio_level`] | client-to-mixer and mixer-to-client levels | RFC 6464, RFC 6465 |

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod audio_level;
pub mod demux;
pub mod extension;
pub mod rtcp;
pub mod rtp;
pub mod seq;
pub mod telephone_event;
pub mod xr;

pub use audio_level::AudioLevel;
pub use demux::{Kind, classify};
pub use rtp::{RTP_HEADER_BYTES, RTP_HEADER_BYTES_MAX, RtpError, RtpHeader, RtpPacket};
pub use seq::{ExtendedSeq, RtpTimestamp, SeqNumber, Ssrc};
pub use telephone_event::TelephoneEvent;
