//! A virtual endpoint: talks in a tone of its own, and listens for it where it must not be.

use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_codec::g711;
use ringbridge_media::command::CodecKind;
use ringbridge_media::id::ConnectionId;
use ringbridge_media::time::Instant;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber, Ssrc};

/// Amplitude of every voice.
pub(crate) const AMPLITUDE: f64 = 5_000.0;
/// Samples over which a tone is looked for: every voice has whole periods in it, so that voices do not mix.
pub(crate) const WINDOW: usize = 80;

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) connection: ConnectionId,
    pub(crate) address: SocketAddr,
    pub(crate) codec: CodecKind,
    pub(crate) ptime_ms: u32,
    pub(crate) next_at: Instant,
    pub(crate) talks: bool,
    pub(crate) ear: Ear,
    drift_ppm: i64,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    samples: u64,
    /// Which of the tones; no two phones at a time have the same.
    pub(crate) tone: u32,
    hz: f64,
}

/// The identity of a phone's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) drift_ppm: i64,
    /// Which of the tones.
    pub(crate) tone: u32,
}

impl Phone {
    pub(crate) fn new(
        connection: ConnectionId,
        address: SocketAddr,
        codec: CodecKind,
        ptime_ms: u32,
        next_at: Instant,
        voice: Voice,
    ) -> Self {
        let hz = f64::from(300 + 100 * (voice.tone % 30));
        Self {
            connection,
            address,
            codec,
            ptime_ms,
            next_at,
            talks: true,
            ear: Ear::new(hz),
            drift_ppm: voice.drift_ppm,
            ssrc: voice.ssrc,
            sequence: voice.sequence,
            timestamp: voice.timestamp,
            samples: 0,
            tone: voice.tone,
            hz,
        }
    }

    /// The packet that is due, and the next one's time.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let len = (self.ptime_ms * 8) as usize;
        let pcm: Vec<i16> = (self.samples..).take(len).map(|n| self.sample(n)).collect();
        let mut payload = vec![0; len];
        if self.codec == CodecKind::Pcma {
            g711::encode_alaw(&pcm, &mut payload);
        } else {
            g711::encode_ulaw(&pcm, &mut payload);
        }
        let payload_type = self.codec.payload_type();
        let bytes = self.wrap(payload_type, &payload);
        self.timestamp = self.timestamp.wrapping_add(self.ptime_ms * 8);
        self.samples += len as u64;
        let nanos = i64::from(self.ptime_ms) * 1_000_000;
        let interval = nanos - nanos * self.drift_ppm / 1_000_000;
        self.next_at = self.next_at + Duration::from_nanos(interval.unsigned_abs());
        bytes
    }

    /// A packet with another payload at the present timestamp.
    pub(crate) fn wrap(&mut self, payload_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; RTP_HEADER_BYTES];
        let header = RtpHeader {
            marker: self.samples == 0,
            payload_type,
            sequence_number: SeqNumber(self.sequence),
            timestamp: RtpTimestamp(self.timestamp),
            ssrc: Ssrc(self.ssrc),
        };
        if let Some(head) = bytes.first_chunk_mut() {
            header.emit(head);
        }
        bytes.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        bytes
    }

    /// Begins another stream, as after a transfer.
    pub(crate) const fn restart(&mut self, ssrc: u32) {
        self.ssrc = ssrc;
        self.sequence = self.sequence.wrapping_mul(3);
    }

    fn sample(&self, n: u64) -> i16 {
        if !self.talks {
            return 0;
        }
        // One period of every voice divides a second.
        #[expect(clippy::cast_possible_truncation, reason = "an amplitude below the range of an i16")]
        #[expect(clippy::cast_precision_loss, reason = "below 8000")]
        let sample = (((n % 8_000) as f64 * self.hz * std::f64::consts::TAU / 8_000.0).sin() * AMPLITUDE) as i16;
        sample
    }
}

/// Looks for the phone's own voice in what it is sent.
#[derive(Debug)]
pub(crate) struct Ear {
    hz: f64,
    pending: Vec<i16>,
    own_in_a_row: u32,
    /// Windows in which somebody was heard.
    pub(crate) loud_windows: u64,
}

impl Ear {
    const fn new(hz: f64) -> Self {
        Self { hz, pending: Vec::new(), own_in_a_row: 0, loud_windows: 0 }
    }

    /// Takes in a packet of a mix; `false` if the phone hears itself. A single window may be broken by a change in the
    /// middle of it; an echo stays.
    pub(crate) fn hear(&mut self, samples: &[i16]) -> bool {
        self.pending.extend_from_slice(samples);
        let whole = self.pending.len() / WINDOW * WINDOW;
        for window in self.pending[..whole].chunks_exact(WINDOW) {
            let own = amplitude(window, self.hz);
            self.own_in_a_row = if own > AMPLITUDE / 2.0 { self.own_in_a_row + 1 } else { 0 };
            self.loud_windows += u64::from(window.iter().any(|sample| sample.unsigned_abs() > 2_000));
            if self.own_in_a_row > 4 {
                return false;
            }
        }
        self.pending.drain(..whole);
        true
    }

    /// What comes next has nothing to do with what came before.
    pub(crate) fn forget(&mut self) {
        self.pending.clear();
        self.own_in_a_row = 0;
    }
}

/// Amplitude of the sine of `hz` (Goertzel).
fn amplitude(samples: &[i16], hz: f64) -> f64 {
    let coefficient = 2.0 * (hz * std::f64::consts::TAU / 8_000.0).cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for &sample in samples {
        (s1, s2) = (f64::from(sample) + coefficient * s1 - s2, s1);
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    #[expect(clippy::cast_precision_loss, reason = "the length of a window")]
    let len = samples.len() as f64;
    2.0 * power.max(0.0).sqrt() / len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "an amplitude below the range of an i16")]
    fn an_ear_hears_its_own_voice_and_no_other() {
        let tone = |hz: f64| -> Vec<i16> {
            (0..8_000)
                .map(|n| ((f64::from(n) * hz * std::f64::consts::TAU / 8_000.0).sin() * AMPLITUDE) as i16)
                .collect()
        };
        assert!(!Ear::new(700.0).hear(&tone(700.0)));
        for other in [300.0, 600.0, 800.0, 3_200.0] {
            let mut ear = Ear::new(700.0);
            assert!(ear.hear(&tone(other)));
            assert_eq!(ear.loud_windows, 100);
        }
    }
}
