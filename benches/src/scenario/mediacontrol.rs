//! Metreos.MediaControl over HTTP: how soon a stop and a delete are answered and take effect, alone or beside a relay
//! load.
//!
//! Each client is a thread with one HTTP connection that is kept open. It lives call after call: CreateConnection, Play,
//! a short while, then in turn StopMediaOperation (Block True) and DeleteConnection, or DeleteConnection while it plays.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};
use ureq::Agent;

use super::commands::{EFFECT_MS_MAX, effect_ms};
use super::phase::{CpuWindow, LOOK, Phase};
use super::{Context, addresses_of, connect_all, ptime_ms_for, relay, run_number};
use crate::cpu::CpuUse;
use crate::error::{Error, Result};
use crate::figures::{Quantiles, duration_histogram, record};
use crate::progress;
use crate::session::Session;
use crate::target::ForwardTarget;
use crate::traffic::{self, Mark, PacedPlan};
use crate::verify::Verdict;

/// How long a play runs before it is stopped.
const HOLD: Duration = Duration::from_millis(100);
/// Longest wait for one answer; more is an error.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// The calls, beside a relay load or none.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Where the adapter listens: `http://IP:PORT`.
    pub url: String,
    /// Bearer token, if the listener wants one.
    #[serde(skip)]
    pub token: Option<String>,
    /// Clients, each with one HTTP connection and one call at a time.
    pub clients: u32,
    /// Sending endpoints of the relay load beside; an even number, 0 for none.
    pub streams: u32,
    /// Packets per second over these.
    pub rate: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before.
    pub warmup_seconds: f64,
    /// Prompt to play, as the server names it.
    pub prompt: String,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `CreateConnection`.
    Create,
    /// `Play`.
    Play,
    /// `StopMediaOperation` with Block True.
    Stop,
    /// `DeleteConnection` of a connection with nothing running.
    Delete,
    /// `DeleteConnection` while it plays.
    DeletePlaying,
}

impl Action {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CreateConnection",
            Self::Play => "Play",
            Self::Stop => "StopMediaOperation",
            Self::Delete => "DeleteConnection",
            Self::DeletePlaying => "DeleteConnection, playing",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Create => "CreateConnection",
            Self::Play => "Play",
            Self::Stop => "StopMediaOperation",
            Self::Delete | Self::DeletePlaying => "DeleteConnection",
        }
    }

    fn has_effect(self) -> bool {
        match self {
            Self::Stop | Self::DeletePlaying => true,
            Self::Create | Self::Play | Self::Delete => false,
        }
    }
}

/// What became of the calls of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Sent in the window.
    pub sent: u64,
    /// Answered with `Success`.
    pub succeeded: u64,
    /// Anything else, by result code or what HTTP said.
    pub errors: BTreeMap<String, u64>,
    /// From the request to the answer, microseconds.
    pub answer_us: Quantiles,
    /// From receipt to effect on the media clock, microseconds.
    pub effect_us: Quantiles,
    /// Effects later than [`EFFECT_MS_MAX`].
    pub violations: u64,
    /// Answers that ought to hold an effect and do not.
    pub without_effect: u64,
}

/// One run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The load.
    pub load: Load,
    /// By kind of call.
    pub actions: Vec<(Action, Tally)>,
    /// What became of the relayed packets, if there were any.
    pub verdict: Option<Verdict>,
    /// Delay of the relayed packets from send to receive, microseconds.
    pub delay_us: Quantiles,
    /// CPU time of the server, all threads.
    pub cpu: CpuUse,
    /// Why the figures may not be used, if so.
    pub void: Option<String>,
}

#[derive(Debug)]
struct Counting {
    tally: Tally,
    answers: Histogram<u64>,
    effects: Histogram<u64>,
}

impl Default for Counting {
    fn default() -> Self {
        Self { tally: Tally::default(), answers: duration_histogram(), effects: duration_histogram() }
    }
}

/// Sets up, runs the calls beside the load, cleans up.
///
/// # Errors
/// The load is impossible, the server failed, or the user interrupted.
pub fn run(context: &Context, session: &mut Session, load: &Load) -> Result<Run> {
    let result = run_set_up(context, session, load);
    let closed = session.clean_up();
    let run = result?;
    closed?;
    Ok(run)
}

fn run_set_up(context: &Context, session: &mut Session, load: &Load) -> Result<Run> {
    context.prepare(u64::from(load.streams) + u64::from(load.clients) * 2)?;
    let mut endpoints = Vec::new();
    if load.streams > 0 {
        endpoints = traffic::relay_endpoints(None, run_number(), load.streams)?;
        let stream_rate = load.rate as f64 / f64::from(load.streams);
        let remotes = ForwardTarget::open(session, &addresses_of(&endpoints)?, ptime_ms_for(stream_rate))?;
        connect_all(&endpoints, &remotes)?;
        traffic::prime(&mut endpoints, &context.stop)?;
    }
    // What is played goes here and is not read: the kernel drops it.
    let void_socket = UdpSocket::bind("127.0.0.1:0").map_err(Error::io("socket for plays"))?;
    let port = void_socket.local_addr().map_err(Error::io("socket for plays"))?.port();

    let phase = Phase::new();
    let plan = context.paced(load.rate, load.warmup_seconds, load.seconds);
    let mut window = CpuWindow::new(session.info().pid, Some(&phase));
    let mark = |mark| window.mark(mark);
    let (outcome, lives) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..load.clients).map(|_| scope.spawn(|| Caller::new(load, port).live(&phase))).collect();
        let end = phase.end_at_drop();
        let outcome = if endpoints.is_empty() {
            wait(&plan, context, mark).map(|()| None)
        } else {
            progress::with_bar("calls", plan.packets(), |done| {
                traffic::run_paced(&mut endpoints, &plan, &context.stop, done, mark)
            })
            .map(Some)
        };
        drop(end);
        let lives: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (outcome, lives)
    });
    let outcome = outcome?;
    let mut all: BTreeMap<Action, Counting> = BTreeMap::new();
    for life in lives {
        let tallies = life.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for (action, counting) in tallies {
            add(all.entry(action).or_default(), counting);
        }
    }
    let cpu = window.used()?;
    let late = outcome.as_ref().and_then(|outcome| outcome.lateness.void_reason());
    let void = late.or_else(|| relay::starved_reason(&cpu));
    let actions = all.into_iter().map(|(action, counting)| (action, summary(counting))).collect();
    Ok(Run {
        load: load.clone(),
        actions,
        verdict: outcome.as_ref().map(|outcome| outcome.verdict),
        delay_us: outcome.map_or_else(Quantiles::default, |outcome| Quantiles::of_nanos(&outcome.delays)),
        cpu,
        void,
    })
}

/// The windows of a run without packets.
fn wait(plan: &PacedPlan, context: &Context, mut mark: impl FnMut(Mark) -> Result<()>) -> Result<()> {
    for (duration, then) in [(plan.warmup, Mark::Open), (plan.measured, Mark::Close)] {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            if context.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(LOOK);
        }
        mark(then)?;
    }
    Ok(())
}

fn add(sum: &mut Counting, part: Counting) {
    sum.tally.sent += part.tally.sent;
    sum.tally.succeeded += part.tally.succeeded;
    sum.tally.violations += part.tally.violations;
    sum.tally.without_effect += part.tally.without_effect;
    for (error, count) in part.tally.errors {
        *sum.tally.errors.entry(error).or_default() += count;
    }
    // Both have the same bounds.
    let _ = sum.answers.add(part.answers);
    let _ = sum.effects.add(part.effects);
}

fn summary(counting: Counting) -> Tally {
    Tally {
        answer_us: Quantiles::of_nanos(&counting.answers),
        effect_us: Quantiles::of_nanos(&counting.effects),
        ..counting.tally
    }
}

/// One client.
struct Caller<'a> {
    agent: Agent,
    load: &'a Load,
    /// Where plays are sent.
    port: u16,
    tallies: BTreeMap<Action, Counting>,
}

impl<'a> Caller<'a> {
    fn new(load: &'a Load, port: u16) -> Self {
        let config = Agent::config_builder().timeout_global(Some(ANSWER_PATIENCE)).http_status_as_error(false);
        Self { agent: config.build().into(), load, port, tallies: BTreeMap::new() }
    }

    /// Lives call after call until the run has ended; what happened in its measured window.
    fn live(mut self, phase: &Phase) -> BTreeMap<Action, Counting> {
        let mut stops_first = true;
        loop {
            if phase.has_ended() {
                return self.tallies;
            }
            self.one_call(phase.is_measuring(), stops_first);
            stops_first = !stops_first;
        }
    }

    fn one_call(&mut self, counts: bool, stops_first: bool) {
        let target = json!({"MediaTxIP": "127.0.0.1", "MediaTxPort": self.port});
        let Some(created) = self.ask(Action::Create, target, counts) else {
            // Whatever is wrong with the server, do not hammer it.
            return std::thread::sleep(HOLD);
        };
        let id = &created["ConnectionId"];
        let played = self.ask(Action::Play, json!({"ConnectionId": id, "Prompt1": self.load.prompt}), counts);
        std::thread::sleep(HOLD);
        if stops_first && played.is_some() {
            self.ask(Action::Stop, json!({"ConnectionId": id}), counts);
            self.ask(Action::Delete, json!({"ConnectionId": id}), counts);
        } else {
            self.ask(Action::DeletePlaying, json!({"ConnectionId": id}), counts);
        }
    }

    /// Calls one action; its results, if it succeeded.
    fn ask(&mut self, action: Action, params: Value, counts: bool) -> Option<Value> {
        let url = format!("{}/MediaControl/{}", self.load.url, action.path());
        let mut request = self.agent.post(&url);
        if let Some(token) = &self.load.token {
            request = request.header("Authorization", &format!("Bearer {token}"));
        }
        let began = Instant::now();
        let answer = request
            .send_json(json!({"params": params}))
            .and_then(|mut answer| answer.body_mut().read_json::<Value>())
            .map_err(|error| error.to_string());
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let outcome = answer.and_then(|mut answer| match answer["branch"].as_str() {
            Some("Success") => Ok(answer["results"].take()),
            _ => Err(format!("code {}", answer["results"]["ResultCode"].as_str().unwrap_or("?"))),
        });
        if counts {
            let counting = self.tallies.entry(action).or_default();
            counting.tally.sent += 1;
            match &outcome {
                Ok(results) => count(counting, action, results, took),
                Err(error) => *counting.tally.errors.entry(error.clone()).or_default() += 1,
            }
        }
        outcome.ok()
    }
}

fn count(counting: &mut Counting, action: Action, results: &Value, took_ns: u64) {
    counting.tally.succeeded += 1;
    record(&mut counting.answers, took_ns);
    if !action.has_effect() {
        return;
    }
    let Some(effect) = effect_ms(&results["Effect"]).filter(|effect| *effect >= 0.0) else {
        counting.tally.without_effect += 1;
        return;
    };
    let duration = Duration::try_from_secs_f64(effect / 1e3).unwrap_or(Duration::MAX);
    record(&mut counting.effects, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    counting.tally.violations += u64::from(effect > EFFECT_MS_MAX);
}
