//! What addresses and forms hold, decoded (RFC 3986 section 2.1, and `application/x-www-form-urlencoded`).
//!
//! A percent sign without two hexadecimal digits stands for itself.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// A part of an address. What is no UTF-8 is replaced.
pub(crate) fn decode(text: &str) -> String {
    percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned()
}

/// Names and values of a query or a form, in their order; `+` is a space, `%2B` a plus. They may be no UTF-8.
pub(crate) fn pairs(form: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let mut part = || parts.next().map(plain).unwrap_or_default();
        (part(), part())
    })
}

fn plain(part: &[u8]) -> Vec<u8> {
    let spaced: Cow<'_, [u8]> = if part.contains(&b'+') {
        part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<u8>>().into()
    } else {
        part.into()
    };
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address() {
        for (given, decoded) in
            [("a%20b+c", "a b+c"), ("%zz%4", "%zz%4"), ("%c3%a9", "é"), ("%ff", "\u{fffd}"), ("", ""), ("%2e%2E", "..")]
        {
            assert_eq!(decode(given), decoded, "{given}");
        }
    }

    #[test]
    fn pairs_of_a_form() {
        let found: Vec<(Vec<u8>, Vec<u8>)> = pairs(b"a=b+c%2B%3d&&x=%zz&flag&=v&two=1=2&bad=%ff").collect();
        let expected: [(&[u8], &[u8]); 6] =
            [(b"a", b"b c+="), (b"x", b"%zz"), (b"flag", b""), (b"", b"v"), (b"two", b"1=2"), (b"bad", b"\xff")];
        assert_eq!(found.len(), expected.len());
        for (pair, (name, value)) in found.iter().zip(expected) {
            assert_eq!((&*pair.0, &*pair.1), (name, value));
        }
    }
}
