//! CPU time of another process, whole and thread by thread.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::sys;

/// CPU time of a process at one moment.
#[derive(Clone, Debug)]
pub struct CpuSample {
    at: Instant,
    /// From the process's CPU clock: exact, all threads, ended ones included.
    process_ns: u64,
    /// From `/proc/PID/task/TID/schedstat`: up to one scheduler tick behind for a thread that is running.
    threads: BTreeMap<u32, ThreadTimes>,
}

/// What the scheduler knows of a thread, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadTimes {
    ran: u64,
    waited: u64,
}

/// CPU time used between two samples.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CpuUse {
    /// Time between the samples in nanoseconds.
    pub wall_ns: u64,
    /// CPU time of all threads in nanoseconds.
    pub process_ns: u64,
    /// Share of one core, in percent.
    pub percent_of_core: f64,
    /// Share of the time the busiest thread was ready to run but had to wait for a CPU, in percent: other processes
    /// were in the way.
    pub waited_percent: f64,
    /// The same by thread, busiest first; threads that used nothing are left out.
    pub threads: Vec<ThreadUse>,
}

/// CPU time one thread used.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ThreadUse {
    /// Kernel thread id.
    pub thread_id: u32,
    /// The thread's name.
    pub name: String,
    /// CPU time in nanoseconds.
    pub ns: u64,
    /// Time spent waiting for a CPU in nanoseconds.
    pub waited_ns: u64,
    /// Share of one core, in percent.
    pub percent_of_core: f64,
}

impl CpuSample {
    /// Reads the clocks of process `pid`.
    ///
    /// # Errors
    /// The process is gone.
    pub fn take(pid: u32) -> Result<Self> {
        let what = || format!("cannot read the CPU time of process {pid}");
        let process_ns = sys::process_cpu_ns(pid).map_err(Error::io(what()))?;
        let at = Instant::now();
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(Error::io(what()))?.flatten() {
            let Some(thread_id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut fields = text.split_whitespace().map(|field| field.parse().unwrap_or(0));
            let times = ThreadTimes { ran: fields.next().unwrap_or(0), waited: fields.next().unwrap_or(0) };
            threads.insert(thread_id, times);
        }
        Ok(Self { at, process_ns, threads })
    }

    /// What process `pid` used from `earlier` to this sample.
    #[must_use]
    pub fn since(&self, earlier: &Self, pid: u32) -> CpuUse {
        let wall_ns = u64::try_from(self.at.duration_since(earlier.at).as_nanos()).unwrap_or(u64::MAX).max(1);
        let percent = |ns: u64| ns as f64 / wall_ns as f64 * 100.0;
        let mut threads: Vec<ThreadUse> = self
            .threads
            .iter()
            .filter_map(|(&thread_id, times)| {
                let before = earlier.threads.get(&thread_id).copied().unwrap_or_default();
                let ns = times.ran.saturating_sub(before.ran);
                let waited_ns = times.waited.saturating_sub(before.waited);
                let name = || {
                    let name = fs::read_to_string(format!("/proc/{pid}/task/{thread_id}/comm")).unwrap_or_default();
                    name.trim_end().to_owned()
                };
                (ns > 0).then(|| ThreadUse { thread_id, name: name(), ns, waited_ns, percent_of_core: percent(ns) })
            })
            .collect();
        threads.sort_by_key(|thread| std::cmp::Reverse(thread.ns));
        let process_ns = self.process_ns.saturating_sub(earlier.process_ns);
        let waited_percent = threads.first().map_or(0.0, |busiest| percent(busiest.waited_ns));
        CpuUse { wall_ns, process_ns, percent_of_core: percent(process_ns), waited_percent, threads }
    }
}

/// Memory a process holds (resident set), in bytes; 0 if it cannot be read.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim();
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_shows_in_total_and_in_its_thread() {
        let pid = std::process::id();
        let before = CpuSample::take(pid).unwrap();
        // Until well over a scheduler tick is used, so that the thread figure has moved too.
        let start = sys::process_cpu_ns(pid).unwrap();
        let mut used = CpuSample::take(pid).unwrap().since(&before, pid);
        while used.threads.is_empty() || used.process_ns < 20_000_000 {
            std::hint::black_box(sys::process_cpu_ns(pid).unwrap() - start);
            used = CpuSample::take(pid).unwrap().since(&before, pid);
        }
        assert!(used.wall_ns > 0 && used.percent_of_core > 0.0);
        assert!(used.threads.windows(2).all(|pair| pair[0].ns >= pair[1].ns));
        assert!(resident_bytes(pid) > 1 << 20);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(CpuSample::take(u32::MAX).is_err());
        assert_eq!(resident_bytes(u32::MAX), 0);
    }
}
