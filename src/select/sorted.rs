//! Shards whose row groups hold one class each: batches of them have negatives of the same class that no window mixes
//! away.
use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::parquet::file::statistics::Statistics;

use super::provider::SAMPLE_ID;
use super::reference::COLUMNS;
use super::shards::{Shard, ShardSet};
use super::warning::Warning;
use crate::schema::{Role, Schema};

/// A data set counts as sorted by a column that is constant in this share of its row groups.
const CONSTANT_SHARE: f64 = 0.5;
/// With fewer row groups order says nothing.
const MIN_ROW_GROUPS: usize = 4;
/// A query picks one value of it, so its order does not matter.
const SPLIT: &str = "split";
/// Its order matters even where a row group spans several neighbouring values.
const LABEL: &str = "label";

/// Smallest and largest value of a column in one row group, as Parquet stores them.
type Bounds = (Vec<u8>, Vec<u8>);

/// Warns of narrow columns by which the rows of `set` are sorted, judged by the statistics of its row groups.
pub fn sorted_by_low_cardinality(set: &ShardSet, schema: &Schema) -> Vec<Warning> {
    let is_blob = |name: &String| {
        set.blob_columns.contains(name) || schema.columns.iter().any(|c| c.role == Role::Blob && c.name == *name)
    };
    let columns = set.columns.fields().iter().map(|field| field.name());
    // Neighbours in a tar are meant to stay neighbours.
    let is_reference = |name: &str| COLUMNS.iter().any(|(column, _)| *column == name);
    let columns = columns.filter(|name| !is_blob(name) && !is_reference(name) && *name != SPLIT && *name != SAMPLE_ID);
    columns.filter_map(|name| warning(set, name)).collect()
}

fn warning(set: &ShardSet, column: &str) -> Option<Warning> {
    let groups: Vec<Bounds> = set.shards.iter().flat_map(|shard| bounds(shard, column)).collect();
    if groups.len() < MIN_ROW_GROUPS {
        return None;
    }
    let constant: Vec<&Bounds> = groups.iter().filter(|(min, max)| min == max).collect();
    let values: BTreeSet<&Vec<u8>> = constant.iter().map(|(min, _)| min).collect();
    let is_constant = values.len() > 1 && constant.len() as f64 >= CONSTANT_SHARE * groups.len() as f64;
    let ascends = groups.windows(2).all(|pair| pair[0].1 <= pair[1].0);
    let is_ascending = column == LABEL && ascends && groups.first()?.0 < groups.last()?.1;
    let how = match (is_constant, is_ascending) {
        (true, _) => format!("{} of {} row groups hold one value each", constant.len(), groups.len()),
        (false, true) => format!("the values of {} row groups follow each other", groups.len()),
        (false, false) => return None,
    };
    let text = format!(
        "the shards are sorted by it ({how}), so batches are filled with rows that are alike; \
         import them again, which mixes the rows, or raise shuffle_window_rows"
    );
    Some(Warning { place: format!("column {column:?}"), text })
}

/// Of every row group with several rows, none of them NULL, that has statistics.
fn bounds(shard: &Arc<Shard>, column: &str) -> Vec<Bounds> {
    let Some(metadata) = shard.parquet() else { return Vec::new() };
    let [leaf] = shard.leaves(column)[..] else { return Vec::new() };
    let groups = metadata.row_groups().iter().filter(|group| group.num_rows() > 1);
    let of = |statistics: &Statistics| {
        let is_exact = statistics.min_is_exact() && statistics.max_is_exact();
        let has_nulls = statistics.null_count_opt().is_some_and(|nulls| nulls > 0);
        let (min, max) = (statistics.min_bytes_opt()?, statistics.max_bytes_opt()?);
        (is_exact && !has_nulls).then(|| (min.to_vec(), max.to_vec()))
    };
    groups.filter_map(|group| group.column(leaf).statistics().and_then(of)).collect()
}
