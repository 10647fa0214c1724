//! The measured window of a run: what the server used in it, and those who have to know when it is open.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::cpu::{CpuSample, CpuUse};
use crate::error::{Error, Result};
use crate::traffic::Mark;

/// How often a phase is looked at, and longest wait between looks at a schedule.
pub(super) const LOOK: Duration = Duration::from_millis(1);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const ENDED: u8 = 2;

/// Where a run is, told to other threads by the one that sends packets.
pub(super) struct Phase(AtomicU8);

impl Phase {
    /// Before the measured window.
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(WARMING))
    }

    pub(super) fn is_warming(&self) -> bool {
        self.0.load(Ordering::Acquire) == WARMING
    }

    pub(super) fn is_measuring(&self) -> bool {
        self.0.load(Ordering::Acquire) == MEASURING
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) == ENDED
    }

    /// Ends the run when dropped: also after an error, an interruption or a panic those who look at it have to end.
    pub(super) fn end_at_drop(&self) -> EndAtDrop<'_> {
        EndAtDrop(self)
    }
}

/// See [`Phase::end_at_drop`].
pub(super) struct EndAtDrop<'a>(&'a Phase);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.0.store(ENDED, Ordering::Release);
    }
}

/// What a process uses of the CPU in the measured window.
pub(super) struct CpuWindow<'a> {
    pid: u32,
    phase: Option<&'a Phase>,
    opened: Option<CpuSample>,
    used: Option<CpuUse>,
}

impl<'a> CpuWindow<'a> {
    /// Of process `pid`; `phase` follows the marks, if somebody looks at it.
    pub(super) fn new(pid: u32, phase: Option<&'a Phase>) -> Self {
        Self { pid, phase, opened: None, used: None }
    }

    /// The window opens or closes.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn mark(&mut self, mark: Mark) -> Result<()> {
        let sample = CpuSample::take(self.pid)?;
        let phase = match mark {
            Mark::Open => {
                self.opened = Some(sample);
                MEASURING
            }
            Mark::Close => {
                self.used = self.opened.as_ref().map(|opened| sample.since(opened, self.pid));
                ENDED
            }
        };
        if let Some(followed) = self.phase {
            followed.0.store(phase, Ordering::Release);
        }
        Ok(())
    }

    /// What was used.
    ///
    /// # Errors
    /// The window has not been opened and closed.
    pub(super) fn used(self) -> Result<CpuUse> {
        self.used.ok_or_else(|| Error::Setup("the run ended before its measured window".into()))
    }
}
