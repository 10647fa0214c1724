//! Mailboxes: how files become messages, and what clients are told of them.
//!
//! ```text
//!  <state>/voicemail/USER/*.wav          every few seconds ──┐
//!                                                            ├──▶ <audio root>/voicemail/USER/HASH.wav, a row in the
//!  <recordings>/voicemail/USER/*.wav     when one has ended ─┘    database, messages to whoever is subscribed
//! ```
//!
//! A crash at any point loses nothing and doubles nothing: what a file is called below the audio root follows from
//! the file it was, so that one that was taken in already is known again; and a file is marked with `.deleted` before
//! its row goes, so that [`reconcile`] can tell whether its row is still to go.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::session::{Session, Topic};
use crate::files::{manifest_of, wav_duration};
use crate::store::voicemail::{Message, MessageId, MessageKind, NewMessage};

/// Mailboxes are in directories of this name.
pub(super) const DIRECTORY: &str = "voicemail";

/// A file that is to become a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// Whose mailbox.
    pub(super) user: String,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// Why a file did not become a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NotTaken {
    /// It never will.
    Never(String),
    /// The disk does not let it: perhaps later.
    NotNow(String),
}

/// What a crash left, and what was found wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reconciled {
    /// Files whose deletion was not carried out.
    pub(super) restored: usize,
    /// Files whose deletion was carried out now, and halves of files.
    pub(super) removed: usize,
    /// Messages whose file is gone.
    pub(super) missing: usize,
    /// Files that are nobody's message; they are left alone.
    pub(super) unknown: usize,
}

/// The files in the mailboxes below `root` that nobody has written to for `rest`, some of each mailbox. Waits for the
/// disk.
pub(super) fn scan(root: &Path, users: &HashSet<String>, rest: Duration) -> Vec<Found> {
    let mut found = Vec::new();
    for mailbox in entries(root) {
        let Some(user) = mailbox.file_name().and_then(OsStr::to_str).filter(|user| users.contains(*user)) else {
            continue;
        };
        let at_rest = |metadata: &Metadata| {
            let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            // A time to come is no time at which it was written to.
            metadata.is_file() && age.is_none_or(|age| age >= rest)
        };
        let is_due = |path: &PathBuf| {
            let hidden = path.file_name().is_none_or(|name| name.as_bytes().starts_with(b"."));
            !hidden && kind_of(path).is_some() && fs::symlink_metadata(path).is_ok_and(|file| at_rest(&file))
        };
        let files = entries(&mailbox).into_iter().filter(is_due).take(FILES_OF_MAILBOX_MAX);
        found.extend(files.map(|path| Found { user: user.to_owned(), path }));
    }
    found
}

/// The mailbox a recording lies in, if it lies in one below `root`.
pub(super) fn of_recording(root: &Path, path: &Path) -> Option<Found> {
    let mut parts = path.strip_prefix(root).ok()?.components();
    let user = match parts.next()? {
        Component::Normal(user) => user.to_str()?.to_owned(),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => return None,
    };
    parts.next()?;
    (parts.next().is_none() && kind_of(path).is_some()).then(|| Found { user, path: path.to_owned() })
}

/// Puts a copy of a found file below the audio root, under a name that is its own. Waits for the disk.
///
/// # Errors
/// [`NotTaken`]; nothing was left below the audio root then.
pub(super) fn take_in(audio_root: &Path, found: &Found) -> Result<NewMessage, NotTaken> {
    let never = |reason: &str| NotTaken::Never(reason.to_owned());
    let not_now = |error: io::Error| NotTaken::NotNow(error.to_string());
    let (kind, mime_type) = kind_of(&found.path).ok_or_else(|| never("no WAV, TIFF or PDF file"))?;
    let name = found.path.file_name().and_then(OsStr::to_str);
    let file_name = name.ok_or_else(|| never("its name is not UTF-8"))?.to_owned();
    // Not through a link, whoever puts one there between two looks.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&found.path, flags, Mode::empty());
    let mut original = File::from(opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => never("a symbolic link"),
        rustix::io::Errno::ACCESS => never("this user may not read it"),
        error => not_now(error.into()),
    })?);
    let metadata = original.metadata().map_err(not_now)?;
    if !metadata.is_file() {
        return Err(never("no file"));
    }
    let extension = extension_of(&found.path).unwrap_or_default();
    let file = format!("{DIRECTORY}/{}/{}.{extension}", found.user, own_name(&found.path, &metadata));
    let target = audio_root.join(&file);
    place(&mut original, &metadata, &found.path, &target).map_err(not_now)?;
    let duration = match kind {
        MessageKind::Voicemail => wav_duration(&target).map_err(|reason| {
            // It is no message; if it can't be removed it is told at the next start.
            let _ = fs::remove_file(&target);
            NotTaken::Never(reason)
        })?,
        MessageKind::Fax => Duration::ZERO,
    };
    let modified = metadata.modified();
    let received_at = modified.ok().and_then(|at| Timestamp::try_from(at).ok()).unwrap_or_else(Timestamp::now);
    let subject = match kind {
        MessageKind::Voicemail => format!("Voicemail ({} s)", duration.as_secs_f64().round()),
        MessageKind::Fax => "Fax".to_owned(),
    };
    Ok(NewMessage {
        mailbox: found.user.clone(),
        kind,
        sender: sender_of(&file_name),
        subject,
        received_at,
        duration,
        file,
        file_name,
        mime_type: mime_type.to_owned(),
    })
}

/// Moves a file out of the way that can't become a message, so that it is looked at once, and with a recording its
/// manifest. No file is overwritten.
pub(super) fn put_aside(path: &Path, is_recording: bool) -> io::Result<()> {
    let names = (1..=PUT_ASIDE_MAX).map(|number| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { ".refused".to_owned() } else { format!(".{number}.refused") });
        PathBuf::from(name)
    });
    // A name may be as long as names can be already.
    let own = fs::symlink_metadata(path).map(|metadata| own_name(path, &metadata))?;
    let short = path.with_file_name(format!("{own}.refused"));
    let free = names.chain([short]).find(|name| {
        // Too long is not free.
        fs::symlink_metadata(name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    });
    let free = free.ok_or(io::ErrorKind::AlreadyExists)?;
    if is_recording {
        // So that its name is free again.
        match fs::rename(manifest_of(path), manifest_of(&free)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, free)
}

/// Removes a file that has become a message. The manifest of a recording goes first: a recording without one is still
/// known again, a manifest alone would keep its name from being used.
pub(super) fn remove_original(path: &Path, is_recording: bool) -> io::Result<()> {
    if is_recording {
        match fs::remove_file(manifest_of(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::remove_file(path)
}

/// Marks a message's file as one whose row is about to go; whether it was there. Waits for the disk.
pub(super) fn mark_deleted(file: &Path) -> bool {
    fs::rename(file, deleted(file)).is_ok()
}

/// Undoes [`mark_deleted`].
pub(super) fn unmark_deleted(file: &Path) -> io::Result<()> {
    fs::rename(deleted(file), file)
}

/// What [`mark_deleted`] calls a file.
pub(super) fn deleted(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(DELETED);
    name.into()
}

/// Makes the disk agree with the database again, whose messages have the files `known`. Waits for the disk.
pub(super) fn reconcile(audio_root: &Path, known: &HashSet<String>) -> Reconciled {
    let mut done = Reconciled::default();
    let files = entries(&audio_root.join(DIRECTORY)).into_iter().flat_map(|mailbox| entries(&mailbox));
    for path in files {
        let Some(name) = path.strip_prefix(audio_root).ok().and_then(Path::to_str) else {
            done.unknown += 1;
            continue;
        };
        if let Some(original) = name.strip_suffix(DELETED) {
            let original_path = audio_root.join(original);
            if known.contains(original) && !original_path.exists() {
                done.restored += usize::from(fs::rename(&path, original_path).is_ok());
            } else {
                done.removed += usize::from(fs::remove_file(&path).is_ok());
            }
        } else if name.ends_with(PART) {
            done.removed += usize::from(fs::remove_file(&path).is_ok());
        } else if !known.contains(name) {
            done.unknown += 1;
        }
    }
    done.missing = known.iter().filter(|file| !audio_root.join(file).is_file()).count();
    done
}

/// The full message of a topic's subscription.
pub(super) fn all_of(session: &Session, topic: Topic, messages: &[Message], unread: u64) -> Value {
    let list = || messages.iter().map(|message| added(session, message)).collect::<Vec<_>>();
    match topic {
        Topic::Voicemail => {
            json!({"__type": VOICEMAIL_MESSAGES, "isDelta": false, "voicemailMessagesAdded": list()})
        }
        Topic::Fax => json!({"__type": FAX_MESSAGES, "isDelta": false, "faxMessagesAdded": list()}),
        Topic::Waiting => json!({"__type": MWI, "isDelta": false, "messagesWaiting": unread}),
    }
}

/// What is told of one message that came, changed or went.
pub(super) fn delta(session: &Session, change: &Change<'_>) -> Value {
    let (kind, member, item) = match change {
        Change::Added(message) => (message.content.kind, "Added", added(session, message)),
        Change::Read(message) => {
            let read = json!({
                "__type": format!("{NAMESPACE}{}Message", word(message.content.kind)),
                "unifiedMessageId": message.id.to_string(),
                "state": i32::from(message.read),
            });
            (message.content.kind, "Changed", read)
        }
        Change::Removed(message) => (message.content.kind, "Removed", message.id.to_string().into()),
    };
    let (name, word) = match kind {
        MessageKind::Voicemail => (VOICEMAIL_MESSAGES, word(kind)),
        MessageKind::Fax => (FAX_MESSAGES, word(kind)),
    };
    json!({"__type": name, "isDelta": true, format!("{word}Messages{member}"): [item]})
}

/// What happened to a message.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// It came.
    Added(&'a Message),
    /// It was read, or is unread again.
    Read(&'a Message),
    /// It was deleted.
    Removed(&'a Message),
}

impl Change<'_> {
    /// The message, if it is new.
    pub(super) fn added(&self) -> Option<MessageId> {
        match self {
            Self::Added(message) => Some(message.id),
            Self::Read(_) | Self::Removed(_) => None,
        }
    }

    /// Who is told.
    pub(super) fn topic(&self) -> Topic {
        let (Self::Added(message) | Self::Read(message) | Self::Removed(message)) = self;
        topic_of(message.content.kind)
    }
}

/// A point in time as clients read it.
pub(super) fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The kind of messages a topic lists.
pub(super) fn kind_of_topic(topic: Topic) -> Option<MessageKind> {
    match topic {
        Topic::Voicemail => Some(MessageKind::Voicemail),
        Topic::Fax => Some(MessageKind::Fax),
        Topic::Waiting => None,
    }
}

/// The last part of the address a message's file is fetched from.
pub(super) fn address_of(message: &Message) -> String {
    let extension = extension_of(Path::new(&message.content.file)).unwrap_or_default();
    format!("{}.{extension}", message.id)
}

fn topic_of(kind: MessageKind) -> Topic {
    match kind {
        MessageKind::Voicemail => Topic::Voicemail,
        MessageKind::Fax => Topic::Fax,
    }
}

fn added(session: &Session, message: &Message) -> Value {
    let content = &message.content;
    json!({
        "__type": format!("{NAMESPACE}{}MessageAdded", word(content.kind)),
        "unifiedMessageId": message.id.to_string(),
        "state": i32::from(message.read),
        "dateReceived": utc(content.received_at),
        "from": content.sender,
        "subject": content.subject,
        "attachments": [{
            "fileUri": format!("/icws/{}/files/{}", session.id, address_of(message)),
            "fileName": content.file_name,
            "mimeType": content.mime_type,
        }],
    })
}

fn word(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Voicemail => "voicemail",
        MessageKind::Fax => "fax",
    }
}

/// Who left it: what stands before the first `_` of a file's name, or before its extension.
fn sender_of(file_name: &str) -> String {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    let sender = stem.split('_').next().unwrap_or_default();
    if sender.is_empty() { "unknown".to_owned() } else { sender.chars().take(SENDER_CHARS_MAX).collect() }
}

fn extension_of(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

fn kind_of(path: &Path) -> Option<(MessageKind, &'static str)> {
    match extension_of(path)?.as_str() {
        "wav" => Some((MessageKind::Voicemail, "audio/wav")),
        "tif" | "tiff" => Some((MessageKind::Fax, "image/tiff")),
        "pdf" => Some((MessageKind::Fax, "application/pdf")),
        _ => None,
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    // A directory that is not there is empty.
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// What a file is called below the audio root: always the same for the same file.
fn own_name(path: &Path, metadata: &Metadata) -> String {
    let mut hash = Sha256::new();
    for number in [metadata.dev(), metadata.ino(), metadata.len()] {
        hash.update(number.to_be_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        hash.update(number.to_be_bytes());
    }
    hash.update(path.as_os_str().as_bytes());
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A second name for a file, or a copy where that can't be; on the disk when this returns.
fn place(original: &mut File, metadata: &Metadata, from: &Path, to: &Path) -> io::Result<()> {
    let directory = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let is_placed = |to: &Path| {
        fs::symlink_metadata(to).is_ok_and(|placed| (placed.dev(), placed.ino()) == (metadata.dev(), metadata.ino()))
    };
    let is_own = fs::hard_link(from, to).is_ok() || is_placed(to);
    // The name may stand for another file by now; and who owns a file may write to it and let others read it.
    if is_own && (!is_placed(to) || original.set_permissions(Permissions::from_mode(FILE_MODE)).is_err()) {
        fs::remove_file(to)?;
    }
    if is_placed(to) {
        original.sync_all()?;
    } else {
        let mut part = to.as_os_str().to_owned();
        part.push(PART);
        let part = PathBuf::from(part);
        // What a crash left there may have another mode.
        let _ = fs::remove_file(&part);
        let created = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&part);
        let copied = created.and_then(|mut copy| {
            io::copy(original, &mut copy)?;
            copy.sync_all()?;
            fs::rename(&part, to)
        });
        copied.inspect_err(|_| {
            // Half a file is no message; there may be none at all.
            let _ = fs::remove_file(&part);
        })?;
    }
    File::open(directory)?.sync_all()
}

const NAMESPACE: &str = "urn:inin.com:unifiedMessaging:";
const VOICEMAIL_MESSAGES: &str = "urn:inin.com:unifiedMessaging:voicemailMessagesMessage";
const FAX_MESSAGES: &str = "urn:inin.com:unifiedMessaging:faxMessagesMessage";
const MWI: &str = "urn:inin.com:unifiedMessaging:mwiMessage";
/// Messages are for the server and its group, as recordings are.
const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// What a file is called in addition while its message is being deleted.
const DELETED: &str = ".deleted";
/// What a file is called in addition while it is being copied.
const PART: &str = ".part";
/// Files of one mailbox taken in at one go.
pub(super) const FILES_OF_MAILBOX_MAX: usize = 100;
/// Files of the same name that are put aside.
const PUT_ASIDE_MAX: usize = 100;
/// Longest sender.
const SENDER_CHARS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_known_users_are_found_when_they_are_at_rest() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            path
        };
        let wanted = [write("anna/1.WAV"), write("anna/2.tif")];
        for other in ["anna/.3.wav", "anna/4.txt", "anna/deep/5.wav", "nobody/6.wav", "7.wav", "anna/8.wav.refused"] {
            write(other);
        }
        std::os::unix::fs::symlink(&wanted[0], root.path().join("anna/9.wav")).unwrap();
        let users = HashSet::from(["anna".to_owned()]);
        let found = |rest| scan(root.path(), &users, rest).into_iter().map(|found| found.path).collect::<Vec<_>>();
        assert_eq!(found(Duration::ZERO), wanted);
        assert!(found(Duration::from_secs(3600)).is_empty(), "somebody may still write to them");
    }

    #[test]
    fn recordings_in_a_mailbox_are_told_from_others() {
        let root = Path::new("/r/voicemail");
        let found = of_recording(root, Path::new("/r/voicemail/anna/4711_1.wav")).unwrap();
        assert_eq!(found.user, "anna");
        for other in ["/r/4711.wav", "/r/voicemail/4711.wav", "/r/voicemail/anna/deep/1.wav", "/r/voicemail/anna/1.vox"]
        {
            assert_eq!(of_recording(root, Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn senders_stand_in_the_name() {
        for (name, sender) in
            [("+4930111222_1.wav", "+4930111222"), ("7001.wav", "7001"), ("_x.wav", "unknown"), ("a b.c.wav", "a b.c")]
        {
            assert_eq!(sender_of(name), sender, "{name}");
        }
    }

    #[test]
    fn a_file_that_can_not_be_played_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("1.wav");
        fs::write(&path, "this is no WAV file").unwrap();
        let found = Found { user: "anna".to_owned(), path: path.clone() };
        let audio = root.path().join("audio");
        let NotTaken::Never(refused) = take_in(&audio, &found).unwrap_err() else { panic!("never") };
        assert!(refused.contains("not a WAV file"), "{refused}");
        assert!(entries(&audio.join("voicemail/anna")).is_empty(), "nothing is left there");
        put_aside(&path, false).unwrap();
        assert!(root.path().join("1.wav.refused").exists());
        // Once more: the one before is not lost.
        fs::write(&path, "another one").unwrap();
        put_aside(&path, false).unwrap();
        assert_eq!(fs::read(root.path().join("1.wav.refused")).unwrap(), b"this is no WAV file");
        assert_eq!(fs::read(root.path().join("1.wav.2.refused")).unwrap(), b"another one");
        // A name that can't be longer.
        let long = root.path().join(format!("{}.wav", "x".repeat(251)));
        fs::write(&long, "x").unwrap();
        put_aside(&long, false).unwrap();
        assert!(!long.exists());
        assert_eq!(entries(root.path()).iter().filter(|path| kind_of(path).is_none()).count(), 4, "and the directory");
    }

    fn wav(path: &Path) {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec).unwrap();
        (0..8000_i16).for_each(|sample| writer.write_sample(sample).unwrap());
        writer.finalize().unwrap();
    }

    #[test]
    fn a_file_is_taken_in_once_whatever_happens_in_between() {
        let root = tempfile::tempdir().unwrap();
        let (path, audio) = (root.path().join("+49_1.wav"), root.path().join("audio"));
        wav(&path);
        let found = Found { user: "anna".to_owned(), path: path.clone() };
        let first = take_in(&audio, &found).unwrap();
        assert_eq!((first.sender.as_str(), first.subject.as_str()), ("+49", "Voicemail (1 s)"));
        // A crash before its row was written, or before the original was removed.
        assert_eq!(take_in(&audio, &found).unwrap(), first);
        assert_eq!(entries(&audio.join("voicemail/anna")).len(), 1);
        // Another file of that name is another message.
        fs::remove_file(&path).unwrap();
        wav(&path);
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(take_in(&audio, &found).unwrap().file, first.file);
        // Where there can be no second name, it is a copy.
        let target = audio.join("voicemail/anna/copy.wav");
        let mut original = File::open(&path).unwrap();
        let metadata = original.metadata().unwrap();
        place(&mut original, &metadata, &root.path().join("nowhere"), &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), fs::read(&path).unwrap());
        assert!(!audio.join("voicemail/anna/copy.wav.part").exists());
    }

    #[test]
    fn no_link_and_no_name_that_is_no_text_becomes_a_message() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        wav(&secret);
        let link = root.path().join("1.wav");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let odd = root.path().join(OsStr::from_bytes(b"\xff.wav"));
        wav(&odd);
        for path in [link, odd, root.path().join("1.txt")] {
            let refused = take_in(&root.path().join("audio"), &Found { user: "anna".to_owned(), path }).unwrap_err();
            assert!(matches!(refused, NotTaken::Never(_)), "{refused:?}");
        }
        let found = Found { user: "anna".to_owned(), path: root.path().join("gone.wav") };
        assert!(matches!(take_in(root.path(), &found), Err(NotTaken::NotNow(_))));
    }

    #[test]
    fn a_crash_while_deleting_is_made_good() {
        let root = tempfile::tempdir().unwrap();
        let mailbox = root.path().join("voicemail/anna");
        fs::create_dir_all(&mailbox).unwrap();
        for name in ["kept.wav", "back.wav.deleted", "going.wav.deleted", "half.wav.part", "whose.wav"] {
            fs::write(mailbox.join(name), name).unwrap();
        }
        let known = ["kept.wav", "back.wav", "gone.wav"].map(|name| format!("voicemail/anna/{name}"));
        let done = reconcile(root.path(), &HashSet::from(known));
        assert_eq!(done, Reconciled { restored: 1, removed: 2, missing: 1, unknown: 1 });
        let left: Vec<_> = entries(&mailbox).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(left, ["back.wav", "kept.wav", "whose.wav"]);
    }

    #[test]
    fn a_recording_goes_with_its_manifest_and_nobody_else_can_read_a_message() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = root.path().join(name);
            fs::write(&path, "%PDF").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
            path
        };
        let [fax, noted, foreign] = ["1.pdf", "1.pdf.json", "2.pdf.json"].map(write);
        let found = Found { user: "anna".to_owned(), path: fax.clone() };
        let audio_root = root.path().join("audio");
        let taken = audio_root.join(take_in(&audio_root, &found).unwrap().file);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&taken), mode(taken.parent().unwrap()) & !DIRECTORY_MODE), (FILE_MODE, 0));
        remove_original(&fax, true).unwrap();
        assert!(taken.exists() && !fax.exists() && !noted.exists());
        // A recording without one; and what is dropped beside a file that is none stays.
        remove_original(&write("1.pdf"), true).unwrap();
        remove_original(&write("2.pdf"), false).unwrap();
        assert!(foreign.exists());
    }
}
