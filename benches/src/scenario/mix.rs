//! Conferences: what members say, what they hear, how long it takes, what it costs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::phase::CpuWindow;
use super::relay::{self, Mode};
use super::{Context, addresses_of, connect_all, run_number};
use crate::cpu::CpuUse;
use crate::error::{Error, Result};
use crate::figures::{Quantiles, Spread, duration_histogram};
use crate::listener::{Capture, Heard, Talker};
use crate::pacing::Schedule;
use crate::packet::RtpStream;
use crate::progress;
use crate::session::Session;
use crate::signal::{TALKERS_MAX, VOICES};
use crate::traffic::{self, Endpoint, Sink, Source};

/// Largest number of members times seconds: all they hear is kept, 8 kB a second each.
pub const MEMBER_SECONDS_MAX: u64 = 60_000;
/// Packets per second of a member.
pub const MEMBER_RATE: u64 = 50;
/// A void run is made again so often before it counts.
const VOID_RETRIES_MAX: u32 = 2;

/// A conference load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Conferences.
    pub rooms: u32,
    /// Members of each.
    pub size: u32,
    /// Of these, members that talk; the others send silence.
    pub talkers: u32,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before.
    pub warmup_seconds: f64,
}

/// One run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Which repeat, from 1.
    pub repeat: u32,
    /// Length of the measured window in seconds.
    pub seconds: f64,
    /// Members.
    pub members: u64,
    /// Packets the members sent in the window.
    pub packets_sent: u64,
    /// Packets they received in it.
    pub packets_received: u64,
    /// What they heard, all together.
    pub heard: Heard,
    /// Members with a gap of any kind.
    pub members_with_gaps: u64,
    /// From a sample's being sent in to its coming out in the mix, in microseconds.
    pub mix_delay_us: Quantiles,
    /// CPU time of the server, all threads.
    pub cpu: CpuUse,
    /// The same per packet a member sent, in nanoseconds.
    pub cpu_ns_per_member_packet: f64,
    /// Lateness of the generator's own sends in microseconds.
    pub lateness_us: Quantiles,
    /// Sends the kernel refused.
    pub send_errors: u64,
    /// Why the figures may not be used, if so.
    pub void: Option<String>,
}

/// All runs, with the relay runs between them.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The load.
    pub load: Load,
    /// Every conference run made, void ones included.
    pub runs: Vec<Run>,
    /// Relay runs of as many packets, each after the conference run of the same repeat.
    pub relays: Option<relay::Comparison>,
}

impl Comparison {
    /// The last try of each repeat.
    #[must_use]
    pub fn final_runs(&self) -> Vec<&Run> {
        let mut runs: Vec<&Run> = Vec::new();
        for run in &self.runs {
            runs.retain(|earlier| earlier.repeat != run.repeat);
            runs.push(run);
        }
        runs
    }

    /// Why the whole may not be used, if so.
    #[must_use]
    pub fn void_reason(&self) -> Option<String> {
        let mixed = self
            .final_runs()
            .iter()
            .find_map(|run| run.void.as_ref().map(|reason| format!("mix, repeat {}: {reason}", run.repeat)));
        mixed.or_else(|| self.relays.as_ref().and_then(relay::Comparison::void_reason))
    }

    /// CPU per packet of the mix to that of the relay, repeat by repeat; nothing if a repeat is void.
    #[must_use]
    pub fn ratio_to_relay(&self) -> Option<Spread> {
        if self.void_reason().is_some() {
            return None;
        }
        let relays = self.relays.as_ref()?.final_runs("server");
        let mixed: Vec<f64> = self.final_runs().iter().map(|run| run.cpu_ns_per_member_packet).collect();
        Spread::of_ratios(&mixed, &relays.iter().map(|run| run.cpu_ns_per_packet).collect::<Vec<_>>())
    }
}

/// Runs the load `repeats` times, each followed by a relay run of as many packets if asked for.
///
/// # Errors
/// The load is impossible, the server failed, or the user interrupted.
pub fn compare(
    context: &Context,
    session: &mut Session,
    load: &Load,
    repeats: u32,
    with_relay: bool,
) -> Result<Comparison> {
    check(load)?;
    let members = load.rooms * load.size;
    context.prepare(u64::from(members))?;
    let relay_load = relay::Load {
        streams: members.next_multiple_of(2),
        mode: Mode::Paced { rate: u64::from(members.next_multiple_of(2)) * MEMBER_RATE },
        seconds: load.seconds,
        warmup_seconds: load.warmup_seconds,
    };
    let mut comparison = Comparison { load: *load, runs: Vec::new(), relays: None };
    let mut relays = relay::Comparison { load: relay_load, runs: Vec::new(), outside_counts: Vec::new() };
    for repeat in 1..=repeats {
        for attempt in 0..=VOID_RETRIES_MAX {
            let run = run_once(context, session, load, repeat, &format!("mix {repeat}/{repeats}"))?;
            if let Some(reason) = &run.void {
                let again = if attempt < VOID_RETRIES_MAX { ", again" } else { "" };
                eprintln!("mix {repeat}/{repeats}: VOID ({reason}){again}");
            }
            let done = run.void.is_none();
            comparison.runs.push(run);
            if done {
                break;
            }
        }
        for _ in 0..=VOID_RETRIES_MAX {
            if !with_relay {
                break;
            }
            let run = relay::run_once(context, &relay_load, session, repeat, &format!("relay {repeat}/{repeats}"))?;
            let done = run.void.is_none();
            relays.runs.push(run);
            if done {
                break;
            }
        }
    }
    comparison.relays = with_relay.then_some(relays);
    Ok(comparison)
}

fn check(load: &Load) -> Result<()> {
    let complain = |text: String| Err(Error::Setup(text));
    if load.size == 0 || load.rooms == 0 {
        return complain("a conference load needs rooms with members".into());
    }
    if load.talkers > load.size || load.talkers as usize > TALKERS_MAX {
        return complain(format!("at most {TALKERS_MAX} talkers a room, and not more than its members"));
    }
    let member_seconds = f64::from(load.rooms) * f64::from(load.size) * (load.seconds + load.warmup_seconds);
    if member_seconds > MEMBER_SECONDS_MAX as f64 {
        return complain(format!(
            "{member_seconds:.0} member-seconds, at most {MEMBER_SECONDS_MAX}: all that is heard is kept in memory"
        ));
    }
    Ok(())
}

/// The voices of the talkers of room `room`: neighbouring rooms have different ones.
fn voices_of(room: u32, talkers: u32) -> std::ops::Range<usize> {
    let talkers = talkers as usize;
    let sets = VOICES.checked_div(talkers).unwrap_or(1);
    let first = room as usize % sets * talkers;
    first..first + talkers
}

/// Endpoints of all members, room by room, talkers first.
///
/// # Errors
/// The system has no socket or port left.
pub(super) fn member_endpoints(load: &Load, keep: bool) -> Result<Vec<Endpoint>> {
    let run = run_number();
    let length = Duration::from_secs_f64(load.seconds + load.warmup_seconds);
    let packets = usize::try_from(Schedule::new(MEMBER_RATE).packets_in(length)).unwrap_or(0) + 100;
    let mut endpoints = Vec::new();
    for room in 0..load.rooms {
        let mut voices = voices_of(room, load.talkers);
        for member in 0..load.size {
            let source = match voices.next() {
                Some(voice) => Source::Voice { voice, sent_ns: Vec::with_capacity(packets) },
                None => Source::Silence,
            };
            let sink = if keep { Sink::Capture(Capture::with_capacity(packets)) } else { Sink::Count };
            let rtp = RtpStream::numbered(run, room * load.size + member);
            endpoints.push(Endpoint::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), rtp, source, sink)?);
        }
    }
    Ok(endpoints)
}

/// Sets up rooms and members on the server and connects the endpoints. Returns each member's conference and
/// connection id.
///
/// # Errors
/// The server refused.
pub(super) fn set_up(session: &mut Session, load: &Load, endpoints: &[Endpoint]) -> Result<Vec<(String, String)>> {
    let conferences = session.create_conferences(load.rooms as usize)?;
    let params = addresses_of(endpoints)?
        .iter()
        .zip(0..)
        .map(|(remote, member): (_, usize)| {
            let conference = &conferences[member / load.size as usize];
            json!({"remote": remote.to_string(), "codec": "PCMU", "conference_id": conference})
        })
        .collect();
    let connections = session.create_connections(params)?;
    let remotes: Vec<_> = connections.iter().map(|connection| connection.local).collect();
    connect_all(endpoints, &remotes)?;
    let members: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(member, connection)| (conferences[member / load.size as usize].clone(), connection.id))
        .collect();
    session.join(members.iter().cloned())?;
    Ok(members)
}

/// One run: sets up, talks, listens, judges, cleans up.
///
/// # Errors
/// The server failed, or the user interrupted.
pub fn run_once(context: &Context, session: &mut Session, load: &Load, repeat: u32, label: &str) -> Result<Run> {
    let result = run_joined(context, session, load, repeat, label);
    let closed = session.clean_up();
    let run = result?;
    closed?;
    Ok(run)
}

fn run_joined(context: &Context, session: &mut Session, load: &Load, repeat: u32, label: &str) -> Result<Run> {
    let mut endpoints = member_endpoints(load, true)?;
    set_up(session, load, &endpoints)?;
    let members = endpoints.len() as u64;
    let rate = members * MEMBER_RATE;
    let plan = context.paced(rate, load.warmup_seconds, load.seconds);
    let mut window = CpuWindow::new(session.info().pid, None);
    let outcome = progress::with_bar(label, plan.packets(), |done| {
        traffic::run_paced(&mut endpoints, &plan, &context.stop, done, |mark| window.mark(mark))
    })?;
    let cpu = window.used()?;
    let packets_sent = outcome.lateness.quantiles().count;

    let mut heard = Heard::default();
    let mut delays = duration_histogram();
    let mut members_with_gaps = 0;
    for room in endpoints.chunks(load.size as usize) {
        let talkers: Vec<Talker> = room.iter().filter_map(talker_of).collect();
        for (index, member) in room.iter().enumerate() {
            if let Sink::Capture(capture) = member.sink() {
                let own = (index < talkers.len()).then_some(index);
                let one = capture.judge(&outcome.window_ns, &talkers, own, &mut delays);
                members_with_gaps += u64::from(one.gaps() > 0);
                heard.add(&one);
            }
        }
    }
    let void = outcome.lateness.void_reason();
    let void = void.or_else(|| relay::starved_reason(&cpu));
    let void = void.or_else(|| (heard.packets == 0).then(|| "the members received nothing".to_owned()));
    Ok(Run {
        repeat,
        seconds: outcome.seconds,
        members,
        packets_sent,
        packets_received: heard.packets,
        heard,
        members_with_gaps,
        mix_delay_us: Quantiles::of_nanos(&delays),
        cpu_ns_per_member_packet: cpu.process_ns as f64 / packets_sent.max(1) as f64,
        cpu,
        lateness_us: outcome.lateness.quantiles(),
        send_errors: outcome.send_errors,
        void,
    })
}

fn talker_of(endpoint: &Endpoint) -> Option<Talker> {
    match endpoint.source() {
        Source::Voice { voice, sent_ns } => Some(Talker { voice: *voice, sent_ns: sent_ns.clone() }),
        Source::Pattern { .. } | Source::Silence => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::pacing::Pacing;
    use crate::testing::{FakeServer, Faults};

    const LOAD: Load = Load { rooms: 2, size: 3, talkers: 2, seconds: 3.0, warmup_seconds: 0.5 };

    fn check_run(faults: Faults) -> Run {
        let server = FakeServer::with_faults(faults);
        let mut session = Session::open(server.control()).unwrap();
        let context = Context { cpu: 0, pacing: Pacing::Sleep, stop: Arc::new(AtomicBool::new(false)) };
        let run = run_once(&context, &mut session, &LOAD, 1, "test").unwrap();
        assert_eq!(server.alive(), 0);
        assert_eq!((run.members, run.packets_sent), (6, 900));
        assert!(run.packets_received > 0);
        run
    }

    #[test]
    fn a_plain_mixer_is_heard_and_nobody_hears_themselves() {
        let run = check_run(Faults::default());
        assert_eq!((run.heard.self_hearing, run.heard.foreign_voices), (0, 0), "{:?}", run.heard);
        assert!(run.heard.markers_found > 0 && run.mix_delay_us.p50 > 0.0, "{run:?}");
    }

    #[test]
    fn a_mixer_that_forgets_to_subtract_is_found() {
        let run = check_run(Faults { self_hearing: true, ..Faults::default() });
        assert_eq!(run.heard.self_hearing, 4, "every talker: {:?}", run.heard);
    }

    #[test]
    fn a_mixer_with_holes_is_found() {
        let run = check_run(Faults { holes: true, ..Faults::default() });
        assert!(run.heard.holes >= 6 && run.members_with_gaps == 6, "{:?}", run.heard);
    }

    #[test]
    fn neighbouring_rooms_have_different_voices() {
        assert_eq!(voices_of(0, 3), 0..3);
        assert_eq!(voices_of(1, 3), 3..6);
        assert_eq!(voices_of(10, 3), 0..3);
        assert_eq!(voices_of(1, 16), 0..16, "too many talkers for two sets");
        assert_eq!(voices_of(5, 0), 0..0);
    }

    #[test]
    fn impossible_loads_are_refused() {
        assert!(check(&LOAD).is_ok());
        assert!(check(&Load { talkers: 4, ..LOAD }).is_err());
        assert!(check(&Load { size: 0, ..LOAD }).is_err());
        assert!(check(&Load { size: 20, talkers: 17, ..LOAD }).is_err());
        assert!(check(&Load { rooms: 10_000, ..LOAD }).is_err());
    }
}
