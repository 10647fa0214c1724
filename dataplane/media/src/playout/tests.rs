mod codecs;
mod delay;
pub(super) mod fake;
mod lives;
mod stateful;
mod stream;
mod tables;
mod voices;

use ringbridge_codec::{CodecKind, Rate};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use super::{DelaySpec, Playout, Pulled};
use crate::event::DropReason;
use crate::time::Instant;

/// 10 ms at 8 kHz.
const FRAME: usize = 80;
const HEARD: Pulled = Pulled { heard: true, concealed: false, noise: false, missing: 0, failed: false };
const SILENT: Pulled = Pulled { heard: false, ..HEARD };

/// A buffer fed with packets of samples that are each known by its timestamp.
struct Bench {
    playout: Playout,
    voice: fn(u32) -> i16,
}

impl Bench {
    fn new() -> Self {
        Self { playout: Playout::new(CodecKind::L16(Rate::Narrow)), voice: value }
    }

    fn fixed(delay_ms: u16) -> Self {
        let mut bench = Self::new();
        bench.playout.set_delay(DelaySpec { min_ms: delay_ms, max_ms: delay_ms });
        bench
    }

    fn push(&mut self, ms: u64, sequence: u16, timestamp: u32, len: usize) -> Result<(), DropReason> {
        self.push_at(Instant::from_millis(ms), sequence, timestamp, len, false)
    }

    fn push_at(
        &mut self,
        now: Instant,
        sequence: u16,
        timestamp: u32,
        len: usize,
        marker: bool,
    ) -> Result<(), DropReason> {
        let samples = (0..u32::try_from(len).unwrap()).map(|n| (self.voice)(timestamp.wrapping_add(n)));
        let payload: Vec<u8> = samples.flat_map(i16::to_be_bytes).collect();
        self.playout.push(now, SeqNumber(sequence), RtpTimestamp(timestamp), marker, &payload)
    }

    fn pull(&mut self, ms: u64) -> (Vec<i16>, Pulled) {
        self.pull_at(Instant::from_millis(ms))
    }

    fn pull_at(&mut self, now: Instant) -> (Vec<i16>, Pulled) {
        let mut frame = [0; FRAME];
        let pulled = self.playout.pull(now, &mut frame);
        (frame.to_vec(), pulled)
    }
}

fn value(timestamp: u32) -> i16 {
    i16::try_from(timestamp % 10_000 + 1).unwrap()
}

/// What is heard of `value` from `timestamp` on.
fn ramp(timestamp: u32) -> Vec<i16> {
    (0..FRAME as u32).map(|n| value(timestamp.wrapping_add(n))).collect()
}
