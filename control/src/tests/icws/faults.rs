//! A database that fails in the middle of it all: nothing is lost, nobody is left playing, and it goes on when it can.

use rusqlite::Connection;

use super::*;
use crate::icws::QUEUE_MAX;
use crate::store::path_in;

/// Makes every `what` (`INSERT`, `UPDATE`, `DELETE`) of a message fail from now on, as a full disk does.
fn fail(api: &Api, what: &str) -> Connection {
    let connection = Connection::open(path_in(&api.rig.dir.path().join("state"))).expect("there");
    connection.busy_timeout(PATIENCE).expect("set");
    let trigger = format!(
        "CREATE TRIGGER full BEFORE {what} ON voicemail_messages BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"
    );
    connection.execute_batch(&trigger).expect("made");
    connection
}

fn mend(connection: &Connection) {
    connection.execute_batch("DROP TRIGGER full").expect("gone");
}

#[test]
fn a_file_waits_until_its_row_can_be_written() {
    let (api, _client, _, session, _) = anna();
    let database = fail(&api, "INSERT");
    let mailbox = api.rig.dir.path().join("state/voicemail/anna");
    let files = api.rig.dir.path().join("state/audio/voicemail/anna");
    let count = || std::fs::read_dir(&files).expect("there").count();
    let before = count();
    api.rig.prompt("new.wav");
    std::fs::rename(api.rig.dir.path().join("state/audio/new.wav"), mailbox.join("+49_2.wav")).expect("moved");
    std::fs::write(mailbox.join("3.pdf"), "a fax").expect("written");
    // What is refused comes after them, and needs no row: then they were tried.
    std::fs::write(mailbox.join("4.wav"), "no audio").expect("written");
    for name in ["+49_2.wav", "3.pdf", "4.wav"] {
        let file = std::fs::File::options().write(true).open(mailbox.join(name)).expect("there");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    }
    eventually("tried", || mailbox.join("4.wav.refused").exists());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            session.until("a message in the end", |message| message["voicemailMessagesAdded"][0]["from"] == "+49")
        });
        // Others are served meanwhile, and what is there can be read.
        let other = api.sign_in("anna");
        assert_eq!(other.subscribe(VOICEMAIL)[0]["voicemailMessagesAdded"].as_array().map(Vec::len), Some(1));
        assert!(mailbox.join("+49_2.wav").exists() && mailbox.join("3.pdf").exists(), "nothing is put aside");
        mend(&database);
        waiting.join().expect("it came");
    });
    eventually("all of it", || std::fs::read_dir(&mailbox).expect("there").count() == 1);
    assert_eq!(count(), before + 2, "each has its file, once");
}

#[test]
fn a_message_that_can_not_be_marked_is_heard_and_can_be_stopped() {
    let (api, mut client, connection, session, id) = anna();
    let database = fail(&api, "UPDATE");
    let mark = format!("unified-messaging/{id}");
    assert_eq!(session.call("PUT", &mark, "{\"state\": 1}").status, 500);
    assert!(session.poll().is_empty());
    assert_eq!(session.play(&id, None).status, 204);
    assert_eq!(session.statuses(), [0]);
    let running =
        |client: &mut Client| client.ok("operation.list", json!({"connection_id": connection}))["operations"].clone();
    assert_eq!(running(&mut client).as_array().map(Vec::len), Some(1));
    assert_eq!(session.stop(&id).status, 204);
    assert_eq!((session.statuses(), running(&mut client)), (vec![1], json!([])));
    mend(&database);
    assert_eq!(session.ok("PUT", &mark, json!({"state": 1})).status, 204);
}

#[test]
fn a_message_that_can_not_be_deleted_is_as_it_was() {
    let (api, _client, _, session, id) = anna();
    let database = fail(&api, "DELETE");
    let message = format!("unified-messaging/{id}");
    assert_eq!(session.call("DELETE", &message, "").status, 500);
    assert!(session.poll().is_empty());
    assert_eq!(session.subscribe(VOICEMAIL)[0]["voicemailMessagesAdded"][0]["unifiedMessageId"], id.as_str());
    assert_eq!(session.play(&id, None).status, 204, "its file is there");
    assert_eq!(session.stop(&id).status, 204);
    mend(&database);
    assert_eq!(session.ok("DELETE", &message, Value::Null).status, 204);
    let files = api.rig.dir.path().join("state/audio/voicemail/anna");
    assert_eq!(std::fs::read_dir(files).expect("there").count(), 0);
}

#[test]
fn a_session_that_was_behind_is_brought_up_to_date_when_the_database_can_be_read_again() {
    let (api, _client, _, session, id) = anna();
    session.poll();
    for _ in 0..=QUEUE_MAX {
        assert_eq!(session.stop(&id).status, 204);
    }
    let database = Connection::open(path_in(&api.rig.dir.path().join("state"))).expect("there");
    database.busy_timeout(PATIENCE).expect("set");
    database.execute_batch("ALTER TABLE voicemail_messages RENAME TO elsewhere").expect("moved");
    for _ in 0..2 {
        assert!(session.poll().is_empty());
        let answer = session.stop(&id);
        assert_eq!(answer.status, 500);
        assert!(!answer.body.contains("voicemail_messages"), "{answer:?}");
    }
    database.execute_batch("ALTER TABLE elsewhere RENAME TO voicemail_messages").expect("moved");
    let told = session.poll();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["isDelta"], &told[0]["voicemailMessagesAdded"][0]["unifiedMessageId"]),
        (&json!(false), &json!(id))
    );
}
