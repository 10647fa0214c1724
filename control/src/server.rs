//! The control plane as a whole: starts the shards, takes in what they report, and ends tidily.
//!
//! All of it runs on one thread; state is plain, borrowed for moments and never across a wait.
//!
//! A shard that fails takes its sessions with it: whoever waits for it is answered, each operation, connection and
//! conference on it gets its one final event, its ports are free again, and it is started anew.

use std::cell::{Cell, OnceCell, RefCell};
use std::error::Error;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use ringbridge_media::command::{Command, OperationKind, Target};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::{Answer, CommandError, Condition, EndReason, Event};
use ringbridge_media::id::{ConnectionId, OperationId, ShardId};
use ringbridge_media::time::Instant;
use ringbridge_shard::clock;
use ringbridge_shard::executor::{ShardConfig, ShardHandle};
use ringbridge_shard::mailbox::{Doorbell, ShardReport};
use serde_json::{Value, json};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{spawn_blocking, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use crate::apis::Apis;
use crate::auth::PasswordError;
use crate::begin::begin;
use crate::config::{Config, ConfigError, Derived, Machine, batch_wait};
use crate::events::{EventKind, Hub};
use crate::files::{FilesConfig, MediaFiles, TtsConfig};
use crate::mediacontrol::{self, MediaControl};
use crate::placement::Placement;
use crate::ports::PortPool;
use crate::preparing::Preparing;
use crate::proto::RpcError;
use crate::quota::Quota;
use crate::registry::{Ended, OperationEntry, RecordingEntry, Registry, utility_id};
use crate::router::{Concern, Dispatch, Pending, Refusal, Reply, Router};
use crate::socket::{ControlSocket, SocketError};
use crate::store::{self, Store, StoreError, recordings};
use crate::tickets::Tickets;
use crate::tls::{self, TlsError};
use crate::web::WebError;

/// Starts one shard and waits until it is ready. Called on a thread of its own when a shard has to be started again.
pub type StartShard =
    Arc<dyn Fn(ShardConfig, Arc<Doorbell>) -> Result<ShardHandle, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// The state of the control plane.
pub struct Server {
    /// How it was configured.
    pub config: Config,
    /// What follows from that.
    pub derived: Derived,
    /// Which ids exist.
    pub registry: RefCell<Registry>,
    /// The lines to the shards.
    pub router: RefCell<Router>,
    /// Local ports.
    pub ports: PortPool,
    /// How much of each class of resources is in use.
    pub quota: Quota,
    /// The order of commands that name one id.
    pub tickets: Tickets,
    /// Starts whose prompts are not ready yet.
    pub preparing: Preparing,
    /// Clients and their events.
    pub hub: Hub,
    /// Prompts and recordings.
    pub files: MediaFiles,
    /// What outlives a restart.
    pub store: Store,
    /// What listeners serve TLS with, if there is a certificate.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where new connections go.
    pub placement: RefCell<Placement>,
    /// When it was started.
    pub started_at: Timestamp,
    mediacontrol: OnceCell<Rc<MediaControl>>,
    clock: RefCell<Rc<dyn Fn() -> Instant>>,
    shards: RefCell<Vec<ShardRuntime>>,
    start_shard: StartShard,
    doorbell: Arc<Doorbell>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    /// Rung when a connection or a shard has ended.
    ended: Notify,
    requests: Cell<u64>,
    errors: Cell<u64>,
}

/// Why the server ended in any other way than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard did not start.
    #[error("{0}")]
    Shard(Box<dyn Error + Send + Sync>),
    /// The machine or the limits of this process do not let a shard run.
    #[error(transparent)]
    Machine(#[from] ringbridge_shard::probe::Problem),
    /// A directory can't be made.
    #[error("can't make the directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address can't be listened at.
    #[error("can't listen at {address} for {name}: {source}")]
    Listen {
        /// What for.
        name: &'static str,
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The listener of an API can't be opened.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Passwords can't be checked here.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The system refuses something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A command on its way; await its answer.
#[derive(Debug)]
pub struct InFlight(oneshot::Receiver<Reply>);

#[derive(Debug, Default)]
struct ShardRuntime {
    thread: Option<JoinHandle<()>>,
    up_since: Option<std::time::Instant>,
    failures: u32,
}

/// Something to be told once the answers that came before it are.
enum Outgoing {
    Event(EventKind, Value),
    OperationEnded { id: OperationId, condition: Condition, elapsed_ms: u64, digits: Option<Digits> },
}

/// Runs a server until `stops` says so, then ends it tidily: the first time it drains, the second time it ends at once.
/// `ready` is called when commands are accepted.
///
/// Wants a current-thread runtime with a `LocalSet`.
///
/// # Errors
/// The server could not start.
pub async fn run(
    config: Config,
    machine: &Machine,
    start_shard: StartShard,
    mut stops: mpsc::Receiver<()>,
    ready: impl FnOnce(&Path, usize),
) -> Result<(), ServeError> {
    let derived = config.derive(machine)?;
    let socket = ControlSocket::bind(config.control_socket.as_deref(), config.control_group.as_deref())?;
    let server = Server::start(config, derived, start_shard)?;
    let apis = match server.open().await {
        Ok(apis) => apis,
        Err(error) => {
            server.stop().await;
            return Err(error);
        }
    };
    ready(socket.path(), server.derived.shard_cpus.len());
    tokio::select! {
        () = socket.serve(Rc::clone(&server)) => {}
        () = async {
            // A sender that is gone says it as well.
            stops.recv().await;
            let deadline = Duration::from_millis(u64::from(server.config.drain_deadline_ms));
            tokio::select! {
                _ = server.drain(Some(deadline)) => {}
                _ = stops.recv() => {}
            }
        } => {}
    }
    apis.stop().await;
    server.stop().await;
    // What ended with the shards has been taken down as well.
    drop(apis);
    server.store.close().await;
    Ok(())
}

impl Server {
    /// Starts the shards and takes in what they report from now on; nobody can reach it yet but the caller.
    ///
    /// Wants a current-thread runtime with a `LocalSet`.
    ///
    /// # Errors
    /// A directory can't be made, or a shard did not start.
    pub fn start(config: Config, derived: Derived, start_shard: StartShard) -> Result<Rc<Self>, ServeError> {
        tracing::info!(?config, "configuration");
        tracing::info!(?derived, "derived sizes");
        for path in [&derived.state_dir, &derived.audio_root, &derived.recording_root] {
            std::fs::create_dir_all(path).map_err(|source| ServeError::Directory { path: path.clone(), source })?;
        }
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let store = Store::open(&store::path_in(&derived.state_dir))?;
        let server = Rc::new(Self::new(config, derived, (store, tls), start_shard)?);
        // It is set once, here.
        drop(server.mediacontrol.set(mediacontrol::start(&server)));
        for shard in server.shard_ids() {
            let handle = (server.start_shard)(server.shard_config(shard), Arc::clone(&server.doorbell))
                .map_err(ServeError::Shard)?;
            server.take_up(handle);
        }
        spawn_local(Rc::clone(&server).watch_shards()?);
        Ok(server)
    }

    /// Brings the database up to date, and opens the listeners.
    async fn open(self: &Rc<Self>) -> Result<Apis, ServeError> {
        let seeds = self.config.seeds();
        let now = Timestamp::now();
        let added = self.store.run(move |connection| seeds.apply(connection, now)).await?;
        tracing::info!(?added, "configured users, agents and API keys that were not known");
        let left = self.store.run(move |connection| recordings::finish_interrupted(connection, now)).await?;
        if left > 0 {
            tracing::warn!(left, "recordings that the last server left in the middle were ended");
        }
        Apis::start(self).await
    }

    fn new(
        config: Config,
        derived: Derived,
        (store, tls): (Store, Option<Arc<rustls::ServerConfig>>),
        start_shard: StartShard,
    ) -> Result<Self, ServeError> {
        let io = |what| move |source| ServeError::Io { what, source };
        let files = MediaFiles::start(FilesConfig {
            audio_root: derived.audio_root.clone(),
            recording_root: derived.recording_root.clone(),
            speech_root: derived.state_dir.join("speech"),
            tts: TtsConfig {
                command: config.tts.command.clone(),
                time_limit: Duration::from_millis(u64::from(config.tts.time_limit_ms)),
                cache_bytes_max: u64::from(config.tts.cache_mib) << 20,
            },
            sweep_every: Some(Duration::from_secs(60 * u64::from(config.recording_sweep_minutes))),
            cache_bytes_max: (config.prompt_cache_mib as usize) << 20,
            threads: config.media_threads as usize,
        })
        .map_err(io("can't start the media threads"))?;
        let shards = derived.shard_cpus.len();
        Ok(Self {
            registry: RefCell::new(Registry::new(shards, derived.shard_connections_max)),
            router: RefCell::new(Router::new(shards)),
            quota: Quota::new(&config.quota),
            ports: PortPool::new(config.ports, config.addresses()),
            tickets: Tickets::default(),
            preparing: Preparing::default(),
            hub: Hub::default(),
            files,
            store,
            tls,
            placement: RefCell::new(Placement::new(shards)),
            started_at: Timestamp::now(),
            mediacontrol: OnceCell::new(),
            clock: RefCell::new(Rc::new(clock::now)),
            shards: RefCell::new((0..shards).map(|_| ShardRuntime::default()).collect()),
            start_shard,
            doorbell: Arc::new(Doorbell::new().map_err(io("out of file descriptors"))?),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            ended: Notify::new(),
            requests: Cell::new(0),
            errors: Cell::new(0),
            config,
            derived,
        })
    }

    /// The MediaControl adapter, whether it has a listener or not.
    pub fn mediacontrol(&self) -> &Rc<MediaControl> {
        self.mediacontrol.get().expect("set when the server was started")
    }

    /// The time requests are stamped with as they are received.
    pub fn now(&self) -> Instant {
        let clock = Rc::clone(&self.clock.borrow());
        clock()
    }

    /// Takes the time from `clock` from now on, instead of the clock the shards go by.
    pub fn set_clock(&self, clock: Rc<dyn Fn() -> Instant>) {
        self.clock.replace(clock);
    }

    /// Every shard, up or not.
    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.router.borrow().shards()
    }

    /// Sends a command; it is in the shard's mailbox when this returns.
    ///
    /// # Errors
    /// The shard is busy (1006) or has failed (1017).
    pub fn send(&self, shard: ShardId, command: Command, received: Instant) -> Result<InFlight, RpcError> {
        self.dispatch(Dispatch { shard, command, received, concern: Concern::Nothing })
    }

    /// Sends a command whose answer concerns the registry.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn dispatch(&self, dispatch: Dispatch) -> Result<InFlight, RpcError> {
        Ok(InFlight(self.router.borrow_mut().send(dispatch)?))
    }

    /// The figures of every shard; `None` for one that is down.
    pub async fn snapshots(&self) -> Vec<(ShardId, Option<Box<ringbridge_shard::snapshot::ShardSnapshot>>)> {
        let asked: Vec<_> = self.shard_ids().map(|shard| (shard, self.router.borrow_mut().snapshot(shard))).collect();
        let mut snapshots = Vec::with_capacity(asked.len());
        for (shard, receiver) in asked {
            let snapshot = match receiver {
                Ok(receiver) => match receiver.await {
                    Ok(Reply::Snapshot(snapshot)) => Some(snapshot),
                    Ok(Reply::Answer(_) | Reply::ShardFailed(_)) | Err(_) => None,
                },
                Err(Refusal::Busy(_) | Refusal::Down(_)) => None,
            };
            snapshots.push((shard, snapshot));
        }
        snapshots
    }

    /// The shard with the most headroom. Asks for fresh figures now and then, so the choice follows what was measured
    /// without any timer.
    pub fn place(&self) -> ShardId {
        let mut placement = self.placement.borrow_mut();
        let now = self.now();
        if placement.wants_figures(now) {
            for shard in self.shard_ids() {
                // The figures are taken in when they are reported; a shard that can't answer keeps its old ones.
                drop(self.router.borrow_mut().snapshot(shard));
            }
        }
        let (registry, router) = (self.registry.borrow(), self.router.borrow());
        placement.choose(self.shard_ids().filter(|shard| router.is_up(*shard)), |shard| registry.connections_on(shard))
    }

    /// Refuses new connections from now on and waits until none is left or the deadline has passed. Returns how many
    /// are left.
    pub async fn drain(&self, deadline: Option<Duration>) -> usize {
        self.draining.set(true);
        let left = || self.registry.borrow().connections_total();
        if let Some(deadline) = deadline {
            let empty = async {
                while left() > 0 {
                    self.ended.notified().await;
                }
            };
            // Either way the answer is how many are left.
            drop(timeout(deadline, empty).await);
        }
        left()
    }

    /// Whether new connections are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Gives up an operation that did not start: what was written of its recording goes away.
    pub fn abandon_operation(&self, id: OperationId) {
        let Some(entry) = self.registry.borrow_mut().remove_operation(id) else { return };
        if let Some(recording) = entry.recording {
            self.abandon_recording(recording);
        }
    }

    /// Removes the file of a recording that did not start.
    pub fn abandon_recording(&self, recording: RecordingEntry) {
        recording.queue.finish();
        spawn_local(async move {
            // Told or dropped: the writer is done with the file.
            drop(recording.done.await);
            if let Err(error) = std::fs::remove_file(&recording.path) {
                tracing::debug!(%error, path = %recording.path.display(), "no file of a recording that did not start");
            }
        });
    }

    /// Takes out a connection that was not taken up by its shard.
    pub fn abandon_connection(&self, id: ConnectionId) {
        drop(self.registry.borrow_mut().remove_connection(id));
    }

    /// Makes a shard panic, for tests.
    pub fn panic_shard(&self, shard: ShardId) -> bool {
        self.router.borrow_mut().panic(shard)
    }

    /// Counts a request.
    pub fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Counts a call that failed.
    pub fn count_error(&self) {
        self.errors.set(self.errors.get() + 1);
    }

    /// Requests and errors so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.requests.get(), self.errors.get())
    }

    fn shard_config(&self, shard: ShardId) -> ShardConfig {
        ShardConfig {
            id: shard,
            cpu: self.derived.shard_cpus[usize::from(shard.0)],
            batch_wait: batch_wait(&self.config),
            connections_max: self.derived.shard_connections_max,
            seed: rand::random(),
        }
    }

    fn take_up(&self, handle: ShardHandle) {
        let ShardHandle { id, mailbox, outbox, thread } = handle;
        let runtime = &mut self.shards.borrow_mut()[usize::from(id.0)];
        runtime.thread = Some(thread);
        runtime.up_since = Some(std::time::Instant::now());
        self.placement.borrow_mut().reset(id);
        self.router.borrow_mut().connect(id, mailbox, outbox);
        // Whatever it has put into its outbox before the line was up.
        self.doorbell.ring_always();
    }

    fn watch_shards(self: Rc<Self>) -> Result<impl Future<Output = ()>, ServeError> {
        let io = |source| ServeError::Io { what: "can't watch the shards' doorbell", source };
        // To the runtime an eventfd is as good as a pipe: something that becomes readable, and gives eight bytes.
        let bell = self.doorbell.fd().try_clone_to_owned().map_err(io)?;
        let bell = pipe::Receiver::from_owned_fd_unchecked(bell).map_err(io)?;
        Ok(async move {
            loop {
                while self.take_reports().await {}
                self.doorbell.arm();
                // What was reported before the bell was armed did not ring it.
                if self.router.borrow().has_reports() {
                    self.doorbell.disarm();
                    continue;
                }
                if bell.readable().await.is_err() {
                    return;
                }
                // An eventfd gives all its rings at once; an error means that it had none.
                drop(bell.try_read(&mut [0; 8]));
            }
        })
    }

    /// Takes in a bounded number of reports. `false`: there were none.
    async fn take_reports(self: &Rc<Self>) -> bool {
        let mut outgoing = Vec::new();
        let mut taken = false;
        for shard in self.shard_ids() {
            for _ in 0..REPORTS_PER_TURN_MAX {
                let Some(report) = self.router.borrow().poll_report(shard) else { break };
                taken = true;
                self.take_report(shard, report, &mut outgoing);
            }
        }
        self.router.borrow_mut().flush_forgets();
        if taken {
            // Whoever got an answer passes it on now, so that it stands before the events that came after it.
            yield_now().await;
        }
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Event(kind, params) => self.hub.publish(kind, params),
                Outgoing::OperationEnded { id, condition, elapsed_ms, digits } => {
                    let server = Rc::clone(self);
                    begin(async move { server.end_operation(id, condition, elapsed_ms, digits).await });
                }
            }
        }
        taken
    }

    fn take_report(self: &Rc<Self>, shard: ShardId, report: ShardReport, outgoing: &mut Vec<Outgoing>) {
        match report {
            ShardReport::Event(event) => self.take_event(event, outgoing),
            ShardReport::Moved { connection, shard } => {
                if !self.registry.borrow_mut().moved(connection, shard) {
                    // It was given up while it was on its way.
                    self.send_unasked(shard, Command::DeleteConnection { id: connection });
                }
            }
            ShardReport::Snapshot { token, snapshot } => {
                self.placement.borrow_mut().take_figures(&snapshot, self.now());
                if let Some(pending) = self.router.borrow_mut().take(token) {
                    pending.reply(Reply::Snapshot(snapshot));
                }
            }
            ShardReport::Stopped => {
                self.lose_shard(shard, EndReason::Shutdown);
            }
            ShardReport::Failed { reason } => {
                tracing::error!(%shard, reason, "a shard has failed");
                let up_since = self.shards.borrow()[usize::from(shard.0)].up_since;
                let lived = up_since.map(|since| since.elapsed()).unwrap_or_default();
                self.lose_shard(shard, EndReason::ShardFailed);
                if !self.stopping.get() {
                    spawn_local(Rc::clone(self).restart_shard(shard, lived));
                }
            }
        }
    }

    fn take_event(&self, event: Event, outgoing: &mut Vec<Outgoing>) {
        match event {
            Event::Answer { token, result } => {
                let pending = self.router.borrow_mut().take(token);
                if let Some(pending) = pending {
                    self.take_answer(pending, result);
                }
            }
            Event::OperationEnded { id, condition, elapsed_ms, target: _, kind: _, digits, playlist } => {
                // Freed here, off the shard.
                drop(playlist);
                let mut registry = self.registry.borrow_mut();
                if let Some(entry) = registry.operation_mut(id).filter(|entry| !entry.ending) {
                    entry.ending = true;
                    entry.units.clear();
                    outgoing.push(Outgoing::OperationEnded { id, condition, elapsed_ms, digits });
                }
            }
            Event::ConnectionLearned { id, remote } => outgoing.push(Outgoing::Event(
                EventKind::ConnectionLearned,
                json!({"connection_id": id.to_string(), "remote": remote.to_string()}),
            )),
            Event::ConnectionTimeout { id } => {
                outgoing.push(Outgoing::Event(EventKind::ConnectionTimeout, json!({"connection_id": id.to_string()})))
            }
            Event::ConnectionEnded { id, reason, heard } => {
                let Some(Ended { mut entry, forwarders }) = self.registry.borrow_mut().remove_connection(id) else {
                    return;
                };
                entry.lease.set_heard(heard);
                for shard in forwarders {
                    self.router.borrow_mut().forget(shard, id);
                }
                self.ended.notify_waiters();
                outgoing.push(Outgoing::Event(EventKind::ConnectionEnded, connection_ended(id, reason)));
            }
            Event::ConferenceEnded { id, reason } => {
                if self.registry.borrow_mut().remove_conference(id).is_some() {
                    let params = json!({"conference_id": id.to_string(), "reason": reason_name(reason)});
                    outgoing.push(Outgoing::Event(EventKind::ConferenceEnded, params));
                }
            }
            Event::TalkStarted { conference, connection } => outgoing.push(Outgoing::Event(
                EventKind::TalkStarted,
                json!({"conference_id": conference.to_string(), "connection_id": connection.to_string()}),
            )),
            Event::TalkStopped { conference, connection } => outgoing.push(Outgoing::Event(
                EventKind::TalkStopped,
                json!({"conference_id": conference.to_string(), "connection_id": connection.to_string()}),
            )),
            Event::Digit { connection, digit, duration_ms } => outgoing.push(Outgoing::Event(
                EventKind::Digit,
                json!({
                    "connection_id": connection.to_string(),
                    "digit": char::from(digit).to_string(),
                    "duration_ms": duration_ms,
                }),
            )),
        }
    }

    /// Brings the registry up to date at once, whatever becomes of whoever waits for the answer.
    fn take_answer(&self, pending: Pending, result: Result<Answer, CommandError>) {
        let mut registry = self.registry.borrow_mut();
        match (pending.concern(), result.is_ok()) {
            (Concern::Nothing, _) => {}
            (Concern::Connection(id), true) => registry.confirm_connection(id),
            (Concern::Conference(id), true) => registry.confirm_conference(id),
            (Concern::Operation(id), true) => registry.confirm_operation(id),
            (Concern::Join(conference, join), true) => registry.confirm_member(conference, join),
            (Concern::Leave(conference, connection), true) => registry.member_left(conference, connection),
            (Concern::Promotion(id), true) => registry.end_promotion(id, true),
            (Concern::Dissolution(id), true) => registry.empty_conference(id),
            (concern, false) => {
                drop(registry);
                self.discard(concern);
            }
        }
        pending.reply(Reply::Answer(result));
    }

    fn discard(&self, concern: Concern) {
        match concern {
            Concern::Nothing => {}
            Concern::Connection(id) => self.abandon_connection(id),
            Concern::Conference(id) => drop(self.registry.borrow_mut().remove_conference(id)),
            Concern::Operation(id) => self.abandon_operation(id),
            Concern::Join(conference, join) => self.registry.borrow_mut().remove_member(conference, join),
            Concern::Promotion(id) => self.registry.borrow_mut().end_promotion(id, false),
            // Whatever it was about is as it was.
            Concern::Leave(..) | Concern::Dissolution(_) => {}
        }
    }

    /// Tells the end of an operation: after the answer to its start, and after its file is closed.
    async fn end_operation(&self, id: OperationId, condition: Condition, elapsed_ms: u64, digits: Option<Digits>) {
        let gates =
            self.registry.borrow_mut().operation_mut(id).map(|entry| (entry.announced.clone(), entry.recording.take()));
        let Some((announced, recording)) = gates else { return };
        announced.wait().await;
        let params = {
            let told = Told { condition: condition.name(), elapsed_ms, digits, error: None };
            let told = (told, close_recording(recording).await);
            let registry = self.registry.borrow();
            registry.operation(id).map(|entry| operation_ended(entry.id, entry.target, entry.kind, told.0, told.1))
        };
        let Some(params) = params else { return };
        self.hub.publish(EventKind::OperationEnded, params);
        if let Some(entry) = self.registry.borrow_mut().remove_operation(id) {
            entry.ended.open();
        }
    }

    /// Ends everything that was on a shard which is gone, and tells everybody once.
    fn lose_shard(self: &Rc<Self>, shard: ShardId, reason: EndReason) {
        let concerns = self.router.borrow_mut().disconnect(shard);
        for concern in concerns {
            self.discard(concern);
        }
        let lost = self.registry.borrow_mut().remove_shard(shard);
        for (other, connection) in lost.strays {
            self.send_unasked(other, Command::DeleteConnection { id: connection });
            self.router.borrow_mut().forget(other, connection);
        }
        let connections: Vec<ConnectionId> = lost.connections.iter().map(|entry| entry.id).collect();
        // Their ports are free again.
        drop(lost.connections);
        let server = Rc::clone(self);
        begin(async move {
            // Each recording closes by itself; none keeps the others waiting.
            let ends: Vec<_> = lost
                .operations
                .into_iter()
                .map(|entry| {
                    let server = Rc::clone(&server);
                    begin(async move { server.end_lost_operation(entry, reason).await })
                })
                .collect();
            for end in ends {
                end.end().await;
            }
            for id in connections {
                server.hub.publish(EventKind::ConnectionEnded, connection_ended(id, reason));
            }
            for id in lost.conferences {
                let params = json!({"conference_id": id.to_string(), "reason": reason_name(reason)});
                server.hub.publish(EventKind::ConferenceEnded, params);
            }
            if reason == EndReason::ShardFailed {
                server.hub.publish(EventKind::ShardFailed, json!({"shard": shard.0}));
            }
            server.shards.borrow_mut()[usize::from(shard.0)].up_since = None;
            server.ended.notify_waiters();
        });
    }

    async fn end_lost_operation(&self, mut entry: OperationEntry, reason: EndReason) {
        entry.announced.wait().await;
        let recording = entry.recording.take();
        let (condition, error) = match reason {
            EndReason::ShardFailed => (Condition::Error.name(), Some("its shard has failed".to_owned())),
            EndReason::Deleted
            | EndReason::ConferenceDeleted
            | EndReason::LastLeft
            | EndReason::Expired
            | EndReason::Shutdown => (Condition::AutoStop.name(), None),
        };
        if let Some(recording) = recording.as_ref().filter(|_| reason == EndReason::ShardFailed) {
            // Nobody else can say that no more samples come.
            recording.queue.deserted.store(true, Ordering::Release);
        }
        let elapsed_ms = u64::try_from(entry.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let closed = close_recording(recording).await;
        let params = operation_ended(
            entry.id,
            entry.target,
            entry.kind,
            Told { condition, elapsed_ms, digits: None, error },
            closed,
        );
        self.hub.publish(EventKind::OperationEnded, params);
        entry.ended.open();
    }

    /// Starts a shard again, after longer and longer pauses if it keeps failing.
    async fn restart_shard(self: Rc<Self>, shard: ShardId, lived: Duration) {
        let index = usize::from(shard.0);
        let (thread, mut failures) = {
            let mut shards = self.shards.borrow_mut();
            let runtime = &mut shards[index];
            runtime.failures = failures_after(runtime.failures, lived);
            (runtime.thread.take(), runtime.failures)
        };
        if let Some(thread) = thread {
            // It has said its last word, so this is short; still not for the thread all commands run on.
            drop(spawn_blocking(move || thread.join()).await);
        }
        loop {
            sleep(pause_before_restart(failures)).await;
            if self.stopping.get() {
                return;
            }
            let (start, config, doorbell) =
                (Arc::clone(&self.start_shard), self.shard_config(shard), Arc::clone(&self.doorbell));
            match spawn_blocking(move || start(config, doorbell)).await {
                Ok(Ok(handle)) => {
                    tracing::info!(%shard, "a shard has started again");
                    self.take_up(handle);
                    return;
                }
                Ok(Err(error)) => tracing::error!(%shard, %error, "a shard does not start"),
                Err(error) => tracing::error!(%shard, %error, "a shard does not start"),
            }
            failures += 1;
            self.shards.borrow_mut()[index].failures = failures;
        }
    }

    /// Ends all shards, then all clients once they have been told.
    async fn stop(self: &Rc<Self>) {
        self.stopping.set(true);
        let up = || self.router.borrow().shards().filter(|shard| self.router.borrow().is_up(*shard)).count();
        for shard in self.shard_ids() {
            self.router.borrow_mut().stop(shard);
        }
        let all_stopped = async {
            while up() > 0 || self.shards.borrow().iter().any(|runtime| runtime.up_since.is_some()) {
                self.ended.notified().await;
            }
        };
        if timeout(STOP_DEADLINE, all_stopped).await.is_err() {
            tracing::warn!(shards = up(), "some shards did not end in time");
        } else {
            let threads: Vec<_> =
                self.shards.borrow_mut().iter_mut().filter_map(|runtime| runtime.thread.take()).collect();
            drop(spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await);
        }
        self.hub.finish();
        let all_told = async {
            while self.hub.clients() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // A client that does not read keeps nobody.
        drop(timeout(FAREWELL_DEADLINE, all_told).await);
    }

    /// Sends a command of our own, whose answer interests nobody.
    fn send_unasked(&self, shard: ShardId, command: Command) {
        if let Err(error) = self.send(shard, command, self.now()) {
            tracing::debug!(%shard, %error, "could not clean up");
        }
    }
}

impl InFlight {
    /// Wraps what the router gave.
    pub fn new(receiver: oneshot::Receiver<Reply>) -> Self {
        Self(receiver)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// What the engine says, or 1017 if its shard has failed.
    pub async fn answer(self) -> Result<Answer, RpcError> {
        match self.0.await {
            Ok(Reply::Answer(result)) => Ok(result?),
            Ok(Reply::ShardFailed(shard)) => Err(RpcError::shard_failed(shard.0)),
            Ok(Reply::Snapshot(_)) | Err(_) => Err(CommandError::ShardFailed.into()),
        }
    }
}

/// How an operation ended, as far as the engine or its absence tells.
struct Told {
    condition: &'static str,
    elapsed_ms: u64,
    digits: Option<Digits>,
    error: Option<String>,
}

/// What became of a recording's file.
struct Closed {
    path: PathBuf,
    samples: u64,
    gaps: usize,
    error: Option<String>,
}

async fn close_recording(recording: Option<RecordingEntry>) -> Option<Closed> {
    let recording = recording?;
    if !recording.queue.deserted.load(Ordering::Acquire) {
        // The engine has said so already, or is about to end: no more samples come.
        recording.queue.finish();
    }
    Some(match recording.done.await {
        Ok(outcome) => {
            Closed { path: recording.path, samples: outcome.samples, gaps: outcome.gaps.len(), error: outcome.error }
        }
        Err(_) => Closed { path: recording.path, samples: 0, gaps: 0, error: Some("its writer has failed".to_owned()) },
    })
}

fn operation_ended(
    id: OperationId,
    target: Target,
    kind: OperationKind,
    told: Told,
    recording: Option<Closed>,
) -> Value {
    let mut params = json!({
        "operation_id": id.to_string(),
        "kind": kind.name(),
        "condition": told.condition,
        "elapsed_ms": told.elapsed_ms,
    });
    match target {
        Target::Connection(connection) => params["connection_id"] = connection.to_string().into(),
        Target::Conference(conference) => {
            params["connection_id"] = utility_id(id).into();
            params["conference_id"] = conference.to_string().into();
        }
    }
    if let Some(digits) = told.digits {
        params["digits"] = digits.as_str().into();
    }
    let mut error = told.error;
    if let Some(recording) = recording {
        params["path"] = recording.path.to_string_lossy().into();
        params["samples"] = recording.samples.into();
        params["gaps"] = recording.gaps.into();
        if recording.error.is_some() {
            // Whatever stopped it, the file is not what was asked for.
            params["condition"] = Condition::Error.name().into();
            error = error.or(recording.error);
        }
    }
    if let Some(error) = error {
        params["error"] = error.into();
    }
    params
}

fn connection_ended(id: ConnectionId, reason: EndReason) -> Value {
    json!({"connection_id": id.to_string(), "reason": reason_name(reason)})
}

fn reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Deleted => "deleted",
        EndReason::ConferenceDeleted => "conference_deleted",
        EndReason::LastLeft => "last_left",
        EndReason::Expired => "expired",
        EndReason::ShardFailed => "shard_failed",
        EndReason::Shutdown => "shutdown",
    }
}

/// Failures in a row, after one more: long life is forgiven.
fn failures_after(failures: u32, lived: Duration) -> u32 {
    if lived > LIFE_TO_FORGIVE { 0 } else { failures.saturating_add(1) }
}

fn pause_before_restart(failures: u32) -> Duration {
    RESTART_PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RESTART_PAUSE_MAX)
}

/// Reports taken from one shard before the others and the clients get their turn.
const REPORTS_PER_TURN_MAX: usize = 1024;
/// First pause before a shard is started again; doubled with each failure that follows soon.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a shard is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A shard that ran for this long starts again as if it had never failed.
const LIFE_TO_FORGIVE: Duration = Duration::from_secs(60);
/// How long shards may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long clients may take to read what is left.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_life_is_forgiven() {
        assert_eq!(failures_after(3, Duration::from_secs(1)), 4);
        assert_eq!(failures_after(3, LIFE_TO_FORGIVE + Duration::from_secs(1)), 0);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(pause_before_restart(0), Duration::from_millis(100));
        assert_eq!(pause_before_restart(1), Duration::from_millis(100));
        assert_eq!(pause_before_restart(3), Duration::from_millis(400));
        assert_eq!(pause_before_restart(u32::MAX), RESTART_PAUSE_MAX);
    }
}
