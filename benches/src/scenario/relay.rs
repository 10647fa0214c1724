//! Relays: packets in, the same packets out, through the server and through reference forwarders in turn.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use super::phase::CpuWindow;
use super::{Context, addresses_of, connect_all, ptime_ms_for, run_number};
use crate::clock::ClockWatch;
use crate::cpu::CpuUse;
use crate::error::{Error, Result};
use crate::figures::{Quantiles, Spread};
use crate::progress;
use crate::sys;
use crate::target::ForwardTarget;
use crate::traffic::{self, Mark, Outcome, PacedPlan, SaturatedPlan, Saturation};
use crate::verify::Verdict;

/// Largest number of streams.
pub const STREAMS_MAX: u32 = 20_000;
/// A void run is made again so often before it counts.
const VOID_RETRIES_MAX: u32 = 2;
/// By how much less load a target stopped by strace at each call is given.
const STRACE_DIVISOR: u64 = 20;
/// What each source of a saturated load is declared as: one packet a millisecond, the most there is.
const SATURATED_SOURCE_RATE: f64 = 1_000.0;
/// The clock may move so much against the monotonic one before delays are doubtful, in microseconds.
const CLOCK_SHIFT_US_MAX: f64 = 200.0;

/// A relay load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Sending endpoints; an even number. Each relay has two.
    pub streams: u32,
    /// How the packets are sent.
    pub mode: Mode,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before.
    pub warmup_seconds: f64,
}

/// How the packets of a load are sent.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Mode {
    /// Evenly spaced.
    Paced {
        /// Packets per second over all streams.
        rate: u64,
    },
    /// As fast as they come back.
    Saturated {
        /// Packets under way.
        window: u32,
        /// Packets handed to the kernel in one send.
        train: u32,
    },
}

/// One run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What it went through.
    pub target: &'static str,
    /// Which repeat, from 1.
    pub repeat: u32,
    /// Length of the measured window in seconds.
    pub seconds: f64,
    /// Packets forwarded in it.
    pub forwarded: u64,
    /// Packets forwarded per second.
    pub packets_per_second: f64,
    /// What became of the packets.
    pub verdict: Verdict,
    /// CPU time of the target, all threads.
    pub cpu: CpuUse,
    /// The same per packet forwarded, in nanoseconds.
    pub cpu_ns_per_packet: f64,
    /// System calls per packet, as the target counts them.
    pub syscalls_per_packet: Option<f64>,
    /// Delay from send to receive in microseconds.
    pub delay_us: Quantiles,
    /// Lateness of the generator's own sends in microseconds.
    pub lateness_us: Quantiles,
    /// Share of sends more than 5 ms late.
    pub very_late_share: f64,
    /// Sends the kernel refused.
    pub send_errors: u64,
    /// Movement of the wall clock during the run, in microseconds.
    pub clock_shift_us: f64,
    /// Only under saturation.
    pub saturation: Option<Saturation>,
    /// Why the figures may not be used, if so.
    pub void: Option<String>,
}

/// All runs of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The load.
    pub load: Load,
    /// Every run made, void ones included, in the order made.
    pub runs: Vec<Run>,
    /// System calls counted from outside, in runs of their own.
    pub outside_counts: Vec<OutsideCount>,
}

impl Comparison {
    /// The last try of each repeat through `target`.
    #[must_use]
    pub fn final_runs(&self, target: &str) -> Vec<&Run> {
        let mut runs: Vec<&Run> = Vec::new();
        for run in self.runs.iter().filter(|run| run.target == target) {
            runs.retain(|earlier| earlier.repeat != run.repeat);
            runs.push(run);
        }
        runs
    }

    /// Targets in the order first run.
    #[must_use]
    pub fn targets(&self) -> Vec<&'static str> {
        let mut targets = Vec::new();
        for run in &self.runs {
            if !targets.contains(&run.target) {
                targets.push(run.target);
            }
        }
        targets
    }

    /// Why the comparison as a whole may not be used: a repeat stayed void.
    #[must_use]
    pub fn void_reason(&self) -> Option<String> {
        self.targets()
            .iter()
            .flat_map(|target| self.final_runs(target))
            .find_map(|run| run.void.as_ref().map(|reason| format!("{}, repeat {}: {reason}", run.target, run.repeat)))
    }

    /// Ratio of a figure of `ours` to that of `theirs`, repeat by repeat; nothing if a repeat is void.
    #[must_use]
    pub fn ratio(&self, ours: &str, theirs: &str, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        let (ours, theirs) = (self.final_runs(ours), self.final_runs(theirs));
        if ours.iter().chain(&theirs).any(|run| run.void.is_some()) {
            return None;
        }
        let values = |runs: &[&Run]| runs.iter().map(|run| figure(run)).collect::<Vec<_>>();
        Spread::of_ratios(&values(&ours), &values(&theirs))
    }
}

/// Runs the load `repeats` times through each target, interleaved: A B C A B C. Each of
/// `counters` adds one run through each target.
///
/// # Errors
/// A target failed, or the user interrupted.
pub fn compare(
    context: &Context,
    load: &Load,
    targets: &mut [Box<dyn ForwardTarget>],
    repeats: u32,
    counters: &[Counter],
) -> Result<Comparison> {
    context.prepare(u64::from(load.streams))?;
    let mut comparison = Comparison { load: *load, runs: Vec::new(), outside_counts: Vec::new() };
    for repeat in 1..=repeats {
        for target in &mut *targets {
            for attempt in 0..=VOID_RETRIES_MAX {
                let label = format!("{} {repeat}/{repeats}", target.name());
                let run = run_once(context, load, target.as_mut(), repeat, &label)?;
                if let Some(reason) = &run.void {
                    eprintln!("{label}: VOID ({reason}){}", if attempt < VOID_RETRIES_MAX { ", again" } else { "" });
                }
                let done = run.void.is_none();
                comparison.runs.push(run);
                if done {
                    break;
                }
            }
        }
    }
    for &counter in counters {
        for target in &mut *targets {
            comparison.outside_counts.push(count_from_outside(context, load, target.as_mut(), counter)?);
        }
    }
    Ok(comparison)
}

/// One run through one target, which is opened before and closed after.
///
/// # Errors
/// The target failed, or the user interrupted.
pub fn run_once(
    context: &Context,
    load: &Load,
    target: &mut dyn ForwardTarget,
    repeat: u32,
    label: &str,
) -> Result<Run> {
    let result = run_opened(context, load, target, repeat, label);
    let closed = target.close();
    let run = result?;
    closed?;
    Ok(run)
}

/// Opens the target for new endpoints and sends the first packets through it.
fn open(context: &Context, load: &Load, target: &mut dyn ForwardTarget) -> Result<Vec<traffic::Endpoint>> {
    let mut endpoints = traffic::relay_endpoints(None, run_number(), load.streams)?;
    let source_rate = match load.mode {
        Mode::Paced { rate } => rate as f64 / f64::from(load.streams),
        Mode::Saturated { .. } => SATURATED_SOURCE_RATE,
    };
    let remotes = target.open(&addresses_of(&endpoints)?, ptime_ms_for(source_rate))?;
    connect_all(&endpoints, &remotes)?;
    traffic::prime(&mut endpoints, &context.stop)?;
    Ok(endpoints)
}

fn run_opened(context: &Context, load: &Load, target: &mut dyn ForwardTarget, repeat: u32, label: &str) -> Result<Run> {
    let mut endpoints = open(context, load, target)?;
    let counted_before = target.io_count()?;
    let mut window = CpuWindow::new(target.pid(), None);
    let watch = ClockWatch::start();
    let outcome = drive(context, load, &mut endpoints, label, |mark| window.mark(mark))?;
    let clock_shift_us = watch.shift_us();
    let counted_after = target.io_count()?;
    let syscalls_per_packet =
        counted_before.zip(counted_after).and_then(|(before, after)| after.per_packet_since(&before));
    Ok(summarize(load, target.name(), repeat, &outcome, window.used()?, syscalls_per_packet, clock_shift_us))
}

/// Runs the load over connected endpoints, with a progress bar.
fn drive(
    context: &Context,
    load: &Load,
    endpoints: &mut [traffic::Endpoint],
    label: &str,
    mark: impl FnMut(Mark) -> Result<()> + Send,
) -> Result<Outcome> {
    let warmup = Duration::from_secs_f64(load.warmup_seconds);
    let measured = Duration::from_secs_f64(load.seconds);
    match load.mode {
        Mode::Paced { rate } => {
            let plan = PacedPlan { rate, warmup, measured, pacing: context.pacing };
            progress::with_bar(label, plan.packets(), |done| {
                traffic::run_paced(endpoints, &plan, &context.stop, done, mark)
            })
        }
        Mode::Saturated { window, train } => {
            let plan = SaturatedPlan { window, train, source_rate: SATURATED_SOURCE_RATE, warmup, measured };
            let total = u64::try_from((warmup + measured).as_millis()).unwrap_or(u64::MAX);
            progress::with_bar(label, total, |done| traffic::run_saturated(endpoints, &plan, &context.stop, done, mark))
        }
    }
}

fn summarize(
    load: &Load,
    target: &'static str,
    repeat: u32,
    outcome: &Outcome,
    cpu: CpuUse,
    syscalls_per_packet: Option<f64>,
    clock_shift_us: f64,
) -> Run {
    let void = match (&outcome.saturation, load.mode) {
        (Some(saturation), Mode::Saturated { window, .. }) => traffic::unsaturated_reason(saturation, window),
        (Some(_) | None, Mode::Saturated { .. } | Mode::Paced { .. }) => outcome.lateness.void_reason(),
    };
    let void = void.or_else(|| {
        (clock_shift_us.abs() > CLOCK_SHIFT_US_MAX)
            .then(|| format!("the wall clock moved by {clock_shift_us:.0} µs, so delays are wrong"))
    });
    let void = void.or_else(|| starved_reason(&cpu));
    let void = void.or_else(|| (outcome.forwarded == 0).then(|| "no packet came back".to_owned()));
    Run {
        target,
        repeat,
        seconds: outcome.seconds,
        forwarded: outcome.forwarded,
        packets_per_second: outcome.forwarded as f64 / outcome.seconds.max(f64::MIN_POSITIVE),
        verdict: outcome.verdict,
        cpu_ns_per_packet: cpu.process_ns as f64 / outcome.forwarded.max(1) as f64,
        cpu,
        syscalls_per_packet,
        delay_us: Quantiles::of_nanos(&outcome.delays),
        lateness_us: outcome.lateness.quantiles(),
        very_late_share: outcome.lateness.very_late_share(),
        send_errors: outcome.send_errors,
        clock_shift_us,
        saturation: outcome.saturation,
        void,
    }
}

/// Why a run is void, if it is: other processes kept the target from running. Packets then wait and come in batches,
/// which makes a forwarder look cheaper and slower than it is.
#[must_use]
pub(super) fn starved_reason(cpu: &CpuUse) -> Option<String> {
    /// Share of the time the target may have waited for a CPU, in percent.
    const WAITED_PERCENT_MAX: f64 = 10.0;
    (cpu.waited_percent > WAITED_PERCENT_MAX).then(|| {
        format!(
            "other processes were in the way: the target waited {:.0} % of the time for a CPU, limit \
             {WAITED_PERCENT_MAX:.0} %",
            cpu.waited_percent
        )
    })
}

/// What counts system calls from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// `perf stat -e raw_syscalls:sys_enter`: the kernel counts, at the full load.
    Perf,
    /// `strace -c -f`: stops the target at each call, so it is used at a twentieth of the load.
    Strace,
}

impl Counter {
    /// Its command, in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf stat -e raw_syscalls:sys_enter",
            Self::Strace => "strace -c -f",
        }
    }

    fn command(self, pid: u32, report: &Path) -> Command {
        let mut command = match self {
            Self::Perf => {
                let mut command = Command::new("perf");
                command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter"]);
                command
            }
            Self::Strace => {
                let mut command = Command::new("strace");
                command.args(["-c", "-f"]);
                command
            }
        };
        command.args(["-p", &pid.to_string(), "-o"]).arg(report);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The load it is used with.
    fn load(self, load: &Load) -> Load {
        let mode = match (self, load.mode) {
            (Self::Strace, Mode::Paced { rate }) => Mode::Paced { rate: (rate / STRACE_DIVISOR).max(1) },
            (Self::Strace | Self::Perf, mode) => mode,
        };
        Load { mode, warmup_seconds: 0.0, ..*load }
    }

    /// The number of calls in its report.
    fn total(self, report: &str) -> Option<u64> {
        match self {
            // "COUNT,,raw_syscalls:sys_enter,…"
            Self::Perf => report.lines().find(|line| line.contains("sys_enter"))?.split(',').next()?.parse().ok(),
            // "100.00 seconds usecs/call CALLS [errors] total"
            Self::Strace => {
                let line = report.lines().find(|line| line.trim_end().ends_with("total"))?;
                line.split_whitespace().nth(3)?.parse().ok()
            }
        }
    }
}

/// System calls counted from outside, in a run of its own of which nothing else is used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OutsideCount {
    /// What it went through.
    pub target: &'static str,
    /// What counted.
    pub counter: Counter,
    /// Packets per second then.
    pub packets_per_second: f64,
    /// System calls of all threads per packet forwarded.
    pub syscalls_per_packet: f64,
}

/// Runs the load once more with a counter attached to the target.
fn count_from_outside(
    context: &Context,
    load: &Load,
    target: &mut dyn ForwardTarget,
    counter: Counter,
) -> Result<OutsideCount> {
    let result = count_opened(context, &counter.load(load), target, counter);
    let closed = target.close();
    let count = result?;
    closed?;
    Ok(count)
}

fn count_opened(
    context: &Context,
    load: &Load,
    target: &mut dyn ForwardTarget,
    counter: Counter,
) -> Result<OutsideCount> {
    /// Time an attaching counter needs to get hold of every thread.
    const ATTACH: Duration = Duration::from_millis(500);
    let mut endpoints = open(context, load, target)?;
    let report = std::env::temp_dir().join(format!("ringbridge-load-count-{}", std::process::id()));
    let mut child = counter
        .command(target.pid(), &report)
        .spawn()
        .map_err(Error::io(format!("cannot start {} (is it installed?)", counter.name())))?;
    std::thread::sleep(ATTACH);
    let before = traffic::received_by(&endpoints);
    let label = format!("{} counted", target.name());
    let outcome = drive(context, load, &mut endpoints, &label, |_| Ok(()));
    // Also after an error it has to let go of the target.
    let interrupted = sys::interrupt_process(child.id());
    let waited = child.wait();
    let outcome = outcome?;
    interrupted.and_then(|()| waited.map(drop)).map_err(Error::io(counter.name()))?;
    let text = fs::read_to_string(&report).map_err(Error::io(format!("report of {}", counter.name())))?;
    let _ = fs::remove_file(&report);
    let calls = counter.total(&text).ok_or_else(|| Error::Protocol(format!("{} reported {text:?}", counter.name())))?;
    let packets = traffic::received_by(&endpoints) - before;
    Ok(OutsideCount {
        target: target.name(),
        counter,
        packets_per_second: outcome.forwarded as f64 / outcome.seconds.max(f64::MIN_POSITIVE),
        syscalls_per_packet: calls as f64 / packets.max(1) as f64,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::pacing::Pacing;
    use crate::session::Session;
    use crate::testing::{FakeServer, Faults};

    fn context() -> Context {
        Context { cpu: 0, pacing: Pacing::Sleep, stop: Arc::new(AtomicBool::new(false)) }
    }

    fn load(mode: Mode) -> Load {
        Load { streams: 8, mode, seconds: 0.4, warmup_seconds: 0.1 }
    }

    #[test]
    fn a_load_through_the_control_socket_is_measured_and_cleaned_up() {
        let server = FakeServer::start();
        let mut session = Session::open(server.control()).unwrap();
        let load = load(Mode::Paced { rate: 400 });
        let run = run_once(&context(), &load, &mut session, 1, "test").unwrap();
        assert_eq!(run.verdict.sent, 160);
        assert!(run.verdict.is_clean(), "{:?}", run.verdict);
        assert_eq!(run.forwarded, 160);
        assert!(run.cpu_ns_per_packet > 0.0 && run.delay_us.p50 > 0.0);
        assert_eq!(run.syscalls_per_packet, None, "the fake server does not count them");
        assert_eq!(server.alive(), 0);
    }

    #[test]
    fn planted_loss_is_found() {
        let server = FakeServer::with_faults(Faults { loss: true, ..Faults::default() });
        let mut session = Session::open(server.control()).unwrap();
        let load = Load { seconds: 1.0, ..load(Mode::Paced { rate: 400 }) };
        let run = run_once(&context(), &load, &mut session, 1, "test").unwrap();
        // Five of the fifty packets of each of the eight streams; one less where the sequence number wraps.
        assert!((32..=40).contains(&run.verdict.lost), "{:?}", run.verdict);
        assert_eq!(run.verdict.sent - run.verdict.lost, run.verdict.arrived);
    }

    #[test]
    fn an_interrupted_run_cleans_up() {
        let server = FakeServer::start();
        let mut session = Session::open(server.control()).unwrap();
        let context = context();
        context.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let result = run_once(&context, &load(Mode::Paced { rate: 400 }), &mut session, 1, "test");
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(server.alive(), 0);
    }

    fn run(target: &'static str, repeat: u32, cpu_ns_per_packet: f64, void: Option<&str>) -> Run {
        let lateness = crate::pacing::Lateness::default();
        Run {
            target,
            repeat,
            seconds: 1.0,
            forwarded: 1,
            packets_per_second: 1.0,
            verdict: Verdict::default(),
            cpu: CpuUse { wall_ns: 1, process_ns: 1, percent_of_core: 1.0, waited_percent: 0.0, threads: Vec::new() },
            cpu_ns_per_packet,
            syscalls_per_packet: None,
            delay_us: Quantiles::default(),
            lateness_us: lateness.quantiles(),
            very_late_share: 0.0,
            send_errors: 0,
            clock_shift_us: 0.0,
            saturation: None,
            void: void.map(str::to_owned),
        }
    }

    #[test]
    fn a_starved_target_voids_the_run() {
        let cpu = |waited_percent| CpuUse { waited_percent, ..run("server", 1, 1.0, None).cpu };
        assert_eq!(starved_reason(&cpu(9.9)), None);
        assert!(starved_reason(&cpu(10.1)).unwrap().contains("waited"));
    }

    #[test]
    fn a_void_run_made_again_counts_and_one_left_void_spoils_the_ratio() {
        let load = load(Mode::Paced { rate: 1 });
        let mut comparison = Comparison { load, runs: Vec::new(), outside_counts: Vec::new() };
        comparison.runs.extend([
            run("server", 1, 99.0, Some("late")),
            run("server", 1, 3.0, None),
            run("epoll", 1, 6.0, None),
            run("server", 2, 4.0, None),
            run("epoll", 2, 8.0, None),
        ]);
        assert_eq!(comparison.void_reason(), None);
        let ratio = comparison.ratio("server", "epoll", |run| run.cpu_ns_per_packet).unwrap();
        assert_eq!(ratio, Spread { median: 0.5, min: 0.5, max: 0.5 });
        comparison.runs.push(run("epoll", 3, 1.0, Some("late again")));
        assert!(comparison.void_reason().unwrap().contains("late again"));
        assert_eq!(comparison.ratio("server", "epoll", |run| run.cpu_ns_per_packet), None);
    }

    #[test]
    fn the_total_of_strace_is_read_with_and_without_errors() {
        let head = "% time     seconds  usecs/call     calls    errors syscall\n";
        let with = format!("{head}100.00    0.123456           1     12345        67 total\n");
        let without = format!("{head}100.00    0.123456           1     12345           total\n");
        assert_eq!(Counter::Strace.total(&with), Some(12_345));
        assert_eq!(Counter::Strace.total(&without), Some(12_345));
        assert_eq!(Counter::Strace.total("strace: attach failed"), None);
    }

    #[test]
    fn the_total_of_perf_is_read() {
        let report = "# started on Sat\n\n54321,,raw_syscalls:sys_enter,1000,100.00,,\n";
        assert_eq!(Counter::Perf.total(report), Some(54_321));
        assert_eq!(Counter::Perf.total("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
    }

    #[test]
    fn strace_gets_a_lighter_load() {
        let Mode::Paced { rate } = Counter::Strace.load(&load(Mode::Paced { rate: 400 })).mode else {
            panic!("still paced");
        };
        assert_eq!(rate, 20);
    }
}
