//! What decodes a stream: a [`Decoder`], or in tests something that tells what it was asked for.

use ringbridge_codec::{CodecError, CodecKind, Decoder};

#[derive(Debug)]
pub(super) struct Source {
    kind: CodecKind,
    /// `None`: the codec can't be decoded here.
    decoder: Option<Decoder>,
    #[cfg(test)]
    pub(super) fake: Option<super::tests::fake::Fake>,
}

impl Source {
    pub(super) fn new(kind: CodecKind) -> Self {
        Self {
            kind,
            decoder: Decoder::new(kind).ok(),
            #[cfg(test)]
            fake: None,
        }
    }

    pub(super) const fn kind(&self) -> CodecKind {
        self.kind
    }

    /// Whether any part of a payload can be decoded at any time.
    pub(super) fn is_stateless(&self) -> bool {
        self.kind.is_stateless()
    }

    pub(super) fn reset(&mut self) {
        if let Some(decoder) = &mut self.decoder {
            decoder.reset();
        }
    }

    pub(super) fn samples_in(&self, payload: &[u8]) -> Result<usize, CodecError> {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            return fake.samples_in(payload);
        }
        self.decoder.as_ref().ok_or(CodecError::Unavailable)?.samples_in(payload)
    }

    pub(super) fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        #[cfg(test)]
        if let Some(fake) = &mut self.fake {
            return fake.decode(payload, out);
        }
        self.decoder.as_mut().ok_or(CodecError::Unavailable)?.decode(payload, out)
    }

    pub(super) fn decode_part(&self, payload: &[u8], from: usize, out: &mut [i16]) {
        match &self.decoder {
            Some(decoder) => decoder.decode_part(payload, from, out),
            None => out.fill(0),
        }
    }

    pub(super) fn conceal(&mut self, out: &mut [i16]) -> Result<bool, CodecError> {
        #[cfg(test)]
        if let Some(fake) = &mut self.fake {
            return fake.conceal(out);
        }
        self.decoder.as_mut().map_or(Ok(false), |decoder| decoder.conceal(out))
    }

    pub(super) fn recover(&mut self, next: &[u8], out: &mut [i16]) -> Result<bool, CodecError> {
        #[cfg(test)]
        if let Some(fake) = &mut self.fake {
            return fake.recover(next, out);
        }
        self.decoder.as_mut().map_or(Ok(false), |decoder| decoder.recover(next, out))
    }
}
