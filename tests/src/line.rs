//! An endpoint of any codec that the server decodes.

use std::time::Duration;

use ringbridge_codec::{CodecKind, Decoder, Encoder, EncoderSettings};
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader, RtpPacket};
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};
use serde_json::Value;

use crate::endpoint::{Endpoint, Speaker};
use crate::server::{Leg, Server};

/// An endpoint and its connection, which knows where the endpoint is.
#[derive(Debug)]
pub struct Line {
    /// Its sockets.
    pub endpoint: Endpoint,
    /// Its connection.
    pub leg: Leg,
    /// What it sends and takes.
    pub kind: CodecKind,
    /// Packet time of what it sends.
    pub ptime_ms: u32,
    /// Its stream.
    pub ssrc: u32,
}

impl Line {
    /// Connects an endpoint. `params` are further ones of `connection.create`.
    pub fn connect(server: &Server, kind: CodecKind, ptime_ms: u32, mut params: Value) -> Self {
        let endpoint = Endpoint::open();
        params["remote"] = endpoint.address().to_string().into();
        params["codec"] = kind.to_string().into();
        params["ptime_ms"] = ptime_ms.into();
        Self { leg: server.create(params), endpoint, kind, ptime_ms, ssrc: 1 }
    }

    /// Samples per second.
    pub const fn rate_hz(&self) -> u32 {
        self.kind.rate().hz()
    }

    /// The packets of a stream, one after another. Where there is no sample there is no packet.
    ///
    /// # Panics
    /// If the codec can't encode them.
    pub fn packets<F>(&self, voice: F) -> impl FnMut(usize) -> Option<Vec<u8>> + Send + use<F>
    where
        F: Fn(usize) -> Option<i16> + Send,
    {
        let (kind, ptime_ms, ssrc) = (self.kind, self.ptime_ms, self.ssrc);
        let mut encoder = Encoder::new(kind, EncoderSettings::default()).expect("a codec");
        let length = kind.rate().frame_samples() * ptime_ms as usize / 10;
        let ticks = kind.clock_rate_hz() / 1000 * ptime_ms;
        let mut sent: u16 = 0;
        let mut pauses = true;
        move |number| {
            let samples: Vec<i16> = (number * length..(number + 1) * length).map_while(&voice).collect();
            if samples.len() < length {
                pauses = true;
                return None;
            }
            let mut payload = vec![0; 1500];
            let bytes = encoder.encode(&samples, &mut payload).expect("encoded");
            let header = RtpHeader {
                marker: std::mem::take(&mut pauses),
                payload_type: kind.payload_type(),
                sequence_number: SeqNumber(65_500u16.wrapping_add(sent)),
                timestamp: RtpTimestamp(ticks.wrapping_mul(u32::try_from(number).unwrap_or(0)).wrapping_sub(8_000)),
                ssrc: Ssrc(ssrc),
            };
            sent = sent.wrapping_add(1);
            let mut head = [0; RTP_HEADER_BYTES];
            header.emit(&mut head);
            Some([&head[..], &payload[..bytes]].concat())
        }
    }

    /// Speaks from now on; where `voice` has no sample nothing is sent.
    pub fn speak(&self, voice: impl Fn(usize) -> Option<i16> + Send + 'static) -> Speaker {
        let step = Duration::from_millis(self.ptime_ms.into());
        self.endpoint.send_each(self.leg.local, step, usize::MAX, self.packets(voice))
    }

    /// What it has heard so far, decoded.
    ///
    /// # Panics
    /// If something came that is no packet of its codec.
    pub fn heard(&self) -> Option<Vec<i16>> {
        let heard = self.endpoint.heard();
        let samples = decode(self.kind, &payloads(self.kind, &heard));
        (!samples.is_empty()).then_some(samples)
    }
}

/// The payloads of the packets that are of a codec.
///
/// # Panics
/// If one is no packet of RTP.
pub fn payloads(kind: CodecKind, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let parsed = packets.iter().map(|packet| RtpPacket::parse(packet).expect("a packet of RTP"));
    parsed
        .filter(|packet| packet.payload_type() == kind.payload_type())
        .map(|packet| packet.payload().to_vec())
        .collect()
}

/// A stream's samples.
///
/// # Panics
/// If a payload is none of the codec.
pub fn decode(kind: CodecKind, payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = Decoder::new(kind).expect("a codec");
    let mut samples = Vec::new();
    let mut frame = vec![0; ringbridge_codec::kind::PAYLOAD_SAMPLES_MAX];
    for payload in payloads {
        let length = decoder.decode(payload, &mut frame).expect("a payload of the codec");
        samples.extend_from_slice(&frame[..length]);
    }
    samples
}
