//! Samples, and the figures computed from them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Named figures of one run. Each name ends with the unit.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Times in nanoseconds, and the duration of their measurement.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) nanos: Vec<u64>,
    pub(crate) elapsed: Duration,
}

impl Tally {
    /// Adds one sample.
    #[inline]
    pub(crate) fn push(&mut self, time: Duration) {
        self.nanos.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the samples of a later measurement.
    pub(crate) fn then(&mut self, other: Self) {
        self.elapsed += other.elapsed;
        self.nanos.extend(other.nanos);
    }

    /// Returns percentiles in microseconds, and samples per second.
    pub(crate) fn latencies(&self) -> Figures {
        let histogram = self.histogram();
        let micros = |percentile: f64| histogram.value_at_quantile(percentile / 100.0) as f64 / 1e3;
        let figures = [
            ("p50_us", micros(50.0)),
            ("p99_us", micros(99.0)),
            ("p99.9_us", micros(99.9)),
            ("max_us", histogram.max() as f64 / 1e3),
            ("per_s", self.nanos.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)),
            ("samples", self.nanos.len() as f64),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Returns percentiles per event in nanoseconds, where each sample is the time of a batch.
    pub(crate) fn per_event(&self, batch: usize) -> Figures {
        let histogram = self.histogram();
        let nanos =
            |percentile: f64| histogram.value_at_quantile(percentile / 100.0) as f64 / batch as f64;
        let figures = [
            ("p50_ns", nanos(50.0)),
            ("p99_ns", nanos(99.0)),
            ("mean_ns", histogram.mean() / batch as f64),
            ("samples", self.nanos.len() as f64),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn histogram(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are in range");
        for nanos in &self.nanos {
            histogram.record(*nanos).expect("the histogram grows");
        }
        histogram
    }
}

/// Returns the median, the least and the greatest of these values.
pub(crate) fn median(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let half = sorted.len() / 2;
    let middle = match sorted.len() % 2 {
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    };
    Some((middle, least, greatest))
}

/// Rounds to four digits: more would be noise in the results.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Returns bytes that do not compress and are not all the same.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(1);
    (0..bytes).map(|_| dice.next().to_le_bytes()[3]).collect()
}

/// Pseudorandom numbers, the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    /// Creates the sequence of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns the next number from 0 up to, not including, 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_even_and_odd() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn four_digits() {
        assert_eq!(rounded(1_234_567.0), 1_235_000.0);
        assert_eq!(rounded(0.012_345_6), 0.01235);
    }

    #[test]
    fn a_rate_counts_all_threads() {
        let tally = Tally { nanos: vec![1_000; 300], elapsed: Duration::from_millis(100) };
        let figures = tally.latencies();
        assert!((figures["per_s"] - 3_000.0).abs() < 1.0);
        assert!((figures["p50_us"] - 1.0).abs() < 0.01);
    }
}
