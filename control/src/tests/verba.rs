//! The Verba API over its own listener, on shards that only pretend.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

use super::rig::{Client, Rig, eventually, free_tcp_port};
use crate::auth::{KeyHash, Password, Passwords};
use crate::config::VerbaConfig;
use crate::store;
use crate::store::keys::Scope;
use crate::store::seed::{KeySeed, UserSeed};
use crate::store::users::{self, Role, User};

const NOT_FOUND: &str = "The call cannot be found.";

struct Verba {
    rig: Rig,
    address: SocketAddr,
}

/// Status, head and body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }
}

impl Verba {
    fn start(always: &[&str], on_demand: &[&str]) -> Self {
        let address = free_tcp_port();
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let verba = VerbaConfig { listen: Some(address), always: texts(always), on_demand: texts(on_demand) };
        let hash = Passwords::hash_here(&Password::new("right one")).expect("a hash");
        let user = |name: &str, roles: &[Role]| UserSeed {
            name: name.to_owned(),
            password_hash: Some(hash.clone()),
            password_file: None,
            display_name: None,
            extension: None,
            station: None,
            time_zone: Some("Asia/Tokyo".to_owned()),
            roles: roles.to_vec(),
        };
        let key = |name: &str, scope, network: &[&str], requires_token| KeySeed {
            name: format!("{name} application"),
            sha256: Some(KeyHash::of(name)),
            key_file: None,
            scopes: vec![scope],
            networks: network.iter().map(|text| text.parse().expect("a network")).collect(),
            requires_token,
            expires_at: None,
        };
        let (users, keys) = (
            vec![user("anna", &[Role::Verba]), user("bert", &[Role::Icws])],
            vec![
                key("open", Scope::Verba, &[], false),
                key("strict", Scope::Verba, &[], true),
                key("strict2", Scope::Verba, &[], true),
                key("elsewhere", Scope::Verba, &["192.0.2.0/24"], false),
                key("other", Scope::MediaControl, &[], false),
            ],
        );
        let rig = Rig::start_with(1, move |config| {
            (config.verba, config.users, config.api_keys) = (verba, users, keys);
        });
        Self { rig, address }
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = self.send(method, path, headers, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).expect("it reads");
        stream
    }

    /// Asks with the key that needs no token, for an answer as text.
    fn get(&self, query: &str) -> String {
        let answer = self.request("GET", &format!("/verba/api?apiKey=open&responseType=TEXT&{query}"), "", "");
        assert_eq!(answer.status, 200, "{query}");
        answer.text()
    }

    #[track_caller]
    fn ok(&self, query: &str) -> String {
        let text = self.get(query);
        assert!(text.starts_with("code=0\n"), "{query}: {text}");
        text
    }

    #[track_caller]
    fn fails(&self, query: &str, code: u8, part: &str) {
        let text = self.get(query);
        assert!(text.starts_with(&format!("code={code}\n")) && text.contains(part), "{query}: {text}");
    }

    /// Two connections in a relay between these numbers.
    fn call(&self, client: &mut Client, caller: &str, called: &str) -> [String; 2] {
        let pair = [0; 2].map(|_| client.connection(json!({})));
        let numbers = json!({"a": pair[0], "b": pair[1], "caller_number": caller, "called_number": called});
        client.ok("relay.start", numbers);
        pair
    }

    /// The id of the call of a number, once it is found as `status`.
    fn id(&self, number: &str, status: &str) -> String {
        let mut id = String::new();
        eventually("the call is found", || {
            let text = self.get(&format!("action=GetCallInformation&extension={number}&status={status}"));
            id = value(&text, "ccdr_id").unwrap_or_default().to_owned();
            !id.is_empty()
        });
        id
    }

    fn end(&self, client: &mut Client, pair: &[String; 2]) {
        client.ok("connection.delete", json!({"connection_id": pair[0]}));
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn basic(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(credentials))
}

#[test]
fn what_goes_wrong_before_the_action() {
    let verba = Verba::start(&[], &[]);
    assert_eq!(verba.request("GET", "/verba", "", "").status, 404);
    let wrong = verba.request("PUT", "/verba/api?action=SearchCalls", "", "");
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.to_ascii_lowercase().contains("allow: get, post"), "{}", wrong.head);
    assert_eq!(verba.request("GET", &format!("/verba/api?x={}", "y".repeat(17_000)), "", "").status, 413);
    assert_eq!(verba.request("POST", "/verba/api", "", &"y".repeat(17_000)).status, 413);
    let described = verba.request("GET", "/verba/openapi.json", "", "");
    assert!(described.status == 200 && described.text().contains("MuteRecording"));

    for (query, code, part) in [
        ("", 3, "action is missing"),
        ("action=", 3, "action is missing"),
        ("action=Format&apiKey=open", 3, "type=\"Format\""),
        ("action=%3Cb%3E&apiKey=open", 3, "type=\"\""),
        ("action=SearchCalls", 1, "API key"),
        ("action=SearchCalls&apiKey=nobody", 1, "API key"),
        ("action=SearchCalls&apiKey=elsewhere", 1, "API key"),
        ("action=SearchCalls&apiKey=other", 1, "API key"),
        ("action=SearchCalls&apiKey=strict", 1, "token"),
        ("action=SearchCalls&apiKey=strict&token=8d1c", 1, "token"),
        ("action=SearchCalls&apiKey=open&responseType=JSON", 3, "responseType"),
        ("action=SearchCalls&apiKey=open&x=%ff", 3, "UTF-8"),
        ("action=SearchCalls&apiKey=open&token=ignored", 3, "start and end"),
    ] {
        let answer = verba.request("GET", &format!("/verba/api?{query}"), "", "");
        let text = answer.text();
        assert_eq!(answer.status, 200, "{query}");
        assert!(text.contains(&format!("<Response code=\"{code}\"")) && text.contains(part), "{query}: {text}");
        assert!(answer.head.to_ascii_lowercase().contains("content-type: text/xml; charset=utf-8"), "{}", answer.head);
    }
    // By POST, the body wins; a body of another kind is not looked at.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let post = verba.request("POST", "/verba/api?action=x&apiKey=open", form, "ACTION=searchcalls&responsetype=html");
    assert!(post.text().contains("<title>searchcalls</title>") && post.text().contains("start and end"));
    let other = verba.request("POST", "/verba/api?apiKey=open", "Content-Type: text/plain\r\n", "action=SearchCalls");
    assert!(other.text().contains("action is missing"));
}

#[test]
fn tokens_are_for_users_who_may_and_for_one_key() {
    let verba = Verba::start(&[], &[]);
    let ask = |key: &str, headers: &str, rest: &str| {
        let path = format!("/verba/api?action=RequestToken&responseType=TEXT&apiKey={key}{rest}");
        verba.request("GET", &path, headers, "").text()
    };
    for headers in ["Authorization: Bearer x\r\n", "Authorization: Basic !\r\n", "Authorization: Basic YQ==\r\n"] {
        assert!(ask("strict", headers, "").starts_with("code=3\n"), "{headers}");
    }
    assert!(ask("strict", "", "").starts_with("code=1\n"));
    let wrong = ask("strict", &basic("anna:wrong one"), "");
    assert!(wrong.starts_with("code=1\n"));
    assert_eq!(ask("strict", &basic("bert:right one"), ""), wrong, "one text for both");

    let told = ask("strict", &basic("anna:right one"), "&userName=nobody&password=x");
    let token = value(&told, "token").expect("a token").to_owned();
    assert_eq!(token.len(), 36, "a GUID");
    let older = ask("strict", "", "&userName=anna&password=right+one");
    assert!(value(&older, "token").is_some_and(|other| other != token), "{older}");
    let search = |key: &str, token: &str| {
        let span = "start=2026-01-01+00:00&end=2126-01-01+00:00";
        let path = format!("/verba/api?action=SearchCalls&responseType=TEXT&apiKey={key}&token={token}&{span}");
        verba.request("GET", &path, "", "").text()
    };
    assert_eq!(search("strict", &token), "code=0\ntype=SearchCalls\n");
    assert!(search("strict2", &token).starts_with("code=1\n"), "issued under another key");
    let release = |key: &str| {
        let path = format!("/verba/api?action=ReleaseToken&responseType=TEXT&apiKey={key}&token={token}");
        verba.request("GET", &path, "", "").text()
    };
    assert!(release("strict2").starts_with("code=1\n"));
    assert_eq!(release("strict"), "code=0\ntype=ReleaseToken\n");
    assert!(release("strict").starts_with("code=1\n"));
    assert!(search("strict", &token).starts_with("code=1\n"));
    // A user who may not any more has no token either.
    assert_eq!(search("strict", value(&older, "token").expect("a token")), "code=0\ntype=SearchCalls\n");
    let database = store::connect(&store::path_in(&verba.rig.dir.path().join("state"))).expect("the database");
    let anna = users::find(&database, "anna").expect("a table").expect("a user");
    users::update(&database, &User { roles: vec![Role::Icws], ..anna.clone() }, Timestamp::now())
        .expect("she is there");
    for _ in 0..2 {
        assert!(search("strict", value(&older, "token").expect("a token")).starts_with("code=1\n"));
        users::update(&database, &anna, Timestamp::now()).expect("she is there");
    }
    // After some failures it is over for a while, even with the right password.
    let held_back = (0..20).any(|_| ask("strict", &basic("anna:wrong one"), "").contains("Too many attempts"));
    assert!(held_back);
    assert!(ask("strict", &basic("anna:right one"), "").contains("Too many attempts"));
}

#[test]
fn an_ongoing_call_is_muted_and_unmuted_by_id_and_by_number() {
    let verba = Verba::start(&["*"], &[]);
    let mut client = verba.rig.client();
    let pair = verba.call(&mut client, "sip:8856@example.com", "+1 (555) 0100");
    let id = verba.id("8856", "ongoing");
    let state = |caller, called| format!("code=0\ntype=MuteRecording\ncallerMuted={caller}\ncalledMuted={called}\n");
    let mute = "action=MuteRecording";
    assert_eq!(verba.ok(&format!("{mute}&callID={id}")), state(false, false));
    for (value, caller, called) in
        [(1, true, false), (2, false, true), (2, false, true), (3, true, true), (0, false, false)]
    {
        let told = verba.ok(&format!("{mute}&extension=%2B15550100&status=ongoing&mute={value}"));
        assert_eq!(told, state(caller, called));
        assert_eq!(verba.rig.world.started(), format!("mute {caller} {called}"));
        assert_eq!(verba.ok(&format!("{mute}&number=8856&status=ongoing,+next&mute=")), state(caller, called));
    }
    let upper = id.to_ascii_uppercase();
    assert_eq!(verba.ok(&format!("{mute}&callID={upper}&extension=1&mute=2")), state(false, true), "callID decides");
    for (query, code, part) in [
        ("", 3, "callID, or extension"),
        ("&extension=8856", 3, "status"),
        ("&extension=8856&status=any", 3, "status is"),
        ("&extension=+-&status=ongoing", 3, "empty"),
        ("&callID=nonsense&mute=1", 2, NOT_FOUND),
        ("&extension=1&status=ongoing&mute=1", 2, NOT_FOUND),
        ("&extension=8856&status=last", 2, NOT_FOUND),
        ("&extension=8856&status=ongoing&mute=4", 3, "mute is"),
    ] {
        verba.fails(&format!("{mute}{query}"), code, part);
    }
    assert_eq!(verba.ok(&format!("{mute}&callID={id}")), state(false, true), "what failed has changed nothing");
    // A second call of the number: which one is meant can't be told.
    let other = verba.call(&mut client, "8856", "77");
    verba.id("77", "ongoing");
    verba.fails(&format!("{mute}&extension=8856&status=ongoing&mute=1"), 2, "More than one");
    verba.end(&mut client, &other);
    verba.end(&mut client, &pair);
    assert_eq!(verba.id("%2B15550100", "last"), id);
    assert_eq!(verba.ok(&format!("{mute}&callID={id}")), state(false, true), "the state at its end");
    for query in [
        format!("callID={id}"),
        "extension=%2B15550100&status=last".to_owned(),
        "extension=%2B15550100&status=last,ongoing".to_owned(),
    ] {
        verba.fails(&format!("{mute}&{query}&mute=1"), 2, "The recording has ended.");
    }
}

#[test]
fn the_next_call_is_waited_for() {
    let verba = Verba::start(&["8856"], &[]);
    let mut client = verba.rig.client();
    let query = "/verba/api?apiKey=open&responseType=TEXT&action=MuteRecording&mute=1&extension=8856&status=";
    let mut waiting: Vec<_> =
        ["next", "ongoing,%20next"].map(|status| verba.send("GET", &format!("{query}{status}"), "", "")).into();
    // One that goes away does nothing.
    let gone =
        verba.send("GET", "/verba/api?apiKey=open&action=MuteRecording&mute=2&extension=8856&status=next", "", "");
    // Each has been read when a later request on another connection is answered.
    verba.fails("action=MuteRecording&extension=8856&status=ongoing", 2, NOT_FOUND);
    drop(gone);
    verba.fails("action=MuteRecording&extension=8856&status=ongoing", 2, NOT_FOUND);
    // A call nobody records is not waited for.
    verba.call(&mut client, "1", "2");
    verba.fails("action=MuteRecording&extension=2&status=ongoing", 2, "not being recorded");
    verba.call(&mut client, "1", "8856");
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains("code=0") && answer.contains("callerMuted=true\ncalledMuted=false"), "{answer}");
    }
}

#[test]
fn calls_are_searched_and_described() {
    let verba = Verba::start(&[], &["*"]);
    let mut client = verba.rig.client();
    let hostile = "<b>&\"x\"";
    let pair = verba.call(&mut client, hostile, "8856");
    let id = verba.id("8856", "ongoing");
    let span = "start=2026-01-01+00:00&end=2126-01-01+00:00:00.000";
    let found = verba.ok(&format!("action=SearchCalls&status=ongoing&{span}&anynum=88&anynum=zz"));
    assert_eq!(value(&found, "ccdr_id"), Some(id.as_str()));
    assert_eq!(
        (value(&found, "state"), value(&found, "ondemand"), value(&found, "end_time")),
        (Some("0"), Some("1"), None)
    );
    assert_eq!(value(&found, "source_caller_id"), Some(hostile));
    for none in [
        format!("status=recorded&{span}"),
        format!("status=ongoing&{span}&anynum=99"),
        "status=ongoing&start=2020-01-01+00:00&end=2020-01-02+00:00".to_owned(),
    ] {
        assert_eq!(verba.ok(&format!("action=SearchCalls&{none}")), "code=0\ntype=SearchCalls\n");
    }
    for (query, part) in [
        ("status=all&start=2026-01-01+00:00&end=2026-01-02+00:00", "status is"),
        ("end=2026-01-02+00:00", "start and end"),
        ("start=2026-01-01&end=2026-01-02+00:00", "YYYY"),
        ("start=2026-01-03+00:00&end=2026-01-02+00:00", "before"),
        ("start=2026-01-01+00:00&end=2026-01-02+00:00&pagelen=0", "pagelen"),
        ("start=2026-01-01+00:00&end=2026-01-02+00:00&pagelen=1001", "pagelen"),
    ] {
        verba.fails(&format!("action=SearchCalls&{query}"), 3, part);
    }
    let path = format!("/verba/api?apiKey=open&action=GetCallInformation&callID={id}");
    let xml = verba.request("GET", &path, "", "").text();
    assert!(xml.contains("<verbacdr state=\"0\">") && xml.contains(&format!("<ccdr_id>{id}</ccdr_id>")), "{xml}");
    assert!(xml.contains("<source_caller_id>&lt;b&gt;&amp;&quot;x&quot;</source_caller_id>"), "{xml}");
    let platform = value(&found, "platform_call_id").expect("the id of the relay");
    let by_platform = verba.ok(&format!("action=GetCallInformation&platformCallID={platform}"));
    assert_eq!(value(&by_platform, "ccdr_id"), Some(id.as_str()));
    verba.fails("action=GetCallInformation&nativeID=x", 2, NOT_FOUND);
    verba.fails("action=GetCallInformation", 3, "callID");
    verba.fails("action=MuteRecording&platformCallID=x", 3, "callID");
    verba.end(&mut client, &pair);
    // Nobody kept it.
    eventually("it is gone", || verba.get(&format!("action=GetCallInformation&callID={id}")).contains(NOT_FOUND));
}

#[test]
fn recordings_are_kept_fetched_and_deleted() {
    let verba = Verba::start(&["1"], &["2", "3"]);
    let mut client = verba.rig.client();
    let file = |id: &str| verba.rig.dir.path().join(format!("state/recordings/verba/{id}.wav"));
    let media =
        |query: &str| verba.request("GET", &format!("/verba/api?apiKey=open&action=GetMediaEncoded&{query}"), "", "");

    // Kept though on demand.
    let pair = verba.call(&mut client, "2", "x");
    let id = verba.id("2", "ongoing");
    assert_eq!(media(&format!("cid={id}")).status, 404, "it has not ended");
    for query in [
        "extension=2&status=ongoing",
        "extension=2&status=ongoing&type=manualRecord",
        "extension=2&status=ongoing&unmark=0",
    ] {
        assert_eq!(verba.ok(&format!("action=KeepCall&{query}")), "code=0\ntype=KeepCall\n");
    }
    verba.fails(&format!("action=KeepCall&callID={id}&type=other"), 3, "type is");
    verba.fails(&format!("action=KeepCall&callID={id}&unmark=2"), 3, "unmark is");
    verba.fails("action=KeepCall&callID=unknown", 2, NOT_FOUND);
    verba.end(&mut client, &pair);
    assert_eq!(verba.id("2", "last"), id);
    let told = verba.ok(&format!("action=GetCallInformation&callID={id}"));
    assert_eq!((value(&told, "state"), value(&told, "manual")), (Some("1"), Some("1")));
    assert!(value(&told, "end_time").is_some());
    let fetched = media(&format!("cid={id}&format=WAV"));
    assert_eq!((fetched.status, fetched.body), (200, std::fs::read(file(&id)).expect("the file")));
    for (query, status) in
        [("cid=unknown".to_owned(), 404), (format!("cid={id}&format=mp3"), 400), (String::new(), 400)]
    {
        let answer = media(&query);
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.text().contains("<ErrorMessage>"), "{query}");
    }
    assert_eq!(verba.request("GET", &format!("/verba/api?action=GetMediaEncoded&cid={id}"), "", "").status, 403);
    for early in ["responseType=JSON", "x=%ff", "ACTION=getmediaencoded&x=%ff"] {
        assert_eq!(media(&format!("cid={id}&{early}")).status, 400, "{early}");
    }
    // Not kept any more: it goes, with its manifest.
    verba.ok(&format!("action=KeepCall&callID={id}&unmark=1"));
    verba.fails(&format!("action=KeepCall&callID={id}"), 2, NOT_FOUND);
    assert!(!file(&id).exists() && !file(&format!("{id}.wav")).with_extension("wav.json").exists());

    // Not kept at all.
    let pair = verba.call(&mut client, "3", "x");
    let id = verba.id("3", "ongoing");
    assert!(file(&id).exists());
    verba.end(&mut client, &pair);
    eventually("it is thrown away", || !file(&id).exists());

    // Always recorded: kept without asking, and deleted when somebody says so.
    let pair = verba.call(&mut client, "1", "x");
    let id = verba.id("1", "ongoing");
    verba.ok("action=KeepCall&extension=1&status=ongoing&unmark=1");
    verba.end(&mut client, &pair);
    assert_eq!(verba.id("1", "last"), id);
    assert_eq!(verba.ok(&format!("action=DeleteCall&callID={id}")), "code=0\ntype=DeleteCall\n");
    verba.fails(&format!("action=DeleteCall&callID={id}"), 2, NOT_FOUND);
    assert!(!file(&id).exists());

    // While it goes on it is only marked.
    let pair = verba.call(&mut client, "1", "y");
    let id = verba.id("1", "ongoing");
    for _ in 0..2 {
        verba.ok(&format!("action=DeleteCall&callID={id}"));
    }
    assert!(file(&id).exists());
    verba.end(&mut client, &pair);
    eventually("it is deleted at its end", || !file(&id).exists());
    verba.fails("action=DeleteCall", 3, "callID");
}

#[test]
fn a_recording_of_another_interface_is_found_and_stopped_there() {
    let verba = Verba::start(&[], &[]);
    let mut client = verba.rig.client();
    client.ok("events.subscribe", json!({"kinds": ["call.started", "recording.started"]}));
    let [a, b] = verba.call(&mut client, "10", "20");
    let call = client.event("call.started");
    assert_eq!((&call["a"], &call["b"], &call["caller_number"]), (&json!(a), &json!(b), &json!("10")));
    let given =
        json!({"kind": "record", "connection_id": b, "path": "mine.wav", "channels": {"caller": a, "called": b}});
    let started = client.ok("operation.start", given);
    let told = client.event("recording.started");
    assert_eq!((&told["operation_id"], &told["path"]), (&started["operation_id"], &json!("mine.wav")));
    assert_eq!((&told["call_id"], &told["called_number"]), (&call["call_id"], &json!("20")));
    let id = verba.id("20", "ongoing");
    verba.ok(&format!("action=MuteRecording&callID={id}&mute=3"));
    client.ok("operation.stop", json!({"connection_id": b, "operation_id": started["operation_id"]}));
    verba.fails(&format!("action=MuteRecording&callID={id}&mute=0"), 2, "The recording has ended.");
    assert_eq!(verba.id("10", "last"), id);
    verba.fails("action=MuteRecording&extension=10&status=ongoing", 2, "not being recorded");
}

#[test]
fn times_are_those_of_the_user() {
    let verba = Verba::start(&["*"], &[]);
    let mut client = verba.rig.client();
    verba.call(&mut client, "5", "6");
    let id = verba.id("5", "ongoing");
    let path = "/verba/api?action=RequestToken&responseType=TEXT&apiKey=open";
    let told = verba.request("GET", path, &basic("anna:right one"), "").text();
    let token = value(&told, "token").expect("a token");
    let utc = verba.ok(&format!("action=GetCallInformation&callID={id}"));
    let own = verba.ok(&format!("action=GetCallInformation&callID={id}&token={token}"));
    let time =
        |text: &str| -> jiff::civil::DateTime { value(text, "start_time").expect("a time").parse().expect("a time") };
    // Where there is no time zone database, all is told in UTC.
    let ahead = jiff::tz::TimeZone::get("Asia/Tokyo").map_or(0, |_| 9);
    assert_eq!(time(&utc).checked_add(jiff::Span::new().hours(ahead)).expect("in range"), time(&own));
}
