//! Which file a prompt means, and how it is read.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

use super::beginning;
use super::cache::Origin;
use super::error::FileError;
use super::format::{Container, HeaderlessFormat};
use super::manifest::Noted;
use super::root::Root;
use super::worker::Shared;

/// What a prompt is asked for by.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// A path below the audio root.
    File(String),
    /// A name that is looked for in several places.
    Named {
        /// As the client wrote it: a path, or a text to be spoken.
        text: String,
        /// Directory of the client's application.
        application: Option<String>,
        /// Directory of the language in it.
        locale: Option<String>,
    },
    /// A text that was rendered, by the name of its file.
    Speech(PathBuf),
}

/// A file that was found.
pub(super) struct Found {
    pub(super) origin: Origin,
    /// Relative to its root.
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) metadata: Metadata,
}

impl Shared {
    /// Finds and opens the file that is wanted. A name that is no file anywhere is `NotFound`.
    pub(super) fn find(&self, wanted: &Wanted) -> Result<Found, FileError> {
        match wanted {
            Wanted::File(given) => self.open(Origin::Audio, &self.audio.relative(given)?),
            Wanted::Speech(name) => self.open(Origin::Speech, name),
            Wanted::Named { text, application, locale } => {
                if text.trim().is_empty() {
                    return Err(FileError::unsupported(Path::new(text), "an empty prompt; give a file or a text"));
                }
                if text.starts_with('/') {
                    return self.find_full_path(text);
                }
                if is_windows_full_path(text) {
                    return Err(self.audio.outside(&beginning(text)));
                }
                // Checked even if the text is no path: the client is told of its mistake with the first prompt.
                let directory = application_directory(application.as_deref(), locale.as_deref())
                    .map_err(|name| self.audio.outside(Path::new(&name)))?;
                self.find_relative(text, directory.as_deref())
            }
        }
    }

    fn find_full_path(&self, text: &str) -> Result<Found, FileError> {
        let mut inside = false;
        for origin in [Origin::Audio, Origin::Recordings] {
            match self.root(origin).relative(text) {
                Err(FileError::OutsideRoot { .. }) => {}
                Err(error) => return Err(error),
                Ok(relative) => {
                    inside = true;
                    if let Some(found) = self.try_open(origin, &relative)? {
                        return Ok(found);
                    }
                }
            }
        }
        let path = Path::new(text);
        Err(if inside { self.audio.not_found(path) } else { self.audio.outside(path) })
    }

    fn find_relative(&self, text: &str, directory: Option<&Path>) -> Result<Found, FileError> {
        let relative = match self.audio.relative(text) {
            Ok(relative) if relative.iter().all(|name| name.len() <= NAME_BYTES_MAX) => relative,
            Err(error @ FileError::OutsideRoot { .. }) => return Err(error),
            // A text that could not be a path.
            Ok(_)
            | Err(
                FileError::NotFound { .. }
                | FileError::Unsupported { .. }
                | FileError::Format { .. }
                | FileError::Speech { .. }
                | FileError::Io { .. },
            ) => return Err(self.audio.not_found(&beginning(text))),
        };
        let places = [
            directory.map(|directory| (Origin::Audio, directory.join(&relative))),
            Some((Origin::Audio, relative.clone())),
            Some((Origin::Recordings, relative)),
        ];
        for (origin, path) in places.into_iter().flatten() {
            if let Some(found) = self.try_open(origin, &path)? {
                return Ok(found);
            }
        }
        Err(self.audio.not_found(Path::new(text)))
    }

    /// Opens what is there; a directory that happens to have the name is not what is wanted.
    fn try_open(&self, origin: Origin, relative: &Path) -> Result<Option<Found>, FileError> {
        match self.open(origin, relative) {
            Ok(found) => Ok(Some(found)),
            Err(FileError::NotFound { .. }) => Ok(None),
            Err(FileError::Unsupported { .. }) if self.root(origin).is_directory(relative) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, origin: Origin, relative: &Path) -> Result<Found, FileError> {
        let (file, metadata) = self.root(origin).open(relative)?;
        Ok(Found { origin, path: relative.to_owned(), file, metadata })
    }

    /// How a file is read that begins with `start`: `None` by its WAV header, else in this format.
    ///
    /// What was noted when the file was written counts more than its name, and both more than what is `given`.
    pub(super) fn headerless_format(
        &self,
        origin: Origin,
        relative: &Path,
        start: &[u8],
        given: HeaderlessFormat,
    ) -> Option<HeaderlessFormat> {
        let riff = start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WAVE");
        let named_vox = relative.to_str().and_then(Container::of_path) == Some(Container::Vox);
        if riff && !named_vox {
            return None;
        }
        match Noted::beside(self.root(origin), relative).and_then(|noted| noted.format()) {
            Some((Container::Wav, _)) => None,
            Some((Container::Vox, format)) => Some(format),
            None => named_vox.then_some(given),
        }
    }

    fn root(&self, origin: Origin) -> &Root {
        match origin {
            Origin::Audio => &self.audio,
            Origin::Recordings => &self.recordings,
            Origin::Speech => &self.speech,
        }
    }
}

/// Whether a prompt was meant as a file rather than as a text: it ends in a short extension and holds no white space.
pub fn looks_like_file_name(text: &str) -> bool {
    let Some((stem, extension)) = text.rsplit_once('.') else { return false };
    let short = (1..=EXTENSION_CHARS_MAX).contains(&extension.len());
    short
        && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !stem.is_empty()
        && !text.contains(char::is_whitespace)
}

/// A full path of Windows, as clients may still send it: nothing here can be meant by it.
fn is_windows_full_path(text: &str) -> bool {
    matches!(text.as_bytes(), [b'A'..=b'Z' | b'a'..=b'z', b':', b'\\' | b'/', ..] | [b'\\', ..])
}

/// Where the prompts of an application are, below the audio root.
///
/// # Errors
/// The name that is none of a directory there.
fn application_directory(application: Option<&str>, locale: Option<&str>) -> Result<Option<PathBuf>, String> {
    let locale = locale.map_or(Ok(LOCALE_DEFAULT), component)?;
    let application = application.map(component).transpose()?;
    Ok(application.map(|application| Path::new(application).join(locale)))
}

/// A name that is exactly one directory.
fn component(name: &str) -> Result<&str, String> {
    let only_dots = name.bytes().all(|byte| byte == b'.');
    if only_dots || name.len() > NAME_BYTES_MAX || name.contains(['/', '\\', '\0']) {
        return Err(name.chars().take(64).collect());
    }
    Ok(name)
}

/// The language of an application that names none.
pub(super) const LOCALE_DEFAULT: &str = "en-US";
/// Longest name in a directory.
const NAME_BYTES_MAX: usize = 255;
const EXTENSION_CHARS_MAX: usize = 4;
