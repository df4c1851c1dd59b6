//! What a query keeps: one compressed bitmap per row group.
use std::collections::BTreeMap;

use roaring::RoaringBitmap;

/// The kept rows of one row group.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedGroup {
    /// Ordinal of the shard.
    pub shard: u32,
    /// Row group within the shard.
    pub row_group: u32,
    /// First row of the group within the shard.
    pub first_row: u64,
    /// Kept rows, counted from the group's first row.
    pub rows: RoaringBitmap,
    /// Rows kept more than once: row in group → how often (≥ 2).
    pub repeats: BTreeMap<u32, u32>,
}

impl SelectedGroup {
    /// Items of the group: kept rows with their repeats.
    pub fn items(&self) -> u64 {
        self.rows.len() + self.repeats.values().map(|&n| u64::from(n) - 1).sum::<u64>()
    }
}
