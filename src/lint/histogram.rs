//! Counts of values in bins that are chosen before a value is seen.
use serde::Serialize;

/// A histogram; a value belongs to the last bin whose lower edge it reaches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// What is counted, with its unit.
    pub name: &'static str,
    /// Lower edges, rising; values below the first are in the first bin.
    pub edges: Vec<f64>,
    /// One per edge.
    pub counts: Vec<u64>,
    /// Smallest value seen.
    pub least: Option<f64>,
    /// Largest value seen.
    pub most: Option<f64>,
}

impl Histogram {
    /// With these lower edges.
    pub fn new(name: &'static str, edges: impl IntoIterator<Item = f64>) -> Self {
        let edges: Vec<f64> = edges.into_iter().collect();
        Self { name, counts: vec![0; edges.len()], edges, least: None, most: None }
    }

    /// Two bins per doubling, from `first` on.
    pub fn doubling(name: &'static str, first: f64, doublings: u32) -> Self {
        let steps = 0..=2 * doublings;
        Self::new(name, steps.map(|half| first * libm::exp2(f64::from(half) / 2.0)))
    }

    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        let bin = self.edges.partition_point(|&edge| edge <= value).saturating_sub(1);
        if let Some(count) = self.counts.get_mut(bin) {
            *count += 1;
        }
        self.least = Some(self.least.map_or(value, |least| least.min(value)));
        self.most = Some(self.most.map_or(value, |most| most.max(value)));
    }

    /// Values seen.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value that `share` of the values do not exceed, as if the values of a bin lay evenly between its edges and the
    /// least and most value; `None` without values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let (least, most) = (self.least?, self.most?);
        let wanted = (share * self.total() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bin = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        let (first, last) = (bin == 0, bin + 1 == self.edges.len());
        let from = if first { least } else { self.edges[bin].max(least) };
        let to = if last { most } else { self.edges[bin + 1].min(most) };
        let inside = self.counts[bin] - (seen - wanted);
        let position = (inside as f64 - 0.5) / self.counts[bin] as f64;
        Some((from + (to - from) * position).clamp(least, most))
    }

    /// First and one past the last bin that hold anything.
    pub fn used(&self) -> std::ops::Range<usize> {
        let first = self.counts.iter().position(|&count| count > 0).unwrap_or(0);
        let last = self.counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        first..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bin_whose_edge_they_reach() {
        let mut histogram = Histogram::new("x", [1.0, 2.0, 4.0]);
        for value in [0.5, 1.0, 1.9, 2.0, 100.0] {
            histogram.add(value);
        }
        assert_eq!(histogram.counts, [3, 1, 1]);
        assert_eq!((histogram.least, histogram.most, histogram.total()), (Some(0.5), Some(100.0), 5));
        assert_eq!((histogram.quantile(0.8), histogram.quantile(1.0)), (Some(3.0), Some(52.0)));
        assert_eq!(Histogram::new("y", [1.0]).quantile(0.5), None);
        assert_eq!(Histogram::doubling("z", 1.0, 2).edges.len(), 5);
    }

    #[test]
    fn quantiles_lie_between_the_least_and_the_most_value() {
        let mut histogram = Histogram::doubling("width", 1.0, 14);
        for value in [107.0, 110.0, 120.0, 125.0] {
            histogram.add(value);
        }
        let quantiles = [0.0, 0.1, 0.5, 0.9, 1.0].map(|share| histogram.quantile(share).unwrap());
        assert!(quantiles.is_sorted() && quantiles[0] >= 107.0 && quantiles[4] <= 125.0, "{quantiles:?}");
        let mut same = Histogram::doubling("width", 1.0, 14);
        (0..10).for_each(|_| same.add(224.0));
        assert_eq!(same.quantile(0.1), Some(224.0));
    }
}
