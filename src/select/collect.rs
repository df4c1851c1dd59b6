//! Sample ids in any order into compressed bitmaps.
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::UInt64Array;
use roaring::RoaringBitmap;

use super::selection::SelectedGroup;
use super::shards::{MAX_ROWS, ROW_BITS, Shard, ShardSet};
use crate::error::{Error, Result, Stage};

#[derive(Default, Clone)]
struct Rows {
    once: RoaringBitmap,
    repeats: BTreeMap<u32, u32>,
}

/// Gathers what a query returns; memory is that of the bitmaps, whatever the order.
pub(crate) struct Collector<'a> {
    shards: &'a [Arc<Shard>],
    /// First row of every group per shard, and the rows.
    starts: Vec<Vec<u64>>,
    /// Per shard that was met, one entry per row group.
    rows: Vec<Vec<Rows>>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(set: &'a ShardSet) -> Self {
        let starts = set.shards.iter().map(|shard| shard.group_starts()).collect();
        Self { shards: &set.shards, starts, rows: vec![Vec::new(); set.shards.len()] }
    }

    /// Adds ids, each as often as it occurs.
    ///
    /// # Errors
    /// An id that is NULL or names no row.
    pub(crate) fn add(&mut self, ids: &UInt64Array) -> Result<()> {
        use datafusion::arrow::array::Array;
        if ids.null_count() > 0 {
            let reason = "returns sample_id NULL (from an outer join?); add `WHERE sample_id IS NOT NULL`";
            return Err(Error::at(Stage::Select, "the query", reason));
        }
        // Ids mostly come in runs, which bitmaps take in one step.
        for run in ids.values().chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            self.add_run(run[0], run.len() as u64)?;
        }
        Ok(())
    }

    fn add_run(&mut self, first_id: u64, length: u64) -> Result<()> {
        let ordinal = (first_id >> ROW_BITS) as usize;
        let (start, end) = (first_id & (MAX_ROWS - 1), (first_id & (MAX_ROWS - 1)) + length);
        let rows = self.starts.get(ordinal).and_then(|starts| starts.last()).copied().unwrap_or(0);
        if end > rows {
            let row = start.max(rows);
            let reason = format!(
                "returns {}, which is no sample_id: {}; return the sample_id of `shards` unchanged",
                first_id + (row - start),
                match self.shards.get(ordinal) {
                    Some(shard) => format!("{} has {rows} rows, and it names row {row}", shard.name),
                    None => format!("there are {} shards, and it names shard {ordinal}", self.shards.len()),
                }
            );
            return Err(Error::at(Stage::Select, "the query", reason));
        }
        let starts = &self.starts[ordinal];
        let groups = &mut self.rows[ordinal];
        groups.resize(starts.len() - 1, Rows::default());
        // The last group that starts at or before the row; empty groups start where the next one does.
        let mut group = starts.partition_point(|&first| first <= start) - 1;
        let mut row = start;
        while row < end {
            let stop = end.min(starts[group + 1]);
            groups[group].add((row - starts[group]) as u32, (stop - starts[group]) as u32)?;
            row = stop;
            group += 1;
        }
        Ok(())
    }

    /// Row groups that hold items, by shard and row group.
    pub(crate) fn finish(self) -> Vec<SelectedGroup> {
        let mut selected = Vec::new();
        for (ordinal, (groups, starts)) in self.rows.into_iter().zip(self.starts).enumerate() {
            for (number, (mut rows, first_row)) in groups.into_iter().zip(starts).enumerate() {
                if rows.once.is_empty() {
                    continue;
                }
                rows.once.optimize();
                selected.push(SelectedGroup {
                    shard: ordinal as u32,
                    row_group: number as u32,
                    first_row,
                    rows: rows.once,
                    repeats: rows.repeats,
                });
            }
        }
        selected
    }
}

impl Rows {
    fn add(&mut self, start: u32, end: u32) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        if end - start > 1 && self.once.range_cardinality(start..end) == 0 {
            self.once.insert_range(start..end);
            return Ok(());
        }
        for row in start..end {
            if !self.once.insert(row) {
                let times = self.repeats.entry(row).or_insert(1);
                let more = times.checked_add(1).ok_or_else(|| {
                    Error::at(Stage::Select, "the query", "returns one row more than 2^32 times; use DISTINCT")
                })?;
                *times = more;
            }
        }
        Ok(())
    }
}
