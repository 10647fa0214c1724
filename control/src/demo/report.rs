//! What is shown at the end: the verdicts with their numbers, and two tables.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use hdrhistogram::Histogram;

use super::judge::Judgement;

/// Width of the tables where the terminal's is not known.
const WIDTH: u16 = 110;

/// Every claim with its numbers, one a line.
pub(super) fn verdicts(judgement: &Judgement) -> String {
    let mut text = String::new();
    for row in &judgement.rows {
        text += &format!("{}\n", row.what);
        for check in &row.checks {
            let (mark, detail) = match &check.verdict {
                Ok(detail) => ("  ok  ", detail),
                Err(why) => (" FAIL ", why),
            };
            text += &format!("{mark}{}: {detail}\n", check.claim);
        }
    }
    text
}

/// What was done, when it took effect, and what came of it.
pub(super) fn effects(judgement: &Judgement) -> Table {
    let mut table = table(&["what", "at ms", "control to effect ms", "RTP timestamps", "checks"]);
    for row in &judgement.rows {
        let time = |of: fn(&super::session::Effect) -> f64| {
            row.effect.as_ref().map_or_else(|| "–".to_owned(), |effect| format!("{:.1}", of(effect)))
        };
        let stamps: Vec<String> = row.stamps.iter().map(|(name, stamp)| format!("{name} {stamp}")).collect();
        let held = row.checks.iter().filter(|check| check.verdict.is_ok()).count();
        let result = if held == row.checks.len() {
            format!("{held} of {held} hold")
        } else {
            format!("FAILED: {} of {}", row.checks.len() - held, row.checks.len())
        };
        table.add_row([
            row.what.to_owned(),
            time(|effect| effect.media_time_ms),
            time(super::session::Effect::control_to_effect_ms),
            if stamps.is_empty() { "–".to_owned() } else { stamps.join("\n") },
            result,
        ]);
    }
    table
}

/// Quantiles of delays given in microseconds.
pub(super) fn latencies(rows: &[(&str, &Histogram<u64>)]) -> Table {
    let mut table = table(&["latency", "count", "p50 ms", "p99 ms", "max ms"]);
    for (name, histogram) in rows {
        let ms = |micros: u64| format!("{:.3}", micros as f64 / 1000.0);
        table.add_row([
            (*name).to_owned(),
            histogram.len().to_string(),
            ms(histogram.value_at_quantile(0.5)),
            ms(histogram.value_at_quantile(0.99)),
            ms(histogram.max()),
        ]);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(header.to_vec());
    table
}
