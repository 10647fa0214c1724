//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::pacing::Pacing;
use crate::reference::{self, Kind};
use crate::report::{self, Report};
use crate::scenario::relay::{Counter, Load as RelayLoad, Mode, STREAMS_MAX};
use crate::scenario::{Context, commands, idle, mediacontrol, mix, relay};
use crate::session::{ServerInfo, Session};
use crate::sys;
use crate::target::{ForwardTarget, ReferenceTarget};
use crate::traffic::TRAIN_MAX;

/// Exit code of a run whose figures may not be used.
const EXIT_VOID: u8 = 3;

/// Drives a running ringbridge server over its control socket and loopback UDP, checks every packet, and measures.
///
/// Exit codes: 0 measured, 1 failed, 2 wrong usage, 3 VOID: the generator itself was late (p99 of the sends above
/// 2 ms, or more than 0.1 % of them above 5 ms), the target was kept from running by other processes, or the load did not
/// saturate when it should: the figures say nothing.
#[derive(Debug, Parser)]
#[command(name = "ringbridge-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Relays: CPU, system calls and delay per packet, alone or against reference forwarders
    Relay(RelayArgs),
    /// Conferences: mix delay, gaps, self-hearing, CPU per member-packet
    Mix(MixArgs),
    /// Mutes, plays, creations and deletions beside a relay load: time to effect and to answer
    Commands(CommandsArgs),
    /// Metreos.MediaControl over HTTP, alone or beside a relay load: time to answer and to effect of stop and delete
    Mediacontrol(MediaControlArgs),
    /// CPU and memory of a server with many idle connections and empty conferences
    Idle(IdleArgs),
    /// Runs a reference forwarder; counts are printed for each line on standard input, its end ends it
    Reference(ReferenceArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// Control socket of the server
    #[arg(long, value_name = "PATH")]
    control: PathBuf,
    #[command(flatten)]
    generator: Generator,
}

#[derive(Debug, Args)]
struct Generator {
    /// CPU this tool runs on; default: the last one. Keep it off the shards' CPUs
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// How to wait for the time of a packet; default: spin, for `commands` sleep
    #[arg(long, value_enum)]
    pacing: Option<Pacing>,
    /// Nice value of this tool, -20 to 19; below 0 needs a privilege
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(-20..=19), allow_hyphen_values = true)]
    nice: i32,
    /// Also write everything, each run for itself, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum CompareRelay {
    /// Run the same load through both reference forwarders, epoll and epoll-nap
    Epoll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum CompareMix {
    /// Relay as many packets, interleaved with the conference runs
    Relay,
}

#[derive(Debug, Args)]
struct RelayArgs {
    /// Control socket of the server; without it only the reference forwarders are run (with --compare)
    #[arg(long, value_name = "PATH", required_unless_present = "compare")]
    control: Option<PathBuf>,
    #[command(flatten)]
    generator: Generator,
    /// Sending endpoints, an even number; each relay has two
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=i64::from(STREAMS_MAX)))]
    streams: u32,
    /// Packets per second over all streams, evenly spaced
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    #[command(flatten)]
    time: Time,
    /// Keep the server's queues full instead of pacing: a closed loop over --ports endpoints
    #[arg(long)]
    saturate: bool,
    /// Endpoints under --saturate, an even number
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=4096))]
    ports: u32,
    /// Packets under way under --saturate, over all endpoints
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,
    /// Packets of one endpoint sent in one go under --saturate
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(TRAIN_MAX)))]
    train: u32,
    /// What to compare with
    #[arg(long, value_enum)]
    compare: Option<CompareRelay>,
    /// CPU the reference forwarders run on: that of the server's shard
    #[arg(long, default_value_t = 0, value_name = "N")]
    reference_cpu: usize,
    /// Runs through each target, interleaved; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Add one run each with `perf stat` counting the system calls from outside
    #[arg(long)]
    perf: bool,
    /// Add one run each, at a twentieth of the load, with `strace -c -f` counting the system calls from outside
    #[arg(long)]
    strace: bool,
}

#[derive(Clone, Copy, Debug, Args)]
struct Time {
    /// Seconds measured in each run
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of load before the measured ones
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    warmup_seconds: f64,
}

#[derive(Debug, Args)]
struct MixArgs {
    #[command(flatten)]
    common: Common,
    /// Conferences
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Members of each conference, every one of which sends a packet each 20 ms
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: u32,
    /// Members of each conference that talk, 16 at most; the others send silence
    #[arg(long, default_value_t = 3)]
    talkers: u32,
    #[command(flatten)]
    time: Time,
    /// What to compare with
    #[arg(long, value_enum)]
    compare: Option<CompareMix>,
    /// Runs; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
}

#[derive(Debug, Args)]
struct CommandsArgs {
    #[command(flatten)]
    common: Common,
    /// Sending endpoints of the relay load beside, an even number
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=i64::from(STREAMS_MAX)))]
    streams: u32,
    /// Packets per second over these
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Mute and unmute commands per second, together
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    mutes: u64,
    /// Plays started per second; each is stopped after 0.2 s
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    plays: u64,
    /// Connections created per second; each is deleted after 0.2 s
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    creates: u64,
    /// Conferences of four whose members are muted in turn
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rooms: u32,
    #[command(flatten)]
    time: Time,
    /// Prompt to play, by the name the server finds it under below its --audio-root
    #[arg(long, value_name = "FILE")]
    prompt: Option<String>,
}

#[derive(Debug, Args)]
struct MediaControlArgs {
    #[command(flatten)]
    common: Common,
    /// Where the adapter listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9530")]
    url: String,
    /// Bearer token, if the listener wants one
    #[arg(long)]
    token: Option<String>,
    /// Clients, each with one HTTP connection and one call at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Sending endpoints of the relay load beside, an even number; 0: none
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=i64::from(STREAMS_MAX)))]
    streams: u32,
    /// Packets per second over these
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    #[command(flatten)]
    time: Time,
    /// Prompt to play, by the name the server finds it under below its --audio-root; longer than 0.1 s
    #[arg(long, value_name = "FILE")]
    prompt: String,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    common: Common,
    /// Connections nobody sends to
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    connections: u32,
    /// Conferences nobody is in
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    conferences: u32,
    /// Seconds measured
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
}

#[derive(Debug, Args)]
struct ReferenceArgs {
    /// Which forwarder
    #[arg(long, value_enum)]
    kind: Kind,
    /// Pairs of ports; each forwards between its two
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=i64::from(STREAMS_MAX / 2)))]
    pairs: u32,
    /// CPU to run on
    #[arg(long, default_value_t = 0, value_name = "N")]
    cpu: usize,
}

/// Parses a number of seconds: from 0 to a day.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    const SECONDS_MAX: f64 = 86_400.0;
    let value: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.0..=SECONDS_MAX).contains(&value) { Ok(value) } else { Err(format!("0 to {SECONDS_MAX} seconds")) }
}

/// Runs the tool as its command line says.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(reason)) => {
            println!("\nVOID: {reason}. These figures say nothing about the server.");
            ExitCode::from(EXIT_VOID)
        }
        Err(error) => {
            eprintln!("ringbridge-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command. Returns why its figures are void, if they are.
fn dispatch(command: Command) -> Result<Option<String>> {
    let machine = Machine::look();
    match command {
        Command::Relay(args) => relay(&args, &machine),
        Command::Mix(args) => mix(&args, &machine),
        Command::Commands(args) => commands(args, &machine),
        Command::Mediacontrol(args) => media_control(args, &machine),
        Command::Idle(args) => idle(&args, &machine),
        Command::Reference(args) => {
            // Each port is a file of the forwarder's.
            let wanted = u64::from(args.pairs) * 2 + 64;
            sys::raise_open_files(wanted).map_err(Error::io("RLIMIT_NOFILE"))?;
            reference::serve(args.kind, args.pairs as usize, args.cpu).map(|()| None)
        }
    }
}

impl Generator {
    fn context(&self, machine: &Machine, pacing: Pacing) -> Result<Context> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Error::io("signal handler"))?;
        }
        if self.nice != 0 {
            sys::set_nice(self.nice).map_err(Error::io(format!("nice {}", self.nice)))?;
        }
        println!("{}", machine.line());
        let cpu = self.cpu.unwrap_or(machine.cores - 1);
        if machine.cores == 1 {
            eprintln!("one core only: generator and server disturb each other");
        }
        Ok(Context { cpu, pacing: self.pacing.unwrap_or(pacing), stop })
    }

    fn finish<T: Serialize>(
        &self,
        command: &'static str,
        machine: &Machine,
        server: Option<&ServerInfo>,
        void: Option<String>,
        result: &T,
    ) -> Result<Option<String>> {
        if let Some(path) = &self.json {
            report::write_json(path, &Report { command, machine, server, void: void.clone(), result })?;
        }
        Ok(void)
    }
}

fn relay(args: &RelayArgs, machine: &Machine) -> Result<Option<String>> {
    let context = args.generator.context(machine, Pacing::Spin)?;
    let (streams, mode) = if args.saturate {
        (args.ports, Mode::Saturated { window: args.window, train: args.train })
    } else {
        (args.streams, Mode::Paced { rate: args.rate })
    };
    if !streams.is_multiple_of(2) {
        return Err(Error::Setup(format!("{streams} streams: an even number is needed, each relay has two")));
    }
    let load = RelayLoad { streams, mode, seconds: args.time.seconds, warmup_seconds: args.time.warmup_seconds };
    let mut targets: Vec<Box<dyn ForwardTarget>> = Vec::new();
    let mut server = None;
    if let Some(control) = &args.control {
        let session = Session::open(control)?;
        server = Some(session.info().clone());
        targets.push(Box::new(session));
    }
    if args.compare == Some(CompareRelay::Epoll) {
        for kind in [Kind::Epoll, Kind::EpollNap] {
            targets.push(Box::new(ReferenceTarget::new(kind, args.reference_cpu)?));
        }
    }
    let counters: Vec<Counter> = [(args.perf, Counter::Perf), (args.strace, Counter::Strace)]
        .into_iter()
        .filter_map(|(wanted, counter)| wanted.then_some(counter))
        .collect();
    let comparison = relay::compare(&context, &load, &mut targets, args.repeat, &counters)?;
    println!("{}", describe_load(&load, context.pacing));
    println!("{}", report::relay_table(&comparison));
    let void = comparison.void_reason();
    args.generator.finish("relay", machine, server.as_ref(), void, &comparison)
}

fn describe_load(load: &RelayLoad, pacing: Pacing) -> String {
    let how = match load.mode {
        Mode::Paced { rate } => format!("{rate} packets/s evenly spaced ({pacing:?})"),
        Mode::Saturated { window, train } => {
            format!("saturated, {window} packets under way in trains of {train}")
        }
    };
    format!(
        "{} streams, {how}, {} s measured after {} s; delay: before the send call to the receiving kernel's stamp, \
         two loopback passes included",
        load.streams, load.seconds, load.warmup_seconds
    )
}

fn mix(args: &MixArgs, machine: &Machine) -> Result<Option<String>> {
    let context = args.common.generator.context(machine, Pacing::Spin)?;
    let mut session = Session::open(&args.common.control)?;
    let server = session.info().clone();
    let load = mix::Load {
        rooms: args.rooms,
        size: args.size,
        talkers: args.talkers,
        seconds: args.time.seconds,
        warmup_seconds: args.time.warmup_seconds,
    };
    let with_relay = args.compare == Some(CompareMix::Relay);
    let comparison = mix::compare(&context, &mut session, &load, args.repeat, with_relay)?;
    println!("{}", report::mix_table(&comparison));
    args.common.generator.finish("mix", machine, Some(&server), comparison.void_reason(), &comparison)
}

fn commands(args: CommandsArgs, machine: &Machine) -> Result<Option<String>> {
    let context = args.common.generator.context(machine, Pacing::Sleep)?;
    if !args.streams.is_multiple_of(2) {
        return Err(Error::Setup(format!("{} streams: an even number is needed", args.streams)));
    }
    let mut session = Session::open(&args.common.control)?;
    let server = session.info().clone();
    let load = commands::Load {
        streams: args.streams,
        rate: args.rate,
        mutes: args.mutes,
        plays: args.plays,
        creates: args.creates,
        rooms: args.rooms,
        seconds: args.time.seconds,
        warmup_seconds: args.time.warmup_seconds,
        prompt: args.prompt,
    };
    let run = commands::run(&context, &mut session, &load)?;
    println!("{}", report::commands_table(&run));
    args.common.generator.finish("commands", machine, Some(&server), run.void.clone(), &run)
}

fn media_control(args: MediaControlArgs, machine: &Machine) -> Result<Option<String>> {
    let context = args.common.generator.context(machine, Pacing::Sleep)?;
    if !args.streams.is_multiple_of(2) {
        return Err(Error::Setup(format!("{} streams: an even number is needed", args.streams)));
    }
    let mut session = Session::open(&args.common.control)?;
    let server = session.info().clone();
    let load = mediacontrol::Load {
        url: args.url,
        token: args.token,
        clients: args.clients,
        streams: args.streams,
        rate: args.rate,
        seconds: args.time.seconds,
        warmup_seconds: args.time.warmup_seconds,
        prompt: args.prompt,
    };
    let run = mediacontrol::run(&context, &mut session, &load)?;
    println!("{}", report::media_control_table(&run));
    args.common.generator.finish("mediacontrol", machine, Some(&server), run.void.clone(), &run)
}

fn idle(args: &IdleArgs, machine: &Machine) -> Result<Option<String>> {
    let context = args.common.generator.context(machine, Pacing::Sleep)?;
    let mut session = Session::open(&args.common.control)?;
    let server = session.info().clone();
    let load = idle::Load {
        connections: args.connections as usize,
        conferences: args.conferences as usize,
        seconds: args.seconds,
    };
    let run = idle::run(&context, &mut session, &load)?;
    println!("{}", report::idle_table(&run));
    args.common.generator.finish("idle", machine, Some(&server), None, &run)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_relay_defaults_are_those_of_the_headline_figure() {
        let cli = Cli::parse_from(["ringbridge-load", "relay", "--control", "/x"]);
        let Command::Relay(args) = cli.command else { panic!("relay was asked for") };
        assert_eq!((args.streams, args.rate, args.repeat, args.ports), (1000, 50_000, 5, 64));
    }

    #[test]
    fn without_a_server_something_else_must_be_measured() {
        assert!(Cli::try_parse_from(["ringbridge-load", "relay"]).is_err());
        assert!(Cli::try_parse_from(["ringbridge-load", "relay", "--compare", "epoll"]).is_ok());
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for bad in ["-1", "nan", "inf", "x", "100000"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
