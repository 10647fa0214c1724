//! Histograms, quantiles, medians and ratios.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Largest duration told apart in histograms: one minute in nanoseconds.
const DURATION_NS_MAX: u64 = 60_000_000_000;

/// An empty histogram of durations in nanoseconds, three significant digits, up to one minute.
#[must_use]
pub fn duration_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DURATION_NS_MAX, 3).expect("constant bounds are valid")
}

/// Counts `value`; one above the range counts as the largest of it.
pub fn record(histogram: &mut Histogram<u64>, value: u64) {
    histogram.saturating_record(value);
}

/// The quantiles that are reported, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Number of values.
    pub count: u64,
    /// Smallest value.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 % are not above this.
    pub p90: f64,
    /// 99 % are not above this.
    pub p99: f64,
    /// 99.9 % are not above this.
    pub p999: f64,
    /// Largest value.
    pub max: f64,
}

impl Quantiles {
    /// The quantiles of a histogram of nanoseconds, in microseconds.
    #[must_use]
    pub fn of_nanos(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            min: histogram.min() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// Median of `values`, the mean of the middle two when their number is even; nothing of nothing. NaNs sort last.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Middle and spread of repeated measurements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Median and extremes of `values`; nothing of nothing.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values)?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// Ratios `ours[i] / theirs[i]` of measurements made next to each other, so that a drift of the machine cancels.
    /// Pairs with a zero or unequal length are left out.
    #[must_use]
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).filter(|&(_, &theirs)| theirs > 0.0).map(|(ours, theirs)| ours / theirs).collect();
        Self::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine slows down threefold between the pairs; each pair still says one half.
        let spread = Spread::of_ratios(&[1.0, 3.0, 9.0], &[2.0, 6.0, 18.0]).unwrap();
        assert_eq!(spread, Spread { median: 0.5, min: 0.5, max: 0.5 });
        assert_eq!(Spread::of_ratios(&[1.0], &[0.0]), None);
    }

    #[test]
    fn quantiles_come_in_microseconds() {
        let mut histogram = duration_histogram();
        for millis in 1..=1_000u64 {
            record(&mut histogram, millis * 1_000_000);
        }
        let quantiles = Quantiles::of_nanos(&histogram);
        assert_eq!(quantiles.count, 1_000);
        assert!((quantiles.p50 - 500_000.0).abs() < 1_000.0, "{}", quantiles.p50);
        assert!((quantiles.p99 - 990_000.0).abs() < 1_000.0, "{}", quantiles.p99);
        assert!((quantiles.max - 1_000_000.0).abs() < 1_000.0, "{}", quantiles.max);
        assert_eq!(Quantiles::of_nanos(&duration_histogram()), Quantiles::default());
    }

    #[test]
    fn a_value_beyond_the_range_is_kept_as_the_largest() {
        let mut histogram = duration_histogram();
        record(&mut histogram, u64::MAX);
        assert_eq!(histogram.len(), 1);
        assert!(histogram.max() >= DURATION_NS_MAX);
    }
}
