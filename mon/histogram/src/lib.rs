//! A histogram of `u64` values over buckets that double in width: what openraft uses of the crate `base2histogram`, under
//! that crate's name, so that `[patch.crates-io]` can put it in its place.
//!
//! Why: the original makes tables for each of its sixteen widths when the first histogram is made, 22 MiB in each process
//! that runs consensus, of which openraft reads 2 KiB. Here the bounds of buckets are computed. It does not do more than
//! openraft asks of it: no slots, no widths, no charts (openraft draws those in a build we do not make).
//!
//! Invariant: bucket `i` holds the values from `low(i)` up to, not including, `low(i + 1)`; `total` is the sum of `counts`.

#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// Buckets per doubling, as a power of two.
const FINE: u32 = 2;
/// Values below this have a bucket of their own.
const SINGLE: u64 = 1 << FINE;
/// As many as all of `u64` needs: single ones and four for each of 62 doublings.
const BUCKETS: usize = SINGLE as usize * (1 + (u64::BITS - FINE) as usize);

/// See the module. The parameter is what the original tells slots by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64]>,
    total: u64,
    slots: PhantomData<T>,
}

fn bucket(value: u64) -> usize {
    if value < SINGLE {
        return value as usize;
    }
    let shift = u64::BITS - 1 - value.leading_zeros() - FINE;
    let within = (value >> shift) - SINGLE;
    SINGLE as usize * (1 + shift as usize) + within as usize
}

/// The least value of a bucket.
fn low(bucket: usize) -> u64 {
    let (group, within) = (bucket as u64 / SINGLE, bucket as u64 % SINGLE);
    match group.checked_sub(1) {
        None => within,
        Some(shift) => (SINGLE + within) << shift,
    }
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Histogram<T> {
        Histogram { counts: vec![0; BUCKETS].into(), total: 0, slots: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `n` times.
    pub fn record_n(&mut self, value: u64, n: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count = count.saturating_add(n);
            self.total = self.total.saturating_add(n);
        }
    }

    /// How many values it has counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The bucket below which `share` of the values lie, by its least value; 0 when there are none.
    #[must_use]
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= wanted {
                return low(bucket);
            }
        }
        0
    }

    /// The percentiles openraft shows.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram::new()
    }
}

/// What a histogram comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Values counted.
    pub samples: u64,
    /// A thousandth of them are at most this.
    pub p0_1: u64,
    /// A hundredth.
    pub p1: u64,
    /// A twentieth.
    pub p5: u64,
    /// A tenth.
    pub p10: u64,
    /// Half.
    pub p50: u64,
    /// Nine tenths.
    pub p90: u64,
    /// All but a hundredth.
    pub p99: u64,
    /// All but a thousandth.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values, median {}, 99% up to {}", self.samples, self.p50, self.p99)
    }
}

/// Several histograms by name. Shows their percentiles, a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    rows: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> AsciiChart {
        self.rows.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.rows {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_cover_every_value() {
        for i in 1..BUCKETS {
            assert!(low(i - 1) < low(i), "{i}");
            assert_eq!((bucket(low(i)), bucket(low(i) - 1)), (i, i - 1));
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_within_a_quarter() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in 1..=1000 {
            histogram.record(value);
        }
        for (share, exact) in [(0.5, 500), (0.9, 900), (0.99, 990)] {
            let found = histogram.percentile(share);
            assert!(found <= exact && found * 5 > exact * 4, "{share}: {found}");
        }
        assert_eq!((histogram.total(), histogram.percentile_stats().samples), (1000, 1000));
    }
}
