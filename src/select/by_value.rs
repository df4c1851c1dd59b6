//! A selection cut by the values of a column: what `[scan.balance]` mixes.
use std::collections::BTreeMap;

use datafusion::arrow::{
    array::{Array as _, AsArray as _, UInt32Array, UInt64Array},
    compute::{cast, take},
    datatypes::{DataType, UInt64Type},
};
use futures::StreamExt as _;

use super::{
    collect::Collector,
    combine::{Combination, combine},
    provider::SAMPLE_ID,
    selection::{Provenance, Selection},
    selection_file::SavedSelection,
    session::{SHARDS_TABLE, default_partitions, session},
    shards::{MAX_ROWS, ROW_BITS, ShardSet},
};
use crate::error::{Context as _, Error, Result, Stage};

/// As an identifier, whatever SQL thinks of the name: `group` is a word of its own.
fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

/// Whether `selection` has the sample.
fn keeps(selection: &Selection, id: u64) -> bool {
    let (shard, row) = ((id >> ROW_BITS) as u32, id & (MAX_ROWS - 1));
    let behind = selection.groups.partition_point(|group| (group.shard, group.first_row) <= (shard, row));
    let Some(group) = behind.checked_sub(1).map(|at| &selection.groups[at]) else { return false };
    group.shard == shard && u32::try_from(row - group.first_row).is_ok_and(|row| group.rows.contains(row))
}

/// The samples of `selection`, which is bound to `set`, by their value of `column`; `None` are those without one. Repeats and
/// extra values stay with the samples. Reads the column of all shards once.
///
/// # Errors
/// The column cannot be read as text, or these samples have more than `most` values.
pub async fn by_value(
    set: &ShardSet,
    selection: &Selection,
    column: &str,
    most: usize,
) -> Result<BTreeMap<Option<String>, Selection>> {
    let sql = format!("SELECT {SAMPLE_ID}, {} FROM {SHARDS_TABLE}", quoted(column));
    let failed = "cannot be cut by its values; see the cause";
    let context = session(set, default_partitions())?;
    let frame = context.sql(&sql).await.context(Stage::Schema, column, failed)?;
    let mut rows = frame.execute_stream().await.context(Stage::Select, column, failed)?;
    let mut collectors: BTreeMap<Option<String>, Collector<'_>> = BTreeMap::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.context(Stage::Select, column, failed)?;
        let ids = cast(batch.column(0), &DataType::UInt64).context(Stage::Select, column, failed)?;
        let ids: &UInt64Array = ids.as_primitive::<UInt64Type>();
        let values = cast(batch.column(1), &DataType::Utf8View).context(Stage::Select, column, failed)?;
        let values = values.as_string_view();
        let mut of_batch: BTreeMap<Option<&str>, Vec<u32>> = BTreeMap::new();
        for row in (0..values.len()).filter(|row| keeps(selection, ids.value(*row))) {
            of_batch.entry(values.is_valid(row).then(|| values.value(row))).or_default().push(row as u32);
        }
        for (value, rows) in of_batch {
            let rows = UInt32Array::from(rows);
            let ids = take(ids, &rows, None).context(Stage::Select, column, failed)?;
            let ids: &UInt64Array = ids.as_primitive::<UInt64Type>();
            collectors.entry(value.map(str::to_owned)).or_insert_with(|| Collector::new(set)).add(ids)?;
        }
        // Judged while it is read: every value costs memory.
        if collectors.len() > most {
            let reason = format!("has more than {most} values; balance by a column of fewer");
            return Err(Error::at(Stage::Select, column, reason));
        }
    }
    let whole = SavedSelection::of(selection.clone(), "scan".to_owned())?;
    let mut found = BTreeMap::new();
    for (value, collector) in collectors {
        let told = value.as_deref().unwrap_or("NULL");
        let of_value = Selection::new(set, collector.finish(), Provenance::of(&format!("{sql} -- {told}")))?;
        let of_value = SavedSelection::of(of_value, format!("{column} {told}"))?;
        let kept = combine(&whole, &of_value, Combination::Intersection)?.bind(set)?;
        if kept.items() > 0 {
            found.insert(value, kept);
        }
    }
    Ok(found)
}
