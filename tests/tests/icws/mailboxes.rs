//! What becomes a message and what does not: names, links, files that lie, full mailboxes, crashes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::rig::{FAX, Seat, Session, VOICEMAIL, World, age, world};
use crate::row::{Plain, Row, plain};

const ROWS: &[Plain] = &[
    ("mailboxes::left_alone", left_alone),
    ("mailboxes::a_name_that_is_no_text", no_text),
    ("mailboxes::a_link_is_no_message", links),
    ("mailboxes::a_directory_a_pipe_and_a_socket_are_no_messages", special),
    ("mailboxes::nobodys_mailbox", nobodys),
    ("mailboxes::refused_files_are_kept", refused_are_kept),
    ("mailboxes::the_name_is_free_again", name_again),
    ("mailboxes::two_thousand_messages", huge),
    ("mailboxes::times_that_can_not_be", odd_times),
    ("mailboxes::a_user_with_messages_is_not_removed", user_with_messages),
    ("mailboxes::crash_while_taking_in", crash_while_taking_in),
    ("mailboxes::crash_between_the_row_and_the_original", crash_before_removal),
    ("mailboxes::crash_while_deleting", crash_while_deleting),
    ("mailboxes::recordings_left_by_the_last_server", recordings_left),
];

/// Names of files, and who the message is from.
const NAMES: &[(&str, &str, &str)] = &[
    ("plain", "+4930111222_1.wav", "+4930111222"),
    ("no_separator", "7001.wav", "7001"),
    ("capitals", "7001_1.WAV", "7001"),
    ("no_sender", "_1.wav", "unknown"),
    ("two_dots", "a.b.c_1.wav", "a.b.c"),
    ("space", "Anna Example_1.wav", "Anna Example"),
    ("umlaut", "Jürgen Größe_1.wav", "Jürgen Größe"),
    ("right_to_left", "\u{202e}gpj.exe_1.wav", "\u{202e}gpj.exe"),
    ("html", "<img src=x onerror=alert(1)>_1.wav", "<img src=x onerror=alert(1)>"),
    ("quotes", "\"}],\"from\":\"evil_1.wav", "\"}],\"from\":\"evil"),
    ("newline", "a\r\nX-Injected: yes\r\n\r\nb_1.wav", "a\r\nX-Injected: yes\r\n\r\nb"),
    ("event", "a\n\ndata: {}\n\n_1.wav", "a\n\ndata: {}\n\n"),
    ("control", "\u{1b}[31m\u{7}_1.wav", "\u{1b}[31m\u{7}"),
    ("percent", "%2e%2e%2f%00_1.wav", "%2e%2e%2f%00"),
    ("dots", "x..%2f.._1.wav", "x..%2f.."),
    ("backslash", "x..\\..\\_1.wav", "x..\\..\\"),
    ("sql", "'); DROP TABLE users;--_1.wav", "'); DROP TABLE users;--"),
    ("command", "$(id)`id`;id|id_1.wav", "$(id)`id`;id|id"),
    ("shell", "-rf *_1.wav", "-rf *"),
];

/// Makes a file.
type Bytes = fn() -> Vec<u8>;

/// Files that are no WAV files, or lie.
const LIARS: &[(&str, Bytes)] = &[
    ("empty", Vec::new),
    ("text", || b"this is no WAV file".to_vec()),
    ("riff_only", || b"RIFF\xff\xff\xff\xffWAVE".to_vec()),
    ("no_data", || wav(16, 1, 8000, 2, 16, None)),
    ("data_longer_than_the_file", || wav(16, 1, 8000, 2, 16, Some(0x7fff_ffff))),
    ("data_of_all_there_is", || wav(16, 1, 8000, 2, 16, Some(u32::MAX))),
    ("no_samples", || wav(16, 1, 8000, 2, 16, Some(0))),
    ("no_channels", || wav(16, 0, 8000, 2, 16, Some(320))),
    ("many_channels", || wav(16, 65_535, 8000, 2, 16, Some(320))),
    ("no_rate", || wav(16, 1, 0, 2, 16, Some(320))),
    ("huge_rate", || wav(16, 1, u32::MAX, 2, 16, Some(320))),
    ("odd_width", || wav(16, 1, 8000, 2, 17, Some(320))),
    ("no_width", || wav(16, 1, 8000, 0, 0, Some(320))),
    ("format_too_short", || wav(2, 1, 8000, 2, 16, Some(320))),
    ("format_too_long", || wav(u32::MAX, 1, 8000, 2, 16, Some(320))),
    ("png", || b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()),
    ("zeros", || vec![0; 4096]),
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = plain(ROWS);
    for (name, file, from) in NAMES {
        rows.push(Row::new(format!("mailboxes::name::{name}"), move || named(file, from)));
    }
    for (name, bytes) in LIARS {
        rows.push(Row::new(format!("mailboxes::liar::{name}"), move || refused(&bytes())));
    }
    rows
}

/// A WAV file with 320 bytes of samples whose header says what it likes.
fn wav(format_bytes: u32, channels: u16, rate: u32, block: u16, bits: u16, data: Option<u32>) -> Vec<u8> {
    let mut file = b"RIFF\x64\x01\0\0WAVEfmt ".to_vec();
    file.extend(format_bytes.to_le_bytes());
    file.extend(1_u16.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend(rate.wrapping_mul(2).to_le_bytes());
    file.extend(block.to_le_bytes());
    file.extend(bits.to_le_bytes());
    if let Some(bytes) = data {
        file.extend(b"data");
        file.extend(bytes.to_le_bytes());
        file.extend([0; 320]);
    }
    file
}

/// Writes a file elsewhere and moves it into the mailbox, as one that has been there for a while.
fn put(seat: &Seat, name: impl AsRef<Path>, bytes: &[u8]) {
    let path = seat.mailbox().join(".new");
    fs::write(&path, bytes).unwrap();
    age(&path);
    fs::rename(&path, seat.mailbox().join(name)).unwrap();
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A session that is told of everything.
fn watch(seat: &Seat) -> Session {
    let session = seat.sign_in();
    session.subscribe(VOICEMAIL);
    session.subscribe(FAX);
    session
}

/// Waits until the mailbox has been looked into: what was left before is a message, or never will be.
#[track_caller]
fn looked_into(seat: &Seat, session: &Session) -> Vec<Value> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let last = format!("zzz{}", NEXT.fetch_add(1, Ordering::Relaxed));
    seat.leave("short.wav", format!("{last}_1.wav"));
    let mut told = Vec::new();
    let is_last = |it: &Value| it["voicemailMessagesAdded"][0]["from"] == last.as_str();
    until("the last one", || {
        std::thread::sleep(Duration::from_millis(20));
        told.extend(session.poll());
        told.iter().any(is_last).then_some(())
    });
    told.retain(|it| !is_last(it));
    told
}

fn named(file: &str, from: &str) {
    let seat = world().seat();
    let session = watch(&seat);
    let mut stream = session.stream();
    seat.leave("short.wav", file);
    // One line of the stream, whatever is in it.
    let told = stream.message();
    let message = &told["voicemailMessagesAdded"][0];
    assert_eq!((&message["from"], &message["attachments"][0]["fileName"]), (&json!(from), &json!(file)));
    let id = message["unifiedMessageId"].as_str().unwrap();
    assert_eq!(message["attachments"][0]["fileUri"], session.path(&format!("files/{id}.wav")));
    let answer = session.call("GET", &format!("files/{id}.wav"), "");
    assert!(!answer.done(200).head.contains("Injected"), "{}", answer.head);
    assert_eq!(answer.body, fs::read(seat.world.master("short.wav")).unwrap());
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    // Nobody writes lines of his own into the log.
    assert!(!seat.world.server.log().lines().any(|line| line.starts_with("X-Injected") || line.starts_with("data:")));
    let files = names_in(&seat.files());
    assert!(files.len() == 1 && files[0].len() == 36 && files[0].ends_with(".wav"), "{files:?}");
}

fn refused(bytes: &[u8]) {
    let seat = world().seat();
    let session = watch(&seat);
    put(&seat, "+49_1.wav", bytes);
    assert_eq!(looked_into(&seat, &session), [] as [Value; 0]);
    assert_eq!(names_in(&seat.mailbox()), ["+49_1.wav.refused"]);
    assert_eq!(fs::read(seat.mailbox().join("+49_1.wav.refused")).unwrap(), bytes, "nothing is lost");
    assert_eq!(names_in(&seat.files()).len(), 1, "and nothing of it is left among the messages");
}

fn left_alone() {
    let seat = world().seat();
    let session = watch(&seat);
    let names = [".hidden.wav", "notes.txt", "noext", "song.mp3", "x.wav.part", "x.wav.refused"];
    for name in names {
        put(&seat, name, b"x");
    }
    fs::create_dir(seat.mailbox().join("deep")).unwrap();
    fs::hard_link(seat.world.master("short.wav"), seat.mailbox().join("deep/1.wav")).unwrap();
    assert_eq!(looked_into(&seat, &session), [] as [Value; 0]);
    let mut left = names.map(str::to_owned).to_vec();
    left.push("deep".to_owned());
    left.sort();
    assert_eq!(names_in(&seat.mailbox()), left);
}

fn no_text() {
    let seat = world().seat();
    let session = watch(&seat);
    let name = OsStr::from_bytes(b"+49\xff\xfe_1.wav");
    seat.leave("short.wav", name);
    assert_eq!(looked_into(&seat, &session), [] as [Value; 0]);
    assert!(seat.mailbox().join(OsStr::from_bytes(b"+49\xff\xfe_1.wav.refused")).exists());
}

fn links() {
    let seat = world().seat();
    let session = watch(&seat);
    // A message of somebody else, the database, a file that is nowhere, itself.
    let directory = seat.world.server.directory();
    for (name, target) in [
        ("a.wav", seat.world.master("long.wav")),
        ("b.wav", directory.join("ringbridge.db")),
        ("c.pdf", directory.join("ringbridge.db")),
        ("d.wav", directory.join("nowhere")),
        ("e.wav", seat.mailbox().join("e.wav")),
    ] {
        std::os::unix::fs::symlink(target, seat.mailbox().join(name)).unwrap();
    }
    assert_eq!(looked_into(&seat, &session), [] as [Value; 0]);
    assert_eq!(names_in(&seat.files()).len(), 1, "of the last one");
}

fn special() {
    let seat = world().seat();
    let session = watch(&seat);
    fs::create_dir(seat.mailbox().join("a.wav")).unwrap();
    let fifo = seat.mailbox().join("b.wav");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(seat.mailbox().join("c.wav")).unwrap();
    assert_eq!(looked_into(&seat, &session), [] as [Value; 0]);
    assert_eq!(names_in(&seat.mailbox()), ["a.wav", "b.wav", "c.wav"]);
}

fn nobodys() {
    let seat = world().seat();
    let session = watch(&seat);
    let root = seat.mailbox().parent().unwrap().to_owned();
    for nobody in ["not-there", "U1", "u1 ", "..."] {
        fs::create_dir_all(root.join(nobody)).unwrap();
        let file = root.join(nobody).join(format!("{}.wav", seat.user));
        fs::hard_link(seat.world.master("short.wav"), &file).unwrap();
        assert_eq!(looked_into(&seat, &session), [] as [Value; 0]);
        assert!(file.exists());
    }
}

fn refused_are_kept() {
    let seat = world().seat();
    let session = watch(&seat);
    for text in ["first", "second"] {
        put(&seat, "1.wav", text.as_bytes());
        looked_into(&seat, &session);
    }
    assert_eq!(names_in(&seat.mailbox()), ["1.wav.2.refused", "1.wav.refused"]);
    // The longest name there can be.
    put(&seat, format!("{}.wav", "x".repeat(251)), b"third");
    looked_into(&seat, &session);
    let kept = names_in(&seat.mailbox());
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept.iter().all(|name| name.ends_with(".refused")), "{kept:?}");
}

fn name_again() {
    let seat = world().seat();
    let first = seat.message("short.wav", "1.wav");
    assert!(!seat.mailbox().join("1.wav").exists());
    // Another file of the same name is another message.
    let session = watch(&seat);
    put(&seat, "1.wav", &fs::read(seat.world.master("short.wav")).unwrap());
    let told = session.until("the second", |message| message["voicemailMessagesAdded"][0].is_object());
    assert_ne!(told["voicemailMessagesAdded"][0]["unifiedMessageId"], first.as_str());
    assert_eq!(names_in(&seat.files()).len(), 2);
}

fn huge() {
    let world = Arc::new(World::start(2, 0, ""));
    let seat = world.seat_number(0);
    for number in 0..2000 {
        seat.leave("short.wav", format!("+49_{number}.wav"));
    }
    let session = seat.sign_in();
    session.call("PUT", VOICEMAIL, "").done(200);
    // Others are served meanwhile.
    let other = world.seat_number(1).sign_in();
    other.call("POST", "messaging/heartbeat", "").done(204);
    // However slow the disk is, it goes on.
    for left in (0..2000).step_by(100).rev() {
        until("the next hundred", || (names_in(&seat.mailbox()).len() <= left).then_some(()));
    }
    let listed = session.subscribe(VOICEMAIL);
    let ids: std::collections::HashSet<&str> = listed["voicemailMessagesAdded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["unifiedMessageId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2000);
    drop((session, other, seat));
    Arc::into_inner(world).unwrap().server.stop();
}

fn odd_times() {
    let seat = world().seat();
    let session = watch(&seat);
    let far = Duration::from_secs(86_400 * 365);
    for (name, at) in [
        ("epoch", SystemTime::UNIX_EPOCH),
        ("before", SystemTime::UNIX_EPOCH - 60 * far),
        ("tomorrow", SystemTime::now() + Duration::from_secs(86_400)),
        ("later", SystemTime::now() + 100 * far),
    ] {
        let path = seat.mailbox().join(".new");
        fs::copy(seat.world.master("short.wav"), &path).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        fs::rename(&path, seat.mailbox().join(format!("{name}_1.wav"))).unwrap();
        let told = session.until(name, |message| message["voicemailMessagesAdded"][0]["from"] == name);
        crate::sessions::is_time(&told["voicemailMessagesAdded"][0]["dateReceived"]);
    }
}

fn user_with_messages() {
    let seat = world().seat();
    let id = seat.message("short.wav", "1.wav");
    let remove = || {
        let binary = env!("CARGO_BIN_EXE_ringbridge-under-test");
        let directory = seat.world.server.directory();
        let mut removed = std::process::Command::new(binary);
        removed.args(["user", "remove", &seat.user, "--state-dir"]).arg(directory).output().unwrap()
    };
    let refused = remove();
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("holds messages"),
        "{refused:?}"
    );
    seat.sign_in().call("DELETE", &format!("unified-messaging/{id}"), "").done(204);
    assert!(remove().status.success());
}

/// What the mailbox of a seat has: senders, each once for each message.
fn senders(seat: &Seat) -> Vec<String> {
    let listed = seat.sign_in().subscribe(VOICEMAIL);
    let messages = listed["voicemailMessagesAdded"].as_array().unwrap();
    let mut senders: Vec<_> = messages.iter().map(|it| it["from"].as_str().unwrap().to_owned()).collect();
    senders.sort();
    senders
}

/// Has something done to a server of its own, restarts it, and has a look at it.
fn around_a_restart(before: impl FnOnce(&Seat), restart: impl FnOnce(&mut World), after: impl FnOnce(&Seat)) {
    let alone = |world: Arc<World>| Arc::into_inner(world).unwrap_or_else(|| panic!("nobody else has it"));
    let world = Arc::new(World::start(2, 0, ""));
    before(&world.seat_number(0));
    let mut world = alone(world);
    restart(&mut world);
    let world = Arc::new(world);
    after(&world.seat_number(0));
    alone(world).server.stop();
}

fn crash_while_taking_in() {
    // Killed again and again in the middle of taking in files: none is lost, none comes twice.
    let count = 60;
    around_a_restart(
        |seat| {
            for number in 0..count {
                seat.leave("short.wav", format!("s{number:03}_1.wav"));
            }
        },
        |world| {
            for round in 1..=4 {
                let mailbox = world.server.directory().join("voicemail/u0");
                until("some of them", || (names_in(&mailbox).len() <= count - 10 * round).then_some(()));
                world.server.kill_and_restart();
            }
        },
        |seat| {
            until("all of them", || names_in(&seat.mailbox()).is_empty().then_some(()));
            until("all of them listed", || (senders(seat).len() == count).then_some(()));
            assert_eq!(senders(seat), (0..count).map(|number| format!("s{number:03}")).collect::<Vec<_>>());
            // Each has its file; a file without a message may be left by a crash only where the original was too.
            assert_eq!(names_in(&seat.files()).len(), count);
        },
    );
}

fn crash_before_removal() {
    around_a_restart(
        |seat| {
            seat.message("short.wav", "+49_1.wav");
            // Its row is written, its original is still there.
            seat.leave("short.wav", "+49_1.wav");
        },
        |world| world.server.kill_and_restart(),
        |seat| {
            until("looked into", || names_in(&seat.mailbox()).is_empty().then_some(()));
            assert_eq!((senders(seat), names_in(&seat.files()).len()), (vec!["+49".to_owned()], 1));
        },
    );
}

fn crash_while_deleting() {
    around_a_restart(
        |seat| {
            let (kept, gone) = (seat.message("short.wav", "kept_1.wav"), seat.message("short.wav", "gone_1.wav"));
            let session = seat.sign_in();
            let files = seat.files();
            let before = names_in(&files);
            session.call("DELETE", &format!("unified-messaging/{gone}"), "").done(204);
            let left = names_in(&files);
            assert_eq!(left.len(), 1);
            // The row of one is gone and its file is not, the other way round with the other.
            let lost = before.iter().find(|name| !left.contains(name)).unwrap();
            fs::write(files.join(format!("{lost}.deleted")), "x").unwrap();
            fs::rename(files.join(&left[0]), files.join(format!("{}.deleted", left[0]))).unwrap();
            fs::write(files.join("half.wav.part"), "x").unwrap();
            session.call("GET", &format!("files/{kept}.wav"), "").refused(500, "", "");
        },
        |world| world.server.kill_and_restart(),
        |seat| {
            assert_eq!(senders(seat), ["kept"]);
            let files = names_in(&seat.files());
            assert!(files.len() == 1 && files[0].ends_with(".wav"), "{files:?}");
            let session = seat.sign_in();
            let listed = session.subscribe(VOICEMAIL);
            let id = listed["voicemailMessagesAdded"][0]["unifiedMessageId"].as_str().unwrap();
            session.call("GET", &format!("files/{id}.wav"), "").done(200);
        },
    );
}

fn recordings_left() {
    around_a_restart(
        |seat| {
            // A recording whose end nobody saw.
            let recordings = seat.world.server.recording(&format!("voicemail/{}", seat.user));
            fs::create_dir_all(&recordings).unwrap();
            fs::copy(seat.world.master("short.wav"), recordings.join("+49_1.wav")).unwrap();
        },
        |world| world.server.restart(),
        |seat| assert_eq!(senders(seat), ["+49"]),
    );
}
