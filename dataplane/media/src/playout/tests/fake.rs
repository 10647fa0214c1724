//! A codec with a state: two bytes a millisecond, and it notes what it was asked for.

use ringbridge_codec::CodecError;

/// The decoder side of a codec that hears whether its payloads come in order. A payload is its number, and then as many
/// bytes as it has milliseconds less one; all its samples have the value of its number times [`LOUD`].
#[derive(Debug, Default)]
pub(in crate::playout) struct Fake {
    pub(in crate::playout) calls: Vec<Call>,
    pub(in crate::playout) samples_per_ms: usize,
    pub(in crate::playout) has_fec: bool,
    pub(in crate::playout) has_plc: bool,
    pub(in crate::playout) fails_at: Option<u8>,
    pub(in crate::playout) refuses: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::playout) enum Call {
    Decode(u8),
    Conceal(usize),
    Recover(u8, usize),
}

/// So that nothing is taken for silence.
pub(in crate::playout) const LOUD: i16 = 700;
/// What concealment of its own sounds like.
pub(in crate::playout) const MADE: i16 = 20_000;
/// What is recovered of payload `n` has this value more.
pub(in crate::playout) const RECOVERED: i16 = 10_000;

impl Fake {
    pub(in crate::playout) fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        if payload.is_empty() { Err(CodecError::Payload) } else { Ok(payload.len() * self.samples_per_ms) }
    }

    pub(in crate::playout) fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        if self.fails_at == Some(payload[0]) {
            return Err(CodecError::Failed);
        }
        if self.refuses == Some(payload[0]) {
            return Err(CodecError::Payload);
        }
        self.calls.push(Call::Decode(payload[0]));
        out.fill(i16::from(payload[0]) * LOUD);
        self.samples_in(payload)
    }

    pub(in crate::playout) fn conceal(&mut self, out: &mut [i16]) -> Result<bool, CodecError> {
        self.calls.push(Call::Conceal(out.len()));
        if self.has_plc {
            out.fill(MADE);
        }
        Ok(self.has_plc)
    }

    pub(in crate::playout) fn recover(&mut self, next: &[u8], out: &mut [i16]) -> Result<bool, CodecError> {
        self.calls.push(Call::Recover(next[0], out.len()));
        if self.has_fec {
            out.fill(RECOVERED + i16::from(next[0]) - 1);
        }
        Ok(self.has_fec)
    }
}
