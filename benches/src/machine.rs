//! On what the figures were taken.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The machine and this tool, as recorded beside every result.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Model name of the first processor.
    pub cpu: String,
    /// Processors online.
    pub cores: usize,
    /// Load averages over 1, 5 and 15 minutes when the tool started: what else was running.
    pub load_average: String,
    /// Seconds since 1970 when the tool started.
    pub unix_time: u64,
    /// Version of this tool.
    pub tool_version: &'static str,
    /// Command line of this tool.
    pub command_line: Vec<String>,
}

impl Machine {
    /// Looks around.
    #[must_use]
    pub fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1),
            load_average: read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            tool_version: env!("CARGO_PKG_VERSION"),
            command_line: std::env::args().collect(),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} × {}, kernel {}, load average {}", self.cores, self.cpu, self.kernel, self.load_average)
    }
}
