//! Media operations: small machines on the media clock, one step a frame. Each ends exactly once, with one condition.
//!
//! Whether an operation ends is asked before each frame. If a condition holds in the middle of a step of 20 ms (counted
//! from its beginning) and one that comes before it in the order of [`Condition`] may still hold by the end of that
//! step, the operation waits for the rest of it, neither heard nor recording, and ends with the first in order of all
//! that held.

mod call;
mod gather;
mod level;
mod play;
mod rate;
mod record;
mod tone;

use crate::adjust::Adjustment;
use crate::command::{OperationKind, OperationSpec, StopConditions, Target};
use crate::digits::DigitBuffer;
use crate::event::{Condition, Event, OperationStatus};
use crate::id::OperationId;
use crate::outputs::Outputs;
use call::RecordCall;
pub(crate) use call::Said;
use gather::{Gather, millis};
use level::LevelRuns;
use play::Play;
use rate::ToClock;
use record::Record;
use ringbridge_codec::Rate;
use tone::Tone;

/// Frames of a step within which conditions have an order of precedence.
const STEP_FRAMES: u64 = 2;

/// A running operation.
#[derive(Debug)]
pub(crate) struct Operation {
    id: OperationId,
    machine: Machine,
    /// There if it is heard.
    to_clock: Option<Box<ToClock>>,
    /// Only what its kind can end with.
    until: StopConditions,
    /// Whether nobody else hears the participant it plays to.
    isolates: bool,
    frames: u64,
    runs: LevelRuns,
    pressed: Pressed,
    /// A condition that held before the end of the present step, and after how many frames.
    held: Option<(Condition, u64)>,
}

#[derive(Debug)]
enum Machine {
    Play(Play),
    Tone(Tone),
    Record(Record),
    RecordCall(RecordCall),
    Gather(Gather),
    DetectSilence,
    DetectNonSilence,
}

/// What was pressed since it began, as far as its conditions ask.
#[derive(Clone, Copy, Default, Debug)]
struct Pressed {
    count: u8,
    digit: bool,
    digit_list: bool,
}

impl Operation {
    /// A new operation on `target`, whose clock has that rate. `buffer` are the digits that wait to be gathered there.
    pub(crate) fn new(
        id: OperationId,
        target: Target,
        clock: Rate,
        spec: OperationSpec,
        buffer: &mut DigitBuffer,
    ) -> Self {
        let kind = spec.kind();
        let (machine, until, isolates) = match spec {
            OperationSpec::Play { playlist, until, volume: _, speed: _, isolate } => {
                (Machine::Play(Play::new(playlist)), until, isolate)
            }
            OperationSpec::Tone { tone, duration_ms, isolate, until } => {
                (Machine::Tone(Tone::new(clock, tone, duration_ms)), until, isolate)
            }
            OperationSpec::Record { queue, until } => (Machine::Record(Record::new(queue)), until, false),
            OperationSpec::RecordCall { queue, caller, called: _, until } => {
                let on_caller = target == Target::Connection(caller);
                (Machine::RecordCall(RecordCall::new(queue, on_caller)), until, false)
            }
            OperationSpec::GatherDigits { flush, until } => {
                if flush {
                    buffer.clear();
                }
                (Machine::Gather(Gather::new(buffer)), until, false)
            }
            OperationSpec::DetectSilence { until } => (Machine::DetectSilence, until, false),
            OperationSpec::DetectNonSilence { until } => (Machine::DetectNonSilence, until, false),
        };
        if kind.forgets_digits() {
            buffer.clear();
        }
        let own_rate = match &machine {
            Machine::Play(play) => Some(play.rate()),
            Machine::Tone(_) => Some(clock),
            Machine::Record(_)
            | Machine::RecordCall(_)
            | Machine::Gather(_)
            | Machine::DetectSilence
            | Machine::DetectNonSilence => None,
        };
        let mut operation = Self {
            id,
            machine,
            to_clock: own_rate.map(ToClock::new),
            until: kind.conditions(until),
            isolates,
            frames: 0,
            runs: LevelRuns::default(),
            pressed: Pressed::default(),
            held: None,
        };
        operation.tune(clock);
        operation
    }

    /// From the next frame on it runs on a clock of that rate.
    pub(crate) fn tune(&mut self, clock: Rate) {
        if let Some(to_clock) = &mut self.to_clock {
            to_clock.tune(clock);
        } else if let Machine::Record(record) = &mut self.machine {
            record.tune(clock);
        }
    }

    /// Takes in a digit that is pressed now. `kept`: it is in the buffer.
    pub(crate) fn press(&mut self, digit: u8, kept: bool) {
        let now_ms = self.elapsed_ms();
        match &mut self.machine {
            Machine::Gather(gather) if kept => gather.press(digit, now_ms),
            Machine::Gather(_) => {}
            Machine::Play(_)
            | Machine::Tone(_)
            | Machine::Record(_)
            | Machine::RecordCall(_)
            | Machine::DetectSilence
            | Machine::DetectNonSilence => {
                self.pressed.count = self.pressed.count.saturating_add(1);
                self.pressed.digit |= self.until.digit.is_some_and(|set| set.contains(digit));
                self.pressed.digit_list |= self.until.digit_list.is_some_and(|set| set.contains(digit));
            }
        }
    }

    /// Plays with this volume and speed from now on, if it is a play.
    pub(crate) fn adjust(&mut self, adjustment: Adjustment) {
        if let Machine::Play(play) = &mut self.machine {
            play.adjust(adjustment);
        }
    }

    /// Fills `frame`, at the rate of its clock, with what is heard; `false` if there is nothing left to hear. `loud`: what its target says in this
    /// frame is sound. `Err` is the end, before this frame.
    pub(crate) fn play(&mut self, loud: bool, frame: &mut [i16]) -> Result<bool, Condition> {
        let met = self.met();
        // What was played to its end has ended first, even if the limit of the command is reached as well.
        if met.is_some_and(|condition| condition < Condition::Eod) {
            self.judge(met)?;
        }
        let filled = self.fill(frame);
        match filled {
            Ok(()) => self.judge(met)?,
            Err(Condition::Error) => return Err(Condition::Error),
            Err(condition) => self.judge(met.map_or(Some(condition), |met| Some(met.min(condition))))?,
        }
        self.go_on(loud);
        Ok(filled.is_ok() && self.held.is_none())
    }

    /// Fills `frame` with what is left to be heard.
    fn fill(&mut self, frame: &mut [i16]) -> Result<(), Condition> {
        let Self { machine, to_clock: Some(to_clock), .. } = self else { return Ok(()) };
        match machine {
            Machine::Play(play) => {
                to_clock.fill(frame, |samples| play.fill(samples))?;
                play.amplify(frame);
                Ok(())
            }
            Machine::Tone(tone) => to_clock.fill(frame, |samples| tone.fill(samples)),
            Machine::Record(_)
            | Machine::RecordCall(_)
            | Machine::Gather(_)
            | Machine::DetectSilence
            | Machine::DetectNonSilence => Ok(()),
        }
    }

    /// Takes in a frame of what its target says, at the rate of its clock. `Err` is the end, before this frame.
    pub(crate) fn listen(&mut self, loud: bool, frame: &[i16]) -> Result<(), Condition> {
        self.judge(self.met())?;
        if let (Machine::Record(record), None) = (&mut self.machine, self.held) {
            record.write(frame)?;
        }
        self.go_on(loud);
        Ok(())
    }

    /// Takes in a frame of what both parties of a call say, if it records them. `Err` is the end, before this frame.
    pub(crate) fn listen_to_call(&mut self, own: &Said, other: &Said) -> Result<(), Condition> {
        self.judge(self.met())?;
        if let (Machine::RecordCall(record), None) = (&mut self.machine, self.held) {
            record.write(own, other)?;
        }
        self.go_on(own.loud || other.loud);
        Ok(())
    }

    /// Whether it records both parties of a call.
    pub(crate) const fn records_call(&self) -> bool {
        matches!(self.machine, Machine::RecordCall(_))
    }

    /// Leaves out so many frames that the clock did not run, if it records a call.
    pub(crate) fn skip(&mut self, frames: u64) {
        if let (Machine::RecordCall(record), None) = (&mut self.machine, self.held) {
            record.skip(frames);
        }
    }

    /// Says whether caller and called are left out from the next frame on; `None` if it records no call.
    pub(crate) fn mute(&mut self, caller: bool, called: bool) -> Option<Muted> {
        let Machine::RecordCall(record) = &mut self.machine else { return None };
        let before = record.mute([caller, called]);
        let changed = [before[0] != caller, before[1] != called];
        let [own, other] = if record.on_caller() { changed } else { [changed[1], changed[0]] };
        Some(Muted { own, other, recorded_ms: record.recorded_ms() })
    }

    /// Takes out of the buffer what it has gathered, if it ends with `condition`.
    pub(crate) fn settle(&self, condition: Condition, buffer: &mut DigitBuffer) {
        if let Machine::Gather(gather) = &self.machine {
            gather.settle(&self.until, self.outcome(condition).0, buffer);
        }
    }

    /// The final event. Consumes the operation, so there can be only one.
    pub(crate) fn end(self, target: Target, condition: Condition) -> Event {
        let (id, kind) = (self.id, self.kind());
        let (condition, frames) = self.outcome(condition);
        let elapsed_ms = millis(frames).max(match condition {
            // Stopped before its first frame it has run all the same.
            Condition::UserStop | Condition::AutoStop => 1,
            Condition::DigitPattern
            | Condition::Digit
            | Condition::DigitList
            | Condition::MaxDigits
            | Condition::InterDigitDelay
            | Condition::MaxTime
            | Condition::Silence
            | Condition::NonSilence
            | Condition::Eod
            | Condition::Timeout
            | Condition::Error => 0,
        });
        let (digits, playlist) = match self.machine {
            Machine::Play(play) => (None, Some(play.into_playlist())),
            Machine::Record(record) => {
                record.finish();
                (None, None)
            }
            Machine::RecordCall(record) => {
                record.finish();
                (None, None)
            }
            Machine::Gather(gather) => (Some(gather.gathered(&self.until, condition)), None),
            Machine::Tone(_) | Machine::DetectSilence | Machine::DetectNonSilence => (None, None),
        };
        Event::OperationEnded { id, target, kind, condition, elapsed_ms, digits, playlist }
    }

    pub(crate) const fn id(&self) -> OperationId {
        self.id
    }

    pub(crate) const fn kind(&self) -> OperationKind {
        match self.machine {
            Machine::Play(_) => OperationKind::Play,
            Machine::Tone(_) => OperationKind::Tone,
            Machine::Record(_) | Machine::RecordCall(_) => OperationKind::Record,
            Machine::Gather(_) => OperationKind::GatherDigits,
            Machine::DetectSilence => OperationKind::DetectSilence,
            Machine::DetectNonSilence => OperationKind::DetectNonSilence,
        }
    }

    /// Whether it keeps the participant it plays to from being heard.
    pub(crate) const fn isolates(&self) -> bool {
        self.isolates && self.held.is_none()
    }

    /// Whether it listens to what its target says.
    pub(crate) const fn needs_audio(&self) -> bool {
        matches!(self.machine, Machine::Record(_) | Machine::RecordCall(_)) || self.needs_level()
    }

    /// Whether it has to know if what its target says is sound.
    pub(crate) const fn needs_level(&self) -> bool {
        self.until.silence_ms.is_some() || self.until.nonsilence_ms.is_some()
    }

    /// Whether it ends by itself although nobody is there to hear it or to be heard.
    pub(crate) const fn ends_unheard(&self) -> bool {
        !self.kind().is_heard() || self.until.max_time_ms.is_some() || self.until.timeout_ms.is_some()
    }

    pub(crate) const fn status(&self, target: Target) -> OperationStatus {
        OperationStatus { id: self.id, target, kind: self.kind(), elapsed_ms: self.elapsed_ms() }
    }

    const fn elapsed_ms(&self) -> u64 {
        millis(self.frames)
    }

    fn go_on(&mut self, loud: bool) {
        self.frames += 1;
        self.runs.note(loud);
    }

    /// The first of its conditions that holds now, its own end apart.
    fn met(&self) -> Option<Condition> {
        let Self { until, pressed, runs, .. } = self;
        let now_ms = self.elapsed_ms();
        let passed = |limit_ms: Option<u32>| limit_ms.is_some_and(|limit_ms| now_ms >= u64::from(limit_ms));
        let pressed = match &self.machine {
            Machine::Gather(gather) => gather.met(until).map(|(condition, _)| condition).or_else(|| {
                let paused = until.inter_digit_ms.is_some_and(|ms| gather.is_paused_for(ms, now_ms));
                paused.then_some(Condition::InterDigitDelay)
            }),
            Machine::Play(_)
            | Machine::Tone(_)
            | Machine::Record(_)
            | Machine::RecordCall(_)
            | Machine::DetectSilence
            | Machine::DetectNonSilence => {
                if pressed.digit {
                    Some(Condition::Digit)
                } else if pressed.digit_list {
                    Some(Condition::DigitList)
                } else {
                    until.digits_max.is_some_and(|max| pressed.count >= max).then_some(Condition::MaxDigits)
                }
            }
        };
        let timed = [
            (Condition::MaxTime, passed(until.max_time_ms)),
            (Condition::Silence, until.silence_ms.is_some_and(|ms| runs.is_silent_for(ms))),
            (Condition::NonSilence, until.nonsilence_ms.is_some_and(|ms| runs.is_sounding_for(ms))),
            (Condition::Timeout, passed(until.timeout_ms)),
        ];
        pressed.or_else(|| timed.into_iter().find(|&(_, holds)| holds).map(|(condition, _)| condition))
    }

    /// Whether it ends now, given the first condition that holds.
    ///
    /// # Errors
    /// The condition with which it ends.
    fn judge(&mut self, met: Option<Condition>) -> Result<(), Condition> {
        let held = self.held.map(|(condition, _)| condition);
        let Some(first) = met.into_iter().chain(held).min() else { return Ok(()) };
        if held != Some(first) {
            self.held = Some((first, self.frames));
        }
        let step_is_over = self.frames.is_multiple_of(STEP_FRAMES);
        if step_is_over || !self.may_be_preceded(first) { Err(first) } else { Ok(()) }
    }

    /// Whether a condition that comes before `met` may hold by the end of the present step.
    fn may_be_preceded(&self, met: Condition) -> bool {
        let until = &self.until;
        let step_ends_ms = millis(self.frames.next_multiple_of(STEP_FRAMES));
        let possible = [
            (Condition::DigitPattern, until.digit_pattern.is_some()),
            (Condition::Digit, until.digit.is_some()),
            (Condition::DigitList, until.digit_list.is_some()),
            (Condition::MaxDigits, until.digits_max.is_some()),
            (Condition::InterDigitDelay, until.inter_digit_ms.is_some()),
            (Condition::MaxTime, until.max_time_ms.is_some_and(|ms| u64::from(ms) <= step_ends_ms)),
            (Condition::Silence, until.silence_ms.is_some()),
            (Condition::NonSilence, until.nonsilence_ms.is_some()),
            (Condition::Eod, self.kind().is_heard()),
        ];
        possible.into_iter().any(|(condition, possible)| possible && condition < met)
    }

    /// Condition and length, if `condition` ends it now: what held before a stop or a fault came is what it ended with.
    fn outcome(&self, condition: Condition) -> (Condition, u64) {
        self.held.filter(|&(held, _)| held <= condition).unwrap_or((condition, self.frames))
    }
}

impl OperationKind {
    /// Whether digits that were pressed before it began are forgotten.
    const fn forgets_digits(self) -> bool {
        matches!(self, Self::Play | Self::Tone | Self::Record)
    }

    /// Those of `until` that this kind can end with.
    fn conditions(self, until: StopConditions) -> StopConditions {
        let StopConditions { max_time_ms, digit, silence_ms, nonsilence_ms, timeout_ms, .. } = until;
        let none = StopConditions { timeout_ms, ..StopConditions::default() };
        match self {
            Self::Play | Self::Tone => StopConditions { digit_pattern: None, inter_digit_ms: None, ..until },
            Self::Record => StopConditions { max_time_ms, digit, silence_ms, nonsilence_ms, ..none },
            Self::GatherDigits => StopConditions { silence_ms: None, nonsilence_ms: None, ..until },
            Self::DetectSilence => StopConditions { silence_ms, ..none },
            Self::DetectNonSilence => StopConditions { nonsilence_ms, ..none },
        }
    }
}

/// What muting has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Muted {
    /// Whether the connection that it runs on is left out now and was not, or the other way round.
    pub(crate) own: bool,
    /// The same of the other.
    pub(crate) other: bool,
    /// How much was recorded before.
    pub(crate) recorded_ms: u64,
}

/// Runs the operations that are heard, or those that are not. One that ends leaves its place and its final event.
pub(crate) fn run_each(
    operations: &mut [Option<Box<Operation>>],
    are_heard: bool,
    target: Target,
    buffer: &mut DigitBuffer,
    out: &mut Outputs,
    mut run: impl FnMut(&mut Operation) -> Result<(), Condition>,
) {
    for place in operations {
        let Some(operation) = place.as_mut().filter(|operation| operation.kind().is_heard() == are_heard) else {
            continue;
        };
        if let Err(condition) = run(operation)
            && let Some(operation) = place.take()
        {
            operation.settle(condition, buffer);
            out.end_operation(operation, target, condition);
        }
    }
}
