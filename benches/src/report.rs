//! Tables for people and JSON for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use crate::cpu::CpuUse;
use crate::error::{Error, Result};
use crate::figures::{Quantiles, Spread};
use crate::machine::Machine;
use crate::scenario::{commands, idle, mediacontrol, mix, relay};
use crate::session::ServerInfo;
use crate::verify::Verdict;

/// What goes into the JSON file.
#[derive(Debug, Serialize)]
pub struct Report<'a, T> {
    /// Name of the command.
    pub command: &'static str,
    /// On what it was measured.
    pub machine: &'a Machine,
    /// What was measured; nothing when only reference forwarders ran.
    pub server: Option<&'a ServerInfo>,
    /// Why the figures may not be used, if so.
    pub void: Option<String>,
    /// The figures.
    pub result: &'a T,
}

/// Writes a report as JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write_json<T: Serialize>(path: &Path, report: &Report<'_, T>) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(|error| Error::Protocol(error.to_string()))?;
    fs::write(path, text + "\n").map_err(Error::io(format!("cannot write {}", path.display())))
}

/// The table of a relay comparison: one line per figure, one column per target, and the server's ratios.
#[must_use]
pub fn relay_table(comparison: &relay::Comparison) -> String {
    let targets = comparison.targets();
    let rivals: Vec<&str> = targets.iter().copied().filter(|&target| target != "server").collect();
    let with_ratios = targets.contains(&"server");
    let mut table = new_table();
    let mut header = vec!["median of the repeats (min to max)".to_owned()];
    header.extend(targets.iter().map(|target| (*target).to_owned()));
    if with_ratios {
        header.extend(rivals.iter().map(|rival| format!("server / {rival}")));
    }
    table.set_header(header);
    type Figure<'a> = (&'a str, usize, bool, &'a dyn Fn(&relay::Run) -> Option<f64>);
    let figures: [Figure<'_>; 19] = [
        ("CPU per packet, all threads (ns)", 0, true, &|run| Some(run.cpu_ns_per_packet)),
        ("CPU (% of a core)", 1, false, &|run| Some(run.cpu.percent_of_core)),
        ("system calls per packet (own count)", 4, true, &|run| run.syscalls_per_packet),
        ("added delay p50 (µs)", 1, true, &|run| Some(run.delay_us.p50)),
        ("added delay p99 (µs)", 1, true, &|run| Some(run.delay_us.p99)),
        ("added delay p99.9 (µs)", 1, false, &|run| Some(run.delay_us.p999)),
        ("added delay max (µs)", 1, false, &|run| Some(run.delay_us.max)),
        ("packets per second", 0, true, &|run| Some(run.packets_per_second)),
        ("packets sent", 0, false, &|run| Some(run.verdict.sent as f64)),
        ("lost", 0, false, &|run| Some(run.verdict.lost as f64)),
        ("out of order", 0, false, &|run| Some(run.verdict.out_of_order as f64)),
        ("duplicates", 0, false, &|run| Some(run.verdict.duplicates as f64)),
        ("corrupt or header altered", 0, false, &|run| Some((run.verdict.corrupt + run.verdict.header_altered) as f64)),
        ("misrouted", 0, false, &|run| Some(run.verdict.misrouted as f64)),
        ("target waited for a CPU (% of time)", 1, false, &|run| Some(run.cpu.waited_percent)),
        ("generator: send lateness p99 (µs)", 1, false, &|run| {
            run.saturation.is_none().then_some(run.lateness_us.p99)
        }),
        ("packets queued at the target", 0, false, &|run| run.saturation.map(|s| s.queued)),
        ("generator: rests for policing (s)", 2, false, &|run| run.saturation.map(|s| s.rested_seconds)),
        ("generator: rounds to spare (%)", 1, false, &|run| run.saturation.map(|s| s.idle_rounds_share * 100.0)),
    ];
    for (name, digits, compared, figure) in figures {
        let values =
            |target: &str| -> Vec<f64> { comparison.final_runs(target).iter().filter_map(|run| figure(run)).collect() };
        let cells: Vec<_> = targets.iter().map(|target| Spread::of(&values(target))).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![name.to_owned()];
        row.extend(cells.iter().map(|spread| show(*spread, digits)));
        if with_ratios {
            let ratio = |rival: &&str| {
                let complete = cells.iter().all(Option::is_some);
                let spread = (compared && complete)
                    .then(|| comparison.ratio("server", rival, |run| figure(run).unwrap_or(0.0)))
                    .flatten();
                if compared && complete && spread.is_none() { "VOID".to_owned() } else { show(spread, 3) }
            };
            row.extend(rivals.iter().map(ratio));
        }
        table.add_row(row);
    }
    let mut text = table.to_string();
    for count in &comparison.outside_counts {
        text += &format!(
            "\n{}: {:.4} system calls per packet of all threads, counted by {} in a run of its own at {:.0} packets/s",
            count.target,
            count.syscalls_per_packet,
            count.counter.name(),
            count.packets_per_second
        );
    }
    for target in targets {
        if let Some(run) = comparison.final_runs(target).last() {
            text += &format!("\n{target}, last run, by thread: {}", threads(&run.cpu));
        }
    }
    text
}

/// The table of a conference comparison.
#[must_use]
pub fn mix_table(comparison: &mix::Comparison) -> String {
    let mut table = new_table();
    table.set_header(["median of the repeats (min to max)", "mix"]);
    let runs = comparison.final_runs();
    type Figure<'a> = (&'a str, usize, &'a dyn Fn(&mix::Run) -> f64);
    let figures: [Figure<'_>; 23] = [
        ("members", 0, &|run| run.members as f64),
        ("CPU per member-packet, all threads (ns)", 0, &|run| run.cpu_ns_per_member_packet),
        ("CPU (% of a core)", 1, &|run| run.cpu.percent_of_core),
        ("mix delay p50 (ms)", 3, &|run| run.mix_delay_us.p50 / 1e3),
        ("mix delay p99 (ms)", 3, &|run| run.mix_delay_us.p99 / 1e3),
        ("mix delay p99.9 (ms)", 3, &|run| run.mix_delay_us.p999 / 1e3),
        ("mix delay max (ms)", 3, &|run| run.mix_delay_us.max / 1e3),
        ("packets sent by members", 0, &|run| run.packets_sent as f64),
        ("packets received by members", 0, &|run| run.packets_received as f64),
        ("members that heard themselves", 0, &|run| run.heard.self_hearing as f64),
        ("loudest own voice (% of full)", 2, &|run| run.heard.own_level_max * 100.0),
        ("members with gaps", 0, &|run| run.members_with_gaps as f64),
        ("gaps: packets missing", 0, &|run| run.heard.packets_missing as f64),
        ("gaps: sequence breaks", 0, &|run| run.heard.sequence_breaks as f64),
        ("gaps: timestamp breaks", 0, &|run| run.heard.timestamp_breaks as f64),
        ("gaps: holes of silence (5 ms and more)", 0, &|run| run.heard.holes as f64),
        ("gaps: a voice missing (times)", 0, &|run| run.heard.voice_gaps as f64),
        ("gaps: a voice missing (ms in all)", 0, &|run| run.heard.voice_gap_ms as f64),
        ("markers expected", 0, &|run| run.heard.markers_expected as f64),
        ("markers heard", 0, &|run| run.heard.markers_found as f64),
        ("voices of other rooms heard", 0, &|run| run.heard.foreign_voices as f64),
        ("server waited for a CPU (% of time)", 1, &|run| run.cpu.waited_percent),
        ("generator: send lateness p99 (µs)", 1, &|run| run.lateness_us.p99),
    ];
    for (name, digits, figure) in figures {
        let values: Vec<f64> = runs.iter().map(|run| figure(run)).collect();
        table.add_row([name.to_owned(), show(Spread::of(&values), digits)]);
    }
    let mut text = table.to_string();
    if let Some(relays) = &comparison.relays {
        text += &format!("\n\nrelays of as many packets, in the same session:\n{}", relay_table(relays));
        text += &match comparison.ratio_to_relay() {
            Some(ratio) => format!("\nCPU per member-packet, mix / relay: {}", show(Some(ratio), 3)),
            None => "\nCPU per member-packet, mix / relay: VOID".to_owned(),
        };
    }
    text
}

/// The table of a command run.
#[must_use]
pub fn commands_table(run: &commands::Run) -> String {
    let rows = run.commands.iter().map(|(command, tally)| OutcomeRow {
        name: command.name(),
        sent: tally.sent,
        succeeded: tally.succeeded,
        errors: &tally.errors,
        answer_us: &tally.answer_us,
        effect_us: &tally.effect_us,
        violations: tally.violations,
        without_effect: tally.without_effect,
        more: vec![tally.unanswered.to_string(), tally.effects_before_receipt.to_string()],
    });
    let table = outcome_table("command", &["unanswered", "before receipt"], rows);
    format!(
        "{table}\nall effects (ms): {}; later than 20 ms: {}\ncommands skipped: {}; their lateness p99 {} µs\n\
         media beside: {}; added delay (µs) {}; send lateness p99 {} µs\nserver CPU {:.1} % of a core: {}; waited for a CPU {:.1} % of the time",
        quantiles(&run.effect_us, 1e3),
        run.violations,
        run.skipped,
        number(run.command_lateness_us.p99, 0),
        verdict(&run.verdict),
        quantiles(&run.delay_us, 1.0),
        number(run.lateness_us.p99, 0),
        run.cpu.percent_of_core,
        threads(&run.cpu),
        run.cpu.waited_percent,
    )
}

/// The table of a run of Metreos.MediaControl calls.
#[must_use]
pub fn media_control_table(run: &mediacontrol::Run) -> String {
    let rows = run.actions.iter().map(|(action, tally)| OutcomeRow {
        name: action.name(),
        sent: tally.sent,
        succeeded: tally.succeeded,
        errors: &tally.errors,
        answer_us: &tally.answer_us,
        effect_us: &tally.effect_us,
        violations: tally.violations,
        without_effect: tally.without_effect,
        more: Vec::new(),
    });
    let table = outcome_table("action", &[], rows);
    let beside = run.verdict.as_ref().map_or_else(
        || "none".to_owned(),
        |media| format!("{}; added delay (µs) {}", verdict(media), quantiles(&run.delay_us, 1.0)),
    );
    format!(
        "{table}\nmedia beside: {beside}\nserver CPU {:.1} % of a core: {}; waited for a CPU {:.1} % of the time",
        run.cpu.percent_of_core,
        threads(&run.cpu),
        run.cpu.waited_percent,
    )
}

/// The table of an idle run.
#[must_use]
pub fn idle_table(run: &idle::Run) -> String {
    let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20), 1);
    let mut table = new_table();
    table.set_header([
        "figure".to_owned(),
        "empty".to_owned(),
        format!("{} connections, {} conferences", run.load.connections, run.load.conferences),
    ]);
    let percent = |cpu: &CpuUse| number(cpu.percent_of_core, 3);
    table.add_row(["CPU (% of a core)".to_owned(), percent(&run.empty_cpu), percent(&run.idle_cpu)]);
    table.add_row(["memory (MiB)".to_owned(), mib(run.empty_resident_bytes), mib(run.idle_resident_bytes)]);
    table.add_row(["set up in (s)".to_owned(), "–".to_owned(), number(run.set_up_seconds, 2)]);
    format!("{table}\nby thread, set up: {}", threads(&run.idle_cpu))
}

/// What became of commands of one kind.
struct OutcomeRow<'a> {
    name: &'a str,
    sent: u64,
    succeeded: u64,
    errors: &'a BTreeMap<String, u64>,
    answer_us: &'a Quantiles,
    effect_us: &'a Quantiles,
    violations: u64,
    without_effect: u64,
    /// What only one scenario has.
    more: Vec<String>,
}

fn outcome_table<'a>(what: &str, more: &[&str], rows: impl Iterator<Item = OutcomeRow<'a>>) -> Table {
    let mut table = new_table();
    let columns = [
        what,
        "sent",
        "succeeded",
        "errors",
        "answer p50 µs",
        "p99 µs",
        "max µs",
        "effect p50 ms",
        "p99 ms",
        "max ms",
        "> 20 ms",
        "no effect",
    ];
    table.set_header(columns.iter().chain(more).copied());
    for row in rows {
        let effect = |value: f64| {
            if row.effect_us.count == 0 { "–".to_owned() } else { number(value / 1e3, 3) }
        };
        let errors: Vec<String> = row.errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let cells = [
            row.name.to_owned(),
            row.sent.to_string(),
            row.succeeded.to_string(),
            if errors.is_empty() { "0".to_owned() } else { errors.join(", ") },
            number(row.answer_us.p50, 0),
            number(row.answer_us.p99, 0),
            number(row.answer_us.max, 0),
            effect(row.effect_us.p50),
            effect(row.effect_us.p99),
            effect(row.effect_us.max),
            row.violations.to_string(),
            row.without_effect.to_string(),
        ];
        table.add_row(cells.into_iter().chain(row.more));
    }
    table
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table
}

fn verdict(verdict: &Verdict) -> String {
    format!(
        "{} sent, {} lost, {} out of order, {} duplicates, {} corrupt, {} headers altered, {} misrouted",
        verdict.sent,
        verdict.lost,
        verdict.out_of_order,
        verdict.duplicates,
        verdict.corrupt,
        verdict.header_altered,
        verdict.misrouted
    )
}

fn quantiles(quantiles: &Quantiles, divisor: f64) -> String {
    if quantiles.count == 0 {
        return "none".to_owned();
    }
    let show = |value: f64| number(value / divisor, if divisor > 1.0 { 3 } else { 1 });
    format!(
        "p50 {}, p99 {}, p99.9 {}, max {}",
        show(quantiles.p50),
        show(quantiles.p99),
        show(quantiles.p999),
        show(quantiles.max)
    )
}

fn threads(cpu: &CpuUse) -> String {
    /// Threads worth naming.
    const SHOWN: usize = 6;
    let shown: Vec<String> = cpu
        .threads
        .iter()
        .take(SHOWN)
        .map(|thread| format!("{} {:.2} %", thread.name, thread.percent_of_core))
        .collect();
    shown.join(", ")
}

fn number(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}

fn show(spread: Option<Spread>, digits: usize) -> String {
    match spread {
        None => "–".to_owned(),
        Some(Spread { median, min, max }) if min == max => number(median, digits),
        Some(Spread { median, min, max }) => {
            format!("{} ({} to {})", number(median, digits), number(min, digits), number(max, digits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_show_their_extremes_only_if_there_are_any() {
        assert_eq!(show(None, 1), "–");
        assert_eq!(show(Some(Spread { median: 2.0, min: 2.0, max: 2.0 }), 1), "2.0");
        assert_eq!(show(Some(Spread { median: 2.0, min: 1.0, max: 3.0 }), 0), "2 (1 to 3)");
    }

    #[test]
    fn a_report_is_json_with_the_machine_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        let machine = Machine::look();
        let report = Report { command: "test", machine: &machine, server: None, void: None, result: &[1, 2] };
        write_json(&path, &report).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(value["result"], serde_json::json!([1, 2]));
        assert!(value["machine"]["cores"].as_u64().unwrap() >= 1);
    }
}
