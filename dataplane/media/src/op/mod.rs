//! Media operations: small machines that turn frames into prompts and recordings. Each ends exactly once.

mod play;
mod record;

use crate::command::{OperationKind, OperationSpec, Target};
use crate::event::{Condition, Event, OperationStatus};
use crate::id::OperationId;
use crate::limits::{FRAME_MS, FRAME_SAMPLES};
use play::Play;
use record::Record;

/// A running operation.
#[derive(Debug)]
pub(crate) struct Operation {
    id: OperationId,
    machine: Machine,
    frames: u64,
    frames_max: Option<u64>,
}

#[derive(Debug)]
enum Machine {
    Play(Play),
    Record(Record),
}

impl Operation {
    /// `None`: not supported yet.
    pub(crate) fn new(id: OperationId, spec: OperationSpec) -> Option<Self> {
        let (machine, until) = match spec {
            OperationSpec::Play { playlist, until, volume: _, speed: _, isolate: _ } => {
                (Machine::Play(Play::new(playlist)), until)
            }
            OperationSpec::Record { queue, until } => (Machine::Record(Record::new(queue)), until),
            OperationSpec::Tone { .. }
            | OperationSpec::GatherDigits { .. }
            | OperationSpec::DetectSilence { .. }
            | OperationSpec::DetectNonSilence { .. } => return None,
        };
        let frames_max = until.max_time_ms.map(|ms| u64::from(ms.div_ceil(FRAME_MS)));
        Some(Self { id, machine, frames: 0, frames_max })
    }

    /// Fills `frame` with what is played. `Err` is the end, before this frame.
    pub(crate) fn play(&mut self, frame: &mut [i16; FRAME_SAMPLES]) -> Result<(), Condition> {
        if self.time_is_up() {
            return Err(Condition::MaxTime);
        }
        if let Machine::Play(play) = &mut self.machine {
            play.fill(frame)?;
        }
        self.frames += 1;
        Ok(())
    }

    /// Records `frame`. `Err` is the end, before this frame.
    pub(crate) fn record(&mut self, frame: &[i16; FRAME_SAMPLES]) -> Result<(), Condition> {
        if self.time_is_up() {
            return Err(Condition::MaxTime);
        }
        if let Machine::Record(record) = &mut self.machine {
            record.write(frame)?;
        }
        self.frames += 1;
        Ok(())
    }

    /// The final event. Consumes the operation, so there can be only one.
    pub(crate) fn end(self, target: Target, condition: Condition) -> Event {
        let (id, kind, elapsed_ms) = (self.id, self.kind(), self.elapsed_ms());
        let playlist = match self.machine {
            Machine::Play(play) => Some(play.into_playlist()),
            Machine::Record(record) => {
                record.finish();
                None
            }
        };
        Event::OperationEnded { id, target, kind, condition, elapsed_ms, digits: None, playlist }
    }

    pub(crate) const fn id(&self) -> OperationId {
        self.id
    }

    pub(crate) const fn kind(&self) -> OperationKind {
        match self.machine {
            Machine::Play(_) => OperationKind::Play,
            Machine::Record(_) => OperationKind::Record,
        }
    }

    pub(crate) const fn elapsed_ms(&self) -> u64 {
        self.frames * FRAME_MS as u64
    }

    pub(crate) const fn status(&self, target: Target) -> OperationStatus {
        OperationStatus { id: self.id, target, kind: self.kind(), elapsed_ms: self.elapsed_ms() }
    }

    fn time_is_up(&self) -> bool {
        self.frames_max.is_some_and(|frames_max| self.frames >= frames_max)
    }
}
