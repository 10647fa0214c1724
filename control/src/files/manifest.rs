//! What stands in `<file>.json` beside a recording.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Gap;
use super::format::{Container, Encoding, HeaderlessFormat};
use super::root::Root;

/// What is written.
#[derive(Debug, Serialize)]
pub(super) struct Manifest<'a> {
    pub(super) file: &'a str,
    pub(super) state: State,
    /// RFC 3339, UTC, as all times.
    pub(super) started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended_at: Option<String>,
    /// The recording is removed after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
    pub(super) container: Container,
    pub(super) encoding: Encoding,
    pub(super) sample_rate: u32,
    pub(super) bits: u16,
    pub(super) channels: u16,
    pub(super) samples: u64,
    pub(super) gaps: &'a [Gap],
    /// Gaps beyond those listed.
    pub(super) gaps_unlisted: u64,
    /// Of a recording with two channels: what there is to know of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<ChannelNotes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) called: Option<ChannelNotes>,
    /// Of the whole file, header included, once it is complete; of a recording with two channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a str>,
}

/// Where one channel is silence that was not said.
#[derive(Debug, Serialize)]
pub(super) struct ChannelNotes {
    /// It was muted.
    pub(super) muted: Vec<Gap>,
    /// Nothing came from the party.
    pub(super) gaps: Vec<Gap>,
    /// Part of what the party said was lost on its way, or a frame was put in to keep step with its clock.
    pub(super) concealed: Vec<Gap>,
    /// Stretches beyond those listed.
    pub(super) unlisted: u64,
}

/// How far a recording has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Under way. If no server runs any more, it was cut off by a crash: the next one says `cut_off` instead.
    Recording,
    /// Ended as it should.
    Complete,
    /// Ended because nobody was left to record, or the server ended.
    Abandoned,
    /// The file could not be written any more.
    Failed,
}

/// What is read again. Whatever else there is does not matter.
#[derive(Debug, Deserialize)]
pub(super) struct Noted {
    pub(super) file: String,
    state: Option<String>,
    expires_at: Option<String>,
    container: Option<Container>,
    encoding: Option<Encoding>,
    sample_rate: Option<u32>,
    bits: Option<u16>,
}

/// What has to be known of a recording to end it that was cut off.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct CutOff {
    pub(super) state: String,
    pub(super) container: Container,
    pub(super) encoding: Encoding,
    pub(super) sample_rate: u32,
    pub(super) bits: u16,
    pub(super) channels: u16,
}

impl Noted {
    /// Reads a manifest of sane size; `None` if it is none.
    pub(super) fn read(file: File) -> io::Result<Option<Self>> {
        let mut text = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > BYTES_MAX {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Reads the manifest beside the file `relative`, if there is one.
    pub(super) fn beside(root: &Root, relative: &Path) -> Option<Self> {
        let (file, _) = root.open(&PathBuf::from(manifest_name(relative.as_os_str()))).ok()?;
        let noted = Self::read(file).ok()??;
        (Some(noted.file.as_str()) == relative.file_name()?.to_str()).then_some(noted)
    }

    /// Whether it says that the recording goes on.
    pub(super) fn is_under_way(&self) -> bool {
        self.state.as_deref() == Some("recording")
    }

    /// When the file is to be removed, if ever.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at.as_ref()?.parse().ok()
    }

    /// The container, and the format of the samples in it.
    pub(super) fn format(&self) -> Option<(Container, HeaderlessFormat)> {
        let format = HeaderlessFormat { encoding: self.encoding?, sample_rate_hz: self.sample_rate?, bits: self.bits? };
        format.check().ok()?;
        Some((self.container?, format))
    }
}

/// The manifest's name for a file's.
pub(super) fn manifest_name(file: &OsStr) -> OsString {
    let mut name = file.to_owned();
    name.push(EXTENSION);
    name
}

/// When a recording that ended at `ended_at` is to be removed, if ever: `None` and zero days are never.
pub(super) fn expiry(ended_at: Timestamp, days: Option<u32>) -> Option<Timestamp> {
    let days = days.filter(|days| *days > 0)?.min(EXPIRES_DAYS_MAX);
    ended_at.checked_add(SignedDuration::from_hours(i64::from(days) * 24)).ok()
}

/// What a manifest's name has more than the file's.
pub(super) const EXTENSION: &str = ".json";
/// Longest time a recording can be kept for; whoever wants more has to say never.
const EXPIRES_DAYS_MAX: u32 = 9999;
/// A manifest with all the gaps and muted stretches that are listed has two thirds of this.
pub(super) const BYTES_MAX: u64 = 512 * 1024;
