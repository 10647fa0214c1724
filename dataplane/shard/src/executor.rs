//! Starts one executor a core, waits until it is ready, and reports how it ended.
//!
//! ```text
//!           ┌── datagrams, messages, deadlines ──┐
//!           ▼                                    │
//!  ACTIVE: turn ── wait in the ring ─────────────┘   the shard's task itself sits in io_uring_enter
//!           │ nothing for 100 ms        ▲
//!           ▼                           │ the ring's eventfd, or the next deadline
//!  IDLE:   park in glommio ─────────────┘            costs nothing
//! ```
//!
//! A panic on the shard's thread ends that shard alone: its sockets close, [`ShardReport::Failed`] says why, and the
//! control plane may start it again.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::TimerActionOnce;
use glommio::{LocalExecutorBuilder, Placement};
use ringbridge_media::engine::Engine;
use ringbridge_media::id::ShardId;
use thiserror::Error;

use crate::clock;
pub use crate::mailbox::Peers;
use crate::mailbox::{Doorbell, Mailbox, MailboxReader, Outbox, ShardReport};
use crate::ring::{Ring, RingConfig, RingError};
use crate::run::Shard;

/// Without datagrams and messages for this long a shard parks.
const IDLE_AFTER: Duration = Duration::from_millis(100);
/// A deadline nearer than this is waited for in the ring: parking costs more than it saves.
const PARK_MIN: Duration = Duration::from_millis(5);
/// Memory glommio registers for its own file I/O, which a shard has none of; the least it takes.
const GLOMMIO_IO_MEMORY: usize = 65_536;
/// Entries of glommio's own rings.
const GLOMMIO_RING_DEPTH: usize = 128;

/// How one shard runs.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Which shard.
    pub id: ShardId,
    /// Core it is pinned to; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// How long arrivals are gathered before a turn, `0 ..= 1 ms`. 0 gives the lowest latency.
    pub batch_wait: Duration,
    /// Connections it has room for, `1 ..= limits::CONNECTIONS_MAX`. Twice as many files are registered with the ring,
    /// which `RLIMIT_NOFILE` has to allow.
    pub connections_max: u32,
    /// Seed of SSRCs and first sequence numbers.
    pub seed: u64,
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    /// Which shard.
    pub id: ShardId,
    /// Where its commands go.
    pub mailbox: Arc<Mailbox>,
    /// Where its answers and events come from.
    pub outbox: Arc<Outbox>,
    /// Its thread; ends after `Stopped` or `Failed`.
    pub thread: JoinHandle<()>,
}

/// Why a shard did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No thread.
    #[error("shard {}: no thread could be started: {source}", shard.0)]
    Thread {
        /// Which shard.
        shard: ShardId,
        /// What the system said.
        source: io::Error,
    },
    /// No executor: glommio's own rings were refused.
    #[error(
        "shard {}: glommio's io_uring rings could not be made ({reason}); `ringbridge check` tells which setting to change",
        shard.0
    )]
    Executor {
        /// Which shard.
        shard: ShardId,
        /// What glommio said.
        reason: String,
    },
    /// No ring for the packets.
    #[error("shard {}: {source}; `ringbridge check` tells which setting to change", shard.0)]
    Ring {
        /// Which shard.
        shard: ShardId,
        /// What was refused.
        source: RingError,
    },
    /// No eventfd.
    #[error("shard {}: no eventfd could be made ({source}); raise RLIMIT_NOFILE", shard.0)]
    EventFd {
        /// Which shard.
        shard: ShardId,
        /// What the system said.
        source: io::Error,
    },
    /// The shard is not among those the peers were made for.
    #[error("shard {}: no inbox was made for it", shard.0)]
    NoInbox {
        /// Which shard.
        shard: ShardId,
    },
    /// The thread died while it started.
    #[error("shard {}: its thread ended while it started; the log tells why", shard.0)]
    Died {
        /// Which shard.
        shard: ShardId,
    },
}

/// Starts a shard and waits until it is ready. `doorbell` rings when it has something to report.
///
/// # Errors
/// What was refused, in one sentence that names the setting to change.
pub fn start(config: ShardConfig, peers: Arc<Peers>, doorbell: Arc<Doorbell>) -> Result<ShardHandle, StartError> {
    let shard = config.id;
    let bell = peers.doorbell(shard).ok_or(StartError::NoInbox { shard })?;
    let mailbox = Mailbox::with_doorbell(Arc::clone(bell));
    let outbox = Outbox::new(doorbell);
    let (ready, is_ready) = mpsc::sync_channel(1);
    let (inner_mailbox, inner_outbox) = (Arc::clone(&mailbox), Arc::clone(&outbox));
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", shard.0))
        .spawn(move || {
            let reader = MailboxReader::new(inner_mailbox);
            let report = catch_unwind(AssertUnwindSafe(|| host(config, reader, &inner_outbox, peers, &ready)));
            let report =
                report.unwrap_or_else(|panic| Some(ShardReport::Failed { reason: panic_text(panic.as_ref()) }));
            if let Some(report) = report {
                push_last(&inner_outbox, report);
            }
        })
        .map_err(|source| StartError::Thread { shard, source })?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(ShardHandle { id: shard, mailbox, outbox, thread }),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(StartError::Died { shard }),
    }
}

/// Runs a shard to its end on this thread. `None`: it never became ready, and said so.
fn host(
    config: ShardConfig,
    mailbox: MailboxReader,
    outbox: &Arc<Outbox>,
    peers: Arc<Peers>,
    ready: &mpsc::SyncSender<Result<(), StartError>>,
) -> Option<ShardReport> {
    let shard = config.id;
    let placement = config.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(GLOMMIO_IO_MEMORY)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .name("shard")
        .make();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            let _ = ready.send(Err(StartError::Executor { shard, reason: error.to_string() }));
            return None;
        }
    };
    let outbox = Arc::clone(outbox);
    executor.run(async move {
        // The first sleep registers membarrier and may take tens of milliseconds: better now than with packets waiting.
        glommio::timer::sleep(Duration::from_millis(1)).await;
        let started = Host::new(config, mailbox, outbox, peers);
        let (mut host, outcome) = match started {
            Ok(host) => (host, ready.send(Ok(()))),
            Err(error) => {
                let _ = ready.send(Err(error));
                return None;
            }
        };
        if outcome.is_err() {
            return None;
        }
        let ended = host.run().await;
        // The ring lets go of its sockets before the report says so.
        drop(host);
        Some(match ended {
            Ok(()) => ShardReport::Stopped,
            Err(reason) => ShardReport::Failed { reason },
        })
    })
}

struct Host {
    shard: Shard<Ring>,
    /// Signalled by the ring while the shard is parked.
    wake: Arc<OwnedFd>,
}

impl Host {
    fn new(
        config: ShardConfig,
        mailbox: MailboxReader,
        outbox: Arc<Outbox>,
        peers: Arc<Peers>,
    ) -> Result<Self, StartError> {
        let shard = config.id;
        let wake =
            rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK)
                .map_err(|source| StartError::EventFd { shard, source: source.into() })?;
        let ring_config = RingConfig::new(2 * config.connections_max, mailbox.doorbell().fd());
        let ring = Ring::new(ring_config).map_err(|source| StartError::Ring { shard, source })?;
        let mut engine = Engine::new(shard, config.seed, clock::now());
        engine.set_wall_clock(clock::ntp_at_zero());
        let shard = Shard::new(shard, config.batch_wait, engine, ring, mailbox, outbox, peers);
        Ok(Self { shard, wake: Arc::new(wake) })
    }

    /// Turns until told to stop. `Err` is a panic's text or a broken ring's error.
    async fn run(&mut self) -> Result<(), String> {
        let mut last_active = clock::now();
        loop {
            let now = clock::now();
            // A panic is this shard's end, not the executor's.
            let turn = catch_unwind(AssertUnwindSafe(|| self.shard.turn(now)))
                .map_err(|panic| panic_text(panic.as_ref()))?
                .map_err(|error| format!("the packet ring is broken: {error}"))?;
            if turn.stop {
                return Ok(());
            }
            if turn.active || turn.more {
                last_active = now;
            }
            let after = clock::now();
            if after.saturating_since(last_active) >= IDLE_AFTER && self.park(after).await? {
                last_active = clock::now();
                continue;
            }
            // The executor has no other task while the shard is active, so it is not given a turn: that would cost an
            // allocation and some system calls each time.
            let plan = self.shard.plan_wait(after, turn, IDLE_AFTER);
            self.shard.wait(plan).map_err(|error| format!("the packet ring is broken: {error}"))?;
        }
    }

    /// Sleeps in glommio until the ring has something or the next deadline; `false` if there is no time for that.
    async fn park(&mut self, now: ringbridge_media::time::Instant) -> Result<bool, String> {
        if self.shard.waits_for_room() {
            return Ok(false);
        }
        let until_due = self.shard.next_due().map(|due| due.saturating_since(now));
        if until_due.is_some_and(|until_due| until_due < PARK_MIN) {
            return Ok(false);
        }
        let broken = |error: io::Error| format!("the shard could not park: {error}");
        self.shard.io_mut().register_wake(self.wake.as_fd()).map_err(broken)?;
        self.shard.mailbox().doorbell().arm();
        let may_park = self.shard.io_mut().drain_idle().map_err(broken)? && !self.shard.has_messages();
        if may_park {
            let alarm = until_due.map(|until_due| {
                let wake = Arc::clone(&self.wake);
                TimerActionOnce::do_in(until_due, async move {
                    let _ = rustix::io::write(wake.as_fd(), &1u64.to_ne_bytes());
                })
            });
            read_eventfd(&self.wake).await.map_err(broken)?;
            if let Some(alarm) = alarm {
                alarm.cancel().await;
            }
        }
        self.shard.mailbox().doorbell().disarm();
        self.shard.io_mut().unregister_wake().map_err(broken)?;
        Ok(may_park)
    }
}

/// Waits in glommio until `eventfd` is signalled, and resets it.
async fn read_eventfd(eventfd: &OwnedFd) -> io::Result<()> {
    // glommio wants to own the descriptor: it gets a duplicate.
    let duplicate = eventfd.try_clone()?.into_raw_fd();
    let file = buffered_file(duplicate);
    let outcome = file.read_at(0, 8).await;
    outcome.map(|_| ()).map_err(io::Error::from)
}

#[allow(unsafe_code, reason = "glommio's only way to wait for a descriptor it did not open")]
fn buffered_file(fd: std::os::fd::RawFd) -> BufferedFile {
    // SAFETY: the descriptor was just duplicated and belongs to nobody else; the file closes it when dropped.
    unsafe { BufferedFile::from_raw_fd(fd) }
}

/// The last report always finds room: the control plane keeps reading until it has seen it.
fn push_last(outbox: &Outbox, mut report: ShardReport) {
    while let Err(refused) = outbox.push(report) {
        report = refused;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}
