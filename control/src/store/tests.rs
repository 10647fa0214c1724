//! The database as a whole: threads, crashes, disks.

use std::path::Path;
use std::sync::mpsc;

use super::users::{self, User};
use super::*;
use crate::auth::PasswordHash;

/// A database of its own.
pub(super) fn database() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let connection = connect(&dir.path().join("x.db")).unwrap();
    (dir, connection)
}

/// A point in time, in seconds.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A hash that tells which password it stands for; it can't be checked.
pub(super) fn hash(password: &str) -> PasswordHash {
    let output: String = format!("{password:x<43}").replace(|char: char| !char.is_ascii_alphanumeric(), "y");
    let output = &output[..42];
    format!("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA${output}A").parse().unwrap()
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn user(number: u32) -> User {
    User::new(format!("user-{number:04}"), hash("x"))
}

fn count(connection: &mut Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?)
}

#[test]
fn what_is_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    wait(async {
        let store = Store::open(&path).unwrap();
        store.run(|connection| users::add(connection, &user(1), at(1))).await.unwrap();
        store.close().await;
        assert!(matches!(store.run(count).await, Err(StoreError::Closed)));
        store.close().await;
        assert!(!dir.path().join("ringbridge.db-wal").exists(), "closed in order");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.run(count).await.unwrap(), 1);
    });
}

#[test]
fn what_was_answered_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    let crashed = dir.path().join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    wait(async {
        let store = Store::open(&path).unwrap();
        store.run(|connection| users::add(connection, &user(1), at(1))).await.unwrap();
        let (sender, receiver) = mpsc::channel();
        let (resume, resumed) = mpsc::channel::<()>();
        let unfinished = store.run(move |connection| {
            transaction(connection, |connection| {
                users::add(connection, &user(2), at(1))?;
                sender.send(()).unwrap();
                resumed.recv().unwrap();
                Ok(())
            })
        });
        // What a crash leaves is what the files hold in the middle of it: one change answered, one not.
        let crash = async {
            tokio::task::spawn_blocking(move || receiver.recv().unwrap()).await.unwrap();
            for file in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
                // The -shm file is an index of the log and made anew.
                if file.is_file() && !file.to_str().unwrap().ends_with("-shm") {
                    std::fs::copy(&file, crashed.join(file.file_name().unwrap())).unwrap();
                }
            }
            resume.send(()).unwrap();
        };
        let (done, ()) = tokio::join!(unfinished, crash);
        done.unwrap();
    });
    assert!(crashed.join("ringbridge.db-wal").metadata().unwrap().len() > 0, "the log was not written back");
    let mut connection = connect(&path_in(&crashed)).unwrap();
    assert_eq!(count(&mut connection).unwrap(), 1);
    assert!(users::find(&connection, "user-0001").unwrap().is_some());
    let intact: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(intact, "ok");
}

#[test]
fn dropping_every_handle_finishes_what_was_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    let (ended, end) = mpsc::channel::<()>();
    wait(async {
        let store = Store::open(&path).unwrap();
        // Nobody waits for these; they are carried out all the same.
        for number in 0..50 {
            let mut asked = Box::pin(store.run(move |connection| users::add(connection, &user(number), at(1))));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
        }
        let mut last = Box::pin(store.run(move |_| {
            // Gone when the thread has worked this off.
            drop(ended);
            Ok(())
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = last.as_mut().poll(&mut context);
    });
    assert_eq!(end.recv(), Err(mpsc::RecvError));
    assert_eq!(count(&mut connect(&path).unwrap()).unwrap(), 50);
}

#[test]
fn many_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    let store = Store::open(&path).unwrap();
    let mut writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            std::thread::spawn(move || {
                for number in 0..25 {
                    let user = user(writer * 25 + number);
                    wait(store.run(move |connection| users::add(connection, &user, at(1)))).unwrap();
                }
            })
        })
        .collect();
    // Beside a server the command line writes.
    writers.push(std::thread::spawn(move || {
        let connection = connect(&path).unwrap();
        for number in 1000..1025 {
            users::add(&connection, &user(number), at(1)).unwrap();
        }
    }));
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(wait(store.run(count)).unwrap(), 225);
    // Of many who want the same name one gets it.
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || wait(store.run(|connection| users::add(connection, &user(9000), at(1)))))
        })
        .collect();
    let results: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let refused = |result: &Result<(), StoreError>| matches!(result, Ok(()) | Err(StoreError::Exists { .. }));
    assert!(results.iter().all(refused), "{results:?}");
}

#[test]
fn a_full_queue_is_told_at_once() {
    let (_dir, connection) = database();
    let store = Store::with_connection(connection, Path::new("x.db"), 2).unwrap();
    let (resume, resumed) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel::<()>();
    wait(async {
        let slow = store.run(move |_| {
            started.send(()).unwrap();
            resumed.recv().unwrap();
            Ok(())
        });
        let mut slow = Box::pin(slow);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(slow.as_mut().poll(&mut context).is_pending());
        starts.recv().unwrap();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(store.run(count))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        let error = store.run(count).await.unwrap_err();
        assert!(matches!(error, StoreError::Busy { .. }), "{error}");
        resume.send(()).unwrap();
        slow.await.unwrap();
        for one in waiting {
            assert_eq!(one.await.unwrap(), 0);
        }
        assert_eq!(store.run(count).await.unwrap(), 0);
    });
}

#[test]
fn a_panic_is_one_requests_own() {
    let (_dir, connection) = database();
    let store = Store::with_connection(connection, Path::new("x.db"), 2).unwrap();
    wait(async {
        let panicked = store.run(|connection| {
            transaction(connection, |connection| -> Result<(), StoreError> {
                users::add(connection, &user(1), at(1))?;
                panic!("on purpose");
            })
        });
        assert!(matches!(panicked.await, Err(StoreError::Panicked)));
        assert_eq!(store.run(count).await.unwrap(), 0);
        store.run(|connection| users::add(connection, &user(1), at(1))).await.unwrap();
    });
}

#[test]
fn a_full_disk_and_a_read_only_one_are_told_apart() {
    let (_dir, mut connection) = database();
    // As many pages as there are: the database can't grow, as on a disk without room.
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0)).unwrap();
    let full = (0..1000).find_map(|number| {
        let long = User { display_name: "n".repeat(128), ..user(number) };
        users::add(&connection, &long, at(1)).err()
    });
    assert!(matches!(full, Some(StoreError::DiskFull)), "{full:?}");
    assert!(count(&mut connection).unwrap() > 0, "reading goes on");
    connection.pragma_update(None, "query_only", true).unwrap();
    let refused = users::remove(&connection, "user-0000").unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly), "{refused}");
}

#[test]
fn a_lock_that_is_held_for_long_is_told() {
    let (dir, connection) = database();
    let other = connect(&dir.path().join("x.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    other.busy_timeout(std::time::Duration::from_millis(1)).unwrap();
    let error = users::add(&other, &user(1), at(1)).unwrap_err();
    assert!(matches!(error, StoreError::Locked), "{error}");
    // Reading needs no lock.
    assert_eq!(users::find(&other, "user-0001").unwrap(), None);
    connection.execute_batch("ROLLBACK").unwrap();
    users::add(&other, &user(1), at(1)).unwrap();
}

#[test]
fn a_place_that_can_not_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("missing/x.db"), dir.path().to_owned()] {
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn only_its_owner_reads_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, connection) = database();
    users::add(&connection, &user(1), at(1)).unwrap();
    for name in ["x.db", "x.db-wal", "x.db-shm"] {
        let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_no_version_writes_is_damage() {
    let (_dir, connection) = database();
    users::add(&connection, &user(1), at(1)).unwrap();
    connection.execute("UPDATE users SET roles = '[\"janitor\"]'", []).unwrap();
    let error = users::find(&connection, "user-0001").unwrap_err();
    assert!(matches!(&error, StoreError::Damaged(reason) if reason.contains("janitor")), "{error}");
}
