//! Counts of values in buckets whose width grows with the value: 32 to each power of two, so that a
//! quantile is known to 3 %. Recording is two atomic additions.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Each power of two is divided by this power of two.
const BITS: u32 = 5;
/// Enough for all values below 2^32; larger ones count as the largest. In microseconds, 71 minutes.
const ROWS: usize = (32 - BITS as usize) + 1;

/// Values since the start, recorded by many at once.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// A row for each power of two, made when first needed: most values lie in few.
    rows: [OnceLock<Box<Row>>; ROWS],
    sum: AtomicU64,
}

type Row = [AtomicU64; 1 << BITS];

/// What one or several histograms hold.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub counts: Counts,
    /// All values together.
    pub sum: u64,
}

/// How many values lay in each bucket; buckets without any are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Counts(BTreeMap<u16, u64>);

impl Histogram {
    pub fn record(&self, value: u64) {
        let index = index(value);
        let row = self.rows[index >> BITS].get_or_init(Box::default);
        row[index & (row.len() - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }
}

impl Recorded {
    pub fn add(&mut self, histogram: &Histogram) {
        let rows = histogram.rows.iter().zip((0..).step_by(1 << BITS));
        for (row, first) in rows.filter_map(|(row, first)| Some((row.get()?, first))) {
            for (bucket, index) in row.iter().zip(first..) {
                match bucket.load(Relaxed) {
                    0 => {}
                    count => *self.counts.0.entry(index).or_default() += count,
                }
            }
        }
        self.sum += histogram.sum.load(Relaxed);
    }
}

impl Counts {
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, other: &Counts) {
        for (index, count) in &other.0 {
            *self.0.entry(*index).or_default() += count;
        }
    }

    /// What came on top of an earlier state of the same histogram.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let grown = self.0.iter().map(|(index, count)| {
            let before = earlier.0.get(index).copied().unwrap_or_default();
            (*index, count.saturating_sub(before))
        });
        Counts(grown.filter(|(_, count)| *count > 0).collect())
    }

    /// The value that the share `q` of all values does not exceed, evenly spread within its bucket.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q * self.total() as f64;
        let mut below = 0.0;
        let mut found = None;
        for (&index, &count) in &self.0 {
            let (from, to) = (lower(index.into()), lower(usize::from(index) + 1));
            let share = ((rank - below) / count as f64).clamp(0.0, 1.0);
            found = Some(from + (to - from) * share);
            below += count as f64;
            if below >= rank {
                break;
            }
        }
        found
    }

    /// How many values are less than `bound`, which is exact where it is a power of two.
    pub fn below(&self, bound: u64) -> u64 {
        let counted = self
            .0
            .iter()
            .take_while(|(at, _)| usize::from(**at) < index(bound));
        counted.map(|(_, count)| count).sum()
    }
}

fn index(value: u64) -> usize {
    let value = value.min(u64::from(u32::MAX));
    // Below it every value has a bucket of its own.
    if value < 1 << BITS {
        return value as usize;
    }
    let exponent = value.ilog2() - BITS;
    let within = (value >> exponent) as usize & ((1 << BITS) - 1);
    ((exponent as usize + 1) << BITS) | within
}

/// The least value of a bucket.
fn lower(index: usize) -> f64 {
    let (exponent, within) = (index >> BITS, index & ((1 << BITS) - 1));
    match exponent {
        0 => within as f64,
        _ => (((1 << BITS) + within as u64) << (exponent - 1)) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for at in 0..ROWS << BITS {
            assert_eq!(index(lower(at) as u64), at);
            assert_eq!(index(lower(at + 1) as u64 - 1), at, "the last of {at}");
        }
        assert_eq!(index(u64::MAX), (ROWS << BITS) - 1);
    }

    #[test]
    fn quantiles_are_true_to_three_percent() {
        let histograms: [Histogram; 2] = Default::default();
        let recorded = || {
            let mut recorded = Recorded::default();
            histograms.iter().for_each(|one| recorded.add(one));
            recorded
        };
        assert_eq!(recorded().counts.quantile(0.5), None);
        for value in 1..=10_000 {
            histograms[value as usize % 2].record(value);
        }
        let Recorded { counts, sum } = recorded();
        assert_eq!((counts.total(), sum), (10_000, 50_005_000));
        for (q, expected) in [(0.5, 5000.0), (0.95, 9500.0), (0.99, 9900.0)] {
            let found = counts.quantile(q).expect("values");
            assert!((found / expected - 1.0).abs() < 0.03, "{q}: {found}");
        }
        assert_eq!(counts.below(4096), 4095);
        histograms[0].record(7);
        assert_eq!(recorded().counts.since(&counts).total(), 1);
    }
}
