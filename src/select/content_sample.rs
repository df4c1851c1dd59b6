//! A bounded sample of a file's values for its fingerprint, where what describes the file says nothing of them.
//!
//! Lengths alone do not tell a file from the same rewritten with other labels of the same type. A sample is no hash of the
//! whole: what a long buffer holds in its middle, and blobs between their ends, are not in it.
use std::ops::Range;

use datafusion::object_store::ObjectStore;
use datafusion::object_store::path::Path;

use super::counting_store::CountingStore;
use crate::error::{Context, Error, Result, Stage};

/// A sample is at most this part of its file, within the two bounds below.
const SHARE_OF_FILE: u64 = 64;
const LEAST_BYTES: u64 = 256 << 10;
const MOST_BYTES: u64 = 4 << 20;
/// Read at either end of a buffer that holds blobs.
const EDGE_BYTES: u64 = 64;
/// Gaps that are read along to save a request.
const MERGE_GAP_BYTES: u64 = 4_096;
/// Ranges that are asked for in one call.
const RANGES_PER_CALL: usize = 256;
/// Row groups of a file that are sampled: evenly spread, where it has more.
const MOST_GROUPS: usize = 1_024;

/// Where values lie in a file.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// Of narrow columns.
    pub(super) narrow: Vec<Range<u64>>,
    /// Of blobs.
    pub(super) blobs: Vec<Range<u64>>,
}

/// Numbers of the row groups of which a sample is taken.
pub(super) fn sampled_groups(groups: usize) -> impl Iterator<Item = usize> {
    (0..groups).step_by(groups.div_ceil(MOST_GROUPS).max(1))
}

impl Values {
    /// Adds a sample of them to `hash`.
    ///
    /// # Errors
    /// The file, which messages call `name`, cannot be read.
    pub(super) async fn hash_sample(
        &self,
        store: &CountingStore,
        location: &Path,
        name: &str,
        file_bytes: u64,
        hash: &mut blake3::Hasher,
    ) -> Result<()> {
        let store = store.with_merge_gap_bytes(MERGE_GAP_BYTES);
        for ranges in self.sample(file_bytes).chunks(RANGES_PER_CALL) {
            let read = store.get_ranges(location, ranges).await.context(Stage::Select, name, "cannot be read")?;
            for (bytes, range) in read.iter().zip(ranges) {
                if bytes.len() as u64 != range.end - range.start {
                    return Err(Error::at(Stage::Select, name, "was cut short while it was read; write it again"));
                }
                hash.update(bytes);
            }
        }
        Ok(())
    }

    /// Everything where it is little, else the ends of what is long.
    fn sample(&self, file_bytes: u64) -> Vec<Range<u64>> {
        let budget = (file_bytes / SHARE_OF_FILE).clamp(LEAST_BYTES, MOST_BYTES);
        let edge = longest_within(&self.narrow, budget).div_ceil(2);
        let narrow = self.narrow.iter().flat_map(|range| ends(range, edge));
        narrow.chain(self.blobs.iter().flat_map(|range| ends(range, EDGE_BYTES))).collect()
    }
}

/// The first and the last `edge` bytes; all of a range that is no longer than both.
fn ends(range: &Range<u64>, edge: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let middle = if range.end - range.start <= edge.saturating_mul(2) { range.end } else { range.start + edge };
    let last = if middle == range.end { range.end..range.end } else { range.end - edge..range.end };
    [range.start..middle, last].into_iter().filter(|part| !part.is_empty())
}

/// The length to which ranges must be cut that all of them fit into `budget`.
fn longest_within(ranges: &[Range<u64>], budget: u64) -> u64 {
    let mut lengths: Vec<u64> = ranges.iter().map(|range| range.end - range.start).collect();
    lengths.sort_unstable();
    let mut left = budget;
    for (at, &length) in lengths.iter().enumerate() {
        let share = left / (lengths.len() - at) as u64;
        if length > share {
            return share;
        }
        left -= length;
    }
    budget
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ranges_are_taken_whole_and_long_ones_share_what_is_left() {
        let values = Values { narrow: vec![0..10, 10..10, 100..1_100], blobs: vec![5_000..6_000, 7_000..7_100] };
        let blobs = [5_000..5_064, 5_936..6_000, 7_000..7_100];
        let sample = values.sample(1_000_000);
        assert_eq!(sample, [&[0..10, 100..1_100][..], &blobs].concat());

        let long = [0..10, 1_000..(1 << 30), (1 << 31)..(1 << 32)];
        let edge = longest_within(&long, LEAST_BYTES) / 2;
        assert_eq!(edge, (LEAST_BYTES - 10) / 4);
        let values = Values { narrow: long.to_vec(), blobs: vec![] };
        let bytes: u64 = values.sample(1_000_000).iter().map(|range| range.end - range.start).sum();
        assert!(bytes <= LEAST_BYTES + 4 && bytes > LEAST_BYTES - 4, "{bytes}");
        assert_eq!(values.sample(1_000_000)[1], 1_000..1_000 + edge + 1);
    }

    #[test]
    fn groups_are_sampled_evenly_where_there_are_many() {
        assert!(sampled_groups(3).eq(0..3));
        assert_eq!(sampled_groups(0).count(), 0);
        let many: Vec<usize> = sampled_groups(10_000).collect();
        assert!(many.len() <= MOST_GROUPS && many[1] == 10 && many.len() == 1_000, "{many:?}");
    }
}
