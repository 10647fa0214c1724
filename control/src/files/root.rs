//! A directory that file names from outside can't leave.
//!
//! A name is first looked at as text, then opened with `openat2(2)` and `RESOLVE_BENEATH`: it is the kernel that keeps
//! every step inside the root, so a symbolic link swapped in at the wrong moment gains nothing. Only regular files are
//! opened; fifos and devices are recognised without waiting for them.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::FileError;

/// Longest name of a file taken from outside, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Deepest nesting of directories below a root.
pub(super) const DEPTH_MAX: usize = 16;
/// How often a look-up is repeated that met a rename, which makes the kernel give up (EAGAIN).
const LOOKUPS_MAX: usize = 8;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// A directory that files may be read from or written to.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
}

/// A file just created below a [`Root`], with what is needed to put others next to it.
#[derive(Debug)]
pub(super) struct CreatedFile {
    /// The file, empty, open for writing.
    pub(super) file: File,
    /// The directory it is in.
    pub(super) directory: Directory,
    /// Its name in that directory.
    pub(super) name: OsString,
    /// Where it is, starting with the root's path.
    pub(super) path: PathBuf,
}

/// An open directory. What is done by it stays in it, wherever it is moved to.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The name `given` without detours, relative to the root: the same text for the same path.
    ///
    /// # Errors
    /// If it is no name at all, or leads outside.
    pub(super) fn relative(&self, given: &str) -> Result<PathBuf, FileError> {
        if given.len() > PATH_BYTES_MAX {
            let start: String = given.chars().take(64).collect();
            let reason = format!("a path of more than {PATH_BYTES_MAX} bytes; use a shorter one");
            return Err(FileError::unsupported(Path::new(&format!("{start}…")), reason));
        }
        let path = Path::new(given);
        if given.contains('\0') {
            return Err(FileError::unsupported(path, "a path can't hold a NUL byte"));
        }
        let inside = if path.is_absolute() {
            let below = |root: &Path| path.strip_prefix(root).ok().map(Path::to_owned);
            below(&self.path)
                .or_else(|| self.path.canonicalize().ok().and_then(|root| below(&root)))
                .ok_or_else(|| self.outside(path))?
        } else {
            path.to_owned()
        };
        let mut relative = PathBuf::new();
        for component in inside.components() {
            match component {
                Component::Normal(name) => relative.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(self.outside(path)),
            }
        }
        if relative.as_os_str().is_empty() || given.ends_with('/') {
            return Err(FileError::unsupported(path, "not the name of a file"));
        }
        if relative.components().count() > DEPTH_MAX {
            return Err(FileError::unsupported(path, format!("more than {DEPTH_MAX} directories deep")));
        }
        Ok(relative)
    }

    /// Whether `relative` is a directory, as far as can be told from here.
    pub(super) fn is_directory(&self, relative: &Path) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        self.directory().and_then(|root| root.open_beneath(relative, flags, Mode::empty())).is_ok()
    }

    /// Opens a regular file to read. `relative` comes from [`Root::relative`].
    pub(super) fn open(&self, relative: &Path) -> Result<(File, Metadata), FileError> {
        // O_NONBLOCK: opening a fifo nobody writes to would wait for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = self
            .directory()
            .and_then(|root| root.open_beneath(relative, flags, Mode::empty()))
            .map_err(|errno| self.refused(relative, "open it", errno))?;
        let file = File::from(descriptor);
        let metadata = file.metadata().map_err(|error| FileError::io(relative, "look at it", error))?;
        let kind = metadata.file_type();
        if !kind.is_file() {
            let kind = match () {
                () if kind.is_dir() => "a directory",
                () if kind.is_fifo() => "a fifo",
                () => "a device",
            };
            return Err(FileError::unsupported(relative, format!("{kind}; it has to be a regular file")));
        }
        Ok((file, metadata))
    }

    /// Removes a file, or does nothing if it is gone. `relative` comes from [`Root::relative`].
    pub(super) fn remove(&self, relative: &Path) -> Result<(), FileError> {
        let Some((name, parent)) = relative.file_name().zip(relative.parent()) else {
            return Err(self.outside(relative));
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let removed = self.directory().and_then(|root| {
            if parent.as_os_str().is_empty() {
                return rustix::fs::unlinkat(&root.descriptor, name, AtFlags::empty());
            }
            let directory = root.open_beneath(parent, flags, Mode::empty())?;
            rustix::fs::unlinkat(&directory, name, AtFlags::empty())
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.refused(relative, "remove it", errno)),
        }
    }

    /// The names in it; `None` if it can't be read, or is not there yet.
    pub(super) fn list(&self) -> Option<Dir> {
        Dir::new(self.directory().ok()?.descriptor).ok()
    }

    /// Creates a file that does not exist yet, and the directories it is in.
    pub(super) fn create(&self, relative: &Path) -> Result<CreatedFile, FileError> {
        std::fs::create_dir_all(&self.path)
            .map_err(|error| FileError::io(&self.path, "create the directory for recordings", error))?;
        let name = relative.file_name().ok_or_else(|| FileError::unsupported(relative, "not the name of a file"))?;
        let parent = relative.parent().unwrap_or_else(|| Path::new(""));
        let directory =
            self.create_directories(parent).map_err(|errno| self.refused(relative, "create its directory", errno))?;
        let file = directory.create_new(name).map_err(|errno| self.refused(relative, "create it", errno))?;
        Ok(CreatedFile { file, directory, name: name.to_owned(), path: self.path.join(relative) })
    }

    fn create_directories(&self, parent: &Path) -> Result<Directory, Errno> {
        let root = self.directory()?;
        let mut at = PathBuf::new();
        let mut directory = self.directory()?;
        for component in parent.components() {
            match rustix::fs::mkdirat(&directory.descriptor, component.as_os_str(), DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            // From the root each time: a relative link may climb, as long as it stays inside the root.
            at.push(component);
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
            directory = Directory { descriptor: root.open_beneath(&at, flags, Mode::empty())? };
        }
        Ok(directory)
    }

    fn directory(&self) -> Result<Directory, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let descriptor = rustix::fs::openat(CWD, &self.path, flags, Mode::empty())?;
        Ok(Directory { descriptor })
    }

    /// The error of a name that is not there.
    pub(super) fn not_found(&self, path: &Path) -> FileError {
        FileError::NotFound { path: path.to_owned(), root: self.path.clone() }
    }

    /// The error of a name that leads out of here.
    pub(super) fn outside(&self, path: &Path) -> FileError {
        FileError::OutsideRoot { path: path.to_owned(), root: self.path.clone() }
    }

    fn refused(&self, path: &Path, action: &'static str, errno: Errno) -> FileError {
        match errno {
            Errno::NOENT | Errno::NOTDIR => self.not_found(path),
            // Out of the root, or links without end.
            Errno::XDEV | Errno::LOOP => self.outside(path),
            Errno::NXIO | Errno::NODEV => {
                FileError::unsupported(path, "a socket or device; it has to be a regular file")
            }
            Errno::EXIST => FileError::io(
                path,
                action,
                io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "a file of that name exists and is never overwritten; choose another name",
                ),
            ),
            errno => FileError::io(path, action, errno),
        }
    }
}

impl Directory {
    /// The directory behind a descriptor.
    pub(super) const fn of(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// Whether the file `name` is the one of that number.
    pub(super) fn is_same(&self, name: &std::ffi::OsStr, inode: u64) -> bool {
        let found = rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| found.st_ino == inode)
    }

    /// Creates a file that does not exist yet.
    fn create_new(&self, name: &std::ffi::OsStr) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.descriptor, name, flags, FILE_MODE).map(File::from)
    }

    /// Puts `content` into the file `name` at once: a reader sees the old content or the new, never a part. Only where
    /// the disk is full it is written over the old content, whose place it has already.
    ///
    /// # Errors
    /// If it can't be written, or (with `replace` unset) exists already.
    pub(super) fn write(&self, name: &std::ffi::OsStr, content: &[u8], replace: bool) -> io::Result<()> {
        if !replace {
            let mut file = self.create_new(name)?;
            // A part of it would be in the way of the next one.
            return file.write_all(content).inspect_err(|_| self.remove(name));
        }
        let mut draft = name.to_owned();
        draft.push(".new");
        self.remove(&draft);
        let mut file = self.create_new(&draft)?;
        let written = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat(&self.descriptor, &draft, &self.descriptor, name)?));
        let Err(error) = written else { return Ok(()) };
        self.remove(&draft);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return self.overwrite(name, content);
        }
        Err(error)
    }

    fn overwrite(&self, name: &std::ffi::OsStr, content: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = File::from(rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())?);
        file.write_all(content)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()
    }

    /// Removes the file `name` if there is one.
    pub(super) fn remove(&self, name: &std::ffi::OsStr) {
        // What can't be removed shows up at the next attempt to create it.
        let _ = rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty());
    }

    /// Makes the names in it last.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }

    fn open_beneath(&self, relative: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut lookups = 1;
        loop {
            match rustix::fs::openat2(&self.descriptor, relative, flags, mode, resolve) {
                Err(Errno::AGAIN) if lookups < LOOKUPS_MAX => lookups += 1,
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }
}
