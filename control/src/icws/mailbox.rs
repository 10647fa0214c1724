//! Mailboxes: how files become messages, and what clients are told of them.
//!
//! ```text
//!  <state>/voicemail/USER/*.wav          every few seconds ──┐
//!                                                            ├──▶ <audio root>/voicemail/USER/GUID.wav, a row in the
//!  <recordings>/voicemail/USER/*.wav     when one has ended ─┘    database, messages to whoever is subscribed
//! ```

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::session::{Session, Topic};
use crate::auth::tokens::random_guid;
use crate::files::wav_duration;
use crate::store::voicemail::{Message, MessageKind, NewMessage};

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

/// The files in the mailboxes below `root` that nobody has written to for `rest`. Waits for the disk.
pub(super) fn scan(root: &Path, users: &HashSet<String>, rest: Duration) -> Vec<Found> {
    let mut found = Vec::new();
    for mailbox in entries(root) {
        let Some(user) = mailbox.file_name().and_then(OsStr::to_str).filter(|user| users.contains(*user)) else {
            continue;
        };
        for path in entries(&mailbox) {
            if found.len() >= FILES_AT_ONCE_MAX {
                return found;
            }
            let hidden = path.file_name().and_then(OsStr::to_str).is_none_or(|name| name.starts_with('.'));
            let at_rest = |metadata: &Metadata| {
                let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
                // A time to come is no time at which it was written to.
                metadata.is_file() && age.is_none_or(|age| age >= rest)
            };
            if !hidden && kind_of(&path).is_some() && fs::symlink_metadata(&path).is_ok_and(|file| at_rest(&file)) {
                found.push(Found { user: user.to_owned(), path });
            }
        }
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

/// Puts a copy of a found file below the audio root, under a name of its own. Waits for the disk.
pub(super) fn take_in(audio_root: &Path, found: &Found) -> Result<NewMessage, String> {
    let (kind, mime_type) = kind_of(&found.path).ok_or("no WAV, TIFF or PDF file")?;
    let file_name = found.path.file_name().and_then(OsStr::to_str).ok_or("its name is no text")?.to_owned();
    let duration = match kind {
        MessageKind::Voicemail => wav_duration(&found.path)?,
        MessageKind::Fax => Duration::ZERO,
    };
    let modified = fs::metadata(&found.path).and_then(|metadata| metadata.modified());
    let received_at = modified.ok().and_then(|at| Timestamp::try_from(at).ok()).unwrap_or_else(Timestamp::now);
    let subject = match kind {
        MessageKind::Voicemail => format!("Voicemail ({} s)", duration.as_secs_f64().round()),
        MessageKind::Fax => "Fax".to_owned(),
    };
    let extension = extension_of(&found.path).unwrap_or_default();
    let file = format!("{DIRECTORY}/{}/{}.{extension}", found.user, random_guid());
    place(&found.path, &audio_root.join(&file)).map_err(|error| error.to_string())?;
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

/// Moves a file out of the way that can't become a message, so that it is looked at once.
pub(super) fn put_aside(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".refused");
    fs::rename(path, name)
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

/// A second name for a file, or a copy where that can't be.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let copied = fs::copy(from, to).map(drop);
    copied.inspect_err(|_| {
        // Half a file is no message; there may be none at all.
        let _ = fs::remove_file(to);
    })
}

const NAMESPACE: &str = "urn:inin.com:unifiedMessaging:";
const VOICEMAIL_MESSAGES: &str = "urn:inin.com:unifiedMessaging:voicemailMessagesMessage";
const FAX_MESSAGES: &str = "urn:inin.com:unifiedMessaging:faxMessagesMessage";
const MWI: &str = "urn:inin.com:unifiedMessaging:mwiMessage";
/// Files taken in at one go.
const FILES_AT_ONCE_MAX: usize = 100;
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
        let refused = take_in(&root.path().join("audio"), &found).unwrap_err();
        assert!(refused.contains("not a WAV file"), "{refused}");
        put_aside(&path).unwrap();
        assert!(root.path().join("1.wav.refused").exists());
    }
}
