//! Finds how many samples of a voice can be left out so that nobody notices: a period, or some.

use ringbridge_codec::Rate;

/// Longest lag: 10 ms, so that a frame is left to fade over.
pub(super) const fn longest(rate: Rate) -> usize {
    rate.frame_samples()
}

/// The lag after which `samples`, 20 ms of them, are most like their beginning; `None` if they are not much alike.
pub(super) fn period(samples: &[i16], rate: Rate) -> Option<usize> {
    let frame = rate.frame_samples();
    if samples.len() < 2 * frame {
        return None;
    }
    // A coarse search looks at every n-th sample, which is about one of 8 kHz.
    let step = frame / Rate::Narrow.frame_samples();
    let coarse = best(samples, frame, step, (frame / 4..=frame).step_by(step))?;
    let near = coarse.0.saturating_sub(step).max(frame / 4)..=(coarse.0 + step).min(frame);
    let (lag, likeness) = if step == 1 { coarse } else { best(samples, frame, 1, near.step_by(2))? };
    (likeness >= ALIKE).then_some(lag)
}

fn best(samples: &[i16], frame: usize, step: usize, lags: impl Iterator<Item = usize>) -> Option<(usize, f32)> {
    lags.map(|lag| (lag, likeness(samples, frame, step, lag))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// The cosine between the samples that are faded into each other.
fn likeness(samples: &[i16], frame: usize, step: usize, lag: usize) -> f32 {
    let (mut product, mut first, mut second) = (0.0f32, 1.0f32, 1.0f32);
    for (a, b) in samples[..frame].iter().step_by(step).zip(samples[lag..].iter().step_by(step)) {
        let (a, b) = (f32::from(*a), f32::from(*b));
        product += a * b;
        first += a * a;
        second += b * b;
    }
    product / (first * second).sqrt()
}

/// Two stretches of a voice are so much alike that one can go over into the other.
const ALIKE: f32 = 0.75;
