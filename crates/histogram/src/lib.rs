//! Histograms for the statistics that openraft keeps of itself, under the name of the crate that it asks for.
//!
//! The published `base2histogram` fills tables for sixteen scales, of which openraft uses one, when the first histogram is
//! made: 25 MB in each member, a third of all that one takes. This one has the part of its interface that openraft
//! uses, and one scale: a bucket for each power of two. Nothing of Tally reads these statistics; whoever does in a debugger sees
//! values that are up to twice too large.
//!
//! `docs/adr/0021-a-small-histogram-for-openraft.md` says when this crate is to go.

use std::fmt;
use std::marker::PhantomData;

/// Zero, and one bucket for each power of two.
const BUCKETS: usize = 1 + u64::BITS as usize;

/// How many values there were of each magnitude. `T` is what the published crate attaches to a slot; there are no slots here.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slot: PhantomData<T>,
}

/// The values below which these shares of all lie, each at most twice as large as it really is. All are 0 where nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values were recorded.
    pub samples: u64,
    /// 0.1 %.
    pub p0_1: u64,
    /// 1 %.
    pub p1: u64,
    /// 5 %.
    pub p5: u64,
    /// 10 %.
    pub p10: u64,
    /// Half of them.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            ..
        } = self;
        write!(f, "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}")
    }
}

fn bucket(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

/// The largest value that a bucket counts.
fn largest(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        _ => u64::MAX >> (BUCKETS - 1 - bucket),
    }
}

impl<T> Histogram<T> {
    /// One with nothing recorded.
    pub fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            slot: PhantomData,
        }
    }

    /// Records a value once.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let counted = &mut self.counts[bucket(value)];
        *counted = counted.saturating_add(count);
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// Below which values these shares lie.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.at(1),
            p1: self.at(10),
            p5: self.at(50),
            p10: self.at(100),
            p50: self.at(500),
            p90: self.at(900),
            p99: self.at(990),
            p99_9: self.at(999),
        }
    }

    /// The largest value of the bucket in which the value at so many thousandths lies.
    fn at(&self, thousandths: u64) -> u64 {
        let total = u128::from(self.total());
        let rank = (total * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut counted = 0;
        let found = self.counts.iter().position(|&count| {
            counted += u128::from(count);
            counted >= rank
        });
        found.map_or(0, largest)
    }

    /// Each bucket that has any values: the largest that it may hold, and how many there are.
    fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counted = self.counts.iter().enumerate();
        let counted = counted.filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (largest(bucket), *count))
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets()).finish()
    }
}

/// Several histograms, to be written one below the other.
#[derive(Clone, Debug)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> AsciiChart<T> {
    /// Of no histogram yet.
    pub fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// Adds one, under a name.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// A line for each bucket that has any values.
    pub fn detailed(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| {
            for (name, histogram) in &self.series {
                writeln!(f, "{name}")?;
                for (largest, count) in histogram.buckets() {
                    writeln!(f, "  up to {largest}: {count}")?;
                }
            }
            Ok(())
        })
    }
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_twice_the_value_at_that_rank() {
        let mut histogram = Histogram::<()>::new();
        (0..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1001);
        let real = [(stats.p0_1, 1), (stats.p50, 500), (stats.p99_9, 999)];
        for (said, real) in real {
            assert!((real..2 * real).contains(&said), "{said} is said of {real}");
        }
    }

    #[test]
    fn every_value_has_a_bucket_and_nothing_recorded_is_zero() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        histogram.record(0);
        assert_eq!(histogram.percentile_stats().p99_9, 0);
        histogram.record_n(u64::MAX, u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1), (u64::MAX, u64::MAX));
    }
}
