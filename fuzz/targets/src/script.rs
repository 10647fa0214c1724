//! Bytes as a script: choices and numbers, one after the other.

/// What is left of the bytes. At the end every choice is the first and every number zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    /// Up to `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A byte with a length, and so many bytes.
    pub(crate) fn counted(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.bytes(usize::from(len))
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// Sometimes something.
    pub(crate) fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(make(self)) } else { None }
    }

    /// A number of milliseconds, mostly small.
    pub(crate) fn millis(&mut self) -> u32 {
        let byte = u32::from(self.byte());
        match byte {
            0..128 => byte,
            128..250 => (byte - 127) * 20,
            _ => self.long(),
        }
    }

    /// Samples from pairs of bytes.
    pub(crate) fn samples(&mut self, len: usize) -> Vec<i16> {
        self.bytes(2 * len).as_chunks().0.iter().map(|bytes| i16::from_be_bytes(*bytes)).collect()
    }
}
