//! What a selection keeps, what it cost, and what it saves.
use std::fmt;
use std::ops::Range;

use datafusion::parquet::file::page_index::offset_index::PageLocation;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use serde::Serialize;

use super::counting_store::Wire;
use super::selection::{SelectedGroup, Selection};
use super::shards::{Shard, ShardSet, hex};
use super::warning::Warning;

/// The result of `diptych select`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelectReport {
    /// Kept rows with their repeats.
    pub items: u64,
    /// Rows of the set.
    pub of: u64,
    /// Digest of the selection, hexadecimal.
    pub digest: String,
    /// Shards of the set.
    pub shards: usize,
    /// Row groups of the set.
    pub row_groups: usize,
    /// Row groups that hold items.
    pub row_groups_with_items: usize,
    /// Row groups that statistics excluded before they were read, over all scans of the query.
    pub row_groups_pruned: usize,
    /// How often the query scans the set: 2 for a self-join.
    pub scans: usize,
    /// Requests during selection.
    pub wire_requests: u64,
    /// Bytes read during selection. Footers are read when the set is opened and are not among them.
    pub wire_bytes: u64,
    /// Bytes of blobs among them: 0 unless the query asks for blobs.
    pub blob_bytes_read: u64,
    /// Bytes of the blob pages that hold items: what training reads per epoch.
    pub blob_bytes_selected: u64,
    /// Bytes of the blob pages that hold none: what is never read.
    pub blob_bytes_never_read: u64,
    /// Wall time of planning, running and collecting.
    pub seconds: f64,
    /// About the shards and the query.
    pub warnings: Vec<Warning>,
}

/// Gathers the report once the plan has run.
pub(crate) fn report(
    set: &ShardSet,
    selection: &Selection,
    plan: &dyn ExecutionPlan,
    wire: Wire,
    seconds: f64,
    mut warnings: Vec<Warning>,
) -> SelectReport {
    warnings.extend(repeated(set, selection));
    let mut pruning = Pruning::default();
    pruning.visit(plan);
    let blob_bytes_selected = selection.groups.iter().map(|group| blob_bytes(set, group)).sum();
    SelectReport {
        items: selection.items(),
        of: set.rows(),
        digest: hex(&selection.digest()),
        shards: set.shards.len(),
        row_groups: set.row_groups(),
        row_groups_with_items: selection.groups.len(),
        row_groups_pruned: pruning.row_groups,
        scans: pruning.scans,
        wire_requests: wire.requests,
        wire_bytes: wire.bytes,
        blob_bytes_read: wire.blob_bytes,
        blob_bytes_selected,
        blob_bytes_never_read: set.blob_bytes().saturating_sub(blob_bytes_selected),
        seconds,
        warnings,
    }
}

/// Rows that a join multiplied, and one of them by name.
fn repeated(set: &ShardSet, selection: &Selection) -> Option<Warning> {
    let rows: usize = selection.groups.iter().map(|group| group.repeats.len()).sum();
    let group = selection.groups.iter().find(|group| !group.repeats.is_empty())?;
    let (row, times) = group.repeats.first_key_value()?;
    let shard = set.shards.get(group.shard as usize).map_or("", |shard| shard.name.as_str());
    let text = format!(
        "{rows} rows are kept more than once (such as {shard} row {}, {times} times): copies that meet in a batch are \
         negatives of themselves; write SELECT DISTINCT sample_id, unless repeats are wanted",
        group.first_row + u64::from(*row)
    );
    Some(Warning { place: "the query".into(), text })
}

#[derive(Default)]
struct Pruning {
    scans: usize,
    row_groups: usize,
}

impl Pruning {
    fn visit(&mut self, plan: &dyn ExecutionPlan) {
        let metrics = plan.metrics().filter(|_| plan.name() == "DataSourceExec");
        let mut is_scan = false;
        for metric in metrics.iter().flat_map(|metrics| metrics.iter()) {
            self.row_groups += match metric.value() {
                MetricValue::PruningMetrics { name, pruning_metrics } if name == "row_groups_pruned_statistics" => {
                    is_scan = true;
                    pruning_metrics.pruned()
                }
                MetricValue::PruningMetrics { name, pruning_metrics } if name == "row_groups_pruned_bloom_filter" => {
                    pruning_metrics.pruned()
                }
                MetricValue::Count { name, count } if name == "row_groups_pruned_dynamic_filter" => count.value(),
                _ => 0,
            };
        }
        self.scans += usize::from(is_scan);
        for child in plan.children() {
            self.visit(child.as_ref());
        }
    }
}

/// Bytes of the blob pages of a row group that hold its selected rows; all of them where pages are not known.
pub fn blob_bytes(set: &ShardSet, group: &SelectedGroup) -> u64 {
    let Some(shard) = set.shards.get(group.shard as usize) else { return 0 };
    let leaves = set.blob_columns.iter().flat_map(|column| shard.leaves(column));
    leaves.map(|leaf| bytes_of_leaf(shard, group, leaf)).sum::<u64>() + referenced_bytes(shard, group)
}

/// Blobs in other files, by their mean.
fn referenced_bytes(shard: &Shard, group: &SelectedGroup) -> u64 {
    let rows = shard.metadata.row_group(group.row_group as usize).num_rows().max(1) as u128;
    let bytes = u128::from(shard.referenced_bytes(group.row_group as usize));
    (bytes * u128::from(group.rows.len()) / rows) as u64
}

fn bytes_of_leaf(shard: &Shard, group: &SelectedGroup, leaf: usize) -> u64 {
    let row_group = shard.metadata.row_group(group.row_group as usize);
    let whole = row_group.column(leaf).byte_range().1;
    let pages = shard.metadata.offset_index().and_then(|index| index.get(group.row_group as usize)?.get(leaf));
    let Some(pages) = pages.map(|pages| pages.page_locations()).filter(|pages| !pages.is_empty()) else {
        return whole;
    };
    let rows = u32::try_from(row_group.num_rows()).unwrap_or(u32::MAX);
    let first = |page: &PageLocation| u32::try_from(page.first_row_index).unwrap_or(rows);
    let bytes = |page: &PageLocation| u64::try_from(page.compressed_page_size).unwrap_or(0);
    let ends = pages.iter().skip(1).map(first).chain([rows]);
    let has_items = |range: Range<u32>| !range.is_empty() && group.rows.range_cardinality(range) > 0;
    let kept = pages.iter().zip(ends).filter(|(page, end)| has_items(first(page)..*end));
    kept.map(|(page, _)| bytes(page)).sum::<u64>().min(whole)
}

impl fmt::Display for SelectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = if self.of == 0 { 0.0 } else { 100.0 * self.items as f64 / self.of as f64 };
        writeln!(f, "items            {} of {} rows ({share:.2} %)", self.items, self.of)?;
        writeln!(f, "digest           {}", self.digest)?;
        writeln!(f, "shards           {}", self.shards)?;
        let Self { row_groups, row_groups_with_items, row_groups_pruned, scans, .. } = self;
        let scans = if *scans > 1 { format!(" over {scans} scans") } else { String::new() };
        writeln!(
            f,
            "row groups       {row_groups}: {row_groups_with_items} hold items, {row_groups_pruned} pruned{scans}"
        )?;
        writeln!(f, "read to select   {} in {} requests", Bytes(self.wire_bytes), self.wire_requests)?;
        writeln!(f, "blobs among it   {}", Bytes(self.blob_bytes_read))?;
        writeln!(f, "blobs selected   {}", Bytes(self.blob_bytes_selected))?;
        writeln!(f, "never read       {}", Bytes(self.blob_bytes_never_read))?;
        write!(f, "took             {:.3} s", self.seconds)?;
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

/// Bytes for people.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..10_000 => write!(f, "{bytes} bytes"),
            bytes @ 10_000..10_000_000 => write!(f, "{:.1} KB", bytes as f64 / 1e3),
            bytes @ 10_000_000..10_000_000_000 => write!(f, "{:.1} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.1} GB", bytes as f64 / 1e9),
        }
    }
}
