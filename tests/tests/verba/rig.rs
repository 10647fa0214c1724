//! A client's view of the API, and calls for it to find.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringbridge_control::auth::{Password, Passwords};
use ringbridge_control::client::Client;
use ringbridge_tests::http::{self, Answer, Held};
use ringbridge_tests::server::{Server, Setup, text};
use ringbridge_tests::until;
use roxmltree::Document;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The key that needs no token.
pub(crate) const OPEN: &str = "a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3f001";
/// The key that needs one.
pub(crate) const STRICT: &str = "a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3f002";
/// Another that needs one.
pub(crate) const STRICT2: &str = "a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3f003";
/// The key that is valid in `127.77.0.0/16` only, with a token.
pub(crate) const ELSEWHERE: &str = "a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3f004";
/// The key that has expired.
pub(crate) const EXPIRED: &str = "a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3f005";
/// The key of another API.
pub(crate) const OTHER_API: &str = "a7c2a0f4-3c0a-4e57-9a35-0d9cb1a3f006";
/// Calls of it are recorded.
pub(crate) const ALWAYS: &str = "1000";
/// Calls of it are recorded and thrown away.
pub(crate) const ON_DEMAND: &str = "2000";
pub(crate) const PASSWORD: &str = "right:öne";
pub(crate) const NOT_FOUND: &str = "The call cannot be found.";
pub(crate) const ENDED: &str = "The recording has ended.";
/// A span every call of a test is in.
pub(crate) const SPAN: &str = "start=2026-01-01+00:00&end=2126-01-01+00:00";
/// Every action.
pub(crate) const ACTIONS: [&str; 8] = [
    "RequestToken",
    "ReleaseToken",
    "MuteRecording",
    "KeepCall",
    "SearchCalls",
    "GetCallInformation",
    "GetMediaEncoded",
    "DeleteCall",
];

/// A server with the API, as most rows share one.
pub(crate) struct Serving {
    pub(crate) server: Server,
    pub(crate) api: SocketAddr,
}

impl Serving {
    /// Starts one. `top` are further lines of the configuration.
    pub(crate) fn start(pairs: u16, shards: u8, top: &str) -> Self {
        Self::start_with(pairs, shards, top, |setup| setup)
    }

    pub(crate) fn start_with(pairs: u16, shards: u8, top: &str, change: impl FnOnce(Setup) -> Setup) -> Self {
        let api = http::free_port();
        let setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test")).pairs(pairs).shards(shards);
        let setup = setup.arg("--verba").arg(api.to_string()).config(top).config(&config());
        Self { server: change(setup).start(), api }
    }

    /// A client of its own.
    pub(crate) fn rig(&self) -> Rig {
        static ROWS: AtomicU32 = AtomicU32::new(1);
        let row = ROWS.fetch_add(1, Ordering::Relaxed);
        Rig {
            api: self.api,
            control: self.server.connect(),
            directory: self.server.directory().to_owned(),
            row,
            calls: Vec::new(),
        }
    }
}

static SHARED: Mutex<Option<Serving>> = Mutex::new(None);

/// A client of the server most rows share, which is started for the first of them.
pub(crate) fn shared() -> Rig {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.get_or_insert_with(|| Serving::start(64, 1, "")).rig()
}

/// Ends the shared server, which has to end well.
pub(crate) fn end_shared() {
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(serving) = shared {
        serving.server.stop();
    }
}

/// Users and keys.
fn config() -> String {
    let mut text = format!("[verba]\nalways = [\"{ALWAYS}\"]\non_demand = [\"{ON_DEMAND}\"]\n");
    let hash = |password: &str| Passwords::hash_here(&Password::new(password)).expect("a hash").as_str().to_owned();
    static HASH: OnceLock<String> = OnceLock::new();
    let hash = HASH.get_or_init(|| hash(PASSWORD));
    let mut user = |name: &str, rest: &str| {
        let _ = write!(text, "[[users]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\n{rest}\n");
    };
    user("anna", "roles = [\"verba\"]");
    user("tokyo", "roles = [\"verba\"]\ntime_zone = \"Asia/Tokyo\"");
    user("root", "roles = [\"admin\"]");
    user("bert", "roles = [\"icws\"]");
    user("nobody's", "");
    for number in 0..8 {
        user(&format!("user{number}"), "roles = [\"verba\"]");
    }
    let mut key = |name: &str, key: &str, rest: &str| {
        let hash = hex(&Sha256::digest(key));
        let _ = write!(text, "[[api_keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n");
    };
    key("open", OPEN, "scopes = [\"verba\"]");
    key("strict", STRICT, "scopes = [\"verba\"]\nrequires_token = true");
    key("strict2", STRICT2, "scopes = [\"verba\"]\nrequires_token = true");
    let elsewhere = "scopes = [\"verba\"]\nrequires_token = true\nnetworks = [\"127.77.0.0/16\"]";
    key("elsewhere", ELSEWHERE, elsewhere);
    key("expired", EXPIRED, "scopes = [\"verba\"]\nexpires_at = \"2026-01-01T00:00:00Z\"");
    key("other", OTHER_API, "scopes = [\"mediacontrol\"]");
    text
}

/// A call: caller and called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pair(pub(crate) [String; 2]);

/// One row's client.
pub(crate) struct Rig {
    pub(crate) api: SocketAddr,
    pub(crate) control: Client,
    pub(crate) directory: PathBuf,
    row: u32,
    calls: Vec<Pair>,
}

impl Rig {
    // Numbers, keys, addresses of this row alone

    /// A number no other row has.
    pub(crate) fn number(&self, which: u32) -> String {
        format!("7{:05}{which:03}", self.row)
    }

    /// An address of this machine no other row asks from.
    pub(crate) fn address(&self) -> IpAddr {
        let [_, _, high, low] = self.row.to_be_bytes();
        Ipv4Addr::new(127, 99, high, low).into()
    }

    /// Where the file of a recording by rule is.
    pub(crate) fn file(&self, id: &str) -> PathBuf {
        self.directory.join(format!("recordings/verba/{id}.wav"))
    }

    /// The manifest beside it.
    pub(crate) fn manifest(&self, id: &str) -> Value {
        let path = self.directory.join(format!("recordings/verba/{id}.wav.json"));
        serde_json::from_slice(&std::fs::read(path).expect("a manifest")).expect("JSON")
    }

    // Requests

    /// Any request.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        http::request(self.api, method, target, headers, body.as_bytes())
    }

    /// A GET as it stands.
    #[track_caller]
    pub(crate) fn get(&self, query: &str) -> Reply {
        Reply::of(self.request("GET", &format!("/verba/api?{query}"), &[], ""))
    }

    /// A POST of a form.
    #[track_caller]
    pub(crate) fn post(&self, query: &str, form: &str) -> Reply {
        Reply::of(self.request("POST", &format!("/verba/api?{query}"), &[FORM], form))
    }

    /// The same from the address of this row.
    #[track_caller]
    pub(crate) fn get_from(&self, source: IpAddr, query: &str, headers: &[(&str, &str)]) -> Reply {
        Reply::of(http::request_from(source, self.api, "GET", &format!("/verba/api?{query}"), headers, b""))
    }

    /// Asks with the key that needs no token.
    #[track_caller]
    pub(crate) fn ask(&self, query: &str) -> Reply {
        self.get(&format!("apiKey={OPEN}&{query}"))
    }

    /// The same, which has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self, query: &str) -> Reply {
        let reply = self.ask(query);
        assert!(reply.status == 200 && reply.code() == "0", "{query}: {reply:?}");
        reply
    }

    /// The same, which has to fail so.
    #[track_caller]
    pub(crate) fn fails(&self, query: &str, code: u8, part: &str) {
        let reply = self.ask(query);
        assert!(reply.code() == code.to_string() && reply.error().contains(part), "{query}: {reply:?}");
    }

    /// Begins a request whose answer may take long.
    #[track_caller]
    pub(crate) fn hold(&self, query: &str) -> Held {
        http::begin(self.api, "GET", &format!("/verba/api?apiKey={OPEN}&{query}"), &[], b"")
    }

    /// Returns when what was sent before is being carried out: requests are taken up in the order they came.
    pub(crate) fn settle(&self) {
        for _ in 0..2 {
            self.ok(&format!("action=SearchCalls&{SPAN}&pagelen=1"));
        }
    }

    /// Asks for a token.
    #[track_caller]
    pub(crate) fn token(&self, user: &str, key: &str) -> String {
        let headers = basic(user, PASSWORD);
        let query = format!("action=RequestToken&apiKey={key}");
        let reply = self.get_from(self.address(), &query, &[("authorization", &headers)]);
        reply.attribute("token").unwrap_or_else(|| panic!("{reply:?}"))
    }

    // Calls

    /// A call of the control socket.
    #[track_caller]
    pub(crate) fn native(&self, method: &str, params: Value) -> Value {
        self.control.call(method, &params).unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// A connection whose endpoint nobody listens at.
    #[track_caller]
    pub(crate) fn connection(&self) -> String {
        text(&self.native("connection.create", json!({"remote": "127.0.0.1:9"}))["connection_id"])
    }

    /// A call between two numbers.
    #[track_caller]
    pub(crate) fn call(&mut self, caller: &str, called: &str) -> Pair {
        let connections = [self.connection(), self.connection()];
        self.wire(connections, caller, called)
    }

    /// A call of two connections.
    #[track_caller]
    pub(crate) fn wire(&mut self, connections: [String; 2], caller: &str, called: &str) -> Pair {
        let [a, b] = &connections;
        self.native("relay.start", json!({"a": a, "b": b, "caller_number": caller, "called_number": called}));
        let pair = Pair(connections);
        self.calls.push(pair.clone());
        pair
    }

    /// Calls a number whose calls are recorded; the call and its id.
    #[track_caller]
    pub(crate) fn recorded(&mut self, caller: &str) -> (Pair, String) {
        let pair = self.call(caller, ALWAYS);
        let id = self.id(caller, "ongoing");
        (pair, id)
    }

    /// The same with a number whose calls are recorded on demand.
    #[track_caller]
    pub(crate) fn on_demand(&mut self, caller: &str) -> (Pair, String) {
        let pair = self.call(caller, ON_DEMAND);
        let id = self.id(caller, "ongoing");
        (pair, id)
    }

    /// Records a call between two numbers of one's own over the control socket; the call, the recording's id and the
    /// operation's.
    #[track_caller]
    pub(crate) fn native_recording(&mut self, caller: &str, called: &str) -> (Pair, String, String) {
        let pair = self.call(caller, called);
        let operation = self.record(&pair);
        let id = self.id(called, "ongoing");
        (pair, id, operation)
    }

    /// Starts a recording over the control socket.
    #[track_caller]
    pub(crate) fn record(&self, pair: &Pair) -> String {
        let [caller, called] = &pair.0;
        let given =
            json!({"kind": "record", "connection_id": caller, "channels": {"caller": caller, "called": called}});
        text(&self.native("operation.start", given)["operation_id"])
    }

    /// The id of the recording of a number, once it is found as `status`.
    #[track_caller]
    pub(crate) fn id(&self, number: &str, status: &str) -> String {
        let query = format!("action=GetCallInformation&extension={}&status={status}", encode(number));
        until(&format!("a call of {number} that is {status}"), || self.ask(&query).child("ccdr_id"))
    }

    /// Hangs up.
    #[track_caller]
    pub(crate) fn hang_up(&mut self, pair: &Pair) {
        self.calls.retain(|other| other != pair);
        for id in &pair.0 {
            self.native("connection.delete", json!({"connection_id": id}));
        }
    }

    /// Hangs up, and waits until the recording has ended.
    #[track_caller]
    pub(crate) fn finish(&mut self, pair: &Pair, id: &str) {
        self.hang_up(pair);
        until("the end of the recording", || {
            let state = self.ask(&format!("action=GetCallInformation&callID={id}")).cdr_state();
            (state.as_deref() != Some("0")).then_some(())
        });
    }

    /// Waits until a recording is nowhere any more.
    #[track_caller]
    pub(crate) fn gone(&self, id: &str) {
        until("nothing is left of it", || {
            let reply = self.ask(&format!("action=GetCallInformation&callID={id}"));
            let manifest = self.file(id).with_extension("wav.json");
            (reply.error() == NOT_FOUND && !self.file(id).exists() && !manifest.exists()).then_some(())
        });
    }

    /// Who is muted, as the API tells it.
    #[track_caller]
    pub(crate) fn muted(&self, id: &str) -> (String, String) {
        self.ok(&format!("action=MuteRecording&callID={id}")).muted()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for Pair(ids) in std::mem::take(&mut self.calls) {
            for id in ids {
                // Gone with its server, or before.
                let _ = self.control.call("connection.delete", &json!({"connection_id": id}));
            }
        }
    }
}

/// The header of a form.
pub(crate) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// The header of a name and password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A value as it stands in a query.
pub(crate) fn encode(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        let _ = if byte.is_ascii_alphanumeric() {
            write!(text, "{}", char::from(byte))
        } else {
            write!(text, "%{byte:02X}")
        };
        text
    })
}

/// An answer, in XML unless it was asked for otherwise.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn of(answer: Answer) -> Self {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Self { status: answer.status, head: answer.head, text }
    }

    #[track_caller]
    fn document(&self) -> Document<'_> {
        let document = Document::parse(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let root = document.root_element();
        let elements: Vec<_> = root.children().filter(roxmltree::Node::is_element).collect();
        assert!(root.has_tag_name("VerbaApi") && elements.len() == 1, "{self:?}");
        assert!(elements[0].has_tag_name("Response"), "{self:?}");
        assert!(self.text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"), "{self:?}");
        assert!(self.head.contains("content-type: text/xml; charset=utf-8"), "{self:?}");
        document
    }

    /// An attribute of the response.
    #[track_caller]
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        let document = self.document();
        let response = document.root_element().first_element_child()?;
        response.attribute(name).map(str::to_owned)
    }

    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.attribute("code").expect("a code")
    }

    #[track_caller]
    pub(crate) fn kind(&self) -> String {
        self.attribute("type").expect("a type")
    }

    /// The text of the error; empty if it is none.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        self.child("ErrorMessage").unwrap_or_default()
    }

    /// The text of the first element of that name.
    #[track_caller]
    pub(crate) fn child(&self, name: &str) -> Option<String> {
        let document = self.document();
        let found = document.descendants().find(|node| node.has_tag_name(name))?;
        Some(found.text().unwrap_or_default().to_owned())
    }

    /// The texts of all elements of that name.
    #[track_caller]
    pub(crate) fn children(&self, name: &str) -> Vec<String> {
        let document = self.document();
        let found = document.descendants().filter(|node| node.has_tag_name(name));
        found.map(|node| node.text().unwrap_or_default().to_owned()).collect()
    }

    /// The `state` of the first call.
    #[track_caller]
    pub(crate) fn cdr_state(&self) -> Option<String> {
        let document = self.document();
        let found = document.descendants().find(|node| node.has_tag_name("verbacdr"))?;
        found.attribute("state").map(str::to_owned)
    }

    /// Who is muted.
    #[track_caller]
    pub(crate) fn muted(&self) -> (String, String) {
        let of = |name| self.attribute(name).unwrap_or_else(|| panic!("{self:?}"));
        (of("callerMuted"), of("calledMuted"))
    }

    /// A value of an answer in text.
    pub(crate) fn line(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The state `mute` stands for.
pub(crate) fn state(mute: u8) -> (String, String) {
    ((mute & 1 == 1).to_string(), (mute & 2 == 2).to_string())
}
