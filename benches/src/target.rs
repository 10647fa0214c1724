//! What a relay load is sent through: the server, or a reference forwarder in its place.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::reference::{ForwarderProcess, Kind};

/// System calls made for packets, and the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoCount {
    /// System calls.
    pub syscalls: u64,
    /// Packets received.
    pub packets: u64,
}

impl IoCount {
    /// System calls per packet since `earlier`; nothing if no packet came.
    #[must_use]
    pub fn per_packet_since(&self, earlier: &Self) -> Option<f64> {
        let packets = self.packets.checked_sub(earlier.packets).filter(|&packets| packets > 0)?;
        Some(self.syscalls.checked_sub(earlier.syscalls)? as f64 / packets as f64)
    }
}

/// Something that forwards between neighbouring endpoints.
pub trait ForwardTarget {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// The process whose CPU time counts. Valid after [`open`](Self::open).
    fn pid(&self) -> u32;

    /// Makes it forward between `endpoints[0]` and `endpoints[1]`, 2 and 3, and so on. Returns where each of them has
    /// to send. `ptime_ms` is the packet time each source is to be known by.
    ///
    /// # Errors
    /// It refused.
    fn open(&mut self, endpoints: &[SocketAddr], ptime_ms: u64) -> Result<Vec<SocketAddr>>;

    /// System calls it counted so far, if it counts them.
    ///
    /// # Errors
    /// It is gone.
    fn io_count(&mut self) -> Result<Option<IoCount>>;

    /// Undoes [`open`](Self::open).
    ///
    /// # Errors
    /// It is gone.
    fn close(&mut self) -> Result<()>;
}

/// A reference forwarder, started anew for each run.
pub struct ReferenceTarget {
    kind: Kind,
    program: PathBuf,
    cpu: usize,
    process: Option<ForwarderProcess>,
}

impl ReferenceTarget {
    /// A forwarder of the given kind, to run on `cpu` as a child of this tool.
    ///
    /// # Errors
    /// The path of this tool's program is unknown.
    pub fn new(kind: Kind, cpu: usize) -> Result<Self> {
        let program = std::env::current_exe().map_err(Error::io("own program path"))?;
        Ok(Self { kind, program, cpu, process: None })
    }
}

impl ForwardTarget for ReferenceTarget {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, ForwarderProcess::pid)
    }

    fn open(&mut self, endpoints: &[SocketAddr], _ptime_ms: u64) -> Result<Vec<SocketAddr>> {
        let process = ForwarderProcess::start(&self.program, self.kind, endpoints.len() / 2, self.cpu)?;
        let addresses = process.addresses().to_vec();
        self.process = Some(process);
        Ok(addresses)
    }

    fn io_count(&mut self) -> Result<Option<IoCount>> {
        self.process.as_mut().map(|process| process.counts().map(IoCount::from)).transpose()
    }

    fn close(&mut self) -> Result<()> {
        self.process = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syscalls_per_packet_are_a_difference() {
        let before = IoCount { syscalls: 10, packets: 100 };
        let after = IoCount { syscalls: 40, packets: 110 };
        assert_eq!(after.per_packet_since(&before), Some(3.0));
        assert_eq!(before.per_packet_since(&before), None, "no packets");
        assert_eq!(before.per_packet_since(&after), None, "counters that went back");
    }
}
