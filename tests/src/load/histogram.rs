//! Percentiles of many durations in little memory.

use std::time::Duration;

/// Steps between consecutive powers of two: values are exact to 1/64.
const STEPS: u64 = 64;

/// Counts durations in buckets that grow with them, from 1 ns on.
#[derive(Debug, Default, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub fn record(&mut self, duration: Duration) {
        let bucket = bucket(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
    }

    /// Returns the duration that `percent` percent do not exceed, in milliseconds; 0 when nothing was counted.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = ((percent / 100.0 * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += count;
            seen >= rank
        };
        self.buckets.iter().position(reaches).map_or(0.0, |bucket| middle(bucket as u64) / 1e6)
    }
}

fn bucket(value: u64) -> usize {
    let shift = (64 - value.leading_zeros()).saturating_sub(7);
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// Returns the middle of a bucket, in nanoseconds.
fn middle(bucket: u64) -> f64 {
    // The first two rows are exact; each further row covers the upper half of the next power of two.
    let shift = (bucket / STEPS).saturating_sub(1);
    let low = (bucket - shift * STEPS) << shift;
    low as f64 + ((1u64 << shift) - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_a_64th() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        for (percent, expected) in [(0.0, 1.0), (50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let found = histogram.percentile(percent);
            assert!((found - expected).abs() <= expected / 64.0, "p{percent}: {found}");
        }
        let mut other = Histogram::default();
        (0..9000).for_each(|_| other.record(Duration::from_secs(5)));
        histogram.merge(&other);
        assert!((histogram.percentile(11.0) / 5000.0 - 1.0).abs() < 1.0 / 64.0);
    }

    #[test]
    fn buckets_are_contiguous_and_correct() {
        let values = [0, 1, 63, 64, 127, 128, 129, 255, 256, 1 << 20, (1 << 20) + 12345, u64::MAX];
        for pair in values.windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        assert_eq!((bucket(127) + 1, bucket(128)), (bucket(128), bucket(129)));
        for value in values {
            let difference = (middle(bucket(value) as u64) - value as f64).abs();
            assert!(difference <= value as f64 / 64.0, "{value}: {difference}");
        }
        assert_eq!(Histogram::default().percentile(50.0), 0.0);
    }
}
