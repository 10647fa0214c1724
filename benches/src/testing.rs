//! A fake server for tests: speaks the control socket, relays through a reference forwarder, mixes the simple way.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mulaw;
use crate::packet::{HEADER_BYTES, RtpStream, SAMPLES};

/// Faults that can be planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// The mix a member gets holds its own voice.
    pub(crate) self_hearing: bool,
    /// One frame in fifty is sent as silence.
    pub(crate) holes: bool,
    /// One relayed packet in a hundred is dropped.
    pub(crate) loss: bool,
}

#[derive(Default)]
struct State {
    next_id: u64,
    connections: BTreeMap<String, Connection>,
    conferences: BTreeMap<String, Vec<String>>,
    operations: u64,
}

struct Connection {
    socket: UdpSocket,
    remote: Option<SocketAddr>,
    peer: Option<String>,
    /// Frames received and not yet mixed.
    frames: Vec<[u8; SAMPLES]>,
    sent: u64,
}

/// A running fake server.
pub(crate) struct FakeServer {
    control: PathBuf,
    /// Removed with this value.
    _directory: TempDir,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    media: Option<JoinHandle<()>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeServer {
    pub(crate) fn start() -> Self {
        Self::with_faults(Faults::default())
    }

    pub(crate) fn with_faults(faults: Faults) -> Self {
        let directory = TempDir::new().unwrap();
        let control = directory.path().join("control.sock");
        let listener = UnixListener::bind(&control).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let media = thread::spawn(move || run_media(&shared, &stopped, faults));
        Self { control, _directory: directory, state, stop, media: Some(media) }
    }

    pub(crate) fn control(&self) -> &Path {
        &self.control
    }

    /// Connections and conferences that exist.
    pub(crate) fn alive(&self) -> usize {
        let state = lock(&self.state);
        state.connections.len() + state.conferences.len()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(media) = self.media.take() {
            let _ = media.join();
        }
    }
}

fn serve(stream: UnixStream, state: &Mutex<State>) {
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).unwrap();
        let method = request["method"].as_str().unwrap();
        let answer = match handle(&mut lock(state), method, &request["params"]) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": request["id"], "result": result}),
            Err((code, kind)) => json!({
                "jsonrpc": "2.0", "id": request["id"],
                "error": {"code": code, "message": kind, "data": {"kind": kind}},
            }),
        };
        if writeln!(writer, "{answer}").is_err() {
            return;
        }
    }
}

fn handle(state: &mut State, method: &str, params: &Value) -> Result<Value, (i64, &'static str)> {
    let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
    let effect = json!({"clock": "connection", "received_media_time_ms": 100.0, "media_time_ms": 105.0,
        "rtp_timestamp": 1, "streams": []});
    state.next_id += 1;
    let fresh = state.next_id;
    match method {
        "server.info" => {
            Ok(json!({"name": "fake", "version": "0", "pid": std::process::id(), "shards": 1, "codecs": ["PCMU"]}))
        }
        "server.stats" => Ok(json!({"shards": []})),
        "connection.create" => {
            if params["codec"].as_str().is_some_and(|codec| codec != "PCMU") {
                return Err((1013, "unsupported_codec"));
            }
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let local = socket.local_addr().unwrap().to_string();
            let remote = params["remote"].as_str().map(|remote| remote.parse().unwrap());
            let id = format!("c{fresh}");
            let connection = Connection { socket, remote, peer: None, frames: Vec::new(), sent: 0 };
            state.connections.insert(id.clone(), connection);
            Ok(json!({"connection_id": id, "local": local, "local_rtcp": local, "shard": 0}))
        }
        "connection.delete" => {
            let id = text("connection_id");
            state.connections.remove(&id).ok_or((1001, "unknown_connection"))?;
            state.conferences.values_mut().for_each(|members| members.retain(|member| *member != id));
            Ok(json!({"deleted": [id], "effect": effect}))
        }
        "relay.start" => {
            for (from, to) in [(text("a"), text("b")), (text("b"), text("a"))] {
                state.connections.get_mut(&from).ok_or((1001, "unknown_connection"))?.peer = Some(to);
            }
            Ok(json!({"call_id": format!("k{fresh}"), "effect": effect}))
        }
        "conference.create" => {
            let id = format!("r{fresh}");
            state.conferences.insert(id.clone(), Vec::new());
            Ok(json!({"conference_id": id, "shard": 0}))
        }
        "conference.join" => {
            let members = state.conferences.get_mut(&text("conference_id")).ok_or((1002, "unknown_conference"))?;
            members.push(text("connection_id"));
            Ok(json!({"effect": effect}))
        }
        "conference.set" => {
            let members = state.conferences.get(&text("conference_id")).ok_or((1002, "unknown_conference"))?;
            if !members.contains(&text("connection_id")) {
                return Err((1004, "not_a_participant"));
            }
            // Every unmute comes too late, to see that it is found.
            let media_time = if params["muted"] == json!(false) { 130.0 } else { 110.0 };
            let mut effect = effect;
            effect["media_time_ms"] = json!(media_time);
            Ok(json!({"effect": effect}))
        }
        "conference.delete" => {
            let id = text("conference_id");
            state.conferences.remove(&id).ok_or((1002, "unknown_conference"))?;
            Ok(json!({"deleted": [], "effect": effect}))
        }
        "operation.start" => {
            if !state.connections.contains_key(&text("connection_id")) {
                return Err((1001, "unknown_connection"));
            }
            state.operations += 1;
            Ok(json!({"operation_id": format!("o{fresh}"), "connection_id": text("connection_id")}))
        }
        "operation.stop" => Ok(json!({"stopped": [text("operation_id")], "effect": effect})),
        _ => Err((-32601, "method_not_found")),
    }
}

/// Relays at once and mixes every 20 ms.
fn run_media(state: &Mutex<State>, stop: &AtomicBool, faults: Faults) {
    let mut next_frame = Instant::now();
    let mut ticks = 0u64;
    while !stop.load(Ordering::Relaxed) {
        {
            let mut state = lock(state);
            receive_all(&mut state, faults);
            while Instant::now() >= next_frame {
                next_frame += Duration::from_millis(20);
                ticks += 1;
                mix_all(&mut state, faults, faults.holes && ticks.is_multiple_of(50));
            }
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn receive_all(state: &mut State, faults: Faults) {
    let mut forward = Vec::new();
    for connection in state.connections.values_mut() {
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = connection.socket.recv_from(&mut buffer) {
            match &connection.peer {
                Some(peer) => forward.push((peer.clone(), buffer[..length].to_vec())),
                None if length == HEADER_BYTES + SAMPLES => {
                    connection.frames.push(buffer[HEADER_BYTES..length].try_into().unwrap());
                }
                None => (),
            }
        }
    }
    for (peer, datagram) in forward {
        let dropped = faults.loss && u16::from_be_bytes([datagram[2], datagram[3]]) % 100 == 7;
        if let Some(Connection { socket, remote: Some(remote), .. }) = state.connections.get(&peer)
            && !dropped
        {
            let _ = socket.send_to(&datagram, remote);
        }
    }
}

fn mix_all(state: &mut State, faults: Faults, silent: bool) {
    let State { connections, conferences, .. } = state;
    for members in conferences.values() {
        let frames: HashMap<&String, [i32; SAMPLES]> = members
            .iter()
            .filter_map(|id| {
                let connection = connections.get_mut(id)?;
                // Two frames of buffer, so that jitter of this thread makes no holes; what is too much stays queued.
                if connection.sent == 0 && connection.frames.len() < 3 {
                    return None;
                }
                connection.sent = connection.sent.max(1);
                (!connection.frames.is_empty())
                    .then(|| (id, connection.frames.remove(0).map(|code| i32::from(mulaw::decode(code)))))
            })
            .collect();
        for id in members {
            let Some(connection) = connections.get_mut(id) else { continue };
            let (Some(remote), true) = (connection.remote, connection.sent > 0) else { continue };
            let number = connection.sent;
            let mut datagram = RtpStream::numbered(9, 9).header(number).to_vec();
            datagram.extend((0..SAMPLES).map(|at| {
                let others = frames.iter().filter(|(other, _)| faults.self_hearing || **other != id);
                let sum: i32 = others.map(|(_, frame)| frame[at]).sum();
                mulaw::encode(if silent { 0 } else { i16::try_from(sum).unwrap() })
            }));
            connection.sent += 1;
            let _ = connection.socket.send_to(&datagram, remote);
        }
    }
}
