//! Volume and speed of what is played to a target: kept from one play to the next until changed.

use ringbridge_codec::mix;

use crate::command::{PlayAdjust, VolumeToggle};
use crate::limits::{PLAY_STEPS_MAX, PLAY_STEPS_MIN, SPEED_PERCENT, VOLUME_STEP_DB};

/// Where volume and speed stand.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Adjustment {
    /// Steps of volume; the origin is 0.
    volume: i8,
    /// What the volume was last changed to, unless that was forgotten.
    last_volume: Option<i8>,
    /// Steps of speed; the origin is 0.
    speed: i8,
    /// The latest change was by an amount, not to one.
    is_relative: bool,
}

impl Adjustment {
    /// Applies a change.
    pub(crate) fn apply(&mut self, change: PlayAdjust) {
        match change {
            PlayAdjust::VolumeTo(steps) => {
                self.is_relative = false;
                self.set_volume(steps);
            }
            PlayAdjust::VolumeBy(steps) => {
                self.is_relative = true;
                self.set_volume(self.volume.saturating_add(steps));
            }
            PlayAdjust::SpeedTo(steps) => {
                self.is_relative = false;
                self.speed = clamp(steps);
            }
            PlayAdjust::SpeedBy(steps) => {
                self.is_relative = true;
                self.speed = clamp(self.speed.saturating_add(steps));
            }
            PlayAdjust::Toggle(toggle) => self.toggle(toggle),
        }
    }

    /// Applies what a play brings along, as the latest change was meant: to an amount or by one.
    pub(crate) fn begin(&mut self, volume: Option<i8>, speed: Option<i8>) {
        let by = self.is_relative;
        if let Some(steps) = volume {
            self.apply(if by { PlayAdjust::VolumeBy(steps) } else { PlayAdjust::VolumeTo(steps) });
        }
        if let Some(steps) = speed {
            self.apply(if by { PlayAdjust::SpeedBy(steps) } else { PlayAdjust::SpeedTo(steps) });
        }
    }

    /// Gain of the volume.
    pub(crate) fn gain_q12(self) -> i32 {
        mix::gain_q12_from_db(i16::from(self.volume) * VOLUME_STEP_DB)
    }

    /// Speed in per cent.
    pub(crate) fn speed_percent(self) -> u16 {
        let (slowest, fastest) = SPEED_PERCENT;
        let percent = 100i16 + 10 * i16::from(self.speed);
        u16::try_from(percent).unwrap_or(slowest).clamp(slowest, fastest)
    }

    fn set_volume(&mut self, steps: i8) {
        self.volume = clamp(steps);
        self.last_volume = Some(self.volume);
    }

    fn toggle(&mut self, toggle: VolumeToggle) {
        let last = self.last_volume.unwrap_or(0);
        match toggle {
            VolumeToggle::Switch => self.volume = if self.volume == 0 { last } else { 0 },
            VolumeToggle::Origin => self.volume = 0,
            VolumeToggle::Last => self.volume = last,
            VolumeToggle::Reset => (self.volume, self.last_volume) = (0, None),
        }
    }
}

fn clamp(steps: i8) -> i8 {
    steps.clamp(PLAY_STEPS_MIN, PLAY_STEPS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PlayAdjust::{SpeedBy, SpeedTo, Toggle, VolumeBy, VolumeTo};
    use VolumeToggle::{Last, Origin, Reset, Switch};

    fn after(changes: &[PlayAdjust]) -> Adjustment {
        let mut adjustment = Adjustment::default();
        changes.iter().for_each(|&change| adjustment.apply(change));
        adjustment
    }

    #[test]
    fn the_table_of_toggles() {
        for (changes, volume) in [
            (&[VolumeTo(4), Toggle(Switch)][..], 0),
            (&[VolumeTo(4), Toggle(Switch), Toggle(Switch)], 4),
            (&[VolumeTo(4), VolumeBy(-6), Toggle(Origin)], 0),
            (&[VolumeTo(4), VolumeBy(-6), Toggle(Origin), Toggle(Last)], -2),
            (&[VolumeTo(4), Toggle(Reset)], 0),
            (&[VolumeTo(4), Toggle(Reset), Toggle(Last)], 0),
            (&[VolumeTo(4), Toggle(Reset), Toggle(Switch)], 0),
            (&[Toggle(Switch)], 0),
            (&[Toggle(Last)], 0),
            (&[VolumeTo(8), VolumeBy(20)], 10),
            (&[VolumeTo(-100)], -10),
            (&[SpeedTo(3), VolumeTo(2), Toggle(Switch)], 0),
        ] {
            assert_eq!(after(changes).volume, volume, "{changes:?}");
        }
        assert_eq!(after(&[SpeedTo(3), Toggle(Reset)]).speed, 3, "toggles are for the volume");
    }

    #[test]
    fn a_play_takes_its_steps_as_the_latest_change_was_meant() {
        let mut adjustment = after(&[VolumeTo(4)]);
        adjustment.begin(Some(2), None);
        assert_eq!(adjustment.volume, 2);
        adjustment.apply(SpeedBy(1));
        adjustment.begin(Some(3), Some(-2));
        assert_eq!((adjustment.volume, adjustment.speed), (5, -1));
        adjustment.begin(None, None);
        assert_eq!((adjustment.volume, adjustment.speed), (5, -1));
    }

    #[test]
    fn steps_are_decibels_and_per_cent() {
        assert_eq!(after(&[]).gain_q12(), mix::GAIN_Q12_UNITY);
        assert_eq!(after(&[VolumeTo(-10)]).gain_q12(), 410);
        assert_eq!(after(&[VolumeTo(10)]).gain_q12(), 40_960);
        let percent = |steps| after(&[SpeedTo(steps)]).speed_percent();
        assert_eq!([-10, -5, -1, 0, 2, 5, 10].map(percent), [50, 50, 90, 100, 120, 150, 150]);
    }
}
