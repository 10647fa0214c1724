//! Elements of an RTP header extension, read and written (RFC 8285).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |    0xBE       |    0xDE       |       length in words         |   one-byte form (s.4.2)
//! |  ID   |len - 1|    data ...   |  ID   |len - 1|  data, zeros  |
//!
//! |        0x100          |appbits|       length in words         |   two-byte form (s.4.3)
//! |      ID       |      len      |    data ...   |  data, zeros  |
//! ```

use core::fmt;

/// One element of an RFC 8285 header extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtensionElement<'a> {
    /// The local identifier that SDP `extmap` gave a meaning: `1 ..= 14` in the one-byte form, `1 ..= 255` in the
    /// two-byte form.
    pub id: u8,
    /// Its content: 1 to 16 bytes in the one-byte form, 0 to 255 in the two-byte form.
    pub data: &'a [u8],
}

/// Walks the elements of an RFC 8285 header extension; padding is skipped. The walk ends early at an element that runs
/// over the end, and where RFC 8285 s.4.2 says to stop (identifier 15, or identifier 0 with a length).
#[derive(Clone, Debug)]
pub struct ExtensionElements<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> ExtensionElements<'a> {
    /// The elements of an extension of this profile; none if there is none, or one of another kind.
    #[must_use]
    pub(crate) const fn of(extension: Option<(u16, &'a [u8])>) -> Self {
        match extension {
            Some((ONE_BYTE_PROFILE, rest)) => Self { rest, two_byte: false },
            Some((profile, rest)) if profile & TWO_BYTE_PROFILE_MASK == TWO_BYTE_PROFILE => {
                Self { rest, two_byte: true }
            }
            Some(_) | None => Self { rest: &[], two_byte: false },
        }
    }

    fn take(&mut self) -> Option<ExtensionElement<'a>> {
        let padding = self.rest.iter().take_while(|byte| **byte == 0).count();
        let (&first, rest) = self.rest.get(padding..)?.split_first()?;
        let (id, len, rest) = if self.two_byte {
            let (&len, rest) = rest.split_first()?;
            (first, usize::from(len), rest)
        } else {
            (first >> 4, usize::from(first & 0x0F) + 1, rest)
        };
        if !self.two_byte && (id == 0 || id == ONE_BYTE_STOP_ID) {
            return None;
        }
        let (data, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(ExtensionElement { id, data })
    }
}

impl<'a> Iterator for ExtensionElements<'a> {
    type Item = ExtensionElement<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.take();
        if element.is_none() {
            self.rest = &[];
        }
        element
    }
}

/// How elements are laid out. A packet has one of the two; both ends must have agreed to the two-byte form unless an
/// identifier above 14 says so already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExtensionForm {
    /// Identifiers `1 ..= 14` and 1 to 16 bytes of data, one byte before each (RFC 8285 s.4.2).
    OneByte,
    /// Identifiers `1 ..= 255` and 0 to 255 bytes of data, two bytes before each (RFC 8285 s.4.3).
    TwoByte,
}

impl ExtensionForm {
    /// The shorter form in which an element of this identifier and length can be written.
    #[must_use]
    pub const fn for_element(id: u8, len: usize) -> Self {
        if id <= ONE_BYTE_ID_MAX && 1 <= len && len <= ONE_BYTE_DATA_MAX { Self::OneByte } else { Self::TwoByte }
    }
}

/// Writes a header extension into the caller's memory, which begins where the CSRC list ends. An element that fails to
/// be written leaves what stands before it untouched.
///
/// The extension bit of the packet's first byte is the caller's to set; [`RtpHeader::emit_with`] does.
///
/// ```
/// use ringbridge_wire::extension::{ExtensionForm, ExtensionWriter};
///
/// let mut out = [0xFF; 8];
/// let mut writer = ExtensionWriter::new(&mut out, ExtensionForm::OneByte);
/// writer.element(3, &[0x85])?;
/// assert_eq!(writer.finish(), 8);
/// assert_eq!(out, [0xBE, 0xDE, 0, 1, 0x30, 0x85, 0, 0]);
/// # Ok::<(), ringbridge_wire::extension::ExtensionError>(())
/// ```
///
/// [`RtpHeader::emit_with`]: crate::rtp::RtpHeader::emit_with
#[derive(Debug)]
pub struct ExtensionWriter<'a> {
    out: &'a mut [u8],
    form: ExtensionForm,
    /// Bytes written, the first four counted as soon as an element stands behind them.
    len: usize,
}

impl<'a> ExtensionWriter<'a> {
    /// A writer that starts at the first byte of `out`.
    pub const fn new(out: &'a mut [u8], form: ExtensionForm) -> Self {
        Self { out, form, len: 0 }
    }

    /// Appends an element.
    ///
    /// # Errors
    ///
    /// No room for it and the zeros that fill its last word, or an identifier or a length that the form cannot tell.
    pub fn element(&mut self, id: u8, data: &[u8]) -> Result<(), ExtensionError> {
        let (head, head_len) = match self.form {
            ExtensionForm::OneByte => {
                if !(1..=ONE_BYTE_ID_MAX).contains(&id) {
                    return Err(ExtensionError::IdInvalid);
                }
                let code = data.len().checked_sub(1).filter(|_| data.len() <= ONE_BYTE_DATA_MAX);
                let code = code.and_then(|code| u8::try_from(code).ok()).ok_or(ExtensionError::LengthInvalid)?;
                ([id << 4 | code, 0], 1)
            }
            ExtensionForm::TwoByte => {
                if id == 0 {
                    return Err(ExtensionError::IdInvalid);
                }
                ([id, u8::try_from(data.len()).map_err(|_| ExtensionError::LengthInvalid)?], 2)
            }
        };
        let start = self.len.max(EXTENSION_HEADER_BYTES);
        let end = start + head_len + data.len();
        let padded = end.next_multiple_of(4);
        if padded > EXTENSION_BYTES_MAX {
            return Err(ExtensionError::NoRoom);
        }
        let place = self.out.get_mut(start..padded).ok_or(ExtensionError::NoRoom)?;
        let (place, padding) = place.split_at_mut(end - start);
        let (place, content) = place.split_at_mut(head_len);
        place.copy_from_slice(&head[..head_len]);
        content.copy_from_slice(data);
        padding.fill(0);
        self.len = end;
        Ok(())
    }

    /// Writes profile and length and returns the length of the whole in bytes, a multiple of four; 0, and nothing
    /// written, without any element.
    #[must_use]
    pub fn finish(self) -> usize {
        let len = self.len.next_multiple_of(4);
        // Not above EXTENSION_BYTES_MAX, so the length in words fits.
        let words = u16::try_from(len.saturating_sub(EXTENSION_HEADER_BYTES) / 4).unwrap_or(u16::MAX);
        let profile = match self.form {
            ExtensionForm::OneByte => ONE_BYTE_PROFILE,
            ExtensionForm::TwoByte => TWO_BYTE_PROFILE,
        };
        if let Some(head) = self.out.first_chunk_mut::<EXTENSION_HEADER_BYTES>().filter(|_| len > 0) {
            let ([p0, p1], [w0, w1]) = (profile.to_be_bytes(), words.to_be_bytes());
            *head = [p0, p1, w0, w1];
        }
        len
    }
}

/// Why an element could not be written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExtensionError {
    /// The caller's memory is too short, or the extension would be longer than its length field can tell.
    NoRoom,
    /// Identifier 0, or in the one-byte form one above 14.
    IdInvalid,
    /// More data than the form holds, or none in the one-byte form.
    LengthInvalid,
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no room for the extension element",
            Self::IdInvalid => "identifier is not one that the form of the extension has",
            Self::LengthInvalid => "data is of a length that the form of the extension cannot tell",
        })
    }
}

impl core::error::Error for ExtensionError {}

/// Profile and length in words.
pub(crate) const EXTENSION_HEADER_BYTES: usize = 4;
/// What the length field can tell.
const EXTENSION_BYTES_MAX: usize = EXTENSION_HEADER_BYTES + 4 * u16::MAX as usize;

/// Profile of an extension of one-byte elements (RFC 8285 s.4.2).
const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// Profile of an extension of two-byte elements; its low four bits are the application's (RFC 8285 s.4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;
const TWO_BYTE_PROFILE_MASK: u16 = 0xFFF0;
/// The identifier at which a reader of one-byte elements stops (RFC 8285 s.4.2).
const ONE_BYTE_STOP_ID: u8 = 15;
const ONE_BYTE_ID_MAX: u8 = ONE_BYTE_STOP_ID - 1;
const ONE_BYTE_DATA_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn walk(extension: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let (head, content) = extension.split_first_chunk::<4>().unwrap();
        assert_eq!(4 * usize::from(u16::from_be_bytes([head[2], head[3]])), content.len());
        let elements = ExtensionElements::of(Some((u16::from_be_bytes([head[0], head[1]]), content)));
        elements.map(|element| (element.id, element.data.to_vec())).collect()
    }

    #[test]
    fn bytes_stand_where_rfc_8285_puts_them() {
        let mut out = [0xFF; 12];
        let mut writer = ExtensionWriter::new(&mut out, ExtensionForm::OneByte);
        writer.element(1, &[7]).unwrap();
        writer.element(14, &[1, 2, 3]).unwrap();
        assert_eq!(writer.finish(), 12);
        assert_eq!(out, [0xBE, 0xDE, 0, 2, 0x10, 7, 0xE2, 1, 2, 3, 0, 0]);

        let mut out = [0xFF; 12];
        let mut writer = ExtensionWriter::new(&mut out, ExtensionForm::TwoByte);
        writer.element(1, &[]).unwrap();
        writer.element(200, &[1, 2, 3]).unwrap();
        assert_eq!(writer.finish(), 12);
        assert_eq!(out, [0x10, 0, 0, 2, 1, 0, 200, 3, 1, 2, 3, 0]);
    }

    #[test]
    fn no_element_is_no_extension() {
        let mut out = [0xFF; 8];
        assert_eq!(ExtensionWriter::new(&mut out, ExtensionForm::OneByte).finish(), 0);
        assert_eq!(out, [0xFF; 8]);
    }

    #[test]
    fn what_cannot_be_told_or_does_not_fit_is_refused_and_leaves_no_trace() {
        let mut out = [0xEE; 12];
        let mut writer = ExtensionWriter::new(&mut out, ExtensionForm::OneByte);
        assert_eq!(writer.element(0, &[1]), Err(ExtensionError::IdInvalid));
        assert_eq!(writer.element(15, &[1]), Err(ExtensionError::IdInvalid));
        assert_eq!(writer.element(1, &[]), Err(ExtensionError::LengthInvalid));
        assert_eq!(writer.element(1, &[0; 17]), Err(ExtensionError::LengthInvalid));
        assert_eq!(writer.element(1, &[0; 8]), Err(ExtensionError::NoRoom), "its last word is not whole");
        writer.element(1, &[5; 3]).unwrap();
        assert_eq!(writer.element(2, &[6; 4]), Err(ExtensionError::NoRoom));
        assert_eq!(writer.finish(), 8);
        assert_eq!(out[4..], [0x12, 5, 5, 5, 0xEE, 0xEE, 0xEE, 0xEE]);

        let mut out = [0; 3];
        let mut writer = ExtensionWriter::new(&mut out, ExtensionForm::TwoByte);
        assert_eq!(writer.element(0, &[]), Err(ExtensionError::IdInvalid));
        assert_eq!(writer.element(1, &[0; 256]), Err(ExtensionError::LengthInvalid));
        assert_eq!(writer.element(1, &[]), Err(ExtensionError::NoRoom));
        assert_eq!((writer.finish(), out), (0, [0; 3]));
    }

    #[test]
    fn an_extension_is_not_longer_than_its_length_field_can_tell() {
        let mut out = vec![0; EXTENSION_BYTES_MAX + 600];
        let mut writer = ExtensionWriter::new(&mut out, ExtensionForm::TwoByte);
        let written = (0..2000).take_while(|_| writer.element(9, &[1; 255]).is_ok()).count();
        assert_eq!(written, (EXTENSION_BYTES_MAX - 4) / 257);
        let len = writer.finish();
        assert_eq!(walk(&out[..len]).len(), written);
    }

    #[test]
    fn the_shorter_form_is_chosen_where_it_can_be() {
        let rows = [(1, 1, true), (14, 16, true), (15, 1, false), (1, 0, false), (1, 17, false), (255, 255, false)];
        for (id, len, one_byte) in rows {
            assert_eq!(ExtensionForm::for_element(id, len) == ExtensionForm::OneByte, one_byte, "{id} {len}");
        }
    }

    proptest! {
        #[test]
        fn the_walk_finds_what_was_written(
            rows in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 0..8),
            two_byte: bool,
            room in 0_usize..120,
        ) {
            let form = if two_byte { ExtensionForm::TwoByte } else { ExtensionForm::OneByte };
            let mut out = vec![0xFF; room];
            let mut writer = ExtensionWriter::new(&mut out, form);
            let mut written = Vec::new();
            for (id, data) in rows {
                if writer.element(id, &data).is_ok() {
                    written.push((id, data));
                }
            }
            let len = writer.finish();
            prop_assert_eq!(len == 0, written.is_empty());
            if len > 0 {
                prop_assert_eq!(walk(&out[..len]), written);
            }
            prop_assert!(out[len..].iter().all(|byte| *byte == 0xFF), "nothing behind the end");
        }
    }
}
