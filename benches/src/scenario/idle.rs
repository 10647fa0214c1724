//! What a server with many connections and rooms costs while nothing happens.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::cpu::{self, CpuSample, CpuUse};
use crate::error::Result;
use crate::pacing::{Pacing, wait_until};
use crate::session::Session;

/// Time given to the server to come to rest before it is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// What is set up.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Connections nobody sends to.
    pub connections: usize,
    /// Conferences nobody is in.
    pub conferences: usize,
    /// Seconds measured.
    pub seconds: f64,
}

/// What it cost.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What was set up.
    pub load: Load,
    /// Seconds the set-up took.
    pub set_up_seconds: f64,
    /// CPU time with nothing set up.
    pub empty_cpu: CpuUse,
    /// CPU time with everything set up.
    pub idle_cpu: CpuUse,
    /// Memory with nothing set up, in bytes.
    pub empty_resident_bytes: u64,
    /// Memory with everything set up, in bytes.
    pub idle_resident_bytes: u64,
}

/// Measures the server empty, sets everything up, measures again, cleans up.
///
/// # Errors
/// The server refused, or the user interrupted.
pub fn run(context: &Context, session: &mut Session, load: &Load) -> Result<Run> {
    context.prepare(0)?;
    let pid = session.info().pid;
    let empty_cpu = measure(context, pid, load.seconds.min(5.0))?;
    let empty_resident_bytes = cpu::resident_bytes(pid);
    let start = Instant::now();
    session.create_connections(vec![json!({"codec": "PCMU"}); load.connections])?;
    session.create_conferences(load.conferences)?;
    let set_up_seconds = start.elapsed().as_secs_f64();
    let idle_cpu = measure(context, pid, load.seconds)?;
    let idle_resident_bytes = cpu::resident_bytes(pid);
    session.clean_up()?;
    Ok(Run { load: *load, set_up_seconds, empty_cpu, idle_cpu, empty_resident_bytes, idle_resident_bytes })
}

fn measure(context: &Context, pid: u32, seconds: f64) -> Result<CpuUse> {
    wait_until(Instant::now() + SETTLE, Pacing::Sleep, &context.stop)?;
    let before = CpuSample::take(pid)?;
    wait_until(Instant::now() + Duration::from_secs_f64(seconds), Pacing::Sleep, &context.stop)?;
    Ok(CpuSample::take(pid)?.since(&before, pid))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::testing::FakeServer;

    #[test]
    fn an_idle_server_is_measured_and_cleaned_up() {
        let server = FakeServer::start();
        let mut session = Session::open(server.control()).unwrap();
        let context = Context { cpu: 0, pacing: Pacing::Sleep, stop: Arc::new(AtomicBool::new(false)) };
        let load = Load { connections: 20, conferences: 5, seconds: 0.1 };
        let run = run(&context, &mut session, &load).unwrap();
        assert_eq!(server.alive(), 0);
        assert!(run.idle_cpu.wall_ns >= 100_000_000);
        assert!(run.idle_resident_bytes > 0);
    }
}
