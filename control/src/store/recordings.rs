//! Recorded calls, as the Verba API shows them: who with whom, when, which files, what was muted, what is missing.
//!
//! ```text
//!            begin              finish                       forget (once the files are gone)
//!   none ────────────▶ ongoing ────────▶ finished ──discard──▶ discarded ────────▶ none
//!                         └─ on demand and not kept, or to be deleted ─────▲
//! ```
//!
//! A discarded recording is found by nobody any more. Its row stays until its files are deleted, so that a crash in
//! between leaves no audio behind: [`discarded`] lists what is still to be done.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, Row, ToSql, params, params_from_iter};

use super::error::{is_conflict, is_dangling};
use super::{StoreError, all, first, optional_timestamp, timestamp, transaction, word};

/// What is known of a call when its recording begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRecording {
    /// A GUID: the `ccdr_id`.
    pub id: String,
    /// Who called.
    pub caller: Party,
    /// Who was called.
    pub called: Party,
    /// When the recording began.
    pub started_at: Timestamp,
    /// Whether it is thrown away at its end unless somebody keeps it.
    pub on_demand: bool,
    /// Whether more than two take part.
    pub conference: bool,
    /// Whether another recording of the same call is the first one.
    pub secondary: bool,
    /// Whether it may never be deleted.
    pub do_not_delete: bool,
    /// What other systems call it, and figures of theirs.
    pub details: Details,
}

/// One side of a call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Party {
    /// As signalled: a number or a SIP address.
    pub address: String,
    /// The name, if it is known.
    pub name: Option<String>,
    /// Where its media come from, if that is known.
    pub ip: Option<String>,
}

/// What is passed on as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Details {
    /// `native_id`
    pub native_id: Option<String>,
    /// `platform_call_id`
    pub platform_call_id: Option<String>,
    /// `meeting_id`
    pub meeting_id: Option<String>,
    /// `location`
    pub location: Option<String>,
    /// `recorded_party`
    pub recorded_party: Option<String>,
    /// `audio_codec_id`
    pub audio_codec_id: Option<u32>,
    /// `direction_id`
    pub direction_id: Option<u32>,
    /// `cause_id`
    pub cause_id: Option<u32>,
    /// `signaling_id`
    pub signaling_id: Option<u32>,
}

/// A recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recording {
    /// What was known when it began.
    pub call: NewRecording,
    /// Where it stands.
    pub state: State,
    /// When it ended, and why.
    pub end: Option<(Timestamp, EndReason)>,
    /// Whether somebody wants to keep it, though it is on demand.
    pub kept: bool,
    /// Whether it is marked as recorded by hand.
    pub manual: bool,
    /// Whether it is to be deleted when it ends.
    pub delete_at_end: bool,
    /// Who is muted in it, or was at its end.
    pub muted: Muted,
}

/// Where a recording stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// It is being made.
    Ongoing,
    /// It is complete.
    Finished,
    /// It is to be deleted.
    Discarded,
}

/// Why a recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EndReason {
    /// The call ended or somebody stopped it.
    Completed,
    /// It could not be written any further.
    Failed,
    /// The server ended in the middle of it.
    Interrupted,
}

/// Who is muted in a recording.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Muted {
    /// The caller.
    pub caller: bool,
    /// The called party.
    pub called: bool,
}

/// A side of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Who called.
    Caller,
    /// Who was called.
    Called,
}

/// A span in which one side is silence in the recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MutedSpan {
    /// Whose.
    pub side: Side,
    /// From when.
    pub began_at: Timestamp,
    /// Until when; none while it lasts.
    pub ended_at: Option<Timestamp>,
    /// Name of the API key that asked for it.
    pub by: String,
}

/// A span of which nothing was recorded though it should have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// From when.
    pub began_at: Timestamp,
    /// Until when.
    pub ended_at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What to look for. Every condition has to hold; of a list any one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Search {
    /// In this state.
    pub state: State,
    /// Begun at or after this.
    pub from: Timestamp,
    /// Begun at or before this.
    pub until: Timestamp,
    /// A part of the number of either side.
    pub numbers: Vec<String>,
    /// A part of the name of either side, without regard to case (of ASCII letters).
    pub names: Vec<String>,
    /// Whether secondary recordings are wanted too.
    pub secondary: bool,
    /// How many at most; the latest ones.
    pub limit: u32,
}

/// What another system calls a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForeignId<'a> {
    /// `native_id`
    Native(&'a str),
    /// `platform_call_id`
    PlatformCall(&'a str),
    /// `meeting_id`
    Meeting(&'a str),
}

/// A number as it is compared: without spaces, hyphens, brackets, a `sip:` in front and an `@host` behind.
pub fn comparable(number: &str) -> String {
    let number = number.trim();
    let scheme = ["sips:", "sip:", "tel:"]
        .into_iter()
        .find(|scheme| number.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let number = &number[scheme.map_or(0, str::len)..];
    let number = number.split(['@', ';']).next().unwrap_or_default();
    number.chars().filter(|char| !matches!(char, ' ' | '-' | '(' | ')' | '[' | ']' | '\t')).collect()
}

/// Begins a recording: it is ongoing from now on.
///
/// # Errors
/// [`StoreError::Exists`] if the id is taken.
pub fn begin(connection: &Connection, new: &NewRecording) -> Result<(), StoreError> {
    let sql = "INSERT INTO recordings (id, state, started_at, caller, caller_number, caller_name, caller_ip, called, \
               called_number, called_name, called_ip, native_id, platform_call_id, meeting_id, location, \
               recorded_party, audio_codec_id, direction_id, cause_id, signaling_id, conference, secondary, on_demand, \
               kept, manual, do_not_delete, delete_at_end, caller_muted, called_muted) VALUES (?1, 'ongoing', ?2, ?3, \
               ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, 0, 0, ?23, 0, \
               0, 0)";
    let details = &new.details;
    let row = params![
        new.id,
        new.started_at.as_millisecond(),
        new.caller.address,
        comparable(&new.caller.address),
        new.caller.name,
        new.caller.ip,
        new.called.address,
        comparable(&new.called.address),
        new.called.name,
        new.called.ip,
        details.native_id,
        details.platform_call_id,
        details.meeting_id,
        details.location,
        details.recorded_party,
        details.audio_codec_id,
        details.direction_id,
        details.cause_id,
        details.signaling_id,
        new.conference,
        new.secondary,
        new.on_demand,
        new.do_not_delete,
    ];
    match connection.execute(sql, row) {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Err(StoreError::Exists { what: "recording", id: new.id.clone() }),
        Err(error) => Err(error.into()),
    }
}

/// Begins a recording with its first file, or does neither.
///
/// # Errors
/// As [`begin`].
pub fn begin_with_file(connection: &mut Connection, new: &NewRecording, path: &str) -> Result<(), StoreError> {
    transaction(connection, |connection| {
        begin(connection, new)?;
        add_file(connection, &new.id, path)
    })
}

/// The recording of that id, ongoing or finished.
///
/// # Errors
/// The database fails.
pub fn find(connection: &Connection, id: &str) -> Result<Option<Recording>, StoreError> {
    let sql = "SELECT * FROM recordings WHERE id = ?1 AND state <> 'discarded'";
    first(connection, sql, [id.to_ascii_lowercase()], read)
}

/// The recordings that are ongoing on a number, of either side; two at most, since more than one is one too many.
///
/// # Errors
/// The database fails.
pub fn ongoing(connection: &Connection, number: &str) -> Result<Vec<Recording>, StoreError> {
    let sql = "SELECT * FROM recordings WHERE state = 'ongoing' AND (caller_number = ?1 OR called_number = ?1) \
               AND secondary = 0 ORDER BY started_at LIMIT 2";
    all(connection, sql, [comparable(number)], read)
}

/// The recording on a number that ended last.
///
/// # Errors
/// The database fails.
pub fn last(connection: &Connection, number: &str) -> Result<Option<Recording>, StoreError> {
    let sql = "SELECT * FROM recordings WHERE state = 'finished' AND (caller_number = ?1 OR called_number = ?1) \
               AND secondary = 0 ORDER BY ended_at DESC, started_at DESC LIMIT 1";
    first(connection, sql, [comparable(number)], read)
}

/// The recordings of a call another system has a name for, latest first; two at most.
///
/// # Errors
/// The database fails.
pub fn find_foreign(connection: &Connection, id: ForeignId<'_>) -> Result<Vec<Recording>, StoreError> {
    let (column, id) = match id {
        ForeignId::Native(id) => ("native_id", id),
        ForeignId::PlatformCall(id) => ("platform_call_id", id),
        ForeignId::Meeting(id) => ("meeting_id", id),
    };
    let sql = format!(
        "SELECT * FROM recordings WHERE {column} = ?1 AND state <> 'discarded' AND secondary = 0 \
         ORDER BY started_at DESC LIMIT 2"
    );
    all(connection, &sql, [id], read)
}

/// What fits a search, earliest first. It has the thread of all to itself, and so not for long.
///
/// # Errors
/// [`StoreError::Refused`] if it takes too long; the database fails.
pub fn search(connection: &mut Connection, search: &Search) -> Result<Vec<Recording>, StoreError> {
    search_within(connection, search, SEARCH_TIME_MAX)
}

fn search_within(
    connection: &mut Connection,
    search: &Search,
    time_max: Duration,
) -> Result<Vec<Recording>, StoreError> {
    let begun = Instant::now();
    connection.progress_handler(SEARCH_STEPS, Some(move || begun.elapsed() > time_max))?;
    let found = matching(connection, search);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Err(StoreError::Failed(error)) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Err(StoreError::Refused { rule: "the search takes too long; narrow start and end".to_owned() })
        }
        found => found,
    }
}

fn matching(connection: &Connection, search: &Search) -> Result<Vec<Recording>, StoreError> {
    let mut sql = "SELECT * FROM recordings WHERE state = ? AND started_at BETWEEN ? AND ?".to_owned();
    let state = search.state.to_string();
    let (from, until) = (search.from.as_millisecond(), search.until.as_millisecond());
    let numbers: Vec<String> = search.numbers.iter().map(|number| comparable(number)).collect();
    let names: Vec<String> = search.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let mut values: Vec<&dyn ToSql> = vec![&state, &from, &until];
    // instr(), not LIKE: what came from outside holds no wildcards then.
    let mut any_of = |words: &'_ [String], condition: &str| {
        if !words.is_empty() {
            sql += &format!(" AND ({})", vec![condition; words.len()].join(" OR "));
        }
    };
    any_of(&numbers, "instr(caller_number, ?) OR instr(called_number, ?)");
    any_of(&names, "instr(lower(caller_name), ?) OR instr(lower(called_name), ?)");
    for word in numbers.iter().chain(&names) {
        values.extend([word as &dyn ToSql, word]);
    }
    if !search.secondary {
        sql += " AND secondary = 0";
    }
    sql += " ORDER BY started_at DESC, id DESC LIMIT ?";
    values.push(&search.limit);
    let mut found = all(connection, &sql, params_from_iter(values), read)?;
    found.reverse();
    Ok(found)
}

/// Says who is muted from now on, and keeps the spans. Returns the state now in force.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] if the recording has ended.
pub fn set_muted(
    connection: &mut Connection,
    id: &str,
    muted: Muted,
    by: &str,
    now: Timestamp,
) -> Result<Muted, StoreError> {
    transaction(connection, |connection| {
        let recording = existing(connection, id)?;
        if recording.state != State::Ongoing {
            return Err(StoreError::Refused { rule: "the recording has ended".to_owned() });
        }
        let id = &recording.call.id;
        let now = now.as_millisecond();
        let sides = [
            (Side::Caller, recording.muted.caller, muted.caller),
            (Side::Called, recording.muted.called, muted.called),
        ];
        for (side, before, after) in sides {
            if after && !before {
                let sql = "INSERT INTO recording_mutes (recording, party, began_at, by) VALUES (?1, ?2, ?3, ?4)";
                connection.execute(sql, params![id, side.to_string(), now, by])?;
            } else if before && !after {
                let sql = "UPDATE recording_mutes SET ended_at = max(?3, began_at) \
                           WHERE recording = ?1 AND party = ?2 AND ended_at IS NULL";
                connection.execute(sql, params![id, side.to_string(), now])?;
            }
        }
        let sql = "UPDATE recordings SET caller_muted = ?2, called_muted = ?3 WHERE id = ?1";
        connection.execute(sql, params![id, muted.caller, muted.called])?;
        Ok(muted)
    })
}

/// The muted spans of a recording, earliest first.
///
/// # Errors
/// The database fails.
pub fn muted_spans(connection: &Connection, id: &str) -> Result<Vec<MutedSpan>, StoreError> {
    let sql = "SELECT * FROM recording_mutes WHERE recording = ?1 ORDER BY began_at, id";
    all(connection, sql, [id.to_ascii_lowercase()], |row| {
        Ok(MutedSpan {
            side: word(row, "party")?,
            began_at: timestamp(row, "began_at")?,
            ended_at: optional_timestamp(row, "ended_at")?,
            by: row.get("by")?,
        })
    })
}

/// Adds a gap.
///
/// # Errors
/// [`StoreError::NotFound`] without such a recording.
pub fn add_gap(connection: &Connection, id: &str, gap: &Gap) -> Result<(), StoreError> {
    let sql = "INSERT INTO recording_gaps (recording, began_at, ended_at, reason) VALUES (?1, ?2, ?3, ?4)";
    let row =
        params![id.to_ascii_lowercase(), gap.began_at.as_millisecond(), gap.ended_at.as_millisecond(), gap.reason];
    owned(connection.execute(sql, row), id)
}

/// The gaps of a recording, earliest first.
///
/// # Errors
/// The database fails.
pub fn gaps(connection: &Connection, id: &str) -> Result<Vec<Gap>, StoreError> {
    let sql = "SELECT * FROM recording_gaps WHERE recording = ?1 ORDER BY began_at, id";
    all(connection, sql, [id.to_ascii_lowercase()], |row| {
        Ok(Gap {
            began_at: timestamp(row, "began_at")?,
            ended_at: timestamp(row, "ended_at")?,
            reason: row.get("reason")?,
        })
    })
}

/// Adds a file, named by its path below the recording root, behind those there are.
///
/// # Errors
/// [`StoreError::NotFound`] without such a recording.
pub fn add_file(connection: &Connection, id: &str, path: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO recording_files (recording, part, path) \
               SELECT ?1, 1 + coalesce(max(part), -1), ?2 FROM recording_files WHERE recording = ?1";
    owned(connection.execute(sql, params![id.to_ascii_lowercase(), path]), id)
}

/// The files of a recording, in order.
///
/// # Errors
/// The database fails.
pub fn files(connection: &Connection, id: &str) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT path FROM recording_files WHERE recording = ?1 ORDER BY part";
    all(connection, sql, [id.to_ascii_lowercase()], |row| row.get("path"))
}

/// Keeps a recording that is made on demand, or does not any more; a finished one that nobody keeps is discarded.
/// Returns where it stands now.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] if it may not be deleted.
pub fn set_kept(connection: &mut Connection, id: &str, kept: bool) -> Result<State, StoreError> {
    transaction(connection, |connection| {
        let recording = existing(connection, id)?;
        if !recording.call.on_demand {
            // It is kept anyway.
            return Ok(recording.state);
        }
        connection.execute("UPDATE recordings SET kept = ?2 WHERE id = ?1", params![recording.call.id, kept])?;
        match recording.state {
            State::Finished if !kept => discard_in(connection, &recording),
            State::Finished | State::Ongoing | State::Discarded => Ok(recording.state),
        }
    })
}

/// Marks a recording as recorded by hand, or not.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn set_manual(connection: &mut Connection, id: &str, manual: bool) -> Result<(), StoreError> {
    transaction(connection, |connection| {
        let recording = existing(connection, id)?;
        connection.execute("UPDATE recordings SET manual = ?2 WHERE id = ?1", params![recording.call.id, manual])?;
        Ok(())
    })
}

/// Discards a finished recording; an ongoing one when it ends. Returns where it stands now.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] if it may not be deleted.
pub fn discard(connection: &mut Connection, id: &str) -> Result<State, StoreError> {
    transaction(connection, |connection| {
        let recording = existing(connection, id)?;
        discard_in(connection, &recording)
    })
}

/// Ends a recording: it is finished, or discarded if nobody wants it. The second time nothing changes. Returns where
/// it stands now.
///
/// # Errors
/// [`StoreError::NotFound`].
pub fn finish(connection: &mut Connection, id: &str, reason: EndReason, now: Timestamp) -> Result<State, StoreError> {
    transaction(connection, |connection| {
        let recording = existing(connection, id)?;
        if recording.state != State::Ongoing {
            return Ok(recording.state);
        }
        finish_in(connection, &recording, reason, now)
    })
}

/// Ends every recording that is ongoing: the server that made them is gone. `now` stands for the end, which is not
/// known better. Returns how many there were.
///
/// # Errors
/// The database fails.
pub fn finish_interrupted(connection: &mut Connection, now: Timestamp) -> Result<usize, StoreError> {
    transaction(connection, |connection| {
        let left = all(connection, "SELECT * FROM recordings WHERE state = 'ongoing'", [], read)?;
        for recording in &left {
            finish_in(connection, recording, EndReason::Interrupted, now)?;
        }
        Ok(left.len())
    })
}

/// Discarded recordings, each with the files that are to be deleted; `limit` at most.
///
/// # Errors
/// The database fails.
pub fn discarded(connection: &Connection, limit: u32) -> Result<Vec<(String, Vec<String>)>, StoreError> {
    let sql = "SELECT id FROM recordings WHERE state = 'discarded' ORDER BY ended_at LIMIT ?1";
    let ids = all(connection, sql, [limit], |row| row.get::<_, String>("id"))?;
    ids.into_iter().map(|id| files(connection, &id).map(|files| (id, files))).collect()
}

/// Removes a discarded recording for good, once its files are deleted.
///
/// # Errors
/// [`StoreError::NotFound`] if there is none that is discarded.
pub fn forget(connection: &Connection, id: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM recordings WHERE id = ?1 AND state = 'discarded'";
    if connection.execute(sql, [id.to_ascii_lowercase()])? == 0 {
        return Err(missing(id));
    }
    Ok(())
}

fn existing(connection: &Connection, id: &str) -> Result<Recording, StoreError> {
    find(connection, id)?.ok_or_else(|| missing(id))
}

fn missing(id: &str) -> StoreError {
    StoreError::NotFound { what: "recording", id: id.to_owned() }
}

fn owned(added: rusqlite::Result<usize>, id: &str) -> Result<(), StoreError> {
    match added {
        Ok(_) => Ok(()),
        Err(error) if is_dangling(&error) => Err(missing(id)),
        Err(error) => Err(error.into()),
    }
}

fn discard_in(connection: &Connection, recording: &Recording) -> Result<State, StoreError> {
    if recording.call.do_not_delete {
        return Err(StoreError::Refused { rule: "the recording is protected and can't be deleted".to_owned() });
    }
    let id = &recording.call.id;
    if recording.state == State::Ongoing {
        connection.execute("UPDATE recordings SET delete_at_end = 1 WHERE id = ?1", [id])?;
        return Ok(State::Ongoing);
    }
    connection.execute("UPDATE recordings SET state = 'discarded' WHERE id = ?1", [id])?;
    Ok(State::Discarded)
}

fn finish_in(
    connection: &Connection,
    recording: &Recording,
    reason: EndReason,
    now: Timestamp,
) -> Result<State, StoreError> {
    let unwanted = recording.delete_at_end || recording.call.on_demand && !recording.kept;
    let protected = recording.call.do_not_delete;
    let state = if unwanted && !protected { State::Discarded } else { State::Finished };
    // A clock that was set back makes no call end before it began.
    let now = now.max(recording.call.started_at).as_millisecond();
    let id = &recording.call.id;
    let sql = "UPDATE recordings SET state = ?2, ended_at = ?3, end_reason = ?4 WHERE id = ?1";
    connection.execute(sql, params![id, state.to_string(), now, reason.to_string()])?;
    let sql = "UPDATE recording_mutes SET ended_at = max(?2, began_at) WHERE recording = ?1 AND ended_at IS NULL";
    connection.execute(sql, params![id, now])?;
    Ok(state)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Recording> {
    let end = match optional_timestamp(row, "ended_at")? {
        Some(ended_at) => Some((ended_at, word(row, "end_reason")?)),
        None => None,
    };
    Ok(Recording {
        call: NewRecording {
            id: row.get("id")?,
            caller: Party { address: row.get("caller")?, name: row.get("caller_name")?, ip: row.get("caller_ip")? },
            called: Party { address: row.get("called")?, name: row.get("called_name")?, ip: row.get("called_ip")? },
            started_at: timestamp(row, "started_at")?,
            on_demand: row.get("on_demand")?,
            conference: row.get("conference")?,
            secondary: row.get("secondary")?,
            do_not_delete: row.get("do_not_delete")?,
            details: Details {
                native_id: row.get("native_id")?,
                platform_call_id: row.get("platform_call_id")?,
                meeting_id: row.get("meeting_id")?,
                location: row.get("location")?,
                recorded_party: row.get("recorded_party")?,
                audio_codec_id: row.get("audio_codec_id")?,
                direction_id: row.get("direction_id")?,
                cause_id: row.get("cause_id")?,
                signaling_id: row.get("signaling_id")?,
            },
        },
        state: word(row, "state")?,
        end,
        kept: row.get("kept")?,
        manual: row.get("manual")?,
        delete_at_end: row.get("delete_at_end")?,
        muted: Muted { caller: row.get("caller_muted")?, called: row.get("called_muted")? },
    })
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ongoing => "ongoing",
            Self::Finished => "finished",
            Self::Discarded => "discarded",
        })
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let state =
            [Self::Ongoing, Self::Finished, Self::Discarded].into_iter().find(|state| state.to_string() == text);
        state.ok_or_else(|| format!("`{text}` is no state of a recording"))
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        })
    }
}

impl FromStr for EndReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Completed, Self::Failed, Self::Interrupted];
        let reason = all.into_iter().find(|reason| reason.to_string() == text);
        reason.ok_or_else(|| format!("`{text}` is no reason for a recording to end"))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Called => "called",
        })
    }
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = [Self::Caller, Self::Called].into_iter().find(|side| side.to_string() == text);
        side.ok_or_else(|| format!("`{text}` is no side of a call"))
    }
}
/// How long a search may take.
const SEARCH_TIME_MAX: Duration = Duration::from_millis(500);
/// Steps of the database between two looks at the clock: well below a millisecond.
const SEARCH_STEPS: i32 = 10_000;

#[cfg(test)]
mod tests;
