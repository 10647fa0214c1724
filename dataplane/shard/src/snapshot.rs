//! Figures of one shard, copied out on request.

use hdrhistogram::Histogram;
use ringbridge_media::event::DropCounters;
use ringbridge_media::id::ShardId;

use crate::io::IoCounters;

/// State and figures of one shard at one moment. Counters run since the shard started.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// Which shard.
    pub shard: ShardId,
    /// Kernel thread id, for `/proc/self/task/TID/schedstat`.
    pub thread_id: i32,
    /// Connections that live here.
    pub connections: u64,
    /// Conferences that live here.
    pub conferences: u64,
    /// Operations that run here.
    pub operations: u64,
    /// RTP and RTCP packets received.
    pub packets_in: u64,
    /// RTP and RTCP packets sent.
    pub packets_out: u64,
    /// Drops by reason.
    pub drops: DropCounters,
    /// Media steps mixed more than one step (10 ms) after they were due.
    pub ticks_late: u64,
    /// Sums of other parts of a conference that a frame was mixed without.
    pub partials_late: u64,
    /// Sums of parts of a conference that found no place in a queue, or were of no use.
    pub partials_dropped: u64,
    /// Payloads encoded.
    pub encodes: u64,
    /// Packets passed from one of two parties of a conference to the other past the mix.
    pub packets_direct: u64,
    /// Talk, level and digit events dropped because nobody read them.
    pub events_dropped: u64,
    /// CPU time of the shard's thread, nanoseconds.
    pub cpu_ns: u64,
    /// Share of the last second that the shard's thread was on a core, `0.0 ..= 1.0`.
    pub busy: f64,
    /// Packet I/O.
    pub io: IoCounters,
    /// Microseconds from a packet's leaving the ring to its send being handed to the kernel.
    pub residence_us: Histogram<u64>,
    /// Microseconds from a command's receipt in the control plane to its being applied here.
    pub command_us: Histogram<u64>,
}
