//! The control plane as a whole: starts the shards, takes in what they report, and ends tidily.
//!
//! All of it runs on one thread; state is plain, borrowed for moments and never across a wait.
//!
//! A shard that fails takes its sessions with it: whoever waits for it is answered, each operation, connection and
//! conference on it gets its one final event, its ports are free again, and it is started anew.

mod ends;
mod error;
mod lock;
mod moving;
mod parts;
mod rebalancing;
mod reports;
mod restart;

use std::cell::{Cell, OnceCell, RefCell};
use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use ringbridge_media::command::Command;
use ringbridge_media::event::{Answer, CommandError};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::time::Instant;
use ringbridge_shard::clock;
use ringbridge_shard::executor::{ShardConfig, ShardHandle};
use ringbridge_shard::mailbox::Doorbell;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};

use crate::apis::Apis;
use crate::audit;
use crate::config::{Config, Derived, Machine, batch_wait};
use crate::events::Hub;
use crate::files::{FilesConfig, MediaFiles, TtsConfig};
use crate::mediacontrol::{self, MediaControl};
use crate::placement::Placement;
use crate::ports::PortPool;
use crate::preparing::Preparing;
use crate::proto::RpcError;
use crate::quota::Quota;
use crate::registry::{RecordingEntry, Registry};
use crate::router::{Concern, Dispatch, Refusal, Reply, Router};
use crate::socket::ControlSocket;
use crate::store::{self, Store, recordings};
use crate::tickets::Tickets;
use crate::tls;

use self::lock::StateLock;

pub(crate) use self::ends::SHARD_FAILED;
pub use self::error::ServeError;
pub(crate) use self::moving::{MOVE_PATIENCE, busy};
pub use self::rebalancing::{MoveCounts, MoveReason};

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
    /// How often things have moved between shards.
    pub moves: MoveCounts,
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
    /// Parts of conferences that are to end and whose shard was busy.
    vacating: RefCell<Vec<(ShardId, ConferenceId)>>,
    requests: Cell<u64>,
    errors: Cell<u64>,
}

/// A command on its way; await its answer.
#[derive(Debug)]
pub struct InFlight {
    reply: oneshot::Receiver<Reply>,
    shard: ShardId,
}

#[derive(Debug, Default)]
struct ShardRuntime {
    thread: Option<JoinHandle<()>>,
    up_since: Option<std::time::Instant>,
    failures: u32,
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
    let _lock = StateLock::take(&derived.state_dir)?;
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
        if server.config.rebalance.enabled && server.derived.shard_cpus.len() > 1 {
            spawn_local(Rc::clone(&server).rebalance());
        }
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
            moves: MoveCounts::default(),
            started_at: Timestamp::now(),
            mediacontrol: OnceCell::new(),
            clock: RefCell::new(Rc::new(clock::now)),
            shards: RefCell::new((0..shards).map(|_| ShardRuntime::default()).collect()),
            start_shard,
            doorbell: Arc::new(Doorbell::new().map_err(io("out of file descriptors"))?),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            ended: Notify::new(),
            vacating: RefCell::new(Vec::new()),
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
        let shard = dispatch.shard;
        Ok(InFlight { reply: self.router.borrow_mut().send(dispatch)?, shard })
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
        self.place_beside(&[])
    }

    /// The shard among those not `taken` that has the most headroom.
    pub fn place_beside(&self, taken: &[ShardId]) -> ShardId {
        let mut placement = self.placement.borrow_mut();
        let now = self.now();
        if placement.wants_figures(now) {
            for shard in self.shard_ids() {
                // The figures are taken in when they are reported; a shard that can't answer keeps its old ones.
                drop(self.router.borrow_mut().snapshot(shard));
            }
        }
        let (registry, router) = (self.registry.borrow(), self.router.borrow());
        let free = self.shard_ids().filter(|shard| router.is_up(*shard) && !taken.contains(shard));
        placement.choose(free, |shard| registry.connections_on(shard))
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
    /// Wraps what the router gave for a command to `shard`.
    pub fn new(reply: oneshot::Receiver<Reply>, shard: ShardId) -> Self {
        Self { reply, shard }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// What the engine says, or 1017 if its shard has failed.
    pub async fn answer(self) -> Result<Answer, RpcError> {
        let reply = self.reply.await;
        let answer = match &reply {
            Ok(Reply::Answer(Ok(answer))) => Some(answer),
            Ok(Reply::Answer(Err(_)) | Reply::Snapshot(_) | Reply::ShardFailed(_)) | Err(_) => None,
        };
        audit::note(self.shard, answer);
        match reply {
            Ok(Reply::Answer(result)) => Ok(result?),
            Ok(Reply::ShardFailed(shard)) => Err(RpcError::shard_failed(shard.0)),
            Ok(Reply::Snapshot(_)) | Err(_) => Err(CommandError::ShardFailed.into()),
        }
    }
}

/// How long shards may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long clients may take to read what is left.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);
