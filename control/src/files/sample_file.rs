//! The file of a recording: encoded samples, behind a WAV header if it has one.
//!
//! Samples are written first and the header that counts them afterwards, so the header never claims what is not there.
//! A disk that is full still takes the header, which has had its place from the beginning.

use std::io::{self, Seek, SeekFrom, Write};

use super::format::{Coding, Container};
use super::wav_header::{DATA_BYTES_MAX, wav_header};

/// A place for bytes that can be rewritten: a file, or something worse in tests.
pub(super) trait Storage: Write + Seek + Send {}
impl<T: Write + Seek + Send> Storage for T {}

/// Bytes gathered before they are written.
const PENDING_BYTES: usize = 8192;

/// A file that samples are appended to.
pub(super) struct SampleFile {
    storage: Box<dyn Storage>,
    container: Container,
    coding: Coding,
    channels: u16,
    sample_rate_hz: u32,
    pending: Vec<u8>,
    /// Bytes of samples that have been written.
    stored: u64,
}

impl SampleFile {
    /// Writes the header of an empty file.
    pub(super) fn begin(
        storage: Box<dyn Storage>,
        container: Container,
        coding: Coding,
        channels: u16,
        sample_rate_hz: u32,
    ) -> io::Result<Self> {
        let mut file = Self { storage, container, coding, channels, sample_rate_hz, pending: Vec::new(), stored: 0 };
        if let Some(header) = file.header(0) {
            file.storage.write_all(&header)?;
        }
        file.storage.flush()?;
        Ok(file)
    }

    /// What is gathered for the next write, to be appended to. [`Self::write`] comes next.
    pub(super) fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Writes what is pending if it is worth the while.
    ///
    /// # Errors
    /// If the storage takes no more, or the file can't hold more.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.stored + self.pending.len() as u64 > DATA_BYTES_MAX {
            return Err(too_long());
        }
        if self.pending.len() >= PENDING_BYTES { self.write_pending() } else { Ok(()) }
    }

    /// Writes what is pending and the header that counts it.
    ///
    /// # Errors
    /// If the storage takes no more.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.write_pending()?;
        // An odd byte waits for the next refresh: chunks of a WAV file are even.
        self.rewrite_header(self.whole_bytes() / 2 * 2)
    }

    /// Completes the file. The header is written even if the last samples can't be.
    ///
    /// # Errors
    /// If the storage takes no more.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let room = DATA_BYTES_MAX.saturating_sub(self.stored);
        self.pending.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        let written = self.write_pending();
        let mut bytes = self.whole_bytes();
        let padded = if self.container == Container::Wav && bytes % 2 == 1 && written.is_ok() {
            self.storage.write_all(&[0])
        } else {
            Ok(())
        };
        if padded.is_err() || written.is_err() {
            bytes -= bytes % 2;
        }
        let header = self.rewrite_header(bytes);
        written.and(padded).and(header)
    }

    /// Samples of each channel that have been written.
    pub(super) fn samples(&self) -> u64 {
        self.stored * 8 / u64::from(self.coding.bits()) / u64::from(self.channels)
    }

    /// Bytes of whole samples that have been written.
    fn whole_bytes(&self) -> u64 {
        let frame = u64::from(self.coding.bits().div_ceil(8) * self.channels);
        self.stored - self.stored % frame
    }

    fn header(&self, data_bytes: u64) -> Option<Vec<u8>> {
        match self.container {
            Container::Wav => Some(wav_header(self.coding, self.channels, self.sample_rate_hz, data_bytes)),
            Container::Vox => None,
        }
    }

    fn rewrite_header(&mut self, data_bytes: u64) -> io::Result<()> {
        if let Some(header) = self.header(data_bytes) {
            self.storage.seek(SeekFrom::Start(0))?;
            self.storage.write_all(&header)?;
            self.storage.seek(SeekFrom::Start(header.len() as u64 + self.stored))?;
        }
        self.storage.flush()
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let mut done = 0;
        let result = loop {
            if done == self.pending.len() {
                break Ok(());
            }
            match self.storage.write(&self.pending[done..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.stored += done as u64;
        self.pending.drain(..done);
        result
    }
}

pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "a WAV file holds 4 GiB at most; start another recording")
}
