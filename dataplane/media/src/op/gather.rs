//! Collects digits: those that wait in the buffer first, then those that are pressed.

use crate::command::StopConditions;
use crate::digits::{DigitBuffer, DigitSet, Digits};
use crate::event::Condition;
use crate::limits::{DIGIT_SEQUENCE_INTERVAL, FRAME_MS};

/// What a gathering has seen so far. Several at once see the same digits, each on its own.
#[derive(Debug)]
pub(super) struct Gather {
    digits: Digits,
    /// Number of the first of them in the buffer.
    first: u32,
    /// Where a pattern may begin: behind a pause that was too long.
    pattern_from: usize,
    /// When the last was pressed, in milliseconds since it began.
    last_live_ms: Option<u64>,
}

impl Gather {
    pub(super) const fn new(buffer: &DigitBuffer) -> Self {
        Self { digits: *buffer.waiting(), first: buffer.first(), pattern_from: 0, last_live_ms: None }
    }

    /// Takes in a digit that is pressed now.
    pub(super) fn press(&mut self, digit: u8, now_ms: u64) {
        // Between a digit that was waiting and the first that is pressed any time may pass.
        let interval_ms = DIGIT_SEQUENCE_INTERVAL.as_millis();
        if self.last_live_ms.is_some_and(|last| u128::from(now_ms - last) > interval_ms) {
            self.pattern_from = self.digits.len();
        }
        self.last_live_ms = Some(now_ms);
        self.digits.push(digit);
    }

    /// The first of the conditions on digits that holds, with how many digits it takes.
    pub(super) fn met(&self, until: &StopConditions) -> Option<(Condition, usize)> {
        let pattern = || Some((Condition::DigitPattern, self.end_of_pattern(until.digit_pattern.as_ref()?)?));
        let digit = || Some((Condition::Digit, self.end_of_any(until.digit?)?));
        let list = || Some((Condition::DigitList, self.end_of_any(until.digit_list?)?));
        let count = || {
            let digits_max = usize::from(until.digits_max?);
            (self.digits.len() >= digits_max).then_some((Condition::MaxDigits, digits_max))
        };
        pattern().or_else(digit).or_else(list).or_else(count)
    }

    /// Whether the last digit, one that was waiting included, is `ms` milliseconds ago.
    pub(super) fn is_paused_for(&self, ms: u32, now_ms: u64) -> bool {
        // What was waiting counts from the beginning on.
        !self.digits.is_empty() && now_ms.saturating_sub(self.last_live_ms.unwrap_or(0)) >= u64::from(ms)
    }

    /// How many digits it hands out when it ends with `condition`; `None`: all of them, and nothing stays in the buffer.
    fn taken(&self, until: &StopConditions, condition: Condition) -> Option<usize> {
        self.met(until).filter(|&(met, _)| met == condition).map(|(_, count)| count)
    }

    /// What it has gathered when it ends with `condition`.
    pub(super) fn gathered(&self, until: &StopConditions, condition: Condition) -> Digits {
        let mut digits = self.digits;
        self.taken(until, condition).map_or(digits, |count| digits.take(count))
    }

    /// Removes from the buffer what it has gathered when it ends with `condition`.
    pub(super) fn settle(&self, until: &StopConditions, condition: Condition, buffer: &mut DigitBuffer) {
        match self.taken(until, condition) {
            Some(count) => buffer.take_before(self.first.wrapping_add(u32::try_from(count).unwrap_or(0))),
            None => buffer.clear(),
        }
    }

    fn end_of_pattern(&self, pattern: &Digits) -> Option<usize> {
        let (digits, pattern) = (self.digits.as_bytes().get(self.pattern_from..)?, pattern.as_bytes());
        if pattern.is_empty() {
            return None;
        }
        let begin = digits.windows(pattern.len()).position(|window| window == pattern)?;
        Some(self.pattern_from + begin + pattern.len())
    }

    fn end_of_any(&self, set: DigitSet) -> Option<usize> {
        self.digits.as_bytes().iter().position(|&digit| set.contains(digit)).map(|place| place + 1)
    }
}

/// Milliseconds of so many frames.
pub(super) const fn millis(frames: u64) -> u64 {
    frames * FRAME_MS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffered(digits: &str) -> DigitBuffer {
        let mut buffer = DigitBuffer::default();
        digits.bytes().for_each(|digit| assert!(buffer.push(digit)));
        buffer
    }

    fn pattern(digits: &str) -> StopConditions {
        StopConditions { digit_pattern: Digits::parse(digits), ..StopConditions::default() }
    }

    #[test]
    fn a_pattern_goes_from_the_buffer_into_what_is_pressed() {
        let until = pattern("1234");
        let mut gather = Gather::new(&buffered("9123"));
        assert_eq!(gather.met(&until), None);
        gather.press(b'4', 60_000);
        assert_eq!(gather.met(&until), Some((Condition::DigitPattern, 5)));
        gather.press(b'5', 60_010);
        assert_eq!(gather.gathered(&until, Condition::DigitPattern).as_str(), "91234");
    }

    #[test]
    fn a_long_pause_between_pressed_digits_starts_a_pattern_anew() {
        let until = pattern("12");
        let mut gather = Gather::new(&buffered(""));
        for (digit, ms) in [(b'1', 0), (b'2', 2_010)] {
            gather.press(digit, ms);
            assert_eq!(gather.met(&until), None);
        }
        gather.press(b'1', 2_100);
        gather.press(b'2', 4_100);
        assert_eq!(gather.met(&until), Some((Condition::DigitPattern, 4)));
    }

    #[test]
    fn each_takes_what_its_condition_needs_and_the_rest_stays() {
        let set = DigitSet::parse("#*");
        for (until, condition, gathered, stays) in [
            (StopConditions { digits_max: Some(2), ..StopConditions::default() }, Condition::MaxDigits, "12", "#3*"),
            (StopConditions { digit: set, ..StopConditions::default() }, Condition::Digit, "12#", "3*"),
            (StopConditions { digit_list: set, ..StopConditions::default() }, Condition::DigitList, "12#", "3*"),
            (pattern("#3"), Condition::DigitPattern, "12#3", "*"),
            (pattern("55"), Condition::MaxTime, "12#3*", ""),
            (StopConditions { digit: set, ..StopConditions::default() }, Condition::UserStop, "12#3*", ""),
        ] {
            let mut buffer = buffered("12#3*");
            let gather = Gather::new(&buffer);
            assert_eq!(gather.gathered(&until, condition).as_str(), gathered);
            gather.settle(&until, condition, &mut buffer);
            assert_eq!(buffer.waiting().as_str(), stays);
        }
    }

    #[test]
    fn of_several_conditions_the_first_in_order_holds() {
        let digit = DigitSet::parse("3");
        let until = StopConditions { digits_max: Some(2), digit_list: digit, digit, ..pattern("34") };
        let met = |digits: &str| Gather::new(&buffered(digits)).met(&until);
        assert_eq!(met("12"), Some((Condition::MaxDigits, 2)));
        assert_eq!(met("123"), Some((Condition::Digit, 3)));
        assert_eq!(met("1234"), Some((Condition::DigitPattern, 4)));
    }
}
