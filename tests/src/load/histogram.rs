//! Percentiles of many durations in little memory.

use std::time::Duration;

/// Counts durations from 1 ns on, exact to 1 %.
#[derive(Debug, Clone)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        // It grows with the values; only more than five digits are an error.
        Self(hdrhistogram::Histogram::new(SIGNIFICANT_DIGITS).expect("few digits"))
    }
}

const SIGNIFICANT_DIGITS: u8 = 2;

impl Histogram {
    pub fn record(&mut self, duration: Duration) {
        // It grows as far as necessary, up to half of a u64; no duration here is that long.
        let _ = self.0.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Self) {
        // It grows as far as necessary.
        self.0.add(&other.0).expect("space for every value");
    }

    /// Returns the duration that `percent` percent do not exceed, in milliseconds; 0 when nothing was counted.
    pub fn percentile(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_one_percent() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        for (percent, expected) in [(0.0, 1.0), (50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let found = histogram.percentile(percent);
            assert!((found - expected).abs() <= expected / 100.0, "p{percent}: {found}");
        }
        let mut other = Histogram::default();
        (0..9000).for_each(|_| other.record(Duration::from_secs(5)));
        histogram.merge(&other);
        assert!((histogram.percentile(11.0) / 5000.0 - 1.0).abs() < 0.01);
        assert_eq!(Histogram::default().percentile(50.0), 0.0);
    }
}
