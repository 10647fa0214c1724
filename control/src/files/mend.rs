//! Ends the recordings an earlier server was killed in: the header counts all that was written, and the manifest says
//! that it was cut off.
//!
//! Such a recording has a manifest of state `recording`, and nobody holds its lock. Only what can be told from the file
//! itself is changed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::manifest::{BYTES_MAX, CutOff};
use super::root::Directory;
use super::wav_header::{DATA_BYTES_MAX, wav_header};
use super::worker::Turn;
use super::{Container, HeaderlessFormat};

/// Bytes that are read in one turn for the checksum.
const READ_PER_TURN: usize = 1 << 20;

/// A recording on its way to its end. As long as this lives nobody else ends or removes it.
pub(super) struct Mending {
    directory: Directory,
    name: OsString,
    manifest_name: OsString,
    manifest: Map<String, Value>,
    file: File,
    samples: u64,
    ended_at: Timestamp,
    /// Of a recording with two channels.
    hash: Option<Sha256>,
    read: u64,
}

impl Mending {
    /// Takes up the recording `name`, opened for reading and writing, if nobody writes it any more. Its header is right
    /// when this returns.
    pub(super) fn begin(
        directory: OwnedFd,
        name: OsString,
        manifest_name: &OsStr,
        file: File,
    ) -> io::Result<Option<Self>> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // Only now: as long as somebody had the lock, another might have taken its place.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let manifest = File::from(rustix::fs::openat(&directory, manifest_name, flags, Mode::empty())?);
        let mut text = Vec::new();
        manifest.take(BYTES_MAX + 1).read_to_end(&mut text)?;
        let manifest: Map<String, Value> = serde_json::from_slice(&text)?;
        let known: CutOff = serde_json::from_slice(&text)?;
        if !known.is_open() {
            return Ok(None);
        }
        let ended_at = file.metadata()?.modified()?.try_into().unwrap_or_else(|_| Timestamp::now());
        let samples = known.close(&file)?;
        let hash = (known.channels == 2).then(Sha256::new);
        let directory = Directory::of(directory);
        let manifest_name = manifest_name.to_owned();
        Ok(Some(Self { directory, name, manifest_name, manifest, file, samples, ended_at, hash, read: 0 }))
    }

    /// Reads some of the file; at its end the manifest is written.
    ///
    /// # Errors
    /// It can't be read, or the manifest not be written: another attempt may succeed.
    pub(super) fn turn(&mut self) -> io::Result<Turn> {
        if let Some(hash) = &mut self.hash {
            let mut bytes = vec![0; READ_PER_TURN];
            let read = self.file.read_at(&mut bytes, self.read)?;
            if let Some(part) = bytes.get(..read).filter(|part| !part.is_empty()) {
                hash.update(part);
                self.read += read as u64;
                return Ok(Turn::Busy);
            }
        }
        let sha256 = self.hash.take().map(|hash| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        let members: [(&str, Option<Value>); 5] = [
            ("state", Some("cut_off".into())),
            ("ended_at", Some(self.ended_at.to_string().into())),
            ("samples", Some(self.samples.into())),
            ("error", Some("the server ended in the middle of it".into())),
            ("sha256", sha256.map(Value::String)),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                self.manifest.insert(name.to_owned(), value);
            }
        }
        let mut text = serde_json::to_vec_pretty(&self.manifest)?;
        text.push(b'\n');
        self.directory.write(&self.manifest_name, &text, true)?;
        // Who has removed the recording meanwhile does not know of this manifest.
        if !self.directory.is_same(&self.name, self.file.metadata()?.ino()) {
            self.directory.remove(&self.manifest_name);
        }
        Ok(Turn::Done)
    }
}

impl CutOff {
    /// Brings the header up to date with what was written; the samples of each channel.
    fn close(&self, file: &File) -> io::Result<u64> {
        let Self { state: _, container, encoding, sample_rate, bits, channels } = *self;
        let format = HeaderlessFormat { encoding, sample_rate_hz: sample_rate, bits };
        let coding = format.coding().map_err(io::Error::other)?;
        if !(1..=2).contains(&channels) {
            return Err(io::Error::other("neither one channel nor two"));
        }
        let header = |data: u64| wav_header(coding, channels, sample_rate, data);
        let header_bytes = if container == Container::Wav { header(0).len() as u64 } else { 0 };
        let stored = file.metadata()?.len().saturating_sub(header_bytes).min(DATA_BYTES_MAX);
        // Whole samples of both channels, and an even number of bytes.
        let frame = u64::from(coding.bits().div_ceil(8) * channels);
        let frame = if container == Container::Wav && frame % 2 == 1 { frame * 2 } else { frame };
        let data = stored - stored % frame;
        if container == Container::Wav {
            file.write_all_at(&header(data), 0)?;
        }
        file.set_len(header_bytes + data)?;
        file.sync_all()?;
        Ok(data * 8 / u64::from(coding.bits()) / u64::from(channels))
    }

    /// Whether a server that is gone was in the middle of it, unless it is still being written.
    pub(super) fn is_open(&self) -> bool {
        self.state == "recording"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Encoding;
    use super::*;

    #[test]
    fn a_header_counts_what_is_there() {
        let known = |container, encoding, bits, channels| CutOff {
            state: "recording".to_owned(),
            container,
            encoding,
            sample_rate: 8000,
            bits,
            channels,
        };
        for (known, bytes, samples, left) in [
            (known(Container::Wav, Encoding::Pcm, 16, 2), 44 + 4 * 100 + 3, 100, 44 + 400),
            (known(Container::Wav, Encoding::Pcm, 16, 1), 44 + 7, 3, 44 + 6),
            (known(Container::Wav, Encoding::Ulaw, 8, 1), 58 + 7, 6, 58 + 6),
            (known(Container::Wav, Encoding::Ulaw, 8, 2), 58 + 7, 3, 58 + 6),
            (known(Container::Wav, Encoding::Adpcm, 4, 1), 58 + 7, 12, 58 + 6),
            (known(Container::Vox, Encoding::Adpcm, 4, 1), 7, 14, 7),
            (known(Container::Vox, Encoding::Pcm, 16, 1), 7, 3, 6),
            // Killed before its header was written.
            (known(Container::Wav, Encoding::Pcm, 16, 2), 0, 0, 44),
            (known(Container::Wav, Encoding::Pcm, 16, 2), 20, 0, 44),
        ] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&vec![1; bytes], 0).unwrap();
            assert_eq!(known.close(&file).unwrap(), samples, "{known:?}");
            assert_eq!(file.metadata().unwrap().len(), left, "{known:?}");
            let mut head = vec![0; 12];
            file.read_at(&mut head, 0).unwrap();
            assert_eq!(head.starts_with(b"RIFF"), known.container == Container::Wav);
        }
    }
}
