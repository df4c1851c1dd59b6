//! What a selection keeps, what it cost, and what it saves.
use std::fmt;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::metrics::MetricValue;
use serde::Serialize;

use super::counting_store::Wire;
use super::extra::ExtraColumns;
use super::format::BlobBytes;
use super::ipc::IPC_SCAN;
use super::selection::Selection;
use super::shards::{ShardSet, hex};
use super::tables::TableProvenance;
use super::warning::Warning;

/// What more than this reads for nothing comes with the reason: our own shards stay below.
const TOLD_AMPLIFICATION: f64 = 1.2;

/// The result of `diptych select`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelectReport {
    /// Kept rows with their repeats.
    pub items: u64,
    /// Rows of the set.
    pub of: u64,
    /// Digest of the selection, hexadecimal.
    pub digest: String,
    /// Columns that travel with the items, as `name type`.
    pub extra_columns: Vec<String>,
    /// Bytes that their values take in memory.
    pub extra_bytes: u64,
    /// Tables that the query read beside `shards`.
    pub tables: Vec<TableProvenance>,
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
    /// Bytes read per byte of the selected rows' blobs, whose sizes are taken from the mean of their page, or of their row
    /// group where no pages are known: 1 where every blob has a page of its own. At most so much where the pages of a shard are not known. `None` without
    /// items.
    pub expected_amplification: Option<f64>,
    /// Wall time of planning, running and collecting.
    pub seconds: f64,
    /// About the shards and the query.
    pub warnings: Vec<Warning>,
}

impl SelectReport {
    /// Of a selection that no query had to be run for.
    pub fn loaded(set: &ShardSet, selection: &Selection) -> Self {
        let nothing: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::clone(&set.columns)));
        report(set, selection, nothing.as_ref(), Wire::default(), 0.0, set.warnings.clone())
    }
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
    let mut blobs = BlobBytes::default();
    for group in &selection.groups {
        let Some(shard) = set.shards.get(group.shard as usize) else { continue };
        let of_group = shard.blob_bytes_of(group, &set.blob_columns);
        blobs = BlobBytes { wanted: blobs.wanted + of_group.wanted, read: blobs.read + of_group.read };
    }
    let blob_bytes_selected = blobs.read;
    SelectReport {
        items: selection.items(),
        of: set.rows(),
        digest: hex(&selection.digest()),
        extra_columns: selection.extra().map_or_else(Vec::new, extra_columns),
        extra_bytes: selection.extra().map_or(0, ExtraColumns::memory_bytes),
        tables: selection.provenance().tables.clone(),
        shards: set.shards.len(),
        row_groups: set.row_groups(),
        row_groups_with_items: selection.groups.len(),
        row_groups_pruned: pruning.row_groups,
        // A set of both formats has one scan of each for every mention of the table.
        scans: pruning.scans.max(pruning.ipc_scans),
        wire_requests: wire.requests,
        wire_bytes: wire.bytes,
        blob_bytes_read: wire.blob_bytes,
        blob_bytes_selected,
        blob_bytes_never_read: set.blob_bytes().saturating_sub(blob_bytes_selected),
        expected_amplification: (blobs.wanted > 0).then(|| blobs.read as f64 / blobs.wanted as f64),
        seconds,
        warnings,
    }
}

/// `name type` of every column.
pub(crate) fn extra_columns(extra: &ExtraColumns) -> Vec<String> {
    extra.schema().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
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
    ipc_scans: usize,
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
        self.ipc_scans += usize::from(plan.name() == IPC_SCAN);
        for child in plan.children() {
            self.visit(child.as_ref());
        }
    }
}

impl SelectReport {
    /// What training reads per byte that it wants, in words; empty without items.
    pub fn amplification(&self) -> String {
        match self.expected_amplification {
            None => String::new(),
            Some(times) if times < TOLD_AMPLIFICATION => format!("{times:.2} bytes read per byte of these blobs"),
            Some(times) => format!(
                "{times:.2} bytes read per byte of these blobs, since they share pages or record batches with others (a record \
                 batch is read once per window that cuts it); import writes all but small blobs into pages of their own"
            ),
        }
    }
}

impl fmt::Display for SelectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = if self.of == 0 { 0.0 } else { 100.0 * self.items as f64 / self.of as f64 };
        writeln!(f, "items            {} of {} rows ({share:.2} %)", self.items, self.of)?;
        writeln!(f, "digest           {}", self.digest)?;
        if !self.extra_columns.is_empty() {
            let (columns, bytes) = (self.extra_columns.join(", "), Bytes(self.extra_bytes));
            writeln!(f, "extra columns    {columns}: {bytes} in memory")?;
        }
        for table in &self.tables {
            let (name, hash) = (&table.name, &table.blake3);
            writeln!(f, "table            {name}: {} files, BLAKE3 {hash}", table.files.len())?;
        }
        writeln!(f, "shards           {}", self.shards)?;
        let Self { row_groups, row_groups_with_items, row_groups_pruned, scans, .. } = self;
        let scans = if *scans > 1 { format!(" over {scans} scans") } else { String::new() };
        writeln!(
            f,
            "row groups       {row_groups}: {row_groups_with_items} hold items, {row_groups_pruned} pruned{scans}"
        )?;
        writeln!(f, "read to select   {} in {} requests", Bytes(self.wire_bytes), self.wire_requests)?;
        writeln!(f, "blobs among it   {}", Bytes(self.blob_bytes_read))?;
        writeln!(f, "blobs to read    {}", Bytes(self.blob_bytes_selected))?;
        if self.expected_amplification.is_some() {
            writeln!(f, "amplification    {}", self.amplification())?;
        }
        writeln!(f, "never read       {}", Bytes(self.blob_bytes_never_read))?;
        write!(f, "took             {:.3} s", self.seconds)
    }
}

/// Bytes for people.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..10_000 => write!(f, "{bytes} bytes"),
            bytes @ 10_000..1_000_000 => write!(f, "{:.1} KB", bytes as f64 / 1e3),
            bytes @ 1_000_000..10_000_000_000 => write!(f, "{:.1} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.1} GB", bytes as f64 / 1e9),
        }
    }
}
