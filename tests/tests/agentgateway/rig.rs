//! The server all rows share, and what one row has of it for itself: agents, telephones, an address to ask from.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ringbridge_control::store::{self, agents};
use ringbridge_control::tls::{self, TlsFiles};
use ringbridge_tests::audio::{Codec, Stream, share, tone, write_wav};
use ringbridge_tests::endpoint::{Endpoint, Speaker, Speech};
use ringbridge_tests::http::Answer;
use ringbridge_tests::https::Https;
use ringbridge_tests::server::{Server, Setup};
use ringbridge_tests::{PATIENCE, http, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The server, and what is not in use of it.
pub(crate) struct World {
    pub(crate) server: Server,
    api: Https,
    agents: Mutex<BTreeMap<u32, Vec<u32>>>,
    phones: Mutex<Vec<Phone>>,
    /// Where events may be posted.
    sinks: Mutex<Vec<TcpListener>>,
    callback: String,
    secure_sinks: Mutex<Vec<TcpListener>>,
    /// What a receiver of events is to serve TLS with.
    pub(crate) callback_tls: TlsFiles,
    _certificates: TempDir,
    rows: AtomicU32,
}

/// A telephone the server knows by number.
#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) number: String,
    pub(crate) endpoint: Endpoint,
    /// The tone it says, in hertz; 0 is silence.
    voice: Arc<AtomicU32>,
    speaker: Mutex<Option<Speaker>>,
}

/// What one row has for itself. All goes back when this is dropped.
pub(crate) struct Desk {
    pub(crate) world: Arc<World>,
    pub(crate) api: Https,
    leased: Mutex<Leased>,
}

#[derive(Default)]
struct Leased {
    agents: Vec<(u32, u32)>,
    guids: BTreeMap<u32, String>,
    phones: Vec<Arc<Phone>>,
}

/// An agent who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) number: u32,
    pub(crate) guid: String,
    /// Its telephone, if the row needs one that answers.
    pub(crate) phone: Option<Arc<Phone>>,
}

/// A running conference.
pub(crate) struct Room {
    pub(crate) id: u64,
    pub(crate) chair: Agent,
}

/// Somebody in a conference.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) address: Value,
    pub(crate) phone: Arc<Phone>,
}

impl World {
    /// Starts it.
    pub(crate) fn start() -> Arc<Self> {
        let certificates = tempfile::tempdir().expect("a directory");
        let files = tls::make_certificate(certificates.path(), &[]).expect("a certificate");
        let api = http::free_port();
        let mut setup = Setup::new(env!("CARGO_BIN_EXE_ringbridge-under-test"))
            .pairs(200)
            .arg("--agentgateway")
            .arg(api.to_string())
            .config(&format!("[tls]\ncert = {:?}\nkey = {:?}", files.cert, files.key));
        let mut pools: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (vdn, numbers) in [(VDN, 101..=240), (OTHER_VDN, 400..=419)] {
            for number in numbers {
                setup = setup.config(&agent(number, EMPTY, &format!("vdn_id = {vdn}")));
                pools.entry(vdn).or_default().push(number);
            }
        }
        for number in INSPECTORS {
            setup = setup.config(&agent(number, EMPTY, &format!("vdn_id = {OTHER_VDN}\ninspector = true")));
            pools.entry(INSPECTOR).or_default().push(number);
        }
        for (number, hash, more) in [
            (WITH_PASSWORD, CORRECT_HORSE, ""),
            (WITH_PHONE, EMPTY, "phone = \"8899\""),
            (WITH_VIDEO, EMPTY, "video = true"),
            (LOCKED, EMPTY, ""),
            (EXPIRED, EMPTY, ""),
            (EXPIRES, EMPTY, ""),
        ] {
            setup = setup.config(&agent(number, hash, more));
        }
        let phones: Vec<Phone> = (8000..8000 + PHONES).map(Phone::open).collect();
        let sinks: Vec<TcpListener> = (0..SINKS).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let secure_sinks: Vec<TcpListener> =
            (0..SECURE_SINKS).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let mut callbacks: Vec<String> =
            sinks.iter().map(|sink| format!("http://{}/events/", sink.local_addr().expect("bound"))).collect();
        let secure = secure_sinks.iter().map(|sink| format!("https://{}/events/", sink.local_addr().expect("bound")));
        callbacks.extend(secure);
        // The same certificate: all of it is on loopback.
        let ca = &files.cert;
        let section =
            format!("[agentgateway]\ncallbacks = {callbacks:?}\ncallback_ca = {ca:?}\n[agentgateway.directory]");
        setup = setup.config(&section);
        for phone in &phones {
            setup = setup.config(&format!("{} = \"{}\"", phone.number, phone.endpoint.address()));
        }
        let server = setup.start();
        let second =
            |hz: u32, seconds: usize| (0..8_000 * seconds).map(|index| tone(hz, 8000, index)).collect::<Vec<_>>();
        for (name, samples) in [
            ("long.wav", second(1000, 30)),
            ("second.wav", second(1000, 1)),
            ("short.wav", second(1000, 1)[..800].to_vec()),
            ("beep.wav", second(1700, 1)[..4000].to_vec()),
            ("music.wav", second(600, 1)[..1600].to_vec()),
            ("alone.wav", second(1300, 30)),
        ] {
            write_wav(&server.prompt("conf/1").join(name), &samples);
            write_wav(&server.prompt("conf/2").join(name), &samples);
        }
        write_wav(&server.prompt("secret.wav"), &second(1000, 1));
        let folder = server.prompt("conf/1");
        std::fs::write(folder.join("broken.wav"), "no wave").expect("written");
        std::fs::write(folder.join("voice.V3"), "of a kind of its own").expect("written");
        std::os::unix::fs::symlink(server.prompt("secret.wav"), folder.join("inside.wav")).expect("a link");
        let outside = server.directory().join("outside.wav");
        write_wav(&outside, &second(1000, 1));
        std::os::unix::fs::symlink(&outside, folder.join("outside.wav")).expect("a link");
        std::os::unix::fs::symlink("/etc", folder.join("etc.wav")).expect("a link");
        std::fs::create_dir(folder.join("folder.wav")).expect("a folder");
        let connection = store::connect(&store::path_in(server.directory())).expect("the database");
        let now = Timestamp::now();
        for (number, locked, expires) in
            [(LOCKED, true, None), (EXPIRED, false, Some(-60)), (EXPIRES, false, Some(5 * 24 * 3600 + 600))]
        {
            let mut agent = agents::find(&connection, number).expect("read").expect("there");
            agent.locked = locked;
            agent.password_expires_at = expires.map(|seconds| now + jiff::SignedDuration::from_secs(seconds));
            agents::update(&connection, &agent, now).expect("written");
        }
        let api = Https::new(api, &files.cert);
        Arc::new(Self {
            server,
            api,
            agents: Mutex::new(pools),
            phones: Mutex::new(phones),
            sinks: Mutex::new(sinks),
            callback: callbacks[0].clone(),
            secure_sinks: Mutex::new(secure_sinks),
            callback_tls: files,
            _certificates: certificates,
            rows: AtomicU32::new(0),
        })
    }

    /// Ends the server.
    pub(crate) fn stop(self) {
        self.server.stop();
    }

    fn lease_agent(&self, pool: u32) -> u32 {
        until("a free agent", || lock(&self.agents).get_mut(&pool)?.pop())
    }

    /// An address events may be posted to, as the configuration has it.
    pub(crate) fn callback(&self) -> String {
        self.callback.clone()
    }

    /// A listener events may be posted to. Nobody else gets it.
    pub(crate) fn sink(&self) -> TcpListener {
        lock(&self.sinks).pop().expect("one for each row that wants one")
    }

    /// A listener events may be posted to over TLS.
    pub(crate) fn secure_sink(&self) -> TcpListener {
        lock(&self.secure_sinks).pop().expect("one for each row that wants one")
    }

    fn lease_phone(&self) -> Arc<Phone> {
        let phone = until("a free telephone", || lock(&self.phones).pop());
        phone.endpoint.forget();
        phone.voice.store(0, Ordering::Relaxed);
        Arc::new(phone)
    }
}

impl Phone {
    fn open(number: u32) -> Self {
        Self {
            number: number.to_string(),
            endpoint: Endpoint::open(),
            voice: Arc::default(),
            speaker: Mutex::default(),
        }
    }

    /// The connection the server has made to it.
    pub(crate) fn called(&self, world: &World) -> Value {
        until(&format!("{} is called", self.number), || self.connection(world))
    }

    /// The same if there is one.
    pub(crate) fn connection(&self, world: &World) -> Option<Value> {
        let label = format!("AgentGateway {}", self.number);
        let listed = world.server.ok("connection.list", json!({}));
        let mut connections = listed["connections"].as_array().expect("a list").iter();
        connections.find(|connection| connection["label"] == *label).cloned()
    }

    /// Answers: sends RTP from now on.
    pub(crate) fn answer(&self, world: &World) {
        let local = self.called(world)["local"].as_str().and_then(|local| local.parse().ok()).expect("an address");
        self.speak_to(local);
    }

    /// Sends RTP from now on.
    pub(crate) fn speak_to(&self, target: std::net::SocketAddr) {
        static SSRC: AtomicU32 = AtomicU32::new(1);
        let voice = Arc::clone(&self.voice);
        let speech = Speech::new(SSRC.fetch_add(1, Ordering::Relaxed));
        let say = move |index| match voice.load(Ordering::Relaxed) {
            0 => 0,
            hz => tone(hz, 8000, index),
        };
        let speaker = self.endpoint.speak(target, speech, say);
        if let Some(before) = lock(&self.speaker).replace(speaker) {
            before.stop();
        }
    }

    /// Falls silent: sends nothing more.
    pub(crate) fn hush(&self) {
        if let Some(speaker) = lock(&self.speaker).take() {
            speaker.stop();
        }
    }

    /// Says a tone from now on; 0 is silence.
    pub(crate) fn say(&self, hz: u32) {
        self.voice.store(hz, Ordering::Relaxed);
    }

    /// What it heard last: `samples` of the newest stream, once they have come after this was called.
    pub(crate) fn listen(&self, samples: usize) -> Vec<i16> {
        self.endpoint.forget();
        self.endpoint.until("something is heard", |_| {
            let stream = self.endpoint.stream(Codec::Pcmu)?;
            // What was on its way already is left out.
            let from = stream.samples.len().checked_sub(samples).filter(|from| *from >= SKIPPED)?;
            Some(stream.samples[from..].to_vec())
        })
    }

    /// Waits until the share of a tone in what it hears is in a range.
    #[track_caller]
    pub(crate) fn hears(&self, hz: u32, range: std::ops::Range<f64>) {
        self.endpoint.forget();
        let began = Instant::now();
        let mut heard = None;
        while !heard.is_some_and(|share| range.contains(&share)) {
            assert!(began.elapsed() < PATIENCE, "{} never hears {hz} Hz in {range:?}, but {heard:?}", self.number);
            std::thread::sleep(Duration::from_millis(8));
            let samples = self.endpoint.stream(Codec::Pcmu).map(|stream| stream.samples).unwrap_or_default();
            let last = samples.len().checked_sub(LISTENED).filter(|from| *from >= SKIPPED);
            heard = last.map(|from| share(&samples[from..], hz));
        }
    }

    /// What it hears of one stream from a timestamp on, so many samples.
    pub(crate) fn after_stamp(&self, ssrc: u32, timestamp: u32, samples: usize) -> Vec<i16> {
        self.endpoint.until("a fifth of a second after the stamp", |_| {
            let stream: Stream = self.endpoint.stream_of(ssrc, Codec::Pcmu)?;
            let from = stream.index(timestamp)?;
            Some(stream.samples.get(from..from + samples)?.to_vec())
        })
    }
}

impl Desk {
    pub(crate) fn open(world: &Arc<World>) -> Self {
        let row = world.rows.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = (row + 2).to_be_bytes();
        let api = world.api.from_address(Ipv4Addr::new(127, 7, high, low));
        Self { world: Arc::clone(world), api, leased: Mutex::default() }
    }

    // Requests

    /// One request.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, guid: Option<&str>, body: &[u8]) -> Answer {
        let mut headers = vec![("content-type", "application/json; charset=UTF-8")];
        headers.extend(guid.map(|guid| ("Guid", guid)));
        self.api.request(method, path, &headers, body)
    }

    /// One request whose answer is JSON of the one form all have, with its `retcode`.
    #[track_caller]
    pub(crate) fn retcode(&self, method: &str, path: &str, guid: Option<&str>, body: &[u8]) -> String {
        let answer = self.send(method, path, guid, body);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        retcode(&answer)
    }

    /// One operation of the family.
    #[track_caller]
    pub(crate) fn ask_whole(&self, agent: &Agent, operation: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let method = if operation == "queryvdnconfid" { "GET" } else { "POST" };
        let answer = self.send(method, &conf_path(agent.number, operation), Some(&agent.guid), body.as_bytes());
        assert_eq!(answer.status, 200, "{operation}: {answer:?}");
        answer
    }

    #[track_caller]
    pub(crate) fn ask(&self, agent: &Agent, operation: &str, body: Value) -> Value {
        self.ask_whole(agent, operation, &body).json()
    }

    /// An operation that has to succeed; its result.
    #[track_caller]
    pub(crate) fn ok(&self, agent: &Agent, operation: &str, body: Value) -> Value {
        let answer = self.ask(agent, operation, body);
        assert_eq!(
            (&answer["retcode"], &answer["message"]),
            (&json!("0"), &json!("success")),
            "{operation}: {answer}\n{}",
            self.world.server.log().lines().rev().take(12).collect::<Vec<_>>().join("\n")
        );
        answer["result"].clone()
    }

    /// An operation that has to succeed; from where on it can be heard.
    #[track_caller]
    pub(crate) fn effect(&self, agent: &Agent, operation: &str, body: Value) -> Value {
        let answer = self.ask_whole(agent, operation, &body);
        assert_eq!(answer.json()["retcode"], "0", "{operation}: {answer:?}");
        effect_of(&answer).unwrap_or_else(|| panic!("{operation}: no effect in {}", answer.head))
    }

    #[track_caller]
    pub(crate) fn fails(&self, agent: &Agent, operation: &str, body: Value, code: &str) {
        let answer = self.ask(agent, operation, body.clone());
        assert_eq!(answer["retcode"], code, "{operation} {body}: {answer}");
        assert_eq!(answer["result"], json!({}), "{operation} {body}: {answer}");
    }

    /// An operation that fails below for that cause.
    #[track_caller]
    pub(crate) fn fails_below(&self, agent: &Agent, operation: &str, body: Value, cause: u32) {
        let answer = self.ask(agent, operation, body.clone());
        let told = json!({
            "message": format!("Unknown ERROR._{cause}"), "retcode": "100-007", "result": {"errorReason": cause},
        });
        assert_eq!(answer, told, "{operation} {body}");
    }

    // Agents

    /// A work number of this row's own that is not signed in.
    pub(crate) fn number(&self) -> u32 {
        self.number_of(VDN)
    }

    /// The same of a pool.
    pub(crate) fn number_of(&self, pool: u32) -> u32 {
        let number = self.world.lease_agent(pool);
        lock(&self.leased).agents.push((pool, number));
        number
    }

    /// A telephone of this row's own.
    pub(crate) fn phone(&self) -> Arc<Phone> {
        let phone = self.world.lease_phone();
        lock(&self.leased).phones.push(Arc::clone(&phone));
        phone
    }

    /// Signs in with that body; the answer as it is.
    #[track_caller]
    pub(crate) fn sign_in_with(&self, number: u32, force: bool, body: &Value) -> Answer {
        let path = path("onlineagent", number, if force { "forcelogin" } else { "" });
        let answer = self.send("PUT", &path, None, body.to_string().as_bytes());
        if let Some(guid) = guid_of(&answer) {
            lock(&self.leased).guids.insert(number, guid);
        }
        answer
    }

    #[track_caller]
    pub(crate) fn signed_in(&self, number: u32, phone: Option<Arc<Phone>>, more: Value) -> Agent {
        let telephone = phone.as_ref().map_or("1", |phone| phone.number.as_str());
        let mut body = json!({"password": "", "phonenum": telephone});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.sign_in_with(number, false, &body);
        assert_eq!(answer.json()["retcode"], "0", "{answer:?}");
        Agent { number, guid: guid_of(&answer).expect("a Guid"), phone }
    }

    /// An agent who is signed in, with a telephone nobody can call.
    #[track_caller]
    pub(crate) fn agent(&self) -> Agent {
        self.signed_in(self.number(), None, json!({}))
    }

    /// An agent who is signed in, with a telephone that can be called. The events of the sign-in are taken.
    #[track_caller]
    pub(crate) fn agent_with_phone(&self) -> Agent {
        self.agent_of(VDN)
    }

    #[track_caller]
    pub(crate) fn agent_of(&self, pool: u32) -> Agent {
        let phone = self.phone();
        let agent = self.signed_in(self.number_of(pool), Some(phone), json!({}));
        self.event(&agent, "AgentState_Ready");
        agent
    }

    // Events

    /// One poll; the event, or null.
    #[track_caller]
    pub(crate) fn poll(&self, agent: &Agent) -> Value {
        let answer = self.send("GET", &path("agentevent", agent.number, ""), Some(&agent.guid), b"").json();
        assert_eq!((&answer["retcode"], &answer["message"]), (&json!("0"), &json!("")), "{answer}");
        answer["event"].clone()
    }

    /// Events up to the next of that type.
    #[track_caller]
    pub(crate) fn events_until(&self, agent: &Agent, wanted: &str) -> Vec<Value> {
        let mut events = Vec::new();
        until(&format!("event {wanted}"), || {
            let event = self.poll(agent);
            let found = event["eventType"] == wanted;
            if !event.is_null() {
                assert_eq!(event["workNo"], agent.number.to_string());
                assert!(event["eventGenTime"].is_u64(), "{event}");
                events.push(event);
            }
            found.then_some(())
        });
        events
    }

    /// The content of the next event of that type; others before it are passed over.
    #[track_caller]
    pub(crate) fn event(&self, agent: &Agent, wanted: &str) -> Value {
        self.events_until(agent, wanted).pop().unwrap()["content"].clone()
    }

    /// The types of the events up to the next of that type.
    #[track_caller]
    pub(crate) fn types_until(&self, agent: &Agent, wanted: &str) -> Vec<String> {
        let events = self.events_until(agent, wanted);
        events.iter().map(|event| event["eventType"].as_str().unwrap().to_owned()).collect()
    }

    /// The next `AgentConf_ParticipantChanged` of that type.
    #[track_caller]
    pub(crate) fn change(&self, agent: &Agent, kind: u32) -> Value {
        until(&format!("change {kind}"), || {
            let change = self.event(agent, "AgentConf_ParticipantChanged");
            (change["changeType"] == kind).then_some(change)
        })
    }

    /// Everything up to an event that is provoked for that: what was to come has come before. For a chair.
    #[track_caller]
    pub(crate) fn drain(&self, room: &Room) -> Vec<Value> {
        let own = |attribute: u32| with(&agent_address(room.chair.number), json!({"attribute": attribute}));
        self.ok(&room.chair, "changeparticipantmode", own(1));
        let mut events = Vec::new();
        until("the event of the change", || {
            let event = self.poll(&room.chair);
            let own = event["content"]["changeType"] == 3
                && event["content"]["participant"] == room.chair.address()["address"];
            events.push(event);
            own.then_some(())
        });
        events.pop();
        self.ok(&room.chair, "changeparticipantmode", own(3));
        self.change(&room.chair, 4);
        events
    }

    // Conferences

    /// A running conference of a new agent.
    #[track_caller]
    pub(crate) fn room(&self) -> Room {
        self.room_with(json!({"memberNum": 6}))
    }

    #[track_caller]
    pub(crate) fn room_with(&self, body: Value) -> Room {
        let chair = self.agent_with_phone();
        self.room_of(chair, body)
    }

    #[track_caller]
    pub(crate) fn room_of(&self, chair: Agent, body: Value) -> Room {
        self.ok(&chair, "requestagentconf", body);
        chair.phone.as_ref().unwrap().answer(&self.world);
        let id = self.event(&chair, "AgentConf_RequestSuccess")["confId"].as_u64().expect("a number");
        Room { id, chair }
    }

    /// Another agent who takes part. Nobody's events of that are left.
    #[track_caller]
    pub(crate) fn second(&self, room: &Room) -> Agent {
        let agent = self.agent_with_phone();
        self.take_in(room, &agent);
        agent
    }

    /// An agent takes part.
    #[track_caller]
    pub(crate) fn take_in(&self, room: &Room, agent: &Agent) {
        self.ok(&room.chair, "batchaddparticipant", json!({"addresses": [agent_address(agent.number)]}));
        self.event(agent, "AgentConf_Ringing");
        self.ok(agent, "answeragentconf", Value::Null);
        agent.phone.as_ref().unwrap().answer(&self.world);
        self.event(agent, "AgentConf_SelfJoinResult");
        self.change(&room.chair, 0);
    }

    /// A telephone that takes part.
    #[track_caller]
    pub(crate) fn guest(&self, room: &Room) -> Party {
        let phone = self.phone();
        let address = phone_address(&phone.number);
        self.ok(&room.chair, "batchaddparticipant", json!({"addresses": [address]}));
        phone.answer(&self.world);
        let change = self.change(&room.chair, 0);
        assert_eq!((&change["result"], &change["participant"]), (&json!(0), &address["address"]), "{change}");
        Party { address, phone }
    }

    /// What `queryconfinfos` says of a conference; null if nothing.
    #[track_caller]
    pub(crate) fn info(&self, agent: &Agent, id: u64) -> Value {
        self.ok(agent, "queryconfinfos", json!({"confIds": [id]}))["confs"][0].clone()
    }

    /// What it says of one participant.
    #[track_caller]
    pub(crate) fn info_of(&self, room: &Room, address: &Value) -> Value {
        let info = self.info(&room.chair, room.id);
        let found =
            info["addresses"].as_array().expect("a list").iter().find(|entry| entry["address"] == address["address"]);
        found.cloned().unwrap_or_default()
    }
}

impl Agent {
    /// The telephone of an agent that has one.
    pub(crate) fn phone(&self) -> &Phone {
        self.phone.as_deref().expect("a telephone")
    }

    /// As an address.
    pub(crate) fn address(&self) -> Value {
        agent_address(self.number)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let leased = std::mem::take(&mut *lock(&self.leased));
        for (number, guid) in &leased.guids {
            let out = path("onlineagent", *number, "forcelogout");
            // A row that fails may leave anything behind.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let code = self.retcode("DELETE", &out, Some(guid), b"");
                if code == "000-003" {
                    let body = json!({"password": "", "phonenum": "1"});
                    let answer = self.sign_in_with(*number, true, &body);
                    self.retcode("DELETE", &out, guid_of(&answer).as_deref(), b"");
                }
            }));
        }
        for phone in leased.phones {
            phone.hush();
            // Whoever still holds it in a row that failed keeps it.
            if let Some(phone) = Arc::into_inner(phone) {
                lock(&self.world.phones).push(phone);
            }
        }
        for (pool, number) in leased.agents {
            lock(&self.world.agents).entry(pool).or_default().insert(0, number);
        }
    }
}

/// The session id an answer gives.
pub(crate) fn guid_of(answer: &Answer) -> Option<String> {
    let line = answer.head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-guid: "))?;
    line.split_once("JSESSIONID=").map(|(_, guid)| guid.trim().to_owned())
}

/// From where on it can be heard, as an answer's header says.
pub(crate) fn effect_of(answer: &Answer) -> Option<Value> {
    let line = answer.head.lines().find(|line| line.to_ascii_lowercase().starts_with("ringbridge-effect: "))?;
    serde_json::from_str(line.split_once(": ")?.1).ok()
}

/// The `retcode` of an answer that has the one form all have.
#[track_caller]
pub(crate) fn retcode(answer: &Answer) -> String {
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/json; charset=utf-8"), "{head}");
    let body = answer.json();
    assert!(body["message"].is_string(), "{body}");
    body["retcode"].as_str().expect("a text").to_owned()
}

pub(crate) fn path(group: &str, agent: u32, operation: &str) -> String {
    let slash = if operation.is_empty() { "" } else { "/" };
    format!("/agentgateway/resource/{group}/{agent}{slash}{operation}")
}

pub(crate) fn conf_path(agent: u32, operation: &str) -> String {
    path("agentconf", agent, operation)
}

pub(crate) fn agent_address(number: u32) -> Value {
    json!({"addressType": "9", "address": number.to_string()})
}

pub(crate) fn phone_address(number: &str) -> Value {
    json!({"addressType": "6", "address": number})
}

/// An object with further members.
pub(crate) fn with(value: &Value, more: Value) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

/// What is played to all or one.
pub(crate) fn voice(name: &str) -> Value {
    json!({"voicePath": format!("D:/conf/{VDN}/{name}")})
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn agent(number: u32, hash: &str, more: &str) -> String {
    format!("[[agents]]\nwork_number = {number}\npassword_hash = \"{hash}\"\n{more}")
}

/// Most agents are of this VDN.
pub(crate) const VDN: u32 = 1;
pub(crate) const OTHER_VDN: u32 = 2;
/// The pool of inspectors, who are of the other VDN.
pub(crate) const INSPECTOR: u32 = 3;
const INSPECTORS: std::ops::RangeInclusive<u32> = 500..=509;
pub(crate) const WITH_PASSWORD: u32 = 600;
pub(crate) const WITH_PHONE: u32 = 601;
pub(crate) const WITH_VIDEO: u32 = 602;
pub(crate) const LOCKED: u32 = 603;
pub(crate) const EXPIRED: u32 = 604;
pub(crate) const EXPIRES: u32 = 605;
/// Nobody of that number exists.
pub(crate) const NOBODY: u32 = 999_999;
const PHONES: u32 = 48;
/// Rows that have events posted.
const SINKS: usize = 10;
/// Rows that have them posted over TLS.
const SECURE_SINKS: usize = 3;
/// Hashes that are quickly checked, of the empty password and of `correct-horse`.
pub(crate) const EMPTY: &str =
    "$argon2id$v=19$m=8,t=1,p=1$cmluZ2JyaWRnZXRlc3RzIQ$WiMvyb7ZiaIQWLYE0B6EcJ8agg3tWap268WIY7vW98M";
pub(crate) const CORRECT_HORSE: &str =
    "$argon2id$v=19$m=8,t=1,p=1$cmluZ2JyaWRnZXRlc3RzIQ$CgEGl3C/yjXrKa/5IVFcx5rBCu0X2Q3oyl6joUwXKh0";
/// Samples that may have been on their way when somebody began to listen.
const SKIPPED: usize = 800;
/// Samples a tone is judged by.
const LISTENED: usize = 1600;
