//! Commands beside media: how soon they take effect and get their answers, and whether media suffers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use super::phase::{CpuWindow, LOOK, Phase};
use super::{Context, addresses_of, connect_all, mix, ptime_ms_for, relay, run_number};
use crate::cpu::CpuUse;
use crate::error::{Error, Result};
use crate::figures::{Quantiles, duration_histogram, record};
use crate::pacing::Schedule;
use crate::progress;
use crate::rpc::{Answer, Client};
use crate::session::{Session, parse_created};
use crate::target::ForwardTarget;
use crate::traffic::{self, Sink};
use crate::verify::Verdict;

/// From a command's receipt to its effect on the media clock, in milliseconds; more is a violation.
pub const EFFECT_MS_MAX: f64 = 20.0;
/// Commands under way at once; one due beyond is skipped and counted.
const UNDER_WAY_MAX: usize = 256;
/// How long a play runs and a connection lives before it is stopped or deleted again.
const HOLD: Duration = Duration::from_millis(200);
/// How long answers are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The commands, beside a relay load.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Sending endpoints of the relay load; an even number.
    pub streams: u32,
    /// Packets per second over these.
    pub rate: u64,
    /// Mute and unmute commands per second, together.
    pub mutes: u64,
    /// Plays started per second, and as many stopped.
    pub plays: u64,
    /// Connections created per second, and as many deleted.
    pub creates: u64,
    /// Conferences of four members whose members are muted.
    pub rooms: u32,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before.
    pub warmup_seconds: f64,
    /// Prompt to play, as the server names it.
    pub prompt: Option<String>,
}

/// A kind of command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// `conference.set` with `muted: true`.
    Mute,
    /// `conference.set` with `muted: false`.
    Unmute,
    /// `operation.start` of a play.
    Play,
    /// `operation.stop`.
    Stop,
    /// `connection.create`.
    Create,
    /// `connection.delete`.
    Delete,
}

impl Command {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mute => "mute",
            Self::Unmute => "unmute",
            Self::Play => "play start",
            Self::Stop => "play stop",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    /// Whether its answer says when it took effect.
    fn has_effect(self) -> bool {
        match self {
            Self::Mute | Self::Unmute | Self::Stop | Self::Delete => true,
            Self::Play | Self::Create => false,
        }
    }
}

/// What became of the commands of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Sent in the window.
    pub sent: u64,
    /// Answered with a result.
    pub succeeded: u64,
    /// Never answered.
    pub unanswered: u64,
    /// Answered with an error, by kind.
    pub errors: BTreeMap<String, u64>,
    /// From sending to the answer, microseconds.
    pub answer_us: Quantiles,
    /// From receipt to effect on the media clock, microseconds.
    pub effect_us: Quantiles,
    /// Effects later than [`EFFECT_MS_MAX`].
    pub violations: u64,
    /// Answers that ought to hold an effect and do not.
    pub without_effect: u64,
    /// Effects that lie before the receipt of their command, which cannot be.
    pub effects_before_receipt: u64,
}

/// One run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The load.
    pub load: Load,
    /// Length of the measured window in seconds.
    pub seconds: f64,
    /// By kind of command.
    pub commands: Vec<(Command, Tally)>,
    /// All effects together, microseconds.
    pub effect_us: Quantiles,
    /// Effects later than [`EFFECT_MS_MAX`].
    pub violations: u64,
    /// Commands that were due but not sent, because too many were under way or nothing was there to act on.
    pub skipped: u64,
    /// Lateness of the commands' sends, microseconds.
    pub command_lateness_us: Quantiles,
    /// What became of the relayed packets.
    pub verdict: Verdict,
    /// Delay of the relayed packets from send to receive, microseconds.
    pub delay_us: Quantiles,
    /// Lateness of the packets' sends, microseconds.
    pub lateness_us: Quantiles,
    /// CPU time of the server, all threads.
    pub cpu: CpuUse,
    /// Why the figures may not be used, if so.
    pub void: Option<String>,
}

/// Sets up, runs the load and the commands, cleans up.
///
/// # Errors
/// The load is impossible, the server failed, or the user interrupted.
pub fn run(context: &Context, session: &mut Session, load: &Load) -> Result<Run> {
    if load.plays > 0 && load.prompt.is_none() {
        let text = "plays need --prompt FILE (a path the server finds below its --audio-root), or --plays 0";
        return Err(Error::Setup(text.into()));
    }
    let result = run_set_up(context, session, load);
    let closed = session.clean_up();
    let run = result?;
    closed?;
    Ok(run)
}

fn run_set_up(context: &Context, session: &mut Session, load: &Load) -> Result<Run> {
    let rooms = mix::Load {
        rooms: load.rooms,
        size: 4,
        talkers: 2,
        seconds: load.seconds,
        warmup_seconds: load.warmup_seconds,
    };
    let players = usize::try_from(load.plays).unwrap_or(usize::MAX).min(1_000) / 2 + usize::from(load.plays > 0) * 16;
    context.prepare(u64::from(load.streams) + u64::from(load.rooms) * 4)?;
    let mut endpoints = traffic::relay_endpoints(None, run_number(), load.streams)?;
    let stream_rate = load.rate as f64 / f64::from(load.streams);
    let remotes = ForwardTarget::open(session, &addresses_of(&endpoints)?, ptime_ms_for(stream_rate))?;
    connect_all(&endpoints, &remotes)?;
    let members_endpoints = mix::member_endpoints(&rooms, false)?;
    let members = mix::set_up(session, &rooms, &members_endpoints)?;
    endpoints.extend(members_endpoints);
    // What is played goes here and is not read: the kernel drops it.
    let void_socket = UdpSocket::bind("127.0.0.1:0").map_err(Error::io("socket for plays"))?;
    let remote = void_socket.local_addr().map_err(Error::io("socket for plays"))?.to_string();
    let players = session.create_connections(vec![json!({"remote": remote, "codec": "PCMU"}); players])?;
    // Members send as often as streams do.
    let rate = load.rate * endpoints.len() as u64 / u64::from(load.streams);
    traffic::prime(&mut endpoints, &context.stop)?;

    let mut commander = Commander {
        client: Client::connect(&session.info().control)?,
        load: load.clone(),
        members,
        muted: Vec::new(),
        next_member: 0,
        idle_players: players.into_iter().map(|player| player.id).collect(),
        to_stop: VecDeque::new(),
        to_delete: VecDeque::new(),
        under_way: HashMap::new(),
        tallies: BTreeMap::new(),
        skipped: 0,
        lateness: duration_histogram(),
        all_effects: duration_histogram(),
    };
    commander.muted = vec![false; commander.members.len()];
    let phase = Phase::new();
    let plan = context.paced(rate, load.warmup_seconds, load.seconds);
    let mut window = CpuWindow::new(session.info().pid, Some(&phase));
    let (outcome, commanded) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| commander.run(&phase));
        let end = phase.end_at_drop();
        let outcome = progress::with_bar("commands", plan.packets(), |done| {
            traffic::run_paced(&mut endpoints, &plan, &context.stop, done, |mark| window.mark(mark))
        });
        drop(end);
        (outcome, worker.join())
    });
    let outcome = outcome?;
    match commanded {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let cpu = window.used()?;
    let void = outcome.lateness.void_reason().or_else(|| relay::starved_reason(&cpu));
    debug_assert!(endpoints.iter().all(|endpoint| !matches!(endpoint.sink(), Sink::Capture(_))));
    let tallies: Vec<_> = commander.tallies.iter().map(|(command, tally)| (*command, tally.summary())).collect();
    Ok(Run {
        load: load.clone(),
        seconds: outcome.seconds,
        violations: tallies.iter().map(|(_, tally)| tally.violations).sum(),
        commands: tallies,
        effect_us: Quantiles::of_nanos(&commander.all_effects),
        skipped: commander.skipped,
        command_lateness_us: Quantiles::of_nanos(&commander.lateness),
        verdict: outcome.verdict,
        delay_us: Quantiles::of_nanos(&outcome.delays),
        lateness_us: outcome.lateness.quantiles(),
        cpu,
        void,
    })
}

/// Counters of one kind while the run goes on.
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

impl Counting {
    fn summary(&self) -> Tally {
        Tally {
            answer_us: Quantiles::of_nanos(&self.answers),
            effect_us: Quantiles::of_nanos(&self.effects),
            ..self.tally.clone()
        }
    }
}

/// A command whose answer is awaited.
struct UnderWay {
    command: Command,
    sent_at: Instant,
    /// The connection it acts on; empty for a creation.
    connection: String,
}

/// Issues commands on a control connection of its own.
struct Commander {
    client: Client,
    load: Load,
    /// Conference and connection of each member.
    members: Vec<(String, String)>,
    muted: Vec<bool>,
    next_member: usize,
    idle_players: VecDeque<String>,
    /// Due time, connection and operation of each running play.
    to_stop: VecDeque<(Instant, String, String)>,
    /// Due time and connection of each created connection.
    to_delete: VecDeque<(Instant, String)>,
    under_way: HashMap<u64, UnderWay>,
    tallies: BTreeMap<Command, Counting>,
    skipped: u64,
    lateness: Histogram<u64>,
    all_effects: Histogram<u64>,
}

impl Commander {
    /// Waits for the measured window, issues commands until its end, then undoes what is left.
    fn run(&mut self, phase: &Phase) -> Result<()> {
        while phase.is_warming() {
            std::thread::sleep(LOOK);
        }
        let start = Instant::now();
        let lanes =
            [(Command::Mute, self.load.mutes), (Command::Play, self.load.plays), (Command::Create, self.load.creates)];
        let mut lanes: Vec<_> = lanes
            .into_iter()
            .filter(|&(_, rate)| rate > 0)
            .map(|(command, rate)| (command, Schedule::new(rate), 0u64))
            .collect();
        while phase.is_measuring() {
            let now = Instant::now();
            let mut next = now + LOOK;
            for (command, schedule, index) in &mut lanes {
                let mut due = start + schedule.due(*index);
                while due <= now {
                    let late = u64::try_from((now - due).as_nanos()).unwrap_or(u64::MAX);
                    record(&mut self.lateness, late);
                    self.issue(*command)?;
                    *index += 1;
                    due = start + schedule.due(*index);
                }
                next = next.min(due);
            }
            self.undo_due(now)?;
            self.take_answers(next)?;
        }
        self.finish()
    }

    /// Issues the next command of a lane.
    fn issue(&mut self, lane: Command) -> Result<()> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            self.skipped += 1;
            return Ok(());
        }
        match lane {
            Command::Mute | Command::Unmute => {
                let Some((conference, connection)) = self.members.get(self.next_member).cloned() else {
                    self.skipped += 1;
                    return Ok(());
                };
                let muted = !self.muted[self.next_member];
                self.muted[self.next_member] = muted;
                self.next_member = (self.next_member + 1) % self.members.len();
                let params = json!({"conference_id": conference, "connection_id": connection, "muted": muted});
                let command = if muted { Command::Mute } else { Command::Unmute };
                self.send(command, "conference.set", &params, connection)
            }
            Command::Play | Command::Stop => {
                let Some(connection) = self.idle_players.pop_front() else {
                    self.skipped += 1;
                    return Ok(());
                };
                let params = json!({"kind": "play", "connection_id": connection, "files": [self.load.prompt]});
                self.send(Command::Play, "operation.start", &params, connection)
            }
            Command::Create | Command::Delete => {
                self.send(Command::Create, "connection.create", &json!({"codec": "PCMU"}), String::new())
            }
        }
    }

    /// Stops plays and deletes connections whose time has come.
    fn undo_due(&mut self, now: Instant) -> Result<()> {
        while self.to_stop.front().is_some_and(|&(due, ..)| due <= now) {
            let Some((_, connection, operation)) = self.to_stop.pop_front() else { break };
            let params = json!({"connection_id": connection, "operation_id": operation});
            self.send(Command::Stop, "operation.stop", &params, connection)?;
        }
        while self.to_delete.front().is_some_and(|&(due, _)| due <= now) {
            let Some((_, connection)) = self.to_delete.pop_front() else { break };
            let params = json!({"connection_id": connection});
            self.send(Command::Delete, "connection.delete", &params, connection)?;
        }
        Ok(())
    }

    fn send(&mut self, command: Command, method: &str, params: &Value, connection: String) -> Result<()> {
        let sent_at = Instant::now();
        let id = self.client.send(method, params)?;
        self.under_way.insert(id, UnderWay { command, sent_at, connection });
        self.tallies.entry(command).or_default().tally.sent += 1;
        Ok(())
    }

    /// Takes answers until `until`, at least those that are there.
    fn take_answers(&mut self, until: Instant) -> Result<()> {
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            match self.client.receive(rest)? {
                Some(answer) => self.take(answer),
                None => return Ok(()),
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    fn take(&mut self, answer: Answer) {
        let Some(UnderWay { command, sent_at, connection }) = self.under_way.remove(&answer.id) else { return };
        let counting = self.tallies.entry(command).or_default();
        record(&mut counting.answers, u64::try_from(sent_at.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let result = match answer.outcome {
            Ok(result) => result,
            Err(error) => {
                *counting.tally.errors.entry(error.name()).or_default() += 1;
                if matches!(command, Command::Play | Command::Stop) {
                    self.idle_players.push_back(connection);
                }
                return;
            }
        };
        counting.tally.succeeded += 1;
        if command.has_effect() {
            match effect_ms(&result["effect"]) {
                Some(effect) if effect >= 0.0 => {
                    let duration = Duration::try_from_secs_f64(effect / 1e3).unwrap_or(Duration::MAX);
                    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                    record(&mut counting.effects, nanos);
                    record(&mut self.all_effects, nanos);
                    counting.tally.violations += u64::from(effect > EFFECT_MS_MAX);
                }
                Some(_) => counting.tally.effects_before_receipt += 1,
                None => counting.tally.without_effect += 1,
            }
        }
        let due = Instant::now() + HOLD;
        match command {
            Command::Play => {
                let operation = result["operation_id"].as_str().unwrap_or_default().to_owned();
                self.to_stop.push_back((due, connection, operation));
            }
            Command::Stop => self.idle_players.push_back(connection),
            Command::Create => {
                if let Ok(created) = parse_created(&result) {
                    self.to_delete.push_back((due, created.id));
                }
            }
            Command::Mute | Command::Unmute | Command::Delete => (),
        }
    }

    /// Takes the last answers and undoes what they started.
    fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + LAST_ANSWERS;
        while Instant::now() < deadline {
            let far = Instant::now() + HOLD * 2;
            self.undo_due(far)?;
            if self.under_way.is_empty() {
                break;
            }
            self.take_answers(Instant::now() + LOOK)?;
        }
        for UnderWay { command, .. } in std::mem::take(&mut self.under_way).into_values() {
            self.tallies.entry(command).or_default().tally.unanswered += 1;
        }
        Ok(())
    }
}

/// Control-to-effect time on the media clock, in milliseconds.
pub(super) fn effect_ms(effect: &Value) -> Option<f64> {
    Some(effect["media_time_ms"].as_f64()? - effect["received_media_time_ms"].as_f64()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::pacing::Pacing;
    use crate::testing::FakeServer;

    fn load() -> Load {
        Load {
            streams: 4,
            rate: 200,
            mutes: 100,
            plays: 20,
            creates: 20,
            rooms: 2,
            seconds: 1.0,
            warmup_seconds: 0.1,
            prompt: Some("prompt.wav".into()),
        }
    }

    fn context() -> Context {
        Context { cpu: 0, pacing: Pacing::Sleep, stop: Arc::new(AtomicBool::new(false)) }
    }

    #[test]
    fn commands_are_counted_and_late_effects_found() {
        let server = FakeServer::start();
        let mut session = Session::open(server.control()).unwrap();
        let run = run(&context(), &mut session, &load()).unwrap();
        assert_eq!(server.alive(), 0, "everything created is deleted");
        let tally = |wanted| &run.commands.iter().find(|(command, _)| *command == wanted).unwrap().1;
        for (command, sent) in &run.commands {
            assert_eq!((sent.sent, sent.unanswered), (sent.succeeded, 0), "{command:?} {sent:?}");
            assert!(sent.errors.is_empty(), "{command:?} {sent:?}");
        }
        assert_eq!(tally(Command::Play).sent, tally(Command::Stop).sent);
        assert_eq!(tally(Command::Create).sent, tally(Command::Delete).sent);
        // The fake server takes 10 ms to mute and 30 ms to unmute.
        assert_eq!(tally(Command::Mute).violations, 0);
        assert!(tally(Command::Unmute).sent > 0);
        assert_eq!(tally(Command::Unmute).violations, tally(Command::Unmute).sent);
        assert_eq!(run.violations, tally(Command::Unmute).sent);
        assert!((tally(Command::Mute).effect_us.p50 - 10_000.0).abs() < 50.0);
        assert!(run.verdict.is_clean(), "{:?}", run.verdict);
    }

    #[test]
    fn plays_without_a_prompt_are_refused_at_once() {
        let server = FakeServer::start();
        let mut session = Session::open(server.control()).unwrap();
        let error = run(&context(), &mut session, &Load { prompt: None, ..load() }).unwrap_err();
        assert!(error.to_string().contains("--prompt"), "{error}");
    }

    #[test]
    fn the_effect_is_the_difference_on_the_media_clock() {
        let effect = json!({"received_media_time_ms": 1000.5, "media_time_ms": 1010.0});
        assert_eq!(effect_ms(&effect), Some(9.5));
        assert_eq!(effect_ms(&json!({})), None);
        assert_eq!(effect_ms(&Value::Null), None);
    }
}
