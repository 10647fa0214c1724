//! The real control plane and a real shard on virtual time, in one thread: calls go in, events come out, and the
//! clock moves only when told to.
//!
//! ```text
//!  row ── call ──▶ control plane ── mailbox ──▶ shard on a simulated network ◀── datagrams ── phones
//!      ◀─ events ─   (tokio, paused) ◀─ outbox ──┘                            ── datagrams ──▶
//! ```
//!
//! The clock stands still while a call is in flight and while an end waits for the file it belongs to: media threads
//! are real threads, and what they do takes no virtual time. Nothing that a row measures depends on the machine.

mod phone;
mod shard;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringbridge_control::config::{Config, Machine, PortRange, ShardCount};
use ringbridge_control::events::{Client, EventKind};
use ringbridge_control::methods::{self, Call};
use ringbridge_control::server::{Server, StartShard};
use ringbridge_media::id::OperationId;
use ringbridge_media::time::Instant;
use ringbridge_shard::executor::{ShardConfig, ShardHandle};
use ringbridge_shard::mailbox::{Mailbox, Outbox};
use ringbridge_shard::sim::{LinkProfile, SimNet};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, LocalSet, yield_now};

pub use phone::{Phone, Voice};
use shard::Node;

use crate::{PATIENCE, audio};

/// A phone of a [`VirtualServer`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PhoneId(usize);

/// A server on virtual time.
pub struct VirtualServer {
    /// The control plane.
    pub server: Rc<Server>,
    /// A client of the control socket's methods.
    client: Rc<Client>,
    client_events: VecDeque<Value>,
    net: SimNet,
    nodes: Vec<Node>,
    phones: Vec<Phone>,
    clock: Clock,
    /// Shards take no messages, no datagrams and no time.
    held: bool,
    /// Ended in the engine and not told yet.
    ending: BTreeSet<OperationId>,
    directory: TempDir,
    // Last, so that tasks end before it.
    local: LocalSet,
    runtime: Runtime,
}

/// The virtual clock; clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    began: Instant,
    now: Rc<Cell<Instant>>,
}

/// A call on its way.
pub struct Pending<T>(JoinHandle<T>);

struct Started {
    config: ShardConfig,
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Milliseconds since the start.
    pub fn ms(&self) -> u64 {
        u64::try_from(self.now().saturating_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

impl VirtualServer {
    /// A server of one shard with prompts and recordings in a directory of its own.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same with changes to its configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config {
            shards: ShardCount::Fixed(1),
            ports: PortRange::new(10_000, 12_399).expect("a range"),
            state_dir: Some(directory.path().to_owned()),
            media_threads: 2,
            ..Config::default()
        };
        change(&mut config);
        let began = ringbridge_shard::clock::now();
        let clock = Clock { began, now: Rc::new(Cell::new(began)) };
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let local = LocalSet::new();
        let started = Arc::new(Mutex::new(Vec::new()));
        let start_shard = starter(Arc::clone(&started));
        let machine = Machine { cpus: vec![0], files: 65_536 };
        let server = local.block_on(&runtime, async {
            let derived = config.derive(&machine).expect("a valid configuration");
            let server = Server::start(config, derived, start_shard).expect("it starts");
            let clock = clock.clone();
            server.set_clock(Rc::new(move || clock.now()));
            server
        });
        let net = SimNet::new(1, LinkProfile::PERFECT);
        net.set_now(began);
        let started = std::mem::take(&mut *started.lock().unwrap_or_else(PoisonError::into_inner));
        let nodes = started.into_iter().map(|started| Node::new(&net, began, started)).collect();
        let client = server.hub.connect("native", None);
        client.subscribe(EventKind::ALL);
        Self {
            server,
            client,
            client_events: VecDeque::new(),
            net,
            nodes,
            phones: Vec::new(),
            clock,
            held: false,
            ending: BTreeSet::new(),
            directory,
            local,
            runtime,
        }
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Milliseconds since the start.
    pub fn ms(&self) -> u64 {
        self.clock.ms()
    }

    /// Where a prompt of that name lies.
    pub fn prompt(&self, name: &str) -> PathBuf {
        self.directory.path().join("audio").join(name)
    }

    /// Where a recording of that name lies.
    pub fn recording(&self, name: &str) -> PathBuf {
        self.directory.path().join("recordings").join(name)
    }

    /// Puts a prompt below the audio root: a tone of so many milliseconds.
    pub fn write_tone(&self, name: &str, hz: u32, ms: usize) {
        let samples: Vec<i16> = (0..8 * ms).map(|index| audio::tone(hz, 8000, index)).collect();
        audio::write_wav(&self.prompt(name), &samples);
    }

    /// Shards stand still, so that what is sent to them stays unanswered.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// They go on.
    pub fn release(&mut self) {
        self.held = false;
    }

    // Calls

    /// Looks at something of the control plane that goes by the clock.
    pub fn within<T>(&self, look: impl FnOnce() -> T) -> T {
        let _clock = self.runtime.enter();
        look()
    }

    /// Begins work of the control plane.
    pub fn begin<T: 'static>(&mut self, work: impl Future<Output = T> + 'static) -> Pending<T> {
        Pending(self.local.spawn_local(work))
    }

    /// Whether it has come to its end, as far as it gets without the clock.
    pub fn is_done<T>(&mut self, pending: &Pending<T>) -> bool {
        self.settle();
        pending.0.is_finished()
    }

    /// Waits for its end. The clock stands still meanwhile.
    ///
    /// # Panics
    /// If it does not end, or panics.
    #[track_caller]
    pub fn finish<T: 'static>(&mut self, pending: Pending<T>) -> T {
        let began = std::time::Instant::now();
        loop {
            self.settle();
            if pending.0.is_finished() {
                return self.local.block_on(&self.runtime, pending.0).expect("it ends well");
            }
            assert!(began.elapsed() < PATIENCE, "a call was never answered");
            std::thread::sleep(WAIT);
        }
    }

    /// Carries out work of the control plane.
    #[track_caller]
    pub fn run<T: 'static>(&mut self, work: impl Future<Output = T> + 'static) -> T {
        let pending = self.begin(work);
        self.finish(pending)
    }

    /// Calls a method of the control socket.
    ///
    /// # Errors
    /// What the method says.
    #[track_caller]
    pub fn method(&mut self, name: &str, params: Value) -> Result<Value, Value> {
        let call = Call::new(Rc::clone(&self.server), Rc::clone(&self.client), self.clock.now(), Rc::from("native"));
        let name = name.to_owned();
        self.run(async move {
            let result = methods::call(&call, &name, params).await;
            call.announce();
            result.map_err(|error| error.to_value())
        })
    }

    /// Every event of the control socket that was not taken yet.
    pub fn method_events(&mut self) -> Vec<Value> {
        while let Some(bytes) = self.client.take_output() {
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let mut line: Value = serde_json::from_slice(line).expect("a line of JSON");
                self.client_events.push_back(line["params"].take());
            }
        }
        self.client_events.drain(..).collect()
    }

    // Time

    /// Lets time pass, in milliseconds.
    pub fn pass(&mut self, ms: u64) {
        let end = self.clock.now() + Duration::from_millis(ms);
        loop {
            self.settle_files();
            let now = self.clock.now();
            if now >= end {
                return;
            }
            self.advance(end);
        }
    }

    /// Does everything there is to do at this instant, then moves the clock to the next moment that matters, by so many
    /// milliseconds at most.
    pub fn step(&mut self, ms_max: u64) {
        self.settle_files();
        self.advance(self.clock.now() + Duration::from_millis(ms_max));
        self.settle_files();
    }

    /// Lets time pass until something holds, at most so many milliseconds.
    ///
    /// # Panics
    /// If it does not hold by then.
    #[track_caller]
    pub fn pass_until<T>(&mut self, what: &str, ms: u64, mut holds: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = self.clock.now() + Duration::from_millis(ms);
        loop {
            self.settle_files();
            if let Some(value) = holds(self) {
                return value;
            }
            assert!(self.clock.now() < end, "this never came: {what}");
            self.advance(end);
        }
    }

    /// One step: to the next moment that matters, at most to `end`.
    fn advance(&mut self, end: Instant) {
        let now = self.clock.now();
        let shards = self.nodes.iter().filter_map(Node::next_due);
        let phones = self.phones.iter().filter_map(Phone::next_due);
        let next = shards.chain(phones).min().unwrap_or(end).min(end).min(now + STEP_MAX).max(now + STEP_MIN);
        self.clock.now.set(next);
        self.net.set_now(next);
        let step = next.saturating_since(now);
        self.local.block_on(&self.runtime, tokio::time::advance(step));
        for phone in &mut self.phones {
            phone.speak(&self.net, next);
        }
    }

    /// Everything that can happen at this instant, files aside.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            let mut active = false;
            if !self.held {
                for node in &mut self.nodes {
                    active |= node.turn(self.clock.now(), &mut self.ending);
                }
            }
            self.local.block_on(&self.runtime, async {
                for _ in 0..YIELDS {
                    yield_now().await;
                }
            });
            active |= !self.held && self.nodes.iter().any(Node::has_messages);
            quiet = if active { 0 } else { quiet + 1 };
        }
        for phone in &mut self.phones {
            phone.listen(&self.net, self.clock.now(), self.clock.ms());
        }
    }

    /// The same, and what media threads owe at this instant: recordings take what was heard, ends wait for their files.
    fn settle_files(&mut self) {
        let began = std::time::Instant::now();
        loop {
            self.settle();
            let registry = self.server.registry.borrow();
            self.ending.retain(|id| registry.operation(*id).is_some());
            drop(registry);
            let behind = self.nodes.iter_mut().any(Node::recordings_are_behind);
            if self.held || (self.ending.is_empty() && !behind) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "an end was never told: {:?}", self.ending);
            std::thread::sleep(WAIT);
        }
    }

    // Phones

    /// A phone that is silent until told otherwise.
    pub fn phone(&mut self) -> PhoneId {
        let number = self.phones.len();
        let phone = Phone::new(number, &self.net);
        self.phones.push(phone);
        PhoneId(number)
    }

    /// One of the phones, to be told something.
    pub fn at(&mut self, phone: PhoneId) -> &mut Phone {
        &mut self.phones[phone.0]
    }

    /// All of them.
    pub fn phones(&self) -> impl Iterator<Item = &Phone> {
        self.phones.iter()
    }

    /// Where a phone is.
    pub fn address(&self, phone: PhoneId) -> SocketAddr {
        self.phones[phone.0].address()
    }

    /// The phone calls the server at `target` and says `voice` from now on.
    pub fn talk(&mut self, phone: PhoneId, target: SocketAddr, voice: Voice) {
        let now = self.clock.now();
        self.phones[phone.0].talk(target, voice, now);
    }

    /// Presses digits, one after the other, as telephone-events. Returns the milliseconds since the start at which each
    /// is over: that is when it counts.
    pub fn press(&mut self, phone: PhoneId, digits: &str) -> Vec<u64> {
        let now = self.clock.now();
        let ms = self.clock.ms();
        self.phones[phone.0].press(digits, now).into_iter().map(|after| ms + after).collect()
    }
}

impl Drop for VirtualServer {
    fn drop(&mut self) {
        // Tasks hold the server, and with it the media threads.
        self.nodes.clear();
        let tasks = std::mem::take(&mut self.local);
        let guard = self.runtime.enter();
        drop(tasks);
        drop(guard);
    }
}

/// Hands over the mailbox and the outbox of each shard that is started.
fn starter(started: Arc<Mutex<Vec<Started>>>) -> StartShard {
    Arc::new(move |config, doorbell| {
        let (mailbox, outbox) = (Mailbox::new()?, Outbox::new(doorbell));
        let handed_over = Started { config, mailbox: Arc::clone(&mailbox), outbox: Arc::clone(&outbox) };
        started.lock().unwrap_or_else(PoisonError::into_inner).push(handed_over);
        // The shard is driven by whoever moves the clock.
        Ok(ShardHandle { id: config.id, mailbox, outbox, thread: std::thread::spawn(|| {}) })
    })
}

/// The least the clock is moved.
const STEP_MIN: Duration = Duration::from_millis(1);
/// The most the clock is moved, so that timers of the control plane are met closely.
const STEP_MAX: Duration = Duration::from_millis(10);
/// Turns of the control plane between two turns of a shard.
const YIELDS: usize = 4;
/// Rounds without anything new after which nothing more happens by itself.
const QUIET_ROUNDS: usize = 2;
/// How often media threads are looked at.
const WAIT: Duration = Duration::from_micros(50);
