//! Numbers about all rows, gathered in one pass.
use std::collections::BTreeMap;

use serde::Serialize;

use super::{histogram::Histogram, rows::Row};

/// Labels, splits and formats that are counted one by one; those beyond are together under "…".
const VALUES_COUNTED: usize = 10_000;
/// Where the values beyond are counted.
const OTHERS: &str = "…";

/// Rows, values, sizes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// Rows read.
    pub rows: u64,
    /// Encoded bytes of all images, or bytes of all series, as far as they are known.
    pub image_bytes: u64,
    /// Rows without a value, by column; columns that no shard has are not here.
    pub nulls: BTreeMap<&'static str, u64>,
    /// Rows by format; of series by channels and rate.
    pub formats: BTreeMap<String, u64>,
    /// Rows by split.
    pub splits: BTreeMap<String, u64>,
    /// Rows by label.
    pub labels: BTreeMap<String, u64>,
    /// Sizes.
    pub histograms: Vec<Histogram>,
}

/// Positions in [`Statistics::histograms`].
const WIDTH: usize = 0;
const HEIGHT: usize = 1;
const ASPECT: usize = 2;
const BYTES: usize = 3;
const WORDS: usize = 4;

impl Default for Statistics {
    fn default() -> Self {
        let words = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0];
        Self {
            rows: 0,
            image_bytes: 0,
            nulls: BTreeMap::new(),
            formats: BTreeMap::new(),
            splits: BTreeMap::new(),
            labels: BTreeMap::new(),
            histograms: vec![
                Histogram::doubling("width in pixels", 8.0, 11),
                Histogram::doubling("height in pixels", 8.0, 11),
                Histogram::doubling("width over height", 1.0 / 16.0, 8),
                Histogram::doubling("encoded bytes", 64.0, 20),
                Histogram::new("words in a caption", words),
            ],
        }
    }
}

impl Statistics {
    /// Counts a row.
    pub(super) fn add(&mut self, row: &Row<'_>) {
        self.rows += 1;
        for (column, is_null) in row.nulls() {
            *self.nulls.entry(column).or_default() += u64::from(is_null);
        }
        for (counts, value) in
            [(&mut self.formats, row.format), (&mut self.splits, row.split), (&mut self.labels, row.label)]
        {
            if let Some(value) = value {
                count(counts, value);
            }
        }
        if let (Some(width), Some(height)) = (row.width, row.height) {
            self.histograms[WIDTH].add(width as f64);
            self.histograms[HEIGHT].add(height as f64);
            if height > 0 {
                self.histograms[ASPECT].add(width as f64 / height as f64);
            }
        }
        if let Some(bytes) = row.image_bytes.or(row.image.map(|image| image.len() as u64)) {
            self.image_bytes += bytes;
            self.histograms[BYTES].add(bytes as f64);
        }
        if let Some(caption) = row.caption {
            self.histograms[WORDS].add(caption.split_whitespace().count() as f64);
        }
    }
}

pub(super) fn count(counts: &mut BTreeMap<String, u64>, value: &str) {
    if let Some(count) = counts.get_mut(value) {
        *count += 1;
        return;
    }
    let value = if counts.len() < VALUES_COUNTED { value } else { OTHERS };
    *counts.entry(value.to_owned()).or_default() += 1;
}

/// Values and how often they occur, the commonest first, then by name.
pub fn commonest(counts: &BTreeMap<String, u64>) -> Vec<(&String, &u64)> {
    let mut sorted: Vec<(&String, &u64)> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_the_limit_are_counted_together() {
        let mut counts = BTreeMap::new();
        for number in 0..VALUES_COUNTED + 5 {
            count(&mut counts, &format!("{number:06}"));
        }
        assert_eq!(counts.len(), VALUES_COUNTED + 1);
        assert_eq!(counts[OTHERS], 5);
    }
}
