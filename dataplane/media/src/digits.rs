//! Digits as pressed on a telephone: `0-9 * # A-D`.

use core::fmt;

use crate::limits::DIGITS_MAX;

const ALPHABET: &[u8; 16] = b"0123456789*#ABCD";

/// The number of a digit (RFC 4733 section 3.2: its event code); `None` if it is none. `a-d` are taken as `A-D`.
const fn number(digit: u8) -> Option<u8> {
    let mut number = 0;
    while number < 16 {
        if ALPHABET[number as usize] == digit.to_ascii_uppercase() {
            return Some(number);
        }
        number += 1;
    }
    None
}

/// A short run of digits, at most [`DIGITS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digits {
    digits: [u8; DIGITS_MAX],
    len: u8,
}

impl Digits {
    /// Reads digits; `None` if there are too many, or what is no digit.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = Self::default();
        text.bytes().all(|byte| number(byte).is_some() && digits.push(byte)).then_some(digits)
    }

    /// Appends a digit. `false`: it is none, or there is no room.
    pub fn push(&mut self, digit: u8) -> bool {
        let Some(number) = number(digit) else { return false };
        let Some(place) = self.digits.get_mut(usize::from(self.len)) else { return false };
        *place = ALPHABET[usize::from(number)];
        self.len += 1;
        true
    }

    /// The digits as ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..usize::from(self.len)]
    }

    /// The digits as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether so many more find room.
    pub const fn has_room_for(&self, count: usize) -> bool {
        self.len() + count <= DIGITS_MAX
    }

    /// Removes the first `count` and returns them.
    pub fn take(&mut self, count: usize) -> Self {
        let count = count.min(self.len());
        let taken: Self = self.as_bytes()[..count].iter().copied().collect();
        *self = self.as_bytes()[count..].iter().copied().collect();
        taken
    }
}

impl FromIterator<u8> for Digits {
    /// What is no digit, or finds no room, is left out.
    fn from_iter<T: IntoIterator<Item = u8>>(digits: T) -> Self {
        let mut run = Self::default();
        for digit in digits {
            run.push(digit);
        }
        run
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Digits that wait to be gathered. Each has a number, one more than the one before, so that several who gather at once
/// agree on what has been taken.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct DigitBuffer {
    waiting: Digits,
    /// Number of the first that waits.
    first: u32,
}

impl DigitBuffer {
    /// Appends a digit; `false` if there is no room for it.
    pub(crate) fn push(&mut self, digit: u8) -> bool {
        self.waiting.push(digit)
    }

    pub(crate) const fn waiting(&self) -> &Digits {
        &self.waiting
    }

    pub(crate) const fn first(&self) -> u32 {
        self.first
    }

    /// Removes every digit whose number is before `end`.
    pub(crate) fn take_before(&mut self, end: u32) {
        // Zero if others have been that far already.
        let count = u32::try_from(end.wrapping_sub(self.first).cast_signed()).unwrap_or(0);
        self.remove(count as usize);
    }

    pub(crate) fn clear(&mut self) {
        self.remove(DIGITS_MAX);
    }

    fn remove(&mut self, count: usize) {
        let taken = self.waiting.take(count).len;
        self.first = self.first.wrapping_add(u32::from(taken));
    }
}

/// Some of the sixteen digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct DigitSet(u16);

impl DigitSet {
    /// Reads digits without separators; `None` if there is none, or what is no digit.
    pub fn parse(text: &str) -> Option<Self> {
        let set = text.bytes().try_fold(0, |set, byte| Some(set | 1 << number(byte)?))?;
        (set != 0).then_some(Self(set))
    }

    /// Whether a digit is one of them.
    pub fn contains(self, digit: u8) -> bool {
        number(digit).is_some_and(|number| self.0 & 1 << number != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_that_fit_are_taken() {
        assert_eq!(Digits::parse("01289*#abCD").map(|digits| digits.as_str().to_owned()), Some("01289*#ABCD".into()));
        assert_eq!(Digits::parse("12e"), None);
        assert_eq!(Digits::parse(&"1".repeat(31)).map(|digits| digits.len()), Some(31));
        assert_eq!(Digits::parse(&"1".repeat(32)), None);
        let mut digits = Digits::parse("1234").unwrap();
        assert_eq!((digits.take(3).as_str(), digits.as_str()), ("123", "4"));
        assert_eq!((digits.take(9).as_str(), digits.is_empty()), ("4", true));
    }

    #[test]
    fn what_was_taken_is_taken_once() {
        let mut buffer = DigitBuffer { first: u32::MAX - 1, ..DigitBuffer::default() };
        assert!(b"12345".iter().all(|&digit| buffer.push(digit)));
        let first = buffer.first();
        buffer.take_before(first.wrapping_add(3));
        buffer.take_before(first.wrapping_add(2));
        assert_eq!((buffer.waiting().as_str(), buffer.first()), ("45", 1));
        buffer.clear();
        assert_eq!((buffer.waiting().as_str(), buffer.first()), ("", 3));
        assert!((0..31).all(|_| buffer.push(b'7')) && !buffer.push(b'8'));
    }

    #[test]
    fn a_set_holds_what_it_was_given() {
        let set = DigitSet::parse("#a0").unwrap();
        assert!(b"#Aa0".iter().all(|&digit| set.contains(digit)));
        assert!(!b"*B1x".iter().any(|&digit| set.contains(digit)));
        assert_eq!((DigitSet::parse(""), DigitSet::parse("1 2")), (None, None));
    }
}
