//! The scenarios: each sets up the server, runs its load, judges, cleans up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::pacing::Pacing;
use crate::sys;
use crate::traffic::{Endpoint, PacedPlan};

pub mod commands;
pub mod idle;
pub mod mediacontrol;
pub mod mix;
mod phase;
pub mod relay;

/// Files a run needs besides its sockets.
const SPARE_FILES: u64 = 256;

/// What all scenarios share.
#[derive(Clone, Debug)]
pub struct Context {
    /// CPU the generator runs on.
    pub cpu: usize,
    /// How to wait between packets.
    pub pacing: Pacing,
    /// Set when the user presses Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

impl Context {
    /// Prepares this process for a run with `sockets` sockets: pins it, raises the limit of open files, sharpens its
    /// timers. Threads started later inherit all of it.
    ///
    /// # Errors
    /// There is no such CPU, or not enough files may be open.
    pub fn prepare(&self, sockets: u64) -> Result<()> {
        sys::pin_to_cpu(self.cpu).map_err(Error::io(format!("cannot run on CPU {}", self.cpu)))?;
        sys::sharpen_timers().map_err(Error::io("timer slack"))?;
        let wanted = sockets + SPARE_FILES;
        let limit = sys::raise_open_files(wanted).map_err(Error::io("RLIMIT_NOFILE"))?;
        if limit < wanted {
            return Err(Error::Setup(format!("{wanted} open files are needed, the limit is {limit} (ulimit -n)")));
        }
        Ok(())
    }

    /// `rate` packets a second, measured for `seconds` after `warmup_seconds`.
    fn paced(&self, rate: u64, warmup_seconds: f64, seconds: f64) -> PacedPlan {
        PacedPlan {
            rate,
            warmup: Duration::from_secs_f64(warmup_seconds),
            measured: Duration::from_secs_f64(seconds),
            pacing: self.pacing,
        }
    }
}

/// The packet time, in milliseconds, to name for a source of `packets_per_second`, so that it is policed generously:
/// the largest for which its own rate is not below that.
fn ptime_ms_for(packets_per_second: f64) -> u64 {
    (1..=20).rev().find(|&ptime| 1000.0 / ptime as f64 >= packets_per_second).unwrap_or(1)
}

/// A number for this run that earlier runs are unlikely to have used, so that stray packets are recognised.
fn run_number() -> u32 {
    u32::try_from(crate::packet::mix(crate::clock::wall_ns()) >> 32).unwrap_or(1)
}

fn addresses_of(endpoints: &[Endpoint]) -> Result<Vec<SocketAddr>> {
    endpoints.iter().map(Endpoint::local).collect()
}

fn connect_all(endpoints: &[Endpoint], remotes: &[SocketAddr]) -> Result<()> {
    if endpoints.len() != remotes.len() {
        return Err(Error::Protocol(format!("{} addresses for {} streams", remotes.len(), endpoints.len())));
    }
    endpoints.iter().zip(remotes).try_for_each(|(endpoint, remote)| endpoint.connect(*remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_time_named_covers_the_rate() {
        assert_eq!(ptime_ms_for(50.0), 20);
        assert_eq!(ptime_ms_for(10.0), 20);
        assert_eq!(ptime_ms_for(51.0), 19);
        assert_eq!(ptime_ms_for(100.0), 10);
        assert_eq!(ptime_ms_for(4_000.0), 1);
    }
}
