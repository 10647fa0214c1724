//! Messages in users' mailboxes, as ICWS shows them.
//!
//! A row names its file; making and deleting files is the caller's. A file is there before its row, and marked as
//! deleted before its row goes, so that after a crash it can be told which of the two was meant to stay.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::error::is_dangling;
use super::{StoreError, all, first, timestamp, transaction, word};

/// What a message is called towards clients: `vm-17`. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(i64);

/// A message to be put into a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMessage {
    /// Whose mailbox: a user's name.
    pub mailbox: String,
    /// What it is.
    pub kind: MessageKind,
    /// Number or address of whoever left it.
    pub sender: String,
    /// What is shown of it.
    pub subject: String,
    /// When it was left.
    pub received_at: Timestamp,
    /// How long it is; zero for a fax.
    pub duration: Duration,
    /// Where its file is, below the audio root.
    pub file: String,
    /// What its file is called towards clients.
    pub file_name: String,
    /// What its file holds.
    pub mime_type: String,
}

/// A message in a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Which.
    pub id: MessageId,
    /// Whether it was read, or heard.
    pub read: bool,
    /// Everything else, which does not change.
    pub content: NewMessage,
}

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessageKind {
    /// Audio.
    Voicemail,
    /// Pages.
    Fax,
}

/// Puts a message into a mailbox, unread.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such user.
pub fn add(connection: &Connection, message: &NewMessage) -> Result<MessageId, StoreError> {
    let sql = "INSERT INTO voicemail_messages (mailbox, kind, sender, subject, received_at, duration_ms, read, file, \
               file_name, mime_type) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9)";
    let row = params![
        message.mailbox,
        message.kind.to_string(),
        message.sender,
        message.subject,
        message.received_at.as_millisecond(),
        i64::try_from(message.duration.as_millis()).unwrap_or(i64::MAX),
        message.file,
        message.file_name,
        message.mime_type,
    ];
    match connection.execute(sql, row) {
        Ok(_) => Ok(MessageId(connection.last_insert_rowid())),
        Err(error) if is_dangling(&error) => Err(StoreError::NotFound { what: "user", id: message.mailbox.clone() }),
        Err(error) => Err(error.into()),
    }
}

/// Puts a message into a mailbox, unless one with that file is there already: `None`.
///
/// # Errors
/// As [`add`].
pub fn add_once(connection: &mut Connection, message: &NewMessage) -> Result<Option<MessageId>, StoreError> {
    transaction(connection, |connection| {
        let sql = "SELECT 1 FROM voicemail_messages WHERE mailbox = ?1 AND file = ?2";
        let known = first(connection, sql, params![message.mailbox, message.file], |_| Ok(()))?;
        if known.is_some() { Ok(None) } else { add(connection, message).map(Some) }
    })
}

/// The latest message there is in any mailbox: all that come later have higher ids.
///
/// # Errors
/// The database fails.
pub fn latest(connection: &Connection) -> Result<Option<MessageId>, StoreError> {
    let latest: Option<i64> = connection.query_row("SELECT max(id) FROM voicemail_messages", [], |row| row.get(0))?;
    Ok(latest.map(MessageId))
}

/// The files of all messages, below the audio root.
///
/// # Errors
/// The database fails.
pub fn files(connection: &Connection) -> Result<HashSet<String>, StoreError> {
    let files = all(connection, "SELECT file FROM voicemail_messages", [], |row| row.get(0))?;
    Ok(files.into_iter().collect())
}

/// A message of a mailbox. Those of others are not found.
///
/// # Errors
/// The database fails.
pub fn find(connection: &Connection, mailbox: &str, id: MessageId) -> Result<Option<Message>, StoreError> {
    first(connection, "SELECT * FROM voicemail_messages WHERE id = ?1 AND mailbox = ?2", params![id.0, mailbox], read)
}

/// The messages of one kind in a mailbox, oldest first, `limit` at most: the latest ones.
///
/// # Errors
/// The database fails.
pub fn list_mailbox(
    connection: &Connection,
    mailbox: &str,
    kind: MessageKind,
    limit: u32,
) -> Result<Vec<Message>, StoreError> {
    let sql = "SELECT * FROM voicemail_messages WHERE mailbox = ?1 AND kind = ?2 \
               ORDER BY received_at DESC, id DESC LIMIT ?3";
    let mut messages = all(connection, sql, params![mailbox, kind.to_string(), limit], read)?;
    messages.reverse();
    Ok(messages)
}

/// How many messages of a mailbox are unread.
///
/// # Errors
/// The database fails.
pub fn unread(connection: &Connection, mailbox: &str) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM voicemail_messages WHERE mailbox = ?1 AND read = 0";
    let count: i64 = connection.query_row(sql, [mailbox], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Marks a message as read or unread; whether that changed it.
///
/// # Errors
/// [`StoreError::NotFound`] if it is not in that mailbox.
pub fn set_read(connection: &mut Connection, mailbox: &str, id: MessageId, read: bool) -> Result<bool, StoreError> {
    transaction(connection, |connection| {
        let message = find(connection, mailbox, id)?.ok_or_else(|| missing(id))?;
        connection.execute("UPDATE voicemail_messages SET read = ?2 WHERE id = ?1", params![id.0, read])?;
        Ok(message.read != read)
    })
}

/// Removes a message from a mailbox, and returns it: its file is to be deleted.
///
/// # Errors
/// [`StoreError::NotFound`] if it is not in that mailbox.
pub fn remove(connection: &mut Connection, mailbox: &str, id: MessageId) -> Result<Message, StoreError> {
    transaction(connection, |connection| {
        let message = find(connection, mailbox, id)?.ok_or_else(|| missing(id))?;
        connection.execute("DELETE FROM voicemail_messages WHERE id = ?1", [id.0])?;
        Ok(message)
    })
}

fn missing(id: MessageId) -> StoreError {
    StoreError::NotFound { what: "message", id: id.to_string() }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Message> {
    let duration_ms: i64 = row.get("duration_ms")?;
    Ok(Message {
        id: MessageId(row.get("id")?),
        read: row.get("read")?,
        content: NewMessage {
            mailbox: row.get("mailbox")?,
            kind: word(row, "kind")?,
            sender: row.get("sender")?,
            subject: row.get("subject")?,
            received_at: timestamp(row, "received_at")?,
            duration: Duration::from_millis(u64::try_from(duration_ms).unwrap_or_default()),
            file: row.get("file")?,
            file_name: row.get("file_name")?,
            mime_type: row.get("mime_type")?,
        },
    })
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm-{}", self.0)
    }
}

impl FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("vm-").and_then(|digits| digits.parse().ok());
        // One message has one name: no sign, no leading zero.
        number
            .map(Self)
            .filter(|id| id.0 > 0 && id.to_string() == text)
            .ok_or_else(|| format!("`{text}` is no message"))
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voicemail => "voicemail",
            Self::Fax => "fax",
        })
    }
}

impl FromStr for MessageKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = [Self::Voicemail, Self::Fax].into_iter().find(|kind| kind.to_string() == text);
        kind.ok_or_else(|| format!("`{text}` is no kind of message"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, database, hash};
    use super::super::users::{self, User};
    use super::*;

    fn message(mailbox: &str, kind: MessageKind, second: i64) -> NewMessage {
        NewMessage {
            mailbox: mailbox.to_owned(),
            kind,
            sender: "+4930111222".to_owned(),
            subject: "Voicemail (12 s)".to_owned(),
            received_at: at(second),
            duration: Duration::from_millis(12_345),
            file: "voicemail/anna/1.wav".to_owned(),
            file_name: "1.wav".to_owned(),
            mime_type: "audio/wav".to_owned(),
        }
    }

    fn mailboxes() -> (tempfile::TempDir, Connection) {
        let (dir, connection) = database();
        for name in ["anna", "berta"] {
            users::add(&connection, &User::new(name, hash("x")), at(0)).unwrap();
        }
        (dir, connection)
    }

    #[test]
    fn a_message_is_left_read_and_removed() {
        let (_dir, mut connection) = mailboxes();
        let content = message("anna", MessageKind::Voicemail, 10);
        let id = add(&connection, &content).unwrap();
        assert_eq!(find(&connection, "anna", id).unwrap(), Some(Message { id, read: false, content: content.clone() }));
        assert_eq!(unread(&connection, "anna").unwrap(), 1);
        assert!(set_read(&mut connection, "anna", id, true).unwrap());
        assert!(!set_read(&mut connection, "anna", id, true).unwrap());
        assert_eq!(unread(&connection, "anna").unwrap(), 0);
        let removed = remove(&mut connection, "anna", id).unwrap();
        assert_eq!(removed, Message { id, read: true, content });
        assert!(matches!(remove(&mut connection, "anna", id), Err(StoreError::NotFound { what: "message", .. })));
        assert!(add(&connection, &message("anna", MessageKind::Fax, 1)).unwrap() > id, "no id is used twice");
    }

    #[test]
    fn a_file_is_one_message() {
        let (_dir, mut connection) = mailboxes();
        assert_eq!(latest(&connection).unwrap(), None);
        let content = message("anna", MessageKind::Voicemail, 10);
        let id = add_once(&mut connection, &content).unwrap();
        assert!(id.is_some());
        assert_eq!(add_once(&mut connection, &content).unwrap(), None);
        assert_eq!(latest(&connection).unwrap(), id);
        assert_eq!(files(&connection).unwrap(), HashSet::from([content.file.clone()]));
        let nobody = NewMessage { mailbox: "nobody".to_owned(), ..content };
        assert!(matches!(add_once(&mut connection, &nobody), Err(StoreError::NotFound { what: "user", .. })));
    }

    #[test]
    fn a_mailbox_is_its_users_alone() {
        let (_dir, mut connection) = mailboxes();
        let id = add(&connection, &message("anna", MessageKind::Voicemail, 10)).unwrap();
        assert_eq!(find(&connection, "berta", id).unwrap(), None);
        assert!(matches!(set_read(&mut connection, "berta", id, true), Err(StoreError::NotFound { .. })));
        assert!(matches!(remove(&mut connection, "berta", id), Err(StoreError::NotFound { .. })));
        let nobody = add(&connection, &message("nobody", MessageKind::Voicemail, 1));
        assert!(matches!(nobody, Err(StoreError::NotFound { what: "user", .. })));
        let refused = users::remove(&connection, "anna").unwrap_err();
        assert!(refused.to_string().contains("holds messages"), "{refused}");
        remove(&mut connection, "anna", id).unwrap();
        users::remove(&connection, "anna").unwrap();
    }

    #[test]
    fn lists_are_by_kind_oldest_first_and_bounded() {
        let (_dir, connection) = mailboxes();
        let ids: Vec<MessageId> = [30, 10, 20]
            .map(|second| add(&connection, &message("anna", MessageKind::Voicemail, second)).unwrap())
            .to_vec();
        add(&connection, &message("anna", MessageKind::Fax, 15)).unwrap();
        let list = |limit| {
            let messages = list_mailbox(&connection, "anna", MessageKind::Voicemail, limit).unwrap();
            messages.into_iter().map(|message| message.id).collect::<Vec<_>>()
        };
        assert_eq!(list(10), [ids[1], ids[2], ids[0]]);
        assert_eq!(list(2), [ids[2], ids[0]]);
        assert_eq!(list_mailbox(&connection, "berta", MessageKind::Voicemail, 10).unwrap(), []);
    }

    #[test]
    fn ids_have_one_form() {
        assert_eq!("vm-17".parse(), Ok(MessageId(17)));
        for wrong in ["", "17", "vm-", "vm-0", "vm-017", "vm-+1", "vm--1", "VM-1", "vm-99999999999999999999"] {
            wrong.parse::<MessageId>().unwrap_err();
        }
    }
}
