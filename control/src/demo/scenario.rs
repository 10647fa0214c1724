//! Drives a server through everything the demo shows, over its control socket and with real endpoints.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::DemoError;
use super::clips::{self, SILENCE, SPEAKERS};
use super::endpoint::Endpoint;
use super::judge::{histogram, micros};
use super::server::RECORDINGS;
use super::session::{Change, Effect, Member, Recorded, Session};
use crate::client::{Client, ClientError};

/// Upper bound of every wait for something to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// Packets of silence said first, while the server learns where an endpoint is.
const LEARNING_PACKETS: usize = 12;
/// Packets everybody has to have heard before it counts.
const SETTLED_PACKETS: usize = 25;
/// How long all three talk, and are recorded.
const TALK: Duration = Duration::from_millis(3000);
/// How long the announcement is heard before it is stopped; it would go on for three seconds more.
const ANNOUNCEMENT: Duration = Duration::from_millis(2500);
/// How long everything else is listened to.
const LISTEN: Duration = Duration::from_millis(1500);
/// Name of the announcement's file.
pub(super) const ANNOUNCEMENT_FILE: &str = "announcement.wav";

/// Steps of the progress bar.
pub(super) const STEPS: u64 = 9;

/// A conversation with the server.
pub(super) struct Scenario<'a> {
    client: Arc<Client>,
    events: Arc<Mutex<Vec<Value>>>,
    state_dir: &'a Path,
    epoch: Instant,
    progress: &'a ProgressBar,
    /// Time from command to answer, in microseconds.
    pub(super) answers_us: Histogram<u64>,
}

/// A conference with its members and their connection ids, and the effect of the last join.
struct Conference {
    id: String,
    members: [(Endpoint, String); 3],
    joined: Change,
}

impl<'a> Scenario<'a> {
    /// Connects to the server and follows its events.
    pub(super) fn new(socket: &Path, state_dir: &'a Path, progress: &'a ProgressBar) -> Result<Self, DemoError> {
        let client = Arc::new(Client::connect(socket)?);
        client.subscribe(&["operation.ended", "connection.ended", "conference.ended", "shard.failed"])?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let (follower, seen) = (Arc::downgrade(&client), events.clone());
        std::thread::Builder::new()
            .name("demo-events".to_owned())
            .spawn(move || {
                while let Some(client) = follower.upgrade() {
                    match client.next_event(Duration::from_millis(100)) {
                        Ok(Some(event)) => seen.lock().unwrap_or_else(PoisonError::into_inner).push(event),
                        Ok(None) => {}
                        Err(_) => return,
                    }
                }
            })
            .map_err(|error| DemoError::io("start a thread", error))?;
        Ok(Self { client, events, state_dir, epoch: Instant::now(), progress, answers_us: histogram() })
    }

    /// Goes through everything.
    pub(super) fn play(&mut self) -> Result<Session, DemoError> {
        self.step("two endpoints are relayed");
        let (relay, relayed) = self.start_relay()?;
        self.step("three join a conference");
        let Conference { id: conference_id, members, joined } = self.start_conference()?;
        self.until("everybody to hear the conference", || {
            members.iter().all(|(endpoint, _)| endpoint.heard_packets() >= SETTLED_PACKETS).then_some(())
        })?;

        self.step("all three talk, and are recorded");
        let talking = self.epoch.elapsed();
        let (recording_id, started) = self.start(&json!({
            "kind": "record", "conference_id": conference_id, "path": "demo/conference.wav",
        }))?;
        std::thread::sleep(TALK);
        let recording_stopped = self.stop(&conference_id, &recording_id)?;
        let ended = self.ended(&recording_id)?;

        self.step("an announcement is played, and stopped half-way");
        let (announcement_id, announced) = self.start(&json!({
            "kind": "play", "conference_id": conference_id, "files": [ANNOUNCEMENT_FILE],
        }))?;
        std::thread::sleep(ANNOUNCEMENT);
        let announcement_stopped = self.stop(&conference_id, &announcement_id)?;
        std::thread::sleep(LISTEN);

        let [alice, bob, carol] = members.each_ref().map(|(_, id)| id.clone());
        let mute = |muted: bool| json!({"conference_id": conference_id, "connection_id": bob, "muted": muted});
        self.step("Bob is muted");
        let muted = self.change("conference.set", &mute(true))?;
        std::thread::sleep(LISTEN);
        self.step("Bob is unmuted");
        let unmuted = self.change("conference.set", &mute(false))?;
        std::thread::sleep(LISTEN);

        self.step("Carol is deleted");
        let deleted = self.change("connection.delete", &json!({ "connection_id": carol }))?;
        std::thread::sleep(LISTEN);

        self.step("the last two leave");
        let left = self.change("conference.leave", &json!({"conference_id": conference_id, "connection_id": alice}))?;
        self.change("connection.delete", &json!({ "connection_id": bob }))?;
        self.until_event("conference.ended", "conference_id", &conference_id)?;
        self.call("connection.delete", &json!({ "connection_id": alice }))?;
        let relay = self.end_relay(relay)?;
        self.until_event("operation.ended", "operation_id", &announcement_id)?;

        self.step("everything is looked at");
        let recorded = self.recorded(recording_id, started, &ended)?;
        let members = members.map(|(endpoint, id)| hang_up(endpoint, id));
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Session {
            relay,
            relayed,
            conference_id,
            members,
            joined,
            talking,
            recorded,
            recording_stopped,
            announcement_id,
            announced,
            announcement_stopped,
            muted,
            unmuted,
            deleted,
            left,
            events,
        })
    }

    /// Two endpoints that each say their clip once.
    fn start_relay(&mut self) -> Result<([(Endpoint, String); 2], Change), DemoError> {
        let (mut a, a_id, a_local) = self.connect(SPEAKERS[0].0, 11, Value::Null)?;
        let (mut b, b_id, b_local) = self.connect(SPEAKERS[1].0, 12, Value::Null)?;
        let relayed = self.change("relay.start", &json!({"a": a_id, "b": b_id}))?;
        for (endpoint, local, (_, wav)) in [(&mut a, a_local, SPEAKERS[0]), (&mut b, b_local, SPEAKERS[1])] {
            let silence = std::iter::repeat_n(SILENCE, LEARNING_PACKETS);
            speak(endpoint, local, silence.chain(clips::packets(wav)))?;
        }
        Ok(([(a, a_id), (b, b_id)], relayed))
    }

    fn end_relay(&mut self, relay: [(Endpoint, String); 2]) -> Result<[Member; 2], DemoError> {
        self.until("the relayed endpoints to finish", || {
            relay.iter().all(|(endpoint, _)| endpoint.has_spoken()).then_some(())
        })?;
        // What was said last is still on its way.
        std::thread::sleep(Duration::from_millis(200));
        self.call("relay.stop", &json!({ "a": relay[0].1 }))?;
        for (_, id) in &relay {
            self.call("connection.delete", &json!({ "connection_id": id }))?;
        }
        Ok(relay.map(|(endpoint, id)| hang_up(endpoint, id)))
    }

    /// Three endpoints that say their clips over and over.
    fn start_conference(&mut self) -> Result<Conference, DemoError> {
        let conference_id = text(&self.call("conference.create", &json!({"label": "demo"}))?, "conference_id")?;
        let mut joined = None;
        let mut members = Vec::new();
        for (number, (name, wav)) in (1..).zip(SPEAKERS) {
            let (mut endpoint, id, local) = self.connect(name, number, Value::from(conference_id.as_str()))?;
            let silence = std::iter::repeat_n(SILENCE, LEARNING_PACKETS);
            speak(&mut endpoint, local, silence.chain(clips::packets(wav).cycle()))?;
            let join = json!({"conference_id": conference_id, "connection_id": id});
            joined = Some(self.change("conference.join", &join)?);
            members.push((endpoint, id));
        }
        match (<[_; 3]>::try_from(members), joined) {
            (Ok(members), Some(joined)) => Ok(Conference { id: conference_id, members, joined }),
            _ => Err(DemoError::Answer("three members were expected".to_owned())),
        }
    }

    /// An endpoint and its connection: its id, and where the server listens for it.
    fn connect(
        &mut self,
        name: &str,
        number: u8,
        conference: Value,
    ) -> Result<(Endpoint, String, SocketAddr), DemoError> {
        let failed = |error| DemoError::io("open a UDP socket on 127.0.0.1", error);
        let endpoint = Endpoint::open(name, number, self.epoch).map_err(failed)?;
        let mut params = json!({
            "remote": endpoint.address().map_err(failed)?.to_string(), "codec": "PCMU", "label": name,
        });
        if !conference.is_null() {
            params["conference_id"] = conference;
        }
        let answer = self.call("connection.create", &params)?;
        let local = text(&answer, "local")?;
        let local = local.parse().map_err(|_| DemoError::Answer(format!("`local` is {local:?}, no address")))?;
        Ok((endpoint, text(&answer, "connection_id")?, local))
    }

    /// Starts an operation: its id, and when it was asked for.
    fn start(&mut self, params: &Value) -> Result<(String, Duration), DemoError> {
        let asked = self.epoch.elapsed();
        Ok((text(&self.call("operation.start", params)?, "operation_id")?, asked))
    }

    fn stop(&mut self, conference_id: &str, operation_id: &str) -> Result<Change, DemoError> {
        self.change("operation.stop", &json!({"conference_id": conference_id, "operation_id": operation_id}))
    }

    /// The file of a recording that has ended, and its manifest once that is complete.
    fn recorded(&self, operation_id: String, started: Duration, ended: &Value) -> Result<Recorded, DemoError> {
        let told = ended["path"].as_str().unwrap_or("demo/conference.wav");
        // An absolute path stays what it is.
        let path = self.state_dir.join(RECORDINGS).join(told);
        let manifest = self.until("the recording to be complete", || {
            let text = std::fs::read(manifest_of(&path)).ok()?;
            let manifest: Value = serde_json::from_slice(&text).ok()?;
            (manifest["state"] != "recording").then_some(manifest)
        })?;
        let failed = |source| DemoError::Recording { path: path.clone(), source };
        let mut wav = hound::WavReader::open(&path).map_err(failed)?;
        let samples = wav.samples().collect::<Result<_, _>>().map_err(failed)?;
        Ok(Recorded { operation_id, started, samples, manifest, path })
    }

    fn ended(&self, operation_id: &str) -> Result<Value, DemoError> {
        self.until_event("operation.ended", "operation_id", operation_id)
    }

    fn until_event(&self, name: &str, key: &str, id: &str) -> Result<Value, DemoError> {
        self.until(name, || {
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            events.iter().find(|event| event["event"] == name && event[key] == id).cloned()
        })
    }

    fn until<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T, DemoError> {
        let start = Instant::now();
        loop {
            if let Some(value) = condition() {
                return Ok(value);
            }
            if start.elapsed() > PATIENCE {
                return Err(DemoError::Waited(what.to_owned()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// A command that has an effect stamp.
    fn change(&mut self, method: &str, params: &Value) -> Result<Change, DemoError> {
        let sent = self.epoch.elapsed();
        let mut answer = self.call(method, params)?;
        let answered = self.epoch.elapsed();
        let effect: Effect = serde_json::from_value(answer["effect"].take())
            .map_err(|error| DemoError::Answer(format!("{method}: `effect`: {error}")))?;
        Ok(Change { sent, answered, effect })
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, ClientError> {
        let start = Instant::now();
        let answer = self.client.call(method, params)?;
        self.answers_us.saturating_record(micros(start.elapsed()));
        Ok(answer)
    }

    fn step(&self, what: &'static str) {
        self.progress.set_message(what);
        self.progress.inc(1);
    }
}

fn speak(
    endpoint: &mut Endpoint,
    target: SocketAddr,
    payloads: impl Iterator<Item = clips::Payload> + Send + 'static,
) -> Result<(), DemoError> {
    endpoint.speak(target, payloads).map_err(|error| DemoError::io("start a thread", error))
}

fn hang_up(endpoint: Endpoint, connection_id: String) -> Member {
    let name = endpoint.name.clone();
    let (sent, heard) = endpoint.close();
    Member { name, connection_id, sent, heard }
}

/// Where the manifest of a recording stands.
pub(super) fn manifest_of(recording: &Path) -> PathBuf {
    let mut name = recording.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

fn text(answer: &Value, key: &str) -> Result<String, DemoError> {
    answer[key].as_str().map(str::to_owned).ok_or_else(|| DemoError::Answer(format!("no `{key}` in {answer}")))
}
