//! Operations that are started, changed and stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringbridge_media::command::{
    Command, OperationSpec, PlayAdjust, PlayChange, Rate, StopConditions, ToneSpec, VolumeToggle,
};
use ringbridge_media::digits::{DigitSet, Digits};
use ringbridge_media::id::{OperationId, ShardId};
use ringbridge_media::samples::{Playlist, Prompt, RecordQueue};

use super::World;

impl World {
    pub(super) fn start_operation(&mut self) {
        let target = self.any_target();
        self.generation += 1;
        let id = OperationId::new(ShardId(0), 0, self.generation);
        let until = self.conditions();
        let operation = match self.dice.below(9) {
            0..3 => {
                let prompts = (0..self.dice.below(3))
                    .map(|_| {
                        // A square wave so soft that eight of them are no voice.
                        let len = self.dice.index(12_000);
                        Prompt::Whole((0..len).map(|n| if n / 20 % 2 == 0 { 300 } else { -300 }).collect())
                    })
                    .collect();
                OperationSpec::Play {
                    playlist: Box::new(Playlist { prompts, rate: *self.dice.pick(&Rate::ALL) }),
                    volume: self.dice.one_in(4).then_some(-2),
                    speed: self.dice.one_in(4).then(|| *self.dice.pick(&[-5, 0, 4])),
                    isolate: self.dice.one_in(4),
                    until,
                }
            }
            3 | 4 => {
                let queue = Arc::new(RecordQueue::with_rate(*self.dice.pick(&Rate::ALL), 8));
                queue.failed.store(self.dice.one_in(10), Ordering::Release);
                self.queues.push(Arc::clone(&queue));
                OperationSpec::Record { queue, until }
            }
            5 => OperationSpec::Tone {
                tone: ToneSpec { first: (450, -35), second: self.dice.one_in(2).then_some((1_150, -40)) },
                duration_ms: self.dice.one_in(2).then(|| u32::try_from(self.dice.below(500)).expect("small")),
                isolate: self.dice.one_in(4),
                until,
            },
            6 => OperationSpec::GatherDigits { flush: self.dice.one_in(4), until },
            7 => OperationSpec::DetectSilence { until },
            _ => OperationSpec::DetectNonSilence { until },
        };
        self.ledger.operations.insert(id);
        self.operations.push((id, target));
        if !self.command(Command::StartOperation { id, target, operation: Box::new(operation) }) {
            // It never was.
            self.ledger.operation_ended(id);
        }
    }

    pub(super) fn stop_operation(&mut self) {
        if self.operations.is_empty() {
            return;
        }
        let (id, target) = *self.dice.pick(&self.operations);
        let running = self.ledger.operations.contains(&id);
        let operation = self.dice.one_in(2).then_some(id);
        let stopped = self.command(Command::StopOperation { target, operation });
        if operation.is_some() {
            assert_eq!(stopped, running, "{id} runs or not, and can be stopped or not");
        }
        assert!(!self.ledger.operations.contains(&id));
    }

    pub(super) fn adjust(&mut self) {
        let target = self.any_target();
        // Never much louder: see the prompts.
        let adjust = match self.dice.below(5) {
            0 => PlayAdjust::VolumeTo(*self.dice.pick(&[-10, -3, 0, 2])),
            1 => PlayAdjust::VolumeBy(*self.dice.pick(&[-20, -1, 0])),
            2 => PlayAdjust::SpeedTo(*self.dice.pick(&[-10, -2, 0, 3, 10])),
            3 => PlayAdjust::SpeedBy(*self.dice.pick(&[-20, -1, 0, 2])),
            _ => PlayAdjust::Toggle(*self.dice.pick(&[
                VolumeToggle::Switch,
                VolumeToggle::Origin,
                VolumeToggle::Last,
                VolumeToggle::Reset,
            ])),
        };
        let change = PlayChange { adjust, only_if_playing: self.dice.one_in(2) };
        self.command(Command::AdjustPlay { target, change });
    }

    /// One digit or more, of those that phones press too.
    pub(super) fn digits(&mut self, len_max: u64) -> Digits {
        (0..=self.dice.below(len_max)).map(|_| *self.dice.pick(b"15#")).collect()
    }

    fn conditions(&mut self) -> StopConditions {
        let mut ms = |below, n| self.dice.one_in(n).then(|| u32::try_from(self.dice.below(below)).expect("small"));
        let (max_time_ms, inter_digit_ms, silence_ms, nonsilence_ms, timeout_ms) =
            (ms(800, 2), ms(300, 4), ms(300, 5), ms(300, 5), ms(1_500, 4));
        StopConditions {
            max_time_ms,
            digits_max: self.dice.one_in(3).then(|| 1 + u8::try_from(self.dice.below(4)).expect("small")),
            digit: self.dice.one_in(5).then(|| DigitSet::parse("#")).flatten(),
            digit_list: self.dice.one_in(5).then(|| DigitSet::parse("1#")).flatten(),
            digit_pattern: self.dice.one_in(4).then(|| self.digits(3)),
            inter_digit_ms,
            silence_ms,
            nonsilence_ms,
            timeout_ms,
        }
    }
}
