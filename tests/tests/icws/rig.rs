//! The server all rows share, and what each has of its own: a seat (a user with a mailbox and a station), sessions,
//! telephones.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ringbridge_tests::audio::{tone, write_wav};
use ringbridge_tests::endpoint::Endpoint;
use ringbridge_tests::http::free_port;
use ringbridge_tests::server::{Leg, Server, Setup};
use ringbridge_tests::{PATIENCE, until};
use serde_json::{Value, json};

use crate::client::{Answer, Request, own_address, read_head};

pub(crate) const VOICEMAIL: &str = "messaging/subscriptions/unified-messaging/voicemail-messages";
pub(crate) const FAX: &str = "messaging/subscriptions/unified-messaging/fax-messages";
pub(crate) const WAITING: &str = "messaging/subscriptions/unified-messaging/messages-waiting-indicator";
pub(crate) const MESSAGES: &str = "messaging/messages";
pub(crate) const ORIGIN: &str = "https://phone.example.com";
pub(crate) const PASSWORD: &str = "correct-horse";
/// Of [`PASSWORD`], cheap to check: what a hash costs is not what is tried here.
pub(crate) const HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$cmluZ2JyaWRnZS10ZXN0cw$x9S2DvbKiObRq+O2gbxazH/Lf1UOtILVFyjlwnJ6eMk";
/// Frequency of the long message.
pub(crate) const LONG_HZ: u32 = 700;
/// Frequency of the short one, which lasts [`SHORT_MS`].
pub(crate) const SHORT_HZ: u32 = 1100;
pub(crate) const SHORT_MS: usize = 400;
/// From here on seats are shared by rows that change nothing.
pub(crate) const SHARED_FROM: usize = 400;
/// Seats there are.
const SEATS: usize = 420;
/// Stations with a telephone of their own.
const PHONES: usize = 16;

/// A server with the API.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) api: SocketAddr,
    seats: AtomicUsize,
    phones: Mutex<Vec<(String, Endpoint)>>,
}

static WORLD: Mutex<Option<Arc<World>>> = Mutex::new(None);

/// The server of all rows, started by the first.
pub(crate) fn world() -> Arc<World> {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(world.get_or_insert_with(|| Arc::new(World::start(SEATS, PHONES, ""))))
}

/// Ends it.
pub(crate) fn end_world() {
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(world) = world.and_then(Arc::into_inner) {
        world.server.stop();
    }
}

impl World {
    /// A server with so many seats, and so many of them with a telephone that has no connection.
    pub(crate) fn start(seats: usize, phones: usize, config: &str) -> Self {
        Self::start_as(seats, phones, config, |setup| setup)
    }

    /// One whose shards may be made to fail.
    pub(crate) fn start_faulty(seats: usize) -> Self {
        Self::start_as(seats, 0, "", Setup::with_panics)
    }

    fn start_as(seats: usize, phones: usize, config: &str, change: impl FnOnce(Setup) -> Setup) -> Self {
        let api = free_port();
        let phones: Vec<_> = (0..phones).map(|number| (format!("phone{number}"), Endpoint::open())).collect();
        let mut text = format!("{config}\n[icws]\norigins = [\"{ORIGIN}\"]\n");
        for number in 0..seats {
            text.push_str(&format!(
                "[[users]]\nname = \"u{number}\"\npassword_hash = \"{HASH}\"\nextension = \"7{number:04}\"\n\
                 station = \"s{number}\"\nroles = [\"icws\"]\n\
                 [[icws.stations]]\nid = \"s{number}\"\nnumber = \"+49301{number:04}\"\n"
            ));
        }
        text.push_str(&format!("[[users]]\nname = \"nobody\"\npassword_hash = \"{HASH}\"\nroles = [\"verba\"]\n"));
        for (number, (name, phone)) in phones.iter().enumerate() {
            text.push_str(&format!(
                "[[icws.stations]]\nid = \"{name}\"\nnumber = \"+49302{number:04}\"\nremote = \"{}\"\n",
                phone.address()
            ));
        }
        let directory = tempfile::tempdir().expect("a directory");
        let long: Vec<i16> = (0..60 * 8000).map(|index| tone(LONG_HZ, 8000, index)).collect();
        let short: Vec<i16> = (0..SHORT_MS * 8).map(|index| tone(SHORT_HZ, 8000, index)).collect();
        for (name, samples) in [("long.wav", long), ("short.wav", short)] {
            write_wav(&directory.path().join("masters").join(name), &samples);
        }
        fs::write(directory.path().join("masters/fax.pdf"), "%PDF-1.4 a fax").expect("written");
        for master in fs::read_dir(directory.path().join("masters")).expect("made") {
            age(&master.expect("an entry").path());
        }
        let setup = change(Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test")).pairs(128));
        let server = setup.config(&text).arg("--icws").arg(api.to_string()).start_in(directory);
        Self { server, api, seats: AtomicUsize::new(0), phones: Mutex::new(phones) }
    }

    /// A seat nobody else has.
    #[track_caller]
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        let number = self.seats.fetch_add(1, Ordering::Relaxed);
        assert!(number < SHARED_FROM, "more seats are needed");
        self.seat_number(number)
    }

    pub(crate) fn seat_number(self: &Arc<Self>, number: usize) -> Seat {
        Seat { world: Arc::clone(self), number, user: format!("u{number}"), station: format!("s{number}") }
    }

    /// A station with a telephone, which is nobody else's for as long as the row has it.
    pub(crate) fn phone(self: &Arc<Self>) -> Phone {
        let free = || self.phones.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (station, endpoint) = until("a free telephone", free);
        endpoint.forget();
        Phone { world: Arc::clone(self), station, endpoint: Some(endpoint) }
    }

    pub(crate) fn ask(&self, request: &Request<'_>) -> Answer {
        request.ask(own_address(), self.api)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&Request::new("GET", path))
    }

    pub(crate) fn master(&self, name: &str) -> PathBuf {
        self.server.directory().join("masters").join(name)
    }
}

/// A configured station and its telephone.
pub(crate) struct Phone {
    world: Arc<World>,
    pub(crate) station: String,
    endpoint: Option<Endpoint>,
}

impl Phone {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.endpoint.as_ref().expect("until dropped")
    }

    pub(crate) fn number(&self) -> String {
        format!("+49302{:0>4}", &self.station["phone".len()..])
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        let endpoint = self.endpoint.take().expect("not dropped yet");
        let mut phones = self.world.phones.lock().unwrap_or_else(PoisonError::into_inner);
        phones.push((self.station.clone(), endpoint));
    }
}

/// A user with a mailbox and a station.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) world: Arc<World>,
    number: usize,
    pub(crate) user: String,
    pub(crate) station: String,
}

impl Seat {
    pub(crate) fn extension(&self) -> String {
        format!("7{:04}", self.number)
    }

    pub(crate) fn number(&self) -> String {
        format!("+49301{:04}", self.number)
    }

    #[track_caller]
    pub(crate) fn sign_in(&self) -> Session {
        Session::open(&self.world, &self.user)
    }

    /// Connects the station to an endpoint.
    #[track_caller]
    pub(crate) fn connect(&self, endpoint: &Endpoint) -> Leg {
        let params = json!({"label": format!("station:{}", self.station), "remote": endpoint.address().to_string()});
        self.world.server.create(params)
    }

    /// The folder files are dropped into.
    pub(crate) fn mailbox(&self) -> PathBuf {
        let mailbox = self.world.server.directory().join("voicemail").join(&self.user);
        fs::create_dir_all(&mailbox).expect("made");
        mailbox
    }

    /// Where the files of its messages are.
    pub(crate) fn files(&self) -> PathBuf {
        self.world.server.directory().join("audio/voicemail").join(&self.user)
    }

    /// Drops a file that nobody writes to any more into the mailbox.
    pub(crate) fn leave(&self, master: &str, name: impl AsRef<Path>) {
        fs::hard_link(self.world.master(master), self.mailbox().join(name)).expect("linked");
    }

    /// Drops a file and waits until it is a message: its id.
    #[track_caller]
    pub(crate) fn message(&self, master: &str, name: &str) -> String {
        self.added(master, name)["unifiedMessageId"].as_str().expect("an id").to_owned()
    }

    /// The same, and how it is told.
    #[track_caller]
    pub(crate) fn added(&self, master: &str, name: &str) -> Value {
        let session = self.sign_in();
        for topic in [VOICEMAIL, FAX] {
            session.ok("PUT", topic, Value::Null);
        }
        session.poll();
        self.leave(master, name);
        let list = if master.ends_with(".wav") { "voicemailMessagesAdded" } else { "faxMessagesAdded" };
        session.until("a message", |message| message[list][0].is_object())[list][0].clone()
    }

    /// A long voicemail.
    #[track_caller]
    pub(crate) fn voicemail(&self) -> String {
        self.message("long.wav", "+4930111222_1.wav")
    }
}

/// Somebody who signed in.
pub(crate) struct Session {
    pub(crate) world: Arc<World>,
    pub(crate) id: String,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
    pub(crate) answer: Answer,
    source: Ipv4Addr,
    /// Its client just goes.
    forgotten: bool,
}

impl Session {
    #[track_caller]
    pub(crate) fn open(world: &Arc<World>, user: &str) -> Self {
        let source = own_address();
        let answer = sign_in_request(&credentials(user, PASSWORD)).ask(source, world.api);
        answer.done(201).labelled();
        let body = answer.json();
        let text = |name: &str| body[name].as_str().expect("a text").to_owned();
        let cookie = answer.header("set-cookie").split(';').next().expect("a pair").to_owned();
        Self {
            world: Arc::clone(world),
            id: text("sessionId"),
            cookie,
            csrf: text("csrfToken"),
            source,
            answer,
            forgotten: false,
        }
    }

    /// Leaves without signing out.
    pub(crate) fn forget(mut self) {
        self.forgotten = true;
    }

    pub(crate) fn path(&self, call: &str) -> String {
        format!("/icws/{}/{call}", self.id)
    }

    /// A request with all its credentials.
    pub(crate) fn request<'a>(&self, method: &'a str, call: &str) -> Request<'a> {
        let request = Request::new(method, self.path(call));
        request.header("Cookie", &self.cookie).header("ININ-ICWS-CSRF-Token", &self.csrf)
    }

    #[track_caller]
    pub(crate) fn ask(&self, request: &Request<'_>) -> Answer {
        request.ask(self.source, self.world.api)
    }

    #[track_caller]
    pub(crate) fn call(&self, method: &str, call: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.ask(&self.request(method, call).body(body))
    }

    #[track_caller]
    pub(crate) fn ok(&self, method: &str, call: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.call(method, call, body);
        assert!((200..300).contains(&answer.status), "{method} {call}: {answer:?}");
        answer
    }

    #[track_caller]
    pub(crate) fn poll(&self) -> Vec<Value> {
        self.call("GET", MESSAGES, "").done(200).labelled().json().as_array().expect("an array").clone()
    }

    /// Polls until such a message comes; the others are dropped.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        until(what, || self.poll().into_iter().find(|message| wanted(message)).or_else(rest))
    }

    /// Polls until so many play statuses of a message have come.
    #[track_caller]
    pub(crate) fn statuses(&self, id: &str, count: usize) -> Vec<u64> {
        let mut told = Vec::new();
        until(&format!("{count} statuses of {id}"), || {
            told.extend(
                self.poll().iter().filter(|it| it["unifiedMessageId"] == id).filter_map(|it| it["playStatus"].as_u64()),
            );
            (told.len() >= count).then_some(()).or_else(rest)
        });
        told
    }

    /// Subscribes and returns the full message.
    #[track_caller]
    pub(crate) fn subscribe(&self, topic: &str) -> Value {
        self.call("PUT", topic, "").done(200);
        let told = self.poll();
        told.into_iter().rev().find(|message| message["isDelta"] == false).expect("a full message")
    }

    #[track_caller]
    pub(crate) fn start(&self, id: &str, body: &Value) -> Answer {
        self.call("POST", &play(id, "start"), body.to_string())
    }

    /// Plays where the session's station is.
    #[track_caller]
    pub(crate) fn play(&self, id: &str) -> Answer {
        self.start(id, &json!({"state": 1}))
    }

    /// Plays at a station or number.
    #[track_caller]
    pub(crate) fn play_at(&self, id: &str, target: &str) -> Answer {
        self.start(id, &json!({"state": 1, "playTarget": {"__type": PLAY_TARGET, "target": target}}))
    }

    #[track_caller]
    pub(crate) fn stop(&self, id: &str) -> Answer {
        self.call("POST", &play(id, "stop"), "")
    }

    /// Opens a stream of messages.
    #[track_caller]
    pub(crate) fn stream(&self) -> Stream {
        let request = self.request("GET", MESSAGES).without("ININ-ICWS-CSRF-Token");
        let mut reader =
            BufReader::new(request.header("Accept", "text/event-stream").send(self.source, self.world.api));
        let (status, head) = read_head(&mut reader);
        assert_eq!(status, 200, "{head}");
        Stream { head, reader }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already, and so may the server.
        if !std::thread::panicking() && !self.forgotten {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.call("DELETE", "connection", "")));
        }
    }
}

/// A stream of messages.
pub(crate) struct Stream {
    pub(crate) head: String,
    reader: BufReader<TcpStream>,
}

impl Stream {
    /// The next line as it came; none: it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.reader.read_line(&mut line).expect("a line") > 0).then_some(line)
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Value {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "no message came");
            let line = self.line().expect("the stream goes on");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }

    /// Everything up to its end.
    pub(crate) fn rest(mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("it ends");
        rest
    }
}

/// A request to sign in.
pub(crate) fn sign_in_request(body: &Value) -> Request<'static> {
    Request::new("POST", "/icws/connection").header("Accept-Language", "en").json(body)
}

pub(crate) fn credentials(user: &str, password: &str) -> Value {
    json!({
        "__type": "urn:inin.com:connection:icAuthConnectionRequestSettings",
        "applicationName": "a test", "userID": user, "password": password,
    })
}

/// The call that starts or stops a message.
pub(crate) fn play(id: &str, what: &str) -> String {
    format!("unified-messaging/{id}/voicemail-message/play/{what}")
}

/// Nothing yet: others are to get on meanwhile.
fn rest<T>() -> Option<T> {
    std::thread::sleep(Duration::from_millis(20));
    None
}

/// Makes a file one that nobody has written to for a while.
pub(crate) fn age(path: &Path) {
    let file = File::options().write(true).open(path).expect("there");
    file.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("set");
}

pub(crate) const PLAY_TARGET: &str = "urn:inin.com:unifiedMessaging:voicemailPlayTarget";
pub(crate) const CURRENT_STATION: &str = "urn:inin.com:unifiedMessaging:currentStation";
