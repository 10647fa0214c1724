//! Text to speech: a program is run for each text that has not been spoken before, and what it made is kept.
//!
//! The program comes from the configuration, or is `espeak-ng` if that is installed. It is never a shell's business: the
//! arguments are a list, and a text goes in by the standard input, or as an argument that can't be taken for an option.
//! It runs in a process group of its own with an empty environment, in a directory of its own that is removed
//! afterwards, and is killed with all its group when its time is up or nobody waits any more.
//!
//! | bound | value |
//! | --- | --- |
//! | text | 4096 bytes |
//! | time | `time_limit`, waiting for a turn included once more |
//! | audio made of one text | 32 MiB |
//! | programs at once | 4; 64 more texts wait, then `Busy` |
//! | kept on disk | `cache_bytes_max` and 4096 files; the least recently used go first |

use std::collections::HashMap;
use std::fs::{File, FileTimes};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use ringbridge_media::command::Rate;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::decode::{Aim, Decoder};
use super::resolve::LOCALE_DEFAULT;

/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest file a program may make.
const OUTPUT_BYTES_MAX: u64 = 32 << 20;
/// Longest file a program may write while it runs: `espeak-ng` has one of 64 MiB that is memory, to play with.
const FILE_BYTES_MAX: u64 = 128 << 20;
/// Programs that run at the same time.
const RENDERS_MAX: usize = 4;
/// Texts that wait for one of those.
const WAITING_MAX: usize = 64;
/// Files that are kept.
const ENTRIES_MAX: usize = 4096;
/// What is kept of a program's complaints.
const COMPLAINT_BYTES_MAX: usize = 300;
/// How much less urgent than media a program is.
const NICENESS: i32 = 10;

/// How text is spoken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TtsConfig {
    /// Program and arguments. `{output}` stands for the WAV file to be made, `{voice}` for the language (`en-us`),
    /// `{text}` for the text; without `{text}` it comes by the standard input. `None`: `espeak-ng` if it is installed;
    /// empty: nothing is spoken.
    pub command: Option<Vec<String>>,
    /// How long a program may take.
    pub time_limit: Duration,
    /// Bytes of audio that are kept on disk.
    pub cache_bytes_max: u64,
}

/// Why a text can't be spoken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TtsError {
    /// There is no program for it.
    #[error("no text to speech here; install espeak-ng or set `tts.command`")]
    NotInstalled,
    /// All ports for it are in use, says who counts them.
    #[error("all text-to-speech ports are in use; try again")]
    NoPort,
    /// Too many texts wait already.
    #[error("too many texts are being rendered; try again")]
    Busy,
    /// The text is no text, or its language no language.
    #[error("{0}")]
    Text(&'static str),
    /// The program refused the text, or made no audio of it.
    #[error("the text-to-speech program refused it: {0}")]
    Rejected(String),
    /// The program took too long.
    #[error("the text-to-speech program took longer than {} ms; use a shorter text or raise `tts.time_limit_ms`", .0.as_millis())]
    TimedOut(Duration),
    /// The program made too large a file.
    #[error("the text-to-speech program made more than {} MiB; use a shorter text", OUTPUT_BYTES_MAX >> 20)]
    OutputTooLarge,
    /// The system refused.
    #[error("can't {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: Arc<io::Error>,
    },
}

impl TtsError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source: Arc::new(source) }
    }
}

/// Whether a command can be used: it says where the audio goes, and no text can become an option of it.
///
/// # Errors
/// What is wrong, as in "it has to …".
pub fn check_command(command: &[String]) -> Result<(), &'static str> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    if program.is_empty() || (program.contains('/') && !program.starts_with('/')) {
        return Err("begin with a program: its name or its absolute path");
    }
    if !arguments.iter().any(|argument| argument.contains(OUTPUT)) {
        return Err("say by {output} where the audio goes");
    }
    let before_end_of_options = arguments.iter().take_while(|argument| *argument != "--");
    if before_end_of_options.into_iter().any(|argument| argument.starts_with(TEXT)) {
        return Err("have \"--\" before {text}, or not begin an argument with it");
    }
    Ok(())
}

/// Speaks texts, and remembers what it has spoken.
#[derive(Debug)]
pub(super) struct Tts {
    /// `None`: not installed.
    command: Option<Vec<String>>,
    time_limit: Duration,
    root: PathBuf,
    spoken: Mutex<Spoken>,
    /// Texts being rendered: others who want the same wait for it.
    rendering: Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>,
    waiting: Semaphore,
    running: Semaphore,
}

impl Tts {
    /// Takes over what is kept below `root`.
    pub(super) fn new(root: PathBuf, config: &TtsConfig) -> Self {
        let command = installed(config.command.as_deref());
        // What a server that was killed has left.
        let _ = std::fs::remove_dir_all(root.join(WORK));
        let spoken = Mutex::new(Spoken::scan(&root, config.cache_bytes_max));
        let (waiting, running) = (Semaphore::new(WAITING_MAX), Semaphore::new(RENDERS_MAX));
        Self { command, time_limit: config.time_limit, root, spoken, rendering: Mutex::default(), waiting, running }
    }

    /// The name below the root of a WAV file in which `text` is spoken. `port` is asked only if it has to be rendered,
    /// and what it gives is held as long as that takes.
    pub(super) async fn speak<G>(
        &self,
        text: &str,
        locale: Option<&str>,
        port: impl FnOnce() -> Result<G, TtsError>,
    ) -> Result<PathBuf, TtsError> {
        let command = self.command.as_ref().ok_or(TtsError::NotInstalled)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(TtsError::Text("a text of more than 4096 bytes; use several prompts"));
        }
        if text.trim().is_empty() || text.contains('\0') {
            return Err(TtsError::Text("a text that is empty or holds a NUL byte"));
        }
        let voice = voice(locale)?;
        let key = Key::new(command, &voice, text);
        if self.hit(&key) {
            return Ok(key.file());
        }
        let alone = self.alone(&key);
        let _alone = alone.lock().await;
        if self.hit(&key) {
            return Ok(key.file());
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| TtsError::Busy)?;
        let running = tokio::time::timeout(self.time_limit, self.running.acquire()).await;
        let Ok(Ok(_running)) = running else { return Err(TtsError::Busy) };
        let port = port()?;
        let made = self.render(command, &voice, text).await;
        drop(port);
        let made = made?;
        let (source, target) = (made.file.clone(), self.root.join(key.file()));
        let bytes = spawn_blocking(move || keep(&source, &target)).await.map_err(|_| ending())??;
        drop(made);
        self.spoken().insert(&self.root, key, bytes);
        Ok(key.file())
    }

    /// Forgets a file that turned out not to be there.
    pub(super) fn forget(&self, file: &Path) {
        self.spoken().forget(file);
    }

    /// Runs the program to its end.
    async fn render(&self, command: &[String], voice: &str, text: &str) -> Result<Made, TtsError> {
        let work = self.root.join(WORK);
        let directory = spawn_blocking(move || {
            std::fs::create_dir_all(&work)?;
            tempfile::Builder::new().prefix("render-").tempdir_in(&work)
        });
        let directory =
            directory.await.map_err(|_| ending())?.map_err(TtsError::io("make a directory to render in"))?;
        let made = Made { file: directory.path().join("speech.wav"), directory };
        let mut program = Program::start(command, voice, text, &made)?;
        let by_input = !command.iter().any(|argument| argument.contains(TEXT));
        let ran = program.run(if by_input { text } else { "" });
        let (status, complaint) = match tokio::time::timeout(self.time_limit, ran).await {
            Err(_) => {
                program.kill().await;
                return Err(TtsError::TimedOut(self.time_limit));
            }
            Ok(ran) => ran.map_err(TtsError::io("wait for the text-to-speech program"))?,
        };
        let too_large = std::fs::symlink_metadata(&made.file).is_ok_and(|file| file.len() > OUTPUT_BYTES_MAX);
        if too_large {
            return Err(TtsError::OutputTooLarge);
        }
        if !status.success() {
            return Err(TtsError::Rejected(format!("{status}: {complaint}")));
        }
        Ok(made)
    }

    fn hit(&self, key: &Key) -> bool {
        let held = self.spoken().hit(key);
        // Tells the next server in which order these were used. Not the time of change: that tells versions apart.
        let touch = |path: &Path| File::open(path)?.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        held && match touch(&self.root.join(key.file())) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(&key.file());
                false
            }
            Err(_) => true,
        }
    }

    fn alone(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut rendering = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        rendering.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = rendering.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        rendering.insert(*key, Arc::downgrade(&lock));
        lock
    }

    fn spoken(&self) -> MutexGuard<'_, Spoken> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a program has made, in a directory that goes with it.
struct Made {
    file: PathBuf,
    directory: TempDir,
}

/// A running program.
struct Program {
    // Goes first: the child has not been waited for then, so its number is still its own.
    group: Group,
    child: Child,
}

impl Program {
    fn start(command: &[String], voice: &str, text: &str, made: &Made) -> Result<Self, TtsError> {
        let Some((program, arguments)) = command.split_first() else { return Err(TtsError::NotInstalled) };
        let output = made.file.to_string_lossy();
        // The text last: what stands in it is not replaced again.
        let filled = |argument: &String| argument.replace(VOICE, voice).replace(OUTPUT, &output).replace(TEXT, text);
        let directory = made.directory.path();
        let child = Command::new(program)
            .args(arguments.iter().map(filled))
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", directory)
            .env("TMPDIR", directory)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(TtsError::io("start the text-to-speech program"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended already; then it needs no limits.
            let limit = Rlimit { current: Some(FILE_BYTES_MAX), maximum: Some(FILE_BYTES_MAX) };
            let _ = rustix::process::prlimit(Some(pid), Resource::Fsize, limit);
            let _ = rustix::process::setpriority_process(Some(pid), NICENESS);
        }
        Ok(Self { group: Group(pid), child })
    }

    /// Hands in the text, waits for the end. Returns the beginning of what the program complained of.
    async fn run(&mut self, text: &str) -> io::Result<(ExitStatus, String)> {
        let (stdin, stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let hand_in = async {
            if let Some(mut stdin) = stdin {
                // A program that does not want to know says so by its end.
                let _ = stdin.write_all(text.as_bytes()).await;
            }
        };
        let listen = async {
            let (mut complaint, mut piece) = (Vec::new(), [0; 256]);
            if let Some(mut stderr) = stderr {
                while let Ok(bytes @ 1..) = stderr.read(&mut piece).await {
                    let room = COMPLAINT_BYTES_MAX.saturating_sub(complaint.len());
                    complaint.extend_from_slice(&piece[..bytes.min(room)]);
                }
            }
            complaint
        };
        let ((), complaint, status) = tokio::join!(hand_in, listen, self.child.wait());
        self.group.0 = None;
        Ok((status?, String::from_utf8_lossy(&complaint).trim().to_owned()))
    }

    async fn kill(mut self) {
        drop(std::mem::replace(&mut self.group, Group(None)));
        // Whether it could be killed or had ended: it is gone.
        let _ = self.child.kill().await;
    }
}

/// A process group that is killed when it is dropped, unless its leader has been waited for.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Takes a file into the cache if it is one that can be played. Returns its size.
fn keep(source: &Path, target: &Path) -> Result<u64, TtsError> {
    let no_audio = || TtsError::Rejected("it made no audio".to_owned());
    let metadata = std::fs::symlink_metadata(source).map_err(|_| no_audio())?;
    if !metadata.is_file() {
        return Err(no_audio());
    }
    let file = File::open(source).map_err(TtsError::io("read what was rendered"))?;
    file.sync_all().map_err(TtsError::io("write what was rendered"))?;
    Decoder::new(BufReader::new(file), metadata.len(), Aim::UpTo(Rate::Full))
        .map_err(|error| TtsError::Rejected(error.to_string()))?;
    std::fs::rename(source, target).map_err(TtsError::io("keep what was rendered"))?;
    Ok(metadata.len())
}

/// What tells renderings apart: a hash of the command, the voice and the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key([u8; 32]);

impl Key {
    fn new(command: &[String], voice: &str, text: &str) -> Self {
        let mut hash = Sha256::new();
        for part in command.iter().map(String::as_str).chain([voice, text]) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    fn file(self) -> PathBuf {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        PathBuf::from(hex + ".wav")
    }

    /// The key a file was named by.
    fn of_file(name: &Path) -> Option<Self> {
        let hex = name.file_stem()?.to_str()?;
        let mut key = Self([0; 32]);
        if name.extension()? != "wav" || hex.len() != 2 * key.0.len() {
            return None;
        }
        for (byte, digits) in key.0.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        }
        (key.file() == name).then_some(key)
    }
}

/// What is kept on disk.
#[derive(Debug)]
struct Spoken {
    bytes_max: u64,
    held: HashMap<Key, Held>,
    bytes: u64,
    uses: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    last_use: u64,
}

impl Spoken {
    fn scan(root: &Path, bytes_max: u64) -> Self {
        let mut found: Vec<(SystemTime, Key, u64)> = Vec::new();
        // A directory that is not there holds nothing; what can't be looked at is no file of ours.
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let Some(key) = Key::of_file(Path::new(&entry.file_name())) else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                found.push((metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH), key, metadata.len()));
            }
        }
        found.sort_unstable_by_key(|(used, ..)| *used);
        let mut spoken = Self { bytes_max, held: HashMap::new(), bytes: 0, uses: 0 };
        for (_, key, bytes) in found {
            spoken.insert(root, key, bytes);
        }
        spoken
    }

    fn hit(&mut self, key: &Key) -> bool {
        self.uses += 1;
        let held = self.held.get_mut(key);
        held.map(|held| held.last_use = self.uses).is_some()
    }

    /// Notes a file; the least recently used others make room.
    fn insert(&mut self, root: &Path, key: Key, bytes: u64) {
        self.uses += 1;
        self.remove(&key);
        self.held.insert(key, Held { bytes, last_use: self.uses });
        self.bytes += bytes;
        // The newest is about to be played.
        while self.held.len() > 1 && (self.bytes > self.bytes_max || self.held.len() > ENTRIES_MAX) {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.last_use).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
            // Whoever plays it now has it open. One that can't be removed is found again by the next server.
            let _ = std::fs::remove_file(root.join(oldest.file()));
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key) {
            self.bytes -= held.bytes;
        }
    }

    fn forget(&mut self, file: &Path) {
        if let Some(key) = Key::of_file(file) {
            self.remove(&key);
        }
    }
}

/// The voice of a language: `en-US` becomes `en-us`.
fn voice(locale: Option<&str>) -> Result<String, TtsError> {
    let voice = locale.unwrap_or(LOCALE_DEFAULT).replace('_', "-").to_ascii_lowercase();
    let fits = voice.len() <= VOICE_BYTES_MAX
        && voice.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && voice.starts_with(|first: char| first.is_ascii_alphanumeric());
    if fits { Ok(voice) } else { Err(TtsError::Text("a language that is none; give one like en-US")) }
}

/// The command with its program's full path, if there is such a program.
fn installed(configured: Option<&[String]>) -> Option<Vec<String>> {
    let usual = || ["espeak-ng", "-v", VOICE, "-w", OUTPUT, "--stdin"].map(str::to_owned).to_vec();
    let mut command = configured.map_or_else(usual, <[String]>::to_vec);
    let program = command.first()?;
    let path = if program.starts_with('/') {
        Some(PathBuf::from(program)).filter(|path| path.is_file())
    } else {
        let search_path = std::env::var_os("PATH").unwrap_or_else(|| SEARCH_PATH.into());
        let absolute = |directory: &PathBuf| directory.is_absolute();
        std::env::split_paths(&search_path).filter(absolute).map(|at| at.join(program)).find(|path| path.is_file())
    };
    match path {
        Some(path) => command[0] = path.to_string_lossy().into_owned(),
        None if configured.is_some() => {
            tracing::warn!(program, "the text-to-speech program is not there: no text is spoken");
            return None;
        }
        None => return None,
    }
    Some(command)
}

fn ending() -> TtsError {
    TtsError::Io { action: "render", source: Arc::new(io::Error::other("the server is ending")) }
}

const TEXT: &str = "{text}";
const VOICE: &str = "{voice}";
const OUTPUT: &str = "{output}";
/// Where programs find their programs.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Directories of running programs, below the root.
const WORK: &str = "work";
const VOICE_BYTES_MAX: usize = 32;
