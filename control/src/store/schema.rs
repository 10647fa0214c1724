//! The schema and how it came to be: one SQL file a version, never changed once released.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::{BUSY_TIMEOUT, StoreError};

/// What leads from each version to the next; an empty file has version 0.
const MIGRATIONS: &[&str] = &[include_str!("migrations/001.sql")];
/// "RBdb": tells our file from other people's databases (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x5242_6462;
/// Pause before a file that another process is making is tried again.
const LOCKED_REST: Duration = Duration::from_millis(5);

/// Sets a new connection up and brings the file to the latest version.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let until = Instant::now() + BUSY_TIMEOUT;
    loop {
        // SQLite does not wait by itself where the journal mode changes, nor where that might be a deadlock.
        match set_up(connection, path) {
            Err(StoreError::Locked) if Instant::now() < until => std::thread::sleep(LOCKED_REST),
            result => return result,
        }
    }
}

fn set_up(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    // Refused before anything is changed. In one transaction: another process may be making the file right now.
    check(&*connection.transaction()?, path)?;
    // Readers and one writer at a time, also from other processes. What was answered is on the disk.
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;")?;
    migrate(connection, path, MIGRATIONS)
}

fn check(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (found, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let fresh = found == 0 && application == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Future { path: path.to_owned(), found, known });
    }
    Ok(found)
}

fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Looked at again with the lock held: another process may have been quicker.
        let version = check(&transaction, path)?;
        let Some(step) = usize::try_from(version).ok().and_then(|version| migrations.get(version)) else {
            return Ok(());
        };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
        tracing::info!(version = version + 1, "database schema brought up to date");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, std::path::PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let connection = super::super::connect(&path).unwrap();
        (dir, path, connection)
    }

    fn objects(connection: &Connection) -> Vec<String> {
        let sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY sql";
        super::super::all(connection, sql, [], |row| row.get::<_, String>(0)).unwrap()
    }

    fn one_line(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_documentation_tells_the_schema() {
        let (_dir, _, connection) = fresh();
        let documented = include_str!("../../../docs/database.md");
        let mut told: Vec<String> = documented
            .split("```sql\n")
            .skip(1)
            .filter_map(|block| block.split("```").next())
            .flat_map(|block| block.split(";\n"))
            .map(one_line)
            .filter(|statement| !statement.is_empty())
            .collect();
        told.sort();
        let mut stored: Vec<String> = objects(&connection).iter().map(|sql| one_line(sql)).collect();
        stored.sort();
        assert_eq!(told, stored);
        assert!(documented.contains(&format!("schema version {}", MIGRATIONS.len())));
    }

    #[test]
    fn settings_are_in_force() {
        let (_dir, _, connection) = fresh();
        let pragma = |name: &str| -> String {
            let value: rusqlite::types::Value =
                connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap();
            format!("{value:?}")
        };
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
        assert_eq!(pragma("foreign_keys"), "Integer(1)");
        assert_eq!(pragma("synchronous"), "Integer(2)");
        assert_eq!(pragma("busy_timeout"), "Integer(5000)");
        assert_eq!(pragma("user_version"), format!("Integer({})", MIGRATIONS.len()));
    }

    #[test]
    fn a_database_from_the_future_is_refused_and_left_alone() {
        let (_dir, path, connection) = fresh();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();
        let error = super::super::connect(&path).unwrap_err();
        assert!(matches!(error, StoreError::Future { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("newer ringbridge"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_foreign_database_and_a_text_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE things (x)").unwrap();
        let error = super::super::connect(&path).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        let path = dir.path().join("text");
        std::fs::write(&path, "this is not a database, it is a text of some length".repeat(40)).unwrap();
        let error = super::super::connect(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let (_dir, path, mut connection) = fresh();
        let before = objects(&connection);
        let steps = [MIGRATIONS[0], "CREATE TABLE later (x); CREATE TABLE users (y);"];
        migrate(&mut connection, &path, &steps).unwrap_err();
        assert_eq!(objects(&connection), before);
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 1);
    }

    #[test]
    fn many_may_open_a_new_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = dir.path().join(format!("{round}.db"));
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let path = path.clone();
                    std::thread::spawn(move || super::super::connect(&path).map(drop))
                })
                .collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        }
    }
}
